/* Inside the poller: which of its tracks this worker may read, by the slots that it holds (port/claims.h). A
 * track belongs to the slot of the number that its name ends in, so that partitions are spread evenly, or of
 * its name's hash. Loop's thread. */
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
                enum claim_state state; /* when it was looked at last */
                uint32_t open;          /* tracks */
        } * slots;
        uint64_t changes;
        bool stopping;
};

uint32_t share_slot(struct str name, uint32_t slots);

/* port: ops may be NULL: everything may be read. */
int share_init(struct share *, const struct claims *port, struct error *) MUST_CHECK;
void share_done(struct share *);
/* Does a CLAIM job succeed? ERROR_CONFLICT: another worker reads the track. */
int share_claim(struct share *, const struct reader_job *, struct error *) MUST_CHECK;
/* The track has left. true: its slot goes elsewhere, or is there already. */
bool share_left(struct share *, uint32_t track);
/* Takes what changed about the slots: tracks are withdrawn, or claimed at once. */
void share_turn(struct share *, struct reader *);
void share_stop(struct share *);
bool share_stopped(const struct share *); /* no slot is held any more */
