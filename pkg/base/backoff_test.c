#include "base/backoff.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static usec ceiling_of(usec initial, usec most, unsigned attempt)
{
        usec c = initial;

        for (unsigned i = 0; i < attempt && c < most; i++)
                c = c > most / 2 ? most : c * 2;
        return MIN_OF(c, most);
}

static void stays_within_its_bounds(void **state UNUSED)
{
        static const struct {
                usec initial, most, floor;
        } all[] = {
                { USEC_SEC, USEC_MINUTE, 0 },
                { USEC_SEC, USEC_MINUTE, USEC_MSEC },
                { 1, 1, 0 },
                { 0, 0, 5 },
                { USEC_MINUTE, USEC_SEC, 0 },
                { 3, INT64_MAX / 2, 0 },
                { USEC_DAY, 30 * USEC_DAY, USEC_HOUR },
        };
        struct random r;

        random_init(&r, 1);
        for (size_t i = 0; i < COUNT_OF(all); i++)
                for (unsigned attempt = 0; attempt < 200; attempt++) {
                        usec ceiling = ceiling_of(all[i].initial, all[i].most, attempt);

                        for (int n = 0; n < 50; n++) {
                                usec wait = backoff_full_jitter(&r, all[i].initial, all[i].most, attempt,
                                                                all[i].floor);

                                assert_true(wait >= all[i].floor);
                                assert_true(wait <= MAX_OF(ceiling, all[i].floor));
                        }
                }
        assert_true(backoff_full_jitter(&r, 1, 10, UINT32_MAX, 0) <= 10);
}

static void reaches_both_ends(void **state UNUSED)
{
        bool seen[9] = { false };
        struct random r;

        random_init(&r, 2);
        for (int i = 0; i < 1000; i++)
                seen[backoff_full_jitter(&r, 1, 8, 3, 0)] = true;
        for (size_t i = 0; i < COUNT_OF(seen); i++)
                assert_true(seen[i]);
}

/* Full jitter: uniform from 0 to the ceiling, so the mean is half of it. */
static void the_mean_is_half_the_ceiling(void **state UNUSED)
{
        enum { DRAWS = 20000 };

        for (unsigned attempt = 0; attempt < 10; attempt++) {
                usec ceiling = ceiling_of(USEC_SEC, 100 * USEC_SEC, attempt);
                struct random r;
                double sum = 0;

                random_init(&r, attempt);
                for (int i = 0; i < DRAWS; i++)
                        sum += (double)backoff_full_jitter(&r, USEC_SEC, 100 * USEC_SEC, attempt, 0);
                assert_true(sum / DRAWS > 0.49 * (double)ceiling && sum / DRAWS < 0.51 * (double)ceiling);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(stays_within_its_bounds),
                cmocka_unit_test(reaches_both_ends),
                cmocka_unit_test(the_mean_is_half_the_ceiling),
        };
        return cmocka_run_group_tests_name("backoff", tests, NULL, NULL);
}
