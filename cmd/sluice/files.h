/* The files with the Triggers of `sluice run`: read once at the start, and again in a thread whenever one of
 * them changes, so that thousands of Triggers hold up nothing that runs. Loop's thread. */
#pragma once

#include "api/trigger.h"
#include "base/loop.h"

/* Two Triggers are equal if their digests are. */
struct digest {
        uint64_t one, other;
};

/* What was read. */
struct file_set {
        struct triggers triggers;
        struct digest *digests; /* one per Trigger; NULL: the files are invalid, and why was told */
};
void file_set_free(struct file_set *); /* NULL is fine */

struct files;
/* paths: files and folders, borrowed. wake: made ready when there is something to take. */
int files_new(struct files **, struct loop *, const struct strings *paths, struct task *wake,
              struct error *) MUST_CHECK;
/* Abandons a reading in progress. NULL is fine */
struct files *files_free(struct files *);
/* Reads on the calling thread, for the start. The caller owns the result. NULL: out of memory. */
struct file_set *files_read(struct files *) MUST_CHECK;
/* Reads in the thread; if it is reading already, once more after that. */
void files_read_again(struct files *);
/* What the thread has read since the last call; NULL: nothing. The caller owns it. */
struct file_set *files_take(struct files *);
