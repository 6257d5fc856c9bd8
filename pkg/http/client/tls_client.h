/* TLS as a client, by OpenSSL on a socket of ours: the authorities that a target trusts, its client
 * certificate, and the last session for resumption. It is made anew when the files change; open sessions go
 * on with the old ones. Loop's thread. */
#pragma once

#include "base/list.h"
#include "http/client/client.h"
#include "http/wire/tls.h"

struct tls_client;
struct tls_trust;

/* Trusted authorities, shared by all targets that name the same ones, since a system's bundle takes a
 * megabyte. Zeroed before first use. */
struct tls_authorities {
        struct list trusts;
};

struct tls_client_config {
        const struct http_tls *tls;
        /* the name for SNI, which the certificate must be valid for; borrowed until the end */
        const char *name;
        enum http_version version;            /* decides what ALPN offers */
        const struct http_settings *settings; /* names of settings for error messages; NULL: none */
};
/* The error says which file can't be used and which setting names it. It is ERROR_UNREACHABLE, since the file
 * may appear later. */
int tls_client_new(struct tls_client **, struct tls_authorities *, const struct tls_client_config *,
                   struct error *) MUST_CHECK;
struct tls_client *tls_client_free(struct tls_client *); /* its open sessions stay valid; NULL is fine */

/* A session on a connected socket, which the caller keeps; NULL: out of memory. Next: tls_handshake. */
SSL *tls_client_open(struct tls_client *, int fd) MUST_CHECK;
bool tls_client_agreed_http2(const SSL *);
/* Why the handshake, or a read or write after it, failed. The last call of OpenSSL on this thread must have
 * been of this session. Advice comes first, where there is any. own_certificate: we have a client
 * certificate. settings may be NULL. */
void tls_client_why(const SSL *, const struct http_settings *settings, bool own_certificate, struct buf *out);
