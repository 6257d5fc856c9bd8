/* Which Trigger has which method and path, so that no two have the same: the second would never be called,
 * and nobody would say so. One thread at a time. */
#pragma once

#include "api/trigger.h"
#include "base/list.h"

struct path_owner;
struct paths { /* zeroed: empty */
        struct path_owner *owners;
};

/* Puts all that the Trigger is reached by into its list; an error: another Trigger has some of it already,
 * and nothing is taken. What its predecessor has, whose list is before (NULL: there is none), stays there
 * until paths_inherit. The Trigger is borrowed until paths_leave. One that is suspended has none. */
int paths_take(struct paths *, struct list *mine, const struct list *before, const struct trigger *,
               struct error *) MUST_CHECK;
/* The successor, which took last, has started: what both have is its own; the rest is nobody's. */
void paths_inherit(struct paths *, struct list *mine, struct list *before);
/* Whose paths keep it from having its own; NULL: nobody's do. */
const struct trigger *paths_other(const struct paths *, const struct list *before, const struct trigger *);
void paths_leave(struct paths *, struct list *mine);
