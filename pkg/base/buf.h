/* A growing byte buffer with a maximum set at creation. Failure (out of memory, over the maximum) sticks:
 * append as you like and check buf.failed once at the end. The text is kept terminated. Owned by the caller;
 * one thread at a time. */
#pragma once

#include <stdarg.h>

#include "base/base.h"
#include "base/error.h"

struct buf {
        char *p; /* NULL until the first append; p[n] is 0 */
        size_t n, cap, max;
        bool failed;
        bool full; /* it failed because of its maximum: the same would fail again, however much memory there
                      is */
};

#define BUF_INIT(maximum) ((struct buf){ .max = (maximum) })
/* In an array of the caller's: never grows, so that no memory can be lacking. It is not freed. */
#define BUF_ON(array) ((struct buf){ .p = (array), .cap = sizeof(array), .max = sizeof(array) - 1 })
#define BUF_DEFAULT_MAX ((size_t)64 << 20)

void buf_done(struct buf *); /* frees; the buffer may be used again */
static inline void buf_reset(struct buf *b)
{
        b->n = 0;
        b->failed = b->full = false;
}
/* Fails as the other one did, if it did: what was to be made of it is not whole. */
static inline void buf_fail_as(struct buf *b, const struct buf *other)
{
        if (!other->failed)
                return;
        b->full = b->full || (!b->failed && other->full);
        b->failed = true;
}
bool buf_reserve(struct buf *, size_t more); /* room for more bytes behind n; false once failed */
void buf_add(struct buf *, const void *, size_t);
static inline void buf_str(struct buf *b, struct str s) { buf_add(b, s.p, s.n); }
static inline void buf_text(struct buf *b, const char *text) { buf_add(b, text, strlen(text)); }
static inline void buf_char(struct buf *b, char c)
{
        if (b->failed || b->cap - b->n < 2) {
                buf_add(b, &c, 1);
                return;
        }
        b->p[b->n++] = c;
        b->p[b->n] = 0;
}
void buf_int(struct buf *, int64_t);
/* The lowest so many hexadecimal digits, in lower case. */
void buf_hex(struct buf *, uint64_t value, unsigned digits);
/* n bytes as 2n digits, and as a UUID (of 16); both end in NUL. */
void hex_text(const unsigned char *, size_t n, char *out);
void uuid_text(const unsigned char[16], char out[37]);
void buf_printf(struct buf *, const char *format, ...) PRINTF(2, 3);
void buf_vprintf(struct buf *, const char *format, va_list) PRINTF(2, 0);
/* Percent-encodes all but letters, digits and the characters of keep. */
void buf_percent(struct buf *, struct str, const char *keep);
/* The other way round; what is no escape stays as it is. plus: a + is a space, as in forms. */
void buf_unpercent(struct buf *, struct str, bool plus);
/* Each byte that is part of no character of UTF-8 becomes U+FFFD. */
void buf_utf8(struct buf *, struct str);
void buf_base64(struct buf *, struct str);
/* false when the text is not Base64 (padding demanded), or there is no room: nothing is appended. */
bool buf_unbase64(struct buf *, struct str) MUST_CHECK;
/* How many bytes a text is, if it is Base64. */
size_t base64_bytes(struct str);
/* Into base64_bytes bytes; false: it is none, and they hold anything. */
bool base64_decode(struct str, char *out) MUST_CHECK;
void buf_drop(struct buf *, size_t from_start); /* removes bytes at the start */
static inline struct str buf_view(const struct buf *b) { return (struct str){ b->p ? b->p : "", b->n }; }
/* hands the terminated text over; NULL when failed; the buffer is empty then */
char *buf_take(struct buf *) MUST_CHECK;
/* a regular file, and no more than may be held: nothing that blocks or has no end */
int buf_read_file(struct buf *, const char *path, struct error *) MUST_CHECK;
/* whatever a user names: it is waited for */
int buf_read_stream(struct buf *, const char *path, struct error *) MUST_CHECK;

static inline void cleanup_buf(struct buf *b) { buf_done(b); }
#define BUF_AT_END CLEANUP(cleanup_buf)
