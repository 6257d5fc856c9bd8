#include "source/dds/inside.h"

struct part {
        struct secret *secret;
        const struct secret_ref *ref;
        char **copy;
        bool gone_counts; /* a name or a password that is gone may do until it is refused */
};
enum { PARTS = 5 };

static void parts_of(struct dds_access *a, struct link_access *to, struct part parts[PARTS])
{
        const struct dds_credentials *c = a->spec->credentials;
        const struct tls_spec *tls = a->spec->tls;
        const struct part all[PARTS] = {
                { &a->username, c ? c->username : NULL, &to->user, false },
                { &a->password, c ? c->password : NULL, &to->password, false },
                { &a->ca, tls ? tls->ca : NULL, &to->ca, true },
                { &a->cert, tls ? tls->cert : NULL, &to->cert, true },
                { &a->key, tls ? tls->key : NULL, &to->key, true },
        };

        memcpy(parts, all, sizeof(all));
}

int dds_access_open(struct dds_access *a, const struct dds_spec *spec, const struct services *services,
                    struct error *err)
{
        struct link_access none;
        struct part parts[PARTS];

        a->spec = spec;
        parts_of(a, &none, parts);
        for (size_t i = 0; i < PARTS; i++)
                if (parts[i].ref && secret_open(parts[i].secret, services->loop, services->secrets,
                                                parts[i].ref, services->wake, err) < 0) {
                        dds_access_done(a);
                        return -1;
                }
        return 0;
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
        struct link_access none;
        struct part parts[PARTS];
        bool changed = false;

        parts_of(a, &none, parts);
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
        struct part parts[PARTS];

        *to = (struct link_access){ 0 };
        parts_of(a, to, parts);
        for (size_t i = 0; i < PARTS; i++) {
                struct str value = parts[i].gone_counts ? secret_value(parts[i].secret)
                                                        : secret_last(parts[i].secret);

                if (!parts[i].ref)
                        continue;
                if (value.p && (*parts[i].copy = str_dup(value)))
                        continue;
                link_access_done(to);
                return value.p ? error_memory(err) : missing(parts[i].ref, err);
        }
        return 0;
}
