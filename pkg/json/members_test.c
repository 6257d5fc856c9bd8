#include "json/members.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

struct event {
        struct json_value id, text, extra, tags;
        int64_t number, time;
};
static const struct json_member event_members[] = {
        MEMBER(TEXT, "id", struct event, id, .required = true),
        MEMBER(NUMBER, "number", struct event, number, .required = true, .otherwise = -7),
        MEMBER(ANY, "body.text", struct event, text),
        MEMBER(ANY, "body.extra.deep", struct event, extra),
        MEMBER(NUMBER, "body.time", struct event, time, .otherwise = -1),
        MEMBER(ANY, "tags", struct event, tags),
};
static const struct json_object event = JSON_OBJECT("an event", event_members);

/* Of a list: what is taken is written down. */
struct answer {
        struct event event;
        struct json_value next;
        size_t n;
        char seen[256];
};

static int take(void *object, struct error *err)
{
        struct answer *a = object;
        struct buf out = { .p = a->seen, .n = strlen(a->seen), .cap = sizeof(a->seen), .max = 255 };

        if (a->event.number == 13)
                return error_set(err, ERROR_PROTOCOL, "an event is one too many");
        json_value_add(a->event.id, &out);
        buf_char(&out, '=');
        buf_int(&out, a->event.number);
        buf_char(&out, ' ');
        a->n++;
        return 0;
}

static const struct json_member answer_members[] = {
        MEMBER(LIST, "events", struct answer, event, .items = &event, .take = take, .required = true),
        MEMBER(TEXT, "next", struct answer, next),
};
static const struct json_object answer = JSON_OBJECT("the answer", answer_members);

static struct event read_event(const char *text)
{
        struct event e;
        struct error err;

        memset(&e, 0x55, sizeof(e));
        if (json_read_object(str_of(text), &event, &e, &err) < 0)
                fail_msg("%s: %s", text, err.text);
        return e;
}

static void says(struct json_value v, const char *text)
{
        BUF_AT_END struct buf out = BUF_INIT(1024);

        json_value_add(v, &out);
        assert_true(str_is(buf_view(&out), text));
}

static void members_are_found_wherever_they_stand(void **state UNUSED)
{
        struct event e = read_event(
                " { \"new\" : [{\"id\":\"no\"}], \"body\": {\"time\": 5, \"text\": \"a\\n\\u00e4\", "
                "\"extra\": {\"deep\": {\"x\": [ 1 ]}, \"id\": 1}}, \"number\" : "
                "9007199254740993 , \"id\":\"i\", \"tags\": [ \"t\" ] } ");

        says(e.id, "i");
        assert_false(e.id.escaped);
        assert_int_equal(e.number, 9007199254740993);
        assert_true(e.text.is_string && e.text.escaped);
        says(e.text, "a\n\xc3\xa4");
        assert_true(str_is(e.text.text, "a\\n\\u00e4")); /* as it stands there */
        assert_true(str_is(json_value_raw(e.text), "\"a\\n\\u00e4\""));
        assert_true(str_is(json_value_raw(e.tags), "[ \"t\" ]"));
        assert_false(e.extra.is_string);
        says(e.extra, "{\"x\": [ 1 ]}");
        assert_int_equal(e.time, 5);
        says(e.tags, "[ \"t\" ]");
}

static void what_is_not_there_is_told_from_what_is_empty(void **state UNUSED)
{
        struct event e = read_event("{\"id\":\"i\",\"number\":\"-9223372036854775808\"}");

        assert_int_equal(e.number, INT64_MIN);
        assert_null(e.text.text.p);
        assert_null(e.extra.text.p);
        assert_null(e.tags.text.p);
        assert_int_equal(e.time, -1);
        e = read_event("{\"id\":\"i\",\"number\":0,\"body\":{\"text\":\"\",\"extra\":{},\"time\":null},"
                       "\"tags\":null}");
        assert_non_null(e.text.text.p);
        assert_int_equal(e.text.text.n, 0);
        assert_true(e.text.is_string);
        assert_null(e.extra.text.p);
        assert_int_equal(e.time, -1);
        says(e.tags, "null");
        assert_false(e.tags.is_string);
}

/* The last counts, of nested ones for each member; and a name with a point is none of two. */
static void what_comes_twice_counts_once(void **state UNUSED)
{
        struct event e = read_event(
                "{\"id\":\"a\",\"number\":1,\"id\":\"b\",\"number\":\"2\",\"body\":{\"text\":1,"
                "\"time\":3},\"body\":{\"text\":\"x\"},\"body.text\":9,\"tags\":1,\"tags\":2,"
                "\"\":5,\"bod\":{\"time\":8},\"bodyy\":{\"time\":8},\"i\\u0064\":\"c\"}");

        says(e.id, "b");
        assert_int_equal(e.number, 2);
        says(e.text, "x");
        assert_true(e.text.is_string);
        assert_int_equal(e.time, 3);
        says(e.tags, "2");
        e = read_event("{\"id\":\"a\",\"number\":1,\"body\":{\"time\":3,\"time\":null,\"extra.deep\":1}}");
        assert_int_equal(e.time, -1);
        assert_null(e.extra.text.p);
}

static void items_are_taken_one_by_one(void **state UNUSED)
{
        static const struct {
                const char *text, *seen;
        } all[] = {
                { "{\"events\":[]}", "" },
                { "{\"events\":[ ] ,\"next\":\"n\"}", "" },
                { "{\"next\":\"n\",\"events\":[{\"id\":\"a\",\"number\":1},{\"number\":\"2\",\"id\":"
                  "\"\\u0062\"}]}",
                  "a=1 b=2 " },
                /* of a list the first counts: its items were taken already */
                { "{\"events\":[{\"id\":\"a\",\"number\":1}],\"events\":[{\"id\":\"b\",\"number\":2}]}",
                  "a=1 " },
                { "{\"events\":[{\"id\":\"a\",\"number\":1}],\"events\":7}", "a=1 " },
                { "{\"events\":null,\"events\":[{\"id\":\"a\",\"number\":1}],\"events\":null}", "a=1 " },
        };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                struct answer a = { 0 };
                struct error err;

                if (json_read_object(str_of(all[i].text), &answer, &a, &err) < 0)
                        fail_msg("%s: %s", all[i].text, err.text);
                assert_string_equal(a.seen, all[i].seen);
        }
}

static void a_text_may_be_a_list(void **state UNUSED)
{
        struct answer a = { 0 };
        struct error err;

        assert_int_equal(
                json_read_list(STR(" [ {\"id\":\"a\",\"number\":1} , {\"id\":\"b\",\"number\":2} ] "),
                               answer_members, &a, &err),
                0);
        assert_string_equal(a.seen, "a=1 b=2 ");
        assert_int_equal(json_read_list(STR("[]"), answer_members, &a, &err), 0);
        assert_int_equal(a.n, 2);
        assert_int_equal(json_read_list(STR("{}"), answer_members, &a, &err), -1);
        assert_string_equal(err.text, "it is no list");
        assert_int_equal(json_read_list(STR(""), answer_members, &a, &err), -1);
        assert_string_equal(err.text, "it is no list");
}

static void what_is_wrong_is_said(void **state UNUSED)
{
#define IN(event) "{\"events\":[" event "]}"
        static const struct {
                const char *text, *why;
        } all[] = {
                { "", "the answer is no object" },
                { "[]", "the answer is no object" },
                { "{}", "the answer has no events" },
                { "{\"events\":{}}", "events of the answer is no list" },
                { "{\"events\":null}", "the answer has no events" },
                { "{\"events\":[],\"next\":1}", "next of the answer is no string" },
                { IN("1"), "an event is no object" },
                { IN("null"), "an event is no object" },
                { IN("{}"), "an event has no id" },
                { IN("{\"id\":\"\"}"), "an event has no id" },
                { IN("{\"id\":null}"), "an event has no id" },
                { IN("{\"id\":\"a\",\"id\":null,\"number\":1}"), "an event has no id" },
                { IN("{\"id\":5}"), "id of an event is no string" },
                { IN("{\"id\":\"a\"}"), "an event has no number" },
                { IN("{\"id\":\"a\",\"number\":null}"), "an event has no number" },
                { IN("{\"id\":\"a\",\"number\":1.5}"), "number of an event is no whole number" },
                { IN("{\"id\":\"a\",\"number\":1e3}"), "number of an event is no whole number" },
                { IN("{\"id\":\"a\",\"number\":true}"), "number of an event is no whole number" },
                { IN("{\"id\":\"a\",\"number\":\"\"}"), "number of an event is no whole number" },
                { IN("{\"id\":\"a\",\"number\":9223372036854775808}"),
                  "number of an event is no whole number" },
                { IN("{\"id\":\"a\",\"number\":1,\"body\":7}"), "body of an event is no object" },
                { IN("{\"body\":{\"extra\":null}}"), "body.extra of an event is no object" },
                { IN("{\"body\":{\"time\":[]}}"), "body.time of an event is no whole number" },
                { IN("{\"id\":\"a\",\"number\":13}"), "an event is one too many" },
                { "{\"events\":[{\"id\":\"a\",\"number\":1}", "expected ',' or ']' at byte 32" },
                { "{\"events\":[{\"id\":\"a\",\"number\":1}]", "expected ',' or '}' at byte 33" },
                { "{\"events\":[{\"id\":\"a", "the string does not end at byte 19" },
                { "{\"events\":[{\"id\":\"a\",}]}", "expected a member's name in quotes at byte 21" },
                { "{\"events\":[],\"next\":nul}", "expected a value at byte 20" },
        };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                struct answer a = { 0 };
                struct error err = { 0 };

                assert_int_equal(json_read_object(str_of(all[i].text), &answer, &a, &err), -1);
                assert_string_equal(err.text, all[i].why);
                assert_int_equal(err.kind, ERROR_PROTOCOL);
        }
}

static void nested(struct buf *b, int levels)
{
        for (int i = 0; i < levels; i++)
                buf_text(b, i % 2 ? "[" : "{\"a\":");
        buf_char(b, '1');
        for (int i = levels; i-- > 0;)
                buf_char(b, i % 2 ? ']' : '}');
}

/* One that is no object must not make unreadable what stands beside it, where the source says so. */
static void an_item_that_is_no_object_may_be_one_without_members(void **state UNUSED)
{
        static const struct json_member list = MEMBER(LIST, "", struct answer, event, .items = &event,
                                                      .take = take, .any_item = true);
        static const char *const items[] = { "null", "5", "\"a\"", "[{\"id\":\"a\"}]", "true" };

        for (size_t i = 0; i < COUNT_OF(items); i++) {
                BUF_AT_END struct buf text = BUF_INIT(256);
                struct answer a = { 0 };
                struct error err = { 0 };

                buf_printf(&text, "[{\"id\":\"a\",\"number\":1},%s,{\"id\":\"b\",\"number\":2}]", items[i]);
                if (json_read_list(buf_view(&text), &list, &a, &err) < 0)
                        fail_msg("%s: %s", items[i], err.text);
                assert_string_equal(a.seen, "a=1 =-7 b=2 ");
                assert_int_equal(json_read_list(STR("[nul]"), &list, &a, &err), -1);
        }
}

/* What a message holds is its sender's: it must not make the answer unreadable in which others lie, too. */
static void what_is_nested_deep_is_a_value_like_any_other(void **state UNUSED)
{
        enum { LEVELS = 100000 };
        BUF_AT_END struct buf text = BUF_INIT(16 * LEVELS), value = BUF_INIT(8 * LEVELS);
        struct event e;
        struct error err;

        nested(&value, LEVELS);
        buf_printf(&text, "{\"other\":%s,\"id\":\"a\",\"body\":{\"extra\":{\"deep\":%s}},\"number\":1}",
                   value.p, value.p);
        if (json_read_object(buf_view(&text), &event, &e, &err) < 0)
                fail_msg("%s", err.text);
        says(e.id, "a");
        assert_true(str_equal(e.extra.text, buf_view(&value)));
        assert_int_equal(json_read_object((struct str){ text.p, text.n - LEVELS }, &event, &e, &err), -1);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(members_are_found_wherever_they_stand),
                cmocka_unit_test(what_is_not_there_is_told_from_what_is_empty),
                cmocka_unit_test(what_comes_twice_counts_once),
                cmocka_unit_test(items_are_taken_one_by_one),
                cmocka_unit_test(a_text_may_be_a_list),
                cmocka_unit_test(what_is_wrong_is_said),
                cmocka_unit_test(an_item_that_is_no_object_may_be_one_without_members),
                cmocka_unit_test(what_is_nested_deep_is_a_value_like_any_other),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
