#include "huawei/sign.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define SECRET STR("SKSECRETEXAMPLE0123456789")
#define DATE "20240102T030405Z"
#define PROJECT "b2b3853af40448fcb9e40d0000000001"

/* The signatures that the official SDK sends for these requests. */
static void the_sdks_signatures_come_out(void **state UNUSED)
{
        const struct sign_header get[] = { { STR("Host"), STR("dms.cn-north-1.myhuaweicloud.com") },
                                           { STR("Content-Type"), STR("application/json") },
                                           { STR("X-Project-Id"), STR(PROJECT) },
                                           { STR("X-Sdk-Date"), STR(DATE) } };
        const struct sign_header post[] = { { STR("Host"), STR("smn.cn-north-1.myhuaweicloud.com") },
                                            { STR("Content-Type"), STR("application/json") },
                                            { STR("X-Project-Id"), STR(PROJECT) },
                                            { STR("X-Sdk-Date"), STR(DATE) },
                                            { STR("X-Security-Token"), STR("STSTOKEN123") } };
        struct sign_request a = { .method = STR("GET"),
                                  .path = STR("/v1.0/" PROJECT
                                              "/queues/48d11a53-e498-4964-84a2-aaa56442d5ca/groups/"
                                              "g-61d9d290-7dae-4144-9ce7-00b9f159cdbe/messages"),
                                  .query = STR("max_msgs=10&time_wait=3&ack_wait=30&tag=a%20b%2F%C3%BC"),
                                  .headers = get,
                                  .headers_n = COUNT_OF(get) };
        struct sign_request b = {
                .method = STR("POST"),
                .path = STR("/v2/" PROJECT "/notifications/topics/urn:smn:cn-north-1:" PROJECT ":t1/publish"),
                .headers = post,
                .headers_n = COUNT_OF(post),
                .body = STR("{\"subject\":\"s\",\"message\":\"m\"}")
        };
        char out[65];

        sign_request(&a, STR(DATE), SECRET, out);
        assert_string_equal(out, "c7194041fa530ddfe85a4da6b7cddcca1803b6bd3a7f87e476889c3290b5f49c");
        sign_request(&b, STR(DATE), SECRET, out);
        assert_string_equal(out, "73db183a2da2ae0dabd6ba9f3afc7510a1dbe7164a3520bc6eb33e60a28e3281");
        b.body = STR("{\"subject\":\"s\",\"message\":\"n\"}");
        sign_request(&b, STR(DATE), SECRET, out);
        assert_string_not_equal(out, "73db183a2da2ae0dabd6ba9f3afc7510a1dbe7164a3520bc6eb33e60a28e3281");
}

static void an_authorization_is_taken_apart(void **state UNUSED)
{
        static const char *const bad[] = {
                "",
                "Basic abc",
                "SDK-HMAC-SHA256",
                "SDK-HMAC-SHA256 Access=a",
                "SDK-HMAC-SHA256 Access=a, SignedHeaders=b",
                "SDK-HMAC-SHA256 Access=a, SignedHeaders=b, Signature=",
                "SDK-HMAC-SHA256 Access=a, SignedHeaders=b, Signature=c, Other=d"
        };
        struct sign_authorization a;

        assert_true(sign_parse(
                STR("SDK-HMAC-SHA256 Access=AK, SignedHeaders=host;x-sdk-date, Signature=00ff"), &a));
        assert_true(str_is(a.access, "AK") && str_is(a.signed_headers, "host;x-sdk-date") &&
                    str_is(a.signature, "00ff"));
        for (size_t i = 0; i < COUNT_OF(bad); i++)
                assert_false(sign_parse(str_of(bad[i]), &a));
}

static void dates_are_read(void **state UNUSED)
{
        usec at;

        assert_true(sign_date(STR(DATE), &at));
        assert_int_equal(at / USEC_SEC, 1704164645);
        assert_false(sign_date(STR("20240102T030405"), &at));
        assert_false(sign_date(STR("2024-1-02T03:04Z"), &at));
        assert_false(sign_date(STR("20241302T030405Z"), &at));
}

/* The client's rules give both paths the same signature, so only one of them may be accepted. */
static void an_encoded_slash_is_not_told_from_one(void **state UNUSED)
{
        static const char *const told[] = { "/",   "/o/7/note",    "/o/7%20note", "/%",
                                            "/%2", "/o/%252Fnote", "/%2%46",      "/%5C" },
                                 *const not_told[] = { "/o/7%2Fnote", "/%2f", "%2F", "/a/%2F%20" };
        struct sign_request a = { .method = STR("GET"), .path = STR("/o/7/note") },
                            b = { .method = STR("GET"), .path = STR("/o/7%2Fnote") };
        char one[65], other[65];

        sign_request(&a, STR(DATE), SECRET, one);
        sign_request(&b, STR(DATE), SECRET, other);
        assert_string_equal(one, other);
        for (size_t i = 0; i < COUNT_OF(told); i++)
                assert_true(sign_tells_path(str_of(told[i])));
        for (size_t i = 0; i < COUNT_OF(not_told); i++)
                assert_false(sign_tells_path(str_of(not_told[i])));
}

int main(void)
{
        const struct CMUnitTest tests[] = { cmocka_unit_test(the_sdks_signatures_come_out),
                                            cmocka_unit_test(an_authorization_is_taken_apart),
                                            cmocka_unit_test(dates_are_read),
                                            cmocka_unit_test(an_encoded_slash_is_not_told_from_one) };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
