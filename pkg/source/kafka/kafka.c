#include "source/kafka/kafka.h"

#include <jansson.h>
#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/prctl.h>

#include "base/log.h"
#include "base/pairs.h"
#include "json/check.h"

/* How long others wait for us in a rebalance, at most, for what is in flight. */
static const usec REVOKE_GRACE = 3 * USEC_SEC;
/* Polled at least this often, so that the group does not take us for stuck (max.poll.interval.ms). */
static const usec POLL_INTERVAL = 20 * USEC_SEC;
static const usec COMMIT_PATIENCE = 2 * USEC_SEC;

/* ---- the spec ------------------------------------------------------------------------------------------------------------------------ */

static const char *const start_names[] = { "Earliest", "Latest", NULL };
static const struct field kafka_fields[] = {
        { .name = "bootstrapServers", .type = FIELD_STRINGS, .offset = offsetof(struct kafka_spec, bootstrap_servers), .required = true, .min = 1, .max = 32,
          .pattern = "^([A-Za-z0-9._-]+|\\[[0-9A-Fa-f:.]+\\]):[0-9]{1,5}$", .help = "Brokers to begin with, each HOST:PORT; the others are learned from them.", .format = "HOST:PORT",
          .cloud = "kafka_connect_address" },
        { .name = "topics", .type = FIELD_STRINGS, .offset = offsetof(struct kafka_spec, topics), .required = true, .min = 1, .max = 100,
          .pattern = "^[A-Za-z0-9._-]{1,249}$", .help = "Topics to read.", .format = "a topic name: letters, digits, ., _ and -", .cloud = "topic_ids" },
        { .name = "consumerGroup", .type = FIELD_STRING, .offset = offsetof(struct kafka_spec, consumer_group), .min = 1, .max = 255,
          .help = "The consumer group that holds the positions; by default sluice.NAMESPACE.NAME." },
        { .name = "startPosition", .type = FIELD_ENUM, .offset = offsetof(struct kafka_spec, start_position), .fallback = "Latest", .values = start_names,
          .help = "Where to begin in a partition for which the group has no position: Earliest reads all there is, Latest only what comes from then on." },
        { .name = "fetchBytes", .type = FIELD_INT, .offset = offsetof(struct kafka_spec, fetch_bytes), .fallback = "8388608", .min = 2097152, .max = 1073741824,
          .help = "What fetching ahead may take in memory over about four partitions, in bytes; half of it is for records, half for what librdkafka keeps beside "
                  "them. With librdkafka before 2.2 (Debian 12) the highest throughput grows with it." },
};
const struct type kafka_type = { .name = "KafkaSource", .help = "Messages of Kafka topics, at least once, in order within a partition. A null value reaches the function as JSON null, "
                                                                "a value that is not valid UTF-8 as its Base64.",
                                 .fields = kafka_fields, .fields_n = COUNT_OF(kafka_fields), .size = sizeof(struct kafka_spec) };

void kafka_group(const struct kafka_spec *spec, const struct trigger *t, struct buf *b)
{
        if (spec->consumer_group)
                buf_text(b, spec->consumer_group);
        else
                buf_printf(b, "sluice.%s.%s", t->namespace_, t->name);
}

/* ---- the source ---------------------------------------------------------------------------------------------------------------------- */

struct message {                 /* a record of ours */
        struct record record;
        struct message *free_next;
        struct partition *partition;
        rd_kafka_message_t *native; /* NULL once detached */
        rd_kafka_headers_t *headers; /* of a detached message; NULL: none */
        char *copy;
        char id[];
};

struct partition {
        struct source *source;
        uint32_t track;
        char *topic;
        int32_t number;
        rd_kafka_queue_t *queue; /* NULL: not assigned */
        _Atomic bool readable;   /* set by librdkafka's thread: something came into an empty queue */
        bool more;               /* the last read stopped for lack of credit, not of messages */
        bool at_end;             /* all there was has been read */
        bool tell_assigned, tell_leaving, leaving, lost, left;
        int64_t credit, bytes;
        uint32_t lent;
        int64_t position;        /* the next offset to be read; -1: unknown */
        int64_t committed;       /* as far as we know; -1: unknown */
};

struct source {
        const struct kafka_spec *spec;
        const struct services *services;
        struct task *wake;
        struct waker_slot slot;
        rd_kafka_t *rk;
        rd_kafka_queue_t *queue; /* of the consumer: rebalances, errors, commits */
        struct partition **partitions; /* by track; never freed before the source */
        uint32_t partitions_n, next_partition;
        size_t id_size;
        struct message *spare;
        bool unassign;           /* once every leaving partition has left and its commits are answered */
        uint32_t commits_under_way;
        usec commit_deadline;
        bool stopping, closing, closed, told_closed;
        pthread_t closer;
        _Atomic bool destroyed;
        enum source_state state;
        bool state_changed;
        usec now;
        char text[480];
};

static void set_state(struct source *s, enum source_state state, const char *text)
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
        struct source *s = opaque;

        waker_ring(s->services->waker, &s->slot);
}

static void on_partition(rd_kafka_t *rk UNUSED, void *opaque)
{
        struct partition *p = opaque;

        atomic_store_explicit(&p->readable, true, memory_order_release);
        waker_ring(p->source->services->waker, &p->source->slot);
}

static void on_log(const rd_kafka_t *rk UNUSED, int level, const char *facility, const char *text)
{
        log_debug("librdkafka", LOG_I("severity", level), LOG_S("facility", facility), LOG_S("text", text));
}

/* ---- configuration ------------------------------------------------------------------------------------------------------------------- */

static int set(rd_kafka_conf_t *conf, const char *name, const char *value, struct error *err)
{
        char why[256];

        if (rd_kafka_conf_set(conf, name, value, why, sizeof(why)) != RD_KAFKA_CONF_OK)
                return error_set(err, ERROR_INVALID, "kafka option %s: %s", name, why);
        return 0;
}

static int set_number(rd_kafka_conf_t *conf, const char *name, size_t value, struct error *err)
{
        char text[32];

        (void)snprintf(text, sizeof(text), "%zu", value);
        return set(conf, name, text, err);
}

static int configure(rd_kafka_conf_t *conf, const struct kafka_spec *spec, const struct services *services, struct error *err)
{
        BUF_AT_END struct buf servers = BUF_INIT(65536), group = BUF_INIT(1024);
        /* The budget is for a handful of partitions: librdkafka counts what waits for each by itself when its queue is read directly. It counts
         * only the records' bytes: its structures, half as much again for records of 1 KiB, and the fetch that overfills a queue are the other half. */
        size_t kilobytes = MAX_OF((size_t)spec->fetch_bytes / 1024 / 8, (size_t)256);

        strings_join(&spec->bootstrap_servers, &servers);
        kafka_group(spec, services->trigger, &group);
        if (servers.failed || group.failed)
                return error_memory(err);
        rd_kafka_conf_set_log_cb(conf, on_log);
        rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_REBALANCE | RD_KAFKA_EVENT_OFFSET_COMMIT | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_STATS);
        if (set(conf, "bootstrap.servers", servers.p, err) < 0 || set(conf, "group.id", group.p, err) < 0 || set(conf, "client.id", "sluice", err) < 0 ||
            set(conf, "enable.auto.commit", "false", err) < 0 || set(conf, "enable.auto.offset.store", "false", err) < 0 ||
            set(conf, "enable.partition.eof", "true", err) < 0 || set(conf, "allow.auto.create.topics", "false", err) < 0 ||
            set(conf, "auto.offset.reset", spec->start_position == KAFKA_EARLIEST ? "earliest" : "latest", err) < 0 ||
            set(conf, "partition.assignment.strategy", "range", err) < 0 || set(conf, "socket.keepalive.enable", "true", err) < 0 ||
            set(conf, "statistics.interval.ms", "5000", err) < 0 || set(conf, "reconnect.backoff.max.ms", "5000", err) < 0 ||
            set(conf, "socket.connection.setup.timeout.ms", "8000", err) < 0 ||
            set_number(conf, "queued.max.messages.kbytes", kilobytes, err) < 0 ||
            set_number(conf, "fetch.message.max.bytes", MIN_OF(MAX_OF(kilobytes / 4, (size_t)256), (size_t)1024) * 1024, err) < 0 ||
            set_number(conf, "fetch.max.bytes", MAX_OF(kilobytes / 2, (size_t)1024) * 1024, err) < 0)
                return -1;
        /* Since 2.2; before, a full queue is looked at again after up to a second. */
        if (rd_kafka_version() >= 0x02020000 && set(conf, "fetch.queue.backoff.ms", "5", err) < 0)
                return -1;
        if (services->instance && set(conf, "group.instance.id", services->instance, err) < 0)
                return -1;
        return 0;
}

static int subscribe(struct source *s, struct error *err)
{
        rd_kafka_topic_partition_list_t *topics = rd_kafka_topic_partition_list_new((int)s->spec->topics.n);
        rd_kafka_resp_err_t r;

        for (size_t i = 0; i < s->spec->topics.n; i++) {
                (void)rd_kafka_topic_partition_list_add(topics, s->spec->topics.list[i], RD_KAFKA_PARTITION_UA);
                s->id_size = MAX_OF(s->id_size, strlen(s->spec->topics.list[i]) + 40);
        }
        r = rd_kafka_subscribe(s->rk, topics);
        rd_kafka_topic_partition_list_destroy(topics);
        return r ? error_set(err, ERROR_INVALID, "subscribe: %s", rd_kafka_err2str(r)) : 0;
}

static int kafka_open(struct source **out, const void *spec, const struct services *services, struct task *wake, struct error *err)
{
        struct source *s = calloc(1, sizeof(*s));
        rd_kafka_conf_t *conf = rd_kafka_conf_new();
        char why[256];

        if (!s) {
                rd_kafka_conf_destroy(conf);
                return error_memory(err);
        }
        s->spec = spec;
        s->services = services;
        s->wake = wake;
        s->slot.task = wake;
        s->state = SOURCE_CONNECTING;
        if (configure(conf, s->spec, services, err) < 0) {
                rd_kafka_conf_destroy(conf);
                free(s);
                return -1;
        }
        /* Its threads inherit this: they wait whole milliseconds for a timer and turn for the rest of the last one, all their time when idle. */
        (void)prctl(PR_SET_TIMERSLACK, 2000000UL);
        s->rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof(why));
        (void)prctl(PR_SET_TIMERSLACK, 0UL); /* the thread's own again */
        if (!s->rk) {
                rd_kafka_conf_destroy(conf);
                free(s);
                return error_set(err, ERROR_INVALID, "kafka: %s", why);
        }
        (void)rd_kafka_poll_set_consumer(s->rk);
        s->queue = rd_kafka_queue_get_consumer(s->rk);
        rd_kafka_queue_cb_event_enable(s->queue, on_queue, s);
        if (subscribe(s, err) < 0) {
                rd_kafka_queue_destroy(s->queue);
                rd_kafka_destroy(s->rk);
                free(s);
                return -1;
        }
        *out = s;
        return 0;
}

/* ---- partitions ---------------------------------------------------------------------------------------------------------------------- */

static struct partition *partition_get(struct source *s, const char *topic, int32_t number)
{
        struct partition *p, **grown;

        for (uint32_t i = 0; i < s->partitions_n; i++)
                if (s->partitions[i]->number == number && strcmp(s->partitions[i]->topic, topic) == 0)
                        return s->partitions[i];
        grown = realloc(s->partitions, (s->partitions_n + 1) * sizeof(struct partition *));
        if (!grown)
                return NULL;
        s->partitions = grown;
        p = calloc(1, sizeof(*p));
        if (!p || !(p->topic = str_dup(str_of(topic)))) {
                free(p);
                return NULL;
        }
        p->source = s;
        p->number = number;
        p->track = s->partitions_n;
        s->partitions[s->partitions_n++] = p;
        return p;
}

static bool partition_take(struct source *s, const rd_kafka_topic_partition_t *tp)
{
        struct partition *p = partition_get(s, tp->topic, tp->partition);

        if (!p)
                return false;
        p->queue = rd_kafka_queue_get_partition(s->rk, tp->topic, tp->partition);
        if (!p->queue)
                return false;
        /* Before the assignment: from then on nothing of it reaches the consumer's queue. */
        rd_kafka_queue_forward(p->queue, NULL);
        rd_kafka_queue_cb_event_enable(p->queue, on_partition, p);
        p->credit = p->bytes = 0;
        p->lent = 0;
        p->position = p->committed = -1;
        p->more = true;
        p->at_end = false;
        p->leaving = p->lost = p->left = p->tell_leaving = false;
        p->tell_assigned = true;
        return true;
}

static void partition_drop(struct partition *p)
{
        if (!p->queue)
                return;
        rd_kafka_queue_cb_event_enable(p->queue, NULL, NULL);
        rd_kafka_queue_destroy(p->queue);
        p->queue = NULL;
        p->tell_assigned = false;
}

static void assigned(struct source *s, rd_kafka_topic_partition_list_t *list)
{
        rd_kafka_resp_err_t r;

        for (int i = 0; i < list->cnt; i++)
                if (!partition_take(s, &list->elems[i])) {
                        set_state(s, SOURCE_FAILED, "out of memory");
                        return;
                }
        r = rd_kafka_assign(s->rk, list);
        if (r)
                set_state(s, SOURCE_FAILED, rd_kafka_err2str(r));
        else if (list->cnt)
                set_state(s, SOURCE_CONNECTED, "");
        else
                set_state(s, SOURCE_STANDBY, "no partition is assigned: the group has more members than the topics have partitions");
}

static void revoking(struct source *s, bool lost)
{
        s->unassign = true;
        s->commit_deadline = s->now + REVOKE_GRACE + COMMIT_PATIENCE;
        for (uint32_t i = 0; i < s->partitions_n; i++) {
                struct partition *p = s->partitions[i];

                if (!p->queue)
                        continue;
                if (p->tell_assigned) {
                        p->left = true; /* the pipeline never heard of it */
                        p->tell_assigned = false;
                } else if (!p->leaving || lost)
                        p->tell_leaving = true;
                p->leaving = true;
                p->lost = lost;
        }
}

/* Gives the partitions back once nothing of them is out any more. */
static void finish_revoking(struct source *s)
{
        if (!s->unassign)
                return;
        for (uint32_t i = 0; i < s->partitions_n; i++)
                if (s->partitions[i]->queue && s->partitions[i]->leaving && !s->partitions[i]->left)
                        return;
        if (s->commits_under_way && s->now < s->commit_deadline)
                return;
        s->unassign = false;
        for (uint32_t i = 0; i < s->partitions_n; i++) {
                if (s->partitions[i]->leaving)
                        partition_drop(s->partitions[i]);
                s->partitions[i]->leaving = false;
        }
        (void)rd_kafka_assign(s->rk, NULL);
}

static void rebalance(struct source *s, rd_kafka_event_t *event)
{
        if (rd_kafka_event_error(event) == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS && !s->stopping)
                assigned(s, rd_kafka_event_topic_partition_list(event));
        else
                revoking(s, rd_kafka_assignment_lost(s->rk) != 0);
}

/* ---- state --------------------------------------------------------------------------------------------------------------------------- */

/* The words that say most stay: "connection refused" is not replaced by another broker's, nor by "all brokers are down", but replaces the guess
 * that librdkafka makes when an established connection ends. How long it had lasted is of no use, and would make each a new message. */
static void disconnected(struct source *s, rd_kafka_resp_err_t code, const char *text)
{
        const char *span = strstr(text, " (after ");
        char words[480];

        if (s->state == SOURCE_DISCONNECTED && s->text[0] && (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN || !strstr(s->text, "Disconnected")))
                return;
        (void)snprintf(words, sizeof(words), "%.*s", (int)MIN_OF(span ? (size_t)(span - text) : strlen(text), sizeof(words) - 1), text);
        set_state(s, SOURCE_DISCONNECTED, words);
}

static void on_error(struct source *s, rd_kafka_event_t *event)
{
        rd_kafka_resp_err_t code = rd_kafka_event_error(event);
        const char *text = rd_kafka_event_error_string(event);
        char why[480];

        if (code == RD_KAFKA_RESP_ERR__FATAL || rd_kafka_event_error_is_fatal(event)) {
                code = rd_kafka_fatal_error(s->rk, why, sizeof(why));
                set_state(s, SOURCE_FAILED, code ? why : text);
                return;
        }
        switch ((int)code) {
        case RD_KAFKA_RESP_ERR__TRANSPORT:
        case RD_KAFKA_RESP_ERR__RESOLVE:
        case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
        case RD_KAFKA_RESP_ERR__AUTHENTICATION:
        case RD_KAFKA_RESP_ERR__SSL:
                disconnected(s, code, text);
                break;
        case RD_KAFKA_RESP_ERR__MAX_POLL_EXCEEDED: set_state(s, SOURCE_DISCONNECTED, text); break;
        case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
        case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
        case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED: set_state(s, SOURCE_FAILED, text); break;
        default: log_warn("kafka", LOG_S("trigger", s->services->trigger->name), LOG_S("error", text)); break;
        }
}

/* Statistics tell that a broker is there again, which no event does. */
static void on_statistics(struct source *s, const char *text)
{
        json_t *root, *broker;
        const char *name;
        bool up = false;

        if (s->state != SOURCE_DISCONNECTED && s->state != SOURCE_CONNECTING)
                return;
        root = json_loads(text, 0, NULL);
        json_object_foreach(json_object_get(root, "brokers"), name, broker) {
                const char *state = json_string_value(json_object_get(broker, "state"));

                up = up || (state && strcmp(state, "UP") == 0 && json_integer_value(json_object_get(broker, "nodeid")) >= 0);
        }
        json_decref(root);
        if (up && s->partitions_n)
                set_state(s, SOURCE_CONNECTED, "");
        else if (up)
                set_state(s, SOURCE_CONNECTING, "joining the consumer group");
}

static void committed(struct source *s, rd_kafka_event_t *event)
{
        const rd_kafka_topic_partition_list_t *list = rd_kafka_event_topic_partition_list(event);
        rd_kafka_resp_err_t r = rd_kafka_event_error(event);

        if (s->commits_under_way)
                s->commits_under_way--;
        if (r && r != RD_KAFKA_RESP_ERR__NO_OFFSET)
                log_warn("commit failed; what it covered may be delivered again", LOG_S("trigger", s->services->trigger->name), LOG_S("error", rd_kafka_err2str(r)));
        for (int i = 0; !r && list && i < list->cnt; i++) {
                struct partition *p = partition_get(s, list->elems[i].topic, list->elems[i].partition);

                if (p && !list->elems[i].err)
                        p->committed = list->elems[i].offset;
        }
}

static void serve_queue(struct source *s)
{
        rd_kafka_event_t *event;

        while ((event = rd_kafka_queue_poll(s->queue, 0))) {
                switch (rd_kafka_event_type(event)) {
                case RD_KAFKA_EVENT_REBALANCE: rebalance(s, event); break;
                case RD_KAFKA_EVENT_OFFSET_COMMIT: committed(s, event); break;
                case RD_KAFKA_EVENT_ERROR: on_error(s, event); break;
                case RD_KAFKA_EVENT_STATS: on_statistics(s, rd_kafka_event_stats(event)); break;
                default: break;
                }
                rd_kafka_event_destroy(event);
        }
}

/* ---- committing ---------------------------------------------------------------------------------------------------------------------- */

static void kafka_commit(struct source *s, uint32_t track, uint64_t next)
{
        struct partition *p = s->partitions[track];
        rd_kafka_topic_partition_list_t *list;

        if (!p->queue || p->lost)
                return;
        list = rd_kafka_topic_partition_list_new(1);
        rd_kafka_topic_partition_list_add(list, p->topic, p->number)->offset = (int64_t)next;
        /* Its answer is an event on the consumer's queue. */
        if (rd_kafka_commit_queue(s->rk, list, s->queue, NULL, NULL) == RD_KAFKA_RESP_ERR_NO_ERROR)
                s->commits_under_way++;
        rd_kafka_topic_partition_list_destroy(list);
}

/* ---- lending ------------------------------------------------------------------------------------------------------------------------- */

static void message_free(struct source *s, struct message *m)
{
        if (m->native)
                rd_kafka_message_destroy(m->native);
        if (m->headers)
                rd_kafka_headers_destroy(m->headers);
        free(m->copy);
        m->native = NULL;
        m->headers = NULL;
        m->copy = NULL;
        m->free_next = s->spare;
        s->spare = m;
}

static struct record *lend(struct source *s, struct partition *p, rd_kafka_message_t *native)
{
        struct message *m = s->spare;
        struct buf id = BUF_INIT(0);
        rd_kafka_timestamp_type_t kind;
        int64_t time;

        if (m)
                s->spare = m->free_next;
        else if (!(m = malloc(sizeof(*m) + s->id_size)))
                return NULL;
        m->partition = p;
        m->native = native;
        m->headers = NULL;
        m->copy = NULL;
        id.p = m->id;
        id.cap = id.max = s->id_size;
        buf_text(&id, p->topic);
        buf_char(&id, '/');
        buf_int(&id, p->number);
        buf_char(&id, '/');
        buf_int(&id, native->offset);
        time = rd_kafka_message_timestamp(native, &kind);
        m->record = (struct record){
                .position = (uint64_t)native->offset,
                .track = p->track,
                .pinned = (uint32_t)MIN_OF(native->len + native->key_len + 256, (size_t)UINT32_MAX),
                .time = kind == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE ? 0 : time * USEC_MSEC,
                .id = { m->id, id.n },
                .key = { native->key, native->key_len },
                .value = { native->payload, native->len },
                .null_value = native->payload == NULL,
                .has_key = native->key != NULL,
                .native = m,
        };
        p->credit--;
        p->bytes -= m->record.pinned;
        p->lent++;
        p->position = native->offset + 1;
        p->at_end = false;
        return &m->record;
}

static void end_of_partition(struct source *s, struct partition *p, int64_t end)
{
        /* Control records and gaps leave no ghost lag, and a group that begins at the end keeps its place. */
        if (p->lent == 0 && p->committed < end && !p->leaving)
                kafka_commit(s, p->track, (uint64_t)end);
        p->position = end;
        p->at_end = true;
}

/* Reads one message of a partition; false: none, or no memory. */
static bool read_one(struct source *s, struct partition *p, struct source_event *event, bool *got)
{
        rd_kafka_message_t *m = rd_kafka_consume_queue(p->queue, 0);

        *got = false;
        if (!m) {
                p->more = false;
                return false;
        }
        if (m->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
                struct record *r = lend(s, p, m);

                if (!r) {
                        /* Not skipped: the partition is read again from here after a restart. */
                        rd_kafka_message_destroy(m);
                        set_state(s, SOURCE_FAILED, "out of memory");
                        p->credit = 0;
                        return false;
                }
                *event = (struct source_event){ .kind = SOURCE_EVENT_RECORD, .track = p->track, .record = r };
                *got = true;
                if (s->state != SOURCE_CONNECTED)
                        set_state(s, SOURCE_CONNECTED, "");
                return true;
        }
        if (m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
                end_of_partition(s, p, m->offset);
        else
                set_state(s, SOURCE_FAILED, rd_kafka_message_errstr(m));
        rd_kafka_message_destroy(m);
        return true;
}

static size_t lend_some(struct source *s, struct source_event *events, size_t max)
{
        size_t n = 0;

        for (uint32_t i = 0; i < s->partitions_n && n < max; i++) {
                struct partition *p = s->partitions[s->next_partition++ % s->partitions_n];
                size_t fair = MAX_OF((max - n) / s->partitions_n, (size_t)8), taken = 0;

                if (!p->queue || p->leaving || p->tell_assigned)
                        continue;
                if (atomic_exchange_explicit(&p->readable, false, memory_order_acquire))
                        p->more = true;
                while (p->more && p->credit > 0 && p->bytes > 0 && n < max && taken < fair) {
                        bool got;

                        if (!read_one(s, p, &events[n], &got))
                                break;
                        n += got;
                        taken += got;
                }
        }
        return n;
}

static size_t tell_changes(struct source *s, struct source_event *events, size_t max)
{
        size_t n = 0;

        if (s->state_changed && n < max) {
                s->state_changed = false;
                events[n++] = (struct source_event){ .kind = SOURCE_EVENT_STATE, .state = s->state, .text = s->text };
        }
        for (uint32_t i = 0; i < s->partitions_n && n < max; i++) {
                struct partition *p = s->partitions[i];

                if (p->tell_assigned) {
                        p->tell_assigned = false;
                        events[n++] = (struct source_event){ .kind = SOURCE_EVENT_ASSIGNED, .track = p->track };
                } else if (p->tell_leaving) {
                        p->tell_leaving = false;
                        events[n++] = p->lost ? (struct source_event){ .kind = SOURCE_EVENT_LOST, .track = p->track }
                                              : (struct source_event){ .kind = SOURCE_EVENT_REVOKING, .track = p->track, .give_up_at = s->stopping ? USEC_NEVER : s->now + REVOKE_GRACE };
                }
        }
        return n;
}

/* ---- the end ------------------------------------------------------------------------------------------------------------------------- */

static void *destroy(void *argument)
{
        struct source *s = argument;

        rd_kafka_destroy_flags(s->rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
        atomic_store(&s->destroyed, true);
        waker_ring(s->services->waker, &s->slot);
        return NULL;
}

static void advance_closing(struct source *s)
{
        if (s->closing || !rd_kafka_consumer_closed(s->rk))
                return;
        s->closing = true;
        for (uint32_t i = 0; i < s->partitions_n; i++)
                partition_drop(s->partitions[i]);
        rd_kafka_queue_cb_event_enable(s->queue, NULL, NULL);
        rd_kafka_queue_destroy(s->queue);
        s->queue = NULL;
        if (pthread_create(&s->closer, NULL, destroy, s) != 0) {
                /* No thread to be had: block, rather than leave the group's connections behind. */
                rd_kafka_destroy_flags(s->rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
                s->closed = true;
        }
}

static size_t kafka_poll(struct source *s, struct source_event *events, size_t max, usec now)
{
        size_t n;

        s->now = now;
        if (s->queue) {
                serve_queue(s);
                finish_revoking(s);
        }
        n = tell_changes(s, events, max);
        if (s->stopping && s->queue)
                advance_closing(s);
        else if (!s->stopping)
                n += lend_some(s, events + n, max - n);
        if (s->closing && !s->closed && atomic_load(&s->destroyed)) {
                (void)pthread_join(s->closer, NULL);
                s->closed = true;
        }
        if (s->closed && !s->told_closed && n < max) {
                s->told_closed = true;
                events[n++] = (struct source_event){ .kind = SOURCE_EVENT_CLOSED };
        }
        return n;
}

static usec kafka_deadline(const struct source *s)
{
        if (s->told_closed)
                return USEC_NEVER;
        return s->now + (s->stopping || s->unassign ? 50 * USEC_MSEC : POLL_INTERVAL);
}

static void kafka_credit(struct source *s, uint32_t track, uint32_t records, size_t bytes)
{
        struct partition *p = s->partitions[track];

        p->credit += records;
        p->bytes += (int64_t)bytes;
        if (p->more && p->credit > 0 && p->bytes > 0)
                loop_ready(s->services->loop, s->wake);
}

static void kafka_settle(struct source *s, struct record *r, enum outcome outcome UNUSED)
{
        struct message *m = CONTAINER_OF(r, struct message, record);

        m->partition->lent--;
        message_free(s, m);
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
        if (rd_kafka_message_detach_headers(m->native, &m->headers) != RD_KAFKA_RESP_ERR_NO_ERROR)
                m->headers = NULL;
        rd_kafka_message_destroy(m->native);
        m->native = NULL;
        return true;
}

static void kafka_revoked(struct source *s, uint32_t track)
{
        s->partitions[track]->left = true;
        loop_ready(s->services->loop, s->wake);
}

static void kafka_stop(struct source *s)
{
        rd_kafka_error_t *e;

        if (s->stopping)
                return;
        s->stopping = true;
        s->commit_deadline = USEC_NEVER;
        e = rd_kafka_consumer_close_queue(s->rk, s->queue);
        if (e) {
                log_warn("close the consumer", LOG_S("error", rd_kafka_error_string(e)));
                rd_kafka_error_destroy(e);
        }
        loop_ready(s->services->loop, s->wake);
}

static struct source *kafka_free(struct source *s)
{
        if (!s)
                return NULL;
        waker_forget(s->services->waker, &s->slot);
        for (uint32_t i = 0; i < s->partitions_n; i++) {
                free(s->partitions[i]->topic);
                free(s->partitions[i]);
        }
        free(s->partitions);
        for (struct message *m = s->spare, *next; m; m = next) {
                next = m->free_next;
                free(m);
        }
        free(s);
        return NULL;
}

static int64_t kafka_lag(const struct source *s)
{
        int64_t lag = 0;
        bool known = false;

        for (uint32_t i = 0; i < s->partitions_n && s->queue; i++) {
                const struct partition *p = s->partitions[i];
                int64_t low, high;

                if (!p->queue || rd_kafka_get_watermark_offsets(s->rk, p->topic, p->number, &low, &high) || high < 0)
                        continue;
                if (p->committed >= 0 || p->position >= 0) {
                        lag += MAX_OF(high - (p->committed >= 0 ? p->committed : p->position - p->lent), (int64_t)0);
                        known = true;
                }
        }
        return known ? lag : -1;
}

static bool kafka_drained(const struct source *s)
{
        bool any = false;

        for (uint32_t i = 0; i < s->partitions_n && s->queue; i++) {
                const struct partition *p = s->partitions[i];

                if (p->queue && (!p->at_end || p->lent))
                        return false;
                any = any || p->queue;
        }
        return any;
}

/* ---- shapes -------------------------------------------------------------------------------------------------------------------------- */

static void json_payload(struct writer *w, const struct record *r)
{
        if (r->null_value)
                writer_null(w);
        else if (str_is_utf8(r->value))
                writer_string(w, r->value);
        else
                writer_base64(w, r->value);
}

static const rd_kafka_headers_t *headers_of(const struct message *m)
{
        rd_kafka_headers_t *headers = m->headers;

        if (m->native && rd_kafka_message_headers(m->native, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR)
                return NULL;
        return headers;
}

static struct str kafka_header(const struct record *r, const char *name)
{
        const rd_kafka_headers_t *headers = headers_of(r->native);
        const void *value = NULL;
        size_t n = 0;

        if (!headers || rd_kafka_header_get_last(headers, name, &value, &n) != RD_KAFKA_RESP_ERR_NO_ERROR || !value)
                return (struct str){ 0 };
        return (struct str){ value, n };
}

static void write_header(struct writer *w, struct str value)
{
        if (value.p)
                writer_string(w, value);
        else
                writer_null(w);
}

/* By name; a name that comes more than once has a list. */
static void describe_headers(const rd_kafka_headers_t *headers, struct writer *w)
{
        PAIRS_AT_END struct pairs p = PAIRS_INIT(false);
        const char *name;
        const void *value;
        size_t n;

        for (size_t i = 0; headers && rd_kafka_header_get_all(headers, i, &name, &value, &n) == RD_KAFKA_RESP_ERR_NO_ERROR; i++)
                pairs_add(&p, str_of(name), (struct str){ value, value ? n : 0 });
        pairs_group(&p);
        writer_object(w);
        for (size_t i = 0; i < p.n; i++) {
                const struct pair *at = &p.list[i];

                if (at->again)
                        continue;
                writer_key(w, at->name);
                if (at->next == PAIRS_END) {
                        write_header(w, at->value);
                        continue;
                }
                writer_array(w);
                for (uint32_t k = (uint32_t)i; k != PAIRS_END; k = p.list[k].next)
                        write_header(w, p.list[k].value);
                writer_array_end(w);
        }
        writer_object_end(w);
        w->out->failed = w->out->failed || p.failed;
}

static void kafka_describe(const struct record *r, struct writer *w)
{
        const struct message *m = r->native;

        writer_object(w);
        writer_member_text(w, "topic", m->partition->topic);
        writer_member_int(w, "partition", m->partition->number);
        writer_member_int(w, "offset", (int64_t)r->position);
        writer_member_int(w, "timestamp", r->time / USEC_MSEC);
        writer_key(w, STR("key"));
        if (r->has_key)
                writer_string(w, r->key);
        else
                writer_null(w);
        writer_key(w, STR("headers"));
        describe_headers(headers_of(m), w);
        writer_key(w, STR("value"));
        if (!r->null_value && json_is_value(json_without_mark(r->value)))
                writer_raw(w, json_without_mark(r->value));
        else
                json_payload(w, r);
        writer_object_end(w);
}

static void kafka_event(const struct services *services, const struct record *r, struct buf *space, struct cloud_event *e)
{
        const struct message *m = r->native;
        struct str type = kafka_header(r, "content-type");
        size_t subject;

        if (!buf_reserve(space, 1024))
                return;
        cloudevent_source(services->trigger, m->partition->topic, space);
        subject = space->n;
        buf_printf(space, "partition:%d#%lld", m->partition->number, (long long)r->position);
        *e = (struct cloud_event){ .id = r->id, .source = { space->p, subject }, .subject = { space->p + subject, space->n - subject }, .time = r->time };
        if (r->has_key)
                e->key = r->key;
        if (r->null_value)
                return;
        e->data = r->value;
        e->content_type = str_of(content_type_of(r->value, &e->json));
        if (type.n && type.n < 256 && str_is_utf8(type) && !memchr(type.p, '\r', type.n) && !memchr(type.p, '\n', type.n))
                e->content_type = type;
}

static void messages(struct writer *w, struct record *const *records, size_t n)
{
        writer_key(w, STR("messages"));
        writer_array(w);
        for (size_t i = 0; i < n; i++)
                json_payload(w, records[i]);
        writer_array_end(w);
}

static void kafka_encode(const struct services *services, enum dialect dialect, struct record *const *records, size_t n, struct writer *w)
{
        const struct message *m = records[0]->native;
        const struct event_spec *event = services->trigger->event;
        usec time = records[0]->time ? records[0]->time : clock_wall(services->clock);

        writer_object(w);
        writer_member_text(w, "event_version", "v1.0");
        writer_member_int(w, "event_time", time / USEC_SEC);
        writer_member_text(w, "trigger_type", "KAFKA");
        writer_member_text(w, "region", event->region ? event->region : "");
        if (dialect == DIALECT_CLASSIC)
                messages(w, records, n);
        else {
                writer_key(w, STR("records"));
                writer_array(w);
                writer_object(w);
                messages(w, records, n);
                writer_member_text(w, "topic_id", m->partition->topic);
                writer_object_end(w);
                writer_array_end(w);
        }
        writer_member_text(w, "instance_id", event->instance_id ? event->instance_id : "");
        if (dialect == DIALECT_CLASSIC)
                writer_member_text(w, "topic_id", m->partition->topic);
        writer_object_end(w);
}

/* ---- previews ------------------------------------------------------------------------------------------------------------------------ */

struct sample { struct partition partition; struct buf key, value; };

static void sample_bytes(const struct node *n, struct buf *b)
{
        struct writer w;

        writer_init(&w, b);
        if (n->kind == NODE_STRING)
                buf_str(b, n->text);
        else
                node_write(n, &w);
}

static int64_t sample_int(const struct node *document, const char *name, int64_t otherwise)
{
        const struct node *n = node_member(document, name);

        return n && n->kind == NODE_INT ? n->integer : otherwise;
}

static void sample_headers(struct message *m, const struct node *headers)
{
        if (!headers || headers->kind != NODE_MAP || !(m->headers = rd_kafka_headers_new(headers->n)))
                return;
        for (size_t i = 0; i < headers->n; i++)
                (void)rd_kafka_header_add(m->headers, headers->members[i].key.p, (ssize_t)headers->members[i].key.n, headers->members[i].value->text.p,
                                          (ssize_t)headers->members[i].value->text.n);
}

static void kafka_sample_free(struct record *r)
{
        struct message *m;
        struct sample *s;

        if (!r)
                return;
        m = CONTAINER_OF(r, struct message, record);
        s = CONTAINER_OF(m->partition, struct sample, partition);
        if (m->headers)
                rd_kafka_headers_destroy(m->headers);
        buf_done(&s->key);
        buf_done(&s->value);
        free(s->partition.topic);
        free(s);
        free(m);
}

static int kafka_sample(const void *spec_, const struct services *services, const struct node *document, struct record **out, struct error *err)
{
        const struct kafka_spec *spec = spec_;
        const struct node *topic = node_member(document, "topic"), *key = node_member(document, "key"), *value = node_member(document, "value");
        struct sample *s = calloc(1, sizeof(*s));
        struct message *m = s ? calloc(1, sizeof(*m) + 512) : NULL;
        int64_t offset = sample_int(document, "offset", 0), time = sample_int(document, "timestamp", clock_wall(services->clock) / USEC_MSEC);

        if (!m) {
                free(s);
                return error_memory(err);
        }
        m->partition = &s->partition;
        s->key.max = s->value.max = BUF_DEFAULT_MAX;
        s->partition.topic = topic && topic->kind == NODE_STRING ? str_dup(topic->text) : str_dup(str_of(spec->topics.list[0]));
        s->partition.number = (int32_t)sample_int(document, "partition", 0);
        sample_headers(m, node_member(document, "headers"));
        if (value)
                sample_bytes(value, &s->value);
        if (key && key->kind != NODE_NULL)
                sample_bytes(key, &s->key);
        if (!s->partition.topic || s->key.failed || s->value.failed) {
                kafka_sample_free(&m->record);
                return error_memory(err);
        }
        m->record = (struct record){ .position = (uint64_t)offset, .time = time * USEC_MSEC, .key = buf_view(&s->key), .has_key = key && key->kind != NODE_NULL,
                                     .value = buf_view(&s->value), .null_value = !value || value->kind == NODE_NULL, .native = m };
        m->record.id = (struct str){ m->id, (size_t)snprintf(m->id, 512, "%s/%d/%lld", s->partition.topic, s->partition.number, (long long)offset) };
        *out = &m->record;
        return 0;
}

static void kafka_origin(const struct trigger *t, struct buf *b) { strings_join(&((const struct kafka_spec *)t->source_spec)->topics, b); }

const struct driver kafka_driver = {
        .name = "kafka", .ce_type = "dev.sluice.kafka.message", .type = &kafka_type,
        .open = kafka_open, .credit = kafka_credit, .poll = kafka_poll, .deadline = kafka_deadline, .settle = kafka_settle, .detach = kafka_detach,
        .commit = kafka_commit, .revoked = kafka_revoked, .stop = kafka_stop, .free = kafka_free, .lag = kafka_lag, .drained = kafka_drained, .describe = kafka_describe,
        .encode = kafka_encode, .event = kafka_event, .header = kafka_header, .sample = kafka_sample, .sample_free = kafka_sample_free, .origin = kafka_origin,
};
