#include "source/dis/records.h"

#include <stdio.h>

#include "json/check.h"
#include "json/scan.h"
#include "source/dis/dis.h"

enum { DEPTH_MOST = 512, RECORD_MOST = 8 << 20 };

/* ---- an answer ---------------------------------------------------------- */

struct item { /* of an answer, as it stands there */
        struct str key, data;
        int64_t sequence, time; /* ms; 0: unknown */
        bool has_key, key_escaped, data_escaped;
};

/* A whole number, which may stand in a string; null: it stays as it is. */
static bool read_number(struct scan *s, int64_t *out)
{
        struct str text;
        bool escaped;
        char c = scan_peek(s);

        if (c == 'n')
                return scan_word(s, "null");
        if (c != '"' && c != '-' && (c < '0' || c > '9'))
                return scan_fail(s, "a sequence number or a time is no number");
        if (!(c == '"' ? scan_string(s, &text, &escaped) : scan_number(s, &text)))
                return false;
        return str_to_int64(text, out) || scan_fail(s, "a sequence number or a time is no whole number");
}

static bool read_text(struct scan *s, struct str *out, bool *escaped, bool *there)
{
        *there = scan_peek(s) == '"';
        if (*there)
                return scan_string(s, out, escaped);
        return scan_peek(s) == 'n' ? scan_word(s, "null") : scan_fail(s, "a text is no string");
}

static bool read_member(struct scan *s, struct str name, struct item *item)
{
        bool there;

        if (str_is(name, "data"))
                return read_text(s, &item->data, &item->data_escaped, &there);
        if (str_is(name, "partition_key"))
                return read_text(s, &item->key, &item->key_escaped, &item->has_key);
        if (str_is(name, "sequence_number"))
                return read_number(s, &item->sequence);
        if (str_is(name, "timestamp"))
                return read_number(s, &item->time);
        return scan_skip(s, DEPTH_MOST);
}

static bool read_item(struct scan *s, struct item *item)
{
        struct str name;
        bool escaped;

        *item = (struct item){ .sequence = -1 };
        if (!scan_take(s, '{'))
                return scan_fail(s, "a record is no object");
        if (!scan_take(s, '}'))
                do {
                        if (!scan_name(s, &name, &escaped) || !read_member(s, name, item))
                                return false;
                } while (scan_more(s, '}'));
        if (!s->fault && (item->sequence < 0 || item->sequence == INT64_MAX))
                return scan_fail(s, "a record has no sequence number");
        return !s->fault;
}

static struct str keep(struct page *page, struct str s)
{
        char *p = page_bytes(page, s.n ? s.n : 1);

        return p ? (struct str){ memcpy(p, s.p ? s.p : "", s.n), s.n } : (struct str){ 0 };
}

struct reading {
        const char *stream;
        struct str partition;
        int64_t from;
        struct page *page;
        struct dis_records *out;
        struct str *cursor; /* where its records find it */
        struct buf id, text;
};

/* What Base64 says, into the page; false: it is none. */
static bool keep_data(struct reading *g, const struct item *item, struct str *out)
{
        struct str coded = item->data;
        char *p;

        if (item->data_escaped) {
                buf_reset(&g->text);
                (void)scan_decode(coded, &g->text);
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

static bool add_record(struct reading *g, struct scan *s, const struct item *item)
{
        struct dis_record *origin;
        struct record *r;
        struct str data;
        char mark[24];

        g->out->n++;
        if (item->sequence < g->from) {
                g->out->repeated = true;
                return true;
        }
        g->from = item->sequence + 1;
        buf_reset(&g->id);
        if (!keep_data(g, item, &data))
                return scan_fail(s, "the data of a record is no Base64");
        buf_printf(&g->id, "%s/" STR_FMT "/%lld", g->stream, STR_ARG(g->partition),
                   (long long)item->sequence);
        (void)snprintf(mark, sizeof(mark), "%lld", (long long)g->from);
        if (g->id.failed) {
                page_no_memory(g->page);
                return true;
        }
        if (!(r = page_record(g->page, buf_view(&g->id), str_of(mark))) ||
            !(origin = page_keep(g->page, sizeof(*origin))))
                return true; /* the page has failed: the reader sees it */
        if (g->out->first < 0)
                g->out->first = item->sequence;
        g->out->last = item->sequence;
        *origin = (struct dis_record){ g->partition, item->sequence, g->cursor };
        r->origin = origin;
        r->time = item->time > 0 && item->time < INT64_MAX / USEC_MSEC ? item->time * USEC_MSEC : 0;
        r->value = data;
        r->has_key = item->has_key;
        if (item->has_key) {
                buf_reset(&g->text);
                if (item->key_escaped)
                        (void)scan_decode(item->key, &g->text);
                if (g->text.failed)
                        page_no_memory(g->page);
                r->key = keep(g->page, item->key_escaped ? buf_view(&g->text) : item->key);
        }
        return true;
}

static bool read_list(struct reading *g, struct scan *s)
{
        struct item item;

        if (!scan_take(s, '['))
                return scan_fail(s, "records is no list");
        if (scan_take(s, ']'))
                return true;
        do {
                if (!read_item(s, &item) || !add_record(g, s, &item))
                        return false;
        } while (scan_more(s, ']'));
        return !s->fault;
}

static bool read_answer(struct reading *g, struct scan *s)
{
        struct str name;
        bool escaped, there, any = false;

        if (!scan_take(s, '{'))
                return scan_fail(s, "it is no object");
        if (!scan_take(s, '}'))
                do {
                        if (!scan_name(s, &name, &escaped))
                                return false;
                        if (str_is(name, "records") && !any)
                                any = read_list(g, s);
                        else if (str_is(name, "next_partition_cursor")) {
                                if (read_text(s, &g->out->cursor, &escaped, &there) && there && escaped)
                                        return scan_fail(s, "a cursor has escapes");
                        } else if (!scan_skip(s, DEPTH_MOST))
                                return false;
                } while (!s->fault && scan_more(s, '}'));
        return (!s->fault && any) || scan_fail(s, "it has no records");
}

int dis_read_records(struct str body, const char *stream, struct str partition, int64_t from,
                     struct page *page, struct dis_records *out, struct error *err)
{
        struct reading g = { .stream = stream,
                             .partition = partition,
                             .from = from,
                             .page = page,
                             .out = out,
                             .cursor = page_keep(page, sizeof(*g.cursor)),
                             .id = BUF_INIT(4096),
                             .text = BUF_INIT((size_t)RECORD_MOST) };
        struct scan s;

        *out = (struct dis_records){ .first = -1, .last = -1 };
        scan_init(&s, body);
        if (!g.cursor)
                return error_memory(err);
        (void)read_answer(&g, &s);
        buf_done(&g.id);
        buf_done(&g.text);
        if (s.fault)
                return error_set(err, ERROR_PROTOCOL, "an answer that can't be read: %s", s.fault);
        if (out->cursor.n) {
                char *p = page_keep(page, out->cursor.n);

                *g.cursor = p ? (struct str){ memcpy(p, out->cursor.p, out->cursor.n), out->cursor.n }
                              : (struct str){ 0 };
        } else
                *g.cursor = out->cursor = (struct str){ 0 };
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
        if (json_is_value(value))
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

struct sample {
        struct record record;
        struct dis_record origin;
        struct str cursor;
        struct buf id, key, data;
};

static void dis_sample_free(struct record *r)
{
        struct sample *s = CONTAINER_OF(r, struct sample, record);

        if (!r)
                return;
        buf_done(&s->id);
        buf_done(&s->key);
        buf_done(&s->data);
        free(s);
}

/* The text of a string, the JSON of anything else. */
static void sample_member(const struct node *n, struct buf *out)
{
        struct writer w;

        writer_init(&w, out);
        if (n && n->kind == NODE_STRING)
                buf_str(out, n->text);
        else if (n && n->kind != NODE_NULL)
                node_write(n, &w);
}

static int dis_sample(const struct trigger *t, const struct node *document, usec wall, struct record **out,
                      struct error *err)
{
        const struct dis_spec *spec = t->source_spec;
        const struct node *key = node_member(document, "partitionKey"), *data = node_member(document, "data");
        BUF_AT_END struct buf number = BUF_INIT(64);
        struct sample *s = calloc(1, sizeof(*s));

        if (!s)
                return error_memory(err);
        s->id.max = s->key.max = s->data.max = BUF_DEFAULT_MAX;
        sample_member(node_member(document, "sequenceNumber"), &number);
        if (!number.n || !str_to_int64(buf_view(&number), &s->origin.sequence))
                s->origin.sequence = 0;
        sample_member(key, &s->key);
        if (data)
                sample_member(data, &s->data);
        else
                buf_text(&s->data, "a record");
        s->origin.partition = STR("shardId-0000000000");
        s->origin.cursor = &s->cursor;
        buf_printf(&s->id, "%s/" STR_FMT "/%lld", spec->stream, STR_ARG(s->origin.partition),
                   (long long)s->origin.sequence);
        if (s->id.failed || s->key.failed || s->data.failed) {
                dis_sample_free(&s->record);
                return error_memory(err);
        }
        s->record = (struct record){ .id = buf_view(&s->id),
                                     .key = buf_view(&s->key),
                                     .has_key = key && key->kind != NODE_NULL,
                                     .value = buf_view(&s->data),
                                     .time = wall,
                                     .origin = &s->origin };
        *out = &s->record;
        return 0;
}

const struct shape dis_shape = {
        .ce_type = "dev.sluice.dis.record",
        .describe = dis_describe,
        .encode = dis_encode,
        .event = dis_event,
        .sample = dis_sample,
        .sample_free = dis_sample_free,
};
