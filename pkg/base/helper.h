/* A thread for calls of libraries that block. Jobs go in, are worked on one after the other in the order they
 * came, and are taken back on the loop's thread, whose task is made ready for it: nothing is called back
 * there. The thread is there only while there is work, so that what is idle costs nothing.
 *
 * A job belongs to the helper from helper_submit until helper_take gives it back: meanwhile nobody else
 * touches it or what work() uses. It may be freed or submitted again then. All but work() on the loop's
 * thread. */
#pragma once

#include "base/loop.h"

struct helper;
struct helper_job {
        void (*work)(struct helper_job *); /* on the helper's thread; knows nothing of the loop */
        struct helper_job *next;           /* the helper's */
        bool done;                         /* false once taken: the helper was stopped before its turn came */
};

/* wake: of the owner, who takes then. */
int helper_new(struct helper **, struct waker *, struct task *wake, struct error *) MUST_CHECK;
/* An error: no thread is to be had; the job is still the caller's. */
int helper_submit(struct helper *, struct helper_job *, struct error *) MUST_CHECK;
struct helper_job *helper_take(struct helper *); /* in the order they came; NULL: none is done */
/* Any thread: shall the job under way, which is in no hurry otherwise, come to an end? */
bool helper_stopping(struct helper *);
/* Waits for the job under way; no other begins. Then helper_take gives back all of them, done or not. */
void helper_stop(struct helper *);
/* For a job that may never come to its end, the only one: gives it up with its helper. The thread goes on by
 * itself, and frees both when the job ends; so the job must be what malloc returned. false: the job has
 * ended, and is there to be taken. */
bool helper_leave(struct helper *, struct helper_job *) MUST_CHECK;
/* Stops it; what was not taken is the caller's again. NULL is fine. Returns NULL */
struct helper *helper_free(struct helper *);
