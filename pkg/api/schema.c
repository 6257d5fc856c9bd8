#include "api/schema.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "base/clock.h"

struct decoder {
        struct problems *problems;
        struct buf path;
        bool defaults_only; /* nothing is demanded of the input */
        bool memory;        /* is out */
        bool failed;
};

enum { SHOWN = 60 };

void strings_join(const struct strings *s, struct buf *b)
{
        for (size_t i = 0; i < s->n; i++)
                buf_printf(b, "%s%s", i ? "," : "", s->list[i]);
}

/* ---- words for messages ------------------------------------------------- */

void duration_plain(struct buf *b, usec d)
{
        size_t from = b->n;

        duration_format(b, d);
        /* 15m0s is 15m, 1h0m0s is 1h. */
        if (!b->failed && b->n - from > 3 && memcmp(b->p + b->n - 3, "m0s", 3) == 0)
                b->n -= 2;
        if (!b->failed && b->n - from > 3 && memcmp(b->p + b->n - 3, "h0m", 3) == 0)
                b->n -= 2;
        if (b->p)
                b->p[b->n] = 0;
}

static bool bounded(const struct field *f) { return f->min || f->max; }

static void bound(const struct field *f, int64_t n, struct buf *b)
{
        if (f->type == FIELD_DURATION)
                duration_plain(b, n);
        else
                buf_int(b, n);
}

/* "1 to 1000", "at least 1" */
static void range(const struct field *f, struct buf *b)
{
        if (f->max == INT64_MAX)
                buf_text(b, "at least ");
        bound(f, f->min, b);
        if (f->max != INT64_MAX) {
                buf_text(b, " to ");
                bound(f, f->max, b);
        }
}

static size_t count_of(const char *const *values)
{
        size_t n = 0;

        while (values[n])
                n++;
        return n;
}

static void list_of(const char *const *values, struct buf *b)
{
        size_t n = count_of(values);

        for (size_t i = 0; i < n; i++)
                buf_printf(b, "%s%s", i == 0 ? "" : i + 1 == n ? " or " : ", ", values[i]);
}

void schema_expected(const struct field *f, struct buf *b)
{
        switch (f->type) {
        case FIELD_STRING:
                if (f->values)
                        list_of(f->values, b);
                else if (f->format)
                        buf_text(b, f->format);
                else
                        buf_text(b, "a string");
                break;
        case FIELD_BOOL: buf_text(b, "true or false"); break;
        case FIELD_INT: buf_text(b, "an integer"); break;
        case FIELD_DURATION: buf_text(b, "a duration such as 30s or 1m30s"); break;
        case FIELD_TIME: buf_text(b, "a time such as 2026-01-31T08:00:00Z"); break;
        case FIELD_ENUM: list_of(f->values, b); break;
        case FIELD_OBJECT: buf_text(b, "a map"); break;
        case FIELD_OBJECTS: buf_text(b, "a list of maps"); break;
        case FIELD_STRINGS: buf_text(b, "a list of strings"); break;
        case FIELD_MAP: buf_text(b, "a map of strings"); break;
        case FIELD_RAW:
                buf_text(b, f->shape == RAW_MAP ? "a map" : f->shape == RAW_LIST ? "a list" : "a value");
                break;
        }
}

static void found(const struct node *n, struct buf *b)
{
        struct str shown = text_clip(n->text, SHOWN);
        const char *more = shown.n < n->text.n ? "…" : "";

        switch (n->kind) {
        case NODE_NULL: buf_text(b, "nothing"); break;
        case NODE_BOOL: buf_printf(b, "the boolean " STR_FMT, STR_ARG(shown)); break;
        case NODE_INT: buf_printf(b, "the integer " STR_FMT "%s", STR_ARG(shown), more); break;
        case NODE_FLOAT: buf_printf(b, "the number " STR_FMT "%s", STR_ARG(shown), more); break;
        case NODE_STRING: buf_printf(b, "the string \"" STR_FMT "%s\"", STR_ARG(shown), more); break;
        case NODE_LIST: buf_text(b, "a list"); break;
        case NODE_MAP: buf_text(b, "a map"); break;
        }
}

/* ---- complaining -------------------------------------------------------- */

static void complain(struct decoder *d, unsigned line, unsigned column, const struct buf *text)
{
        d->failed = true;
        if (text->failed || d->path.failed)
                d->memory = true;
        else
                problem_add(d->problems, line, column, d->path.p ? d->path.p : "", "%s",
                            text->p ? text->p : "");
}

static bool wrong(struct decoder *d, const struct node *n, const char *format, ...) PRINTF(3, 4);
static bool wrong(struct decoder *d, const struct node *n, const char *format, ...)
{
        BUF_AT_END struct buf text = BUF_INIT(65536);
        va_list args;

        va_start(args, format);
        buf_vprintf(&text, format, args);
        va_end(args);
        complain(d, n->line, n->column, &text);
        return false;
}

static bool wrong_kind(struct decoder *d, const struct node *n, const char *expected)
{
        BUF_AT_END struct buf text = BUF_INIT(65536);
        bool scalar = n->kind == NODE_BOOL || n->kind == NODE_INT || n->kind == NODE_FLOAT;

        if (node_refused(n)) {
                d->failed = true;
                return false;
        }
        buf_printf(&text, "expected %s, found ", expected);
        found(n, &text);
        if (scalar && string_equal(expected, "a string"))
                buf_text(&text, ": put it in quotes");
        else if (n->kind == NODE_INT && strstr(expected, "duration"))
                buf_printf(&text, ": write the unit, as in " STR_FMT "s", STR_ARG(text_clip(n->text, SHOWN)));
        else if (n->kind == NODE_NULL)
                buf_text(&text, ": give a value, or remove it");
        complain(d, n->line, n->column, &text);
        return false;
}

static bool wrong_field(struct decoder *d, const struct field *f, const struct node *n)
{
        BUF_AT_END struct buf expected = BUF_INIT(65536);

        /* Of the type alone: what else a string must be is said once it is one. */
        if (f->type == FIELD_STRING && !f->values)
                buf_text(&expected, "a string");
        else
                schema_expected(f, &expected);
        return wrong_kind(d, n, expected.p ? expected.p : "");
}

static bool wrong_range(struct decoder *d, const struct field *f, const struct node *n, const char *unit,
                        struct str given)
{
        BUF_AT_END struct buf text = BUF_INIT(4096);
        struct str shown = text_clip(given, SHOWN);

        buf_text(&text, "expected ");
        range(f, &text);
        buf_printf(&text, "%s, found " STR_FMT "%s", unit, STR_ARG(shown), shown.n < given.n ? "…" : "");
        complain(d, n->line, n->column, &text);
        return false;
}

static bool wrong_count(struct decoder *d, const struct field *f, const struct node *n, const char *unit,
                        size_t count)
{
        char number[32];

        (void)snprintf(number, sizeof(number), "%zu", count);
        return wrong_range(d, f, n, unit, str_of(number));
}

static size_t path_push(struct decoder *d, struct str name)
{
        size_t before = d->path.n;

        if (before && name.n && name.p[0] != '[')
                buf_char(&d->path, '.');
        buf_str(&d->path, name);
        return before;
}

static void path_pop(struct decoder *d, size_t before)
{
        if (d->path.failed)
                return;
        d->path.n = before;
        if (d->path.p)
                d->path.p[before] = 0;
}

/* ---- values ------------------------------------------------------------- */

static size_t characters(struct str s)
{
        size_t n = 0;

        for (size_t i = 0; i < s.n; i++)
                n += ((unsigned char)s.p[i] & 0xc0) != 0x80;
        return n;
}

static bool within(const struct field *f, int64_t n) { return !bounded(f) || (n >= f->min && n <= f->max); }

static bool wrong_value(struct decoder *d, const struct node *n, const char *const *values)
{
        BUF_AT_END struct buf text = BUF_INIT(65536);
        struct str shown = text_clip(n->text, SHOWN);
        const char *near = nearest_name(n->text, values, count_of(values));

        buf_text(&text, "expected ");
        list_of(values, &text);
        buf_printf(&text, ", found \"" STR_FMT "\"", STR_ARG(shown));
        if (near && count_of(values) > 1)
                buf_printf(&text, "; did you mean \"%s\"?", near);
        complain(d, n->line, n->column, &text);
        return false;
}

static int value_index(const char *const *values, struct str s)
{
        for (int i = 0; values[i]; i++)
                if (str_is(s, values[i]))
                        return i;
        return -1;
}

/* A string of its own, checked by the pattern; what: what it is measured for. */
static char *take_string(struct decoder *d, const struct node *n, const char *pattern, const char *format)
{
        char *copy;

        if (n->text.n && memchr(n->text.p, 0, n->text.n)) {
                (void)wrong(d, n, "the string holds a NUL character: remove it");
                return NULL;
        }
        copy = str_dup(n->text);
        if (!copy) {
                d->memory = true;
                return NULL;
        }
        if (pattern && !schema_matches(pattern, copy)) {
                struct str shown = text_clip(n->text, SHOWN);
                const char *more = shown.n < n->text.n ? "…" : "";

                if (format)
                        (void)wrong(d, n, "expected %s, found \"" STR_FMT "%s\"", format, STR_ARG(shown),
                                    more);
                else
                        (void)wrong(d, n, "\"" STR_FMT "%s\" does not match the pattern %s", STR_ARG(shown),
                                    more, pattern);
                free(copy);
                return NULL;
        }
        return copy;
}

static bool decode_string(struct decoder *d, const struct field *f, const struct node *n, char **out)
{
        if (n->kind != NODE_STRING)
                return wrong_field(d, f, n);
        if (!within(f, (int64_t)characters(n->text)))
                return wrong_count(d, f, n, " characters", characters(n->text));
        if (f->values && value_index(f->values, n->text) < 0)
                return wrong_value(d, n, f->values);
        *out = take_string(d, n, f->pattern, f->format);
        return *out != NULL;
}

/* Too small a number to be told from 0 is none. */
static bool is_zero(struct str text)
{
        for (size_t i = 0; i < text.n && text.p[i] != 'e' && text.p[i] != 'E'; i++)
                if (text.p[i] >= '1' && text.p[i] <= '9')
                        return false;
        return true;
}

static bool decode_int(struct decoder *d, const struct field *f, const struct node *n, int64_t *out)
{
        /* 8080.0 and 1e3 are integers, as in JSON Schema, as far as a double tells them apart. */
        bool whole = n->kind == NODE_FLOAT && fabs(n->real) < 0x1p53 && n->real == trunc(n->real) &&
                     (n->real != 0 || is_zero(n->text));
        int64_t value = whole ? (int64_t)n->real : n->integer;

        if (n->kind != NODE_INT && !whole)
                return wrong_field(d, f, n);
        if (!within(f, value))
                return wrong_range(d, f, n, "", n->text);
        *out = value;
        return true;
}

static bool decode_duration(struct decoder *d, const struct field *f, const struct node *n, usec *out)
{
        FREE_AT_END char *text = NULL;
        usec value;

        if (n->kind != NODE_STRING)
                return wrong_field(d, f, n);
        text = str_dup(n->text);
        if (!text) {
                d->memory = true;
                return false;
        }
        if (strlen(text) != n->text.n || characters(n->text) > DURATION_LONGEST ||
            !schema_matches(DURATION_PATTERN, text) || !duration_parse(n->text, &value)) {
                size_t count = n->text.n;

                if (count > 1 && count <= SHOWN && n->text.p[count - 1] == 'd' &&
                    strspn(text, "0123456789") == count - 1)
                        return wrong(d, n,
                                     "expected a duration such as 30s or 1m30s, found the string \"%s\": "
                                     "days are not known, write hours",
                                     text);
                return wrong_field(d, f, n);
        }
        if (!within(f, value))
                return wrong_range(d, f, n, "", n->text);
        *out = value;
        return true;
}

static bool decode_time(struct decoder *d, const struct field *f, const struct node *n, usec *out)
{
        if (n->kind != NODE_STRING || !time_parse(n->text, out))
                return wrong_field(d, f, n);
        return true;
}

static bool decode_enum(struct decoder *d, const struct field *f, const struct node *n, int *out)
{
        int i;

        if (n->kind != NODE_STRING)
                return wrong_field(d, f, n);
        i = value_index(f->values, n->text);
        if (i < 0)
                return wrong_value(d, n, f->values);
        *out = i;
        return true;
}

static bool decode_item(struct decoder *d, const struct field *f, const struct node *n, char **out)
{
        if (n->kind != NODE_STRING)
                return wrong_kind(d, n, "a string");
        if (f->item_min_one && n->text.n == 0)
                return wrong(d, n, "an item must not be empty: remove it, or give a value");
        *out = take_string(d, n, f->pattern, f->format);
        return *out != NULL;
}

/* Lists are short: each has its bound. */
static bool decode_new(struct decoder *d, const struct strings *list, size_t i, const struct node *n)
{
        for (size_t k = 0; list->list[i] && k < i; k++)
                if (list->list[k] && strcmp(list->list[k], list->list[i]) == 0)
                        return wrong(d, n,
                                     "expected each item once, found \"" STR_FMT
                                     "\" again, which is [%zu] already",
                                     STR_ARG(text_clip(n->text, SHOWN)), k);
        return true;
}

static bool decode_strings(struct decoder *d, const struct field *f, const struct node *n,
                           struct strings *out)
{
        bool fine = true;

        if (n->kind != NODE_LIST)
                return wrong_field(d, f, n);
        if (!within(f, (int64_t)n->n))
                return wrong_count(d, f, n, " items", n->n);
        out->list = calloc(n->n ? n->n : 1, sizeof(*out->list));
        if (!out->list) {
                d->memory = true;
                return false;
        }
        out->n = n->n;
        for (size_t i = 0; i < n->n; i++) {
                char index[32];
                size_t before;

                (void)snprintf(index, sizeof(index), "[%zu]", i);
                before = path_push(d, str_of(index));
                fine = decode_item(d, f, n->items[i], &out->list[i]) &&
                       (!f->set || decode_new(d, out, i, n->items[i])) && fine;
                path_pop(d, before);
        }
        return fine;
}

static bool decode_entry(struct decoder *d, const struct field *f, const struct member *m, char **key,
                         char **value)
{
        struct node key_node = { .kind = NODE_STRING, .line = m->line, .column = m->column, .text = m->key };

        *key = take_string(d, &key_node, NULL, NULL);
        if (m->value->kind != NODE_STRING)
                return wrong_kind(d, m->value, "a string");
        if (f->value_max && (int64_t)characters(m->value->text) > f->value_max)
                return wrong(d, m->value, "expected at most %" PRId64 " characters, found %zu", f->value_max,
                             characters(m->value->text));
        *value = take_string(d, m->value, f->pattern, f->format);
        return *key && *value;
}

static bool decode_map(struct decoder *d, const struct field *f, const struct node *n, struct string_map *out)
{
        bool fine = true;

        if (n->kind != NODE_MAP)
                return wrong_field(d, f, n);
        if (!within(f, (int64_t)n->n))
                return wrong_count(d, f, n, " entries", n->n);
        out->keys = calloc(n->n ? n->n : 1, sizeof(*out->keys));
        out->values = calloc(n->n ? n->n : 1, sizeof(*out->values));
        if (!out->keys || !out->values) {
                d->memory = true;
                return false;
        }
        for (size_t i = 0; i < n->n; i++) {
                const struct member *m = &n->members[i];
                size_t before;

                if (m->value->kind == NODE_NULL && !node_refused(m->value))
                        continue;
                before = path_push(d, STR("["));
                buf_str(&d->path, text_clip(m->key, SHOWN));
                buf_char(&d->path, ']');
                fine = decode_entry(d, f, m, &out->keys[out->n], &out->values[out->n]) && fine;
                out->n++;
                path_pop(d, before);
        }
        return fine;
}

static bool decode_raw(struct decoder *d, const struct field *f, const struct node *n, char **out)
{
        struct buf text = BUF_INIT((size_t)16 << 20); /* a file's MiB, each byte of it escaped */
        struct writer w;

        if ((f->shape == RAW_MAP && n->kind != NODE_MAP) || (f->shape == RAW_LIST && n->kind != NODE_LIST))
                return wrong_field(d, f, n);
        for (size_t i = 0; f->shape == RAW_LIST && i < n->n; i++)
                if (n->items[i]->kind != NODE_MAP)
                        return wrong_kind(d, n->items[i], "a list of maps");
        writer_init(&w, &text);
        node_write(n, &w);
        *out = buf_take(&text);
        d->memory = d->memory || !*out;
        return *out != NULL;
}

/* ---- objects ------------------------------------------------------------ */

static void decode_object(struct decoder *d, const struct type *t, const struct node *n, void *object);

static bool decode_objects(struct decoder *d, const struct field *f, const struct node *n,
                           struct objects *out)
{
        if (n->kind != NODE_LIST)
                return wrong_field(d, f, n);
        if (!within(f, (int64_t)n->n))
                return wrong_count(d, f, n, " items", n->n);
        out->list = calloc(n->n ? n->n : 1, sizeof(*out->list));
        for (size_t i = 0; out->list && i < n->n; i++) {
                char index[32];
                size_t before;

                if (!(out->list[i] = calloc(1, f->object->size)))
                        break;
                out->n = i + 1;
                (void)snprintf(index, sizeof(index), "[%zu]", i);
                before = path_push(d, str_of(index));
                if (n->items[i]->kind == NODE_MAP)
                        decode_object(d, f->object, n->items[i], out->list[i]);
                else
                        (void)wrong_kind(d, n->items[i], "a map");
                path_pop(d, before);
        }
        d->memory = d->memory || out->n < n->n;
        return true;
}

static void *member_of(const struct field *f, void *object) { return (char *)object + f->offset; }
static const void *const_member_of(const struct field *f, const void *object)
{
        return (const char *)object + f->offset;
}

/* false: a problem of the object's own; what is wrong inside a nested object is not. */
static bool decode_field(struct decoder *d, const struct field *f, const struct node *n, void *object)
{
        void *at = member_of(f, object);

        switch (f->type) {
        case FIELD_STRING: return decode_string(d, f, n, at);
        case FIELD_BOOL:
                if (n->kind != NODE_BOOL)
                        return wrong_field(d, f, n);
                *(bool *)at = n->boolean;
                return true;
        case FIELD_INT: return decode_int(d, f, n, at);
        case FIELD_DURATION: return decode_duration(d, f, n, at);
        case FIELD_TIME: return decode_time(d, f, n, at);
        case FIELD_ENUM: return decode_enum(d, f, n, at);
        case FIELD_OBJECT:
                if (n->kind != NODE_MAP)
                        return wrong_field(d, f, n);
                *(void **)at = calloc(1, f->object->size ? f->object->size : 1);
                if (*(void **)at)
                        decode_object(d, f->object, n, *(void **)at);
                d->memory = d->memory || !*(void **)at;
                return true;
        case FIELD_OBJECTS: return decode_objects(d, f, n, at);
        case FIELD_STRINGS: return decode_strings(d, f, n, at);
        case FIELD_MAP: return decode_map(d, f, n, at);
        case FIELD_RAW: return decode_raw(d, f, n, at);
        }
        return false;
}

const struct node *schema_fallback(const struct field *f, struct documents *docs)
{
        struct problems problems = { 0 };
        int result;

        *docs = (struct documents){ 0 };
        if (!f->fallback)
                return NULL;
        result = yaml_parse(docs, str_of(f->fallback), &problems);
        problems_done(&problems);
        return result == 0 && docs->n == 1 ? docs->roots[0] : NULL;
}

static bool decode_fallback(struct decoder *d, const struct field *f, const struct node *parent, void *object)
{
        struct documents docs;
        const struct node *parsed = schema_fallback(f, &docs);
        struct node n;
        bool fine = false;

        if (parsed) {
                n = *parsed;
                n.line = parent->line; /* where to look when a rule of the object does not hold */
                n.column = parent->column;
                fine = decode_field(d, f, &n, object);
        } else
                d->memory = true;
        documents_done(&docs);
        return fine;
}

static bool missing(struct decoder *d, const struct field *f, const struct node *parent)
{
        BUF_AT_END struct buf expected = BUF_INIT(65536);

        schema_expected(f, &expected);
        /* The API server may have dropped what was given under its former name. */
        return wrong(d, parent, "is missing: give %s%s%s", expected.p ? expected.p : "",
                     f->former ? "; it was called " : "", f->former ? f->former : "");
}

static const struct field *field_named(const struct type *t, struct str name)
{
        for (size_t i = 0; i < t->fields_n; i++)
                if (str_is(name, t->fields[i].name))
                        return &t->fields[i];
        return NULL;
}

/* Also for those who pass unknown members by: it would be lost. Returns today's name; NULL: it never was one.
 */
static const char *former_member(struct decoder *d, const struct type *t, const struct member *m)
{
        for (size_t i = 0; i < t->fields_n; i++) {
                BUF_AT_END struct buf text = BUF_INIT(4096);
                size_t before;

                if (!t->fields[i].former || !str_is(m->key, t->fields[i].former))
                        continue;
                buf_printf(&text, "is now called %s", t->fields[i].name);
                before = path_push(d, m->key);
                complain(d, m->line, m->column, &text);
                path_pop(d, before);
                return t->fields[i].name;
        }
        return NULL;
}

/* Returns the known name that was meant; NULL: none is near. */
static const char *unknown_member(struct decoder *d, const struct type *t, const struct member *m)
{
        BUF_AT_END struct buf text = BUF_INIT(65536);
        const char *names[64], *near;
        size_t n = MIN_OF(t->fields_n, COUNT_OF(names) - 1);

        if (d->problems->pass_unknown) {
                if (d->problems->unknown++ == 0)
                        (void)snprintf(d->problems->first_unknown, sizeof(d->problems->first_unknown),
                                       "%s%s" STR_FMT, d->path.p ? d->path.p : "", d->path.n ? "." : "",
                                       STR_ARG(text_clip(m->key, SHOWN)));
                return NULL;
        }
        for (size_t i = 0; i < n; i++)
                names[i] = t->fields[i].name;
        names[n] = NULL;
        near = nearest_name(m->key, names, n);
        buf_printf(&text, "unknown member \"" STR_FMT "\"", STR_ARG(text_clip(m->key, SHOWN)));
        if (near)
                buf_printf(&text, "; did you mean \"%s\"?", near);
        else {
                buf_text(&text, "; known are ");
                for (size_t i = 0; i < n; i++)
                        buf_printf(&text, "%s%s", i ? ", " : "", names[i]);
        }
        complain(d, m->line, m->column, &text);
        return near;
}

static const struct node *node_for(const struct node *n, const char *path)
{
        const struct node *at = path && *path ? node_member(n, path) : NULL;

        return at ? at : n;
}

static void check_rule(struct decoder *d, const struct rule *r, const struct node *n, const void *object)
{
        BUF_AT_END struct buf why = BUF_INIT(4096);
        bool holds = r->explain ? r->explain(object, &why) : r->check(object);
        const struct node *at = node_for(n, r->path);
        size_t before;

        if (holds)
                return;
        before = path_push(d, str_of(r->path ? r->path : ""));
        (void)wrong(d, at, "%s", why.n ? why.p : r->message);
        path_pop(d, before);
}

static bool decode_member(struct decoder *d, const struct field *f, const struct node *parent, bool mistyped,
                          void *object)
{
        const struct node *n = node_member(parent, f->name);
        size_t before = path_push(d, str_of(f->name));
        bool fine = true;

        if (n && node_refused(n)) {
                d->failed = true;
                fine = false;
        } else if (n && n->kind != NODE_NULL) /* null is absent, as the API server has it */
                fine = decode_field(d, f, n, object);
        else if (f->fallback)
                fine = decode_fallback(d, f, n ? n : parent, object);
        else if (f->required && !d->defaults_only && !mistyped)
                fine = missing(d, f, parent);
        else if (f->type == FIELD_INT && bounded(f) && within(f, 0))
                *(int64_t *)member_of(f, object) = f->min - 1; /* absent, which is not 0 */
        path_pop(d, before);
        return fine;
}

static void decode_object(struct decoder *d, const struct type *t, const struct node *n, void *object)
{
        uint64_t mistyped = 0; /* a bit per field: it isn't said to be missing, too */
        bool fine = true;

        for (size_t i = 0; i < n->n; i++) {
                const char *meant;

                if (field_named(t, n->members[i].key))
                        continue;
                fine = false;
                meant = former_member(d, t, &n->members[i]);
                if (!meant)
                        meant = unknown_member(d, t, &n->members[i]);
                if (meant)
                        mistyped |= (uint64_t)1 << ((size_t)(field_named(t, str_of(meant)) - t->fields) % 64);
        }
        for (size_t i = 0; i < t->fields_n; i++)
                fine = decode_member(d, &t->fields[i], n, mistyped >> (i % 64) & 1, object) && fine;
        for (size_t i = 0; fine && !d->memory && !d->defaults_only && i < t->rules_n; i++)
                check_rule(d, &t->rules[i], n, object);
}

static int finish(struct decoder *d, const struct node *n)
{
        if (d->memory || d->path.failed)
                problem_add(d->problems, n->line, n->column, "", "out of memory");
        d->failed = d->failed || d->memory || d->path.failed;
        buf_done(&d->path);
        return d->failed ? -1 : 0;
}

int schema_decode(const struct type *t, const struct node *n, void *object, const char *prefix,
                  struct problems *problems)
{
        struct decoder d = { .problems = problems, .path = BUF_INIT(BUF_DEFAULT_MAX) };

        buf_text(&d.path, prefix ? prefix : "");
        if (n->kind == NODE_MAP)
                decode_object(&d, t, n, object);
        else
                (void)wrong_kind(&d, n, "a map");
        return finish(&d, n);
}

int schema_defaults(const struct type *t, void *object)
{
        struct problems problems = { 0 };
        struct decoder d = { .problems = &problems,
                             .path = BUF_INIT(BUF_DEFAULT_MAX),
                             .defaults_only = true };
        static const struct node empty = { .kind = NODE_MAP, .line = 1, .column = 1 };
        int result;

        decode_object(&d, t, &empty, object);
        result = finish(&d, &empty);
        problems_done(&problems);
        return result;
}

/* ---- freeing ------------------------------------------------------------ */

static void objects_done(const struct type *t, struct objects *o)
{
        for (size_t i = 0; i < o->n; i++) {
                if (o->list[i])
                        schema_done(t, o->list[i]);
                free(o->list[i]);
        }
        free(o->list);
        *o = (struct objects){ 0 };
}

static void strings_done(struct strings *s)
{
        for (size_t i = 0; i < s->n; i++)
                free(s->list[i]);
        free(s->list);
        *s = (struct strings){ 0 };
}

static void string_map_done(struct string_map *m)
{
        for (size_t i = 0; i < m->n; i++) {
                free(m->keys[i]);
                free(m->values[i]);
        }
        free(m->keys);
        free(m->values);
        *m = (struct string_map){ 0 };
}

static void field_done(const struct field *f, void *object)
{
        void *at = member_of(f, object);

        switch (f->type) {
        case FIELD_STRING:
        case FIELD_RAW:
                free(*(char **)at);
                *(char **)at = NULL;
                return;
        case FIELD_OBJECT:
                if (*(void **)at)
                        schema_done(f->object, *(void **)at);
                free(*(void **)at);
                *(void **)at = NULL;
                return;
        case FIELD_OBJECTS: objects_done(f->object, at); return;
        case FIELD_STRINGS: strings_done(at); return;
        case FIELD_MAP: string_map_done(at); return;
        case FIELD_BOOL:
        case FIELD_INT:
        case FIELD_DURATION:
        case FIELD_TIME:
        case FIELD_ENUM: return;
        }
}

void schema_done(const struct type *t, void *object)
{
        for (size_t i = 0; i < t->fields_n; i++)
                field_done(&t->fields[i], object);
}

/* ---- writing ------------------------------------------------------------ */

static bool present(const struct field *f, const void *at)
{
        bool needed = f->required || f->fallback;

        switch (f->type) {
        case FIELD_STRING:
        case FIELD_RAW: return *(char *const *)at != NULL;
        case FIELD_OBJECT: return *(void *const *)at != NULL;
        case FIELD_BOOL: return needed || *(const bool *)at;
        case FIELD_INT: return needed || within(f, *(const int64_t *)at);
        case FIELD_DURATION:
        case FIELD_TIME: return needed || *(const usec *)at != 0;
        case FIELD_ENUM: return true;
        case FIELD_OBJECTS: return needed || ((const struct objects *)at)->n > 0;
        case FIELD_STRINGS: return needed || ((const struct strings *)at)->n > 0;
        case FIELD_MAP: return needed || ((const struct string_map *)at)->n > 0;
        }
        return false;
}

static void write_small(const struct field *f, usec value, struct writer *w)
{
        BUF_AT_END struct buf text = BUF_INIT(256);

        if (f->type == FIELD_DURATION)
                duration_plain(&text, value);
        else
                time_format(&text, value);
        w->out->failed = w->out->failed || text.failed;
        writer_string(w, buf_view(&text));
}

static void write_field(const struct field *f, const void *at, struct writer *w)
{
        switch (f->type) {
        case FIELD_STRING: writer_string(w, str_of(*(char *const *)at)); return;
        case FIELD_RAW: writer_raw(w, str_of(*(char *const *)at)); return;
        case FIELD_OBJECT: schema_write(f->object, *(void *const *)at, w); return;
        case FIELD_BOOL: writer_bool(w, *(const bool *)at); return;
        case FIELD_INT: writer_int(w, *(const int64_t *)at); return;
        case FIELD_DURATION:
        case FIELD_TIME: write_small(f, *(const usec *)at, w); return;
        case FIELD_ENUM: writer_string(w, str_of(f->values[*(const int *)at])); return;
        case FIELD_OBJECTS: {
                const struct objects *o = at;

                writer_array(w);
                for (size_t i = 0; i < o->n; i++)
                        schema_write(f->object, o->list[i], w);
                writer_array_end(w);
                return;
        }
        case FIELD_STRINGS: {
                const struct strings *s = at;

                writer_array(w);
                for (size_t i = 0; i < s->n; i++)
                        writer_string(w, str_of(s->list[i]));
                writer_array_end(w);
                return;
        }
        case FIELD_MAP: {
                const struct string_map *m = at;

                writer_object(w);
                for (size_t i = 0; i < m->n; i++) {
                        writer_key(w, str_of(m->keys[i]));
                        writer_string(w, str_of(m->values[i]));
                }
                writer_object_end(w);
                return;
        }
        }
}

void schema_write(const struct type *t, const void *object, struct writer *w)
{
        writer_object(w);
        for (size_t i = 0; i < t->fields_n; i++) {
                const void *at = const_member_of(&t->fields[i], object);

                if (!present(&t->fields[i], at))
                        continue;
                writer_key(w, str_of(t->fields[i].name));
                write_field(&t->fields[i], at, w);
        }
        writer_object_end(w);
}

void schema_each(const struct type *t, const void *object, const struct type *wanted,
                 void (*each)(void *, const void *), void *cookie)
{
        if (t == wanted)
                each(cookie, object);
        for (size_t i = 0; i < t->fields_n; i++) {
                const struct field *f = &t->fields[i];
                const void *at = const_member_of(f, object);

                if (f->type == FIELD_OBJECT && *(void *const *)at)
                        schema_each(f->object, *(void *const *)at, wanted, each, cookie);
                for (size_t k = 0; f->type == FIELD_OBJECTS && k < ((const struct objects *)at)->n; k++)
                        schema_each(f->object, ((const struct objects *)at)->list[k], wanted, each, cookie);
        }
}
