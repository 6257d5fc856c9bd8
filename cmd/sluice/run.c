#include <assert.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define HASH_NONFATAL_OOM 1 /* what finds no memory is not in its table: hh.tbl is NULL */
#include "base/bucket.h"
#include "base/table.h"
#include "files.h"
#include "host/host.h"
#include "listen.h"
#include "log/log.h"
#include "options.h"
#include "table.h"

static const usec GRACE = 20 * USEC_SEC, REFRESH = 500 * USEC_MSEC;
/* How often events are counted when --events sets an end. */
static const usec COUNTING = 50 * USEC_MSEC;
/* Walks may take one twentieth of the time, and no more Triggers in one pass of the loop than take a
 * millisecond, or two if each is printed. */
enum { WALK_SHARE = 20, WALK_MOST = 256 };

struct known { /* a Trigger that was read from the files */
        UT_hash_handle hh;
        struct digest digest; /* of what the files say */
        uint64_t changes;     /* changes of its status when its last line was printed */
        int64_t lines_paid;   /* struct bucket_rate */
        bool shown;
        uint64_t round; /* the last reading that had it */
        char key[];     /* namespace/name */
};

/* A walk past all Triggers, which shows what changed and counts what was delivered. There may be thousands,
 * so that it takes several passes of the loop. */
struct walk {
        struct task task; /* continues it */
        bool under_way;
        bool outdated;      /* something changed since it began, so that another one must follow */
        uint64_t delivered; /* by those that it has passed */
        usec spent;         /* time it took so far */
        usec held_until; /* lines are held back until then, since they came too fast; USEC_NEVER: none is */
        usec next;       /* the next one must not begin before */
};

struct run {
        struct loop *loop;
        struct host *host;
        struct task task; /* observes the host */
        bool terminal, stopping, stopped;
        bool begun; /* the host has tried to start each of the first Triggers */
        usec grace;
        bool failed;    /* a Trigger could not be started, and still was not when all ended */
        usec next_draw; /* of the table; USEC_NEVER: there is none */
        struct walk walk;
        int64_t most; /* events to deliver before it ends; 0: no end */
        struct table_row *rows;
        size_t rows_n, rows_cap;
        struct known *known;
        uint64_t rounds;
        size_t applied, removed; /* since the last log line about changed files */
        uint64_t delivered;
        usec now;
        const char *secrets; /* a folder; NULL: none */
        struct listen_options listen;
        const char *port_file;
        struct strings paths; /* of files with Triggers */
        struct files *files;
        const char *state, *admin_address;
        bool listening;       /* the port was printed or written */
        struct task was_read; /* made ready when changed files were read */
        bool unusable;        /* these could not be used, and what ran before goes on */
};

static void count_failure(void *cookie, const struct host_entry *e)
{
        *(size_t *)cookie += e->failure != NULL;
}

static void stop(struct run *r)
{
        size_t failures = 0;

        if (r->stopping)
                return;
        r->stopping = true;
        host_each(r->host, count_failure, &failures);
        r->failed = r->failed && failures; /* those that began later, or are gone, tell nothing */
        log_info("stopping: what is in flight may finish", LOG_I("graceSeconds", r->grace / USEC_SEC));
        host_stop(r->host, &(struct host_end){ .grace = r->grace });
        loop_ready(r->loop, &r->task);
}

static void on_signal(void *cookie, int number)
{
        struct run *r = cookie;

        if (r->stopping)
                _exit(128 + number); /* the second signal ends it at once, with the exit code of a shell */
        stop(r);
}

/* ---- what is shown ------------------------------------------------------ */

static struct known *find_known(const struct run *r, const struct trigger *t, struct buf *key)
{
        struct known *k = NULL;

        buf_reset(key);
        buf_printf(key, "%s/%s", t->namespace_, t->name);
        if (!key->failed)
                HASH_FIND(hh, r->known, key->p, key->n, k);
        return k;
}

/* Prints a line if the Trigger changed. After ten lines in a row a Trigger gets one a second, and the rest is
 * held back. If nobody reads standard output just now, the line comes with the next change. */
static void show_line(struct run *r, const struct host_entry *e, const struct table_row *row)
{
        const struct bucket_rate apart = bucket_rate(1, USEC_SEC, 10);
        BUF_AT_END struct buf key = BUF_INIT(1024);
        struct known *k = find_known(r, e->trigger, &key);

        if (!k || (k->shown && k->changes == e->changes))
                return;
        if (!bucket_gives(&apart, k->lines_paid, r->now)) {
                r->walk.held_until = MIN_OF(r->walk.held_until, bucket_at(&apart, k->lines_paid, r->now));
                return;
        }
        if (!table_line(row, r->now))
                return;
        k->lines_paid = bucket_take(&apart, k->lines_paid, 1, r->now);
        k->shown = true;
        k->changes = e->changes;
}

static void show_one(void *cookie, const struct host_entry *e)
{
        struct run *r = cookie;
        struct table_row row = { .trigger = e->trigger, .status = e->status };

        r->walk.delivered += e->status.stats.accepted;
        if ((!e->runs && !e->failure) || (e->waits && !r->terminal))
                return;
        if (!r->terminal) {
                show_line(r, e, &row);
                return;
        }
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

/* There is a listener only if a Trigger needs one. */
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

/* After the start: ends if no Trigger could be started. If only some failed, the others run, and the exit
 * code tells. */
static void say_begun(struct run *r)
{
        size_t n = HASH_COUNT(r->known), failures = 0;

        if (r->begun || r->stopping || host_waiting(r->host))
                return;
        r->begun = true;
        host_each(r->host, count_failure, &failures);
        r->failed = r->failed || failures;
        if (failures < n)
                return;
        (void)fprintf(stderr, "sluice run: none of the %zu Triggers can be started\n", n);
        stop(r);
}

static void say_changed(struct run *r)
{
        if ((!r->applied && !r->removed) || host_waiting(r->host))
                return;
        log_info("the files changed", LOG_I("applied", r->applied), LOG_I("removed", r->removed));
        r->applied = r->removed = 0;
}

/* ---- the walk ------------------------------------------------------------ */

static void begin_walk(struct run *r)
{
        struct walk *w = &r->walk;

        say_begun(r);
        say_changed(r);
        w->under_way = true;
        w->outdated = false;
        w->delivered = 0;
        w->spent = 0;
        w->held_until = USEC_NEVER;
        r->rows_n = 0;
}

/* Passes the next few. true: there are more. On a terminal it passes all at once: the rows of the table
 * borrow from the Triggers, which may be gone in the next pass of the loop. */
static bool continue_walk(struct run *r, usec now)
{
        usec begun = clock_monotonic(&system_clock);
        bool more;

        r->now = now;
        more = host_each_some(r->host, r->terminal ? SIZE_MAX : WALK_MOST, show_one, r);
        if (!more && r->terminal && now >= r->next_draw) {
                table_draw(r->rows, r->rows_n, now);
                r->next_draw = now + REFRESH;
        }
        r->walk.spent += clock_monotonic(&system_clock) - begun;
        return more;
}

static void finish_walk(struct run *r, usec now)
{
        struct walk *w = &r->walk;

        w->under_way = false;
        w->next = now + WALK_SHARE * w->spent;
        r->delivered = w->delivered;
}

/* When another walk is due, even if nothing changes. */
static usec next_walk(const struct run *r, usec now)
{
        const struct walk *w = &r->walk;
        usec due = MIN_OF(r->next_draw, w->held_until);

        if (w->outdated)
                return w->next;
        return r->most ? MIN_OF(due, now + COUNTING) : due;
}

/* Does what is due of a walk. Returns when to be called again, if nothing changes before. */
static usec walk(struct run *r, usec now)
{
        struct walk *w = &r->walk;

        if (!w->under_way && now < w->next)
                return w->next;
        if (!w->under_way)
                begin_walk(r);
        if (continue_walk(r, now)) {
                loop_ready(r->loop, &w->task);
                return USEC_NEVER;
        }
        finish_walk(r, now);
        return next_walk(r, now);
}

static void go_on(struct run *r, usec now)
{
        bool ended = r->stopping && host_ended(r->host);
        usec next = USEC_NEVER;

        say_listening(r);
        if (!ended)
                next = walk(r, now);
        if (r->most && r->delivered >= (uint64_t)r->most)
                stop(r);
        if (ended && !r->stopped) {
                r->stopped = true;
                loop_stop(r->loop);
                return;
        }
        loop_arm(r->loop, &r->task, next);
}

/* The host made it ready: something changed. */
static void observe(struct task *t, usec now)
{
        struct run *r = CONTAINER_OF(t, struct run, task);

        r->walk.outdated = true;
        go_on(r, now);
}

static void walk_on(struct task *t, usec now) { go_on(CONTAINER_OF(t, struct run, walk.task), now); }

/* ---- Triggers ----------------------------------------------------------- */

/* Refuses what needs a cluster. */
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

/* Takes the Trigger. now: starts it at once and returns its failure; otherwise the host starts it soon. */
static int set_trigger(struct run *r, struct trigger *t, bool now, struct error *err)
{
        const struct host_options options = { .sink = t->sink->uri };
        usec give_up_at = loop_now(r->loop) + r->grace;
        struct error why;

        if (runs_alone(r, t, &why) == 0)
                return now ? host_set(r->host, t, &options, give_up_at, err)
                           : host_want(r->host, t, &options, give_up_at, err);
        if (now) {
                (void)trigger_free(t);
                return error_set(err, why.kind, "%s", why.text);
        }
        log_error("a Trigger can't be started", LOG_S("error", why.text));
        return host_refuse(r->host, t, why.text, err);
}

/* NULL: out of memory. */
static struct known *know(struct run *r, const struct trigger *t)
{
        BUF_AT_END struct buf key = BUF_INIT(1024);
        struct known *k = find_known(r, t, &key);

        if (k || key.failed)
                return k;
        k = calloc(1, sizeof(*k) + key.n + 1);
        if (!k)
                return NULL;
        k->lines_paid = BUCKET_FULL;
        memcpy(k->key, key.p, key.n);
        HASH_ADD(hh, r->known, key, key.n, k);
        if (k->hh.tbl)
                return k;
        free(k);
        return NULL;
}

static void forget(struct run *r, struct known *k)
{
        assert(r->known);
        HASH_DEL(r->known, k);
        free(k);
}

static void forget_all(struct run *r)
{
        for (struct known *k = r->known, *next; k; k = next) {
                next = k->hh.next;
                forget(r, k);
        }
}

/* Removes the Triggers that the last reading did not find. */
static void remove_missing(struct run *r)
{
        for (struct known *k = r->known, *next; k; k = next) {
                struct str name = str_of(k->key), namespace_ = str_cut(&name, '/');
                BUF_AT_END struct buf space = BUF_INIT(1024);

                next = k->hh.next;
                if (k->round == r->rounds)
                        continue;
                buf_str(&space, namespace_);
                buf_char(&space, 0);
                if (space.failed)
                        continue; /* out of memory: removed at the next change */
                host_remove(r->host, space.p, name.p, loop_now(r->loop) + r->grace);
                r->removed++;
                forget(r, k);
        }
}

/* An unchanged Trigger is left alone, unless it failed to start. */
static bool is_as_it_was(const struct run *r, const struct known *k, const struct trigger *t,
                         const struct digest *d)
{
        return k->digest.one == d->one && k->digest.other == d->other &&
               !host_failed(r->host, t->namespace_, t->name);
}

static int apply(struct run *r, struct trigger **of, const struct digest *d, struct error *err)
{
        BUF_AT_END struct buf key = BUF_INIT(1024);
        struct known *k = find_known(r, *of, &key);

        if (!k)
                return error_memory(err);
        if (r->rounds > 1 && is_as_it_was(r, k, *of, d))
                return 0;
        k->digest = *d;
        r->applied++;
        return set_trigger(r, TAKE(*of), r->rounds == 1 && HASH_COUNT(r->known) == 1, err);
}

/* Replaces the wanted state by that of the files: about a microsecond for each Trigger. The host starts and
 * stops them afterwards, so that a mixture of two states is never wanted. */
static int apply_all(struct run *r, struct file_set *set, struct error *err)
{
        const struct triggers *all = &set->triggers;
        int result = 0;

        r->rounds++;
        for (size_t i = 0; i < all->n; i++) {
                struct known *k = know(r, all->list[i]);

                if (!k)
                        return error_memory(err);
                k->round = r->rounds;
        }
        remove_missing(r);
        for (size_t i = 0; i < all->n; i++)
                if (apply(r, &all->list[i], &set->digests[i], err) < 0)
                        result = -1;
        return result;
}

/* ---- files that changed -------------------------------------------------- */

static void on_hangup(void *cookie, int number UNUSED)
{
        struct run *r = cookie;

        for (size_t i = 0; i < r->paths.n; i++)
                if (strcmp(r->paths.list[i], "-") == 0) {
                        log_warn("standard input can't be read again: what ran before goes on");
                        return;
                }
        files_read_again(r->files);
}

static void on_read(struct task *t, usec now UNUSED)
{
        struct run *r = CONTAINER_OF(t, struct run, was_read);
        struct file_set *set = files_take(r->files);
        struct error err;

        if (!set || r->stopping) {
                file_set_free(set);
                return;
        }
        if (!set->digests)
                log_error("the files can't be used as they are now: what ran before goes on");
        else if (r->unusable)
                log_info("the files can be used again");
        r->unusable = !set->digests;
        if (set->digests && apply_all(r, set, &err) < 0)
                log_error("not all that changed in the files is applied", LOG_S("error", err.text));
        file_set_free(set);
        loop_ready(r->loop, &r->task);
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

static int start(struct run *r, struct file_set *set, struct error *err)
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
            loop_signal(r->loop, SIGHUP, on_hangup, r, err) < 0 || apply_all(r, set, err) < 0)
                return -1;
        r->applied = 0;
        say_listening(r);
        return 0;
}

static void turn_loop(struct run *r)
{
        r->terminal = table_is_terminal();
        r->next_draw = r->terminal ? 0 : USEC_NEVER;
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
        (void)files_free(r->files);
        if (r->loop) {
                loop_forget(r->loop, &r->task);
                loop_forget(r->loop, &r->walk.task);
                loop_forget(r->loop, &r->was_read);
        }
        (void)loop_free(r->loop);
        forget_all(r);
        free(r->rows);
        for (size_t i = 0; i < r->paths.n; i++)
                free(r->paths.list[i]);
        free(r->paths.list);
        listen_done(&r->listen);
}

static const struct option_spec options[] = {
        OPTION(LIST, "file", struct run, paths, .letter = 'f', .value = "FILE|DIR",
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
                "what is gone ends, down to the last file of a folder; where they are wrong, or a folder "
                "itself is gone, what ran before goes on. On a terminal it shows a "
                "live table, elsewhere a line per Trigger whenever its state changes.",
        .options = options,
        .options_n = COUNT_OF(options)
};

static int read_and_start(struct run *r, struct error *err)
{
        struct file_set *set;
        int result;

        if (loop_new(&r->loop, err) < 0 || files_new(&r->files, r->loop, &r->paths, &r->was_read, err) < 0)
                return -1;
        set = files_read(r->files);
        if (!set)
                return error_memory(err);
        result = set->digests ? start(r, set, err)
                              : error_set(err, ERROR_INVALID, "the files can't be used as they are");
        file_set_free(set);
        return result;
}

/* Returns the exit code. */
static int run_files(struct run *r)
{
        struct error err;
        int result;

        signals_block();
        result = read_and_start(r, &err);
        if (result < 0) {
                (void)fprintf(stderr, "sluice run: %s\n", err.text);
                if (r->host)
                        stop(r);
        }
        if (r->host && (result == 0 || !host_stopped(r->host)))
                turn_loop(r);
        result = result < 0 ? 1 : r->failed;
        if (r->host && !host_stopped(r->host))
                end_at_once(result); /* a source that hangs can't be freed */
        return result;
}

int cmd_run(int argc, char **argv)
{
        struct run r = { .task = { .turn = observe },
                         .walk.task = { .turn = walk_on },
                         .was_read = { .turn = on_read },
                         .grace = GRACE,
                         .listen = { .address = "127.0.0.1:8080" } };
        BUF_AT_END struct buf folder = BUF_INIT(PATH_MAX);
        struct strings rest;
        int result = options_parse(&usage, argc, argv, &r, &rest);

        free(rest.list);
        if (result < 0 && r.paths.n == 0)
                result = usage_error("run", "needs -f FILE or DIR");
        if (result < 0 && !r.state && default_state(&folder) == 0)
                r.state = folder.p;
        if (result < 0)
                result = run_files(&r);
        clean_up(&r);
        return result;
}
