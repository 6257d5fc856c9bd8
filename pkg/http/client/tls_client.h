/* TLS towards a peer, by OpenSSL on a socket of ours: whom a target trusts, which certificate it shows, and
 * the last session for resumption. Made anew when the files change; sessions that are open keep theirs.
 * Loop's thread. */
#pragma once

#include "base/list.h"
#include "http/client/client.h"
#include "http/wire/tls.h"

struct tls_client;
struct tls_trust;

/* Authorities that were read, shared by all targets that name the same ones: a system's bundle takes a
 * megabyte. Zeroed before first use. */
struct tls_authorities {
        struct list trusts;
};

struct tls_client_config {
        const struct http_tls *tls;
        /* that is asked for and that the certificate must bear; borrowed until the end */
        const char *name;
        enum http_version version;            /* what is offered by ALPN */
        const struct http_settings *settings; /* for advice; NULL: none */
};
/* The error says which file can't be used and which setting names it; ERROR_UNREACHABLE, since the file may
 * come.
 */
int tls_client_new(struct tls_client **, struct tls_authorities *, const struct tls_client_config *,
                   struct error *) MUST_CHECK;
struct tls_client *tls_client_free(struct tls_client *); /* its sessions may go on; NULL is fine */

/* A session on a connected socket, which stays the caller's; NULL: no memory. Next: tls_handshake. */
SSL *tls_client_open(struct tls_client *, int fd) MUST_CHECK;
bool tls_client_agreed_http2(const SSL *);
/* Why the handshake, or a read or write after it, failed: the last call of OpenSSL on this thread was of this
 * session. What to do about it, where that is known, stands first. own_certificate: we showed one. settings
 * may be NULL. */
void tls_client_why(const SSL *, const struct http_settings *settings, bool own_certificate, struct buf *out);
