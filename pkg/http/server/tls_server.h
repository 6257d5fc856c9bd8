/* TLS for the server's sockets, by OpenSSL: one context, made again when its files change. Open sessions go
 * on, as long as the current authorities still vouch for their client certificates. Failures are counted and
 * logged once a minute. Loop's thread. */
#pragma once

#include <openssl/ssl.h>

#include "http/server/server.h"
#include "http/wire/tls.h"

struct tls_server;

int tls_server_new(struct tls_server **, struct loop *, const struct http_server_tls *,
                   struct error *) MUST_CHECK;
struct tls_server *tls_server_free(struct tls_server *); /* NULL is fine */
/* A session on a socket, which the caller keeps; NULL: out of memory. Reads changed files. */
SSL *tls_server_accept(struct tls_server *, int fd, usec now) MUST_CHECK;
/* Does the client's certificate still verify against the current authorities? Reads changed files, once a
 * second. */
bool tls_server_trusts(struct tls_server *, SSL *, usec now);
/* a handshake failed, for the reason in OpenSSL's error queue, which is emptied */
void tls_server_failed(struct tls_server *, usec now);
uint64_t tls_server_failures(const struct tls_server *);
usec tls_server_handshake_timeout(const struct tls_server *);

bool tls_certificate(SSL *, struct buf *subject, struct buf *names);
