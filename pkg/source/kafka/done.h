/* Inside pkg/source/kafka: which records above a partition's committed offset are done. With many in flight
 * the offset waits for the oldest that is not done, while others behind it are; they go along with the
 * commit, as its metadata, so that who reads on from there, after a crash, a revoke or in another worker,
 * leaves them out. Offsets that no record has, such as those of transactions' marks, count as done, so that
 * what is done stands in few runs. No I/O; loop's thread. */
#pragma once

#include "base/buf.h"

struct done {
        struct done_run {
                int64_t from, to; /* to: behind the last one */
        } * runs;                 /* ascending, apart from each other */
        uint32_t n, cap;
};

/* What brokers take, unless they are told otherwise (offset.metadata.max.bytes). */
enum { DONE_TEXT_MOST = 4096 };

void done_clear(struct done *); /* frees */
bool done_has(const struct done *, int64_t offset);
/* Without memory nothing is noted: what was done comes again after a crash. */
void done_add(struct done *, int64_t from, int64_t to);
/* All below is committed. */
void done_forget(struct done *, int64_t below);
/* Behind what is done without a gap from there on. */
int64_t done_until(const struct done *, int64_t from);

/* As text of at most `most` bytes, in ASCII, for the committed offset `base`; what finds no room is left out.
 * Appends; nothing where nothing is done. */
void done_write(const struct done *, int64_t base, size_t most, struct buf *out);
/* In place of what there was. false: it is not ours, or for another offset, or damaged, or there is no
 * memory: nothing is known to be done. */
bool done_read(struct done *, int64_t base, struct str text);
