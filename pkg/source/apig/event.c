#include <openssl/sha.h>
#include <stdio.h>

#include "base/pairs.h"
#include "base/uri.h"
#include "source/apig/apig.h"

/* Headers and the query; space: what of the query had to be decoded. */
struct request_pairs {
        struct pairs headers, query;
        struct buf space;
};

static void write_name(struct writer *w, struct str name, bool lower)
{
        char few[256], *text = few;

        if (!lower || (name.n > sizeof(few) && !(text = malloc(name.n)))) {
                w->out->failed = w->out->failed || lower;
                writer_key(w, name);
                return;
        }
        for (size_t i = 0; i < name.n; i++)
                text[i] = name.p[i] >= 'A' && name.p[i] <= 'Z' ? (char)(name.p[i] | 0x20) : name.p[i];
        writer_key(w, (struct str){ text, name.n });
        if (text != few)
                free(text);
}

/* Lines of a header are one list (RFC 9110, 5.3), those of Cookie one cookie string (RFC 6265, 5.4). */
static void write_joined(const struct pairs *p, const struct pair *first, struct writer *w)
{
        BUF_AT_END struct buf joined = BUF_INIT(BUF_DEFAULT_MAX);
        const char *between = p->nocase && str_equal_nocase(first->name, STR("Cookie")) ? "; " : ",";

        for (const struct pair *at = first;; at = &p->list[at->next]) {
                buf_str(&joined, at->value);
                if (at->next == PAIRS_END)
                        break;
                buf_text(&joined, between);
        }
        writer_string(w, buf_view(&joined));
        w->out->failed = w->out->failed || joined.failed;
}

static void write_list(const struct pairs *p, const struct pair *first, struct writer *w)
{
        writer_array(w);
        for (const struct pair *at = first;; at = &p->list[at->next]) {
                writer_string(w, at->value);
                if (at->next == PAIRS_END)
                        break;
        }
        writer_array_end(w);
}

/* name → value, with a list where a name comes more than once (Classic), or all of them joined (Current,
 * whose values are single strings). */
static void write_pairs(const struct pairs *p, bool lists, bool lower, struct writer *w)
{
        writer_object(w);
        for (size_t i = 0; i < p->n; i++) {
                const struct pair *at = &p->list[i];

                if (at->again)
                        continue;
                write_name(w, at->name, lower);
                if (at->next == PAIRS_END)
                        writer_string(w, at->value);
                else if (lists)
                        write_list(p, at, w);
                else
                        write_joined(p, at, w);
        }
        writer_object_end(w);
        w->out->failed = w->out->failed || p->failed;
}

static void note_header(void *cookie, struct str name, struct str value) { pairs_add(cookie, name, value); }

/* As UTF-8, whatever it was: two names that a reader of the event takes for one are one. */
static struct str decoded(struct buf *space, struct str s, bool plus)
{
        size_t from = space->n, n;

        buf_unpercent(space, s, plus);
        n = space->n - from;
        if (!str_is_utf8((struct str){ space->p + from, n })) {
                buf_utf8(space, (struct str){ space->p + from, n });
                from += n;
        }
        return (struct str){ space->p + from, space->n - from };
}

static void parse_query(struct request_pairs *p, struct str query)
{
        /* Once, so that what is decoded stays where it is: a byte that is no character becomes three. */
        p->space = BUF_INIT(4 * query.n + 2);
        if (!buf_reserve(&p->space, 4 * query.n + 1)) {
                p->query.failed = true;
                return;
        }
        while (query.n) {
                struct str value = str_cut(&query, '&'), name = str_cut(&value, '=');

                if (name.n)
                        pairs_add(&p->query, decoded(&p->space, name, true), decoded(&p->space, value, true));
        }
        p->query.failed = p->query.failed || p->space.failed;
}

static void pairs_of(const struct push_request *q, struct request_pairs *p)
{
        *p = (struct request_pairs){ .headers = PAIRS_INIT(true), .query = PAIRS_INIT(false) };
        q->each_header(q, note_header, &p->headers);
        parse_query(p, q->query);
        pairs_group(&p->headers);
        pairs_group(&p->query);
}

static void request_pairs_done(struct request_pairs *p)
{
        pairs_done(&p->headers);
        pairs_done(&p->query);
        buf_done(&p->space);
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
                        w->out->failed = w->out->failed || space.failed;
                }
        w->out->failed = w->out->failed || path.failed;
        writer_object_end(w);
}

static struct str context_of(const struct apig_request *r)
{
        return r->verdict ? (struct str){ r->verdict->context, r->verdict->context_n } : (struct str){ 0 };
}

/* Namespace and name of a Trigger that no cluster knows, as a UUID of version 5 (RFC 9562, 5.5); its
 * namespace is itself one, of "sluice.dev" as a name of DNS. */
static void own_id(struct str name, char out[APIG_ID])
{
        static const unsigned char space[16] = { 0x05, 0x7a, 0x88, 0xa6, 0xe5, 0x85, 0x58, 0xc3,
                                                 0x9c, 0x63, 0x98, 0xf2, 0xef, 0x2b, 0x5e, 0x2f };
        unsigned char hash[SHA_DIGEST_LENGTH];
        char named[1024];
        struct buf text = BUF_ON(named);

        buf_add(&text, space, sizeof(space));
        buf_str(&text, name);
        (void)SHA1((const unsigned char *)text.p, text.n, hash);
        hash[6] = (unsigned char)(0x50 | (hash[6] & 0x0f));
        hash[8] = (unsigned char)(0x80 | (hash[8] & 0x3f));
        uuid_text(hash, out);
}

const char *apig_id(const struct trigger *t, char space[APIG_ID])
{
        const struct apig_spec *spec = t->source_spec;

        if (spec->api_id || !strchr(t->uid, '/'))
                return spec->api_id ? spec->api_id : t->uid;
        own_id(str_of(t->uid), space);
        return space;
}

static void write_api_id(struct writer *w, const struct apig_request *r, const struct trigger *t)
{
        char space[APIG_ID];

        writer_member_text(w, "apiId", r->api_id ? r->api_id : apig_id(t, space));
}

static void context(const struct trigger *t, const struct apig_request *r, bool current, struct writer *w)
{
        writer_key(w, STR("requestContext"));
        writer_object(w);
        writer_member_text(w, "stage", r->spec->stage);
        if (current)
                writer_member_string(w, "sourceIp", r->request.client);
        writer_member_string(w, "requestId", r->request.id);
        write_api_id(w, r, t);
        if (!current && r->verdict && r->verdict->context_n) {
                writer_key(w, STR("authorizer"));
                writer_raw(w, context_of(r));
        }
        writer_object_end(w);
}

/* The published types know no further member of requestContext: there user_data carries what an authorizer
 * said. user_data p NULL: none is written. */
static void write_event(const struct trigger *t, bool current, const struct apig_request *r, struct str body,
                        struct str user_data, struct writer *w)
{
        struct request_pairs pairs;
        bool base64 = current || !str_is_text(body);

        pairs_of(&r->request, &pairs);
        writer_object(w);
        writer_member_string(w, "httpMethod", r->request.method);
        writer_member_string(w, "path", r->request.path);
        writer_key(w, STR("pathParameters"));
        path_parameters(r, w);
        writer_key(w, STR("queryStringParameters"));
        write_pairs(&pairs.query, !current, false, w);
        writer_key(w, STR("headers"));
        write_pairs(&pairs.headers, !current, current, w);
        writer_key(w, STR("body"));
        if (base64)
                writer_base64(w, body);
        else
                writer_string(w, body);
        writer_member_bool(w, "isBase64Encoded", base64);
        context(t, r, current, w);
        if (user_data.p)
                writer_member_string(w, "user_data", user_data);
        writer_object_end(w);
        request_pairs_done(&pairs);
}

void apig_write_event(const struct trigger *t, const struct apig_request *r, struct writer *w)
{
        bool current = t->event->dialect == DIALECT_CURRENT;
        struct str context = context_of(r);

        write_event(t, current, r, r->request.body,
                    current ? (context.n ? context : STR("")) : (struct str){ 0 }, w);
}

void apig_write_authorizer_event(const struct trigger *t, const struct apig_request *r, const char *user_data,
                                 struct writer *w)
{
        write_event(t, t->event->dialect == DIALECT_CURRENT, r, STR(""), str_of(user_data ? user_data : ""),
                    w);
}

void apig_describe(const struct record *record, struct writer *w)
{
        const struct apig_request *r = record->origin;
        struct request_pairs pairs;

        pairs_of(&r->request, &pairs);
        writer_object(w);
        writer_member_string(w, "method", r->request.method);
        writer_member_string(w, "path", r->request.path);
        writer_key(w, STR("query"));
        write_pairs(&pairs.query, true, false, w);
        writer_key(w, STR("headers"));
        write_pairs(&pairs.headers, true, true, w);
        writer_key(w, STR("body"));
        if (str_is_text(r->request.body))
                writer_string(w, r->request.body);
        else
                writer_base64(w, r->request.body);
        writer_object_end(w);
        request_pairs_done(&pairs);
}
