#include "json/writer.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

enum { LONG = 65536, FOLLOWS = 8192 };

#if defined(__SSE2__)
/* A bit for each of 16 bytes that needs escaping or is no ASCII. */
static inline unsigned special(__m128i v)
{
        /* Signed compare: controls and bytes from 0x80 on are both below 0x20. */
        const __m128i space = _mm_set1_epi8(0x20), quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\');

        return (unsigned)_mm_movemask_epi8(_mm_or_si128(
                _mm_cmplt_epi8(v, space), _mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, slash))));
}

static inline __m128i load16(const char *p) { return _mm_loadu_si128((const __m128i *)(const void *)p); }
static inline __m128i load8(const char *p) { return _mm_loadl_epi64((const __m128i *)(const void *)p); }
#endif

/* How many bytes at the start need no escaping and are ASCII. */
static size_t plain_run(const char *p, size_t n)
{
        size_t i = 0;

#if defined(__SSE2__)
        unsigned found;

        /* What is left at the end is looked at together with bytes that have been looked at before. */
        if (n >= 16) {
                for (; i + 16 <= n; i += 16)
                        if ((found = special(load16(p + i))) != 0)
                                return i + (size_t)__builtin_ctz(found);
                found = i < n ? special(load16(p + n - 16)) : 0;
                return found ? n - 16 + (size_t)__builtin_ctz(found) : n;
        }
        if (n >= 8) {
                found = special(_mm_unpacklo_epi64(load8(p), load8(p + n - 8)));
                if (!found)
                        return n;
                i = (size_t)__builtin_ctz(found);
                return i < 8 ? i : n - 16 + i;
        }
#endif
        while (i < n && (signed char)p[i] >= 0x20 && p[i] != '"' && p[i] != '\\')
                i++;
        return i;
}

/* What stands for a control character, a quote or a backslash. n 0: the character itself. */
struct escape {
        char text[7];
        uint8_t n;
};
#define U(c)                                                                                                 \
        {                                                                                                    \
                "\\u00" c, 6                                                                                 \
        }
static const struct escape escapes[128] = {
        U("00"),
        U("01"),
        U("02"),
        U("03"),
        U("04"),
        U("05"),
        U("06"),
        U("07"),
        { "\\b", 2 },
        { "\\t", 2 },
        { "\\n", 2 },
        U("0b"),
        { "\\f", 2 },
        { "\\r", 2 },
        U("0e"),
        U("0f"),
        U("10"),
        U("11"),
        U("12"),
        U("13"),
        U("14"),
        U("15"),
        U("16"),
        U("17"),
        U("18"),
        U("19"),
        U("1a"),
        U("1b"),
        U("1c"),
        U("1d"),
        U("1e"),
        U("1f"),
        ['"'] = { "\\\"", 2 },
        ['\\'] = { "\\\\", 2 },
};
static const struct escape no_escape;

static const struct escape *escape_of(char c)
{
        return (unsigned char)c < 128 ? &escapes[(unsigned char)c] : &no_escape;
}

/* One after the other, as long as there is one. Returns how many bytes were taken. */
static size_t escape_run(struct buf *b, struct str s)
{
        const struct escape *e;
        size_t i = 0;

        for (; i < s.n && !b->failed && (e = escape_of(s.p[i]))->n; i++) {
                if (b->cap - b->n <= sizeof(e->text)) {
                        buf_add(b, e->text, e->n);
                        continue;
                }
                /* a whole piece; the next one goes over its end */
                memcpy(b->p + b->n, e->text, sizeof(e->text));
                b->n += e->n;
        }
        if (b->p)
                b->p[b->n] = 0;
        return b->failed ? s.n : i;
}

size_t writer_escaped(struct str s)
{
        size_t total = 0;

        while (s.n) {
                size_t run = plain_run(s.p, s.n), length = 1;

                total += run;
                s.p += run;
                s.n -= run;
                if (!s.n)
                        break;
                if (escape_of(s.p[0])->n)
                        for (total += escape_of(s.p[0])->n; length < s.n && escape_of(s.p[length])->n;
                             length++)
                                total += escape_of(s.p[length])->n;
                else {
                        length = utf8_sequence(s.p, s.n);
                        total += length ? length : 3;
                        length = length ? length : 1;
                }
                s.p += length;
                s.n -= length;
        }
        return total;
}

void writer_escape(struct buf *b, struct str s)
{
        while (s.n) {
                size_t run = plain_run(s.p, s.n), length;

                buf_add(b, s.p, run);
                s.p += run;
                s.n -= run;
                if (!s.n)
                        return;
                if (escape_of(s.p[0])->n)
                        length = escape_run(b, s);
                else if ((length = utf8_sequence(s.p, s.n)) != 0)
                        buf_add(b, s.p, length);
                else {
                        buf_add(b, "\xef\xbf\xbd", 3);
                        length = 1;
                }
                s.p += length;
                s.n -= length;
        }
}

static void before_value(struct writer *w)
{
        if (w->after_key)
                w->after_key = false;
        else if (w->comma)
                buf_char(w->out, ',');
        w->comma = true;
}

static void begin(struct writer *w, char c)
{
        before_value(w);
        buf_char(w->out, c);
        w->depth++;
        w->comma = false;
}

static void end(struct writer *w, char c)
{
        assert(w->depth > 0 && !w->after_key);
        w->depth--;
        w->comma = true; /* what ends here was a value */
        buf_char(w->out, c);
}

void writer_object(struct writer *w) { begin(w, '{'); }
void writer_object_end(struct writer *w) { end(w, '}'); }
void writer_array(struct writer *w) { begin(w, '['); }
void writer_array_end(struct writer *w) { end(w, ']'); }

void writer_key(struct writer *w, struct str key)
{
        writer_string(w, key);
        buf_char(w->out, ':');
        w->after_key = true;
}

void writer_string(struct writer *w, struct str s)
{
        before_value(w);
        /* One reservation: of what is long, and would be copied while it grows, for the very size and a
         * little that follows. */
        (void)buf_reserve(w->out, s.n < LONG ? s.n + 2 : writer_escaped(s) + FOLLOWS);
        buf_char(w->out, '"');
        writer_escape(w->out, s);
        buf_char(w->out, '"');
}

void writer_base64(struct writer *w, struct str s)
{
        before_value(w);
        if (s.n >= LONG)
                (void)buf_reserve(w->out, s.n / 3 * 4 + FOLLOWS);
        buf_char(w->out, '"');
        buf_base64(w->out, s);
        buf_char(w->out, '"');
}

void writer_int(struct writer *w, int64_t value)
{
        before_value(w);
        buf_int(w->out, value);
}

void writer_double(struct writer *w, double value)
{
        if (!isfinite(value)) {
                writer_null(w);
                return;
        }
        before_value(w);
        for (int digits = 15; digits <= 17; digits++) {
                char text[40];

                (void)snprintf(text, sizeof(text), "%.*g", digits, value);
                if (digits == 17 || strtod(text, NULL) == value) {
                        buf_text(w->out, text);
                        return;
                }
        }
}

void writer_bool(struct writer *w, bool value)
{
        before_value(w);
        buf_text(w->out, value ? "true" : "false");
}

void writer_null(struct writer *w)
{
        before_value(w);
        buf_text(w->out, "null");
}

void writer_raw(struct writer *w, struct str value)
{
        before_value(w);
        buf_str(w->out, value);
}
