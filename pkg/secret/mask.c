#include "secret/mask.h"

enum { SHORTEST = 4 };     /* a shorter value would match parts of ordinary text */
enum { ESCAPES_MOST = 8 }; /* backslashes before one character: JSON within JSON within JSON */

void mask_add(struct mask *m, struct str value)
{
        value = str_trim(value);
        if (value.n < SHORTEST)
                return;
        m->list[m->n++] = value;
        m->begins[(unsigned char)value.p[0]] = true;
}

/* Matches one character, however JSON escapes it. Returns the length of the match; 0: none. */
static size_t escaped_character(struct str words, char c)
{
        size_t n = 0;
        unsigned code = 0;

        while (n < words.n && n < ESCAPES_MOST && words.p[n] == '\\')
                n++;
        if (n < words.n && words.p[n] == c)
                return n + 1;
        if (n == 0 || words.n - n < 5 || words.p[n] != 'u')
                return 0;
        for (size_t i = n + 1; i < n + 5; i++) {
                if (hex_digit(words.p[i]) < 0)
                        return 0;
                code = code << 4 | (unsigned)hex_digit(words.p[i]);
        }
        return code == (unsigned char)c ? n + 5 : 0;
}

/* Matches the value itself or its JSON spelling, or the beginning of it at the end of words that were cut. */
static size_t stands_there(struct str rest, struct str value, bool cut)
{
        size_t n = MIN_OF(value.n, rest.n), taken = 0;

        if ((n == value.n || (cut && n >= SHORTEST)) && memcmp(rest.p, value.p, n) == 0)
                return n;
        for (size_t i = 0; i < value.n; i++) {
                struct str left = { rest.p + taken, rest.n - taken };
                size_t one;

                if (value.p[i] == '\\') /* it would be skipped as one of the escapes */
                        continue;
                if (cut && i >= SHORTEST && !left.n)
                        return taken;
                if (!(one = escaped_character(left, value.p[i])))
                        return 0;
                taken += one;
        }
        return taken;
}

static size_t longest(const struct mask *m, struct str rest, bool cut)
{
        size_t best = 0;

        if (!m->begins[(unsigned char)rest.p[0]] && rest.p[0] != '\\')
                return 0;
        for (size_t i = 0; i < m->n; i++)
                best = MAX_OF(best, stands_there(rest, m->list[i], cut));
        return best;
}

void mask_quote(const struct mask *m, struct str words, size_t most, bool cut, struct buf *out)
{
        for (struct str rest = words; rest.n && most; most--) {
                size_t n = longest(m, rest, cut);

                if (n)
                        buf_text(out, "***");
                else
                        buf_char(out, rest.p[0]);
                n = n ? n : 1;
                rest = (struct str){ rest.p + n, rest.n - n };
        }
}
