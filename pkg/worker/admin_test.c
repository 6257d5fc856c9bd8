/* What the admin port tells the kubelet, over ten minutes that pass in a moment: sources without traffic, and
 * functions that take longer than any probe waits. */
#include "worker/admin.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "worker/gate.h"

#include "http/client/testing_port.h"
#include "tests/support/store.h"
#include "tests/support/clock.h"
#include "tests/support/trigger.h"

enum { JOBS = 8, HELD = 64, SECONDS = 600 };
enum { TAG_LIVE = 1, TAG_READY, TAG_CALL };
static const usec SLOW = 150 * USEC_SEC;

struct job {
        struct trigger *trigger;
        struct pipeline *pipeline;
        struct admin_entry shown;
};
struct held {
        struct http_call *call;
        usec until;
};

static struct bench {
        struct set_clock time;
        struct test_store kept;
        struct clock clock;
        struct loop *loop;
        struct http_client *client;
        struct http_server *function;
        struct gate_host *host;
        struct admin *admin;
        struct job jobs[JOBS];
        size_t n;
        char sink[64], secrets[32], secret[64], key[64];
        /* The function. */
        struct held held[HELD];
        size_t held_n, calls;
        /* Who asks. */
        struct task wake, observer;
        struct http_target *probes, *api;
        struct buf messages[TAG_CALL + 1];
        char ready_says[1024];
        int live, ready, called, answers;
        unsigned not_live, not_ready, seconds;
        bool stopping;
} b;

static int open_store(void *cookie UNUSED, struct store *out, struct error *err UNUSED)
{
        b.kept.loop = b.loop;
        *out = test_store_port(&b.kept);
        return 0;
}
static void close_store(void *cookie UNUSED) {}

/* ---- the function: answers after SLOW ----------------------------------- */

static void on_call(void *cookie UNUSED, struct http_call *call)
{
        assert_true(b.held_n < HELD);
        b.calls++;
        b.held[b.held_n++] = (struct held){ call, b.time.monotonic + SLOW };
}

static void on_gone(void *cookie UNUSED, struct http_call *call)
{
        for (size_t i = 0; i < b.held_n; i++)
                if (b.held[i].call == call)
                        b.held[i] = b.held[--b.held_n];
}

static void answer_calls(void)
{
        for (size_t i = b.held_n; i-- > 0;)
                if (b.time.monotonic >= b.held[i].until) {
                        http_call_reply(b.held[i].call, 200, STR("text/plain"), (struct str){ 0 },
                                        STR("at last"));
                        b.held[i] = b.held[--b.held_n];
                }
}

/* ---- the kubelet: asks each second -------------------------------------- */

static void ask(uint64_t tag, struct http_target *target, const char *path)
{
        struct buf *m = &b.messages[tag];
        struct error err;

        m->max = 1 << 20;
        buf_reset(m);
        assert_true(buf_reserve(m, HTTP_HEADROOM));
        m->n = HTTP_HEADROOM;
        if (port_submit(&b.wake, tag,
                        &(struct http_request){ .target = target, .message = m, .path = str_of(path) },
                        &err) < 0)
                fail_msg("%s", err.text);
}

static void probe(void)
{
        b.live = b.ready = 0;
        ask(TAG_LIVE, b.probes, "/livez");
        ask(TAG_READY, b.probes, "/readyz");
}

static void on_wake(struct task *t UNUSED, usec now UNUSED)
{
        struct completion c;

        while (port_take(&c)) {
                if (c.failed && !b.stopping)
                        fail_msg("%d: %s", (int)c.tag, c.error.text);
                if (c.tag == TAG_LIVE)
                        b.live = c.status;
                else if (c.tag == TAG_READY) {
                        b.ready = c.status;
                        (void)snprintf(b.ready_says, sizeof(b.ready_says), STR_FMT, STR_ARG(c.body));
                } else
                        b.called = c.status;
        }
        if (!b.live || !b.ready || b.stopping)
                return;
        b.not_live += b.live != 200;
        b.not_ready += b.ready != 200;
        if (++b.seconds >= SECONDS) {
                loop_stop(b.loop);
                return;
        }
        set_clock_pass(&b.time, USEC_SEC);
        answer_calls();
        probe();
}

/* ---- the bench ---------------------------------------------------------- */

static void add(const char *name, const char *source)
{
        struct job *j = &b.jobs[b.n++];
        struct pipeline_config config = { .loop = b.loop,
                                          .http = b.client,
                                          .clock = &b.clock,
                                          .sink = b.sink,
                                          .host = b.host,
                                          .observer = &b.observer,
                                          .secrets = b.secrets,
                                          .open_store = open_store,
                                          .close_store = close_store,
                                          .store_cookie = j };
        struct error err;

        j->trigger = test_trigger_of((struct test_trigger_spec){
                .name = name, .uid = name, .source = source, .more = "  delivery: {timeout: 5m}" });
        config.trigger = j->trigger;
        if (pipeline_new(&j->pipeline, &config, &err) < 0)
                fail_msg("%s", err.text);
        j->shown.pipeline = j->pipeline;
        admin_add(b.admin, &j->shown);
}

static struct http_target *target(uint16_t port, const char *method)
{
        char url[64];
        struct http_target *t;
        struct error err;

        (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/", port);
        if (http_target_new(&t, b.client,
                            &(struct http_target_config){ .url = str_of(url),
                                                          .method = method,
                                                          .max_connections = 1,
                                                          .connect_timeout = 10 * USEC_SEC,
                                                          .answer_max = 1024 },
                            &err) < 0)
                fail_msg("%s", err.text);
        return t;
}

static void observe(struct task *t UNUSED, usec now UNUSED)
{
        bool all = b.stopping;

        for (size_t i = 0; i < b.n; i++)
                all = all && pipeline_stopped(b.jobs[i].pipeline);
        if (all)
                loop_stop(b.loop);
}

static int setup(void **state UNUSED)
{
        const struct http_server_config function = { .address = "127.0.0.1:0",
                                                     .head_max = 16384,
                                                     .body_max = 65536,
                                                     .handle = on_call,
                                                     .gone = on_gone };
        const struct gate_host_config host = { .address = "127.0.0.1:0" };
        struct error err;
        int key;

        memset(&b, 0, sizeof(b));
        /* 2026-11-24T10:00:00Z */
        b.time = (struct set_clock){ .monotonic = USEC_HOUR, .wall = 1795514400 * USEC_SEC };
        b.clock = (struct clock)SET_CLOCK(&b.time);
        b.wake.turn = on_wake;
        b.observer.turn = observe;
        if (loop_new(&b.loop, &err) < 0)
                return -1;
        loop_use_clock(b.loop, &b.clock);
        if (http_client_new(&b.client, b.loop, &err) < 0 ||
            http_server_new(&b.function, b.loop, &function, &err) < 0 ||
            gate_host_new(&b.host, b.loop, &host, &err) < 0 ||
            admin_new(&b.admin, b.loop, "127.0.0.1:0", &err) < 0)
                return -1;
        (void)snprintf(b.sink, sizeof(b.sink), "http://127.0.0.1:%u/", http_server_port(b.function));
        client_port = http_client_port(b.client);
        b.probes = target(admin_port(b.admin), "GET");
        b.api = target(gate_host_port(b.host), "POST");
        (void)strcpy(b.secrets, "/tmp/sluice-XXXXXX");
        assert_non_null(mkdtemp(b.secrets));
        (void)snprintf(b.secret, sizeof(b.secret), "%s/s", b.secrets);
        (void)snprintf(b.key, sizeof(b.key), "%s/s/k", b.secrets);
        assert_int_equal(mkdir(b.secret, 0700), 0);
        key = open(b.key, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        assert_int_equal(write(key, "token", 5), 5);
        (void)close(key);
        (void)alarm(60);
        return 0;
}

static int teardown(void **state UNUSED)
{
        b.stopping = true;
        b.admin = admin_free(b.admin);
        for (size_t i = 0; i < b.n; i++)
                pipeline_stop(b.jobs[i].pipeline, 0);
        loop_ready(b.loop, &b.observer);
        loop_run(b.loop);
        for (size_t i = 0; i < b.n; i++) {
                assert_null(pipeline_free(b.jobs[i].pipeline));
                assert_null(trigger_free(b.jobs[i].trigger));
        }
        (void)unlink(b.key);
        (void)rmdir(b.secret);
        (void)rmdir(b.secrets);
        port_release_all();
        b.probes = http_target_free(b.probes);
        b.api = http_target_free(b.api);
        b.host = gate_host_free(b.host);
        b.function = http_server_free(b.function);
        b.client = http_client_free(b.client);
        for (size_t i = 0; i < COUNT_OF(b.messages); i++)
                buf_done(&b.messages[i]);
        loop_forget(b.loop, &b.wake);
        loop_forget(b.loop, &b.observer);
        b.loop = loop_free(b.loop);
        (void)alarm(0);
        return 0;
}

static void ten_minutes(void)
{
        probe();
        loop_run(b.loop);
        assert_int_equal(b.seconds, SECONDS);
}

/* ---- tests -------------------------------------------------------------- */

#define TOPIC "topicURN: 'urn:smn:cn-north-4:p:t', trusted: {hosts: ['a.test']}"

static void idle_is_neither_dead_nor_unready(void **state UNUSED)
{
        add("clock", "timer: {schedule: '0 0 0 1 1'}");
        add("api", "apig: {path: /api}");
        add("topic", "smn: {" TOPIC "}");
        add("bucket", "obs: {bucket: photos, " TOPIC "}");
        add("hook", "obs: {bucket: photos, from: Webhook, tokenSecretRef: {name: s, key: k}}");
        add("alarms", "cloudEye: {" TOPIC "}");
        ten_minutes();
        assert_int_equal(b.not_live, 0);
        if (b.not_ready > 1) /* the timer's checkpoint is read after the first */
                fail_msg("not ready %u times: %s", b.not_ready, b.ready_says);
        assert_int_equal(b.calls, 0);
}

static void a_slow_function_makes_nobody_dead_or_unready(void **state UNUSED)
{
        add("clock", "timer: {schedule: 3m}");
        add("api", "apig: {path: /api, timeout: 1m}");
        ask(TAG_CALL, b.api, "/api");
        ten_minutes();
        assert_int_equal(b.not_live, 0);
        assert_in_range(b.not_ready, 0, 1);
        assert_int_equal(b.calls, 4);    /* three ticks, none of them twice, and the call */
        assert_int_equal(b.called, 504); /* the caller was not kept waiting */
}

static void a_broker_that_is_away_makes_it_unready_and_not_dead(void **state UNUSED)
{
        add("orders", "kafka: {bootstrapServers: ['127.0.0.1:1'], topics: [orders]}");
        add("clock", "timer: {schedule: '0 0 0 1 1'}");
        ten_minutes();
        assert_int_equal(b.not_live, 0);
        assert_int_equal(b.not_ready, SECONDS);
        assert_memory_equal(b.ready_says, "shop/orders: ", 13);
        assert_null(strstr(b.ready_says, "shop/clock"));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(idle_is_neither_dead_nor_unready, setup, teardown),
                cmocka_unit_test_setup_teardown(a_slow_function_makes_nobody_dead_or_unready, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(a_broker_that_is_away_makes_it_unready_and_not_dead, setup,
                                                teardown),
        };
        signals_block();
        return cmocka_run_group_tests_name("admin", tests, NULL, NULL);
}
