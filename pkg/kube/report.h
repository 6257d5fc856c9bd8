/* A worker's entry of its object's status.workers[]: server-side apply of the status subresource with a
 * field manager of its own. Written at once when a state or message changes (but not more than once a
 * second), times and lag at most once a minute while they change, never when nothing did. The worker goes on
 * without an API server. Loop's thread. */
#pragma once

#include "api/status.h"
#include "kube/client.h"

struct kube_report;

struct kube_report_config {                        /* copied */
        const char *api_version, *kind, *resource; /* "example.com/v1", "Thing", "things" */
        const char *namespace_, *name;
        /* of the object it works for, so that it does not speak for a later one of the name; NULL: not known
         */
        const char *uid;
        const char *pod;
        const char *manager; /* the field manager, of this pod alone; cut to what the API server takes */
};
int kube_report_new(struct kube_report **, struct kube_client *, const struct kube_report_config *,
                    struct error *) MUST_CHECK;
struct kube_report *kube_report_free(struct kube_report *); /* NULL is fine */
/* copies; cheap when nothing changed */
void kube_report_set(struct kube_report *, const struct worker_status *);
