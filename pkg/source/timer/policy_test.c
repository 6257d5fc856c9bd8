#include "source/timer/testing.h"

/* Settles 10:00, and is there again at that time. */
static void back_at(const char *time, enum misfire_policy policy)
{
        start("2026-11-24T09:59:30Z", "1m", policy);
        pass(30 * USEC_SEC);
        poll_and_answer();
        settle(OUTCOME_ACCEPTED);
        poll_and_answer();
        close_source();
        start(time, "1m", policy);
}

static void settle_and_go_on(void)
{
        settle(OUTCOME_ACCEPTED);
        timer_source.pull->credit(b.source, 0, 1, 1000);
        poll_and_answer();
}

/* ---- misfires ------------------------------------------------------------ */

static void two_minutes(struct timer_spec *spec) { spec->misfire_max_age = 2 * USEC_MINUTE; }

static void what_is_too_old_is_not_caught_up(void **state UNUSED)
{
        static const char *const all[] = { "2026-11-24T10:08:00Z", "2026-11-24T10:09:00Z",
                                           "2026-11-24T10:10:00Z" };

        adjust = two_minutes;
        back_at("2026-11-24T10:10:00Z", MISFIRE_CATCH_UP);
        for (size_t i = 0; i < COUNT_OF(all); i++) {
                lent_is(all[i]);
                settle_and_go_on();
        }
        assert_null(b.lent);
        close_source();
        (void)afresh(NULL);
        adjust = two_minutes;
        back_at("2026-11-24T10:10:01Z", MISFIRE_CATCH_UP);
        lent_is("2026-11-24T10:09:00Z");
        close_source();
}

static void daily(struct timer_spec *spec)
{
        static char schedule[] = "0 0 8 * *";

        spec->schedule = schedule;
        spec->misfire_max_age = USEC_HOUR;
}

static void the_latest_is_dropped_when_it_is_too_old(void **state UNUSED)
{
        static const struct {
                const char *back, *lent;
        } all[] = {
                { "2026-11-25T00:59:59Z", "2026-11-25T00:00:00Z" }, /* 08:00 in Shanghai */
                { "2026-11-25T01:00:00Z", "2026-11-25T00:00:00Z" },
                { "2026-11-25T01:00:01Z", NULL },
        };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                (void)afresh(NULL);
                adjust = daily;
                start("2026-11-24T12:00:00Z", "", MISFIRE_FIRE_ONCE);
                pass(USEC_SEC);
                poll_and_answer();
                (void)snprintf(b.kept.value, sizeof(b.kept.value),
                               "{\"source\":\"0 0 8 * * Asia/Shanghai\",\"settled\":%lld}",
                               (long long)at("2026-11-24T12:00:00Z"));
                b.kept.found = true;
                close_source();
                start(all[i].back, "", MISFIRE_FIRE_ONCE);
                if (all[i].lent)
                        lent_is(all[i].lent);
                else
                        assert_null(b.lent);
                close_source();
        }
}

static void two_hundred_seconds(struct timer_spec *spec) { spec->starting_deadline = 200 * USEC_SEC; }

/* As a CronJob with startingDeadlineSeconds: 200. */
static void within_its_starting_deadline_a_tick_is_not_missed(void **state UNUSED)
{
        adjust = two_hundred_seconds;
        back_at("2026-11-24T10:05:40Z", MISFIRE_SKIP);
        lent_is("2026-11-24T10:05:00Z"); /* the latest alone */
        settle_and_go_on();
        assert_null(b.lent);
        close_source();
}

/* ---- one at a time, or many ---------------------------------------------- */

static void while_one_is_delivered_the_next_wait(void **state UNUSED)
{
        static const enum misfire_policy all[] = { MISFIRE_SKIP, MISFIRE_FIRE_ONCE, MISFIRE_CATCH_UP };
        static const char *const then[] = { NULL, "2026-11-24T10:03:00Z", "2026-11-24T10:01:00Z" };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                (void)afresh(NULL);
                start("2026-11-24T09:59:30Z", "1m", all[i]);
                timer_source.pull->credit(b.source, 0, 10, 1000);
                pass(30 * USEC_SEC);
                poll_and_answer();
                lent_is("2026-11-24T10:00:00Z");
                pass(3 * USEC_MINUTE + 10 * USEC_SEC);
                poll_and_answer();
                assert_int_equal(b.lent_n, 1);
                assert_int_equal(wakes_at(), USEC_NEVER); /* nothing is to be done before that ends */
                settle(OUTCOME_ACCEPTED);
                poll_and_answer();
                if (then[i])
                        lent_is(then[i]);
                else
                        assert_null(b.lent);
                close_source();
        }
}

static void allow(struct timer_spec *spec) { spec->concurrency_policy = CONCURRENCY_ALLOW; }

static void allowed_start(const char *wall, const char *schedule, enum misfire_policy policy)
{
        adjust = allow;
        open_at(wall, schedule, policy);
        b.many = true;
        poll_and_answer();
        timer_source.pull->credit(b.source, 0, 32, 32000);
        poll_and_answer();
}

static void none_waits_for_another_that_is_delivered(void **state UNUSED)
{
        allowed_start("2026-11-24T09:59:30Z", "1m", MISFIRE_FIRE_ONCE);
        pass(30 * USEC_SEC);
        poll_and_answer();
        for (int i = 0; i < 3; i++) {
                pass(USEC_MINUTE);
                poll_and_answer();
        }
        assert_int_equal(b.out_n, 4);
        lent_is("2026-11-24T10:03:00Z");
        assert_non_null(strstr(b.kept.value,
                               "\"claimed\":[1795514400000000,1795514460000000,1795514520000000,"
                               "1795514580000000]"));
        /* They end in any order, and each is settled by itself. */
        settle_one(2, OUTCOME_ACCEPTED);
        settle_one(0, OUTCOME_ACCEPTED);
        poll_and_answer();
        assert_non_null(strstr(b.kept.value, "\"claimed\":[1795514460000000,1795514580000000]"));
        assert_non_null(strstr(b.kept.value, "\"settled\":1795514580000000"));
        close_source();
        /* A crash: those that were not settled come again, and no other. */
        allowed_start("2026-11-24T10:03:30Z", "1m", MISFIRE_CATCH_UP);
        assert_int_equal(b.out_n, 0);
        pass(USEC_MINUTE);
        poll_and_answer();
        assert_true(b.out_n >= 2);
        assert_true(b.out[0]->time == at("2026-11-24T10:01:00Z"));
        assert_true(b.out[1]->time == at("2026-11-24T10:03:00Z"));
        assert_true(b.out_n == 3 && b.out[2]->time == at("2026-11-24T10:04:00Z"));
        close_source();
}

static void what_is_on_time_is_sent_each_where_many_are_allowed(void **state UNUSED)
{
        allowed_start("2026-11-24T09:59:59Z", "@every 500ms", MISFIRE_SKIP);
        pass(2 * USEC_SEC); /* the loop was busy */
        poll_and_answer();
        assert_int_equal(b.out_n, 4);
        close_source();
}

static void no_more_are_under_way_than_may_be(void **state UNUSED)
{
        allowed_start("2026-11-24T09:59:30Z", "1s", MISFIRE_CATCH_UP);
        for (int i = 0; i < 40; i++) {
                pass(USEC_SEC);
                poll_and_answer();
        }
        assert_int_equal(b.out_n, 16); /* maxInFlight */
        settle_one(0, OUTCOME_ACCEPTED);
        poll_and_answer();
        assert_int_equal(b.out_n, 16);
        assert_true(b.lent_at == at("2026-11-24T09:59:47Z")); /* the next in order */
        close_source();
}

/* ---- jitter -------------------------------------------------------------- */

static void an_hour_of_jitter(struct timer_spec *spec) { spec->jitter = USEC_HOUR; }

static void a_tick_is_sent_later_by_the_same_jitter(void **state UNUSED)
{
        usec shift;

        adjust = an_hour_of_jitter;
        open_at("2026-11-24T09:30:00Z", "1h", MISFIRE_SKIP);
        shift = timer_jitter(&b.spec, b.trigger.uid);
        assert_true(shift > USEC_MINUTE && shift < USEC_HOUR); /* of this UID */
        poll_and_answer();
        timer_source.pull->credit(b.source, 0, 1, 1000);
        assert_int_equal(until_lent(3 * USEC_HOUR), 30 * USEC_MINUTE + shift);
        lent_is("2026-11-24T10:00:00Z");
        assert_string_equal(b.id, "uid-1/2026-11-24T10:00:00Z");
        settle(OUTCOME_ACCEPTED);
        poll_and_answer();
        close_source();
        /* the same after a restart, and it is no misfire */
        start("2026-11-24T10:59:00Z", "1h", MISFIRE_SKIP);
        assert_int_equal(until_lent(3 * USEC_HOUR), USEC_MINUTE + shift);
        lent_is("2026-11-24T11:00:00Z");
        close_source();
}

static void a_thousand_triggers_are_spread(void **state UNUSED)
{
        enum { TRIGGERS = 1000, PARTS = 10 };
        const struct timer_spec spec = { .jitter = USEC_HOUR };
        int parts[PARTS] = { 0 };
        char uid[64];

        for (int i = 0; i < TRIGGERS; i++) {
                usec shift;

                (void)snprintf(uid, sizeof(uid), "shop/report-%d", i);
                shift = timer_jitter(&spec, uid);
                assert_true(shift >= 0 && shift <= USEC_HOUR);
                assert_true(timer_jitter(&spec, uid) == shift);
                parts[MIN_OF(shift * PARTS / USEC_HOUR, (usec)(PARTS - 1))]++;
        }
        for (int i = 0; i < PARTS; i++)
                assert_in_range(parts[i], TRIGGERS / PARTS - 40, TRIGGERS / PARTS + 40);
        assert_true(timer_jitter(&(struct timer_spec){ .jitter = 0 }, uid) == 0);
}

/* ---- the calendar --------------------------------------------------------- */

static void set_dates(struct timer_spec *spec)
{
        static char out[] = "2026-11-26", utc[] = "UTC";
        static char *list[] = { out };

        spec->exclude = (struct strings){ list, 1 };
        spec->end_time = at("2026-11-28T00:00:00Z");
        spec->time_zone = utc;
}

static void days_are_left_out_and_it_ends(void **state UNUSED)
{
        adjust = set_dates;
        start("2026-11-24T12:00:00Z", "1d", MISFIRE_CATCH_UP);
        assert_int_equal(until_lent(10 * USEC_DAY), USEC_DAY / 2);
        lent_is("2026-11-25T00:00:00Z");
        settle(OUTCOME_ACCEPTED);
        assert_int_equal(until_lent(10 * USEC_DAY), 2 * USEC_DAY);
        lent_is("2026-11-27T00:00:00Z");
        settle_and_go_on();
        assert_int_equal(wakes_at(), USEC_NEVER);
        assert_string_equal(b.text, "no tick is left");
        assert_int_equal(b.state, SOURCE_CONNECTED);
        close_source();
}

/* ---- what is kept of the last run ---------------------------------------- */

static void the_last_and_the_next_run_are_known(void **state UNUSED)
{
        struct pull_runs runs;

        open_at("2026-11-24T09:59:30Z", "1m", MISFIRE_FIRE_ONCE);
        timer_source.pull->runs(b.source, &runs);
        assert_true(runs.last == 0 && runs.next == 0);
        poll_and_answer();
        timer_source.pull->runs(b.source, &runs);
        assert_true(runs.last == 0 && runs.next == at("2026-11-24T10:00:00Z"));
        timer_source.pull->credit(b.source, 0, 5, 1000);
        pass(30 * USEC_SEC);
        poll_and_answer();
        settle(OUTCOME_DROPPED);
        poll_and_answer();
        close_source();
        start("2026-11-24T10:00:30Z", "1m", MISFIRE_FIRE_ONCE);
        timer_source.pull->runs(b.source, &runs);
        assert_true(runs.last == at("2026-11-24T10:00:00Z") && runs.next == at("2026-11-24T10:01:00Z"));
        assert_int_equal(runs.outcome, OUTCOME_DROPPED);
        close_source();
}

/* ---- bytes --------------------------------------------------------------- */

static void bytes(struct timer_spec *spec)
{
        static char base64[] = "/wD+", none[] = "", type[] = "application/x-thing";

        spec->user_event = none;
        spec->user_event_base64 = base64;
        spec->content_type = type;
}

static void bytes_are_the_data_of_a_cloudevent(void **state UNUSED)
{
        BUF_AT_END struct buf space = BUF_INIT(4096), event = BUF_INIT(4096);
        struct cloud_event e;
        struct writer w;

        adjust = bytes;
        start("2026-11-24T09:59:30Z", "1m", MISFIRE_FIRE_ONCE);
        pass(30 * USEC_SEC);
        poll_and_answer();
        timer_shape.event(&b.trigger, b.lent, &space, &e);
        assert_true(str_equal(e.data, (struct str){ "\xff\0\xfe", 3 }));
        assert_true(str_is(e.content_type, "application/x-thing"));
        writer_init(&w, &event);
        timer_shape.encode(&b.trigger, &b.lent, 1, &w);
        assert_non_null(strstr(event.p, "\"user_event\":\"/wD+\""));
        close_source();
}

/* ---- a checkpoint that others write, too ---------------------------------- */

static void apart_start(const char *wall, const char *schedule, enum misfire_policy policy)
{
        open_at(wall, schedule, policy);
        b.services.store.apart = USEC_SEC;
        poll_and_answer();
        timer_source.pull->credit(b.source, 0, 32, 32000);
        poll_and_answer();
}

/* From turn to turn, for so long; each tick is accepted at once. */
static void run_for(usec time)
{
        usec until = b.time.monotonic + time;

        poll_and_answer();
        while (b.time.monotonic < until) {
                usec next = MIN_OF(MAX_OF(wakes_at(), b.time.monotonic + 1), until);

                pass(next - b.time.monotonic);
                poll_and_answer();
                while (b.lent) {
                        assert_true(b.time.wall - b.lent_at < USEC_MSEC); /* none is late */
                        settle(OUTCOME_ACCEPTED);
                        timer_source.pull->credit(b.source, 0, 1, 1000);
                        poll_and_answer();
                }
        }
}

static void a_shared_checkpoint_is_written_once_a_second(void **state UNUSED)
{
        static const struct {
                const char *schedule;
                size_t ticks, writes;
        } all[] = { { "@every 200ms", 300, 62 }, { "1s", 60, 62 }, { "10s", 6, 13 }, { "1m", 1, 3 } };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                (void)afresh(NULL);
                apart_start("2026-11-24T09:59:59.95Z", all[i].schedule, MISFIRE_FIRE_ONCE);
                run_for(USEC_MINUTE);
                assert_int_equal(b.lent_n, all[i].ticks);
                assert_in_range(b.kept.puts, 1, all[i].writes);
                close_source();
        }
}

static void what_was_claimed_early_comes_after_a_crash(void **state UNUSED)
{
        apart_start("2026-11-24T09:59:59.95Z", "@every 200ms", MISFIRE_CATCH_UP);
        pass(50 * USEC_MSEC);
        poll_and_answer();
        lent_is("2026-11-24T10:00:00Z");
        settle_and_go_on();
        pass(200 * USEC_MSEC);
        poll_and_answer();
        lent_is("2026-11-24T10:00:00.2Z"); /* without a write */
        assert_int_equal(b.kept.puts, 2);  /* the start, and one claim */
        close_source();                    /* a crash */
        start("2026-11-24T10:00:00.5Z", "@every 200ms", MISFIRE_CATCH_UP);
        pass(USEC_MINUTE);
        poll_and_answer();
        lent_is("2026-11-24T10:00:00Z"); /* settled, but that was not written */
        settle_and_go_on();
        lent_is("2026-11-24T10:00:00.2Z");
        settle_and_go_on();
        lent_is("2026-11-24T10:00:00.4Z");
        close_source();
}

static void ticks_that_were_claimed_early_obey_the_policy(void **state UNUSED)
{
        apart_start("2026-11-24T09:59:59.95Z", "@every 200ms", MISFIRE_FIRE_ONCE);
        pass(50 * USEC_MSEC);
        poll_and_answer();
        lent_is("2026-11-24T10:00:00Z");
        pass(3 * USEC_SEC); /* it takes long */
        poll_and_answer();
        settle_and_go_on();
        lent_is("2026-11-24T10:00:03Z");
        assert_int_equal(b.lent_n, 2);
        close_source();
}

/* ---- two workers ---------------------------------------------------------- */

static void a_long_delivery_renews_its_claim(void **state UNUSED)
{
        char before[sizeof(b.kept.value)];

        apart_start("2026-11-24T09:59:30Z", "10m", MISFIRE_FIRE_ONCE);
        pass(30 * USEC_SEC);
        poll_and_answer();
        lent_is("2026-11-24T10:00:00Z");
        for (int i = 0; i < 5; i++) {
                memcpy(before, b.kept.value, sizeof(before));
                assert_int_equal(wakes_at(), b.time.monotonic + 30 * USEC_SEC);
                pass(30 * USEC_SEC);
                poll_and_answer();
                assert_string_not_equal(b.kept.value, before);
        }
        assert_false(b.revoking);
        close_source();
}

static void a_claim_that_could_not_be_renewed_holds_no_longer(void **state UNUSED)
{
        apart_start("2026-11-24T09:59:30Z", "10m", MISFIRE_FIRE_ONCE);
        pass(30 * USEC_SEC);
        poll_and_answer();
        lent_is("2026-11-24T10:00:00Z");
        for (int i = 0; i < 59; i++) {
                pass(USEC_SEC);
                poll_once();
                while (b.kept.waiting_n)
                        test_store_answer(&b.kept, ERROR_UNREACHABLE);
                poll_once();
        }
        assert_false(b.revoking);
        pass(USEC_SEC);
        poll_once();
        assert_true(b.revoking); /* what is in flight may end, and no other attempt begins */
        settle(OUTCOME_RELEASED);
        timer_source.pull->revoked(b.source, 0);
        b.assigned = false;
        poll_once();
        assert_false(b.assigned);
        while (b.kept.waiting_n)
                test_store_answer(&b.kept, ERROR_UNREACHABLE);
        poll_once();
        pass(USEC_SEC);
        poll_and_answer(); /* it can be written again */
        assert_true(b.assigned);
        timer_source.pull->credit(b.source, 0, 1, 1000);
        poll_and_answer();
        lent_is("2026-11-24T10:00:00Z");
        close_source();
}

static void who_loses_the_checkpoint_stops_its_deliveries(void **state UNUSED)
{
        apart_start("2026-11-24T09:59:30Z", "1m", MISFIRE_FIRE_ONCE);
        pass(30 * USEC_SEC);
        poll_and_answer();
        lent_is("2026-11-24T10:00:00Z");
        pass(30 * USEC_SEC);
        poll_once();
        test_store_answer(&b.kept, ERROR_CONFLICT);
        poll_once();
        assert_true(b.lost);
        assert_int_equal(b.state, SOURCE_STANDBY);
        settle(OUTCOME_RELEASED);
        timer_source.pull->revoked(b.source, 0);
        (void)snprintf(b.kept.value, sizeof(b.kept.value),
                       "{\"source\":\"1m Asia/Shanghai\",\"settled\":%lld}",
                       (long long)at("2026-11-24T10:00:00Z"));
        pass(USEC_SEC);
        poll_and_answer();
        assert_null(b.lent);
        timer_source.pull->credit(b.source, 0, 1, 1000);
        pass(31 * USEC_SEC); /* the other one is gone: it did not claim 10:01 */
        poll_and_answer();
        lent_is("2026-11-24T10:01:00Z");
        close_source();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup(what_is_too_old_is_not_caught_up, afresh),
                cmocka_unit_test_setup(the_latest_is_dropped_when_it_is_too_old, afresh),
                cmocka_unit_test_setup(within_its_starting_deadline_a_tick_is_not_missed, afresh),
                cmocka_unit_test_setup(while_one_is_delivered_the_next_wait, afresh),
                cmocka_unit_test_setup(none_waits_for_another_that_is_delivered, afresh),
                cmocka_unit_test_setup(what_is_on_time_is_sent_each_where_many_are_allowed, afresh),
                cmocka_unit_test_setup(no_more_are_under_way_than_may_be, afresh),
                cmocka_unit_test_setup(a_tick_is_sent_later_by_the_same_jitter, afresh),
                cmocka_unit_test_setup(a_thousand_triggers_are_spread, afresh),
                cmocka_unit_test_setup(days_are_left_out_and_it_ends, afresh),
                cmocka_unit_test_setup(the_last_and_the_next_run_are_known, afresh),
                cmocka_unit_test_setup(bytes_are_the_data_of_a_cloudevent, afresh),
                cmocka_unit_test_setup(a_shared_checkpoint_is_written_once_a_second, afresh),
                cmocka_unit_test_setup(what_was_claimed_early_comes_after_a_crash, afresh),
                cmocka_unit_test_setup(ticks_that_were_claimed_early_obey_the_policy, afresh),
                cmocka_unit_test_setup(a_long_delivery_renews_its_claim, afresh),
                cmocka_unit_test_setup(a_claim_that_could_not_be_renewed_holds_no_longer, afresh),
                cmocka_unit_test_setup(who_loses_the_checkpoint_stops_its_deliveries, afresh),
        };
        return cmocka_run_group_tests_name("timer policies", tests, NULL, leave);
}
