#include "source/timer/schedule.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/random.h"

static usec at(const char *text)
{
        usec t;

        if (!time_parse(str_of(text), &t))
                fail_msg("\"%s\" is no time", text);
        return t;
}

static struct schedule schedule_of(const char *text, const char *zone, const char *out)
{
        BUF_AT_END struct buf why = BUF_INIT(1024);
        struct schedule s = { 0 };
        struct str named, rest = str_of(out);
        char *list[8];
        struct strings days = { list, 0 };
        struct error err;

        if (cron_parse(str_of(text), &s.cron, &named, &why) < 0)
                fail_msg("\"%s\" %s", text, why.p);
        if (zone_load(&s.zone, str_of(zone), &err) < 0)
                fail_msg("%s", err.text);
        while (rest.n)
                list[days.n++] = str_dup(str_cut(&rest, ' '));
        if (schedule_leave_out(&s, &days, &err) < 0)
                fail_msg("%s", err.text);
        for (size_t i = 0; i < days.n; i++)
                free(list[i]);
        return s;
}

static void days_are_read(void **state UNUSED)
{
        static const char *const good[] = {
                "2026-12-24", "2028-02-29", "02-29", "12-24/01-02", "2026-12-24/2027-01-02", "12-25/12-25"
        };
        static const char *const bad[] = {
                "",
                "2026",
                "2026-13-01",
                "2026-00-01",
                "2026-02-29",
                "2026-04-31",
                "04-31",
                "13-01",
                "0-1",
                "1-01",
                "2026-1-1",
                "12-24/",
                "/12-24",
                "12-24/2026-12-25",
                "2026-12-24/12-25",
                "-12-24",
                "+202-12-24",
                "2027-01-02/2026-12-24",
                "12-24/12-25/12-26",
                "2026-12-24T00:00:00Z",
        };
        struct days_out d;

        for (size_t i = 0; i < COUNT_OF(good); i++)
                if (!days_out_parse(str_of(good[i]), &d))
                        fail_msg("\"%s\" was refused", good[i]);
        for (size_t i = 0; i < COUNT_OF(bad); i++)
                if (days_out_parse(str_of(bad[i]), &d))
                        fail_msg("\"%s\" was taken", bad[i]);
}

static void days_are_left_out(void **state UNUSED)
{
        static const struct {
                const char *schedule, *zone, *out, *after, *runs[3];
        } all[] = {
                ROW("0 0 9 * *", "UTC", "2026-12-24/2027-01-02", "2026-12-23T00:00:00Z",
                    { "2026-12-23T09:00:00Z", "2027-01-03T09:00:00Z", "2027-01-04T09:00:00Z" }),
                ROW("0 0 9 * *", "UTC", "12-24/01-02", "2028-12-23T12:00:00Z",
                    { "2029-01-03T09:00:00Z", "2029-01-04T09:00:00Z", "2029-01-05T09:00:00Z" }),
                ROW("0 0 9 29 2 ?", "UTC", "2028-02-29", "2026-01-01T00:00:00Z",
                    { "2032-02-29T09:00:00Z", "2036-02-29T09:00:00Z", "2040-02-29T09:00:00Z" }),
                /* the day of the zone: 16:00 UTC is the next one there */
                ROW("6h", "Asia/Shanghai", "2026-11-25", "2026-11-24T00:00:00Z",
                    { "2026-11-24T06:00:00Z", "2026-11-24T12:00:00Z", "2026-11-25T18:00:00Z" }),
                /* its nights are those in which clocks change */
                ROW("30m", "Europe/Berlin", "2026-10-25", "2026-10-24T21:30:00Z",
                    { "2026-10-25T23:00:00Z", "2026-10-25T23:30:00Z", "2026-10-26T00:00:00Z" }),
                ROW("30m", "Europe/Berlin", "2026-03-29", "2026-03-28T22:30:00Z",
                    { "2026-03-29T22:00:00Z", "2026-03-29T22:30:00Z", "2026-03-29T23:00:00Z" }),
                /* a minute after midnight it is the day before again */
                ROW("30m", "America/St_Johns", "2006-10-28", "2006-10-28T02:00:00Z",
                    { "2006-10-29T02:30:00Z", "2006-10-29T03:30:00Z", "2006-10-29T04:00:00Z" }),
        };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                struct schedule s = schedule_of(all[i].schedule, all[i].zone, all[i].out);
                usec last = at(all[i].after);

                for (size_t r = 0; r < COUNT_OF(all[i].runs); r++) {
                        last = schedule_next(&s, last);
                        if (last != at(all[i].runs[r]))
                                fail_msg("%zu: run %zu is not %s", i, r, all[i].runs[r]);
                }
                schedule_done(&s);
        }
}

static void it_begins_and_ends(void **state UNUSED)
{
        struct schedule s = schedule_of("1h", "UTC", "");

        s.start = at("2026-11-24T10:00:00Z");
        s.end = at("2026-11-24T12:00:00Z");
        assert_true(schedule_next(&s, at("2026-01-01T00:00:00Z")) == s.start);
        assert_true(schedule_next(&s, s.start) == at("2026-11-24T11:00:00Z"));
        assert_true(schedule_next(&s, at("2026-11-24T11:00:00Z")) == USEC_NEVER);
        assert_true(schedule_latest(&s, 0, at("2030-01-01T00:00:00Z")) == at("2026-11-24T11:00:00Z"));
        assert_true(schedule_latest(&s, 0, s.start - 1) == USEC_NEVER);
        assert_true(schedule_latest(&s, 0, s.start) == s.start);
        schedule_done(&s);
}

static void nothing_is_left_where_all_is_left_out(void **state UNUSED)
{
        struct schedule s = schedule_of("1m", "Europe/Berlin", "01-01/12-31");

        assert_true(schedule_next(&s, at("2026-01-01T00:00:00Z")) == USEC_NEVER);
        assert_true(schedule_latest(&s, at("2020-01-01T00:00:00Z"), at("2026-01-01T00:00:00Z")) ==
                    USEC_NEVER);
        schedule_done(&s);
}

static void the_latest_is_the_last_of_a_walk(void **state UNUSED)
{
        struct schedule s = schedule_of("0 */20 * * *", "Europe/Berlin",
                                        "2026-03-28/2026-03-29 03-31 2026-10-25");
        struct random r;

        random_init(&r, 3);
        for (int i = 0; i < 300; i++) {
                usec from = at(i % 2 ? "2026-03-26T00:00:00Z" : "2026-10-23T00:00:00Z") +
                            (usec)random_below(&r, (uint64_t)(6 * USEC_DAY)),
                     until = from + (usec)random_below(&r, (uint64_t)(3 * USEC_DAY)), last = USEC_NEVER;

                for (usec next = schedule_next(&s, from); next <= until; next = schedule_next(&s, next))
                        last = next;
                assert_true(schedule_latest(&s, from, until) == last);
        }
        schedule_done(&s);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(days_are_read),
                cmocka_unit_test(days_are_left_out),
                cmocka_unit_test(it_begins_and_ends),
                cmocka_unit_test(nothing_is_left_where_all_is_left_out),
                cmocka_unit_test(the_latest_is_the_last_of_a_walk),
        };
        return cmocka_run_group_tests_name("schedule", tests, NULL, NULL);
}
