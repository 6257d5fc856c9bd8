/* How one worker shares its Trigger's slots with the other workers, with a Lease for each slot (the rules are
 * in port/claims.h). Sans-I/O: reads and writes come out as jobs, their results go in, and the caller brings
 * the time (monotonic). Any thread.
 *
 * A holder renews its Lease every SLOTS_RENEW. It stops reading SLOTS_DEADLINE after the start of the last
 * renewal that was confirmed; another worker takes the slot once it has seen no renewal for SLOTS_LEASE, by
 * its own clock. So five seconds lie between the two, however the clocks differ. Leases of others are read,
 * and failed calls repeated, every SLOTS_RETRY: the slot of a worker that died is taken over within
 * SLOTS_LEASE plus twice SLOTS_RETRY, a free one within SLOTS_RETRY.
 *
 * What a slot stands for depends on how many there are. A worker that outlived a change of that number (its
 * node was unreachable, or its pod was deleted by force) finds another number in the Leases, of a later
 * generation than its own. It then gives up all its slots, as when it is stopped, and takes none while the
 * Leases say so. A new worker takes free slots at once, and the others when they are free. Until the old
 * worker has noticed (SLOTS_RENEW) and has finished what is in flight, or, if it is cut off, until its
 * deadline, both may read the same partitions: records are repeated, none is lost. */
#pragma once

#include "base/error.h"
#include "port/claims.h"

#define SLOTS_LEASE (15 * USEC_SEC)
#define SLOTS_DEADLINE (10 * USEC_SEC)
#define SLOTS_RENEW (5 * USEC_SEC)
#define SLOTS_RETRY (2 * USEC_SEC)

struct slots;
struct slots_config {
        const char *me;     /* for holderIdentity; no other live worker has this name. Copied */
        uint32_t n;         /* how many there are */
        int64_t generation; /* of the Trigger, in which we found n */
        uint64_t seed;
};
int slots_new(struct slots **, const struct slots_config *, struct error *) MUST_CHECK;
struct slots *slots_free(struct slots *); /* NULL is fine */

/* A Lease as the API server has it. Borrowed; never NULL. */
struct slots_lease {
        const char *holder;  /* spec.holderIdentity; empty: nobody */
        const char *renewed; /* spec.renewTime: only compared with its last value */
        /* the worker that waits for it, and how many slots it holds: "NAME 2"; empty: none */
        const char *waits;
        const char *version;       /* metadata.resourceVersion */
        int64_t slots, generation; /* how many slots there are since which generation; 0: not said */
        int64_t duration;          /* spec.leaseDurationSeconds; 0: none */
        int64_t transitions;       /* spec.leaseTransitions */
};
enum slots_job_kind {
        SLOTS_READ,
        /* Writes, only on the version that was read last; otherwise they fail with ERROR_CONFLICT. */
        SLOTS_HOLD, /* the holder is me, renewed now */
        SLOTS_FREE, /* the holder is nobody */
        SLOTS_WAIT, /* the holder stays */
};
struct slots_job {
        enum slots_job_kind kind;
        uint32_t slot;
        const char *waits;   /* to be written; NULL: unchanged. Borrowed until the next call */
        const char *version; /* the same */
        int64_t transitions; /* HOLD: spec.leaseTransitions to be written */
        bool acquired;       /* HOLD: it was not ours before */
};
bool slots_next(struct slots *, usec now, struct slots_job *); /* until false */
/* Each job ends in one of the two, once. */
void slots_done(struct slots *, uint32_t slot, const struct slots_lease *, usec now); /* as it is now */
/* ERROR_CONFLICT: the Lease has another version, and is read again. */
void slots_failed(struct slots *, uint32_t slot, const struct error *, usec now);
usec slots_deadline(const struct slots *); /* ask for jobs then */

/* What the port says (struct claims_ops). */
uint64_t slots_changes(const struct slots *);
void slots_look(const struct slots *, uint32_t slot, struct claim *);
void slots_release(struct slots *, uint32_t slot);
void slots_stop(struct slots *);
bool slots_stopped(const struct slots *);
