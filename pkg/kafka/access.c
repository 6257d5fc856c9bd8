#include "kafka/access.h"

#include "kafka/client.h"
#include "secret/mask.h"

enum { PARTS = 5 };

/* Certificates are files that librdkafka reads when a client is made: one that is gone can't be read again.
 */
static void parts_of(struct kafka_access *a, struct secret_part parts[PARTS])
{
        const struct kafka_sasl_spec *sasl = a->cluster->sasl;
        const struct tls_spec *tls = a->cluster->tls;
        const struct secret_part all[PARTS] = {
                { &a->username, sasl ? sasl->username : NULL, true },
                { &a->password, sasl ? sasl->password : NULL, true },
                { &a->ca, tls ? tls->ca : NULL, false },
                { &a->cert, tls ? tls->cert : NULL, false },
                { &a->key, tls ? tls->key : NULL, false },
        };

        memcpy(parts, all, sizeof(all));
}

static int open_parts(struct kafka_access *a, const struct kafka_access_config *c, struct error *err)
{
        struct secret_part parts[PARTS];

        parts_of(a, parts);
        return secret_open_parts(parts, PARTS, c->loop, c->secrets, c->wake, err);
}

static int open_token(struct kafka_access *a, const struct kafka_access_config *c, struct error *err)
{
        const struct kafka_token_config token = { .spec = c->cluster->sasl->oauth,
                                                  .loop = c->loop,
                                                  .secrets = c->secrets,
                                                  .http = c->http,
                                                  .peers = c->peers,
                                                  .wake = c->wake };

        return kafka_token_new(&a->token, &token, err);
}

int kafka_access_open(struct kafka_access *a, const struct kafka_access_config *c, struct error *err)
{
        const struct kafka_sasl_spec *sasl = c->cluster->sasl;

        a->cluster = c->cluster;
        a->secrets = c->secrets;
        if (open_parts(a, c, err) == 0 && (!sasl || !sasl->oauth || open_token(a, c, err) == 0))
                return 0;
        kafka_access_done(a);
        return -1;
}

void kafka_access_done(struct kafka_access *a)
{
        secret_done(&a->username);
        secret_done(&a->password);
        secret_done(&a->ca);
        secret_done(&a->cert);
        secret_done(&a->key);
        a->token = kafka_token_free(a->token);
}

bool kafka_access_lacks(struct kafka_access *a, struct buf *out)
{
        struct secret_part parts[PARTS];

        parts_of(a, parts);
        for (size_t i = 0; i < PARTS; i++)
                if (parts[i].ref && !secret_part_value(&parts[i]).p) {
                        secret_tell_gone(parts[i].ref, out);
                        return true;
                }
        if (!a->token || !kafka_token_lacks(a->token))
                return false;
        buf_text(out, kafka_token_lacks(a->token));
        return true;
}

const char *kafka_access_trouble(const struct kafka_access *a)
{
        return a->token ? kafka_token_trouble(a->token) : NULL;
}

bool kafka_access_awaits(const struct kafka_access *a) { return a->token && kafka_token_awaited(a->token); }

enum kafka_access_change kafka_access_changed(struct kafka_access *a)
{
        bool credentials = false, files = false;
        struct secret_part parts[PARTS];

        parts_of(a, parts);
        for (size_t i = 0; i < PARTS; i++)
                if (parts[i].ref && secret_changed(parts[i].secret))
                        *(parts[i].last_will_do ? &credentials : &files) = true;
        credentials = (a->token && kafka_token_changed(a->token)) || credentials;
        return files ? KAFKA_ACCESS_CERTIFICATES : credentials ? KAFKA_ACCESS_CREDENTIALS : KAFKA_ACCESS_SAME;
}

/* ---- configuration ------------------------------------------------------ */

static int set(rd_kafka_conf_t *conf, const char *name, const char *value, struct error *err)
{
        char why[256];

        if (rd_kafka_conf_set(conf, name, value, why, sizeof(why)) == RD_KAFKA_CONF_OK)
                return 0;
        /* why may quote the value, which may be a secret */
        return error_set(err, ERROR_INVALID, "librdkafka %s does not take the option %s",
                         rd_kafka_version_str(), name);
}

static int set_file(const struct kafka_access *a, rd_kafka_conf_t *conf, const char *name,
                    const struct secret_ref *ref, struct error *err)
{
        BUF_AT_END struct buf path = BUF_INIT(4096);

        if (!ref)
                return 0;
        secret_path(a->secrets, ref, &path);
        return path.failed ? error_memory(err) : set(conf, name, path.p, err);
}

static int set_tls(const struct kafka_access *a, rd_kafka_conf_t *conf, struct error *err)
{
        const struct tls_spec *tls = a->cluster->tls;

        if (set_file(a, conf, "ssl.ca.location", tls->ca, err) < 0 ||
            set_file(a, conf, "ssl.certificate.location", tls->cert, err) < 0 ||
            set_file(a, conf, "ssl.key.location", tls->key, err) < 0)
                return -1;
        return set(conf, "ssl.endpoint.identification.algorithm", tls->verify_hostname ? "https" : "none",
                   err);
}

/* librdkafka asks when it begins, and when a token grows old: there is one by then, or none to be had. */
static void asked_for_token(rd_kafka_t *rk UNUSED, const char *config UNUSED, void *opaque UNUSED) {}

static int set_sasl(const struct kafka_access *a, rd_kafka_conf_t *conf, struct error *err)
{
        static const char *const mechanisms[] = { [KAFKA_PLAIN] = "PLAIN",
                                                  [KAFKA_SCRAM_SHA_256] = "SCRAM-SHA-256",
                                                  [KAFKA_SCRAM_SHA_512] = "SCRAM-SHA-512",
                                                  [KAFKA_OAUTHBEARER] = "OAUTHBEARER" };
        struct str user = secret_last(&a->username), password = secret_last(&a->password);

        if (set(conf, "sasl.mechanism", mechanisms[a->cluster->sasl->mechanism], err) < 0)
                return -1;
        if (a->token) {
                rd_kafka_conf_set_oauthbearer_token_refresh_cb(conf, asked_for_token);
                return 0;
        }
        if (!user.p || !password.p)
                return error_set(err, ERROR_INVALID, "no user name and password are given for Kafka");
        /* both end in a NUL: a Secret's value is a C string */
        if (set(conf, "sasl.username", user.p, err) < 0)
                return -1;
        return set(conf, "sasl.password", password.p, err);
}

int kafka_access_configure(const struct kafka_access *a, rd_kafka_conf_t *conf, struct error *err)
{
        static const char *const protocols[2][2] = { { "PLAINTEXT", "SSL" },
                                                     { "SASL_PLAINTEXT", "SASL_SSL" } };
        const struct kafka_cluster *c = a->cluster;
        BUF_AT_END struct buf servers = BUF_INIT(65536);

        strings_join(&c->bootstrap_servers, &servers);
        if (servers.failed)
                return error_memory(err);
        if (set(conf, "bootstrap.servers", servers.p, err) < 0 ||
            set(conf, "security.protocol", protocols[!!c->sasl][!!c->tls], err) < 0 ||
            (c->tls && set_tls(a, conf, err) < 0))
                return -1;
        return c->sasl ? set_sasl(a, conf, err) : 0;
}

static void show_token(const struct kafka_token *t, rd_kafka_t *rk)
{
        const char *lacks = kafka_token_lacks(t);
        char why[512];

        if (lacks)
                (void)rd_kafka_oauthbearer_set_token_failure(rk, lacks);
        else if (rd_kafka_oauthbearer_set_token(rk, kafka_token_value(t).p,
                                                kafka_token_expires(t) / USEC_MSEC, kafka_token_principal(t),
                                                NULL, 0, why, sizeof(why)) != RD_KAFKA_RESP_ERR_NO_ERROR)
                (void)rd_kafka_oauthbearer_set_token_failure(rk, why);
}

void kafka_access_renew(const struct kafka_access *a, rd_kafka_t *rk)
{
        struct str user = secret_last(&a->username), password = secret_last(&a->password);

        if (a->token)
                show_token(a->token, rk);
        else if (a->cluster->sasl && user.p && password.p)
                rd_kafka_error_destroy(rd_kafka_sasl_set_credentials(rk, user.p, password.p));
}

void kafka_access_wake(const struct kafka_access *a, rd_kafka_t *rk)
{
        struct str user = secret_last(&a->username), password = secret_last(&a->password);

        rd_kafka_error_destroy(
                rd_kafka_sasl_set_credentials(rk, user.p ? user.p : "", password.p ? password.p : ""));
}

void kafka_access_refused(struct kafka_access *a)
{
        if (a->token)
                kafka_token_refused(a->token);
}

/* ---- what brokers say --------------------------------------------------- */

void kafka_access_quote(const struct kafka_access *a, const char *words, struct buf *out)
{
        struct str values[2 + KAFKA_TOKEN_HIDDEN];
        struct mask m = { .list = values };

        mask_add(&m, secret_last(&a->username));
        mask_add(&m, secret_last(&a->password));
        if (a->token)
                kafka_token_hide(a->token, &m);
        mask_quote(&m, str_of(words), SIZE_MAX, true, out);
}
