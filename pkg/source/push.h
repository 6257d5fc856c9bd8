/* A push source is handed requests, makes records of them, and answers with what the function said. It has
 * neither tracks nor credit: what is not delivered at once is refused, and the caller tries again. Loop's
 * thread; nothing blocks. */
#pragma once

#include "base/buf.h"
#include "record/record.h"
#include "source/state.h"

struct source;
struct trigger;

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
 * answer, where none is sent, as to a HEAD; negative: not said. kept: bytes that the source keeps of a call
 * that it puts off, where they are more than the body's. */
struct push_reply {
        int status;
        int64_t length;
        size_t kept;
        struct buf headers, body;
};

/* Why a request is answered before any source has received it. */
enum push_refusal {
        PUSH_NOT_HTTP,      /* it breaks HTTP's rules, or a limit of the listener's */
        PUSH_HEAD_TOO_LONG, /* so, by a header */
        PUSH_NO_PATH,       /* no Trigger has its path */
        PUSH_GUARDED_PATH,  /* written with other slashes it is the path of who lets in only some */
        PUSH_STOPPING,      /* the worker ends */
        PUSH_OVERLOADED,    /* too many connections, or bytes in memory */
        PUSH_NO_MEMORY,
};
struct push_refused {
        enum push_refusal why;
        int status;       /* by HTTP's rules */
        const char *text; /* for people */
        struct str id;    /* of the request */
};

enum push_verdict {
        PUSH_REPLY,   /* the reply is written: no function is called */
        PUSH_DELIVER, /* the records go to the function, in one event */
        /* undecided: PUSH_EVENT_CALL follows, unless gone is called before. What is kept meanwhile is
           counted as the reply says, at least as large as the body */
        PUSH_LATER,
        /* The records are there, but whether they may go is undecided: PUSH_EVENT_CALL follows, with
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

enum push_event_kind {
        PUSH_EVENT_STATE, /* state, text: changed */
        /* what receive put off or held is decided: call, verdict, and, where it was put off, records or reply
         */
        PUSH_EVENT_CALL,
        PUSH_EVENT_CLOSED, /* after stop: everything is given back; free may be called */
};
struct push_event {
        enum push_event_kind kind;
        enum source_state state;
        const char *text; /* the peer's own words; borrowed until the next poll; NULL: none */
        uint64_t call;
        enum push_verdict verdict; /* PUSH_REPLY or PUSH_DELIVER */
        struct record *const *records;
        size_t n;                 /* the array is borrowed until the next poll */
        struct push_reply *reply; /* borrowed until the next poll */
};

struct push_ops {
        /* Two of a Trigger may run beside each other: one that changed serves at once, while its predecessor
         * only finishes what it has. Otherwise the successor waits for the end of that. */
        bool side_by_side;
        /* The source has started, and from now on gets the requests of its predecessor, which has the same
         * calls: it takes over what there may be only one of. The predecessor is still polled, and may be
         * freed at any time. Optional: what each keeps is its own. */
        void (*inherit)(struct source *, struct source *before);
        /* Is the request this Trigger's, its path in the normal form (base/uri.h)? 0: no; otherwise the
         * highest number of all Triggers wins. */
        unsigned (*route)(struct source *, const struct push_request *, struct str path);
        /* Writes the answer to a request that no source receives, in the source's own shape, where the
         * request was the source's, or nobody's. Optional: the text, by the first kind of source that has a
         * shape for it. */
        void (*refuse)(const struct push_refused *, struct push_reply *);
        /* Whoever is let in could be told by the path alone otherwise. Optional: the path guards nothing. */
        bool (*authenticates)(const struct source *);
        /* Decides about a request. n: room in records, then how many there are, at least one with
         * PUSH_DELIVER. */
        enum push_verdict (*receive)(struct source *, uint64_t call, const struct push_request *,
                                     struct record **records, size_t *n, struct push_reply *);
        /* What became of the records: writes the reply and releases them. */
        void (*finish)(struct source *, uint64_t call, struct record *const *, size_t n,
                       const struct push_outcome *, struct push_reply *);
        /* The caller left a call that is put off. Optional: receive never puts off. */
        void (*gone)(struct source *, uint64_t call);
        usec (*timeout)(const struct source *); /* how long the function may take */
        /* Where others reach it: "/shop/orders", or an API's own path. */
        void (*path)(const struct trigger *, struct buf *);
        /* How that begins, up to what a request may vary; true: it is all of it, and what lies below is not
         * the Trigger's. Optional: it is path. */
        bool (*literal)(const struct trigger *, struct buf *);
        /* Each method and path by which it is reached, a line each: two Triggers that have one in common
         * would take the same requests. Optional: nobody else can have its path. */
        void (*ways)(const struct trigger *, struct buf *);
        void (*counts)(const struct source *, struct push_counts *); /* optional: it counts nothing */
        size_t (*poll)(struct source *, struct push_event *, size_t max, usec now);
        usec (*deadline)(const struct source *); /* poll again then; USEC_NEVER */
        void (*stop)(struct source *);           /* ends in PUSH_EVENT_CLOSED */
        struct source *(*free)(struct source *); /* takes NULL, returns NULL */
};
enum { PUSH_RECORDS_MOST = 1000 };
