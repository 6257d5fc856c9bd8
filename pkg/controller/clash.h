/* Which Triggers of a namespace would get into each other's way, such as two that read a stream of DIS as one
 * app: the one that came first runs, and the others wait until it is gone, suspended or changed. Which one
 * came first is known from the order in which they are told, of those that were there before the controller
 * from their status and age. Loop's thread. */
#pragma once

#include <jansson.h>

#include "api/trigger.h"

struct clash_member;
struct clash_group;
struct clashes { /* zeroed: empty */
        struct clash_member *members;
        struct clash_group *groups;
};

struct clash_change { /* borrowed */
        const char *namespace_, *name;
        json_t *object; /* as it is now; NULL: it is gone */
        bool later;     /* it came after those that are known */
};
/* changed: hears of those for whom that may make a difference. */
void clashes_note(struct clashes *, const struct clash_change *, const struct source_type *, size_t types_n,
                  void (*changed)(void *cookie, const char *namespace_, const char *name), void *cookie);
/* Must it wait for another? Appends for which, and why. */
bool clashes_find(const struct clashes *, const struct trigger *, struct buf *why);
void clashes_done(struct clashes *);
