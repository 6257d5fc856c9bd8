/* Port: which of a Trigger's workers reads what. A source whose parts (partitions) must have one reader each
 * spreads them over the slots of its Trigger, and reads those of the slots that this worker holds.
 * Implemented by pkg/kube/leases (a Lease of the cluster for each slot) and pkg/checkpoint/locks (locks of a
 * file).
 *
 * How workers share slots:
 *
 * - A slot that is free is taken by whoever is there, so that each part is always read by somebody; a worker
 *   alone holds all of them.
 * - A worker that finds none free says that it waits, and how many it holds. Who holds at least two more
 *   than that gives one up. So a slot changes hands only where that evens things out, and nothing moves once
 *   no two workers differ by more than one.
 * - A slot that is given up is first read no more; what is in flight ends and is saved; then it is free.
 * - A slot says nothing without their number: what it stands for changes with it. All who hold slots go by
 *   one number, and a worker that comes with another waits until the last of them is gone, saying so
 *   (pkg/checkpoint/locks). In a cluster the number comes with the Deployment, which is recreated when it
 *   changes: no new worker starts before all old ones have ended. One that lives on nevertheless finds the
 *   new number in the Leases, and gives up what it holds (pkg/kube/slots).
 * - Who can't renew what it holds stops reading before anyone else may take it. Each goes by its own
 *   monotonic clock and by the changes that it saw itself, never by a time that another wrote.
 *
 * A claim is no fence: a worker that was asleep may save a position when another reads already. So an overlap
 * repeats records, and loses none.
 *
 * Nothing blocks, nothing calls back: the user looks at the state of a slot, and its task is made ready
 * when one changed. Loop's thread. */
#pragma once

#include "base/error.h"

enum claim_state {
        CLAIM_WAITING, /* somebody else has the slot, or may have it: nothing of it is read */
        CLAIM_HELD,
        CLAIM_LEAVING, /* it goes elsewhere: to be released, once nothing of it is read any more */
};
struct claim {
        enum claim_state state;
        /* LEAVING: until then what is in flight may finish and be saved (monotonic). 0: another has it
         * already */
        usec give_up_at;
        /* WAITING: who holds it, NULL: that is not known; failed: what is wrong instead. Borrowed until the
         * next call */
        const char *why;
        bool failed;
};
struct claims_ops {
        /* Grows whenever a slot's state changes. */
        uint64_t (*changes)(void *cookie);
        void (*look)(void *cookie, uint32_t slot, struct claim *);
        /* Of a slot that is LEAVING: nothing of it is read any more. */
        void (*release)(void *cookie, uint32_t slot);
        /* None is taken any more, and those that are held are LEAVING. */
        void (*stop)(void *cookie);
        bool (*stopped)(void *cookie); /* after stop: none is held any more */
};
/* One user's end; ops NULL: there is nobody to share with, and all may be read. */
struct claims {
        const struct claims_ops *ops;
        void *cookie;
        uint32_t slots; /* at least one */
};
