#include "source/obs/obs.h"

#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/clock.h"
#include "tests/support/trigger.h"

#include <cmocka.h>

static char bucket[] = "photos", store[] = "store", token[] = "token", folder[] = "/tmp/obs-XXXXXX";
static struct secret_ref ref = { .name = store, .key = token };
static struct obs_spec spec = {
        .smn.timeout = USEC_MINUTE, .bucket = bucket, .from = OBS_FROM_WEBHOOK, .token = &ref
};
static struct trigger trigger = TEST_TRIGGER("photos", .source_spec = &spec);
static struct set_clock test_time = { .wall = USEC_HOUR, .monotonic = USEC_HOUR };
static const struct clock test_clock = SET_CLOCK(&test_time);
static void no_turn(struct task *t UNUSED, usec now UNUSED) {}
static struct task wake = { .turn = no_turn };

static void write_path(char out[64], const char *below) { (void)snprintf(out, 64, "%s%s", folder, below); }

static void make_secret(void)
{
        char path[64];
        FILE *file;

        assert_non_null(mkdtemp(folder));
        write_path(path, "/store");
        assert_int_equal(mkdir(path, 0700), 0);
        write_path(path, "/store/token");
        assert_non_null(file = fopen(path, "w"));
        assert_true(fputs("s3cret", file) >= 0);
        assert_int_equal(fclose(file), 0);
}

static void remove_secret(void)
{
        char path[64];

        write_path(path, "/store/token");
        assert_int_equal(unlink(path), 0);
        write_path(path, "/store");
        assert_int_equal(rmdir(path), 0);
        assert_int_equal(rmdir(folder), 0);
}

static struct str bearer(const struct push_request *q UNUSED, const char *name UNUSED)
{
        return STR("Bearer s3cret");
}

static size_t used(void)
{
        struct mallinfo2 m = mallinfo2();

        return m.uordblks + m.hblkhd;
}

/* Short records: what is kept of them is many times as large as the request. */
static void write_body(struct buf *body)
{
        buf_text(body, "{\"Records\":[");
        for (int i = 0; i < 1000; i++)
                buf_printf(body,
                           "%s{\"eventName\":\"ObjectCreated:Put\",\"s3\":{\"bucket\":{\"name\":\"photos\"},"
                           "\"object\":{\"key\":\"k%d\"}}}",
                           i ? "," : "", i);
        buf_text(body, "]}");
}

static void what_a_notification_takes_is_counted(void **state UNUSED)
{
        BUF_AT_END struct buf body = BUF_INIT(1 << 20);
        struct push_reply reply = { .headers = BUF_INIT(4096), .body = BUF_INIT(4096) };
        struct services services = {
                .clock = &test_clock, .trigger = &trigger, .wake = &wake, .secrets = folder
        };
        const struct push_ops *ops = obs_source.push;
        struct push_request q = { .method = STR("POST"), .header = bearer };
        size_t before, grown, n = 0;
        struct source *source;
        struct error err;

        make_secret();
        write_body(&body);
        q.body = buf_view(&body);
        assert_int_equal(loop_new(&services.loop, &err), 0);
        assert_int_equal(obs_source.open(&source, &spec, &services, &err), 0);
        before = used();
        assert_int_equal(ops->receive(source, 1, &q, NULL, &n, &reply), PUSH_LATER);
        grown = used() - before;
        assert_true(reply.kept > q.body.n);
        assert_in_range(reply.kept + reply.kept / 10, grown, 2 * grown + 2 * reply.kept);
        ops->gone(source, 1);
        (void)ops->free(source);
        loop_forget(services.loop, &wake);
        (void)loop_free(services.loop);
        buf_done(&reply.headers);
        buf_done(&reply.body);
        remove_secret();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(what_a_notification_takes_is_counted),
        };
        return cmocka_run_group_tests_name("obs", tests, NULL, NULL);
}
