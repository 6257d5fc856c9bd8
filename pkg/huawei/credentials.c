#include "huawei/credentials.h"

#include <jansson.h>
#include <stdio.h>

#include "base/backoff.h"
#include "base/bucket.h"
#include "base/clock.h"
#include "json/tree.h"
#include "json/value.h"
#include "json/writer.h"

enum { KEY_MOST = 1024, TOKEN_MOST = 32768, BODY_MOST = 256 << 10 };
static const usec BACKOFF_FIRST = USEC_SEC, BACKOFF_MOST = USEC_MINUTE, RENEW_BEFORE = 40 * USEC_MINUTE,
                  RENEW_AFTER = USEC_SEC, METADATA_TIMEOUT = 3 * USEC_SEC, POD_TIMEOUT = 5 * USEC_SEC,
                  TIMEOUT = 10 * USEC_SEC, METADATA_TOKEN_LIFE = 6 * USEC_HOUR;
/* The two files of a key pair are usually not replaced at the same time. SETTLE: how long after a change
 * refused keys are taken for an incomplete pair. LOOK: how often the files are read during that time. */
static const usec SETTLE = 3 * USEC_SEC, LOOK = 100 * USEC_MSEC;

/* How to ask a metadata service. */
enum metadata_step { METADATA_TOKEN, METADATA_KEYS };

struct key_set {
        struct buf access, secret, token;
        uint64_t version; /* 0: none was read yet */
};

struct credentials {
        struct credentials_config config;
        struct random random;
        struct key_set keys;    /* temporary ones; access.n 0: none yet */
        usec expires, renew_at; /* of temporary keys, wall clock */
        struct key_set base;    /* what was read; FIXED: to sign with, AGENCY: to ask with */
        struct key_set fresh;   /* buffer to read them into */
        bool unreadable;        /* the last attempt to read base failed */
        usec settled_at;        /* end of the SETTLE time after the last change; monotonic */
        uint64_t doubted;       /* the version of base that was refused last */
        uint64_t asked_with;    /* AGENCY: the version of base in the request for temporary keys */
        usec look_at;           /* FIXED: when to read the files again for calls that wait; monotonic */
        bool asking;            /* a request is in flight */
        bool refused;           /* a service refused the keys: renew them at once */
        unsigned failures;
        int64_t replaced; /* token bucket for renewals after a refusal */
        usec not_before;  /* no request before then, after a failure; monotonic */
        struct error error;
        enum metadata_step step;
        struct buf shown; /* the token to send: the metadata service's, or the pod's authorization */
        usec shown_until; /* when the metadata service's token expires; monotonic */
        bool asked_anew;  /* the token was refused as stale, and a new one requested */
        /* strings of the request in flight */
        struct buf path, headers, body;
};

/* ---- secrets ------------------------------------------------------------ */

static void wipe(struct buf *b)
{
        if (b->p)
                explicit_bzero(b->p, b->cap);
        buf_reset(b);
}

static void wipe_done(struct buf *b)
{
        wipe(b);
        buf_done(b);
}

/* What a header may contain: printable ASCII without spaces. */
static bool printable(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if (s.p[i] < '!' || s.p[i] > '~')
                        return false;
        return s.n > 0;
}

static int take(struct buf *out, struct str value, size_t most)
{
        if (!printable(value) || value.n > most)
                return -1;
        wipe(out);
        out->max = most;
        buf_str(out, value);
        return out->failed ? -1 : 0;
}

/* ---- what is read ------------------------------------------------------- */

static void wipe_set(struct key_set *k)
{
        wipe(&k->access);
        wipe(&k->secret);
        wipe(&k->token);
}

static void wipe_set_done(struct key_set *k)
{
        wipe_done(&k->access);
        wipe_done(&k->secret);
        wipe_done(&k->token);
}

static struct cloud_keys view(const struct key_set *k)
{
        return (struct cloud_keys){ buf_view(&k->access), buf_view(&k->secret), buf_view(&k->token),
                                    k->version };
}

static bool is_same(const struct key_set *a, const struct key_set *b)
{
        return str_equal(buf_view(&a->access), buf_view(&b->access)) &&
               str_equal(buf_view(&a->secret), buf_view(&b->secret)) &&
               str_equal(buf_view(&a->token), buf_view(&b->token));
}

static int read_set(struct credentials *c, struct key_set *k, struct error *err)
{
        wipe_set(k);
        k->access.max = k->secret.max = KEY_MOST;
        k->token.max = TOKEN_MOST;
        if (c->config.read(c->config.cookie, &k->access, &k->secret, &k->token, err) < 0)
                return -1;
        if (k->access.failed || k->secret.failed || k->token.failed)
                return error_set(err, ERROR_INVALID, "a key of the cloud is longer than any that is issued");
        if (!printable(buf_view(&k->access)) || !printable(buf_view(&k->secret)) ||
            (k->token.n && !printable(buf_view(&k->token))))
                return error_set(err, ERROR_INVALID,
                                 "a key of the cloud must be printable ASCII without spaces");
        return 0;
}

/* Reads base, and starts the SETTLE time if it has changed, but not at the first read. */
static int read_keys(struct credentials *c, usec now, struct error *err)
{
        int r = read_set(c, &c->fresh, err);
        struct key_set before = c->base;

        if (r == 0 ? !is_same(&c->fresh, &before) : !c->unreadable)
                c->settled_at = before.version ? now + SETTLE : 0;
        c->unreadable = r < 0;
        if (r == 0 && (!before.version || !is_same(&c->fresh, &before))) {
                c->base = c->fresh;
                c->base.version = before.version + 1;
                c->fresh = before;
        }
        wipe_set(&c->fresh);
        return r;
}

static bool is_settling(const struct credentials *c, usec now) { return now < c->settled_at; }

/* Reads base. ERROR_CANCELLED: the pair is probably incomplete; try again at look_at. */
static int read_whole(struct credentials *c, usec now, struct error *err)
{
        int r = read_keys(c, now, err);

        if (!is_settling(c, now) || (r == 0 && c->base.version != c->doubted))
                return r;
        c->look_at = MIN_OF(now + LOOK, c->settled_at);
        return error_set(err, ERROR_CANCELLED, "the cloud's keys are being replaced");
}

/* A service refused the keys of this version of base. true: base has changed since, or may soon. */
static bool doubt(struct credentials *c, uint64_t version, usec now)
{
        struct error err;

        c->doubted = version;
        return (read_keys(c, now, &err) == 0 && c->base.version != version) || is_settling(c, now);
}

/* Reads a token from a file into shown. */
static int read_token(struct credentials *c, struct error *err)
{
        struct buf none = BUF_INIT(1), nothing = BUF_INIT(1);
        struct str text;

        wipe(&c->shown);
        c->shown.max = TOKEN_MOST;
        if (c->config.read(c->config.cookie, &c->shown, &none, &nothing, err) < 0)
                return -1;
        text = str_trim(buf_view(&c->shown));
        if (c->shown.failed || !printable(text))
                return error_set(err, ERROR_INVALID,
                                 "the token's file is empty, too long, or holds something else");
        c->shown.n = (size_t)(text.p - c->shown.p) + text.n;
        buf_drop(&c->shown, (size_t)(text.p - c->shown.p));
        return 0;
}

/* ---- requests ----------------------------------------------------------- */

static void ask_metadata(struct credentials *c, struct credentials_request *q, usec now)
{
        q->service = "metadata";
        q->timeout = METADATA_TIMEOUT;
        if (c->step == METADATA_KEYS && c->shown.n && now >= c->shown_until)
                c->step = METADATA_TOKEN;
        if (c->step == METADATA_TOKEN) {
                q->method = "PUT";
                buf_text(&c->path, "/meta-data/latest/api/token");
                buf_text(&c->headers, "X-Metadata-Token-Ttl-Seconds: 21600\r\n");
                return;
        }
        q->method = "GET";
        buf_text(&c->path, "/openstack/latest/securitykey");
        if (c->shown.n)
                buf_printf(&c->headers, "X-Metadata-Token: " STR_FMT "\r\n", STR_ARG(buf_view(&c->shown)));
}

static int64_t duration(const struct credentials *c)
{
        return c->config.duration_seconds ? c->config.duration_seconds : 3600;
}

static int ask_agency(struct credentials *c, struct credentials_request *q, usec now, struct error *err)
{
        struct writer w;

        if (read_whole(c, now, err) < 0)
                return -1;
        q->service = "iam";
        q->is_signed = true;
        q->keys = view(&c->base);
        c->asked_with = c->base.version;
        buf_text(&c->path, "/v3.0/OS-CREDENTIAL/securitytokens");
        writer_init(&w, &c->body);
        writer_object(&w);
        writer_key(&w, STR("auth"));
        writer_object(&w);
        writer_key(&w, STR("identity"));
        writer_object(&w);
        writer_key(&w, STR("methods"));
        writer_array(&w);
        writer_string(&w, STR("assume_role"));
        writer_array_end(&w);
        writer_key(&w, STR("assume_role"));
        writer_object(&w);
        writer_member_text(&w, "agency_name", c->config.agency);
        writer_member_text(&w, "domain_name", c->config.domain);
        writer_member_int(&w, "duration_seconds", duration(c));
        writer_object_end(&w);
        writer_object_end(&w);
        writer_object_end(&w);
        writer_object_end(&w);
        return 0;
}

static int ask_sts(struct credentials *c, struct credentials_request *q, struct error *err)
{
        struct writer w;

        if (read_token(c, err) < 0)
                return error_wrap(err, "read the ServiceAccount's token");
        q->service = "sts";
        buf_text(&c->path, "/v5/agencies/assume-with-oidc");
        buf_text(&c->headers, "Content-Type: application/json\r\n");
        writer_init(&w, &c->body);
        writer_object(&w);
        writer_member_text(&w, "provider_urn", c->config.provider_urn);
        writer_member_text(&w, "agency_urn", c->config.agency_urn);
        writer_member_text(&w, "agency_session_name", c->config.session ? c->config.session : "sluice");
        writer_member_string(&w, "id_token", buf_view(&c->shown));
        writer_member_int(&w, "duration_seconds", duration(c));
        if (c->config.policy)
                writer_member_text(&w, "policy", c->config.policy);
        if (c->config.policy_ids) {
                struct str rest = str_of(c->config.policy_ids);

                writer_key(&w, STR("policy_ids"));
                writer_array(&w);
                while (rest.n) {
                        struct str id = str_trim(str_cut(&rest, ','));

                        if (id.n)
                                writer_string(&w, id);
                }
                writer_array_end(&w);
        }
        writer_object_end(&w);
        return 0;
}

static int ask_pod(struct credentials *c, struct credentials_request *q, struct error *err)
{
        if (read_token(c, err) < 0)
                return error_wrap(err, "read the pod's authorization token");
        q->service = "pod";
        q->timeout = POD_TIMEOUT;
        buf_printf(&c->headers, "Authorization: " STR_FMT "\r\nContent-Type: application/json\r\n",
                   STR_ARG(buf_view(&c->shown)));
        buf_text(&c->body, "{}");
        return 0;
}

/* Where the path of a URI begins: at the first / after the scheme's //. */
static size_t authority_end(const char *uri)
{
        const char *after = strstr(uri, "://"), *slash = strchr(after ? after + 3 : uri, '/');

        return slash ? (size_t)(slash - uri) : strlen(uri);
}

static int ask(struct credentials *c, struct credentials_request *q, usec now, struct error *err)
{
        size_t n = authority_end(c->config.endpoint);
        int r = 0;

        *q = (struct credentials_request){ .method = "POST",
                                           .timeout = TIMEOUT,
                                           .url = { c->config.endpoint, n } };
        wipe(&c->headers);
        wipe(&c->body);
        buf_reset(&c->path);
        c->headers.max = c->body.max = 2 * TOKEN_MOST;
        c->path.max = 4096;
        switch (c->config.kind) {
        case CREDENTIALS_METADATA: ask_metadata(c, q, now); break;
        case CREDENTIALS_AGENCY: r = ask_agency(c, q, now, err); break;
        case CREDENTIALS_OIDC: r = ask_sts(c, q, err); break;
        case CREDENTIALS_POD:
                r = ask_pod(c, q, err);
                buf_text(&c->path, c->config.endpoint[n] ? c->config.endpoint + n : "/");
                break;
        case CREDENTIALS_FIXED: return error_set(err, ERROR_INTERNAL, "fixed keys are not asked for");
        }
        if (r < 0)
                return -1;
        if (c->path.failed || c->headers.failed || c->body.failed)
                return error_memory(err);
        q->path = buf_view(&c->path);
        q->headers = buf_view(&c->headers);
        q->shown = buf_view(&c->shown);
        q->body = c->body.n ? buf_view(&c->body) : (struct str){ 0 };
        return 0;
}

/* When to request or renew the keys, or to read them again; monotonic. */
usec credentials_deadline(const struct credentials *c, usec now, usec wall)
{
        usec due = now;

        if (c->config.kind == CREDENTIALS_FIXED)
                return MAX_OF(c->look_at, now);
        if (c->asking)
                return USEC_NEVER;
        if (c->keys.access.n && !c->refused)
                due = now + MAX_OF(c->renew_at - wall, (usec)0);
        return MAX_OF(due, c->not_before);
}

static void put_off(struct credentials *c, usec retry_after, usec now)
{
        c->not_before = now + MAX_OF(backoff_full_jitter(&c->random, BACKOFF_FIRST, BACKOFF_MOST, c->failures,
                                                         USEC_SEC / 2),
                                     MIN_OF(retry_after, USEC_HOUR));
        c->failures = MIN_OF(c->failures + 1, 12u);
}

bool credentials_next(struct credentials *c, usec now, usec wall, struct credentials_request *q)
{
        if (credentials_deadline(c, now, wall) > now)
                return false;
        if (c->config.kind == CREDENTIALS_FIXED) {
                c->look_at = USEC_NEVER;
                return false;
        }
        if (ask(c, q, now, &c->error) < 0) {
                if (c->error.kind == ERROR_CANCELLED) {
                        c->error = (struct error){ 0 };
                        c->not_before = c->look_at;
                        return false;
                }
                c->error.retry = true; /* the file may appear later */
                put_off(c, 0, now);
                return false;
        }
        c->asking = true;
        return true;
}

/* ---- answers ------------------------------------------------------------ */

static struct str first_of(const json_t *o, const char *const names[3])
{
        for (size_t i = 0; i < 3 && names[i]; i++)
                if (json_is_string(json_object_get(o, names[i])))
                        return json_member(o, names[i]);
        return (struct str){ 0 };
}

/* The names that the different services use. */
static int read_answer(struct credentials *c, const json_t *o, usec wall, struct error *err)
{
        static const char *const access[] = { "access", "accessKeyId", "access_key_id" },
                                 *const secret[] = { "secret", "secretAccessKey", "secret_access_key" },
                                 *const token[] = { "securitytoken", "securityToken", "security_token" },
                                 *const expiry[] = { "expires_at", "expiration", NULL };
        usec expires;

        if (!time_parse(first_of(o, expiry), &expires))
                return error_set(err, ERROR_PROTOCOL, "the answer does not say when the keys expire");
        if (expires <= wall)
                return error_set(err, ERROR_PROTOCOL, "the keys have expired already");
        if (!printable(first_of(o, secret)) || !printable(first_of(o, token)) ||
            take(&c->keys.access, first_of(o, access), KEY_MOST) < 0 ||
            take(&c->keys.secret, first_of(o, secret), KEY_MOST) < 0 ||
            take(&c->keys.token, first_of(o, token), TOKEN_MOST) < 0) {
                wipe(&c->keys.access);
                return error_set(err, ERROR_PROTOCOL, "the answer holds no keys");
        }
        c->keys.version++;
        c->expires = expires;
        c->renew_at = MAX_OF(expires - RENEW_BEFORE, wall + (expires - wall) / 2);
        c->renew_at = MAX_OF(c->renew_at, wall + RENEW_AFTER);
        return 0;
}

static int read_body(struct credentials *c, struct str body, usec wall, struct error *err)
{
        json_t *root = body.n <= BODY_MOST ? json_tree(body, 0, 256, NULL) : NULL;
        const json_t *o = root;
        int r;

        if (json_is_object(json_object_get(root, "credential")))
                o = json_object_get(root, "credential");
        else if (json_is_object(json_object_get(root, "credentials")))
                o = json_object_get(root, "credentials");
        r = json_is_object(o) ? read_answer(c, o, wall, err)
                              : error_set(err, ERROR_PROTOCOL, "the answer is no JSON object");
        json_decref(root);
        return r;
}

static const char *what(const struct credentials *c)
{
        switch (c->config.kind) {
        case CREDENTIALS_AGENCY: return "ask IAM for an agency's keys";
        case CREDENTIALS_METADATA: return "ask the metadata service for keys";
        case CREDENTIALS_OIDC: return "ask STS for an agency's keys";
        case CREDENTIALS_POD: return "ask for the pod's keys";
        case CREDENTIALS_FIXED: break;
        }
        return "read the keys";
}

/* true: the step succeeded, and another request follows. */
static bool metadata_step(struct credentials *c, int status, struct str body, usec now)
{
        struct str no_agency = STR("Please configure Cloud Service Agency first");

        if (c->step == METADATA_TOKEN) {
                if (status == 200 && take(&c->shown, str_trim(body), TOKEN_MOST) == 0)
                        c->shown_until = now + METADATA_TOKEN_LIFE;
                else if (status == 404 || status == 405 || status == 503)
                        wipe(&c->shown); /* the service works without a token */
                else
                        return false;
                c->step = METADATA_KEYS;
                return true;
        }
        if (status == 401 && !c->asked_anew && !memmem(body.p, body.n, no_agency.p, no_agency.n)) {
                c->asked_anew = true; /* the token has become invalid before its time */
                c->step = METADATA_TOKEN;
                return true;
        }
        return false;
}

void credentials_failed(struct credentials *c, const struct error *why, usec now)
{
        c->asking = false;
        c->error = *why;
        (void)error_wrap(&c->error, "%s", what(c));
        c->error.retry = true;
        put_off(c, why->retry_after, now);
}

void credentials_answered(struct credentials *c, int status, struct str body, usec retry_after, usec now,
                          usec wall)
{
        struct cloud_error refusal;

        c->asking = false;
        if (c->config.kind == CREDENTIALS_METADATA && metadata_step(c, status, body, now))
                return;
        c->asked_anew = false;
        refusal_read(&refusal, c->config.kind == CREDENTIALS_OIDC ? "sts" : "iam", status, body, retry_after);
        refusal_hide(&refusal, buf_view(&c->base.access));
        refusal_hide(&refusal, buf_view(&c->base.token));
        refusal_hide(&refusal, buf_view(&c->shown));
        if (c->config.kind == CREDENTIALS_AGENCY && refusal.verdict == CLOUD_RENEW_CREDENTIALS &&
            doubt(c, c->asked_with, now)) {
                c->error = (struct error){ 0 };
                c->not_before = now;
                return;
        }
        if (c->config.kind == CREDENTIALS_METADATA && status == 401)
                refusal.hint = "the machine has no agency: give it one of ECS with the rights it needs";
        if (refusal.verdict != CLOUD_DONE)
                (void)refusal_error(&refusal, what(c), &c->error);
        else if (read_body(c, body, wall, &c->error) < 0)
                (void)error_wrap(&c->error, "%s", what(c));
        else {
                c->refused = false;
                c->failures = 0;
                c->not_before = 0;
                c->error = (struct error){ 0 };
                return;
        }
        /* Retry: permissions may be granted and agencies created meanwhile. */
        c->error.retry = true;
        put_off(c, retry_after, now);
}

/* ---- use ---------------------------------------------------------------- */

int credentials_keys(struct credentials *c, usec now, usec wall, struct cloud_keys *out, struct error *err)
{
        if (c->config.kind == CREDENTIALS_FIXED) {
                if (read_whole(c, now, err) < 0)
                        return -1;
                *out = view(&c->base);
                return 0;
        }
        if (!c->keys.access.n || c->refused || c->expires <= wall) {
                if (!c->error.text[0] || c->asking || c->not_before <= now)
                        return error_set(err, ERROR_CANCELLED, "the cloud's keys are being asked for");
                *err = c->error;
                err->retry_after = MAX_OF(c->not_before - now, (usec)0);
                return -1;
        }
        *out = view(&c->keys);
        return 0;
}

bool credentials_refused(struct credentials *c, uint64_t version, usec now)
{
        /* three renewals at once, then one each 20 seconds */
        const struct bucket_rate replaced = bucket_rate(3, USEC_MINUTE, 3);

        if (c->config.kind == CREDENTIALS_FIXED)
                return doubt(c, version, now);
        if (version != c->keys.version)
                return c->keys.access.n > 0;
        if (c->refused)
                return c->asking || c->not_before <= now;
        c->refused = true;
        /* If the service refuses every new key, do not request them without end. */
        if (bucket_gives(&replaced, c->replaced, now)) {
                c->replaced = bucket_take(&replaced, c->replaced, 1, now);
                return true;
        }
        (void)error_set(&c->error, ERROR_UNAUTHORIZED, "%s: the service refuses the new keys", what(c));
        c->error.retry = true;
        c->not_before = MAX_OF(c->not_before, bucket_at(&replaced, c->replaced, now));
        return false;
}

/* ---- life --------------------------------------------------------------- */

int credentials_new(struct credentials **out, const struct credentials_config *config, struct error *err)
{
        struct credentials *c = calloc(1, sizeof(*c));

        if (!c)
                return error_memory(err);
        c->config = *config;
        c->replaced = BUCKET_FULL;
        c->look_at = USEC_NEVER;
        random_init(&c->random, config->seed);
        *out = c;
        return 0;
}

struct credentials *credentials_free(struct credentials *c)
{
        if (!c)
                return NULL;
        wipe_set_done(&c->keys);
        wipe_set_done(&c->base);
        wipe_set_done(&c->fresh);
        wipe_done(&c->shown);
        wipe_done(&c->headers);
        wipe_done(&c->body);
        wipe_done(&c->path);
        free(c);
        return NULL;
}
