/* The claims port (port/claims.h) for processes of one machine: byte-range locks on the file DIR/claims. The
 * kernel releases them when their process ends, however it ends. A process opens the file once. Loop's
 * thread.
 *
 * Each key has a range of the file, chosen by its hash. In it, a byte for each slot is locked by the process
 * that holds the slot; and a byte for each possible count of slots has a shared lock of every process that
 * holds so many and waits for more. A process that waits, or may have to give up a slot, looks twice a
 * second; one that holds the only slot never looks.
 *
 * What a slot stands for depends on how many there are, and while a file is edited, processes may disagree
 * about that. So all that hold or take slots must agree on the number, and have a shared lock on the byte of
 * that number. A process with another number waits until the last of them is gone, and reports both numbers;
 * of several that wait with different numbers the one with the most slots goes first.
 *
 * Where the file is deleted or replaced, each process takes its locks again in a new one. What it can't have
 * there another has: it is LEAVING. What is free there is not taken for a while, since others may not have
 * moved yet. */
#pragma once

#include "base/loop.h"
#include "port/claims.h"

struct lock_file;
int lock_file_new(struct lock_file **, struct loop *, const char *folder, struct error *) MUST_CHECK;
struct lock_file *lock_file_free(struct lock_file *); /* NULL is fine */

enum { LOCK_SLOTS_MOST = 512 };
struct lock_end;
/* key: the same in each process; slots: 1 to LOCK_SLOTS_MOST; wake: made ready when a slot's state changes.
 * Freed before the file. */
int lock_end_new(struct lock_end **, struct lock_file *, struct str key, uint32_t slots, struct task *wake,
                 struct error *) MUST_CHECK;
struct lock_end *lock_end_free(struct lock_end *); /* what it holds is free; NULL is fine */
struct claims lock_end_port(struct lock_end *);
