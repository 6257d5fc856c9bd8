#include <jansson.h>
#include <stdio.h>

#include "log/log.h"
#include "source/kafka/inside.h"

/* ---- state -------------------------------------------------------------- */

/* The words that say most stay: "connection refused" is not replaced by another broker's, nor by "all brokers
 * are down", but replaces the guess that librdkafka makes when an established connection ends. How long it
 * had lasted is of no use, and would make each a new message. */
static void remember_trouble(struct kafka *s, rd_kafka_resp_err_t code, const char *text)
{
        const char *span = strstr(text, " (after ");
        BUF_AT_END struct buf words = BUF_INIT(1024), whole = BUF_INIT(2048);

        if (s->trouble[0] &&
            (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN || !strstr(s->trouble, "Disconnected")))
                return;
        buf_add(&words, text, MIN_OF(span ? (size_t)(span - text) : strlen(text), sizeof(s->trouble) - 1));
        kafka_explain(&whole, code, words.p);
        (void)snprintf(s->trouble, sizeof(s->trouble), "%s", whole.p ? whole.p : text);
}

/* Which of several brokers it is about does not matter yet: statistics tell whether a partition of ours lies
 * there. */
static void disconnected(struct kafka *s, rd_kafka_resp_err_t code, const char *text)
{
        remember_trouble(s, code, text);
        if (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN || s->state == SOURCE_CONNECTING ||
            s->state == SOURCE_DISCONNECTED)
                kafka_set_state(s, SOURCE_DISCONNECTED, s->trouble);
}

static void failed(struct kafka *s, rd_kafka_resp_err_t code, const char *text)
{
        BUF_AT_END struct buf whole = BUF_INIT(2048);

        kafka_explain(&whole, code, text);
        kafka_set_state(s, SOURCE_FAILED, whole.p ? whole.p : text);
}

/* Its topic may be made again while what it has given is under way. */
static void topic_unknown(struct kafka *s, const char *text)
{
        for (size_t i = 0; i < s->spec->topics.n; i++) {
                const char *name = s->spec->topics.list[i], *at = strstr(text, name);

                /* "Subscribed topic not available: NAME: Broker: Unknown topic or partition" */
                if (!at || at - text < 2 || memcmp(at - 2, ": ", 2) != 0 || at[strlen(name)] != ':')
                        continue;
                s->missing[i] = true;
                for (uint32_t k = 0; k < s->partitions_n; k++)
                        if (strcmp(s->partitions[k]->topic, name) == 0) {
                                s->partitions[k]->gone = true;
                                s->partitions[k]->why = RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
                        }
        }
        if (s->state == SOURCE_CONNECTED && kafka_troubled(s) && kafka_reads_any(s))
                kafka_set_reading(s);
        else
                failed(s, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, text);
}

/* This consumer is done for; the partitions are someone else's. */
void state_fatal(struct kafka *s, const char *text)
{
        char why[sizeof(s->text)];
        rd_kafka_resp_err_t code = rd_kafka_fatal_error(s->rk, why, sizeof(why));

        if (s->fatal)
                return;
        s->fatal = true;
        kafka_set_state(s, SOURCE_FAILED, code ? why : text);
        assignment_revoking(s, true);
        s->unassign = false;
}

static void on_error(struct kafka *s, rd_kafka_event_t *event)
{
        rd_kafka_resp_err_t code = rd_kafka_event_error(event);
        const char *text = rd_kafka_event_error_string(event);

        if (code == RD_KAFKA_RESP_ERR__FATAL || rd_kafka_event_error_is_fatal(event)) {
                state_fatal(s, text);
                return;
        }
        switch ((int)code) {
        case RD_KAFKA_RESP_ERR__TRANSPORT:
        case RD_KAFKA_RESP_ERR__RESOLVE:
        case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
        case RD_KAFKA_RESP_ERR__AUTHENTICATION:
        case RD_KAFKA_RESP_ERR__SSL: disconnected(s, code, text); break;
        case RD_KAFKA_RESP_ERR__MAX_POLL_EXCEEDED: kafka_set_state(s, SOURCE_DISCONNECTED, text); break;
        case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART: topic_unknown(s, text); break;
        case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
        case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED: failed(s, code, text); break;
        default: log_warn_for(s->services->log, "kafka", LOG_S("error", text)); break;
        }
}

/* Are all brokers up that lead a partition of ours? Without a partition, is any? */
static bool brokers_up(const struct kafka *s, json_t *root)
{
        json_t *brokers = json_object_get(root, "brokers"), *broker;
        const char *name;
        bool any = false;

        json_object_foreach(brokers, name, broker)
        {
                const char *state = json_string_value(json_object_get(broker, "state"));
                json_int_t id = json_integer_value(json_object_get(broker, "nodeid"));
                bool up = state && strcmp(state, "UP") == 0, leads = false;

                any = any || (up && id >= 0);
                for (uint32_t i = 0; !up && id >= 0 && i < s->partitions_n; i++) {
                        const struct partition *p = s->partitions[i];
                        char number[16];
                        json_t *partition;

                        (void)snprintf(number, sizeof(number), "%d", p->number);
                        partition = json_object_get(
                                json_object_get(json_object_get(json_object_get(root, "topics"), p->topic),
                                                "partitions"),
                                number);
                        leads = leads || (p->queue && partition &&
                                          json_integer_value(json_object_get(partition, "leader")) == id);
                }
                if (leads)
                        return false;
        }
        return any;
}

/* Statistics tell that a broker is there again, which no event does. */
static void on_statistics(struct kafka *s, const char *text)
{
        bool up, reading = false;
        json_t *root;

        if (!s->trouble[0] && s->state != SOURCE_DISCONNECTED && s->state != SOURCE_CONNECTING)
                return;
        root = json_loads(text, 0, NULL);
        up = brokers_up(s, root);
        json_decref(root);
        for (uint32_t i = 0; i < s->partitions_n; i++)
                reading = reading || (s->partitions[i]->queue && !s->partitions[i]->unplaced &&
                                      !s->partitions[i]->ready);
        if (!up && s->trouble[0] && s->state != SOURCE_FAILED)
                kafka_set_state(s, SOURCE_DISCONNECTED, s->trouble);
        if (!up)
                return;
        s->trouble[0] = 0;
        if (s->state != SOURCE_DISCONNECTED && s->state != SOURCE_CONNECTING)
                return;
        if (reading)
                kafka_set_reading(s);
        else if (s->state == SOURCE_DISCONNECTED || !s->text[0])
                kafka_set_state(s, SOURCE_CONNECTING, "joining the consumer group");
}

void state_serve(struct kafka *s)
{
        rd_kafka_event_t *event;

        while ((event = rd_kafka_queue_poll(s->queue, 0))) {
                switch (rd_kafka_event_type(event)) {
                case RD_KAFKA_EVENT_REBALANCE: assignment_rebalance(s, event); break;
                case RD_KAFKA_EVENT_OFFSET_COMMIT: commit_answered(s, event); break;
                case RD_KAFKA_EVENT_ERROR: on_error(s, event); break;
                case RD_KAFKA_EVENT_STATS: on_statistics(s, rd_kafka_event_stats(event)); break;
                case RD_KAFKA_EVENT_DESCRIBECONSUMERGROUPS_RESULT:
                case RD_KAFKA_EVENT_LISTCONSUMERGROUPOFFSETS_RESULT: group_told(s, event); break;
                default: break;
                }
                rd_kafka_event_destroy(event);
        }
}
