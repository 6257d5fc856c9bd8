/* The streaming JSON writer of the hot path: appends to a buf, puts commas, escapes with a vectorised scan (RFC 8259). No tree, no
 * allocation of its own. The caller balances begin and end (asserted). Owned by the caller; one thread. */
#pragma once

#include "base/buf.h"

struct writer {
        struct buf *out; /* borrowed */
        unsigned depth;
        uint64_t comma;  /* a bit per depth: something stands before */
        bool after_key;
};

static inline void writer_init(struct writer *w, struct buf *out) { *w = (struct writer){ .out = out }; }
void json_object(struct writer *);      /* { */
void json_object_end(struct writer *);
void json_array(struct writer *);
void json_array_end(struct writer *);
void json_key(struct writer *, struct str);
void json_string(struct writer *, struct str);   /* invalid UTF-8 becomes U+FFFD */
void json_base64(struct writer *, struct str);   /* a string that holds the Base64 of the bytes */
void json_int(struct writer *, int64_t);
void json_double(struct writer *, double);       /* NaN and infinities: null */
void json_bool(struct writer *, bool);
void json_null(struct writer *);
void json_raw(struct writer *, struct str);      /* a whole JSON value, trusted */

#define json_member_string(w, k, v) (json_key(w, STR(k)), json_string(w, v))
#define json_member_text(w, k, v) (json_key(w, STR(k)), json_string(w, str_of(v)))
#define json_member_int(w, k, v) (json_key(w, STR(k)), json_int(w, v))
#define json_member_bool(w, k, v) (json_key(w, STR(k)), json_bool(w, v))

/* Appends the escaped inside of a string, without quotes. */
void json_escape(struct buf *, struct str);
