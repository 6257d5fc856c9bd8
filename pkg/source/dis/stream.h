/* Inside the source: a stream and its partitions, as the list of them and their jobs share them. */
#pragma once

/* A table that can't grow says so instead of ending the process. */
#define HASH_NONFATAL_OOM 1
#define uthash_nonfatal_oom(element) ((void)(element))
#include "base/table.h"
#include "source/dis/dis.h"
#include "source/poller.h"

enum { DIS_NAME_MOST = 64 };

enum load_step { LOAD_CHECKPOINT, LOAD_APP, LOAD_STREAM };

/* Known until the source is closed, whether it is a track now or not. */
struct partition {
        UT_hash_handle hh;
        char name[DIS_NAME_MOST + 1];
        uint32_t track;
        bool added;                  /* it is a track, and own of it */
        bool late;                   /* it appeared, or came back, when others were read already */
        int64_t oldest, newest, end; /* as described; where it ended in a null cursor, -1: it did not */
        /* LOAD and SAVE: the next call */
        enum load_step load;
        bool make_app;
        bool has_checkpoint; /* as far as the first start knows */
        bool found;          /* by the list, and to be added once the first start is over */
        /* FETCH */
        bool by_time;      /* without a position it begins at startTimestamp, otherwise at the oldest */
        bool reset;        /* its position is out of range: at the oldest, until a record comes */
        bool for_records;  /* what was asked for: records, not a cursor */
        struct buf cursor; /* n 0: none */
        int64_t at;        /* where it stands; -1: no position yet */
        usec since;
        usec stands_since; /* when that position became known: an older list knows nothing of it */
        unsigned beyond;   /* lists in a row by which it lies beyond the end, asked for since */
        int64_t of;        /* when the stream was created that the position is of; ms, 0: unknown */
        int64_t first_of;  /* of marks that do not say it: as it was when the partition was added */
        bool first_again;  /* that stream had been made again already, by its checkpoint */
        bool another;      /* the stream is another one now */
        bool unsaid;       /* it has left the one before, and its checkpoint is to say so first */
        int64_t ahead;     /* an answer began there instead, and was not taken; -1: none did */
        bool unnumbered;   /* the last answer, from where it stands, had records without a number */
        usec described_at; /* when the list was asked for that described it */
        /* Answers without records in a row: when the first came, on both clocks (0: the last one had some),
         * and how many came since a later list named records there. */
        usec empty_since, empty_since_wall;
        unsigned empty;
        bool held_up; /* that was told */
};

/* Of the first start (first.c), while the list is asked for: what comes next. */
enum first_step { FIRST_LIST, FIRST_STATE, FIRST_CHECK, FIRST_APP, FIRST_SAVE, FIRST_OVER };
struct dis {
        struct poller poller; /* the first member */
        const struct dis_spec *spec;
        struct partition *partitions; /* a table, by name */
        struct buf app;
        enum first_step first;
        struct partition *at;          /* of the first start: the one asked about */
        char after[DIS_NAME_MOST + 1]; /* the last partition of the list so far */
        bool listed;                   /* the whole list was seen once */
        usec listing_at;               /* when the list was asked for, or its part */
        int64_t told_created; /* when the stream was created, as it was described last; ms, 0: not told */
        int64_t created;      /* the same, as the first description said, and then two in a row; 0: unknown */
        bool proven;          /* the last two agreed */
        unsigned disagreed;   /* descriptions in a row, each of which said something else */
        unsigned described;   /* partitions, by the list so far */
        const struct partition *held; /* the one that the status names as held up; NULL: none */
        bool unsettled;               /* a partition had no range, while the stream is rescaled */
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

bool dis_stands_nowhere(const struct partition *); /* its position is none of the stream, as it seems */
/* Then all that it has is still to come. */
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

/* Why nothing is read, as long as nothing is. */
static inline void say_unread(const struct dis *d, const char *why)
{
        reader_remark(d->poller.reader, SOURCE_CONNECTING, "no partition of stream %s is read: %s",
                      d->spec->stream, why);
}

/* again.c. The number of a mark; -1: there is none, or it is of another stream. */
int64_t dis_position(const struct partition *, struct str mark);
/* When the stream of its position was created, if it was made again since this app began to read it: then
 * its numbers are those of other records, too, and the ids of its records say it. 0: it was not. */
int64_t dis_made_again(const struct partition *);
/* Of a checkpoint: when the stream was created that it is of, 0: it is not said; and was it made again? */
void dis_write_metadata(int64_t created, bool again, struct buf *);
int64_t dis_read_metadata(struct str, bool *again);
struct str dis_metadata_of(struct json_value); /* of any checkpoint, without what the first start adds */
/* The stream was described: when it was created, as it says. */
void dis_told_created(struct dis *, int64_t);
/* Does the partition stand in another stream than the one that is described, or beyond its end? */
void dis_look_again(struct dis *, struct partition *);
void dis_look_beyond(struct dis *, struct partition *, bool has_range);
/* Then it leaves its position. Only when nothing is under way: no answer to an earlier question can bring the
 * old cursor back any more, or show that it was right. */
void dis_leave_position(const struct dis *, struct partition *);
/* The mark before the first record of the stream that it goes on in. */
void dis_write_first_mark(const struct partition *, struct buf *);
/* It goes on at the oldest record there is, with the next cursor. */
void dis_start_over(const struct dis *, struct partition *, const char *why);
/* Of the poller's operations: the list of partitions. */
void dis_discover(struct poller *, struct cloud_request *);
enum poller_step dis_discovered(struct poller *, struct str body, struct error *);
enum poller_step dis_discover_refused(struct poller *, const struct cloud_error *, struct error *);
/* The first start: the next question, and what the answer leads to; DONE: it is over. */
void dis_first_ask(struct dis *, struct cloud_request *);
enum poller_step dis_first_answered(struct dis *, struct str body, struct error *);
enum poller_step dis_first_refused(struct dis *, const struct cloud_error *);
/* What several of them ask for, and how answers are read. */
void dis_ask_for_stream(const struct dis *, struct cloud_request *, int partitions);
int dis_read_created(struct dis *, struct str body, struct error *);
void dis_ask_for_app(const struct dis *, struct cloud_request *);
void dis_ask_for_checkpoint(const struct dis *, const struct partition *, struct cloud_request *);
void dis_ask_to_save(const struct dis *, const struct partition *, struct str number, struct str metadata,
                     struct cloud_request *);
int64_t dis_sequence_of(struct json_value); /* as text or as a number; -1: there is none */
/* "3" and "shardId-0000000003" are the same one: it is called by the long name. false: it is no name. */
bool dis_read_name(struct json_value id, char out[DIS_NAME_MOST + 1]);
bool dis_cannot_be_saved(const struct cloud_error *); /* the partition is gone, or the number out of range */
void dis_origin(const struct trigger *, struct buf *);
