#include "source/smn/subscription.h"

#include <jansson.h>
#include <stdio.h>

#include "api/worker.h"
#include "base/backoff.h"
#include "log/log.h"
#include "json/tree.h"
#include "json/value.h"
#include "source/cloud.h"
#include "source/smn/notified.h"

/* LISTED_MOST: ten times what a topic may have. */
enum { PAGE = 100, LISTED_MOST = 100000, FORMER_MOST = 16, UNCONFIRMED = 0, CONFIRMED = 1 };
static const usec BACKOFF_FIRST = USEC_SEC, BACKOFF_MOST = 5 * USEC_MINUTE, ASK_AGAIN_FIRST = 5 * USEC_SEC,
                  ASK_AGAIN_MOST = USEC_HOUR, LOOK_AGAIN = 30 * USEC_MINUTE;

enum phase {
        PHASE_LOAD, /* what is known of it */
        PHASE_LOADING,
        PHASE_SAVE, /* write down what is known */
        PHASE_SAVING,
        PHASE_LIST, /* is the subscription there? */
        PHASE_SUBSCRIBE,
        PHASE_CANCEL,
        PHASE_CALLING,
        PHASE_REST,    /* until something happens, or look_at */
        PHASE_REMOVED, /* nothing of it is outside any more */
};

struct subscription {
        struct subscription_config config;
        bool managed, ending, connected;
        char *endpoint, *protocol; /* NULL: it is not managed */
        struct random random;
        enum phase phase, call; /* call: what is under way */
        json_t *record;         /* as it is kept */
        const char *topic, *at; /* what is listed: views into record or spec */
        bool remove;            /* it is cancelled, not made */
        bool cancelled;         /* one was, and the list is to show it no more */
        size_t offset;
        char *urn;                      /* to be cancelled */
        struct source_account *account; /* of the topic that was called for last */
        char *account_topic;
        struct cloud_call request;
        struct store_request stored;
        struct buf what, path, query, body;
        unsigned failures, asked;
        usec not_before, look_at;
        /* The Trigger's subscription before this one and after it, as long as the former still has a call or
         * a write under way: there is one writer of the record at a time. */
        struct subscription *before, *after;
        bool passed_on; /* it is its successor's from now on */
};

static void say(struct subscription *s, enum source_state state, const char *text)
{
        inbox_say(s->config.inbox, state, text);
}
static void say_nothing(struct subscription *s) { say(s, SOURCE_CONNECTING, ""); }

/* ---- what is kept ------------------------------------------------------- */

static json_t *must(json_t *o)
{
        if (!o)
                abort(); /* out of memory: a worker that starts anew knows all of it */
        return o;
}

static bool is_this(const struct subscription *s, const json_t *o)
{
        return strcmp(json_cstring(o, "topic"), s->config.spec->topic_urn) == 0 &&
               strcmp(json_cstring(o, "endpoint"), s->endpoint ? s->endpoint : "") == 0;
}

static json_t *former_of(json_t *record)
{
        json_t *list = json_object_get(record, "former");

        if (!json_is_array(list)) {
                list = must(json_array());
                (void)json_object_set_new(record, "former", list);
        }
        return list;
}

static json_t *place(const char *topic, const char *endpoint)
{
        return must(json_pack("{ss ss}", "topic", topic, "endpoint", endpoint));
}

/* The record of what the Trigger says now; what the one before says of elsewhere is kept as former. */
static void renew(struct subscription *s)
{
        json_t *fresh = must(json_object()), *before = s->record, *old;
        size_t i;

        (void)json_object_set_new(fresh, "topic", json_string(s->config.spec->topic_urn));
        if (s->endpoint)
                (void)json_object_set_new(fresh, "endpoint", json_string(s->endpoint));
        json_array_foreach(json_object_get(before, "former"), i, old) if (!is_this(s, old))(void)
                json_array_append(former_of(fresh), old);
        /* A subscription that is no longer managed is its user's. */
        if (s->endpoint && *json_cstring(before, "endpoint") &&
            json_array_size(former_of(fresh)) < FORMER_MOST)
                (void)json_array_append_new(former_of(fresh), place(json_cstring(before, "topic"),
                                                                    json_cstring(before, "endpoint")));
        json_decref(before);
        s->record = fresh;
}

static void set_confirmed(struct subscription *s)
{
        (void)json_object_set_new(s->record, "confirmed", json_true());
}

/* ---- going on ----------------------------------------------------------- */

static void rest(struct subscription *s, usec look_at)
{
        s->phase = PHASE_REST;
        s->look_at = look_at;
}

static void list(struct subscription *s, const char *topic, const char *at, bool remove)
{
        s->topic = topic;
        s->at = at;
        s->remove = remove;
        s->cancelled = false;
        s->offset = 0;
        s->phase = PHASE_LIST;
}

static void list_own(struct subscription *s) { list(s, s->config.spec->topic_urn, s->endpoint, s->ending); }

/* What was subscribed elsewhere before. false: nothing. */
static bool list_former(struct subscription *s)
{
        json_t *old = json_array_get(json_object_get(s->record, "former"), 0);

        if (old)
                list(s, json_cstring(old, "topic"), json_cstring(old, "endpoint"), true);
        return old != NULL;
}

/* The subscription is confirmed, as far as is known. */
static void settle(struct subscription *s, usec now)
{
        bool known = json_is_true(json_object_get(s->record, "confirmed"));

        s->asked = 0;
        set_confirmed(s);
        say_nothing(s);
        if (!known && s->config.services->store.ops)
                s->phase = PHASE_SAVE;
        else if (!s->managed || !list_former(s))
                rest(s, s->managed ? now + LOOK_AGAIN : USEC_NEVER);
}

static void go_on_removing(struct subscription *s)
{
        if (list_former(s))
                return;
        s->phase = PHASE_REMOVED;
        say(s, SOURCE_REMOVED, "the subscription is cancelled");
}

/* At the Trigger's end all is former: what the record says, which may be lost, and what the Trigger says. */
static void turn_to_the_end(struct subscription *s)
{
        if (*json_cstring(s->record, "endpoint") && !is_this(s, s->record))
                (void)json_array_append_new(former_of(s->record), place(json_cstring(s->record, "topic"),
                                                                        json_cstring(s->record, "endpoint")));
        if (s->managed) /* first: one elsewhere may be out of reach */
                (void)json_array_insert_new(former_of(s->record), 0,
                                            place(s->config.spec->topic_urn, s->endpoint));
        (void)json_object_del(s->record, "endpoint");
        (void)json_object_del(s->record, "confirmed");
        s->phase = PHASE_SAVE;
}

/* All of what was listed is cancelled: it is taken off the record. */
static void removed(struct subscription *s)
{
        (void)json_array_remove(json_object_get(s->record, "former"), 0);
        s->topic = s->at = NULL;
        s->failures = 0;
        s->phase = PHASE_SAVE;
}

static void failed(struct subscription *s, const struct error *why, enum phase again, usec now)
{
        s->phase = again;
        s->offset = 0;
        s->not_before = now + MAX_OF(backoff_full_jitter(&s->random, BACKOFF_FIRST, BACKOFF_MOST, s->failures,
                                                         USEC_SEC / 2),
                                     MIN_OF(why->retry_after, USEC_HOUR));
        s->failures = MIN_OF(s->failures + 1, 12u);
        say(s, SOURCE_DISCONNECTED, why->text);
}

/* ---- SMN's API ---------------------------------------------------------- */

/* A topic lives in a region and a project of its own. */
static int set_account(struct subscription *s, struct error *err)
{
        struct source_account_config config = { .services = s->config.services,
                                                .cloud = s->config.spec->cloud,
                                                .ca_file = s->config.ca_file,
                                                .service = "smn" };
        struct str name;

        if (s->account && string_equal(s->account_topic, s->topic))
                return 0;
        s->account = source_account_free(s->account);
        free(s->account_topic);
        s->account_topic = str_dup(str_of(s->topic));
        if (!s->account_topic)
                return error_memory(err);
        if (!notification_urn(str_of(s->topic), &config.region, &config.project, &name))
                return error_set(err, ERROR_INVALID, "topicURN: \"%s\" is not " TOPIC_URN_FORMAT, s->topic);
        return source_account_new(&s->account, &config, err);
}

static void write_request(const struct subscription *s, struct buf *body)
{
        BUF_AT_END struct buf remark = BUF_INIT(1024);
        struct writer w;

        buf_printf(&remark, "Sluice %s/%s", s->config.services->trigger->namespace_,
                   s->config.services->trigger->name);
        writer_init(&w, body);
        writer_object(&w);
        writer_member_text(&w, "protocol", s->protocol);
        writer_member_text(&w, "endpoint", s->endpoint);
        writer_member_string(&w, "remark", ((struct str){ remark.p, MIN_OF(remark.n, (size_t)128) }));
        writer_object_end(&w);
}

static void write_call(struct subscription *s)
{
        struct buf *all[] = { &s->what, &s->path, &s->query, &s->body };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                buf_reset(all[i]);
                all[i]->max = 8192;
        }
        buf_text(&s->path, "/v2/{project_id}/notifications/");
        if (s->phase == PHASE_CANCEL) {
                buf_text(&s->path, "subscriptions/");
                buf_percent(&s->path, str_of(s->urn), ":-_.~");
        } else
                buf_printf(&s->path, "topics/%s/subscriptions", s->topic);
        if (s->phase == PHASE_LIST)
                buf_printf(&s->query, "limit=%d&offset=%zu", PAGE, s->offset);
        if (s->phase == PHASE_SUBSCRIBE)
                write_request(s, &s->body);
        buf_printf(&s->what,
                   s->phase == PHASE_LIST        ? "list subscriptions of %s"
                   : s->phase == PHASE_SUBSCRIBE ? "subscribe to %s"
                                                 : "cancel subscription %s",
                   s->phase == PHASE_CANCEL ? s->urn : s->topic);
}

static void start_call(struct subscription *s, usec now)
{
        struct cloud_call *c = &s->request;
        enum phase phase = s->phase;
        struct error err;

        write_call(s);
        if (s->path.failed || s->body.failed || s->query.failed || s->what.failed)
                (void)error_memory(&err);
        else if (set_account(s, &err) == 0) {
                c->request.wake = s->config.services->wake;
                c->account = source_account(s->account);
                c->service = "smn";
                c->what = s->what.p;
                c->method = phase == PHASE_LIST ? "GET" : phase == PHASE_SUBSCRIBE ? "POST" : "DELETE";
                c->path = buf_view(&s->path);
                c->query = buf_view(&s->query);
                c->body = buf_view(&s->body);
                s->call = phase;
                s->phase = PHASE_CALLING;
                cloud_start(c);
                return;
        }
        failed(s, &err, phase, now);
}

/* The page's subscription of ours; NULL: none on this page. */
static json_t *ours_on(const struct subscription *s, json_t *page)
{
        json_t *found;
        size_t i;

        json_array_foreach(json_object_get(page, "subscriptions"), i,
                           found) if (strcmp(json_cstring(found, "endpoint"), s->at) == 0) return found;
        return NULL;
}

static void list_on(struct subscription *s, usec now)
{
        struct error err;

        if (s->offset < LISTED_MOST) {
                s->offset += PAGE;
                s->phase = PHASE_LIST;
                return;
        }
        (void)error_set(&err, ERROR_PROTOCOL, "list subscriptions of %s: the list has no end", s->topic);
        failed(s, &err, PHASE_LIST, now);
}

/* A service that forgets it only later, or never, is not asked without a pause. */
static void remove_found(struct subscription *s, const json_t *found, usec now)
{
        const char *urn = json_cstring(found, "subscription_urn");
        struct error err;

        if (s->cancelled) {
                s->cancelled = false;
                (void)error_set(&err, ERROR_PROTOCOL, "cancel subscription %.300s: it is still listed", urn);
                failed(s, &err, PHASE_LIST, now);
                return;
        }
        free(s->urn);
        s->urn = str_dup(str_of(urn));
        s->phase = s->urn ? PHASE_CANCEL : PHASE_LIST;
}

static void listed(struct subscription *s, usec now)
{
        json_t *page = json_tree(buf_view(&s->request.answer), 0, JSON_VALUES_MOST, NULL),
               *found = ours_on(s, page);
        struct error err;

        if (!json_is_array(json_object_get(page, "subscriptions"))) {
                (void)error_set(&err, ERROR_PROTOCOL,
                                "list subscriptions of %s: the answer holds no subscriptions", s->topic);
                failed(s, &err, PHASE_LIST, now);
        } else if (!found && json_array_size(json_object_get(page, "subscriptions")) >= PAGE)
                list_on(s, now);
        else if (s->remove && !found)
                removed(s);
        else if (s->remove)
                remove_found(s, found, now);
        else if (found && json_integer_value(json_object_get(found, "status")) == CONFIRMED) {
                inbox_connected(s->config.inbox);
                s->connected = true;
                s->failures = 0;
                settle(s, now);
        } else {
                /* Not there, never confirmed, or cancelled: subscribing again makes SMN ask for a
                 * confirmation. */
                (void)json_object_del(s->record, "confirmed");
                inbox_disconnected(s->config.inbox);
                s->connected = false;
                s->phase = PHASE_SUBSCRIBE;
        }
        json_decref(page);
}

static void subscribed(struct subscription *s, usec now)
{
        char text[256];

        s->failures = 0;
        if (s->connected) { /* the confirmation was faster than the answer */
                settle(s, now);
                return;
        }
        (void)snprintf(text, sizeof(text),
                       "subscribed, waiting for the subscription's confirmation at %.180s", s->endpoint);
        say(s, SOURCE_CONNECTING, text);
        log_info_for(s->config.services->log, "subscribed", LOG_S("topic", s->topic),
                     LOG_S("endpoint", s->endpoint));
        rest(s, now + MIN_OF(ASK_AGAIN_FIRST << s->asked, ASK_AGAIN_MOST));
        s->asked = MIN_OF(s->asked + 1, 10u);
}

static void called(struct subscription *s, usec now)
{
        const struct request *r = &s->request.request;

        if (request_failed(r)) {
                if (s->request.status == 404 && s->call == PHASE_LIST && s->remove)
                        removed(s); /* with its topic */
                else
                        failed(s, &r->error, PHASE_LIST, now);
                return;
        }
        if (s->call == PHASE_LIST)
                listed(s, now);
        else if (s->call == PHASE_SUBSCRIBE)
                subscribed(s, now);
        else {
                log_info_for(s->config.services->log, "a subscription is cancelled",
                             LOG_S("subscription", s->urn));
                s->cancelled = true;
                s->offset = 0;
                s->phase = PHASE_LIST; /* until none is left */
        }
}

/* ---- the store ---------------------------------------------------------- */

static void loaded(struct subscription *s, usec now)
{
        const struct store_request *r = &s->stored;

        if (request_failed(&r->request)) {
                failed(s, &r->request.error, PHASE_LOAD, now);
                return;
        }
        json_decref(s->record);
        s->record = r->found ? json_tree(buf_view(&r->value), 0, JSON_VALUES_MOST, NULL) : NULL;
        if (!json_is_object(s->record)) {
                json_decref(s->record);
                s->record = must(json_object());
        }
        say_nothing(s);
        if (s->ending)
                turn_to_the_end(s);
        else if (!is_this(s, s->record)) {
                renew(s);
                s->phase = PHASE_SAVE;
        } else {
                if (json_is_true(json_object_get(s->record, "confirmed"))) {
                        inbox_connected(s->config.inbox);
                        s->connected = true;
                }
                rest(s, s->managed ? now : USEC_NEVER);
        }
}

static void saved(struct subscription *s, usec now)
{
        const struct request *r = &s->stored.request;

        if (request_failed(r)) {
                /* Whoever else writes it is of the same Trigger: it is read again. */
                failed(s, &r->error, r->error.kind == ERROR_CONFLICT && !s->ending ? PHASE_LOAD : PHASE_SAVE,
                       now);
                return;
        }
        s->failures = 0;
        say_nothing(s);
        rest(s, s->managed || s->ending || s->connected ? now : USEC_NEVER);
}

/* ---- keys that change --------------------------------------------------- */

/* Whoever has mended them does not wait for the end of a pause, which may be minutes. */
static void look_at_keys(struct subscription *s)
{
        if (s->account && source_account_keys_changed(s->account)) {
                s->not_before = 0;
                s->failures = 0;
        }
}

/* ---- its turn ----------------------------------------------------------- */

void subscription_connected(struct subscription *s)
{
        if (s->ending || s->passed_on)
                return;
        s->connected = true;
        if (s->phase == PHASE_REST && !json_is_true(json_object_get(s->record, "confirmed")))
                s->look_at = 0;
}

static bool is_busy(const struct subscription *s)
{
        return s->phase == PHASE_LOADING || s->phase == PHASE_SAVING || s->phase == PHASE_CALLING;
}

static void link_to(struct subscription *s, struct subscription *after)
{
        s->after = after;
        if (after)
                after->before = s;
}

/* Its successor may begin. */
static void let_go(struct subscription *s)
{
        struct subscription *after = TAKE(s->after);

        if (!after)
                return;
        after->before = NULL;
        loop_ready(after->config.services->loop, after->config.services->wake);
}

void subscription_pass_on(struct subscription *s, struct subscription *successor)
{
        s->passed_on = true;
        if (s->before)
                link_to(TAKE(s->before), successor);
        else if (is_busy(s))
                link_to(s, successor);
}

/* Whatever came of the last call, the successor reads the record and looks. */
static void finish_passed_on(struct subscription *s)
{
        if (request_take(&s->stored.request) || request_take(&s->request.request))
                s->phase = PHASE_REST;
        if (!is_busy(s))
                let_go(s);
}

/* What there is to do at rest. */
static void look(struct subscription *s, usec now)
{
        bool known = json_is_true(json_object_get(s->record, "confirmed"));

        if (s->ending)
                go_on_removing(s);
        else if (s->connected && !known)
                settle(s, now);
        else if (!s->managed)
                rest(s, USEC_NEVER);
        else if (s->connected && list_former(s))
                return;
        else
                list_own(s);
}

void subscription_turn(struct subscription *s, usec now)
{
        const struct store *store = &s->config.services->store;

        look_at_keys(s);
        if (s->passed_on)
                finish_passed_on(s);
        if (s->passed_on || s->before)
                return;
        if (request_take(&s->stored.request)) {
                if (s->phase == PHASE_LOADING)
                        loaded(s, now);
                else
                        saved(s, now);
        }
        if (request_take(&s->request.request))
                called(s, now);
        if (now < s->not_before)
                return;
        for (enum phase before = PHASE_REMOVED; s->phase != before;) {
                before = s->phase;
                switch (s->phase) {
                case PHASE_LOAD:
                        s->phase = PHASE_LOADING;
                        store_get(store, &s->stored, STR(WORKER_CHECKPOINT_SUBSCRIPTION));
                        break;
                case PHASE_SAVE: {
                        FREE_AT_END char *text = json_dumps(s->record, JSON_COMPACT);

                        if (!text)
                                abort();
                        s->phase = PHASE_SAVING;
                        store_put(store, &s->stored, STR(WORKER_CHECKPOINT_SUBSCRIPTION), str_of(text));
                        break;
                }
                case PHASE_REST:
                        if (now >= s->look_at)
                                look(s, now);
                        break;
                case PHASE_LIST:
                case PHASE_SUBSCRIBE:
                case PHASE_CANCEL:
                        start_call(s, now);
                        if (now < s->not_before)
                                return;
                        break;
                case PHASE_LOADING:
                case PHASE_SAVING:
                case PHASE_CALLING:
                case PHASE_REMOVED: break;
                }
        }
}

usec subscription_deadline(const struct subscription *s)
{
        if (s->passed_on || s->before)
                return USEC_NEVER;
        switch (s->phase) {
        case PHASE_LOADING:
        case PHASE_SAVING:
        case PHASE_CALLING:
        case PHASE_REMOVED: return USEC_NEVER;
        case PHASE_REST: return s->look_at == USEC_NEVER ? USEC_NEVER : MAX_OF(s->look_at, s->not_before);
        case PHASE_LOAD:
        case PHASE_SAVE:
        case PHASE_LIST:
        case PHASE_SUBSCRIBE:
        case PHASE_CANCEL: break;
        }
        return s->not_before;
}

/* ---- life --------------------------------------------------------------- */

void subscription_endpoint(const struct trigger *t, const struct smn_spec *spec, struct buf *out)
{
        if (spec->subscription->endpoint) {
                buf_text(out, spec->subscription->endpoint);
                return;
        }
        buf_printf(out, "%s://%s", spec->expose->tls_secret_name ? "https" : "http", spec->expose->host);
        notified_path(t, out);
}

static int set_endpoint(struct subscription *s, struct error *err)
{
        BUF_AT_END struct buf endpoint = BUF_INIT(4096);

        subscription_endpoint(s->config.services->trigger, s->config.spec, &endpoint);
        s->endpoint = buf_take(&endpoint);
        s->protocol = str_dup(s->endpoint && str_starts(str_of(s->endpoint), STR("https:")) ? STR("https")
                                                                                            : STR("http"));
        return s->endpoint && s->protocol ? 0 : error_memory(err);
}

int subscription_new(struct subscription **out, const struct subscription_config *config, struct error *err)
{
        struct subscription *s = calloc(1, sizeof(*s));

        if (!s)
                return error_memory(err);
        s->config = *config;
        s->stored.request.wake = config->services->wake;
        s->managed = config->spec->subscription && config->spec->subscription->manage;
        s->ending = config->services->ending;
        random_init(&s->random, random_seed());
        if (s->managed && set_endpoint(s, err) < 0)
                return (void)subscription_free(s), -1;
        s->record = must(json_object());
        if (!config->services->store.ops) /* nothing is kept */
                rest(s, USEC_NEVER);
        *out = s;
        return 0;
}

struct subscription *subscription_free(struct subscription *s)
{
        if (!s)
                return NULL;
        let_go(s);
        if (s->before)
                s->before->after = NULL;
        cloud_call_done(&s->request);
        (void)source_account_free(s->account);
        free(s->account_topic);
        buf_done(&s->what);
        buf_done(&s->path);
        buf_done(&s->query);
        buf_done(&s->body);
        store_release(&s->config.services->store, &s->stored);
        json_decref(s->record);
        free(s->endpoint);
        free(s->protocol);
        free(s->urn);
        free(s);
        return NULL;
}
