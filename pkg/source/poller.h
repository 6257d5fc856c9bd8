/* A poller is a reader whose jobs are calls of a cloud service: what a source asks, how it reads the answer
 * and what a refusal means are pure functions of its own (struct poller_ops), and all that is between them is
 * here: one call after the other for a job, pauses, positions that the Trigger's store keeps, the list of
 * tracks asked for again. CONTRIBUTING.md walks through a source that is written so.
 *
 * It owns the reader and the calls under way; the calls are made through a port. Loop's thread. */
#pragma once

#include "base/buf.h"
#include "base/random.h"
#include "huawei/refusal.h"
#include "source/reader.h"
#include "source/share.h"
#include "source/source.h"

struct poller;

/* What is asked, filled in by ask; empty before. */
struct cloud_request {
        const char *method; /* "GET" unless it is set */
        struct buf path;    /* percent-encoded; "{project_id}" stands for the account's */
        struct buf query;   /* without ?: use poller_query */
        struct buf body;    /* JSON; empty: none */
        struct buf what;    /* "records of partition 3": for errors */
        usec timeout;       /* 0: the port's */
};
/* Appends NAME=VALUE, encoded, and an & before it where it is not the first. */
void poller_query(struct cloud_request *, const char *name, struct str value);
void poller_query_int(struct cloud_request *, const char *name, int64_t value);

/* A call, owned by the poller. From start on the request is borrowed until poller_call_ended or cancel. */
struct poller_call {
        const char *service;
        struct cloud_request request;
        /* What came of it: */
        int status;                 /* 0: there was no answer, and error says why */
        struct buf answer;          /* the body; may be swapped in */
        struct cloud_error refusal; /* where status is no 2xx; otherwise CLOUD_DONE */
        struct error error;
        void *port; /* the port's own */
        struct poller *poller;
        struct poller_call *next;
        bool busy;
};
/* How calls are made: pkg/huawei's, or a script. */
struct poller_port {
        void (*start)(void *cookie, struct poller_call *);
        void (*cancel)(void *cookie, struct poller_call *); /* it does not end any more */
        void *cookie;
};
/* The port: what came of the call is filled in. Wakes the poller; never calls it back. */
void poller_call_ended(struct poller_call *);

enum poller_step {
        POLLER_FAILED = -1, /* error says why */
        POLLER_DONE,
        POLLER_AGAIN, /* another call belongs to this job: ask, at once */
};

/* What the account of its calls warns of: for the list of each kind of source that has one. */
#define SOURCE_REGION_UNKNOWN "RegionUnknown"
#define SOURCE_ACCOUNT_WARNING WARNING(SOURCE_REGION_UNKNOWN)

/* None does I/O or waits. p is the first member of the source's own struct. */
struct poller_ops {
        const char *service; /* "dis": its endpoint, limit and codes */
        /* LOAD and SAVE are the store's, under the track's name; otherwise ask makes calls of them. */
        bool stored;
        /* Asks for the list of tracks, or its next part. Optional: there is one track, named by service,
         * or those that the source added itself when it was opened. */
        void (*discover)(struct poller *, struct cloud_request *);
        /* reader_add for each that is new (ERROR_EXISTS is none), reader_end for those that end. */
        enum poller_step (*discovered)(struct poller *, struct str body, struct error *);
        /* Optional: what a refusal means when it is no failure. Sixteen in a row are one. */
        enum poller_step (*discover_refused)(struct poller *, const struct cloud_error *, struct error *);
        /* Each track has one reader among the Trigger's workers: the services' claims say which. */
        bool claimed;
        /* LOAD, FETCH, SAVE, RETURN, as far as the configuration has them. */
        void (*ask)(struct poller *, const struct reader_job *, struct cloud_request *);
        /* FETCH: page_record for each; FETCH and LOAD: poller_mark before POLLER_DONE. */
        enum poller_step (*answered)(struct poller *, const struct reader_job *, struct str body,
                                     struct error *);
        /* Optional: what a refusal means when it is no failure, such as a cursor that must be renewed. The
         * error is filled in already. */
        enum poller_step (*refused)(struct poller *, const struct reader_job *, const struct cloud_error *,
                                    struct error *);
        void (*left)(struct poller *, void *own); /* optional: frees own, at the track's end */
        void (*done)(struct poller *); /* optional, at the end: frees what the source's own struct holds */
};

struct poller_config {
        struct reader_config reader;    /* its backoff_min 0: 200 ms, backoff_max 0: 10 s */
        usec discover_interval;         /* between two lists of tracks; after a failure backoff_max at most */
        const struct cloud_spec *cloud; /* where calls go, and as whom; NULL: all by default */
        struct poller_port port;        /* of tests; otherwise calls are made as cloud says */
        uint64_t seed;                  /* 0: one at random */
};

struct errand;
struct source_account;
struct poller {
        struct source source; /* the first member */
        const struct poller_ops *ops;
        const struct services *services;
        struct reader *reader;
        struct poller_config config;
        struct source_account *account;        /* of its calls; NULL: they are made by another port */
        struct errand *free_errands, **places; /* by track: the one that saves, and the one that reads */
        uint64_t places_n;
        struct poller_call discovery, *ended, **ended_last;
        struct list stored; /* what the store has done */
        struct errand *busy;
        struct buf mark;
        struct random random;
        usec discover_at, discover_by; /* by: sooner, as the source wished; 0: it did not */
        unsigned discover_failures, discover_refusals;
        struct share share;    /* of the claims */
        bool stopping, closed; /* closed: but for the claims that are released still */
};

/* Takes the source's own struct, which is of the heap and zeroed but for what is its own, and frees it at the
 * end, and where this fails, too. services: borrowed until it is closed. */
int poller_open(struct poller *, const struct poller_ops *, const struct poller_config *,
                const struct services *, struct error *) MUST_CHECK;
/* For the kind's check: can calls be made as that says? */
int poller_check(const struct cloud_spec *, const char *service, const struct services *,
                 struct error *) MUST_CHECK;
/* Cancels what is under way, and frees all; for an open that fails later. Returns NULL. */
struct source *poller_close(struct poller *);
/* The mark behind the page (FETCH), or the state (LOAD); copied. */
void poller_mark(struct poller *, struct str);
/* The list of tracks is asked for again by then, not only after its interval. */
void poller_discover_by(struct poller *, usec at);
usec poller_time(int64_t msec);          /* of an answer, for a record; 0: there is none, or it can't be */
usec poller_wall(const struct poller *); /* for questions about a time; 0 in poller_answer */

/* The pull side of every source that polls. */
extern const struct pull_ops poller_pull;
/* For messages that are acknowledged one by one: the reader hears of each at once. */
extern const struct pull_ops poller_pull_at_once;

/* For a shape's sample: a record read from an answer that says what a document says, by what reads all
 * answers, in a page of its own. Pure; any thread. */
/* A page to fill. NULL: out of memory, or the document has other members than known (shape_members). */
struct page *poller_sample_begin(const struct node *document, const char *known, struct error *) MUST_CHECK;
/* Takes the page; the record is its first. filled: 0, or -1 when the error says why it is not. */
int poller_sample_end(struct page *, int filled, struct record **, struct error *) MUST_CHECK;
void poller_sample_free(struct record *); /* the shape's sample_free */
/* A member with what the document says under a name; nothing, or null: otherwise, NULL: no member. */
void poller_sample_member(struct writer *, const char *key, const struct node *document, const char *name,
                          const char *otherwise);
/* The text of a string, the JSON of anything else; nothing of null. */
void poller_sample_text(const struct node *, struct buf *);

/* For tests and fuzz targets: one answer to a job of this kind, without services; each record's bytes are
 * read. p: zeroed, or with what answered needs. How many records it had; negative: it failed. */
int64_t poller_answer(struct poller *, const struct poller_ops *, enum reader_job_kind, void *own,
                      struct str body, struct error *);
/* The same of records; each is shown, where none has failed. */
int64_t poller_records(struct poller *, const struct poller_ops *, void *own, struct str body,
                       void (*each)(const struct record *), struct error *);
