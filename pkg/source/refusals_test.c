/* What a refusal that stays does to a service: the calls of a polled source in the minute that follows, on a
 * clock of the test's own, for each row of the table of refusals, through the reader, the poller and the
 * cloud's calls as they are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "huawei/refusal.h"
#include "source/cloud.h"
#include "tests/support/clock.h"
#include "tests/support/http.h"
#include "tests/support/trigger.h"

enum { RUNAWAY = 3000 };

/* ---- time --------------------------------------------------------------- */

static struct set_clock set;
static const struct clock test_clock = SET_CLOCK(&set);

/* ---- the service -------------------------------------------------------- */

static struct test_call calls[16];
static struct test_http wire;
static struct service {
        struct loop *loop;
        struct cloud *cloud;
        struct task task;
        int status;
        char body[128];
        unsigned records, cursors; /* calls */
        bool rotates;              /* the keys are others after each call */
} service;

static void set_keys(unsigned version)
{
        char key[32];

        (void)snprintf(key, sizeof(key), "AKEXAMPLE%u", version);
        assert_int_equal(setenv("HUAWEICLOUD_SDK_AK", key, 1), 0);
        assert_int_equal(setenv("HUAWEICLOUD_SDK_SK", "SKEXAMPLE", 1), 0);
}

static bool of_records(const struct test_call *c) { return strcmp(c->path, "/v2/p1/records") == 0; }

static void sent(struct test_http *h UNUSED, struct test_call *c)
{
        if (service.rotates && of_records(c))
                set_keys(service.records + 1);
        service.records += of_records(c);
        service.cursors += !of_records(c);
        if (service.records + service.cursors > RUNAWAY)
                fail_msg("%d %s: more than %d calls in a minute", service.status, service.body, RUNAWAY);
        loop_ready(service.loop, &service.task);
}

static void serve(struct task *t UNUSED, usec at UNUSED)
{
        struct test_call *c;

        while ((c = test_http_waiting(&wire)))
                if (of_records(c))
                        test_http_answer(&wire, c, service.status, service.body);
                else
                        test_http_answer(&wire, c, 200, "{}");
        test_http_forget(&wire);
}

/* ---- a source, as those of the cloud are -------------------------------- */

/* It asks for a cursor, then for records behind it, and for another cursor when it is told to. */
static struct world {
        struct poller *poller;
        struct services services;
        struct task wake, stop;
        bool cursor, closed;
} w;

static void ask(struct poller *p UNUSED, const struct reader_job *job UNUSED, struct cloud_request *q)
{
        buf_text(&q->path, w.cursor ? "/v2/{project_id}/records" : "/v2/{project_id}/cursors");
        buf_text(&q->what, "records");
}

static enum poller_step answered(struct poller *p UNUSED, const struct reader_job *job UNUSED,
                                 struct str body UNUSED, struct error *err UNUSED)
{
        w.cursor = true;
        return POLLER_AGAIN;
}

static enum poller_step refused(struct poller *p UNUSED, const struct reader_job *job UNUSED,
                                const struct cloud_error *r, struct error *err UNUSED)
{
        if (r->verdict != CLOUD_RENEW_CURSOR)
                return POLLER_FAILED;
        w.cursor = false;
        return POLLER_AGAIN;
}

static void turn(struct task *t, usec at)
{
        struct pull_event events[8];
        size_t n;

        while ((n = poller_pull.poll(&w.poller->source, events, COUNT_OF(events), at)))
                for (size_t i = 0; i < n; i++)
                        if (events[i].kind == PULL_ASSIGNED)
                                poller_pull.credit(&w.poller->source, events[i].track, 10, 1 << 20);
                        else if (events[i].kind == PULL_LOST || events[i].kind == PULL_REVOKING)
                                poller_pull.revoked(&w.poller->source, events[i].track);
                        else if (events[i].kind == PULL_CLOSED)
                                w.closed = true;
        loop_arm(service.loop, t, poller_pull.deadline(&w.poller->source));
}

static void on_stop(struct task *t UNUSED, usec at UNUSED) { loop_stop(service.loop); }

/* ---- a minute ----------------------------------------------------------- */

static char region[] = "cn-north-4", project[] = "p1", endpoint[] = "http://127.0.0.1:1";

static void begin(struct poller_ops *ops)
{
        static struct trigger trigger = TEST_TRIGGER("t");
        static struct cloud_spec spec = { .region = region, .project_id = project };
        struct cloud_config cloud = { .clock = &test_clock, .endpoint = endpoint, .seed = 1 };
        /* as DIS has it */
        const struct poller_config config = { .reader = { .page_bytes = 1 << 16,
                                                          .poll_min = USEC_SEC,
                                                          .poll_max = USEC_SEC,
                                                          .backoff_min = 200 * USEC_MSEC,
                                                          .backoff_max = 30 * USEC_SEC },
                                              .cloud = &spec,
                                              .seed = 1 };
        struct http http = test_http_port(&wire);
        struct http_peers peers = test_http_peers(&wire);
        struct error err;

        w = (struct world){ .wake.turn = turn, .stop.turn = on_stop };
        /* 2026-01-01T01:00:00Z */
        set = (struct set_clock){ .monotonic = USEC_HOUR, .wall = 1767225600 * USEC_SEC + USEC_HOUR };
        assert_int_equal(loop_new(&service.loop, &err), 0);
        wire = TEST_HTTP(calls);
        wire.loop = service.loop;
        wire.sent = sent;
        loop_use_clock(service.loop, &test_clock);
        cloud.loop = service.loop;
        assert_int_equal(cloud_new(&service.cloud, &cloud, &err), 0);
        cloud_use(service.cloud, &http, &peers);
        w.services = (struct services){ .loop = service.loop,
                                        .wake = &w.wake,
                                        .clock = &test_clock,
                                        .cloud = service.cloud,
                                        .trigger = &trigger };
        w.poller = calloc(1, sizeof(*w.poller));
        assert_non_null(w.poller);
        if (poller_open(w.poller, ops, &config, &w.services, &err) < 0)
                fail_msg("%s", err.text);
        loop_ready(service.loop, &w.wake);
}

static void pass_until(usec at)
{
        while (!w.closed && loop_next(service.loop) <= at) {
                set_clock_pass(&set, MAX_OF(loop_next(service.loop) - set.monotonic, (usec)0));
                loop_ready(service.loop, &w.stop);
                loop_run(service.loop);
        }
}

static void end(void)
{
        poller_pull.stop(&w.poller->source);
        loop_ready(service.loop, &w.wake);
        pass_until(set.monotonic + USEC_MINUTE);
        assert_true(w.closed);
        (void)poller_pull.free(&w.poller->source);
        service.cloud = cloud_free(service.cloud);
        loop_forget(service.loop, &w.wake);
        loop_forget(service.loop, &w.stop);
        loop_forget(service.loop, &service.task);
        service.loop = loop_free(service.loop);
}

/* Calls for records within a minute of which each is refused. */
static void minute(const char *of, int status, const char *code, bool rotates)
{
        struct poller_ops ops = { .service = of, .ask = ask, .answered = answered, .refused = refused };

        service = (struct service){ .status = status, .task.turn = serve, .rotates = rotates };
        set_keys(0);
        (void)snprintf(service.body, sizeof(service.body), "{\"error_code\":\"%s\",\"error_msg\":\"no\"}",
                       code);
        begin(&ops);
        pass_until(set.monotonic + USEC_MINUTE);
        end();
}

/* ---- tests -------------------------------------------------------------- */

static const struct {
        unsigned least, most;
} bounds[CLOUD_VERDICT_MAX] = {
        /* A pause that doubles from 0.2 to 30 s, of which a random part is waited for. */
        [CLOUD_RETRY] = { 5, 20 },
        [CLOUD_THROTTLE] = { 5, 20 },
        /* Sixteen cursors in a row, then as what a retry does not help. */
        [CLOUD_RENEW_CURSOR] = { 17, 5 * 17 },
        /* What a retry does not help waits for 15 to 30 s: people may help. */
        [CLOUD_RENEW_CREDENTIALS] = { 2, 5 },
        [CLOUD_GONE] = { 2, 5 },
        [CLOUD_FORBIDDEN] = { 2, 5 },
        [CLOUD_FINAL] = { 2, 5 },
};

static void check(const char *of, int status, const char *code, enum cloud_verdict verdict)
{
        /* Without a row here nobody has thought of what it does. */
        assert_true(bounds[verdict].most > 0);
        minute(of, status, code, false);
        if (service.records < bounds[verdict].least || service.records > bounds[verdict].most)
                fail_msg("%s %d %s (%s): %u calls in a minute instead of %u to %u", of, status, code,
                         cloud_verdict_name(verdict), service.records, bounds[verdict].least,
                         bounds[verdict].most);
        if (verdict == CLOUD_RENEW_CURSOR) /* each time but the last */
                assert_int_equal(service.cursors, service.records / 17 * 16 + 1);
        else
                assert_int_equal(service.cursors, 1);
}

static void each_code_is_asked_again_as_often_as_it_calls_for(void **state UNUSED)
{
        for (size_t i = 0; i < refusal_rows_n; i++) {
                const struct refusal_row *row = &refusal_rows[i];

                check(*row->service ? row->service : "dis", 400, row->code, row->verdict);
        }
}

static void so_is_each_status_that_brings_no_code(void **state UNUSED)
{
        static const struct {
                int status;
                enum cloud_verdict verdict;
        } cases[] = { { 400, CLOUD_FINAL },     { 401, CLOUD_RENEW_CREDENTIALS },
                      { 403, CLOUD_FORBIDDEN }, { 404, CLOUD_GONE },
                      { 408, CLOUD_RETRY },     { 409, CLOUD_FINAL },
                      { 429, CLOUD_THROTTLE },  { 500, CLOUD_RETRY },
                      { 502, CLOUD_RETRY },     { 503, CLOUD_RETRY } };

        for (size_t i = 0; i < COUNT_OF(cases); i++)
                check("dis", cases[i].status, "", cases[i].verdict);
}

/* Keys that somebody renewed are tried at once, and a few times: half of a pair may be new, or all of it
 * wrong, too. */
enum { TRIES = 1 + 3 };

static void keys_that_are_others_are_tried_a_few_times(void **state UNUSED)
{
        size_t tried = 0;

        for (size_t i = 0; i < refusal_rows_n; i++) {
                const struct refusal_row *row = &refusal_rows[i];

                if (row->verdict != CLOUD_RENEW_CREDENTIALS)
                        continue;
                minute(*row->service ? row->service : "dis", 401, row->code, true);
                assert_in_range(service.records, TRIES * bounds[CLOUD_RENEW_CREDENTIALS].least,
                                TRIES * bounds[CLOUD_RENEW_CREDENTIALS].most);
                assert_int_equal(service.records % TRIES, 0);
                tried++;
        }
        assert_true(tried > 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(each_code_is_asked_again_as_often_as_it_calls_for),
                cmocka_unit_test(so_is_each_status_that_brings_no_code),
                cmocka_unit_test(keys_that_are_others_are_tried_a_few_times),
        };

        return cmocka_run_group_tests_name("refusals", tests, NULL, NULL);
}
