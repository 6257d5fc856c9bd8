/* Paths of URIs in their normal form (RFC 3986, 6.2.2): what is equivalent is equal afterwards. %2F stays
 * data and separates nothing, and nothing is decoded twice. Any thread. */
#pragma once

#include "base/buf.h"

/* A segment's normal form: unreserved characters as they are, hexadecimal digits in upper case, what may not
 * stand in a path percent-encoded, a % that begins no escape too. Appends; at most three times as long. */
void uri_segment(struct buf *, struct str segment);
/* The same of a path, without dot segments. A view of the path itself where that is normal already, otherwise
 * of space, which is overwritten. p NULL: out of memory. What begins with no / stays as it is. */
struct str uri_path(struct str path, struct buf *space);
/* And with slashes that follow one another merged into one, as many servers do. */
struct str uri_path_merged(struct str path, struct buf *space);
