/* Allocations of what is simulated, or tested, that fail. One thread. */
#pragma once

#include "base/base.h"

void memory_of(bool (*refuses)(void *cookie), void *cookie); /* asked at each allocation */
/* The nth from now on fails, alone or with all that come after it; 0: none any more. */
void memory_fails(uint64_t nth, bool all_after);
bool memory_failed(void); /* one did since an nth was given last */
