/* The admin port of a worker: /livez, /readyz, /metrics (Prometheus text), /status (JSON). Loop's thread. */
#pragma once

#include "http/server/server.h"
#include "worker/pipeline.h"

struct admin;

/* Pipelines are borrowed and may be added while it serves. */
int admin_new(struct admin **, struct loop *, const char *address, struct error *) MUST_CHECK;
struct admin *admin_free(struct admin *); /* NULL is fine */
int admin_add(struct admin *, struct pipeline *, struct error *) MUST_CHECK;
void admin_remove(struct admin *, const struct pipeline *);
void admin_drain(struct admin *); /* readiness off; requests are still answered */
uint16_t admin_port(const struct admin *);
