/* Does the cluster let us in with what the Secrets hold now? Asked by a client of its own, beside the one in
 * use, which is given up only then. Its owner looks now and then. Loop's thread. */
#pragma once

#include "base/base.h"
#include "kafka/access.h"

struct log_scope;

struct kafka_trial;
/* wake: any task of the loop. */
struct kafka_trial_config {
        const struct kafka_access *access;
        const struct log_scope *log;
        struct loop *loop;
        struct task *wake;
};
int kafka_trial_new(struct kafka_trial **, const struct kafka_trial_config *, usec now,
                    struct error *) MUST_CHECK;
enum kafka_trial_result { KAFKA_TRIAL_UNDER_WAY, KAFKA_TRIAL_LET_IN, KAFKA_TRIAL_REFUSED };
/* REFUSED: why, for people; appends. Both others append nothing. */
enum kafka_trial_result kafka_trial_look(struct kafka_trial *, usec now, struct buf *why);
struct kafka_trial *kafka_trial_free(struct kafka_trial *); /* NULL is fine; returns NULL */

/* Look again after this. */
#define KAFKA_TRIAL_INTERVAL (100 * USEC_MSEC)
