/* A request to a port: owned by the caller, and embedded in what the port takes. While it is busy nothing of
 * it may be touched; once it is done its owner's task is made ready, and the owner takes what came of it and
 * makes it idle. Completions are taken, never called back. Loop's thread. */
#pragma once

#include "base/error.h"

struct task;

enum request_state { REQUEST_IDLE, REQUEST_BUSY, REQUEST_DONE };
struct request {
        struct task *wake; /* set by the owner before the first use; NULL: it is asked by itself */
        enum request_state state;
        struct error error; /* kind ERROR_NONE: it was done */
};

static inline bool request_failed(const struct request *r) { return r->error.kind != ERROR_NONE; }
/* true once for each request: it is done, and idle from now on. */
static inline bool request_take(struct request *r)
{
        if (r->state != REQUEST_DONE)
                return false;
        r->state = REQUEST_IDLE;
        return true;
}
