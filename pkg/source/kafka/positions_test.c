#include "source/kafka/positions.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void reading_goes_on_where_nothing_is_skipped(void **state UNUSED)
{
        static const struct { struct whereabouts w; bool first, latest; enum begin_reason reason; int64_t at; uint64_t lost; } cases[] = {
                { { -1, 10, 20 }, true, true, BEGIN_FIRST, 20, 0 },
                { { -1, 10, 20 }, true, false, BEGIN_FIRST, 10, 0 },
                { { -1, 10, 20 }, false, true, BEGIN_NEW, 10, 0 },
                { { -1, 10, 20 }, false, false, BEGIN_NEW, 10, 0 },
                { { 15, -1, -1 }, true, true, BEGIN_REACHED, 15, 0 },
                { { 10, 10, 20 }, false, true, BEGIN_REACHED, 10, 0 },
                { { 20, 10, 20 }, false, true, BEGIN_REACHED, 20, 0 },
                { { 9, 10, 20 }, false, true, BEGIN_RETENTION, 10, 1 },
                { { 0, 147, 152 }, true, false, BEGIN_RETENTION, 147, 147 },
                { { 5, 10, 10 }, false, true, BEGIN_RETENTION, 10, 5 },
                { { 21, 10, 20 }, false, true, BEGIN_RECREATED, 10, 0 },
                { { 6, 0, 0 }, true, true, BEGIN_RECREATED, 0, 0 },
        };

        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                const struct begin b = begin_of(&cases[i].w, cases[i].first, cases[i].latest);

                assert_int_equal(b.reason, cases[i].reason);
                assert_int_equal(b.at, cases[i].at);
                assert_int_equal(b.lost, cases[i].lost);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = { cmocka_unit_test(reading_goes_on_where_nothing_is_skipped) };

        return cmocka_run_group_tests_name("positions", tests, NULL, NULL);
}
