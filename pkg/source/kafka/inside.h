/* Inside pkg/source/kafka: the source's own data, and what its files do for each other: kafka.c configures,
 * lends and ends, group.c asks whether the group has begun before, assignment.c keeps partitions and where
 * each goes on, commit.c commits, lag.c tells how far behind each is, state.c serves the consumer's queue and
 * says how the source is, shape.c writes records. Loop's thread. */
#pragma once

#include <librdkafka/rdkafka.h>

#define HASH_NONFATAL_OOM 1 /* what finds no memory is not in its table: hh.tbl is NULL */
#include "base/list.h"
#include "base/table.h"
#include "kafka/access.h"
#include "kafka/client.h"
#include "kafka/trial.h"
#include "source/kafka/done.h"
#include "source/kafka/kafka.h"
#include "source/kafka/positions.h"

/* After which a commit that failed, or a question about positions, is tried again. */
#define KAFKA_AGAIN USEC_SEC
/* How long a question about positions, or a commit, may be under way before that is told. */
#define KAFKA_PATIENCE (5 * USEC_SEC)

struct message { /* a record of ours */
        struct record record;
        struct message *free_next;
        struct list_node node; /* of those of its partition that are lent */
        struct partition *partition;
        rd_kafka_message_t *native;  /* NULL once detached */
        rd_kafka_headers_t *headers; /* NULL: none; the native message's, ours when it is detached */
        bool headers_known;          /* message_headers() has looked */
        int64_t timestamp;           /* the broker's, in milliseconds, whatever the producer wrote */
        usec lent_at;                /* wall; where the broker has no time for it */
        char *copy;
        char id[];
};

struct partition {
        struct kafka *source;
        uint32_t track;
        char *topic;
        int32_t number;
        rd_kafka_queue_t *queue; /* NULL: not assigned */
        _Atomic bool readable;   /* set by librdkafka's thread: something came into an empty queue */
        bool away;               /* its broker is, as the last statistics say, and nothing has come since */
        bool fresh;              /* it came into an empty queue, so that its broker has just sent it */
        bool more;               /* the last read stopped for lack of credit, not of messages */
        bool at_end;             /* all there was has been read */
        bool tell_assigned, tell_leaving, leaving, lost, left;
        bool unplaced; /* where to go on is being asked */
        bool ready;    /* that is known, and reading has yet to begin there */
        bool told;     /* the pipeline was told of it, and may have records of it */
        bool again;    /* it begins anew once the pipeline let it go: its offsets went back */
        /* its topic is said not to exist: what is committed would count for another one of the same name */
        bool gone;
        bool released; /* not all that was lent was settled: the end may not be committed */
        int64_t credit, bytes;
        uint32_t lent;
        struct list out;  /* those that are lent, in the order of the log */
        struct done done; /* what is above wanted, and does not come again */
        /* Records that are done and go into no commit yet; by when those behind one that is not are committed
         * all the same. */
        uint32_t done_n;
        usec done_at;     /* 0: nothing has been done since */
        int64_t position; /* the next offset to be read; -1: unknown */
        /* behind the last record that was lent; the engine commits up to there. -1: none was */
        int64_t lent_to;
        int64_t end;       /* as it was last asked for; -1: unknown */
        int64_t committed; /* as far as we know; -1: unknown */
        int64_t wanted;    /* to be committed; -1: nothing was yet */
        bool committing;
        /* is what was committed still there? Nothing is committed until that is known */
        bool doubted;
        usec trusted_at;         /* when the broker last knew it */
        usec ask_at, commit_at;  /* not before: the broker refused this one */
        rd_kafka_resp_err_t why; /* its positions are not known, which holds up no other; 0: they are */
        int64_t stopped_at; /* the position that is no more, where reading stops at that; -1: it is not */
        char *unreadable;   /* why what its broker sends can't be read; NULL: it can */
        char *key;          /* its number's bytes, then its topic */
        UT_hash_handle hh;
};

struct kafka {
        struct source source;
        const struct kafka_spec *spec;
        const struct services *services;
        struct waker_slot slot;
        struct kafka_access access;
        rd_kafka_t *rk;
        rd_kafka_queue_t *queue;       /* of the consumer: rebalances, errors, commits */
        struct partition **partitions; /* by track; never freed before the source */
        struct partition *by_key;      /* the same ones */
        uint32_t partitions_n, next_partition;
        size_t id_size;
        /* Bytes that were read since the broker's threads were woken, and after how many they are again; 0:
         * they look by themselves. */
        size_t drained, drain_most;
        struct message *spare;
        bool *missing;    /* by topic: it did not exist yet, so that what is in it came after us */
        bool established; /* the group has begun before: startPosition is for others */
        bool subscribed;
        uint32_t asked;        /* questions about the group that are under way */
        usec ask_at;           /* ask again then; 0: no */
        struct lookup *lookup; /* about partitions; NULL: none is under way */
        bool looking;          /* it is about the ends only */
        uint32_t assignment;   /* counts them, so that answers about an earlier one are known */
        uint32_t lookup_assignment;
        usec lookup_at, look_at; /* not before; for lag alone */
        bool unassign;           /* once every leaving partition has left and its commits are answered */
        bool commit_failed;      /* the last one; so that it is said once */
        uint32_t commits_under_way;
        usec commit_at; /* not before */
        /* bytes that brokers take with an offset, as far as we know; the most that they were sent */
        size_t metadata_most, metadata_sent;
        usec commit_late;     /* one that is under way is to be answered by then; 0: none is, or it is late */
        usec commit_deadline; /* while unassigning; 0: not all have left yet */
        bool fatal;           /* this consumer is done for: another one is made */
        struct kafka_trial *trial; /* of certificates that have changed; NULL: none is under way */
        usec try_at;               /* 0: no */
        char refused[300];         /* why they are of no use; empty: they are */
        bool renewing;             /* the consumer is closed for another one with them */
        usec reopen_at;            /* 0: not yet */
        struct random random;
        char trouble[480];            /* what a broker connection said; counts only if partitions lie there */
        const struct partition *away; /* the first that is away; NULL: none */
        uint32_t unreadable_n;        /* partitions that can't be read */
        char silence[160];            /* what was not answered in time, or at all; empty: nothing */
        bool leaderless;              /* by those a partition has no leader: one may be elected soon */
        bool silent;                  /* by those a leader owes an answer that is long due */
        uint32_t statistics;          /* that were passed over, since nothing was amiss */
        bool stopping, close_asked, closing, closed, told_closed;
        struct helper *helper; /* for calls of librdkafka that block */
        struct closer *closer; /* of the consumer that is open */
        usec close_by;         /* it is waited for no longer; 0: it is not closed yet */
        bool destroyed;
        enum source_state state;
        bool state_changed;
        usec now;
        char text[480];
        char told[480]; /* as it was when the state was told: it may change before that is read */
};

extern const struct shape kafka_shape;

/* The reasons of notices. */
#define KAFKA_EXPIRED "RecordsExpired"
#define KAFKA_RESET "PositionReset"
#define KAFKA_ADDED "PartitionAdded"
#define KAFKA_STOPPED "ReadingStopped"

static inline struct kafka *kafka_of(const struct source *s) { return CONTAINER_OF(s, struct kafka, source); }

/* kafka.c */
void kafka_set_state(struct kafka *s, enum source_state state, const char *text);
int kafka_subscribe(struct kafka *s, struct error *err);

/* group.c. Asks whether the group has begun before; told: by the events that answer. */
void group_ask(struct kafka *s);
void group_told(struct kafka *s, rd_kafka_event_t *event);

/* assignment.c. Unknown: the topic or partition is, which holds up no other, so that it is set aside. */
struct partition *partition_get(struct kafka *s, const char *topic, int32_t number);
void partition_free(struct partition *p);
void partition_drop(struct partition *p);
/* Takes the words, which may be NULL. */
void partition_set_unreadable(struct partition *p, char *why);
void assignment_revoking(struct kafka *s, bool lost);
bool kafka_is_unknown(rd_kafka_resp_err_t r);
bool partition_set_aside(const struct partition *p);
bool kafka_reads_any(const struct kafka *s);
const struct partition *kafka_troubled(const struct kafka *s);
void kafka_set_reading(struct kafka *s);
void partition_put_aside(struct kafka *s, struct partition *p, rd_kafka_resp_err_t why);
void assignment_advance(struct kafka *s);
void assignment_rebalance(struct kafka *s, rd_kafka_event_t *event);

/* commit.c. wanted: there is something to commit; end: of a partition of which all is done; done: so is that
 * record. */
bool commit_wanted(const struct partition *p);
usec commit_done_deadline(const struct partition *p);
void commit_done(struct kafka *s, struct partition *p, int64_t offset);
void commit_send(struct kafka *s);
void commit_up_to(struct kafka *s, struct partition *p, int64_t next);
void kafka_commit(struct source *source, uint32_t track, uint64_t next);
void commit_answered(struct kafka *s, rd_kafka_event_t *event);
void commit_end(struct kafka *s, struct partition *p);
void commit_finish_revoking(struct kafka *s);

/* lag.c */
bool kafka_track_lag(const struct source *, uint32_t *at, struct track_lag *);
int64_t kafka_lag(const struct source *);

/* state.c. fatal: the consumer is done for, and another one is made. */
void state_fatal(struct kafka *s, const char *text);
void state_serve(struct kafka *s);
/* Positions could not be asked for, or committed: told until one of both is answered, however well the rest
 * looks. */
void state_unanswered(struct kafka *s, const char *what, rd_kafka_resp_err_t why);
void state_answered(struct kafka *s);
/* Its broker has just sent something of it. */
void state_heard(struct kafka *s, struct partition *p);
/* What its broker sends can't be read, and is asked for again and again: told until something of it is read,
 * whatever else is. */
void state_unreadable(struct kafka *s, struct partition *p, const char *why);
void state_readable(struct kafka *s, struct partition *p);

/* shape.c. From the broker's milliseconds. */
usec message_time(int64_t timestamp);
/* Looked at once, and only when they are asked for: when there are none, librdkafka looks again each time,
 * and allocates for it. NULL: none. */
rd_kafka_headers_t *message_headers(struct message *);
