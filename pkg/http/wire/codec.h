/* The HTTP/1.1 codec of client and server: llhttp (strict) with limits and buffers for what it finds. One
 * message at a time; sans-I/O. Owned by its connection; one thread. */
#pragma once

#include <llhttp.h>

#include "base/buf.h"
#include "base/error.h"
#include "json/pick.h"

struct http_message {
        uint8_t method;    /* enum llhttp_method; requests */
        int status;        /* answers */
        struct buf target; /* requests: as sent */
        struct buf head;   /* "name\0value\0" pairs, names as sent */
        struct buf body;   /* cut at body_max */
        bool body_cut;
        bool keep_alive; /* the connection may carry another message */
        bool complete;
};

struct http_codec {
        llhttp_t parser;
        struct http_message message;
        size_t head_max, body_max, head_size;
        uint64_t around, body_n; /* bytes of this message: framing and head; the body, kept or not */
        struct json_pick *pick;  /* borrowed; is fed the whole body, however much of it is kept; NULL: none */
        bool refuse_large_body;  /* a request whose body is over body_max is an error, not cut */
        bool head_answer;        /* the answer to HEAD: no body follows */
        bool head_done;          /* headers from here on are trailers: counted, but not kept */
        bool started;            /* bytes of the current message were fed */
        const char *end;         /* end of the bytes being fed */
        bool value_ended;        /* the line of the header's value has ended */
        int refuse_status;       /* the status that a server answers to the fault; 0: none */
        const char *fault;
};

void http_codec_init(struct http_codec *, bool request, size_t head_max, size_t body_max);
void http_codec_done(struct http_codec *);
void http_codec_next(struct http_codec *); /* ready for the next message on the connection */
/* Parses bytes; *used: how many were taken. After a complete message the rest belongs to the next one. -1:
 * the peer broke HTTP. */
int http_codec_feed(struct http_codec *, struct str, size_t *used, struct error *) MUST_CHECK;
/* the peer closed: the end of a close-delimited body, or a fault */
int http_codec_eof(struct http_codec *, struct error *) MUST_CHECK;
/* The next header of a head, where each is "name\0value\0"; *rest: the head at first. False: there is none.
 */
static inline bool http_head_next(struct str *rest, struct str *name, struct str *value)
{
        if (!rest->p || !rest->n)
                return false;
        *name = str_of(rest->p);
        *value = str_of(rest->p + name->n + 1);
        *rest = (struct str){ value->p + value->n + 1, rest->n - name->n - value->n - 2 };
        return true;
}
static inline struct str http_head(const struct http_message *m)
{
        return (struct str){ m->head.p, m->head.n };
}
struct str http_head_find(struct str head, struct str name); /* the first of that name; n 0: absent */
/* the first of that name, n 0: absent */
struct str http_message_header(const struct http_message *, struct str name);
const char *http_method_name(const struct http_message *);
