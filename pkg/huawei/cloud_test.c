#include "huawei/inside.h"
#include "tests/support/clock.h"
#include "tests/support/http.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* 2026-01-01T00:00:00Z */
static const usec NEW_YEAR = 1767225600 * USEC_SEC;
static struct set_clock set;
static const struct clock test_clock = SET_CLOCK(&set);

/* ---- the wire ----------------------------------------------------------- */

static struct test_call calls[64];
static struct test_http wire;

/* ---- a world ------------------------------------------------------------ */

static struct loop *loop;
static struct cloud *cloud;
static struct cloud_account *account;
static struct cloud_call call;
static const char *access_now, *secret_now, *token_now;

static int read_keys(void *cookie UNUSED, struct buf *access, struct buf *secret, struct buf *token,
                     struct error *err)
{
        if (!access_now)
                return error_set(err, ERROR_NOT_FOUND, "Secret cloud is missing");
        buf_text(access, access_now);
        if (secret_now)
                buf_text(secret, secret_now);
        if (token_now)
                buf_text(token, token_now);
        return 0;
}

static struct cloud_account_config fixed(void)
{
        return (struct cloud_account_config){ .region = "cn-north-4",
                                              .project = "p1",
                                              .credentials = { .kind = CREDENTIALS_FIXED,
                                                               .read = read_keys } };
}

static void turn(void) { cloud->task.turn(&cloud->task, set.monotonic); }

static int begin(const struct cloud_account_config *config, const char *endpoint)
{
        struct cloud_config c = { .clock = &test_clock, .endpoint = endpoint, .seed = 1 };
        struct http http = test_http_port(&wire);
        struct http_peers peers = test_http_peers(&wire);
        struct error err;

        set.monotonic = USEC_HOUR;
        set.wall = NEW_YEAR;
        access_now = "AKEXAMPLE";
        secret_now = "SKEXAMPLE";
        token_now = NULL;
        call = (struct cloud_call){ .service = "dms",
                                    .method = "GET",
                                    .what = "consume",
                                    .path = STR("/v2/{project_id}/queues"),
                                    .query = STR("a=1") };
        assert_int_equal(loop_new(&loop, &err), 0);
        wire = TEST_HTTP(calls);
        wire.loop = loop;
        c.loop = loop;
        assert_int_equal(cloud_new(&cloud, &c, &err), 0);
        cloud_use(cloud, &http, &peers);
        assert_int_equal(cloud_account_new(&account, cloud, config, &err), 0);
        call.account = account;
        return 0;
}

static int teardown(void **state UNUSED)
{
        cloud_call_done(&call);
        account = cloud_account_free(account);
        assert_int_equal(wire.closed, wire.opened);
        for (size_t i = 0; i < wire.opened; i++)
                assert_true(wire.peers[i].own_tls && wire.peers[i].answer_max == 16 << 20);
        cloud = cloud_free(cloud);
        loop = loop_free(loop);
        return 0;
}

static struct test_call *last(void) { return test_http_last(&wire); }

static void answer_to(struct test_call *c, int status, const char *head, size_t head_n, const char *body)
{
        test_http_end(
                &wire, c,
                (struct test_answer){ .status = status, .head = { head, head_n }, .body = str_of(body) });
        turn();
}
static void answer(int status, const char *body) { answer_to(last(), status, "", 0, body); }

static void fail_wire(bool elsewhere)
{
        struct test_answer a = { 0 };

        (void)error_set(&a.error, ERROR_UNREACHABLE, "GET https://a/: the connection broke");
        a.error.elsewhere = elsewhere;
        test_http_end(&wire, last(), a);
        turn();
}

static void start(void)
{
        cloud_start(&call);
        turn();
}

static void begin_fixed(void)
{
        struct cloud_account_config config = fixed();

        begin(&config, NULL);
}

#define REFUSED "{\"error_code\":\"APIGW.0301\",\"error_msg\":\"no\"}"

static void start_and_take(void)
{
        start();
        answer(200, "[]");
}

static void start_and_refuse(void)
{
        start();
        answer(401, REFUSED);
}

/* The first call was taken; the key has changed since, and the next call was refused. */
static void begin_and_change(const char *access)
{
        begin_fixed();
        start_and_take();
        access_now = access;
        start_and_refuse();
}

/* ---- tests -------------------------------------------------------------- */

static void a_call_is_signed_and_its_answer_kept(void **state UNUSED)
{
        begin_fixed();
        start();
        assert_int_equal(wire.n, 1);
        assert_string_equal(last()->url, "https://dms.cn-north-4.myhuaweicloud.com");
        assert_string_equal(last()->method, "GET");
        assert_string_equal(last()->path, "/v2/p1/queues?a=1");
        assert_non_null(strstr(last()->headers, "X-Project-Id: p1\r\n"));
        assert_non_null(strstr(last()->headers, "X-Sdk-Date: 20260101T000000Z\r\n"));
        assert_non_null(strstr(last()->headers,
                               "Authorization: SDK-HMAC-SHA256 Access=AKEXAMPLE, "
                               "SignedHeaders=content-type;host;x-project-id;x-sdk-date, Signature="));
        assert_null(strstr(last()->headers, "SKEXAMPLE"));
        assert_int_equal(call.request.state, REQUEST_BUSY);
        answer(200, "[1]");
        assert_int_equal(call.request.state, REQUEST_DONE);
        assert_false(request_failed(&call.request));
        assert_true(str_is(buf_view(&call.answer), "[1]"));
        assert_true(request_take(&call.request));
        assert_false(request_take(&call.request));
        /* a second call, over the same connection */
        call.method = "POST";
        call.body = STR("{}");
        start();
        assert_string_equal(last()->body, "{}");
        answer(201, "");
        assert_int_equal(call.answer.n, 0);
        assert_int_equal(wire.opened, 1);
}

static void refusals_are_read(void **state UNUSED)
{
        begin_fixed();
        start();
        answer(404, "{\"code\":10240407,\"message\":\"too frequent\"}");
        assert_int_equal(call.refusal.verdict, CLOUD_THROTTLE);
        assert_int_equal(call.status, 404);
        assert_string_equal(call.request.error.text, "consume: 404 10240407: too frequent");
        assert_true(call.request.error.retry);
        start();
        fail_wire(false);
        assert_string_equal(call.request.error.text, "consume: the connection broke");
        assert_true(call.request.error.retry);
        assert_int_equal(call.status, 0);
        start();
        test_http_end(&wire, last(), (struct test_answer){ .status = 200, .body_cut = true });
        turn();
        assert_string_equal(call.request.error.text, "consume: 200, and an answer of more than 16 MiB");
}

static void what_was_shown_is_not_told(void **state UNUSED)
{
        begin_fixed();
        token_now = "TOKENEXAMPLE";
        start();
        answer(400, "{\"error_code\":\"c\",\"error_msg\":\"no AKEXAMPLE, no TOKENEXAMPLE\"}");
        assert_non_null(strstr(call.request.error.text, "no *********, no ************"));
}

static void a_clock_that_is_off_costs_one_call(void **state UNUSED)
{
        static const struct {
                usec skew;
                char head[48];
        } cases[] = {
                ROW(20 * USEC_MINUTE, "Date\0Thu, 01 Jan 2026 00:20:00 GMT\0"),
                ROW(-20 * USEC_MINUTE, "Date\0Wed, 31 Dec 2025 23:40:00 GMT\0"),
        };

        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                begin_fixed();
                assert_int_equal(cloud_skew(cloud), 0);
                start();
                answer_to(last(), 401, cases[i].head, 36, REFUSED);
                assert_int_equal(wire.n, 2);
                assert_int_equal(cloud_skew(cloud), cases[i].skew);
                assert_non_null(strstr(last()->headers,
                                       i ? "X-Sdk-Date: 20251231T234000Z" : "X-Sdk-Date: 20260101T002000Z"));
                answer(200, "[]");
                assert_false(request_failed(&call.request));
                start(); /* no later call is refused */
                assert_int_equal(wire.n, 3);
                answer(200, "[]");
                /* The local clock is corrected: one call is refused, and then the clocks agree. */
                set.wall += cases[i].skew;
                start();
                answer_to(last(), 401, cases[i].head, 36, REFUSED);
                assert_int_equal(cloud_skew(cloud), 0);
                answer(200, "[]");
                teardown(NULL);
        }
        begin_fixed();
        start();
        /* The Date agrees with the local clock, so the key is wrong. */
        answer_to(last(), 401, "Date\0Thu, 01 Jan 2026 00:00:40 GMT\0", 36, REFUSED);
        assert_int_equal(wire.n, 1);
        assert_int_equal(call.request.error.kind, ERROR_UNAUTHORIZED);
        assert_int_equal(cloud_skew(cloud), 0);
}

static void keys_that_changed_are_used_within_the_call(void **state UNUSED)
{
        begin_fixed();
        start();
        access_now = "AKROTATED";
        answer(401, REFUSED);
        assert_int_equal(wire.n, 2);
        assert_non_null(strstr(last()->headers, "Access=AKROTATED, "));
        answer(200, "[]");
        assert_false(request_failed(&call.request));
        secret_now = "SKROTATED"; /* the same access key with another secret key */
        start_and_take();
        start();
        secret_now = "SKAGAIN";
        answer(401, REFUSED);
        assert_int_equal(wire.n, 5);
        answer(200, "[]");
        assert_false(request_failed(&call.request));
}

static void pass(usec time)
{
        set.monotonic += time;
        set.wall += time;
        turn();
}

static void half_a_pair_of_new_keys_is_no_failure(void **state UNUSED)
{
        struct cloud_call other;

        begin_and_change("AKROTATED");
        /* Neither this call nor another one uses the refused keys. */
        other = (struct cloud_call){
                .account = account, .service = "dis", .method = "GET", .path = STR("/")
        };
        cloud_start(&other);
        for (int i = 0; i < 5; i++)
                pass(USEC_SEC / 10);
        assert_int_equal(wire.n, 2);
        assert_int_equal(call.request.state, REQUEST_BUSY);
        secret_now = NULL; /* its file is being written */
        pass(USEC_SEC / 10);
        assert_int_equal(wire.n, 2);
        secret_now = "SKROTATED";
        pass(USEC_SEC / 10);
        assert_int_equal(wire.n, 4);
        answer_to(&calls[2], 200, "", 0, "[]");
        answer_to(&calls[3], 200, "", 0, "[]");
        assert_false(request_failed(&call.request) || request_failed(&other.request));
        cloud_call_done(&other);
        assert_int_equal(call.request.state, REQUEST_DONE);
}

static void new_keys_that_are_wrong_are_told_soon(void **state UNUSED)
{
        usec began;

        begin_and_change("AKWRONG");
        began = set.monotonic;
        while (wire.n == 2)
                pass(USEC_SEC / 100);
        assert_int_equal(set.monotonic - began, 3 * USEC_SEC);
        answer(401, REFUSED);
        assert_int_equal(call.request.state, REQUEST_DONE);
        assert_int_equal(call.status, 401);
        assert_string_equal(
                call.request.error.text,
                "consume: 401 APIGW.0301: no (the access key is unknown, revoked, expired or does "
                "not fit the secret key)");
        /* The files have not changed since, so the next call fails at once. */
        start_and_refuse();
        assert_int_equal(call.request.state, REQUEST_DONE);
        assert_int_equal(wire.n, 4);
}

static void a_call_whose_time_ends_while_keys_change_says_what_it_was_told(void **state UNUSED)
{
        begin_fixed();
        start_and_take();
        call.timeout = USEC_SEC;
        access_now = "AKWRONG";
        start_and_refuse();
        pass(USEC_SEC);
        assert_int_equal(wire.n, 2);
        assert_int_equal(call.request.state, REQUEST_DONE);
        assert_int_equal(call.request.error.kind, ERROR_UNAUTHORIZED);
}

static void keys_that_are_taken_away_are_told_soon(void **state UNUSED)
{
        begin_fixed();
        access_now = NULL; /* there were no keys yet */
        start();
        assert_string_equal(call.request.error.text, "Secret cloud is missing");
        access_now = "AKEXAMPLE";
        start_and_refuse();
        assert_int_equal(call.request.state, REQUEST_DONE); /* the first keys do not count as changed */
        access_now = NULL;
        start();
        assert_int_equal(call.request.state, REQUEST_BUSY);
        for (int i = 0; i < 30; i++)
                pass(USEC_SEC / 10);
        assert_int_equal(wire.n, 1);
        assert_int_equal(call.request.state, REQUEST_DONE);
        assert_string_equal(call.request.error.text, "Secret cloud is missing");
        assert_int_equal(call.refusal.verdict, CLOUD_DONE);
}

#define KEYS(n)                                                                                              \
        "{\"credential\":{\"access\":\"AK" n "\",\"secret\":\"SK" n "\",\"securitytoken\":\"T" n             \
        "\",\"expires_at\":\"2026-01-02T00:00:00.000000Z\"}}"

static void temporary_keys_are_there_before_the_call_and_renewed(void **state UNUSED)
{
        struct cloud_account_config config = { .region = "cn-north-4",
                                               .project = "p1",
                                               .shared = "metadata",
                                               .credentials = { .kind = CREDENTIALS_METADATA } };
        struct cloud_account *another;
        struct cloud_call other;
        struct error err;

        begin(&config, NULL);
        call.timeout = USEC_HOUR;
        start();
        assert_int_equal(wire.n, 1);
        assert_string_equal(last()->url, "http://169.254.169.254");
        assert_null(strstr(last()->headers, "Authorization"));
        answer(404, "");
        assert_string_equal(last()->path, "/openstack/latest/securitykey");
        answer(200, KEYS("1"));
        assert_int_equal(wire.n, 3);
        assert_non_null(strstr(last()->headers, "X-Security-Token: T1\r\n"));
        answer(200, "[]");
        /* Another account has the same keys. */
        assert_int_equal(cloud_account_new(&another, cloud, &config, &err), 0);
        other = (struct cloud_call){
                .account = another, .service = "dis", .method = "GET", .path = STR("/"), .timeout = USEC_HOUR
        };
        cloud_start(&other);
        turn();
        assert_int_equal(wire.n, 4);
        assert_non_null(strstr(last()->headers, "Access=AK1, "));
        /* The keys are revoked: both refused calls wait for new keys, which are requested once. */
        start();
        set.monotonic += 2 * USEC_MINUTE;
        answer_to(&calls[3], 401, "", 0, REFUSED);
        assert_int_equal(wire.n, 6);
        assert_string_equal(last()->path, "/openstack/latest/securitykey");
        answer_to(&calls[4], 401, "", 0, REFUSED);
        assert_int_equal(wire.n, 6);
        answer(200, KEYS("2"));
        assert_int_equal(wire.n, 8);
        for (size_t at = 6; at < 8; at++) {
                assert_non_null(strstr(calls[at].headers, "Access=AK2, "));
                answer_to(&calls[at], 200, "", 0, "[]");
        }
        assert_false(request_failed(&call.request) || request_failed(&other.request));
        /* 40 minutes before the keys expire new ones are requested, without any call. */
        set.monotonic += 23 * USEC_HOUR + 20 * USEC_MINUTE;
        set.wall += 23 * USEC_HOUR + 20 * USEC_MINUTE;
        turn();
        assert_int_equal(wire.n, 9);
        assert_string_equal(last()->path, "/openstack/latest/securitykey");
        cloud_call_done(&other);
        another = cloud_account_free(another);
}

static void keys_that_cannot_be_had_fail_the_call_in_words(void **state UNUSED)
{
        struct cloud_account_config config = { .region = "cn-north-4",
                                               .project = "p1",
                                               .credentials = { .kind = CREDENTIALS_AGENCY,
                                                                .read = read_keys,
                                                                .agency = "reader",
                                                                .domain = "example" } };

        begin(&config, NULL);
        start();
        assert_string_equal(last()->url, "https://iam.cn-north-4.myhuaweicloud.com");
        assert_string_equal(last()->path, "/v3.0/OS-CREDENTIAL/securitytokens");
        assert_non_null(strstr(last()->headers, "Access=AKEXAMPLE"));
        answer(403, "{\"error\":{\"code\":403,\"message\":\"not yours\"}}");
        assert_int_equal(call.request.state, REQUEST_DONE);
        assert_string_equal(call.request.error.text, "ask IAM for an agency's keys: 403 403: not yours");
        assert_int_equal(call.request.error.kind, ERROR_FORBIDDEN);
        /* The next call fails with the known error, and makes no request of its own. */
        start();
        assert_int_equal(wire.n, 1);
        assert_int_equal(call.request.state, REQUEST_DONE);
        assert_in_range(call.request.error.retry_after, 1, 2 * USEC_SEC);
        set.monotonic += 2 * USEC_SEC;
        start();
        assert_int_equal(wire.n, 2);
        answer(201, KEYS("1"));
        assert_int_equal(wire.n, 3);
        assert_non_null(strstr(last()->headers, "Access=AK1, "));
        answer(200, "[]");
}

static void half_a_pair_that_asks_for_an_agency_s_keys_is_no_failure(void **state UNUSED)
{
        struct cloud_account_config config = { .region = "cn-north-4",
                                               .project = "p1",
                                               .credentials = { .kind = CREDENTIALS_AGENCY,
                                                                .read = read_keys,
                                                                .agency = "reader",
                                                                .domain = "example" } };

        for (int is_wrong = 0; is_wrong < 2; is_wrong++) {
                begin(&config, NULL);
                start();
                answer(201, KEYS("1"));
                answer(200, "[]");
                start();
                access_now = "AKROTATED";
                answer(401, REFUSED); /* the service refuses the agency's keys */
                assert_int_equal(wire.n, 4);
                assert_non_null(strstr(last()->headers, "Access=AKROTATED, "));
                answer(401, REFUSED); /* and IAM the keys that request others */
                pass(USEC_SEC);
                assert_int_equal(wire.n, 4);
                assert_int_equal(call.request.state, REQUEST_BUSY);
                secret_now = is_wrong ? secret_now : "SKROTATED";
                pass(2 * USEC_SEC);
                assert_int_equal(wire.n, 5);
                answer(is_wrong ? 401 : 201, is_wrong ? REFUSED : KEYS("2"));
                if (!is_wrong)
                        answer(200, "[]");
                assert_int_equal(call.request.state, REQUEST_DONE);
                assert_int_equal(request_failed(&call.request), is_wrong);
                if (!is_wrong)
                        teardown(NULL);
        }
        assert_non_null(strstr(call.request.error.text, "ask IAM for an agency's keys: 401 APIGW.0301"));
}

static void the_project_is_looked_up_once(void **state UNUSED)
{
        struct cloud_account_config config = fixed();

        config.project = NULL;
        config.endpoint = "http://127.0.0.1:81";
        begin(&config, NULL);
        start();
        assert_string_equal(last()->url, "https://iam.cn-north-4.myhuaweicloud.com");
        assert_string_equal(last()->path, "/v3/projects?name=cn-north-4");
        answer(200, "{\"projects\":[{\"id\":\"other\",\"name\":\"cn-north-4_team\"},"
                    "{\"id\":\"p7\",\"name\":\"cn-north-4\"}]}");
        assert_int_equal(wire.n, 2);
        assert_string_equal(last()->url, "http://127.0.0.1:81");
        assert_string_equal(last()->path, "/v2/p7/queues?a=1");
        answer(200, "[]");
        start();
        assert_int_equal(wire.n, 3);
        answer(200, "[]");
        teardown(NULL);
        begin(&config, NULL);
        start();
        answer(200, "{\"projects\":[]}");
        assert_string_equal(call.request.error.text,
                            "IAM knows no project of the name cn-north-4: give the project id");
}

static void a_second_host_is_tried_for_names_and_tls_alone(void **state UNUSED)
{
        begin_fixed();
        call.service = "cts";
        start();
        assert_string_equal(last()->url, "https://cts.cn-north-4.myhuaweicloud.com");
        fail_wire(false); /* refused, reset */
        assert_int_equal(call.request.state, REQUEST_DONE);
        start();
        fail_wire(true);
        assert_int_equal(wire.n, 3);
        assert_string_equal(last()->url, "https://cts.cn-north-4.myhuaweicloud.cn");
        assert_non_null(strstr(last()->headers, "Authorization"));
        answer(503, "");
        assert_int_equal(call.request.state, REQUEST_DONE);
        start(); /* it stays with that host */
        assert_string_equal(last()->url, "https://cts.cn-north-4.myhuaweicloud.cn");
        fail_wire(true);
        assert_string_equal(last()->url, "https://cts.cn-north-4.myhuaweicloud.com");
        fail_wire(true);
        assert_int_equal(call.request.state, REQUEST_DONE);
        assert_true(request_failed(&call.request));
}

static void where_all_services_are_at_one_address(void **state UNUSED)
{
        struct cloud_account_config config = fixed();
        BUF_AT_END struct buf doubt = BUF_INIT(1024);

        config.region = "xx-nowhere-1";
        begin(&config, "http://127.0.0.1:8080");
        start();
        assert_string_equal(last()->url, "http://127.0.0.1:8080");
        answer(200, "[]");
        cloud_account_doubt(account, "dms", &doubt);
        assert_int_equal(doubt.n, 0);
        teardown(NULL);
        begin(&config, NULL);
        cloud_account_doubt(account, "dms", &doubt);
        assert_non_null(strstr(doubt.p, "region xx-nowhere-1 is not among those known of dms"));
}

static void calls_beyond_the_service_s_limit_wait(void **state UNUSED)
{
        static struct cloud_call many[100];
        size_t before;

        begin_fixed();
        for (size_t i = 0; i < COUNT_OF(many); i++) {
                many[i] = (struct cloud_call){ .account = account,
                                               .service = i == 99 ? "smn" : "iam",
                                               .method = "GET",
                                               .path = STR("/") };
                many[i].timeout = USEC_MINUTE;
                cloud_start(&many[i]);
        }
        turn();
        assert_int_equal(wire.n, 41); /* the burst of IAM, and one call of another service */
        before = wire.n;
        for (int i = 0; i < 10; i++) {
                set.monotonic += USEC_SEC / 20;
                turn();
        }
        assert_int_equal(wire.n, before + 10);
        cloud_cancel(&many[98]); /* still waits */
        for (size_t i = 0; i < COUNT_OF(many); i++)
                cloud_call_done(&many[i]);
        assert_int_equal(wire.cancelled, wire.n);
}

static void a_call_takes_no_longer_than_its_time(void **state UNUSED)
{
        begin_fixed();
        call.timeout = 5 * USEC_SEC;
        start();
        set.monotonic += 5 * USEC_SEC - 1;
        turn();
        assert_int_equal(call.request.state, REQUEST_BUSY);
        set.monotonic += 1;
        turn();
        assert_int_equal(call.request.state, REQUEST_DONE);
        assert_int_equal(call.request.error.kind, ERROR_TIMEOUT);
        assert_string_equal(call.request.error.text, "consume: no answer within 5000 ms");
        assert_int_equal(wire.cancelled, 1);
}

static void what_was_cancelled_is_not_heard_of(void **state UNUSED)
{
        begin_fixed();
        start();
        cloud_cancel(&call);
        assert_int_equal(wire.cancelled, 1);
        assert_int_equal(call.request.state, REQUEST_IDLE);
        set.monotonic += USEC_HOUR;
        turn();
        assert_int_equal(call.request.state, REQUEST_IDLE);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(a_call_is_signed_and_its_answer_kept, teardown),
                cmocka_unit_test_teardown(refusals_are_read, teardown),
                cmocka_unit_test_teardown(what_was_shown_is_not_told, teardown),
                cmocka_unit_test_teardown(a_clock_that_is_off_costs_one_call, teardown),
                cmocka_unit_test_teardown(keys_that_changed_are_used_within_the_call, teardown),
                cmocka_unit_test_teardown(half_a_pair_of_new_keys_is_no_failure, teardown),
                cmocka_unit_test_teardown(new_keys_that_are_wrong_are_told_soon, teardown),
                cmocka_unit_test_teardown(a_call_whose_time_ends_while_keys_change_says_what_it_was_told,
                                          teardown),
                cmocka_unit_test_teardown(keys_that_are_taken_away_are_told_soon, teardown),
                cmocka_unit_test_teardown(half_a_pair_that_asks_for_an_agency_s_keys_is_no_failure, teardown),
                cmocka_unit_test_teardown(temporary_keys_are_there_before_the_call_and_renewed, teardown),
                cmocka_unit_test_teardown(keys_that_cannot_be_had_fail_the_call_in_words, teardown),
                cmocka_unit_test_teardown(the_project_is_looked_up_once, teardown),
                cmocka_unit_test_teardown(a_second_host_is_tried_for_names_and_tls_alone, teardown),
                cmocka_unit_test_teardown(where_all_services_are_at_one_address, teardown),
                cmocka_unit_test_teardown(calls_beyond_the_service_s_limit_wait, teardown),
                cmocka_unit_test_teardown(a_call_takes_no_longer_than_its_time, teardown),
                cmocka_unit_test_teardown(what_was_cancelled_is_not_heard_of, teardown),
        };
        return cmocka_run_group_tests_name("cloud", tests, NULL, NULL);
}
