#include "source/timer/timer.h"

#include <inttypes.h>
#include <stdio.h>

#include "log/log.h"
#include "source/timer/cron.h"

/* A tick that is sent no later than this after its time is on time, whatever the policy. */
static const usec GRACE = 5 * USEC_SEC;
/* The wall clock may be set, or the machine have slept: so often it is looked at, so that the first tick by
 * the new time comes within a second. */
static const usec LOOK = 500 * USEC_MSEC;
/* A clock that was put back by less is waited for: its ticks are not sent twice. */
static const usec SET_BACK = USEC_SEC;
/* A tick that whoever holds the checkpoint did not claim so long after its time is anyone's. */
static const usec PATIENCE = 2 * USEC_SEC;
static const struct str CHECKPOINT = { "timer", 5 };

/* ---- the spec ----------------------------------------------------------- */

static const char *const misfire_names[] = { "Skip", "FireOnce", "CatchUp", NULL };
static const struct field timer_fields[] = {
        FIELD(STRING, "schedule", struct timer_spec, schedule, .min = 1, .max = 256, .cloud = "schedule",
              .help = "When it ticks: a rate such as 3m, 2h or 1d, \"@every 1h30m\", or a cron schedule of "
                      "five or six fields: second minute hour day-of-month "
                      "month [day-of-week], 0 being Sunday, with names, lists, ranges, steps and ? in the "
                      "two day fields; \"CRON_TZ=Europe/Berlin \" may stand "
                      "before it. Five fields of which the first alone has a step, such as */5 * * * *, are "
                      "refused: write six, or cron. Rates tick at whole multiples of "
                      "their period since 1970 UTC."),
        FIELD(STRING, "cron", struct timer_spec, cron, .min = 1, .max = 256,
              .help = "When it ticks, as a CronJob of Kubernetes says it, instead of schedule: minute hour "
                      "day-of-month month day-of-week, 0 and 7 being Sunday, or @hourly, "
                      "@daily, @weekly, @monthly or @yearly. If both day fields are restricted, either "
                      "suffices; * and ? alone do not restrict, a step such as */2 does. N/STEP goes "
                      "on to the field's end, Saturday for the day of week."),
        FIELD(STRING, "timeZone", struct timer_spec, time_zone, .fallback = "UTC", .min = 1, .max = 100,
              .pattern = "^[A-Za-z][A-Za-z0-9_+/-]*$",
              .help = "The time zone of the schedule and of the event's time, a name of the IANA database. "
                      "CRON_TZ in the schedule wins. A run that falls into the "
                      "hour that a clock change skips is made when that hour ends; one in the hour that "
                      "comes twice is made once, unless every hour matches."),
        FIELD(STRING, "userEvent", struct timer_spec, user_event, .fallback = "\"\"", .max = 2048,
              .cloud = "user_event", .help = "Any text, given to the function as user_event."),
        FIELD(ENUM, "misfirePolicy", struct timer_spec, misfire_policy, .fallback = "FireOnce",
              .values = misfire_names,
              .help = "What becomes of ticks that could not be claimed in time (nothing ran, or an earlier "
                      "tick was still being delivered): Skip drops them, FireOnce sends "
                      "the latest one, CatchUp sends each, oldest first."),
};

static int parse_schedule(const struct timer_spec *spec, struct cron *cron, struct str *zone, struct buf *why)
{
        *zone = (struct str){ 0 };
        return spec->cron ? cron_parse_kubernetes(str_of(spec->cron), cron, why)
                          : cron_parse(str_of(spec->schedule), cron, zone, why);
}

int timer_schedule(const struct timer_spec *spec, struct cron *cron, struct zone **zone, struct error *err)
{
        BUF_AT_END struct buf why = BUF_INIT(4096);
        struct str named;

        if (parse_schedule(spec, cron, &named, &why) < 0)
                return error_set(err, ERROR_INVALID, "%s: %s", spec->cron ? "cron" : "schedule",
                                 why.p ? why.p : "out of memory");
        return zone_load(zone, named.n ? named : str_of(spec->time_zone), err);
}

static bool one_schedule(const void *object)
{
        const struct timer_spec *spec = object;

        return !spec->schedule != !spec->cron;
}

static bool comes(const struct timer_spec *spec, struct buf *why)
{
        struct cron cron;
        struct str zone;
        struct zone *z = NULL;
        struct error err;
        bool never;

        if (parse_schedule(spec, &cron, &zone, why) < 0)
                return false;
        if (zone_load(&z, zone, &err) < 0) {
                buf_text(why, err.text);
                return false;
        }
        never = cron_next(&cron, z, 0) == USEC_NEVER;
        (void)zone_free(z);
        if (never)
                buf_text(why, "never comes: no month has that day");
        return !never;
}

static bool schedule_valid(const void *object, struct buf *why)
{
        return !((const struct timer_spec *)object)->schedule || ((const struct timer_spec *)object)->cron ||
               comes(object, why);
}
static bool cron_valid(const void *object, struct buf *why)
{
        return !((const struct timer_spec *)object)->cron || ((const struct timer_spec *)object)->schedule ||
               comes(object, why);
}

static bool zone_valid(const void *object, struct buf *why)
{
        const struct timer_spec *spec = object;
        struct zone *z;
        struct error err;

        if (!spec->time_zone || zone_load(&z, str_of(spec->time_zone), &err) == 0) {
                if (spec->time_zone)
                        (void)zone_free(z);
                return true;
        }
        buf_text(why, err.text);
        return false;
}

static const struct rule timer_rules[] = {
        RULE(.path = "schedule", .message = "is no schedule", .explain = schedule_valid),
        RULE(.path = "cron", .message = "is no cron schedule", .explain = cron_valid),
        RULE(.path = "timeZone", .message = "is no time zone", .explain = zone_valid),
        RULE(.cel = "has(self.schedule) != has(self.cron)", .message = "give schedule or cron, one of them",
             .check = one_schedule),
};
const struct type timer_type = TYPE("TimerSource", struct timer_spec, timer_fields, "Ticks by a schedule.",
                                    RULES(timer_rules));

/* ---- the source --------------------------------------------------------- */

struct tick {
        struct record record;
        char id[320];
};

enum phase {
        PHASE_LOADING,
        /* a claim was found: whoever made it may be at work on it for as long as a request may take */
        PHASE_WAITING,
        PHASE_IDLE,     /* the next tick is known */
        PHASE_CLAIMING, /* the claim is being written */
        PHASE_CLAIMED,  /* it is durable: lend when there is credit */
        PHASE_LENT,
};

/* What the checkpoint says. */
struct position {
        usec settled; /* every tick up to it is done; wall */
        /* up to here they were done before the clock was set back; 0: it was not */
        usec before;
        usec claimed; /* may be under way; 0: none is */
        usec timeout; /* how long an attempt of it may take; 0: it was given back */
};

struct timer {
        struct source source;
        const struct timer_spec *spec;
        const struct services *services;
        struct cron cron;
        struct zone *zone;
        char *what; /* names the schedule in the checkpoint */
        enum phase phase;
        usec now;               /* of the last turn: what comes next is counted from there */
        usec settled, before;   /* as in the position */
        usec due;               /* the tick that is claimed, or the next one; wall */
        usec found, wait_until; /* the claim that is waited for; monotonic */
        usec not_before;        /* monotonic: after a failed write */
        uint64_t last_position;
        bool told_assigned, told_revoking, stopping, revoked, told_closed, state_changed;
        bool standby;       /* another worker writes the checkpoint */
        bool unsaved;       /* a settlement that could not be written */
        bool settled_since; /* the one that is being written */
        bool given_back;    /* the claim, at the end */
        /* of the checkpoint: it is read, a claim is written, a settlement is */
        struct store_request load, claim, settle;
        int64_t credit;
        struct tick tick;
        enum source_state state;
        char text[480];
};

static struct timer *timer_of(const struct source *s) { return CONTAINER_OF(s, struct timer, source); }

static usec wall(const struct timer *s) { return clock_wall(s->services->clock); }

static void set_state(struct timer *s, enum source_state state, const char *text)
{
        if (s->state == state && strcmp(s->text, text) == 0)
                return;
        s->state = state;
        (void)snprintf(s->text, sizeof(s->text), "%s", text);
        s->state_changed = true;
}

static bool is_writing(const struct timer *s)
{
        return !request_idle(&s->claim.request) || !request_idle(&s->settle.request);
}

static void write_checkpoint(struct timer *s, struct store_request *r, struct position p)
{
        BUF_AT_END struct buf text = BUF_INIT(4096);
        struct writer w;
        struct error err;

        writer_init(&w, &text);
        writer_object(&w);
        writer_member_text(&w, "source", s->what);
        writer_member_int(&w, "settled", p.settled);
        if (p.before)
                writer_member_int(&w, "before", p.before);
        if (p.claimed) {
                writer_member_int(&w, "claimed", p.claimed);
                writer_member_int(&w, "timeout", p.timeout);
        }
        writer_object_end(&w);
        s->unsaved = false;
        if (text.failed) { /* as if the store could not be reached: it is tried again */
                (void)error_memory(&err);
                request_fail(&r->request, s->services->loop, &err);
        } else
                store_put(&s->services->store, r, CHECKPOINT, buf_view(&text));
}

static void claim(struct timer *s)
{
        s->phase = PHASE_CLAIMING;
        write_checkpoint(
                s, &s->claim,
                (struct position){ s->settled, s->before, s->due, s->services->trigger->delivery->timeout });
}

static void save(struct timer *s)
{
        if (!request_idle(&s->settle.request))
                s->settled_since = true;
        else
                write_checkpoint(s, &s->settle,
                                 (struct position){ .settled = s->settled, .before = s->before });
}

static usec number_of(const struct node *object, const char *name, usec otherwise)
{
        const struct node *n = node_member(object, name);

        return n && n->kind == NODE_INT && n->integer >= 0 ? n->integer : otherwise;
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
                if (ours)
                        *out = (struct position){
                                settled->integer, number_of(root, "before", 0), number_of(root, "claimed", 0),
                                number_of(root, "timeout", s->services->trigger->delivery->timeout)
                        };
        }
        documents_done(&docs);
        problems_done(&problems);
        return ours;
}

static void load(struct timer *s)
{
        s->phase = PHASE_LOADING;
        store_get(&s->services->store, &s->load, CHECKPOINT);
}

/* A claim that nobody settled is sent again with the same id, for the function may have taken it or not; but
 * not while whoever made it may be at work on it. Then it is claimed anew, which fails when the other is
 * still there. */
static void found_claim(struct timer *s, const struct position *p, usec now)
{
        s->due = p->claimed;
        if (p->timeout == 0 || (s->found == p->claimed && now >= s->wait_until)) {
                s->found = 0;
                claim(s);
                return;
        }
        if (s->found != p->claimed) {
                s->found = p->claimed;
                s->wait_until = now + p->timeout;
        }
        s->phase = PHASE_WAITING;
}

/* What is waited for is said: nothing else shows why no tick comes. */
static void set_connected(struct timer *s, usec now)
{
        char text[160] = "";

        if (s->phase == PHASE_WAITING)
                (void)snprintf(text, sizeof(text),
                               "ticks wait up to %" PRId64
                               " s for a tick that an earlier worker claimed and may still be delivering",
                               MAX_OF((s->wait_until - now + USEC_SEC - 1) / USEC_SEC, (usec)0));
        set_state(s, SOURCE_CONNECTED, text);
}

static void loaded(struct timer *s, usec now)
{
        const struct store_request *r = &s->load;
        struct position p = { 0 };

        if (request_failed(&r->request)) {
                set_state(s, SOURCE_DISCONNECTED, r->request.error.text);
                s->not_before = now + USEC_SEC;
                return;
        }
        if (!r->found || !read_checkpoint(s, buf_view(&r->value), &p))
                p.settled = wall(s); /* the first time, or another schedule: from now on */
        s->settled = p.settled;
        s->before = p.before;
        s->due = cron_next(&s->cron, s->zone, s->settled);
        s->phase = PHASE_IDLE;
        if (p.claimed)
                found_claim(s, &p, now);
        else
                s->found = 0;
        /* The other one is gone when it left a tick unclaimed. */
        if (s->phase != PHASE_WAITING && (s->due == USEC_NEVER || s->due + PATIENCE <= wall(s)))
                s->standby = false;
        if (!s->standby)
                set_connected(s, now);
        else if (s->state != SOURCE_STANDBY) /* the checkpoint could not be read for a while */
                set_state(s, SOURCE_STANDBY, "another worker writes the checkpoint: this one waits");
}

static void stored(struct timer *s, const struct request *r, usec now)
{
        bool claimed = r == &s->claim.request && s->phase == PHASE_CLAIMING;

        if (request_failed(r) && r->error.kind == ERROR_CONFLICT) {
                s->standby = true;
                s->unsaved = s->settled_since = false;
                s->not_before = now + USEC_SEC;
                s->phase = PHASE_LOADING;
                set_state(s, SOURCE_STANDBY, r->error.text);
                return;
        }
        if (request_failed(r)) {
                set_state(s, SOURCE_DISCONNECTED, r->error.text);
                s->not_before = now + USEC_SEC;
                if (claimed)
                        /* not durable: not sent; the policy applies once the checkpoint can be reached */
                        s->phase = PHASE_IDLE;
                s->unsaved = true;
                return;
        }
        s->standby = false;
        set_state(s, SOURCE_CONNECTED, "");
        if (claimed)
                s->phase = PHASE_CLAIMED;
}

/* Writes are done in the order in which they were begun: a settlement before the next claim. */
static void take_stored(struct timer *s, usec now)
{
        if (request_take(&s->load.request))
                loaded(s, now);
        if (request_take(&s->settle.request)) {
                stored(s, &s->settle.request, now);
                if (s->settled_since && s->phase == PHASE_IDLE)
                        save(s);
                s->settled_since = false;
        }
        if (request_take(&s->claim.request))
                stored(s, &s->claim.request, now);
}

/* The wall clock was put back: ticks follow the new time, or they would be silent until the old one comes
 * again. Put forward again, what was done before is not made up for. */
static void follow_clock(struct timer *s, usec at)
{
        if (s->settled > at + SET_BACK) {
                source_warn(s->services, "ClockSetBack", 0,
                            "the clock was set back by %lld s: ticks follow the new time",
                            (long long)((s->settled - at) / USEC_SEC));
                s->before = MAX_OF(s->before, s->settled);
                s->settled = at;
        } else if (s->before && at > s->before + GRACE) {
                s->settled = MAX_OF(s->settled, s->before);
                s->before = 0;
        } else
                return;
        s->due = cron_next(&s->cron, s->zone, s->settled);
}

/* Which of the ticks up to now is to be sent; s->due is the earliest. USEC_NEVER: none of them. */
static usec choose(struct timer *s, usec at)
{
        usec latest = cron_latest(&s->cron, s->zone, s->due - 1, at);

        switch ((enum misfire_policy)s->spec->misfire_policy) {
        case MISFIRE_CATCH_UP: return s->due;
        case MISFIRE_FIRE_ONCE: return latest;
        case MISFIRE_SKIP: return latest != USEC_NEVER && at - latest <= GRACE ? latest : USEC_NEVER;
        }
        return latest;
}

static void claim_next(struct timer *s)
{
        usec at = wall(s), tick;

        follow_clock(s, at);
        if (s->unsaved)
                save(s);
        if (s->standby) {
                if (s->due != USEC_NEVER && s->due + PATIENCE <= at && !is_writing(s))
                        load(s);
                return;
        }
        if (s->credit <= 0 || s->due == USEC_NEVER || s->due > at)
                return;
        tick = choose(s, at);
        if (tick == USEC_NEVER) {
                s->due = cron_next(&s->cron, s->zone, at);
                return;
        }
        s->due = tick;
        claim(s);
}

static void advance(struct timer *s, usec now)
{
        if (now < s->not_before || s->stopping)
                return;
        switch (s->phase) {
        case PHASE_LOADING:
                if (request_idle(&s->load.request) && !is_writing(s))
                        load(s);
                break;
        case PHASE_WAITING:
                if (now >= s->wait_until)
                        load(s);
                break;
        case PHASE_IDLE: claim_next(s); break;
        case PHASE_CLAIMING:
        case PHASE_CLAIMED:
        case PHASE_LENT: break;
        }
}

/* What is claimed and not under way need not be waited for by who comes next. */
static void give_back(struct timer *s)
{
        if (s->phase != PHASE_CLAIMED || s->given_back || !request_idle(&s->settle.request))
                return;
        s->given_back = true;
        write_checkpoint(s, &s->settle,
                         (struct position){ .settled = s->settled, .before = s->before, .claimed = s->due });
}

static void tick_id(const struct trigger *trigger, struct tick *t)
{
        struct buf id = BUF_ON(t->id);

        buf_text(&id, trigger->uid);
        buf_char(&id, '/');
        time_format(&id, t->record.time);
        t->record.id = buf_view(&id);
}

static struct record *lend(struct timer *s)
{
        struct tick *t = &s->tick;

        *t = (struct tick){ .record = { .position = MAX_OF((uint64_t)s->due, s->last_position + 1),
                                        .pinned = 1,
                                        .time = s->due,
                                        .origin = s->zone } };
        s->last_position = t->record.position;
        tick_id(s->services->trigger, t);
        t->record.value = str_of(s->spec->user_event);
        s->phase = PHASE_LENT;
        s->credit--;
        return &t->record;
}

static size_t timer_poll(struct source *source, struct pull_event *events, size_t max, usec now)
{
        struct timer *s = timer_of(source);
        size_t n = 0;

        s->now = now;
        take_stored(s, now);
        if (s->state_changed && n < max) {
                s->state_changed = false;
                events[n++] = (struct pull_event){ .kind = PULL_STATE, .state = s->state, .text = s->text };
        }
        if (s->phase != PHASE_LOADING && !s->told_assigned && !s->stopping && n < max) {
                s->told_assigned = true;
                events[n++] = (struct pull_event){ .kind = PULL_ASSIGNED };
        }
        advance(s, now);
        if (s->phase == PHASE_CLAIMED && s->credit > 0 && !s->stopping && n < max)
                events[n++] = (struct pull_event){ .kind = PULL_RECORD, .record = lend(s) };
        if (s->stopping)
                give_back(s);
        if (s->stopping && s->told_assigned && !s->told_revoking && n < max) {
                s->told_revoking = true;
                events[n++] = (struct pull_event){ .kind = PULL_REVOKING, .give_up_at = USEC_NEVER };
        }
        if (s->stopping && !s->told_closed && !is_writing(s) && (s->revoked || !s->told_assigned) &&
            n < max) {
                s->told_closed = true;
                events[n++] = (struct pull_event){ .kind = PULL_CLOSED };
        }
        return n;
}

/* Counted from the turn that decided, not from a clock that has moved on since: what came due in between
 * would never be seen to. */
static usec timer_deadline(const struct source *source)
{
        const struct timer *s = timer_of(source);
        usec due = s->due;

        if (s->stopping)
                return USEC_NEVER;
        if (s->not_before > s->now)
                return s->not_before;
        if (s->phase == PHASE_WAITING)
                return s->wait_until;
        if (s->phase != PHASE_IDLE || due == USEC_NEVER || (s->credit <= 0 && !s->standby))
                return USEC_NEVER;
        if (s->standby)
                due += PATIENCE;
        return s->now + MIN_OF(MAX_OF(due - wall(s), (usec)0), LOOK);
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
        if (timer_schedule(spec, &s->cron, &s->zone, err) < 0) {
                free(s);
                return -1;
        }
        buf_printf(&what, "%s%s %s", s->spec->cron ? "cron " : "",
                   s->spec->cron ? s->spec->cron : s->spec->schedule, s->spec->time_zone);
        s->what = buf_take(&what);
        if (!s->what) {
                (void)zone_free(s->zone);
                free(s);
                return error_memory(err);
        }
        s->state = SOURCE_CONNECTING;
        s->load.request.wake = s->claim.request.wake = s->settle.request.wake = services->wake;
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

static void timer_settle(struct source *source, struct record *r UNUSED, enum outcome outcome)
{
        struct timer *s = timer_of(source);

        if (s->phase != PHASE_LENT)
                return;
        if (outcome == OUTCOME_RELEASED) {
                s->phase = PHASE_CLAIMED; /* it is given back, found in the checkpoint and sent again */
                return;
        }
        s->settled = s->due;
        s->due = cron_next(&s->cron, s->zone, s->settled);
        s->phase = PHASE_IDLE;
}

static bool timer_detach(struct source *s UNUSED, struct record *r UNUSED) { return true; }
static void timer_commit(struct source *source, uint32_t track UNUSED, uint64_t next UNUSED)
{
        struct timer *s = timer_of(source);

        /* The next claim says so too, when it comes at once. */
        if (s->phase == PHASE_IDLE)
                save(s);
}
static void timer_revoked(struct source *source, uint32_t track UNUSED)
{
        struct timer *s = timer_of(source);

        s->revoked = true;
}
static void timer_stop(struct source *source)
{
        struct timer *s = timer_of(source);

        s->stopping = true;
}
static int64_t timer_lag(const struct source *s UNUSED) { return -1; }

static struct source *timer_free(struct source *source)
{
        struct timer *s = timer_of(source);

        if (!s)
                return NULL;
        store_release(&s->services->store, &s->load);
        store_release(&s->services->store, &s->claim);
        store_release(&s->services->store, &s->settle);
        (void)zone_free(s->zone);
        free(s->what);
        free(s);
        return NULL;
}

static void timer_describe(const struct record *r, struct writer *w)
{
        char space[64];
        struct buf time = BUF_ON(space);

        time_format(&time, r->time);
        writer_object(w);
        writer_member_string(w, "time", buf_view(&time));
        writer_member_string(w, "userEvent", r->value);
        writer_object_end(w);
}

/* RFC 3339 in the zone's own offset, as FunctionGraph writes it. */
static void local_time(struct buf *b, const struct zone *z, usec at)
{
        int64_t offset = zone_offset(z, at / USEC_SEC), minutes = (offset < 0 ? -offset : offset) / 60;

        time_format(b, (at / USEC_SEC + offset) * USEC_SEC);
        if (!b->failed)
                b->n--; /* the Z */
        buf_printf(b, "%c%02d:%02d", offset < 0 ? '-' : '+', (int)(minutes / 60), (int)(minutes % 60));
}

/* A tick's origin is the schedule's zone. */
static void timer_encode(const struct trigger *t, struct record *const *records, size_t n UNUSED,
                         struct writer *w)
{
        char space[64];
        struct buf time = BUF_ON(space);

        local_time(&time, records[0]->origin, records[0]->time);
        writer_object(w);
        writer_member_text(w, "version", "v1.0");
        writer_member_string(w, "time", buf_view(&time));
        writer_member_text(w, "trigger_type", "TIMER");
        writer_member_text(w, "trigger_name", t->name);
        writer_member_string(w, "user_event", records[0]->value);
        writer_object_end(w);
}

static void timer_event(const struct trigger *t, const struct record *r, struct buf *space,
                        struct cloud_event *e)
{
        cloudevent_source(t, NULL, space);
        *e = (struct cloud_event){ .id = r->id, .source = buf_view(space), .time = r->time };
        if (r->value.n == 0)
                return;
        cloudevent_data(e, r->value, (struct str){ 0 });
}

struct sample {
        struct tick tick;
        struct zone *zone;
        char *user_event;
};

static void timer_sample_free(struct record *r)
{
        struct sample *s;

        if (!r)
                return;
        s = CONTAINER_OF(CONTAINER_OF(r, struct tick, record), struct sample, tick);
        (void)zone_free(s->zone);
        free(s->user_event);
        free(s);
}

static int timer_sample(const struct trigger *t, const struct node *document, usec wall, struct record **out,
                        struct error *err)
{
        const struct timer_spec *spec = t->source_spec;
        const struct node *user_event = node_member(document, "userEvent"),
                          *time = node_member(document, "time");
        struct record *r;
        struct sample *s;
        struct cron cron;

        if (shape_members(document, "time, userEvent", err) < 0)
                return -1;
        s = calloc(1, sizeof(*s));
        if (!s)
                return error_memory(err);
        r = &s->tick.record;
        if (timer_schedule(spec, &cron, &s->zone, err) < 0) {
                timer_sample_free(r);
                return -1;
        }
        if (!time)
                r->time = cron_next(&cron, s->zone, wall);
        else if (time->kind != NODE_STRING || !time_parse(time->text, &r->time) ||
                 !time_is_writable(r->time - USEC_DAY) || !time_is_writable(r->time + USEC_DAY)) {
                timer_sample_free(r);
                return error_set(err, ERROR_INVALID,
                                 "time: expected a time such as 2026-01-31T08:00:00Z, of a year from 1 to "
                                 "9999 in every zone");
        }
        s->user_event = user_event && user_event->kind == NODE_STRING ? str_dup(user_event->text)
                                                                      : str_dup(str_of(spec->user_event));
        if (!s->user_event) {
                timer_sample_free(r);
                return error_memory(err);
        }
        r->position = (uint64_t)r->time;
        r->origin = s->zone;
        r->value = str_of(s->user_event);
        tick_id(t, &s->tick);
        *out = r;
        return 0;
}

static void timer_origin(const struct trigger *t, struct buf *b)
{
        const struct timer_spec *spec = t->source_spec;

        buf_text(b, spec->cron ? spec->cron : spec->schedule);
}

const struct shape timer_shape = {
        .ce_type = "dev.sluice.timer.tick",
        .describe = timer_describe,
        .encode = timer_encode,
        .event = timer_event,
        .sample = timer_sample,
        .sample_free = timer_sample_free,
};
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
        .origin = timer_origin,
};
