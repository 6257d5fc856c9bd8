/* The reader stands under every source that fetches. It is sans-I/O: it does no I/O, reads no clock, starts
 * no thread, calls nobody back and has no globals. Work comes out as jobs, pulled until there are none, and
 * each job's end goes back in; so the simulator drives the very same code. One thread: the loop's.
 *
 * It owns the tracks, the pages that were fetched and the records in them, and it keeps for every source
 * alike: credit, order, what is settled and what is saved, pauses and back-off, ids that overlapping queries
 * bring again, leases, revocation and the orderly end. A source on it is only its jobs.
 *
 * A track's life: CLAIM (may I read it?), LOAD (where did it stand?), then FETCH and SAVE until it ends or is
 * withdrawn, the last SAVE, and LEAVE. Of one track at most one job that reads (CLAIM, LOAD, FETCH) and one
 * that saves are under way at once.
 *
 * Positions are the reader's own, counted from 1 in each track. What a source resumes by is its mark: a
 * sequence number, a time, a token; a string that only the source reads.
 *
 * Running out of memory never aborts: it becomes a job that failed and is handed out again. Each call costs
 * the logarithm of the number of tracks, besides what it does for each record. */
#pragma once

#include "base/error.h"
#include "json/members.h"
#include "port/notice.h"
#include "source/pull.h"

struct reader;
struct page;

struct reader_config {
        bool claims, loads; /* there is a CLAIM and a LOAD job; otherwise a track begins with what follows */
        /* What one FETCH is asked for, in bytes; a track holds at most one page that was not lent wholly. */
        size_t page_bytes;
        /* A page that takes more fails its FETCH, with an error that says so. 0: 4 * page_bytes */
        size_t page_most;
        /* The pause after a page without records; it doubles from poll_min to poll_max while the track brings
         * none. */
        usec poll_min, poll_max;
        /* All tracks read the same, as several hands of one queue do: one FETCH at a time, and the pause
         * after one that was empty or failed holds for all. */
        bool shared;
        /* The pause after a job that failed: full jitter. What the peer asked for (error.retry_after) wins,
         * up to an hour; an error that a retry can't help waits for backoff_max. */
        usec backoff_min, backoff_max;
        /* From one SAVE of a track to the next; a track that leaves saves at once. */
        usec save_interval;
        /* The same for a mark that moved without a record. 0: it is saved with the next record only */
        usec idle_save_interval;
        /* No FETCH while so many records of the track wait to be saved: what is repeated after a crash, at
         * most. 0: 100,000 */
        uint32_t unsaved_most;
        /* SAVE carries the mark of every record, at most so many at once. 0: only the last mark */
        uint32_t marks_most;
        /* Fetched records are somebody else's after so long, such as a queue's messages that were not
         * acknowledged: the track lets go of all it has, and begins again. attempt: how long before that it
         * stops to send, since the answer would come too late. 0: no lease */
        usec lease, attempt;
        /* With a lease, and shared: one FETCH asks for no more than can be done within it. It begins with
         * what goes in one request, asks for so many more after each page that was done in less than half of
         * the time, up to records_most, and for fewer after one that took longer. Once records were let go,
         * one FETCH asks for one, while no track has any, until a page was done in time. 0: for all there is
         * credit for */
        uint32_t records_together, records_most;
        bool returns;              /* with marks_most: there is a RETURN job */
        const char *let_go_reason; /* under which records that are let go are told; NULL: they are not */
        /* Of so many records below the mark the ids are saved with it, so that overlapping queries and a
         * restart repeat none of them. 0: none. As many as fit into READER_STATE_MOST. */
        uint32_t remember;
        usec leave_timeout; /* how long the last SAVE of a track that was withdrawn may be tried. 0: 5 s */
};
enum { READER_STATE_MOST = 256 << 10 };

enum reader_job_kind {
        /* May this worker read the track? ERROR_CONFLICT: somebody else does, which is no failure:
         * SOURCE_STANDBY, and asked again after the back-off, or what retry_after says. */
        READER_CLAIM,
        READER_LOAD, /* what the last SAVE stored; done with its state, n 0: there is none */
        /* Fills the page. Done with the mark behind it, n 0: that of its last record. */
        READER_FETCH,
        READER_SAVE, /* ERROR_CONFLICT: somebody else saves: the track is lost */
        /* The marks of records that were not done when the track left, or let go of them, and that are ours
         * still: others need not wait until they are not. Once, and done and failed are the same. */
        READER_RETURN,
        READER_CANCEL, /* the track's CLAIM, LOAD or FETCH is not wanted any more: end it soon. Ends by
                          itself. */
        /* The last of a track, when no other is under way: give up the claim, free own. Done and failed are
         * the same; the track is no more. */
        READER_LEAVE,
        READER_JOB_MAX,
};
const char *reader_job_name(enum reader_job_kind); /* "fetch": for texts and metrics */

/* Everything is borrowed until the job ends; a copy of the struct will do. */
struct reader_job {
        enum reader_job_kind kind;
        uint32_t track;
        void *own; /* the source's data of that track */
        struct str name;
        uint32_t records; /* FETCH: so many can go on at once; what is more waits in the page */
        size_t bytes;     /* FETCH: of the page, about */
        struct str mark;  /* FETCH: go on after it, n 0: from the start; SAVE: everything up to it is done */
        struct str
                state; /* SAVE: what is to be stored and LOAD brings back: the mark, and the ids remembered */
        const struct str *marks; /* RETURN, and SAVE with marks_most: those of all records since the last
                                    SAVE, in order */
        size_t marks_n;
        struct page *page; /* FETCH: to fill */
        usec give_up_at;   /* SAVE, RETURN: of no use afterwards (monotonic); USEC_NEVER */
        bool lost;         /* LEAVE: another one has the track, or may have */
};

/* ---- life --------------------------------------------------------------- */

/* seed: of the jitter, and of the tables that hold what peers send. */
int reader_new(struct reader **, const struct reader_config *, uint64_t seed, struct error *) MUST_CHECK;
/* Every record must have been released; jobs under way end nowhere any more. NULL is fine; returns NULL. */
struct reader *reader_free(struct reader *);
/* Every track is withdrawn; PULL_CLOSED when the last one has left. */
void reader_stop(struct reader *);

/* A track; the name is copied, own stays the source's until LEAVE. ERROR_EXISTS: there is one of this name,
 * which may be leaving. A number is used again after LEAVE. */
int reader_add(struct reader *, struct str name, void *own, uint32_t *track, struct error *) MUST_CHECK;
/* No more data comes: what is there is delivered and saved, and the track leaves. A page that is being
 * fetched still counts. */
void reader_end(struct reader *, uint32_t track);
/* The track goes elsewhere: nothing new is sent, what is in flight may finish until give_up_at (monotonic)
 * and is saved, and the track leaves. 0: it is lost already: nothing is saved. May be called again to
 * shorten. */
void reader_withdraw(struct reader *, uint32_t track, usec give_up_at);
/* What the track waits for may be there: its pause is over, but for one that the peer asked for. */
void reader_hurry(struct reader *, uint32_t track);

/* ---- jobs --------------------------------------------------------------- */

bool reader_next(struct reader *, usec now, struct reader_job *); /* until false */
/* Each job but CANCEL ends in one of the two, once. mark: of FETCH and LOAD, see there; copied. */
void reader_done(struct reader *, const struct reader_job *, struct str mark, usec now);
void reader_failed(struct reader *, const struct reader_job *, const struct error *, usec now);

/* The next record of a page, in order; id and mark are copied (mark n 0: nobody can
 * go on right after this one). The
 * source fills in time, key, value and origin; pinned may be left 0. NULL: nothing to fill in: the id was
 * delivered before, or the page has failed, as for want of memory: go on, reader_done sees it. */
struct record *page_record(struct page *, struct str id, struct str mark);
/* Room for keys and values: until the record is released, or detached. NULL: the page has failed. */
char *page_bytes(struct page *, size_t) MUST_CHECK;
/* Room for what origin points to, and only that: until the record is released. Aligned for any type. */
void *page_keep(struct page *, size_t) MUST_CHECK;
/* What a value of an answer says, there (page_bytes), and beside it, for what origin points to (page_keep). p
 * NULL: it is not there, or the page has failed. */
struct str page_text(struct page *, struct json_value);
struct str page_text_beside(struct page *, struct json_value);
bool page_failed(const struct page *);
/* There was none for what a record is made of, either: the page has failed. */
void page_no_memory(struct page *);

/* ---- what a source tells ------------------------------------------------ */

/* How many records stand behind the last page, as the peer says; negative: unknown. */
void reader_behind(struct reader *, uint32_t track, int64_t records);
/* What is wrong with all of it, such as that the list of its tracks can't be read. NULL: nothing any more. */
void reader_trouble(struct reader *, const struct error *);
/* What there is to say though nothing is wrong: the reason of CONNECTING, told as long as no track is left
 * to read, or of CONNECTED. format NULL: nothing any more. */
void reader_remark(struct reader *, enum source_state, const char *format, ...) PRINTF(3, 4);
/* Something befell the source (port/notice.h), under a reason such as "CursorReset". Until it is taken, the
 * same again is counted with it. */
void reader_warn(struct reader *, const char *reason, const char *format, ...) PRINTF(3, 4);
/* So often; 0: not at all. */
void reader_warn_of(struct reader *, uint64_t times, const char *reason, const char *format, ...)
        PRINTF(4, 5);
/* The same, of records of a track that the peer had and that are gone: they were never fetched. */
void reader_gone(struct reader *, uint32_t track, uint64_t records, const char *reason, const char *format,
                 ...) PRINTF(5, 6);
bool reader_warned(struct reader *, struct notice *); /* takes one, until the next is taken; false: none */

/* ---- what the pipeline asks of a source (pull.h) ----------------- */

size_t reader_poll(struct reader *, struct pull_event *, size_t max, usec now);
/* Poll and ask for jobs then; in the past when either has something now; USEC_NEVER. */
usec reader_deadline(const struct reader *);
void reader_credit(struct reader *, uint32_t track, uint32_t records, size_t bytes);
void reader_release(struct reader *, struct record *); /* takes */
bool reader_detach(struct reader *, struct record *);  /* false: out of memory */
void reader_commit(struct reader *, uint32_t track, uint64_t next);
void reader_revoked(struct reader *, uint32_t track);
int64_t reader_lag(const struct reader *); /* behind the last pages, and not committed; -1: unknown */
/* Lent, given back, and not saved. */
int64_t reader_unsaved(const struct reader *);
/* There were tracks, and all have ended and left. */
bool reader_drained(const struct reader *);

struct reader_stats {
        uint32_t tracks, unread, out; /* now: tracks; records in pages and not lent; lent */
        size_t page_bytes;            /* now: of all pages */
        uint64_t records,
                duplicates; /* fetched; those that were left out, since they were delivered before */
        uint64_t jobs[READER_JOB_MAX], failed[READER_JOB_MAX];
        uint64_t let_go; /* records that were given up with a lease */
};
void reader_stats(const struct reader *, struct reader_stats *);
