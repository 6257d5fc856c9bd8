/* An intrusive binary min-heap by time: the loop's deadlines and the engine's back-offs. The nodes belong to
 * the caller; the heap owns only its array of pointers, grown by doubling. One thread. */
#pragma once

#include "base/base.h"

/* index 0: not in a heap */
struct heap_node {
        usec at;
        size_t index;
};
/* nodes[1] is the earliest */
struct heap {
        struct heap_node **nodes;
        size_t n, cap;
};

void heap_done(struct heap *);
/* so that later inserts up to that many cannot fail */
bool heap_reserve(struct heap *, size_t nodes) MUST_CHECK;
/* or moves it; false: out of memory */
bool heap_insert(struct heap *, struct heap_node *, usec at) MUST_CHECK;
void heap_remove(struct heap *, struct heap_node *); /* no-op when it is not in */
static inline struct heap_node *heap_first(const struct heap *h) { return h->n ? h->nodes[1] : NULL; }
static inline bool heap_has(const struct heap_node *n) { return n->index != 0; }
