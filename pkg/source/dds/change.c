#include "source/dds/change.h"

#include <stdio.h>

enum { DOCUMENT_MOST = 512 << 20, PARTS_MOST = 64 << 20, TOKEN_MOST = 256 << 10 };

void dds_reading_init(struct dds_reading *g)
{
        *g = (struct dds_reading){ .parts = BUF_INIT((size_t)PARTS_MOST),
                                   .document = BUF_INIT((size_t)DOCUMENT_MOST),
                                   .token = BUF_INIT((size_t)TOKEN_MOST),
                                   .id = BUF_INIT((size_t)TOKEN_MOST),
                                   .position = BUF_INIT((size_t)TOKEN_MOST) };
}

void dds_reading_done(struct dds_reading *g)
{
        buf_done(&g->parts);
        buf_done(&g->document);
        buf_done(&g->token);
        buf_done(&g->id);
        buf_done(&g->position);
}

void dds_reading_reset(struct dds_reading *g)
{
        enum { KEPT = 1 << 20 };

        if (g->parts.cap > KEPT)
                buf_done(&g->parts);
        if (g->document.cap > KEPT)
                buf_done(&g->document);
        buf_reset(&g->parts);
        buf_reset(&g->document);
        g->fragments = g->of = 0;
}

static int no_change(struct error *err, const char *what)
{
        (void)error_set(err, ERROR_PROTOCOL, "a change that can't be read: %s", what);
        err->retry = true;
        return -1;
}

/* ---- positions ---------------------------------------------------------- */

static const char *const position_names[] = {
        [DDS_POSITION_AFTER] = "after", [DDS_POSITION_RENEW] = "renew", [DDS_POSITION_TIME] = "at"
};

/* The text of {"_data": TEXT} if that is all, and stands for itself in a mark; p NULL: it is not so. */
static struct str data_of(struct str token)
{
        struct bson_walk w;
        struct bson_element e;
        struct str text = { 0 };

        if (bson_walk(&w, token) && bson_next(&w, &e) && e.type == BSON_STRING && str_is(e.name, "_data"))
                text = bson_text(&e);
        if (!text.n || w.p != w.end)
                return (struct str){ 0 };
        for (size_t i = 0; i < text.n; i++)
                if (text.p[i] <= ' ' || text.p[i] >= 0x7f || text.p[i] == ',' || text.p[i] == '=' ||
                    text.p[i] == '"' || text.p[i] == '\\')
                        return (struct str){ 0 };
        return text;
}

void dds_token_text(struct str token, struct buf *out)
{
        struct str data = data_of(token);

        if (data.p)
                buf_str(out, data);
        else {
                buf_char(out, '=');
                buf_base64(out, token);
        }
}

static void bson_of_data(struct str data, struct buf *out)
{
        const uint32_t text = (uint32_t)data.n + 1, all = 4 + 1 + 6 + 4 + text + 1;
        const unsigned char head[] = { (unsigned char)all,
                                       (unsigned char)(all >> 8),
                                       (unsigned char)(all >> 16),
                                       (unsigned char)(all >> 24),
                                       BSON_STRING,
                                       '_',
                                       'd',
                                       'a',
                                       't',
                                       'a',
                                       0,
                                       (unsigned char)text,
                                       (unsigned char)(text >> 8),
                                       (unsigned char)(text >> 16),
                                       (unsigned char)(text >> 24) };

        buf_add(out, head, sizeof(head));
        buf_str(out, data);
        buf_add(out, "\0", 2);
}

void dds_position_write(enum dds_position_kind kind, struct dds_time time, struct str token, struct buf *mark)
{
        buf_printf(mark, "%s %u.%u", position_names[kind], time.seconds, time.number);
        if (kind == DDS_POSITION_TIME)
                return;
        buf_char(mark, ' ');
        dds_token_text(token, mark);
}

static bool read_uint32(struct str text, uint32_t *out)
{
        int64_t n;

        if (!str_to_int64(text, &n) || n < 0 || n > UINT32_MAX)
                return false;
        *out = (uint32_t)n;
        return true;
}

static bool read_kind(struct str name, enum dds_position_kind *out)
{
        for (size_t i = 0; i < COUNT_OF(position_names); i++)
                if (str_is(name, position_names[i])) {
                        *out = (enum dds_position_kind)i;
                        return true;
                }
        return false;
}

bool dds_position_read(struct str mark, struct dds_position *out)
{
        struct str kind = str_cut(&mark, ' '), time = str_cut(&mark, ' '), seconds = str_cut(&time, '.');

        buf_reset(&out->token);
        out->token.max = TOKEN_MOST;
        if (!read_kind(kind, &out->kind) || !read_uint32(seconds, &out->time.seconds) ||
            !read_uint32(time, &out->time.number))
                return false;
        if (out->kind == DDS_POSITION_TIME)
                return mark.n == 0;
        if (!mark.n)
                return false;
        if (mark.p[0] != '=')
                bson_of_data(mark, &out->token);
        else if (!buf_unbase64(&out->token, (struct str){ mark.p + 1, mark.n - 1 }))
                return false;
        return !out->token.failed;
}

/* ---- reading ------------------------------------------------------------ */

struct build {
        struct dds_reading *g;
        struct writer w;
        struct str id; /* BSON */
};

/* Where in the document a value that is written now begins: behind its name. */
static struct dds_piece piece_from(const struct buf *b, size_t from)
{
        return (struct dds_piece){ (uint32_t)from, (uint32_t)(b->n - from) };
}

/* Writes the document's member, and says where its value stands. */
static bool write_member(struct build *b, const struct bson_element *e, struct dds_piece *at)
{
        size_t from;

        writer_key(&b->w, e->name);
        from = b->g->document.n;
        if (!bson_write(e, &b->w))
                return false;
        *at = piece_from(&b->g->document, from);
        return true;
}

struct inner {
        const char *name;
        struct dds_piece *at;
        int64_t *bytes; /* of the element; may be NULL */
};

/* Writes an object member by member; of those that are named it says where they stand. */
static bool write_inner(struct build *b, const struct bson_element *e, struct dds_piece *at,
                        const struct inner *inner, size_t n)
{
        size_t from;
        struct bson_walk walk;
        struct bson_element m;

        writer_key(&b->w, e->name);
        from = b->g->document.n;
        if (e->type != BSON_DOCUMENT || !bson_walk(&walk, e->value)) {
                if (!bson_write(e, &b->w))
                        return false;
                *at = piece_from(&b->g->document, from);
                return true;
        }
        writer_object(&b->w);
        while (bson_next(&walk, &m)) {
                struct dds_piece piece;

                if (!write_member(b, &m, &piece))
                        return false;
                for (size_t i = 0; i < n; i++)
                        if (str_is(m.name, inner[i].name)) {
                                *inner[i].at = piece;
                                if (inner[i].bytes)
                                        *inner[i].bytes = (int64_t)(1 + m.name.n + 1 + m.value.n);
                        }
        }
        writer_object_end(&b->w);
        *at = piece_from(&b->g->document, from);
        return !walk.failed;
}

static bool read_full(struct build *b, const struct bson_element *e)
{
        struct dds_change *c = &b->g->change;
        struct dds_piece at;

        if (!write_member(b, e, &at))
                return false;
        if (e->type == BSON_DOCUMENT) {
                c->full = at;
                c->full_bytes = (int64_t)e->value.n;
        }
        return true;
}

static bool read_member(struct build *b, const struct bson_element *e)
{
        struct dds_change *c = &b->g->change;
        const struct inner ns[] = { { "db", &c->db, NULL }, { "coll", &c->coll, NULL } },
                           key[] = { { "_id", &c->key_id, &c->key_id_bytes } };
        struct dds_piece other;

        if (str_is(e->name, "_id")) {
                b->id = e->type == BSON_DOCUMENT ? e->value : (struct str){ 0 };
                return true;
        }
        if (str_is(e->name, "splitEvent"))
                return true;
        if (str_is(e->name, "ns"))
                return write_inner(b, e, &c->ns, ns, COUNT_OF(ns));
        if (str_is(e->name, "documentKey"))
                return write_inner(b, e, &c->key, key, COUNT_OF(key));
        if (str_is(e->name, "fullDocument"))
                return read_full(b, e);
        if (str_is(e->name, "operationType"))
                b->g->invalidate = e->type == BSON_STRING && str_is(bson_text(e), "invalidate");
        if (str_is(e->name, "clusterTime") && e->type == BSON_TIMESTAMP)
                c->cluster_time = (struct dds_time){ bson_uint32(e->value.p + 4), bson_uint32(e->value.p) };
        if (str_is(e->name, "wallTime") && e->type == BSON_DATE &&
            __builtin_mul_overflow((int64_t)bson_uint64(e->value.p), USEC_MSEC, &c->wall_time))
                c->wall_time = 0;
        return write_member(b, e, str_is(e->name, "operationType") ? &c->operation : &other);
}

/* The members of all parts. */
static bool read_parts(struct build *b, struct str rest)
{
        while (rest.n) {
                struct str part = { rest.p, rest.n < BSON_EMPTY ? rest.n : bson_uint32(rest.p) };
                struct bson_walk walk;
                struct bson_element e;

                if (part.n > rest.n || !bson_walk(&walk, part))
                        return false;
                while (bson_next(&walk, &e))
                        if (!read_member(b, &e))
                                return false;
                if (walk.failed)
                        return false;
                rest = (struct str){ rest.p + part.n, rest.n - part.n };
        }
        return true;
}

static int read_whole(struct dds_reading *g, struct str parts, struct error *err)
{
        struct build b = { .g = g };
        struct writer token;
        bool well;

        g->change = (struct dds_change){ 0 };
        g->invalidate = false;
        buf_reset(&g->document);
        buf_reset(&g->token);
        buf_reset(&g->id);
        buf_reset(&g->position);
        writer_init(&b.w, &g->document);
        writer_object(&b.w);
        well = read_parts(&b, parts);
        if (!well)
                return no_change(err, "it is no BSON, or nested too deep");
        writer_object_end(&b.w);
        if (!b.id.n)
                return no_change(err, "it has no resume token, _id; does the pipeline leave it out?");
        if (!g->change.operation.n)
                return no_change(err, "it has no operationType; does the pipeline leave it out?");
        writer_init(&token, &g->token);
        if (!bson_write_document(b.id, &token))
                return no_change(err, "its resume token is no BSON");
        dds_token_text(b.id, &g->id);
        dds_position_write(g->invalidate ? DDS_POSITION_RENEW : DDS_POSITION_AFTER, g->change.cluster_time,
                           b.id, &g->position);
        if (g->document.failed || g->token.failed || g->id.failed || g->position.failed)
                return error_memory(err);
        return 1;
}

static int64_t whole_of(const struct bson_element *e)
{
        return e->type == BSON_INT32   ? (int32_t)bson_uint32(e->value.p)
               : e->type == BSON_INT64 ? (int64_t)bson_uint64(e->value.p)
                                       : 0;
}

static bool read_fragment(struct str split, int64_t *fragment, int64_t *of)
{
        struct bson_walk walk;
        struct bson_element e;

        if (!bson_walk(&walk, split))
                return false;
        while (bson_next(&walk, &e)) {
                if (str_is(e.name, "fragment"))
                        *fragment = whole_of(&e);
                if (str_is(e.name, "of"))
                        *of = whole_of(&e);
        }
        return !walk.failed;
}

/* What a part says of itself: {fragment: 1, of: 2}; both 0: it is the whole. */
static bool read_split(struct str bson, int64_t *fragment, int64_t *of)
{
        struct bson_walk walk;
        struct bson_element e;

        *fragment = *of = 0;
        if (!bson_walk(&walk, bson))
                return false;
        while (bson_next(&walk, &e))
                if (str_is(e.name, "splitEvent") && e.type == BSON_DOCUMENT)
                        return read_fragment(e.value, fragment, of);
        return !walk.failed;
}

static int take_part(struct dds_reading *g, struct str bson, int64_t fragment, int64_t of, struct error *err)
{
        if (fragment == 1)
                dds_reading_reset(g);
        if (fragment != g->fragments + 1 || fragment > of || (g->of && of != g->of))
                return no_change(err, "its parts are not in order");
        buf_str(&g->parts, bson);
        if (g->parts.full)
                return no_change(err, "it has more than 64 MiB");
        if (g->parts.failed)
                return error_memory(err);
        g->fragments = fragment;
        g->of = of;
        if (fragment < of)
                return 0;
        g->fragments = g->of = 0;
        return read_whole(g, buf_view(&g->parts), err);
}

int dds_reading_take(struct dds_reading *g, struct str bson, struct error *err)
{
        int64_t fragment, of;

        if (!read_split(bson, &fragment, &of))
                return no_change(err, "it is no BSON");
        if (of)
                return take_part(g, bson, fragment, of, err);
        dds_reading_reset(g);
        return read_whole(g, bson, err);
}
