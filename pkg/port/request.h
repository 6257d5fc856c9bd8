/* A request to a port: owned by the caller, and embedded in what the port takes. While it is busy nothing of
 * it may be touched; once it is done its owner's task is made ready, and the owner takes what came of it and
 * makes it idle. Completions are taken, never called back. Whoever has many gives them a list, in which they
 * stand once they are done, in that order. Loop's thread. */
#pragma once

#include "base/list.h"
#include "base/loop.h"

enum request_state { REQUEST_IDLE, REQUEST_BUSY, REQUEST_DONE };
struct request {
        struct task *wake; /* set by the owner before the first use; NULL: it is asked by itself */
        struct list *done; /* so, too: where it stands when it is done; NULL: nowhere */
        enum request_state state;
        struct list_node node; /* the port's while it is busy */
        struct error error;    /* kind ERROR_NONE: it was done */
};

static inline bool request_failed(const struct request *r) { return r->error.kind != ERROR_NONE; }
static inline bool request_idle(const struct request *r) { return r->state == REQUEST_IDLE; }
/* true once for each request: it is done, and idle from now on. */
static inline bool request_take(struct request *r)
{
        if (r->state != REQUEST_DONE)
                return false;
        r->state = REQUEST_IDLE;
        list_remove(&r->node);
        return true;
}
/* The one of a list that was done first, idle from now on; NULL: none. */
static inline struct request *request_next(struct list *done)
{
        struct request *r = LIST_TAKE(done, struct request, node);

        if (r)
                r->state = REQUEST_IDLE;
        return r;
}

/* ---- for ports ---------------------------------------------------------- */

static inline void request_begin(struct request *r)
{
        r->state = REQUEST_BUSY;
        r->error.kind = ERROR_NONE;
}
static inline void request_end(struct request *r, struct loop *loop)
{
        list_remove(&r->node);
        r->state = REQUEST_DONE;
        if (r->done)
                list_append(r->done, &r->node);
        if (r->wake)
                loop_ready(loop, r->wake);
}
static inline void request_fail(struct request *r, struct loop *loop, const struct error *why)
{
        r->error = *why;
        request_end(r, loop);
}
/* Nobody waits for it any more. */
static inline void request_drop(struct request *r)
{
        list_remove(&r->node);
        r->state = REQUEST_IDLE;
}
