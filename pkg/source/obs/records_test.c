/* Notifications of object stores: FunctionGraph's members and no others, whichever store sent them. */
#include <setjmp.h>
#include <stdarg.h>

#include "source/obs/records.h"

#include <cmocka.h>

#define TOP(version, name)                                                                                   \
        "\"eventVersion\":\"" version "\",\"eventSource\":\"aws:s3\",\"awsRegion\":\"\",\"eventTime\":"      \
        "\"2026-11-24T10:00:00.123Z\",\"eventName\":\"" name "\""
#define IDENTITY                                                                                             \
        ",\"userIdentity\":{\"principalId\":\"u\"},\"requestParameters\":{\"sourceIPAddress\":\"1.2.3.4\"}," \
        "\"responseElements\":{\"x-amz-request-id\":\"1\",\"x-amz-id-2\":\"2\"}"
#define INSIDE(bucket, object)                                                                               \
        ",\"s3\":{\"s3SchemaVersion\":\"1.0\",\"configurationId\":\"c\",\"bucket\":{\"name\":\"" bucket      \
        "\",\"ownerIdentity\":{\"PrincipalId\":\"u\"},\"arn\":\"a\"},\"object\":{" object "}}"
#define OBJECT                                                                                               \
        "\"key\":\"a+b%2Fc%zz\",\"eTag\":\"e\",\"size\":9007199254740993,\"versionId\":\"v\",\"sequencer\":" \
        "\"1\""
#define GOLDEN "{" TOP("2.0", "ObjectCreated:Put") IDENTITY INSIDE("photos", OBJECT) "}"

static struct obs_records all;

static enum obs_result parse(const char *text) { return obs_parse(str_of(text), &all); }

static void the_golden_record_stays_as_it_is(void **state UNUSED)
{
        assert_int_equal(parse("{\"Records\":[" GOLDEN "]}"), OBS_RECORDS);
        assert_int_equal(all.n, 1);
        assert_string_equal(all.list[0].json, GOLDEN);
        assert_string_equal(all.list[0].key, "a b/c%zz");
        assert_string_equal(all.list[0].bucket, "photos");
        assert_string_equal(all.list[0].event, "ObjectCreated:Put");
        assert_int_equal(all.list[0].time % USEC_SEC, 123000);
        obs_records_done(&all);
}

/* As a real server sent it. */
static void minios_record_is_brought_to_that_shape(void **state UNUSED)
{
        static const char sent[] = "{\"EventName\":\"s3:ObjectCreated:Put\",\"Key\":\"photos/a "
                                   "b\",\"Records\":[{\"eventVersion\":\"2.0\",\"eventSource\":\"minio:s3\","
                                   "\"awsRegion\":\"\",\"eventTime\":\"2026-11-24T16:19:23.076Z\","
                                   "\"eventName\":\"s3:ObjectCreated:Put\",\"userIdentity\":{\"principalId\":"
                                   "\"minioadmin\"},\"requestParameters\":{\"principalId\":\"minioadmin\","
                                   "\"region\":\"\",\"sourceIPAddress\":\"127.0.0.1\"},"
                                   "\"responseElements\":{\"x-amz-id-2\":\"2\",\"x-amz-request-id\":\"1\","
                                   "\"x-minio-deployment-id\":\"d\",\"x-minio-origin-endpoint\":\"http://"
                                   "127.0.0.1\"},\"s3\":{\"s3SchemaVersion\":\"1.0\","
                                   "\"configurationId\":\"Config\",\"bucket\":{\"name\":\"photos\","
                                   "\"ownerIdentity\":{\"principalId\":\"minioadmin\"},\"arn\":\"arn:aws:s3::"
                                   ":photos\"},\"object\":{\"key\":\"a+b\",\"size\":1,\"eTag\":\"e\","
                                   "\"contentType\":\"text/plain\",\"userMetadata\":{\"content-type\":\"text/"
                                   "plain\"},\"sequencer\":\"18\"}},\"source\":{\"host\":\"127.0.0.1\","
                                   "\"port\":\"\",\"userAgent\":\"x\"}}]}";
        static const char wanted[] =
                "{\"eventVersion\":\"2.0\",\"eventSource\":\"minio:s3\",\"awsRegion\":\"\",\"eventTime\":"
                "\"2026-11-24T16:19:23.076Z\",\"eventName\":\"ObjectCreated:Put\","
                "\"userIdentity\":{\"principalId\":\"minioadmin\"},\"requestParameters\":{"
                "\"sourceIPAddress\":\"127.0.0.1\"},\"responseElements\":{\"x-amz-request-id\":\"1\",\"x-amz-"
                "id-2\":\"2\"},"
                "\"s3\":{\"s3SchemaVersion\":\"1.0\",\"configurationId\":\"Config\",\"bucket\":{\"name\":"
                "\"photos\",\"ownerIdentity\":{\"PrincipalId\":\"minioadmin\"},\"arn\":\"arn:aws:s3:::"
                "photos\"},"
                "\"object\":{\"key\":\"a+b\",\"eTag\":\"e\",\"size\":1,\"sequencer\":\"18\"}}}";

        assert_int_equal(parse(sent), OBS_RECORDS);
        assert_string_equal(all.list[0].json, wanted);
        assert_string_equal(all.list[0].key, "a b");
        obs_records_done(&all);
}

static void an_id_is_of_what_happened(void **state UNUSED)
{
        static const char *const others[] = {
                "{\"Records\":[{" TOP("2.0", "ObjectRemoved:Delete") INSIDE("photos", OBJECT) "}]}",
                "{\"Records\":[{" TOP("2.0", "ObjectCreated:Put") INSIDE("other", OBJECT) "}]}",
                "{\"Records\":[{" TOP("2.0", "ObjectCreated:Put") INSIDE(
                        "photos", "\"key\":\"a+b%2Fc%zz\",\"versionId\":\"v\",\"sequencer\":\"2\"") "}]}",
                "{\"Records\":[{" TOP("2.0", "ObjectCreated:Put") INSIDE(
                        "photos", "\"key\":\"a+b%2Fc%zz\",\"versionId\":\"w\",\"sequencer\":\"1\"") "}]}",
                "{\"Records\":[{" TOP("2.0", "ObjectCreated:Put")
                        INSIDE("photos", "\"key\":\"b\",\"versionId\":\"v\",\"sequencer\":\"1\"") "}]}",
        };
        char id[33];

        assert_int_equal(parse("{\"Records\":[" GOLDEN "]}"), OBS_RECORDS);
        memcpy(id, all.list[0].id, sizeof(id));
        obs_records_done(&all);
        assert_int_equal(
                parse("{\"Records\":[{" TOP("2.0", "s3:ObjectCreated:Put") INSIDE("photos", OBJECT) "}]}"),
                OBS_RECORDS);
        assert_string_equal(all.list[0].id, id);
        obs_records_done(&all);
        for (size_t i = 0; i < COUNT_OF(others); i++) {
                assert_int_equal(parse(others[i]), OBS_RECORDS);
                assert_string_not_equal(all.list[0].id, id);
                obs_records_done(&all);
        }
}

/* S3 tells the second alone, and some stores no order. */
static void changes_within_a_second_are_told_apart(void **state UNUSED)
{
        static const char *const objects[] = { "\"key\":\"k\",\"eTag\":\"e1\"",
                                               "\"key\":\"k\",\"eTag\":\"e2\"", "\"key\":\"k\"",
                                               "\"key\":\"k\",\"sequencer\":\"e1\"",
                                               "\"key\":\"k\",\"versionId\":\"e1\"" };
        char ids[COUNT_OF(objects)][33];

        for (size_t i = 0; i < COUNT_OF(objects); i++) {
                BUF_AT_END struct buf text = BUF_INIT(65536);

                buf_printf(
                        &text,
                        "{\"Records\":[{" TOP("2.0", "ObjectCreated:Put") ",\"s3\":{\"bucket\":{\"name\":"
                                                                          "\"photos\"},\"object\":{%s}}}]}",
                        objects[i]);
                assert_int_equal(obs_parse(buf_view(&text), &all), OBS_RECORDS);
                memcpy(ids[i], all.list[0].id, sizeof(ids[i]));
                obs_records_done(&all);
                for (size_t k = 0; k < i; k++)
                        assert_string_not_equal(ids[i], ids[k]);
        }
}

static void what_is_no_notification_is_told(void **state UNUSED)
{
        static const struct {
                const char *text;
                enum obs_result result;
        } table[] = {
                ROW("{\"Service\":\"Amazon S3\",\"Event\":\"s3:TestEvent\"}", OBS_NOTHING),
                ROW("{\"Records\":[]}", OBS_NOTHING),
                ROW("{\"Records\":null}", OBS_NOTHING),
                ROW("{}", OBS_MALFORMED),
                ROW("", OBS_MALFORMED),
                ROW("[]", OBS_MALFORMED),
                ROW("null", OBS_MALFORMED),
                ROW("{\"Records\":{}}", OBS_MALFORMED),
                ROW("{\"Records\":[1]}", OBS_MALFORMED),
                ROW("{\"Records\":[" GOLDEN ",{}]}", OBS_MALFORMED),
                ROW("{\"Records\":[" GOLDEN "]", OBS_MALFORMED),
                ROW("{\"Records\":[" GOLDEN "],\"Records\":[]}", OBS_MALFORMED),
                ROW("{\"Records\":[{" TOP("2.0", "ObjectCreated:Put") "}]}", OBS_MALFORMED),
                ROW("{\"Records\":[{" TOP("2.0", "ObjectCreated:Put") INSIDE("b", "\"size\":1") "}]}",
                    OBS_MALFORMED),
        };
        static const int counts[] = { OBS_RECORDS_MOST, OBS_RECORDS_MOST + 1, 5 * OBS_RECORDS_MOST };
        BUF_AT_END struct buf many = BUF_INIT(1 << 24);

        for (size_t i = 0; i < COUNT_OF(table); i++)
                if (parse(table[i].text) != table[i].result)
                        fail_msg("%s", table[i].text);
        /* The last holds more values than are built of any. */
        for (size_t k = 0; k < COUNT_OF(counts); k++) {
                int n = counts[k];

                buf_reset(&many);
                buf_text(&many, "{\"Records\":[");
                for (int i = 0; i < n; i++)
                        buf_printf(&many, "%s%s", i ? "," : "", GOLDEN);
                buf_text(&many, "]}");
                assert_int_equal(obs_parse(buf_view(&many), &all),
                                 n == OBS_RECORDS_MOST ? OBS_RECORDS : OBS_TOO_MANY);
        }
        obs_records_done(&all);
        /* Nor is anything built of what would take a hundred times its bytes. */
        buf_reset(&many);
        buf_text(&many, "{\"Records\":[" GOLDEN "],\"x\":[1");
        for (int i = 0; i < OBS_VALUES_MOST; i++)
                buf_text(&many, ",1");
        buf_text(&many, "]}");
        assert_int_equal(obs_parse(buf_view(&many), &all), OBS_TOO_MANY);
}

static void names_match_patterns(void **state UNUSED)
{
        static char created[] = "ObjectCreated:*", removed[] = "ObjectRemoved:Delete";
        static char *const patterns[] = { created, removed };

        assert_true(obs_event_matches("ObjectCreated:Put", patterns, 2));
        assert_true(obs_event_matches("ObjectRemoved:Delete", patterns, 2));
        assert_false(obs_event_matches("ObjectRemoved:DeleteMarkerCreated", patterns, 2));
        assert_false(obs_event_matches("ObjectAccessed:Get", patterns, 2));
        assert_false(obs_event_matches("ObjectCreated:Put", patterns, 0));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(the_golden_record_stays_as_it_is),
                cmocka_unit_test(minios_record_is_brought_to_that_shape),
                cmocka_unit_test(an_id_is_of_what_happened),
                cmocka_unit_test(changes_within_a_second_are_told_apart),
                cmocka_unit_test(what_is_no_notification_is_told),
                cmocka_unit_test(names_match_patterns),
        };

        return cmocka_run_group_tests_name("obs records", tests, NULL, NULL);
}
