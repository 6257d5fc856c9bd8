/* The Trigger's status: one field table for the CRD, the worker that writes its entry of status.workers[] and
 * the controller that folds the entries into conditions. Owns what it points to; any thread. */
#pragma once

#include "api/schema.h"

/* What one worker says of itself. Keyed by pod; written by that pod alone (a field manager of its own). */
struct worker_status {
        char *pod;
        char *trigger_uid;           /* of the Trigger it runs; NULL: not known */
        int64_t observed_generation; /* of the Trigger it runs */
        char *source_state;          /* Connecting, Connected, Idle, Standby, Disconnected, Failed */
        char *source_message;        /* the broker's own words; NULL: none */
        char *delivery_state;        /* Delivering, Retrying, Throttled, Failing, Blocked */
        char *delivery_message;      /* the function's own words; NULL: none */
        usec last_event_time, last_delivery_time; /* wall; 0: none yet */
        /* of a source that goes by the clock: scheduled times, wall; 0: none */
        usec last_run_time, next_run_time;
        char *last_run_outcome;   /* how the last one ended; NULL: none did */
        usec oldest_pending_time; /* wall; 0: nothing waits, or it is not known */
        int64_t lag;              /* -1: unknown */
        /* records that were gone before they could be delivered, since the worker started */
        int64_t lost;
        char *lost_message;  /* the last such loss in words; NULL: none */
        char *clock_message; /* how its clock differs from the cloud's; NULL: it does not */
};
extern const struct type worker_status_type;

/* The whole status subresource as it is read from the API server (conditions by pkg/controller). FIELD tables
 * for the CRD's schema: observedGeneration, conditions[], sinkUri, replicas, selector, lastEventTime,
 * lastDeliveryTime, oldestPendingTime, lag, workers[]. */
void status_openapi(struct writer *);
