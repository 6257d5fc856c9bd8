#include "tests/sim/world.h"

/* The first entry at or above a position. */
uint32_t log_index(const struct partition *p, uint64_t position)
{
        uint32_t low = 0, high = p->n;

        while (low < high) {
                uint32_t middle = low + (high - low) / 2;

                if (p->log[middle].position < position)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

uint64_t log_end(const struct partition *p) { return p->n ? p->log[p->n - 1].position + 1 : 0; }

/* ---- lending ------------------------------------------------------------ */

static const char *key_text(struct world *w, uint32_t key)
{
        static char texts[MOST_KEYS][8];

        (void)w;
        if (!texts[key][0])
                (void)snprintf(texts[key], sizeof(texts[key]), "k%u", key);
        return texts[key];
}

static void lend(struct worker *k, uint32_t track)
{
        struct world *w = k->world;
        struct holding *h = &k->holdings[track];
        struct entry *e = &w->partitions[track].log[h->next];
        struct item *i = calloc(1, sizeof(*i));

        if (!i)
                abort();
        i->entry = e;
        i->index = h->next++;
        i->lent_at = w->now;
        i->record = (struct record){ .position = e->position,
                                     .track = track,
                                     .pinned = e->size,
                                     .key = str_of(key_text(w, e->key)),
                                     .has_key = true };
        h->credit--;
        h->bytes -= e->size;
        if (h->credit <= 0 || h->bytes <= 0)
                h->dry_at = w->now;
        h->lent++;
        k->held++;
        k->held_bytes += e->size;
        k->offered++;
        k->stirred = true;
        e->licences++;
        if (e->skip) {
                w->filtered++;
                delivery_skip(k->engine, &i->record, w->now);
                return;
        }
        if (w->config.ordering != ORDERING_NONE) {
                i->lane = &h->lanes[w->config.ordering == ORDERING_KEY ? k->lane_of_key[e->key] : 0];
                i->previous = i->lane->last;
                *(i->lane->last ? &i->lane->last->next : &i->lane->first) = i;
                i->lane->last = i;
        }
        delivery_offer(k->engine, &i->record, w->now);
}

void source_lend(struct worker *k, uint32_t track)
{
        struct world *w = k->world;
        struct holding *h = &k->holdings[track];
        struct partition *p = &w->partitions[track];
        uint32_t most = w->lend_most ? w->lend_most : UINT32_MAX;

        if (!h->assigned || h->leaving || (w->lend_most && w->now < p->lend_at))
                return;
        for (; most > 0 && h->next < p->end && h->credit > 0 && h->bytes > 0; most--)
                lend(k, track);
        if (most == 0)
                p->lend_at = w->now + USEC_MSEC;
}

void source_settle(struct worker *k, struct item *i)
{
        struct holding *h = &k->holdings[i->record.track];

        h->lent--;
        if (i->lane) {
                *(i->previous ? &i->previous->next : &i->lane->first) = i->next;
                *(i->next ? &i->next->previous : &i->lane->last) = i->previous;
        }
        free(i);
}

/* ---- positions ---------------------------------------------------------- */

static void put(struct worker *k, uint32_t track)
{
        struct holding *h = &k->holdings[track];

        if (h->busy || h->wanted <= h->putting || k->world->now < h->put_at || k->ops[track].used)
                return;
        h->busy = true;
        h->putting = h->wanted;
        store_put(&k->store, &k->ops[track].request, (struct str){ (const char *)&track, sizeof(track) },
                  (struct str){ (const char *)&h->putting, sizeof(h->putting) });
}

void source_commit(struct worker *k, uint32_t track, uint64_t position)
{
        struct world *w = k->world;
        struct partition *p = &w->partitions[track];
        struct holding *h = &k->holdings[track];

        if (w->stored) {
                h->wanted = position;
                put(k, track);
                return;
        }
        if (h->generation != p->generation) {
                say(w, "worker %d: commit of %u refused: fenced\n", k->number, track);
                return;
        }
        if (position < p->stored)
                world_fail(w, "a commit goes back", track, position);
        check_durable(w, track, p->stored, position);
        p->stored = position;
}

void source_acknowledged(struct worker *k, uint32_t track, bool failed)
{
        struct holding *h = &k->holdings[track];

        h->busy = false;
        if (!h->assigned)
                return;
        if (failed) {
                h->putting = 0;
                h->put_at = k->world->now + USEC_MSEC + within(k->world, 50 * USEC_MSEC);
        }
        put(k, track);
}

/* ---- assignment --------------------------------------------------------- */

void source_loaded(struct worker *k, uint32_t track, uint64_t position)
{
        struct world *w = k->world;
        struct partition *p = &w->partitions[track];
        struct holding *h = &k->holdings[track];
        struct error err;

        if (delivery_assign(k->engine, track, w->now, &err) < 0)
                world_fail(w, err.text, track, 0);
        h->loading = false;
        h->assigned = true;
        h->leaving = h->lost = false;
        h->next = h->low = h->committed_low = log_index(p, position);
        h->credit = h->bytes = 0;
        h->lent = h->since_commit = h->dying = 0;
        h->must_commit = h->busy = false;
        h->wanted = h->putting = 0;
        h->put_at = 0;
        if (h->done_cap < p->n) {
                h->done_cap = p->n;
                free(h->done);
                h->done = malloc(p->n);
        }
        if (p->n)
                memset(h->done, 0, p->n);
        h->lanes_n = w->config.ordering == ORDERING_KEY ? w->config.key_lanes : 1;
        free(h->lanes);
        h->lanes = calloc(h->lanes_n, sizeof(*h->lanes));
        if (!h->lanes || (p->n && !h->done))
                abort();
        say(w, "worker %d: assign %u from %" PRIu64 "\n", k->number, track, position);
        worker_drain(k);
}

static bool can_own(const struct worker *k, uint32_t track)
{
        const struct holding *h = &k->holdings[track];

        return k->engine && !h->assigned && !h->loading && !k->ops[track].used;
}

static void find_owner(struct world *w, uint32_t track)
{
        struct partition *p = &w->partitions[track];
        uint32_t first = (uint32_t)random_below(&w->random, w->workers_n);

        for (uint32_t i = 0; i < w->workers_n; i++) {
                struct worker *k = &w->workers[(first + i) % w->workers_n];
                struct holding *h = &k->holdings[track];

                if (!can_own(k, track))
                        continue;
                p->owner = k->number;
                p->back_at = USEC_NEVER;
                h->generation = ++p->generation;
                h->lost_at = USEC_NEVER;
                if (w->stored) {
                        h->loading = true;
                        store_get(&k->store, &k->ops[track].request,
                                  (struct str){ (const char *)&track, sizeof(track) });
                } else {
                        source_loaded(k, track, p->stored);
                }
                return;
        }
        p->back_at = w->now + 5 * USEC_MSEC; /* all are down, or hold it still */
}

static void revoke(struct worker *k, uint32_t track, usec give_up_at)
{
        struct holding *h = &k->holdings[track];

        h->leaving = true;
        h->lost = h->lost || give_up_at == 0;
        h->give_up_at = give_up_at;
        h->lost_at = USEC_NEVER;
        say(k->world, "worker %d: %s %u until %" PRId64 "\n", k->number, h->lost ? "lost" : "revoking", track,
            give_up_at);
        delivery_revoke(k->engine, track, give_up_at);
        worker_drain(k);
}

void source_revoked(struct worker *k, uint32_t track)
{
        struct world *w = k->world;
        struct partition *p = &w->partitions[track];
        struct holding *h = &k->holdings[track];

        h->assigned = h->leaving = false;
        if (p->owner == k->number && h->generation == p->generation) {
                p->owner = -1;
                p->back_at = w->now + within(w, chance(w, 50) ? 10 * USEC_MSEC : USEC_SEC);
        }
}

void source_forget(struct worker *k, uint32_t track)
{
        struct world *w = k->world;
        struct partition *p = &w->partitions[track];
        struct holding *h = &k->holdings[track];

        if (p->owner == k->number && h->generation == p->generation) {
                p->owner = -1;
                p->back_at = w->now + within(w, chance(w, 50) ? USEC_MSEC : USEC_SEC);
        }
        h->assigned = h->leaving = h->loading = h->lost = false;
        h->lost_at = USEC_NEVER;
}

/* Another worker gets the track, and this one hears of it later. */
static void overlap(struct world *w, struct worker *k, uint32_t track)
{
        struct partition *p = &w->partitions[track];

        if (p->owner != k->number || w->workers_n < 2)
                return;
        say(w, "worker %d: does not know that it lost %u\n", k->number, track);
        w->overlaps++;
        p->owner = -1;
        p->generation++;
        p->back_at = w->now + within(w, 10 * USEC_MSEC);
        k->holdings[track].lost_at = w->now + within(w, 2 * USEC_SEC);
}

void source_stir(struct world *w)
{
        struct worker *k = &w->workers[random_below(&w->random, w->workers_n)];
        uint32_t track = (uint32_t)random_below(&w->random, w->partitions_n);
        struct holding *h = &k->holdings[track];
        usec give_up_at = w->now + 1 + within(w, 50 * USEC_MSEC);

        if (!k->engine || !h->assigned)
                return;
        switch (random_below(&w->random, 4)) {
        case 0:
                w->losses += !h->lost;
                if (!h->lost)
                        revoke(k, track, 0);
                return;
        case 1: overlap(w, k, track); return;
        case 2: /* all that this worker has */
                for (uint32_t i = 0; i < w->partitions_n && k->engine; i++)
                        if (k->holdings[i].assigned && !k->holdings[i].leaving) {
                                w->rebalances++;
                                revoke(k, i, give_up_at);
                        }
                return;
        default:
                if (h->lost || (h->leaving && give_up_at > h->give_up_at))
                        return;
                w->rebalances++;
                revoke(k, track, give_up_at);
        }
}

/* ---- time --------------------------------------------------------------- */

static void holding_turn(struct worker *k, uint32_t track)
{
        struct world *w = k->world;
        struct holding *h = &k->holdings[track];

        if (!h->assigned)
                return;
        if (h->lost_at <= w->now) {
                w->losses++;
                revoke(k, track, 0);
                return;
        }
        if (w->stored)
                put(k, track);
        source_lend(k, track);
}

void source_turn(struct world *w)
{
        for (uint32_t i = 0; i < w->partitions_n; i++) {
                struct partition *p = &w->partitions[i];

                if (p->end < p->n && w->now >= p->grow_at) {
                        p->end = MIN_OF(p->n, p->end + 1 + (uint32_t)random_below(&w->random, 60));
                        p->grow_at = w->now + within(w, 20 * USEC_MSEC);
                }
                if (p->owner < 0 && w->now >= p->back_at)
                        find_owner(w, i);
                for (uint32_t n = 0; n < w->workers_n; n++)
                        if (w->workers[n].engine)
                                holding_turn(&w->workers[n], i);
        }
}

usec source_deadline(const struct world *w)
{
        usec at = USEC_NEVER;

        for (uint32_t i = 0; i < w->partitions_n; i++) {
                const struct partition *p = &w->partitions[i];

                if (p->end < p->n)
                        at = MIN_OF(at, p->grow_at);
                if (p->owner < 0)
                        at = MIN_OF(at, p->back_at);
                for (uint32_t n = 0; n < w->workers_n; n++) {
                        const struct holding *h = &w->workers[n].holdings[i];

                        if (!h->assigned)
                                continue;
                        at = MIN_OF(at, h->lost_at);
                        if (w->lend_most && p->lend_at > w->now && h->credit > 0 && h->bytes > 0 &&
                            h->next < p->end)
                                at = MIN_OF(at, p->lend_at);
                        if (w->stored && !h->busy && h->wanted > h->putting)
                                at = earlier(at, later(h->put_at, w->now + 1));
                }
        }
        return at;
}

/* ---- the end ------------------------------------------------------------ */

static bool item_stuck(const struct world *w, const struct item *i)
{
        return entry_hopeless(w, i->entry) || (w->dead_broken && i->dying);
}

/* All that a stuck record does not hold up is done: other lanes, when there are any. */
static bool holding_finished(const struct world *w, const struct holding *h)
{
        bool stuck = h->dying > 0;

        if (w->config.ordering == ORDERING_NONE)
                return true;
        for (uint32_t l = 0; l < h->lanes_n; l++) {
                bool blocks = false;

                for (const struct item *i = h->lanes[l].first; i && !blocks; i = i->next)
                        blocks = item_stuck(w, i);
                if (h->lanes[l].first && !blocks)
                        return false;
                stuck = stuck || blocks;
        }
        return stuck;
}

static bool hopeless_within(const struct world *w, const struct partition *p, const struct holding *h)
{
        for (uint32_t o = h->low; o < h->next; o++)
                if (!h->done[o] && !p->log[o].skip && entry_hopeless(w, &p->log[o]))
                        return true;
        return h->dying > 0;
}

static bool partition_finished(const struct world *w, uint32_t track)
{
        const struct partition *p = &w->partitions[track];
        const struct holding *h;

        if (p->end < p->n)
                return false;
        if (p->stored >= log_end(p))
                return true;
        if (!w->may_block || p->owner < 0)
                return false;
        h = &w->workers[p->owner].holdings[track];
        return h->assigned && !h->leaving && hopeless_within(w, p, h) && holding_finished(w, h);
}

bool source_finished(struct world *w)
{
        for (uint32_t i = 0; i < w->partitions_n; i++)
                if (!partition_finished(w, i))
                        return false;
        return !faulty(w) || !w->may_block;
}
