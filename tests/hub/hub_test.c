/* The source that CONTRIBUTING.md shows, whole: opened as the worker opens it, its calls made by what makes
 * all calls of the cloud, on a clock of the test's own. */
#include "tests/hub/hub.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "huawei/cloud.h"
#include "json/yaml.h"
#include "tests/sim/memory.h"
#include "tests/support/clock.h"
#include "tests/support/http.h"
#include "tests/support/store.h"
#include "tests/support/trigger.h"

static char hub_name[] = "orders", region[] = "cn-north-4", project[] = "p1";
static struct cloud_spec cloud_spec = { .region = region, .project_id = project };
static struct hub_spec spec = { .hub = hub_name, .polling_interval = USEC_SEC, .cloud = &cloud_spec };
static struct event_spec event_spec;
static struct trigger trigger = TEST_TRIGGER("t", .source_spec = &spec, .event = &event_spec);

/* ---- the service -------------------------------------------------------- */

static struct set_clock set;
static const struct clock test_clock = SET_CLOCK(&set);

static struct test_call calls[16];
static struct test_http wire;

/* ---- a pipeline, by hand ------------------------------------------------ */

static struct {
        struct loop *loop;
        struct cloud *cloud;
        struct services services;
        struct task wake, stop;
        struct source *source;
        struct record *lent[16];
        size_t lent_n;
        bool closed;
        char warned[256];
} w;
static struct test_store kept;

static void on_notice(void *cookie UNUSED, const struct notice *n)
{
        (void)snprintf(w.warned, sizeof(w.warned), "%s: %s", n->reason, n->text);
}

static void turn(struct task *t, usec at)
{
        struct pull_event events[8];
        size_t n;

        while (w.source && (n = hub_source.pull->poll(w.source, events, COUNT_OF(events), at)))
                for (size_t i = 0; i < n; i++)
                        if (events[i].kind == PULL_ASSIGNED)
                                hub_source.pull->credit(w.source, events[i].track, 10, 1 << 20);
                        else if (events[i].kind == PULL_RECORD)
                                w.lent[w.lent_n++] = events[i].record;
                        else if (events[i].kind == PULL_LOST || events[i].kind == PULL_REVOKING)
                                hub_source.pull->revoked(w.source, events[i].track);
                        else if (events[i].kind == PULL_CLOSED)
                                w.closed = true;
        if (w.source)
                loop_arm(w.loop, t, hub_source.pull->deadline(w.source));
}

static void on_stop(struct task *t UNUSED, usec at UNUSED) { loop_stop(w.loop); }

/* All that is to be done until then. */
static void pass(usec time)
{
        usec until = set.monotonic + time;

        do {
                set_clock_pass(&set, MIN_OF(MAX_OF(loop_next(w.loop), set.monotonic), until) - set.monotonic);
                loop_ready(w.loop, &w.stop);
                loop_run(w.loop);
        } while (loop_next(w.loop) <= until);
}

static void open_hub(void)
{
        struct error err;

        if (hub_source.open(&w.source, &spec, &w.services, &err) < 0)
                fail_msg("%s", err.text);
        w.source->kind = &hub_source;
        w.closed = false;
        w.lent_n = 0;
        loop_ready(w.loop, &w.wake);
        pass(USEC_MSEC);
}

static void close_hub(void)
{
        for (size_t i = 0; i < w.lent_n; i++)
                hub_source.pull->release(w.source, w.lent[i], OUTCOME_RELEASED);
        w.lent_n = 0;
        hub_source.pull->stop(w.source);
        loop_ready(w.loop, &w.wake);
        pass(USEC_MINUTE);
        assert_true(w.closed);
        w.source = hub_source.pull->free(w.source);
}

static int setup(void **state UNUSED)
{
        const struct http http = test_http_port(&wire);
        const struct http_peers peers = test_http_peers(&wire);
        static char endpoint[] = "http://127.0.0.1:1";
        struct cloud_config config = { .clock = &test_clock, .endpoint = endpoint, .seed = 1 };
        struct error err;

        assert_int_equal(setenv("HUAWEICLOUD_SDK_AK", "AKEXAMPLE", 1), 0);
        assert_int_equal(setenv("HUAWEICLOUD_SDK_SK", "SKEXAMPLE", 1), 0);
        memset(&w, 0, sizeof(w));
        w.wake.turn = turn;
        w.stop.turn = on_stop;
        set = (struct set_clock){ .monotonic = USEC_HOUR, .wall = 1767225600 * USEC_SEC };
        assert_int_equal(loop_new(&w.loop, &err), 0);
        wire = TEST_HTTP(calls);
        wire.loop = w.loop;
        loop_use_clock(w.loop, &test_clock);
        config.loop = w.loop;
        assert_int_equal(cloud_new(&w.cloud, &config, &err), 0);
        cloud_use(w.cloud, &http, &peers);
        kept = (struct test_store){ .key = "hub", .loop = w.loop };
        w.services = (struct services){ .loop = w.loop,
                                        .wake = &w.wake,
                                        .clock = &test_clock,
                                        .store = test_store_port(&kept),
                                        .cloud = w.cloud,
                                        .trigger = &trigger,
                                        .notices = { .tell = on_notice } };
        return 0;
}

static int teardown(void **state UNUSED)
{
        w.cloud = cloud_free(w.cloud);
        loop_forget(w.loop, &w.wake);
        loop_forget(w.loop, &w.stop);
        w.loop = loop_free(w.loop);
        return 0;
}

/* One call at a time is under way. */
static struct test_call *pending(void)
{
        struct test_call *c = test_http_waiting(&wire);

        assert_non_null(c);
        assert_ptr_equal(c, test_http_last(&wire));
        return c;
}

static void serve(int status, const char *body)
{
        test_http_answer(&wire, pending(), status, body);
        pass(USEC_MSEC);
}

#define EVENT(id, number) "{\"id\":\"" id "\",\"number\":" number ",\"data\":\"d\"}"
#define EVENTS(events) "{\"events\":[" events "]}"

/* So many of the first ones are done. */
static void settle(size_t n, uint64_t next)
{
        for (size_t i = 0; i < n; i++)
                hub_source.pull->release(w.source, w.lent[i], OUTCOME_ACCEPTED);
        memmove(w.lent, w.lent + n, (w.lent_n -= n) * sizeof(struct record *));
        hub_source.pull->commit(w.source, 0, next);
        loop_ready(w.loop, &w.wake);
        pass(2 * USEC_SEC);
}

/* ---- calls -------------------------------------------------------------- */

static void each_event_comes_once_over_restarts(void **state UNUSED)
{
        open_hub();
        assert_string_equal(pending()->path, "/v1/p1/hubs/orders/events?limit=100");
        serve(200, EVENTS(EVENT("a", "1") "," EVENT("b", "2") "," EVENT("c", "3")));
        assert_int_equal(w.lent_n, 3);
        settle(2, 3);
        assert_string_equal(pending()->path, "/v1/p1/hubs/orders/events?after=c&limit=100");
        close_hub();
        /* From behind what was done; what overlaps is left out. */
        open_hub();
        assert_string_equal(pending()->path, "/v1/p1/hubs/orders/events?after=b&limit=100");
        serve(200, EVENTS(EVENT("a", "1") "," EVENT("b", "2") "," EVENT("c", "3") "," EVENT("d", "4")));
        assert_int_equal(w.lent_n, 2);
        assert_true(str_is(w.lent[0]->id, "c") && str_is(w.lent[1]->id, "d"));
        close_hub();
}

static void an_empty_answer_is_followed_by_a_pause(void **state UNUSED)
{
        open_hub();
        serve(200, "{\"events\":[],\"behind\":0}");
        assert_null(test_http_waiting(&wire));
        assert_int_equal(hub_source.pull->lag(w.source), 0);
        pass(USEC_SEC);
        (void)pending();
        serve(200, "{\"events\":[" EVENT("a", "1") "],\"behind\":41}");
        assert_int_equal(hub_source.pull->lag(w.source), 42);
        close_hub();
}

static void a_mark_that_has_expired_is_told_and_left(void **state UNUSED)
{
        static const char gone[] = "{\"error_code\":\"HUB.0410\",\"error_msg\":\"kept for a week\"}";

        test_store_set(&kept, "3:old");
        open_hub();
        assert_string_equal(pending()->path, "/v1/p1/hubs/orders/events?after=old&limit=100");
        serve(410, gone);
        assert_string_equal(w.warned,
                            "PositionExpired: hub orders goes on at its oldest event: kept for a week");
        assert_string_equal(pending()->path, "/v1/p1/hubs/orders/events?limit=100");
        *w.warned = 0;
        for (int empty = 0; empty < 2; empty++) { /* there is no other mark yet */
                serve(200, "{\"events\":[]}");
                pass(USEC_SEC);
                assert_string_equal(pending()->path, "/v1/p1/hubs/orders/events?limit=100");
        }
        serve(200, EVENTS(EVENT("k", "1")));
        assert_int_equal(w.lent_n, 1);
        settle(1, 2);
        assert_string_equal(pending()->path, "/v1/p1/hubs/orders/events?after=k&limit=100");
        assert_string_equal(w.warned, "");
        close_hub();
}

static void without_a_cloud_it_is_not_opened(void **state UNUSED)
{
        const struct services none = { .clock = &test_clock };
        struct source *source = NULL;
        struct error err;

        assert_int_equal(hub_source.open(&source, &spec, &none, &err), -1);
        assert_null(source);
}

/* ---- answers ------------------------------------------------------------ */

static struct {
        const char *seen[4];
        size_t n;
} expected;

static void as_expected(const struct record *r)
{
        char text[1024]; /* there may be no memory */
        struct buf out = BUF_ON(text);
        struct writer writer;

        writer_init(&writer, &out);
        hub_source.shape->describe(r, &writer);
        assert_string_equal(text, expected.seen[expected.n++]);
}

static int64_t read_answer(const char *body, struct error *err)
{
        struct hub hub = { .spec = &spec };

        expected.n = 0;
        return poller_records(&hub.poller, &hub_ops, NULL, str_of(body), as_expected, err);
}

static void answers_say_what_they_say(void **state UNUSED)
{
        struct error err;

        expected.seen[0] =
                "{\"id\":\"a\xc3\xa4\",\"key\":\"k\\n\",\"number\":9007199254740993,\"data\":\"q\\\"\"}";
        expected.seen[1] = "{\"id\":\"b\",\"number\":-5,\"data\":{\"n\":[ ]}}";
        expected.seen[2] = "{\"id\":\"c\",\"key\":\"\",\"number\":7,\"data\":null}";
        expected.seen[3] = "{\"id\":\"d\",\"number\":0,\"data\":\"\"}";
        assert_int_equal(
                read_answer(
                        "{\"behind\":null,\"events\":[{\"id\":\"a\\u00e4\",\"key\":\"k\\n\",\"number\":"
                        "\"9007199254740993\",\"data\":\"q\\\"\",\"time\":9223372036854775807,\"by\":[{}]},"
                        "{\"number\":-5,\"id\":\"b\",\"key\":null,\"data\":{\"n\":[ ]},\"time\":null},"
                        "{\"id\":\"c\",\"key\":\"\",\"number\":7,\"data\":null,\"id2\":\"x\"},"
                        "{\"id\":\"d\",\"number\":0}],\"next\":[\"x\"]}",
                        &err),
                4);
        assert_int_equal(read_answer("{\"events\":[]}", &err), 0);
}

/* All of an answer's events are there as they are, or it has failed and is asked for again. */
static void without_memory_no_event_becomes_another(void **state UNUSED)
{
        static const char body[] = EVENTS(
                "{\"id\":\"\\u0061\",\"number\":1,\"data\":\"\\u0062\"},{\"id\":\"c\","
                "\"key\":\"\\n\",\"number\":2,\"data\":[]}");

        expected.seen[0] = "{\"id\":\"a\",\"number\":1,\"data\":\"b\"}";
        expected.seen[1] = "{\"id\":\"c\",\"key\":\"\\n\",\"number\":2,\"data\":[]}";
        for (int for_good = 0; for_good < 2; for_good++)
                for (uint64_t at = 1;; at++) {
                        struct error err = { 0 };
                        bool failed;
                        int64_t n;

                        memory_fails(at, for_good);
                        n = read_answer(body, &err);
                        failed = memory_failed();
                        memory_fails(0, false);
                        assert_int_equal(expected.n, MAX_OF(n, (int64_t)0));
                        if (n >= 0)
                                assert_int_equal(n, 2);
                        if (!failed)
                                break;
                }
}

static void what_can_not_be_read_is_said(void **state UNUSED)
{
        static const struct {
                const char *body, *why;
        } all[] = {
                { "", "an answer that can't be read: the answer is no object" },
                { "{\"events\":null}", "an answer that can't be read: the answer has no events" },
                { "{}", "an answer that can't be read: the answer has no events" },
                { EVENTS("{\"number\":1}"), "an answer that can't be read: an event has no id" },
                { EVENTS("{\"id\":\"\",\"number\":1}"), "an answer that can't be read: an event has no id" },
                { EVENTS("{\"id\":\"a\"}"), "an answer that can't be read: an event has no number" },
                { EVENTS("{\"id\":\"a\",\"number\":1.5}"),
                  "an answer that can't be read: number of an event is no whole number" },
        };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                struct error err = { 0 };

                assert_int_equal(read_answer(all[i].body, &err), -1);
                assert_string_equal(err.text, all[i].why);
        }
}

/* ---- the shape ---------------------------------------------------------- */

static struct record *sample(const char *document)
{
        return test_record(hub_source.shape, &trigger, 1767225600 * USEC_SEC, document);
}

static void a_sample_is_what_the_document_says(void **state UNUSED)
{
        static const char *const all[][2] = {
                { "{}", "{\"id\":\"an event\",\"number\":1,\"data\":\"its data\"}" },
                { "{id: i, key: k, number: 9007199254740993, data: {a: [null]}}",
                  "{\"id\":\"i\",\"key\":\"k\",\"number\":9007199254740993,\"data\":{\"a\":[null]}}" },
                { "{key: '', data: \"two\\nlines\"}",
                  "{\"id\":\"an event\",\"key\":\"\",\"number\":1,\"data\":\"two\\nlines\"}" },
        };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                struct record *r = sample(all[i][0]);

                expected.n = 0;
                expected.seen[0] = all[i][1];
                as_expected(r);
                assert_int_equal(r->time, 1767225600 * USEC_SEC);
                hub_source.shape->sample_free(r);
        }
}

static void without_memory_there_is_no_sample(void **state UNUSED)
{
        struct documents docs = { 0 };
        struct problems problems = { 0 };

        assert_int_equal(yaml_parse(&docs, STR("{id: i, key: k, data: {a: [null]}}"), &problems), 0);
        expected.seen[0] = "{\"id\":\"i\",\"key\":\"k\",\"number\":1,\"data\":{\"a\":[null]}}";
        for (uint64_t at = 1, made = 0; !made; at++) {
                struct record *r = NULL;
                struct error err = { 0 };

                memory_fails(at, true);
                made = hub_source.shape->sample(&trigger, docs.roots[0], 0, &r, &err) == 0;
                memory_fails(0, false);
                if (!made) {
                        assert_int_equal(err.kind, ERROR_MEMORY);
                        continue;
                }
                expected.n = 0;
                as_expected(r);
                hub_source.shape->sample_free(r);
                assert_true(at > 3); /* it needs memory for more than one thing */
        }
        documents_done(&docs);
}

static void events_are_written_as_both_kinds(void **state UNUSED)
{
        BUF_AT_END struct buf out = BUF_INIT(65536), space = BUF_INIT(4096);
        struct record *records[2] = { sample("{id: a, data: x}"), sample("{id: b, key: k, data: [1]}") };
        struct cloud_event e;
        struct writer writer;

        writer_init(&writer, &out);
        hub_source.shape->encode(&trigger, records, 2, &writer);
        assert_string_equal(
                out.p, "{\"hub\":\"orders\",\"events\":[{\"id\":\"a\",\"number\":1,\"data\":\"x\"},{\"id\":"
                       "\"b\",\"key\":\"k\",\"number\":1,\"data\":[1]}]}");
        hub_source.shape->event(&trigger, records[1], &space, &e);
        assert_true(str_is(e.id, "b") && str_is(e.key, "k") && str_is(e.data, "[1]") && e.json);
        assert_true(str_is(e.source, "/apis/sluice.dev/v1alpha1/namespaces/shop/triggers/t"));
        for (size_t i = 0; i < 2; i++)
                hub_source.shape->sample_free(records[i]);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(each_event_comes_once_over_restarts, setup, teardown),
                cmocka_unit_test_setup_teardown(an_empty_answer_is_followed_by_a_pause, setup, teardown),
                cmocka_unit_test_setup_teardown(a_mark_that_has_expired_is_told_and_left, setup, teardown),
                cmocka_unit_test(without_a_cloud_it_is_not_opened),
                cmocka_unit_test(answers_say_what_they_say),
                cmocka_unit_test(without_memory_no_event_becomes_another),
                cmocka_unit_test(what_can_not_be_read_is_said),
                cmocka_unit_test(a_sample_is_what_the_document_says),
                cmocka_unit_test(without_memory_there_is_no_sample),
                cmocka_unit_test(events_are_written_as_both_kinds),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
