#include "kafka/client.h"

#include <sys/prctl.h>

#include "base/helper.h"
#include "kafka/access.h"
#include "log/log.h"

/* Its threads inherit this: they wait whole milliseconds for a timer and turn for the rest of the last one,
 * all their time when idle. */
enum { TIMER_SLACK_NS = 2000000 };
enum { ENDED_WITHIN_MS = 500 };

/* Any thread, so that our secrets are not at hand: what a broker says of them, which may quote them, is left
 * out. The state has it without them. */
static void on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
        if (strstr(text, "SASL"))
                text = "of SASL: see the source's reason";
        log_debug_for(rk ? rd_kafka_opaque(rk) : NULL, "librdkafka", LOG_I("severity", level),
                      LOG_S("facility", facility), LOG_S("text", text));
}

/* ---- configuration ------------------------------------------------------ */

int kafka_set(rd_kafka_conf_t *conf, const char *name, const char *value, struct error *err)
{
        char why[256];

        if (rd_kafka_conf_set(conf, name, value, why, sizeof(why)) == RD_KAFKA_CONF_OK)
                return 0;
        return error_set(err, ERROR_INVALID, "%s: librdkafka says: %s", name, why);
}

static int set_all(rd_kafka_conf_t *conf, const struct kafka_option *options, size_t n, struct error *err)
{
        for (size_t i = 0; i < n; i++)
                if (options[i].value && kafka_set(conf, options[i].name, options[i].value, err) < 0)
                        return -1;
        return 0;
}

int kafka_configure(rd_kafka_conf_t **out, const struct kafka_client_config *config,
                    const struct kafka_option *role, size_t n, struct error *err)
{
        const struct kafka_option common[] = {
                { "client.id", "sluice" },
                { "socket.keepalive.enable", "true" },
                { "socket.connection.setup.timeout.ms", "8000" },
                { "reconnect.backoff.max.ms", "5000" },
                { "log.queue", "false" },
        };
        rd_kafka_conf_t *conf = rd_kafka_conf_new();

        rd_kafka_conf_set_log_cb(conf, on_log);
        rd_kafka_conf_set_opaque(conf, (void *)(uintptr_t)config->log);
        if (kafka_access_configure(config->access, conf, err) < 0 ||
            set_all(conf, common, COUNT_OF(common), err) < 0 || set_all(conf, role, n, err) < 0) {
                rd_kafka_conf_destroy(conf);
                return -1;
        }
        *out = conf;
        return 0;
}

int kafka_start(rd_kafka_t **out, rd_kafka_type_t type, const struct kafka_access *access,
                rd_kafka_conf_t *conf, struct error *err)
{
        char why[256];
        rd_kafka_t *rk;

        (void)prctl(PR_SET_TIMERSLACK, (unsigned long)TIMER_SLACK_NS);
        rk = rd_kafka_new(type, conf, why, sizeof(why));
        (void)prctl(PR_SET_TIMERSLACK, 0UL); /* the thread's own again */
        if (!rk) {
                BUF_AT_END struct buf text = BUF_INIT(1024);

                rd_kafka_conf_destroy(conf);
                kafka_explain(&text, RD_KAFKA_RESP_ERR_NO_ERROR, why);
                return error_set(err, ERROR_INVALID, "kafka: %s", text.p ? text.p : why);
        }
        if (access->token)
                kafka_access_renew(access, rk);
        *out = rk;
        return 0;
}

/* The first member: the helper may have to free it. */
struct ending {
        struct helper_job job;
        rd_kafka_t *rk;
};

static void destroy(struct helper_job *job) { rd_kafka_destroy(CONTAINER_OF(job, struct ending, job)->rk); }

void kafka_end(rd_kafka_t *rk, struct loop *loop, struct task *wake)
{
        struct ending *e = calloc(1, sizeof(*e));
        struct helper *h = NULL;
        struct error ignored;

        rd_kafka_set_log_level(rk, 0); /* it may outlive whose log that is */
        if (e)
                *e = (struct ending){ .job.work = destroy, .rk = rk };
        if (!e || helper_new(&h, loop_waker(loop), wake, &ignored) < 0 ||
            helper_submit(h, &e->job, &ignored) < 0)
                rd_kafka_destroy(rk); /* no thread is to be had */
        else if (helper_leave(h, &e->job))
                return; /* which frees both */
        h = helper_free(h);
        free(e);
}

void kafka_ended(void) { (void)rd_kafka_wait_destroyed(ENDED_WITHIN_MS); }

/* ---- what errors mean --------------------------------------------------- */

const char *kafka_next_step(rd_kafka_resp_err_t code)
{
        switch ((int)code) {
        case RD_KAFKA_RESP_ERR__RESOLVE: return "check the broker's name, and the DNS that is asked";
        case RD_KAFKA_RESP_ERR__TRANSPORT:
        case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
                return "check that a broker listens there, and that no firewall or network policy is between";
        case RD_KAFKA_RESP_ERR__SSL: return "check that this listener speaks TLS";
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

/* Which of both it is, brokers tell in different words. */
#define WANTS_CERTIFICATE "the broker wants a certificate of ours that it trusts (tls.certSecretRef)"

#define TOKEN_STEP                                                                                           \
        "the brokers do not accept the token: check its issuer, audience and scopes (sasl.oauth), and the "  \
        "clocks"

/* What librdkafka says where its code does not tell: by its words, of which the guess that follows is in
 * terms of its own options. */
static const struct saying {
        const char *words, *guess, *step;
} sayings[] = {
        { "certificate verify failed", ": broker certificate could not be verified",
          "check which authority its certificate comes from (tls.caSecretRef), and whether it is for this "
          "name (tls.verifyHostname)" },
        { "alert bad certificate", NULL, WANTS_CERTIFICATE },
        { "certificate required", NULL, WANTS_CERTIFICATE },
        { "alert unknown ca", NULL, WANTS_CERTIFICATE },
        { "alert certificate unknown", NULL, WANTS_CERTIFICATE },
        { "connecting to a PLAINTEXT broker", ": connecting to a PLAINTEXT broker",
          "check that this listener speaks TLS" },
        { "Disconnected while requesting ApiVersion", ": might be caused by",
          "this listener may expect TLS (tls) or a user (sasl), or is no broker's" },
        { "might require SASL authentication", ": verify that security.protocol",
          "this listener expects a user (sasl)" },
        { "Failed to acquire SASL OAUTHBEARER token", NULL, NULL },
        { "SASL authentication error: {\"status\"", NULL, TOKEN_STEP },
        { "SASL OAUTHBEARER authentication failed", NULL, TOKEN_STEP },
        { "SASL mechanism SCRAM", " during authentication due to", "check user name and password" },
        { "ssl.ca.location failed", NULL, "tls.caSecretRef must hold certificates in PEM" },
        { "ssl.certificate.location failed", NULL, "tls.certSecretRef must hold a certificate in PEM" },
        { "ssl.key.location failed", NULL,
          "tls.keySecretRef must hold the key in PEM, without a password, of tls.certSecretRef" },
};

static const struct saying *saying_of(const char *words)
{
        for (size_t i = 0; i < COUNT_OF(sayings); i++)
                if (strstr(words, sayings[i].words))
                        return &sayings[i];
        return NULL;
}

/* Its SCRAM sent a nonce that brokers of Kafka 4 refuse, as they do a wrong password. */
static bool scram_is_old(const char *words)
{
        return rd_kafka_version() < 0x020601ff && strstr(words, "SASL mechanism SCRAM");
}

/* How long a connection had lasted is of no use, and would make each a new message. */
static size_t length_of_use(const char *words, const char *guess)
{
        const char *span = strstr(words, " (after ");
        size_t n = guess ? (size_t)(guess - words) : strlen(words);

        return span && (size_t)(span - words) < n ? (size_t)(span - words) : n;
}

void kafka_explain(struct buf *out, rd_kafka_resp_err_t code, const char *words)
{
        const char *all = words ? words : rd_kafka_err2str(code);
        const struct saying *saying = saying_of(all);
        const char *guess = saying && saying->guess ? strstr(all, saying->guess) : NULL,
                   *step = saying ? saying->step : kafka_next_step(code);

        buf_add(out, all, length_of_use(all, guess));
        if (step)
                buf_printf(out, ": %s", step);
        if (scram_is_old(all))
                buf_printf(out, "; librdkafka %s can't do SCRAM with Kafka 4, 2.6.1 can",
                           rd_kafka_version_str());
}
