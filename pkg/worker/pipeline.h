/* The pipeline: one Trigger's source, delivery engine and way out, glued together as a task on the loop.
 * Polls the source, offers, takes answers, performs the engine's actions. It knows the ports, not who stands
 * behind them. Loop's thread. */
#pragma once

#include "http/client/client.h"
#include "worker/feed.h"

struct pipeline;

struct pipeline_config {
        struct loop *loop;
        struct http_client *http;
        const struct fetch *fetch; /* what messages refer to, of push sources; NULL: it is not fetched */
        struct cloud *cloud;       /* of sources that call it; NULL: it is not called */
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
        struct notices notices; /* who hears what befalls the source, besides the log and the counters */
        /* where positions go, as long as there is a pipeline */
        int (*open_store)(void *cookie, struct store *, struct error *);
        void (*close_store)(void *cookie);
        /* The same for the claims of a source that workers share; NULL: there is nobody to share with. */
        int (*open_claims)(void *cookie, struct task *wake, struct claims *, struct error *);
        void (*close_claims)(void *cookie);
        void *store_cookie;
};

/* "the local clock is 20m0s behind the cloud's". Appends; nothing where they agree. */
void pipeline_clock(const struct pipeline_status *, struct buf *);

int pipeline_new(struct pipeline **, const struct pipeline_config *, struct error *) MUST_CHECK;
void pipeline_status(const struct pipeline *, struct pipeline_status *);
/* What is told of a Trigger. failure: why it could not be started, or, where there is a pipeline, what it is
 * to become; NULL: nothing failed, and without a pipeline it waits for its turn. */
void pipeline_shown(const struct pipeline *, const char *failure, struct pipeline_status *);
const char *pipeline_delivery_name(enum delivery_state); /* as the status says it */
const char *pipeline_delivery(const struct pipeline_status *);
const struct trigger *pipeline_trigger(const struct pipeline *);
/* Stops reading, lets what is in flight finish until the deadline (monotonic), commits. */
/* What of pipeline_new can fail, as far as it can be tried while another one of the same Trigger runs. */
int pipeline_check(const struct pipeline_config *, struct error *) MUST_CHECK;
void pipeline_stop(struct pipeline *, usec give_up_at);
/* The same for one that is reached by requests and is not from now on: a successor is, which has just
 * started; NULL: nobody, or a Trigger that is suspended. What it has ends by its own time-outs, unless a stop
 * that comes then ends it sooner. */
void pipeline_pass_by(struct pipeline *, struct pipeline *successor);
/* All that the source has was read and settled. */
bool pipeline_drained(const struct pipeline *);
bool pipeline_stopped(const struct pipeline *);
struct pipeline *pipeline_free(struct pipeline *); /* after it stopped; NULL is fine */
