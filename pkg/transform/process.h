/* A transform's child as its parent sees it: started, spoken to, ended, and what its end means. The owner
 * closes it. Loop's thread, or the one of transform_check. */
#pragma once

#include <sys/types.h>

#include "base/buf.h"
#include "transform/child.h"

struct process {
        pid_t pid; /* 0: none */
        int fd;    /* the parent's end of the socket; never blocks */
        int pidfd; /* readable when the child has ended */
};

/* What a child's death says about the record it was at. */
enum process_end {
        END_RECORD,  /* the program or the record did it: again would end the same */
        END_MEMORY,  /* it ran out of memory */
        END_OUTSIDE, /* somebody else killed it, or the system could not keep it */
};

int process_start(struct process *, const char *executable, struct error *) MUST_CHECK;
void process_kill(const struct process *);
/* Reaps, which waits for a child that was not yet seen to end, and closes. error: words for the death, retry
 * false. */
enum process_end process_end(struct process *, size_t memory, usec timeout, struct error *);

/* into an empty buf; the text follows, then frame_finish */
void frame_start(struct buf *, enum frame_kind, uint64_t sequence);
bool frame_finish(struct buf *); /* false: too large, or out of memory */
void frame_setup(struct buf *, const char *program, const struct child_setup *);
/* The frame at the start of the bytes; 0: not whole yet. */
size_t frame_get(struct str bytes, struct frame *, struct str *text);
