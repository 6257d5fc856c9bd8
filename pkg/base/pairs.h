/* Names and values in their order, such as headers or the parameters of a query, and which of them share a
 * name: in time that grows with their number, whatever they are. Views are the caller's. Owned by the caller;
 * one thread. */
#pragma once

#include "base/base.h"

enum { PAIRS_END = UINT32_MAX };
struct pair {
        struct str name, value;
        uint32_t next; /* the next one of the same name, PAIRS_END: none */
        bool again;    /* one before has the same name */
};
struct pairs {
        struct pair *list;
        size_t n, cap;
        bool nocase; /* names in upper and lower case are the same (ASCII) */
        bool failed; /* out of memory; sticks */
};

#define PAIRS_INIT(no_case) ((struct pairs){ .nocase = (no_case) })
void pairs_add(struct pairs *, struct str name, struct str value);
/* Once all are there: sets next and again. */
void pairs_group(struct pairs *);
void pairs_done(struct pairs *);
static inline void cleanup_pairs(struct pairs *p) { pairs_done(p); }
#define PAIRS_AT_END CLEANUP(cleanup_pairs)
