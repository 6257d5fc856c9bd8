#include "tests/sim/world.h"

/* Worlds made for one question. Those with `every` are played by each so many seeds of a long run, the rest
 * of which is left to chance. */

/* ---- herd: what a thousand lanes do to a function that comes back ------- */

enum { HERD_MOST = 256, HERD_RECORDS = 100000 };
static const usec HERD_DOWN = USEC_SEC, HERD_UP = 61 * USEC_SEC;

static void herd_log(struct world *w)
{
        struct partition *p = &w->partitions[0];

        free(p->log);
        p->n = p->end = p->cap = HERD_RECORDS;
        if (!(p->log = calloc(p->cap, sizeof(*p->log))))
                abort();
        for (uint32_t i = 0; i < p->n; i++)
                p->log[i] = (struct entry){ .position = i,
                                            .size = 100,
                                            .key = (uint16_t)random_below(&w->random, 1000) };
}

static void herd_configure(struct world *w)
{
        w->partitions_n = w->workers_n = 1;
        w->keys = 1000;
        w->calm = true;
        w->stored = w->dead_broken = false;
        w->lend_most = w->crash_every = w->no_memory_percent = 0;
        w->largest = 100;
        w->faults_end = HERD_UP;
        w->stuck_after = 10 * USEC_MINUTE;
        w->function = (struct function){ .fastest = 5 * USEC_MSEC + within(w, 45 * USEC_MSEC),
                                         .down_status = chance(w, 50) ? 503 : 429 };
        w->function.slowest = w->function.fastest;
        w->config = (struct delivery_config){ .ordering = ORDERING_KEY,
                                              .max_in_flight = HERD_MOST,
                                              .max_records = 4096,
                                              .max_bytes = 1 << 20,
                                              .key_lanes = 4096,
                                              .batch_records = 1,
                                              .timeout = USEC_SEC,
                                              .initial_backoff = 100 * USEC_MSEC,
                                              .max_backoff = 5 * USEC_SEC,
                                              .retry_after_max = USEC_SEC,
                                              .commit_interval = USEC_SEC,
                                              .commit_count = 1000 };
        w->herd = (struct herd){ 0 };
        herd_log(w);
}

static void herd_sent(struct world *w, struct worker *k, const struct flight *f)
{
        struct herd *h = &w->herd;

        if (w->now > HERD_DOWN + 5 * USEC_SEC && w->now < HERD_UP && ++h->while_down > 200)
                world_fail(w, "the circuit does not open: the function is not spared while it is down",
                           f->track, h->while_down);
        if (w->now < HERD_UP || !h->accepted_at || w->now > h->accepted_at + USEC_SEC)
                return;
        h->first_second++;
        if (k->flights > 4 ||
            (usec)h->first_second > 4 + (USEC_SEC / 2 * 1 + USEC_SEC / 2 * 2) / w->function.fastest)
                world_fail(w, "the herd falls on a function that has just come back", f->track,
                           h->first_second);
}

static void herd_turn(struct world *w)
{
        struct worker *k = &w->workers[0];
        struct delivery_stats stats;

        delivery_stats(k->engine, &stats);
        w->function.down = w->now >= HERD_DOWN && w->now < HERD_UP;
        w->function.down_until = HERD_UP;
        if (w->now >= HERD_DOWN && w->now < HERD_UP)
                w->herd.before = stats.accepted;
        else if (w->now >= HERD_UP && !w->herd.accepted_at && stats.accepted > w->herd.before)
                w->herd.accepted_at = w->now;
        if (w->now >= HERD_UP && stats.limit == HERD_MOST)
                w->herd.recovered = true;
        if (w->herd.accepted_at && w->now > w->herd.accepted_at + 20 * USEC_SEC && stats.held &&
            (!w->herd.recovered || stats.state == DELIVERY_THROTTLED))
                world_fail(w, "still throttled long after the function came back", 0, stats.limit);
}

static void herd_end(struct world *w)
{
        if (!w->herd.recovered)
                world_fail(w, "the function came back, but is never trusted again", 0, 0);
}

/* ---- stuck: lanes on which the function hangs for ever ------------------ */

enum { STUCK_RECORDS = 200 };

static void stuck_configure(struct world *w)
{
        bool letters = chance(w, 50);

        w->partitions_n = MOST_PARTITIONS;
        w->workers_n = 1;
        w->calm = true;
        w->stored = false;
        w->lend_most = w->crash_every = w->no_memory_percent = 0;
        w->faults_end = USEC_MSEC;
        w->stuck_after = 2 * STUCK_RECORDS * 2 * USEC_SEC;
        w->function = (struct function){ .fastest = USEC_MSEC, .slowest = 5 * USEC_MSEC };
        w->dead_broken = letters;
        w->dead_hangs = true;
        w->config = (struct delivery_config){ .ordering = ORDERING_PARTITION,
                                              .max_in_flight = chance(w, 50) ? 1 : 4,
                                              .max_records = 64,
                                              .max_bytes = 1 << 16,
                                              .batch_records = 1,
                                              .timeout = USEC_SEC,
                                              .initial_backoff = 10 * USEC_MSEC,
                                              .max_backoff = USEC_SEC,
                                              .retry_after_max = USEC_SEC,
                                              .on_exhausted = letters ? EXHAUSTED_DEAD_LETTER
                                                                      : EXHAUSTED_BLOCK,
                                              .commit_interval = USEC_SEC,
                                              .commit_count = 1000 };
        for (uint32_t i = 0; i < w->partitions_n; i++) {
                struct partition *p = &w->partitions[i];

                p->n = MIN_OF(p->n, (uint32_t)STUCK_RECORDS);
                for (uint32_t o = 0; o < p->n; o++) {
                        p->log[o].size = 1 + p->log[o].size % 100;
                        p->log[o].skip = false;
                        p->log[o].poison = (uint8_t)(i == 0 || o > 0 ? POISON_NONE
                                                     : letters       ? POISON_FINAL
                                                                     : POISON_HANGS);
                }
        }
}

/* ---- narrow: batches too large for the function, that also fail --------- */

static void narrow_configure(struct world *w)
{
        struct delivery_config *c = &w->config;

        c->ordering = chance(w, 50) ? ORDERING_PARTITION : ORDERING_KEY;
        c->batch_records = 8 + (uint32_t)random_below(&w->random, 56);
        c->batch_bytes = 0;
        c->max_records = MAX_OF(c->max_records, c->batch_records);
        c->max_bytes = 1 << 20;
        c->max_event_age = 0;
        c->max_attempts = 3 + (uint32_t)random_below(&w->random, 8);
        c->bisect = false;
        w->function.size = 4096 + (size_t)random_below(&w->random, 8192);
        w->function.partial = true;
        w->function.partial_percent = 40;
        w->function.fail_percent = 10;
        w->calm = true;
}

static const struct scenario scenarios[] = {
        ROW(.name = "any"),
        ROW(.name = "herd", .every = 500, .configure = herd_configure, .sent = herd_sent, .turn = herd_turn,
            .end = herd_end),
        ROW(.name = "stuck", .every = 199, .configure = stuck_configure),
        ROW(.name = "narrow", .every = 97, .configure = narrow_configure),
};

const struct scenario *scenario_find(const char *name)
{
        for (size_t i = 0; i < COUNT_OF(scenarios); i++)
                if (strcmp(scenarios[i].name, name) == 0)
                        return &scenarios[i];
        return NULL;
}

const struct scenario *scenario_of(uint64_t seed)
{
        for (size_t i = 0; i < COUNT_OF(scenarios); i++)
                if (scenarios[i].every && seed % scenarios[i].every == 0)
                        return &scenarios[i];
        return NULL;
}
