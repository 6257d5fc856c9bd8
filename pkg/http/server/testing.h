/* For the server's tests alone: a server and clients of bare bytes on one loop, plain or over TLS, and the
 * cases of testdata/requests.txt. */
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "http/server/server.h"
#include "tests/support/identity.h"

static struct loop *loop;
static struct http_server *server;
static bool overdue;
static struct task watchdog;
static char under_way[256]; /* what is being tried, for the message when it does not end */

UNUSED static void too_late(struct task *t UNUSED, usec now UNUSED)
{
        overdue = true;
        loop_stop(loop);
}

UNUSED static void run(void)
{
        loop_arm(loop, &watchdog, clock_monotonic(&system_clock) + 20 * USEC_SEC);
        loop_run(loop);
        loop_forget(loop, &watchdog);
        if (overdue)
                fail_msg("overdue: %s", under_way);
}

/* ---- with and without TLS ----------------------------------------------- */

static bool over_tls; /* the flavour */
static char tls_folder[] = "/tmp/sluice-server-XXXXXX", tls_cert[64], tls_key[64], tls_ca[64];
static SSL_CTX *peer_tls;

UNUSED static int flavour_plain(void **state UNUSED)
{
        over_tls = false;
        return 0;
}

UNUSED static int flavour_tls(void **state UNUSED)
{
        struct identity i = identity_new((struct identity_config){
                .organization = "Sluice", .name = "server", .alternatives = "DNS:localhost" });

        (void)signal(SIGPIPE, SIG_IGN); /* the peers' sessions */
        memcpy(tls_folder + sizeof(tls_folder) - 7, "XXXXXX", 6);
        assert_non_null(mkdtemp(tls_folder));
        (void)snprintf(tls_cert, sizeof(tls_cert), "%s/tls.crt", tls_folder);
        (void)snprintf(tls_key, sizeof(tls_key), "%s/tls.key", tls_folder);
        (void)snprintf(tls_ca, sizeof(tls_ca), "%s/ca.crt", tls_folder);
        identity_write(&i, false, tls_cert);
        identity_write(&i, true, tls_key);
        identity_done(&i);
        peer_tls = SSL_CTX_new(TLS_client_method());
        over_tls = true;
        return 0;
}

UNUSED static int flavour_tls_done(void **state UNUSED)
{
        SSL_CTX_free(peer_tls);
        peer_tls = NULL;
        (void)unlink(tls_cert);
        (void)unlink(tls_key);
        (void)unlink(tls_ca);
        (void)rmdir(tls_folder);
        over_tls = false;
        return 0;
}

/* ---- a client of bare bytes --------------------------------------------- */

struct peer {
        int fd;
        SSL *tls;
        struct loop_io *io;
        struct buf in, say; /* said in pieces, one a pass */
        size_t said, piece;
        bool shut; /* ends its sending behind all that is said */
        struct task task;
        const char *until;
        size_t times;
        bool connected, closed, deaf;
};

static size_t count_of(const struct buf *in, const char *text)
{
        size_t found = 0;

        for (const char *at = in->p; at && (at = strstr(at, text)); at++)
                found++;
        return found;
}

static void peer_close_side(struct peer *p)
{
        p->closed = true;
        loop_io_want(p->io, 0);
        loop_forget(loop, &p->task);
        loop_stop(loop);
}

static ssize_t peer_write(struct peer *p, const char *at, size_t n)
{
        if (!p->tls)
                return send(p->fd, at, n, MSG_NOSIGNAL);
        ERR_clear_error();
        return SSL_write(p->tls, at, (int)n);
}

static void peer_turn(struct task *t, usec now UNUSED)
{
        struct peer *p = CONTAINER_OF(t, struct peer, task);
        size_t n = MIN_OF(p->piece, p->say.n - p->said);
        ssize_t sent = n && p->connected ? peer_write(p, p->say.p + p->said, n) : 0;

        if (!p->connected)
                return;
        if (sent > 0)
                p->said += (size_t)sent;
        if (p->said < p->say.n && (sent > 0 || p->tls || errno == EAGAIN))
                loop_ready(loop, t);
        else if (p->said == p->say.n && p->shut)
                (void)shutdown(p->fd, SHUT_WR);
}

static ssize_t peer_read(struct peer *p, char *space, size_t n)
{
        int r;

        if (!p->tls)
                return recv(p->fd, space, n, 0);
        ERR_clear_error();
        r = SSL_read(p->tls, space, (int)n);
        if (r > 0)
                return r;
        errno = EAGAIN;
        r = SSL_get_error(p->tls, r);
        return r == SSL_ERROR_WANT_READ || r == SSL_ERROR_WANT_WRITE ? -1 : 0;
}

static bool peer_shakes(struct peer *p)
{
        int r;

        ERR_clear_error();
        r = SSL_connect(p->tls);
        if (r == 1) {
                p->connected = true;
                loop_io_want(p->io, LOOP_READABLE);
                loop_ready(loop, &p->task);
                loop_stop(loop);
                return true;
        }
        r = SSL_get_error(p->tls, r);
        if (r == SSL_ERROR_WANT_READ || r == SSL_ERROR_WANT_WRITE)
                loop_io_want(p->io, r == SSL_ERROR_WANT_READ ? LOOP_READABLE : LOOP_WRITABLE);
        else
                peer_close_side(p);
        return false;
}

static void peer_event(void *cookie, int events UNUSED)
{
        struct peer *p = cookie;
        char space[4096];
        ssize_t n;

        if (!p->connected && !peer_shakes(p))
                return;
        if (p->deaf)
                return;
        while ((n = peer_read(p, space, sizeof(space))) > 0)
                buf_add(&p->in, space, (size_t)n);
        if (n == 0 || (n < 0 && errno != EAGAIN))
                peer_close_side(p);
        if (p->until && count_of(&p->in, p->until) >= p->times)
                loop_stop(loop);
}

static uint8_t peer_from = 1; /* the last byte of the peer's own address, 127.0.0.x */
UNUSED static void peer_start(struct peer *p)
{
        const struct sockaddr_in from = { .sin_family = AF_INET,
                                          .sin_addr.s_addr = htonl(INADDR_LOOPBACK - 1 + peer_from) };
        struct sockaddr_in to = { .sin_family = AF_INET,
                                  .sin_port = htons(http_server_port(server)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        struct error err;
        int on = 1;

        *p = (struct peer){ .fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
                            .in = BUF_INIT((size_t)64 << 20),
                            .say = BUF_INIT((size_t)64 << 20),
                            .piece = SIZE_MAX,
                            .task = { .turn = peer_turn } };
        assert_int_equal(bind(p->fd, (const struct sockaddr *)&from, sizeof(from)), 0);
        assert_int_equal(connect(p->fd, (struct sockaddr *)&to, sizeof(to)), 0);
        assert_int_equal(fcntl(p->fd, F_SETFL, O_NONBLOCK), 0);
        (void)setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        assert_int_equal(loop_io_open(loop, p->fd, peer_event, p, &p->io, &err), 0);
        p->connected = !over_tls;
        if (over_tls) {
                p->tls = SSL_new(peer_tls);
                (void)SSL_set_mode(p->tls,
                                   SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
                assert_int_equal(SSL_set_fd(p->tls, p->fd), 1);
        }
        loop_io_want(p->io, over_tls ? LOOP_WRITABLE : LOOP_READABLE);
}

UNUSED static void peer_connect(struct peer *p)
{
        peer_start(p);
        while (!p->connected && !p->closed)
                run();
}

UNUSED static void peer_say_bytes(struct peer *p, struct str bytes)
{
        buf_str(&p->say, bytes);
        peer_turn(&p->task, 0);
}

UNUSED static void peer_say(struct peer *p, const char *text) { peer_say_bytes(p, str_of(text)); }

/* Until the text has come so many times; NULL: until the server closes. */
UNUSED static const char *peer_await(struct peer *p, const char *until, size_t times)
{
        p->until = until;
        p->times = times;
        while (!p->closed && !(until && count_of(&p->in, until) >= times))
                run();
        return buf_view(&p->in).p;
}

UNUSED static void peer_done(struct peer *p)
{
        loop_forget(loop, &p->task);
        loop_io_close(p->io);
        SSL_free(p->tls);
        (void)close(p->fd);
        buf_done(&p->in);
        buf_done(&p->say);
}

/* ---- the cases ---------------------------------------------------------- */

#define CASES "pkg/http/server/testdata/requests.txt"

struct http_case {
        char *name;
        int statuses[16];
        size_t statuses_n;
        enum { CASE_OPEN, CASE_CLOSED, CASE_WAITS } end;
        struct buf bytes;
        char *contains[8];
        size_t contains_n;
};
static struct http_case *cases;
static size_t cases_n;

/* A further request, which is served where a case leaves the connection open. */
#define FURTHER "GET /further HTTP/1.1\r\nHost: h\r\n\r\n"

UNUSED static const struct http_limits case_limits = {
        .target_max = 1000, .header_max = 1000, .head_max = 4096, .body_max = 1000, .headers_max = 20
};

static void add_escaped(struct buf *out, struct str s)
{
        while (s.n) {
                unsigned byte;
                int repeat = 0, n = 0;

                if (s.n >= 2 && s.p[0] == '\\') {
                        size_t used = 2;

                        if (s.p[1] == 'x' && sscanf(s.p + 2, "%2x", &byte) == 1)
                                used = 4;
                        else
                                byte = (unsigned char)(s.p[1] == 'r'   ? '\r'
                                                       : s.p[1] == 'n' ? '\n'
                                                       : s.p[1] == 't' ? '\t'
                                                                       : s.p[1]);
                        buf_char(out, (char)byte);
                        s.p += used;
                        s.n -= used;
                } else if (s.p[0] == '{' && sscanf(s.p, "{%*c*%d}%n", &repeat, &n) == 1 && n) {
                        for (int i = 0; i < repeat; i++)
                                buf_char(out, s.p[1]);
                        s.p += n;
                        s.n -= (size_t)n;
                } else {
                        buf_char(out, *s.p++);
                        s.n--;
                }
        }
}

static void case_outcome(struct http_case *c, struct str rest)
{
        while (rest.n) {
                struct str word = str_cut(&rest, ' ');
                int64_t status;

                if (str_to_int64(word, &status))
                        c->statuses[c->statuses_n++] = (int)status;
                else
                        c->end = str_is(word, "open")     ? CASE_OPEN
                                 : str_is(word, "closed") ? CASE_CLOSED
                                                          : CASE_WAITS;
        }
}

UNUSED static int cases_load(void **state UNUSED)
{
        BUF_AT_END struct buf file = BUF_INIT(1 << 20);
        struct http_case *c = NULL;
        struct str rest;
        struct error err;

        if (buf_read_file(&file, CASES, &err) < 0)
                fail_msg("%s", err.text);
        rest = buf_view(&file);
        cases = calloc(1000, sizeof(*cases));
        while (rest.n) {
                struct str line = str_cut(&rest, '\n'),
                           text = line.n > 2 ? (struct str){ line.p + 2, line.n - 2 } : (struct str){ 0 };

                if (line.n >= 2 && line.p[0] == '=') {
                        c = &cases[cases_n++];
                        c->name = str_dup(text);
                        c->bytes.max = 1 << 20;
                } else if (c && line.n >= 2 && line.p[0] == ':')
                        case_outcome(c, text);
                else if (c && line.n >= 2 && line.p[0] == '>')
                        add_escaped(&c->bytes, text);
                else if (c && line.n >= 2 && line.p[0] == '~')
                        c->contains[c->contains_n++] = str_dup(text);
        }
        assert_true(cases_n >= 110);
        return 0;
}

UNUSED static int cases_free(void **state UNUSED)
{
        for (size_t i = 0; i < cases_n; i++) {
                free(cases[i].name);
                buf_done(&cases[i].bytes);
                for (size_t j = 0; j < cases[i].contains_n; j++)
                        free(cases[i].contains[j]);
        }
        free(cases);
        cases = NULL;
        cases_n = 0;
        return 0;
}

/* The answer of the cases' handler: what of the request a case may ask for, on one line. */
UNUSED static void case_answer(const struct http_message *m, struct buf *out)
{
        struct str host = http_message_header(m, STR("host"));

        buf_printf(out, "%s " STR_FMT " host=" STR_FMT " body=", http_method_name(m),
                   STR_ARG(buf_view(&m->target)), STR_ARG(host));
        for (size_t i = 0; i < m->body.n; i++)
                buf_char(out, m->body.p[i] > ' ' && m->body.p[i] < 0x7f ? m->body.p[i] : '_');
        buf_char(out, '\n');
}
