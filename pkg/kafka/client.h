/* What every client of Kafka here has in common, consumer and producer alike: how librdkafka is configured
 * and started, where its log goes, and what its errors mean to a user. Users put what is their role's on top,
 * and own the handle. Any thread. */
#pragma once

#include <librdkafka/rdkafka.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/loop.h"

struct kafka_access;
struct log_scope;

struct kafka_client_config {
        const struct kafka_access *access; /* where the cluster is, and who we are there */
        const struct log_scope *log;       /* of what librdkafka says; outlives the client; NULL: nobody's */
};
struct kafka_option {
        const char *name, *value; /* value NULL: librdkafka's own */
};

/* A configuration: the cluster's, ours for all clients, the role's options on top. Owned until kafka_start or
 * rd_kafka_conf_destroy. */
int kafka_configure(rd_kafka_conf_t **, const struct kafka_client_config *, const struct kafka_option *role,
                    size_t n, struct error *) MUST_CHECK;
/* One more option of librdkafka by its own name; no secret, for an error may quote the value. */
int kafka_set(rd_kafka_conf_t *, const char *name, const char *value, struct error *) MUST_CHECK;
/* Takes the configuration, whether it succeeds or not. The access is the one that it was made of. */
int kafka_start(rd_kafka_t **, rd_kafka_type_t, const struct kafka_access *, rd_kafka_conf_t *,
                struct error *) MUST_CHECK;

/* Ends a client that nobody uses any more, on a thread of its own: a name server that says nothing holds that
 * up for as long as it is asked. wake: any task of the loop. Loop's thread. */
void kafka_end(rd_kafka_t *, struct loop *, struct task *wake);
/* At the end of the process: waits for those that are about to end, but not for long. Their threads use what
 * an exit tears down. */
void kafka_ended(void);

/* What a user can do about an error; NULL: nothing in particular. A constant. */
const char *kafka_next_step(rd_kafka_resp_err_t);
/* librdkafka's own words, and behind them what to do, in place of what it guesses in terms of its options.
 * words NULL: those for the code. Appends. */
void kafka_explain(struct buf *, rd_kafka_resp_err_t, const char *words);
