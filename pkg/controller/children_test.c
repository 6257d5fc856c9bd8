#include "controller/children.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>
#include <jansson.h>

#include "controller/sink.h"
#include "source/driver.h"

#define DATA "pkg/controller/testdata/"

static struct trigger *decode(const char *text)
{
        struct documents docs = { 0 };
        struct problems problems = { 0 };
        struct trigger *t;

        assert_int_equal(yaml_parse(&docs, str_of(text), &problems), 0);
        t = trigger_decode(docs.roots[0], source_types(), source_drivers_n, &problems);
        if (!t)
                fail_msg("%s: %s", problems.list[0].path, problems.list[0].text);
        documents_done(&docs);
        problems_done(&problems);
        return t;
}

#define METADATA "apiVersion: sluice.dev/v1alpha1\nkind: Trigger\nmetadata: {name: orders, namespace: shop, uid: 42825e8a, generation: 3}\n"
#define KAFKA METADATA "spec:\n  source: {kafka: {bootstrapServers: ['k:9092'], topics: [orders]}}\n  sink: {uri: 'http://f/'}\n"
#define TIMER METADATA "spec:\n  source: {timer: {schedule: 1m}}\n  sink: {uri: 'http://f/'}\n  suspend: true\n" \
                       "  worker: {resources: {limits: {memory: 1Gi}}, nodeSelector: {disk: ssd}, tolerations: [{key: a, operator: Exists}], labels: {team: x, app.kubernetes.io/name: no}, annotations: {note: y}, logLevel: Debug}\n"

/* All children of a Trigger as one JSON array, laid out for people. */
static char *all_children(const char *text)
{
        struct trigger *t = decode(text);
        struct child_context c = { t, "http://f.shop.svc/", "registry/sluice:1", "Never" };
        json_t *all = json_array();
        char *dump;

        for (int child = 0; child < CHILD_MAX; child++) {
                BUF_AT_END struct buf b = BUF_INIT(1 << 20), path = BUF_INIT(1024);
                json_t *one;

                child_write((enum child)child, &c, "0123456789abcdef", &b);
                child_path((enum child)child, t, &path);
                one = json_loadb(b.p, b.n, 0, NULL);
                assert_non_null(one);
                assert_int_equal(json_array_append_new(all, json_pack("{ss so}", "path", path.p, "object", one)), 0);
        }
        dump = json_dumps(all, JSON_INDENT(1));
        json_decref(all);
        (void)trigger_free(t);
        return dump;
}

static void check_golden(const char *text, const char *file)
{
        BUF_AT_END struct buf golden = BUF_INIT(1 << 20);
        char *dump = all_children(text);
        struct error err;

        if (getenv("UPDATE_GOLDEN")) {
                FILE *f = fopen(file, "w");

                assert_non_null(f);
                assert_true(fprintf(f, "%s\n", dump) > 0);
                assert_int_equal(fclose(f), 0);
        }
        if (buf_read_file(&golden, file, &err) < 0)
                fail_msg("%s", err.text);
        if (strncmp(golden.p, dump, strlen(dump)) != 0)
                fail_msg("the children differ from %s (UPDATE_GOLDEN=1 writes it):\n%s", file, dump);
        free(dump);
}

static void children_are_the_golden_ones(void **state UNUSED)
{
        check_golden(KAFKA, DATA "kafka.json");
        check_golden(TIMER, DATA "timer-suspended.json");
}

static void hash_of(const char *text, const char *sink, const char *image, char out[32])
{
        struct trigger *t = decode(text);
        struct child_context c = { t, sink, image, NULL };
        BUF_AT_END struct buf b = BUF_INIT(64);

        children_hash(&c, &b);
        (void)snprintf(out, 32, "%s", b.p);
        (void)trigger_free(t);
}

static void the_hash_follows_what_matters(void **state UNUSED)
{
        char first[32], again[32], sink[32], image[32], spec[32];

        hash_of(KAFKA, "http://a/", "i", first);
        hash_of(KAFKA, "http://a/", "i", again);
        hash_of(KAFKA, "http://b/", "i", sink);
        hash_of(KAFKA, "http://a/", "j", image);
        hash_of(TIMER, "http://a/", "i", spec);
        assert_int_equal(strlen(first), 16);
        assert_string_equal(first, again);
        assert_string_not_equal(first, sink);
        assert_string_not_equal(first, image);
        assert_string_not_equal(first, spec);
}

static void sinks_are_resolved(void **state UNUSED)
{
        static const struct { const char *sink, *service, *url, *reason, *words; } cases[] = {
                { "{uri: 'https://f/invoke'}", NULL, "https://f/invoke", NULL, NULL },
                { "{ref: {apiVersion: v1, kind: Service, name: f}}", NULL, NULL, "ServiceNotFound", "Service shop/f does not exist" },
                { "{ref: {apiVersion: v1, kind: Service, name: f, namespace: other}}", NULL, NULL, "ServiceNotFound", "other/f" },
                { "{ref: {apiVersion: v1, kind: Service, name: f}}", "{\"spec\":{\"ports\":[{\"port\":80}]}}", "http://f.shop.svc/", NULL, NULL },
                { "{ref: {apiVersion: v1, kind: Service, name: f}, uri: /invoke}", "{\"spec\":{\"ports\":[{\"port\":8000}]}}", "http://f.shop.svc:8000/invoke", NULL, NULL },
                { "{ref: {apiVersion: v1, kind: Service, name: f}}", "{\"spec\":{\"ports\":[{\"port\":9000,\"name\":\"metrics\"},{\"port\":8080,\"name\":\"http\"}]}}", "http://f.shop.svc:8080/", NULL, NULL },
                { "{ref: {apiVersion: v1, kind: Service, name: f}}", "{\"spec\":{\"ports\":[{\"port\":1,\"name\":\"a\"},{\"port\":2,\"name\":\"b\"}]}}", NULL, "PortNotFound", "spec.sink.ref.port" },
                { "{ref: {apiVersion: v1, kind: Service, name: f, port: 2}}", "{\"spec\":{\"ports\":[{\"port\":1},{\"port\":2}]}}", "http://f.shop.svc:2/", NULL, NULL },
                { "{ref: {apiVersion: v1, kind: Service, name: f, port: 3}}", "{\"spec\":{\"ports\":[{\"port\":1},{\"port\":2}]}}", NULL, "PortNotFound", "has no port 3" },
        };

        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                BUF_AT_END struct buf url = BUF_INIT(4096), message = BUF_INIT(4096);
                char text[1024];
                struct trigger *t;
                json_t *service = cases[i].service ? json_loads(cases[i].service, 0, NULL) : NULL;
                const char *reason = NULL;

                (void)snprintf(text, sizeof(text), METADATA "spec:\n  source: {timer: {schedule: 1m}}\n  sink: %s\n", cases[i].sink);
                t = decode(text);
                if (sink_resolve(t, service, &url, &reason, &message) == 0) {
                        assert_non_null(cases[i].url);
                        assert_string_equal(url.p, cases[i].url);
                } else {
                        assert_string_equal(reason, cases[i].reason);
                        if (!strstr(message.p, cases[i].words))
                                fail_msg("case %zu: \"%s\" does not say \"%s\"", i, message.p, cases[i].words);
                }
                json_decref(service);
                (void)trigger_free(t);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(children_are_the_golden_ones),
                cmocka_unit_test(the_hash_follows_what_matters),
                cmocka_unit_test(sinks_are_resolved),
        };
        return cmocka_run_group_tests_name("children", tests, NULL, NULL);
}
