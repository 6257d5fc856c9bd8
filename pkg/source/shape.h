/* The shape of a source's records: what a filter sees of them, and the events that are made of them. Pure: it
 * needs no open source and no services, only records of this shape and the Trigger, so that previews, replay,
 * golden tests and fuzz targets use it as the worker does. Any thread. */
#pragma once

#include "api/trigger.h"
#include "event/cloudevent.h"
#include "json/writer.h"
#include "record/record.h"

struct shape {
        const char *ce_type; /* CloudEvents type, e.g. "dev.sluice.kafka.message" */
        void (*describe)(const struct record *, struct writer *); /* the document a filter sees */
        /* FunctionGraph's event for n records of one track, in the Trigger's dialect. */
        void (*encode)(const struct trigger *, struct record *const *, size_t n, struct writer *);
        /* The record as a CloudEvent: all but the overrides; without a type it gets ce_type. What is not the
         * record's own is kept in the buffer. */
        void (*event)(const struct trigger *, const struct record *, struct buf *, struct cloud_event *);
        /* What the record carries under a name, such as traceparent; p NULL: nothing. Optional: no record
         * carries any. */
        struct str (*header)(const struct record *, const char *name);
        /* A record made of the document that describe writes, for previews; members that are left out get
         * likely values, others than the document's are refused (shape_members); wall: the time it is now.
         * Optional, with sample_free: there are no samples. */
        int (*sample)(const struct trigger *, const struct node *document, usec wall, struct record **,
                      struct error *) MUST_CHECK;
        void (*sample_free)(struct record *); /* takes NULL */
};

/* For sample: has the document only members of this list, such as "key, value"? */
int shape_members(const struct node *document, const char *known, struct error *) MUST_CHECK;
