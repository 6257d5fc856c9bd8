/* Includes the source files, so that partitions can be built by hand. */
#include "source/dis/dis.c"
#include "source/dis/list.c"
#include "tests/sim/memory.h"

#include "source/dis/first.c"
#include "source/page.h"
#include "tests/support/clock.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <jansson.h>

static void cleanup_json(json_t **j) { json_decref(*j); }
#define JSON_AT_END CLEANUP(cleanup_json)

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
        b->at.at = b->at.end = b->at.ahead = -1;
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

static int64_t fetch_of(struct bench *b, struct partition *at, const char *body)
{
        struct reader *reader = b->d.poller.reader;
        struct error err = { 0 };
        int64_t n;

        at->for_records = true;
        n = poller_answer(&b->d.poller, &dis_ops, READER_FETCH, at, str_of(body), &err);
        b->d.poller.reader = reader;
        return n;
}

static int64_t fetch(struct bench *b, const char *body) { return fetch_of(b, &b->at, body); }

static void records_are_read_once_and_in_order(void **state)
{
        struct bench *b = *state;

        assert_int_equal(fetch(b, "{\"records\":[{\"data\":\"YQ==\",\"sequence_number\":\"4\"},{\"data\":"
                                  "\"Yg==\",\"sequence_number\":5}],\"next_partition_cursor\":\"next\"}"),
                         2);
        assert_int_equal(b->at.at, 6);
        assert_string_equal(b->at.cursor.p, "next");
        /* A duplicate is skipped, and the cursor of such a response is not used. */
        assert_int_equal(fetch(b,
                               "{\"next_partition_cursor\":\"old\",\"records\":[{\"data\":\"Yg==\","
                               "\"sequence_number\":\"5\"},{\"data\":\"Yw==\",\"sequence_number\":\"6\"}]}"),
                         1);
        assert_int_equal(b->at.at, 7);
        assert_int_equal(b->at.cursor.n, 0);
        /* A null cursor ends the partition, until a list shows more. */
        assert_int_equal(fetch(b, "{\"next_partition_cursor\":null,\"records\":[]}"), 0);
        assert_int_equal(b->at.end, 7);
}

#define PLAIN(number) "{\"data\":\"YQ==\",\"sequence_number\":\"" number "\"}"

/* A record that is out of order must not be mistaken for a duplicate. */
static void an_answer_out_of_order_is_refused(void **state)
{
        struct bench *b = *state;

        assert_int_equal(fetch(b, "{\"records\":[" PLAIN("2") "," PLAIN("1") "," PLAIN("0") "]}"), -1);
        assert_int_equal(b->at.at, -1);
        assert_int_equal(fetch(b, "{\"records\":[" PLAIN("0") "," PLAIN("2") "," PLAIN("1") "]}"), -1);
        assert_int_equal(b->at.at, -1);
        /* Real duplicates are fine: the same number twice, or one below the position. */
        assert_int_equal(fetch(b, "{\"records\":[" PLAIN("3") "," PLAIN("4") "," PLAIN("3") "]}"), 2);
        assert_int_equal(fetch(b, "{\"records\":[" PLAIN("5") "," PLAIN("2") "," PLAIN("6") "]}"), 2);
        assert_int_equal(b->at.at, 7);
}

/* It may be the response to another request, and would skip the records between. */
static void an_answer_from_further_on_is_not_taken_at_once(void **state)
{
        static const char nine[] = "{\"records\":[{\"data\":\"YQ==\",\"sequence_number\":9}],"
                                   "\"next_partition_cursor\":\"next\"}";
        struct bench *b = *state;

        b->at.at = 5;
        buf_text(&b->at.cursor, "here");
        assert_int_equal(fetch(b, nine), -1);
        assert_int_equal(b->at.cursor.n, 0); /* a new one, at the position, will be requested */
        assert_int_equal(b->at.at, 5);
        assert_int_equal(fetch(b, "{\"records\":[{\"data\":\"YQ==\",\"sequence_number\":5}],"
                                  "\"next_partition_cursor\":\"next\"}"),
                         1);
        assert_int_equal(fetch(b, nine), -1);
        assert_int_equal(fetch(b, nine), 1); /* so there are no records between */
        assert_int_equal(b->at.at, 10);
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

/* Either all records of a response are intact, or the response fails and is requested again. */
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

static const char *document;

static void as_seen(const struct record *r)
{
        BUF_AT_END struct buf out = BUF_INIT(65536);
        struct writer w;

        writer_init(&w, &out);
        dis_source.shape->describe(r, &w);
        assert_string_equal(out.p, document);
}

static void records_say_what_they_say(void **state)
{
        static const struct {
                const char *record, *document;
        } all[] = {
                { "{\"sequence_number\":\"9007199254740993\",\"data\":\"YQ==\",\"partition_key\":"
                  "\"\\u00e4\\n\"}",
                  "{\"partitionKey\":\"\xc3\xa4\\n\",\"sequenceNumber\":\"9007199254740993\",\"data\":"
                  "\"a\"}" },
                { "{\"sequence_number\":9223372036854775806,\"data\":\"eyJhIjpudWxsfQ==\",\"partition_key\":"
                  "\"\"}",
                  "{\"partitionKey\":\"\",\"sequenceNumber\":\"9223372036854775806\",\"data\":{\"a\":null}"
                  "}" },
                { "{\"partition_key\":null,\"timestamp\":null,\"sequence_number\":0,\"data\":null}",
                  "{\"partitionKey\":null,\"sequenceNumber\":\"0\",\"data\":\"\"}" },
                { "{\"sequence_number\":3}",
                  "{\"partitionKey\":null,\"sequenceNumber\":\"3\",\"data\":\"\"}" },
                { "{\"sequence_number\":1,\"sequence_number\":3,\"new\":{\"data\":\"no\"},\"data\":"
                  "\"\\u0059Q==\"}",
                  "{\"partitionKey\":null,\"sequenceNumber\":\"3\",\"data\":\"a\"}" },
        };
        struct bench *b = *state;

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                BUF_AT_END struct buf body = BUF_INIT(4096);
                struct error err;

                b->at.at = -1;
                b->at.for_records = true;
                document = all[i].document;
                buf_printf(&body, "{\"records\":[%s],\"next_partition_cursor\":\"n\"}", all[i].record);
                if (poller_records(&b->d.poller, &dis_ops, &b->at, buf_view(&body), as_seen, &err) != 1)
                        fail_msg("%s: %s", all[i].record, err.text);
        }
}

/* The inverse of describe; missing members get plausible values. */
static void samples_are_what_the_document_says(void **state UNUSED)
{
        static const struct {
                const char *document, *seen;
        } all[] = {
                { "{}", "{\"partitionKey\":null,\"sequenceNumber\":\"0\",\"data\":\"a record\"}" },
                { "{partitionKey: 'k\xc3\xa4\"', sequenceNumber: '9007199254740993', data: 'x\xc3\xa4'}",
                  "{\"partitionKey\":\"k\xc3\xa4\\\"\",\"sequenceNumber\":\"9007199254740993\",\"data\":"
                  "\"x\xc3\xa4\"}" },
                { "{partitionKey: '', sequenceNumber: 9223372036854775806, data: {n: [9007199254740993, "
                  "null]}}",
                  "{\"partitionKey\":\"\",\"sequenceNumber\":\"9223372036854775806\",\"data\":{\"n\":["
                  "9007199254740993,null]}}" },
                { "{partitionKey: null, sequenceNumber: -1, data: null}",
                  "{\"partitionKey\":null,\"sequenceNumber\":\"0\",\"data\":\"\"}" },
                { "{partitionKey: 5, sequenceNumber: x, data: ''}",
                  "{\"partitionKey\":\"5\",\"sequenceNumber\":\"0\",\"data\":\"\"}" },
        };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                BUF_AT_END struct buf out = BUF_INIT(4096);
                struct documents docs = { 0 };
                struct problems problems = { 0 };
                struct record *r;
                struct writer w;
                struct error err;

                assert_int_equal(yaml_parse(&docs, str_of(all[i].document), &problems), 0);
                if (dis_source.shape->sample(&trigger, docs.roots[0], 1700000000 * USEC_SEC, &r, &err) < 0)
                        fail_msg("%s: %s", all[i].document, err.text);
                documents_done(&docs); /* nothing borrows from it */
                writer_init(&w, &out);
                dis_source.shape->describe(r, &w);
                assert_string_equal(out.p, all[i].seen);
                assert_int_equal(r->time, 1700000000 * USEC_SEC);
                dis_source.shape->sample_free(r);
        }
        dis_source.shape->sample_free(NULL);
}

static void a_cursor_may_be_escaped(void **state)
{
        struct bench *b = *state;

        assert_int_equal(fetch(b, "{\"next_partition_cursor\":\"a\\/b\\u003d\",\"records\":[]}"), 0);
        assert_string_equal(b->at.cursor.p, "a/b=");
        assert_int_equal(b->at.end, -1);
}

static void what_can_not_be_read_is_refused(void **state)
{
        static const char *const bad[] = {
                "",
                "[]",
                "{}",
                "{\"records\":{}}",
                "{\"records\":[{\"sequence_number\":",
                "{\"records\":[{\"sequence_number\":\"1\",\"data\":",
                "{\"records\":[nul]}",
                "{\"records\":[{\"sequence_number\":\"1\",\"data\":\"YQ==\"}]",
        };

        for (size_t i = 0; i < COUNT_OF(bad); i++)
                assert_int_equal(fetch(*state, bad[i]), -1);
        assert_int_equal(((struct bench *)*state)->at.at, -1);
}

/* Reads a response that starts with this record: how a filter sees it, and the warning. */
static int64_t read_told(struct bench *b, const char *record, struct buf *seen, struct notice *notice)
{
        const struct reader_config config = { .page_bytes = 1 << 20 };
        struct reader_job job = { .kind = READER_FETCH, .own = &b->at };
        BUF_AT_END struct buf body = BUF_INIT(4096);
        struct reader *reader = b->d.poller.reader;
        struct record *first;
        struct writer w;
        struct error err;
        int64_t n = -1;

        buf_printf(&body, "{\"records\":[%s,%s],\"next_partition_cursor\":\"n\"}", record, PLAIN("8"));
        assert_int_equal(reader_new(&b->d.poller.reader, &config, 1, &err), 0);
        assert_int_equal(reader_add(b->d.poller.reader, STR("0"), &b->at, &b->at.track, &err), 0);
        job.page = poller_sample_begin(&(const struct node){ 0 }, "", &err);
        b->at.for_records = true;
        if (dis_ops.answered(&b->d.poller, &job, buf_view(&body), &err) == POLLER_DONE)
                n = job.page->n;
        writer_init(&w, seen);
        if (n > 0)
                dis_source.shape->describe(&job.page->first->record, &w);
        if (!reader_warned(b->d.poller.reader, notice))
                *notice = (struct notice){ .reason = "" };
        assert_int_equal(poller_sample_end(job.page, n > 0 ? 0 : -1, &first, &err), n > 0 ? 0 : -1);
        poller_sample_free(n > 0 ? first : NULL);
        (void)reader_free(b->d.poller.reader);
        b->d.poller.reader = reader;
        return n;
}

#define DATA(data) "{\"sequence_number\":\"7\"" data "}"
#define TOLD(key, data) "{\"partitionKey\":" key ",\"sequenceNumber\":\"7\",\"data\":" data "}"

/* Malformed data is delivered unchanged, with a warning, and the partition goes on. */
static void a_malformed_record_holds_nothing_up(void **state)
{
        static const char malformed[] = "RecordsMalformed";
        static const struct {
                const char *record, *seen, *told;
        } all[] = {
                { DATA(""), TOLD("null", "\"\""), malformed },
                { DATA(",\"data\":null"), TOLD("null", "\"\""), malformed },
                { DATA(",\"data\":\"\""), TOLD("null", "\"\""), "" },
                { DATA(",\"data\":\"?\""), TOLD("null", "\"?\""), malformed },
                { DATA(",\"data\":\"YQ=\""), TOLD("null", "\"YQ=\""), malformed },
                { DATA(",\"data\":\"\\u00e4\""), TOLD("null", "\"\xc3\xa4\""), malformed },
                { DATA(",\"data\":5"), TOLD("null", "5"), malformed },
                { DATA(",\"data\":{\"a\":[ ]}"), TOLD("null", "{\"a\":[ ]}"), malformed },
                { DATA(",\"data\":\"YQ==\",\"partition_key\":null"), TOLD("null", "\"a\""), "" },
                { DATA(",\"data\":\"YQ==\",\"partition_key\":5"), TOLD("\"5\"", "\"a\""), "" },
                { DATA(",\"data\":\"YQ==\",\"timestamp\":null"), TOLD("null", "\"a\""), "" },
                { DATA(",\"data\":\"YQ==\",\"timestamp\":\"x\""), TOLD("null", "\"a\""), "" },
                { DATA(",\"data\":\"YQ==\",\"timestamp\":-5"), TOLD("null", "\"a\""), "" },
                { DATA(",\"data\":\"YQ==\",\"timestamp\":{}"), TOLD("null", "\"a\""), "" },
        };
        struct bench *b = *state;

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                BUF_AT_END struct buf seen = BUF_INIT(4096);
                struct notice notice;

                b->at.at = 7;
                assert_int_equal(read_told(b, all[i].record, &seen, &notice), 2);
                if (strcmp(seen.p, all[i].seen) != 0 || strcmp(notice.reason, all[i].told) != 0)
                        fail_msg("%s: %s, %s", all[i].record, seen.p, notice.reason);
                assert_int_equal(notice.times, *all[i].told ? 1 : 0);
                assert_int_equal(notice.lost, 0);
                assert_int_equal(b->at.at, 9);
        }
}

/* The response is retried once, since it may have been damaged on the way; then the record is skipped. */
static void a_record_without_a_number_is_passed_over_the_second_time(void **state)
{
        static const char *const all[] = { "{}",
                                           "null",
                                           "5",
                                           "\"a\"",
                                           "[]",
                                           "{\"data\":\"YQ==\"}",
                                           "{\"sequence_number\":null}",
                                           "{\"sequence_number\":\"\"}",
                                           "{\"sequence_number\":true}",
                                           "{\"sequence_number\":[7]}",
                                           "{\"sequence_number\":7.5}",
                                           "{\"sequence_number\":\"x\"}",
                                           "{\"sequence_number\":\"-1\"}",
                                           "{\"sequence_number\":\"9223372036854775807\"}" };
        struct bench *b = *state;

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                BUF_AT_END struct buf seen = BUF_INIT(4096);
                struct notice notice;

                for (int is_first = 1; is_first >= 0; is_first--) {
                        cursor_drop(&b->at);
                        buf_text(&b->at.cursor, "old");
                        b->at.at = 7;
                        b->at.ahead = 8; /* the second check, for gaps, has passed */
                        if (read_told(b, all[i], &seen, &notice) != (is_first ? -1 : 1))
                                fail_msg("%s", all[i]);
                        assert_int_equal(b->at.at, is_first ? 7 : 9);
                        assert_int_equal(b->at.cursor.n, is_first ? 0 : 1);
                        assert_string_equal(notice.reason, is_first ? "" : "RecordsUnnumbered");
                        assert_int_equal(notice.lost, is_first ? 0 : 1);
                }
        }
}

/* Handles n empty responses, one each second. */
static void empty_answers(struct bench *b, int n, usec *now)
{
        static const char none[] = "{\"records\":[],\"next_partition_cursor\":\"c\"}";
        struct reader *reader = b->d.poller.reader;
        struct pull_event event;
        struct reader_job job;
        struct error err;

        for (int i = 0; i < n; i++, *now += USEC_SEC) {
                for (int turns = 0; !reader_next(reader, *now, &job); turns++) {
                        assert_in_range(turns, 0, 2);
                        while (reader_poll(reader, &event, 1, *now))
                                if (event.kind == PULL_ASSIGNED)
                                        reader_credit(reader, event.track, 10, 1 << 20);
                }
                assert_int_equal(job.kind, READER_FETCH);
                b->at.for_records = true;
                assert_int_equal(dis_ops.answered(&b->d.poller, &job, str_of(none), &err), POLLER_DONE);
                reader_done(reader, &job, STR(""), *now);
        }
}

/* A record that is too large can't be told from other causes of empty responses. */
static void what_does_not_come_is_said_and_no_failure(void **state)
{
        const struct reader_config config = { .page_bytes = 1 << 20, .poll_min = 1, .poll_max = 1 };
        struct bench *b = *state;
        usec now = 1;
        struct set_clock set = { .monotonic = USEC_HOUR, .wall = 1700000000 * USEC_SEC };
        const struct clock clock = SET_CLOCK(&set);
        struct reader *reader;
        struct notice notice;
        struct error err;

        b->services.clock = &clock;
        assert_int_equal(reader_new(&reader, &config, 1, &err), 0);
        assert_int_equal(reader_add(reader, STR("0"), &b->at, &b->at.track, &err), 0);
        b->d.poller.reader = reader;
        b->at.at = 7;
        b->at.newest = 30; /* in a list older than the last record: it may describe another stream */
        b->at.described_at = USEC_HOUR - 1;
        empty_answers(b, 9, &now);
        assert_false(reader_warned(reader, &notice));
        b->at.described_at = USEC_HOUR + USEC_SEC;
        b->at.newest = 7; /* there is nothing */
        empty_answers(b, 9, &now);
        assert_false(reader_warned(reader, &notice));
        b->at.newest = 9;
        empty_answers(b, 2, &now);
        assert_false(reader_warned(reader, &notice));
        empty_answers(b, 9, &now);
        assert_true(reader_warned(reader, &notice));
        assert_string_equal(notice.reason, "RecordsHeldUp");
        assert_int_equal(notice.times, 1);
        assert_string_equal(
                notice.text,
                "nothing of partition shardId-0000000000 came since 2023-11-14T22:13:20Z, although "
                "the list names records up to 8: perhaps one is larger than maxFetchBytes (1024); "
                "then raise it");
        assert_ptr_equal(b->d.held, &b->at);
        /* A record arrives: it is over. */
        assert_int_equal(fetch(b, "{\"records\":[{\"data\":\"YQ==\",\"sequence_number\":\"7\"}],"
                                  "\"next_partition_cursor\":\"next\"}"),
                         1);
        assert_null(b->d.held);
        assert_false(b->at.held_up);
        (void)reader_free(reader);
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
        static const struct {
                const char *text;
                bool is_string;
                const char *name; /* NULL: it is none */
        } names[] = {
                { "3", false, "shardId-0000000003" },
                { "3", true, "shardId-0000000003" },
                { "shardId-0000000003", true, "shardId-0000000003" },
                { "shardId\\u002d0000000003", true, "shardId-0000000003" },
                { "0123456789012345678901234567890123456789012345678901234567890abc", true,
                  "0123456789012345678901234567890123456789012345678901234567890abc" },
                { "0123456789012345678901234567890123456789012345678901234567890abcd", true, NULL },
                { "-3", false, NULL },
                { "-3", true, "-3" },
                { "1.5", false, NULL },
                { "null", false, NULL },
                { "{}", false, NULL },
                { "", true, NULL },
                { "a/b", true, NULL },
                { "a\\u0000b", true, NULL },
        };
        char name[DIS_NAME_MOST + 1];

        for (size_t i = 0; i < COUNT_OF(ranges); i++) {
                const struct json_value range = { str_of(ranges[i].text ? ranges[i].text : "null"),
                                                  .is_string = ranges[i].text };
                int64_t oldest = 0, newest = 0;

                assert_int_equal(read_range(range, &oldest, &newest), ranges[i].good);
                assert_int_equal(oldest, ranges[i].oldest);
                assert_int_equal(newest, ranges[i].newest);
        }
        for (size_t i = 0; i < COUNT_OF(names); i++) {
                const struct json_value id = { str_of(names[i].text), names[i].is_string,
                                               strchr(names[i].text, '\\') };

                assert_int_equal(dis_read_name(id, name), names[i].name != NULL);
                if (names[i].name)
                        assert_string_equal(name, names[i].name);
        }
        assert_false(dis_read_name((struct json_value){ 0 }, name));
}

static enum poller_step load_of(struct bench *b, struct partition *at, const char *body, const char *mark)
{
        struct reader_job job = { .kind = READER_LOAD, .own = at };
        struct error err = { 0 };
        enum poller_step step;

        buf_reset(&b->d.poller.mark);
        step = answered(&b->d.poller, &job, str_of(body), &err);
        assert_string_equal(b->d.poller.mark.n ? b->d.poller.mark.p : "", mark);
        buf_done(&b->d.poller.mark);
        return step;
}

static enum poller_step load(struct bench *b, const char *body, const char *mark)
{
        return load_of(b, &b->at, body, mark);
}

static void a_partition_without_a_checkpoint_begins_as_told(void **state)
{
        struct bench *b = *state;

        spec.start = DIS_LATEST;
        assert_int_equal(load(b, "{\"sequence_number\":\"12\"}", "12"), POLLER_DONE);
        assert_int_equal(load(b, "{\"sequence_number\":9007199254740993}", "9007199254740993"), POLLER_DONE);
        assert_int_equal(load(b, "{\"sequence_number\":\"-1\"}", ""), POLLER_DONE); /* a new one */
        assert_int_equal(load(b, "{\"sequence_number\":\"\"}", ""), POLLER_DONE);
        assert_int_equal(load(b, "{\"sequence_number\":null}", ""), POLLER_DONE);
        assert_int_equal(load(b, "{\"sequence_number\":\"12\"", ""), POLLER_FAILED);
        spec.start = DIS_AT_SEQUENCE_NUMBER;
        spec.start_sequence = 9;
        assert_int_equal(load(b, "{}", "9"), POLLER_DONE);
        b->at.late = true;
        assert_int_equal(load(b, "{}", ""), POLLER_DONE);
        b->at.late = false;
        spec.start = DIS_AT_TIMESTAMP;
        spec.start_sequence = -1;
        assert_int_equal(load(b, "{}", ""), POLLER_DONE);
        assert_true(b->at.by_time);
        spec.start = DIS_TRIM_HORIZON;
        assert_int_equal(load(b, "{}", ""), POLLER_DONE);
        assert_false(b->at.by_time);
}

/* ---- the first start ---------------------------------------------------- */

#define PARTITION(id, status, range)                                                                         \
        "{\"partition_id\":\"" id "\",\"status\":\"" status "\",\"sequence_number_range\":\"" range "\"}"
#define LIST                                                                                                 \
        "{\"partitions\":[" PARTITION("0", "ACTIVE", "[0 : 7]") "," PARTITION(                               \
                "1", "ACTIVE", "[2 : 9]") "," PARTITION("2", "EXPIRED",                                      \
                                                        "[0 : 0]") "," PARTITION("3", "DELETED",             \
                                                                                 "[1 : 4]") "]}"
#define STATES(a, b)                                                                                         \
        "{\"partition_consuming_states\":[{\"partition_id\":0,\"sequence_number\":" a                        \
        "},{\"partition_id\":\"shardId-0000000001\",\"sequence_number\":\"" b "\"}]}"

/* One step of a conversation: what the request must contain, and the response, or the code of a refusal. */
struct exchange {
        const char *asked, *answer, *code;
};

static enum poller_step talk(struct bench *b, const struct exchange *e, size_t n)
{
        enum poller_step step = POLLER_AGAIN;

        for (size_t i = 0; i < n; i++) {
                struct cloud_request q = {
                        .path.max = 4096, .query.max = 4096, .body.max = 4096, .what.max = 4096
                };
                BUF_AT_END struct buf all = BUF_INIT(16384);
                struct cloud_error refusal = { 0 };
                struct error err = { 0 };

                assert_int_equal(step, POLLER_AGAIN);
                dis_discover(&b->d.poller, &q);
                buf_printf(&all, "%s %s?%s %s", q.method ? q.method : "GET", q.path.p,
                           q.query.n ? q.query.p : "", q.body.n ? q.body.p : "");
                if (!strstr(all.p, e[i].asked))
                        fail_msg("step %zu: %s instead of %s", i, all.p, e[i].asked);
                (void)snprintf(refusal.code, sizeof(refusal.code), "%s", e[i].code ? e[i].code : "");
                step = e[i].code ? dis_discover_refused(&b->d.poller, &refusal, &err)
                                 : dis_discovered(&b->d.poller, str_of(e[i].answer), &err);
                buf_done(&q.path);
                buf_done(&q.query);
                buf_done(&q.body);
                buf_done(&q.what);
        }
        return step;
}

static uint32_t tracks(const struct bench *b)
{
        struct reader_stats stats;

        reader_stats(b->d.poller.reader, &stats);
        return stats.tracks;
}

static void open_first(struct bench *b)
{
        const struct reader_config config = { .page_bytes = 1024 };
        struct error err;

        spec.start = DIS_LATEST;
        buf_text(&b->d.app, "app");
        assert_int_equal(reader_new(&b->d.poller.reader, &config, 1, &err), 0);
}

static void close_first(struct bench *b)
{
        struct partition *at, *next;

        HASH_ITER(hh, b->d.partitions, at, next)
        {
                HASH_DEL(b->d.partitions, at);
                buf_done(&at->cursor);
                free(at);
        }
        b->d.poller.reader = reader_free(b->d.poller.reader);
        spec.start = DIS_TRIM_HORIZON;
}

static void lists_are_read_as_they_come(void **state)
{
        static const struct {
                const char *answer;
                enum poller_step step;
                uint32_t tracks;
        } all[] = {
                { "{\"partitions\":[]}", POLLER_DONE, 0 },
                { "{\"partitions\":null}", POLLER_FAILED, 0 },
                { "{\"partitions\":{}}", POLLER_FAILED, 0 },
                { "{}", POLLER_FAILED, 0 },
                { "[]", POLLER_FAILED, 0 },
                { "{\"partitions\":[" PARTITION("9", "ACTIVE", "[0 : 7]") "]", POLLER_FAILED, 0 },
                { "{\"partitions\":[{\"status\":\"ACTIVE\"}]}", POLLER_FAILED, 0 },
                { "{\"partitions\":[{\"partition_id\":\"4\"}]}", POLLER_FAILED, 0 },
                { "{\"partitions\":[" PARTITION("1", "ACTIVE", "[0 : 7]") "],\"has_more_partitions\":true}",
                  POLLER_AGAIN, 0 },
                { "{\"stream_name\":\"x\",\"partitions\":[{\"partition_id\":2,\"status\":\"ACTIVE\",\"new\":["
                  "{}],"
                  "\"sequence_number_range\":null,\"parent_partitions\":null}],\"has_more_partitions\":"
                  "\"true\"}",
                  POLLER_DONE, 2 },
        };
        struct bench *b = *state;

        open_first(b);
        spec.start = DIS_TRIM_HORIZON;
        for (size_t i = 0; i < COUNT_OF(all); i++) {
                const struct exchange e = { i == COUNT_OF(all) - 1 ? "start_partitionId=shardId-0000000001"
                                                                   : "dis-swtest?limit_partitions",
                                            all[i].answer, NULL };

                if (talk(b, &e, 1) != all[i].step)
                        fail_msg("%s", all[i].answer);
                assert_int_equal(tracks(b), all[i].tracks);
        }
        close_first(b);
}

/* Reads a list, one second later. */
static void list_at_once(struct bench *b, struct set_clock *set, const char *answer)
{
        const struct exchange e = { "dis-swtest?limit_partitions", answer, NULL };

        set_clock_pass(set, USEC_SEC);
        assert_int_equal(talk(b, &e, 1), POLLER_DONE);
}

/* Checks the next FETCH request by its query or body, and the warning given with it. NULL: none; "": any. */
static void ask_of(struct bench *b, struct partition *at, const char *mark, const char *asked,
                   const char *warning)
{
        struct reader_job job = { .kind = READER_FETCH, .own = at, .mark = str_of(mark) };
        struct cloud_request q = { .path.max = 4096, .query.max = 4096, .body.max = 4096, .what.max = 4096 };
        const struct buf *said;
        struct notice notice;

        dis_ops.ask(&b->d.poller, &job, &q);
        said = q.body.n ? &q.body : &q.query;
        if (!strstr(said->p, asked))
                fail_msg("%s instead of %s", said->p, asked);
        assert_int_equal(reader_warned(b->d.poller.reader, &notice), warning != NULL);
        if (warning) {
                assert_string_equal(notice.reason, "PositionOutOfRange");
                if (*warning)
                        assert_string_equal(notice.text, warning);
        }
        buf_done(&q.path);
        buf_done(&q.query);
        buf_done(&q.body);
        buf_done(&q.what);
}

#define ONE(range) "{\"partitions\":[" PARTITION("0", "ACTIVE", range) "]}"
#define RECORD(number)                                                                                       \
        "{\"records\":[{\"data\":\"YQ==\",\"sequence_number\":\"" number                                     \
        "\"}],\"next_partition_cursor\":\"old\"}"
static void a_position_beyond_the_end_is_left_once_two_lists_say_so(void **state)
{
        static const char cursor[] = "cursor-type=AT_SEQUENCE_NUMBER", records[] = "partition-cursor=old";
        struct bench *b = *state;
        struct set_clock set = { .monotonic = USEC_HOUR };
        const struct clock clock = SET_CLOCK(&set);
        struct partition *at;

        b->services.clock = &clock;
        open_first(b);
        spec.start = DIS_TRIM_HORIZON;
        list_at_once(b, &set, ONE("[0 : 7]"));
        at = b->d.partitions;
        assert_int_equal(load_of(b, at, "{\"sequence_number\":\"19\"}", "19"), POLLER_DONE);
        /* the list is older than the position: list again at once */
        assert_int_equal(b->d.poller.discover_by, set.monotonic);
        assert_int_equal(at->beyond, 0);
        ask_of(b, at, "19", cursor, NULL);
        assert_int_equal(fetch_of(b, at, RECORD("19")), 1);
        ask_of(b, at, "20", records, NULL);
        /* a list that was requested before that record was read */
        b->d.poller.discover_by = 0;
        set.monotonic -= 2 * USEC_SEC;
        list_at_once(b, &set, ONE("[0 : 7]"));
        set.monotonic += 2 * USEC_SEC;
        assert_int_equal(at->beyond, 0);
        assert_int_equal(b->d.poller.discover_by, 0);
        assert_int_equal(reader_lag(b->d.poller.reader), 0);
        /* a single list: it may come from a lagging replica */
        list_at_once(b, &set, ONE("[0 : 7]"));
        assert_int_equal(b->d.poller.discover_by, set.monotonic + 2 * USEC_SEC);
        assert_int_equal(reader_lag(b->d.poller.reader), 7);
        ask_of(b, at, "20", records, NULL);
        list_at_once(b, &set, ONE("[0 : 20]"));
        list_at_once(b, &set, ONE("[0 : 7]"));
        ask_of(b, at, "20", records, NULL);
        /* two lists, but a record arrived between them */
        assert_int_equal(fetch_of(b, at, RECORD("20")), 1);
        list_at_once(b, &set, ONE("[0 : 7]"));
        ask_of(b, at, "21", records, NULL);
        /* two in a row; a response that was still in flight brings the old cursor */
        list_at_once(b, &set, ONE("[2 : 7]"));
        assert_int_equal(fetch_of(b, at, "{\"records\":[],\"next_partition_cursor\":\"old\"}"), 0);
        ask_of(b, at, "21", "cursor-type=TRIM_HORIZON",
               "partition shardId-0000000000 goes on at its oldest record: its position 21 lies beyond the "
               "end of the stream, 7, which was probably deleted and made again");
        assert_int_equal(reader_lag(b->d.poller.reader), 5);
        list_at_once(b, &set, ONE("[2 : 7]"));
        assert_int_equal(fetch_of(b, at, RECORD("2")), 1);
        assert_int_equal(at->at, 3);
        ask_of(b, at, "3", records, NULL);
        list_at_once(b, &set, "{\"partitions\":[{\"partition_id\":\"0\",\"status\":\"ACTIVE\"}]}");
        list_at_once(b, &set, "{\"partitions\":[{\"partition_id\":\"0\",\"status\":\"ACTIVE\"}]}");
        ask_of(b, at, "3", records, NULL); /* a missing range says nothing about the end */
        close_first(b);
}

/* Checks the checkpoint that is saved for a mark. */
static void expect_saved(struct bench *b, struct partition *at, const char *mark, const char *number,
                         const char *metadata)
{
        struct reader_job job = { .kind = READER_SAVE, .own = at, .mark = str_of(mark) };
        struct cloud_request q = { .path.max = 4096, .query.max = 4096, .body.max = 4096, .what.max = 4096 };
        JSON_AT_END json_t *body = NULL;

        dis_ops.ask(&b->d.poller, &job, &q);
        body = json_loadb(q.body.p, q.body.n, 0, NULL);
        assert_string_equal(json_string_value(json_object_get(body, "sequence_number")), number);
        assert_string_equal(json_string_value(json_object_get(body, "metadata")), metadata);
        buf_done(&q.path);
        buf_done(&q.query);
        buf_done(&q.body);
        buf_done(&q.what);
}

#define SAYS_AGAIN(time) "\"sequence_number\":\"0\",\"metadata\":\"created=" time " again\""

/* The stream was recreated: that is saved first, then it is read from its oldest record. */
static void expect_left(struct bench *b, struct partition *at, const char *mark, const char *saved,
                        const char *warning)
{
        ask_of(b, at, mark, saved, warning);
        ask_of(b, at, mark, saved, NULL); /* there was no response: ask again */
        assert_int_equal(fetch_of(b, at, ""), 0);
        ask_of(b, at, mark, "cursor-type=TRIM_HORIZON", NULL);
}

static char mark_seen[64], id_seen[64];

/* Reads a response, and returns the mark of its first record; id_seen gets the id. */
static const char *mark_of(struct bench *b, struct partition *at, const char *body)
{
        struct reader_job job = { .kind = READER_FETCH, .own = at, .name = STR("0") };
        struct record *r;
        struct error err;

        job.page = poller_sample_begin(&(const struct node){ 0 }, "", &err);
        assert_non_null(job.page);
        at->for_records = true;
        assert_int_equal(dis_ops.answered(&b->d.poller, &job, str_of(body), &err), POLLER_DONE);
        assert_non_null(job.page->first);
        (void)snprintf(mark_seen, sizeof(mark_seen), STR_FMT, STR_ARG(job.page->first->mark));
        (void)snprintf(id_seen, sizeof(id_seen), STR_FMT, STR_ARG(job.page->first->record.id));
        assert_int_equal(poller_sample_end(job.page, 0, &r, &err), 0);
        poller_sample_free(r);
        return mark_seen;
}

#define MADE_AT(time, range)                                                                                 \
        "{\"partitions\":[" PARTITION("0", "ACTIVE", range) "," PARTITION("1", "DELETED",                    \
                                                                          range) "],"                        \
                                                                                 "\"create_time\":" time "}"
#define OLD "1767225600000"
#define NEW "1767225660500"
static const char anew[] = "partition shardId-0000000000 goes on at its oldest record: its position 20 is of "
                           "the stream that was created at 2026-01-01T00:00:00Z; that was deleted, and made "
                           "again at 2026-01-01T00:01:00.5Z";

static struct set_clock made_set;
static const struct clock made_clock = SET_CLOCK(&made_set);

static struct partition *open_made(struct bench *b, const char *list)
{
        made_set.monotonic = USEC_HOUR;
        b->services.clock = &made_clock;
        b->d.told_created = b->d.created = 0;
        open_first(b);
        spec.start = DIS_TRIM_HORIZON;
        list_at_once(b, &made_set, list);
        return b->d.partitions;
}

static struct partition *open_made_twice(struct bench *b, const char *list)
{
        struct partition *at = open_made(b, list);

        list_at_once(b, &made_set, list);
        return at;
}

/* The new stream has a record of that number, and more after it. */
static void a_position_in_another_stream_is_left(void **state)
{
        static const char at_number[] = "AT_SEQUENCE_NUMBER&starting-sequence-number=20",
                          oldest[] = "cursor-type=TRIM_HORIZON";
        struct bench *b = *state;
        struct partition *at;

        at = open_made_twice(b, MADE_AT(OLD, "[0 : 20]"));
        assert_int_equal(
                load_of(b, at, "{\"sequence_number\":\"20\",\"metadata\":\"created=" OLD "\"}", "20"),
                POLLER_DONE);
        ask_of(b, at, "20", at_number, NULL);
        list_at_once(b, &made_set, MADE_AT(OLD, "[0 : 90]"));
        ask_of(b, at, "20", at_number, NULL);
        b->d.poller.discover_by = 0;
        list_at_once(b, &made_set, MADE_AT(NEW, "[0 : 90]"));
        assert_int_equal(b->d.poller.discover_by, made_set.monotonic + 2 * USEC_SEC);
        ask_of(b, at, "20", at_number, NULL);
        list_at_once(b, &made_set, MADE_AT(NEW, "[0 : 90]"));
        assert_int_equal(reader_lag(b->d.poller.reader), 2 * 90);
        expect_left(b, at, "20", SAYS_AGAIN(NEW), anew);
        /* No record has arrived yet. Records of the old stream are still saved with its creation time. */
        assert_int_equal(fetch_of(b, at, "{\"records\":[],\"next_partition_cursor\":\"old\"}"), 0);
        ask_of(b, at, "20", "partition-cursor=old", NULL);
        expect_saved(b, at, "20", "20", "created=" OLD);
        assert_string_equal(mark_of(b, at, RECORD("0")), "1/" NEW);
        ask_of(b, at, "1/" NEW, "partition-cursor=old", NULL);
        expect_saved(b, at, "1/" NEW, "1", "created=" NEW " again");
        /* The response was dropped, so the job still has the old mark. */
        ask_of(b, at, "20", oldest, NULL);
        list_at_once(b, &made_set, MADE_AT(NEW, "[0 : 90]"));
        cursor_drop(at);
        ask_of(b, at, "1/" NEW, "AT_SEQUENCE_NUMBER&starting-sequence-number=1", NULL);
        close_first(b);
}

static void a_checkpoint_says_which_stream_it_is_of(void **state)
{
        static const struct {
                const char *listed, *saved, *why, *metadata;
                const char *described; /* a second description, requested before anything is read */
        } all[] = {
                { MADE_AT(OLD, "[0 : 90]"), "created=" OLD, NULL, "created=" OLD, NULL },
                { MADE_AT(NEW, "[0 : 90]"), "created=" OLD, anew, "created=" OLD, MADE_AT(NEW, "[0 : 90]") },
                { MADE_AT(NEW, "[0 : 90]"), "first start created=" OLD, anew, "created=" OLD,
                  MADE_AT(NEW, "[0 : 90]") },
                { MADE_AT("\"" NEW "\"", "[0 : 90]"), "created=" OLD, anew, "created=" OLD,
                  MADE_AT(NEW, "[0 : 90]") },
                /* the list is older than the checkpoint */
                { MADE_AT(OLD, "[0 : 90]"), "created=" NEW, NULL, "created=" NEW, MADE_AT(NEW, "[0 : 90]") },
                /* saved by an earlier version, or by another client */
                { MADE_AT(NEW, "[0 : 90]"), "", NULL, "created=" NEW, NULL },
                { MADE_AT(NEW, "[0 : 90]"), "first start", NULL, "created=" NEW, NULL },
                { MADE_AT(NEW, "[0 : 90]"), "created=x", NULL, "created=" NEW, NULL },
                { MADE_AT("null", "[0 : 90]"), "created=" OLD, NULL, "created=" OLD, NULL },
                { MADE_AT("null", "[0 : 90]"), "", NULL, "", NULL },
        };
        struct bench *b = *state;

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                BUF_AT_END struct buf answer = BUF_INIT(4096);
                struct partition *at = open_made(b, all[i].listed);

                buf_printf(&answer, "{\"metadata\":\"%s\",\"sequence_number\":\"20\"}", all[i].saved);
                if (all[i].described) {
                        assert_int_equal(load_of(b, at, answer.p, ""), POLLER_AGAIN);
                        assert_int_equal(load_of(b, at, all[i].described, "20"), POLLER_DONE);
                } else
                        assert_int_equal(load_of(b, at, answer.p, "20"), POLLER_DONE);
                list_at_once(b, &made_set, all[i].described ? all[i].described : all[i].listed);
                if (all[i].why)
                        expect_left(b, at, "20", SAYS_AGAIN(NEW), all[i].why);
                else
                        ask_of(b, at, "20", "AT_SEQUENCE_NUMBER", NULL);
                expect_saved(b, at, "20", "20", all[i].metadata);
                close_first(b);
        }
}

/* Single ones may come from lagging replicas, or from a service that answers "now" each time. */
static void another_time_is_believed_if_it_comes_twice(void **state)
{
        struct bench *b = *state;
        struct partition *at;

        at = open_made_twice(b, MADE_AT(NEW, "[0 : 20]"));
        assert_int_equal(load_of(b, at, "{\"sequence_number\":\"20\"}", "20"), POLLER_DONE);
        for (int i = 0; i < 4; i++) {
                b->d.poller.discover_by = 0;
                list_at_once(b, &made_set, i % 2 ? MADE_AT(NEW, "[0 : 20]") : MADE_AT(OLD, "[0 : 90]"));
                assert_int_equal(b->d.poller.discover_by, i < 2 ? made_set.monotonic + 2 * USEC_SEC : 0);
                ask_of(b, at, "20", "starting-sequence-number=20", NULL);
        }
        list_at_once(b, &made_set, MADE_AT(OLD, "[0 : 90]"));
        list_at_once(b, &made_set, MADE_AT(OLD, "[0 : 90]"));
        expect_left(b, at, "20", SAYS_AGAIN(OLD),
                    "partition shardId-0000000000 goes on at its oldest record: its position 20 is of the "
                    "stream that was created at 2026-01-01T00:01:00.5Z; that was deleted, and made again at "
                    "2026-01-01T00:00:00Z");
        close_first(b);
}

#define ID(stream) stream "/shardId-0000000000/20"

/* Any worker gives the same ids, since they depend on the checkpoint only. */
static void records_of_a_stream_that_was_made_again_have_other_ids(void **state)
{
        static const struct {
                const char *listed, *saved, *mark, *next, *id;
        } all[] = {
                { MADE_AT(NEW, "[0 : 90]"), "created=" NEW, "21", "created=" NEW, ID("dis-swtest") },
                { MADE_AT(NEW, "[0 : 90]"), "", "21", "created=" NEW, ID("dis-swtest") },
                { MADE_AT(NEW, "[0 : 90]"), "created=" NEW " again", "21", "created=" NEW " again",
                  ID("dis-swtest@" NEW) },
                { MADE_AT("null", "[0 : 90]"), "created=" NEW " again", "21", "created=" NEW " again",
                  ID("dis-swtest@" NEW) },
                { MADE_AT(NEW, "[0 : 90]"), "created=x again", "21", "created=" NEW, ID("dis-swtest") },
                { MADE_AT(NEW, "[0 : 90]"), "created=" NEW " once", "21", "created=" NEW, ID("dis-swtest") },
        };
        struct bench *b = *state;

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                BUF_AT_END struct buf answer = BUF_INIT(4096);
                struct partition *at = open_made_twice(b, all[i].listed);

                buf_printf(&answer, "{\"metadata\":\"%s\",\"sequence_number\":\"20\"}", all[i].saved);
                assert_int_equal(load_of(b, at, answer.p, "20"), POLLER_DONE);
                assert_string_equal(mark_of(b, at, RECORD("20")), all[i].mark);
                assert_string_equal(id_seen, all[i].id);
                expect_saved(b, at, all[i].mark, "21", all[i].next);
                close_first(b);
        }
}

static struct partition *made_and_read(struct bench *b)
{
        struct partition *at = open_made_twice(b, MADE_AT(OLD, "[0 : 90]"));

        assert_int_equal(
                load_of(b, at, "{\"sequence_number\":\"20\",\"metadata\":\"created=" OLD "\"}", "20"),
                POLLER_DONE);
        assert_string_equal(mark_of(b, at, RECORD("20")), "21");
        assert_string_equal(id_seen, ID("dis-swtest"));
        return at;
}

static void made_again(struct bench *b, const char *list)
{
        list_at_once(b, &made_set, list);
        list_at_once(b, &made_set, list);
}

#define NEWER "1767225720000"

/* Each new stream has its own ids, even if nothing was read of the one between. */
static void a_stream_may_be_made_again_twice(void **state)
{
        struct bench *b = *state;

        for (int is_read = 0; is_read < 2; is_read++) {
                struct partition *at = made_and_read(b);
                struct notice notice;

                made_again(b, MADE_AT(NEW, "[0 : 90]"));
                ask_of(b, at, "21", SAYS_AGAIN(NEW), "");
                assert_int_equal(fetch_of(b, at, ""), 0);
                if (is_read) {
                        assert_string_equal(mark_of(b, at, RECORD("20")), "21/" NEW);
                        assert_string_equal(id_seen, ID("dis-swtest@" NEW));
                }
                made_again(b, MADE_AT(NEWER, "[0 : 90]"));
                ask_of(b, at, is_read ? "21/" NEW : "21", SAYS_AGAIN(NEWER), is_read ? "" : NULL);
                assert_int_equal(fetch_of(b, at, ""), 0);
                assert_string_equal(mark_of(b, at, RECORD("20")), "21/" NEWER);
                assert_string_equal(id_seen, ID("dis-swtest@" NEWER));
                /* records of the first stream still in flight are saved with its creation time */
                expect_saved(b, at, "21", "21", "created=" OLD);
                assert_false(reader_warned(b->d.poller.reader, &notice));
                close_first(b);
        }
}

/* Without a position nothing was read, so no id can repeat. */
static void a_stream_that_was_not_read_before_was_not_made_again(void **state)
{
        struct bench *b = *state;
        struct partition *at = open_made_twice(b, MADE_AT(OLD, "[0 : 90]"));

        assert_int_equal(load_of(b, at, "{\"sequence_number\":\"-1\"}", ""), POLLER_DONE);
        made_again(b, MADE_AT(NEW, "[0 : 90]"));
        ask_of(b, at, "", "TRIM_HORIZON", NULL);
        assert_string_equal(mark_of(b, at, RECORD("20")), "21");
        assert_string_equal(id_seen, ID("dis-swtest"));
        expect_saved(b, at, "21", "21", "created=" NEW);
        close_first(b);
}

/* If the service refuses this checkpoint for good, reading goes on; other failures are retried. */
static void a_checkpoint_that_is_not_taken_holds_nothing_up(void **state)
{
        static const struct {
                const char *code;
                enum cloud_verdict verdict;
                enum poller_step step;
        } all[] = {
                { "DIS.4224", CLOUD_FINAL, POLLER_AGAIN },     { "DIS.4332", CLOUD_FINAL, POLLER_AGAIN },
                { "DIS.4319", CLOUD_GONE, POLLER_AGAIN },      { "DIS.5000", CLOUD_RETRY, POLLER_FAILED },
                { "DIS.4303", CLOUD_THROTTLE, POLLER_FAILED }, { "DIS.4116", CLOUD_FORBIDDEN, POLLER_FAILED },
        };
        struct bench *b = *state;

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                struct partition *at = made_and_read(b);
                struct reader_job job = { .kind = READER_FETCH, .own = at, .mark = STR("21") };
                struct cloud_error refusal = { .verdict = all[i].verdict };
                struct error err;

                (void)snprintf(refusal.code, sizeof(refusal.code), "%s", all[i].code);
                made_again(b, MADE_AT(NEW, "[0 : 90]"));
                ask_of(b, at, "21", SAYS_AGAIN(NEW), "");
                assert_int_equal(dis_ops.refused(&b->d.poller, &job, &refusal, &err), all[i].step);
                ask_of(b, at, "21",
                       all[i].step == POLLER_AGAIN ? "cursor-type=TRIM_HORIZON" : SAYS_AGAIN(NEW), NULL);
                close_first(b);
        }
}

/* Until two descriptions agree, the position stays valid, and keeps the time saved with it. */
static void a_time_that_changes_each_time_is_none(void **state)
{
        struct bench *b = *state;
        struct partition *at = open_made(b, MADE_AT("5", "[0 : 90]"));

        assert_int_equal(load_of(b, at, "{\"sequence_number\":\"20\",\"metadata\":\"created=4\"}", ""),
                         POLLER_AGAIN);
        assert_int_equal(load_of(b, at, "{\"create_time\":6}", "20"), POLLER_DONE);
        list_at_once(b, &made_set, MADE_AT("7", "[0 : 90]"));
        ask_of(b, at, "20", "starting-sequence-number=20", NULL);
        expect_saved(b, at, "20", "20", "created=4");
        close_first(b);
}

/* Neither by a partition without a position, nor by a closed one that was read to its end. */
static void nothing_of_another_stream_was_read(void **state)
{
        struct bench *b = *state;
        struct partition *at, *closed;

        at = open_made_twice(b, MADE_AT(OLD, "[0 : 90]"));
        closed = at->hh.next;
        assert_int_equal(load_of(b, at, "{\"sequence_number\":\"-1\"}", ""), POLLER_DONE);
        assert_int_equal(load_of(b, closed, "{\"sequence_number\":\"90\"}", "90"), POLLER_DONE);
        buf_text(&at->cursor, "of the old one");
        assert_int_equal(fetch_of(b, closed, "{\"records\":[],\"next_partition_cursor\":null}"), 0);
        assert_int_equal(closed->end, 90);
        dis_ops.left(&b->d.poller, closed);
        list_at_once(b, &made_set, MADE_AT(OLD, "[0 : 90]"));
        assert_false(closed->found);
        list_at_once(b, &made_set, MADE_AT(NEW, "[0 : 60]"));
        list_at_once(b, &made_set, MADE_AT(NEW, "[0 : 60]"));
        assert_int_equal(closed->end, -1);
        assert_true(closed->late); /* read from its beginning, whatever startPosition says */
        ask_of(b, at, "", "TRIM_HORIZON", NULL);
        close_first(b);
}

static void an_app_may_have_no_states(void **state)
{
        static const struct exchange conversation[] = {
                { "/streams/dis-swtest?", LIST, NULL },
                { "/apps/app/streams/dis-swtest?", "{\"has_more\":false,\"partition_consuming_states\":null}",
                  NULL },
                { "\"sequence_number\":\"9\"", "", NULL },
        };
        struct bench *b = *state;

        open_first(b);
        assert_int_equal(talk(b, conversation, COUNT_OF(conversation)), POLLER_AGAIN);
        close_first(b);
}

#define SAVED(id, number)                                                                                    \
        "\"partition_id\":\"shardId-000000000" id "\",\"sequence_number\":\"" number                         \
        "\",\"metadata\":\"first start\""

static void the_first_start_saves_the_end_of_each_the_first_one_last(void **state)
{
        static const struct exchange conversation[] = {
                { "/streams/dis-swtest?", LIST, NULL },
                { "/apps/app/streams/dis-swtest?", "", "DIS.4332" },
                { "POST /v2/{project_id}/apps?", "", NULL },
                { SAVED("1", "9"), "", NULL },
                { SAVED("3", "4"), "", NULL },
                { SAVED("0", "7"), "", NULL },
        };
        static const struct exchange later[] = { { "/streams/dis-swtest?", LIST, NULL } };
        struct bench *b = *state;

        open_first(b);
        assert_int_equal(talk(b, conversation, COUNT_OF(conversation) - 1), POLLER_AGAIN);
        assert_int_equal(tracks(b), 0); /* nothing is read before the end of the first start */
        assert_int_equal(talk(b, conversation + COUNT_OF(conversation) - 1, 1), POLLER_DONE);
        assert_int_equal(tracks(b), 3);
        assert_int_equal(talk(b, later, 1), POLLER_DONE);
        close_first(b);
}

/* Another worker is doing it, or was killed: what it saved is kept. */
static void a_first_start_that_is_unfinished_is_finished(void **state)
{
        static const struct exchange conversation[] = {
                { "/streams/dis-swtest?", LIST, NULL },
                { "/apps/app/streams/dis-swtest?", STATES("-1", "8"), NULL },
                { "partition_id=shardId-0000000001",
                  "{\"sequence_number\":\"8\",\"metadata\":\"first start\"}", NULL },
                { SAVED("3", "4"), "", "DIS.4319" }, /* expired in the meantime */
                { SAVED("0", "7"), "", NULL },
        };
        struct bench *b = *state;

        open_first(b);
        assert_int_equal(talk(b, conversation, COUNT_OF(conversation)), POLLER_DONE);
        close_first(b);
}

static void an_app_that_has_begun_is_no_first_start(void **state)
{
        static const struct exchange ours[] = {
                { "/streams/dis-swtest?", LIST, NULL },
                { "/apps/app/streams/dis-swtest?", STATES("3", "-1"), NULL },
        };
        static const struct exchange anothers[] = {
                { "/streams/dis-swtest?", LIST, NULL },
                { "/apps/app/streams/dis-swtest?", STATES("\"-1\"", "8"), NULL },
                { "partition_id=shardId-0000000001", "{\"sequence_number\":\"8\",\"metadata\":\"\"}", NULL },
        };
        struct bench *b = *state;

        open_first(b);
        assert_int_equal(talk(b, ours, COUNT_OF(ours)), POLLER_DONE);
        assert_int_equal(tracks(b), 3);
        close_first(b);
        b->d.first = FIRST_LIST;
        b->d.listed = false;
        buf_reset(&b->d.app);
        open_first(b);
        assert_int_equal(talk(b, anothers, COUNT_OF(anothers)), POLLER_DONE);
        assert_int_equal(tracks(b), 3);
        close_first(b);
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
                cmocka_unit_test_setup_teardown(an_answer_out_of_order_is_refused, setup, teardown),
                cmocka_unit_test_setup_teardown(an_answer_from_further_on_is_not_taken_at_once, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(without_memory_no_record_becomes_another, setup, teardown),
                cmocka_unit_test_setup_teardown(records_say_what_they_say, setup, teardown),
                cmocka_unit_test(samples_are_what_the_document_says),
                cmocka_unit_test_setup_teardown(a_cursor_may_be_escaped, setup, teardown),
                cmocka_unit_test_setup_teardown(what_can_not_be_read_is_refused, setup, teardown),
                cmocka_unit_test_setup_teardown(a_malformed_record_holds_nothing_up, setup, teardown),
                cmocka_unit_test_setup_teardown(a_record_without_a_number_is_passed_over_the_second_time,
                                                setup, teardown),
                cmocka_unit_test_setup_teardown(what_does_not_come_is_said_and_no_failure, setup, teardown),
                cmocka_unit_test(ranges_and_names_are_read_as_they_come),
                cmocka_unit_test_setup_teardown(a_partition_without_a_checkpoint_begins_as_told, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(lists_are_read_as_they_come, setup, teardown),
                cmocka_unit_test_setup_teardown(a_position_beyond_the_end_is_left_once_two_lists_say_so,
                                                setup, teardown),
                cmocka_unit_test_setup_teardown(a_position_in_another_stream_is_left, setup, teardown),
                cmocka_unit_test_setup_teardown(a_checkpoint_says_which_stream_it_is_of, setup, teardown),
                cmocka_unit_test_setup_teardown(a_time_that_changes_each_time_is_none, setup, teardown),
                cmocka_unit_test_setup_teardown(another_time_is_believed_if_it_comes_twice, setup, teardown),
                cmocka_unit_test_setup_teardown(nothing_of_another_stream_was_read, setup, teardown),
                cmocka_unit_test_setup_teardown(records_of_a_stream_that_was_made_again_have_other_ids, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(a_stream_may_be_made_again_twice, setup, teardown),
                cmocka_unit_test_setup_teardown(a_stream_that_was_not_read_before_was_not_made_again, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(a_checkpoint_that_is_not_taken_holds_nothing_up, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(an_app_may_have_no_states, setup, teardown),
                cmocka_unit_test_setup_teardown(the_first_start_saves_the_end_of_each_the_first_one_last,
                                                setup, teardown),
                cmocka_unit_test_setup_teardown(a_first_start_that_is_unfinished_is_finished, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(an_app_that_has_begun_is_no_first_start, setup, teardown),
                cmocka_unit_test(the_event_is_the_golden_one),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
