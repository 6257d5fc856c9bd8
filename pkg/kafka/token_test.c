/* The token itself, whose time is the test's. */
#include "kafka/token.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/http.h"

#define URL "https://idp.example/token"
static char url[] = URL, name[] = "client", id[] = "id", secret[] = "secret", scope[] = "kafka all",
            audience[] = "brokers";
static struct secret_ref id_ref = { name, id }, secret_ref = { name, secret };
static char *scopes[] = { scope };
static const struct kafka_oauth_spec spec = { .client = {
                                                      url, &id_ref, &secret_ref, { scopes, 1 }, audience } };

static struct bench {
        struct loop *loop;
        char folder[64];
        struct test_call calls[8];
        struct test_http wire;
        struct kafka_token *token;
        usec now;
} b;

static void put(const char *key, const char *value)
{
        char path[160];
        FILE *f;

        (void)snprintf(path, sizeof(path), "%s/client/%s", b.folder, key);
        f = fopen(path, "w");
        assert_non_null(f);
        assert_true(fputs(value, f) >= 0);
        assert_int_equal(fclose(f), 0);
}

static int begin(void **state UNUSED)
{
        struct kafka_token_config config = { .spec = &spec, .secrets = b.folder };
        struct error err;
        char path[160];

        memset(&b, 0, sizeof(b));
        (void)snprintf(b.folder, sizeof(b.folder), "/tmp/kafka-token-XXXXXX");
        assert_non_null(mkdtemp(b.folder));
        (void)snprintf(path, sizeof(path), "%s/client", b.folder);
        assert_int_equal(mkdir(path, 0700), 0);
        put("id", "the client");
        put("secret", "s3cret/of it");
        b.wire = TEST_HTTP(b.calls);
        b.now = USEC_MINUTE;
        assert_int_equal(loop_new(&b.loop, &err), 0);
        config.loop = b.loop;
        config.http = test_http_port(&b.wire);
        config.peers = test_http_peers(&b.wire);
        assert_int_equal(kafka_token_new(&b.token, &config, &err), 0);
        assert_true(kafka_token_awaited(b.token));
        return 0;
}

static int end(void **state UNUSED)
{
        char command[100];

        b.token = kafka_token_free(b.token);
        assert_int_equal(b.wire.opened, b.wire.closed);
        b.loop = loop_free(b.loop);
        (void)snprintf(command, sizeof(command), "rm -r %s", b.folder);
        return system(command);
}

static void pass(usec time)
{
        b.now += time;
        turn(&b.token->task, b.now);
}

/* It asks, and is answered so. */
static void asked(int status, const char *body)
{
        size_t before = b.wire.n;

        pass(0);
        assert_int_equal(b.wire.n, before + 1);
        test_http_answer(&b.wire, test_http_last(&b.wire), status, body);
        pass(0);
}

static void it_is_asked_for_and_again_before_it_ends(void **state UNUSED)
{
        const struct test_call *c = b.calls;

        asked(200, "{\"access_token\":\"one\",\"expires_in\":100}");
        assert_string_equal(c->url, URL);
        assert_string_equal(c->method, ""); /* the target's: POST */
        assert_string_equal(c->body, "grant_type=client_credentials&scope=kafka+all&audience=brokers");
        /* the+client:s3cret%2Fof+it */
        assert_non_null(strstr(c->headers, "Authorization: Basic dGhlK2NsaWVudDpzM2NyZXQlMkZvZitpdA==\r\n"));
        assert_null(kafka_token_lacks(b.token));
        assert_true(kafka_token_changed(b.token));
        assert_false(kafka_token_changed(b.token));
        assert_string_equal(kafka_token_value(b.token).p, "one");
        assert_string_equal(kafka_token_principal(b.token), "the client");
        pass(79 * USEC_SEC);
        assert_int_equal(b.wire.n, 1);
        pass(USEC_SEC);
        assert_int_equal(b.wire.n, 2);
        test_http_answer(&b.wire, test_http_last(&b.wire), 200, "{\"access_token\":\"two\"}");
        pass(0);
        assert_string_equal(kafka_token_value(b.token).p, "two");
        pass(RENEWED);
        assert_int_equal(b.wire.n, 3);
}

static void one_that_is_refused_is_followed_by_another(void **state UNUSED)
{
        asked(200, "{\"access_token\":\"one\",\"expires_in\":\"3600\"}");
        kafka_token_refused(b.token);
        pass(IS_NEW - 1);
        assert_int_equal(b.wire.n, 1);
        pass(1);
        assert_int_equal(b.wire.n, 2);
        test_http_answer(&b.wire, test_http_last(&b.wire), 200, "{\"access_token\":\"two\"}");
        pass(0);
        pass(20 * USEC_SEC);
        kafka_token_refused(b.token);
        pass(0);
        assert_int_equal(b.wire.n, 3);
}

static void what_went_wrong_is_told_without_secrets(void **state UNUSED)
{
        static const struct {
                int status;
                const char *body, *why;
        } cases[] = {
                ROW(401,
                    "{\"error\":\"invalid_client\",\"error_description\":\"s3cret/of it, s3cret%2Fof+it\"}",
                    "token: " URL " answered 401: invalid_client, ***, ***: check "
                    "sasl.oauth.clientIdSecretRef and clientSecretSecretRef"),
                ROW(400, "{\"error\":\"invalid_scope\"}", "token: " URL " answered 400: invalid_scope"),
                ROW(404, "<html>", "token: " URL " answered 404"),
                ROW(200, "{}",
                    "token: " URL " answered 200 without an access_token: is sasl.oauth.tokenURL a token "
                    "endpoint's?"),
                ROW(200, "{\"access_token\":\"a b\"}",
                    "token: " URL " answered 200 with an access_token that is not printable ASCII"),
                ROW(200, "{\"access_token\":\"a\",\"expires_in\":0}",
                    "token: " URL " answered 200 with a token that has expired already (expires_in)"),
        };

        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                asked(cases[i].status, cases[i].body);
                assert_string_equal(kafka_token_lacks(b.token), cases[i].why);
                assert_false(kafka_token_awaited(b.token));
                assert_true(kafka_token_changed(b.token));
                test_http_forget(&b.wire);
                b.now = b.token->refresh_at;
        }
        put("secret", "");
        assert_true(secret_look(&b.token->secret));
        b.token->refresh_at = b.now;
        asked(200, "{\"access_token\":\"one\"}"); /* the last value may do */
        assert_null(kafka_token_lacks(b.token));
}

static void while_no_other_is_given_the_last_one_serves(void **state UNUSED)
{
        asked(200, "{\"access_token\":\"one\",\"expires_in\":1000}");
        assert_null(kafka_token_trouble(b.token));
        b.now += 800 * USEC_SEC;
        asked(503, "");
        assert_null(kafka_token_lacks(b.token));
        assert_string_equal(kafka_token_trouble(b.token), "token: " URL " answered 503");
        b.token->expires = clock_wall(&system_clock);
        assert_string_equal(kafka_token_lacks(b.token), "token: " URL " answered 503");
        assert_null(kafka_token_trouble(b.token));
        (void)kafka_token_changed(b.token);
        b.token->refresh_at = USEC_NEVER;
        pass(200 * USEC_SEC); /* that it is over is told, too */
        assert_true(kafka_token_changed(b.token));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(it_is_asked_for_and_again_before_it_ends, begin, end),
                cmocka_unit_test_setup_teardown(one_that_is_refused_is_followed_by_another, begin, end),
                cmocka_unit_test_setup_teardown(what_went_wrong_is_told_without_secrets, begin, end),
                cmocka_unit_test_setup_teardown(while_no_other_is_given_the_last_one_serves, begin, end),
        };

        return cmocka_run_group_tests_name("kafka token", tests, NULL, NULL);
}
