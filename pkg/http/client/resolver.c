#include "http/client/resolver.h"

#include <arpa/inet.h>
#include <ares.h>
#include <netdb.h>

struct watch {
        struct watch *next;
        struct resolver *resolver;
        struct loop_io *io;
        ares_socket_t fd;
};

struct resolver {
        struct loop *loop;
        ares_channel channel;
        struct task timer;
        struct watch *watches;
        struct question *questions;
        bool freeing;
};

struct question {
        struct question *next;
        struct resolver *resolver;
        void (*done)(void *, const struct resolved *, const struct error *);
        void *cookie;
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
        struct watch *w = cookie;
        struct resolver *r = w->resolver;
        ares_socket_t fd = w->fd;

        /* The watch may be freed by the call. */
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
        struct watch **at = &r->watches, *w;

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
                w->next = r->watches;
                r->watches = w;
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

int resolver_new(struct resolver **out, struct loop *loop, struct error *err)
{
        struct resolver *r = calloc(1, sizeof(*r));
        struct ares_options options = {
                .timeout = 2000, .tries = 3, .sock_state_cb = on_socket, .sock_state_cb_data = r
        };
        int status;

        if (!r)
                return error_memory(err);
        r->loop = loop;
        r->timer.turn = on_timer;
        status = ares_library_init(ARES_LIB_INIT_ALL);
        if (status == ARES_SUCCESS)
                status = ares_init_options(&r->channel, &options, OPTIONS);
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

        return status == ARES_SUCCESS ? 0
                                      : error_set(err, ERROR_INVALID, "name servers \"%s\": %s", servers,
                                                  ares_strerror(status));
}

struct resolver *resolver_free(struct resolver *r)
{
        if (!r)
                return NULL;
        r->freeing = true;
        ares_destroy(r->channel); /* ends open queries through their callbacks, and closes the sockets */
        ares_library_cleanup();
        loop_forget(r->loop, &r->timer);
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

static void on_answer(void *cookie, int status, int timeouts UNUSED, struct ares_addrinfo *info)
{
        struct question *q = cookie;

        for (struct question **at = &q->resolver->questions; *at; at = &(*at)->next)
                if (*at == q) {
                        *at = q->next;
                        break;
                }
        if (!q->resolver->freeing && q->done)
                tell(q, status, info);
        ares_freeaddrinfo(info);
        free(q);
}

void resolver_ask(struct resolver *r, const char *host,
                  void (*done)(void *, const struct resolved *, const struct error *), void *cookie)
{
        struct ares_addrinfo_hints hints = { .ai_family = AF_UNSPEC,
                                             .ai_flags = ARES_AI_NOSORT,
                                             .ai_socktype = SOCK_STREAM };
        struct question *q = calloc(1, sizeof(*q));
        struct error err;

        if (!q) {
                (void)error_memory(&err);
                done(cookie, NULL, &err);
                return;
        }
        *q = (struct question){ .next = r->questions, .resolver = r, .done = done, .cookie = cookie };
        r->questions = q;
        memcpy(q->host, host, MIN_OF(strlen(host), sizeof(q->host) - 1));
        ares_getaddrinfo(r->channel, host, NULL, &hints, on_answer, q);
        arm(r);
}

void resolver_forget(struct resolver *r, const void *cookie)
{
        for (struct question *q = r->questions; q; q = q->next)
                if (q->cookie == cookie)
                        q->done = NULL;
}
