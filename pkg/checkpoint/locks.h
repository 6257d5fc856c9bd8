/* The claims port (port/claims.h) for processes of one machine: locks on bytes of the file DIR/claims, which
 * the kernel frees when their process ends, however it ends. One descriptor a process, whatever it claims.
 * Loop's thread.
 *
 * Each user's key has a stretch of the file, by its hash: a byte for each slot, locked by its holder, and a
 * byte for each number of slots, on which those who wait and hold so many have a shared lock. Whoever waits,
 * or might have to give one up, looks twice a second; whoever holds the only slot never does.
 *
 * A slot says nothing without their number, which may differ from process to process while a file is edited.
 * So all who hold or take slots go by one number, on which they have a shared lock. Who comes with another
 * one waits, and says by how many the others go, until the last of them is gone; of several who wait with
 * different numbers the one with the most slots comes first. */
#pragma once

#include "base/loop.h"
#include "port/claims.h"

struct lock_file;
int lock_file_new(struct lock_file **, struct loop *, const char *folder, struct error *) MUST_CHECK;
struct lock_file *lock_file_free(struct lock_file *); /* NULL is fine */

enum { LOCK_SLOTS_MOST = 512 };
struct lock_end;
/* key: the same in each process; slots: 1 to LOCK_SLOTS_MOST; wake: made ready when a slot stands otherwise.
 * Freed before the file. */
int lock_end_new(struct lock_end **, struct lock_file *, struct str key, uint32_t slots, struct task *wake,
                 struct error *) MUST_CHECK;
struct lock_end *lock_end_free(struct lock_end *); /* what it holds is free; NULL is fine */
struct claims lock_end_port(struct lock_end *);
