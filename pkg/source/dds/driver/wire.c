/* Connections that the program can cut, whatever the library is doing with them: each wait looks at the
 * line's descriptor, too. Once that is readable, everything fails, and nothing is tried again. */
#include "source/dds/driver/inside.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/uio.h>
#include <time.h>

/* A peer that is gone without a word is noticed after IDLE + COUNT * INTERVAL seconds. */
enum {
        WIRE_TYPE = 100,
        KEEPALIVE_IDLE = 4,
        KEEPALIVE_INTERVAL = 2,
        KEEPALIVE_COUNT = 2,
        UNACKNOWLEDGED_MS = 8000
};

struct wire {
        mongoc_stream_t stream; /* the first member */
        const struct dds_line *line;
        int fd;
        bool timed_out;
};

/* ---- waiting ------------------------------------------------------------ */

bool wire_is_cut(const struct dds_line *line)
{
        struct pollfd p = { .fd = line->cut, .events = POLLIN };

        return poll(&p, 1, 0) > 0;
}

bool wire_pause(const struct dds_line *line, int msec)
{
        struct pollfd p = { .fd = line->cut, .events = POLLIN };

        return poll(&p, 1, msec) == 0;
}

static int64_t now_ms(void)
{
        struct timespec t;

        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* until: in ms, monotonic. -1 with errno. */
static int wait_for(const struct dds_line *line, int fd, short events, int64_t until)
{
        struct pollfd p[2] = { { .fd = fd, .events = events }, { .fd = line->cut, .events = POLLIN } };

        for (;;) {
                int64_t left = until - now_ms();
                int n = poll(p, 2, left > 0 ? (int)(left > INT32_MAX ? INT32_MAX : left) : 0);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -1;
                if (p[1].revents) {
                        errno = ECONNABORTED;
                        return -1;
                }
                if (n > 0)
                        return 0;
                if (now_ms() >= until) {
                        errno = ETIMEDOUT;
                        return -1;
                }
        }
}

/* ---- the stream --------------------------------------------------------- */

static struct wire *wire_of(mongoc_stream_t *s) { return (struct wire *)(void *)s; }

static int wire_close(mongoc_stream_t *s)
{
        struct wire *w = wire_of(s);

        if (w->fd >= 0)
                (void)close(w->fd);
        w->fd = -1;
        return 0;
}

static void wire_destroy(mongoc_stream_t *s)
{
        (void)wire_close(s);
        bson_free(s);
}

static int wire_flush(mongoc_stream_t *s)
{
        (void)s;
        return 0;
}

/* 0: try again; -1 with errno. */
static int after_failure(struct wire *w, short events, int64_t until)
{
        if (errno == EINTR)
                return 0;
        if (errno != EAGAIN && errno != EWOULDBLOCK)
                return -1;
        if (wait_for(w->line, w->fd, events, until) == 0)
                return 0;
        w->timed_out = errno == ETIMEDOUT;
        return -1;
}

/* Moves the vector behind so many bytes. */
static void advance(mongoc_iovec_t **iov, size_t *count, size_t bytes)
{
        while (*count && bytes >= (*iov)->iov_len) {
                bytes -= (*iov)->iov_len;
                (*iov)++;
                (*count)--;
        }
        if (*count) {
                (*iov)->iov_base = (char *)(*iov)->iov_base + bytes;
                (*iov)->iov_len -= bytes;
        }
}

static ssize_t wire_writev(mongoc_stream_t *s, mongoc_iovec_t *iov, size_t count, int32_t timeout_msec)
{
        struct wire *w = wire_of(s);
        int64_t until = now_ms() + timeout_msec;
        ssize_t sum = 0;

        w->timed_out = false;
        while (count) {
                struct msghdr message = { .msg_iov = iov, .msg_iovlen = count > 64 ? 64 : count };
                ssize_t n = sendmsg(w->fd, &message, MSG_NOSIGNAL);

                if (n < 0 && after_failure(w, POLLOUT, until) < 0)
                        return -1;
                if (n > 0) {
                        sum += n;
                        advance(&iov, &count, (size_t)n);
                }
        }
        return sum;
}

static ssize_t wire_readv(mongoc_stream_t *s, mongoc_iovec_t *iov, size_t count, size_t min_bytes,
                          int32_t timeout_msec)
{
        struct wire *w = wire_of(s);
        int64_t until = now_ms() + timeout_msec;
        ssize_t sum = 0;

        w->timed_out = false;
        while (count) {
                ssize_t n = readv(w->fd, iov, (int)(count > 64 ? 64 : count));

                if (n == 0) {
                        errno = ECONNRESET;
                        return sum && (size_t)sum >= min_bytes ? sum : -1;
                }
                if (n < 0 && (size_t)sum >= min_bytes && sum)
                        return sum;
                if (n < 0 && after_failure(w, POLLIN, until) < 0)
                        return -1;
                if (n > 0) {
                        sum += n;
                        advance(&iov, &count, (size_t)n);
                        if ((size_t)sum >= min_bytes)
                                return sum;
                }
        }
        return sum;
}

static int wire_setsockopt(mongoc_stream_t *s, int level, int name, void *value, mongoc_socklen_t n)
{
        return setsockopt(wire_of(s)->fd, level, name, value, (socklen_t)n);
}

static bool wire_check_closed(mongoc_stream_t *s)
{
        struct wire *w = wire_of(s);
        char byte;
        ssize_t n = recv(w->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

        return wire_is_cut(w->line) || n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK);
}

static void wire_failed(mongoc_stream_t *s) { wire_destroy(s); }
static bool wire_timed_out(mongoc_stream_t *s) { return wire_of(s)->timed_out; }
static bool wire_should_retry(mongoc_stream_t *s)
{
        (void)s;
        return false; /* what can be waited for was waited for */
}

/* A line that was cut shows as a failure of each. */
static ssize_t wire_poll(mongoc_stream_poll_t *streams, size_t n, int32_t timeout)
{
        struct pollfd *p = bson_malloc0((n + 1) * sizeof(*p));
        ssize_t ready;

        for (size_t i = 0; i < n; i++)
                p[i] = (struct pollfd){ .fd = wire_of(streams[i].stream)->fd,
                                        .events = (short)streams[i].events };
        p[n] = (struct pollfd){ .fd = n ? wire_of(streams[0].stream)->line->cut : -1, .events = POLLIN };
        ready = poll(p, n + 1, timeout);
        for (size_t i = 0; i < n; i++)
                streams[i].revents = p[n].revents ? POLLERR | POLLHUP : p[i].revents;
        if (ready > 0 && p[n].revents)
                ready = (ssize_t)n;
        bson_free(p);
        return ready;
}

static mongoc_stream_t *wire_new(const struct dds_line *line, int fd)
{
        struct wire *w = bson_malloc0(sizeof(*w));

        w->stream = (mongoc_stream_t){ .type = WIRE_TYPE,
                                       .destroy = wire_destroy,
                                       .close = wire_close,
                                       .flush = wire_flush,
                                       .writev = wire_writev,
                                       .readv = wire_readv,
                                       .setsockopt = wire_setsockopt,
                                       .check_closed = wire_check_closed,
                                       .poll = wire_poll,
                                       .failed = wire_failed,
                                       .timed_out = wire_timed_out,
                                       .should_retry = wire_should_retry };
        w->line = line;
        w->fd = fd;
        return &w->stream;
}

/* ---- connecting --------------------------------------------------------- */

static void set(int fd, int level, int name, int value)
{
        (void)setsockopt(fd, level, name, &value, sizeof(value)); /* without it, it is only noticed later */
}

/* A peer that vanishes is noticed by the kernel: a server may think about an answer for as long as it likes.
 */
static void set_options(int fd)
{
        set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
        set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
        set(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE);
        set(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL);
        set(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_COUNT);
        set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS);
}

/* -1 with errno. */
static int connect_to(const struct dds_line *line, const struct addrinfo *a, int64_t until)
{
        int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
        int failure = 0;
        socklen_t n = sizeof(failure);

        if (fd < 0)
                return -1;
        set_options(fd);
        if (connect(fd, a->ai_addr, a->ai_addrlen) == 0)
                return fd;
        if (errno == EINPROGRESS && wait_for(line, fd, POLLOUT, until) == 0 &&
            getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &n) == 0) {
                if (!failure)
                        return fd;
                errno = failure;
        }
        failure = errno;
        (void)close(fd);
        errno = failure;
        return -1;
}

static void note(struct dds_client *c, enum dds_fault_kind kind, const mongoc_host_list_t *host,
                 const char *text)
{
        c->connecting = (struct dds_fault){ .kind = wire_is_cut(&c->line) ? DDS_FAULT_CUT : kind };
        (void)snprintf(c->connecting.where, sizeof(c->connecting.where), "%.*s",
                       (int)sizeof(c->connecting.where) - 1, host->host_and_port);
        (void)snprintf(c->connecting.text, sizeof(c->connecting.text), "%.*s",
                       (int)sizeof(c->connecting.text) - 1, text);
}

static int connect_host(struct dds_client *c, const mongoc_host_list_t *host)
{
        const struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
        int64_t until = now_ms() + c->connect_ms;
        struct addrinfo *all = NULL;
        char port[8];
        int fd = -1, code;

        (void)snprintf(port, sizeof(port), "%u", (unsigned)host->port);
        code = wire_is_cut(&c->line) ? EAI_AGAIN : getaddrinfo(host->host, port, &hints, &all);
        if (code != 0) {
                note(c, DDS_FAULT_NAME, host, code == EAI_SYSTEM ? strerror(errno) : gai_strerror(code));
                return -1;
        }
        for (const struct addrinfo *a = all; a && fd < 0; a = a->ai_next)
                fd = connect_to(&c->line, a, until);
        if (fd < 0)
                note(c, DDS_FAULT_CONNECT, host, strerror(errno));
        freeaddrinfo(all);
        return fd;
}

static mongoc_stream_t *add_tls(struct dds_client *c, const mongoc_host_list_t *host, mongoc_stream_t *base,
                                bson_error_t *error)
{
        mongoc_stream_t *tls = mongoc_stream_tls_new_with_hostname(base, host->host, &c->tls, 1);

        if (!tls) {
                note(c, DDS_FAULT_TLS, host, "the certificates that are given can't be read");
                mongoc_stream_destroy(base);
                return NULL;
        }
        if (mongoc_stream_tls_handshake_block(tls, host->host, c->connect_ms, error))
                return tls;
        note(c, DDS_FAULT_TLS, host, error->message);
        mongoc_stream_destroy(tls);
        return NULL;
}

mongoc_stream_t *wire_open(const mongoc_uri_t *uri, const mongoc_host_list_t *host, void *client,
                           bson_error_t *error)
{
        struct dds_client *c = client;
        int fd = connect_host(c, host);
        mongoc_stream_t *stream = fd >= 0 ? wire_new(&c->line, fd) : NULL;

        (void)uri;
        if (stream && c->has_tls)
                stream = add_tls(c, host, stream, error);
        if (!stream) {
                bson_set_error(error, MONGOC_ERROR_STREAM, MONGOC_ERROR_STREAM_CONNECT, "%s",
                               c->connecting.text);
                return NULL;
        }
        c->connecting.kind = DDS_FAULT_NONE;
        return mongoc_stream_buffered_new(stream, 1024);
}
