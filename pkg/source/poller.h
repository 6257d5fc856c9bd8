/* A poller is a reader whose jobs are calls to a cloud service. A source supplies pure functions that write a
 * request, read a response and interpret an error (struct poller_ops). The poller does the rest: it makes the
 * calls of a job one after the other, pauses, keeps positions in the Trigger's store, and lists the tracks
 * again and again. CONTRIBUTING.md walks through a source that is written so.
 *
 * It owns the reader and the calls in flight, which are made through a port. Loop's thread. */
#pragma once

#include "base/buf.h"
#include "base/random.h"
#include "huawei/refusal.h"
#include "source/reader.h"
#include "source/share.h"
#include "source/source.h"

struct poller;

/* A request; ask and discover fill it in, and get it empty. */
struct cloud_request {
        const char *method; /* "GET" unless it is set */
        struct buf path;    /* percent-encoded; "{project_id}" stands for the account's */
        struct buf query;   /* without ?: use poller_query */
        struct buf body;    /* JSON; empty: none */
        struct buf what;    /* "records of partition 3": for errors */
        usec timeout;       /* 0: the port's */
};
/* Appends NAME=VALUE, percent-encoded, after an & unless it is the first. */
void poller_query(struct cloud_request *, const char *name, struct str value);
void poller_query_int(struct cloud_request *, const char *name, int64_t value);

/* A call, owned by the poller. The port borrows the request from start until poller_call_ended or cancel. */
struct poller_call {
        const char *service;
        struct cloud_request request;
        /* The result: */
        int status;                 /* 0: there was no response; error says why */
        struct buf answer;          /* the body; the port may swap in a buffer of its own */
        struct cloud_error refusal; /* CLOUD_DONE if status is 2xx */
        struct error error;
        void *port; /* the port's own */
        struct poller *poller;
        struct poller_call *next;
        bool busy;
};
/* How calls are made: by pkg/huawei, or by a script in tests. */
struct poller_port {
        void (*start)(void *cookie, struct poller_call *);
        void (*cancel)(void *cookie, struct poller_call *); /* poller_call_ended will not be called */
        void *cookie;
};
/* For the port, once the result is filled in. Wakes the poller, and does not call back into it. */
void poller_call_ended(struct poller_call *);

enum poller_step {
        POLLER_FAILED = -1, /* the error says why */
        POLLER_DONE,
        POLLER_AGAIN, /* the job needs another call: ask again, at once */
};

/* The warning that comes from the account, for the list of warnings of each source that calls the cloud. */
#define SOURCE_REGION_UNKNOWN "RegionUnknown"
#define SOURCE_ACCOUNT_WARNING WARNING(SOURCE_REGION_UNKNOWN)

/* None of them does I/O or blocks. The poller is the first member of the source's own struct. */
struct poller_ops {
        const char *service; /* "dis": decides endpoint, rate limit and error codes */
        /* LOAD and SAVE use the Trigger's store, with the track's name as the key, instead of calls. */
        bool stored;
        /* Requests the list of tracks, or its next page. Optional: without it there is one track, named like
         * service, or those that the source added when it was opened. */
        void (*discover)(struct poller *, struct cloud_request *);
        /* Calls reader_add for new tracks (ERROR_EXISTS: it was known), and reader_end for those that end. */
        enum poller_step (*discovered)(struct poller *, struct str body, struct error *);
        /* Optional: for refusals that are no failure. Sixteen in a row fail nevertheless. */
        enum poller_step (*discover_refused)(struct poller *, const struct cloud_error *, struct error *);
        /* Each track is read by one of the Trigger's workers only, as decided by the services' claims. */
        bool claimed;
        /* For LOAD, FETCH, SAVE and RETURN, as far as the configuration enables them. */
        void (*ask)(struct poller *, const struct reader_job *, struct cloud_request *);
        /* FETCH: calls page_record for each record. FETCH and LOAD: calls poller_mark before POLLER_DONE. */
        enum poller_step (*answered)(struct poller *, const struct reader_job *, struct str body,
                                     struct error *);
        /* Optional: for refusals that are no failure, such as that of an expired cursor. The error is already
         * filled in. */
        enum poller_step (*refused)(struct poller *, const struct reader_job *, const struct cloud_error *,
                                    struct error *);
        void (*left)(struct poller *, void *own); /* optional: frees own when the track has left */
        void (*done)(struct poller *); /* optional: frees what the source's own struct holds, at the end */
};

struct poller_config {
        struct reader_config reader;    /* backoff_min 0: 200 ms, backoff_max 0: 10 s */
        usec discover_interval;         /* between lists of tracks; after a failure at most backoff_max */
        const struct cloud_spec *cloud; /* the Trigger's cloud settings; NULL: all defaults */
        struct poller_port port;        /* for tests; by default calls are made as cloud says */
        uint64_t seed;                  /* 0: random */
};

struct errand;
struct source_account;
struct poller {
        struct source source; /* the first member */
        const struct poller_ops *ops;
        const struct services *services;
        struct reader *reader;
        struct poller_config config;
        struct source_account *account;        /* makes the calls; NULL: another port does */
        struct errand *free_errands, **places; /* by track: its saving and its reading job */
        uint64_t places_n;
        struct poller_call discovery, *ended, **ended_last;
        struct list stored; /* requests that the store has completed */
        struct errand *busy;
        struct buf mark;
        struct random random;
        usec discover_at, discover_by; /* when to list next; by: as the source wishes, 0: no wish */
        unsigned discover_failures, discover_refusals;
        bool discover_asked;   /* the pause after a failure is the peer's wish */
        struct share share;    /* decides which tracks this worker reads */
        bool stopping, closed; /* closed: the reader is; claims may still be waiting to be released */
};

/* Takes ownership of the source's own struct (on the heap, zeroed except for the source's own fields), even
 * on failure. services: borrowed until the source is closed. */
int poller_open(struct poller *, const struct poller_ops *, const struct poller_config *,
                const struct services *, struct error *) MUST_CHECK;
/* For the kind's check: can calls be made with these settings? */
int poller_check(const struct cloud_spec *, const char *service, const struct services *,
                 struct error *) MUST_CHECK;
/* Cancels calls in flight and frees everything; for an open that fails later on. Returns NULL. */
struct source *poller_close(struct poller *);
/* Sets the mark after the page (FETCH), or the loaded state (LOAD); copied. */
void poller_mark(struct poller *, struct str);
/* Lists the tracks again by that time, instead of after the interval. */
void poller_discover_by(struct poller *, usec at);
usec poller_time(int64_t msec);          /* a record's time, from a response's; 0: none, or out of range */
usec poller_wall(const struct poller *); /* now, for requests that contain a time; 0 in poller_answer */

/* The pull side of every source that polls. */
extern const struct pull_ops poller_pull;
/* For messages that are acknowledged one by one: each outcome is passed to the reader at once. */
extern const struct pull_ops poller_pull_at_once;

/* For a shape's sample: the sample is written as a response of the service, and parsed by the same code as
 * any other response, into a page of its own. Pure; any thread. */
/* An empty page. NULL: out of memory, or the document has other members than known (shape_members). */
struct page *poller_sample_begin(const struct node *document, const char *known, struct error *) MUST_CHECK;
/* Takes the page, and returns its first record. filled: the parser's result, -1 with the error filled in. */
int poller_sample_end(struct page *, int filled, struct record **, struct error *) MUST_CHECK;
void poller_sample_free(struct record *); /* the shape's sample_free */
/* Writes a member with the document's value of that name. If that is missing or null: otherwise; NULL: no
 * member. */
void poller_sample_member(struct writer *, const char *key, const struct node *document, const char *name,
                          const char *otherwise);
/* Appends a string's text, or the JSON of another value; nothing for null. */
void poller_sample_text(const struct node *, struct buf *);

/* For tests and fuzz targets: handles one response to a job of this kind, without services, and touches the
 * bytes of each record. p: zeroed, except for what answered needs. Returns the number of records; negative:
 * it failed. */
int64_t poller_answer(struct poller *, const struct poller_ops *, enum reader_job_kind, void *own,
                      struct str body, struct error *);
/* The same for FETCH; calls each for all records if the response was valid. */
int64_t poller_records(struct poller *, const struct poller_ops *, void *own, struct str body,
                       void (*each)(const struct record *), struct error *);
