#include "tests/sim/world.h"

/* The linker puts these in the place of the C library's (--wrap), so that an engine can run out of memory at
 * any step. */

void *__real_malloc(size_t);
void *__real_calloc(size_t, size_t);
void *__real_realloc(void *, size_t);
void *__wrap_malloc(size_t);
void *__wrap_calloc(size_t, size_t);
void *__wrap_realloc(void *, size_t);

static struct world *world;

void memory_of(struct world *w) { world = w; }

static bool out(void)
{
        return world && world->in_engine && world->no_memory_percent && faulty(world) &&
               chance(world, world->no_memory_percent);
}

void *__wrap_malloc(size_t n) { return out() ? NULL : __real_malloc(n); }
void *__wrap_calloc(size_t n, size_t size) { return out() ? NULL : __real_calloc(n, size); }
void *__wrap_realloc(void *p, size_t n) { return out() ? NULL : __real_realloc(p, n); }
