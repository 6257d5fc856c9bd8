/* Which Trigger has which method and path, so that no two have the same: the second would never be called,
 * and nobody would say so. One thread at a time. */
#pragma once

#include "api/trigger.h"
#include "base/list.h"

struct path_owner;
struct paths { /* zeroed: empty */
        struct path_owner *owners;
};

/* All that the Trigger is reached by, put into its list, or nothing and whose it is already. The Trigger is
 * borrowed until paths_leave. One that is suspended has none. */
int paths_take(struct paths *, struct list *mine, const struct trigger *, struct error *) MUST_CHECK;
/* Whose paths keep it from having its own; NULL: nobody's do. */
const struct trigger *paths_other(const struct paths *, const struct trigger *);
void paths_leave(struct paths *, struct list *mine);
