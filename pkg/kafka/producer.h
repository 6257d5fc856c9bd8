/* The way into a Kafka topic, on librdkafka: for dead letters. Idempotent, acknowledged by all replicas in
 * sync. librdkafka's threads only ring the waker. Loop's thread. */
#pragma once

#include "base/loop.h"
#include "kafka/client.h"
#include "port/http.h"

struct kafka_producer;
struct kafka_pair {
        struct str name, value;
};
struct kafka_message {
        struct str key, value;
        bool has_key;
        const struct kafka_pair *headers;
        size_t headers_n;
};
struct kafka_delivery {
        uint64_t tag;
        bool failed, too_large /* for the topic */;
        struct error error;
        int32_t partition;
        int64_t offset;
};

struct kafka_producer_config {
        const struct kafka_cluster *cluster; /* borrowed */
        const char *topic;
        const char *secrets; /* the folder; NULL: there is none */
        const struct log_scope *log;
        struct loop *loop;
        struct http http; /* as struct kafka_access_config has them */
        struct http_peers peers;
        struct task *wake; /* made ready when a delivery is to be taken */
};
/* Where Secrets that the cluster names are missing, or no use, messages are refused until they are there. */
int kafka_producer_new(struct kafka_producer **, const struct kafka_producer_config *,
                       struct error *) MUST_CHECK;
enum { KAFKA_MESSAGE_MOST = 32 << 20 }; /* whatever the topic takes */
/* Copies the message, at most KAFKA_MESSAGE_MOST with its key and headers. Its delivery, or that it failed
 * after timeout, is taken later; -1: it was not taken in, and no delivery comes. */
int kafka_producer_send(struct kafka_producer *, uint64_t tag, const struct kafka_message *,
                        struct error *) MUST_CHECK;
bool kafka_producer_take(struct kafka_producer *, struct kafka_delivery *);
/* The last trouble with the brokers since a message arrived; NULL: none. */
const char *kafka_producer_trouble(const struct kafka_producer *);
/* What is under way is given up (it may arrive all the same). NULL is fine; returns NULL. */
struct kafka_producer *kafka_producer_free(struct kafka_producer *);
