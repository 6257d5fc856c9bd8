#include "tests/sim/world.h"

static uint32_t pick(struct world *w, const uint32_t *from, size_t n)
{
        return from[random_below(&w->random, n)];
}
#define PICK(w, ...) pick(w, (const uint32_t[]){ __VA_ARGS__ }, COUNT_OF(((const uint32_t[]){ __VA_ARGS__ })))

static void configure_engine(struct world *w)
{
        struct delivery_config *c = &w->config;

        c->ordering = (enum ordering)random_below(&w->random, 3);
        c->max_in_flight = PICK(w, 1, 2, 3, 8, 32, 64, 128);
        c->initial_in_flight = chance(w, 50) ? 0 : 1 + (uint32_t)random_below(&w->random, c->max_in_flight);
        c->batch_records = chance(w, 50) ? 1 : 2 + (uint32_t)random_below(&w->random, PICK(w, 3, 15, 62));
        c->batch_wait = chance(w, 50) ? 0 : within(w, 50 * USEC_MSEC);
        c->batch_bytes = chance(w, 50) ? 0 : 512 + (size_t)random_below(&w->random, 16384);
        c->max_records = c->max_in_flight * c->batch_records * (1 + (uint32_t)random_below(&w->random, 3));
        c->max_bytes = 2048 + (size_t)random_below(&w->random, PICK(w, 4096, 65536, 1 << 20));
        c->key_lanes = PICK(w, 1, 4, 16, 64, 256);
        c->rate = chance(w, 75) ? 0 : PICK(w, 50, 77, 300, 1000, 7000, 700001);
        c->burst = PICK(w, 1, 2, 10, 100);
        c->timeout = 30 * USEC_MSEC + within(w, USEC_SEC);
        c->max_attempts = chance(w, 50) ? 0 : PICK(w, 1, 2, 3, 5, 10);
        c->max_event_age = chance(w, 70) ? 0 : 100 * USEC_MSEC + within(w, 10 * USEC_SEC);
        c->initial_backoff = USEC_MSEC + within(w, 50 * USEC_MSEC);
        c->max_backoff = c->initial_backoff + within(w, USEC_SEC);
        c->retry_after_max = chance(w, 10) ? 0 : within(w, 2 * USEC_SEC);
        c->linear_backoff = chance(w, 30);
        c->bisect = chance(w, 40);
        c->on_exhausted = (enum on_exhausted)PICK(w, EXHAUSTED_BLOCK, EXHAUSTED_BLOCK, EXHAUSTED_DEAD_LETTER,
                                                  EXHAUSTED_DEAD_LETTER, EXHAUSTED_DROP);
        c->commit_interval = chance(w, 20) ? 0 : within(w, USEC_SEC);
        c->commit_count = PICK(w, 1, 10, 100, 1000);
}

static void configure_log(struct world *w, struct partition *p, uint32_t records)
{
        unsigned gaps = PICK(w, 0, 0, 10, 60), skips = PICK(w, 0, 0, 10, 95), huge = PICK(w, 0, 0, 1),
                 hot = PICK(w, 0, 50, 95);
        uint32_t usual = PICK(w, 1, 300, 4096);
        uint64_t position = chance(w, 50) ? 0 : random_below(&w->random, 1 << 20);

        if (records > p->cap) {
                free(p->log);
                p->cap = records;
                p->log = calloc(p->cap, sizeof(*p->log));
                if (!p->log)
                        abort();
        }
        p->n = records;
        for (uint32_t i = 0; i < p->n; i++) {
                struct entry *e = &p->log[i];

                *e = (struct entry){ .position = position,
                                     .size = 1 + (uint32_t)random_below(&w->random, usual),
                                     .skip = chance(w, skips) };
                e->key = (uint16_t)(chance(w, hot) ? 0 : random_below(&w->random, w->keys));
                if (chance(w, huge)) /* larger than the byte budget now and then */
                        e->size = 1 + (uint32_t)random_below(&w->random, MOST_RECORD);
                w->largest = MAX_OF(w->largest, e->size);
                position += 1 + (chance(w, gaps) ? random_below(&w->random, 50) : 0);
        }
}

/* A few records that no attempt helps. The first partition has none, so that there is always one that must
 * finish. */
static void poison_logs(struct world *w)
{
        enum poison kind = (enum poison)PICK(w, POISON_FINAL, POISON_FAILS, POISON_FINAL, POISON_FAILS,
                                             POISON_HANGS);

        for (uint32_t n = 1 + (uint32_t)random_below(&w->random, 6); n > 0; n--) {
                struct partition *p = &w->partitions[random_below(&w->random, w->partitions_n)];

                if (p->n && (p != &w->partitions[0] || w->partitions_n == 1))
                        p->log[random_below(&w->random, p->n)].poison = (uint8_t)kind;
        }
}

static void configure_function(struct world *w)
{
        struct function *f = &w->function;

        f->fastest = 100;
        f->slowest = f->fastest + within(w, PICK(w, 2, 20, 20, 200) * USEC_MSEC);
        f->fail_percent = PICK(w, 0, 1, 10, 40);
        f->overload_percent = PICK(w, 0, 0, 2, 20);
        f->final_percent = PICK(w, 0, 0, 1, 4);
        f->hang_percent = PICK(w, 0, 0, 1, 5);
        f->partial = chance(w, 40);
        f->partial_percent = PICK(w, 1, 10, 40);
        f->malformed_percent = PICK(w, 0, 0, 2);
        f->capacity = chance(w, 70) ? 0 : 1 + (uint32_t)random_below(&w->random, 40);
        f->size = chance(w, 80) ? 0 : 4096 + (size_t)random_below(&w->random, 32768);
        f->lies = chance(w, 20);
}

static void configure_places(struct world *w)
{
        w->workers_n = 1 + (uint32_t)random_below(&w->random, MOST_WORKERS);
        w->stored = chance(w, 30);
        w->store_fail_percent = PICK(w, 0, 10, 40);
        w->store_slowest = PICK(w, 1, 20, 300) * USEC_MSEC;
        w->dead_fail_percent = PICK(w, 0, 10, 50);
        w->dead_hang_percent = PICK(w, 0, 0, 5);
        w->dead_broken = w->config.on_exhausted == EXHAUSTED_DEAD_LETTER && chance(w, 10);
        w->lend_most = PICK(w, 0, 0, 1, 7);
        w->crash_every = chance(w, 90) ? 0 : 20 + (unsigned)random_below(&w->random, 400);
        w->crash_in = w->crash_every;
        w->no_memory_percent = chance(w, 95) ? 0 : PICK(w, 10, 50, 90);
        w->stir_weight = PICK(w, 0, 10, 40, 100);
}

static bool can_exhaust(const struct world *w, enum poison kind)
{
        const struct delivery_config *c = &w->config;

        return c->on_exhausted != EXHAUSTED_BLOCK &&
               (kind == POISON_FINAL || c->max_attempts || c->max_event_age);
}

bool entry_hopeless(const struct world *w, const struct entry *e)
{
        if (w->function.size && e->size > w->function.size)
                return !can_exhaust(w, POISON_FINAL);
        return e->poison && !can_exhaust(w, (enum poison)e->poison);
}

static void find_blocks(struct world *w)
{
        w->may_block = w->dead_broken;
        for (uint32_t i = 0; i < w->partitions_n; i++)
                for (uint32_t o = 0; o < w->partitions[i].n && !w->may_block; o++)
                        w->may_block = !w->partitions[i].log[o].skip &&
                                       entry_hopeless(w, &w->partitions[i].log[o]);
}

void world_configure(struct world *w)
{
        configure_engine(w);
        configure_function(w);
        configure_places(w);
        w->partitions_n = 1 + (uint32_t)random_below(&w->random, MOST_PARTITIONS);
        w->keys = PICK(w, 1, 12, 100, MOST_KEYS);
        w->faults_end = within(w, 20 * USEC_SEC);
        w->stuck_after = 4000 * USEC_SEC;
        for (uint32_t i = 0; i < w->partitions_n; i++)
                configure_log(w, &w->partitions[i], (uint32_t)random_below(&w->random, 600));
        if (chance(w, 35))
                poison_logs(w);
        if (w->scenario && w->scenario->configure)
                w->scenario->configure(w);
        find_blocks(w);
}
