#include "source/timer/timer.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/random.h"
#include "log/log.h"

/* A position that lies further ahead of the clock is none to go by: the clock it is of was wrong, or ours is.
 * Up to there nothing that was settled is sent again. */
static const usec FAR_AHEAD = USEC_DAY;
/* Clocks that differ by less agree, as far as a position is concerned. */
static const usec AGREE = 2 * USEC_SEC;
/* A tick that whoever holds the checkpoint did not claim so long after its time is anyone's. */
static const usec PATIENCE = 2 * USEC_SEC;
/* So often is looked whether those who made claims that are waited for are still there. */
static const usec LOOK = 5 * USEC_SEC;
static const struct str CHECKPOINT = { "timer", 5 };
/* Ticks that are claimed and not settled, at most. */
enum { OPEN_MOST = 32 };

struct tick {
        struct record record;
        struct list_node node; /* in the timer's open, by time, or in its gone */
        bool claimed;          /* durably: it may be sent */
        bool asked;            /* its claim is in the write that is under way */
        bool lent;
        bool again; /* it may have been sent before: it is not left out */
        bool ahead; /* it was claimed before it was due */
        char id[];
};

enum phase {
        PHASE_LOADING,
        /* claims were found: whoever made them may be at work on them for as long as a request may take */
        PHASE_WAITING,
        PHASE_RUNNING,
};
enum track { TRACK_NONE, TRACK_ASSIGNED, TRACK_LEAVING };

/* What the checkpoint says. */
struct position {
        usec settled; /* every tick up to it is done, but for those that are claimed; wall */
        /* up to here they were done by a clock that is not believed any more; 0: there was none */
        usec before;
        usec claimed[2 * OPEN_MOST]; /* may be under way */
        size_t claimed_n;
        usec timeout; /* how long an attempt of them may take; 0: they were given back */
        usec last;    /* the tick that ended last; 0: none did */
        enum outcome outcome;
};

struct timer {
        struct source source;
        const struct timer_spec *spec;
        const struct services *services;
        struct schedule schedule;
        struct tick_origin origin;
        struct buf value; /* what userEventBase64 holds */
        char *what;       /* names the schedule in the checkpoint */
        usec shift;       /* ticks are sent so much later than they are scheduled */
        struct alarm alarm;
        enum phase phase;
        enum track track;
        usec now;             /* of the last turn: what comes next is counted from there */
        usec settled, before; /* as in the position, with all that is claimed below */
        usec kept, asked;     /* settled as it is written, and in the write that is under way */
        usec due;             /* the next tick that is not claimed; USEC_NEVER */
        struct list open;     /* ticks that are claimed, or are to be */
        struct list gone;     /* lent, and no longer ours: another worker has the checkpoint */
        uint32_t lent;        /* of open */
        char *found;          /* the checkpoint whose claims are waited for */
        usec wait_until;      /* monotonic */
        usec look_at;         /* monotonic; USEC_NEVER: nobody else can have it */
        usec not_before;      /* monotonic: after a failure */
        uint64_t last_position;
        uint64_t beat; /* makes each write differ from the one before */
        bool stopping, told_closed, state_changed;
        bool standby;    /* another worker writes the checkpoint */
        bool dirty;      /* there is something to write */
        bool lost;       /* what is lent must be taken back at once */
        bool lapsed;     /* our claims hold no longer: what is lent may end, and no more */
        bool said_last;  /* the last write, at the end, was begun */
        bool is_loading; /* io is a get */
        bool is_first;   /* there is no checkpoint yet */
        struct store_request io;
        usec begun;      /* when the last write was begun; monotonic */
        usec wrote_at;   /* the same, but for the first of all */
        usec held_since; /* when the last one was begun that succeeded */
        usec last;       /* the tick that ended last; 0: none did */
        enum outcome outcome;
        int64_t credit;
        enum source_state state;
        char *text; /* NULL: none */
};

static struct timer *timer_of(const struct source *s) { return CONTAINER_OF(s, struct timer, source); }

static usec wall(const struct timer *s) { return clock_wall(s->services->clock); }
/* What is due by the schedule: later by the jitter. */
static usec scheduled(const struct timer *s) { return wall(s) - s->shift; }
static usec timeout(const struct timer *s) { return s->services->trigger->delivery->timeout; }
static bool allows(const struct timer *s) { return s->spec->concurrency_policy == CONCURRENCY_ALLOW; }
static usec apart(const struct timer *s) { return s->services->store.apart; }
static struct tick *tick_of(struct list_node *n) { return LIST_ITEM(n, struct tick, node); }

static void set_state(struct timer *s, enum source_state state, const char *text)
{
        if (s->state == state && strcmp(s->text ? s->text : "", text) == 0)
                return;
        s->state = state;
        free(s->text);
        s->text = *text ? str_dup(str_of(text)) : NULL;
        s->state_changed = true;
}

/* ---- ticks -------------------------------------------------------------- */

static void tick_drop(struct timer *s, struct tick *t)
{
        s->lent -= t->lent;
        list_remove(&t->node);
        free(t);
}

/* NULL: out of memory. */
static struct tick *tick_new(struct timer *s, usec time)
{
        BUF_AT_END struct buf id = BUF_INIT(4096);
        struct tick *t;

        tick_id(s->services->trigger, time, &id);
        t = id.failed ? NULL : calloc(1, sizeof(*t) + id.n);
        if (!t)
                return NULL;
        memcpy(t->id, id.p, id.n);
        t->record.id = (struct str){ t->id, id.n };
        t->record.time = time;
        t->record.pinned = 1;
        t->record.origin = &s->origin;
        t->record.value = s->origin.base64.n ? buf_view(&s->value) : str_of(s->spec->user_event);
        list_append(&s->open, &t->node);
        return t;
}

/* Those whose claims are not written are not claimed, and are chosen anew. */
static void drop_unclaimed(struct timer *s)
{
        for (struct list_node *n = s->open.first, *next; n; n = next) {
                struct tick *t = tick_of(n);

                next = n->next;
                t->asked = false;
                if (!t->claimed && !t->lent && !t->again)
                        tick_drop(s, t);
        }
        s->settled = s->kept;
        for (struct list_node *n = s->open.first; n; n = n->next)
                s->settled = MAX_OF(s->settled, tick_of(n)->record.time);
        s->due = schedule_next(&s->schedule, s->settled);
}

/* ---- the checkpoint ------------------------------------------------------ */

static void compose(const struct timer *s, usec attempt, struct buf *out)
{
        struct writer w;

        writer_init(&w, out);
        writer_object(&w);
        writer_member_text(&w, "source", s->what);
        writer_member_int(&w, "settled", s->settled);
        if (s->before)
                writer_member_int(&w, "before", s->before);
        if (s->open.n) {
                writer_key(&w, STR("claimed"));
                writer_array(&w);
                for (struct list_node *n = s->open.first; n; n = n->next)
                        writer_int(&w, tick_of(n)->record.time);
                writer_array_end(&w);
                writer_member_int(&w, "timeout", attempt);
                writer_member_int(&w, "beat", (int64_t)s->beat);
        }
        if (s->last) {
                writer_member_int(&w, "last", s->last);
                writer_member_text(&w, "outcome", outcome_name(s->outcome));
        }
        writer_object_end(&w);
}

static void write_checkpoint(struct timer *s, usec attempt)
{
        BUF_AT_END struct buf text = BUF_INIT(65536);
        struct error err;

        s->beat = (s->beat + 1) & INT32_MAX;
        compose(s, attempt, &text);
        for (struct list_node *n = s->open.first; n; n = n->next)
                tick_of(n)->asked = true;
        s->dirty = s->is_loading = false;
        s->begun = s->now;
        if (!s->is_first) /* for which the first tick does not wait */
                s->wrote_at = s->now;
        s->is_first = false;
        s->asked = s->settled;
        if (text.failed) { /* as if the store could not be reached: it is tried again */
                (void)error_memory(&err);
                request_begin(&s->io.request);
                request_fail(&s->io.request, s->services->loop, &err);
        } else
                store_put(&s->services->store, &s->io, CHECKPOINT, buf_view(&text));
}

static void load(struct timer *s)
{
        if (!request_idle(&s->io.request))
                return;
        s->is_loading = true;
        store_get(&s->services->store, &s->io, CHECKPOINT);
}

static usec number_of(const struct node *object, const char *name, usec otherwise)
{
        const struct node *n = node_member(object, name);

        return n && n->kind == NODE_INT && n->integer >= 0 ? n->integer : otherwise;
}

static void read_claims(const struct node *claimed, struct position *p)
{
        if (!claimed)
                return;
        if (claimed->kind == NODE_INT && claimed->integer > 0) /* of an earlier version */
                p->claimed[p->claimed_n++] = claimed->integer;
        for (size_t i = 0; claimed->kind == NODE_LIST && i < claimed->n; i++)
                if (claimed->items[i]->kind == NODE_INT && p->claimed_n < COUNT_OF(p->claimed))
                        p->claimed[p->claimed_n++] = claimed->items[i]->integer;
}

static void read_last(const struct node *root, struct position *p)
{
        const struct node *outcome = node_member(root, "outcome");

        p->last = number_of(root, "last", 0);
        for (int i = 0; i < OUTCOME_MAX; i++)
                if (outcome && outcome->kind == NODE_STRING &&
                    str_is(outcome->text, outcome_name((enum outcome)i))) {
                        p->outcome = (enum outcome)i;
                        return;
                }
        p->last = 0;
}

/* What a checkpoint says, read by the one parser for text that comes from outside. false: it is not of this
 * schedule. */
static bool read_checkpoint(const struct timer *s, struct str value, struct position *out)
{
        struct documents docs = { 0 };
        struct problems problems = { 0 };
        bool ours = false;

        if (yaml_parse(&docs, value, &problems) == 0 && docs.n == 1) {
                const struct node *root = docs.roots[0], *what = node_member(root, "source"),
                                  *settled = node_member(root, "settled");

                ours = what && what->kind == NODE_STRING && str_is(what->text, s->what) && settled &&
                       settled->kind == NODE_INT;
                if (ours) {
                        *out = (struct position){ .settled = settled->integer,
                                                  .before = number_of(root, "before", 0),
                                                  .timeout = number_of(root, "timeout", timeout(s)) };
                        read_claims(node_member(root, "claimed"), out);
                        for (size_t i = 0; i < out->claimed_n; i++)
                                out->settled = MAX_OF(out->settled, out->claimed[i]);
                        read_last(root, out);
                }
        }
        documents_done(&docs);
        problems_done(&problems);
        return ours;
}

/* ---- what was found ------------------------------------------------------ */

/* Claims that nobody settled are sent again with the same ids, for the function may have taken them or not;
 * but not while whoever made them may be at work on them. Then they are claimed anew, which fails when the
 * other is still there. */
static void take_over(struct timer *s, const struct position *p)
{
        free(TAKE(s->found));
        s->standby = false;
        s->phase = PHASE_RUNNING;
        for (size_t i = 0; i < p->claimed_n; i++) {
                struct tick *t = tick_new(s, p->claimed[i]);

                if (!t) { /* nothing was written: it is read again */
                        LIST_EACH (struct tick, made, &s->open, node)
                                tick_drop(s, made);
                        s->phase = PHASE_LOADING;
                        s->not_before = s->now + USEC_SEC;
                        return;
                }
                t->again = true;
                s->dirty = true;
        }
}

static void adopt(struct timer *s, const struct position *p, struct str value)
{
        bool waited = s->found && str_is(value, s->found) && s->now >= s->wait_until;

        s->settled = s->kept = p->settled;
        s->before = p->before;
        s->last = p->last;
        s->outcome = p->outcome;
        s->due = schedule_next(&s->schedule, s->settled);
        s->phase = PHASE_RUNNING;
        if (!p->claimed_n)
                free(TAKE(s->found));
        else if (p->timeout == 0 || waited)
                take_over(s, p);
        else {
                if (!s->found || !str_is(value, s->found)) {
                        s->standby = s->standby || s->found != NULL; /* whoever made them goes on */
                        free(s->found);
                        s->found = str_dup(value);
                        s->wait_until = s->now + p->timeout;
                }
                s->phase = PHASE_WAITING;
                s->look_at = apart(s) ? s->now + LOOK : USEC_NEVER;
        }
}

static void say_time(struct buf *b, const char *before, usec at)
{
        buf_text(b, before);
        time_format(b, at);
}

/* What is waited for is said: nothing else shows why no tick comes. */
static void set_connected(struct timer *s)
{
        BUF_AT_END struct buf text = BUF_INIT(400);
        usec ahead = s->settled - wall(s);

        if (s->phase == PHASE_WAITING)
                buf_printf(&text,
                           "ticks wait up to %" PRId64
                           " s for a tick that an earlier worker claimed and may still be delivering",
                           MAX_OF((s->wait_until - s->now + USEC_SEC - 1) / USEC_SEC, (usec)0));
        else if (s->before) {
                say_time(&text,
                         "a position is refused, since it lies too far ahead of the clock: ", s->before);
                buf_text(&text, ". Ticks follow the clock");
        } else if (ahead > AGREE && ahead <= FAR_AHEAD) {
                say_time(&text, "the clock was set back: all up to ", s->settled);
                buf_text(&text, " was settled, and is not sent again");
        } else if (s->due == USEC_NEVER)
                buf_text(&text, "no tick is left");
        set_state(s, SOURCE_CONNECTED, text.p ? text.p : "");
}

static void loaded(struct timer *s)
{
        struct store_request *r = &s->io;
        struct position p = { 0 };

        if (request_failed(&r->request)) {
                set_state(s, SOURCE_DISCONNECTED, r->request.error.text);
                s->not_before = s->now + USEC_SEC;
                s->phase = PHASE_LOADING;
                return;
        }
        if (!r->found || !read_checkpoint(s, buf_view(&r->value), &p)) {
                /* The first time, or another schedule: from now on, whoever goes on from here. */
                p.settled = wall(s);
                s->dirty = s->is_first = true;
        }
        adopt(s, &p, buf_view(&r->value));
        buf_done(&r->value);
        /* The other one is gone when it left a tick unclaimed. */
        if (s->phase == PHASE_RUNNING && (s->due == USEC_NEVER || s->due + PATIENCE <= scheduled(s)))
                s->standby = false;
        if (!s->standby)
                set_connected(s);
        else if (s->state != SOURCE_STANDBY) /* the checkpoint could not be read for a while */
                set_state(s, SOURCE_STANDBY, "another worker writes this checkpoint: this one waits");
}

/* Another worker has the checkpoint, and with it all that is open. */
static void lose(struct timer *s)
{
        s->standby = true;
        s->dirty = false;
        s->phase = PHASE_LOADING;
        s->not_before = s->now + USEC_SEC;
        free(TAKE(s->found));
        for (struct list_node *n; (n = s->open.first);) {
                struct tick *t = tick_of(n);

                if (!t->lent) {
                        tick_drop(s, t);
                        continue;
                }
                list_remove(n);
                list_append(&s->gone, n);
                s->lost = true;
        }
        s->lent = 0;
}

static void stored(struct timer *s)
{
        const struct request *r = &s->io.request;

        if (request_failed(r) && r->error.kind == ERROR_CONFLICT) {
                set_state(s, SOURCE_STANDBY, r->error.text);
                lose(s);
                return;
        }
        if (request_failed(r)) {
                set_state(s, SOURCE_DISCONNECTED, r->error.text);
                s->not_before = s->now + USEC_SEC;
                s->dirty = true;
                /* not durable: not sent; the policy applies once the checkpoint can be reached */
                drop_unclaimed(s);
                return;
        }
        s->standby = s->lapsed = false;
        s->held_since = s->begun;
        s->kept = s->asked;
        for (struct list_node *n = s->open.first; n; n = n->next) {
                tick_of(n)->claimed |= tick_of(n)->asked;
                tick_of(n)->asked = false;
        }
        set_connected(s);
}

/* ---- what is due --------------------------------------------------------- */

/* A position far ahead is not believed: or its timer would be silent until that time comes. Put forward
 * again, what was done before is not made up for. */
static void follow_clock(struct timer *s)
{
        usec at = wall(s);

        if (s->settled > at + FAR_AHEAD) {
                s->before = MAX_OF(s->before, s->settled);
                source_warn(s->services, "ClockSetBack", 0,
                            "the position is %lld days ahead of the clock, and is refused: ticks follow the "
                            "clock",
                            (long long)((s->settled - at) / USEC_DAY));
                s->settled = at;
        } else if (s->before && at > s->before + AGREE) {
                s->settled = MAX_OF(s->settled, s->before);
                s->before = 0;
        } else
                return;
        s->kept = s->settled;
        s->due = schedule_next(&s->schedule, s->settled);
        set_connected(s);
}

/* Which of the ticks up to now is to be sent; s->due is the earliest. USEC_NEVER: none of them. */
static usec choose(const struct timer *s, usec at)
{
        const struct timer_spec *spec = s->spec;
        usec on_time = at - spec->starting_deadline, next;
        usec oldest = spec->misfire_max_age ? MIN_OF(on_time, at - spec->misfire_max_age) : INT64_MIN;

        if (spec->misfire_policy == MISFIRE_CATCH_UP) {
                next = s->due >= oldest ? s->due : schedule_next(&s->schedule, oldest - 1);
                return next <= at ? next : USEC_NEVER;
        }
        if (spec->misfire_policy == MISFIRE_SKIP)
                oldest = on_time;
        if (allows(s)) { /* none that is on time waits for another one */
                next = schedule_next(&s->schedule, MAX_OF(s->due, on_time) - 1);
                if (next <= at)
                        return next;
        }
        next = schedule_latest(&s->schedule, s->due - 1, at);
        return next != USEC_NEVER && next >= oldest ? next : USEC_NEVER;
}

static struct tick *claim(struct timer *s, usec time)
{
        struct tick *t = tick_new(s, time);

        if (!t) {
                s->not_before = s->now + USEC_SEC;
                return NULL;
        }
        s->settled = time;
        s->due = schedule_next(&s->schedule, time);
        s->dirty = true;
        return t;
}

static bool has_room(const struct timer *s)
{
        int64_t most = allows(s) ? MIN_OF((int64_t)OPEN_MOST, s->services->trigger->delivery->max_in_flight)
                                 : 1;

        return s->credit > 0 && (int64_t)s->open.n < most && s->credit > (int64_t)(s->open.n - s->lent);
}

static void claim_due(struct timer *s)
{
        usec at = scheduled(s);

        follow_clock(s);
        if (s->standby) {
                if (s->due != USEC_NEVER && s->due + PATIENCE <= at)
                        load(s);
                return;
        }
        while (has_room(s) && s->due <= at) {
                usec tick = choose(s, at);

                if (tick == USEC_NEVER)
                        s->due = schedule_next(&s->schedule, at);
                else if (!claim(s, tick))
                        return;
        }
}

/* Where writes are apart the ticks up to the next one are claimed with this one. */
static void claim_ahead(struct timer *s)
{
        usec at = scheduled(s);
        struct tick *t;

        if (!apart(s) || s->track != TRACK_ASSIGNED)
                return;
        while (s->credit > 0 && s->open.n < OPEN_MOST && s->due > at && s->due <= at + apart(s) &&
               (t = claim(s, s->due)))
                t->ahead = true;
}

/* One that was claimed early is left out where the policy would not have chosen it. */
static bool is_left_out(const struct timer *s, const struct tick *t, usec at)
{
        usec next = t->node.next ? tick_of(t->node.next)->record.time : s->due;

        if (!t->ahead || t->again || s->spec->misfire_policy == MISFIRE_CATCH_UP)
                return false;
        return (!allows(s) && next <= at) ||
               (s->spec->misfire_policy == MISFIRE_SKIP && t->record.time < at - s->spec->starting_deadline);
}

static void leave_out(struct timer *s)
{
        usec at = scheduled(s);

        if (s->lent && !allows(s))
                return;
        LIST_EACH (struct tick, t, &s->open, node)
                if (t->claimed && !t->lent && is_left_out(s, t, at)) {
                        tick_drop(s, t);
                        s->dirty = true;
                }
}

static void advance(struct timer *s)
{
        if (s->now < s->not_before)
                return;
        switch (s->phase) {
        case PHASE_LOADING: load(s); break;
        case PHASE_WAITING:
                if (s->now >= MIN_OF(s->wait_until, s->look_at))
                        load(s);
                break;
        case PHASE_RUNNING:
                leave_out(s);
                claim_due(s);
                break;
        }
}

/* Others may write the checkpoint, too: whoever finds our claims waits as long as an attempt may take, and
 * takes them over if they are the same still. */
static void hold(struct timer *s)
{
        if (!apart(s) || !s->open.n || s->standby)
                return;
        if (s->now >= s->held_since + timeout(s) / 2)
                s->dirty = true;
        if (s->lapsed || s->now < s->held_since + timeout(s))
                return;
        s->lapsed = s->lent > 0;
        for (struct list_node *n = s->open.first; n; n = n->next) {
                tick_of(n)->claimed = false;
                tick_of(n)->again = true;
        }
}

static void flush(struct timer *s)
{
        bool last = s->stopping && !s->lent;

        if (!request_idle(&s->io.request) || s->standby || s->phase != PHASE_RUNNING || s->said_last)
                return;
        if (last) {
                /* What is claimed and not under way need not be waited for by who comes next. */
                if (!s->dirty && !s->open.n)
                        return;
                s->said_last = true;
                write_checkpoint(s, 0);
                return;
        }
        if (!s->dirty || s->now < s->not_before || (apart(s) && s->now < s->wrote_at + apart(s)))
                return;
        if (!s->stopping)
                claim_ahead(s);
        write_checkpoint(s, timeout(s));
}

/* Writes are done in the order in which they were begun: a settlement before the next claim. */
static void take_done(struct timer *s)
{
        if (!request_take(&s->io.request))
                return;
        if (s->is_loading)
                loaded(s);
        else
                stored(s);
}

/* ---- to the engine ------------------------------------------------------- */

/* Is it due? One that lies further ahead than ticks are claimed was, before the clock was set back. */
static bool is_due(const struct timer *s, const struct tick *t, usec at)
{
        return t->record.time <= at || t->record.time > at + apart(s) + AGREE;
}

/* NULL: none may be sent now. */
static struct tick *next_to_lend(struct timer *s)
{
        usec at = scheduled(s);

        if (s->credit <= 0 || s->stopping || s->track != TRACK_ASSIGNED || s->lost || s->lapsed ||
            (s->lent && !allows(s)))
                return NULL;
        LIST_EACH (struct tick, t, &s->open, node) {
                if (t->lent)
                        continue;
                if (t->claimed)
                        return is_due(s, t, at) ? t : NULL;
                if (!allows(s))
                        return NULL;
        }
        return NULL;
}

static struct record *lend(struct timer *s, struct tick *t)
{
        t->record.position = MAX_OF((uint64_t)t->record.time, s->last_position + 1);
        s->last_position = t->record.position;
        t->lent = true;
        s->lent++;
        s->credit--;
        return &t->record;
}

/* Whether the track may be read, where that has changed. */
static size_t tell_track(struct timer *s, struct pull_event *e)
{
        if (s->track == TRACK_NONE && !s->stopping && !s->lapsed && s->phase != PHASE_LOADING) {
                s->track = TRACK_ASSIGNED;
                s->lost = false;
                *e = (struct pull_event){ .kind = PULL_ASSIGNED };
                return 1;
        }
        if (s->track != TRACK_ASSIGNED || (!s->lost && !s->lapsed && !s->stopping))
                return 0;
        s->track = TRACK_LEAVING;
        *e = (struct pull_event){ .kind = s->lost ? PULL_LOST : PULL_REVOKING,
                                  .give_up_at = s->stopping ? USEC_NEVER : s->now + timeout(s) };
        s->lost = false;
        return 1;
}

static bool has_closed(const struct timer *s)
{
        return s->stopping && !s->told_closed && s->track == TRACK_NONE && request_idle(&s->io.request);
}

/* The next tick, or the next one that may be taken from a worker that is gone. */
static usec next_alarm(const struct timer *s)
{
        usec at = USEC_NEVER;

        if (s->stopping || s->phase != PHASE_RUNNING || s->now < s->not_before)
                return USEC_NEVER;
        if (s->standby)
                return s->due == USEC_NEVER || !request_idle(&s->io.request) ? USEC_NEVER
                                                                             : s->due + PATIENCE + s->shift;
        if (has_room(s))
                at = s->due;
        if (s->credit > 0 && (!s->lent || allows(s)))
                for (struct list_node *n = s->open.first; n; n = n->next)
                        if (tick_of(n)->claimed && !tick_of(n)->lent) {
                                at = MIN_OF(at, tick_of(n)->record.time);
                                break;
                        }
        return at == USEC_NEVER ? USEC_NEVER : at + s->shift;
}

static void set_alarm(struct timer *s)
{
        if (s->services->loop)
                loop_alarm(s->services->loop, &s->alarm, next_alarm(s));
}

static size_t timer_poll(struct source *source, struct pull_event *events, size_t max, usec now)
{
        struct timer *s = timer_of(source);
        struct tick *t;
        size_t n = 0;

        s->now = now;
        take_done(s);
        if (!s->stopping) {
                advance(s);
                hold(s);
        }
        flush(s);
        if (s->state_changed && n < max) {
                s->state_changed = false;
                events[n++] = (struct pull_event){ .kind = PULL_STATE,
                                                   .state = s->state,
                                                   .text = s->text ? s->text : "" };
        }
        if (n < max)
                n += tell_track(s, &events[n]);
        while (n < max && (t = next_to_lend(s)))
                events[n++] = (struct pull_event){ .kind = PULL_RECORD, .record = lend(s, t) };
        if (n < max && has_closed(s)) {
                s->told_closed = true;
                events[n++] = (struct pull_event){ .kind = PULL_CLOSED };
        }
        set_alarm(s);
        return n;
}

/* What is not a time of day, for which there is the alarm. */
static usec timer_deadline(const struct source *source)
{
        const struct timer *s = timer_of(source);
        usec at = USEC_NEVER;

        if (s->stopping)
                return USEC_NEVER;
        if (s->not_before > s->now)
                return s->not_before;
        if (s->phase == PHASE_WAITING)
                return request_idle(&s->io.request) ? MIN_OF(s->wait_until, s->look_at) : USEC_NEVER;
        if (!apart(s) || s->standby || s->phase != PHASE_RUNNING)
                return USEC_NEVER;
        if (s->dirty && request_idle(&s->io.request))
                at = s->wrote_at + apart(s);
        if (s->open.n)
                at = MIN_OF(at, s->held_since + (s->now < s->held_since + timeout(s) / 2 ? timeout(s) / 2
                                                                                         : timeout(s)));
        return at > s->now ? at : USEC_NEVER;
}

static int open_value(struct timer *s, struct error *err)
{
        struct str base64 = str_of(s->spec->user_event_base64);

        s->origin = (struct tick_origin){ s->schedule.zone, base64 };
        s->value.max = 65536;
        if (base64.n && !buf_unbase64(&s->value, base64))
                return s->value.failed ? error_memory(err)
                                       : error_set(err, ERROR_INVALID, "userEventBase64: is no Base64");
        return 0;
}

static struct source *timer_free(struct source *source)
{
        struct timer *s = timer_of(source);

        if (!source)
                return NULL;
        store_release(&s->services->store, &s->io);
        if (s->services->loop)
                loop_alarm(s->services->loop, &s->alarm, USEC_NEVER);
        LIST_EACH (struct tick, t, &s->open, node)
                tick_drop(s, t);
        s->lent = 0;
        for (struct tick *t; (t = LIST_TAKE(&s->gone, struct tick, node));)
                free(t);
        schedule_done(&s->schedule);
        buf_done(&s->value);
        free(s->found);
        free(s->text);
        free(s->what);
        free(s);
        return NULL;
}

static int timer_open(struct source **out, const void *spec, const struct services *services,
                      struct error *err)
{
        struct timer *s = calloc(1, sizeof(*s));
        BUF_AT_END struct buf what = BUF_INIT(1024);

        if (!s)
                return error_memory(err);
        s->spec = spec;
        s->services = services;
        if (timer_schedule(spec, services->loop ? loop_place(services->loop, LOOP_ZONES) : NULL, &s->schedule,
                           err) < 0 ||
            open_value(s, err) < 0) {
                schedule_done(&s->schedule);
                buf_done(&s->value);
                free(s);
                return -1;
        }
        buf_printf(&what, "%s%s %s", s->spec->cron ? "cron " : "",
                   s->spec->cron ? s->spec->cron : s->spec->schedule, s->spec->time_zone);
        s->what = str_dup(buf_view(&what));
        if (what.failed || !s->what) {
                (void)timer_free(&s->source);
                return error_memory(err);
        }
        s->shift = timer_jitter(s->spec, services->trigger->uid);
        s->beat = random_seed();
        s->state = SOURCE_CONNECTING;
        s->io.request.wake = s->alarm.task = services->wake;
        load(s);
        *out = &s->source;
        return 0;
}

static void timer_credit(struct source *source, uint32_t track UNUSED, uint32_t records, size_t bytes UNUSED)
{
        struct timer *s = timer_of(source);

        if (!s->stopping)
                s->credit += records;
}

static void timer_settle(struct source *source, struct record *r, enum outcome outcome)
{
        struct timer *s = timer_of(source);
        struct tick *t = CONTAINER_OF(r, struct tick, record);

        if (t->node.list == &s->gone) {
                list_remove(&t->node);
                free(t);
                return;
        }
        if (outcome == OUTCOME_RELEASED) { /* it is given back, found in the checkpoint and sent again */
                t->lent = false;
                t->again = true;
                s->lent--;
                return;
        }
        s->last = t->record.time;
        s->outcome = outcome;
        s->dirty = true;
        tick_drop(s, t);
}

static void timer_asleep(struct source *source) { timer_of(source)->credit = 1; }
static bool timer_detach(struct source *s UNUSED, struct record *r UNUSED) { return true; }
/* Each tick is settled by itself, since they need not end in their order. */
static void timer_commit(struct source *s UNUSED, uint32_t track UNUSED, uint64_t next UNUSED) {}

static void timer_revoked(struct source *source, uint32_t track UNUSED)
{
        struct timer *s = timer_of(source);

        s->track = TRACK_NONE;
        s->credit = 0;
}

static void timer_stop(struct source *source) { timer_of(source)->stopping = true; }
static int64_t timer_lag(const struct source *s UNUSED) { return -1; }

static void timer_runs(const struct source *source, struct pull_runs *out)
{
        const struct timer *s = timer_of(source);

        *out = (struct pull_runs){ .last = s->last,
                                   .next = s->phase == PHASE_LOADING || s->due == USEC_NEVER ? 0 : s->due,
                                   .outcome = s->outcome };
}

static bool is_unordered(const void *spec)
{
        return ((const struct timer_spec *)spec)->concurrency_policy == CONCURRENCY_ALLOW;
}

static void timer_origin(const struct trigger *t, struct buf *b)
{
        const struct timer_spec *spec = t->source_spec;

        buf_text(b, spec->cron ? spec->cron : spec->schedule);
}

static const struct pull_ops pull = {
        .commit_at_once = true,
        .poll = timer_poll,
        .deadline = timer_deadline,
        .credit = timer_credit,
        .release = timer_settle,
        .detach = timer_detach,
        .commit = timer_commit,
        .revoked = timer_revoked,
        .lag = timer_lag,
        .runs = timer_runs,
        .asleep = timer_asleep,
        .stop = timer_stop,
        .free = timer_free,
};
static const struct warning warnings[] = { WARNING("ClockSetBack"), WARNINGS_END };
const struct source_kind timer_source = {
        .name = "timer",
        .warnings = warnings,
        .type = &timer_type,
        .shape = &timer_shape,
        .pull = &pull,
        .open = timer_open,
        .unordered = is_unordered,
        .origin = timer_origin,
};
