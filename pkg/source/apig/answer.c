#include <jansson.h>
#include <stdio.h>

#include "json/writer.h"
#include "source/apig/apig.h"

static bool malformed(struct buf *why, json_t *root, const char *what)
{
        json_decref(root);
        buf_text(why, what);
        return false;
}

static bool token(const char *s)
{
        for (; *s; s++)
                if (!strchr("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", *s))
                        return false;
        return true;
}

static bool field_value(const char *s)
{
        for (; *s; s++)
                if ((unsigned char)*s < ' ' ? *s != '\t' : *s == 0x7f)
                        return false;
        return true;
}

/* What belongs to the connection is not the function's to say. */
static bool of_connection(const char *name)
{
        static const char *const names[] = { "Connection", "Content-Length", "Transfer-Encoding", "Keep-Alive", "Upgrade", "Trailer", "TE", "Proxy-Connection" };

        for (size_t i = 0; i < COUNT_OF(names); i++)
                if (str_equal_nocase(str_of(name), str_of(names[i])))
                        return true;
        return false;
}

static bool add_header(struct buf *out, const char *name, json_t *value)
{
        const char *text = json_string_value(value);
        char number[64];

        if (json_is_integer(value) || json_is_boolean(value)) {
                (void)snprintf(number, sizeof(number), json_is_true(value) ? "true" : json_is_false(value) ? "false" : "%lld", (long long)json_integer_value(value));
                text = number;
        }
        if (!text || !*name || !token(name) || !field_value(text))
                return false;
        if (!of_connection(name))
                buf_printf(out, "%s: %s\r\n", name, text);
        return true;
}

static bool add_headers(struct buf *out, json_t *headers, bool *typed)
{
        const char *name;
        json_t *value, *item;
        size_t i;

        json_object_foreach(headers, name, value) {
                *typed = *typed || str_equal_nocase(str_of(name), STR("Content-Type"));
                if (!json_is_array(value)) {
                        if (!add_header(out, name, value))
                                return false;
                        continue;
                }
                json_array_foreach(value, i, item)
                        if (!add_header(out, name, item))
                                return false;
        }
        return true;
}

bool apig_answer(struct str answer, struct push_reply *r, struct buf *why)
{
        json_error_t error;
        json_t *root = json_loadb(answer.p, answer.n, JSON_ALLOW_NUL, &error), *body, *base64, *status, *headers;
        bool typed = false;
        struct str text;

        if (!json_is_object(root))
                return malformed(why, root, "the function's answer is no JSON object");
        status = json_object_get(root, "statusCode");
        body = json_object_get(root, "body");
        base64 = json_object_get(root, "isBase64Encoded");
        headers = json_object_get(root, "headers");
        if (!json_is_integer(status) || json_integer_value(status) < 200 || json_integer_value(status) > 599)
                return malformed(why, root, "statusCode must be an integer from 200 to 599");
        if (body && !json_is_string(body))
                return malformed(why, root, "body must be a string");
        if (base64 && !json_is_boolean(base64))
                return malformed(why, root, "isBase64Encoded must be true or false");
        if (headers && !json_is_null(headers) && !json_is_object(headers))
                return malformed(why, root, "headers must be a map");
        r->status = (int)json_integer_value(status);
        if (headers && !add_headers(&r->headers, headers, &typed))
                return malformed(why, root, "headers must map names to values that a header can hold");
        text = (struct str){ json_string_value(body), json_string_length(body) };
        if (json_is_true(base64)) {
                if (!buf_unbase64(&r->body, text))
                        return malformed(why, root, "isBase64Encoded is true, but body is no Base64");
        } else
                buf_str(&r->body, text);
        if (!typed && r->body.n)
                buf_text(&r->headers, "Content-Type: text/plain; charset=utf-8\r\n");
        json_decref(root);
        return true;
}

void apig_error(struct push_reply *r, int status, const char *code, const char *message, struct str request_id)
{
        struct writer w;

        r->status = status;
        buf_reset(&r->headers);
        buf_reset(&r->body);
        buf_printf(&r->headers, "Content-Type: application/json\r\nX-Request-Id: " STR_FMT "\r\n", STR_ARG(request_id));
        writer_init(&w, &r->body);
        writer_object(&w);
        writer_member_text(&w, "error_code", code);
        writer_member_text(&w, "error_msg", message);
        writer_member_string(&w, "request_id", request_id);
        writer_object_end(&w);
}
