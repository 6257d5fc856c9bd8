/* Finds the gates that a path may be for without asking each of them: an index by the literal beginning of
 * their paths, up to the first variable segment. Loop's thread. */
#pragma once

#include "base/buf.h"
#include "base/error.h"

struct route_place;
struct routes {
        struct route_place *places; /* by their literal beginning */
        uint32_t n, deepest;        /* number of routes; most segments that a beginning had */
};
struct route {                         /* embedded in its gate */
        struct route *next, *previous; /* of its place */
        struct route_place *place;     /* NULL: in none */
};

/* literal: need not be normalized; slashes at its end are ignored. */
int routes_add(struct routes *, struct route *, struct str literal, struct error *) MUST_CHECK;
void routes_remove(struct routes *, struct route *); /* one that was not added is fine */
/* Calls each for the routes whose beginning matches the normalized path (base/uri.h), and maybe for others,
 * until it returns false. */
void routes_each(const struct routes *, struct str path, bool (*each)(void *cookie, struct route *),
                 void *cookie);
