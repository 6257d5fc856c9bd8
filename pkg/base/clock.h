/* Time: the system's clocks behind a struct of functions, so that tests and the simulator inject their own;
 * Go durations and RFC 3339. Owns nothing; any thread. */
#pragma once

#include "base/buf.h"

struct clock {
        usec (*monotonic)(void *cookie); /* never goes back; for intervals and deadlines */
        usec (*wall)(void *cookie);      /* since 1970, UTC; may jump */
        void *cookie;
};
extern const struct clock system_clock;

static inline usec clock_monotonic(const struct clock *c) { return c->monotonic(c->cookie); }
static inline usec clock_wall(const struct clock *c) { return c->wall(c->cookie); }

/* Go's time.ParseDuration, and whole days ("1d"), which FunctionGraph's rates use: "1.5h", "2h30m", "300ms",
 * "-1s". */
bool duration_parse(struct str, usec *out) MUST_CHECK;
void duration_format(struct buf *, usec); /* as Go prints it: 1h30m0s, 1.5s, 300ms, 0s */
void duration_short(struct buf *, usec);  /* as kubectl prints an age: 5s, 3m12s, 2h, 5d */

/* Does it lie in the years 1 to 9999 UTC, which every reader of RFC 3339 takes? Others come from outside, and
 * are left out where a time would be written. */
bool time_is_writable(usec wall);
/* RFC 3339 with seconds or fractions and Z or an offset, in the years 0 to 9999 UTC. wall clock. */
bool time_parse(struct str, usec *out) MUST_CHECK;
/* 2026-11-24T10:00:00Z; fractions only when there are some */
void time_format(struct buf *, usec wall);
void time_format_micro(struct buf *, usec wall); /* always six digits: Kubernetes MicroTime */
/* Wall-clock seconds ↔ the parts of a UTC day (proleptic Gregorian). month and day from 1. */
int64_t days_from_civil(int64_t year, int month, int day);
void civil_from_days(int64_t days, int64_t *year, int *month, int *day);
