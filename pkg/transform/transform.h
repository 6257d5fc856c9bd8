/* A user's jq program reshapes events: one JSON text in, one JSON text out. libjq can abort, overflow the
 * stack, exhaust memory or never end, so the program runs in a sandboxed child: this program executed again
 * as `transform-child` (child.h). One struct per Trigger; its child is started at the first use, and again
 * after it died. Owns the child, its socket and what was submitted until it is taken. Loop's thread; nothing
 * blocks but transform_check and the reaping of a killed child in transform_free. */
#pragma once

#include <sys/types.h>

#include "base/loop.h"

enum { TRANSFORM_MEMORY = 64 << 20, TRANSFORM_OUTPUT_MAX = 1 << 20 };
#define TRANSFORM_TIMEOUT USEC_SEC

struct transform;
struct transform_config {
        struct loop *loop;
        const char *program; /* jq; borrowed until free */
        usec timeout;        /* of one record; 0: TRANSFORM_TIMEOUT */
        usec start_timeout;  /* of compiling the program; 0: ten seconds */
        /* what the child may take above what it has at start; 0: TRANSFORM_MEMORY */
        size_t memory;
        size_t output_max;      /* bytes of one result; 0: TRANSFORM_OUTPUT_MAX */
        const char *executable; /* borrowed until free; NULL: this program */
};
struct transform_result {
        uint64_t tag;
        bool failed; /* error says why; trying again never helps, so its retry is false */
        /* ERROR_INVALID, _TIMEOUT, _MEMORY: the program or the event; _SYSTEM, _PROTOCOL: the child could not
         * do its work */
        struct error error;
        struct str output; /* one JSON text; borrowed until the next take */
};

int transform_new(struct transform **, const struct transform_config *, struct task *wake,
                  struct error *) MUST_CHECK;
/* copies; wake is made ready when there is something to take */
void transform_submit(struct transform *, uint64_t tag, struct str input);
/* No result comes for it any more, and its memory is free, unless the child is just being sent it. */
void transform_cancel(struct transform *, uint64_t tag);
size_t transform_held(const struct transform *); /* bytes of inputs that wait, and of results not taken */
bool transform_take(struct transform *, struct transform_result *);
/* kills the child and reaps it; NULL is fine. Returns NULL */
struct transform *transform_free(struct transform *);
DEFINE_CLEANUP(struct transform *, transform_free)
/* of the child; 0: none runs */
pid_t transform_process(const struct transform *);

/* Compiles the program in a child and waits for it, at most ten seconds. The error has jq's own words. */
int transform_check(const char *program, struct error *) MUST_CHECK;
