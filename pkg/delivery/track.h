/* Inside pkg/delivery: a track's window of positions, and the budget that tracks share. No I/O, no clock;
 * owned by the engine. */
#pragma once

#include "base/base.h"

/* What was lent and is not committed, in order, as a ring of positions with a mark for those that are done.
 * Grows by doubling to what the budget allows, so that nothing is allocated per record. */
struct window {
        uint64_t *ring;      /* the top bit: done */
        uint32_t cap;        /* a power of two; 0 before the first record */
        uint32_t head, tail; /* ordinals; head == tail: empty. Both run on and wrap */
        uint64_t next;       /* every position below is done; 0: nothing yet */
};

void window_done(struct window *);
bool window_reserve(struct window *, uint32_t more) MUST_CHECK; /* so that more pushes cannot fail */
uint32_t window_push(struct window *, uint64_t position);       /* its ordinal */
bool window_finish(struct window *, uint32_t ordinal);          /* true: next moved */
static inline uint32_t window_span(const struct window *w) { return w->tail - w->head; }

/* A resource shared by tracks: each has a reserve of its own, so that a stuck one starves nobody, and the
 * rest is for whoever asks. */
struct budget {
        int64_t total, reserve; /* reserve: per track */
        int64_t used;           /* by all tracks */
        int64_t shared_used;    /* sum over the tracks of what they use above their reserve */
};
/* granted: in credit, not lent yet */
struct account {
        int64_t granted, held;
};

static inline int64_t account_use(const struct account *a) { return a->granted + a->held; }
/* Moves both figures by the given amounts. */
void budget_move(struct budget *, struct account *, int64_t granted, int64_t held);
/* How much may be granted more. A track that uses nothing always gets 1, so that the sum stays below total +
 * tracks. */
int64_t budget_allowed(const struct budget *, const struct account *, uint32_t tracks);
