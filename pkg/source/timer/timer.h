/* The timer source: ticks by FunctionGraph's schedules and Kubernetes'. A tick is claimed in the checkpoint
 * before it is lent and settled there once it is done; a claim that nobody settled is sent again with the
 * same id. Track 0; a tick's position is its scheduled time in usec since 1970, or more where the clock was
 * set back. spec.c has the fields, schedule.c when it ticks, shape.c its events, timer.c the source. */
#pragma once

#include "source/source.h"
#include "source/timer/schedule.h"

enum misfire_policy { MISFIRE_SKIP, MISFIRE_FIRE_ONCE, MISFIRE_CATCH_UP };
enum concurrency_policy { CONCURRENCY_FORBID, CONCURRENCY_ALLOW };
struct timer_spec {
        char *schedule, *cron /* one of the two */, *time_zone;
        char *user_event, *user_event_base64 /* "" or NULL: not this one */, *content_type;
        int misfire_policy, concurrency_policy;
        usec starting_deadline, misfire_max_age /* 0: no limit */, jitter;
        usec start_time, end_time; /* 0: none */
        struct strings exclude;
};

/* When it ticks; zones: where they are shared, NULL: nowhere. 0, or -1 with the field's name and what is
 * wrong. */
int timer_schedule(const struct timer_spec *, void **zones, struct schedule *, struct error *) MUST_CHECK;
/* How much later than scheduled the ticks of a Trigger are sent, the same after each restart. */
usec timer_jitter(const struct timer_spec *, const char *uid);

/* What a tick's record has for its origin. */
struct tick_origin {
        const struct zone *zone;
        struct str base64; /* of its value; n 0: it is text */
};
/* The id of the tick of that time: "UID/2026-01-31T08:00:00Z". */
void tick_id(const struct trigger *, usec time, struct buf *);

extern const struct type timer_type;
extern const struct shape timer_shape;
extern const struct source_kind timer_source;
