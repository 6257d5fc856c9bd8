/* A Trigger as the API server has it, through the one decoder. Any thread. */
#pragma once

#include <jansson.h>

#include "api/trigger.h"

/* Members of another version are passed by. NULL: what is wrong is among the problems, or memory is out. */
struct trigger *decode_object(json_t *, const struct source_type *, size_t types_n, struct problems *);
