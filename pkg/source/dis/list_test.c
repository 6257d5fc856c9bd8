/* Includes the source files, so that a list can be read by hand. */
#include "source/dis/dis.c"
#include "source/dis/list.c"

#include "source/dis/first.c"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static char stream[] = "orders", name[] = "orders", namespace_name[] = "shop";
static struct dis_spec spec = { .stream = stream, .start = DIS_LATEST };
static struct trigger trigger = { .name = name, .namespace_ = namespace_name, .source_spec = &spec };

#define PARTITION(id)                                                                                        \
        "{\"partition_id\":\"" id "\",\"status\":\"ACTIVE\",\"sequence_number_range\":\"[0 : 7]\"}"
#define LIST(id, more) "{\"partitions\":[" PARTITION(id) "],\"has_more_partitions\":" more "}"
#define STATES(id) "{\"partition_consuming_states\":[{\"partition_id\":\"" id "\"}],\"has_more\":true}"

static enum poller_step next(struct dis *d, const char *answer)
{
        struct cloud_request q = { .path.max = 4096, .query.max = 4096, .body.max = 4096, .what.max = 4096 };
        struct error err = { 0 };

        dis_discover(&d->poller, &q);
        buf_done(&q.path);
        buf_done(&q.query);
        buf_done(&q.body);
        buf_done(&q.what);
        return dis_discovered(&d->poller, str_of(answer), &err);
}

/* Each answer names others than the one before, and says that more follow. How many are asked for. */
static unsigned read_on(struct dis *d, const char *even, const char *odd)
{
        enum poller_step step = POLLER_AGAIN;
        unsigned calls = 0;

        for (; step == POLLER_AGAIN && calls < 2 * DIS_PARTITIONS_MOST; calls++)
                step = next(d, calls % 2 ? odd : even);
        assert_int_equal(step, POLLER_FAILED);
        return calls;
}

static void a_list_without_end_is_given_up(void **state UNUSED)
{
        const struct reader_config config = { .page_bytes = 1024 };
        struct services services = { .trigger = &trigger, .clock = &system_clock };
        struct dis d = { .spec = &spec, .app.max = 4096, .poller.services = &services };
        struct partition *at, *after;
        struct error err;

        assert_int_equal(reader_new(&d.poller.reader, &config, 1, &err), 0);
        assert_int_equal(read_on(&d, LIST("1", "true"), LIST("2", "true")), DIS_PARTITIONS_MOST + 1);
        assert_int_equal(next(&d, LIST("1", "true")), POLLER_AGAIN);
        assert_int_equal(next(&d, LIST("2", "false")), POLLER_AGAIN); /* the checkpoints come next */
        assert_int_equal(read_on(&d, STATES("1"), STATES("2")), DIS_PARTITIONS_MOST + 1);
        HASH_ITER(hh, d.partitions, at, after)
        {
                HASH_DEL(d.partitions, at);
                buf_done(&at->cursor);
                free(at);
        }
        d.poller.reader = reader_free(d.poller.reader);
        buf_done(&d.app);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_list_without_end_is_given_up),
        };
        return cmocka_run_group_tests_name("dis list", tests, NULL, NULL);
}
