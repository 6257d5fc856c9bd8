/* A record: one event between its source and the function. A source lends it, the engine takes it through
 * lanes, batches and attempts, and every record comes back to its source once, with its outcome. Borrowed
 * bytes stay valid until then, or until the source's detach replaced them with copies. No thread of its own:
 * a record belongs to whoever has it. */
#pragma once

#include "base/clock.h"

struct record {
        uint64_t position; /* strictly increasing within the track */
        uint32_t track;    /* partition, shard, stream: the unit of commit */
        uint32_t pinned;   /* bytes that the source keeps until it gets the record back */
        usec time;         /* when it happened at the source; wall clock; 0: unknown */
        struct str id, key, value;
        bool has_key, null_value;
        /* why it can't be sent, as that the filter could not say whether it is wanted: it has failed for
         * good. Borrowed for good; NULL: it can be sent */
        const char *unfit;
        const void *origin; /* the source's own data; only its shape reads it */
        /* Scratch space of the delivery engine, from offer until it hands the record back. */
        struct {
                struct record *next;
                void *lane;
                usec since;       /* when the engine got it; monotonic */
                uint32_t order;   /* ordinal within the track's window */
                uint32_t outcome; /* enum outcome, while it waits to be handed out */
        } engine;
};

enum outcome {
        OUTCOME_ACCEPTED, /* the function took it */
        OUTCOME_DEAD_LETTERED,
        OUTCOME_DROPPED, /* the user asked for that */
        OUTCOME_FILTERED,
        OUTCOME_RELEASED, /* not settled: the track was given up; someone will read it again */
        OUTCOME_MAX,
};
const char *outcome_name(enum outcome); /* Accepted, DeadLettered, … */
