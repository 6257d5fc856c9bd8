/* REST calls to the API server: JSON over HTTP/1.1, by libcurl on the loop. A pool of connections, one more
 * per watch. Loop's thread. */
#pragma once

#include <jansson.h>

#include "base/loop.h"
#include "kube/config.h"

struct kube_client;
struct kube_call;

/* What came back. Valid during the callback. */
struct kube_answer {
        /* error: kind by the Status' reason or HTTP code, text "WHAT: CODE reason: message", retry,
         * retry_after */
        bool failed;
        struct error error;
        int status;
        struct str body;
};
struct kube_request {
        const char *method;       /* GET, POST, PATCH, PUT, DELETE */
        const char *path;         /* with its query */
        const char *content_type; /* NULL: application/json */
        struct str body;          /* copied */
        const char *what;         /* for errors: "apply Deployment shop/orders-sluice"; copied */
        usec timeout;             /* of the whole call; 0: 30 s */
        /* A watch: each line as it comes; done follows at the end, which comes also when no byte was heard
         * for 90 s. */
        void (*line)(void *cookie, struct str line);
        /* once, unless cancelled; the call is gone afterwards */
        void (*done)(void *cookie, const struct kube_answer *);
        void *cookie;
};

/* borrows the config */
int kube_client_new(struct kube_client **, struct loop *, const struct kube_config *,
                    struct error *) MUST_CHECK;
struct kube_client *kube_client_free(struct kube_client *); /* cancels what is under way; NULL is fine */
struct loop *kube_client_loop(const struct kube_client *);
/* Starts a call. It always ends in done, also when it can't be sent; never from within this call. The handle
 * is for kube_cancel. */
struct kube_call *kube_send(struct kube_client *, const struct kube_request *);
void kube_cancel(struct kube_call *); /* no callback follows; NULL is fine */

/* Server-side apply of an object at its path (no query). force only for what is wholly ours. */
struct kube_call *kube_apply(struct kube_client *, const char *path, const char *manager, bool force,
                             struct str body, const char *what,
                             void (*done)(void *, const struct kube_answer *), void *cookie);
/* Percent-encodes a path segment or query value. */
void kube_escape(struct buf *, struct str);
