/* uthash, set up once: SipHash under a seed of the process, since strangers name what is found in tables:
 * they could choose names that all meet in one place otherwise. Include this, never uthash.h. */
#pragma once

#include "base/random.h"

/* Only where a file does not define HASH_NONFATAL_OOM before, and look at hh.tbl after each HASH_ADD. */
#define uthash_fatal(message) abort()
#define HASH_FUNCTION(key, length, hash)                                                                     \
        ((hash) = (unsigned)hash_bytes(table_seed(), (struct str){ (const char *)(key), (length) }))
#include <uthash.h>
