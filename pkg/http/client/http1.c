/* HTTP/1.1 on a connection: one exchange at a time, parsed by the codec. */
#include "http/client/connection.h"

enum { KEPT_MOST = 86400 };      /* seconds */
enum { BUFFER_KEPT = 16 << 10 }; /* between two answers */

/* Which events the socket is watched for: a stalled answer is not read. */
static void want(struct connection *c)
{
        const struct exchange *x = connection_first(c);

        loop_io_want(c->io, (x && list_has(&x->stalls) ? 0 : LOOP_READABLE) |
                                    (x && x->sent < x->message->n ? LOOP_WRITABLE : 0));
}

static int http1_open(struct connection *c, struct error *err)
{
        c->http1 = malloc(sizeof(*c->http1));
        if (!c->http1)
                return error_memory(err);
        http_codec_init(c->http1, false, ANSWER_HEAD_MAX, c->target->config.answer_max);
        c->room = 1;
        return 0;
}

static void http1_close(struct connection *c)
{
        if (c->http1)
                http_codec_done(c->http1);
        free(c->http1);
        c->http1 = NULL;
}

/* How long the peer says that it keeps a connection on which nothing comes (Keep-Alive: timeout=5, as Node.js
 * and Apache do), less what a request may take on its way: one that leaves as the peer closes is a failed
 * attempt, and where nothing is sent twice it is its caller's. 0: it does not say. */
static usec kept_idle(struct str head)
{
        struct str options = http_head_find(head, STR("Keep-Alive"));

        while (options.n) {
                struct str value = str_trim(str_cut(&options, ',')), name = str_trim(str_cut(&value, '='));
                int64_t seconds;

                if (!str_equal_nocase(name, STR("timeout")) || !str_to_int64(str_trim(value), &seconds) ||
                    seconds < 1 || seconds > KEPT_MOST)
                        continue;
                return seconds * USEC_SEC - MIN_OF(seconds * USEC_SEC / 2, USEC_SEC);
        }
        return 0;
}

static void free_if_large(struct buf *b)
{
        if (b->cap > BUFFER_KEPT)
                buf_done(b);
}

static void answered(struct connection *c)
{
        struct exchange *x = connection_first(c);
        struct http_target *t = c->target;
        struct http_message *m = &c->http1->message;
        /* Bytes that TLS has buffered are a second answer to one request. */
        struct buf body;
        bool reuse = m->keep_alive && x->sent == x->message->n && !connection_buffers(c);

        x->request->body_cut = m->body_cut;
        buf_str(&x->head, buf_view(&m->head));
        body = x->body; /* swapped, not copied: an answer may be large */
        x->body = m->body;
        m->body = body;
        c->http1->pick = NULL;
        connection_drop(c, x);
        if (!c->used)
                c->kept = kept_idle(buf_view(&x->head));
        c->used = true;
        exchange_answer(x, m->status);
        http_codec_next(c->http1);
        free_if_large(&m->head);
        free_if_large(&m->body);
        if (reuse)
                (void)connection_place(c);
        else
                connection_retire(c);
        pool_serve(t);
}

static void unreachable(struct connection *c, const char *why)
{
        struct error err;

        (void)error_set(&err, ERROR_UNREACHABLE, "%s %s: %s", c->target->method, c->target->url_text, why);
        connection_break(c, &err);
}

/* The peer has closed its sending side. */
static void ended(struct connection *c)
{
        struct error err;

        if (c->exchanges.n && http_codec_eof(c->http1, &err) == 0 && c->http1->message.complete) {
                c->http1->message.keep_alive = false;
                answered(c);
                return;
        }
        unreachable(c, "the peer closed the connection before its answer was whole");
}

/* The peer closes an idle connection with a 408 (RFC 9110, 15.5.9), which crossed our request: it has not
 * seen the request. */
static bool crossed(const struct connection *c)
{
        const struct exchange *x = connection_first(c);

        return c->http1->message.status == 408 && x->reused && connection_unseen(c, x->sent_before);
}

/* False: the connection was closed. */
static bool feed(struct connection *c, size_t n)
{
        struct error err;
        size_t used;

        if (!c->exchanges.n) {
                (void)error_set(&err, ERROR_PROTOCOL, "%s sent data without a request", c->target->url_text);
                connection_break(c, &err);
                return false;
        }
        if (http_codec_feed(c->http1, (struct str){ c->target->client->space, n }, &used, &err) < 0) {
                err.retry = true;
                (void)error_wrap(&err, "%s %s", c->target->method, c->target->url_text);
                connection_break(c, &err);
                return false;
        }
        if (!c->http1->message.complete) {
                if (c->http1->body_n <= c->target->config.answer_read_max)
                        return true;
                c->http1->message.body_cut = true; /* the rest is not read */
                c->http1->message.keep_alive = false;
                answered(c);
                return false;
        }
        if (crossed(c)) {
                c->heard = connection_first(c)->heard;
                unreachable(c, "the peer closed the idle connection with 408");
                return false;
        }
        if (used < n) /* more than one answer to one request: the stream can't be trusted */
                c->http1->message.keep_alive = false;
        answered(c);
        return false;
}

/* False: the connection was closed, or its answer was completed. */
static bool http1_read(struct connection *c)
{
        struct turn turn = { 0 };

        for (;;) {
                ssize_t n = connection_read(c, c->target->client->space, READ_SIZE);
                struct error err;

                if (n == IO_AGAIN)
                        return true;
                if (n == IO_BROKEN) {
                        connection_error(c, &err);
                        connection_break(c, &err);
                        return false;
                }
                if (n == 0) {
                        ended(c);
                        return false;
                }
                c->heard += (size_t)n;
                if (!feed(c, (size_t)n))
                        return false;
                if (!exchange_takes(connection_first(c), c->http1->message.body.n)) {
                        want(c);
                        return true;
                }
                if ((n < READ_SIZE && !c->drain && !connection_buffers(c)) ||
                    connection_had_enough(c, &turn, (size_t)n))
                        return true;
        }
}

static void http1_write(struct connection *c)
{
        struct exchange *x = connection_first(c);

        while (x->sent < x->message->n) {
                ssize_t n = connection_write(c, x->message->p + x->sent, x->message->n - x->sent);
                struct error err;

                x->sent += n > 0 ? (size_t)n : 0;
                x->written = x->sent > x->start;
                if (n == IO_AGAIN) {
                        want(c);
                        return;
                }
                if (n == IO_BROKEN) {
                        /* The peer may have answered before it stopped listening. */
                        connection_error(c, &err);
                        if (http1_read(c))
                                connection_break(c, &err);
                        return;
                }
        }
        pool_sent(x);
        want(c);
}

static void http1_start(struct connection *c, struct exchange *x)
{
        x->sent = x->start;
        c->http1->head_answer = x->head_only;
        c->http1->pick = c->target->config.answer_member ? &x->pick : NULL;
        http1_write(c);
}

/* What still comes of the answer could be taken for the next one's. */
static void http1_cancel(struct connection *c, struct exchange *x UNUSED) { connection_retire(c); }

static void http1_event(struct connection *c, int events)
{
        struct exchange *x = connection_first(c);

        /* Writing may close the connection; a readable socket is reported again. */
        if (x && (events & LOOP_WRITABLE) && !(events & LOOP_READABLE) && x->sent < x->message->n)
                http1_write(c);
        else if (http1_read(c) && x && x->sent < x->message->n && (events & LOOP_WRITABLE))
                http1_write(c);
}

static void http1_resume(struct connection *c, struct exchange *x UNUSED)
{
        want(c);
        loop_ready(c->target->client->loop, &c->more); /* TLS may have buffered bytes */
}

const struct framing http1_framing = { http1_open,   http1_close, http1_start,
                                       http1_cancel, http1_event, http1_resume };
