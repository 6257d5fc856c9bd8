/* Which records a Trigger wants: Amazon EventBridge's event pattern language over JSON text. A pattern is compiled once; a record is
 * scanned once, without a tree. Owned by the caller; one thread at a time (a filter keeps its working memory). */
#pragma once

#include "base/buf.h"
#include "base/error.h"

struct filter;

/* Compiles a pattern. The error names the place in it, "detail.state[0].numeric: expected …". */
int filter_new(struct filter **, struct str pattern_json, struct error *) MUST_CHECK;
struct filter *filter_free(struct filter *); /* NULL fine; returns NULL */
DEFINE_CLEANUP(struct filter *, filter_free)

/* Does the record (one JSON object) match? -1 with an error when it is none. */
int filter_match(struct filter *, struct str json, bool *matches, struct error *) MUST_CHECK;

/* Why it did not, for people: "value.state: no value matches [\"open\"]". */
void filter_explain(struct filter *, struct str json, struct buf *why);
