#include "source/apig/apig.h"

#include <arpa/inet.h>
#include <stdio.h>

#include "log/log.h"
#include "base/random.h"
#include "base/sample.h"
#include "source/apig/callers.h"

enum {
        CALLERS_MOST = 10000,
        LACKS_MOST = 251 /* of the state's text, for what the callers' credentials lack */
};

/* ---- the spec ----------------------------------------------------------- */

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
static const char *const by_names[] = {
        [APIG_BY_IDENTITY] = "Identity", [APIG_BY_ADDRESS] = "Address", NULL
};
static const struct field limit_fields[] = {
        FIELD(INT, "requests", struct apig_caller_limit, requests, .required = true, .min = 1, .max = 1000000,
              .help = "Requests in a period."),
        FIELD(DURATION, "period", struct apig_caller_limit, period, .fallback = "1s", .min = USEC_SEC,
              .max = USEC_DAY, .help = "The period, over which the requests are spread evenly."),
        FIELD(INT, "burst", struct apig_caller_limit, burst, .min = 1, .max = 1000000,
              .help = "Requests that may come at once after a rest; by default as many as requests says."),
        FIELD(ENUM, "by", struct apig_caller_limit, by, .fallback = "Identity", .values = by_names,
              .help = "What tells callers apart. Identity: what authentication found out, which is the "
                      "access key, the AppCode, the token's user or the authorizer's principal; without "
                      "authentication the address. Address: the client's address, looked at before "
                      "authentication; of IPv6 the first 64 bits."),
};
static const struct type limit_type = TYPE("CallerRateLimit", struct apig_caller_limit, limit_fields,
                                           "How fast each caller may go.");

static const struct field apig_fields[] = {
        FIELD(STRING, "path", struct apig_spec, path, .required = true, .min = 1, .max = 512,
              .pattern = "^/[!-~]*$", .format = "a path that begins with /, of printable ASCII",
              .cloud = "path",
              .help = "The API's path. A segment {name} takes any one segment, a last one {name+} all that "
                      "is left. Literal segments win over parameters."),
        FIELD(STRINGS, "methods", struct apig_spec, methods, .max = 16,
              .pattern = "^(GET|POST|PUT|DELETE|HEAD|PATCH|OPTIONS)$",
              .format = "GET, POST, PUT, DELETE, HEAD, PATCH or OPTIONS", .cloud = "req_method",
              .help = "The methods that are served; by default any."),
        FIELD(ENUM, "match", struct apig_spec, match, .fallback = "Exact", .values = match_names,
              .cloud = "match_mode", .help = "Whether the whole path must match, or its start is enough."),
        FIELD(STRING, "stage", struct apig_spec, stage, .fallback = "RELEASE", .min = 1, .max = 64,
              .pattern = "^[A-Za-z][A-Za-z0-9_]*$", .format = "letters, digits and _",
              .help = "The environment that events name as requestContext.stage."),
        FIELD(STRING, "apiID", struct apig_spec, api_id, .former = "apiId", .min = 1, .max = 128,
              .pattern = "^[!-~]+$", .format = "printable ASCII",
              .help = "The API's id that events name as requestContext.apiId; by default the Trigger's uid; "
                      "without a cluster a UUID made of NAMESPACE/NAME."),
        FIELD(DURATION, "timeout", struct apig_spec, timeout, .fallback = "5s", .min = USEC_MSEC,
              .max = USEC_MINUTE, .help = "How long the function may take; then the caller gets 504."),
        FIELD(OBJECT, "authentication", struct apig_spec, authentication, .object = &apig_authentication_type,
              .cloud = "auth", .help = "Who may call; by default anyone."),
        FIELD(OBJECT, "callerRateLimit", struct apig_spec, caller_limit, .object = &limit_type,
              .help = "How fast each caller may go; beyond it gets 429 with Retry-After. Ten thousand "
                      "callers are told apart, by each replica for itself."),
        REACH_FIELDS(apig_spec, ),
};
static const struct rule apig_rules[] = {
        RULE(.cel = "self.path.matches('^(/([^{}?#/]*|[{][A-Za-z0-9_-]+[}]))*(/[{][A-Za-z0-9_-]+[+][}]/"
                    "?)?$')",
             .path = "path", .message = "the path must be of literal segments and parameters",
             .explain = path_parses),
        RULE(.cel = "!has(self.expose) || !self.path.matches('" UNCLEAR_PATTERN "')", .path = "path",
             .message = "with expose the path must be without //, /., /.. and %2F", .check = path_is_clear),
};
const struct type apig_type = TYPE("ApigSource", struct apig_spec, apig_fields,
                                   "HTTP requests, answered with what the function answers.",
                                   RULES(apig_rules));

/* ---- the source --------------------------------------------------------- */

struct apig {
        struct source source;
        const struct apig_spec *spec;
        const struct services *services;
        struct apig_path *path;
        const char *api_id;
        char api_id_space[APIG_ID];
        struct apig_gate_keeper *keeper; /* NULL: anyone may call */
        struct callers *callers;         /* NULL: as fast as they like */
        uint64_t seed;                   /* of hashes of callers */
        struct push_counts counts;
        struct log_sample log;
        bool told, stopping, told_closed;
        char said[512], trouble[256]; /* the state's text as it was told, and as it is */
};

static struct apig *apig_of(const struct source *s) { return CONTAINER_OF(s, struct apig, source); }

static struct source *apig_free(struct source *source)
{
        struct apig *s = apig_of(source);

        if (!s)
                return NULL;
        (void)apig_path_free(s->path);
        (void)apig_keeper_free(s->keeper);
        (void)callers_free(s->callers);
        free(s);
        return NULL;
}

static struct judge *judge_of(const struct apig *s)
{
        return s->keeper ? apig_keeper_judge(s->keeper) : NULL;
}

/* ---- callers ------------------------------------------------------------ */

static uint64_t address_hash(const struct apig *s, struct str client)
{
        struct in6_addr a;
        char text[80];

        (void)snprintf(text, sizeof(text), memchr(client.p, ':', client.n) ? STR_FMT : "::ffff:" STR_FMT,
                       STR_ARG(client));
        if (inet_pton(AF_INET6, text, &a) != 1)
                return hash_bytes(s->seed, client);
        /* One customer of IPv6 has at least a /64. */
        return hash_bytes(s->seed, IN6_IS_ADDR_V4MAPPED(&a) ? (struct str){ (const char *)&a, 16 }
                                                            : (struct str){ (const char *)&a, 8 });
}

static bool within_limit(struct apig *s, uint64_t who, struct apig_refusal *refusal, usec now)
{
        usec after = s->callers ? callers_take(s->callers, who, now) : 0;

        if (!after)
                return true;
        s->counts.limited++;
        *refusal = (struct apig_refusal){
                .status = 429,
                .code = "APIG.0308",
                .message = "The throttling threshold has been reached: policy user over ratelimit",
                .retry_after = after
        };
        return false;
}

static bool limits_by(const struct apig *s, enum apig_limit_by by)
{
        return s->callers &&
               (s->spec->caller_limit->by == APIG_BY_ADDRESS || !s->keeper) == (by == APIG_BY_ADDRESS);
}

/* Someone has said whether it may: does it go to the function? */
static bool goes(struct apig *s, struct apig_request *r, usec now)
{
        const struct verdict *v = r->verdict;

        if (!v->allowed) {
                s->counts.refused += v->refusal.status < 500;
                r->refusal = v->refusal;
                return false;
        }
        return !limits_by(s, APIG_BY_IDENTITY) ||
               within_limit(s, v->caller ? v->caller : r->who, &r->refusal, now);
}

/* ---- life and state ----------------------------------------------------- */

static int open_all(struct apig *s, struct error *err)
{
        const struct apig_spec *spec = s->spec;
        BUF_AT_END struct buf why = BUF_INIT(1024);

        if (apig_path_new(&s->path, spec->path, spec->match == APIG_PREFIX, &why) < 0)
                return error_set(err, ERROR_INVALID, "path: %s", why.p ? why.p : "");
        if (spec->authentication && spec->authentication->type != APIG_NONE &&
            apig_keeper_new(&s->keeper, spec->authentication, s->services, err) < 0)
                return -1;
        if (spec->caller_limit) {
                const struct apig_caller_limit *l = spec->caller_limit;
                const struct bucket_rate rate = bucket_rate(l->requests, l->period,
                                                            l->burst ? l->burst : l->requests);

                return callers_new(&s->callers, &rate, CALLERS_MOST, err);
        }
        return 0;
}

static int apig_open(struct source **out, const void *spec, const struct services *services,
                     struct error *err)
{
        struct apig *s = calloc(1, sizeof(*s));

        if (!s)
                return error_memory(err);
        s->spec = spec;
        s->services = services;
        s->api_id = apig_id(services->trigger, s->api_id_space);
        s->seed = random_seed();
        if (open_all(s, err) < 0) {
                (void)apig_free(&s->source);
                return -1;
        }
        *out = &s->source;
        return 0;
}

/* The judge's last failure is told when it begins and when it is over, not each time that it reads otherwise.
 */
static bool state_changed(struct apig *s)
{
        const char *lacks = s->keeper ? apig_keeper_lacks(s->keeper) : NULL,
                   *trouble = judge_of(s) ? judge_trouble(judge_of(s)) : NULL;
        char text[sizeof(s->said)];
        size_t n;

        if (!trouble)
                s->trouble[0] = 0;
        else if (!s->trouble[0])
                (void)text_copy(s->trouble, sizeof(s->trouble), trouble);
        n = text_copy(text, LACKS_MOST, lacks ? lacks : "");
        if (lacks && s->trouble[0])
                n += text_copy(text + n, sizeof(text) - n, "; ");
        (void)text_copy(text + n, sizeof(text) - n, s->trouble);
        if (s->told && strcmp(text, s->said) == 0)
                return false;
        s->told = true;
        memcpy(s->said, text, sizeof(text));
        return true;
}

static size_t apig_poll(struct source *source, struct push_event *events, size_t max, usec now)
{
        struct apig *s = apig_of(source);
        struct judge *judge = judge_of(s);
        struct judge_wait *w;
        size_t n = 0;

        if (judge)
                judge_turn(judge, now);
        if (s->keeper)
                apig_keeper_look(s->keeper);
        if (n < max && state_changed(s))
                events[n++] = (struct push_event){ .kind = PUSH_EVENT_STATE,
                                                   .state = SOURCE_CONNECTED,
                                                   .text = s->said[0] ? s->said : NULL };
        while (judge && n < max && (w = judge_take(judge))) {
                struct apig_request *r = CONTAINER_OF(w, struct apig_request, wait);

                r->verdict = TAKE(w->verdict);
                events[n++] = (struct push_event){ .kind = PUSH_EVENT_CALL,
                                                   .call = r->call,
                                                   .verdict = goes(s, r, now) ? PUSH_DELIVER : PUSH_REPLY };
        }
        if (s->stopping && !s->told_closed && n < max) {
                s->told_closed = true;
                events[n++] = (struct push_event){ .kind = PUSH_EVENT_CLOSED };
        }
        return n;
}

static usec apig_deadline(const struct source *source)
{
        const struct apig *s = apig_of(source);
        const struct judge *judge = judge_of(s);

        return judge ? judge_deadline(judge) : USEC_NEVER;
}

static void apig_stop(struct source *source)
{
        struct apig *s = apig_of(source);

        s->stopping = true;
}

/* ---- requests ----------------------------------------------------------- */

static const struct apig_refusal NO_MEMORY = { .status = 503,
                                               .code = "APIG.0202",
                                               .message = "Backend unavailable: out of memory",
                                               .retry_after = USEC_SEC };
static const char NO_API[] = "The API does not exist or has not been published in the environment";

static bool serves(const struct apig_spec *spec, struct str method)
{
        for (size_t i = 0; i < spec->methods.n; i++)
                if (str_is(method, spec->methods.list[i]))
                        return true;
        return spec->methods.n == 0;
}

static bool apig_authenticates(const struct source *source)
{
        const struct apig *s = apig_of(source);

        return s->keeper != NULL;
}

static unsigned apig_route(struct source *source, const struct push_request *q, struct str path)
{
        struct apig *s = apig_of(source);

        unsigned score = apig_path_match(s->path, path, NULL);

        /* A listed method wins over any. */
        return score && serves(s->spec, q->method) ? score * 2 + (s->spec->methods.n > 0) : 0;
}

static void retry_header(struct push_reply *reply, usec after)
{
        if (after > 0)
                buf_printf(&reply->headers, "Retry-After: %lld\r\n",
                           (long long)((after + USEC_SEC - 1) / USEC_SEC));
}

static struct apig_request *request_new(struct apig *s, uint64_t call, const struct push_request *q)
{
        struct apig_request *r = calloc(1, sizeof(*r));

        if (!r)
                return NULL;
        r->spec = s->spec;
        r->api_id = s->api_id;
        r->path = s->path;
        r->call = call;
        r->request = *q;
        r->request.id = (struct str){ r->id, str_copy(r->id, sizeof(r->id), q->id) };
        r->request.client = (struct str){ r->client, str_copy(r->client, sizeof(r->client), q->client) };
        r->record = (struct record){
                .id = r->request.id, .value = q->body, .origin = r, .time = clock_wall(s->services->clock)
        };
        return r;
}

static void request_free(struct apig_request *r)
{
        (void)verdict_release(r->verdict);
        free(r);
}

/* Whoever asks about a request has the id that its answer bore. */
static void log_request(struct apig *s, struct str id, int status, const char *reason)
{
        uint64_t unsaid;
        char text[40];

        if (!sample_take(&s->log, loop_now(s->services->loop), &unsaid))
                return;
        (void)str_copy(text, sizeof(text), id);
        log_info_for(s->services->log, "request", LOG_S("request", text), LOG_I("status", status),
                     LOG_S("reason", reason ? reason : ""), LOG_I("unsaid", unsaid));
}

static enum push_verdict refuse(struct apig *s, const struct apig_refusal *refusal,
                                const struct push_request *q, struct push_reply *reply)
{
        log_request(s, q->id, refusal->status, refusal->message);
        apig_error(reply, refusal->status, refusal->code, refusal->message, q->id);
        retry_header(reply, refusal->retry_after);
        return PUSH_REPLY;
}

/* A request that no API received. */
static void apig_refuse(const struct push_refused *r, struct push_reply *reply)
{
        switch (r->why) {
        case PUSH_NOT_HTTP: apig_error(reply, r->status, "APIG.0201", r->text, r->id); return;
        case PUSH_HEAD_TOO_LONG: apig_error(reply, 494, "APIG.0201", r->text, r->id); return;
        case PUSH_NO_PATH: apig_error(reply, 404, "APIG.0101", NO_API, r->id); return;
        case PUSH_GUARDED_PATH:
                apig_error(reply, 400, "APIG.0201",
                           "Bad request: the path holds slashes that follow one another; with one slash it "
                           "is the path of an API that authenticates its callers",
                           r->id);
                return;
        case PUSH_STOPPING:
                apig_error(reply, 503, "APIG.0202", "Backend unavailable: the worker is stopping", r->id);
                retry_header(reply, USEC_SEC);
                return;
        case PUSH_OVERLOADED:
                apig_error(reply, 503, "APIG.0202", r->text, r->id);
                retry_header(reply, USEC_SEC);
                return;
        case PUSH_NO_MEMORY:
                apig_error(reply, NO_MEMORY.status, NO_MEMORY.code, NO_MEMORY.message, r->id);
                retry_header(reply, NO_MEMORY.retry_after);
                return;
        }
}

/* What is known decides at once; otherwise the call waits until the judge has said. */
static enum push_verdict ask(struct apig *s, struct apig_request *r, const struct apig_caller *caller,
                             struct push_reply *reply)
{
        struct judge *judge = judge_of(s);
        enum push_verdict verdict = PUSH_DELIVER;

        r->who = caller->who;
        r->verdict = judge_recall(judge, caller->key);
        if (!r->verdict && judge_ask(judge, caller->key, caller->shared, &r->wait))
                return PUSH_HOLD;
        if (!r->verdict) {
                verdict = refuse(s, &NO_MEMORY, &r->request, reply);
                request_free(r);
                return verdict;
        }
        if (!goes(s, r, loop_now(s->services->loop))) {
                verdict = refuse(s, &r->refusal, &r->request, reply);
                request_free(r);
        }
        return verdict;
}

static enum push_verdict apig_receive(struct source *source, uint64_t call, const struct push_request *q,
                                      struct record **records, size_t *n, struct push_reply *reply)
{
        struct apig *s = apig_of(source);
        enum apig_admission admission = APIG_ADMITTED;
        struct apig_caller caller;
        struct apig_refusal refusal;
        struct apig_request *r;

        if (limits_by(s, APIG_BY_ADDRESS) &&
            !within_limit(s, address_hash(s, q->client), &refusal, loop_now(s->services->loop)))
                return refuse(s, &refusal, q, reply);
        if (s->keeper) {
                admission = apig_keeper_check(s->keeper, q, &caller);
                if (admission == APIG_REFUSED) {
                        s->counts.refused += caller.refusal.status < 500;
                        return refuse(s, &caller.refusal, q, reply);
                }
                if (admission == APIG_ADMITTED && limits_by(s, APIG_BY_IDENTITY) &&
                    !within_limit(s, caller.who, &refusal, loop_now(s->services->loop)))
                        return refuse(s, &refusal, q, reply);
        }
        if (!(r = request_new(s, call, q)))
                return refuse(s, &NO_MEMORY, q, reply);
        records[0] = &r->record;
        *n = 1;
        return admission == APIG_ASK ? ask(s, r, &caller, reply) : PUSH_DELIVER;
}

static void apig_finish(struct source *source, uint64_t call UNUSED, struct record *const *records,
                        size_t n UNUSED, const struct push_outcome *o, struct push_reply *reply)
{
        struct apig *s = apig_of(source);
        struct apig_request *r = CONTAINER_OF(records[0], struct apig_request, record);
        struct judge *judge = judge_of(s);
        BUF_AT_END struct buf why = BUF_INIT(1024);
        struct str id = r->request.id;

        switch (o->result) {
        case PUSH_ACCEPTED:
                if (o->cut)
                        buf_text(&why, "the function's answer is larger than 8 MiB");
                else if (apig_answer(o->body, reply, &why)) {
                        buf_text(&reply->headers, "X-Request-Id: ");
                        buf_str(&reply->headers, id);
                        buf_text(&reply->headers, "\r\n");
                        break;
                }
                apig_error(reply, 500, "APIG.0201",
                           o->cut ? "Backend unavailable: the function's answer is larger than 8 MiB"
                                  : "Backend unavailable: the function's answer is malformed",
                           id);
                log_request(s, id, 500, why.p);
                break;
        case PUSH_FILTERED: apig_error(reply, 404, "APIG.0101", NO_API, id); break;
        case PUSH_FAILED:
                apig_error(reply, 502, "APIG.0202", "Backend unavailable: the function failed", id);
                break;
        case PUSH_UNREACHABLE: apig_error(reply, 502, "APIG.0202", "Backend unavailable", id); break;
        case PUSH_TIMEOUT:
                apig_error(reply, 504, "APIG.0203",
                           r->wait.question ? "Authorizer timeout" : "Backend timeout", id);
                break;
        case PUSH_BUSY:
        case PUSH_LIMITED:
                apig_error(reply, 429, "APIG.0308", "The throttling threshold has been reached", id);
                retry_header(reply, o->result == PUSH_BUSY ? USEC_SEC : o->retry_after);
                break;
        case PUSH_NOT_READY:
                apig_error(reply, 503, "APIG.0202", "Backend unavailable", id);
                retry_header(reply, USEC_SEC);
                break;
        case PUSH_REFUSED: (void)refuse(s, &r->refusal, &r->request, reply); break;
        case PUSH_GONE: break;
        }
        /* of a refusal it stands there already */
        if (o->result != PUSH_ACCEPTED && o->result != PUSH_GONE && o->result != PUSH_REFUSED)
                log_request(s, id, reply->status, o->text);
        if (judge)
                judge_forget(judge, &r->wait);
        request_free(r);
}

static void apig_counts(const struct source *source, struct push_counts *out)
{
        const struct apig *s = apig_of(source);
        const struct judge *judge = judge_of(s);
        struct judge_counts asked = { 0 };

        if (judge)
                judge_counts(judge, &asked);
        *out = s->counts;
        out->asked = asked.asked;
        out->failed = asked.failed;
}

static usec apig_timeout(const struct source *source)
{
        const struct apig *s = apig_of(source);

        return s->spec->timeout;
}

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

static void apig_ways(const struct trigger *t, struct buf *out)
{
        const struct apig_spec *spec = t->source_spec;
        BUF_AT_END struct buf why = BUF_INIT(1024);
        struct apig_path *path;

        if (apig_path_new(&path, spec->path, spec->match == APIG_PREFIX, &why) < 0) {
                out->failed = true; /* there is no memory: it was decoded */
                return;
        }
        for (size_t i = 0; i < MAX_OF(spec->methods.n, (size_t)1); i++) {
                buf_printf(out, "%s ", spec->methods.n ? spec->methods.list[i] : "any method of");
                apig_path_write(path, out);
                buf_char(out, '\n');
        }
        (void)apig_path_free(path);
}

/* ---- shapes ------------------------------------------------------------- */

static void apig_encode(const struct trigger *t, struct record *const *records, size_t n UNUSED,
                        struct writer *w)
{
        apig_write_event(t, records[0]->origin, w);
}

static struct str apig_header(const struct record *record, const char *name)
{
        const struct apig_request *r = record->origin;

        return r->request.header(&r->request, name);
}

static void apig_event(const struct trigger *t, const struct record *record, struct buf *space,
                       struct cloud_event *e)
{
        const struct apig_request *r = record->origin;
        struct str type = apig_header(record, "Content-Type");

        cloudevent_source(t, NULL, space);
        *e = (struct cloud_event){
                .id = record->id, .source = buf_view(space), .subject = r->request.path, .time = record->time
        };
        if (r->request.body.n == 0)
                return;
        cloudevent_data(e, r->request.body, type);
}

/* ---- previews ----------------------------------------------------------- */

/* A request made of the document that describe writes; its headers are the document's. */
struct sample {
        struct apig_request request;
        struct apig_path *path;
        const char *api_id;
        char api_id_space[APIG_ID];
        struct buf target, query, body;
        char *method;
        const struct node *headers;
};

static struct str sample_header(const struct push_request *q, const char *name)
{
        const struct sample *s = q->head;

        for (size_t i = 0; s->headers && s->headers->kind == NODE_MAP && i < s->headers->n; i++)
                if (str_equal_nocase(s->headers->members[i].key, str_of(name)))
                        return s->headers->members[i].value->text;
        return (struct str){ 0 };
}

static void sample_each_header(const struct push_request *q, void (*each)(void *, struct str, struct str),
                               void *cookie)
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
                        buf_printf(out, "%s" STR_FMT "=" STR_FMT, out->n ? "&" : "",
                                   STR_ARG(query->members[i].key),
                                   STR_ARG(v->kind == NODE_LIST ? v->items[k]->text : v->text));
        }
}

static void apig_sample_free(struct record *record)
{
        struct sample *s;

        if (!record)
                return;
        s = CONTAINER_OF(CONTAINER_OF(record, struct apig_request, record), struct sample, request);
        (void)apig_path_free(s->path);
        buf_done(&s->target);
        buf_done(&s->query);
        buf_done(&s->body);
        free(s->method);
        free(s);
}

static int apig_sample(const struct trigger *t, const struct node *document, usec wall, struct record **out,
                       struct error *err)
{
        const struct apig_spec *spec = t->source_spec;
        const struct node *method = node_member(document, "method"), *path = node_member(document, "path"),
                          *body = node_member(document, "body");
        BUF_AT_END struct buf why = BUF_INIT(1024);
        struct apig_request *r;
        struct sample *s;
        struct writer w;

        if (shape_members(document, "method, path, query, headers, body", err) < 0)
                return -1;
        s = calloc(1, sizeof(*s));
        if (!s)
                return error_memory(err);
        r = &s->request;
        s->target.max = s->query.max = s->body.max = BUF_DEFAULT_MAX;
        s->headers = node_member(document, "headers");
        s->method = method && method->kind == NODE_STRING
                            ? str_dup(method->text)
                            : str_dup(str_of(spec->methods.n ? spec->methods.list[0] : "GET"));
        buf_str(&s->target, path && path->kind == NODE_STRING ? path->text : str_of(spec->path));
        sample_query(&s->query, node_member(document, "query"));
        writer_init(&w, &s->body);
        if (body && body->kind == NODE_STRING)
                buf_str(&s->body, body->text);
        else if (body && body->kind != NODE_NULL)
                node_write(body, &w);
        if (!s->method || s->target.failed || s->query.failed || s->body.failed ||
            apig_path_new(&s->path, spec->path, spec->match == APIG_PREFIX, &why) < 0) {
                apig_sample_free(&r->record);
                return error_set(err, ERROR_INVALID, "path: %s", why.p ? why.p : "out of memory");
        }
        r->spec = spec;
        r->path = s->path;
        (void)snprintf(r->id, sizeof(r->id), "%032d", 0);
        (void)snprintf(r->client, sizeof(r->client), "127.0.0.1");
        r->request = (struct push_request){ .method = str_of(s->method),
                                            .path = buf_view(&s->target),
                                            .query = buf_view(&s->query),
                                            .body = buf_view(&s->body),
                                            .client = str_of(r->client),
                                            .id = str_of(r->id),
                                            .head = s,
                                            .header = sample_header,
                                            .each_header = sample_each_header };
        r->record = (struct record){
                .id = r->request.id, .value = r->request.body, .origin = r, .time = wall
        };
        *out = &r->record;
        return 0;
}

static void apig_origin(const struct trigger *t, struct buf *b) { apig_where(t, b); }

const struct shape apig_shape = {
        .ce_type = "dev.sluice.apig.request",
        .describe = apig_describe,
        .encode = apig_encode,
        .event = apig_event,
        .header = apig_header,
        .sample = apig_sample,
        .sample_free = apig_sample_free,
};
static const struct push_ops push = {
        .side_by_side = true,
        .route = apig_route,
        .refuse = apig_refuse,
        .authenticates = apig_authenticates,
        .receive = apig_receive,
        .finish = apig_finish,
        .timeout = apig_timeout,
        .path = apig_where,
        .literal = apig_literal,
        .ways = apig_ways,
        .counts = apig_counts,
        .poll = apig_poll,
        .deadline = apig_deadline,
        .stop = apig_stop,
        .free = apig_free,
};
const struct source_kind apig_source = {
        .name = "apig",
        .type = &apig_type,
        .shape = &apig_shape,
        .push = &push,
        .open = apig_open,
        .origin = apig_origin,
};
