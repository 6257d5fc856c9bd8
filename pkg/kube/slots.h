/* How one worker shares the slots of its Trigger with others by a Lease each (port/claims.h has the rules).
 * Sans-I/O: what is to be read or written comes out as jobs, what was answered goes in, and time is the
 * caller's (monotonic). Any thread.
 *
 * A holder renews each SLOTS_RENEW, and stops reading SLOTS_DEADLINE after it began the last renewal that was
 * confirmed; another takes the slot once it saw no renewal for SLOTS_LEASE by its own clock. So between the
 * two lie five seconds, whatever the clocks say. Others are looked at, and what failed is tried again, each
 * SLOTS_RETRY: a slot is taken over within SLOTS_LEASE and twice that, and one that is free within that.
 *
 * What a slot stands for depends on how many there are. A worker that outlived a change of that number (its
 * node was away, or its pod was deleted by force) finds the new one in the Leases, with a later generation
 * than its own: it gives up all that it holds, as it would at its end, and takes nothing as long as they say
 * so. Whoever knows of the later generation need not look out for such a worker: it waits for the slots that
 * that one holds, and takes the others at once. So the two may overlap, on other parts of the same number,
 * until the old one has seen it (SLOTS_RENEW) and what it had is finished; or, cut off, until its deadline.
 * That repeats records, and loses none. */
#pragma once

#include "base/error.h"
#include "port/claims.h"

#define SLOTS_LEASE (15 * USEC_SEC)
#define SLOTS_DEADLINE (10 * USEC_SEC)
#define SLOTS_RENEW (5 * USEC_SEC)
#define SLOTS_RETRY (2 * USEC_SEC)

struct slots;
struct slots_config {
        const char *me;     /* as holderIdentity; no other worker that lives has this name. Copied */
        uint32_t n;         /* how many there are */
        int64_t generation; /* since when, as far as we know; it grows with each change */
        uint64_t seed;
};
int slots_new(struct slots **, const struct slots_config *, struct error *) MUST_CHECK;
struct slots *slots_free(struct slots *); /* NULL is fine */

/* A Lease as the API server has it. Borrowed; never NULL. */
struct slots_lease {
        const char *holder;  /* spec.holderIdentity; empty: nobody */
        const char *renewed; /* spec.renewTime: is only compared with what it was */
        const char *waits; /* who waits for it, and how many slots that one holds: "NAME 2"; empty: nobody */
        const char *version;       /* metadata.resourceVersion */
        int64_t slots, generation; /* how many slots there are, since when; 0: it does not say */
        int64_t duration;          /* spec.leaseDurationSeconds; 0: none */
        int64_t transitions;       /* spec.leaseTransitions */
};
enum slots_job_kind {
        SLOTS_READ,
        /* Only on the version that was read last; otherwise it has failed by a conflict. */
        SLOTS_HOLD, /* the holder is me, renewed now */
        SLOTS_FREE, /* the holder is nobody */
        SLOTS_WAIT, /* the holder stays */
};
struct slots_job {
        enum slots_job_kind kind;
        uint32_t slot;
        const char *waits;   /* what it says afterwards; NULL: as it was. Borrowed until the next call */
        const char *version; /* the same */
        int64_t transitions; /* HOLD: how often it changed hands then */
        bool acquired;       /* HOLD: this time */
};
bool slots_next(struct slots *, usec now, struct slots_job *); /* until false */
/* Each job ends in one of the two, once. */
void slots_done(struct slots *, uint32_t slot, const struct slots_lease *, usec now); /* how it stands now */
void slots_failed(struct slots *, uint32_t slot, const struct error *, usec now); /* ERROR_CONFLICT: that */
usec slots_deadline(const struct slots *);                                        /* ask for jobs then */

/* What the port says (struct claims_ops). */
uint64_t slots_changes(const struct slots *);
void slots_look(const struct slots *, uint32_t slot, struct claim *);
void slots_release(struct slots *, uint32_t slot);
void slots_stop(struct slots *);
bool slots_stopped(const struct slots *);
