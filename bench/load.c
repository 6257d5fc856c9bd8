/* The bench's caller: requests over kept connections at a constant rate, whatever becomes of them (an open
 * loop), or each as soon as the one before it is answered (rate 0). A latency counts from when its request
 * was due, not from when it could be sent, so that a server that stops for a moment is charged for all that
 * came due meanwhile. HTTP/1.1, plain or TLS, one thread. It trusts its peer.
 *
 * Usage: load --port=N [--connections=64] [--rate=N] [--seconds=5] [--size=1024] [--path=/] [--tls] [--hold]
 *             [--topic=NAME --kafka=HOST:PORT --records=N]
 * Prints its results as one line of JSON.
 *   --topic   what a consumer written by hand does, and no more: each request's body ends with a record of
 * the topic, as it is, and is filled up to --size; ends after so many records. librdkafka's defaults, a group
 * of its own, the position stored when a record is taken and committed every five seconds
 *   --hold    opens the connections, prints "open N" and waits for SIGUSR1; then each makes one request, at
 * most --rate of them at once (64) */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <librdkafka/rdkafka.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { READ_SPACE = 262144, LATENCIES_MOST = 8 << 20, STATUS_MOST = 600, RECORDS_MOST = 64 };

struct connection {
        int fd;
        SSL *ssl;
        uint64_t due; /* of the request under way; 0: idle */
        char *in;     /* an answer that is not whole yet */
        size_t in_n;
};

struct latencies {
        uint32_t *us;
        size_t n;
};

static struct {
        int port, connections, size;
        double rate, seconds;
        const char *path, *topic, *kafka;
        long records;
        bool tls, hold;
} options = { .connections = 64, .seconds = 5, .size = 1024, .path = "/" };
static struct connection *connections;
static int *idle, idle_from, idle_n; /* a ring: the one that has been idle longest is next */
static int poller;
static SSL_CTX *tls;
static char *request;
static size_t request_n;
static char space[READ_SPACE + 1];
static struct latencies good, refused; /* 2xx; 429 and 503 */
static uint64_t statuses[STATUS_MOST], sent, answered, lost, reconnected;
static struct {
        rd_kafka_t *client;
        rd_kafka_queue_t *queue;
        rd_kafka_message_t *records[RECORDS_MOST]; /* taken, and not yet sent: from next on */
        ssize_t n, next;
        int wake;
} topic;

static uint64_t now_ns(void)
{
        struct timespec t;

        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void die(const char *what)
{
        (void)fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
        exit(1);
}

static void *must(void *p)
{
        if (!p)
                die("memory");
        return p;
}

static void make_idle(struct connection *c)
{
        c->due = 0;
        idle[(idle_from + idle_n++) % options.connections] = (int)(c - connections);
}

static void connect_one(struct connection *c)
{
        struct sockaddr_in to = { .sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)options.port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        int on = 1;

        c->fd = socket(AF_INET, SOCK_STREAM, 0);
        if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof(to)) < 0)
                die("connect");
        (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        if (options.tls) {
                c->ssl = must(SSL_new(tls));
                (void)SSL_set_fd(c->ssl, c->fd);
                if (SSL_connect(c->ssl) != 1) {
                        ERR_print_errors_fp(stderr);
                        exit(1);
                }
        }
        (void)fcntl(c->fd, F_SETFL, O_NONBLOCK);
        (void)epoll_ctl(poller, EPOLL_CTL_ADD, c->fd,
                        &(struct epoll_event){ .events = EPOLLIN, .data.ptr = c });
        make_idle(c);
}

/* The server closed it: with its answer, or before it. */
static void lose(struct connection *c)
{
        if (c->due)
                lost++;
        SSL_free(c->ssl);
        (void)close(c->fd);
        free(c->in);
        if (!c->due) { /* out of the ring: what stands there is another's now */
                for (int i = 0, k = 0, n = idle_n; i < n; i++) {
                        int place = idle[(idle_from + i) % options.connections];

                        if (connections + place == c)
                                idle_n--;
                        else
                                idle[(idle_from + k++) % options.connections] = place;
                }
        }
        *c = (struct connection){ 0 };
        reconnected++;
        connect_one(c);
}

/* A request is small beside the socket's buffer: it is taken whole or not at all. */
static void send_one(uint64_t due)
{
        struct connection *c = &connections[idle[idle_from]];
        ssize_t n;

        idle_from = (idle_from + 1) % options.connections;
        idle_n--;
        c->due = due;
        sent++;
        n = c->ssl ? SSL_write(c->ssl, request, (int)request_n)
                   : send(c->fd, request, request_n, MSG_NOSIGNAL);
        if (n != (ssize_t)request_n)
                lose(c);
}

static void count(struct connection *c, int status, uint64_t now)
{
        struct latencies *l = status >= 200 && status < 300    ? &good
                              : status == 429 || status == 503 ? &refused
                                                               : NULL;

        answered++;
        statuses[status > 0 && status < STATUS_MOST ? status : 0]++;
        if (l && l->n < LATENCIES_MOST)
                l->us[l->n++] = (uint32_t)((now - c->due) / 1000);
}

/* The size of a whole answer at p, which ends in a NUL; 0: it is not whole. */
static size_t whole(const char *p, size_t n)
{
        const char *end = memmem(p, n, "\r\n\r\n", 4), *length;
        size_t size;

        if (!end)
                return 0;
        length = memmem(p, (size_t)(end - p), "\r\nContent-Length: ", 18);
        size = (size_t)(end - p) + 4 + (length ? strtoul(length + 18, NULL, 10) : 0);
        return size <= n ? size : 0;
}

/* One request a connection: what comes is one answer, or a piece of it. */
static void take(struct connection *c, const char *p, size_t n)
{
        char *joined = NULL;
        size_t size;

        if (c->in_n) {
                joined = must(realloc(c->in, c->in_n + n + 1));
                memcpy(joined + c->in_n, p, n);
                n += c->in_n;
                joined[n] = 0;
                c->in = joined;
                c->in_n = n;
                p = joined;
        }
        size = whole(p, n);
        if (!size) {
                if (!joined) {
                        c->in = must(malloc(n + 1));
                        memcpy(c->in, p, n + 1);
                        c->in_n = n;
                }
                return;
        }
        if (size != n || !c->due) {
                (void)fprintf(stderr, "load: more than an answer: %.*s\n", (int)n, p);
                exit(1);
        }
        count(c, n > 12 ? atoi(p + 9) : 0, now_ns());
        free(c->in);
        c->in = NULL;
        c->in_n = 0;
        make_idle(c);
}

static void receive(struct connection *c)
{
        do {
                ssize_t n = c->ssl ? SSL_read(c->ssl, space, READ_SPACE) : recv(c->fd, space, READ_SPACE, 0);

                if (n < 0 &&
                    (c->ssl ? SSL_get_error(c->ssl, (int)n) == SSL_ERROR_WANT_READ : errno == EAGAIN))
                        return;
                if (n <= 0) {
                        lose(c);
                        return;
                }
                space[n] = 0;
                take(c, space, (size_t)n);
        } while (c->ssl && SSL_pending(c->ssl));
}

/* ns: how long to wait at most; UINT64_MAX: for ever */
static void wait_and_receive(uint64_t ns)
{
        struct epoll_event events[512];
        struct timespec t = { .tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000) };
        int n = epoll_pwait2(poller, events, 512, ns == UINT64_MAX ? NULL : &t, NULL);

        for (int i = 0; i < n; i++)
                if (events[i].data.ptr) /* not that records have come */
                        receive(events[i].data.ptr);
}

/* ---- records of a topic ------------------------------------------------- */

static void set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
        char why[256];

        if (rd_kafka_conf_set(conf, name, value, why, sizeof(why)) != RD_KAFKA_CONF_OK) {
                (void)fprintf(stderr, "load: %s\n", why);
                exit(1);
        }
}

static void subscribe(void)
{
        rd_kafka_conf_t *conf = rd_kafka_conf_new();
        rd_kafka_topic_partition_list_t *topics = rd_kafka_topic_partition_list_new(1);
        char group[64], why[256];

        (void)snprintf(group, sizeof(group), "load-%d-%lu", getpid(), now_ns());
        set(conf, "bootstrap.servers", options.kafka);
        set(conf, "group.id", group);
        set(conf, "auto.offset.reset", "earliest");
        (void)prctl(PR_SET_TIMERSLACK, 2000000UL); /* librdkafka's threads inherit it */
        topic.client = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof(why));
        if (!topic.client) {
                (void)fprintf(stderr, "load: %s\n", why);
                exit(1);
        }
        (void)rd_kafka_poll_set_consumer(topic.client);
        (void)rd_kafka_topic_partition_list_add(topics, options.topic, RD_KAFKA_PARTITION_UA);
        if (rd_kafka_subscribe(topic.client, topics))
                die("subscribe");
        rd_kafka_topic_partition_list_destroy(topics);
        topic.queue = rd_kafka_queue_get_consumer(topic.client);
        topic.wake = eventfd(0, EFD_NONBLOCK);
        rd_kafka_queue_io_event_enable(topic.queue, topic.wake, &(uint64_t){ 1 }, sizeof(uint64_t));
        (void)epoll_ctl(poller, EPOLL_CTL_ADD, topic.wake, &(struct epoll_event){ .events = EPOLLIN });
}

/* Puts the next record at the end of the request. */
static bool take_record(void)
{
        rd_kafka_message_t *m;

        if (topic.next == topic.n) {
                uint64_t n;

                (void)read(topic.wake, &n, sizeof(n));
                topic.next = 0;
                topic.n = rd_kafka_consume_batch_queue(topic.queue, 0, topic.records, RECORDS_MOST);
                if (topic.n <= 0) {
                        topic.n = 0;
                        return false;
                }
        }
        m = topic.records[topic.next++];
        if (m->err || m->len > (size_t)options.size) {
                (void)fprintf(stderr, "load: a record of %zu bytes: %s\n", m->len, rd_kafka_err2str(m->err));
                exit(1);
        }
        memcpy(request + request_n - m->len, m->payload, m->len);
        rd_kafka_message_destroy(m);
        return true;
}

static void consume(void)
{
        subscribe();
        while (sent < (uint64_t)options.records) {
                while (idle_n && sent < (uint64_t)options.records && take_record())
                        send_one(now_ns());
                wait_and_receive(UINT64_MAX);
        }
}

static void end_topic(void)
{
        (void)rd_kafka_consumer_close(topic.client);
        rd_kafka_queue_destroy(topic.queue);
        rd_kafka_destroy(topic.client);
}

/* ---- loops -------------------------------------------------------------- */

static void closed_loop(uint64_t start)
{
        uint64_t end = start + (uint64_t)(options.seconds * 1e9);

        for (uint64_t now = start; now < end; now = now_ns()) {
                while (idle_n)
                        send_one(now_ns());
                wait_and_receive(end - now);
        }
}

static void open_loop(uint64_t start)
{
        uint64_t all = (uint64_t)(options.rate * options.seconds),
                 end = start + (uint64_t)(options.seconds * 1e9);

        for (uint64_t now = start; now < end && sent < all; now = now_ns()) {
                uint64_t due = start + (uint64_t)((double)sent / options.rate * 1e9);

                while (due <= now && idle_n && sent < all) {
                        send_one(due);
                        due = start + (uint64_t)((double)sent / options.rate * 1e9);
                }
                now = now_ns();
                wait_and_receive(!idle_n ? end - now : due > now ? due - now : 0);
        }
}

static void finish(uint64_t patience)
{
        for (uint64_t now = now_ns(), end = now + patience; now < end && answered + lost < sent;
             now = now_ns())
                wait_and_receive(end - now);
}

static void hold(void)
{
        sigset_t set;
        int number;
        uint64_t most = options.rate > 0 ? (uint64_t)options.rate : 64;

        (void)sigemptyset(&set);
        (void)sigaddset(&set, SIGUSR1);
        (void)sigprocmask(SIG_BLOCK, &set, NULL);
        (void)printf("open %d\n", options.connections);
        (void)fflush(stdout);
        (void)sigwait(&set, &number);
        while (sent < (uint64_t)options.connections) {
                while (sent < (uint64_t)options.connections && sent - answered - lost < most)
                        send_one(now_ns());
                wait_and_receive(UINT64_MAX);
        }
}

static int by_size(const void *a, const void *b)
{
        uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

        return x < y ? -1 : x > y;
}

static void print_latencies(const char *name, struct latencies *l)
{
        static const struct {
                const char *name;
                double share;
        } parts[] = { { "p50", 0.5 }, { "p90", 0.9 }, { "p99", 0.99 }, { "p999", 0.999 }, { "max", 1 } };

        qsort(l->us, l->n, sizeof(*l->us), by_size);
        (void)printf(",\"%s\":{\"n\":%zu", name, l->n);
        for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]) && l->n; i++)
                (void)printf(",\"%s\":%u", parts[i].name,
                             l->us[(size_t)((double)(l->n - 1) * parts[i].share)]);
        (void)printf("}");
}

static void print_results(double seconds)
{
        struct rusage used;
        const char *comma = "";

        (void)getrusage(RUSAGE_SELF, &used);
        (void)printf("{\"seconds\":%.3f,\"sent\":%lu,\"answered\":%lu,\"lost\":%lu,\"unanswered\":%lu,"
                     "\"reconnected\":%lu,\"cpuSeconds\":%.3f,\"statuses\":{",
                     seconds, sent, answered, lost, sent - answered - lost, reconnected,
                     (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                             (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
        for (int i = 0; i < STATUS_MOST; i++)
                if (statuses[i]) {
                        (void)printf("%s\"%d\":%lu", comma, i, statuses[i]);
                        comma = ",";
                }
        (void)printf("}");
        print_latencies("good", &good);
        print_latencies("refused", &refused);
        (void)printf("}\n");
}

static const struct option known[] = {
        { "port", required_argument, NULL, 'p' },    { "connections", required_argument, NULL, 'c' },
        { "rate", required_argument, NULL, 'r' },    { "seconds", required_argument, NULL, 's' },
        { "size", required_argument, NULL, 'n' },    { "path", required_argument, NULL, 'u' },
        { "tls", no_argument, NULL, 't' },           { "hold", no_argument, NULL, 'h' },
        { "topic", required_argument, NULL, 'k' },   { "kafka", required_argument, NULL, 'b' },
        { "records", required_argument, NULL, 'm' }, { 0 },
};

static bool parse_options(int argc, char **argv)
{
        int c;

        while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
                switch (c) {
                case 'p': options.port = atoi(optarg); break;
                case 'c': options.connections = atoi(optarg); break;
                case 'r': options.rate = strtod(optarg, NULL); break;
                case 's': options.seconds = strtod(optarg, NULL); break;
                case 'n': options.size = atoi(optarg); break;
                case 'u': options.path = optarg; break;
                case 't': options.tls = true; break;
                case 'h': options.hold = true; break;
                case 'k': options.topic = optarg; break;
                case 'b': options.kafka = optarg; break;
                case 'm': options.records = atol(optarg); break;
                default: return false;
                }
        }
        return optind == argc && options.port > 0 && options.connections > 0 && options.size >= 0 &&
               !options.topic == !options.kafka && !options.topic == (options.records <= 0);
}

static void set_up(void)
{
        struct rlimit files;

        if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
                files.rlim_cur = files.rlim_max;
                (void)setrlimit(RLIMIT_NOFILE, &files);
        }
        (void)prctl(PR_SET_TIMERSLACK, 1UL); /* or each wait takes 50 µs longer */
        (void)signal(SIGPIPE, SIG_IGN);
        poller = epoll_create1(0);
        if (options.tls) {
                tls = must(SSL_CTX_new(TLS_client_method()));
                (void)SSL_CTX_set_mode(tls, SSL_MODE_RELEASE_BUFFERS);
        }
        connections = must(calloc((size_t)options.connections, sizeof(*connections)));
        idle = must(calloc((size_t)options.connections, sizeof(*idle)));
        good.us = must(malloc(LATENCIES_MOST * sizeof(uint32_t)));
        refused.us = must(malloc(LATENCIES_MOST * sizeof(uint32_t)));
        request = must(malloc((size_t)options.size + 512 + strlen(options.path)));
        request_n = (size_t)sprintf(request,
                                    "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: load\r\nAccept: "
                                    "*/*\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n",
                                    options.path, options.port, options.size);
        memset(request + request_n, 'x', (size_t)options.size);
        request_n += (size_t)options.size;
}

int main(int argc, char **argv)
{
        uint64_t start;

        if (!parse_options(argc, argv)) {
                (void)fprintf(stderr, "usage: load --port=N [--connections=64] [--rate=N] [--seconds=5] "
                                      "[--size=1024] [--path=/] [--tls] [--hold] "
                                      "[--topic=NAME --kafka=HOST:PORT --records=N]\n");
                return 2;
        }
        set_up();
        for (int i = 0; i < options.connections; i++)
                connect_one(&connections[i]);
        start = now_ns();
        if (options.topic)
                consume();
        else if (options.hold)
                hold();
        else if (options.rate > 0)
                open_loop(start);
        else
                closed_loop(start);
        double seconds = (double)(now_ns() - start) / 1e9;

        finish(10ULL * 1000000000);
        if (options.topic)
                end_topic();
        print_results(seconds);
        return 0;
}
