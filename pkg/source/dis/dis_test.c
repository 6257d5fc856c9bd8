/* The source itself, so that its partitions can be made by hand. */
#include "source/dis/dis.c"
#include "source/dis/list.c"
#include "tests/sim/memory.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static char stream[] = "dis-swtest", trigger_name[] = "orders", namespace_name[] = "shop";
static struct dis_spec spec = { .stream = stream, .start_sequence = -1, .max_fetch_bytes = 1024 };
static struct trigger trigger = { .name = trigger_name, .namespace_ = namespace_name, .source_spec = &spec };

struct bench {
        struct dis d;
        struct partition at;
        struct services services;
};

static int setup(void **state)
{
        struct bench *b = calloc(1, sizeof(*b));

        assert_non_null(b);
        b->services = (struct services){ .trigger = &trigger, .clock = &system_clock };
        b->d.spec = &spec;
        b->d.app.max = b->at.cursor.max = 4096;
        b->d.poller.services = &b->services;
        b->at.at = b->at.end = -1;
        (void)snprintf(b->at.name, sizeof(b->at.name), "shardId-0000000000");
        *state = b;
        return 0;
}

static int teardown(void **state)
{
        struct bench *b = *state;

        buf_done(&b->at.cursor);
        buf_done(&b->d.app);
        free(b);
        return 0;
}

static int64_t fetch(struct bench *b, const char *body)
{
        struct error err = { 0 };

        b->at.for_records = true;
        return poller_answer(&b->d.poller, &dis_ops, READER_FETCH, &b->at, str_of(body), &err);
}

static void records_are_read_once_and_in_order(void **state)
{
        struct bench *b = *state;

        assert_int_equal(fetch(b, "{\"records\":[{\"data\":\"YQ==\",\"sequence_number\":\"4\"},{\"data\":"
                                  "\"Yg==\",\"sequence_number\":5}],\"next_partition_cursor\":\"next\"}"),
                         2);
        assert_int_equal(b->at.at, 6);
        assert_string_equal(b->at.cursor.p, "next");
        /* One that is known comes again: it is left out, and its cursor is not trusted. */
        assert_int_equal(fetch(b,
                               "{\"next_partition_cursor\":\"old\",\"records\":[{\"data\":\"Yg==\","
                               "\"sequence_number\":\"5\"},{\"data\":\"Yw==\",\"sequence_number\":\"6\"}]}"),
                         1);
        assert_int_equal(b->at.at, 7);
        assert_int_equal(b->at.cursor.n, 0);
        /* The end: until it is described again. */
        assert_int_equal(fetch(b, "{\"next_partition_cursor\":null,\"records\":[]}"), 0);
        assert_int_equal(b->at.end, 7);
}

static size_t shown;

static void show(const struct record *r)
{
        static const char *const ids[] = { "/shardId-0000000000/4", "/shardId-0000000000/5" };
        const char *letter = shown ? "b" : "a";

        assert_true(str_is(r->value, letter) && str_is(r->key, letter));
        assert_true(r->id.n > strlen(ids[shown]) &&
                    str_is((struct str){ r->id.p + r->id.n - strlen(ids[shown]), strlen(ids[shown]) },
                           ids[shown]));
        shown++;
}

/* All of an answer's records are there as they are, or it has failed and is asked for again. */
static void without_memory_no_record_becomes_another(void **state)
{
        const struct str answer = STR(
                "{\"records\":[{\"data\":\"YQ\\u003d=\",\"partition_key\":\"\\u0061\","
                "\"sequence_number\":\"4\"},{\"data\":\"Yg\\u003d=\",\"partition_key\":"
                "\"\\u0062\",\"sequence_number\":5}],\"next_partition_cursor\":\"next\"}");
        struct bench *b = *state;

        b->at.for_records = true;
        for (int for_good = 0; for_good < 2; for_good++)
                for (uint64_t at = 1;; at++) {
                        struct error err = { 0 };
                        int64_t n;

                        b->at.at = b->at.end = -1;
                        shown = 0;
                        memory_fails(at, for_good);
                        n = poller_records(&b->d.poller, &dis_ops, &b->at, answer, show, &err);
                        memory_fails(0, false);
                        assert_int_equal(shown, MAX_OF(n, (int64_t)0));
                        if (n == -1)
                                continue;
                        assert_int_equal(n, 2);
                        if (!memory_failed())
                                break;
                }
}

static void what_can_not_be_read_is_refused(void **state)
{
        static const char *const bad[] = {
                "",
                "[]",
                "{}",
                "{\"records\":{}}",
                "{\"records\":[{}]}",
                "{\"records\":[{\"sequence_number\":",
                "{\"records\":[{\"sequence_number\":true}]}",
                "{\"records\":[{\"sequence_number\":\"1\",\"data\":",
                "{\"records\":[{\"sequence_number\":\"1\",\"data\":5}]}",
                "{\"records\":[{\"sequence_number\":\"x\",\"data\":\"\"}]}",
                "{\"records\":[{\"sequence_number\":\"-1\",\"data\":\"\"}]}",
                "{\"records\":[{\"sequence_number\":\"9223372036854775807\",\"data\":\"\"}]}",
                "{\"records\":[{\"sequence_number\":\"1\",\"data\":\"?\"}]}",
                "{\"records\":[{\"sequence_number\":\"1\",\"data\":\"YQ==\"}]",
        };

        for (size_t i = 0; i < COUNT_OF(bad); i++)
                assert_int_equal(fetch(*state, bad[i]), -1);
        assert_int_equal(((struct bench *)*state)->at.at, -1);
}

static void a_record_that_never_comes_is_named(void **state)
{
        static const char none[] = "{\"records\":[],\"next_partition_cursor\":\"c\"}";
        struct bench *b = *state;
        struct error err = { 0 };

        b->at.at = 7;
        b->at.newest = 7;
        for (int i = 0; i < 5; i++)
                assert_int_equal(fetch(b, none), 0);
        b->at.newest = 8;
        assert_int_equal(fetch(b, none), 0);
        assert_int_equal(fetch(b, none), 0);
        assert_int_equal(poller_answer(&b->d.poller, &dis_ops, READER_FETCH, &b->at, str_of(none), &err), -1);
        assert_non_null(strstr(err.text, "raise maxFetchBytes"));
        assert_true(err.retry);
}

static void ranges_and_names_are_read_as_they_come(void **state UNUSED)
{
        static const struct {
                const char *text;
                bool good;
                int64_t oldest, newest;
        } ranges[] = {
                { "[289911 : 289927]", true, 289911, 289927 },
                { "[null : 3]", true, 0, 3 },
                { "[5 : null]", true, 5, 5 },
                { NULL, true, 0, 0 },
                { "", false, 0, 0 },
                { "rescaling", false, 0, 0 },
                { "[", false, 0, 0 },
                { "[]", true, 0, 0 },
        };
        char name[DIS_NAME_MOST + 1];

        for (size_t i = 0; i < COUNT_OF(ranges); i++) {
                JSON_AT_END json_t *range = ranges[i].text ? json_string(ranges[i].text) : NULL;
                int64_t oldest = 0, newest = 0;

                assert_int_equal(read_range(range, &oldest, &newest), ranges[i].good);
                assert_int_equal(oldest, ranges[i].oldest);
                assert_int_equal(newest, ranges[i].newest);
        }
        JSON_AT_END json_t *number = json_integer(3), *text = json_string("3"),
                           *long_name = json_string("shardId-0000000003"), *none = json_string("");
        const json_t *same[] = { number, text, long_name };
        for (size_t i = 0; i < COUNT_OF(same); i++) {
                assert_true(read_name(same[i], name));
                assert_string_equal(name, "shardId-0000000003");
        }
        assert_false(read_name(none, name));
        assert_false(read_name(NULL, name));
}

static enum poller_step load(struct bench *b, const char *body, const char *mark)
{
        struct reader_job job = { .kind = READER_LOAD, .own = &b->at };
        struct error err = { 0 };
        enum poller_step step;

        buf_reset(&b->d.poller.mark);
        step = answered(&b->d.poller, &job, str_of(body), &err);
        assert_string_equal(b->d.poller.mark.n ? b->d.poller.mark.p : "", mark);
        buf_done(&b->d.poller.mark);
        return step;
}

static void the_first_start_is_told_from_later_ones(void **state)
{
        struct bench *b = *state;

        spec.start = DIS_LATEST;
        b->at.newest = 17;
        assert_int_equal(load(b, "{\"sequence_number\":\"12\"}", "12"), POLLER_DONE);
        assert_int_equal(load(b, "{\"sequence_number\":\"-1\"}", ""), POLLER_AGAIN);
        assert_int_equal(b->at.load, LOAD_STATE);
        assert_int_equal(load(b, "{\"partition_consuming_states\":[{\"sequence_number\":-1}]}", ""),
                         POLLER_AGAIN);
        assert_int_equal(b->at.load, LOAD_START);
        assert_int_equal(load(b, "", "17"), POLLER_DONE);
        /* The app is known to others: what has no checkpoint is new. */
        b->d.app_state = APP_USED;
        assert_int_equal(load(b, "{\"sequence_number\":\"\"}", ""), POLLER_DONE);
        b->d.app_state = APP_FRESH;
        b->at.late = true;
        assert_int_equal(load(b, "{}", ""), POLLER_DONE);
        b->at.late = false;
        spec.start = DIS_AT_SEQUENCE_NUMBER;
        spec.start_sequence = 9;
        assert_int_equal(load(b, "{}", "9"), POLLER_DONE);
        spec.start = DIS_TRIM_HORIZON;
        spec.start_sequence = -1;
        assert_int_equal(load(b, "{}", ""), POLLER_DONE);
}

static void the_event_is_the_golden_one(void **state UNUSED)
{
        struct dis_record origins[4];
        struct record all[4], *records[4];
        struct str cursor;
        BUF_AT_END struct buf wanted = BUF_INIT(8192), found = BUF_INIT(8192), described = BUF_INIT(8192);
        JSON_AT_END json_t *golden = NULL, *made = NULL;
        struct error err;
        struct writer w;

        if (buf_read_file(&wanted, "pkg/source/dis/testdata/classic.json", &err) < 0)
                fail_msg("%s", err.text);
        golden = json_loadb(wanted.p, wanted.n, 0, NULL);
        cursor = str_of(json_string_value(
                json_object_get(json_object_get(golden, "Message"), "next_partition_cursor")));
        for (size_t i = 0; i < 4; i++) {
                origins[i] = (struct dis_record){ STR("shardId-0000000000"), (int64_t)i, &cursor };
                all[i] = (struct record){ .value = STR("<Buffer></Buffer>"),
                                          .key = STR("shardId_0000000000"),
                                          .has_key = true,
                                          .origin = &origins[i] };
                records[i] = &all[i];
        }
        writer_init(&w, &found);
        dis_shape.encode(&trigger, records, 4, &w);
        made = json_loadb(found.p, found.n, 0, NULL);
        assert_true(json_equal(made, golden));
        writer_init(&w, &described);
        dis_shape.describe(records[3], &w);
        assert_string_equal(described.p, "{\"partitionKey\":\"shardId_0000000000\",\"sequenceNumber\":\"3\","
                                         "\"data\":\"<Buffer></Buffer>\"}");
        all[3].value = STR("{\"n\":1}");
        all[3].has_key = false;
        buf_reset(&described);
        writer_init(&w, &described);
        dis_shape.describe(records[3], &w);
        assert_string_equal(described.p,
                            "{\"partitionKey\":null,\"sequenceNumber\":\"3\",\"data\":{\"n\":1}}");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(records_are_read_once_and_in_order, setup, teardown),
                cmocka_unit_test_setup_teardown(without_memory_no_record_becomes_another, setup, teardown),
                cmocka_unit_test_setup_teardown(what_can_not_be_read_is_refused, setup, teardown),
                cmocka_unit_test_setup_teardown(a_record_that_never_comes_is_named, setup, teardown),
                cmocka_unit_test(ranges_and_names_are_read_as_they_come),
                cmocka_unit_test_setup_teardown(the_first_start_is_told_from_later_ones, setup, teardown),
                cmocka_unit_test(the_event_is_the_golden_one),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
