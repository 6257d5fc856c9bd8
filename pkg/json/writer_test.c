#include "json/writer.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/random.h"

/* RFC 8259 one byte at a time, and RFC 3629 by its table: what the vectorised scan must agree with. */
static size_t naive_sequence(const unsigned char *p, size_t n)
{
        static const struct {
                unsigned char first_low, first_high, second_low, second_high;
                size_t n;
        } table[] = {
                { 0xc2, 0xdf, 0x80, 0xbf, 2 }, { 0xe0, 0xe0, 0xa0, 0xbf, 3 }, { 0xe1, 0xec, 0x80, 0xbf, 3 },
                { 0xed, 0xed, 0x80, 0x9f, 3 }, { 0xee, 0xef, 0x80, 0xbf, 3 }, { 0xf0, 0xf0, 0x90, 0xbf, 4 },
                { 0xf1, 0xf3, 0x80, 0xbf, 4 }, { 0xf4, 0xf4, 0x80, 0x8f, 4 },
        };

        for (size_t i = 0; i < COUNT_OF(table); i++) {
                bool good = p[0] >= table[i].first_low && p[0] <= table[i].first_high && n >= table[i].n &&
                            p[1] >= table[i].second_low && p[1] <= table[i].second_high;

                for (size_t j = 2; good && j < table[i].n; j++)
                        good = p[j] >= 0x80 && p[j] <= 0xbf;
                if (good)
                        return table[i].n;
        }
        return 0;
}

static void naive_escape(struct buf *b, const unsigned char *p, size_t n)
{
        static const char from[] = "\"\\\n\r\t\b\f", to[] = "\"\\nrtbf";

        for (size_t i = 0; i < n;) {
                const char *at = p[i] ? strchr(from, p[i]) : NULL;
                size_t length = p[i] < 0x80 ? 1 : naive_sequence(p + i, n - i);

                if (at)
                        buf_printf(b, "\\%c", to[at - from]);
                else if (p[i] < 0x20)
                        buf_printf(b, "\\u%04x", p[i]);
                else if (length)
                        buf_add(b, p + i, length);
                else
                        buf_text(b, "\xef\xbf\xbd");
                i += MAX_OF(length, (size_t)1);
        }
}

static void compare(const unsigned char *p, size_t n)
{
        BUF_AT_END struct buf expected = BUF_INIT(4096), found = BUF_INIT(4096);

        naive_escape(&expected, p, n);
        writer_escape(&found, (struct str){ (const char *)p, n });
        assert_int_equal(writer_escaped((struct str){ (const char *)p, n }), expected.n);
        if (!str_equal(buf_view(&expected), buf_view(&found)))
                fail_msg("of %zu bytes: \"%s\" instead of \"%s\"", n, buf_view(&found).p,
                         buf_view(&expected).p);
        assert_true(str_is_utf8(buf_view(&found)));
}

static void every_byte_at_each_place(void **state UNUSED)
{
        for (unsigned c = 0; c < 256; c++)
                for (size_t start = 0; start < 17; start++)
                        for (size_t at = 0; at < 40; at++) {
                                unsigned char *space = malloc(start + 40);

                                assert_non_null(space);
                                memset(space, 'a', start + 40);
                                space[start + at] = (unsigned char)c;
                                compare(space + start, 40);
                                /* the last byte; nothing is read behind it */
                                compare(space + start, at + 1);
                                free(space);
                        }
}

static void random_bytes(void **state UNUSED)
{
        static const unsigned char likely[] = { 'a',  '"',  '\\', '\n', 0,    0x1f, 0x7f,
                                                0xc3, 0xa4, 0xe2, 0x82, 0xac, 0xed, 0xa0,
                                                0xf0, 0x9f, 0x98, 0x80, 0xf4, 0x8f, 0xbf };
        struct random r;

        random_init(&r, 1);
        for (int i = 0; i < 100000; i++) {
                size_t n = random_below(&r, 40);
                unsigned char *space = malloc(n + 1);

                assert_non_null(space);
                for (size_t j = 0; j < n; j++)
                        space[j] = random_below(&r, 4) ? likely[random_below(&r, sizeof(likely))]
                                                       : (unsigned char)random_next(&r);
                compare(space, n);
                free(space);
        }
}

static json_t *parse(struct buf *b)
{
        json_error_t why;
        json_t *root = json_loadb(b->p, b->n, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &why);

        assert_false(b->failed);
        if (!root)
                fail_msg("%s: %s", why.text, b->p);
        return root;
}

static void commas_and_nesting(void **state UNUSED)
{
        BUF_AT_END struct buf b = BUF_INIT(4096);
        struct writer w;

        writer_init(&w, &b);
        writer_object(&w);
        writer_key(&w, STR("empty"));
        writer_object(&w);
        writer_object_end(&w);
        writer_key(&w, STR("list"));
        writer_array(&w);
        writer_array(&w);
        writer_array_end(&w);
        writer_int(&w, INT64_MIN);
        writer_null(&w);
        writer_bool(&w, true);
        writer_raw(&w, STR("{\"raw\":[1,2]}"));
        writer_array(&w);
        writer_string(&w, STR(""));
        writer_bool(&w, false);
        writer_array_end(&w);
        writer_object(&w);
        writer_member_int(&w, "a", 1);
        writer_member_text(&w, "b", "x");
        writer_object_end(&w);
        writer_array_end(&w);
        writer_key(&w, STR("a \"key\"\n"));
        writer_base64(&w, STR("\xff\xfe"));
        writer_key(&w, STR("nan"));
        writer_double(&w, NAN);
        writer_object_end(&w);
        assert_string_equal(b.p, "{\"empty\":{},\"list\":[[],-9223372036854775808,null,true,{\"raw\":[1,2]},["
                                 "\"\",false],{\"a\":1,\"b\":\"x\"}],"
                                 "\"a \\\"key\\\"\\n\":\"//4=\",\"nan\":null}");
        json_decref(parse(&b));
}

static void as_deep_as_it_goes(void **state UNUSED)
{
        BUF_AT_END struct buf b = BUF_INIT(4096);
        struct writer w;

        writer_init(&w, &b);
        for (int i = 0; i < 63; i++) {
                writer_array(&w);
                writer_int(&w, i);
        }
        for (int i = 0; i < 63; i++) {
                writer_array_end(&w);
                if (i < 62)
                        writer_int(&w, -i);
        }
        assert_int_equal(w.depth, 0);
        json_decref(parse(&b));
}

static void strings_come_back(void **state UNUSED)
{
        char every[128];
        BUF_AT_END struct buf b = BUF_INIT(4096);
        struct writer w;
        json_error_t why;
        json_t *root;

        for (size_t i = 0; i < sizeof(every); i++)
                every[i] = (char)i;
        writer_init(&w, &b);
        writer_string(&w, (struct str){ every, sizeof(every) });
        root = json_loadb(b.p, b.n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
        assert_non_null(root);
        assert_int_equal(json_string_length(root), sizeof(every));
        assert_memory_equal(json_string_value(root), every, sizeof(every));
        json_decref(root);
}

static double double_of(uint64_t bits)
{
        double d;

        memcpy(&d, &bits, sizeof(d));
        return d;
}

static void doubles_come_back(void **state UNUSED)
{
        static const double all[] = { 0,
                                      -0.0,
                                      0.1,
                                      1.0 / 3,
                                      5e-324,
                                      2.2250738585072014e-308,
                                      1.7976931348623157e308,
                                      9007199254740993.0,
                                      123456789012345680.0,
                                      1e21,
                                      1e-7,
                                      -1.5 };
        struct random r;

        random_init(&r, 1);
        for (size_t i = 0; i < 20000; i++) {
                double value = i < COUNT_OF(all) ? all[i] : double_of(random_next(&r));
                BUF_AT_END struct buf b = BUF_INIT(100);
                struct writer w;
                json_t *root;

                writer_init(&w, &b);
                writer_double(&w, value);
                root = parse(&b);
                if (!isfinite(value))
                        assert_true(json_is_null(root));
                else if (json_number_value(root) != value)
                        fail_msg("%.17g is written %s", value, b.p);
                json_decref(root);
        }
        BUF_AT_END struct buf tenth = BUF_INIT(100);
        struct writer w;
        writer_init(&w, &tenth);
        writer_double(&w, 0.1); /* the shortest text that comes back */
        assert_string_equal(tenth.p, "0.1");
}

static void a_full_buffer_shows_at_the_end(void **state UNUSED)
{
        for (size_t max = 1; max < 30; max++) {
                BUF_AT_END struct buf b = BUF_INIT(max);
                struct writer w;

                writer_init(&w, &b);
                writer_object(&w);
                writer_member_text(&w, "key", "va\"lue");
                writer_member_int(&w, "n", 12);
                writer_object_end(&w);
                assert_int_equal(b.failed, max < strlen("{\"key\":\"va\\\"lue\",\"n\":12}"));
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(every_byte_at_each_place),
                cmocka_unit_test(random_bytes),
                cmocka_unit_test(commas_and_nesting),
                cmocka_unit_test(as_deep_as_it_goes),
                cmocka_unit_test(strings_come_back),
                cmocka_unit_test(doubles_come_back),
                cmocka_unit_test(a_full_buffer_shows_at_the_end),
        };
        return cmocka_run_group_tests_name("writer", tests, NULL, NULL);
}
