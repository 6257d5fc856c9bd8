/* The finalizers of a Kubernetes object. Pure. Any thread. */
#pragma once

#include <stdbool.h>

#include <jansson.h>

bool finalizers_have(json_t *object, const char *name);
/* A merge patch that puts one on (with) and takes one off (without; either may be NULL), for the version that
 * was read. Owned by the caller; NULL: out of memory. */
json_t *finalizers_patch(json_t *object, const char *with, const char *without);
