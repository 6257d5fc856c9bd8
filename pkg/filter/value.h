/* What one value of a record is tested against: the operators. Any thread; nothing here allocates. */
#pragma once

#include "base/buf.h"

/* A number is comparable when it is what the shortest text of some double says: up to 15 digits always, up to
 * 17 sometimes. */
struct number {
        bool comparable;
        double value;
};
struct number number_of(struct str text); /* text: a JSON number */

struct address {
        unsigned bits; /* 32, 128; 0: none */
        unsigned char bytes[16];
};
struct address address_of(struct str text);

/* A character in both of its cases, which may be several characters long. */
struct cases {
        unsigned char lower_n, upper_n;
        char lower[8], upper[8];
};
void cases_of(uint32_t character, struct cases *);

enum value_kind { VALUE_STRING, VALUE_NUMBER, VALUE_TRUE, VALUE_FALSE, VALUE_NULL };

enum test_kind {
        TEST_EXISTS,
        TEST_WORD, /* true, false, null */
        TEST_NUMBER,
        TEST_RANGE,
        TEST_EXACT,
        TEST_PREFIX,
        TEST_SUFFIX,
        TEST_CASELESS,
        TEST_CASELESS_PREFIX,
        TEST_CASELESS_SUFFIX,
        TEST_WILDCARD,
        TEST_ADDRESS,
        TEST_ANYTHING_BUT,
};

struct test {
        enum test_kind kind;
        union {
                enum value_kind word;
                /* NUMBER; text alone: EXACT, PREFIX, SUFFIX */
                struct {
                        struct str text;
                        struct number number;
                };
                struct {
                        double low, high;
                        bool low_open, high_open;
                } range;
                struct {
                        struct cases *cases;
                        size_t cases_n;
                };
                /* WILDCARD: what stands between the stars */
                struct {
                        struct str *pieces;
                        size_t pieces_n;
                };
                struct {
                        struct address network;
                        unsigned network_bits;
                };
                struct {
                        struct test *buts;
                        size_t buts_n, exact_n; /* exact_n: texts that stand first, sorted */
                };
        };
};

/* A value of the record. What tests derive from it is worked out once, when first asked for. */
struct value {
        enum value_kind kind;
        struct str raw; /* as written; a string's without its quotes */
        bool escaped;
        struct buf *scratch; /* where the text goes when it holds escapes */
        bool has_text, has_number, has_address;
        struct str text;
        struct number number;
        struct address address;
        uint64_t steps, steps_most; /* that tests took, and after which none is tried any more */
};

bool test_matches(const struct test *, struct value *);
/* Does any of the tests match? The first exact_n are of kind EXACT, in the order of test_compare. What comes
 * out means nothing once steps are above steps_most. */
bool tests_match(const struct test *, size_t n, size_t exact_n, struct value *);
int test_compare(const struct test *, const struct test *);
