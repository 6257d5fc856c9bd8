#include "kafka/access.h"
#include "kafka/client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

/* Where the cluster is, without a user or TLS. */
static char first_server[] = "a:1", second_server[] = "b:2";
static char *server_list[] = { first_server, second_server };
static const struct kafka_cluster cluster = { .bootstrap_servers = { server_list, 2 } };
static const struct kafka_access access_to = { .cluster = &cluster };

static void what_all_clients_share_and_the_role_are_set(void **state UNUSED)
{
        static const struct {
                const char *name, *value;
        } expected[] = {
                { "bootstrap.servers", "a:1,b:2" },
                { "client.id", "sluice" },
                { "socket.keepalive.enable", "true" },
                { "reconnect.backoff.max.ms", "7" }, /* the role's own */
                { "group.id", "g" },
        };
        const struct kafka_option role[] = { { "group.id", "g" },
                                             { "group.instance.id", NULL },
                                             { "reconnect.backoff.max.ms", "7" } };
        rd_kafka_conf_t *conf;
        struct error err;

        assert_int_equal(kafka_configure(&conf, &(struct kafka_client_config){ .access = &access_to }, role,
                                         COUNT_OF(role), &err),
                         0);
        for (size_t i = 0; i < COUNT_OF(expected); i++) {
                char value[64];
                size_t n = sizeof(value);

                assert_int_equal(rd_kafka_conf_get(conf, expected[i].name, value, &n), RD_KAFKA_CONF_OK);
                assert_string_equal(value, expected[i].value);
        }
        rd_kafka_conf_destroy(conf);
}

static void what_librdkafka_does_not_take_is_named(void **state UNUSED)
{
        const struct kafka_option wrong[] = { { "no.such.option", "1" } };
        rd_kafka_conf_t *conf;
        struct error err;

        assert_int_equal(
                kafka_configure(&conf, &(struct kafka_client_config){ .access = &access_to }, wrong, 1, &err),
                -1);
        assert_non_null(strstr(err.text, "no.such.option: librdkafka says: "));
}

static void an_error_has_its_own_words_and_a_next_step(void **state UNUSED)
{
        static const struct {
                rd_kafka_resp_err_t code;
                const char *words, *text;
        } cases[] = {
                { RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, NULL,
                  "Broker: Unknown topic or partition: create the topic, or correct its name" },
                { RD_KAFKA_RESP_ERR__RESOLVE, "nowhere:9092/bootstrap: Failed to resolve",
                  "nowhere:9092/bootstrap: Failed to resolve: check the broker's name, and the DNS that is "
                  "asked" },
                { RD_KAFKA_RESP_ERR__TIMED_OUT, NULL, "Local: Timed out" },
                { RD_KAFKA_RESP_ERR__TRANSPORT,
                  "a:1/1: Disconnected: verify that security.protocol is correctly configured, broker might "
                  "require SASL authentication",
                  "a:1/1: Disconnected: this listener expects a user (sasl)" },
                { RD_KAFKA_RESP_ERR__TIMED_OUT, "a:1/1: Timed out (after 6ms in state UP)",
                  "a:1/1: Timed out" },
                { RD_KAFKA_RESP_ERR__TRANSPORT, "a:1/1: sslv3 alert bad certificate: SSL alert number 42",
                  "a:1/1: sslv3 alert bad certificate: SSL alert number 42: the broker wants a certificate "
                  "of "
                  "ours that it trusts (tls.certSecretRef)" },
                { RD_KAFKA_RESP_ERR__TRANSPORT,
                  "a:1/1: SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?",
                  "a:1/1: SSL handshake failed: Disconnected: check that this listener speaks TLS" },
                { RD_KAFKA_RESP_ERR__AUTHENTICATION,
                  "a:1/1: Authentication failed during authentication due to invalid credentials with SASL "
                  "mechanism PLAIN",
                  "a:1/1: Authentication failed during authentication due to invalid credentials with SASL "
                  "mechanism PLAIN: check user name, password and mechanism" },
                { RD_KAFKA_RESP_ERR__AUTHENTICATION,
                  "a:1/1: SASL authentication error: {\"status\":\"invalid_token\"}",
                  "a:1/1: SASL authentication error: {\"status\":\"invalid_token\"}: the brokers do not "
                  "accept the token: check its issuer, audience and scopes (sasl.oauth), and the clocks" },
                { RD_KAFKA_RESP_ERR__AUTHENTICATION,
                  "Failed to acquire SASL OAUTHBEARER token: token: it has expired",
                  "Failed to acquire SASL OAUTHBEARER token: token: it has expired" },
                { RD_KAFKA_RESP_ERR__SSL,
                  "a:1/1: certificate verify failed: broker certificate could not be verified, verify that "
                  "ssl.ca.location is correctly configured",
                  "a:1/1: certificate verify failed: check which authority its certificate comes from "
                  "(tls.caSecretRef), and whether it is for this name (tls.verifyHostname)" },
        };
        static const rd_kafka_resp_err_t with_a_step[] = {
                RD_KAFKA_RESP_ERR__TRANSPORT,
                RD_KAFKA_RESP_ERR__SSL,
                RD_KAFKA_RESP_ERR__AUTHENTICATION,
                RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED,
                RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
                RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED,
                RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION,
        };

        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                BUF_AT_END struct buf text = BUF_INIT(1024);

                kafka_explain(&text, cases[i].code, cases[i].words);
                assert_string_equal(text.p, cases[i].text);
        }
        for (size_t i = 0; i < COUNT_OF(with_a_step); i++)
                assert_non_null(kafka_next_step(with_a_step[i]));
}

/* What librdkafka itself reports about a name that no DNS knows, and a port where nobody listens. */
static rd_kafka_resp_err_t first_error(char *servers)
{
        rd_kafka_resp_err_t code = RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN;
        rd_kafka_queue_t *queue;
        rd_kafka_conf_t *conf;
        struct error err;
        rd_kafka_t *rk;

        char *list[] = { servers };
        const struct kafka_cluster there = { .bootstrap_servers = { list, 1 } };
        const struct kafka_access access = { .cluster = &there };

        assert_int_equal(
                kafka_configure(&conf, &(struct kafka_client_config){ .access = &access }, NULL, 0, &err), 0);
        rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_ERROR);
        assert_int_equal(kafka_start(&rk, RD_KAFKA_PRODUCER, &access, conf, &err), 0);
        queue = rd_kafka_queue_get_main(rk);
        while (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) {
                rd_kafka_event_t *event = rd_kafka_queue_poll(queue, 1000);

                if (event && rd_kafka_event_type(event) == RD_KAFKA_EVENT_ERROR)
                        code = rd_kafka_event_error(event);
                if (event)
                        rd_kafka_event_destroy(event);
        }
        rd_kafka_queue_destroy(queue);
        rd_kafka_destroy(rk);
        return code;
}

static void librdkafka_tells_them_apart(void **state UNUSED)
{
        char nowhere[] = "nowhere.invalid:9092", nobody[] = "127.0.0.1:1";

        (void)alarm(60);
        assert_int_equal(first_error(nowhere), RD_KAFKA_RESP_ERR__RESOLVE);
        assert_int_equal(first_error(nobody), RD_KAFKA_RESP_ERR__TRANSPORT);
        (void)alarm(0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(what_all_clients_share_and_the_role_are_set),
                cmocka_unit_test(what_librdkafka_does_not_take_is_named),
                cmocka_unit_test(an_error_has_its_own_words_and_a_next_step),
                cmocka_unit_test(librdkafka_tells_them_apart),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
