#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "checkpoint/filestore.h"
#include "options.h"
#include "worker/admin.h"

static const usec GRACE = 20 * USEC_SEC;

struct worker {
        struct loop *loop;
        struct http_client *http;
        struct admin *admin;
        struct triggers triggers;
        struct trigger *trigger;
        struct pipeline *pipeline;
        struct task task;                /* observes the pipeline */
        struct file_store *files;        /* checkpoints in a folder; NULL: in the cluster */
        struct file_store_end *files_end;
        bool stopping;
        usec grace;
};

static int open_store(void *cookie, struct task *wake, struct store *out, struct error *err)
{
        struct worker *w = cookie;

        if (file_store_end_new(&w->files_end, w->files, str_of(w->trigger->uid), wake, err) < 0)
                return -1;
        *out = file_store_port(w->files_end);
        return 0;
}

static void close_store(void *cookie)
{
        struct worker *w = cookie;

        w->files_end = file_store_end_free(w->files_end);
}

static void observe(struct task *t, usec now UNUSED)
{
        struct worker *w = CONTAINER_OF(t, struct worker, task);

        if (w->stopping && pipeline_stopped(w->pipeline))
                loop_stop(w->loop);
}

static void on_signal(void *cookie, int number UNUSED)
{
        struct worker *w = cookie;

        if (w->stopping)
                return;
        w->stopping = true;
        admin_drain(w->admin);
        pipeline_stop(w->pipeline, loop_now(w->loop) + w->grace);
}

static int load(struct worker *w, const char *path)
{
        BUF_AT_END struct buf report = BUF_INIT((size_t)1 << 20);
        struct error err;

        if (triggers_load(&w->triggers, path, source_types(), source_drivers_n, &report, &err) < 0) {
                (void)fprintf(stderr, "%s", report.n ? report.p : err.text);
                if (!report.n)
                        (void)fprintf(stderr, "\n");
                return -1;
        }
        if (w->triggers.n != 1) {
                (void)fprintf(stderr, "sluice worker: %s holds %zu Triggers, a worker runs exactly one\n", path, w->triggers.n);
                return -1;
        }
        w->trigger = w->triggers.list[0];
        return 0;
}

static int start(struct worker *w, const char *sink, const char *admin, const char *checkpoint, const char *instance, struct error *err)
{
        struct pipeline_config config = { .trigger = w->trigger, .sink = sink ? sink : w->trigger->sink->uri, .instance = instance, .clock = &system_clock,
                                          .observer = &w->task, .open_store = open_store, .close_store = close_store, .store_cookie = w };

        if (!config.sink || (w->trigger->sink->ref && !sink))
                return error_set(err, ERROR_INVALID, "the Trigger's sink is a reference: --sink must give its URL");
        if (loop_new(&w->loop, err) < 0 || loop_signal(w->loop, SIGTERM, on_signal, w, err) < 0 || loop_signal(w->loop, SIGINT, on_signal, w, err) < 0 ||
            http_client_new(&w->http, w->loop, err) < 0 || admin_new(&w->admin, w->loop, admin, err) < 0 || file_store_new(&w->files, w->loop, checkpoint, err) < 0)
                return -1;
        config.loop = w->loop;
        config.http = w->http;
        if (pipeline_new(&w->pipeline, &config, err) < 0 || admin_add(w->admin, w->pipeline, err) < 0)
                return -1;
        return 0;
}

static void clean_up(struct worker *w)
{
        (void)admin_free(w->admin);
        (void)pipeline_free(w->pipeline);
        (void)file_store_free(w->files);
        (void)http_client_free(w->http);
        if (w->loop)
                loop_forget(w->loop, &w->task);
        (void)loop_free(w->loop);
        triggers_done(&w->triggers);
}

int cmd_worker(int argc, char **argv)
{
        struct worker w = { .task = { .turn = observe }, .grace = GRACE };
        const char *path = NULL, *sink = NULL, *admin = ":8081", *checkpoint = NULL, *instance = NULL;
        const struct option_spec options[] = {
                { .name = "trigger", .value = "FILE", .help = "The Trigger to run: YAML or JSON with exactly one.", .kind = OPTION_TEXT, .into = &path },
                { .name = "sink", .value = "URL", .help = "Where events go, instead of the Trigger's own sink: what the controller resolved it to.", .kind = OPTION_TEXT, .into = &sink },
                { .name = "admin", .value = "ADDRESS:PORT", .help = "Serve /livez, /readyz, /metrics and /status there. Default: :8081.", .kind = OPTION_TEXT, .into = &admin },
                { .name = "checkpoint", .value = "DIR", .help = "Keep positions in this folder instead of the cluster.", .kind = OPTION_TEXT, .into = &checkpoint },
                { .name = "instance", .value = "NAME", .help = "A name that stays the same over restarts: the broker then gives the partitions back at once.", .kind = OPTION_TEXT, .into = &instance },
                { .name = "grace", .value = "DURATION", .help = "How long what is in flight may take at SIGTERM. Default: 20s.", .kind = OPTION_DURATION, .into = &w.grace },
        };
        const struct usage usage = { .name = "worker", .text = "Delivers one Trigger's events until SIGTERM. The controller starts it; it needs no API server to deliver.",
                                     .options = options, .options_n = COUNT_OF(options) };
        struct strings rest;
        struct error err;
        int result = options_parse(&usage, argc, argv, &rest);

        free(rest.list);
        if (result < 0 && !path)
                result = usage_error("worker", "needs --trigger=FILE");
        if (result >= 0)
                return result;
        if (load(&w, path) < 0)
                result = 1;
        signals_block();
        if (result < 0 && start(&w, sink, admin, checkpoint, instance, &err) < 0) {
                (void)fprintf(stderr, "sluice worker: %s\n", err.text);
                result = 1;
        }
        if (result < 0) {
                (void)printf("admin port %u\n", admin_port(w.admin));
                (void)fflush(stdout);
                loop_run(w.loop);
                result = 0;
        } else if (w.pipeline) {
                pipeline_stop(w.pipeline, 0);
                w.stopping = true;
                loop_run(w.loop);
        }
        clean_up(&w);
        return result;
}
