#include "json/tree.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "base/buf.h"

/* What the parser has now and has had at most, its bytes beside a count of them. */
static size_t held, most_held;

static void *counted_malloc(size_t n)
{
        size_t *p = malloc(n + 16);

        if (!p)
                abort();
        *p = n;
        held += n;
        most_held = MAX_OF(most_held, held);
        return (char *)p + 16;
}

static void counted_free(void *p)
{
        if (!p)
                return;
        held -= *(size_t *)(void *)((char *)p - 16);
        free((char *)p - 16);
}

static void repeat(struct buf *out, const char *open, const char *piece, size_t n, const char *close)
{
        buf_reset(out);
        buf_text(out, open);
        for (size_t i = 0; i < n; i++) {
                buf_text(out, i ? "," : "");
                buf_text(out, piece);
        }
        buf_text(out, close);
}

/* Pieces that are all small, and differ in what a parser makes of them. */
static const struct {
        const char *open, *piece, *close;
} shapes[] = {
        { "[", "1", "]" },   { "[", "\"\"", "]" },         { "[", "[]", "]" },        { "[", "{}", "]" },
        { "[", "1.5", "]" }, { "{\"a\":[", "null", "]}" }, { "[", "{\"\":[]}", "]" }, { "[", "[[[]]]", "]" },
};

static void many_small_values_take_no_memory(void **state UNUSED)
{
        BUF_AT_END struct buf text = BUF_INIT(64 << 20);

        json_set_alloc_funcs(counted_malloc, counted_free);
        for (size_t i = 0; i < COUNT_OF(shapes); i++) {
                json_error_t at = { 0 };

                most_held = 0;
                repeat(&text, shapes[i].open, shapes[i].piece, 1000000, shapes[i].close);
                assert_null(json_tree(buf_view(&text), 0, JSON_VALUES_MOST, &at));
                assert_string_equal(at.text, "more than 16384 values");
                text.n--; /* nor does what does not even end */
                assert_null(json_tree(buf_view(&text), 0, JSON_VALUES_MOST, NULL));
                assert_int_equal(most_held, 0);
        }
        json_set_alloc_funcs(malloc, free);
}

static void what_is_just_allowed_takes_little(void **state UNUSED)
{
        BUF_AT_END struct buf text = BUF_INIT(64 << 20);

        json_set_alloc_funcs(counted_malloc, counted_free);
        for (size_t i = 0; i < COUNT_OF(shapes); i++) {
                json_t *root;

                most_held = 0;
                repeat(&text, shapes[i].open, shapes[i].piece, 4000, shapes[i].close);
                root = json_tree(buf_view(&text), 0, JSON_VALUES_MOST, NULL);
                assert_non_null(root);
                assert_true(most_held < (size_t)3 << 20);
                json_decref(root);
                assert_int_equal(held, 0);
        }
        json_set_alloc_funcs(malloc, free);
}

static void values_are_counted_outside_strings(void **state UNUSED)
{
        static const struct {
                const char *text;
                size_t values;
        } table[] = {
                { "[]", 2 },
                { "[1]", 2 },
                { "[1,2]", 3 },
                { "{\"a\":1,\"b\":[2,3]}", 5 },
                { "{\"[,{\\\",[\":\",,[[{{\"}", 2 },
                { " { \"a\" : { } } ", 3 },
        };

        for (size_t i = 0; i < COUNT_OF(table); i++) {
                json_t *root = json_tree(str_of(table[i].text), 0, table[i].values, NULL);

                assert_non_null(root);
                json_decref(root);
                assert_null(json_tree(str_of(table[i].text), 0, table[i].values - 1, NULL));
        }
}

static void what_is_no_json_is_none(void **state UNUSED)
{
        static const char *const bad[] = { "",         "{", "[1,",     "[\"", "[\"\\x\"]",
                                           "[\"\n\"]", "]", "{\"a\"}", "[1]]" };
        json_error_t at;

        for (size_t i = 0; i < COUNT_OF(bad); i++)
                assert_null(json_tree(str_of(bad[i]), 0, JSON_VALUES_MOST, &at));
        assert_null(json_tree((struct str){ 0 }, 0, JSON_VALUES_MOST, NULL));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(many_small_values_take_no_memory),
                cmocka_unit_test(what_is_just_allowed_takes_little),
                cmocka_unit_test(values_are_counted_outside_strings),
                cmocka_unit_test(what_is_no_json_is_none),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
