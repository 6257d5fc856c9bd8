/* uthash, set up once: FNV-1a instead of the default, whose fall-through clang refuses. Include this, never uthash.h. */
#pragma once

#define HASH_FUNCTION(key, length, hash) HASH_FNV(key, length, hash)
#include <uthash.h>
