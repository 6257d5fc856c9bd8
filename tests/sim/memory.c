#include "tests/sim/memory.h"

/* The linker puts these in the place of the C library's (--wrap), so that what is simulated can run out of
 * memory at any step. */

void *__real_malloc(size_t);
void *__real_calloc(size_t, size_t);
void *__real_realloc(void *, size_t);
void *__real_reallocarray(void *, size_t, size_t);
char *__real_strdup(const char *);
void *__wrap_malloc(size_t);
void *__wrap_calloc(size_t, size_t);
void *__wrap_realloc(void *, size_t);
void *__wrap_reallocarray(void *, size_t, size_t);
char *__wrap_strdup(const char *);
uint64_t __wrap_table_seed(void);

static bool (*refuse)(void *);
static void *whose;

void memory_of(bool (*refuses)(void *), void *cookie)
{
        refuse = refuses;
        whose = cookie;
}

static uint64_t until_failure;
static bool for_good, failed;

static bool refuse_nth(void *cookie UNUSED)
{
        if (failed)
                return for_good;
        failed = --until_failure == 0;
        return failed;
}

void memory_fails(uint64_t nth, bool all_after)
{
        memory_of(nth ? refuse_nth : NULL, NULL);
        if (!nth)
                return;
        until_failure = nth;
        for_good = all_after;
        failed = false;
}

bool memory_failed(void) { return failed; }

static bool out(void) { return refuse && refuse(whose); }

void *__wrap_malloc(size_t n) { return out() ? NULL : __real_malloc(n); }
void *__wrap_calloc(size_t n, size_t size) { return out() ? NULL : __real_calloc(n, size); }
void *__wrap_realloc(void *p, size_t n) { return out() ? NULL : __real_realloc(p, n); }
void *__wrap_reallocarray(void *p, size_t n, size_t size)
{
        return out() ? NULL : __real_reallocarray(p, n, size);
}
char *__wrap_strdup(const char *s) { return out() ? NULL : __real_strdup(s); }

/* Tables grow as their hashes fall, and a seed replays exactly. */
uint64_t __wrap_table_seed(void) { return 1; }
