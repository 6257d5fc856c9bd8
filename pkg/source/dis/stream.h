/* Inside the source: the state of a stream and its partitions, shared by discovery (list.c, first.c) and the
 * jobs of the partitions (dis.c). */
#pragma once

/* On out of memory uthash leaves hh.tbl NULL instead of exiting. */
#define HASH_NONFATAL_OOM 1
#define uthash_nonfatal_oom(element) ((void)(element))
#include "base/table.h"
#include "source/dis/dis.h"
#include "source/poller.h"

enum { DIS_NAME_MOST = 64, DIS_PARTITIONS_MOST = 10000 };

enum load_step { LOAD_CHECKPOINT, LOAD_APP, LOAD_STREAM };

/* Kept until the source is closed, even while the partition is not a track of the reader. */
struct partition {
        UT_hash_handle hh;
        char name[DIS_NAME_MOST + 1];
        uint32_t track;
        bool added;                  /* it is a track of the reader now */
        bool late;                   /* it appeared or came back after the first list */
        int64_t oldest, newest, end; /* the range, as listed; where a null cursor ended it, -1: nowhere */
        /* LOAD and SAVE jobs: which call comes next */
        enum load_step load;
        bool make_app;
        bool has_checkpoint; /* according to the first start */
        bool found;          /* in the list; to be added once the first start is complete */
        /* FETCH jobs */
        bool by_time;      /* without a position: start at startTimestamp instead of the oldest record */
        bool reset;        /* the position is invalid: read from the oldest record, until one arrives */
        bool for_records;  /* the call in flight asks for records, not for a cursor */
        struct buf cursor; /* n 0: none */
        int64_t at;        /* the position: number of the next record; -1: none yet */
        usec since;
        usec stands_since; /* when the position was set: older lists say nothing about it */
        unsigned beyond;   /* lists in a row, requested since then, that end before the position */
        int64_t of;        /* creation time of the stream that the position belongs to; ms, 0: unknown */
        int64_t first_of; /* the same, of marks that carry no time: as it was when the partition was loaded */
        bool first_again; /* the loaded checkpoint says that the stream was recreated */
        bool another;     /* the position belongs to another stream than the one described now */
        bool unsaid;      /* the stream was recreated; the checkpoint must say so before anything is read */
        int64_t ahead;    /* a response that started there, beyond the position, was rejected; -1: none */
        bool unnumbered;  /* the last response at this position failed: it has records without a number */
        usec described_at; /* when the list that describes it was requested */
        /* Empty responses in a row: when the first one arrived, on both clocks (0: the last response had
         * records), and how many followed a list that shows records at the position. */
        usec empty_since, empty_since_wall;
        unsigned empty;
        bool held_up; /* the warning was given */
};

/* The next step of the first start (first.c), which is part of the first discovery. */
enum first_step { FIRST_LIST, FIRST_STATE, FIRST_CHECK, FIRST_APP, FIRST_SAVE, FIRST_OVER };
struct dis {
        struct poller poller; /* the first member */
        const struct dis_spec *spec;
        struct partition *partitions; /* a table, by name */
        struct buf app;
        enum first_step first;
        struct partition *at;          /* the partition that the first start is working on */
        char after[DIS_NAME_MOST + 1]; /* the last partition of the previous page of the list */
        bool listed;                   /* a whole list was read at least once */
        usec listing_at;               /* when the current page of the list was requested */
        int64_t told_created;          /* creation time in the last description; ms, 0: none */
        int64_t created; /* the one believed: of the first description, later of two that agree; 0: unknown */
        bool proven;     /* the last two descriptions agree */
        unsigned disagreed;           /* descriptions in a row that differ from the one before */
        unsigned described;           /* partitions in the list so far */
        unsigned states;              /* checkpoints in theirs */
        const struct partition *held; /* the held-up partition that the status names; NULL: none */
        bool unsettled;               /* a partition has no range, since the stream is being rescaled */
};

static inline struct dis *dis_of(const struct poller *p) { return CONTAINER_OF(p, struct dis, poller); }
static inline usec now_of(const struct poller *p) { return clock_monotonic(p->services->clock); }
static inline int64_t number_of(struct str mark)
{
        int64_t n;

        return mark.n && str_to_int64(mark, &n) ? n : -1;
}

static inline void cursor_drop(struct partition *at) { buf_reset(&at->cursor); }
static inline void stand_at(const struct dis *d, struct partition *at, int64_t number)
{
        at->at = number;
        at->stands_since = now_of(&d->poller);
        at->beyond = 0;
        at->unnumbered = false;
}

bool dis_stands_nowhere(const struct partition *); /* its position is not in the stream, or seems not to be */
/* Reports the lag. Without a valid position, all records of the partition are still to be read. */
static inline void tell_lag(const struct dis *d, const struct partition *at)
{
        int64_t from = at->at < 0 || at->reset || dis_stands_nowhere(at) ? at->oldest : at->at;

        if (at->added)
                reader_behind(d->poller.reader, at->track, MAX_OF(at->newest - from, (int64_t)0));
}

static inline int read_answer(struct str body, const struct json_object *o, void *into, struct error *err)
{
        if (json_read_object(body, o, into, err) == 0)
                return 0;
        return err->kind == ERROR_PROTOCOL ? error_wrap(err, "an answer that can't be read") : -1;
}

/* Sets the status reason that is shown while no partition is read. */
static inline void say_unread(const struct dis *d, const char *why)
{
        reader_remark(d->poller.reader, SOURCE_CONNECTING, "no partition of stream %s is read: %s",
                      d->spec->stream, why);
}

/* again.c. The number in a mark; -1: the mark is empty, or belongs to another stream. */
int64_t dis_position(const struct partition *, struct str mark);
/* The creation time to be written into record ids, if the stream was recreated since this app first read it;
 * 0: it was not, and ids need none. */
int64_t dis_made_again(const struct partition *);
/* A checkpoint's metadata: the creation time of its stream, 0: unknown; again: it is a recreated stream. */
void dis_write_metadata(int64_t created, bool again, struct buf *);
int64_t dis_read_metadata(struct str, bool *again);
struct str dis_metadata_of(struct json_value); /* strips what the first start adds */
/* Takes the creation time of a new description into account. */
void dis_told_created(struct dis *, int64_t);
/* Checks a position against the latest description: is it of another stream, or beyond the end? */
void dis_look_again(struct dis *, struct partition *);
void dis_look_beyond(struct dis *, struct partition *, bool has_range);
/* Gives up a position that failed these checks. Call it only while no FETCH is in flight: a late response
 * could bring back the old cursor, or prove the position valid. */
void dis_leave_position(const struct dis *, struct partition *);
/* Writes the mark that precedes all records of the recreated stream. */
void dis_write_first_mark(const struct partition *, struct buf *);
/* Makes the partition continue at its oldest record. */
void dis_start_over(const struct dis *, struct partition *, const char *why);
/* list.c: discovery, as operations of the poller. */
void dis_discover(struct poller *, struct cloud_request *);
enum poller_step dis_discovered(struct poller *, struct str body, struct error *);
enum poller_step dis_discover_refused(struct poller *, const struct cloud_error *, struct error *);
/* first.c: the next request, and how its result is handled. DONE: the first start is complete. */
void dis_first_ask(struct dis *, struct cloud_request *);
enum poller_step dis_first_answered(struct dis *, struct str body, struct error *);
enum poller_step dis_first_refused(struct dis *, const struct cloud_error *);
/* Requests and parsing that several of them need. */
void dis_ask_for_stream(const struct dis *, struct cloud_request *, int partitions);
int dis_read_created(struct dis *, struct str body, struct error *);
void dis_ask_for_app(const struct dis *, struct cloud_request *);
void dis_ask_for_checkpoint(const struct dis *, const struct partition *, struct cloud_request *);
void dis_ask_to_save(const struct dis *, const struct partition *, struct str number, struct str metadata,
                     struct cloud_request *);
int64_t dis_sequence_of(struct json_value); /* a number, quoted or not; -1: none */
/* A partition's name. "3" and "shardId-0000000003" are the same one; out gets the long form. false: it is no
 * name. */
bool dis_read_name(struct json_value id, char out[DIS_NAME_MOST + 1]);
bool dis_cannot_be_saved(const struct cloud_error *); /* it is gone, or the number out of range */
void dis_origin(const struct trigger *, struct buf *);
