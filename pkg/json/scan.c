#include "json/scan.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

/* The first quote, backslash or control character. */
static const char *special(const char *p, const char *end)
{
#if defined(__SSE2__)
        const __m128i quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\'), control = _mm_set1_epi8(0x1f);

        for (; end - p >= 16; p += 16) {
                __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
                __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(v, control), v);
                int mask = _mm_movemask_epi8(
                        _mm_or_si128(low, _mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, slash))));

                if (mask)
                        return p + __builtin_ctz((unsigned)mask);
        }
#endif
        while (p < end && (unsigned char)*p >= 0x20 && *p != '"' && *p != '\\')
                p++;
        return p;
}

/* What stands behind a backslash, and what it means; u: four digits follow. 0: there is no such escape. */
static const char unescaped[256] = {
        ['"'] = '"',  ['\\'] = '\\', ['/'] = '/',  ['b'] = '\b', ['f'] = '\f',
        ['n'] = '\n', ['r'] = '\r',  ['t'] = '\t', ['u'] = 'u',
};

/* Past the backslash. */
static bool escape(struct scan *s)
{
        if (s->p == s->end || !unescaped[(unsigned char)*s->p])
                return scan_fail(s, "no such escape in a string");
        if (*s->p++ != 'u')
                return true;
        for (int i = 0; i < 4; i++, s->p++)
                if (s->p == s->end || hex_digit(*s->p) < 0)
                        return scan_fail(s, "expected four hexadecimal digits after \\u");
        return true;
}

bool scan_string(struct scan *s, struct str *raw, bool *escaped)
{
        const char *start = ++s->p;

        *escaped = false;
        for (;;) {
                s->p = special(s->p, s->end);
                if (s->p == s->end)
                        return scan_fail(s, "the string does not end");
                if (*s->p == '"')
                        break;
                if (*s->p != '\\')
                        return scan_fail(s, "a control character in a string");
                *escaped = true;
                do { /* often one follows the other, as in JSON within JSON */
                        s->p++;
                        if (!escape(s))
                                return false;
                } while (s->p < s->end && *s->p == '\\');
        }
        *raw = (struct str){ start, (size_t)(s->p++ - start) };
        return true;
}

static bool digits(struct scan *s)
{
        const char *start = s->p;

        while (s->p < s->end && *s->p >= '0' && *s->p <= '9')
                s->p++;
        return s->p > start || scan_fail(s, "expected a digit");
}

bool scan_number(struct scan *s, struct str *text)
{
        const char *start = s->p;

        if (*s->p == '-')
                s->p++;
        if (s->p < s->end && *s->p == '0')
                s->p++;
        else if (!digits(s))
                return false;
        if (s->p < s->end && *s->p == '.') {
                s->p++;
                if (!digits(s))
                        return false;
        }
        if (s->p < s->end && (*s->p == 'e' || *s->p == 'E')) {
                s->p++;
                if (s->p < s->end && (*s->p == '+' || *s->p == '-'))
                        s->p++;
                if (!digits(s))
                        return false;
        }
        *text = (struct str){ start, (size_t)(s->p - start) };
        return true;
}

bool scan_word(struct scan *s, const char *word)
{
        size_t n = strlen(word);

        if ((size_t)(s->end - s->p) < n || memcmp(s->p, word, n) != 0)
                return scan_fail(s, "expected a value");
        s->p += n;
        return true;
}

bool scan_more(struct scan *s, char close)
{
        if (scan_take(s, close))
                return false;
        return scan_take(s, ',') ||
               scan_fail(s, close == '}' ? "expected ',' or '}'" : "expected ',' or ']'");
}

bool scan_name(struct scan *s, struct str *raw, bool *escaped)
{
        if (scan_peek(s) != '"')
                return scan_fail(s, "expected a member's name in quotes");
        if (!scan_string(s, raw, escaped))
                return false;
        return scan_take(s, ':') || scan_fail(s, "expected ':'");
}

/* Which of the levels that are open are objects, a bit each: of a few in place, of more on the heap. */
enum { FEW_LEVELS = 512 };
struct levels {
        uint64_t few[FEW_LEVELS / 64], *bits;
        size_t n, room;
};

static void levels_done(struct levels *l)
{
        if (l->bits != l->few)
                free(l->bits);
}

static bool level_open(struct levels *l, bool object)
{
        uint64_t bit = (uint64_t)1 << l->n % 64, *word;

        if (l->n == l->room) {
                uint64_t *more = realloc(l->bits == l->few ? NULL : l->bits,
                                         l->room / 64 * 2 * sizeof(*more));

                if (!more)
                        return false;
                if (l->bits == l->few)
                        memcpy(more, l->few, sizeof(l->few));
                l->bits = more;
                l->room *= 2;
        }
        word = &l->bits[l->n / 64];
        if (l->n % 64 == 0)
                *word = 0;
        *word = object ? *word | bit : *word & ~bit;
        l->n++;
        return true;
}

static bool in_object(const struct levels *l) { return l->bits[(l->n - 1) / 64] >> (l->n - 1) % 64 & 1; }

static bool skip_name(struct scan *s)
{
        struct str name;
        bool escaped;

        return scan_name(s, &name, &escaped);
}

static bool skip_plain(struct scan *s)
{
        struct str ignored;
        bool escaped;
        char c = scan_peek(s);

        switch (c) {
        case '"': return scan_string(s, &ignored, &escaped);
        case 't': return scan_word(s, "true");
        case 'f': return scan_word(s, "false");
        case 'n': return scan_word(s, "null");
        default:
                if (c == '-' || (c >= '0' && c <= '9'))
                        return scan_number(s, &ignored);
                return scan_fail(s, s->p == s->end ? "the text ends where a value is expected"
                                                   : "expected a value");
        }
}

/* A value that is not empty begins: the next thing is its first member's value, or its first item. *whole: it
 * is empty, and passed. */
static bool skip_begin(struct scan *s, struct levels *l, unsigned depth, bool *whole)
{
        bool object = scan_peek(s) == '{';

        if (l->n >= depth)
                return scan_fail(s, "nested too deep");
        s->p++;
        *whole = scan_take(s, object ? '}' : ']');
        if (*whole)
                return true;
        return level_open(l, object) ? !object || skip_name(s) : scan_no_memory(s);
}

/* Behind a value: closes what ends there, up to where one more value follows. *end: nothing is open any more.
 */
static bool skip_on(struct scan *s, struct levels *l, bool *end)
{
        for (; l->n; l->n--) {
                bool object = in_object(l);

                if (scan_more(s, object ? '}' : ']'))
                        return !object || skip_name(s);
                if (s->fault)
                        return false;
        }
        *end = true;
        return true;
}

static bool skip_nested(struct scan *s, unsigned depth)
{
        struct levels l;
        bool ok = true, end = false;

        l.bits = l.few;
        l.n = 0;
        l.room = FEW_LEVELS;
        while (ok && !end) {
                char c = scan_peek(s);
                bool whole = true;

                ok = c == '{' || c == '[' ? skip_begin(s, &l, depth, &whole) : skip_plain(s);
                if (ok && whole)
                        ok = skip_on(s, &l, &end);
        }
        levels_done(&l);
        return ok;
}

bool scan_skip(struct scan *s, unsigned depth)
{
        char c = scan_peek(s);

        return c == '{' || c == '[' ? skip_nested(s, depth) : skip_plain(s);
}

/* Of digits that were checked. */
static unsigned four_digits(const char *p)
{
        unsigned c = 0;

        for (int i = 0; i < 4; i++)
                c = c << 4 | ((unsigned)hex_digit(p[i]) & 0xf);
        return c;
}

unsigned utf8_put(char out[4], uint32_t c)
{
        static const unsigned char leads[] = { 0, 0, 0xc0, 0xe0, 0xf0 };
        unsigned n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;

        for (unsigned i = n - 1; i > 0; i--, c >>= 6)
                out[i] = (char)(0x80 | (c & 0x3f));
        out[0] = (char)(leads[n] | c);
        return n;
}

/* At the four digits of a \u; returns what follows them, or the second half of a pair. */
static const char *decode_unicode(const char *p, const char *end, struct buf *out, bool *whole)
{
        unsigned c = four_digits(p), low;
        char utf8[4];

        p += 4;
        if (c >= 0xd800 && c <= 0xdbff && end - p >= 6 && p[0] == '\\' && p[1] == 'u') {
                low = four_digits(p + 2);
                if (low >= 0xdc00 && low <= 0xdfff) {
                        buf_add(out, utf8, utf8_put(utf8, 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00)));
                        return p + 6;
                }
        }
        if (c >= 0xd800 && c <= 0xdfff) {
                *whole = false;
                c = 0xfffd;
        }
        buf_add(out, utf8, utf8_put(utf8, c));
        return p;
}

/* Escapes of one character that follow one another. Returns what follows them. */
static const char *decode_run(const char *p, const char *end, struct buf *out)
{
        size_t n = 0;

        while (end - p >= 2 && p[0] == '\\' && p[1] != 'u') {
                p += 2;
                n++;
        }
        if (!n) /* no string that was checked ends so */
                return end;
        if (!buf_reserve(out, n))
                return p;
        for (const char *at = p - 2 * n; at < p; at += 2)
                out->p[out->n++] = unescaped[(unsigned char)at[1]];
        out->p[out->n] = 0;
        return p;
}

bool scan_decode(struct str raw, struct buf *out)
{
        const char *p = raw.p, *end = raw.p + raw.n, *slash;
        bool whole = true;

        while (p < end) {
                slash = memchr(p, '\\', (size_t)(end - p));
                buf_add(out, p, (size_t)((slash ? slash : end) - p));
                if (!slash)
                        break;
                p = slash[1] == 'u' ? decode_unicode(slash + 2, end, out, &whole)
                                    : decode_run(slash, end, out);
        }
        return whole;
}
