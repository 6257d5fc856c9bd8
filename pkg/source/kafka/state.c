#include <jansson.h>
#include <stdatomic.h>
#include <stdio.h>

#include "log/log.h"
#include "source/kafka/inside.h"

/* Every so many statistics are read while nothing is amiss: they grow with the partitions. */
enum { TROUBLE_SHOWN = 300, STATISTICS_PASSED = 3 };
/* Beyond fetch.wait.max.ms: an answer that is later than this is no longer on its way. */
enum { SILENT_MS = 15000 };

/* ---- state -------------------------------------------------------------- */

/* The words that say most stay: "connection refused" is not replaced by another broker's, nor by "all brokers
 * are down", but replaces the guess that librdkafka makes when an established connection ends. */
static void remember_trouble(struct kafka *s, rd_kafka_resp_err_t code, const char *text)
{
        BUF_AT_END struct buf whole = BUF_INIT(2048);

        if (s->trouble[0] &&
            (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN || !strstr(s->trouble, "Disconnected")))
                return;
        kafka_explain(&whole, code, text);
        (void)snprintf(s->trouble, sizeof(s->trouble), "%s", whole.p ? whole.p : text);
}

static const struct partition *first_away(const struct kafka *s)
{
        for (uint32_t i = 0; i < s->partitions_n; i++)
                if (s->partitions[i]->away && s->partitions[i]->queue)
                        return s->partitions[i];
        return NULL;
}

/* What waits in its queue was sent before, and says nothing of its broker. */
static void nothing_fresh(struct partition *p)
{
        p->fresh = false;
        if (atomic_exchange_explicit(&p->readable, false, memory_order_acquire))
                p->more = true;
}

static void say_disconnected(struct kafka *s)
{
        char text[sizeof(s->text)];
        const char *why = !s->trouble[0] && s->silent ? "it does not answer" : s->trouble;

        for (uint32_t i = 0; i < s->partitions_n && s->state != SOURCE_DISCONNECTED; i++)
                nothing_fresh(s->partitions[i]);

        if (s->away)
                (void)snprintf(text, sizeof(text), "topic %s, partition %d: its broker is away%s%.*s",
                               s->away->topic, s->away->number, *why ? ": " : "", TROUBLE_SHOWN, why);
        else
                (void)snprintf(text, sizeof(text), "%s", s->trouble);
        kafka_set_state(s, SOURCE_DISCONNECTED, text);
}

/* Which of several brokers it is about does not matter yet: statistics tell whether a partition of ours lies
 * there. */
static void disconnected(struct kafka *s, rd_kafka_resp_err_t code, const char *text)
{
        remember_trouble(s, code, text);
        if (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN || s->state == SOURCE_CONNECTING ||
            s->state == SOURCE_DISCONNECTED)
                say_disconnected(s);
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

/* Whatever is known to be wrong is over. */
static void well_again(struct kafka *s)
{
        s->trouble[0] = 0;
        if (s->state == SOURCE_FAILED)
                return;
        if (kafka_reads_any(s))
                kafka_set_reading(s);
        else if (s->state == SOURCE_DISCONNECTED || !s->text[0])
                kafka_set_state(s, SOURCE_CONNECTING, "joining the consumer group");
}

void state_unanswered(struct kafka *s, const char *what, rd_kafka_resp_err_t why)
{
        (void)snprintf(s->silence, sizeof(s->silence), "%s: %s", what, rd_kafka_err2str(why));
        if (s->state != SOURCE_DISCONNECTED && s->state != SOURCE_FAILED)
                kafka_set_state(s, SOURCE_CONNECTING, s->silence);
}

void state_answered(struct kafka *s)
{
        bool silent = s->silence[0] != 0;

        s->silence[0] = 0;
        if (!s->away && !s->leaderless && (silent || s->state == SOURCE_DISCONNECTED))
                well_again(s);
}

void state_heard(struct kafka *s, struct partition *p)
{
        bool was = p->away;

        p->away = p->fresh = false;
        s->away = first_away(s);
        if (s->state != SOURCE_DISCONNECTED)
                return;
        if (!s->away)
                well_again(s);
        else if (was)
                say_disconnected(s);
}

void state_unreadable(struct kafka *s, struct partition *p, const char *why)
{
        char text[sizeof(s->text)];
        char *copy;

        (void)snprintf(text, sizeof(text), "topic %s, partition %d: %s", p->topic, p->number, why);
        copy = str_dup(str_of(text));
        if (copy)
                partition_set_unreadable(p, copy);
        if (p->unreadable)
                kafka_set_reading(s);
        else
                kafka_set_state(s, SOURCE_FAILED, text);
}

void state_readable(struct kafka *s, struct partition *p)
{
        partition_set_unreadable(p, NULL);
        if (s->state == SOURCE_FAILED)
                kafka_set_reading(s);
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
        BUF_AT_END struct buf words = BUF_INIT(4096);
        const char *text;

        if (code == RD_KAFKA_RESP_ERR__AUTHENTICATION)
                kafka_access_refused(&s->access);
        kafka_access_quote(&s->access, rd_kafka_event_error_string(event), &words);
        text = words.failed || !words.p ? rd_kafka_err2str(code) : words.p;
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

/* ---- statistics --------------------------------------------------------- */

struct brokers {
        bool any; /* one that is known by its number is up */
        size_t n;
        struct {
                json_int_t id;
                bool up, silent;
        } list[];
};

static int64_t silent_after(const struct kafka *s)
{
        const struct string_map *given = &s->spec->properties;
        int64_t ms = SILENT_MS;

        for (size_t i = 0; i < given->n; i++)
                if (strcmp(given->keys[i], "fetch.wait.max.ms") == 0)
                        ms += strtoll(given->values[i], NULL, 10);
        return ms * USEC_MSEC;
}

/* Its connection stands, and it owes an answer that is long due. The group's coordinator, which has a
 * connection of its own, answers who joins when all have joined. */
static bool is_silent(json_t *broker, int64_t after)
{
        const char *source = json_string_value(json_object_get(broker, "source"));

        return json_integer_value(json_object_get(broker, "waitresp_cnt")) > 0 &&
               json_integer_value(json_object_get(broker, "rxidle")) > after &&
               !(source && strcmp(source, "logical") == 0);
}

static struct brokers *read_brokers(json_t *root, int64_t silent_after)
{
        json_t *all = json_object_get(root, "brokers"), *broker;
        struct brokers *b = calloc(1, sizeof(*b) + json_object_size(all) * sizeof(b->list[0]));
        const char *name;

        if (!b)
                return NULL;
        json_object_foreach(all, name, broker)
        {
                const char *state = json_string_value(json_object_get(broker, "state"));

                b->list[b->n].id = json_integer_value(json_object_get(broker, "nodeid"));
                b->list[b->n].up = state && strcmp(state, "UP") == 0;
                b->list[b->n].silent = is_silent(broker, silent_after);
                b->any = b->any || (b->list[b->n].up && b->list[b->n].id >= 0);
                b->n++;
        }
        return b;
}

static bool is_up(const struct brokers *b, json_int_t id)
{
        for (size_t i = 0; i < b->n; i++)
                if (b->list[i].id == id)
                        return b->list[i].up;
        return false;
}

static bool owes_an_answer(const struct brokers *b, json_int_t id)
{
        for (size_t i = 0; i < b->n; i++)
                if (b->list[i].id == id && b->list[i].silent)
                        return true;
        return false;
}

/* false: brokers have not told of the partition yet. */
static bool leader_of(json_t *root, const struct partition *p, json_int_t *leader)
{
        json_t *topic = json_object_get(json_object_get(root, "topics"), p->topic), *found;
        char number[16];

        (void)snprintf(number, sizeof(number), "%d", p->number);
        found = json_object_get(json_object_get(json_object_get(topic, "partitions"), number), "leader");
        *leader = json_integer_value(found);
        return json_is_integer(found);
}

static void set_away(struct partition *p, bool away)
{
        p->away = away;
        if (away)
                nothing_fresh(p);
}

/* Of the partitions that are ours, and that brokers know, those whose leader is not connected. Without leader
 * is one that is about to get another, too, and nothing was read while this process itself was held: both
 * count from the second time on. */
static void find_away(struct kafka *s, const struct brokers *b, json_t *root)
{
        bool again = s->leaderless, still = s->silent;

        s->leaderless = s->silent = false;
        for (uint32_t i = 0; i < s->partitions_n; i++) {
                struct partition *p = s->partitions[i];
                json_int_t leader;
                bool known = p->queue && !partition_set_aside(p) && leader_of(root, p, &leader),
                     silent = known && owes_an_answer(b, leader);

                s->leaderless = s->leaderless || (known && leader < 0);
                s->silent = s->silent || silent;
                set_away(p, known && (leader < 0 ? again : !is_up(b, leader) || (silent && still)));
        }
        s->away = first_away(s);
}

/* What is away is told as long as it is, and nothing else takes its place. */
static void look_at_brokers(struct kafka *s, const struct brokers *b, json_t *root)
{
        find_away(s, b, root);
        if (s->away || !b->any) {
                if ((s->trouble[0] || s->leaderless || (s->silent && !s->silence[0])) &&
                    s->state != SOURCE_FAILED)
                        say_disconnected(s);
                return;
        }
        if (!s->leaderless)
                s->trouble[0] = 0;
        if (!s->leaderless && (s->state == SOURCE_DISCONNECTED || s->state == SOURCE_CONNECTING))
                well_again(s);
}

/* They tell what no event does: that a broker is there again, and that a partition has none. */
static void on_statistics(struct kafka *s, const char *text)
{
        FREE_AT_END struct brokers *brokers = NULL;
        json_t *root;

        if (!s->trouble[0] && !s->leaderless && !s->silent && s->state != SOURCE_DISCONNECTED &&
            s->state != SOURCE_CONNECTING && ++s->statistics < STATISTICS_PASSED)
                return;
        s->statistics = 0;
        root = json_loads(text, 0, NULL);
        brokers = read_brokers(root, silent_after(s));
        if (root && brokers)
                look_at_brokers(s, brokers, root);
        json_decref(root);
}

/* ---- events ------------------------------------------------------------- */

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
