/* Where a Trigger's events go: spec.sink resolved to a URL. Pure. */
#pragma once

#include <jansson.h>

#include "api/trigger.h"

/* service: the trimmed core Service that sink.ref names, NULL: it does not exist. 0 with the URL in out, or -1 with a condition's reason and message. */
int sink_resolve(const struct trigger *, json_t *service, struct buf *out, const char **reason, struct buf *message) MUST_CHECK;
