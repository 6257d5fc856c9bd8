/* The file store: checkpoints of a process that runs without a cluster, as one framed, checksummed journal in
 * a folder, with group commit. Owns DIR/checkpoints.journal and a lock on DIR/lock. Loop's thread; the syncs
 * to disk run on libuv's worker pool.
 *
 * A frame: magic "SLC1", CRC-32 of what follows, length of key, length of value (each 32 bits,
 * little-endian), key, value. At start every whole frame is read, whatever lies between: a broken one at the
 * end, where a crash stopped, is cut off; where others follow it, the journal is written anew. What could not
 * be read is kept in DIR/checkpoints.journal.damaged.N. The journal is rewritten once it is large and mostly
 * stale.
 *
 * Where the folder or a file in it is deleted or replaced, all is made again from memory: at the next put,
 * which fails where that can't be done, and soon without one. */
#pragma once

#include "base/loop.h"
#include "port/store.h"

struct file_store;

/* Makes the folder, and those above it, where it is not there. */
int file_store_folder(const char *path, struct error *) MUST_CHECK;
int file_store_new(struct file_store **, struct loop *, const char *folder, struct error *) MUST_CHECK;
/* Writes what is queued before it returns. NULL is fine. */
struct file_store *file_store_free(struct file_store *);

/* One Trigger's end: its keys are kept apart by the prefix. Freed after its requests and before the store. */
struct file_store_end;
int file_store_end_new(struct file_store_end **, struct file_store *, struct str prefix,
                       struct error *) MUST_CHECK;
struct file_store_end *file_store_end_free(struct file_store_end *);
struct store file_store_port(struct file_store_end *);
