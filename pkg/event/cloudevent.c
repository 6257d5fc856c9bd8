#include "event/cloudevent.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "json/check.h"
#include "json/scan.h"

static const char *override_of(const struct cloud_event *e, const char *name)
{
        for (size_t i = 0; e->overrides && i < e->overrides->n; i++)
                if (string_equal(e->overrides->keys[i], name))
                        return e->overrides->values[i];
        return NULL;
}

static bool among(const struct cloud_extension *more, size_t n, struct str name)
{
        for (size_t i = 0; i < n; i++)
                if (str_is(name, more[i].name))
                        return true;
        return false;
}

bool cloudevent_is_letters(struct str name)
{
        return str_starts(name, STR("knativeerror")) || str_is(name, "sluicetruncated") ||
               str_is(name, "sluicedatasize");
}

typedef void (*each_fn)(void *cookie, struct str name, struct str value, bool raw);

/* What makes no attribute is left out rather than sent to a receiver that may refuse the event for it. */
static void optional(each_fn each, void *cookie, struct str name, struct str value)
{
        if (cloudevent_string(value))
                each(cookie, name, value, false);
}

/* Calls for each attribute but datacontenttype, in a fixed order. */
static void each_attribute(const struct cloud_event *e, const struct cloud_extension *more, size_t n,
                           each_fn each, void *cookie)
{
        char space[64];
        struct buf time = BUF_ON(space);
        const char *own;

        each(cookie, STR("specversion"), STR("1.0"), false);
        each(cookie, STR("id"), e->id, false);
        each(cookie, STR("source"), e->source, false);
        each(cookie, STR("type"), e->type, false);
        own = override_of(e, "subject");
        optional(each, cookie, STR("subject"), own ? str_of(own) : e->subject);
        if (e->time && time_is_writable(e->time)) {
                time_format(&time, e->time);
                each(cookie, STR("time"), buf_view(&time), false);
        }
        if (!override_of(e, "partitionkey"))
                optional(each, cookie, STR("partitionkey"), e->key);
        for (size_t i = 0; i < e->own_n; i++) {
                char name[64];

                (void)snprintf(name, sizeof(name), STR_FMT, STR_ARG(e->own[i].name));
                if (!override_of(e, name) && !among(more, n, e->own[i].name) &&
                    !(n && cloudevent_is_letters(e->own[i].name)))
                        each(cookie, e->own[i].name, e->own[i].value, e->own[i].raw);
        }
        for (size_t i = 0; e->overrides && i < e->overrides->n; i++)
                if (strcmp(e->overrides->keys[i], "subject") != 0 &&
                    strcmp(e->overrides->keys[i], "time") != 0)
                        optional(each, cookie, str_of(e->overrides->keys[i]),
                                 str_of(e->overrides->values[i]));
        for (size_t i = 0; i < n; i++)
                each(cookie, str_of(more[i].name), more[i].value, false);
}

/* In a request it would say that the body is the event itself. */
static bool is_event_type(struct str type)
{
        static const char start[] = "application/cloudevents";

        return type.n >= sizeof(start) - 1 &&
               str_equal_nocase((struct str){ type.p, sizeof(start) - 1 }, str_of(start));
}

/* ---- binary mode -------------------------------------------------------- */

static void header_value(struct buf *b, struct str value)
{
        static const char digits[] = "0123456789ABCDEF";

        for (size_t i = 0; i < value.n; i++) {
                unsigned char c = (unsigned char)value.p[i];

                if (c > 0x20 && c < 0x7f && c != '"' && c != '%')
                        buf_char(b, (char)c);
                else {
                        buf_char(b, '%');
                        buf_char(b, digits[c >> 4]);
                        buf_char(b, digits[c & 15]);
                }
        }
}

static void write_header(void *cookie, struct str name, struct str value, bool raw UNUSED)
{
        struct buf *b = cookie;

        buf_text(b, "ce-");
        buf_str(b, name);
        buf_text(b, ": ");
        header_value(b, value);
        buf_text(b, "\r\n");
}

void cloudevent_headers(const struct cloud_event *e, const struct cloud_extension *more, size_t n,
                        struct buf *b)
{
        b->failed = b->failed || e->no_memory;
        each_attribute(e, more, n, write_header, b);
        if (e->data.p || e->content_type.n) {
                buf_text(b, "Content-Type: ");
                if (is_event_type(e->content_type))
                        buf_text(b, e->json ? "application/json" : "application/octet-stream");
                else
                        buf_str(b, e->content_type);
                buf_text(b, "\r\n");
        }
}

/* ---- JSON --------------------------------------------------------------- */

static void write_member(void *cookie, struct str name, struct str value, bool raw)
{
        struct writer *w = cookie;

        writer_key(w, name);
        if (raw)
                writer_raw(w, value);
        else
                writer_string(w, value);
}

void cloudevent_write(const struct cloud_event *e, const struct cloud_extension *more, size_t n,
                      struct writer *w)
{
        w->out->failed = w->out->failed || e->no_memory;
        if (e->whole.p && n == 0 && (!e->overrides || e->overrides->n == 0)) {
                writer_raw(w, e->whole);
                return;
        }
        writer_object(w);
        each_attribute(e, more, n, write_member, w);
        if (e->data.p || e->content_type.n)
                writer_member_string(w, "datacontenttype", e->content_type);
        if (e->data.p) {
                if (e->json) {
                        writer_key(w, STR("data"));
                        writer_raw(w, e->data);
                } else if (!e->bytes && str_is_utf8(e->data))
                        writer_member_string(w, "data", e->data);
                else {
                        writer_key(w, STR("data_base64"));
                        writer_base64(w, e->data);
                }
        }
        writer_object_end(w);
}

void cloudevent_source(const struct trigger *t, const char *part, struct buf *b)
{
        buf_printf(b, "/apis/" API_GROUP_VERSION "/namespaces/%s/triggers/%s%s%s", t->namespace_, t->name,
                   part ? "#" : "", part ? part : "");
}

/* ---- data --------------------------------------------------------------- */

/* The type without its parameters. */
static struct str media_type(struct str type)
{
        struct str rest = type;

        return str_trim(str_cut(&rest, ';'));
}

static bool ends_nocase(struct str s, struct str end)
{
        return s.n >= end.n && str_equal_nocase((struct str){ s.p + s.n - end.n, end.n }, end);
}

static bool is_json_type(struct str type)
{
        struct str media = media_type(type);

        return ends_nocase(media, STR("/json")) || ends_nocase(media, STR("+json"));
}

/* Does it name a charset whose bytes a receiver would read otherwise than as the UTF-8 of a JSON string? */
static bool other_charset(struct str type, struct str data)
{
        struct str rest = type, name = { 0 };
        bool ascii = true;

        for (size_t i = 0; i < data.n && ascii; i++)
                ascii = (unsigned char)data.p[i] < 0x80;
        (void)str_cut(&rest, ';');
        while (rest.n) {
                struct str value = str_trim(str_cut(&rest, ';')), key = str_trim(str_cut(&value, '='));

                if (str_equal_nocase(key, STR("charset")))
                        name = str_trim(value);
        }
        if (name.n > 1 && name.p[0] == '"')
                name = (struct str){ name.p + 1, name.n - 2 };
        if (name.n == 0 || str_equal_nocase(name, STR("utf-8")) || str_equal_nocase(name, STR("utf8")) ||
            str_equal_nocase(name, STR("us-ascii")))
                return false;
        return !ascii || (name.n > 4 && str_equal_nocase((struct str){ name.p, 4 }, STR("utf-")));
}

static bool is_content_type(struct str declared)
{
        return declared.n < 256 && str_is_header_value(declared) && str_is_utf8(declared) &&
               !is_event_type(declared);
}

void cloudevent_no_data(struct cloud_event *e, struct str declared)
{
        if (is_content_type(declared))
                e->content_type = declared;
}

void cloudevent_data(struct cloud_event *e, struct str data, struct str declared)
{
        bool json = json_is_value(data, &e->no_memory);

        e->data = data.p ? data : STR("");
        if (!is_content_type(declared)) {
                e->json = json;
                e->content_type = json                ? STR("application/json")
                                  : str_is_utf8(data) ? STR("text/plain; charset=utf-8")
                                                      : STR("application/octet-stream");
                return;
        }
        e->content_type = declared;
        e->json = json && is_json_type(declared);
        e->bytes = !e->json && (is_json_type(declared) || other_charset(declared, data));
}

/* ---- reading ------------------------------------------------------------ */

bool cloudevent_name(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if (!((s.p[i] >= 'a' && s.p[i] <= 'z') || (s.p[i] >= '0' && s.p[i] <= '9')))
                        return false;
        return s.n > 0 && s.n < 64;
}

/* At a character above U+007F of valid UTF-8: U+0080 to U+009F, U+FDD0 to U+FDEF, and the last two of each
 * plane. */
static bool no_character(const unsigned char *c)
{
        if (c[0] == 0xc2)
                return c[1] < 0xa0;
        if (c[0] == 0xef)
                return (c[1] == 0xb7 && c[2] >= 0x90 && c[2] <= 0xaf) || (c[1] == 0xbf && c[2] >= 0xbe);
        return c[0] >= 0xf0 && (c[1] & 0x0f) == 0x0f && c[2] == 0xbf && c[3] >= 0xbe;
}

static bool has_characters_alone(struct str s)
{
        if (!str_is_utf8(s))
                return false;
        for (size_t i = 0; i < s.n; i++) {
                const unsigned char *c = (const unsigned char *)s.p + i;

                if (*c < 0x20 || *c == 0x7f || (*c >= 0xc2 && no_character(c)))
                        return false;
        }
        return true;
}

bool cloudevent_string(struct str s) { return s.n > 0 && has_characters_alone(s); }

/* The specification demands it of each attribute of its own, and of no extension. */
static bool is_never_empty(struct str name)
{
        static const char *const own[] = { "specversion",     "id",         "source",  "type",
                                           "datacontenttype", "dataschema", "subject", "time" };

        for (size_t i = 0; i < COUNT_OF(own); i++)
                if (str_is(name, own[i]))
                        return true;
        return false;
}

bool cloudevent_attribute(struct str name, struct str value, bool raw)
{
        usec ignored;

        /* Reserved: in JSON the data stands there. */
        if (str_is(name, "data"))
                return false;
        if (!raw && (!has_characters_alone(value) || (!value.n && is_never_empty(name))))
                return false;
        if (str_is(name, "time"))
                return !raw && time_parse(value, &ignored);
        return !raw || (!str_is(name, "subject") && !str_is(name, "dataschema"));
}

struct cloud_attribute *cloudevent_attributes(struct buf *space, size_t bytes)
{
        size_t list = CLOUDEVENT_ATTRIBUTES_MOST * sizeof(struct cloud_attribute);

        if (!buf_reserve(space, list + bytes + 1))
                return NULL;
        space->n = list;
        return (struct cloud_attribute *)(void *)space->p;
}

struct reading {
        struct cloud_event *e;
        struct cloud_attribute *list;
        struct buf *space;
        bool versioned, has_data, base64;
        struct str data;
};

static int decoded(struct reading *r, struct str raw, bool escaped, struct str *out, struct error *err)
{
        size_t from = r->space->n;

        *out = raw;
        if (!escaped)
                return 0;
        if (!scan_decode(raw, r->space))
                return error_set(err, ERROR_INVALID, "half of a surrogate pair");
        *out = (struct str){ r->space->p + from, r->space->n - from };
        return r->space->failed ? error_memory(err) : 0;
}

/* What is wrong with the text, or that memory is out. */
static int unread(const struct scan *s, const char *otherwise, struct error *err)
{
        return s->no_memory ? error_memory(err)
                            : error_set(err, ERROR_INVALID, "%s", s->fault ? s->fault : otherwise);
}

static int read_attribute(struct reading *r, struct str name, struct str value, bool raw, struct error *err)
{
        struct cloud_event *e = r->e;
        struct str *const known = str_is(name, "id")                ? &e->id
                                  : str_is(name, "source")          ? &e->source
                                  : str_is(name, "type")            ? &e->type
                                  : str_is(name, "datacontenttype") ? &e->content_type
                                                                    : NULL;

        if (!cloudevent_name(name))
                return error_set(err, ERROR_INVALID,
                                 "%.*s: no name of an attribute: lower-case letters and digits are expected",
                                 (int)MIN_OF(name.n, (size_t)60), name.p);
        if (str_is(name, "specversion")) {
                r->versioned = str_is(value, "1.0");
                return r->versioned ? 0 : error_set(err, ERROR_INVALID, "specversion: must be \"1.0\"");
        }
        if ((known && raw) || !cloudevent_attribute(name, value, raw))
                return error_set(err, ERROR_INVALID, STR_FMT ": must be %s", STR_ARG(name),
                                 str_is(name, "time")   ? "a time as RFC 3339 writes it"
                                 : is_never_empty(name) ? "a text without control characters, and not empty"
                                                        : "a text without control characters");
        if (known) {
                *known = value;
                return 0;
        }
        if (e->own_n == CLOUDEVENT_ATTRIBUTES_MOST)
                return error_set(err, ERROR_INVALID, "more than %d attributes", CLOUDEVENT_ATTRIBUTES_MOST);
        r->list[e->own_n++] = (struct cloud_attribute){ name, value, raw };
        return 0;
}

static int read_value(struct reading *r, struct scan *s, struct str name, struct error *err)
{
        const char *start;
        struct str raw;
        bool escaped, data = str_is(name, "data"), base64 = str_is(name, "data_base64");
        char first = scan_peek(s);

        start = s->p;
        if (first == '"' && !data) {
                if (!scan_string(s, &raw, &escaped))
                        return unread(s, "no JSON", err);
                if (decoded(r, raw, escaped, &raw, err) < 0)
                        return -1;
                if (!base64)
                        return read_attribute(r, name, raw, false, err);
        } else if (!scan_skip(s, SCAN_ANY_DEPTH))
                return unread(s, "no JSON", err);
        else
                raw = (struct str){ start, (size_t)(s->p - start) };
        if (data || base64) {
                if (first == 'n' && base64)
                        return 0;
                if (r->has_data || (base64 && first != '"'))
                        return error_set(
                                err, ERROR_INVALID,
                                "data and data_base64: one of them is expected, the second as a string");
                r->has_data = true;
                r->base64 = base64;
                r->data = raw;
                return 0;
        }
        if (first == 'n')
                return 0; /* null: it is not set */
        if (first == '{' || first == '[')
                return error_set(err, ERROR_INVALID,
                                 STR_FMT ": an attribute is a string, a number or a boolean", STR_ARG(name));
        return read_attribute(r, name, raw, true, err);
}

static int compare_names(const void *a_, const void *b_)
{
        const struct str *a = a_, *b = b_;
        int order = memcmp(a->p, b->p, MIN_OF(a->n, b->n));

        return order ? order : (a->n > b->n) - (a->n < b->n);
}

static int read_members(struct reading *r, struct str text, struct error *err)
{
        struct str names[CLOUDEVENT_ATTRIBUTES_MOST + 8];
        size_t n = 0;
        struct scan s;

        scan_init(&s, text);
        if (!scan_take(&s, '{'))
                return error_set(err, ERROR_INVALID, "no JSON object");
        if (!scan_take(&s, '}')) {
                do {
                        bool escaped;

                        if (n == COUNT_OF(names))
                                return error_set(err, ERROR_INVALID, "more than %d attributes",
                                                 CLOUDEVENT_ATTRIBUTES_MOST);
                        if (!scan_name(&s, &names[n], &escaped))
                                return unread(&s, "no JSON", err);
                        if (decoded(r, names[n], escaped, &names[n], err) < 0 ||
                            read_value(r, &s, names[n], err) < 0)
                                return -1;
                        n++;
                } while (scan_more(&s, '}'));
        }
        if (s.fault || scan_peek(&s) != '\0' || s.p != s.end)
                return unread(&s, "something follows the object", err);
        qsort(names, n, sizeof(names[0]), compare_names);
        for (size_t i = 1; i < n; i++)
                if (str_equal(names[i - 1], names[i]))
                        return error_set(err, ERROR_INVALID, STR_FMT ": is there twice", STR_ARG(names[i]));
        return 0;
}

static int read_data(struct reading *r, struct error *err)
{
        struct cloud_event *e = r->e;
        size_t from = r->space->n;
        struct str raw;
        struct scan s;
        bool escaped;

        if (!r->has_data) {
                if (!str_is_header_value(e->content_type))
                        e->content_type = (struct str){ 0 };
                return 0;
        }
        if (e->content_type.n && !str_is_header_value(e->content_type))
                return error_set(err, ERROR_INVALID, "datacontenttype: no media type");
        if (e->content_type.n == 0)
                e->content_type = STR("application/json");
        e->data = r->data;
        if (r->base64) {
                e->bytes = true;
                if (!buf_unbase64(r->space, r->data))
                        return error_set(err, ERROR_INVALID, "data_base64: no Base64");
                e->data = (struct str){ r->space->p + from, r->space->n - from };
                return r->space->failed ? error_memory(err) : 0;
        }
        if (is_json_type(e->content_type) || r->data.p[0] != '"') {
                e->json = true;
                return 0;
        }
        scan_init(&s, r->data);
        if (!scan_string(&s, &raw, &escaped))
                return error_set(err, ERROR_INVALID, "data: %s", s.fault);
        return decoded(r, raw, escaped, &e->data, err);
}

int cloudevent_read(struct str text, struct buf *space, struct cloud_event *e, struct error *err)
{
        struct reading r = { .e = e, .space = space, .list = cloudevent_attributes(space, text.n + 16) };

        *e = (struct cloud_event){ .whole = str_trim(text) };
        e->own = r.list;
        if (!r.list)
                return error_memory(err);
        if (!str_is_utf8(text))
                return error_set(err, ERROR_INVALID, "no UTF-8");
        if (read_members(&r, text, err) < 0)
                return -1;
        if (!r.versioned || !e->id.n || !e->source.n || !e->type.n)
                return error_set(err, ERROR_INVALID, "%s: is missing",
                                 !r.versioned   ? "specversion"
                                 : !e->id.n     ? "id"
                                 : !e->source.n ? "source"
                                                : "type");
        return read_data(&r, err);
}
