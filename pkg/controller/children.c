#include "controller/children.h"

#include <inttypes.h>
#include <stdio.h>

#include "api/worker.h"
#include "log/log.h"
#include "base/random.h"
#include "source/source.h"

enum { SECRETS_MOST = 128 };

static const struct {
        const char *kind, *api_version, *path, *suffix;
} kinds[CHILD_MAX] = {
        [CHILD_SERVICE_ACCOUNT] = ROW("ServiceAccount", "v1", "/api/v1/namespaces/%s/serviceaccounts/",
                                      WORKER_SUFFIX),
        [CHILD_ROLE] = ROW("Role", "rbac.authorization.k8s.io/v1",
                           "/apis/rbac.authorization.k8s.io/v1/namespaces/%s/roles/", WORKER_SUFFIX),
        [CHILD_ROLE_BINDING] = ROW("RoleBinding", "rbac.authorization.k8s.io/v1",
                                   "/apis/rbac.authorization.k8s.io/v1/namespaces/%s/rolebindings/",
                                   WORKER_SUFFIX),
        [CHILD_CONFIG_MAP] = ROW("ConfigMap", "v1", "/api/v1/namespaces/%s/configmaps/", WORKER_SUFFIX),
        [CHILD_CHECKPOINT] = ROW("ConfigMap", "v1", "/api/v1/namespaces/%s/configmaps/",
                                 WORKER_CHECKPOINT_SUFFIX),
        [CHILD_SERVICE] = ROW("Service", "v1", "/api/v1/namespaces/%s/services/", WORKER_SUFFIX),
        [CHILD_INGRESS] = ROW("Ingress", "networking.k8s.io/v1",
                              "/apis/networking.k8s.io/v1/namespaces/%s/ingresses/", WORKER_SUFFIX),
        [CHILD_LEASE] = ROW("Lease", "coordination.k8s.io/v1",
                            "/apis/coordination.k8s.io/v1/namespaces/%s/leases/", WORKER_SUFFIX),
        [CHILD_DEPLOYMENT] = ROW("Deployment", "apps/v1", "/apis/apps/v1/namespaces/%s/deployments/",
                                 WORKER_SUFFIX),
};

/* Its row. */
static enum child row_of(enum child c) { return child_is_lease(c) ? CHILD_LEASE : c; }

const char *child_kind(enum child c) { return kinds[row_of(c)].kind; }

/* A Service's name begins with a letter (RFC 1035), a Trigger's may begin with a digit. The other form is no
 * other Trigger's: it ends otherwise. */
void child_name(enum child c, const char *trigger, struct buf *out)
{
        if (c == CHILD_SERVICE && *trigger >= '0' && *trigger <= '9')
                buf_printf(out, "sluice-%s-svc", trigger);
        else if (child_is_lease(c))
                buf_printf(out, "%s%s-%d", trigger, kinds[CHILD_LEASE].suffix, (int)(c - CHILD_LEASE));
        else
                buf_printf(out, "%s%s", trigger, kinds[c].suffix);
}

void child_path(enum child c, const struct trigger *t, struct buf *out)
{
        struct str rest = str_of(kinds[row_of(c)].path), before = str_cut(&rest, '%');

        buf_str(out, before);
        buf_text(out, t->namespace_);
        buf_str(out, (struct str){ rest.p + 1, rest.n - 1 }); /* past the s */
        child_name(c, t->name, out);
}

/* ---- parts -------------------------------------------------------------- */

static void text(struct writer *w, const char *key, const char *value)
{
        writer_key(w, str_of(key));
        writer_string(w, str_of(value));
}

static void number(struct writer *w, const char *key, int64_t value)
{
        writer_key(w, str_of(key));
        writer_int(w, value);
}

static void number_as_text(struct writer *w, const char *key, int64_t value)
{
        char digits[24];

        (void)snprintf(digits, sizeof(digits), "%" PRId64, value);
        text(w, key, digits);
}

static void boolean(struct writer *w, const char *key, bool value)
{
        writer_key(w, str_of(key));
        writer_bool(w, value);
}

static void object(struct writer *w, const char *key)
{
        writer_key(w, str_of(key));
        writer_object(w);
}

static void array(struct writer *w, const char *key)
{
        writer_key(w, str_of(key));
        writer_array(w);
}

static void strings(struct writer *w, const char *key, const char *const *list)
{
        array(w, key);
        for (; *list; list++)
                writer_string(w, str_of(*list));
        writer_array_end(w);
}

static void own_name(struct writer *w, const char *key, enum child c, const struct trigger *t)
{
        BUF_AT_END struct buf name = BUF_INIT(1024);

        child_name(c, t->name, &name);
        writer_key(w, str_of(key));
        writer_string(w, buf_view(&name));
}

static void map_members(struct writer *w, const struct string_map *m)
{
        for (size_t i = 0; i < m->n; i++)
                text(w, m->keys[i], m->values[i]);
}

static bool is_ours(const char *label)
{
        return strncmp(label, "app.kubernetes.io/", 18) == 0 ||
               strncmp(label, API_GROUP "/", sizeof(API_GROUP)) == 0;
}

static void labels(struct writer *w, const struct trigger *t, const struct string_map *more)
{
        object(w, "labels");
        text(w, "app.kubernetes.io/name", "sluice");
        text(w, LABEL_INSTANCE, t->name);
        text(w, LABEL_COMPONENT, "worker");
        text(w, LABEL_MANAGED_BY, "sluice");
        for (size_t i = 0; more && i < more->n; i++)
                if (!is_ours(more->keys[i])) /* those select the pods */
                        text(w, more->keys[i], more->values[i]);
        writer_object_end(w);
}

static void begin(struct writer *w, enum child c, const struct trigger *t, const char *hash)
{
        const struct expose_spec *expose = c == CHILD_INGRESS ? trigger_expose(t) : NULL;

        writer_object(w);
        text(w, "apiVersion", kinds[row_of(c)].api_version);
        text(w, "kind", child_kind(c));
        object(w, "metadata");
        own_name(w, "name", c, t);
        text(w, "namespace", t->namespace_);
        labels(w, t, NULL);
        if (hash) {
                object(w, "annotations");
                text(w, ANNOTATION_HASH, hash);
                writer_object_end(w);
        } else if (child_is_lease(c)) {
                object(w, "annotations");
                number_as_text(w, WORKER_ANNOTATION_SLOTS, t->replicas);
                number_as_text(w, WORKER_ANNOTATION_GENERATION, t->generation);
                writer_object_end(w);
        } else if (expose && expose->annotations.n) {
                object(w, "annotations");
                map_members(w, &expose->annotations);
                writer_object_end(w);
        }
        array(w, "ownerReferences");
        writer_object(w);
        text(w, "apiVersion", API_GROUP_VERSION);
        text(w, "kind", "Trigger");
        text(w, "name", t->name);
        text(w, "uid", t->uid);
        boolean(w, "controller", true);
        boolean(w, "blockOwnerDeletion", true);
        writer_object_end(w);
        writer_array_end(w);
        writer_object_end(w);
}

/* ---- rights ------------------------------------------------------------- */

static void rule(struct writer *w, const char *group, const char *resource, const char *only,
                 const char *const *verbs)
{
        writer_object(w);
        strings(w, "apiGroups", (const char *const[]){ group, NULL });
        strings(w, "resources", (const char *const[]){ resource, NULL });
        if (only)
                strings(w, "resourceNames", (const char *const[]){ only, NULL });
        strings(w, "verbs", verbs);
        writer_object_end(w);
}

/* Those of its own slots, whoever of its workers holds them. */
static void lease_rule(struct writer *w, const struct trigger *t)
{
        writer_object(w);
        strings(w, "apiGroups", (const char *const[]){ "coordination.k8s.io", NULL });
        strings(w, "resources", (const char *const[]){ "leases", NULL });
        array(w, "resourceNames");
        for (int child = CHILD_LEASE; child < CHILD_DEPLOYMENT && child_needed((enum child)child, t);
             child++) {
                BUF_AT_END struct buf name = BUF_INIT(1024);

                child_name((enum child)child, t->name, &name);
                writer_string(w, buf_view(&name));
        }
        writer_array_end(w);
        strings(w, "verbs", (const char *const[]){ "get", "patch", NULL });
        writer_object_end(w);
}

/* Its Trigger comes as a file. What befalls a source is told in events, whose names nobody knows before. */
static void role(struct writer *w, const struct trigger *t)
{
        static const char *const status[] = { "patch", NULL }, *const checkpoint[] = { "get", "patch", NULL },
                                 *const told[] = { "create", NULL };
        BUF_AT_END struct buf positions = BUF_INIT(1024);

        child_name(CHILD_CHECKPOINT, t->name, &positions);
        array(w, "rules");
        rule(w, API_GROUP, "triggers/status", t->name, status);
        rule(w, "", "configmaps", positions.p, checkpoint);
        if (trigger_source(t)->warnings)
                rule(w, "events.k8s.io", "events", NULL, told);
        if (child_needed(CHILD_LEASE, t))
                lease_rule(w, t);
        writer_array_end(w);
}

static void role_binding(struct writer *w, const struct trigger *t)
{
        object(w, "roleRef");
        text(w, "apiGroup", "rbac.authorization.k8s.io");
        text(w, "kind", "Role");
        own_name(w, "name", CHILD_ROLE, t);
        writer_object_end(w);
        array(w, "subjects");
        writer_object(w);
        text(w, "kind", "ServiceAccount");
        own_name(w, "name", CHILD_SERVICE_ACCOUNT, t);
        text(w, "namespace", t->namespace_);
        writer_object_end(w);
        writer_array_end(w);
}

/* ---- configuration ------------------------------------------------------ */

static void config_map(struct writer *w, const struct trigger *t)
{
        BUF_AT_END struct buf json = BUF_INIT((size_t)1 << 20);
        struct writer inner;

        writer_init(&inner, &json);
        trigger_write(t, &inner);
        object(w, "data");
        writer_key(w, STR(WORKER_TRIGGER_FILE));
        writer_string(w, buf_view(&json));
        writer_object_end(w);
}

/* ---- the Service and the Ingress ---------------------------------------- */

bool child_needed(enum child c, const struct trigger *t)
{
        if (child_is_lease(c))
                return t->types[t->source].shared && (int64_t)(c - CHILD_LEASE) < t->replicas;
        return c == CHILD_SERVICE ? trigger_source(t)->push != NULL : c != CHILD_INGRESS || trigger_expose(t);
}

static bool serves_tls(const struct trigger *t)
{
        const struct listener_spec *listener = trigger_listener(t);

        return listener && listener->tls;
}

static bool serves_with(const struct trigger *t, const char *secret)
{
        return serves_tls(t) && strcmp(trigger_listener(t)->tls->secret_name, secret) == 0;
}

static const char *port_name(const struct trigger *t) { return serves_tls(t) ? "https" : "http"; }

void child_address(const struct trigger *t, struct buf *b)
{
        const struct expose_spec *expose = trigger_expose(t);

        if (!trigger_source(t)->push)
                return;
        buf_text(b, (expose ? expose->tls_secret_name != NULL : serves_tls(t)) ? "https://" : "http://");
        if (expose)
                buf_text(b, expose->host);
        else {
                child_name(CHILD_SERVICE, t->name, b);
                buf_printf(b, ".%s.svc", t->namespace_);
        }
        trigger_source(t)->push->path(t, b);
}

static void worker_labels(struct writer *w, const struct trigger *t)
{
        text(w, LABEL_INSTANCE, t->name);
        text(w, LABEL_COMPONENT, "worker");
        text(w, LABEL_MANAGED_BY, "sluice");
}

static void service(struct writer *w, const struct trigger *t)
{
        object(w, "spec");
        object(w, "selector");
        worker_labels(w, t);
        writer_object_end(w);
        array(w, "ports");
        writer_object(w);
        text(w, "name", port_name(t));
        if (serves_tls(t))
                text(w, "appProtocol", "https"); /* what an Ingress speaks to it */
        number(w, "port", serves_tls(t) ? 443 : 80);
        number(w, "targetPort", WORKER_LISTEN_PORT);
        writer_object_end(w);
        writer_array_end(w);
        writer_object_end(w);
}

static void ingress_path(struct writer *w, const struct trigger *t)
{
        const struct push_ops *push = trigger_source(t)->push;
        BUF_AT_END struct buf path = BUF_INIT(4096);
        bool exact = true;

        if (push->literal)
                exact = push->literal(t, &path);
        else
                push->path(t, &path);
        writer_object(w);
        writer_member_string(w, "path", buf_view(&path));
        text(w, "pathType", exact ? "Exact" : "Prefix");
        object(w, "backend");
        object(w, "service");
        own_name(w, "name", CHILD_SERVICE, t);
        object(w, "port");
        text(w, "name", port_name(t));
        writer_object_end(w);
        writer_object_end(w);
        writer_object_end(w);
        writer_object_end(w);
}

static void ingress(struct writer *w, const struct trigger *t)
{
        const struct expose_spec *expose = trigger_expose(t);

        object(w, "spec");
        if (expose->ingress_class_name)
                text(w, "ingressClassName", expose->ingress_class_name);
        if (expose->tls_secret_name) {
                array(w, "tls");
                writer_object(w);
                strings(w, "hosts", (const char *const[]){ expose->host, NULL });
                text(w, "secretName", expose->tls_secret_name);
                writer_object_end(w);
                writer_array_end(w);
        }
        array(w, "rules");
        writer_object(w);
        text(w, "host", expose->host);
        object(w, "http");
        array(w, "paths");
        ingress_path(w, t);
        writer_array_end(w);
        writer_object_end(w);
        writer_object_end(w);
        writer_array_end(w);
        writer_object_end(w);
}

/* ---- the Deployment ----------------------------------------------------- */

static void probe(struct writer *w, const char *name, const char *path, int64_t period, int64_t failures)
{
        object(w, name);
        object(w, "httpGet");
        text(w, "path", path);
        number(w, "port", WORKER_ADMIN_PORT);
        writer_object_end(w);
        number(w, "periodSeconds", period);
        number(w, "timeoutSeconds", 5);
        number(w, "failureThreshold", failures);
        writer_object_end(w);
}

static void environment(struct writer *w, const char *name, const char *path)
{
        writer_object(w);
        text(w, "name", name);
        object(w, "valueFrom");
        object(w, "fieldRef");
        text(w, "fieldPath", path);
        writer_object_end(w);
        writer_object_end(w);
        writer_object_end(w);
}

static void argument(struct writer *w, const char *name, const char *value)
{
        BUF_AT_END struct buf b = BUF_INIT(65536);

        buf_printf(&b, "--%s=%s", name, value);
        writer_string(w, buf_view(&b));
}

static void listener_arguments(struct writer *w, const struct listener_spec *listener)
{
        BUF_AT_END struct buf ca = BUF_INIT(1024), cert = BUF_INIT(1024), key = BUF_INIT(1024);

        for (size_t i = 0; i < listener->trusted_proxies.n; i++)
                argument(w, WORKER_OPTION_TRUSTED_PROXY, listener->trusted_proxies.list[i]);
        if (!listener->tls)
                return;
        buf_printf(&cert, WORKER_SECRETS "/%s/tls.crt", listener->tls->secret_name);
        buf_printf(&key, WORKER_SECRETS "/%s/tls.key", listener->tls->secret_name);
        argument(w, WORKER_OPTION_TLS_CERT, cert.p ? cert.p : "");
        argument(w, WORKER_OPTION_TLS_KEY, key.p ? key.p : "");
        if (!listener->tls->client_ca)
                return;
        buf_printf(&ca, WORKER_SECRETS "/%s/%s", listener->tls->client_ca->name,
                   listener->tls->client_ca->key);
        argument(w, WORKER_OPTION_TLS_CLIENT_CA, ca.p ? ca.p : "");
}

enum { INSTANCE_MOST = 249 }; /* what Kafka takes */

static void arguments(struct writer *w, const struct child_context *c)
{
        const struct listener_spec *listener = trigger_listener(c->trigger);

        BUF_AT_END struct buf instance = BUF_INIT(1024);

        /* A name that stays over restarts: the broker gives the partitions back at once. No other cluster on
         * the same broker may have it. */
        buf_printf(&instance, "sluice.%s.%s.%s.0", c->trigger->namespace_, c->trigger->name, c->trigger->uid);
        if (instance.n > INSTANCE_MOST) {
                buf_reset(&instance);
                buf_printf(&instance, "sluice.%s.0", c->trigger->uid);
        }
        array(w, "args");
        writer_string(w, STR(WORKER_COMMAND));
        argument(w, WORKER_OPTION_TRIGGER, WORKER_FOLDER "/" WORKER_TRIGGER_FILE);
        argument(w, WORKER_OPTION_SINK, c->sink);
        if (c->dead_letter)
                argument(w, WORKER_OPTION_DEAD_LETTER, c->dead_letter);
        argument(w, WORKER_OPTION_INSTANCE, instance.p ? instance.p : "");
        argument(w, WORKER_OPTION_ADMIN, WORKER_ADMIN_ADDRESS);
        argument(w, WORKER_OPTION_SECRETS, WORKER_SECRETS);
        if (c->ending)
                writer_string(w, STR("--" WORKER_OPTION_ENDING));
        else if (listener)
                listener_arguments(w, listener);
        argument(w, WORKER_OPTION_LOG_LEVEL, log_level_name((enum log_level)c->trigger->worker->log_level));
        writer_array_end(w);
}

static void resources(struct writer *w, const struct worker_spec *worker)
{
        writer_key(w, STR("resources"));
        writer_raw(w, worker->resources ? str_of(worker->resources)
                                        : STR("{\"requests\":{\"cpu\":\"10m\",\"memory\":\"16Mi\"},"
                                              "\"limits\":{\"memory\":\"128Mi\"}}"));
}

/* The Secrets a Trigger refers to, each once, in the order of their first mention. They are mounted whole,
 * never by subPath, so that a changed one reaches the worker without a restart. */
struct secrets {
        const char *names[SECRETS_MOST];
        size_t n;
};

static void add_secret(struct secrets *s, const char *name)
{
        for (size_t i = 0; i < s->n; i++)
                if (strcmp(s->names[i], name) == 0)
                        return;
        if (s->n < COUNT_OF(s->names))
                s->names[s->n++] = name;
}

static void note_secret(void *cookie, const struct secret_ref *ref) { add_secret(cookie, ref->name); }

static void list_secrets(const struct trigger *t, struct secrets *s)
{
        s->n = 0;
        trigger_secrets(t, note_secret, s);
        if (serves_tls(t))
                add_secret(s, trigger_listener(t)->tls->secret_name);
}

bool child_mounts_secrets(const struct trigger *t)
{
        struct secrets s;

        list_secrets(t, &s);
        return s.n > 0;
}

/* The token of the worker's ServiceAccount, by which it calls the cloud; NULL: it does not. */
static const struct cloud_credentials *cloud_token(const struct trigger *t)
{
        const struct cloud_spec *cloud = trigger_cloud(t);

        return cloud && cloud->credentials->type == CLOUD_CREDENTIALS_SERVICE_ACCOUNT ? cloud->credentials
                                                                                      : NULL;
}

static void cloud_token_mount(struct writer *w)
{
        writer_object(w);
        text(w, "name", "cloud-token");
        text(w, "mountPath", WORKER_CLOUD_FOLDER);
        boolean(w, "readOnly", true);
        writer_object_end(w);
}

static void cloud_token_volume(struct writer *w, const struct cloud_credentials *of)
{
        writer_object(w);
        text(w, "name", "cloud-token");
        object(w, "projected");
        array(w, "sources");
        writer_object(w);
        object(w, "serviceAccountToken");
        text(w, "path", WORKER_CLOUD_TOKEN_FILE);
        number(w, "expirationSeconds", 3600); /* the kubelet writes another before that */
        if (of->service_account && of->service_account->audience)
                text(w, "audience", of->service_account->audience);
        writer_object_end(w);
        writer_object_end(w);
        writer_array_end(w);
        writer_object_end(w);
        writer_object_end(w);
}

static void secret_volume_name(struct writer *w, size_t i)
{
        BUF_AT_END struct buf name = BUF_INIT(64);

        buf_printf(&name, "secret-%zu", i);
        text(w, "name", name.p ? name.p : "");
}

static void container(struct writer *w, const struct child_context *c)
{
        struct secrets secrets;

        list_secrets(c->trigger, &secrets);
        writer_object(w);
        text(w, "name", "worker");
        text(w, "image", c->image);
        if (c->pull_policy)
                text(w, "imagePullPolicy", c->pull_policy);
        arguments(w, c);
        array(w, "env");
        environment(w, WORKER_ENV_POD, "metadata.name");
        environment(w, WORKER_ENV_NAMESPACE, "metadata.namespace");
        writer_array_end(w);
        array(w, "ports");
        writer_object(w);
        text(w, "name", "admin");
        number(w, "containerPort", WORKER_ADMIN_PORT);
        writer_object_end(w);
        if (trigger_source(c->trigger)->push) {
                writer_object(w);
                text(w, "name", port_name(c->trigger));
                number(w, "containerPort", WORKER_LISTEN_PORT);
                writer_object_end(w);
        }
        writer_array_end(w);
        /* why it ended stands in the Trigger's status */
        text(w, "terminationMessagePolicy", "FallbackToLogsOnError");
        probe(w, "startupProbe", WORKER_PATH_LIVE, 1, 60);
        probe(w, "livenessProbe", WORKER_PATH_LIVE, 10, 3);
        probe(w, "readinessProbe", WORKER_PATH_READY, 5, 2);
        resources(w, c->trigger->worker);
        object(w, "securityContext");
        boolean(w, "allowPrivilegeEscalation", false);
        boolean(w, "readOnlyRootFilesystem", true);
        object(w, "capabilities");
        strings(w, "drop", (const char *const[]){ "ALL", NULL });
        writer_object_end(w);
        writer_object_end(w);
        array(w, "volumeMounts");
        writer_object(w);
        text(w, "name", "trigger");
        text(w, "mountPath", WORKER_FOLDER);
        boolean(w, "readOnly", true);
        writer_object_end(w);
        for (size_t i = 0; i < secrets.n; i++) {
                BUF_AT_END struct buf path = BUF_INIT(1024);

                writer_object(w);
                secret_volume_name(w, i);
                buf_printf(&path, WORKER_SECRETS "/%s", secrets.names[i]);
                text(w, "mountPath", path.p ? path.p : "");
                boolean(w, "readOnly", true);
                writer_object_end(w);
        }
        if (cloud_token(c->trigger))
                cloud_token_mount(w);
        writer_array_end(w);
        writer_object_end(w);
}

/* What stands between the brackets of a JSON list. */
static struct str items_of(const char *list)
{
        struct str s = str_trim(str_of(list ? list : "[]"));

        return str_trim((struct str){ s.p + 1, s.n - 2 });
}

/* The Trigger's own, and those of all workers. */
static void tolerations(struct writer *w, const char *own, const char *common)
{
        struct str mine = items_of(own), all = items_of(common);
        BUF_AT_END struct buf both = BUF_INIT((size_t)1 << 20);

        if (!own && !all.n)
                return;
        buf_printf(&both, "[" STR_FMT "%s" STR_FMT "]", STR_ARG(mine), mine.n && all.n ? "," : "",
                   STR_ARG(all));
        writer_key(w, STR("tolerations"));
        writer_raw(w, buf_view(&both));
}

static void pod_spec(struct writer *w, const struct child_context *c)
{
        const struct trigger *t = c->trigger;
        struct secrets secrets;

        list_secrets(t, &secrets);
        object(w, "spec");
        own_name(w, "serviceAccountName", CHILD_SERVICE_ACCOUNT, t);
        number(w, "terminationGracePeriodSeconds", WORKER_TERMINATION / USEC_SEC);
        boolean(w, "enableServiceLinks", false);
        object(w, "securityContext");
        boolean(w, "runAsNonRoot", true); /* the image names the user, unless the cluster picks one */
        object(w, "seccompProfile");
        text(w, "type", "RuntimeDefault");
        writer_object_end(w);
        writer_object_end(w);
        if (t->worker->node_selector.n) {
                object(w, "nodeSelector");
                map_members(w, &t->worker->node_selector);
                writer_object_end(w);
        }
        if (c->pull_secrets.n) {
                array(w, "imagePullSecrets");
                for (size_t i = 0; i < c->pull_secrets.n; i++) {
                        writer_object(w);
                        text(w, "name", c->pull_secrets.list[i]);
                        writer_object_end(w);
                }
                writer_array_end(w);
        }
        if (c->priority_class && *c->priority_class)
                text(w, "priorityClassName", c->priority_class);
        tolerations(w, t->worker->tolerations, c->tolerations);
        if (t->worker->affinity) {
                writer_key(w, STR("affinity"));
                writer_raw(w, str_of(t->worker->affinity));
        }
        array(w, "containers");
        container(w, c);
        writer_array_end(w);
        array(w, "volumes");
        writer_object(w);
        text(w, "name", "trigger");
        object(w, "configMap");
        own_name(w, "name", CHILD_CONFIG_MAP, t);
        writer_object_end(w);
        writer_object_end(w);
        for (size_t i = 0; i < secrets.n; i++) {
                writer_object(w);
                secret_volume_name(w, i);
                object(w, "secret");
                text(w, "secretName", secrets.names[i]);
                /* When a Trigger ends some went with it: what can be done without them is done. And of one
                 * that is not optional the kubelet keeps the files when it is deleted: what callers show
                 * would stay valid. */
                if (c->ending ||
                    (trigger_source(c->trigger)->push && !serves_with(c->trigger, secrets.names[i])))
                        boolean(w, "optional", true);
                writer_object_end(w);
                writer_object_end(w);
        }
        if (cloud_token(t))
                cloud_token_volume(w, cloud_token(t));
        writer_array_end(w);
        writer_object_end(w);
}

int child_replicas(const struct child_context *c)
{
        return c->ending ? 1 : c->trigger->suspend ? 0 : (int)c->trigger->replicas;
}

static void deployment(struct writer *w, const struct child_context *c, const char *hash)
{
        const struct trigger *t = c->trigger;

        object(w, "spec");
        number(w, "replicas", child_replicas(c));
        number(w, "revisionHistoryLimit", 2);
        object(w, "strategy");
        if (trigger_source(t)->push && !c->ending) { /* requests find a worker at every moment */
                text(w, "type", "RollingUpdate");
                object(w, "rollingUpdate");
                number(w, "maxUnavailable", 0);
                number(w, "maxSurge", 1);
                writer_object_end(w);
        } else /* never an old one beside a new one: a timer fires once, a partition has one reader, and all
                  agree on how many slots there are; what is taken back is not made again */
                text(w, "type", "Recreate");
        writer_object_end(w);
        object(w, "selector");
        object(w, "matchLabels");
        worker_labels(w, t);
        writer_object_end(w);
        writer_object_end(w);
        object(w, "template");
        object(w, "metadata");
        labels(w, t, &t->worker->labels);
        object(w, "annotations");
        text(w, ANNOTATION_HASH, hash);
        for (size_t i = 0; i < t->worker->annotations.n; i++)
                if (!is_ours(t->worker->annotations.keys[i]))
                        text(w, t->worker->annotations.keys[i], t->worker->annotations.values[i]);
        writer_object_end(w);
        writer_object_end(w);
        pod_spec(w, c);
        writer_object_end(w);
        writer_object_end(w);
}

void child_write(enum child child, const struct child_context *c, const char *hash, struct buf *out)
{
        struct writer w;

        writer_init(&w, out);
        begin(&w, child, c->trigger, child == CHILD_DEPLOYMENT ? hash : NULL);
        switch (child) {
        case CHILD_ROLE: role(&w, c->trigger); break;
        case CHILD_ROLE_BINDING: role_binding(&w, c->trigger); break;
        case CHILD_CONFIG_MAP: config_map(&w, c->trigger); break;
        case CHILD_SERVICE: service(&w, c->trigger); break;
        case CHILD_INGRESS: ingress(&w, c->trigger); break;
        case CHILD_DEPLOYMENT: deployment(&w, c, hash); break;
        case CHILD_SERVICE_ACCOUNT:
        case CHILD_CHECKPOINT: /* no data: what the worker wrote stays, as in Leases */
        case CHILD_LEASE:
        case CHILD_MAX: break;
        }
        writer_object_end(&w);
}

void children_hash(const struct child_context *c, struct buf *out)
{
        BUF_AT_END struct buf all = BUF_INIT((size_t)8 << 20);

        for (int child = 0; child < CHILD_MAX; child++)
                if (child_needed((enum child)child, c->trigger))
                        child_write((enum child)child, c, "", &all);
        buf_printf(out, "%016" PRIx64, hash_bytes(0x736c75696365, buf_view(&all)));
}
