#include "source/timer/zone.h"

#include <setjmp.h>
#include <stdarg.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"

static const char *const names[] = {
        "Europe/Berlin",    "Europe/London",       "Europe/Dublin",       "Europe/Moscow",
        "America/New_York", "America/Los_Angeles", "America/Sao_Paulo",   "America/St_Johns",
        "America/Santiago", "America/Nuuk",        "Australia/Lord_Howe", "Australia/Sydney",
        "Pacific/Apia",     "Pacific/Chatham",     "Pacific/Kiritimati",  "Asia/Shanghai",
        "Asia/Kathmandu",   "Asia/Tehran",         "Africa/Casablanca",   "Africa/Cairo",
        "Antarctica/Troll", "Antarctica/Casey",
};

static struct zone *load(const char *name)
{
        struct zone *z = NULL;
        struct error err;

        if (zone_load(&z, str_of(name), &err) < 0)
                fail_msg("%s", err.text);
        return z;
}

/* Steps of a little more than five hours, from before the first year to after the last rule of the files. */
static void agrees_with_libc(void **state UNUSED)
{
        int64_t from = days_from_civil(1970, 1, 1) * 86400, until = days_from_civil(2060, 1, 1) * 86400;

        for (size_t i = 0; i < COUNT_OF(names); i++) {
                struct zone *z = load(names[i]);

                assert_int_equal(setenv("TZ", names[i], 1), 0);
                tzset();
                for (int64_t at = from; at < until; at += 18133) {
                        time_t t = (time_t)at;
                        struct tm tm;

                        assert_non_null(localtime_r(&t, &tm));
                        if (zone_offset(z, at) != tm.tm_gmtoff)
                                fail_msg("%s at %lld: %lld, libc says %ld", names[i], (long long)at,
                                         (long long)zone_offset(z, at), tm.tm_gmtoff);
                }
                z = zone_free(z);
        }
        assert_int_equal(unsetenv("TZ"), 0);
        tzset();
}

/* The very second of each change, found by halving. */
static void changes_come_to_the_second(void **state UNUSED)
{
        for (size_t i = 0; i < COUNT_OF(names); i++) {
                struct zone *z = load(names[i]);

                assert_int_equal(setenv("TZ", names[i], 1), 0);
                tzset();
                for (int64_t at = days_from_civil(1970, 1, 1) * 86400;
                     at < days_from_civil(2060, 1, 1) * 86400; at += 86400) {
                        int64_t low = at, high = at + 86400;

                        if (zone_offset(z, low) == zone_offset(z, high))
                                continue;
                        while (high - low > 1) {
                                int64_t middle = low + (high - low) / 2;

                                if (zone_offset(z, middle) == zone_offset(z, low))
                                        low = middle;
                                else
                                        high = middle;
                        }
                        for (int64_t s = low - 1; s <= high + 1; s++) {
                                time_t t = (time_t)s;
                                struct tm tm;

                                assert_non_null(localtime_r(&t, &tm));
                                if (zone_offset(z, s) != tm.tm_gmtoff)
                                        fail_msg("%s at %lld", names[i], (long long)s);
                        }
                }
                z = zone_free(z);
        }
        assert_int_equal(unsetenv("TZ"), 0);
        tzset();
}

static void utc_needs_no_file(void **state UNUSED)
{
        static const char *const utc[] = { "", "UTC" };

        for (size_t i = 0; i < COUNT_OF(utc); i++) {
                struct zone *z = load(utc[i]);

                assert_int_equal(zone_offset(z, 0), 0);
                assert_int_equal(zone_offset(z, -1), 0);
                assert_int_equal(zone_offset(z, INT64_C(1) << 40), 0);
                z = zone_free(z);
        }
        assert_null(zone_free(NULL));
}

static void the_far_future_follows_the_rule(void **state UNUSED)
{
        struct zone *z = load("Europe/Berlin");

        assert_int_equal(zone_offset(z, days_from_civil(2400, 7, 1) * 86400), 7200);
        assert_int_equal(zone_offset(z, days_from_civil(2400, 1, 1) * 86400), 3600);
        z = zone_free(z);
}

static void unknown_names_are_refused(void **state UNUSED)
{
        static const char *const bad[] = { "Europe/Berlinn",
                                           "Mars/Olympus",
                                           "../../../etc/passwd",
                                           "/etc/passwd",
                                           "./UTC",
                                           "Europe/../UTC",
                                           "Europe",
                                           "tzdata.zi",
                                           "zone.tab",
                                           "europe berlin",
                                           " ",
                                           "Europe/Berlin\n" };

        for (size_t i = 0; i < COUNT_OF(bad); i++) {
                struct zone *z = NULL;
                struct error err = { 0 };
                FREE_AT_END char *named = str_dup(str_of(bad[i]));

                assert_int_equal(zone_load(&z, str_of(bad[i]), &err), -1);
                assert_null(z);
                assert_int_equal(err.kind, ERROR_INVALID);
                text_plain(named);
                assert_non_null(strstr(err.text, named));
        }
}

static void those_of_one_name_are_shared(void **state UNUSED)
{
        struct zone *z[4] = { NULL };
        void *place = NULL;
        struct error err;

        assert_int_equal(zone_share(&place, &z[0], STR("Europe/Berlin"), &err), 0);
        assert_int_equal(zone_share(&place, &z[1], STR("Asia/Tehran"), &err), 0);
        assert_int_equal(zone_share(&place, &z[2], STR("Europe/Berlin"), &err), 0);
        assert_int_equal(zone_share(&place, &z[3], STR("UTC"), &err), 0);
        assert_ptr_equal(z[0], z[2]);
        assert_ptr_not_equal(z[0], z[1]);
        assert_int_equal(zone_share(&place, &z[0], STR("Mars/Olympus"), &err), -1);
        (void)zone_free(z[0]);
        assert_int_equal(zone_offset(z[2], days_from_civil(2026, 7, 1) * 86400), 7200);
        (void)zone_free(z[1]);
        (void)zone_free(z[2]);
        (void)zone_free(z[3]);
        assert_null(place);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(agrees_with_libc),
                cmocka_unit_test(changes_come_to_the_second),
                cmocka_unit_test(utc_needs_no_file),
                cmocka_unit_test(the_far_future_follows_the_rule),
                cmocka_unit_test(unknown_names_are_refused),
                cmocka_unit_test(those_of_one_name_are_shared),
        };
        return cmocka_run_group_tests_name("zone", tests, NULL, NULL);
}
