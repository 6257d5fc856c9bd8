#include "controller/children.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>
#include <jansson.h>

#include "tests/support/trigger.h"

#define DATA "pkg/controller/testdata/"

#define METADATA                                                                                             \
        "apiVersion: sluice.dev/v1alpha1\nkind: Trigger\nmetadata: {name: orders, namespace: shop, uid: "    \
        "42825e8a, generation: 3}\n"
#define KAFKA                                                                                                \
        METADATA "spec:\n  source: {kafka: {bootstrapServers: ['k:9092'], topics: [orders]}}\n  sink: "      \
                 "{uri: 'http://f/'}\n"
#define TIMER                                                                                                \
        METADATA "spec:\n  source: {timer: {schedule: 1m}}\n  sink: {uri: 'http://f/'}\n  suspend: true\n"   \
                 "  worker: {resources: {limits: {memory: 1Gi}}, nodeSelector: {disk: ssd}, tolerations: "   \
                 "[{key: a, operator: Exists}], labels: {team: x, app.kubernetes.io/name: \"no\"}, "         \
                 "annotations: {note: \"y\"}, logLevel: Debug}\n"

#define API                                                                                                  \
        METADATA "spec:\n  source: {apig: {path: '/orders/{id}'}}\n  sink: {uri: 'http://f/'}\n"             \
                 "  delivery: {headers: [{name: A, secretRef: {name: one, key: a}}, {name: B, secretRef: "   \
                 "{name: two, key: b}}], authentication: {bearer: {tokenSecretRef: {name: one, key: c}}}}\n"

#define EXPOSED                                                                                              \
        METADATA "spec:\n  source: {apig: {path: '/orders/{id}', expose: {host: api.example.com, "           \
                 "ingressClassName: nginx, tlsSecretName: api-cert, annotations: {a/b: c}}}}\n  sink: "      \
                 "{uri: 'http://f/'}\n"
#define SERVED                                                                                               \
        METADATA "spec:\n  source: {smn: {topicURN: 'urn:smn:eu-west-101:p:orders', expose: {host: "         \
                 "smn.example.com},\n"                                                                       \
                 "    listener: {tls: {secretName: cert, clientCASecretRef: {name: ca, key: ca.pem}}, "      \
                 "trustedProxies: [10.0.0.0/8, 'fd00::/8']}}}\n  sink: {uri: 'http://f/'}\n"
#define MANAGED                                                                                              \
        METADATA                                                                                             \
        "spec:\n  source: {smn: {topicURN: 'urn:smn:eu-west-101:p:orders', expose: {host: "                  \
        "smn.example.com}, listener: {tls: {secretName: cert}}, subscription: {manage: true},\n"             \
        "    cloud: {credentials: {accessKeySecretRef: {name: cloud, key: ak}, secretKeySecretRef: "         \
        "{name: cloud, key: sk}}}}}\n  sink: {uri: 'http://f/'}\n  suspend: true\n"

#define OF_AN_AGENCY                                                                                         \
        "apiVersion: sluice.dev/v1alpha1\nkind: Trigger\nmetadata: {name: topic, namespace: shop, uid: u}\n" \
        "spec:\n  source: {smn: {topicURN: 'urn:smn:cn-north-4:p:t', subscription: {manage: true, "          \
        "endpoint: "                                                                                         \
        "'https://e/'}, cloud: {credentials: {type: ServiceAccount, serviceAccount: {providerURN: "          \
        "'iam::d:oidcProvider:p', agencyURN: 'iam::d:agency:a', audience: sluice}}}}}\n"                     \
        "  sink: {uri: 'http://f/'}\n"

#define SHARED                                                                                               \
        METADATA "spec:\n  source: {dis: {streamName: orders, cloud: {region: cn-north-4, credentials: "     \
                 "{type: PodIdentity}}}}\n  sink: {uri: 'http://f/'}\n  replicas: 3\n"

/* All children of a Trigger as one JSON array, laid out for people. */
static char *all_children(const char *text, bool ending)
{
        struct trigger *t = test_trigger(str_of(text));
        struct child_context c = { .trigger = t,
                                   .sink = "http://f.shop.svc/",
                                   .image = "registry/sluice:1",
                                   .pull_policy = "Never",
                                   .ending = ending };
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
                assert_int_equal(
                        json_array_append_new(all, json_pack("{ss so}", "path", path.p, "object", one)), 0);
        }
        dump = json_dumps(all, JSON_INDENT(1));
        json_decref(all);
        (void)trigger_free(t);
        return dump;
}

static void check_golden(const char *text, bool ending, const char *file)
{
        BUF_AT_END struct buf golden = BUF_INIT(1 << 20);
        char *dump = all_children(text, ending);
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
        check_golden(KAFKA, false, DATA "kafka.json");
        check_golden(TIMER, false, DATA "timer-suspended.json");
        check_golden(API, false, DATA "api-with-secrets.json");
        check_golden(EXPOSED, false, DATA "api-exposed.json");
        check_golden(SERVED, false, DATA "smn-tls.json");
        check_golden(MANAGED, true, DATA "smn-ending.json");
        check_golden(SHARED, false, DATA "dis-shared.json");
        check_golden(OF_AN_AGENCY, false, DATA "smn-service-account.json");
}

static void hash_of(const char *text, const char *sink, const char *image, char out[32])
{
        struct trigger *t = test_trigger(str_of(text));
        struct child_context c = { .trigger = t, .sink = sink, .image = image };
        BUF_AT_END struct buf b = BUF_INIT(64);

        children_hash(&c, &b);
        (void)snprintf(out, 32, "%s", b.p);
        (void)trigger_free(t);
}

static void the_hash_follows_what_matters(void **state UNUSED)
{
        static const struct {
                const char *metadata, *spec, *sink, *image;
                bool same;
        } cases[] = {
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

                (void)snprintf(text, sizeof(text),
                               "apiVersion: sluice.dev/v1alpha1\nkind: Trigger\nmetadata: {name: orders, "
                               "namespace: shop, uid: u, generation: 3%s}\n"
                               "spec: {source: {timer: {schedule: 1m}}, sink: {uri: 'http://f/'}%s}\n",
                               cases[i].metadata, cases[i].spec);
                hash_of(text, cases[i].sink, cases[i].image, hashes[i]);
                assert_int_equal(strlen(hashes[i]), 16);
                if ((strcmp(hashes[i], hashes[0]) == 0) != cases[i].same)
                        fail_msg("case %zu: the hash is %s, of the first %s", i, hashes[i], hashes[0]);
                for (size_t j = 0; j < i; j++)
                        if (!cases[i].same && strcmp(hashes[i], hashes[j]) == 0)
                                fail_msg("cases %zu and %zu have one hash", i, j);
        }
}

static void where_it_is_reached_and_how_the_ingress_finds_it(void **state UNUSED)
{
        static const struct {
                const char *source, *address, *path, *type, *port;
        } cases[] = {
                ROW("apig: {path: /a}", "http://orders-sluice.shop.svc/a", NULL, NULL, NULL),
                ROW("apig: {path: /a, listener: {tls: {secretName: c}}}", "https://orders-sluice.shop.svc/a",
                    NULL, NULL, NULL),
                ROW("apig: {path: /a, listener: {trustedProxies: [10.0.0.1]}}",
                    "http://orders-sluice.shop.svc/a", NULL, NULL, NULL),
                ROW("apig: {path: /a/b, expose: {host: h}}", "http://h/a/b", "/a/b", "Exact", "http"),
                ROW("apig: {path: /a/b, match: Prefix, expose: {host: h}}", "http://h/a/b", "/a/b", "Prefix",
                    "http"),
                ROW("apig: {path: '/a/{b}/c', expose: {host: h, tlsSecretName: s}}", "https://h/a/{b}/c",
                    "/a", "Prefix", "http"),
                ROW("apig: {path: '/{all+}', expose: {host: h}}", "http://h/{all+}", "/", "Prefix", "http"),
                ROW("apig: {path: /, expose: {host: h}, listener: {tls: {secretName: c}}}", "http://h/", "/",
                    "Exact", "https"),
                ROW("obs: {bucket: pictures, from: Webhook, tokenSecretRef: {name: a, key: b}, expose: "
                    "{host: h}}",
                    "http://h/shop/orders", "/shop/orders", "Exact", "http"),
                ROW("cloudEye: {topicURN: 'urn:smn:r:p:n', expose: {host: h}}", "http://h/shop/orders",
                    "/shop/orders", "Exact", "http"),
                ROW("timer: {schedule: 1m}", "", NULL, NULL, NULL),
        };

        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                BUF_AT_END struct buf spec = BUF_INIT(4096), address = BUF_INIT(4096),
                                      body = BUF_INIT(1 << 20);
                json_t *ingress, *rule, *path;
                struct child_context c;
                struct trigger *t;

                buf_printf(&spec, METADATA "spec:\n  source: {%s}\n  sink: {uri: 'http://f/'}\n",
                           cases[i].source);
                t = test_trigger(str_of(spec.p));
                child_address(t, &address);
                assert_string_equal(address.n ? address.p : "", cases[i].address);
                assert_int_equal(child_needed(CHILD_INGRESS, t), cases[i].path != NULL);
                assert_int_equal(child_needed(CHILD_SERVICE, t), cases[i].address[0] != 0);
                if (cases[i].path) {
                        c = (struct child_context){ .trigger = t, .sink = "http://f/", .image = "i" };
                        child_write(CHILD_INGRESS, &c, "", &body);
                        ingress = json_loadb(body.p, body.n, 0, NULL);
                        rule = json_array_get(json_object_get(json_object_get(ingress, "spec"), "rules"), 0);
                        path = json_array_get(json_object_get(json_object_get(rule, "http"), "paths"), 0);
                        assert_string_equal(json_string_value(json_object_get(rule, "host")), "h");
                        assert_string_equal(json_string_value(json_object_get(path, "path")), cases[i].path);
                        assert_string_equal(json_string_value(json_object_get(path, "pathType")),
                                            cases[i].type);
                        assert_string_equal(
                                json_string_value(json_object_get(
                                        json_object_get(
                                                json_object_get(json_object_get(path, "backend"), "service"),
                                                "port"),
                                        "name")),
                                cases[i].port);
                        json_decref(ingress);
                }
                (void)trigger_free(t);
        }
}

/* A Service's name begins with a letter. */
static void a_name_may_begin_with_a_digit(void **state UNUSED)
{
        struct trigger *t = test_trigger_of(
                (struct test_trigger_spec){ .name = "7up", .source = "apig: {path: /a, expose: {host: h}}" });
        BUF_AT_END struct buf name = BUF_INIT(1024), path = BUF_INIT(1024), body = BUF_INIT(1 << 20),
                              longest = BUF_INIT(1024);
        struct child_context c = { .trigger = t, .sink = "http://f/", .image = "i" };

        child_name(CHILD_SERVICE, "7up", &name);
        assert_string_equal(name.p, "sluice-7up-svc");
        child_path(CHILD_SERVICE, t, &path);
        assert_string_equal(path.p, "/api/v1/namespaces/shop/services/sluice-7up-svc");
        child_write(CHILD_INGRESS, &c, "", &body);
        assert_non_null(strstr(body.p, "\"service\":{\"name\":\"sluice-7up-svc\""));
        buf_reset(&body);
        child_write(CHILD_SERVICE, &c, "", &body);
        assert_non_null(strstr(body.p, "\"name\":\"sluice-7up-svc\""));
        child_name(CHILD_SERVICE, "7234567890123456789012345678901234567890123456789012", &longest);
        assert_true(longest.n <= 63);
        (void)trigger_free(t);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(children_are_the_golden_ones),
                cmocka_unit_test(the_hash_follows_what_matters),
                cmocka_unit_test(where_it_is_reached_and_how_the_ingress_finds_it),
                cmocka_unit_test(a_name_may_begin_with_a_digit),
        };
        return cmocka_run_group_tests_name("children", tests, NULL, NULL);
}
