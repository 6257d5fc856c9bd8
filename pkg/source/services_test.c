#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include "source/services.h"

#include <cmocka.h>

static struct notice told;
static char text[NOTICE_TEXT_MOST];

static void tell(void *cookie UNUSED, const struct notice *n)
{
        told = *n;
        (void)snprintf(text, sizeof(text), "%s", n->text);
}

static const struct services services = { .notices = { .tell = tell } };

/* Whichever way a source warns, it may quote its peer. */
static void a_warning_commands_no_terminal(void **state UNUSED)
{
        source_warn(&services, "Refused", 3, "the broker says %s", "\033[2Jno\r\nlevel=info");
        assert_string_equal(text, "the broker says  [2Jno  level=info");
        assert_string_equal(told.reason, "Refused");
        assert_int_equal(told.lost, 3);
        assert_int_equal(told.times, 1);
        source_tell(&services, &(struct notice){ .reason = "Gone",
                                                 .text = "\xc2\x9b"
                                                         "2J\u202eno",
                                                 .times = 7 });
        assert_string_equal(text, " 2J no");
        assert_int_equal(told.times, 7);
}

static void nobody_need_listen(void **state UNUSED)
{
        static const struct services deaf = { 0 };

        source_warn(&deaf, "Refused", 0, "%s", "no");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_warning_commands_no_terminal),
                cmocka_unit_test(nobody_need_listen),
        };

        return cmocka_run_group_tests_name("services", tests, NULL, NULL);
}
