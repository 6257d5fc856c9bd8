/* When a timer ticks: its cron schedule or rate in its zone, from startTime on until endTime, but for the
 * days that are left out. Immutable once it is read; any thread, unless its zone is shared. */
#pragma once

#include "api/schema.h"
#include "source/timer/cron.h"

/* Days that are left out, by the zone's calendar, first and last. */
struct days_out {
        bool yearly;         /* month * 100 + day, each year; else days since 1970 */
        int64_t first, last; /* yearly: first > last goes over New Year */
};
/* "2026-12-24", "2026-12-24/2027-01-02", "12-25" or "12-24/01-02". false: it is none of them, or no date. */
bool days_out_parse(struct str, struct days_out *) MUST_CHECK;

struct schedule {
        struct cron cron;
        struct zone *zone;
        struct days_out *out;
        size_t out_n;
        usec start, end; /* wall; 0: none */
};

/* Reads the days that are left out. -1: out of memory, or one that is none. */
int schedule_leave_out(struct schedule *, const struct strings *, struct error *) MUST_CHECK;
void schedule_done(struct schedule *);
/* the first tick after that wall time; USEC_NEVER: none within 9 years, or before the end */
usec schedule_next(const struct schedule *, usec after);
/* the last tick in (after, until]; USEC_NEVER: none */
usec schedule_latest(const struct schedule *, usec after, usec until);
