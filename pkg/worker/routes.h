/* Which of a process's gates a path may be for, without asking each: gates in places by the literal beginning
 * of their paths, up to the first segment that may vary. Loop's thread. */
#pragma once

#include "base/buf.h"
#include "base/error.h"

struct route_place;
struct routes {
        struct route_place *places; /* by what they begin with */
        uint32_t n, deepest;        /* routes; segments of the longest beginning there was */
};
struct route {                         /* in its gate */
        struct route *next, *previous; /* of its place */
        struct route_place *place;     /* NULL: in none */
};

/* literal: in whatever spelling; slashes at its end are nothing. */
int routes_add(struct routes *, struct route *, struct str literal, struct error *) MUST_CHECK;
void routes_remove(struct routes *, struct route *); /* one that stands nowhere is fine */
/* Each whose beginning the path has, in normal form (base/uri.h), and maybe others; false ends it. */
void routes_each(const struct routes *, struct str path, bool (*each)(void *cookie, struct route *),
                 void *cookie);
