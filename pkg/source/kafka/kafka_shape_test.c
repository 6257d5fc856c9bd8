/* The source itself, so that its messages can be made by hand. */
#include "source/kafka/kafka.c"

#include <librdkafka/rdkafka_mock.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* ---- shapes ------------------------------------------------------------- */

static char topic_name[] = "orders", trigger_name[] = "t", namespace_name[] = "shop", region[] = "eu-west-1",
            instance[] = "81335d56";
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
        };
        struct kafka_spec spec = { 0 };
        struct trigger trigger = { .name = trigger_name,
                                   .namespace_ = namespace_name,
                                   .source_spec = &spec,
                                   .event = &event_of_trigger };
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

/* The event of a record with such headers, in binary mode: headers, an empty line, the data. */
static void event_of(const char *const *headers, struct str value, struct buf *out)
{
        struct kafka_spec spec = { 0 };
        struct trigger trigger = { .name = trigger_name,
                                   .namespace_ = namespace_name,
                                   .source_spec = &spec,
                                   .event = &event_of_trigger };
        struct services services = { .trigger = &trigger, .clock = &system_clock };
        struct kafka source = { .services = &services, .spec = &spec };
        struct partition partition = { .source = &source, .topic = topic_name, .number = 3 };
        BUF_AT_END struct buf space = BUF_INIT(1 << 20);
        struct message m = { .partition = &partition, .headers = rd_kafka_headers_new(8) };
        struct cloud_event e;

        for (; headers[0]; headers += 2)
                (void)rd_kafka_header_add(m.headers, headers[0], -1, headers[1], (ssize_t)strlen(headers[1]));
        m.record = (struct record){ .id = STR("orders/3/42"),
                                    .position = 42,
                                    .value = value,
                                    .key = STR("k"),
                                    .has_key = true,
                                    .origin = &m };
        kafka_source.shape->event(&trigger, &m.record, &space, &e);
        cloudevent_headers(&e, NULL, 0, out);
        buf_text(out, "\r\n");
        buf_str(out, e.data);
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
        struct trigger trigger = { .name = trigger_name,
                                   .namespace_ = namespace_name,
                                   .source_spec = &spec,
                                   .event = &event_of_trigger };

        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                BUF_AT_END struct buf text = BUF_INIT(256), space = BUF_INIT(4096), out = BUF_INIT(4096),
                                      encoded = BUF_INIT(4096);
                struct cloud_event event = { 0 };
                struct problems problems = { 0 };
                struct documents documents;
                struct record *r;
                struct error err;
                struct writer w;
                char wanted[64];

                buf_printf(&text, "{\"timestamp\": %s, \"value\": \"x\"}", cases[i].timestamp);
                assert_int_equal(yaml_parse(&documents, buf_view(&text), &problems), 0);
                if (kafka_source.shape->sample(&trigger, documents.roots[0], clock_wall(&system_clock), &r,
                                               &err) < 0)
                        fail_msg("%s: %s", text.p, err.text);
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
                documents_done(&documents);
        }
}

static void records_that_are_cloud_events_pass_as_such(void **state UNUSED)
{
        static const char structured[] = "{\"specversion\":\"1.0\",\"id\":\"7\",\"source\":\"/"
                                         "other\",\"type\":\"made.there\",\"data\":1.10}";
        const struct {
                const char *headers[16];
                const char *value, *event;
        } cases[] = {
                ROW({ BINARY, "content-type", "text/plain", "other", "x", "ce_ext", "e" }, "{}",
                    OWN "ce-ext: e\r\nContent-Type: text/plain\r\n\r\n{}"),
                ROW({ "content-type", "application/cloudevents+json; charset=UTF-8" }, structured,
                    OWN "Content-Type: application/json\r\n\r\n1.10"),
                ROW({ "content-type", "Application/CloudEvents+JSON" }, structured,
                    OWN "Content-Type: application/json\r\n\r\n1.10"),
                /* What is no valid event is a record like any other. */
                ROW({ "ce_specversion", "1.0", "ce_id", "7", "ce_type", "t" }, "{}",
                    WRAPPED "Content-Type: application/json\r\n\r\n{}"),
                ROW({ BINARY, "ce_bad", "\x01" }, "{}", WRAPPED "Content-Type: application/json\r\n\r\n{}"),
                ROW({ BINARY, "ce_id", "8" }, "{}", WRAPPED "Content-Type: application/json\r\n\r\n{}"),
                ROW({ "content-type", "application/cloudevents+json" }, "{}",
                    WRAPPED "Content-Type: application/json\r\n\r\n{}"),
        };

        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                BUF_AT_END struct buf out = BUF_INIT(4096);

                event_of(cases[i].headers, str_of(cases[i].value), &out);
                assert_string_equal(out.p, cases[i].event);
        }
}

/* ---- against librdkafka's own cluster ----------------------------------- */

enum { PARTITIONS = 4, MESSAGES = 1000 };
static struct {
        rd_kafka_t *producer;
        rd_kafka_mock_cluster_t *cluster;
        struct loop *loop;
        struct kafka_spec spec;
        struct trigger trigger;
        struct services services;
        struct source *source;
        struct task wake, watchdog;
        char servers[512], *server_list[1], *topic_list[1];
        size_t got[PARTITIONS], total, stop_at;
        int number_of_track[64];
        int64_t first[PARTITIONS];
        bool stopping, closed, overdue;
        struct record *kept[64]; /* lent a while, as by a function that works */
        size_t kept_n;
} e;

static void e_too_late(struct task *t UNUSED, usec now UNUSED)
{
        e.overdue = true;
        loop_stop(e.loop);
}

static void e_record(struct record *r)
{
        const struct message *m = r->origin;
        int32_t number = m->partition->number;
        char expected[64];

        assert_in_range(number, 0, PARTITIONS - 1);
        if (e.first[number] < 0)
                e.first[number] = (int64_t)r->position;
        /* in order, none missing, none twice */
        assert_int_equal((int64_t)r->position, e.first[number] + (int64_t)e.got[number]);
        (void)snprintf(expected, sizeof(expected), "%d/%lld", number, (long long)r->position);
        assert_true(str_is(r->value, expected));
        (void)snprintf(expected, sizeof(expected), "orders/%d/%lld", number, (long long)r->position);
        assert_true(str_is(r->id, expected));
        e.got[number]++;
        e.total++;
        if (r->position % 7 == 0) {
                assert_true(kafka_source.pull->detach(e.source, r));
                assert_true(kafka_source.pull->detach(e.source, r));
                (void)snprintf(expected, sizeof(expected), "%d/%lld", number, (long long)r->position);
                assert_true(str_is(r->value, expected));
        }
}

static void e_settle(struct record *r)
{
        uint32_t track = r->track;
        uint64_t next = r->position + 1;

        kafka_source.pull->release(e.source, r, OUTCOME_ACCEPTED);
        if (next % 10 == 0 || next == MESSAGES / PARTITIONS || e.total >= e.stop_at)
                kafka_source.pull->commit(e.source, track, next);
        kafka_source.pull->credit(e.source, track, 1, 300);
}

static void e_turn(struct task *t UNUSED, usec now)
{
        struct pull_event events[16];
        size_t n;

        while ((n = kafka_source.pull->poll(e.source, events, COUNT_OF(events), now)))
                for (size_t i = 0; i < n; i++)
                        switch (events[i].kind) {
                        case PULL_RECORD:
                                e_record(events[i].record);
                                e.kept[e.kept_n++] = events[i].record;
                                if (e.kept_n >= 8)
                                        while (e.kept_n)
                                                e_settle(e.kept[--e.kept_n]);
                                break;
                        case PULL_ASSIGNED:
                                kafka_source.pull->credit(e.source, events[i].track, 3, 1000);
                                break;
                        case PULL_REVOKING:
                        case PULL_LOST: kafka_source.pull->revoked(e.source, events[i].track); break;
                        case PULL_CLOSED: e.closed = true; break;
                        case PULL_STATE: break;
                        }
        /* What is kept is settled oldest first, so that commits only go on. */
        for (size_t i = 0; i < e.kept_n; i++)
                e_settle(e.kept[i]);
        e.kept_n = 0;
        if (e.closed)
                loop_stop(e.loop);
        else if (e.total >= e.stop_at && !e.stopping) {
                e.stopping = true;
                kafka_source.pull->stop(e.source);
        }
        loop_arm(e.loop, &e.wake, kafka_source.pull->deadline(e.source));
}

static void e_produce(int from, int until)
{
        for (int i = from; i < until; i++) {
                char value[64];
                int n = snprintf(value, sizeof(value), "%d/%d", i % PARTITIONS, i / PARTITIONS);

                assert_int_equal(rd_kafka_producev(e.producer, RD_KAFKA_V_TOPIC("orders"),
                                                   RD_KAFKA_V_PARTITION(i % PARTITIONS),
                                                   RD_KAFKA_V_VALUE(value, (size_t)n),
                                                   RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END),
                                 RD_KAFKA_RESP_ERR_NO_ERROR);
        }
        assert_int_equal(rd_kafka_flush(e.producer, 20000), RD_KAFKA_RESP_ERR_NO_ERROR);
}

/* Opens the source, reads until so many messages came in all, commits, stops and frees. */
static void e_consume(size_t until)
{
        struct error err;

        e.stop_at = until;
        e.stopping = e.closed = false;
        e.wake = (struct task){ .turn = e_turn };
        e.services.wake = &e.wake;
        e.watchdog = (struct task){ .turn = e_too_late };
        if (kafka_source.open(&e.source, &e.spec, &e.services, &err) < 0)
                fail_msg("%s", err.text);
        loop_ready(e.loop, &e.wake);
        loop_arm(e.loop, &e.watchdog, clock_monotonic(&system_clock) + 60 * USEC_SEC);
        loop_run(e.loop);
        loop_forget(e.loop, &e.watchdog);
        if (e.overdue)
                fail_msg("%zu messages of %zu came", e.total, until);
        e.source = kafka_source.pull->free(e.source);
        loop_forget(e.loop, &e.wake);
}

/* What the group holds, asked without joining it: the cluster takes its time to forget a member that left. */
static void e_check_committed(void)
{
        rd_kafka_conf_t *conf = rd_kafka_conf_new();
        rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(PARTITIONS);
        rd_kafka_t *rk;
        char why[256];

        assert_int_equal(rd_kafka_conf_set(conf, "bootstrap.servers", e.servers, why, sizeof(why)),
                         RD_KAFKA_CONF_OK);
        assert_int_equal(rd_kafka_conf_set(conf, "group.id", "sluice.shop.t", why, sizeof(why)),
                         RD_KAFKA_CONF_OK);
        rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof(why));
        assert_non_null(rk);
        for (int i = 0; i < PARTITIONS; i++)
                (void)rd_kafka_topic_partition_list_add(list, topic_name, i);
        assert_int_equal(rd_kafka_committed(rk, list, 20000), RD_KAFKA_RESP_ERR_NO_ERROR);
        for (int i = 0; i < PARTITIONS; i++)
                assert_int_equal(list->elems[i].offset, MESSAGES / PARTITIONS);
        rd_kafka_topic_partition_list_destroy(list);
        rd_kafka_destroy(rk);
}

static void messages_arrive_in_order_and_are_committed(void **state UNUSED)
{
        rd_kafka_conf_t *conf = rd_kafka_conf_new();
        struct error err;
        char why[256];

        for (int i = 0; i < PARTITIONS; i++)
                e.first[i] = -1;
        e.producer = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof(why));
        assert_non_null(e.producer);
        e.cluster = rd_kafka_mock_cluster_new(e.producer, 1);
        (void)snprintf(e.servers, sizeof(e.servers), "%s", rd_kafka_mock_cluster_bootstraps(e.cluster));
        assert_int_equal(rd_kafka_mock_topic_create(e.cluster, "orders", PARTITIONS, 1),
                         RD_KAFKA_RESP_ERR_NO_ERROR);
        assert_true(rd_kafka_brokers_add(e.producer, e.servers) > 0);
        assert_int_equal(loop_new(&e.loop, &err), 0);
        e.server_list[0] = e.servers;
        e.topic_list[0] = topic_name;
        e.spec = (struct kafka_spec){ .bootstrap_servers = { e.server_list, 1 },
                                      .topics = { e.topic_list, 1 },
                                      .start_position = KAFKA_EARLIEST };
        e.trigger = (struct trigger){ .name = trigger_name,
                                      .namespace_ = namespace_name,
                                      .source_spec = &e.spec,
                                      .event = &event_of_trigger };
        e.services = (struct services){
                .loop = e.loop, .waker = loop_waker(e.loop), .clock = &system_clock, .trigger = &e.trigger
        };

        e_produce(0, MESSAGES);
        e_consume(MESSAGES);
        for (int i = 0; i < PARTITIONS; i++) {
                assert_int_equal(e.first[i], 0);
                assert_int_equal(e.got[i], MESSAGES / PARTITIONS);
        }

        e_check_committed();

        e.loop = loop_free(e.loop);
        rd_kafka_mock_cluster_destroy(e.cluster);
        rd_kafka_destroy(e.producer);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(the_events_are_the_golden_ones),
                cmocka_unit_test(a_time_that_none_can_write_is_left_out),
                cmocka_unit_test(records_that_are_cloud_events_pass_as_such),
                cmocka_unit_test(messages_arrive_in_order_and_are_committed),
        };
        signals_block();
        return cmocka_run_group_tests_name("kafka", tests, NULL, NULL);
}
