/* The sender: records of a Kafka Trigger to a function over loopback that follows a script, and what it makes
 * of each answer. */
#include "worker/sender.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <malloc.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "http/server/server.h"
#include "transform/child.h"
#include "tests/support/trigger.h"

#include "tests/sim/memory.h"

enum { RECORDS = 3, MOST = 4, PEAK = 64 };
enum { HOLD = -1 }; /* a status: no answer comes */

static struct bench {
        struct loop *loop;
        struct http_server *server;
        struct http_client *client;
        struct trigger *trigger;
        struct sender *sender;
        struct record *records[RECORDS];
        char sink[64];
        int status;
        const char *headers, *answer;
        size_t requests;
        char path[128], id[256], body[4096];
        struct http_call *held;
        struct task wake, watchdog;
        bool overdue, woken;
} b;

static void handle(void *cookie UNUSED, struct http_call *call)
{
        const struct http_message *m = http_call_message(call);

        b.requests++;
        (void)snprintf(b.path, sizeof(b.path), STR_FMT, STR_ARG(buf_view(&m->target)));
        (void)snprintf(b.id, sizeof(b.id), STR_FMT,
                       STR_ARG(http_message_header(m, STR("X-Sluice-Event-Id"))));
        (void)snprintf(b.body, sizeof(b.body), STR_FMT, STR_ARG(buf_view(&m->body)));
        if (b.status == HOLD)
                b.held = call;
        else
                http_call_reply(call, b.status, STR("application/json"), str_of(b.headers), str_of(b.answer));
        loop_stop(b.loop);
}

static void on_gone(void *cookie UNUSED, struct http_call *call) { b.held = b.held == call ? NULL : b.held; }

static void on_wake(struct task *t UNUSED, usec now UNUSED)
{
        b.woken = true;
        loop_stop(b.loop);
}

static void too_late(struct task *t UNUSED, usec now UNUSED)
{
        b.overdue = true;
        loop_stop(b.loop);
}

static void make_records(void)
{
        for (size_t i = 0; i < RECORDS; i++) {
                char text[128];

                (void)snprintf(text, sizeof(text),
                               "{topic: orders, partition: 0, offset: %zu, value: {n: %zu}}", i, i);
                b.records[i] = test_record(trigger_source(b.trigger)->shape, b.trigger,
                                           clock_wall(&system_clock), text);
        }
}

static void begin(const char *more)
{
        struct http_server_config function = { .address = "127.0.0.1:0",
                                               .head_max = 65536,
                                               .body_max = 65536,
                                               .handle = handle,
                                               .gone = on_gone };
        struct sender_config config = { .most = MOST,
                                        .batch_records = RECORDS,
                                        .wake = &b.wake,
                                        .clock = &system_clock,
                                        .sink = b.sink,
                                        .dead_letter = strstr(more, "deadLetter") ? b.sink : NULL };
        struct error err;

        memset(&b, 0, sizeof(b));
        b.status = 200;
        b.headers = b.answer = "";
        b.wake.turn = on_wake;
        b.watchdog.turn = too_late;
        b.trigger = test_trigger_of((struct test_trigger_spec){ .more = more });
        assert_int_equal(loop_new(&b.loop, &err), 0);
        assert_int_equal(http_server_new(&b.server, b.loop, &function, &err), 0);
        assert_int_equal(http_client_new(&b.client, b.loop, &err), 0);
        (void)snprintf(b.sink, sizeof(b.sink), "http://127.0.0.1:%u/f", http_server_port(b.server));
        make_records();
        config.loop = b.loop;
        config.http = b.client;
        config.trigger = b.trigger;
        config.shape = trigger_source(b.trigger)->shape;
        if (sender_new(&b.sender, &config, &err) < 0)
                fail_msg("%s", err.text);
}

static int end(void **state UNUSED)
{
        const struct shape *shape = trigger_source(b.trigger)->shape;

        for (size_t i = 0; i < RECORDS; i++)
                shape->sample_free(b.records[i]);
        b.sender = sender_free(b.sender);
        b.client = http_client_free(b.client);
        b.server = http_server_free(b.server);
        loop_forget(b.loop, &b.wake);
        loop_forget(b.loop, &b.watchdog);
        b.loop = loop_free(b.loop);
        b.trigger = trigger_free(b.trigger);
        return 0;
}

static void turn(void)
{
        loop_arm(b.loop, &b.watchdog, clock_monotonic(&system_clock) + 20 * USEC_SEC);
        loop_run(b.loop);
        assert_false(b.overdue);
}

static int owners[8];

static struct sending *send(int *owner, size_t n)
{
        struct sending *o = sender_send(b.sender, b.records, n, owner);

        assert_non_null(o);
        return o;
}

static struct answer await(int *owner)
{
        struct answer a;
        void *taken;

        while (!sender_take(b.sender, &taken, &a))
                turn();
        assert_ptr_equal(taken, owner);
        return a;
}

static struct answer outcome(size_t n)
{
        (void)send(&owners[1], n);
        return await(&owners[1]);
}

/* ---- tests -------------------------------------------------------------- */

static void a_record_is_sent_and_accepted(void **state UNUSED)
{
        struct answer a;

        begin("");
        assert_true(sender_ready(b.sender, &(const char *){ NULL }));
        a = outcome(1);
        assert_int_equal(a.kind, ANSWER_ACCEPTED);
        assert_string_equal(b.path, "/f");
        assert_string_equal(b.id, "orders/0/0");
        assert_int_equal(b.requests, 1);
}

static void each_status_means_what_it_says(void **state UNUSED)
{
        static const struct {
                int status;
                enum answer_kind kind;
                bool overload;
        } all[] = {
                { 200, ANSWER_ACCEPTED, false }, { 204, ANSWER_ACCEPTED, false },
                { 301, ANSWER_FINAL, false },    { 400, ANSWER_FINAL, false },
                { 401, ANSWER_FINAL, false },    { 404, ANSWER_RETRY, false },
                { 408, ANSWER_RETRY, false },    { 409, ANSWER_RETRY, false },
                { 425, ANSWER_RETRY, false },    { 429, ANSWER_RETRY, true },
                { 500, ANSWER_RETRY, false },    { 503, ANSWER_RETRY, true },
        };

        begin("");
        for (size_t i = 0; i < COUNT_OF(all); i++) {
                struct answer a;

                b.status = all[i].status;
                b.answer = all[i].status == 204 ? "" : "words of the function";
                b.headers = all[i].status == 429 ? "Retry-After: 7\r\n" : "";
                a = outcome(1);
                if (a.kind != all[i].kind)
                        fail_msg("%d: %d instead of %d", all[i].status, (int)a.kind, (int)all[i].kind);
                if (all[i].overload)
                        assert_true(a.overload);
                assert_int_equal(a.retry_after, all[i].status == 429 ? 7 * USEC_SEC : 0);
                if (a.kind != ANSWER_ACCEPTED)
                        assert_non_null(strstr(a.text, "words of the function"));
        }
}

/* The function has refused nothing: whatever goes wrong on the way is tried again. */
static void no_answer_is_no_refusal(void **state UNUSED)
{
        struct answer a;

        begin("");
        b.status = HOLD;
        (void)send(&owners[1], 1);
        while (!b.held)
                turn();
        b.server = http_server_free(b.server); /* it falls with the request in flight */
        a = await(&owners[1]);
        assert_int_equal(a.kind, ANSWER_RETRY);
        assert_int_equal(a.status, 0);
        a = outcome(1); /* nobody listens */
        assert_int_equal(a.kind, ANSWER_RETRY);
        assert_true(a.overload);
        assert_non_null(strstr(a.text, b.sink));
}

/* Nothing here can be opened any more, for now. */
static void a_lack_of_descriptors_is_no_refusal(void **state UNUSED)
{
        struct rlimit before, none;
        struct answer a;

        begin("");
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
        none = (struct rlimit){ 3, before.rlim_max };
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
        a = outcome(1);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
        assert_int_equal(a.kind, ANSWER_RETRY);
        assert_int_equal(b.requests, 0);
        a = outcome(1);
        assert_int_equal(a.kind, ANSWER_ACCEPTED);
        assert_int_equal(b.requests, 1);
}

static void a_partial_answer_names_its_records(void **state UNUSED)
{
        static const struct {
                const char *answer;
                enum answer_kind kind;
                size_t n;
                uint32_t first;
        } all[] = {
                ROW("", ANSWER_ACCEPTED, 0, 0),
                ROW("{}", ANSWER_ACCEPTED, 0, 0),
                ROW("{\"batchItemFailures\": []}", ANSWER_ACCEPTED, 0, 0),
                ROW("{\"batchItemFailures\": null}", ANSWER_ACCEPTED, 0, 0),
                ROW("{\"batchItemFailures\": [{\"itemIdentifier\": \"orders/0/1\"}]}", ANSWER_PARTIAL, 1, 1),
                ROW("{\"batchItemFailures\": [{\"itemIdentifier\": \"2\"}, {\"itemIdentifier\": \"0\"}]}",
                    ANSWER_PARTIAL, 2, 0),
                ROW("{\"batchItemFailures\": [{\"itemIdentifier\": \"orders/0/9\"}]}", ANSWER_RETRY, 0, 0),
                ROW("{\"batchItemFailures\": [{}]}", ANSWER_RETRY, 0, 0),
        };

        begin("  delivery: {partialFailures: true, batch: {maxMessages: 3}}");
        for (size_t i = 0; i < COUNT_OF(all); i++) {
                struct answer a;

                b.answer = all[i].answer;
                a = outcome(RECORDS);
                if (a.kind != all[i].kind)
                        fail_msg("%s: %d instead of %d: %s", all[i].answer, (int)a.kind, (int)all[i].kind,
                                 a.text);
                if (a.kind != ANSWER_PARTIAL)
                        continue;
                assert_int_equal(a.failed_n, all[i].n);
                assert_int_equal(a.failed[0], all[i].first);
        }
}

/* Each allocation of a request and its answer fails, alone or with all after it: that a record failed is
 * never missed. */
static void without_memory_no_failed_record_is_accepted(void **state UNUSED)
{
        static char answer[100000]; /* of which no buffer is kept */

        begin("  delivery: {partialFailures: true, batch: {maxMessages: 3}}");
        memset(answer, ' ', sizeof(answer) - 1);
        memcpy(answer, "{\"a\":[],", 8);
        (void)strcpy(answer + sizeof(answer) - 70,
                     "\"batchItemFailures\":[{\"itemIdentifier\":\"orders/0/1\"}]}");
        b.answer = answer;
        for (int for_good = 0; for_good < 2; for_good++)
                for (uint64_t at = 1;; at++) {
                        struct sending *o;
                        struct answer a;
                        void *taken;

                        memory_fails(at, for_good);
                        o = sender_send(b.sender, b.records, RECORDS, &owners[1]);
                        while (o && !sender_take(b.sender, &taken, &a))
                                turn();
                        memory_fails(0, false);
                        if (o)
                                assert_int_not_equal(a.kind, ANSWER_ACCEPTED);
                        if (o && a.kind == ANSWER_RETRY && sender_starved(b.sender))
                                assert_true(memory_failed());
                        if (memory_failed())
                                continue;
                        assert_int_equal(a.kind, ANSWER_PARTIAL);
                        break;
                }
}

/* No request can hold it, now or later: the next attempt would fail as this one did. */
static void what_no_request_can_hold_is_final(void **state UNUSED)
{
        enum { LARGE = 12 << 20 }; /* of which each byte takes six in JSON */
        char *large = malloc(LARGE);
        struct str kept[RECORDS];
        struct answer a;

        assert_non_null(large);
        memset(large, 1, LARGE);
        begin("  delivery: {batch: {maxMessages: 3, maxBytes: 33554432}}");
        for (size_t i = 0; i < RECORDS; i++) {
                kept[i] = b.records[i]->value;
                b.records[i]->value = (struct str){ large, i ? LARGE / 4 : LARGE };
        }
        assert_int_equal(outcome(RECORDS).kind, ANSWER_TOO_LARGE);
        a = outcome(1);
        assert_int_equal(a.kind, ANSWER_FINAL);
        assert_string_equal(a.text, "the event would take more than 64 MiB as a request's body");
        assert_false(sender_starved(b.sender));
        assert_int_equal(b.requests, 0);
        for (size_t i = 0; i < RECORDS; i++)
                b.records[i]->value = kept[i];
        free(large);
}

static void headers_that_no_request_can_hold_are_final(void **state UNUSED)
{
        static char key[70000];
        struct answer a;

        memset(key, 'k', sizeof(key));
        begin("  event: {format: CloudEventsBinary}");
        b.records[0]->key = (struct str){ key, sizeof(key) };
        b.records[0]->has_key = true;
        a = outcome(1);
        b.records[0]->key = (struct str){ 0 };
        assert_int_equal(a.kind, ANSWER_FINAL);
        assert_string_equal(a.text, "the request's headers would take more than 64 KiB");
        assert_int_equal(b.requests, 0);
}

static void what_was_cancelled_never_comes(void **state UNUSED)
{
        struct sending *o;
        struct answer a;

        begin("");
        b.status = HOLD;
        o = send(&owners[1], 1);
        while (!b.requests)
                turn();
        assert_true(sender_held(o) > 0);
        sender_cancel(b.sender, o);
        b.status = 200;
        assert_ptr_equal(send(&owners[2], 1), o); /* its place is used again */
        a = await(&owners[2]);
        assert_int_equal(a.kind, ANSWER_ACCEPTED);
}

/* After a peak little of what its requests took is kept for the next ones. */
static void a_peak_leaves_little(void **state UNUSED)
{
        static char large[60000];
        struct sending *o[PEAK];
        struct str small;
        size_t before;

        begin("");
        b.status = HOLD;
        memset(large, 'x', sizeof(large));
        small = b.records[0]->value;
        b.records[0]->value = (struct str){ large, sizeof(large) };
        before = mallinfo2().uordblks;
        for (size_t i = 0; i < PEAK; i++)
                o[i] = send(&owners[1], 1);
        for (size_t i = 0; i < PEAK; i++)
                sender_cancel(b.sender, o[i]);
        assert_true(mallinfo2().uordblks < before + 2000000);
        b.records[0]->value = small;
}

static size_t allocated(void)
{
        struct mallinfo2 m = mallinfo2();

        return m.uordblks + m.hblkhd;
}

static void send_letters(size_t n)
{
        const struct dead_letter dead = { .reason = STR("no") };
        struct answer a;
        void *taken;

        for (size_t i = 0; i < n; i++)
                assert_non_null(sender_send_letter(b.sender, b.records[0], &dead, &owners[i]));
        for (size_t i = 0; i < n; i++) {
                while (!sender_take(b.sender, &taken, &a))
                        turn();
                assert_int_equal(a.kind, ANSWER_ACCEPTED);
        }
        assert_false(sender_take(b.sender, &taken, &a));
}

/* Nor is anything kept of dead letters, which may be rare. */
static void letters_leave_nothing(void **state UNUSED)
{
        static char large[60000];
        struct str small;
        size_t before;

        begin("  delivery: {retry: {onExhausted: DeadLetter}, deadLetter: {uri: 'http://127.0.0.1:9/'}}");
        send_letters(MOST);
        memset(large, 'x', sizeof(large));
        small = b.records[0]->value;
        before = allocated();
        b.records[0]->value = (struct str){ large, sizeof(large) };
        send_letters(MOST);
        b.records[0]->value = small;
        assert_true(allocated() < before + 2 * sizeof(large));
}

/* The answer that was taken stays, whatever is sent before the next one is taken. */
static void an_answer_lasts_until_the_next_one(void **state UNUSED)
{
        struct answer a;
        void *taken;

        begin("");
        b.status = 500;
        b.answer = "the first";
        a = outcome(1);
        assert_true(str_is(a.body, "the first"));
        b.answer = "another";
        for (int i = 2; i < 5; i++)
                (void)send(&owners[i], 1);
        assert_true(str_is(a.body, "the first"));
        for (int i = 2; i < 5; i++) {
                while (!sender_take(b.sender, &taken, &a))
                        turn();
                assert_in_range((int *)taken - owners, 2, 4);
                assert_true(str_is(a.body, "another"));
        }
        assert_int_equal(b.requests, 4);
}

static void what_the_transform_refuses_is_final(void **state UNUSED)
{
        struct answer a;

        begin("  event: {format: CloudEventsBinary}\n  transform: {jq: 'if .n == 0 then error(\"no\") else "
              "{m: .n} end'}");
        a = outcome(1);
        assert_int_equal(a.kind, ANSWER_FINAL);
        assert_non_null(strstr(a.text, "no"));
        assert_int_equal(b.requests, 0);
        assert_non_null(sender_send(b.sender, b.records + 1, 1, &owners[2]));
        a = await(&owners[2]);
        assert_int_equal(a.kind, ANSWER_ACCEPTED);
        assert_string_equal(b.body, "{\"m\":1}");
}

/* While nothing was sent yet. */
static void turn_before_the_first(void)
{
        struct answer a;
        void *taken;

        loop_arm(b.loop, &b.wake, sender_deadline(b.sender));
        sender_turn(b.sender, clock_monotonic(&system_clock));
        turn();
        assert_false(sender_take(b.sender, &taken, &a));
}

static void nothing_goes_before_the_initialization(void **state UNUSED)
{
        const char *why = NULL;

        begin("  function: {name: f, initPath: /init}\n  delivery: {retry: {initialBackoff: 10ms, "
              "maxBackoff: 100ms}}");
        b.status = 503;
        b.answer = "not yet";
        assert_false(sender_ready(b.sender, &why));
        for (int i = 0; i < 3; i++) {
                size_t before = b.requests;

                while (b.requests == before || !why) {
                        turn_before_the_first();
                        assert_false(sender_ready(b.sender, &why));
                }
                assert_string_equal(b.path, "/init");
        }
        assert_non_null(strstr(why, "503"));
        assert_non_null(strstr(why, "not yet"));
        b.status = 200;
        while (!sender_ready(b.sender, &why)) {
                turn_before_the_first();
        }
        assert_int_equal(outcome(1).kind, ANSWER_ACCEPTED);
        assert_string_equal(b.path, "/f");
}

/* ---- what peers say -------------------------------------------------------- */

static const char STEERING[] = "\033[2Jno\r\nlevel=info\xc2\x9b\u202e", PLAIN[] = " [2Jno  level=info";

static void is_plain(const char *text)
{
        char plain[1024];

        (void)snprintf(plain, sizeof(plain), "%s", text);
        text_plain(plain);
        assert_string_equal(text, plain);
}

static void a_function_commands_no_terminal(void **state UNUSED)
{
        struct answer a;

        begin("");
        b.status = 500;
        b.answer = STEERING;
        a = outcome(1);
        assert_non_null(strstr(a.text, PLAIN));
        is_plain(a.text);
}

static void an_initialization_commands_no_terminal(void **state UNUSED)
{
        const char *why = NULL;

        begin("  function: {name: f, initPath: /init}");
        b.status = 503;
        b.answer = STEERING;
        while (!why) {
                turn_before_the_first();
                assert_false(sender_ready(b.sender, &why));
        }
        assert_non_null(strstr(why, PLAIN));
        is_plain(why);
}

static void who_takes_dead_letters_commands_no_terminal(void **state UNUSED)
{
        const struct dead_letter dead = { .reason = STR("no") };
        struct answer a;

        begin("  delivery: {retry: {onExhausted: DeadLetter}, deadLetter: {uri: 'http://127.0.0.1:9/'}}");
        b.status = 500;
        b.answer = STEERING;
        assert_non_null(sender_send_letter(b.sender, b.records[0], &dead, &owners[1]));
        a = await(&owners[1]);
        assert_non_null(strstr(a.text, "answered 500: "));
        assert_non_null(strstr(a.text, PLAIN));
        is_plain(a.text);
}

int main(int argc, char **argv)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(a_record_is_sent_and_accepted, end),
                cmocka_unit_test_teardown(each_status_means_what_it_says, end),
                cmocka_unit_test_teardown(no_answer_is_no_refusal, end),
                cmocka_unit_test_teardown(a_lack_of_descriptors_is_no_refusal, end),
                cmocka_unit_test_teardown(a_partial_answer_names_its_records, end),
                cmocka_unit_test_teardown(without_memory_no_failed_record_is_accepted, end),
                cmocka_unit_test_teardown(what_no_request_can_hold_is_final, end),
                cmocka_unit_test_teardown(headers_that_no_request_can_hold_are_final, end),
                cmocka_unit_test_teardown(what_was_cancelled_never_comes, end),
                cmocka_unit_test_teardown(a_peak_leaves_little, end),
                cmocka_unit_test_teardown(letters_leave_nothing, end),
                cmocka_unit_test_teardown(an_answer_lasts_until_the_next_one, end),
                cmocka_unit_test_teardown(what_the_transform_refuses_is_final, end),
                cmocka_unit_test_teardown(nothing_goes_before_the_initialization, end),
                cmocka_unit_test_teardown(a_function_commands_no_terminal, end),
                cmocka_unit_test_teardown(an_initialization_commands_no_terminal, end),
                cmocka_unit_test_teardown(who_takes_dead_letters_commands_no_terminal, end),
        };

        /* The transform runs this program again. */
        if (argc > 1 && strcmp(argv[1], CHILD_COMMAND) == 0)
                return transform_child_main();
        return cmocka_run_group_tests_name("sender", tests, NULL, NULL);
}
