#include "http/wire/codec.h"

#include <inttypes.h>

/* Limits of what is not body: so many heads (1xx answers, a status line, trailers), and so many bytes of
 * framing for each of the body's (chunks). */
enum { AROUND_HEADS = 4, AROUND_BYTE = 16 };

static struct http_codec *of(llhttp_t *parser) { return CONTAINER_OF(parser, struct http_codec, parser); }

static int fault(struct http_codec *c, int status, const char *why)
{
        c->refuse_status = status;
        c->fault = why;
        llhttp_set_error_reason(&c->parser, why);
        return HPE_USER;
}

static int count_head(struct http_codec *c, size_t n)
{
        c->head_size += n;
        return c->head_size > c->head_max ? fault(c, 431, "header too large") : 0;
}

static int on_target(llhttp_t *p, const char *at, size_t n)
{
        buf_add(&of(p)->message.target, at, n);
        return count_head(of(p), n);
}

static int on_name(llhttp_t *p, const char *at, size_t n)
{
        struct http_codec *c = of(p);

        if (!c->head_done)
                buf_add(&c->message.head, at, n);
        return count_head(c, n);
}

static int on_name_complete(llhttp_t *p)
{
        struct http_codec *c = of(p);
        struct buf *head = &c->message.head;

        if (c->head_done)
                return 0;
        if (!head->n || !head->p[head->n - 1])
                return fault(c, 400, "a header without a name");
        buf_char(head, 0);
        return 0;
}

static int on_value(llhttp_t *p, const char *at, size_t n)
{
        struct http_codec *c = of(p);

        if (memchr(at, 0, n))
                return fault(c, 400, "NUL in a header");
        /* The parser joins folded lines; if a piece ends before the bytes fed do, its line has ended. */
        if (c->value_ended)
                return fault(c, 400, "a folded header");
        c->value_ended = at + n < c->end;
        if (!c->head_done)
                buf_add(&c->message.head, at, n);
        return count_head(c, n);
}

static int on_value_complete(llhttp_t *p)
{
        struct buf *head = &of(p)->message.head;

        of(p)->value_ended = false;
        if (of(p)->head_done)
                return 0;
        /* The parser keeps white space after a value, which is not part of it (RFC 9112, 5.1). */
        while (head->n && (head->p[head->n - 1] == ' ' || head->p[head->n - 1] == '\t'))
                head->n--;
        buf_char(head, 0);
        return 0;
}

static int on_headers_complete(llhttp_t *p)
{
        struct http_codec *c = of(p);

        c->head_done = true;
        if (c->message.head.failed || c->message.target.failed)
                return fault(c, 431, "header too large");
        if (p->http_major != 1)
                return fault(c, 505, "HTTP/1.0 and HTTP/1.1 are spoken here");
        if (p->type == HTTP_RESPONSE && (p->status_code < 100 || p->status_code > 999))
                return fault(c, 400, "a status that has not three digits");
        if (p->type == HTTP_RESPONSE && p->status_code == 101)
                return fault(c, 400, "the peer changes the protocol without being asked");
        /* A server may ignore Upgrade; it may not ignore CONNECT. */
        if (p->type == HTTP_REQUEST && p->method != HTTP_CONNECT)
                p->upgrade = 0;
        c->message.method = p->method;
        c->message.status = p->status_code;
        if (c->refuse_large_body && p->content_length != UINT64_MAX && p->content_length > c->body_max)
                return fault(c, 413, "body too large");
        /* For answers the status and the request's method decide whether a body follows; return 1: none does.
         */
        return c->head_answer ||
                               (p->type == HTTP_RESPONSE && (p->status_code == 204 || p->status_code == 304))
                       ? 1
                       : 0;
}

static int on_body(llhttp_t *p, const char *at, size_t n)
{
        struct http_codec *c = of(p);
        size_t room = c->body_max - MIN_OF(c->message.body.n, c->body_max);

        if (n > room && c->refuse_large_body)
                return fault(c, 413, "body too large");
        buf_add(&c->message.body, at, MIN_OF(n, room));
        if (c->message.body.failed && c->refuse_large_body)
                return fault(c, 503, "no memory");
        c->body_n += n;
        if (c->pick)
                json_pick_feed(c->pick, (struct str){ at, n });
        c->message.body_cut = c->message.body_cut || n > room;
        return 0;
}

static int on_message_complete(llhttp_t *p)
{
        struct http_codec *c = of(p);

        /* 1xx (except 101) is not the final answer: another head follows. */
        if (p->type == HTTP_RESPONSE && p->status_code >= 100 && p->status_code <= 199 &&
            p->status_code != 101) {
                buf_reset(&c->message.head);
                c->head_size = 0;
                c->head_done = false;
                return 0;
        }
        c->message.keep_alive = llhttp_should_keep_alive(p);
        c->message.complete = true;
        return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
        .on_url = on_target,
        .on_header_field = on_name,
        .on_header_field_complete = on_name_complete,
        .on_header_value = on_value,
        .on_header_value_complete = on_value_complete,
        .on_headers_complete = on_headers_complete,
        .on_body = on_body,
        .on_message_complete = on_message_complete,
};

void http_codec_init(struct http_codec *c, bool request, size_t head_max, size_t body_max)
{
        *c = (struct http_codec){ .head_max = head_max, .body_max = body_max };
        c->message.head.max = head_max * 2 + 1024;
        c->message.target.max = head_max + 1024;
        c->message.body.max = body_max + 1;
        llhttp_init(&c->parser, request ? HTTP_REQUEST : HTTP_RESPONSE, &settings);
}

void http_codec_done(struct http_codec *c)
{
        buf_done(&c->message.target);
        buf_done(&c->message.head);
        buf_done(&c->message.body);
}

void http_codec_next(struct http_codec *c)
{
        buf_reset(&c->message.target);
        buf_reset(&c->message.head);
        buf_reset(&c->message.body);
        c->message.complete = c->message.body_cut = false;
        c->head_size = 0;
        c->around = c->body_n = 0;
        c->started = c->head_answer = c->head_done = false;
        c->refuse_status = 0;
        c->fault = NULL;
        llhttp_reset(&c->parser);
}

int http_codec_feed(struct http_codec *c, struct str bytes, size_t *used, struct error *err)
{
        llhttp_errno_t e;
        uint64_t body;

        *used = bytes.n;
        if (bytes.n == 0)
                return 0;
        c->started = true;
        c->end = bytes.p + bytes.n;
        body = c->body_n;
        e = llhttp_execute(&c->parser, bytes.p, bytes.n);
        c->around += bytes.n - (c->body_n - body);
        if (e == HPE_OK && c->around > AROUND_HEADS * (uint64_t)c->head_max + AROUND_BYTE * c->body_n)
                return error_set(err, ERROR_PROTOCOL,
                                 "the message is nearly all framing: more than %" PRIu64
                                 " bytes beside %" PRIu64 " of a body",
                                 c->around, c->body_n);
        if (e == HPE_PAUSED && c->message.complete) {
                *used = (size_t)(llhttp_get_error_pos(&c->parser) - bytes.p);
                llhttp_resume(&c->parser);
                return 0;
        }
        if (e == HPE_PAUSED_UPGRADE) {
                c->refuse_status = 501;
                return error_set(err, ERROR_PROTOCOL, "the peer asks to change the protocol");
        }
        if (e != HPE_OK) {
                if (!c->refuse_status)
                        c->refuse_status = 400;
                /* After a callback's error the parser's own message says nothing useful. */
                return error_set(err, ERROR_PROTOCOL, "broken HTTP: %s",
                                 c->fault                              ? c->fault
                                 : llhttp_get_error_reason(&c->parser) ? llhttp_get_error_reason(&c->parser)
                                                                       : "unknown");
        }
        return 0;
}

int http_codec_eof(struct http_codec *c, struct error *err)
{
        llhttp_errno_t e = llhttp_finish(&c->parser);

        if (c->message.complete || (e == HPE_OK && !c->started))
                return 0;
        return error_set(err, ERROR_PROTOCOL, "the peer closed the connection in the middle of a message");
}

struct str http_head_find(struct str head, struct str name)
{
        struct str key, value;

        while (http_head_next(&head, &key, &value))
                if (str_equal_nocase(key, name))
                        return value;
        return (struct str){ 0 };
}

struct str http_message_header(const struct http_message *m, struct str name)
{
        return http_head_find(http_head(m), name);
}

const char *http_method_name(const struct http_message *m)
{
        return llhttp_method_name((llhttp_method_t)m->method);
}
