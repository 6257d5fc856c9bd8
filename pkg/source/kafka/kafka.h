/* The Kafka source, on librdkafka. A track is a partition; positions are offsets and live in the consumer
 * group. librdkafka's threads only ring the waker; everything else happens on the loop's thread, but asking
 * about positions and destroying, which block, on a helper thread. */
#pragma once

#include "source/source.h"

enum kafka_start { KAFKA_EARLIEST, KAFKA_LATEST, KAFKA_TIMESTAMP };
enum kafka_out_of_range { KAFKA_GO_EARLIEST, KAFKA_GO_LATEST, KAFKA_STOP };
enum kafka_isolation { KAFKA_READ_COMMITTED, KAFKA_READ_UNCOMMITTED };
struct kafka_spec {
        struct kafka_cluster cluster;
        struct strings topics; /* or */
        char *topic_pattern;
        char *consumer_group;
        int start_position;
        usec start_timestamp; /* wall; with KAFKA_TIMESTAMP */
        int out_of_range, isolation;
        struct string_map properties; /* of librdkafka */
        int64_t fetch_bytes;
};

extern const struct type kafka_type;
extern const struct source_kind kafka_source;

/* false: it would read its own dead letters. */
bool kafka_fits(const void *spec, const struct delivery_spec *, struct buf *why);
/* The group in use: the spec's, or sluice.NAMESPACE.NAME. */
void kafka_group(const struct kafka_spec *, const struct trigger *, struct buf *);
