#include "http/client/resolver.h"

#include <arpa/inet.h>
#include <ares.h>
#include <netdb.h>

#include "base/watch.h"
#include "log/log.h"

static const char CONFIGURATION[] = "/etc/resolv.conf";

struct listened { /* a socket of c-ares */
        struct listened *next;
        struct resolver *resolver;
        struct loop_io *io;
        ares_socket_t fd;
};

struct resolver {
        struct loop *loop;
        ares_channel channel;
        struct task timer;
        struct listened *sockets;
        struct question *questions;
        struct watch file; /* with the name servers; open once something was asked */
        struct task changed;
        char *path; /* of that file, and the servers' port, instead of the system's; NULL: the system's */
        uint16_t port;
        bool servers, freeing; /* the servers were given */
};

/* A name server, or what lies before it, may answer for one family of addresses and say nothing for the
 * other, which c-ares waits for, and in each domain of the search list: some 14 seconds. So when it asks for
 * the second time without an answer each family is asked for alone, IPv4 first: nobody waits for addresses
 * that he can do without. Not earlier, since the families together know better what a name stands for (an
 * entry of /etc/hosts, a domain of the search list), and one lost packet is to drop no address. */
static const usec ALONE_AFTER = 2500 * USEC_MSEC, NEXT_AFTER = USEC_SEC;
static const int FAMILIES[] = { AF_UNSPEC, AF_INET, AF_INET6 };

struct question {
        struct question *next;
        struct resolver *resolver;
        void (*done)(void *, const struct resolved *, const struct error *);
        void *cookie;
        struct task slow;
        unsigned alone; /* number of families that were asked for alone */
        struct query {  /* what c-ares was asked */
                struct question *question;
                bool open;
        } queries[3]; /* of FAMILIES */
        char host[256];
};

static void arm(struct resolver *r)
{
        struct timeval space, *wait = ares_timeout(r->channel, NULL, &space);

        loop_arm(r->loop, &r->timer,
                 wait ? loop_now(r->loop) + (usec)wait->tv_sec * USEC_SEC + wait->tv_usec + 1 : USEC_NEVER);
}

static void on_event(void *cookie, int events)
{
        struct listened *w = cookie;
        struct resolver *r = w->resolver;
        ares_socket_t fd = w->fd;

        /* It may be freed by the call. */
        ares_process_fd(r->channel, events & LOOP_READABLE ? fd : ARES_SOCKET_BAD,
                        events & LOOP_WRITABLE ? fd : ARES_SOCKET_BAD);
        arm(r);
}

static void on_timer(struct task *t, usec now UNUSED)
{
        struct resolver *r = CONTAINER_OF(t, struct resolver, timer);

        ares_process_fd(r->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
        arm(r);
}

static void on_socket(void *cookie, ares_socket_t fd, int readable, int writable)
{
        struct resolver *r = cookie;
        struct listened **at = &r->sockets, *w;

        while (*at && (*at)->fd != fd)
                at = &(*at)->next;
        w = *at;
        if (!readable && !writable) {
                if (w) {
                        *at = w->next;
                        loop_io_close(w->io);
                        free(w);
                }
                return;
        }
        if (!w) {
                w = calloc(1, sizeof(*w));
                if (!w)
                        return; /* the query fails by its timeout */
                w->resolver = r;
                w->fd = fd;
                if (loop_io_open(r->loop, fd, on_event, w, &w->io, NULL) < 0) {
                        free(w);
                        return;
                }
                w->next = r->sockets;
                r->sockets = w;
        }
        loop_io_want(w->io, (readable ? LOOP_READABLE : 0) | (writable ? LOOP_WRITABLE : 0));
}

/* Newer versions cache answers, but asking again before one expires must ask the server. */
#ifdef ARES_OPT_QUERY_CACHE
/* its qcache_max_ttl is 0 */
enum { OPTIONS = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB | ARES_OPT_QUERY_CACHE };
#else
enum { OPTIONS = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB };
#endif

static int open_channel(struct resolver *r, ares_channel *out)
{
        struct ares_options options = { .timeout = 2000,
                                        .tries = 3,
                                        .sock_state_cb = on_socket,
                                        .sock_state_cb_data = r,
                                        .resolvconf_path = r->path,
                                        .udp_port = r->port,
                                        .tcp_port = r->port };
        int more = r->path ? ARES_OPT_RESOLVCONF | ARES_OPT_UDP_PORT | ARES_OPT_TCP_PORT : 0;

        return ares_init_options(out, &options, OPTIONS | more);
}

/* The name servers are read once by c-ares, and may be others by now: a process may be older than the network
 * that it is in. What is open is asked again. */
static void replace_channel(struct resolver *r)
{
        ares_channel before = r->channel, fresh;
        int status = open_channel(r, &fresh);

        if (status != ARES_SUCCESS) {
                log_warn("the name servers have changed, and those from before are asked still",
                         LOG_S("error", ares_strerror(status)));
                return;
        }
        r->channel = fresh;
        ares_destroy(before);
        arm(r);
}

static void on_changed(struct task *t, usec now UNUSED)
{
        struct resolver *r = CONTAINER_OF(t, struct resolver, changed);

        if (!r->servers)
                replace_channel(r);
}

/* Before the first question. The file may be another since the channel was made. */
static int watch_file(struct resolver *r, struct error *err)
{
        if (watch_is_open(&r->file) || r->servers)
                return 0;
        if (watch_open(&r->file, r->loop, r->path ? r->path : CONFIGURATION, &r->changed, err) < 0)
                return -1;
        replace_channel(r);
        return 0;
}

int resolver_new(struct resolver **out, struct loop *loop, struct error *err)
{
        struct resolver *r = calloc(1, sizeof(*r));
        int status;

        if (!r)
                return error_memory(err);
        r->loop = loop;
        r->timer.turn = on_timer;
        r->changed.turn = on_changed;
        status = ares_library_init(ARES_LIB_INIT_ALL);
        if (status == ARES_SUCCESS)
                status = open_channel(r, &r->channel);
        if (status != ARES_SUCCESS) {
                free(r);
                return error_set(err, ERROR_SYSTEM, "start the resolver: %s", ares_strerror(status));
        }
        *out = r;
        return 0;
}

int resolver_use_servers(struct resolver *r, const char *servers, struct error *err)
{
        int status = ares_set_servers_ports_csv(r->channel, servers);

        r->servers = true;
        return status == ARES_SUCCESS ? 0
                                      : error_set(err, ERROR_INVALID, "name servers \"%s\": %s", servers,
                                                  ares_strerror(status));
}

int resolver_use_file(struct resolver *r, const char *path, uint16_t port, struct error *err)
{
        watch_close(&r->file);
        free(r->path);
        r->path = str_dup(str_of(path));
        if (!r->path)
                return error_memory(err);
        r->port = port;
        replace_channel(r);
        return 0;
}

struct resolver *resolver_free(struct resolver *r)
{
        if (!r)
                return NULL;
        r->freeing = true;
        watch_close(&r->file);
        ares_destroy(r->channel); /* ends open queries through their callbacks, and closes the sockets */
        ares_library_cleanup();
        loop_forget(r->loop, &r->timer);
        loop_forget(r->loop, &r->changed);
        free(r->path);
        free(r);
        return NULL;
}

/* More addresses than this are left out, and always the same ones: an answer in another order must not look
 * like a different answer. */
enum { ADDRESSES_MAX = 4096 };

struct found {
        char text[INET6_ADDRSTRLEN];
};

static int compare(const void *a, const void *b)
{
        return strcmp(((const struct found *)a)->text, ((const struct found *)b)->text);
}

static size_t count(const struct ares_addrinfo *info)
{
        size_t n = 0;

        for (const struct ares_addrinfo_node *a = info->nodes; a; a = a->ai_next)
                n++;
        return n;
}

/* Sorted, without duplicates. */
static size_t collect(const struct ares_addrinfo *info, struct found *out, usec *ttl)
{
        size_t n = 0, kept = 0;

        for (const struct ares_addrinfo_node *a = info->nodes; a; a = a->ai_next) {
                const void *address = a->ai_family == AF_INET
                                              ? (const void *)&(
                                                        (const struct sockaddr_in *)(const void *)a->ai_addr)
                                                        ->sin_addr
                                              : (const void *)&(
                                                        (const struct sockaddr_in6 *)(const void *)a->ai_addr)
                                                        ->sin6_addr;

                if (!inet_ntop(a->ai_family, address, out[n].text, INET6_ADDRSTRLEN))
                        continue;
                n++;
                *ttl = MIN_OF(*ttl, (usec)MAX_OF(a->ai_ttl, 0) * USEC_SEC);
        }
        qsort(out, n, sizeof(*out), compare);
        for (size_t i = 0; i < n; i++)
                if (!kept || compare(&out[kept - 1], &out[i]) != 0)
                        out[kept++] = out[i];
        return MIN_OF(kept, (size_t)ADDRESSES_MAX);
}

static void tell(struct question *q, int status, const struct ares_addrinfo *info)
{
        struct resolved resolved = { .ttl = USEC_NEVER };
        size_t most = status == ARES_SUCCESS && info ? count(info) : 0;
        struct found *found = most ? calloc(most, sizeof(*found)) : NULL;
        struct error err;

        if (found)
                resolved.n = collect(info, found, &resolved.ttl);
        resolved.addresses = resolved.n ? calloc(resolved.n, sizeof(*resolved.addresses)) : NULL;
        for (size_t i = 0; resolved.addresses && i < resolved.n; i++)
                resolved.addresses[i] = found[i].text;
        if (resolved.addresses)
                q->done(q->cookie, &resolved, NULL);
        else {
                (void)error_set(&err, ERROR_UNREACHABLE, "resolve %s: %s", q->host,
                                status != ARES_SUCCESS ? ares_strerror(status)
                                : most                 ? "out of memory"
                                                       : "no address");
                err.elsewhere = true;
                q->done(q->cookie, NULL, &err);
        }
        free(resolved.addresses);
        free(found);
}

static void ask(struct question *, unsigned family);

static bool is_open(const struct question *q)
{
        for (size_t i = 0; i < COUNT_OF(q->queries); i++)
                if (q->queries[i].open)
                        return true;
        return false;
}

/* Once c-ares refers to it no more. */
static void free_unless_open(struct question *q)
{
        if (is_open(q))
                return;
        for (struct question **at = &q->resolver->questions; *at; at = &(*at)->next)
                if (*at == q) {
                        *at = q->next;
                        break;
                }
        loop_forget(q->resolver->loop, &q->slow);
        free(q);
}

static void on_answer(void *cookie, int status, int timeouts UNUSED, struct ares_addrinfo *info)
{
        struct query *query = cookie;
        struct question *q = query->question;
        bool wanted = !q->resolver->freeing && q->done, both = query == q->queries;

        if (status == ARES_EDESTRUCTION && wanted && both) {
                q->alone = 0;
                ask(q, 0); /* there is another channel now */
                return;
        }
        query->open = false;
        /* That there are no addresses is said by the families together. */
        if (wanted && (both || (status == ARES_SUCCESS && info && info->nodes))) {
                tell(q, status, info);
                q->done = NULL;
        }
        ares_freeaddrinfo(info);
        free_unless_open(q);
}

/* It may be answered, and freed, by the call. */
static void ask(struct question *q, unsigned family)
{
        struct ares_addrinfo_hints hints = { .ai_family = FAMILIES[family],
                                             .ai_flags = ARES_AI_NOSORT,
                                             .ai_socktype = SOCK_STREAM };

        q->queries[family] = (struct query){ .question = q, .open = true };
        if (family + 1 < COUNT_OF(q->queries))
                loop_arm(q->resolver->loop, &q->slow,
                         loop_now(q->resolver->loop) + (family ? NEXT_AFTER : ALONE_AFTER));
        ares_getaddrinfo(q->resolver->channel, q->host, NULL, &hints, on_answer, &q->queries[family]);
}

static void on_slow(struct task *t, usec now UNUSED)
{
        struct question *q = CONTAINER_OF(t, struct question, slow);
        struct resolver *r = q->resolver;

        if (!q->done)
                return;
        ask(q, ++q->alone);
        arm(r);
}

void resolver_ask(struct resolver *r, const char *host,
                  void (*done)(void *, const struct resolved *, const struct error *), void *cookie)
{
        struct question *q = calloc(1, sizeof(*q));
        struct error err;

        if (!q)
                (void)error_memory(&err);
        if (!q || watch_file(r, &err) < 0) {
                free(q);
                done(cookie, NULL, &err);
                return;
        }
        *q = (struct question){ .next = r->questions,
                                .resolver = r,
                                .done = done,
                                .cookie = cookie,
                                .slow = { .turn = on_slow } };
        r->questions = q;
        memcpy(q->host, host, MIN_OF(strlen(host), sizeof(q->host) - 1));
        ask(q, 0);
        arm(r);
}

void resolver_forget(struct resolver *r, const void *cookie)
{
        for (struct question *q = r->questions; q; q = q->next)
                if (q->cookie == cookie)
                        q->done = NULL;
}
