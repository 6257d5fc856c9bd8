/* Seeded pseudo-random numbers (xoshiro256**), so that the same seed replays the same run. Not for secrets.
 * Owned by the caller. */
#pragma once

#include "base/base.h"

struct random {
        uint64_t s[4];
};

void random_init(struct random *, uint64_t seed);
uint64_t random_next(struct random *);
uint64_t random_below(struct random *, uint64_t bound); /* 0 .. bound-1; bound 0: 0 */
uint64_t random_seed(void);                             /* from the system */
/* the same for as long as the process lives; any thread */
uint64_t table_seed(void);
uint64_t hash_bytes(uint64_t seed, struct str); /* seeded, stable for a seed (SipHash-1-3) */
