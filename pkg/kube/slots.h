/* How one worker shares the slots of its Trigger with others by a Lease each (port/claims.h has the rules).
 * Sans-I/O: what is to be read or written comes out as jobs, what was answered goes in, and time is the
 * caller's (monotonic). Any thread.
 *
 * A holder renews each SLOTS_RENEW, and stops reading SLOTS_DEADLINE after it began the last renewal that was
 * confirmed; another takes the slot once it saw no renewal for SLOTS_LEASE by its own clock. So between the
 * two lie five seconds, whatever the clocks say. Others are looked at, and what failed is tried again, each
 * SLOTS_RETRY: a slot is taken over within SLOTS_LEASE and twice that, and one that is free within that. */
#pragma once

#include "base/error.h"
#include "port/claims.h"

#define SLOTS_LEASE (15 * USEC_SEC)
#define SLOTS_DEADLINE (10 * USEC_SEC)
#define SLOTS_RENEW (5 * USEC_SEC)
#define SLOTS_RETRY (2 * USEC_SEC)

struct slots;
/* me: as holderIdentity; no other worker that lives has this name. */
int slots_new(struct slots **, const char *me, uint32_t n, uint64_t seed, struct error *) MUST_CHECK;
struct slots *slots_free(struct slots *); /* NULL is fine */

/* A Lease as the API server has it. Borrowed; never NULL. */
struct slots_lease {
        const char *holder;  /* spec.holderIdentity; empty: nobody */
        const char *renewed; /* spec.renewTime: is only compared with what it was */
        const char *waits; /* who waits for it, and how many slots that one holds: "NAME 2"; empty: nobody */
        const char *version; /* metadata.resourceVersion */
        int64_t duration;    /* spec.leaseDurationSeconds; 0: none */
        int64_t transitions; /* spec.leaseTransitions */
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
