#include "source/kafka/kafka.h"

#include <jansson.h>
#include <librdkafka/rdkafka.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/prctl.h>

#include "base/backoff.h"
#include "log/log.h"
#include "base/pairs.h"
#include "json/check.h"
#include "source/kafka/positions.h"

/* How long others wait for us in a rebalance, at most, for what is in flight. */
static const usec REVOKE_GRACE = 3 * USEC_SEC;
/* Polled at least this often, so that the group does not take us for stuck (max.poll.interval.ms). */
static const usec POLL_INTERVAL = 20 * USEC_SEC;
static const usec COMMIT_PATIENCE = 2 * USEC_SEC;
/* After which a commit that failed, or a question about positions, is tried again. */
static const usec AGAIN = USEC_SEC;
/* How old the ends of partitions may be that are not fetched, since nothing of them is wanted: lag comes from
 * them. */
static const usec LOOK_INTERVAL = 10 * USEC_SEC;
/* With one question about positions. */
enum { LOOK_PATIENCE_MS = 5000 };
/* After which the group's position is looked at before it is committed anew: a topic that was deleted has
 * taken it along, and another one of the same name would go on in its middle. */
static const usec TRUSTED = 500 * USEC_MSEC;
/* A consumer that another one of its name has fenced off waits as long, or twice, before it joins again: a
 * worker that was replaced is stopped by then. */
static const usec REJOIN = 30 * USEC_SEC;

/* ---- the spec ----------------------------------------------------------- */

static const char *const start_names[] = { "Earliest", "Latest", NULL };
static const struct field kafka_fields[] = {
        FIELD(STRINGS, "bootstrapServers", struct kafka_spec, bootstrap_servers, .required = true, .min = 1,
              .max = 32, .pattern = "^([A-Za-z0-9._-]+|\\[[0-9A-Fa-f:.]+\\]):" PORT_PATTERN "$",
              .format = "HOST:PORT", .cloud = "kafka_connect_address",
              .help = "Brokers to begin with, each HOST:PORT; the others are learned from them."),
        FIELD(STRINGS, "topics", struct kafka_spec, topics, .required = true, .min = 1, .max = 100,
              .set = true, .pattern = KAFKA_TOPIC_PATTERN, .format = KAFKA_TOPIC_FORMAT, .cloud = "topic_ids",
              .help = "Topics to read."),
        FIELD(STRING, "consumerGroup", struct kafka_spec, consumer_group, .min = 1, .max = 255,
              .help = "The consumer group that holds the positions; by default sluice.NAMESPACE.NAME."),
        FIELD(ENUM, "startPosition", struct kafka_spec, start_position, .fallback = "Latest",
              .values = start_names,
              .help = "Where the consumer group begins at its first start: Earliest reads all there is, "
                      "Latest only what comes from then on. Partitions and topics that appear later are "
                      "read from their beginning."),
        FIELD(INT, "fetchBytes", struct kafka_spec, fetch_bytes, .fallback = "8388608", .min = 2097152,
              .max = 1073741824,
              .help = "What fetching ahead may take in memory over about four partitions, in bytes; half of "
                      "it is for records, half for what librdkafka keeps beside "
                      "them. With librdkafka before 2.2 (Debian 12) the highest throughput grows with it."),
};
const struct type kafka_type = TYPE("KafkaSource", struct kafka_spec, kafka_fields,
                                    "Messages of Kafka topics, at least once, in order within a partition. A "
                                    "null value reaches the function as JSON null, "
                                    "a value that is not valid UTF-8 as its Base64.");

void kafka_group(const struct kafka_spec *spec, const struct trigger *t, struct buf *b)
{
        if (spec->consumer_group)
                buf_text(b, spec->consumer_group);
        else
                buf_printf(b, "sluice.%s.%s", t->namespace_, t->name);
}

/* ---- the source --------------------------------------------------------- */

struct message { /* a record of ours */
        struct record record;
        struct message *free_next;
        struct partition *partition;
        rd_kafka_message_t *native;  /* NULL once detached */
        rd_kafka_headers_t *headers; /* of a detached message; NULL: none */
        int64_t timestamp;           /* the broker's, in milliseconds, whatever the producer wrote */
        usec lent_at;                /* wall; where the broker has no time for it */
        char *copy;
        char id[];
};

struct partition {
        struct kafka *source;
        uint32_t track;
        char *topic;
        int32_t number;
        rd_kafka_queue_t *queue; /* NULL: not assigned */
        _Atomic bool readable;   /* set by librdkafka's thread: something came into an empty queue */
        bool more;               /* the last read stopped for lack of credit, not of messages */
        bool at_end;             /* all there was has been read */
        bool tell_assigned, tell_leaving, leaving, lost, left;
        bool unplaced; /* where to go on is being asked */
        bool ready;    /* that is known, and reading has yet to begin there */
        bool told;     /* the pipeline was told of it, and may have records of it */
        bool again;    /* it begins anew once the pipeline let it go: its offsets went back */
        /* its topic is said not to exist: what is committed would count for another one of the same name */
        bool gone;
        bool released; /* not all that was lent was settled: the end may not be committed */
        int64_t credit, bytes;
        uint32_t lent;
        int64_t position; /* the next offset to be read; -1: unknown */
        /* behind the last record that was lent; the engine commits up to there. -1: none was */
        int64_t lent_to;
        int64_t end;       /* as it was last asked for; -1: unknown */
        int64_t committed; /* as far as we know; -1: unknown */
        int64_t wanted;    /* to be committed; -1: nothing was yet */
        bool committing;
        /* is what was committed still there? Nothing is committed until that is known */
        bool doubted;
        usec trusted_at;         /* when the broker last knew it */
        usec ask_at, commit_at;  /* not before: the broker refused this one */
        rd_kafka_resp_err_t why; /* its positions are not known, which holds up no other; 0: they are */
        bool tell_lost;          /* records are gone: */
        enum lost_reason lost_reason;
        uint64_t lost_n;
        char lost_text[360];
};

struct kafka {
        struct source source;
        const struct kafka_spec *spec;
        const struct services *services;
        struct waker_slot slot;
        rd_kafka_t *rk;
        rd_kafka_queue_t *queue;       /* of the consumer: rebalances, errors, commits */
        struct partition **partitions; /* by track; never freed before the source */
        uint32_t partitions_n, next_partition;
        size_t id_size;
        struct message *spare;
        bool *missing;    /* by topic: it did not exist yet, so that what is in it came after us */
        bool established; /* the group has begun before: startPosition is for others */
        bool subscribed;
        uint32_t asked;        /* questions about the group that are under way */
        usec ask_at;           /* ask again then; 0: no */
        struct lookup *lookup; /* about partitions; NULL: none is under way */
        bool looking;          /* it is about the ends only */
        uint32_t assignment;   /* counts them, so that answers about an earlier one are known */
        uint32_t lookup_assignment;
        usec lookup_at, look_at; /* not before; for lag alone */
        bool unassign;           /* once every leaving partition has left and its commits are answered */
        bool commit_failed;      /* the last one; so that it is said once */
        uint32_t commits_under_way;
        usec commit_at;       /* not before */
        usec commit_deadline; /* while unassigning; 0: not all have left yet */
        bool fatal;           /* this consumer is done for: another one is made */
        usec reopen_at;       /* 0: not yet */
        struct random random;
        char trouble[480]; /* what a broker connection said; counts only if partitions lie there */
        bool stopping, close_asked, closing, closed, told_closed;
        struct helper *helper; /* for calls of librdkafka that block */
        struct helper_job closer;
        bool destroyed;
        enum source_state state;
        bool state_changed;
        usec now;
        char text[480];
};

static struct kafka *kafka_of(const struct source *s) { return CONTAINER_OF(s, struct kafka, source); }

static void set_state(struct kafka *s, enum source_state state, const char *text)
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

/* ---- configuration ------------------------------------------------------ */

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

static int configure(rd_kafka_conf_t *conf, const struct kafka_spec *spec, const struct services *services,
                     struct error *err)
{
        BUF_AT_END struct buf servers = BUF_INIT(65536), group = BUF_INIT(1024);
        /* The budget is for a handful of partitions: librdkafka counts what waits for each by itself when its
         * queue is read directly. It counts only the records' bytes: its structures, half as much again for
         * records of 1 KiB, and the fetch that overfills a queue are the other half. */
        size_t kilobytes = MAX_OF((size_t)spec->fetch_bytes / 1024 / 8, (size_t)256);

        strings_join(&spec->bootstrap_servers, &servers);
        kafka_group(spec, services->trigger, &group);
        if (servers.failed || group.failed)
                return error_memory(err);
        rd_kafka_conf_set_log_cb(conf, on_log);
        rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_REBALANCE | RD_KAFKA_EVENT_OFFSET_COMMIT |
                                               RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_STATS |
                                               RD_KAFKA_EVENT_DESCRIBECONSUMERGROUPS_RESULT |
                                               RD_KAFKA_EVENT_LISTCONSUMERGROUPOFFSETS_RESULT);
        if (set(conf, "bootstrap.servers", servers.p, err) < 0 || set(conf, "group.id", group.p, err) < 0 ||
            set(conf, "client.id", "sluice", err) < 0 || set(conf, "enable.auto.commit", "false", err) < 0 ||
            set(conf, "enable.auto.offset.store", "false", err) < 0 ||
            set(conf, "enable.partition.eof", "true", err) < 0 ||
            set(conf, "allow.auto.create.topics", "false", err) < 0 ||
            /* It would act whenever a position is missing or out of range: where to begin is decided here. */
            set(conf, "auto.offset.reset", "error", err) < 0 ||
            set(conf, "topic.metadata.refresh.interval.ms", "30000", err) < 0 ||
            set(conf, "partition.assignment.strategy", "range", err) < 0 ||
            set(conf, "socket.keepalive.enable", "true", err) < 0 ||
            set(conf, "statistics.interval.ms", "5000", err) < 0 ||
            set(conf, "reconnect.backoff.max.ms", "5000", err) < 0 ||
            set(conf, "socket.connection.setup.timeout.ms", "8000", err) < 0 ||
            set_number(conf, "queued.max.messages.kbytes", kilobytes, err) < 0 ||
            set_number(conf, "fetch.message.max.bytes",
                       MIN_OF(MAX_OF(kilobytes / 4, (size_t)256), (size_t)1024) * 1024, err) < 0 ||
            set_number(conf, "fetch.max.bytes", MAX_OF(kilobytes / 2, (size_t)1024) * 1024, err) < 0)
                return -1;
        /* Since 2.2; before, a full queue is looked at again after up to a second. */
        if (rd_kafka_version() >= 0x02020000 && set(conf, "fetch.queue.backoff.ms", "5", err) < 0)
                return -1;
        if (services->instance && set(conf, "group.instance.id", services->instance, err) < 0)
                return -1;
        return 0;
}

/* ---- has the group begun before? ---------------------------------------- */

/* Two questions, whose answers are events: the positions it has, and whether it exists, for a topic that is
 * deleted takes its positions along. A broker that can't say leaves the positions of the partitions that we
 * get. */
static void ask_group(struct kafka *s)
{
        BUF_AT_END struct buf group = BUF_INIT(1024);
        rd_kafka_ListConsumerGroupOffsets_t *offsets;
        const char *name;

        kafka_group(s->spec, s->services->trigger, &group);
        if (group.failed) {
                s->ask_at = s->now + AGAIN;
                return;
        }
        name = group.p;
        offsets = rd_kafka_ListConsumerGroupOffsets_new(name, NULL);
        s->ask_at = 0;
        s->asked = 2;
        rd_kafka_ListConsumerGroupOffsets(s->rk, &offsets, 1, NULL, s->queue);
        rd_kafka_DescribeConsumerGroups(s->rk, &name, 1, NULL, s->queue);
        rd_kafka_ListConsumerGroupOffsets_destroy(offsets);
}

/* Is another try of any use? What a broker does not know, or forbids, it will not say next time either. */
static bool passes(rd_kafka_resp_err_t r)
{
        return r != RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE && r != RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION &&
               r != RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED &&
               r != RD_KAFKA_RESP_ERR_GROUP_ID_NOT_FOUND && r != RD_KAFKA_RESP_ERR__INVALID_ARG;
}

static int subscribe(struct kafka *, struct error *);

static rd_kafka_resp_err_t group_offsets(struct kafka *s, rd_kafka_event_t *event)
{
        const rd_kafka_group_result_t **groups;
        const rd_kafka_topic_partition_list_t *list;
        rd_kafka_resp_err_t r = rd_kafka_event_error(event);
        size_t n;

        if (r)
                return r;
        groups = rd_kafka_ListConsumerGroupOffsets_result_groups(
                rd_kafka_event_ListConsumerGroupOffsets_result(event), &n);
        if (n && rd_kafka_group_result_error(groups[0]))
                return rd_kafka_error_code(rd_kafka_group_result_error(groups[0]));
        list = n ? rd_kafka_group_result_partitions(groups[0]) : NULL;
        for (int i = 0; list && i < list->cnt; i++)
                s->established = s->established || (!list->elems[i].err && list->elems[i].offset >= 0);
        return RD_KAFKA_RESP_ERR_NO_ERROR;
}

/* Members of other names may be starting for the first time just as we are. */
static rd_kafka_resp_err_t group_exists(struct kafka *s, rd_kafka_event_t *event)
{
        const rd_kafka_ConsumerGroupDescription_t **groups;
        rd_kafka_resp_err_t r = rd_kafka_event_error(event);
        size_t n;

        if (r)
                return r;
        groups = rd_kafka_DescribeConsumerGroups_result_groups(
                rd_kafka_event_DescribeConsumerGroups_result(event), &n);
        if (!n)
                return RD_KAFKA_RESP_ERR_NO_ERROR;
        if (rd_kafka_ConsumerGroupDescription_error(groups[0]))
                return rd_kafka_error_code(rd_kafka_ConsumerGroupDescription_error(groups[0]));
        if (rd_kafka_ConsumerGroupDescription_state(groups[0]) == RD_KAFKA_CONSUMER_GROUP_STATE_EMPTY)
                s->established = true;
        for (size_t i = 0;
             s->services->instance && i < rd_kafka_ConsumerGroupDescription_member_count(groups[0]); i++) {
                const char *name = rd_kafka_MemberDescription_group_instance_id(
                        rd_kafka_ConsumerGroupDescription_member(groups[0], i));

                s->established = s->established || (name && strcmp(name, s->services->instance) == 0);
        }
        return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static void group_told(struct kafka *s, rd_kafka_event_t *event)
{
        bool offsets = rd_kafka_event_type(event) == RD_KAFKA_EVENT_LISTCONSUMERGROUPOFFSETS_RESULT;
        rd_kafka_resp_err_t r = offsets ? group_offsets(s, event) : group_exists(s, event);
        struct error err;

        if (r)
                log_debug("the consumer group is not known", LOG_S("trigger", s->services->trigger->name),
                          LOG_S("error", rd_kafka_err2str(r)));
        if (r && passes(r))
                s->ask_at = s->now + AGAIN;
        if (--s->asked || s->stopping || s->fatal || s->subscribed || (s->ask_at && !s->established))
                return;
        s->ask_at = 0;
        if (subscribe(s, &err) < 0)
                set_state(s, SOURCE_FAILED, err.text);
}

/* ---- the consumer ------------------------------------------------------- */

static int subscribe(struct kafka *s, struct error *err)
{
        rd_kafka_topic_partition_list_t *topics = rd_kafka_topic_partition_list_new((int)s->spec->topics.n);
        rd_kafka_resp_err_t r;

        for (size_t i = 0; i < s->spec->topics.n; i++)
                (void)rd_kafka_topic_partition_list_add(topics, s->spec->topics.list[i],
                                                        RD_KAFKA_PARTITION_UA);
        r = rd_kafka_subscribe(s->rk, topics);
        rd_kafka_topic_partition_list_destroy(topics);
        s->subscribed = r == RD_KAFKA_RESP_ERR_NO_ERROR;
        return r ? error_set(err, ERROR_INVALID, "subscribe: %s", rd_kafka_err2str(r)) : 0;
}

static int open_consumer(struct kafka *s, struct error *err)
{
        rd_kafka_conf_t *conf = rd_kafka_conf_new();
        char why[256];

        if (configure(conf, s->spec, s->services, err) < 0) {
                rd_kafka_conf_destroy(conf);
                return -1;
        }
        /* Its threads inherit this: they wait whole milliseconds for a timer and turn for the rest of the
         * last one, all their time when idle. */
        (void)prctl(PR_SET_TIMERSLACK, 2000000UL);
        s->rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof(why));
        (void)prctl(PR_SET_TIMERSLACK, 0UL); /* the thread's own again */
        if (!s->rk) {
                rd_kafka_conf_destroy(conf);
                return error_set(err, ERROR_INVALID, "kafka: %s", why);
        }
        (void)rd_kafka_poll_set_consumer(s->rk);
        s->queue = rd_kafka_queue_get_consumer(s->rk);
        rd_kafka_queue_cb_event_enable(s->queue, on_queue, s);
        /* With Earliest it makes no difference whether the group has begun before. */
        if (s->established || s->spec->start_position == KAFKA_EARLIEST)
                return subscribe(s, err);
        ask_group(s);
        return 0;
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
        random_init(&s->random, random_seed());
        for (size_t i = 0; i < s->spec->topics.n; i++)
                s->id_size = MAX_OF(s->id_size, strlen(s->spec->topics.list[i]) + 40);
        if (!(s->missing = calloc(s->spec->topics.n, sizeof(*s->missing)))) {
                free(s);
                return error_memory(err);
        }
        if (helper_new(&s->helper, services->waker, services->wake, err) < 0 || open_consumer(s, err) < 0) {
                if (s->queue)
                        rd_kafka_queue_destroy(s->queue);
                if (s->rk)
                        rd_kafka_destroy(s->rk);
                (void)helper_free(s->helper);
                free(s->missing);
                free(s);
                return -1;
        }
        *out = &s->source;
        return 0;
}

/* ---- partitions --------------------------------------------------------- */

static struct partition *partition_get(struct kafka *s, const char *topic, int32_t number)
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

static bool partition_take(struct kafka *s, const rd_kafka_topic_partition_t *tp)
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
        p->position = p->committed = p->wanted = p->lent_to = p->end = -1;
        p->more = true;
        p->at_end = p->committing = p->released = p->gone = false;
        p->leaving = p->lost = p->left = p->tell_leaving = p->tell_assigned = p->told = p->again = p->ready =
                false;
        p->doubted = false;
        p->ask_at = p->commit_at = 0;
        p->why = RD_KAFKA_RESP_ERR_NO_ERROR;
        p->unplaced = true;
        return true;
}

static void partition_drop(struct partition *p)
{
        if (!p->queue)
                return;
        rd_kafka_queue_cb_event_enable(p->queue, NULL, NULL);
        rd_kafka_queue_destroy(p->queue);
        p->queue = NULL;
        p->tell_assigned = p->unplaced = p->ready = p->told = false;
}

static void assigned(struct kafka *s, rd_kafka_topic_partition_list_t *list)
{
        rd_kafka_resp_err_t r;

        s->assignment++;
        for (int i = 0; i < list->cnt; i++)
                if (!partition_take(s, &list->elems[i])) {
                        set_state(s, SOURCE_FAILED, "out of memory");
                        return;
                }
        if (list->cnt) {
                s->lookup_at = 0;
                return;
        }
        s->established = true; /* what comes later came after the group's first start */
        r = rd_kafka_assign(s->rk, list);
        if (r)
                set_state(s, SOURCE_FAILED, rd_kafka_err2str(r));
        else
                set_state(s, SOURCE_STANDBY,
                          "no partition is assigned: the group has more members than the topics have "
                          "partitions");
}

static void revoking(struct kafka *s, bool lost)
{
        s->unassign = true;
        s->commit_deadline = 0;
        for (uint32_t i = 0; i < s->partitions_n; i++) {
                struct partition *p = s->partitions[i];

                if (!p->queue)
                        continue;
                if (!p->told) {
                        p->left = true; /* the pipeline never heard of it */
                        p->tell_assigned = false;
                } else if (!p->leaving || lost || p->gone)
                        p->tell_leaving = true;
                p->leaving = true;
                p->again = false;
                p->lost = lost || p->gone;
        }
}

/* A broker does not know it, or its topic: deleted, most likely. It is set aside until a broker says
 * otherwise: nothing of it is committed, for that would count for another topic of the same name, and what is
 * left in it is no lag. */
static bool is_unknown(rd_kafka_resp_err_t r)
{
        return r == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART || r == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION ||
               r == RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC;
}

static bool set_aside(const struct partition *p) { return p->gone || is_unknown(p->why); }

static bool is_read(const struct partition *p) { return p->queue && !p->why && !p->unplaced && !p->ready; }

static bool reads_any(const struct kafka *s)
{
        for (uint32_t i = 0; i < s->partitions_n; i++)
                if (is_read(s->partitions[i]))
                        return true;
        return false;
}

/* The first, by name, whose positions are not known; NULL: none. */
static const struct partition *troubled(const struct kafka *s)
{
        const struct partition *first = NULL;

        for (uint32_t i = 0; i < s->partitions_n; i++) {
                const struct partition *p = s->partitions[i];
                int order = !p->queue || !p->why ? 1 : first ? strcmp(p->topic, first->topic) : -1;

                if (order < 0 || (order == 0 && p->number < first->number))
                        first = p;
        }
        return first;
}

/* One partition's trouble is told, and keeps nothing else from being read. */
static void set_reading(struct kafka *s)
{
        const struct partition *p = troubled(s);
        char text[sizeof(s->text)];
        bool reading = reads_any(s);

        if (!p && !reading)
                return;
        text[0] = 0;
        if (p)
                (void)snprintf(text, sizeof(text), "topic %s, partition %d: positions are not known: %s%s",
                               p->topic, p->number, rd_kafka_err2str(p->why),
                               set_aside(p) ? "; it is set aside: was the topic deleted?" : "");
        set_state(s, reading ? SOURCE_CONNECTED : SOURCE_CONNECTING, text);
}

/* A broker says that it does not know the partition. Asked about again until one does, or its topic is given
 * up. */
static void put_aside(struct kafka *s, struct partition *p, rd_kafka_resp_err_t why)
{
        p->why = why;
        p->ask_at = s->now + AGAIN;
        p->doubted = p->committed >= 0;
        if (p->committed < 0 && !p->told) { /* where to begin is decided anew */
                p->unplaced = true;
                p->ready = p->tell_assigned = false;
                p->position = p->wanted = -1;
        }
        if (s->state == SOURCE_CONNECTED)
                set_reading(s);
}

/* ---- committing --------------------------------------------------------- */

static bool commit_wanted(const struct partition *p)
{
        return p->queue && !p->lost && !set_aside(p) && p->wanted >= 0 && p->wanted != p->committed;
}

/* All that is wanted goes in one request. Its answer is an event on the consumer's queue. */
static void send_commits(struct kafka *s)
{
        rd_kafka_topic_partition_list_t *list = NULL;
        bool sent;

        if (!s->queue || s->now < s->commit_at)
                return;
        for (uint32_t i = 0; i < s->partitions_n; i++) {
                struct partition *p = s->partitions[i];

                if (!commit_wanted(p) || p->committing || s->now < p->commit_at)
                        continue;
                p->doubted = !s->unassign && !s->stopping && p->committed >= 0 &&
                             (p->doubted || s->now - p->trusted_at > TRUSTED);
                if (p->doubted)
                        continue;
                if (!list)
                        list = rd_kafka_topic_partition_list_new(8);
                rd_kafka_topic_partition_list_add(list, p->topic, p->number)->offset = p->wanted;
        }
        if (!list)
                return;
        sent = rd_kafka_commit_queue(s->rk, list, s->queue, NULL, NULL) == RD_KAFKA_RESP_ERR_NO_ERROR;
        for (int i = 0; sent && i < list->cnt; i++) {
                struct partition *p = partition_get(s, list->elems[i].topic, list->elems[i].partition);

                if (p)
                        p->committing = true;
        }
        s->commits_under_way += sent;
        s->commit_at = sent ? 0 : s->now + AGAIN;
        rd_kafka_topic_partition_list_destroy(list);
}

static void commit_up_to(struct kafka *s, struct partition *p, int64_t next)
{
        if (!p->queue || p->lost || p->gone || next <= p->wanted)
                return;
        p->wanted = next;
        loop_ready(s->services->loop, s->services->wake);
}

static void kafka_commit(struct source *source, uint32_t track, uint64_t next)
{
        struct kafka *s = kafka_of(source);

        commit_up_to(s, s->partitions[track], (int64_t)next);
}

/* Of one partition, or of all: NULL. */
static void commit_failed(struct kafka *s, struct partition *p, rd_kafka_resp_err_t r)
{
        *(p ? &p->commit_at : &s->commit_at) = s->now + AGAIN;
        if (p && is_unknown(r))
                put_aside(s, p, r);
        if (!s->commit_failed)
                log_warn("commit failed and is tried again; what it covers is delivered again if the worker "
                         "ends before",
                         LOG_S("trigger", s->services->trigger->name), LOG_S("topic", p ? p->topic : ""),
                         LOG_S("error", rd_kafka_err2str(r)));
        s->commit_failed = true;
}

static bool refused_one_by_one(const rd_kafka_topic_partition_list_t *list)
{
        for (int i = 0; list && i < list->cnt; i++)
                if (!list->elems[i].err)
                        return false;
        return list && list->cnt > 0;
}

static void committed(struct kafka *s, rd_kafka_event_t *event)
{
        const rd_kafka_topic_partition_list_t *list = rd_kafka_event_topic_partition_list(event);
        rd_kafka_resp_err_t r = rd_kafka_event_error(event);

        if (s->commits_under_way)
                s->commits_under_way--;
        s->commit_failed = s->commit_failed && r;
        if (r && !list) /* not known which: all that is not committed is sent again */
                for (uint32_t i = 0; i < s->partitions_n; i++)
                        s->partitions[i]->committing = false;
        /* An error of the whole request may be what every partition in it was told, one by one. */
        if (r && !refused_one_by_one(list))
                commit_failed(s, NULL, r);
        for (int i = 0; list && i < list->cnt; i++) {
                struct partition *p = partition_get(s, list->elems[i].topic, list->elems[i].partition);
                rd_kafka_resp_err_t own = list->elems[i].err ? list->elems[i].err : r;

                if (!p)
                        continue;
                p->committing = false;
                if (!own) {
                        p->committed = list->elems[i].offset;
                        p->trusted_at = s->now;
                } else if (list->elems[i].err)
                        commit_failed(s, p, own);
        }
}

/* With nothing in flight at the end of a partition the end is committed, so that control records and gaps
 * leave no lag. */
static void commit_end(struct kafka *s, struct partition *p)
{
        if (p->at_end && p->lent == 0 && !p->released && p->position > p->lent_to)
                commit_up_to(s, p, p->position);
}

/* Gives the partitions back once nothing of them is out any more and what was settled is committed. The first
 * positions of a group are decided and committed by the member that was asked first: another one would take
 * it for no first start. */
static void finish_revoking(struct kafka *s)
{
        bool waits = false;

        if (!s->unassign)
                return;
        for (uint32_t i = 0; i < s->partitions_n; i++) {
                const struct partition *p = s->partitions[i];

                if (p->queue && p->leaving && !p->left)
                        return;
                waits = waits || commit_wanted(p) ||
                        (p->queue && !p->lost && p->unplaced && s->lookup && !s->looking && !s->established);
        }
        if (!s->commit_deadline)
                s->commit_deadline = s->now + COMMIT_PATIENCE;
        if ((waits || s->commits_under_way) && s->now < s->commit_deadline)
                return;
        s->unassign = false;
        for (uint32_t i = 0; i < s->partitions_n; i++) {
                if (s->partitions[i]->leaving)
                        partition_drop(s->partitions[i]);
                s->partitions[i]->leaving = false;
        }
        (void)rd_kafka_assign(s->rk, NULL);
}

/* ---- where to go on ----------------------------------------------------- */

static bool topic_missing(const struct kafka *s, const char *topic)
{
        for (size_t i = 0; i < s->spec->topics.n; i++)
                if (strcmp(s->spec->topics.list[i], topic) == 0)
                        return s->missing[i];
        return false;
}

static void say_lost(struct kafka *s, struct partition *p, enum lost_reason reason, int64_t from, int64_t to,
                     uint64_t n)
{
        p->lost_reason = reason;
        p->lost_n = n;
        p->tell_lost = true;
        if (reason == LOST_RETENTION)
                (void)snprintf(p->lost_text, sizeof(p->lost_text),
                               "topic %s, partition %d: %llu records are gone before they were delivered, "
                               "offsets %lld to %lld: retention or a deletion took them",
                               p->topic, p->number, (unsigned long long)n, (long long)from,
                               (long long)to - 1);
        else
                (void)snprintf(
                        p->lost_text, sizeof(p->lost_text),
                        "topic %s, partition %d: the position %lld is no more: the topic was made again, or "
                        "a broker lost records; reading begins anew at %lld, the first record there is, "
                        "and %llu records that were there are gone",
                        p->topic, p->number, (long long)from, (long long)to, (unsigned long long)n);
        loop_ready(s->services->loop, s->services->wake);
}

static void place_at(struct kafka *s, struct partition *p, int64_t at)
{
        p->unplaced = false;
        p->ready = true;
        p->position = at;
        p->at_end = false;
        if (p->committed != at)
                commit_up_to(s, p, at);
}

/* Offsets that went back are another log: what the pipeline has of the old one means nothing for it. */
static void begin_anew(struct kafka *s, struct partition *p, int64_t at)
{
        p->committed = p->wanted = p->lent_to = p->end = -1;
        p->released = false;
        if (p->told) {
                p->again = p->lost = p->tell_leaving = true;
                p->unplaced = false;
                p->ready = true;
                p->position = at;
                return;
        }
        place_at(s, p, at);
}

/* What the group had committed is asked for again. Gone with its topic: this is another one. */
static void settle_doubt(struct kafka *s, struct partition *p, const struct whereabouts *w)
{
        p->doubted = false;
        p->trusted_at = s->now;
        if (w->reached >= 0)
                return;
        say_lost(s, p, LOST_RECREATED, p->committed, w->low,
                 (uint64_t)MAX_OF(p->end - p->position, (int64_t)0));
        begin_anew(s, p, w->low);
}

static void place(struct kafka *s, struct partition *p, const struct whereabouts *found)
{
        struct whereabouts w = *found;
        struct begin b;
        int64_t known = p->end;

        if (p->position >= 0 && p->committed >= 0 && w.reached < 0) {
                settle_doubt(s, p, &w);
                return;
        }
        if (p->committed < 0 && w.reached >= 0)
                p->committed = p->wanted = w.reached, p->trusted_at = s->now;
        if (p->position >= 0)
                w.reached = p->position;
        b = begin_of(&w, !s->established && !topic_missing(s, p->topic),
                     s->spec->start_position == KAFKA_LATEST);
        p->end = w.high >= 0 ? w.high : -1;
        switch (b.reason) {
        case BEGIN_RETENTION: say_lost(s, p, LOST_RETENTION, w.reached, b.at, b.lost); break;
        case BEGIN_RECREATED:
                say_lost(s, p, LOST_RECREATED, w.reached, b.at,
                         (uint64_t)MAX_OF(known - w.reached, (int64_t)0));
                begin_anew(s, p, b.at);
                return;
        case BEGIN_REACHED:
        case BEGIN_FIRST:
        case BEGIN_NEW: break;
        }
        place_at(s, p, b.at);
}

static bool to_be_asked(const struct kafka *s, const struct partition *p)
{
        return (p->unplaced || p->doubted) && s->now >= p->ask_at;
}

static void look_for_places(struct kafka *s, int what)
{
        rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(8);
        struct error err;

        for (uint32_t i = 0; i < s->partitions_n; i++) {
                const struct partition *p = s->partitions[i];

                if (p->queue && !p->lost && (to_be_asked(s, p) || s->looking))
                        (void)rd_kafka_topic_partition_list_add(list, p->topic, p->number);
        }
        s->lookup_assignment = s->assignment;
        if (lookup_begin(&s->lookup, s->rk, list, what, LOOK_PATIENCE_MS, s->helper, &err) < 0) {
                s->lookup_at = s->now + AGAIN;
                set_state(s, SOURCE_DISCONNECTED, err.text);
        }
        rd_kafka_topic_partition_list_destroy(list);
}

static void take_place(struct kafka *s, struct partition *p, const struct whereabouts *w,
                       rd_kafka_resp_err_t why)
{
        if (s->looking) {
                p->end = why ? p->end : w->high;
                if (!is_unknown(why) || p->unplaced || p->committed < 0)
                        return;
                p->doubted = true;
        }
        p->why = why;
        if (why || p->unplaced)
                p->ask_at = s->now + AGAIN;
        if (why)
                return;
        if (p->unplaced)
                place(s, p, w);
        else if (p->doubted)
                settle_doubt(s, p, w);
}

static void take_places(struct kafka *s)
{
        struct lookup *l = s->lookup;
        const char *why = lookup_error(l);
        bool troubled = false;

        for (size_t i = 0; !why && i < lookup_count(l) && s->lookup_assignment == s->assignment; i++) {
                struct whereabouts w;
                const char *topic;
                int32_t number;
                rd_kafka_resp_err_t own = lookup_take(l, i, &topic, &number, &w);
                struct partition *p = partition_get(s, topic, number);

                if (!p || !p->queue)
                        continue;
                troubled = troubled || p->why;
                take_place(s, p, &w, own);
                troubled = troubled || p->why;
        }
        s->lookup = lookup_free(l);
        s->look_at = s->now + LOOK_INTERVAL;
        if (why)
                s->lookup_at = s->now + AGAIN;
        if (s->state == SOURCE_DISCONNECTED || s->state == SOURCE_FAILED)
                return;
        if (why && !s->looking) {
                char text[sizeof(s->text)];

                (void)snprintf(text, sizeof(text), "positions are not known: %s", why);
                set_state(s, SOURCE_CONNECTING, text);
        } else if (!why && troubled)
                set_reading(s);
}

/* Reading begins, anew for all: librdkafka takes no less than the whole assignment. */
static void begin_reading(struct kafka *s)
{
        rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(8);
        rd_kafka_resp_err_t r;
        bool all = true;

        for (uint32_t i = 0; i < s->partitions_n; i++) {
                struct partition *p = s->partitions[i];

                all = all && !p->unplaced;
                if (!p->queue || p->unplaced)
                        continue;
                rd_kafka_topic_partition_list_add(list, p->topic, p->number)->offset = p->position;
                p->ready = false;
                p->more = true;
                if (!p->told)
                        p->tell_assigned = true;
        }
        r = rd_kafka_assign(s->rk, list);
        rd_kafka_topic_partition_list_destroy(list);
        s->established = s->established || all;
        if (r)
                set_state(s, SOURCE_FAILED, rd_kafka_err2str(r));
        else if (s->state != SOURCE_DISCONNECTED)
                set_reading(s);
}

static void advance_places(struct kafka *s)
{
        bool due = false, ready = false, waits = false, behind = false, known = true;

        if (s->lookup && lookup_done(s->lookup))
                take_places(s);
        if (s->unassign || s->stopping)
                return;
        for (uint32_t i = 0; i < s->partitions_n; i++) {
                const struct partition *p = s->partitions[i];

                if (!p->queue)
                        continue;
                due = due || to_be_asked(s, p);
                known = known && (!p->unplaced || p->position < 0);
                ready = ready || p->ready;
                waits = waits || (p->ready && ((p->again && p->told) || commit_wanted(p)));
                behind = behind || (!p->at_end && (p->credit <= 0 || p->bytes <= 0));
        }
        if (ready && !waits && (!s->lookup || s->looking))
                begin_reading(s);
        if (s->lookup)
                return;
        s->looking = !due;
        if (due && s->now >= s->lookup_at)
                look_for_places(s, known ? LOOKUP_COMMITTED : LOOKUP_COMMITTED | LOOKUP_BOUNDS);
        else if (s->looking && behind && s->now >= s->look_at)
                look_for_places(s, LOOKUP_BOUNDS);
}

static void rebalance(struct kafka *s, rd_kafka_event_t *event)
{
        if (rd_kafka_event_error(event) == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS && !s->stopping)
                assigned(s, rd_kafka_event_topic_partition_list(event));
        else
                revoking(s, rd_kafka_assignment_lost(s->rk) != 0);
}

/* ---- state -------------------------------------------------------------- */

/* The words that say most stay: "connection refused" is not replaced by another broker's, nor by "all brokers
 * are down", but replaces the guess that librdkafka makes when an established connection ends. How long it
 * had lasted is of no use, and would make each a new message. */
static void remember_trouble(struct kafka *s, rd_kafka_resp_err_t code, const char *text)
{
        const char *span = strstr(text, " (after ");

        if (s->trouble[0] &&
            (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN || !strstr(s->trouble, "Disconnected")))
                return;
        (void)snprintf(s->trouble, sizeof(s->trouble), "%.*s",
                       (int)MIN_OF(span ? (size_t)(span - text) : strlen(text), sizeof(s->trouble) - 1),
                       text);
}

/* Which of several brokers it is about does not matter yet: statistics tell whether a partition of ours lies
 * there. */
static void disconnected(struct kafka *s, rd_kafka_resp_err_t code, const char *text)
{
        remember_trouble(s, code, text);
        if (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN || s->state == SOURCE_CONNECTING ||
            s->state == SOURCE_DISCONNECTED)
                set_state(s, SOURCE_DISCONNECTED, s->trouble);
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
        if (s->state == SOURCE_CONNECTED && troubled(s) && reads_any(s))
                set_reading(s);
        else
                set_state(s, SOURCE_FAILED, text);
}

/* This consumer is done for; the partitions are someone else's. */
static void on_fatal(struct kafka *s, const char *text)
{
        char why[sizeof(s->text)];
        rd_kafka_resp_err_t code = rd_kafka_fatal_error(s->rk, why, sizeof(why));

        if (s->fatal)
                return;
        s->fatal = true;
        set_state(s, SOURCE_FAILED, code ? why : text);
        revoking(s, true);
        s->unassign = false;
}

static void on_error(struct kafka *s, rd_kafka_event_t *event)
{
        rd_kafka_resp_err_t code = rd_kafka_event_error(event);
        const char *text = rd_kafka_event_error_string(event);

        if (code == RD_KAFKA_RESP_ERR__FATAL || rd_kafka_event_error_is_fatal(event)) {
                on_fatal(s, text);
                return;
        }
        switch ((int)code) {
        case RD_KAFKA_RESP_ERR__TRANSPORT:
        case RD_KAFKA_RESP_ERR__RESOLVE:
        case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
        case RD_KAFKA_RESP_ERR__AUTHENTICATION:
        case RD_KAFKA_RESP_ERR__SSL: disconnected(s, code, text); break;
        case RD_KAFKA_RESP_ERR__MAX_POLL_EXCEEDED: set_state(s, SOURCE_DISCONNECTED, text); break;
        case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART: topic_unknown(s, text); break;
        case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
        case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED: set_state(s, SOURCE_FAILED, text); break;
        default: log_warn("kafka", LOG_S("trigger", s->services->trigger->name), LOG_S("error", text)); break;
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
                set_state(s, SOURCE_DISCONNECTED, s->trouble);
        if (!up)
                return;
        s->trouble[0] = 0;
        if (s->state != SOURCE_DISCONNECTED && s->state != SOURCE_CONNECTING)
                return;
        if (reading)
                set_reading(s);
        else if (s->state == SOURCE_DISCONNECTED || !s->text[0])
                set_state(s, SOURCE_CONNECTING, "joining the consumer group");
}

static void serve_queue(struct kafka *s)
{
        rd_kafka_event_t *event;

        while ((event = rd_kafka_queue_poll(s->queue, 0))) {
                switch (rd_kafka_event_type(event)) {
                case RD_KAFKA_EVENT_REBALANCE: rebalance(s, event); break;
                case RD_KAFKA_EVENT_OFFSET_COMMIT: committed(s, event); break;
                case RD_KAFKA_EVENT_ERROR: on_error(s, event); break;
                case RD_KAFKA_EVENT_STATS: on_statistics(s, rd_kafka_event_stats(event)); break;
                case RD_KAFKA_EVENT_DESCRIBECONSUMERGROUPS_RESULT:
                case RD_KAFKA_EVENT_LISTCONSUMERGROUPOFFSETS_RESULT: group_told(s, event); break;
                default: break;
                }
                rd_kafka_event_destroy(event);
        }
}

/* ---- lending ------------------------------------------------------------ */

static void message_free(struct kafka *s, struct message *m)
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

/* 0: it is not known, or none that a clock could show. */
static usec time_of(int64_t timestamp)
{
        usec time;

        return timestamp == -1 || __builtin_mul_overflow(timestamp, USEC_MSEC, &time) ? 0 : time;
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
                .time = time_of(m->timestamp),
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
        p->position = p->lent_to = native->offset + 1;
        p->at_end = false;
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
        log_error("out of memory for a record, which is read again",
                  LOG_S("trigger", s->services->trigger->name), LOG_S("topic", p->topic),
                  LOG_I("partition", p->number));
        p->unplaced = true;
        p->ask_at = s->now + AGAIN;
}

static void read_failed(struct kafka *s, struct partition *p, const rd_kafka_message_t *m)
{
        char text[sizeof(s->text)];

        if (is_unknown(m->err)) {
                put_aside(s, p, m->err);
                return;
        }
        (void)snprintf(text, sizeof(text), "topic %s, partition %d: %s", p->topic, p->number,
                       rd_kafka_message_errstr(m));
        set_state(s, SOURCE_FAILED, text);
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
        if (m->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
                struct record *r = lend(s, p, m);

                if (!r) {
                        rd_kafka_message_destroy(m);
                        read_again(s, p);
                        return false;
                }
                *event = (struct pull_event){ .kind = PULL_RECORD, .track = p->track, .record = r };
                *got = true;
                if (s->state != SOURCE_CONNECTED && s->state != SOURCE_DISCONNECTED)
                        set_reading(s);
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

static size_t lend_some(struct kafka *s, struct pull_event *events, size_t max)
{
        size_t n = 0;

        for (uint32_t i = 0; i < s->partitions_n && n < max; i++) {
                struct partition *p = s->partitions[s->next_partition++ % s->partitions_n];
                size_t fair = MAX_OF((max - n) / s->partitions_n, (size_t)8), taken = 0;

                if (!p->queue || p->leaving || !p->told || p->unplaced || p->ready || p->lost)
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

static size_t tell_changes(struct kafka *s, struct pull_event *events, size_t max)
{
        size_t n = 0;

        if (s->state_changed && n < max) {
                s->state_changed = false;
                events[n++] = (struct pull_event){ .kind = PULL_STATE, .state = s->state, .text = s->text };
        }
        for (uint32_t i = 0; i < s->partitions_n && n < max; i++) {
                struct partition *p = s->partitions[i];

                if (p->tell_lost) {
                        p->tell_lost = false;
                        events[n++] = (struct pull_event){ .kind = PULL_RECORDS_LOST,
                                                           .track = p->track,
                                                           .lost = p->lost_n,
                                                           .lost_reason = p->lost_reason,
                                                           .text = p->lost_text };
                        if (n == max)
                                break;
                }
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
                                                        .give_up_at = s->stopping ? USEC_NEVER
                                                                                  : s->now + REVOKE_GRACE
                                                };
                }
        }
        return n;
}

/* ---- the end ------------------------------------------------------------ */

/* The helper's thread: nothing else uses the consumer any more. */
static void destroy(struct helper_job *job)
{
        rd_kafka_destroy_flags(CONTAINER_OF(job, struct kafka, closer)->rk,
                               RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
}

static void take_jobs(struct kafka *s)
{
        struct helper_job *job;

        while ((job = helper_take(s->helper)))
                if (job == &s->closer)
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

/* A consumer that is fenced off, or never joined, has nothing to say goodbye for. */
static void advance_closing(struct kafka *s)
{
        struct error ignored;

        if (s->closing || s->lookup || (s->fatal ? !all_left(s) : !rd_kafka_consumer_closed(s->rk)))
                return;
        s->closing = true;
        for (uint32_t i = 0; i < s->partitions_n; i++) {
                partition_drop(s->partitions[i]);
                s->partitions[i]->leaving = false;
        }
        rd_kafka_queue_cb_event_enable(s->queue, NULL, NULL);
        rd_kafka_queue_destroy(s->queue);
        s->queue = NULL;
        s->destroyed = false;
        s->closer.work = destroy;
        if (helper_submit(s->helper, &s->closer, &ignored) < 0) {
                /* No thread to be had: block, rather than leave the group's connections behind. */
                rd_kafka_destroy_flags(s->rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
                s->closing = false;
                s->rk = NULL;
        }
}

static void finish_closing(struct kafka *s)
{
        if (s->closing && s->destroyed) {
                s->closing = false;
                s->rk = NULL;
        }
        if (s->rk)
                return;
        s->closed = s->stopping;
        if (!s->closed && !s->reopen_at)
                s->reopen_at = s->now + REJOIN + backoff_full_jitter(&s->random, REJOIN, REJOIN, 0, 0);
}

/* Another consumer in the place of one that came to a fatal end. */
static void reopen(struct kafka *s)
{
        struct error err;

        s->reopen_at = 0;
        s->fatal = s->unassign = s->subscribed = s->close_asked = s->commit_failed = false;
        s->asked = s->commits_under_way = 0;
        s->ask_at = s->commit_at = 0;
        if (open_consumer(s, &err) == 0)
                return;
        set_state(s, SOURCE_FAILED, err.text);
        s->fatal = true;
        if (!s->rk)
                s->reopen_at = s->now + REJOIN;
}

static void close_consumer(struct kafka *s)
{
        rd_kafka_error_t *e;

        if (s->fatal || s->close_asked)
                return;
        s->close_asked = true;
        e = rd_kafka_consumer_close_queue(s->rk, s->queue);
        if (e) {
                log_warn("close the consumer", LOG_S("error", rd_kafka_error_string(e)));
                rd_kafka_error_destroy(e);
                on_fatal(s, s->text);
        }
}

static size_t kafka_poll(struct source *source, struct pull_event *events, size_t max, usec now)
{
        struct kafka *s = kafka_of(source);
        size_t n;

        s->now = now;
        take_jobs(s);
        if (s->queue) {
                serve_queue(s);
                if (s->ask_at && !s->asked && now >= s->ask_at && !s->stopping)
                        ask_group(s);
                advance_places(s);
                send_commits(s);
                finish_revoking(s);
        }
        n = tell_changes(s, events, max);
        if (s->queue && (s->stopping || s->fatal))
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
        if (s->stopping || s->unassign)
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
        }
        if (s->commit_at > s->now)
                at = MIN_OF(at, s->commit_at);
        if (behind && !s->lookup && s->look_at > s->now)
                at = MIN_OF(at, s->look_at);
        if (s->ask_at && !s->asked)
                at = MIN_OF(at, s->ask_at);
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
        p->released = p->released || outcome == OUTCOME_RELEASED;
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
        if (rd_kafka_message_detach_headers(m->native, &m->headers) != RD_KAFKA_RESP_ERR_NO_ERROR)
                m->headers = NULL;
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
        s->lookup = lookup_free(s->lookup);
        waker_forget(s->services->waker, &s->slot);
        for (uint32_t i = 0; i < s->partitions_n; i++) {
                free(s->partitions[i]->topic);
                free(s->partitions[i]);
        }
        free(s->partitions);
        free(s->missing);
        for (struct message *m = s->spare, *next; m; m = next) {
                next = m->free_next;
                free(m);
        }
        free(s);
        return NULL;
}

static int64_t kafka_lag(const struct source *source)
{
        const struct kafka *s = kafka_of(source);
        int64_t lag = 0;
        bool known = false;

        for (uint32_t i = 0; i < s->partitions_n && s->queue; i++) {
                const struct partition *p = s->partitions[i];
                int64_t low, high;

                if (!p->queue || set_aside(p))
                        continue;
                if (rd_kafka_get_watermark_offsets(s->rk, p->topic, p->number, &low, &high))
                        high = -1;
                /* the first is as old as the last fetch, the second as the last question */
                high = MAX_OF(high, p->end);
                if (high < 0)
                        continue;
                if (p->committed >= 0 || p->position >= 0) {
                        lag += MAX_OF(high - (p->committed >= 0 ? p->committed : p->position - p->lent),
                                      (int64_t)0);
                        known = true;
                }
        }
        return known ? lag : -1;
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

/* ---- shapes ------------------------------------------------------------- */

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
        const rd_kafka_headers_t *headers = headers_of(r->origin);
        const void *value = NULL;
        size_t n = 0;

        if (!headers || rd_kafka_header_get_last(headers, name, &value, &n) != RD_KAFKA_RESP_ERR_NO_ERROR ||
            !value)
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

        for (size_t i = 0;
             headers && rd_kafka_header_get_all(headers, i, &name, &value, &n) == RD_KAFKA_RESP_ERR_NO_ERROR;
             i++)
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
        const struct message *m = r->origin;

        writer_object(w);
        writer_member_text(w, "topic", m->partition->topic);
        writer_member_int(w, "partition", m->partition->number);
        writer_member_int(w, "offset", (int64_t)r->position);
        writer_member_int(w, "timestamp", m->timestamp);
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

/* ---- CloudEvents as records (Kafka protocol binding 1.0.2) -------------- */

static bool is_structured(struct str type)
{
        struct str rest = type;

        return str_equal_nocase(str_trim(str_cut(&rest, ';')), STR("application/cloudevents+json"));
}

/* Binary mode: attributes are headers that begin with ce_, the value is the data. false: it is no valid
 * event, and a record like any other. */
static bool read_binary(const struct message *m, const struct record *r, struct str type, struct buf *space,
                        struct cloud_event *e)
{
        const rd_kafka_headers_t *headers = headers_of(m);
        struct cloud_attribute *list = headers ? cloudevent_attributes(space, 0) : NULL;
        const char *header;
        const void *value;
        bool versioned = false;
        size_t n;

        if (!list)
                return false;
        *e = (struct cloud_event){ .own = list };
        for (size_t i = 0;
             rd_kafka_header_get_all(headers, i, &header, &value, &n) == RD_KAFKA_RESP_ERR_NO_ERROR; i++) {
                struct cloud_attribute a = { .value = { value, value ? n : 0 } };

                if (strncmp(header, "ce_", 3) != 0)
                        continue;
                a.name = str_of(header + 3);
                if (!cloudevent_name(a.name) || !cloudevent_string(a.value))
                        return false;
                for (size_t k = 0; k < e->own_n; k++)
                        if (str_equal(list[k].name, a.name))
                                return false;
                if (e->own_n == CLOUDEVENT_ATTRIBUTES_MOST)
                        return false;
                list[e->own_n++] = a;
        }
        for (size_t i = 0; i < e->own_n;) {
                struct str *const known = str_is(list[i].name, "id")       ? &e->id
                                          : str_is(list[i].name, "source") ? &e->source
                                          : str_is(list[i].name, "type")   ? &e->type
                                                                           : NULL;

                if (known)
                        *known = list[i].value;
                else if (str_is(list[i].name, "specversion"))
                        versioned = str_is(list[i].value, "1.0");
                else if (!str_is(list[i].name, "datacontenttype")) {
                        i++;
                        continue;
                }
                memmove(list + i, list + i + 1, (--e->own_n - i) * sizeof(*list));
        }
        if (!r->null_value)
                cloudevent_data(e, r->value, type);
        return versioned && e->id.n && e->source.n && e->type.n;
}

static bool own_event(const struct record *r, struct str type, struct buf *space, struct cloud_event *e)
{
        struct error err;

        if (is_structured(type)
                    ? !r->null_value && cloudevent_read(r->value, space, e, &err) == 0
                    : kafka_header(r, "ce_specversion").n && read_binary(r->origin, r, type, space, e))
                return true;
        buf_reset(space);
        return false;
}

static void kafka_event(const struct trigger *t, const struct record *r, struct buf *space,
                        struct cloud_event *e)
{
        const struct message *m = r->origin;
        struct str type = kafka_header(r, "content-type");
        size_t subject;

        if (own_event(r, type, space, e) || !buf_reserve(space, 1024))
                return;
        cloudevent_source(t, m->partition->topic, space);
        subject = space->n;
        buf_printf(space, "partition:%d#%lld", m->partition->number, (long long)r->position);
        *e = (struct cloud_event){ .id = r->id,
                                   .source = { space->p, subject },
                                   .subject = { space->p + subject, space->n - subject },
                                   .time = r->time };
        if (r->has_key)
                e->key = r->key;
        if (!r->null_value)
                cloudevent_data(e, r->value, type);
}

static void messages(struct writer *w, struct record *const *records, size_t n)
{
        writer_key(w, STR("messages"));
        writer_array(w);
        for (size_t i = 0; i < n; i++)
                json_payload(w, records[i]);
        writer_array_end(w);
}

static void kafka_encode(const struct trigger *t, struct record *const *records, size_t n, struct writer *w)
{
        const struct message *m = records[0]->origin;
        const struct event_spec *event = t->event;
        usec time = records[0]->time ? records[0]->time : m->lent_at;

        writer_object(w);
        writer_member_text(w, "event_version", "v1.0");
        writer_member_int(w, "event_time", time / USEC_SEC);
        writer_member_text(w, "trigger_type", "KAFKA");
        writer_member_text(w, "region", event->region ? event->region : "");
        if (event->dialect == DIALECT_CLASSIC)
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
        if (event->dialect == DIALECT_CLASSIC)
                writer_member_text(w, "topic_id", m->partition->topic);
        writer_object_end(w);
}

/* ---- previews ----------------------------------------------------------- */

struct sample {
        struct partition partition;
        struct buf key, value;
};

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
                (void)rd_kafka_header_add(
                        m->headers, headers->members[i].key.p, (ssize_t)headers->members[i].key.n,
                        headers->members[i].value->text.p, (ssize_t)headers->members[i].value->text.n);
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

static int kafka_sample(const struct trigger *t, const struct node *document, usec wall, struct record **out,
                        struct error *err)
{
        const struct kafka_spec *spec = t->source_spec;
        const struct node *topic = node_member(document, "topic"), *key = node_member(document, "key"),
                          *value = node_member(document, "value");
        struct sample *s = calloc(1, sizeof(*s));
        struct message *m = s ? calloc(1, sizeof(*m) + 512) : NULL;
        int64_t offset = sample_int(document, "offset", 0),
                time = sample_int(document, "timestamp", wall / USEC_MSEC);

        if (!m) {
                free(s);
                return error_memory(err);
        }
        m->partition = &s->partition;
        m->lent_at = wall;
        s->key.max = s->value.max = BUF_DEFAULT_MAX;
        s->partition.topic = topic && topic->kind == NODE_STRING ? str_dup(topic->text)
                                                                 : str_dup(str_of(spec->topics.list[0]));
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
        m->timestamp = time;
        m->record = (struct record){ .position = (uint64_t)offset,
                                     .time = time_of(time),
                                     .key = buf_view(&s->key),
                                     .has_key = key && key->kind != NODE_NULL,
                                     .value = buf_view(&s->value),
                                     .null_value = !value || value->kind == NODE_NULL,
                                     .origin = m };
        m->record.id = (struct str){ m->id, (size_t)snprintf(m->id, 512, "%s/%d/%lld", s->partition.topic,
                                                             s->partition.number, (long long)offset) };
        *out = &m->record;
        return 0;
}

static void kafka_origin(const struct trigger *t, struct buf *b)
{
        strings_join(&((const struct kafka_spec *)t->source_spec)->topics, b);
}

const struct shape kafka_shape = {
        .ce_type = "dev.sluice.kafka.message",
        .describe = kafka_describe,
        .encode = kafka_encode,
        .event = kafka_event,
        .header = kafka_header,
        .sample = kafka_sample,
        .sample_free = kafka_sample_free,
};
static const struct pull_ops pull = {
        .poll = kafka_poll,
        .deadline = kafka_deadline,
        .credit = kafka_credit,
        .release = kafka_settle,
        .detach = kafka_detach,
        .commit = kafka_commit,
        .revoked = kafka_revoked,
        .lag = kafka_lag,
        .drained = kafka_drained,
        .stop = kafka_stop,
        .free = kafka_free,
};
const struct source_kind kafka_source = {
        .name = "kafka",
        .type = &kafka_type,
        .shape = &kafka_shape,
        .pull = &pull,
        .open = kafka_open,
        .origin = kafka_origin,
};
