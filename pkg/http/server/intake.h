/* How a server reads requests: the codec behind a guard that rejects every message whose end or meaning two
 * programs could see differently (RFC 9112, 11.2). The guard reads lines, lengths and chunks itself and hands
 * the parser whole heads and bodies without chunk extensions and trailers. If guard and parser disagree about
 * where a message ends it is refused. Sans-I/O. Owned by its connection; one thread.
 *
 * Choices where RFC 9112 leaves one: lines end in CRLF alone; folded fields are refused; so are a second
 * Content-Length, even with the same value, and a second Transfer-Encoding; chunked is the only transfer
 * coding; leading zeros are accepted in lengths of up to 19 digits and in chunk sizes of up to 16; white
 * space around a chunk size is refused; up to four empty lines before a request are ignored; HTTP/1.0 needs
 * no Host and may not have Transfer-Encoding; a fragment or a byte that is not ASCII in the target is
 * refused, and percent-encoding is passed on as it is. A target in absolute form overrides Host (3.2.2): the
 * message has the target in origin form, and its authority as Host. */
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
        HTTP_OVERLOADED,       /* 503: too many connections, or too much memory in use */
        HTTP_REFUSAL_MAX,
};
int http_refusal_status(enum http_refusal);

struct http_limits {       /* 0: no limit of its own, but head_max and body_max apply */
        size_t target_max; /* bytes of the target */
        size_t header_max; /* of one header line */
        size_t head_max;   /* the request line and all headers together; the same again for all trailers */
        size_t body_max;
        uint32_t headers_max; /* number of header lines */
};

/* limits: bytes of a message's chunk extensions; empty lines before a request */
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
        /* offsets into the bytes offered: where the line begins, how far it was scanned */
        size_t line, scanned;
        size_t target_at, target_n; /* the target, in the bytes offered */
        uint32_t lines, empty_lines, hosts, lengths, codings, digits;
        uint64_t left; /* bytes left of the body or of the chunk */
        uint64_t size; /* of the body so far, all chunks */
        size_t extensions, trailers;
        uint8_t method; /* enum llhttp_method */
        bool version_1_0, close, keep_alive;
        /* the client waits for 100 Continue before it sends the body; the server resets this */
        bool wants_continue;
        enum http_refusal refusal; /* the reason, for people */
        const char *why;
};

void http_intake_init(struct http_intake *, const struct http_limits *);
void http_intake_done(struct http_intake *);
void http_intake_next(struct http_intake *); /* ready for the next request on the connection */
/* Parses bytes; *used: how many were taken. Nothing of a head is taken before it is complete: offer the same
 * bytes again, and more. Stops behind a complete message. -1: the message is refused, see refusal and why; no
 * byte behind it may be parsed as a request. */
int http_intake_feed(struct http_intake *, struct str, size_t *used) MUST_CHECK;
static inline bool http_intake_complete(const struct http_intake *k) { return k->state == INTAKE_COMPLETE; }
static inline bool http_intake_in_body(const struct http_intake *k)
{
        return k->state >= INTAKE_LENGTH && k->state < INTAKE_COMPLETE;
}
