/* The bench's function: takes POSTs and answers them with as little work as there can be, so that the
 * sender's cost is what is seen; and it knows what it was sent. HTTP/1.1 (kept connections, pipelined
 * requests), HTTP/2 by prior knowledge or ALPN, TLS 1.3. One thread. It trusts its peer: not a server for
 * anything else.
 *
 * Usage: sink [--delay=MS] [--fail=PERCENT[:STATUS]] [--answer=BYTES] [--stop] [--tls=CERT,KEY] [--h2]
 * Prints "port N" and "control N", and at SIGTERM its statistics as one line of JSON.
 *   --delay   each answer this many milliseconds (a fraction is fine) after its request
 *   --fail    that share of requests is answered by STATUS (503): every n-th, by count
 *   --answer  over HTTP/1.1, what FunctionGraph functions answer to an API gateway: {"statusCode":200,…},
 * with a body of so many bytes
 *   --stop    nothing is answered until SIGUSR1
 * On the control port: GET /-/stats; GET /-/mark, from where "afterMark" counts.
 *
 * An event is known by "#" and ten digits, its number, "@" and 19 digits, when it was produced
 * (CLOCK_MONOTONIC, ns; 0: not told), anywhere in a body: whatever the envelope, and several of a batch.
 * Those of requests that were accepted are counted, the second of a number as a repetition. */
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { READ_SPACE = 65536, EVENTS_MOST = 64 << 20, LATENCIES_MOST = 4 << 20, STREAMS_MOST = 4096 };

struct bytes {
        char *p;
        size_t n, cap;
};

struct connection {
        int fd;
        bool open, control, reading, writing_waits, preface_seen;
        uint32_t generation; /* tells a delayed answer that its connection is another's now */
        struct bytes in, out;
        size_t need; /* of a request that is not whole yet; 0: unknown */
        SSL *ssl;
        nghttp2_session *h2;
};

/* HTTP/2: a request that is coming in */
struct stream {
        struct bytes body;
        struct stream *next;
};

struct late {
        uint64_t due;
        struct connection *connection;
        uint32_t generation;
        int32_t stream;
        bool fails;
};

static struct {
        uint64_t delay; /* ns */
        double fail;    /* share of requests */
        int status;
        bool h2;
        SSL_CTX *tls;
        struct bytes answer; /* n 0: an empty one */
} options = { .status = 503 };

static struct {
        uint64_t requests, accepted, failed, events, distinct, repeated, after_mark, first, last,
                first_after_mark, connections, bytes;
} stats;
static unsigned char seen[EVENTS_MOST / 8];
static uint32_t *latencies; /* µs */
static size_t latencies_n;
static double fail_debt;
static bool stopped;
static volatile sig_atomic_t ending, resumed, asked;
static struct connection **connections; /* by descriptor */
static int connections_cap, poller;
/* a ring: the delay is the same for all, so what came first is due first */
static struct late *late;
static size_t late_from, late_n, late_cap;
static struct stream *spare;

static void on_signal(int number)
{
        if (number == SIGTERM || number == SIGINT)
                ending = 1;
        else if (number == SIGUSR1)
                resumed = 1;
        else
                asked = 1;
}

static uint64_t now_ns(void)
{
        struct timespec t;

        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void *must(void *p)
{
        if (!p) {
                (void)fprintf(stderr, "sink: out of memory\n");
                exit(1);
        }
        return p;
}

static void reserve(struct bytes *b, size_t more)
{
        if (b->cap - b->n >= more)
                return;
        b->cap = (b->n + more) * 3 / 2;
        b->p = must(realloc(b->p, b->cap));
}

static void append(struct bytes *b, const void *p, size_t n)
{
        reserve(b, n);
        memcpy(b->p + b->n, p, n);
        b->n += n;
}

/* ---- what was sent ------------------------------------------------------ */

static bool number_at(const char *p, size_t n, uint64_t *out)
{
        *out = 0;
        for (size_t i = 0; i < n; i++) {
                if (p[i] < '0' || p[i] > '9')
                        return false;
                *out = *out * 10 + (uint64_t)(p[i] - '0');
        }
        return true;
}

static void count_event(uint64_t number, uint64_t produced, uint64_t now)
{
        unsigned char bit;

        stats.events++;
        if (number < EVENTS_MOST) {
                bit = (unsigned char)(1 << number % 8);
                if (seen[number / 8] & bit)
                        stats.repeated++;
                else
                        stats.distinct++;
                seen[number / 8] |= bit;
        }
        if (produced && latencies_n < LATENCIES_MOST)
                latencies[latencies_n++] = (uint32_t)((now - produced) / 1000);
}

static void count_events(const char *p, size_t n)
{
        enum { NUMBER = 10, TIME = 19, WHOLE = 1 + NUMBER + 1 + TIME };
        const char *end = p + n;
        uint64_t now = now_ns(), number, produced;

        if (!stats.first)
                stats.first = now;
        stats.last = now;
        if (stats.first_after_mark == UINT64_MAX)
                stats.first_after_mark = now;
        while ((p = memchr(p, '#', (size_t)(end - p)))) {
                if (end - p < WHOLE)
                        return;
                if (number_at(p + 1, NUMBER, &number) && p[1 + NUMBER] == '@' &&
                    number_at(p + 2 + NUMBER, TIME, &produced)) {
                        count_event(number, produced, now);
                        p += WHOLE;
                } else
                        p++;
        }
}

static int by_size(const void *a, const void *b)
{
        uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

        return x < y ? -1 : x > y;
}

static unsigned latency(double share)
{
        return latencies_n ? latencies[(size_t)((double)(latencies_n - 1) * share)] : 0;
}

static void show(struct bytes *b)
{
        struct rusage used;
        char text[1024];
        int n;

        (void)getrusage(RUSAGE_SELF, &used);
        qsort(latencies, latencies_n, sizeof(*latencies), by_size);
        n = snprintf(text, sizeof(text),
                     "{\"requests\":%lu,\"accepted\":%lu,\"failed\":%lu,\"events\":%lu,\"distinct\":%lu,"
                     "\"repeated\":%lu,\"bytes\":%lu,\"connections\":%lu,"
                     "\"first\":%lu,\"last\":%lu,\"firstAfterMark\":%lu,\"afterMark\":%lu,\"waiting\":%zu,"
                     "\"latencies\":%zu,\"p50\":%u,\"p99\":%u,\"max\":%u,"
                     "\"cpuSeconds\":%.3f}\n",
                     stats.requests, stats.accepted, stats.failed, stats.events, stats.distinct,
                     stats.repeated, stats.bytes, stats.connections, stats.first, stats.last,
                     stats.first_after_mark == UINT64_MAX ? 0 : stats.first_after_mark,
                     stats.events - stats.after_mark, late_n, latencies_n, latency(0.5), latency(0.99),
                     latency(1),
                     (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                             (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
        append(b, text, (size_t)n);
}

static void print_stats(void)
{
        struct bytes b = { 0 };

        show(&b);
        (void)fwrite(b.p, 1, b.n, stdout);
        (void)fflush(stdout);
        free(b.p);
}

/* ---- connections -------------------------------------------------------- */

static void close_connection(struct connection *c)
{
        if (!c->open)
                return;
        c->open = false;
        c->generation++;
        if (c->h2)
                nghttp2_session_del(c->h2);
        if (c->ssl)
                SSL_free(c->ssl);
        c->h2 = NULL;
        c->ssl = NULL;
        (void)close(c->fd);
}

static ssize_t write_some(struct connection *c)
{
        if (c->ssl) {
                int n = SSL_write(c->ssl, c->out.p, (int)c->out.n), why;

                if (n > 0)
                        return n;
                why = SSL_get_error(c->ssl, n);
                errno = why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? EAGAIN : EIO;
                return -1;
        }
        return send(c->fd, c->out.p, c->out.n, MSG_NOSIGNAL);
}

/* All that can be written at once; the rest when there is room. */
static void flush(struct connection *c)
{
        bool waits;

        while (c->open && c->out.n) {
                ssize_t n = write_some(c);

                if (n < 0 && errno == EAGAIN)
                        break;
                if (n < 0) {
                        close_connection(c);
                        return;
                }
                c->out.n -= (size_t)n;
                if (c->out.n)
                        memmove(c->out.p, c->out.p + n, c->out.n);
        }
        waits = c->out.n > 0;
        if (!c->open || waits == c->writing_waits)
                return;
        c->writing_waits = waits;
        (void)epoll_ctl(
                poller, EPOLL_CTL_MOD, c->fd,
                &(struct epoll_event){ .events = EPOLLIN | (waits ? EPOLLOUT : 0u), .data.fd = c->fd });
}

static void pump(struct connection *c)
{
        const uint8_t *p;
        ssize_t n;

        while (c->h2 && (n = nghttp2_session_mem_send(c->h2, &p)) > 0)
                append(&c->out, p, (size_t)n);
}

/* ---- answers ------------------------------------------------------------ */

static void answer(struct connection *c, int32_t stream, bool fails)
{
        static const char good[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        char text[80];

        if (c->h2) {
                int n = snprintf(text, sizeof(text), "%d", fails ? options.status : 200);
                nghttp2_nv status = { (uint8_t *)(uintptr_t) ":status", (uint8_t *)text, 7, (size_t)n,
                                      NGHTTP2_NV_FLAG_NO_COPY_NAME };

                (void)nghttp2_submit_response(c->h2, stream, &status, 1, NULL);
        } else if (fails)
                append(&c->out, text,
                       (size_t)snprintf(text, sizeof(text), "HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n",
                                        options.status));
        else if (options.answer.n)
                append(&c->out, options.answer.p, options.answer.n);
        else
                append(&c->out, good, sizeof(good) - 1);
}

static void put_off(struct connection *c, int32_t stream, bool fails, uint64_t due)
{
        if (late_n == late_cap) {
                size_t cap = late_cap ? late_cap * 2 : 1024;
                struct late *grown = must(calloc(cap, sizeof(*grown)));

                for (size_t i = 0; i < late_n; i++)
                        grown[i] = late[(late_from + i) % late_cap];
                free(late);
                late = grown;
                late_cap = cap;
                late_from = 0;
        }
        late[(late_from + late_n++) % late_cap] = (struct late){
                .due = due, .connection = c, .generation = c->generation, .stream = stream, .fails = fails
        };
}

static void take(struct connection *c, int32_t stream, const char *body, size_t n)
{
        bool fails;

        stats.requests++;
        stats.bytes += n;
        fail_debt += options.fail;
        fails = fail_debt >= 1;
        fail_debt -= fails;
        if (fails)
                stats.failed++;
        else {
                stats.accepted++;
                count_events(body, n);
        }
        if (stopped || options.delay)
                put_off(c, stream, fails, stopped ? 0 : now_ns() + options.delay);
        else
                answer(c, stream, fails);
}

static void answer_due(void)
{
        uint64_t now = late_n ? now_ns() : 0;

        while (late_n && !stopped && late[late_from].due <= now) {
                struct late l = late[late_from];

                late_from = (late_from + 1) % late_cap;
                late_n--;
                if (l.generation != l.connection->generation)
                        continue;
                answer(l.connection, l.stream, l.fails);
                pump(l.connection);
                flush(l.connection);
        }
}

static void control(struct connection *c, const char *path)
{
        struct bytes body = { 0 };
        char head[80];

        if (strncmp(path, "/-/mark", 7) == 0) {
                stats.first_after_mark = UINT64_MAX;
                stats.after_mark = stats.events;
        }
        show(&body);
        append(&c->out, head,
               (size_t)snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n",
                                body.n));
        append(&c->out, body.p, body.n);
        free(body.p);
}

/* ---- HTTP/1.1 ----------------------------------------------------------- */

/* The size of the whole request at the start, and of its head; 0: the head is not all there. */
static size_t whole(const char *p, size_t n, size_t *head)
{
        const char *end = memmem(p, n, "\r\n\r\n", 4), *length;

        if (!end)
                return 0;
        *head = (size_t)(end - p) + 4;
        length = memmem(p, *head, "Content-Length: ", 16);
        return *head + (length ? strtoul(length + 16, NULL, 10) : 0);
}

static void parse_http1(struct connection *c)
{
        size_t used = 0, head = 0, size;

        if (c->need && c->in.n < c->need)
                return;
        while ((size = whole(c->in.p + used, c->in.n - used, &head))) {
                if (c->in.n - used < size)
                        break;
                if (c->control)
                        control(c, c->in.p + used + 4);
                else
                        take(c, 0, c->in.p + used + head, size - head);
                used += size;
        }
        c->need = size;
        c->in.n -= used;
        memmove(c->in.p, c->in.p + used, c->in.n);
}

/* ---- HTTP/2 ------------------------------------------------------------- */

static int on_begin(nghttp2_session *h2, const nghttp2_frame *frame, void *cookie)
{
        struct stream *s = spare ? spare : must(calloc(1, sizeof(*s)));

        (void)cookie;
        if (spare)
                spare = s->next;
        s->body.n = 0;
        (void)nghttp2_session_set_stream_user_data(h2, frame->hd.stream_id, s);
        return 0;
}

static int on_data(nghttp2_session *h2, uint8_t flags, int32_t id, const uint8_t *p, size_t n, void *cookie)
{
        struct stream *s = nghttp2_session_get_stream_user_data(h2, id);

        (void)flags;
        (void)cookie;
        if (s)
                append(&s->body, p, n);
        return 0;
}

static int on_frame(nghttp2_session *h2, const nghttp2_frame *frame, void *cookie)
{
        struct stream *s;

        if ((frame->hd.type != NGHTTP2_DATA && frame->hd.type != NGHTTP2_HEADERS) ||
            !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
                return 0;
        s = nghttp2_session_get_stream_user_data(h2, frame->hd.stream_id);
        if (s)
                take(cookie, frame->hd.stream_id, s->body.p, s->body.n);
        return 0;
}

static int on_stream_close(nghttp2_session *h2, int32_t id, uint32_t code, void *cookie)
{
        struct stream *s = nghttp2_session_get_stream_user_data(h2, id);

        (void)code;
        (void)cookie;
        if (s) {
                s->next = spare;
                spare = s;
        }
        return 0;
}

static void begin_http2(struct connection *c)
{
        static nghttp2_session_callbacks *callbacks;
        const nghttp2_settings_entry settings[] = { { NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, STREAMS_MOST },
                                                    { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 16 << 20 } };

        if (!callbacks && nghttp2_session_callbacks_new(&callbacks) == 0) {
                nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin);
                nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
                nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
                nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
        }
        if (nghttp2_session_server_new(&c->h2, callbacks, c) != 0)
                must(NULL);
        (void)nghttp2_submit_settings(c->h2, NGHTTP2_FLAG_NONE, settings, 2);
        (void)nghttp2_session_set_local_window_size(c->h2, NGHTTP2_FLAG_NONE, 0, 64 << 20);
}

static void parse_http2(struct connection *c)
{
        ssize_t n = nghttp2_session_mem_recv(c->h2, (const uint8_t *)c->in.p, c->in.n);

        if (n < 0) {
                (void)fprintf(stderr, "sink: HTTP/2: %s\n", nghttp2_strerror((int)n));
                close_connection(c);
                return;
        }
        c->in.n = 0;
        pump(c);
}

/* ---- reading ------------------------------------------------------------ */

static ssize_t read_some(struct connection *c, char *p, size_t n)
{
        if (c->ssl) {
                int got, why;

                ERR_clear_error();
                got = SSL_read(c->ssl, p, (int)n);
                if (got > 0)
                        return got;
                why = SSL_get_error(c->ssl, got);
                if (why == SSL_ERROR_ZERO_RETURN)
                        return 0;
                errno = why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? EAGAIN : EIO;
                return -1;
        }
        return recv(c->fd, p, n, 0);
}

static void serve(struct connection *c)
{
        size_t space;
        ssize_t got;

        do {
                reserve(&c->in, c->need > c->in.n + READ_SPACE ? c->need - c->in.n : READ_SPACE);
                space = c->in.cap - c->in.n;
                got = read_some(c, c->in.p + c->in.n, space);
                if (got < 0 && errno == EAGAIN)
                        break;
                if (got <= 0) {
                        close_connection(c);
                        return;
                }
                c->in.n += (size_t)got;
                if (options.h2 && !c->control && !c->h2)
                        begin_http2(c);
                if (c->h2)
                        parse_http2(c);
                else
                        parse_http1(c);
        } while (c->open && c->ssl && SSL_has_pending(c->ssl));
        if (c->open && c->out.n)
                flush(c);
}

static struct connection *connection_at(int fd)
{
        if (fd >= connections_cap) {
                int cap = fd * 2 + 64;

                connections = must(realloc(connections, (size_t)cap * sizeof(*connections)));
                memset(connections + connections_cap, 0,
                       (size_t)(cap - connections_cap) * sizeof(*connections));
                connections_cap = cap;
        }
        if (!connections[fd])
                connections[fd] = must(calloc(1, sizeof(**connections)));
        return connections[fd];
}

static void accept_all(int listener, bool is_control)
{
        int fd, on = 1;

        while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                struct connection *c = connection_at(fd);

                c->fd = fd;
                c->open = true;
                c->control = is_control;
                c->in.n = c->out.n = c->need = 0;
                c->writing_waits = false;
                stats.connections += !is_control;
                (void)setsockopt(fd, SOL_TCP, TCP_NODELAY, &on, sizeof(on));
                if (options.tls && !is_control) {
                        c->ssl = must(SSL_new(options.tls));
                        (void)SSL_set_fd(c->ssl, fd);
                        SSL_set_accept_state(c->ssl);
                }
                (void)epoll_ctl(poller, EPOLL_CTL_ADD, fd,
                                &(struct epoll_event){ .events = EPOLLIN, .data.fd = fd });
        }
}

/* ---- start -------------------------------------------------------------- */

static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_n,
                           const unsigned char *offered, unsigned offered_n, void *cookie)
{
        static const unsigned char h2[] = "\2h2", h1[] = "\10http/1.1";

        (void)ssl;
        (void)cookie;
        if (SSL_select_next_proto((unsigned char **)(uintptr_t)out, out_n, options.h2 ? h2 : h1,
                                  options.h2 ? 3 : 9, offered, offered_n) != OPENSSL_NPN_NEGOTIATED)
                return SSL_TLSEXT_ERR_ALERT_FATAL;
        return SSL_TLSEXT_ERR_OK;
}

static SSL_CTX *tls_new(char *names)
{
        char *certificate = strsep(&names, ",");
        SSL_CTX *tls = must(SSL_CTX_new(TLS_server_method()));

        if (SSL_CTX_use_certificate_chain_file(tls, certificate) != 1 || !names ||
            SSL_CTX_use_PrivateKey_file(tls, names, SSL_FILETYPE_PEM) != 1) {
                ERR_print_errors_fp(stderr);
                exit(1);
        }
        (void)SSL_CTX_set_min_proto_version(tls, TLS1_3_VERSION);
        (void)SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        (void)SSL_CTX_set_read_ahead(tls, 1);
        SSL_CTX_set_alpn_select_cb(tls, choose_protocol, NULL);
        return tls;
}

static int listen_somewhere(const char *name)
{
        struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        socklen_t size = sizeof(address);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

        if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) < 0 || listen(fd, 4096) < 0 ||
            getsockname(fd, (struct sockaddr *)&address, &size) < 0) {
                perror("sink");
                exit(1);
        }
        (void)epoll_ctl(poller, EPOLL_CTL_ADD, fd, &(struct epoll_event){ .events = EPOLLIN, .data.fd = fd });
        (void)printf("%s %d\n", name, ntohs(address.sin_port));
        return fd;
}

static void make_answer(size_t size)
{
        static const char before[] = "{\"statusCode\":200,\"headers\":{},\"body\":\"",
                          behind[] = "\",\"isBase64Encoded\":false}";
        char head[128];

        append(&options.answer, head,
               (size_t)snprintf(
                       head, sizeof(head),
                       "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                       sizeof(before) + sizeof(behind) - 2 + size));
        append(&options.answer, before, sizeof(before) - 1);
        reserve(&options.answer, size);
        memset(options.answer.p + options.answer.n, 'y', size);
        options.answer.n += size;
        append(&options.answer, behind, sizeof(behind) - 1);
}

static const struct option known[] = {
        { "delay", required_argument, NULL, 'd' },
        { "fail", required_argument, NULL, 'f' },
        { "answer", required_argument, NULL, 'a' },
        { "stop", no_argument, NULL, 's' },
        { "tls", required_argument, NULL, 't' },
        { "h2", no_argument, NULL, '2' },
        { 0 },
};

static bool parse_options(int argc, char **argv)
{
        char *end;
        int c;

        while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
                switch (c) {
                case 'd': options.delay = (uint64_t)(strtod(optarg, NULL) * 1e6); break;
                case 'f':
                        options.fail = strtod(optarg, &end) / 100;
                        options.status = *end == ':' ? atoi(end + 1) : 503;
                        break;
                case 'a': make_answer(strtoul(optarg, NULL, 10)); break;
                case 's': stopped = true; break;
                case 't': options.tls = tls_new(optarg); break;
                case '2': options.h2 = true; break;
                default: return false;
                }
        }
        return optind == argc;
}

static int wait_for_events(struct epoll_event *events, int max)
{
        struct timespec t = { 0 };
        bool timed = late_n && !stopped;

        if (timed) {
                uint64_t now = now_ns(), due = late[late_from].due, left = due > now ? due - now : 0;

                t = (struct timespec){ .tv_sec = (time_t)(left / 1000000000),
                                       .tv_nsec = (long)(left % 1000000000) };
        }
        return epoll_pwait2(poller, events, max, timed ? &t : NULL, NULL);
}

int main(int argc, char **argv)
{
        struct sigaction action = { .sa_handler = on_signal };
        int listener, controller;

        poller = epoll_create1(0);
        if (!parse_options(argc, argv)) {
                (void)fprintf(stderr, "usage: sink [--delay=MS] [--fail=PERCENT[:STATUS]] [--answer=BYTES] "
                                      "[--stop] [--tls=CERT,KEY] [--h2]\n");
                return 2;
        }
        for (size_t i = 0; i < 4; i++)
                (void)sigaction((int[]){ SIGTERM, SIGINT, SIGUSR1, SIGUSR2 }[i], &action, NULL);
        (void)signal(SIGPIPE, SIG_IGN);
        latencies = must(malloc(LATENCIES_MOST * sizeof(*latencies)));
        listener = listen_somewhere("port");
        controller = listen_somewhere("control");
        (void)fflush(stdout);
        while (!ending) {
                struct epoll_event events[256];
                int n = wait_for_events(events, 256);

                for (int i = 0; i < n; i++) {
                        int fd = events[i].data.fd;
                        struct connection *c;

                        if (fd == listener || fd == controller) {
                                accept_all(fd, fd == controller);
                                continue;
                        }
                        c = connection_at(fd);
                        if (c->open && events[i].events & EPOLLOUT)
                                flush(c);
                        if (c->open && events[i].events & ~(uint32_t)EPOLLOUT)
                                serve(c);
                }
                if (resumed) {
                        resumed = 0;
                        stopped = false;
                }
                answer_due();
                if (asked) {
                        asked = 0;
                        print_stats();
                }
        }
        print_stats();
        return 0;
}
