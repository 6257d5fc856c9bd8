/* Time zones read from the system's database (TZif, RFC 8536), each an object of its own, unlike libc's one
 * zone per process. Immutable after loading; any thread, but for those that are shared. */
#pragma once

#include "base/error.h"

struct zone;

/* "Europe/Berlin"; "" and "UTC": UTC */
int zone_load(struct zone **, struct str name, struct error *) MUST_CHECK;
/* The same, one for all that ask at this place for that name: it keeps the zones that are in use, NULL at
 * first. One thread. */
int zone_share(void **place, struct zone **, struct str name, struct error *) MUST_CHECK;
struct zone *zone_free(struct zone *); /* takes NULL, returns NULL */
/* local minus UTC then, in seconds; NULL: UTC */
int64_t zone_offset(const struct zone *, int64_t utc_seconds);
