/* Allocations of what is simulated that fail. One thread. */
#pragma once

#include "base/base.h"

void memory_of(bool (*refuses)(void *cookie), void *cookie); /* asked at each allocation */
