#include "base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

static void the_maximum_is_exact(void **state UNUSED)
{
        for (size_t max = 1; max < 300; max++) {
                BUF_AT_END struct buf b = BUF_INIT(max);

                for (size_t i = 0; i < max; i++)
                        buf_char(&b, 'x');
                assert_false(b.failed);
                assert_int_equal(b.n, max);
                assert_int_equal(b.p[max], 0);
                buf_add(&b, "", 0);
                assert_false(b.failed);
                buf_char(&b, 'y');
                assert_true(b.failed);
                assert_int_equal(b.n, max);
                assert_int_equal(b.p[max], 0);
        }
}

static void failure_sticks_until_reset(void **state UNUSED)
{
        BUF_AT_END struct buf b = BUF_INIT(4);

        buf_text(&b, "abc");
        buf_text(&b, "de"); /* does not fit */
        buf_char(&b, 'f');  /* would */
        buf_int(&b, 1);
        buf_printf(&b, "%d", 1);
        buf_base64(&b, STR("a"));
        assert_true(b.failed);
        assert_true(b.full);
        assert_false(buf_reserve(&b, 0));
        assert_true(str_is(buf_view(&b), "abc"));
        buf_reset(&b);
        assert_false(b.full);
        buf_text(&b, "abcd");
        assert_false(b.failed);
        assert_string_equal(b.p, "abcd");
        buf_done(&b);
        buf_text(&b, "ef");
        assert_string_equal(b.p, "ef");
}

static void a_huge_append_fails_cleanly(void **state UNUSED)
{
        BUF_AT_END struct buf b = BUF_INIT(0);

        buf_char(&b, 'a');
        assert_false(buf_reserve(&b, SIZE_MAX));
        assert_true(b.failed);
        buf_reset(&b);
        assert_false(buf_reserve(&b, BUF_DEFAULT_MAX + 1));
        buf_reset(&b);
        assert_true(buf_reserve(&b, 100));
}

static void hex_is_what_printf_writes(void **state UNUSED)
{
        BUF_AT_END struct buf b = BUF_INIT(0);

        buf_hex(&b, 0x0123456789abcdef, 16);
        buf_hex(&b, 0xffa5, 3);
        buf_hex(&b, 0, 4);
        buf_hex(&b, 1, 0);
        assert_string_equal(b.p, "0123456789abcdeffa50000");
        assert_int_equal(b.n, 23);
}

static void bytes_as_digits_and_as_a_uuid(void **state UNUSED)
{
        static const unsigned char bytes[16] = { 0x00, 0x01, 0x7f, 0x80, 0xff, 0xa5, 0x5a, 0x10,
                                                 0x9c, 0xde, 0xf0, 0x12, 0x34, 0x56, 0x78, 0x9a };
        char hex[33], uuid[37];

        hex_text(bytes, 16, hex);
        assert_string_equal(hex, "00017f80ffa55a109cdef0123456789a");
        hex_text(bytes, 0, hex);
        assert_string_equal(hex, "");
        uuid_text(bytes, uuid);
        assert_string_equal(uuid, "00017f80-ffa5-5a10-9cde-f0123456789a");
}

static void a_printf_that_does_not_fit_leaves_what_was_there(void **state UNUSED)
{
        BUF_AT_END struct buf b = BUF_INIT(10);

        buf_text(&b, "abc");
        buf_printf(&b, "%s", "12345678");
        assert_true(b.failed);
        assert_int_equal(b.n, 3);
        assert_string_equal(b.p, "abc");
        buf_printf(&b, "%d", 1);
        assert_string_equal(b.p, "abc");
}

static void printf_fills_to_the_last_byte(void **state UNUSED)
{
        for (int n = 0; n < 200; n++) {
                BUF_AT_END struct buf b = BUF_INIT(200);

                buf_printf(&b, "%*s", n, "");
                buf_printf(&b, "%*s", 200 - n, "");
                assert_false(b.failed);
                assert_int_equal(b.n, 200);
                assert_int_equal(strlen(b.p), 200);
                buf_printf(&b, "%d", 1);
                assert_true(b.failed);
        }
}

static void integers_at_both_ends(void **state UNUSED)
{
        BUF_AT_END struct buf b = BUF_INIT(200);

        buf_int(&b, INT64_MIN);
        buf_char(&b, ' ');
        buf_int(&b, INT64_MAX);
        buf_char(&b, ' ');
        buf_int(&b, 0);
        buf_char(&b, ' ');
        buf_int(&b, -10);
        assert_string_equal(b.p, "-9223372036854775808 9223372036854775807 0 -10");
}

static const struct {
        const char *plain, *coded;
} rfc4648[] = {
        { "", "" },
        { "f", "Zg==" },
        { "fo", "Zm8=" },
        { "foo", "Zm9v" },
        { "foob", "Zm9vYg==" },
        { "fooba", "Zm9vYmE=" },
        { "foobar", "Zm9vYmFy" },
};

static void base64_has_the_vectors_of_its_document(void **state UNUSED)
{
        for (size_t i = 0; i < COUNT_OF(rfc4648); i++) {
                BUF_AT_END struct buf b = BUF_INIT(100), back = BUF_INIT(100);

                buf_base64(&b, str_of(rfc4648[i].plain));
                assert_string_equal(b.p, rfc4648[i].coded);
                assert_true(buf_unbase64(&back, str_of(rfc4648[i].coded)));
                assert_true(str_is(buf_view(&back), rfc4648[i].plain));
        }
}

static void base64_goes_both_ways(void **state UNUSED)
{
        char bytes[256 + 3];

        for (size_t i = 0; i < sizeof(bytes); i++)
                bytes[i] = (char)(i * 167 + 13);
        for (size_t n = 0; n <= sizeof(bytes); n++) {
                BUF_AT_END struct buf coded = BUF_INIT(1000), back = BUF_INIT(1000);

                buf_base64(&coded, (struct str){ bytes + sizeof(bytes) - n, n });
                assert_int_equal(coded.n, (n + 2) / 3 * 4);
                assert_true(buf_unbase64(&back, buf_view(&coded)));
                assert_true(str_equal(buf_view(&back), (struct str){ bytes + sizeof(bytes) - n, n }));
        }
}

static void base64_refuses_what_is_none(void **state UNUSED)
{
        static const char *const bad[] = { "Zg",   "Zg=",      "Zm9vYg",   "====",      "=Zg=",
                                           "Z===", "Zg==Zm9v", "Zm9=Zm9v", "Zm9-",      "Zm9_",
                                           "Zm 9", "Zm9\n",    "Zm9v\n",   "Z\xc3\xa4=" };

        for (size_t i = 0; i < COUNT_OF(bad); i++) {
                BUF_AT_END struct buf b = BUF_INIT(100);

                if (buf_unbase64(&b, str_of(bad[i])))
                        fail_msg("\"%s\" was taken for Base64", bad[i]);
                assert_int_equal(b.n, 0);
        }
        BUF_AT_END struct buf small = BUF_INIT(2);
        assert_false(buf_unbase64(&small, STR("Zm9v")));
}

/* Each byte that is none of the alphabet, at each place of three groups. */
static void base64_refuses_each_byte_at_each_place(void **state UNUSED)
{
        static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

        for (int c = 0; c < 256; c++)
                for (size_t at = 0; at < 12; at++) {
                        char text[] = "Zm9vZm9vZm9v";
                        BUF_AT_END struct buf b = BUF_INIT(100);
                        bool fine = (c && strchr(alphabet, c)) || (c == '=' && at == 11);

                        buf_text(&b, "x");
                        text[at] = (char)c;
                        if (buf_unbase64(&b, (struct str){ text, 12 }) != fine)
                                fail_msg("byte %d at %zu", c, at);
                        if (!fine)
                                assert_string_equal(b.p, "x");
                }
}

static void drop_keeps_the_rest(void **state UNUSED)
{
        BUF_AT_END struct buf b = BUF_INIT(100);

        buf_drop(&b, 5); /* nothing there yet */
        buf_text(&b, "abcdef");
        buf_drop(&b, 0);
        buf_drop(&b, 2);
        assert_string_equal(b.p, "cdef");
        buf_text(&b, "g");
        assert_string_equal(b.p, "cdefg");
        buf_drop(&b, 99);
        assert_int_equal(b.n, 0);
        assert_string_equal(b.p, "");
}

static void take_hands_over(void **state UNUSED)
{
        struct buf b = BUF_INIT(4);
        FREE_AT_END char *nothing = buf_take(&b), *some = NULL;

        assert_string_equal(nothing, "");
        buf_text(&b, "abcd");
        some = buf_take(&b);
        assert_string_equal(some, "abcd");
        assert_null(b.p);
        buf_text(&b, "abcde");
        assert_null(buf_take(&b));
        assert_null(b.p);
        assert_false(b.failed);
        assert_string_equal(buf_view(&b).p, "");
}

static void files_are_read_whole_up_to_the_maximum(void **state UNUSED)
{
        static const size_t sizes[] = { 0, 1, 99, 100, 16383, 16384, 16385, 100000 };
        char path[] = "/tmp/sluice-buf-XXXXXX";
        int fd = mkstemp(path);
        FREE_AT_END char *bytes = malloc(100000);

        assert_true(fd >= 0 && bytes);
        for (size_t i = 0; i < 100000; i++)
                bytes[i] = (char)(i * 31);
        for (size_t i = 0; i < COUNT_OF(sizes); i++) {
                BUF_AT_END struct buf roomy = BUF_INIT(0), tight = BUF_INIT(MAX_OF(sizes[i], (size_t)1)),
                                      small = BUF_INIT(sizes[i] - 1);
                struct error err = { 0 };

                assert_int_equal(ftruncate(fd, 0), 0);
                assert_int_equal(pwrite(fd, bytes, sizes[i], 0), sizes[i]);
                assert_int_equal(buf_read_file(&roomy, path, &err), 0);
                assert_true(str_equal(buf_view(&roomy), (struct str){ bytes, sizes[i] }));
                if (buf_read_file(&tight, path, &err) < 0)
                        fail_msg("%zu bytes did not fit: %s", sizes[i], err.text);
                assert_true(str_equal(buf_view(&tight), (struct str){ bytes, sizes[i] }));
                if (sizes[i] < 2)
                        continue;
                assert_int_equal(buf_read_file(&small, path, &err), -1);
                assert_non_null(strstr(err.text, path));
                assert_non_null(strstr(err.text, "larger than"));
        }
        (void)close(fd);
        (void)unlink(path);
}

static void a_missing_file_is_named(void **state UNUSED)
{
        BUF_AT_END struct buf b = BUF_INIT(100);
        struct error err = { 0 };

        assert_int_equal(buf_read_file(&b, "/nonexistent/file", &err), -1);
        assert_string_equal(err.text, "open /nonexistent/file: No such file or directory");
        assert_int_equal(buf_read_file(&b, "/tmp", &err), -1);
        assert_string_equal(err.text, "open /tmp: Is a directory");
}

static void percent_both_ways(void **state UNUSED)
{
        BUF_AT_END struct buf all = BUF_INIT(256), out = BUF_INIT(4096), back = BUF_INIT(4096);

        for (int c = 0; c < 256; c++)
                buf_char(&all, (char)c);
        buf_percent(&out, buf_view(&all), "-_.~");
        assert_memory_equal(out.p, "%00%01", 6);
        assert_non_null(strstr(out.p, "%2B%2C-.%2F0123456789%3A"));
        buf_unpercent(&back, buf_view(&out), false);
        assert_true(str_equal(buf_view(&back), buf_view(&all)));
        buf_reset(&back);
        buf_unpercent(&back, STR("a+b%2Bc%4%zz%"), true);
        assert_string_equal(back.p, "a b+c%4%zz%");
        buf_reset(&back);
        buf_unpercent(&back, STR("a+b%e9"), false);
        assert_string_equal(back.p, "a+b\xe9");
}

static void one_on_an_array_never_grows(void **state UNUSED)
{
        char space[8];
        struct buf b = BUF_ON(space);

        buf_text(&b, "1234567");
        assert_false(b.failed);
        assert_string_equal(space, "1234567");
        buf_char(&b, '8');
        assert_true(b.failed);
        assert_ptr_equal(b.p, space);
        assert_string_equal(space, "1234567");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(one_on_an_array_never_grows),
                cmocka_unit_test(the_maximum_is_exact),
                cmocka_unit_test(failure_sticks_until_reset),
                cmocka_unit_test(a_huge_append_fails_cleanly),
                cmocka_unit_test(printf_fills_to_the_last_byte),
                cmocka_unit_test(hex_is_what_printf_writes),
                cmocka_unit_test(bytes_as_digits_and_as_a_uuid),
                cmocka_unit_test(percent_both_ways),
                cmocka_unit_test(a_printf_that_does_not_fit_leaves_what_was_there),
                cmocka_unit_test(integers_at_both_ends),
                cmocka_unit_test(base64_has_the_vectors_of_its_document),
                cmocka_unit_test(base64_goes_both_ways),
                cmocka_unit_test(base64_refuses_what_is_none),
                cmocka_unit_test(base64_refuses_each_byte_at_each_place),
                cmocka_unit_test(drop_keeps_the_rest),
                cmocka_unit_test(take_hands_over),
                cmocka_unit_test(files_are_read_whole_up_to_the_maximum),
                cmocka_unit_test(a_missing_file_is_named),
        };
        return cmocka_run_group_tests_name("buf", tests, NULL, NULL);
}
