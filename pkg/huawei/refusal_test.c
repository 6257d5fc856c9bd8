#include "huawei/refusal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static struct cloud_error read_one(const char *service, int status, const char *body)
{
        struct cloud_error e;

        refusal_read(&e, service, status, str_of(body), 0);
        return e;
}

/* The codes of the API references, and the verdicts that they call for. */
static void each_documented_code_means_something(void **state UNUSED)
{
        static const struct {
                const char *service;
                int status;
                enum cloud_verdict verdict;
                const char *codes;
        } table[] = {
                ROW("dms", 400, CLOUD_FINAL,
                    "10240002 10240004 10240005 10240007 10240009 10240010 10240011 10240012 10240013 "
                    "10240014 "
                    "10240017 10240018 10240019 10240020 10240021 10240022 10240027 10240028 10240035 "
                    "10240036 "
                    "10240038 10240039 10240040 10240041 10240042 10240043 10240044 10240045 10540001 "
                    "10540003 "
                    "10540004 10540010 10540011 10540012 10540014 10540202 10542205 10542206 10542209 "
                    "10542214"),
                ROW("dms", 400, CLOUD_GONE, "10240015 10240016"),
                ROW("dms", 400, CLOUD_RETRY, "10240032 10542204"),
                ROW("dms", 401, CLOUD_RENEW_CREDENTIALS, "10240101 10240102 10240103"),
                ROW("dms", 401, CLOUD_FORBIDDEN, "10240104"),
                ROW("dms", 403, CLOUD_FORBIDDEN, "10240306 10240309 10240310 10240311 10240312"),
                ROW("dms", 403, CLOUD_FINAL, "10240304 10240308"),
                ROW("dms", 404, CLOUD_GONE, "10240401 10240405 10240406 10240426 10540401"),
                ROW("dms", 404, CLOUD_THROTTLE, "10240407"),
                ROW("dms", 500, CLOUD_RETRY, "10250002 10250003 10250004 10250005 10250006"),
                ROW("dis", 403, CLOUD_FORBIDDEN, "DIS.4116"),
                ROW("dis", 400, CLOUD_FORBIDDEN, "DIS.4117 DIS.4329 DIS.4339"),
                ROW("dis", 400, CLOUD_FINAL,
                    "DIS.4200 DIS.4202 DIS.4203 DIS.4204 DIS.4215 DIS.4216 DIS.4300 DIS.4330"),
                ROW("dis", 400, CLOUD_GONE, "DIS.4201 DIS.4301 DIS.4302 DIS.4319 DIS.4332 DIS.4375"),
                ROW("dis", 400, CLOUD_RENEW_CURSOR, "DIS.4217 DIS.4224 DIS.4225 DIS.4226"),
                ROW("dis", 400, CLOUD_THROTTLE, "DIS.4303 DIS.4305 DIS.4309"),
                ROW("dis", 400, CLOUD_RETRY, "DIS.4205 DIS.4701 DIS.4702 DIS.4703"),
                ROW("dis", 500, CLOUD_RETRY, "DIS.5000"),
                ROW("smn", 403, CLOUD_FORBIDDEN, "SMN.00010002"),
                ROW("smn", 404, CLOUD_GONE, "SMN.00010021 SMN.00010022"),
                ROW("smn", 429, CLOUD_THROTTLE, "SMN.0429"),
                ROW("sts", 403, CLOUD_FORBIDDEN, "STS5.1003"),
                ROW("sts", 400, CLOUD_RETRY, "STS5.1007"),
                ROW("sts", 429, CLOUD_THROTTLE, "STS5.1100"),
                ROW("lts", 404, CLOUD_GONE, "APIGW.0101 APIG.0101"),
                ROW("lts", 502, CLOUD_RETRY, "APIGW.0202"),
                ROW("lts", 504, CLOUD_RETRY, "APIGW.0203"),
                ROW("lts", 401, CLOUD_RENEW_CREDENTIALS,
                    "APIGW.0301 APIGW.0303 APIGW.0305 APIGW.0307 APIG.0301"),
                ROW("lts", 403, CLOUD_FORBIDDEN, "APIGW.0302 APIGW.0304 APIGW.0306"),
                ROW("lts", 429, CLOUD_THROTTLE, "APIGW.0308"),
        };
        static const char *const shapes[] = {
                "{\"error_code\":\"%.*s\",\"error_msg\":\"w\",\"request_id\":\"r\"}",
                "{\"errorCode\":\"%.*s\",\"message\":\"w\"}",
                "{\"errorCode\":\"%.*s\",\"errorMsg\":\"w\"}",
                "{\"code\":\"%.*s\",\"message\":\"w\",\"encoded_authorization_message\":\"x\"}",
                "{\"http_code\":400,\"message\":{\"code\":\"%.*s\",\"details\":\"w\"}}",
        };
        size_t seen = 0;

        for (size_t i = 0; i < COUNT_OF(table); i++)
                for (struct str rest = str_of(table[i].codes), code; rest.n; seen++) {
                        code = str_cut(&rest, ' ');
                        for (size_t s = 0; s < COUNT_OF(shapes); s++) {
                                BUF_AT_END struct buf body = BUF_INIT(1024);
                                struct cloud_error e;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
                                buf_printf(&body, shapes[s], STR_ARG(code));
#pragma GCC diagnostic pop
                                e = read_one(table[i].service, table[i].status, body.p);
                                if (e.verdict != table[i].verdict || !str_is(code, e.code) ||
                                    strcmp(e.words, "w") != 0)
                                        fail_msg("%s: %s", body.p, cloud_verdict_name(e.verdict));
                        }
                }
        /* All rows are covered; two codes are those of older gateways. */
        assert_int_equal(seen, refusal_rows_n + 2);
}

static void a_code_is_its_service_s_own(void **state UNUSED)
{
        assert_int_equal(read_one("lts", 400, "{\"errorCode\":\"DIS.4303\"}").verdict, CLOUD_FINAL);
        assert_int_equal(read_one("dis", 400, "{\"errorCode\":\"DIS.4303\"}").verdict, CLOUD_THROTTLE);
        assert_int_equal(read_one("dms", 404, "{\"code\":10240407}").verdict, CLOUD_THROTTLE);
        assert_int_equal(read_one("dms", 404, "{\"code\":\"DMS.10240407\"}").verdict, CLOUD_THROTTLE);
        assert_int_equal(read_one("dis", 404, "{\"code\":10240407}").verdict, CLOUD_GONE);
}

static void what_has_no_code_goes_by_its_status(void **state UNUSED)
{
        static const struct {
                int status;
                enum cloud_verdict verdict;
        } table[] = {
                ROW(200, CLOUD_DONE),      ROW(204, CLOUD_DONE),     ROW(299, CLOUD_DONE),
                ROW(301, CLOUD_FINAL),     ROW(400, CLOUD_FINAL),    ROW(401, CLOUD_RENEW_CREDENTIALS),
                ROW(403, CLOUD_FORBIDDEN), ROW(404, CLOUD_GONE),     ROW(408, CLOUD_RETRY),
                ROW(409, CLOUD_FINAL),     ROW(429, CLOUD_THROTTLE), ROW(500, CLOUD_RETRY),
                ROW(502, CLOUD_RETRY),     ROW(503, CLOUD_RETRY),    ROW(599, CLOUD_RETRY),
        };
        static const char *const bodies[] = { "", "<html>", "[]", "{\"code\":{}}", "{\"code\":\"new\"}" };

        for (size_t i = 0; i < COUNT_OF(table); i++)
                for (size_t b = 0; b < COUNT_OF(bodies); b++)
                        assert_int_equal(read_one("dis", table[i].status, bodies[b]).verdict,
                                         table[i].verdict);
        /* The error code of a 5xx is not reliable. */
        assert_int_equal(read_one("dis", 500, "{\"errorCode\":\"DIS.4301\"}").verdict, CLOUD_RETRY);
        assert_int_equal(read_one("dis", 503, "{\"errorCode\":\"DIS.4303\"}").verdict, CLOUD_THROTTLE);
        assert_int_equal(read_one("dis", 429, "{\"errorCode\":\"DIS.4301\"}").verdict, CLOUD_THROTTLE);
}

static void it_is_told_in_the_service_s_words(void **state UNUSED)
{
        static const struct {
                const char *service;
                int status;
                const char *body, *text;
                enum error_kind kind;
                bool retry;
        } cases[] = {
                ROW("smn", 404, "{\"request_id\":\"r\",\"code\":\"SMN.00010021\",\"message\":\"no topic\"}",
                    "try: 404 SMN.00010021: no topic", ERROR_NOT_FOUND, false),
                ROW("dms", 400, "{\"code\":10540010,\"message\":\"bad\"}", "try: 400 10540010: bad",
                    ERROR_REFUSED, false),
                ROW("ces", 400, "{\"http_code\":400,\"message\":{\"code\":\"ces.0014\",\"details\":\"bad\"}}",
                    "try: 400 ces.0014: bad", ERROR_REFUSED, false),
                ROW("iam", 403,
                    "{\"error\":{\"code\":403,\"message\":\"not yours\",\"title\":\"Forbidden\"}}",
                    "try: 403 403: not yours", ERROR_FORBIDDEN, false),
                ROW("dms", 403, "{\"code\":10240306,\"message\":\"frozen\"}",
                    "try: 403 10240306: frozen (the account is frozen or in arrears: settle that in the "
                    "console)",
                    ERROR_FORBIDDEN, false),
                ROW("dis", 401, "{\"error_code\":\"APIGW.0301\",\"error_msg\":\"Incorrect\"}",
                    "try: 401 APIGW.0301: Incorrect (the access key is unknown, revoked, expired or does not "
                    "fit the secret key)",
                    ERROR_UNAUTHORIZED, false),
                ROW("dis", 429, "", "try: 429", ERROR_REFUSED, true),
                ROW("dis", 502, "<html>\n</html>", "try: 502", ERROR_REFUSED, true),
                ROW("dis", 500, "{\"message\":\"one\\ntwo\"}", "try: 500: one two", ERROR_REFUSED, true),
                ROW("dis", 301, "", "try: 301", ERROR_PROTOCOL, false),
        };
        struct cloud_error e;
        struct error err;

        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                refusal_read(&e, cases[i].service, cases[i].status, str_of(cases[i].body), 3 * USEC_SEC);
                assert_int_equal(refusal_error(&e, "try", &err), -1);
                assert_string_equal(err.text, cases[i].text);
                assert_int_equal(err.kind, cases[i].kind);
                assert_int_equal(err.retry, cases[i].retry);
                assert_int_equal(err.retry_after, 3 * USEC_SEC);
        }
}

static void the_access_key_is_not_repeated(void **state UNUSED)
{
        struct cloud_error e = read_one(
                "dms", 401, "{\"error_code\":\"APIGW.0301\",\"error_msg\":\"ak:AK1234,err:ak AK1234?\"}");

        refusal_hide(&e, (struct str){ 0 });
        assert_string_equal(e.words, "ak:AK1234,err:ak AK1234?");
        refusal_hide(&e, STR("AK1234"));
        assert_string_equal(e.words, "ak:******,err:ak ******?");
}

/* Of a token that is longer than what is kept of the message only a beginning stands there. */
static void the_beginning_of_a_token_is_not_repeated(void **state UNUSED)
{
        char token[400], body[500];
        struct cloud_error e;

        memset(token, 't', sizeof(token));
        memcpy(token, "MIIabc", 6);
        (void)snprintf(body, sizeof(body), "{\"error_code\":\"a\",\"error_msg\":\"token %.*s\"}",
                       (int)sizeof(token), token);
        e = read_one("dis", 400, body);
        refusal_hide(&e, (struct str){ token, sizeof(token) });
        assert_int_equal(strspn(e.words + 6, "*"), REFUSAL_WORDS_MOST - 1 - 6);
        e = read_one("dis", 400, "{\"error_code\":\"a\",\"error_msg\":\"what MIIa is\"}");
        refusal_hide(&e, (struct str){ token, sizeof(token) });
        assert_string_equal(e.words, "what MIIa is");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(each_documented_code_means_something),
                cmocka_unit_test(a_code_is_its_service_s_own),
                cmocka_unit_test(what_has_no_code_goes_by_its_status),
                cmocka_unit_test(it_is_told_in_the_service_s_words),
                cmocka_unit_test(the_access_key_is_not_repeated),
                cmocka_unit_test(the_beginning_of_a_token_is_not_repeated),
        };
        return cmocka_run_group_tests_name("refusal", tests, NULL, NULL);
}
