/* The way out: a pool of connections per target. libcurl connects (and does TLS), llhttp frames, one write and one read a request at best.
 * One client per process, on its loop's thread. It implements port/http.h. */
#pragma once

#include "base/loop.h"
#include "http/url.h"
#include "port/http.h"

struct http_client;

int http_client_new(struct http_client **, struct loop *, struct error *) MUST_CHECK;
struct http_client *http_client_free(struct http_client *);    /* after its targets and ends; NULL is fine */

struct http_target_config {
        struct str url;
        const char *method;      /* NULL: POST */
        struct str headers;      /* constant "Name: value\r\n" lines */
        uint32_t max_connections;
        usec connect_timeout;
        usec max_age;            /* of a connection, less up to a quarter of jitter: new pods get their share; 0: no limit */
        size_t answer_max;       /* bytes of an answer's body that are kept */
};
int http_target_new(struct http_target **, struct http_client *, const struct http_target_config *, struct error *) MUST_CHECK;
struct http_target *http_target_free(struct http_target *);    /* nothing may be under way; NULL is fine */
uint32_t http_target_connections(const struct http_target *);

/* One user's end: its completions queue here and make its task ready. */
struct http_end;
int http_end_new(struct http_end **, struct http_client *, struct task *wake, struct error *) MUST_CHECK;
struct http_end *http_end_free(struct http_end *);             /* cancels what is under way; NULL is fine */
struct http http_end_port(struct http_end *);
