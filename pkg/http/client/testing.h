/* For the client's tests alone: a loop with a client, and a server beside it that speaks HTTP/1.1 or HTTP/2,
 * with and without TLS, on the same loop and thread. The test's handler answers when it likes. Included once
 * by a test. */
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/loop.h"
#include "http/client/client.h"
#include "http/wire/codec.h"
#include "http/client/testing_port.h"
#include "tests/support/identity.h"

enum { PEERS = 512, MOST = 512, CALLS = 1024 };
enum flavour { PLAIN_1, TLS_1, PLAIN_2, TLS_2, FLAVOURS };
static const char *const flavour_names[FLAVOURS] UNUSED = { "HTTP/1.1", "TLS and HTTP/1.1", "h2c",
                                                            "TLS and h2" };

struct peer {
        struct server *server;
        int fd;
        struct loop_io *io;
        SSL *ssl;
        bool accepted, closing, resumed, entered;
        nghttp2_session *h2;
        struct http_codec codec;
        struct buf out;
        unsigned served;
        char alpn[16];
};

struct call { /* a request as the server saw it */
        struct peer *peer;
        int32_t stream;
        bool whole, head_only;
        char method[16], path[256];
        struct buf head, body; /* head: name\0value\0 */
};

struct server {
        int fd;
        uint16_t port;
        struct loop_io *io;
        bool http2;
        SSL_CTX *tls;
        struct peer peers[PEERS];
        size_t peers_n, requests;
        size_t calls_n; /* of all servers; kept in the one named server */
        struct call calls[CALLS];
        void (*handle)(struct call *);
        void (*accepted)(struct peer *);              /* before it reads; may be NULL */
        bool (*raw)(struct peer *, struct str bytes); /* takes the bytes instead; may be NULL */
        unsigned max_streams;                         /* 0: 100 */
        bool no_streams;
};

static struct loop *loop;
static struct http_client *client;
static struct http_target *target;
static struct task wake, watchdog;
static bool overdue;
static struct server server;
static struct {
        struct completion c;
        char head[4096], body[4096];
} done[MOST];
static size_t done_n, wanted;
static bool (*until)(void);
static struct buf messages[MOST];
static char url[128];
static char under_way[200]; /* what a table's test is at */

/* ---- the server --------------------------------------------------------- */

UNUSED static void peer_close(struct peer *p)
{
        if (p->fd < 0)
                return;
        if (p->entered) { /* within nghttp2 */
                p->closing = true;
                return;
        }
        loop_io_close(p->io);
        (void)close(p->fd);
        p->fd = -1;
        SSL_free(p->ssl);
        p->ssl = NULL;
        nghttp2_session_del(p->h2);
        p->h2 = NULL;
        http_codec_done(&p->codec);
        buf_done(&p->out);
}

/* Writes what it can. */
UNUSED static void peer_flush(struct peer *p)
{
        while (p->fd >= 0 && p->out.n && (!p->ssl || p->accepted)) {
                ssize_t n = p->ssl ? SSL_write(p->ssl, p->out.p, (int)p->out.n)
                                   : send(p->fd, p->out.p, p->out.n, MSG_NOSIGNAL);

                if (n <= 0) {
                        if (p->ssl ? SSL_get_error(p->ssl, (int)n) == SSL_ERROR_WANT_WRITE : errno == EAGAIN)
                                loop_io_want(p->io, LOOP_READABLE | LOOP_WRITABLE);
                        else
                                peer_close(p);
                        ERR_clear_error();
                        return;
                }
                buf_drop(&p->out, (size_t)n);
        }
        if (p->fd >= 0)
                loop_io_want(p->io, LOOP_READABLE);
        if (p->fd >= 0 && p->closing && !p->out.n)
                peer_close(p);
}

UNUSED static void peer_say(struct peer *p, struct str bytes)
{
        buf_str(&p->out, bytes);
        peer_flush(p);
}

static ssize_t h2_out(nghttp2_session *s UNUSED, const uint8_t *b, size_t n, int flags UNUSED, void *cookie)
{
        buf_add(&((struct peer *)cookie)->out, b, n);
        return (ssize_t)n;
}

UNUSED static void h2_flush(struct peer *p)
{
        if (p->entered || p->fd < 0 || !p->h2)
                return;
        p->entered = true;
        (void)nghttp2_session_send(p->h2);
        p->entered = false;
        peer_flush(p);
}

static struct call *call_of(struct peer *p, int32_t stream)
{
        for (size_t i = server.calls_n; i-- > 0;)
                if (server.calls[i].peer == p && server.calls[i].stream == stream)
                        return &server.calls[i];
        return NULL;
}

static struct call *call_new(struct peer *p, int32_t stream)
{
        struct call *c = &server.calls[server.calls_n++];

        assert_true(server.calls_n < CALLS);
        *c = (struct call){
                .peer = p, .stream = stream, .head = BUF_INIT(1 << 20), .body = BUF_INIT(1 << 26)
        };
        return c;
}

static int h2_begin(nghttp2_session *s UNUSED, const nghttp2_frame *f, void *cookie)
{
        (void)call_new(cookie, f->hd.stream_id);
        return 0;
}

static int h2_header(nghttp2_session *s UNUSED, const nghttp2_frame *f, const uint8_t *name, size_t name_n,
                     const uint8_t *value, size_t value_n, uint8_t flags UNUSED, void *cookie)
{
        struct call *c = call_of(cookie, f->hd.stream_id);

        if (name_n == 7 && memcmp(name, ":method", 7) == 0)
                (void)snprintf(c->method, sizeof(c->method), "%.*s", (int)value_n, (const char *)value);
        if (name_n == 5 && memcmp(name, ":path", 5) == 0)
                (void)snprintf(c->path, sizeof(c->path), "%.*s", (int)value_n, (const char *)value);
        buf_add(&c->head, name, name_n);
        buf_char(&c->head, 0);
        buf_add(&c->head, value, value_n);
        buf_char(&c->head, 0);
        return 0;
}

static int h2_data(nghttp2_session *s UNUSED, uint8_t flags UNUSED, int32_t stream, const uint8_t *data,
                   size_t n, void *cookie)
{
        buf_add(&call_of(cookie, stream)->body, data, n);
        return 0;
}

static void call_whole(struct call *c)
{
        c->whole = true;
        c->head_only = strcmp(c->method, "HEAD") == 0;
        c->peer->server->requests++;
        c->peer->served++;
        c->peer->server->handle(c);
}

static int h2_frame(nghttp2_session *s UNUSED, const nghttp2_frame *f, void *cookie)
{
        if ((f->hd.type == NGHTTP2_HEADERS || f->hd.type == NGHTTP2_DATA) &&
            (f->hd.flags & NGHTTP2_FLAG_END_STREAM))
                call_whole(call_of(cookie, f->hd.stream_id));
        return 0;
}

static struct buf reply_bodies[CALLS];
static size_t reply_bodies_n;

static ssize_t h2_body(nghttp2_session *s UNUSED, int32_t stream UNUSED, uint8_t *out, size_t most,
                       uint32_t *flags, nghttp2_data_source *source, void *cookie UNUSED)
{
        struct buf *b = source->ptr;
        size_t n = MIN_OF(most, b->n);

        memcpy(out, b->p, n);
        buf_drop(b, n);
        if (!b->n)
                *flags |= NGHTTP2_DATA_FLAG_EOF;
        return (ssize_t)n;
}

/* headers: "Name: value\r\n" lines; the body's length is told. */
UNUSED static void reply(struct call *c, int status, const char *headers, struct str body)
{
        struct peer *p = c->peer;
        struct str rest = str_of(headers);
        nghttp2_nv nv[128];
        char text[8], length[24], names[8192];
        size_t n = 0, used = 0;
        struct buf *own = &reply_bodies[reply_bodies_n % CALLS];
        nghttp2_data_provider data = { .source.ptr = own, .read_callback = h2_body };

        if (p->fd < 0)
                return;
        if (!p->h2) {
                buf_printf(&p->out, "HTTP/1.1 %d X\r\n%sContent-Length: %zu\r\n\r\n", status, headers,
                           body.n);
                if (!c->head_only)
                        buf_str(&p->out, body);
                peer_flush(p);
                return;
        }
        reply_bodies_n++;
        own->max = 1 << 26;
        buf_reset(own);
        buf_str(own, body);
        (void)snprintf(text, sizeof(text), "%d", status);
        (void)snprintf(length, sizeof(length), "%zu", body.n);
        nv[n++] = (nghttp2_nv){ (uint8_t *)(uintptr_t) ":status", (uint8_t *)text, 7, strlen(text), 0 };
        while (rest.n) {
                struct str line = str_trim(str_cut(&rest, '\n')), name = str_cut(&line, ':');

                line = str_trim(line);
                for (size_t i = 0; i < name.n; i++)
                        names[used + i] = (char)(name.p[i] >= 'A' && name.p[i] <= 'Z' ? name.p[i] + 32
                                                                                      : name.p[i]);
                if (strncmp(names + used, "connection", 10) != 0)
                        nv[n++] = (nghttp2_nv){ (uint8_t *)names + used, (uint8_t *)(uintptr_t)line.p, name.n,
                                                line.n, 0 };
                used += name.n;
        }
        nv[n++] = (nghttp2_nv){ (uint8_t *)(uintptr_t) "content-length", (uint8_t *)length, 14,
                                strlen(length), 0 };
        (void)nghttp2_submit_response(p->h2, c->stream, nv, n, body.n && !c->head_only ? &data : NULL);
        h2_flush(p);
}

static void h2_start(struct peer *p)
{
        nghttp2_session_callbacks *calls;
        nghttp2_option *option;
        nghttp2_settings_entry settings[] = { ROW(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS,
                                                  p->server->no_streams    ? 0
                                                  : p->server->max_streams ? p->server->max_streams
                                                                           : 100) };

        assert_int_equal(nghttp2_session_callbacks_new(&calls), 0);
        nghttp2_session_callbacks_set_send_callback(calls, h2_out);
        nghttp2_session_callbacks_set_on_begin_headers_callback(calls, h2_begin);
        nghttp2_session_callbacks_set_on_header_callback(calls, h2_header);
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(calls, h2_data);
        nghttp2_session_callbacks_set_on_frame_recv_callback(calls, h2_frame);
        assert_int_equal(nghttp2_option_new(&option), 0);
        nghttp2_option_set_max_send_header_block_length(option, 1 << 20);
        assert_int_equal(nghttp2_session_server_new2(&p->h2, calls, p, option), 0);
        nghttp2_option_del(option);
        nghttp2_session_callbacks_del(calls);
        (void)nghttp2_submit_settings(p->h2, 0, settings, 1);
        h2_flush(p);
}

static void peer_fed(struct peer *p, struct str bytes)
{
        struct error err;

        if (p->server->raw && p->server->raw(p, bytes))
                return;
        if (p->h2) {
                p->entered = true;
                if (nghttp2_session_mem_recv(p->h2, (const uint8_t *)bytes.p, bytes.n) < 0)
                        p->closing = true;
                p->entered = false;
                h2_flush(p);
                return;
        }
        while (bytes.n && p->fd >= 0) {
                size_t used;

                if (http_codec_feed(&p->codec, bytes, &used, &err) < 0) {
                        peer_close(p);
                        return;
                }
                bytes = (struct str){ bytes.p + used, bytes.n - used };
                if (p->codec.message.complete) {
                        struct call *c = call_new(p, 0);

                        (void)snprintf(c->method, sizeof(c->method), "%s",
                                       http_method_name(&p->codec.message));
                        (void)snprintf(c->path, sizeof(c->path), STR_FMT,
                                       STR_ARG(buf_view(&p->codec.message.target)));
                        buf_str(&c->head, buf_view(&p->codec.message.head));
                        buf_str(&c->body, buf_view(&p->codec.message.body));
                        http_codec_next(&p->codec);
                        call_whole(c);
                }
        }
}

static void peer_event(void *cookie, int events)
{
        struct peer *p = cookie;
        char space[65536];

        if (p->ssl && !p->accepted) {
                int r = SSL_accept(p->ssl);
                const unsigned char *agreed = NULL;
                unsigned n = 0;

                if (r <= 0) {
                        if (SSL_get_error(p->ssl, r) != SSL_ERROR_WANT_READ)
                                peer_close(p);
                        ERR_clear_error();
                        return;
                }
                p->accepted = true;
                p->resumed = SSL_session_reused(p->ssl) == 1;
                SSL_get0_alpn_selected(p->ssl, &agreed, &n);
                (void)snprintf(p->alpn, sizeof(p->alpn), "%.*s", (int)n, (const char *)agreed);
                if (n == 2)
                        h2_start(p);
                peer_flush(p);
        }
        if (events & LOOP_WRITABLE)
                peer_flush(p);
        while (p->fd >= 0) {
                ssize_t n = p->ssl ? SSL_read(p->ssl, space, sizeof(space))
                                   : recv(p->fd, space, sizeof(space), 0);

                if (n > 0) {
                        peer_fed(p, (struct str){ space, (size_t)n });
                        continue;
                }
                if (!(p->ssl ? SSL_get_error(p->ssl, (int)n) == SSL_ERROR_WANT_READ
                             : n < 0 && errno == EAGAIN))
                        peer_close(p);
                ERR_clear_error();
                return;
        }
}

static void on_accept(void *cookie, int events UNUSED)
{
        struct server *s = cookie;
        struct error err;
        int fd, on = 1;

        while ((fd = accept4(s->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
                struct peer *p = &s->peers[s->peers_n++];

                assert_true(s->peers_n < PEERS);
                *p = (struct peer){ .server = s, .fd = fd, .out = BUF_INIT(1 << 26) };
                http_codec_init(&p->codec, true, 65536, 1 << 26);
                (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
                if (s->tls) {
                        p->ssl = SSL_new(s->tls);
                        SSL_set_fd(p->ssl, fd);
                        SSL_set_mode(p->ssl,
                                     SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_ENABLE_PARTIAL_WRITE);
                        SSL_set_accept_state(p->ssl);
                }
                assert_int_equal(loop_io_open(loop, fd, peer_event, p, &p->io, &err), 0);
                loop_io_want(p->io, LOOP_READABLE);
                if (s->accepted)
                        s->accepted(p);
                if (s->http2 && !s->tls && p->fd >= 0)
                        h2_start(p);
        }
}

UNUSED static void server_listen(struct server *s, const char *address, uint16_t at_port)
{
        struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(at_port) };
        socklen_t size = sizeof(at);
        struct error err;
        int on = 1;

        assert_int_equal(inet_pton(AF_INET, address, &at.sin_addr), 1);
        s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        (void)setsockopt(s->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        assert_int_equal(bind(s->fd, (struct sockaddr *)&at, size), 0);
        assert_int_equal(listen(s->fd, 512), 0);
        assert_int_equal(getsockname(s->fd, (struct sockaddr *)&at, &size), 0);
        s->port = ntohs(at.sin_port);
        assert_int_equal(loop_io_open(loop, s->fd, on_accept, s, &s->io, &err), 0);
        loop_io_want(s->io, LOOP_READABLE);
}

UNUSED static void server_stop_listening(struct server *s)
{
        if (!s->io)
                return;
        loop_io_close(s->io);
        (void)close(s->fd);
        s->io = NULL;
        s->fd = -1;
}

UNUSED static size_t server_open(const struct server *s)
{
        size_t n = 0;

        for (size_t i = 0; i < s->peers_n; i++)
                n += s->peers[i].fd >= 0;
        return n;
}

UNUSED static void calls_forget(void)
{
        for (size_t i = 0; i < server.calls_n; i++) {
                buf_done(&server.calls[i].head);
                buf_done(&server.calls[i].body);
        }
        server.calls_n = 0;
}

UNUSED static void server_done(struct server *s)
{
        server_stop_listening(s);
        for (size_t i = 0; i < s->peers_n; i++)
                peer_close(&s->peers[i]);
        SSL_CTX_free(s->tls);
        s->tls = NULL;
        calls_forget();
        for (size_t i = 0; i < CALLS; i++)
                buf_done(&reply_bodies[i]);
        s->peers_n = 0;
}

/* ---- TLS ---------------------------------------------------------------- */

static int choose_alpn(SSL *ssl UNUSED, const unsigned char **out, unsigned char *out_n,
                       const unsigned char *in, unsigned in_n, void *cookie)
{
        const struct server *s = cookie;
        const unsigned char *own = (const unsigned char *)(s->http2 ? "\x02h2" : "\x08http/1.1");

        return SSL_select_next_proto((unsigned char **)(uintptr_t)out, out_n, own, own[0] + 1U, in, in_n) ==
                               OPENSSL_NPN_NEGOTIATED
                       ? SSL_TLSEXT_ERR_OK
                       : SSL_TLSEXT_ERR_NOACK;
}

UNUSED static SSL_CTX *server_tls(struct server *s, const struct identity *i)
{
        SSL_CTX *x = SSL_CTX_new(TLS_server_method());

        assert_int_equal(SSL_CTX_use_certificate(x, i->cert), 1);
        assert_int_equal(SSL_CTX_use_PrivateKey(x, i->key), 1);
        (void)SSL_CTX_set_session_id_context(x, (const unsigned char *)"t", 1);
        SSL_CTX_set_alpn_select_cb(x, choose_alpn, s);
        return x;
}

/* ---- the client's side -------------------------------------------------- */

static void too_late(struct task *t UNUSED, usec now UNUSED)
{
        overdue = true;
        if (under_way[0])
                print_error("overdue: %s\n", under_way);
        loop_stop(loop);
}

static void on_wake(struct task *t UNUSED, usec now UNUSED)
{
        struct completion c;

        while (port_take(&c)) {
                assert_true(done_n < MOST);
                done[done_n].c = c;
                assert_true(c.head.n < sizeof(done[done_n].head) || c.failed);
                if (c.head.n)
                        memcpy(done[done_n].head, c.head.p, MIN_OF(c.head.n, sizeof(done[done_n].head)));
                done[done_n].c.head.p = done[done_n].head;
                (void)snprintf(done[done_n].body, sizeof(done[done_n].body), STR_FMT, STR_ARG(c.body));
                done_n++;
        }
        if (done_n >= wanted && !until)
                loop_stop(loop);
}

/* Asks the condition after each pass. */
static struct task asker;
static void on_ask(struct task *t, usec now UNUSED)
{
        if (until && until())
                loop_stop(loop);
        else if (until)
                loop_ready(loop, t);
}

UNUSED static void run_until(bool (*condition)(void))
{
        until = condition;
        loop_arm(loop, &watchdog, clock_monotonic(&system_clock) + 20 * USEC_SEC);
        loop_ready(loop, &asker);
        loop_run(loop);
        loop_forget(loop, &watchdog);
        loop_forget(loop, &asker);
        until = NULL;
        assert_false(overdue);
}

static bool enough(void) { return done_n >= wanted; }

UNUSED static void await(size_t n)
{
        wanted = n;
        if (done_n >= n)
                return;
        loop_arm(loop, &watchdog, clock_monotonic(&system_clock) + 20 * USEC_SEC);
        while (!enough() && !overdue)
                loop_run(loop);
        loop_forget(loop, &watchdog);
        assert_false(overdue);
}

UNUSED static struct buf *message_of(uint64_t tag, struct str body)
{
        struct buf *m = &messages[tag];

        m->max = 1 << 26;
        buf_reset(m);
        assert_true(buf_reserve(m, HTTP_HEADROOM));
        m->n = HTTP_HEADROOM;
        buf_str(m, body);
        return m;
}

UNUSED static void submit_request(uint64_t tag, struct http_request q)
{
        struct error err;

        q.target = q.target ? q.target : target;
        q.message = q.message ? q.message : message_of(tag, STR("body"));
        if (port_submit(&wake, tag, &q, &err) < 0)
                fail_msg("%s", err.text);
}

UNUSED static void submit(uint64_t tag)
{
        submit_request(tag, (struct http_request){ .headers = STR("X-Id: 1\r\n") });
}

UNUSED static const struct completion *request(void)
{
        submit(0);
        await(done_n + 1);
        return &done[done_n - 1].c;
}

UNUSED static void answer_ok(struct call *c) { reply(c, 200, "", STR("ok")); }
UNUSED static void answer_nothing(struct call *c UNUSED) {}

UNUSED static int client_setup(void)
{
        struct error err;

        (void)signal(SIGPIPE, SIG_IGN); /* the test server's TLS writes */
        overdue = false;
        done_n = wanted = 0;
        until = NULL;
        memset(&server, 0, sizeof(server));
        server.fd = -1;
        server.handle = answer_ok;
        watchdog = (struct task){ .turn = too_late };
        asker = (struct task){ .turn = on_ask };
        wake = (struct task){ .turn = on_wake };
        if (loop_new(&loop, &err) < 0 || http_client_new(&client, loop, &err) < 0)
                return -1;
        client_port = http_client_port(client);
        return 0;
}

UNUSED static int client_teardown(void)
{
        port_release_all();
        target = http_target_free(target);
        client = http_client_free(client);
        loop_forget(loop, &wake);
        loop_forget(loop, &asker);
        server_done(&server);
        for (size_t i = 0; i < MOST; i++)
                buf_done(&messages[i]);
        loop = loop_free(loop);
        return 0;
}

UNUSED static void aim(struct http_target_config config)
{
        struct error err;

        config.url = config.url.n ? config.url : str_of(url);
        config.max_connections = config.max_connections ? config.max_connections : 4;
        config.connect_timeout = config.connect_timeout ? config.connect_timeout : 5 * USEC_SEC;
        config.answer_max = config.answer_max ? config.answer_max : 100;
        if (http_target_new(&target, client, &config, &err) < 0)
                fail_msg("%s", err.text);
}

/* TEST_FILTER=name runs those alone that match. */
UNUSED static void filter_tests(void)
{
        if (getenv("TEST_FILTER"))
                cmocka_set_test_filter(getenv("TEST_FILTER"));
}
