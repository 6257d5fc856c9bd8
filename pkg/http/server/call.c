#include "http/server/inside.h"

#include <errno.h>
#include <sys/uio.h>
#include <unistd.h>

static const usec LINGER = USEC_SEC;

const struct http_message *http_call_message(const struct http_call *c)
{
        return &c->work->intake.codec.message;
}
void http_call_set(struct http_call *c, void *user) { c->user = user; }
void *http_call_get(const struct http_call *c) { return c->user; }
void http_call_last(struct http_call *c) { c->closing = true; }

void http_call_client(const struct http_call *c, struct buf *out)
{
        uint8_t address[16];

        memcpy(address, c->peer, sizeof(address));
        forwarded_client(http_call_message(c), c->server->trusted, c->server->config.trusted_n, address);
        address_format(out, address);
}

bool http_call_tls(const struct http_call *c)
{
        return c->tls || (networks_have(c->server->trusted, c->server->config.trusted_n, c->peer) &&
                          forwarded_https(http_call_message(c)));
}

bool http_call_certificate(const struct http_call *c, struct buf *subject, struct buf *names)
{
        return c->tls && tls_certificate(c->tls, subject, names);
}

/* ---- what a connection holds while it is at work ------------------------ */

static struct work *work_new(struct http_server *s)
{
        struct work *w = s->spare;

        if (w) {
                s->spare = w->next;
                s->spare_n--;
                return w;
        }
        w = calloc(1, sizeof(*w));
        if (!w)
                return NULL;
        http_intake_init(&w->intake, &s->limits);
        w->in.max = s->limits.head_max + 2 * (size_t)READ_SIZE + PIPELINE_MAX;
        w->out.max = w->body.max = SIZE_MAX / 4;
        return w;
}

static void work_free(struct work *w)
{
        http_intake_done(&w->intake);
        buf_done(&w->in);
        buf_done(&w->out);
        buf_done(&w->body);
        free(w);
}

static void shrink(struct buf *b)
{
        if (b->cap > KEEP_MAX)
                buf_done(b);
        buf_reset(b);
}

static void work_release(struct http_call *c)
{
        struct http_server *s = c->server;
        struct work *w = c->work;
        struct http_message *m = &w->intake.codec.message;

        c->work = NULL;
        room_count(c, w->size, 0);
        if (s->spare_n >= SPARE_MAX) {
                work_free(w);
                return;
        }
        http_intake_next(&w->intake);
        shrink(&m->target);
        shrink(&m->head);
        shrink(&m->body);
        shrink(&w->in);
        shrink(&w->out);
        buf_done(&w->body);
        w->fed = w->sent = w->held = w->size = 0;
        w->next = s->spare;
        s->spare = w;
        s->spare_n++;
}

static void work_count(struct http_call *c)
{
        struct work *w = c->work;
        const struct http_message *m = &w->intake.codec.message;
        size_t size = sizeof(*w) + m->target.cap + m->head.cap + m->body.cap + w->in.cap + w->out.cap +
                      w->body.cap + w->held;

        room_count(c, w->size, size);
        w->size = size;
}

void http_call_hold(struct http_call *c, size_t bytes)
{
        c->work->held = bytes;
        work_count(c);
}

bool http_call_room(struct http_call *c, size_t most) { return room_for_bytes(c, most); }

static size_t unsent(const struct work *w) { return w->out.n + w->body.n - w->sent; }
static size_t waiting(const struct work *w) { return w->in.n - w->fed; }

/* ---- time --------------------------------------------------------------- */

/* Progress extends the deadline at a rate: a client that is slow, but not too slow, is served. */
static usec bought(size_t bytes, size_t rate) { return (usec)(bytes * (size_t)USEC_SEC / rate); }

static usec due(const struct http_call *c)
{
        const struct http_server_config *config = &c->server->config;

        switch (c->phase) {
        case PHASE_HANDSHAKE: return c->since + tls_server_handshake_timeout(c->server->tls);
        case PHASE_IDLE:
                return c->since +
                       (c->server->draining ? MIN_OF(LINGER, config->idle_timeout) : config->idle_timeout);
        case PHASE_HEAD: return c->since + config->head_timeout;
        case PHASE_BODY: return c->since + config->body_grace + bought(c->moved, config->body_rate);
        case PHASE_HANDLING: return USEC_NEVER;
        case PHASE_ANSWERING: return c->since + config->write_timeout + bought(c->moved, config->write_rate);
        case PHASE_LINGERING: return c->since + LINGER;
        }
        return USEC_NEVER;
}

static void set_busy(struct http_call *c, bool busy)
{
        struct http_server *s = c->server;

        if (c->busy == busy)
                return;
        c->busy = busy;
        s->busy_n += busy ? 1 : UINT32_MAX;
        if (!s->busy_n && s->draining && s->config.rested)
                loop_ready(s->loop, s->config.rested);
}

/* The timer may go off early, which is cheaper than moving it with each request. */
void call_phase(struct http_call *c, enum phase phase)
{
        c->phase = phase;
        c->since = loop_now(c->server->loop);
        c->moved = 0;
        c->deadline = due(c);
        room_follow(c);
        set_busy(c, phase != PHASE_HANDSHAKE && phase != PHASE_IDLE);
        if (c->deadline != USEC_NEVER && (!heap_has(&c->timer.timer) || c->timer.timer.at > c->deadline))
                loop_arm(c->server->loop, &c->timer, c->deadline);
}

/* ---- the end ------------------------------------------------------------ */

void call_close(struct http_call *c)
{
        struct http_server *s = c->server;

        if (c->phase == PHASE_HANDLING && s->config.gone)
                s->config.gone(s->config.cookie, c);
        if (c->tls) {
                if (c->phase != PHASE_HANDSHAKE && c->phase != PHASE_LINGERING && !c->broken)
                        tls_end(c->tls);
                SSL_free(c->tls);
        }
        loop_io_close(c->io);
        (void)close(c->fd);
        loop_forget(s->loop, &c->timer);
        if (c->work)
                work_release(c);
        room_session(c, 0);
        room_leave(c);
        set_busy(c, false);
        if (c->next)
                c->next->previous = c->previous;
        if (c->previous)
                c->previous->next = c->next;
        else
                s->calls = c->next;
        if (c->surplus)
                s->surplus_n--;
        else
                s->calls_n--;
        free(c);
}

/* The client has left. While a handler works the call must stay, unless the handler is told. */
static void call_lost(struct http_call *c)
{
        c->broken = true;
        c->again = false;
        if (c->phase == PHASE_HANDLING && !c->server->config.gone) {
                c->left = true;
                loop_io_want(c->io, 0);
        } else
                call_close(c);
}

/* ---- sending ------------------------------------------------------------ */

enum { AGAIN = TLS_AGAIN, BROKEN = TLS_BROKEN };

/* Puts unsent bytes and the caller's bytes behind them into one piece. */
static ssize_t send_piece(struct http_call *c, struct str more)
{
        struct work *w = c->work;
        struct iovec pieces[3] = { { 0 } };
        struct msghdr message = { .msg_iov = pieces };
        size_t sent = w->sent;
        ssize_t n;

        if (sent < w->out.n)
                pieces[message.msg_iovlen++] = (struct iovec){ w->out.p + sent, w->out.n - sent };
        sent -= MIN_OF(sent, w->out.n);
        if (sent < w->body.n)
                pieces[message.msg_iovlen++] = (struct iovec){ w->body.p + sent, w->body.n - sent };
        if (more.n)
                pieces[message.msg_iovlen++] = (struct iovec){ (char *)(uintptr_t)more.p, more.n };
        if (c->tls)
                return tls_write(c->tls, pieces[0].iov_base, pieces[0].iov_len);
        do
                n = message.msg_iovlen == 1 ? send(c->fd, pieces[0].iov_base, pieces[0].iov_len, MSG_NOSIGNAL)
                                            : sendmsg(c->fd, &message, MSG_NOSIGNAL);
        while (n < 0 && errno == EINTR);
        return n >= 0 ? n : errno == EAGAIN ? AGAIN : BROKEN;
}

/* Sends what the socket takes, `more` last; returns how much of `more` was sent, or BROKEN. */
static ssize_t call_send(struct http_call *c, struct str more)
{
        struct work *w = c->work;
        size_t all = more.n;

        while (unsent(w) || more.n) {
                ssize_t n = send_piece(c, more);
                size_t ours;

                if (n == AGAIN)
                        break;
                if (n <= 0)
                        return BROKEN;
                c->moved += (size_t)n;
                room_heard(c);
                ours = MIN_OF((size_t)n, unsent(w));
                w->sent += ours;
                more.p += (size_t)n - ours;
                more.n -= (size_t)n - ours;
        }
        if (!unsent(w)) {
                buf_reset(&w->out);
                buf_done(&w->body);
                w->sent = 0;
        }
        return (ssize_t)(all - more.n);
}

/* ---- refusing ----------------------------------------------------------- */

/* Queues the answer; it is sent with those before it. */
static void put_refusal(struct http_call *c, enum http_refusal kind, const char *why)
{
        struct http_server *s = c->server;
        BUF_AT_END struct buf headers = BUF_INIT(65536), body = BUF_INIT((size_t)1 << 20);
        struct http_refused refused = { kind,     why,  http_refusal_status(kind), STR("text/plain"),
                                        &headers, &body };

        s->stats.refused[kind]++;
        buf_text(&body, why);
        buf_char(&body, '\n');
        if (s->config.refused)
                s->config.refused(s->config.cookie, &refused);
        c->closing = c->linger = true;
        answer_head(c, refused.status, refused.content_type, buf_view(&headers), body.n, false);
        buf_str(&c->work->out, buf_view(&body));
        buf_reset(&c->work->in);
        c->work->fed = 0;
}

bool call_has_input(const struct http_call *c)
{
        char byte;

        return recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

/* The answer was sent and the connection is to be closed. False: it has been. */
static bool call_end(struct http_call *c)
{
        if (c->ended || !(c->linger || call_has_input(c))) {
                call_close(c);
                return false;
        }
        if (c->tls)
                tls_end(c->tls);
        (void)shutdown(c->fd, SHUT_WR);
        work_release(c);
        loop_io_want(c->io, LOOP_READABLE);
        call_phase(c, PHASE_LINGERING);
        return true;
}

/* ---- requests ----------------------------------------------------------- */

static void handle(struct http_call *c)
{
        struct http_server *s = c->server;

        s->stats.requests++;
        c->requests++;
        call_phase(c, PHASE_HANDLING);
        s->config.handle(s->config.cookie, c);
}

/* A client that sent Expect waits for 100 Continue, unless its body is arriving already. */
static void maybe_continue(struct http_call *c, bool body_is_coming)
{
        struct http_intake *k = &c->work->intake;

        if (k->wants_continue && http_intake_in_body(k) && !body_is_coming)
                buf_str(&c->work->out, STR("HTTP/1.1 100 Continue\r\n\r\n"));
        k->wants_continue = k->wants_continue && !http_intake_in_body(k);
}

/* Which part of a request is due next. */
static void follow(struct http_call *c, size_t fed)
{
        const struct http_intake *k = &c->work->intake;
        enum phase phase = http_intake_in_body(k)    ? PHASE_BODY
                           : k->state == INTAKE_HEAD ? PHASE_HEAD
                                                     : PHASE_IDLE;

        if (c->phase != phase)
                call_phase(c, phase);
        c->moved += fed;
        room_heard(c);
}

/* Parses *bytes; false: nothing more can be done with them now. */
static bool step(struct http_call *c, struct str *bytes)
{
        struct work *w = c->work;
        struct http_server *s = c->server;
        size_t used;

        if (http_intake_feed(&w->intake, *bytes, &used) < 0) {
                put_refusal(c, w->intake.refusal, w->intake.why);
                return false;
        }
        bytes->p += used;
        bytes->n -= used;
        if (http_intake_complete(&w->intake)) {
                work_count(c);
                if (c->tls && !tls_server_trusts(s->tls, c->tls, loop_now(s->loop))) {
                        c->broken = true; /* as a failed handshake does */
                        return false;
                }
                handle(c);
                return c->phase != PHASE_HANDLING;
        }
        follow(c, used);
        maybe_continue(c, bytes->n != 0);
        work_count(c);
        if (!room_for_bytes(c, s->config.buffered_max)) {
                put_refusal(c, HTTP_OVERLOADED, "too much memory is in use");
                return false;
        }
        return used > 0;
}

/* Keeps what was not parsed. */
static void keep(struct http_call *c, struct str bytes, bool own)
{
        struct work *w = c->work;

        if (own) {
                w->fed = w->in.n - bytes.n;
                if (!bytes.n || w->fed >= READ_SIZE) {
                        buf_drop(&w->in, w->fed);
                        w->fed = 0;
                }
        } else
                buf_add(&w->in, bytes.p, bytes.n);
}

/* Which events to watch for, and what the connection may free. False: it was closed. */
static bool call_rest(struct http_call *c)
{
        struct work *w = c->work;
        bool full = waiting(w) >= PIPELINE_MAX && c->phase != PHASE_HEAD;
        int want = unsent(w) ? LOOP_WRITABLE : 0;

        if (c->closing && !unsent(w) && c->phase != PHASE_HANDLING)
                return call_end(c);
        if (c->ended && !unsent(w) && c->phase != PHASE_HANDLING) {
                call_close(c);
                return false;
        }
        if (!c->ended && !full && !c->yields)
                want |= LOOP_READABLE;
        c->again = c->again || (c->paused && !full);
        c->paused = full;
        loop_io_want(c->io, want);
        if (c->again || c->yields)
                loop_ready(c->server->loop, &c->timer);
        if (c->phase == PHASE_IDLE && !unsent(w) && !waiting(w) && w->intake.state == INTAKE_BEFORE &&
            !w->intake.empty_lines) {
                work_release(c);
        } else
                work_count(c);
        return true;
}

/* Answers stay in order and bounded: a request waits while a handler works, and while the client does not
 * read the answers before it. */
static bool can_step(const struct http_call *c)
{
        return !c->closing && !c->broken && c->phase != PHASE_HANDLING && unsent(c->work) < UNSENT_MAX &&
               !c->work->body.n;
}

static void turn_begin(struct http_call *c) { c->turn_from = c->requests; }
static bool turn_is_over(const struct http_call *c)
{
        return c->requests - c->turn_from >= REQUESTS_IN_A_TURN;
}

/* The next request is here already, so this is no idle connection that may be closed for another. */
static void maybe_yield(struct http_call *c, bool more)
{
        c->yields = more && turn_is_over(c) && can_step(c);
        if (c->yields && c->phase == PHASE_IDLE)
                call_phase(c, PHASE_HEAD);
}

/* Parses, answers and sends as far as possible. bytes: just read, or those that waited. False: the connection
 * was closed. */
static bool call_work(struct http_call *c, struct str bytes, bool own)
{
        struct work *w = c->work;
        bool stuck = false;

        c->in_loop = true;
        do {
                while (can_step(c) && bytes.n && !stuck && !turn_is_over(c))
                        stuck = !step(c, &bytes);
                if (!c->broken && unsent(w) && call_send(c, (struct str){ 0 }) < 0)
                        c->broken = true;
        } while (!stuck && bytes.n && !unsent(w) && can_step(c) && !turn_is_over(c));
        c->linger = c->linger || (c->closing && bytes.n);
        if (c->closing)
                bytes.n = 0;
        c->in_loop = false;
        if (c->broken) {
                call_lost(c);
                return false;
        }
        keep(c, bytes, own);
        if (unsent(w) && c->phase != PHASE_HANDLING && c->phase != PHASE_ANSWERING)
                call_phase(c, PHASE_ANSWERING);
        else if (!unsent(w) && c->phase == PHASE_ANSWERING)
                follow(c, 0);
        maybe_yield(c, bytes.n && !stuck && !unsent(w));
        if (w->in.failed || w->out.failed) {
                call_lost(c);
                return false;
        }
        return call_rest(c);
}

static bool call_go_on(struct http_call *c)
{
        const struct work *w = c->work;

        return call_work(c, waiting(w) ? (struct str){ w->in.p + w->fed, waiting(w) } : (struct str){ 0 },
                         true);
}

/* ---- answers ------------------------------------------------------------ */

static bool keeps(const struct http_call *c)
{
        const struct http_server *s = c->server;

        return c->work->intake.codec.message.keep_alive && !c->closing && !s->draining && !s->lingering &&
               (!s->config.max_requests || c->requests < s->config.max_requests);
}

/* A body that is not small is sent from the handler's memory; only what is left of it is copied. */
static void send_borrowed(struct http_call *c, struct str body)
{
        ssize_t n = body.n > COPY_MAX ? call_send(c, body) : 0;

        if (n < 0)
                c->broken = true;
        else
                buf_add(&c->work->out, body.p + n, body.n - (size_t)n);
}

static void reply(struct http_call *c, int status, struct str content_type, struct str headers,
                  struct str body, struct buf *taken)
{
        struct work *w = c->work;
        bool keep_it = keeps(c), with_body = answer_has_body(c, status) && body.n;

        if (c->left) {
                c->phase = PHASE_IDLE;
                call_close(c);
                return;
        }
        answer_head(c, status, content_type, headers, body.n, keep_it);
        c->closing = !keep_it;
        call_phase(c, PHASE_IDLE);
        if (with_body && taken && body.n > COPY_MAX) {
                w->body = *taken;
                *taken = (struct buf){ .max = taken->max };
        } else if (with_body)
                send_borrowed(c, body);
        http_intake_next(&w->intake); /* the answer may have borrowed from the request */
        w->held = 0;
        if (c->in_loop)
                return;
        turn_begin(c);
        (void)call_go_on(c);
}

void http_call_reply(struct http_call *c, int status, struct str content_type, struct str headers,
                     struct str body)
{
        reply(c, status, content_type, headers, body, NULL);
}

void http_call_reply_take(struct http_call *c, int status, struct str content_type, struct str headers,
                          struct buf *body)
{
        reply(c, status, content_type, headers, buf_view(body), body);
        buf_done(body);
}

void call_refuse(struct http_call *c, enum http_refusal kind, const char *why)
{
        if (!c->work && !(c->work = work_new(c->server))) {
                call_close(c);
                return;
        }
        put_refusal(c, kind, why);
        (void)call_work(c, (struct str){ 0 }, true);
}

/* ---- reading ------------------------------------------------------------ */

static ssize_t receive(struct http_call *c)
{
        ssize_t n;

        if (c->tls && c->phase != PHASE_LINGERING)
                return tls_read(c->tls, c->server->space, READ_SIZE);
        do
                n = recv(c->fd, c->server->space, READ_SIZE, 0);
        while (n < 0 && errno == EINTR);
        return n >= 0 ? n : errno == EAGAIN ? AGAIN : BROKEN;
}

/* The client has closed its sending side: server.h says what that means. False: the connection was closed. */
static bool call_ended(struct http_call *c)
{
        usec worked = loop_now(c->server->loop) - c->since;

        if (c->phase != PHASE_ANSWERING &&
            !(c->phase == PHASE_HANDLING && worked <= c->server->config.half_close)) {
                call_lost(c);
                return false;
        }
        c->ended = true;
        return call_rest(c);
}

/* False: the connection was closed. */
static bool take(struct http_call *c, size_t n)
{
        struct str bytes = { c->server->space, n };

        if (c->phase == PHASE_LINGERING) {
                c->moved += n;
                if (c->moved <= (size_t)16 << 20)
                        return true;
                call_close(c);
                return false;
        }
        if (!c->work && !(c->work = work_new(c->server))) {
                call_close(c);
                return false;
        }
        if (c->closing) {
                c->linger = true;
                return true;
        }
        if (!waiting(c->work))
                return call_work(c, bytes, false);
        buf_add(&c->work->in, bytes.p, bytes.n);
        return call_go_on(c);
}

static bool call_read(struct http_call *c)
{
        c->again = false;
        for (int reads = 0; reads < READS_MAX && !c->paused && !c->yields && !c->ended; reads++) {
                ssize_t n = receive(c);

                if (n == AGAIN)
                        return true;
                if (n == 0)
                        return call_ended(c);
                if (n < 0) {
                        call_lost(c);
                        return false;
                }
                if (!take(c, (size_t)n))
                        return false;
                if (!c->tls && n < READ_SIZE)
                        return true;
        }
        /* TLS may have buffered bytes that poll does not report. */
        c->again = !c->paused && !c->ended;
        if (c->again)
                loop_ready(c->server->loop, &c->timer);
        return true;
}

/* ---- events ------------------------------------------------------------- */

/* False: the handshake is not done, or the connection was closed. */
static bool shake_hands(struct http_call *c)
{
        ssize_t r = tls_handshake(c->tls);

        if (r == AGAIN) {
                loop_io_want(c->io, LOOP_READABLE | (SSL_want_write(c->tls) ? LOOP_WRITABLE : 0));
                return false;
        }
        if (r < 0) {
                tls_server_failed(c->server->tls, loop_now(c->server->loop));
                call_close(c);
                return false;
        }
        room_session(c, SESSION_BYTES);
        call_phase(c, PHASE_IDLE);
        loop_io_want(c->io, LOOP_READABLE);
        return true;
}

void call_event(void *cookie, int events)
{
        struct http_call *c = cookie;

        if (c->phase == PHASE_HANDSHAKE) {
                if (shake_hands(c))
                        (void)call_read(c);
                return;
        }
        if (c->yields) /* its turn comes at the end of the pass */
                return;
        turn_begin(c);
        if ((events & LOOP_WRITABLE) && c->work && !call_go_on(c))
                return;
        if (events & LOOP_READABLE)
                (void)call_read(c);
}

static void overdue(struct http_call *c)
{
        switch (c->phase) {
        case PHASE_HEAD: call_refuse(c, HTTP_TIMED_OUT, "the request did not arrive in time"); break;
        case PHASE_BODY: call_refuse(c, HTTP_TIMED_OUT, "the body did not arrive in time"); break;
        case PHASE_HANDLING: break;
        case PHASE_HANDSHAKE:
                tls_server_failed(c->server->tls, loop_now(c->server->loop));
                call_close(c);
                break;
        case PHASE_ANSWERING:
                c->broken = true;
                call_close(c);
                break;
        case PHASE_IDLE:
        case PHASE_LINGERING: call_close(c); break;
        }
}

static void on_timer(struct task *t, usec now)
{
        struct http_call *c = CONTAINER_OF(t, struct http_call, timer);

        c->deadline = due(c);
        if (now >= c->deadline) {
                overdue(c);
                return;
        }
        if (!heap_has(&t->timer))
                loop_arm(c->server->loop, t, c->deadline);
        turn_begin(c);
        if (c->yields && !call_go_on(c))
                return;
        if (c->again)
                (void)call_read(c);
}

void call_begin(struct http_call *c)
{
        c->timer.turn = on_timer;
        room_session(c, c->tls ? SHAKING_BYTES : 0);
        call_phase(c, c->tls ? PHASE_HANDSHAKE : PHASE_IDLE);
        loop_io_want(c->io, LOOP_READABLE);
        if (c->surplus)
                call_refuse(c, HTTP_OVERLOADED, "too many connections");
}

void works_free(struct http_server *s)
{
        for (struct work *w; (w = s->spare);) {
                s->spare = w->next;
                work_free(w);
        }
}
