/* Records made of documents that people write, for previews: plain JSON becomes canonical Extended JSON, as a
 * server's documents are told in. */
#include <stdio.h>

#include "json/yaml.h"
#include "source/dds/shape.h"
#include "source/poller.h"

static const char KNOWN[] = "operationType, ns, documentKey, fullDocument, fullDocumentBeforeChange, "
                            "updateDescription, to, clusterTime, wallTime, token";

/* ---- canonical ---------------------------------------------------------- */

/* {"$oid": …} and the like stand for a value, and for so many bytes of BSON; 0: it is a document. */
static int64_t special_size(const struct node *n)
{
        static const struct {
                const char *key;
                int64_t bytes;
        } all[] = { { "$oid", 12 },   { "$numberInt", 4 },      { "$numberLong", 8 }, { "$numberDouble", 8 },
                    { "$date", 8 },   { "$numberDecimal", 16 }, { "$timestamp", 8 },  { "$minKey", 0 },
                    { "$maxKey", 0 }, { "$undefined", 0 } };

        for (size_t i = 0; n->n && i < COUNT_OF(all); i++)
                if (str_is(n->members[0].key, all[i].key))
                        return MAX_OF(all[i].bytes, (int64_t)1);
        return 0;
}

static bool is_special(const struct node *n)
{
        return n->kind == NODE_MAP && n->n && n->members[0].key.n && n->members[0].key.p[0] == '$';
}

static void write_wrapped(struct writer *w, const char *key, struct str text)
{
        writer_object(w);
        writer_key(w, str_of(key));
        writer_string(w, text);
        writer_object_end(w);
}

static void write_canonical(const struct node *n, struct writer *w)
{
        char text[BSON_DOUBLE_TEXT];

        switch (n->kind) {
        case NODE_INT:
                (void)snprintf(text, sizeof(text), "%lld", (long long)n->integer);
                write_wrapped(
                        w, n->integer >= INT32_MIN && n->integer <= INT32_MAX ? "$numberInt" : "$numberLong",
                        str_of(text));
                break;
        case NODE_FLOAT:
                bson_double_text(n->real, text);
                write_wrapped(w, "$numberDouble", str_of(text));
                break;
        case NODE_LIST:
                writer_array(w);
                for (size_t i = 0; i < n->n; i++)
                        write_canonical(n->items[i], w);
                writer_array_end(w);
                break;
        case NODE_MAP:
                if (is_special(n)) {
                        node_write(n, w);
                        break;
                }
                writer_object(w);
                for (size_t i = 0; i < n->n; i++) {
                        writer_key(w, n->members[i].key);
                        write_canonical(n->members[i].value, w);
                }
                writer_object_end(w);
                break;
        case NODE_NULL:
        case NODE_BOOL:
        case NODE_STRING: node_write(n, w); break;
        }
}

/* ---- its size ----------------------------------------------------------- */

static int64_t digits_in(size_t n)
{
        int64_t digits = 1;

        for (; n >= 10; n /= 10)
                digits++;
        return digits;
}

/* As BSON, as far as plain JSON and the usual types tell. */
static int64_t size_of(const struct node *n)
{
        int64_t bytes = BSON_EMPTY;

        switch (n->kind) {
        case NODE_NULL: return 0;
        case NODE_BOOL: return 1;
        case NODE_INT: return n->integer >= INT32_MIN && n->integer <= INT32_MAX ? 4 : 8;
        case NODE_FLOAT: return 8;
        case NODE_STRING: return (int64_t)n->text.n + 5;
        case NODE_LIST:
                for (size_t i = 0; i < n->n; i++)
                        bytes += 2 + digits_in(i) + size_of(n->items[i]);
                return bytes;
        case NODE_MAP: break;
        }
        if (special_size(n))
                return special_size(n);
        for (size_t i = 0; i < n->n; i++)
                bytes += 2 + (int64_t)n->members[i].key.n + size_of(n->members[i].value);
        return bytes;
}

/* ---- the record --------------------------------------------------------- */

struct making {
        struct buf document, token;
        struct writer w;
        struct dds_change change;
};

static struct dds_piece written(struct making *m, const char *key, const struct node *n)
{
        size_t from;

        writer_key(&m->w, str_of(key));
        from = m->document.n;
        write_canonical(n, &m->w);
        return (struct dds_piece){ (uint32_t)from, (uint32_t)(m->document.n - from) };
}

static struct dds_piece written_text(struct making *m, const char *key, const char *text)
{
        size_t from;

        writer_key(&m->w, str_of(key));
        from = m->document.n;
        writer_string(&m->w, str_of(text));
        return (struct dds_piece){ (uint32_t)from, (uint32_t)(m->document.n - from) };
}

/* A document's member or, where it has none, what the Trigger watches. */
static struct dds_piece written_name(struct making *m, const char *key, const struct node *ns,
                                     const char *watched)
{
        const struct node *n = node_member(ns, key);

        if (n)
                return written(m, key, n);
        return written_text(m, key, watched ? watched : "test");
}

static void write_ns(struct making *m, const struct node *document, const struct dds_spec *spec)
{
        const struct node *ns = node_member(document, "ns");
        size_t from;

        writer_key(&m->w, STR("ns"));
        from = m->document.n;
        writer_object(&m->w);
        m->change.db = written_name(m, "db", ns, spec->database);
        m->change.coll = written_name(m, "coll", ns, spec->collection);
        writer_object_end(&m->w);
        m->change.ns = (struct dds_piece){ (uint32_t)from, (uint32_t)(m->document.n - from) };
}

/* By default the document's _id. */
static void write_key(struct making *m, const struct node *document)
{
        const struct node *given = node_member(document, "documentKey"),
                          *full = node_member(document, "fullDocument"),
                          *id = node_member(given  ? given
                                            : full ? full
                                                   : document,
                                            "_id");
        size_t from;

        if (!given && !id)
                return;
        writer_key(&m->w, STR("documentKey"));
        from = m->document.n;
        writer_object(&m->w);
        for (size_t i = 0; given && given->kind == NODE_MAP && i < given->n; i++) {
                if (str_is(given->members[i].key, "_id"))
                        m->change.key_id = written(m, "_id", id);
                else {
                        writer_key(&m->w, given->members[i].key);
                        write_canonical(given->members[i].value, &m->w);
                }
        }
        if (!given)
                m->change.key_id = written(m, "_id", id);
        writer_object_end(&m->w);
        if (id)
                m->change.key_id_bytes = 1 + 4 + size_of(id);
        m->change.key = (struct dds_piece){ (uint32_t)from, (uint32_t)(m->document.n - from) };
}

static void write_rest(struct making *m, const struct node *document)
{
        static const char *const names[] = { "fullDocumentBeforeChange", "updateDescription", "to",
                                             "clusterTime", "wallTime" };

        for (size_t i = 0; i < COUNT_OF(names); i++) {
                const struct node *n = node_member(document, names[i]);

                if (n)
                        (void)written(m, names[i], n);
        }
}

static void write_token(struct making *m, const struct node *document)
{
        const struct node *token = node_member(document, "token");
        struct writer w;

        writer_init(&w, &m->token);
        if (token)
                node_write(token, &w);
        else
                buf_text(&m->token, "{\"_data\":\"8200000000000000012B0229296E04\"}");
}

static void write_document(struct making *m, const struct trigger *t, const struct node *document)
{
        const struct node *operation = node_member(document, "operationType"),
                          *full = node_member(document, "fullDocument");

        writer_init(&m->w, &m->document);
        writer_object(&m->w);
        m->change.operation = operation ? written(m, "operationType", operation)
                                        : written_text(m, "operationType", "insert");
        write_ns(m, document, t->source_spec);
        write_key(m, document);
        if (full) {
                struct dds_piece at = written(m, "fullDocument", full);

                if (full->kind == NODE_MAP) {
                        m->change.full = at;
                        m->change.full_bytes = size_of(full);
                }
        }
        write_rest(m, document);
        writer_object_end(&m->w);
        write_token(m, document);
}

int dds_sample(const struct trigger *t, const struct node *document, usec wall, struct record **out,
               struct error *err)
{
        static const char otherwise[] = "8200000000000000012B0229296E04";
        struct page *page = poller_sample_begin(document, KNOWN, err);
        struct making m = { .document = BUF_INIT(BUF_DEFAULT_MAX), .token = BUF_INIT(65536) };
        const struct node *data = node_member(node_member(document, "token"), "_data");
        struct dds_told told;

        if (!page)
                return -1;
        write_document(&m, t, document);
        told = (struct dds_told){ .change = m.change,
                                  .document = buf_view(&m.document),
                                  .token = buf_view(&m.token),
                                  .id = data && data->kind == NODE_STRING ? data->text : str_of(otherwise) };
        told.change.wall_time = wall;
        if (m.document.failed || m.token.failed)
                page_no_memory(page);
        else
                dds_record(page, &told);
        buf_done(&m.document);
        buf_done(&m.token);
        return poller_sample_end(page, 0, out, err);
}
