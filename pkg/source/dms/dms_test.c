#include "source/dms/dms.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>
#include <jansson.h>

#include "json/yaml.h"
#include "source/page.h"
#include "source/poller.h"
#include "tests/sim/memory.h"

static char queue[] = "48d11a53-e498-4964-84a2-aaa56442d5ca",
            group[] = "g-61d9d290-7dae-4144-9ce7-00b9f159cdbe", name[] = "test", namespace_name[] = "shop";
static struct dms_spec spec = { .queue_id = queue, .group_id = group };
static struct event_spec event_spec;
static struct trigger trigger_ = {
        .name = name, .namespace_ = namespace_name, .source_spec = &spec, .event = &event_spec
};

static struct record *sample(const char *document)
{
        struct documents docs = { 0 };
        struct problems problems = { 0 };
        struct record *r;
        struct error err;

        assert_int_equal(yaml_parse(&docs, str_of(document), &problems), 0);
        if (dms_source.shape->sample(&trigger_, docs.roots[0], 1510727170 * USEC_SEC, &r, &err) < 0)
                fail_msg("%s", err.text);
        documents_done(&docs);
        return r;
}

/* requestId is random. */
static void the_event_is_the_golden_one(void **state UNUSED)
{
        BUF_AT_END struct buf out = BUF_INIT(65536);
        struct record *r = sample("{body: This is dms trigger body, attributes: {dmstrigger: dmstrigger, "
                                  "dmstrigger2: dmstrigger}}");
        struct writer w;
        json_t *event, *golden = json_load_file("pkg/source/dms/testdata/event.json", 0, NULL);

        for (int dialect = DIALECT_CLASSIC; dialect <= DIALECT_CURRENT; dialect++) {
                buf_reset(&out);
                event_spec.dialect = dialect;
                writer_init(&w, &out);
                dms_source.shape->encode(&trigger_, &r, 1, &w);
                event = json_loadb(out.p, out.n, 0, NULL);
                assert_non_null(golden);
                assert_int_equal(strlen(json_string_value(json_object_get(event, "requestId"))), 36);
                json_object_set(event, "requestId", json_object_get(golden, "requestId"));
                if (!json_equal(event, golden))
                        fail_msg("%s", out.p);
                json_decref(event);
        }
        json_decref(golden);
        dms_source.shape->sample_free(r);
}

static void what_a_filter_sees(void **state UNUSED)
{
        static const struct {
                const char *document, *seen;
        } all[] = {
                { "{body: text}", "{\"body\":\"text\",\"attributes\":{},\"tags\":[]}" },
                { "{body: '{\"n\": 1}'}", "{\"body\":{\"n\": 1},\"attributes\":{},\"tags\":[]}" },
                { "{body: {n: [1]}, attributes: {a: b}, tags: [red]}",
                  "{\"body\":{\"n\":[1]},\"attributes\":{\"a\":\"b\"},\"tags\":[\"red\"]}" },
        };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                BUF_AT_END struct buf out = BUF_INIT(65536);
                struct record *r = sample(all[i].document);
                struct writer w;

                writer_init(&w, &out);
                dms_source.shape->describe(r, &w);
                assert_string_equal(out.p, all[i].seen);
                dms_source.shape->sample_free(r);
        }
}

static void equal_messages_have_equal_ids(void **state UNUSED)
{
        static const char *const different[] = { "{body: a, attributes: {b: c}}",
                                                 "{body: a, attributes: {b: d}}",
                                                 "{body: a, attributes: 5}",
                                                 "{body: a, attributes: '5'}",
                                                 "{body: a, tags: 5}",
                                                 "{body: a, tags: '5'}",
                                                 "{body: a}",
                                                 "{body: a5}" };

        for (size_t i = 0; i < COUNT_OF(different); i++)
                for (size_t k = 0; k < COUNT_OF(different); k++) {
                        struct record *one = sample(different[i]), *other = sample(different[k]);

                        assert_int_equal(str_equal(one->id, other->id), i == k);
                        dms_source.shape->sample_free(one);
                        dms_source.shape->sample_free(other);
                }
}

/* ---- answers ------------------------------------------------------------ */

/* A source without services; like struct dms it has the spec right after the poller. */
struct bare {
        struct poller poller;
        const struct dms_spec *spec;
};

static void answers_are_read(void **state UNUSED)
{
        static const struct {
                const char *body;
                int64_t records;
        } all[] = {
                { "[]", 0 },
                { " [ ] ", 0 },
                { "[{\"message\":{\"body\":\"b\",\"attributes\":{},\"tags\":[]},\"handler\":\"h\"}]", 1 },
                { "[{\"handler\":\"h\",\"message\":{\"body\":{\"a\":[]}}},{\"message\":{},\"handler\":\"i\"}"
                  "]",
                  2 },
                { "[{\"message\":{\"body\":\"\\u00e4\\n\",\"attributes\":null,\"new\":[1]},\"handler\":\"h\"}"
                  "]",
                  1 },
                { "{}", -1 },
                { "", -1 },
                { "[{\"message\":{\"body\":\"b\"}},", -1 },
                { "[{\"message\":{\"body\":\"b\"},\"handler\":\"h\"}", -1 },
                { "[{\"message\":{\"body\":\"b},\"handler\":\"h\"}]", -1 },
                { "[{\"message\":{\"body\":nul},\"handler\":\"h\"}]", -1 },
        };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                struct bare bare = { .spec = &spec };
                struct dms_track track = { 0 };
                struct error err = { 0 };
                int64_t n = poller_answer(&bare.poller, &dms_ops, READER_FETCH, &track, str_of(all[i].body),
                                          &err);

                if (all[i].records < 0 ? n >= 0 || !err.text[0] : n != all[i].records)
                        fail_msg("%s: %lld records, %s", all[i].body, (long long)n, err.text);
        }
}

static void a_deep_message_harms_no_other(void **state UNUSED)
{
        BUF_AT_END struct buf body = BUF_INIT(1 << 20);
        struct bare bare = { .spec = &spec };
        struct dms_track track = { 0 };
        struct error err = { 0 };

        buf_text(&body, "[{\"message\":{\"body\":");
        for (int i = 0; i < 2000; i++)
                buf_char(&body, '[');
        for (int i = 0; i < 2000; i++)
                buf_char(&body, ']');
        buf_text(&body, "},\"handler\":\"h\"},{\"message\":{\"body\":\"b\"},\"handler\":\"i\"}]");
        assert_int_equal(poller_answer(&bare.poller, &dms_ops, READER_FETCH, &track, buf_view(&body), &err),
                         2);
}

struct seen {
        const char *value, *document;
};
static const struct seen *seen_now;

static void as_seen(const struct record *r)
{
        BUF_AT_END struct buf out = BUF_INIT(65536);
        struct writer w;

        writer_init(&w, &out);
        dms_source.shape->describe(r, &w);
        assert_true(str_is(r->value, seen_now->value));
        assert_string_equal(out.p, seen_now->document);
}

/* Strings are delivered as text, other values as their JSON. */
static void answers_say_what_they_say(void **state UNUSED)
{
        static const struct {
                const char *message;
                struct seen seen;
        } all[] = {
                { "{\"body\":\"b\"}", { "b", "{\"body\":\"b\",\"attributes\":{},\"tags\":[]}" } },
                { "{\"body\":\"\",\"attributes\":null,\"tags\":null}",
                  { "", "{\"body\":\"\",\"attributes\":{},\"tags\":[]}" } },
                { "{\"body\":null}", { "null", "{\"body\":null,\"attributes\":{},\"tags\":[]}" } },
                { "{\"body\":\"null\"}", { "null", "{\"body\":null,\"attributes\":{},\"tags\":[]}" } },
                { "{\"body\":9007199254740993,\"attributes\":\"n\\u00e4\",\"tags\":\"null\"}",
                  { "9007199254740993",
                    "{\"body\":9007199254740993,\"attributes\":\"n\\u00e4\",\"tags\":\"null\"}" } },
                { "{\"body\":{\"a\":[ ]},\"attributes\":{\"k\":1},\"tags\":[\"t\"]}",
                  { "{\"a\":[ ]}", "{\"body\":{\"a\":[ ]},\"attributes\":{\"k\":1},\"tags\":[\"t\"]}" } },
                { "{\"body\":\"q\\\"\\n\"}",
                  { "q\"\n", "{\"body\":\"q\\\"\\n\",\"attributes\":{},\"tags\":[]}" } },
        };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                BUF_AT_END struct buf body = BUF_INIT(4096);
                struct bare bare = { .spec = &spec };
                struct dms_track track = { 0 };
                struct error err;

                seen_now = &all[i].seen;
                buf_printf(&body, "[{\"message\":%s,\"handler\":\"h\"}]", all[i].message);
                assert_int_equal(
                        poller_records(&bare.poller, &dms_ops, &track, buf_view(&body), as_seen, &err), 1);
                assert_true(track.answered);
        }
}

#define BESIDE(name) "{\"message\":{\"body\":\"" name "\"},\"handler\":\"" name "\"}"

/* Reads a response with that entry between two valid ones. seen: how a filter sees it, empty: it is not
 * delivered. notice: the warning, if any. */
static void read_between(const char *entry, struct buf *seen, struct notice *notice)
{
        const struct reader_config config = { .page_bytes = 1 << 20 };
        BUF_AT_END struct buf body = BUF_INIT(4096);
        struct bare bare = { .spec = &spec };
        struct dms_track track = { 0 };
        struct reader_job job = { .kind = READER_FETCH, .own = &track };
        struct record *first;
        struct writer w;
        struct error err = { 0 };

        buf_printf(&body, "[" BESIDE("a") ",%s," BESIDE("b") "]", entry);
        assert_int_equal(reader_new(&bare.poller.reader, &config, 1, &err), 0);
        job.page = poller_sample_begin(&(const struct node){ 0 }, "", &err);
        assert_int_equal(dms_ops.answered(&bare.poller, &job, buf_view(&body), &err), POLLER_DONE);
        assert_true(str_is(job.page->first->record.value, "a"));
        assert_true(str_is(job.page->last->record.value, "b"));
        if (job.page->n == 3) {
                writer_init(&w, seen);
                dms_source.shape->describe(&job.page->first->next->record, &w);
                assert_true(str_is(job.page->first->next->mark, "x"));
        } else
                assert_int_equal(job.page->n, 2);
        if (!reader_warned(bare.poller.reader, notice))
                *notice = (struct notice){ .reason = "" };
        assert_int_equal(poller_sample_end(job.page, 0, &first, &err), 0);
        poller_sample_free(first);
        (void)reader_free(bare.poller.reader);
}

#define WITH(message) "{\"handler\":\"x\",\"message\":" message "}"
#define BY(handler) "{\"handler\":" handler ",\"message\":{\"body\":\"m\"}}"
#define SEEN(body) "{\"body\":" body ",\"attributes\":{},\"tags\":[]}"

/* It is delivered if it can be acknowledged, with a warning; the rest of the response is not affected. */
static void a_malformed_entry_harms_no_other(void **state UNUSED)
{
        static const char body[] = "RecordsMalformed", handler[] = "HandlerMissing";
        static const struct {
                const char *entry, *seen, *told;
        } all[] = {
                { "{\"handler\":\"x\"}", SEEN("null"), body },
                { WITH("null"), SEEN("null"), body },
                { WITH("\"text\""), SEEN("\"text\""), body },
                { WITH("5"), SEEN("5"), body },
                { WITH("true"), SEEN("true"), body },
                { WITH("[ 1 ]"), SEEN("[ 1 ]"), body },
                { WITH("{}"), SEEN("null"), body },
                { WITH("{\"attributes\":{\"a\":\"b\"},\"tags\":null}"),
                  "{\"body\":null,\"attributes\":{\"a\":\"b\"},\"tags\":[]}", body },
                { WITH("{\"body\":null}"), SEEN("null"), "" },
                { WITH("{\"body\":\"\",\"attributes\":null}"), SEEN("\"\""), "" },
                { "{\"message\":{\"body\":\"m\"}}", "", handler },
                { BY("null"), "", handler },
                { BY("\"\""), "", handler },
                { BY("5"), "", handler },
                { BY("{}"), "", handler },
                { BY("\"x\""), SEEN("\"m\""), "" },
                { "null", "", handler },
                { "5", "", handler },
                { "\"m\"", "", handler },
                { "[]", "", handler },
        };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                BUF_AT_END struct buf seen = BUF_INIT(4096);
                struct notice notice;

                read_between(all[i].entry, &seen, &notice);
                if (strcmp(seen.n ? seen.p : "", all[i].seen) != 0 || strcmp(notice.reason, all[i].told) != 0)
                        fail_msg("%s: %s, %s", all[i].entry, seen.n ? seen.p : "", notice.reason);
                assert_int_equal(notice.times, *all[i].told ? 1 : 0);
        }
}

static char expected_ids[2][33];
static size_t shown;

static void show(const struct record *r)
{
        char text[8];

        (void)snprintf(text, sizeof(text), "\xc3\xa4 %zu", shown + 1);
        assert_true(str_is(r->value, text));
        if (!expected_ids[shown][0])
                (void)snprintf(expected_ids[shown], sizeof(expected_ids[0]), STR_FMT, STR_ARG(r->id));
        assert_true(str_is(r->id, expected_ids[shown++]));
}

/* Either all messages of a response are intact, or the response fails and is requested again. */
static void without_memory_no_message_becomes_another(void **state UNUSED)
{
        const struct str answer = STR(
                "[{\"message\":{\"body\":\"\\u00e4 1\",\"attributes\":{},\"tags\":[]},\"handler\":\"h\"},"
                "{\"message\":{\"body\":\"\\u00e4 2\",\"attributes\":{},\"tags\":[]},\"handler\":\"i\"}]");

        for (int for_good = 0; for_good < 2; for_good++)
                for (uint64_t at = 0;; at++) {
                        struct bare bare = { .spec = &spec };
                        struct dms_track track = { 0 };
                        struct error err = { 0 };
                        int64_t n;

                        shown = 0;
                        memory_fails(at, for_good);
                        n = poller_records(&bare.poller, &dms_ops, &track, answer, show, &err);
                        memory_fails(0, false);
                        assert_int_equal(shown, MAX_OF(n, (int64_t)0));
                        if (n == -1)
                                continue;
                        assert_int_equal(n, 2);
                        if (at && !memory_failed())
                                break;
                }
}

/* ---- the window --------------------------------------------------------- */

static struct retry_spec retry;
static struct batch_spec batch;
static struct delivery_spec delivery;

/* The defaults, except for what a case sets. */
static void deliver(usec timeout, int64_t attempts, int on_exhausted)
{
        retry = (struct retry_spec){ .max_attempts = attempts,
                                     .initial_backoff = 200 * USEC_MSEC,
                                     .max_backoff = 30 * USEC_SEC,
                                     .on_exhausted = on_exhausted };
        batch = (struct batch_spec){ .max_messages = 1, .max_wait = 500 * USEC_MSEC };
        delivery = (struct delivery_spec){ .timeout = timeout, .retry = &retry, .batch = &batch };
}

static void window_is(usec ack_wait, usec window, const char *why_not)
{
        BUF_AT_END struct buf why = BUF_INIT(1024);
        struct dms_spec s = { .ack_wait = ack_wait };

        assert_int_equal(dms_ack_wait(&s, &delivery), window);
        assert_int_equal(dms_fits(&s, &delivery, &why), !why_not);
        assert_string_equal(why.n ? why.p : "", why_not ? why_not : "");
}

static void the_window_must_cover_the_time_out(void **state UNUSED)
{
        static const struct {
                usec ack_wait, timeout, window;
                bool fits;
        } all[] = {
                { 0, USEC_SEC, 31 * USEC_SEC, true },
                { 0, USEC_MINUTE, 90 * USEC_SEC, true },
                { 0, 299 * USEC_SEC, 300 * USEC_SEC, true },
                { 0, 300 * USEC_SEC, 300 * USEC_SEC, false },
                { 15 * USEC_SEC, 14 * USEC_SEC, 15 * USEC_SEC, true },
                { 15 * USEC_SEC, 15 * USEC_SEC, 15 * USEC_SEC, false },
        };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                deliver(all[i].timeout, 0, EXHAUSTED_BLOCK);
                window_is(all[i].ack_wait, all[i].window,
                          all[i].fits ? NULL
                          : all[i].ack_wait
                                  ? "ackWait must exceed delivery.timeout: the queue would give a message "
                                    "out again while the function still works on it"
                                  : "delivery.timeout must be below 300s, the longest time that the queue "
                                    "leaves a message with one consumer");
        }
}

/* 5 * 20 s, 0.2 + 0.4 + 0.8 + 1.6 s between them, 20 s for what follows, and 3 s. */
static void the_window_must_cover_all_attempts(void **state UNUSED)
{
        BUF_AT_END struct buf why = BUF_INIT(1024);

        deliver(20 * USEC_SEC, 5, EXHAUSTED_DEAD_LETTER);
        window_is(0, 126 * USEC_SEC, NULL);
        window_is(126 * USEC_SEC, 126 * USEC_SEC, NULL);
        window_is(
                125 * USEC_SEC, 125 * USEC_SEC,
                "delivery.retry.maxAttempts is never reached: 5 times delivery.timeout 20s, pauses up to 3s, "
                "and time for one more request are 2m6s in all, ackWait is 2m5s, and what comes again is "
                "counted anew: raise ackWait to 2m6s, or lower maxAttempts, delivery.timeout or "
                "delivery.retry.maxBackoff");
        deliver(20 * USEC_SEC, 5, EXHAUSTED_BLOCK); /* Block never gives up */
        window_is(60 * USEC_SEC, 60 * USEC_SEC, NULL);
        deliver(20 * USEC_SEC, 5, EXHAUSTED_DROP);
        retry.backoff = BACKOFF_LINEAR; /* 0.2 + 0.4 + 0.6 + 0.8 s */
        window_is(0, 125 * USEC_SEC, NULL);
        retry.max_backoff = 200 * USEC_MSEC;
        window_is(0, 124 * USEC_SEC, NULL);
        batch.max_messages = 10;
        batch.max_wait = 5 * USEC_SEC;
        window_is(0, 129 * USEC_SEC, NULL);
        deliver(USEC_MINUTE, 1, EXHAUSTED_DROP);
        window_is(0, 123 * USEC_SEC, NULL);
        deliver(USEC_MINUTE, 5, EXHAUSTED_DROP);
        window_is(
                0, 300 * USEC_SEC,
                "delivery.retry.maxAttempts is never reached: 5 times delivery.timeout 1m, pauses up to 3s, "
                "and time for one more request are 6m6s in all, and a queue leaves a message with one "
                "consumer for at most 300s, and what comes again is counted anew: lower maxAttempts, "
                "delivery.timeout or delivery.retry.maxBackoff");
        deliver(10 * USEC_SEC, 10000, EXHAUSTED_DROP); /* the sum must not overflow */
        retry.max_backoff = USEC_HOUR;
        assert_false(dms_fits(&(struct dms_spec){ 0 }, &delivery, &why));
}

static void the_window_must_cover_the_age(void **state UNUSED)
{
        deliver(10 * USEC_SEC, 0, EXHAUSTED_DEAD_LETTER);
        retry.max_event_age = USEC_MINUTE;
        window_is(0, 83 * USEC_SEC, NULL);
        window_is(
                60 * USEC_SEC, 60 * USEC_SEC,
                "delivery.retry.maxEventAge is never reached: 1m, an attempt of delivery.timeout 10s, and "
                "time for one more request are 1m23s in all, ackWait is 1m, and what comes again is counted "
                "anew: raise ackWait to 1m23s, or lower maxEventAge or delivery.timeout");
        retry.on_exhausted = EXHAUSTED_BLOCK;
        window_is(60 * USEC_SEC, 60 * USEC_SEC, NULL);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(the_event_is_the_golden_one),
                cmocka_unit_test(what_a_filter_sees),
                cmocka_unit_test(equal_messages_have_equal_ids),
                cmocka_unit_test(answers_are_read),
                cmocka_unit_test(a_deep_message_harms_no_other),
                cmocka_unit_test(answers_say_what_they_say),
                cmocka_unit_test(a_malformed_entry_harms_no_other),
                cmocka_unit_test(without_memory_no_message_becomes_another),
                cmocka_unit_test(the_window_must_cover_the_time_out),
                cmocka_unit_test(the_window_must_cover_all_attempts),
                cmocka_unit_test(the_window_must_cover_the_age),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
