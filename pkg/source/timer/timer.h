/* The timer source: ticks by FunctionGraph's schedules. A tick is claimed in the checkpoint before it is lent and settled there when it is
 * committed; a claim found at start is sent again with the same id. Track 0; a tick's position is its scheduled time in usec since 1970. */
#pragma once

#include "source/driver.h"

enum misfire_policy { MISFIRE_SKIP, MISFIRE_FIRE_ONCE, MISFIRE_CATCH_UP };
struct timer_spec { char *schedule, *time_zone, *user_event; int misfire_policy; };

extern const struct type timer_type;
extern const struct driver timer_driver;
