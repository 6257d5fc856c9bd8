#include "log/log.h"

#include <fcntl.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"

static struct {
        int pipe[2], stderr_copy;
        char text[200000];
} capture;

static void capture_begin(void)
{
        assert_int_equal(pipe2(capture.pipe, O_CLOEXEC), 0);
        (void)fcntl(capture.pipe[1], F_SETPIPE_SZ, 1 << 20);
        (void)fcntl(capture.pipe[1], F_SETFL, O_NONBLOCK); /* a line too long fails rather than hangs */
        capture.stderr_copy = dup(STDERR_FILENO);
        assert_true(dup2(capture.pipe[1], STDERR_FILENO) >= 0);
        (void)close(capture.pipe[1]);
}

static const char *capture_end(void)
{
        size_t n = 0;
        ssize_t r;

        assert_true(dup2(capture.stderr_copy, STDERR_FILENO) >= 0);
        (void)close(capture.stderr_copy);
        while ((r = read(capture.pipe[0], capture.text + n, sizeof(capture.text) - 1 - n)) > 0)
                n += (size_t)r;
        (void)close(capture.pipe[0]);
        capture.text[n] = 0;
        return capture.text;
}

/* The line behind its time, which is checked here. */
static const char *after_time(const char *line)
{
        struct str rest = str_of(line), time;
        usec at;

        assert_true(str_starts(rest, STR("time=")));
        time = str_cut(&rest, ' ');
        assert_true(time_parse((struct str){ time.p + 5, time.n - 5 }, &at));
        assert_true(clock_wall(&system_clock) - at < USEC_MINUTE);
        return rest.p;
}

static void logfmt_quotes_what_needs_it(void **state UNUSED)
{
        log_setup(LOG_INFO, LOG_LOGFMT);
        capture_begin();
        log_info("started", LOG_S("plain", "a/b:c,d"), LOG_S("empty", ""), LOG_S("space", "a b"),
                 LOG_S("equals", "a=b"), LOG_S("quote", "say \"x\""), LOG_S("slash", "a\\b"),
                 LOG_S("line", "a\nb"), LOG_S("del", "\x7f"), LOG_S("umlaut", "\xc3\xa4"),
                 LOG_S("broken", "\xff x"), LOG_S("null", NULL), LOG_V("view", ((struct str){ "abcdef", 3 })),
                 LOG_I("int", INT64_MIN), LOG_D("took", 1500 * USEC_MSEC));
        assert_string_equal(after_time(capture_end()),
                            "level=info msg=started plain=a/b:c,d empty=\"\" space=\"a b\" equals=\"a=b\" "
                            "quote=\"say \\\"x\\\"\" slash=\"a\\\\b\" line=\"a\\nb\" "
                            "del=\" \" umlaut=\xc3\xa4 broken=\"\xef\xbf\xbd x\" null=\"\" view=abc "
                            "int=-9223372036854775808 took=1.5s\n");
}

static void a_message_is_one_line(void **state UNUSED)
{
        const char *text;

        log_setup(LOG_INFO, LOG_LOGFMT);
        capture_begin();
        log_error("two\nlines and \"quotes\"", LOG_S("error", "x\r\ny"));
        text = after_time(capture_end());
        assert_string_equal(text, "level=error msg=\"two\\nlines and \\\"quotes\\\"\" error=\"x\\r\\ny\"\n");
}

static void json_is_json(void **state UNUSED)
{
        char every[256];
        json_t *line;
        json_error_t why;

        for (int i = 0; i < 255; i++)
                every[i] = (char)(i + 1);
        every[255] = 0;
        log_setup(LOG_DEBUG, LOG_JSON);
        capture_begin();
        log_debug("a \"message\"\n", LOG_S("every", every), LOG_I("big", INT64_MAX),
                  LOG_D("took", 1500 * USEC_MSEC), LOG_S("k\"ey", "v"));
        line = json_loads(capture_end(), 0, &why);
        if (!line)
                fail_msg("%s: %s", why.text, capture.text);
        assert_string_equal(json_string_value(json_object_get(line, "msg")), "a \"message\"\n");
        assert_string_equal(json_string_value(json_object_get(line, "level")), "debug");
        assert_true(json_integer_value(json_object_get(line, "big")) == INT64_MAX);
        assert_true(json_real_value(json_object_get(line, "took")) == 1.5);
        assert_string_equal(json_string_value(json_object_get(line, "k\"ey")), "v");
        assert_memory_equal(json_string_value(json_object_get(line, "every")), every, 127);
        assert_ptr_equal(strchr(capture.text, '\n'), capture.text + strlen(capture.text) - 1);
        json_decref(line);
}

static void each_line_says_whose_it_is(void **state UNUSED)
{
        const struct log_scope orders = log_scope_of("shop", "orders"),
                               bills = log_scope_of("the bank", "bills");
        json_t *line;

        log_setup(LOG_INFO, LOG_LOGFMT);
        capture_begin();
        log_warn_for(&orders, "delivery", LOG_S("state", "Blocked"));
        assert_string_equal(after_time(capture_end()),
                            "level=warn msg=delivery namespace=shop trigger=orders state=Blocked\n");
        capture_begin();
        log_info_for(&bills, "delivery", LOG_S("state", "Delivering"), LOG_I("n", 1));
        assert_string_equal(
                after_time(capture_end()),
                "level=info msg=delivery namespace=\"the bank\" trigger=bills state=Delivering n=1\n");
        capture_begin();
        log_info_for(NULL, "listening", LOG_I("port", 1));
        log_debug_for(&orders, "not asked for", LOG_I("n", 1));
        assert_string_equal(after_time(capture_end()), "level=info msg=listening port=1\n");
        log_setup(LOG_DEBUG, LOG_JSON);
        capture_begin();
        log_debug_for(&orders, "delivery", LOG_S("state", "Blocked"));
        line = json_loads(capture_end(), 0, NULL);
        assert_string_equal(json_string_value(json_object_get(line, "namespace")), "shop");
        assert_string_equal(json_string_value(json_object_get(line, "trigger")), "orders");
        assert_string_equal(json_string_value(json_object_get(line, "state")), "Blocked");
        json_decref(line);
}

static void no_line_steers_a_terminal(void **state UNUSED)
{
        log_setup(LOG_INFO, LOG_LOGFMT);
        capture_begin();
        log_info("m", LOG_S("a", "\x1b[2J\n"),
                 LOG_S("b", "x\xc2\x9b"
                            "31m"),
                 LOG_S("c", "\u202ey\x7f"));
        assert_string_equal(after_time(capture_end()),
                            "level=info msg=m a=\"\\u001b[2J\\n\" b=\"x 31m\" c=\" y \"\n");
}

static void levels_are_obeyed(void **state UNUSED)
{
        for (int least = 0; least < LOG_LEVEL_MAX; least++) {
                unsigned lines = 0;

                log_setup((enum log_level)least, LOG_LOGFMT);
                capture_begin();
                log_debug("m", LOG_I("n", 1));
                log_info("m", LOG_I("n", 1));
                log_warn("m", LOG_I("n", 1));
                log_error("m", LOG_I("n", 1));
                for (const char *p = capture_end(); (p = strchr(p, '\n')); p++)
                        lines++;
                assert_int_equal(lines, LOG_LEVEL_MAX - least);
        }
}

static void level_names_are_read_back(void **state UNUSED)
{
        enum log_level level;

        for (int i = 0; i < LOG_LEVEL_MAX; i++) {
                assert_true(log_level_parse(str_of(log_level_name((enum log_level)i)), &level));
                assert_int_equal(level, i);
        }
        assert_true(log_level_parse(STR("WARN"), &level));
        assert_int_equal(level, LOG_WARN);
        assert_false(log_level_parse(STR("warning"), &level));
        assert_false(log_level_parse(STR(""), &level));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(logfmt_quotes_what_needs_it),
                cmocka_unit_test(a_message_is_one_line),
                cmocka_unit_test(json_is_json),
                cmocka_unit_test(each_line_says_whose_it_is),
                cmocka_unit_test(no_line_steers_a_terminal),
                cmocka_unit_test(levels_are_obeyed),
                cmocka_unit_test(level_names_are_read_back),
        };
        return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
