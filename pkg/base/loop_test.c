#include "base/loop.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/clock.h"

static struct loop *loop;
static bool overdue;

static void too_late(struct task *t UNUSED, usec now UNUSED)
{
        overdue = true;
        loop_stop(loop);
}
static struct task watchdog;

static int setup(void **state UNUSED)
{
        struct error err;

        overdue = false;
        watchdog = (struct task){ .turn = too_late };
        return loop_new(&loop, &err);
}

static int teardown(void **state UNUSED)
{
        loop = loop_free(loop); /* aborts when anything is still open */
        return 0;
}

/* Until loop_stop; what takes longer than 20 s fails. */
static void run(void)
{
        loop_arm(loop, &watchdog, clock_monotonic(&system_clock) + 20 * USEC_SEC);
        loop_run(loop);
        loop_forget(loop, &watchdog);
        assert_false(overdue);
}

/* ---- tasks -------------------------------------------------------------- */

static char order[64];
static size_t order_n;
static void note(char c)
{
        order[order_n++] = c;
        order[order_n] = 0;
}

struct letter {
        struct task task;
        char name;
        int again;
        struct letter *wakes, *forgets;
        bool stops;
};
static void letter_turn(struct task *t, usec now)
{
        struct letter *l = CONTAINER_OF(t, struct letter, task);

        assert_true(now == loop_now(loop));
        note(l->name);
        if (l->wakes)
                loop_ready(loop, &l->wakes->task);
        if (l->forgets)
                loop_forget(loop, &l->forgets->task);
        if (l->again-- > 0)
                loop_ready(loop, &l->task);
        else if (l->stops)
                loop_stop(loop);
}

static void ready_during_a_turn_runs_next_pass(void **state UNUSED)
{
        struct letter c = { .task = { .turn = letter_turn }, .name = 'c', .stops = true };
        struct letter b = { .task = { .turn = letter_turn }, .name = 'b', .wakes = &c };
        struct letter a = { .task = { .turn = letter_turn }, .name = 'a', .again = 2 };

        order_n = 0;
        loop_ready(loop, &a.task);
        loop_ready(loop, &b.task);
        loop_ready(loop, &a.task); /* already: once */
        c.again = 1;
        run();
        assert_string_equal(order, "abacac");
}

static void a_forgotten_task_is_not_turned(void **state UNUSED)
{
        struct letter c = { .task = { .turn = letter_turn }, .name = 'c', .stops = true };
        struct letter b = { .task = { .turn = letter_turn }, .name = 'b' };
        struct letter a = { .task = { .turn = letter_turn }, .name = 'a', .forgets = &b };

        order_n = 0;
        loop_ready(loop, &a.task);
        loop_ready(loop, &b.task);
        loop_ready(loop, &c.task);
        run();
        assert_string_equal(order, "ac");

        /* The first and the last of the list, from outside; and twice. */
        order_n = 0;
        loop_ready(loop, &b.task);
        loop_ready(loop, &c.task);
        loop_ready(loop, &a.task);
        loop_forget(loop, &b.task);
        loop_forget(loop, &a.task);
        loop_forget(loop, &a.task);
        run();
        assert_string_equal(order, "c");
}

static int descriptor_turns;
static void on_readable(void *cookie UNUSED, int events)
{
        assert_true(events & LOOP_READABLE);
        descriptor_turns++;
        loop_stop(loop);
}

/* A task that is always ready must not starve the descriptors, even when the last task of the pass is
 * forgotten while the pass runs. */
static void descriptors_get_their_turn(void **state UNUSED)
{
        struct letter b = { .task = { .turn = letter_turn }, .name = 'b' };
        struct letter a = { .task = { .turn = letter_turn }, .name = 'a', .again = 40, .forgets = &b };
        struct loop_io *io;
        struct error err;
        int ends[2];

        assert_int_equal(pipe(ends), 0);
        assert_int_equal(write(ends[1], "x", 1), 1);
        assert_int_equal(loop_io_open(loop, ends[0], on_readable, NULL, &io, &err), 0);
        loop_io_want(io, LOOP_READABLE);
        descriptor_turns = 0;
        order_n = 0;
        loop_ready(loop, &a.task);
        loop_ready(loop, &b.task);
        run();
        assert_int_equal(descriptor_turns, 1);
        assert_true(order_n < 5);
        loop_forget(loop, &a.task);
        loop_io_close(io);
        loop_io_close(NULL);
        (void)close(ends[0]);
        (void)close(ends[1]);
}

/* ---- deadlines ---------------------------------------------------------- */

enum { DEADLINES = 100 };
struct deadline {
        struct task task;
        usec at;
};
static usec last_deadline;
static int deadlines_left;

static void deadline_turn(struct task *t, usec now)
{
        struct deadline *d = CONTAINER_OF(t, struct deadline, task);

        assert_true(now >= d->at);
        assert_true(d->at >= last_deadline);
        last_deadline = d->at;
        if (--deadlines_left == 0)
                loop_stop(loop);
}

static void deadlines_come_in_order_and_not_early(void **state UNUSED)
{
        struct deadline all[DEADLINES];
        usec now = clock_monotonic(&system_clock);

        last_deadline = 0;
        deadlines_left = DEADLINES - 2;
        for (int i = 0; i < DEADLINES; i++) {
                all[i] = (struct deadline){ .task = { .turn = deadline_turn },
                                            .at = now + i * 37 % DEADLINES * 500 };
                loop_arm(loop, &all[i].task, now + USEC_HOUR);
                loop_arm(loop, &all[i].task, all[i].at); /* replaces */
        }
        loop_arm(loop, &all[0].task, USEC_NEVER);
        loop_forget(loop, &all[1].task);
        run();
        assert_int_equal(deadlines_left, 0);
}

static void a_deadline_in_the_past_comes_at_once(void **state UNUSED)
{
        struct letter a = { .task = { .turn = letter_turn }, .name = 'a', .stops = true };

        order_n = 0;
        loop_arm(loop, &a.task, 0);
        loop_ready(loop, &a.task); /* both: one turn */
        run();
        assert_string_equal(order, "a");
}

/* An earlier deadline, set while a later one is waited for, is not missed. */
static struct letter sooner;
static void arm_sooner(struct task *t UNUSED, usec now) { loop_arm(loop, &sooner.task, now + USEC_MSEC); }

static void a_deadline_may_be_set_while_turning(void **state UNUSED)
{
        struct task arms = { .turn = arm_sooner }, far_away = { .turn = too_late };

        sooner = (struct letter){ .task = { .turn = letter_turn }, .name = 's', .stops = true };
        order_n = 0;
        loop_arm(loop, &far_away, loop_now(loop) + 10 * USEC_SEC);
        loop_arm(loop, &arms, loop_now(loop) + 2 * USEC_MSEC);
        run();
        assert_string_equal(order, "s");
        loop_forget(loop, &far_away);
}

static struct set_clock given;
static const struct clock given_clock = SET_CLOCK(&given);

static void deadlines_are_kept_by_the_clock_that_was_given(void **state UNUSED)
{
        given = (struct set_clock){ .monotonic = USEC_HOUR };
        loop_use_clock(loop, &given_clock);
        assert_int_equal(loop_now(loop), USEC_HOUR);
        sooner = (struct letter){ .task = { .turn = letter_turn }, .name = 'h', .stops = true };
        order_n = 0;
        loop_arm(loop, &sooner.task, USEC_HOUR + 10 * USEC_HOUR);
        set_clock_pass(&given, 11 * USEC_HOUR);
        loop_run(loop);
        assert_string_equal(order, "h");
        assert_int_equal(loop_now(loop), 12 * USEC_HOUR);
}

/* The process is held while it waits: here, while it is told of a descriptor. */
static int held_pipe[2];
static struct loop_io *holds;

static void hold(void *cookie UNUSED, int events UNUSED)
{
        loop_io_want(holds, 0);
        set_clock_pass(&given, USEC_MINUTE);
        assert_int_equal(write(held_pipe[1], "a", 1), 1);
}

static void answer_came(void *cookie UNUSED, int events UNUSED)
{
        order[order_n++] = 'i';
        order[order_n] = 0;
        assert_int_equal(read(held_pipe[0], &(char){ 0 }, 1), 1);
}

static void what_came_while_it_was_held_is_heard_first(void **state UNUSED)
{
        struct letter late = { .task = { .turn = letter_turn }, .name = 'd', .stops = true };
        struct loop_io *answers;
        struct error err;
        int other[2];

        given = (struct set_clock){ .monotonic = USEC_HOUR };
        loop_use_clock(loop, &given_clock);
        assert_int_equal(pipe(held_pipe), 0);
        assert_int_equal(pipe(other), 0);
        assert_int_equal(loop_io_open(loop, held_pipe[0], answer_came, NULL, &answers, &err), 0);
        assert_int_equal(loop_io_open(loop, other[1], hold, NULL, &holds, &err), 0);
        order_n = 0;
        loop_arm(loop, &late.task, USEC_HOUR + 10 * USEC_SEC);
        loop_io_want(answers, LOOP_READABLE);
        loop_io_want(holds, LOOP_WRITABLE);
        loop_run(loop);
        loop_io_close(answers);
        loop_io_close(holds);
        for (int i = 0; i < 2; i++) {
                (void)close(held_pipe[i]);
                (void)close(other[i]);
        }
        assert_string_equal(order, "id");
}

static usec upcoming[3];

static void ask_next(struct task *t, usec now)
{
        upcoming[0] = loop_next(loop);
        loop_arm(loop, t, now + 5 * USEC_HOUR);
        upcoming[1] = loop_next(loop);
        loop_ready(loop, t);
        upcoming[2] = loop_next(loop);
        loop_forget(loop, t);
        loop_stop(loop);
}

static void when_the_next_turn_is_can_be_asked(void **state UNUSED)
{
        struct task task = { .turn = ask_next };

        given = (struct set_clock){ .monotonic = USEC_HOUR };
        loop_use_clock(loop, &given_clock);
        loop_ready(loop, &task);
        loop_run(loop);
        assert_int_equal(upcoming[0], USEC_NEVER);
        assert_int_equal(upcoming[1], 6 * USEC_HOUR);
        assert_int_equal(upcoming[2], USEC_HOUR);
}

/* ---- alarms ------------------------------------------------------------- */

static struct letter first_alarm = { .task = { .turn = letter_turn }, .name = 'a', .stops = true },
                     second_alarm = { .task = { .turn = letter_turn }, .name = 'b' };
static struct alarm alarms[2] = { { .task = &first_alarm.task }, { .task = &second_alarm.task } };

static void look_again(struct task *t UNUSED, usec now UNUSED) { loop_stop(loop); }

/* One pass, and no more. */
static const char *passed(void)
{
        struct task look = { .turn = look_again };

        order_n = 0;
        order[0] = 0;
        loop_ready(loop, &look);
        loop_run(loop);
        return order;
}

static void an_alarm_rings_at_its_time_of_day(void **state UNUSED)
{
        first_alarm.stops = false;
        given = (struct set_clock){ .monotonic = USEC_HOUR, .wall = 1000 * USEC_DAY };
        loop_use_clock(loop, &given_clock);
        loop_alarm(loop, &alarms[0], 1000 * USEC_DAY + USEC_MINUTE);
        loop_alarm(loop, &alarms[1], 1000 * USEC_DAY + 2 * USEC_MINUTE);
        assert_int_equal(loop_next(loop), USEC_HOUR + USEC_MINUTE);
        set_clock_pass(&given, USEC_MINUTE - 1);
        assert_string_equal(passed(), "");
        set_clock_pass(&given, 1);
        assert_string_equal(passed(), "a");
        loop_alarm(loop, &alarms[1], 1000 * USEC_DAY + 3 * USEC_MINUTE);
        set_clock_pass(&given, USEC_MINUTE);
        assert_string_equal(passed(), "");
        set_clock_pass(&given, USEC_MINUTE);
        assert_string_equal(passed(), "b");
        loop_alarm(loop, &alarms[0], 1000 * USEC_DAY + 4 * USEC_MINUTE);
        loop_alarm(loop, &alarms[0], USEC_NEVER);
        set_clock_pass(&given, USEC_HOUR);
        assert_string_equal(passed(), "");
}

static void a_clock_that_is_set_rings_all_alarms(void **state UNUSED)
{
        static const usec steps[] = { USEC_HOUR, -USEC_HOUR, 200 * USEC_MSEC, -200 * USEC_MSEC };

        first_alarm.stops = false;
        for (size_t i = 0; i < COUNT_OF(steps); i++) {
                given = (struct set_clock){ .monotonic = USEC_HOUR, .wall = 1000 * USEC_DAY };
                loop_use_clock(loop, &given_clock);
                loop_alarm(loop, &alarms[0], 1001 * USEC_DAY);
                loop_alarm(loop, &alarms[1], 1002 * USEC_DAY);
                assert_string_equal(passed(), "");
                given.wall += steps[i];
                assert_string_equal(passed(), "ab");
                assert_string_equal(passed(), "");
        }
        /* One that is only adjusted is followed. */
        loop_alarm(loop, &alarms[0], given.wall + USEC_MINUTE);
        given.wall += 20 * USEC_MSEC;
        assert_string_equal(passed(), "");
        set_clock_pass(&given, USEC_MINUTE - 21 * USEC_MSEC);
        assert_string_equal(passed(), "");
        set_clock_pass(&given, USEC_MSEC);
        assert_string_equal(passed(), "a");
}

static void an_alarm_wakes_a_loop_that_sleeps(void **state UNUSED)
{
        usec at = clock_wall(&system_clock) + 20 * USEC_MSEC;

        first_alarm.stops = true;
        order_n = 0;
        loop_alarm(loop, &alarms[1], at + USEC_HOUR);
        loop_alarm(loop, &alarms[0], at);
        run();
        assert_string_equal(order, "a");
        assert_true(clock_wall(&system_clock) >= at);
        loop_alarm(loop, &alarms[1], USEC_NEVER);
}

/* ---- the waker ---------------------------------------------------------- */

enum { THREADS = 4, RINGS = 25000 };
struct ringer {
        struct waker_slot slot;
        struct task task;
        pthread_t thread;
        _Atomic int rung, seen;
};
static struct ringer ringers[THREADS];

static void *ring(void *argument)
{
        struct ringer *r = argument;

        /* Each ring is waited for in one of the rings to come: what is counted before a ring must be seen
         * after it. */
        for (int i = 0; i < RINGS; i++) {
                atomic_fetch_add(&r->rung, 1);
                waker_ring(loop_waker(loop), &r->slot);
                if (i % 64 == 0)
                        while (atomic_load(&r->seen) < i + 1)
                                ; /* lost: the watchdog tells */
        }
        return NULL;
}

static void rung(struct task *t, usec now UNUSED)
{
        struct ringer *r = CONTAINER_OF(t, struct ringer, task);
        int total = 0;

        atomic_store(&r->seen, atomic_load(&r->rung));
        for (int i = 0; i < THREADS; i++)
                total += atomic_load(&ringers[i].seen);
        if (total == THREADS * RINGS)
                loop_stop(loop);
}

static void no_ring_is_lost(void **state UNUSED)
{
        for (int i = 0; i < THREADS; i++) {
                ringers[i] = (struct ringer){ .task = { .turn = rung } };
                ringers[i].slot.task = &ringers[i].task;
                assert_int_equal(pthread_create(&ringers[i].thread, NULL, ring, &ringers[i]), 0);
        }
        loop_arm(loop, &watchdog, clock_monotonic(&system_clock) + 60 * USEC_SEC);
        loop_run(loop);
        loop_forget(loop, &watchdog);
        if (overdue)
                abort(); /* the threads still wait for what was lost */
        for (int i = 0; i < THREADS; i++) {
                assert_int_equal(pthread_join(ringers[i].thread, NULL), 0);
                assert_int_equal(atomic_load(&ringers[i].seen), RINGS);
                waker_forget(loop_waker(loop), &ringers[i].slot);
                loop_forget(loop, &ringers[i].task);
        }
}

/* ---- descriptors and signals -------------------------------------------- */

struct reader {
        struct loop_io *io;
        int fd, got;
};
static void read_and_close(void *cookie, int events UNUSED)
{
        struct reader *r = cookie;
        char c;

        while (read(r->fd, &c, 1) == 1)
                r->got++;
        loop_io_want(r->io, 0);
        loop_io_close(r->io); /* from within its own event */
        loop_io_close(r->io);
        (void)close(r->fd);
        loop_stop(loop);
}

static void a_watch_may_close_itself(void **state UNUSED)
{
        struct reader r = { 0 };
        struct error err;
        int ends[2];

        assert_int_equal(pipe(ends), 0);
        r.fd = ends[0];
        assert_int_equal(loop_io_open(loop, ends[0], read_and_close, &r, &r.io, &err), 0);
        loop_io_want(r.io, LOOP_READABLE);
        assert_int_equal(write(ends[1], "abc", 3), 3);
        (void)close(ends[1]);
        run();
        assert_int_equal(r.got, 3);
        assert_int_equal(loop_io_open(loop, 99999, read_and_close, &r, &r.io, &err), -1);
        assert_non_null(strstr(err.text, "99999"));
}

/* ---- crowds ------------------------------------------------------------- */

enum { MEMBERS = 100, IN_A_PASS = 8 };
static struct member {
        struct loop_io *io;
        int fd[2];
        unsigned told;
} members[MEMBERS];
static struct loop_crowd *crowd;
static int own[2];
static unsigned told_in_all, told_when_own;

static void open_members(void (*event)(void *, int))
{
        struct error err;

        told_in_all = told_when_own = 0;
        assert_int_equal(loop_crowd_new(&crowd, loop, IN_A_PASS, &err), 0);
        for (struct member *m = members; m < members + MEMBERS; m++) {
                m->told = 0;
                assert_int_equal(pipe(m->fd), 0);
                assert_int_equal(write(m->fd[1], "x", 1), 1);
                assert_int_equal(loop_crowd_open(crowd, m->fd[0], event, m, &m->io, &err), 0);
                loop_io_want(m->io, LOOP_READABLE);
        }
}

static void close_members(void)
{
        for (struct member *m = members; m < members + MEMBERS; m++) {
                loop_io_close(m->io);
                (void)close(m->fd[0]);
                (void)close(m->fd[1]);
        }
        crowd = loop_crowd_free(crowd);
}

/* Nobody reads: each is told of in each turn. */
static void member_told(void *cookie, int events)
{
        struct member *m = cookie;

        assert_int_equal(events, LOOP_READABLE);
        m->told++;
        if (++told_in_all == 1)
                assert_int_equal(write(own[1], "x", 1), 1);
        if (told_in_all == 10 * MEMBERS)
                loop_stop(loop);
}

static void own_told(void *cookie UNUSED, int events UNUSED)
{
        char c;

        assert_int_equal(read(own[0], &c, 1), 1);
        told_when_own = told_in_all;
}

static void a_crowd_holds_up_nobody_and_all_have_their_turn(void **state UNUSED)
{
        struct loop_io *io;
        struct error err;

        assert_int_equal(pipe(own), 0);
        assert_int_equal(loop_io_open(loop, own[0], own_told, NULL, &io, &err), 0);
        loop_io_want(io, LOOP_READABLE);
        open_members(member_told);
        run();
        assert_in_range(told_when_own, 1, 2 * IN_A_PASS);
        for (struct member *m = members; m < members + MEMBERS; m++)
                assert_in_range(m->told, 9, 11);
        close_members();
        loop_io_close(io);
        (void)close(own[0]);
        (void)close(own[1]);
}

/* Each wants nothing more of itself and closes the one behind it: those with odd numbers are never told. */
static void member_closes_the_next(void *cookie, int events UNUSED)
{
        struct member *m = cookie, *next = m + 1;

        m->told++;
        loop_io_want(m->io, 0);
        loop_io_close(next->io);
        next->io = NULL;
        if (++told_in_all == MEMBERS / 2)
                loop_stop(loop);
}

static void a_member_that_was_closed_is_not_told(void **state UNUSED)
{
        open_members(member_closes_the_next);
        run();
        for (unsigned i = 0; i < MEMBERS; i++)
                assert_int_equal(members[i].told, i % 2 == 0);
        close_members();
}

static void member_hears_the_end(void *cookie, int events)
{
        struct member *m = cookie;

        assert_true(m == &members[1]);
        assert_int_equal(events, LOOP_READABLE);
        loop_stop(loop);
}

static void an_end_is_told_to_who_wants_something(void **state UNUSED)
{
        char c;

        open_members(member_hears_the_end);
        for (struct member *m = members; m < members + MEMBERS; m++) {
                assert_int_equal(read(m->fd[0], &c, 1), 1);
                if (m != &members[1])
                        loop_io_want(m->io, 0);
                (void)close(m->fd[1]);
        }
        run();
        for (struct member *m = members; m < members + MEMBERS; m++) {
                loop_io_close(m->io);
                (void)close(m->fd[0]);
        }
        crowd = loop_crowd_free(crowd);
}

static void on_hangup(void *cookie, int number)
{
        *(int *)cookie = number;
        loop_stop(loop);
}

static void signals_come_on_the_loop(void **state UNUSED)
{
        struct error err;
        int got = 0;

        signals_block();
        assert_int_equal(loop_signal(loop, SIGHUP, on_hangup, &got, &err), 0);
        assert_int_equal(kill(getpid(), SIGHUP), 0);
        assert_int_equal(got, 0);
        run();
        assert_int_equal(got, SIGHUP);
}

static struct set_clock quiet_time;
static const struct clock quiet_clock = SET_CLOCK(&quiet_time);

static void fall_quiet(struct task *t UNUSED, usec now UNUSED)
{
        quiet_time.monotonic += 5 * USEC_SEC; /* as if the poll that follows slept as long */
        (void)kill(getpid(), SIGHUP);
}

static void note_time(void *cookie, int number UNUSED)
{
        *(usec *)cookie = loop_now(loop);
        loop_stop(loop);
}

/* What ends a process counts from the signal, not from whatever happened before it. */
static void a_signal_after_a_quiet_while_has_its_own_time(void **state UNUSED)
{
        struct task quiet = { .turn = fall_quiet };
        struct error err;
        usec before, heard = 0;

        quiet_time = (struct set_clock){ .runs = true };
        loop_use_clock(loop, &quiet_clock);
        signals_block();
        assert_int_equal(loop_signal(loop, SIGHUP, note_time, &heard, &err), 0);
        before = loop_now(loop);
        loop_ready(loop, &quiet);
        run();
        assert_true(heard - before >= 5 * USEC_SEC);
}

static void a_loop_closes_clean(void **state UNUSED) { assert_null(loop_free(NULL)); }

enum { LONG_TURNS = 100, UNSEEN = 16 };
static struct set_clock long_time;
static const struct clock long_clock = SET_CLOCK(&long_time);
static struct long_turn {
        struct task task;
        uint64_t pass;
} long_turns[LONG_TURNS];
static size_t long_n;

static void take_long(struct task *t, usec now UNUSED)
{
        struct long_turn *l = CONTAINER_OF(t, struct long_turn, task);

        assert_ptr_equal(l, &long_turns[long_n++]); /* in the order in which they became ready */
        l->pass = loop_pass(loop);
        long_time.monotonic += USEC_MSEC;
        if (long_n == LONG_TURNS)
                loop_stop(loop);
}

/* Descriptors, probes among them, are looked at between two passes. */
static void a_pass_takes_no_longer_however_many_are_ready(void **state UNUSED)
{
        loop_use_clock(loop, &long_clock);
        long_n = 0;
        for (size_t i = 0; i < LONG_TURNS; i++) {
                long_turns[i] = (struct long_turn){ .task.turn = take_long };
                loop_ready(loop, &long_turns[i].task);
        }
        loop_run(loop);
        assert_int_equal(long_n, LONG_TURNS);
        for (size_t i = UNSEEN; i < LONG_TURNS; i++)
                assert_true(long_turns[i].pass > long_turns[i - UNSEEN].pass);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(what_came_while_it_was_held_is_heard_first, setup, teardown),
                cmocka_unit_test_setup_teardown(ready_during_a_turn_runs_next_pass, setup, teardown),
                cmocka_unit_test_setup_teardown(a_forgotten_task_is_not_turned, setup, teardown),
                cmocka_unit_test_setup_teardown(descriptors_get_their_turn, setup, teardown),
                cmocka_unit_test_setup_teardown(a_pass_takes_no_longer_however_many_are_ready, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(deadlines_come_in_order_and_not_early, setup, teardown),
                cmocka_unit_test_setup_teardown(a_deadline_in_the_past_comes_at_once, setup, teardown),
                cmocka_unit_test_setup_teardown(a_deadline_may_be_set_while_turning, setup, teardown),
                cmocka_unit_test_setup_teardown(deadlines_are_kept_by_the_clock_that_was_given, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(when_the_next_turn_is_can_be_asked, setup, teardown),
                cmocka_unit_test_setup_teardown(an_alarm_rings_at_its_time_of_day, setup, teardown),
                cmocka_unit_test_setup_teardown(a_clock_that_is_set_rings_all_alarms, setup, teardown),
                cmocka_unit_test_setup_teardown(an_alarm_wakes_a_loop_that_sleeps, setup, teardown),
                cmocka_unit_test_setup_teardown(no_ring_is_lost, setup, teardown),
                cmocka_unit_test_setup_teardown(a_watch_may_close_itself, setup, teardown),
                cmocka_unit_test_setup_teardown(a_crowd_holds_up_nobody_and_all_have_their_turn, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(a_member_that_was_closed_is_not_told, setup, teardown),
                cmocka_unit_test_setup_teardown(an_end_is_told_to_who_wants_something, setup, teardown),
                cmocka_unit_test_setup_teardown(signals_come_on_the_loop, setup, teardown),
                cmocka_unit_test_setup_teardown(a_signal_after_a_quiet_while_has_its_own_time, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(a_loop_closes_clean, setup, teardown),
        };
        return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
