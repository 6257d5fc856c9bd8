#include "http/client/fetch.h"

#include <arpa/inet.h>
#include <stdio.h>

#include "base/file.h"
#include "http/client/multi.h"
#include "http/client/resolver.h"
#include "http/wire/url.h"

enum { ADDRESSES_MOST = 16, URL_MOST = 8192 };

struct call {
        struct list_node node; /* in the client's list of calls */
        struct fetch_client *client;
        struct fetch_request *request;
        char *addresses[ADDRESSES_MOST]; /* those that may be called, tried in order */
        size_t addresses_n, tried;
        char *url_text, *host, *method, *ca_file;
        struct url url;
        bool inside, resolving;
        CURL *easy;
        struct curl_slist *headers, *connect_to;
        struct buf request_body;
        usec deadline;
        char reason[CURL_ERROR_SIZE];
};

struct fetch_client {
        struct loop *loop;
        struct task timer;
        struct http_multi *multi;
        struct resolver *resolver;
        struct list calls;
};

/* ---- where calls may go ------------------------------------------------- */

static bool label_matches(struct str pattern, struct str host)
{
        while (pattern.n && host.n) {
                bool more_of_pattern = memchr(pattern.p, '.', pattern.n),
                     more_of_host = memchr(host.p, '.', host.n);
                struct str p = str_cut(&pattern, '.'), h = str_cut(&host, '.');

                /* Only one of them having a trailing dot is a difference, too. */
                if (h.n == 0 || more_of_pattern != more_of_host ||
                    (!str_is(p, "*") && !str_equal_nocase(p, h)))
                        return false;
        }
        return pattern.n == 0 && host.n == 0;
}

static bool is_host_name(struct str host)
{
        for (size_t i = 0; i < host.n; i++) {
                char c = host.p[i];

                if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      c == '.' || c == '-'))
                        return false;
        }
        return host.n > 0;
}

bool fetch_host_allowed(struct str authority, bool tls, const char *const *hosts)
{
        struct str port = authority, host = str_cut(&port, ':');

        if (!is_host_name(host) || (port.n == 0 && host.n != authority.n))
                return false; /* no user names, no IPv6, nothing percent-encoded */
        for (; hosts && *hosts; hosts++) {
                struct str allowed = str_of(*hosts), wanted_port;
                bool plain = str_starts(allowed, STR("http://"));

                if (plain)
                        allowed = (struct str){ allowed.p + 7, allowed.n - 7 };
                wanted_port = allowed;
                allowed = str_cut(&wanted_port, ':');
                if (plain != !tls || !label_matches(allowed, host))
                        continue;
                if (str_equal(wanted_port, port) || (tls && ((wanted_port.n == 0 && str_is(port, "443")) ||
                                                             (port.n == 0 && str_is(wanted_port, "443")))))
                        return true;
        }
        return false;
}

static bool in_network(uint32_t address, uint32_t network, int bits)
{
        return address >> (32 - bits) == network >> (32 - bits);
}

static bool public_v4(uint32_t a)
{
        static const struct {
                uint32_t network;
                int bits;
        } special[] = {
                { 0x00000000, 8 },  { 0x0a000000, 8 },  { 0x64400000, 10 }, { 0x7f000000, 8 },
                { 0xa9fe0000, 16 }, { 0xac100000, 12 }, { 0xc0000000, 24 }, { 0xc0000200, 24 },
                { 0xc0586300, 24 }, { 0xc0a80000, 16 }, { 0xc6120000, 15 }, { 0xc6336400, 24 },
                { 0xcb007100, 24 }, { 0xe0000000, 3 },
        };

        for (size_t i = 0; i < COUNT_OF(special); i++)
                if (in_network(a, special[i].network, special[i].bits))
                        return false;
        return true;
}

bool fetch_address_public(const char *address)
{
        unsigned char b[16];

        if (inet_pton(AF_INET, address, b) == 1)
                return public_v4((uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3]);
        if (inet_pton(AF_INET6, address, b) != 1)
                return false;
        /* Only global unicast, 2000::/3, without those that carry an IPv4 address of any kind (6to4, Teredo),
         * serve protocols (2001::/23) or are for documentation. */
        if (b[0] >> 5 != 1)
                return false;
        if (b[0] == 0x20 && (b[1] == 0x02 || (b[1] == 0x01 && (b[2] < 2 || (b[2] == 0x0d && b[3] == 0xb8)))))
                return false;
        return b[0] != 0x3f || b[1] != 0xff || b[2] >> 4 != 0;
}

/* ---- calls -------------------------------------------------------------- */

/* Frees the last attempt. */
static void stop(struct call *c)
{
        if (c->easy) {
                http_multi_remove(c->client->multi, c->easy);
                curl_easy_cleanup(c->easy);
        }
        curl_slist_free_all(c->connect_to);
        c->easy = NULL;
        c->connect_to = NULL;
}

static void call_free(struct call *c)
{
        list_remove(&c->node);
        if (c->resolving)
                resolver_forget(c->client->resolver, c);
        stop(c);
        curl_slist_free_all(c->headers);
        buf_done(&c->request_body);
        for (size_t i = 0; i < c->addresses_n; i++)
                free(c->addresses[i]);
        free(c->url_text);
        free(c->host);
        free(c->method);
        free(c->ca_file);
        free(c);
}

/* Frees the call. */
static void complete(struct call *c)
{
        request_end(&c->request->request, c->client->loop);
        call_free(c);
}

static void fail(struct call *c, enum error_kind kind, const char *why)
{
        (void)error_set(&c->request->request.error, kind, "%s %s: %s", c->method, c->url_text, why);
        complete(c);
}

static size_t on_bytes(char *bytes, size_t size, size_t n, void *cookie)
{
        struct buf *answer = &((struct call *)cookie)->request->answer;

        buf_add(answer, bytes, size * n);
        return answer->failed ? 0 : size * n;
}

/* Tries the next address; the call may be freed afterwards. */
static void start(struct call *c);

static void on_done(void *cookie UNUSED, CURL *easy, CURLcode result)
{
        struct call *c;
        curl_off_t retry_after = 0;
        long status = 0;

        (void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&c);
        (void)curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
        (void)curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &retry_after);
        if (result == CURLE_COULDNT_CONNECT && c->tried < c->addresses_n) {
                start(c);
                return;
        }
        if (result != CURLE_OK) {
                fail(c, result == CURLE_OPERATION_TIMEDOUT ? ERROR_TIMEOUT : ERROR_UNREACHABLE,
                     c->request->answer.failed ? "the answer is longer than it may be"
                     : c->reason[0]            ? c->reason
                                               : curl_easy_strerror(result));
                return;
        }
        c->request->status = (int)status;
        c->request->retry_after = MIN_OF((usec)retry_after, (usec)86400) * USEC_SEC;
        complete(c);
}

static void start(struct call *c)
{
        BUF_AT_END struct buf to = BUF_INIT(1024);
        const char *address = c->addresses[c->tried++];
        struct error err;

        stop(c);
        c->easy = curl_easy_init();
        buf_printf(&to, strchr(address, ':') ? "::[%s]:%u" : "::%s:%u", address, c->url.port);
        c->connect_to = to.failed ? NULL : curl_slist_append(NULL, to.p);
        if (!c->easy || !c->connect_to) {
                fail(c, ERROR_MEMORY, "out of memory");
                return;
        }
        (void)curl_easy_setopt(c->easy, CURLOPT_URL, c->url_text);
        (void)curl_easy_setopt(c->easy, CURLOPT_CUSTOMREQUEST, c->method);
        (void)curl_easy_setopt(c->easy, CURLOPT_CONNECT_TO, c->connect_to);
        (void)curl_easy_setopt(c->easy, CURLOPT_HTTPHEADER, c->headers);
        (void)curl_easy_setopt(c->easy, CURLOPT_PROTOCOLS_STR, c->url.tls ? "https" : "http");
        (void)curl_easy_setopt(c->easy, CURLOPT_FOLLOWLOCATION, 0L);
        (void)curl_easy_setopt(c->easy, CURLOPT_PROXY, "");
        (void)curl_easy_setopt(c->easy, CURLOPT_NOSIGNAL, 1L);
        (void)curl_easy_setopt(c->easy, CURLOPT_FRESH_CONNECT, 1L);
        (void)curl_easy_setopt(c->easy, CURLOPT_FORBID_REUSE, 1L);
        (void)curl_easy_setopt(
                c->easy, CURLOPT_TIMEOUT_MS,
                (long)(MAX_OF(c->deadline - loop_now(c->client->loop), USEC_MSEC) / USEC_MSEC));
        (void)curl_easy_setopt(c->easy, CURLOPT_WRITEFUNCTION, on_bytes);
        (void)curl_easy_setopt(c->easy, CURLOPT_WRITEDATA, c);
        (void)curl_easy_setopt(c->easy, CURLOPT_ERRORBUFFER, c->reason);
        (void)curl_easy_setopt(c->easy, CURLOPT_PRIVATE, c);
        if (c->ca_file)
                (void)curl_easy_setopt(c->easy, CURLOPT_CAINFO, c->ca_file);
        if (c->request_body.n) {
                (void)curl_easy_setopt(c->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)c->request_body.n);
                (void)curl_easy_setopt(c->easy, CURLOPT_POSTFIELDS, c->request_body.p);
        }
        if (http_multi_add(c->client->multi, c->easy, &err) < 0)
                fail(c, err.kind, err.text);
}

static void on_resolved(void *cookie, const struct resolved *answer, const struct error *why)
{
        struct call *c = cookie;

        c->resolving = false;
        if (why) {
                fail(c, why->kind, why->text);
                return;
        }
        for (size_t i = 0; i < answer->n && c->addresses_n < ADDRESSES_MOST; i++)
                if (c->inside || fetch_address_public(answer->addresses[i])) {
                        c->addresses[c->addresses_n] = str_dup(str_of(answer->addresses[i]));
                        if (c->addresses[c->addresses_n])
                                c->addresses_n++;
                }
        if (c->addresses_n)
                start(c);
        else
                fail(c, ERROR_FORBIDDEN, "its address is not a public one, and may not be called");
}

static void arm(struct fetch_client *f)
{
        usec at = USEC_NEVER;

        LIST_EACH (struct call, c, &f->calls, node)
                at = MIN_OF(at, c->deadline);
        loop_arm(f->loop, &f->timer, at);
}

static void on_timer(struct task *task, usec now)
{
        struct fetch_client *f = CONTAINER_OF(task, struct fetch_client, timer);

        LIST_EACH (struct call, c, &f->calls, node)
                if (c->deadline <= now)
                        fail(c, ERROR_TIMEOUT, "no answer in time");
        arm(f);
}

/* ---- the port ----------------------------------------------------------- */

static int copy_headers(struct call *c, struct str lines)
{
        while (lines.n) {
                struct str line = str_trim(str_cut(&lines, '\n'));
                FREE_AT_END char *text = str_dup(line);
                struct curl_slist *more = text && line.n ? curl_slist_append(c->headers, text) : NULL;

                if (line.n && !more)
                        return -1;
                c->headers = more ? more : c->headers;
        }
        return 0;
}

static int submit(void *cookie, struct fetch_request *q, struct error *err)
{
        struct fetch_client *f = cookie;
        struct call *c;
        struct url url;

        if (q->url.n > URL_MOST)
                return error_set(err, ERROR_INVALID, "a URL of %zu bytes: it is too long", q->url.n);
        if (url_parse(q->url, &url, err) < 0)
                return -1;
        if (!fetch_host_allowed(url.authority, url.tls, q->hosts))
                return error_set(err, ERROR_FORBIDDEN, "URL \"" STR_FMT "\": its host may not be called",
                                 (int)MIN_OF(q->url.n, (size_t)200), q->url.p);
        if (file_is_other(q->ca_file)) /* from a pipe, curl would wait for data */
                return error_set(err, ERROR_INVALID, "read the CA %s: it is no regular file", q->ca_file);
        c = calloc(1, sizeof(*c));
        if (!c)
                return error_memory(err);
        c->client = f;
        c->request = q;
        list_append(&f->calls, &c->node);
        c->deadline = loop_now(f->loop) + q->timeout;
        c->inside = fetch_host_allowed(url.authority, url.tls, q->inside);
        c->request_body.max = q->body.n + 1;
        buf_str(&c->request_body, q->body);
        c->url_text = str_dup(q->url);
        c->method = str_dup(str_of(q->method ? q->method : "GET"));
        c->ca_file = q->ca_file ? str_dup(str_of(q->ca_file)) : NULL;
        if (!c->url_text || !c->method || (q->ca_file && !c->ca_file) ||
            url_parse(str_of(c->url_text), &c->url, err) < 0 || !(c->host = str_dup(c->url.host)) ||
            copy_headers(c, q->headers) < 0 || c->request_body.failed) {
                call_free(c);
                return error_memory(err);
        }
        request_begin(&q->request);
        q->status = 0;
        q->own = c;
        buf_reset(&q->answer);
        q->answer.max = q->answer_max;
        arm(f);
        if (host_is_address(c->host)) /* c-ares would send a query for it */
                on_resolved(c, &(struct resolved){ .addresses = &c->host, .n = 1 }, NULL);
        else {
                c->resolving = true;
                resolver_ask(f->resolver, c->host, on_resolved, c);
        }
        return 0;
}

static void cancel(void *cookie UNUSED, struct fetch_request *q) { call_free(q->own); }

struct fetch fetch_client_port(struct fetch_client *f)
{
        static const struct fetch_ops ops = { submit, cancel };

        return (struct fetch){ &ops, f };
}

int fetch_client_use_servers(struct fetch_client *f, const char *servers, struct error *err)
{
        return resolver_use_servers(f->resolver, servers, err);
}

int fetch_client_new(struct fetch_client **out, struct loop *loop, struct error *err)
{
        struct fetch_client *f = calloc(1, sizeof(*f));

        if (!f)
                return error_memory(err);
        f->loop = loop;
        f->timer.turn = on_timer;
        if (http_multi_new(&f->multi, loop, on_done, f, err) < 0 ||
            resolver_new(&f->resolver, loop, err) < 0) {
                (void)fetch_client_free(f);
                return -1;
        }
        *out = f;
        return 0;
}

struct fetch_client *fetch_client_free(struct fetch_client *f)
{
        if (!f)
                return NULL;
        loop_forget(f->loop, &f->timer);
        (void)resolver_free(f->resolver);
        (void)http_multi_free(f->multi);
        free(f);
        return NULL;
}
