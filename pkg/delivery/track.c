#include "delivery/track.h"

#include <assert.h>

static const uint64_t DONE = (uint64_t)1 << 63;

void window_done(struct window *w)
{
        free(w->ring);
        *w = (struct window){ 0 };
}

bool window_reserve(struct window *w, uint32_t more)
{
        uint32_t need = window_span(w) + more, cap = w->cap ? w->cap : 16;
        uint64_t *ring;

        if (need <= w->cap)
                return true;
        while (cap < need)
                cap *= 2;
        ring = malloc(cap * sizeof(*ring));
        if (!ring)
                return false;
        for (uint32_t o = w->head; o != w->tail; o++)
                ring[o & (cap - 1)] = w->ring[o & (w->cap - 1)];
        free(w->ring);
        w->ring = ring;
        w->cap = cap;
        return true;
}

uint32_t window_push(struct window *w, uint64_t position)
{
        assert(window_span(w) < w->cap && !(position & DONE));
        w->ring[w->tail & (w->cap - 1)] = position;
        return w->tail++;
}

bool window_finish(struct window *w, uint32_t ordinal)
{
        bool moved = false;

        w->ring[ordinal & (w->cap - 1)] |= DONE;
        for (; w->head != w->tail && (w->ring[w->head & (w->cap - 1)] & DONE); w->head++) {
                w->next = (w->ring[w->head & (w->cap - 1)] & ~DONE) + 1;
                moved = true;
        }
        return moved;
}

static int64_t above(const struct budget *b, const struct account *a)
{
        return MAX_OF(account_use(a) - b->reserve, (int64_t)0);
}

void budget_move(struct budget *b, struct account *a, int64_t granted, int64_t held)
{
        b->shared_used -= above(b, a);
        a->granted += granted;
        a->held += held;
        b->shared_used += above(b, a);
        b->used += granted + held;
}

int64_t budget_allowed(const struct budget *b, const struct account *a, uint32_t tracks)
{
        int64_t shared = MAX_OF(b->total - b->reserve * (int64_t)tracks - b->shared_used, (int64_t)0);

        int64_t allowed = MIN_OF(MAX_OF(b->reserve - account_use(a), (int64_t)0) + shared,
                                 b->total - b->used);

        /* What a track owes is paid in full, or it could never lend again. */
        return MAX_OF(allowed, account_use(a) <= 0 ? 1 - account_use(a) : 0);
}
