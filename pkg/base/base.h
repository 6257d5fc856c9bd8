/* Language helpers every module may use: attributes, cleanup by scope, views, sizes. Owns nothing; any
 * thread. */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF(text, first) __attribute__((__format__(__printf__, text, first)))
#define UNUSED __attribute__((unused))
#define CLEANUP(function) __attribute__((cleanup(function)))
#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
/* A row of a table, which the formatter keeps together. */
#define ROW(...)                                                                                             \
        {                                                                                                    \
                __VA_ARGS__                                                                                  \
        }
#define CONTAINER_OF(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* DEFINE_CLEANUP(struct x *, x_free) lets a local say CLEANUP(x_freep). */
#define DEFINE_CLEANUP(type, function)                                                                       \
        static inline void function##p(type *pointer)                                                        \
        {                                                                                                    \
                if (*pointer)                                                                                \
                        (void)function(*pointer);                                                            \
        }

static inline void cleanup_free(void *pointer) { free(*(void **)pointer); }
#define FREE_AT_END CLEANUP(cleanup_free)

/* Hands over what a scope-cleaned pointer owns. */
#define TAKE(pointer)                                                                                        \
        __extension__({                                                                                      \
                __typeof__(pointer) taken_ = (pointer);                                                      \
                (pointer) = NULL;                                                                            \
                taken_;                                                                                      \
        })

#define MIN_OF(a, b)                                                                                         \
        __extension__({                                                                                      \
                __typeof__(a) min_a_ = (a);                                                                  \
                __typeof__(b) min_b_ = (b);                                                                  \
                min_a_ < min_b_ ? min_a_ : min_b_;                                                           \
        })
#define MAX_OF(a, b)                                                                                         \
        __extension__({                                                                                      \
                __typeof__(a) max_a_ = (a);                                                                  \
                __typeof__(b) max_b_ = (b);                                                                  \
                max_a_ > max_b_ ? max_a_ : max_b_;                                                           \
        })

/* The one unit of time: microseconds. Monotonic unless a comment says wall clock (since 1970, UTC). */
typedef int64_t usec;
#define USEC_MSEC ((usec)1000)
#define USEC_SEC ((usec)1000000)
#define USEC_MINUTE (60 * USEC_SEC)
#define USEC_HOUR (60 * USEC_MINUTE)
#define USEC_DAY (24 * USEC_HOUR)
#define USEC_NEVER INT64_MAX

/* A borrowed view of bytes; not terminated. */
struct str {
        const char *p;
        size_t n;
};

#define STR(literal) ((struct str){ "" literal, sizeof(literal) - 1 })
#define STR_FMT "%.*s"
#define STR_ARG(s) (int)(s).n, (s).p

static inline struct str str_of(const char *text) { return (struct str){ text, text ? strlen(text) : 0 }; }
static inline bool str_equal(struct str a, struct str b)
{
        return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}
static inline bool str_is(struct str a, const char *text) { return str_equal(a, str_of(text)); }
bool str_starts(struct str s, struct str prefix);
bool str_equal_nocase(struct str a, struct str b);
struct str str_trim(struct str s); /* without ASCII white space at both ends */
/* Cuts s at the first c: returns what stands before, leaves the rest after it in *s; without a c, all of it.
 */
struct str str_cut(struct str *s, char c);
/* A terminated heap copy, NULL when memory is out. */
char *str_dup(struct str s) MUST_CHECK;
static inline bool string_equal(const char *a, const char *b)
{
        return a == b || (a && b && strcmp(a, b) == 0);
}

/* Parses a whole decimal; false when it is anything else or out of range. */
bool str_to_int64(struct str s, int64_t *out) MUST_CHECK;
bool str_is_utf8(struct str s);
/* Makes one line of a text for people: what would end it, steer a terminal or turn the direction of writing
 * becomes a space each. What others say, such as a function, may hold all of that. */
void text_plain(char *text);
/* The start of a text, at most that many bytes, cut between characters: for messages. */
struct str text_clip(struct str, size_t most);
/* The way in for what others say: formatted, cut between characters and made plain. Each text that quotes a
 * peer is made by it once, where the peer's words come in; from there on it is copied. */
void text_print(char *to, size_t size, const char *format, ...) PRINTF(3, 4);
void text_vprint(char *to, size_t size, const char *format, va_list) PRINTF(3, 0);
/* Copies a text, cut between characters, so that it stays plain, and terminates it. Returns its length. */
size_t str_copy(char *to, size_t size, struct str text);
static inline size_t text_copy(char *to, size_t size, const char *text)
{
        return str_copy(to, size, str_of(text));
}
/* UTF-8 without control characters but tab, line feed and carriage return */
bool str_is_text(struct str s);
/* May it stand as the value of an HTTP header (RFC 9110, 5.5): visible characters, spaces, tabs and bytes
 * above 127; neither empty nor padded? */
bool str_is_header_value(struct str s);
/* the length of the well-formed sequence at p (RFC 3629), 0: there is none */
size_t utf8_sequence(const char *p, size_t n);

/* The value of a hexadecimal digit; -1: none. */
static inline int hex_digit(char c)
{
        return c >= '0' && c <= '9'   ? c - '0'
               : c >= 'a' && c <= 'f' ? c - 'a' + 10
               : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                      : -1;
}

/* Of the candidates the one that a mistyped name most likely meant; NULL when none is near. */
const char *nearest_name(struct str name, const char *const *candidates, size_t n);
