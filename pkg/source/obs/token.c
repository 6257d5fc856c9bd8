#include <sys/stat.h>

#include "huawei/sign.h"
#include "source/obs/obs.h"

static const usec LOOK_EVERY = 5 * USEC_SEC;

struct obs_token {
        const struct services *services;
        char *path, *text;
        struct timespec changed;
        ino_t inode;
        usec looked_at;
};

static void look(struct obs_token *t)
{
        BUF_AT_END struct buf text = BUF_INIT(16384);
        usec now = loop_now(t->services->loop);
        struct stat s;
        char *fresh;

        if (t->text && now - t->looked_at < LOOK_EVERY)
                return;
        t->looked_at = now;
        if (stat(t->path, &s) < 0 || (t->text && s.st_ino == t->inode && s.st_mtim.tv_sec == t->changed.tv_sec && s.st_mtim.tv_nsec == t->changed.tv_nsec) ||
            buf_read_file(&text, t->path, NULL) < 0)
                return;
        fresh = str_dup(str_trim(buf_view(&text)));
        if (!fresh || !*fresh) {
                free(fresh);
                return;
        }
        free(t->text);
        t->text = fresh;
        t->inode = s.st_ino;
        t->changed = s.st_mtim;
}

int obs_token_new(struct obs_token **out, const struct secret_ref *ref, const struct services *services, struct error *err)
{
        struct obs_token *t = calloc(1, sizeof(*t));
        BUF_AT_END struct buf path = BUF_INIT(4096);

        if (!t)
                return error_memory(err);
        t->services = services;
        buf_printf(&path, "%s/%s/%s", services->secrets ? services->secrets : "", ref->name, ref->key);
        t->path = buf_take(&path);
        if (t->path && services->secrets)
                look(t);
        if (t->text) {
                *out = t;
                return 0;
        }
        (void)obs_token_free(t);
        return error_set(err, ERROR_INVALID, "tokenSecretRef: Secret %s, key %s can't be read from %s", ref->name, ref->key, services->secrets ? services->secrets : "nowhere: say --secrets=DIR");
}

struct obs_token *obs_token_free(struct obs_token *t)
{
        if (!t)
                return NULL;
        free(t->path);
        free(t->text);
        free(t);
        return NULL;
}

bool obs_token_shown(struct obs_token *t, struct str authorization)
{
        struct str scheme = str_cut(&authorization, ' ');

        look(t);
        return str_equal_nocase(scheme, STR("Bearer")) && sign_equal(str_trim(authorization), str_of(t->text));
}
