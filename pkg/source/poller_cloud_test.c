#include "source/poller_cloud.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* ---- the wire ----------------------------------------------------------- */

static struct {
        uint64_t tag;
        char method[8], path[256], body[64];
        unsigned sent, cancelled;
        bool done;
        struct http_completion completion;
} wire;

static int submit(void *cookie UNUSED, uint64_t tag, const struct http_request *q, struct error *err UNUSED)
{
        wire.tag = tag;
        wire.sent++;
        (void)snprintf(wire.method, sizeof(wire.method), "%s", q->method);
        (void)snprintf(wire.path, sizeof(wire.path), STR_FMT, STR_ARG(q->path));
        (void)snprintf(wire.body, sizeof(wire.body), "%.*s", (int)(q->message->n - HTTP_HEADROOM),
                       q->message->p + HTTP_HEADROOM);
        return 0;
}

static void wire_cancel(void *cookie UNUSED, uint64_t tag UNUSED) { wire.cancelled++; }

static bool take(void *cookie UNUSED, struct http_completion *out)
{
        *out = wire.completion;
        return wire.done ? !(wire.done = false) : false;
}

static int open_peer(void *cookie UNUSED, struct http_target **out, const struct http_peer *peer UNUSED,
                     struct error *err UNUSED)
{
        *out = (struct http_target *)(void *)&wire;
        return 0;
}
static void close_peer(void *cookie UNUSED, struct http_target *t UNUSED) {}

/* ---- a source that asks one thing --------------------------------------- */

static char got[64];

static void ask(struct poller *p UNUSED, const struct reader_job *job, struct cloud_request *q)
{
        buf_text(&q->path, "/v2/{project_id}/records");
        buf_text(&q->what, "records");
        poller_query_int(q, "limit", job->records);
}

static enum poller_step answered(struct poller *p UNUSED, const struct reader_job *job UNUSED,
                                 struct str body, struct error *err UNUSED)
{
        (void)snprintf(got, sizeof(got), STR_FMT, STR_ARG(body));
        return POLLER_DONE;
}

static struct source *close_source(struct poller *p)
{
        poller_done(p);
        return NULL;
}

static const struct poller_ops ops = {
        .service = "dis", .ask = ask, .answered = answered, .close = close_source
};

/* ---- a world ------------------------------------------------------------ */

static usec now;
static usec test_time(void *cookie UNUSED) { return now; }
static const struct clock test_clock = { .wall = test_time, .monotonic = test_time };
static struct loop *loop;
static struct cloud *cloud;
static struct cloud_account *account;
static struct poller_cloud port;
static struct poller poller;
static struct task task;
static struct services services;
static char text[256];

static int read_keys(void *cookie UNUSED, struct buf *access, struct buf *secret, struct buf *token UNUSED,
                     struct error *err UNUSED)
{
        buf_text(access, "AKEXAMPLE");
        buf_text(secret, "SKEXAMPLE");
        return 0;
}

static void turn(void)
{
        struct pull_event e;

        cloud_task(cloud)->turn(cloud_task(cloud), now);
        do
                while (poller_pull.poll(&poller.source, &e, 1, now)) {
                        if (e.kind == PULL_ASSIGNED)
                                poller_pull.credit(&poller.source, e.track, 3, 1000);
                        if (e.kind == PULL_REVOKING)
                                poller_pull.revoked(&poller.source, e.track);
                        if (e.kind == PULL_STATE)
                                (void)snprintf(text, sizeof(text), "%s", e.text);
                }
        while (poller_pull.deadline(&poller.source) <= now);
        cloud_task(cloud)->turn(cloud_task(cloud), now);
}

static void answer(int status, const char *body)
{
        wire.done = true;
        wire.completion = (struct http_completion){
                .tag = wire.tag, .status = status, .head = STR(""), .body = str_of(body)
        };
        turn();
}

static int begin(void **state UNUSED)
{
        static const struct http_ops http_ops = { submit, wire_cancel, take };
        static const struct http_peers_ops peers_ops = { open_peer, close_peer };
        const struct cloud_account_config fixed = { .region = "cn-north-4",
                                                    .project = "p1",
                                                    .credentials = { .kind = CREDENTIALS_FIXED,
                                                                     .read = read_keys } };
        struct poller_config config = {
                .reader = { .page_bytes = 1000, .poll_min = USEC_SEC, .backoff_min = USEC_SEC }
        };
        struct error err;

        memset(&wire, 0, sizeof(wire));
        now = 1767225600 * USEC_SEC;
        assert_int_equal(loop_new(&loop, &err), 0);
        assert_int_equal(cloud_new(&cloud,
                                   &(struct cloud_config){ .loop = loop, .clock = &test_clock, .seed = 1 },
                                   &err),
                         0);
        cloud_use(cloud, &(struct http){ &http_ops, NULL }, &(struct http_peers){ &peers_ops, NULL });
        assert_int_equal(cloud_account_new(&account, cloud, &fixed, &err), 0);
        task = (struct task){ 0 };
        services = (struct services){ .loop = loop, .wake = &task, .clock = &test_clock };
        poller = (struct poller){ 0 };
        config.port = poller_cloud(&port, account, &task);
        assert_int_equal(poller_open(&poller, &ops, &config, &services, &err), 0);
        turn();
        return 0;
}

static int end(void **state UNUSED)
{
        (void)poller_pull.free(&poller.source);
        assert_null(port.busy.first);
        account = cloud_account_free(account);
        cloud = cloud_free(cloud);
        loop_forget(loop, &task);
        loop = loop_free(loop);
        return 0;
}

/* ---- tests -------------------------------------------------------------- */

static void test_a_call_goes_out_and_its_answer_comes_in(void **state UNUSED)
{
        assert_int_equal(wire.sent, 1);
        assert_string_equal(wire.method, "GET");
        assert_string_equal(wire.path, "/v2/p1/records?limit=3");
        answer(200, "{\"records\":[]}");
        assert_string_equal(got, "{\"records\":[]}");
        now += USEC_SEC;
        turn();
        assert_int_equal(wire.sent, 2);
        answer(200, "{}"); /* over the same call */
        assert_string_equal(got, "{}");
}

static void test_a_refusal_is_told_in_the_services_words(void **state UNUSED)
{
        answer(403, "{\"errorCode\":\"DIS.4116\",\"message\":\"no right\"}");
        assert_non_null(strstr(text, "records: 403 DIS.4116: no right"));
        assert_int_equal(wire.sent, 1);
        now += 2 * USEC_SEC;
        turn();
        assert_int_equal(wire.sent, 2);
}

static void test_a_call_that_is_not_wanted_is_cancelled(void **state UNUSED)
{
        poller_pull.stop(&poller.source);
        turn();
        assert_int_equal(wire.cancelled, 1);
        assert_null(port.busy.first);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_a_call_goes_out_and_its_answer_comes_in, begin, end),
                cmocka_unit_test_setup_teardown(test_a_refusal_is_told_in_the_services_words, begin, end),
                cmocka_unit_test_setup_teardown(test_a_call_that_is_not_wanted_is_cancelled, begin, end),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
