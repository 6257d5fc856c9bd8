#include "base/base.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/error.h"

/* A view of memory with nothing behind it, so that the sanitizer sees a read too far. */
static struct str exact(const char *bytes, size_t n)
{
        char *copy = malloc(n ? n : 1);

        assert_non_null(copy);
        if (n)
                memcpy(copy, bytes, n);
        return (struct str){ copy, n };
}

static bool utf8(const char *bytes)
{
        struct str s = exact(bytes, strlen(bytes));
        bool valid = str_is_utf8(s);

        free((void *)(uintptr_t)s.p);
        return valid;
}

static void starts_trims_and_compares(void **state UNUSED)
{
        struct str nothing = { 0 };

        assert_true(str_starts(STR("kafka"), STR("")));
        assert_true(str_starts(nothing, nothing));
        assert_true(str_starts(STR("kafka"), STR("kafka")));
        assert_false(str_starts(STR("kafk"), STR("kafka")));
        assert_false(str_starts(STR("Kafka"), STR("kafka")));
        assert_true(str_equal_nocase(STR("Retry-After"), STR("rETRY-aFTER")));
        assert_false(str_equal_nocase(STR("Retry-After"), STR("Retry-Afte")));
        assert_false(str_equal_nocase(STR("["), STR("{")));
        assert_true(str_equal(nothing, STR("")));
        assert_true(str_is(str_trim(STR(" \t\r\n a b \n")), "a b"));
        assert_int_equal(str_trim(STR(" \t \n")).n, 0);
        assert_int_equal(str_trim(nothing).n, 0);
        assert_true(str_is(str_trim(STR("\va\f")), "\va\f"));
}

static void cuts_at_the_first(void **state UNUSED)
{
        struct str rest = STR("a,,b");
        struct str nothing = { 0 };

        assert_true(str_is(str_cut(&rest, ','), "a"));
        assert_true(str_is(rest, ",b"));
        assert_true(str_is(str_cut(&rest, ','), ""));
        assert_true(str_is(str_cut(&rest, ','), "b"));
        assert_int_equal(rest.n, 0);
        assert_int_equal(str_cut(&rest, ',').n, 0);
        rest = STR("b,");
        assert_true(str_is(str_cut(&rest, ','), "b"));
        assert_int_equal(rest.n, 0);
        assert_int_equal(str_cut(&nothing, ',').n, 0);
}

static void duplicates_with_a_terminator(void **state UNUSED)
{
        FREE_AT_END char *middle = str_dup((struct str){ &"abcdef"[2], 3 }),
                         *empty = str_dup((struct str){ 0 });

        assert_string_equal(middle, "cde");
        assert_string_equal(empty, "");
        assert_true(string_equal(NULL, NULL));
        assert_false(string_equal(NULL, ""));
        assert_false(string_equal("", NULL));
        assert_true(string_equal("cde", middle));
}

static void integers_end_at_their_limits(void **state UNUSED)
{
        static const struct {
                const char *text;
                int64_t value;
        } good[] = {
                { "0", 0 },
                { "-0", 0 },
                { "007", 7 },
                { "9223372036854775807", INT64_MAX },
                { "-9223372036854775808", INT64_MIN },
                { "-1", -1 },
                { "00000000000000000000000000012", 12 },
        };
        static const char *const bad[] = { "",
                                           "-",
                                           "+1",
                                           " 1",
                                           "1 ",
                                           "1.0",
                                           "0x1",
                                           "1e3",
                                           "--1",
                                           "9223372036854775808",
                                           "-9223372036854775809",
                                           "18446744073709551616",
                                           "99999999999999999999999999",
                                           "1a",
                                           "\xd9\xa1" };
        int64_t v;

        for (size_t i = 0; i < COUNT_OF(good); i++) {
                v = 42;
                assert_true(str_to_int64(str_of(good[i].text), &v));
                assert_true(v == good[i].value);
        }
        for (size_t i = 0; i < COUNT_OF(bad); i++) {
                v = 42;
                if (str_to_int64(str_of(bad[i]), &v))
                        fail_msg("\"%s\" was taken for a number", bad[i]);
                assert_int_equal(v, 42); /* written only on success */
        }
}

static void utf8_is_strict(void **state UNUSED)
{
        static const char *const good[] = {
                "",
                "plain ASCII of more than eight bytes",
                "\x7f",
                "\xc2\x80",
                "\xdf\xbf",
                "\xe0\xa0\x80",
                "\xed\x9f\xbf",
                "\xee\x80\x80",
                "\xef\xbf\xbf",
                "\xf0\x90\x80\x80",
                "\xf4\x8f\xbf\xbf",
                "1234567\xc3\xa4",
                "12345678\xe2\x82\xacxxxxxxxx",
        };
        static const char *const bad[] = {
                /* overlong */
                "\x80",
                "\xbf",
                "\xc0\x80",
                "\xc1\xbf",
                "\xe0\x80\x80",
                "\xe0\x9f\xbf",
                "\xf0\x80\x80\x80",
                "\xf0\x8f\xbf\xbf",
                "\xed\xa0\x80",
                "\xed\xbf\xbf",
                "\xed\xa0\xbd\xed\xb8\x80", /* surrogates */
                /* above U+10FFFF */
                "\xf4\x90\x80\x80",
                "\xf5\x80\x80\x80",
                "\xf8\x88\x80\x80\x80",
                "\xff",
                "\xfe",
                "\xc3",
                "\xe2\x82",
                "\xf0\x9f\x98",
                "12345678\xc3",
                "1234567\xc3", /* cut short */
                "\xc3(",
                "\xe2(\xa1",
                "\xe2\x82(",
                "\xf0(\x8c\xbc",
                "\xf0\x90\x8c(",
                "12345678\xffxxxxxxxx",
        };

        for (size_t i = 0; i < COUNT_OF(good); i++)
                if (!utf8(good[i]))
                        fail_msg("good sequence %zu was refused", i);
        for (size_t i = 0; i < COUNT_OF(bad); i++)
                if (utf8(bad[i]))
                        fail_msg("bad sequence %zu was taken", i);
        assert_true(str_is_utf8((struct str){ "\0", 1 }));
        assert_true(str_is_utf8((struct str){ 0 }));
        for (size_t n = 1; n < 80; n++)
                for (size_t at = 0; at < n; at++) {
                        char text[80];

                        memset(text, 'a', n);
                        assert_true(str_is_utf8((struct str){ text, n }));
                        text[at] = (char)0xff;
                        assert_false(str_is_utf8((struct str){ text, n }));
                }
}

/* Wherever a byte stands, beside 8 and 32 that are looked at at once. */
static void text_is_told_from_bytes(void **state UNUSED)
{
        static const char *const good[] = { "", "\n\t\r", "\u20ac", "\x7f", "\U00010348" };
        static const char bad[] = { 0, 1, 8, 11, 12, 14, 31, '\x80', '\xc3', '\xff' };

        for (size_t i = 0; i < COUNT_OF(good); i++)
                assert_true(str_is_text(str_of(good[i])));
        for (size_t n = 1; n < 80; n++)
                for (size_t at = 0; at < n; at++) {
                        char text[80];

                        memset(text, 'a', n);
                        text[at] = "\n\t\r ~"[(n + at) % 5];
                        assert_true(str_is_text((struct str){ text, n }));
                        for (size_t i = 0; i < COUNT_OF(bad); i++) {
                                text[at] = bad[i];
                                assert_false(str_is_text((struct str){ text, n }));
                        }
                }
}

/* Every code point encodes to what is valid, but the surrogates. */
static void utf8_knows_every_code_point(void **state UNUSED)
{
        for (uint32_t c = 0x80; c < 0x120000; c++) {
                char bytes[4];
                size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;

                for (size_t i = 1; i < n; i++)
                        bytes[n - i] = (char)(0x80 | (c >> (6 * (i - 1)) & 0x3f));
                bytes[0] = (char)((n == 2 ? 0xc0 : n == 3 ? 0xe0 : 0xf0) | c >> (6 * (n - 1)));
                if (str_is_utf8((struct str){ bytes, n }) != ((c < 0xd800 || c > 0xdfff) && c <= 0x10ffff))
                        fail_msg("U+%04X", c);
        }
}

static void nearest_name_guesses_well(void **state UNUSED)
{
        static const char *const names[] = { "bootstrapServers", "topics", "consumerGroup", "startPosition",
                                             "uri" };
        static const char *const two[] = {
                "xy", "a-very-long-name-of-more-than-sixty-three-bytes-that-the-table-has-no-room-for"
        };

        assert_string_equal(nearest_name(STR("bootstrapservers"), names, COUNT_OF(names)),
                            "bootstrapServers");
        assert_string_equal(nearest_name(STR("bootstrap_servers"), names, COUNT_OF(names)),
                            "bootstrapServers");
        assert_string_equal(nearest_name(STR("topic"), names, COUNT_OF(names)), "topics");
        assert_string_equal(nearest_name(STR("tpoics"), names, COUNT_OF(names)), "topics");
        assert_string_equal(nearest_name(STR("url"), names, COUNT_OF(names)), "uri");
        assert_null(nearest_name(STR("schedule"), names, COUNT_OF(names)));
        assert_null(nearest_name(STR(""), names, 0));
        /* What shares no letter is not meant, however short. */
        assert_null(nearest_name(STR("ab"), two, COUNT_OF(two)));
        assert_null(nearest_name(STR(""), two, COUNT_OF(two)));
}

static void errors_command_no_terminal(void **state UNUSED)
{
        char plain[] = "\xc3\xa4\xe2\x82\xac \xf0\x9f\x98\x80 \xc2\xa0";
        struct error err;

        (void)error_set(&err, ERROR_REFUSED, "%s",
                        "\033[2Jred\r\nlevel=info\t\x7f\xc2\x9b"
                        "31m\x9b\xe9\xc2");
        assert_string_equal(err.text, " [2Jred  level=info   31m \xe9\xc2");
        (void)error_wrap(&err, "\a%s", "open");
        assert_string_equal(err.text, " open:  [2Jred  level=info   31m \xe9\xc2");
        (void)error_errno(&err, ENOENT, "open \033c");
        assert_string_equal(err.text, "open  c: No such file or directory");
        text_plain(plain);
        assert_string_equal(plain, "\xc3\xa4\xe2\x82\xac \xf0\x9f\x98\x80 \xc2\xa0");
}

static void errors_are_cut_not_overrun(void **state UNUSED)
{
        struct {
                struct error err;
                char guard[8];
        } e = { .guard = "guarded" };
        char big[2000];

        memset(big, 'x', sizeof(big) - 1);
        big[sizeof(big) - 1] = 0;
        assert_int_equal(error_set(&e.err, ERROR_TIMEOUT, "%s", big), -1);
        assert_int_equal(strlen(e.err.text), sizeof(e.err.text) - 1);
        assert_true(e.err.retry);
        assert_int_equal(error_wrap(&e.err, "%s", big), -1);
        assert_int_equal(error_errno(&e.err, 2, "%s", big), -1);
        assert_string_equal(e.guard, "guarded");
        assert_false(e.err.retry);

        e.err.retry_after = 5;
        (void)error_set(&e.err, ERROR_CONFLICT, "put %s", "a");
        assert_int_equal(e.err.retry_after, 0);
        e.err.retry = false;
        (void)error_wrap(&e.err, "claim %d", 1);
        assert_string_equal(e.err.text, "claim 1: put a");
        assert_int_equal(e.err.kind, ERROR_CONFLICT);
        assert_false(e.err.retry);
        (void)error_errno(&e.err, 2, "open %s", "/x");
        assert_string_equal(e.err.text, "open /x: No such file or directory");
        assert_int_equal(error_set(NULL, ERROR_INVALID, "-"), -1);
        assert_int_equal(error_wrap(NULL, "-"), -1);
        assert_int_equal(error_errno(NULL, 1, "-"), -1);
}

static void every_error_kind_has_a_name(void **state UNUSED)
{
        for (int k = 0; k < ERROR_KIND_MAX; k++) {
                assert_non_null(error_kind_name((enum error_kind)k));
                for (int other = 0; other < k; other++)
                        assert_string_not_equal(error_kind_name((enum error_kind)k),
                                                error_kind_name((enum error_kind)other));
        }
        assert_string_equal(error_kind_name(ERROR_KIND_MAX), "Unknown");
}

static void a_text_of_others_is_one_line(void **state UNUSED)
{
        static const struct {
                const char *text, *plain;
        } table[] = {
                { "", "" },
                { "as it is: caf\u00e9 \u65e5 \U0001f600 \u00a0",
                  "as it is: caf\u00e9 \u65e5 \U0001f600 \u00a0" },
                { "two\nlines\r\n", "two lines  " },
                { "\x1b[2J\x1b]0;title\x07\t\x7f", " [2J ]0;title   " },
                { "a\xc2\x9b"
                  "31mb\xc2\x80\xc2\x9f",
                  "a 31mb  " },
                { "\u202eabc\u2066\u2069\u200e\u061c\u2028", " abc     " },
                { "\u202f\u2065\u200d\u061b", "\u202f\u2065\u200d\u061b" },
                { "cut \xc2", "cut \xc2" },
                { "cut \xe2\x80", "cut \xe2 " },
        };

        for (size_t i = 0; i < COUNT_OF(table); i++) {
                char text[64];

                (void)snprintf(text, sizeof(text), "%s", table[i].text);
                text_plain(text);
                assert_string_equal(text, table[i].plain);
        }
}

/* What peers say comes in here; half of a character would not be plain. */
static void a_text_is_cut_between_characters(void **state UNUSED)
{
        char text[8];

        text_print(text, sizeof(text), "%s\n%d", "a\xe2\x80\xae", 7);
        assert_string_equal(text, "a  7");
        text_print(text, sizeof(text), "12345%s", "\u20ac");
        assert_string_equal(text, "12345");
        text_print(text, sizeof(text), "1234%s", "\u20ac");
        assert_string_equal(text, "1234\u20ac");
        text_print(text, sizeof(text), "%s", "\x1b[31mred");
        assert_string_equal(text, " [31mre");
        assert_int_equal(text_copy(text, sizeof(text), "123456\u00e9"), 6);
        assert_string_equal(text, "123456");
        assert_int_equal(text_copy(text, sizeof(text), "\u20ac"), 3);
        assert_string_equal(text, "\u20ac");
        assert_int_equal(text_copy(text, 1, "\u20ac"), 0);
        assert_string_equal(text, "");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_text_of_others_is_one_line),
                cmocka_unit_test(a_text_is_cut_between_characters),
                cmocka_unit_test(starts_trims_and_compares),
                cmocka_unit_test(cuts_at_the_first),
                cmocka_unit_test(duplicates_with_a_terminator),
                cmocka_unit_test(integers_end_at_their_limits),
                cmocka_unit_test(utf8_is_strict),
                cmocka_unit_test(utf8_knows_every_code_point),
                cmocka_unit_test(text_is_told_from_bytes),
                cmocka_unit_test(nearest_name_guesses_well),
                cmocka_unit_test(errors_are_cut_not_overrun),
                cmocka_unit_test(errors_command_no_terminal),
                cmocka_unit_test(every_error_kind_has_a_name),
        };
        return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
