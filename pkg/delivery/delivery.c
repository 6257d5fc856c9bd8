#include "delivery/inside.h"

#include <assert.h>
#include <stdio.h>

#include "base/backoff.h"

/* ---- life --------------------------------------------------------------- */

int delivery_new(struct delivery **out, const struct delivery_config *config, uint64_t seed,
                 struct error *err)
{
        struct delivery *d = calloc(1, sizeof(*d));

        if (!d)
                return error_memory(err);
        d->config = *config;
        assert(config->max_in_flight > 0 && config->batch_records > 0);
        d->config.max_records = MAX_OF(config->max_records, config->max_in_flight);
        random_init(&d->random, seed);
        d->seed = seed;
        queue_init(&d->ready_lanes);
        queue_init(&d->ready_batches);
        queue_init(&d->ready_dead);
        queue_init(&d->detaches);
        queue_init(&d->commits);
        queue_init(&d->credits);
        queue_init(&d->ends);
        queue_init(&d->hungry);
        d->settled_last = &d->settled;
        flow_init(&d->flow,
                  &(struct flow_config){ .initial = config->initial_in_flight ? config->initial_in_flight
                                                                              : config->max_in_flight,
                                         .most = config->max_in_flight,
                                         .pause_initial = config->initial_backoff,
                                         .pause_most = config->max_backoff,
                                         .rate = config->rate,
                                         .burst = MAX_OF(config->burst, (int64_t)1) },
                  0);
        d->records.total = d->config.max_records;
        d->bytes.total = (int64_t)config->max_bytes;
        d->slots = calloc(config->max_in_flight, sizeof(*d->slots));
        d->free_slots = calloc(config->max_in_flight, sizeof(*d->free_slots));
        d->cancels = calloc(config->max_in_flight, sizeof(*d->cancels));
        d->scratch = calloc(config->batch_records, sizeof(struct record *));
        if (!d->slots || !d->free_slots || !d->cancels || !d->scratch) {
                (void)delivery_free(d);
                return error_memory(err);
        }
        for (uint32_t i = 0; i < config->max_in_flight; i++)
                d->free_slots[d->free_slots_n++] = config->max_in_flight - 1 - i;
        *out = d;
        return 0;
}

static void track_free(struct track *t)
{
        window_done(&t->window);
        free(t);
}

struct delivery *delivery_free(struct delivery *d)
{
        if (!d)
                return NULL;
        assert(d->tracks_n == 0 && !d->settled && d->stats.held == 0);
        for (struct link *l = d->free_batches, *next; l; l = next) {
                next = l->next;
                free(CONTAINER_OF(l, struct batch, link));
        }
        heap_done(&d->timers);
        free(d->tracks);
        free(d->slots);
        free(d->free_slots);
        free(d->cancels);
        free(d->scratch);
        free(d);
        return NULL;
}

/* Where id stands or would stand. */
static uint32_t track_place(const struct delivery *d, uint32_t id)
{
        uint32_t low = 0, high = d->tracks_n;

        while (low < high) {
                uint32_t middle = low + (high - low) / 2;

                if (d->tracks[middle]->id < id)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

static struct track *track_find(struct delivery *d, uint32_t id)
{
        uint32_t at;

        if (d->last_track && d->last_track->id == id)
                return d->last_track;
        at = track_place(d, id);
        if (at == d->tracks_n || d->tracks[at]->id != id)
                return NULL;
        return d->last_track = d->tracks[at];
}

static void want_credit(struct delivery *d, struct track *t)
{
        if (t->wants_credit || t->revoking)
                return;
        if (t->hungry)
                queue_remove(&d->hungry, &t->credit_link);
        t->hungry = false;
        t->wants_credit = true;
        queue_add(&d->credits, &t->credit_link);
}

static void share_out(struct delivery *d, struct budget *b, size_t account, int64_t least)
{
        b->reserve = d->tracks_n ? MAX_OF(b->total / (2 * (int64_t)d->tracks_n), least) : 0;
        b->shared_used = b->used = 0;
        for (uint32_t i = 0; i < d->tracks_n; i++) {
                const struct account *a = (const struct account *)(const void *)((const char *)d->tracks[i] +
                                                                                 account);

                b->shared_used += MAX_OF(account_use(a) - b->reserve, (int64_t)0);
                b->used += account_use(a);
        }
}

/* The reserves follow the number of tracks. */
static void rebalance_budgets(struct delivery *d)
{
        share_out(d, &d->records, offsetof(struct track, records), 1);
        share_out(d, &d->bytes, offsetof(struct track, bytes), 1);
        for (uint32_t i = 0; i < d->tracks_n; i++)
                want_credit(d, d->tracks[i]);
}

int delivery_assign(struct delivery *d, uint32_t id, usec now UNUSED, struct error *err)
{
        uint32_t at = track_place(d, id),
                 lanes = d->config.ordering == ORDERING_KEY ? MAX_OF(d->config.key_lanes, 1u) : 1;
        struct track *t;

        if (at < d->tracks_n && d->tracks[at]->id == id)
                return error_set(err, ERROR_INTERNAL, "track %u is assigned twice", id);
        if (d->tracks_n == d->tracks_cap) {
                uint32_t cap = MAX_OF(d->tracks_cap * 2, 8u);
                struct track **grown = realloc(d->tracks, cap * sizeof(struct track *));

                if (!grown)
                        return error_memory(err);
                d->tracks = grown;
                d->tracks_cap = cap;
        }
        t = calloc(1, sizeof(*t) + lanes * sizeof(struct lane));
        if (!t)
                return error_memory(err);
        t->id = id;
        t->lanes_n = lanes;
        t->commit_timer.kind = TIMER_COMMIT;
        t->give_up_timer.kind = TIMER_GIVE_UP;
        for (uint32_t i = 0; i < lanes; i++) {
                t->lanes[i].track = t;
                t->lanes[i].last = &t->lanes[i].first;
                t->lanes[i].wait.kind = TIMER_LANE;
                t->lanes[i].age.kind = TIMER_AGE;
        }
        /* Room for this track's timers, so that arming one can't fail later; batches reserve their own when
         * they are made. */
        if (!heap_reserve(&d->timers, d->timer_places + (size_t)lanes * 2 + 2)) {
                free(t);
                return error_memory(err);
        }
        d->timer_places += (size_t)lanes * 2 + 2;
        memmove(d->tracks + at + 1, d->tracks + at, (d->tracks_n - at) * sizeof(struct track *));
        d->tracks[at] = t;
        d->tracks_n++;
        rebalance_budgets(d);
        return 0;
}

/* ---- settling ----------------------------------------------------------- */

static void feed_hungry(struct delivery *d)
{
        struct link *l;

        while ((l = queue_take(&d->hungry))) {
                struct track *t = CONTAINER_OF(l, struct track, credit_link);

                t->hungry = false;
                want_credit(d, t);
        }
}

static void hand_back(struct delivery *d, struct record *r, enum outcome outcome)
{
        r->engine.outcome = (uint32_t)outcome;
        r->engine.next = NULL;
        *d->settled_last = r;
        d->settled_last = &r->engine.next;
}

static void commit_now(struct delivery *d, struct track *t)
{
        t->commit_due = true;
        heap_remove(&d->timers, &t->commit_timer.node);
        queue_add(&d->commits, &t->commit_link);
}

/* Other tracks that wait to be committed go along once so many of their records are settled: a source asks
 * its broker once for all that comes in one turn. */
static void commit_along(struct delivery *d, uint32_t settled)
{
        for (uint32_t i = 0; i < d->tracks_n; i++)
                if (heap_has(&d->tracks[i]->commit_timer.node) && d->tracks[i]->since_commit >= settled)
                        commit_now(d, d->tracks[i]);
}

static void commit_soon(struct delivery *d, struct track *t, usec now)
{
        if (t->commit_due || t->lost || t->window.next <= t->committed)
                return;
        if (d->config.commit_interval == 0 || t->revoking) {
                commit_now(d, t);
        } else if (t->since_commit >= d->config.commit_count) {
                commit_now(d, t);
                commit_along(d, d->config.commit_count / 2);
        } else if (!heap_has(&t->commit_timer.node) &&
                   !heap_insert(&d->timers, &t->commit_timer.node, now + d->config.commit_interval)) {
                commit_now(d, t); /* no memory for the timer: now rather than never */
        }
}

/* A record leaves the engine. */
void record_settle(struct delivery *d, struct track *t, struct record *r, enum outcome outcome, usec now)
{
        budget_move(&d->records, &t->records, 0, -1);
        budget_move(&d->bytes, &t->bytes, 0, -(int64_t)r->pinned);
        d->stats.held--;
        d->stats.held_bytes -= r->pinned;
        switch (outcome) {
        case OUTCOME_ACCEPTED: d->stats.accepted++; break;
        case OUTCOME_DROPPED: d->stats.dropped++; break;
        case OUTCOME_DEAD_LETTERED: d->stats.dead_lettered++; break;
        case OUTCOME_RELEASED: d->stats.released++; break;
        case OUTCOME_FILTERED: d->stats.filtered++; break;
        case OUTCOME_MAX: break;
        }
        if (outcome != OUTCOME_RELEASED) {
                t->since_commit++;
                if (window_finish(&t->window, r->engine.order))
                        commit_soon(d, t, now);
        }
        hand_back(d, r, outcome);
        want_credit(d, t);
        if (d->hungry.first)
                feed_hungry(d);
}

static void end_if_done(struct delivery *d, struct track *t)
{
        if (!t->revoking || t->ended || t->batches)
                return;
        t->ended = true;
        heap_remove(&d->timers, &t->give_up_timer.node);
        queue_add(&d->ends, &t->end_link);
}

/* Is an event given up for its age alone, whether it could be sent or not? One that blocks is tried for ever.
 */
bool records_age(const struct delivery *d)
{
        return d->config.max_event_age && d->config.on_exhausted != EXHAUSTED_BLOCK;
}
usec record_old_at(const struct delivery *d, const struct record *r)
{
        return r->engine.since + d->config.max_event_age;
}

/* One of these records is at fault, and it is not known which: the others are not given up with it, however
 * old they are. */
bool batch_searches(const struct delivery *d, const struct batch *b)
{
        return d->config.bisect && b->suspect > 1;
}

void timer_arm(struct delivery *d, struct timer *t, usec at)
{
        bool inserted = heap_insert(&d->timers, &t->node, at);

        assert(inserted); /* its place was reserved when its owner was made */
        (void)inserted;
}

static void lane_ready(struct delivery *d, struct lane *l)
{
        if (!l->first || l->track->revoking || (d->config.ordering != ORDERING_NONE && l->active > 0))
                return;
        if (records_age(d))
                /* without memory for a batch nothing can be given up, either */
                timer_arm(d, &l->age, MAX_OF(record_old_at(d, l->first), d->starved_until));
        if (l->ready)
                return;
        l->ready = true;
        queue_add(&d->ready_lanes, &l->ready_link);
}

void batch_settled_state(struct delivery *d, struct batch *b)
{
        d->failing -= b->failing;
        d->final -= b->final;
        b->failing = b->final = false;
}

void batch_forget_reason(struct batch *b)
{
        free(TAKE(b->reason));
        free(TAKE(b->body));
}

/* Takes the batch out of its track and frees it; its records must be gone. */
static void batch_end(struct delivery *d, struct batch *b)
{
        struct lane *l = b->lane;

        batch_settled_state(d, b);
        heap_remove(&d->timers, &b->due.node);
        if (b->to_detach)
                queue_remove(&d->detaches, &b->link);
        b->to_detach = NULL;
        batch_forget_reason(b);
        if (b->next)
                b->next->previous = b->previous;
        if (b->previous)
                b->previous->next = b->next;
        else
                l->track->batches = b->next;
        l->active--;
        b->link.next = d->free_batches;
        d->free_batches = &b->link;
        lane_ready(d, l);
        end_if_done(d, l->track);
}

/* The first records of a batch that is not under way are done; without further ones it ends: false. */
bool batch_settle_first(struct delivery *d, struct batch *b, uint32_t n, enum outcome outcome, usec now)
{
        b->tried -= MIN_OF(b->tried, n);
        for (; n > 0; n--, b->n--) {
                struct record *r = b->first;

                b->first = r->engine.next;
                record_settle(d, b->lane->track, r, outcome, now);
        }
        if (b->n == 0) {
                batch_end(d, b);
                return false;
        }
        b->since = b->first->engine.since;
        return true;
}

void batch_settle(struct delivery *d, struct batch *b, enum outcome outcome, usec now)
{
        (void)batch_settle_first(d, b, b->n, outcome, now);
}

void batch_ready(struct delivery *d, struct batch *b)
{
        b->state = BATCH_READY;
        if (records_age(d) && !b->dead && !batch_searches(d, b))
                timer_arm(d, &b->due, record_old_at(d, b->first));
        queue_add(b->dead ? &d->ready_dead : &d->ready_batches, &b->link);
}

void slot_free(struct delivery *d, uint32_t slot)
{
        d->slots[slot].batch = NULL;
        d->slots[slot].generation++;
        d->free_slots[d->free_slots_n++] = slot;
}

uint32_t slot_ticket(const struct delivery *d, uint32_t slot)
{
        return d->slots[slot].generation << 16 | slot;
}

/* The attempt is over, whatever came of it. */
void batch_landed(struct delivery *d, struct batch *b)
{
        if (b->earlier)
                b->earlier->later = b->later;
        else
                d->sent_first = b->later;
        if (b->later)
                b->later->earlier = b->earlier;
        else
                d->sent_last = b->earlier;
        b->earlier = b->later = NULL;
        d->stats.in_flight--;
        d->dead_in_flight -= b->dead > 0;
}

/* ---- revoking ----------------------------------------------------------- */

/* Releases what was never sent or waits to be sent again. */
static void release_unsent(struct delivery *d, struct track *t)
{
        for (uint32_t i = 0; i < t->lanes_n; i++) {
                struct lane *l = &t->lanes[i];

                if (l->ready)
                        queue_remove(&d->ready_lanes, &l->ready_link);
                l->ready = false;
                heap_remove(&d->timers, &l->wait.node);
                heap_remove(&d->timers, &l->age.node);
                for (struct record *r = l->first, *next; r; r = next) {
                        next = r->engine.next;
                        record_settle(d, t, r, OUTCOME_RELEASED, 0);
                }
                l->first = NULL;
                l->last = &l->first;
                l->queued = 0;
                l->queued_bytes = 0;
        }
        for (struct batch *b = t->batches, *next; b; b = next) {
                next = b->next;
                if (b->state == BATCH_SENT)
                        continue;
                if (b->state == BATCH_READY)
                        queue_remove(b->dead ? &d->ready_dead : &d->ready_batches, &b->link);
                batch_settle(d, b, OUTCOME_RELEASED, 0);
        }
}

static void release_sent(struct delivery *d, struct track *t)
{
        for (struct batch *b = t->batches, *next; b; b = next) {
                next = b->next;
                batch_cancel(d, b);
                batch_settle(d, b, OUTCOME_RELEASED, 0);
        }
}

void delivery_revoke(struct delivery *d, uint32_t id, usec give_up_at)
{
        struct track *t = track_find(d, id);

        if (!t)
                return;
        t->lost = t->lost || give_up_at == 0; /* its last commit may not have been pulled yet */
        if (t->ended)
                return;
        if (!t->revoking) {
                t->revoking = true;
                if (t->wants_credit)
                        queue_remove(&d->credits, &t->credit_link);
                if (t->hungry)
                        queue_remove(&d->hungry, &t->credit_link);
                t->wants_credit = t->hungry = false;
                budget_move(&d->records, &t->records, -t->records.granted, 0);
                budget_move(&d->bytes, &t->bytes, -t->bytes.granted, 0);
                heap_remove(&d->timers, &t->commit_timer.node);
                release_unsent(d, t);
                commit_soon(d, t, 0);
                feed_hungry(d);
        }
        if (t->lost) {
                heap_remove(&d->timers, &t->give_up_timer.node);
                heap_remove(&d->timers, &t->commit_timer.node);
                release_sent(d, t);
        } else if (t->batches) {
                bool inserted = heap_insert(&d->timers, &t->give_up_timer.node, give_up_at);

                assert(inserted);
                (void)inserted;
        }
        end_if_done(d, t);
}

static void track_end(struct delivery *d, struct track *t)
{
        uint32_t at = track_place(d, t->id);

        d->tracks_n--;
        memmove(d->tracks + at, d->tracks + at + 1, (d->tracks_n - at) * sizeof(struct track *));
        d->last_track = NULL;
        d->timer_places -= (size_t)t->lanes_n * 2 + 2;
        track_free(t);
        rebalance_budgets(d);
}

/* ---- taking in ---------------------------------------------------------- */

/* Into its track's window; NULL: the track is not, or no longer, ours, and the record is on its way back. */
static struct track *take_in(struct delivery *d, struct record *r, usec now)
{
        struct track *t = track_find(d, r->track);
        bool room;

        d->stats.offered++;
        if (!t || t->revoking) {
                d->stats.released++;
                hand_back(d, r, OUTCOME_RELEASED);
                return NULL;
        }
        room = window_reserve(&t->window, 1); /* reserved with the credit */
        assert(room);
        (void)room;
        r->engine.order = window_push(&t->window, r->position);
        r->engine.since = now;
        r->engine.next = NULL;
        budget_move(&d->records, &t->records, -1, 1);
        budget_move(&d->bytes, &t->bytes, -(int64_t)r->pinned, (int64_t)r->pinned);
        d->stats.held++;
        d->stats.held_bytes += r->pinned;
        return t;
}

void delivery_skip(struct delivery *d, struct record *r, usec now)
{
        struct track *t = take_in(d, r, now);

        if (t)
                record_settle(d, t, r, OUTCOME_FILTERED, now);
}

void delivery_hold(struct delivery *d, bool held) { d->on_hold = held; }

void delivery_offer(struct delivery *d, struct record *r, usec now)
{
        struct track *t = take_in(d, r, now);
        struct lane *l;

        if (!t)
                return;
        l = &t->lanes[t->lanes_n > 1 ? hash_bytes(d->seed, r->key) % t->lanes_n : 0];
        r->engine.lane = l;
        *l->last = r;
        l->last = &r->engine.next;
        l->queued++;
        l->queued_bytes += r->pinned;
        lane_ready(d, l);
        want_credit(d, t);
}

/* ---- giving out --------------------------------------------------------- */

static struct batch *batch_make(struct delivery *d, struct lane *l)
{
        struct batch *b;

        if (d->free_batches) {
                b = CONTAINER_OF(d->free_batches, struct batch, link);
                d->free_batches = b->link.next;
                memset(b, 0, sizeof(*b));
        } else {
                if (!heap_reserve(&d->timers, d->timer_places + 1) || !(b = calloc(1, sizeof(*b))))
                        return NULL;
                d->timer_places++;
        }
        b->lane = l;
        b->due.kind = TIMER_BATCH;
        b->next = l->track->batches;
        if (b->next)
                b->next->previous = b;
        l->track->batches = b;
        l->active++;
        return b;
}

static void batch_fill(struct delivery *d, struct batch *b)
{
        struct lane *l = b->lane;
        struct record *last = NULL;
        size_t bytes = 0;

        b->first = l->first;
        b->since = l->first->engine.since;
        for (struct record *r = l->first; r && b->n < d->config.batch_records; last = r, r = r->engine.next) {
                if (b->n > 0 && d->config.batch_bytes && bytes + r->pinned > d->config.batch_bytes)
                        break;
                bytes += r->pinned;
                b->n++;
        }
        b->send = b->n;
        assert(last); /* a lane that is ready has a record */
        l->first = last->engine.next;
        if (!l->first)
                l->last = &l->first;
        last->engine.next = NULL;
        l->queued -= b->n;
        l->queued_bytes -= bytes;
}

/* The source may not lend any more of it until something is settled. */
static bool track_dry(const struct track *t)
{
        return t->hungry && (t->records.granted <= 0 || t->bytes.granted <= 0);
}

/* The first records of a lane are too old to be sent: they go at once, though others may have to wait. */
void lane_give_up_old(struct delivery *d, struct lane *l, usec now)
{
        const struct answer a = { .kind = ANSWER_FINAL,
                                  .text = "maxEventAge passed before it could be sent" };
        struct batch *b;
        uint32_t n = 0;

        if (!l->first || l->track->revoking)
                return;
        if (!(b = batch_make(d, l))) {
                timer_arm(d, &l->age, now + STARVED);
                return;
        }
        if (l->ready)
                queue_remove(&d->ready_lanes, &l->ready_link);
        l->ready = false;
        heap_remove(&d->timers, &l->wait.node);
        batch_fill(d, b);
        for (const struct record *r = b->first; n < b->n && now >= record_old_at(d, r); r = r->engine.next)
                n++;
        batch_give_up(d, b, n, &a, now);
        lane_ready(d, l);
}

static bool lane_fills(struct delivery *d, struct lane *l, usec now)
{
        usec until = l->first->engine.since + d->config.batch_wait;

        if (track_dry(l->track)) /* nothing comes to fill it up */
                return false;
        if (l->queued >= d->config.batch_records ||
            (d->config.batch_bytes && l->queued_bytes >= d->config.batch_bytes) || now >= until)
                return false;
        return heap_insert(&d->timers, &l->wait.node, until);
}

static struct batch *next_fresh(struct delivery *d, usec now)
{
        struct link *link;

        while ((link = queue_take(&d->ready_lanes))) {
                struct lane *l = CONTAINER_OF(link, struct lane, ready_link);
                struct batch *b;

                l->ready = false;
                if (lane_fills(d, l, now))
                        continue;
                heap_remove(&d->timers, &l->wait.node);
                heap_remove(&d->timers, &l->age.node);
                b = batch_make(d, l);
                if (b)
                        batch_fill(d, b);
                else
                        d->starved_until = now + STARVED;
                lane_ready(d, l);
                return b;
        }
        return NULL;
}

static struct batch *next_again(struct delivery *d)
{
        struct link *link = queue_take(&d->ready_batches);

        return link ? CONTAINER_OF(link, struct batch, link) : NULL;
}

/* What is sent again and what is new take turns: a few lanes that fail slowly would keep out all others. */
static struct batch *next_batch(struct delivery *d, usec now)
{
        struct batch *b;

        if (d->on_hold || !flow_allows(&d->flow, d->stats.in_flight - d->dead_in_flight, now))
                return NULL;
        if ((b = d->again_last ? next_fresh(d, now) : next_again(d)))
                d->again_last = !d->again_last;
        else if (d->again_last)
                b = next_again(d);
        else
                b = next_fresh(d, now);
        return b;
}

/* Dead letters have half of the requests at most, and take turns with the rest, for the same reason. */
static struct batch *next_dead(struct delivery *d)
{
        struct link *link = d->dead_in_flight < MAX_OF(d->config.max_in_flight / 2, 1u)
                                    ? queue_take(&d->ready_dead)
                                    : NULL;

        return link ? CONTAINER_OF(link, struct batch, link) : NULL;
}

static bool send_next(struct delivery *d, usec now, struct action *a)
{
        struct batch *b;
        uint32_t n = 0;

        if (d->free_slots_n == 0)
                return false;
        b = d->dead_last ? next_batch(d, now) : next_dead(d);
        if (!b && !(b = d->dead_last ? next_dead(d) : next_batch(d, now)))
                return false;
        d->dead_last = b->dead > 0;
        d->dead_in_flight += b->dead > 0;
        if (!b->dead)
                flow_sent(&d->flow, b->send, now);
        heap_remove(&d->timers, &b->due.node);
        b->slot = d->free_slots[--d->free_slots_n];
        d->slots[b->slot].batch = b;
        b->state = BATCH_SENT;
        b->sent_at = now;
        b->earlier = d->sent_last;
        b->later = NULL;
        if (d->sent_last)
                d->sent_last->later = b;
        else
                d->sent_first = b;
        d->sent_last = b;
        b->tried = b->send;
        b->number++;
        d->stats.in_flight++;
        d->stats.attempts++;
        for (struct record *r = b->first; n < b->send; r = r->engine.next)
                d->scratch[n++] = r;
        *a = (struct action){ .kind = b->dead ? ACTION_DEAD_LETTER : ACTION_SEND,
                              .track = b->lane->track->id,
                              .attempt = slot_ticket(d, b->slot),
                              .number = b->dead ? b->attempts : b->number,
                              .records = d->scratch,
                              .n = n };
        if (b->dead) {
                a->status = b->status;
                a->reason = str_of(b->reason);
                a->body = (struct str){ b->body, b->body ? b->body_n : 0 };
        }
        return true;
}

static bool settle_next(struct delivery *d, struct action *a)
{
        struct record *r = d->settled;

        if (!r)
                return false;
        d->settled = r->engine.next;
        if (!d->settled)
                d->settled_last = &d->settled;
        r->engine.next = NULL;
        *a = (struct action){ .kind = ACTION_SETTLE,
                              .track = r->track,
                              .record = r,
                              .outcome = (enum outcome)r->engine.outcome };
        return true;
}

static bool detach_next(struct delivery *d, struct action *a)
{
        struct batch *b;

        if (!d->detaches.first)
                return false;
        b = CONTAINER_OF(d->detaches.first, struct batch, link);
        *a = (struct action){ .kind = ACTION_DETACH, .track = b->lane->track->id, .record = b->to_detach };
        b->to_detach = b->to_detach->engine.next;
        if (!b->to_detach)
                (void)queue_take(&d->detaches);
        return true;
}

static bool commit_next(struct delivery *d, struct action *a)
{
        struct link *l;

        while ((l = queue_take(&d->commits))) {
                struct track *t = CONTAINER_OF(l, struct track, commit_link);

                t->commit_due = false;
                if (t->lost)
                        continue;
                t->committed = t->window.next;
                t->since_commit = 0;
                *a = (struct action){ .kind = ACTION_COMMIT, .track = t->id, .position = t->committed };
                return true;
        }
        return false;
}

static bool end_next(struct delivery *d, struct action *a)
{
        struct link *l = queue_take(&d->ends);
        struct track *t;

        if (!l)
                return false;
        t = CONTAINER_OF(l, struct track, end_link);
        *a = (struct action){ .kind = ACTION_REVOKED, .track = t->id };
        track_end(d, t);
        return true;
}

/* Something waits for the sink to be trusted with more. A request that is at the sink waits for nobody,
 * however few may go with it. Once told it holds as long as anything is left, so that it does not come and go
 * with each answer. */
static bool held_back(const struct delivery *d, usec now)
{
        bool ready = d->ready_lanes.first || d->ready_batches.first;

        if (!d->stats.held || !flow_throttles(&d->flow, now))
                return false;
        return flow_paused(&d->flow, now) ||
               (ready && (d->told_state == DELIVERY_THROTTLED ||
                          d->stats.in_flight - d->dead_in_flight >= (uint32_t)d->flow.limit));
}

static enum delivery_state current_state(const struct delivery *d, usec now)
{
        /* Where nothing is accepted any more, a pause is no restraint, and a try no recovery. */
        return d->final                               ? DELIVERY_BLOCKED
               : d->failing && flow_is_open(&d->flow) ? DELIVERY_RETRYING
               : held_back(d, now)                    ? DELIVERY_THROTTLED
               : d->failing                           ? DELIVERY_RETRYING
                                                      : DELIVERY_IDLE;
}

static bool state_next(struct delivery *d, usec now, struct action *a)
{
        enum delivery_state state = current_state(d, now);

        if (state == DELIVERY_THROTTLED && !flow_paused(&d->flow, now))
                batch_remember_past(d);
        if (state == d->told_state && !(d->text_changed && state != DELIVERY_IDLE))
                return false;
        d->told_state = state;
        d->text_changed = false;
        *a = (struct action){ .kind = ACTION_STATE,
                              .state = state,
                              .text = state == DELIVERY_IDLE ? "" : d->text };
        /* the next record may find the sink still refusing */
        if (state == DELIVERY_IDLE && !flow_throttles(&d->flow, now))
                d->text[0] = d->text_past = 0;
        return true;
}

/* How much of one resource to grant now, in steps of at least half a reserve, so that credit does not
 * trickle. */
static int64_t grant(const struct budget *b, const struct account *a, uint32_t tracks)
{
        int64_t step = MAX_OF(b->reserve / 2, (int64_t)1);
        int64_t more = MIN_OF(b->reserve - a->granted, budget_allowed(b, a, tracks));

        if (a->granted > b->reserve / 2)
                return 0;
        return more >= step || account_use(a) <= 0 ? MAX_OF(more, (int64_t)0) : 0;
}

static void track_hungry(struct delivery *d, struct track *t)
{
        t->hungry = true;
        queue_add(&d->hungry, &t->credit_link);
        for (uint32_t i = 0; track_dry(t) && i < t->lanes_n; i++)
                if (heap_has(&t->lanes[i].wait.node))
                        lane_ready(d, &t->lanes[i]);
}

static bool credit_next(struct delivery *d, usec now, struct action *a)
{
        uint32_t most_span = MAX_OF(d->config.max_records * 16, 1024u);
        struct link *l;

        while ((l = queue_take(&d->credits))) {
                struct track *t = CONTAINER_OF(l, struct track, credit_link);
                int64_t records = grant(&d->records, &t->records, d->tracks_n),
                        bytes = grant(&d->bytes, &t->bytes, d->tracks_n);
                uint32_t room = most_span - MIN_OF(window_span(&t->window), most_span);

                t->wants_credit = false;
                if (t->records.granted > d->records.reserve / 2 && t->bytes.granted > d->bytes.reserve / 2)
                        continue;
                records = MAX_OF(MIN_OF(records, (int64_t)room - t->records.granted), (int64_t)0);
                if (records <= 0 && bytes <= 0) {
                        track_hungry(d, t);
                        continue;
                }
                if (!window_reserve(&t->window, (uint32_t)(t->records.granted + records))) {
                        d->starved_until = now + STARVED;
                        track_hungry(d, t);
                        continue;
                }
                budget_move(&d->records, &t->records, records, 0);
                budget_move(&d->bytes, &t->bytes, bytes, 0);
                *a = (struct action){ .kind = ACTION_CREDIT,
                                      .track = t->id,
                                      .credit = (uint32_t)records,
                                      .bytes = (size_t)bytes };
                /* the grant may have been smaller than the need, or have paid a debt only */
                want_credit(d, t);
                return true;
        }
        return false;
}

static void timer_fired(struct delivery *d, struct timer *timer)
{
        switch (timer->kind) {
        case TIMER_BATCH: {
                struct batch *b = CONTAINER_OF(timer, struct batch, due);

                if (records_age(d) && !b->dead && !batch_searches(d, b) &&
                    d->now >= record_old_at(d, b->first))
                        batch_give_up_old(d, b, d->now);
                else
                        batch_ready(d, b);
                return;
        }
        case TIMER_AGE: lane_give_up_old(d, CONTAINER_OF(timer, struct lane, age), d->now); return;
        case TIMER_LANE: lane_ready(d, CONTAINER_OF(timer, struct lane, wait)); return;
        case TIMER_COMMIT:
                commit_now(d, CONTAINER_OF(timer, struct track, commit_timer));
                commit_along(d, 0);
                return;
        case TIMER_GIVE_UP: {
                struct track *t = CONTAINER_OF(timer, struct track, give_up_timer);

                release_sent(d, t);
                end_if_done(d, t);
                return;
        }
        }
}

static void turn_timers(struct delivery *d, usec now)
{
        struct heap_node *first;

        while ((first = heap_first(&d->timers)) && first->at <= now) {
                heap_remove(&d->timers, first);
                timer_fired(d, CONTAINER_OF(first, struct timer, node));
        }
        if (d->starved_until && now >= d->starved_until) {
                d->starved_until = 0;
                feed_hungry(d);
        }
        while (d->sent_first && now - d->sent_first->sent_at >= d->config.timeout)
                batch_expire(d, d->sent_first, now);
}

bool delivery_next(struct delivery *d, usec now, struct action *a)
{
        /* What gives back comes before what takes on; a cancellation before its records are handed back, for
         * whoever sends still borrows them; a track's settlements before its commit, and both before its end.
         */
        if (d->cancels_n) {
                *a = (struct action){ .kind = ACTION_CANCEL, .attempt = d->cancels[--d->cancels_n] };
                return true;
        }
        if (settle_next(d, a) || detach_next(d, a))
                return true;
        d->now = now;
        turn_timers(d, now);
        if (d->cancels_n || d->settled || d->detaches.first)
                return delivery_next(d, now, a);
        return commit_next(d, a) || end_next(d, a) || state_next(d, now, a) || send_next(d, now, a) ||
               credit_next(d, now, a) ||
               send_next(d, now, a); /* lanes that need not wait any longer, since there is no credit */
}

usec delivery_deadline(const struct delivery *d)
{
        const struct heap_node *first = heap_first(&d->timers);
        usec at = first ? first->at : USEC_NEVER;

        if (d->sent_first)
                at = MIN_OF(at, d->sent_first->sent_at + d->config.timeout);
        if (d->starved_until)
                at = MIN_OF(at, d->starved_until);
        if ((!d->on_hold && (d->ready_lanes.first || d->ready_batches.first)) ||
            d->told_state == DELIVERY_THROTTLED)
                at = MIN_OF(at, flow_deadline(&d->flow, d->now));
        return at;
}

void delivery_stats(const struct delivery *d, struct delivery_stats *out)
{
        *out = d->stats;
        out->tracks = d->tracks_n;
        out->waiting = d->failing;
        out->limit = (uint32_t)d->flow.limit;
        out->state = d->told_state;
}
