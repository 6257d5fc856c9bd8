#include "delivery/flow.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct flow f;
static struct random dice;
static usec now;

static void begin(struct flow_config config)
{
        if (!config.pause_initial) {
                config.pause_initial = 100 * USEC_MSEC;
                config.pause_most = 10 * USEC_SEC;
        }
        now = USEC_HOUR;
        random_init(&dice, 7);
        flow_init(&f, &config, now);
}

/* A request that took so long, with that many others still under way. */
static void accepted(uint32_t in_flight, usec took)
{
        now += took;
        flow_accepted(&f, in_flight, now - took, now);
}

static void refused(usec retry_after)
{
        now += USEC_MSEC;
        flow_refused(&f, &dice, now - 1, retry_after, now);
}

static uint32_t limit(void) { return (uint32_t)f.limit; }

/* ---- the limit ---------------------------------------------------------- */

static void it_starts_within_bounds(void **state UNUSED)
{
        begin((struct flow_config){ .initial = 8, .most = 100 });
        assert_int_equal(limit(), 8);
        assert_true(flow_allows(&f, 7, now));
        assert_false(flow_allows(&f, 8, now));
        assert_true(flow_deadline(&f, now) == USEC_NEVER); /* only an answer changes that */
        begin((struct flow_config){ .initial = 200, .most = 100 });
        assert_int_equal(limit(), 100);
        begin((struct flow_config){ .initial = 0, .most = 100 });
        assert_int_equal(limit(), 1);
}

static void what_is_accepted_raises_it(void **state UNUSED)
{
        begin((struct flow_config){ .initial = 1, .most = 10 });
        for (uint32_t i = 1; i <= 20; i++) {
                accepted(limit() - 1, USEC_MSEC);
                assert_int_equal(limit(), MIN_OF(i + 1, 10u));
        }
        assert_false(flow_throttles(&f, now));
}

static void what_is_not_used_does_not_raise_it(void **state UNUSED)
{
        begin((struct flow_config){ .initial = 8, .most = 100 });
        for (int i = 0; i < 100; i++)
                accepted(2, USEC_MSEC); /* three of eight */
        assert_int_equal(limit(), 8);
        accepted(3, USEC_MSEC); /* half of them */
        assert_int_equal(limit(), 9);
}

static void a_round_trip_lowers_it_once(void **state UNUSED)
{
        usec sent = USEC_HOUR + 1;

        begin((struct flow_config){ .initial = 100, .most = 100 });
        now += USEC_SEC;
        for (int i = 0; i < 50; i++)
                /* all were sent before the first of them came back */
                flow_refused(&f, &dice, sent, 0, now + i);
        assert_int_equal(limit(), 70);
        flow_refused(&f, &dice, now, 0, now + 60); /* not after the decrease, but with it */
        assert_int_equal(limit(), 70);
        flow_refused(&f, &dice, now + 1, 0, now + 60);
        assert_int_equal(limit(), 49);
}

static void it_comes_back_to_where_it_was_refused_and_then_slowly(void **state UNUSED)
{
        int more = 0;

        begin((struct flow_config){ .initial = 100, .most = 200 });
        refused(0);
        assert_int_equal(limit(), 70);
        for (int i = 0; i < 20; i++)
                accepted(limit() - 1, USEC_MSEC);
        assert_int_equal(limit(), 90);
        for (; limit() < 92; more++)
                accepted(limit() - 1, USEC_MSEC);
        assert_in_range(more, 88, 94); /* two a window */
}

/* ---- latency ------------------------------------------------------------ */

static void rising_latency_lowers_it(void **state UNUSED)
{
        begin((struct flow_config){ .initial = 64, .most = 64 });
        for (int i = 0; i < 100; i++)
                accepted(63, 10 * USEC_MSEC);
        assert_int_equal(limit(), 64);
        for (int i = 0; i < 30; i++)
                accepted(0, 100 * USEC_MSEC); /* ten times as long, but no more than a scheduler's whim */
        assert_int_equal(limit(), 64);
        for (int i = 0; i < 50; i++)
                accepted(0, USEC_SEC);
        assert_in_range(limit(), 1, 10);
}

static void what_is_slow_for_good_is_accepted(void **state UNUSED)
{
        begin((struct flow_config){ .initial = 64, .most = 64 });
        for (int i = 0; i < 10; i++)
                accepted(63, USEC_MSEC);
        for (int i = 0; i < 130; i++)
                accepted(limit() - 1, USEC_SEC);
        for (int i = 0; i < 3000; i++)
                accepted(limit() - 1, USEC_SEC);
        assert_int_equal(limit(), 64);
}

/* ---- an outage ---------------------------------------------------------- */

static void an_outage_opens_the_circuit(void **state UNUSED)
{
        usec longest = 0;

        begin((struct flow_config){ .initial = 4, .most = 64 });
        for (int i = 0; i < 3; i++)
                refused(0);
        assert_true(flow_allows(&f, 0, now)); /* a few may be chance */
        refused(0);
        assert_int_equal(limit(), 1);
        for (unsigned i = 0; i < 40; i++) {
                usec until = f.paused_until, most = i < 7 ? (100 * USEC_MSEC) << i : 10 * USEC_SEC;

                assert_in_range(until - now, USEC_MSEC, most);
                assert_true(flow_throttles(&f, now));
                assert_false(flow_allows(&f, 0, until - 1));
                assert_int_equal(flow_deadline(&f, now), until);
                longest = MAX_OF(longest, until - now);
                now = until;
                assert_true(flow_allows(&f, 0, now));
                assert_false(flow_allows(&f, 1, now)); /* one at a time */
                refused(0);
        }
        assert_true(longest > 5 * USEC_SEC);
}

static void after_an_outage_it_doubles_twice_a_second(void **state UNUSED)
{
        begin((struct flow_config){ .initial = 256, .most = 256 });
        while (limit() > 1)
                refused(0);
        now = f.paused_until;
        accepted(0, USEC_MSEC);
        for (usec began = now; now < began + 3 * USEC_SEC;) {
                assert_true(limit() <= 1u << ((now - began) / (USEC_SEC / 2)));
                accepted(limit() - 1, USEC_MSEC);
        }
        /* with a thousand answers a second it is the ramp that held it back */
        assert_in_range(limit(), 30, 64);
        while (now < f.paused_until + 30 * USEC_SEC)
                accepted(limit() - 1, USEC_MSEC);
        assert_int_equal(limit(), 256);
        assert_false(flow_throttles(&f, now));
}

static void a_second_outage_starts_afresh(void **state UNUSED)
{
        begin((struct flow_config){ .initial = 16, .most = 16 });
        for (int round = 0; round < 3; round++) {
                for (int i = 0; i < 30; i++)
                        refused(0);
                now = MAX_OF(now, f.paused_until);
                accepted(0, USEC_MSEC);
                assert_int_equal(limit(), 1);
                refused(0); /* alone it opens nothing */
                assert_true(f.paused_until <= now);
        }
}

static void throttling_ends(void **state UNUSED)
{
        begin((struct flow_config){ .initial = 64, .most = 64 });
        assert_false(flow_throttles(&f, now));
        refused(0);
        assert_false(flow_throttles(&f, now)); /* 44 of 64 */
        refused(0);
        assert_true(flow_throttles(&f, now)); /* 31 */
        accepted(limit() - 1, USEC_MSEC);
        accepted(limit() - 1, USEC_MSEC);
        assert_false(flow_throttles(&f, now));
        /* Where few requests are made the limit need not come back for it. */
        for (int i = 0; i < 30; i++)
                refused(0);
        now = f.paused_until;
        assert_true(flow_throttles(&f, now));
        for (int i = 0; i < 100; i++)
                accepted(0, 100 * USEC_MSEC);
        assert_false(flow_throttles(&f, now));
        assert_true(limit() < 32);
}

static void the_sinks_own_word_pauses(void **state UNUSED)
{
        usec until;

        begin((struct flow_config){ .initial = 8, .most = 8 });
        refused(5 * USEC_SEC);
        until = now + 5 * USEC_SEC;
        assert_int_equal(flow_deadline(&f, now), until);
        assert_true(flow_throttles(&f, now));
        refused(USEC_SEC); /* a shorter one does not end it */
        refused(-USEC_DAY);
        assert_int_equal(flow_deadline(&f, now), until);
        assert_false(flow_allows(&f, 0, until - 1));
        assert_true(flow_allows(&f, 0, until));
        assert_true(flow_deadline(&f, until) == USEC_NEVER);
}

/* ---- the rate ----------------------------------------------------------- */

static uint32_t send_all(void)
{
        uint32_t n = 0;

        for (; flow_allows(&f, 0, now); n++)
                flow_sent(&f, 1, now);
        return n;
}

static void the_rate_is_exact(void **state UNUSED)
{
        begin((struct flow_config){ .initial = 8, .most = 8, .rate = 100, .burst = 5 });
        assert_int_equal(send_all(), 5);
        for (int i = 1; i <= 1000; i++) {
                assert_int_equal(flow_deadline(&f, now), USEC_HOUR + i * 10 * USEC_MSEC);
                now = USEC_HOUR + i * 10 * USEC_MSEC - 1;
                assert_false(flow_allows(&f, 0, now));
                now++;
                assert_int_equal(send_all(), 1);
        }
        now += USEC_HOUR; /* a rest brings a burst, no more */
        assert_int_equal(send_all(), 5);
}

static void a_batch_is_paid_off(void **state UNUSED)
{
        begin((struct flow_config){ .initial = 8, .most = 8, .rate = 100, .burst = 5 });
        flow_sent(&f, 50, now);
        assert_false(flow_allows(&f, 0, now + 459 * USEC_MSEC));
        assert_true(flow_allows(&f, 0, now + 460 * USEC_MSEC));
}

static void no_rate_can_be_exceeded_by_rounding(void **state UNUSED)
{
        static const int64_t rates[] = { 1, 3, 7, 999, 70001 };

        for (size_t i = 0; i < COUNT_OF(rates); i++) {
                int64_t sent = 0;

                begin((struct flow_config){ .initial = 8, .most = 8, .rate = rates[i], .burst = 1 });
                while (sent < 3000) {
                        sent += send_all();
                        now = MIN_OF(flow_deadline(&f, now), now + USEC_DAY);
                        assert_true(sent <= 1 + (now - USEC_HOUR) * rates[i] / USEC_SEC);
                }
                /* time itself has microseconds only */
                assert_true(sent >= (now - USEC_HOUR) * rates[i] / USEC_SEC * 9 / 10 - 1);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(it_starts_within_bounds),
                cmocka_unit_test(what_is_accepted_raises_it),
                cmocka_unit_test(what_is_not_used_does_not_raise_it),
                cmocka_unit_test(a_round_trip_lowers_it_once),
                cmocka_unit_test(it_comes_back_to_where_it_was_refused_and_then_slowly),
                cmocka_unit_test(rising_latency_lowers_it),
                cmocka_unit_test(what_is_slow_for_good_is_accepted),
                cmocka_unit_test(an_outage_opens_the_circuit),
                cmocka_unit_test(after_an_outage_it_doubles_twice_a_second),
                cmocka_unit_test(a_second_outage_starts_afresh),
                cmocka_unit_test(throttling_ends),
                cmocka_unit_test(the_sinks_own_word_pauses),
                cmocka_unit_test(the_rate_is_exact),
                cmocka_unit_test(a_batch_is_paid_off),
                cmocka_unit_test(no_rate_can_be_exceeded_by_rounding),
        };
        return cmocka_run_group_tests_name("flow", tests, NULL, NULL);
}
