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
        unsigned malformed;  /* their data is no Base64, or not there */
        unsigned unnumbered; /* without a sequence number, which failed the answer unless they are passed over
                              */
        int64_t first, last; /* sequence numbers of those that were new; -1: there are none */
        struct str cursor;   /* the next one, in the page; p NULL: the partition ends here */
};
/* What is read: what lies below the number was delivered already, -1: nothing was. */
struct dis_from {
        const char *stream;
        struct str partition; /* borrowed by the records */
        int64_t number;
        int64_t created; /* when the stream was, for the marks to say so; 0: they don't */
        bool pass_over;  /* records without a number */
        int64_t again;   /* the same, for the ids to say so, of a stream that was made again */
};
/* Reads an answer to GetRecords into a page. What lies below the number, or not above what stands before it,
 * is left out. Ids are STREAM/PARTITION/NUMBER, of a stream that was made again
 * STREAM@CREATED/PARTITION/NUMBER. */
int dis_read_records(struct str body, const struct dis_from *, struct page *, struct dis_records *,
                     struct error *) MUST_CHECK;
