#include "controller/controller.h"

#include <inttypes.h>
#include <stdio.h>

#include "api/worker.h"
#include "log/log.h"
#include "base/table.h"
#include "controller/children.h"
#include "controller/clash.h"
#include "controller/decode.h"
#include "controller/finalizers.h"
#include "controller/sink.h"
#include "controller/status.h"
#include "controller/trim.h"
#include "json/value.h"
#include "kube/events.h"
#include "kube/queue.h"
#include "kube/reflector.h"
#include "source/source.h"

static const char MANAGER[] = "sluice-controller";
static const char WORKERS[] = LABEL_MANAGED_BY "=sluice," LABEL_COMPONENT "=worker";

enum { TRIGGERS, DEPLOYMENTS, PODS, SERVICES, COLLECTIONS };

/* What is remembered of a Trigger between two reconciles. */
struct memory {
        UT_hash_handle hh;
        char *applied;   /* hash of the children that were applied; NULL: not known */
        char *status_at; /* resourceVersion of the Trigger the last status was made for */
        json_t *status;  /* the last status written */
        /* its worker's last run has begun: what its checkpoint says no longer counts */
        bool ending;
        json_int_t unknown_told; /* the generation whose unknown members were told */
        char key[];
};

/* The pods of a Trigger's workers. */
struct crew {
        UT_hash_handle hh;
        json_t *pods; /* array of trimmed pods */
        char key[];
};

/* One Trigger being reconciled. */
static const usec LOOK_AGAIN = 5 * USEC_SEC;

struct work {
        struct work *next;
        struct controller *controller;
        struct kube_call *call;
        char *key, *namespace_, *name;
        json_t *object;          /* the Trigger as it was */
        struct trigger *trigger; /* NULL: it can't be decoded */
        struct buf invalid, sink, dead_letter, sink_message, hash, failed;
        struct buf stuck;   /* what keeps a worker's pod from starting, as its events say */
        bool conflict;      /* invalid by another Trigger */
        bool look_again;    /* that may change without anything we watch */
        bool ending;        /* it is deleted, and held by our finalizer */
        struct buf outside; /* what it has outside the cluster; empty: nothing */
        usec look_at;       /* when its end may wait no longer; 0: it does not end */
        const char *sink_reason;
        usec retry_after; /* what the API server asked for; 0: nothing */
        int child;        /* the next to be applied */
        json_t *status;
        char *vanished; /* a pod that may be gone, whose entry is then removed */
};

struct controller {
        struct controller_config config;
        struct loop *loop;
        struct reflector *collections[COLLECTIONS];
        char *paths[COLLECTIONS];
        struct queue *queue;
        struct recorder *recorder;
        struct task task;
        struct work *works;
        int64_t busy;
        struct memory *memories;
        struct crew *crews;
        struct clashes clashes;
};

static json_t *metadata_of(json_t *o) { return json_object_get(o, "metadata"); }

static const char *uid_of(const struct work *w) { return json_cstring(metadata_of(w->object), "uid"); }

static struct memory *memory_of(struct controller *c, const char *key, bool make)
{
        struct memory *m;
        size_t n = strlen(key);

        HASH_FIND_STR(c->memories, key, m);
        if (m || !make)
                return m;
        m = calloc(1, sizeof(*m) + n + 1);
        if (!m)
                abort();
        memcpy(m->key, key, n);
        HASH_ADD_STR(c->memories, key, m);
        return m;
}

static void memory_free(struct controller *c, struct memory *m)
{
        HASH_DEL(c->memories, m);
        free(m->applied);
        free(m->status_at);
        json_decref(m->status);
        free(m);
}

static struct crew *crew_of(const struct controller *c, const char *key)
{
        struct crew *w;

        HASH_FIND_STR(c->crews, key, w);
        return w;
}

static void crew_free(struct controller *c, struct crew *w)
{
        HASH_DEL(c->crews, w);
        json_decref(w->pods);
        free(w);
}

static void crew_remove(struct controller *c, const char *key, const char *pod)
{
        struct crew *w = crew_of(c, key);
        size_t i;
        json_t *p;

        if (!w)
                return;
        json_array_foreach(w->pods, i, p) if (strcmp(json_cstring(metadata_of(p), "name"), pod) == 0)
        {
                (void)json_array_remove(w->pods, i);
                break;
        }
        if (json_array_size(w->pods) == 0)
                crew_free(c, w);
}

static void crew_add(struct controller *c, const char *key, json_t *pod)
{
        struct crew *w = crew_of(c, key);
        size_t n = strlen(key);

        if (!w) {
                w = calloc(1, sizeof(*w) + n + 1);
                if (!w || !(w->pods = json_array()))
                        abort();
                memcpy(w->key, key, n);
                HASH_ADD_STR(c->crews, key, w);
        }
        if (json_array_append(w->pods, pod) < 0)
                abort();
}

static void keep(char **to, const char *value)
{
        free(*to);
        *to = value ? str_dup(str_of(value)) : NULL;
}

/* ---- one reconcile ------------------------------------------------------ */

static void work_free(struct work *w)
{
        struct controller *c = w->controller;

        for (struct work **at = &c->works; *at; at = &(*at)->next)
                if (*at == w) {
                        *at = w->next;
                        break;
                }
        kube_cancel(w->call);
        json_decref(w->object);
        json_decref(w->status);
        (void)trigger_free(w->trigger);
        buf_done(&w->invalid);
        buf_done(&w->sink);
        buf_done(&w->dead_letter);
        buf_done(&w->sink_message);
        buf_done(&w->hash);
        buf_done(&w->failed);
        buf_done(&w->stuck);
        buf_done(&w->outside);
        free(w->vanished);
        free(w->key);
        free(w->namespace_);
        free(w->name);
        free(w);
        c->busy--;
}

static void finish(struct work *w, bool again)
{
        struct controller *c = w->controller;

        queue_done(c->queue, w->key);
        if (w->look_again)
                queue_add_after(c->queue, w->key, loop_now(c->loop) + LOOK_AGAIN);
        if (w->look_at)
                queue_add_after(c->queue, w->key, w->look_at);
        if (again && w->retry_after)
                queue_add_after(c->queue, w->key, loop_now(c->loop) + w->retry_after);
        else if (again)
                queue_retry(c->queue, w->key, loop_now(c->loop));
        else
                queue_forget(c->queue, w->key);
        work_free(w);
        loop_ready(c->loop, &c->task);
}

static void record(struct work *w, const char *type, const char *reason, const char *note)
{
        const struct event_object o = { .api_version = API_GROUP_VERSION,
                                        .kind = "Trigger",
                                        .namespace_ = w->namespace_,
                                        .name = w->name,
                                        .uid = json_cstring(metadata_of(w->object), "uid") };

        recorder_event(w->controller->recorder, &o, type, reason, "Reconcile", *note ? note : reason);
}

/* The definition in the cluster may be newer than this program: what it does not know it passes by, and says
 * so once a generation. */
static void say_unknown(struct work *w, const struct problems *problems)
{
        json_int_t generation = json_integer_value(json_object_get(metadata_of(w->object), "generation"));
        struct memory *m;

        if (!problems->unknown)
                return;
        m = memory_of(w->controller, w->key, true);
        if (m->unknown_told == generation)
                return;
        m->unknown_told = generation;
        log_warn("the Trigger has members of another version, which are ignored", LOG_S("trigger", w->key),
                 LOG_S("first", problems->first_unknown), LOG_I("members", problems->unknown));
}

/* What the API server gave, through the one decoder. */
static void decode(struct work *w)
{
        struct problems problems = { 0 };

        w->trigger = decode_object(w->object, w->controller->config.types, w->controller->config.types_n,
                                   &problems);
        if (!w->trigger && problems.n)
                buf_printf(&w->invalid, "%s%s%s", problems.list[0].path ? problems.list[0].path : "",
                           problems.list[0].path && *problems.list[0].path ? ": " : "",
                           problems.list[0].text);
        else if (!w->trigger)
                buf_text(&w->invalid, "can't be read");
        say_unknown(w, &problems);
        problems_done(&problems);
}

/* ---- the status --------------------------------------------------------- */

/* Tells what changed between two statuses. */
static void record_changes(struct work *w, json_t *before)
{
        json_t *list = json_object_get(w->status, "conditions"), *c;
        size_t i;

        json_array_foreach(list, i, c)
        {
                json_t *old = status_condition(before, json_cstring(c, "type"));
                const char *status = json_cstring(c, "status"), *reason = json_cstring(c, "reason");
                char note[640];

                if ((old && strcmp(json_cstring(old, "status"), status) == 0 &&
                     strcmp(json_cstring(old, "reason"), reason) == 0) ||
                    (!old && strcmp(status, "Unknown") == 0))
                        continue;
                if (strcmp(json_cstring(c, "type"), "Ready") == 0 && strcmp(status, "True") != 0 &&
                    strcmp(reason, "InvalidSpec") != 0 && strcmp(reason, STATUS_CONFLICT) != 0)
                        continue; /* the condition that keeps it from being ready has an event of its own */
                if (strcmp(status, "Unknown") == 0)
                        continue;
                (void)snprintf(note, sizeof(note), "%s is %s: %s%s%s", json_cstring(c, "type"), status,
                               reason, *json_cstring(c, "message") ? ": " : "", json_cstring(c, "message"));
                record(w, strcmp(status, "False") == 0 ? "Warning" : "Normal", reason, note);
        }
}

static void status_written(void *cookie, const struct kube_answer *a)
{
        struct work *w = cookie;
        struct memory *m = memory_of(w->controller, w->key, true);

        w->call = NULL;
        if (a->failed) {
                if (a->error.kind != ERROR_NOT_FOUND)
                        log_warn("the status was not written", LOG_S("trigger", w->key),
                                 LOG_S("error", a->error.text));
                w->retry_after = a->error.retry_after;
                finish(w, a->error.kind != ERROR_NOT_FOUND);
                return;
        }
        record_changes(w, m->status ? m->status : json_object_get(w->object, "status"));
        json_decref(m->status);
        m->status = json_incref(w->status);
        keep(&m->status_at, json_cstring(metadata_of(w->object), "resourceVersion"));
        finish(w, w->failed.n > 0);
}

/* What the API server has, without what is the workers' own. */
static json_t *live_status(struct work *w)
{
        json_t *copy = json_copy(json_object_get(w->object, "status"));

        if (copy)
                (void)json_object_del(copy, "workers");
        return copy ? copy : json_object();
}

static void apply_status(struct work *w)
{
        BUF_AT_END struct buf path = BUF_INIT(4096), what = BUF_INIT(4096);
        json_t *body = json_pack("{ss ss s{ss ss} sO}", "apiVersion", API_GROUP_VERSION, "kind", "Trigger",
                                 "metadata", "name", w->name, "namespace", w->namespace_, "status",
                                 w->status);
        char *dump = body ? json_dumps(body, JSON_COMPACT) : NULL;

        buf_printf(&path, "/apis/" API_GROUP_VERSION "/namespaces/%s/triggers/%s/status", w->namespace_,
                   w->name);
        buf_printf(&what, "apply status of Trigger %s", w->key);
        w->call = kube_apply(w->controller->config.client, path.p, MANAGER, true, str_of(dump ? dump : "{}"),
                             what.p, status_written, w);
        free(dump);
        json_decref(body);
}

static void write_status(struct work *w)
{
        struct controller *c = w->controller;
        struct memory *m = memory_of(c, w->key, true);
        json_t *live = live_status(w);
        struct crew *crew = crew_of(c, w->key);
        BUF_AT_END struct buf name = BUF_INIT(1024), selector = BUF_INIT(1024), address = BUF_INIT(4096);
        /* While the copy has not seen the last write, that is what the status is compared with. */
        bool lags = m->status &&
                    string_equal(m->status_at, json_cstring(metadata_of(w->object), "resourceVersion"));
        json_t *previous;
        struct status_facts facts = {
                .generation = json_integer_value(json_object_get(metadata_of(w->object), "generation")),
                .uid = uid_of(w),
                .source = w->trigger ? w->trigger->types[w->trigger->source].name : NULL,
                .invalid = w->invalid.n ? w->invalid.p : NULL,
                .conflict = w->conflict,
                .sink = w->sink.n && !w->sink_reason ? w->sink.p : NULL,
                .sink_reason = w->sink_reason,
                .sink_message = w->sink_message.n ? w->sink_message.p : "",
                .failed = w->failed.n ? w->failed.p : NULL,
                .stuck = w->stuck.n ? w->stuck.p : NULL,
                .ending = w->ending ? w->outside.p : NULL,
                .suspended = w->trigger && w->trigger->suspend && !w->ending,
                .pods = crew ? crew->pods : NULL,
                .workers = json_object_get(json_object_get(w->object, "status"), "workers"),
                .now = clock_wall(&system_clock),
        };

        if (!lags && m->status) {
                json_decref(m->status); /* the copy has it */
                m->status = NULL;
        }
        facts.previous = previous = lags ? m->status : live;
        child_name(CHILD_DEPLOYMENT, w->name, &name);
        facts.deployment = reflector_get(c->collections[DEPLOYMENTS], w->namespace_, name.p);
        buf_printf(&selector, LABEL_INSTANCE "=%s,%s", w->name, WORKERS);
        facts.selector = selector.p;
        if (w->trigger)
                child_address(w->trigger, &address);
        facts.address = address.n ? address.p : NULL;
        w->status = status_fold(&facts);
        if (!w->status || json_equal(w->status, previous))
                finish(w, w->failed.n > 0);
        else
                apply_status(w);
        json_decref(live);
}

/* ---- entries of workers that are gone ----------------------------------- */

static void entry_removed(void *cookie, const struct kube_answer *a)
{
        struct work *w = cookie;

        w->call = NULL;
        /* Seen again by the watch: the status is folded then. */
        if (a->failed && a->error.kind != ERROR_NOT_FOUND && a->error.kind != ERROR_CONFLICT)
                log_warn("a worker's entry was not removed", LOG_S("trigger", w->key),
                         LOG_S("error", a->error.text));
        finish(w, a->failed && a->error.kind != ERROR_NOT_FOUND);
}

/* Takes the body. */
static void patch_trigger(struct work *w, const char *subresource, json_t *body, const char *what,
                          void (*done)(void *, const struct kube_answer *))
{
        BUF_AT_END struct buf path = BUF_INIT(4096);
        struct kube_request q = { .method = "PATCH",
                                  .content_type = "application/merge-patch+json",
                                  .what = what,
                                  .done = done,
                                  .cookie = w };
        FREE_AT_END char *dump = body ? json_dumps(body, JSON_COMPACT) : NULL;

        buf_printf(&path, "/apis/" API_GROUP_VERSION "/namespaces/%s/triggers/%s%s", w->namespace_, w->name,
                   subresource);
        q.path = path.p;
        q.body = str_of(dump ? dump : "{}");
        w->call = kube_send(w->controller->config.client, &q);
        json_decref(body);
}

static void remove_entry(struct work *w)
{
        BUF_AT_END struct buf what = BUF_INIT(4096);
        json_t *rest = json_array(), *entry;
        size_t i;

        json_array_foreach(json_object_get(json_object_get(w->object, "status"), "workers"), i,
                           entry) if (strcmp(json_cstring(entry, "pod"), w->vanished) != 0)(void)
                json_array_append(rest, entry);
        buf_printf(&what, "remove the entry of pod %s from Trigger %s", w->vanished, w->key);
        /* The version keeps an entry that another worker wrote meanwhile. */
        patch_trigger(w, "/status",
                      json_pack("{s{ss} s{so}}", "metadata", "resourceVersion",
                                json_cstring(metadata_of(w->object), "resourceVersion"), "status", "workers",
                                rest),
                      what.p, entry_removed);
}

static void pod_asked(void *cookie, const struct kube_answer *a)
{
        struct work *w = cookie;

        w->call = NULL;
        if (a->failed && a->error.kind == ERROR_NOT_FOUND)
                remove_entry(w);
        else
                write_status(w); /* it is there: the watch will tell */
}

/* An entry whose pod the copy does not know: gone, or so new that the copy has not seen it. Only the API
 * server can tell. */
static bool look_for_vanished(struct work *w)
{
        BUF_AT_END struct buf path = BUF_INIT(4096);
        struct kube_request q = {
                .method = "GET", .what = "look for a worker's pod", .done = pod_asked, .cookie = w
        };
        json_t *entry;
        size_t i;

        json_array_foreach(json_object_get(json_object_get(w->object, "status"), "workers"), i, entry)
        {
                bool stale = status_is_stale(entry, uid_of(w));

                if (!stale && reflector_get(w->controller->collections[PODS], w->namespace_,
                                            json_cstring(entry, "pod")))
                        continue;
                w->vanished = str_dup(str_of(json_cstring(entry, "pod")));
                if (!w->vanished)
                        return false;
                if (stale) {
                        remove_entry(w);
                        return true;
                }
                buf_printf(&path, "/api/v1/namespaces/%s/pods/", w->namespace_);
                kube_escape(&path, str_of(w->vanished));
                q.path = path.p;
                w->call = kube_send(w->controller->config.client, &q);
                return true;
        }
        return false;
}

/* ---- pods that do not start --------------------------------------------- */

/* A pod of the present worker whose container is being made: only its events tell what it waits for. NULL:
 * none. */
static json_t *unstarted_pod(const struct work *w)
{
        struct crew *crew = crew_of(w->controller, w->key);
        json_t *pod, *status;
        size_t i, j;

        json_array_foreach(crew ? crew->pods : NULL, i, pod)
        {
                if (json_object_get(metadata_of(pod), "deletionTimestamp"))
                        continue;
                json_array_foreach(
                        json_object_get(json_object_get(pod, "status"), "containerStatuses"), j,
                        status) if (strcmp(json_cstring(json_object_get(json_object_get(status, "state"),
                                                                        "waiting"),
                                                        "reason"),
                                           "ContainerCreating") == 0) return pod;
        }
        return NULL;
}

static void events_seen(void *cookie, const struct kube_answer *a)
{
        struct work *w = cookie;
        json_t *root = a->failed ? NULL : json_loadb(a->body.p, a->body.n, 0, NULL);

        w->call = NULL;
        buf_text(&w->stuck, status_latest_event(json_object_get(root, "items"), "FailedMount"));
        json_decref(root);
        write_status(w);
}

/* Only Secrets that a user names may be missing. */
static bool ask_why_unstarted(struct work *w)
{
        BUF_AT_END struct buf path = BUF_INIT(4096), what = BUF_INIT(4096);
        struct kube_request q = { .method = "GET", .done = events_seen, .cookie = w };
        json_t *pod;

        if (!w->trigger || (w->trigger->suspend && !w->ending) || !child_mounts_secrets(w->trigger) ||
            !(pod = unstarted_pod(w)))
                return false;
        w->look_again = true;
        buf_printf(&path,
                   "/api/v1/namespaces/%s/"
                   "events?fieldSelector=involvedObject.name%%3D%s%%2Ctype%%3DWarning&limit=50",
                   w->namespace_, json_cstring(metadata_of(pod), "name"));
        buf_printf(&what, "look at the events of pod %s/%s", w->namespace_,
                   json_cstring(metadata_of(pod), "name"));
        q.path = path.p;
        q.what = what.p;
        w->call = kube_send(w->controller->config.client, &q);
        return true;
}

static void conclude(struct work *w)
{
        if (!look_for_vanished(w) && !ask_why_unstarted(w))
                write_status(w);
}

/* ---- the children ------------------------------------------------------- */

static void apply_next(struct work *w);

static void leave_behind(struct work *w, const char *why);

static void give_up(struct work *w, const char *why)
{
        if (strstr(why, "because it is being terminated")) { /* nothing starts in that namespace any more */
                if (w->ending)
                        leave_behind(w, "its namespace is being deleted");
                else
                        finish(w, true); /* the Trigger's own deletion is on its way */
                return;
        }
        log_warn("reconcile", LOG_S("trigger", w->key), LOG_S("error", why));
        buf_text(&w->failed, why);
        record(w, "Warning", "ApplyFailed", why);
        conclude(w);
}

static void child_applied(void *cookie, const struct kube_answer *a)
{
        struct work *w = cookie;

        w->call = NULL;
        if (a->failed) {
                w->retry_after = a->error.retry_after;
                give_up(w, a->error.text);
                return;
        }
        w->child++;
        apply_next(w);
}

static struct child_context context_of(const struct work *w)
{
        const struct controller *c = w->controller;

        return (struct child_context){ .trigger = w->trigger,
                                       .sink = w->sink.p,
                                       .dead_letter = w->dead_letter.n ? w->dead_letter.p : NULL,
                                       .image = c->config.worker_image,
                                       .pull_policy = c->config.pull_policy,
                                       .pull_secrets = c->config.pull_secrets,
                                       .priority_class = c->config.priority_class,
                                       .tolerations = c->config.tolerations,
                                       .ending = w->ending };
}

static void apply_child(struct work *w)
{
        struct controller *c = w->controller;
        struct child_context context = context_of(w);
        BUF_AT_END struct buf body = BUF_INIT((size_t)4 << 20), path = BUF_INIT(4096), what = BUF_INIT(4096),
                              name = BUF_INIT(1024);

        child_write((enum child)w->child, &context, w->hash.p, &body);
        child_path((enum child)w->child, w->trigger, &path);
        child_name((enum child)w->child, w->name, &name);
        buf_printf(&what, "apply %s %s/%s", child_kind((enum child)w->child), w->namespace_,
                   name.p ? name.p : "");
        if (body.failed || path.failed || what.failed) {
                finish(w, true);
                return;
        }
        w->call = kube_apply(c->config.client, path.p, MANAGER, true, buf_view(&body), what.p, child_applied,
                             w);
}

/* Whose an object is that has the name of one of ours. Labels prove nothing, anybody may write them. */
enum owner {
        OWNER_US,
        /* the Trigger that had this name before: the garbage collector is about to remove it */
        OWNER_BEFORE,
        OWNER_OTHER, /* somebody else: it is neither changed nor deleted with the Trigger */
};

static enum owner owner_of(const struct work *w, json_t *object)
{
        json_t *metadata = metadata_of(object), *list = json_object_get(metadata, "ownerReferences"), *o;
        bool before = false, theirs = false;
        size_t i;

        json_array_foreach(list, i, o)
        {
                bool trigger = strcmp(json_cstring(o, "kind"), "Trigger") == 0 &&
                               strncmp(json_cstring(o, "apiVersion"), API_GROUP "/", sizeof(API_GROUP)) == 0;

                if (trigger && string_equal(json_cstring(o, "uid"), uid_of(w)))
                        return OWNER_US;
                before = before || (trigger && strcmp(json_cstring(o, "name"), w->name) == 0);
                theirs = true;
        }
        if (theirs)
                return before ? OWNER_BEFORE : OWNER_OTHER;
        /* Left behind when a Trigger was deleted without its dependents: what we applied says so. */
        json_array_foreach(json_object_get(metadata, "managedFields"), i,
                           o) if (strcmp(json_cstring(o, "manager"), MANAGER) == 0) return OWNER_US;
        return OWNER_OTHER;
}

static enum owner owner_in(const struct work *w, struct str body)
{
        json_t *root = json_loadb(body.p, body.n, 0, NULL);
        enum owner owner = owner_of(w, root);

        json_decref(root);
        return owner;
}

static void child_seen(void *cookie, const struct kube_answer *a)
{
        struct work *w = cookie;
        BUF_AT_END struct buf name = BUF_INIT(1024), why = BUF_INIT(4096);
        enum owner owner;

        w->call = NULL;
        if (a->failed && a->error.kind != ERROR_NOT_FOUND) {
                give_up(w, a->error.text);
                return;
        }
        owner = a->failed ? OWNER_US : owner_in(w, a->body);
        if (owner != OWNER_US) {
                child_name((enum child)w->child, w->name, &name);
                buf_printf(&why,
                           owner == OWNER_OTHER ? "%s %s/%s exists, and is not Sluice's: remove it, or give "
                                                  "the Trigger another name"
                                                : "%s %s/%s is still that of the Trigger of this name that "
                                                  "was deleted: it is waited for until it is gone",
                           child_kind((enum child)w->child), w->namespace_, name.p ? name.p : "");
                give_up(w, why.p ? why.p : "");
                return;
        }
        apply_child(w);
}

static void child_removed(void *cookie, const struct kube_answer *a)
{
        struct work *w = cookie;

        w->call = NULL;
        if (a->failed && a->error.kind != ERROR_NOT_FOUND) {
                w->retry_after = a->error.retry_after;
                give_up(w, a->error.text);
                return;
        }
        if (a->failed && child_is_lease((enum child)w->child)) /* they are numbered: there are no more */
                w->child = CHILD_DEPLOYMENT;
        else
                w->child++;
        apply_next(w);
}

/* what: "look for the", and name, "Service", for the words of an error. */
static void ask_child(struct work *w, enum child child, const char *method, struct str body, const char *what,
                      const char *name, void (*done)(void *, const struct kube_answer *))
{
        BUF_AT_END struct buf path = BUF_INIT(4096), words = BUF_INIT(4096);
        struct kube_request q = { .method = method, .body = body, .done = done, .cookie = w };

        child_path(child, w->trigger, &path);
        buf_printf(&words, "%s %s of Trigger %s", what, name, w->key);
        q.path = path.p;
        q.what = words.p;
        w->call = kube_send(w->controller->config.client, &q);
}

/* It is there from an earlier spec, or another's of that name. */
static void unneeded_seen(void *cookie, const struct kube_answer *a)
{
        struct work *w = cookie;
        enum child child = (enum child)w->child;

        if (a->failed || owner_in(w, a->body) != OWNER_US)
                child_removed(cookie, a);
        else
                ask_child(w, child, "DELETE", (struct str){ 0 }, "remove the", child_kind(child),
                          child_removed);
}

static void look_at_child(struct work *w, void (*seen)(void *, const struct kube_answer *))
{
        enum child child = (enum child)w->child;

        ask_child(w, child, "GET", (struct str){ 0 }, "look for the", child_kind(child), seen);
}

static void apply_next(struct work *w)
{
        struct controller *c = w->controller;

        /* A spec that was never changed left nothing behind. */
        while (w->child < CHILD_MAX && !child_needed((enum child)w->child, w->trigger) &&
               w->trigger->generation <= 1)
                w->child++;
        if (w->child == CHILD_MAX) {
                keep(&memory_of(c, w->key, true)->applied, w->hash.p);
                record(w, "Normal", w->ending ? "Ending" : "Applied",
                       w->ending             ? w->outside.p
                       : w->trigger->suspend ? "the worker is suspended"
                                             : "the worker's objects are applied");
                conclude(w);
                return;
        }
        look_at_child(w, child_needed((enum child)w->child, w->trigger) ? child_seen : unneeded_seen);
}

/* A worker whose checkpoint somebody deleted can't make another: it says so, and that is all that is seen of
 * it here. */
static bool checkpoint_is_gone(const struct work *w)
{
        json_t *entry;
        size_t i;

        json_array_foreach(
                json_object_get(json_object_get(w->object, "status"), "workers"), i,
                entry) if (strcmp(json_cstring(entry, "sourceState"), "Disconnected") == 0 &&
                           strncmp(json_cstring(entry, "sourceMessage"), "checkpoint ConfigMap ", 21) == 0 &&
                           strstr(json_cstring(entry, "sourceMessage"), ": 404 ")) return true;
        return false;
}

/* Whether the cluster has what is wanted, as far as is known. */
static bool children_fresh(struct work *w)
{
        struct controller *c = w->controller;
        struct memory *m = memory_of(c, w->key, false);
        const struct child_context context = context_of(w);
        BUF_AT_END struct buf name = BUF_INIT(1024);
        json_t *live;

        if (checkpoint_is_gone(w))
                return false;
        child_name(CHILD_DEPLOYMENT, w->name, &name);
        live = reflector_get(c->collections[DEPLOYMENTS], w->namespace_, name.p ? name.p : "");
        if (live &&
            strcmp(json_cstring(json_object_get(metadata_of(live), "annotations"), ANNOTATION_HASH),
                   w->hash.p) == 0 &&
            json_integer_value(json_object_get(json_object_get(live, "spec"), "replicas")) ==
                    child_replicas(&context))
                return true;
        /* Applied already, and the copy has not seen it yet. A Deployment that is deleted or changed makes
         * its memory be forgotten. */
        return m && m->applied && strcmp(m->applied, w->hash.p) == 0;
}

static int resolve(struct work *w, const struct destination *d, struct buf *out)
{
        const struct sink_ref *ref = d->ref;
        json_t *service = ref ? reflector_get(w->controller->collections[SERVICES],
                                              ref->namespace_ ? ref->namespace_ : w->namespace_, ref->name)
                              : NULL;

        return sink_resolve(d, service, out, &w->sink_reason, &w->sink_message);
}

/* Without a place for dead letters nothing runs: a record could neither be delivered nor put aside. */
static void resolve_sink(struct work *w)
{
        struct destination sink, dead;

        sink_destination(w->trigger, &sink);
        if (resolve(w, &sink, &w->sink) < 0 ||
            (dead_letter_destination(w->trigger, &dead) && resolve(w, &dead, &w->dead_letter) < 0))
                buf_reset(&w->sink);
}

static void apply_what_differs(struct work *w)
{
        struct child_context context = context_of(w);

        children_hash(&context, &w->hash);
        if (children_fresh(w))
                conclude(w);
        else
                apply_next(w);
}

/* ---- its end ------------------------------------------------------------ */

static void finalizers_written(void *cookie, const struct kube_answer *a)
{
        struct work *w = cookie;

        w->call = NULL;
        if (a->failed && a->error.kind != ERROR_NOT_FOUND && a->error.kind != ERROR_CONFLICT)
                log_warn("the finalizers were not written", LOG_S("trigger", w->key),
                         LOG_S("error", a->error.text));
        w->retry_after = a->failed ? a->error.retry_after : 0;
        finish(w, a->failed && a->error.kind != ERROR_NOT_FOUND); /* otherwise the watch tells */
}

static void write_finalizers(struct work *w, const char *with, const char *const *without)
{
        BUF_AT_END struct buf what = BUF_INIT(4096);

        buf_printf(&what, "write the finalizers of Trigger %s", w->key);
        patch_trigger(w, "", finalizers_patch(w->object, with, without), what.p, finalizers_written);
}

/* Must they be written for a Trigger that has something outside, or has not? One that can't be delivered to
 * makes nothing yet. */
static bool finalizers_differ(const struct work *w, bool outside)
{
        bool held = finalizers_have(w->object, finalizers_ours),
             former = finalizers_have(w->object, finalizers_former);

        return outside ? former || (!held && w->sink.n > 0) : held;
}

static void let_go(struct work *w) { write_finalizers(w, NULL, finalizers_ours); }

/* It goes, and something stays. */
static void leave_behind(struct work *w, const char *why)
{
        BUF_AT_END struct buf note = BUF_INIT(8192);

        buf_printf(&note, "%s remains outside the cluster: %s",
                   w->outside.n ? w->outside.p : "what this Trigger made", why);
        log_warn("something remains outside the cluster", LOG_S("trigger", w->key),
                 LOG_S("what", note.p ? note.p : ""));
        record(w, "Warning", "OutsideRemains", note.p ? note.p : "");
        let_go(w);
}

/* A worker says that nothing is left outside. */
static bool all_is_taken_back(const struct work *w)
{
        json_t *status = json_object_get(w->object, "status"), *entry;
        json_int_t generation = json_integer_value(json_object_get(metadata_of(w->object), "generation"));
        size_t i;

        json_array_foreach(json_object_get(status, "workers"), i,
                           entry) if (strcmp(json_cstring(entry, "sourceState"), WORKER_SOURCE_REMOVED) ==
                                              0 &&
                                      !status_is_stale(entry, uid_of(w)) &&
                                      json_integer_value(json_object_get(entry, "observedGeneration")) ==
                                              generation) return true;
        return false;
}

static void checkpoint_deleted(void *cookie, const struct kube_answer *a)
{
        struct work *w = cookie;

        w->call = NULL;
        if (a->failed) { /* changed or deleted meanwhile: it is looked at again */
                w->retry_after = a->error.retry_after;
                finish(w, true);
        } else
                let_go(w);
}

/* Deletes the checkpoint as it was seen. A worker that is only about to start can't write into it any more,
 * and so makes nothing outside. */
static void close_checkpoint(struct work *w, json_t *seen)
{
        json_t *metadata = metadata_of(seen),
               *body = json_pack("{ss ss s{ss ss}}", "kind", "DeleteOptions", "apiVersion", "v1",
                                 "preconditions", "uid", json_cstring(metadata, "uid"), "resourceVersion",
                                 json_cstring(metadata, "resourceVersion"));
        FREE_AT_END char *dump = body ? json_dumps(body, JSON_COMPACT) : NULL;

        json_decref(body);
        if (!dump)
                finish(w, true); /* out of memory, and without the conditions it may not be deleted */
        else
                ask_child(w, CHILD_CHECKPOINT, "DELETE", str_of(dump), "delete the", "checkpoint",
                          checkpoint_deleted);
}

/* A worker writes down what it will make outside before it makes it. Of a checkpoint that is gone, with its
 * namespace or by somebody's hand, nothing is known. */
static void checkpoint_seen(void *cookie, const struct kube_answer *a)
{
        struct work *w = cookie;
        json_t *root = a->failed ? NULL : json_loadb(a->body.p, a->body.n, 0, NULL);

        w->call = NULL;
        if (a->failed && a->error.kind != ERROR_NOT_FOUND) {
                w->retry_after = a->error.retry_after;
                finish(w, true);
        } else if (root && !*json_cstring(json_object_get(root, "data"), WORKER_CHECKPOINT_SUBSCRIPTION))
                close_checkpoint(w, root);
        else {
                memory_of(w->controller, w->key, true)->ending = true;
                apply_what_differs(w);
        }
        json_decref(root);
}

/* Has its end begun, be it with an earlier controller? */
static bool ends_already(const struct work *w)
{
        const struct memory *m = memory_of(w->controller, w->key, false);

        return (m && m->ending) ||
               strcmp(json_cstring(status_condition(json_object_get(w->object, "status"), "Ready"), "reason"),
                      "Ending") == 0;
}

static void end_trigger(struct work *w)
{
        usec deleted, wall = clock_wall(&system_clock), deadline;
        char why[128];

        if (!time_parse(str_of(json_cstring(metadata_of(w->object), "deletionTimestamp")), &deleted))
                deleted = wall;
        deadline = deleted + w->controller->config.ending_deadline;
        if (w->trigger && !trigger_external(w->trigger, &w->outside))
                let_go(w); /* it is no longer its own to take back */
        else if (all_is_taken_back(w)) {
                record(w, "Normal", "Ended", "nothing of it is left outside the cluster");
                let_go(w);
        } else if (!w->trigger)
                leave_behind(w, w->invalid.p ? w->invalid.p : "the spec can't be read");
        else if (wall >= deadline) {
                json_t *connected = status_condition(json_object_get(w->object, "status"), "SourceConnected");

                (void)snprintf(why, sizeof(why), "not taken back within %" PRId64 " s",
                               w->controller->config.ending_deadline / USEC_SEC);
                leave_behind(w,
                             *json_cstring(connected, "message") ? json_cstring(connected, "message") : why);
        } else if (finalizers_have(w->object, finalizers_foreground)) {
                /* its checkpoint may be gone already */
                memory_of(w->controller, w->key, true)->ending = true;
                /* its children are still needed: they go when it went */
                write_finalizers(w, NULL, finalizers_foreground);
        } else {
                w->ending = true;
                w->look_at = loop_now(w->controller->loop) + deadline - wall;
                if (!w->sink.n)
                        buf_text(&w->sink, "http://127.0.0.1:9/"); /* nothing is delivered any more */
                if (ends_already(w))
                        apply_what_differs(w);
                else
                        ask_child(w, CHILD_CHECKPOINT, "GET", (struct str){ 0 }, "look at the", "checkpoint",
                                  checkpoint_seen);
        }
}

/* ---- reconcile ---------------------------------------------------------- */

static void reconcile(struct controller *c, const char *key)
{
        struct str rest = str_of(key), namespace_ = str_cut(&rest, '/');
        struct work *w = calloc(1, sizeof(*w));
        bool deleted, outside;

        if (!w || !(w->key = str_dup(str_of(key))) || !(w->namespace_ = str_dup(namespace_)) ||
            !(w->name = str_dup(rest)))
                abort();
        w->controller = c;
        w->invalid.max = w->sink.max = w->dead_letter.max = w->sink_message.max = w->hash.max =
                w->failed.max = w->stuck.max = w->outside.max = 65536;
        w->next = c->works;
        c->works = w;
        c->busy++;
        w->object = json_incref(reflector_get(c->collections[TRIGGERS], w->namespace_, w->name));
        deleted = json_object_get(metadata_of(w->object), "deletionTimestamp") != NULL;
        if (!w->object || (deleted && !finalizers_have(w->object, finalizers_ours))) {
                struct memory *m = memory_of(c, key, false);

                /* Its children are the garbage collector's. */
                if (m)
                        memory_free(c, m);
                finish(w, false);
                return;
        }
        decode(w);
        if (w->trigger)
                resolve_sink(w);
        w->conflict = w->trigger && !deleted && clashes_find(&c->clashes, w->trigger, &w->invalid);
        outside = !deleted && w->trigger && trigger_external(w->trigger, &w->outside);
        if (deleted)
                end_trigger(w);
        else if (w->conflict)
                conclude(w); /* the children stay as they were, as of a spec that can't be used */
        else if (w->trigger && finalizers_differ(w, outside))
                /* before there is a worker, and so anything outside */
                write_finalizers(w, outside ? FINALIZER : NULL, finalizers_ours);
        else if (!w->trigger || !w->sink.n)
                conclude(w); /* the children stay as they were */
        else
                apply_what_differs(w);
}

static void turn(struct task *t, usec now)
{
        struct controller *c = CONTAINER_OF(t, struct controller, task);
        const char *key;

        if (!controller_synced(c))
                return;
        while (c->busy < c->config.workers && (key = queue_get(c->queue, now)))
                reconcile(c, key);
        if (c->busy < c->config.workers)
                loop_arm(c->loop, t, queue_deadline(c->queue));
}

/* ---- what happens in the cluster ---------------------------------------- */

static void enqueue(struct controller *c, const char *namespace_, const char *name)
{
        char key[600];

        (void)snprintf(key, sizeof(key), "%s/%s", namespace_, name);
        queue_add(c->queue, key);
        loop_ready(c->loop, &c->task);
}

static void enqueue_it(void *cookie, const char *namespace_, const char *name)
{
        enqueue(cookie, namespace_, name);
}

static void trigger_changed(void *cookie, const char *namespace_, const char *name, json_t *before UNUSED,
                            json_t *object)
{
        struct controller *c = cookie;
        const struct clash_change change = {
                .namespace_ = namespace_, .name = name, .object = object, .later = controller_synced(c)
        };

        /* before anything is reconciled all are known */
        clashes_note(&c->clashes, &change, c->config.types, c->config.types_n, enqueue_it, c);
        enqueue(c, namespace_, name);
}

static const char *instance_of(json_t *before, json_t *object)
{
        return json_cstring(json_object_get(metadata_of(object ? object : before), "labels"), LABEL_INSTANCE);
}

static void deployment_changed(void *cookie, const char *namespace_, const char *name UNUSED, json_t *before,
                               json_t *object)
{
        struct controller *c = cookie;
        const char *instance = instance_of(before, object);
        char key[600];
        struct memory *m;

        (void)snprintf(key, sizeof(key), "%s/%s", namespace_, instance);
        m = memory_of(c, key, false);
        if (m)
                keep(&m->applied, NULL); /* from here on the copy is what counts */
        if (*instance)
                enqueue(c, namespace_, instance);
}

static void pod_changed(void *cookie, const char *namespace_, const char *name, json_t *before,
                        json_t *object)
{
        struct controller *c = cookie;
        const char *was = before ? instance_of(before, NULL) : "",
                   *instance = object ? instance_of(NULL, object) : "";
        char key[600];

        if (*was) {
                (void)snprintf(key, sizeof(key), "%s/%s", namespace_, was);
                crew_remove(c, key, name);
                enqueue(c, namespace_, was);
        }
        if (*instance) {
                (void)snprintf(key, sizeof(key), "%s/%s", namespace_, instance);
                crew_add(c, key, object);
                enqueue(c, namespace_, instance);
        }
}

struct service_search {
        struct controller *controller;
        const char *namespace_, *name;
};

static bool refers_to(const struct service_search *s, const char *namespace_, json_t *destination)
{
        json_t *ref = json_object_get(destination, "ref");
        const char *other = *json_cstring(ref, "namespace") ? json_cstring(ref, "namespace") : namespace_;

        return ref && strcmp(json_cstring(ref, "name"), s->name) == 0 && strcmp(other, s->namespace_) == 0;
}

static void find_user(void *cookie, const char *namespace_, const char *name, json_t *trigger)
{
        struct service_search *s = cookie;
        json_t *spec = json_object_get(trigger, "spec");

        if (refers_to(s, namespace_, json_object_get(spec, "sink")) ||
            refers_to(s, namespace_, json_object_get(json_object_get(spec, "delivery"), "deadLetter")))
                enqueue(s->controller, namespace_, name);
}

static void service_changed(void *cookie, const char *namespace_, const char *name, json_t *before UNUSED,
                            json_t *object UNUSED)
{
        struct controller *c = cookie;
        struct service_search s = { c, namespace_, name };

        if (controller_synced(c)) /* before, every Trigger is in the queue anyway */
                reflector_each(c->collections[TRIGGERS], find_user, &s);
}

static void synced(void *cookie)
{
        struct controller *c = cookie;

        if (controller_synced(c)) {
                log_info("the controller knows the cluster",
                         LOG_I("triggers", reflector_count(c->collections[TRIGGERS])));
                loop_ready(c->loop, &c->task);
        }
}

bool controller_synced(const struct controller *c)
{
        for (size_t i = 0; i < COLLECTIONS; i++)
                if (!reflector_synced(c->collections[i]))
                        return false;
        return true;
}

/* ---- life --------------------------------------------------------------- */

static const struct {
        const char *group, *resource, *what, *selector;
        bool everywhere; /* also when only one namespace is watched: sinks may be elsewhere */
        void (*trim)(json_t *);
        void (*changed)(void *, const char *, const char *, json_t *, json_t *);
} collections[COLLECTIONS] = {
        [TRIGGERS] = ROW("/apis/" API_GROUP_VERSION, "triggers", "Triggers", NULL, false, trim_trigger,
                         trigger_changed),
        [DEPLOYMENTS] = ROW("/apis/apps/v1", "deployments", "Deployments", WORKERS, false, trim_deployment,
                            deployment_changed),
        [PODS] = ROW("/api/v1", "pods", "Pods", WORKERS, false, trim_pod, pod_changed),
        [SERVICES] = ROW("/api/v1", "services", "Services", NULL, true, trim_service, service_changed),
};

static int open_collection(struct controller *c, size_t i, struct error *err)
{
        struct buf path = BUF_INIT(4096);
        struct reflector_config config = { .client = c->config.client,
                                           .selector = collections[i].selector,
                                           .what = collections[i].what,
                                           .trim = collections[i].trim,
                                           .changed = collections[i].changed,
                                           .synced = synced,
                                           .cookie = c };

        buf_text(&path, collections[i].group);
        if (c->config.namespace_ && !collections[i].everywhere)
                buf_printf(&path, "/namespaces/%s", c->config.namespace_);
        buf_printf(&path, "/%s", collections[i].resource);
        c->paths[i] = buf_take(&path);
        if (!c->paths[i])
                return error_memory(err);
        config.path = c->paths[i];
        return reflector_new(&c->collections[i], &config, err);
}

int controller_new(struct controller **out, const struct controller_config *config, struct error *err)
{
        struct controller *c = calloc(1, sizeof(*c));

        if (!c)
                return error_memory(err);
        c->config = *config;
        c->loop = kube_client_loop(config->client);
        c->task.turn = turn;
        if (queue_new(&c->queue, err) < 0 ||
            recorder_new(&c->recorder, config->client, "sluice.dev/controller", config->pod, err) < 0) {
                (void)controller_free(c);
                return -1;
        }
        for (size_t i = 0; i < COLLECTIONS; i++)
                if (open_collection(c, i, err) < 0) {
                        (void)controller_free(c);
                        return -1;
                }
        *out = c;
        return 0;
}

struct controller *controller_free(struct controller *c)
{
        struct memory *m, *next;
        struct crew *crew, *next_crew;

        if (!c)
                return NULL;
        while (c->works)
                work_free(c->works);
        for (size_t i = 0; i < COLLECTIONS; i++) {
                (void)reflector_free(c->collections[i]);
                free(c->paths[i]);
        }
        HASH_ITER(hh, c->memories, m, next)
        memory_free(c, m);
        HASH_ITER(hh, c->crews, crew, next_crew)
        crew_free(c, crew);
        clashes_done(&c->clashes);
        (void)recorder_free(c->recorder);
        (void)queue_free(c->queue);
        loop_forget(c->loop, &c->task);
        free(c);
        return NULL;
}
