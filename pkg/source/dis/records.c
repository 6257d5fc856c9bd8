#include "source/dis/records.h"

#include <stdio.h>

#include "json/check.h"
#include "source/dis/dis.h"
#include "source/poller.h"

enum { RECORD_MOST = 8 << 20 };

/* ---- an answer ---------------------------------------------------------- */

/* All members are read as any JSON value: a malformed record must not block its partition. */
struct item { /* a record of a response */
        struct json_value sequence, key, data, time;
};
static const struct json_member item_members[] = {
        MEMBER(ANY, "sequence_number", struct item, sequence), MEMBER(ANY, "partition_key", struct item, key),
        MEMBER(ANY, "data", struct item, data), MEMBER(ANY, "timestamp", struct item, time), /* ms */
};
static const struct json_object item_object = JSON_OBJECT("a record", item_members);

struct reading {
        struct item item;
        int64_t sequence; /* the item's number */
        bool pass_over;
        struct json_value next;
        struct str partition;
        int64_t asked, from; /* the number asked for; the next number expected */
        int64_t row;         /* the response has all records from here up to from */
        int64_t created;
        struct page *page;
        struct dis_records *out;
        struct str *cursor; /* the next cursor, which all records refer to */
        struct buf id, text;
        size_t id_n; /* length of the prefix that all ids share */
};

/* Decodes the data into the page. false: it is not Base64. */
static bool keep_decoded(struct reading *g, struct str *out)
{
        struct str coded = g->item.data.text;
        char *p;

        if (!g->item.data.is_string)
                return false;
        if (g->item.data.escaped) {
                buf_reset(&g->text);
                json_value_add(g->item.data, &g->text);
                coded = buf_view(&g->text);
                if (g->text.failed) {
                        page_no_memory(g->page);
                        coded = STR("");
                }
        }
        *out = (struct str){ .n = base64_bytes(coded) };
        if (!(p = page_bytes(g->page, MAX_OF(out->n, (size_t)1))))
                *out = (struct str){ 0 };
        else if (!base64_decode(coded, p))
                return false;
        else
                out->p = p;
        return true;
}

static bool is_there(struct json_value v) { return v.text.p && !json_value_is(v, "null"); }

/* Data that is not Base64 is delivered unchanged, so that nothing is lost and the function can decide. */
static struct str keep_data(struct reading *g)
{
        struct str out = { 0 };

        if (keep_decoded(g, &out))
                return out;
        g->out->malformed++;
        return is_there(g->item.data) ? page_text(g->page, g->item.data) : (struct str){ 0 };
}

/* A non-negative number, quoted or not; -1: anything else. */
static int64_t whole_number(struct json_value v)
{
        int64_t n;

        return v.text.n && str_to_int64(v.text, &n) && n >= 0 && n < INT64_MAX ? n : -1;
}

/* Without a number a record has neither a position nor an id. */
static int pass_over(struct reading *g, struct error *err)
{
        g->out->unnumbered++;
        return g->pass_over ? 0 : error_set(err, ERROR_PROTOCOL, "a record has no sequence_number");
}

static struct record *begin_record(struct reading *g)
{
        char text[48];
        struct buf mark = BUF_ON(text);

        g->id.n = g->id_n;
        buf_int(&g->id, g->sequence);
        buf_int(&mark, g->from);
        if (g->created) {
                buf_char(&mark, '/');
                buf_int(&mark, g->created);
        }
        if (g->id.failed)
                page_no_memory(g->page);
        return page_record(g->page, buf_view(&g->id), buf_view(&mark));
}

static int add_record(void *object, struct error *err)
{
        struct reading *g = object;
        const struct item *item = &g->item;
        int64_t sequence = g->sequence = whole_number(item->sequence);
        struct dis_record *origin;
        struct record *r;
        struct str data;

        g->out->n++;
        if (sequence < 0)
                return pass_over(g, err);
        if (sequence < g->from) {
                /* It may be a new record, but would be dropped as a duplicate. */
                if (sequence >= g->asked && sequence < g->row)
                        return error_set(err, ERROR_PROTOCOL,
                                         "records are out of order: %lld comes after %lld",
                                         (long long)sequence, (long long)g->from - 1);
                g->out->repeated = true;
                return 0;
        }
        if (sequence != g->from)
                g->row = sequence;
        g->from = sequence + 1;
        data = keep_data(g);
        if (!(r = begin_record(g)) || !(origin = page_keep(g->page, sizeof(*origin))))
                return 0; /* the page has failed, and the reader will see that */
        if (g->out->first < 0)
                g->out->first = sequence;
        g->out->last = sequence;
        *origin = (struct dis_record){ g->partition, sequence, g->cursor };
        r->origin = origin;
        r->time = poller_time(MAX_OF(whole_number(item->time), (int64_t)0));
        r->value = data;
        r->has_key = is_there(item->key);
        if (r->has_key)
                r->key = page_text(g->page, item->key);
        return 0;
}

static const struct json_member answer_members[] = {
        MEMBER(LIST, "records", struct reading, item, .items = &item_object, .take = add_record,
               .any_item = true, .required = true),
        MEMBER(TEXT, "next_partition_cursor", struct reading, next),
};
static const struct json_object answer_object = JSON_OBJECT("the answer", answer_members);

int dis_read_records(struct str body, const struct dis_from *from, struct page *page, struct dis_records *out,
                     struct error *err)
{
        struct reading g = { .partition = from->partition,
                             .asked = from->number,
                             .from = from->number,
                             .row = from->number,
                             .created = from->created,
                             .pass_over = from->pass_over,
                             .page = page,
                             .out = out,
                             .cursor = page_keep(page, sizeof(*g.cursor)),
                             .id = BUF_INIT(4096),
                             .text = BUF_INIT((size_t)RECORD_MOST) };
        int result;

        buf_text(&g.id, from->stream);
        if (from->again)
                buf_printf(&g.id, "@%lld", (long long)from->again);
        buf_printf(&g.id, "/" STR_FMT "/", STR_ARG(from->partition));
        g.id_n = g.id.n;
        *out = (struct dis_records){ .first = -1, .last = -1 };
        result = g.cursor ? json_read_object(body, &answer_object, &g, err) : error_memory(err);
        buf_done(&g.id);
        buf_done(&g.text);
        if (result < 0)
                return g.cursor ? error_wrap(err, "an answer that can't be read") : -1;
        *g.cursor = g.next.text.n ? page_text_beside(page, g.next) : (struct str){ 0 };
        out->cursor = page_failed(page) ? g.next.text
                                        : *g.cursor; /* not NULL: that would mean the partition's end */
        return 0;
}

/* ---- shapes ------------------------------------------------------------- */

static void dis_describe(const struct record *r, struct writer *w)
{
        const struct dis_record *d = r->origin;
        struct str value = json_without_mark(r->value);
        char number[24];

        (void)snprintf(number, sizeof(number), "%lld", (long long)d->sequence);
        writer_object(w);
        writer_key(w, STR("partitionKey"));
        if (r->has_key)
                writer_string(w, r->key);
        else
                writer_null(w);
        writer_member_text(w, "sequenceNumber", number);
        writer_key(w, STR("data"));
        if (json_is_value(value, &w->out->failed))
                writer_raw(w, value);
        else if (str_is_utf8(r->value))
                writer_string(w, r->value);
        else
                writer_base64(w, r->value);
        writer_object_end(w);
}

static void write_record(const struct record *r, struct writer *w)
{
        char number[24];

        (void)snprintf(number, sizeof(number), "%lld",
                       (long long)((const struct dis_record *)r->origin)->sequence);
        writer_object(w);
        if (r->has_key)
                writer_member_string(w, "partition_key", r->key);
        writer_key(w, STR("data"));
        writer_base64(w, r->value);
        writer_member_text(w, "sequence_number", number);
        writer_object_end(w);
}

static void dis_encode(const struct trigger *t, struct record *const *records, size_t n, struct writer *w)
{
        const struct dis_spec *spec = t->source_spec;
        const struct dis_record *last = records[n - 1]->origin;

        writer_object(w);
        writer_member_string(w, "ShardID", last->partition);
        writer_key(w, STR("Message"));
        writer_object(w);
        writer_key(w, STR("next_partition_cursor"));
        if (last->cursor->p)
                writer_string(w, *last->cursor);
        else
                writer_null(w);
        writer_key(w, STR("records"));
        writer_array(w);
        for (size_t i = 0; i < n; i++)
                write_record(records[i], w);
        writer_array_end(w);
        writer_member_text(w, "millis_behind_latest", "");
        writer_object_end(w);
        writer_member_text(w, "Tag", "latest");
        writer_member_text(w, "StreamName", spec->stream);
        writer_object_end(w);
}

static void dis_event(const struct trigger *t, const struct record *r, struct buf *space,
                      struct cloud_event *e)
{
        const struct dis_spec *spec = t->source_spec;
        const struct dis_record *d = r->origin;
        size_t source_n;

        cloudevent_source(t, spec->stream, space);
        source_n = space->n;
        buf_printf(space, STR_FMT "#%lld", STR_ARG(d->partition), (long long)d->sequence);
        *e = (struct cloud_event){ .id = r->id, .time = r->time };
        if (space->failed)
                return;
        e->source = (struct str){ space->p, source_n };
        e->subject = (struct str){ space->p + source_n, space->n - source_n };
        if (r->has_key)
                e->key = r->key;
        cloudevent_data(e, r->value, (struct str){ 0 });
}

/* ---- samples ------------------------------------------------------------ */

/* An invalid number becomes 0. */
static int64_t sample_sequence(const struct node *n)
{
        BUF_AT_END struct buf text = BUF_INIT(64);
        int64_t number;

        poller_sample_text(n, &text);
        return str_to_int64(buf_view(&text), &number) && number >= 0 && number < INT64_MAX ? number : 0;
}

static void write_sample(const struct node *document, usec wall, struct buf *out)
{
        const struct node *key = node_member(document, "partitionKey"), *data = node_member(document, "data");
        BUF_AT_END struct buf text = BUF_INIT(BUF_DEFAULT_MAX);
        struct writer w;

        writer_init(&w, out);
        writer_object(&w);
        writer_key(&w, STR("records"));
        writer_array(&w);
        writer_object(&w);
        writer_member_int(&w, "sequence_number", sample_sequence(node_member(document, "sequenceNumber")));
        writer_member_int(&w, "timestamp", wall / USEC_MSEC);
        if (key && key->kind != NODE_NULL) {
                poller_sample_text(key, &text);
                writer_member_string(&w, "partition_key", buf_view(&text));
        }
        buf_reset(&text);
        poller_sample_text(data, &text);
        writer_key(&w, STR("data"));
        writer_base64(&w, data ? buf_view(&text) : STR("a record"));
        writer_object_end(&w);
        writer_array_end(&w);
        writer_object_end(&w);
        out->failed |= text.failed;
}

static int dis_sample(const struct trigger *t, const struct node *document, usec wall, struct record **out,
                      struct error *err)
{
        const struct dis_spec *spec = t->source_spec;
        const struct dis_from from = { .stream = spec->stream,
                                       .partition = STR("shardId-0000000000"),
                                       .number = -1 };
        BUF_AT_END struct buf answer = BUF_INIT(BUF_DEFAULT_MAX);
        struct page *page = poller_sample_begin(document, "partitionKey, sequenceNumber, data", err);
        struct dis_records got;

        if (!page)
                return -1;
        write_sample(document, wall, &answer);
        return poller_sample_end(page,
                                 answer.failed ? error_memory(err)
                                               : dis_read_records(buf_view(&answer), &from, page, &got, err),
                                 out, err);
}

const struct shape dis_shape = {
        .ce_type = "dev.sluice.dis.record",
        .describe = dis_describe,
        .encode = dis_encode,
        .event = dis_event,
        .sample = dis_sample,
        .sample_free = poller_sample_free,
};
