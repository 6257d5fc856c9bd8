#include "huawei/sign.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <time.h>

#include "base/clock.h"

enum { HEADERS_MOST = 128, PAIRS_MOST = 512 };

static void hash(struct str text, char out[65])
{
        unsigned char digest[SHA256_DIGEST_LENGTH];

        (void)SHA256((const unsigned char *)text.p, text.n, digest);
        hex_text(digest, sizeof(digest), out);
}

/* The path unquoted, each segment encoded again, a / at its end. */
static void canonical_path(struct buf *out, struct str path)
{
        BUF_AT_END struct buf plain = BUF_INIT(65536);

        buf_unpercent(&plain, path, false);
        buf_percent(out, buf_view(&plain), "-_.~/");
        if (!out->n || out->p[out->n - 1] != '/')
                buf_char(out, '/');
        out->failed = out->failed || plain.failed;
}

struct pair {
        struct str name, value;
};

static int by_name(const void *a, const void *b)
{
        const struct pair *x = a, *y = b;
        size_t n = MIN_OF(x->name.n, y->name.n);
        int r = n ? memcmp(x->name.p, y->name.p, n) : 0;

        if (r || x->name.n != y->name.n)
                return r ? r : x->name.n < y->name.n ? -1 : 1;
        n = MIN_OF(x->value.n, y->value.n);
        r = n ? memcmp(x->value.p, y->value.p, n) : 0;
        return r ? r : x->value.n < y->value.n ? -1 : x->value.n > y->value.n;
}

/* A + is a space, as it is for those who read the query; the official clients never send one that is not. */
static void canonical_query(struct buf *out, struct str query)
{
        BUF_AT_END struct buf space = BUF_INIT(1 << 20);
        struct pair pairs[PAIRS_MOST];
        size_t n = 0;

        if (!buf_reserve(&space, query.n + 1)) {
                out->failed = true;
                return;
        }
        while (query.n) {
                struct str value = str_cut(&query, '&'), name = str_cut(&value, '=');
                size_t from = space.n;

                if (!name.n && !value.n)
                        continue;
                if (n == COUNT_OF(pairs)) { /* what is not looked at is not signed */
                        out->failed = true;
                        return;
                }
                buf_unpercent(&space, name, true);
                pairs[n].name = (struct str){ space.p + from, space.n - from };
                from = space.n;
                buf_unpercent(&space, value, true);
                pairs[n++].value = (struct str){ space.p + from, space.n - from };
        }
        qsort(pairs, n, sizeof(pairs[0]), by_name);
        for (size_t i = 0; i < n; i++) {
                if (i)
                        buf_char(out, '&');
                buf_percent(out, pairs[i].name, "-_.~");
                buf_char(out, '=');
                buf_percent(out, pairs[i].value, "-_.~");
        }
}

static void lower(struct buf *out, struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                buf_char(out, s.p[i] >= 'A' && s.p[i] <= 'Z' ? (char)(s.p[i] | 0x20) : s.p[i]);
}

static struct str header_of(const struct sign_request *r, const char *name)
{
        for (size_t i = 0; i < r->headers_n; i++)
                if (str_equal_nocase(r->headers[i].name, str_of(name)))
                        return r->headers[i].value;
        return (struct str){ 0 };
}

/* Names in lower case and in order; false: out of memory, or too many. */
struct sorted_headers {
        struct pair pairs[HEADERS_MOST];
        size_t n;
        struct buf space;
};
static bool sort_headers(struct sorted_headers *s, const struct sign_request *r)
{
        size_t names = 0;

        s->n = 0;
        s->space = BUF_INIT(1 << 20);
        for (size_t i = 0; i < r->headers_n; i++)
                names += r->headers[i].name.n;
        if (r->headers_n > COUNT_OF(s->pairs) || !buf_reserve(&s->space, names))
                return false;
        for (size_t i = 0; i < r->headers_n; i++) {
                size_t from = s->space.n;

                lower(&s->space, r->headers[i].name);
                s->pairs[s->n].name = (struct str){ s->space.p + from, s->space.n - from };
                s->pairs[s->n++].value = str_trim(r->headers[i].value);
        }
        qsort(s->pairs, s->n, sizeof(s->pairs[0]), by_name);
        return !s->space.failed; /* there was room for all: it was not moved */
}

static void put_names(struct buf *out, const struct sorted_headers *s)
{
        for (size_t i = 0; i < s->n; i++) {
                if (i)
                        buf_char(out, ';');
                buf_str(out, s->pairs[i].name);
        }
}

/* "name:value\n" lines in order, an empty line, the names. */
static void canonical_headers(struct buf *out, const struct sign_request *r)
{
        struct sorted_headers s;

        out->failed = !sort_headers(&s, r) || out->failed;
        for (size_t i = 0; i < s.n; i++) {
                buf_str(out, s.pairs[i].name);
                buf_char(out, ':');
                buf_str(out, s.pairs[i].value);
                buf_char(out, '\n');
        }
        buf_char(out, '\n');
        put_names(out, &s);
        buf_done(&s.space);
}

void sign_request(const struct sign_request *r, struct str date, struct str secret, char out[65])
{
        BUF_AT_END struct buf canonical = BUF_INIT((size_t)4 << 20), text = BUF_INIT(4096);
        struct str stated = header_of(r, "X-Sdk-Content-Sha256");
        unsigned char digest[EVP_MAX_MD_SIZE];
        unsigned size = 0;
        char hashed[65];

        buf_str(&canonical, r->method);
        buf_char(&canonical, '\n');
        {
                BUF_AT_END struct buf path = BUF_INIT(1 << 20);

                canonical_path(&path, r->path);
                buf_str(&canonical, buf_view(&path));
                canonical.failed = canonical.failed || path.failed;
        }
        buf_char(&canonical, '\n');
        canonical_query(&canonical, r->query);
        buf_char(&canonical, '\n');
        canonical_headers(&canonical, r);
        buf_char(&canonical, '\n');
        if (str_is(stated, "UNSIGNED-PAYLOAD") && r->body.n)
                buf_str(&canonical, stated);
        /* a hash that is stated is signed as a header; it is the body's, or the signature is not right */
        else {
                hash(r->body, hashed);
                buf_text(&canonical, hashed);
        }
        hash(buf_view(&canonical), hashed);
        buf_printf(&text, "SDK-HMAC-SHA256\n" STR_FMT "\n%s", STR_ARG(date), hashed);
        (void)HMAC(EVP_sha256(), secret.p, (int)secret.n, (const unsigned char *)text.p, text.n, digest,
                   &size);
        hex_text(digest, 32, out);
        if (canonical.failed || text.failed)
                memset(out, 0, 65); /* equal to no signature */
}

void sign_headers(const struct sign_request *r, struct str access, struct str secret, struct buf *out)
{
        struct sorted_headers s;
        char signature[65];

        sign_request(r, header_of(r, "X-Sdk-Date"), secret, signature);
        for (size_t i = 0; i < r->headers_n; i++)
                if (!str_equal_nocase(r->headers[i].name, STR("Host")))
                        buf_printf(out, STR_FMT ": " STR_FMT "\r\n", STR_ARG(r->headers[i].name),
                                   STR_ARG(r->headers[i].value));
        buf_printf(out, "Authorization: SDK-HMAC-SHA256 Access=" STR_FMT ", SignedHeaders=", STR_ARG(access));
        out->failed = !sort_headers(&s, r) || out->failed;
        put_names(out, &s);
        buf_done(&s.space);
        buf_printf(out, ", Signature=%s\r\n", signature);
}

void sign_time(usec wall, char out[17])
{
        int64_t seconds = wall / USEC_SEC, year;
        int month, day, of_day = (int)(seconds % 86400);
        char text[64];

        civil_from_days(seconds / 86400, &year, &month, &day);
        (void)snprintf(text, sizeof(text), "%04d%02d%02dT%02d%02d%02dZ", (int)year, month, day, of_day / 3600,
                       of_day / 60 % 60, of_day % 60);
        memcpy(out, text, 16);
        out[16] = 0;
}

bool sign_parse(struct str value, struct sign_authorization *out)
{
        static const struct str scheme = { "SDK-HMAC-SHA256 ", 16 };
        struct str rest = value;

        *out = (struct sign_authorization){ 0 };
        if (!str_starts(value, scheme))
                return false;
        rest = (struct str){ value.p + scheme.n, value.n - scheme.n };
        while (rest.n) {
                struct str part = str_trim(str_cut(&rest, ',')), v = part, name = str_cut(&v, '=');

                if (str_is(name, "Access"))
                        out->access = v;
                else if (str_is(name, "SignedHeaders"))
                        out->signed_headers = v;
                else if (str_is(name, "Signature"))
                        out->signature = v;
                else
                        return false;
        }
        return out->access.n && out->signed_headers.n && out->signature.n;
}

bool sign_date(struct str s, usec *out)
{
        struct tm tm = { 0 };
        char text[17], *end;

        if (s.n != 16)
                return false;
        memcpy(text, s.p, 16);
        text[16] = 0;
        for (size_t i = 0; i < 16; i++)
                if (i == 8 ? text[i] != 'T' : i == 15 ? text[i] != 'Z' : text[i] < '0' || text[i] > '9')
                        return false;
        end = strptime(text, "%Y%m%dT%H%M%SZ", &tm);
        if (!end || *end)
                return false;
        *out = (usec)timegm(&tm) * USEC_SEC;
        return true;
}

bool sign_tells_path(struct str path)
{
        for (size_t i = 0; i + 2 < path.n; i++)
                if (path.p[i] == '%' && path.p[i + 1] == '2' && (path.p[i + 2] | 0x20) == 'f')
                        return false;
        return true;
}

bool sign_equal(struct str a, struct str b) { return a.n == b.n && CRYPTO_memcmp(a.p, b.p, a.n) == 0; }
