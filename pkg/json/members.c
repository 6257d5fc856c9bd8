#include "json/members.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#include "json/scan.h"

struct reading {
        struct scan scan;
        struct error *err;
        bool told; /* err says what is wrong */
};

/* An object, or one within it: the members of the table that may stand there, and where their names go on. */
struct level {
        const struct json_object *object;
        const struct json_member *members;
        size_t n, skip;
        char *into;
        uint64_t *seen; /* of the object's members, a bit each */
};

static bool read_object(struct reading *, const struct json_object *, char *into);

void json_value_add(struct json_value v, struct buf *out)
{
        if (v.is_string && v.escaped)
                (void)scan_decode(v.text, out);
        else
                buf_str(out, v.text);
}

static bool tell(struct reading *g, const char *format, ...) PRINTF(2, 3);
static bool tell(struct reading *g, const char *format, ...)
{
        char text[256];
        va_list args;

        va_start(args, format);
        (void)vsnprintf(text, sizeof(text), format, args);
        va_end(args);
        (void)error_set(g->err, ERROR_PROTOCOL, "%s", text);
        g->told = true;
        return scan_fail(&g->scan, "told");
}

static bool is_no(struct reading *g, const struct level *l, const struct json_member *m, const char *kind)
{
        return tell(g, "%s of %s is no %s", m->name, l->object->what, kind);
}

/* ---- values ------------------------------------------------------------- */

static bool read_string(struct reading *g, struct json_value *out)
{
        out->is_string = true;
        return scan_string(&g->scan, &out->text, &out->escaped);
}

static bool read_any(struct reading *g, struct json_value *out)
{
        const char *from;

        *out = (struct json_value){ 0 };
        if (scan_peek(&g->scan) == '"')
                return read_string(g, out);
        from = g->scan.p;
        if (!scan_skip(&g->scan, SCAN_ANY_DEPTH))
                return false;
        out->text = (struct str){ from, (size_t)(g->scan.p - from) };
        return true;
}

static bool read_text(struct reading *g, const struct level *l, const struct json_member *m,
                      struct json_value *out)
{
        return scan_peek(&g->scan) == '"' ? read_string(g, out) : is_no(g, l, m, "string");
}

static bool read_number(struct reading *g, const struct level *l, const struct json_member *m, int64_t *out)
{
        char c = scan_peek(&g->scan);
        struct str text;
        bool escaped;

        if (c != '"' && c != '-' && (c < '0' || c > '9'))
                return is_no(g, l, m, "whole number");
        if (!(c == '"' ? scan_string(&g->scan, &text, &escaped) : scan_number(&g->scan, &text)))
                return false;
        return str_to_int64(text, out) || is_no(g, l, m, "whole number");
}

static void not_there(const struct json_member *m, char *into)
{
        if (m->kind == MEMBER_NUMBER)
                *(int64_t *)(void *)(into + m->offset) = m->otherwise;
        else if (m->kind != MEMBER_LIST)
                *(struct json_value *)(void *)(into + m->offset) = (struct json_value){ 0 };
}

static bool read_item(struct reading *g, const struct json_member *m, char *into)
{
        if (!m->any_item || scan_peek(&g->scan) == '{')
                return read_object(g, m->items, into);
        for (size_t i = 0; i < m->items->n; i++)
                not_there(&m->items->members[i], into);
        return scan_skip(&g->scan, SCAN_ANY_DEPTH);
}

static bool read_items(struct reading *g, const struct json_member *m, char *into)
{
        g->scan.p++;
        if (scan_take(&g->scan, ']'))
                return true;
        do {
                if (!read_item(g, m, into + m->offset))
                        return false;
                if (m->take(into, g->err) < 0) {
                        g->told = true;
                        return scan_fail(&g->scan, "not taken");
                }
        } while (scan_more(&g->scan, ']'));
        return !g->scan.fault;
}

static bool read_value(struct reading *g, const struct level *l, const struct json_member *m, bool *there)
{
        void *to = l->into + m->offset;

        *there = true;
        if (m->kind == MEMBER_ANY)
                return read_any(g, to);
        if (scan_peek(&g->scan) == 'n') {
                *there = false;
                not_there(m, l->into);
                return scan_word(&g->scan, "null");
        }
        if (m->kind == MEMBER_LIST)
                return scan_peek(&g->scan) == '[' ? read_items(g, m, l->into) : is_no(g, l, m, "list");
        if (m->kind == MEMBER_NUMBER)
                return read_number(g, l, m, to);
        if (!read_text(g, l, m, to))
                return false;
        *there = ((struct json_value *)to)->text.n != 0;
        return true;
}

/* ---- objects ------------------------------------------------------------ */

static bool read_members(struct reading *, const struct level *);

/* The object that the member at i lies in; so many bytes of its name say which. */
static bool read_nested(struct reading *g, const struct level *l, size_t i, size_t name_n)
{
        const char *name = l->members[i].name;
        struct level nested = *l;

        nested.members = l->members + i;
        nested.skip = l->skip + name_n + 1;
        for (nested.n = 1; i + nested.n < l->n; nested.n++)
                if (strncmp(l->members[i + nested.n].name, name, nested.skip) != 0)
                        break;
        if (scan_peek(&g->scan) != '{')
                return tell(g, "%.*s of %s is no object", (int)nested.skip - 1, name, l->object->what);
        return read_members(g, &nested);
}

/* Up to its end or the next point; a point within the name is none. */
static bool begins_with(const char *here, struct str name)
{
        for (size_t i = 0; i < name.n; i++)
                if (here[i] != name.p[i] || here[i] == '.')
                        return false;
        return !here[name.n] || here[name.n] == '.';
}

static bool read_member(struct reading *g, const struct level *l, struct str name)
{
        for (size_t i = 0; i < l->n; i++) {
                const struct json_member *m = &l->members[i];
                const char *here = m->name + l->skip;
                uint64_t bit = (uint64_t)1 << (m - l->object->members);
                bool there;

                if (!begins_with(here, name))
                        continue;
                if (here[name.n])
                        return read_nested(g, l, i, name.n);
                if (m->kind == MEMBER_LIST && *l->seen & bit)
                        break;
                if (!read_value(g, l, m, &there))
                        return false;
                *l->seen = there ? *l->seen | bit : *l->seen & ~bit;
                return true;
        }
        return scan_skip(&g->scan, SCAN_ANY_DEPTH);
}

static bool read_members(struct reading *g, const struct level *l)
{
        struct str name;
        bool escaped;

        g->scan.p++;
        if (scan_take(&g->scan, '}'))
                return true;
        do {
                if (!scan_name(&g->scan, &name, &escaped) || !read_member(g, l, name))
                        return false;
        } while (scan_more(&g->scan, '}'));
        return !g->scan.fault;
}

static bool read_object(struct reading *g, const struct json_object *o, char *into)
{
        uint64_t seen = 0;
        const struct level l = { o, o->members, o->n, 0, into, &seen };

        assert(o->n <= 64);
        for (size_t i = 0; i < o->n; i++)
                not_there(&o->members[i], into);
        if (scan_peek(&g->scan) != '{')
                return tell(g, "%s is no object", o->what);
        if (!read_members(g, &l))
                return false;
        for (size_t i = 0; i < o->n; i++)
                if (o->members[i].required && !(seen >> i & 1))
                        return tell(g, "%s has no %s", o->what, o->members[i].name);
        return true;
}

/* What is wrong with the text itself. */
static int unreadable(const struct reading *g)
{
        if (g->told)
                return -1;
        return error_set(g->err, ERROR_PROTOCOL, "%s at byte %zu", g->scan.fault,
                         (size_t)(g->scan.p - g->scan.begin));
}

int json_read_object(struct str text, const struct json_object *o, void *into, struct error *err)
{
        struct reading g = { .err = err };

        scan_init(&g.scan, text);
        return read_object(&g, o, into) ? 0 : unreadable(&g);
}

int json_read_list(struct str text, const struct json_member *list, void *into, struct error *err)
{
        struct reading g = { .err = err };

        scan_init(&g.scan, text);
        if (scan_peek(&g.scan) != '[')
                (void)tell(&g, "it is no list");
        else
                (void)read_items(&g, list, into);
        return g.scan.fault ? unreadable(&g) : 0;
}
