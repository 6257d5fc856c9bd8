/* The reference page: Markdown from the field tables. */
#include "api/schema.h"

#include <inttypes.h>

/* In a table's cell: no line breaks, no bars. */
static void cell(struct buf *b, const char *text)
{
        for (const char *p = text; *p; p++) {
                if (*p == '|')
                        buf_char(b, '\\');
                buf_char(b, *p == '\n' ? ' ' : *p);
        }
}

/* Lines of at most 100 columns, those after the first with an indent. */
void docs_prose(struct buf *b, const char *indent, const char *text)
{
        enum { WIDTH = 100 };
        size_t column = strlen(indent);

        while (*text) {
                size_t n = strcspn(text, " ");
                bool fits = column + 1 + n <= WIDTH, first = column == strlen(indent);

                if (!first)
                        buf_text(b, fits ? " " : "\n");
                if (!first && !fits) {
                        buf_text(b, indent);
                        column = strlen(indent);
                }
                buf_add(b, text, n);
                column += n + (!first && fits);
                text += n;
                text += strspn(text, " ");
        }
        buf_char(b, '\n');
}

static void code(struct buf *b, const char *text)
{
        buf_char(b, '`');
        cell(b, text);
        buf_char(b, '`');
}

static const char *type_name(const struct field *f)
{
        switch (f->type) {
        case FIELD_STRING: return f->values ? "one of" : "string";
        case FIELD_BOOL: return "boolean";
        case FIELD_INT: return "integer";
        case FIELD_DURATION: return "duration";
        case FIELD_TIME: return "time (RFC 3339)";
        case FIELD_ENUM: return "one of";
        case FIELD_OBJECT: return "map";
        case FIELD_OBJECTS: return "list of maps";
        case FIELD_STRINGS: return "list of strings";
        case FIELD_MAP: return "map of strings";
        case FIELD_RAW: return f->shape == RAW_LIST ? "list of maps" : f->shape == RAW_MAP ? "map" : "any";
        }
        return "";
}

static const char *unit_of(const struct field *f)
{
        switch (f->type) {
        case FIELD_STRING: return " characters";
        case FIELD_OBJECTS:
        case FIELD_STRINGS: return " items";
        case FIELD_MAP: return " entries";
        case FIELD_BOOL:
        case FIELD_INT:
        case FIELD_DURATION:
        case FIELD_TIME:
        case FIELD_ENUM:
        case FIELD_OBJECT:
        case FIELD_RAW: return "";
        }
        return "";
}

static void limit(const struct field *f, int64_t n, struct buf *b)
{
        if (f->type == FIELD_DURATION)
                duration_plain(b, n);
        else
                buf_int(b, n);
}

static void bounds(const struct field *f, struct buf *b)
{
        size_t from = b->n;

        for (size_t i = 0; f->values && f->values[i]; i++) {
                buf_text(b, i ? ", " : "");
                code(b, f->values[i]);
        }
        if (f->min || f->max) {
                buf_text(b, f->max == INT64_MAX                   ? "at least "
                            : f->min == 0 && f->type != FIELD_INT ? "at most "
                                                                  : "");
                if (f->max == INT64_MAX || f->min || f->type == FIELD_INT)
                        limit(f, f->min, b);
                if (f->max != INT64_MAX) {
                        buf_text(b, f->min || f->type == FIELD_INT ? " to " : "");
                        limit(f, f->max, b);
                }
                buf_text(b, unit_of(f));
        }
        if (f->value_max)
                buf_printf(b, "%svalues of at most %" PRId64 " characters", b->n > from ? ", " : "",
                           f->value_max);
        if (f->format || f->pattern) {
                buf_text(b, b->n > from ? "; " : "");
                if (f->format)
                        cell(b, f->format);
                else
                        code(b, f->pattern);
        }
}

static void default_of(const struct field *f, struct buf *b)
{
        if (f->required)
                buf_text(b, "*required*");
        else if (f->fallback && f->type == FIELD_OBJECT)
                buf_text(b, "its members' defaults");
        else if (f->fallback)
                code(b, f->fallback);
}

/* GitHub's anchors: lower case, without dots. */
static void anchor(struct buf *b, const char *text)
{
        for (const char *p = text; *p; p++)
                if (*p != '.')
                        buf_char(b, *p >= 'A' && *p <= 'Z' ? (char)(*p - 'A' + 'a') : *p);
}

static void row(const struct field *f, const char *path, struct buf *b)
{
        const char *help = f->help                                      ? f->help
                           : f->type == FIELD_OBJECT && f->object->help ? f->object->help
                                                                        : "";

        buf_text(b, "| ");
        code(b, f->name);
        buf_text(b, " | ");
        if (f->type == FIELD_OBJECT || f->type == FIELD_OBJECTS) {
                buf_printf(b, "[%s](#", type_name(f));
                anchor(b, path);
                anchor(b, f->name);
                buf_char(b, ')');
        } else
                buf_text(b, type_name(f));
        buf_text(b, " | ");
        default_of(f, b);
        buf_text(b, " | ");
        bounds(f, b);
        buf_text(b, " | ");
        cell(b, help);
        if (f->cloud) {
                buf_text(b, " In FunctionGraph: ");
                code(b, f->cloud);
                buf_char(b, '.');
        }
        buf_text(b, " |\n");
}

static void rules(const struct type *t, struct buf *b)
{
        size_t from = b->n;

        for (size_t i = 0; i < t->rules_n; i++) {
                const struct rule *r = &t->rules[i];

                BUF_AT_END struct buf line = BUF_INIT(4096);

                if (!r->cel)
                        continue;
                buf_printf(&line, "%s%s%s", r->path ? r->path : "", r->path && *r->path ? ": " : "",
                           r->message);
                b->failed = b->failed || line.failed;
                buf_text(b, "- ");
                if (!line.failed)
                        docs_prose(b, "  ", line.p);
        }
        if (b->n > from)
                buf_char(b, '\n');
}

void schema_reference(const struct type *t, const char *path, struct buf *b)
{
        buf_printf(b, "## %s\n\n", path);
        if (t->help) {
                docs_prose(b, "", t->help);
                buf_char(b, '\n');
        }
        buf_text(b, "| Member | Type | Default | Bounds | Description |\n|---|---|---|---|---|\n");
        for (size_t i = 0; i < t->fields_n; i++)
                row(&t->fields[i], path, b);
        buf_char(b, '\n');
        rules(t, b);
        for (size_t i = 0; i < t->fields_n; i++) {
                BUF_AT_END struct buf inner = BUF_INIT(4096);

                if (t->fields[i].type != FIELD_OBJECT && t->fields[i].type != FIELD_OBJECTS)
                        continue;
                buf_printf(&inner, "%s.%s", path, t->fields[i].name);
                b->failed = b->failed || inner.failed;
                if (!inner.failed)
                        schema_reference(t->fields[i].object, inner.p, b);
        }
}

/* A row for each member, at any depth, that has what is asked for: its default or its former name. */
static void rows_of(const struct type *t, const char *path, bool former, struct buf *b)
{
        for (size_t i = 0; i < t->fields_n; i++) {
                const struct field *f = &t->fields[i];
                const char *cell = former ? f->former : f->type == FIELD_OBJECT ? NULL : f->fallback;
                BUF_AT_END struct buf inner = BUF_INIT(4096);

                buf_printf(&inner, "%s.%s", path, f->name);
                b->failed = b->failed || inner.failed;
                if (inner.failed)
                        continue;
                if (cell)
                        buf_printf(b, "| `%s` | `%s` |\n", inner.p, cell);
                if (f->type == FIELD_OBJECT)
                        rows_of(f->object, inner.p, former, b);
        }
}

void schema_reference_defaults(const struct type *t, const char *path, struct buf *b)
{
        rows_of(t, path, false, b);
}

void schema_reference_former(const struct type *t, const char *path, struct buf *b)
{
        rows_of(t, path, true, b);
}
