#include "kafka/trial.h"

#include "kafka/client.h"

/* So long a broker may take to let us in, or to say why it does not. */
static const usec PATIENCE = 20 * USEC_SEC;

struct kafka_trial {
        struct kafka_trial_config config;
        rd_kafka_t *rk;
        rd_kafka_queue_t *queue;
        usec until;
};

int kafka_trial_new(struct kafka_trial **out, const struct kafka_trial_config *c, usec now, struct error *err)
{
        /* Statistics tell that a broker is connected, which no event does. */
        static const struct kafka_option options[] = { { "statistics.interval.ms", "100" } };
        const struct kafka_client_config config = { .access = c->access, .log = c->log };
        struct kafka_trial *t = calloc(1, sizeof(*t));
        rd_kafka_conf_t *conf = NULL;

        if (!t)
                return error_memory(err);
        if (kafka_configure(&conf, &config, options, COUNT_OF(options), err) < 0) {
                free(t);
                return -1;
        }
        rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_STATS);
        if (kafka_start(&t->rk, RD_KAFKA_PRODUCER, c->access, conf, err) < 0) {
                free(t);
                return -1;
        }
        t->config = *c;
        t->queue = rd_kafka_queue_get_main(t->rk);
        t->until = now + PATIENCE;
        *out = t;
        return 0;
}

enum kafka_trial_result kafka_trial_look(struct kafka_trial *t, usec now, struct buf *why)
{
        enum kafka_trial_result result = KAFKA_TRIAL_UNDER_WAY;
        rd_kafka_event_t *event;

        while (result == KAFKA_TRIAL_UNDER_WAY && (event = rd_kafka_queue_poll(t->queue, 0))) {
                rd_kafka_resp_err_t code = rd_kafka_event_error(event);

                if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_STATS) {
                        if (strstr(rd_kafka_event_stats(event), "\"state\":\"UP\""))
                                result = KAFKA_TRIAL_LET_IN;
                } else if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_ERROR &&
                           code != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) { /* says why before */
                        BUF_AT_END struct buf words = BUF_INIT(4096);

                        kafka_access_quote(t->config.access, rd_kafka_event_error_string(event), &words);
                        kafka_explain(why, code, words.failed || !words.p ? NULL : words.p);
                        result = KAFKA_TRIAL_REFUSED;
                }
                rd_kafka_event_destroy(event);
        }
        if (result == KAFKA_TRIAL_UNDER_WAY && now >= t->until) {
                buf_text(why, "no broker has answered in time");
                result = KAFKA_TRIAL_REFUSED;
        }
        return result;
}

struct kafka_trial *kafka_trial_free(struct kafka_trial *t)
{
        if (!t)
                return NULL;
        rd_kafka_queue_destroy(t->queue);
        kafka_end(t->rk, t->config.loop, t->config.wake);
        free(t);
        return NULL;
}
