/* Does a record pass the Trigger's filter? Shared by the pipeline and the gate of push sources. Loop's
 * thread. */
#pragma once

#include "filter/filter.h"
#include "source/shape.h"

/* UNJUDGED: the filter could not be applied to the record, or memory ran out (ERROR_MEMORY); why tells. */
enum passing { PASSES, LEFT_OUT, UNJUDGED };

enum { DOCUMENT_KEPT = 1 << 20 };

/* filter NULL: everything passes. document: space for what the filter sees. */
static inline enum passing record_passes(struct filter *filter, const struct shape *shape,
                                         const struct record *r, struct buf *document, struct error *why)
{
        bool matches = true;
        struct writer w;
        int judged;

        if (!filter)
                return PASSES;
        buf_reset(document);
        writer_init(&w, document);
        shape->describe(r, &w);
        judged = document->full     ? error_set(why, ERROR_INVALID,
                                                "what the filter sees of it would have more than %zu bytes",
                                                document->max)
                 : document->failed ? error_memory(why)
                                    : filter_match(filter, buf_view(document), &matches, why);
        if (document->cap > DOCUMENT_KEPT)
                buf_done(document);
        return judged < 0 ? UNJUDGED : matches ? PASSES : LEFT_OUT;
}
