/* How fast each caller goes: a token bucket for each of so many callers, of which only a hash is known. Each
 * call takes the same time and no memory. A caller that is new when the table is full takes the place of one
 * that has not called for longest, of one whose bucket is full where the last few have such. Loop's thread.
 */
#pragma once

#include "base/bucket.h"
#include "base/error.h"

struct callers;
int callers_new(struct callers **, const struct bucket_rate *, uint32_t most, struct error *) MUST_CHECK;
struct callers *callers_free(struct callers *); /* NULL is fine */
/* Takes one call of the caller's. 0: it may; otherwise how long until it may, and nothing is taken. */
usec callers_take(struct callers *, uint64_t caller, usec now);
uint32_t callers_count(const struct callers *);
