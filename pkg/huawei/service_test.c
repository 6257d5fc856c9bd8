#include "huawei/service.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

static char url[1024], headers[4096], hosts[256], inside[256], body[1024];

static int submit(void *cookie UNUSED, uint64_t tag, const struct fetch_request *q, struct error *err UNUSED)
{
        assert_int_equal(tag, 7);
        (void)snprintf(url, sizeof(url), "%s " STR_FMT, q->method, STR_ARG(q->url));
        (void)snprintf(headers, sizeof(headers), STR_FMT, STR_ARG(q->headers));
        (void)snprintf(body, sizeof(body), STR_FMT, STR_ARG(q->body));
        (void)snprintf(hosts, sizeof(hosts), "%s", q->hosts[0]);
        (void)snprintf(inside, sizeof(inside), "%s", q->inside[0]);
        assert_null(q->hosts[1]);
        return 0;
}

static const struct fetch_ops ops = { .submit = submit };
static const struct fetch port = { &ops, NULL };

/* 2024-01-02T03:04:05Z */
static const usec date = 1704164645 * USEC_SEC;

static void a_call_is_signed_as_the_official_client_does_it(void **state UNUSED)
{
        const struct service_keys keys = { STR("AKIDEXAMPLE"), STR("SKSECRETEXAMPLE0123456789"),
                                           STR("STSTOKEN123") };
        const struct service_call c = {
                .method = "POST",
                .endpoint = STR("https://smn.cn-north-1.myhuaweicloud.com"),
                .project = STR("b2b3853af40448fcb9e40d0000000001"),
                .path = STR("/v2/b2b3853af40448fcb9e40d0000000001/notifications/topics/"
                            "urn:smn:cn-north-1:b2b3853af40448fcb9e40d0000000001:t1/publish"),
                .body = STR("{\"subject\":\"s\",\"message\":\"m\"}")
        };
        struct error err;

        assert_int_equal(service_submit(&port, 7, &c, &keys, date, &err), 0);
        assert_string_equal(url, "POST "
                                 "https://smn.cn-north-1.myhuaweicloud.com/v2/"
                                 "b2b3853af40448fcb9e40d0000000001/notifications/topics/"
                                 "urn:smn:cn-north-1:b2b3853af40448fcb9e40d0000000001:t1/publish");
        assert_non_null(strstr(headers, "\r\nX-Sdk-Date: 20240102T030405Z\r\n"));
        assert_non_null(strstr(headers, "\r\nX-Security-Token: STSTOKEN123\r\n"));
        assert_non_null(strstr(
                headers, "\r\nAuthorization: SDK-HMAC-SHA256 Access=AKIDEXAMPLE, "
                         "SignedHeaders=content-type;host;x-project-id;x-sdk-date;x-security-token, "
                         "Signature=73db183a2da2ae0dabd6ba9f3afc7510a1dbe7164a3520bc6eb33e60a28e3281\r\n"));
        assert_string_equal(body, "{\"subject\":\"s\",\"message\":\"m\"}");
        assert_string_equal(hosts, "smn.cn-north-1.myhuaweicloud.com");
}

static void only_the_endpoint_is_called(void **state UNUSED)
{
        const struct service_keys keys = { STR("a"), STR("b"), { 0 } };
        struct service_call c = { .method = "GET",
                                  .endpoint = STR("http://10.0.0.1:81"),
                                  .project = STR("p"),
                                  .path = STR("/v2"),
                                  .query = STR("offset=0") };
        struct error err;

        assert_int_equal(service_submit(&port, 7, &c, &keys, date, &err), 0);
        assert_string_equal(url, "GET http://10.0.0.1:81/v2?offset=0");
        assert_string_equal(hosts, "http://10.0.0.1:81");
        assert_string_equal(inside, "http://10.0.0.1:81");
        assert_non_null(strstr(headers, "\r\nHost: 10.0.0.1:81\r\n"));
        assert_null(strstr(headers, "Security"));
        c.endpoint = STR("https://h:8443");
        assert_int_equal(service_submit(&port, 7, &c, &keys, date, &err), 0);
        assert_string_equal(hosts, "h:8443");
}

static void what_an_answer_says(void **state UNUSED)
{
        static const struct {
                int status;
                const char *body, *text;
                enum error_kind kind;
                bool retry;
        } cases[] = {
                ROW(401, "{\"error_code\":\"APIGW.0301\",\"error_msg\":\"Incorrect\",\"request_id\":\"r\"}",
                    "try: 401 APIGW.0301: Incorrect", ERROR_UNAUTHORIZED, false),
                ROW(400, "{\"errorCode\":\"DIS.4301\",\"errorMsg\":\"no stream\"}",
                    "try: 400 DIS.4301: no stream", ERROR_REFUSED, false),
                ROW(404, "{\"request_id\":\"r\",\"code\":\"SMN.00010021\",\"message\":\"no topic\"}",
                    "try: 404 SMN.00010021: no topic", ERROR_NOT_FOUND, false),
                ROW(400, "{\"code\":10540010,\"message\":\"no queue\"}", "try: 400 10540010: no queue",
                    ERROR_REFUSED, false),
                ROW(400, "{\"http_code\":400,\"message\":{\"code\":\"ces.0014\",\"details\":\"bad\"}}",
                    "try: 400 ces.0014: bad", ERROR_REFUSED, false),
                ROW(403, "{\"error\":{\"code\":403,\"message\":\"not yours\"}}", "try: 403 403: not yours",
                    ERROR_FORBIDDEN, false),
                ROW(429, "", "try: 429", ERROR_REFUSED, true),
                ROW(502, "<html>\n</html>", "try: 502", ERROR_REFUSED, true),
                ROW(500, "{\"message\":\"one\\ntwo\"}", "try: 500: one two", ERROR_REFUSED, true),
                ROW(301, "", "try: 301", ERROR_PROTOCOL, false),
        };
        struct fetch_completion c = { .status = 204 };
        struct error err;

        assert_int_equal(service_judge(&c, "try", &err), 0);
        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                c = (struct fetch_completion){ .status = cases[i].status,
                                               .body = str_of(cases[i].body),
                                               .retry_after = 3 * USEC_SEC };
                assert_int_equal(service_judge(&c, "try", &err), -1);
                assert_string_equal(err.text, cases[i].text);
                assert_int_equal(err.kind, cases[i].kind);
                assert_int_equal(err.retry, cases[i].retry);
                assert_int_equal(err.retry_after, 3 * USEC_SEC);
        }
        c = (struct fetch_completion){ .failed = true };
        (void)error_set(&c.error, ERROR_UNREACHABLE, "GET http://h/: refused");
        assert_int_equal(service_judge(&c, "try", &err), -1);
        assert_string_equal(err.text, "try: refused");
        assert_true(err.retry);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_call_is_signed_as_the_official_client_does_it),
                cmocka_unit_test(only_the_endpoint_is_called),
                cmocka_unit_test(what_an_answer_says),
        };
        return cmocka_run_group_tests_name("service", tests, NULL, NULL);
}
