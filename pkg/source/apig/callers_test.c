#include "source/apig/callers.h"

#include <setjmp.h>
#include <stdarg.h>

#include "base/random.h"

#include <cmocka.h>

static struct callers *c;

static void begin(int64_t requests, usec period, int64_t burst, uint32_t most)
{
        const struct bucket_rate rate = bucket_rate(requests, period, burst);
        struct error err;

        assert_int_equal(callers_new(&c, &rate, most, &err), 0);
}

static void a_burst_then_the_rate(void **state UNUSED)
{
        usec now = USEC_HOUR, after;

        begin(4, USEC_SEC, 3, 10);
        for (int i = 0; i < 3; i++)
                assert_int_equal(callers_take(c, 1, now), 0);
        assert_int_equal(callers_take(c, 1, now), USEC_SEC / 4);
        /* being refused costs nothing */
        assert_int_equal(callers_take(c, 1, now + USEC_SEC / 4 - 1), 1);
        assert_int_equal(callers_take(c, 1, now + USEC_SEC / 4), 0);
        assert_int_equal(callers_take(c, 2, now), 0); /* others have their own */
        after = callers_take(c, 1, now + USEC_SEC / 4);
        assert_int_equal(after, USEC_SEC / 4);
        /* a rest gives no more than a burst */
        now += USEC_HOUR;
        for (int i = 0; i < 3; i++)
                assert_int_equal(callers_take(c, 1, now), 0);
        assert_int_not_equal(callers_take(c, 1, now), 0);
        c = callers_free(c);
}

/* What it asks for is true and the least: a moment before, it may not. */
static void the_time_to_wait_is_exact(void **state UNUSED)
{
        static const struct {
                int64_t requests;
                usec period;
                int64_t burst;
        } rates[] = { { 1, USEC_DAY, 1 },
                      { 7, USEC_SEC, 2 },
                      { 1000000, USEC_SEC, 1000000 },
                      { 3, USEC_MINUTE, 1 },
                      { 1000000, USEC_DAY, 1000000 },
                      { 1, USEC_DAY, 20000 } };

        for (size_t i = 0; i < COUNT_OF(rates); i++) {
                usec now = 12345, after = 0;
                int64_t n = 0;

                begin(rates[i].requests, rates[i].period, rates[i].burst, 2);
                while (n <= rates[i].burst + 5 && !(after = callers_take(c, 9, now)))
                        n++;
                assert_true(n == rates[i].burst);
                assert_true(after > 0 && after <= rates[i].period / rates[i].requests + 1);
                assert_int_equal(callers_take(c, 9, now + after - 1), 1);
                assert_int_equal(callers_take(c, 9, now + after), 0);
                c = callers_free(c);
        }
}

/* No caller gets more than burst plus rate, whatever the others do; while all have their places nobody gets
 * less, either. */
static void many_callers_each_by_itself(void **state UNUSED)
{
        enum { CALLERS = 64 };
        int64_t taken[CALLERS] = { 0 };
        usec now = 0;
        struct random r;

        random_init(&r, 1);
        begin(10, USEC_SEC, 5, CALLERS);
        for (int i = 0; i < 200000; i++) {
                uint64_t who = random_below(&r, CALLERS);

                now += (usec)random_below(&r, 400);
                /* hashes that fall together */
                taken[who] += callers_take(c, who << 32 | who % 4, now) == 0;
                assert_true(taken[who] <= 5 + 10 * now / USEC_SEC + 1);
        }
        for (int i = 0; i < CALLERS; i++)
                assert_true(taken[i] >= 10 * now / USEC_SEC - 5);
        assert_int_equal(callers_count(c), CALLERS);
        c = callers_free(c);
}

static void the_table_is_bounded_and_debts_are_kept_longest(void **state UNUSED)
{
        usec now = USEC_HOUR;

        begin(1, USEC_MINUTE, 1, 100);
        for (uint64_t who = 0; who < 100; who++)
                assert_int_equal(callers_take(c, who, now), 0);
        now += USEC_MINUTE + 1;                       /* all are full again, */
        assert_int_equal(callers_take(c, 0, now), 0); /* but for the first two */
        assert_int_equal(callers_take(c, 1, now), 0);
        for (uint64_t who = 1000; who < 1098; who++)
                assert_int_equal(callers_take(c, who, now), 0);
        assert_int_equal(callers_count(c), 100);
        assert_int_not_equal(callers_take(c, 0, now), 0);
        assert_int_not_equal(callers_take(c, 1, now), 0);
        /* nobody's is full: the one that has not called for longest goes */
        assert_int_equal(callers_take(c, 2000, now), 0);
        assert_int_not_equal(callers_take(c, 0, now), 0);
        assert_int_not_equal(callers_take(c, 1001, now), 0);
        assert_int_equal(callers_take(c, 1000, now), 0);
        assert_int_equal(callers_count(c), 100);
        c = callers_free(c);
}

static void one_that_was_not_seen_for_longest_but_owes_stays(void **state UNUSED)
{
        usec now = USEC_HOUR;

        begin(1, USEC_MINUTE, 10, 4);
        for (int i = 0; i < 10; i++)
                /* the oldest, with a debt of ten minutes */
                assert_int_equal(callers_take(c, 1, now), 0);
        for (uint64_t who = 2; who <= 4; who++)
                assert_int_equal(callers_take(c, who, now + 1), 0);
        now += USEC_MINUTE + 10;
        /* takes the place of one that owes nothing */
        assert_int_equal(callers_take(c, 5, now), 0);
        for (int i = 0; i < 2; i++)
                assert_true(i ? callers_take(c, 1, now) > 0 : callers_take(c, 1, now) == 0);
        c = callers_free(c);
}

/* The newest, the oldest and everyone in between: lists stay whole. */
static void strangers_come_and_go(void **state UNUSED)
{
        struct random r;

        random_init(&r, 2);
        begin(1, USEC_SEC, 1, 7);
        for (usec now = 0; now < 200000; now++) {
                (void)callers_take(c, random_below(&r, 30) * 0x10001, now * 10 * USEC_MSEC);
                assert_true(callers_count(c) <= 7);
        }
        c = callers_free(c);
        assert_null(callers_free(NULL));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_burst_then_the_rate),
                cmocka_unit_test(the_time_to_wait_is_exact),
                cmocka_unit_test(many_callers_each_by_itself),
                cmocka_unit_test(the_table_is_bounded_and_debts_are_kept_longest),
                cmocka_unit_test(one_that_was_not_seen_for_longest_but_owes_stays),
                cmocka_unit_test(strangers_come_and_go),
        };

        return cmocka_run_group_tests_name("callers", tests, NULL, NULL);
}
