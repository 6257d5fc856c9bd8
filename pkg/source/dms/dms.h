/* Queues of the Distributed Message Service (API v1.0): messages are taken by long polling, are ours for
 * ackWait, and are acknowledged once the function accepted them; what is not comes again. Loop's thread. */
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

/* For tests and fuzz targets: the calls, and what they know of a queue. */
extern const struct poller_ops dms_ops;
struct dms_track {
        bool answered; /* its last request for messages was */
        /* its handlers are acknowledged one by one, since one of them was refused; the next */
        bool singly;
        size_t next;
};

/* How long a message is ours: ackWait, or what covers the delivery's attempts. */
usec dms_ack_wait(const struct dms_spec *, const struct delivery_spec *);
/* So much of it can be relied upon. */
usec dms_lease(const struct dms_spec *, const struct delivery_spec *);
/* Is there time within it for the function, and for all attempts after which the delivery gives up? false:
 * why not. */
bool dms_fits(const void *spec, const struct delivery_spec *, struct buf *why);
