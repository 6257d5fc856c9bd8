/* The streaming JSON writer of the hot path: appends to a buf, puts commas, escapes with a vectorised scan
 * (RFC 8259). No tree, no allocation of its own. The caller balances begin and end (asserted). Owned by the
 * caller; one thread. */
#pragma once

#include "base/buf.h"

struct writer {
        struct buf *out; /* borrowed */
        unsigned depth;
        bool comma; /* a value stands before, at this level */
        bool after_key;
};

static inline void writer_init(struct writer *w, struct buf *out) { *w = (struct writer){ .out = out }; }
void writer_object(struct writer *); /* { */
void writer_object_end(struct writer *);
void writer_array(struct writer *);
void writer_array_end(struct writer *);
void writer_key(struct writer *, struct str);
void writer_string(struct writer *, struct str); /* invalid UTF-8 becomes U+FFFD */
void writer_base64(struct writer *, struct str); /* a string that holds the Base64 of the bytes */
void writer_int(struct writer *, int64_t);
void writer_double(struct writer *, double); /* NaN and infinities: null */
void writer_bool(struct writer *, bool);
void writer_null(struct writer *);
void writer_raw(struct writer *, struct str); /* a whole JSON value, trusted */

#define writer_member_string(w, k, v) (writer_key(w, STR(k)), writer_string(w, v))
#define writer_member_text(w, k, v) (writer_key(w, STR(k)), writer_string(w, str_of(v)))
#define writer_member_int(w, k, v) (writer_key(w, STR(k)), writer_int(w, v))
#define writer_member_bool(w, k, v) (writer_key(w, STR(k)), writer_bool(w, v))

/* The size of the escaped inside of a string. */
size_t writer_escaped(struct str);
/* Appends the escaped inside of a string, without quotes. */
void writer_escape(struct buf *, struct str);
