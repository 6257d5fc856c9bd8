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
        uint32_t slots;
        bool slow; /* it does not give back what is leaving */
} processes[PROCESSES];
static char folder[64];
static uint32_t slots_n; /* of those that are started next */

static struct set_clock set;
static const struct clock fake_clock = SET_CLOCK(&set);

static void on_change(struct task *t, usec at UNUSED)
{
        struct process *p = CONTAINER_OF(t, struct process, task);

        for (uint32_t i = 0; i < p->slots; i++) {
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
        p->slots = slots_n;
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

        for (uint32_t s = 0; processes[i].end && s < processes[i].slots; s++)
                n += state_of(i, s) == CLAIM_HELD;
        return n;
}

static void stop_loop(struct task *t UNUSED, usec at UNUSED) { loop_stop(loop); }

static uint32_t readers_of(uint32_t slot)
{
        uint32_t n = 0;

        for (int i = 0; i < PROCESSES; i++)
                n += processes[i].end && slot < processes[i].slots && state_of(i, slot) != CLAIM_WAITING;
        return n;
}

/* How many different numbers of slots those go by who read. */
static int numbers_in_use(void)
{
        int n = 0;

        for (int i = 0; i < PROCESSES; i++) {
                bool known = false, reads = false;

                for (uint32_t s = 0; processes[i].end && s < processes[i].slots; s++)
                        reads |= state_of(i, s) != CLAIM_WAITING;
                for (int k = 0; k < i && reads; k++)
                        for (uint32_t s = 0; processes[k].end && s < processes[k].slots; s++)
                                known |= processes[k].slots == processes[i].slots &&
                                         state_of(k, s) != CLAIM_WAITING;
                n += reads && !known;
        }
        return n;
}

/* Time passes, in steps of a tenth of a second; nobody reads what another reads. */
static void pass(usec time)
{
        struct task stop = { .turn = stop_loop };

        for (usec until = set.monotonic + time; set.monotonic <= until; set.monotonic += 100 * USEC_MSEC) {
                loop_arm(loop, &stop, set.monotonic);
                loop_run(loop);
                for (uint32_t slot = 0; slot < 16; slot++)
                        assert_true(readers_of(slot) <= 1);
                assert_true(numbers_in_use() <= 1);
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

static void start_with(int i, uint32_t slots)
{
        slots_n = slots;
        start(i);
}

/* Why none of its slots is read; they are all waited for. */
static const char *why_not(int i)
{
        struct claim c;

        for (uint32_t s = 0; s < processes[i].slots; s++) {
                processes[i].claims.ops->look(processes[i].claims.cookie, s, &c);
                assert_int_equal(c.state, CLAIM_WAITING);
                assert_false(c.failed);
        }
        return c.why;
}

static void another_number_of_slots_waits_until_the_others_are_gone(void **state UNUSED)
{
        static const uint32_t numbers[][2] = { { 2, 3 }, { 3, 2 }, { 3, 4 }, { 1, 2 }, { 2, 1 }, { 1, 512 } };

        for (size_t n = 0; n < COUNT_OF(numbers); n++) {
                uint32_t first = numbers[n][0], other = numbers[n][1];
                char expected[160];

                start_with(0, first);
                pass(USEC_SEC);
                start_with(1, other);
                pass(USEC_MINUTE);
                assert_int_equal(held(0), first);
                (void)snprintf(expected, sizeof(expected),
                               "spec.replicas is %u here, and %u in a process with the same --state: all "
                               "must have the same",
                               other, first);
                assert_string_equal(why_not(1), expected);
                start_with(2, first); /* one that agrees still gets its share */
                pass(30 * USEC_SEC);
                assert_int_equal(held(0) + held(2), first);
                assert_true(held(2) >= first / 2);
                assert_int_equal(held(1), 0);
                end(0);
                pass(5 * USEC_SEC);
                assert_int_equal(held(2), first);
                end(2);
                pass(USEC_SEC);
                assert_int_equal(held(1), other);
                end(1);
        }
}

/* As when its file was edited: it ends what it reads, and comes back with another number. */
static void who_changes_its_number_gives_up_its_slots_first(void **state UNUSED)
{
        start_with(0, 2);
        start_with(1, 2);
        pass(20 * USEC_SEC);
        processes[0].slow = true;
        processes[0].claims.ops->stop(processes[0].claims.cookie);
        pass(USEC_SEC);
        start_with(2, 3);
        processes[1].claims.ops->stop(processes[1].claims.cookie);
        pass(USEC_MINUTE);
        assert_true(processes[1].claims.ops->stopped(processes[1].claims.cookie));
        assert_int_equal(held(2), 0); /* the first has not ended yet */
        for (uint32_t s = 0; s < 2; s++)
                processes[0].claims.ops->release(processes[0].claims.cookie, s);
        pass(USEC_SEC);
        assert_int_equal(held(2), 3);
        end(0);
        end(1);
        start_with(0, 3);
        start_with(1, 3);
        pass(30 * USEC_SEC);
        for (int i = 0; i < PROCESSES; i++)
                assert_int_equal(held(i), 1);
}

static void of_those_that_start_at_once_the_most_slots_win(void **state UNUSED)
{
        start_with(0, 2);
        start_with(1, 4);
        start_with(2, 3);
        pass(10 * USEC_SEC);
        assert_int_equal(held(1), 4);
        assert_int_equal(held(0) + held(2), 0);
        end(1);
        pass(10 * USEC_SEC);
        assert_int_equal(held(2), 3);
        assert_non_null(strstr(why_not(0), "spec.replicas is 2 here, and 3 in"));
        end(2);
        pass(10 * USEC_SEC);
        assert_int_equal(held(0), 2);
}

/* Who wishes for more slots, and never takes them, since it is stopped. */
static void one_that_sleeps_starves_nobody(void **state UNUSED)
{
        start_with(0, 4);
        pass(0);
        start_with(1, 8);
        start_with(2, 2);
        pass(USEC_SEC);
        processes[1].claims.ops->stop(processes[1].claims.cookie); /* without a turn: it is asleep */
        end(0);
        pass(0);
        assert_int_equal(held(1), 0);
        pass(5 * USEC_SEC);
        assert_int_equal(held(2), 2);
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

/* ---- a file that is deleted under them ------------------------------------ */

static void delete_file(void)
{
        char path[80];

        (void)snprintf(path, sizeof(path), "%s/claims", folder);
        assert_int_equal(unlink(path), 0);
        assert_int_equal(rmdir(folder), 0);
}

/* As pass, where for a moment two may read the same. */
static void pass_unchecked(usec time)
{
        struct task stop = { .turn = stop_loop };

        for (usec until = set.monotonic + time; set.monotonic <= until; set.monotonic += 100 * USEC_MSEC) {
                loop_arm(loop, &stop, set.monotonic);
                loop_run(loop);
        }
        loop_forget(loop, &stop);
}

static void what_is_held_stays_held_when_the_file_is_deleted(void **state UNUSED)
{
        uint64_t changes;

        slots_n = 6;
        start(0);
        pass(USEC_SEC);
        start(1);
        pass(20 * USEC_SEC);
        changes = processes[0].claims.ops->changes(processes[0].claims.cookie);
        delete_file();
        pass(12 * USEC_SEC);
        assert_int_equal(held(0), 3);
        assert_int_equal(held(1), 3);
        assert_int_equal(processes[0].claims.ops->changes(processes[0].claims.cookie), changes);
        start(2); /* it finds the locks of both */
        pass(30 * USEC_SEC);
        for (int i = 0; i < 3; i++)
                assert_int_equal(held(i), 2);
}

static void of_two_with_locks_in_different_files_one_gives_way(void **state UNUSED)
{
        slots_n = 4;
        start(0);
        pass(USEC_SEC);
        delete_file();
        start(1);
        pass_unchecked(12 * USEC_SEC);
        pass(30 * USEC_SEC);
        assert_int_equal(held(0), 2);
        assert_int_equal(held(1), 2);
}

static void of_two_numbers_in_different_files_one_gives_way(void **state UNUSED)
{
        start_with(0, 4);
        pass(USEC_SEC);
        delete_file();
        start_with(1, 3);
        pass_unchecked(12 * USEC_SEC);
        pass(30 * USEC_SEC);
        assert_int_equal(held(0), 0);
        assert_int_equal(held(1), 3);
        end(1);
        pass(5 * USEC_SEC);
        assert_int_equal(held(0), 4);
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
                cmocka_unit_test_setup_teardown(another_number_of_slots_waits_until_the_others_are_gone,
                                                setup, teardown),
                cmocka_unit_test_setup_teardown(who_changes_its_number_gives_up_its_slots_first, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(of_those_that_start_at_once_the_most_slots_win, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(one_that_sleeps_starves_nobody, setup, teardown),
                cmocka_unit_test_setup_teardown(a_killed_process_leaves_nothing_behind, setup, teardown),
                cmocka_unit_test_setup_teardown(what_is_held_stays_held_when_the_file_is_deleted, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(of_two_with_locks_in_different_files_one_gives_way, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(of_two_numbers_in_different_files_one_gives_way, setup,
                                                teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
