#include "kube/events.h"

#include <inttypes.h>

#include "log/log.h"
#include "base/random.h"
#include "base/table.h"
#include "json/writer.h"

static const usec SERIES = 10 * USEC_MINUTE, WRITE_INTERVAL = USEC_MINUTE;
/* MOST: what is kept in mind; NOTES: so many different notes of one object and reason within SERIES are
 * events of their own, the others share one. */
enum { MOST = 1000, NOTES = 10 };
#define SHARED "(combined from similar events): "

struct told {
        UT_hash_handle hh;
        uint64_t key; /* of object, reason and note, or without the note: of all notes */
        usec first, last, written;
        int64_t count;
        unsigned notes;          /* of all notes: how many had an event of their own */
        char *namespace_, *name; /* of the Event; NULL: there is none yet */
};

struct recorder {
        struct kube_client *client;
        char *controller, *instance;
        bool only_creates;
        struct told *told;
        uint64_t seed;
};

int recorder_new(struct recorder **out, struct kube_client *client, const char *controller,
                 const char *instance, struct error *err)
{
        struct recorder *r = calloc(1, sizeof(*r));

        if (!r)
                return error_memory(err);
        r->client = client;
        r->seed = random_seed();
        r->controller = str_dup(str_of(controller));
        r->instance = str_dup(str_of(instance));
        if (!r->controller || !r->instance) {
                (void)recorder_free(r);
                return error_memory(err);
        }
        *out = r;
        return 0;
}

void recorder_only_creates(struct recorder *r) { r->only_creates = true; }

static void told_free(struct recorder *r, struct told *t)
{
        HASH_DEL(r->told, t);
        free(t->namespace_);
        free(t->name);
        free(t);
}

struct recorder *recorder_free(struct recorder *r)
{
        struct told *t, *next;

        if (!r)
                return NULL;
        HASH_ITER(hh, r->told, t, next)
        told_free(r, t);
        free(r->controller);
        free(r->instance);
        free(r);
        return NULL;
}

static void written(void *cookie UNUSED, const struct kube_answer *a)
{
        if (a->failed && a->error.kind != ERROR_NOT_FOUND && a->error.kind != ERROR_EXISTS)
                log_info("an event was not written", LOG_S("error", a->error.text));
}

static void micro_time(struct writer *w, struct str name, usec wall)
{
        BUF_AT_END struct buf text = BUF_INIT(64);

        time_format_micro(&text, wall);
        writer_key(w, name);
        writer_string(w, buf_view(&text));
}

static void send_new(struct recorder *r, const struct told *t, const struct event_object *o, const char *type,
                     const char *reason, const char *action, const char *note)
{
        BUF_AT_END struct buf body = BUF_INIT(65536), path = BUF_INIT(4096);
        struct kube_request q = { .method = "POST", .what = "create an event", .done = written };
        struct writer w;

        writer_init(&w, &body);
        writer_object(&w);
        writer_member_text(&w, "apiVersion", "events.k8s.io/v1");
        writer_member_text(&w, "kind", "Event");
        writer_key(&w, STR("metadata"));
        writer_object(&w);
        writer_member_text(&w, "name", t->name);
        writer_member_text(&w, "namespace", t->namespace_);
        writer_object_end(&w);
        micro_time(&w, STR("eventTime"), t->first);
        writer_member_text(&w, "type", type);
        writer_member_text(&w, "reason", reason);
        writer_member_text(&w, "action", action);
        writer_member_string(&w, "note", ((struct str){ note, MIN_OF(strlen(note), (size_t)1000) }));
        writer_member_text(&w, "reportingController", r->controller);
        writer_member_text(&w, "reportingInstance", r->instance);
        writer_key(&w, STR("regarding"));
        writer_object(&w);
        writer_member_text(&w, "apiVersion", o->api_version);
        writer_member_text(&w, "kind", o->kind);
        writer_member_text(&w, "namespace", o->namespace_);
        writer_member_text(&w, "name", o->name);
        writer_member_text(&w, "uid", o->uid);
        writer_object_end(&w);
        writer_object_end(&w);
        buf_printf(&path, "/apis/events.k8s.io/v1/namespaces/%s/events", t->namespace_);
        q.path = path.p;
        q.body = buf_view(&body);
        (void)kube_send(r->client, &q);
}

static void send_series(struct recorder *r, const struct told *t)
{
        BUF_AT_END struct buf body = BUF_INIT(4096), path = BUF_INIT(4096);
        struct kube_request q = { .method = "PATCH",
                                  .content_type = "application/merge-patch+json",
                                  .what = "continue an event",
                                  .done = written };
        struct writer w;

        writer_init(&w, &body);
        writer_object(&w);
        writer_key(&w, STR("series"));
        writer_object(&w);
        writer_member_int(&w, "count", t->count);
        micro_time(&w, STR("lastObservedTime"), t->last);
        writer_object_end(&w);
        writer_object_end(&w);
        buf_printf(&path, "/apis/events.k8s.io/v1/namespaces/%s/events/%s", t->namespace_, t->name);
        q.path = path.p;
        q.body = buf_view(&body);
        (void)kube_send(r->client, &q);
}

/* Room for two more. */
static void forget_old(struct recorder *r, usec now)
{
        struct told *t, *next;

        if (HASH_COUNT(r->told) < MOST - 1)
                return;
        HASH_ITER(hh, r->told, t, next)
        if (now - t->last > SERIES || HASH_COUNT(r->told) >= MOST - 1)
                told_free(r, t);
}

/* note NULL: of all notes. */
static uint64_t key_of(const struct recorder *r, const struct event_object *o, const char *type,
                       const char *reason, const char *note)
{
        BUF_AT_END struct buf identity = BUF_INIT(65536);

        buf_printf(&identity, "%s\n%s\n%s\n%s\n%s%s", o->uid, o->name, type, reason, note ? "note " : "all",
                   note ? note : "");
        return hash_bytes(r->seed, buf_view(&identity));
}

/* What was told within SERIES; NULL: nothing was. */
static struct told *find(struct recorder *r, uint64_t key, usec now)
{
        struct told *t;

        HASH_FIND(hh, r->told, &key, sizeof(key), t);
        if (!t || now - t->last < SERIES)
                return t;
        told_free(r, t);
        return NULL;
}

static struct told *remember(struct recorder *r, uint64_t key, usec now)
{
        struct told *t = calloc(1, sizeof(*t));

        if (!t)
                return NULL;
        t->key = key;
        t->first = t->last = now;
        HASH_ADD(hh, r->told, key, sizeof(t->key), t);
        return t;
}

static bool name_it(struct told *t, const struct event_object *o, usec now)
{
        BUF_AT_END struct buf name = BUF_INIT(1024);

        buf_printf(&name, "%.200s.%016" PRIx64, o->name, t->key ^ (uint64_t)now);
        t->namespace_ = str_dup(str_of(o->namespace_));
        t->name = t->namespace_ ? buf_take(&name) : NULL;
        t->first = t->last = t->written = now;
        t->count = 1;
        return t->name != NULL;
}

static void continue_series(struct recorder *r, struct told *t, usec now)
{
        if (r->only_creates)
                return;
        t->count++;
        t->last = now;
        if (now - t->written < WRITE_INTERVAL)
                return;
        t->written = now;
        send_series(r, t);
}

void recorder_event(struct recorder *r, const struct event_object *o, const char *type, const char *reason,
                    const char *action, const char *note)
{
        BUF_AT_END struct buf shared = BUF_INIT(65536);
        usec now = clock_wall(&system_clock);
        uint64_t key = key_of(r, o, type, reason, note), key_of_all = key_of(r, o, type, reason, NULL);
        struct told *t, *all;

        forget_old(r, now);
        t = find(r, key, now);
        all = find(r, key_of_all, now);
        if (!t && all && all->notes >= NOTES) {
                t = all;
                buf_printf(&shared, SHARED "%s", note);
                note = shared.p ? shared.p : note;
        }
        if (t && t->name) {
                continue_series(r, t, now);
                return;
        }
        all = all ? all : remember(r, key_of_all, now);
        t = t || !all ? t : remember(r, key, now);
        if (!t)
                return;
        if (!name_it(t, o, now)) {
                told_free(r, t);
                return;
        }
        all->notes += t != all;
        all->last = now;
        send_new(r, t, o, type, reason, action, note);
}
