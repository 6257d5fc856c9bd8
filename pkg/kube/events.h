/* Kubernetes events (events.k8s.io/v1) about one kind of object: what `kubectl describe` shows. The same
 * reason and note about an object within ten minutes becomes a series, written at most once a minute; after
 * ten notes of one reason the others become one series. Writing is best effort and never holds anything up.
 * Loop's thread. */
#pragma once

#include "kube/client.h"

struct recorder;

int recorder_new(struct recorder **, struct kube_client *,
                 const char *controller /* "example.com/controller" */, const char *instance /* the pod */,
                 struct error *) MUST_CHECK;
/* For who may create events and not change them, since their names are known to nobody before and a right to
 * change one is a right to change all of the namespace: there are no series, and the same is told again after
 * ten minutes at the earliest. */
void recorder_only_creates(struct recorder *);
struct recorder *recorder_free(struct recorder *); /* NULL is fine */

struct event_object {
        const char *api_version, *kind, *namespace_, *name, *uid;
};
/* type: "Normal" or "Warning"; action: what was done, e.g. "Reconcile"; note at most 1,000 bytes are kept. */
void recorder_event(struct recorder *, const struct event_object *, const char *type, const char *reason,
                    const char *action, const char *note);
