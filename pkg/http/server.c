#include "http/server.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_SIZE = 65536 };
static const usec LINGER = USEC_SEC, ACCEPT_AGAIN = 100 * USEC_MSEC;

struct http_call {               /* a connection; at most one request of it is worked on */
        struct http_call *next, *previous;
        struct http_server *server;
        struct loop_io *io;
        int fd;
        struct http_codec codec;
        struct buf in;           /* read, and not yet fed: the next request's */
        struct buf out;
        size_t written;
        struct task timer;
        bool handling;           /* the handler has the request */
        bool closing;            /* once out is written */
        bool linger;             /* then what still comes is read and dropped for a moment, or the kernel would reset the answer away */
        bool head;               /* answer without a body */
        bool left;               /* the client went away while the handler worked */
        bool feeding;
        void *user;
};

struct http_server {
        struct loop *loop;
        struct http_server_config config;
        int fd;
        uint16_t port;
        struct loop_io *io;
        struct http_call *calls;
        uint32_t calls_n;
        bool draining;
        struct task accept_again;
        char *space;
};

uint16_t http_server_port(const struct http_server *s) { return s->port; }
const struct http_message *http_call_message(const struct http_call *c) { return &c->codec.message; }
void http_call_set(struct http_call *c, void *user) { c->user = user; }
void *http_call_get(const struct http_call *c) { return c->user; }

static const char *status_text(int status)
{
        switch (status) {
        case 200: return "OK";
        case 202: return "Accepted";
        case 204: return "No Content";
        case 400: return "Bad Request";
        case 404: return "Not Found";
        case 405: return "Method Not Allowed";
        case 408: return "Request Timeout";
        case 413: return "Content Too Large";
        case 429: return "Too Many Requests";
        case 431: return "Request Header Fields Too Large";
        case 500: return "Internal Server Error";
        case 501: return "Not Implemented";
        case 503: return "Service Unavailable";
        case 505: return "HTTP Version Not Supported";
        default: return "Status";
        }
}

static void call_close(struct http_call *c)
{
        struct http_server *s = c->server;

        if (c->handling && s->config.gone)
                s->config.gone(s->config.cookie, c);
        loop_io_close(c->io);
        (void)close(c->fd);
        loop_forget(s->loop, &c->timer);
        http_codec_done(&c->codec);
        buf_done(&c->in);
        buf_done(&c->out);
        if (c->next)
                c->next->previous = c->previous;
        if (c->previous)
                c->previous->next = c->next;
        else
                s->calls = c->next;
        s->calls_n--;
        free(c);
}

/* The client is gone. While a handler works the call must stay, unless the handler is told. */
static void call_lost(struct http_call *c)
{
        if (c->handling && !c->server->config.gone) {
                c->left = true;
                loop_io_want(c->io, 0);
        } else
                call_close(c);
}

static void expect(struct http_call *c)
{
        usec idle = c->server->config.idle_timeout;

        loop_arm(c->server->loop, &c->timer, c->handling ? USEC_NEVER : loop_now(c->server->loop) + idle);
}

/* False: the call is gone. */
static bool call_write(struct http_call *c)
{
        while (c->written < c->out.n) {
                ssize_t n = send(c->fd, c->out.p + c->written, c->out.n - c->written, MSG_NOSIGNAL);

                if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
                        loop_io_want(c->io, LOOP_READABLE | LOOP_WRITABLE);
                        return true;
                }
                if (n < 0) {
                        call_close(c);
                        return false;
                }
                c->written += (size_t)n;
        }
        buf_reset(&c->out);
        c->written = 0;
        if (c->closing && c->linger) {
                (void)shutdown(c->fd, SHUT_WR);
                c->codec.started = false;
                loop_arm(c->server->loop, &c->timer, loop_now(c->server->loop) + LINGER);
                loop_io_want(c->io, LOOP_READABLE);
                return true;
        }
        if (c->closing) {
                call_close(c);
                return false;
        }
        loop_io_want(c->io, LOOP_READABLE);
        return true;
}

static void put_answer(struct http_call *c, int status, struct str content_type, struct str headers, struct str body, bool keep)
{
        buf_printf(&c->out, "HTTP/1.1 %d %s\r\n", status, status_text(status));
        if (content_type.n)
                buf_printf(&c->out, "Content-Type: " STR_FMT "\r\n", STR_ARG(content_type));
        buf_str(&c->out, headers);
        if (status != 204)
                buf_printf(&c->out, "Content-Length: %zu\r\n", body.n);
        buf_text(&c->out, keep ? "\r\n" : "Connection: close\r\n\r\n");
        if (!c->head && status != 204)
                buf_str(&c->out, body);
        c->closing = c->closing || !keep || c->out.failed;
}

static void refuse(struct http_call *c, int status, const char *why)
{
        c->head = false;
        c->linger = true;
        put_answer(c, status, STR("text/plain"), (struct str){ 0 }, str_of(why), false);
        (void)call_write(c);
}

/* A missing Host is ours to refuse; the parser lets it pass. */
static const char *bad_request(const struct http_message *m)
{
        size_t hosts = 0;

        for (const char *p = m->head.p, *end = p ? p + m->head.n : NULL; p && p < end;) {
                size_t key = strlen(p), value = strlen(p + key + 1);

                hosts += str_equal_nocase((struct str){ p, key }, STR("Host"));
                p += key + value + 2;
        }
        return hosts == 1 ? NULL : "exactly one Host header is needed\n";
}

/* Feeds what was read until a request is whole. False: the call is gone. */
static bool call_feed(struct http_call *c)
{
        struct error err;
        const char *bad;
        size_t used;

        while (!c->handling && !c->closing && c->in.n) {
                if (!c->codec.started)
                        expect(c); /* its time to arrive begins now */
                if (http_codec_feed(&c->codec, buf_view(&c->in), &used, &err) < 0) {
                        refuse(c, c->codec.refuse_status, "bad request\n");
                        return false;
                }
                buf_drop(&c->in, used);
                if (!c->codec.message.complete)
                        break;
                c->head = c->codec.message.method == HTTP_HEAD;
                if ((bad = bad_request(&c->codec.message))) {
                        refuse(c, 400, bad);
                        return false;
                }
                c->handling = true;
                expect(c);
                c->feeding = true;
                c->server->config.handle(c->server->config.cookie, c);
                /* A handler that answered at once left the writing to us. */
                c->feeding = false;
                if (!c->handling && !call_write(c))
                        return false;
        }
        return true;
}

void http_call_reply(struct http_call *c, int status, struct str content_type, struct str headers, struct str body)
{
        struct http_server *s = c->server;

        c->handling = false;
        if (c->left) {
                call_close(c);
                return;
        }
        put_answer(c, status, content_type, headers, body, c->codec.message.keep_alive && !s->draining);
        http_codec_next(&c->codec);
        expect(c);
        if (c->feeding)
                return;
        if (call_write(c))
                (void)call_feed(c);
}

static void call_read(struct http_call *c)
{
        for (;;) {
                ssize_t n = recv(c->fd, c->server->space, READ_SIZE, 0);

                if (n < 0 && (errno == EAGAIN || errno == EINTR))
                        return;
                if (n <= 0) {
                        call_lost(c);
                        return;
                }
                if (c->closing)
                        continue;
                buf_add(&c->in, c->server->space, (size_t)n);
                if (c->in.failed) {
                        /* More pipelined bytes than a request may have. */
                        call_lost(c);
                        return;
                }
                if (!call_feed(c) || n < READ_SIZE)
                        return;
        }
}

static void on_call(void *cookie, int events)
{
        struct http_call *c = cookie;

        if (c->out.n && (events & LOOP_WRITABLE)) {
                if (!call_write(c) || !call_feed(c))
                        return;
        }
        if (events & LOOP_READABLE)
                call_read(c);
}

static void on_idle(struct task *t, usec now UNUSED)
{
        struct http_call *c = CONTAINER_OF(t, struct http_call, timer);

        if (c->codec.started)
                refuse(c, 408, "the request did not arrive in time\n");
        else
                call_close(c);
}

static void on_accept(void *cookie, int events UNUSED)
{
        struct http_server *s = cookie;

        for (int batch = 0; batch < 64; batch++) {
                int fd = accept4(s->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), on = 1;
                struct http_call *c;

                if (fd < 0 && errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
                        /* No descriptor to be had: asking again at once would only spin. */
                        loop_io_want(s->io, 0);
                        loop_arm(s->loop, &s->accept_again, loop_now(s->loop) + ACCEPT_AGAIN);
                }
                if (fd < 0)
                        return;
                c = s->calls_n < s->config.max_connections ? calloc(1, sizeof(*c)) : NULL;
                if (!c || loop_io_open(s->loop, fd, on_call, c, &c->io, NULL) < 0) {
                        free(c);
                        (void)close(fd);
                        continue;
                }
                (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
                c->server = s;
                c->fd = fd;
                c->timer.turn = on_idle;
                c->in.max = s->config.head_max + s->config.body_max + READ_SIZE;
                c->out.max = (size_t)16 << 20;
                http_codec_init(&c->codec, true, s->config.head_max, s->config.body_max);
                c->codec.refuse_large_body = true;
                c->next = s->calls;
                if (c->next)
                        c->next->previous = c;
                s->calls = c;
                s->calls_n++;
                expect(c);
                loop_io_want(c->io, LOOP_READABLE);
        }
}

static void on_accept_again(struct task *t, usec now UNUSED)
{
        struct http_server *s = CONTAINER_OF(t, struct http_server, accept_again);

        if (s->io)
                loop_io_want(s->io, LOOP_READABLE);
}

static int listen_on(const char *address, uint16_t *port, struct error *err)
{
        struct str host = str_of(address);
        const char *colon = strrchr(address, ':');
        struct addrinfo hints = { .ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM }, *found = NULL;
        FREE_AT_END char *name = NULL;
        int fd = -1, on = 1, off = 0, r;
        union { struct sockaddr any; struct sockaddr_in v4; struct sockaddr_in6 v6; } bound = { .v6 = { 0 } };
        socklen_t size = sizeof(bound);

        if (!colon)
                return error_set(err, ERROR_INVALID, "listen on \"%s\": expected ADDRESS:PORT", address);
        host.n = (size_t)(colon - address);
        if (host.n >= 2 && host.p[0] == '[' && host.p[host.n - 1] == ']')
                host = (struct str){ host.p + 1, host.n - 2 };
        name = str_dup(host.n ? host : STR("::"));
        if (!name)
                return error_memory(err);
        r = getaddrinfo(name, colon + 1, &hints, &found);
        if (r != 0)
                return error_set(err, ERROR_INVALID, "listen on \"%s\": %s", address, gai_strerror(r));
        fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0 && found->ai_family == AF_INET6 && host.n == 0) {
                /* No IPv6 here: every IPv4 address, then. */
                freeaddrinfo(found);
                found = NULL;
                if (getaddrinfo("0.0.0.0", colon + 1, &hints, &found) != 0)
                        return error_set(err, ERROR_SYSTEM, "listen on \"%s\"", address);
                fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        }
        if (fd >= 0) {
                (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
                if (found->ai_family == AF_INET6)
                        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
        }
        if (fd < 0 || bind(fd, found->ai_addr, found->ai_addrlen) < 0 || listen(fd, 1024) < 0 || getsockname(fd, &bound.any, &size) < 0) {
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

int http_server_new(struct http_server **out, struct loop *loop, const struct http_server_config *config, struct error *err)
{
        struct http_server *s = calloc(1, sizeof(*s));

        if (!s)
                return error_memory(err);
        s->loop = loop;
        s->config = *config;
        s->config.max_connections = config->max_connections ? config->max_connections : 1024;
        s->config.idle_timeout = config->idle_timeout ? config->idle_timeout : USEC_MINUTE;
        s->accept_again.turn = on_accept_again;
        s->space = malloc(READ_SIZE);
        s->fd = s->space ? listen_on(config->address, &s->port, err) : error_memory(err);
        if (s->fd < 0 || loop_io_open(loop, s->fd, on_accept, s, &s->io, err) < 0) {
                (void)http_server_free(s);
                return -1;
        }
        loop_io_want(s->io, LOOP_READABLE);
        *out = s;
        return 0;
}

void http_server_drain(struct http_server *s)
{
        if (s->draining)
                return;
        s->draining = true;
        loop_io_close(s->io);
        s->io = NULL;
        (void)close(s->fd);
        s->fd = -1;
        for (struct http_call *c = s->calls, *next; c; c = next) {
                next = c->next;
                if (!c->handling && !c->codec.started && !c->out.n)
                        call_close(c);
        }
}

struct http_server *http_server_free(struct http_server *s)
{
        if (!s)
                return NULL;
        loop_io_close(s->io);
        if (s->fd >= 0)
                (void)close(s->fd);
        loop_forget(s->loop, &s->accept_again);
        while (s->calls)
                call_close(s->calls);
        free(s->space);
        free(s);
        return NULL;
}
