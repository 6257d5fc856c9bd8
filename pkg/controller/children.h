/* The objects the controller keeps for a Trigger, built as JSON for server-side apply. Pure functions: what
 * goes in decides what comes out. Any thread. */
#pragma once

#include "api/trigger.h"
#include "json/writer.h"

/* In the order in which they are applied: the Deployment last, so that its hash says that all are there. */
enum child {
        CHILD_SERVICE_ACCOUNT,
        CHILD_ROLE,
        CHILD_ROLE_BINDING,
        CHILD_CONFIG_MAP,
        CHILD_CHECKPOINT,
        CHILD_SERVICE,
        CHILD_INGRESS,
        CHILD_LEASE, /* and the next: one for each slot that workers may share */
        CHILD_DEPLOYMENT = CHILD_LEASE + TRIGGER_REPLICAS_MOST,
        CHILD_MAX
};
static inline bool child_is_lease(enum child c) { return c >= CHILD_LEASE && c < CHILD_DEPLOYMENT; }
/* Does this Trigger have that child? A Service is for sources that requests reach, an Ingress for those that
 * are exposed, Leases for those whose workers share what they read. */
bool child_needed(enum child, const struct trigger *);

struct child_context {
        const struct trigger *trigger;
        const char *sink;            /* resolved, absolute */
        const char *dead_letter;     /* the same; NULL: none is needed */
        const char *image;           /* of the worker */
        const char *pull_policy;     /* NULL: Kubernetes' default */
        struct strings pull_secrets; /* names of Secrets that are in the Trigger's namespace */
        const char *priority_class;  /* NULL: none */
        const char *tolerations;     /* a JSON list, beside the Trigger's own; NULL: none */
        bool ending;                 /* the worker's last task: to take back what was made outside */
};
int child_replicas(const struct child_context *);

#define LABEL_MANAGED_BY "app.kubernetes.io/managed-by"
#define LABEL_INSTANCE "app.kubernetes.io/instance"
#define LABEL_COMPONENT "app.kubernetes.io/component"
#define ANNOTATION_HASH "sluice.dev/hash"

const char *child_kind(enum child);
/* orders-sluice, orders-checkpoint; of the Service of 7up: sluice-7up-svc */
void child_name(enum child, const char *trigger, struct buf *);
void child_path(enum child, const struct trigger *, struct buf *); /* of the API */
/* hash: stands in the Deployment's annotations and, since a change must roll it, in its pods'. */
void child_write(enum child, const struct child_context *, const char *hash, struct buf *out);
/* Where others reach it: "https://HOST/…" where it is exposed, otherwise "http://orders-sluice.shop.svc/…";
 * nothing where no request does. Appends. */
void child_address(const struct trigger *, struct buf *);
bool child_mounts_secrets(const struct trigger *); /* does its pod? */
/* Of all children's text: 16 hex digits. */
void children_hash(const struct child_context *, struct buf *out);
