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

/* How long sources may take to stop after the grace; and how long before its end the requests that are still
 * in flight are counted, which are cancelled then. */
static const usec SOURCES_GRACE = 5 * USEC_SEC, SHORTLY = USEC_MSEC;
/* The pause before a Trigger that could not be started is tried again; it doubles each time. */
static const usec AGAIN_FIRST = USEC_SEC, AGAIN_MOST = USEC_MINUTE;
/* How long, and on how many entries, the host works in one pass of the loop. The number matters where
 * pipelines are stopped: that takes no time here, but their own turns do. */
static const usec TURN_MOST = 4 * USEC_MSEC;
enum { TURN_ENTRIES = 64 };
static char no_memory[] = "out of memory";

struct entry {                 /* a Trigger */
        struct list_node node; /* in the host's entries or superseded */
        struct host *host;
        struct task task; /* observes the pipeline */
        struct trigger *trigger;
        struct host_options options;
        struct pipeline *pipeline; /* NULL: suspended, failed, or not started yet */
        struct file_store_end *file;
        struct kube_checkpoint *checkpoint;
        struct lock_end *locks; /* this and leases: of a source that several workers share */
        struct kube_leases *leases;
        struct report *report; /* NULL: outside a cluster */
        struct admin_entry shown;
        struct list ways; /* the paths by which it is reached, in the host's paths */
        bool in_the_way;  /* it failed because another Trigger has one of its paths */
        char *failure;    /* why the Trigger, or its successor, could not be started; NULL: it did not fail */
        usec wait;        /* the last pause after a failure; 0: it did not fail */
        struct list_node turn;     /* in the host's queue, or in its blocked */
        struct heap_node again;    /* in the host's later, by when it is tried again */
        uint64_t changes;          /* of its earlier pipelines */
        struct trigger *successor; /* to be started beside the pipeline, or once it has stopped; NULL: none */
        struct host_options successor_options;
        usec give_up_at; /* how long requests in flight may take once the pipeline is stopped */
        bool removed, stopping;
        bool superseded; /* another entry has its name: it only finishes what is in flight */
        char *key;       /* namespace/name */
        UT_hash_handle hh, hh_uid;
        bool has_uid; /* it is in by_uid */
};

struct host {
        struct loop *loop;
        struct host_config config;
        struct http_client *http;
        struct cloud_client *cloud;
        struct recorder *recorder; /* NULL: outside a cluster */
        struct admin *admin;
        struct file_store *
                files; /* this and locks are opened with the first Trigger that needs them; NULL: none does */
        struct lock_file *locks;
        struct gate_host_config listen;
        struct gate_host *gates;
        struct fetch_client *fetches; /* of push sources */
        struct fetch fetch;
        struct list entries, superseded; /* only entries are in by_key */
        struct entry *by_key;
        /* Of pipelines whose successor may not run beside them: what they keep elsewhere stands under the
         * uid, whatever the Trigger's name. */
        struct entry *by_uid;
        struct paths paths;
        bool paths_left;            /* some became free since look_at_paths */
        struct list_node *look;     /* the entry that host_each_some goes on with; NULL: from the first on */
        struct list queue;          /* entries that are to be started, replaced, stopped or freed */
        struct list blocked;        /* entries whose uid another pipeline has, which ends */
        struct heap later;          /* those that failed */
        struct task work, lingered; /* work: on the queue */
        struct host_end end;        /* how it stops */
        usec stopped_at;
        usec give_up_at;
        struct task rested; /* looks whether all requests are answered */
        bool stopping, answered;
        bool gave_up, hangs; /* at the end of the grace, and of what sources have after it */
};

static struct entry *entry_of(struct list_node *n) { return LIST_ITEM(n, struct entry, node); }

static void wake_observer(struct host *h)
{
        if (h->config.observer)
                loop_ready(h->loop, h->config.observer);
}

/* It has its turn after those that are in the queue already. */
static void enqueue(struct entry *e)
{
        if (e->turn.list == &e->host->blocked)
                list_remove(&e->turn);
        if (!list_has(&e->turn))
                list_append(&e->host->queue, &e->turn);
        loop_ready(e->host->loop, &e->host->work);
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

/* Several workers may share its source: what one keeps in its own directory the others would not see. */
static bool is_shared(const struct entry *e)
{
        const struct source_type *type = &e->trigger->types[e->trigger->source];

        return !e->options.kind && type->shared && !(type->stored && e->host->config.state);
}

/* A folder of positions is one process's alone: what keeps nothing there must not ask for it. */
static bool keeps_files(const struct entry *e)
{
        bool storeless = !e->options.kind && e->trigger->types[e->trigger->source].storeless;

        return e->host->config.state && !storeless && !is_shared(e);
}

static int open_store(void *cookie, struct store *out, struct error *err)
{
        static const struct store_ops none = { no_get, no_put, no_cancel };
        struct entry *e = cookie;
        struct host *h = e->host;

        if (keeps_files(e)) {
                if ((!h->files && file_store_new(&h->files, h->loop, h->config.state, err) < 0) ||
                    file_store_end_new(&e->file, h->files, str_of(e->trigger->uid), err) < 0)
                        return -1;
                *out = file_store_port(e->file);
        } else if (h->config.kube) {
                if (open_in_cluster(e, out, err) < 0)
                        return -1;
        } else
                *out = (struct store){ .ops = &none };
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
                                             .waits = WORKER_ANNOTATION_WAITS,
                                             .number = WORKER_ANNOTATION_SLOTS,
                                             .since = WORKER_ANNOTATION_GENERATION,
                                             .slots = (uint32_t)e->trigger->replicas,
                                             .generation = e->trigger->generation,
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

/* A warning of its source becomes a Kubernetes event. */
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

/* ---- one pipeline for a uid ---------------------------------------------- */

/* A Trigger that was renamed keeps its uid, and with it its positions and the ids of its events: the pipeline
 * of the old name must have ended before that of the new one begins. NULL: no other has it. */
static struct entry *uid_holder(const struct entry *e)
{
        struct entry *other;

        HASH_FIND(hh_uid, e->host->by_uid, e->trigger->uid, strlen(e->trigger->uid), other);
        return other != e ? other : NULL;
}

static int take_uid(struct entry *e, struct error *err)
{
        struct host *h = e->host;

        HASH_ADD_KEYPTR(hh_uid, h->by_uid, e->trigger->uid, strlen(e->trigger->uid), e);
        e->has_uid = e->hh_uid.tbl != NULL;
        return e->has_uid ? 0 : error_memory(err);
}

/* They are few, and seldom any. */
static void unblock_all(struct host *h)
{
        LIST_EACH (struct entry, e, &h->blocked, turn)
                enqueue(e);
}

static void leave_uid(struct entry *e)
{
        if (!e->has_uid)
                return;
        HASH_DELETE(hh_uid, e->host->by_uid, e);
        e->has_uid = false;
        unblock_all(e->host);
}

static bool is_ending(const struct entry *e)
{
        return e->removed || e->stopping || (e->successor && !e->failure);
}

/* Where another pipeline has its uid, it waits for the end of that one. */
static int wait_for_uid(struct entry *e, bool *waits, struct error *err)
{
        const struct entry *other = e->trigger->suspend || runs_beside(e->trigger, &e->options)
                                            ? NULL
                                            : uid_holder(e);

        *waits = false;
        if (!other)
                return 0;
        if (!is_ending(other))
                return error_set(err, ERROR_CONFLICT,
                                 "metadata.uid \"%s\" is also that of the Trigger %s, which still runs: give "
                                 "each its own",
                                 e->trigger->uid, other->key);
        list_remove(&e->turn);
        list_append(&e->host->blocked, &e->turn);
        *waits = true;
        return 0;
}

/* ---- its pipeline -------------------------------------------------------- */

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

/* As the entry's Trigger is to be run, or its successor. */
static int configure(struct entry *e, const struct trigger *t, const struct host_options *options,
                     struct pipeline_config *out, struct error *err)
{
        struct host *h = e->host;

        *out = (struct pipeline_config){ .loop = h->loop,
                                         .http = h->http,
                                         .cloud = cloud_client_cloud(h->cloud),
                                         .clock = h->config.clock,
                                         .trigger = t,
                                         .kind = options->kind,
                                         .source_spec = options->source_spec,
                                         .sink = options->sink,
                                         .dead_letter = options->dead_letter,
                                         .secrets = h->config.secrets,
                                         .instance = options->instance,
                                         .ending = options->ending,
                                         .observer = &e->task,
                                         .open_store = open_store,
                                         .close_store = close_store,
                                         .open_claims = open_claims,
                                         .close_claims = close_claims,
                                         .store_cookie = e };

        if (h->recorder)
                out->notices = (struct notices){ write_event, e };
        if (kind_of(t, options)->push && open_gates(h, err) < 0)
                return -1;
        out->host = h->gates;
        out->fetch = h->fetches ? &h->fetch : NULL;
        return 0;
}

static int start_pipeline(struct entry *e, struct error *err)
{
        struct host *h = e->host;
        struct pipeline_config config;

        if (configure(e, e->trigger, &e->options, &config, err) < 0)
                return -1;
        if (!runs_beside(e->trigger, &e->options) && take_uid(e, err) < 0)
                return -1;
        if ((h->config.kube && report_new(&e->report, h->config.kube, h->config.pod, e->trigger, err) < 0) ||
            pipeline_new(&e->pipeline, &config, err) < 0) {
                e->report = report_free(e->report);
                leave_uid(e);
                return -1;
        }
        loop_ready(h->loop, &e->task);
        return 0;
}

/* Neither the admin port nor the Trigger's status shows it any more. */
static void hide(struct entry *e)
{
        admin_remove(&e->shown);
        e->report = report_free(e->report);
}

/* It is in the queue to be started. */
static bool is_waiting(const struct entry *e)
{
        return !e->pipeline && !e->failure && !e->removed && !e->trigger->suspend && list_has(&e->turn);
}

/* Shows its pipeline at the admin port, why there is none, or why its successor could not be started. */
static void show(struct entry *e)
{
        if (!e->host->admin || (!e->pipeline && !e->failure && !is_waiting(e))) {
                admin_remove(&e->shown);
                return;
        }
        e->shown.pipeline = e->pipeline;
        e->shown.trigger = e->trigger;
        e->shown.failure = e->failure;
        if (!list_has(&e->shown.node))
                admin_add(e->host->admin, &e->shown);
}

/* Other Triggers may be waiting for paths that are free now. */
static void say_paths_left(struct host *h)
{
        h->paths_left = true;
        loop_ready(h->loop, &h->work);
}

static void leave_paths(struct entry *e)
{
        if (!e->ways.n)
                return;
        paths_leave(&e->host->paths, &e->ways);
        say_paths_left(e->host);
}

static void forget_failure(struct entry *e)
{
        if (e->failure != no_memory)
                free(e->failure);
        e->failure = NULL;
        heap_remove(&e->host->later, &e->again);
}

static void keep_failure(struct entry *e, const char *why)
{
        forget_failure(e);
        e->failure = str_dup(str_of(why));
        if (!e->failure)
                e->failure = no_memory;
        show(e);
        unblock_all(e->host); /* it may go on as it was, with its uid */
}

static struct log_scope log_of(const struct trigger *t) { return log_scope_of(t->namespace_, t->name); }

/* It, or its successor, could not be started, and is tried again later. */
static void failed(struct entry *e, const char *why)
{
        struct host *h = e->host;

        if (!e->failure || strcmp(why, e->failure) != 0)
                e->changes++;
        keep_failure(e, why);
        e->wait = e->wait ? MIN_OF(2 * e->wait, AGAIN_MOST) : AGAIN_FIRST;
        if (!heap_insert(&h->later, &e->again, loop_now(h->loop) + e->wait))
                enqueue(e); /* never: there is room for each entry */
        loop_ready(h->loop, &h->work);
}

static void started(struct entry *e)
{
        struct log_scope log = log_of(e->trigger);

        if (e->wait)
                log_info_for(&log, "a Trigger that could not be started runs now");
        e->changes += e->failure != NULL;
        e->wait = 0;
        forget_failure(e);
        show(e);
}

/* before: the paths of its predecessor, which still runs; NULL: there is none. */
static int take_paths(struct entry *e, const struct list *before, struct error *err)
{
        leave_paths(e);
        return e->options.kind || e->options.ending
                       ? 0
                       : paths_take(&e->host->paths, &e->ways, before, e->trigger, err);
}

static int begin(struct entry *e, const struct list *before, struct error *err)
{
        e->stopping = false;
        if (e->trigger->suspend || (take_paths(e, before, err) == 0 && start_pipeline(e, err) == 0))
                return 0;
        leave_paths(e);
        return -1;
}

static int start_entry(struct entry *e, struct error *err)
{
        bool waits;

        if (wait_for_uid(e, &waits, err) < 0) {
                failed(e, err->text);
                return -1;
        }
        if (waits) {
                show(e);
                return 0;
        }
        if (begin(e, NULL, err) < 0) {
                e->in_the_way = paths_other(&e->host->paths, NULL, e->trigger) != NULL;
                failed(e, err->text);
                return -1;
        }
        started(e);
        return 0;
}

static void end_pipeline(struct entry *e)
{
        hide(e);
        leave_paths(e);
        e->pipeline = pipeline_free(e->pipeline);
        leave_uid(e);
}

static void entry_free(struct entry *e)
{
        end_pipeline(e);
        if (e->host->look == &e->node)
                e->host->look = e->node.next;
        list_remove(&e->node);
        list_remove(&e->turn);
        if (!e->superseded)
                HASH_DEL(e->host->by_key, e);
        loop_forget(e->host->loop, &e->task);
        (void)trigger_free(e->successor);
        (void)trigger_free(e->trigger);
        forget_failure(e);
        free(e->key);
        free(e);
}

static void succeed(struct entry *e)
{
        (void)trigger_free(e->trigger);
        e->trigger = TAKE(e->successor);
        e->options = e->successor_options;
}

/* Its pipeline has stopped, or there was none: it is freed, or its Trigger or successor is started. */
static int go_on(struct entry *e, struct error *err)
{
        struct pipeline_status s;

        if (e->removed) {
                entry_free(e);
                return 0;
        }
        if (e->pipeline) {
                pipeline_status(e->pipeline, &s);
                e->changes += s.changes + 1;
                end_pipeline(e);
        }
        if (e->successor)
                succeed(e);
        return start_entry(e, err);
}

static void observe(struct task *t, usec now)
{
        struct entry *e = CONTAINER_OF(t, struct entry, task);
        struct pipeline_status s;

        if (!e->pipeline)
                return;
        if (pipeline_stopped(e->pipeline)) {
                if (e->removed || e->successor)
                        enqueue(e);
                if (e->host->stopping)
                        loop_ready(e->host->loop, &e->host->rested);
                wake_observer(e->host);
                return;
        }
        if (e->report) {
                pipeline_status(e->pipeline, &s);
                loop_arm(e->host->loop, t, report_tell(e->report, &s, now));
        }
        wake_observer(e->host);
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
        if (!e || key.failed || !heap_reserve(&h->later, h->entries.n + 1)) {
                free(e);
                return NULL;
        }
        e->host = h;
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

/* The successor, which has been started, takes its name, its place among the entries and its requests. */
static void supersede(struct entry *e, struct entry *successor)
{
        struct host *h = e->host;
        struct pipeline_status s;

        pipeline_status(e->pipeline, &s);
        successor->changes = e->changes + s.changes + 1;
        successor->wait = e->wait;
        if (h->look == &successor->node)
                h->look = successor->node.next;
        list_remove(&successor->node);
        list_insert(&h->entries, &successor->node, &e->node);
        if (h->look == &e->node)
                h->look = &successor->node;
        list_remove(&e->node);
        list_append(&h->superseded, &e->node);
        HASH_DEL(h->by_key, e);
        e->superseded = e->removed = true;
        e->successor = trigger_free(e->successor);
        forget_failure(e);
        if (list_has(&e->shown.node))
                admin_replace(&e->shown, &successor->shown);
        hide(e);
        if (e->ways.n) {
                paths_inherit(&h->paths, &successor->ways, &e->ways);
                say_paths_left(h);
        }
        pipeline_pass_by(e->pipeline, successor->pipeline);
        e->stopping = true;
        loop_ready(h->loop, &e->task);
        started(successor);
}

static const struct trigger *wanted(const struct entry *e)
{
        return e->successor ? e->successor : e->trigger;
}

/* The Trigger that has one of its paths; NULL: none. */
static struct entry *in_the_way_of(const struct entry *e)
{
        const struct trigger *other = paths_other(&e->host->paths, &e->ways, wanted(e));

        return other ? find(e->host, other->namespace_, other->name) : NULL;
}

/* Does it wait for a path of a Trigger that waits for one of its own, perhaps by way of others? So two do
 * that swap their paths. */
static bool wait_for_each_other(const struct entry *e)
{
        const struct entry *o = e;

        for (size_t i = 0; i <= e->host->entries.n; i++) {
                o = in_the_way_of(o);
                if (!o || !o->pipeline || !o->successor || (o != e && !o->in_the_way))
                        return false;
                if (o == e)
                        return true;
        }
        return false;
}

/* It gets no more requests. */
static void pass_by(struct entry *e)
{
        leave_paths(e);
        pipeline_pass_by(e->pipeline, NULL);
        loop_ready(e->host->loop, &e->task); /* it may have stopped already */
}

/* Starts the successor beside it, which serves at once; if that fails, the pipeline goes on. */
static int replace_beside(struct entry *e, struct error *err)
{
        struct entry *n = entry_new(e->host, e->successor);

        if (!n) {
                (void)error_memory(err);
                failed(e, err->text);
                return -1;
        }
        n->trigger = TAKE(e->successor);
        n->options = e->successor_options;
        if (begin(n, &e->ways, err) == 0) {
                supersede(e, n);
                return 0;
        }
        e->successor = TAKE(n->trigger);
        entry_free(n);
        e->in_the_way = in_the_way_of(e) != NULL;
        failed(e, err->text);
        if (e->in_the_way && wait_for_each_other(e))
                pass_by(e);
        return -1;
}

static bool may_supersede(const struct entry *e)
{
        return e->pipeline && runs_beside(e->trigger, &e->options) &&
               runs_beside(e->successor, &e->successor_options);
}

static void stop_entry(struct entry *e, usec give_up_at)
{
        if (!e->pipeline)
                return;
        loop_ready(e->host->loop, &e->task); /* it may have stopped already */
        if (e->stopping)
                return;
        e->stopping = true;
        pipeline_stop(e->pipeline, give_up_at);
}

/* What can't be started is to be known before the pipeline is stopped for it, as far as that can be told. */
static int check_successor(struct entry *e, struct error *err)
{
        struct host *h = e->host;
        struct list ways = { 0 };
        struct pipeline_config config;

        if (e->successor->suspend)
                return 0;
        if (!e->successor_options.kind && !e->successor_options.ending &&
            paths_take(&h->paths, &ways, &e->ways, e->successor, err) < 0)
                return -1;
        paths_leave(&h->paths, &ways);
        if (configure(e, e->successor, &e->successor_options, &config, err) < 0)
                return -1;
        return pipeline_check(&config, err);
}

/* Takes the next step: starts, replaces, stops or frees it. -1: what was to be started failed. */
static int advance(struct entry *e, struct error *err)
{
        if (!e->pipeline || pipeline_stopped(e->pipeline))
                return go_on(e, err);
        if (e->successor && may_supersede(e))
                return replace_beside(e, err);
        if (e->successor && !e->removed && !e->stopping && check_successor(e, err) < 0) {
                e->in_the_way = in_the_way_of(e) != NULL;
                failed(e, err->text);
                return -1;
        }
        if (e->removed || e->successor)
                stop_entry(e, e->give_up_at);
        return 0;
}

/* The entry of a Trigger that is to be run like this; advance does the rest. Takes the Trigger. NULL: out of
 * memory. */
static struct entry *want(struct host *h, struct trigger *t, const struct host_options *options,
                          usec give_up_at)
{
        struct entry *e = find(h, t->namespace_, t->name);
        bool is_new = !e;

        if (is_new && !(e = entry_new(h, t))) {
                (void)trigger_free(t);
                return NULL;
        }
        (void)trigger_free(e->successor);
        e->successor = t;
        e->successor_options = *options;
        e->give_up_at = give_up_at;
        e->removed = e->in_the_way = false;
        e->wait = 0;
        heap_remove(&h->later, &e->again);
        if (!e->pipeline)
                succeed(e);
        return e;
}

int host_set(struct host *h, struct trigger *t, const struct host_options *options, usec give_up_at,
             struct error *err)
{
        struct entry *e = want(h, t, options, give_up_at);
        int result;

        if (!e)
                return error_memory(err);
        list_remove(&e->turn);
        result = advance(e, err);
        wake_observer(h);
        return result;
}

int host_want(struct host *h, struct trigger *t, const struct host_options *options, usec give_up_at,
              struct error *err)
{
        struct entry *e = want(h, t, options, give_up_at);

        if (!e)
                return error_memory(err);
        enqueue(e);
        if (!e->pipeline) {
                forget_failure(e);
                show(e);
        }
        wake_observer(h);
        return 0;
}

size_t host_waiting(const struct host *h) { return h->queue.n + h->blocked.n; }

/* Puts those that waited for a path that is free now at the head of the queue. */
static void look_at_paths(struct host *h)
{
        struct list_node *first = h->queue.first;

        for (size_t i = 1; h->paths_left && i <= h->later.n; i++) {
                struct entry *e = CONTAINER_OF(h->later.nodes[i], struct entry, again);

                if (e->in_the_way && !list_has(&e->turn) && !in_the_way_of(e))
                        list_insert(&h->queue, &e->turn, first);
        }
        h->paths_left = false;
}

/* Queues those that failed and are due. */
static void look_at_later(struct host *h, usec now)
{
        for (struct heap_node *n; (n = heap_first(&h->later)) && n->at <= now;) {
                struct entry *e = CONTAINER_OF(n, struct entry, again);

                heap_remove(&h->later, n);
                enqueue(e);
        }
}

static void log_failure(const struct entry *e, const struct error *err)
{
        const struct log_scope log = log_of(e->trigger);

        if (e->wait > AGAIN_FIRST)
                return; /* it was logged */
        if (e->pipeline)
                log_error_for(&log, "a Trigger's change can't be started: it goes on as it was",
                              LOG_S("error", err->text));
        else
                log_error_for(&log, "a Trigger can't be started", LOG_S("error", err->text));
}

/* Works on the queue for a moment, and goes on in the next pass of the loop. */
static void work(struct task *t, usec now)
{
        struct host *h = CONTAINER_OF(t, struct host, work);
        usec begun = clock_monotonic(h->config.clock);
        struct error err;

        if (h->stopping)
                return;
        look_at_later(h, now);
        for (int i = 0; i < TURN_ENTRIES && clock_monotonic(h->config.clock) - begun < TURN_MOST; i++) {
                struct entry *e;

                look_at_paths(h);
                e = LIST_TAKE(&h->queue, struct entry, turn);
                if (!e)
                        break;
                heap_remove(&h->later, &e->again);
                if (advance(e, &err) < 0)
                        log_failure(e, &err);
        }
        if (h->queue.n)
                loop_ready(h->loop, t);
        loop_arm(h->loop, t, heap_first(&h->later) ? heap_first(&h->later)->at : USEC_NEVER);
        wake_observer(h);
}

int host_refuse(struct host *h, struct trigger *t, const char *why, struct error *err)
{
        struct entry *e = find(h, t->namespace_, t->name);

        if (!e && !(e = entry_new(h, t))) {
                (void)trigger_free(t);
                return error_memory(err);
        }
        if (!e->stopping)
                list_remove(&e->turn);
        if (e->pipeline) {
                if (!e->stopping)
                        e->successor = trigger_free(e->successor);
                (void)trigger_free(t);
        } else {
                (void)trigger_free(e->trigger);
                e->trigger = t;
        }
        e->removed = false;
        keep_failure(e, why);
        e->changes++;
        wake_observer(h);
        return 0;
}

void host_remove(struct host *h, const char *namespace_, const char *name, usec give_up_at)
{
        struct entry *e = find(h, namespace_, name);

        if (!e || e->removed)
                return;
        e->removed = true;
        e->successor = trigger_free(e->successor);
        e->give_up_at = give_up_at;
        forget_failure(e);
        if (e->pipeline && runs_beside(e->trigger, &e->options))
                pass_by(e); /* its paths are free at once */
        enqueue(e);
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

/* A client that still connects has not heard that this worker ends: kube-proxy of a busy node can be many
 * seconds late. Once the process has ended, such connections fail. */
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
        loop_ready(h->loop, &h->rested);
}

static uint32_t in_flight(const struct list *entries)
{
        struct pipeline_status s;
        uint32_t n = 0;

        for (struct list_node *node = entries->first; node; node = node->next)
                if (entry_of(node)->pipeline) {
                        pipeline_status(entry_of(node)->pipeline, &s);
                        n += s.stats.in_flight;
                }
        return n;
}

/* Just before the requests are cancelled. */
static void give_up(struct host *h)
{
        uint32_t n = in_flight(&h->entries) + in_flight(&h->superseded);
        bool callers = h->gates && gate_host_busy(h->gates);

        h->gave_up = true;
        if (n || callers)
                log_warn(
                        "requests in flight are given up: allow more time for a function that takes long, or "
                        "for a caller that reads slowly",
                        LOG_I("requests", n));
}

static void log_hanging(const struct entry *e)
{
        struct log_scope log = log_of(e->trigger);
        struct pipeline_status s;
        char unsaved[32] = "unknown";

        pipeline_status(e->pipeline, &s);
        if (s.unsaved >= 0)
                (void)snprintf(unsaved, sizeof(unsaved), "%lld", (long long)s.unsaved);
        log_warn_for(&log, "the source does not end in time; what was done and is not saved comes again",
                     LOG_S("notSaved", unsaved), LOG_S("reason", s.source_text));
}

/* The peer of a source is silent: what is not saved there comes again. */
static void leave_hanging(struct host *h)
{
        h->hangs = true;
        for (struct list_node *n = h->entries.first; n; n = n->next)
                if (entry_of(n)->pipeline && !pipeline_stopped(entry_of(n)->pipeline))
                        log_hanging(entry_of(n));
        wake_observer(h);
}

/* A pipeline is done with a request once the listener has the response, which the client may read slowly; and
 * requests that have begun to arrive are still answered, with 503. */
static void on_rested(struct task *t, usec now)
{
        struct host *h = CONTAINER_OF(t, struct host, rested);

        if (!h->stopping)
                return;
        if (!h->gave_up && now >= h->give_up_at - SHORTLY)
                give_up(h);
        if (!host_stopped(h)) {
                if (!h->hangs && now >= h->give_up_at + SOURCES_GRACE)
                        leave_hanging(h);
                if (!h->hangs)
                        loop_arm(h->loop, t, h->give_up_at + (h->gave_up ? SOURCES_GRACE : -SHORTLY));
                return;
        }
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
        if (h->gates) /* later requests are answered 503, until it has stopped */
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

bool host_ended(const struct host *h) { return h->hangs || (host_stopped(h) && h->answered); }

bool host_drained(const struct host *h)
{
        return all_are(&h->entries, pipeline_drained) && all_are(&h->superseded, pipeline_drained);
}

static void tell(const struct entry *e, void (*each)(void *cookie, const struct host_entry *), void *cookie)
{
        struct host_entry out = { .trigger = e->trigger,
                                  .runs = e->pipeline || e->successor || is_waiting(e),
                                  .waits = is_waiting(e),
                                  .failure = e->failure };

        pipeline_shown(e->pipeline, e->failure, &out.status);
        out.changes = e->changes + out.status.changes;
        each(cookie, &out);
}

void host_each(const struct host *h, void (*each)(void *cookie, const struct host_entry *), void *cookie)
{
        for (struct list_node *n = h->entries.first; n; n = n->next)
                tell(entry_of(n), each, cookie);
}

bool host_each_some(struct host *h, size_t most, void (*each)(void *cookie, const struct host_entry *),
                    void *cookie)
{
        struct list_node *n = h->look ? h->look : h->entries.first;

        for (; n && most; n = n->next, most--)
                tell(entry_of(n), each, cookie);
        h->look = n;
        return n;
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
        h->work.turn = work;
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
        loop_forget(h->loop, &h->work);
        loop_forget(h->loop, &h->rested);
        heap_done(&h->later);
        free(h);
        return NULL;
}

uint16_t host_admin_port(const struct host *h) { return h->admin ? admin_port(h->admin) : 0; }
uint16_t host_listen_port(const struct host *h) { return h->gates ? gate_host_port(h->gates) : 0; }
