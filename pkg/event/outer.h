/* The fields that stand beside the records in FunctionGraph's classic events of SMN and DMS: functionname,
 * requestId and timestamp. Any thread. */
#pragma once

#include "api/trigger.h"
#include "json/writer.h"

/* Within an object. id: of the first record; the request's id is a UUID made of it, the same each time.
 * received: wall. */
void outer_write(const struct trigger *, struct str id, usec received, struct writer *);
