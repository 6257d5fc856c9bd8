/* The reader stands under every source that fetches. It is sans-I/O: it does no I/O, reads no clock, starts
 * no thread, calls nobody back and has no globals. It hands out jobs, which are pulled until there are none,
 * and is told how each ended, so that the simulator can drive the same code. One thread: the loop's.
 *
 * It owns the tracks, the fetched pages and their records. For every source alike it handles credit, order,
 * commits and saved positions, pauses and back-off, duplicates from overlapping queries, leases, revocation
 * and shutdown. A source only has to execute the jobs.
 *
 * A track's life: CLAIM (may this worker read it?), LOAD (the saved position), then FETCH and SAVE until it
 * ends or is withdrawn, a last SAVE, and LEAVE. A track has at most one reading job (CLAIM, LOAD, FETCH) and
 * one saving job in flight.
 *
 * Positions are the reader's own, counted from 1 in each track. A source resumes from a mark, a string that
 * only the source interprets: a sequence number, a time, a token.
 *
 * Running out of memory never aborts: the job fails and is handed out again. The cost of each call grows with
 * the logarithm of the number of tracks, besides the work for each record. */
#pragma once

#include "base/error.h"
#include "json/members.h"
#include "port/notice.h"
#include "source/pull.h"

struct reader;
struct page;

struct reader_config {
        bool claims, loads; /* whether tracks have a CLAIM and a LOAD job */
        /* How many bytes a FETCH asks for. A track holds at most one page with records that were not lent
         * yet. */
        size_t page_bytes;
        /* The largest page; a larger one fails its FETCH. 0: 4 * page_bytes */
        size_t page_most;
        /* The pause after an empty page; it doubles from poll_min to poll_max while pages stay empty. */
        usec poll_min, poll_max;
        /* All tracks read the same queue. There is one FETCH in flight at a time, and the pause after an
         * empty or failed one applies to all tracks. */
        bool shared;
        /* The pause after a failed job, with full jitter. The peer's error.retry_after wins, up to an hour.
         * After an error that a retry can't help, the pause is backoff_max. */
        usec backoff_min, backoff_max;
        /* Between two SAVEs of a track; a track that leaves saves at once. */
        usec save_interval;
        /* The same, if the mark moved without a record. 0: such a mark is saved with the next record */
        usec idle_save_interval;
        /* No FETCH while so many records of the track are unsaved: this limits what is repeated after a
         * crash. 0: 100,000 */
        uint32_t unsaved_most;
        /* SAVE passes the marks of all records, at most so many at once. 0: only the last mark */
        uint32_t marks_most;
        /* How long fetched records are reserved for us, as a queue's messages are until they must be
         * acknowledged. Afterwards the track drops what it has left, and starts again. attempt: the time
         * before that in which nothing is sent any more, since the function's answer would come too late. 0:
         * no lease */
        usec lease, attempt;
        /* With lease and shared: a FETCH asks for no more records than can be delivered within the lease. It
         * starts with records_together, what goes into one request, and asks for that many more after each
         * page that took less than half of the lease, up to records_most, and for fewer after a page that
         * took longer. Once records had to be dropped, one record is fetched at a time, across all tracks,
         * until a page was done in time. 0: limited by credit only */
        uint32_t records_together, records_most;
        bool returns;              /* whether there is a RETURN job; needs marks_most */
        const char *let_go_reason; /* the warning for records dropped at the end of a lease; NULL: none */
        /* How many ids of the latest records are saved with the mark, so that neither overlapping queries nor
         * a restart repeat them; limited by READER_STATE_MOST. 0: none */
        uint32_t remember;
        usec leave_timeout; /* how long the last SAVE of a withdrawn track may be retried. 0: 5 s */
};
enum { READER_STATE_MOST = 256 << 10 };

enum reader_job_kind {
        /* May this worker read the track? ERROR_CONFLICT: another worker reads it. That is no failure: the
         * state is SOURCE_STANDBY, and the job is repeated after the back-off or retry_after. */
        READER_CLAIM,
        READER_LOAD, /* loads what the last SAVE stored; done with that state, n 0: none */
        /* Fills the page. Done with the mark after it; n 0: that of its last record. */
        READER_FETCH,
        READER_SAVE, /* ERROR_CONFLICT: another worker saves this track, so it is lost */
        /* Gives back records that are undone when the track leaves or drops them, while the lease still runs,
         * so that others need not wait for its end. Tried once; done and failed mean the same. */
        READER_RETURN,
        READER_CANCEL, /* end the track's CLAIM, LOAD or FETCH soon, its result is not needed; CANCEL itself
                          is not reported as done */
        /* The last job of a track, when no other is in flight: release the claim, free own. Done and failed
         * mean the same: the track is removed. */
        READER_LEAVE,
        READER_JOB_MAX,
};
const char *reader_job_name(enum reader_job_kind); /* "fetch": for texts and metrics */

/* All pointers are borrowed until the job ends. The struct itself may be copied. */
struct reader_job {
        enum reader_job_kind kind;
        uint32_t track;
        void *own; /* the source's data of that track */
        struct str name;
        uint32_t records;        /* FETCH: how many can be lent at once; more wait in the page */
        size_t bytes;            /* FETCH: the approximate page size to ask for */
        struct str mark;         /* FETCH: resume after it, n 0: at the start; SAVE: all up to it is done */
        struct str state;        /* SAVE: what to store for LOAD: the mark, and the remembered ids */
        const struct str *marks; /* RETURN, SAVE with marks_most: the marks since the last SAVE, in order */
        size_t marks_n;
        struct page *page; /* FETCH: to fill */
        usec give_up_at;   /* SAVE, RETURN: pointless after this time (monotonic); USEC_NEVER: no limit */
        bool lost;         /* LEAVE: another worker has the track, or may have */
};

/* ---- life --------------------------------------------------------------- */

/* seed: for jitter, and for hash tables of what peers send. */
int reader_new(struct reader **, const struct reader_config *, uint64_t seed, struct error *) MUST_CHECK;
/* All records must have been released. Jobs in flight must not be reported any more. NULL is fine; returns
 * NULL. */
struct reader *reader_free(struct reader *);
/* Withdraws all tracks; PULL_CLOSED follows when the last one has left. */
void reader_stop(struct reader *);

/* Adds a track. The name is copied; own belongs to the source until LEAVE. ERROR_EXISTS: there is a track of
 * this name, which may be leaving. Numbers are reused after LEAVE. */
int reader_add(struct reader *, struct str name, void *own, uint32_t *track, struct error *) MUST_CHECK;
/* The track has no more data: what was fetched, or is being fetched, is delivered and saved; then the track
 * leaves. */
void reader_end(struct reader *, uint32_t track);
/* Another worker takes over the track: nothing more is sent, deliveries in flight may finish until give_up_at
 * (monotonic) and are saved, then the track leaves. 0: the track is lost already, nothing is saved. May be
 * called again with an earlier time. */
void reader_withdraw(struct reader *, uint32_t track, usec give_up_at);
/* Ends the track's pause, since there may be something to read; a pause that the peer asked for goes on. */
void reader_hurry(struct reader *, uint32_t track);
/* The same for all jobs that wait because they failed: their cause may be mended. */
void reader_retry(struct reader *);

/* ---- jobs --------------------------------------------------------------- */

bool reader_next(struct reader *, usec now, struct reader_job *); /* until false */
/* Each job except CANCEL ends with exactly one of the two. mark: for FETCH and LOAD, see there; copied. */
void reader_done(struct reader *, const struct reader_job *, struct str mark, usec now);
void reader_failed(struct reader *, const struct reader_job *, const struct error *, usec now);

/* Appends the next record to a page. id and mark are copied; mark n 0: reading can't resume right after this
 * record. The source fills in time, key, value and origin; pinned may stay 0. NULL: skip this record: it is a
 * duplicate, or the page has failed, for example out of memory, which reader_done will see. */
struct record *page_record(struct page *, struct str id, struct str mark);
/* Memory for keys and values, valid until the record is released or detached. NULL: the page has failed. */
char *page_bytes(struct page *, size_t) MUST_CHECK;
/* Memory for origin only, valid until the record is released. Aligned for any type. */
void *page_keep(struct page *, size_t) MUST_CHECK;
/* Copies the text of a JSON value into the page: into page_bytes, or, for origin, into page_keep. p NULL: the
 * value is absent, or the page has failed. */
struct str page_text(struct page *, struct json_value);
struct str page_text_beside(struct page *, struct json_value);
bool page_failed(const struct page *);
/* Fails the page: the source is out of memory. */
void page_no_memory(struct page *);

/* ---- what a source tells ------------------------------------------------ */

/* How many records follow the last page, according to the peer; negative: unknown. */
void reader_behind(struct reader *, uint32_t track, int64_t records);
/* Reports a failure of the source as a whole, such as that the tracks can't be listed. NULL: it is over. */
void reader_trouble(struct reader *, const struct error *);
/* Sets a reason that is shown although nothing fails: with CONNECTING while there is no track to read, or
 * with CONNECTED. format NULL: none. */
void reader_remark(struct reader *, enum source_state, const char *format, ...) PRINTF(3, 4);
/* Gives a warning (port/notice.h) with a reason such as "CursorReset". Until it is taken, warnings of the
 * same reason are counted together. */
void reader_warn(struct reader *, const char *reason, const char *format, ...) PRINTF(3, 4);
/* The same, counted so many times; 0: no warning. */
void reader_warn_of(struct reader *, uint64_t times, const char *reason, const char *format, ...)
        PRINTF(4, 5);
/* The same, for records of a track that were lost at the peer, before they could be fetched. */
void reader_gone(struct reader *, uint32_t track, uint64_t records, const char *reason, const char *format,
                 ...) PRINTF(5, 6);
bool reader_warned(struct reader *, struct notice *); /* takes one, valid until the next call; false: none */

/* ---- what the pipeline asks of a source (pull.h) ----------------- */

size_t reader_poll(struct reader *, struct pull_event *, size_t max, usec now);
/* When to call reader_poll and reader_next again: at once if it is in the past; USEC_NEVER: not by time. */
usec reader_deadline(const struct reader *);
void reader_credit(struct reader *, uint32_t track, uint32_t records, size_t bytes);
void reader_release(struct reader *, struct record *); /* takes */
bool reader_detach(struct reader *, struct record *);  /* false: out of memory */
void reader_commit(struct reader *, uint32_t track, uint64_t next);
void reader_revoked(struct reader *, uint32_t track);
int64_t reader_lag(const struct reader *); /* uncommitted records, and those not fetched; -1: unknown */
/* Records that were lent and released, but not saved. */
int64_t reader_unsaved(const struct reader *);
/* There were tracks, and all of them have ended and left. */
bool reader_drained(const struct reader *);

struct reader_stats {
        uint32_t tracks, unread, out; /* currently: tracks; fetched records not lent; lent records */
        size_t page_bytes;            /* currently, of all pages */
        uint64_t records, duplicates; /* fetched; left out as duplicates */
        uint64_t jobs[READER_JOB_MAX], failed[READER_JOB_MAX];
        uint64_t let_go; /* records dropped at the end of a lease */
};
void reader_stats(const struct reader *, struct reader_stats *);
