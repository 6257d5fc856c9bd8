/* What is told of a source, and how often the log says it. */
#include "worker/feed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "log/log.h"

static struct feed feed;
static char log_text[65536];

static int setup(void **state UNUSED)
{
        static const struct services services;

        feed = (struct feed){ .config.services = &services };
        return 0;
}

static int teardown(void **state UNUSED)
{
        feed_done(&feed);
        return 0;
}

/* How many lines the log has, of a source that says so at those times. */
static size_t lines_of(void (*what)(void))
{
        FILE *log = tmpfile();
        int kept = dup(STDERR_FILENO);
        size_t n = 0, lines = 0;

        assert_non_null(log);
        assert_true(dup2(fileno(log), STDERR_FILENO) >= 0);
        what();
        assert_true(dup2(kept, STDERR_FILENO) >= 0);
        (void)close(kept);
        rewind(log);
        n = fread(log_text, 1, sizeof(log_text) - 1, log);
        (void)fclose(log);
        log_text[n] = 0;
        for (const char *p = log_text; (p = strchr(p, '\n')); p++)
                lines++;
        return lines;
}

/* Each second another reason, for a minute. */
static void fails_for_a_minute(void)
{
        for (usec at = USEC_HOUR; at < USEC_HOUR + USEC_MINUTE; at += USEC_SEC) {
                char text[64];

                (void)snprintf(text, sizeof(text), "reason %d", (int)(at / USEC_SEC % 60));
                feed_source_said(&feed, SOURCE_DISCONNECTED, text, at);
                assert_string_equal(feed.status.source_text, text);
                feed_log(&feed, at);
        }
}

static void a_text_that_changes_is_logged_now_and_then(void **state UNUSED)
{
        assert_int_equal(lines_of(fails_for_a_minute), 2);
        assert_non_null(strstr(log_text, "state=Disconnected reason=\"reason 0\""));
        assert_non_null(strstr(log_text, "state=Disconnected reason=\"reason 30\""));
        assert_int_equal(feed.status.changes, 60);
}

static void its_texts_command_no_terminal(void **state UNUSED)
{
        feed_source_said(&feed, SOURCE_DISCONNECTED, "no\033[2J\nlevel=info", USEC_HOUR);
        assert_string_equal(feed.status.source_text, "no [2J level=info");
}

/* What is said of the function is plain already; it stays so when it is cut. */
static void a_text_is_cut_between_characters(void **state UNUSED)
{
        char text[400] = "";

        for (size_t i = 0; i < 100; i++)
                memcpy(text + 3 * i, "\u20ac", 3);
        feed_delivery_said(&feed, DELIVERY_RETRYING, text);
        assert_int_equal(strlen(feed.status.delivery_text), 255);
        memmove(text + 1, text, 300);
        text[0] = 'x';
        feed_delivery_said(&feed, DELIVERY_RETRYING, text);
        assert_int_equal(strlen(feed.status.delivery_text), 253);
        assert_memory_equal(feed.status.delivery_text, text, 253);
        feed_source_said(&feed, SOURCE_DISCONNECTED, text, USEC_HOUR);
        assert_string_equal(feed.status.source_text, feed.status.delivery_text);
}

static void changes(void)
{
        feed_source_said(&feed, SOURCE_DISCONNECTED, "refused", USEC_HOUR);
        feed_source_said(&feed, SOURCE_CONNECTED, "", USEC_HOUR + 1);
        feed_source_said(&feed, SOURCE_FAILED, "forbidden", USEC_HOUR + 2);
}

static void a_state_is_logged_at_once(void **state UNUSED) { assert_int_equal(lines_of(changes), 3); }

static void reasons_come_and_go(void)
{
        for (usec at = 0; at < 20 * USEC_SEC; at += USEC_SEC)
                feed_source_said(&feed, SOURCE_CONNECTED, at / USEC_SEC % 2 ? "set aside" : "",
                                 USEC_HOUR + at);
}

static void the_first_reason_is_logged_at_once(void **state UNUSED)
{
        assert_int_equal(lines_of(reasons_come_and_go), 2);
        assert_non_null(strstr(log_text, "state=Connected reason=\"set aside\""));
}

static void two_texts(void)
{
        feed_source_said(&feed, SOURCE_DISCONNECTED, "refused", USEC_HOUR);
        feed_source_said(&feed, SOURCE_DISCONNECTED, "no such host", USEC_HOUR + USEC_SEC);
}
static void too_early(void) { feed_log(&feed, USEC_HOUR + 30 * USEC_SEC - 1); }
static void due(void) { feed_log(&feed, USEC_HOUR + 30 * USEC_SEC); }
static void later(void) { feed_log(&feed, USEC_HOUR + USEC_DAY); }

/* What stays is logged in the end, though nothing is said any more; once. */
static void the_last_text_is_logged(void **state UNUSED)
{
        assert_int_equal(feed_log_deadline(&feed), USEC_NEVER);
        assert_int_equal(lines_of(two_texts), 1);
        assert_int_equal(feed_log_deadline(&feed), USEC_HOUR + 30 * USEC_SEC);
        assert_int_equal(lines_of(too_early), 0);
        assert_int_equal(lines_of(due), 1);
        assert_non_null(strstr(log_text, "state=Disconnected reason=\"no such host\""));
        assert_int_equal(feed_log_deadline(&feed), USEC_NEVER);
        assert_int_equal(lines_of(later), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(a_text_that_changes_is_logged_now_and_then, setup, teardown),
                cmocka_unit_test_setup_teardown(its_texts_command_no_terminal, setup, teardown),
                cmocka_unit_test_setup_teardown(a_text_is_cut_between_characters, setup, teardown),
                cmocka_unit_test_setup_teardown(a_state_is_logged_at_once, setup, teardown),
                cmocka_unit_test_setup_teardown(the_first_reason_is_logged_at_once, setup, teardown),
                cmocka_unit_test_setup_teardown(the_last_text_is_logged, setup, teardown),
        };

        log_setup(LOG_INFO, LOG_LOGFMT);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
