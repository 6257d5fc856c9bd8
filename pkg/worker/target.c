#include "worker/target.h"

#include "secret/secret.h"
#include "source/source.h"

enum { TARGET_SPACE = 256 * 1024 };

/* Appends a text to a buffer that does not move, and returns a view of it. */
static const char *keep_file(struct buf *space, const char *secrets, const struct secret_ref *ref)
{
        size_t from = space->n;

        if (!ref)
                return NULL;
        secret_path(secrets, ref, space);
        buf_char(space, 0);
        return space->p + from;
}

static int set_proxy(struct http_target_config *c, const struct proxy_spec *p, const char *secrets,
                     struct buf *space, struct error *err)
{
        size_t from;

        if (!secrets && (p->username || p->password))
                return error_set(err, ERROR_INVALID,
                                 "spec.delivery.proxy names Secrets, and no folder of Secrets is given: say "
                                 "--secrets=DIR");
        c->proxy.url = str_of(p->url);
        c->proxy.user_file = keep_file(space, secrets, p->username);
        c->proxy.password_file = keep_file(space, secrets, p->password);
        from = space->n;
        strings_join(&p->no_proxy, space);
        c->proxy.no_proxy = (struct str){ space->p + from, space->n - from };
        return 0;
}

usec target_connect_timeout(const struct delivery_spec *d, usec attempt)
{
        return MIN_OF(attempt - attempt / 8, d->connect_timeout);
}

int target_config(struct http_target_config *c, const struct trigger *t, const char *url, const char *secrets,
                  struct buf *space, struct error *err)
{
        static const enum http_version versions[] = {
                [WIRE_AUTO] = HTTP_AUTO, [WIRE_HTTP_1_1] = HTTP_1_1, [WIRE_HTTP_2] = HTTP_2_PRIOR_KNOWLEDGE
        };
        static const struct http_settings settings = {
                .ca = "delivery.tls.caSecretRef or sink.CACerts",
                .client_cert = "delivery.tls.certSecretRef",
                .any_host = "delivery.tls.verifyHostname: false",
                .proxy = "delivery.proxy",
        };
        const struct delivery_spec *d = t->delivery;

        *c = (struct http_target_config){ .settings = &settings,
                                          .url = str_of(url),
                                          .connect_timeout = target_connect_timeout(d, d->timeout),
                                          .response_timeout = d->response_timeout,
                                          .max_age = 5 * USEC_MINUTE,
                                          .http_version = versions[d->http_version],
                                          .compress = d->compression == COMPRESSION_GZIP,
                                          .once = trigger_source(t)->push !=
                                                  NULL /* the caller decides whether to repeat */ };
        if (!buf_reserve(space, TARGET_SPACE))
                return error_memory(err);
        if (d->tls && !secrets && (d->tls->ca || d->tls->cert))
                return error_set(err, ERROR_INVALID,
                                 "spec.delivery.tls names Secrets, and no folder of Secrets is given: say "
                                 "--secrets=DIR");
        if (d->tls) {
                c->tls.ca_file = keep_file(space, secrets, d->tls->ca);
                c->tls.client_cert_file = keep_file(space, secrets, d->tls->cert);
                c->tls.client_key_file = keep_file(space, secrets, d->tls->key);
                c->tls.any_host = !d->tls->verify_hostname;
        }
        if (t->sink->ca_certs)
                c->tls.ca_pem = str_of(t->sink->ca_certs);
        if (d->proxy && set_proxy(c, d->proxy, secrets, space, err) < 0)
                return -1;
        return space->failed ? error_memory(err) : 0;
}
