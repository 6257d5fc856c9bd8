/* The way in, whole: callers over loopback, the gate with APIs behind it, and a function that answers when
 * the test says so. */
#include "worker/gate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "log/log.h"
#include "transform/child.h"
#include "worker/pipeline.h"

#include "http/wire/codec.h"
#include "http/client/testing_port.h"
#include "tests/sim/memory.h"
#include "tests/support/clock.h"
#include "tests/support/trigger.h"

enum { PIPELINES = 2, CALLS = 8 };

static struct {
        struct set_clock time;
        struct clock clock;
        struct loop *loop;
        struct http_server *function;
        struct http_client *client;
        struct gate_host *host;
        struct trigger *triggers[PIPELINES];
        struct pipeline *pipelines[PIPELINES];
        size_t pipelines_n;
        char sink[64], folder[64];
        struct task wake, observer, watchdog, driver;
        unsigned passes; /* in which nothing came */
        bool (*until)(void);
        bool overdue;
        /* The function. */
        const char *answer;              /* NULL: it waits for the test */
        const char *refused;             /* with 500, in these words; NULL: it is not */
        const char *expected;            /* in each event */
        const char *shape;               /* of each answer of 5xx */
        struct http_call *held, *judged; /* judged: at the authorizer, which waits, too */
        bool judge_waits;
        size_t asked;
        /* Out of memory: */
        uint64_t starve; /* at this allocation from when the request is sent; 0: never */
        bool for_good;
        /* The callers. */
        int number;
        struct http_target *targets[CALLS];
        struct buf messages[CALLS];
        int status[CALLS]; /* 0: none yet */
        char body[CALLS][512], head[CALLS][1024];
} b;

static void check(void)
{
        if (b.until && b.until()) {
                b.until = NULL;
                loop_stop(b.loop);
        }
}

#define ALLOW                                                                                                \
        "{\"statusCode\":200,\"body\":\"{\\\"status\\\":\\\"allow\\\",\\\"context\\\":{\\\"a\\\":\\\"b\\\"}" \
        "}\"}"

static void on_event(void *cookie UNUSED, struct http_call *call)
{
        if (str_starts(buf_view(&http_call_message(call)->target), STR("/authorizer"))) {
                if (b.judge_waits) {
                        b.judged = call;
                        check();
                        return;
                }
                http_call_reply(call, 200, STR("application/json"), (struct str){ 0 }, STR(ALLOW));
                return;
        }
        b.asked++;
        if (b.expected && !memmem(http_call_message(call)->body.p, http_call_message(call)->body.n,
                                  b.expected, strlen(b.expected)))
                fail_msg("half an event: " STR_FMT, STR_ARG(buf_view(&http_call_message(call)->body)));
        if (b.refused)
                http_call_reply(call, 500, STR("text/plain"), (struct str){ 0 }, str_of(b.refused));
        else if (b.answer)
                http_call_reply(call, 200, STR("application/json"), (struct str){ 0 }, str_of(b.answer));
        else
                b.held = call;
        check();
}

static void on_left(void *cookie UNUSED, struct http_call *call)
{
        if (b.held == call)
                b.held = NULL;
        if (b.judged == call)
                b.judged = NULL;
        check();
}

static void on_change(struct task *t UNUSED, usec now UNUSED) { check(); }

/* Whatever was lost for lack of memory runs out of time, which passes once nothing has come for long. */
static void drive(struct task *t, usec now)
{
        usec next = loop_next(b.loop);

        if (next > now && next != USEC_NEVER && memory_failed())
                b.passes++;
        else
                b.passes = 0;
        if (b.passes > 2000) {
                set_clock_pass(&b.time, next - now);
                b.passes = 0;
        }
        check();
        loop_ready(b.loop, t);
}

static void too_late(struct task *t UNUSED, usec now UNUSED)
{
        b.overdue = true;
        loop_stop(b.loop);
}

static void on_wake(struct task *t UNUSED, usec now UNUSED)
{
        struct completion c;

        while (port_take(&c)) {
                b.status[c.tag] = c.failed ? -1 : c.status;
                (void)snprintf(b.body[c.tag], sizeof(b.body[0]), STR_FMT,
                               (int)MIN_OF(c.body.n, sizeof(b.body[0]) - 1), c.body.p ? c.body.p : "");
                (void)snprintf(b.head[c.tag], sizeof(b.head[0]), STR_FMT,
                               STR_ARG(http_head_find(c.head, STR("Retry-After"))));
        }
        check();
}

static void run(bool (*until)(void))
{
        b.until = until;
        if (until())
                return;
        loop_arm(b.loop, &b.watchdog, clock_monotonic(&b.clock) + USEC_HOUR);
        (void)alarm(60);
        loop_run(b.loop);
        (void)alarm(0);
        loop_forget(b.loop, &b.watchdog);
        assert_false(b.overdue);
}

/* ---- life --------------------------------------------------------------- */

static int open_store(void *cookie UNUSED, struct store *out, struct error *err UNUSED)
{
        *out = (struct store){ 0 };
        return 0;
}

static void close_store(void *cookie UNUSED) {}

static void begin_within(size_t memory_most)
{
        struct http_server_config function = { .address = "127.0.0.1:0",
                                               .head_max = 16384,
                                               .body_max = 4 << 20,
                                               .handle = on_event,
                                               .gone = on_left,
                                               .half_close = -1 };
        const struct gate_host_config host = { .address = "127.0.0.1:0", .memory_most = memory_most };
        struct error err;

        memset(&b, 0, sizeof(b));
        b.answer = "{\"statusCode\":201,\"body\":\"made\"}";
        b.wake.turn = on_wake;
        b.observer.turn = on_change;
        b.watchdog.turn = too_late;
        b.driver.turn = drive;
        b.time.runs = true;
        b.clock = (struct clock)SET_CLOCK(&b.time);
        (void)snprintf(b.folder, sizeof(b.folder), "/tmp/gate-test-XXXXXX");
        assert_non_null(mkdtemp(b.folder));
        assert_int_equal(loop_new(&b.loop, &err), 0);
        loop_use_clock(b.loop, &b.clock);
        assert_int_equal(http_server_new(&b.function, b.loop, &function, &err), 0);
        assert_int_equal(http_client_new(&b.client, b.loop, &err), 0);
        assert_int_equal(gate_host_new(&b.host, b.loop, &host, &err), 0);
        client_port = http_client_port(b.client);
        (void)snprintf(b.sink, sizeof(b.sink), "http://127.0.0.1:%u/", http_server_port(b.function));
}

static void begin(void) { begin_within(0); }

static void add(const char *name, const char *source, const char *more)
{
        struct pipeline_config config = { .clock = &b.clock,
                                          .open_store = open_store,
                                          .close_store = close_store };
        struct error err;

        b.triggers[b.pipelines_n] = test_trigger_of(
                (struct test_trigger_spec){ .name = name, .source = source, .more = more });
        config.trigger = b.triggers[b.pipelines_n];
        config.loop = b.loop;
        config.http = b.client;
        config.host = b.host;
        config.sink = b.sink;
        config.secrets = b.folder;
        config.observer = &b.observer;
        if (pipeline_new(&b.pipelines[b.pipelines_n], &config, &err) < 0)
                fail_msg("%s", err.text);
        b.pipelines_n++;
}

static bool all_stopped(void)
{
        for (size_t i = 0; i < b.pipelines_n; i++)
                if (!pipeline_stopped(b.pipelines[i]))
                        return false;
        return true;
}

static int end(void **state UNUSED)
{
        char command[128];

        for (size_t i = 0; i < b.pipelines_n; i++)
                pipeline_stop(b.pipelines[i], clock_monotonic(&b.clock) + USEC_SEC);
        run(all_stopped);
        for (size_t i = 0; i < b.pipelines_n; i++) {
                (void)pipeline_free(b.pipelines[i]);
                b.triggers[i] = trigger_free(b.triggers[i]);
        }
        port_release_all();
        for (size_t i = 0; i < CALLS; i++) {
                (void)http_target_free(b.targets[i]);
                buf_done(&b.messages[i]);
        }
        b.client = http_client_free(b.client);
        b.host = gate_host_free(b.host);
        b.function = http_server_free(b.function);
        loop_forget(b.loop, &b.wake);
        loop_forget(b.loop, &b.observer);
        loop_forget(b.loop, &b.driver);
        b.loop = loop_free(b.loop);
        (void)snprintf(command, sizeof(command), "rm -rf %s", b.folder);
        return system(command);
}

/* ---- calls -------------------------------------------------------------- */

static void call(size_t tag, const char *path, const char *headers, const char *body)
{
        struct http_target_config config = { .max_connections = 1, .answer_max = 65536 };
        struct http_request request = { .message = &b.messages[tag],
                                        .method = "POST",
                                        .headers = str_of(headers) };
        char url[256];
        struct error err;

        b.number++;
        (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u%s", gate_host_port(b.host), path);
        config.url = str_of(url);
        b.status[tag] = 0;
        b.targets[tag] = http_target_free(b.targets[tag]);
        assert_int_equal(http_target_new(&b.targets[tag], b.client, &config, &err), 0);
        b.messages[tag].max = 1 << 20;
        buf_reset(&b.messages[tag]);
        assert_true(buf_reserve(&b.messages[tag], HTTP_HEADROOM));
        b.messages[tag].n = HTTP_HEADROOM;
        for (const char *p = body; *p; p++) /* %d is the call's number: no two are the same event */
                if (p[0] == '%' && p[1] == 'd') {
                        buf_printf(&b.messages[tag], "%04d", b.number);
                        p++;
                } else
                        buf_char(&b.messages[tag], *p);
        request.target = b.targets[tag];
        memory_fails(b.starve, b.for_good);
        if (port_submit(&b.wake, tag, &request, &err) < 0)
                b.status[tag] = -1;
}

static bool first_done(void) { return b.status[0] != 0; }
static bool second_done(void) { return b.status[1] != 0; }
static bool asked_once(void) { return b.asked == 1 && b.held; }
static bool judge_is_asked(void) { return b.judged != NULL; }
static bool nobody_is_held(void) { return !b.held; }

static int ask(const char *path, const char *headers)
{
        call(0, path, headers, "");
        run(first_done);
        return b.status[0];
}

static void the_function_answers_the_caller(void **state UNUSED)
{
        begin();
        add("api", "apig: {path: '/a/{b}'}", NULL);
        assert_int_equal(ask("/a/1", ""), 201);
        assert_string_equal(b.body[0], "made");
        assert_int_equal(ask("/b", ""), 404);
        assert_non_null(strstr(b.body[0], "APIG.0101"));
        assert_int_equal(b.asked, 1);
}

static void one_place_serves_one_call(void **state UNUSED)
{
        begin();
        b.answer = NULL;
        add("api", "apig: {path: /a}", "  delivery: {maxInFlight: 1}");
        call(0, "/a", "", "");
        run(asked_once);
        call(1, "/a", "", "");
        run(second_done);
        assert_int_equal(b.status[1], 429);
        assert_string_equal(b.head[1], "1");
        http_call_reply(b.held, 200, STR("application/json"), (struct str){ 0 }, STR("{\"statusCode\":200}"));
        b.held = NULL;
        run(first_done);
        assert_int_equal(b.status[0], 200);
}

static void a_call_has_its_time(void **state UNUSED)
{
        begin();
        b.answer = NULL;
        add("api", "apig: {path: /a, timeout: 50ms}", NULL);
        assert_int_equal(ask("/a", ""), 504);
        run(nobody_is_held); /* the function is not waited for */
}

static void the_functions_words_are_one_line(void **state UNUSED)
{
        struct pipeline_status status;

        begin();
        b.refused = "\x1b[2Jtest/other  apig /b\nDelivering\xc2\x9b"
                    "31m";
        add("api", "apig: {path: /a}", NULL);
        assert_int_equal(ask("/a", ""), 502);
        pipeline_status(b.pipelines[0], &status);
        assert_non_null(strstr(status.delivery_text, "answered 500:  [2Jtest/other  apig /b Delivering 31m"));
}

static void what_the_filter_leaves_out_is_not_there(void **state UNUSED)
{
        begin();
        add("api", "apig: {path: /a}", "  filter: {pattern: {headers: {x-one: ['1']}}}");
        assert_int_equal(ask("/a", ""), 404);
        assert_int_equal(ask("/a", "X-One: 1\r\n"), 201);
        assert_int_equal(b.asked, 1);
}

static void write_secret(const char *name, const char *key, const char *value)
{
        char path[160];
        FILE *f;

        (void)snprintf(path, sizeof(path), "%s/%s", b.folder, name);
        assert_int_equal(mkdir(path, 0700), 0);
        (void)snprintf(path, sizeof(path), "%s/%s/%s", b.folder, name, key);
        f = fopen(path, "w");
        assert_true(f && fputs(value, f) >= 0 && fclose(f) == 0);
}

static void a_doubled_slash_passes_no_guard_by(void **state UNUSED)
{
        begin();
        write_secret("callers", "code", "sesame");
        add("guarded",
            "apig: {path: '/admin/{p+}', authentication: {type: App, codes: [{secretRef: {name: callers, "
            "key: code}}]}}",
            NULL);
        add("open", "apig: {path: '/{p+}'}", NULL);
        static const struct {
                const char *path, *headers;
                int status;
        } table[] = {
                { "/admin/users", "", 401 },
                { "/%61dmin/users", "", 401 },
                { "/x/../admin/users", "", 401 },
                { "//admin/users", "", 400 },
                { "//admin/users", "X-Apig-AppCode: sesame\r\n", 400 },
                { "/x/..//admin/users", "", 400 },
                { "/admin//users", "", 401 },
                { "/admin//users", "X-Apig-AppCode: sesame\r\n", 201 },
                { "/site//users", "", 201 },
                { "/admin%2Fusers", "", 201 },
        };

        for (size_t i = 0; i < COUNT_OF(table); i++)
                if (ask(table[i].path, table[i].headers) != table[i].status)
                        fail_msg("%s %s: %d", table[i].path, table[i].headers, b.status[0]);
}

static void who_comes_while_it_stops_hears_so(void **state UNUSED)
{
        begin();
        b.answer = NULL;
        add("api", "apig: {path: /a}", NULL);
        call(0, "/a", "", "");
        run(asked_once);
        gate_host_drain(b.host, 10 * USEC_SEC);
        pipeline_stop(b.pipelines[0], clock_monotonic(&b.clock) + 10 * USEC_SEC);
        call(1, "/a", "", "");
        run(second_done);
        assert_int_equal(b.status[1], 503);
        assert_string_equal(b.head[1], "1");
        http_call_reply(b.held, 200, STR("application/json"), (struct str){ 0 }, STR("{\"statusCode\":200}"));
        b.held = NULL;
        run(first_done);
        assert_int_equal(b.status[0], 200); /* what was under way is answered */
}

/* ---- bytes in memory ---------------------------------------------------- */

enum { BESIDE = 512 * 1024 }; /* each call has room for so much beside its body */
static char quotes[12000], much[200000];

static void add_guarded(void)
{
        char source[256];

        (void)snprintf(source, sizeof(source),
                       "apig: {path: /a, authentication: {type: Custom, authorizer: {uri: "
                       "'%sauthorizer'}}}",
                       b.sink);
        add("api", source, NULL);
        (void)snprintf(quotes, sizeof(quotes), "X-Token: %0*d\r\n", (int)sizeof(quotes) - 20, 0);
        for (char *p = quotes; (p = strchr(p, '0'));)
                *p = '"';
}

/* An authorizer may take its time over as many calls as there are places. */
static void what_an_authorizer_is_asked_counts(void **state UNUSED)
{
        size_t before;

        begin();
        add_guarded();
        b.judge_waits = true;
        before = gate_host_held(b.host);
        call(0, "/a", quotes, "");
        run(judge_is_asked);
        assert_true(gate_host_held(b.host) >= before + HTTP_HEADROOM + 3 * sizeof(quotes));
        assert_true(http_call_message(b.judged)->body.n > 2 * (sizeof(quotes) - 20));
        http_call_reply(TAKE(b.judged), 200, STR("application/json"), (struct str){ 0 }, STR(ALLOW));
        run(first_done);
        assert_int_equal(b.status[0], 201);
        assert_int_equal(gate_host_held(b.host), before);
}

static void and_is_not_asked_without_room(void **state UNUSED)
{
        begin_within(3 * sizeof(quotes));
        add_guarded();
        b.judge_waits = true;
        assert_int_equal(ask("/a", quotes), 503);
        assert_null(b.judged);
        assert_int_equal(b.asked, 0);
}

static void add_growing(void)
{
        add("api", "apig: {path: /a, timeout: 1m}",
            "  delivery: {timeout: 1m}\n  transform: {jq: '[range(8) as $n | .body]', timeout: 30s}");
        memset(much, 'h', sizeof(much) - 1);
}

static void what_a_transform_makes_counts(void **state UNUSED)
{
        begin();
        b.answer = NULL;
        add_growing();
        call(0, "/a", "", much);
        run(asked_once);
        assert_true(http_call_message(b.held)->body.n > 8 * sizeof(much));
        assert_true(gate_host_held(b.host) >= 9 * sizeof(much));
        http_call_reply(TAKE(b.held), 200, STR("application/json"), (struct str){ 0 },
                        STR("{\"statusCode\":200}"));
        run(first_done);
        assert_int_equal(b.status[0], 200);
}

static void and_goes_nowhere_without_room(void **state UNUSED)
{
        begin_within(BESIDE + 5 * sizeof(much));
        add_growing();
        call(0, "/a", "", much);
        run(first_done);
        assert_int_equal(b.status[0], 503);
        assert_int_equal(b.asked, 0);
        call(0, "/a", "", "few");
        run(first_done);
        assert_int_equal(b.status[0], 201);
}

/* ---- out of memory ------------------------------------------------------ */

static int starved(const char *path, const char *headers, const char *body, uint64_t at, bool for_good)
{
        b.starve = at;
        b.for_good = for_good;
        loop_ready(b.loop, &b.driver);
        call(0, path, headers, body);
        run(first_done);
        b.starve = 0;
        memory_fails(0, false);
        loop_forget(b.loop, &b.driver);
        return b.status[0];
}

/* Each allocation that a request takes fails, alone or with all after it: the caller hears that it was not
 * delivered, or nothing, and never that it was when it was not; and the next one is served. */
static void starve(const char *path, const char *headers, const char *body, int good)
{
        for (int for_good = 0; for_good < 2; for_good++)
                for (uint64_t at = 1;; at++) {
                        size_t asked = b.asked;
                        int status = starved(path, headers, body, at, for_good);
                        bool failed = memory_failed();

                        if (status != good && status != -1 && status < 500)
                                fail_msg("%s: %d at allocation %d", path, status, (int)at);
                        if (status >= 500 && b.shape && !strstr(b.body[0], b.shape))
                                fail_msg("%s: \"%s\" at allocation %d", path, b.body[0], (int)at);
                        if (status == good)
                                assert_true(b.asked > asked);
                        asked = b.asked;
                        call(0, path, headers, body);
                        run(first_done);
                        if (b.status[0] != good)
                                fail_msg("%s: %d after allocation %d", path, b.status[0], (int)at);
                        assert_true(b.asked > asked);
                        if (!failed) {
                                assert_int_equal(status, good);
                                break;
                        }
                }
}

static void without_memory_a_request_is_answered_so(void **state UNUSED)
{
        static char large[300000]; /* of which no buffer is kept */

        begin();
        add("api", "apig: {path: /a}", "  filter: {pattern: {headers: {x-one: ['1']}}}");
        b.shape = "{\"error_code\":\"APIG.020";
        b.expected = "\"body\":\"hello\"";
        starve("/a", "X-One: 1\r\n", "hello", 201);
        memset(large, 'h', sizeof(large) - 4);
        memcpy(large + sizeof(large) - 4, "end", 4);
        b.expected = "hhhend\",\"isBase64Encoded\"";
        starve("/a", "X-One: 1\r\n", large, 201);
}

/* An authorizer is asked about each caller first. */
static void nor_is_a_caller_let_in_or_forgotten(void **state UNUSED)
{
        char source[256];

        begin();
        (void)snprintf(source, sizeof(source),
                       "apig: {path: /a, authentication: {type: Custom, authorizer: {uri: "
                       "'%sauthorizer', cacheTTL: 0s}}}",
                       b.sink);
        add("api", source, NULL);
        b.expected = "\"body\":\"hello\"";
        starve("/a", "X-Token: t\r\n", "hello", 201);
}

#define CHANGE(key)                                                                                          \
        "{\"eventName\":\"ObjectCreated:Put\",\"eventTime\":\"2026-11-24T10:00:00.000Z\",\"s3\":{"           \
        "\"bucket\":{"                                                                                       \
        "\"name\":\"photos\"},\"object\":{\"key\":\"" key "\",\"sequencer\":\"%d\"}}}"

/* Through an inbox, and two records become one event. */
static void nor_is_a_notification_lost(void **state UNUSED)
{
        begin();
        write_secret("hook", "token", "sesame");
        add("hook", "obs: {bucket: photos, from: Webhook, tokenSecretRef: {name: hook, key: token}}",
            "  event: {format: CloudEventsBinary}");
        starve("/shop/hook", "Authorization: Bearer sesame\r\n",
               "{\"Records\":[" CHANGE("a") "," CHANGE("b") "]}", 200);
}

int main(int argc, char **argv)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(the_function_answers_the_caller, end),
                cmocka_unit_test_teardown(one_place_serves_one_call, end),
                cmocka_unit_test_teardown(a_call_has_its_time, end),
                cmocka_unit_test_teardown(the_functions_words_are_one_line, end),
                cmocka_unit_test_teardown(what_the_filter_leaves_out_is_not_there, end),
                cmocka_unit_test_teardown(a_doubled_slash_passes_no_guard_by, end),
                cmocka_unit_test_teardown(who_comes_while_it_stops_hears_so, end),
                cmocka_unit_test_teardown(what_an_authorizer_is_asked_counts, end),
                cmocka_unit_test_teardown(and_is_not_asked_without_room, end),
                cmocka_unit_test_teardown(what_a_transform_makes_counts, end),
                cmocka_unit_test_teardown(and_goes_nowhere_without_room, end),
                cmocka_unit_test_teardown(without_memory_a_request_is_answered_so, end),
                cmocka_unit_test_teardown(nor_is_a_caller_let_in_or_forgotten, end),
                cmocka_unit_test_teardown(nor_is_a_notification_lost, end),
        };

        if (argc > 1 && strcmp(argv[1], CHILD_COMMAND) == 0) /* this program is the transform's process */
                return transform_child_main();
        signals_block();
        log_setup(LOG_ERROR, LOG_LOGFMT);
        return cmocka_run_group_tests_name("gate", tests, NULL, NULL);
}
