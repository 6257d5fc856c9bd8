/* The REST client, the reflector, the checkpoint and the report, against a server that follows a script. */
#include "kube/client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "http/server/server.h"
#include "kube/checkpoint.h"
#include "kube/events.h"
#include "kube/leases.h"
#include "kube/reflector.h"
#include "kube/report.h"

enum { STEPS = 24 };
/* path: what it must contain */
struct step {
        const char *method, *path;
        int status;
        const char *body;
};

static struct {
        struct loop *loop;
        struct http_server *server;
        struct kube_client *client;
        struct kube_config config;
        char url[64];
        const struct step *script;
        size_t steps, at;
        struct buf requests[STEPS]; /* bodies */
        struct task watchdog;
        bool overdue;
} e;

static void handle(void *cookie UNUSED, struct http_call *call)
{
        const struct http_message *m = http_call_message(call);
        const struct step *s = &e.script[e.at];
        BUF_AT_END struct buf target = BUF_INIT(65536);

        if (e.at == e.steps)
                fail_msg("an unexpected request: %s " STR_FMT, http_method_name(m),
                         STR_ARG(buf_view(&m->target)));
        buf_str(&target, buf_view(&m->target));
        if (strcmp(http_method_name(m), s->method) != 0 || !strstr(target.p, s->path))
                fail_msg("step %zu: %s %s instead of %s %s", e.at, http_method_name(m), target.p, s->method,
                         s->path);
        buf_reset(&e.requests[e.at]);
        buf_str(&e.requests[e.at], buf_view(&m->body));
        e.at++;
        http_call_reply(call, s->status, STR("application/json"), (struct str){ 0 }, str_of(s->body));
}

static void too_late(struct task *t UNUSED, usec now UNUSED)
{
        e.overdue = true;
        loop_stop(e.loop);
}

static void run(void)
{
        loop_arm(e.loop, &e.watchdog, clock_monotonic(&system_clock) + 20 * USEC_SEC);
        loop_run(e.loop);
        loop_forget(e.loop, &e.watchdog);
        if (e.overdue)
                fail_msg("nothing more happens after step %zu of %zu", e.at, e.steps);
}

static void open_script(const struct step *script, size_t steps)
{
        struct http_server_config config = {
                .address = "127.0.0.1:0", .head_max = 65536, .body_max = 1 << 20, .handle = handle
        };
        struct error err;

        memset(&e, 0, sizeof(e));
        for (size_t i = 0; i < STEPS; i++)
                e.requests[i].max = 1 << 20;
        e.script = script;
        e.steps = steps;
        e.watchdog.turn = too_late;
        assert_int_equal(loop_new(&e.loop, &err), 0);
        assert_int_equal(http_server_new(&e.server, e.loop, &config, &err), 0);
        (void)snprintf(e.url, sizeof(e.url), "http://127.0.0.1:%u", http_server_port(e.server));
        e.config = (struct kube_config){ .server = e.url };
        assert_int_equal(kube_client_new(&e.client, e.loop, &e.config, &err), 0);
}

static void close_script(void)
{
        e.client = kube_client_free(e.client);
        e.server = http_server_free(e.server);
        e.loop = loop_free(e.loop);
        for (size_t i = 0; i < STEPS; i++)
                buf_done(&e.requests[i]);
        assert_int_equal(e.at, e.steps);
}

/* ---- calls -------------------------------------------------------------- */

static struct error seen_error;
static bool seen_failed;

static void on_answer(void *cookie UNUSED, const struct kube_answer *a)
{
        seen_failed = a->failed;
        if (a->failed)
                seen_error = a->error;
        loop_stop(e.loop);
}

static void failures_have_kinds_and_words(void **state UNUSED)
{
        static const struct {
                struct step step;
                enum error_kind kind;
                bool retry;
                const char *words;
        } cases[] = {
                ROW({ "GET", "/x", 403, "{\"kind\":\"Status\",\"reason\":\"Forbidden\",\"message\":\"no\"}" },
                    ERROR_FORBIDDEN, false, "get x: 403 Forbidden: no"),
                ROW({ "GET", "/x", 404, "{\"reason\":\"NotFound\",\"message\":\"gone\"}" }, ERROR_NOT_FOUND,
                    false, "404 NotFound: gone"),
                ROW({ "GET", "/x", 409, "{\"reason\":\"AlreadyExists\"}" }, ERROR_EXISTS, true,
                    "409 AlreadyExists"),
                ROW({ "GET", "/x", 409, "{\"reason\":\"Conflict\"}" }, ERROR_CONFLICT, true, "409 Conflict"),
                ROW({ "GET", "/x", 410, "{\"reason\":\"Expired\"}" }, ERROR_GONE, true, "410 Expired"),
                ROW({ "GET", "/x", 422, "{\"reason\":\"Invalid\"}" }, ERROR_INVALID, false, "422 Invalid"),
                ROW({ "GET", "/x", 500, "not JSON" }, ERROR_REFUSED, true, "get x: 500"),
                ROW({ "GET", "/x", 429,
                      "{\"reason\":\"TooManyRequests\",\"details\":{\"retryAfterSeconds\":7}}" },
                    ERROR_REFUSED, true, "429"),
        };

        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                open_script(&cases[i].step, 1);
                (void)kube_send(e.client,
                                &(struct kube_request){
                                        .method = "GET", .path = "/x", .what = "get x", .done = on_answer });
                run();
                assert_true(seen_failed);
                assert_int_equal(seen_error.kind, cases[i].kind);
                assert_int_equal(seen_error.retry, cases[i].retry);
                assert_non_null(strstr(seen_error.text, cases[i].words));
                assert_int_equal(seen_error.retry_after, cases[i].step.status == 429 ? 7 * USEC_SEC : 0);
                close_script();
        }
}

static void no_server_is_unreachable(void **state UNUSED)
{
        open_script(NULL, 0);
        e.server = http_server_free(e.server);
        (void)kube_send(
                e.client,
                &(struct kube_request){ .method = "GET", .path = "/x", .what = "get x", .done = on_answer });
        run();
        assert_true(seen_failed && seen_error.retry);
        assert_int_equal(seen_error.kind, ERROR_UNREACHABLE);
        close_script();
}

/* ---- the reflector ------------------------------------------------------ */

#define OBJECT(name, version)                                                                                \
        "{\"metadata\":{\"namespace\":\"n\",\"name\":\"" name "\",\"resourceVersion\":\"" version            \
        "\",\"managedFields\":[1]}}"
#define EVENT(type, object) "{\"type\":\"" type "\",\"object\":" object "}\n"

static struct buf told;
static struct {
        const char *until;
} wanted;

static void on_change(void *cookie UNUSED, const char *namespace_, const char *name, json_t *before,
                      json_t *object)
{
        json_t *metadata = json_object_get(object ? object : before, "metadata");

        assert_string_equal(namespace_, "n");
        assert_null(json_object_get(metadata, "managedFields"));
        buf_printf(&told, "%s%s@%s ", object ? before ? "~" : "+" : "-", name,
                   json_string_value(json_object_get(metadata, "resourceVersion")));
        if (strstr(told.p, wanted.until))
                loop_stop(e.loop);
}

static void reflect(const struct step *script, size_t n, const char *until)
{
        struct reflector *r;
        struct error err;
        struct reflector_config config = {
                .path = "/things", .selector = "a=b", .what = "things", .changed = on_change
        };

        told = BUF_INIT(65536);
        wanted.until = until;
        open_script(script, n);
        config.client = e.client;
        assert_int_equal(reflector_new(&r, &config, &err), 0);
        run();
        assert_true(reflector_synced(r));
        (void)reflector_free(r);
        close_script();
}

static void lists_watches_and_resumes(void **state UNUSED)
{
        static const struct step script[] = {
                ROW("GET", "/things?resourceVersion=0&labelSelector=a%3Db", 200,
                    "{\"metadata\":{\"resourceVersion\":\"10\"},\"items\":[" OBJECT("a", "5") "," OBJECT(
                            "b", "6") "]}"),
                ROW("GET", "watch=true&allowWatchBookmarks=true", 200,
                    EVENT("ADDED", OBJECT("c", "11")) EVENT("MODIFIED", OBJECT("a", "12"))
                            EVENT("DELETED", OBJECT("b", "13"))
                                    EVENT("BOOKMARK", "{\"metadata\":{\"resourceVersion\":\"20\"}}")),
                ROW("GET", "resourceVersion=20", 200, EVENT("ADDED", OBJECT("d", "21"))),
        };

        reflect(script, COUNT_OF(script), "+d@21");
        assert_string_equal(told.p, "+a@5 +b@6 +c@11 ~a@12 -b@6 +d@21 ");
        buf_done(&told);
}

static void a_version_too_old_means_a_new_list_and_deletes_are_told(void **state UNUSED)
{
        static const struct step script[] = {
                ROW("GET", "/things?resourceVersion=0", 200,
                    "{\"metadata\":{\"resourceVersion\":\"10\"},\"items\":[" OBJECT("a", "5") "," OBJECT(
                            "b", "6") "]}"),
                ROW("GET", "watch=true", 200,
                    EVENT("ERROR", "{\"kind\":\"Status\",\"code\":410}") EVENT("ADDED", OBJECT("z", "99"))),
                ROW("GET", "/things?resourceVersion=&", 200,
                    "{\"metadata\":{\"resourceVersion\":\"30\"},\"items\":[" OBJECT("a", "5") "," OBJECT(
                            "c", "29") "]}"),
        };

        reflect(script, COUNT_OF(script), "-b@6");
        assert_string_equal(told.p, "+a@5 +b@6 +c@29 -b@6 ");
        buf_done(&told);
}

static void a_failing_list_is_tried_again(void **state UNUSED)
{
        static const struct step script[] = {
                ROW("GET", "/things?resourceVersion=0", 500, ""),
                ROW("GET", "/things?resourceVersion=0", 200, "{\"items\":7}"),
                ROW("GET", "/things?resourceVersion=0", 200,
                    "{\"metadata\":{\"resourceVersion\":\"1\"},\"items\":[" OBJECT("a", "1") "]}"),
        };

        told = BUF_INIT(1024);
        reflect(script, COUNT_OF(script), "+a@1");
        assert_string_equal(told.p, "+a@1 ");
        buf_done(&told);
}

static void lists_come_in_many_shapes(void **state UNUSED)
{
        static const struct step script[] = {
                ROW("GET", "/things?resourceVersion=0", 200,
                    "{\"metadata\":{\"resourceVersion\":\"9\"},\"items\":[" OBJECT("a", "5") ", 7]}"),
                ROW("GET", "/things?resourceVersion=0", 200,
                    " { \"items\" : [ " OBJECT("a", "5") " , " OBJECT(
                            "b", "6") " ] , \"kind\":\"List\", \"metadata\":{\"resourceVersion\":\"10\"}}\n"),
                ROW("GET", "watch=true", 200, EVENT("ERROR", "{\"kind\":\"Status\",\"code\":410}")),
                ROW("GET", "/things?resourceVersion=&", 200,
                    "{\"metadata\":{\"resourceVersion\":\"30\"},\"items\":null}"),
        };

        reflect(script, COUNT_OF(script), "-b@6");
        /* what a broken list told counts, but drops nothing */
        assert_string_equal(told.p, "+a@5 +b@6 -a@5 -b@6 ");
        buf_done(&told);
}

/* ---- the checkpoint ----------------------------------------------------- */

/* Values of a checkpoint: as a source gives them, and as they are kept, in JSON's words. */
#define WRITER "me0123456789abcd"
#define VALUE(v) "{\"v\":" v "}"
#define KEPT(v, writer) "\"{\\\"v\\\":" v ",\\\"writer\\\":\\\"" writer "\\\"}\""
#define OURS(v) KEPT(v, WRITER)
#define BEFORE(v) KEPT(v, "before0123456789")
#define THEIRS(v) KEPT(v, "other01234567890")

static struct store store;
static struct buf outcome;
static size_t outcomes, expected_outcomes;

static struct list done;
static struct store_request asked[10];
static bool is_get[10];

static struct store_request *numbered(size_t number, struct task *wake)
{
        asked[number].request.wake = wake;
        asked[number].request.done = &done;
        return &asked[number];
}

static void on_store(struct task *t UNUSED, usec now UNUSED)
{
        for (struct request *r; (r = request_next(&done));) {
                struct store_request *q = CONTAINER_OF(r, struct store_request, request);
                int number = (int)(q - asked);

                if (request_failed(r))
                        buf_printf(&outcome, "%d!%s ", number, error_kind_name(r->error.kind));
                else if (is_get[number])
                        buf_printf(&outcome, "%d=" STR_FMT " ", number,
                                   STR_ARG(q->found ? buf_view(&q->value) : STR("none")));
                else
                        buf_printf(&outcome, "%d ", number);
                outcomes++;
        }
        if (outcomes >= expected_outcomes)
                loop_stop(e.loop);
}

static void get(size_t number, struct task *wake, struct str key)
{
        is_get[number] = true;
        store_get(&store, numbered(number, wake), key);
}

static void put(size_t number, struct task *wake, struct str key, struct str value)
{
        is_get[number] = false;
        store_put(&store, numbered(number, wake), key, value);
}

static void release_all(void)
{
        for (size_t i = 0; i < COUNT_OF(asked); i++)
                store_release(&store, &asked[i]);
}

#define MAP(version, data) "{\"metadata\":{\"resourceVersion\":\"" version "\"},\"data\":" data "}"

static struct kube_checkpoint *open_checkpoint(const struct step *script, size_t n, struct task *wake)
{
        struct kube_checkpoint *c;
        struct error err;

        *wake = (struct task){ .turn = on_store };
        outcome = BUF_INIT(4096);
        outcomes = 0;
        open_script(script, n);
        assert_int_equal(kube_checkpoint_new(&c, e.client,
                                             &(struct kube_checkpoint_config){ .namespace_ = "n",
                                                                               .name = "t-checkpoint",
                                                                               .owner = "u",
                                                                               .writer = WRITER },
                                             &err),
                         0);
        store = kube_checkpoint_port(c);
        return c;
}

static void close_checkpoint(struct kube_checkpoint *c, struct task *wake)
{
        release_all();
        (void)kube_checkpoint_free(c);
        loop_forget(e.loop, wake);
        close_script();
        buf_done(&outcome);
}

static void positions_are_read_and_written_with_their_version(void **state UNUSED)
{
        static const struct step script[] = {
                ROW("GET", "/api/v1/namespaces/n/configmaps/t-checkpoint", 200,
                    MAP("1", "{\"timer\":" BEFORE("0") "}")),
                ROW("PATCH", "t-checkpoint", 200, MAP("2", "{}")),
                /* a label was changed */
                ROW("PATCH", "t-checkpoint", 409, "{\"reason\":\"Conflict\"}"),
                ROW("GET", "t-checkpoint", 200, MAP("7", "{\"timer\":" OURS("1") "}")),
                ROW("PATCH", "t-checkpoint", 200, MAP("8", "{}")),
        };
        struct task wake;
        struct kube_checkpoint *c = open_checkpoint(script, COUNT_OF(script), &wake);

        expected_outcomes = 2;
        get(1, &wake, STR("timer"));
        get(2, &wake, STR("a/b"));
        run();
        assert_string_equal(outcome.p, "1=" VALUE("0") " 2=none ");
        expected_outcomes = 3;
        put(3, &wake, STR("timer"), STR(VALUE("1")));
        run();
        assert_string_equal(e.requests[1].p,
                            "{\"metadata\":{\"resourceVersion\":\"1\"},\"data\":{\"timer\":" OURS("1") "}}");
        expected_outcomes = 5;
        put(4, &wake, STR("timer"), STR(VALUE("2")));
        put(5, &wake, STR("timer"), STR(VALUE("3")));
        run();
        assert_string_equal(outcome.p, "1=" VALUE("0") " 2=none 3 4 5 ");
        assert_non_null(
                strstr(e.requests[4].p, "{\"resourceVersion\":\"7\"},\"data\":{\"timer\":" OURS("3") "}"));
        close_checkpoint(c, &wake);
}

static void a_second_writer_loses(void **state UNUSED)
{
        static const struct step script[] = {
                { "GET", "t-checkpoint", 200, MAP("1", "{\"timer\":" BEFORE("0") "}") },
                { "PATCH", "t-checkpoint", 409, "{\"reason\":\"Conflict\"}" },
                { "GET", "t-checkpoint", 200, MAP("2", "{\"timer\":" THEIRS("9") "}") },
        };
        struct task wake;
        struct kube_checkpoint *c = open_checkpoint(script, COUNT_OF(script), &wake);

        expected_outcomes = 1;
        get(1, &wake, STR("timer"));
        run();
        expected_outcomes = 2;
        put(2, &wake, STR("timer"), STR(VALUE("8")));
        run();
        assert_string_equal(outcome.p, "1=" VALUE("0") " 2!Conflict ");
        close_checkpoint(c, &wake);
}

/* What another process wrote is not taken for ours because it says the same. */
static void the_same_claim_of_another_writer_is_not_ours(void **state UNUSED)
{
        static const struct step script[] = {
                { "GET", "t-checkpoint", 200, MAP("1", "{\"timer\":" BEFORE("0") "}") },
                { "PATCH", "t-checkpoint", 409, "{\"reason\":\"Conflict\"}" },
                { "GET", "t-checkpoint", 200, MAP("2", "{\"timer\":" THEIRS("7") "}") },
                { "PATCH", "t-checkpoint", 200, MAP("3", "{}") },
        };
        struct task wake;
        struct kube_checkpoint *c = open_checkpoint(script, COUNT_OF(script), &wake);

        expected_outcomes = 1;
        get(1, &wake, STR("timer"));
        run();
        expected_outcomes = 2;
        put(2, &wake, STR("timer"), STR(VALUE("7")));
        run();
        assert_string_equal(outcome.p, "1=" VALUE("0") " 2!Conflict ");
        expected_outcomes = 3; /* what the other wrote is known now: it may be replaced */
        put(3, &wake, STR("timer"), STR(VALUE("8")));
        run();
        assert_string_equal(outcome.p, "1=" VALUE("0") " 2!Conflict 3 ");
        close_checkpoint(c, &wake);
}

static void the_writer_before_may_still_be_at_work(void **state UNUSED)
{
        static const struct step script[] = {
                { "GET", "t-checkpoint", 200, MAP("1", "{\"timer\":" BEFORE("0") "}") },
                { "PATCH", "t-checkpoint", 409, "{\"reason\":\"Conflict\"}" },
                { "GET", "t-checkpoint", 200, MAP("2", "{\"timer\":" BEFORE("5") "}") },
        };
        struct task wake;
        struct kube_checkpoint *c = open_checkpoint(script, COUNT_OF(script), &wake);

        expected_outcomes = 1;
        get(1, &wake, STR("timer"));
        run();
        expected_outcomes = 2;
        put(2, &wake, STR("timer"), STR(VALUE("5")));
        run();
        assert_string_equal(outcome.p, "1=" VALUE("0") " 2!Conflict ");
        close_checkpoint(c, &wake);
}

static void one_that_was_made_again_gets_back_what_is_known(void **state UNUSED)
{
        static const struct step script[] = {
                { "GET", "t-checkpoint", 200, MAP("1", "{\"timer\":" BEFORE("0") ",\"kept\":\"x\"}") },
                { "PATCH", "t-checkpoint", 200, MAP("2", "{}") },
                { "PATCH", "t-checkpoint", 404, "{\"reason\":\"NotFound\"}" },
                { "GET", "t-checkpoint", 200, "{\"metadata\":{\"resourceVersion\":\"9\"}}" },
                { "PATCH", "t-checkpoint", 200, MAP("10", "{}") },
                /* and once more, while a write is under way */
                { "PATCH", "t-checkpoint", 409, "{\"reason\":\"Conflict\"}" },
                { "GET", "t-checkpoint", 200, "{\"metadata\":{\"resourceVersion\":\"20\"}}" },
                { "PATCH", "t-checkpoint", 200, MAP("21", "{}") },
        };
        struct task wake;
        struct kube_checkpoint *c = open_checkpoint(script, COUNT_OF(script), &wake);

        expected_outcomes = 1;
        get(1, &wake, STR("timer"));
        run();
        for (uint64_t i = 2; i <= 5; i++) {
                char value[] = VALUE("0");

                value[5] = (char)('0' + i);
                expected_outcomes = i;
                put(i, &wake, STR("timer"), str_of(value));
                run();
        }
        assert_string_equal(outcome.p, "1=" VALUE("0") " 2 3!NotFound 4 5 ");
        assert_non_null(strstr(e.requests[4].p, "\"timer\":" OURS("4")));
        assert_non_null(strstr(e.requests[4].p, "\"kept\":\"x\""));
        assert_non_null(strstr(e.requests[7].p, "\"timer\":" OURS("5")));
        assert_non_null(strstr(e.requests[7].p, "\"kept\":\"x\""));
        close_checkpoint(c, &wake);
}

static void that_of_another_trigger_is_left_alone(void **state UNUSED)
{
        static const struct step script[] = {
                ROW("GET", "t-checkpoint", 200,
                    "{\"metadata\":{\"resourceVersion\":\"1\",\"ownerReferences\":[{\"kind\":\"Trigger\","
                    "\"name\":\"t\",\"uid\":\"successor\"}]}}"),
                ROW("GET", "t-checkpoint", 200,
                    "{\"metadata\":{\"resourceVersion\":\"2\",\"ownerReferences\":[{\"kind\":\"Trigger\","
                    "\"name\":\"t\",\"uid\":\"u\"}]}}"),
                ROW("PATCH", "t-checkpoint", 200, MAP("3", "{}")),
        };
        struct task wake;
        struct kube_checkpoint *c = open_checkpoint(script, COUNT_OF(script), &wake);

        expected_outcomes = 1;
        put(1, &wake, STR("timer"), STR(VALUE("6")));
        run();
        expected_outcomes = 2;
        put(2, &wake, STR("timer"), STR(VALUE("6")));
        run();
        assert_string_equal(outcome.p, "1!Conflict 2 ");
        close_checkpoint(c, &wake);
}

static void a_write_whose_fate_is_unknown_is_recognised(void **state UNUSED)
{
        static const struct step script[] = {
                { "GET", "t-checkpoint", 200, MAP("1", "{}") },
                /* it was written all the same */
                { "PATCH", "t-checkpoint", 500, "" },
                { "GET", "t-checkpoint", 200, MAP("2", "{\"timer\":" OURS("1") "}") },
                { "PATCH", "t-checkpoint", 200, MAP("3", "{}") },
        };
        struct task wake;
        struct kube_checkpoint *c = open_checkpoint(script, COUNT_OF(script), &wake);

        expected_outcomes = 1;
        get(1, &wake, STR("timer"));
        run();
        expected_outcomes = 2;
        put(2, &wake, STR("timer"), STR(VALUE("1")));
        run();
        expected_outcomes = 3;
        put(3, &wake, STR("timer"), STR(VALUE("2")));
        run();
        assert_string_equal(outcome.p, "1=none 2!Refused 3 ");
        close_checkpoint(c, &wake);
}

static void writes_that_wait_become_one_and_end_in_order(void **state UNUSED)
{
        static const struct step script[] = {
                { "GET", "t-checkpoint", 200, MAP("1", "{\"kept\":\"x\"}") },
                { "PATCH", "t-checkpoint", 200, MAP("2", "{}") },
                { "PATCH", "t-checkpoint", 200, MAP("3", "{}") },
        };
        struct task wake;
        struct kube_checkpoint *c = open_checkpoint(script, COUNT_OF(script), &wake);

        expected_outcomes = 1;
        get(1, &wake, STR("a"));
        run();
        put(2, &wake, STR("a"), STR(VALUE("1"))); /* on its way; the others wait for it */
        put(3, &wake, STR("a"), STR(VALUE("2")));
        put(4, &wake, STR("b"), STR(VALUE("\"q\"")));
        put(5, &wake, STR("a"), STR(VALUE("3")));
        expected_outcomes = 5;
        run();
        assert_string_equal(outcome.p, "1=none 2 3 4 5 ");
        assert_string_equal(e.requests[1].p,
                            "{\"metadata\":{\"resourceVersion\":\"1\"},\"data\":{\"a\":" OURS("1") "}}");
        assert_string_equal(e.requests[2].p,
                            "{\"metadata\":{\"resourceVersion\":\"2\"},\"data\":{\"a\":" OURS(
                                    "3") ",\"b\":" OURS("\\\"q\\\"") "}}");
        close_checkpoint(c, &wake);
}

static void a_checkpoint_that_is_missing_is_named(void **state UNUSED)
{
        static const struct step script[] = { ROW(
                "GET", "t-checkpoint", 404,
                "{\"reason\":\"NotFound\",\"message\":\"configmaps \\\"t-checkpoint\\\" not found\"}") };
        struct task wake;
        struct kube_checkpoint *c = open_checkpoint(script, COUNT_OF(script), &wake);

        put(1, &wake, STR("a"), STR(VALUE("1")));
        get(2, &wake, STR("a"));
        expected_outcomes = 2;
        run();
        assert_string_equal(outcome.p, "2!NotFound 1!NotFound ");
        close_checkpoint(c, &wake);
}

/* ---- the report --------------------------------------------------------- */

static const struct kube_report_config reporter = { .api_version = "example.com/v1",
                                                    .kind = "Thing",
                                                    .resource = "things",
                                                    .namespace_ = "n",
                                                    .name = "t",
                                                    .uid = "u",
                                                    .pod = "p",
                                                    .manager = "manager-p" };

static void on_quiet(struct task *t UNUSED, usec now UNUSED) { loop_stop(e.loop); }

static void a_state_is_told_once_and_times_wait(void **state UNUSED)
{
        static const struct step script[] = {
                ROW("PATCH",
                    "/apis/example.com/v1/namespaces/n/things/t/status?fieldManager=manager-p&force=true",
                    500, ""),
                ROW("PATCH", "/status", 200, "{}"),
                ROW("PATCH", "/status", 200, "{}"),
        };
        struct worker_status s = { .observed_generation = 3, .lag = -1, .last_event_time = 5 * USEC_SEC };
        char connecting[] = "Connecting", connected[] = "Connected", delivering[] = "Delivering";
        struct task quiet = { .turn = on_quiet };
        struct kube_report *r;
        struct error err;

        open_script(script, COUNT_OF(script));
        assert_int_equal(kube_report_new(&r, e.client, &reporter, &err), 0);
        s.source_state = connecting;
        s.delivery_state = delivering;
        kube_report_set(r, &s);
        /* the first write fails and is made again */
        loop_arm(e.loop, &quiet, clock_monotonic(&system_clock) + 3 * USEC_SEC);
        run();
        assert_int_equal(e.at, 2);
        assert_non_null(strstr(e.requests[1].p, "\"workers\":[{\"pod\":\"p\",\"triggerUID\":\"u\","
                                                "\"observedGeneration\":3,\"sourceState\":\"Connecting\""));
        kube_report_set(r, &s);
        s.last_event_time += 30 * USEC_SEC; /* times alone wait for their minute */
        s.oldest_pending_time = 7 * USEC_SEC;
        kube_report_set(r, &s);
        loop_arm(e.loop, &quiet, clock_monotonic(&system_clock) + 1500 * USEC_MSEC);
        run();
        assert_int_equal(e.at, 2);
        s.source_state = connected;
        kube_report_set(r, &s);
        loop_arm(e.loop, &quiet, clock_monotonic(&system_clock) + 500 * USEC_MSEC);
        run();
        assert_non_null(strstr(e.requests[2].p, "\"sourceState\":\"Connected\""));
        (void)kube_report_free(r);
        loop_forget(e.loop, &quiet);
        close_script();
}

static void many_changes_are_few_writes(void **state UNUSED)
{
        static const struct step script[] = { { "PATCH", "/status", 200, "{}" },
                                              { "PATCH", "/status", 200, "{}" } };
        struct worker_status s = { .observed_generation = 1, .lag = -1 };
        char state_name[] = "Connected", delivery[] = "Retrying", message[32];
        struct task quiet = { .turn = on_quiet };
        struct kube_report *r;
        struct error err;

        open_script(script, COUNT_OF(script));
        assert_int_equal(kube_report_new(&r, e.client, &reporter, &err), 0);
        s.source_state = state_name;
        s.delivery_state = delivery;
        s.delivery_message = message;
        for (int i = 0; i < 500; i++) {
                (void)snprintf(message, sizeof(message), "attempt %d", i);
                kube_report_set(r, &s);
                if (i % 100 == 0) {
                        loop_arm(e.loop, &quiet, clock_monotonic(&system_clock) + 20 * USEC_MSEC);
                        run();
                }
        }
        assert_int_equal(e.at, 1);
        assert_non_null(strstr(e.requests[0].p, "attempt 0"));
        loop_arm(e.loop, &quiet, clock_monotonic(&system_clock) + 1500 * USEC_MSEC);
        run();
        assert_non_null(strstr(e.requests[1].p, "attempt 499"));
        /* Back and forth within the second is no change. */
        (void)snprintf(message, sizeof(message), "other");
        kube_report_set(r, &s);
        (void)snprintf(message, sizeof(message), "attempt 499");
        kube_report_set(r, &s);
        loop_arm(e.loop, &quiet, clock_monotonic(&system_clock) + 1500 * USEC_MSEC);
        run();
        (void)kube_report_free(r);
        loop_forget(e.loop, &quiet);
        close_script();
}

/* ---- Leases ------------------------------------------------------------- */

#define LEASES "/apis/coordination.k8s.io/v1/namespaces/n/leases/t-sluice-"
#define LEASE(version, more) "{\"metadata\":{\"resourceVersion\":\"" version "\"" more "}"

static struct claims claims;
static enum claim_state stand;

static void on_claim(struct task *t UNUSED, usec now UNUSED)
{
        struct claim c;

        claims.ops->look(claims.cookie, 0, &c);
        if (c.state == stand && (stand != CLAIM_WAITING || claims.ops->stopped(claims.cookie)))
                loop_stop(e.loop);
}

static const char *at_path(size_t request, const char *object, const char *member)
{
        static char text[128];
        json_t *root = json_loadb(e.requests[request].p, e.requests[request].n, 0, NULL);
        json_t *value = json_object_get(json_object_get(root, object), member);

        assert_non_null(root);
        (void)snprintf(text, sizeof(text), "%s",
                       json_is_integer(value)  ? "number"
                       : json_is_string(value) ? json_string_value(value)
                                               : "");
        json_decref(root);
        return text;
}

static void a_lease_is_taken_upon_its_version_and_given_back(void **state UNUSED)
{
        static const struct step script[] = {
                { "GET", LEASES "0", 200, LEASE("5", "") "}" },
                { "PATCH", LEASES "0", 409, "{\"reason\":\"Conflict\"}" },
                { "GET", LEASES "0", 200, LEASE("6", "") "}" },
                { "PATCH", LEASES "0", 200,
                  LEASE("7", "") ",\"spec\":{\"holderIdentity\":\"p\",\"renewTime\":\"x\","
                                 "\"leaseDurationSeconds\":15,\"leaseTransitions\":1}}" },
                { "PATCH", LEASES "0", 200, LEASE("8", "") ",\"spec\":{\"holderIdentity\":\"\"}}" },
        };
        struct task wake = { .turn = on_claim };
        struct kube_leases *l;
        struct error err;

        open_script(script, COUNT_OF(script));
        assert_int_equal(kube_leases_new(&l, e.client,
                                         &(struct kube_leases_config){ .namespace_ = "n",
                                                                       .name = "t-sluice",
                                                                       .me = "p",
                                                                       .waits = "example.com/waits",
                                                                       .number = "example.com/slots",
                                                                       .since = "example.com/since",
                                                                       .slots = 1,
                                                                       .seed = 1,
                                                                       .wake = &wake },
                                         &err),
                         0);
        claims = kube_leases_port(l);
        stand = CLAIM_HELD;
        run();
        assert_int_equal(e.at, 4);
        assert_string_equal(at_path(1, "metadata", "resourceVersion"), "5");
        assert_string_equal(at_path(3, "metadata", "resourceVersion"), "6");
        assert_string_equal(at_path(3, "spec", "holderIdentity"), "p");
        assert_string_equal(at_path(3, "spec", "leaseDurationSeconds"), "number");
        assert_int_equal(strlen(at_path(3, "spec", "renewTime")), strlen("2026-01-02T03:04:05.000000Z"));
        assert_int_equal(strlen(at_path(3, "spec", "acquireTime")), strlen("2026-01-02T03:04:05.000000Z"));
        stand = CLAIM_LEAVING;
        claims.ops->stop(claims.cookie);
        run();
        stand = CLAIM_WAITING;
        claims.ops->release(claims.cookie, 0);
        run();
        assert_string_equal(at_path(4, "metadata", "resourceVersion"), "7");
        assert_string_equal(at_path(4, "spec", "holderIdentity"), "");
        assert_null(strstr(e.requests[4].p, "acquireTime"));
        assert_non_null(strstr(e.requests[4].p, "\"example.com/waits\":null"));
        (void)kube_leases_free(l);
        loop_forget(e.loop, &wake);
        close_script();
}

static struct kube_leases *open_leases(struct task *wake, uint32_t slots, int64_t generation)
{
        const struct kube_leases_config config = { .namespace_ = "n",
                                                   .name = "t-sluice",
                                                   .me = "p",
                                                   .waits = "example.com/waits",
                                                   .number = "example.com/slots",
                                                   .since = "example.com/since",
                                                   .slots = slots,
                                                   .generation = generation,
                                                   .wake = wake };
        struct kube_leases *l;
        struct error err;

        if (kube_leases_new(&l, e.client, &config, &err) < 0)
                fail_msg("%s", err.text);
        return l;
}

static void a_lease_says_how_many_there_are(void **state UNUSED)
{
        static const struct step script[] = {
                { "GET", LEASES "0", 200,
                  "{\"metadata\":{\"resourceVersion\":\"5\",\"annotations\":{\"example.com/slots\":\"2\","
                  "\"example.com/since\":\"8\"}}}" },
        };
        struct task wake = { .turn = on_quiet }, quiet = { .turn = on_quiet };
        struct kube_leases *l;
        struct claim c;

        open_script(script, COUNT_OF(script));
        l = open_leases(&wake, 1, 7);
        claims = kube_leases_port(l);
        do {
                loop_arm(e.loop, &quiet, clock_monotonic(&system_clock) + 10 * USEC_MSEC);
                run();
                claims.ops->look(claims.cookie, 0, &c);
        } while (e.at < 1 || !c.failed);
        assert_string_equal(
                c.why, "the number of slots is 2 since generation 8, and this worker has 1, of generation "
                       "7: it reads nothing more, and its pod can be deleted");
        (void)kube_leases_free(l);
        loop_forget(e.loop, &wake);
        loop_forget(e.loop, &quiet);
        close_script();
}

static void a_lease_that_is_missing_or_forbidden_is_named(void **state UNUSED)
{
        static const struct step script[] = {
                { "GET", LEASES "0", 404, "{\"reason\":\"NotFound\",\"message\":\"not found\"}" },
                { "GET", LEASES "1", 403, "{\"reason\":\"Forbidden\",\"message\":\"no\"}" },
        };
        struct task wake = { .turn = on_quiet }, quiet = { .turn = on_quiet };
        struct kube_leases *l;
        struct claim c;

        open_script(script, COUNT_OF(script));
        l = open_leases(&wake, 2, 0);
        claims = kube_leases_port(l);
        do {
                loop_arm(e.loop, &quiet, clock_monotonic(&system_clock) + 10 * USEC_MSEC);
                run();
                claims.ops->look(claims.cookie, 1, &c);
        } while (e.at < 2 || !c.failed);
        assert_int_equal(c.state, CLAIM_WAITING);
        assert_non_null(strstr(c.why, "Lease n/t-sluice-"));
        (void)kube_leases_free(l);
        loop_forget(e.loop, &wake);
        loop_forget(e.loop, &quiet);
        close_script();
}

/* ---- events ------------------------------------------------------------- */

/* Until so many requests came, and a moment longer. */
static void run_to(size_t requests, struct task *quiet)
{
        do {
                loop_arm(e.loop, quiet, clock_monotonic(&system_clock) + 10 * USEC_MSEC);
                run();
        } while (e.at < requests);
}

static void an_event_that_comes_again_is_not_written_again(void **state UNUSED)
{
        static const struct step script[] = {
                { "POST", "/apis/events.k8s.io/v1/namespaces/n/events", 201, "{}" },
                /* holds nothing up */
                { "POST", "/apis/events.k8s.io/v1/namespaces/n/events", 403, "{\"reason\":\"Forbidden\"}" },
                { "POST", "/apis/events.k8s.io/v1/namespaces/n/events", 201, "{}" },
                { "POST", "/apis/events.k8s.io/v1/namespaces/n/events", 201, "{}" },
        };
        struct event_object o = { .api_version = "sluice.dev/v1alpha1",
                                  .kind = "Trigger",
                                  .namespace_ = "n",
                                  .name = "t",
                                  .uid = "u" };
        struct task quiet = { .turn = on_quiet };
        char note[2001];
        struct recorder *r;
        struct error err;
        const char *names[4];
        json_t *bodies[4];

        memset(note, 'x', 2000);
        memcpy(note + 999, "\xc3\xa9", 2); /* a letter across the limit */
        note[2000] = 0;
        open_script(script, COUNT_OF(script));
        assert_int_equal(recorder_new(&r, e.client, "sluice.dev/controller", "pod", &err), 0);
        for (int i = 0; i < 100; i++)
                recorder_event(r, &o, "Warning", "ServiceNotFound", "Reconcile", "no f");
        run_to(1, &quiet);
        recorder_event(r, &o, "Warning", "ServiceNotFound", "Reconcile", "no g");
        run_to(2, &quiet);
        o.name = "t2";
        o.uid = "u2";
        recorder_event(r, &o, "Warning", "ServiceNotFound", "Reconcile", "no f");
        run_to(3, &quiet);
        recorder_event(r, &o, "Normal", "Long", "Reconcile", note);
        run_to(4, &quiet);
        for (size_t i = 0; i < COUNT_OF(bodies); i++) {
                bodies[i] = json_loadb(e.requests[i].p, e.requests[i].n, 0, NULL);
                assert_non_null(bodies[i]);
                names[i] = json_string_value(json_object_get(json_object_get(bodies[i], "metadata"), "name"));
                assert_non_null(names[i]);
                assert_string_equal(json_string_value(json_object_get(bodies[i], "reportingInstance")),
                                    "pod");
        }
        assert_string_not_equal(names[0], names[1]);
        assert_memory_equal(names[2], "t2.", 3);
        assert_string_equal(json_string_value(json_object_get(bodies[0], "note")), "no f");
        assert_string_equal(
                json_string_value(json_object_get(json_object_get(bodies[2], "regarding"), "uid")), "u2");
        /* what the API server takes */
        assert_true(strlen(json_string_value(json_object_get(bodies[3], "note"))) <= 1024);
        for (size_t i = 0; i < COUNT_OF(bodies); i++)
                json_decref(bodies[i]);
        (void)recorder_free(r);
        loop_forget(e.loop, &quiet);
        close_script();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(failures_have_kinds_and_words),
                cmocka_unit_test(no_server_is_unreachable),
                cmocka_unit_test(lists_watches_and_resumes),
                cmocka_unit_test(a_version_too_old_means_a_new_list_and_deletes_are_told),
                cmocka_unit_test(a_failing_list_is_tried_again),
                cmocka_unit_test(lists_come_in_many_shapes),
                cmocka_unit_test(positions_are_read_and_written_with_their_version),
                cmocka_unit_test(a_second_writer_loses),
                cmocka_unit_test(the_same_claim_of_another_writer_is_not_ours),
                cmocka_unit_test(the_writer_before_may_still_be_at_work),
                cmocka_unit_test(one_that_was_made_again_gets_back_what_is_known),
                cmocka_unit_test(that_of_another_trigger_is_left_alone),
                cmocka_unit_test(a_write_whose_fate_is_unknown_is_recognised),
                cmocka_unit_test(writes_that_wait_become_one_and_end_in_order),
                cmocka_unit_test(a_checkpoint_that_is_missing_is_named),
                cmocka_unit_test(a_state_is_told_once_and_times_wait),
                cmocka_unit_test(many_changes_are_few_writes),
                cmocka_unit_test(a_lease_is_taken_upon_its_version_and_given_back),
                cmocka_unit_test(a_lease_says_how_many_there_are),
                cmocka_unit_test(a_lease_that_is_missing_or_forbidden_is_named),
                cmocka_unit_test(an_event_that_comes_again_is_not_written_again),
        };
        signals_block();
        return cmocka_run_group_tests_name("kube", tests, NULL, NULL);
}
