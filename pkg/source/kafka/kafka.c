#include "source/kafka/kafka.h"

#include <regex.h>
#include <stdatomic.h>
#include <stdio.h>

#include "base/backoff.h"
#include "log/log.h"
#include "source/kafka/inside.h"

/* How long others wait for us in a rebalance, at most, for what is in flight. */
static const usec REVOKE_GRACE = 3 * USEC_SEC;
/* Polled at least this often, so that the group does not take us for stuck (max.poll.interval.ms). */
static const usec POLL_INTERVAL = 20 * USEC_SEC;
/* A consumer that another one of its name has fenced off waits as long, or twice, before it joins again: a
 * worker that was replaced is stopped by then. */
static const usec REJOIN = 30 * USEC_SEC;
/* Certificates that were refused are tried again after this, and when they change. */
static const usec TRIED_AGAIN = 10 * USEC_SEC;
/* How long the end of a consumer is waited for, which can't end while a broker owes it an answer. */
static const usec CLOSE_PATIENCE = 3 * USEC_SEC, DESTROY_PATIENCE = 2 * USEC_SEC;

enum { KAFKA_TOPIC_LONGEST = 249 };

/* ---- the spec ----------------------------------------------------------- */

static const char *const start_names[] = { "Earliest", "Latest", "Timestamp", NULL };
/* Options of librdkafka that leave what is promised as it is: a list as CEL has it, and people read it. */
#define PROPERTIES                                                                                           \
        "'client.id', 'client.rack', 'client.dns.lookup', 'broker.address.family', 'broker.address.ttl', "   \
        "'fetch.min.bytes', 'fetch.wait.max.ms', 'fetch.error.backoff.ms', 'session.timeout.ms', "           \
        "'heartbeat.interval.ms', 'metadata.max.age.ms', 'connections.max.idle.ms', 'socket.timeout.ms', "   \
        "'socket.connection.setup.timeout.ms', 'socket.send.buffer.bytes', 'socket.receive.buffer.bytes', "  \
        "'socket.nagle.disable', 'reconnect.backoff.ms', 'reconnect.backoff.max.ms', "                       \
        "'topic.metadata.refresh.interval.ms'"
static const char *const out_of_range_names[] = { "Earliest", "Latest", "Stop", NULL };
static const char *const isolation_names[] = { "ReadCommitted", "ReadUncommitted", NULL };
static const struct field kafka_fields[] = {
        KAFKA_CLUSTER_FIELDS(struct kafka_spec, cluster,
                             "Brokers to begin with, each HOST:PORT; the others are learned from them.",
                             .cloud = "kafka_connect_address"),
        FIELD(STRINGS, "topics", struct kafka_spec, topics, .min = 1, .max = 100, .set = true,
              .pattern = KAFKA_TOPIC_PATTERN, .format = KAFKA_TOPIC_FORMAT, .cloud = "topic_ids",
              .help = "Topics to read."),
        FIELD(STRING, "topicPattern", struct kafka_spec, topic_pattern, .min = 1, .max = 255,
              .pattern = "^[ -~]+$", .format = "printable ASCII",
              .help = "Instead of topics: an extended regular expression of POSIX that whole names match, "
                      "such as orders[.].+ ; topics that appear later are found within half a minute. Those "
                      "whose names begin with __ are Kafka's own, and are not read."),
        FIELD(STRING, "consumerGroup", struct kafka_spec, consumer_group, .min = 1, .max = 255,
              .help = "The consumer group that holds the positions; by default sluice.NAMESPACE.NAME."),
        FIELD(ENUM, "startPosition", struct kafka_spec, start_position, .fallback = "Latest",
              .values = start_names,
              .help = "Where the consumer group begins at its first start: Earliest reads all there is, "
                      "Latest only what comes from then on, Timestamp what is of startTimestamp or later. "
                      "Partitions and topics that appear later are read from their beginning."),
        FIELD(TIME, "startTimestamp", struct kafka_spec, start_timestamp,
              .help = "With Timestamp: reading begins at the first record of that time or later."),
        FIELD(ENUM, "offsetOutOfRange", struct kafka_spec, out_of_range, .fallback = "Earliest",
              .values = out_of_range_names,
              .help = "What is done when records are gone before they were delivered, by retention or a "
                      "deletion: Earliest goes on at the first record there is, Latest leaves those out, "
                      "too, and Stop reads nothing of the partition until it is set to one of the others. A "
                      "position behind the end is one of a topic that was made again: it is read from its "
                      "beginning, but with Stop."),
        FIELD(ENUM, "isolation", struct kafka_spec, isolation, .fallback = "ReadCommitted",
              .values = isolation_names,
              .help = "ReadCommitted leaves out the messages of transactions that were aborted, and waits "
                      "for those that are open; ReadUncommitted reads all."),
        FIELD(MAP, "properties", struct kafka_spec, properties, .max = 32, .value_max = 1024,
              .pattern = "^[ -~]*$", .format = "printable ASCII",
              .help = "Further options of librdkafka by its own names, of " PROPERTIES "."),
        FIELD(INT, "fetchBytes", struct kafka_spec, fetch_bytes, .fallback = "8388608", .min = 2097152,
              .max = 1073741824,
              .help = "What fetching ahead may take in memory over about four partitions, in bytes; half of "
                      "it is for records, half for what librdkafka keeps beside them."),
};
/* As librdkafka matches it. */
static void whole_pattern(const struct kafka_spec *spec, struct buf *out)
{
        buf_printf(out, "^(%s)$", spec->topic_pattern);
}

/* false: it is none, why says why, which may be NULL. */
static bool pattern_compiled(const struct kafka_spec *spec, regex_t *out, struct buf *why)
{
        BUF_AT_END struct buf whole = BUF_INIT(1024);
        char text[200];
        int code;

        whole_pattern(spec, &whole);
        code = whole.failed ? REG_ESPACE : regcomp(out, whole.p, REG_EXTENDED | REG_NOSUB);
        if (code == 0)
                return true;
        (void)regerror(code, out, text, sizeof(text));
        if (why)
                buf_printf(why, "the regular expression can't be read: %s", text);
        return false;
}

static bool pattern_compiles(const void *object, struct buf *why)
{
        const struct kafka_spec *spec = object;
        regex_t compiled;

        if (!spec->topic_pattern)
                return true;
        if (!pattern_compiled(spec, &compiled, why))
                return false;
        regfree(&compiled);
        return true;
}

static bool has_topics(const void *object)
{
        const struct kafka_spec *spec = object;

        return (spec->topics.n > 0) != (spec->topic_pattern != NULL);
}

static bool has_timestamp(const void *object)
{
        const struct kafka_spec *spec = object;

        return (spec->start_position == KAFKA_TIMESTAMP) == (spec->start_timestamp != 0);
}

static bool is_property(const char *name)
{
        char item[64];
        int n = snprintf(item, sizeof(item), "'%s'", name);

        return n < (int)sizeof(item) && !strchr(name, '\'') && strstr(PROPERTIES, item);
}

static bool properties_known(const void *object, struct buf *why)
{
        const struct string_map *all = &((const struct kafka_spec *)object)->properties;

        for (size_t i = 0; i < all->n; i++)
                if (!is_property(all->keys[i])) {
                        buf_printf(why, "%s is not to be set here: the reference lists the options that are",
                                   all->keys[i]);
                        return false;
                }
        return true;
}

static int set_properties(rd_kafka_conf_t *conf, const struct string_map *all, struct error *err)
{
        for (size_t i = 0; i < all->n; i++)
                if (is_property(all->keys[i]) && kafka_set(conf, all->keys[i], all->values[i], err) < 0)
                        return -1;
        return 0;
}

/* As librdkafka itself sees it. */
static bool properties_taken(const void *object, struct buf *why)
{
        rd_kafka_conf_t *conf = rd_kafka_conf_new();
        struct error err;
        bool taken = set_properties(conf, &((const struct kafka_spec *)object)->properties, &err) == 0;

        rd_kafka_conf_destroy(conf);
        if (!taken)
                buf_text(why, err.text);
        return taken;
}

static const struct rule kafka_rules[] = {
        RULE(.cel = "has(self.topics) != has(self.topicPattern)",
             .message = "give topics or topicPattern, one of them", .check = has_topics),
        RULE(.message = "must be an extended regular expression of POSIX", .path = "topicPattern",
             .explain = pattern_compiles),
        RULE(.cel = "!has(self.properties) || self.properties.all(k, k in [" PROPERTIES "])",
             .message = "only the options that the reference lists are to be set here", .path = "properties",
             .explain = properties_known),
        RULE(.message = "each value must be one that librdkafka takes", .path = "properties",
             .explain = properties_taken),
        RULE(.cel = "(self.startPosition == 'Timestamp') == has(self.startTimestamp)",
             .message = "startTimestamp goes with startPosition Timestamp, and only with it",
             .path = "startTimestamp", .check = has_timestamp),
};
const struct type kafka_type = TYPE("KafkaSource", struct kafka_spec, kafka_fields,
                                    "Messages of Kafka topics, at least once, in order within a partition. A "
                                    "null value reaches the function as JSON null, "
                                    "a value that is not valid UTF-8, or begins with a NUL byte, as its "
                                    "Base64.",
                                    RULES(kafka_rules));

static bool contains(const struct strings *all, const char *one)
{
        for (size_t i = 0; i < all->n; i++)
                if (str_equal_nocase(str_of(all->list[i]), str_of(one)))
                        return true;
        return false;
}

static bool pattern_matches(const struct kafka_spec *spec, const char *topic)
{
        regex_t compiled;
        bool matches;

        if (!pattern_compiled(spec, &compiled, NULL))
                return false;
        matches = regexec(&compiled, topic, 0, NULL, 0) == 0;
        regfree(&compiled);
        return matches;
}

/* By another name of the same broker it can't be seen. */
bool kafka_fits(const void *object, const struct delivery_spec *d, struct buf *why)
{
        const struct kafka_spec *spec = object;
        const struct dead_letter_kafka *letters = d->dead_letter ? d->dead_letter->kafka : NULL;
        bool here = false;

        if (!letters)
                return true;
        for (size_t i = 0; i < letters->cluster.bootstrap_servers.n; i++)
                here = here ||
                       contains(&spec->cluster.bootstrap_servers, letters->cluster.bootstrap_servers.list[i]);
        if (here && spec->topic_pattern && pattern_matches(spec, letters->topic)) {
                buf_printf(why,
                           "topicPattern matches %s, where delivery.deadLetter.kafka puts dead letters: each "
                           "would come again as a record, without end; give the letters another topic",
                           letters->topic);
                return false;
        }
        for (size_t i = 0; here && i < spec->topics.n; i++)
                if (strcmp(spec->topics.list[i], letters->topic) == 0) {
                        buf_printf(
                                why,
                                "topic %s is where delivery.deadLetter.kafka puts dead letters: each would "
                                "come again as a record, without end; give the letters another topic",
                                letters->topic);
                        return false;
                }
        return true;
}

void kafka_group(const struct kafka_spec *spec, const struct trigger *t, struct buf *b)
{
        if (spec->consumer_group)
                buf_text(b, spec->consumer_group);
        else
                buf_printf(b, "sluice.%s.%s", t->namespace_, t->name);
}

/* ---- the source ------------------------------------------------------------ */

void kafka_set_state(struct kafka *s, enum source_state state, const char *text)
{
        if (s->state == state && strcmp(s->text, text) == 0)
                return;
        s->state = state;
        (void)snprintf(s->text, sizeof(s->text), "%s", text);
        s->state_changed = true;
}

/* Any thread. */
static void on_queue(rd_kafka_t *rk UNUSED, void *opaque)
{
        struct kafka *s = opaque;

        waker_ring(s->services->waker, &s->slot);
}

/* ---- configuration ------------------------------------------------------ */

enum { NUMBER = 24 };

static const char *number(char text[NUMBER], size_t value)
{
        (void)snprintf(text, NUMBER, "%zu", value);
        return text;
}

/* Kept ahead of each partition. The budget is for a handful of them: librdkafka counts what waits for each by
 * itself when its queue is read directly. It counts only the records' bytes: its structures, half as much
 * again for records of 1 KiB, and the fetch that overfills a queue are the other half. */
static size_t kilobytes_ahead(const struct kafka_spec *spec)
{
        return MAX_OF((size_t)spec->fetch_bytes / 1024 / 8, (size_t)256);
}

/* A thread that found the queues full looks again after this since 2.2; before, after up to a second, unless
 * it is woken. */
static bool queue_is_looked_at(void) { return rd_kafka_version() >= 0x02020000; }

/* KiB. A response is one block of memory. Of 4 MiB and more it would be mapped anew each time
 * (return_memory() in cmd/sluice), which costs a page fault every four records of 1 KiB. */
enum { FETCH_MOST = 3584 };

static int configure(rd_kafka_conf_t **out, const struct kafka_spec *spec, const struct kafka_access *access,
                     const struct services *services, struct error *err)
{
        BUF_AT_END struct buf group = BUF_INIT(1024);
        size_t kilobytes = kilobytes_ahead(spec),
               message = MIN_OF(MAX_OF(kilobytes / 4, (size_t)256), (size_t)1024),
               fetch = MIN_OF(MAX_OF(kilobytes / 2, (size_t)1024), (size_t)FETCH_MOST);
        char queued[NUMBER], of_message[NUMBER], of_fetch[NUMBER];

        kafka_group(spec, services->trigger, &group);
        if (group.failed)
                return error_memory(err);
        const struct kafka_client_config client = { .access = access, .log = services->log };
        const struct kafka_option options[] = {
                { "group.id", group.p },
                { "group.instance.id", services->instance },
                { "enable.auto.commit", "false" },
                { "enable.auto.offset.store", "false" },
                { "enable.partition.eof", "true" },
                { "allow.auto.create.topics", "false" },
                { "topic.blacklist", spec->topic_pattern ? "^__" : NULL },
                /* It would act whenever a position is missing or out of range: where to begin is decided
                 * here. */
                { "auto.offset.reset", "error" },
                { "isolation.level",
                  spec->isolation == KAFKA_READ_COMMITTED ? "read_committed" : "read_uncommitted" },
                { "topic.metadata.refresh.interval.ms", "30000" },
                { "partition.assignment.strategy", "range" },
                { "statistics.interval.ms", "5000" },
                { "queued.max.messages.kbytes", number(queued, kilobytes) },
                { "fetch.message.max.bytes", number(of_message, message * 1024) },
                { "fetch.max.bytes", number(of_fetch, fetch * 1024) },
                { "fetch.queue.backoff.ms", queue_is_looked_at() ? "5" : NULL },
        };

        if (kafka_configure(out, &client, options, COUNT_OF(options), err) < 0)
                return -1;
        if (set_properties(*out, &spec->properties, err) == 0)
                return 0;
        rd_kafka_conf_destroy(*out);
        return error_wrap(err, "properties");
}

/* ---- the consumer ------------------------------------------------------- */

int kafka_subscribe(struct kafka *s, struct error *err)
{
        rd_kafka_topic_partition_list_t *topics = rd_kafka_topic_partition_list_new((int)s->spec->topics.n +
                                                                                    1);
        BUF_AT_END struct buf pattern = BUF_INIT(1024);
        rd_kafka_resp_err_t r;

        for (size_t i = 0; i < s->spec->topics.n; i++)
                (void)rd_kafka_topic_partition_list_add(topics, s->spec->topics.list[i],
                                                        RD_KAFKA_PARTITION_UA);
        if (s->spec->topic_pattern) {
                whole_pattern(s->spec, &pattern);
                (void)rd_kafka_topic_partition_list_add(topics, pattern.p ? pattern.p : "^$",
                                                        RD_KAFKA_PARTITION_UA);
        }
        r = rd_kafka_subscribe(s->rk, topics);
        rd_kafka_topic_partition_list_destroy(topics);
        s->subscribed = r == RD_KAFKA_RESP_ERR_NO_ERROR;
        return r ? error_set(err, ERROR_INVALID, "subscribe: %s", rd_kafka_err2str(r)) : 0;
}

struct closer {
        struct helper_job job; /* the first member: the helper may have to free it */
        rd_kafka_t *rk;
};

static int open_consumer(struct kafka *s, struct error *err)
{
        rd_kafka_conf_t *conf = NULL;

        if (!s->helper && helper_new(&s->helper, s->services->waker, s->services->wake, err) < 0)
                return -1;
        if (!s->closer && !(s->closer = calloc(1, sizeof(*s->closer))))
                return error_memory(err);
        if (configure(&conf, s->spec, &s->access, s->services, err) < 0)
                return -1;
        rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_REBALANCE | RD_KAFKA_EVENT_OFFSET_COMMIT |
                                               RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_STATS |
                                               RD_KAFKA_EVENT_DESCRIBECONSUMERGROUPS_RESULT |
                                               RD_KAFKA_EVENT_LISTCONSUMERGROUPOFFSETS_RESULT);
        if (kafka_start(&s->rk, RD_KAFKA_CONSUMER, &s->access, conf, err) < 0)
                return -1;
        (void)rd_kafka_poll_set_consumer(s->rk);
        s->queue = rd_kafka_queue_get_consumer(s->rk);
        rd_kafka_queue_cb_event_enable(s->queue, on_queue, s);
        loop_ready(s->services->loop, s->services->wake); /* nobody rings for what is in it already */
        /* With Earliest it makes no difference whether the group has begun before. */
        if (s->established || s->spec->start_position == KAFKA_EARLIEST)
                return kafka_subscribe(s, err);
        group_ask(s);
        return 0;
}

static int open_access(struct kafka_access *a, const struct kafka_spec *spec, const struct services *services,
                       struct task *wake, struct error *err)
{
        const struct kafka_access_config config = { .cluster = &spec->cluster,
                                                    .loop = services->loop,
                                                    .secrets = services->secrets,
                                                    .wake = wake,
                                                    .http = services->http,
                                                    .peers = services->peers };

        return kafka_access_open(a, &config, err);
}

static int kafka_check(const void *spec, const struct services *services, struct error *err)
{
        struct kafka_access access = { 0 };
        BUF_AT_END struct buf lacks = BUF_INIT(1024);
        rd_kafka_conf_t *conf = NULL;
        int result = 0;

        if (open_access(&access, spec, services, NULL, err) < 0)
                return -1;
        if (!kafka_access_lacks(&access, &lacks)) { /* which may come at any time */
                result = configure(&conf, spec, &access, services, err);
                if (result == 0)
                        rd_kafka_conf_destroy(conf);
        }
        kafka_access_done(&access);
        return result;
}

/* Opens a consumer, or says what it takes and when it is tried again. */
static void try_to_open(struct kafka *s)
{
        BUF_AT_END struct buf lacks = BUF_INIT(1024);
        struct error err;

        if (kafka_access_lacks(&s->access, &lacks)) {
                kafka_set_state(s, kafka_access_awaits(&s->access) ? SOURCE_CONNECTING : SOURCE_FAILED,
                                lacks.p ? lacks.p : "a Secret is missing");
                s->reopen_at = s->now + REJOIN;
                return;
        }
        if (open_consumer(s, &err) == 0) {
                if (s->state == SOURCE_FAILED)
                        kafka_set_state(s, SOURCE_CONNECTING, "");
                return;
        }
        kafka_set_state(s, SOURCE_FAILED, err.text);
        if (s->rk)
                s->fatal = true;
        else
                s->reopen_at = s->now + REJOIN;
}

static int kafka_open(struct source **out, const void *spec, const struct services *services,
                      struct error *err)
{
        struct kafka *s = calloc(1, sizeof(*s));

        if (!s)
                return error_memory(err);
        s->spec = spec;
        s->services = services;
        s->slot.task = services->wake;
        s->state = SOURCE_CONNECTING;
        s->metadata_most = DONE_TEXT_MOST;
        s->drain_most = queue_is_looked_at() ? 0 : kilobytes_ahead(spec) * 1024 / 4;
        random_init(&s->random, random_seed());
        for (size_t i = 0; i < s->spec->topics.n; i++)
                s->id_size = MAX_OF(s->id_size, strlen(s->spec->topics.list[i]) + 40);
        if (s->spec->topic_pattern)
                s->id_size = KAFKA_TOPIC_LONGEST + 40;
        if (!(s->missing = calloc(s->spec->topics.n + 1, sizeof(*s->missing)))) {
                free(s);
                return error_memory(err);
        }
        if (open_access(&s->access, spec, services, services->wake, err) < 0) {
                free(s->missing);
                free(s);
                return -1;
        }
        s->now = loop_now(services->loop);
        if (s->spec->cluster.sasl || s->spec->cluster.tls)
                try_to_open(s);
        else if (open_consumer(s, err) < 0) {
                if (s->queue)
                        rd_kafka_queue_destroy(s->queue);
                if (s->rk)
                        rd_kafka_destroy(s->rk);
                (void)helper_free(s->helper);
                kafka_access_done(&s->access);
                free(s->closer);
                free(s->missing);
                free(s);
                return -1;
        }
        *out = &s->source;
        return 0;
}

/* ---- lending ------------------------------------------------------------ */

static void message_free(struct kafka *s, struct message *m)
{
        if (m->native)
                rd_kafka_message_destroy(m->native);
        else if (m->headers)
                rd_kafka_headers_destroy(m->headers);
        free(m->copy);
        m->native = NULL;
        m->headers = NULL;
        m->copy = NULL;
        m->free_next = s->spare;
        s->spare = m;
}

/* Nothing stands between what was read before and this. */
static void passed(struct partition *p, int64_t offset)
{
        if (p->position >= 0 && offset > p->position)
                done_add(&p->done, p->position, offset);
        p->position = offset + 1;
        p->at_end = false;
}

static struct record *lend(struct kafka *s, struct partition *p, rd_kafka_message_t *native)
{
        struct message *m = s->spare;
        struct buf id = BUF_INIT(0);
        rd_kafka_timestamp_type_t kind;

        if (m)
                s->spare = m->free_next;
        else if (!(m = malloc(sizeof(*m) + s->id_size)))
                return NULL;
        m->partition = p;
        m->native = native;
        m->headers = NULL;
        m->headers_known = false;
        m->copy = NULL;
        id.p = m->id;
        id.cap = id.max = s->id_size;
        buf_text(&id, p->topic);
        buf_char(&id, '/');
        buf_int(&id, p->number);
        buf_char(&id, '/');
        buf_int(&id, native->offset);
        m->timestamp = rd_kafka_message_timestamp(native, &kind);
        if (kind == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE || m->timestamp == -1)
                m->timestamp = 0;
        m->lent_at = m->timestamp ? 0 : clock_wall(s->services->clock);
        m->record = (struct record){
                .position = (uint64_t)native->offset,
                .track = p->track,
                .pinned = (uint32_t)MIN_OF(native->len + native->key_len + 256, (size_t)UINT32_MAX),
                .time = message_time(m->timestamp),
                .id = { m->id, id.n },
                .key = { native->key, native->key_len },
                .value = { native->payload, native->len },
                .null_value = native->payload == NULL,
                .has_key = native->key != NULL,
                .origin = m,
        };
        p->credit--;
        p->bytes -= m->record.pinned;
        p->lent++;
        list_append(&p->out, &m->node);
        passed(p, native->offset);
        p->lent_to = p->position;
        return &m->record;
}

static void end_of_partition(struct kafka *s, struct partition *p, int64_t end)
{
        p->position = p->end = end;
        p->at_end = true;
        commit_end(s, p);
}

/* Not skipped: the whole assignment is read again from where each partition is. */
static void read_again(struct kafka *s, struct partition *p)
{
        log_error_for(s->services->log, "out of memory for a record, which is read again",
                      LOG_S("topic", p->topic), LOG_I("partition", p->number));
        p->unplaced = true;
        p->ask_at = s->now + KAFKA_AGAIN;
}

static void read_failed(struct kafka *s, struct partition *p, const rd_kafka_message_t *m)
{
        if (kafka_is_unknown(m->err))
                partition_put_aside(s, p, m->err);
        else
                state_unreadable(s, p, rd_kafka_message_errstr(m));
}

/* Reads one message of a partition; false: none, or reading stops. */
static bool read_one(struct kafka *s, struct partition *p, struct pull_event *event, bool *got)
{
        rd_kafka_message_t *m = rd_kafka_consume_queue(p->queue, 0);

        *got = false;
        if (!m) {
                p->more = false;
                return false;
        }
        if (p->fresh && (m->err == RD_KAFKA_RESP_ERR_NO_ERROR || m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF))
                state_heard(s, p);
        if (p->unreadable &&
            (m->err == RD_KAFKA_RESP_ERR_NO_ERROR || m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF))
                state_readable(s, p);
        s->drained += m->len;
        if (m->err == RD_KAFKA_RESP_ERR_NO_ERROR && done_has(&p->done, m->offset)) {
                passed(p, m->offset);
                rd_kafka_message_destroy(m);
                return true;
        }
        if (m->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
                struct record *r = lend(s, p, m);

                if (!r) {
                        rd_kafka_message_destroy(m);
                        read_again(s, p);
                        return false;
                }
                *event = (struct pull_event){ .kind = PULL_RECORD, .track = p->track, .record = r };
                *got = true;
                if (s->state != SOURCE_CONNECTED && s->state != SOURCE_DISCONNECTED && !s->unreadable_n)
                        kafka_set_reading(s);
                return true;
        }
        if (m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
                end_of_partition(s, p, m->offset);
        /* it is not read any more until it is placed anew */
        else if (m->err == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET)
                p->unplaced = true;
        else
                read_failed(s, p, m);
        rd_kafka_message_destroy(m);
        return !p->unplaced;
}

/* What was done before, by another worker perhaps, is read and left out. */
enum { READ_AT_ONCE = 512 };

static size_t lend_some(struct kafka *s, struct pull_event *events, size_t max)
{
        bool more = false;
        size_t n = 0;

        for (uint32_t i = 0; i < s->partitions_n && n < max; i++) {
                struct partition *p = s->partitions[s->next_partition++ % s->partitions_n];
                size_t fair = MAX_OF((max - n) / s->partitions_n, (size_t)8), taken = 0, tried = 0;

                if (!p->queue || p->leaving || !p->told || p->unplaced || p->ready || p->lost)
                        continue;
                if (atomic_exchange_explicit(&p->readable, false, memory_order_acquire))
                        p->more = p->fresh = true;
                while (p->more && p->credit > 0 && p->bytes > 0 && n < max && taken < fair &&
                       tried++ < READ_AT_ONCE) {
                        bool got;

                        if (!read_one(s, p, &events[n], &got))
                                break;
                        n += got;
                        taken += got;
                }
                more = more || tried > READ_AT_ONCE;
        }
        if (more)
                loop_ready(s->services->loop, s->services->wake);
        if (s->drain_most && s->drained >= s->drain_most) {
                s->drained = 0;
                kafka_access_wake(&s->access, s->rk);
        }
        return n;
}

/* Less than after which the group takes a member for gone. */
static usec revoke_grace(const struct kafka_spec *spec)
{
        int64_t session = 0;

        for (size_t i = 0; i < spec->properties.n; i++)
                if (strcmp(spec->properties.keys[i], "session.timeout.ms") == 0 &&
                    !str_to_int64(str_of(spec->properties.values[i]), &session))
                        session = 0;
        return session > 0 ? MIN_OF(session * USEC_MSEC / 2, REVOKE_GRACE) : REVOKE_GRACE;
}

static size_t tell_changes(struct kafka *s, struct pull_event *events, size_t max)
{
        size_t n = 0;

        if (s->state_changed && n < max) {
                s->state_changed = false;
                memcpy(s->told, s->text, sizeof(s->told));
                events[n++] = (struct pull_event){ .kind = PULL_STATE, .state = s->state, .text = s->told };
        }
        for (uint32_t i = 0; i < s->partitions_n && n < max; i++) {
                struct partition *p = s->partitions[i];

                if (p->tell_assigned) {
                        p->tell_assigned = false;
                        p->told = true;
                        events[n++] = (struct pull_event){ .kind = PULL_ASSIGNED, .track = p->track };
                } else if (p->tell_leaving) {
                        p->tell_leaving = false;
                        events[n++] = p->lost ? (struct pull_event){ .kind = PULL_LOST, .track = p->track }
                                              : (struct pull_event){
                                                        .kind = PULL_REVOKING,
                                                        .track = p->track,
                                                        .give_up_at = s->stopping
                                                                              ? USEC_NEVER
                                                                              : s->now + revoke_grace(s->spec)
                                                };
                }
        }
        return n;
}

/* ---- the end ------------------------------------------------------------ */

/* The helper's thread: nothing else uses the consumer any more. */
static void destroy(struct helper_job *job)
{
        rd_kafka_destroy_flags(CONTAINER_OF(job, struct closer, job)->rk,
                               RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
}

static void take_jobs(struct kafka *s)
{
        struct helper_job *job;

        while (s->helper && (job = helper_take(s->helper)))
                if (s->closer && job == &s->closer->job)
                        s->destroyed = true;
                else
                        lookup_taken(job);
}

static bool all_left(const struct kafka *s)
{
        for (uint32_t i = 0; i < s->partitions_n; i++)
                if (s->partitions[i]->queue && !s->partitions[i]->left)
                        return false;
        return true;
}

/* A consumer that is fenced off, or never joined, has nothing to say goodbye for. Another one has, but not to
 * a broker that says nothing. */
static bool may_be_destroyed(struct kafka *s)
{
        if (s->fatal)
                return all_left(s);
        if (rd_kafka_consumer_closed(s->rk))
                return true;
        if (s->unassign || !all_left(s))
                return false;
        if (!s->close_by)
                s->close_by = s->now + CLOSE_PATIENCE;
        return s->now >= s->close_by;
}

static void advance_closing(struct kafka *s)
{
        struct error ignored;

        if (s->closing || s->lookup || !may_be_destroyed(s))
                return;
        s->closing = true;
        s->close_by = s->now + DESTROY_PATIENCE;
        for (uint32_t i = 0; i < s->partitions_n; i++) {
                partition_drop(s->partitions[i]);
                s->partitions[i]->leaving = false;
        }
        rd_kafka_queue_cb_event_enable(s->queue, NULL, NULL);
        rd_kafka_queue_destroy(s->queue);
        s->queue = NULL;
        s->destroyed = false;
        rd_kafka_set_log_level(s->rk, 0); /* it may outlive whose log that is */
        s->closer->job.work = destroy;
        s->closer->rk = s->rk;
        if (helper_submit(s->helper, &s->closer->job, &ignored) < 0) {
                /* No thread to be had: block, rather than leave the group's connections behind. */
                rd_kafka_destroy_flags(s->rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
                s->closing = false;
                s->rk = NULL;
        }
}

/* It waits for a broker that says nothing, and may do so for minutes. */
static void leave_consumer(struct kafka *s)
{
        if (!helper_leave(s->helper, &s->closer->job))
                return;
        log_warn_for(s->services->log,
                     "the consumer waits for a broker that does not answer, and is left alone: "
                     "what was not committed is delivered again");
        s->helper = NULL;
        s->closer = NULL;
        s->destroyed = true;
}

static void finish_closing(struct kafka *s)
{
        if (s->closing && !s->destroyed && s->now >= s->close_by)
                leave_consumer(s);
        if (s->closing && s->destroyed) {
                s->closing = false;
                s->rk = NULL;
        }
        if (s->rk)
                return;
        s->closed = s->stopping;
        if (!s->closed && TAKE(s->renewing))
                s->reopen_at = s->now;
        if (!s->closed && !s->reopen_at)
                s->reopen_at = s->now + REJOIN + backoff_full_jitter(&s->random, REJOIN, REJOIN, 0, 0);
}

/* Another consumer in the place of one that came to an end. */
static void reopen(struct kafka *s)
{
        s->reopen_at = s->try_at = 0;
        s->refused[0] = 0;
        s->fatal = s->unassign = s->subscribed = s->close_asked = s->commit_failed = false;
        s->leaderless = s->silent = false;
        s->away = NULL;
        s->silence[0] = 0;
        s->asked = s->commits_under_way = 0;
        s->ask_at = s->commit_at = s->commit_late = s->close_by = 0;
        try_to_open(s);
}

static void close_consumer(struct kafka *s)
{
        rd_kafka_error_t *e;

        if (s->fatal || s->close_asked)
                return;
        s->close_asked = true;
        e = rd_kafka_consumer_close_queue(s->rk, s->queue);
        if (e) {
                log_warn_for(s->services->log, "close the consumer",
                             LOG_S("error", rd_kafka_error_string(e)));
                rd_kafka_error_destroy(e);
                state_fatal(s, s->text);
        }
}

/* ---- Secrets that change ------------------------------------------------ */

/* Tells why the certificates that there are now are not in use. */
static void say_refused(struct kafka *s, const char *why)
{
        (void)text_copy(s->refused, sizeof(s->refused), why);
        if (s->state == SOURCE_CONNECTED)
                kafka_set_reading(s);
}

/* Only a new client reads certificates. It is tried beside the consumer, which goes on until a broker lets
 * the new one in. */
static void begin_trial(struct kafka *s)
{
        const struct kafka_trial_config config = { .access = &s->access,
                                                   .log = s->services->log,
                                                   .loop = s->services->loop,
                                                   .wake = s->services->wake };
        BUF_AT_END struct buf lacks = BUF_INIT(1024);
        struct error err;

        s->try_at = 0;
        s->trial = kafka_trial_free(s->trial);
        if (kafka_access_lacks(&s->access, &lacks))
                return; /* it may be half-way through its replacement: told again when it is there */
        if (kafka_trial_new(&s->trial, &config, s->now, &err) == 0)
                return;
        s->try_at = s->now + TRIED_AGAIN;
        say_refused(s, err.text);
}

static void look_at_trial(struct kafka *s)
{
        BUF_AT_END struct buf why = BUF_INIT(1024);
        enum kafka_trial_result result = kafka_trial_look(s->trial, s->now, &why);

        if (result == KAFKA_TRIAL_UNDER_WAY)
                return;
        s->trial = kafka_trial_free(s->trial);
        if (result == KAFKA_TRIAL_REFUSED) {
                s->try_at = s->now + TRIED_AGAIN;
                say_refused(s, why.p ? why.p : "");
                return;
        }
        s->refused[0] = 0;
        log_info_for(s->services->log, "certificates have changed: another consumer goes on with them");
        s->renewing = true;
        close_consumer(s);
}

static void follow_secrets(struct kafka *s)
{
        enum kafka_access_change change;

        if (!s->spec->cluster.sasl && !s->spec->cluster.tls)
                return;
        change = kafka_access_changed(&s->access);
        if (change != KAFKA_ACCESS_SAME && s->queue)
                kafka_access_renew(&s->access, s->rk);
        if (change != KAFKA_ACCESS_SAME && s->state == SOURCE_CONNECTED)
                kafka_set_reading(s);
        if (change != KAFKA_ACCESS_SAME && !s->rk && !s->closed)
                s->reopen_at = s->now;
        if (change == KAFKA_ACCESS_CERTIFICATES)
                s->try_at = s->now;
        if (!s->queue || s->stopping || s->fatal || s->renewing)
                s->trial = kafka_trial_free(s->trial);
        else if (s->try_at && s->now >= s->try_at)
                begin_trial(s);
        else if (s->trial)
                look_at_trial(s);
}

static size_t kafka_poll(struct source *source, struct pull_event *events, size_t max, usec now)
{
        struct kafka *s = kafka_of(source);
        size_t n;

        s->now = now;
        take_jobs(s);
        follow_secrets(s);
        if (s->queue) {
                state_serve(s);
                if (s->ask_at && !s->asked && now >= s->ask_at && !s->stopping)
                        group_ask(s);
                assignment_advance(s);
                commit_send(s);
                commit_finish_revoking(s);
        }
        n = tell_changes(s, events, max);
        if (s->queue && (s->stopping || s->fatal || s->renewing))
                advance_closing(s);
        else if (s->queue)
                n += lend_some(s, events + n, max - n);
        if (!s->queue && !s->closed)
                finish_closing(s);
        if (s->reopen_at && !s->stopping && now >= s->reopen_at)
                reopen(s);
        if (s->closed && !s->told_closed && n < max) {
                s->told_closed = true;
                events[n++] = (struct pull_event){ .kind = PULL_CLOSED };
        }
        return n;
}

static usec kafka_deadline(const struct source *source)
{
        const struct kafka *s = kafka_of(source);
        usec at = s->now + POLL_INTERVAL;
        bool behind = false;

        if (s->told_closed)
                return USEC_NEVER;
        if (s->state_changed) /* by what came after it was told */
                return s->now + 10 * USEC_MSEC;
        if (s->stopping || s->unassign || s->renewing)
                return s->now + 50 * USEC_MSEC;
        for (uint32_t i = 0; i < s->partitions_n; i++) {
                const struct partition *p = s->partitions[i];

                behind = behind || (p->queue && !p->at_end);
                if (p->queue && (p->unplaced || p->doubted) && !s->lookup) {
                        usec ask_at = MAX_OF(p->ask_at, s->lookup_at);

                        at = MIN_OF(at, MAX_OF(ask_at, s->now));
                }
                if (commit_wanted(p) && p->commit_at > s->now)
                        at = MIN_OF(at, p->commit_at);
                at = MIN_OF(at, commit_done_deadline(p));
        }
        if (s->commit_at > s->now)
                at = MIN_OF(at, s->commit_at);
        if (s->commit_late && s->queue)
                at = MIN_OF(at, MAX_OF(s->commit_late, s->now));
        if (behind && !s->lookup && s->look_at > s->now)
                at = MIN_OF(at, s->look_at);
        if (s->ask_at && !s->asked)
                at = MIN_OF(at, s->ask_at);
        if (s->trial)
                at = MIN_OF(at, s->now + KAFKA_TRIAL_INTERVAL);
        if (s->try_at)
                at = MIN_OF(at, MAX_OF(s->try_at, s->now));
        return s->reopen_at ? MIN_OF(at, s->reopen_at) : at;
}

static void kafka_credit(struct source *source, uint32_t track, uint32_t records, size_t bytes)
{
        struct kafka *s = kafka_of(source);
        struct partition *p = s->partitions[track];

        p->credit += records;
        p->bytes += (int64_t)bytes;
        if (p->more && p->credit > 0 && p->bytes > 0)
                loop_ready(s->services->loop, s->services->wake);
}

static void kafka_settle(struct source *source, struct record *r, enum outcome outcome)
{
        struct kafka *s = kafka_of(source);
        struct message *m = CONTAINER_OF(r, struct message, record);
        struct partition *p = m->partition;

        p->lent--;
        list_remove(&m->node);
        p->released = p->released || outcome == OUTCOME_RELEASED;
        if (outcome != OUTCOME_RELEASED)
                commit_done(s, p, (int64_t)r->position);
        message_free(s, m);
        commit_end(s, p);
}

/* The message pins the broker's whole fetch: what waits is copied out of it. */
static bool kafka_detach(struct source *s UNUSED, struct record *r)
{
        struct message *m = CONTAINER_OF(r, struct message, record);
        char *copy;

        if (!m->native || !(copy = malloc(r->key.n + r->value.n + 1)))
                return !m->native;
        if (r->value.n)
                memcpy(copy, r->value.p, r->value.n);
        if (r->key.n)
                memcpy(copy + r->value.n, r->key.p, r->key.n);
        r->value.p = copy;
        r->key.p = copy + r->value.n;
        m->copy = copy;
        if (message_headers(m))
                (void)rd_kafka_message_detach_headers(m->native, &m->headers);
        rd_kafka_message_destroy(m->native);
        m->native = NULL;
        return true;
}

static void kafka_revoked(struct source *source, uint32_t track)
{
        struct kafka *s = kafka_of(source);
        struct partition *p = s->partitions[track];

        if (p->again) {
                p->again = p->lost = p->told = p->released = false;
                p->credit = p->bytes = 0;
                commit_up_to(s, p, p->position);
        } else {
                p->left = true;
                p->told = false;
        }
        loop_ready(s->services->loop, s->services->wake);
}

static void kafka_stop(struct source *source)
{
        struct kafka *s = kafka_of(source);

        if (s->stopping)
                return;
        s->stopping = true;
        if (s->queue)
                close_consumer(s);
        loop_ready(s->services->loop, s->services->wake);
}

static struct source *kafka_free(struct source *source)
{
        struct kafka *s = kafka_of(source);

        if (!s)
                return NULL;
        s->helper = helper_free(s->helper);
        free(s->closer);
        s->lookup = lookup_free(s->lookup);
        waker_forget(s->services->waker, &s->slot);
        (void)kafka_trial_free(s->trial);
        kafka_access_done(&s->access);
        HASH_CLEAR(hh, s->by_key);
        for (uint32_t i = 0; i < s->partitions_n; i++)
                partition_free(s->partitions[i]);
        free(s->partitions);
        free(s->missing);
        for (struct message *m = s->spare, *next; m; m = next) {
                next = m->free_next;
                free(m);
        }
        free(s);
        return NULL;
}

static bool kafka_drained(const struct source *source)
{
        const struct kafka *s = kafka_of(source);
        bool any = false;

        for (uint32_t i = 0; i < s->partitions_n && s->queue; i++) {
                const struct partition *p = s->partitions[i];

                if (p->queue && (!p->at_end || p->lent))
                        return false;
                any = any || p->queue;
        }
        return any;
}

static void kafka_origin(const struct trigger *t, struct buf *b)
{
        const struct kafka_spec *spec = t->source_spec;

        if (spec->topic_pattern)
                buf_text(b, spec->topic_pattern);
        else
                strings_join(&spec->topics, b);
}

static const struct pull_ops pull = {
        .poll = kafka_poll,
        .deadline = kafka_deadline,
        .credit = kafka_credit,
        .release = kafka_settle,
        .detach = kafka_detach,
        .commit = kafka_commit,
        .revoked = kafka_revoked,
        .lag = kafka_lag,
        .track_lag = kafka_track_lag,
        .drained = kafka_drained,
        .stop = kafka_stop,
        .free = kafka_free,
};
static const struct warning warnings[] = { WARNING(KAFKA_EXPIRED, .loses = true),
                                           WARNING(KAFKA_RESET, .loses = true), WARNING(KAFKA_ADDED),
                                           WARNING(KAFKA_STOPPED), WARNINGS_END };
const struct source_kind kafka_source = {
        .name = "kafka",
        .warnings = warnings,
        .type = &kafka_type,
        .shape = &kafka_shape,
        .pull = &pull,
        .open = kafka_open,
        .check = kafka_check,
        .origin = kafka_origin,
};
