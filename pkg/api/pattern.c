#include <regex.h>
#include <stdatomic.h>

#include "api/schema.h"

/* Compiling a pattern takes a hundred times as long as matching it, and each Trigger is checked by the same
 * ones. They are few, since they stand in tables, so that they are kept for good: found by their address,
 * whoever is first compiles. regexec has a lock of its own for what it adds to one. */
struct pattern {
        struct pattern *next;
        const char *text;
        regex_t re;
};

static struct pattern *find(struct pattern *first, const char *text)
{
        for (struct pattern *p = first; p; p = p->next)
                if (p->text == text)
                        return p;
        return NULL;
}

static struct pattern *compile(const char *text)
{
        struct pattern *p = malloc(sizeof(*p));

        if (p && regcomp(&p->re, text, REG_EXTENDED | REG_NOSUB) == 0) {
                p->text = text;
                return p;
        }
        free(p);
        return NULL;
}

bool schema_matches(const char *pattern, const char *text)
{
        static _Atomic(struct pattern *) known[64];
        _Atomic(struct pattern *) *row = &known[((uintptr_t)pattern >> 4) % COUNT_OF(known)];
        struct pattern *p = find(atomic_load_explicit(row, memory_order_acquire), pattern);

        if (!p) {
                if (!(p = compile(pattern)))
                        return false;
                p->next = atomic_load_explicit(row, memory_order_acquire);
                /* Where two threads compile the same one at once, both are kept. */
                while (!atomic_compare_exchange_weak_explicit(row, &p->next, p, memory_order_release,
                                                              memory_order_acquire))
                        ;
        }
        return regexec(&p->re, text, 0, NULL, 0) == 0;
}
