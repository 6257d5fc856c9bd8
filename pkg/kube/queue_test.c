#include "kube/queue.h"

#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/random.h"

static struct queue *fresh(void)
{
        struct queue *q;
        struct error err;

        assert_int_equal(queue_new(&q, &err), 0);
        return q;
}

static void a_key_added_twice_is_given_out_once(void **state UNUSED)
{
        struct queue *q = fresh();

        queue_add(q, "a");
        queue_add(q, "a");
        queue_add(q, "b");
        assert_int_equal(queue_length(q), 2);
        assert_string_equal(queue_get(q, 0), "a");
        assert_string_equal(queue_get(q, 0), "b");
        assert_null(queue_get(q, 0));
        queue_done(q, "a");
        queue_done(q, "b");
        assert_null(queue_get(q, 0));
        assert_int_equal(queue_deadline(q), USEC_NEVER);
        (void)queue_free(q);
}

static void what_is_worked_on_comes_again_afterwards_and_not_meanwhile(void **state UNUSED)
{
        struct queue *q = fresh();

        queue_add(q, "a");
        assert_string_equal(queue_get(q, 0), "a");
        queue_add(q, "a");
        assert_null(queue_get(q, 0));
        queue_done(q, "a");
        assert_string_equal(queue_get(q, 0), "a");
        queue_done(q, "a");
        assert_null(queue_get(q, 0));
        (void)queue_free(q);
}

static void of_two_delays_the_earlier_counts(void **state UNUSED)
{
        struct queue *q = fresh();

        queue_add_after(q, "a", 100);
        queue_add_after(q, "a", 50);
        queue_add_after(q, "a", 200);
        assert_int_equal(queue_deadline(q), 50);
        assert_null(queue_get(q, 49));
        assert_string_equal(queue_get(q, 50), "a");
        queue_done(q, "a");
        assert_null(queue_get(q, 1000));
        queue_add_after(q, "b", 2000);
        queue_add(q, "b"); /* at once: the delay is forgotten */
        assert_string_equal(queue_get(q, 1000), "b");
        queue_done(q, "b");
        assert_null(queue_get(q, 5000));
        (void)queue_free(q);
}

static void failures_back_off_until_they_are_forgotten(void **state UNUSED)
{
        struct queue *q = fresh();
        usec now = 0, waits[24];

        for (size_t i = 0; i < COUNT_OF(waits); i++) {
                queue_retry(q, "a", now);
                waits[i] = queue_deadline(q) - now;
                now = queue_deadline(q);
                assert_string_equal(queue_get(q, now), "a");
                queue_done(q, "a");
        }
        assert_int_equal(waits[0], 5 * USEC_MSEC);
        for (size_t i = 1; i < 10; i++)
                assert_int_equal(waits[i], 2 * waits[i - 1]);
        assert_int_equal(waits[23], 1000 * USEC_SEC);
        queue_forget(q, "a");
        queue_retry(q, "a", now);
        assert_int_equal(queue_deadline(q) - now, 5 * USEC_MSEC);
        (void)queue_free(q);
}

/* Against a model: which keys are due, and which are being worked on. */
static void agrees_with_a_model(void **state UNUSED)
{
        enum { KEYS = 7 };
        struct {
                bool dirty, processing;
                usec at;
        } model[KEYS];
        struct queue *q = fresh();
        struct random r;
        usec now = 0;

        memset(model, 0, sizeof(model));
        random_init(&r, 42);
        for (int step = 0; step < 100000; step++) {
                size_t k = (size_t)random_below(&r, KEYS);
                char key[2] = { (char)('a' + k), 0 };
                const char *got;

                now += (usec)random_below(&r, 10);
                switch (random_below(&r, 4)) {
                case 0:
                        queue_add(q, key);
                        model[k].dirty = true;
                        model[k].at = 0;
                        break;
                case 1:
                        if (model[k].dirty && !model[k].processing)
                                break; /* already listed: a delay means nothing */
                        queue_add_after(q, key, now + 20);
                        if (!model[k].at || model[k].at > now + 20)
                                model[k].at = now + 20;
                        break;
                case 2:
                        for (size_t i = 0; i < KEYS; i++)
                                if (model[i].at && model[i].at <= now) {
                                        model[i].dirty = true;
                                        model[i].at = 0;
                                }
                        got = queue_get(q, now);
                        if (got) {
                                size_t g = (size_t)(got[0] - 'a');

                                assert_true(model[g].dirty && !model[g].processing);
                                model[g].dirty = false;
                                model[g].processing = true;
                        } else
                                for (size_t i = 0; i < KEYS; i++)
                                        assert_false(model[i].dirty && !model[i].processing);
                        break;
                default:
                        if (model[k].processing) {
                                queue_done(q, key);
                                model[k].processing = false;
                        }
                        break;
                }
                {
                        usec deadline = USEC_NEVER;
                        size_t ready = 0;

                        for (size_t i = 0; i < KEYS; i++) {
                                if (model[i].dirty && !model[i].processing)
                                        ready++;
                                if (model[i].at)
                                        deadline = MIN_OF(deadline, model[i].at);
                        }
                        assert_int_equal(queue_length(q), ready);
                        assert_int_equal(queue_deadline(q), ready ? 0 : deadline);
                }
        }
        (void)queue_free(q);
}

/* A retry is a delay: what comes meanwhile is given out at once, and does not come twice. */
static void a_change_does_not_wait_for_a_retry(void **state UNUSED)
{
        struct queue *q = fresh();

        queue_add(q, "a");
        assert_string_equal(queue_get(q, 0), "a");
        queue_retry(q, "a", 0);
        queue_add(q, "a");
        queue_done(q, "a");
        assert_int_equal(queue_deadline(q), 0);
        assert_string_equal(queue_get(q, 0), "a");
        queue_done(q, "a");
        assert_null(queue_get(q, USEC_HOUR));
        (void)queue_free(q);
}

/* A delay that passes while the key is worked on is not lost. */
static void a_delay_that_ends_meanwhile_counts(void **state UNUSED)
{
        struct queue *q = fresh();

        queue_add(q, "a");
        assert_string_equal(queue_get(q, 0), "a");
        queue_add_after(q, "a", 10);
        assert_null(queue_get(q, 20));
        queue_done(q, "a");
        assert_string_equal(queue_get(q, 20), "a");
        queue_done(q, "a");
        (void)queue_free(q);
}

/* A million keys that came and went leave nothing behind, whatever way they went. */
static void what_is_idle_is_freed(void **state UNUSED)
{
        struct queue *q = fresh();
        size_t before = 0;

        for (unsigned i = 0; i < 1000000; i++) {
                char key[32];

                (void)snprintf(key, sizeof(key), "n/%u", i);
                queue_add(q, key);
                assert_string_equal(queue_get(q, i), key);
                if (i % 3 == 0)
                        queue_retry(q, key, i);
                queue_done(q, key);
                if (i % 3 == 0) {
                        assert_string_equal(queue_get(q, i + 5 * USEC_MSEC), key);
                        queue_done(q, key);
                }
                queue_forget(q, key);
                if (i == 1000)
                        before = mallinfo2().uordblks;
        }
        /* Less than a byte for each; sanitizers count nothing here. */
        assert_true(mallinfo2().uordblks < before + 500000);
        (void)queue_free(q);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_key_added_twice_is_given_out_once),
                cmocka_unit_test(what_is_worked_on_comes_again_afterwards_and_not_meanwhile),
                cmocka_unit_test(of_two_delays_the_earlier_counts),
                cmocka_unit_test(failures_back_off_until_they_are_forgotten),
                cmocka_unit_test(a_change_does_not_wait_for_a_retry),
                cmocka_unit_test(a_delay_that_ends_meanwhile_counts),
                cmocka_unit_test(what_is_idle_is_freed),
                cmocka_unit_test(agrees_with_a_model),
        };
        return cmocka_run_group_tests_name("queue", tests, NULL, NULL);
}
