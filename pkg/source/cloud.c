#include "source/cloud.h"

#include "api/worker.h"
#include "log/log.h"
#include "secret/secret.h"

enum { KEY_ACCESS, KEY_SECRET, KEY_TOKEN, KEYS };

struct source_account {
        struct source_account_config config;
        struct cloud_account *account;
        struct secret keys[KEYS]; /* of credentials in a Secret */
        bool keys_changed;        /* not told yet */
        struct port_call *idle;   /* of calls that ended, for the next ones */
};

/* ---- keys --------------------------------------------------------------- */

static void open_secrets(struct source_account *a)
{
        const struct cloud_credentials *from = a->config.cloud->credentials;
        const struct secret_ref *refs[KEYS] = { from->access_key, from->secret_key, from->security_token };
        struct error later; /* what can't be had is said when it is needed */

        for (size_t i = 0; i < KEYS; i++)
                if (refs[i] && secret_open(&a->keys[i], a->config.services->loop, a->config.services->secrets,
                                           refs[i], a->config.services->wake, &later) < 0)
                        a->keys[i].ref = refs[i];
}

static void close_secrets(struct source_account *a)
{
        for (size_t i = 0; i < KEYS; i++)
                secret_done(&a->keys[i]);
}

static int read_secret(struct source_account *a, size_t key, const char *what, struct buf *out,
                       struct error *err)
{
        struct secret *s = &a->keys[key];

        if (!s->ref)
                return 0;
        a->keys_changed |= secret_look(s);
        if (secret_value(s).p)
                buf_str(out, secret_value(s));
        else if (secret_read(a->config.services->secrets, s->ref, out, err) < 0)
                return error_wrap(err, "cloud.credentials.%s", what);
        return 0;
}

static int read_secrets(void *cookie, struct buf *access, struct buf *secret, struct buf *token,
                        struct error *err)
{
        struct source_account *a = cookie;

        return read_secret(a, KEY_ACCESS, "accessKeySecretRef", access, err) < 0 ||
                               read_secret(a, KEY_SECRET, "secretKeySecretRef", secret, err) < 0 ||
                               read_secret(a, KEY_TOKEN, "securityTokenSecretRef", token, err) < 0
                       ? -1
                       : 0;
}

static const char *variable(const char *name)
{
        const char *value = getenv(name);

        return value && *value ? value : NULL;
}

static int read_environment(void *cookie UNUSED, struct buf *access, struct buf *secret, struct buf *token,
                            struct error *err)
{
        const char *ak = variable("HUAWEICLOUD_SDK_AK"), *sk = variable("HUAWEICLOUD_SDK_SK"),
                   *security_token = variable("HUAWEICLOUD_SDK_SECURITY_TOKEN");

        if (!ak || !sk)
                return error_set(err, ERROR_INVALID,
                                 "HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK must be set in the environment");
        buf_text(access, ak);
        buf_text(secret, sk);
        if (security_token)
                buf_text(token, security_token);
        return 0;
}

/* The kubelet writes these files anew. */
static int read_id_token(void *cookie UNUSED, struct buf *token, struct buf *none UNUSED,
                         struct buf *nothing UNUSED, struct error *err)
{
        const char *text = variable("HUAWEICLOUD_OIDC_ID_TOKEN"),
                   *file = variable("HUAWEICLOUD_OIDC_TOKEN_FILE");

        if (text) {
                buf_text(token, text);
                return 0;
        }
        return buf_read_file(token, file ? file : WORKER_CLOUD_FOLDER "/" WORKER_CLOUD_TOKEN_FILE, err);
}

static int read_pod_token(void *cookie UNUSED, struct buf *token, struct buf *none UNUSED,
                          struct buf *nothing UNUSED, struct error *err)
{
        const char *file = variable("HC_CONTAINER_AUTHORIZATION_TOKEN_FILE");

        if (!file)
                return error_set(err, ERROR_INVALID,
                                 "HC_CONTAINER_AUTHORIZATION_TOKEN_FILE must be set in the environment");
        return buf_read_file(token, file, err);
}

/* ---- as whom ------------------------------------------------------------ */

static int of_service_account(const struct cloud_credentials *from, struct credentials_config *c,
                              struct error *err)
{
        const struct cloud_service_account *sa = from->service_account;

        c->kind = CREDENTIALS_OIDC;
        c->read = read_id_token;
        c->endpoint = variable("HUAWEICLOUD_SDK_STS_ENDPOINT");
        c->provider_urn = sa ? sa->provider_urn : variable("HUAWEICLOUD_OIDC_PROVIDER_URN");
        c->agency_urn = sa ? sa->agency_urn : variable("HUAWEICLOUD_OIDC_AGENCY_URN");
        c->session = variable("HUAWEICLOUD_OIDC_SESSION_NAME");
        c->policy = variable("HUAWEICLOUD_OIDC_POLICY");
        c->policy_ids = variable("HUAWEICLOUD_OIDC_POLICY_IDS");
        return c->provider_urn && c->agency_urn
                       ? 0
                       : error_set(err, ERROR_INVALID,
                                   "cloud.credentials.serviceAccount: give providerURN and agencyURN, or set "
                                   "HUAWEICLOUD_OIDC_PROVIDER_URN and HUAWEICLOUD_OIDC_AGENCY_URN in the "
                                   "environment");
}

static int of_pod(struct credentials_config *c, struct error *err)
{
        c->kind = CREDENTIALS_POD;
        c->read = read_pod_token;
        c->endpoint = variable("HC_CONTAINER_CREDENTIALS_FULL_URI");
        return c->endpoint ? 0
                           : error_set(err, ERROR_INVALID,
                                       "cloud.credentials.type PodIdentity: "
                                       "HC_CONTAINER_CREDENTIALS_FULL_URI is not set in the environment: is "
                                       "the pod associated with an agency?");
}

/* What is the process's own its accounts share: the machine's keys, the pod's. */
static int whom(struct source_account *a, struct cloud_account_config *config, struct error *err)
{
        const struct cloud_credentials *from = a->config.cloud ? a->config.cloud->credentials : NULL;
        struct credentials_config *c = &config->credentials;
        enum cloud_credentials_type type = from ? (enum cloud_credentials_type)from->type
                                                : CLOUD_CREDENTIALS_ENVIRONMENT;

        switch (type) {
        case CLOUD_CREDENTIALS_METADATA:
                c->kind = CREDENTIALS_METADATA;
                c->endpoint = variable("HUAWEICLOUD_SDK_METADATA_ENDPOINT");
                config->shared = "metadata";
                return 0;
        case CLOUD_CREDENTIALS_SERVICE_ACCOUNT:
                if (!from->service_account)
                        config->shared = "service account";
                return of_service_account(from, c, err);
        case CLOUD_CREDENTIALS_POD_IDENTITY: config->shared = "pod identity"; return of_pod(c, err);
        case CLOUD_CREDENTIALS_SECRET:
                c->read = read_secrets;
                open_secrets(a);
                break;
        case CLOUD_CREDENTIALS_ENVIRONMENT: c->read = read_environment; break;
        }
        c->kind = CREDENTIALS_FIXED;
        c->cookie = a;
        if (from && from->agency) {
                c->kind = CREDENTIALS_AGENCY;
                c->endpoint = variable("HUAWEICLOUD_SDK_IAM_ENDPOINT");
                c->agency = from->agency->name;
                c->domain = from->agency->domain;
        }
        return 0;
}

/* ---- a poller's calls --------------------------------------------------- */

enum { ROOM_KEPT = 64 << 10 };
struct port_call {
        struct port_call *next;
        struct source_account *account;
        struct cloud_call call;
        struct task task;
        struct poller_call *of;
};

static void retire(struct port_call *e)
{
        e->of->port = NULL;
        e->of = NULL;
        e->next = e->account->idle;
        e->account->idle = e;
}

static void on_end(struct task *t, usec now UNUSED)
{
        struct port_call *e = CONTAINER_OF(t, struct port_call, task);
        struct poller_call *c = e->of;
        struct buf before = c->answer;

        if (!request_take(&e->call.request))
                return;
        c->refusal = e->call.refusal;
        c->error = e->call.request.error;
        /* What was answered and can't be used was not answered. */
        c->status = request_failed(&e->call.request) && c->refusal.verdict == CLOUD_DONE ? 0 : e->call.status;
        c->answer = e->call.answer;
        e->call.answer = before;
        if (before.cap > ROOM_KEPT) /* a large answer was rare enough to ask for its room again */
                buf_done(&e->call.answer);
        retire(e);
        poller_call_ended(c);
}

static struct port_call *port_call_new(struct source_account *a)
{
        struct port_call *e = a->idle;

        if (e)
                a->idle = e->next;
        else
                e = calloc(1, sizeof(*e));
        if (e) {
                e->account = a;
                e->task.turn = on_end;
        }
        return e;
}

static void start(void *cookie, struct poller_call *c)
{
        struct source_account *a = cookie;
        struct port_call *e = port_call_new(a);
        struct cloud_request *q = &c->request;

        if (!e) {
                c->status = 0;
                (void)error_memory(&c->error);
                poller_call_ended(c);
                return;
        }
        e->of = c;
        c->port = e;
        e->call.request.wake = &e->task;
        e->call.account = a->account;
        e->call.service = c->service;
        e->call.method = q->method ? q->method : "GET";
        e->call.path = buf_view(&q->path);
        e->call.query = buf_view(&q->query);
        e->call.body = buf_view(&q->body);
        e->call.what = q->what.n ? q->what.p : NULL;
        e->call.timeout = q->timeout;
        cloud_start(&e->call);
}

static void cancel(void *cookie UNUSED, struct poller_call *c)
{
        struct port_call *e = c->port;

        if (!e)
                return;
        cloud_cancel(&e->call);
        loop_forget(e->account->config.services->loop, &e->task);
        retire(e);
}

struct poller_port source_account_port(struct source_account *a)
{
        return (struct poller_port){ .start = start, .cancel = cancel, .cookie = a };
}

const struct warning source_account_warnings[] = { SOURCE_ACCOUNT_WARNING, WARNINGS_END };

/* ---- life --------------------------------------------------------------- */

static void say_doubt(const struct source_account *a)
{
        BUF_AT_END struct buf doubt = BUF_INIT(1024);

        cloud_account_doubt(a->account, a->config.service, &doubt);
        if (doubt.n && !doubt.failed)
                source_warn(a->config.services, SOURCE_REGION_UNKNOWN, 0, "%s", doubt.p);
}

int source_account_new(struct source_account **out, const struct source_account_config *config,
                       struct error *err)
{
        struct source_account *a = calloc(1, sizeof(*a));
        const struct cloud_spec *cloud = config->cloud;
        BUF_AT_END struct buf region = BUF_INIT(1024), project = BUF_INIT(1024);
        struct cloud_account_config c = { .endpoint = cloud ? cloud->endpoint : NULL,
                                          .ca_file = config->ca_file };

        if (!a)
                return error_memory(err);
        a->config = *config;
        buf_str(&region, cloud && cloud->region ? str_of(cloud->region) : config->region);
        buf_str(&project, cloud && cloud->project_id ? str_of(cloud->project_id) : config->project);
        c.region = region.n ? region.p : variable("HUAWEICLOUD_SDK_REGION");
        c.project = project.n ? project.p : variable("HUAWEICLOUD_SDK_PROJECT_ID");
        if (!config->services->cloud)
                (void)error_set(err, ERROR_INVALID, "the cloud is not called from here");
        else if (whom(a, &c, err) == 0 &&
                 cloud_account_new(&a->account, config->services->cloud, &c, err) == 0) {
                say_doubt(a);
                *out = a;
                return 0;
        }
        close_secrets(a);
        free(a);
        return -1;
}

struct source_account *source_account_free(struct source_account *a)
{
        if (!a)
                return NULL;
        for (struct port_call *e; (e = a->idle);) {
                a->idle = e->next;
                cloud_call_done(&e->call);
                loop_forget(a->config.services->loop, &e->task);
                free(e);
        }
        (void)cloud_account_free(a->account);
        close_secrets(a);
        free(a);
        return NULL;
}

struct cloud_account *source_account(struct source_account *a) { return a->account; }

bool source_account_keys_changed(struct source_account *a)
{
        bool changed = a->keys_changed;

        for (size_t i = 0; i < KEYS; i++)
                changed |= a->keys[i].entry && secret_changed(&a->keys[i]);
        a->keys_changed = false;
        return changed;
}
