#include "http/client/tls_client.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "base/file.h"
#include "base/watch.h"

struct tls_trust {
        struct list_node node;
        uint32_t users;
        char *file; /* NULL: pem, or the system's */
        struct file_stamp stamp;
        struct buf pem;
        X509_STORE *store;
};

struct tls_client {
        struct tls_authorities *authorities;
        struct tls_trust *trust;
        SSL_CTX *context;
        SSL_SESSION *session; /* the last one that the peer gave; NULL: none */
        const char *name;
        bool any_host;
};

/* ---- authorities -------------------------------------------------------- */

static int add_pem(X509_STORE *store, struct str pem)
{
        BIO *text = BIO_new_mem_buf(pem.p, (int)MIN_OF(pem.n, (size_t)INT32_MAX));
        STACK_OF(X509_INFO) *all = text ? PEM_X509_INFO_read_bio(text, NULL, NULL, NULL) : NULL;
        int added = 0;

        for (int i = 0; i < sk_X509_INFO_num(all); i++) {
                X509 *certificate = sk_X509_INFO_value(all, i)->x509;

                added += certificate && X509_STORE_add_cert(store, certificate) == 1;
        }
        sk_X509_INFO_pop_free(all, X509_INFO_free);
        BIO_free(text);
        return added ? 0 : -1;
}

/* Adds the name of a setting to the advice, if the user has one for it. */
static void say(struct buf *out, const char *before, const char *setting)
{
        if (setting)
                buf_printf(out, "%s%s", before, setting);
}

static int fill(struct tls_trust *a, const struct http_settings *settings, struct error *err)
{
        const char *setting = settings ? settings->ca : NULL;
        BUF_AT_END struct buf advice = BUF_INIT(1024);

        a->store = X509_STORE_new();
        if (!a->store)
                return error_memory(err);
        if (a->pem.n ? add_pem(a->store, buf_view(&a->pem)) < 0
                     : a->file && (file_is_other(a->file) || X509_STORE_load_file(a->store, a->file) != 1)) {
                say(&advice, ": see ", setting);
                return error_set(err, ERROR_UNREACHABLE, "the CA%s%s can't be read%s", a->file ? " in " : "",
                                 a->file ? a->file : "", advice.p ? advice.p : "");
        }
        if (!a->pem.n && !a->file && X509_STORE_set_default_paths(a->store) != 1) {
                say(&advice, ": give the CA in ", setting);
                return error_set(err, ERROR_UNREACHABLE, "the system's authorities can't be read%s",
                                 advice.p ? advice.p : "");
        }
        return 0;
}

static void trust_free(struct tls_trust *a)
{
        X509_STORE_free(a->store);
        buf_done(&a->pem);
        free(a->file);
        free(a);
}

static bool same(const struct tls_trust *a, const struct http_tls *tls, const struct file_stamp *stamp)
{
        if (tls->ca_pem.n)
                return str_equal(buf_view(&a->pem), tls->ca_pem);
        if (tls->ca_file)
                return a->file && strcmp(a->file, tls->ca_file) == 0 && stamps_equal(&a->stamp, stamp);
        return !a->file && !a->pem.n;
}

static int trust_take(struct tls_authorities *all, const struct tls_client_config *c, struct tls_trust **out,
                      struct error *err)
{
        const struct http_tls *tls = c->tls;
        struct file_stamp stamp = stamp_of(tls->ca_pem.n ? NULL : tls->ca_file);
        struct tls_trust *a;

        LIST_EACH (struct tls_trust, known, &all->trusts, node)
                if (same(known, tls, &stamp)) {
                        known->users++;
                        *out = known;
                        return 0;
                }
        a = calloc(1, sizeof(*a));
        if (!a)
                return error_memory(err);
        a->users = 1;
        a->stamp = stamp;
        a->pem.max = tls->ca_pem.n + 1;
        buf_str(&a->pem, tls->ca_pem);
        a->file = !tls->ca_pem.n && tls->ca_file ? str_dup(str_of(tls->ca_file)) : NULL;
        if (a->pem.failed || (!tls->ca_pem.n && tls->ca_file && !a->file)) {
                trust_free(a);
                return error_memory(err);
        }
        if (fill(a, c->settings, err) < 0) {
                trust_free(a);
                ERR_clear_error();
                return -1;
        }
        list_prepend(&all->trusts, &a->node);
        *out = a;
        return 0;
}

static void trust_drop(struct tls_trust *a)
{
        if (!a || --a->users)
                return;
        list_remove(&a->node);
        trust_free(a);
}

/* ---- the context -------------------------------------------------------- */

static int no_password(char *space UNUSED, int size UNUSED, int writing UNUSED, void *cookie UNUSED)
{
        return 0;
}

static int on_session(SSL *ssl, SSL_SESSION *session)
{
        struct tls_client *t = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));

        if (!t)
                return 0;
        SSL_SESSION_free(t->session);
        t->session = session;
        return 1;
}

static int offer(SSL_CTX *x, enum http_version version)
{
        static const unsigned char both[] = "\x02h2\x08http/1.1";

        switch (version) {
        case HTTP_1_1: return 0;
        case HTTP_AUTO: return SSL_CTX_set_alpn_protos(x, both, sizeof(both) - 1);
        case HTTP_2_PRIOR_KNOWLEDGE: return SSL_CTX_set_alpn_protos(x, both, 3);
        }
        return -1;
}

static int load_certificate(SSL_CTX *x, const struct tls_client_config *c, struct error *err)
{
        const struct http_tls *tls = c->tls;
        const char *key = tls->client_key_file ? tls->client_key_file : tls->client_cert_file;

        BUF_AT_END struct buf advice = BUF_INIT(1024);

        if (!tls->client_cert_file)
                return 0;
        if (!file_is_other(tls->client_cert_file) && !file_is_other(key) &&
            SSL_CTX_use_certificate_chain_file(x, tls->client_cert_file) == 1 &&
            SSL_CTX_use_PrivateKey_file(x, key, SSL_FILETYPE_PEM) == 1 && SSL_CTX_check_private_key(x) == 1)
                return 0;
        say(&advice, ": see ", c->settings ? c->settings->client_cert : NULL);
        (void)error_set(err, ERROR_UNREACHABLE, "the client certificate %s or its key can't be used%s (%s)",
                        tls->client_cert_file, advice.p ? advice.p : "",
                        tls_reason("not the PEM file that was expected"));
        return -1;
}

static int set_up(struct tls_client *t, const struct tls_client_config *c, struct error *err)
{
        SSL_CTX *x = t->context = SSL_CTX_new(TLS_client_method());

        if (!x || offer(x, c->version) != 0)
                return error_memory(err);
        tls_context(x);
        SSL_CTX_set_verify(x, SSL_VERIFY_PEER, NULL);
        SSL_CTX_set_default_passwd_cb(x, no_password); /* never ask for a password on the terminal */
        (void)SSL_CTX_set_session_cache_mode(x, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(x, on_session);
        SSL_CTX_set_app_data(x, t);
        if (trust_take(t->authorities, c, &t->trust, err) < 0)
                return -1;
        SSL_CTX_set1_cert_store(x, t->trust->store);
        return load_certificate(x, c, err);
}

int tls_client_new(struct tls_client **out, struct tls_authorities *authorities,
                   const struct tls_client_config *c, struct error *err)
{
        struct tls_client *t = calloc(1, sizeof(*t));

        if (!t)
                return error_memory(err);
        t->authorities = authorities;
        t->name = c->name;
        t->any_host = c->tls->any_host;
        if (set_up(t, c, err) < 0) {
                (void)tls_client_free(t);
                ERR_clear_error();
                return -1;
        }
        *out = t;
        return 0;
}

struct tls_client *tls_client_free(struct tls_client *t)
{
        if (!t)
                return NULL;
        if (t->context)
                SSL_CTX_set_app_data(t->context, NULL);
        SSL_CTX_free(t->context);
        SSL_SESSION_free(t->session);
        trust_drop(t->trust);
        free(t);
        return NULL;
}

/* ---- sessions ----------------------------------------------------------- */

static bool expect_name(const struct tls_client *t, SSL *ssl)
{
        if (host_is_address(t->name))
                return t->any_host || X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), t->name) == 1;
        SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
        return SSL_set_tlsext_host_name(ssl, t->name) == 1 &&
               (t->any_host || SSL_set1_host(ssl, t->name) == 1);
}

SSL *tls_client_open(struct tls_client *t, int fd)
{
        SSL *ssl = SSL_new(t->context);

        if (!ssl || SSL_set_fd(ssl, fd) != 1 || !expect_name(t, ssl) ||
            (t->session && SSL_set_session(ssl, t->session) != 1)) {
                SSL_free(ssl);
                ERR_clear_error();
                return NULL;
        }
        SSL_set_connect_state(ssl);
        return ssl;
}

bool tls_client_agreed_http2(const SSL *ssl)
{
        const unsigned char *agreed = NULL;
        unsigned n = 0;

        SSL_get0_alpn_selected(ssl, &agreed, &n);
        return n == 2 && memcmp(agreed, "h2", 2) == 0;
}

/* What to do about a certificate that was rejected, and in which setting, if any. */
static void advise(long verified, const struct http_settings *settings, struct buf *out)
{
        switch (verified) {
        case X509_V_ERR_CERT_HAS_EXPIRED: buf_text(out, "its certificate has expired: renew it"); break;
        case X509_V_ERR_CERT_NOT_YET_VALID:
                buf_text(out, "its certificate is not valid yet: compare the clocks");
                break;
        case X509_V_ERR_HOSTNAME_MISMATCH:
        case X509_V_ERR_IP_ADDRESS_MISMATCH:
                buf_text(out, "its certificate is for another name");
                if (settings && settings->any_host)
                        buf_printf(out, ": say %s if that is meant", settings->any_host);
                break;
        default:
                buf_text(out, "its certificate is not trusted");
                say(out, ": give its CA in ", settings ? settings->ca : NULL);
        }
}

void tls_client_why(const SSL *ssl, const struct http_settings *settings, bool own_certificate,
                    struct buf *out)
{
        BUF_AT_END struct buf advice = BUF_INIT(4096);
        const char *setting = settings ? settings->client_cert : NULL,
                   *why = tls_reason("the peer closed the connection before TLS was agreed on");
        long verified = SSL_get_verify_result(ssl);

        if (verified != X509_V_OK) {
                why = X509_verify_cert_error_string(verified);
                advise(verified, settings, &advice);
        } else if (strstr(why, "certificate required") || strstr(why, "handshake failure") ||
                   strstr(why, "bad certificate")) {
                buf_text(&advice, own_certificate ? "the server refuses our client certificate"
                                                  : "the server may demand a client certificate");
                say(&advice, own_certificate ? ": give one that it trusts in " : ": give one in ", setting);
        } else if (strstr(why, "wrong version number") || strstr(why, "record layer failure"))
                buf_text(&advice, "the server does not speak TLS here: is the URL to begin with http://?");
        buf_printf(out, advice.n ? "%s (%s)" : "%s%s", advice.n ? advice.p : "", why);
}
