/* Inside the reader: its state and the functions that its parts share. reader.c has tracks and reading jobs,
 * reader_save.c saving, reader_told.c states and warnings. */
#pragma once

#include "base/heap.h"
#include "base/list.h"
#include "base/random.h"
#include "source/page.h"

/* On out of memory uthash leaves hh.tbl NULL instead of exiting. */
#define HASH_NONFATAL_OOM 1
#define uthash_nonfatal_oom(element) ((void)(element))
#include "base/table.h"

static const usec STARVED = 10 * USEC_MSEC; /* the pause after out of memory */
enum { MARK_MOST = 64 << 10 };

enum track_state {
        TRACK_CLAIM,
        TRACK_LOAD,
        TRACK_OFFER, /* the engine will be told of it */
        TRACK_OPEN,
        TRACK_CLOSING, /* the engine finishes its records */
        TRACK_LEAVING, /* no record is lent; the rest is saved */
};

struct track {
        struct list_node ready, talking; /* queued if it may have a job; an event */
        struct list_node waiting;        /* queued until a pause ends, or until it may fetch */
        struct list_node timed;          /* queued when all of its records are done in time */
        struct heap_node due;
        UT_hash_handle hh; /* by name */
        char *name;
        size_t name_n;
        uint32_t id;
        void *own;
        enum track_state state;

        /* the reading job */
        enum reader_job_kind front;
        bool busy, cancel_due, cancelled;
        struct page *filling;
        usec front_at; /* not before */
        bool asked;    /* the pause was the peer's wish */
        unsigned front_failures;
        usec pause; /* after the last page, if it was empty; otherwise 0 */

        /* the saving job */
        bool saving, saving_fresh;
        uint64_t saving_to;
        usec save_at, saved_at; /* the earliest time of the next SAVE; the start of the last one */
        bool save_asked;        /* the pause was the peer's wish */
        unsigned save_failures;
        struct buf save_mark, save_state;
        struct str *marks;
        size_t marks_cap;

        /* the end */
        bool ended, withdrawn, lost, again;
        bool returned; /* RETURN was tried */
        bool refused;  /* the engine was out of memory: offer it again */
        bool tell;     /* the engine must be told to stop */
        usec give_up_at, leave_by, again_at;

        /* positions of its records, in order: those below saved are freed, those below committed are done,
         * those below lent were lent; next: of the next record fetched */
        uint64_t next, lent, committed, saved;
        struct page *pages, *pages_last;
        struct lent *unread, *walk, *unsaved; /* the first that is not lent; not committed; not saved */
        uint32_t unread_n;
        uint64_t reach; /* everything below it is done, and reach_mark can be saved */
        struct str reach_mark;
        struct buf resume, kept; /* the mark to fetch from; the saved one */
        struct buf reached;      /* memory of reach_mark */
        bool fresh;              /* the mark moved without a record */
        struct remember remember;
        uint32_t took_n; /* records fetched since the track had none left, and when the first of them came */
        usec took_from;
        int64_t credit, credit_bytes;
        int64_t behind;
        /* flags that the reader counts; open: it may be read; holds: it has unsaved records */
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
        /* tracks that wait until they may fetch; with shared: the time of the next FETCH, and its pause */
        struct list waiting;
        bool fetching;
        usec fetch_from, pause;
        struct heap timers;
        struct track **slots; /* tracks by number; NULL: free */
        uint32_t *free_slots, free_n, slots_n, slots_cap;
        struct track *names;
        uint32_t failing, final, standby, open, holds;
        uint32_t records; /* the most that a FETCH asks for; 0: no limit */
        bool careful;     /* one record at a time, after some had to be dropped */
        bool stopping, closed, reached, had_tracks;
        struct error trouble; /* kind ERROR_NONE: none */
        enum source_state told_state;
        /* reasons: of a failure; of standby, as one track says it; while connecting; while connected */
        char text[256], standby_text[256], connecting_text[256], connected_text[256], told_text[256];
        const struct track *speaker;
        const void *blamed; /* whose failure is shown: a track, or &trouble; NULL: it has recovered */
        bool blamed_final;
        struct befallen *befallen, taken; /* warnings not taken yet, at most NOTICES; the last one taken */
        uint32_t befallen_n;
        struct reader_stats stats;
};

struct track *reader_track(const struct reader *, uint32_t id); /* NULL: no track has that number */
/* Records whether the track has unsaved records. */
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

/* Is the job in flight one of the last two of a track? */
static inline bool is_last(const struct track *t)
{
        return t->busy && (t->front == READER_RETURN || t->front == READER_LEAVE);
}

/* ---- what is told (reader_told.c) --------------------------------------- */

/* Every track on standby has a text; that of one is shown, as long as this one stands by. */
void track_stand_by(struct reader *, struct track *, const char *text);
void track_stand_by_over(struct reader *, struct track *);
void track_well(struct reader *, struct track *); /* unless another of its jobs still fails */
/* The claim was answered: earlier failures are over, even if another worker has it and this one stands by. */
void track_answered(struct reader *, struct track *);
void track_failing(struct reader *, struct track *, const struct error *);
bool reader_state_changed(const struct reader *);
void reader_say_state(struct reader *, struct pull_event *);

/* ---- what is saved (reader_save.c) -------------------------------------- */

/* When the lease of the first unsaved record ends. */
usec track_lease_end(const struct reader *, const struct track *);
/* There is something to save, within its lease, and time to do it. */
bool track_save_in_time(const struct reader *, const struct track *, usec now);
usec track_save_when(const struct reader *, const struct track *);
bool track_save_next(struct reader *, struct track *, usec now, struct reader_job *);
void track_save_done(struct reader *, struct track *);
void track_free_pages(struct track *); /* those whose records are all saved and released */
/* No record is lent, no job is in flight, and all that can be saved is saved. */
bool track_may_leave(const struct reader *, const struct track *, usec now);
/* Some records are undone, and there is time to give them back. */
bool track_return_wanted(const struct reader *, const struct track *, usec now);
bool track_return_next(struct reader *, struct track *, usec now, struct reader_job *);
