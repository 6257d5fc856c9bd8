/* A token bucket as one instant: the time at which all that was taken will be paid for. A full bucket's lies
 * in the past; one with a debt of `burst` gives nothing until some of it is paid. Nanoseconds, rounded so
 * that the rate is never exceeded. Pure; any thread. */
#pragma once

#include "base/base.h"

/* of one token, in nanoseconds; how many at once after a rest */
struct bucket_rate {
        int64_t cost, burst;
};
#define BUCKET_FULL INT64_MIN /* nothing was ever taken */

static inline struct bucket_rate bucket_rate(int64_t tokens, usec period, int64_t burst)
{
        return (struct bucket_rate){ .cost = (period * 1000 + tokens - 1) / tokens, .burst = burst };
}

/* From when on (nanoseconds) another one may be taken. */
static inline int64_t bucket_from(const struct bucket_rate *r, int64_t paid_until)
{
        int64_t most = INT64_MAX / 4 / r->cost; /* decades */

        return paid_until == BUCKET_FULL ? BUCKET_FULL : paid_until - MIN_OF(r->burst - 1, most) * r->cost;
}

static inline bool bucket_gives(const struct bucket_rate *r, int64_t paid_until, usec now)
{
        return bucket_from(r, paid_until) <= now * 1000;
}
/* The instant after so many were taken. */
static inline int64_t bucket_take(const struct bucket_rate *r, int64_t paid_until, int64_t tokens, usec now)
{
        return MAX_OF(paid_until, now * 1000) + tokens * r->cost;
}
/* When it gives again: now or later. */
static inline usec bucket_at(const struct bucket_rate *r, int64_t paid_until, usec now)
{
        return bucket_gives(r, paid_until, now) ? now : (bucket_from(r, paid_until) + 999) / 1000;
}
