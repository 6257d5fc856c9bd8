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
        buf_str(out, buf_view(&text));
        return out->failed ? error_set(err, ERROR_INVALID, "Secret %s, key %s: %s is too long", ref->name,
                                       ref->key, path.p)
                           : 0;
}

static bool same(const struct stat *now, const struct secret_stamp *last)
{
        return now->st_ino == last->inode && now->st_size == last->size &&
               now->st_mtim.tv_sec == last->changed.tv_sec && now->st_mtim.tv_nsec == last->changed.tv_nsec;
}

bool secret_changed(const char *secrets, const struct secret_ref *ref, struct secret_stamp *last)
{
        BUF_AT_END struct buf path = BUF_INIT(4096);
        struct stat now = { 0 };

        secret_path(secrets, ref, &path);
        if (path.failed || (stat(path.p, &now) < 0 && errno != ENOENT && errno != ENOTDIR && errno != EACCES))
                return false;
        if (same(&now, last))
                return false;
        *last = (struct secret_stamp){ now.st_mtim, now.st_ino, now.st_size };
        return true;
}

/* Is there nothing, or is it we who can't read it just now? */
static bool is_gone(const char *secrets, const struct secret_ref *ref, const struct error *why)
{
        BUF_AT_END struct buf path = BUF_INIT(4096);

        secret_path(secrets, ref, &path);
        return why->kind == ERROR_INVALID || path.failed || access(path.p, R_OK) < 0;
}

/* False: it must be looked at again. */
static bool take(struct secret *s, const char *secrets)
{
        BUF_AT_END struct buf value = BUF_INIT(65536);
        struct error why;
        char *fresh;

        if (secret_read(secrets, s->ref, &value, &why) < 0) {
                s->gone = s->gone || is_gone(secrets, s->ref, &why);
                return s->gone;
        }
        fresh = buf_take(&value);
        if (!fresh)
                return false;
        free(s->text);
        s->text = fresh;
        s->gone = false;
        return true;
}

bool secret_look(struct secret *s, const char *secrets)
{
        struct secret_stamp before = s->stamp;

        if (!secrets || !secret_changed(secrets, s->ref, &s->stamp))
                return false;
        if (!take(s, secrets))
                s->stamp = before;
        return true;
}

int secret_open(struct secret *s, const char *secrets, const struct secret_ref *ref, struct error *err)
{
        *s = (struct secret){ .ref = ref, .gone = true };
        if (!secrets)
                return error_set(err, ERROR_INVALID,
                                 "Secret %s, key %s: no folder of Secrets is given: say --secrets=DIR",
                                 ref->name, ref->key);
        (void)secret_look(s, secrets);
        return 0;
}

void secret_tell_gone(const struct secret_ref *ref, struct buf *b)
{
        buf_printf(b, "Secret %s, key %s, is missing or empty", ref->name, ref->key);
}

void secret_done(struct secret *s)
{
        free(s->text);
        s->text = NULL;
}
