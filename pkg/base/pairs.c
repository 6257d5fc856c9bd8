#include "base/pairs.h"

#include "base/random.h"

enum { FEW = 16 }; /* so many are compared with each other, and there is room for at first */

void pairs_add(struct pairs *p, struct str name, struct str value)
{
        if (p->n == p->cap && !p->failed) {
                size_t cap = p->cap ? 2 * p->cap : FEW;
                struct pair *list = cap < PAIRS_END ? realloc(p->list, cap * sizeof(*list)) : NULL;

                p->failed = !list;
                if (list) {
                        p->list = list;
                        p->cap = cap;
                }
        }
        if (!p->failed)
                p->list[p->n++] = (struct pair){ .name = name, .value = value, .next = PAIRS_END };
}

static bool same(const struct pairs *p, struct str a, struct str b)
{
        return p->nocase ? str_equal_nocase(a, b) : str_equal(a, b);
}

/* The last of the name so far, which gets a follower. */
static void follow(struct pairs *p, uint32_t last, uint32_t i)
{
        p->list[last].next = i;
        p->list[i].again = true;
}

static void compare_all(struct pairs *p)
{
        for (uint32_t i = 1; i < p->n; i++)
                for (uint32_t k = i; k-- > 0;)
                        if (same(p, p->list[k].name, p->list[i].name)) {
                                follow(p, k, i);
                                break;
                        }
}

static uint64_t hash_nocase(uint64_t seed, struct str s)
{
        char lower[256];
        uint64_t h = seed;

        while (s.n) {
                size_t n = MIN_OF(s.n, sizeof(lower));

                for (size_t i = 0; i < n; i++)
                        lower[i] = s.p[i] >= 'A' && s.p[i] <= 'Z' ? (char)(s.p[i] | 0x20) : s.p[i];
                h = hash_bytes(h, (struct str){ lower, n });
                s = (struct str){ s.p + n, s.n - n };
        }
        return h;
}

/* The last one of each name, by its hash; the seed is nobody's to foresee, so that names can't be chosen to
 * meet in one place. */
struct place {
        uint64_t hash;
        uint32_t last;
};

static void hash_all(struct pairs *p, struct place *places, size_t mask)
{
        uint64_t seed = random_seed();

        for (uint32_t i = 0; i < p->n; i++) {
                struct str name = p->list[i].name;
                uint64_t hash = p->nocase ? hash_nocase(seed, name) : hash_bytes(seed, name);
                size_t at = (size_t)hash & mask;

                while (places[at].last != PAIRS_END &&
                       (places[at].hash != hash || !same(p, p->list[places[at].last].name, name)))
                        at = (at + 1) & mask;
                if (places[at].last != PAIRS_END)
                        follow(p, places[at].last, i);
                places[at] = (struct place){ hash, i };
        }
}

void pairs_group(struct pairs *p)
{
        size_t size = 64;
        struct place *places;

        if (p->n <= FEW) {
                compare_all(p);
                return;
        }
        while (size < 2 * p->n)
                size *= 2;
        places = malloc(size * sizeof(*places));
        if (!places) {
                p->failed = true;
                return;
        }
        for (size_t i = 0; i < size; i++)
                places[i].last = PAIRS_END;
        hash_all(p, places, size - 1);
        free(places);
}

void pairs_done(struct pairs *p)
{
        free(p->list);
        *p = (struct pairs){ .nocase = p->nocase };
}
