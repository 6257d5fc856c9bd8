/* Inside pkg/source/kafka: where reading goes on. What the group has committed and what the broker still has
 * is asked by a helper, because librdkafka's calls for it block; what follows from the answers is
 * decided here, for the source to carry out. Loop's thread, but for the helper. */
#pragma once

#include <librdkafka/rdkafka.h>

#include "base/helper.h"
#include "source/kafka/kafka.h"

/* What is known of a partition when it must be decided where to go on. -1: not known, or none. */
struct whereabouts {
        /* the next record to be read: as far as this process read, else what the group committed */
        int64_t reached;
        int64_t low, high; /* the first record there is; the end */
        int64_t since;     /* the first record since startTimestamp, where that is asked; none: -1 */
};

enum begin_reason {
        BEGIN_REACHED, /* where the group was */
        BEGIN_FIRST,   /* the group's first start: startPosition */
        /* a partition that came after the group's first start, or whose positions went with its topic: its
           beginning */
        BEGIN_NEW,
        BEGIN_RETENTION, /* the position lies before the first record there is */
        /* the position lies behind the end: the topic was made again, or a broker lost records */
        BEGIN_RECREATED,
};
struct begin {
        enum begin_reason reason;
        int64_t at;
        uint64_t lost; /* records that are gone without having been read */
};

/* first: this is the group's first start, which `start` is about. Needs low and high, and since for a
 * timestamp, unless the position was reached and nothing contradicts it. */
struct begin begin_of(const struct whereabouts *, bool first, enum kafka_start start);

struct lookup;
enum { LOOKUP_COMMITTED = 1, LOOKUP_BOUNDS = 2 };
/* Asks about the partitions, of which the list is copied. COMMITTED alone asks for the bounds of those that
 * have no position, too. since: where the first record of that time or later is, is asked as well (wall; 0:
 * it is not). A job of the helper, which takes three times the patience with one question at most: what the
 * helper gives back is told to lookup_taken. */
int lookup_begin(struct lookup **, rd_kafka_t *, const rd_kafka_topic_partition_list_t *, int what,
                 usec since, int patience_ms, struct helper *, struct error *) MUST_CHECK;
void lookup_taken(struct helper_job *);
bool lookup_done(const struct lookup *); /* it was taken */
/* Once done: why nothing is known of any; 0: no error. */
rd_kafka_resp_err_t lookup_error(const struct lookup *);
size_t lookup_count(const struct lookup *);
/* Why nothing is known of this one, which says nothing of the others; 0: it is. reached is what the group
 * committed. */
rd_kafka_resp_err_t lookup_take(const struct lookup *, size_t i, const char **topic, int32_t *partition,
                                struct whereabouts *);
/* What was committed with what lookup_take gives as reached; borrowed from the lookup. */
struct str lookup_metadata(const struct lookup *, size_t i);
/* once it is done, or its helper was stopped; NULL is fine; returns NULL */
struct lookup *lookup_free(struct lookup *);
