/* What a Trigger says of its connections, as the client takes it. */
#include "worker/target.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "tests/support/trigger.h"

/* The attempt must not be over before it is known that it did not get as far as the function. */
static void connecting_ends_before_the_attempt(void **state UNUSED)
{
        static const struct {
                const char *delivery;
                usec connect;
        } all[] = {
                { "  delivery: {timeout: 5s}", 4375 * USEC_MSEC },
                { "  delivery: {timeout: 5s, connectTimeout: 5s}", 4375 * USEC_MSEC },
                { "  delivery: {timeout: 5s, connectTimeout: 2s}", 2 * USEC_SEC },
                { "  delivery: {timeout: 1m}", 10 * USEC_SEC },
        };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                struct trigger *t = test_trigger_of((struct test_trigger_spec){ .more = all[i].delivery });
                BUF_AT_END struct buf space = BUF_INIT(BUF_DEFAULT_MAX);
                struct http_target_config config;
                struct error err;

                assert_int_equal(target_config(&config, t, "http://elsewhere/f", NULL, &space, &err), 0);
                assert_int_equal(config.connect_timeout, all[i].connect);
                (void)trigger_free(t);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = { cmocka_unit_test(connecting_ends_before_the_attempt) };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
