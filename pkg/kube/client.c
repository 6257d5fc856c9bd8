#include "kube/client.h"

#include <ctype.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include "base/watch.h"
#include "http/client/multi.h"

/* A server tells a watch each minute that it is there (bookmarks). A proxy in between keeps TCP alive when
 * the server is long gone. */
static const usec SILENCE = 90 * USEC_SEC;
enum { BODY_LIMIT = 256 << 20, LINE_LIMIT = 16 << 20 };

struct kube_call {
        struct kube_call *next, *previous;
        struct kube_client *client;
        struct kube_request request;
        char *what;
        CURL *easy;
        struct curl_slist *headers, *connect_to;
        struct buf body, sent;
        bool too_long, unsent;
        usec heard;       /* when the last byte came */
        struct error why; /* unsent */
        char reason[CURL_ERROR_SIZE];
};

/* What stands in a file, or in the configuration. */
struct read_file {
        struct watch watch; /* not open: it never changes */
        uint64_t version;   /* that was read; 0: none was */
        char *text;
};

struct kube_client {
        struct loop *loop;
        const struct kube_config *config;
        struct http_multi *multi;
        struct kube_call *calls;
        struct task failures; /* ends calls that could not be sent */
        struct task silences; /* ends watches that hear nothing */
        struct read_file token, ca;
};

struct loop *kube_client_loop(const struct kube_client *c) { return c->loop; }

static void call_free(struct kube_call *call)
{
        struct kube_client *c = call->client;

        if (call->easy) {
                http_multi_remove(c->multi, call->easy);
                curl_easy_cleanup(call->easy);
        }
        curl_slist_free_all(call->headers);
        curl_slist_free_all(call->connect_to);
        if (call->next)
                call->next->previous = call->previous;
        if (call->previous)
                call->previous->next = call->next;
        else
                c->calls = call->next;
        buf_done(&call->body);
        buf_done(&call->sent);
        free(call->what);
        free(call);
}

void kube_cancel(struct kube_call *call)
{
        if (call)
                call_free(call);
}

/* ---- answers ------------------------------------------------------------ */

static enum error_kind kind_of(int status, const char *reason)
{
        switch (status) {
        case 401: return ERROR_UNAUTHORIZED;
        case 403: return ERROR_FORBIDDEN;
        case 404: return ERROR_NOT_FOUND;
        case 409: return reason && strcmp(reason, "AlreadyExists") == 0 ? ERROR_EXISTS : ERROR_CONFLICT;
        case 410: return ERROR_GONE;
        case 400:
        case 422: return ERROR_INVALID;
        default: return ERROR_REFUSED;
        }
}

static void explain(struct kube_call *call, int status, struct error *err)
{
        json_t *root = json_loadb(call->body.p ? call->body.p : "", call->body.n, 0, NULL);
        const char *reason = json_string_value(json_object_get(root, "reason")),
                   *message = json_string_value(json_object_get(root, "message"));
        json_int_t seconds = json_integer_value(
                json_object_get(json_object_get(root, "details"), "retryAfterSeconds"));
        curl_off_t header = 0;

        (void)error_set(err, kind_of(status, reason), "%s: %d %s: %.300s", call->what, status,
                        reason ? reason : "", message ? message : "no message");
        err->retry = status == 408 || status == 409 || status == 410 || status == 429 || status >= 500;
        (void)curl_easy_getinfo(call->easy, CURLINFO_RETRY_AFTER, &header);
        seconds = MAX_OF((json_int_t)header, seconds);
        err->retry_after = seconds > 0 ? MIN_OF((usec)seconds, (usec)86400) * USEC_SEC : 0;
        json_decref(root);
}

static void finish(struct kube_call *call, CURLcode result)
{
        struct kube_answer answer = { .body = buf_view(&call->body) };
        void (*done)(void *, const struct kube_answer *) = call->request.done;
        struct buf body;
        long status = 0;

        if (call->unsent) {
                answer.failed = true;
                answer.error = call->why;
        } else if (result != CURLE_OK) {
                answer.failed = true;
                (void)error_set(&answer.error,
                                result == CURLE_OPERATION_TIMEDOUT ? ERROR_TIMEOUT : ERROR_UNREACHABLE,
                                "%s: %s", call->what,
                                call->too_long    ? "the answer is larger than it may be"
                                : call->reason[0] ? call->reason
                                                  : curl_easy_strerror(result));
                answer.error.retry = true;
        } else {
                (void)curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
                answer.status = (int)status;
                if (status < 200 || status > 299) {
                        answer.failed = true;
                        explain(call, answer.status, &answer.error);
                }
        }
        /* The callback may start new calls: this one is gone first, but for its body. */
        body = call->body;
        call->body = (struct buf){ 0 };
        {
                void *cookie = call->request.cookie;

                call_free(call);
                done(cookie, &answer);
        }
        buf_done(&body);
}

static void on_done(void *cookie UNUSED, CURL *easy, CURLcode result)
{
        struct kube_call *call;

        (void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&call);
        finish(call, result);
}

static void end_unsent(struct task *t, usec now UNUSED)
{
        struct kube_client *c = CONTAINER_OF(t, struct kube_client, failures);

        for (bool again = true; again;) {
                again = false;
                for (struct kube_call *call = c->calls; call; call = call->next)
                        if (call->unsent) {
                                finish(call, CURLE_FAILED_INIT);
                                again = true;
                                break;
                        }
        }
}

static void end_silent(struct task *t, usec now)
{
        struct kube_client *c = CONTAINER_OF(t, struct kube_client, silences);
        usec next = USEC_NEVER;

        for (struct kube_call *call = c->calls; call;) {
                bool watch = call->request.line && !call->unsent;

                if (watch && now - call->heard >= SILENCE) {
                        (void)strcpy(call->reason, "no byte came for 90 s, not even a sign of life");
                        finish(call, CURLE_OPERATION_TIMEDOUT);
                        call = c->calls; /* the list may be another */
                        next = USEC_NEVER;
                        continue;
                }
                if (watch)
                        next = MIN_OF(next, call->heard + SILENCE);
                call = call->next;
        }
        loop_arm(c->loop, t, next);
}

static size_t on_body(char *p, size_t size, size_t n, void *cookie)
{
        struct kube_call *call = cookie;
        size_t bytes = size * n;
        long status = 0;
        char *end;

        call->heard = loop_now(call->client->loop);
        buf_add(&call->body, p, bytes);
        if (call->body.failed) {
                call->too_long = true;
                return 0;
        }
        (void)curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
        if (!call->request.line || status != 200)
                return bytes;
        while ((end = memchr(call->body.p, '\n', call->body.n))) {
                size_t length = (size_t)(end - call->body.p);

                call->request.line(call->request.cookie, (struct str){ call->body.p, length });
                buf_drop(&call->body, length + 1);
        }
        return bytes;
}

/* ---- sending ------------------------------------------------------------ */

static void read_again(struct read_file *f)
{
        BUF_AT_END struct buf b = BUF_INIT((size_t)1 << 20);
        uint64_t version = watch_look(&f->watch);
        char *fresh;

        if (version == f->version)
                return;
        if (buf_read_file(&b, f->watch.path, NULL) < 0 || !(fresh = str_dup(str_trim(buf_view(&b)))))
                return; /* the old one may still hold */
        free(f->text);
        f->text = fresh;
        f->version = version;
}

static struct curl_slist *add_header(struct curl_slist *list, const char *name, const char *value,
                                     bool *failed)
{
        BUF_AT_END struct buf b = BUF_INIT(65536);
        struct curl_slist *longer;

        buf_printf(&b, "%s: %s", name, value);
        longer = b.failed ? NULL : curl_slist_append(list, b.p);
        *failed = *failed || !longer;
        return longer ? longer : list;
}

static void set_blob(CURL *easy, CURLoption option, char *pem)
{
        struct curl_blob blob = { .data = pem, .len = pem ? strlen(pem) : 0, .flags = CURL_BLOB_COPY };

        if (pem)
                (void)curl_easy_setopt(easy, option, &blob);
}

static void set_identity(struct kube_call *call)
{
        const struct kube_config *config = call->client->config;

        set_blob(call->easy, CURLOPT_CAINFO_BLOB, call->client->ca.text);
        set_blob(call->easy, CURLOPT_SSLCERT_BLOB, config->certificate);
        set_blob(call->easy, CURLOPT_SSLKEY_BLOB, config->key);
        if (config->insecure) {
                (void)curl_easy_setopt(call->easy, CURLOPT_SSL_VERIFYPEER, 0L);
                (void)curl_easy_setopt(call->easy, CURLOPT_SSL_VERIFYHOST, 0L);
        }
}

/* Another name for TLS than the one that is connected to: the URL has the first, and curl is told the second.
 */
static void make_url(struct kube_call *call, struct buf *url, bool *failed)
{
        const struct kube_config *config = call->client->config;
        struct str rest = str_of(config->server), scheme, host;
        BUF_AT_END struct buf to = BUF_INIT(65536);
        const char *at = strstr(config->server, "://"), *port;

        if (!config->tls_server_name || !at) {
                buf_printf(url, "%s%s", config->server, call->request.path);
                return;
        }
        scheme = (struct str){ rest.p, (size_t)(at + 3 - rest.p) };
        rest = str_of(at + 3);
        host = (struct str){ rest.p, strcspn(rest.p, "/") };
        port = memrchr(host.p, ':', host.n);
        if (port && memchr(port, ']', host.n - (size_t)(port - host.p)))
                port = NULL; /* a colon of an IPv6 address */
        buf_str(url, scheme);
        buf_text(url, config->tls_server_name);
        buf_text(url, port ? port : host.p + host.n); /* and the path */
        buf_text(url, call->request.path);
        buf_printf(&to, "::" STR_FMT "%s", STR_ARG(host), port ? "" : ":");
        call->connect_to = to.failed ? NULL : curl_slist_append(NULL, to.p);
        *failed = *failed || !call->connect_to;
}

/* A connection whose peer is gone without a word fails after half a minute, also while only a watch listens
 * on it. */
static int socket_made(void *cookie UNUSED, curl_socket_t fd, curlsocktype purpose UNUSED)
{
        unsigned milliseconds = 30000;

        (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &milliseconds, sizeof(milliseconds));
        return CURL_SOCKOPT_OK;
}

static int prepare(struct kube_call *call, struct error *err)
{
        struct kube_client *c = call->client;
        const struct kube_request *q = &call->request;
        BUF_AT_END struct buf url = BUF_INIT(65536), bearer = BUF_INIT(65536);
        usec timeout = q->timeout ? q->timeout : 30 * USEC_SEC;
        bool failed = false;

        read_again(&c->token);
        read_again(&c->ca);
        call->easy = curl_easy_init();
        make_url(call, &url, &failed);
        buf_printf(&bearer, "Bearer %s", c->token.text ? c->token.text : "");
        call->headers = add_header(call->headers, "Content-Type",
                                   q->content_type ? q->content_type : "application/json", &failed);
        call->headers = add_header(call->headers, "Accept", "application/json", &failed);
        if (c->token.text)
                call->headers = add_header(call->headers, "Authorization", bearer.p, &failed);
        if (!call->easy || !call->what || url.failed || bearer.failed || failed || call->sent.failed)
                return error_memory(err);
        (void)curl_easy_setopt(call->easy, CURLOPT_URL, url.p);
        if (call->connect_to)
                (void)curl_easy_setopt(call->easy, CURLOPT_CONNECT_TO, call->connect_to);
        (void)curl_easy_setopt(call->easy, CURLOPT_CUSTOMREQUEST, q->method);
        if (call->sent.n) {
                (void)curl_easy_setopt(call->easy, CURLOPT_POSTFIELDS, call->sent.p);
                (void)curl_easy_setopt(call->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->sent.n);
        }
        (void)curl_easy_setopt(call->easy, CURLOPT_HTTPHEADER, call->headers);
        (void)curl_easy_setopt(call->easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
        (void)curl_easy_setopt(call->easy, CURLOPT_NOSIGNAL, 1L);
        (void)curl_easy_setopt(call->easy, CURLOPT_PROXY, "");
        (void)curl_easy_setopt(call->easy, CURLOPT_TCP_KEEPALIVE, 1L);
        (void)curl_easy_setopt(call->easy, CURLOPT_TCP_KEEPIDLE, 15L);
        (void)curl_easy_setopt(call->easy, CURLOPT_TCP_KEEPINTVL, 5L);
        (void)curl_easy_setopt(call->easy, CURLOPT_SOCKOPTFUNCTION, socket_made);
        (void)curl_easy_setopt(call->easy, CURLOPT_CONNECTTIMEOUT_MS, 10000L);
        (void)curl_easy_setopt(call->easy, CURLOPT_TIMEOUT_MS, (long)(timeout / USEC_MSEC));
        (void)curl_easy_setopt(call->easy, CURLOPT_ACCEPT_ENCODING, "gzip");
        (void)curl_easy_setopt(call->easy, CURLOPT_USERAGENT, "sluice");
        (void)curl_easy_setopt(call->easy, CURLOPT_WRITEFUNCTION, on_body);
        (void)curl_easy_setopt(call->easy, CURLOPT_WRITEDATA, call);
        (void)curl_easy_setopt(call->easy, CURLOPT_ERRORBUFFER, call->reason);
        (void)curl_easy_setopt(call->easy, CURLOPT_PRIVATE, call);
#if LIBCURL_VERSION_NUM >= 0x075700
        (void)curl_easy_setopt(call->easy, CURLOPT_QUICK_EXIT, 1L);
#endif
        set_identity(call);
        return http_multi_add(c->multi, call->easy, err);
}

struct kube_call *kube_send(struct kube_client *c, const struct kube_request *q)
{
        struct kube_call *call = calloc(1, sizeof(*call));

        if (!call)
                abort(); /* a call without an end would hang its caller */
        call->client = c;
        call->request = *q;
        call->heard = loop_now(c->loop);
        call->what = str_dup(str_of(q->what));
        call->body.max = q->line ? LINE_LIMIT : BODY_LIMIT;
        call->sent.max = BODY_LIMIT;
        buf_str(&call->sent, q->body);
        call->next = c->calls;
        if (call->next)
                call->next->previous = call;
        c->calls = call;
        if (prepare(call, &call->why) < 0) {
                call->unsent = true;
                loop_ready(c->loop, &c->failures);
        } else if (q->line)
                loop_ready(c->loop, &c->silences);
        return call;
}

struct kube_call *kube_apply(struct kube_client *c, const char *path, const char *manager, bool force,
                             struct str body, const char *what,
                             void (*done)(void *, const struct kube_answer *), void *cookie)
{
        BUF_AT_END struct buf full = BUF_INIT(65536);
        struct kube_request q = { .method = "PATCH",
                                  .content_type = "application/apply-patch+yaml",
                                  .body = body,
                                  .what = what,
                                  .done = done,
                                  .cookie = cookie };

        buf_printf(&full, "%s?fieldManager=", path);
        kube_escape(&full, str_of(manager));
        if (force)
                buf_text(&full, "&force=true");
        q.path = full.p ? full.p : path;
        return kube_send(c, &q);
}

void kube_escape(struct buf *b, struct str s) { buf_percent(b, s, "-_.~"); }

static int read_file_open(struct read_file *f, struct loop *loop, const char *text, const char *path,
                          struct error *err)
{
        if (text && !(f->text = str_dup(str_of(text))))
                return error_memory(err);
        return path ? watch_open(&f->watch, loop, path, NULL, err) : 0;
}

static void read_file_close(struct read_file *f)
{
        watch_close(&f->watch);
        free(f->text);
}

int kube_client_new(struct kube_client **out, struct loop *loop, const struct kube_config *config,
                    struct error *err)
{
        struct kube_client *c = calloc(1, sizeof(*c));

        if (!c)
                return error_memory(err);
        c->loop = loop;
        c->config = config;
        c->failures.turn = end_unsent;
        c->silences.turn = end_silent;
        if (read_file_open(&c->token, loop, config->token, config->token_file, err) < 0 ||
            read_file_open(&c->ca, loop, config->ca, config->ca_file, err) < 0 ||
            http_multi_new(&c->multi, loop, on_done, c, err) < 0) {
                (void)kube_client_free(c);
                return -1;
        }
        *out = c;
        return 0;
}

struct kube_client *kube_client_free(struct kube_client *c)
{
        if (!c)
                return NULL;
        while (c->calls)
                call_free(c->calls);
        (void)http_multi_free(c->multi);
        loop_forget(c->loop, &c->failures);
        loop_forget(c->loop, &c->silences);
        read_file_close(&c->token);
        read_file_close(&c->ca);
        free(c);
        return NULL;
}
