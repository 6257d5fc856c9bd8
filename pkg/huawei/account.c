/* Accounts: endpoints, keys and projects. */
#include <jansson.h>
#include <stdio.h>

#include "base/backoff.h"
#include "huawei/endpoints.h"
#include "huawei/inside.h"
#include "json/tree.h"
#include "json/value.h"

enum { CONNECTIONS = 1024 };
static const usec BACKOFF_FIRST = USEC_SEC, BACKOFF_MOST = 5 * USEC_MINUTE;

/* ---- places ------------------------------------------------------------- */

static void release(struct cloud *c, struct cloud_place *p)
{
        if (!p || --p->users)
                return;
        list_remove(&p->node);
        for (size_t i = 0; i < COUNT_OF(p->targets); i++) {
                if (p->targets[i])
                        c->peers.ops->close(c->peers.cookie, p->targets[i]);
                free(p->urls[i]);
        }
        free(p->ca_file);
        free(p);
}

static int acquire(struct cloud *c, struct str first, struct str second, const char *ca_file,
                   struct cloud_place **out, struct error *err)
{
        struct cloud_place *p;

        LIST_EACH (struct cloud_place, known, &c->places, node) {
                if (str_is(first, known->urls[0]) && string_equal(known->ca_file, ca_file) &&
                    (second.n ? known->urls[1] && str_is(second, known->urls[1]) : !known->urls[1])) {
                        known->users++;
                        *out = known;
                        return 0;
                }
        }
        p = calloc(1, sizeof(*p));
        if (!p)
                return error_memory(err);
        p->users = 1;
        list_append(&c->places, &p->node);
        p->urls[0] = str_dup(first);
        p->urls[1] = second.n ? str_dup(second) : NULL;
        p->ca_file = ca_file ? str_dup(str_of(ca_file)) : NULL;
        if (!p->urls[0] || (second.n && !p->urls[1]) || (ca_file && !p->ca_file)) {
                release(c, p);
                return error_memory(err);
        }
        *out = p;
        return 0;
}

int place_open(struct cloud *c, struct cloud_place *p, struct error *err)
{
        struct http_peer peer = { .url = p->urls[p->at],
                                  .headers = STR("Accept: application/json\r\n"),
                                  .connections = CONNECTIONS,
                                  .answer_max = CLOUD_ANSWER_MOST,
                                  .own_tls = true,
                                  .ca_file = p->ca_file };

        return p->targets[p->at] ? 0 : c->peers.ops->open(c->peers.cookie, &p->targets[p->at], &peer, err);
}

/* The URLs of a service's hosts. */
static int find(struct cloud *c, const char *service, const char *endpoint, const char *region,
                const char *ca_file, struct cloud_place **out, bool *derived, struct error *err)
{
        char urls[2][ENDPOINT_HOST_MOST + 16] = { "", "" };
        struct endpoint e;

        *derived = false;
        if (endpoint || c->config.endpoint)
                return acquire(c, str_of(endpoint ? endpoint : c->config.endpoint), (struct str){ 0 },
                               ca_file, out, err);
        if (endpoint_find(&e, service, str_of(region), err) < 0)
                return -1;
        *derived = e.derived;
        for (size_t i = 0; i < COUNT_OF(urls); i++)
                if (e.hosts[i][0])
                        (void)snprintf(urls[i], sizeof(urls[i]), "https://%s", e.hosts[i]);
        return acquire(c, str_of(urls[0]), str_of(urls[1]), ca_file, out, err);
}

/* A configured endpoint is that of the called service, not of IAM. */
static bool is_own(const char *service) { return strcmp(service, "iam") != 0; }

int place_of(struct cloud_account *a, const char *service, struct cloud_place **out, struct error *err)
{
        const char *endpoint = is_own(service) ? a->endpoint : NULL;

        for (size_t i = 0; i < a->places_n; i++)
                if (strcmp(a->places[i].service, service) == 0) {
                        *out = a->places[i].place;
                        return 0;
                }
        if (a->places_n == COUNT_OF(a->places))
                return error_set(err, ERROR_INTERNAL, "an account calls too many services");
        if (find(a->cloud, service, endpoint, a->region, a->ca_file, out, &a->places[a->places_n].derived,
                 err) < 0)
                return -1;
        a->places[a->places_n].service = service;
        a->places[a->places_n++].place = *out;
        return 0;
}

void cloud_account_doubt(const struct cloud_account *a, const char *service, struct buf *out)
{
        struct endpoint e;
        struct error err;

        if (!a->endpoint && !a->cloud->config.endpoint &&
            endpoint_find(&e, service, str_of(a->region), &err) == 0 && e.derived)
                endpoint_doubt(&e, service, str_of(a->region), out);
}

/* ---- keys --------------------------------------------------------------- */

static void on_keys(struct cloud_call *call, usec now)
{
        struct keyring *k = CONTAINER_OF(call->raw, struct keyring, request);
        usec wall = cloud_wall(k->cloud);

        call->request.state = REQUEST_IDLE;
        if (call->status && !(call->refusal.verdict == CLOUD_DONE && request_failed(&call->request)))
                credentials_answered(k->credentials, call->status, buf_view(&call->answer),
                                     call->refusal.retry_after, now, wall);
        else
                credentials_failed(k->credentials, &call->request.error, now);
        if (call->answer.p)
                explicit_bzero(call->answer.p, call->answer.n);
        cloud_call_resume(&k->waiting);
        keyring_due(k, now);
        loop_ready(k->cloud->config.loop, &k->cloud->task);
}

void keyring_plan(struct keyring *k, usec at)
{
        struct heap *h = &k->cloud->renewals;

        heap_remove(h, &k->renewal);
        if (at < USEC_NEVER)
                (void)!heap_insert(h, &k->renewal, at); /* memory was reserved for each */
}

void keyring_due(struct keyring *k, usec now)
{
        keyring_plan(k, credentials_deadline(k->credentials, now, cloud_wall(k->cloud)));
}

void keyring_turn(struct keyring *k, usec now)
{
        struct cloud_call *call = k->call;

        if (!credentials_next(k->credentials, now, cloud_wall(k->cloud), &k->request)) {
                if (!call || call->request.state != REQUEST_BUSY)
                        cloud_call_resume(&k->waiting); /* a token can't be read: the waiting calls fail with
                                                           the reason; keys of files are looked at again */
                return;
        }
        call->raw = &k->request;
        call->own = on_keys;
        call->method = k->request.method;
        call->service = k->request.service;
        call->body = k->request.body;
        call->timeout = k->request.timeout;
        cloud_call_begin(k->cloud, call);
}

static char *copy(const char *text, bool *failed)
{
        char *out = text ? str_dup(str_of(text)) : NULL;

        *failed = *failed || (text && !out);
        return out;
}

static struct keyring *keyring_release(struct keyring *k)
{
        char *texts[] = { k->name,       k->endpoint, k->agency, k->domain,    k->provider_urn,
                          k->agency_urn, k->session,  k->policy, k->policy_ids };

        if (--k->users)
                return NULL;
        list_remove(&k->node);
        heap_remove(&k->cloud->renewals, &k->renewal);
        if (k->call)
                cloud_call_done(k->call);
        free(k->call);
        (void)credentials_free(k->credentials);
        release(k->cloud, k->place);
        for (size_t i = 0; i < COUNT_OF(texts); i++)
                free(texts[i]);
        free(k);
        return NULL;
}

/* The region's host of IAM or STS, unless an endpoint is configured. */
static int keyring_place(struct keyring *k, const struct cloud_account_config *config, struct error *err)
{
        static const char *const services[] = { [CREDENTIALS_AGENCY] = "iam", [CREDENTIALS_OIDC] = "sts" };
        enum credentials_kind kind = config->credentials.kind;
        const char *endpoint = config->credentials.endpoint;
        bool derived, failed = false;

        if (kind == CREDENTIALS_METADATA && !endpoint)
                endpoint = k->cloud->config.endpoint ? k->cloud->config.endpoint : "http://169.254.169.254";
        if (kind == CREDENTIALS_POD && !endpoint)
                return error_set(err, ERROR_INVALID, "a pod's keys need the URI that they are asked for at");
        if (kind == CREDENTIALS_POD) { /* credentials_next gives its path */
                const char *after = strstr(endpoint, "://"),
                           *slash = strchr(after ? after + 3 : endpoint, '/');
                size_t n = slash ? (size_t)(slash - endpoint) : strlen(endpoint);

                if (acquire(k->cloud, (struct str){ endpoint, n }, (struct str){ 0 }, NULL, &k->place, err) <
                    0)
                        return -1;
        } else if (find(k->cloud, kind == CREDENTIALS_METADATA ? "metadata" : services[kind], endpoint,
                        config->region, NULL, &k->place, &derived, err) < 0)
                return -1;
        k->endpoint = copy(endpoint ? endpoint : k->place->urls[0], &failed);
        return failed ? error_memory(err) : 0;
}

static int keyring_fill(struct keyring *k, const struct cloud_account_config *config, struct error *err)
{
        struct credentials_config c = config->credentials;
        bool failed = false;

        k->temporary = c.kind != CREDENTIALS_FIXED;
        if (k->temporary && !(k->call = calloc(1, sizeof(*k->call))))
                return error_memory(err);
        if (k->temporary && keyring_place(k, config, err) < 0)
                return -1;
        c.endpoint = k->endpoint;
        c.agency = k->agency = copy(c.agency, &failed);
        c.domain = k->domain = copy(c.domain, &failed);
        c.provider_urn = k->provider_urn = copy(c.provider_urn, &failed);
        c.agency_urn = k->agency_urn = copy(c.agency_urn, &failed);
        c.session = k->session = copy(c.session, &failed);
        c.policy = k->policy = copy(c.policy, &failed);
        c.policy_ids = k->policy_ids = copy(c.policy_ids, &failed);
        k->name = copy(config->shared, &failed);
        c.seed = random_next(&k->cloud->random);
        if (failed)
                return error_memory(err);
        return credentials_new(&k->credentials, &c, err);
}

static int keyring_acquire(struct cloud *c, const struct cloud_account_config *config, struct keyring **out,
                           struct error *err)
{
        struct keyring *k;

        LIST_EACH (struct keyring, known, &c->keyrings, node) {
                if (config->shared && known->name && strcmp(known->name, config->shared) == 0) {
                        known->users++;
                        *out = known;
                        return 0;
                }
        }
        k = calloc(1, sizeof(*k));
        if (!k || !heap_reserve(&c->renewals, c->keyrings.n + 1)) {
                free(k);
                return error_memory(err);
        }
        k->cloud = c;
        k->users = 1;
        list_append(&c->keyrings, &k->node);
        if (keyring_fill(k, config, err) < 0) {
                (void)keyring_release(k);
                return -1;
        }
        keyring_due(k, clock_monotonic(c->config.clock));
        *out = k;
        return 0;
}

/* ---- the project -------------------------------------------------------- */

static int read_project(struct cloud_account *a, struct str body, struct error *err)
{
        json_t *root = json_tree(body, 0, JSON_VALUES_MOST, NULL), *p;
        struct str id = { 0 };
        size_t i;

        json_array_foreach(json_object_get(root, "projects"), i, p)
        {
                if (str_is(json_member(p, "name"), a->region))
                        id = json_member(p, "id");
        }
        for (size_t n = 0; n < id.n; n++)
                if (!strchr("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", id.p[n]))
                        id.n = 0;
        if (id.n > 0 && id.n <= 64)
                a->project = str_dup(id);
        json_decref(root);
        return a->project ? 0
                          : error_set(err, ERROR_NOT_FOUND,
                                      "IAM knows no project of the name %s: give the project id", a->region);
}

static void on_project(struct cloud_call *call, usec now)
{
        struct cloud_account *a = call->account;
        struct error *err = &call->request.error;

        call->request.state = REQUEST_IDLE;
        if (!request_failed(&call->request) && read_project(a, buf_view(&call->answer), err) == 0) {
                a->failures = 0;
                a->error = (struct error){ 0 };
        } else {
                a->error = *err;
                a->error.retry = true;
                a->lookup_at = now + MAX_OF(backoff_full_jitter(&a->cloud->random, BACKOFF_FIRST,
                                                                BACKOFF_MOST, a->failures, USEC_SEC / 2),
                                            MIN_OF(err->retry_after, USEC_HOUR));
                a->failures = MIN_OF(a->failures + 1, 12u);
        }
        cloud_call_resume(&a->waiting);
}

bool account_ready(struct cloud_account *a, struct cloud_call *call, usec now)
{
        struct error err;

        if (a->project || !memmem(call->path.p, call->path.n, "{project_id}", strlen("{project_id}")))
                return true;
        if (a->lookup && a->lookup->request.state == REQUEST_BUSY) {
                list_append(&a->waiting, &call->node);
                return false;
        }
        if (!a->region || now < a->lookup_at) {
                err = a->error;
                if (!a->region)
                        (void)error_set(&err, ERROR_INVALID,
                                        "give the project's id, or the region, by which IAM finds it");
                else
                        err.retry_after = a->lookup_at - now;
                cloud_call_fail(call, &err, now);
                return false;
        }
        if (!a->lookup && !(a->lookup = calloc(1, sizeof(*a->lookup)))) {
                (void)error_memory(&err);
                cloud_call_fail(call, &err, now);
                return false;
        }
        buf_reset(&a->lookup_query);
        buf_printf(&a->lookup_query, "name=%s", a->region);
        a->lookup->account = a;
        a->lookup->service = "iam";
        a->lookup->method = "GET";
        a->lookup->what = "ask IAM for the project's id";
        a->lookup->path = STR("/v3/projects");
        a->lookup->query = buf_view(&a->lookup_query);
        a->lookup->own = on_project;
        list_append(&a->waiting, &call->node);
        cloud_start(a->lookup);
        return false;
}

/* ---- life --------------------------------------------------------------- */

int cloud_account_new(struct cloud_account **out, struct cloud *c, const struct cloud_account_config *config,
                      struct error *err)
{
        struct cloud_account *a = calloc(1, sizeof(*a));
        bool failed = false;

        if (!a)
                return error_memory(err);
        a->cloud = c;
        a->lookup_query = BUF_INIT(256);
        a->region = copy(config->region, &failed);
        a->project = copy(config->project, &failed);
        a->endpoint = copy(config->endpoint, &failed);
        a->ca_file = copy(config->ca_file, &failed);
        if (failed || keyring_acquire(c, config, &a->keyring, err) < 0) {
                if (failed)
                        (void)error_memory(err);
                (void)cloud_account_free(a);
                return -1;
        }
        loop_ready(c->config.loop, &c->task); /* requests its keys */
        *out = a;
        return 0;
}

struct cloud_account *cloud_account_free(struct cloud_account *a)
{
        if (!a)
                return NULL;
        if (a->lookup)
                cloud_call_done(a->lookup);
        free(a->lookup);
        for (size_t i = 0; i < a->places_n; i++)
                release(a->cloud, a->places[i].place);
        if (a->keyring)
                (void)keyring_release(a->keyring);
        buf_done(&a->lookup_query);
        free(a->region);
        free(a->project);
        free(a->endpoint);
        free(a->ca_file);
        free(a);
        return NULL;
}
