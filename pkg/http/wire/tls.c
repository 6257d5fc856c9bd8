#include "http/wire/tls.h"

#include <errno.h>
#include <openssl/err.h>

/* What one read may pass by on its way to data: records without any, such as session tickets and changes of
 * keys, and reads of the socket. OpenSSL would go on for as long as the peer sends such records. */
enum { IDLE_RECORDS_MOST = 32, SOCKET_READS_MOST = 3 };

void tls_context(SSL_CTX *x)
{
        (void)SSL_CTX_set_min_proto_version(x, TLS1_2_VERSION);
        (void)SSL_CTX_set_options(x, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
        /* Idle connections free their record buffers; a record is read by one call, not two. */
        (void)SSL_CTX_set_mode(x, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                          SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        SSL_CTX_set_read_ahead(x, 1);
}

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

struct reading {
        unsigned records, socket_reads;
};

static void count_record(int sent, int version UNUSED, int type, const void *p UNUSED, size_t n UNUSED,
                         SSL *ssl UNUSED, void *reading)
{
        ((struct reading *)reading)->records += !sent && type == SSL3_RT_HEADER;
}

/* Above the limit the socket seems dry: what is in it is reported again. */
static long limit_reads(BIO *b, int what, const char *p UNUSED, size_t n UNUSED, int number UNUSED,
                        long other UNUSED, int result, size_t *done UNUSED)
{
        struct reading *reading = (struct reading *)(void *)BIO_get_callback_arg(b);

        if (what != BIO_CB_READ || ++reading->socket_reads <= SOCKET_READS_MOST)
                return result;
        BIO_clear_retry_flags(b);
        BIO_set_retry_read(b);
        return -1;
}

ssize_t tls_read(SSL *ssl, void *p, size_t n)
{
        struct reading reading = { 0 };
        BIO *socket = SSL_get_rbio(ssl);
        ssize_t r;

        SSL_set_msg_callback(ssl, count_record);
        SSL_set_msg_callback_arg(ssl, &reading);
        BIO_set_callback_ex(socket, limit_reads);
        BIO_set_callback_arg(socket, (char *)&reading);
        begin();
        r = SSL_read(ssl, p, (int)MIN_OF(n, (size_t)INT32_MAX));
        r = r > 0 ? r : outcome(ssl, (int)r);
        BIO_set_callback_ex(socket, NULL);
        SSL_set_msg_callback(ssl, NULL);
        if (r != TLS_AGAIN || reading.records <= IDLE_RECORDS_MOST)
                return r;
        ERR_raise(ERR_LIB_SSL, SSL_R_TOO_MANY_KEY_UPDATES);
        return TLS_BROKEN;
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
