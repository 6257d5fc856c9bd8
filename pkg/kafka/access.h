/* Who we are to a Kafka cluster: a user's name and password, certificates, from Secrets that may change while
 * we are connected. Embedded in its owner, which makes its client's configuration of it (kafka/client.h).
 * Loop's thread. */
#pragma once

#include <librdkafka/rdkafka.h>

#include "secret/secret.h"

struct kafka_access {
        const struct kafka_cluster *cluster;
        const char *secrets;
        /* zeroed: not asked for */
        struct secret username, password, ca, cert, key;
};

/* Zeroed before; borrows the cluster. secrets: the folder of Secrets; NULL: there is none, which is an error
 * where one is named. wake: made ready when a Secret changed. That a value is missing is no error. */
int kafka_access_open(struct kafka_access *, struct loop *, const struct kafka_cluster *, const char *secrets,
                      struct task *wake, struct error *) MUST_CHECK;
void kafka_access_done(struct kafka_access *); /* one that is not open is fine */

/* Is a value missing that a client needs? Appends which one, for people: "Secret NAME, key KEY, is missing or
 * empty". */
bool kafka_access_lacks(struct kafka_access *, struct buf *);
/* What has changed since it was last asked, or opened: a name or a password, or (also) certificates, which a
 * client reads when it is made: another one is needed. */
enum kafka_access_change { KAFKA_ACCESS_SAME, KAFKA_ACCESS_CREDENTIALS, KAFKA_ACCESS_CERTIFICATES };
enum kafka_access_change kafka_access_changed(struct kafka_access *);

/* Into a client's configuration: brokers, protocol, credentials. Nothing may be missing. */
int kafka_access_configure(const struct kafka_access *, rd_kafka_conf_t *, struct error *) MUST_CHECK;
/* What a broker says, without the name and the password that it was shown: it may quote them. Appends. */
void kafka_access_quote(const struct kafka_access *, const char *words, struct buf *out);
/* The name and password from the next connection on. */
void kafka_access_renew(const struct kafka_access *, rd_kafka_t *);
