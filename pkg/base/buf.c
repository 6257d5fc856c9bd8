#include "base/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/file.h"

static const char HEX_DIGITS[] = "0123456789abcdef";

void buf_done(struct buf *b)
{
        free(b->p);
        b->p = NULL;
        b->n = b->cap = 0;
        b->failed = b->full = false;
}

bool buf_reserve(struct buf *b, size_t more)
{
        size_t max = b->max ? b->max : BUF_DEFAULT_MAX, cap;
        char *p;

        if (b->failed)
                return false;
        if (more < b->cap - b->n) /* one byte is kept for the terminator; cap 0: never true */
                return true;
        if (more > max - MIN_OF(b->n, max)) {
                b->failed = b->full = true;
                return false;
        }
        cap = MAX_OF(b->cap * 2, (size_t)64);
        cap = MAX_OF(MIN_OF(cap, max + 1), b->n + more + 1);
        p = realloc(b->p, cap);
        if (!p) {
                b->failed = true;
                return false;
        }
        b->p = p;
        b->cap = cap;
        return true;
}

void buf_add(struct buf *b, const void *p, size_t n)
{
        if (!buf_reserve(b, n))
                return;
        if (n)
                memcpy(b->p + b->n, p, n);
        b->n += n;
        b->p[b->n] = 0;
}

void buf_hex(struct buf *b, uint64_t value, unsigned digits)
{
        if (!buf_reserve(b, digits))
                return;
        for (unsigned i = digits; i > 0; i--, value >>= 4)
                b->p[b->n + i - 1] = HEX_DIGITS[value & 15];
        b->n += digits;
        b->p[b->n] = 0;
}

void hex_text(const unsigned char *bytes, size_t n, char *out)
{
        for (size_t i = 0; i < n; i++) {
                *out++ = HEX_DIGITS[bytes[i] >> 4];
                *out++ = HEX_DIGITS[bytes[i] & 15];
        }
        *out = 0;
}

void uuid_text(const unsigned char bytes[16], char out[37])
{
        static const unsigned char groups[] = { 4, 2, 2, 2, 6 };

        for (size_t i = 0, from = 0; i < COUNT_OF(groups); from += groups[i++]) {
                hex_text(bytes + from, groups[i], out);
                out += 2 * groups[i];
                *out++ = i + 1 < COUNT_OF(groups) ? '-' : 0;
        }
}

void buf_int(struct buf *b, int64_t value)
{
        char digits[24];
        size_t at = sizeof(digits);
        uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;

        do {
                digits[--at] = (char)('0' + rest % 10);
                rest /= 10;
        } while (rest);
        if (value < 0)
                digits[--at] = '-';
        buf_add(b, digits + at, sizeof(digits) - at);
}

/* Into the room there is; only a text that is too long for it is formatted twice. */
void buf_vprintf(struct buf *b, const char *format, va_list args)
{
        size_t room = b->failed ? 0 : b->cap - b->n;
        va_list again;
        int n;

        va_copy(again, args);
        n = vsnprintf(room ? b->p + b->n : NULL, room, format, args);
        if (n < 0)
                b->failed = true;
        else if ((size_t)n < room)
                b->n += (size_t)n;
        else if (buf_reserve(b, (size_t)n)) {
                (void)vsnprintf(b->p + b->n, (size_t)n + 1, format, again);
                b->n += (size_t)n;
        } else if (room)
                b->p[b->n] = 0;
        va_end(again);
}

void buf_printf(struct buf *b, const char *format, ...)
{
        va_list args;

        va_start(args, format);
        buf_vprintf(b, format, args);
        va_end(args);
}

void buf_percent(struct buf *b, struct str s, const char *keep)
{
        for (size_t i = 0; i < s.n; i++) {
                char c = s.p[i];

                if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                    (c && strchr(keep, c)))
                        buf_char(b, c);
                else
                        buf_printf(b, "%%%02X", (unsigned char)c);
        }
}

void buf_unpercent(struct buf *b, struct str s, bool plus)
{
        for (size_t i = 0; i < s.n; i++) {
                int high = i + 2 < s.n ? hex_digit(s.p[i + 1]) : -1,
                    low = i + 2 < s.n ? hex_digit(s.p[i + 2]) : -1;

                if (s.p[i] == '%' && high >= 0 && low >= 0) {
                        buf_char(b, (char)(high << 4 | low));
                        i += 2;
                } else
                        buf_char(b, plus && s.p[i] == '+' ? ' ' : s.p[i]);
        }
}

void buf_utf8(struct buf *b, struct str s)
{
        for (size_t i = 0, length; i < s.n; i += length) {
                length = utf8_sequence(s.p + i, s.n - i);
                if (length)
                        buf_add(b, s.p + i, length);
                else
                        buf_str(b, STR("\xef\xbf\xbd"));
                length = length ? length : 1;
        }
}

void buf_base64(struct buf *b, struct str s)
{
        static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        const unsigned char *in = (const unsigned char *)s.p;
        size_t whole = s.n / 3, rest = s.n % 3;
        char *out;

        if (!buf_reserve(b, (whole + (rest != 0)) * 4))
                return;
        out = b->p + b->n;
        for (size_t i = 0; i < whole; i++, in += 3, out += 4) {
                uint32_t v = (uint32_t)in[0] << 16 | (uint32_t)in[1] << 8 | in[2];

                out[0] = alphabet[v >> 18];
                out[1] = alphabet[v >> 12 & 63];
                out[2] = alphabet[v >> 6 & 63];
                out[3] = alphabet[v & 63];
        }
        if (rest) {
                uint32_t v = (uint32_t)in[0] << 16 | (rest == 2 ? (uint32_t)in[1] << 8 : 0);

                *out++ = alphabet[v >> 18];
                *out++ = alphabet[v >> 12 & 63];
                *out++ = rest == 2 ? alphabet[v >> 6 & 63] : '=';
                *out++ = '=';
        }
        b->n = (size_t)(out - b->p);
        b->p[b->n] = 0;
}

/* The value of each character; -1: it is none of the alphabet. */
/* clang-format off */
static const signed char base64_values[256] = {
        -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
        -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
        -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 62, -1, -1, -1, 63,
        52, 53, 54, 55, 56, 57, 58, 59, 60, 61, -1, -1, -1, -1, -1, -1,
        -1,  0,  1,  2,  3,  4,  5,  6,  7,  8,  9, 10, 11, 12, 13, 14,
        15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, -1, -1, -1, -1, -1,
        -1, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40,
        41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, -1, -1, -1, -1, -1,
        -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
        -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
        -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
        -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
        -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
        -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
        -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
        -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
};
/* clang-format on */

/* Four characters; the highest bit is set when one of them is none. */
static uint32_t base64_four(const unsigned char *in)
{
        const signed char *v = base64_values;

        return (uint32_t)v[in[0]] << 18 | (uint32_t)v[in[1]] << 12 | (uint32_t)v[in[2]] << 6 |
               (uint32_t)v[in[3]];
}

size_t base64_bytes(struct str s)
{
        if (s.n % 4 || !s.n)
                return 0;
        return s.n / 4 * 3 - (s.p[s.n - 1] != '=' ? 0 : s.p[s.n - 2] != '=' ? 1 : 2);
}

bool base64_decode(struct str s, char *out)
{
        const unsigned char *in = (const unsigned char *)s.p;
        uint32_t v, wrong = 0;
        unsigned char last[4];
        size_t rest = base64_bytes(s);

        if (!rest)
                return s.n == 0;
        for (; rest > 3; in += 4, out += 3, rest -= 3) {
                wrong |= v = base64_four(in);
                out[0] = (char)(v >> 16);
                out[1] = (char)(v >> 8);
                out[2] = (char)v;
        }
        for (size_t i = 0; i < 4; i++) /* what is padded */
                last[i] = i > rest ? 'A' : in[i];
        wrong |= v = base64_four(last);
        for (size_t i = 0; i < rest; i++)
                out[i] = (char)(v >> (16 - 8 * i));
        return wrong >> 31 == 0;
}

bool buf_unbase64(struct buf *b, struct str s)
{
        size_t n = base64_bytes(s);

        if (!buf_reserve(b, n))
                return false;
        if (!base64_decode(s, b->p + b->n)) {
                b->p[b->n] = 0;
                return false;
        }
        b->n += n;
        b->p[b->n] = 0;
        return true;
}

void buf_drop(struct buf *b, size_t from_start)
{
        size_t n = MIN_OF(from_start, b->n);

        if (n == 0)
                return;
        memmove(b->p, b->p + n, b->n - n + 1);
        b->n -= n;
}

char *buf_take(struct buf *b)
{
        char *p;

        buf_add(b, "", 0); /* a terminator even when nothing was appended */
        if (b->failed) {
                buf_done(b);
                return NULL;
        }
        p = b->p;
        b->p = NULL;
        b->n = b->cap = 0;
        return p;
}

/* Takes the descriptor. */
static int read_all(struct buf *b, int fd, const char *path, struct error *err)
{
        size_t max = b->max ? b->max : BUF_DEFAULT_MAX;
        ssize_t n;

        do {
                size_t left = max - MIN_OF(b->n, max);
                char beyond;

                if (!buf_reserve(b, MIN_OF(left, (size_t)16384))) {
                        (void)close(fd);
                        return error_memory(err);
                }
                /* A file as large as the maximum is fine: whether there is more shows beyond it. */
                n = left ? read(fd, b->p + b->n, b->cap - b->n - 1) : read(fd, &beyond, 1);
                if (n > 0 && !left) {
                        b->failed = b->full = true;
                        (void)close(fd);
                        return error_set(err, ERROR_INVALID, "read %s: larger than %zu bytes", path, max);
                }
                if (n > 0)
                        b->n += (size_t)n;
        } while (n > 0 || (n < 0 && errno == EINTR));
        if (b->p)
                b->p[b->n] = 0;
        if (n < 0) {
                (void)error_errno(err, errno, "read %s", path);
                (void)close(fd);
                return -1;
        }
        (void)close(fd);
        return 0;
}

int buf_read_file(struct buf *b, const char *path, struct error *err)
{
        int fd = file_open(path, O_RDONLY, err);

        return fd < 0 ? -1 : read_all(b, fd, path, err);
}

int buf_read_stream(struct buf *b, const char *path, struct error *err)
{
        int fd = open(path, O_RDONLY | O_CLOEXEC);

        return fd < 0 ? error_errno(err, errno, "open %s", path) : read_all(b, fd, path, err);
}
