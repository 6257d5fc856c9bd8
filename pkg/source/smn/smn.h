/* The Simple Message Notification source: messages of a topic, as its HTTPS subscription brings them. Each is
 * delivered within the call that brought it, and answered with what became of it: SMN tries again what was
 * not. */
#pragma once

#include "source/smn/notified.h"

extern const struct type smn_type;
extern const struct source_kind smn_source;

/* ---- for the sources whose events are SMN's ----------------------------- */
#define SMN_FIELDS                                                                                           \
        FIELD(STRING, "topicURN", struct smn_spec, topic_urn, .former = "topicUrn", .required = true,        \
              .pattern = TOPIC_URN_PATTERN, .format = TOPIC_URN_FORMAT, .cloud = "topic_urn",                \
              .help = "The topic. It is subscribed by HTTP(S) to the Trigger's path, /NAMESPACE/NAME; the "  \
                      "subscription is confirmed by itself."),                                               \
                TOPIC_FIELDS(smn_spec, ),                                                                    \
                FIELD(DURATION, "timeout", struct smn_spec, timeout, .fallback = "4s",                       \
                      .min = 100 * USEC_MSEC, .max = 4 * USEC_SEC,                                           \
                      .help = "How long the function may take. SMN itself waits 5 seconds, then tries "      \
                              "again.")
/* wanted: is the message delivered? NULL: each is. */
int smn_open_for(struct source **, const struct smn_spec *,
                 bool (*wanted)(const void *spec, struct str message), const struct services *,
                 struct error *) MUST_CHECK;

struct smn_message {
        struct inbox_item item;
        struct record record;
        const struct trigger *trigger;
        struct notification notification;
        usec received; /* wall */
};
/* Takes the notification; NULL when memory is out. */
struct smn_message *smn_message_new(const struct trigger *, usec received, struct notification *);
void smn_message_free(struct smn_message *); /* NULL is fine */
/* The shape's functions for such records. */
void smn_describe(const struct record *, struct writer *);
void smn_encode(const struct trigger *, struct record *const *, size_t n, struct writer *);
void smn_event(const struct trigger *, const struct record *, struct buf *, struct cloud_event *);
int smn_sample(const struct trigger *t, const struct node *document, usec wall, struct record **,
               struct error *) MUST_CHECK;
void smn_sample_free(struct record *);
void smn_origin(const struct trigger *, struct buf *);
