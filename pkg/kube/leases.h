/* The claims port (port/claims.h) over Leases (coordination.k8s.io/v1), one for each slot, which exist
 * already: NAME-0, NAME-1 and so on. kube/slots decides; here are the calls. A write is a merge patch on the
 * version that was read. Loop's thread. */
#pragma once

#include "kube/client.h"
#include "port/claims.h"

struct kube_leases;

struct kube_leases_config { /* copied */
        const char *namespace_, *name;
        const char *me; /* as holderIdentity: the pod */
        /* Annotations of the Lease: in the first a worker that waits says so; the others say how many slots
         * there are, and since which generation, if they are there. */
        const char *waits, *number, *since;
        uint32_t slots;
        int64_t generation; /* of what says that there are so many */
        uint64_t seed;
        struct task *wake; /* made ready when a slot's state changes */
};
int kube_leases_new(struct kube_leases **, struct kube_client *, const struct kube_leases_config *,
                    struct error *) MUST_CHECK;
struct kube_leases *kube_leases_free(struct kube_leases *); /* NULL is fine */
struct claims kube_leases_port(struct kube_leases *);
