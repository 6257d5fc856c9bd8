#include "worker/routes.h"

#define HASH_NONFATAL_OOM 1 /* what finds no memory is not in its table: hh.tbl is NULL */
#include "base/table.h"
#include "base/uri.h"

struct route_place {
        struct route *first;
        UT_hash_handle hh;
        size_t n;
        char literal[];
};

static struct str without_slashes(struct str s)
{
        while (s.n && s.p[s.n - 1] == '/')
                s.n--;
        return s;
}

static struct route_place *place_for(struct routes *r, struct str literal)
{
        struct route_place *place;

        HASH_FIND(hh, r->places, literal.p, literal.n, place);
        if (place)
                return place;
        place = calloc(1, sizeof(*place) + literal.n + 1);
        if (!place)
                return NULL;
        place->n = literal.n;
        memcpy(place->literal, literal.p, literal.n);
        HASH_ADD_KEYPTR(hh, r->places, place->literal, place->n, place);
        if (place->hh.tbl)
                return place;
        free(place);
        return NULL;
}

int routes_add(struct routes *r, struct route *route, struct str literal, struct error *err)
{
        BUF_AT_END struct buf space = BUF_INIT(BUF_DEFAULT_MAX);
        struct str normal = uri_path(literal, &space), key;
        struct route_place *place;
        uint32_t depth = 0;

        key = without_slashes(normal.p ? normal : STR(""));
        for (size_t i = 0; i < key.n; i++)
                depth += key.p[i] == '/';
        place = place_for(r, key.n ? key : STR(""));
        if (!place)
                return error_memory(err);
        *route = (struct route){ .next = place->first, .place = place };
        if (place->first)
                place->first->previous = route;
        place->first = route;
        r->deepest = MAX_OF(r->deepest, depth);
        r->n++;
        return 0;
}

void routes_remove(struct routes *r, struct route *route)
{
        struct route_place *place = route->place;

        if (!place)
                return;
        *(route->previous ? &route->previous->next : &place->first) = route->next;
        if (route->next)
                route->next->previous = route->previous;
        route->place = NULL;
        r->n--;
        if (place->first)
                return;
        HASH_DEL(r->places, place);
        free(place);
}

static bool each_at(const struct routes *r, struct str beginning, bool (*each)(void *, struct route *),
                    void *cookie)
{
        struct route_place *place;

        HASH_FIND(hh, r->places, beginning.p, beginning.n, place);
        for (struct route *route = place ? place->first : NULL, *next; route; route = next) {
                next = route->next;
                if (!each(cookie, route))
                        return false;
        }
        return true;
}

void routes_each(const struct routes *r, struct str path, bool (*each)(void *cookie, struct route *),
                 void *cookie)
{
        uint32_t depth = 0;
        size_t last = SIZE_MAX;

        for (size_t i = 0; i <= path.n && depth <= r->deepest; i++) {
                struct str beginning;

                if (i < path.n && path.p[i] != '/')
                        continue;
                beginning = without_slashes((struct str){ path.p, i });
                depth++;
                if (beginning.n == last)
                        continue;
                last = beginning.n;
                if (!each_at(r, beginning, each, cookie))
                        return;
        }
}
