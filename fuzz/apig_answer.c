/* What functions answer, made into responses: whatever they say, no header breaks out of its line or speaks
 * of the connection, and the status is one. A parser judges which answers are well-formed, and what their
 * bodies are. */
#include "api.h"
#include "json/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A null is an absent member. */
static json_t *member(const json_t *root, const char *name)
{
        json_t *value = json_object_get(root, name);

        return json_is_null(value) ? NULL : value;
}

/* unknown: the parser has limits that JSON has not. */
static json_t *well_formed(struct str answer, bool *unknown)
{
        const struct str mark = STR("\xef\xbb\xbf");
        json_error_t error = { 0 };
        json_t *root, *status, *body, *base64, *headers;

        if (str_starts(answer, mark)) /* some serializers begin with it */
                answer = (struct str){ answer.p + mark.n, answer.n - mark.n };
        root = json_loadb(answer.p, answer.n, JSON_ALLOW_NUL, &error);
        status = member(root, "statusCode");
        body = member(root, "body");
        base64 = member(root, "isBase64Encoded");
        headers = member(root, "headers");
        *unknown = !root && (json_error_code(&error) == json_error_null_byte_in_key ||
                             json_error_code(&error) == json_error_numeric_overflow ||
                             strstr(error.text, "invalid Unicode"));
        if (json_is_object(root) && json_is_value(answer, NULL) && json_is_integer(status) &&
            json_integer_value(status) >= 200 && json_integer_value(status) <= 599 &&
            (!body || json_is_string(body)) && (!base64 || json_is_boolean(base64)) &&
            (!headers || json_is_object(headers)))
                return root;
        json_decref(root);
        return NULL;
}

static bool has(const struct push_reply *r, const char *text)
{
        return r->headers.n && memmem(r->headers.p, r->headers.n, text, strlen(text));
}
static bool is_error(const struct push_reply *r)
{
        return r->status == 500 && r->body.n && memmem(r->body.p, r->body.n, "\"APIG.0201\"", 11);
}

static void check_answer(const json_t *root, const struct push_reply *r)
{
        const json_t *body = json_object_get(root, "body");
        struct str text = { json_string_value(body), json_string_length(body) };
        BUF_AT_END struct buf plain = BUF_INIT((size_t)1 << 20);

        DEMAND(r->status == json_integer_value(json_object_get(root, "statusCode")));
        if (json_is_true(json_object_get(root, "isBase64Encoded"))) {
                DEMAND(buf_unbase64(&plain, text));
                text = buf_view(&plain);
        }
        DEMAND(str_equal(text, buf_view(&r->body)));
        DEMAND(!text.n || has(r, ":"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct api *a;
        static const struct http_message nothing;
        struct push_reply reply = { .headers = BUF_INIT(1 << 20), .body = BUF_INIT(1 << 20) };
        struct str answer = { (const char *)data, size };
        struct push_request q = call_of(&nothing);
        bool unknown;
        json_t *root = well_formed(answer, &unknown);
        struct record *record;
        size_t n = 1;

        if (!a)
                a = api_new(
                        "apiVersion: sluice.dev/v1alpha1\nkind: Trigger\nmetadata: {name: api, namespace: "
                        "shop, uid: u}\nspec: {source: {apig: {path: /}}, sink: {uri: 'http://f/'}}",
                        NULL);
        DEMAND(a->kind->push->receive(a->source, 1, &q, &record, &n, &reply) == PUSH_DELIVER && n == 1);
        a->kind->push->finish(
                a->source, 1, &record, 1,
                &(struct push_outcome){ .result = PUSH_ACCEPTED, .status = 200, .body = answer }, &reply);
        reply_check(&reply);
        DEMAND(has(&reply, "X-Request-Id: 0123456789abcdef0123456789abcdef\r\n"));
        /* A parser knows nothing of headers and Base64: what it takes may be refused for these. */
        if (!root)
                DEMAND(unknown || is_error(&reply));
        else if (!is_error(&reply))
                check_answer(root, &reply);
        else
                DEMAND(json_object_size(json_object_get(root, "headers")) ||
                       json_is_true(json_object_get(root, "isBase64Encoded")));
        json_decref(root);
        buf_done(&reply.headers);
        buf_done(&reply.body);
        return 0;
}
