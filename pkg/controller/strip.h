/* For when the chart is removed: takes our finalizer off all Triggers, so that they can be deleted without a
 * controller, and says what each leaves outside the cluster. One run; loop's thread. */
#pragma once

#include "api/trigger.h"
#include "kube/client.h"

struct strip;
struct strip_config {
        struct kube_client *client;
        const char *namespace_; /* NULL: all */
        const char *pod;        /* its own name, for events */
        /* NAMESPACE/NAME of the controller's Deployment: while it is there Triggers are in its care, and
         * nothing is done. NULL: it is gone */
        const char *unless;
        const struct source_type *types;
        size_t types_n;
        void (*remains)(void *cookie, const char *namespace_, const char *name, const char *what);
        void (*done)(void *cookie, const struct error *why); /* once; why NULL: all are off */
        void *cookie;
};
int strip_new(struct strip **, const struct strip_config *, struct error *) MUST_CHECK;
struct strip *strip_free(struct strip *); /* NULL is fine */
