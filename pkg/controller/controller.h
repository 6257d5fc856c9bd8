/* The controller: watches Triggers and what they own, and makes the cluster what they say. One per process,
 * on its loop's thread.
 *
 * reflectors (Triggers, Deployments, pods of workers, Services) → keys in the work queue → reconcile, a few
 * at once: decode, resolve the sink, apply the children that are not what they should be, fold the status,
 * write it where it differs. Nothing is written while nothing changes. */
#pragma once

#include "api/trigger.h"
#include "kube/client.h"

struct controller;

struct controller_config {
        struct kube_client *client;
        const char *namespace_;                 /* NULL: all */
        const char *worker_image, *pull_policy; /* pull_policy NULL: Kubernetes' default */
        struct strings pull_secrets;            /* of workers, as child_context has them */
        const char *priority_class, *tolerations;
        const char *pod;      /* its own name, for events */
        int64_t workers;      /* Triggers reconciled at once */
        usec ending_deadline; /* how long a deleted Trigger waits for what it made outside */
        const struct source_type *types;
        size_t types_n;
};

int controller_new(struct controller **, const struct controller_config *, struct error *) MUST_CHECK;
struct controller *controller_free(struct controller *); /* NULL is fine */
bool controller_synced(const struct controller *);       /* every collection was listed: ready */
