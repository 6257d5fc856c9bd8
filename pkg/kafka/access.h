/* Who we are to a Kafka cluster: a user's name and password, certificates, from Secrets that may change while
 * we are connected. Embedded in its owner, which makes its client's configuration of it (kafka/client.h).
 * Loop's thread. */
#pragma once

#include <librdkafka/rdkafka.h>

#include "kafka/token.h"

struct kafka_access {
        const struct kafka_cluster *cluster;
        const char *secrets;
        /* zeroed: not asked for */
        struct secret username, password, ca, cert, key;
        struct kafka_token *token;
};

struct kafka_access_config {
        const struct kafka_cluster *cluster; /* borrowed */
        struct loop *loop;
        /* the folder of Secrets; NULL: there is none, which is an error where one is named */
        const char *secrets;
        struct task *wake; /* made ready when a Secret changed, or there is another token; NULL: nobody */
        /* who gives tokens is called by these; ops NULL where no token is needed */
        struct http http;
        struct http_peers peers;
};
/* Zeroed before. That a value is missing is no error. */
int kafka_access_open(struct kafka_access *, const struct kafka_access_config *, struct error *) MUST_CHECK;
void kafka_access_done(struct kafka_access *); /* one that is not open is fine */

/* Is a value missing that a client needs, or a token? Appends which one and why, for people: "Secret NAME,
 * key KEY, is missing or empty". */
bool kafka_access_lacks(struct kafka_access *, struct buf *);
/* What is wrong while the last token still serves; NULL: nothing. */
const char *kafka_access_trouble(const struct kafka_access *);
/* What is missing is a token that is on its way. */
bool kafka_access_awaits(const struct kafka_access *);
/* What has changed since it was last asked, or opened: a name, a password or a token, or (also) certificates,
 * which a client reads when it is made: another one is needed. */
enum kafka_access_change { KAFKA_ACCESS_SAME, KAFKA_ACCESS_CREDENTIALS, KAFKA_ACCESS_CERTIFICATES };
enum kafka_access_change kafka_access_changed(struct kafka_access *);

/* Into a client's configuration: brokers, protocol, credentials. Nothing may be missing. */
int kafka_access_configure(const struct kafka_access *, rd_kafka_conf_t *, struct error *) MUST_CHECK;
/* What a broker says, without the name, the password and the token that it was shown: it may quote them.
 * Appends. */
void kafka_access_quote(const struct kafka_access *, const char *words, struct buf *out);
/* The name and password, or the token, from the next connection on. */
void kafka_access_renew(const struct kafka_access *, rd_kafka_t *);
/* Wakes the client's threads, one of which may wait for up to a second: librdkafka has no call for that
 * alone, but does so for each of these, whatever the protocol. */
void kafka_access_wake(const struct kafka_access *, rd_kafka_t *);
/* A broker did not let us in. */
void kafka_access_refused(struct kafka_access *);
