#include "huawei/service.h"

#include <jansson.h>
#include <stdio.h>

#include "huawei/sign.h"
#include "json/tree.h"

static const usec TIMEOUT = 10 * USEC_SEC;
enum { WORDS_MOST = 240 };

/* What of "https://HOST:PORT" stands in Host, and how the port names it as allowed: with its scheme unless
 * that is https. */
static struct str authority_of(struct str endpoint, struct str *allowed)
{
        struct str tls = STR("https://"), plain = STR("http://");
        size_t n = str_starts(endpoint, tls) ? tls.n : str_starts(endpoint, plain) ? plain.n : 0;
        struct str authority = { endpoint.p + n, endpoint.n - n };

        *allowed = n == tls.n ? authority : endpoint;
        return authority;
}

int service_submit(const struct fetch *f, uint64_t tag, const struct service_call *c,
                   const struct service_keys *k, usec wall, struct error *err)
{
        BUF_AT_END struct buf url = BUF_INIT(8192), headers = BUF_INIT(65536), allowed_text = BUF_INIT(1024);
        struct str allowed, authority = authority_of(c->endpoint, &allowed);
        struct sign_header signed_headers[5];
        struct sign_request sign = { .method = str_of(c->method),
                                     .path = c->path,
                                     .query = c->query,
                                     .headers = signed_headers,
                                     .body = c->body };
        struct fetch_request q = { .method = c->method,
                                   .ca_file = c->ca_file,
                                   .body = c->body,
                                   .timeout = c->timeout ? c->timeout : TIMEOUT,
                                   .answer_max = SERVICE_ANSWER_MOST };
        const char *hosts[2] = { NULL, NULL };
        char date[17];

        sign_time(wall, date);
        signed_headers[sign.headers_n++] = (struct sign_header){ STR("Content-Type"),
                                                                 STR("application/json") };
        signed_headers[sign.headers_n++] = (struct sign_header){ STR("Host"), authority };
        signed_headers[sign.headers_n++] = (struct sign_header){ STR("X-Project-Id"), c->project };
        signed_headers[sign.headers_n++] = (struct sign_header){ STR("X-Sdk-Date"), str_of(date) };
        if (k->token.n)
                signed_headers[sign.headers_n++] = (struct sign_header){ STR("X-Security-Token"), k->token };
        buf_printf(&headers, "Accept: application/json\r\nHost: " STR_FMT "\r\n", STR_ARG(authority));
        sign_headers(&sign, k->access, k->secret, &headers);
        buf_str(&url, c->endpoint);
        buf_str(&url, c->path);
        if (c->query.n)
                buf_printf(&url, "?" STR_FMT, STR_ARG(c->query));
        buf_str(&allowed_text, allowed);
        if (url.failed || headers.failed || allowed_text.failed)
                return error_memory(err);
        hosts[0] = allowed_text.p;
        q.url = buf_view(&url);
        q.headers = buf_view(&headers);
        q.hosts = q.inside = hosts;
        return f->ops->submit(f->cookie, tag, &q, err);
}

/* ---- answers ------------------------------------------------------------ */

/* The first of these members that is there, as text; numbers too. */
static bool member(const json_t *o, const char *const *names, char *out, size_t size)
{
        for (; *names; names++) {
                const json_t *v = json_object_get(o, *names);

                if (json_is_string(v))
                        (void)snprintf(out, size, "%s", json_string_value(v));
                else if (json_is_integer(v))
                        (void)snprintf(out, size, "%lld", (long long)json_integer_value(v));
                else
                        continue;
                return true;
        }
        return false;
}

/* Each service has a shape of its own: error_code and error_msg, errorCode and errorMsg, code and message, or
 * those one level deeper. */
static bool words_of(struct str body, char *code, size_t code_size, char *words, size_t words_size)
{
        static const char *const codes[] = { "error_code", "errorCode", "code", NULL }, *const texts[] = {
                "error_msg", "errorMsg", "message", "details", "error_message", NULL
        };
        static const char *const deeper[] = { "message", "error" };
        json_t *root = json_tree(body, 0, JSON_VALUES_MOST, NULL);
        const json_t *o = root;
        bool any;

        for (size_t i = 0; i < COUNT_OF(deeper); i++)
                if (json_is_object(json_object_get(root, deeper[i])))
                        o = json_object_get(root, deeper[i]);
        any = member(o, codes, code, code_size);
        any = member(o, texts, words, words_size) || any;
        json_decref(root);
        return any;
}

/* One line of UTF-8. */
static void tidy(char *text)
{
        size_t n = strlen(text);

        for (size_t i = 0; i < n; i++)
                if ((unsigned char)text[i] < 0x20)
                        text[i] = ' ';
        while (n && !str_is_utf8((struct str){ text, n }))
                text[--n] = 0;
}

static enum error_kind kind_of(int status)
{
        switch (status) {
        case 401: return ERROR_UNAUTHORIZED;
        case 403: return ERROR_FORBIDDEN;
        case 404: return ERROR_NOT_FOUND;
        case 408: return ERROR_TIMEOUT;
        case 409: return ERROR_CONFLICT;
        default: return status >= 200 && status <= 399 ? ERROR_PROTOCOL : ERROR_REFUSED;
        }
}

int service_judge(const struct fetch_completion *c, const char *what, struct error *err)
{
        char code[80] = "", words[WORDS_MOST] = "";

        if (!c->failed && c->status >= 200 && c->status <= 299)
                return 0;
        if (c->failed) {
                /* behind the URL, which is long and says no more than what */
                const char *why = strstr(c->error.text, ": ");

                (void)error_set(err, c->error.kind, "%s: %s", what, why ? why + 2 : c->error.text);
                err->retry = true;
                return -1;
        }
        /* What has no such shape is not the service's, and may repeat what we showed it. */
        (void)words_of(c->body, code, sizeof(code), words, sizeof(words));
        tidy(code);
        tidy(words);
        (void)error_set(err, kind_of(c->status), "%s: %d%s%s%s%s", what, c->status, *code ? " " : "", code,
                        *words ? ": " : "", words);
        err->retry = c->status == 408 || c->status == 429 || c->status >= 500;
        err->retry_after = c->retry_after;
        return -1;
}
