/* What a request is made of, and what an answer to a batch says: Kafka records in each format. */
#include "worker/request.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "tests/support/trigger.h"

enum { RECORDS = 3 };

static struct bench {
        struct trigger *trigger;
        struct request_maker maker;
        struct record *records[RECORDS];
        struct buf body, headers;
} b;

static void begin(const char *more)
{
        b = (struct bench){ .trigger = test_trigger_of((struct test_trigger_spec){ .more = more }),
                            .body = BUF_INIT(1 << 20),
                            .headers = BUF_INIT(1 << 20) };
        request_maker_init(&b.maker, b.trigger, trigger_source(b.trigger)->shape, &system_clock,
                           "http://function.shop/f");
        for (size_t i = 0; i < RECORDS; i++) {
                char text[160];

                (void)snprintf(text, sizeof(text),
                               "{topic: orders, partition: 7, offset: %zu, timestamp: 1700000000000, key: k, "
                               "value: {n: %zu}}",
                               10 + i, i);
                b.records[i] = test_record(trigger_source(b.trigger)->shape, b.trigger,
                                           clock_wall(&system_clock), text);
        }
}

static int end(void **state UNUSED)
{
        for (size_t i = 0; i < RECORDS; i++)
                trigger_source(b.trigger)->shape->sample_free(b.records[i]);
        request_maker_done(&b.maker);
        buf_done(&b.body);
        buf_done(&b.headers);
        b.trigger = trigger_free(b.trigger);
        return 0;
}

static void make(size_t n)
{
        buf_reset(&b.body);
        buf_reset(&b.headers);
        request_constant_headers(&b.maker, &b.headers);
        request_body(&b.maker, b.records, n, &b.body);
        request_headers(&b.maker, b.records, n, &b.headers);
        assert_false(b.body.failed || b.headers.failed);
}

static void has(const struct buf *text, const char *what)
{
        if (!strstr(text->p, what))
                fail_msg("\"%s\" has no \"%s\"", text->p, what);
}

static void lacks(const struct buf *text, const char *what)
{
        if (strstr(text->p, what))
                fail_msg("\"%s\" has \"%s\"", text->p, what);
}

static void a_record_names_itself(void **state UNUSED)
{
        begin("  function: {name: orders, version: v1}");
        make(1);
        has(&b.headers, "X-Sluice-Event-Id: orders/7/10\r\n");
        lacks(&b.headers, "X-Sluice-Record-Ids");
        has(&b.headers, "X-CFF-Func-Name: orders\r\n");
        has(&b.headers, "Content-Type: application/json\r\n");
}

static void a_batch_names_all_of_its_records(void **state UNUSED)
{
        begin("");
        make(RECORDS);
        has(&b.headers, "X-Sluice-Event-Id: orders/7/10..orders/7/12\r\n");
        has(&b.headers, "X-Sluice-Record-Ids: orders/7/10,orders/7/11,orders/7/12\r\n");
}

static void the_same_records_have_the_same_request_id(void **state UNUSED)
{
        BUF_AT_END struct buf first = BUF_INIT(4096);
        const char *at;

        begin("");
        make(2);
        at = strstr(b.headers.p, "X-CFF-Request-Id: ");
        assert_non_null(at);
        buf_add(&first, at, 18 + 36 + 2);
        make(2);
        has(&b.headers, first.p);
        make(3);
        lacks(&b.headers, first.p);
        make(1);
        lacks(&b.headers, first.p);
}

static void cloudevents_in_binary_mode(void **state UNUSED)
{
        begin("  event: {format: CloudEventsBinary}\n  ceOverrides: {extensions: {team: shop}}");
        make(1);
        has(&b.headers, "ce-specversion: 1.0\r\n");
        has(&b.headers, "ce-id: orders/7/10\r\n");
        has(&b.headers, "ce-partitionkey: k\r\n");
        has(&b.headers, "ce-team: shop\r\n");
        assert_string_equal(b.body.p, "{\"n\":0}");
}

static void a_batch_of_cloudevents(void **state UNUSED)
{
        begin("  event: {format: CloudEventsBatch}\n  delivery: {batch: {maxMessages: 3}}");
        make(2);
        has(&b.headers, "Content-Type: application/cloudevents-batch+json");
        assert_int_equal(b.body.p[0], '[');
        has(&b.body, "\"id\":\"orders/7/10\"");
        has(&b.body, "\"id\":\"orders/7/11\"");
}

/* Text from the Trigger that no header can hold is left out, never sent as two headers. */
static void no_header_breaks_out_of_its_line(void **state UNUSED)
{
        static char evil[] = "v1\r\nX-Evil: 1";
        char *version;

        begin("  function: {name: f}");
        version = b.trigger->function->version;
        b.trigger->function->version = evil;
        make(1);
        lacks(&b.headers, "X-Evil");
        b.trigger->function->version = version;
}

static void a_dead_letter_is_cut_to_what_may_be_sent(void **state UNUSED)
{
        BUF_AT_END struct buf payload = BUF_INIT(1 << 20);
        struct dead_letter d = { .attempts = 3,
                                 .status = 500,
                                 .reason = STR("it answered 500"),
                                 .answer = STR("words of the function") };

        begin("");
        for (int i = 0; i < 10000; i++)
                buf_text(&payload, "payload ");
        request_dead_body(&b.maker, b.records[0], &d, buf_view(&payload), 0, &b.body);
        assert_true(b.body.n > payload.n);
        lacks(&b.body, "truncated");
        for (size_t most = 4096; most <= 32768; most *= 2) {
                buf_reset(&b.body);
                d = (struct dead_letter){ .attempts = 3,
                                          .status = 500,
                                          .reason = STR("it answered 500"),
                                          .answer = STR("words of the function") };
                request_dead_body(&b.maker, b.records[0], &d, buf_view(&payload), most, &b.body);
                assert_true(b.body.n <= most && b.body.n > most / 2);
                has(&b.body, "\"truncated\":true");
                has(&b.body, "80000");
        }
}

static void answers_to_batches(void **state UNUSED)
{
        static const struct {
                const char *answer;
                bool all;
                size_t n;
                uint32_t first;
        } cases[] = {
                ROW("", false, 0, 0),
                ROW("  null ", false, 0, 0),
                ROW("{}", false, 0, 0),
                ROW("{\"batchItemFailures\":[]}", false, 0, 0),
                ROW("{\"batchItemFailures\":[{\"itemIdentifier\":\"orders/7/11\"}]}", false, 1, 1),
                ROW("{\"batchItemFailures\":[{\"itemIdentifier\":2}]}", false, 1, 2),
                ROW("{\"batchItemFailures\":[{\"itemIdentifier\":\"2\"},{\"itemIdentifier\":\"orders/7/"
                    "10\"},{\"itemIdentifier\":\"0\"}]}",
                    false, 2, 0),
                ROW("{\"batch\\u0049temFailures\":[{\"\\u0069temIdentifier\":\"\\u0032\"}]}", false, 1, 2),
                ROW("[]", true, 0, 0),
                ROW("oops", true, 0, 0),
                ROW("{\"batchItemFailures\":[{}]}", true, 0, 0),
                ROW("{\"batchItemFailures\":[{\"itemIdentifier\":3}]}", true, 0, 0),
                ROW("{\"batchItemFailures\":[{\"itemIdentifier\":-1}]}", true, 0, 0),
                ROW("{\"batchItemFailures\":{}}", true, 0, 0),
                ROW("{\"batchItemFailures\":[{\"itemIdentifier\":\"\"}]}", true, 0, 0),
        };
        BUF_AT_END struct buf why = BUF_INIT(4096);

        begin("");
        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                uint32_t failed[RECORDS];
                bool all;
                size_t n;

                buf_reset(&why);
                n = request_failures(str_of(cases[i].answer), false, b.records, RECORDS, failed, &all, &why);
                if (all != cases[i].all || n != cases[i].n || (n && failed[0] != cases[i].first))
                        fail_msg("%s: all %d, %zu", cases[i].answer, all, n);
                assert_int_equal(why.n > 0, all);
        }
}

/* Equal messages of a queue have one id: it says nothing of which of them failed. */
static void an_id_that_several_records_have_names_all_of_them(void **state UNUSED)
{
        static const struct {
                const char *answer;
                size_t n;
                uint32_t failed[RECORDS];
        } cases[] = {
                ROW("[{\"itemIdentifier\":\"same\"}]", 2, { 0, 2 }),
                ROW("[{\"itemIdentifier\":\"same\"},{\"itemIdentifier\":\"same\"}]", 2, { 0, 2 }),
                ROW("[{\"itemIdentifier\":\"same\"},{\"itemIdentifier\":0}]", 2, { 0, 2 }),
                ROW("[{\"itemIdentifier\":0},{\"itemIdentifier\":\"other\"}]", 2, { 0, 1 }),
                ROW("[{\"itemIdentifier\":2}]", 1, { 2 }),
                ROW("[{\"itemIdentifier\":\"other\"}]", 1, { 1 }),
        };
        BUF_AT_END struct buf why = BUF_INIT(4096), answer = BUF_INIT(4096);

        begin("");
        for (size_t i = 0; i < RECORDS; i++)
                b.records[i]->id = i == 1 ? STR("other") : STR("same");
        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                uint32_t failed[RECORDS];
                bool all;

                buf_reset(&answer);
                buf_printf(&answer, "{\"batchItemFailures\":%s}", cases[i].answer);
                assert_int_equal(
                        request_failures(buf_view(&answer), false, b.records, RECORDS, failed, &all, &why),
                        cases[i].n);
                assert_false(all);
                assert_memory_equal(failed, cases[i].failed, cases[i].n * sizeof(*failed));
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(a_record_names_itself, end),
                cmocka_unit_test_teardown(a_batch_names_all_of_its_records, end),
                cmocka_unit_test_teardown(the_same_records_have_the_same_request_id, end),
                cmocka_unit_test_teardown(cloudevents_in_binary_mode, end),
                cmocka_unit_test_teardown(a_batch_of_cloudevents, end),
                cmocka_unit_test_teardown(no_header_breaks_out_of_its_line, end),
                cmocka_unit_test_teardown(a_dead_letter_is_cut_to_what_may_be_sent, end),
                cmocka_unit_test_teardown(answers_to_batches, end),
                cmocka_unit_test_teardown(an_id_that_several_records_have_names_all_of_them, end),
        };
        return cmocka_run_group_tests_name("request", tests, NULL, NULL);
}
