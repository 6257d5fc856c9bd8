/* The HTTP/1.1 server of the admin port, the example function and the push sources, plain and over TLS:
 * pkg/http/intake on the loop's own sockets. Keep-alive, pipelining in order, limits on everything a client
 * sends and on the time it takes, a handler that may answer later. Loop's thread.
 *
 * A refused message is answered and the connection closed; what still comes is read for a second and dropped.
 *
 * Clients that leave. A client that closes and one that only ends its sending (nc -N) look the same. So the
 * end of what a client sends is taken for a half-close, and the answer still goes out, when it comes with the
 * request or within half_close behind it: scripts that pipe a request do that. Later it is taken for leaving:
 * curl, browsers and libraries close when they give up, and none of them half-closes. A reset is always
 * leaving. While more than 64 KiB of pipelined requests wait, nothing is read and so nobody is seen leaving.
 */
#pragma once

#include "base/loop.h"
#include "http/server/intake.h"

struct http_server;
struct http_call; /* one request that waits for its answer */

/* files in PEM; read again when they change, at most once a second; connections that are open go on */
struct http_server_tls {
        const char *cert, *key;
        const char *client_ca;  /* asks clients for a certificate of one of these; NULL: does not */
        bool client_required;   /* and a client without one is turned away */
        usec handshake_timeout; /* 0: 10 s */
};

/* What is answered to a refused message; the owner may change all but kind and why. */
struct http_refused {
        enum http_refusal kind;
        const char *why; /* for people */
        int status;
        struct str content_type;
        struct buf *headers; /* "Name: value\r\n" lines */
        struct buf *body;    /* why and a newline, at first */
};

struct http_server_config {
        /* "ADDRESS:PORT", "[::1]:PORT" or ":PORT" (every address); port 0: a free one */
        const char *address;
        size_t head_max, body_max;
        size_t target_max, header_max; /* of the target, of one header line; 0: head_max alone */
        uint32_t headers_max;          /* 0: 256 */
        /* 0: 1024; past it the one that is quiet for longest is closed; where none is, the new one is
         * answered 503 (1/16 of it at once; with TLS: none) or closed. */
        uint32_t max_connections;
        uint32_t max_requests; /* of one connection; 0: any number */
        /* Bytes in memory for all connections; past it unfinished requests of the peer that holds most are
         * refused with 503. 0: 256 MiB. */
        size_t buffered_max;
        usec idle_timeout; /* between requests; 0: 60 s */
        /* from a request's first byte to the end of its head; 0: idle_timeout */
        usec head_timeout;
        usec body_grace;                   /* for the body; 0: idle_timeout */
        size_t body_rate;                  /* bytes a second of the body that buy more time; 0: 1024 */
        usec write_timeout;                /* to take the answer; 0: 60 s */
        size_t write_rate;                 /* bytes a second of the answer that buy more time; 0: 1024 */
        usec half_close;                   /* see above; 0: 250 ms, less than 0: the end is always leaving */
        const struct http_server_tls *tls; /* NULL: plain; copied */
        /* proxies whose X-Forwarded-* are believed: addresses and CIDRs; copied */
        const char *const *trusted;
        size_t trusted_n;
        void (*handle)(void *cookie, struct http_call *);
        /* the client left before the answer; the call is invalid afterwards. NULL: not told, answer into the
         * void */
        void (*gone)(void *cookie, struct http_call *);
        /* a message is refused without having been handled; NULL: answered in plain text */
        void (*refused)(void *cookie, struct http_refused *);
        void *cookie;
        struct task *rested; /* made ready when the last busy connection is done after a drain; NULL: nobody
                                waits */
};
int http_server_new(struct http_server **, struct loop *, const struct http_server_config *,
                    struct error *) MUST_CHECK;
uint16_t http_server_port(const struct http_server *);
/* Accepts no more, closes idle connections, answers what is in flight or on its way: a connection that has
 * not carried a request has a second to send one. */
void http_server_drain(struct http_server *);
/* A request has begun to arrive, or its answer is not out yet. Connections that are only kept are not busy.
 */
bool http_server_busy(const struct http_server *);
/* Goes on accepting, but says Connection: close with every answer; drains when the time is over. So a rollout
 * loses no request: clients that still know the endpoint reach it, and then go elsewhere. */
void http_server_linger(struct http_server *, usec);
usec http_server_last_accepted(const struct http_server *); /* when a connection came; 0: none did */
struct http_server *http_server_free(struct http_server *); /* NULL is fine */

struct http_server_stats {
        uint32_t connections;
        size_t buffered; /* bytes in memory for requests and answers */
        uint64_t accepted, requests, tls_failures;
        uint64_t refused[HTTP_REFUSAL_MAX];
};
void http_server_stats(const struct http_server *, struct http_server_stats *);
size_t http_server_buffered(const struct http_server *);

const struct http_message *http_call_message(const struct http_call *);
/* Counts so many bytes, which the handler holds for the call elsewhere, among those in memory until it is
 * answered. */
void http_call_hold(struct http_call *, size_t);
/* Where the handler keeps its own. */
void http_call_set(struct http_call *, void *);
void *http_call_get(const struct http_call *);
/* Appends the client's numeric address: the peer's or, when that is a trusted proxy, the right-most of
 * X-Forwarded-For that is not trusted. An entry that is no address ends the walk: what stands right of it is
 * the client. */
void http_call_client(const struct http_call *, struct buf *);
/* by our TLS, or the last X-Forwarded-Proto of a trusted peer says https */
bool http_call_tls(const struct http_call *);
/* The client's certificate, verified: its subject as in RFC 4514, its alternative names as lines "DNS:name",
 * "URI:…", "IP:…", "email:…". False: none. */
bool http_call_certificate(const struct http_call *, struct buf *subject, struct buf *names);
/* Answers; the call is invalid afterwards. headers: "Name: value\r\n" lines or empty; Date, Content-Length
 * and Connection are the server's. What of the body the socket does not take at once is copied, once. */
void http_call_reply(struct http_call *, int status, struct str content_type, struct str headers,
                     struct str body);
/* The same without a copy: takes what the buffer owns and leaves it empty. */
void http_call_reply_take(struct http_call *, int status, struct str content_type, struct str headers,
                          struct buf *body);
void http_call_last(struct http_call *); /* the connection is closed behind the answer */
