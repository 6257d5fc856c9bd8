#include "json/writer.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

/* How many bytes at the start need no escaping and are ASCII. */
static size_t plain_run(const char *p, size_t n)
{
        size_t i = 0;

#if defined(__SSE2__)
        /* Signed compare: controls and bytes from 0x80 on are both below 0x20. */
        const __m128i space = _mm_set1_epi8(0x20), quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\');

        for (; i + 16 <= n; i += 16) {
                __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(p + i));
                __m128i special = _mm_or_si128(_mm_cmplt_epi8(v, space), _mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, slash)));
                int mask = _mm_movemask_epi8(special);

                if (mask)
                        return i + (size_t)__builtin_ctz((unsigned)mask);
        }
#endif
        while (i < n && (signed char)p[i] >= 0x20 && p[i] != '"' && p[i] != '\\')
                i++;
        return i;
}

static void escape_ascii(struct buf *b, char c)
{
        switch (c) {
        case '"': buf_add(b, "\\\"", 2); return;
        case '\\': buf_add(b, "\\\\", 2); return;
        case '\n': buf_add(b, "\\n", 2); return;
        case '\r': buf_add(b, "\\r", 2); return;
        case '\t': buf_add(b, "\\t", 2); return;
        case '\b': buf_add(b, "\\b", 2); return;
        case '\f': buf_add(b, "\\f", 2); return;
        default: buf_printf(b, "\\u%04x", (unsigned)(unsigned char)c); return;
        }
}

void writer_escape(struct buf *b, struct str s)
{
        while (s.n) {
                size_t run = plain_run(s.p, s.n), length = 1;

                buf_add(b, s.p, run);
                s.p += run;
                s.n -= run;
                if (!s.n)
                        return;
                if (!((unsigned char)s.p[0] & 0x80))
                        escape_ascii(b, s.p[0]);
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
        uint64_t bit = (uint64_t)1 << w->depth;

        if (w->after_key)
                w->after_key = false;
        else if (w->comma & bit)
                buf_char(w->out, ',');
        w->comma |= bit;
}

static void begin(struct writer *w, char c)
{
        before_value(w);
        buf_char(w->out, c);
        w->depth++;
        assert(w->depth < 64);
        w->comma &= ~((uint64_t)1 << w->depth);
}

static void end(struct writer *w, char c)
{
        assert(w->depth > 0 && !w->after_key);
        w->depth--;
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
        /* One reservation for the common case of nothing to escape. */
        (void)buf_reserve(w->out, s.n + 2);
        buf_char(w->out, '"');
        writer_escape(w->out, s);
        buf_char(w->out, '"');
}

void writer_base64(struct writer *w, struct str s)
{
        before_value(w);
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
