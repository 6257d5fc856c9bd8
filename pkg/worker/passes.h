/* Does a record pass the Trigger's filter? Shared by the pipeline and the gate of push sources. Loop's thread. */
#pragma once

#include "filter/filter.h"
#include "source/driver.h"

/* filter NULL: everything passes. document: space for what the filter sees. A record that can't be looked into passes: better too much than lost. */
static inline bool record_passes(struct filter *filter, const struct driver *driver, const struct record *r, struct buf *document)
{
        bool matches = true;
        struct writer w;
        struct error err;

        if (!filter)
                return true;
        buf_reset(document);
        writer_init(&w, document);
        driver->describe(r, &w);
        return document->failed || filter_match(filter, buf_view(document), &matches, &err) < 0 || matches;
}
