#include "http/server/tls_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

#include "base/file.h"
#include "base/watch.h"
#include "http/server/hello.h"
#include "log/log.h"

/* Of a client's certificates, in bytes: memory for them is taken before they come. */
enum { CHAIN_MOST = 32 * 1024 };
static const usec LOOK_AGAIN = USEC_SEC, TELL_AGAIN = USEC_MINUTE;

struct file {
        char *path; /* NULL: none */
        struct watch watch;
        uint64_t seen; /* the version of the file that was read last */
};

struct tls_server {
        SSL_CTX *context;
        BIO_METHOD *socket;
        struct file cert, key, client_ca;
        bool client_required;
        usec handshake_timeout, looked, told;
        uint64_t failures, failures_told;
        /* counts changes of the authorities; each session has the number at which it was verified */
        uintptr_t trusted;
        bool reload_failed;
};

uint64_t tls_server_failures(const struct tls_server *t) { return t->failures; }
usec tls_server_handshake_timeout(const struct tls_server *t) { return t->handshake_timeout; }

/* ---- sockets: like OpenSSL's own, but never a SIGPIPE ------------------- */

struct session {
        SSL *ssl;
        int fd;
        struct hello hello;
};

static struct session *session_of(BIO *b) { return BIO_get_data(b); }

static int bio_write(BIO *b, const char *p, int n)
{
        int sent = (int)send(session_of(b)->fd, p, (size_t)n, MSG_NOSIGNAL);

        BIO_clear_retry_flags(b);
        if (sent < 0 && (errno == EAGAIN || errno == EINTR))
                BIO_set_retry_write(b);
        return sent;
}

static int bio_read(BIO *b, char *p, int n)
{
        struct session *s = session_of(b);
        int got = (int)recv(s->fd, p, (size_t)n, 0);

        BIO_clear_retry_flags(b);
        if (got > 0 &&
            !hello_passes(&s->hello, (struct str){ p, (size_t)got }, SSL_version(s->ssl) <= TLS1_2_VERSION)) {
                ERR_raise(ERR_LIB_SSL, SSL_R_EXCESSIVE_MESSAGE_SIZE);
                return -1;
        }
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
                BIO_set_retry_read(b);
        if (got == 0)
                BIO_set_flags(b, BIO_FLAGS_IN_EOF);
        return got;
}

static long bio_ctrl(BIO *b, int command, long number UNUSED, void *p UNUSED)
{
        if (command == BIO_CTRL_EOF)
                return BIO_test_flags(b, BIO_FLAGS_IN_EOF) != 0;
        return command == BIO_CTRL_FLUSH;
}

static int bio_destroy(BIO *b)
{
        free(session_of(b));
        return 1;
}

/* ---- the context -------------------------------------------------------- */

static int choose_alpn(SSL *ssl UNUSED, const unsigned char **out, unsigned char *out_n,
                       const unsigned char *in, unsigned in_n, void *cookie UNUSED)
{
        static const unsigned char ours[] = "\x08http/1.1";

        return SSL_select_next_proto((unsigned char **)(uintptr_t)out, out_n, ours, sizeof(ours) - 1, in,
                                     in_n) == OPENSSL_NPN_NEGOTIATED
                       ? SSL_TLSEXT_ERR_OK
                       : SSL_TLSEXT_ERR_ALERT_FATAL;
}

static void set_up(SSL_CTX *x)
{
        tls_context(x);
        (void)SSL_CTX_set_options(x, SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_CIPHER_SERVER_PREFERENCE);
        (void)SSL_CTX_set_session_cache_mode(x, SSL_SESS_CACHE_OFF);
        (void)SSL_CTX_set_session_id_context(x, (const unsigned char *)"sluice", 6);
        (void)SSL_CTX_set_num_tickets(x, 1);
        SSL_CTX_set_max_cert_list(x, CHAIN_MOST);
        SSL_CTX_set_alpn_select_cb(x, choose_alpn, NULL);
}

static int never_asks(char *space UNUSED, int size UNUSED, int writing UNUSED, void *cookie UNUSED)
{
        return 0;
}

static int load(const struct tls_server *t, SSL_CTX *x, struct error *err)
{
        /* an encrypted key can't be used: there is nobody to type its password */
        SSL_CTX_set_default_passwd_cb(x, never_asks);
        if (file_is_other(t->cert.path) || SSL_CTX_use_certificate_chain_file(x, t->cert.path) != 1)
                return error_set(err, ERROR_INVALID, "read the certificate %s: %s", t->cert.path,
                                 tls_reason("not the PEM file that was expected"));
        if (file_is_other(t->key.path) || SSL_CTX_use_PrivateKey_file(x, t->key.path, SSL_FILETYPE_PEM) != 1)
                return error_set(err, ERROR_INVALID, "read the key %s: %s", t->key.path,
                                 tls_reason("not the PEM file that was expected"));
        if (SSL_CTX_check_private_key(x) != 1)
                return error_set(err, ERROR_INVALID, "the key %s is not that of the certificate %s: %s",
                                 t->key.path, t->cert.path, tls_reason("not the PEM file that was expected"));
        if (!t->client_ca.path)
                return 0;
        if (file_is_other(t->client_ca.path) ||
            SSL_CTX_load_verify_locations(x, t->client_ca.path, NULL) != 1)
                return error_set(err, ERROR_INVALID, "read the clients' CA %s: %s", t->client_ca.path,
                                 tls_reason("not the PEM file that was expected"));
        SSL_CTX_set_client_CA_list(x, SSL_load_client_CA_file(t->client_ca.path));
        SSL_CTX_set_verify(x, SSL_VERIFY_PEER | (t->client_required ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0),
                           NULL);
        return 0;
}

static int make_context(struct tls_server *t, struct error *err)
{
        SSL_CTX *x = SSL_CTX_new(TLS_server_method());

        ERR_clear_error();
        if (!x)
                return error_memory(err);
        set_up(x);
        if (load(t, x, err) < 0) {
                SSL_CTX_free(x);
                return -1;
        }
        SSL_CTX_free(t->context);
        t->context = x;
        return 0;
}

/* ---- files that change -------------------------------------------------- */

static bool has_changed(struct file *f)
{
        bool changed = f->watch.version != f->seen;

        f->seen = f->watch.version;
        return changed;
}

static bool have_changed(struct tls_server *t, bool *ca)
{
        bool cert = has_changed(&t->cert), key = has_changed(&t->key);

        *ca = has_changed(&t->client_ca);
        return cert || key || *ca;
}

/* Looks at the files, since inotify may not be available. */
static void look_at_files(struct tls_server *t)
{
        (void)watch_look(&t->cert.watch);
        (void)watch_look(&t->key.watch);
        (void)watch_look(&t->client_ca.watch);
}

static int open_file(struct file *f, struct loop *loop, const char *path, struct error *err)
{
        if (!path)
                return 0;
        f->path = str_dup(str_of(path));
        if (!f->path)
                return error_memory(err);
        return watch_open(&f->watch, loop, path, NULL, err);
}

static void close_file(struct file *f)
{
        watch_close(&f->watch);
        free(f->path);
}

/* The old certificate stays in use, but client certificates are verified by the current authorities: by none,
 * if their file is missing or invalid. */
static void trust_anew(struct tls_server *t)
{
        X509_STORE *store = X509_STORE_new();
        bool other = file_is_other(t->client_ca.path);
        STACK_OF(X509_NAME) *names = other ? NULL : SSL_load_client_CA_file(t->client_ca.path);
        unsigned char keys[256];
        long n = SSL_CTX_set_tlsext_ticket_keys(t->context, NULL, 0);

        if (!store)
                abort(); /* out of memory: clients may still be trusted that must not be */
        if (!other)
                (void)X509_STORE_load_file(store, t->client_ca.path);
        SSL_CTX_set_cert_store(t->context, store);
        SSL_CTX_set_client_CA_list(t->context, names ? names : sk_X509_NAME_new_null());
        /* A session that is resumed is not verified again. */
        if (n <= 0 || n > (long)sizeof(keys) || RAND_bytes(keys, (int)n) != 1 ||
            SSL_CTX_set_tlsext_ticket_keys(t->context, keys, n) != 1)
                (void)SSL_CTX_set_options(t->context, SSL_OP_NO_TICKET);
        ERR_clear_error();
}

/* Certificate and key are replaced one after the other: if they do not match now, try again later. */
static void look_after(struct tls_server *t, usec now)
{
        struct error err;
        bool again = !t->looked || now - t->looked >= LOOK_AGAIN, ca;

        if (again) {
                t->looked = now;
                look_at_files(t);
        }
        if (!have_changed(t, &ca) && !(again && t->reload_failed))
                return;
        t->trusted += ca;
        t->reload_failed = make_context(t, &err) < 0;
        if (t->reload_failed && ca)
                trust_anew(t);
        if (!t->reload_failed)
                log_info("TLS certificate read again", LOG_S("file", t->cert.path));
        else if (!t->told || now - t->told >= TELL_AGAIN) {
                log_warn("the changed TLS files cannot be used; the old certificate is, and of clients those "
                         "whom the CA vouches for now",
                         LOG_S("error", err.text));
                t->told = now;
        }
}

void tls_server_failed(struct tls_server *t, usec now)
{
        const char *why = tls_reason("the client went away or took too long");

        t->failures++;
        if (t->told && now - t->told < TELL_AGAIN)
                return;
        log_warn("TLS handshakes failed", LOG_I("count", t->failures - t->failures_told), LOG_S("last", why));
        t->failures_told = t->failures;
        t->told = now;
}

int tls_server_new(struct tls_server **out, struct loop *loop, const struct http_server_tls *config,
                   struct error *err)
{
        struct tls_server *t = calloc(1, sizeof(*t));
        bool ca;

        if (!t)
                return error_memory(err);
        t->handshake_timeout = config->handshake_timeout ? config->handshake_timeout : 10 * USEC_SEC;
        t->client_required = config->client_required;
        t->socket = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "sluice socket");
        if (!t->socket || BIO_meth_set_write(t->socket, bio_write) != 1 ||
            BIO_meth_set_read(t->socket, bio_read) != 1 || BIO_meth_set_ctrl(t->socket, bio_ctrl) != 1 ||
            BIO_meth_set_destroy(t->socket, bio_destroy) != 1) {
                (void)tls_server_free(t);
                return error_memory(err);
        }
        if (open_file(&t->cert, loop, config->cert, err) < 0 ||
            open_file(&t->key, loop, config->key, err) < 0 ||
            open_file(&t->client_ca, loop, config->client_ca, err) < 0) {
                (void)tls_server_free(t);
                return -1;
        }
        (void)have_changed(t, &ca);
        if (make_context(t, err) < 0) {
                (void)tls_server_free(t);
                return -1;
        }
        *out = t;
        return 0;
}

struct tls_server *tls_server_free(struct tls_server *t)
{
        if (!t)
                return NULL;
        SSL_CTX_free(t->context);
        BIO_meth_free(t->socket);
        close_file(&t->cert);
        close_file(&t->key);
        close_file(&t->client_ca);
        free(t);
        return NULL;
}

/* ---- sessions ----------------------------------------------------------- */

SSL *tls_server_accept(struct tls_server *t, int fd, usec now)
{
        struct session *s = calloc(1, sizeof(*s));
        SSL *ssl;
        BIO *b;

        look_after(t, now);
        ssl = s ? SSL_new(t->context) : NULL;
        b = ssl ? BIO_new(t->socket) : NULL;
        if (!b) {
                SSL_free(ssl);
                free(s);
                ERR_clear_error();
                return NULL;
        }
        *s = (struct session){ .ssl = ssl, .fd = fd };
        BIO_set_data(b, s);
        BIO_set_init(b, 1);
        (void)SSL_set_app_data(ssl, (void *)t->trusted);
        SSL_set_bio(ssl, b, b);
        SSL_set_accept_state(ssl);
        return ssl;
}

static bool vouched_for(const struct tls_server *t, SSL *ssl, X509 *certificate)
{
        X509_STORE_CTX *x = X509_STORE_CTX_new();
        bool good = x &&
                    X509_STORE_CTX_init(x, SSL_CTX_get_cert_store(t->context), certificate,
                                        SSL_get_peer_cert_chain(ssl)) == 1 &&
                    X509_STORE_CTX_set_default(x, "ssl_client") == 1 && X509_verify_cert(x) == 1;

        X509_STORE_CTX_free(x);
        ERR_clear_error();
        return good;
}

bool tls_server_trusts(struct tls_server *t, SSL *ssl, usec now)
{
        X509 *certificate;

        if (!t->client_ca.path)
                return true;
        look_after(t, now);
        if (SSL_get_app_data(ssl) == (void *)t->trusted)
                return true;
        certificate = SSL_get0_peer_certificate(ssl);
        if (certificate && !vouched_for(t, ssl, certificate))
                return false;
        (void)SSL_set_app_data(ssl, (void *)t->trusted);
        return true;
}

static void add_name(struct buf *out, const char *kind, const unsigned char *p, int n)
{
        /* A name in a certificate must not look like two lines. */
        if (n < 0 || memchr(p, '\n', (size_t)n) || memchr(p, 0, (size_t)n))
                return;
        buf_text(out, kind);
        buf_add(out, p, (size_t)n);
        buf_char(out, '\n');
}

static void add_names(struct buf *out, const X509 *certificate)
{
        GENERAL_NAMES *all = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);

        for (int i = 0; i < sk_GENERAL_NAME_num(all); i++) {
                const GENERAL_NAME *name = sk_GENERAL_NAME_value(all, i);
                const char *kind = name->type == GEN_DNS     ? "DNS:"
                                   : name->type == GEN_URI   ? "URI:"
                                   : name->type == GEN_EMAIL ? "email:"
                                                             : NULL;
                char text[INET6_ADDRSTRLEN];

                if (kind)
                        add_name(out, kind, ASN1_STRING_get0_data(name->d.ia5),
                                 ASN1_STRING_length(name->d.ia5));
                else if (name->type == GEN_IPADD && (name->d.ip->length == 4 || name->d.ip->length == 16) &&
                         inet_ntop(name->d.ip->length == 4 ? AF_INET : AF_INET6, name->d.ip->data, text,
                                   sizeof(text)))
                        add_name(out, "IP:", (const unsigned char *)text, (int)strlen(text));
        }
        GENERAL_NAMES_free(all);
}

bool tls_certificate(SSL *ssl, struct buf *subject, struct buf *names)
{
        X509 *certificate = SSL_get1_peer_certificate(ssl);
        BIO *text = certificate ? BIO_new(BIO_s_mem()) : NULL;
        char *p;
        long n;

        if (text &&
            X509_NAME_print_ex(text, X509_get_subject_name(certificate), 0,
                               XN_FLAG_RFC2253 & ~(unsigned long)ASN1_STRFLGS_ESC_MSB) >= 0 &&
            (n = BIO_get_mem_data(text, &p)) > 0)
                buf_add(subject, p, (size_t)n);
        if (certificate)
                add_names(names, certificate);
        BIO_free(text);
        X509_free(certificate);
        ERR_clear_error();
        return certificate != NULL;
}
