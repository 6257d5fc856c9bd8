/* The HTTP/1.1 server of the admin port, the example function and the push sources, with and without TLS: the
 * intake on the loop's own sockets. Keep-alive; pipelining, answered in order; limits on the size of
 * everything a client sends and on the time it takes; the handler may answer later. Loop's thread.
 *
 * A message that is refused is answered, and its connection closed; what still arrives is read for a second
 * and dropped.
 *
 * Clients that leave: a client that closes its connection and one that only shuts down its sending side (nc
 * -N) look the same. If the end of input comes with the request or within half_close after it, it is taken
 * for a half-close and the answer is still sent: scripts that pipe a request do that. If it comes later the
 * client is taken to have left: curl, browsers and libraries close when they give up, and none of them
 * half-closes. After a reset the client has always left. While more than 64 KiB of pipelined requests wait
 * nothing is read, so nobody is noticed leaving. */
#pragma once

#include "base/loop.h"
#include "http/server/intake.h"

struct http_server;
struct http_call; /* one request that waits for its answer */

/* PEM files; read again when they change, at most once a second; open connections go on */
struct http_server_tls {
        const char *cert, *key;
        const char *client_ca;  /* authorities of client certificates, which clients are asked for; NULL: they
                                   are not */
        bool client_required;   /* refuse clients without one */
        usec handshake_timeout; /* 0: 10 s */
};

/* The answer to a refused message; the owner may change everything but kind and why. */
struct http_refused {
        enum http_refusal kind;
        const char *why; /* for people */
        int status;
        struct str content_type;
        struct buf *headers; /* "Name: value\r\n" lines */
        struct buf *body;    /* at first: why and a newline */
};

struct http_server_config {
        /* "ADDRESS:PORT", "[::1]:PORT" or ":PORT" (every address); port 0: a free one */
        const char *address;
        size_t head_max, body_max;
        size_t target_max, header_max; /* limits of the target and of one header line; 0: head_max alone */
        uint32_t headers_max;          /* 0: 256 */
        /* 0: 1024. Above it the connection closes that has been quiet for longest, or has not taken its
         * answer for a second. If there is none, the new connection is answered 503 (1/16 of max_connections
         * at a time; none with TLS) or closed. */
        uint32_t max_connections;
        /* Above it a connection that has had an answer is closed for a new one, whatever it is doing, so that
         * each client gets a first answer. */
        bool newcomers_first;
        uint32_t max_requests; /* requests of one connection; 0: any number */
        /* Bytes in memory for all connections. Above it the peer that holds most has its unfinished requests
         * refused with 503, and its unread answers cut off. 0: 256 MiB. */
        size_t buffered_max;
        usec idle_timeout; /* time between requests; 0: 60 s */
        /* from a request's first byte to the end of its head; 0: idle_timeout */
        usec head_timeout;
        usec body_grace;    /* for the body; 0: idle_timeout */
        size_t body_rate;   /* the body's deadline is extended at so many bytes a second; 0: 1024 */
        usec write_timeout; /* for the client to read the answer; 0: 60 s */
        size_t write_rate;  /* its deadline is extended at so many bytes a second; 0: 1024 */
        usec half_close; /* see above; 0: 250 ms; negative: the end of input always means that the client left
                          */
        const struct http_server_tls *tls; /* NULL: plain; copied */
        /* trusted proxies, whose X-Forwarded-* count: addresses and CIDRs; copied */
        const char *const *trusted;
        size_t trusted_n;
        void (*handle)(void *cookie, struct http_call *);
        /* the client left before it was answered; the call is invalid afterwards. NULL: answers to clients
         * that left are dropped */
        void (*gone)(void *cookie, struct http_call *);
        /* a message was refused before it reached the handler; NULL: answered in plain text */
        void (*refused)(void *cookie, struct http_refused *);
        void *cookie;
        struct task *rested; /* made ready when the last busy connection has finished after a drain; NULL: no
                                task is */
};
int http_server_new(struct http_server **, struct loop *, const struct http_server_config *,
                    struct error *) MUST_CHECK;
uint16_t http_server_port(const struct http_server *);
/* Stops accepting, closes idle connections, and answers requests that are in flight or on their way: a
 * connection that has not carried a request has a second to send one. */
void http_server_drain(struct http_server *);
/* Connections with a request: its first byte has arrived, or its answer is not sent yet. Idle keep-alive
 * connections don't count. */
bool http_server_busy(const struct http_server *);
/* Goes on accepting, but sends Connection: close with every answer, and drains when the time is over. So a
 * rollout loses no request: clients that still know this endpoint reach it, and go elsewhere afterwards. */
void http_server_linger(struct http_server *, usec);
usec http_server_last_accepted(
        const struct http_server *); /* when the last connection was accepted; 0: none was */
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
/* Counts bytes that the handler holds elsewhere for the call as memory of this server, until it is answered.
 */
void http_call_hold(struct http_call *, size_t);
/* Frees memory, so that at most that much is in use, for what the handler is about to allocate: peers that
 * hold more and make no progress give way. False: there is not enough. */
bool http_call_room(struct http_call *, size_t most) MUST_CHECK;
/* The handler's own pointer. */
void http_call_set(struct http_call *, void *);
void *http_call_get(const struct http_call *);
/* Appends the client's numeric address: the peer's or, when that is a trusted proxy, the right-most of
 * X-Forwarded-For that is not trusted. An entry that is no address ends the walk: what stands right of it is
 * the client. */
void http_call_client(const struct http_call *, struct buf *);
/* over our TLS, or the last X-Forwarded-Proto of a trusted proxy is https */
bool http_call_tls(const struct http_call *);
/* The client's certificate, verified: its subject as in RFC 4514, its alternative names as lines "DNS:name",
 * "URI:…", "IP:…", "email:…". False: none. */
bool http_call_certificate(const struct http_call *, struct buf *subject, struct buf *names);
/* Answers; the call is invalid afterwards. headers: "Name: value\r\n" lines or empty; the server adds Date,
 * Content-Length and Connection. Of the body only what the socket does not take at once is copied. */
void http_call_reply(struct http_call *, int status, struct str content_type, struct str headers,
                     struct str body);
/* The same without a copy: takes over the buffer's memory and leaves it empty. */
void http_call_reply_take(struct http_call *, int status, struct str content_type, struct str headers,
                          struct buf *body);
void http_call_last(struct http_call *); /* close the connection after the answer */
