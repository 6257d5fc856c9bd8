#include "delivery/inside.h"

#include <assert.h>
#include <stdio.h>

#include "base/backoff.h"

/* ---- failing ------------------------------------------------------------ */

/* The sink accepts again: what it said stays the reason for fewer requests, but it is past. */
void batch_remember_past(struct delivery *d)
{
        char text[sizeof(d->text)];
        size_t n;

        if (!d->text[0] || d->text_past || d->flow.failed)
                return;
        memcpy(text, d->text, sizeof(text));
        n = text_copy(d->text, sizeof(d->text), "accepts again, fewer requests at once since: ");
        (void)text_copy(d->text + n, sizeof(d->text) - n, text);
        d->text_past = d->text_changed = true;
}

static void remember(struct delivery *d, const char *text)
{
        char fresh[sizeof(d->text)];

        if (!text)
                return;
        (void)text_copy(fresh, sizeof(fresh), text);
        if (!d->text_past && strcmp(d->text, fresh) == 0)
                return;
        d->text_past = false;
        memcpy(d->text, fresh, sizeof(fresh));
        d->text_changed = true;
}

void batch_wait(struct delivery *d, struct batch *b, usec until)
{
        timer_arm(d, &b->due,
                  records_age(d) && !b->dead && !batch_searches(d, b)
                          ? MIN_OF(until, record_old_at(d, b->first))
                          : until);
        b->state = BATCH_WAITING;
        if (!b->detached) {
                b->detached = true;
                b->to_detach = b->first;
                queue_add(&d->detaches, &b->link);
        }
}

static bool batch_spent(const struct delivery *d, const struct batch *b, const struct answer *a)
{
        return a->kind == ANSWER_FINAL || a->kind == ANSWER_TOO_LARGE ||
               (d->config.max_attempts && b->number >= d->config.max_attempts);
}

static bool batch_exhausted(const struct delivery *d, const struct batch *b, const struct answer *a, usec now)
{
        return batch_spent(d, b, a) || (d->config.max_event_age && now - b->since >= d->config.max_event_age);
}

/* How many of those sent have come to their end. What is old stands first; its age is no reason to give up
 * what came after it. */
static uint32_t batch_ended(const struct delivery *d, const struct batch *b, const struct answer *a, usec now)
{
        uint32_t n = 0;

        if (b->named)
                return 1;
        if (batch_spent(d, b, a))
                return b->send;
        for (const struct record *r = b->first;
             n < b->send && now - r->engine.since >= d->config.max_event_age; r = r->engine.next)
                n++;
        return n;
}

/* Did the function itself fail, so that one of the records may be the reason? */
static bool answer_blames(const struct answer *a)
{
        return a->kind == ANSWER_FINAL ||
               (a->kind == ANSWER_RETRY && a->status >= 500 && !answer_is_overload(a->status));
}

static void batch_failing(struct delivery *d, struct batch *b, bool final)
{
        d->failing += !b->failing;
        b->failing = true;
        d->final += final && !b->final;
        b->final = b->final || final;
}

static usec batch_backoff(struct delivery *d, const struct batch *b)
{
        const struct delivery_config *c = &d->config;
        int64_t steps = MIN_OF((int64_t)b->number, c->max_backoff / MAX_OF(c->initial_backoff, (usec)1) + 1);

        if (b->final && !b->dead)
                return MAX_OF(c->max_backoff / 2 + backoff_full_jitter(&d->random, c->max_backoff / 2,
                                                                       c->max_backoff / 2, 0, 0),
                              USEC_MSEC);
        if (c->linear_backoff)
                return backoff_full_jitter(
                        &d->random, MIN_OF(c->initial_backoff * MAX_OF(steps, (int64_t)1), c->max_backoff),
                        c->max_backoff, 0, USEC_MSEC);
        return backoff_full_jitter(&d->random, c->initial_backoff, c->max_backoff, MAX_OF(b->number, 1u) - 1,
                                   USEC_MSEC);
}

/* For the dead letter. */
static void batch_keep_answer(struct batch *b, const struct answer *a)
{
        if (a->text && a->text == b->reason)
                return;
        batch_forget_reason(b);
        b->status = a->status;
        b->reason = a->text ? strdup(a->text) : NULL;
        b->body_n = a->body.n;
        b->body = a->body.n ? str_dup(a->body) : NULL;
}

static void batch_pause(struct delivery *d, struct batch *b, const struct answer *a, usec now)
{
        if (records_age(d) && !b->dead)
                batch_keep_answer(b, a);
        batch_wait(d, b,
                   now + MAX_OF(batch_backoff(d, b), MIN_OF(a->retry_after, d->config.retry_after_max)));
}

/* What was sent is at fault as a whole, and its first half is sent by itself. */
static void batch_halve(struct delivery *d, struct batch *b, const struct answer *a, usec now)
{
        uint32_t sent = b->send;

        b->send /= 2;
        b->number = 0;
        if (a->kind == ANSWER_TOO_LARGE) {
                b->most = b->send;
                batch_ready(d, b);
                return;
        }
        b->suspect = sent;
        batch_failing(d, b, false);
        batch_pause(d, b, a, now);
}

/* The records behind those that are done have their own chance. */
static void batch_go_on(struct delivery *d, struct batch *b)
{
        batch_settled_state(d, b);
        if (!b->dead)
                batch_forget_reason(b);
        b->number = 0;
        b->named = false;
        b->send = b->dead ? 1
                          : MIN_OF(b->suspect ? MAX_OF(b->suspect / 2, 1u) : b->n, b->most ? b->most : b->n);
        batch_ready(d, b);
}

static void batch_bury(struct delivery *d, struct batch *b, uint32_t n, const struct answer *a)
{
        b->attempts = b->number;
        batch_keep_answer(b, a);
        b->dead = n;
        b->send = 1;
        b->suspect = 0;
        b->number = 0;
        if (b->attempts) /* what was never tried says nothing about the function */
                batch_failing(d, b, false);
        batch_ready(d, b);
}

/* No further attempt for the first n records: the user said what happens to them. */
void batch_give_up(struct delivery *d, struct batch *b, uint32_t n, const struct answer *a, usec now)
{
        switch (d->config.on_exhausted) {
        case EXHAUSTED_DROP:
                b->suspect = 0;
                if (batch_settle_first(d, b, n, OUTCOME_DROPPED, now))
                        batch_go_on(d, b);
                return;
        case EXHAUSTED_DEAD_LETTER: batch_bury(d, b, n, a); return;
        case EXHAUSTED_BLOCK:
                batch_failing(d, b, true);
                batch_pause(d, b, a, now);
                return;
        }
}

/* ---- age, decided as soon as it is reached ------------------------------ */

void batch_give_up_old(struct delivery *d, struct batch *b, usec now)
{
        const struct answer a = { .kind = ANSWER_FINAL,
                                  .status = b->status,
                                  .body = { b->body, b->body ? b->body_n : 0 },
                                  .text = b->reason ? b->reason
                                                    : "maxEventAge passed before it could be sent" };
        uint32_t n = 0;

        if (b->state == BATCH_READY)
                queue_remove(&d->ready_batches, &b->link);
        heap_remove(&d->timers, &b->due.node);
        /* Those behind what was sent last have other attempts behind them, or none; their turn comes at once.
         */
        for (const struct record *r = b->first;
             n < (b->reason ? MAX_OF(MIN_OF(b->send, b->tried), 1u) : b->send) && now >= record_old_at(d, r);
             r = r->engine.next)
                n++;
        batch_give_up(d, b, n, &a, now);
}

static void batch_failed(struct delivery *d, struct batch *b, const struct answer *a, usec now)
{
        d->stats.failures++;
        b->named = a->kind == ANSWER_PARTIAL && d->config.ordering != ORDERING_NONE;
        remember(d, a->text);
        if (b->lane->track->revoking) {
                batch_settle(d, b, OUTCOME_RELEASED, now);
                return;
        }
        if (b->dead) { /* never lost: the lane waits until the dead letter is taken */
                batch_failing(d, b, true);
                batch_pause(d, b, a, now);
                return;
        }
        if (a->overload)
                flow_refused(&d->flow, &d->random, b->sent_at,
                             MIN_OF(a->retry_after, d->config.retry_after_max), now);
        if (b->send > 1 &&
            (a->kind == ANSWER_TOO_LARGE ||
             (d->config.bisect && !b->named && (answer_blames(a) || batch_exhausted(d, b, a, now))))) {
                batch_halve(d, b, a, now);
                return;
        }
        if (batch_exhausted(d, b, a, now)) {
                batch_give_up(d, b, batch_ended(d, b, a, now), a, now);
                return;
        }
        batch_failing(d, b, false);
        batch_pause(d, b, a, now);
}

static void batch_accepted(struct delivery *d, struct batch *b, usec now)
{
        uint32_t n = b->send;

        if (!b->dead)
                flow_accepted(&d->flow, d->stats.in_flight - d->dead_in_flight, b->sent_at, now);
        b->suspect -= MIN_OF(b->suspect, n);
        if (!batch_settle_first(d, b, n, b->dead ? OUTCOME_DEAD_LETTERED : OUTCOME_ACCEPTED, now))
                return;
        if (b->lane->track->revoking) {
                batch_settle(d, b, OUTCOME_RELEASED, now);
                return;
        }
        if (b->dead && --b->dead == 0)
                batch_forget_reason(b);
        batch_go_on(d, b);
}

/* Takes out what a partial answer accepted. In an ordered lane that is what stands before the first failure.
 */
static void batch_keep_failed(struct delivery *d, struct batch *b, const struct answer *a, usec now)
{
        struct record *kept = NULL, **last = &kept, *r = b->first;
        uint32_t place = 0, i = 0;

        if (d->config.ordering != ORDERING_NONE) {
                if (a->failed[0] > 0) { /* the first record is another one now */
                        b->number = 1;
                        (void)batch_settle_first(d, b, a->failed[0], OUTCOME_ACCEPTED, now);
                }
                return;
        }
        for (struct record *next; r; r = next, place++) {
                next = r->engine.next;
                if (place >= b->send || (i < a->failed_n && a->failed[i] == place)) {
                        i += place < b->send;
                        *last = r;
                        last = &r->engine.next;
                        continue;
                }
                b->n--;
                record_settle(d, b->lane->track, r, OUTCOME_ACCEPTED, now);
        }
        *last = NULL;
        b->first = kept;
        assert(kept); /* an answer is partial only when it names a record */
        b->since = kept->engine.since;
        b->send = b->tried = i;
}

static void batch_partly_accepted(struct delivery *d, struct batch *b, const struct answer *a, usec now)
{
        flow_accepted(&d->flow, d->stats.in_flight - d->dead_in_flight, b->sent_at, now);
        batch_keep_failed(d, b, a, now);
        if (a->failed[0] > 0) /* what blocked may be among those accepted */
                batch_settled_state(d, b);
        b->suspect = 0;
        /* no more than fits, or the attempts would be counted from the start each time */
        if (d->config.ordering != ORDERING_NONE)
                b->send = b->most ? MIN_OF(b->most, b->n) : b->n;
        batch_failed(d, b, a, now);
}

/* Ends an attempt that has no answer, and says so to whoever sends. */
void batch_cancel(struct delivery *d, struct batch *b)
{
        d->cancels[d->cancels_n++] = slot_ticket(d, b->slot);
        batch_landed(d, b);
        slot_free(d, b->slot);
}

void batch_expire(struct delivery *d, struct batch *b, usec now)
{
        char text[64];

        (void)snprintf(text, sizeof(text), "no answer within %lld ms",
                       (long long)(d->config.timeout / USEC_MSEC));
        batch_cancel(d, b);
        batch_failed(d, b, &(struct answer){ .kind = ANSWER_RETRY, .overload = true, .text = text }, now);
}

void delivery_answer(struct delivery *d, uint32_t ticket, const struct answer *a, usec now)
{
        struct answer all_failed = *a; /* a partial answer that names no record of the batch */
        uint32_t slot = ticket & 0xffff;
        struct batch *b;

        all_failed.kind = ANSWER_RETRY;
        if (slot >= d->config.max_in_flight || slot_ticket(d, slot) != ticket || !(b = d->slots[slot].batch))
                return;
        batch_landed(d, b);
        slot_free(d, slot);
        if (a->kind == ANSWER_ACCEPTED)
                batch_accepted(d, b, now);
        else if (a->kind == ANSWER_PARTIAL && !b->dead && a->failed_n > 0 &&
                 a->failed[a->failed_n - 1] < b->send)
                batch_partly_accepted(d, b, a, now);
        else
                batch_failed(d, b, a->kind == ANSWER_PARTIAL ? &all_failed : a, now);
}
