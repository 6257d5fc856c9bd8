/* The admin port of a worker: /livez, /readyz, /metrics (Prometheus text), /status (JSON). Loop's thread. */
#pragma once

#include "base/list.h"
#include "http/server/server.h"
#include "worker/pipeline.h"

struct admin;

/* What is shown of all Triggers is made a few at a time: for probes, which must not wait, and for others. */
enum admin_walk { ADMIN_PROBES, ADMIN_REPORTS, ADMIN_WALKS };

/* What is shown of a Trigger. Its owner's; borrowed, with all that it names, until it is removed. */
struct admin_entry {
        struct list_node node;
        const struct pipeline *pipeline; /* NULL: none, as the next says */
        const char *failure;             /* as in pipeline_shown; NULL: none */
        const struct trigger *trigger;   /* without a pipeline */
        /* the admin port's */
        struct admin *admin;
        uint64_t shot[ADMIN_WALKS]; /* the last snapshot that shows it */
};

int admin_new(struct admin **, struct loop *, const char *address, struct error *) MUST_CHECK;
struct admin *admin_free(struct admin *);             /* NULL is fine */
void admin_add(struct admin *, struct admin_entry *); /* at any time */
void admin_remove(struct admin_entry *);              /* one that is not there is fine */
/* Another one of the same Trigger takes its place: it is shown once by each answer. */
void admin_replace(struct admin_entry *, struct admin_entry *by);
void admin_drain(struct admin *); /* readiness off; requests are still answered */
uint16_t admin_port(const struct admin *);
