/* The pipeline: a Trigger's source, delivery engine and sender as one task on the loop. It polls the source,
 * offers records to the engine, takes answers and performs the engine's actions. It knows ports, not their
 * implementations. Loop's thread. */
#pragma once

#include "http/client/client.h"
#include "worker/feed.h"

struct pipeline;

struct pipeline_config {
        struct loop *loop;
        struct http_client *http;
        const struct fetch
                *fetch;      /* fetches what messages of push sources refer to; NULL: nothing is fetched */
        struct cloud *cloud; /* for sources that call it; NULL: none does */
        const struct clock *clock;
        const struct trigger *trigger;  /* borrowed until free */
        const struct source_kind *kind; /* NULL: the Trigger's own, with its spec */
        const void *source_spec;        /* the kind's */
        const char *sink;               /* the absolute URL events go to */
        /* the absolute URL dead letters go to; NULL: the Trigger's own, if any */
        const char *dead_letter;
        const char *secrets;    /* the folder of Secrets, NAME/KEY; NULL: none */
        const char *instance;   /* a stable name of this worker among its Trigger's; NULL: none */
        bool ending;            /* only take back what the source made outside */
        struct gate_host *host; /* where push sources are reached; NULL: nowhere */
        struct task *observer;  /* made ready when the status changed; may be NULL */
        struct notices notices; /* receives warnings of the source, in addition to log and counters */
        /* the store of positions, open while the pipeline exists */
        int (*open_store)(void *cookie, struct store *, struct error *);
        void (*close_store)(void *cookie);
        /* The same for the claims of a source that workers share; NULL: it is not shared. */
        int (*open_claims)(void *cookie, struct task *wake, struct claims *, struct error *);
        void (*close_claims)(void *cookie);
        void *store_cookie;
};

/* "the local clock is 20m0s behind the cloud's". Appends; nothing where they agree. */
void pipeline_clock(const struct pipeline_status *, struct buf *);

int pipeline_new(struct pipeline **, const struct pipeline_config *, struct error *) MUST_CHECK;
void pipeline_status(const struct pipeline *, struct pipeline_status *);
/* As struct pull_ops has it; behind: how long ago the oldest record happened. p NULL: there are none. */
bool pipeline_track_lag(const struct pipeline *p, uint32_t *at, struct track_lag *, usec *behind);
/* The status to show of a Trigger. failure: why it could not be started or, with a pipeline, why its change
 * could not; NULL: nothing failed, and without a pipeline it waits for its turn to start. */
void pipeline_shown(const struct pipeline *, const char *failure, struct pipeline_status *);
const char *pipeline_delivery_name(enum delivery_state); /* as the status says it */
const char *pipeline_delivery(const struct pipeline_status *);
const struct trigger *pipeline_trigger(const struct pipeline *);
/* Stops reading, lets what is in flight finish until the deadline (monotonic), commits. */
/* Checks whether pipeline_new would fail, as far as that can be tried while another pipeline of the Trigger
 * runs. */
int pipeline_check(const struct pipeline_config *, struct error *) MUST_CHECK;
void pipeline_stop(struct pipeline *, usec give_up_at);
/* Stops a pipeline of a push source: from now on requests reach its successor, which has just started; NULL:
 * there is none, or the Trigger is suspended. Requests in progress end by their own time-outs, or with a
 * later stop. */
void pipeline_pass_by(struct pipeline *, struct pipeline *successor);
/* The source has ended, and all its records are settled. */
bool pipeline_drained(const struct pipeline *);
bool pipeline_stopped(const struct pipeline *);
struct pipeline *pipeline_free(struct pipeline *); /* after it stopped; NULL is fine */
