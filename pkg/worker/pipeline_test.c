/* The pipeline: a timer, a store in memory and a function over loopback that follows a script. Time passes
 * only where there is nothing to do before, and stands still while a request is on its way. */
#include "worker/pipeline.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "http/server/server.h"
#include "tests/support/clock.h"
#include "tests/support/store.h"
#include "tests/support/trigger.h"

#include "tests/sim/memory.h"

enum { REQUESTS = 16 };
enum { HOLD = -1 }; /* a status: the answer waits for the test */

static const usec BEGINNING = USEC_HOUR;

/* What has a filter, from the next bench on; empty: nothing. */
static const char *filter = "";

static struct bench {
        struct set_clock time;
        struct clock clock;
        struct loop *loop;
        struct http_server *server;
        struct http_client *client;
        struct trigger *trigger;
        struct pipeline *pipeline;
        char sink[64];
        /* The function. */
        const int *script;
        size_t script_n, requests;
        char ids[REQUESTS][128], bodies[REQUESTS][512], names[REQUESTS][64];
        usec times[REQUESTS];
        struct http_call *held;
        /* The store. */
        bool open;
        struct test_store kept;
        /* What run waits for. */
        struct task observer, driver;
        bool (*until)(void);
        unsigned passes; /* in which nothing came */
        unsigned turns;  /* of the driver */
} b;

/* ---- the store ---------------------------------------------------------- */

static int open_store(void *cookie UNUSED, struct store *out, struct error *err UNUSED)
{
        b.open = true;
        b.kept.loop = b.loop;
        *out = test_store_port(&b.kept);
        return 0;
}

static void close_store(void *cookie UNUSED) { b.open = false; }

/* ---- the function ------------------------------------------------------- */

static void header(const struct http_message *m, const char *name, char *out, size_t size)
{
        struct str value = http_message_header(m, str_of(name));

        (void)snprintf(out, size, STR_FMT, STR_ARG(value));
}

static void reply(struct http_call *call, int status)
{
        http_call_reply(call, status, STR("text/plain"), (struct str){ 0 },
                        status == 200   ? STR("fine")
                        : status == 400 ? STR("\033[2Jno\r\nlevel=info")
                                        : STR("told to fail"));
}

static void handle(void *cookie UNUSED, struct http_call *call)
{
        const struct http_message *m = http_call_message(call);
        int status = b.requests < b.script_n ? b.script[b.requests] : 200;

        if (b.requests < REQUESTS) {
                header(m, "X-Sluice-Event-Id", b.ids[b.requests], sizeof(b.ids[0]));
                header(m, "X-CFF-Func-Name", b.names[b.requests], sizeof(b.names[0]));
                (void)snprintf(b.bodies[b.requests], sizeof(b.bodies[0]), STR_FMT,
                               STR_ARG(buf_view(&m->body)));
                b.times[b.requests] = b.time.monotonic - BEGINNING;
                b.requests++;
        }
        if (status == HOLD)
                b.held = call;
        else
                reply(call, status);
}

static void on_gone(void *cookie UNUSED, struct http_call *call)
{
        if (b.held == call)
                b.held = NULL;
}

/* ---- the bench ---------------------------------------------------------- */

static void on_change(struct task *t UNUSED, usec now UNUSED) {}

static struct pipeline_status status(void)
{
        struct pipeline_status s;

        pipeline_status(b.pipeline, &s);
        return s;
}

/* Has a turn in each pass. What was lost for lack of memory is on its way no more, once nothing has come for
 * long. */
static void drive(struct task *t, usec now)
{
        bool on_its_way = status().stats.in_flight > (b.held ? 1 : 0);
        usec next = loop_next(b.loop);

        b.turns++;
        b.passes = on_its_way && next > now && memory_failed() ? b.passes + 1 : 0;
        on_its_way = on_its_way && b.passes < 2000;

        if (b.until()) {
                loop_stop(b.loop);
                return;
        }
        if (!on_its_way && next > now) {
                if (next == USEC_NEVER)
                        fail_msg("what was waited for does not come: %zu requests, %zu writes", b.requests,
                                 b.kept.puts);
                set_clock_pass(&b.time, next - now);
        }
        loop_ready(b.loop, t);
}

static void run(bool (*until)(void))
{
        b.until = until;
        (void)alarm(20);
        loop_ready(b.loop, &b.driver);
        loop_run(b.loop);
        (void)alarm(0);
}

#define SPEC(schedule) "timer: {schedule: '" schedule "', misfirePolicy: CatchUp, userEvent: hello}"
#define OFTEN SPEC("@every 100ms")
#define HOURLY SPEC("1h")
#define NEVER SPEC("0 0 0 1 1")

static void begin_with(const struct source_kind *kind, const char *source, const char *stored,
                       const int *script, size_t script_n, unsigned fail)
{
        struct http_server_config function = { .address = "127.0.0.1:0",
                                               .head_max = 16384,
                                               .body_max = 65536,
                                               .handle = handle,
                                               .gone = on_gone };
        struct pipeline_config config = { .clock = &b.clock,
                                          .open_store = open_store,
                                          .close_store = close_store };
        struct error err;
        char more[256];

        memset(&b, 0, sizeof(b));
        b.script = script;
        b.script_n = script_n;
        b.kept.fail = fail;
        b.observer.turn = on_change;
        b.driver.turn = drive;
        /* 2026-11-24T10:00:00.05Z: between two ticks */
        b.time = (struct set_clock){ .wall = 1795514400 * USEC_SEC + 50 * USEC_MSEC, .monotonic = BEGINNING };
        b.clock = (struct clock)SET_CLOCK(&b.time);
        b.kept.key = "timer";
        test_store_set(&b.kept, stored);
        (void)snprintf(more, sizeof(more),
                       "  function: {name: f}\n"
                       "  delivery: {retry: {initialBackoff: 10ms, maxBackoff: 100ms}}\n%s",
                       filter);
        b.trigger = test_trigger_of(
                (struct test_trigger_spec){ .name = "clock", .source = source, .more = more });
        assert_int_equal(loop_new(&b.loop, &err), 0);
        loop_use_clock(b.loop, &b.clock);
        assert_int_equal(http_server_new(&b.server, b.loop, &function, &err), 0);
        assert_int_equal(http_client_new(&b.client, b.loop, &err), 0);
        (void)snprintf(b.sink, sizeof(b.sink), "http://127.0.0.1:%u/", http_server_port(b.server));
        config.loop = b.loop;
        config.http = b.client;
        config.trigger = b.trigger;
        config.kind = kind;
        config.source_spec = kind ? b.trigger->source_spec : NULL;
        config.sink = b.sink;
        config.observer = &b.observer;
        if (pipeline_new(&b.pipeline, &config, &err) < 0)
                fail_msg("%s", err.text);
}

static void begin(const char *spec, const char *stored, const int *script, size_t script_n, unsigned fail)
{
        begin_with(NULL, spec, stored, script, script_n, fail);
}

static bool stopped(void) { return pipeline_stopped(b.pipeline); }

static void end(void)
{
        pipeline_stop(b.pipeline, clock_monotonic(&b.clock) + 5 * USEC_SEC);
        run(stopped);
        assert_null(pipeline_free(b.pipeline));
        assert_false(b.open); /* the store was closed */
        b.client = http_client_free(b.client);
        b.server = http_server_free(b.server);
        loop_forget(b.loop, &b.observer);
        loop_forget(b.loop, &b.driver);
        b.loop = loop_free(b.loop);
        b.trigger = trigger_free(b.trigger);
}

/* ---- what is waited for ------------------------------------------------- */

static bool three_requests(void) { return b.requests >= 3; }
static bool one_request(void) { return b.requests >= 1; }
static bool retrying(void) { return status().delivery == DELIVERY_RETRYING; }
static bool blocked(void) { return status().delivery == DELIVERY_BLOCKED; }
static bool delivering(void) { return status().delivery == DELIVERY_IDLE && b.requests >= 3; }
static bool disconnected(void) { return status().source == SOURCE_DISCONNECTED; }
static bool delivered(void) { return status().last_delivery > 0; }
static bool connected(void) { return status().source == SOURCE_CONNECTED; }

/* ---- a queue ------------------------------------------------------------ */

/* One track that has one message, and lets go of it when the test says so. */
static struct queue_source {
        struct source source; /* the first member */
        struct pull_event next[4];
        size_t n;
        struct record record;
        bool lent, closed;
        struct task *wake;
        usec slow;                 /* so long a filter's view of a record takes */
        unsigned described, at[4]; /* in which of the driver's turns */
} queue;

static void queue_tells(struct pull_event e)
{
        queue.next[queue.n++] = e;
        loop_ready(b.loop, queue.wake);
}

static void queue_lends(void)
{
        queue.record = (struct record){
                .track = 1, .position = queue.record.position + 1, .id = STR("one"), .value = STR("a message")
        };
        queue.lent = true;
        queue_tells((struct pull_event){ .kind = PULL_RECORD, .track = 1, .record = &queue.record });
}

static int queue_open(struct source **out, const void *spec UNUSED, const struct services *services,
                      struct error *err UNUSED)
{
        queue = (struct queue_source){ .wake = services->wake };
        queue_tells((struct pull_event){ .kind = PULL_STATE, .state = SOURCE_CONNECTED });
        queue_tells((struct pull_event){ .kind = PULL_ASSIGNED, .track = 1 });
        *out = &queue.source;
        return 0;
}

static size_t queue_poll(struct source *s UNUSED, struct pull_event *events, size_t max UNUSED,
                         usec now UNUSED)
{
        size_t n = queue.n;

        memcpy(events, queue.next, n * sizeof(events[0]));
        queue.n = 0;
        return n;
}

static usec queue_deadline(const struct source *s UNUSED) { return queue.n ? 0 : USEC_NEVER; }
static void queue_credit(struct source *s UNUSED, uint32_t track UNUSED, uint32_t n UNUSED, size_t m UNUSED)
{
}
static void queue_release(struct source *s UNUSED, struct record *r UNUSED, enum outcome o UNUSED)
{
        queue.lent = false;
}
static void queue_commit(struct source *s UNUSED, uint32_t track UNUSED, uint64_t next UNUSED) {}
static void queue_revoked(struct source *s UNUSED, uint32_t track UNUSED)
{
        queue_tells((struct pull_event){ .kind = queue.closed ? PULL_CLOSED : PULL_ASSIGNED, .track = 1 });
}
static void queue_stop(struct source *s UNUSED)
{
        queue.closed = true;
        queue_tells((struct pull_event){ .kind = PULL_REVOKING, .track = 1 });
}
static struct source *queue_free(struct source *s UNUSED) { return NULL; }

static const struct pull_ops queue_pull = {
        .poll = queue_poll,
        .deadline = queue_deadline,
        .credit = queue_credit,
        .release = queue_release,
        .commit = queue_commit,
        .revoked = queue_revoked,
        .stop = queue_stop,
        .free = queue_free,
};

static void queue_encode(const struct trigger *t UNUSED, struct record *const *records, size_t n UNUSED,
                         struct writer *w)
{
        writer_string(w, records[0]->value);
}

static void queue_origin(const struct trigger *t UNUSED, struct buf *b_) { buf_text(b_, "queue"); }

static void queue_describe(const struct record *r UNUSED, struct writer *w)
{
        set_clock_pass(&b.time, queue.slow);
        queue.at[queue.described++] = b.turns;
        writer_object(w);
        writer_member_text(w, "is", "here");
        writer_object_end(w);
}

static const struct shape queue_shape = { .ce_type = "queue",
                                          .describe = queue_describe,
                                          .encode = queue_encode };
static const struct source_kind queue_kind = { .name = "queue",
                                               .shape = &queue_shape,
                                               .pull = &queue_pull,
                                               .open = queue_open,
                                               .origin = queue_origin };

static void queue_begin(const int *script, size_t script_n)
{
        begin_with(&queue_kind, NEVER, NULL, script, script_n, 0);
        run(connected);
        queue_lends();
        run(retrying);
}

static void queue_lets_go(void)
{
        queue_tells((struct pull_event){ .kind = PULL_REVOKING, .track = 1, .again = true });
}

/* ---- tests -------------------------------------------------------------- */

static void ticks_are_delivered_in_the_functions_shape(void **state UNUSED)
{
        struct pipeline_status s;

        begin(OFTEN, NULL, NULL, 0, 0);
        run(three_requests);
        for (size_t i = 0; i < 3; i++) {
                assert_string_equal(b.names[i], "f");
                assert_non_null(strstr(b.bodies[i], "\"trigger_type\":\"TIMER\",\"trigger_name\":\"clock\""));
                assert_non_null(strstr(b.bodies[i], "\"user_event\":\"hello\""));
                assert_memory_equal(b.ids[i], "u/", 2);
        }
        assert_string_not_equal(b.ids[0], b.ids[1]);
        assert_string_not_equal(b.ids[1], b.ids[2]);
        assert_int_equal(b.times[0], 50 * USEC_MSEC); /* each at its time */
        assert_int_equal(b.times[1], 150 * USEC_MSEC);
        assert_int_equal(b.times[2], 250 * USEC_MSEC);
        s = status();
        assert_int_equal(s.source, SOURCE_CONNECTED);
        assert_int_equal(s.delivery, DELIVERY_IDLE);
        assert_true(s.last_event > 0 && s.last_delivery > 0 && s.connected_since > 0);
        end();
}

static void what_fails_for_now_is_sent_again(void **state UNUSED)
{
        static const int script[] = { 503, 503, 200 };

        begin(OFTEN, NULL, script, COUNT_OF(script), 0);
        run(retrying);
        assert_non_null(strstr(status().delivery_text, "answered 503: told to fail"));
        assert_int_equal(status().last_delivery, 0);
        run(delivering);
        assert_in_range(b.times[1] - b.times[0], 1, 10 * USEC_MSEC);
        assert_in_range(b.times[2] - b.times[1], 1, 20 * USEC_MSEC);
        assert_string_equal(b.ids[0], b.ids[1]);
        assert_string_equal(b.ids[0], b.ids[2]);
        assert_string_equal(b.bodies[0], b.bodies[2]);
        assert_true(status().last_delivery > 0);
        end();
}

static void what_is_refused_for_good_blocks_and_says_so(void **state UNUSED)
{
        static const int script[] = { 400, 400, 400, 400 };

        begin(OFTEN, NULL, script, COUNT_OF(script), 0);
        run(blocked);
        assert_non_null(strstr(status().delivery_text, "answered 400:  [2Jno  level=info"));
        assert_int_equal(status().last_delivery, 0);
        run(three_requests);
        assert_string_equal(b.ids[0], b.ids[2]);
        end();
}

static void what_is_in_flight_is_finished_and_stored(void **state UNUSED)
{
        static const int script[] = { HOLD };
        const char *settled;

        begin(OFTEN, NULL, script, COUNT_OF(script), 0);
        run(one_request);
        assert_non_null(strstr(b.kept.value, "\"claimed\":"));
        pipeline_stop(b.pipeline, clock_monotonic(&b.clock) + 10 * USEC_SEC);
        assert_false(pipeline_stopped(b.pipeline));
        assert_non_null(b.held);
        reply(b.held, 200);
        b.held = NULL;
        run(stopped);
        assert_int_equal(b.requests, 1);
        assert_null(strstr(b.kept.value, "\"claimed\":"));
        settled = strstr(b.kept.value, "\"settled\":");
        assert_non_null(settled);
        /* a tick, not the beginning */
        assert_int_equal(strtoll(settled + 10, NULL, 10) % (100 * USEC_MSEC), 0);
        end();
}

static void at_the_deadline_it_stops_and_keeps_its_claim(void **state UNUSED)
{
        static const int script[] = { HOLD };

        begin(OFTEN, NULL, script, COUNT_OF(script), 0);
        run(one_request);
        pipeline_stop(b.pipeline, clock_monotonic(&b.clock) + 20 * USEC_MSEC);
        run(stopped);
        assert_int_equal(b.time.monotonic - BEGINNING, 50 * USEC_MSEC + 20 * USEC_MSEC);
        assert_int_equal(b.requests, 1);
        assert_non_null(strstr(b.kept.value, "\"claimed\":")); /* sent again by the next worker */
        end();
}

static void a_claimed_tick_is_sent_first(void **state UNUSED)
{
        /* What another pipeline leaves behind. */
        static const int script[] = { HOLD };
        char claim[512], id[128];

        begin(NEVER, NULL, NULL, 0, 0);
        run(connected);
        end();
        assert_int_equal(b.requests, 0);
        begin(OFTEN, NULL, script, COUNT_OF(script), 0);
        run(one_request);
        pipeline_stop(b.pipeline, 0);
        run(stopped);
        (void)snprintf(claim, sizeof(claim), "%s", b.kept.value);
        (void)snprintf(id, sizeof(id), "%s", b.ids[0]);
        end();
        begin(OFTEN, claim, NULL, 0, 0);
        run(three_requests);
        assert_string_equal(b.ids[0], id);
        assert_string_not_equal(b.ids[1], id);
        end();
}

static void without_its_store_nothing_is_sent(void **state UNUSED)
{
        begin(OFTEN, NULL, NULL, 0, 1);
        run(disconnected);
        assert_non_null(strstr(status().source_text, "the store said no"));
        assert_int_equal(b.requests, 0);
        run(one_request);
        assert_int_equal(status().source, SOURCE_CONNECTED);
        end();
}

/* Each allocation fails that one tick takes: it is delivered all the same, and the store hears of it. */
static void each_allocation_fails_once(const char *spec)
{
        for (uint64_t at = 1;; at++) {
                begin(spec, NULL, NULL, 0, 0);
                run(connected);
                memory_fails(at, false);
                run(one_request);
                assert_int_equal(b.ids[0][0], 'u');
                assert_non_null(strstr(b.bodies[0], "\"user_event\":\"hello\"}"));
                run(delivered);
                memory_fails(0, false);
                end();
                assert_non_null(strstr(b.kept.value, "\"settled\":"));
                if (!memory_failed())
                        break;
        }
}

static void a_tick_is_not_lost_for_lack_of_memory(void **state UNUSED) { each_allocation_fails_once(OFTEN); }
/* Between two ticks there is neither an engine nor a sender: both are made anew. */
static void nor_is_one_that_wakes_a_pipeline(void **state UNUSED) { each_allocation_fails_once(HOURLY); }

static void nor_is_one_that_a_filter_judges(void **state UNUSED)
{
        filter = "  filter: {pattern: {userEvent: [hello]}}\n";
        each_allocation_fails_once(OFTEN);
        filter = "";
}

static bool all_settled(void) { return b.requests >= 3 && status().stats.accepted >= 3; }

/* What is counted, and what went wrong, is known across its rest. */
static void a_pipeline_that_slept_goes_on_as_before(void **state UNUSED)
{
        static const int script[] = { 503, 200, 200, 400 };
        struct pipeline_status s;

        begin(HOURLY, NULL, script, COUNT_OF(script), 0);
        run(three_requests);
        assert_string_equal(b.ids[0], b.ids[1]);
        assert_true(b.times[0] - (USEC_HOUR - 50 * USEC_MSEC) < USEC_SEC);
        assert_true(b.times[2] - b.times[1] > USEC_HOUR - USEC_SEC);
        run(delivered);
        run(blocked); /* the function refuses the third tick for good: it is awake, and says so */
        s = status();
        assert_int_equal(s.stats.offered, 3);
        assert_int_equal(s.stats.accepted, 2);
        assert_int_equal(s.stats.attempts, 4);
        assert_int_equal(s.stats.failures, 2);
        end();
        begin(HOURLY, NULL, NULL, 0, 0);
        run(all_settled);
        assert_true(status().runs.next > status().runs.last);
        assert_int_equal(status().delivery, DELIVERY_IDLE);
        end();
        assert_non_null(strstr(b.kept.value, "\"outcome\":\"Accepted\""));
}

static bool well(void) { return status().delivery == DELIVERY_IDLE; }
static bool held(void) { return b.held != NULL; }
static bool given_back(void) { return !queue.lent && !queue.n; }

/* What the function refuses is not well because its time with us is over: that would tell of a recovery, and
 * of another failure when it comes again. */
static void what_was_let_go_still_fails(void **state UNUSED)
{
        static const int script[] = { 503, HOLD, 200 };
        uint64_t changes;
        usec let_go;

        queue_begin(script, COUNT_OF(script));
        changes = status().changes;
        queue_lets_go();
        run(given_back);
        assert_int_equal(status().delivery, DELIVERY_RETRYING);
        assert_non_null(strstr(status().delivery_text, "answered 503: told to fail"));
        assert_int_equal(status().changes, changes);
        queue_lends(); /* it comes again, and is accepted */
        run(held);
        assert_int_equal(status().delivery, DELIVERY_RETRYING);
        reply(b.held, 200);
        b.held = NULL;
        run(well);
        assert_true(given_back());
        end();
        /* Nor because the worker stops. */
        queue_begin(script, 1);
        pipeline_stop(b.pipeline, 0);
        run(stopped);
        assert_int_equal(status().delivery, DELIVERY_RETRYING);
        end();
        /* And where it never comes again nothing fails any more, after a while. */
        queue_begin(script, 1);
        queue_lets_go();
        let_go = b.time.monotonic;
        run(well);
        assert_int_equal(b.time.monotonic - let_go, USEC_MINUTE);
        end();
}

/* A filter that takes long over records gives way to other tasks, and loses none of them. */
static void a_slow_filter_gives_way(void **state UNUSED)
{
        struct record records[3] = { 0 };

        filter = "  filter: {pattern: {is: [here]}}\n";
        begin_with(&queue_kind, NEVER, NULL, NULL, 0, 0);
        filter = "";
        run(connected);
        queue.slow = 6 * USEC_MSEC;
        for (size_t i = 0; i < COUNT_OF(records); i++) {
                records[i] = (struct record){
                        .track = 1, .position = i, .id = STR("one"), .value = STR("a message")
                };
                queue_tells((struct pull_event){ .kind = PULL_RECORD, .track = 1, .record = &records[i] });
        }
        run(three_requests);
        assert_int_equal(queue.described, 3);
        assert_int_equal(queue.at[1], queue.at[0]);
        assert_true(queue.at[2] > queue.at[1]);
        end();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(nor_is_one_that_a_filter_judges),
                cmocka_unit_test(a_slow_filter_gives_way),
                cmocka_unit_test(what_was_let_go_still_fails),
                cmocka_unit_test(ticks_are_delivered_in_the_functions_shape),
                cmocka_unit_test(what_fails_for_now_is_sent_again),
                cmocka_unit_test(what_is_refused_for_good_blocks_and_says_so),
                cmocka_unit_test(what_is_in_flight_is_finished_and_stored),
                cmocka_unit_test(at_the_deadline_it_stops_and_keeps_its_claim),
                cmocka_unit_test(a_claimed_tick_is_sent_first),
                cmocka_unit_test(without_its_store_nothing_is_sent),
                cmocka_unit_test(a_tick_is_not_lost_for_lack_of_memory),
                cmocka_unit_test(nor_is_one_that_wakes_a_pipeline),
                cmocka_unit_test(a_pipeline_that_slept_goes_on_as_before),
        };
        signals_block();
        return cmocka_run_group_tests_name("pipeline", tests, NULL, NULL);
}
