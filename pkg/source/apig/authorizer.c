#include <openssl/sha.h>
#include <stdio.h>

#include "base/random.h"
#include "json/tree.h"
#include "json/value.h"
#include "source/apig/apig.h"

enum { CONTEXT_MOST = 16 * 1024, KEY_TEXT_MOST = 1 << 20 };

/* ---- the spec ----------------------------------------------------------- */

static const char *const location_names[] = { [APIG_HEADER] = "Header", [APIG_QUERY] = "Query", NULL };
static const struct field identity_fields[] = {
        FIELD(STRING, "name", struct apig_identity, name, .required = true, .min = 1, .max = 128,
              .pattern = "^[!-~]+$", .format = "printable ASCII",
              .help = "The header's or the query parameter's name."),
        FIELD(ENUM, "location", struct apig_identity, location, .fallback = "Header",
              .values = location_names, .help = "Where it stands in a request."),
};
static const struct type identity_type = TYPE("AuthorizerIdentity", struct apig_identity, identity_fields,
                                              "Something in a request that tells who calls.");

static const struct field authorizer_fields[] = {
        FIELD(STRING, "uri", struct apig_authorizer, uri, .required = true, .min = 1, .max = 2048,
              .pattern = URI_PATTERN,
              .format = "an absolute http or https URL without user name and fragment",
              .cloud = "authorizer_uri",
              .help = "The function, POSTed to with the request's event, without the body and with "
                      "user_data."),
        FIELD(OBJECTS, "identity", struct apig_authorizer, identity, .object = &identity_type, .max = 16,
              .cloud = "identities",
              .help = "What tells who calls. A request that lacks one of them is refused at once; an answer "
                      "holds for all requests in which they say the same."),
        FIELD(STRING, "userData", struct apig_authorizer, user_data, .min = 1, .max = 4096,
              .cloud = "user_data", .help = "What the function gets as user_data."),
        FIELD(STRING, "principal", struct apig_authorizer, principal, .fallback = "user", .min = 1,
              .max = 128,
              .help = "The member of the answer's context that names the caller, for callerRateLimit; where "
                      "it is missing, callers are told apart by identity."),
        FIELD(DURATION, "cacheTTL", struct apig_authorizer, cache_ttl, .former = "cacheTtl", .fallback = "0s",
              .max = USEC_HOUR, .cloud = "ttl",
              .help = "How long an answer, allow or deny, holds; meanwhile, and while it is awaited, the "
                      "function is not asked again. 0s: it is asked about each request."),
        FIELD(DURATION, "timeout", struct apig_authorizer, timeout, .fallback = "5s", .min = USEC_MSEC,
              .max = USEC_MINUTE,
              .help = "How long the function may take; it is part of the time that the source's timeout "
                      "allows for all."),
        FIELD(OBJECT, "caSecretRef", struct apig_authorizer, ca, .object = &secret_ref_type,
              .help = "The authorities (PEM) that vouch for the function; by default delivery.tls holds for "
                      "it, too."),
};

static bool identity_for_cache(const void *object)
{
        const struct apig_authorizer *a = object;

        return a->cache_ttl == 0 || a->identity.n;
}

static const struct rule authorizer_rules[] = {
        RULE(.cel = "duration(self.cacheTTL) == duration('0s') || (has(self.identity) && size(self.identity) "
                    "> 0)",
             .path = "cacheTTL", .check = identity_for_cache,
             .message = "an answer that is kept needs identity: otherwise it would hold for everybody"),
};
const struct type apig_authorizer_type = TYPE(
        "Authorizer", struct apig_authorizer, authorizer_fields,
        "A function that says who may call, as API Gateway's custom authorizers do.",
        RULES(authorizer_rules));

/* ---- who calls ---------------------------------------------------------- */

static enum apig_keyed digest(const struct buf *text, unsigned char key[VERDICT_KEY])
{
        if (text->failed) /* requests are smaller than the buffer may be */
                return APIG_NO_MEMORY;
        (void)SHA256((const unsigned char *)text->p, text->n, key);
        return APIG_KEYED;
}

enum apig_keyed apig_secret_key(struct str salt, struct str secret, unsigned char key[VERDICT_KEY])
{
        BUF_AT_END struct buf text = BUF_INIT(KEY_TEXT_MOST);

        buf_str(&text, salt);
        buf_str(&text, secret);
        return digest(&text, key);
}

/* Each value that comes under the name: an authorizer sees them all. */
struct gathered {
        struct buf *text;
        struct str name;
        uint64_t n;
        bool said;
};

static void gather(struct gathered *g, struct str value)
{
        uint64_t n = value.n;

        buf_add(g->text, &n, sizeof(n));
        buf_str(g->text, value);
        g->n++;
        g->said = g->said || value.n;
}

static void gather_header(void *cookie, struct str name, struct str value)
{
        struct gathered *g = cookie;

        if (str_equal_nocase(name, g->name))
                gather(g, value);
}

static void gather_query(struct gathered *g, struct str query)
{
        BUF_AT_END struct buf name = BUF_INIT(65536), value = BUF_INIT(65536);

        while (query.n) {
                struct str text = str_cut(&query, '&'), key = str_cut(&text, '=');

                buf_reset(&name);
                buf_reset(&value);
                buf_unpercent(&name, key, true);
                buf_unpercent(&value, text, true);
                if (str_equal(buf_view(&name), g->name))
                        gather(g, buf_view(&value));
        }
        g->text->failed = g->text->failed || name.failed || value.failed;
}

/* Their number stands before the values, the length before each, so that no two requests that say something
 * else have one text. */
static bool add_identity(const struct apig_identity *identity, const struct push_request *q, struct buf *text)
{
        uint64_t none = 0;
        size_t at = text->n;
        struct gathered g = { .text = text, .name = str_of(identity->name) };

        buf_add(text, &none, sizeof(none));
        if (identity->location == APIG_HEADER)
                q->each_header(q, gather_header, &g);
        else
                gather_query(&g, q->query);
        if (!text->failed)
                memcpy(text->p + at, &g.n, sizeof(g.n));
        return g.said;
}

enum apig_keyed apig_authorizer_key(const struct apig_authorizer *a, struct str salt,
                                    const struct push_request *q, unsigned char key[VERDICT_KEY])
{
        BUF_AT_END struct buf text = BUF_INIT(KEY_TEXT_MOST);

        buf_str(&text, salt);
        for (size_t i = 0; i < a->identity.n; i++)
                if (!add_identity(a->identity.list[i], q, &text))
                        return text.failed ? APIG_NO_MEMORY : APIG_MISSING;
        return digest(&text, key);
}

/* ---- the question and the answer ---------------------------------------- */

static void write_question(void *cookie, const struct judge_wait *w, struct buf *headers UNUSED,
                           struct buf *body)
{
        const struct apig_asker *a = cookie;
        struct writer writer;

        writer_init(&writer, body);
        apig_write_authorizer_event(a->services->trigger, CONTAINER_OF(w, struct apig_request, wait),
                                    a->authorizer->user_data, &writer);
}

static struct verdict *malformed(json_t *one, json_t *other, struct buf *why, const char *what)
{
        json_decref(one);
        json_decref(other);
        buf_text(why, what);
        return NULL;
}

/* The context as an object of strings; numbers and truth values become such. */
static bool write_context(json_t *context, struct buf *out)
{
        struct writer w;
        const char *name;
        json_t *value;

        writer_init(&w, out);
        writer_object(&w);
        json_object_foreach(context, name, value)
        {
                char number[64];

                if (json_is_null(value))
                        continue;
                writer_key(&w, str_of(name));
                if (json_is_string(value))
                        writer_string(&w, json_text(value));
                else if (json_is_integer(value)) {
                        (void)snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(value));
                        writer_string(&w, str_of(number));
                } else if (json_is_real(value)) {
                        (void)snprintf(number, sizeof(number), "%.17g", json_real_value(value));
                        writer_string(&w, str_of(number));
                } else if (json_is_boolean(value))
                        writer_string(&w, str_of(json_is_true(value) ? "true" : "false"));
                else
                        return false;
        }
        writer_object_end(&w);
        return !out->failed;
}

static struct verdict *read_body(const struct apig_asker *a, json_t *root, json_t *body, struct buf *why)
{
        const char *status = json_string_value(json_object_get(body, "status"));
        json_t *context = json_object_get(body, "context"), *principal;
        BUF_AT_END struct buf text = BUF_INIT(CONTEXT_MOST);
        struct verdict *v;

        if (!status || (strcmp(status, "allow") != 0 && strcmp(status, "deny") != 0))
                return malformed(root, body, why, "its body's status must be \"allow\" or \"deny\"");
        if (context && !json_is_null(context) && !json_is_object(context))
                return malformed(root, body, why, "its body's context must be a map");
        if (json_is_object(context) && !write_context(context, &text))
                return malformed(root, body, why,
                                 "its body's context must map names to strings, of 16 KiB in all");
        if (strcmp(status, "deny") == 0)
                v = verdict_refuse(401, "APIG.0305",
                                   "Incorrect authentication information: frontend authorizer");
        else {
                v = verdict_new(json_object_size(context) ? buf_view(&text) : (struct str){ 0 });
                if (!v)
                        return malformed(root, body, why, "");
                v->allowed = true;
                principal = json_object_get(context, a->authorizer->principal);
                if (json_string_length(principal))
                        v->caller = hash_bytes(a->seed, json_text(principal)) | 1;
        }
        if (!v)
                return malformed(root, body, why, "");
        v->lasting = true;
        json_decref(root);
        json_decref(body);
        return v;
}

static struct verdict *read_answer(void *cookie, const struct http_request *c, usec now UNUSED,
                                   struct buf *why)
{
        BUF_AT_END struct buf plain = BUF_INIT(1 << 20);
        json_t *root, *status, *body, *base64;

        if (c->status < 200 || c->status > 299) {
                buf_printf(why, "it answered %d", c->status);
                return NULL;
        }
        root = c->body_cut ? NULL : json_tree(c->body, JSON_REJECT_DUPLICATES, JSON_VALUES_MOST, NULL);
        status = json_object_get(root, "statusCode");
        body = json_object_get(root, "body");
        base64 = json_object_get(root, "isBase64Encoded");
        base64 = json_is_null(base64) ? NULL : base64;
        if (!json_is_integer(status) || json_integer_value(status) != 200)
                return malformed(root, NULL, why, "its answer must be a JSON object with statusCode 200");
        if (!json_is_string(body) || (base64 && !json_is_boolean(base64)))
                return malformed(root, NULL, why, "its answer's body must be a string");
        if (!json_is_true(base64))
                buf_str(&plain, json_text(body));
        else if (!buf_unbase64(&plain, json_text(body)))
                return malformed(root, NULL, why,
                                 "isBase64Encoded is true, but its answer's body is no Base64");
        if (plain.failed)
                return malformed(root, NULL, why, "");
        body = json_tree(buf_view(&plain), JSON_REJECT_DUPLICATES, JSON_VALUES_MOST, NULL);
        if (!json_is_object(body))
                return malformed(root, body, why, "its answer's body must hold a JSON object");
        return read_body(cookie, root, body, why);
}

const struct judge_kind apig_authorizer_kind = { .name = "authorizer",
                                                 .code = "APIG.0305",
                                                 .write = write_question,
                                                 .read = read_answer,
                                                 .quote = apig_quote };
