#include "base/base.h"

#include <ctype.h>
#include <stdio.h>

bool str_starts(struct str s, struct str prefix)
{
        return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

bool str_equal_nocase(struct str a, struct str b)
{
        if (a.n != b.n)
                return false;
        for (size_t i = 0; i < a.n; i++)
                if (tolower((unsigned char)a.p[i]) != tolower((unsigned char)b.p[i]))
                        return false;
        return true;
}

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

struct str str_trim(struct str s)
{
        while (s.n && is_space(s.p[0]))
                s.p++, s.n--;
        while (s.n && is_space(s.p[s.n - 1]))
                s.n--;
        return s;
}

struct str str_cut(struct str *s, char c)
{
        struct str whole = *s;
        const char *at = whole.n ? memchr(whole.p, c, whole.n) : NULL;

        if (!at) {
                *s = (struct str){ whole.n ? whole.p + whole.n : whole.p, 0 };
                return whole;
        }
        *s = (struct str){ at + 1, whole.n - (size_t)(at - whole.p) - 1 };
        return (struct str){ whole.p, (size_t)(at - whole.p) };
}

char *str_dup(struct str s)
{
        char *copy = malloc(s.n + 1);

        if (!copy)
                return NULL;
        if (s.n)
                memcpy(copy, s.p, s.n);
        copy[s.n] = 0;
        return copy;
}

bool str_to_int64(struct str s, int64_t *out)
{
        bool negative = s.n && s.p[0] == '-';
        int64_t value = 0;

        if (negative)
                s.p++, s.n--;
        if (s.n == 0)
                return false;
        for (size_t i = 0; i < s.n; i++) {
                if (s.p[i] < '0' || s.p[i] > '9')
                        return false;
                /* Built below zero, where the range is one wider. */
                if (__builtin_mul_overflow(value, 10, &value) ||
                    __builtin_sub_overflow(value, s.p[i] - '0', &value))
                        return false;
        }
        if (!negative && value == INT64_MIN)
                return false;
        *out = negative ? value : -value;
        return true;
}

size_t utf8_sequence(const char *text, size_t n)
{
        const unsigned char *p = (const unsigned char *)text;
        unsigned char c = p[0];
        size_t length = c < 0x80                 ? 1
                        : c >= 0xc2 && c <= 0xdf ? 2
                        : (c & 0xf0) == 0xe0     ? 3
                        : c >= 0xf0 && c <= 0xf4 ? 4
                                                 : 0;

        if (length == 0 || length > n)
                return 0;
        for (size_t i = 1; i < length; i++)
                if ((p[i] & 0xc0) != 0x80)
                        return 0;
        if ((c == 0xe0 && p[1] < 0xa0) || (c == 0xed && p[1] > 0x9f) || (c == 0xf0 && p[1] < 0x90) ||
            (c == 0xf4 && p[1] > 0x8f))
                return 0;
        return length;
}

bool str_is_utf8(struct str s)
{
        size_t i = 0;

        while (i < s.n) {
                uint64_t words[4];

                if (i + 32 <= s.n &&
                    (memcpy(words, s.p + i, 32),
                     ((words[0] | words[1] | words[2] | words[3]) & 0x8080808080808080u) == 0)) {
                        i += 32;
                        continue;
                }
                if (i + 8 <= s.n && (memcpy(words, s.p + i, 8), (words[0] & 0x8080808080808080u) == 0)) {
                        i += 8;
                        continue;
                }
                size_t length = utf8_sequence(s.p + i, s.n - i);
                if (!length)
                        return false;
                i += length;
        }
        return true;
}

/* Are these words ASCII without control characters (but DEL)? */
static inline bool is_printable(const char *p, size_t words)
{
        uint64_t bad = 0;

        for (size_t i = 0; i < words; i++) {
                uint64_t word;

                memcpy(&word, p + i * sizeof(word), sizeof(word));
                /* the first byte below a space borrows, so that its high bit is set */
                bad |= (word - 0x2020202020202020u) | word;
        }
        return (bad & 0x8080808080808080u) == 0;
}

bool str_is_text(struct str s)
{
        size_t i = 0, length;

        while (i < s.n) {
                char c = s.p[i];

                if (i + 32 <= s.n && is_printable(s.p + i, 4))
                        length = 32;
                else if (i + 8 <= s.n && is_printable(s.p + i, 1))
                        length = 8;
                else if (c >= 0 && c < 0x20)
                        length = c == '\n' || c == '\t' || c == '\r';
                else
                        length = utf8_sequence(s.p + i, s.n - i);
                if (!length)
                        return false;
                i += length;
        }
        return true;
}

/* Is the character such a one, of n bytes, or of one that is no UTF-8? U+0080 to U+009F are controls as those
 * of ASCII are, and so are their numbers as bytes, to a terminal that knows no UTF-8. */
static bool steers(const char *p, size_t n)
{
        static const char *const others[] = { "\u061c", "\u200e", "\u200f", "\u2028", "\u2029",
                                              "\u202a", "\u202b", "\u202c", "\u202d", "\u202e",
                                              "\u2066", "\u2067", "\u2068", "\u2069" };
        unsigned char c = (unsigned char)(n == 2 && *p == '\xc2' ? p[1] : *p);

        if (n == 1 || (n == 2 && *p == '\xc2'))
                return c < 0x20 || (c >= 0x7f && c < 0xa0);
        for (size_t i = 0; i < COUNT_OF(others); i++)
                if (strlen(others[i]) == n && memcmp(p, others[i], n) == 0)
                        return true;
        return false;
}

void text_plain(char *text)
{
        const char *from = text, *end = text + strlen(text);
        char *to = text;

        while (from < end) {
                size_t n = MAX_OF(utf8_sequence(from, (size_t)(end - from)), (size_t)1);

                if (steers(from, n))
                        *to++ = ' ';
                else {
                        memmove(to, from, n);
                        to += n;
                }
                from += n;
        }
        *to = 0;
}

struct str text_clip(struct str s, size_t most)
{
        if (s.n > most)
                s.n = most;
        /* No half of a character at the end. */
        for (size_t back = 1; back <= 3 && back <= s.n; back++) {
                unsigned char c = (unsigned char)s.p[s.n - back];

                if (c >= 0xc0) {
                        if ((c >= 0xf0 ? 4u : c >= 0xe0 ? 3u : 2u) > back)
                                s.n -= back;
                        break;
                }
        }
        return s;
}

void text_vprint(char *to, size_t size, const char *format, va_list args)
{
        int n = vsnprintf(to, size, format, args);

        if (n < 0)
                *to = 0;
        else if ((size_t)n >= size)
                to[text_clip(str_of(to), size).n] = 0;
        text_plain(to);
}

void text_print(char *to, size_t size, const char *format, ...)
{
        va_list args;

        va_start(args, format);
        text_vprint(to, size, format, args);
        va_end(args);
}

size_t str_copy(char *to, size_t size, struct str s)
{
        if (s.n >= size)
                s = text_clip(s, size - 1);
        if (s.n)
                memmove(to, s.p, s.n);
        to[s.n] = 0;
        return s.n;
}

/* Edit distance with transpositions, given up above most. */
static size_t distance(struct str a, struct str b, size_t most)
{
        enum { LONGEST = 63 };
        size_t rows[3][LONGEST + 1];

        if (a.n > LONGEST || b.n > LONGEST || (a.n > b.n ? a.n - b.n : b.n - a.n) > most)
                return most + 1;
        for (size_t j = 0; j <= b.n; j++)
                rows[0][j] = j;
        for (size_t i = 1; i <= a.n; i++) {
                size_t *now = rows[i % 3], *before = rows[(i + 2) % 3], *older = rows[(i + 1) % 3];

                now[0] = i;
                for (size_t j = 1; j <= b.n; j++) {
                        bool same = tolower((unsigned char)a.p[i - 1]) == tolower((unsigned char)b.p[j - 1]);

                        now[j] = MIN_OF(before[j] + 1, now[j - 1] + 1);
                        now[j] = MIN_OF(now[j], before[j - 1] + (same ? 0u : 1u));
                        if (i > 1 && j > 1 && a.p[i - 1] == b.p[j - 2] && a.p[i - 2] == b.p[j - 1])
                                now[j] = MIN_OF(now[j], older[j - 2] + 1);
                }
        }
        return rows[a.n % 3][b.n];
}

const char *nearest_name(struct str name, const char *const *candidates, size_t n)
{
        size_t best = MAX_OF((size_t)2, name.n / 3) + 1;
        const char *found = NULL;

        for (size_t i = 0; i < n; i++) {
                struct str candidate = str_of(candidates[i]);
                size_t d = distance(name, candidate, best);

                /* What has no letter in common is not near, however short it is. */
                if (d < best && d < MAX_OF(name.n, candidate.n)) {
                        best = d;
                        found = candidates[i];
                }
        }
        return found;
}

bool str_is_header_value(struct str s)
{
        for (size_t i = 0; i < s.n; i++) {
                unsigned char c = (unsigned char)s.p[i];

                if ((c < 0x20 && c != '\t') || c == 0x7f)
                        return false;
        }
        return s.n > 0 && !strchr(" \t", s.p[0]) && !strchr(" \t", s.p[s.n - 1]);
}
