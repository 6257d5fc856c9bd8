#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "base/table.h"
#include "base/watch.h"
#include "host/host.h"
#include "listen.h"
#include "log/log.h"
#include "options.h"
#include "table.h"

static const usec GRACE = 20 * USEC_SEC, REFRESH = 500 * USEC_MSEC;
/* From the first sign of a change until the files are read: whoever writes several is done by then. */
static const usec SETTLING = 250 * USEC_MSEC;

struct watched { /* a file, or a folder of files */
        struct watched *next;
        struct watch watch;
};

struct seen { /* what was printed of a Trigger */
        uint64_t changes;
        UT_hash_handle hh;
        char key[];
};

struct run {
        struct loop *loop;
        struct host *host;
        struct task task; /* observes the host */
        bool terminal, stopping, stopped;
        usec grace, give_up_at;
        bool failed; /* a Trigger could not be started */
        usec next_draw;
        int64_t most; /* events to deliver before it ends; 0: no end */
        struct table_row *rows;
        size_t rows_n, rows_cap;
        struct seen *seen;
        uint64_t delivered;
        usec now;
        const char *secrets; /* a folder; NULL: none */
        struct listen_options listen;
        const char *port_file;
        struct strings files; /* with Triggers */
        const char *state, *admin_address;
        bool listening; /* and that was said */
        struct watched *watched;
        struct task changed; /* by the watches */
        usec reload_at;      /* 0: nothing changed */
};

static void stop(struct run *r)
{
        if (r->stopping)
                return;
        r->stopping = true;
        r->give_up_at = loop_now(r->loop) + r->grace;
        log_info("stopping: what is in flight may finish", LOG_I("graceSeconds", r->grace / USEC_SEC));
        host_stop(r->host, &(struct host_end){ .grace = r->grace });
        loop_ready(r->loop, &r->task);
}

static void on_signal(void *cookie, int number)
{
        struct run *r = cookie;

        if (r->stopping)
                _exit(128 + number); /* the second time: at once, and as a shell tells of it */
        stop(r);
}

/* ---- what is shown ------------------------------------------------------ */

static bool is_news(struct run *r, const struct host_entry *e)
{
        BUF_AT_END struct buf key = BUF_INIT(1024);
        struct seen *s;

        buf_printf(&key, "%s/%s", e->trigger->namespace_, e->trigger->name);
        if (key.failed)
                return false;
        HASH_FIND(hh, r->seen, key.p, key.n, s);
        if (s && s->changes == e->changes)
                return false;
        if (!s) {
                s = calloc(1, sizeof(*s) + key.n + 1);
                if (!s)
                        return false;
                memcpy(s->key, key.p, key.n);
                HASH_ADD(hh, r->seen, key, key.n, s);
        }
        s->changes = e->changes;
        return true;
}

static void forget_seen(struct run *r)
{
        struct seen *s, *next;

        HASH_ITER(hh, r->seen, s, next)
        {
                HASH_DEL(r->seen, s);
                free(s);
        }
}

static void show_one(void *cookie, const struct host_entry *e)
{
        struct run *r = cookie;
        struct table_row row = { .trigger = e->trigger, .status = e->status };

        r->delivered += e->status.stats.accepted;
        if (!e->runs && !e->failure)
                return;
        if (!r->terminal && is_news(r, e))
                table_line(&row, r->now);
        if (!r->terminal)
                return;
        if (r->rows_n == r->rows_cap) {
                size_t cap = MAX_OF(2 * r->rows_cap, (size_t)16);
                struct table_row *grown = realloc(r->rows, cap * sizeof(*grown));

                if (!grown)
                        return;
                r->rows = grown;
                r->rows_cap = cap;
        }
        r->rows[r->rows_n++] = row;
}

static void show(struct run *r, usec now)
{
        r->rows_n = 0;
        r->delivered = 0;
        r->now = now;
        host_each(r->host, show_one, r);
        if (now < r->next_draw)
                return;
        if (r->terminal)
                table_draw(r->rows, r->rows_n, now);
        r->next_draw = r->terminal ? now + REFRESH : USEC_NEVER;
}

/* A listener is there only where a Trigger needs one. */
static void say_listening(struct run *r)
{
        uint16_t port = host_listen_port(r->host);
        struct error err;

        if (!port || r->listening)
                return;
        r->listening = true;
        if (!r->port_file)
                (void)printf("listening on port %u\n", port);
        else if (write_port(r->port_file, port, &err) < 0)
                (void)fprintf(stderr, "sluice run: %s\n", err.text);
}

static void observe(struct task *t, usec now)
{
        struct run *r = CONTAINER_OF(t, struct run, task);

        say_listening(r);
        if (!r->stopping || !host_ended(r->host))
                show(r, now);
        if (r->most && r->delivered >= (uint64_t)r->most)
                stop(r);
        if (r->stopping && host_ended(r->host) && !r->stopped) {
                r->stopped = true;
                if (now >= r->give_up_at)
                        log_warn("requests in flight were given up: give --grace more time for a function "
                                 "that takes long, or a caller that reads slowly");
                loop_stop(r->loop);
                return;
        }
        /* With an end in sight it looks more often than it prints. */
        loop_arm(r->loop, t, r->most ? MIN_OF(r->next_draw, now + 50 * USEC_MSEC) : r->next_draw);
}

/* ---- Triggers ----------------------------------------------------------- */

static void watches_free(struct watched *first)
{
        for (struct watched *w = first, *next; w; w = next) {
                next = w->next;
                watch_close(&w->watch);
                free(w);
        }
}

/* What is read is watched from before it is read; without, a change shows at SIGHUP. */
static void on_visit(void *cookie, const char *path, bool folder)
{
        struct run *r = cookie;
        BUF_AT_END struct buf name = BUF_INIT(65536);
        struct watched *w = r->loop && strcmp(path, "-") != 0 ? calloc(1, sizeof(*w)) : NULL;
        struct error err;

        buf_printf(&name, folder ? "%s/." : "%s", path);
        if (!w || name.failed || watch_open(&w->watch, r->loop, name.p, &r->changed, &err) < 0) {
                free(w);
                return;
        }
        w->next = r->watched;
        r->watched = w;
}

static int load(struct run *r, struct triggers *all)
{
        struct watched *before = TAKE(r->watched);
        struct error err;

        all->visit = on_visit;
        all->cookie = r;
        for (size_t i = 0; i < r->files.n; i++) {
                BUF_AT_END struct buf report = BUF_INIT((size_t)16 << 20);
                int result = triggers_load(all, r->files.list[i], source_types(), source_kinds_n, &report,
                                           &err);

                if (report.n)
                        (void)fwrite(report.p, 1, report.n, stderr);
                if (result < 0) {
                        if (!report.n)
                                (void)fprintf(stderr, "sluice run: %s\n", err.text);
                        watches_free(before);
                        return -1;
                }
        }
        watches_free(before);
        if (all->n == 0) {
                (void)fprintf(stderr, "sluice run: no Trigger was found in the files given\n");
                return -1;
        }
        return 0;
}

/* What only a cluster has. */
static int runs_alone(const struct run *r, const struct trigger *t, struct error *err)
{
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
        return 0;
}

/* Takes the Trigger. */
static int set_trigger(struct run *r, struct trigger *t, struct error *err)
{
        const struct host_options options = { .sink = t->sink->uri };
        struct error memory;

        if (runs_alone(r, t, err) == 0)
                return host_set(r->host, t, &options, loop_now(r->loop) + r->grace, err);
        return host_refuse(r->host, t, err->text, &memory) < 0 ? error_wrap(err, "%s", memory.text) : -1;
}

static bool is_same(const struct trigger *a, const struct trigger *b)
{
        BUF_AT_END struct buf one = BUF_INIT((size_t)16 << 20), other = BUF_INIT((size_t)16 << 20);
        struct writer w;

        writer_init(&w, &one);
        trigger_write(a, &w);
        writer_init(&w, &other);
        trigger_write(b, &w);
        return !one.failed && !other.failed && str_equal(buf_view(&one), buf_view(&other));
}

/* Copies of its names: the Trigger may be gone. */
static void say_unstarted(const struct buf *namespace_, const struct buf *name, const struct error *err)
{
        const struct log_scope log = log_scope_of(namespace_->p, name->p);

        log_error_for(&log, "a Trigger can't be started", LOG_S("error", err->text));
}

/* One that can't start is told, and does not end the others. */
static int start_all(struct run *r, struct triggers *all, struct error *err)
{
        size_t started = 0;

        for (size_t i = 0; i < all->n; i++) {
                struct trigger *t = TAKE(all->list[i]);
                BUF_AT_END struct buf namespace_ = BUF_INIT(1024), name = BUF_INIT(1024);

                buf_text(&namespace_, t->namespace_);
                buf_text(&name, t->name);
                if (set_trigger(r, t, err) == 0) {
                        started++;
                        continue;
                }
                r->failed = true;
                if (all->n == 1)
                        return -1;
                say_unstarted(&namespace_, &name, err);
        }
        return started ? 0 : error_set(err, ERROR_INVALID, "none of the %zu Triggers can be started", all->n);
}

/* ---- files that changed -------------------------------------------------- */

struct leaving {
        const struct triggers *now;
        struct trigger **list;
        size_t n, cap;
        bool failed;
};

static void add_leaving(void *cookie, const struct host_entry *e)
{
        struct leaving *l = cookie;

        for (size_t i = 0; i < l->now->n; i++)
                if (string_equal(l->now->list[i]->name, e->trigger->name) &&
                    string_equal(l->now->list[i]->namespace_, e->trigger->namespace_))
                        return;
        if (l->n == l->cap) {
                size_t cap = MAX_OF(2 * l->cap, (size_t)16);
                struct trigger **grown = realloc(l->list, cap * sizeof(*grown));

                l->failed = l->failed || !grown;
                if (!grown)
                        return;
                l->list = grown;
                l->cap = cap;
        }
        l->list[l->n++] = (struct trigger *)e->trigger;
}

/* Those that are in no file any more. */
static size_t remove_missing(struct run *r, const struct triggers *now)
{
        struct leaving l = { .now = now };
        size_t n;

        host_each(r->host, add_leaving, &l);
        for (size_t i = 0; i < l.n; i++)
                host_remove(r->host, l.list[i]->namespace_, l.list[i]->name, loop_now(r->loop) + r->grace);
        n = l.n;
        free(l.list);
        return n;
}

/* Added or replaced; a Trigger that is as it was goes on undisturbed, unless it could not be started. false:
 * neither. */
static bool apply(struct run *r, struct trigger **new)
{
        const struct trigger *known = host_find(r->host, (*new)->namespace_, (*new)->name);
        struct trigger *t;
        BUF_AT_END struct buf namespace_ = BUF_INIT(1024), name = BUF_INIT(1024);
        struct error err;

        if (known && is_same(known, *new) && !host_failed(r->host, known->namespace_, known->name))
                return false;
        t = TAKE(*new);
        buf_text(&namespace_, t->namespace_);
        buf_text(&name, t->name);
        if (set_trigger(r, t, &err) < 0)
                say_unstarted(&namespace_, &name, &err);
        return true;
}

static void reload(struct run *r)
{
        struct triggers now = { 0 };
        size_t removed, applied = 0;

        if (r->stopping)
                return;
        for (size_t i = 0; i < r->files.n; i++)
                if (strcmp(r->files.list[i], "-") == 0) {
                        log_warn("standard input can't be read again: what ran before goes on");
                        return;
                }
        if (load(r, &now) < 0) {
                log_error("the files can't be used as they are now: what ran before goes on");
                triggers_done(&now);
                return;
        }
        removed = remove_missing(r, &now);
        for (size_t i = 0; i < now.n; i++)
                applied += apply(r, &now.list[i]);
        if (removed || applied)
                log_info("the files changed", LOG_I("applied", applied), LOG_I("removed", removed));
        triggers_done(&now);
        (void)malloc_trim(0); /* what reading the files took */
        loop_ready(r->loop, &r->task);
}

static void on_hangup(void *cookie, int number UNUSED) { reload(cookie); }

static void on_change(struct task *t, usec now)
{
        struct run *r = CONTAINER_OF(t, struct run, changed);

        if (!r->reload_at)
                r->reload_at = now + SETTLING;
        if (now < r->reload_at) {
                loop_arm(r->loop, t, r->reload_at);
                return;
        }
        r->reload_at = 0;
        reload(r);
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

/* ---- life --------------------------------------------------------------- */

static int start(struct run *r, struct triggers *all, struct error *err)
{
        const struct gate_host_config listen = listen_config(&r->listen);
        const struct host_config config = { .clock = &system_clock,
                                            .secrets = r->secrets,
                                            .admin = r->admin_address,
                                            .state = r->state,
                                            .listen = &listen,
                                            .observer = &r->task };

        if (host_new(&r->host, r->loop, &config, err) < 0 ||
            loop_signal(r->loop, SIGTERM, on_signal, r, err) < 0 ||
            loop_signal(r->loop, SIGINT, on_signal, r, err) < 0 ||
            loop_signal(r->loop, SIGHUP, on_hangup, r, err) < 0 || start_all(r, all, err) < 0)
                return -1;
        say_listening(r);
        return 0;
}

static void turn_loop(struct run *r)
{
        r->terminal = table_is_terminal();
        if (r->terminal)
                table_begin();
        loop_ready(r->loop, &r->task);
        loop_run(r->loop);
        if (r->terminal)
                table_end();
}

static void clean_up(struct run *r)
{
        (void)host_free(r->host);
        watches_free(r->watched);
        if (r->loop) {
                loop_forget(r->loop, &r->task);
                loop_forget(r->loop, &r->changed);
        }
        (void)loop_free(r->loop);
        forget_seen(r);
        free(r->rows);
        for (size_t i = 0; i < r->files.n; i++)
                free(r->files.list[i]);
        free(r->files.list);
        listen_done(&r->listen);
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
               .help = "How long what is in flight may take at SIGTERM or SIGINT. A second signal ends it at "
                       "once, with exit code 143 or 130. Default: 20s."),
        OPTION(INT, "events", struct run, most, .value = "N", .min = 1, .max = INT64_MAX,
               .help = "End after so many delivered events. Default: go on."),
};
static const struct usage usage = {
        .name = "run",
        .text = "Runs the Triggers of files in this process, without a cluster, until SIGINT or SIGTERM: "
                "what is in "
                "flight then may finish (--grace), and positions are kept. Files that change are taken "
                "without "
                "a restart (at SIGHUP, if nothing tells of it): what is new begins, what changed is "
                "replaced, "
                "what is gone ends; where they are wrong, what ran before goes on. On a terminal it shows a "
                "live table, elsewhere a line per Trigger whenever its state changes.",
        .options = options,
        .options_n = COUNT_OF(options)
};

int cmd_run(int argc, char **argv)
{
        struct run r = { .task = { .turn = observe },
                         .changed = { .turn = on_change },
                         .grace = GRACE,
                         .listen = { .address = "127.0.0.1:8080" } };
        BUF_AT_END struct buf folder = BUF_INIT(PATH_MAX);
        struct triggers all = { 0 };
        struct strings rest;
        struct error err;
        int result = options_parse(&usage, argc, argv, &r, &rest);

        free(rest.list);
        if (result < 0 && r.files.n == 0)
                result = usage_error("run", "needs -f FILE or DIR");
        if (result < 0 && !r.state && default_state(&folder) == 0)
                r.state = folder.p;
        if (result < 0) {
                signals_block();
                if (loop_new(&r.loop, &err) < 0) {
                        (void)fprintf(stderr, "sluice run: %s\n", err.text);
                        result = 1;
                }
        }
        if (result < 0 && load(&r, &all) < 0)
                result = 1;
        if (result < 0) {
                if (start(&r, &all, &err) < 0) {
                        (void)fprintf(stderr, "sluice run: %s\n", err.text);
                        result = 1;
                        if (r.host)
                                stop(&r);
                }
                triggers_done(&all);
                (void)malloc_trim(0); /* what reading the files took */
                if (r.host && (result < 0 || !host_stopped(r.host)))
                        turn_loop(&r);
                result = result < 0 ? r.failed : result;
        } else
                triggers_done(&all);
        clean_up(&r);
        return result;
}
