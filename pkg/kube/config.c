#include "kube/config.h"

#include <limits.h>
#include <stdio.h>

#include "json/yaml.h"

#define ACCOUNT "/var/run/secrets/kubernetes.io/serviceaccount"

static char *read_text(const char *path, struct error *err)
{
        BUF_AT_END struct buf b = BUF_INIT((size_t)1 << 20);
        char *text;

        if (buf_read_file(&b, path, err) < 0)
                return NULL;
        text = str_dup(str_trim(buf_view(&b)));
        if (!text)
                (void)error_memory(err);
        return text;
}

static int load_in_cluster(struct kube_config *c, const char *host, const char *port, struct error *err)
{
        BUF_AT_END struct buf server = BUF_INIT(1024);

        buf_printf(&server, strchr(host, ':') ? "https://[%s]:%s" : "https://%s:%s", host,
                   port ? port : "443");
        c->server = buf_take(&server);
        c->token_file = str_dup(STR(ACCOUNT "/token"));
        c->ca_file = str_dup(STR(ACCOUNT "/ca.crt"));
        if (!c->server || !c->token_file || !c->ca_file)
                return error_memory(err);
        if (!(c->ca = read_text(c->ca_file, err)) || !(c->token = read_text(c->token_file, err)) ||
            !(c->namespace_ = read_text(ACCOUNT "/namespace", err)))
                return error_wrap(err, "service account");
        return 0;
}

/* ---- kubeconfig --------------------------------------------------------- */

struct loader {
        const char *path;
        struct error *err;
};

static const struct node *text_member(const struct node *n, const char *name)
{
        const struct node *m = n ? node_member(n, name) : NULL;

        return m && m->kind != NODE_MAP && m->kind != NODE_LIST && m->kind != NODE_NULL && m->text.n ? m
                                                                                                     : NULL;
}

/* The entry of a list of {name, KIND: {…}}. */
static const struct node *named(const struct loader *l, const struct node *root, const char *list,
                                const char *kind, struct str name)
{
        const struct node *entries = node_member(root, list);

        for (size_t i = 0; entries && entries->kind == NODE_LIST && i < entries->n; i++) {
                const struct node *n = text_member(entries->items[i], "name");

                if (n && str_equal(n->text, name))
                        return node_member(entries->items[i], kind);
        }
        (void)error_set(l->err, ERROR_INVALID, "%s: %s has no entry named \"" STR_FMT "\"", l->path, list,
                        STR_ARG(name));
        return NULL;
}

static int copy_text(const struct node *n, const char *name, char **out, struct error *err)
{
        const struct node *m = text_member(n, name);

        if (!m)
                return 0;
        *out = str_dup(m->text);
        return *out ? 0 : error_memory(err);
}

/* NAME-data holds Base64, NAME a path, relative to the kubeconfig's folder. */
static int data_or_file(const struct loader *l, const struct node *n, const char *name, char **out,
                        char **file)
{
        char data_name[64];
        const struct node *data, *path = text_member(n, name);
        BUF_AT_END struct buf text = BUF_INIT((size_t)1 << 20), full = BUF_INIT(PATH_MAX);
        const char *slash = strrchr(l->path, '/');

        (void)snprintf(data_name, sizeof(data_name), "%s-data", name);
        data = text_member(n, data_name);
        if (data) {
                if (!buf_unbase64(&text, data->text))
                        return error_set(l->err, ERROR_INVALID, "%s:%u:%u: %s is no Base64", l->path,
                                         data->line, data->column, data_name);
                *out = buf_take(&text);
                return *out ? 0 : error_memory(l->err);
        }
        if (!path)
                return 0;
        if (path->text.p[0] != '/' && slash)
                buf_printf(&full, "%.*s/", (int)(slash - l->path), l->path);
        buf_str(&full, path->text);
        if (full.failed || !(*out = read_text(full.p, l->err)))
                return error_wrap(l->err, "%s: %s", l->path, name);
        if (file)
                *file = buf_take(&full);
        return 0;
}

static int load_user(const struct loader *l, struct kube_config *c, const struct node *user)
{
        static const char *const refused[] = { "exec", "auth-provider", "username", "password", "as" };

        for (size_t i = 0; i < COUNT_OF(refused); i++)
                if (node_member(user, refused[i]))
                        return error_set(l->err, ERROR_INVALID,
                                         "%s: users: %s is not supported; use a client certificate, token or "
                                         "tokenFile",
                                         l->path, refused[i]);
        if (data_or_file(l, user, "client-certificate", &c->certificate, NULL) < 0 ||
            data_or_file(l, user, "client-key", &c->key, NULL) < 0 ||
            copy_text(user, "token", &c->token, l->err) < 0 ||
            copy_text(user, "tokenFile", &c->token_file, l->err) < 0)
                return -1;
        if (c->token_file && !(c->token || (c->token = read_text(c->token_file, l->err))))
                return -1;
        return 0;
}

static int load_cluster(const struct loader *l, struct kube_config *c, const struct node *cluster)
{
        const struct node *insecure = node_member(cluster, "insecure-skip-tls-verify");
        size_t n;

        if (copy_text(cluster, "server", &c->server, l->err) < 0 ||
            copy_text(cluster, "tls-server-name", &c->tls_server_name, l->err) < 0 ||
            data_or_file(l, cluster, "certificate-authority", &c->ca, &c->ca_file) < 0)
                return -1;
        if (!c->server)
                return error_set(l->err, ERROR_INVALID, "%s: clusters: the entry has no server", l->path);
        for (n = strlen(c->server); n && c->server[n - 1] == '/'; n--)
                c->server[n - 1] = 0;
        c->insecure = insecure && insecure->kind == NODE_BOOL && insecure->boolean;
        return 0;
}

static int load_tree(const struct loader *l, struct kube_config *c, const struct node *root)
{
        const struct node *current = text_member(root, "current-context"), *context, *cluster_name,
                          *user_name, *part;

        if (!current)
                return error_set(l->err, ERROR_INVALID, "%s: current-context is not set", l->path);
        context = named(l, root, "contexts", "context", current->text);
        if (!context)
                return -1;
        cluster_name = text_member(context, "cluster");
        user_name = text_member(context, "user");
        if (!cluster_name || !user_name)
                return error_set(l->err, ERROR_INVALID,
                                 "%s: context \"" STR_FMT "\" names no cluster or no user", l->path,
                                 STR_ARG(current->text));
        if (!(part = named(l, root, "clusters", "cluster", cluster_name->text)) ||
            load_cluster(l, c, part) < 0)
                return -1;
        if (!(part = named(l, root, "users", "user", user_name->text)) || load_user(l, c, part) < 0)
                return -1;
        return copy_text(context, "namespace", &c->namespace_, l->err);
}

static int load_file(struct kube_config *c, const char *path, struct error *err)
{
        BUF_AT_END struct buf file = BUF_INIT((size_t)1 << 20), report = BUF_INIT(65536);
        struct loader l = { path, err };
        struct documents docs = { 0 };
        struct problems problems = { 0 };
        int r = -1;

        if (buf_read_stream(&file, path, err) < 0)
                return error_wrap(err, "kubeconfig");
        if (yaml_parse(&docs, buf_view(&file), &problems) < 0 || docs.n != 1) {
                problems_format(&problems, path, &report);
                (void)error_set(err, ERROR_INVALID, "kubeconfig: " STR_FMT,
                                STR_ARG(str_trim(buf_view(&report))));
        } else
                r = load_tree(&l, c, docs.roots[0]);
        documents_done(&docs);
        problems_done(&problems);
        return r;
}

int kube_config_load(struct kube_config *c, const char *path, struct error *err)
{
        const char *variable = getenv("KUBECONFIG"), *host = getenv("KUBERNETES_SERVICE_HOST"),
                   *home = getenv("HOME");
        BUF_AT_END struct buf chosen = BUF_INIT(PATH_MAX);
        int r;

        *c = (struct kube_config){ 0 };
        if (path)
                buf_text(&chosen, path);
        else if (variable && *variable) {
                struct str list = str_of(variable);

                buf_str(&chosen, str_cut(&list, ':'));
        } else if (!host)
                buf_printf(&chosen, "%s/.kube/config", home ? home : "/root");
        if (chosen.failed)
                return error_memory(err);
        r = chosen.n || !host ? load_file(c, chosen.p, err)
                              : load_in_cluster(c, host, getenv("KUBERNETES_SERVICE_PORT"), err);
        if (r == 0 && !c->namespace_ && !(c->namespace_ = str_dup(STR("default"))))
                r = error_memory(err);
        if (r < 0)
                kube_config_done(c);
        return r;
}

void kube_config_done(struct kube_config *c)
{
        free(c->server);
        free(c->ca);
        free(c->certificate);
        free(c->key);
        free(c->token);
        free(c->token_file);
        free(c->ca_file);
        free(c->tls_server_name);
        free(c->namespace_);
        *c = (struct kube_config){ 0 };
}
