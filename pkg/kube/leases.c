#include "kube/leases.h"

#include <stdio.h>

#include "json/value.h"
#include "json/writer.h"
#include "kube/slots.h"

static const usec CALL_TIMEOUT = 5 * USEC_SEC;

struct lease_call { /* of a slot */
        struct kube_leases *leases;
        struct kube_call *call;
        uint32_t slot;
};

struct kube_leases {
        struct kube_client *client;
        struct slots *slots;
        struct task task, *wake;
        char *path, *what; /* without the slot's number */
        char *me, *waits, *number, *since;
        uint64_t changes; /* that were told */
        uint32_t n;
        struct lease_call calls[];
};

static struct loop *loop_of(const struct kube_leases *l) { return kube_client_loop(l->client); }

/* ---- answers ------------------------------------------------------------ */

/* 0: it is not there, or no number. */
static int64_t number_in(const json_t *annotations, const char *name)
{
        int64_t n;

        return str_to_int64(str_of(json_cstring(annotations, name)), &n) ? n : 0;
}

static void ended(void *cookie, const struct kube_answer *a)
{
        struct lease_call *c = cookie;
        struct kube_leases *l = c->leases;
        json_t *root = a->failed ? NULL : json_loadb(a->body.p, a->body.n, 0, NULL);
        json_t *metadata = json_object_get(root, "metadata"), *spec = json_object_get(root, "spec");
        usec now = loop_now(loop_of(l));
        struct error err;

        c->call = NULL;
        if (a->failed) {
                slots_failed(l->slots, c->slot, &a->error, now);
        } else if (!*json_cstring(metadata, "resourceVersion")) {
                (void)error_set(&err, ERROR_PROTOCOL, "%s%u: an answer that is no Lease", l->what, c->slot);
                slots_failed(l->slots, c->slot, &err, now);
        } else {
                const json_t *annotations = json_object_get(metadata, "annotations");
                const struct slots_lease lease = {
                        .holder = json_cstring(spec, "holderIdentity"),
                        .renewed = json_cstring(spec, "renewTime"),
                        .waits = json_cstring(annotations, l->waits),
                        .slots = number_in(annotations, l->number),
                        .generation = number_in(annotations, l->since),
                        .version = json_cstring(metadata, "resourceVersion"),
                        .duration = json_integer_value(json_object_get(spec, "leaseDurationSeconds")),
                        .transitions = json_integer_value(json_object_get(spec, "leaseTransitions")),
                };

                slots_done(l->slots, c->slot, &lease, now);
        }
        json_decref(root);
        loop_ready(loop_of(l), &l->task);
}

/* ---- calls -------------------------------------------------------------- */

static void time_member(struct writer *w, const char *name)
{
        BUF_AT_END struct buf text = BUF_INIT(64);

        time_format_micro(&text, clock_wall(&system_clock));
        writer_key(w, str_of(name));
        writer_string(w, buf_view(&text));
}

static void write_holder(const struct kube_leases *l, const struct slots_job *j, struct writer *w)
{
        writer_key(w, STR("spec"));
        writer_object(w);
        writer_member_text(w, "holderIdentity", j->kind == SLOTS_HOLD ? l->me : "");
        writer_member_int(w, "leaseDurationSeconds", SLOTS_LEASE / USEC_SEC);
        time_member(w, "renewTime");
        if (j->kind == SLOTS_HOLD) {
                writer_member_int(w, "leaseTransitions", j->transitions);
                if (j->acquired)
                        time_member(w, "acquireTime");
        }
        writer_object_end(w);
}

static void write_patch(const struct kube_leases *l, const struct slots_job *j, struct buf *body)
{
        struct writer w;

        writer_init(&w, body);
        writer_object(&w);
        writer_key(&w, STR("metadata"));
        writer_object(&w);
        writer_member_text(&w, "resourceVersion", j->version);
        if (j->waits) {
                writer_key(&w, STR("annotations"));
                writer_object(&w);
                writer_key(&w, str_of(l->waits));
                if (*j->waits)
                        writer_string(&w, str_of(j->waits));
                else
                        writer_null(&w);
                writer_object_end(&w);
        }
        writer_object_end(&w);
        if (j->kind != SLOTS_WAIT)
                write_holder(l, j, &w);
        writer_object_end(&w);
}

static void begin(struct kube_leases *l, const struct slots_job *j, usec now)
{
        BUF_AT_END struct buf body = BUF_INIT(64 << 10), path = BUF_INIT(4096), what = BUF_INIT(4096);
        struct lease_call *c = &l->calls[j->slot];
        struct kube_request q = { .method = j->kind == SLOTS_READ ? "GET" : "PATCH",
                                  .done = ended,
                                  .cookie = c,
                                  .timeout = CALL_TIMEOUT };
        struct error err;

        buf_printf(&path, "%s%u", l->path, j->slot);
        buf_printf(&what, "%s%u", l->what, j->slot);
        if (j->kind != SLOTS_READ) {
                q.content_type = "application/merge-patch+json";
                write_patch(l, j, &body);
        }
        if (body.failed || path.failed || what.failed) {
                (void)error_memory(&err);
                slots_failed(l->slots, j->slot, &err, now);
                return;
        }
        q.body = buf_view(&body);
        q.path = path.p;
        q.what = what.p;
        c->call = kube_send(l->client, &q);
}

static void turn(struct task *t, usec now)
{
        struct kube_leases *l = CONTAINER_OF(t, struct kube_leases, task);
        struct slots_job job;

        while (slots_next(l->slots, now, &job))
                begin(l, &job, now);
        if (slots_changes(l->slots) != l->changes) {
                l->changes = slots_changes(l->slots);
                loop_ready(loop_of(l), l->wake);
        }
        loop_arm(loop_of(l), &l->task, slots_deadline(l->slots));
}

/* ---- the port ----------------------------------------------------------- */

static uint64_t port_changes(void *cookie) { return slots_changes(((struct kube_leases *)cookie)->slots); }

static void port_look(void *cookie, uint32_t slot, struct claim *out)
{
        const struct kube_leases *l = cookie;

        slots_look(l->slots, slot, out);
}

static void port_release(void *cookie, uint32_t slot)
{
        struct kube_leases *l = cookie;

        slots_release(l->slots, slot);
        loop_ready(loop_of(l), &l->task);
}

static void port_stop(void *cookie)
{
        struct kube_leases *l = cookie;

        slots_stop(l->slots);
        loop_ready(loop_of(l), &l->task);
}

static bool port_stopped(void *cookie) { return slots_stopped(((struct kube_leases *)cookie)->slots); }

struct claims kube_leases_port(struct kube_leases *l)
{
        static const struct claims_ops ops = { port_changes, port_look, port_release, port_stop,
                                               port_stopped };

        return (struct claims){ &ops, l, l->n };
}

/* ---- life --------------------------------------------------------------- */

int kube_leases_new(struct kube_leases **out, struct kube_client *client,
                    const struct kube_leases_config *config, struct error *err)
{
        BUF_AT_END struct buf path = BUF_INIT(4096), what = BUF_INIT(4096);
        const struct slots_config slots = {
                .me = config->me, .n = config->slots, .generation = config->generation, .seed = config->seed
        };
        struct kube_leases *l = calloc(1, sizeof(*l) + config->slots * sizeof(l->calls[0]));

        if (!l)
                return error_memory(err);
        buf_printf(&path, "/apis/coordination.k8s.io/v1/namespaces/%s/leases/%s-", config->namespace_,
                   config->name);
        buf_printf(&what, "Lease %s/%s-", config->namespace_, config->name);
        l->client = client;
        l->wake = config->wake;
        l->n = config->slots;
        l->task.turn = turn;
        l->path = buf_take(&path);
        l->what = buf_take(&what);
        l->me = str_dup(str_of(config->me));
        l->waits = str_dup(str_of(config->waits));
        l->number = str_dup(str_of(config->number));
        l->since = str_dup(str_of(config->since));
        for (uint32_t i = 0; i < l->n; i++)
                l->calls[i] = (struct lease_call){ .leases = l, .slot = i };
        if (!l->path || !l->what || !l->me || !l->waits || !l->number || !l->since)
                (void)error_memory(err);
        else if (slots_new(&l->slots, &slots, err) == 0) {
                loop_ready(loop_of(l), &l->task);
                *out = l;
                return 0;
        }
        (void)kube_leases_free(l);
        return -1;
}

struct kube_leases *kube_leases_free(struct kube_leases *l)
{
        if (!l)
                return NULL;
        for (uint32_t i = 0; i < l->n; i++)
                kube_cancel(l->calls[i].call);
        loop_forget(loop_of(l), &l->task);
        (void)slots_free(l->slots);
        free(l->path);
        free(l->what);
        free(l->me);
        free(l->waits);
        free(l->number);
        free(l->since);
        free(l);
        return NULL;
}
