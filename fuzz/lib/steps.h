#pragma once

#include <stdint.h>

extern uint64_t steps;
