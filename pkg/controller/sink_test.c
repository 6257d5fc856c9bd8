#include "controller/sink.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "tests/support/trigger.h"

#define METADATA                                                                                             \
        "apiVersion: sluice.dev/v1alpha1\nkind: Trigger\nmetadata: {name: orders, namespace: shop, uid: "    \
        "42825e8a, generation: 3}\n"

static void sinks_are_resolved(void **state UNUSED)
{
        static const struct {
                const char *sink, *service, *url, *reason, *words;
        } cases[] = {
                ROW("{uri: 'https://f/invoke'}", NULL, "https://f/invoke", NULL, NULL),
                ROW("{ref: {apiVersion: v1, kind: Service, name: f}}", NULL, NULL, "ServiceNotFound",
                    "Service shop/f does not exist"),
                ROW("{ref: {apiVersion: v1, kind: Service, name: f, namespace: other}}", NULL, NULL,
                    "ServiceNotFound", "other/f"),
                ROW("{ref: {apiVersion: v1, kind: Service, name: f}}",
                    "{\"spec\":{\"ports\":[{\"port\":80}]}}", "http://f.shop.svc/", NULL, NULL),
                ROW("{ref: {apiVersion: v1, kind: Service, name: f}, uri: /invoke}",
                    "{\"spec\":{\"ports\":[{\"port\":8000}]}}", "http://f.shop.svc:8000/invoke", NULL, NULL),
                ROW("{ref: {apiVersion: v1, kind: Service, name: f}}",
                    "{\"spec\":{\"ports\":[{\"port\":9000,\"name\":\"metrics\"},{\"port\":8080,\"name\":"
                    "\"http\"}]}}",
                    "http://f.shop.svc:8080/", NULL, NULL),
                ROW("{ref: {apiVersion: v1, kind: Service, name: f}}",
                    "{\"spec\":{\"ports\":[{\"port\":1,\"name\":\"a\"},{\"port\":2,\"name\":\"b\"}]}}", NULL,
                    "PortNotFound", "spec.sink.ref.port"),
                ROW("{ref: {apiVersion: v1, kind: Service, name: f, port: 2}}",
                    "{\"spec\":{\"ports\":[{\"port\":1},{\"port\":2}]}}", "http://f.shop.svc:2/", NULL, NULL),
                ROW("{ref: {apiVersion: v1, kind: Service, name: f, port: 3}}",
                    "{\"spec\":{\"ports\":[{\"port\":1},{\"port\":2}]}}", NULL, "PortNotFound",
                    "has no port 3"),
                ROW("{ref: {apiVersion: v1, kind: Service, name: f, namespace: other}, uri: '/a?b=c'}",
                    "{\"spec\":{\"ports\":[{\"port\":80}]}}", "http://f.other.svc/a?b=c", NULL, NULL),
                ROW("{ref: {apiVersion: v1, kind: Service, name: f}}",
                    "{\"spec\":{\"ports\":[{\"port\":1,\"name\":\"a\"},{\"port\":80,\"name\":\"b\"}]}}",
                    "http://f.shop.svc/", NULL, NULL),
                ROW("{ref: {apiVersion: v1, kind: Service, name: f}}",
                    "{\"spec\":{\"ports\":[{\"port\":80,\"name\":\"b\"},{\"port\":8080,\"name\":\"http\"}]}}",
                    "http://f.shop.svc:8080/", NULL, NULL),
                ROW("{ref: {apiVersion: v1, kind: Service, name: f}}", "{\"spec\":{}}", NULL, "PortNotFound",
                    "has no port: give it one"),
                ROW("{ref: {apiVersion: v1, kind: Service, name: f}}",
                    "{\"spec\":{\"type\":\"ExternalName\"}}", "http://f.shop.svc/", NULL, NULL),
                ROW("{ref: {apiVersion: v1, kind: Service, name: f, port: 8443}}",
                    "{\"spec\":{\"type\":\"ExternalName\"}}", "http://f.shop.svc:8443/", NULL, NULL),
        };

        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                BUF_AT_END struct buf url = BUF_INIT(4096), message = BUF_INIT(4096);
                char text[1024];
                struct destination destination;
                struct trigger *t;
                json_t *service = cases[i].service ? json_loads(cases[i].service, 0, NULL) : NULL;
                const char *reason = NULL;

                (void)snprintf(text, sizeof(text),
                               METADATA "spec:\n  source: {timer: {schedule: 1m}}\n  sink: %s\n",
                               cases[i].sink);
                t = test_trigger(str_of(text));
                sink_destination(t, &destination);
                if (sink_resolve(&destination, service, &url, &reason, &message) == 0) {
                        assert_non_null(cases[i].url);
                        assert_string_equal(url.p, cases[i].url);
                } else if (cases[i].url) {
                        fail_msg("case %zu: %s: %s", i, reason, message.p);
                } else {
                        assert_string_equal(reason, cases[i].reason);
                        assert_null(url.n ? url.p : NULL);
                        if (!strstr(message.p, cases[i].words))
                                fail_msg("case %zu: \"%s\" does not say \"%s\"", i, message.p,
                                         cases[i].words);
                }
                json_decref(service);
                (void)trigger_free(t);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(sinks_are_resolved),
        };
        return cmocka_run_group_tests_name("sink", tests, NULL, NULL);
}
