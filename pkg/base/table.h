/* uthash, set up once: SipHash under a seed of the process, since strangers name what is found in tables:
 * they could choose names that all meet in one place otherwise. Include this, never uthash.h. */
#pragma once

#include "base/random.h"

#define HASH_FUNCTION(key, length, hash)                                                                     \
        ((hash) = (unsigned)hash_bytes(table_seed(), (struct str){ (const char *)(key), (length) }))
#include <uthash.h>
