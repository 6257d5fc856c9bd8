/* A source is a driver: one const struct in a folder of its own. It lends records, is given credit, and hears
 * how each ended. A push source is handed requests instead, makes records of them, and answers with what the
 * function said: it has neither tracks nor credit. Drivers know nothing of Kubernetes or of HTTP delivery.
 * All calls on the loop's thread; none blocks. */
#pragma once

#include "api/trigger.h"
#include "base/loop.h"
#include "event/cloudevent.h"
#include "json/writer.h"
#include "port/fetch.h"
#include "port/http.h"
#include "port/store.h"

struct source;
struct record;

/* One event a source lends until settle. Borrowed bytes stay valid until then, or until detach replaced them.
 */
struct record {
        uint64_t position; /* strictly increasing within the track */
        uint32_t track;    /* partition, shard, stream: the unit of commit */
        uint32_t pinned;   /* bytes held while the record lives */
        usec time;         /* when it happened at the source; wall clock; 0: unknown */
        struct str id, key, value;
        bool null_value, has_key;
        /* the filter could not say whether it is wanted: it is not sent, but has failed for good */
        bool unjudged;
        const void *native; /* the driver's own view */
        /* The engine's, from offer to settle: */
        struct record *next;
        void *lane;
        usec since;       /* when the engine got it; monotonic */
        uint32_t order;   /* ordinal within the track's window */
        uint32_t outcome; /* enum outcome, while it waits to be handed out */
};

enum outcome {
        OUTCOME_ACCEPTED, /* the function took it */
        OUTCOME_DEAD_LETTERED,
        OUTCOME_DROPPED, /* the user asked for that */
        OUTCOME_FILTERED,
        OUTCOME_RELEASED, /* not settled: the track was given up; someone will read it again */
        OUTCOME_MAX,
};

enum source_state {
        SOURCE_CONNECTING,
        SOURCE_CONNECTED,
        SOURCE_IDLE,
        SOURCE_STANDBY,
        SOURCE_DISCONNECTED,
        SOURCE_FAILED,
        SOURCE_REMOVED /* what it had outside is gone */,
        SOURCE_STATE_MAX
};
const char *source_state_name(enum source_state);

enum lost_reason { LOST_RETENTION, LOST_RECREATED /* the log is another one */, LOST_REASON_MAX };
const char *lost_reason_name(enum lost_reason); /* as a metric's label: retention */

enum source_event_kind {
        SOURCE_EVENT_RECORD,   /* record: lent */
        SOURCE_EVENT_ASSIGNED, /* track: may be given credit now */
        /* track: finish what is in flight by give_up_at (monotonic), then `revoked` is called */
        SOURCE_EVENT_REVOKING,
        /* track: someone else has it already: commit nothing; then `revoked` is called */
        SOURCE_EVENT_LOST,
        SOURCE_EVENT_STATE, /* state, text: changed */
        /* track, lost, lost_reason, text: records that the source had are gone, and were never lent */
        SOURCE_EVENT_RECORDS_LOST,
        /* push: what receive put off or held is decided: call, verdict, and, where it was put off, records or
           reply */
        SOURCE_EVENT_CALL,
        SOURCE_EVENT_CLOSED, /* after stop: everything is given back; free may be called */
};
struct source_event {
        enum source_event_kind kind;
        uint32_t track;
        struct record *record;
        usec give_up_at;
        enum source_state state;
        const char *text; /* the peer's own words; borrowed until the next poll; NULL: none */
        uint64_t lost;
        enum lost_reason lost_reason;
        uint64_t call;
        int verdict; /* enum push_verdict: PUSH_REPLY or PUSH_DELIVER */
        struct record *const *records;
        size_t n;                 /* the array is borrowed until the next poll */
        struct push_reply *reply; /* borrowed until the next poll */
};

/* ---- push --------------------------------------------------------------- */

/* borrowed until receive returns; method, path, query, body and headers of a call that is delivered or put
 * off: until finish or gone */
struct push_request {
        struct str method, path, query; /* as sent, in whatever spelling; the query without its ? */
        struct str body;
        /* the caller's address, numeric: the peer's, or what a trusted proxy says */
        struct str client;
        /* of this request, 32 hex digits: returned to the caller and logged */
        struct str id;
        bool tls;
        const void *head; /* whoever took the request in */
        /* the first of that name; p NULL: none */
        struct str (*header)(const struct push_request *, const char *name);
        void (*each_header)(const struct push_request *,
                            void (*each)(void *cookie, struct str name, struct str value), void *cookie);
};
enum { PUSH_LENGTH_UNKNOWN = -1 };
/* headers: "Name: value\r\n" lines, Content-Type among them. length: of the body that stands behind this
 * answer, where none is sent, as to a HEAD; negative: not said. */
struct push_reply {
        int status;
        int64_t length;
        struct buf headers, body;
};

enum push_verdict {
        PUSH_REPLY,   /* the reply is written: no function is called */
        PUSH_DELIVER, /* the records go to the function, in one event */
        /* undecided: SOURCE_EVENT_CALL follows, unless gone is called before. What is kept meanwhile is
           counted as large as the body */
        PUSH_LATER,
        /* The records are there, but whether they may go is undecided: SOURCE_EVENT_CALL follows, with
         * PUSH_DELIVER or PUSH_REPLY, unless finish is called before. Meanwhile the call counts among as many
         * undecided ones as maxInFlight allows, and its time counts; its place it gets afterwards. */
        PUSH_HOLD,
};
enum push_result {
        PUSH_ACCEPTED,    /* 2xx: body is the function's answer */
        PUSH_FILTERED,    /* the Trigger's filter left every record out */
        PUSH_FAILED,      /* any other status, or a transform that failed */
        PUSH_UNREACHABLE, /* no answer: text says why */
        PUSH_TIMEOUT,     /* none in time */
        PUSH_BUSY,        /* not tried: maxInFlight requests are under way */
        PUSH_LIMITED,     /* not tried: rateLimit; retry_after */
        /* not tried: stopping, or a Secret, a token or the function's initialization is missing */
        PUSH_NOT_READY,
        PUSH_GONE,    /* the caller left: the reply goes nowhere */
        PUSH_REFUSED, /* the source itself said PUSH_REPLY to a call that it held */
};
struct push_outcome {
        enum push_result result;
        int status;
        usec retry_after;
        struct str body;
        bool cut /* the body was longer */;
        const char *text;
};

/* Callers turned away, and that went too fast; requests to an authorizer, and in vain; messages that the
 * source's own selection left out. */
struct push_counts {
        uint64_t refused, limited, asked, failed, unwanted;
};

struct push_driver {
        /* Is the request this Trigger's, its path in the normal form (base/uri.h)? 0: no; otherwise the
         * highest number of all Triggers wins. */
        unsigned (*route)(struct source *, const struct push_request *, struct str path);
        /* whoever is let in could be told by the path alone otherwise; NULL: the path guards nothing */
        bool (*authenticates)(const struct source *);
        /* Decides about a request. n: room in records, then how many there are, at least one with
         * PUSH_DELIVER. */
        enum push_verdict (*receive)(struct source *, uint64_t call, const struct push_request *,
                                     struct record **records, size_t *n, struct push_reply *);
        /* What became of the records: writes the reply and releases them. */
        void (*finish)(struct source *, uint64_t call, struct record *const *, size_t n,
                       const struct push_outcome *, struct push_reply *);
        /* the caller left a call that is put off; NULL: receive never puts off */
        void (*gone)(struct source *, uint64_t call);
        usec (*timeout)(const struct source *); /* how long the function may take */
        /* Where others reach it: "/shop/orders", or an API's own path. */
        void (*path)(const struct trigger *, struct buf *);
        /* How that begins, up to what a request may vary; true: it is all of it, and what lies below is not
         * the Trigger's. NULL: it is path. */
        bool (*literal)(const struct trigger *, struct buf *);
        void (*counts)(const struct source *, struct push_counts *); /* NULL: it counts nothing */
};
enum { PUSH_RECORDS_MOST = 1000 };

/* What a source is opened with; all borrowed until free. */
struct services {
        struct loop *loop;
        struct waker *waker;
        const struct clock *clock;
        struct store store; /* this Trigger's own keys */
        /* for push sources: what messages refer to; completions wake the source. ops NULL: none */
        struct fetch fetch;
        /* for push sources: requests to peers; completions wake the source. ops NULL: none */
        struct http http;
        struct http_peers peers;
        const struct trigger *trigger;
        const char *secrets;  /* the folder of Secrets, NAME/KEY; NULL: none */
        const char *instance; /* stable name of this worker's slot; NULL: none */
        /* the Trigger is deleted: what was made outside is taken back, which ends in SOURCE_REMOVED */
        bool ending;
};

struct driver {
        const char *name;    /* the member of spec.source */
        const char *ce_type; /* CloudEvents type, e.g. "dev.sluice.kafka.message" */
        /* NULL: it is polled. Otherwise credit, settle, detach, commit, revoked and lag are NULL */
        const struct push_driver *push;
        bool commit_at_once;     /* positions are so few that each is worth a write */
        const struct type *type; /* the spec's table */
        /* 0, or -1 when the spec can't work whatever happens. Connecting is no part of it: that shows as
         * SOURCE_EVENT_STATE. */
        int (*open)(struct source **, const void *spec, const struct services *, struct task *wake,
                    struct error *) MUST_CHECK;
        /* Lend up to records more of the track, and go on while the bytes lent stay under bytes more. Both
         * add to what is left; the last record may cross the line, what it takes too much is owed. */
        void (*credit)(struct source *, uint32_t track, uint32_t records, size_t bytes);
        size_t (*poll)(struct source *, struct source_event *, size_t max, usec now);
        usec (*deadline)(const struct source *);                        /* poll again then; USEC_NEVER */
        void (*settle)(struct source *, struct record *, enum outcome); /* takes the record */
        /* copy what it borrows from a bigger fetch; false: out of memory */
        bool (*detach)(struct source *, struct record *);
        void (*commit)(struct source *, uint32_t track,
                       uint64_t next); /* every position below next is done */
        /* answers REVOKING and LOST: nothing of it is lent any more */
        void (*revoked)(struct source *, uint32_t track);
        void (*stop)(struct source *);           /* ends in CLOSED */
        struct source *(*free)(struct source *); /* takes NULL, returns NULL */
        int64_t (*lag)(const struct source *);   /* records behind; -1: unknown */
        /* all there is was lent and settled. NULL: there is no such end */
        bool (*drained)(const struct source *);
        void (*describe)(const struct record *, struct writer *); /* the document a filter sees */
        /* FunctionGraph's event for n records of one track, in the dialect. Needs no open source, only
         * records of this driver. */
        void (*encode)(const struct services *, enum dialect, struct record *const *, size_t n,
                       struct writer *);
        /* The record as a CloudEvent: all but the overrides; without a type it gets ce_type. What is not the
         * record's own is kept in the buffer. */
        void (*event)(const struct services *, const struct record *, struct buf *, struct cloud_event *);
        /* What the record carries under a name, such as traceparent; p NULL: nothing. NULL: no record carries
         * any. */
        struct str (*header)(const struct record *, const char *name);
        /* A record made of the document that describe writes, for previews; members that are left out get
         * likely values. */
        int (*sample)(const void *spec, const struct services *, const struct node *document,
                      struct record **, struct error *) MUST_CHECK;
        void (*sample_free)(struct record *); /* takes NULL */
        /* Does it make something outside the cluster that must be taken back? Says what, for people. NULL:
         * no. */
        bool (*outside)(const struct trigger *, struct buf *);
        /* Where it comes from, for people and for the `source` attribute: "kafka shop/orders". */
        void (*origin)(const struct trigger *, struct buf *);
};

/* The one table of sources (pkg/source/sources.c). */
extern const struct driver *const source_drivers[];
extern const size_t source_drivers_n;
/* The same as the API's decoder wants it; n is source_drivers_n. */
const struct source_type *source_types(void);
const struct driver *trigger_driver(const struct trigger *);
bool trigger_outside(const struct trigger *, struct buf *); /* its driver's outside */
