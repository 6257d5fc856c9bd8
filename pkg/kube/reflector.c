#include "kube/reflector.h"

#include <malloc.h>
#include <stdio.h>

#include "base/backoff.h"
#include "log/log.h"
#include "base/table.h"

static const usec BACKOFF_FIRST = 800 * USEC_MSEC, BACKOFF_MOST = 30 * USEC_SEC,
                  SILENCE_MOST = 3 * USEC_MINUTE; /* bookmarks come each minute */
enum { GIVE_UP_WATCHING = 5 };

/* NAMESPACE/NAME */
struct object {
        UT_hash_handle hh;
        json_t *json;
        bool seen;
        char key[];
};

struct reflector {
        struct reflector_config config;
        struct loop *loop;
        struct object *objects;
        struct kube_call *call;
        struct task task; /* the next list or watch */
        struct random random;
        char *version; /* of the last list or event; NULL: none yet */
        bool synced;
        bool listed; /* a watch may go on at the version */
        /* the API server does not know the version: too old, or of before it was restored */
        bool gone;
        /* the watch sent what can't be read: what it said is lost, so it begins anew at the version */
        bool broken;
        unsigned failures;
        usec watch_began;
        bool heard; /* the watch has brought something */
        char what[80];
};

static void next_step(struct reflector *r, bool failed, usec least)
{
        usec wait = 0;

        if (failed) {
                wait = backoff_full_jitter(&r->random, BACKOFF_FIRST, BACKOFF_MOST, r->failures,
                                           BACKOFF_FIRST / 2);
                r->failures = MIN_OF(r->failures + 1, 10u);
        }
        loop_arm(r->loop, &r->task, loop_now(r->loop) + MAX_OF(wait, least));
}

static void set_version(struct reflector *r, const char *version)
{
        char *copy = version && *version ? str_dup(str_of(version)) : NULL;

        if (!copy && version && *version)
                return; /* no memory: the older one still serves */
        free(r->version);
        r->version = copy;
}

static struct object *find(const struct reflector *r, const char *key)
{
        struct object *o;

        HASH_FIND_STR(r->objects, key, o);
        return o;
}

static void key_of(json_t *json, const char **namespace_, const char **name, struct buf *key)
{
        json_t *metadata = json_object_get(json, "metadata");

        *namespace_ = json_string_value(json_object_get(metadata, "namespace"));
        *name = json_string_value(json_object_get(metadata, "name"));
        if (!*namespace_)
                *namespace_ = "";
        buf_printf(key, "%s/%s", *namespace_, *name ? *name : "");
}

static void store_object(struct reflector *r, json_t *json)
{
        BUF_AT_END struct buf key = BUF_INIT(1024);
        const char *namespace_, *name, *old_version, *new_version;
        struct object *o;
        json_t *before = NULL;

        key_of(json, &namespace_, &name, &key);
        if (!name || key.failed)
                return;
        (void)json_object_del(json_object_get(json, "metadata"), "managedFields");
        if (r->config.trim)
                r->config.trim(json);
        o = find(r, key.p);
        if (o) {
                before = o->json;
                o->seen = true;
                old_version = json_string_value(
                        json_object_get(json_object_get(before, "metadata"), "resourceVersion"));
                new_version = json_string_value(
                        json_object_get(json_object_get(json, "metadata"), "resourceVersion"));
                if (old_version && new_version && strcmp(old_version, new_version) == 0)
                        return; /* a list tells what is known already */
                o->json = json_incref(json);
        } else {
                o = calloc(1, sizeof(*o) + key.n + 1);
                if (!o) {
                        log_error("out of memory for an object", LOG_S("what", r->config.what),
                                  LOG_S("key", key.p));
                        return;
                }
                memcpy(o->key, key.p, key.n + 1);
                o->json = json_incref(json);
                o->seen = true;
                HASH_ADD_STR(r->objects, key, o);
        }
        r->config.changed(r->config.cookie, namespace_, name, before, o->json);
        json_decref(before);
}

static void drop_object(struct reflector *r, struct object *o)
{
        BUF_AT_END struct buf key = BUF_INIT(1024);
        const char *namespace_, *name;

        HASH_DEL(r->objects, o);
        key_of(o->json, &namespace_, &name, &key);
        r->config.changed(r->config.cookie, namespace_, name, o->json, NULL);
        json_decref(o->json);
        free(o);
}

/* ---- list --------------------------------------------------------------- */

/* The next value of a text; NULL: there is none, or memory is out. */
static json_t *next_value(struct str *rest)
{
        json_error_t where;
        json_t *value = json_loadb(rest->p, rest->n, JSON_DECODE_ANY | JSON_DISABLE_EOF_CHECK, &where);

        if (value)
                *rest = (struct str){ rest->p + where.position, rest->n - (size_t)where.position };
        return value;
}

static bool next_mark(struct str *rest, char mark)
{
        *rest = str_trim(*rest);
        if (!rest->n || *rest->p != mark)
                return false;
        *rest = (struct str){ rest->p + 1, rest->n - 1 };
        return true;
}

static bool store_items(struct reflector *r, struct str *rest)
{
        if (next_mark(rest, ']'))
                return true;
        do {
                json_t *item = next_value(rest);

                if (!json_is_object(item)) {
                        json_decref(item);
                        return false;
                }
                store_object(r, item);
                json_decref(item);
        } while (next_mark(rest, ','));
        return next_mark(rest, ']');
}

/* Reads a list item by item: as one tree it would take many times the memory of what is kept. false: it is no
 * list; what was read of it counts. */
static bool read_list(struct reflector *r, struct str rest, json_t **metadata)
{
        bool found = false;

        if (!next_mark(&rest, '{'))
                return false;
        do {
                json_t *key = next_value(&rest);
                bool items = json_is_string(key) && strcmp(json_string_value(key), "items") == 0,
                     known = json_is_string(key);
                bool meta = known && strcmp(json_string_value(key), "metadata") == 0;

                json_decref(key);
                if (!known || !next_mark(&rest, ':'))
                        return false;
                if (items && next_mark(&rest, '[')) {
                        if (!store_items(r, &rest))
                                return false;
                        found = true;
                } else {
                        json_t *value = next_value(&rest);

                        if (!value)
                                return false;
                        found = found || (items && json_is_null(value)); /* as Go may write an empty one */
                        if (meta && !*metadata)
                                *metadata = json_incref(value);
                        json_decref(value);
                }
        } while (next_mark(&rest, ','));
        return found && next_mark(&rest, '}');
}

static bool replace_all(struct reflector *r, struct str list, json_t **metadata)
{
        struct object *o, *next;

        HASH_ITER(hh, r->objects, o, next)
        o->seen = false;
        if (!read_list(r, list, metadata))
                return false;
        HASH_ITER(hh, r->objects, o, next)
        if (!o->seen)
                drop_object(r, o);
        return true;
}

static void listed(void *cookie, const struct kube_answer *a)
{
        struct reflector *r = cookie;
        json_t *metadata = NULL;

        r->call = NULL;
        if (a->failed) {
                /* "Too large resource version" */
                r->gone = r->gone || a->error.kind == ERROR_GONE || a->status == 504;
                log_warn("a list failed", LOG_S("what", r->config.what), LOG_S("error", a->error.text));
                next_step(r, true, a->error.retry_after);
                return;
        }
        if (!replace_all(r, a->body, &metadata)) {
                log_warn("a list is no list", LOG_S("what", r->config.what));
                json_decref(metadata);
                next_step(r, true, 0);
                return;
        }
        r->gone = false;
        set_version(r, json_string_value(json_object_get(metadata, "resourceVersion")));
        json_decref(metadata);
        (void)malloc_trim(0);
        r->listed = r->version != NULL;
        r->failures = 0;
        if (!r->synced) {
                r->synced = true;
                if (r->config.synced)
                        r->config.synced(r->config.cookie);
        }
        next_step(r, !r->listed, 0);
}

static void add_selector(const struct reflector *r, struct buf *path)
{
        if (!r->config.selector)
                return;
        buf_text(path, "&labelSelector=");
        kube_escape(path, str_of(r->config.selector));
}

static void send_list(struct reflector *r)
{
        BUF_AT_END struct buf path = BUF_INIT(65536);
        struct kube_request q = { .method = "GET", .what = r->what, .done = listed, .cookie = r };

        /* From the API server's cache, but never older than what is known; without the cache when that is not
         * to be had. */
        buf_printf(&path, "%s?resourceVersion=%s", r->config.path,
                   r->gone      ? ""
                   : r->version ? r->version
                                : "0");
        add_selector(r, &path);
        q.path = path.p;
        r->call = kube_send(r->config.client, &q);
}

/* ---- watch -------------------------------------------------------------- */

static void watch_line(void *cookie, struct str line)
{
        struct reflector *r = cookie;
        json_t *root = json_loadb(line.p, line.n, 0, NULL), *object = json_object_get(root, "object");
        const char *type = json_string_value(json_object_get(root, "type"));
        BUF_AT_END struct buf key = BUF_INIT(1024);
        const char *namespace_, *name;
        struct object *o;

        if (!r->listed || r->broken)
                ; /* after an error nothing else counts */
        else if (!type || !object) {
                log_warn("a watch sends what is no event", LOG_S("what", r->config.what));
                r->broken = true;
                loop_ready(r->loop, &r->task);
        } else if (strcmp(type, "ERROR") == 0) {
                r->gone = json_integer_value(json_object_get(object, "code")) == 410;
                if (!r->gone)
                        log_warn("a watch failed", LOG_S("what", r->config.what),
                                 LOG_S("message", json_string_value(json_object_get(object, "message"))));
                r->listed = false;
        } else {
                const char *version = json_string_value(
                        json_object_get(json_object_get(object, "metadata"), "resourceVersion"));

                r->heard = true;
                set_version(r, version);
                key_of(object, &namespace_, &name, &key);
                if (strcmp(type, "DELETED") == 0) {
                        o = key.p ? find(r, key.p) : NULL;
                        if (o)
                                drop_object(r, o);
                } else if (strcmp(type, "BOOKMARK") != 0)
                        store_object(r, object);
        }
        json_decref(root);
}

/* An API server that was restored accepts a watch at a version that it has not come to again, and says
 * nothing until it has: no event, and no bookmark either. */
static bool was_silent(const struct reflector *r)
{
        usec most = r->config.silence_most ? r->config.silence_most : SILENCE_MOST;

        return !r->heard && loop_now(r->loop) - r->watch_began >= most;
}

static void watch_ended(void *cookie, const struct kube_answer *a)
{
        struct reflector *r = cookie;
        bool brief = loop_now(r->loop) - r->watch_began < USEC_SEC;

        r->call = NULL;
        if (was_silent(r)) {
                r->gone = true;
                r->listed = false;
        }
        if (a->failed && a->error.kind == ERROR_GONE) {
                r->gone = true;
                r->listed = false;
        }
        /* An API server that was restored may not come to this version for years. */
        if (a->failed && a->status && r->failures >= GIVE_UP_WATCHING)
                r->listed = false;
        if (a->failed && a->error.kind != ERROR_GONE && a->error.kind != ERROR_TIMEOUT)
                log_info("a watch ended", LOG_S("what", r->config.what), LOG_S("error", a->error.text));
        if (!brief)
                r->failures = 0;
        next_step(r, brief || (a->failed && a->error.kind != ERROR_GONE),
                  a->failed ? a->error.retry_after : 0);
}

static void send_watch(struct reflector *r)
{
        BUF_AT_END struct buf path = BUF_INIT(65536);
        unsigned span = 300 + (unsigned)random_below(&r->random, 301);
        struct kube_request q = { .method = "GET",
                                  .what = r->what,
                                  .line = watch_line,
                                  .done = watch_ended,
                                  .cookie = r,
                                  .timeout = (usec)(span + 30) * USEC_SEC };

        buf_printf(&path, "%s?watch=true&allowWatchBookmarks=true&timeoutSeconds=%u&resourceVersion=%s",
                   r->config.path, span, r->version);
        add_selector(r, &path);
        q.path = path.p;
        r->watch_began = loop_now(r->loop);
        r->heard = false;
        r->call = kube_send(r->config.client, &q);
}

static void step(struct task *t, usec now UNUSED)
{
        struct reflector *r = CONTAINER_OF(t, struct reflector, task);

        if (r->broken) {
                r->broken = false;
                kube_cancel(r->call);
                r->call = NULL;
                next_step(r, true, 0);
                return;
        }
        if (r->call)
                return;
        if (r->listed)
                send_watch(r);
        else
                send_list(r);
}

/* ---- life --------------------------------------------------------------- */

int reflector_new(struct reflector **out, const struct reflector_config *config, struct error *err)
{
        struct reflector *r = calloc(1, sizeof(*r));

        if (!r)
                return error_memory(err);
        r->config = *config;
        r->loop = kube_client_loop(config->client);
        r->task.turn = step;
        (void)snprintf(r->what, sizeof(r->what), "watch %s", config->what);
        random_init(&r->random, random_seed());
        loop_ready(r->loop, &r->task);
        *out = r;
        return 0;
}

struct reflector *reflector_free(struct reflector *r)
{
        struct object *o, *next;

        if (!r)
                return NULL;
        kube_cancel(r->call);
        loop_forget(r->loop, &r->task);
        HASH_ITER(hh, r->objects, o, next)
        {
                HASH_DEL(r->objects, o);
                json_decref(o->json);
                free(o);
        }
        free(r->version);
        free(r);
        return NULL;
}

bool reflector_synced(const struct reflector *r) { return r->synced; }
size_t reflector_count(const struct reflector *r) { return HASH_COUNT(r->objects); }

json_t *reflector_get(const struct reflector *r, const char *namespace_, const char *name)
{
        BUF_AT_END struct buf key = BUF_INIT(1024);
        struct object *o;

        buf_printf(&key, "%s/%s", namespace_, name);
        o = key.failed ? NULL : find(r, key.p);
        return o ? o->json : NULL;
}

void reflector_each(const struct reflector *r, void (*each)(void *, const char *, const char *, json_t *),
                    void *cookie)
{
        struct object *o, *next;

        HASH_ITER(hh, r->objects, o, next)
        {
                BUF_AT_END struct buf key = BUF_INIT(1024);
                const char *namespace_, *name;

                key_of(o->json, &namespace_, &name, &key);
                each(cookie, namespace_, name, o->json);
        }
}
