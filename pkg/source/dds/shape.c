#include "source/dds/shape.h"

#include <stdio.h>

#include "json/yaml.h"
#include "source/poller.h"

/* What stands around the one element of {"_id": …}, in BSON: length and end. */
enum { AROUND = 4 + 1 };

static struct str piece(const struct record *r, struct dds_piece at)
{
        return at.n ? (struct str){ r->value.p + at.at, at.n } : (struct str){ 0 };
}

static bool is_operation(const struct record *r, const char *name)
{
        struct str operation = piece(r, ((const struct dds_change *)r->origin)->operation);

        return operation.n >= 2 && str_is((struct str){ operation.p + 1, operation.n - 2 }, name);
}

/* ---- the record --------------------------------------------------------- */

static bool keep_text(struct page *page, struct str text, struct str *kept)
{
        char *copy = page_keep(page, MAX_OF(text.n, (size_t)1));

        if (!copy)
                return false;
        memcpy(copy, text.p, text.n);
        *kept = (struct str){ copy, text.n };
        return true;
}

static usec time_of(const struct dds_change *c)
{
        return c->wall_time ? c->wall_time : (usec)c->cluster_time.seconds * USEC_SEC;
}

struct record *dds_record(struct page *page, const struct dds_told *told)
{
        struct dds_change *change = page_keep(page, sizeof(*change));
        char *document = change ? page_bytes(page, told->document.n) : NULL;
        struct record *r;

        if (!document)
                return NULL;
        *change = told->change;
        memcpy(document, told->document.p, told->document.n);
        if (!keep_text(page, told->token, &change->token) || !(r = page_record(page, told->id, told->mark)))
                return NULL;
        r->origin = change;
        r->time = time_of(change);
        r->value = (struct str){ document, told->document.n };
        r->has_key = change->key.n > 0;
        if (r->has_key)
                r->key = piece(r, change->key);
        return r;
}

/* ---- the event ---------------------------------------------------------- */

/* full_document: the document, or all that is known of it. Returns its length as BSON. */
static int64_t full_document(const struct record *r, struct buf *out)
{
        const struct dds_change *c = r->origin;

        if (c->full.n) {
                buf_str(out, piece(r, c->full));
                return c->full_bytes;
        }
        if (c->key_id.n) {
                buf_text(out, "{\"_id\":");
                buf_str(out, piece(r, c->key_id));
                buf_char(out, '}');
                return AROUND + c->key_id_bytes;
        }
        buf_text(out, "{}");
        return BSON_EMPTY;
}

static void write_name(struct writer *w, struct str key, struct str json, const char *otherwise)
{
        writer_key(w, key);
        if (json.n)
                writer_raw(w, json);
        else
                writer_string(w, str_of(otherwise ? otherwise : ""));
}

/* db and coll; what other operations have in ns stands there as it came. */
static void namespace(const struct trigger *t, const struct record *r, struct buf *out)
{
        const struct dds_spec *spec = t->source_spec;
        const struct dds_change *c = r->origin;
        bool invalidate = is_operation(r, "invalidate");
        struct writer w;

        if (c->ns.n && !c->db.n) {
                buf_str(out, piece(r, c->ns));
                return;
        }
        writer_init(&w, out);
        writer_object(&w);
        write_name(&w, STR("db"), piece(r, c->db), invalidate ? spec->database : NULL);
        write_name(&w, STR("coll"), piece(r, c->coll), invalidate ? spec->collection : NULL);
        writer_object_end(&w);
}

/* An object in the Classic dialect, a string that holds its JSON in the Current one. */
static void write_json(const struct trigger *t, struct writer *w, struct str key, struct str json)
{
        writer_key(w, key);
        if (t->event->dialect == DIALECT_CLASSIC)
                writer_raw(w, json);
        else
                writer_string(w, json);
}

static void write_record(const struct trigger *t, const struct record *r, struct writer *w)
{
        const struct dds_change *c = r->origin;
        const struct event_spec *event = t->event;
        BUF_AT_END struct buf full = BUF_INIT(r->value.n + 64), ns = BUF_INIT(r->value.n + 4096);
        char bytes[24];

        (void)snprintf(bytes, sizeof(bytes), "%lld", (long long)full_document(r, &full));
        namespace(t, r, &ns);
        writer_object(w);
        writer_member_text(w, "event_source", "dds");
        writer_key(w, STR("event_name"));
        writer_raw(w, piece(r, c->operation));
        writer_member_text(w, "region", event->region ? event->region : "");
        writer_member_text(w, "event_version", "1.0");
        writer_key(w, STR("dds"));
        writer_object(w);
        writer_member_text(w, "size_bytes", bytes);
        write_json(t, w, STR("token"), c->token);
        write_json(t, w, STR("full_document"), buf_view(&full));
        write_json(t, w, STR("ns"), buf_view(&ns));
        writer_object_end(w);
        writer_member_text(w, "event_source_id", event->instance_id ? event->instance_id : "");
        writer_object_end(w);
        w->out->failed = w->out->failed || full.failed || ns.failed;
}

static void dds_encode(const struct trigger *t, struct record *const *records, size_t n, struct writer *w)
{
        writer_object(w);
        writer_key(w, STR("records"));
        writer_array(w);
        for (size_t i = 0; i < n; i++)
                write_record(t, records[i], w);
        writer_array_end(w);
        writer_object_end(w);
}

static void dds_describe(const struct record *r, struct writer *w) { writer_raw(w, r->value); }

/* The text of a JSON string without escapes; else nothing. */
static struct str plain(struct str json)
{
        bool is_plain = json.n >= 2 && json.p[0] == '"' && !memchr(json.p, '\\', json.n);

        return is_plain ? (struct str){ json.p + 1, json.n - 2 } : (struct str){ 0 };
}

static void dds_event(const struct trigger *t, const struct record *r, struct buf *space,
                      struct cloud_event *e)
{
        const struct dds_spec *spec = t->source_spec;
        const struct dds_change *c = r->origin;
        struct str db = plain(piece(r, c->db)), coll = plain(piece(r, c->coll));
        BUF_AT_END struct buf scope = BUF_INIT(1024);
        size_t source;

        dds_scope(spec, &scope);
        cloudevent_source(t, scope.p, space);
        source = space->n;
        if (db.n)
                buf_printf(space, STR_FMT "%s" STR_FMT, STR_ARG(db), coll.n ? "." : "", STR_ARG(coll));
        *e = (struct cloud_event){ .id = r->id, .time = r->time };
        space->failed = space->failed || scope.failed;
        if (space->failed)
                return;
        e->source = (struct str){ space->p, source };
        e->subject = (struct str){ space->p + source, space->n - source };
        if (r->has_key)
                e->key = r->key;
        cloudevent_data(e, r->value, STR("application/json"));
}

const struct shape dds_shape = {
        .ce_type = "dev.sluice.dds.change",
        .describe = dds_describe,
        .encode = dds_encode,
        .event = dds_event,
        .sample = dds_sample,
        .sample_free = poller_sample_free,
};
