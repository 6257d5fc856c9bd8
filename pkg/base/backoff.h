/* The one back-off: exponential with full jitter (a uniform draw from 0 to min(most, initial·2^attempt)).
 * Owns nothing. */
#pragma once

#include "base/random.h"

/* attempt counts from 0. The result is at least floor (0: none), so that a loop always yields. */
usec backoff_full_jitter(struct random *, usec initial, usec most, unsigned attempt, usec floor);
