/* What is said of brokers that fall silent, go away and come back: by statistics and events made by hand. */
#include "source/kafka/state.c"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static char topic[] = "orders";
static struct partition partitions[2], *list[2] = { &partitions[0], &partitions[1] };
static struct kafka kafka;
static struct kafka_spec spec;

/* Two partitions that are read, one on each of two brokers. */
static int setup(void **state UNUSED)
{
        kafka = (struct kafka){
                .spec = &spec, .partitions = list, .partitions_n = 2, .state = SOURCE_CONNECTED
        };
        for (int i = 0; i < 2; i++)
                partitions[i] = (struct partition){ .source = &kafka,
                                                    .topic = topic,
                                                    .number = i,
                                                    .committed = -1,
                                                    .queue = (rd_kafka_queue_t *)&partitions[i] };
        return 0;
}

static void silent_statistics(const char *first, const char *second, const char *more, int times)
{
        BUF_AT_END struct buf text = BUF_INIT(4096);

        buf_printf(&text,
                   "{\"brokers\":{\"a\":{\"nodeid\":1,\"state\":\"%s\"},\"b\":{\"nodeid\":2,\"state\":\"%s\"%"
                   "s}},"
                   "\"topics\":{\"orders\":{\"partitions\":{\"0\":{\"leader\":1},\"1\":{\"leader\":2}}}}}",
                   first, second, more);
        for (int i = 0; i < times; i++)
                on_statistics(&kafka, text.p);
}

static void statistics(const char *first, const char *second)
{
        silent_statistics(first, second, "", STATISTICS_PASSED);
}

/* All of the text but what librdkafka's words are explained with. */
static void expect(enum source_state state, const char *text)
{
        char *hint = strstr(kafka.text, ": check that a broker listens there");

        if (hint)
                *hint = 0;
        assert_string_equal(kafka.text, text);
        assert_int_equal(kafka.state, state);
        kafka.state_changed = false;
}

/* Its connections stand, and no answer comes. */
static void silence_is_told_until_something_is_answered(void **state UNUSED)
{
        for (int i = 0; i < 5; i++) {
                state_unanswered(&kafka, "positions are not known", RD_KAFKA_RESP_ERR__TIMED_OUT);
                assert_int_equal(kafka.state_changed, i == 0);
                expect(SOURCE_CONNECTING, "positions are not known: Local: Timed out");
                statistics("UP", "UP");
                kafka_set_reading(&kafka); /* as a record that was fetched before does */
                assert_false(kafka.state_changed);
        }
        state_answered(&kafka);
        expect(SOURCE_CONNECTED, "");
        state_unanswered(&kafka, "positions can't be committed", RD_KAFKA_RESP_ERR__TIMED_OUT);
        expect(SOURCE_CONNECTING, "positions can't be committed: Local: Timed out");
        /* The connection ends at last: that says more, and what follows is as it was. */
        disconnected(&kafka, RD_KAFKA_RESP_ERR__TRANSPORT, "b1: Connect failed: Connection refused");
        expect(SOURCE_DISCONNECTED, "b1: Connect failed: Connection refused");
        state_unanswered(&kafka, "positions are not known", RD_KAFKA_RESP_ERR__TIMED_OUT);
        expect(SOURCE_DISCONNECTED, "b1: Connect failed: Connection refused");
        statistics("UP", "UP");
        expect(SOURCE_CONNECTING, "positions are not known: Local: Timed out");
        state_answered(&kafka);
        expect(SOURCE_CONNECTED, "");
}

/* Its connection stands, and nothing is asked but for records, of which there are none. */
static void a_broker_that_owes_an_answer_is_away(void **state UNUSED)
{
        static const char due[] = ",\"waitresp_cnt\":1,\"rxidle\":15000001",
                          nothing_asked[] = ",\"waitresp_cnt\":0,\"rxidle\":900000000",
                          answers[] = ",\"waitresp_cnt\":1,\"rxidle\":15000000",
                          coordinator[] = ",\"waitresp_cnt\":1,\"rxidle\":90000000,\"source\":\"logical\"";

        silent_statistics("UP", "UP", nothing_asked, 6);
        silent_statistics("UP", "UP", answers, 6);
        silent_statistics("UP", "UP", coordinator, 6);
        silent_statistics("UP", "UP", due, STATISTICS_PASSED);
        expect(SOURCE_CONNECTED, ""); /* this process itself may have been held */
        silent_statistics("UP", "UP", answers, 1);
        silent_statistics("UP", "UP", due, STATISTICS_PASSED + 1);
        expect(SOURCE_DISCONNECTED, "topic orders, partition 1: its broker is away: it does not answer");
        state_heard(&kafka, &partitions[0]); /* the other broker */
        silent_statistics("UP", "UP", due, 1);
        expect(SOURCE_DISCONNECTED, "topic orders, partition 1: its broker is away: it does not answer");
        silent_statistics("UP", "UP", answers, 1);
        expect(SOURCE_CONNECTED, "");
}

/* What the user lets an answer take is no silence. */
static void a_broker_may_take_what_it_was_given(void **state UNUSED)
{
        static char key[] = "fetch.wait.max.ms", value[] = "20000";
        static char *keys[] = { key }, *values[] = { value };

        spec.properties = (struct string_map){ keys, values, 1 };
        silent_statistics("UP", "UP", ",\"waitresp_cnt\":1,\"rxidle\":35000000", 6);
        expect(SOURCE_CONNECTED, "");
        silent_statistics("UP", "UP", ",\"waitresp_cnt\":1,\"rxidle\":35000001", 6);
        expect(SOURCE_DISCONNECTED, "topic orders, partition 1: its broker is away: it does not answer");
        spec.properties = (struct string_map){ 0 };
}

static void a_record_says_that_its_broker_is_back(void **state UNUSED)
{
        statistics("DOWN", "DOWN");
        kafka.trouble[0] = 0;
        disconnected(&kafka, RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN, "2/2 brokers are down");
        statistics("UP", "DOWN");
        expect(SOURCE_DISCONNECTED, "topic orders, partition 1: its broker is away: 2/2 brokers are down");
        state_answered(&kafka); /* by the other broker */
        state_heard(&kafka, &partitions[0]);
        expect(SOURCE_DISCONNECTED, "topic orders, partition 1: its broker is away: 2/2 brokers are down");
        state_heard(&kafka, &partitions[1]);
        expect(SOURCE_CONNECTED, "");
        /* Of two that are away the one that is not back is told. */
        partitions[0].away = partitions[1].away = true;
        kafka.away = &partitions[0];
        say_disconnected(&kafka);
        expect(SOURCE_DISCONNECTED, "topic orders, partition 0: its broker is away");
        state_heard(&kafka, &partitions[0]);
        expect(SOURCE_DISCONNECTED, "topic orders, partition 1: its broker is away");
        state_heard(&kafka, &partitions[1]);
        expect(SOURCE_CONNECTED, "");
}

/* What lay in the queue when its broker went away proves nothing, and is read all the same. */
static void what_was_fetched_before_says_nothing(void **state UNUSED)
{
        for (int i = 0; i < 2; i++)
                partitions[i].readable = partitions[i].fresh = true;
        statistics("UP", "DOWN");
        kafka.trouble[0] = 'x';
        statistics("UP", "DOWN");
        assert_int_equal(kafka.state, SOURCE_DISCONNECTED);
        for (int i = 0; i < 2; i++) {
                assert_false(partitions[i].fresh);
                assert_false(partitions[i].readable);
                assert_true(partitions[i].more);
        }
        partitions[1].readable = true; /* this came after it */
        statistics("UP", "UP");
        assert_true(partitions[1].readable);
        expect(SOURCE_CONNECTED, "");
}

/* Another partition's records say nothing of it, nor do brokers that come and go. */
static void what_can_not_be_read_is_told_until_it_is(void **state UNUSED)
{
        const char *first = "topic orders, partition 0: bad CRC",
                   *second = "topic orders, partition 1: bad CRC";

        for (int i = 0; i < 3; i++) {
                state_unreadable(&kafka, &partitions[1], "bad CRC"); /* each time it is fetched again */
                assert_int_equal(kafka.state_changed, i == 0);
                kafka_set_reading(&kafka); /* as a record of the other does */
                statistics("UP", "UP");
                state_answered(&kafka);
                expect(SOURCE_FAILED, second);
        }
        disconnected(&kafka, RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN, "2/2 brokers are down");
        expect(SOURCE_DISCONNECTED, "2/2 brokers are down");
        statistics("UP", "UP");
        expect(SOURCE_FAILED, second);
        state_unreadable(&kafka, &partitions[0], "bad CRC");
        expect(SOURCE_FAILED, first);
        state_readable(&kafka, &partitions[0]);
        expect(SOURCE_FAILED, second);
        state_readable(&kafka, &partitions[1]);
        expect(SOURCE_CONNECTED, "");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup(silence_is_told_until_something_is_answered, setup),
                cmocka_unit_test_setup(a_broker_that_owes_an_answer_is_away, setup),
                cmocka_unit_test_setup(a_broker_may_take_what_it_was_given, setup),
                cmocka_unit_test_setup(a_record_says_that_its_broker_is_back, setup),
                cmocka_unit_test_setup(what_was_fetched_before_says_nothing, setup),
                cmocka_unit_test_setup(what_can_not_be_read_is_told_until_it_is, setup),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
