/* Inside the source: records of a partition as the service answers them, and their shape. Pure; any thread.
 */
#pragma once

#include "base/error.h"
#include "source/reader.h"
#include "source/shape.h"

/* What a record is besides its data and its key, kept with its page. */
struct dis_record {
        struct str partition;
        int64_t sequence;
        const struct str *cursor; /* behind the page; p NULL: the partition ends there */
};
extern const struct shape dis_shape;

struct dis_records {
        uint32_t n;          /* of the answer, those that were known included */
        bool repeated;       /* it brought some that were known */
        int64_t first, last; /* sequence numbers of those that were new; -1: there are none */
        struct str cursor;   /* the next one, in the page; p NULL: the partition ends here */
};
/* Reads an answer to GetRecords into a page. What lies below from, or not above what stands before it, was
 * delivered already and is left out; from -1: nothing was. partition: borrowed by the records. */
int dis_read_records(struct str body, const char *stream, struct str partition, int64_t from, struct page *,
                     struct dis_records *, struct error *) MUST_CHECK;
