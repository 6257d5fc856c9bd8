/* What TLS is for client and server alike, by OpenSSL on sockets that never block. Loop's thread. */
#pragma once

#include <openssl/ssl.h>

#include "base/base.h"

/* beside a number of bytes; 0: the peer's end. Broken: tls_reason says why */
enum { TLS_AGAIN = -1, TLS_BROKEN = -2 };
ssize_t tls_handshake(SSL *); /* of either side; 1: done */
/* After a broken handshake, before tls_reason: did the two not agree, as over a certificate? false: the
 * connection broke under them. */
bool tls_disagreed(void);
ssize_t tls_read(SSL *, void *, size_t);
ssize_t tls_write(SSL *, const void *, size_t);
void tls_end(SSL *); /* says that nothing more comes; not after it broke */
/* Why the last call on this thread failed, from OpenSSL's queue, which is emptied. otherwise: it does not
 * know. */
const char *tls_reason(const char *otherwise);
