#include <jansson.h>
#include <stdio.h>

#include "json/check.h"
#include "json/scan.h"
#include "json/tree.h"
#include "json/writer.h"
#include "source/apig/apig.h"

enum { HEADER_VALUES_MOST = 4096 }; /* nulls and arrays counted: far more than any client takes */

static bool malformed(struct buf *why, const char *what)
{
        buf_text(why, what);
        return false;
}

static bool token(const char *s)
{
        for (; *s; s++)
                if (!strchr("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
                            *s))
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

/* What belongs to the connection is not the function's to say, nor are the Date, which the listener gives,
 * and the request's id, which is ours. */
static bool of_connection(const char *name)
{
        static const char *const names[] = { "Connection",  "Content-Length",   "Transfer-Encoding",
                                             "Keep-Alive",  "Upgrade",          "Trailer",
                                             "TE",          "Proxy-Connection", "Date",
                                             "X-Request-Id" };

        for (size_t i = 0; i < COUNT_OF(names); i++)
                if (str_equal_nocase(str_of(name), str_of(names[i])))
                        return true;
        return false;
}

/* What the function says of a body's length: it counts where none is sent. Two that differ say nothing. */
static void note_length(int64_t *length, const char *text)
{
        int64_t n;

        if (str_to_int64(str_trim(str_of(text)), &n) && n >= 0 &&
            (*length == PUSH_LENGTH_UNKNOWN || *length == n))
                *length = n;
        else
                *length = -2;
}

/* A null is no header. */
static bool add_header(struct push_reply *r, const char *name, json_t *value)
{
        const char *text = json_string_value(value);
        char number[64];

        if (json_is_null(value))
                return *name && token(name);
        if (json_is_integer(value) || json_is_boolean(value)) {
                (void)snprintf(number, sizeof(number),
                               json_is_true(value)    ? "true"
                               : json_is_false(value) ? "false"
                                                      : "%lld",
                               (long long)json_integer_value(value));
                text = number;
        }
        if (!text || (text != number && json_string_length(value) != strlen(text)) || !*name ||
            !token(name) || !field_value(text))
                return false;
        if (str_equal_nocase(str_of(name), STR("Content-Length")))
                note_length(&r->length, text);
        if (!of_connection(name))
                buf_printf(&r->headers, "%s: %s\r\n", name, text);
        return true;
}

static bool add_headers(struct push_reply *r, json_t *headers, bool *typed)
{
        const char *name;
        json_t *value, *item;
        size_t i;

        json_object_foreach(headers, name, value)
        {
                *typed = *typed ||
                         (!json_is_null(value) && str_equal_nocase(str_of(name), STR("Content-Type")));
                if (!json_is_array(value)) {
                        if (!add_header(r, name, value))
                                return false;
                        continue;
                }
                json_array_foreach(value, i, item) if (!add_header(r, name, item)) return false;
        }
        return true;
}

/* The text of a member's value, as written; n 0: it is absent, or null. The last of a name counts. */
struct members {
        struct str status, headers, body, base64;
};

static struct str *member_of(struct members *m, struct str raw, bool escaped)
{
        BUF_AT_END struct buf name = BUF_INIT(65536);
        const struct {
                const char *name;
                struct str *value;
        } known[] = { { "statusCode", &m->status },
                      { "headers", &m->headers },
                      { "body", &m->body },
                      { "isBase64Encoded", &m->base64 } };

        if (escaped) {
                (void)scan_decode(raw, &name);
                raw = buf_view(&name);
        }
        for (size_t i = 0; i < COUNT_OF(known); i++)
                if (str_is(raw, known[i].name))
                        return known[i].value;
        return NULL;
}

/* The body may be megabytes: no tree is built of it. */
static bool find_members(struct str answer, struct members *m)
{
        struct str name, *value;
        const char *from;
        struct scan s;
        bool escaped;

        scan_init(&s, answer);
        if (!scan_take(&s, '{'))
                return false;
        if (!scan_take(&s, '}'))
                do {
                        if (!scan_name(&s, &name, &escaped))
                                return false;
                        (void)scan_peek(&s);
                        from = s.p;
                        if (!scan_skip(&s, SCAN_ANY_DEPTH))
                                return false;
                        if ((value = member_of(m, name, escaped)))
                                *value = *from == 'n' ? (struct str){ 0 }
                                                      : (struct str){ from, (size_t)(s.p - from) };
                } while (scan_more(&s, '}'));
        return !s.fault && scan_peek(&s) == 0 && s.p == s.end && str_is_utf8(answer);
}

static bool take_headers(struct str text, struct push_reply *r, bool *typed)
{
        json_t *headers = json_tree(text, JSON_ALLOW_NUL, HEADER_VALUES_MOST, NULL);
        bool good = headers && add_headers(r, headers, typed);

        json_decref(headers);
        return good;
}

static bool take_body(struct str text, bool base64, struct buf *out, struct buf *why)
{
        BUF_AT_END struct buf plain = BUF_INIT(out->max);
        struct str raw = { text.p + 1, text.n - 2 };

        if (!base64)
                return scan_decode(raw, out) || malformed(why, "body holds half of a surrogate pair");
        if (memchr(raw.p, '\\', raw.n)) {
                (void)scan_decode(raw, &plain);
                raw = buf_view(&plain);
        }
        return buf_unbase64(out, raw) || malformed(why, "isBase64Encoded is true, but body is no Base64");
}

bool apig_answer(struct str answer, struct push_reply *r, struct buf *why)
{
        struct members m = { 0 };
        int64_t status;
        bool typed = false;

        if (!find_members(json_without_mark(answer), &m))
                return malformed(why, "the function's answer is no JSON object");
        if (!str_to_int64(m.status, &status) || status < 200 || status > 599)
                return malformed(why, "statusCode must be an integer from 200 to 599");
        if (m.body.n && m.body.p[0] != '"')
                return malformed(why, "body must be a string");
        if (m.base64.n && m.base64.p[0] != 't' && m.base64.p[0] != 'f')
                return malformed(why, "isBase64Encoded must be true or false");
        if (m.headers.n && m.headers.p[0] != '{')
                return malformed(why, "headers must be a map");
        r->status = (int)status;
        r->length = PUSH_LENGTH_UNKNOWN;
        if (m.headers.n && !take_headers(m.headers, r, &typed))
                return malformed(why,
                                 "headers must map names to values that a header can hold, 4096 at most");
        if (m.body.n && !take_body(m.body, m.base64.n && m.base64.p[0] == 't', &r->body, why))
                return false;
        if (!typed && r->body.n)
                buf_text(&r->headers, "Content-Type: text/plain; charset=utf-8\r\n");
        return true;
}

void apig_error(struct push_reply *r, int status, const char *code, const char *message,
                struct str request_id)
{
        struct writer w;

        r->status = status;
        buf_reset(&r->headers);
        buf_reset(&r->body);
        buf_printf(&r->headers, "Content-Type: application/json\r\nX-Request-Id: " STR_FMT "\r\n",
                   STR_ARG(request_id));
        writer_init(&w, &r->body);
        writer_object(&w);
        writer_member_text(&w, "error_code", code);
        writer_member_text(&w, "error_msg", message);
        writer_member_string(&w, "request_id", request_id);
        writer_object_end(&w);
}
