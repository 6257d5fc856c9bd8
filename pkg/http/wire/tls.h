/* What TLS clients and servers share: OpenSSL on non-blocking sockets. Loop's thread. */
#pragma once

#include <openssl/ssl.h>

#include "base/base.h"

/* What both sides set of a context: all that the calls below count on. */
void tls_context(SSL_CTX *);

/* returned instead of a number of bytes, where 0 is the peer's close. TLS_BROKEN: see tls_reason */
enum { TLS_AGAIN = -1, TLS_BROKEN = -2 };
ssize_t tls_handshake(SSL *); /* as either side; 1: done */
/* After a failed handshake, before tls_reason: did client and server not agree, as about a certificate?
 * false: the connection broke. */
bool tls_disagreed(void);
/* A peer that sends many records in a row that hold no data is broken. */
ssize_t tls_read(SSL *, void *, size_t);
ssize_t tls_write(SSL *, const void *, size_t);
void tls_end(SSL *); /* sends close_notify; not after an error */
/* Why the last call on this thread failed, from OpenSSL's error queue, which is emptied. otherwise: what to
 * say if the queue has nothing. */
const char *tls_reason(const char *otherwise);
