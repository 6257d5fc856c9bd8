#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "api/worker.h"
#include "host/host.h"
#include "kube/config.h"
#include "kube/client.h"
#include "listen.h"
#include "log/log.h"
#include "options.h"
#include "transform/transform.h"

struct worker {
        bool ending;
        usec grace;
        const char *file, *sink, *dead_letter, *secrets, *admin, *checkpoint, *instance, *kubeconfig;
        struct listen_options listen;
        struct triggers triggers;
        struct trigger *trigger;
        struct loop *loop;
        struct kube_config kube_config;
        struct kube_client *kube;
        struct host *host;
        struct task task; /* observes the host */
        bool stopping;
};

static void observe(struct task *t, usec now UNUSED)
{
        struct worker *w = CONTAINER_OF(t, struct worker, task);

        if (w->stopping && host_ended(w->host))
                loop_stop(w->loop);
}

static void on_signal(void *cookie, int number)
{
        struct worker *w = cookie;

        if (w->stopping)
                _exit(128 + number); /* the second signal ends it at once, with the exit code of a shell */
        w->stopping = true;
        log_info("stopping: what is in flight may finish", LOG_I("graceSeconds", w->grace / USEC_SEC));
        host_stop(w->host, &(struct host_end){ .linger = WORKER_LINGER,
                                               .quiet = WORKER_QUIET,
                                               .linger_most = WORKER_LINGER_MOST,
                                               .grace = w->grace });
}

static int load(struct worker *w, const char *path)
{
        BUF_AT_END struct buf report = BUF_INIT((size_t)1 << 20);
        struct log_scope log;
        struct error err;
        int result = triggers_load(&w->triggers, path, source_types(), source_kinds_n, &report, &err);

        schema_forget_patterns();
        (void)malloc_trim(0); /* give the memory of the reading back to the system */
        if (result < 0) {
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
        log = log_scope_of(w->trigger->namespace_, w->trigger->name);
        if (w->triggers.unknown)
                log_warn_for(&log, "the Trigger has members of another version, which are ignored",
                             LOG_S("first", w->triggers.first_unknown),
                             LOG_I("members", w->triggers.unknown));
        return 0;
}

static int start(struct worker *w, struct error *err)
{
        const char *pod = getenv(WORKER_ENV_POD);
        struct gate_host_config listen = listen_config(&w->listen);
        struct host_config config = { .clock = &system_clock,
                                      .secrets = w->secrets,
                                      .admin = w->admin,
                                      .state = w->checkpoint,
                                      .pod = pod,
                                      .listen = &listen,
                                      .observer = &w->task };
        const struct host_options options = { .sink = w->sink ? w->sink : w->trigger->sink->uri,
                                              .dead_letter = w->dead_letter,
                                              .instance = w->instance,
                                              .ending = w->ending };

        listen.memory_beside = w->trigger->transform ? TRANSFORM_MEMORY : 0;
        if (!options.sink || (w->trigger->sink->ref && !w->sink))
                return error_set(err, ERROR_INVALID,
                                 "the Trigger's sink is a reference: --sink must give its URL");
        if (!w->checkpoint && (!pod || !*pod))
                return error_set(err, ERROR_INVALID,
                                 WORKER_ENV_POD
                                 " is not set: outside a cluster say where positions are kept with "
                                 "--checkpoint=DIR");
        if (loop_new(&w->loop, err) < 0 ||
            (!w->checkpoint && (kube_config_load(&w->kube_config, w->kubeconfig, err) < 0 ||
                                kube_client_new(&w->kube, w->loop, &w->kube_config, err) < 0)))
                return -1;
        config.kube = w->kube;
        if (host_new(&w->host, w->loop, &config, err) < 0 ||
            loop_signal(w->loop, SIGTERM, on_signal, w, err) < 0 ||
            loop_signal(w->loop, SIGINT, on_signal, w, err) < 0)
                return -1;
        return host_set(w->host, TAKE(w->triggers.list[0]), &options, 0, err);
}

static void say_ports(const struct worker *w)
{
        (void)printf("admin port %u\n", host_admin_port(w->host));
        if (host_listen_port(w->host))
                (void)printf("listening on port %u\n", host_listen_port(w->host));
        (void)fflush(stdout);
}

static void clean_up(struct worker *w)
{
        (void)host_free(w->host);
        (void)kube_client_free(w->kube);
        kube_config_done(&w->kube_config);
        if (w->loop)
                loop_forget(w->loop, &w->task);
        (void)loop_free(w->loop);
        triggers_done(&w->triggers);
        listen_done(&w->listen);
}

static const struct option_spec options[] = {
        OPTION(TEXT, WORKER_OPTION_TRIGGER, struct worker, file, .value = "FILE",
               .help = "The Trigger to run: YAML or JSON with exactly one."),
        OPTION(TEXT, WORKER_OPTION_SINK, struct worker, sink, .value = "URL",
               .help = "Where events go, instead of the Trigger's own sink: what the controller resolved it "
                       "to."),
        OPTION(TEXT, WORKER_OPTION_DEAD_LETTER, struct worker, dead_letter, .value = "URL",
               .help = "Where dead letters go: what the controller resolved deadLetter to."),
        OPTION(TEXT, WORKER_OPTION_SECRETS, struct worker, secrets, .value = "DIR",
               .help = "Where the Secrets are that the Trigger names: files DIR/NAME/KEY."),
        OPTION(TEXT, WORKER_OPTION_LISTEN, struct worker, listen.address, .value = "ADDRESS:PORT",
               .help = "Where a source that is reached by requests listens. Default: " WORKER_LISTEN_ADDRESS
                       "."),
        LISTEN_OPTIONS(struct worker, listen),
        OPTION(TEXT, WORKER_OPTION_ADMIN, struct worker, admin, .value = "ADDRESS:PORT",
               .help = "Serve " WORKER_PATH_LIVE ", " WORKER_PATH_READY
                       ", /metrics and /status there. Default: " WORKER_ADMIN_ADDRESS "."),
        OPTION(TEXT, "checkpoint", struct worker, checkpoint, .value = "DIR",
               .help = "Keep positions in this folder instead of the cluster."),
        OPTION(FLAG, WORKER_OPTION_ENDING, struct worker, ending,
               .help = "The Trigger is being deleted: take back what was made for it outside the cluster, "
                       "such as a subscription, and say so in its status."),
        OPTION(TEXT, WORKER_OPTION_INSTANCE, struct worker, instance, .value = "NAME",
               .help = "A name that stays the same over restarts: the broker then gives the partitions back "
                       "at once."),
        OPTION(TEXT, "kubeconfig", struct worker, kubeconfig, .value = "FILE",
               .help = "Which cluster status and positions go to. Default: $KUBECONFIG, in a pod its service "
                       "account."),
        OPTION(DURATION, "grace", struct worker, grace, .value = "DURATION",
               .help = "How long what is in flight may take at SIGTERM or SIGINT. A second signal ends it at "
                       "once, with exit code 143 or 130. Default: 20s."),
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
                            .admin = WORKER_ADMIN_ADDRESS,
                            .grace = WORKER_GRACE,
                            .listen = { .address = WORKER_LISTEN_ADDRESS } };
        struct strings rest;
        struct error err;
        int result = options_parse(&usage, argc, argv, &w, &rest);

        free(rest.list);
        if (result < 0 && !w.file)
                result = usage_error(WORKER_COMMAND, "needs --" WORKER_OPTION_TRIGGER "=FILE");
        if (result >= 0)
                return result;
        if (load(&w, w.file) < 0)
                result = 1;
        signals_block();
        if (result < 0 && start(&w, &err) < 0) {
                (void)fprintf(stderr, "sluice worker: %s\n", err.text);
                result = 1;
                if (w.host) {
                        w.stopping = true;
                        host_stop(w.host, &(struct host_end){ 0 });
                }
        } else if (result < 0)
                say_ports(&w);
        if (w.host && (result < 0 || !host_stopped(w.host))) {
                loop_ready(w.loop, &w.task);
                loop_run(w.loop);
        }
        if (w.host && !host_stopped(w.host))
                end_at_once(MAX_OF(result, 0)); /* a source that hangs can't be freed */
        clean_up(&w);
        return MAX_OF(result, 0);
}
