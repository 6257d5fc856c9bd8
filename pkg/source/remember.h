/* Inside the reader: the ids that a track remembers, so that what overlapping queries bring again is
 * delivered once. All that is not saved, and the last ones that are. Owned by the track; no I/O. */
#pragma once

#include "base/buf.h"

struct seen; /* an id */
struct remember {
        struct seen *table;
        struct seen *first, *last; /* by position */
        uint32_t most, saved;      /* of the first ones; so many of them are kept: most */
};

void remember_clear(struct remember *);
bool remember_has(const struct remember *, struct str id);
/* Not yet in order: by keep it is, by drop it is forgotten. NULL: out of memory. */
struct seen *remember_add(struct remember *, struct str id) MUST_CHECK;
void remember_drop(struct remember *, struct seen *);
void remember_keep(struct remember *, struct seen *, uint64_t position);
void remember_saved(struct remember *); /* the next in order; forgets the oldest beyond most */

/* The state that is saved: the mark and the last ids below a position, as many as fit.
 * With most 0 it is the mark alone. */
void remember_write(const struct remember *, struct str mark, uint64_t below, struct buf *);
/* mark: a part of the state. -1: it is none that was written so, or memory is out; what was read is kept. */
int remember_read(struct remember *, struct str state, struct str *mark, struct error *) MUST_CHECK;
