/* Processes that share slots by locks. Each "process" here is a descriptor of its own, which is what such
 * locks belong to; the last test has a real one. */
#include "checkpoint/locks.h"
#include "tests/support/clock.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { PROCESSES = 3 };

static struct loop *loop;
static struct process {
        struct lock_file *file;
        struct lock_end *end;
        struct claims claims;
        struct task task;
        bool slow; /* it does not give back what is leaving */
} processes[PROCESSES];
static char folder[64];
static uint32_t slots_n;

static struct set_clock set;
static const struct clock fake_clock = SET_CLOCK(&set);

static void on_change(struct task *t, usec at UNUSED)
{
        struct process *p = CONTAINER_OF(t, struct process, task);

        for (uint32_t i = 0; i < slots_n; i++) {
                struct claim c;

                p->claims.ops->look(p->claims.cookie, i, &c);
                if (c.state == CLAIM_LEAVING && !p->slow)
                        p->claims.ops->release(p->claims.cookie, i);
        }
}

static void start_as(int i, const char *key)
{
        struct process *p = &processes[i];
        struct error err;

        p->task = (struct task){ .turn = on_change };
        p->slow = false;
        if (lock_file_new(&p->file, loop, folder, &err) < 0 ||
            lock_end_new(&p->end, p->file, str_of(key), slots_n, &p->task, &err) < 0)
                fail_msg("%s", err.text);
        p->claims = lock_end_port(p->end);
}

static void start(int i) { start_as(i, "shop/orders"); }

static void end(int i)
{
        processes[i].end = lock_end_free(processes[i].end);
        processes[i].file = lock_file_free(processes[i].file);
        loop_forget(loop, &processes[i].task);
}

static int setup(void **state UNUSED)
{
        struct error err;

        set.monotonic = USEC_HOUR;
        memset(processes, 0, sizeof(processes));
        (void)snprintf(folder, sizeof(folder), "/tmp/locks-test-XXXXXX");
        assert_non_null(mkdtemp(folder));
        assert_int_equal(loop_new(&loop, &err), 0);
        loop_use_clock(loop, &fake_clock);
        return 0;
}

static int teardown(void **state UNUSED)
{
        char path[80];

        for (int i = 0; i < PROCESSES; i++)
                end(i);
        loop = loop_free(loop);
        (void)snprintf(path, sizeof(path), "%s/claims", folder);
        (void)unlink(path);
        (void)rmdir(folder);
        return 0;
}

static enum claim_state state_of(int i, uint32_t slot)
{
        struct claim c;

        processes[i].claims.ops->look(processes[i].claims.cookie, slot, &c);
        return c.state;
}

static uint32_t held(int i)
{
        uint32_t n = 0;

        for (uint32_t s = 0; processes[i].end && s < slots_n; s++)
                n += state_of(i, s) == CLAIM_HELD;
        return n;
}

static void stop_loop(struct task *t UNUSED, usec at UNUSED) { loop_stop(loop); }

/* Time passes, in steps of a tenth of a second; nobody reads what another reads. */
static void pass(usec time)
{
        struct task stop = { .turn = stop_loop };

        for (usec until = set.monotonic + time; set.monotonic <= until; set.monotonic += 100 * USEC_MSEC) {
                loop_arm(loop, &stop, set.monotonic);
                loop_run(loop);
                for (uint32_t s = 0; s < slots_n; s++) {
                        int readers = 0;

                        for (int i = 0; i < PROCESSES; i++)
                                readers += processes[i].end && state_of(i, s) != CLAIM_WAITING;
                        assert_true(readers <= 1);
                }
        }
        loop_forget(loop, &stop);
}

static void one_alone_holds_all(void **state UNUSED)
{
        slots_n = 5;
        start(0);
        pass(0);
        assert_int_equal(held(0), 5);
}

static void those_who_come_get_their_share(void **state UNUSED)
{
        slots_n = 6;
        start(0);
        pass(USEC_SEC);
        start(1);
        pass(20 * USEC_SEC);
        assert_int_equal(held(0), 3);
        assert_int_equal(held(1), 3);
        start(2);
        pass(30 * USEC_SEC);
        for (int i = 0; i < 3; i++)
                assert_int_equal(held(i), 2);
        for (int minute = 0; minute < 3; minute++) {
                uint64_t changes = 0;

                for (int i = 0; i < 3; i++)
                        changes += processes[i].claims.ops->changes(processes[i].claims.cookie);
                pass(USEC_MINUTE);
                for (int i = 0; i < 3; i++)
                        changes -= processes[i].claims.ops->changes(processes[i].claims.cookie);
                assert_int_equal(changes, 0);
        }
}

static void the_only_slot_stays_with_its_holder(void **state UNUSED)
{
        slots_n = 1;
        start(0);
        pass(USEC_SEC);
        start(1);
        pass(USEC_MINUTE);
        assert_int_equal(held(0), 1);
        assert_int_equal(held(1), 0);
}

static void what_is_given_back_or_left_behind_is_taken_within_a_second(void **state UNUSED)
{
        slots_n = 2;
        start(0);
        pass(USEC_SEC);
        start(1);
        pass(10 * USEC_SEC);
        assert_int_equal(held(1), 1);
        processes[0].claims.ops->stop(processes[0].claims.cookie);
        pass(USEC_SEC);
        assert_true(processes[0].claims.ops->stopped(processes[0].claims.cookie));
        assert_int_equal(held(1), 2);
        end(0);
        start(0);
        pass(10 * USEC_SEC);
        assert_int_equal(held(0), 1);
        end(1);
        pass(USEC_SEC);
        assert_int_equal(held(0), 2);
}

/* Who reads a slot to its end keeps it for so long. */
static void a_slot_that_is_leaving_is_not_free(void **state UNUSED)
{
        slots_n = 2;
        start(0);
        pass(USEC_SEC);
        processes[0].slow = true;
        start(1);
        pass(5 * USEC_SEC);
        assert_int_equal(held(0), 1);
        assert_int_equal(held(1), 0);
        for (uint32_t s = 0; s < 2; s++)
                processes[0].claims.ops->release(processes[0].claims.cookie, s); /* of the one that leaves */
        pass(USEC_SEC);
        assert_int_equal(held(0), 1);
        assert_int_equal(held(1), 1);
}

static void others_do_not_matter(void **state UNUSED)
{
        slots_n = 3;
        start(0);
        start_as(1, "shop/other");
        for (usec until = set.monotonic + 5 * USEC_SEC; set.monotonic < until;
             set.monotonic += 100 * USEC_MSEC) {
                struct task stop = { .turn = stop_loop };

                loop_arm(loop, &stop, set.monotonic);
                loop_run(loop);
                loop_forget(loop, &stop);
        }
        assert_int_equal(held(0), 3);
        assert_int_equal(held(1), 3);
}

static void a_killed_process_leaves_nothing_behind(void **state UNUSED)
{
        int ready[2];
        char c;
        pid_t child;

        slots_n = 2;
        assert_int_equal(pipe(ready), 0);
        child = fork();
        assert_true(child >= 0);
        if (child == 0) {
                start(1);
                pass(0);
                if (held(1) == 2)
                        (void)!write(ready[1], "x", 1);
                (void)pause();
                _exit(0);
        }
        assert_int_equal(read(ready[0], &c, 1), 1);
        start(0);
        pass(5 * USEC_SEC);
        assert_int_equal(held(0), 0);
        assert_int_equal(kill(child, SIGKILL), 0);
        assert_int_equal(waitpid(child, NULL, 0), child);
        pass(500 * USEC_MSEC);
        assert_int_equal(held(0), 2);
        (void)close(ready[0]);
        (void)close(ready[1]);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(one_alone_holds_all, setup, teardown),
                cmocka_unit_test_setup_teardown(those_who_come_get_their_share, setup, teardown),
                cmocka_unit_test_setup_teardown(the_only_slot_stays_with_its_holder, setup, teardown),
                cmocka_unit_test_setup_teardown(what_is_given_back_or_left_behind_is_taken_within_a_second,
                                                setup, teardown),
                cmocka_unit_test_setup_teardown(a_slot_that_is_leaving_is_not_free, setup, teardown),
                cmocka_unit_test_setup_teardown(others_do_not_matter, setup, teardown),
                cmocka_unit_test_setup_teardown(a_killed_process_leaves_nothing_behind, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
