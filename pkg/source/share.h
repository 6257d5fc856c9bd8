/* Of a source on the reader: which tracks this worker may read, by the slots that it holds (port/claims.h). A
 * track belongs to one slot: by the number at the end of its name, modulo the number of slots, so that
 * partitions are spread evenly; without such a number, by the hash of its name. Loop's thread. */
#pragma once

#include "port/claims.h"
#include "source/reader.h"

struct share_track {
        uint32_t slot;
        bool known, open; /* open: it was claimed, and has not left */
};
struct share {
        struct claims port;
        struct share_track *tracks; /* by number */
        uint32_t tracks_n;
        struct share_slot {
                enum claim_state state; /* as of the last share_turn */
                uint32_t open;          /* tracks */
        } * slots;
        uint64_t changes;
        bool stopping;
};

uint32_t share_slot(struct str name, uint32_t slots);

/* port: without ops everything may be read. */
int share_init(struct share *, const struct claims *port, struct error *) MUST_CHECK;
void share_done(struct share *);
/* Decides a CLAIM job. ERROR_CONFLICT: another worker reads the track. */
int share_claim(struct share *, const struct reader_job *, struct error *) MUST_CHECK;
/* The track has left. Returns whether its slot is given up, or is held by another worker already. */
bool share_left(struct share *, uint32_t track);
/* Acts on slots whose state changed: withdraws the tracks of those that are lost, and has the tracks of new
 * ones claimed at once. */
void share_turn(struct share *, struct reader *);
void share_stop(struct share *);
bool share_stopped(const struct share *); /* no slot is held any more */
