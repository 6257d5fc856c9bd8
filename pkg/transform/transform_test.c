#include "transform/transform.h"

#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "transform/child.h"
#include "transform/sandbox.h"

/* ---- one loop, the transform under test, and another Trigger's that must go on all the while ---------------------------------------------- */

enum { MOST = 4096 };

static struct loop *loop;
static struct transform *transform, *neighbour;
static struct task wake, neighbour_wake, watchdog;
static bool overdue;
static struct { struct transform_result r; char *output; } done[MOST];
static size_t done_n, wanted;
static struct { uint64_t results, failures; usec last, longest_gap; } beside;
static usec patience = 30 * USEC_SEC;

static usec clock_now(void) { return clock_monotonic(&system_clock); }

static void too_late(struct task *t UNUSED, usec now UNUSED)
{
        overdue = true;
        loop_stop(loop);
}

static void on_wake(struct task *t UNUSED, usec now UNUSED)
{
        struct transform_result r;

        while (transform_take(transform, &r)) {
                assert_true(done_n < MOST);
                done[done_n].r = r;
                done[done_n].output = r.failed ? NULL : str_dup(r.output);
                done_n++;
        }
        if (done_n >= wanted)
                loop_stop(loop);
}

/* The neighbour: one record in flight, always. */
static void UNUSED on_neighbour(struct task *t UNUSED, usec now UNUSED)
{
        struct transform_result r;
        usec at = clock_now();

        while (transform_take(neighbour, &r)) {
                beside.results++;
                beside.failures += r.failed || !str_is(r.output, "{\"n\":2}");
                if (beside.last)
                        beside.longest_gap = MAX_OF(beside.longest_gap, at - beside.last);
                beside.last = at;
                transform_submit(neighbour, r.tag + 1, STR("{\"n\":1}"));
        }
        if (wanted == 0)
                loop_stop(loop);
}

static void run(void)
{
        loop_arm(loop, &watchdog, clock_now() + patience);
        loop_run(loop);
        loop_forget(loop, &watchdog);
        assert_false(overdue);
}

static void forget_results(void)
{
        for (size_t i = 0; i < done_n; i++)
                free(done[i].output);
        done_n = 0;
}

static void await(size_t n)
{
        wanted = n;
        while (done_n < n)
                run();
}

static void aim(const struct transform_config *config)
{
        struct transform_config c = *config;
        struct error err;

        transform = transform_free(transform);
        forget_results();
        c.loop = loop;
        assert_int_equal(transform_new(&transform, &c, &wake, &err), 0);
}

static size_t UNUSED descriptors(void)
{
        DIR *folder = opendir("/proc/self/fd");
        size_t n = 0;

        assert_non_null(folder);
        while (readdir(folder))
                n++;
        assert_int_equal(closedir(folder), 0);
        return n;
}

static int setup(void **state UNUSED)
{
        struct error err;

        assert_int_equal(loop_new(&loop, &err), 0);
        wake = (struct task){ .turn = on_wake };
        watchdog = (struct task){ .turn = too_late };
        overdue = false;
        return 0;
}

static int teardown(void **state UNUSED)
{
        transform = transform_free(transform);
        neighbour = transform_free(neighbour);
        forget_results();
        loop_forget(loop, &wake);
        loop_forget(loop, &neighbour_wake);
        loop = loop_free(loop);
        /* No zombie. */
        assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
        assert_int_equal(errno, ECHILD);
        return 0;
}

static const char *one(const char *program, const char *input)
{
        aim(&(struct transform_config){ .program = program });
        transform_submit(transform, 7, str_of(input));
        await(1);
        assert_int_equal(done[0].r.tag, 7);
        return done[0].r.failed ? done[0].r.error.text : done[0].output;
}

/* ---- what it does -------------------------------------------------------------------------------------------------------------------- */

static void a_record_is_reshaped(void **state UNUSED)
{
        assert_string_equal(one("{id: .a, list: [.b[] | . + 1]}", "{\"a\": \"x\", \"b\": [1, 2]}"), "{\"id\":\"x\",\"list\":[2,3]}");
}

int main(int argc, char **argv)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(a_record_is_reshaped, setup, teardown),
        };

        if (argc > 1 && strcmp(argv[1], CHILD_COMMAND) == 0) /* this program is its own child */
                return transform_child_main();
        return cmocka_run_group_tests_name("transform", tests, NULL, NULL);
}
