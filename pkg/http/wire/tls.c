#include "http/wire/tls.h"

#include <errno.h>
#include <openssl/err.h>

const char *tls_reason(const char *otherwise)
{
        unsigned long e = ERR_get_error();
        const char *text = e ? ERR_reason_error_string(e) : NULL;

        ERR_clear_error();
        if (e && ERR_SYSTEM_ERROR(e))
                return strerror(ERR_GET_REASON(e));
        return text ? text : otherwise;
}

bool tls_disagreed(void)
{
        unsigned long e = ERR_peek_error();

        return e && !ERR_SYSTEM_ERROR(e) && ERR_GET_REASON(e) != SSL_R_UNEXPECTED_EOF_WHILE_READING;
}

static ssize_t outcome(SSL *ssl, int r)
{
        int number = errno;

        switch (SSL_get_error(ssl, r)) {
        case SSL_ERROR_WANT_READ:
        case SSL_ERROR_WANT_WRITE: return TLS_AGAIN;
        case SSL_ERROR_ZERO_RETURN: return 0;
        default:
                if (!ERR_peek_error() && number)
                        ERR_raise(ERR_LIB_SYS, number);
                return TLS_BROKEN;
        }
}

/* SSL_get_error would take leftover errors of other calls for this one's. */
static void begin(void)
{
        ERR_clear_error();
        errno = 0;
}

ssize_t tls_handshake(SSL *ssl)
{
        ssize_t r;

        begin();
        r = SSL_do_handshake(ssl);
        if (r != 1 && (r = outcome(ssl, (int)r)) == 0)
                return TLS_BROKEN;
        return r;
}

ssize_t tls_read(SSL *ssl, void *p, size_t n)
{
        int r;

        begin();
        r = SSL_read(ssl, p, (int)MIN_OF(n, (size_t)INT32_MAX));
        return r > 0 ? r : outcome(ssl, r);
}

ssize_t tls_write(SSL *ssl, const void *p, size_t n)
{
        int r;

        begin();
        r = SSL_write(ssl, p, (int)MIN_OF(n, (size_t)INT32_MAX));
        return r > 0 ? r : outcome(ssl, r);
}

void tls_end(SSL *ssl)
{
        (void)SSL_shutdown(ssl);
        ERR_clear_error();
}
