/* Streams of the Data Ingestion Service (API v2): each partition is a track, read behind a cursor, and its
 * position is a checkpoint that the service keeps for an app: the next sequence number. Loop's thread. */
#pragma once

#include "source/source.h"

struct dis_spec {
        char *stream, *app;
        int start;              /* enum dis_start */
        usec start_timestamp;   /* wall */
        int64_t start_sequence; /* -1: none */
        int64_t max_fetch_bytes;
        bool serial;
        usec polling_interval; /* 0: by default */
        struct cloud_spec *cloud;
};
enum dis_start { DIS_TRIM_HORIZON, DIS_LATEST, DIS_AT_TIMESTAMP, DIS_AT_SEQUENCE_NUMBER };
extern const struct type dis_type;
extern const struct source_kind dis_source;
extern const struct poller_ops dis_ops; /* for tests and fuzz targets */

/* The app that holds the checkpoints: the spec's, or sluice_NAMESPACE_NAME. */
void dis_app(const struct dis_spec *, const struct trigger *, struct buf *);
/* Two Triggers that read a stream as the same app lose each other's records. */
void dis_clash_key(const struct trigger *, struct buf *);
bool dis_clash(const struct trigger *, const struct trigger *, struct buf *why);
