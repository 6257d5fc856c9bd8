/* How a Trigger's records come and go: pulled from their source through the delivery engine (pull.c), or
 * pushed through a gate to the function and back (gate.c). The pipeline turns either by the same few calls. A
 * feed owns its source. Loop's thread. */
#pragma once

#include "delivery/delivery.h"
#include "source/source.h"
#include "worker/sender.h"

struct filter;
struct gate_host;

/* Warnings of the source by reason. The last place counts all reasons that found no place of their own. */
enum { WARNING_REASONS_MOST = 12 };
struct warning_counts {
        struct warning_count {
                const char *reason; /* NULL: the list ends here */
                bool loses;
                uint64_t times, lost;
        } list[WARNING_REASONS_MOST];
        uint64_t lost; /* records that the source no longer had when they were to be read */
        char lost_text[NOTICE_TEXT_MOST]; /* the last such loss; empty: none */
};

/* What a pipeline says of itself. */
struct pipeline_status {
        enum source_state source;
        char source_text[256];
        bool stopped; /* there is no pipeline, and delivery means nothing */
        enum delivery_state delivery;
        char delivery_text[256];
        uint64_t changes; /* counts changes of the four above */
        struct delivery_stats stats;
        struct push_counts callers; /* of a push source */
        struct warning_counts warnings;
        uint64_t unjudged;              /* records that the filter could not judge */
        usec last_event, last_delivery; /* wall; 0: none yet */
        usec connected_since;           /* monotonic; 0: not connected */
        int64_t lag;                    /* -1: unknown */
        struct pull_runs runs;          /* of a source that goes by the clock; zeroed: of others */
        usec oldest;     /* wall: when the oldest record happened that is not done; 0: none, or not told */
        usec behind;     /* how long ago that was */
        int64_t unsaved; /* records that are done and whose position is not kept yet; -1: unknown */
        usec clock_skew; /* how far the cloud's time is ahead of ours; 0: it agrees */
};

struct feed;
struct delivery_config;
struct feed_ops {
        /* One round of work: takes what arrived and sends what may be sent. false: there was nothing to do.
         */
        bool (*turn)(struct feed *, usec now);
        usec (*deadline)(const struct feed *);
        /* Of a feed that has nothing to do for long, and does without a sender meanwhile. rest: it gives up
         * what it can make again, and the sender may be freed. false: it has something to do. stir: what a
         * turn is for one that sleeps. true: it has something to send. wake: it has this sender from now on;
         * -1: it sleeps on. All three NULL: it never sleeps. */
        bool (*rest)(struct feed *);
        bool (*stir)(struct feed *, usec now);
        int (*wake)(struct feed *, struct sender *, const struct delivery_config *, usec now,
                    struct error *) MUST_CHECK;
        /* Takes no more records; requests in flight may finish until then (monotonic). Afterwards closed is
         * set. */
        void (*stop)(struct feed *, usec give_up_at);
        /* Hands its requests over to a successor, which also has a gate; NULL: to nobody. Only for feeds with
         * a gate. */
        void (*pass_by)(struct feed *, struct feed *successor);
        bool (*drained)(const struct feed *); /* all that the source has was read and settled */
        /* As struct pull_ops has it. Only for feeds of tracks */
        bool (*track_lag)(const struct feed *, uint32_t *at, struct track_lag *);
        /* Fills in what is counted: stats, callers, lag, unjudged. */
        void (*count)(const struct feed *, struct pipeline_status *);
        void (*free)(struct feed *);
};

struct feed_config {
        struct loop *loop;
        struct task *wake; /* the pipeline's, made ready when there is something to do */
        const struct clock *clock;
        const struct trigger *trigger; /* borrowed, as all here */
        const struct source_kind *kind;
        const void *spec; /* the source's */
        const struct services *services;
        struct sender *sender;
        struct filter *filter;  /* NULL: everything passes */
        struct gate_host *host; /* where push sources are reached; NULL: nowhere */
};

/* What a feed says of itself: of struct pipeline_status. */
struct feed_status {
        enum source_state source;
        char *source_text;            /* NULL: none; so, too, delivery_text */
        enum delivery_state delivery; /* according to the engine, or to the last outcome */
        char *delivery_text;
        uint64_t changes, unjudged;
        usec last_event, last_delivery, connected_since;
};

/* The first member of both. */
struct feed {
        const struct feed_ops *ops;
        struct feed_config config;
        struct source *source;
        struct feed_status status;
        /* The last log line about the source. */
        bool logged;
        char *logged_text; /* NULL: none */
        usec logged_at;
        const char *held; /* why records wait that the source has lent; NULL: none does */
        bool closed;      /* the source has given everything back: free may be called */
};

int feed_open_source(struct feed *, struct error *) MUST_CHECK;
void feed_done(struct feed *); /* frees its texts */
/* Replaces a text that is kept, of 255 bytes at most; "" and NULL: none. Without memory there is none. */
void feed_keep(char **to, const char *text);
/* The source has another state: kept, logged and counted among the changes. text NULL: none. The source may
 * quote its peer: it is made plain here. */
void feed_source_said(struct feed *, enum source_state, const char *text, usec now);
/* Logs a reason that has changed since the last line, once enough time has passed; and when that is. */
void feed_log(struct feed *, usec now);
usec feed_log_deadline(const struct feed *);
/* text: plain, as the sender and the engine say it. NULL: none */
void feed_delivery_said(struct feed *, enum delivery_state, const char *text);

int pull_new(struct feed **, const struct feed_config *, const struct delivery_config *,
             struct error *) MUST_CHECK;
int gate_new(struct feed **, const struct feed_config *, struct error *) MUST_CHECK;
