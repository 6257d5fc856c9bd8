#include "kafka/token.h"

#include "base/backoff.h"
#include "json/tree.h"
#include "oauth/oauth.h"

static const usec PATIENCE = 30 * USEC_SEC, BACKOFF = USEC_SEC, BACKOFF_MOST = 30 * USEC_SEC;
/* Where an endpoint does not say how long a token lives it is asked for another one after this. */
static const usec RENEWED = 5 * USEC_MINUTE, LIVES = 24 * 60 * USEC_MINUTE;
/* One that brokers refuse is not followed by another one before this. */
static const usec IS_NEW = 10 * USEC_SEC;
enum { QUOTED_MOST = 120 };

struct kafka_token {
        struct kafka_token_config config;
        struct task task;
        struct random random;
        struct secret id, secret;
        struct http_target *target;
        struct http_request request;
        struct buf message;
        char *text;         /* the token; NULL: there is none */
        char *principal;    /* the client's id that it was given for */
        char *ca;           /* the file */
        struct buf coded;   /* the secret as the endpoint was shown it */
        usec came, expires; /* monotonic; wall */
        usec refresh_at;    /* monotonic */
        usec give_up_at;    /* 0: nothing is under way */
        usec over_at;       /* monotonic: the token has expired by then, which is told; 0: it was */
        unsigned failures;
        char why[400]; /* what went wrong last; empty: nothing since there was a token */
        uint64_t version, seen;
};

static void tell(struct kafka_token *t)
{
        t->version++;
        if (t->config.wake)
                loop_ready(t->config.loop, t->config.wake);
}

static bool is_valid(const struct kafka_token *t)
{
        return t->text && clock_wall(&system_clock) < t->expires;
}

/* ---- what went wrong ---------------------------------------------------- */

void kafka_token_hide(const struct kafka_token *t, struct mask *m)
{
        mask_add(m, kafka_token_value(t));
        mask_add(m, secret_last(&t->id));
        mask_add(m, secret_last(&t->secret));
        mask_add(m, buf_view(&t->coded));
}

static void failed(struct kafka_token *t, struct str why, usec now)
{
        char before[sizeof(t->why)];

        memcpy(before, t->why, sizeof(before));
        t->give_up_at = 0;
        t->refresh_at = now + backoff_full_jitter(&t->random, BACKOFF, BACKOFF_MOST, t->failures++,
                                                  100 * USEC_MSEC);
        text_print(t->why, sizeof(t->why), "token: " STR_FMT, STR_ARG(why));
        if (strcmp(t->why, before) != 0)
                tell(t);
}

/* Does it say that the client is not known? */
static bool names_client(const struct http_request *q, const json_t *answer)
{
        const char *error = oauth_words(answer, 0);

        return q->status == 401 || strcmp(error, "invalid_client") == 0 ||
               strcmp(error, "unauthorized_client") == 0;
}

static void quote_refusal(const struct kafka_token *t, const json_t *answer, struct buf *why)
{
        struct str hidden[KAFKA_TOKEN_HIDDEN];
        struct mask m = { .list = hidden };
        const char *between = ": ", *text;

        kafka_token_hide(t, &m);
        for (size_t i = 0; (text = oauth_words(answer, i)); i++) {
                if (!*text)
                        continue;
                buf_text(why, between);
                mask_quote(&m, str_of(text), QUOTED_MOST, false, why);
                between = ", ";
        }
}

/* Why what came with a success is of no use; NULL: it is. */
static const char *unusable(const json_t *answer, const char *text)
{
        if (!text || !*text)
                return "without an access_token: is sasl.oauth.tokenURL a token endpoint's?";
        if (!oauth_token_fits(text))
                return "with an access_token that is not printable ASCII";
        return json_object_get(answer, "expires_in") && oauth_lifetime(answer) <= 0
                       ? "with a token that has expired already (expires_in)"
                       : NULL;
}

static void refused(struct kafka_token *t, const json_t *answer, const char *fault, usec now)
{
        const struct http_request *q = &t->request;
        BUF_AT_END struct buf why = BUF_INIT(1024);

        buf_printf(&why, "%.160s answered %d", t->config.spec->client.token_url, q->status);
        if (fault)
                buf_printf(&why, " %s", fault);
        else
                quote_refusal(t, answer, &why);
        if (!fault && names_client(q, answer))
                buf_text(&why, ": check sasl.oauth.clientIdSecretRef and clientSecretSecretRef");
        failed(t, buf_view(&why), now);
        t->refresh_at = MAX_OF(t->refresh_at, now + MIN_OF(q->retry_after, BACKOFF_MOST));
}

static void not_reached(struct kafka_token *t, const char *words, usec now)
{
        BUF_AT_END struct buf why = BUF_INIT(1024);

        buf_printf(&why, "%s: check sasl.oauth.tokenURL, and that it is reached from here", words);
        failed(t, buf_view(&why), now);
}

/* ---- asking ------------------------------------------------------------- */

static void lacks_secret(struct kafka_token *t, const struct secret *s, usec now)
{
        BUF_AT_END struct buf why = BUF_INIT(1024);

        secret_tell_gone(s->ref, &why);
        failed(t, buf_view(&why), now);
}

static void ask(struct kafka_token *t, usec now)
{
        BUF_AT_END struct buf header = BUF_INIT(65536);
        struct str id = secret_last(&t->id), secret = secret_last(&t->secret);
        struct error err;

        if (!id.p || !secret.p) {
                lacks_secret(t, id.p ? &t->secret : &t->id, now);
                return;
        }
        buf_reset(&t->message);
        buf_reset(&t->coded);
        if (buf_reserve(&t->message, HTTP_HEADROOM))
                t->message.n = HTTP_HEADROOM;
        oauth_body(&t->config.spec->client, &t->message);
        oauth_basic(id, secret, &header, &t->coded);
        if (t->message.failed || header.failed) {
                failed(t, STR("out of memory"), now);
                return;
        }
        t->request.request.wake = &t->task;
        t->request.target = t->target;
        t->request.message = &t->message;
        t->request.headers = buf_view(&header);
        if (http_submit(&t->config.http, &t->request, &err) < 0)
                not_reached(t, err.text, now);
        else
                t->give_up_at = now + PATIENCE;
}

static void keep(struct kafka_token *t, const json_t *answer, const char *text, usec now)
{
        usec lifetime = oauth_lifetime(answer) * USEC_SEC;
        char *fresh = str_dup(str_of(text)), *principal = str_dup(secret_last(&t->id));

        if (!fresh || !principal) {
                free(fresh);
                free(principal);
                failed(t, STR("out of memory"), now);
                return;
        }
        free(t->text);
        free(t->principal);
        t->text = fresh;
        t->principal = principal;
        t->came = now;
        t->give_up_at = 0;
        t->failures = 0;
        t->why[0] = 0;
        t->expires = clock_wall(&system_clock) + (lifetime > 0 ? lifetime : LIVES);
        t->over_at = now + (lifetime > 0 ? lifetime : LIVES);
        t->refresh_at = now + (lifetime > 0 ? MAX_OF(lifetime * 4 / 5, USEC_SEC) : RENEWED);
        tell(t);
}

static void answered(struct kafka_token *t, usec now)
{
        const struct http_request *q = &t->request;
        const char *text, *fault;
        json_t *answer;
        bool success;

        if (request_failed(&q->request)) {
                not_reached(t, q->request.error.text, now);
                return;
        }
        answer = json_tree(q->body, 0, JSON_VALUES_MOST, NULL);
        text = json_string_value(json_object_get(answer, "access_token"));
        success = q->status >= 200 && q->status <= 299;
        fault = success ? unusable(answer, text) : NULL;
        if (success && !fault)
                keep(t, answer, text, now);
        else
                refused(t, answer, fault, now);
        json_decref(answer);
}

static void turn(struct task *task, usec now)
{
        struct kafka_token *t = CONTAINER_OF(task, struct kafka_token, task);
        bool other = secret_changed(&t->id);

        other = secret_changed(&t->secret) || other;
        if (other)
                t->refresh_at = now;
        if (request_take(&t->request.request)) {
                answered(t, now);
                http_release(&t->config.http, &t->request);
        }
        if (t->give_up_at && now >= t->give_up_at) {
                http_release(&t->config.http, &t->request);
                not_reached(t, "no answer within 30 s", now);
        }
        if (t->over_at && now >= t->over_at) { /* and no other came */
                t->over_at = 0;
                tell(t);
        }
        if (!t->give_up_at && now >= t->refresh_at)
                ask(t, now);
        loop_arm(t->config.loop, task,
                 MIN_OF(t->give_up_at ? t->give_up_at : t->refresh_at, t->over_at ? t->over_at : USEC_NEVER));
}

/* ---- for its owner ------------------------------------------------------ */

bool kafka_token_changed(struct kafka_token *t)
{
        bool changed = t->version != t->seen;

        t->seen = t->version;
        return changed;
}

const char *kafka_token_lacks(const struct kafka_token *t)
{
        if (is_valid(t))
                return NULL;
        return t->why[0] ? t->why : t->text ? "token: it has expired" : "token: it is being asked for";
}

const char *kafka_token_trouble(const struct kafka_token *t)
{
        return t->why[0] && is_valid(t) ? t->why : NULL;
}

bool kafka_token_awaited(const struct kafka_token *t) { return !t->text && !t->why[0]; }

struct str kafka_token_value(const struct kafka_token *t)
{
        return t->text ? str_of(t->text) : (struct str){ 0 };
}

usec kafka_token_expires(const struct kafka_token *t) { return t->expires; }
const char *kafka_token_principal(const struct kafka_token *t) { return t->principal; }

void kafka_token_refused(struct kafka_token *t)
{
        if (!t->text || t->give_up_at)
                return;
        t->refresh_at = MIN_OF(t->refresh_at, t->came + IS_NEW);
        loop_ready(t->config.loop, &t->task);
}

/* ---- life --------------------------------------------------------------- */

static int open_secrets(struct kafka_token *t, struct error *err)
{
        const struct kafka_token_config *c = &t->config;

        if (secret_open(&t->id, c->loop, c->secrets, c->spec->client.client_id, &t->task, err) < 0)
                return -1;
        return secret_open(&t->secret, c->loop, c->secrets, c->spec->client.client_secret, &t->task, err);
}

static int open_target(struct kafka_token *t, struct error *err)
{
        const struct kafka_token_config *c = &t->config;
        struct http_peer peer = { .url = c->spec->client.token_url,
                                  .headers = STR(OAUTH_HEADERS),
                                  .connections = 1,
                                  .answer_max = 65536,
                                  .own_tls = true };

        if (c->spec->ca) {
                struct buf path = BUF_INIT(4096);

                secret_path(c->secrets, c->spec->ca, &path);
                if (!(t->ca = buf_take(&path)))
                        return error_memory(err);
                peer.ca_file = t->ca;
        }
        if (!c->peers.ops)
                return error_set(err, ERROR_INTERNAL, "sasl.oauth: nothing can be called here");
        if (c->peers.ops->open(c->peers.cookie, &t->target, &peer, err) < 0)
                return error_wrap(err, "sasl.oauth.tokenURL");
        return 0;
}

int kafka_token_new(struct kafka_token **out, const struct kafka_token_config *config, struct error *err)
{
        struct kafka_token *t = calloc(1, sizeof(*t));

        if (!t)
                return error_memory(err);
        t->config = *config;
        t->task.turn = turn;
        t->message.max = t->coded.max = 65536;
        random_init(&t->random, random_seed());
        if (open_secrets(t, err) < 0 || open_target(t, err) < 0) {
                (void)kafka_token_free(t);
                return -1;
        }
        loop_ready(config->loop, &t->task);
        *out = t;
        return 0;
}

struct kafka_token *kafka_token_free(struct kafka_token *t)
{
        if (!t)
                return NULL;
        loop_forget(t->config.loop, &t->task);
        if (t->config.http.ops)
                http_release(&t->config.http, &t->request);
        if (t->target)
                t->config.peers.ops->close(t->config.peers.cookie, t->target);
        secret_done(&t->id);
        secret_done(&t->secret);
        buf_done(&t->message);
        buf_done(&t->coded);
        free(t->text);
        free(t->principal);
        free(t->ca);
        free(t);
        return NULL;
}
