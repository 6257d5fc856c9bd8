#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "log/log.h"
#include "checkpoint/filestore.h"
#include "listen.h"
#include "options.h"
#include "table.h"
#include "worker/cloud_client.h"
#include "worker/admin.h"
#include "worker/gate.h"

static const usec GRACE = 20 * USEC_SEC, REFRESH = 500 * USEC_MSEC;

struct job { /* one Trigger that runs */
        struct trigger *trigger;
        struct pipeline *pipeline;
        struct file_store_end *end;
        struct run *run;
        uint64_t seen; /* changes that were printed */
        bool shown;
        char *failure; /* why it could not be started; the others run */
};

struct run {
        struct loop *loop;
        struct http_client *http;
        struct cloud_client *cloud;
        struct file_store *store;
        struct admin *admin;
        struct gate_host *host; /* NULL: no Trigger is reached by requests */
        struct task task;       /* observes the pipelines */
        struct triggers triggers;
        struct job *jobs;
        size_t n;
        bool terminal, stopping, stopped;
        usec grace, give_up_at;
        bool failed; /* a Trigger could not be started */
        usec next_draw;
        int64_t most; /* events to deliver before it ends; 0: no end */
        struct table_row *rows;
        const char *secrets; /* a folder; NULL: none */
        struct listen_options listen;
        const char *port_file;
        struct strings files; /* with Triggers */
        const char *state, *admin_address;
};

static int open_store(void *cookie, struct task *wake, struct store *out, struct error *err)
{
        struct job *j = cookie;

        if (file_store_end_new(&j->end, j->run->store, str_of(j->trigger->uid), wake, err) < 0)
                return -1;
        *out = file_store_port(j->end);
        return 0;
}

static void close_store(void *cookie)
{
        struct job *j = cookie;

        j->end = file_store_end_free(j->end);
}

static int start_job(struct run *r, struct job *j, struct trigger *t, struct error *err)
{
        struct pipeline_config config = { .loop = r->loop,
                                          .http = r->http,
                                          .cloud = cloud_client_cloud(r->cloud),
                                          .clock = &system_clock,
                                          .trigger = t,
                                          .sink = t->sink->uri,
                                          .secrets = r->secrets,
                                          .host = r->host,
                                          .observer = &r->task,
                                          .open_store = open_store,
                                          .close_store = close_store,
                                          .store_cookie = j };

        j->run = r;
        j->trigger = t;
        if (t->delivery->dead_letter && t->delivery->dead_letter->ref)
                return error_set(err, ERROR_INVALID,
                                 "%s/%s: spec.delivery.deadLetter.ref names a Service of a cluster; without "
                                 "one write uri",
                                 t->namespace_, t->name);
        if (t->sink->ref)
                return error_set(
                        err, ERROR_INVALID,
                        "%s/%s: spec.sink.ref names a Service of a cluster; without one write spec.sink.uri",
                        t->namespace_, t->name);
        if (trigger_listener(t) && trigger_listener(t)->tls && !r->listen.cert)
                return error_set(err, ERROR_INVALID,
                                 "%s/%s: spec.source.%s.listener.tls names a Secret of a cluster; without "
                                 "one say --tls-cert=FILE and --tls-key=FILE",
                                 t->namespace_, t->name, trigger_source(t)->name);
        if (t->suspend)
                return 0;
        return pipeline_new(&j->pipeline, &config, err) < 0 ||
                               (r->admin && admin_add(r->admin, j->pipeline, err) < 0)
                       ? -1
                       : 0;
}

static void stop(struct run *r)
{
        if (r->stopping)
                return;
        r->stopping = true;
        r->give_up_at = loop_now(r->loop) + r->grace;
        log_info("stopping: what is in flight may finish", LOG_I("graceSeconds", r->grace / USEC_SEC));
        if (r->admin)
                admin_drain(r->admin);
        if (r->host)
                gate_host_drain(r->host, r->grace); /* who comes meanwhile hears 503 */
        for (size_t i = 0; i < r->n; i++)
                if (r->jobs[i].pipeline)
                        pipeline_stop(r->jobs[i].pipeline, r->give_up_at);
        loop_ready(r->loop, &r->task);
}

static void on_signal(void *cookie, int number UNUSED)
{
        struct run *r = cookie;

        if (r->stopping)
                _exit(130); /* the second time: at once */
        stop(r);
}

static void job_status(const struct job *j, struct pipeline_status *out)
{
        if (j->pipeline) {
                pipeline_status(j->pipeline, out);
                return;
        }
        *out = (struct pipeline_status){ .source = SOURCE_FAILED, .lag = -1 };
        (void)snprintf(out->source_text, sizeof(out->source_text), "%s", j->failure);
}

static void show(struct run *r, usec now)
{
        bool due = now >= r->next_draw;
        size_t n = 0;

        for (size_t i = 0; i < r->n; i++) {
                struct job *j = &r->jobs[i];
                struct table_row *row = &r->rows[n];

                if (!j->pipeline && !j->failure)
                        continue;
                row->trigger = j->trigger;
                job_status(j, &row->status);
                if (!r->terminal && (row->status.changes != j->seen || !j->shown))
                        table_line(row, now);
                j->shown = true;
                j->seen = row->status.changes;
                n++;
        }
        if (r->terminal && due)
                table_draw(r->rows, n, now);
        if (due)
                r->next_draw = r->terminal ? now + REFRESH : USEC_NEVER;
}

static void observe(struct task *t, usec now)
{
        struct run *r = CONTAINER_OF(t, struct run, task);
        uint64_t delivered = 0;
        bool all_stopped = true;

        for (size_t i = 0; i < r->n; i++) {
                struct pipeline_status s;

                if (!r->jobs[i].pipeline)
                        continue;
                pipeline_status(r->jobs[i].pipeline, &s);
                delivered += s.stats.accepted;
                all_stopped = all_stopped && pipeline_stopped(r->jobs[i].pipeline);
        }
        if (!r->stopping || !all_stopped)
                show(r, now);
        if (r->most && delivered >= (uint64_t)r->most)
                stop(r);
        if (r->stopping && all_stopped && !r->stopped) {
                r->stopped = true;
                if (now >= r->give_up_at)
                        log_warn("requests in flight were given up: give --grace more time for a function "
                                 "that takes long");
                loop_stop(r->loop);
                return;
        }
        /* With an end in sight it looks more often than it prints. */
        loop_arm(r->loop, t, r->most ? MIN_OF(r->next_draw, now + 50 * USEC_MSEC) : r->next_draw);
}

static int load(struct run *r)
{
        struct error err;

        for (size_t i = 0; i < r->files.n; i++) {
                BUF_AT_END struct buf report = BUF_INIT((size_t)16 << 20);
                int result = triggers_load(&r->triggers, r->files.list[i], source_types(), source_kinds_n,
                                           &report, &err);

                if (report.n)
                        (void)fwrite(report.p, 1, report.n, stderr);
                if (result < 0) {
                        if (!report.n)
                                (void)fprintf(stderr, "sluice run: %s\n", err.text);
                        return 1;
                }
        }
        if (r->triggers.n == 0) {
                (void)fprintf(stderr, "sluice run: no Trigger was found in the files given\n");
                return 1;
        }
        return 0;
}

static int default_state(struct buf *b)
{
        const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");

        if (state && *state)
                buf_printf(b, "%s/sluice", state);
        else
                buf_printf(b, "%s/.local/state/sluice", home && *home ? home : "/var/lib");
        return b->failed ? -1 : 0;
}

/* A listener only where a Trigger needs one. */
static int open_host(struct run *r, struct error *err)
{
        struct gate_host_config host = listen_config(&r->listen);
        host.http = r->http;
        for (size_t i = 0; i < r->triggers.n; i++)
                if (trigger_source(r->triggers.list[i])->push && !r->triggers.list[i]->suspend) {
                        if (gate_host_new(&r->host, r->loop, &host, err) < 0)
                                return -1;
                        if (r->port_file)
                                return write_port(r->port_file, gate_host_port(r->host), err);
                        (void)printf("listening on port %u\n", gate_host_port(r->host));
                        return 0;
                }
        return 0;
}

/* One that can't start is told, and does not end the others. */
static int start_jobs(struct run *r, struct error *err)
{
        size_t started = 0;

        for (; r->n < r->triggers.n; r->n++) {
                struct job *j = &r->jobs[r->n];

                if (start_job(r, j, r->triggers.list[r->n], err) == 0) {
                        started++;
                        continue;
                }
                r->failed = true;
                if (r->triggers.n == 1)
                        break;
                log_error("a Trigger can't be started", LOG_S("namespace", j->trigger->namespace_),
                          LOG_S("trigger", j->trigger->name), LOG_S("error", err->text));
                j->failure = str_dup(str_of(err->text));
                if (!j->failure)
                        return error_memory(err);
        }
        r->n = MIN_OF(r->n + 1, r->triggers.n);
        if (started)
                return 0;
        return r->triggers.n == 1 ? -1
                                  : error_set(err, ERROR_INVALID, "none of the %zu Triggers can be started",
                                              r->triggers.n);
}

static int start(struct run *r, struct error *err)
{
        if (loop_new(&r->loop, err) < 0 || http_client_new(&r->http, r->loop, err) < 0 ||
            cloud_client_new(&r->cloud, r->loop, r->http, &system_clock, err) < 0 ||
            file_store_new(&r->store, r->loop, r->state, err) < 0 ||
            (r->admin_address && admin_new(&r->admin, r->loop, r->admin_address, err) < 0) ||
            loop_signal(r->loop, SIGTERM, on_signal, r, err) < 0 ||
            loop_signal(r->loop, SIGINT, on_signal, r, err) < 0)
                return -1;
        if (open_host(r, err) < 0)
                return -1;
        r->jobs = calloc(r->triggers.n, sizeof(*r->jobs));
        r->rows = calloc(r->triggers.n, sizeof(*r->rows));
        if (!r->jobs || !r->rows)
                return error_memory(err);
        return start_jobs(r, err);
}

static void clean_up(struct run *r)
{
        (void)admin_free(r->admin);
        for (size_t i = 0; i < r->n; i++)
                if (r->jobs[i].pipeline)
                        (void)pipeline_free(r->jobs[i].pipeline);
        (void)gate_host_free(r->host);
        (void)file_store_free(r->store);
        (void)cloud_client_free(r->cloud);
        (void)http_client_free(r->http);
        if (r->loop)
                loop_forget(r->loop, &r->task);
        (void)loop_free(r->loop);
        triggers_done(&r->triggers);
        for (size_t i = 0; i < r->n; i++)
                free(r->jobs[i].failure);
        free(r->jobs);
        free(r->rows);
}

static const struct option_spec options[] = {
        OPTION(LIST, "file", struct run, files, .letter = 'f', .value = "FILE|DIR",
               .help = "Triggers to run: a file, or a folder's *.yaml, *.yml and *.json, with the folders in "
                       "it. May be given more than once."),
        OPTION(TEXT, "state", struct run, state, .value = "DIR",
               .help = "Where positions are kept that no broker keeps. Default: $XDG_STATE_HOME/sluice, else "
                       "~/.local/state/sluice."),
        OPTION(TEXT, "secrets", struct run, secrets, .value = "DIR",
               .help = "Where the Secrets are that Triggers name: files DIR/NAME/KEY, whatever the Triggers' "
                       "namespaces: each may name all of them. Default: nowhere."),
        OPTION(TEXT, "admin", struct run, admin_address, .value = "ADDRESS:PORT",
               .help = "Serve /livez, /readyz, /metrics and /status there. Default: nowhere."),
        OPTION(TEXT, "listen", struct run, listen.address, .value = "ADDRESS:PORT",
               .help = "Where sources that are reached by requests listen: an API at its own path, others at "
                       "/NAMESPACE/NAME. Default: 127.0.0.1:8080."),
        LISTEN_OPTIONS(struct run, listen),
        OPTION(TEXT, "port-file", struct run, port_file, .value = "FILE",
               .help = "Write the port of --listen to this file (or named pipe), instead of showing it."),
        OPTION(DURATION, "grace", struct run, grace, .value = "DURATION",
               .help = "How long what is in flight may take at SIGTERM or SIGINT. Default: 20s."),
        OPTION(INT, "events", struct run, most, .value = "N", .min = 1, .max = INT64_MAX,
               .help = "End after so many delivered events. Default: go on."),
};
static const struct usage usage = {
        .name = "run",
        .text = "Runs the Triggers of files in this process, without a cluster, until SIGINT or SIGTERM: "
                "what is in flight then may finish (--grace), and "
                "positions are kept. On a terminal it shows a live table, elsewhere a line per Trigger "
                "whenever its state changes.",
        .options = options,
        .options_n = COUNT_OF(options)
};

int cmd_run(int argc, char **argv)
{
        struct run r = { .task = { .turn = observe },
                         .grace = GRACE,
                         .listen = { .address = "127.0.0.1:8080" } };
        struct strings rest;
        BUF_AT_END struct buf folder = BUF_INIT(PATH_MAX);
        struct error err;
        int result = options_parse(&usage, argc, argv, &r, &rest);

        free(rest.list);
        if (result < 0 && r.files.n == 0)
                result = usage_error("run", "needs -f FILE or DIR");
        if (result < 0 && !r.state && default_state(&folder) == 0)
                r.state = folder.p;
        if (result < 0)
                result = load(&r) ? 1 : -1;
        if (result < 0) {
                signals_block();
                if (start(&r, &err) < 0) {
                        (void)fprintf(stderr, "sluice run: %s\n", err.text);
                        result = 1;
                        if (r.loop)
                                stop(&r);
                }
                r.terminal = result < 0 && table_is_terminal();
                if (r.terminal)
                        table_begin(r.n);
                if (r.loop) {
                        loop_ready(r.loop, &r.task);
                        loop_run(r.loop);
                }
                if (r.terminal)
                        table_end();
                result = result < 0 ? r.failed : result;
        }
        clean_up(&r);
        for (size_t i = 0; i < r.files.n; i++)
                free(r.files.list[i]);
        free(r.files.list);
        listen_done(&r.listen);
        return result;
}
