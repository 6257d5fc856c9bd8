#include "json/check.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/random.h"

static void what_is_json_is_told(void **state UNUSED)
{
        static const char *const good[] = { "0",
                                            "-0",
                                            "1.5e+10",
                                            " true ",
                                            "null\n",
                                            "\"\"",
                                            "\"\\u00e9\\n\"",
                                            "[]",
                                            "{}",
                                            "[[],{}]",
                                            "{\"a\":{\"b\":[1,2,{\"c\":null}]},\"d\":\"x\"}",
                                            "\"\xc3\xa9\"",
                                            "[1 , 2 ]",
                                            "{ \"a\" : 1 }" };
        static const char *const bad[] = { "",
                                           " ",
                                           "01",
                                           "+1",
                                           "1.",
                                           ".5",
                                           "1e",
                                           "tru",
                                           "nul",
                                           "\"",
                                           "\"\\x\"",
                                           "\"\\u12\"",
                                           "\"\t\"",
                                           "[",
                                           "]",
                                           "[1,]",
                                           "[,1]",
                                           "{\"a\"}",
                                           "{\"a\":}",
                                           "{\"a\":1,}",
                                           "{a:1}",
                                           "1 2",
                                           "[1]]",
                                           "{\"a\":1]",
                                           "'a'",
                                           "\"\xff\"",
                                           "[1}",
                                           "NaN",
                                           "{\"a\":1 \"b\":2}" };

        for (size_t i = 0; i < COUNT_OF(good); i++)
                if (!json_is_value(str_of(good[i]), NULL))
                        fail_msg("refused: %s", good[i]);
        for (size_t i = 0; i < COUNT_OF(bad); i++)
                if (json_is_value(str_of(bad[i]), NULL))
                        fail_msg("taken: %s", bad[i]);
}

/* However deep: and each bracket must be closed by its own kind, at any level. */
static void depth_is_not_bounded(void **state UNUSED)
{
        static const size_t depths[] = { 1, 255, 256, 257, 511, 512, 513, 1023, 1024, 1025, 100000 };

        for (size_t i = 0; i < COUNT_OF(depths); i++) {
                FREE_AT_END char *text = malloc(2 * depths[i]);
                size_t n = 2 * depths[i], at = n - 1 - depths[i] / 2;

                assert_non_null(text);
                memset(text, '[', depths[i]);
                memset(text + depths[i], ']', depths[i]);
                assert_true(json_is_value((struct str){ text, n }, NULL));
                assert_false(json_is_value((struct str){ text, n - 1 }, NULL));
                assert_false(json_is_value((struct str){ text + 1, n - 1 }, NULL));
                text[at] = '}';
                assert_false(json_is_value((struct str){ text, n }, NULL));
        }
}

static void levels_of_both_kinds(void **state UNUSED)
{
        BUF_AT_END struct buf text = BUF_INIT(1 << 20);
        struct random r;

        random_init(&r, 7);
        for (int round = 0; round < 200; round++) {
                size_t depth = 1 + (size_t)random_below(&r, 2000);
                FREE_AT_END char *close = malloc(depth);

                assert_non_null(close);
                buf_reset(&text);
                for (size_t i = 0; i < depth; i++) {
                        bool object = random_below(&r, 2);

                        buf_text(&text, object ? "{\"a\":[],\"b\":" : "[{},1,");
                        close[i] = object ? '}' : ']';
                }
                buf_char(&text, '0');
                for (size_t i = depth; i > 0; i--)
                        buf_char(&text, close[i - 1]);
                assert_true(json_is_value(buf_view(&text), NULL));
                text.p[text.n - 1 - (size_t)random_below(&r, depth)] ^= ']' ^ '}';
                assert_false(json_is_value(buf_view(&text), NULL));
        }
}

/* Texts that were changed in one place: the parser of jansson judges. */
static void a_parser_agrees(void **state UNUSED)
{
        static const char seed_text[] =
                "{\"a\":[1,-2.5e3,true,false,null,\"x\\\"y\\u0041\"],\"b\":{\"c\":[[],{}]}, \"d\" : 0 }";
        static const char letters[] = "{}[]:,\"\\0123e+-.tfn u\x01";
        struct random r;
        unsigned good = 0;

        random_init(&r, 5);
        for (int i = 0; i < 50000; i++) {
                char text[sizeof(seed_text)];
                json_t *parsed;

                memcpy(text, seed_text, sizeof(text));
                for (uint64_t k = random_below(&r, 3); k < 3; k++)
                        text[random_below(&r, sizeof(text) - 1)] =
                                letters[random_below(&r, sizeof(letters) - 1)];
                parsed = json_loadb(text, sizeof(text) - 1, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
                if (json_is_value((struct str){ text, sizeof(text) - 1 }, NULL) != (parsed != NULL))
                        fail_msg("%s: the parser says %s", text, parsed ? "yes" : "no");
                good += parsed != NULL;
                json_decref(parsed);
        }
        assert_in_range(good, 1000, 49000);
}

int main(void)
{
        const struct CMUnitTest tests[] = { cmocka_unit_test(what_is_json_is_told),
                                            cmocka_unit_test(depth_is_not_bounded),
                                            cmocka_unit_test(levels_of_both_kinds),
                                            cmocka_unit_test(a_parser_agrees) };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
