/* For tests: keys and X.509 certificates, as authorities, servers and clients have them. The test owns each
 * identity and its files. */
#pragma once

#include <openssl/evp.h>
#include <openssl/x509.h>

#include "base/buf.h"

/* What the key of an authority is for; leaves are made without any. */
#define IDENTITY_SIGNS "critical,keyCertSign,cRLSign"

struct identity {
        EVP_PKEY *key;
        X509 *cert;
};
struct identity_config {
        const struct identity *issuer;   /* NULL: it signs itself */
        EVP_PKEY *key;                   /* shared; NULL: a new one on P-256 */
        const char *organization, *name; /* O and CN of the subject; NULL: it has none */
        const char *alternatives;        /* "DNS:localhost,IP:127.0.0.1"; NULL: none */
        const char *key_usage;           /* NULL: it says nothing of it */
        bool authority;                  /* CA:TRUE */
        int64_t from, until;             /* s since 1970; 0: three days ago, in 30 days */
};

struct identity identity_new(struct identity_config);
void identity_done(struct identity *);

/* The certificate, or its key, at the end of out. */
void identity_pem(const struct identity *, bool key, struct buf *out);
/* Replaces the file by renaming, as mounted Secrets change. */
void identity_write(const struct identity *, bool key, const char *path);
