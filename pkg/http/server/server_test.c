#include "http/server/testing.h"

#include "tests/support/clock.h"

static struct {
        struct http_call *held[64];
        size_t held_n, handled, gone, before_other;
        struct buf client, subject, names;
        bool tls;
        struct buf *take;
} app;

/* Echoes the body; /hold is answered later, /large with 16 MiB, /large-taken with the same without a copy,
 * /who notes who asks. */
static void handle(void *cookie UNUSED, struct http_call *c)
{
        const struct http_message *m = http_call_message(c);
        struct str target = buf_view(&m->target);

        app.before_other = str_is(target, "/other") ? app.handled : app.before_other;
        app.handled++;
        if (str_starts(target, STR("/hold"))) {
                app.held[app.held_n++] = c;
                loop_stop(loop);
        } else if (str_is(target, "/large") || str_is(target, "/large-taken")) {
                struct buf body = BUF_INIT((size_t)32 << 20);

                assert_true(buf_reserve(&body, (size_t)16 << 20));
                for (size_t i = 0; i < (size_t)16 << 20; i += 8)
                        (void)snprintf(body.p + i, 9, "%08zx", i);
                body.n = (size_t)16 << 20;
                if (target.n > 6)
                        http_call_reply_take(c, 200, STR("text/plain"), (struct str){ 0 }, &body);
                else
                        http_call_reply(c, 200, STR("text/plain"), (struct str){ 0 }, buf_view(&body));
                buf_done(&body);
        } else {
                app.client.max = app.subject.max = app.names.max = 4096;
                buf_reset(&app.client);
                buf_reset(&app.subject);
                buf_reset(&app.names);
                http_call_client(c, &app.client);
                app.tls = http_call_tls(c);
                if (!http_call_certificate(c, &app.subject, &app.names))
                        buf_text(&app.subject, "none");
                if (str_is(target, "/last"))
                        http_call_last(c);
                http_call_reply(c, 200, STR("text/plain"), STR("X-Path: yes\r\n"),
                                m->body.n ? buf_view(&m->body) : target);
        }
}

static void gone(void *cookie UNUSED, struct http_call *c)
{
        app.gone++;
        for (size_t i = 0; i < app.held_n; i++)
                if (app.held[i] == c)
                        app.held[i] = NULL;
        loop_stop(loop);
}

static void serve(struct http_server_config config)
{
        struct http_server_tls tls = { .cert = tls_cert, .key = tls_key };

        struct error err;

        config.address = config.address ? config.address : "127.0.0.1:0";
        config.head_max = 4096;
        config.body_max = config.body_max ? config.body_max : 1000;
        config.handle = handle;
        config.tls = config.tls ? config.tls : over_tls ? &tls : NULL;
        if (http_server_new(&server, loop, &config, &err) < 0)
                fail_msg("%s", err.text);
        assert_int_not_equal(http_server_port(server), 0);
}

static int setup(void **state UNUSED)
{
        struct error err;

        overdue = false;
        watchdog = (struct task){ .turn = too_late };
        memset(&app, 0, sizeof(app));
        return loop_new(&loop, &err);
}

static int teardown(void **state UNUSED)
{
        server = http_server_free(server);
        loop = loop_free(loop);
        buf_done(&app.client);
        buf_done(&app.subject);
        buf_done(&app.names);
        return 0;
}

static struct http_server_stats stats_now(void)
{
        struct http_server_stats stats;

        http_server_stats(server, &stats);
        return stats;
}

static struct http_call *held(size_t n)
{
        while (app.held_n < n)
                run();
        return app.held[n - 1];
}

static void answer(struct http_call *c, const char *text)
{
        http_call_reply(c, 200, (struct str){ 0 }, (struct str){ 0 }, str_of(text));
}

/* What a connection says to a text and then closes. */
static void refused_with(const char *text, const char *status)
{
        struct peer p;

        peer_connect(&p);
        peer_say(&p, text);
        if (strncmp(peer_await(&p, NULL, 0), status, strlen(status)) != 0)
                fail_msg("\"%s\" was answered \"%s\"", text, buf_view(&p.in).p);
        assert_non_null(strstr(p.in.p, "Connection: close"));
        peer_done(&p);
}

/* ---- tests -------------------------------------------------------------- */

static void a_connection_carries_many_requests(void **state UNUSED)
{
        struct peer p;

        serve((struct http_server_config){ 0 });
        peer_connect(&p);
        for (size_t i = 1; i <= 10; i++) {
                peer_say(&p, "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello");
                (void)peer_await(&p, "Content-Length: 5\r\n\r\nhello", i);
        }
        assert_false(p.closed);
        assert_int_equal(app.handled, 10);
        assert_null(strstr(p.in.p, "Connection: close"));
        peer_say(&p, "GET /last HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        assert_non_null(strstr(peer_await(&p, NULL, 0), "Connection: close\r\n\r\n/last"));
        peer_done(&p);
}

static void a_request_may_come_byte_by_byte(void **state UNUSED)
{
        static const char text[] =
                "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        struct peer p;

        serve((struct http_server_config){ 0 });
        peer_connect(&p);
        for (size_t i = 0; i < sizeof(text) - 1; i++)
                peer_say(&p, (char[]){ text[i], 0 });
        (void)peer_await(&p, "\r\n\r\nabc", 1);
        assert_int_equal(app.handled, 1);
        peer_done(&p);
}

static void pipelined_requests_are_answered_in_order(void **state UNUSED)
{
        BUF_AT_END struct buf all = BUF_INIT(65536);
        const char *at;
        struct peer p;

        serve((struct http_server_config){ 0 });
        peer_connect(&p);
        for (int i = 0; i < 100; i++)
                buf_printf(&all, "GET /%03d HTTP/1.1\r\nHost: h\r\n\r\n", i);
        peer_say(&p, all.p);
        at = peer_await(&p, "\r\n\r\n/", 100);
        for (int i = 0; i < 100; i++) {
                char body[32];

                (void)snprintf(body, sizeof(body), "\r\n\r\n/%03d", i);
                at = strstr(at, body);
                assert_non_null(at);
        }
        peer_done(&p);
}

static void a_late_answer_keeps_its_place(void **state UNUSED)
{
        const char *all;
        struct peer p;

        serve((struct http_server_config){ 0 });
        peer_connect(&p);
        peer_say(&p, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\nGET /next HTTP/1.1\r\nHost: h\r\n\r\n");
        while (app.held_n == 0)
                run();
        assert_int_equal(app.handled, 1); /* one at a time */
        http_call_set(app.held[0], &app);
        assert_ptr_equal(http_call_get(app.held[0]), &app);
        http_call_reply(app.held[0], 202, (struct str){ 0 }, (struct str){ 0 }, STR("held"));
        all = peer_await(&p, "/next", 1);
        assert_true(strstr(all, "held") && strstr(all, "held") < strstr(all, "/next"));
        peer_done(&p);
}

static void head_and_204_have_no_body(void **state UNUSED)
{
        struct peer p;

        serve((struct http_server_config){ 0 });
        peer_connect(&p);
        peer_say(&p, "HEAD /abc HTTP/1.1\r\nHost: h\r\n\r\nGET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
        while (app.held_n == 0)
                run();
        http_call_reply(app.held[0], 204, (struct str){ 0 }, (struct str){ 0 }, STR("nothing"));
        (void)peer_await(&p, "HTTP/1.1 204 No Content\r\nDate: ", 1);
        (void)peer_await(&p, "\r\n\r\n", 2);
        assert_non_null(strstr(p.in.p, "Content-Length: 4\r\n\r\nHTTP/1.1 204"));
        assert_non_null(strstr(p.in.p, " GMT\r\n\r\n"));
        assert_null(strstr(p.in.p, "nothing"));
        peer_done(&p);
}

static void what_breaks_the_rules_is_refused(void **state UNUSED)
{
        BUF_AT_END struct buf large = BUF_INIT(65536);

        serve((struct http_server_config){ 0 });
        refused_with("nonsense\r\n\r\n", "HTTP/1.1 400 ");
        refused_with("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "); /* no Host */
        refused_with("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "HTTP/1.1 400 ");
        refused_with("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n folded\r\n\r\n", "HTTP/1.1 400 ");
        refused_with("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n", "HTTP/1.1 413 ");
        refused_with("GET / HTTP/2.0\r\nHost: a\r\n\r\n", "HTTP/1.1 505 ");
        buf_printf(&large, "GET / HTTP/1.1\r\nHost: a\r\nX: %04100d\r\n\r\n", 0);
        refused_with(large.p, "HTTP/1.1 431 ");
        assert_int_equal(app.handled, 0);
}

static void a_slow_request_is_given_up(void **state UNUSED)
{
        struct peer silent;

        serve((struct http_server_config){ .idle_timeout = 50 * USEC_MSEC });
        refused_with("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf", "HTTP/1.1 408 ");
        refused_with("GET / HT", "HTTP/1.1 408 ");
        peer_connect(&silent); /* said nothing: closed without a word */
        assert_string_equal(peer_await(&silent, NULL, 0), "");
        peer_done(&silent);
}

/* The time for a request to arrive begins with its first byte, not with the connection. */
static struct peer *late;
static void say_rest(struct task *t UNUSED, usec now UNUSED) { peer_say(late, "lf"); }
static struct task rest = { .turn = say_rest };
static void say_half(struct task *t UNUSED, usec now)
{
        peer_say(late, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nha");
        loop_arm(loop, &rest, now + 300 * USEC_MSEC);
}

static void a_late_request_has_its_time(void **state UNUSED)
{
        struct task half = { .turn = say_half };
        struct peer p;

        serve((struct http_server_config){ .idle_timeout = 500 * USEC_MSEC });
        peer_connect(&p);
        late = &p;
        loop_arm(loop, &half, loop_now(loop) + 300 * USEC_MSEC);
        (void)peer_await(&p, "half", 1);
        assert_int_equal(strncmp(p.in.p, "HTTP/1.1 200 ", 13), 0);
        loop_forget(loop, &rest);
        peer_done(&p);
}

static void the_handler_hears_who_left(void **state UNUSED)
{
        struct peer p;

        serve((struct http_server_config){ .gone = gone, .half_close = -1 });
        peer_connect(&p);
        peer_say(&p, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
        while (app.held_n == 0)
                run();
        peer_done(&p);
        while (!app.gone)
                run();
        assert_null(app.held[0]);
}

static void an_answer_into_the_void_is_fine(void **state UNUSED)
{
        struct peer p, other;

        serve((struct http_server_config){ 0 });
        peer_connect(&p);
        peer_say(&p, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
        while (app.held_n == 0)
                run();
        peer_done(&p);
        peer_connect(&other); /* by its answer the server has seen the other leave */
        peer_say(&other, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n");
        (void)peer_await(&other, "/x", 1);
        http_call_reply(app.held[0], 200, (struct str){ 0 }, (struct str){ 0 }, STR("nobody"));
        peer_done(&other);
}

static unsigned rests;
static void on_rest(struct task *t UNUSED, usec now UNUSED)
{
        rests++;
        loop_stop(loop);
}

/* Neither one that is kept, nor one that has said nothing: who has begun a request, and who takes an answer.
 */
static void after_a_drain_it_tells_when_all_is_answered(void **state UNUSED)
{
        struct task rested = { .turn = on_rest };
        struct peer idle, silent, half, slow;

        rests = 0;
        serve((struct http_server_config){ .rested = &rested });
        peer_connect(&idle);
        peer_say(&idle, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n");
        (void)peer_await(&idle, "/x", 1);
        peer_connect(&silent);
        assert_false(http_server_busy(server));
        peer_connect(&half);
        peer_connect(&slow);
        slow.deaf = true;
        loop_io_want(slow.io, 0);
        peer_say(&slow, "GET /large HTTP/1.1\r\nHost: h\r\n\r\n");
        while (app.handled < 2) {
                loop_arm(loop, &watchdog, loop_now(loop) + USEC_MSEC);
                loop_run(loop);
        }
        overdue = false;
        peer_say(&half, "POST /y HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n1");
        http_server_drain(server);
        (void)peer_await(&idle, NULL, 0);
        assert_true(http_server_busy(server));
        peer_say(&half, "2");
        assert_non_null(strstr(peer_await(&half, NULL, 0), "Connection: close\r\n\r\n12"));
        assert_true(http_server_busy(server));
        assert_int_equal(rests, 0);
        slow.deaf = false;
        loop_io_want(slow.io, LOOP_READABLE);
        while (!rests)
                run();
        assert_false(http_server_busy(server));
        (void)peer_await(&slow, NULL, 0);
        assert_int_equal(slow.in.n - (size_t)(strstr(slow.in.p, "\r\n\r\n") + 4 - slow.in.p),
                         (size_t)16 << 20);
        loop_forget(loop, &rested);
        peer_done(&idle);
        peer_done(&silent);
        peer_done(&half);
        peer_done(&slow);
}

static void draining_answers_what_is_in_flight(void **state UNUSED)
{
        struct peer idle, busy;

        serve((struct http_server_config){ 0 });
        peer_connect(&idle);
        peer_say(&idle, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n");
        (void)peer_await(&idle, "/x", 1);
        peer_connect(&busy);
        peer_say(&busy, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
        while (app.held_n == 0)
                run();
        http_server_drain(server);
        http_server_drain(server);
        (void)peer_await(&idle, NULL, 0);
        assert_false(busy.closed);
        http_call_reply(app.held[0], 200, (struct str){ 0 }, (struct str){ 0 }, STR("done"));
        assert_non_null(strstr(peer_await(&busy, NULL, 0), "Connection: close\r\n\r\ndone"));
        peer_done(&idle);
        peer_done(&busy);
}

static void too_many_connections_are_turned_away(void **state UNUSED)
{
        struct peer all[4];

        serve((struct http_server_config){ .max_connections = 2, .gone = gone });
        for (size_t i = 0; i < 2; i++) {
                peer_connect(&all[i]);
                peer_say(&all[i], "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
                (void)held(i + 1);
        }
        for (size_t i = 2; i < 4; i++)
                peer_start(&all[i]);
        (void)peer_await(&all[2], NULL, 0);
        (void)peer_await(&all[3], NULL, 0);
        /* One is answered, with TLS none; the others are closed. */
        assert_int_equal(count_of(&all[2].in, "HTTP/1.1 503 ") + count_of(&all[3].in, "HTTP/1.1 503 "),
                         over_tls ? 0 : 1);
        for (size_t i = 0; i < 2; i++) {
                answer(app.held[i], "kept");
                (void)peer_await(&all[i], "kept", 1);
        }
        assert_int_equal(stats_now().refused[HTTP_OVERLOADED], 2);
        for (size_t i = 0; i < 4; i++)
                peer_done(&all[i]);
}

/* Idle, or in the middle of a head or a body: the one that was heard of longest ago; who is worked for stays.
 */
static void who_is_quiet_gives_way_to_who_comes(void **state UNUSED)
{
        static const char *const said[] = { "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n", "",
                                            "GET / HTTP/1.1\r\nHo",
                                            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n1" };
        struct peer all[4], comes;

        serve((struct http_server_config){ .max_connections = 4, .gone = gone });
        for (size_t i = 0; i < COUNT_OF(all); i++) {
                peer_connect(&all[i]);
                peer_say(&all[i], said[i]);
                if (i == 0)
                        (void)held(1);
        }
        for (size_t i = 1; i < COUNT_OF(all); i++) {
                peer_connect(&comes);
                peer_say(&comes, "GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
                assert_non_null(strstr(peer_await(&comes, "/x", 1), "HTTP/1.1 200 "));
                (void)peer_await(&comes, NULL, 0);
                peer_done(&comes);
                (void)peer_await(&all[i], NULL, 0); /* is closed, and comes again as the loudest */
                peer_done(&all[i]);
                peer_connect(&all[i]);
                peer_say(&all[i], "GET /x HTTP/1.1\r\nHost: h\r\n\r\n");
                (void)peer_await(&all[i], "/x", 1);
        }
        answer(app.held[0], "kept");
        (void)peer_await(&all[0], "kept", 1);
        for (size_t i = 0; i < COUNT_OF(all); i++)
                peer_done(&all[i]);
}

/* ---- who leaves --------------------------------------------------------- */

/* As nc -N does. */
static void a_half_closed_client_gets_its_answers(void **state UNUSED)
{
        struct peer p;

        serve((struct http_server_config){ .gone = gone, .half_close = 20 * USEC_SEC });
        peer_connect(&p);
        p.shut = true;
        peer_say(&p, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\nGET /hold2 HTTP/1.1\r\nHost: h\r\n\r\nGET /a "
                     "HTTP/1.1\r\nHost: h\r\n\r\nGET /rest");
        (void)held(1);
        peer_turn(&p.task, 0);
        answer(app.held[0], "first");
        answer(held(2), "second");
        assert_non_null(strstr(peer_await(&p, NULL, 0), "second"));
        assert_int_equal(app.handled, 3);
        assert_int_equal(app.gone, 0);
        assert_int_equal(count_of(&p.in, "HTTP/1.1 200 "), 3);
        peer_done(&p);
}

static struct peer *leaver;
static void leave(struct task *t UNUSED, usec now UNUSED) { (void)shutdown(leaver->fd, SHUT_WR); }

static void a_client_that_ends_later_has_left(void **state UNUSED)
{
        struct task leaving = { .turn = leave };
        struct peer p;

        serve((struct http_server_config){ .gone = gone, .half_close = USEC_MSEC });
        peer_connect(&p);
        leaver = &p;
        peer_say(&p, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
        (void)held(1);
        loop_arm(loop, &leaving, loop_now(loop) + 50 * USEC_MSEC);
        while (!app.gone)
                run();
        assert_null(app.held[0]);
        loop_forget(loop, &leaving);
        peer_done(&p);
}

static void a_reset_is_always_leaving(void **state UNUSED)
{
        struct linger now = { .l_onoff = 1 };
        struct peer p;

        serve((struct http_server_config){ .gone = gone, .half_close = 20 * USEC_SEC });
        peer_connect(&p);
        peer_say(&p, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
        (void)held(1);
        (void)setsockopt(p.fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        peer_done(&p);
        while (!app.gone)
                run();
        assert_null(app.held[0]);
}

static void who_pipelines_too_much_waits(void **state UNUSED)
{
        BUF_AT_END struct buf many = BUF_INIT((size_t)1 << 20);
        struct peer p;

        serve((struct http_server_config){ .gone = gone });
        for (size_t i = 0; i < 8000; i++)
                buf_printf(&many, "GET /%05zu HTTP/1.1\r\nHost: h\r\n\r\n", i);
        peer_connect(&p);
        peer_say(&p, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
        (void)held(1);
        peer_say_bytes(&p, buf_view(&many));
        app.handled = 0;
        answer(app.held[0], "go");
        (void)peer_await(&p, "/07999", 1);
        assert_int_equal(app.handled, 8000);
        assert_true(stats_now().buffered < (size_t)1 << 20);
        peer_done(&p);
}

/* Whatever it has sent ahead, the others have their turns between. */
static void who_pipelines_takes_turns_with_others(void **state UNUSED)
{
        BUF_AT_END struct buf many = BUF_INIT((size_t)1 << 20);
        struct peer p, other;

        serve((struct http_server_config){ 0 });
        for (size_t i = 0; i < 1500; i++)
                buf_printf(&many, "GET /%05zu HTTP/1.1\r\nHost: h\r\n\r\n", i);
        peer_connect(&p);
        peer_connect(&other);
        peer_say(&p, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
        (void)held(1);
        peer_say_bytes(&p, buf_view(&many)); /* it is all there before the other's comes */
        peer_say(&other, "GET /first HTTP/1.1\r\nHost: h\r\n\r\n");
        (void)peer_await(&other, "/first", 1);
        app.handled = 0;
        answer(app.held[0], "go");
        peer_say(&other, "GET /other HTTP/1.1\r\nHost: h\r\n\r\n");
        (void)peer_await(&other, "/other", 1);
        assert_in_range(app.before_other, 0, 100);
        (void)peer_await(&p, "/01499", 1);
        assert_int_equal(app.handled, 1501);
        peer_done(&p);
        peer_done(&other);
}

/* That it waits for its turn is no reason to take it for one that is silent, nor for one that has ended. */
static void who_waits_for_a_turn_is_not_closed(void **state UNUSED)
{
        BUF_AT_END struct buf many = BUF_INIT((size_t)1 << 20);
        struct peer p, others[4];

        serve((struct http_server_config){ .max_connections = 2 });
        for (size_t i = 0; i < 500; i++)
                buf_printf(&many, "GET /%05zu HTTP/1.1\r\nHost: h\r\n\r\n", i);
        peer_connect(&p);
        peer_say_bytes(&p, buf_view(&many));
        for (size_t i = 0; i < COUNT_OF(others); i++)
                peer_connect(&others[i]);
        (void)peer_await(&p, "/00499", 1);
        assert_int_equal(app.handled, 500);
        peer_done(&p);
        for (size_t i = 0; i < COUNT_OF(others); i++)
                peer_done(&others[i]);
}

/* ---- limits ------------------------------------------------------------- */

static void a_connection_carries_so_many_requests(void **state UNUSED)
{
        struct peer p;

        serve((struct http_server_config){ .max_requests = 2 });
        peer_connect(&p);
        peer_say(&p, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\nGET /3 "
                     "HTTP/1.1\r\nHost: h\r\n\r\n");
        (void)peer_await(&p, NULL, 0);
        assert_int_equal(app.handled, 2);
        assert_int_equal(count_of(&p.in, "Connection: close\r\n\r\n/2"), 1);
        peer_done(&p);
}

static void the_handler_may_say_that_it_is_the_last(void **state UNUSED)
{
        struct peer p;

        serve((struct http_server_config){ 0 });
        peer_connect(&p);
        peer_say(&p, "GET /last HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_non_null(strstr(peer_await(&p, NULL, 0), "Connection: close\r\n\r\n/last"));
        peer_done(&p);
}

static struct {
        struct peer *peer;
        const char *text;
} drip;
static void drip_on(struct task *t, usec now)
{
        peer_say(drip.peer, drip.text);
        loop_arm(loop, t, now + 5 * USEC_MSEC);
}

/* Bytes that keep coming do not buy time for a head, and not below the rate for a body. */
static void slow_clients_are_given_up(void **state UNUSED)
{
        static const struct {
                const char *start, *drip;
        } all[] = {
                { "GET / HTTP/1.1\r\nHost: h\r\n", "X: y\r\n" },
                { "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n", "x" },
                { "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n" },
        };

        serve((struct http_server_config){
                .head_timeout = 60 * USEC_MSEC, .body_grace = 60 * USEC_MSEC, .body_rate = 1 << 20 });
        for (size_t i = 0; i < COUNT_OF(all); i++) {
                struct task dripping = { .turn = drip_on };
                struct peer p;

                peer_connect(&p);
                peer_say(&p, all[i].start);
                drip.peer = &p;
                drip.text = all[i].drip;
                loop_arm(loop, &dripping, loop_now(loop));
                (void)peer_await(&p, "HTTP/1.1 408 ", 1);
                loop_forget(loop, &dripping);
                assert_non_null(strstr(p.in.p, "HTTP/1.1 408 "));
                peer_done(&p);
        }
        assert_int_equal(stats_now().refused[HTTP_TIMED_OUT], 3);
}

static void a_body_that_is_fast_enough_has_more_time(void **state UNUSED)
{
        struct task dripping = { .turn = drip_on };
        struct peer p;

        serve((struct http_server_config){ .body_grace = 200 * USEC_MSEC, .body_rate = 10 });
        peer_connect(&p);
        peer_say(&p, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 300\r\n\r\n");
        drip.peer = &p;
        drip.text = "xxxxx"; /* 60 times 5 ms */
        loop_arm(loop, &dripping, loop_now(loop));
        (void)peer_await(&p, "HTTP/1.1 ", 1);
        loop_forget(loop, &dripping);
        assert_non_null(strstr(p.in.p, "HTTP/1.1 200 "));
        peer_done(&p);
}

static void who_does_not_take_the_answer_is_given_up(void **state UNUSED)
{
        struct peer p;

        serve((struct http_server_config){ .write_timeout = 50 * USEC_MSEC, .write_rate = (size_t)1 << 40 });
        peer_connect(&p);
        p.deaf = true;
        loop_io_want(p.io, 0);
        peer_say(&p, "GET /large HTTP/1.1\r\nHost: h\r\n\r\n");
        while (app.handled == 0 || stats_now().connections) {
                loop_arm(loop, &watchdog, loop_now(loop) + 10 * USEC_MSEC);
                loop_run(loop);
        }
        overdue = false;
        assert_true(stats_now().buffered < (size_t)1 << 20);
        peer_done(&p);
}

static void bodies_are_bounded_together(void **state UNUSED)
{
        BUF_AT_END struct buf half = BUF_INIT((size_t)1 << 21);
        struct peer all[4];

        serve((struct http_server_config){ .body_max = (size_t)1 << 20, .buffered_max = (size_t)1 << 20 });
        buf_printf(&half, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n%0500000d", 0);
        for (size_t i = 0; i < COUNT_OF(all); i++)
                peer_connect(&all[i]);
        for (size_t i = 0; i < COUNT_OF(all); i++)
                peer_say_bytes(&all[i], buf_view(&half));
        while (stats_now().refused[HTTP_OVERLOADED] == 0) {
                loop_arm(loop, &watchdog, loop_now(loop) + 10 * USEC_MSEC);
                loop_run(loop);
        }
        overdue = false;
        assert_true(stats_now().buffered <= ((size_t)1 << 20) + 4 * (size_t)(512 << 10));
        for (size_t i = 0; i < COUNT_OF(all); i++)
                peer_done(&all[i]);
}

static struct set_clock ahead;
static const struct clock ahead_clock = SET_CLOCK(&ahead);

/* The loop's time is the test's to pass. */
static void use_ahead(void)
{
        ahead = (struct set_clock){ .runs = true };
        loop_use_clock(loop, &ahead_clock);
}

/* Besides, it passes by itself, or does not. */
static void let_time_pass(bool runs)
{
        usec monotonic = clock_monotonic(&ahead_clock), wall = clock_wall(&ahead_clock);

        ahead = (struct set_clock){ .runs = runs };
        ahead.monotonic = monotonic - clock_monotonic(&ahead_clock);
        ahead.wall = wall - clock_wall(&ahead_clock);
}

/* Takes nothing of a large answer. Time stands still. */
static void begin_deaf(struct peer *p)
{
        size_t handled = app.handled;

        peer_connect(p);
        p->deaf = true;
        loop_io_want(p->io, 0);
        peer_say(p, "GET /large HTTP/1.1\r\nHost: h\r\n\r\nGET /unread HTTP/1.1\r\nHost: h\r\n\r\n");
        while (app.handled == handled) {
                loop_ready(loop, &watchdog);
                loop_run(loop);
        }
        overdue = false;
}

static bool is_served(const char *text)
{
        struct peer p;
        bool served;

        peer_connect(&p);
        peer_say(&p, text);
        served = strncmp(peer_await(&p, NULL, 0), "HTTP/1.1 200 ", 13) == 0;
        peer_done(&p);
        return served;
}

/* Their answers stand in memory: who holds more gives way at once, one's own only once it does not go on. */
static void who_takes_no_answer_gives_way(void **state UNUSED)
{
        BUF_AT_END struct buf body = BUF_INIT((size_t)1 << 21);
        struct peer deaf;

        use_ahead();
        serve((struct http_server_config){
                .body_max = (size_t)1 << 20, .buffered_max = (size_t)4 << 20, .max_connections = 2 });
        let_time_pass(false);
        buf_printf(
                &body,
                "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 500000\r\n\r\n%0500000d",
                0);
        begin_deaf(&deaf);
        assert_true(http_server_buffered(server) > (size_t)4 << 20);
        assert_false(is_served(body.p));
        set_clock_pass(&ahead, USEC_SEC);
        assert_true(is_served(body.p));
        assert_true(http_server_buffered(server) < (size_t)4 << 20);
        peer_done(&deaf);
        peer_from = 2;
        begin_deaf(&deaf);
        peer_from = 1;
        assert_true(is_served(body.p));
        assert_true(http_server_buffered(server) < (size_t)4 << 20);
        peer_done(&deaf);
}

/* And where connections run short, whatever lies unread behind what it does not take. */
static void nor_keeps_a_place_for_ever(void **state UNUSED)
{
        static const char request[] = "GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        struct peer deaf;

        use_ahead();
        serve((struct http_server_config){ .max_connections = 1 });
        let_time_pass(false); /* or it may have had its second on a busy machine */
        begin_deaf(&deaf);
        assert_false(is_served(request));
        set_clock_pass(&ahead, USEC_SEC);
        assert_true(is_served(request));
        peer_done(&deaf);
        server = http_server_free(server);
        serve((struct http_server_config){ .max_connections = 1, .newcomers_first = true });
        begin_deaf(&deaf);
        assert_true(is_served(request));
        peer_done(&deaf);
}

/* What a handler holds for a request counts, until it is answered or given up. */
static void what_a_handler_holds_counts(void **state UNUSED)
{
        enum { HELD = 1 << 20 };
        struct peer a, b;

        serve((struct http_server_config){ .gone = gone, .half_close = -1 });
        peer_connect(&a);
        peer_connect(&b);
        peer_say(&a, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
        http_call_hold(held(1), HELD);
        peer_say(&b, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
        http_call_hold(held(2), HELD);
        assert_in_range(http_server_buffered(server), 2 * HELD, 3 * HELD);
        answer(app.held[0], "a");
        (void)peer_await(&a, "HTTP/1.1 ", 1);
        assert_in_range(http_server_buffered(server), HELD, 2 * HELD);
        shutdown(b.fd, SHUT_RDWR);
        while (!app.gone)
                run();
        assert_in_range(http_server_buffered(server), 0, HELD);
        peer_done(&a);
        peer_done(&b);
}

/* ---- answers ------------------------------------------------------------ */

static void large_answers_arrive_whole(void **state UNUSED)
{
        static const char *const all[] = {
                "GET /large HTTP/1.1\r\nHost: h\r\n\r\nGET /next HTTP/1.1\r\nHost: h\r\n\r\n",
                "GET /large-taken HTTP/1.1\r\nHost: h\r\n\r\nGET /next HTTP/1.1\r\nHost: h\r\n\r\n"
        };

        serve((struct http_server_config){ 0 });
        for (size_t i = 0; i < COUNT_OF(all); i++) {
                struct peer p;
                const char *body;

                peer_connect(&p);
                peer_say(&p, all[i]);
                while (p.in.n < 6 || memcmp(p.in.p + p.in.n - 5, "/next", 5) != 0) {
                        p.until = "/next";
                        p.times = 1;
                        if (p.in.n > (size_t)16 << 20)
                                run();
                        else {
                                p.until = NULL;
                                loop_arm(loop, &watchdog, loop_now(loop) + 5 * USEC_MSEC);
                                loop_run(loop);
                                overdue = false;
                        }
                }
                body = strstr(p.in.p, "Content-Length: 16777216\r\n\r\n") + 28;
                for (size_t at = 0; at < (size_t)16 << 20; at += 8) {
                        char expected[9];

                        (void)snprintf(expected, sizeof(expected), "%08zx", at);
                        if (memcmp(body + at, expected, 8) != 0)
                                fail_msg("at %zu: %.8s", at, body + at);
                }
                assert_int_equal(strncmp(body + ((size_t)16 << 20), "HTTP/1.1 200 OK\r\n", 17), 0);
                peer_done(&p);
        }
}

static void who_waits_for_100_gets_it(void **state UNUSED)
{
        struct peer p;

        serve((struct http_server_config){ 0 });
        peer_connect(&p);
        peer_say(&p, "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
        assert_string_equal(peer_await(&p, "\r\n\r\n", 1), "HTTP/1.1 100 Continue\r\n\r\n");
        peer_say(&p, "body");
        (void)peer_await(&p, "\r\n\r\nbody", 1);
        /* Who does not wait needs none. */
        peer_say(&p, "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nhere");
        (void)peer_await(&p, "\r\n\r\nhere", 1);
        assert_int_equal(count_of(&p.in, "100 Continue"), 1);
        peer_done(&p);
}

static void statuses_have_their_texts(void **state UNUSED)
{
        static const struct {
                int status;
                const char *line;
        } all[] = { { 201, "201 Created" },
                    { 304, "304 Not Modified" },
                    { 494, "494 Request Header Too Large" },
                    { 504, "504 Gateway Timeout" },
                    { 299, "299 Success" },
                    { 499, "499 Client Error" },
                    { 777, "777 Status" },
                    { 100, "500 Internal Server Error" } };
        struct peer p;

        serve((struct http_server_config){ 0 });
        peer_connect(&p);
        for (size_t i = 0; i < COUNT_OF(all); i++) {
                char line[64];

                peer_say(&p, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
                http_call_reply(held(i + 1), all[i].status, (struct str){ 0 }, (struct str){ 0 }, STR("x"));
                (void)snprintf(line, sizeof(line), "HTTP/1.1 %s\r\nDate: ", all[i].line);
                (void)peer_await(&p, line, 1);
        }
        peer_done(&p);
}

/* ---- proxies ------------------------------------------------------------ */

static void a_trusted_proxy_names_the_client(void **state UNUSED)
{
        static const char *const nobody[] = { "10.0.0.0/8" }, *const trusted[] = { "127.0.0.0/8",
                                                                                   "10.0.0.0/8" };
        static const struct {
                const char *headers, *client;
                bool tls;
        } all[] = {
                ROW("", "127.0.0.1", false),
                ROW("X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n", "192.0.2.1", true),
                ROW("X-Forwarded-For: 198.51.100.1, 192.0.2.1:99 , 10.1.2.3\r\nX-Forwarded-Proto: http\r\n",
                    "192.0.2.1", false),
        };

        for (size_t t = 0; t < 2; t++) {
                serve((struct http_server_config){ .trusted = t ? trusted : nobody, .trusted_n = t + 1 });
                for (size_t i = 0; i < COUNT_OF(all); i++) {
                        char text[256];
                        struct peer p;

                        peer_connect(&p);
                        (void)snprintf(text, sizeof(text), "GET /who HTTP/1.1\r\nHost: h\r\n%s\r\n",
                                       all[i].headers);
                        peer_say(&p, text);
                        (void)peer_await(&p, "/who", 1);
                        assert_string_equal(app.client.p, t ? all[i].client : "127.0.0.1");
                        assert_int_equal(app.tls, over_tls || (t && all[i].tls));
                        assert_string_equal(app.subject.p, "none");
                        peer_done(&p);
                }
                server = http_server_free(server);
        }
}

/* ---- the end ------------------------------------------------------------ */

static void lingering_accepts_and_says_close(void **state UNUSED)
{
        struct peer idle, late_one, after;

        serve((struct http_server_config){ 0 });
        peer_connect(&idle);
        peer_say(&idle, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n");
        (void)peer_await(&idle, "/1", 1);
        http_server_linger(server, 500 * USEC_MSEC);
        peer_connect(&late_one);
        peer_say(&late_one, "GET /2 HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_non_null(strstr(peer_await(&late_one, NULL, 0), "Connection: close\r\n\r\n/2"));
        assert_false(idle.closed);
        (void)peer_await(&idle, NULL, 0); /* the time is over */
        assert_int_equal(app.handled, 2);
        after.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(
                connect(after.fd,
                        (struct sockaddr *)&(struct sockaddr_in){ .sin_family = AF_INET,
                                                                  .sin_port = htons(http_server_port(server)),
                                                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) },
                        sizeof(struct sockaddr_in)),
                -1);
        (void)close(after.fd);
        peer_done(&idle);
        peer_done(&late_one);
}

/* What the kernel has accepted, and what lies in a socket, is in flight. */
static void draining_loses_no_request(void **state UNUSED)
{
        struct peer idle, waiting;

        serve((struct http_server_config){ 0 });
        peer_connect(&idle);
        peer_say(&idle, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n");
        (void)peer_await(&idle, "/1", 1);
        peer_start(&waiting);
        peer_say(&waiting, "GET /2 HTTP/1.1\r\nHost: h\r\n\r\n");
        peer_say(&idle, "GET /3 HTTP/1.1\r\nHost: h\r\n\r\n");
        http_server_drain(server);
        assert_non_null(strstr(peer_await(&waiting, NULL, 0), "Connection: close\r\n\r\n/2"));
        assert_non_null(strstr(peer_await(&idle, NULL, 0), "Connection: close\r\n\r\n/3"));
        peer_done(&idle);
        peer_done(&waiting);
}

static void an_address_that_cannot_be_had_is_named(void **state UNUSED)
{
        static const char *const bad[] = { "nonsense",    "300.1.1.1:80",    "127.0.0.1:x", "localhost:80",
                                           "192.0.2.1:0", "127.0.0.1:65536", ":99999",      ":+9",
                                           ":-1",         "127.0.0.1:" };

        for (size_t i = 0; i < COUNT_OF(bad); i++) {
                struct http_server_config config = {
                        .address = bad[i], .head_max = 1000, .body_max = 1000, .handle = handle
                };
                struct error err = { 0 };

                assert_int_equal(http_server_new(&server, loop, &config, &err), -1);
                assert_non_null(strstr(err.text, bad[i]));
        }
        assert_null(server);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(a_connection_carries_many_requests, setup, teardown),
                cmocka_unit_test_setup_teardown(a_request_may_come_byte_by_byte, setup, teardown),
                cmocka_unit_test_setup_teardown(pipelined_requests_are_answered_in_order, setup, teardown),
                cmocka_unit_test_setup_teardown(a_late_answer_keeps_its_place, setup, teardown),
                cmocka_unit_test_setup_teardown(head_and_204_have_no_body, setup, teardown),
                cmocka_unit_test_setup_teardown(what_breaks_the_rules_is_refused, setup, teardown),
                cmocka_unit_test_setup_teardown(a_slow_request_is_given_up, setup, teardown),
                cmocka_unit_test_setup_teardown(a_late_request_has_its_time, setup, teardown),
                cmocka_unit_test_setup_teardown(the_handler_hears_who_left, setup, teardown),
                cmocka_unit_test_setup_teardown(an_answer_into_the_void_is_fine, setup, teardown),
                cmocka_unit_test_setup_teardown(draining_answers_what_is_in_flight, setup, teardown),
                cmocka_unit_test_setup_teardown(after_a_drain_it_tells_when_all_is_answered, setup, teardown),
                cmocka_unit_test_setup_teardown(too_many_connections_are_turned_away, setup, teardown),
                cmocka_unit_test_setup_teardown(who_is_quiet_gives_way_to_who_comes, setup, teardown),
                cmocka_unit_test_setup_teardown(a_half_closed_client_gets_its_answers, setup, teardown),
                cmocka_unit_test_setup_teardown(a_client_that_ends_later_has_left, setup, teardown),
                cmocka_unit_test_setup_teardown(a_reset_is_always_leaving, setup, teardown),
                cmocka_unit_test_setup_teardown(who_pipelines_too_much_waits, setup, teardown),
                cmocka_unit_test_setup_teardown(who_pipelines_takes_turns_with_others, setup, teardown),
                cmocka_unit_test_setup_teardown(who_waits_for_a_turn_is_not_closed, setup, teardown),
                cmocka_unit_test_setup_teardown(a_connection_carries_so_many_requests, setup, teardown),
                cmocka_unit_test_setup_teardown(the_handler_may_say_that_it_is_the_last, setup, teardown),
                cmocka_unit_test_setup_teardown(slow_clients_are_given_up, setup, teardown),
                cmocka_unit_test_setup_teardown(a_body_that_is_fast_enough_has_more_time, setup, teardown),
                cmocka_unit_test_setup_teardown(who_does_not_take_the_answer_is_given_up, setup, teardown),
                cmocka_unit_test_setup_teardown(bodies_are_bounded_together, setup, teardown),
                cmocka_unit_test_setup_teardown(who_takes_no_answer_gives_way, setup, teardown),
                cmocka_unit_test_setup_teardown(nor_keeps_a_place_for_ever, setup, teardown),
                cmocka_unit_test_setup_teardown(what_a_handler_holds_counts, setup, teardown),
                cmocka_unit_test_setup_teardown(large_answers_arrive_whole, setup, teardown),
                cmocka_unit_test_setup_teardown(who_waits_for_100_gets_it, setup, teardown),
                cmocka_unit_test_setup_teardown(statuses_have_their_texts, setup, teardown),
                cmocka_unit_test_setup_teardown(a_trusted_proxy_names_the_client, setup, teardown),
                cmocka_unit_test_setup_teardown(lingering_accepts_and_says_close, setup, teardown),
                cmocka_unit_test_setup_teardown(draining_loses_no_request, setup, teardown),
                cmocka_unit_test_setup_teardown(an_address_that_cannot_be_had_is_named, setup, teardown),
        };

        if (getenv("TEST_FILTER"))
                cmocka_set_test_filter(getenv("TEST_FILTER"));
        return cmocka_run_group_tests_name("server, plain", tests, flavour_plain, NULL) +
               cmocka_run_group_tests_name("server, TLS", tests, flavour_tls, flavour_tls_done);
}
