#include <stdio.h>

#include "log/log.h"
#include "base/random.h"
#include "huawei/sign.h"
#include "secret/secret.h"
#include "source/apig/apig.h"

enum { REMEMBERED_MOST = 10000, REMEMBERED_BYTES = 16 << 20, IAM_CONNECTIONS = 16, ANSWER_MOST = 1 << 20 };

/* ---- the spec ----------------------------------------------------------- */

static const struct field key_fields[] = {
        FIELD(OBJECT, "accessKeySecretRef", struct apig_key, access, .required = true,
              .object = &secret_ref_type, .help = "The key that callers name (AppKey, AK)."),
        FIELD(OBJECT, "secretKeySecretRef", struct apig_key, secret, .required = true,
              .object = &secret_ref_type, .help = "The secret they sign with (AppSecret, SK)."),
};
static const struct type key_type = TYPE("SigningKey", struct apig_key, key_fields, "A caller's key.");
static const struct field value_fields[] = {
        FIELD(OBJECT, "secretRef", struct apig_secret, value, .required = true, .object = &secret_ref_type,
              .help = "Where the value is kept."),
};
static const struct type value_type = TYPE("SecretValue", struct apig_secret, value_fields,
                                           "A value in a Secret.");

static const char *const auth_names[] = {
        [APIG_NONE] = "None", [APIG_APP] = "App", [APIG_IAM] = "IAM", [APIG_CUSTOM] = "Custom", NULL
};
static const struct field authentication_fields[] = {
        FIELD(ENUM, "type", struct apig_authentication, type, .fallback = "None", .values = auth_names,
              .help = "None: anyone may call. App: callers sign with an application's key, or send its "
                      "AppCode. IAM: callers sign with AK and SK, or send a token. "
                      "Custom: a function says who may call."),
        FIELD(OBJECTS, "keys", struct apig_authentication, keys, .object = &key_type, .max = 16,
              .help = "Keys that requests may be signed with (SDK-HMAC-SHA256); several at once, so that one "
                      "can be replaced by the next."),
        FIELD(OBJECTS, "codes", struct apig_authentication, codes, .object = &value_type, .max = 16,
              .help = "AppCodes that requests may carry in X-Apig-AppCode; App only."),
        FIELD(OBJECTS, "tokens", struct apig_authentication, tokens, .object = &value_type, .max = 16,
              .help = "Tokens that requests may carry in X-Auth-Token; IAM only."),
        FIELD(OBJECT, "iam", struct apig_authentication, iam, .object = &apig_iam_type,
              .help = "Tokens in X-Auth-Token that IAM itself says are valid; IAM only."),
        FIELD(OBJECT, "authorizer", struct apig_authentication, authorizer, .object = &apig_authorizer_type,
              .help = "The function that says who may call; Custom only."),
        FIELD(DURATION, "window", struct apig_authentication, window, .fallback = "15m", .min = USEC_SEC,
              .max = USEC_HOUR,
              .help = "How far a signed request's X-Sdk-Date may be from now; an older one may be a replay."),
};

static bool some_key(const void *object)
{
        const struct apig_authentication *a = object;

        return a->type == APIG_NONE || a->keys.n ||
               (a->type == APIG_APP   ? a->codes.n > 0
                : a->type == APIG_IAM ? a->tokens.n || a->iam
                                      : a->authorizer != NULL);
}

static bool of_its_type(const void *object)
{
        const struct apig_authentication *a = object;

        return (!a->codes.n || a->type == APIG_APP) && ((!a->tokens.n && !a->iam) || a->type == APIG_IAM) &&
               (!a->keys.n || a->type == APIG_APP || a->type == APIG_IAM) &&
               (!a->authorizer || a->type == APIG_CUSTOM);
}

static const struct rule authentication_rules[] = {
        RULE(.cel = "self.type == 'None' || (has(self.keys) && size(self.keys) > 0) || (self.type == 'App' ? "
                    "has(self.codes) && size(self.codes) > 0 : self.type == 'IAM' ? "
                    "(has(self.tokens) && size(self.tokens) > 0) || has(self.iam) : has(self.authorizer))",
             .message = "nobody could call: give keys, or codes (App), tokens or iam (IAM), or an authorizer "
                        "(Custom)",
             .check = some_key),
        RULE(.cel = "(!has(self.codes) || size(self.codes) == 0 || self.type == 'App') && "
                    "(((!has(self.tokens) || size(self.tokens) == 0) && !has(self.iam)) || self.type == "
                    "'IAM') && "
                    "(!has(self.keys) || size(self.keys) == 0 || self.type == 'App' || self.type == 'IAM') "
                    "&& (!has(self.authorizer) || self.type == 'Custom')",
             .message =
                     "codes need type App, tokens and iam type IAM, keys one of both, authorizer type Custom",
             .check = of_its_type),
};
const struct type apig_authentication_type = TYPE("ApigAuthentication", struct apig_authentication,
                                                  authentication_fields, "Who may call.",
                                                  RULES(authentication_rules));

/* ---- values in Secrets -------------------------------------------------- */

enum { REFS_MOST = 2 * 16 + 16 + 16 + 2 };

struct apig_gate_keeper {
        const struct apig_authentication *spec;
        const struct services *services;
        /* keys: access, secret in turn; then codes; then tokens; then IAM's key */
        struct secret values[REFS_MOST];
        size_t n;
        struct buf gone;        /* which values are missing, in words */
        uint64_t salt[2], seed; /* so that nobody can foresee a key or a hash */
        struct apig_asker asker;
        struct judge *judge; /* NULL: nobody is asked */
};

static int add_value(struct apig_gate_keeper *k, const struct secret_ref *ref, struct error *err)
{
        if (k->n == COUNT_OF(k->values))
                return error_set(err, ERROR_INVALID, "authentication: more than %zu values in Secrets", k->n);
        if (secret_open(&k->values[k->n], k->services->loop, k->services->secrets, ref, k->services->wake,
                        err) < 0)
                return error_wrap(err, "authentication");
        k->n++;
        return 0;
}

static int add_values(struct apig_gate_keeper *k, struct error *err)
{
        const struct apig_authentication *spec = k->spec;

        for (size_t i = 0; i < spec->keys.n; i++) {
                const struct apig_key *key = spec->keys.list[i];

                if (add_value(k, key->access, err) < 0 || add_value(k, key->secret, err) < 0)
                        return -1;
        }
        for (size_t i = 0; i < spec->codes.n; i++)
                if (add_value(k, ((const struct apig_secret *)spec->codes.list[i])->value, err) < 0)
                        return -1;
        for (size_t i = 0; i < spec->tokens.n; i++)
                if (add_value(k, ((const struct apig_secret *)spec->tokens.list[i])->value, err) < 0)
                        return -1;
        if (!spec->iam || !spec->iam->credentials)
                return 0;
        return add_value(k, spec->iam->credentials->access, err) < 0 ||
                               add_value(k, spec->iam->credentials->secret, err) < 0
                       ? -1
                       : 0;
}

static void lend_keys(struct apig_gate_keeper *k)
{
        if (!k->spec->iam || !k->spec->iam->credentials)
                return;
        k->asker.access = secret_last(&k->values[k->n - 2]);
        k->asker.secret = secret_last(&k->values[k->n - 1]);
}

/* What is missing, for the status. */
static void tell_gone(struct apig_gate_keeper *k)
{
        size_t ours = k->spec->iam && k->spec->iam->credentials ? 2 : 0;

        buf_reset(&k->gone);
        for (size_t i = 0; i < k->n; i++) {
                const struct secret *s = &k->values[i];

                if (!secret_gone(s))
                        continue;
                buf_text(&k->gone, k->gone.n ? "; " : "");
                secret_tell_gone(s->ref, &k->gone);
                buf_text(&k->gone, i + ours < k->n    ? ": nobody can call with it"
                                   : secret_last(s).p ? ": IAM is asked with the last value"
                                                      : ": IAM can't be asked");
        }
        if (k->gone.n > 0)
                log_warn_for(k->services->log, "authentication", LOG_S("lacks", k->gone.p));
}

void apig_keeper_look(struct apig_gate_keeper *k)
{
        bool changed = false;

        for (size_t i = 0; i < k->n; i++)
                changed = secret_changed(&k->values[i]) || changed;
        if (!changed)
                return;
        lend_keys(k);
        tell_gone(k);
}

const char *apig_keeper_lacks(const struct apig_gate_keeper *k) { return k->gone.n ? k->gone.p : NULL; }

/* ---- whom it asks ------------------------------------------------------- */

static int open_judge(struct apig_gate_keeper *k, struct error *err)
{
        const struct apig_authorizer *authorizer = k->spec->authorizer;
        const struct apig_iam *iam = k->spec->iam;
        const struct secret_ref *ca = authorizer ? authorizer->ca : iam->ca;
        uint32_t connections = (uint32_t)k->services->trigger->delivery->max_in_flight;
        BUF_AT_END struct buf url = BUF_INIT(4096), file = BUF_INIT(4096);
        struct judge_config c = {
                .services = k->services,
                .cookie = &k->asker,
                .most = REMEMBERED_MOST,
                .bytes_most = REMEMBERED_BYTES,
                .peer = { .connections = connections, .answer_max = ANSWER_MOST, .own_tls = ca || iam }
        };

        k->asker.services = k->services;
        k->asker.authorizer = authorizer;
        k->asker.iam = iam;
        k->asker.seed = k->seed;
        if (ca && !k->services->secrets)
                return error_set(err, ERROR_INVALID,
                                 "authentication: Secret %s can't be read from nowhere: say --secrets=DIR",
                                 ca->name);
        if (ca)
                secret_path(k->services->secrets, ca, &file);
        c.peer.ca_file = ca ? file.p : NULL;
        if (authorizer) {
                c.kind = &apig_authorizer_kind;
                c.remember = authorizer->cache_ttl;
                c.timeout = authorizer->timeout;
                c.peer.url = authorizer->uri;
                c.peer.headers = STR("Content-Type: application/json\r\n");
        } else {
                buf_text(&url, iam->endpoint);
                while (url.n && url.p[url.n - 1] == '/')
                        url.n--;
                buf_text(&url, APIG_IAM_PATH "?" APIG_IAM_QUERY);
                c.kind = &apig_iam_kind;
                c.remember = iam->cache_ttl;
                c.timeout = iam->timeout;
                c.peer.url = url.p;
                c.peer.method = "GET";
                c.peer.headers = STR("Accept: application/json\r\n");
                c.peer.connections = MIN_OF(connections, (uint32_t)IAM_CONNECTIONS);
        }
        return url.failed || file.failed ? error_memory(err) : judge_new(&k->judge, &c, err);
}

struct judge *apig_keeper_judge(const struct apig_gate_keeper *k) { return k->judge; }
static struct str salt_of(const struct apig_gate_keeper *k)
{
        return (struct str){ (const char *)k->salt, sizeof(k->salt) };
}

int apig_keeper_new(struct apig_gate_keeper **out, const struct apig_authentication *spec,
                    const struct services *services, struct error *err)
{
        struct apig_gate_keeper *k = calloc(1, sizeof(*k));

        if (!k)
                return error_memory(err);
        k->spec = spec;
        k->services = services;
        k->gone.max = 4096;
        k->seed = random_seed();
        k->salt[0] = random_seed();
        k->salt[1] = random_seed();
        if (add_values(k, err) < 0 || ((spec->authorizer || spec->iam) && open_judge(k, err) < 0)) {
                (void)apig_keeper_free(k);
                return -1;
        }
        lend_keys(k);
        tell_gone(k);
        *out = k;
        return 0;
}

struct apig_gate_keeper *apig_keeper_free(struct apig_gate_keeper *k)
{
        if (!k)
                return NULL;
        (void)judge_free(k->judge);
        for (size_t i = 0; i < k->n; i++)
                secret_done(&k->values[i]);
        buf_done(&k->gone);
        free(k);
        return NULL;
}

/* ---- checking ----------------------------------------------------------- */

/* Is it one of n values from the first on? All are compared, so that the time tells nothing. */
static bool one_of(const struct apig_gate_keeper *k, size_t first, size_t n, struct str given)
{
        bool found = false;

        for (size_t i = first; i < first + n; i++) {
                struct str value = secret_value(&k->values[i]);

                found = (value.n && sign_equal(given, value)) || found;
        }
        return found;
}

/* p NULL: it is nobody's. */
static struct str secret_of(const struct apig_gate_keeper *k, struct str access)
{
        for (size_t i = 0; access.n && i < k->spec->keys.n; i++)
                if (str_equal(access, secret_value(&k->values[2 * i])))
                        return secret_value(&k->values[2 * i + 1]);
        return (struct str){ 0 };
}

enum { SIGNED_MOST = 64 };

/* Each name that is signed must stand for one header: a second one of the name would be nobody's. */
struct signed_names {
        const struct sign_request *request;
        uint8_t times[SIGNED_MOST];
};

static void count_signed(void *cookie, struct str name, struct str value UNUSED)
{
        struct signed_names *s = cookie;

        for (size_t i = 0; i < s->request->headers_n; i++)
                s->times[i] = (uint8_t)MIN_OF(
                        s->times[i] + str_equal_nocase(s->request->headers[i].name, name), 2);
}

static const char *check_signature(const struct apig_gate_keeper *k, const struct push_request *q,
                                   struct str authorization, struct str *access)
{
        struct sign_header headers[SIGNED_MOST];
        struct sign_request r = {
                .method = q->method, .path = q->path, .query = q->query, .headers = headers, .body = q->body
        };
        struct signed_names names = { .request = &r };
        struct sign_authorization a;
        struct str date = q->header(q, "X-Sdk-Date"), rest;
        bool date_signed = false, host_signed = false;
        struct str secret;
        char expected[65];
        usec at, now = clock_wall(k->services->clock);

        if (!sign_parse(authorization, &a))
                return "Incorrect authentication information: Authorization is not SDK-HMAC-SHA256";
        if (!sign_tells_path(q->path))
                return "Incorrect authentication information: no signature covers a path that holds %2F";
        if (!sign_date(date, &at))
                return "Incorrect authentication information: X-Sdk-Date is missing or malformed";
        if (at < now - k->spec->window || at > now + k->spec->window)
                return "Incorrect authentication information: signature expired";
        *access = a.access;
        secret = secret_of(k, a.access);
        if (!secret.n)
                return "Incorrect authentication information: unknown access key";
        for (rest = a.signed_headers; rest.n;) {
                struct str name = str_cut(&rest, ';');
                char text[256];

                if (!name.n || name.n >= sizeof(text) || r.headers_n == SIGNED_MOST)
                        return "Incorrect authentication information: SignedHeaders is malformed";
                memcpy(text, name.p, name.n);
                text[name.n] = 0;
                headers[r.headers_n++] = (struct sign_header){ name, q->header(q, text) };
                date_signed = date_signed || str_equal_nocase(name, STR("X-Sdk-Date"));
                host_signed = host_signed || str_equal_nocase(name, STR("Host"));
        }
        q->each_header(q, count_signed, &names);
        for (size_t i = 0; i < r.headers_n; i++)
                if (names.times[i] != 1)
                        return "Incorrect authentication information: a signed header is missing or comes "
                               "twice";
        if (!date_signed || !host_signed)
                return "Incorrect authentication information: Host and X-Sdk-Date must be signed";
        sign_request(&r, date, secret, expected);
        return sign_equal(str_of(expected), a.signature)
                       ? NULL
                       : "Incorrect authentication information: verify signature failed";
}

static enum apig_admission refuse(struct apig_caller *c, const char *code, const char *message)
{
        c->refusal = (struct apig_refusal){ .status = 401, .code = code, .message = message };
        return APIG_REFUSED;
}

/* What it is belongs to who it is: an access key may read like an AppCode. */
enum credential { ACCESS_KEY, APP_CODE, TOKEN };
static enum apig_admission admit(const struct apig_gate_keeper *k, struct apig_caller *c,
                                 enum credential credential, struct str who)
{
        c->who = hash_bytes(k->seed + credential, who) | 1;
        return APIG_ADMITTED;
}

static enum apig_admission refuse_for_now(struct apig_caller *c)
{
        c->refusal = (struct apig_refusal){ .status = 503,
                                            .code = "APIG.0202",
                                            .message = "Authorizer unavailable: out of memory",
                                            .retry_after = USEC_SEC };
        return APIG_REFUSED;
}

/* Of what the judge is asked about. */
static enum apig_admission ask(struct apig_caller *c, bool shared)
{
        memcpy(&c->who, c->key, sizeof(c->who));
        c->who |= 1;
        c->shared = shared;
        return APIG_ASK;
}

static enum apig_admission check_custom(const struct apig_gate_keeper *k, const struct push_request *q,
                                        struct apig_caller *c)
{
        const struct apig_authorizer *a = k->spec->authorizer;

        switch (apig_authorizer_key(a, salt_of(k), q, c->key)) {
        case APIG_KEYED: return ask(c, a->identity.n > 0);
        case APIG_NO_MEMORY: return refuse_for_now(c);
        case APIG_MISSING: break;
        }
        return refuse(c, "APIG.0305",
                      "Incorrect authentication information: what tells who calls is missing");
}

static enum apig_admission check_token(const struct apig_gate_keeper *k, struct str token,
                                       struct apig_caller *c)
{
        if (one_of(k, 2 * k->spec->keys.n + k->spec->codes.n, k->spec->tokens.n, token))
                return admit(k, c, TOKEN, token);
        if (!k->judge)
                return refuse(c, "APIG.0301", "Incorrect IAM authentication information: unknown token");
        return apig_secret_key(salt_of(k), token, c->key) == APIG_KEYED ? ask(c, true) : refuse_for_now(c);
}

enum apig_admission apig_keeper_check(struct apig_gate_keeper *k, const struct push_request *q,
                                      struct apig_caller *c)
{
        struct str authorization = q->header(q, "Authorization"), app_code = q->header(q, "X-Apig-AppCode"),
                   token = q->header(q, "X-Auth-Token"), access;
        const struct apig_authentication *spec = k->spec;
        const char *code = spec->type == APIG_APP ? "APIG.0303" : "APIG.0301", *wrong;

        apig_keeper_look(k);
        if (spec->type == APIG_CUSTOM)
                return check_custom(k, q, c);
        if (spec->type == APIG_APP && app_code.n)
                return one_of(k, 2 * spec->keys.n, spec->codes.n, app_code)
                               ? admit(k, c, APP_CODE, app_code)
                               : refuse(c, code, "Incorrect app authentication information: unknown AppCode");
        if (spec->type == APIG_IAM && token.n)
                return check_token(k, token, c);
        if (!authorization.n)
                return refuse(c, code,
                              spec->type == APIG_APP
                                      ? "Incorrect app authentication information: no credentials"
                                      : "Incorrect IAM authentication information: no credentials");
        wrong = check_signature(k, q, authorization, &access);
        return wrong ? refuse(c, code, wrong) : admit(k, c, ACCESS_KEY, access);
}
