/* The timer source: ticks by FunctionGraph's schedules. A tick is claimed in the checkpoint before it is lent
 * and settled there when it is committed; a claim found at start is sent again with the same id. Track 0; a
 * tick's position is its scheduled time in usec since 1970. */
#pragma once

#include "source/source.h"
#include "source/timer/zone.h"

enum misfire_policy { MISFIRE_SKIP, MISFIRE_FIRE_ONCE, MISFIRE_CATCH_UP };
struct timer_spec {
        char *schedule, *cron /* one of the two */, *time_zone, *user_event;
        int misfire_policy;
};

struct cron;
/* The schedule, in its zone. 0, or -1 with what is wrong, without the field's name. */
int timer_schedule(const struct timer_spec *, struct cron *, struct zone **, struct error *) MUST_CHECK;

extern const struct type timer_type;
extern const struct source_kind timer_source;
