/* Inside pkg/host: what a worker says of itself in its Trigger's status, and when: a failure that is over at
 * once is not worth a write to the API server. Loop's thread. */
#pragma once

#include "worker/pipeline.h"

struct report;
struct kube_client;

int report_new(struct report **, struct kube_client *, const char *pod, const struct trigger *,
               struct error *) MUST_CHECK;
struct report *report_free(struct report *); /* NULL is fine */
/* Returns when it wants to be told again, if nothing changes before. */
usec report_tell(struct report *, const struct pipeline_status *, usec now);
/* The cluster's; NULL: the file had none, and it was made of the name. */
const char *report_uid(const struct trigger *);
