/* Port: whole calls to URLs that come from outside, such as a certificate's or a confirmation's. Implemented
 * by pkg/http. A URL is called only when the caller allows its host, and only at an address that may be
 * called: what a message says never leads anywhere else. Nothing blocks; completions are taken. Loop's
 * thread. */
#pragma once

#include "base/buf.h"
#include "base/error.h"

struct fetch_request {
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
};
/* body: borrowed until the next take; retry_after 0: none */
struct fetch_completion {
        uint64_t tag;
        bool failed;
        struct error error;
        int status;
        usec retry_after;
        struct str body;
};
struct fetch_ops {
        /* Copies what it needs. -1: the URL may not be called; no completion comes. */
        int (*submit)(void *cookie, uint64_t tag, const struct fetch_request *, struct error *) MUST_CHECK;
        void (*cancel)(void *cookie, uint64_t tag);
        bool (*take)(void *cookie, struct fetch_completion *);
};
struct fetch {
        const struct fetch_ops *ops;
        void *cookie;
};
