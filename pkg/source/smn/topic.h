/* A topic's messages, for the sources that get them: who sent a message is proved by SMN's signature, whose certificate comes from SMN's own address
 * in the topic's region or from a host that the Trigger trusts; subscriptions are confirmed there too. What a message says leads nowhere else. Loop's
 * thread. */
#pragma once

#include "source/smn/inbox.h"
#include "source/smn/notification.h"

struct trusted_spec { struct strings hosts; struct secret_ref *ca; };
extern const struct type trusted_type;
#define TOPIC_URN_PATTERN "^urn:smn:[a-z0-9-]{1,64}:[A-Za-z0-9]{1,64}:[A-Za-z0-9_-]{1,255}$"
#define TOPIC_URN_FORMAT "urn:smn:REGION:PROJECT:NAME"

struct topic;
struct topic_config {
        const char *urn;                 /* all borrowed */
        const struct trusted_spec *trusted;      /* NULL: none */
        usec timeout;
        const struct services *services;
        struct task *wake;
        struct inbox *inbox;
        void *cookie;
        /* A message that is proved: taken. Its call is answered through the inbox. */
        void (*admit)(void *cookie, uint64_t call, struct notification *);
};
int topic_new(struct topic **, const struct topic_config *, struct error *) MUST_CHECK;
struct topic *topic_free(struct topic *);        /* NULL is fine */
enum push_verdict topic_receive(struct topic *, uint64_t call, const struct push_request *, struct push_reply *);
void topic_poll(struct topic *, usec now);
usec topic_deadline(const struct topic *);
bool topic_gone(struct topic *, uint64_t call);  /* false: it is not here */
