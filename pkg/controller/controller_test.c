/* Reconciling, against an API server in memory: it lists what a test put there, answers for objects by their
 * path, and writes down what is asked of it. */
#include "controller/controller.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "controller/children.h"
#include "controller/status.h"
#include "json/value.h"
#include "http/server/server.h"
#include "source/source.h"

enum { OBJECTS = 32, CALLS = 256, WATCHES = 16 };

struct object {
        char path[256];
        const char *collection;
        json_t *body;
        int status; /* what a GET or PATCH of it answers; 0: 200 */
};
struct seen {
        char method[8], path[256];
        json_t *body;
};

static struct bench {
        struct loop *loop;
        struct http_server *server;
        struct kube_config config;
        struct kube_client *client;
        struct controller *controller;
        char url[64];
        struct object objects[OBJECTS];
        size_t objects_n;
        struct seen seen[CALLS];
        size_t seen_n;
        struct http_call *watches[WATCHES];
        char watched[WATCHES][256];
        size_t watches_n;
        bool (*until)(void);
} b;

/* ---- the API server ----------------------------------------------------- */

static struct object *object_at(const char *path)
{
        for (size_t i = 0; i < b.objects_n; i++)
                if (strcmp(b.objects[i].path, path) == 0)
                        return &b.objects[i];
        return NULL;
}

/* collection: the path of its list; NULL: none lists it. */
static struct object *put(const char *collection, const char *path, const char *body, int status)
{
        struct object *o = object_at(path);

        if (!o) {
                o = &b.objects[b.objects_n++];
                assert_true(b.objects_n <= OBJECTS);
                (void)snprintf(o->path, sizeof(o->path), "%s", path);
        }
        json_decref(o->body);
        o->collection = collection;
        o->body = body ? json_loads(body, 0, NULL) : NULL;
        o->status = status;
        assert_true(!body || o->body);
        return o;
}

static void reply_json(struct http_call *call, int status, json_t *body)
{
        char *text = json_dumps(body, JSON_COMPACT);

        http_call_reply(call, status, STR("application/json"), (struct str){ 0 }, str_of(text));
        free(text);
        json_decref(body);
}

static void refuse(struct http_call *call, int status, const char *reason)
{
        reply_json(
                call, status,
                json_pack("{ss ss ss}", "kind", "Status", "reason", reason, "message", "the test says so"));
}

static bool is_collection(const char *path)
{
        static const char *const all[] = { "/apis/sluice.dev/v1alpha1/triggers", "/apis/apps/v1/deployments",
                                           "/api/v1/pods", "/api/v1/services" };

        for (size_t i = 0; i < COUNT_OF(all); i++)
                if (strcmp(path, all[i]) == 0)
                        return true;
        return false;
}

static void list(struct http_call *call, const char *path)
{
        json_t *items = json_array();

        for (size_t i = 0; i < b.objects_n; i++)
                if (b.objects[i].collection && strcmp(b.objects[i].collection, path) == 0 &&
                    b.objects[i].body)
                        (void)json_array_append(items, b.objects[i].body);
        reply_json(call, 200, json_pack("{s{ss} so}", "metadata", "resourceVersion", "1", "items", items));
}

static void look_again(void)
{
        if (b.until && b.until())
                loop_stop(b.loop);
}

static void handle(void *cookie UNUSED, struct http_call *call)
{
        const struct http_message *m = http_call_message(call);
        struct str rest = buf_view(&m->target), path_ = str_cut(&rest, '?');
        char path[256], query[512];
        struct object *o;
        struct seen *s;

        (void)snprintf(path, sizeof(path), STR_FMT, STR_ARG(path_));
        (void)snprintf(query, sizeof(query), STR_FMT, STR_ARG(rest));
        if (is_collection(path)) {
                if (!strstr(query, "watch=true"))
                        list(call, path);
                else {
                        assert_true(b.watches_n < WATCHES);
                        (void)snprintf(b.watched[b.watches_n], sizeof(b.watched[0]), "%s", path);
                        b.watches[b.watches_n++] = call;
                }
                return;
        }
        if (strstr(path, "/events")) {
                reply_json(call, 201, json_object());
                return;
        }
        s = &b.seen[b.seen_n++];
        assert_true(b.seen_n <= CALLS);
        (void)snprintf(s->method, sizeof(s->method), "%s", http_method_name(m));
        (void)snprintf(s->path, sizeof(s->path), "%s", path);
        s->body = m->body.n ? json_loadb(m->body.p, m->body.n, 0, NULL) : NULL;
        o = object_at(path);
        if (o && o->status)
                refuse(call, o->status, o->status == 403 ? "Forbidden" : "Conflict");
        else if (m->method == HTTP_GET && !(o && o->body))
                refuse(call, 404, "NotFound");
        else if (m->method == HTTP_GET)
                reply_json(call, 200, json_incref(o->body));
        else
                reply_json(call, 200, json_object());
        look_again();
}

static void on_gone(void *cookie UNUSED, struct http_call *call)
{
        for (size_t i = 0; i < b.watches_n; i++)
                if (b.watches[i] == call) {
                        b.watches[i] = b.watches[--b.watches_n];
                        memcpy(b.watched[i], b.watched[b.watches_n], sizeof(b.watched[0]));
                        return;
                }
}

/* An event on the watch of a collection, which ends behind it. */
static void tell(const char *collection, const char *type, json_t *object)
{
        for (size_t i = 0; i < b.watches_n; i++)
                if (strcmp(b.watched[i], collection) == 0) {
                        struct http_call *call = b.watches[i];
                        json_t *event = json_pack("{ss sO}", "type", type, "object", object);
                        char *text = json_dumps(event, JSON_COMPACT), line[16384];

                        (void)snprintf(line, sizeof(line), "%s\n", text);
                        on_gone(NULL, call);
                        http_call_reply(call, 200, STR("application/json"), (struct str){ 0 }, str_of(line));
                        json_decref(event);
                        free(text);
                        return;
                }
        fail_msg("nobody watches %s", collection);
}

/* ---- the bench ---------------------------------------------------------- */

#define TRIGGERS "/apis/sluice.dev/v1alpha1/triggers"
#define TRIGGERS_OF_N "/apis/sluice.dev/v1alpha1/namespaces/n/triggers/"
#define TRIGGER "/apis/sluice.dev/v1alpha1/namespaces/n/triggers/clock"
#define DEPLOYMENTS "/apis/apps/v1/deployments"
#define DEPLOYMENT "/apis/apps/v1/namespaces/n/deployments/clock-sluice"
#define CONFIG "/api/v1/namespaces/n/configmaps/clock-sluice"
#define SERVICE "/api/v1/namespaces/n/services/clock-sluice"
#define METADATA                                                                                             \
        "\"apiVersion\":\"sluice.dev/"                                                                       \
        "v1alpha1\",\"kind\":\"Trigger\",\"metadata\":{\"name\":\"clock\",\"namespace\":\"n\",\"uid\":"      \
        "\"u\",\"generation\":%d,\"resourceVersion\":\"%d\"%s}"
#define TIMER "{\"timer\":{\"schedule\":\"1h\"}}"

static json_t *trigger(int generation, const char *more, const char *source)
{
        char text[4096];
        json_t *t;

        (void)snprintf(text, sizeof(text),
                       "{" METADATA ",\"spec\":{\"source\":%s,\"sink\":{\"uri\":\"http://f/\"}}}", generation,
                       10 + generation, more, source);
        t = json_loads(text, 0, NULL);
        assert_non_null(t);
        return t;
}

static void put_trigger(json_t *t)
{
        FREE_AT_END char *text = json_dumps(t, JSON_COMPACT);

        (void)put(TRIGGERS, TRIGGER, text, 0);
        json_decref(t);
}

static int setup(void **state UNUSED)
{
        struct http_server_config config = { .address = "127.0.0.1:0",
                                             .head_max = 65536,
                                             .body_max = 4 << 20,
                                             .handle = handle,
                                             .gone = on_gone };
        struct error err;

        memset(&b, 0, sizeof(b));
        assert_int_equal(loop_new(&b.loop, &err), 0);
        assert_int_equal(http_server_new(&b.server, b.loop, &config, &err), 0);
        (void)snprintf(b.url, sizeof(b.url), "http://127.0.0.1:%u", http_server_port(b.server));
        b.config = (struct kube_config){ .server = b.url };
        assert_int_equal(kube_client_new(&b.client, b.loop, &b.config, &err), 0);
        (void)alarm(30);
        return 0;
}

static int teardown(void **state UNUSED)
{
        (void)alarm(0);
        b.controller = controller_free(b.controller);
        b.client = kube_client_free(b.client);
        b.server = http_server_free(b.server);
        b.loop = loop_free(b.loop);
        for (size_t i = 0; i < b.objects_n; i++)
                json_decref(b.objects[i].body);
        for (size_t i = 0; i < b.seen_n; i++)
                json_decref(b.seen[i].body);
        return 0;
}

static void start(void)
{
        const struct controller_config config = { .client = b.client,
                                                  .worker_image = "i",
                                                  .pod = "c",
                                                  .workers = 2,
                                                  .ending_deadline = USEC_MINUTE,
                                                  .types = source_types(),
                                                  .types_n = source_kinds_n };
        struct error err;

        assert_int_equal(controller_new(&b.controller, &config, &err), 0);
}

static void run_until(bool (*until)(void))
{
        b.until = until;
        if (!until())
                loop_run(b.loop);
        b.until = NULL;
}

static size_t count(const char *method, const char *path)
{
        size_t n = 0;

        for (size_t i = 0; i < b.seen_n; i++)
                n += strcmp(b.seen[i].method, method) == 0 && strcmp(b.seen[i].path, path) == 0;
        return n;
}

static const struct seen *last(const char *method, const char *path)
{
        for (size_t i = b.seen_n; i-- > 0;)
                if (strcmp(b.seen[i].method, method) == 0 && strcmp(b.seen[i].path, path) == 0)
                        return &b.seen[i];
        fail_msg("no %s %s", method, path);
        return NULL;
}

static bool status_written(void) { return count("PATCH", TRIGGER "/status") > 0; }

static const char *condition(const char *type, const char *member)
{
        json_t *all = json_object_get(json_object_get(last("PATCH", TRIGGER "/status")->body, "status"),
                                      "conditions"),
               *c;
        size_t i;

        json_array_foreach(all, i, c) if (strcmp(json_string_value(json_object_get(c, "type")), type) ==
                                          0) return json_string_value(json_object_get(c, member));
        return "";
}

static void forget_calls(void)
{
        for (size_t i = 0; i < b.seen_n; i++)
                json_decref(b.seen[i].body);
        b.seen_n = 0;
}

/* ---- tests -------------------------------------------------------------- */

static void each_child_is_looked_at_and_applied_in_order(void **state UNUSED)
{
        static const char *const paths[] = {
                "/api/v1/namespaces/n/serviceaccounts/clock-sluice",
                "/apis/rbac.authorization.k8s.io/v1/namespaces/n/roles/clock-sluice",
                "/apis/rbac.authorization.k8s.io/v1/namespaces/n/rolebindings/clock-sluice",
                CONFIG,
                "/api/v1/namespaces/n/configmaps/clock-checkpoint",
                DEPLOYMENT,
        };
        size_t at = 0;

        put_trigger(trigger(1, "", TIMER));
        start();
        run_until(status_written);
        for (size_t i = 0; i < COUNT_OF(paths); i++, at += 2) {
                assert_string_equal(b.seen[at].method, "GET");
                assert_string_equal(b.seen[at].path, paths[i]);
                assert_string_equal(b.seen[at + 1].method, "PATCH");
                assert_string_equal(b.seen[at + 1].path, paths[i]);
        }
        assert_int_equal(b.seen_n, at + 1);
        assert_string_equal(condition("Ready", "reason"), "WorkerStarting");
}

static void what_is_somebody_elses_is_never_written(void **state UNUSED)
{
        static const struct {
                const char *what, *metadata, *says;
        } cases[] = {
                ROW("labels",
                    "\"labels\":{\"app.kubernetes.io/managed-by\":\"sluice\",\"app.kubernetes.io/"
                    "instance\":\"clock\"}",
                    "is not Sluice's"),
                ROW("another owner",
                    "\"ownerReferences\":[{\"apiVersion\":\"apps/"
                    "v1\",\"kind\":\"Deployment\",\"name\":\"clock\",\"uid\":\"x\",\"controller\":true}]",
                    "is not Sluice's"),
                ROW("another Trigger",
                    "\"ownerReferences\":[{\"apiVersion\":\"sluice.dev/"
                    "v1alpha1\",\"kind\":\"Trigger\",\"name\":\"other\",\"uid\":\"x\"}]",
                    "is not Sluice's"),
                ROW("another's kind of Trigger",
                    "\"ownerReferences\":[{\"apiVersion\":\"eventing.knative.dev/"
                    "v1\",\"kind\":\"Trigger\",\"name\":\"clock\",\"uid\":\"u\"}]",
                    "is not Sluice's"),
                ROW("the one before",
                    "\"ownerReferences\":[{\"apiVersion\":\"sluice.dev/"
                    "v1alpha1\",\"kind\":\"Trigger\",\"name\":\"clock\",\"uid\":\"x\"}]",
                    "is still that of the Trigger of this name"),
        };

        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                char text[1024];

                put_trigger(trigger(1, "", TIMER));
                (void)snprintf(text, sizeof(text),
                               "{\"metadata\":{\"name\":\"clock-sluice\",\"namespace\":\"n\",%s}}",
                               cases[i].metadata);
                (void)put(NULL, CONFIG, text, 0);
                /* Even where a Deployment of that name is there. */
                (void)put(DEPLOYMENTS, DEPLOYMENT,
                          "{\"metadata\":{\"name\":\"clock-sluice\",\"namespace\":\"n\",\"labels\":{\"app."
                          "kubernetes.io/instance\":\"clock\"}},\"spec\":{\"replicas\":1}}",
                          0);
                start();
                run_until(status_written);
                if (count("PATCH", CONFIG) || count("PATCH", DEPLOYMENT))
                        fail_msg("%s: it is written", cases[i].what);
                assert_string_equal(condition("Ready", "reason"), "ApplyFailed");
                if (!strstr(condition("Ready", "message"), cases[i].says))
                        fail_msg("%s: %s", cases[i].what, condition("Ready", "message"));
                (void)teardown(NULL);
                (void)setup(NULL);
        }
}

static void what_was_left_behind_is_taken_up(void **state UNUSED)
{
        put_trigger(trigger(1, "", TIMER));
        (void)put(NULL, CONFIG,
                  "{\"metadata\":{\"name\":\"clock-sluice\",\"managedFields\":[{\"manager\":\"sluice-"
                  "controller\",\"operation\":\"Apply\"}]}}",
                  0);
        start();
        run_until(status_written);
        assert_int_equal(count("PATCH", CONFIG), 1);
        assert_string_equal(condition("Ready", "reason"), "WorkerStarting");
}

/* Its Deployment bears the hash of all: nothing is read or written but the status. */
static void nothing_is_written_while_nothing_changes(void **state UNUSED)
{
        char text[1024];
        const char *hash;

        put_trigger(trigger(1, "", TIMER));
        start();
        run_until(status_written);
        hash = json_string_value(json_object_get(
                json_object_get(json_object_get(last("PATCH", DEPLOYMENT)->body, "metadata"), "annotations"),
                ANNOTATION_HASH));
        assert_non_null(hash);
        (void)snprintf(
                text, sizeof(text),
                "{\"metadata\":{\"name\":\"clock-sluice\",\"namespace\":\"n\",\"labels\":{\"app.kubernetes."
                "io/instance\":\"clock\"},\"annotations\":{\"%s\":\"%s\"}},\"spec\":{\"replicas\":1}}",
                ANNOTATION_HASH, hash);
        b.controller = controller_free(b.controller);
        forget_calls();
        (void)put(DEPLOYMENTS, DEPLOYMENT, text, 0);
        start();
        run_until(status_written);
        assert_int_equal(b.seen_n, 1);
}

/* Another kind of source: what it no longer needs goes, unless it is somebody's. */
static bool config_applied(void) { return count("PATCH", CONFIG) > 0 && status_written(); }

static void a_service_goes_with_its_source_if_it_is_ours(void **state UNUSED)
{
        static const struct {
                const char *metadata;
                size_t deletes;
        } cases[] = {
                ROW("\"ownerReferences\":[{\"apiVersion\":\"sluice.dev/"
                    "v1alpha1\",\"kind\":\"Trigger\",\"name\":\"clock\",\"uid\":\"u\"}]",
                    1),
                ROW("\"labels\":{\"app.kubernetes.io/managed-by\":\"sluice\",\"app.kubernetes.io/"
                    "instance\":\"clock\"}",
                    0),
        };

        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                char text[1024];

                put_trigger(trigger(2, "", TIMER));
                (void)snprintf(text, sizeof(text),
                               "{\"metadata\":{\"name\":\"clock-sluice\",\"namespace\":\"n\",%s}}",
                               cases[i].metadata);
                (void)put(NULL, SERVICE, text, 0);
                start();
                run_until(config_applied);
                assert_int_equal(count("DELETE", SERVICE), cases[i].deletes);
                assert_int_equal(count("PATCH", SERVICE), 0);
                assert_string_equal(condition("Ready", "reason"), "WorkerStarting");
                (void)teardown(NULL);
                (void)setup(NULL);
        }
}

/* Leases of slots that there are no more go, and the first that is missing is the end of them. */
static void leases_follow_the_slots(void **state UNUSED)
{
        static const char source[] = "{\"dis\":{\"streamName\":\"s\",\"cloud\":{\"region\":\"r\","
                                     "\"credentials\":{\"type\":\"PodIdentity\"}}}}";
        char paths[5][80];

        for (int i = 0; i < 5; i++) {
                (void)snprintf(paths[i], sizeof(paths[i]),
                               "/apis/coordination.k8s.io/v1/namespaces/n/leases/clock-sluice-%d", i);
                if (i < 3)
                        (void)put(NULL, paths[i],
                                  "{\"metadata\":{\"name\":\"l\",\"ownerReferences\":[{\"apiVersion\":"
                                  "\"sluice.dev/v1alpha1\",\"kind\":\"Trigger\",\"name\":\"clock\","
                                  "\"uid\":\"u\"}]}}",
                                  0);
        }
        put_trigger(trigger(2, "", source));
        start();
        run_until(status_written);
        assert_int_equal(count("PATCH", paths[0]), 1);
        assert_int_equal(count("DELETE", paths[0]), 0);
        for (int i = 1; i < 3; i++) {
                assert_int_equal(count("PATCH", paths[i]), 0);
                assert_int_equal(count("DELETE", paths[i]), 1);
        }
        assert_int_equal(count("GET", paths[3]), 1);
        assert_int_equal(count("GET", paths[4]), 0);
        assert_int_equal(count("PATCH", DEPLOYMENT), 1);
}

static void what_fails_is_told_and_tried_again(void **state UNUSED)
{
        put_trigger(trigger(1, "", TIMER));
        (void)put(NULL, CONFIG, NULL, 403);
        start();
        (void)put(NULL, CONFIG,
                  "{\"metadata\":{\"ownerReferences\":[{\"apiVersion\":\"sluice.dev/"
                  "v1alpha1\",\"kind\":\"Trigger\",\"name\":\"clock\",\"uid\":\"u\"}]}}",
                  403);
        run_until(status_written);
        assert_string_equal(condition("Ready", "reason"), "ApplyFailed");
        assert_non_null(strstr(condition("Ready", "message"), "403 Forbidden: the test says so"));
        (void)put(NULL, CONFIG, NULL, 0);
        forget_calls();
        run_until(config_applied);
        assert_string_equal(condition("Ready", "reason"), "WorkerStarting");
}

static void a_spec_that_is_wrong_says_where_and_changes_nothing(void **state UNUSED)
{
        put_trigger(trigger(1, "", "{\"timer\":{\"schedule\":\"*/5 * * * *\"}}"));
        start();
        run_until(status_written);
        assert_int_equal(b.seen_n, 1);
        assert_string_equal(condition("Ready", "reason"), "InvalidSpec");
        assert_non_null(strstr(condition("Ready", "message"), "spec.source.timer.schedule: "));
}

/* A Trigger NAME that reads one stream as one app. */
static json_t *dis(const char *name, int generation, const char *created, const char *app)
{
        json_t *t = trigger(generation, "", TIMER);

        assert_int_equal(json_object_set_new(
                                 json_object_get(t, "spec"), "source",
                                 json_pack("{s{ssss s{ss ss s{s{ssss} s{ssss}}}}}", "dis", "streamName",
                                           "orders", "appName", app, "cloud", "region", "cn-north-4",
                                           "projectID", "p", "credentials", "accessKeySecretRef", "name", "s",
                                           "key", "a", "secretKeySecretRef", "name", "s", "key", "b")),
                         0);
        assert_int_equal(json_object_update_new(json_object_get(t, "metadata"),
                                                json_pack("{ssssss}", "name", name, "uid", name,
                                                          "creationTimestamp", created)),
                         0);
        return t;
}

static void put_dis(json_t *t)
{
        char path[256];
        FREE_AT_END char *text = json_dumps(t, JSON_COMPACT);

        (void)snprintf(path, sizeof(path), TRIGGERS_OF_N "%s",
                       json_string_value(json_object_get(json_object_get(t, "metadata"), "name")));
        (void)put(TRIGGERS, path, text, 0);
        json_decref(t);
}

static bool both_are_told(void)
{
        return count("PATCH", TRIGGERS_OF_N "first/status") && count("PATCH", TRIGGERS_OF_N "late/status");
}
static bool the_late_one_is_told(void) { return count("PATCH", TRIGGERS_OF_N "late/status") > 0; }
static bool the_late_one_runs(void)
{
        return count("PATCH", "/apis/apps/v1/namespaces/n/deployments/late-sluice") > 0;
}

static const char *ready_of(const char *status_path, const char *member)
{
        json_t *status = json_object_get(last("PATCH", status_path)->body, "status");

        return json_cstring(status_condition(status, "Ready"), member);
}

static void of_two_that_clash_the_later_waits(void **state UNUSED)
{
        json_t *first = dis("first", 1, "2026-11-24T10:00:00Z", "shared");

        put_dis(dis("late", 1, "2026-11-24T11:00:00Z", "shared"));
        put_dis(json_incref(first));
        put_dis(dis("other", 1, "2026-11-24T12:00:00Z", "own"));
        start();
        run_until(both_are_told);
        assert_string_equal(ready_of(TRIGGERS_OF_N "late/status", "reason"), "Conflict");
        assert_memory_equal(ready_of(TRIGGERS_OF_N "late/status", "message"),
                            "spec.source.dis.appName: the Triggers n/late and n/first read stream orders as "
                            "the same app, shared: ",
                            100);
        assert_non_null(strstr(ready_of(TRIGGERS_OF_N "late/status", "message"), ": n/first came first"));
        assert_string_equal(ready_of(TRIGGERS_OF_N "first/status", "reason"), "WorkerStarting");
        assert_int_equal(count("PATCH", "/apis/apps/v1/namespaces/n/deployments/first-sluice"), 1);
        assert_false(the_late_one_runs());
        forget_calls();
        tell(TRIGGERS, "DELETED", first);
        json_decref(first);
        run_until(the_late_one_runs);
}

/* Whoever runs keeps what another, though older, comes to want. */
static void who_has_it_keeps_it(void **state UNUSED)
{
        json_t *edited = dis("late", 2, "2026-11-24T09:00:00Z", "shared");

        put_dis(dis("late", 1, "2026-11-24T09:00:00Z", "own"));
        put_dis(dis("first", 1, "2026-11-24T10:00:00Z", "shared"));
        start();
        run_until(both_are_told);
        assert_string_equal(ready_of(TRIGGERS_OF_N "late/status", "reason"), "WorkerStarting");
        forget_calls();
        tell(TRIGGERS, "MODIFIED", edited);
        json_decref(edited);
        run_until(the_late_one_is_told);
        assert_string_equal(ready_of(TRIGGERS_OF_N "late/status", "reason"), "Conflict");
        assert_false(the_late_one_runs());
}

static void members_of_another_version_are_no_matter(void **state UNUSED)
{
        put_trigger(trigger(1, "", "{\"timer\":{\"schedule\":\"1h\",\"newer\":{}}}"));
        start();
        run_until(status_written);
        assert_string_equal(condition("Ready", "reason"), "WorkerStarting");
        assert_int_equal(count("PATCH", DEPLOYMENT), 1);
}

static bool patched(void) { return count("PATCH", TRIGGER) > 0; }

/* A finalizer that is no longer needed, and one at the end of a Trigger that has nothing outside. */
static void a_finalizer_goes_when_nothing_is_outside(void **state UNUSED)
{
#define DELETED ",\"deletionTimestamp\":\"2026-01-01T00:00:00Z\""
        static const char *const cases[] = {
                ",\"finalizers\":[\"other/one\",\"sluice.dev/external-resources\"]",
                ",\"finalizers\":[\"other/one\",\"sluice.dev/external-resources\"]" DELETED,
                ",\"finalizers\":[\"other/one\",\"sluice.dev/outside\"]", /* an earlier controller's */
                ",\"finalizers\":[\"sluice.dev/outside\",\"other/one\"]" DELETED,
        };

        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                json_t *left;

                put_trigger(trigger(1, cases[i], TIMER));
                start();
                run_until(patched);
                left = json_object_get(json_object_get(last("PATCH", TRIGGER)->body, "metadata"),
                                       "finalizers");
                assert_int_equal(json_array_size(left), 1);
                assert_string_equal(json_string_value(json_array_get(left, 0)), "other/one");
                assert_string_equal(json_string_value(json_object_get(
                                            json_object_get(last("PATCH", TRIGGER)->body, "metadata"),
                                            "resourceVersion")),
                                    "11");
                assert_int_equal(b.seen_n, 1);
                (void)teardown(NULL);
                (void)setup(NULL);
        }
}

/* That of an earlier controller gives way to today's in one write, so that nothing is lost in between. */
static void a_former_finalizer_is_replaced(void **state UNUSED)
{
        json_t *left;

        put_trigger(trigger(1, ",\"finalizers\":[\"sluice.dev/outside\",\"other/one\"]",
                            "{\"smn\":{\"topicURN\":\"urn:smn:eu-west-101:p:orders\",\"subscription\":{"
                            "\"manage\":true,\"endpoint\":\"https://e.test/\"},\"cloud\":{\"credentials\":{"
                            "\"accessKeySecretRef\":{\"name\":\"c\",\"key\":\"a\"},\"secretKeySecretRef\":{"
                            "\"name\":\"c\",\"key\":\"s\"}}}}}"));
        start();
        run_until(patched);
        left = json_object_get(json_object_get(last("PATCH", TRIGGER)->body, "metadata"), "finalizers");
        assert_int_equal(json_array_size(left), 2);
        assert_string_equal(json_string_value(json_array_get(left, 0)), "other/one");
        assert_string_equal(json_string_value(json_array_get(left, 1)), "sluice.dev/external-resources");
        assert_int_equal(b.seen_n, 1);
}

static bool entry_removed(void)
{
        return last("PATCH", TRIGGER "/status") &&
               json_object_get(json_object_get(last("PATCH", TRIGGER "/status")->body, "status"), "workers");
}

static void an_earlier_triggers_worker_is_removed_from_the_status(void **state UNUSED)
{
        json_t *t = trigger(1, "", TIMER);

        (void)json_object_set_new(t, "status",
                                  json_loads("{\"workers\":[{\"pod\":\"p\",\"triggerUID\":\"before\","
                                             "\"observedGeneration\":1,\"sourceState\":\"Connected\"}]}",
                                             0, NULL));
        put_trigger(t);
        (void)put("/api/v1/pods", "/api/v1/namespaces/n/pods/p",
                  "{\"metadata\":{\"name\":\"p\",\"namespace\":\"n\",\"labels\":{\"app.kubernetes.io/"
                  "instance\":\"clock\"}}}",
                  0);
        start();
        run_until(status_written);
        assert_true(entry_removed());
        assert_int_equal(
                json_array_size(json_object_get(
                        json_object_get(last("PATCH", TRIGGER "/status")->body, "status"), "workers")),
                0);
        assert_int_equal(count("GET", "/api/v1/namespaces/n/pods/p"), 0); /* its pod may well be there */
}

static bool checkpoint_applied(void)
{
        return count("PATCH", "/api/v1/namespaces/n/configmaps/clock-checkpoint") > 0;
}

static void a_checkpoint_that_its_worker_misses_is_made_again(void **state UNUSED)
{
        json_t *t;

        put_trigger(trigger(1, "", TIMER));
        start();
        run_until(status_written);
        forget_calls();
        t = trigger(1, "", TIMER);
        (void)json_object_set_new(json_object_get(t, "metadata"), "resourceVersion", json_string("99"));
        (void)json_object_set_new(
                t, "status",
                json_loads(
                        "{\"workers\":[{\"pod\":\"p\",\"triggerUID\":\"u\",\"observedGeneration\":1,"
                        "\"sourceState\":\"Disconnected\","
                        "\"sourceMessage\":\"checkpoint ConfigMap n/clock-checkpoint: 404 NotFound: no\"}]}",
                        0, NULL));
        tell(TRIGGERS, "MODIFIED", t);
        json_decref(t);
        run_until(checkpoint_applied);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(each_child_is_looked_at_and_applied_in_order, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(what_is_somebody_elses_is_never_written, setup, teardown),
                cmocka_unit_test_setup_teardown(what_was_left_behind_is_taken_up, setup, teardown),
                cmocka_unit_test_setup_teardown(nothing_is_written_while_nothing_changes, setup, teardown),
                cmocka_unit_test_setup_teardown(a_service_goes_with_its_source_if_it_is_ours, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(leases_follow_the_slots, setup, teardown),
                cmocka_unit_test_setup_teardown(what_fails_is_told_and_tried_again, setup, teardown),
                cmocka_unit_test_setup_teardown(a_spec_that_is_wrong_says_where_and_changes_nothing, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(of_two_that_clash_the_later_waits, setup, teardown),
                cmocka_unit_test_setup_teardown(who_has_it_keeps_it, setup, teardown),
                cmocka_unit_test_setup_teardown(members_of_another_version_are_no_matter, setup, teardown),
                cmocka_unit_test_setup_teardown(a_finalizer_goes_when_nothing_is_outside, setup, teardown),
                cmocka_unit_test_setup_teardown(a_former_finalizer_is_replaced, setup, teardown),
                cmocka_unit_test_setup_teardown(an_earlier_triggers_worker_is_removed_from_the_status, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(a_checkpoint_that_its_worker_misses_is_made_again, setup,
                                                teardown),
        };
        signals_block();
        return cmocka_run_group_tests_name("reconcile", tests, NULL, NULL);
}
