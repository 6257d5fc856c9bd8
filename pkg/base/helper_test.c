#include "base/helper.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

enum { JOBS = 50 };

static struct bench {
        struct loop *loop;
        struct helper *helper;
        struct task task;
        int wanted, taken[JOBS], taken_n;
        _Atomic bool began;
} b;

struct job {
        struct helper_job job;
        int number;
        bool worked, other_thread;
        pthread_t caller;
};

static void work(struct helper_job *base)
{
        struct job *j = CONTAINER_OF(base, struct job, job);

        j->other_thread = !pthread_equal(j->caller, pthread_self());
        j->worked = true;
}

static void submit(struct job *j, int number)
{
        struct error err;

        *j = (struct job){ .job.work = work, .number = number, .caller = pthread_self() };
        assert_int_equal(helper_submit(b.helper, &j->job, &err), 0);
}

static void on_done(struct task *t UNUSED, usec now UNUSED)
{
        struct helper_job *job;

        while ((job = helper_take(b.helper))) {
                assert_true(job->done);
                assert_true(CONTAINER_OF(job, struct job, job)->worked);
                assert_true(CONTAINER_OF(job, struct job, job)->other_thread);
                b.taken[b.taken_n++] = CONTAINER_OF(job, struct job, job)->number;
        }
        if (b.taken_n == b.wanted)
                loop_stop(b.loop);
}

static void run_until_taken(int n)
{
        b.wanted = n;
        if (b.taken_n < n)
                loop_run(b.loop);
        assert_int_equal(b.taken_n, n);
}

static _Atomic bool may_end, ended;

static void hang(struct helper_job *base UNUSED)
{
        b.began = true;
        while (!may_end)
                (void)sched_yield();
        ended = true;
}

/* The thread frees what nobody waits for: a leak, or a use after it, is seen by the sanitizer. */
static void what_does_not_end_is_left(void **state UNUSED)
{
        struct job *j = calloc(1, sizeof(*j)), *done = calloc(1, sizeof(*done));
        struct error err;

        assert_true(j && done);
        j->job.work = hang;
        assert_int_equal(helper_submit(b.helper, &j->job, &err), 0);
        while (!b.began)
                (void)sched_yield();
        assert_true(helper_leave(b.helper, &j->job));
        may_end = true;
        while (!ended)
                (void)sched_yield();
        /* One that ended meanwhile is still the caller's. */
        assert_int_equal(helper_new(&b.helper, loop_waker(b.loop), &b.task, &err), 0);
        submit(done, 1);
        run_until_taken(1);
        assert_false(helper_leave(b.helper, &done->job));
        free(done);
}

static int setup(void **state UNUSED)
{
        struct error err;

        memset(&b, 0, sizeof(b));
        b.task.turn = on_done;
        assert_int_equal(loop_new(&b.loop, &err), 0);
        assert_int_equal(helper_new(&b.helper, loop_waker(b.loop), &b.task, &err), 0);
        (void)alarm(30);
        return 0;
}

static int teardown(void **state UNUSED)
{
        (void)alarm(0);
        b.helper = helper_free(b.helper);
        loop_forget(b.loop, &b.task);
        b.loop = loop_free(b.loop);
        return 0;
}

static void jobs_come_back_in_their_order(void **state UNUSED)
{
        struct job jobs[JOBS];

        for (int i = 0; i < JOBS; i++)
                submit(&jobs[i], i);
        run_until_taken(JOBS);
        for (int i = 0; i < JOBS; i++)
                assert_int_equal(b.taken[i], i);
}

/* Each finds the last thread at its end, or still at work. */
static void one_after_the_other_is_worked_on(void **state UNUSED)
{
        struct job job;

        for (int i = 0; i < JOBS; i++) {
                submit(&job, i);
                run_until_taken(i + 1);
        }
}

/* Ends when the helper is stopped, and not before. */
static void work_until_stopped(struct helper_job *base)
{
        b.began = true;
        while (!helper_stopping(b.helper))
                (void)sched_yield();
        CONTAINER_OF(base, struct job, job)->worked = true;
}

static void stop_waits_for_the_one_under_way_and_begins_no_other(void **state UNUSED)
{
        struct job first = { .job.work = work_until_stopped }, second;
        struct error err;

        assert_int_equal(helper_submit(b.helper, &first.job, &err), 0);
        submit(&second, 2);
        while (!b.began)
                (void)sched_yield();
        assert_null(helper_take(b.helper));
        helper_stop(b.helper);
        assert_ptr_equal(helper_take(b.helper), &first.job);
        assert_true(first.job.done && first.worked);
        assert_ptr_equal(helper_take(b.helper), &second.job);
        assert_false(second.job.done || second.worked);
        assert_null(helper_take(b.helper));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(what_does_not_end_is_left, setup, teardown),
                cmocka_unit_test_setup_teardown(jobs_come_back_in_their_order, setup, teardown),
                cmocka_unit_test_setup_teardown(one_after_the_other_is_worked_on, setup, teardown),
                cmocka_unit_test_setup_teardown(stop_waits_for_the_one_under_way_and_begins_no_other, setup,
                                                teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
