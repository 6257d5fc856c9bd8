/* Makes connections: libcurl does the TCP and TLS handshakes and the proxy's tunnel to an address that we chose, then lets us have the socket. */
#include <errno.h>
#include <openssl/x509_vfy.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <utlist.h>

#include "http/connection.h"

/* ---- TLS sessions and files ---------------------------------------------------------------------------------------------------------- */

int sessions_new(struct sessions **out, struct error *err)
{
        struct sessions *s = calloc(1, sizeof(*s));

        if (!s || !(s->share = curl_share_init())) {
                free(s);
                return error_memory(err);
        }
        (void)curl_share_setopt(s->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
        s->users = 1;
        *out = s;
        return 0;
}

struct sessions *sessions_drop(struct sessions *s)
{
        if (s && --s->users == 0) {
                (void)curl_share_cleanup(s->share);
                free(s);
        }
        return NULL;
}

static struct file_stamp stamp_of(const char *path)
{
        struct stat s;

        if (!path || stat(path, &s) < 0)
                return (struct file_stamp){ 0 };
        return (struct file_stamp){ s.st_mtim.tv_sec, s.st_mtim.tv_nsec, (uint64_t)s.st_ino, (uint64_t)s.st_size };
}

/* Notes how the files of certificates are; true when that differs from the last time. */
bool files_changed(struct http_target *t)
{
        const struct http_tls *tls = &t->config.tls;
        const char *files[] = { tls->ca_file, tls->client_cert_file, tls->client_key_file };
        bool changed = false;

        for (size_t i = 0; i < COUNT_OF(files); i++) {
                struct file_stamp now = stamp_of(files[i]), *last = &t->stamps[i];

                changed = changed || now.seconds != last->seconds || now.nanoseconds != last->nanoseconds || now.inode != last->inode || now.size != last->size;
                *last = now;
        }
        return changed;
}

/* ---- what went wrong ----------------------------------------------------------------------------------------------------------------- */

static const char *tls_advice(struct connection *c, CURLcode r)
{
        long verified = 0;

        if (strstr(c->reason, "certificate required") || strstr(c->reason, "handshake failure") || strstr(c->reason, "bad certificate"))
                return c->target->config.tls.client_cert_file ? "the server refuses our client certificate: give one that it trusts in tls.certSecretRef"
                                                              : "the server may demand a client certificate: give one in tls.certSecretRef";
        if (r == CURLE_SSL_CERTPROBLEM)
                return "the client certificate or its key can't be used: see tls.certSecretRef";
        if (r == CURLE_SSL_CACERT_BADFILE)
                return "the CA can't be read: see tls.caSecretRef";
        if (r != CURLE_PEER_FAILED_VERIFICATION)
                return NULL;
        (void)curl_easy_getinfo(c->easy, CURLINFO_SSL_VERIFYRESULT, &verified);
        if (verified == X509_V_ERR_CERT_HAS_EXPIRED || strstr(c->reason, "expired"))
                return "its certificate has expired: renew it";
        if (verified == X509_V_ERR_CERT_NOT_YET_VALID)
                return "its certificate is not valid yet: compare the clocks";
        if (verified == X509_V_OK || strstr(c->reason, "host name") || strstr(c->reason, "subject name"))
                return "its certificate is for another name: say tls.verifyHostname: false if that is meant";
        return "its certificate is not trusted: give its CA in tls.caSecretRef or sink.CACerts";
}

static void connect_error(struct connection *c, CURLcode r, struct error *err)
{
        const struct http_target *t = c->target;
        const char *why = c->reason[0] ? c->reason : curl_easy_strerror(r), *advice = tls_advice(c, r);
        enum error_kind kind = r == CURLE_OPERATION_TIMEDOUT ? ERROR_TIMEOUT : ERROR_UNREACHABLE;
        long code = 0;

        (void)curl_easy_getinfo(c->easy, CURLINFO_HTTP_CONNECTCODE, &code);
        if (!t->proxied)
                (void)error_set(err, kind, advice ? "connect to %s: %s (%s)" : "connect to %s: %s", t->url_text, advice ? advice : why, why);
        else if (code == 407)
                (void)error_set(err, kind, "connect to %s: the proxy %s:%u answered 407: give its user and password", t->url_text, t->host, t->port);
        else if (code && code / 100 != 2)
                (void)error_set(err, kind, "connect to %s: the proxy %s:%u answered %ld to CONNECT", t->url_text, t->host, t->port, code);
        else if (code)
                (void)error_set(err, kind, advice ? "connect to %s: %s (%s)" : "connect to %s: %s", t->url_text, advice ? advice : why, why);
        else
                (void)error_set(err, kind, "connect to %s: the proxy %s:%u: %s", t->url_text, t->host, t->port, why);
}

void connection_error(struct connection *c, CURLcode r, struct error *err)
{
        const char *why = c->reason[0] ? c->reason : curl_easy_strerror(r), *advice = c->ssl ? tls_advice(c, r) : NULL;

        (void)error_set(err, ERROR_UNREACHABLE, advice ? "%s %s: %s (%s)" : "%s %s: %s", c->target->method, c->target->url_text, advice ? advice : why, why);
}

/* Nothing lies between us and the socket, neither TLS nor a proxy's tunnel: it is read and written without curl. */
static bool plain(const struct connection *c) { return !c->ssl && !c->target->proxied; }

/* After recv or send. */
static CURLcode socket_result(struct connection *c, const char *what, ssize_t r, size_t *n)
{
        *n = r > 0 ? (size_t)r : 0;
        if (r >= 0)
                return CURLE_OK;
        if (errno == EAGAIN || errno == EINTR)
                return CURLE_AGAIN;
        (void)snprintf(c->reason, sizeof(c->reason), "%s failure: %s", what, strerror(errno));
        return CURLE_RECV_ERROR;
}

CURLcode connection_read(struct connection *c, char *space, size_t size, size_t *n)
{
        *n = 0;
        return plain(c) ? socket_result(c, "Recv", recv(c->fd, space, size, 0), n) : curl_easy_recv(c->easy, space, size, n);
}

CURLcode connection_write(struct connection *c, const char *p, size_t size, size_t *n)
{
        *n = 0;
        return plain(c) ? socket_result(c, "Send", send(c->fd, p, size, MSG_NOSIGNAL), n) : curl_easy_send(c->easy, p, size, n);
}

bool connection_buffers(const struct connection *c) { return c->ssl && SSL_has_pending(c->ssl); }

/* ---- connecting ---------------------------------------------------------------------------------------------------------------------- */

static int own_index(void)
{
        static int index = -1;

        if (index < 0)
                index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, NULL);
        return index;
}

/* curl tells its SSL only while a transfer runs. */
static void on_handshake(const SSL *ssl, int where, int result UNUSED)
{
        if (where & SSL_CB_HANDSHAKE_START)
                ((struct connection *)SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), own_index()))->ssl = (SSL *)(uintptr_t)ssl;
}

/* curl would frame HTTP/2 itself if it knew: it is not told what ALPN agreed on. */
static CURLcode on_tls(CURL *easy UNUSED, void *context, void *cookie)
{
        static const unsigned char both[] = "\x02h2\x08http/1.1";
        const struct http_target *t = ((struct connection *)cookie)->target;
        SSL_CTX *tls = context;
        int r = 0;

        if (own_index() < 0 || SSL_CTX_set_ex_data(tls, own_index(), cookie) != 1)
                return CURLE_OUT_OF_MEMORY;
        SSL_CTX_set_info_callback(tls, on_handshake);
        SSL_CTX_clear_options(tls, SSL_OP_NO_TICKET); /* curl's choice; servers forget what TLS 1.2 has without tickets when a connection ends abruptly */
        SSL_CTX_set_read_ahead(tls, 1); /* a record takes one read, not two */
        if (t->config.http_version == HTTP_AUTO)
                r = SSL_CTX_set_alpn_protos(tls, both, sizeof(both) - 1);
        else if (t->config.http_version == HTTP_2_PRIOR_KNOWLEDGE)
                r = SSL_CTX_set_alpn_protos(tls, both, 3);
        return r == 0 ? CURLE_OK : CURLE_OUT_OF_MEMORY;
}

static void on_socket(void *cookie, int events)
{
        struct connection *c = cookie;

        c->drain = events == (LOOP_READABLE | LOOP_WRITABLE);
        c->framing->event(c, events);
}

static const struct framing *choose(struct connection *c)
{
        const unsigned char *agreed = NULL;
        unsigned n = 0;

        if (c->target->config.http_version == HTTP_2_PRIOR_KNOWLEDGE)
                return &http2_framing;
        if (c->ssl)
                SSL_get0_alpn_selected(c->ssl, &agreed, &n);
        return n == 2 && memcmp(agreed, "h2", 2) == 0 ? &http2_framing : &http1_framing;
}

static int adopt(struct connection *c, struct error *err)
{
        struct http_client *client = c->target->client;
        usec max_age = c->target->config.max_age;
        const struct framing *framing = choose(c);
        curl_socket_t fd = CURL_SOCKET_BAD;

        if (curl_easy_getinfo(c->easy, CURLINFO_ACTIVESOCKET, &fd) != CURLE_OK || fd == CURL_SOCKET_BAD)
                return error_set(err, ERROR_UNREACHABLE, "connect to %s: the peer closed the connection at once", c->target->url_text);
        c->fd = fd;
        if (loop_io_open(client->loop, fd, on_socket, c, &c->io, err) < 0 || framing->open(c, err) < 0)
                return -1;
        c->framing = framing;
        if (max_age)
                c->expires = loop_now(client->loop) + max_age - (usec)random_below(&client->random, (uint64_t)max_age / 4 + 1);
        (void)curl_easy_setopt(c->easy, CURLOPT_BUFFERSIZE, (long)READ_SIZE); /* one read takes no more than this; the buffer of that name is not used any more */
        loop_io_want(c->io, LOOP_READABLE);
        return 0;
}

void on_connected(void *cookie UNUSED, CURL *easy, CURLcode result)
{
        struct connection *c;
        struct http_target *t;
        struct address *a;
        struct error err;

        (void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&c);
        if (result == CURLE_OK && adopt(c, &err) == 0) {
                pool_connected(c);
                return;
        }
        if (result != CURLE_OK)
                connect_error(c, result, &err);
        t = c->target;
        a = c->address;
        a->connections++; /* outlives the connection */
        connection_free(c);
        pool_refused(t, a, &err);
}

static void set_tls(struct connection *c)
{
        const struct http_tls *tls = &c->target->config.tls;
        struct curl_blob ca = { .data = (void *)(uintptr_t)tls->ca_pem.p, .len = tls->ca_pem.n, .flags = CURL_BLOB_COPY };

        if (c->sessions)
                (void)curl_easy_setopt(c->easy, CURLOPT_SHARE, c->sessions->share);
        (void)curl_easy_setopt(c->easy, CURLOPT_SSL_ENABLE_ALPN, 0L);
        (void)curl_easy_setopt(c->easy, CURLOPT_SSL_CTX_FUNCTION, on_tls);
        (void)curl_easy_setopt(c->easy, CURLOPT_SSL_CTX_DATA, c);
        /* A folder beside the file would be trusted too, and keeps curl from parsing the file only once. */
        (void)curl_easy_setopt(c->easy, CURLOPT_CAPATH, NULL);
        if (tls->ca_pem.n)
                (void)curl_easy_setopt(c->easy, CURLOPT_CAINFO_BLOB, &ca);
        else if (tls->ca_file)
                (void)curl_easy_setopt(c->easy, CURLOPT_CAINFO, tls->ca_file);
        if (tls->ca_file)
                (void)curl_easy_setopt(c->easy, CURLOPT_CA_CACHE_TIMEOUT, 0L);
        if (tls->client_cert_file)
                (void)curl_easy_setopt(c->easy, CURLOPT_SSLCERT, tls->client_cert_file);
        if (tls->client_cert_file)
                (void)curl_easy_setopt(c->easy, CURLOPT_SSLKEY, tls->client_key_file ? tls->client_key_file : tls->client_cert_file);
        (void)curl_easy_setopt(c->easy, CURLOPT_SSL_VERIFYHOST, tls->any_host ? 0L : 2L);
}

/* Where curl connects to: our address, or through the proxy at our address the name. */
static void set_route(struct connection *c, const char *to, const char *proxy)
{
        const struct http_target *t = c->target;
        BUF_AT_END struct buf user = BUF_INIT(4096), password = BUF_INIT(4096);

        if (to)
                c->connect_to = curl_slist_append(NULL, to);
        if (c->connect_to)
                (void)curl_easy_setopt(c->easy, CURLOPT_CONNECT_TO, c->connect_to);
        (void)curl_easy_setopt(c->easy, CURLOPT_PROXY, proxy);
        (void)curl_easy_setopt(c->easy, CURLOPT_NOPROXY, "");
        if (!t->proxied)
                return;
        (void)curl_easy_setopt(c->easy, CURLOPT_HTTPPROXYTUNNEL, 1L);
        buf_str(&user, t->config.proxy.user);
        buf_str(&password, t->config.proxy.password);
        if (user.n)
                (void)curl_easy_setopt(c->easy, CURLOPT_PROXYUSERNAME, user.p);
        if (password.n)
                (void)curl_easy_setopt(c->easy, CURLOPT_PROXYPASSWORD, password.p);
}

static int set_all(struct connection *c, struct error *err)
{
        const struct http_target *t = c->target;
        BUF_AT_END struct buf at = BUF_INIT(1024), to = BUF_INIT(1024);
        bool v6 = strchr(c->address->text, ':') != NULL;

        c->easy = curl_easy_init();
        buf_printf(&at, v6 ? "%s[%s]:%u" : "%s%s:%u", t->proxied ? "http://" : "::", c->address->text, t->port);
        if (t->proxied && t->config.tls.server_name) {
                v6 = memchr(t->url.host.p, ':', t->url.host.n) != NULL;
                buf_printf(&to, v6 ? "::[" STR_FMT "]:%u" : "::" STR_FMT ":%u", STR_ARG(t->url.host), t->url.port);
        }
        if (!c->easy || at.failed || to.failed)
                return error_memory(err);
        set_route(c, !t->proxied ? at.p : to.p, t->proxied ? at.p : "");
        if (!t->proxied && !c->connect_to)
                return error_memory(err);
        if (t->url.tls)
                set_tls(c);
        (void)curl_easy_setopt(c->easy, CURLOPT_URL, t->connect_url);
        (void)curl_easy_setopt(c->easy, CURLOPT_CONNECT_ONLY, 1L);
        (void)curl_easy_setopt(c->easy, CURLOPT_NOSIGNAL, 1L);
        (void)curl_easy_setopt(c->easy, CURLOPT_BUFFERSIZE, 1024L);
        (void)curl_easy_setopt(c->easy, CURLOPT_TCP_NODELAY, 1L);
        (void)curl_easy_setopt(c->easy, CURLOPT_TCP_KEEPALIVE, 1L);
        (void)curl_easy_setopt(c->easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
        (void)curl_easy_setopt(c->easy, CURLOPT_FRESH_CONNECT, 1L);
        (void)curl_easy_setopt(c->easy, CURLOPT_CONNECTTIMEOUT_MS, (long)(t->config.connect_timeout / USEC_MSEC));
        (void)curl_easy_setopt(c->easy, CURLOPT_ERRORBUFFER, c->reason);
        (void)curl_easy_setopt(c->easy, CURLOPT_PRIVATE, c);
        return http_multi_add(t->client->multi, c->easy, err);
}

int connection_open(struct http_target *t, struct address *a, struct error *err)
{
        struct connection *c = calloc(1, sizeof(*c));

        if (!c)
                return error_memory(err);
        c->target = t;
        c->address = a;
        a->connections++;
        if (t->sessions) {
                c->sessions = t->sessions;
                c->sessions->users++;
        }
        DL_PREPEND2(t->connections, c, previous, next);
        t->connections_n++;
        t->connecting_n++;
        if (set_all(c, err) < 0) {
                connection_free(c);
                return -1;
        }
        return 0;
}
