#include "kafka/client.h"

#include <sys/prctl.h>

#include "log/log.h"

/* Its threads inherit this: they wait whole milliseconds for a timer and turn for the rest of the last one,
 * all their time when idle. */
enum { TIMER_SLACK_NS = 2000000 };

/* Any thread. */
static void on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
        log_debug_for(rk ? rd_kafka_opaque(rk) : NULL, "librdkafka", LOG_I("severity", level),
                      LOG_S("facility", facility), LOG_S("text", text));
}

/* ---- configuration ------------------------------------------------------ */

static int set_all(rd_kafka_conf_t *conf, const struct kafka_option *options, size_t n, struct error *err)
{
        char why[256];

        for (size_t i = 0; i < n; i++)
                if (options[i].value && rd_kafka_conf_set(conf, options[i].name, options[i].value, why,
                                                          sizeof(why)) != RD_KAFKA_CONF_OK)
                        return error_set(err, ERROR_INVALID, "kafka option %s: %s", options[i].name, why);
        return 0;
}

int kafka_configure(rd_kafka_conf_t **out, const struct kafka_client_config *config,
                    const struct kafka_option *role, size_t n, struct error *err)
{
        const struct kafka_option common[] = {
                { "bootstrap.servers", config->bootstrap_servers },
                { "client.id", "sluice" },
                { "socket.keepalive.enable", "true" },
                { "socket.connection.setup.timeout.ms", "8000" },
                { "reconnect.backoff.max.ms", "5000" },
                { "log.queue", "false" },
        };
        rd_kafka_conf_t *conf = rd_kafka_conf_new();

        rd_kafka_conf_set_log_cb(conf, on_log);
        rd_kafka_conf_set_opaque(conf, (void *)(uintptr_t)config->log);
        if (set_all(conf, common, COUNT_OF(common), err) < 0 || set_all(conf, role, n, err) < 0) {
                rd_kafka_conf_destroy(conf);
                return -1;
        }
        *out = conf;
        return 0;
}

int kafka_start(rd_kafka_t **out, rd_kafka_type_t type, rd_kafka_conf_t *conf, struct error *err)
{
        char why[256];
        rd_kafka_t *rk;

        (void)prctl(PR_SET_TIMERSLACK, (unsigned long)TIMER_SLACK_NS);
        rk = rd_kafka_new(type, conf, why, sizeof(why));
        (void)prctl(PR_SET_TIMERSLACK, 0UL); /* the thread's own again */
        if (!rk) {
                rd_kafka_conf_destroy(conf);
                return error_set(err, ERROR_INVALID, "kafka: %s", why);
        }
        *out = rk;
        return 0;
}

/* ---- what errors mean --------------------------------------------------- */

const char *kafka_next_step(rd_kafka_resp_err_t code)
{
        switch ((int)code) {
        case RD_KAFKA_RESP_ERR__RESOLVE: return "check the broker's name, and the DNS that is asked";
        case RD_KAFKA_RESP_ERR__TRANSPORT:
        case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
                return "check that a broker listens there, and that no firewall or network policy is between";
        case RD_KAFKA_RESP_ERR__SSL:
                return "check that this listener speaks TLS, and which authority its certificate comes from";
        case RD_KAFKA_RESP_ERR__AUTHENTICATION:
        case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
        case RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM:
        case RD_KAFKA_RESP_ERR_ILLEGAL_SASL_STATE: return "check user name, password and mechanism";
        case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
        case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
        case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART: return "create the topic, or correct its name";
        case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION: return "correct the topic's name";
        case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
                return "give this client an ACL for the topic: Read and Describe to consume, Write to "
                       "produce";
        case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
                return "give this client an ACL for the consumer group: Read and Describe";
        case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
                return "give this client an ACL for the cluster: IdempotentWrite";
        case RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE:
        case RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION:
        case RD_KAFKA_RESP_ERR_UNSUPPORTED_FOR_MESSAGE_FORMAT: return "the broker is too old: upgrade it";
        default: return NULL;
        }
}

void kafka_explain(struct buf *out, rd_kafka_resp_err_t code, const char *words)
{
        const char *step = kafka_next_step(code);

        buf_text(out, words ? words : rd_kafka_err2str(code));
        if (step)
                buf_printf(out, ": %s", step);
}
