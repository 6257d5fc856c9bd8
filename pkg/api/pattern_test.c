#include <dlfcn.h>
#include <pthread.h>
#include <regex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

#include "api/schema.h"

#include <cmocka.h>

static _Atomic unsigned compiled, freed;
static int (*real)(regex_t *, const char *, int);
static void (*really_free)(regex_t *);

int regcomp(regex_t *re, const char *pattern, int flags)
{
        int result = real(re, pattern, flags);

        if (result == 0)
                atomic_fetch_add(&compiled, 1);
        return result;
}

void regfree(regex_t *re)
{
        atomic_fetch_add(&freed, 1);
        really_free(re);
}

static const struct {
        const char *pattern, *text;
        bool matches;
} cases[] = {
        { "^[a-z]+$", "orders", true },          { "^[0-9]{1,3}$", "1234", false },
        { KAFKA_TOPIC_PATTERN, "..", false },    { KAFKA_TOPIC_PATTERN, "a.b", true },
        { "^" PORT_PATTERN "$", "65535", true }, { "^" PORT_PATTERN "$", "65536", false },
        { DURATION_PATTERN, "1h30m", true },
};

static void all_match_as_they_should(void)
{
        for (size_t i = 0; i < COUNT_OF(cases); i++)
                assert_int_equal(schema_matches(cases[i].pattern, cases[i].text), cases[i].matches);
}

static void each_pattern_is_compiled_once(void **state UNUSED)
{
        unsigned before;

        all_match_as_they_should();
        before = atomic_load(&compiled);
        assert_in_range(before, 1, COUNT_OF(cases));
        for (int i = 0; i < 100; i++)
                all_match_as_they_should();
        assert_int_equal(atomic_load(&compiled), before);
        assert_false(schema_matches("(", "("));
        all_match_as_they_should();
        schema_forget_patterns();
}

static void what_was_compiled_can_be_freed(void **state UNUSED)
{
        unsigned before = atomic_load(&compiled), n;

        assert_int_equal(atomic_load(&freed), before);
        all_match_as_they_should();
        n = atomic_load(&compiled) - before;
        assert_in_range(n, 1, COUNT_OF(cases));
        for (int i = 0; i < 2; i++) {
                schema_forget_patterns();
                assert_int_equal(atomic_load(&freed), before + n);
        }
        all_match_as_they_should();
        assert_int_equal(atomic_load(&compiled), before + 2 * n);
        schema_forget_patterns();
}

enum { THREADS = 4, PATTERNS = 40, ROUNDS = 50 };
static char many[PATTERNS][32];
static pthread_barrier_t together;

static void *match_all(void *wrong)
{
        pthread_barrier_wait(&together);
        for (int round = 0; round < ROUNDS; round++)
                for (size_t i = 0; i < PATTERNS; i++) {
                        const char text[] = { (char)('a' + i % 26), 0 };

                        *(unsigned *)wrong += !schema_matches(many[i], text) || schema_matches(many[i], "0");
                }
        schema_forget_patterns();
        return NULL;
}

static void threads_do_not_share_them(void **state UNUSED)
{
        unsigned wrong[THREADS] = { 0 }, before = atomic_load(&compiled);
        pthread_t threads[THREADS];

        for (size_t i = 0; i < PATTERNS; i++)
                (void)snprintf(many[i], sizeof(many[i]), "^[%c%c]{1,%zu}$", (char)('a' + i % 26),
                               (char)('a' + (i + 1) % 26), i + 1);
        assert_int_equal(pthread_barrier_init(&together, NULL, THREADS), 0);
        for (size_t i = 0; i < THREADS; i++)
                assert_int_equal(pthread_create(&threads[i], NULL, match_all, &wrong[i]), 0);
        for (size_t i = 0; i < THREADS; i++) {
                assert_int_equal(pthread_join(threads[i], NULL), 0);
                assert_int_equal(wrong[i], 0);
        }
        (void)pthread_barrier_destroy(&together);
        assert_int_equal(atomic_load(&compiled) - before, PATTERNS * THREADS);
        assert_int_equal(atomic_load(&freed), atomic_load(&compiled));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(each_pattern_is_compiled_once),
                cmocka_unit_test(what_was_compiled_can_be_freed),
                cmocka_unit_test(threads_do_not_share_them),
        };

        *(void **)&real = dlsym(RTLD_NEXT, "regcomp");
        *(void **)&really_free = dlsym(RTLD_NEXT, "regfree");
        return cmocka_run_group_tests_name("pattern", tests, NULL, NULL);
}
