/* Inside the reader: what it keeps of its tracks and of itself, and what its parts ask of one another. What
 * there is to read and how jobs end is in reader.c, what is saved in reader_save.c, what is told in
 * reader_told.c. */
#pragma once

#include "base/heap.h"
#include "base/list.h"
#include "base/random.h"
#include "source/page.h"

/* A table that can't grow says so instead of ending the process. */
#define HASH_NONFATAL_OOM 1
#define uthash_nonfatal_oom(element) ((void)(element))
#include "base/table.h"

static const usec STARVED = 10 * USEC_MSEC; /* after which memory is asked for again */
enum { MARK_MOST = 64 << 10 };

enum track_state {
        TRACK_CLAIM,
        TRACK_LOAD,
        TRACK_OFFER, /* the engine is about to be told */
        TRACK_OPEN,
        TRACK_CLOSING, /* the engine lets go of it */
        TRACK_LEAVING, /* nothing of it is out; what is left to be saved is saved */
};

struct track {
        struct list_node ready, talking; /* it may have a job, or an event */
        struct list_node waiting;        /* for its turn, or for a pause to end */
        struct list_node timed;          /* all that it had is done, in time */
        struct heap_node due;
        UT_hash_handle hh; /* by name */
        char *name;
        size_t name_n;
        uint32_t id;
        void *own;
        enum track_state state;

        /* the job that reads */
        enum reader_job_kind front;
        bool busy, cancel_due, cancelled;
        struct page *filling;
        usec front_at; /* not before */
        bool asked;    /* because the peer said so */
        unsigned front_failures;
        usec pause; /* the last one after an empty page; 0: it brought something */

        /* the job that saves */
        bool saving, saving_fresh;
        uint64_t saving_to;
        usec save_at, saved_at; /* not before; when the last one began */
        unsigned save_failures;
        struct buf save_mark, save_state;
        struct str *marks;
        size_t marks_cap;

        /* the end */
        bool ended, withdrawn, lost, again;
        bool returned; /* what was not done, as far as that could be */
        bool refused;  /* the engine had no memory for it */
        bool tell;     /* the engine, that it is to let go */
        usec give_up_at, leave_by, again_at;

        /* its records, in order: those below saved are gone; committed: all below are done; unread from */
        uint64_t next, lent, committed, saved; /* lent: below it all were */
        struct page *pages, *pages_last;
        struct lent *unread, *walk, *unsaved; /* the first that is not lent, not committed, not saved */
        uint32_t unread_n;
        uint64_t reach; /* below it everything is done, up to a mark */
        struct str reach_mark;
        struct buf resume, kept; /* the mark of the last page; the one that is saved */
        struct buf reached;      /* that of the page before, once all of it was done */
        bool fresh;              /* the mark moved without a record */
        struct remember remember;
        uint32_t took_n; /* records, since nothing was left to be done, and when the first came */
        usec took_from;
        int64_t credit, credit_bytes;
        int64_t behind;
        /* counted in the reader; open: it may be read; holds: records that are not saved */
        bool failing, final, standby, open, holds;
};

struct befallen {
        const char *reason;
        uint32_t track;
        uint64_t lost, times;
        char text[256];
};

struct reader {
        struct reader_config config;
        struct random random;
        struct list ready, talking, timed; /* tracks */
        /* those that wait for their turn or for a pause to end; shared: when the next one may; its pause */
        struct list waiting;
        bool fetching;
        usec fetch_from, pause;
        struct heap timers;
        struct track **slots; /* by number; NULL: free */
        uint32_t *free_slots, free_n, slots_n, slots_cap;
        struct track *names;
        uint32_t failing, final, standby, open, holds;
        uint32_t records; /* what one FETCH asks for; 0: it does not matter */
        bool careful;     /* one at a time */
        bool stopping, closed, reached, had_tracks;
        struct error trouble; /* kind ERROR_NONE: none */
        enum source_state told_state;
        /* of failures; of standing by, in the words of one track; while there is nothing to read yet, and
         * while all is well */
        char text[256], standby_text[256], connecting_text[256], connected_text[256], told_text[256];
        const struct track *speaker;
        const void *blamed; /* whose failure is told: a track, or trouble; NULL: it is well again */
        bool blamed_final;
        struct befallen *befallen, taken; /* not told yet, NOTICES; the last that was */
        uint32_t befallen_n;
        struct reader_stats stats;
};

struct track *reader_track(const struct reader *, uint32_t id); /* NULL: there is none of that number */
/* Does it hold records that are not saved? */
void track_hold(struct reader *, struct track *, bool holds);

static inline void list_once(struct list *list, struct list_node *node)
{
        if (!list_has(node))
                list_append(list, node);
}

static inline void stir(struct reader *r, struct track *t) { list_once(&r->ready, &t->ready); }
static inline void talk(struct reader *r, struct track *t) { list_once(&r->talking, &t->talking); }
static inline void count(uint32_t *n, bool *counted, bool now)
{
        *n += now && !*counted;
        *n -= !now && *counted;
        *counted = now;
}

static inline void enter(struct reader *r, struct track *t, enum track_state state)
{
        count(&r->open, &t->open, state >= TRACK_OFFER);
        t->state = state;
        stir(r, t);
}

static inline struct str text_of(const struct buf *b) { return (struct str){ b->p, b->n }; }

static inline bool put_text(struct buf *b, struct str s)
{
        buf_reset(b);
        b->max = MARK_MOST;
        buf_str(b, s);
        return !b->failed;
}
static inline bool all_done(const struct track *t) { return t->committed == t->next; }

/* The job under way is one of those that end a track. */
static inline bool is_last(const struct track *t)
{
        return t->busy && (t->front == READER_RETURN || t->front == READER_LEAVE);
}

/* ---- what is told (reader_told.c) --------------------------------------- */

/* Each track has words of its own; those of one will do, as long as it stands by. */
void track_stand_by(struct reader *, struct track *, const char *text);
void track_stand_by_over(struct reader *, struct track *);
void track_well(struct reader *, struct track *); /* as far as its last jobs were */
/* What it failed with before is over, though it is not ours: who stands by does not fail. */
void track_answered(struct reader *, struct track *);
void track_failing(struct reader *, struct track *, const struct error *);
bool reader_state_changed(const struct reader *);
void reader_say_state(struct reader *, struct pull_event *);

/* ---- what is saved (reader_save.c) -------------------------------------- */

/* When what waits to be saved stops to be ours. */
usec track_lease_end(const struct reader *, const struct track *);
/* Something waits, is still ours, and there is time. */
bool track_save_in_time(const struct reader *, const struct track *, usec now);
usec track_save_when(const struct reader *, const struct track *);
bool track_save_next(struct reader *, struct track *, usec now, struct reader_job *);
void track_save_done(struct reader *, struct track *);
void track_free_pages(struct track *); /* whose records are all saved and given back */
/* Nothing of it is out or under way, and what can be saved is. */
bool track_may_leave(const struct reader *, const struct track *, usec now);
/* Something was not done, and there is time to say so. */
bool track_return_wanted(const struct reader *, const struct track *, usec now);
bool track_return_next(struct reader *, struct track *, usec now, struct reader_job *);
