#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "api/worker.h"
#include "log/log.h"
#include "base/random.h"
#include "checkpoint/filestore.h"
#include "kube/checkpoint.h"
#include "kube/report.h"
#include "listen.h"
#include "options.h"
#include "worker/cloud_client.h"
#include "worker/admin.h"
#include "worker/gate.h"

static const usec REFRESH = 15 * USEC_SEC;
/* A failure that is over sooner is not worth a write to the API server. */
static const usec SETTLING = USEC_SEC;

struct worker {
        struct loop *loop;
        struct http_client *http;
        struct cloud_client *cloud;
        struct admin *admin;
        struct triggers triggers;
        struct trigger *trigger;
        struct pipeline *pipeline;
        struct gate_host *host;   /* NULL: the source is polled */
        struct task task;         /* observes the pipeline */
        struct file_store *files; /* checkpoints in a folder; NULL: in the cluster */
        struct file_store_end *files_end;
        struct kube_config kube_config;
        struct kube_client *kube;
        struct kube_checkpoint *checkpoint;
        struct kube_report *report;
        enum delivery_state delivery; /* as reported */
        /* when it began to differ from what was reported; 0: it does not */
        usec delivery_since;
        struct task ending; /* a push source stops when it has lingered */
        bool stopping;
        usec grace;
};

/* The cluster's; NULL: the file had none, and it was made of the name. */
static const char *uid_of(const struct trigger *t) { return strchr(t->uid, '/') ? NULL : t->uid; }

static int open_store(void *cookie, struct task *wake, struct store *out, struct error *err)
{
        struct worker *w = cookie;

        if (w->kube) {
                BUF_AT_END struct buf name = BUF_INIT(1024);
                struct kube_checkpoint_config config;
                char writer[17];

                buf_printf(&name, "%s" WORKER_CHECKPOINT_SUFFIX, w->trigger->name);
                if (name.failed)
                        return error_memory(err);
                (void)snprintf(writer, sizeof(writer), "%016" PRIx64, random_seed());
                config = (struct kube_checkpoint_config){ .namespace_ = w->trigger->namespace_,
                                                          .name = name.p,
                                                          .owner = uid_of(w->trigger),
                                                          .owner_kind = "Trigger",
                                                          .writer = writer };
                if (kube_checkpoint_new(&w->checkpoint, w->kube, &config, wake, err) < 0)
                        return -1;
                *out = kube_checkpoint_port(w->checkpoint);
                return 0;
        }
        if (file_store_end_new(&w->files_end, w->files, str_of(w->trigger->uid), wake, err) < 0)
                return -1;
        *out = file_store_port(w->files_end);
        return 0;
}

static void close_store(void *cookie)
{
        struct worker *w = cookie;

        w->files_end = file_store_end_free(w->files_end);
        w->checkpoint = kube_checkpoint_free(w->checkpoint);
}

/* What is told of delivery: a state that lasts. When it may be told, if not yet; USEC_NEVER otherwise. */
static usec settle_state(struct worker *w, const struct pipeline_status *s, usec now)
{
        if (s->delivery == w->delivery) {
                w->delivery_since = 0;
                return USEC_NEVER;
        }
        if (!w->delivery_since)
                w->delivery_since = now;
        if (now - w->delivery_since < SETTLING)
                return w->delivery_since + SETTLING;
        w->delivery = s->delivery;
        w->delivery_since = 0;
        return USEC_NEVER;
}

static void tell(struct worker *w, const struct pipeline_status *s)
{
        char source[256], delivery[256], text[256], name[32], lost[sizeof(s->lost_text)];
        struct worker_status status = { .observed_generation = w->trigger->generation,
                                        .last_event_time = s->last_event,
                                        .last_delivery_time = s->last_delivery,
                                        .lag = s->lag,
                                        .lost = pipeline_lost(s) };

        (void)snprintf(source, sizeof(source), "%s", source_state_name(s->source));
        (void)snprintf(text, sizeof(text), "%s", s->source_text);
        (void)snprintf(name, sizeof(name), "%s", pipeline_delivery_name(w->delivery));
        (void)snprintf(delivery, sizeof(delivery), "%s", s->delivery_text);
        status.source_state = source;
        status.source_message = *text ? text : NULL;
        status.delivery_state = name;
        status.delivery_message = w->delivery == DELIVERY_IDLE || !*delivery ? NULL : delivery;
        (void)snprintf(lost, sizeof(lost), "%s", s->lost_text);
        status.lost_message = *lost ? lost : NULL;
        kube_report_set(w->report, &status);
}

static void observe(struct task *t, usec now)
{
        struct worker *w = CONTAINER_OF(t, struct worker, task);
        struct pipeline_status s;
        usec next;

        if (w->stopping && pipeline_stopped(w->pipeline)) {
                loop_stop(w->loop);
                return;
        }
        if (!w->report)
                return;
        pipeline_status(w->pipeline, &s);
        next = settle_state(w, &s, now);
        tell(w, &s);
        loop_arm(w->loop, t, MIN_OF(next, now + REFRESH));
}

static void on_signal(void *cookie, int number UNUSED)
{
        struct worker *w = cookie;

        if (w->stopping)
                return;
        w->stopping = true;
        admin_drain(w->admin);
        if (w->host) { /* for a while others still know this pod's address */
                /* then who comes hears 503, until it has stopped */
                gate_host_drain(w->host, WORKER_LINGER + w->grace);
                loop_arm(w->loop, &w->ending, loop_now(w->loop) + WORKER_LINGER);
        } else
                pipeline_stop(w->pipeline, loop_now(w->loop) + w->grace);
}

static void on_ending(struct task *t, usec now)
{
        struct worker *w = CONTAINER_OF(t, struct worker, ending);

        pipeline_stop(w->pipeline, now + w->grace);
}

static int load(struct worker *w, const char *path)
{
        BUF_AT_END struct buf report = BUF_INIT((size_t)1 << 20);
        struct error err;

        if (triggers_load(&w->triggers, path, source_types(), source_kinds_n, &report, &err) < 0) {
                (void)fprintf(stderr, "%s", report.n ? report.p : err.text);
                if (!report.n)
                        (void)fprintf(stderr, "\n");
                return -1;
        }
        if (w->triggers.n != 1) {
                (void)fprintf(stderr, "sluice worker: %s holds %zu Triggers, a worker runs exactly one\n",
                              path, w->triggers.n);
                return -1;
        }
        w->trigger = w->triggers.list[0];
        if (w->triggers.unknown)
                log_warn("the Trigger has members of another version, which are ignored",
                         LOG_S("namespace", w->trigger->namespace_), LOG_S("trigger", w->trigger->name),
                         LOG_S("first", w->triggers.first_unknown), LOG_I("members", w->triggers.unknown));
        return 0;
}

/* In a cluster: who we are, and where status and positions go. */
static int join_cluster(struct worker *w, const char *kubeconfig, struct error *err)
{
        BUF_AT_END struct buf manager = BUF_INIT(4096);
        const char *pod = getenv(WORKER_ENV_POD);

        if (!pod || !*pod)
                return error_set(err, ERROR_INVALID,
                                 WORKER_ENV_POD
                                 " is not set: outside a cluster say where positions are kept with "
                                 "--checkpoint=DIR");
        if (kube_config_load(&w->kube_config, kubeconfig, err) < 0 ||
            kube_client_new(&w->kube, w->loop, &w->kube_config, err) < 0)
                return -1;
        buf_printf(&manager, WORKER_FIELD_MANAGER "%s", pod);
        if (manager.failed)
                return error_memory(err);
        return kube_report_new(&w->report, w->kube,
                               &(struct kube_report_config){ .api_version = API_GROUP_VERSION,
                                                             .kind = "Trigger",
                                                             .resource = "triggers",
                                                             .namespace_ = w->trigger->namespace_,
                                                             .name = w->trigger->name,
                                                             .uid = uid_of(w->trigger),
                                                             .pod = pod,
                                                             .manager = manager.p },
                               err);
}

struct places {
        bool ending;
        usec grace;
        const char *trigger, *sink, *dead_letter, *secrets, *admin, *checkpoint, *instance, *kubeconfig;
        struct listen_options listen;
};

static int start(struct worker *w, const struct places *p, struct error *err)
{
        struct gate_host_config host = listen_config(&p->listen);
        struct pipeline_config config = { .trigger = w->trigger,
                                          .sink = p->sink ? p->sink : w->trigger->sink->uri,
                                          .instance = p->instance,
                                          .clock = &system_clock,
                                          .dead_letter = p->dead_letter,
                                          .secrets = p->secrets,
                                          .ending = p->ending,
                                          .observer = &w->task,
                                          .open_store = open_store,
                                          .close_store = close_store,
                                          .store_cookie = w };

        if (!config.sink || (w->trigger->sink->ref && !p->sink))
                return error_set(err, ERROR_INVALID,
                                 "the Trigger's sink is a reference: --sink must give its URL");
        if (loop_new(&w->loop, err) < 0 || loop_signal(w->loop, SIGTERM, on_signal, w, err) < 0 ||
            loop_signal(w->loop, SIGINT, on_signal, w, err) < 0 ||
            http_client_new(&w->http, w->loop, err) < 0 ||
            cloud_client_new(&w->cloud, w->loop, w->http, &system_clock, err) < 0 ||
            admin_new(&w->admin, w->loop, p->admin, err) < 0 ||
            (p->checkpoint ? file_store_new(&w->files, w->loop, p->checkpoint, err)
                           : join_cluster(w, p->kubeconfig, err)) < 0)
                return -1;
        host.http = w->http;
        if (trigger_source(w->trigger)->push && gate_host_new(&w->host, w->loop, &host, err) < 0)
                return -1;
        config.loop = w->loop;
        config.http = w->http;
        config.cloud = cloud_client_cloud(w->cloud);
        config.host = w->host;
        if (pipeline_new(&w->pipeline, &config, err) < 0 || admin_add(w->admin, w->pipeline, err) < 0)
                return -1;
        return 0;
}

static void clean_up(struct worker *w)
{
        (void)admin_free(w->admin);
        (void)pipeline_free(w->pipeline);
        (void)gate_host_free(w->host);
        (void)kube_report_free(w->report);
        (void)kube_client_free(w->kube);
        kube_config_done(&w->kube_config);
        (void)file_store_free(w->files);
        (void)cloud_client_free(w->cloud);
        (void)http_client_free(w->http);
        if (w->loop)
                loop_forget(w->loop, &w->task), loop_forget(w->loop, &w->ending);
        (void)loop_free(w->loop);
        triggers_done(&w->triggers);
}

static const struct option_spec options[] = {
        OPTION(TEXT, WORKER_OPTION_TRIGGER, struct places, trigger, .value = "FILE",
               .help = "The Trigger to run: YAML or JSON with exactly one."),
        OPTION(TEXT, WORKER_OPTION_SINK, struct places, sink, .value = "URL",
               .help = "Where events go, instead of the Trigger's own sink: what the controller resolved it "
                       "to."),
        OPTION(TEXT, WORKER_OPTION_DEAD_LETTER, struct places, dead_letter, .value = "URL",
               .help = "Where dead letters go: what the controller resolved deadLetter to."),
        OPTION(TEXT, WORKER_OPTION_SECRETS, struct places, secrets, .value = "DIR",
               .help = "Where the Secrets are that the Trigger names: files DIR/NAME/KEY."),
        OPTION(TEXT, WORKER_OPTION_LISTEN, struct places, listen.address, .value = "ADDRESS:PORT",
               .help = "Where a source that is reached by requests listens. Default: " WORKER_LISTEN_ADDRESS
                       "."),
        LISTEN_OPTIONS(struct places, listen),
        OPTION(TEXT, WORKER_OPTION_ADMIN, struct places, admin, .value = "ADDRESS:PORT",
               .help = "Serve " WORKER_PATH_LIVE ", " WORKER_PATH_READY
                       ", /metrics and /status there. Default: " WORKER_ADMIN_ADDRESS "."),
        OPTION(TEXT, "checkpoint", struct places, checkpoint, .value = "DIR",
               .help = "Keep positions in this folder instead of the cluster."),
        OPTION(FLAG, WORKER_OPTION_ENDING, struct places, ending,
               .help = "The Trigger is being deleted: take back what was made for it outside the cluster, "
                       "such as a subscription, and say so in its status."),
        OPTION(TEXT, WORKER_OPTION_INSTANCE, struct places, instance, .value = "NAME",
               .help = "A name that stays the same over restarts: the broker then gives the partitions back "
                       "at once."),
        OPTION(TEXT, "kubeconfig", struct places, kubeconfig, .value = "FILE",
               .help = "Which cluster status and positions go to. Default: $KUBECONFIG, in a pod its service "
                       "account."),
        OPTION(DURATION, "grace", struct places, grace, .value = "DURATION",
               .help = "How long what is in flight may take at SIGTERM. Default: 20s."),
};
static const struct usage usage = { .name = WORKER_COMMAND,
                                    .text = "Delivers one Trigger's events until SIGTERM. The controller "
                                            "starts it; it needs no API server to deliver.",
                                    .options = options,
                                    .options_n = COUNT_OF(options) };

int cmd_worker(int argc, char **argv)
{
        struct worker w = { .triggers.pass_unknown = true,
                            .task = { .turn = observe },
                            .ending = { .turn = on_ending } };
        struct places p = { .admin = WORKER_ADMIN_ADDRESS,
                            .grace = WORKER_GRACE,
                            .listen = { .address = WORKER_LISTEN_ADDRESS } };
        struct strings rest;
        struct error err;
        int result = options_parse(&usage, argc, argv, &p, &rest);

        free(rest.list);
        if (result < 0 && !p.trigger)
                result = usage_error(WORKER_COMMAND, "needs --" WORKER_OPTION_TRIGGER "=FILE");
        if (result >= 0)
                return result;
        w.grace = p.grace;
        if (load(&w, p.trigger) < 0)
                result = 1;
        signals_block();
        if (result < 0 && start(&w, &p, &err) < 0) {
                (void)fprintf(stderr, "sluice worker: %s\n", err.text);
                result = 1;
        }
        if (result < 0) {
                (void)printf("admin port %u\n", admin_port(w.admin));
                if (w.host)
                        (void)printf("listening on port %u\n", gate_host_port(w.host));
                (void)fflush(stdout);
                loop_ready(w.loop, &w.task);
                loop_run(w.loop);
                result = 0;
        } else if (w.pipeline) {
                pipeline_stop(w.pipeline, 0);
                w.stopping = true;
                loop_run(w.loop);
        }
        clean_up(&w);
        listen_done(&p.listen);
        return result;
}
