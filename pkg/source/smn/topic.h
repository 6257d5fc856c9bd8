/* A topic's messages, for the sources that get them: who sent a message is proved by SMN's signature, whose
 * certificate comes from SMN's own address in the topic's region or from a host that the Trigger trusts;
 * subscriptions are confirmed there too. What a message says leads nowhere else. Loop's thread. */
#pragma once

#include "source/inbox.h"
#include "source/smn/notification.h"

struct trusted_spec {
        struct strings hosts;
        struct secret_ref *ca;
};
extern const struct type trusted_type;
#define TOPIC_URN_PATTERN "^urn:smn:[a-z0-9-]{1,64}:[A-Za-z0-9]{1,64}:[A-Za-z0-9_-]{1,255}$"
#define TOPIC_URN_FORMAT "urn:smn:REGION:PROJECT:NAME"

struct subscription_spec {
        bool manage;
        char *endpoint;
};

/* What the specs of sources begin with that get a topic's messages. */
struct smn_spec {
        char *topic_urn;
        struct trusted_spec *trusted; /* NULL: none, as the next */
        struct subscription_spec *subscription;
        struct cloud_spec *cloud;
        struct expose_spec *expose;
        struct listener_spec *listener;
        usec timeout;
};
extern const struct type subscription_type;
#define TOPIC_FIELDS(spec, member)                                                                           \
        FIELD(OBJECT, "trusted", struct spec, member trusted, .object = &trusted_type,                       \
              .help = "Hosts beside SMN's own that signing certificates and confirmations may be fetched "   \
                      "from."),                                                                              \
                FIELD(OBJECT, "subscription", struct spec, member subscription,                              \
                      .object = &subscription_type,                                                          \
                      .help = "Whether the worker subscribes itself to the topic; by default you do."),      \
                FIELD(OBJECT, "cloud", struct spec, member cloud, .object = &cloud_type,                     \
                      .help = "How SMN's own API is called, for subscription.manage."),                      \
                REACH_FIELDS(spec, member)
/* Rules for specs that begin with struct smn_spec. */
bool topic_has_cloud(const void *spec);
bool topic_has_endpoint(const void *spec);
#define TOPIC_RULES                                                                                          \
        RULE(.cel = "!has(self.subscription) || !self.subscription.manage || has(self.cloud)",               \
             .path = "subscription", .check = topic_has_cloud,                                               \
             .message = "manage needs cloud.credentials, to call SMN with"),                                 \
                RULE(.cel = "!has(self.subscription) || !self.subscription.manage || "                       \
                            "has(self.subscription.endpoint) || has(self.expose)",                           \
                     .path = "subscription", .check = topic_has_endpoint,                                    \
                     .message = "manage needs to know where SMN reaches the Trigger: give endpoint, or "     \
                                "expose it")

struct topic;
struct topic_config {
        const struct smn_spec *spec; /* all borrowed */
        const struct services *services;
        struct inbox *inbox;
        void *cookie;
        /* A message that is proved: taken. Its call is answered through the inbox. */
        void (*admit)(void *cookie, uint64_t call, struct notification *);
};
int topic_new(struct topic **, const struct topic_config *, struct error *) MUST_CHECK;
struct topic *topic_free(struct topic *); /* NULL is fine */
enum push_verdict topic_receive(struct topic *, uint64_t call, const struct push_request *,
                                struct push_reply *);
void topic_poll(struct topic *, usec now);
usec topic_deadline(const struct topic *);
/* What it has is finished; the subscription is the successor's. NULL: it has no topic. */
void topic_pass_on(struct topic *, struct topic *successor);
bool topic_gone(struct topic *, uint64_t call); /* false: it is not here */
