#include "kube/report.h"

#include "base/backoff.h"
#include "log/log.h"

static const usec STATES_APART = USEC_SEC, TIMES_APART = USEC_MINUTE, BACKOFF_FIRST = USEC_SEC,
                  BACKOFF_MOST = USEC_MINUTE;

enum { MANAGER_MOST = 128 }; /* what the API server takes */

struct kube_report {
        struct kube_client *client;
        struct loop *loop;
        struct task task;
        struct kube_call *call;
        struct random random;
        char *path, *what, *manager, *api_version, *kind, *namespace_, *name, *uid, *pod;
        struct buf wanted_state, told_state, telling_state; /* the entry without times and lag, as JSON */
        struct buf wanted, told, telling;                   /* the whole entry */
        usec told_at;                                       /* monotonic; 0: never */
        usec not_before;                                    /* after a failure */
        unsigned failures;
};

static bool same(const struct buf *a, const struct buf *b) { return str_equal(buf_view(a), buf_view(b)); }

static void copy(struct buf *to, const struct buf *from)
{
        buf_reset(to);
        buf_str(to, buf_view(from));
}

/* When the entry is to be written; USEC_NEVER: it is up to date. */
static usec due(const struct kube_report *r)
{
        usec at;

        if (same(&r->wanted, &r->told))
                return USEC_NEVER;
        at = r->told_at ? r->told_at + (same(&r->wanted_state, &r->told_state) ? TIMES_APART : STATES_APART)
                        : 0;
        return MAX_OF(at, r->not_before);
}

static void written(void *cookie, const struct kube_answer *a)
{
        struct kube_report *r = cookie;
        usec now = loop_now(r->loop);

        r->call = NULL;
        if (a->failed) {
                if (r->failures == 0)
                        log_warn("the status was not written", LOG_S("error", a->error.text));
                r->not_before = now + MAX_OF(backoff_full_jitter(&r->random, BACKOFF_FIRST, BACKOFF_MOST,
                                                                 r->failures, USEC_SEC / 2),
                                             a->error.retry_after);
                r->failures = MIN_OF(r->failures + 1, 10u);
        } else {
                r->failures = 0;
                r->not_before = 0;
                r->told_at = now;
                copy(&r->told, &r->telling);
                copy(&r->told_state, &r->telling_state);
        }
        loop_arm(r->loop, &r->task, due(r));
}

static void turn(struct task *t, usec now)
{
        struct kube_report *r = CONTAINER_OF(t, struct kube_report, task);
        BUF_AT_END struct buf body = BUF_INIT(65536);
        struct writer w;
        usec at = due(r);

        if (r->call || at == USEC_NEVER)
                return;
        if (at > now) {
                loop_arm(r->loop, t, at);
                return;
        }
        copy(&r->telling, &r->wanted);
        copy(&r->telling_state, &r->wanted_state);
        writer_init(&w, &body);
        writer_object(&w);
        writer_member_text(&w, "apiVersion", r->api_version);
        writer_member_text(&w, "kind", r->kind);
        writer_key(&w, STR("metadata"));
        writer_object(&w);
        writer_member_text(&w, "name", r->name);
        writer_member_text(&w, "namespace", r->namespace_);
        writer_object_end(&w);
        writer_key(&w, STR("status"));
        writer_object(&w);
        writer_key(&w, STR("workers"));
        writer_array(&w);
        writer_raw(&w, buf_view(&r->telling));
        writer_array_end(&w);
        writer_object_end(&w);
        writer_object_end(&w);
        r->call = kube_apply(r->client, r->path, r->manager, true, buf_view(&body), r->what, written, r);
}

void kube_report_set(struct kube_report *r, const struct worker_status *status)
{
        struct worker_status whole = *status, state = *status;
        struct writer w;

        whole.pod = state.pod = r->pod;
        whole.trigger_uid = state.trigger_uid = r->uid;
        /* Whether it ever delivered, and whether the lag is known, is part of the state. */
        state.last_event_time = 0;
        state.last_delivery_time = whole.last_delivery_time ? USEC_SEC : 0;
        state.last_run_time = state.next_run_time = 0;
        state.last_run_outcome = NULL;
        state.lag = whole.lag < 0 ? -1 : 0;
        state.oldest_pending_time = 0;
        /* Seconds are what is told, so that a fraction is no change. */
        whole.last_event_time -= whole.last_event_time % USEC_SEC;
        whole.last_delivery_time -= whole.last_delivery_time % USEC_SEC;
        whole.last_run_time -= whole.last_run_time % USEC_SEC;
        whole.next_run_time -= whole.next_run_time % USEC_SEC;
        whole.oldest_pending_time -= whole.oldest_pending_time % USEC_SEC;
        buf_reset(&r->wanted);
        writer_init(&w, &r->wanted);
        schema_write(&worker_status_type, &whole, &w);
        buf_reset(&r->wanted_state);
        writer_init(&w, &r->wanted_state);
        schema_write(&worker_status_type, &state, &w);
        if (!r->call && due(r) != USEC_NEVER)
                loop_arm(r->loop, &r->task, due(r));
}

/* NULL stays NULL; memory: set when there is none. */
static char *copied(const char *text, bool *memory)
{
        char *own = text ? str_dup(str_of(text)) : NULL;

        *memory = *memory || (text && !own);
        return own;
}

int kube_report_new(struct kube_report **out, struct kube_client *client,
                    const struct kube_report_config *config, struct error *err)
{
        struct kube_report *r = calloc(1, sizeof(*r));
        BUF_AT_END struct buf path = BUF_INIT(4096), what = BUF_INIT(4096);
        bool memory = false;

        if (!r)
                return error_memory(err);
        r->client = client;
        r->loop = kube_client_loop(client);
        r->task.turn = turn;
        random_init(&r->random, random_seed());
        r->wanted.max = r->told.max = r->telling.max = r->wanted_state.max = r->told_state.max =
                r->telling_state.max = 65536;
        buf_printf(&path, "/apis/%s/namespaces/%s/%s/%s/status", config->api_version, config->namespace_,
                   config->resource, config->name);
        buf_printf(&what, "apply status of %s %s/%s", config->kind, config->namespace_, config->name);
        r->path = buf_take(&path);
        r->what = buf_take(&what);
        r->api_version = copied(config->api_version, &memory);
        r->kind = copied(config->kind, &memory);
        r->namespace_ = copied(config->namespace_, &memory);
        r->name = copied(config->name, &memory);
        r->uid = copied(config->uid, &memory);
        r->pod = copied(config->pod, &memory);
        r->manager = str_dup(
                (struct str){ config->manager, MIN_OF(strlen(config->manager), (size_t)MANAGER_MOST) });
        if (memory || !r->path || !r->what || !r->manager) {
                (void)kube_report_free(r);
                return error_memory(err);
        }
        *out = r;
        return 0;
}

struct kube_report *kube_report_free(struct kube_report *r)
{
        if (!r)
                return NULL;
        kube_cancel(r->call);
        loop_forget(r->loop, &r->task);
        buf_done(&r->wanted);
        buf_done(&r->told);
        buf_done(&r->telling);
        buf_done(&r->wanted_state);
        buf_done(&r->told_state);
        buf_done(&r->telling_state);
        free(r->path);
        free(r->what);
        free(r->manager);
        free(r->namespace_);
        free(r->api_version);
        free(r->kind);
        free(r->name);
        free(r->uid);
        free(r->pod);
        free(r);
        return NULL;
}
