/* The structural schema of a type, as apiextensions.k8s.io/v1 wants it. */
#include "api/schema.h"

static void write_limits(const struct field *f, const char *least, const char *most, struct writer *w)
{
        if (!f->min && !f->max)
                return;
        if (f->min > 0 || f->type == FIELD_INT) {
                writer_key(w, str_of(least));
                writer_int(w, f->min);
        }
        if (f->max != INT64_MAX) {
                writer_key(w, str_of(most));
                writer_int(w, f->max);
        }
}

static void write_values(const char *const *values, struct writer *w)
{
        writer_key(w, STR("enum"));
        writer_array(w);
        for (size_t i = 0; values[i]; i++)
                writer_string(w, str_of(values[i]));
        writer_array_end(w);
}

static void write_validation(struct str rule, struct str message, const char *path, struct writer *w)
{
        writer_object(w);
        writer_key(w, STR("rule"));
        writer_string(w, rule);
        writer_key(w, STR("message"));
        writer_string(w, message);
        if (path && *path) {
                BUF_AT_END struct buf text = BUF_INIT(1024);

                buf_printf(&text, ".%s", path);
                writer_key(w, STR("fieldPath"));
                writer_string(w, buf_view(&text));
        }
        writer_object_end(w);
}

static void write_duration(const struct field *f, struct writer *w)
{
        BUF_AT_END struct buf rule = BUF_INIT(1024), message = BUF_INIT(1024);

        writer_member_text(w, "type", "string");
        writer_member_int(w, "maxLength", DURATION_LONGEST);
        writer_member_text(w, "pattern", DURATION_PATTERN);
        if (!f->min && !f->max)
                return;
        buf_text(&rule, "duration(self) >= duration('");
        duration_plain(&rule, f->min);
        buf_text(&rule, "')");
        buf_text(&message, f->max == INT64_MAX ? "expected at least " : "expected ");
        duration_plain(&message, f->min);
        if (f->max != INT64_MAX) {
                buf_text(&rule, " && duration(self) <= duration('");
                duration_plain(&rule, f->max);
                buf_text(&rule, "')");
                buf_text(&message, " to ");
                duration_plain(&message, f->max);
        }
        writer_key(w, STR("x-kubernetes-validations"));
        writer_array(w);
        write_validation(buf_view(&rule), buf_view(&message), NULL, w);
        writer_array_end(w);
}

static void write_strings(const struct field *f, struct writer *w)
{
        writer_member_text(w, "type", "array");
        write_limits(f, "minItems", "maxItems", w);
        writer_key(w, STR("items"));
        writer_object(w);
        writer_member_text(w, "type", "string");
        if (f->item_min_one)
                writer_member_int(w, "minLength", 1);
        if (f->pattern)
                writer_member_text(w, "pattern", f->pattern);
        writer_object_end(w);
        writer_member_text(w, "x-kubernetes-list-type", f->set ? "set" : "atomic");
}

static void write_map(const struct field *f, struct writer *w)
{
        writer_member_text(w, "type", "object");
        write_limits(f, "minProperties", "maxProperties", w);
        writer_key(w, STR("additionalProperties"));
        writer_object(w);
        writer_member_text(w, "type", "string");
        if (f->value_max)
                writer_member_int(w, "maxLength", f->value_max);
        if (f->pattern)
                writer_member_text(w, "pattern", f->pattern);
        writer_object_end(w);
}

static void write_raw(const struct field *f, struct writer *w)
{
        if (f->shape == RAW_LIST) {
                writer_member_text(w, "type", "array");
                writer_key(w, STR("items"));
                writer_object(w);
                writer_member_text(w, "type", "object");
                writer_member_bool(w, "x-kubernetes-preserve-unknown-fields", true);
                writer_object_end(w);
                writer_member_text(w, "x-kubernetes-list-type", "atomic");
                return;
        }
        if (f->shape == RAW_MAP)
                writer_member_text(w, "type", "object");
        writer_member_bool(w, "x-kubernetes-preserve-unknown-fields", true);
}

static void write_type(const struct type *t, const char *help, const struct field *of, struct writer *w);

static void write_shape(const struct field *f, struct writer *w)
{
        switch (f->type) {
        case FIELD_STRING:
                writer_member_text(w, "type", "string");
                write_limits(f, "minLength", "maxLength", w);
                if (f->pattern)
                        writer_member_text(w, "pattern", f->pattern);
                if (f->values)
                        write_values(f->values, w);
                return;
        case FIELD_BOOL: writer_member_text(w, "type", "boolean"); return;
        case FIELD_INT:
                writer_member_text(w, "type", "integer");
                writer_member_text(w, "format", "int64");
                write_limits(f, "minimum", "maximum", w);
                return;
        case FIELD_DURATION: write_duration(f, w); return;
        case FIELD_TIME:
                writer_member_text(w, "type", "string");
                writer_member_text(w, "format", "date-time");
                return;
        case FIELD_ENUM:
                writer_member_text(w, "type", "string");
                write_values(f->values, w);
                return;
        case FIELD_STRINGS: write_strings(f, w); return;
        case FIELD_MAP: write_map(f, w); return;
        case FIELD_RAW: write_raw(f, w); return;
        case FIELD_OBJECTS:
                writer_member_text(w, "type", "array");
                write_limits(f, "minItems", "maxItems", w);
                writer_key(w, STR("items"));
                write_type(f->object, f->object->help, NULL, w);
                writer_member_text(w, "x-kubernetes-list-type", "atomic");
                return;
        case FIELD_OBJECT: return; /* write_type */
        }
}

/* Written out, since the API server checks a default by the object's rules before it fills in the members'
 * own. */
static void write_object_default(const struct type *t, struct writer *w)
{
        void *object = calloc(1, t->size ? t->size : 1);

        if (object && schema_defaults(t, object) == 0) {
                writer_key(w, STR("default"));
                schema_write(t, object, w);
        } else
                w->out->failed = true;
        if (object)
                schema_done(t, object);
        free(object);
}

static void write_default(const struct field *f, struct writer *w)
{
        struct documents docs;
        const struct node *n;

        if (f->type == FIELD_OBJECT && f->fallback) {
                write_object_default(f->object, w);
                return;
        }
        n = schema_fallback(f, &docs);

        if (n) {
                writer_key(w, STR("default"));
                node_write(n, w);
        } else if (f->fallback)
                w->out->failed = true;
        documents_done(&docs);
}

static void write_field(const struct field *f, struct writer *w)
{
        if (f->type == FIELD_OBJECT) {
                write_type(f->object, f->help ? f->help : f->object->help, f, w);
                return;
        }
        writer_object(w);
        if (f->help)
                writer_member_text(w, "description", f->help);
        write_shape(f, w);
        write_default(f, w);
        writer_object_end(w);
}

static void write_rules(const struct type *t, struct writer *w)
{
        bool any = false;

        for (size_t i = 0; i < t->rules_n; i++) {
                const struct rule *r = &t->rules[i];

                if (!r->cel)
                        continue;
                if (!any) {
                        writer_key(w, STR("x-kubernetes-validations"));
                        writer_array(w);
                }
                any = true;
                write_validation(str_of(r->cel), str_of(r->message), r->path, w);
        }
        if (any)
                writer_array_end(w);
}

static void write_type(const struct type *t, const char *help, const struct field *of, struct writer *w)
{
        bool any = false;

        writer_object(w);
        if (help)
                writer_member_text(w, "description", help);
        writer_member_text(w, "type", "object");
        if (of)
                write_default(of, w);
        for (size_t i = 0; i < t->fields_n; i++) {
                if (!t->fields[i].required)
                        continue;
                if (!any) {
                        writer_key(w, STR("required"));
                        writer_array(w);
                }
                any = true;
                writer_string(w, str_of(t->fields[i].name));
        }
        if (any)
                writer_array_end(w);
        write_rules(t, w);
        writer_key(w, STR("properties"));
        writer_object(w);
        for (size_t i = 0; i < t->fields_n; i++) {
                writer_key(w, str_of(t->fields[i].name));
                write_field(&t->fields[i], w);
        }
        writer_object_end(w);
        writer_object_end(w);
}

void schema_openapi(const struct type *t, struct writer *w) { write_type(t, t->help, NULL, w); }
