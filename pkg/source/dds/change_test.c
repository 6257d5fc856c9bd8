#include "source/dds/change.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>
#include <jansson.h>

#include "event/cloudevent.h"
#include "source/dds/shape.h"
#include "source/page.h"

/* ---- BSON by hand ------------------------------------------------------- */

static void put_uint32(struct buf *b, size_t n)
{
        const unsigned char bytes[] = { (unsigned char)n, (unsigned char)(n >> 8), (unsigned char)(n >> 16),
                                        (unsigned char)(n >> 24) };

        buf_add(b, bytes, sizeof(bytes));
}

static void put_uint64(struct buf *b, uint64_t n)
{
        put_uint32(b, n & 0xffffffff);
        put_uint32(b, n >> 32);
}

static void put_name(struct buf *b, enum bson_type type, const char *name)
{
        buf_char(b, (char)type);
        buf_add(b, name, strlen(name) + 1);
}

static void put_string(struct buf *b, struct str s)
{
        put_uint32(b, s.n + 1);
        buf_str(b, s);
        buf_char(b, 0);
}

static void put_text(struct buf *b, const char *name, const char *text)
{
        put_name(b, BSON_STRING, name);
        put_string(b, str_of(text));
}

static void put_int(struct buf *b, const char *name, int32_t n)
{
        put_name(b, BSON_INT32, name);
        put_uint32(b, (uint32_t)n);
}

/* Begins a document, and ends it: its length is filled in. */
static size_t begin(struct buf *b)
{
        put_uint32(b, 0);
        return b->n - 4;
}

static size_t begin_member(struct buf *b, enum bson_type type, const char *name)
{
        put_name(b, type, name);
        return begin(b);
}

static void end(struct buf *b, size_t from)
{
        size_t n;

        buf_char(b, 0);
        n = b->n - from;
        for (size_t i = 0; i < 4; i++)
                b->p[from + i] = (char)(n >> 8 * i);
}

/* ---- values ------------------------------------------------------------- */

static void json_of(const struct buf *bson, struct buf *json)
{
        struct writer w;

        writer_init(&w, json);
        assert_true(bson_write_document(buf_view(bson), &w));
}

/* g() with a scope of its own. */
static void put_scoped(struct buf *b, const char *name)
{
        size_t scoped, inner;

        put_name(b, BSON_CODE_WITH_SCOPE, name);
        scoped = begin(b);
        put_string(b, STR("g()"));
        inner = begin(b);
        put_int(b, "x", 5);
        end(b, inner);
        end(b, scoped);
        b->n--; /* it has no end of its own */
        b->p[scoped]--;
}

/* One element of each type, as the specification of Extended JSON writes it in its canonical form. */
static void each_type_is_written_as_specified(void **state UNUSED)
{
        static const unsigned char bytes[12] = { 0x5d, 0x8c, 0x2f, 0x8e, 0x5b, 0xec,
                                                 0xcb, 0x6c, 0xf5, 0x37, 0x0d, 0x6a };
        BUF_AT_END struct buf b = BUF_INIT(4096), json = BUF_INIT(65536);
        size_t all = begin(&b), inner;

        put_name(&b, BSON_DOUBLE, "double");
        put_uint64(&b, 0x404a000000000000); /* 52.0 */
        put_text(&b, "string", "a \"b\"\n\xff");
        inner = begin_member(&b, BSON_DOCUMENT, "document");
        put_int(&b, "", -1);
        end(&b, inner);
        inner = begin_member(&b, BSON_ARRAY, "array");
        put_int(&b, "0", 1);
        put_text(&b, "1", "x");
        end(&b, inner);
        put_name(&b, BSON_BINARY, "binary");
        put_uint32(&b, 3);
        buf_add(&b, "\x80\x01\x02\x03", 4);
        put_name(&b, BSON_BINARY, "old");
        put_uint32(&b, 6);
        buf_add(&b, "\x02\x02\0\0\0\x01\x02", 7);
        put_name(&b, BSON_UNDEFINED, "undefined");
        put_name(&b, BSON_OBJECT_ID, "oid");
        buf_add(&b, bytes, sizeof(bytes));
        put_name(&b, BSON_BOOL, "bool");
        buf_char(&b, 1);
        put_name(&b, BSON_DATE, "date");
        put_uint64(&b, (uint64_t)-1);
        put_name(&b, BSON_NULL, "null");
        put_name(&b, BSON_REGEX, "regex");
        buf_add(&b, "^a\0im", 6);
        put_name(&b, BSON_POINTER, "pointer");
        put_string(&b, STR("c"));
        buf_add(&b, bytes, sizeof(bytes));
        put_name(&b, BSON_CODE, "code");
        put_string(&b, STR("f()"));
        put_name(&b, BSON_SYMBOL, "symbol");
        put_string(&b, STR("s"));
        put_scoped(&b, "scoped");
        put_name(&b, BSON_TIMESTAMP, "timestamp");
        put_uint64(&b, (uint64_t)4000000000 << 32 | 7);
        put_name(&b, BSON_INT64, "int64");
        put_uint64(&b, (uint64_t)INT64_MIN);
        put_name(&b, BSON_DECIMAL128, "decimal");
        put_uint64(&b, 15);
        put_uint64(&b, 0x303e000000000000); /* 1.5 */
        put_name(&b, BSON_MAX_KEY, "max");
        put_name(&b, BSON_MIN_KEY, "min");
        end(&b, all);
        json_of(&b, &json);
        assert_string_equal(
                json.p,
                "{\"double\":{\"$numberDouble\":\"52.0\"},\"string\":\"a \\\"b\\\"\\n\xef\xbf\xbd\","
                "\"document\":{\"\":{\"$numberInt\":\"-1\"}},\"array\":[{\"$numberInt\":\"1\"},\"x\"],"
                "\"binary\":{\"$binary\":{\"base64\":\"AQID\",\"subType\":\"80\"}},"
                "\"old\":{\"$binary\":{\"base64\":\"AQI=\",\"subType\":\"02\"}},"
                "\"undefined\":{\"$undefined\":true},\"oid\":{\"$oid\":\"5d8c2f8e5beccb6cf5370d6a\"},"
                "\"bool\":true,\"date\":{\"$date\":{\"$numberLong\":\"-1\"}},\"null\":null,"
                "\"regex\":{\"$regularExpression\":{\"pattern\":\"^a\",\"options\":\"im\"}},"
                "\"pointer\":{\"$dbPointer\":{\"$ref\":\"c\",\"$id\":{\"$oid\":\"5d8c2f8e5beccb6cf5370d6a\"}}"
                "},"
                "\"code\":{\"$code\":\"f()\"},\"symbol\":{\"$symbol\":\"s\"},"
                "\"scoped\":{\"$code\":\"g()\",\"$scope\":{\"x\":{\"$numberInt\":\"5\"}}},"
                "\"timestamp\":{\"$timestamp\":{\"t\":4000000000,\"i\":7}},"
                "\"int64\":{\"$numberLong\":\"-9223372036854775808\"},"
                "\"decimal\":{\"$numberDecimal\":\"1.5\"},\"max\":{\"$maxKey\":1},\"min\":{\"$minKey\":1}}");
        for (size_t n = 0; n < b.n; n++) { /* whatever is cut off, it is no BSON any more */
                struct writer w;

                buf_reset(&json);
                writer_init(&w, &json);
                assert_false(bson_write_document((struct str){ b.p, n }, &w));
        }
}

/* From the specification of the type. */
static void decimals_are_written_as_specified(void **state UNUSED)
{
        static const struct {
                uint64_t high, low;
                const char *text;
        } all[] = {
                { 0x7c00000000000000, 0, "NaN" },
                { 0xfc00000000000000, 0, "NaN" },
                { 0x7800000000000000, 0, "Infinity" },
                { 0xf800000000000000, 0, "-Infinity" },
                { 0x3040000000000000, 0, "0" },
                { 0xb040000000000000, 0, "-0" },
                { 0x3040000000000000, 1, "1" },
                { 0x3034000000000000, 0x4d2, "0.001234" },
                { 0x3040000000000000, 0x1cbe991a14, "123456789012" },
                { 0x302a000000000000, 0x75aef40, "0.00123400000" },
                { 0x2ffc3cde6fff9732, 0xde825cd07e96aff2, "0.1234567890123456789012345678901234" },
                { 0x303e000000000000, 15, "1.5" },
                { 0x3042000000000000, 1, "1E+1" },
                { 0x5ffe314dc6448d93, 0x38c15b0a00000000, "1.000000000000000000000000000000000E+6144" },
                { 0x0000000000000000, 1, "1E-6176" },
                { 0x3032000000000000, 1, "1E-7" },
                { 0x6c10000000000000, 0, "0" },
                { 0x3041ed09bead87c0, 0x378d8e63ffffffff, "9999999999999999999999999999999999" },
                { 0x3041ed09bead87c0, 0x378d8e6400000000, "0" },
        };
        char text[BSON_DECIMAL_TEXT];

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                bson_decimal_text(all[i].high, all[i].low, text);
                assert_string_equal(text, all[i].text);
        }
}

static void doubles_keep_their_value(void **state UNUSED)
{
        static const struct {
                double d;
                const char *text;
        } all[] = { { 52, "52.0" },
                    { 0.1, "0.1" },
                    { -0.0, "-0.0" },
                    { 1e20, "1e+20" },
                    { 1.0 / 3, "0.3333333333333333" },
                    { 5e-324, "4.94065645841247e-324" } };
        char text[BSON_DOUBLE_TEXT];

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                bson_double_text(all[i].d, text);
                assert_string_equal(text, all[i].text);
                assert_true(strtod(text, NULL) == all[i].d);
        }
}

static void what_is_nested_too_deep_is_refused(void **state UNUSED)
{
        for (size_t depth = BSON_DEPTH_MOST - 1; depth <= BSON_DEPTH_MOST; depth++) {
                BUF_AT_END struct buf b = BUF_INIT(65536), json = BUF_INIT(65536);
                size_t from[BSON_DEPTH_MOST + 1];
                struct writer w;

                from[0] = begin(&b);
                for (size_t i = 1; i <= depth; i++)
                        from[i] = begin_member(&b, BSON_DOCUMENT, "a");
                for (size_t i = depth + 1; i-- > 0;)
                        end(&b, from[i]);
                writer_init(&w, &json);
                assert_int_equal(bson_write_document(buf_view(&b), &w), depth < BSON_DEPTH_MOST);
        }
}

/* ---- changes ------------------------------------------------------------ */

static void put_oid(struct buf *b, const char *name)
{
        static const unsigned char bytes[12] = { 0x5d, 0x8c, 0x2f, 0x8e, 0x5b, 0xec,
                                                 0xcb, 0x6c, 0xf5, 0x37, 0x0d, 0x6a };

        put_name(b, BSON_OBJECT_ID, name);
        buf_add(b, bytes, sizeof(bytes));
}

static void put_token(struct buf *b, const char *data)
{
        size_t from = begin_member(b, BSON_DOCUMENT, "_id");

        put_text(b, "_data", data);
        end(b, from);
}

static void put_ns(struct buf *b, const char *name, const char *db, const char *coll)
{
        size_t from = begin_member(b, BSON_DOCUMENT, name);

        put_text(b, "db", db);
        if (coll)
                put_text(b, "coll", coll);
        end(b, from);
}

static void put_key(struct buf *b)
{
        size_t from = begin_member(b, BSON_DOCUMENT, "documentKey");

        put_text(b, "shard", "eu");
        put_oid(b, "_id");
        end(b, from);
}

static void put_document(struct buf *b, const char *name)
{
        size_t from = begin_member(b, BSON_DOCUMENT, name);

        put_oid(b, "_id");
        put_text(b, "name", "dds");
        put_name(b, BSON_DOUBLE, "age");
        put_uint64(b, 0x404a000000000000);
        end(b, from);
}

static void put_update(struct buf *b)
{
        size_t from = begin_member(b, BSON_DOCUMENT, "updateDescription"), inner;

        inner = begin_member(b, BSON_DOCUMENT, "updatedFields");
        put_int(b, "age.years", 53);
        end(b, inner);
        inner = begin_member(b, BSON_ARRAY, "removedFields");
        put_text(b, "0", "nick");
        end(b, inner);
        inner = begin_member(b, BSON_ARRAY, "truncatedArrays");
        end(b, inner);
        end(b, from);
}

/* The rows of the table in docs/dds.md, and what is not in it. */
static const struct row {
        const char *name, *operation, *db, *coll;
        bool key, full, null, update, before, to;
} rows[] = {
        { "insert", "insert", "functiongraph", "person", .key = true, .full = true },
        { "update", "update", "functiongraph", "person", .key = true, .full = true, .update = true },
        { "update-of-a-document-that-is-gone", "update", "functiongraph", "person", .key = true, .null = true,
          .update = true },
        { "replace", "replace", "functiongraph", "person", .key = true, .full = true, .before = true },
        { "delete", "delete", "functiongraph", "person", .key = true, .before = true },
        { "drop", "drop", "functiongraph", "person", .full = false },
        { "rename", "rename", "functiongraph", "person", .to = true },
        { "dropDatabase", "dropDatabase", "functiongraph", NULL, .full = false },
        { "invalidate", "invalidate", NULL, NULL, .full = false },
        { "other", "shardCollection", "functiongraph", "person", .full = false },
};

static void put_row(struct buf *b, const struct row *row)
{
        size_t from = begin(b);

        put_token(b, "825D8C2F4D0000001529295A1004");
        put_text(b, "operationType", row->operation);
        put_name(b, BSON_TIMESTAMP, "clusterTime");
        put_uint64(b, (uint64_t)1569468237 << 32 | 21);
        if (row->full)
                put_document(b, "fullDocument");
        if (row->null)
                put_name(b, BSON_NULL, "fullDocument");
        if (row->db)
                put_ns(b, "ns", row->db, row->coll);
        if (row->to)
                put_ns(b, "to", "functiongraph", "people");
        if (row->key)
                put_key(b);
        if (row->update)
                put_update(b);
        if (row->before)
                put_document(b, "fullDocumentBeforeChange");
        end(b, from);
}

static char database[] = "functiongraph", collection[] = "person", region[] = "xx-xxxxx-x",
            instance[] = "e6065860-f7b8-4cca-80bd-24ef2a3bb748", trigger_name[] = "people",
            namespace_name[] = "shop";
static struct dds_spec spec = { .database = database, .collection = collection };
static struct event_spec event_spec = { .region = region, .instance_id = instance };
static struct trigger trigger_ = {
        .name = trigger_name, .namespace_ = namespace_name, .source_spec = &spec, .event = &event_spec
};

struct bench {
        struct dds_reading reading;
        struct remember remember;
        struct reader_stats stats;
        struct page *page;
};

static int setup(void **state)
{
        struct bench *b = calloc(1, sizeof(*b));

        assert_non_null(b);
        dds_reading_init(&b->reading);
        b->page = page_new(&b->remember, &b->stats, 1 << 20);
        *state = b;
        return 0;
}

static int teardown(void **state)
{
        struct bench *b = *state;

        (void)page_free(b->page);
        dds_reading_done(&b->reading);
        free(b);
        return 0;
}

static struct record *record_of(struct bench *b)
{
        const struct dds_reading *g = &b->reading;
        const struct dds_told told = { .change = g->change,
                                       .document = buf_view(&g->document),
                                       .token = buf_view(&g->token),
                                       .id = buf_view(&g->id),
                                       .mark = buf_view(&g->position) };
        struct record *r = dds_record(b->page, &told);

        assert_non_null(r);
        return r;
}

static json_t *event_of(struct record *r, int dialect)
{
        BUF_AT_END struct buf out = BUF_INIT(65536);
        struct writer w;
        json_t *event;

        event_spec.dialect = dialect;
        writer_init(&w, &out);
        dds_source.shape->encode(&trigger_, &r, 1, &w);
        assert_false(out.failed);
        event = json_loadb(out.p, out.n, 0, NULL);
        assert_non_null(event);
        return event;
}

static json_t *cloudevent_of(const struct record *r)
{
        BUF_AT_END struct buf space = BUF_INIT(65536), out = BUF_INIT(65536);
        struct cloud_event e;
        struct writer w;
        json_t *event;

        dds_source.shape->event(&trigger_, r, &space, &e);
        e.type = str_of(dds_source.shape->ce_type);
        writer_init(&w, &out);
        cloudevent_write(&e, NULL, 0, &w);
        assert_false(out.failed);
        event = json_loadb(out.p, out.n, 0, NULL);
        assert_non_null(event);
        return event;
}

static void check_golden(const char *name, json_t *found)
{
        char path[256];
        json_t *golden;

        (void)snprintf(path, sizeof(path), "pkg/source/dds/testdata/%s.json", name);
        if (getenv("UPDATE_GOLDEN"))
                assert_int_equal(json_dump_file(found, path, JSON_INDENT(2)), 0);
        golden = json_load_file(path, 0, NULL);
        assert_non_null(golden);
        if (!json_equal(found, golden)) {
                char *text = json_dumps(found, JSON_INDENT(2));

                fail_msg("%s is not:\n%s", path, text);
                free(text);
        }
        json_decref(golden);
}

static void each_operation_has_its_event(void **state)
{
        struct bench *b = *state;

        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                BUF_AT_END struct buf bson = BUF_INIT(65536);
                struct record *r;
                struct error err;
                json_t *found;

                put_row(&bson, &rows[i]);
                assert_int_equal(dds_reading_take(&b->reading, buf_view(&bson), &err), 1);
                assert_int_equal(b->reading.invalidate, strcmp(rows[i].operation, "invalidate") == 0);
                r = record_of(b);
                assert_true(str_is(r->id, "825D8C2F4D0000001529295A1004"));
                assert_int_equal(r->time, 1569468237 * USEC_SEC);
                found = json_pack("{s:o, s:o, s:o, s:o}", "filter",
                                  json_loadb(r->value.p, r->value.n, 0, NULL), "classic",
                                  event_of(r, DIALECT_CLASSIC), "current", event_of(r, DIALECT_CURRENT),
                                  "cloudevent", cloudevent_of(r));
                assert_non_null(found);
                check_golden(rows[i].name, found);
                json_decref(found);
        }
}

/* What detaching leaves of a record is enough for its event. */
static void a_detached_record_has_the_same_event(void **state)
{
        struct bench *b = *state;
        BUF_AT_END struct buf bson = BUF_INIT(65536);
        struct record *r;
        struct error err;
        json_t *before, *after;

        put_row(&bson, &rows[1]);
        assert_int_equal(dds_reading_take(&b->reading, buf_view(&bson), &err), 1);
        r = record_of(b);
        page_number(b->page, 0, 1, 0);
        before = event_of(r, DIALECT_CLASSIC);
        assert_true(page_detach(b->page, CONTAINER_OF(r, struct lent, record)));
        after = event_of(r, DIALECT_CLASSIC);
        assert_true(json_equal(before, after));
        json_decref(before);
        json_decref(after);
}

static void put_split(struct buf *b, int fragment, int of)
{
        size_t from = begin_member(b, BSON_DOCUMENT, "splitEvent");

        put_int(b, "fragment", fragment);
        put_int(b, "of", of);
        end(b, from);
}

static void parts_become_one_change(void **state)
{
        struct bench *b = *state;
        BUF_AT_END struct buf first = BUF_INIT(65536), second = BUF_INIT(65536);
        struct error err;
        struct record *r;
        size_t from = begin(&first);

        put_token(&first, "82AA");
        put_text(&first, "operationType", "update");
        put_split(&first, 1, 2);
        put_document(&first, "fullDocument");
        end(&first, from);
        from = begin(&second);
        put_token(&second, "82BB");
        put_split(&second, 2, 2);
        put_key(&second);
        put_document(&second, "fullDocumentBeforeChange");
        end(&second, from);
        /* the second alone is none; the first may come twice, as after a new start */
        assert_int_equal(dds_reading_take(&b->reading, buf_view(&second), &err), -1);
        assert_int_equal(dds_reading_take(&b->reading, buf_view(&first), &err), 0);
        assert_int_equal(dds_reading_take(&b->reading, buf_view(&first), &err), 0);
        assert_int_equal(dds_reading_take(&b->reading, buf_view(&second), &err), 1);
        r = record_of(b);
        assert_true(str_is(r->id, "82BB"));
        assert_true(str_starts(r->value, STR("{\"operationType\":\"update\",\"fullDocument\":{")));
        assert_non_null(strstr(b->reading.document.p, "\"fullDocumentBeforeChange\":{"));
        assert_null(strstr(b->reading.document.p, "splitEvent"));
}

static void what_is_no_change_is_refused(void **state)
{
        struct bench *b = *state;
        BUF_AT_END struct buf bson = BUF_INIT(65536);
        struct error err;
        size_t from = begin(&bson);

        put_text(&bson, "operationType", "insert");
        end(&bson, from);
        assert_int_equal(dds_reading_take(&b->reading, buf_view(&bson), &err), -1);
        assert_string_equal(err.text,
                            "a change that can't be read: it has no resume token, _id; does the pipeline "
                            "leave it out?");
        assert_true(err.retry);
        buf_reset(&bson);
        from = begin(&bson);
        put_token(&bson, "82");
        end(&bson, from);
        assert_int_equal(dds_reading_take(&b->reading, buf_view(&bson), &err), -1);
        assert_int_equal(dds_reading_take(&b->reading, STR("\5\0\0"), &err), -1);
}

/* ---- positions ---------------------------------------------------------- */

static void positions_are_read_as_they_are_written(void **state UNUSED)
{
        static const char *const data[] = { "82AABB", "with space", "=x", "\"", "" };

        for (size_t i = 0; i < COUNT_OF(data); i++)
                for (int kind = DDS_POSITION_AFTER; kind <= DDS_POSITION_TIME; kind++) {
                        BUF_AT_END struct buf token = BUF_INIT(4096), mark = BUF_INIT(4096);
                        struct dds_position p = { 0 };
                        size_t from = begin(&token);

                        put_text(&token, "_data", data[i]);
                        end(&token, from);
                        dds_position_write((enum dds_position_kind)kind, (struct dds_time){ 4000000000, 5 },
                                           buf_view(&token), &mark);
                        assert_true(dds_position_read(buf_view(&mark), &p));
                        assert_int_equal(p.kind, kind);
                        assert_int_equal(p.time.seconds, 4000000000);
                        assert_int_equal(p.time.number, 5);
                        if (kind != DDS_POSITION_TIME)
                                assert_true(str_equal(buf_view(&p.token), buf_view(&token)));
                        buf_done(&p.token);
                }
}

static void other_marks_are_no_positions(void **state UNUSED)
{
        static const char *const marks[] = { "",           "after",       "after 1.2",       "after 1.2 =?",
                                             "at 1",       "at 1.2 x",    "at 4294967296.0", "at -1.0",
                                             "before 1.2", "renew 1 82AA" };

        for (size_t i = 0; i < COUNT_OF(marks); i++) {
                struct dds_position p = { 0 };

                assert_false(dds_position_read(str_of(marks[i]), &p));
                buf_done(&p.token);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(each_type_is_written_as_specified),
                cmocka_unit_test(decimals_are_written_as_specified),
                cmocka_unit_test(doubles_keep_their_value),
                cmocka_unit_test(what_is_nested_too_deep_is_refused),
                cmocka_unit_test_setup_teardown(each_operation_has_its_event, setup, teardown),
                cmocka_unit_test_setup_teardown(a_detached_record_has_the_same_event, setup, teardown),
                cmocka_unit_test_setup_teardown(parts_become_one_change, setup, teardown),
                cmocka_unit_test_setup_teardown(what_is_no_change_is_refused, setup, teardown),
                cmocka_unit_test(positions_are_read_as_they_are_written),
                cmocka_unit_test(other_marks_are_no_positions),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
