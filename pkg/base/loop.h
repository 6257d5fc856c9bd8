/* The event loop of a process: tasks, deadlines, file descriptors, signals and a waker for other threads, on
 * libuv. One loop per process, on one thread; everything but waker_ring is called on that thread. */
#pragma once

#include "base/clock.h"
#include "base/error.h"
#include "base/heap.h"

struct loop;

/* A unit of work that is turned when it was made ready or its deadline passed. Embedded in its owner, zeroed
 * before first use; the owner takes it out with loop_forget before it is freed. */
struct task {
        void (*turn)(struct task *, usec now);
        struct task *next;      /* the loop's */
        struct heap_node timer; /* the loop's */
        bool ready;             /* the loop's */
};

int loop_new(struct loop **, struct error *) MUST_CHECK;
/* closes the loop; what is still open on it is a bug and aborts. NULL is fine. Returns NULL */
struct loop *loop_free(struct loop *);
DEFINE_CLEANUP(struct loop *, loop_free)
void loop_run(struct loop *); /* until loop_stop */
void loop_stop(struct loop *);
usec loop_now(const struct loop *); /* monotonic, as of this pass */
/* The number of the pass whose tasks are turned just now; 0: none are. */
uint64_t loop_pass(const struct loop *);
/* Deadlines are kept by this clock instead of the system's: for tests, which let hours pass in a moment.
 * Before anything is armed; borrowed. */
void loop_use_clock(struct loop *, const struct clock *);
/* Asked in a turn: when the next one is, as far as is known. Now, where a task is ready; USEC_NEVER: there is
 * no deadline. Such a clock may be put there. */
usec loop_next(const struct loop *);
/* What there is once for each loop, kept by whoever makes it, and gone before the loop is. */
enum loop_place {
        LOOP_WATCHER, /* base/watch */
        LOOP_SECRETS, /* pkg/secret */
        LOOP_ZONES,   /* pkg/source/timer: those that its timers share */
        LOOP_PLACES
};
void **loop_place(struct loop *, enum loop_place);
void *loop_uv(struct loop *); /* the uv_loop_t, for pkg/http, pkg/kube and pkg/base alone */

/* turn it at the end of this pass; again while turning: next pass */
void loop_ready(struct loop *, struct task *);
/* turn it then, too; USEC_NEVER: no deadline; replaces the last one */
void loop_arm(struct loop *, struct task *, usec deadline);
void loop_forget(struct loop *, struct task *);

/* A time of day that a task waits for. The task is turned then, and whenever the wall clock was set or the
 * machine slept, since how long there is to wait is another question now. Embedded in its owner, zeroed
 * before first use, and taken out with USEC_NEVER before it is freed. */
struct alarm {
        struct heap_node node; /* the loop's; by wall clock */
        struct task *task;     /* NULL: nobody is turned */
};
/* At that time (wall clock), which replaces the last one. USEC_NEVER: none. */
void loop_alarm(struct loop *, struct alarm *, usec wall);

/* Descriptors. Level-triggered; the callback may close the watch. The watch is freed by the loop after
 * loop_io_close. */
struct loop_io;
enum {
        LOOP_READABLE = 1,
        LOOP_WRITABLE = 2,
        LOOP_FAILED = 4 /* with both others, once: the watch tells nothing more of an error */
};
int loop_io_open(struct loop *, int fd, void (*event)(void *cookie, int events), void *cookie,
                 struct loop_io **, struct error *) MUST_CHECK;
void loop_io_want(struct loop_io *, int events); /* 0: nothing; cheap when unchanged */
/* NULL is fine; does not close the descriptor, which may be closed right after */
void loop_io_close(struct loop_io *);

/* A crowd: the descriptors of many peers behind one of the loop's. So many of those that are ready have their
 * turn in a pass, those that have waited longest, so that the few that the loop watches itself are never
 * behind a thousand others. */
struct loop_crowd;
int loop_crowd_new(struct loop_crowd **, struct loop *, uint32_t in_a_pass, struct error *) MUST_CHECK;
/* its descriptors are closed; NULL is fine. Returns NULL */
struct loop_crowd *loop_crowd_free(struct loop_crowd *);
int loop_crowd_open(struct loop_crowd *, int fd, void (*event)(void *cookie, int events), void *cookie,
                    struct loop_io **, struct error *) MUST_CHECK;

/* Signals, delivered on the loop's thread. They are blocked in other threads by signals_block(), called
 * before the first thread. */
void signals_block(void);
int loop_signal(struct loop *, int number, void (*event)(void *cookie, int number), void *cookie,
                struct error *) MUST_CHECK;

/* Any thread may make a task ready. One waker per loop, owned by it. Rings between two passes coalesce: a
 * task registers a slot. */
struct waker;
/* zeroed; lives as long as rings may come */
struct waker_slot {
        struct waker_slot *next;
        struct task *task;
        int rung;
};
struct waker *loop_waker(struct loop *);
/* wait-free; slot->task set before the first ring */
void waker_ring(struct waker *, struct waker_slot *);
/* loop's thread, when no thread can ring any more */
void waker_forget(struct waker *, struct waker_slot *);
