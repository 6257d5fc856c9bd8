/* The DDS source: change streams of the Document Database Service, and of any MongoDB 4.0 and later. It
 * stands on the reader with one track, the stream. What blocks is done by a driver (driver.h), a module that
 * is loaded with the first Trigger that needs it, on a helper thread (link.h). A position is a resume token,
 * and lives in the Trigger's store. Loop's thread. */
#pragma once

#include "source/source.h"

enum dds_mechanism { DDS_NEGOTIATE, DDS_SCRAM_SHA_256, DDS_SCRAM_SHA_1, DDS_X509 };
struct dds_credentials {
        int mechanism;
        struct secret_ref *username, *password;
        char *auth_source;
};
enum dds_full_document { DDS_UPDATE_LOOKUP, DDS_AS_LOGGED, DDS_WHEN_AVAILABLE, DDS_REQUIRED };
enum dds_before { DDS_BEFORE_OFF, DDS_BEFORE_WHEN_AVAILABLE, DDS_BEFORE_REQUIRED };
enum dds_start { DDS_LATEST, DDS_EARLIEST, DDS_TIMESTAMP };
enum dds_lost { DDS_LOST_FAIL, DDS_LOST_NOW, DDS_LOST_EARLIEST };
struct dds_spec {
        struct strings hosts;
        char *replica_set;
        bool direct;
        char *database, *collection; /* NULL: all */
        struct dds_credentials *credentials;
        struct tls_spec *tls;
        struct strings operations;
        char *pipeline; /* JSON: a list of stages; NULL: none */
        int full_document, before;
        int start;
        usec start_timestamp; /* wall; with DDS_TIMESTAMP */
        int on_lost;
        usec token_interval;
        int64_t max_event_bytes;
};
extern const struct type dds_type;
extern const struct source_kind dds_source;

/* What is watched, for people and as the checkpoint names it: "shop.orders", "shop.*" or "*". */
void dds_scope(const struct dds_spec *, struct buf *);
