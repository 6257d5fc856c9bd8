#include "filter/value.h"

#include <float.h>
#include <math.h>
#include <stdio.h>

#include "json/scan.h"

/* ---- numbers */

enum { DIGITS_MAX = 17, EXPONENT_MAX = 2000000000 };
enum { STEP_BYTES = 16 }; /* that are looked through in the time of a step */

/* digits * 10^exponent, without zeros at the end of digits; n: how many digits. */
struct decimal {
        bool negative;
        uint64_t digits;
        int n;
        int64_t exponent;
};

static bool decimal_digit(struct decimal *d, int64_t *zeros, int digit)
{
        if (digit == 0) {
                *zeros += d->n > 0;
                return true;
        }
        if (d->n + *zeros + 1 > DIGITS_MAX)
                return false;
        for (; *zeros >= 0; (*zeros)--, d->n++)
                d->digits *= 10;
        *zeros = 0;
        d->digits += (unsigned)digit;
        return true;
}

static bool exponent_of(const char *p, const char *end, int64_t *out)
{
        bool negative = *p == '-';
        int64_t n = 0;

        for (p += *p == '-' || *p == '+'; p < end; p++) {
                n = n * 10 + (*p - '0');
                if (n > EXPONENT_MAX)
                        return false;
        }
        *out = negative ? -n : n;
        return true;
}

/* false: more digits, or a larger exponent, than any double has. */
static bool decimal_of(struct str text, struct decimal *d)
{
        const char *p = text.p, *end = text.p + text.n;
        int64_t zeros = 0, exponent = 0, fraction = 0;
        bool point = false;

        *d = (struct decimal){ .negative = *p == '-' };
        for (p += d->negative; p < end && *p != 'e' && *p != 'E'; p++) {
                if (*p == '.') {
                        point = true;
                        continue;
                }
                fraction += point;
                if (!decimal_digit(d, &zeros, *p - '0'))
                        return false;
        }
        if (p < end && !exponent_of(p + 1, end, &exponent))
                return false;
        d->exponent = d->n ? exponent - fraction + zeros : 0;
        return true;
}

/* Does the shortest text that means this double say the same as d? (As in Java, a text has two digits at
 * least: 4.9e-324.) */
static bool is_shortest(const struct decimal *d, double value)
{
        char text[40];
        struct decimal shortest;
        int least = fabs(value) < 1e-290 ? 2 : 15;

        for (int n = least; n <= DIGITS_MAX; n++) {
                int length = snprintf(text, sizeof(text), "%.*e", n - 1, value);

                if (n == DIGITS_MAX || strtod(text, NULL) == value)
                        return decimal_of((struct str){ text, (size_t)length }, &shortest) &&
                               shortest.digits == d->digits && shortest.exponent == d->exponent;
        }
        return false;
}

struct number number_of(struct str text)
{
        static const double powers[] = { 1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                         1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                         1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22 };
        struct decimal d;
        double value;
        char copy[64];

        if (!decimal_of(text, &d))
                return (struct number){ 0 };
        if (d.n == 0)
                return (struct number){ true, 0 };
        /* both are exact, so the result is the nearest double */
        if (d.n <= 15 && d.exponent >= -22 && d.exponent <= 22) {
                value = d.exponent < 0 ? (double)d.digits / powers[-d.exponent]
                                       : (double)d.digits * powers[d.exponent];
                return (struct number){ true, d.negative ? -value : value };
        }
        if (d.exponent > 400 || d.exponent < -400)
                return (struct number){ 0 };
        (void)snprintf(copy, sizeof(copy), "%llue%d", (unsigned long long)d.digits, (int)d.exponent);
        value = strtod(copy, NULL);
        if (value == 0 || isinf(value) || !((d.n <= 15 && value > 1e-290) || is_shortest(&d, value)))
                return (struct number){ 0 };
        return (struct number){ true, d.negative ? -value : value };
}

/* ---- addresses: what java.net.InetAddress reads, of the texts that hold digits and dots, or hexadecimal digits and colons */

static bool address_v4(struct str text, unsigned char *out)
{
        unsigned part = 0, n = 0;
        bool digit = false;

        if (text.n > 15)
                return false;
        for (size_t i = 0; i <= text.n; i++) {
                char c = i < text.n ? text.p[i] : '.';

                if (c >= '0' && c <= '9') {
                        part = part * 10 + (unsigned)(c - '0');
                        digit = true;
                        if (part > 255)
                                return false;
                } else if (c != '.' || !digit || n == 4)
                        return false;
                else {
                        out[n++] = (unsigned char)part;
                        part = 0;
                        digit = false;
                }
        }
        return n == 4;
}

static bool address_v6(struct str text, unsigned char *out)
{
        unsigned n = 0, part = 0, gap = 16;
        bool digit = false;
        size_t i = 0;

        memset(out, 0, 16);
        if (text.n < 2 || (text.p[0] == ':' && text.p[1] != ':'))
                return false;
        for (i = text.p[0] == ':'; i < text.n; i++) {
                if (text.p[i] != ':') {
                        int h = hex_digit(text.p[i]);

                        if (h < 0)
                                return false;
                        part = part << 4 | (unsigned)h;
                        digit = true;
                        if (part > 0xffff)
                                return false;
                        continue;
                }
                if (!digit) {
                        if (gap != 16)
                                return false;
                        gap = n;
                        continue;
                }
                if (i + 1 == text.n || n == 16)
                        return false;
                out[n++] = (unsigned char)(part >> 8), out[n++] = (unsigned char)part;
                digit = false, part = 0;
        }
        if (digit) {
                if (n == 16)
                        return false;
                out[n++] = (unsigned char)(part >> 8), out[n++] = (unsigned char)part;
        }
        if (gap == 16)
                return n == 16;
        if (n == 16)
                return false;
        memmove(out + 16 - (n - gap), out + gap, n - gap);
        memset(out + gap, 0, 16 - n);
        return true;
}

struct address address_of(struct str text)
{
        static const unsigned char mapped[12] = { [10] = 0xff, [11] = 0xff };
        struct address a = { 0 };

        if (text.n < 2 || text.n > 256)
                return a;
        if (!memchr(text.p, ':', text.n)) {
                a.bits = address_v4(text, a.bytes) ? 32 : 0;
                return a;
        }
        if (!address_v6(text, a.bytes))
                return (struct address){ 0 };
        a.bits = 128;
        if (memcmp(a.bytes, mapped, 12) == 0) { /* ::ffff:102:304 is 1.2.3.4 */
                memmove(a.bytes, a.bytes + 12, 4);
                a.bits = 32;
        }
        return a;
}

static bool in_network(const struct test *t, const struct address *a)
{
        unsigned whole = t->network_bits / 8, rest = t->network_bits % 8;

        if (a->bits != t->network.bits || memcmp(a->bytes, t->network.bytes, whole) != 0)
                return false;
        return rest == 0 || (a->bytes[whole] ^ t->network.bytes[whole]) >> (8 - rest) == 0;
}

/* ---- strings */

static bool ends(struct str s, struct str suffix)
{
        return s.n >= suffix.n && memcmp(s.p + s.n - suffix.n, suffix.p, suffix.n) == 0;
}

/* No case of a character is the beginning of its other case, so the first that fits is the one. */
static bool caseless_prefix(struct str s, const struct test *t, size_t *used)
{
        size_t at = 0;

        for (size_t i = 0; i < t->cases_n; i++) {
                const struct cases *c = &t->cases[i];

                if (s.n - at >= c->lower_n && memcmp(s.p + at, c->lower, c->lower_n) == 0)
                        at += c->lower_n;
                else if (s.n - at >= c->upper_n && memcmp(s.p + at, c->upper, c->upper_n) == 0)
                        at += c->upper_n;
                else
                        return false;
        }
        *used = at;
        return true;
}

static bool caseless_suffix(struct str s, const struct test *t)
{
        for (size_t i = t->cases_n; i-- > 0;) {
                const struct cases *c = &t->cases[i];

                if (ends(s, (struct str){ c->lower, c->lower_n }))
                        s.n -= c->lower_n;
                else if (ends(s, (struct str){ c->upper, c->upper_n }))
                        s.n -= c->upper_n;
                else
                        return false;
        }
        return true;
}

/* The first and the last piece stand at the ends; each between is taken where it first occurs, which leaves
 * most to the others. */
static bool wildcard(struct str s, const struct test *t)
{
        struct str first = t->pieces[0], last = t->pieces[t->pieces_n - 1];

        if (t->pieces_n == 1)
                return str_equal(s, first);
        if (s.n < first.n + last.n || memcmp(s.p, first.p, first.n) != 0 || !ends(s, last))
                return false;
        s = (struct str){ s.p + first.n, s.n - first.n - last.n };
        for (size_t i = 1; i + 1 < t->pieces_n; i++) {
                const char *found = memmem(s.p, s.n, t->pieces[i].p, t->pieces[i].n);

                if (!found)
                        return false;
                found += t->pieces[i].n;
                s = (struct str){ found, (size_t)(s.p + s.n - found) };
        }
        return true;
}

/* ---- values */

static struct str text_of(struct value *v)
{
        if (!v->has_text) {
                v->has_text = true;
                v->text = v->raw;
                if (v->escaped) {
                        buf_reset(v->scratch);
                        (void)scan_decode(v->raw, v->scratch);
                        v->text = buf_view(v->scratch);
                }
        }
        return v->text;
}

static const struct number *number(struct value *v)
{
        if (!v->has_number) {
                v->has_number = true;
                v->number = number_of(v->raw);
        }
        return &v->number;
}

static const struct address *address(struct value *v)
{
        if (!v->has_address) {
                v->has_address = true;
                v->address = address_of(text_of(v));
        }
        return &v->address;
}

static bool string_matches(const struct test *t, struct value *v)
{
        struct str s = text_of(v);
        size_t used;

        switch (t->kind) {
        case TEST_EXACT: return str_equal(s, t->text);
        case TEST_PREFIX: return str_starts(s, t->text);
        case TEST_SUFFIX: return ends(s, t->text);
        case TEST_CASELESS: return caseless_prefix(s, t, &used) && used == s.n;
        case TEST_CASELESS_PREFIX: return caseless_prefix(s, t, &used);
        case TEST_CASELESS_SUFFIX: return caseless_suffix(s, t);
        case TEST_WILDCARD: v->steps += s.n / STEP_BYTES; return wildcard(s, t);
        case TEST_ADDRESS: return in_network(t, address(v));
        case TEST_EXISTS:
        case TEST_WORD:
        case TEST_NUMBER:
        case TEST_RANGE:
        case TEST_ANYTHING_BUT: break;
        }
        return false;
}

static bool number_matches(const struct test *t, struct value *v)
{
        const struct number *n;

        if (t->kind == TEST_NUMBER) {
                n = number(v);
                return n->comparable && t->number.comparable ? n->value == t->number.value
                                                             : !n->comparable && str_equal(v->raw, t->text);
        }
        if (t->kind != TEST_RANGE)
                return false;
        n = number(v);
        return n->comparable && (t->range.low_open ? n->value > t->range.low : n->value >= t->range.low) &&
               (t->range.high_open ? n->value < t->range.high : n->value <= t->range.high);
}

int test_compare(const struct test *a, const struct test *b)
{
        if ((a->kind == TEST_EXACT) != (b->kind == TEST_EXACT))
                return a->kind == TEST_EXACT ? -1 : 1;
        if (a->kind != TEST_EXACT)
                return 0;
        return a->text.n != b->text.n ? (a->text.n < b->text.n ? -1 : 1)
                                      : memcmp(a->text.p, b->text.p, a->text.n);
}

static bool any_exact(const struct test *tests, size_t n, struct value *v)
{
        const struct test wanted = { .kind = TEST_EXACT, .text = text_of(v) };
        size_t low = 0, high = n;

        while (low < high) {
                size_t middle = low + (high - low) / 2;
                int order = test_compare(&tests[middle], &wanted);

                if (order == 0)
                        return true;
                v->steps++;
                *(order < 0 ? &low : &high) = order < 0 ? middle + 1 : middle;
        }
        return false;
}

bool tests_match(const struct test *tests, size_t n, size_t exact_n, struct value *v)
{
        if (exact_n && v->kind == VALUE_STRING && any_exact(tests, exact_n, v))
                return true;
        for (size_t i = exact_n; i < n && v->steps <= v->steps_most; i++) {
                v->steps++;
                if (test_matches(&tests[i], v))
                        return true;
        }
        return false;
}

bool test_matches(const struct test *t, struct value *v)
{
        if (t->kind == TEST_EXISTS)
                return true;
        if (t->kind == TEST_ANYTHING_BUT)
                return !tests_match(t->buts, t->buts_n, t->exact_n, v);
        if (t->kind == TEST_WORD)
                return v->kind == t->word;
        return v->kind == VALUE_STRING ? string_matches(t, v)
                                       : v->kind == VALUE_NUMBER && number_matches(t, v);
}
