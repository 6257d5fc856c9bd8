/* Which Trigger is reached by which method and path, so that no two share one: requests would go to the first
 * alone, and nobody would be told. One thread at a time. */
#pragma once

#include "api/trigger.h"
#include "base/list.h"

struct path_owner;
struct paths { /* zeroed: empty */
        struct path_owner *owners;
};

/* Reserves every method and path of the Trigger, and puts them into its list. Error: another Trigger has one
 * of them, and none is reserved. Those of its predecessor, whose list is before (NULL: there is none), stay
 * with that one until paths_inherit. The Trigger is borrowed until paths_leave. A suspended one has no paths.
 */
int paths_take(struct paths *, struct list *mine, const struct list *before, const struct trigger *,
               struct error *) MUST_CHECK;
/* The Trigger that called paths_take last with this before has started: it gets those paths of its
 * predecessor that it has, too; the others become free. */
void paths_inherit(struct paths *, struct list *mine, struct list *before);
/* The Trigger that has one of its paths; NULL: none has. */
const struct trigger *paths_other(const struct paths *, const struct list *before, const struct trigger *);
void paths_leave(struct paths *, struct list *mine);
