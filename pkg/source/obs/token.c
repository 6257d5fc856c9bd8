#include "huawei/sign.h"
#include "secret/secret.h"
#include "source/obs/obs.h"

struct obs_token {
        struct secret value;
};

int obs_token_new(struct obs_token **out, const struct secret_ref *ref, const struct services *services,
                  struct error *err)
{
        struct obs_token *t = calloc(1, sizeof(*t));

        if (!t)
                return error_memory(err);
        if (secret_open(&t->value, services->loop, services->secrets, ref, services->wake, err) < 0) {
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

bool obs_token_changed(struct obs_token *t) { return secret_changed(&t->value); }

bool obs_token_lacks(const struct obs_token *t, struct buf *why)
{
        if (!secret_gone(&t->value))
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
