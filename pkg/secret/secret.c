#include "secret/secret.h"

#include <errno.h>
#include <unistd.h>

void secret_path(const char *secrets, const struct secret_ref *ref, struct buf *b)
{
        buf_printf(b, "%s/%s/%s", secrets, ref->name, ref->key);
}

int secret_read(const char *secrets, const struct secret_ref *ref, struct buf *out, struct error *err)
{
        BUF_AT_END struct buf path = BUF_INIT(4096), text = BUF_INIT(65536);

        if (!secrets)
                return error_set(err, ERROR_INVALID,
                                 "Secret %s, key %s: no folder of Secrets is given: say --secrets=DIR",
                                 ref->name, ref->key);
        secret_path(secrets, ref, &path);
        if (path.failed)
                return error_memory(err);
        if (buf_read_file(&text, path.p, err) < 0)
                return error_wrap(err, "Secret %s, key %s", ref->name, ref->key);
        while (text.n && strchr(" \t\r\n", text.p[text.n - 1]))
                text.n--;
        if (!text.n)
                return error_set(err, ERROR_INVALID, "Secret %s, key %s: %s is empty", ref->name, ref->key,
                                 path.p);
        if (memchr(text.p, 0, text.n))
                return error_set(err, ERROR_INVALID, "Secret %s, key %s: %s holds a NUL byte: expected text",
                                 ref->name, ref->key, path.p);
        buf_str(out, buf_view(&text));
        return out->failed ? error_set(err, ERROR_INVALID, "Secret %s, key %s: %s is too long", ref->name,
                                       ref->key, path.p)
                           : 0;
}

/* ---- the service: one a loop and folder --------------------------------- */

struct secrets {
        struct secrets *next;
        struct loop *loop;
        char *folder;
        struct list entries;
};

/* Is there nothing, or is it we who can't read it just now? */
static bool is_gone(const char *secrets, const struct secret_ref *ref, const struct error *why)
{
        BUF_AT_END struct buf path = BUF_INIT(4096);

        secret_path(secrets, ref, &path);
        return why->kind == ERROR_INVALID || path.failed || access(path.p, R_OK) < 0;
}

/* False: it must be looked at again. */
static bool take(struct secret_entry *e)
{
        BUF_AT_END struct buf value = BUF_INIT(65536);
        struct error why;
        char *fresh;

        if (secret_read(e->service->folder, &e->ref, &value, &why) < 0) {
                e->gone = e->gone || is_gone(e->service->folder, &e->ref, &why);
                return e->gone;
        }
        fresh = buf_take(&value);
        if (!fresh)
                return false;
        free(e->text);
        e->text = fresh;
        e->gone = false;
        return true;
}

/* What was changed is read, and its users hear of it. */
static void refresh(struct secret_entry *e)
{
        uint64_t version = e->watch.version;

        if (version == e->read)
                return;
        if (!take(e)) {
                loop_arm(e->service->loop, &e->task, loop_now(e->service->loop) + USEC_SEC);
                return;
        }
        e->read = version;
        e->version++;
        LIST_EACH (struct secret, s, &e->users, node)
                if (s->wake)
                        loop_ready(e->service->loop, s->wake);
}

static void on_change(struct task *t, usec now UNUSED)
{
        refresh(CONTAINER_OF(t, struct secret_entry, task));
}

static struct secrets *service_of(struct loop *loop, const char *folder)
{
        void **place = loop_place(loop, LOOP_SECRETS);
        struct secrets *s;

        for (s = *place; s; s = s->next)
                if (strcmp(s->folder, folder) == 0)
                        return s;
        s = calloc(1, sizeof(*s));
        if (!s || !(s->folder = str_dup(str_of(folder)))) {
                free(s);
                return NULL;
        }
        s->loop = loop;
        s->next = *place;
        *place = s;
        return s;
}

/* Nobody asks for anything of it any more. */
static void service_free(struct secrets *service)
{
        void **place = loop_place(service->loop, LOOP_SECRETS);
        struct secrets *first = *place, **at = &first;

        while (*at != service)
                at = &(*at)->next;
        *at = service->next;
        *place = first;
        free(service->folder);
        free(service);
}

static void entry_free(struct secret_entry *e)
{
        struct secrets *service = e->service;

        list_remove(&e->node);
        loop_forget(service->loop, &e->task);
        watch_close(&e->watch);
        free(e->ref.name);
        free(e->ref.key);
        free(e->text);
        free(e);
        if (!service->entries.n)
                service_free(service);
}

static struct secret_entry *entry_new(struct secrets *service, const struct secret_ref *ref,
                                      struct error *err)
{
        BUF_AT_END struct buf path = BUF_INIT(8192);
        struct secret_entry *e = calloc(1, sizeof(*e));

        if (!e) {
                if (!service->entries.n)
                        service_free(service);
                (void)error_memory(err);
                return NULL;
        }
        e->service = service;
        e->gone = true;
        e->version = 1;
        e->task.turn = on_change;
        list_append(&service->entries, &e->node);
        e->ref = (struct secret_ref){ str_dup(str_of(ref->name)), str_dup(str_of(ref->key)) };
        secret_path(service->folder, ref, &path);
        if (!e->ref.name || !e->ref.key || path.failed) {
                (void)error_memory(err);
                entry_free(e);
                return NULL;
        }
        if (watch_open(&e->watch, service->loop, path.p, &e->task, err) < 0) {
                entry_free(e);
                return NULL;
        }
        if (take(e))
                e->read = e->watch.version;
        else
                loop_arm(service->loop, &e->task, loop_now(service->loop) + USEC_SEC);
        return e;
}

/* ---- one user ----------------------------------------------------------- */

int secret_open(struct secret *s, struct loop *loop, const char *secrets, const struct secret_ref *ref,
                struct task *wake, struct error *err)
{
        struct secret_entry *found = NULL;
        struct secrets *service;

        *s = (struct secret){ .ref = ref, .wake = wake };
        if (!secrets)
                return error_set(err, ERROR_INVALID,
                                 "Secret %s, key %s: no folder of Secrets is given: say --secrets=DIR",
                                 ref->name, ref->key);
        service = service_of(loop, secrets);
        if (!service)
                return error_memory(err);
        LIST_EACH (struct secret_entry, e, &service->entries, node)
                if (strcmp(e->ref.name, ref->name) == 0 && strcmp(e->ref.key, ref->key) == 0)
                        found = e;
        if (!found && !(found = entry_new(service, ref, err)))
                return -1;
        s->entry = found;
        list_append(&found->users, &s->node);
        (void)secret_look(s);
        return 0;
}

bool secret_changed(struct secret *s)
{
        bool changed = s->entry && s->entry->version != s->seen;

        if (changed)
                s->seen = s->entry->version;
        return changed;
}

bool secret_look(struct secret *s)
{
        if (!s->entry)
                return false;
        (void)watch_look(&s->entry->watch);
        refresh(s->entry);
        return secret_changed(s);
}

int secret_open_parts(const struct secret_part *parts, size_t n, struct loop *loop, const char *secrets,
                      struct task *wake, struct error *err)
{
        for (size_t i = 0; i < n; i++)
                if (parts[i].ref && secret_open(parts[i].secret, loop, secrets, parts[i].ref, wake, err) < 0)
                        return -1;
        return 0;
}

void secret_tell_gone(const struct secret_ref *ref, struct buf *b)
{
        buf_printf(b, "Secret %s, key %s, is missing or empty", ref->name, ref->key);
}

void secret_done(struct secret *s)
{
        struct secret_entry *e = s->entry;

        if (!e)
                return;
        list_remove(&s->node);
        s->entry = NULL;
        if (!e->users.n)
                entry_free(e);
}
