/* Port: requests out. How long an attempt may take is the engine's to say: it cancels. Implemented by
 * pkg/http (the client) and by simulators. Nothing blocks: submit queues, completions are taken. Loop's
 * thread. Members that are zero mean "as the target says". */
#pragma once

#include "base/buf.h"
#include "base/error.h"

/* a sink as the client knows it: scheme, host, port, path, constant head */
struct http_target;

/* A message is laid out so that it leaves with one write: the caller encodes the body at HTTP_HEADROOM into
 * an empty buf, the client writes the head in front of it. The body stays as it is, so that it can be sent
 * again. */
enum { HTTP_HEADROOM = 16384 };
struct http_request {
        struct http_target *target;
        struct buf *message; /* borrowed until the completion; HTTP_HEADROOM bytes, then the body */
        struct str headers;  /* "Name: value\r\n" lines of this request; borrowed during submit */
        const char *method;  /* NULL: the target's; borrowed during submit */
        struct str path;     /* path and query, n 0: the target's; borrowed during submit */
};
struct http_completion {
        uint64_t tag;
        /* no whole answer: error says why, its retry whether trying again can help */
        bool failed;
        /* failed: the request may have reached the function. false: it surely has not, sending it again makes
         * no duplicate */
        bool maybe_processed;
        struct error error;
        int status;       /* of the answer */
        usec retry_after; /* from Retry-After, already relative; 0: none */
        /* of the answer: "name\0value\0" pairs without trailers; borrowed as the body is */
        struct str head;
        struct str body; /* borrowed until the next take or submit; cut at the target's limit */
        bool body_cut;
        /* Where the target names a member of the answer: {"NAME": its value}, {} without it, as long as it
         * has at most 8 MiB; n 0: the body was empty or null; p NULL: it was no JSON object. Borrowed as the
         * body is. */
        struct str member;
};
struct http_ops {
        int (*submit)(void *cookie, uint64_t tag, const struct http_request *, struct error *) MUST_CHECK;
        /* no completion comes for it any more; its message is free again */
        void (*cancel)(void *cookie, uint64_t tag);
        bool (*take)(void *cookie, struct http_completion *);
};
struct http {
        const struct http_ops *ops;
        void *cookie;
};

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
