#include "secret/secret.h"

void secret_path(const char *secrets, const struct secret_ref *ref, struct buf *b) { buf_printf(b, "%s/%s/%s", secrets, ref->name, ref->key); }

int secret_read(const char *secrets, const struct secret_ref *ref, struct buf *out, struct error *err)
{
        BUF_AT_END struct buf path = BUF_INIT(4096), text = BUF_INIT(65536);

        if (!secrets)
                return error_set(err, ERROR_INVALID, "Secret %s, key %s: no folder of Secrets is given: say --secrets=DIR", ref->name, ref->key);
        secret_path(secrets, ref, &path);
        if (path.failed)
                return error_memory(err);
        if (buf_read_file(&text, path.p, err) < 0)
                return error_wrap(err, "Secret %s, key %s", ref->name, ref->key);
        while (text.n && strchr(" \t\r\n", text.p[text.n - 1]))
                text.n--;
        if (!text.n)
                return error_set(err, ERROR_INVALID, "Secret %s, key %s: %s is empty", ref->name, ref->key, path.p);
        buf_str(out, buf_view(&text));
        return out->failed ? error_set(err, ERROR_INVALID, "Secret %s, key %s: %s is too long", ref->name, ref->key, path.p) : 0;
}

bool secret_changed(const char *secrets, const struct secret_ref *ref, struct secret_stamp *last)
{
        BUF_AT_END struct buf path = BUF_INIT(4096);
        struct stat now;

        secret_path(secrets, ref, &path);
        if (path.failed || stat(path.p, &now) < 0 ||
            (now.st_ino == last->inode && now.st_mtim.tv_sec == last->changed.tv_sec && now.st_mtim.tv_nsec == last->changed.tv_nsec))
                return false;
        *last = (struct secret_stamp){ now.st_mtim, now.st_ino };
        return true;
}

static int take(struct secret *s, const char *secrets, struct error *err)
{
        BUF_AT_END struct buf value = BUF_INIT(65536);
        char *fresh;

        if (secret_read(secrets, s->ref, &value, err) < 0)
                return -1;
        fresh = buf_take(&value);
        if (!fresh)
                return error_memory(err);
        free(s->text);
        s->text = fresh;
        return 0;
}

void secret_look(struct secret *s, const char *secrets)
{
        struct secret_stamp before = s->stamp;

        if (secrets && secret_changed(secrets, s->ref, &s->stamp) && take(s, secrets, NULL) < 0)
                s->stamp = before; /* it is looked at again */
}

int secret_open(struct secret *s, const char *secrets, const struct secret_ref *ref, struct error *err)
{
        *s = (struct secret){ .ref = ref };
        if (secrets)
                (void)secret_changed(secrets, ref, &s->stamp);
        return take(s, secrets, err);
}

void secret_done(struct secret *s)
{
        free(s->text);
        s->text = NULL;
}
