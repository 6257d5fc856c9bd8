/* What lets us in at the function: Secrets that change and go, tokens, and what of a peer's words is told. */
#include "worker/access.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "log/log.h"
#include "http/server/server.h"
#include "tests/support/trigger.h"

static struct {
        struct loop *loop;
        struct http_server *server;
        struct http_client *client;
        struct trigger *trigger;
        struct access *access;
        struct task observer, watchdog;
        bool (*until)(void);
        bool overdue;
        char folder[64];
        /* The token's server. */
        int status;
        const char *answer, *headers;
        unsigned asked;
} b;

static void check(void)
{
        if (b.until && b.until())
                loop_stop(b.loop);
}

static void handle(void *cookie UNUSED, struct http_call *call)
{
        b.asked++;
        http_call_reply(call, b.status, STR("application/json"),
                        b.headers ? str_of(b.headers) : (struct str){ 0 }, str_of(b.answer));
        check();
}

static void on_change(struct task *t UNUSED, usec now UNUSED) { check(); }

static void too_late(struct task *t UNUSED, usec now UNUSED)
{
        b.overdue = true;
        loop_stop(b.loop);
}

static void run(bool (*until)(void))
{
        b.until = until;
        if (until())
                return;
        loop_arm(b.loop, &b.watchdog, clock_monotonic(&system_clock) + 20 * USEC_SEC);
        loop_run(b.loop);
        loop_forget(b.loop, &b.watchdog);
        b.until = NULL;
        assert_false(b.overdue);
}

static void write_value(const char *key, const char *value)
{
        char path[160];
        FILE *f;

        (void)snprintf(path, sizeof(path), "%s/fn/%s", b.folder, key);
        if (!value) {
                assert_int_equal(unlink(path), 0);
                return;
        }
        f = fopen(path, "w");
        assert_true(f && fputs(value, f) >= 0 && fclose(f) == 0);
}

static void prepare(void)
{
        char path[160];

        memset(&b, 0, sizeof(b));
        b.status = 200;
        b.observer.turn = on_change;
        b.watchdog.turn = too_late;
        (void)snprintf(b.folder, sizeof(b.folder), "/tmp/access-test-XXXXXX");
        assert_non_null(mkdtemp(b.folder));
        (void)snprintf(path, sizeof(path), "%s/fn", b.folder);
        assert_int_equal(mkdir(path, 0700), 0);
}

/* delivery: %u becomes the port of the token's server. */
static void begin(const char *delivery)
{
        struct http_server_config server = {
                .address = "127.0.0.1:0", .head_max = 16384, .body_max = 65536, .handle = handle
        };
        struct access_config config = { .secrets = b.folder, .observer = &b.observer };
        BUF_AT_END struct buf text = BUF_INIT(65536);
        const char *port = strstr(delivery, "PORT");
        struct error err;

        assert_int_equal(loop_new(&b.loop, &err), 0);
        assert_int_equal(http_server_new(&b.server, b.loop, &server, &err), 0);
        assert_int_equal(http_client_new(&b.client, b.loop, &err), 0);
        buf_text(&text, "  delivery: ");
        buf_str(&text, (struct str){ delivery, port ? (size_t)(port - delivery) : strlen(delivery) });
        if (port)
                buf_printf(&text, "%u%s", http_server_port(b.server), port + 4);
        b.trigger = test_trigger_of((struct test_trigger_spec){
                .name = "t", .source = "timer: {schedule: '0 0 0 1 1'}", .more = text.p });
        config.trigger = b.trigger;
        config.loop = b.loop;
        config.http = b.client;
        if (access_new(&b.access, &config, &err) < 0)
                fail_msg("%s", err.text);
}

static int end(void **state UNUSED)
{
        char command[128];

        b.access = access_free(b.access);
        b.client = http_client_free(b.client);
        b.server = http_server_free(b.server);
        if (b.loop) {
                loop_forget(b.loop, &b.observer);
                b.loop = loop_free(b.loop);
        }
        b.trigger = trigger_free(b.trigger);
        (void)snprintf(command, sizeof(command), "rm -rf %s", b.folder);
        return system(command);
}

#define HEADERS                                                                                              \
        "{headers: [{name: X-One, secretRef: {name: fn, key: one}}, {name: X-Two, secretRef: {name: fn, "    \
        "key: two}}]}"
#define BEARER "{authentication: {bearer: {tokenSecretRef: {name: fn, key: one}}}}"
#define OAUTH                                                                                                \
        "{authentication: {oauth2: {tokenURL: 'http://127.0.0.1:PORT/token', clientIdSecretRef: {name: fn, " \
        "key: one}, clientSecretSecretRef: {name: fn, key: two}}}}"

static bool has_headers(const char *text) { return str_is(access_headers(b.access), text); }
/* A refusal makes it look at once, before it is time to. */
static void look(void) { assert_true(access_refused(b.access, access_version(b.access))); }
static bool lacks_nothing(void) { return !access_lacks(b.access); }

static void what_was_removed_serves_until_it_is_refused(void **state UNUSED)
{
        prepare();
        write_value("one", "secret-one");
        begin(BEARER);
        assert_null(access_lacks(b.access));
        assert_true(has_headers("Authorization: Bearer secret-one\r\n"));
        assert_false(access_refused(b.access, access_version(b.access))); /* there is nothing newer */
        write_value("one", NULL);
        look();
        assert_string_equal(
                access_notes(b.access),
                "Secret fn, key one, is missing or empty: its last value is used until it is refused");
        assert_null(access_lacks(b.access));
        assert_true(has_headers("Authorization: Bearer secret-one\r\n"));
        /* tried again once there is another */
        assert_true(access_refused(b.access, access_version(b.access)));
        assert_string_equal(access_lacks(b.access),
                            "Secret fn, key one, is missing or empty: the function refuses its last value");
        write_value("one", "secret-two");
        look();
        assert_true(lacks_nothing());
        assert_null(access_notes(b.access));
        assert_true(has_headers("Authorization: Bearer secret-two\r\n"));
}

static bool second_is_new(void) { return has_headers("X-One: 1111\r\nX-Two: 3333\r\n"); }

static void one_that_is_gone_keeps_no_other_from_changing(void **state UNUSED)
{
        prepare();
        write_value("one", "1111");
        write_value("two", "2222");
        begin(HEADERS);
        assert_true(has_headers("X-One: 1111\r\nX-Two: 2222\r\n"));
        write_value("one", "");
        write_value("two", "3333");
        look();
        assert_true(second_is_new());
        assert_non_null(access_notes(b.access));
        write_value("one", "1111");
        look();
        assert_null(access_notes(b.access));
        assert_true(second_is_new());
}

static void what_was_never_there_is_named(void **state UNUSED)
{
        prepare();
        write_value("two", "2222");
        begin(HEADERS);
        assert_non_null(strstr(access_lacks(b.access), "Secret fn, key one: open "));
        write_value("one", "line\nbreak");
        look();
        assert_false(lacks_nothing());
        write_value("one", "good");
        look();
        assert_true(lacks_nothing());
        assert_true(has_headers("X-One: good\r\nX-Two: 2222\r\n"));
}

static bool said_no(void) { return access_lacks(b.access) && strstr(access_lacks(b.access), " answered "); }

/* Of a token's server nothing is told but the two members that are for people, and our own secrets not even
 * there. */
static void of_a_tokens_answer_no_secret_is_told(void **state UNUSED)
{
        static const struct {
                int status;
                const char *answer, *told;
        } table[] = {
                ROW(400,
                    "{\"error\":\"invalid_client\",\"error_description\":\"unknown\",\"access_token\":\"tok-"
                    "en-1\"}",
                    "answered 400: invalid_client, unknown"),
                ROW(401, "{\"error\":\"Basic bXktY2xpZW50OnBhc3MtJTJGd29yZA==\"}", "answered 401: ***"),
                ROW(401, "{\"error\":\"pass-%2Fword\"}", "answered 401: ***"),
                ROW(401, "{\"error\":\"pass-/word refused\",\"error_description\":7}",
                    "answered 401: *** refused"),
                ROW(400, "{\"error\":\"no\\u001b[2J\\nlevel=info\"}", "answered 400: no [2J level=info"),
                ROW(500, "tok-en-1 is the token", "answered 500"),
                ROW(302, "{\"access_token\":\"tok-en-1\",\"refresh_token\":\"tok-en-2\"}", "answered 302"),
                ROW(200, "{\"access_token\":\"tok-en-1 \"}",
                    "answered 200 with an access_token that no header can hold"),
                ROW(200, "{\"access_token\":[\"tok-en-1\"],\"error\":\"tok-en-2\"}",
                    "answered 200 without an access_token"),
                ROW(201, "{\"access_token\":\"tok-en-1\"", "answered 201 without an access_token"),
        };

        for (size_t i = 0; i < COUNT_OF(table); i++) {
                char told[160];

                prepare();
                write_value("one", "my-client");
                write_value("two", "pass-/word");
                b.status = table[i].status;
                b.answer = table[i].answer;
                begin(OAUTH);
                assert_non_null(strstr(access_lacks(b.access), "waiting for a token"));
                run(said_no);
                (void)snprintf(told, sizeof(told), "token: http://127.0.0.1:%u/token %s",
                               http_server_port(b.server), table[i].told);
                assert_string_equal(access_lacks(b.access), told);
                assert_int_equal(end(NULL), 0);
        }
        prepare();
}

/* The client's credentials, and what the token's server answers. */
static void prepare_client(int status, const char *answer)
{
        prepare();
        write_value("one", "my-client");
        write_value("two", "pass-word");
        b.status = status;
        b.answer = answer;
}

/* A server that is asked too often says when it may be asked again. */
static void a_tokens_server_is_asked_when_it_says(void **state UNUSED)
{
        prepare_client(429, "{}");
        b.headers = "Retry-After: 60\r\n";
        begin(OAUTH);
        run(said_no);
        b.until = NULL; /* it would be asked again within the second */
        loop_arm(b.loop, &b.watchdog, clock_monotonic(&system_clock) + USEC_SEC + USEC_SEC / 2);
        loop_run(b.loop);
        b.overdue = false;
        assert_int_equal(b.asked, 1);
}

static void any_2xx_brings_a_token(void **state UNUSED)
{
        prepare_client(201, "{\"access_token\":\"tok-en-1\",\"expires_in\":3600}");
        begin(OAUTH);
        run(lacks_nothing);
        assert_true(has_headers("Authorization: Bearer tok-en-1\r\n"));
}

static bool asked_again(void) { return b.asked > 1; }

static void a_token_is_renewed_in_time_however_that_is_written(void **state UNUSED)
{
        static const char *const answers[] = {
                "{\"access_token\":\"tok-en-1\",\"expires_in\":1}",
                "{\"access_token\":\"tok-en-1\",\"expires_in\":1.0}",
                "{\"access_token\":\"tok-en-1\",\"expires_in\":\"1\"}",
        };

        for (size_t i = 0; i < COUNT_OF(answers); i++) {
                prepare_client(200, answers[i]);
                begin(OAUTH);
                run(lacks_nothing);
                run(asked_again);
                assert_int_equal(end(NULL), 0);
        }
        prepare();
}

static void quotes(const char *text, size_t most, bool cut, const char *quoted)
{
        BUF_AT_END struct buf out = BUF_INIT(1024);

        access_quote(b.access, &(struct access_words){ .text = str_of(text), .most = most, .cut = cut },
                     &out);
        assert_string_equal(out.p, quoted);
}

static void our_secrets_are_left_out_of_what_is_quoted(void **state UNUSED)
{
        BUF_AT_END struct buf out = BUF_INIT(1024);

        prepare();
        write_value("one", "user");
        write_value("two", "pass-word");
        begin("{authentication: {basic: {usernameSecretRef: {name: fn, key: one}, passwordSecretRef: {name: "
              "fn, key: two}}}}");
        assert_true(has_headers("Authorization: Basic dXNlcjpwYXNzLXdvcmQ=\r\n"));
        quotes("got pass-word and Basic dXNlcjpwYXNzLXdvcmQ=, dXNlcjpwYXNzLXdvcmQ= of user. pass-wor", 160,
               false, "got *** and ***, *** of ***. pass-wor");
        quotes("0123456789pass-word", 12, false, "0123456789***"); /* not half of it either */
        quotes("it was pass-wor", SIZE_MAX, true, "it was ***");
        quotes("it was pass-wor", SIZE_MAX, false, "it was pass-wor");
        quotes("it was pas", SIZE_MAX, true, "it was pas");
        quotes("0123456789", SIZE_MAX, true, "0123456789");
        access_quote(NULL, &(struct access_words){ .text = STR("plain words"), .most = 5 }, &out);
        assert_string_equal(out.p, "plain");
}

/* As text of UTF-8: what is written is Base64. */
static void passwords_need_not_be_ascii(void **state UNUSED)
{
        prepare();
        write_value("one", "us\xc3\xa9r");
        write_value("two", "p\xc3\xa4ss");
        begin("{authentication: {basic: {usernameSecretRef: {name: fn, key: one}, passwordSecretRef: {name: "
              "fn, key: two}}}}");
        assert_true(has_headers("Authorization: Basic dXPDqXI6cMOkc3M=\r\n"));
        quotes("got p\xc3\xa4ss", SIZE_MAX, false, "got ***");
}

static void passwords_have_no_control_characters(void **state UNUSED)
{
        prepare();
        write_value("one", "user");
        write_value("two", "pass\tword");
        begin("{authentication: {basic: {usernameSecretRef: {name: fn, key: one}, passwordSecretRef: {name: "
              "fn, key: two}}}}");
        assert_string_equal(access_lacks(b.access),
                            "Secret fn, key two: a user's name and password must have "
                            "no control characters");
}

/* Many write / as \\/ in JSON, some + as \\u002B, and a function's answer is JSON within JSON. */
static void secrets_are_found_in_json(void **state UNUSED)
{
        prepare();
        write_value("one", "ab/c+d==\\\"e");
        write_value("two", "other-one");
        begin(HEADERS);
        quotes("{\"x\": \"ab\\/c\\u002Bd==\\\\\\\"e\", \"y\": 1}", SIZE_MAX, false,
               "{\"x\": \"***\", \"y\": 1}");
        quotes("{\"b\": \"{\\\"x\\\": \\\"ab\\\\\\/c\\\\u002bd==\\\\\\\\\\\\\\\"e\\\"}\"}", SIZE_MAX, false,
               "{\"b\": \"{\\\"x\\\": \\\"***\\\"}\"}");
        quotes("ab\\/c\\u002", SIZE_MAX, false, "ab\\/c\\u002");
        quotes("\\u006fther-one", SIZE_MAX, false, "***");
        quotes("\\\\\\", SIZE_MAX, true, "\\\\\\");
}

/* The answer to what was sent before a Secret changed. */
static void what_was_shown_is_left_out_as_well(void **state UNUSED)
{
        BUF_AT_END struct buf out = BUF_INIT(1024);

        prepare();
        write_value("one", "new-value");
        write_value("two", "other-one");
        begin(HEADERS);
        access_quote(b.access,
                     &(struct access_words){ .text = STR("old-value new-value"),
                                             .most = SIZE_MAX,
                                             .shown = STR("X-One: old-value\r\nX-Two: other-one\r\n") },
                     &out);
        assert_string_equal(out.p, "*** ***");
}

/* An event would be given up for what is no fault of its own. */
static bool is_refused(void) { return access_lacks(b.access) && strstr(access_lacks(b.access), "too long"); }

static void a_token_that_no_request_holds_is_none(void **state UNUSED)
{
        static char answer[20000];
        int n = snprintf(answer, sizeof(answer), "{\"access_token\": \"");

        memset(answer + n, 't', HTTP_HEADROOM);
        (void)strcpy(answer + n + HTTP_HEADROOM, "\"}");
        prepare();
        write_value("one", "id");
        write_value("two", "secret");
        b.answer = answer;
        begin(OAUTH);
        run(is_refused);
        assert_int_equal(access_headers(b.access).n, 0);
}

static void headers_that_no_request_holds_are_not_sent(void **state UNUSED)
{
        static char value[HTTP_HEADROOM / 2];

        prepare();
        memset(value, 'v', sizeof(value) - 1);
        write_value("one", value);
        begin(BEARER);
        assert_string_equal(access_lacks(b.access),
                            "the headers from Secrets take more than 8192 bytes: no request holds them");
        assert_int_equal(access_headers(b.access).n, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(what_was_removed_serves_until_it_is_refused, end),
                cmocka_unit_test_teardown(one_that_is_gone_keeps_no_other_from_changing, end),
                cmocka_unit_test_teardown(what_was_never_there_is_named, end),
                cmocka_unit_test_teardown(of_a_tokens_answer_no_secret_is_told, end),
                cmocka_unit_test_teardown(a_tokens_server_is_asked_when_it_says, end),
                cmocka_unit_test_teardown(any_2xx_brings_a_token, end),
                cmocka_unit_test_teardown(a_token_is_renewed_in_time_however_that_is_written, end),
                cmocka_unit_test_teardown(our_secrets_are_left_out_of_what_is_quoted, end),
                cmocka_unit_test_teardown(passwords_need_not_be_ascii, end),
                cmocka_unit_test_teardown(passwords_have_no_control_characters, end),
                cmocka_unit_test_teardown(secrets_are_found_in_json, end),
                cmocka_unit_test_teardown(what_was_shown_is_left_out_as_well, end),
                cmocka_unit_test_teardown(a_token_that_no_request_holds_is_none, end),
                cmocka_unit_test_teardown(headers_that_no_request_holds_are_not_sent, end),
        };

        signals_block();
        log_setup(LOG_ERROR, LOG_LOGFMT);
        return cmocka_run_group_tests_name("access", tests, NULL, NULL);
}
