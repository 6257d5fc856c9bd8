/* Samples of a source that fetches: records for previews, read from an answer that says what a document says,
 * by what reads all answers, in a page of their own. Pure; any thread. */
#pragma once

#include "json/yaml.h"
#include "source/reader.h"

/* To fill with one record; NULL: out of memory. */
struct page *sample_page(struct error *) MUST_CHECK;
/* Takes the page. filled: 0, or -1 when it could not be filled, and the error says why. */
int sample_take(struct page *, int filled, struct record **, struct error *) MUST_CHECK;
void sample_free(struct record *); /* a shape's sample_free */

/* A member with what the document says under a name; nothing, or null: otherwise, NULL: no member. */
void sample_member(struct writer *, const char *key, const struct node *document, const char *name,
                   const char *otherwise);
/* The text of a string, the JSON of anything else; nothing of null. */
void sample_text(const struct node *, struct buf *);
