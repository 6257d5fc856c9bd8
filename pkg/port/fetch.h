/* Port: whole calls to URLs that come from outside, such as a certificate's or a confirmation's. Implemented
 * by pkg/http. A URL is called only when the caller allows its host, and only at an address that may be
 * called: what a message says never leads anywhere else. Nothing blocks; requests are their owners'. Loop's
 * thread. */
#pragma once

#include "base/buf.h"
#include "port/request.h"

/* Zeroed before its first use. */
struct fetch_request {
        struct request request;
        /* What is asked; copied. */
        const char *method; /* NULL: GET */
        /* absolute; https, unless its host stands in hosts as "http://HOST:PORT" */
        struct str url;
        /* Hosts that may be called, "HOST" (port 443) or "HOST:PORT"; a * stands for one label. Ends in NULL.
         */
        const char *const *hosts;
        /* Hosts whose address may be any. All others must lead to a public one: not loopback, private,
         * link-local or multicast. Ends in NULL; NULL: none. */
        const char *const *inside;
        const char *ca_file; /* PEM of trusted authorities; NULL: the system's */
        struct str headers;  /* "Name: value\r\n" lines */
        struct str body;
        usec timeout;      /* of the whole call */
        size_t answer_max; /* a longer answer is an error */
        /* What came of it. */
        int status;
        usec retry_after;  /* 0: none */
        struct buf answer; /* the body; kept until it is used again, or released */
        void *own;         /* the port's own */
};
struct fetch_ops {
        int (*submit)(void *cookie, struct fetch_request *, struct error *) MUST_CHECK;
        void (*cancel)(void *cookie, struct fetch_request *); /* it is busy */
};
struct fetch {
        const struct fetch_ops *ops;
        void *cookie;
};

/* The request is idle. -1: the URL may not be called; it stays idle. */
static inline MUST_CHECK int fetch_submit(const struct fetch *f, struct fetch_request *r, struct error *err)
{
        return f->ops->submit(f->cookie, r, err);
}
/* It is idle and holds nothing afterwards. */
static inline void fetch_release(const struct fetch *f, struct fetch_request *r)
{
        if (r->request.state == REQUEST_BUSY)
                f->ops->cancel(f->cookie, r);
        request_drop(&r->request);
        buf_done(&r->answer);
}
