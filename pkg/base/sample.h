/* Lines of the log that strangers can cause: so many a second, and how many were left out. Owned by the
 * caller. */
#pragma once

#include "base/base.h"

enum { SAMPLE_A_SECOND = 20 };
struct log_sample {
        usec begun;
        uint32_t said;
        uint64_t unsaid;
};

/* May one more be said? *unsaid: how many were not since the last one that was. now: monotonic. */
static inline bool sample_take(struct log_sample *s, usec now, uint64_t *unsaid)
{
        if (!s->begun || now - s->begun >= USEC_SEC) {
                s->begun = now;
                s->said = 0;
        }
        if (s->said == SAMPLE_A_SECOND) {
                s->unsaid++;
                return false;
        }
        s->said++;
        *unsaid = s->unsaid;
        s->unsaid = 0;
        return true;
}
