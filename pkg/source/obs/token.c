#include "huawei/sign.h"
#include "secret/secret.h"
#include "source/obs/obs.h"

static const usec LOOK_EVERY = 5 * USEC_SEC;

struct obs_token {
        const struct services *services;
        struct secret value;
        usec looked_at;
};

int obs_token_new(struct obs_token **out, const struct secret_ref *ref, const struct services *services,
                  struct error *err)
{
        struct obs_token *t = calloc(1, sizeof(*t));

        if (!t)
                return error_memory(err);
        t->services = services;
        t->looked_at = loop_now(services->loop);
        if (secret_open(&t->value, services->secrets, ref, err) < 0) {
                (void)obs_token_free(t);
                return error_wrap(err, "tokenSecretRef");
        }
        *out = t;
        return 0;
}

struct obs_token *obs_token_free(struct obs_token *t)
{
        if (!t)
                return NULL;
        secret_done(&t->value);
        free(t);
        return NULL;
}

bool obs_token_look(struct obs_token *t, usec now)
{
        if (now - t->looked_at < LOOK_EVERY)
                return false;
        t->looked_at = now;
        return secret_look(&t->value, t->services->secrets);
}

usec obs_token_deadline(const struct obs_token *t) { return t->looked_at + LOOK_EVERY; }

bool obs_token_lacks(const struct obs_token *t, struct buf *why)
{
        if (!t->value.gone)
                return false;
        secret_tell_gone(t->value.ref, why);
        buf_text(why, ": every notification is refused");
        return true;
}

bool obs_token_shown(const struct obs_token *t, struct str authorization)
{
        struct str scheme = str_cut(&authorization, ' '), value = secret_value(&t->value);

        return value.n && str_equal_nocase(scheme, STR("Bearer")) &&
               sign_equal(str_trim(authorization), value);
}
