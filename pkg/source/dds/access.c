#include "source/dds/inside.h"

enum { PARTS = 5 };

static void parts_of(struct dds_access *a, struct secret_part parts[PARTS])
{
        const struct dds_credentials *c = a->spec->credentials;
        const struct tls_spec *tls = a->spec->tls;
        const struct secret_part all[PARTS] = {
                { &a->username, c ? c->username : NULL, true },
                { &a->password, c ? c->password : NULL, true },
                { &a->ca, tls ? tls->ca : NULL, false },
                { &a->cert, tls ? tls->cert : NULL, false },
                { &a->key, tls ? tls->key : NULL, false },
        };

        memcpy(parts, all, sizeof(all));
}

int dds_access_open(struct dds_access *a, const struct dds_spec *spec, const struct services *services,
                    struct error *err)
{
        struct secret_part parts[PARTS];

        a->spec = spec;
        parts_of(a, parts);
        if (secret_open_parts(parts, PARTS, services->loop, services->secrets, services->wake, err) == 0)
                return 0;
        dds_access_done(a);
        return -1;
}

void dds_access_done(struct dds_access *a)
{
        secret_done(&a->username);
        secret_done(&a->password);
        secret_done(&a->ca);
        secret_done(&a->cert);
        secret_done(&a->key);
}

bool dds_access_changed(struct dds_access *a)
{
        struct secret_part parts[PARTS];
        bool changed = false;

        parts_of(a, parts);
        for (size_t i = 0; i < PARTS; i++)
                changed |= parts[i].ref && secret_changed(parts[i].secret);
        return changed;
}

static int missing(const struct secret_ref *ref, struct error *err)
{
        BUF_AT_END struct buf text = BUF_INIT(1024);

        secret_tell_gone(ref, &text);
        (void)error_set(err, ERROR_NOT_FOUND, "%s", text.p ? text.p : ref->name);
        err->retry = true;
        return -1;
}

int dds_access_copy(struct dds_access *a, struct link_access *to, struct error *err)
{
        char **copies[PARTS] = { &to->user, &to->password, &to->ca, &to->cert, &to->key };
        struct secret_part parts[PARTS];

        *to = (struct link_access){ 0 };
        parts_of(a, parts);
        for (size_t i = 0; i < PARTS; i++) {
                struct str value = secret_part_value(&parts[i]);

                if (!parts[i].ref)
                        continue;
                if (value.p && (*copies[i] = str_dup(value)))
                        continue;
                link_access_done(to);
                return value.p ? error_memory(err) : missing(parts[i].ref, err);
        }
        return 0;
}
