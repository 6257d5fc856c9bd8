#include "base/outlet.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"

static struct {
        int pipe[2];
        struct outlet outlet;
        char read[1 << 20];
} b;

static int setup(void **state UNUSED)
{
        assert_int_equal(pipe2(b.pipe, O_CLOEXEC), 0);
        assert_int_equal(fcntl(b.pipe[0], F_SETFL, O_NONBLOCK), 0);
        b.outlet = (struct outlet){ .fd = b.pipe[1] };
        (void)alarm(20); /* it never waits for a reader that does not read */
        return 0;
}

static int teardown(void **state UNUSED)
{
        (void)alarm(0);
        (void)close(b.pipe[0]);
        (void)close(b.pipe[1]);
        return 0;
}

static size_t read_all(void)
{
        size_t n = 0;
        ssize_t r;

        while ((r = read(b.pipe[0], b.read + n, sizeof(b.read) - 1 - n)) > 0)
                n += (size_t)r;
        b.read[n] = 0;
        return n;
}

static void a_reader_that_stops_holds_up_nothing(void **state UNUSED)
{
        unsigned written = 0, dropped = 0;

        for (unsigned i = 0; i < 100000; i++) {
                char line[32];

                (void)snprintf(line, sizeof(line), "line %u\n", i);
                if (outlet_write(&b.outlet, str_of(line))) {
                        assert_int_equal(dropped, 0);
                        written++;
                } else
                        dropped++;
        }
        assert_true(written > 1000 && dropped > 1000);
        assert_int_equal(b.outlet.dropped, dropped);
        (void)read_all();
        assert_true(strncmp(b.read, "line 0\nline 1\n", 14) == 0);
        /* What comes once it reads on is whole, and begins a line. */
        assert_true(outlet_write(&b.outlet, STR("again\n")));
        assert_int_equal(read_all(), 6);
        assert_string_equal(b.read, "again\n");
}

static void a_line_that_is_cut_ends_before_the_next(void **state UNUSED)
{
        static char text[100000];

        memset(text, 'x', sizeof(text) - 1);
        text[sizeof(text) - 1] = '\n';
        assert_false(outlet_write(&b.outlet, (struct str){ text, sizeof(text) }));
        assert_true(read_all() >= 4096);
        assert_false(strchr(b.read, '\n'));
        assert_true(outlet_write(&b.outlet, STR("next\n")));
        (void)read_all();
        assert_string_equal(b.read, "\nnext\n");
}

static void what_is_closed_is_no_end(void **state UNUSED)
{
        int closed = b.pipe[1];

        (void)close(b.pipe[0]);
        b.pipe[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
        assert_false(outlet_write(&b.outlet, STR("to nobody\n")));
        b.outlet.fd = -1;
        assert_false(outlet_write(&b.outlet, STR("nowhere\n")));
        b.outlet.fd = closed;
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(a_reader_that_stops_holds_up_nothing, setup, teardown),
                cmocka_unit_test_setup_teardown(a_line_that_is_cut_ends_before_the_next, setup, teardown),
                cmocka_unit_test_setup_teardown(what_is_closed_is_no_end, setup, teardown),
        };

        (void)signal(SIGPIPE, SIG_IGN);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
