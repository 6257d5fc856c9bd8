/* The HTTP/1.1 server of the admin port, the example function and the push sources: llhttp on the loop's own sockets. Keep-alive, limits on
 * header, body, connections and time; a handler may answer later. Loop's thread. */
#pragma once

#include "base/loop.h"
#include "http/codec.h"

struct http_server;
struct http_call;                /* one request that waits for its answer */

struct http_server_config {
        const char *address;     /* "ADDRESS:PORT", "[::1]:PORT" or ":PORT" (every address); port 0: a free one */
        size_t head_max, body_max;
        uint32_t max_connections;        /* 0: 1024; past it the new connection is closed */
        usec idle_timeout;               /* between requests, and for a request to arrive; 0: 60 s */
        void (*handle)(void *cookie, struct http_call *);
        void (*gone)(void *cookie, struct http_call *);  /* the client left before the answer; the call is invalid afterwards. NULL: not told, answer into the void */
        void *cookie;
};
int http_server_new(struct http_server **, struct loop *, const struct http_server_config *, struct error *) MUST_CHECK;
uint16_t http_server_port(const struct http_server *);
void http_server_drain(struct http_server *);                  /* accepts no more, closes idle connections, answers what is in flight */
struct http_server *http_server_free(struct http_server *);    /* NULL is fine */

const struct http_message *http_call_message(const struct http_call *);
/* Where the handler keeps its own. */
void http_call_set(struct http_call *, void *);
void *http_call_get(const struct http_call *);
/* Answers; the call is invalid afterwards. headers: "Name: value\r\n" lines or empty. */
void http_call_reply(struct http_call *, int status, struct str content_type, struct str headers, struct str body);
