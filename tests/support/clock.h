/* For tests: a clock that the test sets. It stands still; or it runs with the system's, ahead of it by what
 * is set. */
#pragma once

#include "base/clock.h"

struct set_clock {
        usec monotonic, wall;
        bool runs;
};

static inline usec set_clock_monotonic(void *cookie)
{
        const struct set_clock *c = cookie;

        return c->monotonic + (c->runs ? clock_monotonic(&system_clock) : 0);
}

static inline usec set_clock_wall(void *cookie)
{
        const struct set_clock *c = cookie;

        return c->wall + (c->runs ? clock_wall(&system_clock) : 0);
}

/* c: borrowed for as long as it is used. */
#define SET_CLOCK(c)                                                                                         \
        {                                                                                                    \
                .monotonic = set_clock_monotonic, .wall = set_clock_wall, .cookie = (c)                      \
        }

static inline void set_clock_pass(struct set_clock *c, usec time)
{
        c->monotonic += time;
        c->wall += time;
}
