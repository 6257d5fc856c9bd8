#include "filter/filter.h"

#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/random.h"
#include "filter/value.h"
#include "tests/sim/memory.h"

#include <cmocka.h>

static struct filter *compiled(const char *pattern)
{
        struct filter *f = NULL;
        struct error err;

        if (filter_new(&f, str_of(pattern), &err) < 0)
                fail_msg("%s: %s", pattern, err.text);
        return f;
}

static bool matches_text(struct filter *f, struct str record)
{
        bool matches = false;
        struct error err;

        if (filter_match(f, record, &matches, &err) < 0)
                fail_msg(STR_FMT ": %s", STR_ARG(record), err.text);
        return matches;
}

static void check(const char *pattern, const char *record, bool expected)
{
        CLEANUP(filter_freep) struct filter *f = compiled(pattern);

        if (matches_text(f, str_of(record)) != expected)
                fail_msg("%s %s %s", pattern, expected ? "does not match" : "matches", record);
}

/* ---- the examples in docs/filter.md: blocks "json pattern", each followed by "json matches" and "json differs" */

static size_t examples(struct filter *f, struct str block, bool expected)
{
        size_t n = 0;

        while (block.n) {
                struct str line = str_cut(&block, '\n');

                if (matches_text(f, line) != expected)
                        fail_msg("docs/filter.md: " STR_FMT " should %smatch", STR_ARG(line),
                                 expected ? "" : "not ");
                n++;
        }
        return n;
}

static void the_documents_examples_are_true(void **state UNUSED)
{
        CLEANUP(filter_freep) struct filter *f = NULL;
        BUF_AT_END struct buf text = BUF_INIT(1 << 20);
        size_t patterns = 0, yes = 0, no = 0;
        struct str rest;
        struct error err;

        if (buf_read_file(&text, "docs/filter.md", &err) < 0)
                fail_msg("%s", err.text);
        for (rest = buf_view(&text); rest.n;) {
                struct str line = str_cut(&rest, '\n'), block = { rest.p, 0 };

                if (!str_starts(line, STR("```")))
                        continue;
                while (!str_starts(rest, STR("```"))) {
                        assert_true(rest.n > 0);
                        (void)str_cut(&rest, '\n');
                        block.n = (size_t)(rest.p - block.p);
                }
                (void)str_cut(&rest, '\n');
                if (str_is(line, "```json pattern")) {
                        f = filter_free(f);
                        if (filter_new(&f, block, &err) < 0)
                                fail_msg("docs/filter.md: " STR_FMT ": %s", STR_ARG(block), err.text);
                        patterns++;
                } else if (str_is(line, "```json matches"))
                        yes += examples(f, block, true);
                else if (str_is(line, "```json differs"))
                        no += examples(f, block, false);
                else
                        fail_msg("docs/filter.md: what kind of block is " STR_FMT "?", STR_ARG(line));
        }
        assert_true(patterns >= 20 && yes >= 30 && no >= 30);
}

/* ---- operators: what docs/filter.md does not show. The expectations were checked against the reference. */

static const struct {
        const char *pattern, *record;
        bool expected;
} values[] = {
        ROW("{\"a\":[\"\"]}", "{\"a\":\"\"}", true),
        ROW("{\"a\":[true]}", "{\"a\":true}", true),
        ROW("{\"a\":[true]}", "{\"a\":\"true\"}", false),
        ROW("{\"a\":[false, null]}", "{\"a\":null}", true),
        ROW("{\"a\":[\"\\u00e9\\n\"]}", "{\"a\":\"\303\251\\u000a\"}", true),
        ROW("{\"a\":[\"\360\237\230\200\"]}", "{\"a\":\"\\ud83d\\uDE00\"}", true),
        ROW("{\"\\u0061\":[1]}", "{\"a\":1}", true),
        ROW("{\"a\":[1]}", "{\"\\u0061\":1}", true),
        ROW("{\"a.b\":[1]}", "{\"a\\u002eb\":1}", true),
        ROW("{\"a\":[\"/\"]}", "{\"a\":\"\\/\"}", true),
        ROW("{\"a\":[\"x\\u0000y\"]}", "{\"a\":\"x\\u0000y\"}", true),
        ROW("{\"a\":[\"x\"]}", "{\"a\":\"x\\u0000y\"}", false),
        ROW("{\"a\":[0]}", "{\"a\":-0.0}", true),
        ROW("{\"a\":[100000000000000]}", "{\"a\":1E14}", true),
        ROW("{\"a\":[0.1]}", "{\"a\":100e-3}", true),
        ROW("{\"a\":[12345678901234567890]}", "{\"a\":12345678901234567890}", true),
        ROW("{\"a\":[12345678901234567890]}", "{\"a\":12345678901234567891}", false),
        ROW("{\"a\":[12345678901234567890]}", "{\"a\":1234567890123456789e1}", false),
        ROW("{\"a\":[{\"anything-but\":1}]}", "{\"a\":12345678901234567890}", true),
        ROW("{\"a\":[{\"numeric\":[\">\",0]}]}", "{\"a\":12345678901234567890}", false),
        ROW("{\"a\":[{\"numeric\":[\">\",0]}]}", "{\"a\":1e308}", true),
        ROW("{\"a\":[{\"numeric\":[\"<\",0]}]}", "{\"a\":-1e-300}", true),
        ROW("{\"a\":[{\"numeric\":[\">=\",-1,\"<\",1]}]}", "{\"a\":[-2,-1]}", true),
        ROW("{\"a\":[{\"prefix\":\"\"}]}", "{\"a\":\"\"}", true),
        ROW("{\"a\":[{\"prefix\":\"\"}]}", "{\"a\":1}", false),
        ROW("{\"a\":[{\"prefix\":\"a\\\"\"}]}", "{\"a\":\"a\"}", false),
        ROW("{\"a\":[{\"suffix\":\"\303\251\"}]}", "{\"a\":\"caf\303\251\"}", true),
        ROW("{\"a\":[{\"equals-ignore-case\":\"stra\303\237e\"}]}", "{\"a\":\"STRASSE\"}", true),
        ROW("{\"a\":[{\"equals-ignore-case\":\"STRASSE\"}]}", "{\"a\":\"stra\303\237e\"}", false),
        ROW("{\"a\":[{\"suffix\":{\"equals-ignore-case\":\"\303\237\"}}]}", "{\"a\":\"PASS\"}", true),
        ROW("{\"a\":[{\"prefix\":{\"equals-ignore-case\":\"\303\204\"}}]}", "{\"a\":\"\303\244h\"}", true),
        ROW("{\"a\":[{\"wildcard\":\"*\"}]}", "{\"a\":\"\"}", true),
        ROW("{\"a\":[{\"wildcard\":\"*\"}]}", "{\"a\":1}", false),
        ROW("{\"a\":[{\"wildcard\":\"\"}]}", "{\"a\":\"x\"}", false),
        ROW("{\"a\":[{\"wildcard\":\"ab*ba\"}]}", "{\"a\":\"aba\"}", false),
        ROW("{\"a\":[{\"wildcard\":\"a*b*a\"}]}", "{\"a\":\"abba\"}", true),
        ROW("{\"a\":[{\"wildcard\":\"\\\\\\\\*\\\\*\"}]}", "{\"a\":\"\\\\x*\"}", true),
        ROW("{\"a\":[{\"cidr\":\"0.0.0.0/0\"}]}", "{\"a\":\"::1\"}", false),
        ROW("{\"a\":[{\"cidr\":\"10.1.2.3/31\"}]}", "{\"a\":\"10.1.2.2\"}", true),
        ROW("{\"a\":[{\"cidr\":\"10.1.2.3/31\"}]}", "{\"a\":\"10.1.2.4\"}", false),
        ROW("{\"a\":[{\"cidr\":\"10.0.0.0/8\"}]}", "{\"a\":\"::ffff:a00:1\"}", true),
        ROW("{\"a\":[{\"cidr\":\"2001:db8::/33\"}]}", "{\"a\":\"2001:db8:7fff::\"}", true),
        ROW("{\"a\":[{\"cidr\":\"2001:db8::/33\"}]}", "{\"a\":\"2001:db8:8000::\"}", false),
        ROW("{\"a\":[\"10.0.0.1\"]}", "{\"a\":\"010.0.0.01\"}", true),
        ROW("{\"a\":[{\"anything-but\":[\"10.0.0.1\"]}]}", "{\"a\":\"010.0.0.01\"}", true),
        ROW("{\"a\":[{\"exists\":true}]}", "{\"a\":[[],{}]}", false),
        ROW("{\"a\":[{\"exists\":true}]}", "{\"a\":[[[0]]]}", true),
        ROW("{\"a\":[{\"exists\":false}]}", "{\"a\":{\"b\":1}}", true),
        ROW("{\"a\":[{\"exists\":false}]}", "{}", true),
        ROW("{\"a\":{\"b\":[{\"exists\":false}]}}", "{\"a\":5}", true),
        ROW("{\"a\":[1],\"a\":[2]}", "{\"a\":1}", false),
        ROW("{\"a\":[1],\"a\":[2]}", "{\"a\":2}", true),
        ROW("{\"a\":[1],\"a\":{\"b\":[2]}}", "{\"a\":1,\"a\":{\"b\":2}}", true),
        ROW("{\"a\":[1]}", "{\"a\":2,\"a\":1}", true),
        ROW("{\"a\":[\"\357\277\275\"]}", "{\"a\":\"\\udc00\"}", true),
        ROW("{\"a\":[\"\357\277\275x\"]}", "{\"a\":\"\\ud800x\"}", true),
        ROW("{\"a\":[{\"suffix\":\"x\"}]}", "{\"a\":\"\377\200x\"}", true),
        ROW("{\"$or\":[{\"a\":[1,2]},{\"a\":[2,3]}]}", "{\"a\":3}", true),
        /* where it holds no alternatives it is a name */
        ROW("{\"$or\":[\"x\",\"y\"]}", "{\"$or\":\"y\"}", true),
        ROW("{\"$or\":[\"x\"]}", "{\"$or\":\"z\"}", false),
        ROW("{\"$or\":[1,true,null]}", "{\"$or\":[null]}", true),
        ROW("{\"$or\":[{\"prefix\":\"a\"},{\"suffix\":\"b\"}]}", "{\"$or\":\"cb\"}", true),
        ROW("{\"$or\":[{\"exists\":false}]}", "{\"a\":1}", true),
        ROW("{\"$or\":{\"a\":[1]}}", "{\"$or\":{\"a\":1}}", true),
        ROW("{\"a\":{\"$or\":[1]},\"$or\":{\"$or\":[2]}}", "{\"a\":{\"$or\":1},\"$or\":{\"$or\":2}}", true),
        ROW("{\"$\\u006fr\":[\"x\"]}", "{\"$or\":\"x\"}", true),
        ROW("{\"a\":[1],\"$or\":[{\"a\":[2]},{\"b\":[2]}]}", "{\"a\":2}", true),
        ROW("{\"$or\":[{\"a\":[2]},{\"b\":[2]}],\"a\":[1]}", "{\"a\":2}", false),
        ROW("{\"$or\":[{\"a\":[1]},{\"b\":[1],\"$or\":[{\"c\":[1]},{\"d\":[1]}]}]}", "{\"b\":1,\"d\":1}",
            true),
        ROW("{\"\":{\"\":[1]}}", "{\"\":{\"\":1}}", true),
};

static void values_are_tested(void **state UNUSED)
{
        for (size_t i = 0; i < COUNT_OF(values); i++)
                check(values[i].pattern, values[i].record, values[i].expected);
}

static void fields_match_in_one_element(void **state UNUSED)
{
        static const char xy[] = "{\"a\":{\"x\":[1],\"y\":[1]}}",
                          two[] = "{\"a\":{\"x\":[1]},\"b\":{\"x\":[1]}}";
        static const char deep[] = "{\"a\":{\"b\":{\"x\":[1],\"y\":[1]},\"z\":[1]}}";
        static const struct {
                const char *pattern, *record;
                bool expected;
        } all[] = {
                ROW(xy, "{\"a\":[{\"x\":1},{\"y\":1}]}", false),
                ROW(xy, "{\"a\":[{\"x\":2},{\"x\":1,\"y\":1}]}", true),
                ROW(xy, "{\"a\":[{\"x\":1,\"y\":2},{\"x\":[2,1],\"y\":[3,1]}]}", true),
                ROW(xy, "{\"a\":[[{\"x\":1}],[{\"y\":1}]]}", false),
                ROW(xy, "{\"a\":[[{\"x\":1},{\"y\":1}]]}", false),
                ROW(xy, "{\"a\":[{\"x\":1}],\"a\":[{\"y\":1}]}", true), /* two arrays */
                ROW(xy, "{\"a\":[{\"x\":1}],\"a.y\":1}", true),
                ROW(two, "{\"a\":[{\"x\":2},{\"x\":1}],\"b\":[{\"x\":1}]}", true),
                ROW(deep, "{\"a\":[{\"b\":[{\"x\":1},{\"y\":1}],\"z\":1}]}", false),
                ROW(deep,
                    "{\"a\":[{\"b\":[{\"x\":1,\"y\":1}],\"z\":2},{\"b\":[{\"x\":1},{\"y\":1}],\"z\":1}]}",
                    false),
                ROW(deep,
                    "{\"a\":[{\"b\":[{\"x\":1,\"y\":1}],\"z\":2},{\"b\":[{},{\"y\":1,\"x\":1}],\"z\":1}]}",
                    true),
                ROW("{\"a\":[1],\"b\":[2]}", "{\"a\":[0,1],\"b\":[1,2]}", true),
                /* absence is judged by what was matched before it, in the order of the paths */
                ROW("{\"a\":{\"x\":[1],\"y\":[{\"exists\":false}]}}", "{\"a\":[{\"x\":1},{\"y\":1}]}", true),
                ROW("{\"a\":{\"y\":[1],\"x\":[{\"exists\":false}]}}", "{\"a\":[{\"x\":1},{\"y\":1}]}", false),
                ROW("{\"a\":{\"x\":[1],\"y\":[{\"exists\":false}]}}",
                    "{\"a\":[{\"x\":1,\"y\":1},{\"x\":1,\"y\":1}]}", false),
        };

        for (size_t i = 0; i < COUNT_OF(all); i++)
                check(all[i].pattern, all[i].record, all[i].expected);
}

/* ---- complaints */

static const struct {
        const char *pattern, *text;
} bad_patterns[] = {
        ROW("", "a pattern is a JSON object, such as {\"state\": [\"open\"]}"),
        ROW("[1]", "a pattern is a JSON object, such as {\"state\": [\"open\"]}"),
        ROW("{}", "an empty object matches nothing: name a member, such as {\"state\": [\"open\"]}"),
        ROW("{\"a\":{}}",
            "a: an empty object matches nothing: name a member, such as {\"state\": [\"open\"]}"),
        ROW("{\"a\":\"open\"}", "a: expected an object, or a list of values: put it into [ ], not \"open\""),
        ROW("{\"a\":{\"b\":[]}}",
            "a.b: the list is empty: name the values that match, or [{\"exists\": true}] for any"),
        ROW("{\"a\":[[1]]}", "a[0]: expected a string, number, true, false, null or an operator such "
                             "as {\"prefix\": \"a\"}, not [1]"),
        ROW("{\"a\":[1,{}]}", "a[1]: expected an operator, such as {\"prefix\": \"a\"}: the object is empty"),
        ROW("{\"a\":[{\"prefx\":\"a\"}]}", "a[0]: no operator is called \"prefx\"; did you mean \"prefix\"?"),
        ROW("{\"a\":[{\"\":\"a\"}]}",
            "a[0]: no operator is called \"\" here; there are prefix, suffix, equals-ignore-case, "
            "wildcard, anything-but, numeric, exists, cidr, exactly"),
        ROW("{\"a\":[{\"prefix\":\"a\",\"suffix\":\"b\"}]}",
            "a[0].prefix: only one operator may stand in an object: put the second in an object of "
            "its own"),
        ROW("{\"a\":[{\"prefix\":1}]}",
            "a[0].prefix: expected a string or {\"equals-ignore-case\": \"…\"}, not 1"),
        ROW("{\"a\":[{\"suffix\":{\"x\":\"b\"}}]}",
            "a[0].suffix: expected \"equals-ignore-case\", not \"x\""),
        ROW("{\"a\":[{\"exists\":\"yes\"}]}", "a[0].exists: expected true or false, not \"yes\""),
        ROW("{\"a\":[{\"wildcard\":\"a**\"}]}", "a[0].wildcard: two stars in a row: one says the same"),
        ROW("{\"a\":[{\"wildcard\":\"\\\\x\"}]}",
            "a[0].wildcard: a backslash must stand before a star or a backslash (in JSON: \"\\\\*\", "
            "\"\\\\\\\\\")"),
        ROW("{\"a\":[{\"numeric\":[\">\",2,\"<\",1]}]}",
            "a[0].numeric: the lower bound of a range must be less than the upper"),
        ROW("{\"a\":[{\"numeric\":[\"!\",2]}]}",
            "a[0].numeric: expected one of \"=\", \"<\", \"<=\", \">\", \">=\", not \"!\""),
        ROW("{\"a\":[{\"numeric\":[\"=\",\"2\"]}]}", "a[0].numeric: expected a number, not \"2\""),
        ROW("{\"a\":[{\"numeric\":[\"<\",1,\">\",0]}]}",
            "a[0].numeric: nothing may follow \"<\" and its number; a range begins with \">\" or "
            "\">=\""),
        ROW("{\"a\":[{\"numeric\":[\"=\",1e999]}]}",
            "a[0].numeric: 1e999 has more digits or a larger exponent than a double: it cannot be "
            "compared"),
        ROW("{\"a\":[{\"anything-but\":[\"x\",1]}]}",
            "a[0].anything-but[1]: expected all strings or all numbers in one list"),
        ROW("{\"a\":[{\"anything-but\":[]}]}",
            "a[0].anything-but: expected strings or numbers: the list is empty"),
        ROW("{\"a\":[{\"anything-but\":{\"prefix\":[\"x\",\"\"]}}]}",
            "a[0].anything-but.prefix[1]: the empty string begins and ends every string: nothing "
            "would match"),
        ROW("{\"a\":[{\"cidr\":\"10.0.0.0/32\"}]}",
            "a[0].cidr: expected a length from 0 to 31 after the slash"),
        ROW("{\"a\":[{\"cidr\":\"10.0.0/8\"}]}",
            "a[0].cidr: expected an IPv4 or IPv6 address and a length, such as \"10.0.0.0/8\""),
        ROW("{\"a\":{\"$or\":[{\"b\":[1]}]}}",
            "a.$or: expected two objects or more, of which one must match"),
        ROW("{\"$or\":[{\"b\":[1]},{\"c\":[{\"exists\":1}]}]}",
            "$or[1].c[0].exists: expected true or false, not 1"),
        ROW("{\"$or\":[{\"prefix\":[\"a\"]},{\"c\":[1]}]}",
            "$or[0].prefix: an operator's name cannot be a member's inside \"$or\": \"$or\" holds "
            "objects of members, each with a list of values"),
        ROW("{\"a\":[1]} {", "something follows the pattern's object at byte 10"),
        ROW("{\"a\":[1}", "a: no valid JSON at byte 7: expected ',' or ']'"),
        ROW("{\"a\":[\"\\ud800\"]}",
            "a[0]: half of a surrogate pair in \"\\ud800\": write the character itself"),
        ROW("{\"a\":[\"\377\"]}", "the pattern is not valid UTF-8"),
        ROW("{\"a\\nb\":1}", "a b: expected an object, or a list of values: put it into [ ], not 1"),
};

static void a_bad_pattern_is_refused_with_its_place(void **state UNUSED)
{
        for (size_t i = 0; i < COUNT_OF(bad_patterns); i++) {
                struct filter *f = NULL;
                struct error err = { 0 };

                if (filter_new(&f, str_of(bad_patterns[i].pattern), &err) == 0)
                        fail_msg("%s was taken", bad_patterns[i].pattern);
                assert_null(f);
                assert_int_equal(err.kind, ERROR_INVALID);
                assert_string_equal(err.text, bad_patterns[i].text);
        }
}

static void what_is_no_object_is_an_error(void **state UNUSED)
{
        static const struct {
                const char *record, *text;
        } all[] = {
                { "", "the record is no JSON object" },
                { "[1]", "the record is no JSON object" },
                { "{\"a\":1", "the record is no valid JSON: byte 6: expected ',' or '}'" },
                { "{\"a\":", "the record is no valid JSON: byte 5: the text ends where a value is expected" },
                { "{\"b\":[1,]}", "the record is no valid JSON: byte 8: expected a value" },
                { "{\"b\":\"\\x\"}", "the record is no valid JSON: byte 7: no such escape in a string" },
                { "{\"b\":\"\n\"}", "the record is no valid JSON: byte 6: a control character in a string" },
                { "{\"b\":\"", "the record is no valid JSON: byte 6: the string does not end" },
                { "{\"a\":1}}", "the record is no valid JSON: byte 7: something follows the object" },
                { "{\"a\":01}", "the record is no valid JSON: byte 6: expected ',' or '}'" },
                { "{b:1}", "the record is no valid JSON: byte 1: expected a member's name in quotes" },
        };
        CLEANUP(filter_freep) struct filter *f = compiled("{\"a\":[1]}");

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                struct error err = { 0 };
                bool matches = true;

                assert_int_equal(filter_match(f, str_of(all[i].record), &matches, &err), -1);
                assert_string_equal(err.text, all[i].text);
                assert_int_equal(err.kind, ERROR_INVALID);
                assert_true(matches);
        }
}

static void the_reason_is_told(void **state UNUSED)
{
        static const struct {
                const char *pattern, *record, *why;
        } all[] = {
                ROW("{\"value\":{\"state\":[\"open\"]}}", "{}", "value.state: no value matches [\"open\"]"),
                ROW("{\"b\":[1],\"a\":[ {\"exists\": false} ]}", "{\"a\":1}", "b: no value matches [1]"),
                ROW("{\"b\":[1],\"a\":[ {\"exists\": false} ]}", "{\"a\":1,\"b\":1}",
                    "a: no value matches [ {\"exists\": false} ]"),
                ROW("{\"a\":{\"x\":[1],\"y\":[1]}}", "{\"a\":[{\"x\":1},{\"y\":1}]}",
                    "a.x … a.y: each is matched, but not within the same element of an array"),
                ROW("{\"$or\":[{\"a\":[1]},{\"b\":[1],\"c\":[2]}]}", "{\"b\":1}",
                    "c: no value matches [2] (the nearest of 2 combinations)"),
                ROW("{\"a\":[1]}", "{\"a\":1}", "it matches"),
                ROW("{\"a\":[1]}", "1", "the record is no JSON object"),
        };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                CLEANUP(filter_freep) struct filter *f = compiled(all[i].pattern);
                BUF_AT_END struct buf why = BUF_INIT(4096);

                filter_explain(f, str_of(all[i].record), &why);
                assert_non_null(why.p);
                assert_string_equal(why.p, all[i].why);
        }
}

/* ---- parts */

static void numbers_are_what_doubles_print(void **state UNUSED)
{
        static const struct {
                const char *text;
                bool comparable;
                double value;
        } all[] = {
                { "0", true, 0 },
                { "-0.00e5", true, 0 },
                { "1", true, 1 },
                { "-1.50", true, -1.5 },
                { "3.0e2", true, 300 },
                { "0.1", true, 0.1 },
                { "1000000000000000000000", true, 1e21 },
                { "1e23", true, 1e23 },
                { "8.41e21", true, 8.41e21 },
                { "1e308", true, 1e308 },
                { "1e309", false, 0 },
                { "1e-400", false, 0 },
                { "4.9e-324", true, 4.9e-324 },
                { "5e-324", false, 0 },
                { "2.2250738585072014e-308", true, 2.2250738585072014e-308 },
                { "9007199254740992", true, 9007199254740992 },
                { "9007199254740993", false, 0 },
                { "0.30000000000000004", true, 0.30000000000000004 },
                { "0.30000000000000001", false, 0 },
                { "123456789012345678", false, 0 },
                { "1.7976931348623157e308", true, 1.7976931348623157e308 },
                { "1e99999999999999999999", false, 0 },
                { "0e99999999999999999999", false, 0 },
                { "0e-5", true, 0 },
                { "100e-2", true, 1 },
                { "0.000000000000000000000000000001", true, 1e-30 },
                { "100000000000000000000000000000000000000000000000000e-50", true, 1 },
        };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                struct number n = number_of(str_of(all[i].text));

                if (n.comparable != all[i].comparable ||
                    (n.comparable && (n.value < all[i].value || n.value > all[i].value)))
                        fail_msg("%s: comparable %d, %.17g", all[i].text, n.comparable, n.value);
        }
}

static void addresses_are_read(void **state UNUSED)
{
        static const struct {
                const char *text;
                unsigned bits;
                unsigned char bytes[16];
        } all[] = {
                ROW("1.2.3.4", 32, { 1, 2, 3, 4 }),
                ROW("001.002.003.004", 32, { 1, 2, 3, 4 }),
                ROW("255.255.255.255", 32, { 255, 255, 255, 255 }),
                ROW("256.1.1.1", 0, { 0 }),
                ROW("1.2.3", 0, { 0 }),
                ROW("1.2.3.4.5", 0, { 0 }),
                ROW("1..3.4", 0, { 0 }),
                ROW("1.2.3.4 ", 0, { 0 }),
                ROW("", 0, { 0 }),
                ROW("0000001.2.3.0004", 0, { 0 }),
                ROW("::", 128, { 0 }),
                ROW("::1", 128, { [15] = 1 }),
                ROW("1::", 128, { 0, 1 }),
                ROW("1:2:3:4:5:6:7:8", 128, { 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8 }),
                ROW("1:2:3:4:5:6:7", 0, { 0 }),
                ROW("1:2:3:4:5:6:7:8:9", 0, { 0 }),
                ROW("1::2::3", 0, { 0 }),
                ROW(":1:2:3:4:5:6:7", 0, { 0 }),
                ROW("1:2:3:4:5:6:7:", 0, { 0 }),
                ROW("1:2:3:4::5:6:7:8", 0, { 0 }),
                ROW("FE80::aBcD", 128, { 0xfe, 0x80, [14] = 0xab, [15] = 0xcd }),
                ROW("10000::", 0, { 0 }),
                ROW("g::", 0, { 0 }),
                ROW(":::", 0, { 0 }),
                ROW("::ffff:102:304", 32, { 1, 2, 3, 4 }),
                ROW("::ffff:1.2.3.4", 0, { 0 }),
                ROW(":", 0, { 0 }),
        };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                struct address a = address_of(str_of(all[i].text));

                if (a.bits != all[i].bits || (a.bits && memcmp(a.bytes, all[i].bytes, a.bits / 8) != 0))
                        fail_msg("%s: %u bits", all[i].text, a.bits);
        }
}

/* ---- bounds */

static void repeat(struct buf *b, const char *text, size_t n)
{
        while (n--)
                buf_text(b, text);
}

static void nesting_is_bounded(void **state UNUSED)
{
        for (size_t depth = 63; depth <= 65; depth++) {
                BUF_AT_END struct buf pattern = BUF_INIT(1 << 16);
                CLEANUP(filter_freep) struct filter *f = NULL;
                struct error err;

                repeat(&pattern, "{\"a\":", depth);
                buf_text(&pattern, "[1]");
                repeat(&pattern, "}", depth);
                assert_int_equal(filter_new(&f, buf_view(&pattern), &err), depth <= 64 ? 0 : -1);
        }
}

/* However deep a record is: where the pattern looks, and beside it. */
static void records_of_any_depth_are_judged(void **state UNUSED)
{
        static const size_t depths[] = { 1, 2, 254, 255, 256, 257, 300, 511, 513, 5000, 100000 };

        for (size_t i = 0; i < COUNT_OF(depths); i++)
                for (int where = 0; where < 4; where++) {
                        CLEANUP(filter_freep) struct filter *f = compiled("{\"a\":[1],\"c\":{\"d\":[2]}}");
                        BUF_AT_END struct buf record = BUF_INIT(1 << 22);
                        struct error err;
                        bool matches;

                        buf_text(&record, where == 0   ? "{\"a\":"
                                          : where == 1 ? "{\"a\":1,\"b\":"
                                          : where == 2 ? "{\"a\":2,\"b\":"
                                                       : "{\"a\":1,\"b\":{\"x\":");
                        repeat(&record, where == 3 ? "{\"x\":" : "[", depths[i] - 1);
                        buf_char(&record, '1');
                        repeat(&record, where == 3 ? "}" : "]", depths[i] - 1);
                        buf_text(&record, where == 3 ? "},\"c\":[[{\"d\":2}]]}" : ",\"c\":{\"d\":2}}");
                        if (filter_match(f, buf_view(&record), &matches, &err) < 0)
                                fail_msg("%zu levels: %s", depths[i], err.text);
                        assert_int_equal(matches, where != 2);
                }
}

static void what_is_too_deep_where_the_pattern_looks_is_an_error(void **state UNUSED)
{
        CLEANUP(filter_freep) struct filter *f = compiled("{\"a\":[1]}");
        BUF_AT_END struct buf record = BUF_INIT(1 << 22);
        struct error err;
        bool matches;

        buf_text(&record, "{\"a\":");
        repeat(&record, "[", 1 << 20);
        repeat(&record, "]", 1 << 20);
        buf_char(&record, '}');
        assert_int_equal(filter_match(f, buf_view(&record), &matches, &err), -1);
        assert_non_null(strstr(err.text, "nested too deep"));
}

static void combinations_and_sizes_are_bounded(void **state UNUSED)
{
        BUF_AT_END struct buf many = BUF_INIT(1 << 20), wide = BUF_INIT(1 << 20), big = BUF_INIT(1 << 20);
        CLEANUP(filter_freep) struct filter *f = NULL;
        struct error err;

        /* 2^9 combinations pass, 2^10 do not */
        buf_char(&many, '{');
        for (int i = 0; i < 10; i++) {
                size_t before = many.n;

                buf_printf(&many, "%s\"$or\":[{\"a%d\":[1]},{\"b%d\":[1]}]", i ? "," : "", i, i);
                buf_char(&many, '}');
                f = filter_free(f);
                if (filter_new(&f, buf_view(&many), &err) < 0) {
                        assert_int_equal(i, 9);
                        assert_non_null(strstr(err.text, "more than 1000 combinations"));
                } else
                        assert_true(i < 9);
                many.n--;
                assert_true(many.n > before);
        }
        f = filter_free(f);
        buf_char(&wide, '{');
        for (int i = 0; i < 256; i++)
                buf_printf(&wide, "%s\"a%d\":[1]", i ? "," : "", i);
        buf_char(&wide, '}');
        assert_int_equal(filter_new(&f, buf_view(&wide), &err), 0);
        f = filter_free(f);
        wide.n--;
        buf_text(&wide, ",\"b\":[1]}");
        assert_int_equal(filter_new(&f, buf_view(&wide), &err), -1);
        assert_string_equal(err.text, "b: more than 256 members must match: split the Trigger");
        buf_text(&big, "{\"a\":[\"");
        repeat(&big, "x", 65536);
        buf_text(&big, "\"]}");
        assert_int_equal(filter_new(&f, buf_view(&big), &err), -1);
        assert_non_null(strstr(err.text, "more than 65536 bytes"));
}

/* A search or a wildcard that went back for each choice would not end in a lifetime. */
static void nothing_explodes(void **state UNUSED)
{
        CLEANUP(filter_freep)
        struct filter *f = compiled("{\"a\":{\"x\":[1],\"y\":[1]},\"b\":{\"x\":[1],\"y\":[1]},\"c\":{\"x\":["
                                    "1],\"y\":[1]},\"d\":{\"x\":[1],\"y\":[1]},\"z\":[1]}");
        CLEANUP(filter_freep)
        struct filter *stars = compiled(
                "{\"a\":[{\"wildcard\":\"*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b*a\"}]}");
        CLEANUP(filter_freep)
        struct filter *apart = compiled("{\"a\":[1],\"a!\":[1],\"a!!\":[1],\"a!!!\":[1],\"a.x\":[1],\"a!.x\":"
                                        "[1],\"a!!.x\":[1],\"a!!!.x\":[1]}");
        BUF_AT_END struct buf record = BUF_INIT(16 << 20);
        struct error err;
        bool matches;

        buf_char(&record, '{');
        for (char name = 'a'; name <= 'd'; name++) {
                buf_printf(&record, "\"%c\":[", name);
                repeat(&record, "{\"x\":1},{\"y\":1},", 5000);
                buf_text(&record, name < 'd' ? "{\"x\":1,\"y\":1}]," : "{\"x\":1,\"y\":1}]}");
        }
        assert_false(matches_text(f, buf_view(&record)));
        record.n--;
        buf_text(&record, ",\"z\":1}");
        assert_true(matches_text(f, buf_view(&record)));
        buf_reset(&record);
        buf_text(&record, "{\"a\":\"");
        repeat(&record, "a", 100000);
        buf_text(&record, "\"}");
        assert_false(matches_text(stars, buf_view(&record)));
        /* names made so that all choices stay open: given up, and told */
        buf_reset(&record);
        buf_char(&record, '{');
        for (size_t i = 0; i < 4; i++) {
                buf_text(&record, i ? ",\"a" : "\"a");
                repeat(&record, "!", i);
                buf_text(&record, "\":[");
                repeat(&record, "[1],{\"x\":1},", 300);
                buf_text(&record, "0]");
        }
        buf_char(&record, '}');
        assert_int_equal(filter_match(apart, buf_view(&record), &matches, &err), -1);
        assert_non_null(strstr(err.text, "the search was given up"));
}

/* A list of many tests, and a record of many values or of a long one, would take their product. */
static void tests_times_values_are_bounded(void **state UNUSED)
{
        BUF_AT_END struct buf exact = BUF_INIT(1 << 16), wild = BUF_INIT(1 << 16), record = BUF_INIT(8 << 20);
        CLEANUP(filter_freep) struct filter *many = NULL, *stars = NULL;
        bool matches = true;
        struct error err;

        buf_text(&exact, "{\"a\":[");
        buf_text(&wild, "{\"a\":[");
        for (int i = 0; i < 2000; i++) {
                buf_printf(&exact, "\"id-%d\",", i * 7919 % 10007);
                buf_printf(&wild, "{\"wildcard\":\"*x%d*\"},", i);
        }
        buf_text(&exact, "\"last\"]}");
        buf_text(&wild, "\"last\"]}");
        many = compiled(exact.p);
        stars = compiled(wild.p);
        buf_text(&record, "{\"a\":[");
        repeat(&record, "\"id-10007\",", 200000);
        buf_text(&record, "\"id-7919\"]}");
        assert_true(matches_text(many, buf_view(&record)));
        assert_int_equal(filter_match(stars, buf_view(&record), &matches, &err), -1);
        assert_non_null(strstr(err.text, "the search was given up"));
        buf_reset(&record);
        buf_text(&record, "{\"a\":\"");
        repeat(&record, "x", 1000000);
        buf_text(&record, "\"}");
        assert_int_equal(filter_match(stars, buf_view(&record), &matches, &err), -1);
        assert_non_null(strstr(err.text, "the search was given up"));
        assert_true(matches_text(stars, STR("{\"a\":\"-x1999-\"}")));
}

static void what_a_large_record_took_is_given_back(void **state UNUSED)
{
        CLEANUP(filter_freep)
        struct filter *f = compiled("{\"a\":{\"b\":[1]},\"c\":[\"x\"],\"d\":[{\"exists\":false}]}");
        BUF_AT_END struct buf deep = BUF_INIT(8 << 20), wide = BUF_INIT(8 << 20);
        struct mallinfo2 before, after;
        bool matches;
        struct error err;

        buf_text(&deep, "{\"a\":");
        repeat(&deep, "[", 500000);
        repeat(&deep, "]", 500000);
        buf_char(&deep, '}');
        buf_text(&wide, "{\"a\":[");
        repeat(&wide, "{\"b\":1},", 50000);
        buf_text(&wide, "{\"b\":1}],\"d\":[");
        repeat(&wide, "{\"e\":1},[1],", 50000);
        buf_text(&wide, "[1]],\"c\":\"");
        repeat(&wide, "\\u0041", 200000);
        buf_text(&wide, "\"}");
        before = mallinfo2();
        assert_int_equal(filter_match(f, buf_view(&deep), &matches, &err), 0);
        assert_int_equal(filter_match(f, buf_view(&wide), &matches, &err), 0);
        after = mallinfo2();
        assert_in_range(after.uordblks + after.hblkhd, 0, before.uordblks + before.hblkhd + (512 << 10));
        assert_true(matches_text(f, STR("{\"a\":{\"b\":1},\"c\":\"x\"}")));
}

/* Of a list as well: it is not gone through to its end for a long value. */
static void a_list_stops_at_what_it_may_take(void **state UNUSED)
{
        static struct str pieces[] = { STR(""), STR("q"), STR("") };
        BUF_AT_END struct buf text = BUF_INIT(1 << 16);
        struct test tests[100] = { 0 };
        struct value v = { .kind = VALUE_STRING, .steps_most = 10000 };

        repeat(&text, "x", 16000);
        v.raw = buf_view(&text);
        for (size_t i = 0; i < COUNT_OF(tests); i++) {
                tests[i].kind = TEST_WILDCARD;
                tests[i].pieces = pieces;
                tests[i].pieces_n = COUNT_OF(pieces);
        }
        assert_false(tests_match(tests, COUNT_OF(tests), 0, &v));
        assert_in_range(v.steps, 10001, 12000);
}

static void memory_stays_what_it_is(void **state UNUSED)
{
        static const char record[] =
                "{\"a\":[{\"x\":\"\\u00e9\",\"y\":[1,2,{\"z\":1}]},{\"x\":\"\\u00e9\"}],\"b\":12345.678}";
        CLEANUP(filter_freep)
        struct filter *f = compiled("{\"a\":{\"x\":[\"\303\251\"],\"y\":{\"z\":[1]}},\"b\":[{\"numeric\":[\">"
                                    "\",1]}],\"c\":[{\"exists\":false}]}");
        struct mallinfo2 before, after;

        assert_true(matches_text(f, str_of(record)));
        before = mallinfo2();
        for (int i = 0; i < 1000; i++)
                assert_true(matches_text(f, str_of(record)));
        after = mallinfo2();
        assert_true(after.uordblks == before.uordblks);
}

/* ---- any bytes */

/* Whichever allocation fails, the record is judged as it is or waits: it is never taken for another, nor for
 * one that can't be judged. */
static void what_had_no_memory_is_not_judged(void **state UNUSED)
{
        BUF_AT_END struct buf record = BUF_INIT(1 << 16);
        struct error err;

        buf_text(&record, "{\"x\":");
        repeat(&record, "[", 1000);
        repeat(&record, "]", 1000);
        buf_text(&record, ",\"\\u0061\":\"\\u0062\",\"c\":");
        repeat(&record, "[", 40);
        buf_text(&record, "\"\\u0065\"");
        repeat(&record, "]", 40);
        buf_text(&record, ",\"\\u0066\":\"\\u0067\"}");
        for (uint64_t at = 1;; at++) {
                CLEANUP(filter_freep)
                struct filter *f = compiled("{\"a\":[\"b\"],\"f\":[\"g\"],\"c\":[\"e\"]}");
                CLEANUP(filter_freep)
                struct filter *none = compiled("{\"a\":[{\"anything-but\":\"b\"}],\"c\":[\"e\"]}");
                bool whole = false, other = true;
                int result, result_none;

                memory_fails(at, false);
                result = filter_match(f, buf_view(&record), &whole, &err);
                if (result < 0)
                        assert_int_equal(err.kind, ERROR_MEMORY);
                else
                        assert_true(whole);
                result_none = filter_match(none, buf_view(&record), &other, &err);
                if (result_none < 0)
                        assert_int_equal(err.kind, ERROR_MEMORY);
                else
                        assert_false(other);
                if (!memory_failed())
                        break;
                memory_fails(0, false);
                assert_true(result < 0 || result_none < 0);
        }
        memory_fails(0, false);
}

/* In memory that ends with the text, so that ASan sees each byte read too far. */
static void try_pair(struct str pattern, struct str record, size_t *outcomes)
{
        FREE_AT_END char *p = malloc(pattern.n + !pattern.n), *r = malloc(record.n + !record.n);
        CLEANUP(filter_freep) struct filter *f = NULL;
        BUF_AT_END struct buf why = BUF_INIT(1 << 16);
        struct error err = { 0 };
        bool matches = false;

        assert_non_null(p);
        assert_non_null(r);
        memcpy(p, pattern.p, pattern.n);
        memcpy(r, record.p, record.n);
        if (filter_new(&f, (struct str){ p, pattern.n }, &err) < 0) {
                assert_true(err.text[0] != '\0');
                outcomes[0]++;
                return;
        }
        memset(p, 'x', pattern.n); /* it keeps a copy */
        if (filter_match(f, (struct str){ r, record.n }, &matches, &err) < 0)
                outcomes[1]++;
        else
                outcomes[2 + matches]++;
        filter_explain(f, (struct str){ r, record.n }, &why);
        assert_true(why.n > 0);
}

static void mutate(struct random *random, struct buf *b, struct str text)
{
        static const char likely[] = "{}[],:\"\\*0123456789-+.eEtfnu/ \n\x7f\x80\xc3\xed\xf0\xff";

        buf_reset(b);
        buf_str(b, text);
        for (uint64_t n = random_below(random, 4); n > 0 && b->n; n--) {
                size_t at = random_below(random, b->n),
                       length = 1 + random_below(random, MIN_OF(b->n - at, (size_t)8)),
                       from = random_below(random, b->n);

                switch (random_below(random, 4)) {
                case 0: b->p[at] = likely[random_below(random, sizeof(likely) - 1)]; break;
                case 1: b->n = random_below(random, 8) ? b->n : at; break;
                case 2:
                        memmove(b->p + at, b->p + at + length, b->n - at - length);
                        b->n -= length;
                        break;
                default: memmove(b->p + at, b->p + from, MIN_OF(length, b->n - from));
                }
        }
}

static void any_bytes_are_survived(void **state UNUSED)
{
        static const char *const patterns[] = {
                "{\"a\":[1,\"x\",{\"prefix\":\"ab\"},{\"suffix\":{\"equals-ignore-case\":\"\303\237\"}},true,"
                "null],\"b.c\":[{\"anything-but\":[\"x\",\"y\"]}]}",
                "{\"a\":{\"x\":[{\"numeric\":[\">=\",-1.5e3,\"<\",100]}],\"y\":[{\"exists\":false},{\"cidr\":"
                "\"10.0.0.0/8\"}]}}",
                "{\"$or\":[{\"a\":[{\"wildcard\":\"*a\\\\*b*c\"}]},{\"b\":{\"$or\":[{\"c\":[\"::1\"]},{\"d\":"
                "[{\"anything-but\":{\"wildcard\":[\"*x\",\"y*\"]}}]}]}}]}",
                "{\"a\":[{\"anything-but\":{\"prefix\":\"a\"}},{\"exactly\":\"\\u00e9\\ud83d\\ude00\"},{"
                "\"equals-ignore-case\":\"\304\260K\"}],\"\":[12345678901234567890]}",
        };
        static const char *const records[] = {
                "{\"a\":[1,\"abc\",{\"x\":-3.25e2,\"y\":\"10.1.2.3\"},[{\"x\":1},{\"y\":null}]],\"b\":{\"c\":"
                "\"\\u00e9\\ud83d\\ude00\",\"d\":[true,false]},\"n\":{\"m\":[[],{}]}}",
                "{\"a\":\"xa*b__c\",\"b.c\":\"::1\",\"b\":{\"d\":\"1:2:3:4:5:6:7:8\"},\"\":"
                "12345678901234567890,\"z\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"}",
                "{\"a\":[{\"x\":9007199254740993,\"y\":[]},{\"x\":0.30000000000000004}],\"b\":[{\"c\":"
                "\"stra\303\237e\"},{\"d\":\"\377\376\"}],\"a\":\"\\udc00\\ud800\"}",
        };
        BUF_AT_END struct buf pattern = BUF_INIT(1 << 16), record = BUF_INIT(1 << 16);
        size_t outcomes[4] = { 0 };
        struct random random;

        random_init(&random, 7);
        for (int i = 0; i < 30000; i++) {
                struct str p = str_of(patterns[random_below(&random, COUNT_OF(patterns))]),
                           r = str_of(records[random_below(&random, COUNT_OF(records))]);

                mutate(&random, &pattern, p);
                mutate(&random, &record, r);
                try_pair(random_below(&random, 2) ? p : buf_view(&pattern), buf_view(&record), outcomes);
        }
        for (size_t i = 0; i < COUNT_OF(outcomes); i++)
                if (outcomes[i] < 500)
                        fail_msg("outcome %zu only %zu times", i, outcomes[i]);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(the_documents_examples_are_true),
                cmocka_unit_test(values_are_tested),
                cmocka_unit_test(fields_match_in_one_element),
                cmocka_unit_test(a_bad_pattern_is_refused_with_its_place),
                cmocka_unit_test(what_is_no_object_is_an_error),
                cmocka_unit_test(the_reason_is_told),
                cmocka_unit_test(numbers_are_what_doubles_print),
                cmocka_unit_test(addresses_are_read),
                cmocka_unit_test(nesting_is_bounded),
                cmocka_unit_test(records_of_any_depth_are_judged),
                cmocka_unit_test(what_is_too_deep_where_the_pattern_looks_is_an_error),
                cmocka_unit_test(combinations_and_sizes_are_bounded),
                cmocka_unit_test(nothing_explodes),
                cmocka_unit_test(tests_times_values_are_bounded),
                cmocka_unit_test(what_a_large_record_took_is_given_back),
                cmocka_unit_test(a_list_stops_at_what_it_may_take),
                cmocka_unit_test(memory_stays_what_it_is),
                cmocka_unit_test(what_had_no_memory_is_not_judged),
                cmocka_unit_test(any_bytes_are_survived),
        };
        return cmocka_run_group_tests_name("filter", tests, NULL, NULL);
}
