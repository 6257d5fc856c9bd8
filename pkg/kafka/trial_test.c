#include "kafka/trial.h"

#include <netdb.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <time.h>

#include "kafka/producer.h"

#include <cmocka.h>

/* The name server: it says nothing until the test lets it, or so many seconds have passed. */
enum { PATIENCE = 5 };
static sem_t asked, lets_go;
static _Atomic bool answered;

int getaddrinfo(const char *name UNUSED, const char *service UNUSED, const struct addrinfo *hints UNUSED,
                struct addrinfo **out UNUSED)
{
        struct timespec until;

        (void)sem_post(&asked);
        (void)clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += PATIENCE;
        (void)sem_timedwait(&lets_go, &until);
        answered = true;
        return EAI_AGAIN;
}

static void no_turn(struct task *t UNUSED, usec now UNUSED) {}

static char server[] = "broker.elsewhere:9092";
static char *servers[] = { server };
static const struct kafka_cluster cluster = { .bootstrap_servers = { servers, 1 } };

static int begin(void **state UNUSED)
{
        answered = false;
        return sem_init(&asked, 0, 0) | sem_init(&lets_go, 0, 0);
}

/* The loop goes on, whatever the thread of a client waits for. */
static void its_end_waits_for_no_name_server(void **state UNUSED)
{
        struct task wake = { .turn = no_turn };
        struct kafka_access access = { 0 };
        struct kafka_trial_config config = { .access = &access, .wake = &wake };
        struct kafka_trial *trial;
        struct error err;

        assert_int_equal(loop_new(&config.loop, &err), 0);
        assert_int_equal(kafka_access_open(&access,
                                           &(struct kafka_access_config){
                                                   .loop = config.loop, .cluster = &cluster, .wake = &wake },
                                           &err),
                         0);
        assert_int_equal(kafka_trial_new(&trial, &config, loop_now(config.loop), &err), 0);
        assert_int_equal(sem_wait(&asked), 0);
        trial = kafka_trial_free(trial);
        assert_false(answered);
        (void)sem_post(&lets_go);
        kafka_access_done(&access);
        loop_forget(config.loop, &wake);
        (void)loop_free(config.loop);
        kafka_ended();
}

static void nor_does_the_end_of_a_producer(void **state UNUSED)
{
        struct task wake = { .turn = no_turn };
        struct kafka_producer_config config = { .cluster = &cluster, .topic = "letters", .wake = &wake };
        struct kafka_producer *producer;
        struct error err;

        assert_int_equal(loop_new(&config.loop, &err), 0);
        assert_int_equal(kafka_producer_new(&producer, &config, &err), 0);
        assert_int_equal(sem_wait(&asked), 0);
        producer = kafka_producer_free(producer);
        assert_false(answered);
        (void)sem_post(&lets_go);
        loop_forget(config.loop, &wake);
        (void)loop_free(config.loop);
        kafka_ended();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup(its_end_waits_for_no_name_server, begin),
                cmocka_unit_test_setup(nor_does_the_end_of_a_producer, begin),
        };
        return cmocka_run_group_tests_name("kafka trial", tests, NULL, NULL);
}
