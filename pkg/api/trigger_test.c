#include "api/trigger.h"

#include <regex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include "api/status.h"
#include "api/tables.h"
#include "log/log.h"

#include <cmocka.h>

/* Two small sources, so that none of pkg/source is needed. */
struct clock_source {
        char *schedule;
};
struct queue_source {
        struct strings topics;
        int64_t batch;
};

static const struct field clock_fields[] = {
        FIELD(STRING, "schedule", struct clock_source, schedule, .required = true, .min = 1, .max = 99,
              .help = "When {{ it ticks }}."),
};
static const struct field queue_fields[] = {
        FIELD(STRINGS, "topics", struct queue_source, topics, .required = true, .min = 1, .max = 9),
        FIELD(INT, "batch", struct queue_source, batch, .fallback = "3", .min = 1, .max = 9),
};
static const struct type clock_type = TYPE("Clock", struct clock_source, clock_fields, "Ticks.");
static const struct type queue_type = TYPE("Queue", struct queue_source, queue_fields, "Messages.");
static const struct source_type types[] = { { .name = "clock", .type = &clock_type },
                                            { .name = "queue", .type = &queue_type } };

static struct trigger *decode(const char *text, struct problems *problems)
{
        struct documents docs;
        struct trigger *t;

        assert_int_equal(yaml_parse(&docs, str_of(text), problems), 0);
        t = trigger_decode(docs.roots[0], types, COUNT_OF(types), problems);
        documents_done(&docs);
        return t;
}

#define HEAD "apiVersion: sluice.dev/v1alpha1\nkind: Trigger\nmetadata: {name: orders}\n"

static void defaults_are_filled_in(void **state UNUSED)
{
        struct problems problems = { 0 };
        struct trigger *t = decode(
                "\n" HEAD "spec: {source: {queue: {topics: [a]}}, sink: {uri: 'http://f'}}\n", &problems);
        const struct queue_source *queue;

        assert_non_null(t);
        assert_string_equal(t->name, "orders");
        assert_string_equal(t->namespace_, "default");
        assert_string_equal(t->uid, "default/orders");
        assert_int_equal(t->line, 2);
        assert_int_equal(t->source, 1);
        queue = t->source_spec;
        assert_int_equal(queue->batch, 3);
        assert_null(t->sink->ref);
        assert_string_equal(t->function->name, "orders");
        assert_string_equal(t->function->version, "latest");
        assert_string_equal(t->function->package, "default");
        assert_int_equal(t->event->dialect, DIALECT_CLASSIC);
        assert_string_equal(t->event->region, "");
        assert_int_equal(t->delivery->ordering, ORDERING_PARTITION);
        assert_int_equal(t->delivery->max_in_flight, 32);
        assert_int_equal(t->delivery->timeout, USEC_MINUTE);
        assert_int_equal(t->delivery->retry->initial_backoff, 200 * USEC_MSEC);
        assert_int_equal(t->delivery->retry->max_backoff, 30 * USEC_SEC);
        assert_int_equal(t->worker->log_level, LOG_INFO);
        assert_null(t->worker->resources);
        assert_false(t->suspend);
        assert_false(t->deleting);
        (void)trigger_free(t);
}

static void what_the_server_adds_is_read(void **state UNUSED)
{
        struct problems problems = { 0 };
        struct trigger *t = decode("{\"apiVersion\":\"sluice.dev/"
                                   "v1alpha1\",\"kind\":\"Trigger\",\"metadata\":{\"name\":\"a\","
                                   "\"namespace\":\"b\",\"uid\":\"u-1\",\"generation\":4,"
                                   "\"deletionTimestamp\":\"2026-01-01T00:00:00Z\",\"resourceVersion\":\"7\","
                                   "\"managedFields\":[{\"manager\":\"x\"}],"
                                   "\"creationTimestamp\":\"2026-01-01T00:00:00Z\",\"finalizers\":[],"
                                   "\"ownerReferences\":[],\"annotations\":{\"a\":\"b\"}},"
                                   "\"spec\":{\"source\":{\"clock\":{\"schedule\":\"x\"}},\"sink\":{\"ref\":{"
                                   "\"name\":\"f\"}}},\"status\":{\"anything\":1}}",
                                   &problems);

        assert_non_null(t);
        assert_string_equal(t->uid, "u-1");
        assert_int_equal(t->generation, 4);
        assert_true(t->deleting);
        assert_int_equal(t->source, 0);
        assert_string_equal(t->sink->ref->kind, "Service");
        assert_int_equal(t->sink->ref->port, 0);
        assert_null(t->sink->ref->namespace_);
        (void)trigger_free(t);
}

static void what_is_written_reads_the_same(void **state UNUSED)
{
        struct problems problems = { 0 };
        BUF_AT_END struct buf first = BUF_INIT(1 << 20), second = BUF_INIT(1 << 20);
        struct writer w;
        struct trigger *t = decode(HEAD "spec:\n  source: {clock: {schedule: now}}\n  sink: {ref: {name: f, "
                                        "port: 80}, uri: /invoke}\n"
                                        "  worker: {resources: {limits: {cpu: 1}}, nodeSelector: {a: b}, "
                                        "tolerations: [{key: k}], logLevel: Warn}\n"
                                        "  delivery: {timeout: 90s, ordering: None}\n  suspend: true\n",
                                   &problems);

        assert_non_null(t);
        writer_init(&w, &first);
        trigger_write(t, &w);
        (void)trigger_free(t);
        assert_string_equal(
                first.p,
                "{\"apiVersion\":\"sluice.dev/"
                "v1alpha1\",\"kind\":\"Trigger\",\"metadata\":{\"name\":\"orders\",\"namespace\":\"default\","
                "\"uid\":\"default/"
                "orders\",\"generation\":0},\"spec\":{\"source\":{\"clock\":{\"schedule\":\"now\"}},"
                "\"sink\":{\"ref\":{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"name\":\"f\",\"port\":80},"
                "\"uri\":\"/invoke\"},"
                "\"function\":{\"name\":\"orders\",\"version\":\"latest\",\"package\":\"default\"},"
                "\"event\":{\"format\":\"FunctionGraph\",\"dialect\":\"Classic\",\"region\":\"\","
                "\"instanceID\":\"\"},"
                "\"delivery\":{\"ordering\":\"None\",\"maxInFlight\":32,\"initialInFlight\":8,\"timeout\":"
                "\"1m30s\",\"connectTimeout\":\"10s\",\"method\":\"POST\","
                "\"httpVersion\":\"Auto\",\"compression\":\"None\",\"batch\":{\"maxMessages\":1,\"maxBytes\":"
                "6291456,\"maxWait\":\"500ms\"},"
                "\"retry\":{\"maxAttempts\":0,\"maxEventAge\":\"0s\",\"backoff\":\"Exponential\","
                "\"initialBackoff\":\"200ms\",\"maxBackoff\":\"30s\","
                "\"retryAfterMax\":\"5m\",\"onExhausted\":\"Block\",\"bisect\":false},\"partialFailures\":"
                "false},"
                "\"worker\":{\"resources\":{\"limits\":{\"cpu\":1}},\"nodeSelector\":{\"a\":\"b\"},"
                "\"tolerations\":[{\"key\":\"k\"}],\"logLevel\":\"Warn\"},"
                "\"replicas\":1,\"suspend\":true}}");
        t = decode(first.p, &problems);
        assert_non_null(t);
        writer_init(&w, &second);
        trigger_write(t, &w);
        (void)trigger_free(t);
        assert_string_equal(second.p, first.p);
}

static void sinks_are_told_apart(void **state UNUSED)
{
        static const struct {
                const char *sink;
                bool valid;
        } all[] = {
                { "{uri: 'http://f'}", true },
                { "{uri: 'https://f.example:8443/a/b?c=d'}", true },
                { "{uri: 'http://[::1]:80/'}", true },
                { "{uri: 'http://10.0.0.1/'}", true },
                { "{uri: 'http://f/a%20b'}", true },
                { "{uri: 'ftp://f/'}", false },
                { "{uri: 'HTTP://f/'}", false },
                { "{uri: 'http://'}", false },
                { "{uri: 'http:///a'}", false },
                { "{uri: 'http://u@f/'}", false },
                { "{uri: 'http://u:p@f/'}", false },
                { "{uri: 'http://f?a'}", false },
                { "{uri: 'http://f/#a'}", false },
                { "{uri: 'http://f/a b'}", false },
                { "{uri: '/a'}", false },
                { "{uri: ''}", false },
                { "{ref: {name: f}, uri: /a}", true },
                { "{ref: {name: f}, uri: /}", true },
                { "{ref: {name: f}, uri: a}", false },
                { "{ref: {name: f}, uri: //other/a}", false },
                { "{ref: {name: f}, uri: 'http://f/a'}", false },
                { "{ref: {}}", false },
                { "{}", false },
        };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                BUF_AT_END struct buf text = BUF_INIT(4096);
                struct problems problems = { 0 };
                struct trigger *t;

                buf_printf(&text, HEAD "spec: {source: {clock: {schedule: x}}, sink: %s}\n", all[i].sink);
                t = decode(text.p, &problems);
                if ((t != NULL) != all[i].valid)
                        fail_msg("%s should be %s", all[i].sink, all[i].valid ? "valid" : "refused");
                assert_int_equal(problems.n, all[i].valid ? 0 : 1);
                (void)trigger_free(t);
                problems_done(&problems);
        }
}

static void check_table(const struct type *t)
{
        for (size_t i = 0; i < t->rules_n; i++) {
                const struct rule *r = &t->rules[i];

                if (!r->check && !r->explain)
                        fail_msg("%s: the rule \"%s\" is not checked in C", t->name, r->cel);
                assert_non_null(r->message);
                assert_null(strchr(r->message, '\n'));
        }
        for (size_t i = 0; i < t->fields_n; i++) {
                const struct field *f = &t->fields[i];
                struct documents docs;
                regex_t re;

                if (f->fallback && !schema_fallback(f, &docs))
                        fail_msg("%s.%s: the default does not parse", t->name, f->name);
                if (f->fallback)
                        documents_done(&docs);
                if (f->required && f->fallback)
                        fail_msg("%s.%s: is required and has a default", t->name, f->name);
                if (f->pattern) {
                        assert_int_equal(regcomp(&re, f->pattern, REG_EXTENDED), 0);
                        regfree(&re);
                        if (f->type == FIELD_STRING && !f->max)
                                fail_msg("%s.%s: a pattern needs a longest length", t->name, f->name);
                }
                assert_true(f->type != FIELD_ENUM || f->values);
                assert_true(f->type != FIELD_OBJECT || f->object);
        }
}

static void tables_are_sound(void **state UNUSED)
{
        const struct type *t;
        struct spec_tables tables;
        size_t n = 0;

        for (; trigger_type_at(n, types, COUNT_OF(types), &t); n++)
                check_table(t);
        assert_true(n > 8);
        spec_tables_build(&tables, types, COUNT_OF(types));
        check_table(&tables.spec);
        check_table(&tables.source);
        check_table(&worker_status_type);
}

static void names_and_defaults_fit_their_bounds(void **state UNUSED)
{
        const struct type *t;

        for (size_t n = 0; trigger_type_at(n, types, COUNT_OF(types), &t); n++) {
                void *object = calloc(1, t->size);

                assert_non_null(object);
                if (schema_defaults(t, object) < 0)
                        fail_msg("%s: a default is outside its bounds", t->name);
                schema_done(t, object);
                free(object);
        }
}

static void the_crd_is_yaml_and_holds_what_it_must(void **state UNUSED)
{
        static const char *const parts[] = {
                "name: triggers.sluice.dev\n",
                "duck.knative.dev/source: 'true'\n",
                "subresources:\n      status: {}\n",
                "- sltr\n",
                "rule: '[has(self.clock), has(self.queue)].exists_one(given, given)'\n",
                "x-kubernetes-list-map-keys:\n",
                "priority: 1\n",
        };
        BUF_AT_END struct buf plain = BUF_INIT(1 << 20), chart = BUF_INIT(1 << 20);
        struct documents docs;
        struct problems problems = { 0 };

        crd_write(types, COUNT_OF(types), false, &plain);
        crd_write(types, COUNT_OF(types), true, &chart);
        assert_false(plain.failed || chart.failed);
        assert_int_equal(yaml_parse(&docs, buf_view(&plain), &problems), 0);
        assert_int_equal(docs.n, 1);
        documents_done(&docs);
        for (size_t i = 0; i < COUNT_OF(parts); i++)
                if (!strstr(plain.p, parts[i]))
                        fail_msg("the CRD lacks %s", parts[i]);
        assert_null(strstr(plain.p, "helm.sh"));
        assert_non_null(strstr(chart.p, "helm.sh/resource-policy: keep\n"));
        assert_non_null(strstr(plain.p, "When {{ it ticks }}."));
        assert_non_null(strstr(chart.p, "When {{ \"{{\" }} it ticks }}."));
}

static void a_worker_tells_its_status(void **state UNUSED)
{
        struct worker_status s = { .pod = (char *)(uintptr_t) "p",
                                   .observed_generation = 2,
                                   .source_state = (char *)(uintptr_t) "Connected",
                                   .last_event_time = 5 * USEC_SEC,
                                   .lag = -1 },
                             again = { 0 };
        BUF_AT_END struct buf out = BUF_INIT(4096);
        struct documents docs;
        struct problems problems = { 0 };
        struct writer w;

        writer_init(&w, &out);
        schema_write(&worker_status_type, &s, &w);
        assert_string_equal(out.p, "{\"pod\":\"p\",\"observedGeneration\":2,\"sourceState\":\"Connected\","
                                   "\"lastEventTime\":\"1970-01-01T00:00:05Z\"}");
        assert_int_equal(yaml_parse(&docs, buf_view(&out), &problems), 0);
        assert_int_equal(schema_decode(&worker_status_type, docs.roots[0], &again, "", &problems), 0);
        assert_int_equal(again.lag, -1);
        assert_int_equal(again.last_event_time, 5 * USEC_SEC);
        schema_done(&worker_status_type, &again);
        documents_done(&docs);
}

/* As a definition does that is one version newer, for who runs it; who checks a file is told. */
static void members_of_another_version_are_passed_by(void **state UNUSED)
{
        static const char text[] =
                "apiVersion: sluice.dev/v1alpha1\nkind: Trigger\nmetadata: {name: orders}\nnewTop: 1\n"
                "spec:\n  source: {clock: {schedule: now, newField: {a: [1]}}}\n  sink: {uri: 'http://f/', "
                "newer: x}\n  delivery: {retry: {newest: true}}\n  newSpec: []\n";
        struct documents docs = { 0 };
        struct problems problems = { .pass_unknown = true }, strict = { 0 };
        struct trigger *t;

        assert_int_equal(yaml_parse(&docs, str_of(text), &problems), 0);
        t = trigger_decode(docs.roots[0], types, COUNT_OF(types), &problems);
        assert_non_null(t);
        assert_int_equal(problems.n, 0);
        assert_int_equal(problems.unknown, 5);
        assert_non_null(strstr(problems.first_unknown, "new"));
        assert_string_equal(t->sink->uri, "http://f/");
        (void)trigger_free(t);
        assert_null(trigger_decode(docs.roots[0], types, COUNT_OF(types), &strict));
        assert_int_equal(strict.n, 5);
        problems_done(&strict);
        problems_done(&problems);
        documents_done(&docs);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(defaults_are_filled_in),
                cmocka_unit_test(what_the_server_adds_is_read),
                cmocka_unit_test(what_is_written_reads_the_same),
                cmocka_unit_test(sinks_are_told_apart),
                cmocka_unit_test(tables_are_sound),
                cmocka_unit_test(names_and_defaults_fit_their_bounds),
                cmocka_unit_test(the_crd_is_yaml_and_holds_what_it_must),
                cmocka_unit_test(a_worker_tells_its_status),
                cmocka_unit_test(members_of_another_version_are_passed_by),
        };

        return cmocka_run_group_tests_name("trigger", tests, NULL, NULL);
}
