#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include "http/server/inside.h"

static const usec ACCEPT_AGAIN = 100 * USEC_MSEC;

uint16_t http_server_port(const struct http_server *s) { return s->port; }

size_t http_server_buffered(const struct http_server *s) { return s->stats.buffered; }

void http_server_stats(const struct http_server *s, struct http_server_stats *out)
{
        *out = s->stats;
        out->connections = s->calls_n + s->surplus_n;
        out->tls_failures = s->tls ? tls_server_failures(s->tls) : 0;
}

/* ---- accepting ---------------------------------------------------------- */

union address {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
};

static void set_peer(struct http_call *c, const union address *from)
{
        if (from->any.sa_family == AF_INET6)
                memcpy(c->peer, &from->v6.sin6_addr, sizeof(c->peer));
        else {
                c->peer[10] = c->peer[11] = 0xff;
                memcpy(c->peer + 12, &from->v4.sin_addr, 4);
        }
}

/* NULL: there are too many connections, or no memory. */
static struct http_call *call_new(struct http_server *s, int fd)
{
        bool surplus = s->calls_n >= s->config.max_connections && !room_for_connection(s);
        struct http_call *c;

        if (s->tls && !room_for_session(s))
                return NULL;
        if (surplus && (s->tls || s->surplus_n >= s->config.max_connections / 16 + 1))
                return NULL;
        c = calloc(1, sizeof(*c));
        if (c && s->tls && !(c->tls = tls_server_accept(s->tls, fd, loop_now(s->loop)))) {
                free(c);
                return NULL;
        }
        if (!c || loop_crowd_open(s->crowd, fd, call_event, c, &c->io, NULL) < 0) {
                if (c)
                        SSL_free(c->tls);
                free(c);
                return NULL;
        }
        c->server = s;
        c->fd = fd;
        c->surplus = surplus;
        c->quiet = NOT_QUIET;
        c->next = s->calls;
        if (c->next)
                c->next->previous = c;
        s->calls = c;
        *(surplus ? &s->surplus_n : &s->calls_n) += 1;
        return c;
}

/* False: no connection waits, or no file descriptor is free. */
static bool accept_one(struct http_server *s)
{
        union address from = { .v6 = { 0 } };
        socklen_t size = sizeof(from);
        struct http_call *c;
        int fd;

        if (room_may_come(s))
                return false; /* read from earlier connections first */
        fd = accept4(s->fd, &from.any, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
                return true;
        if (fd < 0 && errno != EAGAIN && s->io) {
                /* Retrying at once would spin. */
                loop_io_want(s->io, 0);
                loop_arm(s->loop, &s->accept_again, loop_now(s->loop) + ACCEPT_AGAIN);
        }
        if (fd < 0)
                return false;
        c = call_new(s, fd);
        if (!c) {
                s->stats.refused[HTTP_OVERLOADED]++;
                (void)close(fd);
                return true;
        }
        s->stats.accepted++;
        s->accepted_at = loop_now(s->loop);
        set_peer(c, &from);
        room_join(c);
        call_begin(c);
        return true;
}

static void on_accept(void *cookie, int events UNUSED)
{
        for (int batch = 0; batch < 64 && accept_one(cookie); batch++)
                ;
}

static void on_accept_again(struct task *t, usec now UNUSED)
{
        struct http_server *s = CONTAINER_OF(t, struct http_server, accept_again);

        if (s->io)
                loop_io_want(s->io, LOOP_READABLE);
}

/* getaddrinfo takes any number, and what is above 65535 as the rest of a division. */
static bool is_port(struct str text)
{
        int64_t n;

        return text.n && text.p[0] >= '0' && text.p[0] <= '9' && str_to_int64(text, &n) && n <= UINT16_MAX;
}

static int listen_on(const char *address, uint16_t *port, struct error *err)
{
        struct str host = str_of(address);
        const char *colon = strrchr(address, ':');
        struct addrinfo hints = { .ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV,
                                  .ai_socktype = SOCK_STREAM },
                        *found = NULL;
        FREE_AT_END char *name = NULL;
        int fd = -1, on = 1, off = 0, r;
        union {
                struct sockaddr any;
                struct sockaddr_in v4;
                struct sockaddr_in6 v6;
        } bound = { .v6 = { 0 } };
        socklen_t size = sizeof(bound);

        if (!colon || !is_port(str_of(colon + 1)))
                return error_set(err, ERROR_INVALID,
                                 "listen on \"%s\": expected ADDRESS:PORT with a port from 0 to 65535",
                                 address);
        host.n = (size_t)(colon - address);
        if (host.n >= 2 && host.p[0] == '[' && host.p[host.n - 1] == ']')
                host = (struct str){ host.p + 1, host.n - 2 };
        name = str_dup(host.n ? host : STR("::"));
        if (!name)
                return error_memory(err);
        r = getaddrinfo(name, colon + 1, &hints, &found);
        if (r != 0)
                return error_set(
                        err, ERROR_INVALID,
                        "listen on \"%s\": %s: expected an address such as 127.0.0.1 or [::1], or none "
                        "before the colon for all",
                        address, gai_strerror(r));
        fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0 && found->ai_family == AF_INET6 && host.n == 0) {
                /* This machine has no IPv6: listen on every IPv4 address. */
                freeaddrinfo(found);
                found = NULL;
                if (getaddrinfo("0.0.0.0", colon + 1, &hints, &found) != 0)
                        return error_set(err, ERROR_SYSTEM, "listen on \"%s\"", address);
                fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        }
        if (fd >= 0) {
                (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
                /* accepted sockets inherit it */
                (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
                if (found->ai_family == AF_INET6)
                        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
        }
        if (fd < 0 || bind(fd, found->ai_addr, found->ai_addrlen) < 0 || listen(fd, 4096) < 0 ||
            getsockname(fd, &bound.any, &size) < 0) {
                (void)error_errno(err, errno, "listen on \"%s\"", address);
                if (fd >= 0)
                        (void)close(fd);
                freeaddrinfo(found);
                return -1;
        }
        freeaddrinfo(found);
        *port = ntohs(bound.any.sa_family == AF_INET6 ? bound.v6.sin6_port : bound.v4.sin_port);
        return fd;
}

/* ---- the server --------------------------------------------------------- */

static void on_linger_end(struct task *t, usec now UNUSED)
{
        http_server_drain(CONTAINER_OF(t, struct http_server, linger_end));
}

static void set_defaults(struct http_server_config *c)
{
        c->headers_max = c->headers_max ? c->headers_max : 256;
        c->max_connections = c->max_connections ? c->max_connections : 1024;
        c->buffered_max = c->buffered_max ? c->buffered_max : (size_t)256 << 20;
        c->idle_timeout = c->idle_timeout ? c->idle_timeout : USEC_MINUTE;
        c->head_timeout = c->head_timeout ? c->head_timeout : c->idle_timeout;
        c->body_grace = c->body_grace ? c->body_grace : c->idle_timeout;
        c->body_rate = c->body_rate ? c->body_rate : 1024;
        c->write_timeout = c->write_timeout ? c->write_timeout : USEC_MINUTE;
        c->write_rate = c->write_rate ? c->write_rate : 1024;
        c->half_close = c->half_close ? c->half_close : 250 * USEC_MSEC;
}

static int set_trusted(struct http_server *s, struct error *err)
{
        s->trusted = calloc(s->config.trusted_n + 1, sizeof(*s->trusted));
        if (!s->trusted)
                return error_memory(err);
        for (size_t i = 0; i < s->config.trusted_n; i++)
                if (network_parse(str_of(s->config.trusted[i]), &s->trusted[i], err) < 0)
                        return error_wrap(err, "trusted proxies");
        s->config.trusted = NULL;
        return 0;
}

static int start(struct http_server *s, const char *address, struct error *err)
{
        if (set_trusted(s, err) < 0 ||
            (s->config.tls && tls_server_new(&s->tls, s->loop, s->config.tls, err) < 0))
                return -1;
        if (loop_crowd_new(&s->crowd, s->loop, EVENTS_IN_A_PASS, err) < 0)
                return -1;
        s->fd = listen_on(address, &s->port, err);
        if (s->fd < 0 || loop_io_open(s->loop, s->fd, on_accept, s, &s->io, err) < 0)
                return -1;
        s->config.address = NULL;
        s->config.tls = NULL;
        loop_io_want(s->io, LOOP_READABLE);
        return 0;
}

int http_server_new(struct http_server **out, struct loop *loop, const struct http_server_config *config,
                    struct error *err)
{
        struct http_server *s = calloc(1, sizeof(*s));

        if (!s)
                return error_memory(err);
        s->loop = loop;
        s->fd = -1;
        s->config = *config;
        set_defaults(&s->config);
        s->limits = (struct http_limits){ .target_max = config->target_max,
                                          .header_max = config->header_max,
                                          .head_max = config->head_max,
                                          .body_max = config->body_max,
                                          .headers_max = s->config.headers_max };
        s->accept_again.turn = on_accept_again;
        s->linger_end.turn = on_linger_end;
        if (start(s, config->address, err) < 0) {
                (void)http_server_free(s);
                return -1;
        }
        *out = s;
        return 0;
}

void http_server_drain(struct http_server *s)
{
        if (s->draining)
                return;
        loop_forget(s->loop, &s->linger_end);
        while (accept_one(s)) /* their clients believe that they are connected */
                ;
        s->draining = true;
        loop_io_close(s->io);
        s->io = NULL;
        (void)close(s->fd);
        s->fd = -1;
        for (struct http_call *c = s->calls, *next; c; c = next) {
                next = c->next;
                if (c->phase != PHASE_IDLE || c->in_loop)
                        continue;
                if (call_has_input(c)) /* a request that is still in the socket is in flight */
                        call_phase(c, PHASE_HEAD);
                else if (c->requests)
                        call_close(c);
                else
                        call_phase(c, PHASE_IDLE);
        }
}

bool http_server_busy(const struct http_server *s) { return s->busy_n != 0; }

void http_server_linger(struct http_server *s, usec time)
{
        if (s->draining || s->lingering)
                return;
        s->lingering = true;
        loop_arm(s->loop, &s->linger_end, loop_now(s->loop) + time);
}

usec http_server_last_accepted(const struct http_server *s) { return s->accepted_at; }

struct http_server *http_server_free(struct http_server *s)
{
        if (!s)
                return NULL;
        loop_io_close(s->io);
        if (s->fd >= 0)
                (void)close(s->fd);
        loop_forget(s->loop, &s->accept_again);
        loop_forget(s->loop, &s->linger_end);
        while (s->calls)
                call_close(s->calls);
        s->crowd = loop_crowd_free(s->crowd);
        works_free(s);
        s->tls = tls_server_free(s->tls);
        free(s->trusted);
        free(s);
        return NULL;
}
