#include "controller/children.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>
#include <jansson.h>

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

#define API METADATA "spec:\n  source: {apig: {path: '/orders/{id}'}}\n  sink: {uri: 'http://f/'}\n" \
                     "  delivery: {headers: [{name: A, secretRef: {name: one, key: a}}, {name: B, secretRef: {name: two, key: b}}], authentication: {bearer: {tokenSecretRef: {name: one, key: c}}}}\n"

/* All children of a Trigger as one JSON array, laid out for people. */
static char *all_children(const char *text)
{
        struct trigger *t = decode(text);
        struct child_context c = { t, "http://f.shop.svc/", NULL, "registry/sluice:1", "Never" };
        json_t *all = json_array();
        char *dump;

        for (int child = 0; child < CHILD_MAX; child++) {
                BUF_AT_END struct buf b = BUF_INIT(1 << 20), path = BUF_INIT(1024);
                json_t *one;

                if (!child_needed((enum child)child, t))
                        continue;
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
        check_golden(API, DATA "api-with-secrets.json");
}

static void hash_of(const char *text, const char *sink, const char *image, char out[32])
{
        struct trigger *t = decode(text);
        struct child_context c = { t, sink, NULL, image, NULL };
        BUF_AT_END struct buf b = BUF_INIT(64);

        children_hash(&c, &b);
        (void)snprintf(out, 32, "%s", b.p);
        (void)trigger_free(t);
}

static void the_hash_follows_what_matters(void **state UNUSED)
{
        static const struct { const char *metadata, *spec, *sink, *image; bool same; } cases[] = {
                { "", "", "http://a/", "i", true },
                { ", labels: {team: a}", "", "http://a/", "i", true },
                { ", annotations: {note: b}", "", "http://a/", "i", true },
                { ", resourceVersion: '7'", "", "http://a/", "i", true },
                { "", "", "http://b/", "i", false },
                { "", "", "http://a/", "j", false },
                { "", ", suspend: true", "http://a/", "i", false },
                { "", ", function: {name: f}", "http://a/", "i", false },
                { "", ", delivery: {maxInFlight: 7}", "http://a/", "i", false },
                { "", ", worker: {logLevel: Debug}", "http://a/", "i", false },
                { "", ", worker: {labels: {a: b}}", "http://a/", "i", false },
                { "", ", worker: {annotations: {a: b}}", "http://a/", "i", false },
                { "", ", worker: {nodeSelector: {a: b}}", "http://a/", "i", false },
                { "", ", worker: {resources: {limits: {memory: 1Gi}}}", "http://a/", "i", false },
        };
        char hashes[COUNT_OF(cases)][32];

        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                char text[1024];

                (void)snprintf(text, sizeof(text), "apiVersion: sluice.dev/v1alpha1\nkind: Trigger\nmetadata: {name: orders, namespace: shop, uid: u, generation: 3%s}\n"
                               "spec: {source: {timer: {schedule: 1m}}, sink: {uri: 'http://f/'}%s}\n", cases[i].metadata, cases[i].spec);
                hash_of(text, cases[i].sink, cases[i].image, hashes[i]);
                assert_int_equal(strlen(hashes[i]), 16);
                if ((strcmp(hashes[i], hashes[0]) == 0) != cases[i].same)
                        fail_msg("case %zu: the hash is %s, of the first %s", i, hashes[i], hashes[0]);
                for (size_t j = 0; j < i; j++)
                        if (!cases[i].same && strcmp(hashes[i], hashes[j]) == 0)
                                fail_msg("cases %zu and %zu have one hash", i, j);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(children_are_the_golden_ones),
                cmocka_unit_test(the_hash_follows_what_matters),
        };
        return cmocka_run_group_tests_name("children", tests, NULL, NULL);
}
