#include "base/backoff.h"

usec backoff_full_jitter(struct random *r, usec initial, usec most, unsigned attempt, usec floor)
{
        usec ceiling = attempt < 63 && initial <= most >> attempt ? initial << attempt : most;

        return MAX_OF((usec)random_below(r, (uint64_t)ceiling + 1), floor);
}
