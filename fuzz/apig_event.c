/* Requests as they come from anyone, made into FunctionGraph's event in both dialects and into what a filter
 * sees: each is JSON that a parser takes, has exactly the members it should, and says what was sent. */
#include "api.h"
#include "base/uri.h"
#include "json/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const classic[] = { "httpMethod", "path", "pathParameters",  "queryStringParameters",
                                       "headers",    "body", "isBase64Encoded", "requestContext",
                                       NULL };
static const char *const current[] = { "httpMethod", "path", "pathParameters",  "queryStringParameters",
                                       "headers",    "body", "isBase64Encoded", "requestContext",
                                       "user_data",  NULL };
static const char *const described[] = { "method", "path", "query", "headers", "body", NULL };

static struct str text_of(const json_t *object, const char *name)
{
        const json_t *value = json_object_get(object, name);

        DEMAND(json_is_string(value));
        return (struct str){ json_string_value(value), json_string_length(value) };
}

/* A map of strings; with lists, of strings or lists of at least two. */
static void check_map(const json_t *object, const char *name, bool lists, bool lower)
{
        json_t *map = json_object_get(object, name), *value, *item;
        const char *key;
        size_t i;

        DEMAND(json_is_object(map));
        json_object_foreach(map, key, value)
        {
                DEMAND(json_is_string(value) ||
                       (lists && json_is_array(value) && json_array_size(value) >= 2));
                json_array_foreach(value, i, item) DEMAND(json_is_string(item));
                for (const char *p = key; lower && strlen(key) <= 256 && *p; p++)
                        DEMAND(*p < 'A' || *p > 'Z');
        }
}

/* A member that comes twice would be refused. NULL: the parser can't hold a NUL in a name, which JSON can. */
static json_t *parsed(const struct buf *text, const char *const *members)
{
        json_error_t error;
        json_t *root = json_loadb(text->p, text->n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
        size_t n = 0;

        DEMAND(!text->failed && json_is_value(buf_view(text), NULL));
        if (!root && json_error_code(&error) == json_error_null_byte_in_key)
                return NULL;
        if (!root)
                (void)fprintf(stderr, "%s: %.*s\n", error.text, (int)text->n, text->p);
        DEMAND(json_is_object(root));
        for (; members[n]; n++)
                DEMAND(json_object_get(root, members[n]));
        DEMAND(json_object_size(root) == n);
        return root;
}

static void check_body(const json_t *event, struct str body, bool always_base64)
{
        BUF_AT_END struct buf plain = BUF_INIT((size_t)1 << 20);
        struct str text = text_of(event, "body");
        bool base64 = json_is_true(json_object_get(event, "isBase64Encoded"));

        DEMAND(base64 == (always_base64 || !str_is_text(body)));
        if (base64) {
                DEMAND(buf_unbase64(&plain, text));
                text = buf_view(&plain);
        }
        DEMAND(str_equal(text, body));
}

static void check_event(struct api *a, struct record *record, const struct push_request *q,
                        enum dialect dialect)
{
        BUF_AT_END struct buf text = BUF_INIT((size_t)16 << 20);
        bool is_current = dialect == DIALECT_CURRENT;
        json_t *event, *context;
        struct writer w;

        writer_init(&w, &text);
        a->trigger->event->dialect = (int)dialect;
        a->kind->shape->encode(a->trigger, &record, 1, &w);
        event = parsed(&text, is_current ? current : classic);
        if (!event)
                return;
        context = json_object_get(event, "requestContext");
        DEMAND(str_equal(text_of(event, "httpMethod"), q->method) &&
               str_equal(text_of(event, "path"), q->path));
        check_map(event, "pathParameters", false, false);
        DEMAND(json_object_size(json_object_get(event, "pathParameters")) == 2);
        check_map(event, "queryStringParameters", !is_current, false);
        check_map(event, "headers", !is_current, is_current);
        check_body(event, q->body, is_current);
        DEMAND(str_equal(text_of(context, "requestId"), q->id) && text_of(context, "stage").n &&
               text_of(context, "apiId").n);
        DEMAND(json_object_size(context) == (is_current ? 4 : 3) &&
               (!is_current || str_equal(text_of(context, "sourceIp"), q->client)));
        json_decref(event);
}

static void check_described(struct api *a, const struct record *record, const struct push_request *q)
{
        BUF_AT_END struct buf text = BUF_INIT((size_t)16 << 20);
        struct writer w;
        json_t *document;

        writer_init(&w, &text);
        a->kind->shape->describe(record, &w);
        document = parsed(&text, described);
        if (!document)
                return;
        DEMAND(str_equal(text_of(document, "method"), q->method) &&
               str_equal(text_of(document, "path"), q->path));
        check_map(document, "query", true, false);
        check_map(document, "headers", true, true);
        json_decref(document);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct api *a;
        struct push_reply reply = { .headers = BUF_INIT(1 << 20), .body = BUF_INIT(1 << 20) };
        BUF_AT_END struct buf path = BUF_INIT(1 << 20);
        struct record *record;
        struct http_intake k;
        struct push_request q;
        size_t n = 1;

        if (!a)
                a = api_new("apiVersion: sluice.dev/v1alpha1\nkind: Trigger\nmetadata: {name: api, "
                            "namespace: shop, uid: u}\nspec: {source: {apig: {path: '/{first}/{rest+}'}}, "
                            "sink: {uri: 'http://f/'}}",
                            NULL);
        if (call_take(&k, (struct str){ (const char *)data, size })) {
                q = call_of(&k.codec.message);
                if (a->kind->push->route(a->source, &q, uri_path(q.path, &path)) > 0 &&
                    a->kind->push->receive(a->source, 1, &q, &record, &n, &reply) == PUSH_DELIVER) {
                        DEMAND(n == 1);
                        check_event(a, record, &q, DIALECT_CLASSIC);
                        check_event(a, record, &q, DIALECT_CURRENT);
                        check_described(a, record, &q);
                        a->kind->push->finish(a->source, 1, &record, 1,
                                              &(struct push_outcome){ .result = PUSH_TIMEOUT }, &reply);
                        reply_check(&reply);
                }
        }
        http_intake_done(&k);
        buf_done(&reply.headers);
        buf_done(&reply.body);
        return 0;
}
