/* Where a Trigger's events and dead letters go: references resolved to URLs. Pure. */
#pragma once

#include <jansson.h>

#include "api/trigger.h"

struct destination {
        const struct sink_ref *ref; /* NULL: uri is absolute */
        const char *uri;
        const char *namespace_; /* of the Trigger */
        const char *path;       /* in the Trigger, for messages: "spec.sink" */
};
void sink_destination(const struct trigger *, struct destination *);
/* false: it needs no URL */
bool dead_letter_destination(const struct trigger *, struct destination *);
/* service: the trimmed core Service that ref names, NULL: it does not exist. 0 with the URL in out, or -1
 * with a condition's reason and message. */
int sink_resolve(const struct destination *, json_t *service, struct buf *out, const char **reason,
                 struct buf *message) MUST_CHECK;
