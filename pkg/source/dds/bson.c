#include "source/dds/bson.h"

#include <math.h>
#include <stdio.h>

enum { OBJECT_ID = 12, DECIMAL = 16 };

uint32_t bson_uint32(const char *p)
{
        const unsigned char *b = (const unsigned char *)p;

        return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

uint64_t bson_uint64(const char *p) { return bson_uint32(p) | (uint64_t)bson_uint32(p + 4) << 32; }

/* ---- walking ------------------------------------------------------------ */

/* The length of a document at p, with at most so many bytes; 0: there is none. */
static size_t document_size(const char *p, size_t most)
{
        uint32_t n;

        if (most < BSON_EMPTY)
                return 0;
        n = bson_uint32(p);
        return n >= BSON_EMPTY && n <= most && p[n - 1] == 0 ? n : 0;
}

bool bson_walk(struct bson_walk *w, struct str document)
{
        if (document_size(document.p, document.n) != document.n || !document.n)
                return false;
        *w = (struct bson_walk){ .p = document.p + 4, .end = document.p + document.n - 1 };
        return true;
}

/* A string with its length and its end; 0: there is none. */
static size_t string_size(const char *p, size_t most)
{
        uint32_t n;

        if (most < 5)
                return 0;
        n = bson_uint32(p);
        return n >= 1 && n <= most - 4 && p[4 + n - 1] == 0 ? 4 + (size_t)n : 0;
}

/* A name up to its NUL, and with it; 0: there is none. */
static size_t name_size(const char *p, size_t most)
{
        const char *end = most ? memchr(p, 0, most) : NULL;

        return end ? (size_t)(end - p) + 1 : 0;
}

static size_t regex_size(const char *p, size_t most)
{
        size_t pattern = name_size(p, most), options = pattern ? name_size(p + pattern, most - pattern) : 0;

        return options ? pattern + options : 0;
}

static size_t binary_size(const char *p, size_t most)
{
        uint32_t n;

        if (most < 5)
                return 0;
        n = bson_uint32(p);
        return n <= most - 5 ? 5 + (size_t)n : 0;
}

static size_t pointer_size(const char *p, size_t most)
{
        size_t n = string_size(p, most);

        return n && most - n >= OBJECT_ID ? n + OBJECT_ID : 0;
}

/* Its length, a string, a document. */
static size_t scoped_size(const char *p, size_t most)
{
        size_t n, code;

        if (most < 4 + 5 + BSON_EMPTY)
                return 0;
        n = bson_uint32(p);
        if (n > most || n < 4 + 5 + BSON_EMPTY)
                return 0;
        code = string_size(p + 4, n - 4);
        return code && document_size(p + 4 + code, n - 4 - code) == n - 4 - code ? n : 0;
}

static size_t fixed(size_t n, size_t most) { return n <= most ? n : 0; }

/* Of the value of a type that has one; 0: there is none. */
static size_t value_size(enum bson_type type, const char *p, size_t most)
{
        switch (type) {
        case BSON_DOUBLE:
        case BSON_DATE:
        case BSON_TIMESTAMP:
        case BSON_INT64: return fixed(8, most);
        case BSON_STRING:
        case BSON_CODE:
        case BSON_SYMBOL: return string_size(p, most);
        case BSON_DOCUMENT:
        case BSON_ARRAY: return document_size(p, most);
        case BSON_BINARY: return binary_size(p, most);
        case BSON_OBJECT_ID: return fixed(OBJECT_ID, most);
        case BSON_BOOL: return fixed(1, most);
        case BSON_REGEX: return regex_size(p, most);
        case BSON_POINTER: return pointer_size(p, most);
        case BSON_CODE_WITH_SCOPE: return scoped_size(p, most);
        case BSON_INT32: return fixed(4, most);
        case BSON_DECIMAL128: return fixed(DECIMAL, most);
        case BSON_UNDEFINED:
        case BSON_NULL:
        case BSON_MAX_KEY:
        case BSON_MIN_KEY: break;
        }
        return 0;
}

static bool is_type(unsigned char c)
{
        return (c >= BSON_DOUBLE && c <= BSON_DECIMAL128) || c == BSON_MAX_KEY || c == BSON_MIN_KEY;
}

static bool has_value(enum bson_type type)
{
        return type != BSON_UNDEFINED && type != BSON_NULL && type != BSON_MAX_KEY && type != BSON_MIN_KEY;
}

static bool no_bson(struct bson_walk *w)
{
        w->failed = true;
        return false;
}

bool bson_next(struct bson_walk *w, struct bson_element *e)
{
        size_t name, value = 0;

        if (w->failed || w->p == w->end)
                return false;
        if (!is_type((unsigned char)*w->p))
                return no_bson(w);
        e->type = (enum bson_type)(unsigned char)*w->p++;
        if (!(name = name_size(w->p, (size_t)(w->end - w->p))))
                return no_bson(w);
        e->name = (struct str){ w->p, name - 1 };
        w->p += name;
        if (has_value(e->type) && !(value = value_size(e->type, w->p, (size_t)(w->end - w->p))))
                return no_bson(w);
        e->value = (struct str){ w->p, value };
        w->p += value;
        return true;
}

/* ---- numbers ------------------------------------------------------------ */

void bson_double_text(double d, char out[BSON_DOUBLE_TEXT])
{
        if (isnan(d) || isinf(d)) {
                (void)snprintf(out, BSON_DOUBLE_TEXT, "%s",
                               isnan(d) ? "NaN"
                               : d > 0  ? "Infinity"
                                        : "-Infinity");
                return;
        }
        for (int digits = 15; digits <= 17; digits++) {
                (void)snprintf(out, BSON_DOUBLE_TEXT, "%.*g", digits, d);
                if (strtod(out, NULL) == d)
                        break;
        }
        if (!strpbrk(out, ".e"))
                (void)snprintf(out + strlen(out), 3, ".0");
}

__extension__ typedef unsigned __int128 uint128;

/* The digits of a number below 10^34. */
static size_t digits_of(uint128 n, char out[40])
{
        char reversed[40];
        size_t count = 0;

        do {
                reversed[count++] = (char)('0' + (int)(n % 10));
                n /= 10;
        } while (n);
        for (size_t i = 0; i < count; i++)
                out[i] = reversed[count - 1 - i];
        out[count] = 0;
        return count;
}

/* As the specification of the type has it: with an exponent where the number has one above 0, or is small. */
static void decimal_layout(const char *digits, size_t n, int exponent, struct buf *out)
{
        int first = exponent + (int)n - 1; /* the exponent of the first digit */

        if (exponent > 0 || first < -6) {
                buf_char(out, digits[0]);
                if (n > 1) {
                        buf_char(out, '.');
                        buf_text(out, digits + 1);
                }
                buf_printf(out, "E%+d", first);
                return;
        }
        if (exponent == 0) {
                buf_text(out, digits);
                return;
        }
        if (first < 0) {
                buf_text(out, "0.");
                for (int i = -1; i > first; i--)
                        buf_char(out, '0');
                buf_text(out, digits);
                return;
        }
        buf_add(out, digits, (size_t)first + 1);
        buf_char(out, '.');
        buf_text(out, digits + first + 1);
}

void bson_decimal_text(uint64_t high, uint64_t low, char text[BSON_DECIMAL_TEXT])
{
        static const uint64_t BEYOND_HIGH = 0x1ed09bead87c0, BEYOND_LOW = 0x378d8e6400000000; /* 10^34 */
        const uint128 beyond = (uint128)BEYOND_HIGH << 64 | BEYOND_LOW;
        unsigned kind = (unsigned)(high >> 58 & 0x1f);
        bool wide = kind >> 3 == 3;
        uint64_t top = wide ? 8 + (high >> 49 & 1) : high >> 46 & 7;
        uint128 number = (uint128)(top << 46 | (high & 0x3fffffffffff)) << 64 | low;
        struct buf out = { .p = text, .cap = BSON_DECIMAL_TEXT, .max = BSON_DECIMAL_TEXT - 1 };
        char digits[40];

        if (kind == 0x1f) {
                buf_text(&out, "NaN");
                return;
        }
        if (high >> 63)
                buf_char(&out, '-');
        if (kind == 0x1e) {
                buf_text(&out, "Infinity");
                return;
        }
        if (number >= beyond) /* no number: it counts as 0 */
                number = 0;
        decimal_layout(digits, digits_of(number, digits), (int)(high >> (wide ? 47 : 49) & 0x3fff) - 6176,
                       &out);
}

/* ---- writing ------------------------------------------------------------ */

struct str bson_text(const struct bson_element *e) { return (struct str){ e->value.p + 4, e->value.n - 5 }; }

static void member(struct writer *w, const char *key, struct str text)
{
        writer_key(w, str_of(key));
        writer_string(w, text);
}

/* {"key": "text"} */
static void wrapped(struct writer *w, const char *key, struct str text)
{
        writer_object(w);
        member(w, key, text);
        writer_object_end(w);
}

static void write_number(struct writer *w, const char *key, int64_t n)
{
        char text[24];

        (void)snprintf(text, sizeof(text), "%lld", (long long)n);
        wrapped(w, key, str_of(text));
}

static void write_double(struct writer *w, const char *p)
{
        char text[BSON_DOUBLE_TEXT];
        uint64_t bits = bson_uint64(p);
        double d;

        memcpy(&d, &bits, sizeof(d));
        bson_double_text(d, text);
        wrapped(w, "$numberDouble", str_of(text));
}

static void write_decimal(struct writer *w, const char *p)
{
        char text[BSON_DECIMAL_TEXT];

        bson_decimal_text(bson_uint64(p + 8), bson_uint64(p), text);
        wrapped(w, "$numberDecimal", str_of(text));
}

static void write_object_id(struct writer *w, const char *p)
{
        char text[2 * OBJECT_ID + 1];

        hex_text((const unsigned char *)p, OBJECT_ID, text);
        wrapped(w, "$oid", str_of(text));
}

static void write_date(struct writer *w, const char *p)
{
        writer_object(w);
        writer_key(w, STR("$date"));
        write_number(w, "$numberLong", (int64_t)bson_uint64(p));
        writer_object_end(w);
}

static void write_timestamp(struct writer *w, const char *p)
{
        writer_object(w);
        writer_key(w, STR("$timestamp"));
        writer_object(w);
        writer_member_int(w, "t", bson_uint32(p + 4));
        writer_member_int(w, "i", bson_uint32(p));
        writer_object_end(w);
        writer_object_end(w);
}

/* Of the old subtype 2 the bytes have their length before them once more. */
static void write_binary(struct writer *w, struct str v)
{
        unsigned char subtype = (unsigned char)v.p[4];
        struct str bytes = { v.p + 5, v.n - 5 };
        char text[3];

        if (subtype == 2 && bytes.n >= 4 && bson_uint32(bytes.p) == bytes.n - 4)
                bytes = (struct str){ bytes.p + 4, bytes.n - 4 };
        hex_text(&subtype, 1, text);
        writer_object(w);
        writer_key(w, STR("$binary"));
        writer_object(w);
        writer_key(w, STR("base64"));
        writer_base64(w, bytes);
        member(w, "subType", str_of(text));
        writer_object_end(w);
        writer_object_end(w);
}

static void write_regex(struct writer *w, struct str v)
{
        struct str pattern = { v.p, strlen(v.p) };

        writer_object(w);
        writer_key(w, STR("$regularExpression"));
        writer_object(w);
        member(w, "pattern", pattern);
        member(w, "options", (struct str){ v.p + pattern.n + 1, v.n - pattern.n - 2 });
        writer_object_end(w);
        writer_object_end(w);
}

static void write_pointer(struct writer *w, struct str v)
{
        size_t n = v.n - OBJECT_ID;

        writer_object(w);
        writer_key(w, STR("$dbPointer"));
        writer_object(w);
        member(w, "$ref", (struct str){ v.p + 4, n - 5 });
        writer_key(w, STR("$id"));
        write_object_id(w, v.p + n);
        writer_object_end(w);
        writer_object_end(w);
}

static bool write_value(const struct bson_element *, struct writer *, unsigned depth);

static bool write_members(struct str document, bool list, struct writer *w, unsigned depth)
{
        struct bson_element e;
        struct bson_walk walk;
        bool well;

        if (depth == BSON_DEPTH_MOST || !bson_walk(&walk, document))
                return false;
        if (list)
                writer_array(w);
        else
                writer_object(w);
        for (well = true; well && bson_next(&walk, &e);) {
                if (!list)
                        writer_key(w, e.name);
                well = write_value(&e, w, depth + 1);
        }
        if (!well || walk.failed)
                return false;
        if (list)
                writer_array_end(w);
        else
                writer_object_end(w);
        return true;
}

static bool write_scoped(struct writer *w, struct str v, unsigned depth)
{
        size_t code = 4 + (size_t)bson_uint32(v.p + 4);
        struct str scope = { v.p + 4 + code, v.n - 4 - code };

        writer_object(w);
        member(w, "$code", (struct str){ v.p + 8, code - 5 });
        writer_key(w, STR("$scope"));
        if (!write_members(scope, false, w, depth))
                return false;
        writer_object_end(w);
        return true;
}

static void write_undefined(struct writer *w)
{
        writer_object(w);
        writer_member_bool(w, "$undefined", true);
        writer_object_end(w);
}

static void write_extreme(struct writer *w, const char *key)
{
        writer_object(w);
        writer_key(w, str_of(key));
        writer_int(w, 1);
        writer_object_end(w);
}

static bool write_value(const struct bson_element *e, struct writer *w, unsigned depth)
{
        switch (e->type) {
        case BSON_DOUBLE: write_double(w, e->value.p); break;
        case BSON_STRING: writer_string(w, bson_text(e)); break;
        case BSON_DOCUMENT:
        case BSON_ARRAY: return write_members(e->value, e->type == BSON_ARRAY, w, depth);
        case BSON_BINARY: write_binary(w, e->value); break;
        case BSON_UNDEFINED: write_undefined(w); break;
        case BSON_OBJECT_ID: write_object_id(w, e->value.p); break;
        case BSON_BOOL: writer_bool(w, *e->value.p != 0); break;
        case BSON_DATE: write_date(w, e->value.p); break;
        case BSON_NULL: writer_null(w); break;
        case BSON_REGEX: write_regex(w, e->value); break;
        case BSON_POINTER: write_pointer(w, e->value); break;
        case BSON_CODE: wrapped(w, "$code", bson_text(e)); break;
        case BSON_SYMBOL: wrapped(w, "$symbol", bson_text(e)); break;
        case BSON_CODE_WITH_SCOPE: return write_scoped(w, e->value, depth);
        case BSON_INT32: write_number(w, "$numberInt", (int32_t)bson_uint32(e->value.p)); break;
        case BSON_TIMESTAMP: write_timestamp(w, e->value.p); break;
        case BSON_INT64: write_number(w, "$numberLong", (int64_t)bson_uint64(e->value.p)); break;
        case BSON_DECIMAL128: write_decimal(w, e->value.p); break;
        case BSON_MAX_KEY: write_extreme(w, "$maxKey"); break;
        case BSON_MIN_KEY: write_extreme(w, "$minKey"); break;
        }
        return true;
}

bool bson_write(const struct bson_element *e, struct writer *w) { return write_value(e, w, 0); }
bool bson_write_document(struct str document, struct writer *w)
{
        return write_members(document, false, w, 0);
}
