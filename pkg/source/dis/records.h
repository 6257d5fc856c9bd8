/* Inside the source: parses responses to GetRecords, and has the records' shape. Pure; any thread. */
#pragma once

#include "base/error.h"
#include "source/reader.h"
#include "source/shape.h"

/* The rest of a record, beside its data and key; allocated in its page. */
struct dis_record {
        struct str partition;
        int64_t sequence;
        const struct str *cursor; /* the next one, after this response; p NULL: the partition ends there */
};
extern const struct shape dis_shape;

struct dis_records {
        uint32_t n;          /* records in the response, including duplicates */
        bool repeated;       /* some were duplicates */
        unsigned malformed;  /* records whose data is missing or not Base64 */
        unsigned unnumbered; /* records without a number; the response fails unless pass_over is set */
        int64_t first, last; /* numbers of the first and last new record; -1: none */
        struct str cursor;   /* the next one, stored in the page; p NULL: the partition ends */
};
/* What is read. number: the position; records below it are duplicates; -1: none yet. */
struct dis_from {
        const char *stream;
        struct str partition; /* the records borrow it */
        int64_t number;
        int64_t created; /* creation time of the stream, to be written into the marks; 0: not */
        bool pass_over;  /* skip records without a number */
        int64_t again;   /* creation time of a recreated stream, to be written into the ids; 0: not */
};
/* Reads a response to GetRecords into a page, without duplicates. Ids are STREAM/PARTITION/NUMBER, or
 * STREAM@CREATED/PARTITION/NUMBER if the stream was recreated. */
int dis_read_records(struct str body, const struct dis_from *, struct page *, struct dis_records *,
                     struct error *) MUST_CHECK;
