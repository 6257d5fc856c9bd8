#include "worker/pipeline.h"

#include <assert.h>
#include <stdio.h>

#include "base/log.h"
#include "base/random.h"

enum { EVENTS_AT_ONCE = 64, ROUNDS_A_TURN = 16, ANSWER_KEPT = 4096, MESSAGE_KEPT = 256 * 1024 };

struct pipeline {
        struct task task;
        struct pipeline_config config;
        const struct driver *driver;
        struct services services;
        struct source *source;
        struct delivery *engine;
        struct http_end *http_end;
        struct http http;
        struct http_target *target;
        struct buf *messages;            /* one a slot of the engine's tickets */
        uint32_t slots;
        struct buf headers;
        struct pipeline_status status;
        bool stopping, closed;
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
bool pipeline_stopped(const struct pipeline *p) { return p->closed; }

void pipeline_status(const struct pipeline *p, struct pipeline_status *out)
{
        *out = p->status;
        delivery_stats(p->engine, &out->stats);
        out->lag = p->driver->lag(p->source);
}

/* ---- from the source ----------------------------------------------------------------------------------------------------------------- */

static void source_said(struct pipeline *p, const struct source_event *e, usec now)
{
        bool up = e->state == SOURCE_CONNECTED || e->state == SOURCE_IDLE || e->state == SOURCE_STANDBY;

        p->status.source = e->state;
        (void)snprintf(p->status.source_text, sizeof(p->status.source_text), "%s", e->text ? e->text : "");
        p->status.connected_since = up ? (p->status.connected_since ? p->status.connected_since : now) : 0;
        log_at(up || e->state == SOURCE_CONNECTING ? LOG_INFO : LOG_WARN, "source", LOG_S("namespace", p->config.trigger->namespace_),
               LOG_S("trigger", p->config.trigger->name), LOG_S("state", source_state_name(e->state)), LOG_S("reason", p->status.source_text));
        changed(p);
}

static void track_assigned(struct pipeline *p, uint32_t track, usec now)
{
        struct error err;

        if (delivery_assign(p->engine, track, now, &err) < 0) {
                log_error("a partition can't be taken", LOG_S("trigger", p->config.trigger->name), LOG_I("track", track), LOG_S("error", err.text));
                p->driver->revoked(p->source, track);
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
                        delivery_offer(p->engine, e->record, now);
                        break;
                case SOURCE_EVENT_ASSIGNED: track_assigned(p, e->track, now); break;
                case SOURCE_EVENT_REVOKING: delivery_revoke(p->engine, e->track, p->stopping ? MIN_OF(e->give_up_at, p->give_up_at) : e->give_up_at); break;
                case SOURCE_EVENT_LOST: delivery_revoke(p->engine, e->track, 0); break;
                case SOURCE_EVENT_STATE: source_said(p, e, now); break;
                case SOURCE_EVENT_CLOSED:
                        p->closed = true;
                        changed(p);
                        break;
                }
        }
        return n;
}

/* ---- to the function ----------------------------------------------------------------------------------------------------------------- */

static void answer(struct pipeline *p, uint32_t ticket, const struct http_completion *c, usec now)
{
        char text[320];
        struct answer a = { .kind = ANSWER_RETRY, .text = text };

        if (c->failed) {
                a.kind = c->error.retry || c->error.kind == ERROR_PROTOCOL ? ANSWER_RETRY : ANSWER_FINAL;
                (void)snprintf(text, sizeof(text), "%.300s", c->error.text);
        } else {
                struct str words = str_trim(c->body);

                a.kind = answer_kind_of(c->status);
                a.status = c->status;
                a.retry_after = c->retry_after;
                (void)snprintf(text, sizeof(text), words.n ? "%s answered %d: %.*s" : "%s answered %d", p->config.sink, c->status, (int)MIN_OF(words.n, (size_t)160), words.p);
                if (a.kind == ANSWER_ACCEPTED) {
                        if (!p->status.last_delivery)
                                wake_observer(p); /* later ones show whenever it looks */
                        p->status.last_delivery = clock_wall(p->config.clock);
                }
        }
        delivery_answer(p->engine, ticket, &a, now);
}

static bool take_answers(struct pipeline *p, usec now)
{
        struct http_completion c;
        bool any = false;

        while (p->http.ops->take(p->http.cookie, &c)) {
                answer(p, (uint32_t)c.tag, &c, now);
                any = true;
        }
        return any;
}

static void send_event(struct pipeline *p, const struct action *a, usec now)
{
        struct buf *message = &p->messages[a->attempt & 0xffff];
        const struct trigger *t = p->config.trigger;
        struct http_request request = { .target = p->target, .message = message };
        struct error err;
        struct writer w;

        if (message->cap > MESSAGE_KEPT)
                buf_done(message);
        buf_reset(message);
        if (buf_reserve(message, HTTP_HEADROOM))
                message->n = HTTP_HEADROOM;
        writer_init(&w, message);
        p->driver->encode(p->source, (enum dialect)t->event->dialect, a->records, a->n, &w);
        buf_reset(&p->headers);
        buf_text(&p->headers, "X-Sluice-Event-Id: ");
        buf_str(&p->headers, a->records[0]->id);
        if (a->n > 1) {
                buf_text(&p->headers, "..");
                buf_str(&p->headers, a->records[a->n - 1]->id);
        }
        buf_text(&p->headers, "\r\n");
        request.headers = buf_view(&p->headers);
        if (message->failed || p->headers.failed || p->http.ops->submit(p->http.cookie, a->attempt, &request, &err) < 0) {
                if (message->failed || p->headers.failed)
                        (void)error_memory(&err);
                delivery_answer(p->engine, a->attempt, &(struct answer){ .kind = ANSWER_RETRY, .text = err.text }, now);
        }
}

static void delivery_said(struct pipeline *p, const struct action *a)
{
        static const char *const names[] = { "delivering", "retrying", "blocked" };

        if (a->state != p->status.delivery)
                log_at(a->state == DELIVERY_IDLE ? LOG_INFO : LOG_WARN, "delivery", LOG_S("namespace", p->config.trigger->namespace_),
                       LOG_S("trigger", p->config.trigger->name), LOG_S("state", names[a->state]), LOG_S("reason", a->text));
        p->status.delivery = a->state;
        (void)snprintf(p->status.delivery_text, sizeof(p->status.delivery_text), "%s", a->text);
        changed(p);
}

static void perform(struct pipeline *p, const struct action *a, usec now)
{
        switch (a->kind) {
        case ACTION_SEND: send_event(p, a, now); break;
        case ACTION_CANCEL: p->http.ops->cancel(p->http.cookie, a->attempt); break;
        case ACTION_DEAD_LETTER: /* no dead letter can be written in a Trigger yet, so the engine is never told to */
                delivery_answer(p->engine, a->attempt, &(struct answer){ .kind = ANSWER_RETRY, .text = "no dead letter" }, now);
                break;
        case ACTION_DETACH: (void)p->driver->detach(p->source, a->record); break;
        case ACTION_SETTLE: p->driver->settle(p->source, a->record, a->outcome); break;
        case ACTION_CREDIT: p->driver->credit(p->source, a->track, a->credit, a->bytes); break;
        case ACTION_COMMIT: p->driver->commit(p->source, a->track, a->position); break;
        case ACTION_REVOKED: p->driver->revoked(p->source, a->track); break;
        case ACTION_STATE: delivery_said(p, a); break;
        }
}

static void turn(struct task *task, usec now)
{
        struct pipeline *p = CONTAINER_OF(task, struct pipeline, task);
        struct action a;
        bool more = true;

        p->status.last_turn = now;
        for (int round = 0; more && round < ROUNDS_A_TURN && !p->closed; round++) {
                more = poll_source(p, now) > 0;
                more = take_answers(p, now) || more;
                while (delivery_next(p->engine, now, &a)) {
                        perform(p, &a, now);
                        more = true;
                }
        }
        if (p->closed) {
                loop_arm(p->config.loop, task, USEC_NEVER);
                return;
        }
        if (more) /* others have their turn first */
                loop_ready(p->config.loop, task);
        loop_arm(p->config.loop, task, MIN_OF(delivery_deadline(p->engine), p->driver->deadline(p->source)));
}

/* ---- life ---------------------------------------------------------------------------------------------------------------------------- */

static struct delivery_config engine_config(const struct trigger *t, bool commit_at_once)
{
        const struct delivery_spec *d = t->delivery;

        return (struct delivery_config){
                .ordering = (enum ordering)d->ordering,
                .max_in_flight = (uint32_t)d->max_in_flight,
                .max_records = (uint32_t)d->max_in_flight * 2,
                .max_bytes = (size_t)8 << 20,
                .key_lanes = (uint32_t)MIN_OF(d->max_in_flight * 4, (int64_t)1024),
                .batch_records = 1,
                .timeout = d->timeout,
                .initial_backoff = d->retry->initial_backoff,
                .max_backoff = d->retry->max_backoff,
                .retry_after_max = USEC_HOUR,
                .on_exhausted = EXHAUSTED_BLOCK,
                .commit_interval = commit_at_once ? 0 : USEC_SEC,
                .commit_count = 1000,
        };
}

static void header(struct buf *b, const char *name, const char *value)
{
        if (value && *value)
                buf_printf(b, "%s: %s\r\n", name, value);
}

/* What FunctionGraph tells a container function about itself. */
static void function_headers(const struct trigger *t, struct buf *b)
{
        header(b, "X-CFF-Func-Name", t->function->name ? t->function->name : t->name);
        header(b, "X-CFF-Func-Version", t->function->version);
        header(b, "X-CFF-Package", t->function->package);
        header(b, "X-CFF-Project-Id", t->function->project);
        header(b, "X-CFF-Region", t->event->region);
}

static int open_target(struct pipeline *p, struct error *err)
{
        BUF_AT_END struct buf headers = BUF_INIT(16384);
        struct http_target_config config = {
                .url = str_of(p->config.sink),
                .max_connections = (uint32_t)p->config.trigger->delivery->max_in_flight,
                .connect_timeout = MIN_OF(p->config.trigger->delivery->timeout, 10 * USEC_SEC),
                .max_age = 5 * USEC_MINUTE,
                .answer_max = ANSWER_KEPT,
        };

        buf_text(&headers, "Content-Type: application/json\r\n");
        function_headers(p->config.trigger, &headers);
        if (headers.failed)
                return error_memory(err);
        config.headers = buf_view(&headers);
        return http_target_new(&p->target, p->config.http, &config, err);
}

static int open_all(struct pipeline *p, struct error *err)
{
        const struct trigger *t = p->config.trigger;
        struct delivery_config config = engine_config(t, p->driver->commit_at_once);

        p->slots = config.max_in_flight;
        p->headers.max = 16384;
        p->messages = calloc(p->slots, sizeof(*p->messages));
        if (!p->messages)
                return error_memory(err);
        for (uint32_t i = 0; i < p->slots; i++)
                p->messages[i].max = (size_t)32 << 20;
        if (delivery_new(&p->engine, &config, random_seed(), err) < 0 || http_end_new(&p->http_end, p->config.http, &p->task, err) < 0 || open_target(p, err) < 0)
                return -1;
        p->http = http_end_port(p->http_end);
        p->services = (struct services){ .loop = p->config.loop, .waker = loop_waker(p->config.loop), .clock = p->config.clock, .trigger = t,
                                         .instance = p->config.instance };
        if (p->config.open_store(p->config.store_cookie, &p->task, &p->services.store, err) < 0)
                return -1;
        return p->driver->open(&p->source, t->source_spec, &p->services, &p->task, err);
}

int pipeline_new(struct pipeline **out, const struct pipeline_config *config, struct error *err)
{
        struct pipeline *p = calloc(1, sizeof(*p));

        if (!p)
                return error_memory(err);
        p->config = *config;
        p->driver = trigger_driver(config->trigger);
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
        p->driver->stop(p->source);
        loop_ready(p->config.loop, &p->task);
}

struct pipeline *pipeline_free(struct pipeline *p)
{
        if (!p)
                return NULL;
        assert(p->closed);
        loop_forget(p->config.loop, &p->task);
        if (p->source)
                (void)p->driver->free(p->source);
        if (p->services.store.ops)
                p->config.close_store(p->config.store_cookie);
        if (p->http_end)
                (void)http_end_free(p->http_end);
        (void)http_target_free(p->target);
        (void)delivery_free(p->engine);
        for (uint32_t i = 0; p->messages && i < p->slots; i++)
                buf_done(&p->messages[i]);
        free(p->messages);
        buf_done(&p->headers);
        free(p);
        return NULL;
}
