#include "api/tables.h"

#include <stdio.h>

#include "log/log.h"
#include "filter/filter.h"

/* ---- sink --------------------------------------------------------------- */

static const char *const ref_api_versions[] = { "v1", NULL };
static const char *const ref_kinds[] = { "Service", NULL };
static const struct field sink_ref_fields[] = {
        FIELD(STRING, "apiVersion", struct sink_ref, api_version, .fallback = "v1",
              .values = ref_api_versions, .help = "The API version of what receives the events."),
        FIELD(STRING, "kind", struct sink_ref, kind, .fallback = "Service", .values = ref_kinds,
              .help = "The kind of what receives the events."),
        FIELD(STRING, "name", struct sink_ref, name, .required = true, .min = 1, .max = 63,
              .pattern = NAME_PATTERN, .format = NAME_WORDS, .help = "Its name."),
        FIELD(STRING, "namespace", struct sink_ref, namespace_, .min = 1, .max = 63, .pattern = NAME_PATTERN,
              .format = NAME_WORDS, .help = "Its namespace; by default the Trigger's."),
        FIELD(INT, "port", struct sink_ref, port, .min = 1, .max = 65535,
              .help = "The Service's port; by default its only one, or the one named http, or 80."),
};
const struct type sink_ref_type = TYPE("SinkRef", struct sink_ref, sink_ref_fields,
                                       "A Service in the cluster.");

static bool sink_given(const void *object)
{
        const struct sink *s = object;

        return s->ref || s->uri;
}

static bool sink_uri_absolute(const void *object)
{
        const struct sink *s = object;

        return !s->uri || s->ref || schema_matches(URI_PATTERN, s->uri);
}

static bool sink_uri_path(const void *object)
{
        const struct sink *s = object;

        return !s->uri || !s->ref || schema_matches(PATH_PATTERN, s->uri);
}

static const struct field sink_fields[] = {
        FIELD(OBJECT, "ref", struct sink, ref, .object = &sink_ref_type, .help = "A Service in the cluster."),
        FIELD(STRING, "uri", struct sink, uri, .min = 1, .max = 2048, .pattern = "^[!-~]+$",
              .format = "a URI without spaces, others than ASCII percent-encoded",
              .help = "Where events are POSTed: http://… or https://…, or, with ref, a path on that Service "
                      "such as /invoke."),
        FIELD(STRING, "CACerts", struct sink, ca_certs, .min = 1, .max = 65536,
              .pattern = "-----BEGIN CERTIFICATE-----", .format = "certificates in PEM",
              .help = "The certificates, in PEM, of the authorities that the receiver's certificate is "
                      "checked against, instead of the system's."),
};
static const struct rule sink_rules[] = {
        RULE(.cel = "has(self.ref) || has(self.uri)", .message = "names no receiver: give ref, uri, or both",
             .check = sink_given),
        RULE(.cel = "!has(self.uri) || has(self.ref) || self.uri.matches(" QUOTED(URI_PATTERN) ")",
             .path = "uri", .check = sink_uri_absolute,
             .message = "without ref the URI must be absolute: http://HOST[:PORT]/PATH or https://…, without "
                        "user name, password and fragment"),
        RULE(.cel = "!has(self.uri) || !has(self.ref) || self.uri.matches(" QUOTED(PATH_PATTERN) ")",
             .path = "uri", .check = sink_uri_path,
             .message = "with ref the URI must be a path that begins with one /, without fragment"),
};
static const struct type sink_type = TYPE("Sink", struct sink, sink_fields, "Who receives the events.",
                                          RULES(sink_rules));

/* ---- function and event ------------------------------------------------- */

/* They become HTTP headers. */
#define HEADER_OR_EMPTY_PATTERN "^([!-~]([ -~]*[!-~])?)?$"

static const struct field function_fields[] = {
        FIELD(STRING, "name", struct function_spec, name, .min = 1, .max = 256, .pattern = HEADER_PATTERN,
              .format = HEADER_WORDS,
              .help = "The function's name, in X-CFF-Func-Name; by default the Trigger's name."),
        FIELD(STRING, "version", struct function_spec, version, .fallback = "latest", .min = 1, .max = 256,
              .pattern = HEADER_PATTERN, .format = HEADER_WORDS,
              .help = "The function's version, in X-CFF-Func-Version."),
        FIELD(STRING, "project", struct function_spec, project, .min = 1, .max = 256,
              .pattern = HEADER_PATTERN, .format = HEADER_WORDS,
              .help = "The project's id, in X-CFF-Project-Id."),
        FIELD(STRING, "package", struct function_spec, package, .fallback = "default", .min = 1, .max = 256,
              .pattern = HEADER_PATTERN, .format = HEADER_WORDS,
              .help = "The function's application, in X-CFF-Package."),
        FIELD(STRING, "urn", struct function_spec, urn, .min = 1, .max = 512, .pattern = HEADER_PATTERN,
              .format = HEADER_WORDS,
              .help = "The function's URN, named by dead letters and by sources that name the function."),
        FIELD(STRING, "initPath", struct function_spec, init_path, .min = 1, .max = 1024,
              .pattern = PATH_PATTERN, .format = "a path that begins with one /, without fragment",
              .help = "A path, such as /init, that is POSTed to once, before the first event and again until "
                      "it is accepted. By default nothing is initialized."),
};
static const struct type function_type = TYPE("Function", struct function_spec, function_fields,
                                              "What the function is told about itself.");

static const char *const format_names[] = {
        [FORMAT_FUNCTION_GRAPH] = "FunctionGraph",
        [FORMAT_CLOUDEVENTS_BINARY] = "CloudEventsBinary",
        [FORMAT_CLOUDEVENTS_STRUCTURED] = "CloudEventsStructured",
        [FORMAT_CLOUDEVENTS_BATCH] = "CloudEventsBatch",
        NULL,
};
static const char *const dialect_names[] = {
        [DIALECT_CLASSIC] = "Classic", [DIALECT_CURRENT] = "Current", NULL
};
static const struct field event_fields[] = {
        FIELD(ENUM, "format", struct event_spec, format, .fallback = "FunctionGraph", .values = format_names,
              .help = "What a request holds: FunctionGraph's own event, or CloudEvents 1.0 in binary mode "
                      "(attributes as headers), structured mode (one JSON object) or as a JSON batch."),
        FIELD(ENUM, "dialect", struct event_spec, dialect, .fallback = "Classic", .values = dialect_names,
              .help = "The shape of FunctionGraph's events: Classic is that of FunctionGraph's "
                      "documentation, Current that of its published runtimes."),
        FIELD(STRING, "region", struct event_spec, region, .fallback = "\"\"", .max = 256,
              .pattern = HEADER_OR_EMPTY_PATTERN, .format = HEADER_WORDS,
              .help = "The region that events and X-CFF-Region name."),
        FIELD(STRING, "instanceID", struct event_spec, instance_id, .former = "instanceId",
              .fallback = "\"\"", .max = 256, .pattern = HEADER_OR_EMPTY_PATTERN, .format = HEADER_WORDS,
              .cloud = "instance_id",
              .help = "The source's instance id that events name, where they have one."),
};
static const struct type event_type = TYPE("Event", struct event_spec, event_fields,
                                           "The shape of the events.");

/* ---- what is done to events --------------------------------------------- */

static const struct field ce_overrides_fields[] = {
        FIELD(MAP, "extensions", struct ce_overrides, extensions, .max = 32, .pattern = "^[ -~]+$",
              .format = "printable ASCII",
              .help = "Extension attributes that are added to each CloudEvent, or replace its own. Names are "
                      "lower-case letters and digits, at most 20."),
};

static bool extensions_named(const void *object)
{
        const struct ce_overrides *o = object;
        bool fine = true;

        for (size_t i = 0; i < o->extensions.n; i++)
                fine = fine && schema_matches("^[a-z0-9]{1,20}$", o->extensions.keys[i]) &&
                       !schema_matches("^(id|source|type|specversion|data|datacontenttype)$",
                                       o->extensions.keys[i]);
        return fine;
}

/* RFC 3339, which a CloudEvent's time must be */
#define TIME_PATTERN                                                                                         \
        "^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|"   \
        "60)"                                                                                                \
        "([.][0-9]+)?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"

static bool time_is_one(const void *object)
{
        const struct ce_overrides *o = object;

        for (size_t i = 0; i < o->extensions.n; i++)
                if (string_equal(o->extensions.keys[i], "time"))
                        return schema_matches(TIME_PATTERN, o->extensions.values[i]);
        return true;
}

static const struct rule ce_overrides_rules[] = {
        RULE(.cel = "!has(self.extensions) || !('time' in self.extensions) || "
                    "self.extensions['time'].matches('" TIME_PATTERN "')",
             .path = "extensions.time", .check = time_is_one,
             .message = "must be a time of RFC 3339, such as 2026-11-24T10:00:00Z"),
        RULE(.cel = "!has(self.extensions) || self.extensions.all(k, k.matches('^[a-z0-9]{1,20}$') && "
                    "!k.matches('^(id|source|type|specversion|data|datacontenttype)$'))",
             .path = "extensions", .check = extensions_named,
             .message = "an extension's name must be 1 to 20 lower-case letters and digits, and none of id, "
                        "source, type, specversion, data and datacontenttype"),
};
static const struct type ce_overrides_type = TYPE("CloudEventOverrides", struct ce_overrides,
                                                  ce_overrides_fields, "What is added to each CloudEvent.",
                                                  RULES(ce_overrides_rules));

static bool pattern_compiles(const void *object, struct buf *why)
{
        const struct filter_spec *spec = object;
        struct filter *f;
        struct error err;

        if (!spec->pattern)
                return true;
        if (filter_new(&f, str_of(spec->pattern), &err) < 0) {
                buf_text(why, err.text);
                return false;
        }
        (void)filter_free(f);
        return true;
}

static const struct field filter_fields[] = {
        FIELD(RAW, "pattern", struct filter_spec, pattern, .required = true, .shape = RAW_MAP,
              .help = "An event pattern in Amazon EventBridge's language, over the record as docs/filter.md "
                      "describes it."),
};
static const struct rule filter_rules[] = {
        RULE(.path = "pattern", .message = "the pattern must be one of Amazon EventBridge's language",
             .explain = pattern_compiles)
};
static const struct type filter_type = TYPE(
        "Filter", struct filter_spec, filter_fields,
        "Which records are delivered; the others are settled without a request.", RULES(filter_rules));

static const struct field transform_fields[] = {
        FIELD(STRING, "jq", struct transform_spec, jq, .required = true, .min = 1, .max = 65536,
              .help = "A jq program that gets the encoded event and produces exactly one value, which is "
                      "sent instead."),
        FIELD(DURATION, "timeout", struct transform_spec, timeout, .fallback = "1s", .min = 10 * USEC_MSEC,
              .max = USEC_MINUTE,
              .help = "How long the program may take for one event; longer is a final failure."),
};
static const struct type transform_type = TYPE(
        "Transform", struct transform_spec, transform_fields,
        "A program that reshapes each event, in a sandbox of its own.");

/* ---- worker ------------------------------------------------------------- */

#define LABEL_PATTERN "^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"
#define LABEL_WORDS                                                                                          \
        "a label's value: at most 63 letters, digits, -, _ and ., beginning and ending with a letter or "    \
        "digit"

static const char *const level_names[] = {
        [LOG_DEBUG] = "Debug", [LOG_INFO] = "Info", [LOG_WARN] = "Warn", [LOG_ERROR] = "Error", NULL
};
static const struct field worker_fields[] = {
        FIELD(RAW, "resources", struct worker_spec, resources, .shape = RAW_MAP,
              .help = "The container's resource requests and limits, as in a pod."),
        FIELD(MAP, "nodeSelector", struct worker_spec, node_selector, .max = 64, .pattern = LABEL_PATTERN,
              .format = LABEL_WORDS, .help = "The labels of the nodes it may run on."),
        FIELD(RAW, "tolerations", struct worker_spec, tolerations, .shape = RAW_LIST,
              .help = "Taints it tolerates, as in a pod."),
        FIELD(RAW, "affinity", struct worker_spec, affinity, .shape = RAW_MAP,
              .help = "Where it likes to run, as in a pod."),
        FIELD(MAP, "labels", struct worker_spec, labels, .max = 64, .pattern = LABEL_PATTERN,
              .format = LABEL_WORDS, .help = "Further labels of the pod."),
        FIELD(MAP, "annotations", struct worker_spec, annotations, .max = 64,
              .help = "Further annotations of the pod."),
        FIELD(ENUM, "logLevel", struct worker_spec, log_level, .fallback = "Info", .values = level_names,
              .help = "What it logs at least."),
};
static const struct type worker_type = TYPE("Worker", struct worker_spec, worker_fields,
                                            "The pod that delivers this Trigger's events.");

/* ---- spec --------------------------------------------------------------- */

/* spec.source while it is decoded: one pointer per type, whatever types there are. */
struct source_union {
        void *specs[SOURCE_TYPES_MAX];
};

struct spec_object {
        struct source_union *source;
        struct sink *sink;
        struct function_spec *function;
        struct event_spec *event;
        struct ce_overrides *ce_overrides;
        struct filter_spec *filter;
        struct transform_spec *transform;
        struct delivery_spec *delivery;
        struct worker_spec *worker;
        int64_t replicas;
        bool suspend;
};

static bool one_source(const void *object, struct buf *why)
{
        const struct source_union *u = object;
        size_t n = 0;

        for (size_t i = 0; i < SOURCE_TYPES_MAX; i++)
                n += u->specs[i] != NULL;
        if (n > 1)
                buf_printf(why, "gives %zu sources: keep exactly one of them", n);
        return n == 1;
}

static bool one_event_a_request(const void *object)
{
        const struct spec_object *s = object;

        return !s->event || !s->delivery || !s->delivery->batch || s->delivery->batch->max_messages == 1 ||
               s->event->format == FORMAT_FUNCTION_GRAPH || s->event->format == FORMAT_CLOUDEVENTS_BATCH;
}

static bool overrides_cloud_events(const void *object)
{
        const struct spec_object *s = object;

        return !s->ce_overrides || !s->event || s->event->format != FORMAT_FUNCTION_GRAPH;
}

static const struct rule spec_rules[] = {
        RULE(.cel = "self.delivery.batch.maxMessages == 1 || self.event.format in ['FunctionGraph', "
                    "'CloudEventsBatch']",
             .path = "event", .check = one_event_a_request,
             .message = "a batch needs event.format FunctionGraph or CloudEventsBatch: the other formats "
                        "hold one event a request"),
        RULE(.cel = "!has(self.ceOverrides) || self.event.format != 'FunctionGraph'", .path = "ceOverrides",
             .check = overrides_cloud_events, .message = "ceOverrides needs an event.format of CloudEvents"),
};

static void add_text(char *text, size_t size, const char *before, const char *name, const char *after)
{
        size_t n = strlen(text);

        (void)snprintf(text + n, size - n, "%s%s%s", before, name, after);
}

static void build_source(struct spec_tables *s, const struct source_type *types, size_t n)
{
        add_text(s->cel, sizeof(s->cel), "", "[", "");
        add_text(s->message, sizeof(s->message), "", "exactly one source is needed: ", "");
        for (size_t i = 0; i < n; i++) {
                s->source_fields[i] = (struct field){ .name = types[i].name,
                                                      .type = FIELD_OBJECT,
                                                      .offset = i * sizeof(void *),
                                                      .object = types[i].type,
                                                      .help = types[i].type->help };
                add_text(s->cel, sizeof(s->cel), i ? ", has(self." : "has(self.", types[i].name, ")");
                add_text(s->message, sizeof(s->message),
                         i == 0       ? ""
                         : i + 1 == n ? " or "
                                      : ", ",
                         types[i].name, "");
        }
        add_text(s->cel, sizeof(s->cel), "", "].exists_one(given, given)", "");
        s->one_source = (struct rule){ .cel = s->cel, .message = s->message, .explain = one_source };
        s->source = (struct type){ .name = "Source",
                                   .help = "Where events come from: exactly one of these.",
                                   .fields = s->source_fields,
                                   .fields_n = n,
                                   .rules = &s->one_source,
                                   .rules_n = 1,
                                   .size = sizeof(struct source_union) };
}

static const struct field spec_fields[] = {
        /* of the sources at hand: spec_tables_build() */
        FIELD(OBJECT, "source", struct spec_object, source, .required = true,
              .help = "Where events come from: exactly one of these."),
        FIELD(OBJECT, "sink", struct spec_object, sink, .required = true, .object = &sink_type,
              .help = "Who receives the events."),
        FIELD(OBJECT, "function", struct spec_object, function, .fallback = "{}", .object = &function_type,
              .help = "What the function is told about itself."),
        FIELD(OBJECT, "event", struct spec_object, event, .fallback = "{}", .object = &event_type,
              .help = "The shape of the events."),
        FIELD(OBJECT, "ceOverrides", struct spec_object, ce_overrides, .object = &ce_overrides_type,
              .help = "What is added to each CloudEvent."),
        FIELD(OBJECT, "filter", struct spec_object, filter, .object = &filter_type,
              .help = "Which records are delivered; by default all."),
        FIELD(OBJECT, "transform", struct spec_object, transform, .object = &transform_type,
              .help = "A program that reshapes each event before it is sent."),
        FIELD(OBJECT, "delivery", struct spec_object, delivery, .fallback = "{}", .object = &delivery_type,
              .help = "How events are delivered."),
        FIELD(OBJECT, "worker", struct spec_object, worker, .fallback = "{}", .object = &worker_type,
              .help = "The pod that delivers this Trigger's events."),
        FIELD(INT, "replicas", struct spec_object, replicas, .fallback = "1", .min = 1,
              .max = TRIGGER_REPLICAS_MOST,
              .help = "How many workers share what the source has, and how many parts that is divided into: "
                      "above 1 for sources of which each partition is read by one of them (dis). A change "
                      "restarts them."),
        FIELD(BOOL, "suspend", struct spec_object, suspend, .fallback = "false",
              .help = "true: no events are read or delivered until it is false again; positions are kept."),
};

void spec_tables_build(struct spec_tables *s, const struct source_type *types, size_t n)
{
        _Static_assert(sizeof(s->spec_fields) == sizeof(spec_fields), "room for all fields");
        *s = (struct spec_tables){ 0 };
        memcpy(s->spec_fields, spec_fields, sizeof(spec_fields));
        s->spec_fields[0].object = &s->source;
        build_source(s, types, MIN_OF(n, (size_t)SOURCE_TYPES_MAX));
        s->spec = (struct type){ .name = "TriggerSpec",
                                 .help = "What is to be done.",
                                 .fields = s->spec_fields,
                                 .rules = spec_rules,
                                 .rules_n = COUNT_OF(spec_rules),
                                 .fields_n = COUNT_OF(spec_fields),
                                 .size = sizeof(struct spec_object) };
}

/* ---- the whole resource ------------------------------------------------- */

struct metadata {
        char *name, *namespace_, *uid;
        int64_t generation;
        usec deletion;
        struct string_map labels, annotations;
};

static const struct field metadata_fields[] = {
        FIELD(STRING, "name", struct metadata, name, .required = true, .min = 1, .max = TRIGGER_NAME_LONGEST,
              .pattern = NAME_PATTERN, .format = NAME_WORDS),
        FIELD(STRING, "namespace", struct metadata, namespace_, .fallback = "default", .min = 1, .max = 63,
              .pattern = NAME_PATTERN, .format = NAME_WORDS),
        FIELD(STRING, "uid", struct metadata, uid, .min = 1, .max = 253),
        FIELD(INT, "generation", struct metadata, generation, .fallback = "0", .max = INT64_MAX),
        FIELD(TIME, "deletionTimestamp", struct metadata, deletion),
        FIELD(MAP, "labels", struct metadata, labels),
        FIELD(MAP, "annotations", struct metadata, annotations),
};
static const struct type metadata_type = TYPE("ObjectMeta", struct metadata, metadata_fields, NULL);
/* Kubernetes' own, accepted and not looked at. */
static const char *const other_metadata[] = { "creationTimestamp", "deletionGracePeriodSeconds",
                                              "finalizers",        "generateName",
                                              "managedFields",     "ownerReferences",
                                              "resourceVersion",   "selfLink" };

static bool is_other_metadata(struct str name)
{
        for (size_t i = 0; i < COUNT_OF(other_metadata); i++)
                if (str_is(name, other_metadata[i]))
                        return true;
        return false;
}

static int decode_metadata(const struct node *n, struct metadata *out, struct problems *problems)
{
        FREE_AT_END struct member *members = NULL;
        struct node ours = *n;

        if (n->kind != NODE_MAP)
                return schema_decode(&metadata_type, n, out, "metadata", problems);
        members = calloc(n->n ? n->n : 1, sizeof(*members));
        if (!members) {
                problem_add(problems, n->line, n->column, "metadata", "out of memory");
                return -1;
        }
        ours.members = members;
        ours.n = 0;
        for (size_t i = 0; i < n->n; i++)
                if (!is_other_metadata(n->members[i].key))
                        members[ours.n++] = n->members[i];
        return schema_decode(&metadata_type, &ours, out, "metadata", problems);
}

static bool check_word(const struct node *root, const char *member, const char *word,
                       struct problems *problems)
{
        const struct node *n = node_member(root, member);

        if (n && (node_refused(n) || (n->kind == NODE_STRING && str_is(n->text, word))))
                return true;
        if (!n)
                problem_add(problems, root->line, root->column, member, "is missing: give %s", word);
        else {
                struct str shown = text_clip(n->text, 60);

                problem_add(problems, n->line, n->column, member, "expected %s, found \"" STR_FMT "\"", word,
                            STR_ARG(shown));
        }
        return false;
}

static bool check_top_level(const struct node *root, struct problems *problems)
{
        static const char *const known[] = { "apiVersion", "kind", "metadata", "spec", "status" };
        bool fine = check_word(root, "apiVersion", API_GROUP_VERSION, problems);

        fine = check_word(root, "kind", "Trigger", problems) && fine;
        for (size_t i = 0; i < root->n; i++) {
                const struct member *m = &root->members[i];
                struct str shown = text_clip(m->key, 60);
                const char *near = nearest_name(m->key, known, COUNT_OF(known));
                bool is_known = false;

                for (size_t k = 0; k < COUNT_OF(known); k++)
                        is_known = is_known || str_is(m->key, known[k]);
                if (is_known)
                        continue;
                if (problems->pass_unknown) {
                        if (problems->unknown++ == 0)
                                (void)snprintf(problems->first_unknown, sizeof(problems->first_unknown),
                                               STR_FMT, STR_ARG(shown));
                        continue;
                }
                fine = false;
                if (near)
                        problem_add(problems, m->line, m->column, "",
                                    "unknown member \"" STR_FMT "\"; did you mean \"%s\"?", STR_ARG(shown),
                                    near);
                else
                        problem_add(problems, m->line, m->column, "",
                                    "unknown member \"" STR_FMT
                                    "\"; known are apiVersion, kind, metadata, spec, status",
                                    STR_ARG(shown));
        }
        return fine;
}

static bool adopt_metadata(struct trigger *t, struct metadata *m)
{
        BUF_AT_END struct buf uid = BUF_INIT(1024);

        t->name = TAKE(m->name);
        t->namespace_ = TAKE(m->namespace_);
        t->generation = m->generation;
        t->deleting = m->deletion != 0;
        buf_printf(&uid, "%s/%s", t->namespace_, t->name);
        t->uid = m->uid ? TAKE(m->uid) : buf_take(&uid);
        return t->uid != NULL;
}

static bool adopt_spec(struct trigger *t, struct spec_object *s)
{
        for (size_t i = 0; i < t->types_n; i++)
                if (s->source->specs[i]) {
                        t->source = i;
                        t->source_spec = s->source->specs[i];
                }
        free(s->source);
        t->sink = s->sink;
        t->function = s->function;
        t->event = s->event;
        t->ce_overrides = s->ce_overrides;
        t->filter = s->filter;
        t->transform = s->transform;
        t->delivery = s->delivery;
        t->worker = s->worker;
        t->replicas = s->replicas;
        t->suspend = s->suspend;
        *s = (struct spec_object){ 0 };
        if (!t->function->name)
                t->function->name = str_dup(str_of(t->name));
        return t->function->name != NULL;
}

/* A member that must be there; NULL: told. */
static const struct node *part_of(const struct node *root, const char *name, struct problems *problems)
{
        const struct node *n = node_member(root, name);

        if (n && node_refused(n))
                return NULL;
        if (!n || n->kind == NODE_NULL)
                problem_add(problems, root->line, root->column, name, "is missing: give a map");
        return n && n->kind != NODE_NULL ? n : NULL;
}

static bool decode_parts(const struct node *root, const struct type *spec_type, struct metadata *metadata,
                         struct spec_object *spec, struct problems *problems)
{
        bool fine = check_top_level(root, problems);
        const struct node *n = part_of(root, "metadata", problems);

        fine = n && decode_metadata(n, metadata, problems) == 0 && fine;
        n = part_of(root, "spec", problems);
        return n && schema_decode(spec_type, n, spec, "spec", problems) == 0 && fine;
}

static struct trigger *make(const struct node *root, struct metadata *metadata, struct spec_object *spec,
                            const struct source_type *types, size_t n)
{
        const struct node *transform = node_member(node_member(root, "spec"), "transform"),
                          *jq = transform ? node_member(transform, "jq") : NULL;
        struct trigger *t = calloc(1, sizeof(*t));

        if (!t)
                return NULL;
        t->line = root->line;
        t->column = root->column;
        if (jq) {
                t->jq_line = jq->line;
                t->jq_column = jq->column;
        }
        t->types = types;
        t->types_n = n;
        return adopt_metadata(t, metadata) && adopt_spec(t, spec) ? t : trigger_free(t);
}

static struct trigger *check_replicas(struct trigger *t, const struct node *root, struct problems *problems)
{
        const struct node *replicas = node_member(node_member(root, "spec"), "replicas");

        if (t->replicas == 1 || t->types[t->source].shared)
                return t;
        problem_add(problems, replicas->line, replicas->column, "spec.replicas",
                    "must be 1 for source %s: several workers would each read all of it",
                    t->types[t->source].name);
        return trigger_free(t);
}

/* What the source and the delivery say must agree. */
static struct trigger *check_fit(struct trigger *t, const struct node *root, struct problems *problems)
{
        const struct source_type *type = &t->types[t->source];
        const struct node *source = node_member(node_member(node_member(root, "spec"), "source"), type->name);
        BUF_AT_END struct buf path = BUF_INIT(256), why = BUF_INIT(1024);

        if (!type->fits || type->fits(t->source_spec, t->delivery, &why))
                return t;
        buf_printf(&path, "spec.source.%s", type->name);
        problem_add(problems, source->line, source->column, path.p ? path.p : "", "%s",
                    why.p ? why.p : "out of memory");
        return trigger_free(t);
}

struct trigger *trigger_decode(const struct node *root, const struct source_type *types, size_t n,
                               struct problems *problems)
{
        struct spec_tables tables;
        struct metadata metadata = { 0 };
        struct spec_object spec = { 0 };
        struct trigger *t = NULL;

        if (root->kind != NODE_MAP || (!node_member(root, "apiVersion") && !node_member(root, "kind"))) {
                problem_add(problems, root->line, root->column, "",
                            "no Kubernetes object: begin with apiVersion: %s and kind: Trigger",
                            API_GROUP_VERSION);
                return NULL;
        }
        spec_tables_build(&tables, types, n);
        if (decode_parts(root, &tables.spec, &metadata, &spec, problems)) {
                t = make(root, &metadata, &spec, types, MIN_OF(n, (size_t)SOURCE_TYPES_MAX));
                if (!t)
                        problem_add(problems, root->line, root->column, "", "out of memory");
                else if ((t = check_fit(t, root, problems)))
                        t = check_replicas(t, root, problems);
        }
        schema_done(&metadata_type, &metadata);
        schema_done(&tables.spec, &spec);
        return t;
}

struct trigger *trigger_free(struct trigger *t)
{
        struct spec_tables tables;
        struct spec_object spec;

        if (!t)
                return NULL;
        spec = (struct spec_object){ .sink = t->sink,
                                     .function = t->function,
                                     .event = t->event,
                                     .ce_overrides = t->ce_overrides,
                                     .filter = t->filter,
                                     .transform = t->transform,
                                     .delivery = t->delivery,
                                     .worker = t->worker };
        spec_tables_build(&tables, t->types, t->types_n);
        schema_done(&tables.spec, &spec);
        if (t->source_spec)
                schema_done(t->types[t->source].type, t->source_spec);
        free(t->source_spec);
        free(t->name);
        free(t->namespace_);
        free(t->uid);
        free(t->file);
        free(t);
        return NULL;
}

void trigger_write(const struct trigger *t, struct writer *w)
{
        struct source_union sources = { 0 };
        struct spec_object spec = { .source = &sources,
                                    .sink = t->sink,
                                    .function = t->function,
                                    .event = t->event,
                                    .ce_overrides = t->ce_overrides,
                                    .filter = t->filter,
                                    .transform = t->transform,
                                    .delivery = t->delivery,
                                    .worker = t->worker,
                                    .replicas = t->replicas,
                                    .suspend = t->suspend };
        struct spec_tables tables;

        sources.specs[t->source] = t->source_spec;
        spec_tables_build(&tables, t->types, t->types_n);
        writer_object(w);
        writer_member_text(w, "apiVersion", API_GROUP_VERSION);
        writer_member_text(w, "kind", "Trigger");
        writer_key(w, STR("metadata"));
        writer_object(w);
        writer_member_text(w, "name", t->name);
        writer_member_text(w, "namespace", t->namespace_);
        writer_member_text(w, "uid", t->uid);
        writer_member_int(w, "generation", t->generation);
        writer_object_end(w);
        writer_key(w, STR("spec"));
        schema_write(&tables.spec, &spec, w);
        writer_object_end(w);
}

struct secret_visit {
        void (*each)(void *, const struct secret_ref *);
        void *cookie;
};

static void visit_secret(void *cookie, const void *found)
{
        const struct secret_visit *v = cookie;

        v->each(v->cookie, found);
}

void trigger_secrets(const struct trigger *t, void (*each)(void *, const struct secret_ref *), void *cookie)
{
        struct secret_visit visit = { each, cookie };

        schema_each(&delivery_type, t->delivery, &secret_ref_type, visit_secret, &visit);
        schema_each(t->types[t->source].type, t->source_spec, &secret_ref_type, visit_secret, &visit);
}

bool trigger_type_at(size_t index, const struct source_type *types, size_t n, const struct type **out)
{
        static const struct type *const own[] = { &sink_ref_type,  &sink_type,         &function_type,
                                                  &event_type,     &ce_overrides_type, &filter_type,
                                                  &transform_type, &worker_type,       &metadata_type };

        size_t inner = 0;

        while (delivery_types[inner])
                inner++;
        if (index >= COUNT_OF(own) + inner + n)
                return false;
        *out = index < COUNT_OF(own)           ? own[index]
               : index < COUNT_OF(own) + inner ? delivery_types[index - COUNT_OF(own)]
                                               : types[index - COUNT_OF(own) - inner].type;
        return true;
}
