/* Schedules in FunctionGraph's syntax: rates ("3m", "2h", "1d"), "@every 1h30m", and cron "sec min hour dom
 * month [dow]" with ? in dom and dow, names, lists, ranges, steps, and an optional prefix "CRON_TZ=Zone ";
 * and Kubernetes' five fields. Five of FunctionGraph's that Kubernetes would take for something else are
 * refused. Owns nothing; any thread.
 *
 * Rates and @every tick at whole multiples of the period since 1970 UTC, so that two processes agree on every
 * tick. When a zone's clock jumps ahead, a run that falls into the gap is made when the gap ends; when it
 * goes back, a run in the hour that comes twice is made the first time, unless the hour is a * or a step over
 * it: then the schedule is an interval and runs both times. */
#pragma once

#include "base/clock.h"
#include "source/timer/zone.h"

struct cron {
        usec period; /* > 0: a rate; the rest is not used then */
        uint64_t seconds, minutes;
        uint32_t hours, days, months;
        uint8_t weekdays; /* bit 0: Sunday */
        bool any_hour, any_day, any_weekday;
};

/* Kubernetes' form, read as robfig/cron 3 reads it, on which CronJobs run: five fields, minute hour dom month
 * dow, 0 and 7 being Sunday, or @hourly, @daily, @weekly, @monthly, @yearly. */
int cron_parse_kubernetes(struct str, struct cron *, struct buf *why) MUST_CHECK;
/* zone: what CRON_TZ named, n 0: nothing. 0, or -1 with the reason appended to why. */
int cron_parse(struct str, struct cron *, struct str *zone, struct buf *why) MUST_CHECK;
/* the first run after that wall time; USEC_NEVER: none within 9 years */
usec cron_next(const struct cron *, const struct zone *, usec after);
/* the last run in (after, until]; USEC_NEVER: none */
usec cron_latest(const struct cron *, const struct zone *, usec after, usec until);
