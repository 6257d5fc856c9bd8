/* For tests: requests that are known by a number, and what came of them, in the order in which they were
 * done. Included once by a test. */
#pragma once

#include "http/client/client.h"

enum { NUMBERED_MOST = 512 };

struct completion {
        uint64_t tag;
        bool failed, maybe_processed, body_cut;
        struct error error;
        int status;
        usec retry_after;
        struct str head, body, member; /* borrowed until the next one is taken */
};

static struct http client_port;
static struct list port_answers;
static struct http_request numbered[NUMBERED_MOST];
static struct http_request *port_taken;

UNUSED static int port_submit(struct task *wake, uint64_t tag, const struct http_request *what,
                              struct error *err)
{
        struct http_request *q = &numbered[tag];

        assert_true(tag < NUMBERED_MOST && q->request.state != REQUEST_BUSY);
        http_release(&client_port, q);
        if (port_taken == q)
                port_taken = NULL;
        *q = *what;
        q->request = (struct request){ .wake = wake, .done = &port_answers };
        return http_submit(&client_port, q, err);
}

UNUSED static void port_cancel(uint64_t tag)
{
        if (port_taken != &numbered[tag])
                http_release(&client_port, &numbered[tag]);
}

UNUSED static bool port_take(struct completion *c)
{
        struct request *r;

        if (port_taken)
                http_release(&client_port, port_taken);
        r = request_next(&port_answers);
        port_taken = r ? CONTAINER_OF(r, struct http_request, request) : NULL;
        if (!r)
                return false;
        *c = (struct completion){ .tag = (uint64_t)(port_taken - numbered),
                                  .failed = request_failed(r),
                                  .maybe_processed = port_taken->maybe_processed,
                                  .body_cut = port_taken->body_cut,
                                  .error = r->error,
                                  .status = port_taken->status,
                                  .retry_after = port_taken->retry_after,
                                  .head = port_taken->head,
                                  .body = port_taken->body,
                                  .member = port_taken->member };
        return true;
}

UNUSED static void port_release_all(void)
{
        port_taken = NULL;
        for (size_t i = 0; i < NUMBERED_MOST; i++)
                http_release(&client_port, &numbered[i]);
}
