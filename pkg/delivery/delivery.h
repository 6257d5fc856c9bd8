/* The delivery engine: everything between a record and a function, sans-I/O. It does no I/O, reads no clock,
 * starts no thread, calls nobody back and has no globals. Inputs are calls; outputs are actions, pulled until
 * there are none. It owns the records it was offered until it hands them out in ACTION_SETTLE. One thread.
 *
 * A track (partition, shard, stream) is the unit of commit; a lane the unit of order: the whole track
 * (Partition), hash(key) % lanes (Key), or none: each batch for itself (None). In an ordered lane one batch
 * is in flight at a time.
 *
 * A batch may be sent in parts: the records from its start up to what is known to be taken. What is accepted
 * leaves it; what must be sent again stays, in an ordered lane together with all behind it. Dead letters go
 * one record at a time. */
#pragma once

#include "base/clock.h"
#include "base/error.h"
#include "record/policy.h"
#include "record/record.h"

struct delivery;

struct delivery_config {
        enum ordering ordering;
        uint32_t max_in_flight; /* requests at once */
        /* requests at once before the sink has shown what it can; 0: max_in_flight */
        uint32_t initial_in_flight;
        /* events a second, and how many at once after a rest; rate 0: no limit */
        int64_t rate, burst;
        /* lent at once, all tracks; at least max_in_flight * batch_records */
        uint32_t max_records;
        size_t max_bytes;       /* pinned at once, all tracks */
        uint32_t key_lanes;     /* per track, for Key */
        uint32_t batch_records; /* 1: no batching */
        size_t batch_bytes;     /* of pinned bytes; a single record may exceed it */
        usec batch_wait;
        usec timeout;          /* of one attempt */
        uint32_t max_attempts; /* 0: no limit */
        usec max_event_age;    /* since the engine got it; 0: no limit */
        usec initial_backoff, max_backoff, retry_after_max;
        bool linear_backoff; /* grows by initial_backoff an attempt instead of doubling */
        /* a batch that the function fails on is halved until the record at fault is alone */
        bool bisect;
        enum on_exhausted on_exhausted;
        usec commit_interval;  /* a commit waits at most this long */
        uint32_t commit_count; /* or for this many settled */
};

enum answer_kind {
        ANSWER_ACCEPTED,
        ANSWER_RETRY,   /* may succeed later */
        ANSWER_FINAL,   /* no further attempt; on_exhausted decides */
        ANSWER_PARTIAL, /* accepted but for some records, which are sent again: failed */
        /* the batch did not go out: smaller ones do; final for a record alone */
        ANSWER_TOO_LARGE,
};
struct answer {
        enum answer_kind kind;
        int status;       /* HTTP; 0: none */
        usec retry_after; /* 0: none */
        bool overload;    /* the sink has too much or is gone: fewer requests */
        /* the function's or network's own words; borrowed during the call, as what follows */
        const char *text;
        struct str body; /* the function's answer, for a dead letter */
        /* PARTIAL: the records' places in the batch, ascending, at least one */
        const uint32_t *failed;
        size_t failed_n;
};
/* The class of an HTTP status: 2xx accepts; 404, 408, 409, 425, 429 and 5xx are retried; 413 asks for less;
 * all else is final. */
enum answer_kind answer_kind_of(int status);
/* Is it the sink that can't, whatever the record: 408, 429, 502, 503, 504, or no answer at all (0)? */
bool answer_is_overload(int status);

enum delivery_state {
        DELIVERY_IDLE,      /* nothing to deliver, or all well */
        DELIVERY_RETRYING,  /* the last attempt failed; further ones follow */
        DELIVERY_THROTTLED, /* the sink has too much: fewer requests, or a pause */
        /* push sources: the function did not accept the last request; its caller was told */
        DELIVERY_FAILING,
        /* a final failure, or a dead letter that isn't taken, blocks a lane */
        DELIVERY_BLOCKED,
        DELIVERY_STATE_MAX,
};

enum action_kind {
        ACTION_SEND,
        ACTION_CANCEL,
        ACTION_DEAD_LETTER,
        ACTION_DETACH,
        ACTION_SETTLE,
        ACTION_CREDIT,
        ACTION_COMMIT,
        ACTION_REVOKED,
        ACTION_STATE
};
struct action {
        enum action_kind kind;
        uint32_t track; /* CREDIT, COMMIT, REVOKED */
        /* SEND, CANCEL, DEAD_LETTER: the ticket that delivery_answer takes */
        uint32_t attempt;
        /* SEND: which attempt this is, from 1; DEAD_LETTER: the attempts that failed */
        unsigned number;
        int status; /* DEAD_LETTER: of the function's last answer; 0: none */
        /* DEAD_LETTER: the last failure in words, the function's answer; borrowed until the answer */
        struct str reason, body;
        /* SEND, DEAD_LETTER: borrowed until the answer; the array until the next call */
        struct record *const *records;
        size_t n;
        struct record *record; /* DETACH (stays the engine's), SETTLE (the receiver's now) */
        enum outcome outcome;  /* SETTLE */
        uint32_t credit;
        size_t bytes;              /* CREDIT */
        uint64_t position;         /* COMMIT: every position below is done */
        enum delivery_state state; /* STATE */
        const char *text;          /* STATE: why; borrowed until the next call */
};

struct delivery_stats {
        uint64_t offered, accepted, dropped, dead_lettered, filtered, released;
        uint64_t attempts, failures;
        uint32_t tracks, held, in_flight, waiting; /* now: records held; requests; batches in back-off */
        uint32_t limit;                            /* requests at once that the sink is trusted with now */
        size_t held_bytes;
        enum delivery_state state;
};

int delivery_new(struct delivery **, const struct delivery_config *, uint64_t seed,
                 struct error *) MUST_CHECK;
/* What it still holds must have been taken out by revoking every track. NULL is fine; returns NULL. */
struct delivery *delivery_free(struct delivery *);
int delivery_assign(struct delivery *, uint32_t track, usec now, struct error *) MUST_CHECK;
/* Ends a track: nothing new is sent; what is in flight may finish until give_up_at and is committed, then
 * ACTION_REVOKED. give_up_at 0: lost: nothing is committed and what is in flight is cancelled. May be called
 * again to shorten. */
void delivery_revoke(struct delivery *, uint32_t track, usec give_up_at);
void delivery_offer(struct delivery *, struct record *, usec now); /* takes */
/* The same for a record that is not to be delivered: it is settled as OUTCOME_FILTERED, and committed in its
 * turn. */
void delivery_skip(struct delivery *, struct record *, usec now);
/* While held nothing is sent but dead letters: the way out is not ready. */
void delivery_hold(struct delivery *, bool held);
/* Below max_in_flight, and of no other attempt that is under way. */
static inline uint32_t delivery_slot(uint32_t attempt) { return attempt & 0xffff; }
/* a stale attempt is ignored */
void delivery_answer(struct delivery *, uint32_t attempt, const struct answer *, usec now);
bool delivery_next(struct delivery *, usec now, struct action *); /* call until false */
/* call delivery_next again then; USEC_NEVER */
usec delivery_deadline(const struct delivery *);
void delivery_stats(const struct delivery *, struct delivery_stats *);
/* Bounds that hold at each moment: requests <= max_in_flight; records lent or in credit <= max_records +
 * tracks; bytes lent or in credit <= max_bytes plus one record a track. A record of a track that is revoked
 * or unknown is handed back as OUTCOME_RELEASED. */
