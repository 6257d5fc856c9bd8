#include "json/pick.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const struct {
        const char *text, *picked;
} cases[] = {
        /* picked NULL: no JSON object */
        ROW("", ""),
        ROW(" \n", ""),
        ROW("null", ""),
        ROW(" null ", ""),
        ROW("nul", NULL),
        ROW("nulls", NULL),
        ROW("null null", NULL),
        ROW("{}", "{}"),
        ROW(" { } ", "{}"),
        ROW("{\"a\": 1}", "{}"),
        ROW("{\"list\": []}", "{\"list\":[]}"),
        ROW("{\"list\":null}", "{\"list\":null}"),
        ROW("{\"list\" : 12 }", "{\"list\":12}"),
        ROW("{\"list\": \"a\\\"]}\", \"b\": {\"list\": 1}}", "{\"list\":\"a\\\"]}\"}"),
        ROW("{\"x\": {\"list\": [1]}, \"list\": [{\"itemIdentifier\": \"a/[0\"}], \"z\": \"}\"}",
            "{\"list\":[{\"itemIdentifier\": \"a/[0\"}]}"),
        ROW("{\"list\": [1], \"list\": [2]}", "{\"list\":[1],\"list\":[2]}"),
        ROW("{\"lis\": 1, \"listt\": 2, \"\\u016cist\": 3, \"li\\\"st\": 4, \"\\list\": 5}", "{}"),
        ROW("{\"\\u006Cis\\u0074\": 3, \"listt\": 2}", "{\"list\":3}"),
        ROW("{\"\\u006cist\\u0000\": 3, \"lis\\u0074t\": 2}", "{}"),
        ROW("{\"\\u006xist\": 3}", NULL),
        ROW("{\"\\u006\": 3}", NULL),
        ROW("{\"a\\\\\": 1, \"list\": 2}", "{\"list\":2}"),
        ROW("[]", NULL),
        ROW("1", NULL),
        ROW("{", NULL),
        ROW("{\"a\"", NULL),
        ROW("{\"a\": ", NULL),
        ROW("{\"a\": 1", NULL),
        ROW("{\"a\": [1}", NULL),
        ROW("{\"list\": [", NULL),
        ROW("{\"a\" 1}", NULL),
        ROW("{,}", NULL),
        ROW("{\"a\": 1,}", NULL),
        ROW("{} {}", NULL),
        ROW("{\"a\": 1]", NULL),
        ROW("x", NULL),
};

static void it_is_the_same_in_whatever_pieces(void **state UNUSED)
{
        struct json_pick p = { .out = BUF_INIT(65536) };

        for (size_t i = 0; i < COUNT_OF(cases); i++)
                for (size_t piece = 1; piece <= strlen(cases[i].text) + 1; piece++) {
                        struct str rest = str_of(cases[i].text), found;

                        json_pick_begin(&p, STR("list"));
                        while (rest.n) {
                                size_t n = MIN_OF(piece, rest.n);

                                json_pick_feed(&p, (struct str){ rest.p, n });
                                rest = (struct str){ rest.p + n, rest.n - n };
                        }
                        found = json_pick_end(&p);
                        if (cases[i].picked ? !found.p || !str_is(found, cases[i].picked) : found.p != NULL)
                                fail_msg("%s in pieces of %zu: %.*s", cases[i].text, piece, (int)found.n,
                                         found.p ? found.p : "broken");
                }
        buf_done(&p.out);
}

static void only_what_is_wanted_is_kept(void **state UNUSED)
{
        struct json_pick p = { .out = BUF_INIT(64) };
        const struct str filler = STR("\"0123456789 0123456789 0123456789\", ");

        json_pick_begin(&p, STR("list"));
        json_pick_feed(&p, STR("{\"a\": ["));
        for (int i = 0; i < 100000; i++)
                json_pick_feed(&p, filler);
        json_pick_feed(&p, STR("1], \"list\": [7]}"));
        assert_true(str_is(json_pick_end(&p), "{\"list\":[7]}"));
        /* More than is kept can't be told. */
        json_pick_begin(&p, STR("list"));
        json_pick_feed(&p, STR("{\"list\": ["));
        json_pick_feed(&p, filler);
        json_pick_feed(&p, filler);
        json_pick_feed(&p, STR("1]}"));
        assert_null(json_pick_end(&p).p);
        buf_done(&p.out);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(it_is_the_same_in_whatever_pieces),
                cmocka_unit_test(only_what_is_wanted_is_kept),
        };
        return cmocka_run_group_tests_name("pick", tests, NULL, NULL);
}
