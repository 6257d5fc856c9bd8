/* The store (port/store.h) over one ConfigMap, which exists already. Values are JSON objects. A write is a
 * merge patch that carries the resourceVersion it read, and its writer's name in each value: of two writers
 * that read the same, one loses, whatever they write, and is told ERROR_CONFLICT; it may read what the other
 * wrote and go on from there. A ConfigMap that was deleted and made again gets back what is known. Failures
 * of the network are told to the user, who decides when to try again. Loop's thread. */
#pragma once

#include "kube/client.h"
#include "port/store.h"

struct kube_checkpoint;

enum { KUBE_CHECKPOINT_WRITER = 16 }; /* characters of a writer's name */
struct kube_checkpoint_config {       /* copied */
        const char *namespace_, *name;
        /* the owner's UID: a ConfigMap that has owners, and this not among them, is left alone. NULL: any */
        const char *owner;
        const char *owner_kind; /* for errors; a constant, borrowed */
        /* letters and digits: no other process has this name, not even this one after a restart */
        const char *writer;
};
int kube_checkpoint_new(struct kube_checkpoint **, struct kube_client *,
                        const struct kube_checkpoint_config *, struct error *) MUST_CHECK;
/* after its requests; NULL is fine */
struct kube_checkpoint *kube_checkpoint_free(struct kube_checkpoint *);
struct store kube_checkpoint_port(struct kube_checkpoint *);
