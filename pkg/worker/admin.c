#include "worker/admin.h"

#include "api/worker.h"
#include "worker/snapshot.h"

/* Snapshots that are made one after the other, in the order of the requests. */
struct walk {
        struct list shots;      /* the first is being made */
        uint64_t shot;          /* its number */
        struct list_node *next; /* the entry that it goes on with; NULL: all were shown */
        bool all_shown;
};

struct admin {
        struct loop *loop;
        struct http_server *server;
        struct list entries;
        struct walk walks[ADMIN_WALKS];
        struct task task;
        bool draining;
};

static const struct trigger *trigger_of(const struct admin_entry *e)
{
        return e->pipeline ? pipeline_trigger(e->pipeline) : e->trigger;
}

static void status_of(const struct admin_entry *e, struct pipeline_status *out)
{
        pipeline_shown(e->pipeline, e->failure, out);
}

static const struct str TEXT = { "text/plain; charset=utf-8", 25 };

/* Answering proves that the loop turns, and all pipelines run on it. Traffic and the state of peers are left
 * out: a restart would not help them. */
static void live(struct http_call *call) { http_call_reply(call, 200, TEXT, (struct str){ 0 }, STR("ok\n")); }

/* ---- what takes longer -------------------------------------------------- */

/* Triggers shown in one pass of the loop: about a millisecond of work, and half of one for probes, which look
 * at little of each. */
enum { SHOWN_AT_ONCE = 128, PROBED_AT_ONCE = 512 };
enum { TRACKS_A_TRIGGER = 12 }; /* as much work as a Trigger */

struct shot { /* a request for a snapshot */
        struct list_node node;
        struct snapshot *snapshot;
};

static void begin_shot(struct admin *a, struct walk *w)
{
        w->shot++;
        w->next = a->entries.first;
        w->all_shown = false;
}

/* How many there were. */
static int show_tracks(struct snapshot *s, const struct pipeline *p)
{
        struct track_lag lag;
        uint32_t at = 0;
        usec behind;
        int n = 0;

        for (; snapshot_shows_tracks(s) && pipeline_track_lag(p, &at, &lag, &behind); n++)
                snapshot_add_track(s, &lag, behind);
        return n;
}

static void show_some(struct admin *a, enum admin_walk which)
{
        struct walk *w = &a->walks[which];
        struct shot *shot = LIST_FIRST(&w->shots, struct shot, node);
        struct pipeline_status s;

        for (int most = which == ADMIN_PROBES ? PROBED_AT_ONCE : SHOWN_AT_ONCE; most > 0 && w->next; most--) {
                struct admin_entry *e = LIST_ITEM(w->next, struct admin_entry, node);

                w->next = w->next->next;
                if (e->shot[which] == w->shot) /* already shown; it was removed and added again since */
                        continue;
                e->shot[which] = w->shot;
                status_of(e, &s);
                snapshot_add(shot->snapshot, trigger_of(e), &s);
                most -= show_tracks(shot->snapshot, e->pipeline) / TRACKS_A_TRIGGER;
        }
        w->all_shown = !w->next;
        if (!w->all_shown || !snapshot_answer(shot->snapshot))
                return;
        list_remove(&shot->node);
        free(shot);
        begin_shot(a, w);
}

static void go_on(struct task *t, usec now UNUSED)
{
        struct admin *a = CONTAINER_OF(t, struct admin, task);

        for (int i = 0; i < ADMIN_WALKS; i++) {
                if (a->walks[i].shots.n)
                        show_some(a, (enum admin_walk)i);
                if (a->walks[i].shots.n)
                        loop_ready(a->loop, t);
        }
}

static void show(struct admin *a, enum snapshot_kind kind, struct http_call *call)
{
        enum admin_walk which = kind == SNAPSHOT_READY ? ADMIN_PROBES : ADMIN_REPORTS;
        struct walk *w = &a->walks[which];
        struct shot *shot = calloc(1, sizeof(*shot));

        if (!shot || !(shot->snapshot = snapshot_new(kind, call))) {
                free(shot);
                http_call_reply(call, 503, TEXT, (struct str){ 0 }, STR("out of memory\n"));
                return;
        }
        list_append(&w->shots, &shot->node);
        if (w->shots.n > 1)
                return; /* it waits for the snapshots before it */
        begin_shot(a, w);
        show_some(a, which);
        if (w->shots.n)
                loop_ready(a->loop, &a->task);
}

static void ready(struct admin *a, struct http_call *call)
{
        if (a->draining)
                http_call_reply(call, 503, TEXT, (struct str){ 0 }, STR("draining\n"));
        else
                show(a, SNAPSHOT_READY, call);
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
                                             /* probes are answered however many connections are open */
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
        for (int i = 0; i < ADMIN_WALKS; i++)
                for (struct shot *s; (s = LIST_TAKE(&a->walks[i].shots, struct shot, node));) {
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
        for (int i = 0; i < ADMIN_WALKS; i++) {
                struct walk *w = &a->walks[i];

                if (w->shots.n && !w->next && !w->all_shown && e->shot[i] != w->shot)
                        w->next = &e->node;
        }
}

void admin_remove(struct admin_entry *e)
{
        for (int i = 0; e->admin && i < ADMIN_WALKS; i++)
                if (e->admin->walks[i].next == &e->node)
                        e->admin->walks[i].next = e->node.next;
        list_remove(&e->node);
}

void admin_replace(struct admin_entry *e, struct admin_entry *by)
{
        by->admin = e->admin;
        memcpy(by->shot, e->shot, sizeof(by->shot));
        list_insert(&e->admin->entries, &by->node, &e->node);
        for (int i = 0; i < ADMIN_WALKS; i++)
                if (e->admin->walks[i].next == &e->node)
                        e->admin->walks[i].next = &by->node;
        list_remove(&e->node);
}

void admin_drain(struct admin *a)
{
        a->draining = true;
        LIST_EACH (struct shot, s, &a->walks[ADMIN_PROBES].shots, node)
                snapshot_drain(s->snapshot);
}

uint16_t admin_port(const struct admin *a) { return http_server_port(a->server); }
