#include "log/log.h"
#include "base/random.h"
#include "filter/filter.h"
#include "worker/feed.h"
#include "worker/passes.h"

#include <stdio.h>

/* EVENTS_ASLEEP: of one that sleeps. */
enum { EVENTS_AT_ONCE = 64, EVENTS_ASLEEP = 4 };
/* A source whose next record is further away than that lets its engine go. */
static const usec SLEEPS_BEFORE = 10 * USEC_SEC;
/* A record that was let go comes again within this time, or another worker has it. */
static const usec COMES_AGAIN = USEC_MINUTE;
/* Filters may take long over a record: after so long other Triggers have their turn. */
static const usec JUDGED_AT_ONCE = 10 * USEC_MSEC;
/* When a filter had no memory for a record, it tries again after this. */
static const usec JUDGED_AGAIN = 100 * USEC_MSEC;

/* An attempt of the engine in flight. */
struct flight {
        struct sending *sending; /* NULL: none */
        uint32_t attempt;
};

struct pull {
        struct feed feed;
        const struct pull_ops *ops; /* of the source */
        struct delivery *engine;
        struct flight *flights; /* by the slot of the attempt */
        /* What the source has said; from `at` on it is not dealt with yet. */
        struct pull_event *events, few[EVENTS_ASLEEP]; /* events: few while it sleeps */
        size_t n, at, most;
        usec judged_again;   /* the filter had no memory for the next record; 0: it had */
        struct buf document; /* what the filter sees */
        /* A failed record was let go and will come again. The engine has forgotten it and reports that all is
         * well; that is not believed until this time, or until a record is done. */
        usec failed_until; /* 0: no record was let go */
        uint64_t done;     /* records that were done at that time */
        bool well;         /* the engine has reported it since */
        bool stopping;
        usec give_up_at;
        /* Of one that sleeps: whether the source has the track, what the engine counted before, and whether
         * the source has had a record's credit that the engine did not give. */
        uint32_t track;
        bool has_track, lent_ahead;
        struct delivery_stats before;
};

static struct pull *pull_of(const struct feed *f) { return CONTAINER_OF(f, struct pull, feed); }

/* ---- from the source ---------------------------------------------------- */

static void track_assigned(struct pull *p, uint32_t track, usec now)
{
        struct error err;

        p->track = track;
        if (delivery_assign(p->engine, track, now, &err) < 0) {
                log_error_for(p->feed.config.services->log, "a partition can't be taken",
                              LOG_I("track", track), LOG_S("error", err.text));
                p->ops->revoked(p->feed.source, track);
        }
}

/* Out of memory: the record waits, and all that the source has said since. */
static void wait_for_memory(struct pull *p, const struct error *why, usec now)
{
        if (!p->judged_again)
                log_warn_for(p->feed.config.services->log, "the filter can't judge a record yet",
                             LOG_S("error", why->text));
        p->judged_again = now + JUDGED_AGAIN;
        p->feed.held = "the filter can't judge a record yet: out of memory";
}

/* false: it can't be judged yet. */
static bool take_record(struct pull *p, struct record *r, usec now)
{
        const struct feed_config *c = &p->feed.config;
        struct error why;
        enum passing passing = record_passes(c->filter, c->kind->shape, r, &p->document, &why);

        if (passing == UNJUDGED && why.kind == ERROR_MEMORY) {
                wait_for_memory(p, &why, now);
                return false;
        }
        p->judged_again = 0;
        p->feed.held = NULL;
        if (passing == LEFT_OUT) {
                delivery_skip(p->engine, r, now);
                return true;
        }
        p->feed.status.unjudged += passing == UNJUDGED;
        if (passing == UNJUDGED)
                r->unfit =
                        "the filter can't say whether the record is wanted: it is nested too deep, or holds "
                        "too much";
        delivery_offer(p->engine, r, now);
        return true;
}

static uint64_t done(const struct pull *p)
{
        struct delivery_stats s = { 0 };

        if (p->engine)
                delivery_stats(p->engine, &s);
        return s.accepted + s.dropped + s.dead_lettered;
}

static void let_go(struct pull *p, usec until)
{
        if (p->feed.status.delivery == DELIVERY_IDLE)
                return;
        p->failed_until = until;
        p->done = done(p);
}

static void delivery_said(struct pull *p, enum delivery_state state, const char *text)
{
        p->well = p->failed_until && state == DELIVERY_IDLE;
        if (!p->well)
                feed_delivery_said(&p->feed, state, text);
}

static void end_of_failure(struct pull *p, usec now)
{
        if (!p->failed_until || (now < p->failed_until && done(p) == p->done))
                return;
        p->failed_until = 0;
        if (p->well)
                feed_delivery_said(&p->feed, DELIVERY_IDLE, "");
        p->well = false;
}

static bool take_event(struct pull *p, const struct pull_event *e, usec now)
{
        switch (e->kind) {
        case PULL_RECORD: return take_record(p, e->record, now);
        case PULL_ASSIGNED: track_assigned(p, e->track, now); break;
        case PULL_REVOKING:
                if (e->again)
                        let_go(p, now + COMES_AGAIN);
                delivery_revoke(p->engine, e->track,
                                p->stopping ? MIN_OF(e->give_up_at, p->give_up_at) : e->give_up_at);
                break;
        case PULL_LOST: delivery_revoke(p->engine, e->track, 0); break;
        case PULL_STATE: feed_source_said(&p->feed, e->state, e->text, now); break;
        case PULL_CLOSED:
                p->feed.closed = true;
                p->feed.status.changes++;
                break;
        }
        return true;
}

/* Has the filter had its time? Then other tasks have theirs first. */
static bool long_enough(struct pull *p, usec begun)
{
        const struct feed_config *c = &p->feed.config;

        if (!c->filter || clock_monotonic(c->clock) - begun < JUDGED_AT_ONCE)
                return false;
        loop_ready(c->loop, c->wake);
        return true;
}

enum polled { NOTHING, SOMETHING, GIVES_WAY };

static enum polled poll_source(struct pull *p, usec now)
{
        const struct feed_config *c = &p->feed.config;
        usec begun = c->filter ? clock_monotonic(c->clock) : 0;
        bool any_record = false, gives_way = false;
        size_t from;

        if (now < p->judged_again)
                return NOTHING;
        if (p->at == p->n) {
                p->n = p->ops->poll(p->feed.source, p->events, p->most, now);
                p->at = 0;
        }
        for (from = p->at; p->at < p->n && !gives_way; gives_way = p->at < p->n && long_enough(p, begun)) {
                if (!take_event(p, &p->events[p->at], now))
                        break;
                any_record |= p->events[p->at++].kind == PULL_RECORD;
        }
        if (any_record) /* the clock is read once for all of them */
                p->feed.status.last_event = clock_wall(c->clock);
        return gives_way ? GIVES_WAY : p->at > from ? SOMETHING : NOTHING;
}

/* ---- to the function ---------------------------------------------------- */

static bool take_answers(struct pull *p, usec now)
{
        struct answer a;
        bool any = false, any_accepted = false;
        void *owner;

        while (sender_take(p->feed.config.sender, &owner, &a)) {
                struct flight *f = owner;

                f->sending = NULL;
                any_accepted |= a.kind == ANSWER_ACCEPTED || a.kind == ANSWER_PARTIAL;
                delivery_answer(p->engine, f->attempt, &a, now);
                any = true;
        }
        if (any_accepted)
                p->feed.status.last_delivery = clock_wall(p->feed.config.clock);
        return any;
}

static void send(struct pull *p, const struct action *a, usec now)
{
        static const struct answer no_memory = { .kind = ANSWER_RETRY, .text = "out of memory" };
        struct flight *f = &p->flights[delivery_slot(a->attempt)];
        struct sender *sender = p->feed.config.sender;
        const struct dead_letter dead = {
                .attempts = a->number, .status = a->status, .reason = a->reason, .answer = a->body
        };

        f->attempt = a->attempt;
        f->sending = a->kind == ACTION_SEND ? sender_send(sender, a->records, a->n, f)
                                            : sender_send_letter(sender, a->records[0], &dead, f);
        if (!f->sending)
                delivery_answer(p->engine, a->attempt, &no_memory, now);
}

static void cancel(struct pull *p, uint32_t attempt)
{
        struct flight *f = &p->flights[delivery_slot(attempt)];

        if (f->sending && f->attempt == attempt)
                sender_cancel(p->feed.config.sender, TAKE(f->sending));
}

static void give_credit(struct pull *p, const struct action *a)
{
        uint32_t ahead = p->lent_ahead && a->credit;

        p->lent_ahead = p->lent_ahead && !ahead;
        p->ops->credit(p->feed.source, a->track, a->credit - ahead, a->bytes);
}

static void perform(struct pull *p, const struct action *a, usec now)
{
        struct source *s = p->feed.source;

        switch (a->kind) {
        case ACTION_SEND:
        case ACTION_DEAD_LETTER: send(p, a, now); break;
        case ACTION_CANCEL: cancel(p, a->attempt); break;
        case ACTION_DETACH:
                if (p->ops->detach)
                        (void)p->ops->detach(s, a->record);
                break;
        case ACTION_SETTLE: p->ops->release(s, a->record, a->outcome); break;
        case ACTION_CREDIT: give_credit(p, a); break;
        case ACTION_COMMIT: p->ops->commit(s, a->track, a->position); break;
        case ACTION_REVOKED: p->ops->revoked(s, a->track); break;
        case ACTION_STATE: delivery_said(p, a->state, a->text); break;
        }
}

static bool pull_turn(struct feed *f, usec now)
{
        struct pull *p = pull_of(f);
        struct action a;
        const char *why;
        enum polled polled = poll_source(p, now);
        bool more = take_answers(p, now) || polled == SOMETHING;

        delivery_hold(p->engine, !sender_ready(f->config.sender, &why));
        while (delivery_next(p->engine, now, &a)) {
                perform(p, &a, now);
                more = true;
        }
        end_of_failure(p, now);
        return more && polled != GIVES_WAY;
}

static usec pull_deadline(const struct feed *f)
{
        const struct pull *p = pull_of(f);
        usec at = p->ops->deadline(f->source);

        if (!p->engine)
                return at;
        at = MIN_OF(delivery_deadline(p->engine), at);
        if (p->judged_again)
                at = MIN_OF(at, p->judged_again);
        return p->failed_until ? MIN_OF(at, p->failed_until) : at;
}

/* ---- rest -------------------------------------------------------------- */

/* What is counted since the start, whatever engines there were. */
static void add_up(const struct pull *p, struct delivery_stats *s)
{
        const struct delivery_stats *b = &p->before;

        s->offered += b->offered;
        s->accepted += b->accepted;
        s->dropped += b->dropped;
        s->dead_lettered += b->dead_lettered;
        s->filtered += b->filtered;
        s->released += b->released;
        s->attempts += b->attempts;
        s->failures += b->failures;
}

static void count(const struct pull *p, struct delivery_stats *out)
{
        if (p->engine) {
                delivery_stats(p->engine, out);
                add_up(p, out);
        } else
                *out = p->before;
}

static int open_engine(struct pull *p, const struct delivery_config *config, struct error *err)
{
        struct pull_event *events = calloc(EVENTS_AT_ONCE, sizeof(*events));

        p->flights = calloc(config->max_in_flight, sizeof(*p->flights));
        if (!events || !p->flights || delivery_new(&p->engine, config, random_seed(), err) < 0) {
                free(events);
                free(TAKE(p->flights));
                (void)error_memory(err);
                return -1;
        }
        memcpy(events, p->few, sizeof(p->few));
        p->events = events;
        p->most = EVENTS_AT_ONCE;
        return 0;
}

/* It is empty, or its records are with the source again. */
static void close_engine(struct pull *p, bool has_track)
{
        struct action a;

        if (has_track)
                delivery_revoke(p->engine, p->track, 0);
        while (has_track && delivery_next(p->engine, loop_now(p->feed.config.loop), &a))
                ; /* what it says of its end is known */
        p->engine = delivery_free(p->engine);
        free(TAKE(p->flights));
        if (p->events != p->few)
                free(p->events);
        p->events = p->few;
        p->most = EVENTS_ASLEEP;
}

/* Nothing is under way, and nothing will be for long. */
static bool pull_sleep(struct feed *f)
{
        struct pull *p = pull_of(f);
        struct delivery_stats s;
        struct pull_runs runs;

        if (!p->ops->asleep || p->stopping || p->at < p->n || p->failed_until || p->judged_again)
                return false;
        delivery_stats(p->engine, &s);
        if (s.held || s.in_flight || s.waiting || s.tracks > 1 || s.state != DELIVERY_IDLE)
                return false;
        p->ops->runs(f->source, &runs);
        if (runs.next && runs.next < clock_wall(f->config.clock) + SLEEPS_BEFORE)
                return false;
        add_up(p, &s);
        p->before = s;
        p->has_track = s.tracks == 1;
        p->n = p->at = 0;
        close_engine(p, p->has_track);
        f->config.sender = NULL;
        if (p->has_track)
                p->ops->asleep(f->source);
        return true;
}

/* Deals with what needs no engine. true: the next needs one. */
static bool pull_stir(struct feed *f, usec now)
{
        struct pull *p = pull_of(f);

        do {
                if (p->at == p->n) {
                        p->n = p->ops->poll(f->source, p->few, EVENTS_ASLEEP, now);
                        p->at = 0;
                }
                for (; p->at < p->n; p->at++) {
                        const struct pull_event *e = &p->few[p->at];

                        switch (e->kind) {
                        case PULL_RECORD: return true;
                        case PULL_ASSIGNED:
                                p->has_track = true;
                                p->track = e->track;
                                p->ops->asleep(f->source);
                                break;
                        case PULL_REVOKING:
                        case PULL_LOST:
                                p->has_track = false;
                                p->ops->revoked(f->source, e->track);
                                break;
                        case PULL_STATE:
                        case PULL_CLOSED: (void)take_event(p, e, now); break;
                        }
                }
        } while (p->n && !f->closed);
        return false;
}

static int pull_wake(struct feed *f, struct sender *sender, const struct delivery_config *config, usec now,
                     struct error *err)
{
        struct pull *p = pull_of(f);
        struct action a;

        if (open_engine(p, config, err) < 0)
                return -1;
        if (p->has_track && delivery_assign(p->engine, p->track, now, err) < 0) {
                close_engine(p, false);
                return -1;
        }
        p->lent_ahead = p->has_track;
        while (delivery_next(p->engine, now, &a))
                perform(p, &a, now);
        if (p->lent_ahead) { /* there was no memory for its window */
                close_engine(p, true);
                p->lent_ahead = false;
                return error_memory(err);
        }
        f->config.sender = sender;
        return 0;
}

/* ---- life --------------------------------------------------------------- */

static void pull_stop(struct feed *f, usec give_up_at)
{
        struct pull *p = pull_of(f);

        p->stopping = true;
        p->give_up_at = give_up_at;
        let_go(p, USEC_NEVER);
        p->ops->stop(f->source);
}

static bool pull_drained(const struct feed *f)
{
        const struct pull *p = pull_of(f);

        return p->ops->drained && p->ops->drained(f->source);
}

static bool pull_track_lag(const struct feed *f, uint32_t *at, struct track_lag *out)
{
        const struct pull *p = pull_of(f);

        return p->ops->track_lag && p->ops->track_lag(f->source, at, out);
}

/* The oldest record of all tracks. */
static void count_oldest(const struct feed *f, struct pipeline_status *out)
{
        struct track_lag lag;
        uint32_t at = 0;

        out->oldest = 0;
        while (pull_track_lag(f, &at, &lag))
                if (lag.oldest && (!out->oldest || lag.oldest < out->oldest))
                        out->oldest = lag.oldest;
        out->behind = out->oldest ? MAX_OF(clock_wall(f->config.clock) - out->oldest, (usec)0) : 0;
}

static void pull_count(const struct feed *f, struct pipeline_status *out)
{
        const struct pull *p = pull_of(f);

        count(p, &out->stats);
        out->lag = p->ops->lag ? p->ops->lag(f->source) : -1;
        if (p->ops->runs)
                p->ops->runs(p->feed.source, &out->runs);
        out->unsaved = p->ops->unsaved ? p->ops->unsaved(f->source) : -1;
        count_oldest(f, out);
}

static void pull_free(struct feed *f)
{
        struct pull *p = pull_of(f);

        if (f->source)
                (void)p->ops->free(f->source);
        (void)delivery_free(p->engine);
        free(p->flights);
        if (p->events != p->few)
                free(p->events);
        buf_done(&p->document);
        feed_done(f);
        free(p);
}

int pull_new(struct feed **out, const struct feed_config *config, const struct delivery_config *delivery,
             struct error *err)
{
        static const struct feed_ops ops = { .turn = pull_turn,
                                             .deadline = pull_deadline,
                                             .rest = pull_sleep,
                                             .stir = pull_stir,
                                             .wake = pull_wake,
                                             .stop = pull_stop,
                                             .drained = pull_drained,
                                             .track_lag = pull_track_lag,
                                             .count = pull_count,
                                             .free = pull_free };
        struct pull *p = calloc(1, sizeof(*p));

        if (!p)
                return error_memory(err);
        p->feed = (struct feed){ .ops = &ops, .config = *config };
        p->ops = config->kind->pull;
        p->document.max = (size_t)64 << 20;
        p->events = p->few;
        if (open_engine(p, delivery, err) < 0 || feed_open_source(&p->feed, err) < 0) {
                pull_free(&p->feed);
                return -1;
        }
        *out = &p->feed;
        return 0;
}
