#include "worker/pipeline.h"

#include <assert.h>
#include <stdio.h>

#include "api/worker.h"
#include "base/log.h"
#include "base/random.h"
#include "filter/filter.h"
#include "http/fetch.h"
#include "worker/gate.h"
#include "worker/passes.h"

enum { EVENTS_AT_ONCE = 64, ROUNDS_A_TURN = 16, PUSH_ANSWER_MOST = 8 << 20 };

struct pipeline {
        struct task task;
        struct pipeline_config config;
        const struct driver *driver;
        struct services services;
        struct source *source;
        struct delivery *engine; /* NULL: a push source, which has a gate */
        struct gate *gate;
        struct fetch_end *fetch; /* a push source's, as the next */
        struct http_end *peers;
        struct sender *sender;
        struct filter *filter; /* NULL: everything is delivered */
        struct buf document;   /* what the filter sees */
        struct pipeline_status status;
        enum delivery_state engine_state;
        char engine_text[256];
        bool stopping, closed, source_stopped;
        usec give_up_at;
};

static void wake_observer(struct pipeline *p)
{
        if (p->config.observer)
                loop_ready(p->config.loop, p->config.observer);
}

static void changed(struct pipeline *p)
{
        p->status.changes++;
        wake_observer(p);
}

const struct trigger *pipeline_trigger(const struct pipeline *p) { return p->config.trigger; }
bool pipeline_drained(const struct pipeline *p)
{
        return p->driver->drained && p->driver->drained(p->source);
}
bool pipeline_stopped(const struct pipeline *p) { return p->closed; }

void pipeline_status(const struct pipeline *p, struct pipeline_status *out)
{
        *out = p->status;
        if (p->gate) {
                struct gate_facts facts;

                gate_facts(p->gate, &facts);
                out->stats = facts.stats;
                out->callers = facts.callers;
                out->unjudged = facts.unjudged;
                return;
        }
        delivery_stats(p->engine, &out->stats);
        out->lag = p->driver->lag(p->source);
}

/* ---- from the source ---------------------------------------------------- */

static void source_said(struct pipeline *p, const struct source_event *e, usec now)
{
        bool up = e->state == SOURCE_CONNECTED || e->state == SOURCE_IDLE || e->state == SOURCE_STANDBY;

        p->status.source = e->state;
        (void)snprintf(p->status.source_text, sizeof(p->status.source_text), "%s", e->text ? e->text : "");
        p->status.connected_since = up ? (p->status.connected_since ? p->status.connected_since : now) : 0;
        log_at(e->state == SOURCE_DISCONNECTED || e->state == SOURCE_FAILED ? LOG_WARN : LOG_INFO, "source",
               LOG_S("namespace", p->config.trigger->namespace_), LOG_S("trigger", p->config.trigger->name),
               LOG_S("state", source_state_name(e->state)), LOG_S("reason", p->status.source_text));
        changed(p);
}

static void records_lost(struct pipeline *p, const struct source_event *e)
{
        p->status.lost[e->lost_reason] += e->lost;
        (void)snprintf(p->status.lost_text, sizeof(p->status.lost_text), "%s", e->text);
        log_warn("records are lost", LOG_S("namespace", p->config.trigger->namespace_),
                 LOG_S("trigger", p->config.trigger->name), LOG_S("reason", lost_reason_name(e->lost_reason)),
                 LOG_I("records", (int64_t)e->lost), LOG_S("text", e->text));
        changed(p);
}

static void track_assigned(struct pipeline *p, uint32_t track, usec now)
{
        struct error err;

        if (delivery_assign(p->engine, track, now, &err) < 0) {
                log_error("a partition can't be taken", LOG_S("trigger", p->config.trigger->name),
                          LOG_I("track", track), LOG_S("error", err.text));
                p->driver->revoked(p->source, track);
        }
}

static void take_record(struct pipeline *p, struct record *r, usec now)
{
        struct error why;

        switch (record_passes(p->filter, p->driver, r, &p->document, &why)) {
        case UNJUDGED:
                p->status.unjudged++;
                r->unjudged = true;
                delivery_offer(p->engine, r, now);
                break;
        case PASSES:
                r->unjudged = false;
                delivery_offer(p->engine, r, now);
                break;
        case LEFT_OUT: delivery_skip(p->engine, r, now); break;
        }
}

static size_t poll_source(struct pipeline *p, usec now)
{
        struct source_event events[EVENTS_AT_ONCE];
        size_t n = p->driver->poll(p->source, events, COUNT_OF(events), now);

        for (size_t i = 0; i < n; i++) {
                const struct source_event *e = &events[i];

                switch (e->kind) {
                case SOURCE_EVENT_RECORD:
                        p->status.last_event = clock_wall(p->config.clock);
                        take_record(p, e->record, now);
                        break;
                case SOURCE_EVENT_ASSIGNED: track_assigned(p, e->track, now); break;
                case SOURCE_EVENT_REVOKING:
                        delivery_revoke(p->engine, e->track,
                                        p->stopping ? MIN_OF(e->give_up_at, p->give_up_at) : e->give_up_at);
                        break;
                case SOURCE_EVENT_LOST: delivery_revoke(p->engine, e->track, 0); break;
                case SOURCE_EVENT_STATE: source_said(p, e, now); break;
                case SOURCE_EVENT_RECORDS_LOST: records_lost(p, e); break;
                case SOURCE_EVENT_CALL: gate_call(p->gate, e, now); break;
                case SOURCE_EVENT_CLOSED:
                        p->closed = true;
                        changed(p);
                        break;
                }
        }
        return n;
}

/* ---- to the function ---------------------------------------------------- */

static bool take_answers(struct pipeline *p, usec now)
{
        uint32_t ticket;
        struct answer a;
        bool any = false;

        while (sender_take(p->sender, &ticket, &a)) {
                if (a.kind == ANSWER_ACCEPTED || a.kind == ANSWER_PARTIAL) {
                        if (!p->status.last_delivery)
                                wake_observer(p); /* later ones show whenever it looks */
                        p->status.last_delivery = clock_wall(p->config.clock);
                }
                delivery_answer(p->engine, ticket, &a, now);
                any = true;
        }
        return any;
}

/* What is told: the engine's state, or what keeps the way out from being ready. */
static void tell_state(struct pipeline *p)
{
        const char *why, *text = p->engine_text;
        enum delivery_state state = p->engine_state;
        bool ready = sender_ready(p->sender, &why);

        if (p->engine)
                delivery_hold(p->engine, !ready);
        if (!ready && why) {
                state = DELIVERY_RETRYING;
                text = why;
        } else if (ready && !*text && sender_notes(p->sender))
                text = sender_notes(p->sender);
        if (state == p->status.delivery &&
            strncmp(text, p->status.delivery_text, sizeof(p->status.delivery_text) - 1) == 0)
                return;
        if (state != p->status.delivery)
                log_at(state == DELIVERY_IDLE ? LOG_INFO : LOG_WARN, "delivery",
                       LOG_S("namespace", p->config.trigger->namespace_),
                       LOG_S("trigger", p->config.trigger->name),
                       LOG_S("state", pipeline_delivery_name(state)), LOG_S("reason", text));
        p->status.delivery = state;
        (void)snprintf(p->status.delivery_text, sizeof(p->status.delivery_text), "%s", text);
        changed(p);
}

static void perform(struct pipeline *p, const struct action *a)
{
        switch (a->kind) {
        case ACTION_SEND:
        case ACTION_DEAD_LETTER: sender_send(p->sender, a); break;
        case ACTION_CANCEL: sender_cancel(p->sender, a->attempt); break;
        case ACTION_DETACH: (void)p->driver->detach(p->source, a->record); break;
        case ACTION_SETTLE: p->driver->settle(p->source, a->record, a->outcome); break;
        case ACTION_CREDIT: p->driver->credit(p->source, a->track, a->credit, a->bytes); break;
        case ACTION_COMMIT: p->driver->commit(p->source, a->track, a->position); break;
        case ACTION_REVOKED: p->driver->revoked(p->source, a->track); break;
        case ACTION_STATE:
                p->engine_state = a->state;
                (void)snprintf(p->engine_text, sizeof(p->engine_text), "%s", a->text);
                break;
        }
}

static void turn_gate(struct pipeline *p, usec now)
{
        struct gate_facts facts;
        bool more = true;
        usec deadline;

        for (int round = 0; more && round < ROUNDS_A_TURN && !p->closed; round++) {
                more = poll_source(p, now) > 0;
                more = gate_take(p->gate, now) || more;
        }
        gate_facts(p->gate, &facts);
        if (!p->status.last_delivery && facts.last_delivery)
                wake_observer(p);
        p->status.last_event = facts.last_event;
        p->status.last_delivery = facts.last_delivery;
        p->engine_state = facts.state;
        (void)snprintf(p->engine_text, sizeof(p->engine_text), "%s", facts.text);
        tell_state(p);
        if (p->stopping && !p->source_stopped && gate_idle(p->gate)) {
                p->source_stopped = true;
                p->driver->stop(p->source);
                more = true;
        }
        if (p->closed) {
                loop_arm(p->config.loop, &p->task, USEC_NEVER);
                return;
        }
        if (more)
                loop_ready(p->config.loop, &p->task);
        deadline = MIN_OF(gate_deadline(p->gate), sender_deadline(p->sender));
        loop_arm(p->config.loop, &p->task, MIN_OF(deadline, p->driver->deadline(p->source)));
}

static void turn(struct task *task, usec now)
{
        struct pipeline *p = CONTAINER_OF(task, struct pipeline, task);
        struct action a;
        bool more = true;
        usec deadline;

        sender_turn(p->sender, now);
        if (p->gate) {
                turn_gate(p, now);
                return;
        }
        for (int round = 0; more && round < ROUNDS_A_TURN && !p->closed; round++) {
                more = poll_source(p, now) > 0;
                more = take_answers(p, now) || more;
                tell_state(p);
                while (delivery_next(p->engine, now, &a)) {
                        perform(p, &a);
                        more = true;
                }
                tell_state(p);
        }
        if (p->closed) {
                loop_arm(p->config.loop, task, USEC_NEVER);
                return;
        }
        if (more) /* others have their turn first */
                loop_ready(p->config.loop, task);
        deadline = MIN_OF(delivery_deadline(p->engine), sender_deadline(p->sender));
        loop_arm(p->config.loop, task, MIN_OF(deadline, p->driver->deadline(p->source)));
}

/* ---- life --------------------------------------------------------------- */

static struct delivery_config engine_config(const struct trigger *t, bool commit_at_once)
{
        const struct delivery_spec *d = t->delivery;
        size_t batch_bytes = (size_t)d->batch->max_bytes;
        bool batches = d->batch->max_messages > 1;
        int64_t window = MIN_OF(d->max_in_flight * d->batch->max_messages * 2, (int64_t)1 << 20);

        return (struct delivery_config){
                .ordering = (enum ordering)d->ordering,
                .max_in_flight = (uint32_t)d->max_in_flight,
                .initial_in_flight = (uint32_t)MIN_OF(d->initial_in_flight, d->max_in_flight),
                .rate = d->rate_limit ? d->rate_limit->events_per_second : 0,
                .burst = d->rate_limit ? d->rate_limit->burst : 0,
                .max_records = (uint32_t)window,
                .max_bytes = batches ? MAX_OF((size_t)8 << 20, 2 * batch_bytes) : (size_t)8 << 20,
                .key_lanes = (uint32_t)MIN_OF(d->max_in_flight * 4, (int64_t)1024),
                .batch_records = (uint32_t)d->batch->max_messages,
                .batch_bytes = batch_bytes,
                .batch_wait = batches ? d->batch->max_wait : 0,
                .timeout = d->timeout,
                .max_attempts = (uint32_t)d->retry->max_attempts,
                .max_event_age = d->retry->max_event_age,
                .initial_backoff = d->retry->initial_backoff,
                .max_backoff = d->retry->max_backoff,
                .linear_backoff = d->retry->backoff == BACKOFF_LINEAR,
                .retry_after_max = d->retry->retry_after_max,
                .on_exhausted = (enum on_exhausted)d->retry->on_exhausted,
                .bisect = d->retry->bisect,
                .commit_interval = commit_at_once ? 0 : USEC_SEC,
                /* of a partition: four of them at full speed repeat about a thousand after a kill */
                .commit_count = 250,
        };
}

static int open_filter(struct pipeline *p, struct error *err)
{
        const struct filter_spec *spec = p->config.trigger->filter;

        p->document.max = (size_t)64 << 20;
        if (spec && filter_new(&p->filter, str_of(spec->pattern), err) < 0)
                return error_wrap(err, "spec.filter.pattern");
        return 0;
}

static int open_gate(struct pipeline *p, struct error *err)
{
        const struct gate_config gate = { .host = p->config.host,
                                          .trigger = p->config.trigger,
                                          .driver = p->driver,
                                          .source = p->source,
                                          .sender = p->sender,
                                          .filter = p->filter,
                                          .clock = p->config.clock,
                                          .loop = p->config.loop,
                                          .wake = &p->task,
                                          .slots = (uint32_t)p->config.trigger->delivery->max_in_flight };

        if (!p->config.host)
                return error_set(err, ERROR_INVALID,
                                 "a %s source needs a listener: say --listen=ADDRESS:PORT", p->driver->name);
        return gate_new(&p->gate, &gate, err);
}

/* ---- whom a push source calls ------------------------------------------- */

static int open_peer(void *cookie, struct http_target **out, const struct http_peer *peer, struct error *err)
{
        struct pipeline *p = cookie;
        static const struct http_settings own = { .ca = "its caSecretRef", .proxy = "delivery.proxy" };
        BUF_AT_END struct buf space = BUF_INIT(1 << 20);
        struct http_target_config target;

        if (sender_target(&target, p->config.trigger, peer->url, p->config.secrets, &space, err) < 0)
                return -1;
        if (peer->own_tls) {
                target.tls = (struct http_tls){ .ca_file = peer->ca_file };
                target.settings = &own;
        }
        target.method = peer->method;
        target.headers = peer->headers;
        target.http_version = HTTP_AUTO;
        target.compress = false;
        target.response_timeout = 0; /* whoever asks has a time-out of its own */
        target.max_connections = peer->connections;
        target.answer_max = peer->answer_max;
        return http_target_new(out, p->config.http, &target, err);
}

static void close_peer(void *cookie UNUSED, struct http_target *target) { (void)http_target_free(target); }

static int open_ways(struct pipeline *p, struct error *err)
{
        static const struct http_peers_ops ops = { open_peer, close_peer };

        if (fetch_end_new(&p->fetch, p->config.loop, &p->task, err) < 0 ||
            http_end_new(&p->peers, p->config.http, &p->task, err) < 0)
                return -1;
        p->services.fetch = fetch_end_port(p->fetch);
        p->services.http = http_end_port(p->peers);
        p->services.peers = (struct http_peers){ &ops, p };
        return 0;
}

static int open_all(struct pipeline *p, struct error *err)
{
        const struct trigger *t = p->config.trigger;
        struct delivery_config config = engine_config(t, p->driver->commit_at_once);
        const struct dead_letter_spec *dead = t->delivery->dead_letter;
        struct sender_config sender = { .loop = p->config.loop,
                                        .http = p->config.http,
                                        .trigger = t,
                                        .driver = p->driver,
                                        .services = &p->services,
                                        .sink = p->config.sink,
                                        .dead_letter = p->config.dead_letter ? p->config.dead_letter
                                                       : dead && !dead->ref  ? dead->uri
                                                                             : NULL,
                                        .secrets = p->config.secrets,
                                        .wake = &p->task,
                                        .slots = config.max_in_flight,
                                        .batch_records = config.batch_records };

        if (p->driver->push) {
                sender.batch_records = PUSH_RECORDS_MOST;
                sender.answer_max = PUSH_ANSWER_MOST;
        }
        p->services = (struct services){ .loop = p->config.loop,
                                         .waker = loop_waker(p->config.loop),
                                         .clock = p->config.clock,
                                         .trigger = t,
                                         .instance = p->config.instance,
                                         .secrets = p->config.secrets,
                                         .ending = p->config.ending };
        if (p->driver->push && open_ways(p, err) < 0)
                return -1;
        if ((!p->driver->push && delivery_new(&p->engine, &config, random_seed(), err) < 0) ||
            open_filter(p, err) < 0 || sender_new(&p->sender, &sender, err) < 0 ||
            p->config.open_store(p->config.store_cookie, &p->task, &p->services.store, err) < 0 ||
            p->driver->open(&p->source, p->config.driver ? p->config.source_spec : t->source_spec,
                            &p->services, &p->task, err) < 0)
                return -1;
        return p->driver->push ? open_gate(p, err) : 0;
}

int pipeline_new(struct pipeline **out, const struct pipeline_config *config, struct error *err)
{
        struct pipeline *p = calloc(1, sizeof(*p));

        if (!p)
                return error_memory(err);
        p->config = *config;
        p->driver = config->driver ? config->driver : trigger_driver(config->trigger);
        p->task.turn = turn;
        p->status.source = SOURCE_CONNECTING;
        p->status.lag = -1;
        if (open_all(p, err) < 0) {
                p->closed = true;
                (void)pipeline_free(p);
                return error_wrap(err, "start %s/%s", config->trigger->namespace_, config->trigger->name);
        }
        loop_ready(config->loop, &p->task);
        *out = p;
        return 0;
}

void pipeline_stop(struct pipeline *p, usec give_up_at)
{
        if (p->stopping)
                return;
        p->stopping = true;
        p->give_up_at = give_up_at;
        if (p->gate)
                gate_stop(p->gate, give_up_at);
        else
                p->driver->stop(p->source);
        loop_ready(p->config.loop, &p->task);
}

struct pipeline *pipeline_free(struct pipeline *p)
{
        if (!p)
                return NULL;
        assert(p->closed);
        (void)gate_free(p->gate);
        if (p->source)
                (void)p->driver->free(p->source);
        (void)fetch_end_free(p->fetch);
        if (p->peers)
                (void)http_end_free(p->peers);
        if (p->services.store.ops)
                p->config.close_store(p->config.store_cookie);
        (void)sender_free(p->sender);
        (void)delivery_free(p->engine);
        (void)filter_free(p->filter);
        buf_done(&p->document);
        /* last: until they are freed those above may make it ready */
        loop_forget(p->config.loop, &p->task);
        free(p);
        return NULL;
}

const char *pipeline_delivery_name(enum delivery_state state)
{
        static const char *const names[DELIVERY_STATE_MAX] = {
                [DELIVERY_IDLE] = WORKER_DELIVERY_DELIVERING,
                [DELIVERY_RETRYING] = WORKER_DELIVERY_RETRYING,
                [DELIVERY_THROTTLED] = WORKER_DELIVERY_THROTTLED,
                [DELIVERY_FAILING] = WORKER_DELIVERY_FAILING,
                [DELIVERY_BLOCKED] = WORKER_DELIVERY_BLOCKED,
        };

        return names[state];
}
