/* A worker's entry of its Trigger's status.workers[]: server-side apply of the status subresource with a
 * field manager of its own. Written at once when a state or message changes (but not more than once a
 * second), times and lag at most once a minute while they change, never when nothing did. The worker goes on
 * without an API server. Loop's thread. */
#pragma once

#include "api/status.h"
#include "kube/client.h"

struct kube_report;

/* uid: of the Trigger it works for, so that it does not speak for a later one of the name; NULL: not known.
 */
int kube_report_new(struct kube_report **, struct kube_client *, const char *namespace_, const char *trigger,
                    const char *uid, const char *pod, struct error *) MUST_CHECK;
struct kube_report *kube_report_free(struct kube_report *); /* NULL is fine */
/* copies; cheap when nothing changed */
void kube_report_set(struct kube_report *, const struct worker_status *);
