/* Streams of the Data Ingestion Service (API v2): each partition is a track that is read through cursors. Its
 * position is a checkpoint, which the service stores for each app: the number of the next record. Loop's
 * thread. */
#pragma once

#include "source/source.h"

struct dis_spec {
        char *stream, *app;
        int start;              /* enum dis_start */
        usec start_timestamp;   /* wall */
        int64_t start_sequence; /* -1: none */
        int64_t max_fetch_bytes;
        bool serial;
        usec polling_interval; /* 0: the default pauses */
        struct cloud_spec *cloud;
};
enum dis_start { DIS_TRIM_HORIZON, DIS_LATEST, DIS_AT_TIMESTAMP, DIS_AT_SEQUENCE_NUMBER };
extern const struct type dis_type;
extern const struct source_kind dis_source;
extern const struct poller_ops dis_ops; /* exposed for tests and fuzz targets */

/* The app that holds the checkpoints: the spec's, or sluice_NAMESPACE_NAME. */
void dis_app(const struct dis_spec *, const struct trigger *, struct buf *);
/* Two Triggers must not read the same stream as the same app: each would skip records of the other. */
void dis_clash_key(const struct trigger *, struct buf *);
bool dis_clash(const struct trigger *, const struct trigger *, struct buf *why);
