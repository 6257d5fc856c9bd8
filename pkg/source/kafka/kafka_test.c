/* The source against librdkafka's own cluster: what befalls it, and what becomes of commits. */
#include "source/kafka/inside.h"

#include <inttypes.h>
#include <librdkafka/rdkafka_mock.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "source/source.h"
#include "tests/support/trigger.h"

enum { PARTITIONS = 4, NOTICES = 8, OFFSET_COMMIT = 8 /* its key in the protocol */ };
static char topic[] = "orders";
static const char group[] = "sluice.shop.t";

/* How records are taken. */
struct reading {
        void (*take)(struct record *);
        void (*turned)(void); /* at the end of each turn; NULL: nothing is done */
        bool (*is_done)(void);
        uint32_t records; /* the credit of a track, in the beginning */
        uint64_t bytes;
};

static struct bench {
        rd_kafka_t *producer;
        rd_kafka_mock_cluster_t *cluster;
        struct loop *loop;
        struct kafka_spec spec;
        struct trigger trigger;
        struct services services;
        struct source *source;
        struct task wake, watchdog;
        char servers[512], *server_list[1], *topic_list[1];
        size_t total, stop_at;
        bool stopping, closed, overdue;
        struct {
                char reason[32], text[NOTICE_TEXT_MOST];
                uint64_t lost;
        } notices[NOTICES];
        size_t notices_n;
        /* What the commits are answered that follow the last record: while reading goes on, or to the stop.
         */
        const rd_kafka_resp_err_t *refusals;
        size_t refusals_n;
        bool refuse_stop;
        struct record *held; /* the last, until the stop */
        const struct reading *reading;
} b;

/* ---- the pipeline's part ------------------------------------------------ */

static void too_late(struct task *t UNUSED, usec now UNUSED)
{
        b.overdue = true;
        loop_stop(b.loop);
}

static void on_notice(void *cookie UNUSED, const struct notice *n)
{
        assert_true(b.notices_n < NOTICES);
        assert_int_equal(n->times, 1);
        (void)snprintf(b.notices[b.notices_n].reason, sizeof(b.notices[0].reason), "%s", n->reason);
        (void)snprintf(b.notices[b.notices_n].text, sizeof(b.notices[0].text), "%s", n->text);
        b.notices[b.notices_n++].lost = n->lost;
}

static void refuse_commits(void)
{
        rd_kafka_mock_push_request_errors_array(b.cluster, OFFSET_COMMIT, b.refusals_n, b.refusals);
        b.refusals_n = 0;
}

static void settle(struct record *r)
{
        uint32_t track = r->track;
        uint64_t next = r->position + 1;

        kafka_source.pull->release(b.source, r, OUTCOME_ACCEPTED);
        kafka_source.pull->commit(b.source, track, next);
        kafka_source.pull->credit(b.source, track, 1, 1 << 20);
}

static void take(struct record *r)
{
        bool last = ++b.total == b.stop_at;

        if (last && b.refuse_stop) {
                b.held = r;
                return;
        }
        if (last && b.refusals_n)
                refuse_commits();
        settle(r);
}

static void stop(void)
{
        b.stopping = true;
        if (b.held) { /* what it settles can be committed by the stop alone */
                refuse_commits();
                settle(b.held);
        }
        kafka_source.pull->stop(b.source);
}

/* All has come, and what was refused meanwhile is committed all the same. */
static bool is_done(void)
{
        return b.total >= b.stop_at && kafka_source.pull->lag(b.source) == (b.held ? 1 : 0);
}

static const struct reading one_by_one = {
        .take = take, .records = 10, .bytes = 1 << 20, .is_done = is_done
};

static void turn(struct task *t UNUSED, usec now)
{
        struct pull_event events[16];
        size_t n;

        while ((n = kafka_source.pull->poll(b.source, events, COUNT_OF(events), now)))
                for (size_t i = 0; i < n; i++)
                        switch (events[i].kind) {
                        case PULL_RECORD: b.reading->take(events[i].record); break;
                        case PULL_ASSIGNED:
                                kafka_source.pull->credit(b.source, events[i].track, b.reading->records,
                                                          b.reading->bytes);
                                break;
                        case PULL_REVOKING:
                        case PULL_LOST: kafka_source.pull->revoked(b.source, events[i].track); break;
                        case PULL_CLOSED: b.closed = true; break;
                        case PULL_STATE: break;
                        }
        if (b.reading->turned)
                b.reading->turned();
        if (b.closed)
                loop_stop(b.loop);
        else if (!b.stopping && b.reading->is_done())
                stop();
        loop_arm(b.loop, &b.wake, kafka_source.pull->deadline(b.source));
}

/* Opens the source, reads until so many records came, stops and frees it. */
static void consume(size_t until)
{
        struct error err;

        b.stop_at = until;
        b.total = 0;
        b.stopping = b.closed = false;
        b.held = NULL;
        b.wake = (struct task){ .turn = turn };
        b.watchdog = (struct task){ .turn = too_late };
        b.services.wake = &b.wake;
        if (kafka_source.open(&b.source, &b.spec, &b.services, &err) < 0)
                fail_msg("%s", err.text);
        loop_ready(b.loop, &b.wake);
        loop_arm(b.loop, &b.watchdog, clock_monotonic(&system_clock) + 60 * USEC_SEC);
        loop_run(b.loop);
        loop_forget(b.loop, &b.watchdog);
        if (b.overdue)
                fail_msg("%zu records of %zu came", b.total, until);
        b.source = kafka_source.pull->free(b.source);
        loop_forget(b.loop, &b.wake);
}

/* ---- the cluster -------------------------------------------------------- */

static void produce(int partition, size_t count, size_t size)
{
        char *value = calloc(1, size);

        assert_non_null(value);
        for (size_t i = 0; i < count; i++) {
                assert_int_equal(rd_kafka_producev(b.producer, RD_KAFKA_V_TOPIC(topic),
                                                   RD_KAFKA_V_PARTITION(partition),
                                                   RD_KAFKA_V_VALUE(value, size),
                                                   RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END),
                                 RD_KAFKA_RESP_ERR_NO_ERROR);
                /* each is a batch of its own: whole batches are what the cluster throws away */
                assert_int_equal(rd_kafka_flush(b.producer, 20000), RD_KAFKA_RESP_ERR_NO_ERROR);
        }
        free(value);
}

/* The group's own positions, without joining it. */
static rd_kafka_t *member(void)
{
        rd_kafka_conf_t *conf = rd_kafka_conf_new();
        rd_kafka_t *rk;
        char why[256];

        assert_int_equal(rd_kafka_conf_set(conf, "bootstrap.servers", b.servers, why, sizeof(why)),
                         RD_KAFKA_CONF_OK);
        assert_int_equal(rd_kafka_conf_set(conf, "group.id", group, why, sizeof(why)), RD_KAFKA_CONF_OK);
        if (!(rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof(why))))
                fail_msg("%s", why);
        return rk;
}

static void commit(int partition, int64_t offset)
{
        rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
        rd_kafka_t *rk = member();

        rd_kafka_topic_partition_list_add(list, topic, partition)->offset = offset;
        assert_int_equal(rd_kafka_commit(rk, list, 0), RD_KAFKA_RESP_ERR_NO_ERROR);
        rd_kafka_topic_partition_list_destroy(list);
        rd_kafka_destroy(rk);
}

static int64_t committed(int partition)
{
        rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
        rd_kafka_t *rk = member();
        int64_t offset;

        (void)rd_kafka_topic_partition_list_add(list, topic, partition);
        assert_int_equal(rd_kafka_committed(rk, list, 20000), RD_KAFKA_RESP_ERR_NO_ERROR);
        offset = list->elems[0].offset;
        rd_kafka_topic_partition_list_destroy(list);
        rd_kafka_destroy(rk);
        return offset;
}

static void bounds(int partition, int64_t *low, int64_t *high)
{
        rd_kafka_t *rk = member();

        assert_int_equal(rd_kafka_query_watermark_offsets(rk, topic, partition, low, high, 20000),
                         RD_KAFKA_RESP_ERR_NO_ERROR);
        rd_kafka_destroy(rk);
}

static int begin(void **state UNUSED)
{
        rd_kafka_conf_t *conf = rd_kafka_conf_new();
        struct error err;
        char why[256];

        memset(&b, 0, sizeof(b));
        b.producer = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof(why));
        assert_non_null(b.producer);
        b.cluster = rd_kafka_mock_cluster_new(b.producer, 1);
        (void)snprintf(b.servers, sizeof(b.servers), "%s", rd_kafka_mock_cluster_bootstraps(b.cluster));
        assert_int_equal(rd_kafka_mock_topic_create(b.cluster, topic, PARTITIONS, 1),
                         RD_KAFKA_RESP_ERR_NO_ERROR);
        assert_true(rd_kafka_brokers_add(b.producer, b.servers) > 0);
        assert_int_equal(loop_new(&b.loop, &err), 0);
        b.server_list[0] = b.servers;
        b.topic_list[0] = topic;
        b.spec = (struct kafka_spec){ .cluster.bootstrap_servers = { b.server_list, 1 },
                                      .topics = { b.topic_list, 1 },
                                      .start_position = KAFKA_EARLIEST,
                                      .fetch_bytes = 8 << 20 };
        b.trigger = (struct trigger)TEST_TRIGGER("t", .source_spec = &b.spec);
        b.reading = &one_by_one;
        b.services = (struct services){ .loop = b.loop,
                                        .waker = loop_waker(b.loop),
                                        .clock = &system_clock,
                                        .trigger = &b.trigger,
                                        .notices = { on_notice, NULL } };
        return 0;
}

static int end(void **state UNUSED)
{
        b.loop = loop_free(b.loop);
        rd_kafka_mock_cluster_destroy(b.cluster);
        rd_kafka_destroy(b.producer);
        return 0;
}

/* ---- tests -------------------------------------------------------------- */

/* One partition's position lies before what its cluster keeps, another's behind its end; the third's is in
 * range, and says nothing. */
static void a_position_out_of_range_is_told_with_its_offsets(void **state UNUSED)
{
        char expired[NOTICE_TEXT_MOST], reset[NOTICE_TEXT_MOST];
        int64_t low, high;

        produce(0, 80, 100000); /* more than the cluster keeps of a partition */
        produce(1, 5, 10);
        produce(2, 7, 10);
        bounds(0, &low, &high);
        assert_in_range(low, 4, 79);
        assert_int_equal(high, 80);
        commit(0, 3);
        commit(1, 500);
        commit(2, 6);
        consume((size_t)(high - low) + 5 + 1);
        (void)snprintf(
                expired, sizeof(expired),
                "topic orders, partition 0: %lld records are gone before they were delivered, offsets 3 "
                "to %lld: retention or a deletion took them",
                (long long)low - 3, (long long)low - 1);
        (void)snprintf(reset, sizeof(reset), "topic orders, partition 1: the position 500 is no more: ");
        assert_int_equal(b.notices_n, 2);
        for (size_t i = 0; i < 2; i++) {
                bool first = strcmp(b.notices[i].reason, "RecordsExpired") == 0;

                assert_string_equal(b.notices[i].reason, first ? "RecordsExpired" : "PositionReset");
                assert_int_equal(b.notices[i].lost, first ? low - 3 : 0);
                if (first)
                        assert_string_equal(b.notices[i].text, expired);
                else
                        assert_memory_equal(b.notices[i].text, reset, strlen(reset));
        }
        assert_string_not_equal(b.notices[0].reason, b.notices[1].reason);
        assert_int_equal(committed(0), 80);
        assert_int_equal(committed(1), 5);
        assert_int_equal(committed(2), 7);
}

static const rd_kafka_resp_err_t transient[] = { RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
                                                 RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
                                                 RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
                                                 RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED,
                                                 RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED };

static void a_commit_that_is_refused_is_made_again(void **state UNUSED)
{
        produce(0, 5, 10);
        b.refusals = transient;
        b.refusals_n = COUNT_OF(transient);
        consume(5);
        assert_int_equal(committed(0), 5);
}

static void a_commit_that_is_refused_at_the_stop_is_made_again(void **state UNUSED)
{
        produce(0, 5, 10);
        b.refusals = &transient[3];
        b.refusals_n = 1;
        b.refuse_stop = true;
        consume(5);
        assert_int_equal(committed(0), 5);
}

/* ---- in order ----------------------------------------------------------- */

enum { MESSAGES = 1000, EACH = MESSAGES / PARTITIONS, KEPT = 8 };
static struct {
        uint64_t got[PARTITIONS];
        struct record *kept[KEPT]; /* lent a while, as by a function that works */
        size_t kept_n;
} seen;

/* Released newest first, committed oldest first: commits only go on. */
static void settle_kept(void)
{
        struct place {
                uint32_t track;
                uint64_t next;
        } places[KEPT];

        for (size_t i = seen.kept_n; i-- > 0;) {
                places[i] = (struct place){ seen.kept[i]->track, seen.kept[i]->position + 1 };
                kafka_source.pull->release(b.source, seen.kept[i], OUTCOME_ACCEPTED);
        }
        for (size_t i = 0; i < seen.kept_n; i++) {
                if (places[i].next % 10 == 0 || places[i].next == EACH)
                        kafka_source.pull->commit(b.source, places[i].track, places[i].next);
                kafka_source.pull->credit(b.source, places[i].track, 1, 300);
        }
        seen.kept_n = 0;
}

/* Each partition's, in order, none missing, none twice. */
static void keep(struct record *r)
{
        struct str rest = r->value;
        char value[64], id[128];
        int64_t number = -1;

        assert_true(str_to_int64(str_cut(&rest, '/'), &number));
        assert_in_range(number, 0, PARTITIONS - 1);
        (void)snprintf(value, sizeof(value), "%" PRId64 "/%" PRIu64, number, seen.got[number]);
        (void)snprintf(id, sizeof(id), "%s/%s", topic, value);
        assert_int_equal(r->position, seen.got[number]);
        assert_true(str_is(r->value, value));
        assert_true(str_is(r->id, id));
        seen.got[number]++;
        b.total++;
        if (r->position % 7 == 0) {
                assert_true(kafka_source.pull->detach(b.source, r));
                assert_true(kafka_source.pull->detach(b.source, r));
                assert_true(str_is(r->value, value));
        }
        seen.kept[seen.kept_n++] = r;
        if (seen.kept_n == KEPT)
                settle_kept();
}

static bool all_came(void) { return b.total >= b.stop_at; }

static void produce_numbered(void)
{
        for (int i = 0; i < MESSAGES; i++) {
                char value[64];
                int n = snprintf(value, sizeof(value), "%d/%d", i % PARTITIONS, i / PARTITIONS);

                assert_int_equal(rd_kafka_producev(b.producer, RD_KAFKA_V_TOPIC(topic),
                                                   RD_KAFKA_V_PARTITION(i % PARTITIONS),
                                                   RD_KAFKA_V_VALUE(value, (size_t)n),
                                                   RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END),
                                 RD_KAFKA_RESP_ERR_NO_ERROR);
        }
        assert_int_equal(rd_kafka_flush(b.producer, 20000), RD_KAFKA_RESP_ERR_NO_ERROR);
}

/* With little credit, so that fetching stops and goes on. */
static void messages_arrive_in_order_and_are_committed(void **state UNUSED)
{
        static const struct reading in_bunches = {
                .take = keep, .turned = settle_kept, .records = 3, .bytes = 1000, .is_done = all_came
        };

        memset(&seen, 0, sizeof(seen));
        b.reading = &in_bunches;
        b.spec.fetch_bytes = 0;
        produce_numbered();
        consume(MESSAGES);
        for (int i = 0; i < PARTITIONS; i++) {
                assert_int_equal(seen.got[i], EACH);
                assert_int_equal(committed(i), EACH);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(messages_arrive_in_order_and_are_committed, begin, end),
                cmocka_unit_test_setup_teardown(a_position_out_of_range_is_told_with_its_offsets, begin, end),
                cmocka_unit_test_setup_teardown(a_commit_that_is_refused_is_made_again, begin, end),
                cmocka_unit_test_setup_teardown(a_commit_that_is_refused_at_the_stop_is_made_again, begin,
                                                end),
        };

        signals_block();
        return cmocka_run_group_tests_name("kafka source", tests, NULL, NULL);
}
