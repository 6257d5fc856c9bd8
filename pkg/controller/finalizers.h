/* The finalizers of a Kubernetes object. Pure. Any thread. */
#pragma once

#include <stdbool.h>

#include <jansson.h>

/* On Triggers that make something outside the cluster. */
#define FINALIZER "sluice.dev/external-resources"
/* FINALIZER, and what it was called by earlier controllers, whose Triggers it still holds. */
extern const char *const finalizers_ours[];
extern const char *const finalizers_former[];
/* Put on by the API server: deleted once the dependents are gone. */
extern const char *const finalizers_foreground[];

/* Lists of names end in NULL. Is one of them on the object? */
bool finalizers_have(json_t *object, const char *const *names);
/* A merge patch that puts one on (with, may be NULL) and takes others off, for the version that was read.
 * Owned by the caller; NULL: out of memory. */
json_t *finalizers_patch(json_t *object, const char *with, const char *const *without);
