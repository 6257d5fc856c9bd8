#include "source/timer/testing.h"

/* ---- tests -------------------------------------------------------------- */

static void the_first_tick_is_the_next_one(void **state UNUSED)
{
        open_at("2026-11-24T09:59:30Z", "1m", MISFIRE_FIRE_ONCE);
        poll_once();
        assert_false(b.assigned); /* not before the checkpoint is known */
        test_store_answer(&b.kept, ERROR_NONE);
        poll_once();
        assert_true(b.assigned);
        assert_int_equal(b.state, SOURCE_CONNECTED);
        assert_true(wakes_at() == USEC_NEVER); /* no credit */
        timer_source.pull->credit(b.source, 0, 1, 1000);
        poll_and_answer();
        assert_int_equal(wakes_at(), b.time.monotonic + 30 * USEC_SEC);
        pass(30 * USEC_SEC - 1);
        poll_and_answer();
        assert_null(b.lent);
        assert_int_equal(wakes_at(), b.time.monotonic + 1);
        pass(1);
        poll_and_answer();
        lent_is("2026-11-24T10:00:00Z");
        assert_string_equal(b.id, "uid-1/2026-11-24T10:00:00Z");
        close_source();
}

static void the_claim_is_durable_before_it_is_lent(void **state UNUSED)
{
        start("2026-11-24T09:59:30Z", "1m", MISFIRE_FIRE_ONCE);
        pass(USEC_MINUTE);
        poll_once();
        assert_int_equal(b.kept.waiting_n, 1);
        assert_non_null(strstr(b.kept.waiting[0].value, "\"claimed\":[1795514400000000]"));
        assert_null(b.lent);
        poll_once();
        assert_null(b.lent);
        test_store_answer(&b.kept, ERROR_NONE);
        poll_once();
        lent_is("2026-11-24T10:00:00Z");
        settle(OUTCOME_ACCEPTED);
        poll_once();
        assert_int_equal(b.kept.waiting_n, 1);
        assert_null(strstr(b.kept.waiting[0].value, "claimed"));
        assert_non_null(strstr(b.kept.waiting[0].value, "\"settled\":1795514400000000"));
        close_source();
}

/* Whoever made it may be at work on it for as long as a request may take. */
static void a_claim_found_at_start_is_sent_again_with_its_id(void **state UNUSED)
{
        static const enum misfire_policy all[] = { MISFIRE_SKIP, MISFIRE_FIRE_ONCE, MISFIRE_CATCH_UP };
        char id[400], claimed[sizeof(b.kept.value)];

        start("2026-11-24T09:59:30Z", "1m", MISFIRE_FIRE_ONCE);
        pass(USEC_MINUTE);
        poll_and_answer();
        lent_is("2026-11-24T10:00:00Z");
        memcpy(id, b.id, sizeof(id));
        memcpy(claimed, b.kept.value, sizeof(claimed));
        close_source(); /* a crash: neither settled nor released */
        for (size_t i = 0; i < COUNT_OF(all); i++) {
                memcpy(b.kept.value, claimed, sizeof(claimed));
                /* whatever the policy: it may have been accepted, or not */
                start("2026-11-24T12:34:56Z", "1m", all[i]);
                assert_null(b.lent);
                assert_int_equal(b.state, SOURCE_CONNECTED);
                assert_int_equal(wakes_at(), b.time.monotonic + USEC_MINUTE);
                b.time.wall += USEC_HOUR; /* the wall clock has no part in it */
                pass(USEC_MINUTE - 1);
                poll_and_answer();
                assert_null(b.lent);
                assert_int_equal(b.kept.puts, 0);
                pass(1);
                poll_and_answer();
                lent_is("2026-11-24T10:00:00Z");
                assert_string_equal(b.id, id);
                assert_int_equal(b.kept.puts, 1); /* it is this worker's now */
                close_source();
        }
}

static void it_waits_as_long_as_the_first_worker_may_take(void **state UNUSED)
{
        open_at("2026-11-24T09:59:30Z", "1m", MISFIRE_FIRE_ONCE);
        b.delivery.timeout = 10 * USEC_MINUTE;
        poll_and_answer();
        timer_source.pull->credit(b.source, 0, 1, 1000);
        pass(USEC_MINUTE);
        poll_and_answer();
        lent_is("2026-11-24T10:00:00Z");
        close_source();
        start("2026-11-24T10:00:40Z", "1m", MISFIRE_FIRE_ONCE); /* with a minute of its own */
        pass(10 * USEC_MINUTE - 1);
        poll_and_answer();
        assert_null(b.lent);
        pass(1);
        poll_and_answer();
        lent_is("2026-11-24T10:00:00Z");
        close_source();
}

static void a_claim_that_was_settled_meanwhile_is_not_sent_again(void **state UNUSED)
{
        start("2026-11-24T09:59:30Z", "1m", MISFIRE_SKIP);
        pass(30 * USEC_SEC);
        poll_and_answer();
        close_source();
        start("2026-11-24T10:00:10Z", "1m", MISFIRE_SKIP);
        (void)snprintf(b.kept.value, sizeof(b.kept.value),
                       "{\"source\":\"1m Asia/Shanghai\",\"settled\":%lld}",
                       (long long)at("2026-11-24T10:00:00Z"));
        pass(USEC_MINUTE);
        poll_and_answer();
        assert_null(b.lent);
        pass(50 * USEC_SEC);
        poll_and_answer();
        lent_is("2026-11-24T10:02:00Z");
        close_source();
}

static void a_claim_that_another_took_is_waited_for_anew(void **state UNUSED)
{
        start("2026-11-24T09:59:30Z", "1m", MISFIRE_SKIP);
        pass(30 * USEC_SEC);
        poll_and_answer();
        close_source();
        start("2026-11-24T10:00:10Z", "1m", MISFIRE_SKIP);
        (void)snprintf(
                b.kept.value, sizeof(b.kept.value),
                "{\"source\":\"1m Asia/Shanghai\",\"settled\":%lld,\"claimed\":%lld,\"timeout\":20000000}",
                (long long)at("2026-11-24T10:00:00Z"), (long long)at("2026-11-24T10:01:00Z"));
        pass(USEC_MINUTE);
        poll_and_answer();
        assert_null(b.lent);
        assert_int_equal(wakes_at(), b.time.monotonic + 20 * USEC_SEC);
        pass(20 * USEC_SEC);
        poll_and_answer();
        lent_is("2026-11-24T10:01:00Z");
        close_source();
}

static void a_settled_tick_is_not_sent_again(void **state UNUSED)
{
        start("2026-11-24T09:59:30Z", "1m", MISFIRE_CATCH_UP);
        pass(USEC_MINUTE);
        poll_and_answer();
        settle(OUTCOME_ACCEPTED);
        poll_and_answer();
        close_source();
        start("2026-11-24T10:00:40Z", "1m", MISFIRE_CATCH_UP);
        assert_null(b.lent);
        pass(30 * USEC_SEC);
        poll_and_answer();
        lent_is("2026-11-24T10:01:00Z");
        close_source();
}

static void prepare_misfire(enum misfire_policy policy, const char *back_at)
{
        start("2026-11-24T09:59:30Z", "1m", policy);
        pass(30 * USEC_SEC);
        poll_and_answer();
        settle(OUTCOME_ACCEPTED);
        poll_and_answer();
        close_source();
        start(back_at, "1m", policy);
}

static void missed_ticks_are_skipped(void **state UNUSED)
{
        prepare_misfire(MISFIRE_SKIP, "2026-11-24T10:05:30Z");
        assert_null(b.lent);
        pass(30 * USEC_SEC);
        poll_and_answer();
        lent_is("2026-11-24T10:06:00Z");
        close_source();
}

static void a_tick_within_grace_is_not_missed(void **state UNUSED)
{
        prepare_misfire(MISFIRE_SKIP, "2026-11-24T10:05:05Z");
        lent_is("2026-11-24T10:05:00Z");
        close_source();
}

static void the_latest_missed_tick_is_fired_once(void **state UNUSED)
{
        prepare_misfire(MISFIRE_FIRE_ONCE, "2026-11-24T10:05:30Z");
        lent_is("2026-11-24T10:05:00Z");
        settle(OUTCOME_ACCEPTED);
        timer_source.pull->credit(b.source, 0, 1, 1000);
        poll_and_answer();
        assert_null(b.lent);
        pass(30 * USEC_SEC);
        poll_and_answer();
        lent_is("2026-11-24T10:06:00Z");
        close_source();
}

static void missed_ticks_are_caught_up_oldest_first(void **state UNUSED)
{
        static const char *const all[] = { "2026-11-24T10:01:00Z", "2026-11-24T10:02:00Z",
                                           "2026-11-24T10:03:00Z" };

        prepare_misfire(MISFIRE_CATCH_UP, "2026-11-24T10:03:30Z");
        for (size_t i = 0; i < COUNT_OF(all); i++) {
                lent_is(all[i]);
                settle(OUTCOME_ACCEPTED);
                timer_source.pull->credit(b.source, 0, 1, 1000);
                poll_and_answer();
        }
        assert_null(b.lent);
        close_source();
}

static void without_a_checkpoint_nothing_fires(void **state UNUSED)
{
        start("2026-11-24T09:59:30Z", "1m", MISFIRE_SKIP);
        pass(30 * USEC_SEC);
        poll_once();
        for (int i = 0; i < 20; i++) { /* 20 attempts, a second or more apart */
                while (b.kept.waiting_n)
                        test_store_answer(&b.kept, ERROR_UNREACHABLE);
                poll_once();
                assert_null(b.lent);
                assert_int_equal(b.state, SOURCE_DISCONNECTED);
                assert_string_equal(b.text, "the store said no");
                assert_int_equal(b.kept.waiting_n, 0); /* not at once again */
                assert_int_equal(wakes_at(), b.time.monotonic + USEC_SEC);
                pass(USEC_SEC);
                poll_once();
                assert_true(b.kept.waiting_n > 0);
        }
        /* The tick of 10:00 is 20 s late by now: the policy skips it. */
        pass(USEC_SEC);
        while (b.kept.waiting_n)
                test_store_answer(&b.kept, ERROR_UNREACHABLE);
        poll_once();
        pass(USEC_SEC);
        poll_and_answer();
        assert_null(b.lent);
        assert_int_equal(b.state, SOURCE_CONNECTED);
        pass(38 * USEC_SEC);
        poll_and_answer();
        lent_is("2026-11-24T10:01:00Z");
        close_source();
}

static void a_store_that_cannot_be_read_is_asked_again(void **state UNUSED)
{
        open_at("2026-11-24T09:59:30Z", "1m", MISFIRE_FIRE_ONCE);
        poll_once();
        test_store_answer(&b.kept, ERROR_UNREACHABLE);
        poll_once();
        assert_false(b.assigned);
        assert_int_equal(b.state, SOURCE_DISCONNECTED);
        assert_int_equal(wakes_at(), b.time.monotonic + USEC_SEC);
        pass(USEC_SEC);
        poll_once();
        assert_int_equal(b.kept.waiting_n, 1);
        test_store_answer(&b.kept, ERROR_NONE);
        poll_once();
        assert_true(b.assigned);
        assert_int_equal(b.state, SOURCE_CONNECTED);
        close_source();
}

/* At 10:00, to another worker. */
static void lose_the_checkpoint(void)
{
        start("2026-11-24T09:59:30Z", "1m", MISFIRE_SKIP);
        pass(30 * USEC_SEC);
        poll_once();
        test_store_answer(&b.kept, ERROR_CONFLICT);
        poll_once();
        assert_int_equal(b.state, SOURCE_STANDBY);
}

/* Of two workers one sends a tick, and one is there when the other is gone. */
static void who_loses_the_checkpoint_stands_by(void **state UNUSED)
{
        lose_the_checkpoint();
        assert_null(b.lent);
        assert_int_equal(wakes_at(), b.time.monotonic + USEC_SEC);
        /* The other one sends it, and the next ones. */
        for (int i = 0; i < 5; i++) {
                (void)snprintf(b.kept.value, sizeof(b.kept.value),
                               "{\"source\":\"1m Asia/Shanghai\",\"settled\":%lld}",
                               (long long)(at("2026-11-24T10:00:00Z") + i * USEC_MINUTE));
                b.kept.found = true;
                for (int half_seconds = 0; half_seconds < 120; half_seconds++) {
                        pass(USEC_SEC / 2);
                        poll_and_answer();
                        assert_null(b.lent);
                        assert_int_equal(b.state, SOURCE_STANDBY);
                        assert_true(wakes_at() <= b.time.monotonic + USEC_MINUTE + 2 * USEC_SEC);
                }
        }
        assert_int_equal(b.kept.puts, 2); /* where it began, and the claim */
        /* It claims nothing any more. */
        pass(1500 * USEC_MSEC);
        poll_and_answer();
        assert_null(b.lent);
        pass(500 * USEC_MSEC);
        poll_and_answer();
        lent_is("2026-11-24T10:05:00Z");
        assert_int_equal(b.state, SOURCE_CONNECTED);
        close_source();
}

/* It says what is so, once it can look again, though it has nothing to write. */
static void a_standby_that_could_not_look_is_one_again(void **state UNUSED)
{
        lose_the_checkpoint();
        pass(USEC_SEC);
        poll_once();
        test_store_answer(&b.kept, ERROR_UNREACHABLE);
        poll_once();
        assert_int_equal(b.state, SOURCE_DISCONNECTED);
        (void)snprintf(b.kept.value, sizeof(b.kept.value),
                       "{\"source\":\"1m Asia/Shanghai\",\"settled\":%lld}",
                       (long long)at("2026-11-24T10:00:00Z"));
        b.kept.found = true;
        pass(USEC_SEC);
        poll_and_answer();
        assert_int_equal(b.state, SOURCE_STANDBY);
        close_source();
}

static void a_standby_takes_over_what_was_left_claimed(void **state UNUSED)
{
        start("2026-11-24T09:59:30Z", "1m", MISFIRE_FIRE_ONCE);
        pass(30 * USEC_SEC);
        poll_once();
        test_store_answer(&b.kept, ERROR_CONFLICT);
        poll_once();
        (void)snprintf(
                b.kept.value, sizeof(b.kept.value),
                "{\"source\":\"1m Asia/Shanghai\",\"settled\":%lld,\"claimed\":%lld,\"timeout\":60000000}",
                (long long)at("2026-11-24T09:59:00Z"), (long long)at("2026-11-24T10:00:00Z"));
        b.kept.found = true;
        pass(USEC_SEC);
        poll_and_answer();
        pass(USEC_MINUTE - 1);
        poll_and_answer();
        assert_null(b.lent);
        assert_int_equal(b.state, SOURCE_STANDBY);
        pass(1);
        poll_and_answer();
        lent_is("2026-11-24T10:00:00Z");
        assert_int_equal(b.state, SOURCE_CONNECTED);
        close_source();
}

/* ---- clocks ------------------------------------------------------------- */

static void settled_at_ten(enum misfire_policy policy)
{
        start("2026-11-24T09:59:30Z", "1m", policy);
        pass(30 * USEC_SEC);
        poll_and_answer();
        lent_is("2026-11-24T10:00:00Z");
        settle(OUTCOME_ACCEPTED);
        poll_and_answer();
        timer_source.pull->credit(b.source, 0, 1, 1000);
        poll_and_answer();
}

static void a_clock_that_is_put_forward_brings_what_was_missed(void **state UNUSED)
{
        static const struct {
                enum misfire_policy policy;
                usec step;
                const char *first;
                usec within;
        } cases[] = {
                { MISFIRE_FIRE_ONCE, USEC_HOUR, "2026-11-24T11:00:00Z", USEC_SEC },
                { MISFIRE_CATCH_UP, USEC_HOUR, "2026-11-24T10:01:00Z", USEC_SEC },
                { MISFIRE_SKIP, USEC_HOUR - 20 * USEC_SEC, "2026-11-24T11:00:00Z", 20 * USEC_SEC },
                { MISFIRE_FIRE_ONCE, 3653 * USEC_DAY, "2036-11-24T10:00:00Z", USEC_SEC },
                { MISFIRE_CATCH_UP, 3653 * USEC_DAY, "2026-11-24T10:01:00Z", USEC_SEC },
                { MISFIRE_SKIP, 3653 * USEC_DAY - 20 * USEC_SEC, "2036-11-24T10:00:00Z", 20 * USEC_SEC },
                /* a machine that slept */
                { MISFIRE_FIRE_ONCE, 70 * USEC_SEC, "2026-11-24T10:01:00Z", USEC_SEC },
        };

        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                (void)afresh(NULL);
                settled_at_ten(cases[i].policy);
                b.time.wall += cases[i].step;
                assert_true(until_lent(USEC_MINUTE) <= cases[i].within);
                lent_is(cases[i].first);
                close_source();
        }
}

static void a_machine_that_slept_fires_within_a_second(void **state UNUSED)
{
        settled_at_ten(MISFIRE_SKIP);
        pass(40 * USEC_SEC);
        poll_and_answer();
        b.time.wall += 30 * USEC_SEC;                          /* monotonic clocks stand still meanwhile */
        assert_true(until_lent(USEC_MINUTE) == 50 * USEC_SEC); /* 10:01 came 10 s ago: skipped */
        lent_is("2026-11-24T10:02:00Z");
        close_source();
        (void)afresh(NULL);
        settled_at_ten(MISFIRE_FIRE_ONCE);
        pass(40 * USEC_SEC);
        poll_and_answer();
        b.time.wall += 30 * USEC_SEC;
        assert_int_equal(until_lent(USEC_MINUTE), 0);
        lent_is("2026-11-24T10:01:00Z");
        close_source();
}

static void a_clock_that_is_put_back_repeats_nothing(void **state UNUSED)
{
        static const enum misfire_policy all[] = { MISFIRE_SKIP, MISFIRE_FIRE_ONCE, MISFIRE_CATCH_UP };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                (void)afresh(NULL);
                settled_at_ten(all[i]);
                b.time.wall -= USEC_HOUR;
                assert_int_equal(until_lent(2 * USEC_HOUR), USEC_HOUR + USEC_MINUTE);
                lent_is("2026-11-24T10:01:00Z");
                close_source();
        }
}

static void how_long_it_is_silent_is_said(void **state UNUSED)
{
        settled_at_ten(MISFIRE_FIRE_ONCE);
        close_source();
        start("2026-11-24T09:00:00Z", "1m", MISFIRE_FIRE_ONCE);
        assert_int_equal(b.state, SOURCE_CONNECTED);
        assert_non_null(strstr(b.text, "the clock was set back: all up to 2026-11-24T10:00:00Z was settled"));
        assert_int_equal(until_lent(2 * USEC_HOUR), USEC_HOUR + USEC_MINUTE);
        assert_string_equal(b.text, "");
        close_source();
}

static void one_that_is_put_back_far_does_not_silence_it(void **state UNUSED)
{
        static const enum misfire_policy all[] = { MISFIRE_SKIP, MISFIRE_FIRE_ONCE, MISFIRE_CATCH_UP };
        uint64_t position;

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                (void)afresh(NULL);
                settled_at_ten(all[i]);
                b.time.wall -= 2 * USEC_DAY;
                assert_int_equal(until_lent(2 * USEC_MINUTE), USEC_MINUTE);
                lent_is("2026-11-22T10:01:00Z");
                assert_non_null(strstr(b.text, "a position is refused, since it lies too far ahead of the "
                                               "clock: 2026-11-24T10:00:00Z"));
                position = b.lent->position;
                settle(OUTCOME_ACCEPTED);
                assert_int_equal(until_lent(2 * USEC_MINUTE), USEC_MINUTE);
                lent_is("2026-11-22T10:02:00Z");
                assert_true(b.lent->position > position);
                settle(OUTCOME_ACCEPTED);
                poll_and_answer();
                /* Put right again, what came before the step is not made up for. */
                b.time.wall += 2 * USEC_DAY;
                assert_true(until_lent(2 * USEC_MINUTE) <= USEC_MINUTE);
                lent_is(all[i] == MISFIRE_CATCH_UP ? "2026-11-24T10:01:00Z" : "2026-11-24T10:02:00Z");
                assert_string_equal(b.text, "");
                close_source();
        }
}

static void ten_years_ahead_and_back(void **state UNUSED)
{
        static const enum misfire_policy all[] = { MISFIRE_SKIP, MISFIRE_FIRE_ONCE, MISFIRE_CATCH_UP };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                (void)afresh(NULL);
                settled_at_ten(all[i]);
                b.time.wall += 3653 * USEC_DAY;
                (void)until_lent(2 * USEC_MINUTE);
                assert_non_null(b.lent);
                settle(OUTCOME_ACCEPTED);
                poll_and_answer();
                b.time.wall -= 3653 * USEC_DAY;
                assert_true(until_lent(2 * USEC_MINUTE) <= USEC_MINUTE);
                assert_int_equal(b.lent_at / USEC_DAY, at("2026-11-24T00:00:00Z") / USEC_DAY);
                close_source();
        }
}

static void a_position_in_the_future_found_at_start_does_not_silence_it(void **state UNUSED)
{
        (void)snprintf(b.kept.value, sizeof(b.kept.value),
                       "{\"source\":\"1m Asia/Shanghai\",\"settled\":%lld}",
                       (long long)at("2036-11-24T10:00:00Z"));
        b.kept.found = true;
        start("2026-11-24T09:59:30Z", "1m", MISFIRE_FIRE_ONCE);
        assert_int_equal(until_lent(USEC_MINUTE), 30 * USEC_SEC);
        lent_is("2026-11-24T10:00:00Z");
        settle(OUTCOME_ACCEPTED);
        poll_and_answer();
        assert_non_null(strstr(b.kept.value, "\"before\":"));
        close_source();
}

static void a_clock_that_wavers_sends_nothing_twice(void **state UNUSED)
{
        settled_at_ten(MISFIRE_FIRE_ONCE);
        b.time.wall -= 800 * USEC_MSEC;
        assert_int_equal(until_lent(2 * USEC_MINUTE), 60800 * USEC_MSEC);
        lent_is("2026-11-24T10:01:00Z");
        close_source();
}

/* The clocks go on between a turn and the question for its deadline. */
static void what_comes_due_behind_a_turn_is_seen_to(void **state UNUSED)
{
        usec retry;

        open_at("2026-11-24T09:59:30Z", "1m", MISFIRE_FIRE_ONCE);
        poll_once();
        test_store_answer(&b.kept, ERROR_UNREACHABLE);
        poll_once();
        retry = b.time.monotonic + USEC_SEC;
        pass(USEC_SEC - 1);
        poll_once();
        pass(1);
        assert_int_equal(wakes_at(), retry);
        poll_and_answer();
        timer_source.pull->credit(b.source, 0, 1, 1000);
        pass(29 * USEC_SEC - 1);
        poll_and_answer();
        assert_null(b.lent);
        pass(2);
        assert_true(wakes_at() <= b.time.monotonic);
        poll_and_answer();
        lent_is("2026-11-24T10:00:00Z");
        close_source();
}

static void another_schedule_starts_afresh(void **state UNUSED)
{
        start("2026-11-24T09:59:30Z", "1m", MISFIRE_CATCH_UP);
        pass(USEC_MINUTE);
        poll_and_answer(); /* claimed, not settled */
        close_source();
        start("2026-11-24T12:00:30Z", "2m", MISFIRE_CATCH_UP);
        assert_null(b.lent);
        pass(90 * USEC_SEC);
        poll_and_answer();
        lent_is("2026-11-24T12:02:00Z");
        close_source();
}

static void a_broken_checkpoint_starts_afresh(void **state UNUSED)
{
        static const char *const all[] = { "",
                                           "{",
                                           "[]",
                                           "null",
                                           "{\"source\":1}",
                                           "{\"source\":\"1m Asia/Shanghai\"}",
                                           "{\"source\":\"1m Asia/Shanghai\",\"settled\":\"x\"}" };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                (void)snprintf(b.kept.value, sizeof(b.kept.value), "%s", all[i]);
                b.kept.found = true;
                start("2026-11-24T12:00:30Z", "1m", MISFIRE_CATCH_UP);
                assert_null(b.lent);
                pass(30 * USEC_SEC);
                poll_and_answer();
                lent_is("2026-11-24T12:01:00Z");
                close_source();
        }
}

static void a_released_tick_is_sent_after_the_restart(void **state UNUSED)
{
        start("2026-11-24T09:59:30Z", "1m", MISFIRE_SKIP);
        pass(30 * USEC_SEC);
        poll_and_answer();
        timer_source.pull->stop(b.source);
        poll_and_answer();
        assert_true(b.revoking);
        assert_false(b.closed);
        settle(OUTCOME_RELEASED);
        timer_source.pull->revoked(b.source, 0);
        poll_and_answer();
        assert_true(b.closed);
        assert_int_equal(b.lent_n, 1);
        close_source();
        start("2026-11-24T11:00:00Z", "1m", MISFIRE_SKIP);
        lent_is("2026-11-24T10:00:00Z");
        close_source();
}

static void stop_waits_for_the_last_write(void **state UNUSED)
{
        start("2026-11-24T09:59:30Z", "1m", MISFIRE_FIRE_ONCE);
        pass(USEC_MINUTE);
        poll_and_answer();
        timer_source.pull->stop(b.source);
        poll_once();
        settle(OUTCOME_ACCEPTED);
        timer_source.pull->revoked(b.source, 0);
        poll_once();
        assert_false(b.closed);
        test_store_answer(&b.kept, ERROR_NONE);
        poll_once();
        assert_true(b.closed);
        assert_non_null(strstr(b.kept.value, "\"settled\":1795514400000000"));
        close_source();
}

static void the_event_is_the_golden_one(void **state UNUSED)
{
        BUF_AT_END struct buf golden = BUF_INIT(4096), event = BUF_INIT(4096), described = BUF_INIT(4096);
        struct error err;
        struct writer w;

        if (buf_read_file(&golden, "pkg/source/timer/testdata/event.json", &err) < 0)
                fail_msg("%s", err.text);
        start("2026-11-24T09:59:30Z", "1m", MISFIRE_FIRE_ONCE);
        pass(USEC_MINUTE);
        poll_and_answer();
        for (int dialect = DIALECT_CLASSIC; dialect <= DIALECT_CURRENT; dialect++) {
                buf_reset(&event);
                writer_init(&w, &event);
                b.trigger.event->dialect = dialect;
                timer_source.shape->encode(&b.trigger, &b.lent, 1, &w);
                assert_string_equal(event.p, golden.p);
        }
        writer_init(&w, &described);
        timer_source.shape->describe(b.lent, &w);
        assert_string_equal(described.p,
                            "{\"time\":\"2026-11-24T10:00:00Z\",\"userEvent\":\"say \\\"hi\\\"\"}");
        close_source();
}

static void a_bad_spec_does_not_open(void **state UNUSED)
{
        char schedule[] = "0 0 25 * *", good[] = "1m", zone[] = "Mars/Olympus", utc[] = "UTC";
        struct source *s = NULL;
        struct error err = { 0 };

        open_at("2026-11-24T09:59:30Z", "1m", MISFIRE_SKIP);
        assert_int_equal(timer_source.open(&s, &(struct timer_spec){ .schedule = schedule, .time_zone = utc },
                                           &b.services, &err),
                         -1);
        assert_non_null(strstr(err.text, "is no hour"));
        assert_int_equal(timer_source.open(&s, &(struct timer_spec){ .schedule = good, .time_zone = zone },
                                           &b.services, &err),
                         -1);
        assert_non_null(strstr(err.text, "Mars/Olympus"));
        assert_null(s);
        assert_null(timer_source.pull->free(NULL));
        close_source();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup(the_first_tick_is_the_next_one, afresh),
                cmocka_unit_test_setup(the_claim_is_durable_before_it_is_lent, afresh),
                cmocka_unit_test_setup(a_claim_found_at_start_is_sent_again_with_its_id, afresh),
                cmocka_unit_test_setup(it_waits_as_long_as_the_first_worker_may_take, afresh),
                cmocka_unit_test_setup(a_claim_that_was_settled_meanwhile_is_not_sent_again, afresh),
                cmocka_unit_test_setup(a_claim_that_another_took_is_waited_for_anew, afresh),
                cmocka_unit_test_setup(a_settled_tick_is_not_sent_again, afresh),
                cmocka_unit_test_setup(missed_ticks_are_skipped, afresh),
                cmocka_unit_test_setup(a_tick_within_grace_is_not_missed, afresh),
                cmocka_unit_test_setup(the_latest_missed_tick_is_fired_once, afresh),
                cmocka_unit_test_setup(missed_ticks_are_caught_up_oldest_first, afresh),
                cmocka_unit_test_setup(without_a_checkpoint_nothing_fires, afresh),
                cmocka_unit_test_setup(a_store_that_cannot_be_read_is_asked_again, afresh),
                cmocka_unit_test_setup(who_loses_the_checkpoint_stands_by, afresh),
                cmocka_unit_test_setup(a_standby_that_could_not_look_is_one_again, afresh),
                cmocka_unit_test_setup(a_standby_takes_over_what_was_left_claimed, afresh),
                cmocka_unit_test_setup(a_clock_that_is_put_forward_brings_what_was_missed, afresh),
                cmocka_unit_test_setup(a_machine_that_slept_fires_within_a_second, afresh),
                cmocka_unit_test_setup(a_clock_that_is_put_back_repeats_nothing, afresh),
                cmocka_unit_test_setup(how_long_it_is_silent_is_said, afresh),
                cmocka_unit_test_setup(one_that_is_put_back_far_does_not_silence_it, afresh),
                cmocka_unit_test_setup(ten_years_ahead_and_back, afresh),
                cmocka_unit_test_setup(a_position_in_the_future_found_at_start_does_not_silence_it, afresh),
                cmocka_unit_test_setup(a_clock_that_wavers_sends_nothing_twice, afresh),
                cmocka_unit_test_setup(what_comes_due_behind_a_turn_is_seen_to, afresh),
                cmocka_unit_test_setup(another_schedule_starts_afresh, afresh),
                cmocka_unit_test_setup(a_broken_checkpoint_starts_afresh, afresh),
                cmocka_unit_test_setup(a_released_tick_is_sent_after_the_restart, afresh),
                cmocka_unit_test_setup(stop_waits_for_the_last_write, afresh),
                cmocka_unit_test_setup(the_event_is_the_golden_one, afresh),
                cmocka_unit_test_setup(a_bad_spec_does_not_open, afresh),
        };
        return cmocka_run_group_tests_name("timer", tests, NULL, leave);
}
