/* Queues of the Distributed Message Service (API v1.0): messages are received by long polling, are reserved
 * for this consumer for ackWait, and are acknowledged once the function accepted them; the queue redelivers
 * the others. Loop's thread. */
#pragma once

#include "source/source.h"

struct dms_spec {
        char *queue_id, *group_id;
        struct strings tags;
        int tag_type; /* enum dms_tag_type */
        usec ack_wait, polling_interval;
        bool dead_letters;
        struct cloud_spec *cloud;
};
enum dms_tag_type { DMS_TAGS_OR, DMS_TAGS_AND };
extern const struct type dms_type;
extern const struct source_kind dms_source;

/* Exposed for tests and fuzz targets: the operations, and the state of one track. */
extern const struct poller_ops dms_ops;
struct dms_track {
        bool answered; /* its last request for messages succeeded */
        /* handlers are acknowledged one by one, since the queue refused one of them; next: the index */
        bool singly;
        size_t next;
};

/* The ack window: ackWait, or by default what the delivery settings need. */
usec dms_ack_wait(const struct dms_spec *, const struct delivery_spec *);
/* The window minus a safety margin. */
usec dms_lease(const struct dms_spec *, const struct delivery_spec *);
/* Does the window cover the function's time-out, and all attempts before the delivery gives up? false: why
 * says what does not fit. */
bool dms_fits(const void *spec, const struct delivery_spec *, struct buf *why);
