#include "event/cloudevent.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void data_is_written_as_its_type_says(void **state UNUSED)
{
        static const struct {
                const char *type;
                struct str data;
                const char *json;
        } cases[] = {
                ROW("text/plain", STR("123"), "\"datacontenttype\":\"text/plain\",\"data\":\"123\""),
                ROW("text/plain; charset=ISO-8859-1", STR("abc"),
                    "\"datacontenttype\":\"text/plain; charset=ISO-8859-1\",\"data\":\"abc\""),
                ROW("text/plain; charset=ISO-8859-1", STR("\xc3\xa4"),
                    "\"datacontenttype\":\"text/plain; charset=ISO-8859-1\",\"data_base64\":\"w6Q=\""),
                ROW("text/plain;charset=\"utf-16\"", STR("ab"),
                    "\"datacontenttype\":\"text/plain;charset=\\\"utf-16\\\"\",\"data_base64\":\"YWI=\""),
                ROW("application/xml", STR("null"),
                    "\"datacontenttype\":\"application/xml\",\"data\":\"null\""),
                ROW("application/json", STR("{\"a\": 1.10}"),
                    "\"datacontenttype\":\"application/json\",\"data\":{\"a\": 1.10}"),
                ROW("Application/Vnd.x+JSON;v=1", STR("[1]"),
                    "\"datacontenttype\":\"Application/Vnd.x+JSON;v=1\",\"data\":[1]"),
                ROW("application/json", STR("{\"a\":"),
                    "\"datacontenttype\":\"application/json\",\"data_base64\":\"eyJhIjo=\""),
                ROW("application/json", STR(""),
                    "\"datacontenttype\":\"application/json\",\"data_base64\":\"\""),
                ROW("application/jsonx", STR("1"),
                    "\"datacontenttype\":\"application/jsonx\",\"data\":\"1\""),
                ROW("image/png", STR("\xff\x00"),
                    "\"datacontenttype\":\"image/png\",\"data_base64\":\"/wA=\""),
                ROW("", STR("{}"), "\"datacontenttype\":\"application/json\",\"data\":{}"),
                ROW("", STR("{"), "\"datacontenttype\":\"text/plain; charset=utf-8\",\"data\":\"{\""),
                ROW("", STR("\xff"),
                    "\"datacontenttype\":\"application/octet-stream\",\"data_base64\":\"/w==\""),
                ROW("application/cloudevents-batch+json", STR("[]"),
                    "\"datacontenttype\":\"application/json\",\"data\":[]"),
                /* No header could hold these: as if none had been given. */
                ROW("text/\x10plain", STR("1"), "\"datacontenttype\":\"application/json\",\"data\":1"),
                ROW("text/plain\r\nx: y", STR("1"), "\"datacontenttype\":\"application/json\",\"data\":1"),
                ROW("text/plain\x7f", STR("1"), "\"datacontenttype\":\"application/json\",\"data\":1"),
        };

        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                BUF_AT_END struct buf out = BUF_INIT(4096), expected = BUF_INIT(4096);
                struct cloud_event e = { .id = STR("1"), .source = STR("s"), .type = STR("t") };
                struct writer w;

                cloudevent_data(&e, cases[i].data, str_of(cases[i].type));
                writer_init(&w, &out);
                cloudevent_write(&e, NULL, 0, &w);
                buf_printf(&expected,
                           "{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"s\",\"type\":\"t\",%s}",
                           cases[i].json);
                assert_string_equal(out.p, expected.p);
        }
}

static void attributes_that_are_no_strings_are_left_out(void **state UNUSED)
{
        static const struct {
                struct str key;
                bool kept;
        } cases[] = {
                { STR(""), false },
                { STR("k"), true },
                { STR("\x00\x01"), false },
                { STR("a\x1f"), false },
                { STR("\x7f"), false },
                { STR("\xc2\x80"), false },
                { STR("\xc2\x9f"), false },
                { STR("\xc2\xa0"), true },
                { STR("\xff"), false },
                { STR("\xef\xb7\x90"), false },
                { STR("\xef\xbf\xbe"), false },
                { STR("\xf0\x9f\xbf\xbf"), false },
                { STR("\xf0\x9f\x98\x80"), true },
                { STR("\xed\xa0\x80"), false },
        };

        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                const struct cloud_event e = { .id = STR("1"),
                                               .source = STR("s"),
                                               .type = STR("t"),
                                               .key = cases[i].key,
                                               .subject = cases[i].key };
                BUF_AT_END struct buf headers = BUF_INIT(4096), out = BUF_INIT(4096);
                struct writer w;

                cloudevent_headers(&e, NULL, 0, &headers);
                writer_init(&w, &out);
                cloudevent_write(&e, NULL, 0, &w);
                assert_int_equal(strstr(headers.p, "ce-partitionkey:") != NULL, cases[i].kept);
                assert_int_equal(strstr(headers.p, "ce-subject:") != NULL, cases[i].kept);
                assert_int_equal(strstr(out.p, "\"partitionkey\"") != NULL, cases[i].kept);
                assert_int_equal(cloudevent_string(cases[i].key), cases[i].kept);
        }
}

/* What a header receives of an event that was one already, and its data. */
static void an_event_is_read_byte_for_byte(void **state UNUSED)
{
        static const struct {
                const char *json, *headers;
                struct str data;
        } cases[] = {
                ROW(" {\"specversion\":\"1.0\",\"id\":\"a\\u0041\",\"source\":\"/"
                    "s\",\"type\":\"t\",\"time\":\"2020-01-02T03:04:05.123456789Z\",\"dataschema\":\"x:y\","
                    "\"n\":7,\"b\":true,\"gone\":null,\"empty\":\"\","
                    "\"data\":{\"v\":1.10,\"v\":1e999}}\n",
                    "ce-specversion: 1.0\r\nce-id: aA\r\nce-source: /s\r\nce-type: t\r\nce-time: "
                    "2020-01-02T03:04:05.123456789Z\r\nce-dataschema: x:y\r\nce-n: 7\r\nce-b: "
                    "true\r\nce-empty: \r\n"
                    "Content-Type: application/json\r\n",
                    STR("{\"v\":1.10,\"v\":1e999}")),
                ROW("{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"s\",\"type\":\"t\","
                    "\"datacontenttype\":\"image/png\",\"data_base64\":\"/wA=\"}",
                    "ce-specversion: 1.0\r\nce-id: 1\r\nce-source: s\r\nce-type: t\r\nContent-Type: "
                    "image/png\r\n",
                    STR("\xff\x00")),
                ROW("{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"s\",\"type\":\"t\","
                    "\"datacontenttype\":\"text/plain\",\"data\":\"x\\u0000y\"}",
                    "ce-specversion: 1.0\r\nce-id: 1\r\nce-source: s\r\nce-type: t\r\nContent-Type: "
                    "text/plain\r\n",
                    STR("x\x00y")),
                ROW("{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"s\",\"type\":\"t\"}",
                    "ce-specversion: 1.0\r\nce-id: 1\r\nce-source: s\r\nce-type: t\r\n", { NULL, 0 }),
                ROW("{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"s\",\"type\":\"t\","
                    "\"datacontenttype\":\"a/b\"}",
                    "ce-specversion: 1.0\r\nce-id: 1\r\nce-source: s\r\nce-type: t\r\nContent-Type: a/b\r\n",
                    { NULL, 0 }),
        };

        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                BUF_AT_END struct buf space = BUF_INIT(65536), headers = BUF_INIT(4096), out = BUF_INIT(4096);
                struct cloud_event e;
                struct error err;
                struct writer w;

                if (cloudevent_read(str_of(cases[i].json), &space, &e, &err) < 0)
                        fail_msg("%s", err.text);
                cloudevent_headers(&e, NULL, 0, &headers);
                assert_string_equal(headers.p, cases[i].headers);
                assert_true(str_equal(e.data, cases[i].data));
                writer_init(&w, &out);
                cloudevent_write(&e, NULL, 0, &w);
                assert_true(str_equal(buf_view(&out), str_trim(str_of(cases[i].json))));
        }
}

/* With something to add the event is put together anew; values keep their types. */
static void an_event_that_was_read_takes_further_attributes(void **state UNUSED)
{
        const struct cloud_extension more[] = { { "knativeerrorcode", STR("500") } };
        BUF_AT_END struct buf space = BUF_INIT(65536), out = BUF_INIT(4096);
        struct cloud_event e;
        struct error err;
        struct writer w;

        assert_int_equal(
                cloudevent_read(STR("{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"s\",\"type\":\"t\","
                                    "\"n\":7,\"knativeerrorcode\":\"1\",\"knativeerrordata\":\"old\","
                                    "\"sluicetruncated\":\"true\",\"data\":1.10}"),
                                &space, &e, &err),
                0);
        writer_init(&w, &out);
        cloudevent_write(&e, more, 1, &w);
        assert_string_equal(
                out.p,
                "{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"s\",\"type\":\"t\",\"n\":7,"
                "\"knativeerrorcode\":\"500\",\"datacontenttype\":\"application/json\",\"data\":1.10}");
        buf_reset(&space);
        buf_reset(&out);
        assert_int_equal(
                cloudevent_read(STR("{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"s\",\"type\":\"t\","
                                    "\"datacontenttype\":\"a/b\"}"),
                                &space, &e, &err),
                0);
        writer_init(&w, &out);
        cloudevent_write(&e, more, 1, &w);
        assert_string_equal(out.p, "{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"s\",\"type\":\"t\","
                                   "\"knativeerrorcode\":\"500\",\"datacontenttype\":\"a/b\"}");
}

#define REQUIRED "\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"s\",\"type\":\"t\""

static void what_is_no_event_is_refused(void **state UNUSED)
{
        static const char *const texts[] = {
                "",
                "[]",
                "null",
                "{",
                "{}",
                "{" REQUIRED,
                "{" REQUIRED "} x",
                "{\"specversion\":\"0.3\",\"id\":\"1\",\"source\":\"s\",\"type\":\"t\"}",
                "{\"specversion\":\"1.0\",\"id\":\"\",\"source\":\"s\",\"type\":\"t\"}",
                "{\"specversion\":\"1.0\",\"id\":1,\"source\":\"s\",\"type\":\"t\"}",
                "{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"s\"}",
                "{" REQUIRED ",\"id\":\"2\"}",
                "{" REQUIRED ",\"Upper\":\"2\"}",
                "{" REQUIRED ",\"x\":{}}",
                "{" REQUIRED ",\"x\":\"\\u0007\"}",
                "{" REQUIRED ",\"x\":\"\\ud800\"}",
                "{" REQUIRED ",\"data\":1,\"data_base64\":\"\"}",
                "{" REQUIRED ",\"data_base64\":\"?\"}",
                "{" REQUIRED ",\"data_base64\":7}",
                "{" REQUIRED ",\"datacontenttype\":\"a\\u0000\",\"data\":7}",
                "{" REQUIRED ",\"x\":\"\xff\"}",
                "{" REQUIRED ",\"time\":\"yesterday\"}",
                "{" REQUIRED ",\"time\":\"2020-01-02T03:04:05\"}",
                "{" REQUIRED ",\"time\":1577934245}",
                "{" REQUIRED ",\"subject\":7}",
                "{" REQUIRED ",\"subject\":\"\"}",
                "{" REQUIRED ",\"time\":\"\"}",
                "{" REQUIRED ",\"dataschema\":\"\"}",
                "{" REQUIRED ",\"datacontenttype\":\"\"}",
                "{" REQUIRED ",\"dataschema\":true}",
        };

        for (size_t i = 0; i < COUNT_OF(texts); i++) {
                BUF_AT_END struct buf space = BUF_INIT(65536);
                struct cloud_event e;
                struct error err;

                if (cloudevent_read(str_of(texts[i]), &space, &e, &err) == 0)
                        fail_msg("%s was taken", texts[i]);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(data_is_written_as_its_type_says),
                cmocka_unit_test(attributes_that_are_no_strings_are_left_out),
                cmocka_unit_test(an_event_is_read_byte_for_byte),
                cmocka_unit_test(an_event_that_was_read_takes_further_attributes),
                cmocka_unit_test(what_is_no_event_is_refused),
        };

        return cmocka_run_group_tests_name("cloudevent", tests, NULL, NULL);
}
