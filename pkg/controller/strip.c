#include "controller/strip.h"

#include "log/log.h"
#include "controller/children.h"
#include "controller/finalizers.h"
#include "json/value.h"
#include "kube/events.h"
#include "source/source.h"

static const usec TOLD = 2 * USEC_SEC; /* events are written meanwhile */

struct strip {
        struct strip_config config;
        struct recorder *recorder;
        struct kube_call *call;
        struct task task;
        json_t *list;
        size_t at;
};

static json_t *metadata_of(json_t *o) { return json_object_get(o, "metadata"); }

static void end(struct strip *s, const struct error *why)
{
        if (why)
                s->config.done(s->config.cookie, why);
        else
                loop_arm(kube_client_loop(s->config.client), &s->task,
                         loop_now(kube_client_loop(s->config.client)) + TOLD);
}

static void on_told(struct task *t, usec now UNUSED)
{
        struct strip *s = CONTAINER_OF(t, struct strip, task);

        s->config.done(s->config.cookie, NULL);
}

/* What the Trigger has outside, in words. */
static void describe(const struct strip *s, json_t *object, struct buf *what)
{
        struct problems problems = { .pass_unknown = true };
        struct documents docs = { 0 };
        FREE_AT_END char *json = json_dumps(object, JSON_COMPACT);
        struct trigger *t = NULL;

        if (json && yaml_parse(&docs, str_of(json), &problems) == 0 && docs.n == 1)
                t = trigger_decode(docs.roots[0], s->config.types, s->config.types_n, &problems);
        if (!t || !trigger_external(t, what))
                buf_text(what, "what it made outside the cluster");
        (void)trigger_free(t);
        documents_done(&docs);
        problems_done(&problems);
}

static void tell(struct strip *s, json_t *object)
{
        json_t *m = metadata_of(object);
        const struct event_object o = { .api_version = API_GROUP_VERSION,
                                        .kind = "Trigger",
                                        .namespace_ = json_cstring(m, "namespace"),
                                        .name = json_cstring(m, "name"),
                                        .uid = json_cstring(m, "uid") };
        BUF_AT_END struct buf what = BUF_INIT(8192), note = BUF_INIT(8192);

        describe(s, object, &what);
        buf_printf(&note,
                   "%s remains outside the cluster when this Trigger is deleted: Sluice is being removed",
                   what.p ? what.p : "");
        recorder_event(s->recorder, &o, "Warning", "OutsideRemains", "Remove", note.p ? note.p : "");
        s->config.remains(s->config.cookie, o.namespace_, o.name, what.p ? what.p : "");
}

static void next(struct strip *s);
static void seen(void *cookie, const struct kube_answer *a);

static struct kube_call *ask(struct strip *s, json_t *object, const char *method, struct str body,
                             void (*done)(void *, const struct kube_answer *))
{
        BUF_AT_END struct buf path = BUF_INIT(4096), what = BUF_INIT(4096);
        struct kube_request q = { .method = method,
                                  .content_type = "application/merge-patch+json",
                                  .body = body,
                                  .done = done,
                                  .cookie = s };

        buf_printf(&path, "/apis/" API_GROUP_VERSION "/namespaces/%s/triggers/%s",
                   json_cstring(metadata_of(object), "namespace"), json_cstring(metadata_of(object), "name"));
        buf_printf(&what, "take the finalizer off Trigger %s/%s",
                   json_cstring(metadata_of(object), "namespace"), json_cstring(metadata_of(object), "name"));
        q.path = path.p;
        q.what = what.p;
        return kube_send(s->config.client, &q);
}

static void written(void *cookie, const struct kube_answer *a)
{
        struct strip *s = cookie;

        s->call = NULL;
        /* somebody wrote: its worker tells its state, too */
        if (a->failed && a->error.kind == ERROR_CONFLICT) {
                s->call = ask(s, json_array_get(s->list, s->at), "GET", (struct str){ 0 }, seen);
                return;
        }
        if (a->failed && a->error.kind != ERROR_NOT_FOUND) {
                end(s, &a->error);
                return;
        }
        s->at++;
        next(s);
}

static void take_off(struct strip *s, json_t *object)
{
        json_t *body = finalizers_patch(object, NULL, finalizers_ours);
        FREE_AT_END char *dump = body ? json_dumps(body, JSON_COMPACT) : NULL;

        s->call = ask(s, object, "PATCH", str_of(dump ? dump : "{}"), written);
        json_decref(body);
}

static void seen(void *cookie, const struct kube_answer *a)
{
        struct strip *s = cookie;
        json_t *object = a->failed ? NULL : json_loadb(a->body.p, a->body.n, 0, NULL);

        s->call = NULL;
        if (object)
                take_off(s, object);
        else
                written(cookie, a);
        json_decref(object);
}

static void next(struct strip *s)
{
        json_t *object;

        while ((object = json_array_get(s->list, s->at)) && !finalizers_have(object, finalizers_ours))
                s->at++;
        if (!object) {
                end(s, NULL);
                return;
        }
        tell(s, object);
        take_off(s, object);
}

static void listed(void *cookie, const struct kube_answer *a)
{
        struct strip *s = cookie;
        json_t *root = a->failed ? NULL : json_loadb(a->body.p, a->body.n, 0, NULL);

        s->call = NULL;
        if (a->failed && a->error.kind != ERROR_NOT_FOUND) {
                end(s, &a->error);
                return;
        }
        s->list = json_incref(json_object_get(root, "items"));
        json_decref(root);
        next(s);
}

static void list_triggers(struct strip *s)
{
        BUF_AT_END struct buf path = BUF_INIT(4096);
        struct kube_request q = {
                .method = "GET", .what = "list Triggers", .timeout = USEC_MINUTE, .done = listed, .cookie = s
        };

        buf_text(&path, "/apis/" API_GROUP_VERSION);
        if (s->config.namespace_)
                buf_printf(&path, "/namespaces/%s", s->config.namespace_);
        buf_text(&path, "/triggers");
        q.path = path.p;
        s->call = kube_send(s->config.client, &q);
}

static void deployment_seen(void *cookie, const struct kube_answer *a)
{
        struct strip *s = cookie;
        json_t *root = a->failed ? NULL : json_loadb(a->body.p, a->body.n, 0, NULL);

        s->call = NULL;
        if (a->failed && a->error.kind != ERROR_NOT_FOUND)
                end(s, &a->error);
        else if (!a->failed && !json_object_get(metadata_of(root), "deletionTimestamp")) {
                log_info("the controller is there: its Triggers are left alone",
                         LOG_S("deployment", s->config.unless));
                end(s, NULL);
        } else
                list_triggers(s);
        json_decref(root);
}

static void ask_for_deployment(struct strip *s)
{
        BUF_AT_END struct buf path = BUF_INIT(4096);
        struct kube_request q = { .method = "GET",
                                  .what = "look for the controller's Deployment",
                                  .done = deployment_seen,
                                  .cookie = s };
        struct str name = str_of(s->config.unless), namespace_ = str_cut(&name, '/');

        buf_text(&path, "/apis/apps/v1/namespaces/");
        kube_escape(&path, namespace_);
        buf_text(&path, "/deployments/");
        kube_escape(&path, name);
        q.path = path.p;
        s->call = kube_send(s->config.client, &q);
}

int strip_new(struct strip **out, const struct strip_config *config, struct error *err)
{
        struct strip *s = calloc(1, sizeof(*s));

        if (!s)
                return error_memory(err);
        s->config = *config;
        s->task.turn = on_told;
        if (recorder_new(&s->recorder, config->client, "sluice.dev/controller", config->pod, err) < 0) {
                free(s);
                return -1;
        }
        if (config->unless)
                ask_for_deployment(s);
        else
                list_triggers(s);
        *out = s;
        return 0;
}

struct strip *strip_free(struct strip *s)
{
        if (!s)
                return NULL;
        kube_cancel(s->call);
        loop_forget(kube_client_loop(s->config.client), &s->task);
        (void)recorder_free(s->recorder);
        json_decref(s->list);
        free(s);
        return NULL;
}
