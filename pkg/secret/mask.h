/* What a peer says, with the values that we showed to it replaced by ***: peers quote them. Any thread. */
#pragma once

#include "base/buf.h"

/* The values to hide, and a table of their first bytes, so that most bytes of a text are looked at once. */
struct mask {
        struct str *list; /* the caller's: room for one a mask_add */
        size_t n;
        bool begins[256];
};

/* Borrows the value. One that is too short to be told from ordinary text is left out, as is p NULL. */
void mask_add(struct mask *, struct str value);
/* Appends up to most characters of the words, a hidden value counting as one: also where JSON escapes it, in
 * JSON within JSON, too. cut: the words may end in the middle of a value, of which the beginning counts. */
void mask_quote(const struct mask *, struct str words, size_t most, bool cut, struct buf *out);
