/* The source itself, so that its messages can be made by hand. */
#include "source/kafka/kafka.c"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "tests/sim/memory.h"
#include "tests/support/trigger.h"

/* ---- shapes ------------------------------------------------------------- */

static char topic_name[] = "orders", region[] = "eu-west-1", instance[] = "81335d56";
static struct event_spec event_of_trigger = { .region = region, .instance_id = instance };

static void the_events_are_the_golden_ones(void **state UNUSED)
{
        static const char *const golden[] = { "pkg/source/kafka/testdata/classic.json",
                                              "pkg/source/kafka/testdata/current.json" };
        static const struct {
                struct str value;
                bool null_value;
        } values[] = {
                { { "text \"quoted\" \xc3\xa4", 16 }, false },
                { { NULL, 0 }, true },
                { { "\xff\xfe\x00", 3 }, false },
                { { "", 0 }, false },
                { { "\0\0\0\0\x07text", 9 }, false }, /* as Schema Registry frames it */
        };
        struct kafka_spec spec = { 0 };
        struct trigger trigger = TEST_TRIGGER("t", .source_spec = &spec, .event = &event_of_trigger);
        struct services services = { .trigger = &trigger, .clock = &system_clock };
        struct kafka source = { .services = &services, .spec = &spec };
        struct partition partition = { .source = &source, .topic = topic_name, .number = 3 };
        struct message all[COUNT_OF(values)];
        struct record *records[COUNT_OF(values)];

        memset(all, 0, sizeof(all));
        for (size_t i = 0; i < COUNT_OF(values); i++) {
                all[i].partition = &partition;
                all[i].record = (struct record){ .value = values[i].value,
                                                 .null_value = values[i].null_value,
                                                 .origin = &all[i],
                                                 .position = 40 + i,
                                                 .time = (1576737962 + (usec)i) * USEC_SEC +
                                                         999 * USEC_MSEC };
                all[i].timestamp = all[i].record.time / USEC_MSEC;
                records[i] = &all[i].record;
        }
        for (int dialect = DIALECT_CLASSIC; dialect <= DIALECT_CURRENT; dialect++) {
                BUF_AT_END struct buf wanted = BUF_INIT(4096), found = BUF_INIT(4096);
                struct error err;
                struct writer w;

                if (buf_read_file(&wanted, golden[dialect], &err) < 0)
                        fail_msg("%s", err.text);
                writer_init(&w, &found);
                trigger.event->dialect = dialect;
                kafka_source.shape->encode(&trigger, records, COUNT_OF(values), &w);
                assert_string_equal(found.p, wanted.p);
        }
        BUF_AT_END struct buf described = BUF_INIT(4096);
        struct writer w;
        writer_init(&w, &described);
        kafka_source.shape->describe(records[2], &w);
        assert_string_equal(described.p, "{\"topic\":\"orders\",\"partition\":3,\"offset\":42,\"timestamp\":"
                                         "1576737964999,\"key\":null,\"headers\":{},\"value\":\"//4A\"}");
        /* A byte order mark hides nothing. */
        records[0]->value = STR("\xef\xbb\xbf{\"state\":\"open\"}");
        buf_reset(&described);
        writer_init(&w, &described);
        kafka_source.shape->describe(records[0], &w);
        assert_non_null(strstr(described.p, ",\"value\":{\"state\":\"open\"}}"));
        BUF_AT_END struct buf group = BUF_INIT(100);
        kafka_group(&spec, &trigger, &group);
        assert_string_equal(group.p, "sluice.shop.t");
}

static uint64_t starve; /* which allocation fails while the event is made; 0: none */
static bool whole;      /* the last one is the event, as far as is told */

/* The event of a record with such headers, in binary mode: headers, an empty line, the data. */
static void event_of(const char *const *headers, struct str value, struct buf *out)
{
        struct kafka_spec spec = { 0 };
        struct trigger trigger = TEST_TRIGGER("t", .source_spec = &spec, .event = &event_of_trigger);
        struct services services = { .trigger = &trigger, .clock = &system_clock };
        struct kafka source = { .services = &services, .spec = &spec };
        struct partition partition = { .source = &source, .topic = topic_name, .number = 3 };
        BUF_AT_END struct buf space = BUF_INIT(1 << 20);
        struct message m = { .partition = &partition, .headers = rd_kafka_headers_new(8) };
        struct cloud_event e;

        for (; headers[0]; headers += 2)
                (void)rd_kafka_header_add(m.headers, headers[0], -1, headers[1],
                                          headers[1] ? (ssize_t)strlen(headers[1]) : 0);
        m.record = (struct record){ .id = STR("orders/3/42"),
                                    .position = 42,
                                    .value = value,
                                    .null_value = !value.p,
                                    .key = STR("k"),
                                    .has_key = true,
                                    .origin = &m };
        memset(&e, 0xa5, sizeof(e));
        memory_fails(starve, false);
        kafka_source.shape->event(&trigger, &m.record, &space, &e);
        memory_fails(0, false);
        cloudevent_headers(&e, NULL, 0, out);
        buf_text(out, "\r\n");
        buf_str(out, e.data);
        whole = !space.failed && !out->failed;
        rd_kafka_headers_destroy(m.headers);
}

#define WRAPPED                                                                                              \
        "ce-specversion: 1.0\r\nce-id: orders/3/42\r\nce-source: "                                           \
        "/apis/sluice.dev/v1alpha1/namespaces/shop/triggers/t#orders\r\nce-type: \r\nce-subject: "           \
        "partition:3#42\r\n"                                                                                 \
        "ce-partitionkey: k\r\n"
#define OWN "ce-specversion: 1.0\r\nce-id: 7\r\nce-source: /other\r\nce-type: made.there\r\n"
#define BINARY "ce_specversion", "1.0", "ce_id", "7", "ce_source", "/other", "ce_type", "made.there"

/* A producer writes any number as the time: what no clock shows is none, in every shape. */
static void a_time_that_none_can_write_is_left_out(void **state UNUSED)
{
        static const struct {
                const char *timestamp, *time;
                int64_t event_time;
        } cases[] = {
                { "1576737962999", "\"time\":\"2019-12-19T06:46:02.999Z\"", 1576737962 },
                { "-1000", "\"time\":\"1969-12-31T23:59:59Z\"", -1 },
                { "253402300799999", "\"time\":\"9999-12-31T23:59:59.999Z\"", 253402300799 },
                { "253402300800000", NULL, 253402300800 },
                { "-62135596800000", "\"time\":\"0001-01-01T00:00:00Z\"", -62135596800 },
                { "-62135596800001", NULL, -62135596800 },
                { "1796000000000000", NULL, 1796000000000 },
                { "9223372036854775806", NULL, 0 },
                { "-9223372036854775807", NULL, 0 },
                { "-1", NULL, 0 },
        };
        struct kafka_spec spec = { .topics = { (char *[]){ topic_name }, 1 } };
        struct trigger trigger = TEST_TRIGGER("t", .source_spec = &spec, .event = &event_of_trigger);

        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                BUF_AT_END struct buf text = BUF_INIT(256), space = BUF_INIT(4096), out = BUF_INIT(4096),
                                      encoded = BUF_INIT(4096);
                struct cloud_event event = { 0 };
                struct record *r;
                struct writer w;
                char wanted[64];

                buf_printf(&text, "{\"timestamp\": %s, \"value\": \"x\"}", cases[i].timestamp);
                r = test_record(kafka_source.shape, &trigger, clock_wall(&system_clock), text.p);
                kafka_source.shape->event(&trigger, r, &space, &event);
                event.type = STR("t");
                writer_init(&w, &out);
                cloudevent_write(&event, NULL, 0, &w);
                if (cases[i].time ? !strstr(out.p, cases[i].time) : strstr(out.p, "\"time\"") != NULL)
                        fail_msg("%s: %s", cases[i].timestamp, out.p);
                writer_init(&w, &encoded);
                trigger.event->dialect = DIALECT_CLASSIC;
                kafka_source.shape->encode(&trigger, &r, 1, &w);
                (void)snprintf(wanted, sizeof(wanted), "\"event_time\":%lld,",
                               (long long)cases[i].event_time);
                if (cases[i].event_time && !strstr(encoded.p, wanted))
                        fail_msg("%s: %s", cases[i].timestamp, encoded.p);
                kafka_source.shape->sample_free(r);
        }
}

static void records_that_are_cloud_events_pass_as_such(void **state UNUSED)
{
        static const char structured
                [] = "{\"specversion\":\"1.0\",\"id\":\"7\",\"source\":\"/"
                     "other\",\"type\":\"made.there\",\"data\":1.10}",
      /* whose data would be the event, for whom it is sent to */
                nested[] = "{\"specversion\":\"1.0\",\"id\":\"7\",\"source\":\"/"
                           "other\",\"type\":\"made.there\",\"datacontenttype\":\"Application/"
                           "CloudEvents+json\","
                           "\"data\":{\"id\":\"8\"}}",
      nested_bytes[] =
                "{\"specversion\":\"1.0\",\"id\":\"7\",\"source\":\"/"
                "other\",\"type\":\"made.there\",\"datacontenttype\":\"application/cloudevents-batch+json\","
                "\"data_base64\":\"e30=\"}";
        const struct {
                const char *headers[18];
                const char *value, *event;
        } cases[] = {
                ROW({ BINARY, "content-type", "text/plain", "other", "x", "ce_ext", "e" }, "{}",
                    OWN "ce-ext: e\r\nContent-Type: text/plain\r\n\r\n{}"),
                /* An extension may be empty, or a header null: that attribute is not set. */
                ROW({ BINARY, "ce_empty", "", "ce_null", NULL, "other", NULL, "ce_ext", "e" }, "{}",
                    OWN "ce-empty: \r\nce-ext: e\r\nContent-Type: application/json\r\n\r\n{}"),
                /* No data, of a type all the same. */
                ROW({ BINARY, "content-type", "text/plain" }, NULL, OWN "Content-Type: text/plain\r\n\r\n"),
                ROW({ BINARY, "content-type", "application/cloudevents-batch+json" }, NULL, OWN "\r\n"),
                ROW({ BINARY }, NULL, OWN "\r\n"),
                ROW({ BINARY, "ce_subject", "" }, "{}", WRAPPED "Content-Type: application/json\r\n\r\n{}"),
                ROW({ "ce_specversion", "1.0", "ce_id", NULL, "ce_source", "/other", "ce_type", "t" }, "{}",
                    WRAPPED "Content-Type: application/json\r\n\r\n{}"),
                ROW({ "content-type", "application/cloudevents+json; charset=UTF-8" }, structured,
                    OWN "Content-Type: application/json\r\n\r\n1.10"),
                ROW({ "content-type", "Application/CloudEvents+JSON" }, structured,
                    OWN "Content-Type: application/json\r\n\r\n1.10"),
                ROW({ "content-type", "application/cloudevents+json" }, nested,
                    OWN "Content-Type: application/json\r\n\r\n{\"id\":\"8\"}"),
                ROW({ "content-type", "application/cloudevents+json" }, nested_bytes,
                    OWN "Content-Type: application/octet-stream\r\n\r\n{}"),
                /* What is no valid event is a record like any other. */
                ROW({ "ce_specversion", "1.0", "ce_id", "7", "ce_type", "t" }, "{}",
                    WRAPPED "Content-Type: application/json\r\n\r\n{}"),
                ROW({ BINARY, "ce_bad", "\x01" }, "{}", WRAPPED "Content-Type: application/json\r\n\r\n{}"),
                ROW({ BINARY, "ce_data", "x" }, "{}", WRAPPED "Content-Type: application/json\r\n\r\n{}"),
                ROW({ BINARY, "ce_time", "yesterday" }, "{}",
                    WRAPPED "Content-Type: application/json\r\n\r\n{}"),
                ROW({ BINARY, "ce_time", "2020-01-02T03:04:05.123456789+01:00" }, "{}",
                    OWN "ce-time: 2020-01-02T03:04:05.123456789+01:00\r\nContent-Type: "
                        "application/json\r\n\r\n{}"),
                ROW({ BINARY, "ce_id", "8" }, "{}", WRAPPED "Content-Type: application/json\r\n\r\n{}"),
                ROW({ "content-type", "application/cloudevents+json" }, "{}",
                    WRAPPED "Content-Type: application/json\r\n\r\n{}"),
        };

        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                BUF_AT_END struct buf out = BUF_INIT(4096);

                event_of(cases[i].headers, cases[i].value ? str_of(cases[i].value) : (struct str){ 0 }, &out);
                assert_string_equal(out.p, cases[i].event);
        }
}

/* It is what it is with memory, or it is told that it is not whole: a CloudEvent never becomes another one.
 */
static void without_memory_no_event_becomes_another(void **state UNUSED)
{
        static const char structured[] = "{\"specversion\":\"1.0\",\"id\":\"\\u0037\",\"source\":\"/other\","
                                         "\"type\":\"made.there\",\"data\":%s%s}";
        static const char *const as_json[] = { "content-type", "application/cloudevents+json", NULL },
                                 *const binary[] = { BINARY, "ce_ext", "e", NULL },
                                 *const plain[] = { "other", "x", NULL };
        BUF_AT_END struct buf deep = BUF_INIT(8192);
        char brackets[2][1001];
        const struct {
                const char *const *headers;
                struct str value;
        } cases[] = {
                { as_json, { NULL, 0 } }, { binary, STR("{}") }, { plain, STR("{}") }, { plain, { NULL, 0 } }
        };

        memset(brackets, 0, sizeof(brackets));
        memset(brackets[0], '[', 1000);
        memset(brackets[1], ']', 1000);
        buf_printf(&deep, structured, brackets[0], brackets[1]);
        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                BUF_AT_END struct buf wanted = BUF_INIT(8192);
                struct str value = cases[i].value.p ? cases[i].value : buf_view(&deep);

                starve = 0;
                event_of(cases[i].headers, value, &wanted);
                assert_true(whole);
                for (starve = 1; starve == 1 || memory_failed(); starve++) {
                        BUF_AT_END struct buf out = BUF_INIT(8192);

                        event_of(cases[i].headers, value, &out);
                        if (whole)
                                assert_string_equal(out.p, wanted.p);
                }
                assert_true(starve > 2);
                starve = 0;
        }
}

/* A filter sees the value, or is told that it sees nothing whole: it never sees the text in its place. */
static void without_memory_no_value_becomes_a_text(void **state UNUSED)
{
        struct services services = { .clock = &system_clock };
        struct kafka source = { .services = &services };
        struct partition partition = { .source = &source, .topic = topic_name };
        BUF_AT_END struct buf text = BUF_INIT(8192), wanted = BUF_INIT(8192);
        struct message m = { .partition = &partition };

        for (int i = 0; i < 1000; i++)
                buf_char(&text, '[');
        for (int i = 0; i < 1000; i++)
                buf_char(&text, ']');
        m.record = (struct record){ .value = buf_view(&text), .origin = &m };
        for (uint64_t at = 0; at < 2 || memory_failed(); at++) {
                BUF_AT_END struct buf found = BUF_INIT(8192);
                struct writer w;

                memory_fails(at, false);
                writer_init(&w, &found);
                kafka_source.shape->describe(&m.record, &w);
                memory_fails(0, false);
                if (at == 0) {
                        assert_non_null(strstr(found.p, "\"value\":[[["));
                        buf_str(&wanted, buf_view(&found));
                } else if (!found.failed)
                        assert_string_equal(found.p, wanted.p);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(the_events_are_the_golden_ones),
                cmocka_unit_test(a_time_that_none_can_write_is_left_out),
                cmocka_unit_test(records_that_are_cloud_events_pass_as_such),
                cmocka_unit_test(without_memory_no_event_becomes_another),
                cmocka_unit_test(without_memory_no_value_becomes_a_text),
        };
        return cmocka_run_group_tests_name("kafka shape", tests, NULL, NULL);
}
