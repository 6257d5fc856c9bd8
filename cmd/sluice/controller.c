#include <signal.h>
#include <stdio.h>

#include "controller/controller.h"
#include "controller/strip.h"
#include "http/server/server.h"
#include "options.h"
#include "source/source.h"

struct state {
        struct loop *loop;
        struct kube_config config;
        struct kube_client *client;
        struct controller *controller;
        struct http_server *admin;
        struct strip *strip; /* instead of a controller */
        int result;
};

struct options {
        struct controller_config config;
        const char *kubeconfig, *admin;
        bool strip;         /* instead of a controller */
        const char *unless; /* strip nothing while this Deployment is there */
};

static void on_signal(void *cookie, int number UNUSED) { loop_stop(((struct state *)cookie)->loop); }

static void handle(void *cookie, struct http_call *call)
{
        struct state *s = cookie;
        const struct http_message *m = http_call_message(call);
        struct str rest = buf_view(&m->target), path = str_cut(&rest, '?'), text = STR("text/plain");

        if (str_is(path, "/livez"))
                /* the loop turns if it can answer at all */
                http_call_reply(call, 200, text, (struct str){ 0 }, STR("ok\n"));
        else if (str_is(path, "/readyz") && controller_synced(s->controller))
                http_call_reply(call, 200, text, (struct str){ 0 }, STR("ok\n"));
        else if (str_is(path, "/readyz"))
                http_call_reply(call, 503, text, (struct str){ 0 },
                                STR("the cluster has not been listed yet\n"));
        else
                http_call_reply(call, 404, text, (struct str){ 0 }, STR("known: /livez /readyz\n"));
}

static void on_remains(void *cookie UNUSED, const char *namespace_, const char *name, const char *what)
{
        (void)printf("Trigger %s/%s: %s remains outside the cluster\n", namespace_, name, what);
}

static void on_stripped(void *cookie, const struct error *why)
{
        struct state *s = cookie;

        if (why)
                (void)fprintf(stderr, "sluice controller: %s\n", why->text);
        s->result = why != NULL;
        loop_stop(s->loop);
}

static int start(struct state *s, struct options *o, struct error *err)
{
        struct controller_config *config = &o->config;
        struct http_server_config admin = { .address = o->admin,
                                            .head_max = 16384,
                                            .body_max = 1024,
                                            .max_connections = 64,
                                            .idle_timeout = 10 * USEC_SEC,
                                            .head_timeout = 5 * USEC_SEC,
                                            .body_grace = 5 * USEC_SEC,
                                            .write_timeout = 10 * USEC_SEC,
                                            .handle = handle,
                                            .cookie = s };

        if (kube_config_load(&s->config, o->kubeconfig, err) < 0 || loop_new(&s->loop, err) < 0 ||
            loop_signal(s->loop, SIGTERM, on_signal, s, err) < 0 ||
            loop_signal(s->loop, SIGINT, on_signal, s, err) < 0 ||
            kube_client_new(&s->client, s->loop, &s->config, err) < 0)
                return -1;
        config->client = s->client;
        if (o->strip) {
                const struct strip_config what = { .client = s->client,
                                                   .namespace_ = config->namespace_,
                                                   .pod = config->pod,
                                                   .unless = o->unless,
                                                   .types = config->types,
                                                   .types_n = config->types_n,
                                                   .remains = on_remains,
                                                   .done = on_stripped,
                                                   .cookie = s };

                return strip_new(&s->strip, &what, err);
        }
        if (controller_new(&s->controller, config, err) < 0)
                return -1;
        return http_server_new(&s->admin, s->loop, &admin, err);
}

static void clean_up(struct state *s)
{
        (void)http_server_free(s->admin);
        (void)controller_free(s->controller);
        (void)strip_free(s->strip);
        (void)kube_client_free(s->client);
        (void)loop_free(s->loop);
        kube_config_done(&s->config);
}

static bool is_list_of_objects(const char *text)
{
        json_t *list = json_loads(text, 0, NULL), *item;
        bool fine = json_is_array(list);
        size_t i;

        json_array_foreach(list, i, item) fine = fine && json_is_object(item);
        json_decref(list);
        return fine;
}

static const struct option_spec known[] = {
        OPTION(TEXT, "kubeconfig", struct options, kubeconfig, .value = "FILE",
               .help = "Which cluster and who we are. Default: $KUBECONFIG, in a pod its service account, "
                       "else ~/.kube/config."),
        OPTION(TEXT, "namespace", struct options, config.namespace_, .value = "NAME",
               .help = "Watch the Triggers of one namespace. Default: of all."),
        OPTION(TEXT, "worker-image", struct options, config.worker_image, .value = "IMAGE",
               .help = "The image that workers run."),
        OPTION(TEXT, "image-pull-policy", struct options, config.pull_policy, .value = "POLICY",
               .help = "Of the workers: Always, IfNotPresent or Never. Default: what Kubernetes makes of the "
                       "tag."),
        OPTION(FLAG, "strip-finalizers", struct options, strip,
               .help = "Instead of working: let go of all Triggers, so that they can be deleted when no "
                       "controller runs any more, and say what they leave outside the cluster."),
        OPTION(TEXT, "unless-deployment", struct options, unless, .value = "NAMESPACE/NAME",
               .help = "With --strip-finalizers: do nothing while this Deployment, the controller's, is "
                       "there."),
        OPTION(LIST, "worker-pull-secret", struct options, config.pull_secrets, .value = "NAME",
               .help = "A Secret for the registry of the worker's image, which must be in each namespace "
                       "that has Triggers. May be given more than once."),
        OPTION(TEXT, "worker-priority-class", struct options, config.priority_class, .value = "NAME",
               .help = "The PriorityClass of workers. Default: the cluster's."),
        OPTION(TEXT, "worker-tolerations", struct options, config.tolerations, .value = "JSON",
               .help = "Tolerations of all workers, beside those of their Triggers: a list as a pod has it."),
        OPTION(DURATION, "ending-deadline", struct options, config.ending_deadline, .value = "DURATION",
               .help = "How long a deleted Trigger stays until what it made outside the cluster, such as a "
                       "subscription, is taken back. Default: 5m."),
        OPTION(INT, "workers", struct options, config.workers, .value = "N", .min = 1, .max = 64,
               .help = "How many Triggers are reconciled at once. Default: 4."),
        OPTION(TEXT, "admin", struct options, admin, .value = "ADDRESS:PORT",
               .help = "Serve /livez and /readyz there. Default: :8081."),
};
static const struct usage usage = { .name = "controller",
                                    .text = "Watches Triggers and keeps a worker for each, until SIGTERM.",
                                    .options = known,
                                    .options_n = COUNT_OF(known) };

int cmd_controller(int argc, char **argv)
{
        struct state s = { 0 };
        struct options o = { .config = { .workers = 4,
                                         .ending_deadline = 5 * USEC_MINUTE,
                                         .types = source_types(),
                                         .types_n = source_kinds_n },
                             .admin = ":8081" };
        struct strings rest;
        struct error err;
        int result = options_parse(&usage, argc, argv, &o, &rest);

        free(rest.list);
        if (result < 0 && !o.config.worker_image && !o.strip)
                result = usage_error("controller", "needs --worker-image=IMAGE");
        if (result < 0 && o.config.tolerations && !is_list_of_objects(o.config.tolerations))
                result = usage_error("controller",
                                     "--worker-tolerations: expected a JSON list of objects, such as "
                                     "[{\"key\":\"dedicated\",\"operator\":\"Exists\"}]");
        if (result < 0 && o.unless && !strchr(o.unless, '/'))
                result = usage_error("controller", "--unless-deployment: expected NAMESPACE/NAME");
        if (result >= 0)
                return result;
        o.config.pod = getenv("POD_NAME") ? getenv("POD_NAME") : "sluice-controller";
        signals_block();
        if (start(&s, &o, &err) < 0) {
                (void)fprintf(stderr, "sluice controller: %s\n", err.text);
                result = 1;
        } else {
                loop_run(s.loop);
                result = s.result;
        }
        clean_up(&s);
        for (size_t i = 0; i < o.config.pull_secrets.n; i++)
                free(o.config.pull_secrets.list[i]);
        free(o.config.pull_secrets.list);
        return result;
}
