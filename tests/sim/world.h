/* The simulated world round the real delivery engine: partitions with growing logs, workers that come, go and
 * overlap, a function, a dead-letter store, a checkpoint store, one virtual clock, one seed. What happened is
 * kept as facts per log entry; what each engine was told is kept as a model per worker, and every action is
 * held against both (checks.c). One thread; nothing here reads a clock.
 *
 *   sim.c       options, seeds, a run            source.c    logs, rebalances, credit, commits
 *   config.c    the space of configurations      function.c  answers, dead letters, time-outs
 *   worker.c    an engine's life and its actions store.c     positions behind pkg/port/store.h
 *   checks.c    the promises                     scenario.c  worlds made for one question
 *   memory.c    allocations that fail           reader*.c   the world round the reader (reader_world.h) */
#pragma once

#include <inttypes.h>
#include <stdio.h>

#include "base/heap.h"
#include "base/random.h"
#include "delivery/delivery.h"
#include "port/store.h"

enum {
        MOST_PARTITIONS = 10,
        MOST_KEYS = 1024,
        MOST_WORKERS = 2,
        MOST_BATCH = 64,
        MOST_RECORD = 1 << 16,
        STALE = 16,
        TICKETS = 1024
};

enum poison { POISON_NONE, POISON_FINAL, POISON_FAILS, POISON_HANGS };

/* A record of the log, and what became of it in the end: facts that survive every crash. */
struct entry {
        uint64_t position;
        uint32_t size;
        uint16_t key;
        uint8_t poison; /* enum poison */
        bool skip;      /* the filter does not want it */
        bool accepted, dead, dropped, skipped;
        uint16_t times; /* taken by the function */
        /* how often it may: each lending, each answer that was lost, each partial answer in order */
        uint16_t licences;
};

struct partition {
        struct entry *log;
        uint32_t n, end, cap; /* records; how far the log has grown */
        uint32_t generation;  /* of its owner: what an older one commits is refused */
        int owner;            /* worker; -1: nobody yet */
        usec back_at;         /* a new owner is found then */
        usec grow_at, lend_at;
        /* The position that the broker or the store keeps; fence: the generation that may write it. */
        uint64_t stored;
        uint32_t fence;
};

/* A record while a worker holds it. */
struct item {
        struct record record; /* the first member: the engine's pointer is the item's */
        struct entry *entry;
        struct flight *flight;
        struct item *next, *previous; /* of its lane */
        struct lane_model *lane;
        uint32_t index; /* in the log */
        usec lent_at;
        uint32_t wait;     /* the attempt whose pause it waits for */
        unsigned failures; /* answers that left it */
        unsigned last_number;
        int last_status;
        const char *last_text;
        bool to_bury, detached, accepted, taken, failing, blocked, dying, at_fault, final, tried;
};
struct lane_model {
        struct item *first, *last;
        struct flight *flight;
};

/* A worker's view of a partition. */
struct holding {
        bool loading, assigned, leaving, lost;
        uint32_t generation;
        usec give_up_at;
        usec lost_at; /* it hears then that another has it */
        /* indices of the log: to be lent; the lowest not done; committed */
        uint32_t next, low, committed_low, lent;
        int64_t credit, bytes;
        /* when nothing more could be lent, last: a batch that was made then did not wait */
        usec dry_at;
        uint32_t since_commit, settled_since_ack;
        usec moved_at; /* when low first moved after a commit */
        bool must_commit;
        uint8_t *done;
        uint32_t done_cap;
        struct lane_model *lanes;
        uint32_t lanes_n;
        uint32_t dying;
        /* Positions in a store are put one at a time. */
        uint64_t wanted, putting;
        bool busy;
        usec put_at;
};

struct attempt {
        usec not_before;
        bool overload;
};

struct flight {
        struct heap_node due;
        struct flight *next;            /* of its bucket, or free */
        struct flight *earlier, *later; /* of its worker */
        struct worker *worker;
        uint32_t ticket, track, n, serial;
        unsigned number;
        bool dead, held; /* held: it counts in the function's load */
        usec sent_at;
        struct answer answer;
        uint32_t failed[MOST_BATCH];
        struct item *items[MOST_BATCH];
};

struct stored_op {
        struct store_request request;
        bool used, is_get, fails;
        uint32_t generation;
        uint64_t value;
        usec done_at;
};

struct worker {
        struct world *world;
        int number;
        struct delivery *engine; /* NULL: down */
        uint64_t seed;
        usec up_at, started_at;
        struct holding holdings[MOST_PARTITIONS];
        uint32_t lane_of_key[MOST_KEYS];
        struct flight *oldest, *newest, *buckets[TICKETS];
        uint32_t flights, dead_flights, blocked, failing;
        int64_t held, held_bytes;
        uint64_t accepted, dropped, dead_lettered, filtered, released, offered;
        bool on_hold, crashing;
        bool stirred; /* it was given something since it was last drained */
        usec hold_until;
        usec paused_until; /* the sink asked for that */
        double bucket;     /* what the rate has let through, leaking */
        usec bucket_at;
        unsigned refused; /* in a row, each sent after the last was refused */
        usec refused_at;
        /* exhausted, and not yet on the way to the dead letter; only where batches are of one */
        uint32_t to_bury;
        uint32_t dry;         /* tracks that want to lend and may not, as bits */
        uint32_t must_settle; /* accepted or taken, and not yet handed back */
        enum delivery_state state;
        struct store store;
        struct stored_op ops[MOST_PARTITIONS];
        uint32_t stale[STALE];
};

struct function {
        unsigned fail_percent, final_percent, hang_percent, partial_percent, malformed_percent,
                overload_percent;
        usec fastest, slowest;
        uint32_t capacity; /* requests at once; beyond: 429 or 503; 0: any */
        size_t size;       /* of a request; 0: any */
        bool partial, lies, down;
        usec down_until;
        int down_status;
        uint32_t load;
};

struct herd {
        usec accepted_at;
        uint64_t before;
        unsigned while_down, first_second;
        bool recovered;
};

struct world {
        uint64_t seed;
        struct random random;
        const struct scenario *scenario;
        usec now, faults_end, stir_at, stuck_after;
        struct delivery_config config;
        struct partition partitions[MOST_PARTITIONS];
        uint32_t partitions_n, keys, workers_n;
        struct worker workers[MOST_WORKERS];
        struct function function;
        unsigned dead_fail_percent, dead_hang_percent;
        bool dead_broken; /* the dead-letter store never takes anything */
        bool dead_hangs;  /* nor does it answer */
        bool stored;      /* positions live in the checkpoint store */
        unsigned store_fail_percent;
        usec store_slowest;
        bool may_block;             /* some record may stay for ever */
        unsigned no_memory_percent; /* of the engine's allocations */
        bool in_engine;
        bool calm;            /* no crashes, no rebalances */
        unsigned crash_every; /* kill -9 after each so many actions; 0: no */
        unsigned crash_in;
        unsigned stir_weight;
        uint32_t largest;   /* record */
        uint32_t lend_most; /* the source hands out so many at a time; 0: all it may */
        struct heap flights;
        struct flight *free_flights;
        struct attempt *attempts; /* by serial */
        uint32_t attempts_n, attempts_cap;
        uint64_t steps, same_moment, events, requests, crashes, rebalances, losses, overlaps, conflicts,
                duplicates, dead_letters, cancels, filtered, partials, halves, stales;
        struct herd herd; /* of that scenario */
        bool verbose;
};

void world_fail(const struct world *, const char *what, uint32_t track, uint64_t position)
        __attribute__((noreturn));
#define say(w, ...)                                                                                          \
        do {                                                                                                 \
                if ((w)->verbose) {                                                                          \
                        (void)printf("%11" PRId64 " ", (w)->now);                                            \
                        (void)printf(__VA_ARGS__);                                                           \
                }                                                                                            \
        } while (0)
static inline bool chance(struct world *w, unsigned percent)
{
        return random_below(&w->random, 100) < percent;
}
static inline usec within(struct world *w, usec most)
{
        return (usec)random_below(&w->random, (uint64_t)most + 1);
}
static inline usec earlier(usec a, usec b) { return a < b ? a : b; }
static inline usec later(usec a, usec b) { return a > b ? a : b; }
static inline bool faulty(const struct world *w) { return w->now < w->faults_end; }

/* config.c */
void world_configure(struct world *);

/* source.c */
uint32_t log_index(const struct partition *, uint64_t position); /* the first entry at or above */
uint64_t log_end(const struct partition *);
void source_turn(struct world *);
usec source_deadline(const struct world *);
void source_lend(struct worker *, uint32_t track);
void source_loaded(struct worker *, uint32_t track, uint64_t position);
void source_settle(struct worker *, struct item *); /* takes the item */
void source_commit(struct worker *, uint32_t track, uint64_t position);
void source_acknowledged(struct worker *, uint32_t track, bool failed);
void source_revoked(struct worker *, uint32_t track);
void source_stir(struct world *);                    /* a fault */
void source_forget(struct worker *, uint32_t track); /* after a crash */
bool source_finished(struct world *);

/* store.c */
void store_open(struct worker *);
void store_turn(struct world *);
usec store_deadline(const struct world *);
void store_crash(struct worker *);

/* function.c */
void function_take(struct worker *, const struct action *); /* SEND, DEAD_LETTER */
void function_cancel(struct worker *, const struct action *);
void function_turn(struct world *);
usec function_deadline(const struct world *);
void function_crash(struct worker *);                            /* half of what is under way arrives */
bool entry_hopeless(const struct world *, const struct entry *); /* no attempt can succeed */

/* worker.c */
void worker_start(struct worker *);
void worker_crash(struct worker *);
void worker_drain(struct worker *);
usec worker_deadline(const struct worker *);
void worker_stop(struct worker *); /* in order, at the end */

/* checks.c: the model of what an engine was told, and the promises */
void check_sent(struct worker *, struct flight *, const struct action *);
void check_cancelled(struct worker *, struct flight *);
void check_answer(struct worker *, struct flight *, const struct answer *);
void check_settled(struct worker *, struct item *, enum outcome);
void check_committed(struct worker *, uint32_t track, uint64_t position);
void check_durable(struct world *, uint32_t track, uint64_t from, uint64_t to);
void check_revoked(struct worker *, uint32_t track);
void check_state(struct worker *, const struct action *);
void check_quiet(struct worker *); /* after a drain */
void check_end(struct world *);

/* scenario.c */
struct scenario {
        const char *name;
        unsigned every; /* seeds; 0: only when asked for */
        void (*configure)(struct world *);
        void (*sent)(struct world *, struct worker *, const struct flight *);
        void (*turn)(struct world *);
        void (*end)(struct world *);
};
const struct scenario *scenario_find(const char *name); /* NULL: unknown */
const struct scenario *scenario_of(uint64_t seed);      /* what a seed of a long run plays */
