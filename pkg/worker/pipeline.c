#include "worker/pipeline.h"

#include <assert.h>
#include <stdio.h>

#include "api/worker.h"
#include "base/bucket.h"
#include "log/log.h"
#include "filter/filter.h"
#include "huawei/cloud.h"
#include "worker/gate.h"
#include "worker/target.h"

enum { ROUNDS_A_TURN = 16, PUSH_ANSWER_MOST = 8 << 20 };

struct pipeline {
        struct task task;
        struct pipeline_config config;
        const struct source_kind *kind;
        struct services services;
        struct log_scope log;
        struct warning_counts *warnings; /* NULL: nothing befell the source yet */
        struct sender *sender;           /* NULL: it sleeps */
        struct filter *filter;           /* NULL: everything is delivered */
        struct feed *feed;
        enum delivery_state delivery; /* as reported, with its text */
        enum delivery_state logged;   /* the last state that was logged */
        int64_t logged_paid;          /* struct bucket_rate */
        char *delivery_text;          /* NULL: none */
        uint64_t changes, seen;       /* of the reported delivery state; of all, as the observer knows */
        bool stopping, passed_by, delivered;
        bool may_sleep;
        usec wake_at; /* there was no memory to wake: again then; 0: there was */
};

const struct trigger *pipeline_trigger(const struct pipeline *p) { return p->config.trigger; }
bool pipeline_drained(const struct pipeline *p) { return p->feed->ops->drained(p->feed); }
bool pipeline_stopped(const struct pipeline *p) { return p->feed->closed; }

static void count_from_nothing(const struct source_kind *kind, struct warning_counts *out)
{
        const struct warning *w = kind->warnings;

        for (size_t i = 0; w && w[i].reason && i < WARNING_REASONS_MOST - 1; i++)
                out->list[i] = (struct warning_count){ .reason = w[i].reason, .loses = w[i].loses };
}

void pipeline_status(const struct pipeline *p, struct pipeline_status *out)
{
        const struct feed_status *s = &p->feed->status;

        *out = (struct pipeline_status){ .source = s->source,
                                         .delivery = p->delivery,
                                         .changes = s->changes + p->changes,
                                         .unjudged = s->unjudged,
                                         .last_event = s->last_event,
                                         .last_delivery = s->last_delivery,
                                         .connected_since = s->connected_since };
        (void)text_copy(out->source_text, sizeof(out->source_text), s->source_text ? s->source_text : "");
        (void)text_copy(out->delivery_text, sizeof(out->delivery_text),
                        p->delivery_text ? p->delivery_text : "");
        if (p->warnings)
                out->warnings = *p->warnings;
        else
                count_from_nothing(p->kind, &out->warnings);
        p->feed->ops->count(p->feed, out);
        if (p->config.cloud && trigger_cloud(p->config.trigger))
                out->clock_skew = cloud_skew(p->config.cloud);
}

bool pipeline_track_lag(const struct pipeline *p, uint32_t *at, struct track_lag *out, usec *behind)
{
        if (!p || !p->feed->ops->track_lag || !p->feed->ops->track_lag(p->feed, at, out))
                return false;
        *behind = out->oldest ? MAX_OF(clock_wall(p->config.clock) - out->oldest, (usec)0) : 0;
        return true;
}

void pipeline_shown(const struct pipeline *p, const char *failure, struct pipeline_status *out)
{
        if (p)
                pipeline_status(p, out);
        else
                *out = (struct pipeline_status){ .stopped = true, .lag = -1, .unsaved = -1 };
        if (failure) {
                size_t n = text_copy(out->source_text, sizeof(out->source_text),
                                     p ? "its change can't be started, and it goes on as it was: " : "");

                out->source = SOURCE_FAILED;
                (void)text_copy(out->source_text + n, sizeof(out->source_text) - n, failure);
        } else if (!p)
                (void)snprintf(out->source_text, sizeof(out->source_text), "waits for its turn to start");
}

void pipeline_clock(const struct pipeline_status *s, struct buf *out)
{
        if (!s->clock_skew)
                return;
        buf_text(out, "the local clock is ");
        duration_format(out, s->clock_skew < 0 ? -s->clock_skew : s->clock_skew);
        buf_text(out, s->clock_skew < 0 ? " ahead of the cloud's" : " behind the cloud's");
}

/* Updates the reported delivery state: the feed's, or why requests can't be sent. */
static void tell_state(struct pipeline *p)
{
        const char *why, *trouble = sender_trouble(p->sender), *text = p->feed->status.delivery_text;
        enum delivery_state state = p->feed->status.delivery;
        char fresh[256];
        bool ready = sender_ready(p->sender, &why);

        if ((!ready && why) || p->feed->held) {
                state = DELIVERY_RETRYING;
                text = !ready && why ? why : p->feed->held;
        } else if (trouble && state != DELIVERY_BLOCKED)
                text = trouble;
        else if (ready && !text && sender_notes(p->sender))
                text = sender_notes(p->sender);
        (void)text_copy(fresh, sizeof(fresh), text ? text : "");
        if (state == p->delivery && strcmp(fresh, p->delivery_text ? p->delivery_text : "") == 0)
                return;
        p->delivery = state;
        feed_keep(&p->delivery_text, fresh);
        p->changes++;
}

/* Logs a new delivery state, but not too often: the state may change with each event. Returns when to log it
 * otherwise. */
static usec log_delivery(struct pipeline *p, usec now)
{
        const struct bucket_rate apart = bucket_rate(1, 10 * USEC_SEC, 5);

        if (p->delivery == p->logged)
                return USEC_NEVER;
        if (!bucket_gives(&apart, p->logged_paid, now))
                return bucket_at(&apart, p->logged_paid, now);
        p->logged_paid = bucket_take(&apart, p->logged_paid, 1, now);
        p->logged = p->delivery;
        log_at_for(&p->log, p->delivery == DELIVERY_IDLE ? LOG_INFO : LOG_WARN, "delivery",
                   LOG_S("state", pipeline_delivery_name(p->delivery)),
                   LOG_S("reason", p->delivery_text ? p->delivery_text : ""));
        return USEC_NEVER;
}

/* Wakes the observer for changes and for the first delivery; it sees later deliveries whenever it looks. */
static void wake_observer(struct pipeline *p)
{
        uint64_t changes = p->changes + p->feed->status.changes;
        bool delivered = p->feed->status.last_delivery != 0;

        if (p->config.observer && (changes != p->seen || delivered != p->delivered))
                loop_ready(p->config.loop, p->config.observer);
        p->seen = changes;
        p->delivered = delivered;
}

/* ---- rest --------------------------------------------------------------- */

static const usec WAKE_AGAIN = 100 * USEC_MSEC;

static int open_sender(struct pipeline *p, const struct delivery_config *delivery, bool tried,
                       struct error *err);
static struct delivery_config engine_config(const struct pipeline *p);

static void count_secret(void *cookie, const struct secret_ref *ref UNUSED) { *(bool *)cookie = true; }

/* What would be lost by it, such as a transform's process or Secrets that are watched, keeps it awake. */
static bool may_sleep(const struct pipeline *p)
{
        const struct trigger *t = p->config.trigger;
        bool has_secrets = false;

        trigger_secrets(t, count_secret, &has_secrets);
        return p->feed->ops->rest && !has_secrets && !t->transform && !t->function->init_path &&
               !t->delivery->authentication && !t->delivery->dead_letter;
}

static void fall_asleep(struct pipeline *p)
{
        if (p->may_sleep && !p->stopping && p->feed->ops->rest(p->feed))
                p->sender = sender_free(p->sender);
}

/* false: it sleeps on. */
static bool is_awake(struct pipeline *p, usec now)
{
        struct delivery_config delivery;
        struct error err;

        if (p->sender)
                return true;
        if (!p->feed->ops->stir(p->feed, now))
                return false;
        delivery = engine_config(p);
        p->wake_at = 0;
        if (open_sender(p, &delivery, false, &err) == 0 &&
            p->feed->ops->wake(p->feed, p->sender, &delivery, now, &err) == 0)
                return true;
        p->sender = sender_free(p->sender);
        log_warn_for(&p->log, "a record has to wait", LOG_S("error", err.text));
        p->wake_at = now + WAKE_AGAIN;
        return false;
}

/* What is left to do in a turn of one that sleeps. */
static void sleep_on(struct pipeline *p, usec now)
{
        usec due = MIN_OF(p->feed->ops->deadline(p->feed), feed_log_deadline(p->feed));

        feed_log(p->feed, now);
        wake_observer(p);
        if (p->feed->closed)
                due = USEC_NEVER;
        else if (p->wake_at)
                due = MIN_OF(due, p->wake_at);
        loop_arm(p->config.loop, &p->task, due);
}

static void turn(struct task *task, usec now)
{
        struct pipeline *p = CONTAINER_OF(task, struct pipeline, task);
        const struct feed_ops *ops = p->feed->ops;
        bool more = true;
        usec due, log_due;

        if (!is_awake(p, now)) {
                sleep_on(p, now);
                return;
        }
        sender_turn(p->sender, now);
        for (int round = 0; more && round < ROUNDS_A_TURN && !p->feed->closed; round++) {
                more = ops->turn(p->feed, now);
                tell_state(p);
        }
        feed_log(p->feed, now);
        log_due = log_delivery(p, now);
        wake_observer(p);
        if (p->feed->closed) {
                loop_arm(p->config.loop, task, USEC_NEVER);
                return;
        }
        if (!more && p->delivery == DELIVERY_IDLE && log_due == USEC_NEVER)
                fall_asleep(p);
        if (!p->sender) {
                sleep_on(p, now);
                return;
        }
        if (more) /* other tasks have their turn first */
                loop_ready(p->config.loop, task);
        due = MIN_OF(ops->deadline(p->feed), feed_log_deadline(p->feed));
        due = MIN_OF(due, log_due);
        loop_arm(p->config.loop, task, MIN_OF(due, sender_deadline(p->sender)));
}

/* ---- what befalls the source -------------------------------------------- */

static struct warning_count *count_of(struct warning_counts *all, const char *reason)
{
        struct warning_count *at = all->list;

        for (; at < all->list + WARNING_REASONS_MOST - 1; at++)
                if (!at->reason || strcmp(at->reason, reason) == 0) {
                        at->reason = reason;
                        return at;
                }
        at->reason = "Other";
        return at;
}

static void told(void *cookie, const struct notice *n)
{
        struct pipeline *p = cookie;
        struct warning_count *count;

        if (!p->warnings && (p->warnings = calloc(1, sizeof(*p->warnings))))
                count_from_nothing(p->kind, p->warnings);
        if (p->warnings) {
                count = count_of(p->warnings, n->reason);
                count->times += n->times;
                count->lost += n->lost;
                count->loses = count->loses || n->lost;
                if (n->lost)
                        (void)text_copy(p->warnings->lost_text, sizeof(p->warnings->lost_text), n->text);
                p->warnings->lost += n->lost;
        }
        p->changes++;
        loop_ready(p->config.loop, &p->task);
        log_warn_for(&p->log, "the source warns", LOG_S("reason", n->reason), LOG_I("lost", (int64_t)n->lost),
                     LOG_I("times", (int64_t)n->times), LOG_S("text", n->text));
        if (p->config.notices.tell)
                p->config.notices.tell(p->config.notices.cookie, n);
}

/* ---- life --------------------------------------------------------------- */

static bool is_unordered(const struct pipeline *p)
{
        return p->kind->unordered &&
               p->kind->unordered(p->config.kind ? p->config.source_spec : p->config.trigger->source_spec);
}

static struct delivery_config engine_config(const struct pipeline *p)
{
        const struct trigger *t = p->config.trigger;
        const struct source_kind *kind = p->kind;
        const struct delivery_spec *d = t->delivery;
        size_t batch_bytes = (size_t)d->batch->max_bytes;
        /* what is in no order stands for itself, and waits for nothing else */
        int64_t messages = is_unordered(p) ? 1 : d->batch->max_messages;
        bool batches = messages > 1;
        int64_t window = MIN_OF(d->max_in_flight * messages * 2, (int64_t)1 << 20);

        return (struct delivery_config){
                .ordering = is_unordered(p) ? ORDERING_NONE : (enum ordering)d->ordering,
                .max_in_flight = (uint32_t)d->max_in_flight,
                .initial_in_flight = (uint32_t)MIN_OF(d->initial_in_flight, d->max_in_flight),
                .rate = d->rate_limit ? d->rate_limit->events_per_second : 0,
                .burst = d->rate_limit ? d->rate_limit->burst : 0,
                .max_records = (uint32_t)window,
                .max_bytes = batches ? MAX_OF((size_t)8 << 20, 2 * batch_bytes) : (size_t)8 << 20,
                .key_lanes = (uint32_t)MIN_OF(d->max_in_flight * 4, (int64_t)1024),
                .batch_records = (uint32_t)messages,
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
                .commit_interval = kind->pull && kind->pull->commit_at_once ? 0 : USEC_SEC,
                /* per partition: four of them at full speed repeat about a thousand records after a kill */
                .commit_count = 250,
        };
}

static int open_filter(struct pipeline *p, struct error *err)
{
        const struct filter_spec *spec = p->config.trigger->filter;

        if (spec && filter_new(&p->filter, str_of(spec->pattern), err) < 0)
                return error_wrap(err, "spec.filter.pattern");
        return 0;
}

/* ---- whom a source calls ------------------------------------------- */

static int open_peer(void *cookie, struct http_target **out, const struct http_peer *peer, struct error *err)
{
        struct pipeline *p = cookie;
        static const struct http_settings own = { .ca = "its caSecretRef", .proxy = "delivery.proxy" };
        BUF_AT_END struct buf space = BUF_INIT(1 << 20);
        struct http_target_config target;

        if (target_config(&target, p->config.trigger, peer->url, p->config.secrets, &space, err) < 0)
                return -1;
        if (peer->own_tls) {
                target.tls = (struct http_tls){ .ca_file = peer->ca_file };
                target.settings = &own;
        }
        target.method = peer->method;
        target.headers = peer->headers;
        target.http_version = HTTP_AUTO;
        target.compress = false;
        target.response_timeout = 0; /* the caller has a time-out of its own */
        target.max_connections = peer->connections;
        target.answer_max = peer->answer_max;
        return http_target_new(out, p->config.http, &target, err);
}

static void close_peer(void *cookie UNUSED, struct http_target *target) { (void)http_target_free(target); }

static void open_ways(struct pipeline *p)
{
        static const struct http_peers_ops ops = { open_peer, close_peer };

        if (p->config.fetch && p->kind->push)
                p->services.fetch = *p->config.fetch;
        p->services.http = http_client_port(p->config.http);
        p->services.peers = (struct http_peers){ &ops, p };
}

static int open_sender(struct pipeline *p, const struct delivery_config *delivery, bool tried,
                       struct error *err)
{
        const struct trigger *t = p->config.trigger;
        const struct dead_letter_spec *dead = t->delivery->dead_letter;
        struct sender_config sender = { .loop = p->config.loop,
                                        .http = p->config.http,
                                        .peers = p->services.peers,
                                        .trigger = t,
                                        .log = &p->log,
                                        .shape = p->kind->shape,
                                        .clock = p->config.clock,
                                        .sink = p->config.sink,
                                        .dead_letter = p->config.dead_letter ? p->config.dead_letter
                                                       : dead && !dead->ref  ? dead->uri
                                                                             : NULL,
                                        .secrets = p->config.secrets,
                                        .wake = &p->task,
                                        .most = delivery->max_in_flight,
                                        .batch_records = delivery->batch_records,
                                        .tried = tried };

        if (p->kind->push) {
                sender.batch_records = PUSH_RECORDS_MOST;
                sender.answer_max = PUSH_ANSWER_MOST;
                sender.shows_made = true;
        }
        return sender_new(&p->sender, &sender, err);
}

static int open_feed(struct pipeline *p, const struct delivery_config *delivery, struct error *err)
{
        const struct trigger *t = p->config.trigger;
        const struct feed_config feed = { .loop = p->config.loop,
                                          .wake = &p->task,
                                          .clock = p->config.clock,
                                          .trigger = t,
                                          .kind = p->kind,
                                          .spec = p->config.kind ? p->config.source_spec : t->source_spec,
                                          .services = &p->services,
                                          .sender = p->sender,
                                          .filter = p->filter,
                                          .host = p->config.host };

        return p->kind->push ? gate_new(&p->feed, &feed, err) : pull_new(&p->feed, &feed, delivery, err);
}

/* Opens what needs no listener, store or claims, and so can be opened beside a running pipeline. */
static int open_own(struct pipeline *p, const struct delivery_config *delivery, bool tried, struct error *err)
{
        p->services = (struct services){ .loop = p->config.loop,
                                         .waker = loop_waker(p->config.loop),
                                         .wake = &p->task,
                                         .clock = p->config.clock,
                                         .cloud = p->config.cloud,
                                         .trigger = p->config.trigger,
                                         .log = &p->log,
                                         .notices = { told, p },
                                         .instance = p->config.instance,
                                         .secrets = p->config.secrets,
                                         .ending = p->config.ending };
        open_ways(p);
        return open_filter(p, err) < 0 || open_sender(p, delivery, tried, err) < 0 ? -1 : 0;
}

static int open_all(struct pipeline *p, struct error *err)
{
        const struct delivery_config delivery = engine_config(p);

        if (open_own(p, &delivery, false, err) < 0 ||
            p->config.open_store(p->config.store_cookie, &p->services.store, err) < 0)
                return -1;
        if (p->config.open_claims &&
            p->config.open_claims(p->config.store_cookie, &p->task, &p->services.claims, err) < 0)
                return -1;
        return open_feed(p, &delivery, err);
}

static struct pipeline *pipeline_of(const struct pipeline_config *config)
{
        struct pipeline *p = calloc(1, sizeof(*p));

        if (!p)
                return NULL;
        p->config = *config;
        p->kind = config->kind ? config->kind : trigger_source(config->trigger);
        p->log = log_scope_of(config->trigger->namespace_, config->trigger->name);
        p->logged_paid = BUCKET_FULL;
        p->task.turn = turn;
        return p;
}

static int not_started(const struct pipeline_config *config, struct error *err)
{
        return error_wrap(err, "start %s/%s", config->trigger->namespace_, config->trigger->name);
}

int pipeline_new(struct pipeline **out, const struct pipeline_config *config, struct error *err)
{
        struct pipeline *p = pipeline_of(config);

        if (!p)
                return error_memory(err);
        if (open_all(p, err) < 0) {
                (void)pipeline_free(p);
                return not_started(config, err);
        }
        p->may_sleep = may_sleep(p);
        loop_ready(config->loop, &p->task);
        *out = p;
        return 0;
}

int pipeline_check(const struct pipeline_config *config, struct error *err)
{
        struct pipeline *p = pipeline_of(config);
        struct delivery_config delivery;
        int result;

        if (!p)
                return error_memory(err);
        delivery = engine_config(p);
        result = open_own(p, &delivery, true, err);
        if (result == 0 && p->kind->check)
                result = p->kind->check(config->kind ? config->source_spec : config->trigger->source_spec,
                                        &p->services, err);
        (void)pipeline_free(p);
        return result < 0 ? not_started(config, err) : 0;
}

void pipeline_stop(struct pipeline *p, usec give_up_at)
{
        if (p->stopping && !p->passed_by)
                return;
        p->stopping = true;
        p->passed_by = false;
        p->feed->ops->stop(p->feed, give_up_at);
        loop_ready(p->config.loop, &p->task);
}

void pipeline_pass_by(struct pipeline *p, struct pipeline *successor)
{
        p->feed->ops->pass_by(p->feed, successor ? successor->feed : NULL);
        if (p->stopping)
                return;
        pipeline_stop(p, USEC_NEVER);
        p->passed_by = true;
}

struct pipeline *pipeline_free(struct pipeline *p)
{
        if (!p)
                return NULL;
        assert(!p->feed || p->feed->closed);
        if (p->feed)
                p->feed->ops->free(p->feed);
        if (p->services.claims.ops)
                p->config.close_claims(p->config.store_cookie);
        if (p->services.store.ops)
                p->config.close_store(p->config.store_cookie);
        (void)sender_free(p->sender);
        (void)filter_free(p->filter);
        /* last: the objects above may make it ready until they are freed */
        loop_forget(p->config.loop, &p->task);
        free(p->warnings);
        free(p->delivery_text);
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

const char *pipeline_delivery(const struct pipeline_status *s)
{
        return s->stopped ? WORKER_DELIVERY_STOPPED : pipeline_delivery_name(s->delivery);
}
