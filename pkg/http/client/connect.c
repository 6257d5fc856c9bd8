/* Makes connections. libcurl connects to an address that we chose, through a proxy's tunnel where there is
 * one. Then we duplicate the socket and free curl's handle at once, so that what libcurl does to connections
 * that it considers idle (CURLOPT_MAXAGE_CONN, a peer that has closed) can't affect it. TLS, reading and
 * writing are done on our duplicate. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/file.h"
#include "http/client/connection.h"

/* TCP_USER_TIMEOUT: data that is unacknowledged for so long breaks the connection. */
enum { UNACKNOWLEDGED_MS = 30000, LOGIN_MAX = 4096 };
enum { TURN_BYTES = 2 * READ_SIZE, TURN_READS = 32 };

/* ---- files -------------------------------------------------------------- */

int files_watch(struct http_target *t, struct error *err)
{
        const struct http_tls *tls = &t->config.tls;
        const char *files[] = { tls->ca_file, tls->client_cert_file, tls->client_key_file };

        for (size_t i = 0; i < COUNT_OF(files); i++)
                if (files[i] && watch_open(&t->files[i], t->client->loop, files[i], NULL, err) < 0)
                        return -1;
        (void)files_changed(t);
        return 0;
}

bool files_changed(struct http_target *t)
{
        bool changed = false;

        for (size_t i = 0; i < COUNT_OF(t->files); i++) {
                uint64_t version = watch_look(&t->files[i]);

                changed = changed || version != t->files_seen[i];
                t->files_seen[i] = version;
        }
        return changed;
}

void files_forget(struct http_target *t)
{
        for (size_t i = 0; i < COUNT_OF(t->files); i++)
                watch_close(&t->files[i]);
}

/* ---- what went wrong ---------------------------------------------------- */

static const char *words(const struct connection *c, const char *otherwise)
{
        return c->reason[0] ? c->reason : otherwise;
}

static void connect_error(const struct connection *c, CURLcode r, struct error *err)
{
        const struct http_target *t = c->target;
        const char *why = words(c, curl_easy_strerror(r));
        enum error_kind kind = r == CURLE_OPERATION_TIMEDOUT ? ERROR_TIMEOUT : ERROR_UNREACHABLE;
        long code = 0;

        (void)curl_easy_getinfo(c->easy, CURLINFO_HTTP_CONNECTCODE, &code);
        if (!t->proxied)
                (void)error_set(err, kind, "connect to %s: %s", t->url_text, why);
        else if (code == 407)
                (void)error_set(err, kind,
                                "connect to %s: the proxy %s:%u answered 407: give its user and password",
                                t->url_text, t->host, t->port);
        else if (code && code / 100 != 2)
                (void)error_set(err, kind, "connect to %s: the proxy %s:%u answered %ld to CONNECT",
                                t->url_text, t->host, t->port, code);
        else
                (void)error_set(err, kind, "connect to %s: the proxy %s:%u: %s", t->url_text, t->host,
                                t->port, why);
}

void connection_error(struct connection *c, struct error *err)
{
        (void)error_set(err, ERROR_UNREACHABLE, "%s %s: %s", c->target->method, c->target->url_text,
                        words(c, "the connection broke"));
}

/* ---- bytes -------------------------------------------------------------- */

static void note_tls(struct connection *c)
{
        BUF_AT_END struct buf why = BUF_INIT(sizeof(c->reason));

        c->tls_broken = true;
        tls_client_why(c->ssl, c->target->config.settings, c->target->config.tls.client_cert_file != NULL,
                       &why);
        (void)snprintf(c->reason, sizeof(c->reason), "%s", why.p ? why.p : "TLS broke");
}

/* Call right after recv or send, for errno. */
static ssize_t plain_result(struct connection *c, const char *what, ssize_t r)
{
        if (r >= 0)
                return r;
        if (errno == EAGAIN || errno == EINTR)
                return IO_AGAIN;
        (void)snprintf(c->reason, sizeof(c->reason), "%s: %s", what, strerror(errno));
        return IO_BROKEN;
}

ssize_t connection_read(struct connection *c, char *space, size_t size)
{
        ssize_t r = c->ssl ? tls_read(c->ssl, space, size)
                           : plain_result(c, "receive", recv(c->fd, space, size, 0));

        if (r == IO_BROKEN && c->ssl)
                note_tls(c);
        return r;
}

ssize_t connection_write(struct connection *c, const char *p, size_t size)
{
        ssize_t r = c->ssl ? tls_write(c->ssl, p, size)
                           : plain_result(c, "send", send(c->fd, p, size, MSG_NOSIGNAL));

        if (r == IO_BROKEN && c->ssl)
                note_tls(c);
        if (r > 0)
                c->sent += (uint64_t)r;
        return r;
}

uint64_t connection_sent(const struct connection *c)
{
        return c->ssl ? BIO_number_written(SSL_get_wbio(c->ssl)) : c->sent;
}

bool connection_unseen(const struct connection *c, uint64_t since)
{
        int held = 0;

        return c->fd >= 0 && !c->target->proxied && ioctl(c->fd, SIOCOUTQ, &held) == 0 && held > 0 &&
               (uint64_t)held >= connection_sent(c) - since;
}

bool connection_had_enough(struct connection *c, struct turn *turn, size_t n)
{
        turn->bytes += n;
        turn->reads++;
        if (c->drain || (turn->bytes < TURN_BYTES && turn->reads < TURN_READS))
                return false;
        if (connection_buffers(c))
                loop_ready(c->target->client->loop, &c->more);
        return true;
}

static void on_more(struct task *task, usec now UNUSED)
{
        struct connection *c = CONTAINER_OF(task, struct connection, more);

        c->framing->event(c, LOOP_READABLE);
}

bool connection_buffers(const struct connection *c) { return c->ssl && SSL_has_pending(c->ssl); }

/* ---- connecting --------------------------------------------------------- */

static void handshake(struct connection *);

static void on_socket(void *cookie, int events)
{
        struct connection *c = cookie;

        if (!c->framing) {
                handshake(c);
                return;
        }
        c->drain = events & LOOP_FAILED;
        c->framing->event(c, events);
}

static const struct framing *choose(const struct connection *c)
{
        if (c->target->config.http_version == HTTP_2_PRIOR_KNOWLEDGE)
                return &http2_framing;
        return c->ssl && tls_client_agreed_http2(c->ssl) ? &http2_framing : &http1_framing;
}

/* It failed to connect: closes it, and fails those that wait. */
static void refuse(struct connection *c, const struct error *err)
{
        struct http_target *t = c->target;
        struct address *a = c->address;

        a->connections++; /* the address may outlive the connection */
        connection_free(c);
        pool_refused(t, a, err);
}

/* Connected: requests may be sent. */
static void stand(struct connection *c)
{
        struct http_client *client = c->target->client;
        usec max_age = c->target->config.max_age;
        const struct framing *framing = choose(c);
        struct error err;

        if (framing->open(c, &err) < 0) {
                refuse(c, &err);
                return;
        }
        c->framing = framing;
        if (max_age)
                c->expires = loop_now(client->loop) + max_age -
                             (usec)random_below(&client->random, (uint64_t)max_age / 4 + 1);
        loop_io_want(c->io, LOOP_READABLE);
        pool_connected(c);
}

static void handshake(struct connection *c)
{
        ssize_t r = tls_handshake(c->ssl);
        bool disagreed = tls_disagreed();
        struct error err;

        if (r == IO_AGAIN) {
                loop_io_want(c->io, SSL_want_write(c->ssl) ? LOOP_WRITABLE : LOOP_READABLE);
                return;
        }
        if (r == 1) {
                stand(c);
                return;
        }
        note_tls(c);
        (void)error_set(&err, ERROR_UNREACHABLE, "connect to %s: %s", c->target->url_text, c->reason);
        err.elsewhere = disagreed;
        refuse(c, &err);
}

void connection_too_late(struct connection *c)
{
        struct error err;

        (void)error_set(&err, ERROR_TIMEOUT, "connect to %s: no TLS session within %" PRId64 " ms",
                        c->target->url_text, c->target->config.connect_timeout / USEC_MSEC);
        refuse(c, &err);
}

static int make_tls(struct http_target *t, struct error *err)
{
        struct tls_client_config config = { &t->config.tls, t->tls_name, t->config.http_version,
                                            t->config.settings };

        if (!t->tls_name || t->tls)
                return 0;
        return tls_client_new(&t->tls, &t->client->authorities, &config, err) < 0
                       ? error_wrap(err, "connect to %s", t->url_text)
                       : 0;
}

/* A failure of this process, not of the peer: a retry may help. */
static int failed_inside(struct error *err, const struct connection *c)
{
        (void)error_wrap(err, "connect to %s", c->target->url_text);
        err->retry = true;
        return -1;
}

/* From here on the socket is ours alone. */
static int adopt(struct connection *c, struct error *err)
{
        struct http_client *client = c->target->client;
        curl_socket_t fd = CURL_SOCKET_BAD;
        unsigned limit = UNACKNOWLEDGED_MS;

        if (curl_easy_getinfo(c->easy, CURLINFO_ACTIVESOCKET, &fd) != CURLE_OK || fd == CURL_SOCKET_BAD)
                return error_set(err, ERROR_UNREACHABLE,
                                 "connect to %s: the peer closed the connection at once",
                                 c->target->url_text);
        c->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (c->fd < 0) {
                (void)error_errno(err, errno, "keep the socket");
                return failed_inside(err, c);
        }
        http_multi_remove(client->multi, c->easy);
        curl_easy_cleanup(c->easy);
        curl_slist_free_all(c->connect_to);
        c->easy = NULL;
        c->connect_to = NULL;
        (void)setsockopt(c->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &limit, sizeof(limit));
        if (loop_io_open(client->loop, c->fd, on_socket, c, &c->io, err) < 0)
                return failed_inside(err, c);
        if (!c->target->tls_name)
                return 0;
        if (make_tls(c->target, err) < 0)
                return -1;
        c->ssl = tls_client_open(c->target->tls, c->fd);
        return c->ssl ? 0 : error_memory(err);
}

void on_connected(void *cookie UNUSED, CURL *easy, CURLcode result)
{
        struct connection *c;
        struct error err;

        (void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&c);
        if (result != CURLE_OK)
                connect_error(c, result, &err);
        if (result != CURLE_OK || adopt(c, &err) < 0)
                refuse(c, &err);
        else if (c->ssl) {
                target_arm(c->target);
                handshake(c);
        } else
                stand(c);
}

/* The value in a Secret's file, without the trailing white space that editors add. If the file is gone, the
 * last value is kept. */
static int read_login(const char *path, const char *what, const struct http_settings *settings,
                      struct buf *value, struct error *err)
{
        const char *setting = settings ? settings->proxy : NULL;
        struct error ignored;
        int fd = path ? file_open(path, O_RDONLY, &ignored) : -1;
        FILE *f = fd >= 0 ? fdopen(fd, "r") : NULL;
        char text[LOGIN_MAX + 1];
        size_t n;

        if (fd >= 0 && !f)
                (void)close(fd);
        if (f) {
                n = fread(text, 1, sizeof(text), f);
                (void)fclose(f);
                if (n > LOGIN_MAX)
                        return error_set(err, ERROR_UNREACHABLE,
                                         "the proxy's %s in %s is longer than %d bytes", what, path,
                                         LOGIN_MAX);
                while (n && isspace((unsigned char)text[n - 1]))
                        n--;
                if (memchr(text, 0, n))
                        return error_set(err, ERROR_UNREACHABLE,
                                         "the proxy's %s in %s holds a NUL byte: expected text", what, path);
                if (n) {
                        value->max = LOGIN_MAX + 1;
                        buf_reset(value);
                        buf_add(value, text, n);
                        explicit_bzero(text, sizeof(text));
                }
        }
        if (value->failed)
                return error_memory(err);
        return !path || value->n ? 0
                                 : error_set(err, ERROR_UNREACHABLE,
                                             "the proxy's %s can't be read from %s, or is empty%s%s", what,
                                             path, setting ? ": see " : "", setting ? setting : "");
}

/* What curl connects to: our address, or, through the proxy at our address, the name. */
static int set_route(struct connection *c, const char *to, const char *proxy, struct error *err)
{
        struct http_target *t = c->target;

        if (to && !(c->connect_to = curl_slist_append(NULL, to)))
                return error_memory(err);
        if (c->connect_to)
                (void)curl_easy_setopt(c->easy, CURLOPT_CONNECT_TO, c->connect_to);
        (void)curl_easy_setopt(c->easy, CURLOPT_PROXY, proxy);
        (void)curl_easy_setopt(c->easy, CURLOPT_NOPROXY, "");
        if (!t->proxied)
                return 0;
        if (read_login(t->config.proxy.user_file, "user", t->config.settings, &t->proxy_user, err) < 0 ||
            read_login(t->config.proxy.password_file, "password", t->config.settings, &t->proxy_password,
                       err) < 0)
                return error_wrap(err, "connect to %s", t->url_text);
        (void)curl_easy_setopt(c->easy, CURLOPT_HTTPPROXYTUNNEL, 1L);
        if (t->proxy_user.n)
                (void)curl_easy_setopt(c->easy, CURLOPT_PROXYUSERNAME, t->proxy_user.p);
        if (t->proxy_password.n)
                (void)curl_easy_setopt(c->easy, CURLOPT_PROXYPASSWORD, t->proxy_password.p);
        return 0;
}

static int set_all(struct connection *c, struct error *err)
{
        const struct http_target *t = c->target;
        BUF_AT_END struct buf at = BUF_INIT(1024), to = BUF_INIT(1024);
        bool v6 = strchr(c->address->text, ':') != NULL;

        c->easy = curl_easy_init();
        buf_printf(&at, v6 ? "%s[%s]:%u" : "%s%s:%u", t->proxied ? "http://" : "::", c->address->text,
                   t->port);
        if (t->proxied && t->tls_name && !str_is(t->url.host, t->tls_name)) {
                v6 = memchr(t->url.host.p, ':', t->url.host.n) != NULL;
                buf_printf(&to, v6 ? "::[" STR_FMT "]:%u" : "::" STR_FMT ":%u", STR_ARG(t->url.host),
                           t->url.port);
        }
        if (!c->easy || at.failed || to.failed)
                return error_memory(err);
        if (set_route(c, !t->proxied ? at.p : to.p, t->proxied ? at.p : "", err) < 0)
                return -1;
        (void)curl_easy_setopt(c->easy, CURLOPT_URL, t->connect_url);
        (void)curl_easy_setopt(c->easy, CURLOPT_CONNECT_ONLY, 1L);
        (void)curl_easy_setopt(c->easy, CURLOPT_NOSIGNAL, 1L);
        (void)curl_easy_setopt(c->easy, CURLOPT_BUFFERSIZE, 1024L);
        (void)curl_easy_setopt(c->easy, CURLOPT_TCP_NODELAY, 1L);
        (void)curl_easy_setopt(c->easy, CURLOPT_TCP_KEEPALIVE, 1L);
        (void)curl_easy_setopt(c->easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
        (void)curl_easy_setopt(c->easy, CURLOPT_FRESH_CONNECT, 1L);
        (void)curl_easy_setopt(c->easy, CURLOPT_CONNECTTIMEOUT_MS,
                               (long)(t->config.connect_timeout / USEC_MSEC));
        (void)curl_easy_setopt(c->easy, CURLOPT_ERRORBUFFER, c->reason);
        (void)curl_easy_setopt(c->easy, CURLOPT_PRIVATE, c);
        return http_multi_add(t->client->multi, c->easy, err);
}

int connection_open(struct http_target *t, struct address *a, struct error *err)
{
        struct connection *c;

        if (make_tls(t, err) < 0)
                return -1;
        c = calloc(1, sizeof(*c));
        if (!c)
                return error_memory(err);
        c->target = t;
        c->fd = -1;
        c->more.turn = on_more;
        c->connect_by = loop_now(t->client->loop) + t->config.connect_timeout;
        c->address = a;
        a->connections++;
        list_prepend(&t->connections, &c->node);
        t->connections_n++;
        t->connecting_n++;
        if (set_all(c, err) < 0) {
                connection_free(c);
                return -1;
        }
        return 0;
}
