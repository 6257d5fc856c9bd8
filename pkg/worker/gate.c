#include "worker/gate.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/resource.h>

#include "log/log.h"
#include "base/bucket.h"
#include "base/list.h"
#include "base/sample.h"
#define HASH_NONFATAL_OOM 1 /* what finds no memory is not in its table: hh.tbl is NULL */
#include "base/table.h"
#include "base/uri.h"
#include "worker/passes.h"
#include "worker/routes.h"

/* The limits of the API Gateway: 32 KiB for the URI and for a header, 128 KiB for all headers, 12 MB for a
 * body. */
enum {
        HEAD_MOST = 128 * 1024,
        TARGET_MOST = 32 * 1024,
        HEADER_MOST = 32 * 1024,
        BODY_MOST = 12 << 20,
        CONNECTIONS_MOST = 20000,
        DESCRIPTORS_KEPT = 1024,
        EVENTS_AT_ONCE = 64
};
/* Buffers up to this size are kept for the next request. Room for a head and all that is written beside a
 * body. */
/* Longer than load balancers keep idle connections (mostly 60 s, at most 10 minutes), so that they close
 * first: a request that arrives just as we close fails. */
static const usec IDLE_TIMEOUT = 650 * USEC_SEC;
enum { KEPT_MOST = 256 * 1024, ROOM_BESIDE = 4 * HEAD_MOST };
/* Limit for the bytes of requests, their events and answers in memory: half of the process's memory limit,
 * and no more than this. */
static const size_t MEMORY_MOST = (size_t)256 << 20;

/* ---- the host ----------------------------------------------------------- */

struct call {                  /* a request in progress */
        struct list_node node; /* in one of the gate's lists: timed, or others */
        struct gate *gate;
        struct http_call *http; /* NULL: the caller has disconnected */
        uint64_t id;
        bool later; /* the source decides about it later or holds it: it is in put_off */
        bool timed; /* it has a deadline */
        /* the source holds it: it is counted as held, and takes no place of maxInFlight yet */
        bool undecided;
        bool offered;            /* its records were counted */
        struct sending *sending; /* NULL: it takes no place of maxInFlight */
        /* bytes that the source may keep for it, beside the request itself */
        size_t kept;
        struct record **records, *one; /* one: storage for a single record */
        size_t n;
        usec deadline;
        UT_hash_handle hh; /* of put_off */
};
struct gate_host {
        struct loop *loop;
        struct http_server *server;
        struct routes routes; /* of its gates */
        /* while a request is accepted: the caller's address, the normalized path */
        struct buf client, path;
        struct random random;
        size_t memory_most; /* bytes of requests and events */
        struct log_sample log;
        bool draining;
};

struct gate {
        struct feed feed;
        const struct push_ops *ops; /* of the source */
        struct route route;         /* of the host's */
        /* in order of their deadlines, since all calls of a Trigger have the same time-out */
        struct list timed, untimed;
        struct call *put_off; /* by id */
        uint64_t next_id;
        uint32_t undecided_n;
        bool limited; /* rateLimit */
        struct bucket_rate rate;
        int64_t paid_until; /* of the rate */
        struct record **scratch;
        struct buf document;
        struct push_reply reply;
        struct push_reply starved; /* a reply made in advance, for when memory runs out */
        struct delivery_stats stats;
        uint32_t most; /* maxInFlight */
        bool stopping, source_stopped;
        usec give_up_at;
};

static struct str header_of(const struct push_request *q, const char *name)
{
        return http_message_header(q->head, str_of(name));
}

static void each_header(const struct push_request *q, void (*each)(void *, struct str, struct str),
                        void *cookie)
{
        struct str rest = http_head(q->head), name, value;

        while (http_head_next(&rest, &name, &value))
                each(cookie, name, value);
}

static void handle(void *cookie, struct http_call *http);
static void on_gone(void *cookie, struct http_call *http);

static void make_id(struct gate_host *h, char id[33])
{
        const uint64_t random[2] = { random_next(&h->random), random_next(&h->random) };

        hex_text((const unsigned char *)random, sizeof(random), id);
}

/* log: of the Trigger that the request was for; NULL: of none. */
static void log_refusal(struct gate_host *h, const struct log_scope *log, struct str id, int status,
                        const char *reason)
{
        uint64_t unsaid;
        char text[40];

        if (!sample_take(&h->log, loop_now(h->loop), &unsaid))
                return;
        (void)str_copy(text, sizeof(text), id);
        log_info_for(log, "request", LOG_S("request", text), LOG_I("status", status), LOG_S("reason", reason),
                     LOG_I("unsaid", unsaid));
}

/* Input that is no HTTP request. */
static void on_refused(void *cookie, struct http_refused *r)
{
        struct gate_host *h = cookie;
        struct push_reply reply = { .headers = *r->headers, .body = *r->body };
        bool head = r->kind == HTTP_HEADER_TOO_LARGE || r->kind == HTTP_HEAD_TOO_LARGE;
        enum push_refusal why = head                         ? PUSH_HEAD_TOO_LONG
                                : r->kind == HTTP_OVERLOADED ? PUSH_OVERLOADED
                                                             : PUSH_NOT_HTTP;
        char id[33];

        make_id(h, id);
        buf_reset(&reply.body);
        push_refuse(
                &(struct push_refused){ .why = why, .status = r->status, .text = r->why, .id = str_of(id) },
                &reply);
        log_refusal(h, NULL, str_of(id), reply.status, r->why);
        r->status = reply.status;
        r->content_type = (struct str){ 0 };
        *r->headers = reply.headers;
        *r->body = reply.body;
}

/* As many connections as there are descriptors for: further callers get 503 instead of waiting to be
 * accepted. */
static uint32_t connections_most(void)
{
        struct rlimit files;
        rlim_t most;

        if (getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_cur >= CONNECTIONS_MOST + DESCRIPTORS_KEPT)
                return CONNECTIONS_MOST;
        most = files.rlim_cur > 2 * DESCRIPTORS_KEPT ? files.rlim_cur - DESCRIPTORS_KEPT : files.rlim_cur / 2;
        if (most < CONNECTIONS_MOST / 2)
                log_info("fewer callers than usual can be connected at once: the limit of open files (ulimit "
                         "-Hn) is low",
                         LOG_I("connections", most), LOG_I("limit", files.rlim_cur));
        return (uint32_t)most;
}

static bool read_limit(const char *file, size_t *most)
{
        BUF_AT_END struct buf limit = BUF_INIT(4096);
        int64_t n;

        if (buf_read_file(&limit, file, NULL) < 0 || !str_to_int64(str_trim(buf_view(&limit)), &n) || n <= 0)
                return false;
        *most = MIN_OF(*most, (size_t)n);
        return true;
}

/* The lowest limit of a control group and its parents, as far as they are visible: a container sees its own
 * group as the root. */
static void read_limits(const char *root, struct str group, const char *file, size_t *most)
{
        BUF_AT_END struct buf path = BUF_INIT(65536);

        for (;;) {
                buf_reset(&path);
                buf_printf(&path, "%s" STR_FMT "/%s", root, STR_ARG(group), file);
                if (!path.failed)
                        (void)read_limit(path.p, most);
                if (!group.n)
                        return;
                while (group.n && group.p[--group.n] != '/')
                        ;
        }
}

/* Reads a line of /proc/self/cgroup: "0::/group" in version 2, "5:memory:/group" in version 1, where several
 * controllers may share a line. */
static void read_group(struct str line, size_t *most)
{
        struct str number = str_cut(&line, ':'), controllers = str_cut(&line, ':');

        if (str_is(number, "0") && !controllers.n) {
                read_limits("/sys/fs/cgroup", line, "memory.max", most);
                return;
        }
        while (controllers.n)
                if (str_is(str_cut(&controllers, ','), "memory"))
                        read_limits("/sys/fs/cgroup/memory", line, "memory.limit_in_bytes", most);
}

/* Half of the control group's memory limit, less what other processes under it may take. */
static size_t memory_most(size_t beside)
{
        BUF_AT_END struct buf groups = BUF_INIT(65536);
        size_t most = 2 * MEMORY_MOST + beside;
        struct str rest;

        if (buf_read_file(&groups, "/proc/self/cgroup", NULL) < 0)
                return MEMORY_MOST;
        for (rest = buf_view(&groups); rest.n;)
                read_group(str_cut(&rest, '\n'), &most);
        return (most - MIN_OF(beside, most / 2)) / 2;
}

int gate_host_new(struct gate_host **out, struct loop *loop, const struct gate_host_config *c,
                  struct error *err)
{
        struct gate_host *h = calloc(1, sizeof(*h));
        const size_t most = c->memory_most ? c->memory_most : memory_most(c->memory_beside);
        const struct http_server_tls tls = { .cert = c->cert,
                                             .key = c->key,
                                             .client_ca = c->client_ca,
                                             .client_required = c->client_ca != NULL };
        struct http_server_config config = { .address = c->address,
                                             .head_max = HEAD_MOST,
                                             .target_max = TARGET_MOST,
                                             .header_max = HEADER_MOST,
                                             .body_max = BODY_MOST,
                                             .max_connections = connections_most(),
                                             .idle_timeout = IDLE_TIMEOUT,
                                             .buffered_max = most / 4 * 3,
                                             .head_timeout = 20 * USEC_SEC,
                                             .body_grace = 20 * USEC_SEC,
                                             .tls = c->cert ? &tls : NULL,
                                             .trusted = c->trusted,
                                             .trusted_n = c->trusted_n,
                                             .handle = handle,
                                             .gone = on_gone,
                                             .refused = on_refused,
                                             .cookie = h,
                                             .rested = c->rested };

        if (!h)
                return error_memory(err);
        h->loop = loop;
        random_init(&h->random, random_seed());
        h->client.max = 256;
        h->path.max = 4 * TARGET_MOST;
        h->memory_most = most;
        if (c->http)
                http_client_limit_answers(c->http, most / 4);
        if (http_server_new(&h->server, loop, &config, err) < 0) {
                free(h);
                return -1;
        }
        *out = h;
        return 0;
}

uint16_t gate_host_port(const struct gate_host *h) { return http_server_port(h->server); }

void gate_host_drain(struct gate_host *h, usec linger)
{
        h->draining = true;
        if (linger > 0)
                http_server_linger(h->server, linger);
        else
                http_server_drain(h->server);
}

size_t gate_host_held(const struct gate_host *h) { return http_server_buffered(h->server); }
bool gate_host_busy(const struct gate_host *h) { return http_server_busy(h->server); }
usec gate_host_last_accepted(const struct gate_host *h) { return http_server_last_accepted(h->server); }

struct gate_host *gate_host_free(struct gate_host *h)
{
        if (!h)
                return NULL;
        (void)http_server_free(h->server);
        buf_done(&h->client);
        buf_done(&h->path);
        free(h);
        return NULL;
}

/* ---- answering ---------------------------------------------------------- */

/* The placeholder for the request's id in the reply that is made in advance. */
static const char NO_ID[] = "00000000000000000000000000000000";

static void refusal_of(const struct gate *g, const struct push_refused *r, struct push_reply *reply)
{
        (g && g->ops->refuse ? g->ops->refuse : push_refuse)(r, reply);
}

static bool make_starved(struct gate *g)
{
        const struct push_refused r = {
                .why = PUSH_NO_MEMORY, .status = 503, .text = "out of memory", .id = str_of(NO_ID)
        };

        g->starved = (struct push_reply){ .headers = BUF_INIT(4096), .body = BUF_INIT(4096) };
        refusal_of(g, &r, &g->starved);
        return !g->starved.headers.failed && !g->starved.body.failed;
}

static void put_id(struct buf *b, const char *old, const char *new)
{
        char *at = b->n ? memmem(b->p, b->n, old, 32) : NULL;

        if (at)
                memcpy(at, new, 32);
}

/* Allocates nothing; only the listener does, to send it. */
static void send_starved(struct gate *g, struct http_call *http)
{
        char id[33];

        make_id(g->feed.config.host, id);
        put_id(&g->starved.headers, NO_ID, id);
        put_id(&g->starved.body, NO_ID, id);
        http_call_reply(http, g->starved.status, (struct str){ 0 }, buf_view(&g->starved.headers),
                        buf_view(&g->starved.body));
        put_id(&g->starved.headers, id, NO_ID);
        put_id(&g->starved.body, id, NO_ID);
}

static void send_reply(struct gate *g, struct http_call *http)
{
        struct push_reply *r = &g->reply;

        if (!http)
                return;
        http_call_set(http, NULL);
        if (r->length >= 0 && (r->status == 304 || (http_call_message(http)->method == HTTP_HEAD &&
                                                    !r->body.n && r->status != 204 && r->status != 205)))
                buf_printf(&r->headers, "Content-Length: %" PRId64 "\r\n", r->length);
        if (r->headers.failed || r->body.failed)
                send_starved(g, http);
        else
                http_call_reply(http, r->status, (struct str){ 0 }, buf_view(&r->headers),
                                buf_view(&r->body));
}

static void shrink(struct buf *b)
{
        if (b->cap > KEPT_MOST)
                buf_done(b);
}

static void reply_reset(struct push_reply *r)
{
        shrink(&r->headers);
        shrink(&r->body);
        buf_reset(&r->body);
        buf_reset(&r->headers);
        r->status = 500;
        r->length = PUSH_LENGTH_UNKNOWN;
        r->kept = 0;
}

static struct call *call_of(struct list_node *node) { return LIST_ITEM(node, struct call, node); }

static void link_call(struct call *c)
{
        struct list *list = c->timed ? &c->gate->timed : &c->gate->untimed;
        struct list_node *before = list->last;

        while (c->timed && before && call_of(before)->deadline > c->deadline)
                before = before->previous;
        list_insert(list, &c->node, before ? before->next : list->first);
}

static void set_deadline(struct call *c, usec at)
{
        list_remove(&c->node);
        c->timed = true;
        c->deadline = at;
        link_call(c);
}

/* false: there is no memory. */
static bool put_off(struct call *c)
{
        HASH_ADD(hh, c->gate->put_off, id, sizeof(c->id), c);
        c->later = c->hh.tbl != NULL;
        return c->later;
}

static void take_up(struct call *c)
{
        if (c->later)
                HASH_DEL(c->gate->put_off, c);
        c->later = false;
}

static void leave_place(struct call *c)
{
        if (c->sending)
                c->gate->stats.in_flight--;
        c->sending = NULL;
}

static void cancel(struct call *c)
{
        if (c->sending)
                sender_cancel(c->gate->feed.config.sender, c->sending);
        leave_place(c);
}

static void decided(struct call *c)
{
        c->gate->undecided_n -= c->undecided;
        c->undecided = false;
}

static struct call *call_new(struct gate *g, struct http_call *http)
{
        struct call *c = calloc(1, sizeof(*c));

        if (!c)
                return NULL;
        c->gate = g;
        c->http = http;
        c->id = ++g->next_id;
        link_call(c);
        http_call_set(http, c);
        return c;
}

static void call_free(struct call *c)
{
        cancel(c);
        take_up(c);
        decided(c);
        list_remove(&c->node);
        if (c->records != &c->one)
                free(c->records);
        free(c);
}

static void note_outcome(struct gate *g, size_t n, const struct push_outcome *o)
{
        switch (o->result) {
        case PUSH_ACCEPTED:
                g->stats.accepted += n;
                g->feed.status.last_delivery = clock_wall(g->feed.config.clock);
                feed_delivery_said(&g->feed, DELIVERY_IDLE, "");
                break;
        case PUSH_FILTERED: g->stats.filtered += n; break;
        case PUSH_FAILED:
        case PUSH_UNREACHABLE:
        case PUSH_TIMEOUT:
                g->stats.failures++;
                feed_delivery_said(&g->feed, DELIVERY_FAILING, o->text);
                break;
        case PUSH_BUSY:
        case PUSH_LIMITED:
        case PUSH_NOT_READY: g->stats.dropped += n; break;
        case PUSH_GONE: g->stats.released += n; break;
        case PUSH_REFUSED: break;
        }
}

/* The records have their outcome: replies to the caller and ends the call. */
static void finish_records(struct call *c, struct record *const *records, size_t n,
                           const struct push_outcome *o)
{
        struct gate *g = c->gate;

        if (c->offered)
                note_outcome(g, n, o);
        reply_reset(&g->reply);
        g->ops->finish(g->feed.source, c->id, records, n, o, &g->reply);
        send_reply(g, c->http);
        call_free(c);
}

static void finish(struct call *c, const struct push_outcome *o) { finish_records(c, c->records, c->n, o); }

/* ---- delivering --------------------------------------------------------- */

static const struct push_outcome stopping = { .result = PUSH_NOT_READY, .text = "the worker is stopping" },
                                 busy = { .result = PUSH_BUSY,
                                          .text = "as many requests as maxInFlight allows are under way" },
                                 no_memory = { .result = PUSH_NOT_READY, .text = "out of memory" },
                                 full = { .result = PUSH_NOT_READY,
                                          .text = "too many bytes of requests are in memory" };

static void count_offered(struct call *c, size_t n)
{
        c->offered = true;
        c->gate->stats.offered += n;
}

/* false: there is no memory, and the call has ended. */
static bool keep_records(struct call *c, struct record *const *records, size_t n)
{
        struct record **kept = n == 1 ? &c->one : calloc(n, sizeof(struct record *));

        if (!kept) {
                count_offered(c, n);
                finish_records(c, records, n, &no_memory);
                return false;
        }
        c->records = memcpy(kept, records, n * sizeof(struct record *));
        c->n = n;
        return true;
}

static void begin_time(struct call *c, usec now)
{
        struct gate *g = c->gate;

        set_deadline(c, now + g->ops->timeout(g->feed.source));
        loop_ready(g->feed.config.loop, g->feed.config.wake); /* a new deadline */
}

/* false: there is no memory. */
static bool send(struct call *c, size_t n, usec now)
{
        struct gate *g = c->gate;

        c->sending = sender_send(g->feed.config.sender, g->scratch, n, c);
        if (!c->sending)
                return false;
        g->stats.in_flight++;
        g->stats.attempts++;
        if (!c->timed)
                begin_time(c, now);
        if (g->limited)
                g->paid_until = bucket_take(&g->rate, g->paid_until, (int64_t)n, now);
        if (c->http)
                http_call_hold(c->http, c->kept + sender_held(c->sending));
        return true;
}

static size_t base64_size(struct str s) { return s.n / 3 * 4 + 4; }

/* The size of a record as it will be written: as text with its escapes, or as Base64. */
static size_t written_size(const struct gate *g, const struct record *r)
{
        enum event_format format = (enum event_format)g->feed.config.trigger->event->format;

        if (format == FORMAT_CLOUDEVENTS_BINARY)
                return r->value.n;
        if (format == FORMAT_FUNCTION_GRAPH ? str_is_text(r->value) : str_is_utf8(r->value))
                /* some shapes write text as Base64, too */
                return MAX_OF(writer_escaped(r->value), base64_size(r->value));
        return base64_size(r->value);
}

static size_t document_size(const struct gate *g, const struct record *r)
{
        return !g->feed.config.filter  ? 0
               : str_is_text(r->value) ? writer_escaped(r->value)
                                       : base64_size(r->value);
}

static bool room_for(const struct gate *g, struct http_call *http, size_t need)
{
        const struct gate_host *h = g->feed.config.host;

        return need <= h->memory_most && (http ? http_call_room(http, h->memory_most - need)
                                               : gate_host_held(h) <= h->memory_most - need);
}

/* Memory for what is made of the records: first the filter's document of one record, then the event of all,
 * twice if there is a transform. */
static bool has_room(const struct gate *g, struct http_call *http, struct record *const *records, size_t n)
{
        size_t document = 0, event = 0;

        for (size_t i = 0; i < n; i++) {
                document = MAX_OF(document, document_size(g, records[i]));
                event += written_size(g, records[i]);
        }
        return room_for(g, http,
                        ROOM_BESIDE + MAX_OF(document, event * (g->feed.config.trigger->transform ? 3 : 1)));
}

/* Keeps the records that pass the filter. false: one of them could not be judged. */
static bool judge(struct call *c, size_t *passed, struct error *why)
{
        struct gate *g = c->gate;

        *passed = 0;
        for (size_t i = 0; i < c->n; i++) {
                enum passing p = record_passes(g->feed.config.filter, g->feed.config.kind->shape,
                                               c->records[i], &g->document, why);

                if (p == UNJUDGED) {
                        g->feed.status.unjudged++;
                        (void)error_wrap(why, "filter");
                        return false;
                }
                if (p == PASSES)
                        g->scratch[(*passed)++] = c->records[i];
        }
        return true;
}

static void deliver(struct call *c, usec now)
{
        struct gate *g = c->gate;
        struct push_outcome o = { .result = PUSH_FILTERED };
        const char *why = NULL;
        struct error unjudged;
        size_t passed;

        count_offered(c, c->n);
        g->feed.status.last_event = clock_wall(g->feed.config.clock);
        if (!has_room(g, c->http, c->records, c->n)) {
                finish(c, &full);
                return;
        }
        if (!judge(c, &passed, &unjudged)) {
                o = (struct push_outcome){ .result = unjudged.kind == ERROR_MEMORY ? PUSH_NOT_READY
                                                                                   : PUSH_FAILED,
                                           .text = unjudged.text };
                finish(c, &o);
                return;
        }
        if (passed && g->stopping && !c->timed)
                o = stopping;
        else if (passed && !sender_ready(g->feed.config.sender, &why))
                o = (struct push_outcome){ .result = PUSH_NOT_READY,
                                           .text = why ? why : "the function is being initialized" };
        else if (passed && g->stats.in_flight == g->most)
                o = busy;
        else if (passed && g->limited && !bucket_gives(&g->rate, g->paid_until, now))
                o = (struct push_outcome){ .result = PUSH_LIMITED,
                                           .retry_after = bucket_at(&g->rate, g->paid_until, now) - now,
                                           .text = "more requests a second than rateLimit allows" };
        else if (passed && send(c, passed, now))
                return;
        else if (passed)
                o = no_memory;
        finish(c, &o);
}

/* The question to an authorizer is made of the request's head: JSON takes up to three bytes for each of its
 * bytes, beside commas and quotes. */
static size_t question_size(const struct http_call *http)
{
        const struct http_message *m = http_call_message(http);

        return HTTP_HEADROOM + 4 * (m->target.n + m->head.n);
}

/* The source does not know yet whether the call is allowed. Such calls have a limit of their own, of the same
 * size as maxInFlight, so that unknown callers take no place from known ones. */
static void hold(struct call *c, usec now)
{
        struct gate *g = c->gate;
        size_t question = question_size(c->http);

        if (g->stopping)
                finish(c, &stopping);
        else if (g->undecided_n == g->most)
                finish(c, &busy);
        else if (!room_for(g, c->http, question))
                finish(c, &full);
        else {
                c->undecided = true;
                g->undecided_n++;
                http_call_hold(c->http, question);
                begin_time(c, now);
                if (!put_off(c))
                        finish(c, &no_memory);
        }
}

/* ---- requests ----------------------------------------------------------- */

/* g NULL: no Trigger claims it. */
static void refuse(struct gate_host *h, struct gate *g, struct http_call *http, const struct push_refused *r)
{
        struct push_reply reply = { .headers = BUF_INIT(256), .body = BUF_INIT(1024) };

        refusal_of(g, r, &reply);
        log_refusal(h, g ? g->feed.config.services->log : NULL, r->id, reply.status, r->text);
        if (g && (reply.headers.failed || reply.body.failed))
                send_starved(g, http);
        else
                http_call_reply(http, reply.status, (struct str){ 0 }, buf_view(&reply.headers),
                                buf_view(&reply.body));
        buf_done(&reply.headers);
        buf_done(&reply.body);
}

static struct push_refused stopped(struct str id)
{
        return (struct push_refused){
                .why = PUSH_STOPPING, .status = 503, .text = "the worker is stopping", .id = id
        };
}

struct search {
        const struct push_request *request;
        struct str path;
        struct gate *best;
        unsigned most;
};

static bool ask(void *cookie, struct route *route)
{
        struct search *s = cookie;
        struct gate *g = CONTAINER_OF(route, struct gate, route);
        unsigned score = g->ops->route(g->feed.source, s->request, s->path);

        if (score > s->most) {
                s->most = score;
                s->best = g;
        }
        return true;
}

static struct gate *gate_for(struct gate_host *h, const struct push_request *q, struct str path)
{
        struct search s = { .request = q, .path = path };

        routes_each(&h->routes, path, ask, &s);
        return s.best;
}

/* Many servers treat // as /. A path with // could match a public API here and then reach a resource that
 * another, protected API guards. */
static bool passes_guard_by(struct gate_host *h, const struct push_request *q, const struct gate *found)
{
        BUF_AT_END struct buf space = BUF_INIT(4 * TARGET_MOST), again = BUF_INIT(4 * TARGET_MOST);
        struct str normal = uri_path(q->path, &space);

        if (!memmem(q->path.p, q->path.n, "//", 2))
                return false;
        for (int i = 0; i < 2; i++) { /* before dot segments are removed, and after */
                struct str merged = uri_path_merged(i ? normal : q->path, &again);
                const struct gate *g = merged.p ? gate_for(h, q, merged) : NULL;

                if (g && g != found && g->ops->authenticates && g->ops->authenticates(g->feed.source))
                        return true;
        }
        return false;
}

/* Counts as dropped if memory ran out, like everything that is answered 503. */
static void refuse_for_memory(struct gate *g, struct http_call *http, struct str id)
{
        const struct push_refused r = {
                .why = PUSH_NO_MEMORY, .status = 503, .text = "out of memory", .id = id
        };

        g->stats.offered++;
        g->stats.dropped++;
        refuse(g->feed.config.host, g, http, &r);
}

static void receive(struct gate *g, struct http_call *http, const struct push_request *q)
{
        struct call *c;
        size_t n = PUSH_RECORDS_MOST;

        if (g->stopping) {
                const struct push_refused r = stopped(q->id);

                refuse(g->feed.config.host, g, http, &r);
                return;
        }
        c = call_new(g, http);
        if (!c) {
                refuse_for_memory(g, http, q->id);
                return;
        }
        reply_reset(&g->reply);
        switch (g->ops->receive(g->feed.source, c->id, q, g->scratch, &n, &g->reply)) {
        case PUSH_REPLY:
                send_reply(g, http);
                call_free(c);
                return;
        case PUSH_LATER:
                c->kept = MAX_OF(q->body.n, g->reply.kept);
                http_call_hold(http, c->kept);
                loop_ready(g->feed.config.loop, g->feed.config.wake);
                if (!put_off(c)) {
                        g->ops->gone(g->feed.source, c->id);
                        http_call_set(http, NULL);
                        call_free(c);
                        refuse_for_memory(g, http, q->id);
                }
                return;
        case PUSH_DELIVER:
                if (keep_records(c, g->scratch, n))
                        deliver(c, loop_now(g->feed.config.loop));
                return;
        case PUSH_HOLD:
                if (keep_records(c, g->scratch, n))
                        hold(c, loop_now(g->feed.config.loop));
                return;
        }
}

static void handle(void *cookie, struct http_call *http)
{
        struct gate_host *h = cookie;
        const struct http_message *m = http_call_message(http);
        struct push_request q = { .method = str_of(http_method_name(m)),
                                  .query = buf_view(&m->target),
                                  .body = buf_view(&m->body),
                                  .head = m,
                                  .header = header_of,
                                  .each_header = each_header };
        struct push_refused r = { .why = PUSH_NO_PATH, .status = 404, .text = "no Trigger has its path" };
        char id[33];
        struct gate *g;
        struct str path;

        make_id(h, id);
        buf_reset(&h->client);
        http_call_client(http, &h->client);
        q.client = buf_view(&h->client);
        q.tls = http_call_tls(http);
        q.id = str_of(id);
        q.path = str_cut(&q.query, '?');
        buf_reset(&h->path);
        path = uri_path(q.path, &h->path);
        g = path.p ? gate_for(h, &q, path) : NULL;
        r.id = q.id;
        if (passes_guard_by(h, &q, g)) {
                r.why = PUSH_GUARDED_PATH;
                r.status = 400;
                r.text = "with one slash in place of several it is the path of an API that authenticates";
        } else if (g) {
                receive(g, http, &q);
                return;
        } else if (h->draining && !h->routes.n)
                /* this worker has stopped; the same address will soon lead to another one */
                r = stopped(q.id);
        refuse(h, NULL, http, &r);
}

static void on_gone(void *cookie UNUSED, struct http_call *http)
{
        struct call *c = http_call_get(http);
        struct gate *g;

        if (!c)
                return;
        g = c->gate;
        c->http = NULL;
        if (c->later && !c->timed) {
                g->ops->gone(g->feed.source, c->id);
                call_free(c);
                return;
        }
        cancel(c);
        finish(c, &(struct push_outcome){ .result = PUSH_GONE, .text = "the caller left" });
}

/* The source has decided about a call that it had put off or held. */
static void decide(struct gate *g, const struct push_event *e, usec now)
{
        struct call *c;

        HASH_FIND(hh, g->put_off, &e->call, sizeof(e->call), c);
        if (!c)
                return;
        take_up(c);
        if (c->undecided && c->http)
                http_call_hold(c->http, c->kept); /* without the memory of the question */
        decided(c);
        if (e->verdict == PUSH_DELIVER) {
                if (c->timed || keep_records(c, e->records, e->n))
                        deliver(c, now);
                return;
        }
        if (c->timed) {
                finish(c, &(struct push_outcome){ .result = PUSH_REFUSED, .text = "the caller may not" });
                return;
        }
        reply_reset(&g->reply);
        g->reply.status = e->reply->status;
        buf_str(&g->reply.headers, buf_view(&e->reply->headers));
        buf_str(&g->reply.body, buf_view(&e->reply->body));
        send_reply(g, c->http);
        call_free(c);
}

/* ---- outcomes ----------------------------------------------------------- */

static enum push_result result_of(const struct gate *g, const struct answer *a)
{
        if (a->kind == ANSWER_ACCEPTED || a->kind == ANSWER_PARTIAL)
                return PUSH_ACCEPTED;
        if (sender_starved(g->feed.config.sender))
                return PUSH_NOT_READY;
        return a->status || a->kind == ANSWER_FINAL ? PUSH_FAILED : PUSH_UNREACHABLE;
}

/* The source has not decided about a call in time. */
static void give_up(struct call *c)
{
        struct gate *g = c->gate;
        struct gate_host *h = g->feed.config.host;
        char id[33];
        struct push_refused r;

        make_id(h, id);
        r = stopped(str_of(id));
        if (c->later)
                g->ops->gone(g->feed.source, c->id);
        http_call_set(c->http, NULL);
        refuse(h, g, c->http, &r);
        call_free(c);
}

static void expire(struct gate *g, usec now)
{
        bool given_up = g->stopping && now >= g->give_up_at;

        for (struct call *c; (c = call_of(g->timed.first)) && (given_up || now >= c->deadline);) {
                cancel(c);
                finish(c, &(struct push_outcome){
                                  .result = PUSH_TIMEOUT,
                                  .text = given_up ? "the worker stopped before the function answered"
                                                   : "the function did not answer in time" });
        }
        for (struct call *c; given_up && (c = call_of(g->untimed.first));)
                give_up(c);
}

/* A transform may have made the event much larger. */
static void send_made(struct gate *g, struct call *c)
{
        if (c->http)
                http_call_hold(c->http, c->kept + sender_held(c->sending));
        if (room_for(g, c->http, 0))
                sender_go_on(g->feed.config.sender, c->sending);
        else
                finish(c, &full);
}

static bool take_answers(struct gate *g, usec now)
{
        struct answer a;
        bool any = false;
        void *owner;

        while (sender_take(g->feed.config.sender, &owner, &a)) {
                struct call *c = owner;

                any = true;
                leave_place(c);
                finish(c, &(struct push_outcome){ .result = result_of(g, &a),
                                                  .status = a.status,
                                                  .retry_after = a.retry_after,
                                                  .body = a.body,
                                                  .cut = sender_cut(g->feed.config.sender),
                                                  .text = a.text });
        }
        while ((owner = sender_made(g->feed.config.sender)))
                send_made(g, owner);
        expire(g, now);
        return any;
}

static bool is_idle(const struct gate *g) { return !g->timed.n && !g->untimed.n; }

static bool poll_source(struct gate *g, usec now)
{
        struct push_event events[EVENTS_AT_ONCE];
        size_t n = g->ops->poll(g->feed.source, events, COUNT_OF(events), now);

        for (size_t i = 0; i < n; i++) {
                const struct push_event *e = &events[i];

                switch (e->kind) {
                case PUSH_EVENT_STATE: feed_source_said(&g->feed, e->state, e->text, now); break;
                case PUSH_EVENT_CALL: decide(g, e, now); break;
                case PUSH_EVENT_CLOSED:
                        g->feed.closed = true;
                        g->feed.status.changes++;
                        break;
                }
        }
        return n > 0;
}

/* ---- the feed ----------------------------------------------------------- */

static struct gate *gate_of(const struct feed *f) { return CONTAINER_OF(f, struct gate, feed); }

static bool gate_turn(struct feed *f, usec now)
{
        struct gate *g = gate_of(f);
        bool more = poll_source(g, now);

        more = take_answers(g, now) || more;
        if (g->stopping && !g->source_stopped && is_idle(g)) {
                g->source_stopped = true;
                g->ops->stop(f->source);
                more = true;
        }
        return more;
}

static usec gate_deadline(const struct feed *f)
{
        const struct gate *g = gate_of(f);
        usec at = g->timed.first ? call_of(g->timed.first)->deadline : USEC_NEVER;

        if (g->stopping && !is_idle(g))
                at = MIN_OF(at, g->give_up_at);
        return MIN_OF(at, g->ops->deadline(f->source));
}

static void gate_stop(struct feed *f, usec give_up_at)
{
        struct gate *g = gate_of(f);

        g->stopping = true;
        g->give_up_at = give_up_at;
}

static void gate_pass_by(struct feed *f, struct feed *successor)
{
        struct gate *g = gate_of(f), *next = successor ? gate_of(successor) : NULL;

        routes_remove(&f->config.host->routes, &g->route);
        if (next && next->ops == g->ops && g->ops->inherit)
                g->ops->inherit(successor->source, f->source);
}

static bool gate_drained(const struct feed *f UNUSED) { return false; }

static void gate_count(const struct feed *f, struct pipeline_status *out)
{
        const struct gate *g = gate_of(f);

        out->stats = g->stats;
        out->stats.limit = g->most;
        out->stats.in_flight += g->undecided_n;
        if (g->ops->counts)
                g->ops->counts(f->source, &out->callers);
        out->stats.offered += out->callers.unwanted;
        out->stats.filtered += out->callers.unwanted;
        out->stats.state = f->status.delivery;
        out->lag = out->unsaved = -1;
}

static void gate_free(struct feed *f)
{
        struct gate *g = gate_of(f);

        routes_remove(&f->config.host->routes, &g->route);
        for (struct call *c; (c = call_of(g->untimed.first));)
                call_free(c);
        for (struct call *c; (c = call_of(g->timed.first));)
                finish(c, &(struct push_outcome){ .result = PUSH_NOT_READY, .text = "the worker stopped" });
        if (f->source)
                (void)g->ops->free(f->source);
        free(g->scratch);
        buf_done(&g->document);
        buf_done(&g->reply.headers);
        buf_done(&g->reply.body);
        buf_done(&g->starved.headers);
        buf_done(&g->starved.body);
        feed_done(f);
        free(g);
}

static int open_route(struct gate *g, struct error *err)
{
        BUF_AT_END struct buf literal = BUF_INIT(65536);
        const struct trigger *t = g->feed.config.trigger;

        if (g->ops->literal)
                (void)g->ops->literal(t, &literal);
        else
                g->ops->path(t, &literal);
        if (literal.failed)
                return error_memory(err);
        return routes_add(&g->feed.config.host->routes, &g->route, buf_view(&literal), err);
}

int gate_new(struct feed **out, const struct feed_config *config, struct error *err)
{
        static const struct feed_ops ops = { .turn = gate_turn,
                                             .deadline = gate_deadline,
                                             .stop = gate_stop,
                                             .pass_by = gate_pass_by,
                                             .drained = gate_drained,
                                             .count = gate_count,
                                             .free = gate_free };
        const struct rate_spec *rate = config->trigger->delivery->rate_limit;
        struct gate *g;

        if (!config->host)
                return error_set(err, ERROR_INVALID,
                                 "a %s source needs a listener: say --listen=ADDRESS:PORT",
                                 config->kind->name);
        g = calloc(1, sizeof(*g));
        if (!g)
                return error_memory(err);
        g->feed = (struct feed){ .ops = &ops, .config = *config };
        g->ops = config->kind->push;
        g->most = (uint32_t)config->trigger->delivery->max_in_flight;
        g->document.max = (size_t)64 << 20;
        g->reply.headers.max = 1 << 20;
        g->reply.body.max = (size_t)16 << 20;
        g->limited = rate != NULL;
        g->paid_until = BUCKET_FULL;
        if (rate)
                g->rate = bucket_rate(rate->events_per_second, USEC_SEC, rate->burst);
        g->scratch = calloc(PUSH_RECORDS_MOST, sizeof(struct record *));
        if (!g->scratch || !make_starved(g) || feed_open_source(&g->feed, err) < 0) {
                bool memory = !g->scratch || g->starved.headers.failed || g->starved.body.failed;

                gate_free(&g->feed);
                return memory ? error_memory(err) : -1;
        }
        sender_within(config->sender, g->ops->timeout(g->feed.source));
        if (open_route(g, err) < 0) {
                gate_free(&g->feed);
                return -1;
        }
        *out = &g->feed;
        return 0;
}
