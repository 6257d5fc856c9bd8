#include "base/uri.h"
#include "source/apig/apig.h"

/* name → value, with a list where a name comes more than once (Classic), or all of them joined (Current, whose values are single strings). */
struct pair { struct str name, value; };
struct pairs { struct pair list[512]; size_t n; struct buf space; bool nocase; };

static bool same_name(const struct pairs *p, size_t a, size_t b)
{
        return p->nocase ? str_equal_nocase(p->list[a].name, p->list[b].name) : str_equal(p->list[a].name, p->list[b].name);
}

static void write_name(struct writer *w, struct str name, bool lower)
{
        char text[256];

        if (!lower || name.n > sizeof(text)) {
                writer_key(w, name);
                return;
        }
        for (size_t i = 0; i < name.n; i++)
                text[i] = name.p[i] >= 'A' && name.p[i] <= 'Z' ? (char)(name.p[i] | 0x20) : name.p[i];
        writer_key(w, (struct str){ text, name.n });
}

static void write_joined(const struct pairs *p, size_t first, struct writer *w)
{
        BUF_AT_END struct buf joined = BUF_INIT(1 << 20);

        for (size_t i = first; i < p->n; i++)
                if (same_name(p, first, i)) {
                        buf_text(&joined, i == first ? "" : ",");
                        buf_str(&joined, p->list[i].value);
                }
        writer_string(w, buf_view(&joined));
        w->out->failed = w->out->failed || joined.failed;
}

static void write_pairs(const struct pairs *p, bool lists, bool lower, struct writer *w)
{
        writer_object(w);
        for (size_t i = 0; i < p->n; i++) {
                bool before = false, again = false;

                for (size_t k = 0; k < p->n; k++)
                        if (k != i && same_name(p, i, k))
                                *(k < i ? &before : &again) = true;
                if (before)
                        continue;
                write_name(w, p->list[i].name, lower);
                if (!again)
                        writer_string(w, p->list[i].value);
                else if (!lists)
                        write_joined(p, i, w);
                else {
                        writer_array(w);
                        for (size_t k = i; k < p->n; k++)
                                if (same_name(p, i, k))
                                        writer_string(w, p->list[k].value);
                        writer_array_end(w);
                }
        }
        writer_object_end(w);
}

static void add_pair(struct pairs *p, struct str name, struct str value)
{
        if (p->n < COUNT_OF(p->list))
                p->list[p->n++] = (struct pair){ name, value };
}

static void note_header(void *cookie, struct str name, struct str value) { add_pair(cookie, name, value); }

/* As UTF-8, whatever it was: two names that a reader of the event takes for one are one. */
static struct str decoded(struct pairs *p, struct str s, bool plus)
{
        size_t from = p->space.n, n;

        buf_unpercent(&p->space, s, plus);
        n = p->space.n - from;
        if (!str_is_utf8((struct str){ p->space.p + from, n })) {
                buf_utf8(&p->space, (struct str){ p->space.p + from, n });
                from += n;
        }
        return (struct str){ p->space.p + from, p->space.n - from };
}

static void parse_query(struct pairs *p, struct str query)
{
        if (!buf_reserve(&p->space, 4 * query.n + 1)) /* once, so that what is decoded stays where it is */
                return;
        while (query.n) {
                struct str value = str_cut(&query, '&'), name = str_cut(&value, '=');

                if (name.n)
                        add_pair(p, decoded(p, name, true), decoded(p, value, true));
        }
}

static void pairs_of(const struct push_request *q, struct pairs *headers, struct pairs *query)
{
        headers->n = query->n = 0; /* the lists are large, and not worth clearing */
        headers->nocase = true;
        query->nocase = false;
        headers->space = query->space = BUF_INIT(262144);
        q->each_header(q, note_header, headers);
        parse_query(query, q->query);
}

static void path_parameters(const struct apig_request *r, struct writer *w)
{
        struct str values[64];
        BUF_AT_END struct buf space = BUF_INIT(65536), path = BUF_INIT(262144);

        writer_object(w);
        if (apig_path_match(r->path, uri_path(r->request.path, &path), values))
                for (size_t i = 0; i < apig_path_names(r->path); i++) {
                        buf_reset(&space);
                        buf_unpercent(&space, values[i], false);
                        writer_key(w, apig_path_name(r->path, i));
                        writer_string(w, buf_view(&space));
                }
        writer_object_end(w);
}

static struct str context_of(const struct apig_request *r) { return r->verdict ? (struct str){ r->verdict->context, r->verdict->context_n } : (struct str){ 0 }; }

static void context(const struct services *services, const struct apig_request *r, bool current, struct writer *w)
{
        writer_key(w, STR("requestContext"));
        writer_object(w);
        writer_member_text(w, "stage", r->spec->stage);
        if (current)
                writer_member_string(w, "sourceIp", r->request.client);
        writer_member_string(w, "requestId", r->request.id);
        writer_member_text(w, "apiId", r->spec->api_id ? r->spec->api_id : services->trigger->uid);
        if (!current && r->verdict && r->verdict->context_n) {
                writer_key(w, STR("authorizer"));
                writer_raw(w, context_of(r));
        }
        writer_object_end(w);
}

/* The published types know no further member of requestContext: there user_data carries what an authorizer said. user_data p NULL: none is written. */
static void write_event(const struct services *services, bool current, const struct apig_request *r, struct str body, struct str user_data, struct writer *w)
{
        struct pairs headers, query;
        bool base64 = current || !str_is_utf8(body);

        pairs_of(&r->request, &headers, &query);
        writer_object(w);
        writer_member_string(w, "httpMethod", r->request.method);
        writer_member_string(w, "path", r->request.path);
        writer_key(w, STR("pathParameters"));
        path_parameters(r, w);
        writer_key(w, STR("queryStringParameters"));
        write_pairs(&query, !current, false, w);
        writer_key(w, STR("headers"));
        write_pairs(&headers, !current, current, w);
        writer_key(w, STR("body"));
        if (base64)
                writer_base64(w, body);
        else
                writer_string(w, body);
        writer_member_bool(w, "isBase64Encoded", base64);
        context(services, r, current, w);
        if (user_data.p)
                writer_member_string(w, "user_data", user_data);
        writer_object_end(w);
        buf_done(&query.space);
}

void apig_write_event(const struct services *services, enum dialect dialect, const struct apig_request *r, struct writer *w)
{
        bool current = dialect == DIALECT_CURRENT;
        struct str context = context_of(r);

        write_event(services, current, r, r->request.body, current ? (context.n ? context : STR("")) : (struct str){ 0 }, w);
}

void apig_write_authorizer_event(const struct services *services, enum dialect dialect, const struct apig_request *r, const char *user_data, struct writer *w)
{
        write_event(services, dialect == DIALECT_CURRENT, r, STR(""), str_of(user_data ? user_data : ""), w);
}

void apig_describe(const struct record *record, struct writer *w)
{
        const struct apig_request *r = record->native;
        struct pairs headers, query;

        pairs_of(&r->request, &headers, &query);
        writer_object(w);
        writer_member_string(w, "method", r->request.method);
        writer_member_string(w, "path", r->request.path);
        writer_key(w, STR("query"));
        write_pairs(&query, true, false, w);
        writer_key(w, STR("headers"));
        write_pairs(&headers, true, true, w);
        writer_key(w, STR("body"));
        if (str_is_utf8(r->request.body))
                writer_string(w, r->request.body);
        else
                writer_base64(w, r->request.body);
        writer_object_end(w);
        buf_done(&query.space);
}

