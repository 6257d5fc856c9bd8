#include "worker/admin.h"

#include "api/worker.h"
#include "worker/snapshot.h"

struct admin {
        struct loop *loop;
        struct http_server *server;
        struct list entries;
        struct list shots;      /* the first is being made */
        uint64_t shot;          /* its number */
        struct list_node *next; /* the entry that it goes on with; NULL: all were shown */
        struct task task;
        bool all_shown, draining;
};

static const struct admin_entry *entry_of(const struct list_node *n)
{
        return LIST_ITEM((struct list_node *)n, struct admin_entry, node);
}

static const struct trigger *trigger_of(const struct admin_entry *e)
{
        return e->pipeline ? pipeline_trigger(e->pipeline) : e->trigger;
}

static void status_of(const struct admin_entry *e, struct pipeline_status *out)
{
        pipeline_shown(e->pipeline, e->failure, out);
}

static const struct str TEXT = { "text/plain; charset=utf-8", 25 };

/* Why it is not ready; NULL: it is. What is reached by requests listens, connected or not: a subscription is
 * confirmed that way. */
static const char *not_ready(const struct trigger *t, const struct pipeline_status *s)
{
        return s->source != SOURCE_FAILED && trigger_source(t)->push ? NULL : snapshot_not_connected(s);
}

static void ready(struct admin *a, struct http_call *call)
{
        BUF_AT_END struct buf why = BUF_INIT((size_t)16 << 20);

        if (a->draining)
                buf_text(&why, "draining\n");
        for (const struct list_node *n = a->entries.first; n; n = n->next) {
                const struct trigger *t = trigger_of(entry_of(n));
                struct pipeline_status s;
                const char *state;

                status_of(entry_of(n), &s);
                state = not_ready(t, &s);
                if (state)
                        buf_printf(&why, s.source_text[0] ? "%s/%s: %s: %s\n" : "%s/%s: %s%s\n",
                                   t->namespace_, t->name, state, s.source_text);
        }
        if (why.n || why.failed)
                http_call_reply(call, 503, TEXT, (struct str){ 0 }, buf_view(&why));
        else
                http_call_reply(call, 200, TEXT, (struct str){ 0 }, STR("ok\n"));
}

/* An answer is the proof that the loop turns, and a pipeline's turn is the loop's to give. Whether there is
 * traffic, or a peer answers, says nothing about whether a restart would help. */
static void live(struct http_call *call) { http_call_reply(call, 200, TEXT, (struct str){ 0 }, STR("ok\n")); }

/* ---- what takes longer -------------------------------------------------- */

/* So many Triggers are shown in one pass of the loop: a millisecond's worth. */
enum { SHOWN_AT_ONCE = 128 };

struct shot { /* who asks for a snapshot */
        struct list_node node;
        struct snapshot *snapshot;
};

static void begin_shot(struct admin *a)
{
        a->shot++;
        a->next = a->entries.first;
        a->all_shown = false;
}

/* One at a time, in the order in which they were asked for. */
static void show_some(struct admin *a)
{
        struct shot *shot = LIST_FIRST(&a->shots, struct shot, node);
        struct pipeline_status s;

        for (int i = 0; i < SHOWN_AT_ONCE && a->next; i++) {
                struct admin_entry *e = LIST_ITEM(a->next, struct admin_entry, node);

                a->next = a->next->next;
                if (e->shot == a->shot) /* it was shown, and has another place since */
                        continue;
                e->shot = a->shot;
                status_of(e, &s);
                snapshot_add(shot->snapshot, trigger_of(e), &s);
        }
        a->all_shown = !a->next;
        if (!a->all_shown || !snapshot_answer(shot->snapshot))
                return;
        list_remove(&shot->node);
        free(shot);
        begin_shot(a);
}

static void go_on(struct task *t, usec now UNUSED)
{
        struct admin *a = CONTAINER_OF(t, struct admin, task);

        if (a->shots.n)
                show_some(a);
        if (a->shots.n)
                loop_ready(a->loop, t);
}

static void show(struct admin *a, enum snapshot_kind kind, struct http_call *call)
{
        struct shot *shot = calloc(1, sizeof(*shot));

        if (!shot || !(shot->snapshot = snapshot_new(kind, call))) {
                free(shot);
                http_call_reply(call, 503, TEXT, (struct str){ 0 }, STR("out of memory\n"));
                return;
        }
        list_append(&a->shots, &shot->node);
        if (a->shots.n > 1)
                return; /* it has its turn */
        begin_shot(a);
        go_on(&a->task, 0);
}

static void handle(void *cookie, struct http_call *call)
{
        struct admin *a = cookie;
        const struct http_message *m = http_call_message(call);
        struct str rest = buf_view(&m->target), path = str_cut(&rest, '?');

        if (m->method != HTTP_GET && m->method != HTTP_HEAD)
                http_call_reply(call, 405, TEXT, STR("Allow: GET, HEAD\r\n"), STR("only GET\n"));
        else if (str_is(path, WORKER_PATH_LIVE))
                live(call);
        else if (str_is(path, WORKER_PATH_READY))
                ready(a, call);
        else if (str_is(path, "/metrics"))
                show(a, SNAPSHOT_METRICS, call);
        else if (str_is(path, "/status"))
                show(a, SNAPSHOT_STATUS, call);
        else
                http_call_reply(call, 404, TEXT, (struct str){ 0 },
                                STR("known: /livez /readyz /metrics /status\n"));
}

int admin_new(struct admin **out, struct loop *loop, const char *address, struct error *err)
{
        struct admin *a = calloc(1, sizeof(*a));
        struct http_server_config config = { .address = address,
                                             .head_max = 16384,
                                             .body_max = 1024,
                                             .max_connections = 64,
                                             /* a probe is always answered */
                                             .newcomers_first = true,
                                             .idle_timeout = 10 * USEC_SEC,
                                             .head_timeout = 5 * USEC_SEC,
                                             .body_grace = 5 * USEC_SEC,
                                             .write_timeout = 10 * USEC_SEC,
                                             .handle = handle,
                                             .cookie = a };

        if (!a)
                return error_memory(err);
        a->loop = loop;
        a->task.turn = go_on;
        if (http_server_new(&a->server, loop, &config, err) < 0) {
                free(a);
                return -1;
        }
        *out = a;
        return 0;
}

struct admin *admin_free(struct admin *a)
{
        if (!a)
                return NULL;
        (void)http_server_free(a->server);
        for (struct shot *s; (s = LIST_TAKE(&a->shots, struct shot, node));) {
                snapshot_free(s->snapshot);
                free(s);
        }
        loop_forget(a->loop, &a->task);
        free(a);
        return NULL;
}

void admin_add(struct admin *a, struct admin_entry *e)
{
        e->admin = a;
        list_append(&a->entries, &e->node);
        if (a->shots.n && !a->next && !a->all_shown && e->shot != a->shot)
                a->next = &e->node;
}

void admin_remove(struct admin_entry *e)
{
        if (e->admin && e->admin->next == &e->node)
                e->admin->next = e->node.next;
        list_remove(&e->node);
}

void admin_replace(struct admin_entry *e, struct admin_entry *by)
{
        by->admin = e->admin;
        by->shot = e->shot;
        list_insert(&e->admin->entries, &by->node, &e->node);
        if (e->admin->next == &e->node)
                e->admin->next = &by->node;
        list_remove(&e->node);
}

void admin_drain(struct admin *a) { a->draining = true; }
uint16_t admin_port(const struct admin *a) { return http_server_port(a->server); }
