#include "api/schema.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* ---- a type with one field of each kind --------------------------------- */

struct inner {
        int64_t low, high;
};
struct outer {
        char *text, *word;
        bool flag;
        int64_t number, optional;
        usec pause, at;
        int color;
        struct inner *inner, *made;
        struct strings list;
        struct string_map map;
        char *raw, *raw_list;
};

static bool ordered(const void *object)
{
        const struct inner *i = object;

        return i->low <= i->high;
}

static bool no_x(const void *object, struct buf *why)
{
        const struct outer *o = object;

        if (!o->text || !strchr(o->text, 'x'))
                return true;
        buf_printf(why, "\"%s\" holds an x", o->text);
        return false;
}

static const struct field inner_fields[] = {
        FIELD(INT, "low", struct inner, low, .former = "lowest", .fallback = "1", .min = 0, .max = 10),
        FIELD(INT, "high", struct inner, high, .fallback = "5", .min = 0, .max = INT64_MAX),
};
static const struct rule inner_rules[] = { RULE(.cel = "self.low <= self.high",
                                                .message = "low must not be above high", .path = "low",
                                                .check = ordered) };
static const struct type inner_type = TYPE("Inner", struct inner, inner_fields, "A range.",
                                           RULES(inner_rules));

static const char *const colors[] = { "Red", "Green", "Blue", NULL };
static const char *const words[] = { "one", "two", NULL };
static const struct field outer_fields[] = {
        FIELD(STRING, "text", struct outer, text, .required = true, .min = 1, .max = 5,
              .help = "A text | with a bar."),
        FIELD(STRING, "word", struct outer, word, .fallback = "one", .values = words),
        FIELD(BOOL, "flag", struct outer, flag, .fallback = "true"),
        FIELD(INT, "number", struct outer, number, .fallback = "7", .min = -1, .max = 100),
        FIELD(INT, "optional", struct outer, optional, .max = INT64_MAX),
        FIELD(DURATION, "pause", struct outer, pause, .fallback = "1m30s", .min = USEC_SEC, .max = USEC_HOUR,
              .help = "How long."),
        FIELD(TIME, "at", struct outer, at),
        FIELD(ENUM, "color", struct outer, color, .fallback = "Green", .values = colors),
        FIELD(OBJECT, "inner", struct outer, inner, .object = &inner_type),
        FIELD(OBJECT, "made", struct outer, made, .fallback = "{}", .object = &inner_type),
        FIELD(STRINGS, "list", struct outer, list, .max = 3, .pattern = "^[a-z]*$",
              .format = "lower-case letters", .item_min_one = true),
        FIELD(MAP, "map", struct outer, map, .max = 2, .value_max = 4),
        FIELD(RAW, "raw", struct outer, raw, .shape = RAW_MAP),
        FIELD(RAW, "rawList", struct outer, raw_list, .shape = RAW_LIST),
};
static const struct rule outer_rules[] = { RULE(.message = "no x", .path = "text", .explain = no_x) };
static const struct type outer_type = TYPE("Outer", struct outer, outer_fields, "All kinds of fields.",
                                           RULES(outer_rules));

/* The object written again, or what is wrong with it. */
static char *outcome_of(const char *text)
{
        struct documents docs;
        struct problems problems = { 0 };
        struct outer o = { 0 };
        struct buf out = BUF_INIT(1 << 20);
        struct writer w;

        assert_int_equal(yaml_parse(&docs, str_of(text), &problems), 0);
        writer_init(&w, &out);
        if (schema_decode(&outer_type, docs.roots[0], &o, "o", &problems) == 0)
                schema_write(&outer_type, &o, &w);
        else
                assert_true(problems.n > 0);
        problems_format(&problems, "f", &out);
        schema_done(&outer_type, &o);
        problems_done(&problems);
        documents_done(&docs);
        return buf_take(&out);
}

static void expect(const char *text, const char *outcome)
{
        FREE_AT_END char *found = outcome_of(text);

        assert_non_null(found);
        assert_string_equal(found, outcome);
}

static void defaults_are_filled_in(void **state UNUSED)
{
        expect("text: abc", "{\"text\":\"abc\",\"word\":\"one\",\"flag\":true,\"number\":7,\"pause\":"
                            "\"1m30s\",\"color\":\"Green\",\"made\":{\"low\":1,\"high\":5}}");
}

static void all_kinds_are_read_and_written(void **state UNUSED)
{
        expect("{text: a, word: two, flag: false, number: -1, optional: 0, pause: 0h60m, at: "
               "'2026-01-31T09:00:00+01:00', color: Blue, inner: {low: 3, high: 3},"
               " made: {high: 2}, list: [a, b], map: {k: v, l: ''}, raw: {a: [1, 2.50, {b: null}]}, rawList: "
               "[{a: 1}]}",
               "{\"text\":\"a\",\"word\":\"two\",\"flag\":false,\"number\":-1,\"optional\":0,\"pause\":"
               "\"1h\",\"at\":\"2026-01-31T08:00:00Z\",\"color\":\"Blue\","
               "\"inner\":{\"low\":3,\"high\":3},\"made\":{\"low\":1,\"high\":2},\"list\":[\"a\",\"b\"],"
               "\"map\":{\"k\":\"v\",\"l\":\"\"},"
               "\"raw\":{\"a\":[1,2.50,{\"b\":null}]},\"rawList\":[{\"a\":1}]}");
        expect("{text: a, number: 1e1, optional: 5.0, map: {a: null, b: c}, pause: 1.000001s}",
               "{\"text\":\"a\",\"word\":\"one\",\"flag\":true,\"number\":10,\"optional\":5,\"pause\":\"1."
               "000001s\",\"color\":\"Green\",\"made\":{\"low\":1,\"high\":5},"
               "\"map\":{\"b\":\"c\"}}");
        /* What is written reads the same. */
        expect("{\"text\":\"a\",\"word\":\"two\",\"flag\":false,\"number\":-1,\"pause\":\"1h\",\"color\":"
               "\"Blue\",\"made\":{\"low\":1,\"high\":2},\"list\":[]}",
               "{\"text\":\"a\",\"word\":\"two\",\"flag\":false,\"number\":-1,\"pause\":\"1h\",\"color\":"
               "\"Blue\",\"made\":{\"low\":1,\"high\":2}}");
}

static void what_is_wrong_is_told_with_its_place(void **state UNUSED)
{
        expect("[]", "f:1:1: o: expected a map, found a list\n");
        expect("{}", "f:1:1: o.text: is missing: give a string\n");
        expect("text: toolong", "f:1:7: o.text: expected 1 to 5 characters, found 7\n");
        expect("text: \xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc",
               "{\"text\":\"\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc\",\"word\":\"one\",\"flag\":true,"
               "\"number\":7,"
               "\"pause\":\"1m30s\",\"color\":\"Green\",\"made\":{\"low\":1,\"high\":5}}");
        expect("text: \"a\\0b\"", "f:1:7: o.text: the string holds a NUL character: remove it\n");
        expect("text: a\nword: tow",
               "f:2:7: o.word: expected one or two, found \"tow\"; did you mean \"two\"?\n");
        expect("text: a\nnumber: 101", "f:2:9: o.number: expected -1 to 100, found 101\n");
        expect("text: a\noptional: -1", "f:2:11: o.optional: expected at least 0, found -1\n");
        expect("text: a\nnumber: 99999999999999999999",
               "f:2:9: o.number: expected an integer, found the number 99999999999999999999\n");
        expect("text: a\npause: 999ms", "f:2:8: o.pause: expected 1s to 1h, found 999ms\n");
        expect("text: a\npause: 1.0000001s",
               "f:2:8: o.pause: expected a duration such as 30s or 1m30s, found the string \"1.0000001s\"\n");
        expect("text: a\nnumber: 1.5", "f:2:9: o.number: expected an integer, found the number 1.5\n");
        expect("text: a\npause: '0'", "f:2:8: o.pause: expected 1s to 1h, found 0\n");
        expect("text: a\npause: 1h1us", "f:2:8: o.pause: expected 1s to 1h, found 1h1us\n");
        expect("text: a\npause: 00000000000000000000000000000001s",
               "f:2:8: o.pause: expected a duration such as 30s or 1m30s, found the string "
               "\"00000000000000000000000000000001s\"\n");
        expect("text: a\nat: tomorrow",
               "f:2:5: o.at: expected a time such as 2026-01-31T08:00:00Z, found the string \"tomorrow\"\n");
        expect("text: a\ncolor: [Red]", "f:2:8: o.color: expected Red, Green or Blue, found a list\n");
        expect("text: a\nlist: [a, B, '', 5, c]", "f:2:7: o.list: expected 0 to 3 items, found 5\n");
        expect("text: a\nlist: [B, '', 5]",
               "f:2:8: o.list[0]: expected lower-case letters, found \"B\"\n"
               "f:2:11: o.list[1]: an item must not be empty: remove it, or give a value\n"
               "f:2:15: o.list[2]: expected a string, found the integer 5: put it in quotes\n");
        expect("text: a\nmap: {a: éééé, c: ééééé}",
               "f:2:19: o.map[c]: expected at most 4 characters, found 5\n");
        expect("text: a\nmap: {a: b, c: d, e: f}", "f:2:6: o.map: expected 0 to 2 entries, found 3\n");
        expect("text: a\nrawList: [1]", "f:2:11: o.rawList: expected a list of maps, found the integer 1\n");
        expect("text: 5", "f:1:7: o.text: expected a string, found the integer 5: put it in quotes\n");
}

static void rules_run_where_they_can(void **state UNUSED)
{
        expect("text: axb", "f:1:7: o.text: \"axb\" holds an x\n");
        expect("text: a\ninner: {low: 9}", "f:2:14: o.inner.low: low must not be above high\n");
        /* Not on top of what is wrong already. */
        expect("text: axb\nnumber: nein",
               "f:2:9: o.number: expected an integer, found the string \"nein\"\n");
        expect("text: a\ninner: {low: 9, high: x}",
               "f:2:23: o.inner.high: expected an integer, found the string \"x\"\n");
        /* But on top of what is wrong further in. */
        expect("text: axb\ninner: {low: x}", "f:1:7: o.text: \"axb\" holds an x\nf:2:14: o.inner.low: "
                                             "expected an integer, found the string \"x\"\n");
}

static void unknown_members_are_named(void **state UNUSED)
{
        expect("txt: a", "f:1:1: o: unknown member \"txt\"; did you mean \"text\"?\n");
        expect("text: a\ninner: {middle: 1}",
               "f:2:9: o.inner: unknown member \"middle\"; known are low, high\n");
}

static void former_names_are_told_even_where_unknown_ones_pass(void **state UNUSED)
{
        struct problems problems = { .pass_unknown = true };
        struct documents docs = { 0 };
        struct outer o = { 0 };

        expect("text: a\ninner: {lowest: 1, high: 2}", "f:2:9: o.inner.lowest: is now called low\n");
        assert_int_equal(yaml_parse(&docs, STR("text: a\ninner: {lowest: 1, newer: 2}"), &problems), 0);
        assert_int_equal(schema_decode(&outer_type, docs.roots[0], &o, "o", &problems), -1);
        assert_int_equal(problems.n, 1);
        assert_string_equal(problems.list[0].path, "o.inner.lowest");
        assert_string_equal(problems.list[0].text, "is now called low");
        assert_int_equal(problems.unknown, 1);
        schema_done(&outer_type, &o);
        problems_done(&problems);
        documents_done(&docs);
}

/* As when the API server dropped it. */
static void what_is_missing_is_told_with_its_former_name(void **state UNUSED)
{
        static const struct field fields[] = { FIELD(STRING, "textURN", struct outer, text,
                                                     .former = "textUrn", .required = true) };
        static const struct type type = TYPE("Renamed", struct outer, fields, "One field.");
        struct problems problems = { 0 };
        struct documents docs = { 0 };
        struct outer o = { 0 };

        assert_int_equal(yaml_parse(&docs, STR("{}"), &problems), 0);
        assert_int_equal(schema_decode(&type, docs.roots[0], &o, "o", &problems), -1);
        assert_int_equal(problems.n, 1);
        assert_string_equal(problems.list[0].text, "is missing: give a string; it was called textUrn");
        schema_done(&type, &o);
        problems_done(&problems);
        documents_done(&docs);
}

static void an_object_is_made_of_its_defaults(void **state UNUSED)
{
        struct outer o = { 0 };

        assert_int_equal(schema_defaults(&outer_type, &o), 0);
        assert_null(o.text);
        assert_string_equal(o.word, "one");
        assert_int_equal(o.pause, 90 * USEC_SEC);
        assert_int_equal(o.color, 1);
        assert_int_equal(o.optional, -1); /* absent, where 0 would be a value */
        assert_non_null(o.made);
        assert_null(o.inner);
        schema_done(&outer_type, &o);
}

static void the_schema_is_structural(void **state UNUSED)
{
        BUF_AT_END struct buf out = BUF_INIT(1 << 20);
        struct writer w;

        writer_init(&w, &out);
        schema_openapi(&outer_type, &w);
        assert_false(out.failed);
        assert_string_equal(
                out.p,
                "{\"description\":\"All kinds of "
                "fields.\",\"type\":\"object\",\"required\":[\"text\"],\"properties\":{"
                "\"text\":{\"description\":\"A text | with a "
                "bar.\",\"type\":\"string\",\"minLength\":1,\"maxLength\":5},"
                "\"word\":{\"type\":\"string\",\"enum\":[\"one\",\"two\"],\"default\":\"one\"},"
                "\"flag\":{\"type\":\"boolean\",\"default\":true},"
                "\"number\":{\"type\":\"integer\",\"format\":\"int64\",\"minimum\":-1,\"maximum\":100,"
                "\"default\":7},"
                "\"optional\":{\"type\":\"integer\",\"format\":\"int64\",\"minimum\":0},"
                "\"pause\":{\"description\":\"How "
                "long.\",\"type\":\"string\",\"maxLength\":32,\"pattern\":\"^(0|([0-9]+(us|\xc2\xb5s)|[0-9]+("
                "\\\\.[0-9]{1,3})?ms|[0-9]+(\\\\.[0-9]{1,6})?(s|m|h))+)$\","
                "\"x-kubernetes-validations\":[{\"rule\":\"duration(self) >= duration('1s') && "
                "duration(self) <= duration('1h')\",\"message\":\"expected 1s to 1h\"}],"
                "\"default\":\"1m30s\"},"
                "\"at\":{\"type\":\"string\",\"format\":\"date-time\"},"
                "\"color\":{\"type\":\"string\",\"enum\":[\"Red\",\"Green\",\"Blue\"],\"default\":\"Green\"},"
                "\"inner\":{\"description\":\"A "
                "range.\",\"type\":\"object\",\"x-kubernetes-validations\":[{\"rule\":\"self.low <= "
                "self.high\","
                "\"message\":\"low must not be above "
                "high\",\"fieldPath\":\".low\"}],\"properties\":{\"low\":{\"type\":\"integer\",\"format\":"
                "\"int64\",\"minimum\":0,\"maximum\":10,"
                "\"default\":1},\"high\":{\"type\":\"integer\",\"format\":\"int64\",\"minimum\":0,"
                "\"default\":5}}},"
                "\"made\":{\"description\":\"A "
                "range.\",\"type\":\"object\",\"default\":{\"low\":1,\"high\":5},\"x-kubernetes-"
                "validations\":[{\"rule\":\"self.low <= self.high\","
                "\"message\":\"low must not be above "
                "high\",\"fieldPath\":\".low\"}],\"properties\":{\"low\":{\"type\":\"integer\",\"format\":"
                "\"int64\",\"minimum\":0,\"maximum\":10,"
                "\"default\":1},\"high\":{\"type\":\"integer\",\"format\":\"int64\",\"minimum\":0,"
                "\"default\":5}}},"
                "\"list\":{\"type\":\"array\",\"maxItems\":3,\"items\":{\"type\":\"string\",\"minLength\":1,"
                "\"pattern\":\"^[a-z]*$\"},\"x-kubernetes-list-type\":\"atomic\"},"
                "\"map\":{\"type\":\"object\",\"maxProperties\":2,\"additionalProperties\":{\"type\":"
                "\"string\",\"maxLength\":4}},"
                "\"raw\":{\"type\":\"object\",\"x-kubernetes-preserve-unknown-fields\":true},"
                "\"rawList\":{\"type\":\"array\",\"items\":{\"type\":\"object\",\"x-kubernetes-preserve-"
                "unknown-fields\":true},\"x-kubernetes-list-type\":\"atomic\"}}}");
}

static void the_reference_tells_defaults_and_bounds(void **state UNUSED)
{
        BUF_AT_END struct buf out = BUF_INIT(1 << 20);

        schema_reference(&outer_type, "o", &out);
        assert_non_null(strstr(
                out.p, "| `text` | string | *required* | 1 to 5 characters | A text \\| with a bar. |\n"));
        assert_non_null(strstr(out.p, "| `pause` | duration | `1m30s` | 1s to 1h | How long. |\n"));
        assert_non_null(strstr(out.p, "| `color` | one of | `Green` | `Red`, `Green`, `Blue` |  |\n"));
        assert_non_null(strstr(out.p, "| `optional` | integer |  | at least 0 |  |\n"));
        assert_non_null(
                strstr(out.p, "| `list` | list of strings |  | at most 3 items; lower-case letters |  |\n"));
        assert_non_null(strstr(out.p, "| `made` | [map](#omade) | its members' defaults |  | A range. |\n"));
        assert_non_null(strstr(out.p, "## o.made\n\nA range.\n"));
        assert_non_null(strstr(out.p, "- low: low must not be above high\n"));
        buf_reset(&out);
        schema_reference_defaults(&outer_type, "o", &out);
        assert_non_null(strstr(out.p, "| `o.made.low` | `1` |\n"));
        buf_reset(&out);
        schema_reference_former(&outer_type, "o", &out);
        assert_string_equal(out.p, "| `o.inner.low` | `lowest` |\n| `o.made.low` | `lowest` |\n");
}

static void durations_read_as_people_write_them(void **state UNUSED)
{
        static const struct {
                usec d;
                const char *text;
        } all[] = {
                { 0, "0s" },
                { 200 * USEC_MSEC, "200ms" },
                { 30 * USEC_SEC, "30s" },
                { USEC_MINUTE, "1m" },
                { 90 * USEC_SEC, "1m30s" },
                { USEC_HOUR, "1h" },
                { 90 * USEC_MINUTE, "1h30m" },
                { USEC_HOUR + USEC_SEC, "1h0m1s" },
                { 10 * USEC_MINUTE, "10m" },
        };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                BUF_AT_END struct buf b = BUF_INIT(64);

                buf_text(&b, "h");
                duration_plain(&b, all[i].d);
                assert_string_equal(b.p + 1, all[i].text);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(defaults_are_filled_in),
                cmocka_unit_test(all_kinds_are_read_and_written),
                cmocka_unit_test(what_is_wrong_is_told_with_its_place),
                cmocka_unit_test(rules_run_where_they_can),
                cmocka_unit_test(unknown_members_are_named),
                cmocka_unit_test(former_names_are_told_even_where_unknown_ones_pass),
                cmocka_unit_test(what_is_missing_is_told_with_its_former_name),
                cmocka_unit_test(an_object_is_made_of_its_defaults),
                cmocka_unit_test(the_schema_is_structural),
                cmocka_unit_test(the_reference_tells_defaults_and_bounds),
                cmocka_unit_test(durations_read_as_people_write_them),
        };

        return cmocka_run_group_tests_name("schema", tests, NULL, NULL);
}
