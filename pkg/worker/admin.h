/* The admin port of a worker: /livez, /readyz, /metrics (Prometheus text), /status (JSON). Loop's thread. */
#pragma once

#include "base/list.h"
#include "http/server/server.h"
#include "worker/pipeline.h"

struct admin;

/* Snapshots of all Triggers are made a few Triggers at a time. Probes have a queue of their own, so that they
 * don't wait for scrapes. */
enum admin_walk { ADMIN_PROBES, ADMIN_REPORTS, ADMIN_WALKS };

/* A Trigger to show. Embedded in its owner; it and what it points to must stay until it is removed. */
struct admin_entry {
        struct list_node node;
        const struct pipeline *pipeline; /* NULL: there is none, and failure says why */
        const char *failure;             /* as in pipeline_shown; NULL: none */
        const struct trigger *trigger;   /* without a pipeline */
        /* private to the admin port: */
        struct admin *admin;
        uint64_t shot[ADMIN_WALKS]; /* the last snapshot that shows it */
};

int admin_new(struct admin **, struct loop *, const char *address, struct error *) MUST_CHECK;
struct admin *admin_free(struct admin *);             /* NULL is fine */
void admin_add(struct admin *, struct admin_entry *); /* at any time */
void admin_remove(struct admin_entry *);              /* one that was not added is fine */
/* Replaces the entry of a Trigger by another one, so that each answer shows the Trigger once. */
void admin_replace(struct admin_entry *, struct admin_entry *by);
void admin_drain(struct admin *); /* readiness off; requests are still answered */
uint16_t admin_port(const struct admin *);
