#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <time.h>

#include <cmocka.h>

static void durations_are_read_as_go_reads_them(void **state UNUSED)
{
        static const struct {
                const char *text;
                usec value;
        } good[] = {
                { "0", 0 },
                { "+0", 0 },
                { "-0", 0 },
                { "0s", 0 },
                { "5s", 5 * USEC_SEC },
                { "1478s", 1478 * USEC_SEC },
                { "-5s", -5 * USEC_SEC },
                { "+5s", 5 * USEC_SEC },
                { "5.0s", 5 * USEC_SEC },
                { "5.6s", 5600 * USEC_MSEC },
                { "5.s", 5 * USEC_SEC },
                { ".5s", 500 * USEC_MSEC },
                { "1.004s", 1004 * USEC_MSEC },
                { "100.00100s", 100001 * USEC_MSEC },
                { "10ns", 0 },
                { "1500ns", 2 },
                { "11us", 11 },
                { "12\xc2\xb5s", 12 },
                { "12\xce\xbcs", 12 },
                { "13ms", 13 * USEC_MSEC },
                { "15m", 15 * USEC_MINUTE },
                { "16h", 16 * USEC_HOUR },
                { "3h30m", 210 * USEC_MINUTE },
                { "10.5s4m", 4 * USEC_MINUTE + 10500 * USEC_MSEC },
                { "-2m3.4s", -(123400 * USEC_MSEC) },
                { "1h2m3s4ms5us6ns", 3723 * USEC_SEC + 4005 },
                { "39h9m14.425s", 140954425 * USEC_MSEC },
                { "1d", USEC_DAY },
                { "1d12h", 36 * USEC_HOUR },
                { "0.000001s", 1 },
                { "0.3333333333333333333h", 1200 * USEC_SEC },
                { "0.1h", 6 * USEC_MINUTE },
        };
        static const char *const bad[] = { "",          "3",
                                           "-",         "+",
                                           "s",         ".",
                                           "-.",        ".s",
                                           "+.s",       "1",
                                           "1.",        "1..5s",
                                           "1.5.5s",    "5 s",
                                           " 5s",       "5s ",
                                           "5S",        "1w",
                                           "1mo",       "--5s",
                                           "5s-3s",     "3000000000h",
                                           "1e3s",      "0x1s",
                                           "\xc2\xb5s", "99999999999999999999999999999999d" };
        usec v;

        for (size_t i = 0; i < COUNT_OF(good); i++) {
                if (!duration_parse(str_of(good[i].text), &v))
                        fail_msg("\"%s\" was refused", good[i].text);
                if (v != good[i].value)
                        fail_msg("\"%s\" is %lld", good[i].text, (long long)v);
        }
        for (size_t i = 0; i < COUNT_OF(bad); i++) {
                v = 42;
                if (duration_parse(str_of(bad[i]), &v))
                        fail_msg("\"%s\" was taken for %lld", bad[i], (long long)v);
                assert_int_equal(v, 42);
        }
}

static void a_number_of_too_many_digits_is_no_duration(void **state UNUSED)
{
        BUF_AT_END struct buf whole = BUF_INIT(1000), fraction = BUF_INIT(1000);
        usec v = 42;

        buf_text(&fraction, "0.");
        for (int i = 0; i < 400; i++) {
                buf_char(&whole, '9');
                buf_char(&fraction, '9');
        }
        buf_char(&whole, 's');
        buf_char(&fraction, 's');
        assert_false(duration_parse(buf_view(&whole), &v));
        assert_int_equal(v, 42);
        if (duration_parse(buf_view(&fraction), &v))
                assert_int_equal(v, USEC_SEC);
}

static void durations_are_written_as_go_writes_them(void **state UNUSED)
{
        static const struct {
                usec value;
                const char *text;
        } all[] = {
                { 0, "0s" },
                { 1, "1\xc2\xb5s" },
                { 1100, "1.1ms" },
                { 2200 * USEC_MSEC, "2.2s" },
                { 3300 * USEC_SEC, "55m0s" },
                { 4 * USEC_MINUTE + 5 * USEC_SEC, "4m5s" },
                { 4 * USEC_MINUTE + 5001 * USEC_MSEC, "4m5.001s" },
                { USEC_HOUR, "1h0m0s" },
                { 5 * USEC_HOUR + 6 * USEC_MINUTE + 7001 * USEC_MSEC, "5h6m7.001s" },
                { 8 * USEC_MINUTE + 1, "8m0.000001s" },
                { -(90 * USEC_MINUTE), "-1h30m0s" },
                { 999, "999\xc2\xb5s" },
                { 999999, "999.999ms" },
                { USEC_DAY, "24h0m0s" },
                { INT64_MAX, "2562047788h0m54.775807s" },
                { INT64_MIN, "-2562047788h0m54.775807s" },
        };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                BUF_AT_END struct buf b = BUF_INIT(100);

                duration_format(&b, all[i].value);
                assert_string_equal(b.p, all[i].text);
        }
}

static void durations_survive_a_round_trip(void **state UNUSED)
{
        for (usec d = 1; d < 400 * USEC_DAY; d = d * 7 / 5 + 1) {
                BUF_AT_END struct buf b = BUF_INIT(100);
                usec back;

                duration_format(&b, d);
                assert_true(duration_parse(buf_view(&b), &back));
                assert_int_equal(back, d);
        }
}

static void ages_are_short(void **state UNUSED)
{
        static const struct {
                usec value;
                const char *text;
        } all[] = {
                { -5, "0s" },
                { 0, "0s" },
                { 119 * USEC_SEC, "119s" },
                { 120 * USEC_SEC, "2m" },
                { 192 * USEC_SEC, "3m12s" },
                { 600 * USEC_SEC, "10m" },
                { 179 * USEC_MINUTE, "179m" },
                { 3 * USEC_HOUR, "3h" },
                { 47 * USEC_HOUR, "47h" },
                { 48 * USEC_HOUR, "2d" },
                { 400 * USEC_DAY, "400d" },
        };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                BUF_AT_END struct buf b = BUF_INIT(100);

                duration_short(&b, all[i].value);
                assert_string_equal(b.p, all[i].text);
        }
}

static void times_are_read(void **state UNUSED)
{
        static const struct {
                const char *text;
                usec value;
        } good[] = {
                { "1970-01-01T00:00:00Z", 0 },
                { "1969-12-31T23:59:59.999999Z", -1 },
                { "2026-11-24T10:00:00Z", 1795514400 * USEC_SEC },
                { "2026-11-24T10:00:00+08:00", (1795514400 - 28800) * USEC_SEC },
                { "2026-11-24T10:00:00-03:30", (1795514400 + 12600) * USEC_SEC },
                { "2026-11-24t10:00:00z", 1795514400 * USEC_SEC },
                { "2026-11-24 10:00:00Z", 1795514400 * USEC_SEC },
                { "2026-11-24T10:00:00.5Z", 1795514400 * USEC_SEC + 500000 },
                { "2026-11-24T10:00:00.123456789Z", 1795514400 * USEC_SEC + 123456 },
                { "2024-02-29T00:00:00Z", 1709164800 * USEC_SEC },
                { "2000-02-29T00:00:00Z", 951782400 * USEC_SEC },
                /* a leap second is the next one's start */
                { "2016-12-31T23:59:60Z", 1483228800 * USEC_SEC },
                { "0000-01-01T00:00:00Z", -62167219200 * USEC_SEC },
                { "9999-12-31T23:59:59Z", 253402300799 * USEC_SEC },
        };
        static const char *const bad[] = {
                "",
                "2026-11-24",
                "2026-11-24T10:00:00",
                "2026-11-24T10:00Z",
                "2026-02-29T00:00:00Z",
                "1900-02-29T00:00:00Z",
                "2100-02-29T00:00:00Z",
                "2026-04-31T00:00:00Z",
                "2026-00-10T00:00:00Z",
                "2026-13-10T00:00:00Z",
                "2026-01-00T00:00:00Z",
                "2026-01-32T00:00:00Z",
                "2026-01-01T24:00:00Z",
                "2026-01-01T00:60:00Z",
                "2026-01-01T00:00:61Z",
                "2026-01-01T00:00:00.Z",
                "2026-01-01T00:00:00+0800",
                "2026-01-01T00:00:00+24:00",
                "2026-01-01T00:00:00+01:60",
                "2026-01-01T00:00:00+1:00",
                "2026-01-01T00:00:00ZZ",
                "2026-01-01T00:00:00Z ",
                "26-01-01T00:00:00Z",
                "2026-1-1T00:00:00Z",
                "+2026-01-01T00:00:00Z",
                "2026/01/01T00:00:00Z",
                "2026-01-01T00:00:00 Z",
                "0000-01-01T00:00:00+00:01",
                "9999-12-31T23:59:60Z",
                "9999-12-31T23:59:59-00:01",
        };
        usec v;

        for (size_t i = 0; i < COUNT_OF(good); i++) {
                if (!time_parse(str_of(good[i].text), &v))
                        fail_msg("\"%s\" was refused", good[i].text);
                if (v != good[i].value)
                        fail_msg("\"%s\" is %lld", good[i].text, (long long)v);
        }
        for (size_t i = 0; i < COUNT_OF(bad); i++) {
                v = 42;
                if (time_parse(str_of(bad[i]), &v))
                        fail_msg("\"%s\" was taken for %lld", bad[i], (long long)v);
                assert_int_equal(v, 42);
        }
}

static void the_years_1_to_9999_can_be_written(void **state UNUSED)
{
        static const struct {
                const char *text;
                bool first;
        } ends[] = { { "0001-01-01T00:00:00Z", true }, { "9999-12-31T23:59:59.999999Z", false } };

        for (size_t i = 0; i < COUNT_OF(ends); i++) {
                usec at;

                assert_true(time_parse(str_of(ends[i].text), &at));
                assert_true(time_is_writable(at));
                assert_false(time_is_writable(ends[i].first ? at - 1 : at + 1));
        }
        assert_true(time_is_writable(0));
        assert_false(time_is_writable(INT64_MIN));
        assert_false(time_is_writable(INT64_MAX));
}

static void times_are_written(void **state UNUSED)
{
        static const struct {
                usec value;
                const char *text, *micro;
        } all[] = {
                { 0, "1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000Z" },
                { 1, "1970-01-01T00:00:00.000001Z", "1970-01-01T00:00:00.000001Z" },
                { -1, "1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999Z" },
                { 500000, "1970-01-01T00:00:00.5Z", "1970-01-01T00:00:00.500000Z" },
                { 951782400 * USEC_SEC + 120, "2000-02-29T00:00:00.00012Z", "2000-02-29T00:00:00.000120Z" },
                { -(86400 * USEC_SEC), "1969-12-31T00:00:00Z", "1969-12-31T00:00:00.000000Z" },
        };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                BUF_AT_END struct buf b = BUF_INIT(100), micro = BUF_INIT(100);

                time_format(&b, all[i].value);
                time_format_micro(&micro, all[i].value);
                assert_string_equal(b.p, all[i].text);
                assert_string_equal(micro.p, all[i].micro);
        }
}

/* Each day from 1600 to 2400, against libc and back. */
static void days_agree_with_libc(void **state UNUSED)
{
        int64_t first = days_from_civil(1600, 1, 1), last = days_from_civil(2400, 1, 1);

        assert_int_equal(first, -135140);
        for (int64_t day = first; day <= last; day++) {
                time_t t = (time_t)(day * 86400);
                struct tm tm;
                int64_t year;
                int month, date;

                assert_non_null(gmtime_r(&t, &tm));
                civil_from_days(day, &year, &month, &date);
                if (year != tm.tm_year + 1900 || month != tm.tm_mon + 1 || date != tm.tm_mday ||
                    days_from_civil(year, month, date) != day)
                        fail_msg("day %lld", (long long)day);
        }
}

static void times_survive_a_round_trip(void **state UNUSED)
{
        for (int64_t day = days_from_civil(1, 1, 1); day < days_from_civil(9999, 12, 31); day += 97) {
                usec at = (day * 86400 + (day * 7919 % 86400 + 86400) % 86400) * USEC_SEC +
                          (day * 104729 % USEC_SEC + USEC_SEC) % USEC_SEC,
                     back;
                BUF_AT_END struct buf b = BUF_INIT(100);

                time_format(&b, at);
                if (!time_parse(buf_view(&b), &back) || back != at)
                        fail_msg("%s is read as %lld, not %lld", b.p, (long long)back, (long long)at);
        }
}

static void the_system_clock_runs(void **state UNUSED)
{
        usec before = clock_monotonic(&system_clock), after = clock_monotonic(&system_clock);

        assert_true(after >= before);
        assert_true(clock_wall(&system_clock) / USEC_SEC - (usec)time(NULL) <= 1);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(durations_are_read_as_go_reads_them),
                cmocka_unit_test(a_number_of_too_many_digits_is_no_duration),
                cmocka_unit_test(durations_are_written_as_go_writes_them),
                cmocka_unit_test(durations_survive_a_round_trip),
                cmocka_unit_test(ages_are_short),
                cmocka_unit_test(times_are_read),
                cmocka_unit_test(the_years_1_to_9999_can_be_written),
                cmocka_unit_test(times_are_written),
                cmocka_unit_test(days_agree_with_libc),
                cmocka_unit_test(times_survive_a_round_trip),
                cmocka_unit_test(the_system_clock_runs),
        };
        return cmocka_run_group_tests_name("clock", tests, NULL, NULL);
}
