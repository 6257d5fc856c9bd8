/* The admin port's connections: what it answers, and that nobody who is silent keeps a probe out. */
#include "worker/admin.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "log/log.h"

enum { SILENT = 100 };

static struct loop *loop;
static struct admin *admin;
static struct task watchdog;
static bool overdue;
static struct {
        int fd;
        struct loop_io *io;
        char text[65536];
        size_t n;
        bool closed;
} asker;

static void too_late(struct task *t UNUSED, usec now UNUSED)
{
        overdue = true;
        loop_stop(loop);
}

static int connect_to(void)
{
        const struct sockaddr_in to = { .sin_family = AF_INET,
                                        .sin_port = htons(admin_port(admin)),
                                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        assert_true(fd >= 0);
        assert_int_equal(connect(fd, (const struct sockaddr *)&to, sizeof(to)), 0);
        return fd;
}

static void on_answer(void *cookie UNUSED, int events UNUSED)
{
        ssize_t n = read(asker.fd, asker.text + asker.n, sizeof(asker.text) - 1 - asker.n);

        if (n > 0)
                asker.n += (size_t)n;
        else if (n == 0 || errno != EAGAIN) {
                asker.closed = true;
                loop_stop(loop);
        }
}

/* The whole answer to one request. */
static const char *ask(const char *method, const char *path)
{
        char request[256];
        struct error err;
        int n = snprintf(request, sizeof(request), "%s %s HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
                         method, path);

        memset(&asker, 0, sizeof(asker));
        asker.fd = connect_to();
        assert_int_equal(write(asker.fd, request, (size_t)n), n);
        assert_int_equal(fcntl(asker.fd, F_SETFL, O_NONBLOCK), 0);
        assert_int_equal(loop_io_open(loop, asker.fd, on_answer, NULL, &asker.io, &err), 0);
        loop_io_want(asker.io, LOOP_READABLE);
        loop_arm(loop, &watchdog, clock_monotonic(&system_clock) + 20 * USEC_SEC);
        while (!asker.closed && !overdue)
                loop_run(loop);
        loop_forget(loop, &watchdog);
        loop_io_close(asker.io);
        (void)close(asker.fd);
        assert_false(overdue);
        return asker.text;
}

static int setup(void **state UNUSED)
{
        struct error err;

        overdue = false;
        watchdog = (struct task){ .turn = too_late };
        return loop_new(&loop, &err) || admin_new(&admin, loop, "127.0.0.1:0", &err);
}

static int teardown(void **state UNUSED)
{
        admin = admin_free(admin);
        loop = loop_free(loop);
        return 0;
}

static bool answers(const char *method, const char *path, const char *with)
{
        return strstr(ask(method, path), with) != NULL;
}

static void it_answers_what_it_knows(void **state UNUSED)
{
        assert_true(answers("GET", "/livez", "HTTP/1.1 200 "));
        assert_true(answers("GET", "/readyz?verbose", "HTTP/1.1 200 "));
        assert_true(answers("HEAD", "/livez", "HTTP/1.1 200 "));
        assert_true(answers("GET", "/metrics", "# TYPE sluice_filter_failures_total counter\n"));
        assert_true(answers("GET", "/status", "{\"triggers\":[]}"));
        assert_true(answers("GET", "/", "HTTP/1.1 404 "));
        assert_true(answers("POST", "/livez", "HTTP/1.1 405 "));
        admin_drain(admin);
        assert_true(answers("GET", "/readyz", "draining"));
        assert_true(answers("GET", "/livez", "HTTP/1.1 200 "));
}

/* Silent from the start, or in the middle of a request. */
static void silent_connections_keep_no_probe_out(void **state UNUSED)
{
        static const char *const said[] = { "", "GET /livez HTTP/1.1\r\nHo",
                                            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n1" };
        int silent[SILENT];

        for (size_t i = 0; i < SILENT; i++) {
                const char *text = said[i % COUNT_OF(said)];

                silent[i] = connect_to();
                assert_int_equal(write(silent[i], text, strlen(text)), strlen(text));
        }
        for (int i = 0; i < 10; i++)
                assert_true(answers("GET", "/livez", "HTTP/1.1 200 "));
        for (size_t i = 0; i < SILENT; i++)
                (void)close(silent[i]);
}

/* Nor those who ask for much, and take nothing of it. */
static void nor_do_those_who_take_no_answer(void **state UNUSED)
{
        static const char request[] = "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n";
        BUF_AT_END struct buf many = BUF_INIT((size_t)1 << 20);
        int deaf[SILENT], least = 4096;

        for (int i = 0; i < 2000; i++)
                buf_text(&many, request);
        for (size_t i = 0; i < SILENT; i++) {
                deaf[i] = connect_to();
                (void)setsockopt(deaf[i], SOL_SOCKET, SO_RCVBUF, &least, sizeof(least));
                assert_true(send(deaf[i], many.p, many.n, MSG_DONTWAIT) > 0);
        }
        for (int i = 0; i < 10; i++)
                assert_true(answers("GET", "/livez", "HTTP/1.1 200 "));
        for (size_t i = 0; i < SILENT; i++)
                (void)close(deaf[i]);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(it_answers_what_it_knows, setup, teardown),
                cmocka_unit_test_setup_teardown(silent_connections_keep_no_probe_out, setup, teardown),
                cmocka_unit_test_setup_teardown(nor_do_those_who_take_no_answer, setup, teardown),
        };

        signals_block();
        log_setup(LOG_ERROR, LOG_LOGFMT);
        return cmocka_run_group_tests_name("admin connections", tests, NULL, NULL);
}
