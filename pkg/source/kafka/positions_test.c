#include "source/kafka/positions.h"

#include <librdkafka/rdkafka_mock.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void reading_goes_on_where_nothing_is_skipped(void **state UNUSED)
{
        static const struct {
                struct whereabouts w;
                bool first;
                enum kafka_start start;
                enum begin_reason reason;
                int64_t at;
                uint64_t lost;
        } cases[] = {
                { { -1, 10, 20, -1 }, true, KAFKA_LATEST, BEGIN_FIRST, 20, 0 },
                { { -1, 10, 20, -1 }, true, KAFKA_EARLIEST, BEGIN_FIRST, 10, 0 },
                { { -1, 10, 20, 15 }, true, KAFKA_TIMESTAMP, BEGIN_FIRST, 15, 0 },
                { { -1, 10, 20, -1 }, true, KAFKA_TIMESTAMP, BEGIN_FIRST, 20, 0 },
                { { -1, 10, 20, 15 }, false, KAFKA_TIMESTAMP, BEGIN_NEW, 10, 0 },
                { { -1, 10, 20, -1 }, false, KAFKA_LATEST, BEGIN_NEW, 10, 0 },
                { { -1, 10, 20, -1 }, false, KAFKA_EARLIEST, BEGIN_NEW, 10, 0 },
                { { 15, -1, -1, -1 }, true, KAFKA_LATEST, BEGIN_REACHED, 15, 0 },
                { { 12, 10, 20, 15 }, true, KAFKA_TIMESTAMP, BEGIN_REACHED, 12, 0 },
                { { 10, 10, 20, -1 }, false, KAFKA_LATEST, BEGIN_REACHED, 10, 0 },
                { { 20, 10, 20, -1 }, false, KAFKA_LATEST, BEGIN_REACHED, 20, 0 },
                { { 9, 10, 20, -1 }, false, KAFKA_LATEST, BEGIN_RETENTION, 10, 1 },
                { { 0, 147, 152, -1 }, true, KAFKA_EARLIEST, BEGIN_RETENTION, 147, 147 },
                { { 5, 10, 10, -1 }, false, KAFKA_LATEST, BEGIN_RETENTION, 10, 5 },
                { { 21, 10, 20, -1 }, false, KAFKA_LATEST, BEGIN_RECREATED, 10, 0 },
                { { 6, 0, 0, -1 }, true, KAFKA_LATEST, BEGIN_RECREATED, 0, 0 },
        };

        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                const struct begin b = begin_of(&cases[i].w, cases[i].first, cases[i].start);

                assert_int_equal(b.reason, cases[i].reason);
                assert_int_equal(b.at, cases[i].at);
                assert_int_equal(b.lost, cases[i].lost);
        }
}

/* ---- asking, of librdkafka's own cluster -------------------------------- */

static void e_set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
        char why[256];

        if (rd_kafka_conf_set(conf, name, value, why, sizeof(why)) != RD_KAFKA_CONF_OK)
                fail_msg("%s: %s", name, why);
}

static rd_kafka_t *e_client(rd_kafka_type_t type, const char *servers)
{
        rd_kafka_conf_t *conf = rd_kafka_conf_new();
        rd_kafka_t *rk;
        char why[256];

        if (servers)
                e_set(conf, "bootstrap.servers", servers);
        if (type == RD_KAFKA_CONSUMER)
                e_set(conf, "group.id", "g");
        if (!(rk = rd_kafka_new(type, conf, why, sizeof(why))))
                fail_msg("%s", why);
        return rk;
}

struct e_asking {
        struct loop *loop;
        struct helper *helper;
        struct task done;
};

static void e_ring(struct task *t, usec now UNUSED)
{
        struct e_asking *e = CONTAINER_OF(t, struct e_asking, done);
        struct helper_job *job = helper_take(e->helper);

        if (!job)
                return;
        lookup_taken(job);
        loop_stop(e->loop);
}

static void of_the_others_is_told_what_one_partition_is_not_known_of(void **state UNUSED)
{
        static const struct {
                const char *topic;
                int32_t number;
                bool known;
        } all[] = {
                { "here", 0, true },  { "gone", 0, false }, { "here", 1, true },
                { "here", 7, false }, { "gone", 1, false }, { "too", 0, true },
        };
        /* Once those that are known have positions, only what is not known is asked about its bounds. */
        static const struct {
                int what;
                bool committed;
        } rounds[] = { { LOOKUP_COMMITTED, false },
                       { LOOKUP_BOUNDS, false },
                       { LOOKUP_COMMITTED, true },
                       { LOOKUP_COMMITTED | LOOKUP_BOUNDS, true } };
        rd_kafka_t *producer = e_client(RD_KAFKA_PRODUCER, NULL), *rk;
        rd_kafka_mock_cluster_t *cluster = rd_kafka_mock_cluster_new(producer, 1);
        rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(COUNT_OF(all)),
                                        *known = rd_kafka_topic_partition_list_new(COUNT_OF(all));
        struct e_asking e = { .done = { .turn = e_ring } };
        struct error err;

        assert_int_equal(rd_kafka_mock_topic_create(cluster, "here", 2, 1), RD_KAFKA_RESP_ERR_NO_ERROR);
        assert_int_equal(rd_kafka_mock_topic_create(cluster, "too", 1, 1), RD_KAFKA_RESP_ERR_NO_ERROR);
        rd_kafka_mock_topic_set_error(cluster, "gone", RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
        rk = e_client(RD_KAFKA_CONSUMER, rd_kafka_mock_cluster_bootstraps(cluster));
        assert_int_equal(loop_new(&e.loop, &err), 0);
        assert_int_equal(helper_new(&e.helper, loop_waker(e.loop), &e.done, &err), 0);
        for (size_t i = 0; i < COUNT_OF(all); i++) {
                (void)rd_kafka_topic_partition_list_add(list, all[i].topic, all[i].number);
                if (all[i].known)
                        rd_kafka_topic_partition_list_add(known, all[i].topic, all[i].number)->offset = 5;
        }
        for (size_t k = 0; k < COUNT_OF(rounds); k++) {
                struct lookup *l;
                int64_t reached = rounds[k].committed ? 5 : -1,
                        bound = rounds[k].what == LOOKUP_COMMITTED && rounds[k].committed ? -1 : 0;

                if (rounds[k].committed)
                        assert_int_equal(rd_kafka_commit(rk, known, 0), RD_KAFKA_RESP_ERR_NO_ERROR);
                assert_int_equal(lookup_begin(&l, rk, list, rounds[k].what, 0, 5000, e.helper, &err), 0);
                loop_run(e.loop);
                assert_true(lookup_done(l));
                if (lookup_error(l))
                        fail_msg("nothing is known: %s", rd_kafka_err2str(lookup_error(l)));
                assert_int_equal(lookup_count(l), COUNT_OF(all));
                for (size_t i = 0; i < COUNT_OF(all); i++) {
                        struct whereabouts w;
                        const char *topic;
                        int32_t number;
                        rd_kafka_resp_err_t why = lookup_take(l, i, &topic, &number, &w);

                        assert_string_equal(topic, all[i].topic);
                        assert_int_equal(number, all[i].number);
                        if (!why != all[i].known)
                                fail_msg("%s/%d: %s", topic, number, rd_kafka_err2str(why));
                        if (why)
                                continue;
                        assert_int_equal(w.reached, reached);
                        assert_int_equal(w.low, bound);
                        assert_int_equal(w.high, bound);
                }
                (void)lookup_free(l);
        }
        e.helper = helper_free(e.helper);
        e.loop = loop_free(e.loop);
        rd_kafka_topic_partition_list_destroy(list);
        rd_kafka_topic_partition_list_destroy(known);
        rd_kafka_destroy(rk);
        rd_kafka_mock_cluster_destroy(cluster);
        rd_kafka_destroy(producer);
}

/* One of three brokers is down: what the others lead is known, and so is what has a position. */
static void a_leader_that_is_down_hides_its_own_partitions_alone(void **state UNUSED)
{
        rd_kafka_t *producer = e_client(RD_KAFKA_PRODUCER, NULL), *rk;
        rd_kafka_mock_cluster_t *cluster = rd_kafka_mock_cluster_new(producer, 3);
        rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(3);
        struct e_asking e = { .done = { .turn = e_ring } };
        struct lookup *l;
        struct error err;

        assert_int_equal(rd_kafka_mock_topic_create(cluster, "here", 6, 1), RD_KAFKA_RESP_ERR_NO_ERROR);
        for (int i = 0; i < 6; i++)
                assert_int_equal(rd_kafka_mock_partition_set_leader(cluster, "here", i, i % 3 + 1),
                                 RD_KAFKA_RESP_ERR_NO_ERROR);
        assert_int_equal(rd_kafka_mock_coordinator_set(cluster, "group", "g", 1), RD_KAFKA_RESP_ERR_NO_ERROR);
        rk = e_client(RD_KAFKA_CONSUMER, rd_kafka_mock_cluster_bootstraps(cluster));
        assert_int_equal(loop_new(&e.loop, &err), 0);
        assert_int_equal(helper_new(&e.helper, loop_waker(e.loop), &e.done, &err), 0);
        for (int i = 0; i < 6; i++)
                rd_kafka_topic_partition_list_add(list, "here", i)->offset = 5;
        /* the coordinator is found */
        assert_int_equal(rd_kafka_committed(rk, list, 20000), RD_KAFKA_RESP_ERR_NO_ERROR);
        assert_int_equal(rd_kafka_mock_broker_set_down(cluster, 2), RD_KAFKA_RESP_ERR_NO_ERROR);
        assert_int_equal(lookup_begin(&l, rk, list, LOOKUP_COMMITTED, 0, 2000, e.helper, &err), 0);
        loop_run(e.loop);
        if (lookup_error(l))
                fail_msg("nothing is known: %s", rd_kafka_err2str(lookup_error(l)));
        for (size_t i = 0; i < lookup_count(l); i++) {
                struct whereabouts w;
                const char *topic;
                int32_t number;
                rd_kafka_resp_err_t why = lookup_take(l, i, &topic, &number, &w);

                if (!why != (number % 3 != 1))
                        fail_msg("%s/%d: %s", topic, number, rd_kafka_err2str(why));
                assert_true(why || (w.low == 0 && w.high == 0));
        }
        (void)lookup_free(l);
        e.helper = helper_free(e.helper);
        e.loop = loop_free(e.loop);
        rd_kafka_topic_partition_list_destroy(list);
        rd_kafka_destroy(rk);
        rd_kafka_mock_cluster_destroy(cluster);
        rd_kafka_destroy(producer);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(reading_goes_on_where_nothing_is_skipped),
                cmocka_unit_test(of_the_others_is_told_what_one_partition_is_not_known_of),
                cmocka_unit_test(a_leader_that_is_down_hides_its_own_partitions_alone),
        };

        return cmocka_run_group_tests_name("positions", tests, NULL, NULL);
}
