/* Targets and exchanges. */
#include "http/client/client.h"

#include <limits.h>
#include <stdio.h>

#include "http/client/connection.h"
#include "http/client/proxy.h"

enum {
        PACK_LEAST = 1024,
        SPARE_ONE = 65536,    /* bytes of the buffers of an exchange that is not in use, at most */
        SPARE_MOST = 1 << 20, /* bytes of the buffers of all exchanges that are not in use */
        BODY_FREE = 256 * 1024,
        STREAMS_DEFAULT = 100,
        MEMBER_MAX = 8 << 20
};
static const size_t ANSWER_READ_MAX = (size_t)64 << 20;
static const int64_t RETRY_AFTER_MAX = 86400; /* seconds */
static const usec PING_AFTER = 10 * USEC_SEC;

/* ---- exchanges ---------------------------------------------------------- */

static void complete(struct exchange *x)
{
        x->done = true;
        x->connection = NULL;
        request_end(&x->request->request, x->client->loop);
}

void exchange_fail(struct exchange *x, const struct error *err)
{
        struct http_request *q = x->request;

        q->maybe_processed = x->written;
        q->status = 0;
        q->body_cut = false;
        q->request.error = *err;
        complete(x);
}

/* ---- room for large answers --------------------------------------------- */

/* What an answer keeps at most: its body, and the list that is taken out of it. */
static size_t answer_most(const struct exchange *x)
{
        const struct http_target_config *config = &x->target->config;

        return config->answer_max + (config->answer_member ? MEMBER_MAX : 0);
}

static bool take_room(struct exchange *x)
{
        struct http_client *client = x->client;
        size_t n = answer_most(x);

        if (client->large_held && client->large_held + n > client->large_max)
                return false;
        client->large_held += n;
        x->room = n;
        return true;
}

bool exchange_takes(struct exchange *x, size_t body)
{
        struct http_client *client = x->client;

        if (x->room || body + x->pick.out.n <= BODY_FREE || !client->large_max)
                return true;
        if (list_has(&x->stalls))
                return false;
        if (!client->stalled.n && take_room(x))
                return true;
        list_append(&client->stalled, &x->stalls);
        return false;
}

/* The answer was released: its memory goes to those that wait. The target may be gone already. */
static void give_room(struct exchange *x)
{
        struct http_client *client = x->client;

        if (!x->room)
                return;
        client->large_held -= x->room;
        x->room = 0;
        for (struct exchange *next;
             (next = LIST_FIRST(&client->stalled, struct exchange, stalls)) && take_room(next);) {
                list_remove(&next->stalls);
                next->connection->framing->resume(next->connection, next);
        }
}

void http_client_limit_answers(struct http_client *client, size_t bytes) { client->large_max = bytes; }

/* Seconds or an HTTP date, as a time from now. */
static usec parse_retry_after(struct str value)
{
        char date[64];
        int64_t seconds;
        time_t at;

        if (value.n && strspn(value.p, "0123456789") >= value.n)
                return str_to_int64(value, &seconds) ? MIN_OF(seconds, RETRY_AFTER_MAX) * USEC_SEC
                                                     : RETRY_AFTER_MAX * USEC_SEC;
        if (value.n == 0 || value.n >= sizeof(date))
                return 0;
        memcpy(date, value.p, value.n);
        date[value.n] = 0;
        at = curl_getdate(date, NULL);
        if (at <= 0)
                return 0;
        return MIN_OF(MAX_OF((int64_t)at - clock_wall(&system_clock) / USEC_SEC, (int64_t)0),
                      RETRY_AFTER_MAX) *
               USEC_SEC;
}

void exchange_answer(struct exchange *x, int status)
{
        struct http_request *q = x->request;
        struct error err;

        if (x->head.failed || x->body.failed) { /* a part of an answer might mean the opposite of the whole */
                (void)error_memory(&err);
                exchange_fail(x, &err);
                return;
        }
        q->status = status;
        q->head = buf_view(&x->head);
        q->body = buf_view(&x->body);
        if (x->target->config.answer_member)
                q->member = json_pick_end(&x->pick);
        if (status >= 300)
                q->retry_after = parse_retry_after(http_answer_header(q, STR("Retry-After")));
        complete(x);
}

struct str http_answer_header(const struct http_request *q, struct str name)
{
        return http_head_find(q->head, name);
}

/* ---- targets ------------------------------------------------------------ */

static int numeric_address(struct http_target *t, struct error *err)
{
        struct address *a;

        if (!host_is_address(t->host))
                return 0;
        a = calloc(1, sizeof(*a));
        if (!a)
                return error_memory(err);
        (void)snprintf(a->text, sizeof(a->text), "%s", t->host);
        a->listed = t->numeric = true;
        list_append(&t->addresses, &a->node);
        t->addresses_n = 1;
        return 0;
}

static int copy(const char *from, const char **to, struct error *err)
{
        *to = from ? str_dup(str_of(from)) : NULL;
        return from && !*to ? error_memory(err) : 0;
}

static int copy_view(struct str from, struct str *to, struct error *err)
{
        to->n = from.n;
        to->p = from.n ? str_dup(from) : NULL;
        return from.n && !to->p ? error_memory(err) : 0;
}

/* Until this returns 0 the strings of the copy are the caller's: do not free them. */
static int copy_config(struct http_target *t, const struct http_target_config *config, struct error *err)
{
        const struct http_tls *tls = &config->tls;
        const struct http_proxy *proxy = &config->proxy;
        struct http_target_config *own = &t->config;

        own->max_connections = MAX_OF(config->max_connections, (uint32_t)1);
        own->connect_timeout = config->connect_timeout;
        own->response_timeout = config->response_timeout;
        own->max_age = config->max_age;
        own->answer_max = config->answer_max;
        own->answer_read_max = config->answer_read_max ? config->answer_read_max
                                                       : MAX_OF(ANSWER_READ_MAX, config->answer_max);
        own->http_version = config->http_version;
        own->ping_after = config->ping_after ? config->ping_after : PING_AFTER;
        own->max_streams = config->max_streams ? config->max_streams : STREAMS_DEFAULT;
        own->compress = config->compress;
        own->once = config->once;
        own->answer_member = config->answer_member;
        own->settings = config->settings;
        own->tls.any_host = tls->any_host;
        if (copy_view(tls->ca_pem, &own->tls.ca_pem, err) < 0 ||
            copy(tls->ca_file, &own->tls.ca_file, err) < 0 ||
            copy(tls->client_cert_file, &own->tls.client_cert_file, err) < 0 ||
            copy(tls->client_key_file, &own->tls.client_key_file, err) < 0 ||
            copy(tls->server_name, &own->tls.server_name, err) < 0)
                return -1;
        if (copy_view(proxy->url, &own->proxy.url, err) < 0 ||
            copy(proxy->user_file, &own->proxy.user_file, err) < 0 ||
            copy(proxy->password_file, &own->proxy.password_file, err) < 0)
                return -1;
        t->url_text = str_dup(config->url);
        t->method = str_dup(config->method ? str_of(config->method) : STR("POST"));
        return t->url_text && t->method ? 0 : error_memory(err);
}

static void free_config(struct http_target_config *own)
{
        const void *texts[] = { own->tls.ca_pem.p,        own->tls.ca_file,        own->tls.client_cert_file,
                                own->tls.client_key_file, own->tls.server_name,    own->proxy.url.p,
                                own->proxy.user_file,     own->proxy.password_file };

        for (size_t i = 0; i < COUNT_OF(texts); i++)
                free((void *)(uintptr_t)texts[i]);
}

/* A dot at a name's end keeps resolvers from their search domains. SNI and certificates have none (RFC 6066,
 * section 3). */
static struct str without_last_dot(struct str name)
{
        if (name.n > 1 && name.p[name.n - 1] == '.')
                name.n--;
        return name;
}

static int set_route(struct http_target *t, struct str no_proxy, struct error *err)
{
        BUF_AT_END struct buf url = BUF_INIT(4096);
        struct str name = t->url.host;

        if (t->config.proxy.url.n) {
                if (url_parse(t->config.proxy.url, &t->proxy_url, err) < 0)
                        return error_wrap(err, "proxy");
                if (t->proxy_url.tls)
                        return error_set(err, ERROR_INVALID, "proxy " STR_FMT ": must begin with http://",
                                         STR_ARG(t->config.proxy.url));
                t->proxied = !http_no_proxy(no_proxy, t->url.host);
        }
        t->host = str_dup(t->proxied ? t->proxy_url.host : t->url.host);
        t->port = t->proxied ? t->proxy_url.port : t->url.port;
        if (t->url.tls && t->config.tls.server_name)
                name = str_of(t->config.tls.server_name);
        buf_printf(&url, memchr(name.p, ':', name.n) ? "http://[" STR_FMT "]:%u/" : "http://" STR_FMT ":%u/",
                   STR_ARG(name), t->url.port);
        t->connect_url = buf_take(&url);
        t->tls_name = t->url.tls ? str_dup(without_last_dot(name)) : NULL;
        if (!t->host || !t->connect_url || (t->url.tls && !t->tls_name))
                return error_memory(err);
        return numeric_address(t, err);
}

static int set_head(struct http_target *t, struct str headers, struct error *err)
{
        buf_printf(&t->head, "%s " STR_FMT " HTTP/1.1\r\n", t->method, STR_ARG(t->url.target));
        t->line_n = t->head.n;
        buf_printf(&t->head, "Host: " STR_FMT "\r\nUser-Agent: sluice\r\n", STR_ARG(t->url.authority));
        buf_str(&t->head, headers);
        if (t->head.failed || t->head.n > HTTP_HEADROOM / 2)
                return error_set(err, ERROR_INVALID, "the sink's URL and headers take more than %d bytes",
                                 HTTP_HEADROOM / 2);
        return t->config.http_version == HTTP_1_1 ? 0 : http2_fields(t, err);
}

int http_target_new(struct http_target **out, struct http_client *client,
                    const struct http_target_config *config, struct error *err)
{
        struct http_target *t = calloc(1, sizeof(*t));

        if (!t)
                return error_memory(err);
        t->client = client;
        t->head.max = 65536;
        t->streams = MIN_OF(config->max_streams ? config->max_streams : STREAMS_DEFAULT,
                            (uint32_t)STREAMS_DEFAULT);
        t->replace_at = t->ask_at = USEC_NEVER;
        t->asked_at = -USEC_MINUTE;
        t->timer.turn = target_turn;
        t->answer_timer.turn = target_answers_turn;
        if (copy_config(t, config, err) < 0 || url_parse(str_of(t->url_text), &t->url, err) < 0 ||
            set_route(t, config->proxy.no_proxy, err) < 0 || set_head(t, config->headers, err) < 0 ||
            files_watch(t, err) < 0) {
                (void)http_target_free(t);
                return -1;
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
        for (struct connection *c; (c = LIST_FIRST(&t->connections, struct connection, node));)
                connection_free(c);
        loop_forget(t->client->loop, &t->timer);
        loop_forget(t->client->loop, &t->answer_timer);
        addresses_free(t);
        files_forget(t);
        (void)tls_client_free(t->tls);
        buf_done(&t->head);
        buf_done(&t->field_text);
        free(t->fields);
        free_config(&t->config);
        buf_done(&t->proxy_user);
        buf_done(&t->proxy_password);
        free(t->host);
        free(t->connect_url);
        free(t->tls_name);
        free(t->method);
        free(t->url_text);
        free(t);
        return NULL;
}

uint32_t http_target_connections(const struct http_target *t) { return t->connections_n; }

void http_target_connect_within(struct http_target *t, usec most) { t->config.connect_timeout = most; }

/* ---- the port ----------------------------------------------------------- */

static bool is_token(const char *method)
{
        for (const char *p = method; *p; p++)
                if (*p < 'A' || *p > 'Z')
                        return false;
        return *method != 0;
}

static bool is_path(struct str path)
{
        for (size_t i = 0; i < path.n; i++)
                if (path.p[i] <= ' ' || path.p[i] == 127)
                        return false;
        return path.p[0] == '/';
}

/* Compresses the body into the exchange's own buffer, behind the same headroom; false: it is not smaller,
 * send it as it is. */
static bool pack(struct http_client *client, const struct buf *message, size_t headroom, struct buf *out)
{
        z_stream *z = &client->packer;
        size_t n = message->n - headroom;

        if (!client->packs && deflateInit2(z, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
                return false;
        client->packs = true;
        (void)deflateReset(z);
        out->max = message->n;
        buf_reset(out);
        if (n > UINT_MAX || !buf_reserve(out, message->n))
                return false;
        z->next_in = (unsigned char *)message->p + headroom;
        z->avail_in = (unsigned)n;
        z->next_out = (unsigned char *)out->p + headroom;
        z->avail_out = (unsigned)n - 1; /* when this is full, gzip is not smaller */
        if (deflate(z, Z_FINISH) != Z_STREAM_END)
                return false;
        out->n = headroom + n - 1 - z->avail_out;
        return true;
}

struct head {
        struct str method, path, constant, own;
        const char *encoding;
        char length[64];
};

/* Writes the head in front of the body, so that one write sends both: request line, constant lines, the
 * request's own, Content-Length. */
static int write_head(struct exchange *x, const struct head *h, struct error *err)
{
        static const char version[] = " HTTP/1.1\r\n";
        struct str pieces[] = { h->method,
                                STR(" "),
                                h->path,
                                { version, sizeof(version) - 1 },
                                h->constant,
                                h->own,
                                str_of(h->encoding),
                                str_of(h->length) };
        size_t size = 0, i;
        char *at;

        for (i = 0; i < COUNT_OF(pieces); i++)
                size += pieces[i].n;
        if (size > x->headroom)
                return error_set(err, ERROR_INVALID, "the request's headers take more than %zu bytes",
                                 x->headroom);
        x->start = x->headroom - size;
        at = x->message->p + x->start;
        for (i = 0; i < COUNT_OF(pieces); i++)
                if (pieces[i].n)
                        at = (char *)memcpy(at, pieces[i].p, pieces[i].n) + pieces[i].n;
        x->own = x->headroom - strlen(h->length) - strlen(h->encoding) - h->own.n;
        x->method_n = h->method.n;
        x->path_n = h->path.n;
        return 0;
}

static void put_length(char out[64], size_t n)
{
        char digits[24];
        size_t at = sizeof(digits);

        do {
                digits[--at] = (char)('0' + n % 10);
                n /= 10;
        } while (n);
        out = stpcpy(out, "Content-Length: ");
        memcpy(out, digits + at, sizeof(digits) - at);
        memcpy(out + sizeof(digits) - at, "\r\n\r\n", 5);
}

static int put_head(struct exchange *x, const struct http_request *q, struct error *err)
{
        struct http_target *t = q->target;
        struct head h = { .method = str_of(q->method ? q->method : t->method),
                          .path = q->path.n ? q->path : t->url.target,
                          .constant = { t->head.p + t->line_n, t->head.n - t->line_n },
                          .own = q->headers,
                          .encoding = "" };
        size_t body;

        x->headroom = q->headroom ? q->headroom : HTTP_HEADROOM;
        if (q->message->failed || q->message->n < x->headroom)
                return error_memory(err);
        if (q->method && !is_token(q->method))
                return error_set(err, ERROR_INVALID, "\"%s\" is not an HTTP method", q->method);
        if (q->path.n && !is_path(q->path))
                return error_set(err, ERROR_INVALID, "the path must begin with / and contain no white space");
        if (t->config.compress && q->message->n > x->headroom + PACK_LEAST &&
            pack(t->client, q->message, x->headroom, &x->packed)) {
                x->message = &x->packed;
                h.encoding = "Content-Encoding: gzip\r\n";
        }
        body = x->message->n - x->headroom;
        x->head_only = str_is(h.method, "HEAD");
        if (!body && (x->head_only || str_is(h.method, "GET")))
                memcpy(h.length, "\r\n", 3);
        else
                put_length(h.length, body);
        return write_head(x, &h, err);
}

static size_t buffered(const struct exchange *x)
{
        return x->head.cap + x->body.cap + x->packed.cap + x->pick.out.cap;
}

static void free_buffers(struct exchange *x)
{
        buf_done(&x->head);
        buf_done(&x->body);
        buf_done(&x->packed);
        buf_done(&x->pick.out);
}

static struct exchange *exchange_new(struct http_client *client)
{
        struct exchange *x = LIST_TAKE(&client->spare, struct exchange, node);

        if (!x)
                return calloc(1, sizeof(*x));
        client->spare_bytes -= buffered(x);
        *x = (struct exchange){
                .head = x->head, .body = x->body, .packed = x->packed, .pick.out = x->pick.out
        };
        buf_reset(&x->head);
        buf_reset(&x->body);
        return x;
}

static void exchange_spare(struct exchange *x)
{
        struct http_client *client = x->client;

        list_prepend(&client->spare, &x->node);
        if (buffered(x) > SPARE_ONE || client->spare_bytes + buffered(x) > SPARE_MOST)
                free_buffers(x);
        client->spare_bytes += buffered(x);
        give_room(x);
}

static void exchange_free(struct exchange *x)
{
        free_buffers(x);
        free(x);
}

static void begin(struct http_request *q, struct exchange *x)
{
        request_begin(&q->request);
        q->maybe_processed = q->body_cut = false;
        q->status = 0;
        q->retry_after = 0;
        q->head = q->body = q->member = (struct str){ 0 };
        q->own = x;
}

static int submit(void *cookie, struct http_request *q, struct error *err)
{
        struct http_client *client = cookie;
        struct http_target *t = q->target;
        struct exchange *x = exchange_new(client);
        struct connection *c;

        if (!x)
                return error_memory(err);
        x->client = client;
        x->target = t;
        x->request = q;
        x->message = q->message;
        x->head.max = 2 * ANSWER_HEAD_MAX + 1024;
        x->body.max = t->config.answer_max + 1;
        x->pick.out.max = MEMBER_MAX;
        if (put_head(x, q, err) < 0) {
                exchange_spare(x);
                return -1;
        }
        begin(q, x);
        t->used = true;
        if (t->ask_at != USEC_NEVER && loop_now(client->loop) >= t->ask_at)
                addresses_ask(t);
        if (!t->waiting.n && (c = pool_ready(t)))
                pool_start(c, x);
        else {
                pool_wait(x, false);
                pool_serve(t);
        }
        return 0;
}

static void release(void *cookie UNUSED, struct http_request *q)
{
        struct exchange *x = q->own;
        struct http_target *t = x->target;

        if (!x->done && x->connection) {
                struct connection *c = x->connection;

                connection_drop(c, x);
                c->framing->cancel(c, x);
                pool_serve(t);
        } else if (!x->done)
                pool_forget(x);
        exchange_spare(x);
}

struct http http_client_port(struct http_client *client)
{
        static const struct http_ops ops = { submit, release };

        return (struct http){ &ops, client };
}

/* ---- the client --------------------------------------------------------- */

int http_client_new(struct http_client **out, struct loop *loop, struct error *err)
{
        struct http_client *client = calloc(1, sizeof(*client));

        if (!client)
                return error_memory(err);
        client->loop = loop;
        random_init(&client->random, random_seed());
        client->space = malloc(READ_SIZE);
        if (!client->space || http_multi_new(&client->multi, loop, on_connected, client, err) < 0 ||
            resolver_new(&client->resolver, loop, err) < 0) {
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
        for (struct exchange *x; (x = LIST_TAKE(&client->spare, struct exchange, node));)
                exchange_free(x);
        (void)resolver_free(client->resolver);
        (void)http_multi_free(client->multi);
        if (client->packs)
                (void)deflateEnd(&client->packer);
        free(client->space);
        free(client);
        return NULL;
}

int http_client_use_servers(struct http_client *client, const char *servers, struct error *err)
{
        return resolver_use_servers(client->resolver, servers, err);
}
