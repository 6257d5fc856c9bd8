/* A work queue of keys: a key that is added while it is worked on is given out again afterwards, never twice
 * at once; delays keep the earlier deadline; failures back off per key. Sans-I/O: the caller gives the time
 * and asks for the deadline. One thread. */
#pragma once

#include "base/error.h"

struct queue;

int queue_new(struct queue **, struct error *) MUST_CHECK;
struct queue *queue_free(struct queue *); /* NULL is fine */
void queue_add(struct queue *, const char *key);
void queue_add_after(struct queue *, const char *key, usec at);
/* After a failure: min(5 ms · 2ⁿ, 1000 s) from now. */
void queue_retry(struct queue *, const char *key, usec now);
void queue_forget(struct queue *, const char *key); /* the failures are over */
/* A key to work on; NULL: none now. The key stays valid until queue_done, which must follow. */
const char *queue_get(struct queue *, usec now);
void queue_done(struct queue *, const char *key);
usec queue_deadline(const struct queue *); /* ask again then; USEC_NEVER */
size_t queue_length(const struct queue *); /* ready to be given out */
