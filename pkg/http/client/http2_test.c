/* Streams: how many a connection carries, and what becomes of them when the peer says no, goes away or
 * changes its mind. */
#include <curl/curl.h>

#include "http/client/testing.h"

static int setup(void **state UNUSED)
{
        if (client_setup() < 0)
                return -1;
        server.http2 = true;
        return 0;
}

static int teardown(void **state UNUSED) { return client_teardown(); }

static void open_target(uint32_t connections, uint32_t streams)
{
        server_listen(&server, "127.0.0.1", 0);
        (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/f", server.port);
        aim((struct http_target_config){ .http_version = HTTP_2_PRIOR_KNOWLEDGE,
                                         .max_connections = connections,
                                         .max_streams = streams });
}

static void submit_many(uint64_t from, uint64_t to)
{
        for (uint64_t tag = from; tag < to; tag++)
                submit(tag);
}

static void expect_all_answered(size_t n)
{
        bool seen[MOST] = { false };

        await(n);
        assert_int_equal(done_n, n);
        for (size_t i = 0; i < n; i++) {
                if (done[i].c.failed)
                        fail_msg("%s", done[i].c.error.text);
                assert_false(seen[done[i].c.tag]);
                seen[done[i].c.tag] = true;
        }
}

static struct call *held[256];
static size_t held_n, held_wanted;
static void hold(struct call *c) { held[held_n++] = c; }
static bool enough_held(void) { return held_n >= held_wanted; }

static void wait_held(size_t n)
{
        held_wanted = n;
        run_until(enough_held);
}

static void one_connection_carries_all(void **state UNUSED)
{
        held_n = 0;
        server.handle = hold;
        open_target(4, 0);
        submit_many(0, 64);
        wait_held(64);
        assert_int_equal(server.peers_n, 1);
        for (size_t i = 64; i-- > 0;)
                reply(held[i], 200, "", STR("ok"));
        expect_all_answered(64);
        assert_int_equal(http_target_connections(target), 1);
}

static void another_is_opened_when_all_are_full(void **state UNUSED)
{
        held_n = 0;
        server.handle = hold;
        open_target(3, 10);
        submit_many(0, 35);
        wait_held(30);
        assert_int_equal(server.peers_n, 3);
        for (size_t i = 0; i < PEERS; i++)
                assert_true(server.peers[i].served <= 10);
        server.handle = answer_ok;
        for (size_t i = 0; i < 30; i++)
                reply(held[i], 200, "", STR("ok"));
        expect_all_answered(35);
        assert_int_equal(server.peers_n, 3);
}

/* The settings come after the first requests have been given to the connection. */
static void the_peers_bound_holds(void **state UNUSED)
{
        held_n = 0;
        server.handle = hold;
        server.max_streams = 7;
        open_target(3, 0);
        submit_many(0, 30);
        wait_held(21);
        assert_int_equal(server.peers_n, 3);
        server.handle = answer_ok;
        for (size_t i = 0; i < 21; i++)
                reply(held[i], 200, "", STR("ok"));
        expect_all_answered(30);
}

static unsigned passes;
static bool many_passes(void) { return ++passes > 1000; }

static void on_passed(struct task *t UNUSED, usec now UNUSED) { loop_stop(loop); }

static void let_pass(usec time)
{
        struct task passed = { .turn = on_passed };
        usec at = loop_now(loop) + time;

        loop_arm(loop, &passed, at);
        while (loop_now(loop) < at)
                loop_run(loop);
        loop_forget(loop, &passed);
}

/* Such as one that is overloaded: not each of the connections that there may be is opened for what waits, nor
 * for what comes later. */
static void a_peer_that_takes_no_request_for_now_is_waited_for(void **state UNUSED)
{
        const nghttp2_settings_entry some = { NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 100 };

        passes = 0;
        server.handle = answer_ok;
        server.no_streams = true;
        open_target(32, 0);
        submit_many(0, 3);
        run_until(many_passes);
        assert_int_equal(server.peers_n, 1);
        let_pass(1100 * USEC_MSEC);
        submit_many(3, 6);
        passes = 0;
        run_until(many_passes);
        assert_int_equal(server.peers_n, 2); /* one is tried */
        assert_int_equal(done_n, 0);
        (void)nghttp2_submit_settings(server.peers[0].h2, 0, &some, 1);
        h2_flush(&server.peers[0]);
        expect_all_answered(6);
        assert_int_equal(server.peers_n, 2);
}

static void goaway(struct peer *p, int32_t last)
{
        (void)nghttp2_submit_goaway(p->h2, NGHTTP2_FLAG_NONE, last, NGHTTP2_NO_ERROR, NULL, 0);
        h2_flush(p);
}

/* What lies above the last stream goes to another connection at once, the rest is answered on this one, which
 * is closed then. */
static void going_away_loses_nothing(void **state UNUSED)
{
        held_n = 0;
        server.handle = hold;
        open_target(2, 0);
        submit_many(0, 10);
        wait_held(10);
        server.handle = answer_ok;
        goaway(&server.peers[0], held[3]->stream);
        await(6);
        assert_int_equal(server.peers_n, 2);
        for (size_t i = 0; i < 4; i++)
                reply(held[i], 200, "", STR("late"));
        expect_all_answered(10);
        assert_int_equal(server.requests, 16);
        assert_int_equal(http_target_connections(target), 1);
}

static void going_away_and_closing_tells_the_truth(void **state UNUSED)
{
        size_t maybe = 0;

        held_n = 0;
        server.handle = hold;
        open_target(2, 0);
        submit_many(0, 4);
        wait_held(4);
        server.handle = answer_ok;
        goaway(&server.peers[0], held[1]->stream);
        peer_close(&server.peers[0]);
        await(4);
        for (size_t i = 0; i < 4; i++) {
                assert_int_equal(done[i].c.failed, done[i].c.maybe_processed);
                maybe += done[i].c.maybe_processed;
        }
        assert_int_equal(maybe, 2);
}

static void refuse_first(struct call *c)
{
        if (c->peer->server->requests > 5) {
                answer_ok(c);
                return;
        }
        (void)nghttp2_submit_rst_stream(c->peer->h2, NGHTTP2_FLAG_NONE, c->stream, NGHTTP2_REFUSED_STREAM);
        h2_flush(c->peer);
}

static void what_is_refused_goes_again(void **state UNUSED)
{
        server.handle = refuse_first;
        open_target(2, 0);
        submit_many(0, 5);
        expect_all_answered(5);
        assert_int_equal(server.requests, 10);
        assert_int_equal(server.peers_n, 1);
}

static void reset(struct call *c)
{
        (void)nghttp2_submit_rst_stream(c->peer->h2, NGHTTP2_FLAG_NONE, c->stream, NGHTTP2_INTERNAL_ERROR);
        h2_flush(c->peer);
}

static void a_reset_concerns_one_stream(void **state UNUSED)
{
        held_n = 0;
        server.handle = hold;
        open_target(1, 0);
        submit_many(0, 2);
        wait_held(2);
        reset(held[0]);
        await(1);
        assert_true(done[0].c.failed && done[0].c.maybe_processed && done[0].c.error.retry);
        reply(held[1], 200, "", STR("ok"));
        await(2);
        assert_false(done[1].c.failed);
        assert_int_equal(server.peers_n, 1);
}

static bool answered_twice(void) { return done_n >= 2; }

/* A window that closes in the middle: the rest goes when it opens. Another stream is not held up. */
static void the_peers_window_is_respected(void **state UNUSED)
{
        BUF_AT_END struct buf body = BUF_INIT(1 << 20);

        open_target(1, 0);
        assert_true(buf_reserve(&body, 300000));
        memset(body.p, 'x', 300000);
        body.n = 300000;
        submit_request(1, (struct http_request){ .message = message_of(1, buf_view(&body)) });
        submit(2);
        run_until(answered_twice);
        expect_all_answered(2);
        assert_int_equal(server.calls[0].body.n, 300000);
}

static void an_oversized_head_fails_alone(void **state UNUSED)
{
        static struct buf lines = { .max = 1 << 20 };

        held_n = 0;
        server.handle = hold;
        open_target(1, 0);
        submit_many(0, 2);
        wait_held(2);
        for (int i = 0; i < 100; i++)
                buf_printf(&lines, "X-%d: %01000d\r\n", i, 0);
        reply(held[0], 200, lines.p, STR("ok"));
        reply(held[1], 200, "", STR("ok"));
        await(2);
        assert_int_equal(done[0].c.failed + done[1].c.failed, 1);
        for (size_t i = 0; i < 2; i++)
                if (done[i].c.failed)
                        assert_non_null(strstr(done[i].c.error.text, "header is too large"));
        assert_int_equal(server.peers_n, 1);
        buf_done(&lines);
        server.handle = answer_ok;
        assert_false(request()->failed);
}

static void send_away(struct call *c)
{
        (void)nghttp2_submit_goaway(c->peer->h2, NGHTTP2_FLAG_NONE, 0, NGHTTP2_ENHANCE_YOUR_CALM, NULL, 0);
}

/* The server's own reason is what people need. */
static void why_the_server_goes_away_is_told(void **state UNUSED)
{
        server.handle = send_away;
        open_target(1, 0);
        assert_true(request()->failed);
        assert_non_null(strstr(done[0].c.error.text, "the server sent GOAWAY: ENHANCE_YOUR_CALM"));
        assert_false(done[0].c.maybe_processed);
}

/* ---- a connection that swallows what is sent ---------------------------- */

static bool deaf;
static bool first_is_deaf(struct peer *p, struct str bytes UNUSED) { return deaf && p == &server.peers[0]; }

static void open_silent(usec ping_after)
{
        deaf = false;
        server.raw = first_is_deaf;
        server_listen(&server, "127.0.0.1", 0);
        (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/f", server.port);
        aim((struct http_target_config){
                .http_version = HTTP_2_PRIOR_KNOWLEDGE, .max_connections = 2, .ping_after = ping_after });
        assert_false(request()->failed);
        deaf = true;
}

static void a_silent_connection_is_asked_and_given_up(void **state UNUSED)
{
        open_silent(50 * USEC_MSEC);
        submit(1);
        submit(2);
        await(3);
        for (size_t i = 1; i < 3; i++) {
                assert_true(done[i].c.failed && done[i].c.error.retry && done[i].c.maybe_processed);
                assert_int_equal(done[i].c.error.kind, ERROR_TIMEOUT);
                assert_non_null(strstr(done[i].c.error.text, "did not answer a PING"));
        }
        assert_false(request()->failed);
        assert_int_equal(server.peers_n, 2);
}

static usec pause_until;
static bool paused(void) { return clock_monotonic(&system_clock) >= pause_until; }

static void pause_for(usec time)
{
        pause_until = clock_monotonic(&system_clock) + time;
        run_until(paused);
}

/* Each is given up before the silence has lasted long enough to be asked: the silence is the connection's all
 * the same. */
static void attempts_that_are_shorter_than_the_silence(void **state UNUSED)
{
        open_silent(200 * USEC_MSEC);
        for (uint64_t tag = 1; tag < 40 && server.peers_n < 2; tag++) {
                submit(tag);
                pause_for(50 * USEC_MSEC);
                port_cancel(tag);
        }
        assert_int_equal(server.peers_n, 2);
        assert_false(request()->failed);
}

static void a_slow_function_is_no_silence(void **state UNUSED)
{
        open_silent(30 * USEC_MSEC);
        deaf = false;
        held_n = 0;
        server.handle = hold;
        submit(1);
        wait_held(1);
        pause_for(300 * USEC_MSEC); /* its server answers PINGs */
        reply(held[0], 200, "", STR("ok"));
        await(2);
        assert_false(done[1].c.failed);
        assert_int_equal(server.peers_n, 1);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(one_connection_carries_all, setup, teardown),
                cmocka_unit_test_setup_teardown(why_the_server_goes_away_is_told, setup, teardown),
                cmocka_unit_test_setup_teardown(a_silent_connection_is_asked_and_given_up, setup, teardown),
                cmocka_unit_test_setup_teardown(attempts_that_are_shorter_than_the_silence, setup, teardown),
                cmocka_unit_test_setup_teardown(a_slow_function_is_no_silence, setup, teardown),
                cmocka_unit_test_setup_teardown(another_is_opened_when_all_are_full, setup, teardown),
                cmocka_unit_test_setup_teardown(the_peers_bound_holds, setup, teardown),
                cmocka_unit_test_setup_teardown(a_peer_that_takes_no_request_for_now_is_waited_for, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(going_away_loses_nothing, setup, teardown),
                cmocka_unit_test_setup_teardown(going_away_and_closing_tells_the_truth, setup, teardown),
                cmocka_unit_test_setup_teardown(what_is_refused_goes_again, setup, teardown),
                cmocka_unit_test_setup_teardown(a_reset_concerns_one_stream, setup, teardown),
                cmocka_unit_test_setup_teardown(the_peers_window_is_respected, setup, teardown),
                cmocka_unit_test_setup_teardown(an_oversized_head_fails_alone, setup, teardown),
        };
        int result;

        filter_tests();
        result = cmocka_run_group_tests_name("http2", tests, NULL, NULL);
        curl_global_cleanup();
        return result;
}
