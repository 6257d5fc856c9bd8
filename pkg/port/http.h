/* Port: requests out. How long an attempt may take is the engine's to say: it cancels. Implemented by
 * pkg/http (the client) and by simulators. Nothing blocks; requests are their owners'. Loop's thread. Members
 * that are zero mean "as the target says". */
#pragma once

#include "base/buf.h"
#include "port/request.h"

/* a sink as the client knows it: scheme, host, port, path, constant head */
struct http_target;

/* A message is laid out so that it leaves with one write: the caller encodes the body at HTTP_HEADROOM, or
 * at the request's own headroom, into an empty buf, and the client writes the head in front of it. The body
 * stays as it is, so that it can be sent again. */
enum { HTTP_HEADROOM = 16384, HTTP_HEADROOM_LEAST = 1024 };
/* Zeroed before its first use. An error's retry says whether trying again can help. */
struct http_request {
        struct request request;
        /* What is asked. */
        struct http_target *target;
        struct buf *message; /* borrowed until it is done; the headroom, then the body */
        /* For requests that wait for long: HTTP_HEADROOM_LEAST for what the target adds, and so many bytes
         * more as the request's own headers and path have. 0: HTTP_HEADROOM */
        size_t headroom;
        struct str headers; /* "Name: value\r\n" lines of this request; borrowed during submit */
        const char *method; /* NULL: the target's; borrowed during submit */
        struct str path;    /* path and query, n 0: the target's; borrowed during submit */
        /* What came of it. */
        /* failed: the request may have reached the function. false: it surely has not, sending it again makes
         * no duplicate */
        bool maybe_processed;
        bool body_cut;
        int status;       /* of the answer; 0: there was no whole one */
        usec retry_after; /* from Retry-After, already relative; 0: none */
        /* of the answer: "name\0value\0" pairs without trailers; borrowed as the body is */
        struct str head;
        struct str body; /* borrowed until it is released or used again; cut at the target's limit */
        /* Where the target names a member of the answer: {"NAME": its value}, {} without it, as long as it
         * has at most 8 MiB; n 0: the body was empty or null; p NULL: it was no JSON object. Borrowed as the
         * body is. */
        struct str member;
        void *own; /* the port's, while it is busy or holds an answer */
};
struct http_ops {
        int (*submit)(void *cookie, struct http_request *, struct error *) MUST_CHECK;
        void (*release)(void *cookie, struct http_request *); /* it is busy, or holds an answer */
};
struct http {
        const struct http_ops *ops;
        void *cookie;
};

/* It is idle and holds no answer afterwards; what is under way is cancelled, and its message free again. As
 * long as an answer is not released it has its part of what answers may take. */
static inline void http_release(const struct http *h, struct http_request *q)
{
        if (q->own)
                h->ops->release(h->cookie, q);
        q->own = NULL;
        request_drop(&q->request);
}
/* It is idle. -1: it can't be sent; it stays idle. */
static inline MUST_CHECK int http_submit(const struct http *h, struct http_request *q, struct error *err)
{
        http_release(h, q);
        return h->ops->submit(h->cookie, q, err);
}

/* Whom a Trigger calls beside its sink: an authorizer, a service of the cloud. Connections are kept; the
 * proxy is that of its delivery. */
struct http_peer {
        const char *url, *method; /* absolute; NULL: POST */
        struct str headers;       /* constant "Name: value\r\n" lines */
        uint32_t connections;
        size_t answer_max;
        /* not the delivery's TLS: the system's authorities, or those of ca_file, and no certificate of ours
         */
        bool own_tls;
        const char *ca_file; /* PEM; NULL: none */
};
struct http_peers_ops {
        int (*open)(void *cookie, struct http_target **, const struct http_peer *, struct error *) MUST_CHECK;
        void (*close)(void *cookie, struct http_target *); /* nothing may be under way; NULL is fine */
};
struct http_peers {
        const struct http_peers_ops *ops;
        void *cookie;
};
