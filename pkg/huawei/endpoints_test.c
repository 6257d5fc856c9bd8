#include "huawei/endpoints.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void the_table_is_sorted(void **state UNUSED)
{
        assert_in_range(endpoint_rows_n, 300, 1000);
        for (size_t i = 1; i < endpoint_rows_n; i++) {
                const struct endpoint_row *a = &endpoint_rows[i - 1], *b = &endpoint_rows[i];
                int order = strcmp(a->service, b->service);

                assert_true(order < 0 || (order == 0 && strcmp(a->region, b->region) < 0));
        }
}

static void each_row_is_found(void **state UNUSED)
{
        struct endpoint e;
        struct error err;

        for (size_t i = 0; i < endpoint_rows_n; i++) {
                const struct endpoint_row *row = &endpoint_rows[i];
                struct str region = strcmp(row->region, "-") ? str_of(row->region) : (struct str){ 0 };

                assert_int_equal(endpoint_find(&e, row->service, region, &err), 0);
                assert_string_equal(e.hosts[0], row->hosts[0]);
                assert_string_equal(e.hosts[1], row->hosts[1] ? row->hosts[1] : "");
                assert_false(e.derived);
        }
}

static void no_suffix_fits_all(void **state UNUSED)
{
        static const struct {
                const char *service, *region, *first, *second;
                bool derived;
        } cases[] = {
                ROW("smn", "eu-west-101", "smn.eu-west-101.myhuaweicloud.eu", "", false),
                ROW("smn", "cn-north-2", "smn.cn-north-2.myhuaweicloud.cn", "", false),
                ROW("ces", "eu-west-101", "ces.eu-west-101.myhuaweicloud.com", "", false),
                ROW("kafka", "eu-west-101", "dms.eu-west-101.myhuaweicloud.eu", "", false),
                ROW("cts", "cn-north-4", "cts.cn-north-4.myhuaweicloud.com",
                    "cts.cn-north-4.myhuaweicloud.cn", false),
                ROW("cts", "af-north-1", "cts.af-north-1.myhuaweicloud.com",
                    "cts.af-north-1.myhuaweicloud.africa", false),
                ROW("cts", "eu-west-0", "cts.eu-west-0.myhuaweicloud.com", "", false),
                ROW("dis", "ap-southeast-3", "dis.ap-southeast-3.myhuaweicloud.com", "", true),
                ROW("kafka", "xx-new-1", "dms.xx-new-1.myhuaweicloud.com", "", true),
                ROW("iam", "", "iam.myhuaweicloud.com", "", false),
                ROW("sts", "", "sts.cn-north-4.myhuaweicloud.com", "", false),
                ROW("sts", "la-south-2", "sts.la-south-2.myhuaweicloud.com", "", false),
                ROW("sts", "xx-new-1", "sts.cn-north-4.myhuaweicloud.com", "", false),
        };
        struct endpoint e;
        struct error err;

        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                assert_int_equal(endpoint_find(&e, cases[i].service, str_of(cases[i].region), &err), 0);
                assert_string_equal(e.hosts[0], cases[i].first);
                assert_string_equal(e.hosts[1], cases[i].second);
                assert_int_equal(e.derived, cases[i].derived);
        }
}

static void what_is_guessed_is_said(void **state UNUSED)
{
        BUF_AT_END struct buf said = BUF_INIT(1024);
        struct endpoint e;
        struct error err;

        assert_int_equal(endpoint_find(&e, "dis", STR("ap-southeast-3"), &err), 0);
        endpoint_doubt(&e, "dis", STR("ap-southeast-3"), &said);
        assert_string_equal(
                said.p, "region ap-southeast-3 is not among those known of dis: its endpoint is taken to be "
                        "https://dis.ap-southeast-3.myhuaweicloud.com; if that is wrong, give "
                        "cloud.endpoint");
}

static void what_is_no_region_is_refused(void **state UNUSED)
{
        static const char *const bad[] = { "CN-NORTH-4", "cn.north", "cn/north",  "-cn",
                                           "cn-",        "cn north", "evil.test#" };
        struct endpoint e;
        struct error err;

        for (size_t i = 0; i < COUNT_OF(bad); i++)
                assert_int_equal(endpoint_find(&e, "dis", str_of(bad[i]), &err), -1);
        assert_int_equal(endpoint_find(&e, "dis", STR("cn north"), &err), -1);
        assert_string_equal(err.text,
                            "\"cn north\" is no region: expected letters, digits and -, as in cn-north-4");
        assert_int_equal(endpoint_find(&e, "dis", (struct str){ 0 }, &err), -1);
        assert_string_equal(err.text, "dis is found only by a region: give one, or an endpoint");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(the_table_is_sorted),          cmocka_unit_test(each_row_is_found),
                cmocka_unit_test(no_suffix_fits_all),           cmocka_unit_test(what_is_guessed_is_said),
                cmocka_unit_test(what_is_no_region_is_refused),
        };
        return cmocka_run_group_tests_name("endpoints", tests, NULL, NULL);
}
