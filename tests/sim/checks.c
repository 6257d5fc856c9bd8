#include "tests/sim/world.h"

/* The promises, each held against the facts in the log and the model of what this engine was told. */

static bool ordered(const struct world *w) { return w->config.ordering != ORDERING_NONE; }
static usec bounded(const struct world *w, usec retry_after)
{
        return later(earlier(retry_after, w->config.retry_after_max), 0);
}

/* ---- sending ------------------------------------------------------------ */

/* Over any time t at most burst + rate * t events, but for what the last batch is larger than one. */
static void check_rate(struct worker *k, const struct flight *f)
{
        struct world *w = k->world;
        double burst = (double)MAX_OF(w->config.burst, (int64_t)1);

        if (!w->config.rate)
                return;
        k->bucket = MAX_OF(k->bucket - (double)w->config.rate * (double)(w->now - k->bucket_at) / 1e6, 0.0) +
                    f->n;
        k->bucket_at = w->now;
        if (k->bucket > burst - 1 + f->n + 0.01)
                world_fail(w, "more than the rate allows", f->track, f->items[0]->record.position);
}

static void check_limits(struct worker *k, const struct flight *f)
{
        struct world *w = k->world;
        struct delivery_stats stats;

        delivery_stats(k->engine, &stats);
        if (k->flights > w->config.max_in_flight || stats.in_flight > w->config.max_in_flight)
                world_fail(w, "more requests at once than maxInFlight", f->track, k->flights);
        if (f->dead)
                return;
        if (k->on_hold)
                world_fail(w, "sent while held", f->track, f->items[0]->record.position);
        if (k->flights - k->dead_flights > stats.limit)
                world_fail(w, "more requests at once than the sink is trusted with", f->track, stats.limit);
        if (w->now < k->paused_until)
                world_fail(w, "sent before the sink's Retry-After was over", f->track,
                           f->items[0]->record.position);
        check_rate(k, f);
}

/* The batch is the head of its lane, and the only one of it. */
static void check_lane(struct worker *k, struct flight *f)
{
        struct lane_model *lane = f->items[0]->lane;
        struct item *i = lane->first;

        if (lane->flight)
                world_fail(k->world, "two batches of a lane under way", f->track,
                           f->items[0]->record.position);
        for (uint32_t n = 0; n < f->n; n++, i = i->next)
                if (i != f->items[n])
                        world_fail(k->world, "sent before an earlier record of its lane was settled",
                                   f->track, f->items[n]->record.position);
        lane->flight = f;
}

static void check_batch(struct worker *k, const struct flight *f)
{
        struct world *w = k->world;
        const struct delivery_config *c = &w->config;
        const struct holding *h = &k->holdings[f->track];
        const struct item *last = f->items[f->n - 1];
        size_t bytes = 0;

        for (uint32_t n = 0; n < f->n; n++)
                bytes += f->items[n]->record.pinned;
        if (f->n > c->batch_records || (f->n > 1 && c->batch_bytes && bytes > c->batch_bytes))
                world_fail(w, "a batch larger than it may be", f->track, f->n);
        if (ordered(w) && !last->tried && !last->next && f->n < c->batch_records &&
            (!c->batch_bytes || bytes < c->batch_bytes) && w->now < f->items[0]->lent_at + c->batch_wait &&
            h->credit > 0 && h->bytes > 0 && h->dry_at < f->items[0]->lent_at)
                world_fail(w, "a batch that did not wait to fill up", f->track, f->items[0]->record.position);
        if (f->number < 1 || f->number > f->items[0]->failures + 1 ||
            (c->batch_records == 1 && f->number != f->items[0]->failures + 1))
                world_fail(w, "the attempts are counted wrongly", f->track, f->number);
        if (c->max_attempts && c->on_exhausted != EXHAUSTED_BLOCK && f->number > c->max_attempts)
                world_fail(w, "more attempts than allowed", f->track, f->number);
}

static void check_item(struct worker *k, struct flight *f, struct item *i)
{
        struct world *w = k->world;

        if (i->accepted || i->taken)
                world_fail(w, "sent after it was accepted", f->track, i->record.position);
        if (i->flight)
                world_fail(w, "a record twice under way", f->track, i->record.position);
        if (w->now < w->attempts[i->wait].not_before)
                world_fail(w, "sent again before its pause was over", f->track, i->record.position);
        if (!f->dead && i->dying)
                world_fail(w, "sent to the function after its dead letter", f->track, i->record.position);
        if (f->number > 1 && !f->dead && !i->detached)
                world_fail(w, "waited without being detached", f->track, i->record.position);
        i->flight = f;
}

static bool too_old(const struct world *w, const struct item *i)
{
        return w->config.max_event_age && w->now - i->lent_at >= w->config.max_event_age;
}

/* Did attempts, age or a final answer bring this record, and no other one, to its end? */
static bool justified(const struct world *w, const struct item *i)
{
        const struct delivery_config *c = &w->config;

        return too_old(w, i) ||
               (i->at_fault && (i->final || (c->max_attempts && i->failures >= c->max_attempts)));
}

/* Those that failed with it need not wait any more. */
static void give_up(struct worker *k, struct item *i)
{
        struct world *w = k->world;

        if (!justified(w, i))
                world_fail(w, "given up without a reason", i->record.track, i->record.position);
        if (w->config.bisect && !i->at_fault && !too_old(w, i))
                world_fail(w, "given up, but another record of the batch may be at fault", i->record.track,
                           i->record.position);
        w->attempts[i->wait].not_before = 0;
}

static void check_dead_letter(struct worker *k, const struct flight *f, const struct action *a)
{
        struct world *w = k->world;
        struct item *i = f->items[0];

        if (w->config.on_exhausted != EXHAUSTED_DEAD_LETTER || f->n != 1)
                world_fail(w, "a dead letter that nobody asked for", f->track, i->record.position);
        if (!i->dying) {
                give_up(k, i);
                k->to_bury -= i->to_bury;
                i->to_bury = false;
                i->dying = true;
                k->holdings[f->track].dying++;
        }
        if (too_old(w, i)) { /* whatever came of it until then */
                /* else they are the batch's, in which others may have come before */
                if (w->config.batch_records == 1 && a->number > i->failures)
                        world_fail(w, "a dead letter with wrong attempts", f->track, i->record.position);
                if (!a->reason.p ? !w->no_memory_percent
                                 : !str_starts(a->reason, STR("maxEventAge")) &&
                                           !str_starts(a->reason, STR("no answer within")) &&
                                           !(i->last_text && str_is(a->reason, i->last_text)))
                        world_fail(w, "a dead letter with a wrong reason", f->track, i->record.position);
                return;
        }
        if (a->number < 1 || a->number > i->failures || a->status != i->last_status)
                world_fail(w, "a dead letter with wrong attempts or status", f->track, i->record.position);
        if (!a->reason.p && w->no_memory_percent)
                return;
        if (!a->reason.p || (i->last_text ? !str_is(a->reason, i->last_text)
                                          : !str_starts(a->reason, STR("no answer within"))))
                world_fail(w, "a dead letter with a wrong reason", f->track, i->record.position);
}

void check_sent(struct worker *k, struct flight *f, const struct action *a)
{
        const struct holding *h = &k->holdings[f->track];

        if (!h->assigned || h->leaving)
                world_fail(k->world, "sent for a track that is given up", f->track,
                           f->items[0]->record.position);
        check_limits(k, f);
        if (ordered(k->world))
                check_lane(k, f);
        if (f->dead)
                check_dead_letter(k, f, a);
        else
                check_batch(k, f);
        for (uint32_t n = 0; n < f->n; n++)
                check_item(k, f, f->items[n]);
}

/* ---- answers ------------------------------------------------------------ */

static void land(struct flight *f)
{
        for (uint32_t n = 0; n < f->n; n++) {
                f->items[n]->flight = NULL;
                f->items[n]->tried = true;
        }
        if (f->items[0]->lane)
                f->items[0]->lane->flight = NULL;
}

static bool names_records(const struct flight *f, const struct answer *a)
{
        return a->kind == ANSWER_PARTIAL && a->failed_n > 0 && a->failed[a->failed_n - 1] < f->n;
}

static void now_failing(struct worker *k, struct item *i, bool blocked)
{
        k->failing += !i->failing;
        i->failing = true;
        k->blocked += blocked && !i->blocked;
        i->blocked = i->blocked || blocked;
}

/* What is left of a batch after an answer: how it counts, and how long it waits at least. */
static void fail_item(struct worker *k, const struct flight *f, struct item *i, const struct answer *a,
                      uint32_t left)
{
        struct world *w = k->world;
        const struct delivery_config *c = &w->config;
        bool named = names_records(f, a) && ordered(w) && i == f->items[a->failed[0]];

        i->failures++;
        i->wait = f->serial;
        i->last_number = f->number;
        i->last_status = a->status;
        i->last_text = a->text;
        i->final = a->kind == ANSWER_FINAL || (a->kind == ANSWER_TOO_LARGE && f->n == 1);
        i->at_fault = named || (!(names_records(f, a) && ordered(w)) && (!c->bisect || left == 1));
        now_failing(k, i, c->on_exhausted == EXHAUSTED_BLOCK && justified(w, i));
        i->to_bury = c->on_exhausted == EXHAUSTED_DEAD_LETTER && c->batch_records == 1 && justified(w, i);
        k->to_bury += i->to_bury;
}

static void count_refusal(struct worker *k, const struct flight *f, const struct answer *a)
{
        struct world *w = k->world;

        if (!a->overload)
                return;
        k->paused_until = MAX_OF(k->paused_until, w->now + bounded(w, a->retry_after));
        if (f->sent_at > k->refused_at) {
                k->refused++;
                k->refused_at = w->now;
        }
}

static void check_failed(struct worker *k, const struct flight *f, const struct answer *a)
{
        struct world *w = k->world;
        uint32_t first = names_records(f, a) ? a->failed[0] : 0, next = 0,
                 left = names_records(f, a) && !ordered(w) ? (uint32_t)a->failed_n : f->n;
        usec pause = later(USEC_MSEC, bounded(w, a->retry_after));

        if (w->config.on_exhausted == EXHAUSTED_BLOCK && a->kind == ANSWER_FINAL && f->n == 1)
                pause = MAX_OF(pause, w->config.max_backoff / 2);
        if (a->kind != ANSWER_TOO_LARGE || f->n == 1)
                w->attempts[f->serial].not_before = w->now + pause;
        count_refusal(k, f, a);
        for (uint32_t n = first; n < f->n; n++) {
                if (names_records(f, a) && !ordered(w)) {
                        if (next == a->failed_n || a->failed[next] != n)
                                continue;
                        next++;
                }
                fail_item(k, f, f->items[n], a, left);
        }
}

static void check_accepted(struct worker *k, const struct flight *f, const struct answer *a)
{
        uint32_t next = 0;

        k->refused = 0;
        for (uint32_t n = 0; n < f->n; n++) {
                if (a->kind == ANSWER_PARTIAL && next < a->failed_n && a->failed[next] == n) {
                        if (ordered(k->world))
                                return;
                        next++;
                        continue;
                }
                f->items[n]->accepted = true;
                k->must_settle++;
        }
}

static void check_dead_answer(struct worker *k, const struct flight *f, const struct answer *a)
{
        struct world *w = k->world;
        struct item *i = f->items[0];

        if (a->kind == ANSWER_ACCEPTED) {
                i->taken = true;
                k->must_settle++;
        } else if (!k->holdings[f->track].leaving) {
                i->wait = f->serial;
                w->attempts[f->serial].not_before = w->now + later(USEC_MSEC, bounded(w, a->retry_after));
                now_failing(k, i, true);
        }
}

void check_answer(struct worker *k, struct flight *f, const struct answer *a)
{
        land(f);
        if (f->dead) {
                check_dead_answer(k, f, a);
                return;
        }
        if (a->kind == ANSWER_ACCEPTED || names_records(f, a))
                check_accepted(k, f, a);
        if (a->kind != ANSWER_ACCEPTED && !k->holdings[f->track].leaving)
                check_failed(k, f, a);
}

void check_cancelled(struct worker *k, struct flight *f)
{
        struct world *w = k->world;
        const struct holding *h = &k->holdings[f->track];

        if (h->leaving && (h->lost || w->now >= h->give_up_at)) {
                land(f);
                return;
        }
        if (w->now < f->sent_at + w->config.timeout)
                world_fail(w, "cancelled before its time was out", f->track, f->items[0]->record.position);
        check_answer(k, f, &(struct answer){ .kind = ANSWER_RETRY, .overload = true });
}

/* ---- settling ----------------------------------------------------------- */

static void check_outcome(struct worker *k, struct item *i, enum outcome outcome)
{
        struct world *w = k->world;
        const struct holding *h = &k->holdings[i->record.track];

        switch (outcome) {
        case OUTCOME_ACCEPTED:
                k->accepted++;
                if (!i->accepted || !i->entry->accepted)
                        world_fail(w, "settled as accepted, but the function did not accept it",
                                   i->record.track, i->record.position);
                k->must_settle--;
                return;
        case OUTCOME_DEAD_LETTERED:
                k->dead_lettered++;
                if (!i->taken || !i->entry->dead)
                        world_fail(w, "settled as a dead letter, but nobody took it", i->record.track,
                                   i->record.position);
                k->must_settle--;
                return;
        case OUTCOME_DROPPED:
                k->dropped++;
                if (w->config.on_exhausted != EXHAUSTED_DROP)
                        world_fail(w, "dropped, but the user did not ask for it", i->record.track,
                                   i->record.position);
                give_up(k, i);
                i->entry->dropped = true;
                return;
        case OUTCOME_FILTERED:
                k->filtered++;
                if (!i->entry->skip)
                        world_fail(w, "settled as filtered, but it was not", i->record.track,
                                   i->record.position);
                i->entry->skipped = true;
                return;
        case OUTCOME_RELEASED:
                k->released++;
                if (!h->leaving)
                        world_fail(w, "released, but its track was not revoked", i->record.track,
                                   i->record.position);
                if (i->accepted || i->taken)
                        world_fail(w, "released after it was accepted", i->record.track, i->record.position);
                return;
        case OUTCOME_MAX: break;
        }
        world_fail(w, "settled as what?", i->record.track, i->record.position);
}

static void model_done(struct worker *k, struct item *i)
{
        struct world *w = k->world;
        struct holding *h = &k->holdings[i->record.track];
        uint32_t before = h->low;

        if (h->done[i->index])
                world_fail(w, "settled twice", i->record.track, i->record.position);
        h->done[i->index] = true;
        h->since_commit++;
        while (h->low < h->next && h->done[h->low])
                h->low++;
        if (h->low == before)
                return;
        if (before == h->committed_low)
                h->moved_at = w->now;
        h->must_commit = h->must_commit || h->since_commit >= w->config.commit_count ||
                         w->config.commit_interval == 0 || h->leaving;
}

void check_settled(struct worker *k, struct item *i, enum outcome outcome)
{
        struct world *w = k->world;
        struct holding *h = &k->holdings[i->record.track];

        if (i->flight && !k->crashing)
                world_fail(w, "handed back while it is under way", i->record.track, i->record.position);
        if (h->lent == 0)
                world_fail(w, "handed back more than was lent", i->record.track, i->record.position);
        k->held--;
        k->held_bytes -= i->record.pinned;
        if (k->crashing) /* nobody hears of it */
                return;
        check_outcome(k, i, outcome);
        if (outcome != OUTCOME_RELEASED) {
                if (i->lane && i->lane->first != i)
                        world_fail(w, "settled before an earlier record of its lane", i->record.track,
                                   i->record.position);
                model_done(k, i);
        }
        k->failing -= i->failing;
        k->blocked -= i->blocked;
        h->dying -= i->dying;
        k->to_bury -= i->to_bury;
}

void check_committed(struct worker *k, uint32_t track, uint64_t position)
{
        struct world *w = k->world;
        struct holding *h = &k->holdings[track];
        const struct partition *p = &w->partitions[track];

        if (!h->assigned || h->lost)
                world_fail(w, "commits a track that is lost", track, position);
        if (h->low == 0 || h->low == h->committed_low || position != p->log[h->low - 1].position + 1)
                world_fail(w, "commits something else than the lowest unfinished position", track, position);
        h->committed_low = h->low;
        h->since_commit = 0;
        h->must_commit = false;
}

/* A position that outlives the process: all below it must be settled for good. */
void check_durable(struct world *w, uint32_t track, uint64_t from, uint64_t to)
{
        const struct partition *p = &w->partitions[track];

        for (uint32_t o = log_index(p, from); o < p->n && p->log[o].position < to; o++) {
                const struct entry *e = &p->log[o];

                if (!e->accepted && !e->dead && !e->dropped && !e->skipped)
                        world_fail(w, "committed early: lost", track, e->position);
        }
}

void check_revoked(struct worker *k, uint32_t track)
{
        const struct holding *h = &k->holdings[track];

        if (!h->leaving || h->lent)
                world_fail(k->world, "revoked while records are out", track, h->lent);
        if (!h->lost && h->low != h->committed_low)
                world_fail(k->world, "given up in order without its last commit", track, h->low);
}

/* ---- the state told ----------------------------------------------------- */

void check_state(struct worker *k, const struct action *a)
{
        static const char *const names[DELIVERY_STATE_MAX] = { "idle", "retrying", "throttled", "failing",
                                                               "blocked" };

        say(k->world, "worker %d: %s %s\n", k->number, names[a->state], a->text);
        if (a->state != DELIVERY_IDLE && !a->text[0])
                world_fail(k->world, "a state without a reason", 0, a->state);
        k->state = a->state;
}

static void check_told(struct worker *k, const struct delivery_stats *stats)
{
        struct world *w = k->world;
        bool exact = w->config.batch_records == 1;

        if (stats->state != k->state)
                world_fail(w, "the state was not told", 0, stats->state);
        if (k->state == DELIVERY_BLOCKED ? k->blocked == 0 : exact && k->blocked > 0)
                world_fail(w, "blocked or not: the state is wrong", 0, k->blocked);
        if (k->state == DELIVERY_RETRYING ? k->failing == 0
                                          : k->state == DELIVERY_IDLE && exact && k->failing > 0)
                world_fail(w, "retrying or not: the state is wrong", 0, k->failing);
        if (k->held == 0 && k->state != DELIVERY_IDLE)
                world_fail(w, "nothing is held, but not all is well", 0, k->state);
}

/* ---- after each drain --------------------------------------------------- */

static void check_holding(struct worker *k, uint32_t track, int64_t *credit, int64_t *bytes)
{
        struct world *w = k->world;
        struct holding *h = &k->holdings[track];

        if (!h->assigned)
                return;
        if (h->leaving && w->now >= h->give_up_at)
                world_fail(w, "not given back in time", track, h->lent);
        if (h->must_commit ||
            (h->low != h->committed_low && w->now >= h->moved_at + w->config.commit_interval))
                world_fail(w, "a commit is overdue", track, h->low);
        if (h->leaving)
                return;
        if (h->next < w->partitions[track].end && (h->credit <= 0 || h->bytes <= 0))
                k->dry |= UINT32_C(1) << track;
        *credit += h->credit;
        *bytes += MAX_OF(h->bytes, (int64_t)0);
}

/* With three quarters of the window free, each track must be able to lend. */
static void check_dry(struct worker *k, uint32_t tracks, int64_t credit, int64_t bytes)
{
        struct world *w = k->world;
        const struct delivery_config *c = &w->config;

        if (w->no_memory_percent || c->max_records < 8 * tracks || c->max_bytes < 8 * (size_t)tracks)
                return;
        for (uint32_t i = 0; i < w->partitions_n; i++) {
                const struct holding *h = &k->holdings[i];

                if (!(k->dry >> i & 1) || h->next - h->low >= c->max_records * 8)
                        continue;
                if (h->credit <= 0 ? k->held + credit <= c->max_records / 4
                                   : k->held_bytes + bytes <= (int64_t)c->max_bytes / 4)
                        world_fail(w, "the window is nearly empty, and a source may not lend", i, h->next);
        }
}

static void check_counts(struct worker *k, const struct delivery_stats *s)
{
        if (s->held != k->held || (int64_t)s->held_bytes != k->held_bytes || s->in_flight != k->flights)
                world_fail(k->world, "the engine counts what it holds wrongly", 0, s->held);
        if (s->offered != k->offered || s->accepted != k->accepted || s->dropped != k->dropped ||
            s->dead_lettered != k->dead_lettered || s->filtered != k->filtered || s->released != k->released)
                world_fail(k->world, "the engine counts outcomes wrongly", 0, 0);
}

void check_quiet(struct worker *k)
{
        struct world *w = k->world;
        const struct delivery_config *c = &w->config;
        struct delivery_stats stats;
        int64_t credit = 0, bytes = 0;

        k->dry = 0;
        delivery_stats(k->engine, &stats);
        if (k->must_settle)
                world_fail(w, "accepted, but not settled", 0, k->must_settle);
        for (uint32_t i = 0; i < w->partitions_n; i++)
                check_holding(k, i, &credit, &bytes);
        if (k->dry)
                check_dry(k, stats.tracks, credit, bytes);
        check_counts(k, &stats);
        check_told(k, &stats);
        if (k->held + credit > (int64_t)c->max_records + stats.tracks)
                world_fail(w, "more records lent and credited than the window", 0,
                           (uint64_t)(k->held + credit));
        if (k->held_bytes + bytes > (int64_t)c->max_bytes + (int64_t)stats.tracks * w->largest)
                world_fail(w, "more bytes lent and credited than the budget", 0,
                           (uint64_t)(k->held_bytes + bytes));
        if (k->to_bury && k->flights < c->max_in_flight && k->dead_flights < MAX_OF(c->max_in_flight / 2, 1u))
                world_fail(w, "a dead letter is due, and not sent", 0, k->to_bury);
        if (k->oldest && w->now - k->oldest->sent_at >= c->timeout)
                world_fail(w, "an attempt is out of time and not cancelled", k->oldest->track,
                           k->oldest->items[0]->record.position);
        if (k->refused >= 25 && stats.limit > 1)
                world_fail(w, "the sink refuses all, and is not spared", 0, stats.limit);
        if (delivery_deadline(k->engine) <= w->now)
                world_fail(w, "asks to be called at once, for nothing", 0, 0);
}

void check_end(struct world *w)
{
        for (uint32_t i = 0; i < w->partitions_n; i++) {
                const struct partition *p = &w->partitions[i];

                check_durable(w, i, 0, p->stored);
                if (!w->may_block && p->stored < log_end(p))
                        world_fail(w, "not all is committed", i, p->stored);
        }
}
