#include "event/cloudevent.h"

#include "base/clock.h"
#include "json/check.h"

static const char *override_of(const struct cloud_event *e, const char *name)
{
        for (size_t i = 0; e->overrides && i < e->overrides->n; i++)
                if (string_equal(e->overrides->keys[i], name))
                        return e->overrides->values[i];
        return NULL;
}

/* Calls for each attribute but datacontenttype, in a fixed order. */
static void each_attribute(const struct cloud_event *e, const struct cloud_extension *more, size_t n, void (*each)(void *, const char *, struct str), void *cookie)
{
        BUF_AT_END struct buf time = BUF_INIT(64);
        const char *own;

        each(cookie, "specversion", STR("1.0"));
        each(cookie, "id", e->id);
        each(cookie, "source", e->source);
        each(cookie, "type", e->type);
        if ((own = override_of(e, "subject")))
                each(cookie, "subject", str_of(own));
        else if (e->subject.n)
                each(cookie, "subject", e->subject);
        if (e->time) {
                time_format(&time, e->time);
                each(cookie, "time", buf_view(&time));
        }
        if (e->key.p && !override_of(e, "partitionkey") && str_is_utf8(e->key))
                each(cookie, "partitionkey", e->key);
        for (size_t i = 0; e->overrides && i < e->overrides->n; i++)
                if (strcmp(e->overrides->keys[i], "subject") != 0 && strcmp(e->overrides->keys[i], "time") != 0)
                        each(cookie, e->overrides->keys[i], str_of(e->overrides->values[i]));
        for (size_t i = 0; i < n; i++)
                each(cookie, more[i].name, more[i].value);
}

/* ---- binary mode ---------------------------------------------------------------------------------------------------------------------- */

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

static void write_header(void *cookie, const char *name, struct str value)
{
        struct buf *b = cookie;

        buf_text(b, "ce-");
        buf_text(b, name);
        buf_text(b, ": ");
        header_value(b, value);
        buf_text(b, "\r\n");
}

void cloudevent_headers(const struct cloud_event *e, const struct cloud_extension *more, size_t n, struct buf *b)
{
        each_attribute(e, more, n, write_header, b);
        if (e->data.p) {
                buf_text(b, "Content-Type: ");
                buf_str(b, e->content_type);
                buf_text(b, "\r\n");
        }
}

/* ---- JSON ----------------------------------------------------------------------------------------------------------------------------- */

static void write_member(void *cookie, const char *name, struct str value)
{
        struct writer *w = cookie;

        writer_key(w, str_of(name));
        writer_string(w, value);
}

void cloudevent_write(const struct cloud_event *e, const struct cloud_extension *more, size_t n, struct writer *w)
{
        writer_object(w);
        each_attribute(e, more, n, write_member, w);
        if (e->data.p) {
                writer_member_string(w, "datacontenttype", e->content_type);
                if (e->json) {
                        writer_key(w, STR("data"));
                        writer_raw(w, e->data);
                } else if (str_is_utf8(e->data))
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
        buf_printf(b, "/apis/" API_GROUP_VERSION "/namespaces/%s/triggers/%s%s%s", t->namespace_, t->name, part ? "#" : "", part ? part : "");
}

const char *content_type_of(struct str data, bool *json)
{
        *json = json_is_value(data);
        return *json ? "application/json" : str_is_utf8(data) ? "text/plain; charset=utf-8" : "application/octet-stream";
}
