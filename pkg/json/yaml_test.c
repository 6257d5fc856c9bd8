#include "json/yaml.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* The text as JSON, documents after each other, or the problems. */
static char *outcome_of(struct str text)
{
        struct documents docs;
        struct problems problems = { 0 };
        struct buf out = BUF_INIT(16 << 20);

        if (yaml_parse(&docs, text, &problems) < 0) {
                assert_true(problems.n > 0);
                problems_format(&problems, "f", &out);
        }
        for (size_t i = 0; problems.n == 0 && i < docs.n; i++) {
                struct writer w;

                writer_init(&w, &out);
                node_write(docs.roots[i], &w);
                buf_char(&out, '\n');
        }
        problems_done(&problems);
        documents_done(&docs);
        return buf_take(&out);
}

static void expect(const char *text, const char *outcome)
{
        FREE_AT_END char *found = outcome_of(str_of(text));

        assert_non_null(found);
        assert_string_equal(found, outcome);
}

static void expect_starts(const char *text, const char *start)
{
        FREE_AT_END char *found = outcome_of(str_of(text));

        assert_non_null(found);
        if (strncmp(found, start, strlen(start)) != 0)
                assert_string_equal(found, start);
}

static void scalars_follow_the_core_schema(void **state UNUSED)
{
        expect("[null, Null, NULL, ~, ]", "[null,null,null,null]\n");
        expect("[true, True, TRUE, false, False, FALSE]", "[true,true,true,false,false,false]\n");
        /* As kubectl reads it, which is YAML 1.1. */
        expect("[yes, Yes, YES, on, On, ON, y, Y]", "[true,true,true,true,true,true,true,true]\n");
        expect("[no, No, NO, off, Off, OFF, n, N]", "[false,false,false,false,false,false,false,false]\n");
        expect("[yEs, oN, nil, tRUE, 12:30, 2026-01-31]",
               "[\"yEs\",\"oN\",\"nil\",\"tRUE\",\"12:30\",\"2026-01-31\"]\n");
        expect("[0, 12, -12, +12, 010, 08, 0x1F, -0x10, 0o17, 0b101, 1_000, 0x]",
               "[0,12,-12,12,8,8,31,-16,15,5,1000,\"0x\"]\n");
        expect("[0o8, _1, 1__0, 0b2, 0xg]", "[\"0o8\",\"_1\",10,\"0b2\",\"0xg\"]\n");
        expect("[1.5, -1.5e3, .5, 5., 1e3, 1e, e3, .]", "[1.5,-1.5e3,0.5,5,1e3,\"1e\",\"e3\",\".\"]\n");
        expect("[9223372036854775807, -9223372036854775808, 9223372036854775808]",
               "[9223372036854775807,-9223372036854775808,9223372036854775808]\n");
        expect("[.inf, -.INF, .nan, .NaN, 0xFFFFFFFFFFFFFFFFFFFF]", "[null,null,null,null,null]\n");
        expect("['5', \"true\", 'null', '~', '']", "[\"5\",\"true\",\"null\",\"~\",\"\"]\n");
        expect("a: |\n  5\nb: >-\n  true\n", "{\"a\":\"5\\n\",\"b\":\"true\"}\n");
        expect("a:\nb: ''\n", "{\"a\":null,\"b\":\"\"}\n");
        expect("1: a\ntrue: b\nnull: c\n", "{\"1\":\"a\",\"true\":\"b\",\"null\":\"c\"}\n");
}

static void a_byte_order_mark_is_none_of_the_text(void **state UNUSED)
{
        expect("\xef\xbb\xbf"
               "a: 1\nb: {c: 2}\n",
               "{\"a\":1,\"b\":{\"c\":2}}\n");
        expect("\xef\xbb\xbf---\na: 1\n---\na: 2\n", "{\"a\":1}\n{\"a\":2}\n");
        expect("\xef\xbb\xbf# words\na: 1\n", "{\"a\":1}\n");
        expect("\xef\xbb\xbf", "");
        expect("a: \"\xef\xbb\xbf\"\n", "{\"a\":\"\xef\xbb\xbf\"}\n");
        expect_starts("\xef\xbb\xbf"
                      "a: [\n",
                      "f:2:1: ");
}

static void json_is_understood(void **state UNUSED)
{
        expect("\xef\xbb\xbf{\"a\": \"\\ud83d\\ude00\"}", "{\"a\":\"\xf0\x9f\x98\x80\"}\n");
        expect("{\"a\":[1,2.50,{\"b\":null}],\"c\":\"x\\/y\\u0041\\n\",\"d\":{}}",
               "{\"a\":[1,2.50,{\"b\":null}],\"c\":\"x/yA\\n\",\"d\":{}}\n");
        expect("{\n\t\"a\" : \"\\ud83d\\ude00\",\n\t\"b\" : \"\\\\ud83d\\ude00\"\n}",
               "f:3:18: the escape names no character: a surrogate stands alone\n");
        expect("{\"a\":\"\\ud83d\\ude00!\"}", "{\"a\":\"\xf0\x9f\x98\x80!\"}\n");
        expect("{\"a\":\"\\\\ud83d\\\\ude00\"}", "{\"a\":\"\\\\ud83d\\\\ude00\"}\n");
}

static void documents_come_one_by_one(void **state UNUSED)
{
        expect("", "");
        expect("# nothing\n", "");
        expect("a: 1\n---\nb: 2\n", "{\"a\":1}\n{\"b\":2}\n");
        expect("---\n---\nb: 2\n...\n", "null\n{\"b\":2}\n");
        expect("\xef\xbb\xbf"
               "a: 1\n",
               "{\"a\":1}\n");
        expect("%YAML 1.2\n---\na: 1\n", "{\"a\":1}\n");
}

static void places_are_kept(void **state UNUSED)
{
        struct documents docs;
        struct problems problems = { 0 };
        const struct node *n;

        assert_int_equal(yaml_parse(&docs, STR("# a comment\nspec:\n  \xc3\xbc: {x: [1, two]}\n"), &problems),
                         0);
        assert_int_equal(docs.n, 1);
        assert_int_equal(docs.roots[0]->line, 2);
        assert_int_equal(docs.roots[0]->column, 1);
        n = node_member(docs.roots[0], "spec");
        assert_int_equal(n->line, 3);
        assert_int_equal(n->column, 3);
        assert_int_equal(n->members[0].line, 3);
        assert_int_equal(n->members[0].column, 3);
        n = node_member(node_member(n, "\xc3\xbc"), "x");
        assert_int_equal(n->items[1]->line, 3);
        assert_int_equal(n->items[1]->column, 14);
        assert_null(node_member(n, "x"));
        assert_null(node_member(NULL, "x"));
        documents_done(&docs);
}

static void what_is_refused_is_told_at_once(void **state UNUSED)
{
        expect("a: 1\nb: &x 2\na: 3\nc: *x\n? [1]\n: 2\nd: !!str 5\n<<: {}\n",
               "f:2:4: anchors and aliases are not allowed: write the value out where it is used; remove the "
               "anchor \"&x\"\n"
               "f:3:1: \"a\" is given twice in this map, first on line 1: remove one of them\n"
               "f:4:4: anchors and aliases are not allowed: write the value out in place of \"*x\"\n"
               "f:5:3: a key must be a text: a list or map can't be one\n"
               "f:7:4: tags are not allowed: remove it, and quote what is to be a string; found the tag "
               "\"tag:yaml.org,2002:str\"\n"
               "f:8:1: merging maps is not allowed: write the members out in place of \"<<\"\n");
        expect("a: {b: 1, c: 2, b: 3, b: 4}\n",
               "f:1:17: \"b\" is given twice in this map, first on line 1: remove one of them\n"
               "f:1:23: \"b\" is given twice in this map, first on line 1: remove one of them\n");
        expect_starts("*b : 1\n", "f:1:1: anchors and aliases are not allowed");
}

static void syntax_errors_speak_plainly(void **state UNUSED)
{
        expect("a: b: c\n",
               "f:1:5: a colon can't stand here: quote the text it is part of, or check the indentation\n");
        expect("a: \"open\nb: 1\n",
               "f:3:1: the quoted text that begins on line 1 is never closed: add the closing quote\n");
        expect("a:\n\tb: 1\n", "f:2:1: a value can't begin with this character: quote it; and a tab can't "
                               "indent: use spaces\n");
        expect("a: @b\n", "f:1:4: a value can't begin with this character: quote it; and a tab can't indent: "
                          "use spaces\n");
        expect("a: [1, 2\nb: 3\n", "f:2:2: expected \",\" or \"]\" in the list that begins on line 1\n");
        expect("a: {b: 1\nc: 3\n", "f:2:2: expected \",\" or \"}\" in the map that begins on line 1\n");
        expect("a: 1\n b: 2\n",
               "f:2:3: a colon can't stand here: quote the text it is part of, or check the indentation\n");
        expect("a:\n  b: 1\n c: 2\n",
               "f:3:2: expected a member of the map that begins on line 1: check the indentation\n");
        expect("a: 1\n- b\n",
               "f:2:1: expected a member of the map that begins on line 1: check the indentation\n");
        expect("a: 1\nb\nc: 2\n", "f:3:1: a colon and a space are missing after the key on line 2\n");
        expect("a: \"\\q\"\n",
               "f:1:5: unknown escape in double quotes: write \\\\ for a backslash, or use single quotes\n");
        expect("{a: 1} b\n", "f:1:8: only one value can stand here: separate documents by a line \"---\"\n");
        expect("%FOO 1\n---\na: 1\n", "f:1:5: unknown directive: a line can't begin with % here\n");
        expect_starts("%YAML 3.0\n---\na: 1\n",
                      "f:1:1: only YAML 1.1 and 1.2 are understood: remove the %YAML line\n");
        expect_starts("a: !x!y z\n", "f:1:4: tags are not allowed");
}

static void documents_before_a_syntax_error_are_kept(void **state UNUSED)
{
        struct documents docs;
        struct problems problems = { 0 };

        assert_int_equal(yaml_parse(&docs, STR("a: 1\n---\nb: [\n"), &problems), -1);
        assert_int_equal(docs.n, 1);
        assert_int_equal(problems.n, 1);
        documents_done(&docs);
        problems_done(&problems);
        assert_int_equal(yaml_parse(&docs, STR("a: *x\nb: !!int 1\nc: ~\n"), &problems), -1);
        assert_true(node_refused(node_member(docs.roots[0], "a")));
        assert_true(node_refused(node_member(docs.roots[0], "b")));
        assert_false(node_refused(node_member(docs.roots[0], "c")));
        documents_done(&docs);
        problems_done(&problems);
}

static void characters_are_checked(void **state UNUSED)
{
        FREE_AT_END char *nul = outcome_of(STR("a: \0"));

        assert_string_equal(nul, "f:1:4: the control character U+0000 is not allowed: write it as an escape "
                                 "in double quotes, or remove it\n");
        expect("a: 1\nb: \xc3\xbc\xff\n",
               "f:2:5: the byte 0xff is not valid UTF-8: save the file in UTF-8\n");
        expect("a: \xed\xa0\x80\n", "f:1:4: the byte 0xed is not valid UTF-8: save the file in UTF-8\n");
        expect("a: \xc3", "f:1:4: the byte 0xc3 is not valid UTF-8: save the file in UTF-8\n");
        expect("a: \x07\n", "f:1:4: the control character U+0007 is not allowed: write it as an escape in "
                            "double quotes, or remove it\n");
        expect("\xff\xfe"
               "a\n",
               "f:1:1: the byte 0xff is not valid UTF-8: save the file in UTF-8\n");
}

static void limits_hold(void **state UNUSED)
{
        static const char *const brackets[] = { "[", "{a: ", "- ", "? " };
        BUF_AT_END struct buf text = BUF_INIT(16 << 20);
        FREE_AT_END char *found = NULL;

        for (size_t i = 0; i < COUNT_OF(brackets); i++) {
                char *deep;

                buf_reset(&text);
                for (int j = 0; j < 100000; j++)
                        buf_text(&text, brackets[i]);
                deep = outcome_of(buf_view(&text));
                assert_non_null(strstr(deep, "more than 72 levels deep: nest less"));
                free(deep);
        }
        buf_reset(&text);
        for (int i = 0; i < 63; i++)
                buf_char(&text, '[');
        for (int i = 0; i < 63; i++)
                buf_char(&text, ']');
        found = outcome_of(buf_view(&text));
        assert_int_equal(strlen(found), 127);
        free(found);
        buf_reset(&text);
        for (int i = 0; i < 100000; i++)
                buf_text(&text, "- 1\n");
        found = outcome_of(buf_view(&text));
        assert_string_equal(found, "f:100000:3: more than 100000 values: split the file\n");
        free(found);
        buf_reset(&text);
        for (int i = 0; i < 90000; i++)
                buf_printf(&text, "k%d: 1\n", i);
        found = outcome_of(buf_view(&text));
        assert_int_equal(found[0], '{');
        free(found);
        buf_reset(&text);
        for (int i = 0; i < 10 << 20; i++)
                buf_char(&text, '#');
        found = outcome_of(buf_view(&text));
        assert_string_equal(found, "f:1:1: the file is larger than 1 MiB: split it\n");
        free(found);
        buf_reset(&text);
        /* A key of half a MiB, twice: the message stays short. */
        for (int k = 0; k < 2; k++) {
                buf_text(&text, "? ");
                for (int i = 0; i < 200000; i++)
                        buf_text(&text, "\xc3\xbc");
                buf_text(&text, "\n: 1\n");
        }
        found = outcome_of(buf_view(&text));
        assert_non_null(strstr(found, "is given twice in this map, first on line 1"));
        assert_true(strlen(found) < 200);
        assert_true(str_is_utf8(str_of(found)));
}

static void long_messages_are_cut_between_characters(void **state UNUSED)
{
        struct problems problems = { 0 };
        BUF_AT_END struct buf text = BUF_INIT(1 << 20);

        for (int i = 0; i < 2000; i++)
                buf_text(&text, "\xe2\x82\xac");
        problem_add(&problems, 1, 1, NULL, "%s", text.p);
        assert_int_equal(strlen(problems.list[0].text), 1023 / 3 * 3);
        assert_true(str_is_utf8(str_of(problems.list[0].text)));
        problems_done(&problems);
        assert_int_equal(text_clip(STR("abc"), 80).n, 3);
        assert_int_equal(text_clip(STR("\xc3\xbc"), 1).n, 0);
}

static void problems_are_in_order_of_place(void **state UNUSED)
{
        struct problems problems = { 0 };
        BUF_AT_END struct buf out = BUF_INIT(4096);

        problem_add(&problems, 3, 1, "spec.x", "third");
        problem_add(&problems, 1, 9, "", "second");
        problem_add(&problems, 1, 2, "a", "first %d", 1);
        problem_add(&problems, 3, 1, "spec.a", "fourth");
        problems_format(&problems, "x.yaml", &out);
        assert_string_equal(out.p, "x.yaml:1:2: a: first 1\nx.yaml:1:9: second\nx.yaml:3:1: spec.x: "
                                   "third\nx.yaml:3:1: spec.a: fourth\n");
        problems_done(&problems);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(scalars_follow_the_core_schema),
                cmocka_unit_test(a_byte_order_mark_is_none_of_the_text),
                cmocka_unit_test(json_is_understood),
                cmocka_unit_test(documents_come_one_by_one),
                cmocka_unit_test(places_are_kept),
                cmocka_unit_test(what_is_refused_is_told_at_once),
                cmocka_unit_test(syntax_errors_speak_plainly),
                cmocka_unit_test(documents_before_a_syntax_error_are_kept),
                cmocka_unit_test(characters_are_checked),
                cmocka_unit_test(limits_hold),
                cmocka_unit_test(long_messages_are_cut_between_characters),
                cmocka_unit_test(problems_are_in_order_of_place),
        };

        return cmocka_run_group_tests_name("yaml", tests, NULL, NULL);
}
