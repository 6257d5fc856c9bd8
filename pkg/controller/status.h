/* What a Trigger's status is, folded from what is known. Pure. Any thread. */
#pragma once

#include <jansson.h>

#include "base/clock.h"

/* Why a Trigger is not ready that waits for another one, which has what it wants. */
#define STATUS_CONFLICT "Conflict"

struct status_facts {
        int64_t generation;
        const char *uid;                        /* of the Trigger; NULL: not known */
        const char *source;                     /* "kafka"; NULL: not known (invalid) */
        const char *invalid;                    /* why the spec can't be used; NULL: it can */
        bool conflict;                          /* because another Trigger has what it wants */
        const char *sink;                       /* resolved; NULL: not */
        const char *sink_reason, *sink_message; /* why not */
        const char *failed;                     /* why the children could not be applied; NULL: they were */
        /* what a worker's pod waits for, in the kubelet's words; NULL: not known */
        const char *stuck;
        /* it is deleted, and this is still outside; NULL: it is not deleted */
        const char *ending;
        bool suspended;
        json_t *deployment; /* trimmed; NULL: there is none */
        json_t *pods;       /* array of trimmed pods of it */
        json_t *workers;    /* status.workers as it is; NULL: none */
        /* the status before: transition times are kept while a condition's status is */
        json_t *previous;
        const char *selector;
        const char *address; /* where requests reach it; NULL: no request does */
        usec now;            /* wall */
};

/* The message of the Event with this reason that was seen last, "" if there is none. Borrowed. An Event that
 * is seen again is counted in the one that was made first, so that their order in a list says nothing. */
const char *status_latest_event(json_t *list, const char *reason);
/* Is an entry of status.workers that of a Trigger which had the name before? */
bool status_is_stale(json_t *entry, const char *uid);
/* The status that the controller owns: all but workers. Owned by the caller; NULL: out of memory. */
json_t *status_fold(const struct status_facts *);
json_t *status_condition(json_t *status, const char *type); /* borrowed; NULL: none */
