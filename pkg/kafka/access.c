#include "kafka/access.h"

#include "kafka/client.h"

struct part {
        struct secret *secret;
        const struct secret_ref *ref;
        bool file; /* librdkafka reads it, when a client is made */
};
enum { PARTS = 5 };

static void parts_of(struct kafka_access *a, struct part parts[PARTS])
{
        const struct kafka_sasl_spec *sasl = a->cluster->sasl;
        const struct tls_spec *tls = a->cluster->tls;
        const struct part all[PARTS] = {
                { &a->username, sasl ? sasl->username : NULL, false },
                { &a->password, sasl ? sasl->password : NULL, false },
                { &a->ca, tls ? tls->ca : NULL, true },
                { &a->cert, tls ? tls->cert : NULL, true },
                { &a->key, tls ? tls->key : NULL, true },
        };

        memcpy(parts, all, sizeof(all));
}

int kafka_access_open(struct kafka_access *a, struct loop *loop, const struct kafka_cluster *cluster,
                      const char *secrets, struct task *wake, struct error *err)
{
        struct part parts[PARTS];

        a->cluster = cluster;
        a->secrets = secrets;
        parts_of(a, parts);
        for (size_t i = 0; i < PARTS; i++)
                if (parts[i].ref &&
                    secret_open(parts[i].secret, loop, secrets, parts[i].ref, wake, err) < 0) {
                        kafka_access_done(a);
                        return -1;
                }
        return 0;
}

void kafka_access_done(struct kafka_access *a)
{
        secret_done(&a->username);
        secret_done(&a->password);
        secret_done(&a->ca);
        secret_done(&a->cert);
        secret_done(&a->key);
}

/* A name or a password that is gone may do until it is refused; a file can't be read again. */
static bool is_missing(const struct part *p)
{
        return p->ref && (p->file ? secret_gone(p->secret) : !secret_last(p->secret).p);
}

bool kafka_access_lacks(struct kafka_access *a, struct buf *out)
{
        struct part parts[PARTS];

        parts_of(a, parts);
        for (size_t i = 0; i < PARTS; i++)
                if (is_missing(&parts[i])) {
                        secret_tell_gone(parts[i].ref, out);
                        return true;
                }
        return false;
}

enum kafka_access_change kafka_access_changed(struct kafka_access *a)
{
        bool credentials = false, files = false;
        struct part parts[PARTS];

        parts_of(a, parts);
        for (size_t i = 0; i < PARTS; i++)
                if (parts[i].ref && secret_changed(parts[i].secret))
                        *(parts[i].file ? &files : &credentials) = true;
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

static int set_sasl(const struct kafka_access *a, rd_kafka_conf_t *conf, struct error *err)
{
        static const char *const mechanisms[] = { [KAFKA_PLAIN] = "PLAIN",
                                                  [KAFKA_SCRAM_SHA_256] = "SCRAM-SHA-256",
                                                  [KAFKA_SCRAM_SHA_512] = "SCRAM-SHA-512" };
        struct str user = secret_last(&a->username), password = secret_last(&a->password);

        if (!user.p || !password.p)
                return error_set(err, ERROR_INVALID, "no user name and password are given for Kafka");
        /* both end in a NUL: a Secret's value is a C string */
        if (set(conf, "sasl.mechanism", mechanisms[a->cluster->sasl->mechanism], err) < 0 ||
            set(conf, "sasl.username", user.p, err) < 0)
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

void kafka_access_renew(const struct kafka_access *a, rd_kafka_t *rk)
{
        struct str user = secret_last(&a->username), password = secret_last(&a->password);

        if (a->cluster->sasl && user.p && password.p)
                rd_kafka_error_destroy(rd_kafka_sasl_set_credentials(rk, user.p, password.p));
}

/* ---- what brokers say --------------------------------------------------- */

enum { SHORTEST = 4 }; /* a shorter value would match parts of ordinary words */

/* How much of the words is the value; at their end, where they were cut, its beginning counts. */
static size_t quoted(struct str words, struct str value)
{
        size_t n = MIN_OF(words.n, value.n);

        return value.n >= SHORTEST && n >= SHORTEST && memcmp(words.p, value.p, n) == 0 ? n : 0;
}

void kafka_access_quote(const struct kafka_access *a, const char *words, struct buf *out)
{
        struct str rest = str_of(words), user = secret_last(&a->username),
                   password = secret_last(&a->password);

        while (rest.n) {
                size_t n = MAX_OF(quoted(rest, user), quoted(rest, password));

                if (n)
                        buf_text(out, "***");
                else
                        buf_char(out, rest.p[0]);
                n = n ? n : 1;
                rest = (struct str){ rest.p + n, rest.n - n };
        }
}
