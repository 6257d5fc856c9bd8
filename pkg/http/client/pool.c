/* Which connection carries which exchange: a target's queue, how long its connections live, and how many
 * there are. */
#include <inttypes.h>
#include <unistd.h>

#include "http/client/connection.h"

enum { SENT_AGAIN_MAX = 2, TRIED_MOST = 2 };
static const usec REPLACE_AGAIN = USEC_SEC, TRY_AGAIN = USEC_SEC, IDLE_LEAST = 10 * USEC_MSEC,
                  IDLE_LEAST_ONCE = USEC_MSEC;

/* ---- what waits --------------------------------------------------------- */

void pool_wait(struct exchange *x, bool first)
{
        struct http_target *t = x->target;

        x->connection = NULL;
        if (first)
                list_prepend(&t->waiting, &x->node);
        else
                list_append(&t->waiting, &x->node);
}

void pool_forget(struct exchange *x) { list_remove(&x->node); }

static struct exchange *next_waiting(struct http_target *t)
{
        return LIST_TAKE(&t->waiting, struct exchange, node);
}

void pool_fail_waiting(struct http_target *t, const struct error *err, bool one)
{
        for (struct exchange *x; (x = next_waiting(t));) {
                exchange_fail(x, err);
                if (one)
                        return;
        }
}

/* ---- a connection and what it carries ----------------------------------- */

static void leave_ready(struct connection *c) { list_remove(&c->ready); }

bool connection_place(struct connection *c)
{
        bool room = c->framing && !c->retiring && c->carried < c->room;

        if (c->retiring && !c->carried) {
                connection_free(c);
                return false;
        }
        if (!room)
                leave_ready(c);
        else if (!list_has(&c->ready)) {
                c->idle_since = loop_now(c->target->client->loop);
                /* Last used, first used again, so that the rest can age and close; HTTP/2 connections take
                 * turns. */
                if (c->http1)
                        list_prepend(&c->target->ready, &c->ready);
                else
                        list_append(&c->target->ready, &c->ready);
        }
        return true;
}

/* Whatever arrives on an idle connection is no answer to the next request: it is the peer's close, or a 408.
 * Only before the request is sent can that be told for sure. A connection that was in use a moment ago is not
 * checked: under load that would be a system call for each request. Where nothing may be sent twice that
 * moment is shorter. */
static bool has_spoken(struct connection *c)
{
        usec now = loop_now(c->target->client->loop);

        if (!c->http1 || now - c->idle_since < (c->target->config.once ? IDLE_LEAST_ONCE : IDLE_LEAST))
                return false;
        c->idle_since = now;
        return connection_read(c, c->target->client->space, READ_SIZE) != IO_AGAIN;
}

/* The peer is about to close it. */
static bool is_overdue(const struct connection *c)
{
        return c->kept && loop_now(c->target->client->loop) - c->idle_since >= c->kept;
}

struct connection *pool_ready(struct http_target *t)
{
        struct connection *c;

        while ((c = LIST_FIRST(&t->ready, struct connection, ready)) && (is_overdue(c) || has_spoken(c)))
                connection_free(c);
        return c;
}

void pool_start(struct connection *c, struct exchange *x)
{
        list_append(&c->exchanges, &x->beside);
        c->carried++;
        x->connection = c;
        x->heard = c->heard;
        x->sent_before = connection_sent(c);
        x->reused = c->used;
        if (c->target->config.answer_member)
                json_pick_begin(&x->pick, str_of(c->target->config.answer_member));
        x->written = false;
        if (c->http1 || c->carried >= c->room)
                leave_ready(c);
        else if (c->ready.next) {
                list_remove(&c->ready);
                list_append(&c->target->ready, &c->ready);
        }
        c->framing->start(c, x);
}

void connection_drop(struct connection *c, struct exchange *x)
{
        list_remove(&x->beside);
        c->carried--;
        x->connection = NULL;
        list_remove(&x->stalls);
        x->unread = 0;
        list_remove(&x->awaits);
}

void connection_stop(struct connection *c)
{
        if (c->retiring)
                return;
        c->target->old_n -= c->old;
        c->old = false;
        c->retiring = true;
        c->target->retiring_n++;
        leave_ready(c);
}

void connection_retire(struct connection *c)
{
        connection_stop(c);
        (void)connection_place(c);
}

void connection_free(struct connection *c)
{
        struct http_target *t = c->target;

        leave_ready(c);
        loop_io_close(c->io);
        loop_forget(t->client->loop, &c->more);
        /* Without close_notify OpenSSL would not resume the session. */
        if (c->ssl && c->framing && !c->tls_broken)
                tls_end(c->ssl);
        SSL_free(c->ssl);
        if (c->framing)
                c->framing->close(c);
        else
                t->connecting_n--;
        t->old_n -= c->old;
        t->retiring_n -= c->retiring;
        if (c->easy) {
                http_multi_remove(t->client->multi, c->easy);
                curl_easy_cleanup(c->easy);
        }
        curl_slist_free_all(c->connect_to);
        if (c->fd >= 0)
                (void)close(c->fd);
        if (c->address)
                addresses_leave(c->address);
        list_remove(&c->node);
        t->connections_n--;
        free(c);
}

/* May it be sent once more? See client.h. */
static bool worth_again(const struct connection *c, const struct exchange *x)
{
        if (!x->written)
                return x->again < SENT_AGAIN_MAX;
        return x->reused && !c->target->config.once && c->heard == x->heard && x->again == 0 &&
               connection_unseen(c, x->sent_before);
}

void connection_break(struct connection *c, const struct error *err)
{
        struct http_target *t = c->target;

        /* From the last to the first, so that they are queued again in their order. */
        for (struct exchange *x; (x = LIST_ITEM(c->exchanges.last, struct exchange, beside));) {
                connection_drop(c, x);
                if (worth_again(c, x)) {
                        x->again++;
                        pool_wait(x, true);
                } else
                        exchange_fail(x, err);
        }
        connection_free(c);
        pool_serve(t);
}

/* ---- how many ----------------------------------------------------------- */

/* The peer takes no request for now, and says itself when it does (RFC 9113, 5.1.2): further connections
 * would only come to wait beside those that there are. A few are tried, since another peer may be at their
 * end. */
static bool holds_off(const struct http_target *t)
{
        uint32_t open = t->connections_n - t->retiring_n;

        return t->multiplexes && !t->streams && open &&
               (t->connecting_n || open >= t->addresses_n + TRIED_MOST ||
                loop_now(t->client->loop) < t->try_at);
}

void pool_hold_off(struct http_target *t) { t->try_at = loop_now(t->client->loop) + TRY_AGAIN; }

static uint32_t wanted(const struct http_target *t)
{
        size_t most = t->config.max_connections, share = 1;

        if (t->config.http_version != HTTP_1_1) {
                /* Before it is connected nobody knows how many it can carry. */
                if (!t->known)
                        return t->waiting.n ? 1 : 0;
                if (t->waiting.n && holds_off(t))
                        return 0;
                share = t->multiplexes ? MAX_OF(t->streams, (uint32_t)1) : 1;
        }
        return (uint32_t)MIN_OF((t->waiting.n + share - 1) / share, most);
}

/* All are replaced; the new ones do not resume the old ones' sessions. */
static void make_old(struct http_target *t)
{
        t->tls = tls_client_free(t->tls);
        LIST_EACH (struct connection, c, &t->connections, node)
                if (!c->old && !c->retiring) {
                        c->old = true;
                        t->old_n++;
                }
        t->replace_at = USEC_NEVER;
}

static void open_more(struct http_target *t)
{
        uint32_t want = MAX_OF(wanted(t), t->replace_at == USEC_NEVER ? t->old_n : 0), most;
        struct error err;

        if (!want)
                return;
        if (!t->numeric && loop_now(t->client->loop) >= t->addresses_until)
                addresses_ask(t);
        if (!t->numeric && loop_now(t->client->loop) >= t->addresses_until)
                return; /* they are served when DNS has answered */
        if (t->url.tls && files_changed(t))
                make_old(t);
        most = t->config.max_connections + t->old_n + t->retiring_n;
        while (t->connecting_n < want && t->connections_n < most) {
                struct address *a = addresses_pick(t);

                if (!a)
                        return;
                if (connection_open(t, a, &err) < 0) {
                        pool_fail_waiting(t, &err, false);
                        return;
                }
                if (t->multiplexes && !t->streams) {
                        pool_hold_off(t);
                        return;
                }
        }
}

void pool_serve(struct http_target *t)
{
        /* Starting an exchange may close a connection, which calls this again. */
        t->serve_again = true;
        if (t->serving)
                return;
        t->serving = true;
        while (t->serve_again) {
                t->serve_again = false;
                for (struct connection *c; t->waiting.n && (c = pool_ready(t));)
                        pool_start(c, next_waiting(t));
        }
        t->serving = false;
        open_more(t);
}

void pool_connected(struct connection *c)
{
        struct http_target *t = c->target;

        t->connecting_n--;
        t->known = true;
        t->multiplexes = c->framing == &http2_framing;
        t->failures = 0;
        c->address->avoid_until = c->address->backoff = 0;
        if (!c->old)
                LIST_EACH (struct connection, o, &t->connections, node)
                        if (o->old && o->framing) {
                                connection_retire(o);
                                break;
                        }
        target_arm(t);
        if (c->address->listed)
                (void)connection_place(c);
        else
                connection_retire(c); /* the address is no longer in the DNS answer */
        pool_serve(t);
}

void pool_refused(struct http_target *t, struct address *a, const struct error *err)
{
        usec now = loop_now(t->client->loop);

        if (a->avoid_until <= now) {
                t->failures++;
                addresses_failed(t, a, err->kind == ERROR_TIMEOUT);
        }
        addresses_leave(a);
        if (t->old_n)
                t->replace_at = now + REPLACE_AGAIN;
        /* While there is another address to try, the requests wait. Otherwise one failure to connect fails
         * one request; the others make their own attempt. */
        if (t->failures >= 2 * t->addresses_n || !addresses_others(t))
                pool_fail_waiting(t, err, true);
        if (!t->numeric && now - t->asked_at >= USEC_SEC)
                addresses_ask(t);
        target_arm(t);
        pool_serve(t);
}

/* ---- time --------------------------------------------------------------- */

void target_arm(struct http_target *t)
{
        usec at = t->replace_at;

        if (t->used && !t->resolving)
                at = MIN_OF(at, t->ask_at);
        if (addresses_awaited(t))
                at = MIN_OF(at, t->resolve_by);
        LIST_EACH (struct connection, c, &t->connections, node)
                if (!c->framing && c->ssl)
                        at = MIN_OF(at, c->connect_by);
                else if (c->expires && !c->old && !c->retiring)
                        at = MIN_OF(at, c->expires);
        loop_arm(t->client->loop, &t->timer, at);
}

void target_turn(struct task *task, usec now)
{
        struct http_target *t = CONTAINER_OF(task, struct http_target, timer);

        if (now >= t->replace_at)
                t->replace_at = USEC_NEVER;
        if (now >= t->ask_at && t->used)
                addresses_ask(t);
        if (addresses_awaited(t) && now >= t->resolve_by)
                addresses_too_late(t);
        for (struct connection *c = LIST_FIRST(&t->connections, struct connection, node), *next; c;
             c = next) {
                next = LIST_ITEM(c->node.next, struct connection, node);
                if (!c->framing && c->ssl && now >= c->connect_by) {
                        connection_too_late(c);
                        next = LIST_FIRST(&t->connections, struct connection,
                                          node); /* others may have been removed with it */
                        continue;
                }
                if (!c->framing || !c->expires || now < c->expires || c->old || c->retiring)
                        continue;
                if (c->carried) {
                        c->old = true; /* it is replaced before it is retired */
                        t->old_n++;
                } else
                        connection_retire(c);
        }
        target_arm(t);
        pool_serve(t);
}

void pool_sent(struct exchange *x)
{
        struct http_target *t = x->target;

        if (!t->config.response_timeout || list_has(&x->awaits))
                return;
        x->answer_by = loop_now(t->client->loop) + t->config.response_timeout;
        list_append(&t->awaiting, &x->awaits);
        if (!t->answer_armed)
                loop_arm(t->client->loop, &t->answer_timer, x->answer_by);
        t->answer_armed = true;
}

void target_answers_turn(struct task *task, usec now)
{
        struct http_target *t = CONTAINER_OF(task, struct http_target, answer_timer);
        struct error err;

        struct exchange *x;

        while ((x = LIST_FIRST(&t->awaiting, struct exchange, awaits)) && now >= x->answer_by) {
                struct connection *c = x->connection;

                (void)error_set(&err, ERROR_TIMEOUT, "%s %s: no answer within %" PRId64 " ms of the request",
                                t->method, t->url_text, t->config.response_timeout / USEC_MSEC);
                err.retry = true;
                connection_drop(c, x);
                c->framing->cancel(c, x);
                exchange_fail(x, &err);
        }
        t->answer_armed = x != NULL;
        if (x)
                loop_arm(t->client->loop, &t->answer_timer, x->answer_by);
        pool_serve(t);
}

void http_target_refresh(struct http_target *t)
{
        (void)files_changed(t);
        make_old(t);
        pool_serve(t);
}
