#include "http/client.h"

#include <arpa/inet.h>
#include <stdio.h>

#include "base/random.h"
#include "http/codec.h"
#include "http/multi.h"
#include "http/resolver.h"

enum { READ_SIZE = 65536, ANSWER_HEAD_MAX = 65536 };

struct connection;
struct exchange {
        struct exchange *next, *previous; /* of its end */
        struct exchange *queued;         /* waits for a connection, or is done and waits to be taken */
        struct http_end *end;
        struct http_target *target;
        struct connection *connection;   /* NULL while it waits */
        uint64_t tag;
        struct buf *message;
        size_t start, sent;              /* where the head begins; how far it was written */
        bool done, again;                /* again: a reused connection had gone, so a fresh one was tried */
        struct http_completion completion;
        struct buf body;
};

enum connection_state { CONNECTION_CONNECTING, CONNECTION_IDLE, CONNECTION_BUSY };
struct connection {
        struct connection *next, *previous; /* of the target's list */
        struct connection *next_idle, *previous_idle;
        struct http_target *target;
        struct exchange *exchange;
        enum connection_state state;
        CURL *easy;
        struct curl_slist *connect_to;
        struct loop_io *io;
        struct http_codec codec;
        usec expires;                    /* 0: never */
        bool used;                       /* carried an answer already */
        char reason[CURL_ERROR_SIZE];
};

struct http_target {
        struct http_client *client;
        char *url_text, *host;
        struct url url;
        struct buf head;                 /* request line, Host, constant headers */
        struct http_target_config config;
        struct connection *connections, *idle; /* all; those without a request, the last used first */
        uint32_t connections_n;
        struct exchange *waiting, **waiting_last;
        char **addresses;                /* what the name meant */
        size_t addresses_n, next_address;
        usec addresses_until;
        bool resolving;
};

struct http_end { struct http_client *client; struct task *wake; struct exchange *exchanges, *done, **done_last, *taken, *spare; };

struct http_client {
        struct loop *loop;
        struct http_multi *multi;
        struct resolver *resolver;
        struct random random;
        char *space;                     /* what was read last */
};

/* ---- exchanges ----------------------------------------------------------------------------------------------------------------------- */

static void complete(struct exchange *x)
{
        struct http_end *end = x->end;

        x->done = true;
        x->connection = NULL;
        x->queued = NULL;
        *end->done_last = x;
        end->done_last = &x->queued;
        loop_ready(end->client->loop, end->wake);
}

static void fail_exchange(struct exchange *x, const struct error *err)
{
        x->completion.failed = true;
        x->completion.error = *err;
        complete(x);
}

static void forget_waiting(struct exchange *x)
{
        struct http_target *t = x->target;

        for (struct exchange **at = &t->waiting; *at; at = &(*at)->queued)
                if (*at == x) {
                        *at = x->queued;
                        if (t->waiting_last == &x->queued)
                                t->waiting_last = at;
                        return;
                }
}

static struct exchange *next_waiting(struct http_target *t)
{
        struct exchange *x = t->waiting;

        if (x && !(t->waiting = x->queued))
                t->waiting_last = &t->waiting;
        return x;
}

/* ---- connections --------------------------------------------------------------------------------------------------------------------- */

static void open_connections(struct http_target *t);

static void idle_add(struct connection *c)
{
        struct http_target *t = c->target;

        c->state = CONNECTION_IDLE;
        c->previous_idle = NULL;
        c->next_idle = t->idle;
        if (t->idle)
                t->idle->previous_idle = c;
        t->idle = c;
}

static void idle_remove(struct connection *c)
{
        if (c->state != CONNECTION_IDLE)
                return;
        if (c->next_idle)
                c->next_idle->previous_idle = c->previous_idle;
        if (c->previous_idle)
                c->previous_idle->next_idle = c->next_idle;
        else
                c->target->idle = c->next_idle;
        c->state = CONNECTION_BUSY;
}

static void connection_free(struct connection *c)
{
        struct http_target *t = c->target;

        idle_remove(c);
        loop_io_close(c->io);
        if (c->easy) {
                http_multi_remove(t->client->multi, c->easy);
                curl_easy_cleanup(c->easy);
        }
        curl_slist_free_all(c->connect_to);
        http_codec_done(&c->codec);
        if (c->next)
                c->next->previous = c->previous;
        if (c->previous)
                c->previous->next = c->next;
        else
                t->connections = c->next;
        t->connections_n--;
        free(c);
}

/* Ends a connection and what it carried. */
static void connection_break(struct connection *c, const struct error *err)
{
        struct http_target *t = c->target;
        struct exchange *x = c->exchange;
        bool stale = x && c->used && !c->codec.started && !x->again;

        connection_free(c);
        if (stale) {
                /* The peer closed an idle connection just as it was used: not a failure of the function. */
                x->again = true;
                x->connection = NULL;
                x->sent = x->start;
                x->queued = t->waiting;
                if (!t->waiting)
                        t->waiting_last = &x->queued;
                t->waiting = x;
        } else if (x)
                fail_exchange(x, err);
        open_connections(t);
}

static void connection_write(struct connection *c)
{
        struct exchange *x = c->exchange;
        struct error err;

        while (x->sent < x->message->n) {
                size_t n = 0;
                CURLcode r = curl_easy_send(c->easy, x->message->p + x->sent, x->message->n - x->sent, &n);

                x->sent += n;
                if (r == CURLE_AGAIN) {
                        loop_io_want(c->io, LOOP_READABLE | LOOP_WRITABLE);
                        return;
                }
                if (r != CURLE_OK) {
                        (void)error_set(&err, ERROR_UNREACHABLE, "POST %s: %s", c->target->url_text, c->reason[0] ? c->reason : curl_easy_strerror(r));
                        connection_break(c, &err);
                        return;
                }
        }
        loop_io_want(c->io, LOOP_READABLE);
}

static void start(struct connection *c, struct exchange *x)
{
        idle_remove(c);
        c->state = CONNECTION_BUSY;
        c->exchange = x;
        x->connection = c;
        connection_write(c);
}

static void connection_free_or_serve(struct connection *c)
{
        struct exchange *x;

        if (c->expires && loop_now(c->target->client->loop) >= c->expires) {
                struct http_target *t = c->target;

                connection_free(c);
                open_connections(t);
                return;
        }
        if ((x = next_waiting(c->target)))
                start(c, x);
        else
                idle_add(c);
}

/* Seconds or an HTTP date, as a time from now. */
static usec parse_retry_after(struct str value)
{
        char date[64];
        int64_t seconds;
        time_t at;

        if (str_to_int64(value, &seconds))
                return seconds > 0 ? MIN_OF(seconds, (int64_t)86400) * USEC_SEC : 0;
        if (value.n == 0 || value.n >= sizeof(date))
                return 0;
        memcpy(date, value.p, value.n);
        date[value.n] = 0;
        at = curl_getdate(date, NULL);
        return at > 0 ? MAX_OF((usec)at * USEC_SEC - clock_wall(&system_clock), (usec)0) : 0;
}

static void connection_answered(struct connection *c)
{
        struct exchange *x = c->exchange;
        struct http_message *m = &c->codec.message;
        bool reuse = m->keep_alive && x->sent == x->message->n;

        x->completion.failed = false;
        x->completion.status = m->status;
        x->completion.retry_after = m->status >= 300 ? parse_retry_after(http_message_header(m, STR("Retry-After"))) : 0;
        x->completion.body_cut = m->body_cut;
        buf_reset(&x->body);
        buf_str(&x->body, buf_view(&m->body));
        c->exchange = NULL;
        c->used = true;
        complete(x);
        http_codec_next(&c->codec);
        if (reuse)
                connection_free_or_serve(c);
        else {
                struct http_target *t = c->target;

                connection_free(c);
                open_connections(t);
        }
}

static void connection_read(struct connection *c)
{
        struct http_client *client = c->target->client;
        struct error err;

        for (;;) {
                size_t n = 0, used;
                CURLcode r = curl_easy_recv(c->easy, client->space, READ_SIZE, &n);

                if (r == CURLE_AGAIN)
                        return;
                if (r != CURLE_OK || n == 0) {
                        if (r == CURLE_OK && c->exchange && http_codec_eof(&c->codec, &err) == 0 && c->codec.message.complete) {
                                c->codec.message.keep_alive = false;
                                connection_answered(c);
                                return;
                        }
                        (void)error_set(&err, ERROR_UNREACHABLE, "POST %s: %s", c->target->url_text,
                                        r == CURLE_OK ? "the peer closed the connection before its answer was whole" : curl_easy_strerror(r));
                        connection_break(c, &err);
                        return;
                }
                if (!c->exchange) {
                        (void)error_set(&err, ERROR_PROTOCOL, "%s speaks without being asked", c->target->url_text);
                        connection_break(c, &err);
                        return;
                }
                if (http_codec_feed(&c->codec, (struct str){ client->space, n }, &used, &err) < 0) {
                        err.retry = true;
                        (void)error_wrap(&err, "POST %s", c->target->url_text);
                        connection_break(c, &err);
                        return;
                }
                if (c->codec.message.complete) {
                        if (used < n) /* more than one answer to one request: the stream can't be trusted */
                                c->codec.message.keep_alive = false;
                        connection_answered(c);
                        return;
                }
                if (n < READ_SIZE)
                        return;
        }
}

static void on_connection(void *cookie, int events)
{
        struct connection *c = cookie;

        /* Writing may end the connection; what is readable is told again. */
        if (c->exchange && (events & LOOP_WRITABLE) && c->exchange->sent < c->exchange->message->n)
                connection_write(c);
        else
                connection_read(c);
}

/* ---- connecting ---------------------------------------------------------------------------------------------------------------------- */

static void connected(struct connection *c, CURLcode result)
{
        struct http_client *client = c->target->client;
        curl_socket_t fd = CURL_SOCKET_BAD;
        struct exchange *x;
        struct error err;

        if (result != CURLE_OK || curl_easy_getinfo(c->easy, CURLINFO_ACTIVESOCKET, &fd) != CURLE_OK || fd == CURL_SOCKET_BAD ||
            loop_io_open(client->loop, fd, on_connection, c, &c->io, &err) < 0) {
                struct http_target *t = c->target;

                (void)error_set(&err, result == CURLE_OPERATION_TIMEDOUT ? ERROR_TIMEOUT : ERROR_UNREACHABLE, "connect to %s: %s", t->url_text,
                                c->reason[0] ? c->reason : curl_easy_strerror(result));
                connection_free(c);
                /* One failure to connect fails one request: the others try for themselves. */
                x = next_waiting(t);
                if (x)
                        fail_exchange(x, &err);
                open_connections(t);
                return;
        }
        if (c->target->config.max_age)
                c->expires = loop_now(client->loop) + c->target->config.max_age - (usec)random_below(&client->random, (uint64_t)c->target->config.max_age / 4 + 1);
        loop_io_want(c->io, LOOP_READABLE);
        connection_free_or_serve(c);
}

static void on_connected(void *cookie UNUSED, CURL *easy, CURLcode result)
{
        struct connection *c;

        (void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&c);
        connected(c, result);
}

static int connect_one(struct http_target *t, const char *address, struct error *err)
{
        struct connection *c = calloc(1, sizeof(*c));
        BUF_AT_END struct buf to = BUF_INIT(1024);

        if (!c)
                return error_memory(err);
        c->target = t;
        c->state = CONNECTION_CONNECTING;
        http_codec_init(&c->codec, false, ANSWER_HEAD_MAX, t->config.answer_max);
        c->easy = curl_easy_init();
        buf_printf(&to, strchr(address, ':') ? "::[%s]:%u" : "::%s:%u", address, t->url.port);
        c->connect_to = to.failed ? NULL : curl_slist_append(NULL, to.p);
        if (!c->easy || !c->connect_to) {
                if (c->easy)
                        curl_easy_cleanup(c->easy);
                curl_slist_free_all(c->connect_to);
                http_codec_done(&c->codec);
                free(c);
                return error_memory(err);
        }
        (void)curl_easy_setopt(c->easy, CURLOPT_URL, t->url_text);
        (void)curl_easy_setopt(c->easy, CURLOPT_CONNECT_ONLY, 1L);
        (void)curl_easy_setopt(c->easy, CURLOPT_CONNECT_TO, c->connect_to);
        (void)curl_easy_setopt(c->easy, CURLOPT_NOSIGNAL, 1L);
        (void)curl_easy_setopt(c->easy, CURLOPT_PROXY, "");
        (void)curl_easy_setopt(c->easy, CURLOPT_BUFFERSIZE, 1024L);
        (void)curl_easy_setopt(c->easy, CURLOPT_TCP_NODELAY, 1L);
        (void)curl_easy_setopt(c->easy, CURLOPT_TCP_KEEPALIVE, 1L);
        (void)curl_easy_setopt(c->easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
        (void)curl_easy_setopt(c->easy, CURLOPT_FRESH_CONNECT, 1L);
        (void)curl_easy_setopt(c->easy, CURLOPT_CONNECTTIMEOUT_MS, (long)(t->config.connect_timeout / USEC_MSEC));
        (void)curl_easy_setopt(c->easy, CURLOPT_ERRORBUFFER, c->reason);
        (void)curl_easy_setopt(c->easy, CURLOPT_PRIVATE, c);
        c->next = t->connections;
        if (c->next)
                c->next->previous = c;
        t->connections = c;
        t->connections_n++;
        if (http_multi_add(t->client->multi, c->easy, err) < 0) {
                connection_free(c);
                return -1;
        }
        return 0;
}

static void addresses_forget(struct http_target *t)
{
        for (size_t i = 0; i < t->addresses_n; i++)
                free(t->addresses[i]);
        free(t->addresses);
        t->addresses = NULL;
        t->addresses_n = 0;
}

static void fail_waiting(struct http_target *t, const struct error *err)
{
        for (struct exchange *x; (x = next_waiting(t));)
                fail_exchange(x, err);
}

static void on_resolved(void *cookie, const struct resolved *answer, const struct error *why)
{
        struct http_target *t = cookie;

        t->resolving = false;
        if (why) {
                fail_waiting(t, why);
                return;
        }
        addresses_forget(t);
        t->addresses = calloc(answer->n, sizeof(char *));
        for (size_t i = 0; t->addresses && i < answer->n; i++)
                if ((t->addresses[t->addresses_n] = str_dup(str_of(answer->addresses[i]))))
                        t->addresses_n++;
        t->addresses_until = loop_now(t->client->loop) + MAX_OF(answer->ttl, USEC_SEC);
        open_connections(t);
}

static uint32_t connecting(const struct http_target *t)
{
        uint32_t n = 0;

        for (const struct connection *c = t->connections; c; c = c->next)
                n += c->state == CONNECTION_CONNECTING;
        return n;
}

/* As many connections as requests wait, within the limit. */
static void open_connections(struct http_target *t)
{
        uint32_t waiting = 0, under_way;
        struct error err;

        for (const struct exchange *x = t->waiting; x && waiting < t->config.max_connections; x = x->queued)
                waiting++;
        if (!waiting || t->resolving)
                return;
        if (!t->addresses_n || loop_now(t->client->loop) >= t->addresses_until) {
                t->resolving = true;
                resolver_ask(t->client->resolver, t->host, on_resolved, t);
                return;
        }
        under_way = connecting(t);
        while (under_way < waiting && t->connections_n < t->config.max_connections) {
                if (connect_one(t, t->addresses[t->next_address++ % t->addresses_n], &err) < 0) {
                        fail_waiting(t, &err);
                        return;
                }
                under_way++;
        }
}

/* ---- targets ------------------------------------------------------------------------------------------------------------------------- */

static int numeric_address(struct http_target *t)
{
        unsigned char space[16];

        if (inet_pton(AF_INET, t->host, space) != 1 && inet_pton(AF_INET6, t->host, space) != 1)
                return 0;
        t->addresses = calloc(1, sizeof(char *));
        if (!t->addresses || !(t->addresses[0] = str_dup(str_of(t->host))))
                return -1;
        t->addresses_n = 1;
        t->addresses_until = USEC_NEVER;
        return 0;
}

int http_target_new(struct http_target **out, struct http_client *client, const struct http_target_config *config, struct error *err)
{
        struct http_target *t = calloc(1, sizeof(*t));

        if (!t)
                return error_memory(err);
        t->client = client;
        t->config = *config;
        t->waiting_last = &t->waiting;
        t->head.max = 65536;
        t->url_text = str_dup(config->url);
        if (!t->url_text || url_parse(str_of(t->url_text), &t->url, err) < 0 || !(t->host = str_dup(t->url.host)) || numeric_address(t) < 0) {
                bool memory = !t->url_text || t->host;

                (void)http_target_free(t);
                return memory ? error_memory(err) : -1;
        }
        buf_printf(&t->head, "%s " STR_FMT " HTTP/1.1\r\nHost: " STR_FMT "\r\nUser-Agent: sluice\r\n", config->method ? config->method : "POST",
                   STR_ARG(t->url.target), STR_ARG(t->url.authority));
        buf_str(&t->head, config->headers);
        if (t->head.failed || t->head.n > HTTP_HEADROOM / 2) {
                (void)http_target_free(t);
                return error_set(err, ERROR_INVALID, "the sink's URL and headers take more than %d bytes", HTTP_HEADROOM / 2);
        }
        *out = t;
        return 0;
}

struct http_target *http_target_free(struct http_target *t)
{
        if (!t)
                return NULL;
        if (t->resolving)
                resolver_forget(t->client->resolver, t);
        while (t->connections)
                connection_free(t->connections);
        addresses_forget(t);
        buf_done(&t->head);
        free(t->host);
        free(t->url_text);
        free(t);
        return NULL;
}

uint32_t http_target_connections(const struct http_target *t) { return t->connections_n; }

/* ---- ends ---------------------------------------------------------------------------------------------------------------------------- */

/* Writes the head in front of the body: one piece leaves with one write. */
static int put_head(struct exchange *x, const struct http_request *q, struct error *err)
{
        struct buf *m = q->message, *constant = &q->target->head;
        char length[64];
        int n = snprintf(length, sizeof(length), "Content-Length: %zu\r\n\r\n", m->n - HTTP_HEADROOM);
        size_t size = constant->n + q->headers.n + (size_t)n;
        char *at;

        if (m->failed || m->n < HTTP_HEADROOM)
                return error_memory(err);
        if (size > HTTP_HEADROOM)
                return error_set(err, ERROR_INVALID, "the request's headers take more than %d bytes", HTTP_HEADROOM);
        x->start = x->sent = HTTP_HEADROOM - size;
        at = m->p + x->start;
        memcpy(at, constant->p, constant->n);
        memcpy(at + constant->n, q->headers.p, q->headers.n);
        memcpy(at + constant->n + q->headers.n, length, (size_t)n);
        return 0;
}

static void unlink_exchange(struct exchange *x)
{
        if (x->next)
                x->next->previous = x->previous;
        if (x->previous)
                x->previous->next = x->next;
        else
                x->end->exchanges = x->next;
        x->next = x->end->spare;
        x->end->spare = x;
}

static int submit(void *cookie, uint64_t tag, const struct http_request *q, struct error *err)
{
        struct http_end *end = cookie;
        struct http_target *t = q->target;
        struct exchange *x = end->spare;
        struct buf body = BUF_INIT(t->config.answer_max + 1);

        if (x) {
                end->spare = x->next;
                body = x->body;
        } else if (!(x = malloc(sizeof(*x))))
                return error_memory(err);
        *x = (struct exchange){ .end = end, .target = t, .tag = tag, .message = q->message, .body = body, .next = end->exchanges };
        x->completion.tag = tag;
        if (x->next)
                x->next->previous = x;
        end->exchanges = x;
        if (put_head(x, q, err) < 0) {
                unlink_exchange(x);
                return -1;
        }
        if (t->idle) {
                start(t->idle, x);
                return 0;
        }
        *t->waiting_last = x;
        t->waiting_last = &x->queued;
        open_connections(t);
        return 0;
}

static void abandon(struct exchange *x)
{
        struct http_end *end = x->end;

        if (x->done) {
                for (struct exchange **at = &end->done; *at; at = &(*at)->queued)
                        if (*at == x) {
                                *at = x->queued;
                                if (end->done_last == &x->queued)
                                        end->done_last = at;
                                break;
                        }
        } else if (x->connection) {
                struct http_target *t = x->target;

                x->connection->exchange = NULL;
                connection_free(x->connection); /* the answer can't be told from the next one's any more */
                open_connections(t);
        } else
                forget_waiting(x);
        unlink_exchange(x);
}

static void cancel(void *cookie, uint64_t tag)
{
        struct http_end *end = cookie;

        for (struct exchange *x = end->exchanges; x; x = x->next)
                if (x->tag == tag && x != end->taken) {
                        abandon(x);
                        return;
                }
}

static bool take(void *cookie, struct http_completion *out)
{
        struct http_end *end = cookie;
        struct exchange *x = end->done;

        if (end->taken)
                unlink_exchange(end->taken);
        end->taken = NULL;
        if (!x)
                return false;
        end->done = x->queued;
        if (!end->done)
                end->done_last = &end->done;
        x->completion.body = buf_view(&x->body);
        *out = x->completion;
        end->taken = x;
        return true;
}

static const struct http_ops end_ops = { submit, cancel, take };
struct http http_end_port(struct http_end *end) { return (struct http){ &end_ops, end }; }

int http_end_new(struct http_end **out, struct http_client *client, struct task *wake, struct error *err)
{
        struct http_end *end = calloc(1, sizeof(*end));

        if (!end)
                return error_memory(err);
        end->client = client;
        end->wake = wake;
        end->done_last = &end->done;
        *out = end;
        return 0;
}

struct http_end *http_end_free(struct http_end *end)
{
        if (!end)
                return NULL;
        if (end->taken)
                unlink_exchange(end->taken);
        while (end->exchanges)
                abandon(end->exchanges);
        for (struct exchange *x = end->spare, *next; x; x = next) {
                next = x->next;
                buf_done(&x->body);
                free(x);
        }
        free(end);
        return NULL;
}

/* ---- the client ---------------------------------------------------------------------------------------------------------------------- */

int http_client_new(struct http_client **out, struct loop *loop, struct error *err)
{
        struct http_client *client = calloc(1, sizeof(*client));

        if (!client)
                return error_memory(err);
        client->loop = loop;
        random_init(&client->random, random_seed());
        client->space = malloc(READ_SIZE);
        if (!client->space || http_multi_new(&client->multi, loop, on_connected, client, err) < 0 || resolver_new(&client->resolver, loop, err) < 0) {
                bool memory = !client->space;

                (void)http_client_free(client);
                return memory ? error_memory(err) : -1;
        }
        *out = client;
        return 0;
}

struct http_client *http_client_free(struct http_client *client)
{
        if (!client)
                return NULL;
        (void)resolver_free(client->resolver);
        (void)http_multi_free(client->multi);
        free(client->space);
        free(client);
        return NULL;
}
