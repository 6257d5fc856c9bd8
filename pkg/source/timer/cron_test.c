#include "source/timer/cron.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/random.h"
#include "source/timer/timer.h"

static usec at(const char *text)
{
        usec t;

        if (!time_parse(str_of(text), &t))
                fail_msg("\"%s\" is no time", text);
        return t;
}

static struct schedule schedule_of(const char *text, const char *zone)
{
        BUF_AT_END struct buf why = BUF_INIT(1024);
        struct schedule s = { 0 };
        struct str named;
        struct error err;
        /* Nothing stands behind the text: the sanitizer sees a read too far. */
        char *exact = malloc(strlen(text));

        assert_non_null(exact);
        memcpy(exact, text, strlen(text));
        if (cron_parse((struct str){ exact, strlen(text) }, &s.cron, &named, &why) < 0)
                fail_msg("\"%s\" %s", text, why.p);
        if (zone_load(&s.zone, named.n ? named : str_of(zone), &err) < 0)
                fail_msg("%s", err.text);
        free(exact);
        return s;
}

/* Compares the runs after a time with a list, "never" for none. */
static void expect_runs(const char *schedule, const char *zone, const char *after, const char *const *runs,
                        size_t n)
{
        struct schedule s = schedule_of(schedule, zone);
        usec last = at(after);

        for (size_t i = 0; i < n; i++) {
                usec next = cron_next(&s.cron, s.zone, last),
                     wanted = strcmp(runs[i], "never") == 0 ? USEC_NEVER : at(runs[i]);

                if (next != wanted) {
                        BUF_AT_END struct buf found = BUF_INIT(100);

                        time_format(&found, next);
                        fail_msg("\"%s\" in %s: run %zu is %s instead of %s", schedule, zone, i,
                                 next == USEC_NEVER ? "never" : found.p, runs[i]);
                }
                last = next;
        }
        (void)zone_free(s.zone);
}
#define RUNS(schedule, zone, after, ...)                                                                     \
        expect_runs(schedule, zone, after, (const char *const[]){ __VA_ARGS__ },                             \
                    COUNT_OF(((const char *const[]){ __VA_ARGS__ })))

static void errors_name_the_field(void **state UNUSED)
{
        static const struct {
                const char *text, *says;
        } all[] = {
                { "", "empty" },
                { "   ", "empty" },
                { "CRON_TZ=UTC", "empty" },
                { "CRON_TZ=UTC   ", "empty" },
                { "60 0 0 1 1", "\"60\" is no second: expected 0-59" },
                { "0 60 0 1 1", "\"60\" is no minute" },
                { "0 0 24 1 1", "\"24\" is no hour: expected 0-23" },
                { "0 0 0 0 1", "\"0\" is no day of month: expected 1-31" },
                { "0 0 0 32 1", "\"32\" is no day of month" },
                { "0 0 0 1 0", "\"0\" is no month" },
                { "0 0 0 1 13", "\"13\" is no month" },
                { "0 0 0 1 1 7", "\"7\" is no day of week: expected 0-6" },
                { "0 0 0 1 JANUARY", "\"JANUARY\" is no month" },
                { "0 0 0 MON 1", "\"MON\" is no day of month" },
                { "0 0 0 1 1 JAN", "\"JAN\" is no day of week" },
                { "? 0 0 1 1", "\"?\" is no second" },
                { "0 ? 0 1 1", "\"?\" is no minute" },
                { "0 0 ? 1 1", "\"?\" is no hour" },
                { "0 0 0 1 ?", "\"?\" is no month" },
                { "5-1 0 0 1 1", "\"5-1\" is no second" },
                { "1- 0 0 1 1", "\"1-\" is no second" },
                { "-1 0 0 1 1", "\"-1\" is no second" },
                { "1-2-3 0 0 1 1", "\"1-2-3\" is no second" },
                { "*/0 0 0 1 1", "\"*/0\" is no second" },
                { "*/ 0 0 1 1", "\"*/\" is no second" },
                { "*/-5 0 0 1 1", "\"*/-5\" is no second" },
                { "*/5/2 0 0 1 1", "\"*/5/2\" is no second" },
                { "1, 0 0 1 1", "is no second" },
                { ",1 0 0 1 1", "is no second" },
                { "1,,2 0 0 1 1", "is no second" },
                { ", 0 0 1 1", "is no second" },
                { "0 0 0 1 1,", "is no month" },
                { "0 0 0 1 1 1,", "is no day of week" },
                { "+1 0 0 1 1", "\"+1\" is no second" },
                { "001 0 0 1 1", "\"001\" is no second" },
                { "1.5 0 0 1 1", "\"1.5\" is no second" },
                { "** 0 0 1 1", "\"**\" is no second" },
                { "0 0 0 1 1 FRI-MON", "\"FRI-MON\" is no day of week" },
                { "0 0 0 L 1", "\"L\" is no day of month" },
                { "* * * *", "has 4" },
                { "* * * * * * *", "has 7" },
                { "*", "has 1" },
                { "1 2", "has 2" },
                { "* * * * * * * * *", "or more" },
                { "@hourly", "only @every" },
                { "@every", "only @every" },
                { "@every ", "only @every" },
                { "@every x", "\"x\" is no duration" },
                { "@every -1m", "\"-1m\" is no duration" },
                { "@every 0s", "is no duration" },
                { "@every 1ms", "at least 100ms" },
                { "78841h", "at most 9 years" },
                { "@every 55555553553m", "at most 9 years" },
                { "5", "\"5\" is no duration" },
                { "5x", "\"5x\" is no duration" },
                { "3m 5", "has 2" },
                { "0m", "is no duration" },
        };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                BUF_AT_END struct buf why = BUF_INIT(1024);
                size_t n = strlen(all[i].text);
                char *exact = malloc(n ? n : 1);
                struct cron c = { .period = 42 };
                struct str zone;

                assert_non_null(exact);
                memcpy(exact, all[i].text, n);
                if (cron_parse((struct str){ exact, n }, &c, &zone, &why) == 0)
                        fail_msg("\"%s\" was taken", all[i].text);
                assert_int_equal(c.period, 42);
                if (!why.p || !strstr(why.p, all[i].says))
                        fail_msg("\"%s\": %s", all[i].text, why.p ? why.p : "nothing");
                free(exact);
        }
}

static void errors_say_where_they_are(void **state UNUSED)
{
        static const struct {
                const char *text;
                bool kubernetes;
                int at;
        } all[] = {
                { "61 * * * *", false, 1 },
                { "0 0 1,2,25 1 1", false, 9 },
                { "CRON_TZ=UTC   0 0 24 1 1", false, 19 },
                { "  0 99 * * *", false, 5 },
                { "0 0 1,,3 1 1", false, 7 },
                { "@every 5y", false, 8 },
                { "@every 1ms", false, 8 },
                { "* * * * * * *", false, 13 },
                { "0 0 * 13 *", true, 7 },
                { "0 0 * * MON-FOO", true, 9 },
                { "0 0 * * * *", true, 11 },
        };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                BUF_AT_END struct buf why = BUF_INIT(1024);
                struct cron c;
                struct str zone;
                char says[64];

                (void)snprintf(says, sizeof(says), "(at character %d)", all[i].at);
                if ((all[i].kubernetes ? cron_parse_kubernetes(str_of(all[i].text), &c, &why)
                                       : cron_parse(str_of(all[i].text), &c, &zone, &why)) == 0)
                        fail_msg("\"%s\" was taken", all[i].text);
                if (!strstr(why.p, says))
                        fail_msg("\"%s\": %s, not %s", all[i].text, why.p, says);
        }
}

static void what_kubernetes_would_read_otherwise_is_refused(void **state UNUSED)
{
        static const char *const all[] = { "*/5 * * * *", "*/15 9 * * *", "0/10 8-18 * * *",  "*/30 * 1 * ?",
                                           "0 9 * * MON", "30 4 1 1 SUN", "0 12 * * MON-FRI", "0 0 1 1 13" };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                BUF_AT_END struct buf why = BUF_INIT(1024);
                struct cron c;
                struct str zone;

                if (cron_parse(str_of(all[i]), &c, &zone, &why) == 0)
                        fail_msg("\"%s\" was taken", all[i]);
                assert_non_null(
                        strstr(why.p, "second minute hour day-of-month month here, as in FunctionGraph"));
                assert_non_null(strstr(why.p, "minute hour day-of-month month day-of-week in Kubernetes"));
                assert_non_null(strstr(why.p, "put it into cron"));
        }
        /* Nobody else reads these. */
        RUNS("*/20 59 2 * *", "UTC", "2026-11-24T10:00:00Z", "2026-11-25T02:59:00Z");
        RUNS("*/5 */5 * * *", "UTC", "2026-11-24T10:00:00Z", "2026-11-24T10:00:05Z");
        RUNS("*/5 * * * * *", "UTC", "2026-11-24T10:00:00Z", "2026-11-24T10:00:05Z");
        RUNS("0 0 9 * *", "UTC", "2026-11-24T10:00:00Z", "2026-11-25T09:00:00Z");
}

static void kubernetes_form(void **state UNUSED)
{
        static const struct {
                const char *text, *runs[3];
        } all[] = {
                ROW("*/5 * * * *",
                    { "2026-11-24T10:05:00Z", "2026-11-24T10:10:00Z", "2026-11-24T10:15:00Z" }),
                ROW("0 12 * * MON-FRI",
                    { "2026-11-24T12:00:00Z", "2026-11-25T12:00:00Z", "2026-11-26T12:00:00Z" }),
                ROW("0 0 * * 0", { "2026-11-29T00:00:00Z", "2026-12-06T00:00:00Z", "2026-12-13T00:00:00Z" }),
                ROW("0 0 * * 7", { "2026-11-29T00:00:00Z", "2026-12-06T00:00:00Z", "2026-12-13T00:00:00Z" }),
                ROW("0 0 * * 5-7",
                    { "2026-11-27T00:00:00Z", "2026-11-28T00:00:00Z", "2026-11-29T00:00:00Z" }),
                ROW(" 30\t4 1 jan ? ",
                    { "2027-01-01T04:30:00Z", "2028-01-01T04:30:00Z", "2029-01-01T04:30:00Z" }),
                ROW("@hourly", { "2026-11-24T11:00:00Z", "2026-11-24T12:00:00Z", "2026-11-24T13:00:00Z" }),
                ROW("@daily", { "2026-11-25T00:00:00Z", "2026-11-26T00:00:00Z", "2026-11-27T00:00:00Z" }),
                ROW("@weekly", { "2026-11-29T00:00:00Z", "2026-12-06T00:00:00Z", "2026-12-13T00:00:00Z" }),
                ROW("@monthly", { "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z", "2027-02-01T00:00:00Z" }),
                ROW("@yearly", { "2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z", "2029-01-01T00:00:00Z" }),
        };
        static const struct {
                const char *text, *says;
        } wrong[] = {
                { "", "has 0 fields" },
                { "* * * *", "has 4 fields" },
                { "* * * * * *", "has 6 fields" },
                { "60 * * * *", "\"60\" is no minute" },
                { "0 24 * * *", "is no hour" },
                { "0 0 0 * *", "is no day of month" },
                { "0 0 * 13 *", "is no month" },
                { "0 0 * * 8", "is no day of week" },
                { "@every 5m", "has 2 fields" },
                { "0 0 * * 1-8", "is no day of week" },
                { "0 0 * * */0", "is no day of week" },
                { "@reboot", "has 1 fields" },
                { "TZ=UTC 0 0 * * *", "write timeZone" },
                { "CRON_TZ=UTC 0 0 * * *", "write timeZone" },
                { "5m", "has 1 fields" },
        };
        struct zone *zone;
        struct error err;

        assert_int_equal(zone_load(&zone, STR("UTC"), &err), 0);
        for (size_t i = 0; i < COUNT_OF(all); i++) {
                BUF_AT_END struct buf why = BUF_INIT(1024);
                usec last = at("2026-11-24T10:00:00Z");
                struct cron c;

                if (cron_parse_kubernetes(str_of(all[i].text), &c, &why) < 0)
                        fail_msg("\"%s\" %s", all[i].text, why.p);
                for (size_t r = 0; r < COUNT_OF(all[i].runs); r++) {
                        last = cron_next(&c, zone, last);
                        if (last != at(all[i].runs[r]))
                                fail_msg("\"%s\": run %zu is not %s", all[i].text, r, all[i].runs[r]);
                }
        }
        for (size_t i = 0; i < COUNT_OF(wrong); i++) {
                BUF_AT_END struct buf why = BUF_INIT(1024);
                struct cron c;

                if (cron_parse_kubernetes(str_of(wrong[i].text), &c, &why) == 0)
                        fail_msg("\"%s\" was taken", wrong[i].text);
                if (!strstr(why.p, wrong[i].says))
                        fail_msg("\"%s\": %s", wrong[i].text, why.p);
        }
        (void)zone_free(zone);
}

/* What robfig/cron 3.0.1 answers, which is what a CronJob runs on: a star with a step restricts a day field,
 * so that the other one's days count as well; a list with a star in it does not; and steps in the day of week
 * end on Saturday. All from 2026-11-28, a Saturday, in UTC. */
static const struct {
        const char *text, *runs[6];
} days_of_kubernetes[] = {
        ROW("0 0 */2 * 1", { "2026-11-29T00:00:00Z", "2026-11-30T00:00:00Z", "2026-12-01T00:00:00Z",
                             "2026-12-03T00:00:00Z", "2026-12-05T00:00:00Z", "2026-12-07T00:00:00Z" }),
        ROW("0 0 */1 * 1", { "2026-11-30T00:00:00Z", "2026-12-07T00:00:00Z", "2026-12-14T00:00:00Z",
                             "2026-12-21T00:00:00Z", "2026-12-28T00:00:00Z", "2027-01-04T00:00:00Z" }),
        ROW("0 0 ? * 1", { "2026-11-30T00:00:00Z", "2026-12-07T00:00:00Z", "2026-12-14T00:00:00Z",
                           "2026-12-21T00:00:00Z", "2026-12-28T00:00:00Z", "2027-01-04T00:00:00Z" }),
        ROW("0 0 1,15 * */2", { "2026-11-29T00:00:00Z", "2026-12-01T00:00:00Z", "2026-12-03T00:00:00Z",
                                "2026-12-05T00:00:00Z", "2026-12-06T00:00:00Z", "2026-12-08T00:00:00Z" }),
        ROW("0 0 1,15 * */1", { "2026-12-01T00:00:00Z", "2026-12-15T00:00:00Z", "2027-01-01T00:00:00Z",
                                "2027-01-15T00:00:00Z", "2027-02-01T00:00:00Z", "2027-02-15T00:00:00Z" }),
        ROW("0 0 13 * */7", { "2026-11-29T00:00:00Z", "2026-12-06T00:00:00Z", "2026-12-13T00:00:00Z",
                              "2026-12-20T00:00:00Z", "2026-12-27T00:00:00Z", "2027-01-03T00:00:00Z" }),
        ROW("0 9 31 4 */3", { "2027-04-03T09:00:00Z", "2027-04-04T09:00:00Z", "2027-04-07T09:00:00Z",
                              "2027-04-10T09:00:00Z", "2027-04-11T09:00:00Z", "2027-04-14T09:00:00Z" }),
        ROW("0 0 13,* * 5", { "2026-12-04T00:00:00Z", "2026-12-11T00:00:00Z", "2026-12-18T00:00:00Z",
                              "2026-12-25T00:00:00Z", "2027-01-01T00:00:00Z", "2027-01-08T00:00:00Z" }),
        ROW("0 0 */10,* * 5", { "2026-12-04T00:00:00Z", "2026-12-11T00:00:00Z", "2026-12-18T00:00:00Z",
                                "2026-12-25T00:00:00Z", "2027-01-01T00:00:00Z", "2027-01-08T00:00:00Z" }),
        ROW("0 0 13 * 5,*/2", { "2026-11-29T00:00:00Z", "2026-12-01T00:00:00Z", "2026-12-03T00:00:00Z",
                                "2026-12-04T00:00:00Z", "2026-12-05T00:00:00Z", "2026-12-06T00:00:00Z" }),
        ROW("0 0 13 * 5,*", { "2026-12-13T00:00:00Z", "2027-01-13T00:00:00Z", "2027-02-13T00:00:00Z",
                              "2027-03-13T00:00:00Z", "2027-04-13T00:00:00Z", "2027-05-13T00:00:00Z" }),
        ROW("0 0 13 * 5", { "2026-12-04T00:00:00Z", "2026-12-11T00:00:00Z", "2026-12-13T00:00:00Z",
                            "2026-12-18T00:00:00Z", "2026-12-25T00:00:00Z", "2027-01-01T00:00:00Z" }),
        ROW("0 0 * * 1/3", { "2026-11-30T00:00:00Z", "2026-12-03T00:00:00Z", "2026-12-07T00:00:00Z",
                             "2026-12-10T00:00:00Z", "2026-12-14T00:00:00Z", "2026-12-17T00:00:00Z" }),
        ROW("0 0 * * 5/2", { "2026-12-04T00:00:00Z", "2026-12-11T00:00:00Z", "2026-12-18T00:00:00Z",
                             "2026-12-25T00:00:00Z", "2027-01-01T00:00:00Z", "2027-01-08T00:00:00Z" }),
        ROW("0 0 * * MON/2", { "2026-11-30T00:00:00Z", "2026-12-02T00:00:00Z", "2026-12-04T00:00:00Z",
                               "2026-12-07T00:00:00Z", "2026-12-09T00:00:00Z", "2026-12-11T00:00:00Z" }),
        ROW("0 0 * * 0/6", { "2026-11-29T00:00:00Z", "2026-12-05T00:00:00Z", "2026-12-06T00:00:00Z",
                             "2026-12-12T00:00:00Z", "2026-12-13T00:00:00Z", "2026-12-19T00:00:00Z" }),
        ROW("0 0 * * 2-6/2", { "2026-12-01T00:00:00Z", "2026-12-03T00:00:00Z", "2026-12-05T00:00:00Z",
                               "2026-12-08T00:00:00Z", "2026-12-10T00:00:00Z", "2026-12-12T00:00:00Z" }),
        ROW("0 0 10/7 * *", { "2026-12-10T00:00:00Z", "2026-12-17T00:00:00Z", "2026-12-24T00:00:00Z",
                              "2026-12-31T00:00:00Z", "2027-01-10T00:00:00Z", "2027-01-17T00:00:00Z" }),
        ROW("0 0 10/7 * */6", { "2026-11-29T00:00:00Z", "2026-12-05T00:00:00Z", "2026-12-06T00:00:00Z",
                                "2026-12-10T00:00:00Z", "2026-12-12T00:00:00Z", "2026-12-13T00:00:00Z" }),
        ROW("0 0 */40 * *", { "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z", "2027-02-01T00:00:00Z",
                              "2027-03-01T00:00:00Z", "2027-04-01T00:00:00Z", "2027-05-01T00:00:00Z" }),
        ROW("0 0 */40 * 3", { "2026-12-01T00:00:00Z", "2026-12-02T00:00:00Z", "2026-12-09T00:00:00Z",
                              "2026-12-16T00:00:00Z", "2026-12-23T00:00:00Z", "2026-12-30T00:00:00Z" }),
        ROW("0 0 * * */9", { "2026-11-29T00:00:00Z", "2026-12-06T00:00:00Z", "2026-12-13T00:00:00Z",
                             "2026-12-20T00:00:00Z", "2026-12-27T00:00:00Z", "2027-01-03T00:00:00Z" }),
        ROW("*/90 ? 1 ? ?", { "2026-12-01T00:00:00Z", "2026-12-01T01:00:00Z", "2026-12-01T02:00:00Z",
                              "2026-12-01T03:00:00Z", "2026-12-01T04:00:00Z", "2026-12-01T05:00:00Z" }),
        ROW("0 */5 */9 2 *", { "2027-02-01T00:00:00Z", "2027-02-01T05:00:00Z", "2027-02-01T10:00:00Z",
                               "2027-02-01T15:00:00Z", "2027-02-01T20:00:00Z", "2027-02-10T00:00:00Z" }),
        ROW("0 0 29 2 */4", { "2027-02-04T00:00:00Z", "2027-02-07T00:00:00Z", "2027-02-11T00:00:00Z",
                              "2027-02-14T00:00:00Z", "2027-02-18T00:00:00Z", "2027-02-21T00:00:00Z" }),
        ROW("007 012 * * *", { "2026-11-28T12:07:00Z", "2026-11-29T12:07:00Z", "2026-11-30T12:07:00Z",
                               "2026-12-01T12:07:00Z", "2026-12-02T12:07:00Z", "2026-12-03T12:07:00Z" }),
        ROW("0 0 1-31 * 1", { "2026-11-29T00:00:00Z", "2026-11-30T00:00:00Z", "2026-12-01T00:00:00Z",
                              "2026-12-02T00:00:00Z", "2026-12-03T00:00:00Z", "2026-12-04T00:00:00Z" }),
        ROW("0 0 1 * 0-6", { "2026-11-29T00:00:00Z", "2026-11-30T00:00:00Z", "2026-12-01T00:00:00Z",
                             "2026-12-02T00:00:00Z", "2026-12-03T00:00:00Z", "2026-12-04T00:00:00Z" }),
};

static void kubernetes_days(void **state UNUSED)
{
        struct zone *zone;
        struct error err;

        assert_int_equal(zone_load(&zone, STR("UTC"), &err), 0);
        for (size_t i = 0; i < COUNT_OF(days_of_kubernetes); i++) {
                BUF_AT_END struct buf why = BUF_INIT(1024);
                usec last = at("2026-11-28T00:00:00Z");
                struct cron c;

                if (cron_parse_kubernetes(str_of(days_of_kubernetes[i].text), &c, &why) < 0)
                        fail_msg("\"%s\" %s", days_of_kubernetes[i].text, why.p);
                for (size_t r = 0; r < COUNT_OF(days_of_kubernetes[i].runs); r++) {
                        last = cron_next(&c, zone, last);
                        if (last != at(days_of_kubernetes[i].runs[r]))
                                fail_msg("\"%s\": run %zu is not %s", days_of_kubernetes[i].text, r,
                                         days_of_kubernetes[i].runs[r]);
                }
        }
        (void)zone_free(zone);
}

static void rates_tick_on_multiples(void **state UNUSED)
{
        RUNS("3m", "UTC", "2026-11-24T10:00:00Z", "2026-11-24T10:03:00Z", "2026-11-24T10:06:00Z");
        RUNS("3m", "UTC", "2026-11-24T10:02:59.999999Z", "2026-11-24T10:03:00Z");
        RUNS("1d", "Asia/Shanghai", "2026-11-24T10:00:00Z", "2026-11-25T00:00:00Z");
        RUNS("@every 1h30m", "UTC", "1970-01-01T00:00:00Z", "1970-01-01T01:30:00Z", "1970-01-01T03:00:00Z");
        RUNS("@every 1.5h", "UTC", "1970-01-01T01:29:59Z", "1970-01-01T01:30:00Z");
        RUNS("@every   100ms", "UTC", "1970-01-01T00:00:00Z", "1970-01-01T00:00:00.1Z");
        RUNS("7s", "UTC", "1969-12-31T23:59:50Z", "1969-12-31T23:59:53Z", "1970-01-01T00:00:00Z",
             "1970-01-01T00:00:07Z");
        RUNS("7s", "UTC", "1969-12-31T23:59:53Z", "1970-01-01T00:00:00Z");
}

static void lists_ranges_steps_and_names(void **state UNUSED)
{
        RUNS("0,30 * * * *", "UTC", "2026-11-24T10:00:00Z", "2026-11-24T10:00:30Z", "2026-11-24T10:01:00Z");
        RUNS("10-50/20 0 0 * *", "UTC", "2026-11-24T10:00:00Z", "2026-11-25T00:00:10Z",
             "2026-11-25T00:00:30Z", "2026-11-25T00:00:50Z", "2026-11-26T00:00:10Z");
        RUNS("0 50/5 9 * *", "UTC", "2026-11-24T10:00:00Z", "2026-11-25T09:50:00Z", "2026-11-25T09:55:00Z",
             "2026-11-26T09:50:00Z");
        RUNS("0 0 */7 * *", "UTC", "2026-11-24T14:00:00Z", "2026-11-24T21:00:00Z", "2026-11-25T00:00:00Z",
             "2026-11-25T07:00:00Z");
        RUNS("0 0 0 1 jan,Jul", "UTC", "2026-11-24T10:00:00Z", "2027-01-01T00:00:00Z",
             "2027-07-01T00:00:00Z");
        RUNS("0 0 0 ? FEB-MAR Mon", "UTC", "2026-11-24T10:00:00Z", "2027-02-01T00:00:00Z",
             "2027-02-08T00:00:00Z");
        RUNS("0 0 9 ? * MON-FRI", "UTC", "2026-11-27T10:00:00Z", "2026-11-30T09:00:00Z");
        RUNS("0 0 9 * * SUN,SAT", "UTC", "2026-11-27T10:00:00Z", "2026-11-28T09:00:00Z",
             "2026-11-29T09:00:00Z", "2026-12-05T09:00:00Z");
        RUNS("0\t0  9 * *", "UTC", "2026-11-24T10:00:00Z", "2026-11-25T09:00:00Z");
        RUNS("59 59 23 31 12", "UTC", "2026-12-31T23:59:59Z", "2027-12-31T23:59:59Z");
        RUNS("59 59 23 31 12", "UTC", "2026-12-31T23:59:58.999999Z", "2026-12-31T23:59:59Z");
}

static void month_ends_and_leap_days(void **state UNUSED)
{
        RUNS("0 0 0 31 * ?", "UTC", "2026-01-31T00:00:00Z", "2026-03-31T00:00:00Z", "2026-05-31T00:00:00Z",
             "2026-07-31T00:00:00Z", "2026-08-31T00:00:00Z");
        RUNS("0 0 0 30 2", "UTC", "2026-01-01T00:00:00Z", "never");
        RUNS("0 0 0 31 2,4,6,9,11", "UTC", "2026-01-01T00:00:00Z", "never");
        RUNS("0 0 12 29 2", "UTC", "2026-01-01T00:00:00Z", "2028-02-29T12:00:00Z", "2032-02-29T12:00:00Z");
        RUNS("0 0 12 29 FEB ?", "UTC", "2096-02-29T12:00:00Z", "2104-02-29T12:00:00Z"); /* 2100 is none */
        RUNS("0 0 0 28-31 2", "UTC", "2027-02-01T00:00:00Z", "2027-02-28T00:00:00Z", "2028-02-28T00:00:00Z",
             "2028-02-29T00:00:00Z");
}

/* Vixie's rule: with both days restricted either suffices; with one of them * or ? both must match. */
static void either_day_suffices_when_both_are_given(void **state UNUSED)
{
        RUNS("0 0 0 13 * FRI", "UTC", "2026-11-10T12:00:00Z", "2026-11-13T00:00:00Z", "2026-11-20T00:00:00Z",
             "2026-11-27T00:00:00Z", "2026-12-04T00:00:00Z", "2026-12-11T00:00:00Z", "2026-12-13T00:00:00Z");
        RUNS("0 0 0 ? * FRI", "UTC", "2026-12-11T12:00:00Z", "2026-12-18T00:00:00Z");
        RUNS("0 0 0 13 * ?", "UTC", "2026-11-13T12:00:00Z", "2026-12-13T00:00:00Z");
        RUNS("0 0 0 13 * *", "UTC", "2026-11-13T12:00:00Z", "2026-12-13T00:00:00Z");
        RUNS("0 0 0 ? * ?", "UTC", "2026-11-13T12:00:00Z", "2026-11-14T00:00:00Z");
        /* a step over * counts as * */
        RUNS("0 0 0 */10 * FRI", "UTC", "2026-11-02T00:00:00Z", "2026-12-11T00:00:00Z");
}

static void zones_move_the_hour(void **state UNUSED)
{
        RUNS("0 0 9 * *", "Asia/Kathmandu", "2026-11-24T00:00:00Z", "2026-11-24T03:15:00Z");
        RUNS("CRON_TZ=America/New_York 0 0 9 * *", "Asia/Kathmandu", "2026-11-24T00:00:00Z",
             "2026-11-24T14:00:00Z");
        RUNS("CRON_TZ=UTC   0 0 9 * *", "Asia/Kathmandu", "2026-11-24T00:00:00Z", "2026-11-24T09:00:00Z");
        /* still the day before there */
        RUNS("0 0 20 * *", "America/New_York", "1970-01-01T00:00:00Z", "1970-01-01T01:00:00Z",
             "1970-01-02T01:00:00Z");
}

/* Berlin: 2026-03-29 02:00 → 03:00 and 2026-10-25 03:00 → 02:00, both at 01:00 UTC. */
static void berlin(void **state UNUSED)
{
        RUNS("0 30 2 * *", "Europe/Berlin", "2026-03-28T00:00:00Z", "2026-03-28T01:30:00Z",
             "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z");
        /* both fall into the gap: one run */
        RUNS("0 0,30 2 * *", "Europe/Berlin", "2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z",
             "2026-03-30T00:00:00Z");
        RUNS("0 0 * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z",
             "2026-03-29T02:00:00Z");
        RUNS("0 30 * * *", "Europe/Berlin", "2026-03-28T23:00:00Z", "2026-03-28T23:30:00Z",
             "2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z");
        /* a fixed hour: the first time only */
        RUNS("0 30 2 * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z",
             "2026-10-26T01:30:00Z");
        RUNS("0 30 2 * *", "Europe/Berlin", "2026-10-25T00:45:00Z", "2026-10-26T01:30:00Z");
        RUNS("0 30 * * *", "Europe/Berlin", "2026-10-24T23:00:00Z", "2026-10-24T23:30:00Z",
             "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z");
        RUNS("0 0 */2 * *", "Europe/Berlin", "2026-10-24T22:00:00Z", "2026-10-25T00:00:00Z",
             "2026-10-25T01:00:00Z", "2026-10-25T03:00:00Z");
        RUNS("*/20 59 2 * *", "Europe/Berlin", "2026-10-25T00:58:00Z", "2026-10-25T00:59:00Z",
             "2026-10-25T00:59:20Z", "2026-10-25T00:59:40Z", "2026-10-26T01:59:00Z");
        RUNS("0 0 3 * *", "Europe/Berlin", "2026-10-25T00:00:00Z", "2026-10-25T02:00:00Z");
}

/* New York: 2026-03-08 02:00 → 03:00 (07:00 UTC), 2026-11-01 02:00 → 01:00 (06:00 UTC). */
static void new_york(void **state UNUSED)
{
        RUNS("0 15 2 * *", "America/New_York", "2026-03-08T00:00:00Z", "2026-03-08T07:00:00Z",
             "2026-03-09T06:15:00Z");
        RUNS("0 30 1 * *", "America/New_York", "2026-11-01T00:00:00Z", "2026-11-01T05:30:00Z",
             "2026-11-02T06:30:00Z");
        RUNS("0 30 * * *", "America/New_York", "2026-11-01T05:00:00Z", "2026-11-01T05:30:00Z",
             "2026-11-01T06:30:00Z", "2026-11-01T07:30:00Z");
        RUNS("0 0 0 1 11 ?", "America/New_York", "2026-01-01T00:00:00Z", "2026-11-01T04:00:00Z",
             "2027-11-01T04:00:00Z");
}

/* Lord Howe moves by half an hour: 2026-04-05 02:00 → 01:30 (15:00 UTC the day before), 2026-10-04 02:00 →
 * 02:30 (15:30 UTC the day before). */
static void lord_howe(void **state UNUSED)
{
        RUNS("0 45 1 * *", "Australia/Lord_Howe", "2026-04-04T12:00:00Z", "2026-04-04T14:45:00Z",
             "2026-04-05T15:15:00Z");
        RUNS("0 45 * * *", "Australia/Lord_Howe", "2026-04-04T14:00:00Z", "2026-04-04T14:45:00Z",
             "2026-04-04T15:15:00Z", "2026-04-04T16:15:00Z");
        RUNS("0 15 2 * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", "2026-10-03T15:30:00Z",
             "2026-10-04T15:15:00Z");
        RUNS("0 45 2 * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", "2026-10-03T15:45:00Z");
}

/* Apia had no 2011-12-30: at 10:00 UTC it went from the 29th's midnight to the 31st's. */
static void apia(void **state UNUSED)
{
        RUNS("0 0 12 * *", "Pacific/Apia", "2011-12-29T00:00:00Z", "2011-12-29T22:00:00Z",
             "2011-12-30T10:00:00Z", "2011-12-30T22:00:00Z");
        RUNS("0 0 0 * *", "Pacific/Apia", "2011-12-29T12:00:00Z", "2011-12-30T10:00:00Z",
             "2011-12-31T10:00:00Z");
        RUNS("0 0 12 30 12", "Pacific/Apia", "2011-01-01T00:00:00Z", "2011-12-30T10:00:00Z",
             "2012-12-29T22:00:00Z");
}

/* St. John's went back at 00:01 to 23:01 of the day before (2006-10-29, 02:31 UTC): the hours that come twice
 * lie in two days. */
static void back_over_midnight(void **state UNUSED)
{
        RUNS("0 0,30 * * *", "America/St_Johns", "2006-10-29T01:45:00Z", "2006-10-29T02:00:00Z",
             "2006-10-29T02:30:00Z", "2006-10-29T03:00:00Z", "2006-10-29T03:30:00Z", "2006-10-29T04:00:00Z");
        RUNS("0 0 0 * *", "America/St_Johns", "2006-10-28T12:00:00Z", "2006-10-29T02:30:00Z",
             "2006-10-30T03:30:00Z");
        RUNS("0 30 23 * *", "America/St_Johns", "2006-10-28T12:00:00Z", "2006-10-29T02:00:00Z",
             "2006-10-30T03:00:00Z");
}

static void the_latest_is_the_last_of_a_walk(void **state UNUSED)
{
        static const char *const schedules[] = {
                "* * * * *",  "0 * * * *", "0 0 */3 * *", "30 15 2 * * MON", "0 0 0 1 *",
                "0 0 0 29 2", "7s",        "1d",          "0 30 2 * *",      "59 59 23 31 12"
        };
        static const char *const zones[] = { "UTC", "Europe/Berlin", "Australia/Lord_Howe" };
        struct random r;

        random_init(&r, 5);
        for (size_t i = 0; i < COUNT_OF(schedules) * COUNT_OF(zones); i++) {
                struct schedule s = schedule_of(schedules[i % COUNT_OF(schedules)],
                                                zones[i / COUNT_OF(schedules)]);

                for (int n = 0; n < 10; n++) {
                        usec after = at("2026-03-28T12:00:00Z") + (usec)random_below(&r, (uint64_t)USEC_DAY),
                             until = after + (usec)random_below(&r, (uint64_t)USEC_HOUR * 2);
                        usec last = USEC_NEVER, next;

                        for (next = cron_next(&s.cron, s.zone, after); next <= until;
                             next = cron_next(&s.cron, s.zone, next))
                                last = next;
                        assert_true(cron_latest(&s.cron, s.zone, after, until) == last);
                }
                assert_true(cron_latest(&s.cron, s.zone, at("2026-01-01T00:00:00Z"),
                                        at("2026-01-01T00:00:00Z")) == USEC_NEVER);
                (void)zone_free(s.zone);
        }
        struct schedule leap = schedule_of("0 0 0 29 2", "UTC");
        assert_true(cron_latest(&leap.cron, leap.zone, at("2000-01-01T00:00:00Z"),
                                at("2027-06-01T00:00:00Z")) == at("2024-02-29T00:00:00Z"));
        assert_true(cron_latest(&leap.cron, leap.zone, at("2024-02-29T00:00:00Z"),
                                at("2027-06-01T00:00:00Z")) == USEC_NEVER);
        assert_true(cron_latest(&leap.cron, leap.zone, at("2024-02-28T23:59:59Z"),
                                at("2024-02-29T00:00:00Z")) == at("2024-02-29T00:00:00Z"));
        (void)zone_free(leap.zone);
}

/* ---- against brute force ------------------------------------------------ */

/* The documented rule, told second by second: does the schedule run at this instant? */
static bool shows(const struct cron *c, int64_t local)
{
        int64_t day = local / 86400, year;
        int month, date, second = (int)(local % 86400);
        bool by_date, by_weekday;

        civil_from_days(day, &year, &month, &date);
        by_date = c->days >> date & 1;
        by_weekday = c->weekdays >> ((day + 4) % 7) & 1;
        return (c->seconds >> second % 60 & 1) && (c->minutes >> second / 60 % 60 & 1) &&
               (c->hours >> second / 3600 & 1) && (c->months >> month & 1) &&
               (c->any_day || c->any_weekday ? by_date && by_weekday : by_date || by_weekday);
}

static bool runs_at(const struct cron *c, const struct zone *z, int64_t utc)
{
        int64_t now = zone_offset(z, utc), before = zone_offset(z, utc - 1);

        /* What a gap skipped runs as it ends. */
        for (int64_t local = utc + before; now > before && local < utc + now; local++)
                if (shows(c, local))
                        return true;
        if (!shows(c, utc + now))
                return false;
        if (c->any_hour)
                return true;
        /* Not again, when the clock showed this before it went back. */
        for (int64_t back = 1; back <= 3 * 3600; back += 1)
                if (zone_offset(z, utc - back) - now == back)
                        return false;
        return true;
}

static void random_field(struct random *r, struct buf *b, int min, int max, bool question)
{
        int low = min + (int)random_below(r, (uint64_t)(max - min + 1)),
            high = low + (int)random_below(r, (uint64_t)(max - low + 1));

        switch (random_below(r, 6)) {
        case 0: buf_text(b, question && random_below(r, 2) ? "? " : "* "); return;
        case 1: buf_printf(b, "*/%d ", 1 + (int)random_below(r, (uint64_t)max)); return;
        case 2: buf_printf(b, "%d-%d ", low, high); return;
        case 3: buf_printf(b, "%d-%d/%d ", low, high, 1 + (int)random_below(r, 5)); return;
        case 4: buf_printf(b, "%d,%d ", high, low); return;
        default: buf_printf(b, "%d ", low); return;
        }
}

static void agrees_with_brute_force(void **state UNUSED)
{
        static const struct {
                const char *zone, *around;
        } spans[] = {
                { "UTC", "2027-12-31T23:00:00Z" },
                { "Europe/Berlin", "2026-03-29T00:00:00Z" },
                { "Europe/Berlin", "2026-10-25T00:00:00Z" },
                { "America/New_York", "2026-03-08T06:00:00Z" },
                { "America/New_York", "2026-11-01T05:00:00Z" },
                { "Australia/Lord_Howe", "2026-04-04T14:30:00Z" },
                { "Australia/Lord_Howe", "2026-10-03T15:00:00Z" },
                { "America/St_Johns", "2006-10-29T02:00:00Z" },
                { "America/St_Johns", "2006-04-02T03:00:00Z" },
                { "America/Sao_Paulo", "2018-02-18T01:00:00Z" },
                { "America/Sao_Paulo", "2018-11-04T02:00:00Z" },
                { "Asia/Shanghai", "2028-02-28T15:00:00Z" },
                { "Antarctica/Casey", "2010-03-04T14:30:00Z" },
        };
        struct random r;

        random_init(&r, 11);
        for (int i = 0; i < 80; i++) {
                size_t which = random_below(&r, COUNT_OF(spans));
                BUF_AT_END struct buf text = BUF_INIT(200);
                struct schedule s;
                int64_t from = at(spans[which].around) / USEC_SEC - (int64_t)random_below(&r, 3600),
                        until = from + 9000, next;

                if (random_below(&r, 12))
                        buf_text(&text, "0 ");
                else
                        random_field(&r, &text, 0, 59, false);
                random_field(&r, &text, 0, 59, false);
                if (random_below(&r, 2))
                        buf_text(&text, "* ");
                else
                        random_field(&r, &text, 0, 23, false);
                buf_text(&text, "* * ");
                if (random_below(&r, 3) == 0)
                        random_field(&r, &text, 0, 6, true);
                s = schedule_of(text.p, spans[which].zone);
                next = cron_next(&s.cron, s.zone, from * USEC_SEC);
                for (int64_t t = from + 1; t <= until; t++) {
                        if (runs_at(&s.cron, s.zone, t) != (next == t * USEC_SEC))
                                fail_msg("\"%s\" in %s at %lld: brute force says %s, the next run is %lld",
                                         text.p, spans[which].zone, (long long)t,
                                         next == t * USEC_SEC ? "no" : "yes", (long long)(next / USEC_SEC));
                        if (next == t * USEC_SEC)
                                next = cron_next(&s.cron, s.zone, next);
                        assert_true(next > t * USEC_SEC);
                }
                (void)zone_free(s.zone);
        }
}

/* ---- the rules of the spec ---------------------------------------------- */

static void the_spec_explains_what_is_wrong(void **state UNUSED)
{
        static const struct {
                const char *schedule, *says;
        } all[] = {
                { "0 0 9 * *", NULL },
                { "3m", NULL },
                { "CRON_TZ=Europe/Berlin 0 0 9 29 2", NULL },
                { "0 0 0 30 2 ?", "never comes" },
                { "CRON_TZ=Mars/Olympus 0 0 9 * *", "Mars/Olympus" },
                { "0 0 25 * *", "is no hour" },
        };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                FREE_AT_END char *text = str_dup(str_of(all[i].schedule));
                struct timer_spec spec = { .schedule = text };
                BUF_AT_END struct buf why = BUF_INIT(1024);
                bool valid = timer_type.rules[0].explain(&spec, &why);

                assert_int_equal(valid, all[i].says == NULL);
                if (all[i].says)
                        assert_non_null(strstr(why.p, all[i].says));
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(errors_name_the_field),
                cmocka_unit_test(errors_say_where_they_are),
                cmocka_unit_test(what_kubernetes_would_read_otherwise_is_refused),
                cmocka_unit_test(kubernetes_form),
                cmocka_unit_test(kubernetes_days),
                cmocka_unit_test(rates_tick_on_multiples),
                cmocka_unit_test(lists_ranges_steps_and_names),
                cmocka_unit_test(month_ends_and_leap_days),
                cmocka_unit_test(either_day_suffices_when_both_are_given),
                cmocka_unit_test(zones_move_the_hour),
                cmocka_unit_test(berlin),
                cmocka_unit_test(new_york),
                cmocka_unit_test(lord_howe),
                cmocka_unit_test(apia),
                cmocka_unit_test(back_over_midnight),
                cmocka_unit_test(the_latest_is_the_last_of_a_walk),
                cmocka_unit_test(agrees_with_brute_force),
                cmocka_unit_test(the_spec_explains_what_is_wrong),
        };
        return cmocka_run_group_tests_name("cron", tests, NULL, NULL);
}
