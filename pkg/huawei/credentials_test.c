#include "huawei/credentials.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* 2026-01-01T00:00:00Z */
static const usec NEW_YEAR = 1767225600 * USEC_SEC;
static usec now, wall;
static struct credentials *c;
static const char *access_now, *secret_now, *token_now;
static int reads;

static int read_all(void *cookie UNUSED, struct buf *access, struct buf *secret, struct buf *token,
                    struct error *err)
{
        reads++;
        if (!access_now)
                return error_set(err, ERROR_NOT_FOUND, "open /run/token: No such file or directory");
        buf_text(access, access_now);
        if (secret_now)
                buf_text(secret, secret_now);
        if (token_now)
                buf_text(token, token_now);
        return 0;
}

static struct credentials_config config_of(enum credentials_kind kind)
{
        static const char *const endpoints[] = {
                [CREDENTIALS_AGENCY] = "https://iam.test",
                [CREDENTIALS_METADATA] = "http://169.254.169.254",
                [CREDENTIALS_OIDC] = "https://sts.test",
                [CREDENTIALS_POD] = "http://127.0.0.1:7788/v1/credentials?a=b",
        };

        return (struct credentials_config){ .kind = kind,
                                            .read = read_all,
                                            .endpoint = kind ? endpoints[kind] : NULL,
                                            .agency = "reader",
                                            .domain = "example",
                                            .provider_urn = "iam::d:oidcProvider:p",
                                            .agency_urn = "iam::d:agency:reader",
                                            .seed = 1 };
}

static void begin_as(const struct credentials_config *config)
{
        struct error err;

        now = USEC_HOUR;
        wall = NEW_YEAR;
        reads = 0;
        c = credentials_free(c);
        assert_int_equal(credentials_new(&c, config, &err), 0);
}

static void begin(enum credentials_kind kind)
{
        struct credentials_config config = config_of(kind);

        access_now = kind == CREDENTIALS_OIDC || kind == CREDENTIALS_POD ? "\nheader.claims.signature\n"
                                                                         : "AKBASE";
        secret_now = kind == CREDENTIALS_FIXED || kind == CREDENTIALS_AGENCY ? "SKBASE" : NULL;
        token_now = NULL;
        begin_as(&config);
}

static int teardown(void **state UNUSED)
{
        c = credentials_free(c);
        return 0;
}

static void pass(usec time)
{
        now += time;
        wall += time;
}

static struct credentials_request expect_request(void)
{
        struct credentials_request q;

        assert_int_equal(credentials_deadline(c, now, wall), now);
        assert_true(credentials_next(c, now, wall, &q));
        assert_false(credentials_next(c, now, wall, &q)); /* one request at a time */
        assert_int_equal(credentials_deadline(c, now, wall), USEC_NEVER);
        return q;
}

static void answer(int status, const char *body)
{
        credentials_answered(c, status, str_of(body), 0, now, wall);
}

static void expect_keys(const char *access, const char *secret, const char *token)
{
        struct cloud_keys keys;
        struct error err;

        if (credentials_keys(c, now, wall, &keys, &err) < 0)
                fail_msg("%s", err.text);
        assert_true(str_is(keys.access, access) && str_is(keys.secret, secret) && str_is(keys.token, token));
}

static void expect_none(enum error_kind kind, const char *text)
{
        struct cloud_keys keys;
        struct error err;

        assert_int_equal(credentials_keys(c, now, wall, &keys, &err), -1);
        assert_int_equal(err.kind, kind);
        if (!strstr(err.text, text))
                fail_msg("%s", err.text);
}

/* When the next request is due. */
static void pass_until_due(usec at_least, usec at_most)
{
        usec wait = credentials_deadline(c, now, wall) - now;

        if (wait < at_least || wait > at_most)
                fail_msg("%lld us", (long long)wait);
        pass(wait - 1);
        if (wait > 0)
                assert_true(credentials_deadline(c, now, wall) > now);
        pass(1);
}

#define ONE_DAY                                                                                              \
        "{\"credential\":{\"access\":\"AK1\",\"secret\":\"SK1\",\"securitytoken\":\"T1\","                   \
        "\"expires_at\":\"2026-01-02T00:00:00.000000Z\"}}"
#define ANOTHER_DAY                                                                                          \
        "{\"credentials\":{\"access_key_id\":\"AK2\",\"secret_access_key\":\"SK2\",\"security_token\":"      \
        "\"T2\",\"expiration\":\"2026-01-03T00:00:00.000000Z\"}}"

static void fixed_keys_are_read_for_each_use(void **state UNUSED)
{
        struct credentials_request q;

        begin(CREDENTIALS_FIXED);
        assert_false(credentials_next(c, now, wall, &q));
        assert_int_equal(credentials_deadline(c, now, wall), USEC_NEVER);
        expect_keys("AKBASE", "SKBASE", "");
        assert_false(credentials_refused(c, 1, now));
        access_now = "AKNEXT";
        token_now = "T";
        assert_true(credentials_refused(c, 1, now)); /* there are newer keys */
        expect_keys("AKNEXT", "SKBASE", "T");
        pass(3 * USEC_SEC);
        expect_keys("AKNEXT", "SKBASE", "T");
        access_now = NULL;
        expect_none(ERROR_CANCELLED, "being replaced"); /* the second file may not be written yet */
        pass(3 * USEC_SEC);
        expect_none(ERROR_NOT_FOUND, "No such file");
        access_now = "AK NEXT";
        expect_none(ERROR_INVALID, "printable ASCII without spaces");
        access_now = "AKNEXT"; /* the keys before */
        expect_keys("AKNEXT", "SKBASE", "T");
        assert_false(credentials_refused(c, 2, now));
}

static void refused_keys_of_files_are_looked_at_again_for_a_while(void **state UNUSED)
{
        struct credentials_request q;

        begin(CREDENTIALS_FIXED);
        expect_keys("AKBASE", "SKBASE", "");
        access_now = "AKNEXT";
        expect_keys("AKNEXT", "SKBASE", "");
        assert_true(credentials_refused(c, 2, now));
        for (int i = 0; i < 30; i++) {
                expect_none(ERROR_CANCELLED, "being replaced");
                assert_int_equal(credentials_deadline(c, now, wall), now + USEC_SEC / 10);
                pass(USEC_SEC / 10);
                assert_false(credentials_next(c, now, wall, &q));
                assert_int_equal(credentials_deadline(c, now, wall), USEC_NEVER);
        }
        expect_keys("AKNEXT", "SKBASE", ""); /* tried once more; then they count as wrong */
        assert_false(credentials_refused(c, 2, now));
        secret_now = "SKNEXT";
        assert_true(credentials_refused(c, 2, now));
        expect_keys("AKNEXT", "SKNEXT", "");
}

static void the_machine_s_keys_need_a_token_first(void **state UNUSED)
{
        struct credentials_request q;

        begin(CREDENTIALS_METADATA);
        expect_none(ERROR_CANCELLED, "");
        q = expect_request();
        assert_string_equal(q.method, "PUT");
        assert_true(str_is(q.url, "http://169.254.169.254"));
        assert_true(str_is(q.path, "/meta-data/latest/api/token"));
        assert_true(str_is(q.headers, "X-Metadata-Token-Ttl-Seconds: 21600\r\n"));
        assert_int_equal(q.timeout, 3 * USEC_SEC);
        answer(200, "TOKEN");
        q = expect_request();
        assert_string_equal(q.method, "GET");
        assert_true(str_is(q.path, "/openstack/latest/securitykey"));
        assert_true(str_is(q.headers, "X-Metadata-Token: TOKEN\r\n"));
        answer(200, ONE_DAY);
        expect_keys("AK1", "SK1", "T1");
        /* They are renewed 40 minutes before they expire, with a new token, since the old one has expired. */
        pass_until_due(23 * USEC_HOUR + 20 * USEC_MINUTE, 23 * USEC_HOUR + 20 * USEC_MINUTE);
        assert_string_equal(expect_request().method, "PUT");
        expect_keys("AK1", "SK1", "T1");
        answer(200, "TOKEN2");
        q = expect_request();
        assert_true(str_is(q.headers, "X-Metadata-Token: TOKEN2\r\n"));
        answer(200, ANOTHER_DAY);
        expect_keys("AK2", "SK2", "T2");
}

static void older_machines_have_no_token(void **state UNUSED)
{
        static const int statuses[] = { 404, 405, 503 };

        for (size_t i = 0; i < COUNT_OF(statuses); i++) {
                struct credentials_request q;

                begin(CREDENTIALS_METADATA);
                (void)expect_request();
                answer(statuses[i], "not here");
                q = expect_request();
                assert_int_equal(q.headers.n, 0);
                answer(200, ONE_DAY);
                expect_keys("AK1", "SK1", "T1");
        }
}

static void a_stale_token_is_replaced_once(void **state UNUSED)
{
        begin(CREDENTIALS_METADATA);
        (void)expect_request();
        answer(200, "TOKEN");
        (void)expect_request();
        answer(401, "{\"error\":{\"message\":\"Unauthorized\"}}");
        assert_string_equal(expect_request().method, "PUT");
        answer(200, "TOKEN2");
        (void)expect_request();
        answer(401, "{\"error\":{\"message\":\"Unauthorized\"}}");
        expect_none(ERROR_UNAUTHORIZED, "ask the metadata service for keys: 401");
        pass_until_due(USEC_SEC / 2, 2 * USEC_SEC);
        (void)expect_request();
        answer(401, "{\"error\":{\"message\":\"Please configure Cloud Service Agency first\"}}");
        expect_none(ERROR_UNAUTHORIZED, "the machine has no agency");
}

static void an_agency_s_keys_are_asked_for_with_others(void **state UNUSED)
{
        struct credentials_request q;

        begin(CREDENTIALS_AGENCY);
        q = expect_request();
        assert_true(q.is_signed && str_is(q.keys.access, "AKBASE") && str_is(q.keys.secret, "SKBASE"));
        assert_true(str_is(q.path, "/v3.0/OS-CREDENTIAL/securitytokens"));
        assert_true(str_is(q.body, "{\"auth\":{\"identity\":{\"methods\":[\"assume_role\"],\"assume_role\":"
                                   "{\"agency_name\":\"reader\",\"domain_name\":\"example\","
                                   "\"duration_seconds\":3600}}}}"));
        answer(403, "{\"error\":{\"code\":403,\"message\":\"not yours\",\"title\":\"Forbidden\"}}");
        expect_none(ERROR_FORBIDDEN, "ask IAM for an agency's keys: 403 403: not yours");
        pass_until_due(USEC_SEC / 2, 2 * USEC_SEC);
        (void)expect_request();
        answer(201, ONE_DAY);
        expect_keys("AK1", "SK1", "T1");
}

static void the_service_account_s_token_is_read_at_each_renewal(void **state UNUSED)
{
        struct credentials_config config = config_of(CREDENTIALS_OIDC);
        struct credentials_request q;

        begin(CREDENTIALS_OIDC);
        q = expect_request();
        assert_false(q.is_signed);
        assert_true(str_is(q.path, "/v5/agencies/assume-with-oidc"));
        assert_true(str_is(q.body, "{\"provider_urn\":\"iam::d:oidcProvider:p\",\"agency_urn\":"
                                   "\"iam::d:agency:reader\",\"agency_session_name\":\"sluice\","
                                   "\"id_token\":\"header.claims.signature\",\"duration_seconds\":3600}"));
        access_now = "rotated";
        answer(200, ONE_DAY);
        pass_until_due(23 * USEC_HOUR, USEC_DAY);
        q = expect_request();
        assert_non_null(strstr(q.body.p, "\"id_token\":\"rotated\""));
        answer(200, ANOTHER_DAY);
        expect_keys("AK2", "SK2", "T2");

        config.session = "s";
        config.policy = "{}";
        config.policy_ids = "a, b";
        config.duration_seconds = 900;
        begin_as(&config);
        q = expect_request();
        assert_non_null(
                strstr(q.body.p, "\"duration_seconds\":900,\"policy\":\"{}\",\"policy_ids\":[\"a\",\"b\"]}"));
        access_now = NULL;
        begin_as(&config);
        assert_false(credentials_next(c, now, wall, &q));
        expect_none(ERROR_NOT_FOUND, "read the ServiceAccount's token: open /run/token");
}

static void a_pod_shows_its_token(void **state UNUSED)
{
        struct credentials_request q;

        begin(CREDENTIALS_POD);
        q = expect_request();
        assert_string_equal(q.method, "POST");
        assert_true(str_is(q.url, "http://127.0.0.1:7788") && str_is(q.path, "/v1/credentials?a=b"));
        assert_true(str_is(q.headers, "Authorization: header.claims.signature\r\n"
                                      "Content-Type: application/json\r\n"));
        assert_true(str_is(q.body, "{}"));
        assert_int_equal(q.timeout, 5 * USEC_SEC);
        answer(200, "{\"accessKeyId\":\"AK1\",\"secretAccessKey\":\"SK1\",\"securityToken\":\"T1\","
                    "\"expiration\":\"2026-01-01T01:00:00Z\"}");
        expect_keys("AK1", "SK1", "T1");
        /* Keys that live for an hour are renewed after half of it. */
        pass_until_due(USEC_HOUR / 2, USEC_HOUR / 2);
}

static void keys_that_expire_at_once_are_not_asked_for_without_end(void **state UNUSED)
{
        char body[256];

        begin(CREDENTIALS_POD);
        (void)expect_request();
        for (int i = 0; i < 3; i++) {
                (void)snprintf(
                        body, sizeof(body),
                        "{\"accessKeyId\":\"AK1\",\"secretAccessKey\":\"SK1\",\"securityToken\":\"T1\","
                        "\"expiration\":\"2026-01-01T00:00:%02d.001Z\"}",
                        i);
                answer(200, body);
                expect_keys("AK1", "SK1", "T1");
                pass_until_due(USEC_SEC, USEC_SEC);
                (void)expect_request();
        }
}

static void the_token_that_was_shown_is_not_told(void **state UNUSED)
{
        static const enum credentials_kind kinds[] = { CREDENTIALS_OIDC, CREDENTIALS_POD };

        for (size_t i = 0; i < COUNT_OF(kinds); i++) {
                begin(kinds[i]);
                assert_true(str_is(expect_request().shown, "header.claims.signature"));
                answer(400, "{\"error_code\":\"c\",\"error_msg\":\"bad header.claims.signature\"}");
                expect_none(ERROR_REFUSED, "bad ***********************");
        }
}

static void answers_that_hold_no_keys(void **state UNUSED)
{
        static const struct {
                const char *body, *why;
        } cases[] = {
                ROW("", "no JSON object"),
                ROW("[]", "no JSON object"),
                ROW("{}", "does not say when"),
                ROW("{\"credential\":{}}", "does not say when"),
                ROW("{\"access\":\"A\",\"secret\":\"S\",\"securitytoken\":\"T\"}", "does not say when"),
                ROW("{\"access\":\"A\",\"secret\":\"S\",\"securitytoken\":\"T\",\"expires_at\":\"soon\"}",
                    "does not say when"),
                ROW("{\"access\":\"A\",\"secret\":\"S\",\"securitytoken\":\"T\",\"expires_at\":"
                    "\"2025-12-31T23:59:59Z\"}",
                    "expired already"),
                ROW("{\"access\":\"A\",\"secret\":\"S\",\"expires_at\":\"2026-01-02T00:00:00Z\"}", "no keys"),
                ROW("{\"access\":\"A\",\"secret\":1,\"securitytoken\":\"T\",\"expires_at\":"
                    "\"2026-01-02T00:00:00Z\"}",
                    "no keys"),
                ROW("{\"access\":\"A\\r\\nX: y\",\"secret\":\"S\",\"securitytoken\":\"T\",\"expires_at\":"
                    "\"2026-01-02T00:00:00Z\"}",
                    "no keys"),
        };

        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                begin(CREDENTIALS_POD);
                (void)expect_request();
                answer(200, cases[i].body);
                expect_none(ERROR_PROTOCOL, cases[i].why);
                pass_until_due(USEC_SEC / 2, 2 * USEC_SEC);
                (void)expect_request();
                answer(200, ONE_DAY);
                expect_keys("AK1", "SK1", "T1");
        }
}

static void while_a_renewal_fails_the_old_keys_do_until_they_expire(void **state UNUSED)
{
        struct error err;
        int asked = 0;

        begin(CREDENTIALS_POD);
        (void)expect_request();
        answer(200, ONE_DAY);
        pass_until_due(23 * USEC_HOUR, USEC_DAY);
        for (; wall < NEW_YEAR + USEC_DAY; asked++) {
                expect_keys("AK1", "SK1", "T1");
                (void)expect_request();
                (void)error_set(&err, ERROR_UNREACHABLE, "connect to http://127.0.0.1:7788: refused");
                credentials_failed(c, &err, now);
                pass_until_due(USEC_SEC / 2, USEC_MINUTE);
        }
        expect_none(ERROR_CANCELLED, ""); /* a request is in flight */
        (void)expect_request();
        credentials_failed(c, &err, now);
        expect_none(ERROR_UNREACHABLE, "ask for the pod's keys: connect to http://127.0.0.1:7788: refused");
        assert_in_range(asked, 30, 2 * 40 * 60);
}

static void refused_keys_are_replaced_at_once_but_not_for_ever(void **state UNUSED)
{
        char access[8], body[256];

        begin(CREDENTIALS_POD);
        (void)expect_request();
        answer(200, ONE_DAY);
        for (unsigned i = 2; i < 6; i++) {
                /* Three at once, then one each 20 seconds. */
                assert_int_equal(credentials_refused(c, i - 1, now), i < 5);
                assert_int_equal(credentials_refused(c, i - 1, now), i < 5); /* refused in another call */
                if (i < 5)
                        expect_none(ERROR_CANCELLED, "");
                else {
                        expect_none(ERROR_UNAUTHORIZED, "the service refuses the new keys");
                        pass_until_due(20 * USEC_SEC, 20 * USEC_SEC);
                }
                (void)expect_request();
                (void)snprintf(body, sizeof(body),
                               "{\"access\":\"AK%u\",\"secret\":\"S\",\"securitytoken\":\"T\",\"expires_at\":"
                               "\"2026-01-02T00:00:00Z\"}",
                               i);
                answer(200, body);
                (void)snprintf(access, sizeof(access), "AK%u", i);
                expect_keys(access, "S", "T");
                assert_true(credentials_refused(c, i - 1, now)); /* a late refusal: there are newer keys */
                expect_keys(access, "S", "T");
        }
}

static void a_pause_that_was_asked_for_is_kept(void **state UNUSED)
{
        begin(CREDENTIALS_OIDC);
        (void)expect_request();
        credentials_answered(c, 429, STR("{\"error_code\":\"STS5.1100\",\"error_msg\":\"slow\"}"),
                             30 * USEC_SEC, now, wall);
        expect_none(ERROR_REFUSED, "ask STS for an agency's keys: 429 STS5.1100: slow");
        pass_until_due(30 * USEC_SEC, 32 * USEC_SEC);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(fixed_keys_are_read_for_each_use, teardown),
                cmocka_unit_test_teardown(refused_keys_of_files_are_looked_at_again_for_a_while, teardown),
                cmocka_unit_test_teardown(the_machine_s_keys_need_a_token_first, teardown),
                cmocka_unit_test_teardown(older_machines_have_no_token, teardown),
                cmocka_unit_test_teardown(a_stale_token_is_replaced_once, teardown),
                cmocka_unit_test_teardown(an_agency_s_keys_are_asked_for_with_others, teardown),
                cmocka_unit_test_teardown(the_service_account_s_token_is_read_at_each_renewal, teardown),
                cmocka_unit_test_teardown(keys_that_expire_at_once_are_not_asked_for_without_end, teardown),
                cmocka_unit_test_teardown(a_pod_shows_its_token, teardown),
                cmocka_unit_test_teardown(the_token_that_was_shown_is_not_told, teardown),
                cmocka_unit_test_teardown(answers_that_hold_no_keys, teardown),
                cmocka_unit_test_teardown(while_a_renewal_fails_the_old_keys_do_until_they_expire, teardown),
                cmocka_unit_test_teardown(refused_keys_are_replaced_at_once_but_not_for_ever, teardown),
                cmocka_unit_test_teardown(a_pause_that_was_asked_for_is_kept, teardown),
        };
        return cmocka_run_group_tests_name("credentials", tests, NULL, NULL);
}
