/* The store (port/store.h) over one ConfigMap, which exists already. A write is a merge patch of one key that carries the resourceVersion it read: a second
 * writer loses and stops. Failures of the network are told to the user, who decides when to try again. Loop's thread. */
#pragma once

#include "kube/client.h"
#include "port/store.h"

struct kube_checkpoint;

int kube_checkpoint_new(struct kube_checkpoint **, struct kube_client *, const char *namespace_, const char *name, struct task *wake, struct error *) MUST_CHECK;
struct kube_checkpoint *kube_checkpoint_free(struct kube_checkpoint *);        /* NULL is fine */
struct store kube_checkpoint_port(struct kube_checkpoint *);
