/* Inside pkg/delivery: what the engine keeps, for the files that it is made of. */
#pragma once

#include "base/heap.h"
#include "delivery/delivery.h"
#include "delivery/flow.h"
#include "delivery/track.h"

static const usec STARVED = 10 * USEC_MSEC; /* after which memory is asked for again */

enum timer_kind { TIMER_BATCH, TIMER_LANE, TIMER_AGE, TIMER_COMMIT, TIMER_GIVE_UP };
struct timer {
        struct heap_node node;
        enum timer_kind kind;
};

/* A first-in first-out of things linked by their first member. */
struct link {
        struct link *next;
};
struct queue {
        struct link *first, **last;
};

struct track;
struct lane {
        struct link ready_link;
        bool ready; /* stands in the ready queue */
        struct track *track;
        struct record *first, **last; /* not yet in a batch */
        uint32_t queued;
        size_t queued_bytes;
        uint32_t active;   /* batches made and not finished */
        struct timer wait; /* for a batch to fill up */
        struct timer age;  /* the first record that may be sent is too old then */
};

enum batch_state { BATCH_READY, BATCH_SENT, BATCH_WAITING };
struct batch {
        struct link link;              /* in the ready queue, the detach queue or the free list */
        struct batch *next, *previous; /* of the track's batches */
        struct batch *later, *earlier; /* of those sent, by time */
        enum batch_state state;
        struct lane *lane;
        struct record *first;
        uint32_t n;
        uint32_t send; /* how many of the first are sent at once */
        /* of the first, those that the last attempt failed on: reason is of them */
        uint32_t tried;
        uint32_t suspect;    /* the failing record is among these first ones; 0: not known */
        uint32_t most;       /* more were too large; 0: not known */
        uint32_t dead;       /* these first ones go to the dead letter, one at a time */
        unsigned number;     /* attempts made with what is sent now */
        unsigned attempts;   /* dead > 0: those that failed before */
        int status;          /* of the last answer, for the dead letter */
        char *reason, *body; /* the same; owned; NULL where memory was out */
        size_t body_n;
        uint32_t slot; /* while sent */
        usec sent_at, since;
        struct timer due;         /* waiting: to be sent again, or too old; ready: too old */
        struct record *to_detach; /* the next to be detached; NULL: not in the detach queue */
        bool detached, failing, final;
        bool named; /* a partial answer named the first record */
};

struct track {
        uint32_t id;
        struct window window;
        struct account records, bytes;
        struct batch *batches;
        uint64_t committed;
        uint32_t since_commit;
        struct timer commit_timer, give_up_timer;
        struct link commit_link, credit_link, end_link;
        bool commit_due, wants_credit, hungry, revoking, lost, ended;
        uint32_t lanes_n;
        struct lane lanes[];
};

struct slot {
        struct batch *batch;
        uint32_t generation;
};

struct delivery {
        struct delivery_config config;
        struct random random;
        struct heap timers;
        struct track **tracks; /* sorted by id */
        uint32_t tracks_n, tracks_cap;
        struct track *last_track;
        struct budget records, bytes;
        struct flow flow;
        struct queue ready_lanes, ready_batches, detaches, commits, credits, ends;
        struct queue ready_dead; /* batches whose first record goes to the dead letter */
        struct queue hungry;     /* tracks that wait for shared budget */
        struct record *settled, **settled_last;
        uint32_t *cancels, cancels_n; /* tickets */
        size_t timer_places;          /* how many timers there can be at once */
        usec now;                     /* of the last delivery_next */
        /* there was no memory for a batch or a window: try again then; 0: no */
        usec starved_until;
        struct batch *sent_first, *sent_last;
        struct link *free_batches;
        struct slot *slots;
        uint32_t *free_slots, free_slots_n;
        struct record **scratch; /* the records of the last SEND */
        uint64_t seed;
        uint32_t failing, final;    /* batches */
        uint32_t dead_in_flight;    /* requests to the dead letter */
        bool dead_last, again_last; /* whose turn it was */
        enum delivery_state told_state;
        bool text_changed, on_hold;
        bool text_past; /* text tells of a failure that is over */
        char text[256];
        struct delivery_stats stats;
};

static inline void queue_init(struct queue *q) { q->first = NULL, q->last = &q->first; }

static inline void queue_add(struct queue *q, struct link *l)
{
        l->next = NULL;
        *q->last = l;
        q->last = &l->next;
}

static inline struct link *queue_take(struct queue *q)
{
        struct link *l = q->first;

        if (l && !(q->first = l->next))
                q->last = &q->first;
        return l;
}

static inline void queue_remove(struct queue *q, struct link *l)
{
        for (struct link **at = &q->first; *at; at = &(*at)->next)
                if (*at == l) {
                        *at = l->next;
                        if (q->last == &l->next)
                                q->last = at;
                        return;
                }
}

/* What is settled: delivery.c. */
bool records_age(const struct delivery *d);
void timer_arm(struct delivery *d, struct timer *t, usec at);
void batch_forget_reason(struct batch *b);
void batch_landed(struct delivery *d, struct batch *b);
void batch_ready(struct delivery *d, struct batch *b);
bool batch_searches(const struct delivery *d, const struct batch *b);
void batch_settle(struct delivery *d, struct batch *b, enum outcome outcome, usec now);
bool batch_settle_first(struct delivery *d, struct batch *b, uint32_t n, enum outcome outcome, usec now);
void batch_settled_state(struct delivery *d, struct batch *b);
usec record_old_at(const struct delivery *d, const struct record *r);
void record_settle(struct delivery *d, struct track *t, struct record *r, enum outcome outcome, usec now);
void slot_free(struct delivery *d, uint32_t slot);
uint32_t slot_ticket(const struct delivery *d, uint32_t slot);
/* What fails, or is too old: failing.c. */
void batch_cancel(struct delivery *d, struct batch *b);
void batch_expire(struct delivery *d, struct batch *b, usec now);
void batch_give_up(struct delivery *d, struct batch *b, uint32_t n, const struct answer *a, usec now);
void batch_give_up_old(struct delivery *d, struct batch *b, usec now);
void batch_wait(struct delivery *d, struct batch *b, usec until);
void batch_remember_past(struct delivery *d);
void lane_give_up_old(struct delivery *d, struct lane *l, usec now);
