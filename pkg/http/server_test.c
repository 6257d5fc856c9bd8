#include "http/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static struct loop *loop;
static struct http_server *server;
static bool overdue;
static struct task watchdog;
static struct { struct http_call *held[64]; size_t held_n, handled, gone; bool hold; } app;

static void too_late(struct task *t UNUSED, usec now UNUSED)
{
        overdue = true;
        loop_stop(loop);
}

/* Echoes the body; /hold is answered later. */
static void handle(void *cookie UNUSED, struct http_call *c)
{
        const struct http_message *m = http_call_message(c);

        app.handled++;
        if (str_is(buf_view(&m->target), "/hold")) {
                app.held[app.held_n++] = c;
                loop_stop(loop);
        } else
                http_call_reply(c, 200, STR("text/plain"), STR("X-Path: yes\r\n"), m->body.n ? buf_view(&m->body) : buf_view(&m->target));
}

static void gone(void *cookie UNUSED, struct http_call *c)
{
        app.gone++;
        for (size_t i = 0; i < app.held_n; i++)
                if (app.held[i] == c)
                        app.held[i] = NULL;
        loop_stop(loop);
}

/* ---- a client of bare bytes ------------------------------------------------------------------------------------------------------------ */

struct peer { int fd; struct loop_io *io; struct buf in; const char *until; size_t times; bool closed; };

static void peer_event(void *cookie, int events UNUSED)
{
        struct peer *p = cookie;
        char space[4096];
        ssize_t n;
        size_t found = 0;

        while ((n = recv(p->fd, space, sizeof(space), 0)) > 0)
                buf_add(&p->in, space, (size_t)n);
        if (n == 0 || (n < 0 && errno != EAGAIN)) {
                p->closed = true;
                loop_io_want(p->io, 0);
                loop_stop(loop);
        }
        for (const char *at = p->in.p; at && p->until && (at = strstr(at, p->until)); at++)
                found++;
        if (p->until && found >= p->times)
                loop_stop(loop);
}

static void peer_connect(struct peer *p)
{
        struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(http_server_port(server)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        struct error err;

        *p = (struct peer){ .fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), .in = BUF_INIT(1 << 20) };
        assert_int_equal(connect(p->fd, (struct sockaddr *)&to, sizeof(to)), 0);
        assert_int_equal(fcntl(p->fd, F_SETFL, O_NONBLOCK), 0);
        assert_int_equal(loop_io_open(loop, p->fd, peer_event, p, &p->io, &err), 0);
        loop_io_want(p->io, LOOP_READABLE);
}

static void peer_say(struct peer *p, const char *text) { assert_int_equal(send(p->fd, text, strlen(text), MSG_NOSIGNAL), strlen(text)); }

static void run(void)
{
        loop_arm(loop, &watchdog, clock_monotonic(&system_clock) + 20 * USEC_SEC);
        loop_run(loop);
        loop_forget(loop, &watchdog);
        assert_false(overdue);
}

/* Until the text has come so many times; NULL: until the server closes. */
static const char *peer_await(struct peer *p, const char *until, size_t times)
{
        p->until = until;
        p->times = times;
        while (!p->closed) {
                size_t found = 0;

                for (const char *at = p->in.p; at && until && (at = strstr(at, until)); at++)
                        found++;
                if (until && found >= times)
                        break;
                run();
        }
        return buf_view(&p->in).p;
}

static void peer_done(struct peer *p)
{
        loop_io_close(p->io);
        (void)close(p->fd);
        buf_done(&p->in);
}

static void serve(struct http_server_config config)
{
        struct error err;

        config.address = config.address ? config.address : "127.0.0.1:0";
        config.head_max = 4096;
        config.body_max = 1000;
        config.handle = handle;
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
        return 0;
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

/* ---- tests ----------------------------------------------------------------------------------------------------------------------------- */

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
        static const char text[] = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
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
        refused_with("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 ");                              /* no Host */
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

static void too_many_connections_are_closed(void **state UNUSED)
{
        struct peer all[3];

        serve((struct http_server_config){ .max_connections = 2 });
        for (size_t i = 0; i < 3; i++)
                peer_connect(&all[i]);
        (void)peer_await(&all[2], NULL, 0);
        peer_say(&all[0], "GET /x HTTP/1.1\r\nHost: h\r\n\r\n");
        (void)peer_await(&all[0], "/x", 1);
        for (size_t i = 0; i < 3; i++)
                peer_done(&all[i]);
}

static void an_address_that_cannot_be_had_is_named(void **state UNUSED)
{
        static const char *const bad[] = { "nonsense", "300.1.1.1:80", "127.0.0.1:x", "localhost:80", "192.0.2.1:0" };

        for (size_t i = 0; i < COUNT_OF(bad); i++) {
                struct http_server_config config = { .address = bad[i], .head_max = 1000, .body_max = 1000, .handle = handle };
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
                cmocka_unit_test_setup_teardown(too_many_connections_are_closed, setup, teardown),
                cmocka_unit_test_setup_teardown(an_address_that_cannot_be_had_is_named, setup, teardown),
        };
        return cmocka_run_group_tests_name("server", tests, NULL, NULL);
}
