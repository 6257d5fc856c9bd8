#include "http/client/client.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "http/client/testing_port.h"
#include "tests/support/clock.h"

/* ---- a scripted server -------------------------------------------------- */

enum { CONNECTIONS = 128, MOST = 512 };
struct peer {
        int fd;
        struct loop_io *io;
        struct buf in;
        unsigned served;
};

static struct loop *loop;
static struct set_clock later;
static const struct clock later_clock = SET_CLOCK(&later);
static struct http_client *client;
static struct http_target *target;
static struct task wake, watchdog;
static bool overdue;
static char url[64];

static struct {
        int fd;
        struct loop_io *io;
        struct peer peers[CONNECTIONS];
        size_t peers_n;
        const char *answer;            /* NULL: none */
        unsigned close_after;          /* requests of a connection; 0: never */
        bool hang_up;                  /* right behind the answer, or in its place */
        void (*served)(struct peer *); /* a request has come; NULL: nothing more is done */
        size_t requests;
} script;
static struct {
        struct completion c;
        char body[4096];
} done[MOST];
static size_t done_n, wanted;

static void too_late(struct task *t UNUSED, usec now UNUSED)
{
        overdue = true;
        loop_stop(loop);
}

static void peer_close(struct peer *p)
{
        if (p->fd < 0)
                return;
        loop_io_close(p->io);
        (void)close(p->fd);
        p->fd = -1;
        buf_done(&p->in);
}

static void peer_event(void *cookie, int events UNUSED)
{
        struct peer *p = cookie;
        char space[65536];
        ssize_t n;
        const char *body;

        while ((n = recv(p->fd, space, sizeof(space), 0)) > 0)
                buf_add(&p->in, space, (size_t)n);
        if (n == 0 || (n < 0 && errno != EAGAIN)) {
                peer_close(p);
                return;
        }
        /* Every request here has the body "body". */
        while (p->fd >= 0 && p->in.p && (body = strstr(p->in.p, "\r\n\r\nbody"))) {
                buf_drop(&p->in, (size_t)(body - p->in.p) + 8);
                script.requests++;
                p->served++;
                if (script.served)
                        script.served(p);
                if (script.close_after && p->served > script.close_after) {
                        peer_close(p);
                        return;
                }
                if (script.answer)
                        assert_true(send(p->fd, script.answer, strlen(script.answer), MSG_NOSIGNAL) > 0);
                else if (!script.hang_up)
                        loop_stop(loop);
                if (script.hang_up)
                        peer_close(p);
        }
}

static void on_accept(void *cookie UNUSED, int events UNUSED)
{
        struct error err;
        int fd;

        while ((fd = accept4(script.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
                struct peer *p = &script.peers[script.peers_n++];

                assert_true(script.peers_n < CONNECTIONS);
                *p = (struct peer){ .fd = fd, .in = BUF_INIT(1 << 20) };
                assert_int_equal(loop_io_open(loop, fd, peer_event, p, &p->io, &err), 0);
                loop_io_want(p->io, LOOP_READABLE);
        }
}

static void on_wake(struct task *t UNUSED, usec now UNUSED)
{
        struct completion c;

        while (port_take(&c)) {
                assert_true(done_n < MOST);
                done[done_n].c = c;
                (void)snprintf(done[done_n].body, sizeof(done[done_n].body), STR_FMT, STR_ARG(c.body));
                done_n++;
        }
        if (done_n >= wanted)
                loop_stop(loop);
}

static void run(void)
{
        loop_arm(loop, &watchdog, clock_monotonic(&later_clock) + 20 * USEC_SEC);
        loop_run(loop);
        loop_forget(loop, &watchdog);
        assert_false(overdue);
}

static struct buf messages[MOST];

static void submit(uint64_t tag)
{
        struct buf *m = &messages[tag];
        struct error err;

        if (!m->n) {
                m->max = 65536;
                assert_true(buf_reserve(m, HTTP_HEADROOM));
                memset(m->p, 0, HTTP_HEADROOM);
                m->n = HTTP_HEADROOM;
                buf_text(m, "body");
        }
        if (port_submit(
                    &wake, tag,
                    &(struct http_request){ .target = target, .message = m, .headers = STR("X-Id: 1\r\n") },
                    &err) < 0)
                fail_msg("%s", err.text);
}

static void await(size_t n)
{
        wanted = n;
        while (done_n < n)
                run();
}

static const struct completion *request(void)
{
        submit(0);
        await(done_n + 1);
        return &done[done_n - 1].c;
}

static void aim(struct http_target_config config)
{
        struct error err;

        config.url = str_of(url);
        config.max_connections = config.max_connections ? config.max_connections : 4;
        config.connect_timeout = 5 * USEC_SEC;
        config.answer_max = 100;
        if (http_target_new(&target, client, &config, &err) < 0)
                fail_msg("%s", err.text);
}

static int setup(void **state UNUSED)
{
        struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        socklen_t size = sizeof(at);
        struct error err;

        overdue = false;
        later = (struct set_clock){ .runs = true };
        done_n = 0;
        memset(&script, 0, sizeof(script));
        watchdog = (struct task){ .turn = too_late };
        wake = (struct task){ .turn = on_wake };
        if (loop_new(&loop, &err) < 0 || http_client_new(&client, loop, &err) < 0)
                return -1;
        client_port = http_client_port(client);
        script.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (bind(script.fd, (struct sockaddr *)&at, size) < 0 || listen(script.fd, 128) < 0 ||
            getsockname(script.fd, (struct sockaddr *)&at, &size) < 0 ||
            loop_io_open(loop, script.fd, on_accept, NULL, &script.io, &err) < 0)
                return -1;
        loop_io_want(script.io, LOOP_READABLE);
        (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/f", ntohs(at.sin_port));
        script.answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        return 0;
}

static int teardown(void **state UNUSED)
{
        port_release_all();
        target = http_target_free(target);
        client = http_client_free(client);
        loop_forget(loop, &wake);
        loop_io_close(script.io);
        (void)close(script.fd);
        for (size_t i = 0; i < script.peers_n; i++)
                peer_close(&script.peers[i]);
        for (size_t i = 0; i < MOST; i++)
                buf_done(&messages[i]);
        loop = loop_free(loop);
        return 0;
}

/* ---- tests -------------------------------------------------------------- */

static void a_connection_is_used_again(void **state UNUSED)
{
        aim((struct http_target_config){ 0 });
        for (int i = 0; i < 20; i++) {
                const struct completion *c = request();

                assert_false(c->failed);
                assert_int_equal(c->status, 200);
                assert_string_equal(done[done_n - 1].body, "ok");
        }
        assert_int_equal(script.peers_n, 1);
        assert_int_equal(script.requests, 20);
        assert_int_equal(http_target_connections(target), 1);
}

static void an_answer_that_closes_is_obeyed(void **state UNUSED)
{
        aim((struct http_target_config){ 0 });
        script.answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
        for (int i = 0; i < 3; i++)
                assert_int_equal(request()->status, 200);
        assert_int_equal(script.peers_n, 3);
        assert_int_equal(http_target_connections(target), 0);
}

static void pass(usec time)
{
        set_clock_pass(&later, time);
        loop_use_clock(loop, &later_clock);
}

/* A server that says for how long it keeps an idle connection: what leaves as it closes it would be lost. */
static void a_connection_is_not_used_until_the_peer_closes_it(void **state UNUSED)
{
        static const struct {
                const char *says;
                usec within, after;
        } cases[] = {
                { "timeout=5", 2 * USEC_SEC, 2 * USEC_SEC },
                { "max=100 , Timeout = 5", 2 * USEC_SEC, 2 * USEC_SEC },
                { "timeout=1", 100 * USEC_MSEC, 400 * USEC_MSEC },
                { "timeout=0", USEC_HOUR, 0 },
                { "timeout=soon, max=3", USEC_HOUR, 0 },
                { "timeout=-1", USEC_HOUR, 0 },
                { "timeout=99999999999999999999", USEC_HOUR, 0 },
        };

        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                char answer[128];
                size_t peers = script.peers_n;

                (void)snprintf(answer, sizeof(answer),
                               "HTTP/1.1 200 OK\r\nKeep-Alive: %s\r\nContent-Length: 2\r\n\r\nok",
                               cases[i].says);
                script.answer = answer;
                aim((struct http_target_config){ .max_connections = 1, .once = true });
                for (int n = 0; n < 3; n++) {
                        assert_int_equal(request()->status, 200);
                        pass(cases[i].within);
                }
                assert_int_equal(script.peers_n, peers + 1);
                pass(cases[i].after);
                assert_int_equal(request()->status, 200);
                assert_int_equal(script.peers_n, peers + 1 + (cases[i].after > 0));
                target = http_target_free(target);
        }
}

static void a_body_may_end_with_the_connection(void **state UNUSED)
{
        aim((struct http_target_config){ 0 });
        script.answer = "HTTP/1.1 200 OK\r\n\r\nuntil the end";
        script.hang_up = true;
        assert_false(request()->failed);
        assert_string_equal(done[0].body, "until the end");
}

static const char *last_word;

/* It says so and ends, and the next request leaves before the loop could hear of it. */
static void ask(struct task *t UNUSED, usec now UNUSED)
{
        struct peer *p = &script.peers[script.peers_n - 1];

        assert_true(send(p->fd, last_word, strlen(last_word), MSG_NOSIGNAL) > 0);
        peer_close(p);
        submit(0);
}
static struct task asking = { .turn = ask };

/* The server closes an idle connection with a word: whatever it says is no answer to the request that leaves
 * next. */
static void what_an_idle_connection_says_is_no_answer(void **state UNUSED)
{
        static const char *const words[] = {
                "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "x"
        };

        aim((struct http_target_config){ .max_connections = 1, .once = true });
        assert_int_equal(request()->status, 200);
        for (size_t i = 0; i < COUNT_OF(words); i++) {
                last_word = words[i];
                loop_arm(loop, &asking, clock_monotonic(&system_clock) + 5 * USEC_MSEC);
                await(done_n + 1);
                assert_int_equal(done[done_n - 1].c.status, 200);
                assert_string_equal(done[done_n - 1].body, "ok");
                assert_int_equal(script.requests, i + 2);
        }
}

/* A 408 that crosses the request: nothing of it was acknowledged, so it goes out again. */
static void a_408_that_crosses_the_request_is_no_answer(void **state UNUSED)
{
        static const char late[] =
                "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

        aim((struct http_target_config){ .max_connections = 1 });
        assert_int_equal(request()->status, 200);
        assert_true(send(script.peers[0].fd, late, sizeof(late) - 1, MSG_NOSIGNAL) > 0);
        peer_close(&script.peers[0]);
        assert_int_equal(request()->status, 200);
        assert_int_equal(script.requests, 2);
        script.answer = late;
        assert_int_equal(request()->status, 408); /* of a request that the peer has seen */
}

static void reset_from_the_second_on(struct peer *p)
{
        const struct linger at_once = { .l_onoff = 1 };

        if (p->served > 1)
                (void)setsockopt(p->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
}

/* A reset that follows the request so soon that its acknowledgement never left looks like the race of an idle
 * connection: a target that must never repeat does not, and one that may does it once. */
static void a_target_may_forbid_to_send_again(void **state UNUSED)
{
        aim((struct http_target_config){ .max_connections = 1, .once = true });
        script.close_after = 1;
        script.served = reset_from_the_second_on;
        assert_false(request()->failed);
        assert_true(request()->failed);
        assert_int_equal(script.requests, 2);
        assert_int_equal(script.peers_n, 1);
}

/* Each request comes to the server of its own target, whatever becomes of the other's connections. */
static void one_targets_connections_are_nothing_to_another(void **state UNUSED)
{
        struct http_target *first, *second;

        aim((struct http_target_config){ .headers = STR("X-Sink: first\r\n") });
        first = target;
        target = NULL;
        aim((struct http_target_config){ .headers = STR("X-Sink: second\r\n") });
        second = target;
        for (int i = 0; i < 8; i++) {
                target = first;
                assert_int_equal(request()->status, 200);
                peer_close(&script.peers[script.peers_n - 1]); /* the end lies in the socket, unread */
                target = second;
                assert_int_equal(request()->status, 200);
                peer_close(&script.peers[script.peers_n - 1]);
        }
        assert_int_equal(script.requests, 16);
        (void)http_target_free(first);
}

static void a_fresh_connection_that_closes_is_a_failure(void **state UNUSED)
{
        const struct completion *c;

        aim((struct http_target_config){ 0 });
        script.answer = NULL;
        script.hang_up = true;
        c = request();
        assert_true(c->failed);
        assert_true(c->error.retry);
        assert_non_null(strstr(c->error.text, url));
        assert_int_equal(script.requests, 1);
}

static void half_an_answer_is_a_failure(void **state UNUSED)
{
        static const char *const halves[] = { "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
                                              "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
                                              "HTTP/1.1 2" };

        aim((struct http_target_config){ 0 });
        for (size_t i = 0; i < COUNT_OF(halves); i++) {
                const struct completion *c;

                /* also on a connection that was used before */
                script.answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                script.hang_up = false;
                assert_false(request()->failed);
                script.answer = halves[i];
                script.hang_up = true;
                c = request();
                assert_true(c->failed);
                assert_true(c->error.retry);
                assert_int_equal(script.requests, (i + 1) * 2);
        }
}

static void what_is_no_http_is_a_failure(void **state UNUSED)
{
        const struct completion *c;

        aim((struct http_target_config){ 0 });
        script.answer = "SSH-2.0-OpenSSH_9.2\r\n";
        c = request();
        assert_true(c->failed && c->error.retry);
        assert_int_equal(c->error.kind, ERROR_PROTOCOL);
        assert_non_null(strstr(c->error.text, url));
        assert_int_equal(http_target_connections(target), 0);
}

static void a_refused_connection_names_the_url(void **state UNUSED)
{
        const struct completion *c;

        loop_io_close(script.io);
        script.io = NULL;
        (void)close(script.fd);
        script.fd = -1;
        aim((struct http_target_config){ 0 });
        c = request();
        assert_true(c->failed && c->error.retry);
        assert_int_equal(c->error.kind, ERROR_UNREACHABLE);
        assert_false(c->error.elsewhere);
        assert_non_null(strstr(c->error.text, url));
}

static void a_cancelled_request_has_no_completion(void **state UNUSED)
{
        aim((struct http_target_config){ .max_connections = 1 });
        script.answer = NULL;
        submit(1);
        submit(2); /* waits for the connection */
        while (script.requests == 0)
                run();
        port_cancel(2);
        port_cancel(1);
        port_cancel(77);
        script.answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        submit(3);
        await(1);
        assert_int_equal(done_n, 1);
        assert_int_equal(done[0].c.tag, 3);
        assert_false(done[0].c.failed);
        assert_int_equal(script.peers_n, 2); /* the answer of the first could not be told from another's */
}

static void a_long_answer_is_cut(void **state UNUSED)
{
        BUF_AT_END struct buf text = BUF_INIT(65536);

        aim((struct http_target_config){ 0 });
        buf_printf(&text, "HTTP/1.1 500 Oh\r\nContent-Length: 10000\r\n\r\n%010000d", 0);
        script.answer = text.p;
        for (int i = 0; i < 2; i++) {
                assert_int_equal(request()->status, 500);
                assert_true(done[i].c.body_cut);
                assert_int_equal(strlen(done[i].body), 100);
        }
        assert_int_equal(script.peers_n, 1);
}

static void retry_after_is_read(void **state UNUSED)
{
        static const struct {
                const char *value;
                usec least, most;
        } all[] = {
                { "7", 7 * USEC_SEC, 7 * USEC_SEC },
                { "  7  ", 7 * USEC_SEC, 7 * USEC_SEC },
                { "0", 0, 0 },
                { "-5", 0, 0 },
                { "soon", 0, 0 },
                { "", 0, 0 },
                { "99999999999", USEC_DAY, USEC_DAY },
                { "99999999999999999999999999", USEC_DAY, USEC_DAY },
                { "Fri, 01 Jan 9999 00:00:00 GMT", USEC_DAY, USEC_DAY },
                { "9223372036854775807", USEC_DAY, USEC_DAY },
                { "Mon, 01 Jan 2001 00:00:00 GMT", 0, 0 },
        };
        time_t soon = time(NULL) + 100;
        char text[256], date[64];
        struct tm tm;

        aim((struct http_target_config){ 0 });
        script.answer = text;
        for (size_t i = 0; i < COUNT_OF(all); i++) {
                (void)snprintf(text, sizeof(text),
                               "HTTP/1.1 429 Slow\r\nRetry-After: %s\r\nContent-Length: 0\r\n\r\n",
                               all[i].value);
                assert_in_range(request()->retry_after, all[i].least, all[i].most);
        }
        (void)strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&soon, &tm));
        (void)snprintf(text, sizeof(text),
                       "HTTP/1.1 503 Slow\r\nretry-after: %s\r\nContent-Length: 0\r\n\r\n", date);
        assert_in_range(request()->retry_after, 70 * USEC_SEC, 100 * USEC_SEC);
        (void)snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n");
        assert_int_equal(request()->retry_after, 0);
}

static void two_answers_to_one_request_are_not_trusted(void **state UNUSED)
{
        aim((struct http_target_config){ 0 });
        script.answer =
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n";
        assert_int_equal(request()->status, 200);
        assert_int_equal(request()->status, 200);
        assert_int_equal(script.peers_n, 2);
}

static void sixty_four_in_flight(void **state UNUSED)
{
        bool seen[MOST] = { false };

        aim((struct http_target_config){ .max_connections = 64 });
        for (uint64_t tag = 0; tag < 64; tag++)
                submit(tag);
        await(64);
        assert_true(script.peers_n <= 64);
        for (uint64_t tag = 64; tag < 256; tag++) /* more than there may be connections */
                submit(tag);
        await(256);
        assert_true(script.peers_n <= 64);
        assert_int_equal(script.requests, 256);
        for (size_t i = 0; i < 256; i++) {
                assert_false(done[i].c.failed);
                assert_false(seen[done[i].c.tag]);
                seen[done[i].c.tag] = true;
        }
}

static void note(struct task *t UNUSED, usec now UNUSED) { loop_stop(loop); }

/* Owners share the client: each has its own task woken, and the answers in the list that it gave. */
static void each_owner_hears_of_its_own_requests(void **state UNUSED)
{
        struct task tasks[2] = { { .turn = note }, { .turn = note } };
        struct list lists[2] = { 0 };
        struct http_request mine[2][3] = { 0 };
        struct buf message = BUF_INIT(65536);
        struct error err;

        aim((struct http_target_config){ .max_connections = 1 });
        assert_true(buf_reserve(&message, HTTP_HEADROOM));
        message.n = HTTP_HEADROOM;
        buf_text(&message, "body");
        for (int owner = 0; owner < 2; owner++)
                for (int i = 0; i < 3; i++) {
                        struct http_request *q = &mine[owner][i];

                        q->request.wake = &tasks[owner];
                        q->request.done = &lists[owner];
                        q->target = target;
                        q->message = &message;
                        assert_int_equal(http_submit(&client_port, q, &err), 0);
                        assert_int_equal(q->request.state, REQUEST_BUSY);
                        while (q->request.state == REQUEST_BUSY)
                                run();
                        assert_int_equal(lists[owner].n, (size_t)i + 1);
                }
        for (int owner = 0; owner < 2; owner++)
                for (int i = 0; i < 3; i++)
                        assert_ptr_equal(request_next(&lists[owner]), &mine[owner][i].request);
        assert_null(request_next(&lists[0]));
        assert_true(str_is(mine[0][0].body, "ok")); /* an answer stays until it is released */
        assert_int_equal(http_submit(&client_port, &mine[0][0], &err), 0);
        assert_int_equal(mine[0][0].body.n, 0); /* or its request is used again */
        http_release(&client_port, &mine[0][0]);
        assert_true(request_idle(&mine[0][0].request));
        for (int owner = 0; owner < 2; owner++) {
                for (int i = 0; i < 3; i++)
                        http_release(&client_port, &mine[owner][i]);
                loop_forget(loop, &tasks[owner]);
        }
        buf_done(&message);
}

static void releasing_cancels_what_is_under_way(void **state UNUSED)
{
        aim((struct http_target_config){ .max_connections = 2 });
        script.answer = NULL;
        for (uint64_t tag = 0; tag < 5; tag++)
                submit(tag);
        while (script.requests < 2)
                run();
        port_release_all();
        assert_int_equal(done_n, 0);
        assert_null(http_target_free(NULL));
        assert_null(http_client_free(NULL));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(a_connection_is_used_again, setup, teardown),
                cmocka_unit_test_setup_teardown(an_answer_that_closes_is_obeyed, setup, teardown),
                cmocka_unit_test_setup_teardown(a_connection_is_not_used_until_the_peer_closes_it, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(a_body_may_end_with_the_connection, setup, teardown),
                cmocka_unit_test_setup_teardown(what_an_idle_connection_says_is_no_answer, setup, teardown),
                cmocka_unit_test_setup_teardown(a_408_that_crosses_the_request_is_no_answer, setup, teardown),
                cmocka_unit_test_setup_teardown(a_target_may_forbid_to_send_again, setup, teardown),
                cmocka_unit_test_setup_teardown(one_targets_connections_are_nothing_to_another, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(a_fresh_connection_that_closes_is_a_failure, setup, teardown),
                cmocka_unit_test_setup_teardown(half_an_answer_is_a_failure, setup, teardown),
                cmocka_unit_test_setup_teardown(what_is_no_http_is_a_failure, setup, teardown),
                cmocka_unit_test_setup_teardown(a_refused_connection_names_the_url, setup, teardown),
                cmocka_unit_test_setup_teardown(a_cancelled_request_has_no_completion, setup, teardown),
                cmocka_unit_test_setup_teardown(a_long_answer_is_cut, setup, teardown),
                cmocka_unit_test_setup_teardown(retry_after_is_read, setup, teardown),
                cmocka_unit_test_setup_teardown(two_answers_to_one_request_are_not_trusted, setup, teardown),
                cmocka_unit_test_setup_teardown(sixty_four_in_flight, setup, teardown),
                cmocka_unit_test_setup_teardown(each_owner_hears_of_its_own_requests, setup, teardown),
                cmocka_unit_test_setup_teardown(releasing_cancels_what_is_under_way, setup, teardown),
        };
        const int result = cmocka_run_group_tests_name("client", tests, NULL, NULL);

        curl_global_cleanup();
        return result;
}
