/* Inside the reader: one response with its records. What the records borrow lies in two heaps of the page's
 * own: the body (keys and values), which is freed once every record is released or detached, and the heads
 * (the records, their ids, marks and what their origin is), which live until all are saved. */
#pragma once

#include "source/reader.h"
#include "source/remember.h"

struct chunk;
struct arena {
        struct chunk *first;
        size_t bytes; /* of memory, used or not */
};

struct page;
struct lent {
        struct record record; /* the first member: the record's pointer is its own */
        struct page *page;
        struct lent *next; /* of the track, across its pages */
        struct str mark;
        struct seen *seen; /* its id; NULL: ids are not remembered */
        char *copy;        /* of key and value, once it is detached */
        bool out, detached;
};

struct page {
        struct page *next; /* of the track */
        struct remember *remember;
        struct reader_stats *stats;
        struct lent *first, *last;
        uint64_t position;  /* of the first record */
        uint32_t n, out;    /* records; those lent */
        uint32_t borrowing; /* records that need the body still */
        usec since;         /* when it came */
        size_t most;        /* bytes of both heaps */
        struct arena heads, body;
        bool no_memory, too_large;
};

struct page *page_new(struct remember *, struct reader_stats *, size_t most) MUST_CHECK;
struct page *page_free(struct page *); /* takes NULL, returns NULL; ids in order stay remembered */
void page_reject(struct page *);       /* forgets its ids, and frees it */
void page_number(struct page *, uint32_t track, uint64_t position, usec now); /* it counts from now on */
void page_released(struct page *, struct lent *);
bool page_detach(struct page *, struct lent *);
