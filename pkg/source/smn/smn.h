/* The Simple Message Notification source: messages of a topic, as its HTTPS subscription brings them. Each is delivered within the call that brought
 * it, and answered with what became of it: SMN tries again what was not. */
#pragma once

#include "source/smn/topic.h"

struct smn_spec { char *topic_urn; struct trusted_spec *trusted; usec timeout; };
extern const struct type smn_type;
extern const struct driver smn_driver;

/* ---- for the sources whose events are SMN's ---- */
struct smn_message {
        struct inbox_item item;
        struct record record;
        const struct services *services;
        struct notification notification;
        usec received;           /* wall */
};
/* Takes the notification; NULL when memory is out. */
struct smn_message *smn_message_new(const struct services *, struct notification *);
void smn_message_free(struct smn_message *);             /* NULL is fine */
/* The driver's functions for such records. */
void smn_describe(const struct record *, struct writer *);
void smn_encode(const struct services *, enum dialect, struct record *const *, size_t n, struct writer *);
void smn_event(const struct services *, const struct record *, struct buf *, struct cloud_event *);
int smn_sample(const void *spec, const struct services *, const struct node *document, struct record **, struct error *) MUST_CHECK;
void smn_sample_free(struct record *);
/* "/NAMESPACE/NAME": is it the Trigger's? Above any API's. */
unsigned smn_route(const struct trigger *, const struct push_request *);
void smn_path(const struct trigger *, struct buf *);
