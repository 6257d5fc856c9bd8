/* Requests that are signed by SDK-HMAC-SHA256: one that we sign is let in, one in which anything is changed
 * that the signature covers is not, and neither is any that brings a signature of its own making. The first
 * bytes say what is changed; the rest is a request. */
#include <sys/stat.h>
#include <unistd.h>

#include "api.h"
#include "huawei/sign.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ACCESS "ACCESS-KEY"
#define SECRET "secret-key"
#define DATE "20240102T030405Z"

enum { SIGNED_MOST = 60 };

/* The request with the headers of its signature, put together again. */
struct signed_call {
        struct buf target, head, body;
        struct str method;
        struct sign_header headers[SIGNED_MOST];
        size_t n;
};

static void add_header(struct buf *head, struct str name, struct str value)
{
        buf_str(head, name);
        buf_char(head, 0);
        buf_str(head, value);
        buf_char(head, 0);
}

static bool let_in(struct api *a, struct str method, const struct buf *target, const struct buf *head,
                   const struct buf *body)
{
        struct push_reply reply = { .headers = BUF_INIT(1 << 20), .body = BUF_INIT(1 << 20) };
        const struct http_message m = { .target = *target, .head = *head, .body = *body };
        struct push_request q = call_of(&m);
        struct record *record;
        size_t n = 1;
        bool in;

        q.method = method;
        in = a->kind->push->receive(a->source, 1, &q, &record, &n, &reply) == PUSH_DELIVER;
        if (in) {
                DEMAND(n == 1);
                a->kind->push->finish(a->source, 1, &record, 1,
                                      &(struct push_outcome){ .result = PUSH_TIMEOUT }, &reply);
        } else
                DEMAND(reply.status == 401);
        reply_check(&reply);
        buf_done(&reply.headers);
        buf_done(&reply.body);
        return in;
}

static void note(void *cookie, struct str name, struct str value)
{
        struct signed_call *c = cookie;

        /* One of a name, and none of those that the signature adds. */
        for (size_t i = 0; i < c->n; i++)
                if (str_equal_nocase(c->headers[i].name, name))
                        return;
        if (c->n + 2 < SIGNED_MOST && name.n < 200 && !str_equal_nocase(name, STR("Authorization")) &&
            !str_equal_nocase(name, STR("X-Sdk-Date")) && !str_equal_nocase(name, STR("Host")) &&
            !str_equal_nocase(name, STR("X-Apig-AppCode")))
                c->headers[c->n++] = (struct sign_header){ name, value };
}

static void sign(struct signed_call *c)
{
        struct str query = buf_view(&c->target), path = str_cut(&query, '?');
        const struct sign_request r = { .method = c->method,
                                        .path = path,
                                        .query = query,
                                        .headers = c->headers,
                                        .headers_n = c->n,
                                        .body = buf_view(&c->body) };
        BUF_AT_END struct buf authorization = BUF_INIT(65536);
        char signature[65];

        sign_request(&r, STR(DATE), STR(SECRET), signature);
        buf_text(&authorization, "SDK-HMAC-SHA256 Access=" ACCESS ", SignedHeaders=");
        for (size_t i = 0; i < c->n; i++) {
                buf_text(&authorization, i ? ";" : "");
                buf_str(&authorization, c->headers[i].name);
                add_header(&c->head, c->headers[i].name, c->headers[i].value);
        }
        buf_printf(&authorization, ", Signature=%s", signature);
        add_header(&c->head, STR("Authorization"), buf_view(&authorization));
}

/* ---- what is changed ---------------------------------------------------- */

/* The meaning of a target, as the signature sees it: the path decoded, its end without /; the query's pairs
 * decoded, in order. */
struct pair {
        struct str name, value;
};

static int by_text(const void *a, const void *b)
{
        const struct pair *x = a, *y = b;
        size_t n = MIN_OF(x->name.n, y->name.n);
        int r = n ? memcmp(x->name.p, y->name.p, n) : 0;

        r = r ? r : (x->name.n > y->name.n) - (x->name.n < y->name.n);
        if (r)
                return r;
        n = MIN_OF(x->value.n, y->value.n);
        r = n ? memcmp(x->value.p, y->value.p, n) : 0;
        return r ? r : (x->value.n > y->value.n) - (x->value.n < y->value.n);
}

static void meaning(struct str target, struct buf *out)
{
        static struct pair pairs[16384];
        BUF_AT_END struct buf space = BUF_INIT(1 << 20);
        struct str query = target, path = str_cut(&query, '?');
        size_t n = 0;

        buf_unpercent(out, path, false);
        if (!out->n || out->p[out->n - 1] != '/')
                buf_char(out, '/');
        DEMAND(buf_reserve(&space, query.n + 1));
        while (query.n) {
                struct str value = str_cut(&query, '&'), name = str_cut(&value, '=');
                size_t from = space.n, middle;

                if (!name.n && !value.n)
                        continue;
                buf_unpercent(&space, name, true);
                middle = space.n;
                buf_unpercent(&space, value, true);
                pairs[n++] = (struct pair){ { space.p + from, middle - from },
                                            { space.p + middle, space.n - middle } };
        }
        qsort(pairs, n, sizeof(pairs[0]), by_text);
        for (size_t i = 0; i < n; i++) {
                buf_printf(out, "\n%zu ", pairs[i].name.n);
                buf_str(out, pairs[i].name);
                buf_printf(out, " %zu ", pairs[i].value.n);
                buf_str(out, pairs[i].value);
        }
        DEMAND(!out->failed);
}

static bool same_meaning(struct str a, struct str b)
{
        BUF_AT_END struct buf x = BUF_INIT(1 << 22), y = BUF_INIT(1 << 22);

        meaning(a, &x);
        meaning(b, &y);
        return str_equal(buf_view(&x), buf_view(&y));
}

static bool holds_slash(struct str target)
{
        struct str path = str_cut(&target, '?');

        return memmem(path.p, path.n, "%2F", 3) || memmem(path.p, path.n, "%2f", 3);
}

static void change_byte(struct buf *b, size_t place, uint8_t by)
{
        if (b->n)
                b->p[place % b->n] = (char)(b->p[place % b->n] ^ (by ? by : 1));
}

static bool is_target(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if (s.p[i] <= ' ' || s.p[i] >= 0x7f || s.p[i] == '#')
                        return false;
        return s.n && s.p[0] == '/';
}

static void check_changes(struct api *a, struct signed_call *c, const uint8_t how[4])
{
        BUF_AT_END struct buf changed = BUF_INIT(1 << 20), twice = BUF_INIT(1 << 20);
        size_t place = (size_t)how[1] << 8 | how[2];
        const struct sign_header *h = &c->headers[place % c->n];
        bool unsigned_body = false;

        for (size_t i = 0; i < c->n; i++)
                unsigned_body = unsigned_body ||
                                (str_equal_nocase(c->headers[i].name, STR("X-Sdk-Content-Sha256")) &&
                                 str_is(c->headers[i].value, "UNSIGNED-PAYLOAD"));
        switch (how[0] % 6) {
        case 0: /* another method */
                DEMAND(!let_in(a, str_is(c->method, "PUT") ? STR("POST") : STR("PUT"), &c->target, &c->head,
                               &c->body));
                return;
        case 1: /* a byte of the target */
                buf_str(&changed, buf_view(&c->target));
                change_byte(&changed, place, how[3]);
                if (is_target(buf_view(&changed)) &&
                    (holds_slash(buf_view(&changed)) ||
                     !same_meaning(buf_view(&changed), buf_view(&c->target))))
                        DEMAND(!let_in(a, c->method, &changed, &c->head, &c->body));
                return;
        case 2: /* a byte of the body, or one more */
                buf_str(&changed, buf_view(&c->body));
                if (place % 3)
                        change_byte(&changed, place, how[3]);
                else
                        buf_char(&changed, (char)how[3]);
                if (!unsigned_body && changed.n)
                        DEMAND(!let_in(a, c->method, &c->target, &c->head, &changed));
                return;
        case 3: /* a header that is signed comes twice */
                buf_str(&twice, buf_view(&c->head));
                add_header(&twice, h->name, STR("other"));
                DEMAND(!let_in(a, c->method, &c->target, &twice, &c->body));
                return;
        case 4: /* a header that is signed is not there */
                for (const char *p = c->head.p; p < c->head.p + c->head.n;) {
                        struct str name = str_of(p), value = str_of(p + name.n + 1);

                        if (!str_equal(name, h->name))
                                add_header(&twice, name, value);
                        p = value.p + value.n + 1;
                }
                DEMAND(!let_in(a, c->method, &c->target, &twice, &c->body));
                return;
        default: /* another parameter */
                buf_str(&changed, buf_view(&c->target));
                buf_text(&changed, memchr(changed.p, '?', changed.n) ? "&zz=1" : "?zz=1");
                DEMAND(!let_in(a, c->method, &changed, &c->head, &c->body));
                return;
        }
}

/* ------------------------------------------------------------------------- */

static struct api *open_api(void)
{
        static char folder[] = "/tmp/fuzz-signature-XXXXXX";
        char path[sizeof(folder) + 32];
        static const struct {
                const char *name, *value;
        } files[] = { { "access", ACCESS }, { "secret", SECRET } };
        struct api *a;

        DEMAND(mkdtemp(folder));
        (void)snprintf(path, sizeof(path), "%s/callers", folder);
        DEMAND(mkdir(path, 0700) == 0);
        for (size_t i = 0; i < COUNT_OF(files); i++) {
                FILE *f;

                (void)snprintf(path, sizeof(path), "%s/callers/%s", folder, files[i].name);
                f = fopen(path, "w");
                DEMAND(f && fputs(files[i].value, f) >= 0 && fclose(f) == 0);
        }
        a = api_new(
                "apiVersion: sluice.dev/v1alpha1\nkind: Trigger\nmetadata: {name: api, namespace: shop, uid: "
                "u}\nspec:\n  source: {apig: {path: /, match: Prefix, authentication: {type: App, keys: "
                "[{accessKeySecretRef: {name: callers, key: access}, secretKeySecretRef: {name: callers, "
                "key: secret}}]}}}\n  sink: {uri: 'http://f/'}\n",
                folder);
        for (size_t i = 0; i < COUNT_OF(files); i++) {
                (void)snprintf(path, sizeof(path), "%s/callers/%s", folder, files[i].name);
                (void)unlink(path);
        }
        (void)snprintf(path, sizeof(path), "%s/callers", folder);
        (void)rmdir(path);
        (void)rmdir(folder);
        return a;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct api *a;
        struct signed_call c = { .target = BUF_INIT(1 << 20),
                                 .head = BUF_INIT(1 << 20),
                                 .body = BUF_INIT(1 << 20) };
        struct http_intake k;

        if (size < 4)
                return 0;
        if (!a)
                a = open_api();
        if (call_take(&k, (struct str){ (const char *)data + 4, size - 4 })) {
                const struct http_message *m = &k.codec.message;
                const struct push_request q = call_of(m);
                struct str host = http_message_header(m, STR("Host"));

                /* As it came: whoever wrote it does not know the secret. */
                DEMAND(!let_in(a, q.method, &m->target, &m->head, &m->body));
                c.method = q.method;
                c.headers[c.n++] = (struct sign_header){ STR("Host"), host };
                c.headers[c.n++] = (struct sign_header){ STR("X-Sdk-Date"), STR(DATE) };
                call_each_header(&q, note, &c);
                buf_str(&c.target, buf_view(&m->target));
                buf_str(&c.body, buf_view(&m->body));
                sign(&c);
                /* Signed decoded, a slash that is data reads like one that is none. */
                DEMAND(let_in(a, c.method, &c.target, &c.head, &c.body) == !holds_slash(buf_view(&c.target)));
                check_changes(a, &c, data);
        }
        http_intake_done(&k);
        buf_done(&c.target);
        buf_done(&c.head);
        buf_done(&c.body);
        return 0;
}
