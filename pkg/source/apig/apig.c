#include "source/apig/apig.h"

#include <stdio.h>

#include "base/log.h"

/* ---- the spec -------------------------------------------------------------------------------------------------------------------------- */

static bool path_parses(const void *object, struct buf *why)
{
        const struct apig_spec *spec = object;
        struct apig_path *p;

        if (!spec->path)
                return true;
        if (apig_path_new(&p, spec->path, spec->match == APIG_PREFIX, why) < 0)
                return false;
        (void)apig_path_free(p);
        return true;
}

/* An Ingress refuses them. */
#define UNCLEAR_PATTERN "(//|/[.][.]?(/|$)|%2[fF])"
static bool path_is_clear(const void *object)
{
        const struct apig_spec *spec = object;

        return !spec->expose || !spec->path || !schema_matches(UNCLEAR_PATTERN, spec->path);
}

static const char *const match_names[] = { [APIG_EXACT] = "Exact", [APIG_PREFIX] = "Prefix", NULL };
static const struct field apig_fields[] = {
        { .name = "path", .type = FIELD_STRING, .offset = offsetof(struct apig_spec, path), .required = true, .min = 1, .max = 512, .pattern = "^/[!-~]*$",
          .format = "a path that begins with /, of printable ASCII",
          .help = "The API's path. A segment {name} takes any one segment, a last one {name+} all that is left. Literal segments win over parameters.", .cloud = "path" },
        { .name = "methods", .type = FIELD_STRINGS, .offset = offsetof(struct apig_spec, methods), .max = 16, .pattern = "^(GET|POST|PUT|DELETE|HEAD|PATCH|OPTIONS)$",
          .format = "GET, POST, PUT, DELETE, HEAD, PATCH or OPTIONS", .help = "The methods that are served; by default any.", .cloud = "req_method" },
        { .name = "match", .type = FIELD_ENUM, .offset = offsetof(struct apig_spec, match), .fallback = "Exact", .values = match_names,
          .help = "Whether the whole path must match, or its start is enough.", .cloud = "match_mode" },
        { .name = "stage", .type = FIELD_STRING, .offset = offsetof(struct apig_spec, stage), .fallback = "RELEASE", .min = 1, .max = 64, .pattern = "^[A-Za-z][A-Za-z0-9_]*$",
          .format = "letters, digits and _", .help = "The environment that events name as requestContext.stage." },
        { .name = "apiId", .type = FIELD_STRING, .offset = offsetof(struct apig_spec, api_id), .min = 1, .max = 128, .pattern = "^[!-~]+$", .format = "printable ASCII",
          .help = "The API's id that events name as requestContext.apiId; by default the Trigger's uid." },
        { .name = "timeout", .type = FIELD_DURATION, .offset = offsetof(struct apig_spec, timeout), .fallback = "5s", .min = USEC_MSEC, .max = USEC_MINUTE,
          .help = "How long the function may take; then the caller gets 504." },
        { .name = "authentication", .type = FIELD_OBJECT, .offset = offsetof(struct apig_spec, authentication), .object = &apig_authentication_type,
          .help = "Who may call; by default anyone.", .cloud = "auth" },
        REACH_FIELDS(apig_spec, ),
};
static const struct rule apig_rules[] = {
        { .path = "path", .message = "the path must be of literal segments and parameters", .explain = path_parses },
        { .cel = "!has(self.expose) || !self.path.matches('" UNCLEAR_PATTERN "')", .path = "path", .message = "with expose the path must be without //, /., /.. and %2F", .check = path_is_clear },
};
const struct type apig_type = { .name = "ApigSource", .help = "HTTP requests, answered with what the function answers.", .fields = apig_fields, .fields_n = COUNT_OF(apig_fields),
                                .rules = apig_rules, .rules_n = COUNT_OF(apig_rules), .size = sizeof(struct apig_spec) };

/* ---- the source ------------------------------------------------------------------------------------------------------------------------ */

struct request {                 /* a record of ours */
        struct record record;
        const struct apig_spec *spec;
        struct apig_path *path;  /* borrowed */
        struct push_request request;     /* its views live as long as the call */
        char id[40], client[64];
        bool head;
};

struct source {
        const struct apig_spec *spec;
        const struct services *services;
        struct apig_path *path;
        struct apig_gate_keeper *keeper;         /* NULL: anyone may call */
        bool told, stopping, told_closed;
};

static int apig_open(struct source **out, const void *spec, const struct services *services, struct task *wake UNUSED, struct error *err)
{
        BUF_AT_END struct buf why = BUF_INIT(1024);
        struct source *s = calloc(1, sizeof(*s));

        if (!s)
                return error_memory(err);
        s->spec = spec;
        s->services = services;
        if (apig_path_new(&s->path, s->spec->path, s->spec->match == APIG_PREFIX, &why) < 0) {
                free(s);
                return error_set(err, ERROR_INVALID, "path: %s", why.p ? why.p : "");
        }
        if (s->spec->authentication && s->spec->authentication->type != APIG_NONE && apig_keeper_new(&s->keeper, s->spec->authentication, services, err) < 0) {
                (void)apig_path_free(s->path);
                free(s);
                return -1;
        }
        *out = s;
        return 0;
}

static size_t apig_poll(struct source *s, struct source_event *events, size_t max, usec now UNUSED)
{
        size_t n = 0;

        if (!s->told && n < max) {
                s->told = true;
                events[n++] = (struct source_event){ .kind = SOURCE_EVENT_STATE, .state = SOURCE_CONNECTED };
        }
        if (s->stopping && !s->told_closed && n < max) {
                s->told_closed = true;
                events[n++] = (struct source_event){ .kind = SOURCE_EVENT_CLOSED };
        }
        return n;
}

static usec apig_deadline(const struct source *s UNUSED) { return USEC_NEVER; }
static void apig_stop(struct source *s) { s->stopping = true; }

static struct source *apig_free(struct source *s)
{
        if (!s)
                return NULL;
        (void)apig_path_free(s->path);
        (void)apig_keeper_free(s->keeper);
        free(s);
        return NULL;
}

/* ---- requests -------------------------------------------------------------------------------------------------------------------------- */

static bool serves(const struct apig_spec *spec, struct str method)
{
        for (size_t i = 0; i < spec->methods.n; i++)
                if (str_is(method, spec->methods.list[i]))
                        return true;
        return spec->methods.n == 0;
}

static unsigned apig_route(struct source *s, const struct push_request *q)
{
        unsigned score = apig_path_match(s->path, q->path, NULL);

        /* A listed method wins over any. */
        return score && serves(s->spec, q->method) ? score * 2 + (s->spec->methods.n > 0) : 0;
}

static enum push_verdict apig_receive(struct source *s, uint64_t call UNUSED, const struct push_request *q, struct record **records, size_t *n, struct push_reply *reply)
{
        const char *code, *refusal = s->keeper ? apig_keeper_refuses(s->keeper, q, &code) : NULL;
        struct request *r;

        if (refusal) {
                apig_error(reply, 401, code, refusal, q->id);
                return PUSH_REPLY;
        }
        r = calloc(1, sizeof(*r));
        if (!r) {
                apig_error(reply, 500, "APIG.0201", "Backend unavailable: out of memory", q->id);
                return PUSH_REPLY;
        }
        r->spec = s->spec;
        r->path = s->path;
        r->request = *q;
        (void)snprintf(r->id, sizeof(r->id), STR_FMT, STR_ARG(q->id));
        r->request.id = str_of(r->id);
        (void)snprintf(r->client, sizeof(r->client), STR_FMT, STR_ARG(q->client));
        r->request.client = str_of(r->client);
        r->head = str_is(q->method, "HEAD");
        r->record = (struct record){ .id = r->request.id, .value = q->body, .native = r, .time = clock_wall(s->services->clock) };
        records[0] = &r->record;
        *n = 1;
        return PUSH_DELIVER;
}

static void retry_header(struct push_reply *reply, usec after)
{
        if (after > 0)
                buf_printf(&reply->headers, "Retry-After: %lld\r\n", (long long)((after + USEC_SEC - 1) / USEC_SEC));
}

static void apig_finish(struct source *s, uint64_t call UNUSED, struct record *const *records, size_t n UNUSED, const struct push_outcome *o, struct push_reply *reply)
{
        struct request *r = CONTAINER_OF(records[0], struct request, record);
        BUF_AT_END struct buf why = BUF_INIT(1024);
        struct str id = r->request.id;

        switch (o->result) {
        case PUSH_ACCEPTED:
                if (apig_answer(o->body, reply, &why))
                        buf_printf(&reply->headers, "X-Request-Id: " STR_FMT "\r\n", STR_ARG(id));
                else {
                        log_warn("malformed answer", LOG_S("trigger", s->services->trigger->name), LOG_S("request", r->id), LOG_S("reason", why.p ? why.p : ""));
                        apig_error(reply, 500, "APIG.0201", "Backend unavailable: the function's answer is malformed", id);
                }
                break;
        case PUSH_FILTERED: apig_error(reply, 404, "APIG.0101", "The API does not exist or has not been published in the environment", id); break;
        case PUSH_FAILED: apig_error(reply, 502, "APIG.0202", "Backend unavailable: the function failed", id); break;
        case PUSH_UNREACHABLE: apig_error(reply, 502, "APIG.0202", "Backend unavailable", id); break;
        case PUSH_TIMEOUT: apig_error(reply, 504, "APIG.0203", "Backend timeout", id); break;
        case PUSH_BUSY:
        case PUSH_LIMITED:
                apig_error(reply, 429, "APIG.0308", "The throttling threshold has been reached", id);
                retry_header(reply, o->result == PUSH_BUSY ? USEC_SEC : o->retry_after);
                break;
        case PUSH_NOT_READY:
                apig_error(reply, 503, "APIG.0202", "Backend unavailable", id);
                retry_header(reply, USEC_SEC);
                break;
        case PUSH_GONE: break;
        }
        if (o->result != PUSH_ACCEPTED && o->result != PUSH_GONE)
                log_debug("request", LOG_S("trigger", s->services->trigger->name), LOG_S("request", r->id), LOG_S("reason", o->text ? o->text : ""));
        free(r);
}

static usec apig_timeout(const struct source *s) { return s->spec->timeout; }

static void apig_where(const struct trigger *t, struct buf *b)
{
        const struct apig_spec *spec = t->source_spec;

        buf_text(b, spec->path);
}

static bool apig_literal(const struct trigger *t, struct buf *b)
{
        const struct apig_spec *spec = t->source_spec;
        const char *parameter = strstr(spec->path, "/{");
        size_t n = parameter ? (size_t)(parameter - spec->path) : strlen(spec->path);

        buf_str(b, n ? (struct str){ spec->path, n } : STR("/"));
        return !parameter && spec->match == APIG_EXACT;
}

/* ---- shapes ---------------------------------------------------------------------------------------------------------------------------- */

/* name → value, with a list where a name comes more than once (Classic), or all of them joined (Current, whose values are single strings). */
struct pair { struct str name, value; };
struct pairs { struct pair list[512]; size_t n; struct buf space; bool nocase; };

static bool same_name(const struct pairs *p, size_t a, size_t b)
{
        return p->nocase ? str_equal_nocase(p->list[a].name, p->list[b].name) : str_equal(p->list[a].name, p->list[b].name);
}

static void write_name(struct writer *w, struct str name, bool lower)
{
        char text[256];

        if (!lower || name.n > sizeof(text)) {
                writer_key(w, name);
                return;
        }
        for (size_t i = 0; i < name.n; i++)
                text[i] = name.p[i] >= 'A' && name.p[i] <= 'Z' ? (char)(name.p[i] | 0x20) : name.p[i];
        writer_key(w, (struct str){ text, name.n });
}

static void write_joined(const struct pairs *p, size_t first, struct writer *w)
{
        BUF_AT_END struct buf joined = BUF_INIT(1 << 20);

        for (size_t i = first; i < p->n; i++)
                if (same_name(p, first, i)) {
                        buf_text(&joined, i == first ? "" : ",");
                        buf_str(&joined, p->list[i].value);
                }
        writer_string(w, buf_view(&joined));
        w->out->failed = w->out->failed || joined.failed;
}

static void write_pairs(const struct pairs *p, bool lists, bool lower, struct writer *w)
{
        writer_object(w);
        for (size_t i = 0; i < p->n; i++) {
                bool before = false, again = false;

                for (size_t k = 0; k < p->n; k++)
                        if (k != i && same_name(p, i, k))
                                *(k < i ? &before : &again) = true;
                if (before)
                        continue;
                write_name(w, p->list[i].name, lower);
                if (!again)
                        writer_string(w, p->list[i].value);
                else if (!lists)
                        write_joined(p, i, w);
                else {
                        writer_array(w);
                        for (size_t k = i; k < p->n; k++)
                                if (same_name(p, i, k))
                                        writer_string(w, p->list[k].value);
                        writer_array_end(w);
                }
        }
        writer_object_end(w);
}

static void add_pair(struct pairs *p, struct str name, struct str value)
{
        if (p->n < COUNT_OF(p->list))
                p->list[p->n++] = (struct pair){ name, value };
}

static void note_header(void *cookie, struct str name, struct str value) { add_pair(cookie, name, value); }

static struct str decoded(struct pairs *p, struct str s, bool plus)
{
        size_t from = p->space.n;

        buf_unpercent(&p->space, s, plus);
        return (struct str){ p->space.p + from, p->space.n - from };
}

static void parse_query(struct pairs *p, struct str query)
{
        if (!buf_reserve(&p->space, query.n + 1))
                return;
        while (query.n) {
                struct str value = str_cut(&query, '&'), name = str_cut(&value, '=');

                if (name.n)
                        add_pair(p, decoded(p, name, true), decoded(p, value, true));
        }
}

static void path_parameters(const struct request *r, struct writer *w)
{
        struct str values[64];
        BUF_AT_END struct buf space = BUF_INIT(65536);

        writer_object(w);
        if (apig_path_match(r->path, r->request.path, values))
                for (size_t i = 0; i < apig_path_names(r->path); i++) {
                        buf_reset(&space);
                        buf_unpercent(&space, values[i], false);
                        writer_key(w, apig_path_name(r->path, i));
                        writer_string(w, buf_view(&space));
                }
        writer_object_end(w);
}

static void context(const struct services *services, const struct request *r, bool current, struct writer *w)
{
        writer_key(w, STR("requestContext"));
        writer_object(w);
        writer_member_text(w, "stage", r->spec->stage);
        if (current)
                writer_member_string(w, "sourceIp", r->request.client);
        writer_member_string(w, "requestId", r->request.id);
        writer_member_text(w, "apiId", r->spec->api_id ? r->spec->api_id : services->trigger->uid);
        writer_object_end(w);
}

static void write_event(const struct services *services, enum dialect dialect, const struct request *r, struct writer *w)
{
        struct pairs headers = { .nocase = true }, query = { .space = BUF_INIT(65536) };
        bool current = dialect == DIALECT_CURRENT, base64 = current || !str_is_utf8(r->request.body);

        r->request.each_header(&r->request, note_header, &headers);
        parse_query(&query, r->request.query);
        writer_object(w);
        writer_member_string(w, "httpMethod", r->request.method);
        writer_member_string(w, "path", r->request.path);
        writer_key(w, STR("pathParameters"));
        path_parameters(r, w);
        writer_key(w, STR("queryStringParameters"));
        write_pairs(&query, !current, false, w);
        writer_key(w, STR("headers"));
        write_pairs(&headers, !current, current, w);
        writer_key(w, STR("body"));
        if (base64)
                writer_base64(w, r->request.body);
        else
                writer_string(w, r->request.body);
        writer_member_bool(w, "isBase64Encoded", base64);
        context(services, r, current, w);
        if (current)
                writer_member_text(w, "user_data", "");
        writer_object_end(w);
        buf_done(&query.space);
}

static void apig_encode(const struct services *services, enum dialect dialect, struct record *const *records, size_t n UNUSED, struct writer *w)
{
        write_event(services, dialect, records[0]->native, w);
}

static void apig_describe(const struct record *record, struct writer *w)
{
        const struct request *r = record->native;
        struct pairs headers = { .nocase = true }, query = { .space = BUF_INIT(65536) };

        r->request.each_header(&r->request, note_header, &headers);
        parse_query(&query, r->request.query);
        writer_object(w);
        writer_member_string(w, "method", r->request.method);
        writer_member_string(w, "path", r->request.path);
        writer_key(w, STR("query"));
        write_pairs(&query, true, false, w);
        writer_key(w, STR("headers"));
        write_pairs(&headers, true, true, w);
        writer_key(w, STR("body"));
        if (str_is_utf8(r->request.body))
                writer_string(w, r->request.body);
        else
                writer_base64(w, r->request.body);
        writer_object_end(w);
        buf_done(&query.space);
}

static struct str apig_header(const struct record *record, const char *name)
{
        const struct request *r = record->native;

        return r->request.header(&r->request, name);
}

static void apig_event(const struct services *services, const struct record *record, struct buf *space, struct cloud_event *e)
{
        const struct request *r = record->native;
        struct str type = apig_header(record, "Content-Type");

        cloudevent_source(services->trigger, NULL, space);
        *e = (struct cloud_event){ .id = record->id, .source = buf_view(space), .subject = r->request.path, .time = record->time };
        if (r->request.body.n == 0)
                return;
        e->data = r->request.body;
        e->content_type = str_of(content_type_of(e->data, &e->json));
        if (type.n)
                e->content_type = type;
}

/* ---- previews ------------------------------------------------------------------------------------------------------------------------ */

/* A request made of the document that describe writes; its headers are the document's. */
struct sample { struct request request; struct apig_path *path; struct buf target, query, body; char *method; const struct node *headers; };

static struct str sample_header(const struct push_request *q, const char *name)
{
        const struct sample *s = q->head;

        for (size_t i = 0; s->headers && s->headers->kind == NODE_MAP && i < s->headers->n; i++)
                if (str_equal_nocase(s->headers->members[i].key, str_of(name)))
                        return s->headers->members[i].value->text;
        return (struct str){ 0 };
}

static void sample_each_header(const struct push_request *q, void (*each)(void *, struct str, struct str), void *cookie)
{
        const struct sample *s = q->head;

        for (size_t i = 0; s->headers && s->headers->kind == NODE_MAP && i < s->headers->n; i++)
                each(cookie, s->headers->members[i].key, s->headers->members[i].value->text);
}

static void sample_query(struct buf *out, const struct node *query)
{
        for (size_t i = 0; query && query->kind == NODE_MAP && i < query->n; i++) {
                const struct node *v = query->members[i].value;

                for (size_t k = 0; k < (v->kind == NODE_LIST ? v->n : 1); k++)
                        buf_printf(out, "%s" STR_FMT "=" STR_FMT, out->n ? "&" : "", STR_ARG(query->members[i].key), STR_ARG(v->kind == NODE_LIST ? v->items[k]->text : v->text));
        }
}

static void apig_sample_free(struct record *record)
{
        struct sample *s;

        if (!record)
                return;
        s = CONTAINER_OF(CONTAINER_OF(record, struct request, record), struct sample, request);
        (void)apig_path_free(s->path);
        buf_done(&s->target);
        buf_done(&s->query);
        buf_done(&s->body);
        free(s->method);
        free(s);
}

static int apig_sample(const void *spec_, const struct services *services, const struct node *document, struct record **out, struct error *err)
{
        const struct apig_spec *spec = spec_;
        const struct node *method = node_member(document, "method"), *path = node_member(document, "path"), *body = node_member(document, "body");
        BUF_AT_END struct buf why = BUF_INIT(1024);
        struct sample *s = calloc(1, sizeof(*s));
        struct request *r;
        struct writer w;

        if (!s)
                return error_memory(err);
        r = &s->request;
        s->target.max = s->query.max = s->body.max = BUF_DEFAULT_MAX;
        s->headers = node_member(document, "headers");
        s->method = method && method->kind == NODE_STRING ? str_dup(method->text) : str_dup(str_of(spec->methods.n ? spec->methods.list[0] : "GET"));
        buf_str(&s->target, path && path->kind == NODE_STRING ? path->text : str_of(spec->path));
        sample_query(&s->query, node_member(document, "query"));
        writer_init(&w, &s->body);
        if (body && body->kind == NODE_STRING)
                buf_str(&s->body, body->text);
        else if (body && body->kind != NODE_NULL)
                node_write(body, &w);
        if (!s->method || s->target.failed || s->query.failed || s->body.failed || apig_path_new(&s->path, spec->path, spec->match == APIG_PREFIX, &why) < 0) {
                apig_sample_free(&r->record);
                return error_set(err, ERROR_INVALID, "path: %s", why.p ? why.p : "out of memory");
        }
        r->spec = spec;
        r->path = s->path;
        (void)snprintf(r->id, sizeof(r->id), "%032d", 0);
        (void)snprintf(r->client, sizeof(r->client), "127.0.0.1");
        r->request = (struct push_request){ .method = str_of(s->method), .path = buf_view(&s->target), .query = buf_view(&s->query), .body = buf_view(&s->body), .client = str_of(r->client),
                                            .id = str_of(r->id), .head = s, .header = sample_header, .each_header = sample_each_header };
        r->record = (struct record){ .id = r->request.id, .value = r->request.body, .native = r, .time = clock_wall(services->clock) };
        *out = &r->record;
        return 0;
}

static void apig_origin(const struct trigger *t, struct buf *b) { apig_where(t, b); }

static const struct push_driver push = { .route = apig_route, .receive = apig_receive, .finish = apig_finish, .timeout = apig_timeout, .path = apig_where, .literal = apig_literal };

const struct driver apig_driver = {
        .name = "apig", .ce_type = "dev.sluice.apig.request", .push = &push, .type = &apig_type, .open = apig_open, .poll = apig_poll, .deadline = apig_deadline, .stop = apig_stop,
        .free = apig_free, .describe = apig_describe, .encode = apig_encode, .event = apig_event, .header = apig_header, .sample = apig_sample, .sample_free = apig_sample_free, .origin = apig_origin,
};
