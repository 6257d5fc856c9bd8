/* BSON (bsonspec.org) as it comes from a server: its elements are walked where they stand, and written as
 * canonical Extended JSON (MongoDB's specification, version 2), in which no number passes through a double
 * that is none. Whatever the bytes are, nothing outside of them is read. Any thread. */
#pragma once

#include "base/error.h"
#include "json/writer.h"

enum bson_type {
        BSON_DOUBLE = 0x01,
        BSON_STRING,
        BSON_DOCUMENT,
        BSON_ARRAY,
        BSON_BINARY,
        BSON_UNDEFINED,
        BSON_OBJECT_ID,
        BSON_BOOL,
        BSON_DATE,
        BSON_NULL,
        BSON_REGEX,
        BSON_POINTER,
        BSON_CODE,
        BSON_SYMBOL,
        BSON_CODE_WITH_SCOPE,
        BSON_INT32,
        BSON_TIMESTAMP,
        BSON_INT64,
        BSON_DECIMAL128,
        BSON_MAX_KEY = 0x7f,
        BSON_MIN_KEY = 0xff,
};
struct bson_element {
        enum bson_type type;
        struct str name, value; /* value: its bytes, as they stand there */
};
struct bson_walk {
        const char *p, *end;
        bool failed; /* what stands there is no BSON */
};

/* As deep as a server lets documents be, and then some. */
enum { BSON_DEPTH_MOST = 256, BSON_EMPTY = 5 };

/* false: it is no document: its length is not that of the bytes. */
bool bson_walk(struct bson_walk *, struct str document) MUST_CHECK;
/* false: that was all, or it has failed. */
bool bson_next(struct bson_walk *, struct bson_element *) MUST_CHECK;

/* As a value of JSON; false: it is no BSON. */
bool bson_write(const struct bson_element *, struct writer *) MUST_CHECK;
bool bson_write_document(struct str document, struct writer *) MUST_CHECK;
/* Of a string's, or a symbol's, value: the text. */
struct str bson_text(const struct bson_element *);
uint32_t bson_uint32(const char *);
uint64_t bson_uint64(const char *);

/* The text of a 128-bit decimal number, at most BSON_DECIMAL_TEXT bytes with its end. */
enum { BSON_DECIMAL_TEXT = 48 };
void bson_decimal_text(uint64_t high, uint64_t low, char out[BSON_DECIMAL_TEXT]);
/* The shortest text that reads as the same number. */
enum { BSON_DOUBLE_TEXT = 32 };
void bson_double_text(double, char out[BSON_DOUBLE_TEXT]);
