#include "source/smn/topic.h"

#include "source/smn/subscription.h"

#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>

#include "base/random.h"
#include "huawei/endpoints.h"
#include "secret/secret.h"

/* Of the places for certificates some are for those that a message was signed by, and some fetches for
 * senders of such messages: anyone may name certificates. */
enum {
        CERTIFICATES_MOST = 32,
        PROVEN_MOST = 16,
        FETCHES_MOST = 4,
        FETCHES_OF_ONE = 2,
        FETCHES_KEPT = 4,
        SENDERS_MOST = 64,
        PENDING_MOST = 1000,
        CERTIFICATE_BYTES_MOST = 64 * 1024,
        HOSTS_MOST = 32
};
static const usec OLDEST = USEC_HOUR, AHEAD = 15 * USEC_MINUTE, FAILURE_KEPT = 3 * USEC_SEC,
                  TROUBLE_AGAIN = USEC_MINUTE;

/* ---- the spec ----------------------------------------------------------- */

static const struct field trusted_fields[] = {
        FIELD(STRINGS, "hosts", struct trusted_spec, hosts, .required = true, .min = 1, .max = 16,
              .pattern = "^[A-Za-z0-9.-]{1,253}(:" PORT_PATTERN ")?$", .format = "HOST or HOST:PORT",
              .help = "The hosts, called by HTTPS; they may have private addresses."),
        FIELD(OBJECT, "caSecretRef", struct trusted_spec, ca, .object = &secret_ref_type,
              .help = "The authorities (PEM) that vouch for these hosts; by default the system's."),
};
const struct type trusted_type = TYPE("TrustedHosts", struct trusted_spec, trusted_fields,
                                      "Further hosts that certificates and confirmations may be fetched "
                                      "from: of a private cloud, or of tests.");

static const struct field subscription_fields[] = {
        FIELD(BOOL, "manage", struct subscription_spec, manage, .fallback = "false",
              .help = "true: the worker subscribes the Trigger to its topic, and the subscription is "
                      "cancelled when the Trigger is deleted."),
        FIELD(STRING, "endpoint", struct subscription_spec, endpoint, .max = 2048,
              .pattern = "^https?://[A-Za-z0-9.-]{1,253}(:" PORT_PATTERN ")?/[!-~]*$",
              .format = "an absolute URL with a path", .cloud = "endpoint",
              .help = "Where SMN reaches the Trigger; by default its path at the host that expose gives."),
};
const struct type subscription_type = TYPE("Subscription", struct subscription_spec, subscription_fields,
                                           "The topic's subscription.");

static bool managed(const struct smn_spec *s) { return s->subscription && s->subscription->manage; }
bool topic_has_cloud(const void *spec) { return !managed(spec) || ((const struct smn_spec *)spec)->cloud; }
bool topic_has_endpoint(const void *spec)
{
        const struct smn_spec *s = spec;

        return !managed(s) || s->subscription->endpoint || s->expose;
}

/* ---- state -------------------------------------------------------------- */

struct certificate {
        char *url; /* NULL: the place is free */
        struct fetch_request fetch;
        EVP_PKEY *key; /* NULL: not there */
        /* wall: when it is valid; or, without a key, monotonic: asked again then */
        usec from, until;
        usec used;
        uint64_t sender; /* a hash of who named it first */
        /* a message was signed by it: it gives way to none that nobody has vouched for */
        bool proven;
};

/* a message that waits for its certificate, or a confirmation for its answer */
struct pending {
        struct pending *next;
        uint64_t call; /* 0: the caller left */
        struct notification notification;
        struct certificate *certificate;
        struct fetch_request confirmation;
        uint64_t sender;
        usec deadline;
};

struct topic {
        struct topic_config config;
        struct subscription *subscription;
        char *host; /* SMN's in the region */
        char *region;
        char *ca_file;
        const char *hosts[HOSTS_MOST], *inside[HOSTS_MOST]; /* end in NULL */
        struct certificate certificates[CERTIFICATES_MOST];
        struct pending *pending;
        size_t pending_n, fetches;
        /* hashes of those whose messages were signed, lately; a ring */
        uint64_t seed, senders[SENDERS_MOST];
        size_t senders_n;
        usec told_trouble;
        bool cancelled;                           /* the subscription, by someone else */
        struct list certificates_come, confirmed; /* fetches that are done */
};

static usec monotonic(const struct topic *t) { return clock_monotonic(t->config.services->clock); }

/* ---- where calls may go ------------------------------------------------- */

static bool is_certificate_path(const struct topic *t, struct str path)
{
        char head[160];
        int n = snprintf(head, sizeof(head), "/smn/SMN_%s_", t->region);

        if (path.n != (size_t)n + 32 + 4 || memcmp(path.p, head, (size_t)n) != 0 ||
            memcmp(path.p + n + 32, ".pem", 4) != 0)
                return false;
        for (size_t i = (size_t)n; i < (size_t)n + 32; i++)
                if (!((path.p[i] >= '0' && path.p[i] <= '9') || (path.p[i] >= 'a' && path.p[i] <= 'f') ||
                      (path.p[i] >= 'A' && path.p[i] <= 'F')))
                        return false;
        return true;
}

/* At a private cloud's host certificates may lie elsewhere. It is asked for before anything is known to be
 * signed, so the path may not say much: no query, nothing encoded, no way up. */
static bool is_plain_pem(struct str path)
{
        static const char suffix[] = ".pem";

        if (path.n > 256 || path.n < sizeof(suffix) ||
            memcmp(path.p + path.n - (sizeof(suffix) - 1), suffix, sizeof(suffix) - 1) != 0)
                return false;
        for (size_t i = 0; i < path.n; i++) {
                char c = path.p[i];

                if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                      c == '/' || c == '.' || c == '_' || c == '-'))
                        return false;
                if (c == '.' && i + 1 < path.n && path.p[i + 1] == '.')
                        return false;
        }
        return true;
}

/* May it be called? The fetch looks at host and address once more. */
static bool may_call(const struct topic *t, struct str url, bool certificate, bool *trusted)
{
        struct str rest, authority, path;
        const char *slash;

        if (!str_starts(url, STR("https://")))
                return false;
        rest = (struct str){ url.p + 8, url.n - 8 };
        slash = memchr(rest.p, '/', rest.n);
        if (!slash)
                return false;
        authority = (struct str){ rest.p, (size_t)(slash - rest.p) };
        path = (struct str){ slash, rest.n - authority.n };
        *trusted = false;
        if (str_equal_nocase(authority, str_of(t->host)))
                return !certificate || is_certificate_path(t, path);
        for (const char *const *host = t->inside; *host; host++)
                if (str_equal_nocase(authority, str_of(*host))) {
                        *trusted = true;
                        return !certificate || is_plain_pem(path);
                }
        return false;
}

static const struct fetch *port_of(const struct topic *t) { return &t->config.services->fetch; }

static int fetch(struct topic *t, struct fetch_request *q, struct list *done, struct str url, bool trusted,
                 struct error *err)
{
        q->request.wake = t->config.services->wake;
        q->request.done = done;
        q->url = url;
        q->hosts = t->hosts;
        q->inside = t->inside;
        q->ca_file = trusted ? t->ca_file : NULL;
        q->timeout = t->config.spec->timeout;
        q->answer_max = CERTIFICATE_BYTES_MOST;
        if (fetch_submit(port_of(t), q, err) < 0)
                return -1;
        t->fetches++;
        return 0;
}

/* ---- certificates ------------------------------------------------------- */

static bool under_way(const struct certificate *c) { return !request_idle(&c->fetch.request); }

static void certificate_clear(struct topic *t, struct certificate *c)
{
        fetch_release(port_of(t), &c->fetch);
        free(c->url);
        EVP_PKEY_free(c->key);
        *c = (struct certificate){ 0 };
}

static bool wall_time(const ASN1_TIME *at, usec *out)
{
        struct tm parts;

        if (ASN1_TIME_to_tm(at, &parts) != 1)
                return false;
        *out = (days_from_civil(parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday) * 86400 +
                parts.tm_hour * 3600 + parts.tm_min * 60 + parts.tm_sec) *
               USEC_SEC;
        return true;
}

/* The leaf comes first; that TLS vouched for whom it came from is what makes it SMN's. */
static bool read_certificate(struct certificate *c, struct str pem)
{
        BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
        X509 *x = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
        EVP_PKEY *key = x ? X509_get_pubkey(x) : NULL;
        bool good = key && EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA && EVP_PKEY_get_bits(key) >= 2048 &&
                    wall_time(X509_get0_notBefore(x), &c->from) &&
                    wall_time(X509_get0_notAfter(x), &c->until);

        if (good)
                c->key = TAKE(key);
        EVP_PKEY_free(key);
        X509_free(x);
        BIO_free(bio);
        return good;
}

static bool wanted(const struct topic *t, const struct certificate *c)
{
        for (const struct pending *p = t->pending; p; p = p->next)
                if (p->certificate == c)
                        return true;
        return false;
}

static struct certificate *known(struct topic *t, struct str url)
{
        for (size_t i = 0; i < CERTIFICATES_MOST; i++)
                if (t->certificates[i].url && str_is(url, t->certificates[i].url))
                        return &t->certificates[i];
        return NULL;
}

/* A free place, or that of the one not used for longest, among those that a message was signed by, or among
 * those that are only said to be good. */
static struct certificate *place(struct topic *t, bool proven)
{
        struct certificate *oldest = NULL;

        for (size_t i = 0; i < CERTIFICATES_MOST; i++) {
                struct certificate *c = &t->certificates[i];

                if (!c->url && !proven)
                        return c;
                if (c->url && c->proven == proven && !under_way(c) && !wanted(t, c) &&
                    (!oldest || c->used < oldest->used))
                        oldest = c;
        }
        return oldest;
}

static void prove(struct topic *t, struct certificate *c)
{
        struct certificate *oldest;
        size_t n = 0;

        if (c->proven)
                return;
        for (size_t i = 0; i < CERTIFICATES_MOST; i++)
                n += t->certificates[i].proven;
        oldest = n >= PROVEN_MOST ? place(t, true) : NULL;
        if (oldest)
                oldest->proven = false;
        c->proven = n < PROVEN_MOST || oldest;
}

static bool is_sender(const struct topic *t, uint64_t who)
{
        for (size_t i = 0; i < MIN_OF(t->senders_n, (size_t)SENDERS_MOST); i++)
                if (t->senders[i] == who)
                        return true;
        return false;
}

static void note_sender(struct topic *t, uint64_t who)
{
        if (!is_sender(t, who))
                t->senders[t->senders_n++ % SENDERS_MOST] = who;
}

/* One address has a part of the fetches, unless its messages were signed; such have some of their own. */
static bool may_fetch(const struct topic *t, uint64_t who)
{
        size_t his = 0;

        if (is_sender(t, who))
                return t->fetches < FETCHES_MOST + FETCHES_KEPT;
        for (size_t i = 0; i < CERTIFICATES_MOST; i++)
                his += under_way(&t->certificates[i]) && t->certificates[i].sender == who;
        return t->fetches < FETCHES_MOST && his < FETCHES_OF_ONE;
}

/* A stranger can cause it: it is not told each time. */
static void tell_trouble(struct topic *t, const char *text)
{
        usec now = monotonic(t);

        if (t->told_trouble && now - t->told_trouble < TROUBLE_AGAIN)
                return;
        t->told_trouble = now;
        inbox_trouble(t->config.inbox, text);
}

/* Is it there, or is it under way, or is it known not to be had? */
static bool is_fresh(const struct topic *t, const struct certificate *c)
{
        return under_way(c) ||
               (c->key ? clock_wall(t->config.services->clock) <= c->until : c->until > monotonic(t));
}

/* Starts to fetch it where it is not there. NULL: not now. */
static struct certificate *certificate_for(struct topic *t, struct str url, bool trusted, uint64_t who)
{
        struct certificate *c = known(t, url);
        bool proven = c && c->proven;
        struct error err;

        if (c)
                c->used = monotonic(t);
        if (c && is_fresh(t, c))
                return c;
        if (!may_fetch(t, who) || !(c = c ? c : place(t, false)))
                return NULL;
        certificate_clear(t, c);
        c->url = str_dup(url);
        c->used = monotonic(t);
        c->sender = who;
        c->proven = proven;
        if (!c->url)
                return NULL;
        if (fetch(t, &c->fetch, &t->certificates_come, url, trusted, &err) < 0) {
                tell_trouble(t, err.text);
                certificate_clear(t, c);
                return NULL;
        }
        return c;
}

/* ---- messages ----------------------------------------------------------- */

static void pending_free(struct topic *t, struct pending *p)
{
        for (struct pending **at = &t->pending; *at; at = &(*at)->next)
                if (*at == p) {
                        *at = p->next;
                        t->pending_n--;
                        break;
                }
        fetch_release(port_of(t), &p->confirmation);
        notification_done(&p->notification);
        free(p);
}

static void confirm(struct topic *t, struct pending *p)
{
        bool trusted = false;
        struct error err;

        if (!may_call(t, p->notification.subscribe_url, false, &trusted)) {
                inbox_refuse_later(t->config.inbox, REFUSED_URL, p->call);
                pending_free(t, p);
        } else if (t->fetches >= 2 * FETCHES_MOST ||
                   fetch(t, &p->confirmation, &t->confirmed, p->notification.subscribe_url, trusted, &err) <
                           0) {
                inbox_answer(t->config.inbox, p->call, 503, "can't confirm now", USEC_SEC);
                pending_free(t, p);
        } else
                p->certificate = NULL;
}

static void connected(struct topic *t)
{
        if (t->cancelled)
                inbox_say(t->config.inbox, SOURCE_CONNECTING, "");
        t->cancelled = false;
        inbox_connected(t->config.inbox);
        subscription_connected(t->subscription);
}

static void vouch(struct topic *t, const struct pending *p)
{
        prove(t, p->certificate);
        note_sender(t, p->sender);
}

/* Its certificate is there, or will not come. */
static void proceed(struct topic *t, struct pending *p)
{
        struct certificate *c = p->certificate;
        usec wall = clock_wall(t->config.services->clock);
        struct notification taken;
        int good = c->key ? notification_verify(&p->notification, c->key) : 0;

        if (!c->key)
                inbox_answer(t->config.inbox, p->call, 503, "the signing certificate can't be had",
                             FAILURE_KEPT);
        else if (good < 0)
                inbox_answer(t->config.inbox, p->call, 503, "out of memory", USEC_SEC);
        else if (wall < c->from || wall > c->until || !good)
                inbox_refuse_later(t->config.inbox, REFUSED_SIGNATURE, p->call);
        else if (p->notification.kind == NOTIFICATION_CONFIRM) {
                vouch(t, p);
                confirm(t, p);
                return;
        } else {
                vouch(t, p);
                connected(t);
                if (p->notification.kind == NOTIFICATION_UNSUBSCRIBED) {
                        t->cancelled = true;
                        inbox_disconnected(t->config.inbox);
                        inbox_say(t->config.inbox, SOURCE_DISCONNECTED, "the subscription was cancelled");
                        inbox_answer(t->config.inbox, p->call, 200, "unsubscribed", 0);
                } else {
                        taken = p->notification;
                        p->notification = (struct notification){ 0 };
                        inbox_trouble(t->config.inbox, NULL);
                        t->config.admit(t->config.cookie, p->call, &taken);
                }
        }
        pending_free(t, p);
}

/* Headers and body say the same. In the newer spelling headers may be missing. */
static bool headers_agree(const struct push_request *q, const struct notification *n)
{
        struct str type = q->header(q, "X-SMN-MESSAGE-TYPE"), id = q->header(q, "X-SMN-MESSAGE-ID"),
                   urn = q->header(q, "X-SMN-TOPIC-URN");
        enum notification_kind kind, body;
        bool newer;

        if (!notification_kind_of(n->type, &body, &newer))
                return false;
        if (type.p ? !notification_kind_of(type, &kind, NULL) || kind != body : !newer)
                return false;
        return (!id.p || str_equal(id, n->message_id)) && (!urn.p || str_equal(urn, n->topic_urn));
}

static enum push_verdict hold(struct topic *t, uint64_t call, struct notification *n, struct certificate *c,
                              uint64_t who, struct push_reply *reply)
{
        struct pending *p = calloc(1, sizeof(*p));

        if (!p || !inbox_put_off(t->config.inbox)) {
                free(p);
                notification_done(n);
                inbox_reply(reply, 503, "out of memory", USEC_SEC);
                return PUSH_REPLY;
        }
        *p = (struct pending){ .next = t->pending,
                               .call = call,
                               .notification = *n,
                               .certificate = c,
                               .sender = who,
                               .deadline = monotonic(t) + t->config.spec->timeout };
        t->pending = p;
        t->pending_n++;
        if (!under_way(c))
                proceed(t, p);
        return PUSH_LATER;
}

enum push_verdict topic_receive(struct topic *t, uint64_t call, const struct push_request *q,
                                struct push_reply *reply)
{
        struct inbox *inbox = t->config.inbox;
        usec wall = clock_wall(t->config.services->clock);
        struct certificate *c;
        struct notification n;
        enum refusal refusal;
        uint64_t who = hash_bytes(t->seed, q->client);
        bool trusted = false;
        const char *why;

        if (!str_is(q->method, "POST")) {
                inbox_reply(reply, 405, "send messages by POST", 0);
                return PUSH_REPLY;
        }
        if (q->body.n > NOTIFICATION_BODY_MOST)
                return inbox_refuse(inbox, REFUSED_TOO_LARGE, reply);
        if (notification_parse(q->body, &n, &why) < 0) {
                if (why)
                        return inbox_refuse(inbox, REFUSED_MALFORMED, reply);
                inbox_reply(reply, 503, "out of memory", USEC_SEC);
                return PUSH_REPLY;
        }
        refusal = REFUSAL_MAX;
        if (!headers_agree(q, &n))
                refusal = REFUSED_MALFORMED;
        else if (!str_is(n.topic_urn, t->config.spec->topic_urn))
                refusal = REFUSED_TOPIC;
        else if (n.time < wall - OLDEST || n.time > wall + AHEAD)
                refusal = REFUSED_STALE;
        else if (!str_is(n.signature_version, "v1"))
                refusal = REFUSED_SIGNATURE;
        else if (!may_call(t, n.signing_cert_url, true, &trusted))
                refusal = REFUSED_URL;
        if (refusal != REFUSAL_MAX) {
                notification_done(&n);
                return inbox_refuse(inbox, refusal, reply);
        }
        c = certificate_for(t, n.signing_cert_url, trusted, who);
        if (c && (c->key || t->pending_n < PENDING_MOST))
                return hold(t, call, &n, c, who, reply);
        notification_done(&n);
        inbox_reply(reply, 503, "too much is under way", USEC_SEC);
        return PUSH_REPLY;
}

/* ---- the source's turn -------------------------------------------------- */

static void certificate_came(struct topic *t, struct certificate *c)
{
        const struct fetch_request *f = &c->fetch;
        char text[200];

        c->until = 0;
        if (request_failed(&f->request))
                tell_trouble(t, f->request.error.text);
        else if (f->status != 200) {
                (void)snprintf(text, sizeof(text), "signing certificate %.120s: answered %d", c->url,
                               f->status);
                tell_trouble(t, text);
        } else if (!read_certificate(c, buf_view(&f->answer))) {
                (void)snprintf(text, sizeof(text),
                               "signing certificate %.120s: is no certificate of an RSA key", c->url);
                tell_trouble(t, text);
        }
        fetch_release(port_of(t), &c->fetch);
        if (!c->key)
                c->until = monotonic(t) + FAILURE_KEPT;
        for (struct pending *p = t->pending, *next; p; p = next) {
                next = p->next;
                if (p->certificate == c)
                        proceed(t, p);
        }
}

static void confirmation_came(struct topic *t, struct pending *p)
{
        const struct fetch_request *f = &p->confirmation;
        bool failed = request_failed(&f->request);
        char text[200];

        if (!failed && f->status >= 200 && f->status <= 299) {
                connected(t);
                inbox_trouble(t->config.inbox, NULL);
                if (p->call)
                        inbox_answer(t->config.inbox, p->call, 200, "confirmed", 0);
        } else {
                if (!failed)
                        (void)snprintf(text, sizeof(text), "the subscription's confirmation was answered %d",
                                       f->status);
                inbox_trouble(t->config.inbox, failed ? f->request.error.text : text);
                if (p->call)
                        inbox_answer(t->config.inbox, p->call, 502, "the confirmation failed", 0);
        }
        pending_free(t, p);
}

static struct fetch_request *fetched(struct topic *t, struct list *done)
{
        struct request *r = request_next(done);

        t->fetches -= r != NULL;
        return r ? CONTAINER_OF(r, struct fetch_request, request) : NULL;
}

void topic_poll(struct topic *t, usec now)
{
        struct fetch_request *f;

        while ((f = fetched(t, &t->certificates_come)))
                certificate_came(t, CONTAINER_OF(f, struct certificate, fetch));
        while ((f = fetched(t, &t->confirmed)))
                confirmation_came(t, CONTAINER_OF(f, struct pending, confirmation));
        subscription_turn(t->subscription, now);
        for (struct pending *p = t->pending, *next; p; p = next) {
                next = p->next;
                if (p->deadline > now || !p->certificate)
                        continue;
                inbox_answer(t->config.inbox, p->call, 503, "the signing certificate did not come in time",
                             USEC_SEC);
                pending_free(t, p);
        }
}

usec topic_deadline(const struct topic *t)
{
        usec at = subscription_deadline(t->subscription);

        for (const struct pending *p = t->pending; p; p = p->next)
                if (p->certificate)
                        at = MIN_OF(at, p->deadline);
        return at;
}

void topic_pass_on(struct topic *t, struct topic *successor)
{
        subscription_pass_on(t->subscription, successor ? successor->subscription : NULL);
}

bool topic_gone(struct topic *t, uint64_t call)
{
        for (struct pending *p = t->pending; p; p = p->next) {
                if (p->call != call)
                        continue;
                if (p->certificate)
                        pending_free(t, p);
                else
                        p->call = 0; /* the confirmation goes on */
                inbox_put_on(t->config.inbox);
                return true;
        }
        return false;
}

/* ---- life --------------------------------------------------------------- */

int topic_new(struct topic **out, const struct topic_config *config, struct error *err)
{
        const struct trusted_spec *trusted = config->spec->trusted;
        BUF_AT_END struct buf ca = BUF_INIT(4096);
        struct endpoint endpoint;
        struct subscription_config subscription = { .spec = config->spec,
                                                    .services = config->services,
                                                    .inbox = config->inbox };
        struct str region, project, name;
        struct topic *t;

        if (!notification_urn(str_of(config->spec->topic_urn), &region, &project, &name))
                return error_set(err, ERROR_INVALID, "topicURN: \"%s\" is not " TOPIC_URN_FORMAT,
                                 config->spec->topic_urn);
        if (endpoint_find(&endpoint, "smn", region, err) < 0)
                return error_wrap(err, "topicUrn");
        t = calloc(1, sizeof(*t));
        if (!t)
                return error_memory(err);
        t->config = *config;
        t->seed = random_seed();
        t->host = str_dup(str_of(endpoint.hosts[0]));
        t->region = str_dup(region);
        if (trusted && trusted->ca && config->services->secrets)
                secret_path(config->services->secrets, trusted->ca, &ca);
        t->ca_file = ca.n ? buf_take(&ca) : NULL;
        if (!t->host || !t->region) {
                (void)topic_free(t);
                return error_memory(err);
        }
        if (trusted && trusted->ca && !t->ca_file) {
                (void)topic_free(t);
                return error_set(
                        err, ERROR_INVALID,
                        "trusted.caSecretRef: Secret %s can't be read from nowhere: say --secrets=DIR",
                        trusted->ca->name);
        }
        t->hosts[0] = t->host;
        for (size_t i = 0; trusted && i < trusted->hosts.n && i < HOSTS_MOST - 2; i++)
                t->hosts[i + 1] = t->inside[i] = trusted->hosts.list[i];
        subscription.ca_file = t->ca_file;
        if (subscription_new(&t->subscription, &subscription, err) < 0) {
                (void)topic_free(t);
                return -1;
        }
        *out = t;
        return 0;
}

struct topic *topic_free(struct topic *t)
{
        if (!t)
                return NULL;
        for (size_t i = 0; i < CERTIFICATES_MOST; i++)
                certificate_clear(t, &t->certificates[i]);
        while (t->pending)
                pending_free(t, t->pending);
        (void)subscription_free(t->subscription);
        free(t->host);
        free(t->region);
        free(t->ca_file);
        free(t);
        return NULL;
}
