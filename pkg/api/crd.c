/* The generated artefacts: the CustomResourceDefinition, the chart's copy of it, the reference page. */
#include "api/status.h"
#include "api/tables.h"

/* ---- block-style YAML --------------------------------------------------- */

/* What YAML 1.1, which Kubernetes reads, takes for something else than a string. */
static bool looks_like_a_string(struct str s)
{
        static const char *const words[] = { "y", "n", "yes", "no", "on", "off", "true", "false", "null" };

        if (s.n == 0 || !((s.p[0] >= 'A' && s.p[0] <= 'Z') || (s.p[0] >= 'a' && s.p[0] <= 'z')))
                return false;
        for (size_t i = 0; i < COUNT_OF(words); i++)
                if (str_equal_nocase(s, str_of(words[i])))
                        return false;
        return true;
}

static bool is_plain(struct str s)
{
        if (!looks_like_a_string(s) || s.p[s.n - 1] == ' ' || s.p[s.n - 1] == ':')
                return false;
        for (size_t i = 0; i < s.n; i++) {
                if ((unsigned char)s.p[i] < ' ' || (s.p[i] == ':' && s.p[i + 1] == ' ') ||
                    (s.p[i] == ' ' && s.p[i + 1] == '#'))
                        return false;
        }
        return true;
}

static bool has_controls(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if ((unsigned char)s.p[i] < ' ' || s.p[i] == 0x7f)
                        return true;
        return false;
}

static void emit_string(struct buf *b, struct str s)
{
        if (is_plain(s))
                buf_str(b, s);
        else if (has_controls(s)) {
                buf_char(b, '"');
                writer_escape(b, s);
                buf_char(b, '"');
        } else {
                buf_char(b, '\'');
                for (size_t i = 0; i < s.n; i++) {
                        if (s.p[i] == '\'')
                                buf_char(b, '\'');
                        buf_char(b, s.p[i]);
                }
                buf_char(b, '\'');
        }
}

static void indent(struct buf *b, size_t n)
{
        while (n--)
                buf_text(b, "  ");
}

static void emit(struct buf *b, const struct node *n, size_t level, bool in_list);

static void emit_value(struct buf *b, const struct node *n, size_t level)
{
        struct writer w;

        if (n->kind == NODE_MAP && n->n) {
                buf_char(b, '\n');
                emit(b, n, level + 1, false);
        } else if (n->kind == NODE_LIST && n->n) {
                buf_char(b, '\n');
                emit(b, n, level, false);
        } else if (n->kind == NODE_STRING) {
                buf_char(b, ' ');
                emit_string(b, n->text);
                buf_char(b, '\n');
        } else {
                buf_char(b, ' ');
                writer_init(&w, b);
                node_write(n, &w);
                buf_char(b, '\n');
        }
}

static void emit(struct buf *b, const struct node *n, size_t level, bool in_list)
{
        for (size_t i = 0; i < n->n; i++) {
                if (!in_list || i)
                        indent(b, level);
                if (n->kind == NODE_MAP) {
                        emit_string(b, n->members[i].key);
                        buf_char(b, ':');
                        emit_value(b, n->members[i].value, level);
                        continue;
                }
                buf_char(b, '-');
                if (n->items[i]->kind == NODE_MAP && n->items[i]->n) {
                        buf_char(b, ' ');
                        emit(b, n->items[i], level + 1, true);
                } else
                        emit_value(b, n->items[i], level + 1);
        }
}

/* ---- the CustomResourceDefinition --------------------------------------- */

static void names(struct writer *w)
{
        writer_key(w, STR("names"));
        writer_object(w);
        writer_member_text(w, "kind", "Trigger");
        writer_member_text(w, "listKind", "TriggerList");
        writer_member_text(w, "plural", "triggers");
        writer_member_text(w, "singular", "trigger");
        writer_key(w, STR("shortNames"));
        writer_raw(w, STR("[\"sltr\"]"));
        writer_key(w, STR("categories"));
        writer_raw(w, STR("[\"eventing\",\"knative\",\"sluice\"]"));
        writer_object_end(w);
}

static void columns(struct writer *w)
{
        static const struct {
                const char *name, *type, *path;
                bool wide;
        } all[] = {
                { "Source", "string", ".status.source", false },
                { "Sink", "string", ".status.sinkUri", false },
                { "Ready", "string", ".status.conditions[?(@.type==\"Ready\")].status", false },
                { "Reason", "string", ".status.conditions[?(@.type==\"Ready\")].reason", false },
                { "Last Delivery", "date", ".status.lastDeliveryTime", false },
                { "Age", "date", ".metadata.creationTimestamp", false },
                { "Lag", "integer", ".status.lag", true },
        };

        writer_key(w, STR("additionalPrinterColumns"));
        writer_array(w);
        for (size_t i = 0; i < COUNT_OF(all); i++) {
                writer_object(w);
                writer_member_text(w, "name", all[i].name);
                writer_member_text(w, "type", all[i].type);
                writer_member_text(w, "jsonPath", all[i].path);
                if (all[i].wide)
                        writer_member_int(w, "priority", 1);
                writer_object_end(w);
        }
        writer_array_end(w);
}

static void root_schema(const struct spec_tables *tables, struct writer *w)
{
        writer_object(w);
        writer_member_text(w, "description", "A Trigger delivers the events of one source to one function.");
        writer_member_text(w, "type", "object");
        writer_key(w, STR("required"));
        writer_raw(w, STR("[\"spec\"]"));
        writer_key(w, STR("properties"));
        writer_object(w);
        writer_key(w, STR("apiVersion"));
        writer_raw(w, STR("{\"type\":\"string\"}"));
        writer_key(w, STR("kind"));
        writer_raw(w, STR("{\"type\":\"string\"}"));
        writer_key(w, STR("metadata"));
        writer_object(w);
        writer_member_text(w, "type", "object");
        writer_key(w, STR("properties"));
        writer_object(w);
        writer_key(w, STR("name"));
        writer_object(w);
        writer_member_text(w, "type", "string");
        writer_member_int(w, "maxLength", TRIGGER_NAME_LONGEST);
        writer_member_text(w, "pattern", NAME_PATTERN);
        writer_object_end(w);
        writer_object_end(w);
        writer_object_end(w);
        writer_key(w, STR("spec"));
        schema_openapi(&tables->spec, w);
        writer_key(w, STR("status"));
        status_openapi(w);
        writer_object_end(w);
        writer_object_end(w);
}

static void metadata(bool for_chart, struct writer *w)
{
        writer_key(w, STR("metadata"));
        writer_object(w);
        writer_member_text(w, "name", "triggers." API_GROUP);
        if (for_chart) {
                writer_key(w, STR("annotations"));
                writer_object(w);
                writer_member_text(w, "helm.sh/resource-policy", "keep");
                writer_object_end(w);
        }
        /* Knative finds sources by them. */
        writer_key(w, STR("labels"));
        writer_object(w);
        writer_member_text(w, "duck.knative.dev/source", "true");
        writer_member_text(w, "eventing.knative.dev/source", "true");
        writer_object_end(w);
        writer_object_end(w);
}

static void definition(const struct spec_tables *tables, bool for_chart, struct writer *w)
{
        writer_object(w);
        writer_member_text(w, "apiVersion", "apiextensions.k8s.io/v1");
        writer_member_text(w, "kind", "CustomResourceDefinition");
        metadata(for_chart, w);
        writer_key(w, STR("spec"));
        writer_object(w);
        writer_member_text(w, "group", API_GROUP);
        names(w);
        writer_member_text(w, "scope", "Namespaced");
        writer_key(w, STR("versions"));
        writer_array(w);
        writer_object(w);
        writer_member_text(w, "name", API_VERSION);
        writer_member_bool(w, "served", true);
        writer_member_bool(w, "storage", true);
        writer_key(w, STR("subresources"));
        writer_raw(w, STR("{\"status\":{}}"));
        columns(w);
        writer_key(w, STR("schema"));
        writer_object(w);
        writer_key(w, STR("openAPIV3Schema"));
        root_schema(tables, w);
        writer_object_end(w);
        writer_object_end(w);
        writer_array_end(w);
        writer_object_end(w);
        writer_object_end(w);
}

/* A template would take what stands between double braces for its own. */
static void escape_template(struct buf *b, struct str text)
{
        for (size_t i = 0; i < text.n; i++) {
                bool braces = i + 1 < text.n && text.p[i] == '{' && text.p[i + 1] == '{';

                if (braces) {
                        buf_text(b, "{{ \"{{\" }}");
                        i++;
                } else
                        buf_char(b, text.p[i]);
        }
}

void crd_write(const struct source_type *types, size_t n, bool for_chart, struct buf *out)
{
        BUF_AT_END struct buf json = BUF_INIT(BUF_DEFAULT_MAX), yaml = BUF_INIT(BUF_DEFAULT_MAX);
        struct spec_tables tables;
        struct documents docs;
        struct problems problems = { 0 };
        struct writer w;

        spec_tables_build(&tables, types, n);
        writer_init(&w, &json);
        definition(&tables, for_chart, &w);
        if (json.failed || yaml_parse(&docs, buf_view(&json), &problems) < 0) {
                out->failed = true;
                problems_done(&problems);
                return;
        }
        buf_text(&yaml, "# Made from the field tables in pkg/api and pkg/source by \"make generate\".\n");
        emit(&yaml, docs.roots[0], 0, false);
        documents_done(&docs);
        if (for_chart)
                escape_template(out, buf_view(&yaml));
        else
                buf_str(out, buf_view(&yaml));
        out->failed = out->failed || yaml.failed;
}

void reference_write(const struct source_type *types, size_t n, struct buf *out)
{
        struct spec_tables tables;

        spec_tables_build(&tables, types, n);
        buf_text(out, "# Reference: triggers." API_GROUP "\n\n"
                      "Made from the field tables in pkg/api and pkg/source by `make generate`.\n\n");
        docs_prose(
                out, "",
                "`apiVersion: " API_GROUP_VERSION "`, `kind: Trigger`, namespaced, `kubectl get sltr`. "
                "Another project's `triggers` may exist in a cluster: `kubectl get triggers." API_GROUP "` "
                "always means these. A name is a DNS label of at most 52 characters. Durations are Go's, "
                "in whole microseconds: `200ms`, `30s`, `1h30m`. A value outside its bounds is refused by "
                "`sluice validate` and by the cluster alike, and so is a member that is not listed here, by "
                "`kubectl` at least: a client that does not ask for `fieldValidation=Strict`, and "
                "`kubectl --validate=ignore`, has the API server drop it.");
        buf_text(out, "\n## Defaults\n\n| Member | Default |\n|---|---|\n");
        schema_reference_defaults(&tables.spec, "spec", out);
        buf_text(out, "\n## Former names\n\n");
        docs_prose(out, "",
                   "No longer taken; the message says the new name. When the definition is replaced the API "
                   "server drops them from Triggers that were stored before: apply those anew.");
        buf_text(out, "\n| Member | Its former name |\n|---|---|\n");
        schema_reference_former(&tables.spec, "spec", out);
        buf_char(out, '\n');
        schema_reference(&tables.spec, "spec", out);
        /* One line break at the end. */
        if (!out->failed && out->n > 1 && out->p[out->n - 1] == '\n' && out->p[out->n - 2] == '\n')
                out->p[--out->n] = 0;
}
