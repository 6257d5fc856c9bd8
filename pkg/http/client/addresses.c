/* A target's addresses: while the target is in use DNS is asked again before the answer expires. An address
 * that refused a connection is avoided for a while; a new connection goes to the address that has the fewest.
 */
#include <stdio.h>

#include "http/client/connection.h"

static const usec TTL_LEAST = USEC_SEC, TTL_MOST = 60 * USEC_SEC;
/* For how long an address is avoided that refused a connection; and one that said nothing, which costs
 * whoever tries it the whole time for connecting. */
static const usec AVOID_LEAST = 500 * USEC_MSEC, AVOID_MOST = 10 * USEC_SEC, AVOID_SILENT_LEAST = AVOID_MOST,
                  AVOID_SILENT_MOST = 2 * USEC_MINUTE;

static void drop_if_unused(struct address *a)
{
        if (a->listed || a->connections)
                return;
        list_remove(&a->node);
        free(a);
}

/* Both are sorted, ours and the answer's. */
static void list(struct http_target *t, const struct resolved *answer)
{
        struct address *at = LIST_FIRST(&t->addresses, struct address, node);

        LIST_EACH (struct address, a, &t->addresses, node)
                a->listed = false;
        t->addresses_n = 0;
        for (size_t i = 0; i < answer->n; i++) {
                while (at && strcmp(at->text, answer->addresses[i]) < 0)
                        at = LIST_ITEM(at->node.next, struct address, node);
                if (!at || strcmp(at->text, answer->addresses[i]) != 0) {
                        struct address *a = calloc(1, sizeof(*a));

                        if (!a)
                                continue;
                        (void)snprintf(a->text, sizeof(a->text), "%s", answer->addresses[i]);
                        list_insert(&t->addresses, &a->node, at ? &at->node : NULL);
                        at = a;
                }
                at->listed = true;
                t->addresses_n++;
        }
}

/* Connections to an address that is no longer listed finish their exchanges first. */
static void retire_unlisted(struct http_target *t)
{
        LIST_EACH (struct connection, c, &t->connections, node)
                if (c->framing && !c->address->listed && !c->retiring)
                        connection_retire(c);
        LIST_EACH (struct address, a, &t->addresses, node)
                drop_if_unused(a);
}

static void on_resolved(void *cookie, const struct resolved *answer, const struct error *why)
{
        struct http_target *t = cookie;
        usec now = loop_now(t->client->loop), ttl = TTL_LEAST;
        struct error err;

        t->resolving = false;
        if (answer) {
                ttl = MAX_OF(MIN_OF(answer->ttl, TTL_MOST), TTL_LEAST);
                list(t, answer);
                retire_unlisted(t);
        }
        if (!t->addresses_n) {
                if (why)
                        err = *why;
                else
                        (void)error_memory(&err);
                t->addresses_until = 0;
                t->ask_at = USEC_NEVER;
                pool_fail_waiting(t, &err, false);
        } else {
                /* If DNS fails the last answer is used for a while longer. */
                t->addresses_until = now + ttl;
                t->ask_at = now + ttl - ttl / 8;
        }
        t->used = t->waiting.n > 0;
        LIST_EACH (struct connection, c, &t->connections, node)
                t->used = t->used || c->carried > 0;
        target_arm(t);
        pool_serve(t);
}

static usec resolve_by(const struct http_target *t)
{
        return t->config.connect_timeout ? loop_now(t->client->loop) + t->config.connect_timeout : USEC_NEVER;
}

void addresses_ask(struct http_target *t)
{
        usec now = loop_now(t->client->loop);

        if (t->numeric)
                return;
        if (!t->resolving || now >= t->resolve_by)
                t->resolve_by = resolve_by(t);
        if (!t->resolving) {
                t->resolving = true;
                t->asked_at = now;
                t->ask_at = USEC_NEVER;
                resolver_ask(t->client->resolver, t->host, on_resolved, t);
        }
        target_arm(t);
}

bool addresses_awaited(const struct http_target *t)
{
        return t->resolving && t->waiting.n && !t->connections_n;
}

void addresses_too_late(struct http_target *t)
{
        struct error err;

        (void)error_set(&err, ERROR_TIMEOUT, "resolve %s: no answer of a name server within %" PRId64 " ms",
                        t->host, t->config.connect_timeout / USEC_MSEC);
        err.retry = true;
        pool_fail_waiting(t, &err, false);
}

struct address *addresses_pick(struct http_target *t)
{
        usec now = loop_now(t->client->loop);
        struct address *best = NULL;
        uint64_t ties = 1;

        LIST_EACH (struct address, a, &t->addresses, node) {
                usec avoid = MAX_OF(a->avoid_until - now, (usec)0),
                     best_avoid = best ? MAX_OF(best->avoid_until - now, (usec)0) : 0;

                if (!a->listed)
                        continue;
                if (!best || avoid < best_avoid ||
                    (avoid == best_avoid && a->connections < best->connections)) {
                        best = a;
                        ties = 1;
                } else if (avoid == best_avoid && a->connections == best->connections &&
                           random_below(&t->client->random, ++ties) == 0)
                        best = a;
        }
        return best;
}

bool addresses_others(const struct http_target *t)
{
        usec now = loop_now(t->client->loop);

        LIST_EACH (struct address, a, &t->addresses, node)
                if (a->listed && a->avoid_until <= now)
                        return true;
        return false;
}

void addresses_failed(struct http_target *t, struct address *a, bool silent)
{
        usec least = silent ? AVOID_SILENT_LEAST : AVOID_LEAST,
             most = silent ? AVOID_SILENT_MOST : AVOID_MOST;

        a->backoff = MIN_OF(MAX_OF(2 * a->backoff, least), most);
        a->avoid_until = loop_now(t->client->loop) + a->backoff;
}

void addresses_leave(struct address *a)
{
        a->connections--;
        drop_if_unused(a);
}

void addresses_free(struct http_target *t)
{
        for (struct address *a; (a = LIST_TAKE(&t->addresses, struct address, node));)
                free(a);
}
