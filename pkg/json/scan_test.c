#include "json/scan.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "base/random.h"
#include "json/writer.h"

static void strings_and_what_they_stand_for(void **state UNUSED)
{
        /* meaning NULL: half of a pair stood alone */
        static const struct {
                const char *text, *meaning;
        } good[] = {
                { "\"\"", "" },
                { "\"a\"", "a" },
                { "\"\\\"\"", "\"" },
                { "\"\\\\\\/\\b\\f\\n\\r\\t\\\"\"", "\\/\b\f\n\r\t\"" },
                { "\"a\\\\\\\\b\\\\\"", "a\\\\b\\" },
                { "\"\\u0041\\u00fc\\n\\u20AC\"", "A\xc3\xbc\n\xe2\x82\xac" },
                { "\"\\ud83d\\ude00\\\\\"", "\xf0\x9f\x98\x80\\" },
                { "\"\\\\u0041\"", "\\u0041" },
                { "\"\\ud83d\"", NULL },
                { "\"\\n\\ude00\"", NULL },
        };
        static const char *const bad[] = { "\"",       "\"\\\"",     "\"\\",       "\"\\\\\\",
                                           "\"\\x\"",  "\"\\n\\x\"", "\"\\u12\"",  "\"\\u123g\"",
                                           "\"\\n\\u", "\"a\nb\"",   "\"\\\\\n\"", "\"\\n\\" };

        for (size_t i = 0; i < COUNT_OF(good); i++) {
                BUF_AT_END struct buf out = BUF_INIT(256);
                struct scan s;
                struct str raw;
                bool escaped, whole;

                scan_init(&s, str_of(good[i].text));
                assert_true(scan_string(&s, &raw, &escaped) && s.p == s.end);
                assert_int_equal(escaped, strchr(good[i].text, '\\') != NULL);
                whole = scan_decode(raw, &out);
                assert_int_equal(whole, good[i].meaning != NULL);
                if (good[i].meaning)
                        assert_string_equal(buf_view(&out).p, good[i].meaning);
        }
        for (size_t i = 0; i < COUNT_OF(bad); i++) {
                struct scan s;
                struct str raw;
                bool escaped;

                scan_init(&s, str_of(bad[i]));
                if (scan_string(&s, &raw, &escaped))
                        fail_msg("taken: %s", bad[i]);
                assert_non_null(s.fault);
        }
}

static void what_is_written_reads_the_same(void **state UNUSED)
{
        static const char some[] = "\"\\/\b\n\t\x01 ab\"\"\"\\\\";
        struct random r;

        random_init(&r, 7);
        for (int i = 0; i < 5000; i++) {
                BUF_AT_END struct buf plain = BUF_INIT(256), text = BUF_INIT(4096), out = BUF_INIT(256);
                struct scan s;
                struct str raw;
                bool escaped;

                for (uint64_t n = random_next(&r) % 40; n > 0; n--)
                        buf_char(&plain, some[random_next(&r) % (sizeof(some) - 1)]);
                buf_char(&text, '"');
                writer_escape(&text, buf_view(&plain));
                assert_int_equal(text.n - 1, writer_escaped(buf_view(&plain)));
                buf_char(&text, '"');
                scan_init(&s, buf_view(&text));
                assert_true(scan_string(&s, &raw, &escaped) && s.p == s.end && scan_decode(raw, &out));
                assert_true(str_equal(buf_view(&out), buf_view(&plain)));
        }
}

/* No more than the buffer may hold. */
static void what_does_not_fit_fails(void **state UNUSED)
{
        BUF_AT_END struct buf out = BUF_INIT(4);

        (void)scan_decode(STR("\\n\\n\\n\\n\\n\\n"), &out);
        assert_true(out.failed);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(strings_and_what_they_stand_for),
                cmocka_unit_test(what_is_written_reads_the_same),
                cmocka_unit_test(what_does_not_fit_fails),
        };

        return cmocka_run_group_tests_name("scan", tests, NULL, NULL);
}
