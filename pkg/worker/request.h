/* Makes the request of records: body, headers, path. The pipeline sends it and `sluice preview` prints it,
 * both from here. Owns its buffers; loop's thread. */
#pragma once

#include "base/random.h"
#include "event/dead_letter.h"
#include "source/shape.h"

struct request_maker {
        const struct trigger *trigger; /* borrowed, as all here */
        const struct shape *shape;
        const struct clock *clock;
        const char *sink;     /* the absolute URL */
        struct random random; /* of span ids */
        uint64_t seed;        /* of trace ids that begin here */
        struct buf space;     /* storage for what a CloudEvent borrows */
};

void request_maker_init(struct request_maker *, const struct trigger *, const struct shape *,
                        const struct clock *, const char *sink);
void request_maker_done(struct request_maker *);

/* Appends the header lines that all requests share, without secrets: FunctionGraph's and the user's own. */
void request_constant_headers(const struct request_maker *, struct buf *);
/* Appends the body. */
void request_body(struct request_maker *, struct record *const *records, size_t n, struct buf *body);
/* Appends the header lines of this one request: content type, ids, attributes, trace context. */
void request_headers(struct request_maker *, struct record *const *records, size_t n, struct buf *);

/* The dead letter of one record, in the Trigger's format. The caller gives what came of it (attempts, status,
 * reason, answer); the rest is filled in here. payload: the event as it was sent, after the transform; used
 * by FunctionGraph's format. most: bytes that it may have; payload and answer are cut for it, and the letter
 * says so. 0: no limit. */
void request_dead_body(struct request_maker *, struct record *, struct dead_letter *, struct str payload,
                       size_t most, struct buf *body);
void request_dead_headers(struct request_maker *, struct record *, struct buf *);

/* The records that a function's answer to a batch says have failed, as places in ascending order. Read as
 * Lambda reads it: no list, null or an empty one says that all went well; an answer that is no JSON object,
 * an item without an identifier, or one that names no record of the batch says that all failed; an id that
 * several records have names all of them. cut: the answer is only the start of what the function said, which
 * is enough once the list has ended. Returns how many; *all: everything failed, why tells. failed has room
 * for n. */
size_t request_failures(struct str answer, bool cut, struct record *const *records, size_t n,
                        uint32_t *failed, bool *all, struct buf *why);
