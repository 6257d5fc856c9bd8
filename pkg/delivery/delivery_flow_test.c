#include "delivery/testing.h"

/* ---- turns -------------------------------------------------------------- */

/* Two lanes on which the function hangs are always due again before a slot is free. */
static void lanes_that_hang_leave_room_to_others(void **state UNUSED)
{
        size_t of_third = 0;

        begin((struct delivery_config){ .max_in_flight = 1,
                                        .timeout = 10 * USEC_SEC,
                                        .initial_backoff = USEC_MSEC,
                                        .max_backoff = USEC_SEC });
        for (uint32_t t = 0; t < 3; t++) {
                assign(t);
                (void)offer_sized(t, 0, NULL, 1);
        }
        pull();
        for (size_t i = 0; i < 20; i++) {
                while (i == b.sent_n)
                        next_deadline();
                if (b.sent[i].track == 2) {
                        of_third++;
                        accept(i);
                        (void)offer(2, of_third, NULL);
                }
        }
        assert_in_range(of_third, 5, 15);
        end();
}

static void dead_letters_that_hang_leave_room_to_others(void **state UNUSED)
{
        size_t accepted = 0;

        for (uint32_t slots = 1; slots <= 4; slots *= 4) {
                begin((struct delivery_config){ .max_in_flight = slots,
                                                .timeout = 10 * USEC_SEC,
                                                .initial_backoff = USEC_MSEC,
                                                .max_backoff = USEC_SEC,
                                                .on_exhausted = EXHAUSTED_DEAD_LETTER });
                for (uint32_t t = 0; t < 8; t++) {
                        assign(t);
                        (void)offer_sized(t, 0, NULL, 1);
                }
                pull();
                for (size_t i = 0; i < 60; i++) {
                        while (i == b.sent_n)
                                next_deadline();
                        if (b.sent[i].dead_letter)
                                continue;
                        if (b.sent[i].track < 7) {
                                answer_with(i, (struct answer){
                                                       .kind = ANSWER_FINAL, .status = 400, .text = "no" });
                                continue;
                        }
                        accept(i);
                        accepted++;
                        (void)offer(7, accepted, NULL);
                }
                assert_in_range(accepted, 15, 60);
                end();
                accepted = 0;
        }
}

/* ---- flow control ------------------------------------------------------- */

static void the_rate_is_kept(void **state UNUSED)
{
        begin((struct delivery_config){
                .ordering = ORDERING_NONE, .max_in_flight = 64, .rate = 100, .burst = 5 });
        assign(0);
        offer_all(40);
        assert_int_equal(b.sent_n, 5);
        for (size_t i = 0; i < 5; i++)
                accept(i);
        assert_int_equal(b.sent_n, 5);
        next_deadline();
        assert_int_equal(b.sent_n, 6);
        assert_in_range(b.now - USEC_HOUR, 9 * USEC_MSEC, 11 * USEC_MSEC);
        while (b.sent_n < 40)
                next_deadline();
        assert_in_range(b.now - USEC_HOUR, 345 * USEC_MSEC, 355 * USEC_MSEC);
        end();
}

/* A rate that does not divide a second must not be exceeded by what is lost in rounding. */
static void an_odd_rate_is_kept(void **state UNUSED)
{
        begin((struct delivery_config){ .ordering = ORDERING_NONE,
                                        .max_in_flight = 64,
                                        .max_records = 4096,
                                        .rate = 700001,
                                        .burst = 1 });
        assign(0);
        offer_all(MOST - 1);
        while (b.sent_n < MOST - 1) {
                if (b.sent_n > b.settled[OUTCOME_ACCEPTED])
                        accept(b.settled[OUTCOME_ACCEPTED]);
                else
                        next_deadline();
        }
        assert_true((b.now - USEC_HOUR + 1) * 700001 >= (usec)(MOST - 2) * USEC_SEC);
        end();
}

static void what_throttles_says_why_each_time(void **state UNUSED)
{
        begin((struct delivery_config){ .max_in_flight = 1 });
        assign(0);
        (void)offer(0, 0, NULL);
        answer_with(0, (struct answer){ .kind = ANSWER_RETRY,
                                        .status = 429,
                                        .overload = true,
                                        .retry_after = USEC_MINUTE,
                                        .text = "slow down" });
        assert_int_equal(b.state, DELIVERY_THROTTLED);
        delivery_revoke(b.d, 0, 0);
        pull();
        assert_int_equal(b.state, DELIVERY_IDLE);
        assign(1);
        (void)offer(1, 0, NULL);
        assert_int_equal(b.state, DELIVERY_THROTTLED);
        assert_string_equal(b.text, "slow down");
        end();
}

/* After an outage one request at a time is trusted. One that is at the sink waits for nobody, so nothing is
 * throttled, and old words are not news. */
static void what_is_over_is_not_told_of_the_next_request(void **state UNUSED)
{
        begin((struct delivery_config){ .ordering = ORDERING_NONE,
                                        .max_in_flight = 64,
                                        .initial_backoff = USEC_MSEC,
                                        .max_backoff = 10 * USEC_MSEC });
        assign(0);
        offer_all(64);
        for (size_t i = 0; i < 200; i++) {
                while (i == b.sent_n)
                        next_deadline();
                b.now += USEC_MSEC;
                answer_with(i, (struct answer){ .kind = ANSWER_RETRY,
                                                .overload = true,
                                                .text = "connection refused" });
        }
        assert_int_equal(b.state, DELIVERY_RETRYING);
        assert_string_equal(b.text, "connection refused");
        for (size_t i = 200; b.settled[OUTCOME_ACCEPTED] < 64; i++) {
                while (i == b.sent_n)
                        next_deadline();
                b.now += USEC_MSEC;
                accept(i);
                if (b.state == DELIVERY_THROTTLED && b.settled[OUTCOME_ACCEPTED] > 1 &&
                    !strstr(b.text, "connection refused"))
                        fail_msg("throttled for no reason: %s", b.text);
        }
        assert_int_equal(b.state, DELIVERY_IDLE);
        for (uint64_t position = 100; position < 110; position++) {
                size_t before = b.sent_n;

                b.now += USEC_MINUTE;
                (void)offer(0, position, NULL);
                assert_int_equal(b.sent_n, before + 1);
                assert_int_equal(b.state, DELIVERY_IDLE);
                accept(before);
                assert_int_equal(b.state, DELIVERY_IDLE);
        }
        end();
}

/* What waits behind a limit that was lowered is told so, and that the sink accepts. */
static void what_waits_is_told_that_the_sink_accepts_again(void **state UNUSED)
{
        size_t i;

        begin((struct delivery_config){ .ordering = ORDERING_NONE,
                                        .max_in_flight = 64,
                                        .initial_backoff = USEC_MSEC,
                                        .max_backoff = 10 * USEC_MSEC });
        assign(0);
        offer_all(64);
        for (i = 0; i < 200; i++) {
                while (i == b.sent_n)
                        next_deadline();
                b.now += USEC_MSEC;
                answer_with(i, (struct answer){ .kind = ANSWER_RETRY,
                                                .overload = true,
                                                .text = "connection refused" });
        }
        while (i == b.sent_n)
                next_deadline();
        b.now += USEC_MSEC;
        accept(i);
        for (uint64_t position = 100; position < 110; position++)
                offer_sized(0, position, NULL, 1);
        pull();
        assert_int_equal(b.state, DELIVERY_THROTTLED);
        assert_non_null(strstr(b.text, "accepts again, fewer requests at once since: connection refused"));
        end();
}

static void an_overloaded_sink_gets_less_and_then_a_pause(void **state UNUSED)
{
        struct delivery_stats s;
        size_t told = 0;

        begin((struct delivery_config){
                .ordering = ORDERING_NONE, .max_in_flight = 32, .initial_backoff = 100 * USEC_MSEC });
        assign(0);
        offer_all(32);
        assert_int_equal(b.sent_n, 32);
        for (size_t i = 0; i < 32; i++)
                answer_with(i,
                            (struct answer){
                                    .kind = ANSWER_RETRY, .status = 503, .overload = true, .text = "busy" });
        delivery_stats(b.d, &s);
        assert_int_equal(s.limit, 22); /* one round trip, one decrease */
        for (size_t i = 32; s.limit > 1; i++) {
                while (i == b.sent_n)
                        next_deadline();
                b.now += USEC_MSEC;
                answer_with(i,
                            (struct answer){
                                    .kind = ANSWER_RETRY, .status = 503, .overload = true, .text = "busy" });
                delivery_stats(b.d, &s);
        }
        for (int probes = 0; probes < 5; probes++) { /* one at a time from now on */
                size_t before = b.sent_n;

                while (b.sent_n == before)
                        next_deadline();
                assert_int_equal(b.sent_n, before + 1);
                b.now += USEC_MSEC;
                answer_with(before,
                            (struct answer){
                                    .kind = ANSWER_RETRY, .status = 503, .overload = true, .text = "busy" });
                if (!probes) { /* nothing is accepted: the circuit is open, and an outage is one state */
                        assert_int_equal(b.state, DELIVERY_RETRYING);
                        assert_string_equal(b.text, "busy");
                        told = b.states;
                }
        }
        assert_int_equal(b.states, told);
        end();
}

static void one_of_the_sinks_words_pauses_all(void **state UNUSED)
{
        begin((struct delivery_config){ .ordering = ORDERING_NONE, .max_in_flight = 8 });
        assign(0);
        offer_all(2);
        answer_with(0, (struct answer){ .kind = ANSWER_RETRY,
                                        .status = 429,
                                        .overload = true,
                                        .retry_after = 5 * USEC_SEC,
                                        .text = "slow down" });
        offer_sized(0, 2, NULL, 1);
        pull();
        assert_int_equal(b.sent_n, 2);
        assert_int_equal(b.state, DELIVERY_THROTTLED);
        next_deadline();
        assert_true(b.now - USEC_HOUR >= 5 * USEC_SEC);
        assert_int_equal(b.sent_n, 4);
        end();
}

static void statuses_have_their_class(void **state UNUSED)
{
        static const int retried[] = { 404, 408, 409, 425, 429, 500, 502, 503, 504, 599 },
                         final[] = { 0, 100, 199, 300, 301, 304, 400, 401, 403, 405, 410, 422, 499, 600 };

        for (int s = 200; s < 300; s++)
                assert_int_equal(answer_kind_of(s), ANSWER_ACCEPTED);
        for (size_t i = 0; i < COUNT_OF(retried); i++)
                assert_int_equal(answer_kind_of(retried[i]), ANSWER_RETRY);
        assert_int_equal(answer_kind_of(413), ANSWER_TOO_LARGE);
        for (size_t i = 0; i < COUNT_OF(final); i++)
                assert_int_equal(answer_kind_of(final[i]), ANSWER_FINAL);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(lanes_that_hang_leave_room_to_others),
                cmocka_unit_test(dead_letters_that_hang_leave_room_to_others),
                cmocka_unit_test(the_rate_is_kept),
                cmocka_unit_test(an_odd_rate_is_kept),
                cmocka_unit_test(what_throttles_says_why_each_time),
                cmocka_unit_test(what_is_over_is_not_told_of_the_next_request),
                cmocka_unit_test(what_waits_is_told_that_the_sink_accepts_again),
                cmocka_unit_test(an_overloaded_sink_gets_less_and_then_a_pause),
                cmocka_unit_test(one_of_the_sinks_words_pauses_all),
                cmocka_unit_test(statuses_have_their_class),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
