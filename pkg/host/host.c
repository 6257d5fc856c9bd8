#include "host/host.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "api/worker.h"
#include "base/list.h"
#include "base/random.h"
#define HASH_NONFATAL_OOM 1 /* what finds no memory is not in its table: hh.tbl is NULL */
#include "base/table.h"
#include "checkpoint/filestore.h"
#include "checkpoint/locks.h"
#include "host/report.h"
#include "http/client/fetch.h"
#include "kube/checkpoint.h"
#include "kube/events.h"
#include "kube/leases.h"
#include "log/log.h"
#include "source/paths.h"
#include "worker/admin.h"
#include "worker/cloud_client.h"

/* One that could not be started is tried again after so long, which doubles. */
static const usec AGAIN_FIRST = USEC_SEC, AGAIN_MOST = USEC_MINUTE;
/* For so long at once; then it is the turn of others. */
static const usec TURN_MOST = 4 * USEC_MSEC;
static char no_memory[] = "out of memory";

struct entry {                 /* a Trigger */
        struct list_node node; /* of the host's entries, or of those that are superseded */
        struct host *host;
        struct task task; /* observes the pipeline */
        struct trigger *trigger;
        struct host_options options;
        struct pipeline *pipeline; /* NULL: suspended, failed, or between two */
        struct file_store_end *file;
        struct kube_checkpoint *checkpoint;
        struct lock_end *locks; /* of a source that workers share, as the next */
        struct kube_leases *leases;
        struct report *report; /* NULL: outside a cluster */
        struct admin_entry shown;
        struct list ways; /* of the host's paths: those by which it is reached */
        bool in_the_way;  /* it failed by the path of another */
        char *failure;
        usec wait;        /* after its last failure; 0: it did not fail */
        usec again_at;    /* when it is tried again; USEC_NEVER: not, or it did not fail */
        uint64_t changes; /* of its earlier pipelines */
        /* What becomes of it once the pipeline has stopped: */
        struct trigger *successor;
        struct host_options successor_options;
        bool removed, stopping;
        bool superseded; /* another has its name and place: only what it still has is finished */
        char *key;       /* namespace/name */
        UT_hash_handle hh;
};

struct host {
        struct loop *loop;
        struct host_config config;
        struct http_client *http;
        struct cloud_client *cloud;
        struct recorder *recorder; /* NULL: outside a cluster */
        struct admin *admin;
        struct file_store *files; /* opened with the first that needs it, as the next; NULL: none does */
        struct lock_file *locks;
        struct gate_host_config listen;
        struct gate_host *gates;
        struct fetch_client *fetches; /* of push sources */
        struct fetch fetch;
        struct list entries, superseded; /* those of the second have no key */
        struct entry *by_key;
        struct paths paths;
        bool paths_left;             /* since those that wait for one were looked at */
        struct task lingered, again; /* what failed is tried again */
        struct host_end end;         /* how it stops */
        usec stopped_at;
        usec give_up_at;
        struct task rested; /* looks whether all is answered */
        bool stopping, answered;
};

static struct entry *entry_of(struct list_node *n) { return LIST_ITEM(n, struct entry, node); }

static void wake_observer(struct host *h)
{
        if (h->config.observer)
                loop_ready(h->loop, h->config.observer);
}

/* ---- where positions are kept ------------------------------------------- */

static void no_get(void *cookie UNUSED, struct store_request *r UNUSED, struct str key UNUSED) {}
static void no_put(void *cookie UNUSED, struct store_request *r UNUSED, struct str key UNUSED,
                   struct str value UNUSED)
{
}
static void no_cancel(void *cookie UNUSED, struct store_request *r UNUSED) {}

static int open_in_cluster(struct entry *e, struct store *out, struct error *err)
{
        BUF_AT_END struct buf name = BUF_INIT(1024);
        struct kube_checkpoint_config config;
        char writer[17];

        buf_printf(&name, "%s" WORKER_CHECKPOINT_SUFFIX, e->trigger->name);
        if (name.failed)
                return error_memory(err);
        (void)snprintf(writer, sizeof(writer), "%016" PRIx64, random_seed());
        config = (struct kube_checkpoint_config){ .namespace_ = e->trigger->namespace_,
                                                  .name = name.p,
                                                  .owner = report_uid(e->trigger),
                                                  .owner_kind = "Trigger",
                                                  .writer = writer };
        if (kube_checkpoint_new(&e->checkpoint, e->host->config.kube, &config, err) < 0)
                return -1;
        *out = kube_checkpoint_port(e->checkpoint);
        return 0;
}

/* Several workers may share what it reads: its positions are kept where all of them find them. */
static bool is_shared(const struct entry *e)
{
        return !e->options.kind && e->trigger->types[e->trigger->source].shared;
}

static int open_store(void *cookie, struct store *out, struct error *err)
{
        static const struct store_ops none = { no_get, no_put, no_cancel };
        struct entry *e = cookie;
        struct host *h = e->host;

        if (h->config.state && !is_shared(e)) {
                if ((!h->files && file_store_new(&h->files, h->loop, h->config.state, err) < 0) ||
                    file_store_end_new(&e->file, h->files, str_of(e->trigger->uid), err) < 0)
                        return -1;
                *out = file_store_port(e->file);
        } else if (h->config.kube) {
                if (open_in_cluster(e, out, err) < 0)
                        return -1;
        } else
                *out = (struct store){ &none, NULL };
        return 0;
}

static void close_store(void *cookie)
{
        struct entry *e = cookie;

        e->file = file_store_end_free(e->file);
        e->checkpoint = kube_checkpoint_free(e->checkpoint);
}

/* ---- what workers share ------------------------------------------------- */

static int lease_claims(struct entry *e, struct task *wake, struct claims *out, struct error *err)
{
        BUF_AT_END struct buf name = BUF_INIT(1024);
        struct kube_leases_config config = { .namespace_ = e->trigger->namespace_,
                                             .me = e->host->config.pod,
                                             .annotation = WORKER_ANNOTATION_WAITS,
                                             .slots = (uint32_t)e->trigger->replicas,
                                             .seed = random_seed(),
                                             .wake = wake };

        buf_printf(&name, "%s" WORKER_SUFFIX, e->trigger->name);
        if (name.failed)
                return error_memory(err);
        config.name = name.p;
        if (kube_leases_new(&e->leases, e->host->config.kube, &config, err) < 0)
                return -1;
        *out = kube_leases_port(e->leases);
        return 0;
}

static int lock_claims(struct entry *e, struct task *wake, struct claims *out, struct error *err)
{
        struct host *h = e->host;

        if ((!h->locks && lock_file_new(&h->locks, h->loop, h->config.state, err) < 0) ||
            lock_end_new(&e->locks, h->locks, str_of(e->key), (uint32_t)e->trigger->replicas, wake, err) < 0)
                return -1;
        *out = lock_end_port(e->locks);
        return 0;
}

static int open_claims(void *cookie, struct task *wake, struct claims *out, struct error *err)
{
        struct entry *e = cookie;

        if (!is_shared(e))
                return 0;
        return e->host->config.state  ? lock_claims(e, wake, out, err)
               : e->host->config.kube ? lease_claims(e, wake, out, err)
                                      : 0;
}

static void close_claims(void *cookie)
{
        struct entry *e = cookie;

        e->locks = lock_end_free(e->locks);
        e->leases = kube_leases_free(e->leases);
}

/* ---- one Trigger -------------------------------------------------------- */

/* What befalls its source, for those who look at it with kubectl. */
static void write_event(void *cookie, const struct notice *notice)
{
        const struct entry *e = cookie;
        const char *uid = report_uid(e->trigger);
        const struct event_object object = { .api_version = API_GROUP_VERSION,
                                             .kind = "Trigger",
                                             .namespace_ = e->trigger->namespace_,
                                             .name = e->trigger->name,
                                             .uid = uid ? uid : "" };

        recorder_event(e->host->recorder, &object, "Warning", notice->reason, "Read", notice->text);
}

static const struct source_kind *kind_of(const struct trigger *t, const struct host_options *options)
{
        return options->kind ? options->kind : trigger_source(t);
}

static bool is_push(const struct entry *e) { return kind_of(e->trigger, &e->options)->push != NULL; }

static bool runs_beside(const struct trigger *t, const struct host_options *options)
{
        const struct source_kind *kind = kind_of(t, options);

        return kind->push && kind->push->side_by_side;
}

static int open_gates(struct host *h, struct error *err)
{
        if (h->gates || !h->config.listen)
                return 0;
        if (!h->fetches && fetch_client_new(&h->fetches, h->loop, err) < 0)
                return -1;
        h->fetch = fetch_client_port(h->fetches);
        h->listen.http = h->http;
        h->listen.rested = &h->rested;
        return gate_host_new(&h->gates, h->loop, &h->listen, err);
}

static int start_pipeline(struct entry *e, struct error *err)
{
        struct host *h = e->host;
        struct pipeline_config config = { .loop = h->loop,
                                          .http = h->http,
                                          .cloud = cloud_client_cloud(h->cloud),
                                          .clock = h->config.clock,
                                          .trigger = e->trigger,
                                          .kind = e->options.kind,
                                          .source_spec = e->options.source_spec,
                                          .sink = e->options.sink,
                                          .dead_letter = e->options.dead_letter,
                                          .secrets = h->config.secrets,
                                          .instance = e->options.instance,
                                          .ending = e->options.ending,
                                          .observer = &e->task,
                                          .open_store = open_store,
                                          .close_store = close_store,
                                          .open_claims = open_claims,
                                          .close_claims = close_claims,
                                          .store_cookie = e };

        if (h->recorder)
                config.notices = (struct notices){ write_event, e };
        if (is_push(e) && open_gates(h, err) < 0)
                return -1;
        config.host = h->gates;
        config.fetch = h->fetches ? &h->fetch : NULL;
        if (pipeline_new(&e->pipeline, &config, err) < 0)
                return -1;
        if (h->config.kube && report_new(&e->report, h->config.kube, h->config.pod, e->trigger, err) < 0) {
                e->stopping = true;
                pipeline_stop(e->pipeline, 0);
                return -1;
        }
        loop_ready(h->loop, &e->task);
        return 0;
}

/* Nobody is told of it any more. */
static void hide(struct entry *e)
{
        admin_remove(&e->shown);
        e->report = report_free(e->report);
}

/* Its pipeline, or why there is none. */
static void show(struct entry *e)
{
        admin_remove(&e->shown);
        if (!e->host->admin || (!e->pipeline && !e->failure))
                return;
        e->shown.pipeline = e->failure ? NULL : e->pipeline;
        e->shown.trigger = e->trigger;
        e->shown.failure = e->failure;
        admin_add(e->host->admin, &e->shown);
}

/* Others may be waiting for them. */
static void leave_paths(struct entry *e)
{
        struct host *h = e->host;

        if (!e->ways.n)
                return;
        paths_leave(&h->paths, &e->ways);
        h->paths_left = true;
        loop_ready(h->loop, &h->again);
}

static int take_paths(struct entry *e, struct error *err)
{
        struct paths *paths = &e->host->paths;

        leave_paths(e);
        e->in_the_way = false;
        if (e->options.kind || e->options.ending || paths_take(paths, &e->ways, e->trigger, err) == 0)
                return 0;
        e->in_the_way = paths_other(paths, e->trigger) != NULL;
        return -1;
}

static void forget_failure(struct entry *e)
{
        if (e->failure != no_memory)
                free(e->failure);
        e->failure = NULL;
        e->again_at = USEC_NEVER;
}

static void keep_failure(struct entry *e, const char *why)
{
        forget_failure(e);
        e->failure = str_dup(str_of(why));
        if (!e->failure)
                e->failure = no_memory;
        show(e);
}

static int start_entry(struct entry *e, struct error *err)
{
        struct host *h = e->host;
        char *before = TAKE(e->failure);
        int result = 0;

        e->again_at = USEC_NEVER;
        e->stopping = false;
        if (e->trigger->suspend || (take_paths(e, err) == 0 && start_pipeline(e, err) == 0)) {
                e->changes += before != NULL;
                e->wait = 0;
                show(e);
        } else {
                leave_paths(e);
                keep_failure(e, err->text);
                e->changes += !before || strcmp(before, e->failure) != 0;
                e->wait = e->wait ? MIN_OF(2 * e->wait, AGAIN_MOST) : AGAIN_FIRST;
                e->again_at = loop_now(h->loop) + e->wait;
                loop_ready(h->loop, &h->again);
                result = -1;
        }
        if (before != no_memory)
                free(before);
        return result;
}

static void end_pipeline(struct entry *e)
{
        hide(e);
        leave_paths(e);
        e->pipeline = pipeline_free(e->pipeline);
}

static void entry_free(struct entry *e)
{
        end_pipeline(e);
        list_remove(&e->node);
        if (!e->superseded)
                HASH_DEL(e->host->by_key, e);
        loop_forget(e->host->loop, &e->task);
        (void)trigger_free(e->successor);
        (void)trigger_free(e->trigger);
        forget_failure(e);
        free(e->key);
        free(e);
}

/* The pipeline has stopped, or there was none: who comes now? */
static void go_on(struct entry *e)
{
        struct host *h = e->host;
        struct pipeline_status s;
        struct log_scope log;
        struct error err;

        if (e->removed && !h->stopping) {
                entry_free(e);
        } else if (e->failure && !e->successor && e->pipeline) {
                end_pipeline(e); /* it was started by half */
                show(e);
                loop_ready(h->loop, &h->again);
        } else if (e->successor && !h->stopping) {
                pipeline_status(e->pipeline, &s);
                e->changes += s.changes + 1;
                end_pipeline(e);
                (void)trigger_free(e->trigger);
                e->trigger = e->successor;
                e->successor = NULL;
                e->options = e->successor_options;
                log = log_scope_of(e->trigger->namespace_, e->trigger->name);
                if (start_entry(e, &err) < 0)
                        log_error_for(&log, "a Trigger can't be started", LOG_S("error", err.text));
        }
        if (h->stopping)
                loop_ready(h->loop, &h->rested);
        wake_observer(h);
}

static void observe(struct task *t, usec now)
{
        struct entry *e = CONTAINER_OF(t, struct entry, task);
        struct pipeline_status s;

        if (!e->pipeline)
                return;
        if (pipeline_stopped(e->pipeline)) {
                go_on(e);
                return;
        }
        if (e->report) {
                pipeline_status(e->pipeline, &s);
                loop_arm(e->host->loop, t, report_tell(e->report, &s, now));
        }
        wake_observer(e->host);
}

static void stop_entry(struct entry *e, usec give_up_at)
{
        if (!e->pipeline)
                return;
        loop_ready(e->host->loop, &e->task); /* it may have stopped already: then it goes on from there */
        if (e->stopping)
                return;
        e->stopping = true;
        pipeline_stop(e->pipeline, give_up_at);
}

static struct entry *find(const struct host *h, const char *namespace_, const char *name)
{
        BUF_AT_END struct buf key = BUF_INIT(1024);
        struct entry *e = NULL;

        buf_printf(&key, "%s/%s", namespace_, name);
        if (!key.failed)
                HASH_FIND(hh, h->by_key, key.p, key.n, e);
        return e;
}

static struct entry *entry_new(struct host *h, struct trigger *t)
{
        BUF_AT_END struct buf key = BUF_INIT(1024);
        struct entry *e = calloc(1, sizeof(*e));

        buf_printf(&key, "%s/%s", t->namespace_, t->name);
        if (!e || key.failed) {
                free(e);
                return NULL;
        }
        e->host = h;
        e->again_at = USEC_NEVER;
        e->task.turn = observe;
        e->key = buf_take(&key);
        HASH_ADD_KEYPTR(hh, h->by_key, e->key, strlen(e->key), e);
        if (!e->hh.tbl) {
                free(e->key);
                free(e);
                return NULL;
        }
        list_append(&h->entries, &e->node);
        return e;
}

/* A new one has its name and its place, and the requests. */
static void supersede(struct entry *e, struct entry *successor)
{
        struct host *h = e->host;
        struct pipeline_status s;

        pipeline_status(e->pipeline, &s);
        successor->changes = e->changes + s.changes + 1;
        list_remove(&successor->node);
        list_insert(&h->entries, &successor->node, &e->node);
        list_remove(&e->node);
        list_append(&h->superseded, &e->node);
        HASH_DEL(h->by_key, e);
        e->superseded = e->removed = true;
        e->successor = trigger_free(e->successor);
        hide(e);
        leave_paths(e);
        pipeline_pass_by(e->pipeline);
        e->stopping = true;
        loop_ready(h->loop, &e->task);
}

static bool may_supersede(const struct entry *e, const struct trigger *t, const struct host_options *options)
{
        return e->pipeline && runs_beside(e->trigger, &e->options) && runs_beside(t, options);
}

int host_set(struct host *h, struct trigger *t, const struct host_options *options, usec give_up_at,
             struct error *err)
{
        struct entry *before = find(h, t->namespace_, t->name), *e = before;
        bool beside = before && may_supersede(before, t, options);

        if ((!before || beside) && !(e = entry_new(h, t))) {
                (void)trigger_free(t);
                return error_memory(err);
        }
        if (beside)
                supersede(before, e);
        e->removed = false;
        if (e->pipeline) {
                (void)trigger_free(e->successor);
                e->successor = t;
                e->successor_options = *options;
                stop_entry(e, give_up_at);
                return 0;
        }
        (void)trigger_free(e->trigger);
        e->trigger = t;
        e->options = *options;
        wake_observer(h);
        return start_entry(e, err);
}

static void say_started(const struct entry *e)
{
        const struct log_scope log = log_scope_of(e->trigger->namespace_, e->trigger->name);

        log_info_for(&log, "a Trigger that could not be started runs now");
}

/* Whose path is nobody's any more is tried at once. */
static void look_at_paths(struct host *h, usec now)
{
        if (!h->paths_left)
                return;
        h->paths_left = false;
        for (struct list_node *n = h->entries.first; n; n = n->next) {
                struct entry *e = entry_of(n);

                if (e->failure && e->in_the_way && !e->pipeline && !paths_other(&h->paths, e->trigger))
                        e->again_at = now;
        }
}

/* Those whose time has come, in their order. */
static void start_again(struct task *t, usec now)
{
        struct host *h = CONTAINER_OF(t, struct host, again);
        usec begun = clock_monotonic(h->config.clock), next = USEC_NEVER;

        look_at_paths(h, now);
        for (struct list_node *n = h->entries.first; n && !h->stopping; n = n->next) {
                struct entry *e = entry_of(n);
                struct error err;

                if (e->pipeline)
                        continue;
                if (now >= e->again_at && clock_monotonic(h->config.clock) - begun < TURN_MOST) {
                        if (start_entry(e, &err) == 0)
                                say_started(e);
                        wake_observer(h);
                }
                next = MIN_OF(next, e->again_at);
        }
        loop_arm(h->loop, t, next);
}

int host_refuse(struct host *h, struct trigger *t, const char *why, struct error *err)
{
        struct entry *e = find(h, t->namespace_, t->name);

        if ((e && e->pipeline) || (!e && !(e = entry_new(h, t)))) {
                (void)trigger_free(t);
                return e ? 0 : error_memory(err);
        }
        (void)trigger_free(e->trigger);
        e->trigger = t;
        keep_failure(e, why);
        e->changes++;
        wake_observer(h);
        return 0;
}

void host_remove(struct host *h, const char *namespace_, const char *name, usec give_up_at)
{
        struct entry *e = find(h, namespace_, name);

        if (!e)
                return;
        e->removed = true;
        e->successor = trigger_free(e->successor);
        leave_paths(e);
        if (e->pipeline && runs_beside(e->trigger, &e->options))
                pipeline_pass_by(e->pipeline); /* its path is nobody's at once */
        if (e->pipeline)
                stop_entry(e, give_up_at);
        else
                go_on(e);
}

bool host_failed(const struct host *h, const char *namespace_, const char *name)
{
        const struct entry *e = find(h, namespace_, name);

        return e && e->failure;
}

const struct trigger *host_find(const struct host *h, const char *namespace_, const char *name)
{
        const struct entry *e = find(h, namespace_, name);

        return !e || e->removed ? NULL : e->successor ? e->successor : e->trigger;
}

/* ---- all of them -------------------------------------------------------- */

/* Whoever still sends here has not heard of the end, however long ago that was: a busy node's kube-proxy can
 * be many seconds late, and after the end of this process its connections have no route to a host. */
static usec linger_end(const struct host *h)
{
        usec quiet = gate_host_last_accepted(h->gates) + h->end.quiet;

        return MIN_OF(MAX_OF(h->stopped_at + h->end.linger, quiet), h->stopped_at + h->end.linger_most);
}

static void on_lingered(struct task *t, usec now)
{
        struct host *h = CONTAINER_OF(t, struct host, lingered);

        usec end = linger_end(h);

        if (now < end) {
                loop_arm(h->loop, t, end);
                return;
        }
        h->give_up_at = now + h->end.grace;
        for (struct list_node *n = h->entries.first; n; n = n->next)
                stop_entry(entry_of(n), h->give_up_at);
}

/* For a pipeline a call is over once the listener has its answer, which the caller may take slowly; and what
 * has begun to arrive is still told that the worker stops. */
static void on_rested(struct task *t, usec now)
{
        struct host *h = CONTAINER_OF(t, struct host, rested);

        if (!h->stopping || !host_stopped(h))
                return;
        if (h->gates)
                gate_host_drain(h->gates, 0);
        h->answered = !h->gates || now >= h->give_up_at || !gate_host_busy(h->gates);
        if (!h->answered)
                loop_arm(h->loop, t, h->give_up_at);
        wake_observer(h);
}

void host_stop(struct host *h, const struct host_end *end)
{
        usec now = loop_now(h->loop);
        usec linger;

        if (h->stopping)
                return;
        h->stopping = true;
        h->stopped_at = now;
        h->end = *end;
        h->end.linger_most = MAX_OF(end->linger, end->linger_most);
        if (!h->gates)
                h->end.linger = h->end.linger_most = 0;
        linger = h->end.linger_most;
        h->give_up_at = now + linger + end->grace;
        if (h->admin)
                admin_drain(h->admin);
        if (h->gates) /* who comes after that hears 503, until it has stopped */
                gate_host_drain(h->gates, linger + end->grace);
        for (struct list_node *n = h->entries.first; n; n = n->next)
                if (!linger || !entry_of(n)->pipeline || !is_push(entry_of(n)))
                        stop_entry(entry_of(n), now + end->grace);
        for (struct list_node *n = h->superseded.first; n; n = n->next)
                pipeline_stop(entry_of(n)->pipeline, now + linger + end->grace);
        loop_arm(h->loop, &h->lingered, linger ? linger_end(h) : USEC_NEVER);
        loop_ready(h->loop, &h->rested);
        wake_observer(h);
}

static bool all_are(const struct list *entries, bool (*are)(const struct pipeline *))
{
        for (struct list_node *n = entries->first; n; n = n->next)
                if (entry_of(n)->pipeline && !are(entry_of(n)->pipeline))
                        return false;
        return true;
}

bool host_stopped(const struct host *h)
{
        return all_are(&h->entries, pipeline_stopped) && all_are(&h->superseded, pipeline_stopped);
}

bool host_ended(const struct host *h) { return host_stopped(h) && h->answered; }

bool host_drained(const struct host *h)
{
        return all_are(&h->entries, pipeline_drained) && all_are(&h->superseded, pipeline_drained);
}

void host_each(const struct host *h, void (*each)(void *cookie, const struct host_entry *), void *cookie)
{
        for (struct list_node *n = h->entries.first; n; n = n->next) {
                const struct entry *e = entry_of(n);
                struct host_entry out = { .trigger = e->trigger,
                                          .runs = e->pipeline || e->successor,
                                          .failure = e->failure };

                if (e->pipeline)
                        pipeline_status(e->pipeline, &out.status);
                else
                        out.status = pipeline_unstarted(e->failure ? e->failure : "");
                out.changes = e->changes + out.status.changes;
                each(cookie, &out);
        }
}

/* ---- life --------------------------------------------------------------- */

int host_new(struct host **out, struct loop *loop, const struct host_config *config, struct error *err)
{
        struct host *h = calloc(1, sizeof(*h));

        if (!h)
                return error_memory(err);
        h->loop = loop;
        h->config = *config;
        if (config->listen)
                h->listen = *config->listen;
        h->lingered.turn = on_lingered;
        h->again.turn = start_again;
        h->rested.turn = on_rested;
        if (http_client_new(&h->http, loop, err) < 0 ||
            cloud_client_new(&h->cloud, loop, h->http, config->clock, err) < 0 ||
            (config->kube &&
             recorder_new(&h->recorder, config->kube, WORKER_EVENT_REPORTER, config->pod, err) < 0) ||
            (config->admin && admin_new(&h->admin, loop, config->admin, err) < 0)) {
                (void)host_free(h);
                return -1;
        }
        if (h->recorder)
                recorder_only_creates(h->recorder);
        *out = h;
        return 0;
}

struct host *host_free(struct host *h)
{
        if (!h)
                return NULL;
        assert(host_stopped(h));
        while (h->entries.first)
                entry_free(entry_of(h->entries.first));
        while (h->superseded.first)
                entry_free(entry_of(h->superseded.first));
        (void)admin_free(h->admin);
        (void)gate_host_free(h->gates);
        (void)fetch_client_free(h->fetches);
        (void)lock_file_free(h->locks);
        (void)file_store_free(h->files);
        (void)cloud_client_free(h->cloud);
        (void)recorder_free(h->recorder);
        (void)http_client_free(h->http);
        loop_forget(h->loop, &h->lingered);
        loop_forget(h->loop, &h->again);
        loop_forget(h->loop, &h->rested);
        free(h);
        return NULL;
}

uint16_t host_admin_port(const struct host *h) { return h->admin ? admin_port(h->admin) : 0; }
uint16_t host_listen_port(const struct host *h) { return h->gates ? gate_host_port(h->gates) : 0; }
