/* Inside pkg/host: the worker's entry in its Trigger's status, and when it is written: not for a failure that
 * is over at once. Loop's thread. */
#pragma once

#include "worker/pipeline.h"

struct report;
struct kube_client;

int report_new(struct report **, struct kube_client *, const char *pod, const struct trigger *,
               struct error *) MUST_CHECK;
struct report *report_free(struct report *); /* NULL is fine */
/* Returns when it is to be called again, if nothing changes before. */
usec report_tell(struct report *, const struct pipeline_status *, usec now);
/* The UID that the cluster gave it; NULL: none, it was made of the name. */
const char *report_uid(const struct trigger *);
