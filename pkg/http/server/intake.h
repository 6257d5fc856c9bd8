/* How a server takes requests: the codec behind a guard that lets nothing pass whose end or meaning two
 * programs could see differently (RFC 9112, 11.2). The guard reads lines, lengths and chunks itself and hands
 * the parser whole heads and bodies without chunk extensions and trailers; where the two do not agree about
 * the end of a message, it is refused. Sans-I/O. Owned by its connection; one thread.
 *
 * What is decided here, where RFC 9112 leaves a choice: lines end in CRLF alone; a field is never folded; any
 * second Content-Length, even the same, and a second Transfer-Encoding are refused; chunked is the one
 * coding; leading zeros are accepted in lengths of up to 19 and chunk sizes of up to 16 digits; white space
 * around a chunk size is refused; up to four empty lines before a request are ignored; HTTP/1.0 needs no Host
 * and knows no Transfer-Encoding; a fragment or a byte that is not ASCII in the target is refused, and what
 * stands behind a % is passed on as it is. A target in absolute form wins over Host (3.2.2): the message
 * shows the origin form, and the target's authority as its Host. */
#pragma once

#include "http/wire/codec.h"

enum http_refusal {
        HTTP_MALFORMED,        /* 400 */
        HTTP_URI_TOO_LONG,     /* 414 */
        HTTP_HEADER_TOO_LARGE, /* 431: one line; nginx and API gateways say 494 */
        HTTP_HEAD_TOO_LARGE,   /* 431: all lines, or too many of them */
        HTTP_BODY_TOO_LARGE,   /* 413 */
        HTTP_TIMED_OUT,        /* 408 */
        HTTP_NOT_IMPLEMENTED,  /* 501: an unknown method, CONNECT, a transfer coding but chunked */
        HTTP_VERSION_UNKNOWN,  /* 505 */
        HTTP_EXPECTATION,      /* 417 */
        HTTP_OVERLOADED,       /* 503: too many connections, or bytes in memory */
        HTTP_REFUSAL_MAX,
};
int http_refusal_status(enum http_refusal);

struct http_limits {       /* 0: no limit of its own; head_max and body_max hold */
        size_t target_max; /* bytes of the target */
        size_t header_max; /* of one header line */
        size_t head_max;   /* of the request line and all headers, and again of all trailers */
        size_t body_max;
        uint32_t headers_max; /* lines */
};

/* of a message's chunks, in bytes; before a request */
enum { HTTP_EXTENSIONS_MAX = 4096, HTTP_EMPTY_LINES_MAX = 4 };

enum http_intake_state {
        INTAKE_BEFORE,
        INTAKE_HEAD,
        INTAKE_LENGTH,
        INTAKE_SIZE,
        INTAKE_EXTENSION,
        INTAKE_SIZE_LF,
        INTAKE_DATA,
        INTAKE_DATA_CR,
        INTAKE_DATA_LF,
        INTAKE_TRAILER,
        INTAKE_TRAILER_NAME,
        INTAKE_TRAILER_VALUE,
        INTAKE_TRAILER_LF,
        INTAKE_END_LF,
        INTAKE_COMPLETE,
};

struct http_intake {
        struct http_codec codec; /* its message is the request */
        struct http_limits limits;
        enum http_intake_state state;
        /* in what is offered: where the line begins, what has been looked at */
        size_t line, scanned;
        size_t target_at, target_n; /* the target, in what is offered */
        uint32_t lines, empty_lines, hosts, lengths, codings, digits;
        uint64_t left; /* of the body or the chunk */
        uint64_t size; /* of the body so far, all chunks */
        size_t extensions, trailers;
        uint8_t method; /* enum llhttp_method */
        bool version_1_0, close, keep_alive;
        /* a client waits for 100 before it sends the body; the server resets it */
        bool wants_continue;
        enum http_refusal refusal; /* and why: for people */
        const char *why;
};

void http_intake_init(struct http_intake *, const struct http_limits *);
void http_intake_done(struct http_intake *);
void http_intake_next(struct http_intake *); /* ready for the next request on the connection */
/* Takes bytes; *used tells how many. Of a head nothing is taken before it is whole: offer the same bytes
 * again with more behind them. Stops behind a whole message. -1: the message is refused, see refusal and why;
 * nothing behind it may be taken for a request. */
int http_intake_feed(struct http_intake *, struct str, size_t *used) MUST_CHECK;
static inline bool http_intake_complete(const struct http_intake *k) { return k->state == INTAKE_COMPLETE; }
static inline bool http_intake_in_body(const struct http_intake *k)
{
        return k->state >= INTAKE_LENGTH && k->state < INTAKE_COMPLETE;
}
