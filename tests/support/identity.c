#include "tests/support/identity.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/clock.h"

enum { DAY = 86400 };

static void extend(X509 *cert, X509 *issuer, int nid, const char *value)
{
        X509V3_CTX ctx;
        X509_EXTENSION *e;

        X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
        e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
        assert_non_null(e);
        assert_int_equal(X509_add_ext(cert, e, -1), 1);
        X509_EXTENSION_free(e);
}

static void name_add(X509_NAME *subject, const char *field, const char *value)
{
        if (value)
                assert_int_equal(X509_NAME_add_entry_by_txt(subject, field, MBSTRING_ASC,
                                                            (const unsigned char *)value, -1, -1, 0),
                                 1);
}

static EVP_PKEY *key_shared(EVP_PKEY *key)
{
        if (!key)
                return EVP_EC_gen("P-256");
        assert_int_equal(EVP_PKEY_up_ref(key), 1);
        return key;
}

struct identity identity_new(struct identity_config c)
{
        static long serial = 1; /* no two of one issuer have the same */
        struct identity i = { key_shared(c.key), X509_new() };
        int64_t now = clock_wall(&system_clock) / USEC_SEC;
        X509 *issuer = c.issuer ? c.issuer->cert : i.cert;
        X509_NAME *subject;

        assert_true(i.key && i.cert);
        subject = X509_get_subject_name(i.cert);
        assert_int_equal(X509_set_version(i.cert, 2), 1);
        assert_int_equal(ASN1_INTEGER_set(X509_get_serialNumber(i.cert), serial++), 1);
        assert_non_null(ASN1_TIME_set(X509_getm_notBefore(i.cert), c.from ? c.from : now - 3 * DAY));
        assert_non_null(ASN1_TIME_set(X509_getm_notAfter(i.cert), c.until ? c.until : now + 30 * DAY));
        name_add(subject, "O", c.organization);
        name_add(subject, "CN", c.name);
        assert_int_equal(X509_set_issuer_name(i.cert, X509_get_subject_name(issuer)), 1);
        assert_int_equal(X509_set_pubkey(i.cert, i.key), 1);
        if (c.authority)
                extend(i.cert, issuer, NID_basic_constraints, "critical,CA:TRUE");
        if (c.key_usage)
                extend(i.cert, issuer, NID_key_usage, c.key_usage);
        if (c.alternatives)
                extend(i.cert, issuer, NID_subject_alt_name, c.alternatives);
        assert_true(X509_sign(i.cert, c.issuer ? c.issuer->key : i.key, EVP_sha256()) > 0);
        return i;
}

void identity_done(struct identity *i)
{
        X509_free(i->cert);
        EVP_PKEY_free(i->key);
        *i = (struct identity){ 0 };
}

void identity_pem(const struct identity *i, bool key, struct buf *out)
{
        BIO *bio = BIO_new(BIO_s_mem());
        char *p;
        long n;

        assert_non_null(bio);
        assert_int_equal(key ? PEM_write_bio_PrivateKey(bio, i->key, NULL, NULL, 0, NULL, NULL)
                             : PEM_write_bio_X509(bio, i->cert),
                         1);
        n = BIO_get_mem_data(bio, &p);
        out->max = MAX_OF(out->max, (size_t)65536);
        buf_add(out, p, (size_t)n);
        assert_false(out->failed);
        BIO_free(bio);
}

void identity_write(const struct identity *i, bool key, const char *path)
{
        BUF_AT_END struct buf pem = BUF_INIT(65536);
        char next[256];
        FILE *f;

        assert_in_range(snprintf(next, sizeof(next), "%s.next", path), 0, sizeof(next) - 1);
        identity_pem(i, key, &pem);
        f = fopen(next, "w");
        assert_non_null(f);
        assert_int_equal(fwrite(pem.p, 1, pem.n, f), pem.n);
        assert_int_equal(fclose(f), 0);
        assert_int_equal(rename(next, path), 0);
}
