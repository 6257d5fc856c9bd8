/* The files with the Triggers of `sluice run`: read once at the start, and again in a thread whenever one of
 * them changes, so that thousands of Triggers hold up nothing that runs. Loop's thread. */
#pragma once

#include "api/trigger.h"
#include "base/loop.h"

/* Says whether two Triggers are the same, without either. */
struct digest {
        uint64_t one, other;
};

/* What was read. */
struct file_set {
        struct triggers triggers;
        struct digest *digests; /* one for each; NULL: the files can't be used, and why was printed */
};
void file_set_free(struct file_set *); /* NULL is fine */

struct files;
/* paths: files and folders, borrowed. wake: made ready when there is something to take. */
int files_new(struct files **, struct loop *, const struct strings *paths, struct task *wake,
              struct error *) MUST_CHECK;
/* What is being read is given up. NULL is fine */
struct files *files_free(struct files *);
/* At the start: reads now. What it returns is the caller's, as that of files_take. NULL: out of memory. */
struct file_set *files_read(struct files *) MUST_CHECK;
/* Reads them in the thread; where it does so already, once more after that. */
void files_read_again(struct files *);
/* What the thread has read; NULL: nothing since it was taken last. */
struct file_set *files_take(struct files *);
