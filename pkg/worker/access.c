#include "worker/access.h"

#include <jansson.h>
#include <stdio.h>

#include "base/backoff.h"
#include "log/log.h"
#include "json/tree.h"
#include "oauth/oauth.h"
#include "secret/mask.h"
#include "secret/secret.h"
#include "worker/sender.h"
#include "worker/target.h"

/* The kubelet updates a mounted Secret within about a minute, so a few more seconds don't matter. */
static const usec READ_AGAIN = USEC_SEC;
static const usec TOKEN_TIMEOUT = 30 * USEC_SEC, TOKEN_BACKOFF = USEC_SEC, TOKEN_BACKOFF_MOST = 30 * USEC_SEC;

static const usec TOKEN_IS_FRESH = 10 * USEC_SEC;
enum { HEADERS_MOST = HTTP_HEADROOM / 2 };

struct access {
        struct access_config config;
        const struct delivery_spec *delivery;
        struct task task;
        struct random random;
        struct buf headers; /* sent with each request: from Secrets, and the token's */
        struct buf secret_headers;
        struct secret *values; /* in the order in which the Trigger names them; NULL: a preview */
        bool *used;            /* which of them we need, for a header or a token */
        size_t refs_n;
        usec next_look;
        char why[480]; /* what is lacking; empty: nothing */
        /* which Secret was removed while its last value is still in use; empty: none */
        char gone[256];
        bool secrets_read, refused; /* refused: the last value of a removed Secret was refused */
        /* OAuth 2.0 */
        struct http http;
        struct http_request request; /* of a token */
        struct http_target *target;
        struct buf message;
        struct buf shown; /* what was sent with the request that must not be quoted, as header lines */
        char *token;
        usec refresh_at, give_up_at; /* monotonic; give_up_at 0: no request under way */
        usec token_at;               /* when the token came */
        /* renewing: a token is requested because the function refused one; renewed: so was the present one */
        bool renewing, renewed;
        uint32_t version;
        unsigned failures;
};

/* ---- secrets ------------------------------------------------------------ */

/* The last value of a removed Secret is used until the function refuses it. */
static int last_value(const struct access *a, const struct secret_ref *ref, struct buf *out,
                      struct error *err)
{
        for (size_t i = 0; a->values && i < a->refs_n; i++)
                if (a->values[i].ref == ref) {
                        a->used[i] = true;
                        if (!secret_last(&a->values[i]).p)
                                break;
                        buf_str(out, secret_last(&a->values[i]));
                        return out->failed ? error_memory(err) : 0;
                }
        return secret_read(a->config.secrets, ref, out, err);
}

/* A user name or password, sent in Base64: it must be UTF-8 without control characters (RFC 7617, section 2).
 */
static int read_login(const struct access *a, const struct secret_ref *ref, struct buf *out,
                      struct error *err)
{
        size_t before = out->n;

        if (last_value(a, ref, out, err) < 0)
                return -1;
        for (size_t i = before; i < out->n; i++) {
                if ((unsigned char)out->p[i] < 0x20 || out->p[i] == 0x7f)
                        return error_set(err, ERROR_INVALID,
                                         "Secret %s, key %s: a user's name and password must have no control "
                                         "characters",
                                         ref->name, ref->key);
        }
        return 0;
}

/* A value that goes into a header. */
static int read_value(const struct access *a, const struct secret_ref *ref, struct buf *out,
                      struct error *err)
{
        BUF_AT_END struct buf value = BUF_INIT(65536);

        if (last_value(a, ref, &value, err) < 0)
                return -1;
        for (size_t i = 0; i < value.n; i++)
                if ((unsigned char)value.p[i] < 0x20 || (unsigned char)value.p[i] > 0x7e)
                        return error_set(err, ERROR_INVALID,
                                         "Secret %s, key %s: a header holds printable ASCII only", ref->name,
                                         ref->key);
        buf_str(out, buf_view(&value));
        return out->failed ? error_memory(err) : 0;
}

static void count_ref(void *cookie, const struct secret_ref *found UNUSED) { ++*(size_t *)cookie; }

static void open_ref(void *cookie, const struct secret_ref *found)
{
        struct access *a = cookie;
        struct secret *s = &a->values[a->refs_n++];

        /* there is no directory of Secrets: reported when the value is needed */
        if (secret_open(s, a->config.loop, a->config.secrets, found, &a->task, NULL) < 0)
                s->ref = found;
}

/* looks: checks the files now. Otherwise it goes by what their watches have reported. */
static bool changed(struct access *a, bool looks)
{
        bool any = false;

        for (size_t i = 0; i < a->refs_n; i++)
                any = (looks ? secret_look(&a->values[i]) : secret_changed(&a->values[i])) || any;
        return any;
}

static void note_gone(struct access *a)
{
        BUF_AT_END struct buf text = BUF_INIT(sizeof(a->gone) - 1);

        for (size_t i = 0; i < a->refs_n && !text.n; i++)
                if (a->used[i] && secret_gone(&a->values[i]) && secret_last(&a->values[i]).p) {
                        secret_tell_gone(a->values[i].ref, &text);
                        buf_text(&text, ": its last value is used until it is refused");
                }
        if (strcmp(a->gone, text.p ? text.p : "") == 0)
                return;
        (void)snprintf(a->gone, sizeof(a->gone), "%s", text.p ? text.p : "");
        if (a->gone[0])
                log_warn_for(a->config.log, "access", LOG_S("gone", a->gone));
        if (a->config.observer)
                loop_ready(a->config.loop, a->config.observer);
}

static int basic(struct access *a, const struct basic_spec *b, struct buf *out, struct error *err)
{
        BUF_AT_END struct buf pair = BUF_INIT(65536);

        if (read_login(a, b->username, &pair, err) < 0)
                return -1;
        buf_char(&pair, ':');
        if (read_login(a, b->password, &pair, err) < 0)
                return -1;
        if (pair.failed)
                return error_memory(err);
        buf_text(out, "Authorization: Basic ");
        buf_base64(out, buf_view(&pair));
        buf_text(out, "\r\n");
        return 0;
}

static int write_headers(struct access *a, struct buf *out, struct error *err)
{
        const struct authentication_spec *auth = a->delivery->authentication;

        for (size_t i = 0; i < a->delivery->headers.n; i++) {
                const struct header_spec *h = a->delivery->headers.list[i];

                if (!h->secret)
                        continue;
                buf_printf(out, "%s: ", h->name);
                if (read_value(a, h->secret, out, err) < 0)
                        return -1;
                buf_text(out, "\r\n");
        }
        if (auth && auth->basic && basic(a, auth->basic, out, err) < 0)
                return -1;
        if (auth && auth->bearer) {
                buf_text(out, "Authorization: Bearer ");
                if (read_value(a, auth->bearer->token, out, err) < 0)
                        return -1;
                buf_text(out, "\r\n");
        }
        return out->failed ? error_memory(err) : 0;
}

static void say(struct access *a, const char *why)
{
        char before[sizeof(a->why)];
        bool differs;

        memcpy(before, a->why, sizeof(before));
        text_print(a->why, sizeof(a->why), "%s", why); /* it may quote who gives tokens */
        differs = strcmp(a->why, before) != 0;
        if (differs && *why)
                log_warn_for(a->config.log, "access", LOG_S("lacks", a->why));
        if (differs && a->config.observer)
                loop_ready(a->config.loop, a->config.observer);
}

static bool needs_token(const struct access *a)
{
        return a->delivery->authentication && a->delivery->authentication->oauth2;
}

static const char BEARER[] = "Authorization: Bearer ";

/* What the token takes of a request's headers. */
static size_t token_line(const char *token) { return token ? strlen(BEARER) + strlen(token) + 2 : 0; }

static void compose(struct access *a)
{
        a->version++;
        buf_reset(&a->headers);
        buf_str(&a->headers, buf_view(&a->secret_headers));
        if (a->token)
                buf_printf(&a->headers, "%s%s\r\n", BEARER, a->token);
        if (a->secrets_read && (a->token || !needs_token(a)))
                say(a, "");
}

/* Headers that leave no room for an event's own would fail each event for good. */
static int read_headers(struct access *a, struct buf *out, struct error *err)
{
        size_t most = a->config.most - MIN_OF(token_line(a->token), a->config.most);

        if (write_headers(a, out, err) < 0 && !out->full)
                return -1;
        if (out->full || out->n > most)
                return error_set(err, ERROR_INVALID,
                                 "the headers from Secrets take more than %zu bytes: no request holds them",
                                 most);
        return 0;
}

/* If a new value can't be read, the old one stays in use. */
static void read_secrets(struct access *a)
{
        BUF_AT_END struct buf fresh = BUF_INIT(65536);
        struct error err;

        if (read_headers(a, &fresh, &err) < 0) {
                if (!a->secrets_read)
                        say(a, err.text);
                return;
        }
        note_gone(a);
        a->refused = a->refused && a->gone[0];
        if (a->refused)
                return;
        a->secrets_read = true;
        buf_reset(&a->secret_headers);
        buf_str(&a->secret_headers, buf_view(&fresh));
        compose(a);
}

/* ---- tokens ------------------------------------------------------------- */

/* The server knows the secret in both spellings, so both are kept from being quoted. */
static int client_header(struct access *a, const struct oauth2_spec *o, struct buf *out, struct error *err)
{
        BUF_AT_END struct buf id = BUF_INIT(16384), secret = BUF_INIT(16384), coded = BUF_INIT(65536);

        if (last_value(a, o->client_id, &id, err) < 0 || last_value(a, o->client_secret, &secret, err) < 0)
                return -1;
        oauth_basic(buf_view(&id), buf_view(&secret), out, &coded);
        buf_reset(&a->shown);
        buf_str(&a->shown, buf_view(out));
        buf_printf(&a->shown, "client_secret: " STR_FMT "\r\n", STR_ARG(buf_view(&coded)));
        return out->failed || a->shown.failed ? error_memory(err) : 0;
}

static void token_failed(struct access *a, const char *why, usec now)
{
        BUF_AT_END struct buf text = BUF_INIT(1024);

        a->give_up_at = 0;
        a->refresh_at = now + backoff_full_jitter(&a->random, TOKEN_BACKOFF, TOKEN_BACKOFF_MOST,
                                                  a->failures++, 100 * USEC_MSEC);
        buf_printf(&text, "token: %s", why);
        if (!a->token) /* otherwise the old token may still be valid */
                say(a, text.p ? text.p : why);
}

static void ask_token(struct access *a, usec now)
{
        const struct oauth2_spec *o = a->delivery->authentication->oauth2;
        BUF_AT_END struct buf headers = BUF_INIT(65536);
        struct error err;

        buf_reset(&a->message);
        if (buf_reserve(&a->message, HTTP_HEADROOM))
                a->message.n = HTTP_HEADROOM;
        oauth_body(o, &a->message);
        if (client_header(a, o, &headers, &err) < 0) {
                token_failed(a, err.text, now);
                return;
        }
        a->request.request.wake = &a->task;
        a->request.target = a->target;
        a->request.message = &a->message;
        a->request.headers = buf_view(&headers);
        if (http_submit(&a->http, &a->request, &err) < 0)
                token_failed(a, err.text, now);
        else
                a->give_up_at = now + TOKEN_TIMEOUT;
}

static void quote_refusal(const struct access *a, json_t *root, struct buf *why)
{
        const char *between = ": ", *text;

        for (size_t i = 0; (text = oauth_words(root, i)); i++) {
                if (!*text)
                        continue;
                buf_text(why, between);
                access_quote(a,
                             &(struct access_words){
                                     .text = str_of(text), .most = 120, .shown = buf_view(&a->shown) },
                             why);
                between = ", ";
        }
}

/* Why the token of a successful answer can't be used; NULL: it can. */
static const char *unusable(const struct access *a, const char *token)
{
        if (!token || !*token)
                return "without an access_token";
        if (!oauth_token_fits(token))
                return "with an access_token that no header can hold";
        return a->secret_headers.n + token_line(token) > a->config.most
                       ? "with an access_token that is too long for a request's headers"
                       : NULL;
}

/* fault: of the token; NULL: the answer is no success. */
static void token_refused(struct access *a, const struct http_request *c, json_t *root, const char *fault,
                          usec now)
{
        BUF_AT_END struct buf why = BUF_INIT(480);

        buf_printf(&why, "%.160s answered %d", a->delivery->authentication->oauth2->token_url, c->status);
        if (fault)
                buf_printf(&why, " %s", fault);
        else
                quote_refusal(a, root, &why);
        token_failed(a, why.p ? why.p : "out of memory", now);
        a->refresh_at = MAX_OF(a->refresh_at,
                               now + MIN_OF(c->retry_after, a->delivery->retry->retry_after_max));
}

static void token_answered(struct access *a, usec now)
{
        const struct http_request *c = &a->request;
        const char *token, *fault;
        json_t *root;
        int64_t lifetime;
        bool success;

        if (request_failed(&c->request)) {
                token_failed(a, c->request.error.text, now);
                return;
        }
        root = json_tree(c->body, 0, JSON_VALUES_MOST, NULL);
        token = json_string_value(json_object_get(root, "access_token"));
        lifetime = oauth_lifetime(root);
        success = c->status >= 200 && c->status <= 299;
        fault = success ? unusable(a, token) : NULL;
        if (!success || fault) {
                token_refused(a, c, root, fault, now);
                json_decref(root);
                return;
        }
        free(a->token);
        a->token = str_dup(str_of(token));
        a->token_at = now;
        a->renewed = a->renewing;
        a->renewing = false;
        a->give_up_at = 0;
        a->failures = 0;
        /* Renewed when a fifth of its lifetime is left, or after a fixed time if the lifetime is unknown. */
        a->refresh_at = now +
                        (lifetime > 0 ? MAX_OF(lifetime * USEC_SEC * 4 / 5, USEC_SEC) : 5 * USEC_MINUTE);
        json_decref(root);
        compose(a);
}

/* ---- what others say ---------------------------------------------------- */

static void hide_lines(struct mask *m, struct str lines)
{
        while (lines.n) {
                struct str value = str_cut(&lines, '\n');

                (void)str_cut(&value, ':');
                value = str_trim(value);
                mask_add(m, value);
                (void)str_cut(&value, ' '); /* after Bearer or Basic */
                mask_add(m, value);
        }
}

static size_t lines_of(struct str text)
{
        size_t n = 1;

        for (size_t i = 0; i < text.n; i++)
                n += text.p[i] == '\n';
        return n;
}

/* Hides the values of Secrets, the token, and the header values made of them: the present ones and those that
 * were sent. */
static bool hide_all(struct mask *m, const struct access *a, struct str shown)
{
        struct str lines = buf_view(&a->headers);

        *m = (struct mask){ .list = calloc(a->refs_n + 2 * (lines_of(lines) + lines_of(shown)),
                                           sizeof(*m->list)) };
        if (!m->list)
                return false;
        for (size_t i = 0; i < a->refs_n; i++)
                if (a->used[i])
                        mask_add(m, secret_last(&a->values[i]));
        hide_lines(m, lines);
        hide_lines(m, shown);
        return true;
}

void access_quote(const struct access *a, const struct access_words *w, struct buf *out)
{
        struct mask m = { 0 };

        if (a && !hide_all(&m, a, w->shown)) {
                out->failed = true;
                return;
        }
        mask_quote(&m, w->text, w->most, w->cut, out);
        free(m.list);
}

/* ---- the task ----------------------------------------------------------- */

static void turn_token(struct access *a, usec now)
{
        if (request_take(&a->request.request)) {
                token_answered(a, now);
                http_release(&a->http, &a->request);
        }
        if (a->give_up_at && now >= a->give_up_at) {
                http_release(&a->http, &a->request);
                token_failed(a, "no answer within 30 s", now);
        }
        if (!a->give_up_at && now >= a->refresh_at)
                ask_token(a, now);
}

static void turn(struct task *t, usec now)
{
        struct access *a = CONTAINER_OF(t, struct access, task);
        usec at = USEC_NEVER;

        if (a->refs_n && (changed(a, false) || (!a->secrets_read && now >= a->next_look))) {
                a->next_look = now + READ_AGAIN;
                read_secrets(a);
                if (needs_token(a) && !a->token)
                        a->refresh_at = MIN_OF(a->refresh_at, now);
        }
        if (a->refs_n && !a->secrets_read)
                at = a->next_look;
        if (needs_token(a)) {
                turn_token(a, now);
                at = MIN_OF(at, a->give_up_at ? a->give_up_at : a->refresh_at);
        }
        loop_arm(a->config.loop, t, at);
}

/* ---- life --------------------------------------------------------------- */

static int open_token(struct access *a, struct error *err)
{
        BUF_AT_END struct buf space = BUF_INIT(1 << 20);
        struct http_target_config target;

        if (target_config(&target, a->config.trigger, a->delivery->authentication->oauth2->token_url,
                          a->config.secrets, &space, err) < 0)
                return -1;
        target.max_connections = 1;
        target.answer_max = 65536;
        target.http_version = HTTP_AUTO;
        target.compress = false;
        target.headers = STR(OAUTH_HEADERS);
        a->http = http_client_port(a->config.http);
        return http_target_new(&a->target, a->config.http, &target, err);
}

int access_new(struct access **out, const struct access_config *config, struct error *err)
{
        struct access *a = calloc(1, sizeof(*a));
        size_t n = 0;

        if (!a)
                return error_memory(err);
        a->config = *config;
        a->config.most = config->most ? config->most : HEADERS_MOST;
        a->delivery = config->trigger->delivery;
        a->task.turn = turn;
        a->headers.max = a->secret_headers.max = 65536;
        a->message.max = a->shown.max = 65536;
        random_init(&a->random, random_seed());
        trigger_secrets(config->trigger, count_ref, &n);
        a->values = calloc(n + 1, sizeof(*a->values));
        a->used = calloc(n + 1, sizeof(*a->used));
        if (!a->values || !a->used || (needs_token(a) && open_token(a, err) < 0)) {
                bool memory = !a->values || !a->used;

                (void)access_free(a);
                return memory ? error_memory(err) : -1;
        }
        trigger_secrets(config->trigger, open_ref, a);
        if (needs_token(a))
                (void)snprintf(a->why, sizeof(a->why), "waiting for a token from %s",
                               a->delivery->authentication->oauth2->token_url);
        read_secrets(a);
        loop_ready(config->loop, &a->task);
        *out = a;
        return 0;
}

const char *access_lacks(const struct access *a) { return a->why[0] ? a->why : NULL; }
const char *access_notes(const struct access *a) { return a->gone[0] ? a->gone : NULL; }
struct str access_headers(const struct access *a) { return buf_view(&a->headers); }

uint32_t access_version(const struct access *a) { return a->version; }

bool access_refused(struct access *a, uint32_t version)
{
        bool newer = changed(a, true);

        if (version != a->version)
                return true; /* what was sent is no longer in use */
        if (newer)
                read_secrets(a);
        else if (a->gone[0] && !needs_token(a)) {
                BUF_AT_END struct buf why = BUF_INIT(sizeof(a->why) - 1);

                buf_printf(&why, STR_FMT "the function refuses its last value",
                           (int)(strchr(a->gone, ':') - a->gone + 2), a->gone);
                say(a, why.p ? why.p : a->gone);
                a->refused = true;
                a->secrets_read = false;
                return true;
        }
        /* If two fresh tokens in a row were refused, a third would not help. */
        if (!needs_token(a) || (a->token && a->renewed &&
                                loop_now(a->config.loop) - a->token_at < TOKEN_IS_FRESH && !a->give_up_at))
                return newer;
        a->renewing = true;
        if (!a->give_up_at) {
                a->refresh_at = 0;
                loop_ready(a->config.loop, &a->task);
        }
        return true;
}

struct access *access_free(struct access *a)
{
        if (!a)
                return NULL;
        loop_forget(a->config.loop, &a->task);
        http_release(&a->http, &a->request);
        (void)http_target_free(a->target);
        free(a->token);
        for (size_t i = 0; i < a->refs_n; i++)
                secret_done(&a->values[i]);
        free(a->values);
        free(a->used);
        buf_done(&a->headers);
        buf_done(&a->secret_headers);
        buf_done(&a->message);
        buf_done(&a->shown);
        free(a);
        return NULL;
}

/* ---- previews ----------------------------------------------------------- */

int access_preview(const struct trigger *t, const char *secrets, struct buf *out, struct error *err)
{
        struct access a = { .config = { .trigger = t, .secrets = secrets }, .delivery = t->delivery };
        const struct authentication_spec *auth = t->delivery->authentication;

        if (auth && auth->oauth2)
                buf_printf(out, "Authorization: Bearer <token from %s>\r\n", auth->oauth2->token_url);
        if (secrets)
                return write_headers(&a, out, err);
        for (size_t i = 0; i < t->delivery->headers.n; i++) {
                const struct header_spec *h = t->delivery->headers.list[i];

                if (h->secret)
                        buf_printf(out, "%s: <Secret %s, key %s>\r\n", h->name, h->secret->name,
                                   h->secret->key);
        }
        if (auth && auth->basic)
                buf_printf(out, "Authorization: Basic <Secret %s, key %s, and Secret %s, key %s>\r\n",
                           auth->basic->username->name, auth->basic->username->key,
                           auth->basic->password->name, auth->basic->password->key);
        if (auth && auth->bearer)
                buf_printf(out, "Authorization: Bearer <Secret %s, key %s>\r\n", auth->bearer->token->name,
                           auth->bearer->token->key);
        return out->failed ? error_memory(err) : 0;
}
