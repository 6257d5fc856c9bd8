/* HTTP/2 on a connection: many exchanges at a time, each a stream, framed by nghttp2. All that a pass submits
 * is sent with one write at its end. */
#include <ctype.h>
#include <stdio.h>

#include "http/client/connection.h"

enum {
        OUT_MAX = 262144,
        STREAM_WINDOW = 1 << 18,
        CONNECTION_WINDOW = 16 << 20,
        FIELDS_MAX = 128,
        FIRST_FIELDS = 4,
        FIELDS_SIZE_MAX = 8192,
        EMPTY_MAX = 4 << 20
};
static const usec SILENT = USEC_SEC;

struct http2 {
        struct connection *connection;
        nghttp2_session *session;
        struct buf out; /* frames to be sent */
        size_t written; /* bytes of out that were written */
        struct task flush, silence;
        uint64_t empty; /* bytes received since any part of an answer was */
        bool asked;     /* a PING was sent, and nothing received since */
        /* a request was sent and nothing received since, whatever became of that request */
        bool unheard;
        char fault[160]; /* nghttp2's last complaint */
};

static struct http_client *client_of(const struct connection *c) { return c->target->client; }
static void write_soon(struct connection *c) { loop_ready(client_of(c)->loop, &c->http2->flush); }

/* ---- ends of exchanges -------------------------------------------------- */

static struct exchange *exchange_of(nghttp2_session *s, int32_t stream)
{
        return nghttp2_session_get_stream_user_data(s, stream);
}

/* Detaches the exchange from nghttp2's stream. */
static void detach(struct connection *c, struct exchange *x)
{
        (void)nghttp2_session_set_stream_user_data(c->http2->session, x->stream, NULL);
        connection_drop(c, x);
}

static void reset(const struct connection *c, const struct exchange *x, uint32_t code)
{
        (void)nghttp2_submit_rst_stream(c->http2->session, NGHTTP2_FLAG_NONE, x->stream, code);
}

static void finish(struct connection *c, struct exchange *x)
{
        detach(c, x);
        c->used = true;
        exchange_answer(x, x->request->status);
}

static void answered(struct connection *c, struct exchange *x)
{
        /* The answer came before the whole request was sent: the peer does not want the rest, and its memory
         * is the caller's again. */
        if (x->sent < x->message->n &&
            nghttp2_session_get_stream_local_close(c->http2->session, x->stream) == 0)
                reset(c, x, NGHTTP2_NO_ERROR);
        finish(c, x);
}

/* The rest of the answer is not read. */
static void answered_enough(struct connection *c, struct exchange *x)
{
        x->request->body_cut = true;
        reset(c, x, NGHTTP2_CANCEL);
        finish(c, x);
}

static void ended(struct connection *c, struct exchange *x, uint32_t code)
{
        struct error err;
        bool unseen = code == NGHTTP2_REFUSED_STREAM || !x->written;

        detach(c, x);
        if (unseen && x->again == 0) {
                x->again++;
                pool_wait(x, true);
                return;
        }
        x->written = !unseen;
        if (x->fault)
                (void)error_set(&err, ERROR_PROTOCOL, "%s %s: %s", c->target->method, c->target->url_text,
                                x->fault);
        else
                (void)error_set(&err, code == NGHTTP2_PROTOCOL_ERROR ? ERROR_PROTOCOL : ERROR_UNREACHABLE,
                                "%s %s: the stream was reset: %s%s%s", c->target->method, c->target->url_text,
                                nghttp2_http2_strerror(code), c->http2->fault[0] ? ": " : "",
                                c->http2->fault);
        err.retry = true;
        exchange_fail(x, &err);
}

/* ---- what nghttp2 tells ------------------------------------------------- */

static int on_header(nghttp2_session *s, const nghttp2_frame *frame, const uint8_t *name, size_t name_n,
                     const uint8_t *value, size_t value_n, uint8_t flags UNUSED, void *cookie UNUSED)
{
        struct exchange *x = frame->hd.type == NGHTTP2_HEADERS ? exchange_of(s, frame->hd.stream_id) : NULL;

        if (!x || x->answering) /* trailers are ignored */
                return 0;
        if (name_n == 7 && memcmp(name, ":status", 7) == 0 && value_n == 3) {
                x->request->status = (value[0] - '0') * 100 + (value[1] - '0') * 10 + (value[2] - '0');
                return 0;
        }
        if (x->head.n + name_n + value_n + 2 > ANSWER_HEAD_MAX) {
                x->fault = "the answer's header is too large";
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        }
        buf_add(&x->head, name, name_n);
        buf_char(&x->head, 0);
        buf_add(&x->head, value, value_n);
        buf_char(&x->head, 0);
        return 0;
}

/* Flow control: the connection's window is opened again at once, a stream's only while its answer may go on.
 */
static int on_data(nghttp2_session *s, uint8_t flags UNUSED, int32_t stream, const uint8_t *data, size_t n,
                   void *cookie)
{
        struct exchange *x = exchange_of(s, stream);

        if (n)
                ((struct connection *)cookie)->http2->empty = 0;
        (void)nghttp2_session_consume_connection(s, n);

        if (x) {
                size_t room = x->target->config.answer_max - MIN_OF(x->body.n, x->target->config.answer_max);

                buf_add(&x->body, data, MIN_OF(n, room));
                x->body_n += n;
                x->request->body_cut = x->request->body_cut || n > room;
                if (x->target->config.answer_member)
                        json_pick_feed(&x->pick, (struct str){ (const char *)data, n });
                if (x->body_n > x->target->config.answer_read_max)
                        answered_enough(cookie, x);
                else if (exchange_takes(x, x->body.n))
                        (void)nghttp2_session_consume_stream(s, stream, n);
                else
                        x->unread += n;
        }
        return 0;
}

static uint32_t peer_streams(const struct connection *c)
{
        return MIN_OF(nghttp2_session_get_remote_settings(c->http2->session,
                                                          NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS),
                      c->target->config.max_streams);
}

/* Requests above the peer's limit go to another connection. */
static void take_back(struct connection *c)
{
        uint32_t over = c->carried > c->room ? c->carried - c->room : 0;

        while (over--) {
                struct exchange *x = LIST_ITEM(c->exchanges.last, struct exchange, beside);

                if (x->written)
                        return;
                detach(c, x);
                reset(c, x, NGHTTP2_CANCEL);
                pool_wait(x, true);
        }
}

static void on_frame_headers(struct connection *c, const nghttp2_frame *frame)
{
        struct exchange *x = exchange_of(c->http2->session, frame->hd.stream_id);

        if (!x)
                return;
        if (x->request->status >= 200) {
                x->answering = true;
                c->http2->empty = 0;
        } else {
                /* 1xx is not the final answer: another head follows. */
                buf_reset(&x->head);
                x->request->status = 0;
        }
}

static int on_frame(nghttp2_session *s, const nghttp2_frame *frame, void *cookie)
{
        struct connection *c = cookie;
        struct exchange *x;

        switch (frame->hd.type) {
        case NGHTTP2_HEADERS: on_frame_headers(c, frame); break;
        case NGHTTP2_SETTINGS:
                if (!(frame->hd.flags & NGHTTP2_FLAG_ACK)) {
                        c->room = c->target->streams = peer_streams(c);
                        if (!c->room)
                                pool_hold_off(c->target);
                        take_back(c);
                }
                return 0;
        case NGHTTP2_GOAWAY:
                /* nghttp2 closes the streams above GOAWAY's last one as refused; the others go on to their
                 * end. The reason is kept for error messages. */
                if (frame->goaway.error_code != NGHTTP2_NO_ERROR)
                        (void)snprintf(c->http2->fault, sizeof(c->http2->fault), "the server sent GOAWAY: %s",
                                       nghttp2_http2_strerror(frame->goaway.error_code));
                connection_stop(c);
                return 0;
        default: break;
        }
        if ((frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) &&
            (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) && (x = exchange_of(s, frame->hd.stream_id)) &&
            x->answering)
                answered(c, x);
        return 0;
}

static int on_stream_close(nghttp2_session *s, int32_t stream, uint32_t code, void *cookie)
{
        struct exchange *x = exchange_of(s, stream);

        if (x)
                ended(cookie, x, code);
        return 0;
}

static int on_fault(nghttp2_session *s UNUSED, int code UNUSED, const char *text, size_t n, void *cookie)
{
        struct http2 *h = ((struct connection *)cookie)->http2;

        (void)snprintf(h->fault, sizeof(h->fault), "%.*s", (int)n, text);
        return 0;
}

static int on_sent(nghttp2_session *s, const nghttp2_frame *frame, void *cookie UNUSED)
{
        struct exchange *x = frame->hd.type == NGHTTP2_HEADERS ? exchange_of(s, frame->hd.stream_id) : NULL;

        if (x)
                x->written = true;
        if (x && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
                pool_sent(x);
        return 0;
}

static ssize_t on_bytes(nghttp2_session *s UNUSED, const uint8_t *p, size_t n, int flags UNUSED, void *cookie)
{
        struct http2 *h = ((struct connection *)cookie)->http2;

        if (h->out.n >= OUT_MAX)
                return NGHTTP2_ERR_WOULDBLOCK;
        buf_add(&h->out, p, n);
        return h->out.failed ? NGHTTP2_ERR_CALLBACK_FAILURE : (ssize_t)n;
}

static ssize_t on_body_wanted(nghttp2_session *s, int32_t stream, uint8_t *space UNUSED, size_t most,
                              uint32_t *flags, nghttp2_data_source *source UNUSED, void *cookie UNUSED)
{
        struct exchange *x = exchange_of(s, stream);
        size_t n;

        if (!x)
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        n = MIN_OF(most, x->message->n - x->sent);
        *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
        if (x->sent + n == x->message->n)
                *flags |= NGHTTP2_DATA_FLAG_EOF;
        return (ssize_t)n;
}

static int on_body_sent(nghttp2_session *s, nghttp2_frame *frame, const uint8_t *head, size_t n,
                        nghttp2_data_source *source UNUSED, void *cookie)
{
        struct http2 *h = ((struct connection *)cookie)->http2;
        struct exchange *x = exchange_of(s, frame->hd.stream_id);

        if (!x)
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        if (h->out.n >= OUT_MAX)
                return NGHTTP2_ERR_WOULDBLOCK;
        buf_add(&h->out, head, 9);
        buf_add(&h->out, x->message->p + x->sent, n);
        x->sent += n;
        if (x->sent == x->message->n)
                pool_sent(x);
        return h->out.failed ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

/* ---- the socket --------------------------------------------------------- */

static void broken(struct connection *c, enum error_kind kind, const char *why)
{
        struct error err;
        const char *more = c->http2->fault;

        (void)error_set(&err, kind, "%s %s: %s%s%s", c->target->method, c->target->url_text, why,
                        more[0] ? ": " : "", more);
        err.retry = true;
        connection_break(c, &err);
}

/* Sends what nghttp2 has; false: the connection was closed. */
static bool http2_write(struct connection *c)
{
        struct http2 *h = c->http2;
        struct error err;

        for (;;) {
                ssize_t n;

                if (h->written == h->out.n) {
                        h->written = 0;
                        buf_reset(&h->out);
                        if (nghttp2_session_send(h->session) != 0) {
                                broken(c, ERROR_MEMORY, "framing the request failed");
                                return false;
                        }
                        if (!h->out.n)
                                break;
                }
                n = connection_write(c, h->out.p + h->written, h->out.n - h->written);
                h->written += n > 0 ? (size_t)n : 0;
                if (n == IO_AGAIN) {
                        loop_io_want(c->io, LOOP_READABLE | LOOP_WRITABLE);
                        return true;
                }
                if (n == IO_BROKEN) {
                        connection_error(c, &err);
                        connection_break(c, &err);
                        return false;
                }
        }
        if (!nghttp2_session_want_read(h->session) && !nghttp2_session_want_write(h->session)) {
                broken(c, ERROR_PROTOCOL,
                       c->retiring ? "the peer closed the connection before its answer was whole"
                                   : "the peer violated HTTP/2");
                return false;
        }
        loop_io_want(c->io, LOOP_READABLE);
        return true;
}

/* False: the connection was closed. */
static bool http2_read(struct connection *c)
{
        struct turn turn = { 0 };
        char *space = client_of(c)->space;

        for (;;) {
                ssize_t n = connection_read(c, space, READ_SIZE), used;
                struct error err;

                if (n == IO_AGAIN)
                        return true;
                if (n == IO_BROKEN) {
                        connection_error(c, &err);
                        connection_break(c, &err);
                        return false;
                }
                if (n == 0) {
                        broken(c, ERROR_UNREACHABLE,
                               "the peer closed the connection before its answer was whole");
                        return false;
                }
                c->heard += (size_t)n;
                c->heard_at = loop_now(client_of(c)->loop);
                c->http2->asked = c->http2->unheard = false;
                used = nghttp2_session_mem_recv(c->http2->session, (const uint8_t *)space, (size_t)n);
                if (used < 0) {
                        broken(c, ERROR_PROTOCOL, nghttp2_strerror((int)used));
                        return false;
                }
                c->http2->empty += (uint64_t)n;
                if (c->http2->empty > EMPTY_MAX) {
                        broken(c, ERROR_PROTOCOL, "the peer sends too many empty frames");
                        return false;
                }
                if ((n < READ_SIZE && !c->drain && !connection_buffers(c)) ||
                    connection_had_enough(c, &turn, (size_t)n))
                        return true;
        }
}

/* A network path that drops everything without an error: each request would wait for its own timeout, and
 * further ones would follow it. */
static void on_silence(struct task *task, usec now)
{
        struct http2 *h = CONTAINER_OF(task, struct http2, silence);
        struct connection *c = h->connection;
        usec after = c->target->config.ping_after;

        if (!c->carried && !h->unheard)
                return;
        if (now < c->heard_at + after) {
                loop_arm(client_of(c)->loop, task, c->heard_at + after);
                return;
        }
        if (h->asked) {
                broken(c, ERROR_TIMEOUT, "the peer did not answer a PING");
                return;
        }
        h->asked = true;
        (void)nghttp2_submit_ping(h->session, NGHTTP2_FLAG_NONE, NULL);
        loop_arm(client_of(c)->loop, task, now + after);
        write_soon(c);
}

/* Call after exchanges have begun or ended. */
static void settle(struct connection *c)
{
        struct http_target *t = c->target;

        (void)connection_place(c);
        pool_serve(t);
}

static void on_flush(struct task *task, usec now UNUSED)
{
        struct connection *c = CONTAINER_OF(task, struct http2, flush)->connection;

        if (http2_write(c))
                settle(c);
}

static void http2_event(struct connection *c, int events)
{
        /* we ask for this only while a write was blocked */
        if (events & LOOP_WRITABLE) {
                c->heard_at = loop_now(client_of(c)->loop);
                c->http2->asked = false;
        }
        if ((events & LOOP_READABLE) && !http2_read(c))
                return;
        /* New requests first, so that one write sends them with nghttp2's own frames. */
        if (!c->retiring) {
                (void)connection_place(c);
                pool_serve(c->target);
        }
        if (http2_write(c))
                settle(c);
}

/* ---- requests ----------------------------------------------------------- */

static bool hop_by_hop(struct str name)
{
        static const char *const all[] = {
                "connection", "host", "transfer-encoding", "keep-alive", "proxy-connection", "upgrade", "te"
        };

        for (size_t i = 0; i < COUNT_OF(all); i++)
                if (str_is(name, all[i]))
                        return true;
        return false;
}

static nghttp2_nv field(struct str name, struct str value, uint8_t flags)
{
        return (nghttp2_nv){ (uint8_t *)(uintptr_t)name.p, (uint8_t *)(uintptr_t)value.p, name.n, value.n,
                             flags };
}

/* Turns "Name: value\r\n" lines into fields; the names are made lower case in place. */
static size_t parse_lines(char *p, size_t n, nghttp2_nv *out, size_t most, uint8_t flags)
{
        struct str rest = { p, n };
        size_t found = 0;

        while (rest.n && found < most) {
                struct str line = str_cut(&rest, '\n'), name, value = line;

                name = str_cut(&value, ':');
                if (!name.n || name.n == line.n)
                        continue;
                for (char *at = p + (name.p - p); at < name.p + name.n; at++)
                        *at = (char)tolower((unsigned char)*at);
                if (!hop_by_hop(name))
                        out[found++] = field(name, str_trim(value), flags);
        }
        return found;
}

int http2_fields(struct http_target *t, struct error *err)
{
        const uint8_t keep = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE;

        size_t most = FIRST_FIELDS;

        for (size_t i = t->line_n; i < t->head.n && most < FIELDS_MAX; i++)
                most += t->head.p[i] == '\n';
        t->fields = calloc(most, sizeof(*t->fields));
        t->field_text.max = t->head.max;
        buf_add(&t->field_text, t->head.p + t->line_n, t->head.n - t->line_n);
        if (!t->fields || t->field_text.failed)
                return error_memory(err);
        t->fields[0] = field(STR(":method"), str_of(t->method), keep);
        t->fields[1] = field(STR(":scheme"), t->url.tls ? STR("https") : STR("http"), keep);
        t->fields[2] = field(STR(":authority"), t->url.authority, keep);
        t->fields[3] = field(STR(":path"), t->url.target, keep);
        t->fields_n = FIRST_FIELDS + parse_lines(t->field_text.p, t->field_text.n, t->fields + FIRST_FIELDS,
                                                 most - FIRST_FIELDS, keep);
        return 0;
}

/* The request's own lines lie between the constant ones and the body, as put_head leaves them. */
static void http2_start(struct connection *c, struct exchange *x)
{
        nghttp2_nv fields[FIELDS_MAX];
        nghttp2_data_provider body = { .read_callback = on_body_wanted };
        struct http_target *t = c->target;
        size_t n = t->fields_n;
        char *head = x->message->p + x->start;

        memcpy(fields, t->fields, n * sizeof(*fields));
        fields[0] = field((struct str){ (char *)fields[0].name, fields[0].namelen },
                          (struct str){ head, x->method_n }, NGHTTP2_NV_FLAG_NONE);
        fields[3] = field((struct str){ (char *)fields[3].name, fields[3].namelen },
                          (struct str){ head + x->method_n + 1, x->path_n }, NGHTTP2_NV_FLAG_NONE);
        n += parse_lines(x->message->p + x->own, x->headroom - x->own, fields + n, FIELDS_MAX - n,
                         NGHTTP2_NV_FLAG_NO_INDEX);
        /* Silence counts from the first request that was sent after the last sign of the peer, even if that
         * request was cancelled and others follow. */
        if (c->carried == 1 && !c->http2->unheard) {
                c->heard_at = loop_now(client_of(c)->loop);
                c->http2->asked = false;
                loop_arm(client_of(c)->loop, &c->http2->silence, c->heard_at + t->config.ping_after);
        }
        c->http2->unheard = true;
        x->began = loop_now(client_of(c)->loop);
        x->sent = x->headroom;
        x->answering = false;
        x->body_n = 0;
        x->fault = NULL;
        buf_reset(&x->head);
        buf_reset(&x->body);
        x->request->status = 0;
        x->stream = nghttp2_submit_request(c->http2->session, NULL, fields, n,
                                           x->message->n > x->headroom ? &body : NULL, x);
        if (x->stream > 0) {
                write_soon(c);
                return;
        }
        /* No stream id is left, or no memory: use another connection. */
        connection_drop(c, x);
        pool_wait(x, true);
        connection_stop(c);
        write_soon(c);
}

/* It was cancelled after a while in which nothing was received: the next request had better use another
 * connection. */
static bool fell_silent(const struct connection *c, const struct exchange *x)
{
        return c->heard == x->heard && x->written && loop_now(c->target->client->loop) - x->began >= SILENT;
}

static void http2_cancel(struct connection *c, struct exchange *x)
{
        if (fell_silent(c, x))
                connection_stop(c);
        (void)nghttp2_session_set_stream_user_data(c->http2->session, x->stream, NULL);
        reset(c, x, NGHTTP2_CANCEL);
        write_soon(c);
}

/* ---- beginning and end -------------------------------------------------- */

static int start_session(struct connection *c)
{
        const nghttp2_settings_entry settings[] = {
                { NGHTTP2_SETTINGS_ENABLE_PUSH, 0 },
                { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW },
                { NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, ANSWER_HEAD_MAX },
        };
        nghttp2_session_callbacks *calls;
        nghttp2_option *option;
        int r;

        if (nghttp2_session_callbacks_new(&calls) != 0)
                return -1;
        nghttp2_session_callbacks_set_on_header_callback(calls, on_header);
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(calls, on_data);
        nghttp2_session_callbacks_set_on_frame_recv_callback(calls, on_frame);
        nghttp2_session_callbacks_set_on_stream_close_callback(calls, on_stream_close);
        nghttp2_session_callbacks_set_on_frame_send_callback(calls, on_sent);
        nghttp2_session_callbacks_set_send_callback(calls, on_bytes);
        nghttp2_session_callbacks_set_send_data_callback(calls, on_body_sent);
        nghttp2_session_callbacks_set_error_callback2(calls, on_fault);
        r = nghttp2_option_new(&option);
        if (r == 0) {
                nghttp2_option_set_no_auto_window_update(option, 1);
                r = nghttp2_session_client_new2(&c->http2->session, calls, c, option);
                nghttp2_option_del(option);
        }
        nghttp2_session_callbacks_del(calls);
        if (r != 0 ||
            nghttp2_submit_settings(c->http2->session, NGHTTP2_FLAG_NONE, settings, COUNT_OF(settings)) !=
                    0 ||
            nghttp2_session_set_local_window_size(c->http2->session, NGHTTP2_FLAG_NONE, 0,
                                                  CONNECTION_WINDOW) != 0)
                return -1;
        return 0;
}

static void http2_close(struct connection *c)
{
        if (!c->http2)
                return;
        loop_forget(client_of(c)->loop, &c->http2->flush);
        loop_forget(client_of(c)->loop, &c->http2->silence);
        nghttp2_session_del(c->http2->session);
        buf_done(&c->http2->out);
        free(c->http2);
        c->http2 = NULL;
}

static int http2_open(struct connection *c, struct error *err)
{
        c->http2 = calloc(1, sizeof(*c->http2));
        if (!c->http2)
                return error_memory(err);
        c->http2->connection = c;
        c->http2->flush.turn = on_flush;
        c->http2->silence.turn = on_silence;
        c->http2->out.max = OUT_MAX * 2;
        if (start_session(c) < 0) {
                http2_close(c);
                return error_memory(err);
        }
        /* Until its SETTINGS arrive we assume the limits of the last connection. */
        c->room = c->target->streams;
        write_soon(c);
        return 0;
}

static void http2_resume(struct connection *c, struct exchange *x)
{
        (void)nghttp2_session_consume_stream(c->http2->session, x->stream, x->unread);
        x->unread = 0;
        write_soon(c);
}

const struct framing http2_framing = { http2_open,   http2_close, http2_start,
                                       http2_cancel, http2_event, http2_resume };
