/* Is a text exactly one JSON value (RFC 8259)? One pass, no tree. Any thread. */
#pragma once

#include "base/base.h"

/* Valid UTF-8 throughout, however deep it is nested, white space around it allowed. no_memory: becomes true
 * where a text that is nested deep can't be judged for want of it; may be NULL. */
bool json_is_value(struct str, bool *no_memory);
/* The text without a byte order mark of UTF-8 at its start, which some writers put there and a reader may
 * ignore (RFC 8259, 8.1). */
static inline struct str json_without_mark(struct str text)
{
        return str_starts(text, STR("\xef\xbb\xbf")) ? (struct str){ text.p + 3, text.n - 3 } : text;
}
