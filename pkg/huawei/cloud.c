#include "huawei/cloud.h"

#include <assert.h>
#include <stdio.h>
#include <time.h>

#include "log/log.h"
#include "huawei/inside.h"
#include "huawei/sign.h"

enum { HEADERS_MOST = HTTP_HEADROOM - 1024, MESSAGE_MOST = 8 << 20 };
/* Services accept a signature whose date is off by up to 15 minutes. */
static const usec TIMEOUT = 10 * USEC_SEC, SKEW_LEAST = 2 * USEC_MINUTE, SKEW_NONE = USEC_MINUTE;

/* Calls a second, and burst. LTS documents 1,000 reads a minute for an account; the others document no limit,
 * and these keep us from flooding them. */
static const struct {
        const char *service;
        int64_t a_second, burst;
} rates[] = {
        ROW("lts", 15, 60),      ROW("cts", 20, 40), ROW("ces", 20, 40), ROW("dms", 3000, 3000),
        ROW("dis", 3000, 3000),  ROW("smn", 50, 50), ROW("iam", 20, 40), ROW("sts", 20, 40),
        ROW("metadata", 20, 40), ROW("pod", 20, 40),
};

/* ---- queues ------------------------------------------------------------- */

static struct limit *limit_of(struct cloud *c, const char *service)
{
        for (size_t i = 0; i < c->limits_n; i++)
                if (strcmp(c->limits[i].service, service) == 0)
                        return &c->limits[i];
        return &c->limits[0];
}

static struct cloud *cloud_of(const struct cloud_call *call)
{
        assert(call->account || call->raw);
        return call->account ? call->account->cloud : CONTAINER_OF(call->raw, struct keyring, request)->cloud;
}

static void line_up(struct cloud_call *call)
{
        struct cloud *c = cloud_of(call);

        list_append(&limit_of(c, call->service)->waiting, &call->node);
        loop_ready(c->config.loop, &c->task);
}

void cloud_call_resume(struct list *waiting)
{
        for (struct cloud_call *call; (call = LIST_TAKE(waiting, struct cloud_call, node));)
                line_up(call);
}

/* ---- the end of a call -------------------------------------------------- */

static void forget_shown(struct cloud_call *call)
{
        if (call->shown.p)
                explicit_bzero(call->shown.p, call->shown.cap);
        buf_reset(&call->shown);
}

void cloud_call_finish(struct cloud_call *call, usec now)
{
        struct cloud *c = cloud_of(call);

        list_remove(&call->node);
        heap_remove(&c->deadlines, &call->deadline);
        if (call->message.p) /* it may contain a token */
                explicit_bzero(call->message.p, call->message.n);
        http_release(&c->http, &call->http);
        forget_shown(call);
        buf_done(&call->message); /* most accounts have no call in flight most of the time */
        request_end(&call->request, c->config.loop);
        if (call->own)
                call->own(call, now);
}

void cloud_call_fail(struct cloud_call *call, const struct error *why, usec now)
{
        call->request.error = *why;
        cloud_call_finish(call, now);
}

/* Errors about keys explain themselves; all others are prefixed with what was called. */
static void fail_called(struct cloud_call *call, struct error *why, usec now)
{
        if (call->what)
                (void)error_wrap(why, "%s", call->what);
        cloud_call_fail(call, why, now);
}

/* ---- sending ------------------------------------------------------------ */

static struct str authority_of(const char *url)
{
        const char *after = strstr(url, "://");

        return str_of(after ? after + 3 : url);
}

static void write_path(const struct cloud_call *call, struct str project, struct buf *out)
{
        struct str rest = call->raw ? call->raw->path : call->path, mark = STR("{project_id}");
        const char *at;

        while (!call->raw && (at = memmem(rest.p, rest.n, mark.p, mark.n))) {
                buf_add(out, rest.p, (size_t)(at - rest.p));
                buf_str(out, project);
                rest = (struct str){ at + mark.n, rest.n - (size_t)(at - rest.p) - mark.n };
        }
        buf_str(out, rest);
}

struct outgoing {
        struct buf path, target, headers;
        struct cloud_keys keys;
        struct str project;
        bool is_signed;
};

static void write_headers(struct cloud *c, const struct cloud_call *call, struct outgoing *o)
{
        struct sign_header signed_headers[5];
        struct sign_request sign = { .method = str_of(call->method),
                                     .path = buf_view(&o->path),
                                     .query = call->query,
                                     .headers = signed_headers,
                                     .body = call->body };
        char date[17];

        if (call->raw)
                buf_str(&o->headers, call->raw->headers);
        if (!o->is_signed)
                return;
        sign_time(cloud_wall(c), date);
        signed_headers[sign.headers_n++] = (struct sign_header){ STR("Content-Type"),
                                                                 STR("application/json") };
        signed_headers[sign.headers_n++] = (struct sign_header){
                STR("Host"), authority_of(call->place->urls[call->place->at])
        };
        if (o->project.n)
                signed_headers[sign.headers_n++] = (struct sign_header){ STR("X-Project-Id"), o->project };
        signed_headers[sign.headers_n++] = (struct sign_header){ STR("X-Sdk-Date"), str_of(date) };
        if (o->keys.token.n)
                signed_headers[sign.headers_n++] = (struct sign_header){ STR("X-Security-Token"),
                                                                         o->keys.token };
        sign_headers(&sign, o->keys.access, o->keys.secret, &o->headers);
}

static void note_shown(struct cloud_call *call, const struct outgoing *o)
{
        const struct str all[] = { o->keys.access, o->keys.token,
                                   call->raw ? call->raw->shown : (struct str){ 0 } };

        forget_shown(call);
        call->shown.max = 3 * HEADERS_MOST;
        for (size_t i = 0; i < COUNT_OF(all); i++) {
                buf_str(&call->shown, all[i]);
                buf_char(&call->shown, '\n');
        }
}

static int put_on_wire(struct cloud *c, struct cloud_call *call, struct outgoing *o, struct error *err)
{
        struct http_request *q = &call->http;

        write_path(call, o->project, &o->path);
        write_headers(c, call, o);
        buf_str(&o->target, buf_view(&o->path));
        if (call->query.n)
                buf_printf(&o->target, "?" STR_FMT, STR_ARG(call->query));
        /* Small, since many calls wait for a long time, as in long polling. */
        q->headroom = HTTP_HEADROOM_LEAST + o->target.n + o->headers.n;
        call->message.max = q->headroom + MESSAGE_MOST;
        buf_reset(&call->message);
        if (buf_reserve(&call->message, q->headroom + call->body.n))
                call->message.n = q->headroom;
        buf_str(&call->message, call->body);
        note_shown(call, o);
        call->keys = o->keys.version;
        if (o->path.failed || o->target.failed || o->headers.failed || call->message.failed ||
            call->shown.failed)
                return error_memory(err);
        q->request.wake = &c->task;
        q->request.done = &c->answered;
        q->target = call->place->targets[call->place->at];
        q->method = call->method;
        q->message = &call->message;
        q->path = buf_view(&o->target);
        q->headers = buf_view(&o->headers);
        return http_submit(&c->http, q, err);
}

/* Drops the response to an earlier attempt: it is not the call's result. */
static void forget_answer(struct cloud_call *call)
{
        call->refusal = (struct cloud_error){ 0 };
        call->status = 0;
}

/* Gets the keys of a call that is signed. false: it waits for them, or has failed. */
static bool find_keys(struct cloud *c, struct cloud_call *call, struct outgoing *o, usec now)
{
        struct error err;

        if (call->raw) {
                o->is_signed = call->raw->is_signed;
                o->keys = call->raw->keys;
                return true;
        }
        if (call != call->account->lookup && !account_ready(call->account, call, now))
                return false;
        o->is_signed = true;
        o->project = str_of(call->account->project);
        if (credentials_keys(call->account->keyring->credentials, now, cloud_wall(c), &o->keys, &err) == 0)
                return true;
        if (err.kind == ERROR_CANCELLED) {
                list_append(&call->account->keyring->waiting, &call->node);
                keyring_due(call->account->keyring, now);
        } else {
                forget_answer(call);
                cloud_call_fail(call, &err, now);
        }
        return false;
}

/* true: it was sent, and counts against the rate limit. */
static bool try_to_send(struct cloud *c, struct cloud_call *call, usec now)
{
        struct outgoing o = { .path = BUF_INIT(8192),
                              .target = BUF_INIT(16384),
                              .headers = BUF_INIT(HEADERS_MOST) };
        struct error err;
        int r = -1;

        if (!find_keys(c, call, &o, now))
                return false;
        if (call->raw)
                call->place = CONTAINER_OF(call->raw, struct keyring, request)->place;
        else
                r = place_of(call->account, call->service, &call->place, &err);
        forget_answer(call);
        if (call->raw || r == 0)
                r = place_open(c, call->place, &err);
        if (r == 0)
                r = put_on_wire(c, call, &o, &err);
        if (o.headers.p)
                explicit_bzero(o.headers.p, o.headers.n);
        buf_done(&o.headers);
        buf_done(&o.target);
        buf_done(&o.path);
        if (r < 0)
                fail_called(call, &err, now);
        return r == 0;
}

static void send_waiting(struct cloud *c, struct limit *l, usec now)
{
        while (l->waiting.n && bucket_gives(&l->rate, l->paid_until, now)) {
                struct cloud_call *call = LIST_TAKE(&l->waiting, struct cloud_call, node);

                if (try_to_send(c, call, now))
                        l->paid_until = bucket_take(&l->rate, l->paid_until, 1, now);
        }
}

/* ---- answers ------------------------------------------------------------ */

/* "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 9110, 5.6.7). */
static bool http_date(struct str text, usec *out)
{
        struct tm tm = { 0 };
        char copy[40];
        const char *end;

        if (!text.n || text.n >= sizeof(copy))
                return false;
        memcpy(copy, text.p, text.n);
        copy[text.n] = 0;
        end = strptime(copy, "%a, %d %b %Y %H:%M:%S GMT", &tm);
        if (!end || *end)
                return false;
        *out = (usec)timegm(&tm) * USEC_SEC;
        return true;
}

static struct str header_of(struct str head, const char *name)
{
        while (head.n) {
                struct str key = str_cut(&head, 0), value = str_cut(&head, 0);

                if (str_equal_nocase(key, str_of(name)))
                        return value;
        }
        return (struct str){ 0 };
}

/* Judges by the answer's Date whether the call was refused because the local clock is wrong. */
static bool correct_clock(struct cloud *c, const struct http_request *done)
{
        usec date, local = clock_wall(c->config.clock), skew;

        if (!http_date(header_of(done->head, "Date"), &date))
                return false;
        skew = (date - local) / USEC_SEC * USEC_SEC; /* Date has whole seconds */
        if (llabs(skew) < SKEW_NONE)
                skew = 0;
        if (llabs(skew - c->skew) < SKEW_LEAST)
                return false;
        c->skew = skew;
        LIST_EACH (struct keyring, k, &c->keyrings, node)
                keyring_plan(k, clock_monotonic(c->config.clock)); /* keys expire by the cloud's time */
        if (skew)
                log_warn("the local clock differs from the cloud's, whose time is used for signatures",
                         LOG_D("by", skew));
        else
                log_info("the local clock agrees with the cloud's again", LOG_D("by", skew));
        return true;
}

/* How often one call is repeated with keys from files. Up to three files may be replaced one after the other;
 * files that change more often than that would make the call repeat without a pause. */
enum { RENEWALS_MOST = 3 };

/* Fixes what made the service refuse the call. true: send it again. Each kind of fix is tried once in a call,
 * keys from files up to RENEWALS_MOST times. */
static bool put_right(struct cloud *c, struct cloud_call *call, const struct http_request *done, usec now)
{
        if (call->refusal.verdict != CLOUD_RENEW_CREDENTIALS || !(call->raw ? call->raw->is_signed : true))
                return false;
        if (!call->corrected && correct_clock(c, done)) {
                call->corrected = true;
                return true;
        }
        if (!call->raw && call->renewals < (call->account->keyring->temporary ? 1 : RENEWALS_MOST) &&
            credentials_refused(call->account->keyring->credentials, call->keys, now)) {
                keyring_due(call->account->keyring, now);
                call->renewals++;
                return true;
        }
        return false;
}

static void fill(struct cloud_call *call, const struct http_request *done)
{
        call->answer.max = CLOUD_ANSWER_MOST + 1;
        buf_reset(&call->answer);
        if (done->body_cut)
                (void)error_set(&call->request.error, ERROR_PROTOCOL,
                                "%s: %d, and an answer of more than %d MiB", call->what ? call->what : "call",
                                done->status, CLOUD_ANSWER_MOST >> 20);
        else
                buf_str(&call->answer, done->body);
        if (call->answer.failed) {
                buf_done(&call->answer);
                (void)error_memory(&call->request.error);
        }
}

static void on_answer(struct cloud *c, struct cloud_call *call, const struct http_request *done, usec now)
{
        call->status = done->status;
        refusal_read(&call->refusal, call->service, done->status, done->body, done->retry_after);
        for (struct str shown = buf_view(&call->shown); shown.n;)
                refusal_hide(&call->refusal, str_cut(&shown, '\n'));
        /* The keys' expiry times come from the same clock as the Date. */
        if (call->raw && (strcmp(call->service, "iam") == 0 || strcmp(call->service, "sts") == 0) &&
            call->refusal.verdict == CLOUD_DONE)
                (void)correct_clock(c, done);
        if (put_right(c, call, done, now)) {
                http_release(&c->http, &call->http);
                line_up(call);
                return;
        }
        fill(call, done);
        if (call->refusal.verdict != CLOUD_DONE)
                (void)refusal_error(&call->refusal, call->what ? call->what : "call", &call->request.error);
        cloud_call_finish(call, now);
}

/* Tries the other host if this one can't be the right one, and stays with it; after the last host comes the
 * first. */
static bool next_host(struct cloud_call *call, const struct error *why)
{
        struct cloud_place *p = call->place;

        if (!why->elsewhere || !p->urls[1])
                return false;
        call->hosts_tried++;
        p->at = p->at ? 0 : 1;
        return call->hosts_tried < 2;
}

static void on_done(struct cloud *c, struct cloud_call *call, usec now)
{
        const struct http_request *done = &call->http;
        const char *why = strstr(done->request.error.text, ": ");
        struct error err;

        if (!request_failed(&done->request)) {
                on_answer(c, call, done, now);
                return;
        }
        if (next_host(call, &done->request.error)) {
                line_up(call);
                return;
        }
        /* The client's error is "POST URL: why": leaves out the URL, which is long and says no more than
         * what. */
        err = done->request.error;
        if (call->what && str_starts(str_of(err.text), str_of(call->method)) && why)
                (void)error_set(&err, done->request.error.kind, "%s", why + 2);
        err.retry = true;
        fail_called(call, &err, now);
}

/* ---- its turn ----------------------------------------------------------- */

static void time_out(struct cloud *c, usec now)
{
        struct heap_node *n;

        while ((n = heap_first(&c->deadlines)) && n->at <= now) {
                struct cloud_call *call = CONTAINER_OF(n, struct cloud_call, deadline);
                struct error err;

                heap_remove(&c->deadlines, n);
                if (call->refusal.verdict != CLOUD_DONE) { /* it was refused, and waits for new keys */
                        (void)refusal_error(&call->refusal, call->what ? call->what : "call", &err);
                        cloud_call_fail(call, &err, now);
                        continue;
                }
                (void)error_set(&err, ERROR_TIMEOUT, "%s within %lld ms",
                                request_idle(&call->http.request) ? "it could not be sent" : "no answer",
                                (long long)((call->timeout ? call->timeout : TIMEOUT) / USEC_MSEC));
                fail_called(call, &err, now);
        }
}

static void renew_keys(struct cloud *c, usec now)
{
        struct heap_node *n;

        while ((n = heap_first(&c->renewals)) && n->at <= now) {
                struct keyring *k = CONTAINER_OF(n, struct keyring, renewal);

                keyring_turn(k, now);
                /* at most once in a turn, whatever the result */
                keyring_plan(k, MAX_OF(credentials_deadline(k->credentials, now, cloud_wall(c)), now + 1));
        }
}

static void turn(struct task *task, usec now)
{
        struct cloud *c = CONTAINER_OF(task, struct cloud, task);
        const struct heap_node *first;
        usec at = USEC_NEVER;

        for (struct request *r; (r = request_next(&c->answered));) {
                struct http_request *q = CONTAINER_OF(r, struct http_request, request);

                on_done(c, CONTAINER_OF(q, struct cloud_call, http), now);
        }
        time_out(c, now);
        renew_keys(c, now);
        for (size_t i = 0; i < c->limits_n; i++)
                send_waiting(c, &c->limits[i], now);
        for (size_t i = 0; i < c->limits_n; i++)
                if (c->limits[i].waiting.n)
                        at = MIN_OF(at, bucket_at(&c->limits[i].rate, c->limits[i].paid_until, now));
        if ((first = heap_first(&c->renewals)))
                at = MIN_OF(at, first->at);
        if ((first = heap_first(&c->deadlines)))
                at = MIN_OF(at, first->at);
        loop_arm(c->config.loop, &c->task, at);
}

void cloud_call_begin(struct cloud *c, struct cloud_call *call)
{
        usec now = clock_monotonic(c->config.clock);

        request_begin(&call->request);
        forget_answer(call);
        call->hosts_tried = 0;
        call->renewals = 0;
        call->corrected = false;
        if (!heap_insert(&c->deadlines, &call->deadline, now + (call->timeout ? call->timeout : TIMEOUT))) {
                struct error err;

                (void)error_memory(&err);
                cloud_call_fail(call, &err, now);
                return;
        }
        line_up(call);
}

void cloud_start(struct cloud_call *call) { cloud_call_begin(call->account->cloud, call); }

void cloud_cancel(struct cloud_call *call)
{
        if (call->request.state == REQUEST_BUSY) {
                struct cloud *c = cloud_of(call);

                list_remove(&call->node);
                http_release(&c->http, &call->http);
                heap_remove(&c->deadlines, &call->deadline);
        }
        request_drop(&call->request);
}

void cloud_call_done(struct cloud_call *call)
{
        cloud_cancel(call);
        buf_done(&call->message);
        forget_shown(call);
        buf_done(&call->shown);
        buf_done(&call->answer);
}

/* ---- life --------------------------------------------------------------- */

int cloud_new(struct cloud **out, const struct cloud_config *config, struct error *err)
{
        struct cloud *c = calloc(1, sizeof(*c));

        if (!c)
                return error_memory(err);
        c->config = *config;
        c->task.turn = turn;
        random_init(&c->random, config->seed);
        for (size_t i = 0; i < COUNT_OF(rates); i++)
                c->limits[c->limits_n++] = (struct limit){ .service = rates[i].service,
                                                           .rate = bucket_rate(rates[i].a_second, USEC_SEC,
                                                                               rates[i].burst),
                                                           .paid_until = BUCKET_FULL };
        *out = c;
        return 0;
}

void cloud_use(struct cloud *c, const struct http *http, const struct http_peers *peers)
{
        c->http = *http;
        c->peers = *peers;
}

usec cloud_skew(const struct cloud *c) { return c->skew; }

struct cloud *cloud_free(struct cloud *c)
{
        if (!c)
                return NULL;
        loop_forget(c->config.loop, &c->task);
        heap_done(&c->deadlines);
        heap_done(&c->renewals);
        free(c);
        return NULL;
}
