/* Workers that share slots, against an API server of one line, on a virtual clock; each has a clock of its
 * own. */
#include "kube/slots.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { WORKERS = 3, SLOTS = 8 };

struct lease {
        char holder[32], renewed[32], waits[64], version[32];
        int64_t transitions, slots, generation;
};
static struct lease leases[SLOTS]; /* those from leases_n on are gone */
static uint32_t leases_n;
static uint64_t writes;

static struct worker {
        struct slots *slots;
        char name[16];
        usec ahead; /* of its clock */
        bool cut;   /* its calls fail */
        bool slow;  /* it does not give back what is leaving */
        uint32_t n; /* of slots, as it knows */
        usec died;
        usec lag; /* of answers, behind what they tell of */
        struct late {
                struct lease lease;
                usec at; /* 0: none */
        } late[SLOTS];
} workers[WORKERS];
static uint32_t slots_n;
static usec now;

static void start_of(int i, const char *name, uint32_t n, int64_t generation)
{
        const struct slots_config config = {
                .me = name, .n = n, .generation = generation, .seed = (uint64_t)i + 1
        };
        struct worker *w = &workers[i];
        struct error err;

        (void)snprintf(w->name, sizeof(w->name), "%s", name);
        w->cut = w->slow = false;
        w->n = n;
        assert_int_equal(slots_new(&w->slots, &config, &err), 0);
}

static void start(int i, const char *name) { start_of(i, name, slots_n, 1); }

static void end(int i) { workers[i].slots = slots_free(workers[i].slots); }

static int setup(void **state UNUSED)
{
        memset(leases, 0, sizeof(leases));
        memset(workers, 0, sizeof(workers));
        writes = 0;
        leases_n = SLOTS;
        now = 1000 * USEC_SEC;
        for (int i = 0; i < SLOTS; i++)
                (void)snprintf(leases[i].version, sizeof(leases[i].version), "0");
        return 0;
}

static int teardown(void **state UNUSED)
{
        for (int i = 0; i < WORKERS; i++)
                end(i);
        return 0;
}

static void deliver(struct worker *w, uint32_t slot)
{
        struct late *late = &w->late[slot];
        const struct lease *l = &late->lease;
        const struct slots_lease seen = { .holder = l->holder,
                                          .renewed = l->renewed,
                                          .waits = l->waits,
                                          .version = l->version,
                                          .slots = l->slots,
                                          .generation = l->generation,
                                          .duration = 15,
                                          .transitions = l->transitions };

        late->at = 0;
        slots_done(w->slots, slot, &seen, now + w->ahead);
}

static void answer(struct worker *w, const struct slots_job *j)
{
        struct lease *l = &leases[j->slot];
        struct error err;

        if (w->cut) {
                (void)error_set(&err, ERROR_UNREACHABLE, "no route");
                slots_failed(w->slots, j->slot, &err, now + w->ahead);
                return;
        }
        if (j->slot >= leases_n) {
                (void)error_set(&err, ERROR_NOT_FOUND, "not found");
                slots_failed(w->slots, j->slot, &err, now + w->ahead);
                return;
        }
        if (j->kind != SLOTS_READ && strcmp(j->version, l->version) != 0) {
                (void)error_set(&err, ERROR_CONFLICT, "the object has been modified");
                slots_failed(w->slots, j->slot, &err, now + w->ahead);
                return;
        }
        if (j->kind == SLOTS_HOLD) {
                (void)snprintf(l->holder, sizeof(l->holder), "%s", w->name);
                (void)snprintf(l->renewed, sizeof(l->renewed), "%lld", (long long)(now + w->ahead));
                l->transitions = j->transitions;
        } else if (j->kind == SLOTS_FREE)
                l->holder[0] = 0;
        if (j->waits)
                (void)snprintf(l->waits, sizeof(l->waits), "%s", j->waits);
        if (j->kind != SLOTS_READ)
                (void)snprintf(l->version, sizeof(l->version), "%llu", (unsigned long long)++writes);
        w->late[j->slot] = (struct late){ *l, now + w->lag };
        if (!w->lag)
                deliver(w, j->slot);
}

static struct claim look(int i, uint32_t slot)
{
        struct claim c = { .state = CLAIM_WAITING };

        if (workers[i].slots && slot < workers[i].n)
                slots_look(workers[i].slots, slot, &c);
        return c;
}

static uint32_t held(int i)
{
        uint32_t n = 0;

        for (uint32_t s = 0; s < workers[i].n; s++)
                n += look(i, s).state == CLAIM_HELD;
        return n;
}

/* A tenth of a second of everybody; no slot is read by two, and who may read it is held by the API server,
 * too, unless he can't know better yet. */
static void step(void)
{
        now += 100 * USEC_MSEC;
        for (int i = 0; i < WORKERS; i++) {
                struct worker *w = &workers[i];
                struct slots_job j;
                int jobs = 0;

                for (uint32_t s = 0; w->slots && s < w->n; s++)
                        if (w->late[s].at && now >= w->late[s].at)
                                deliver(w, s);
                while (w->slots && slots_next(w->slots, now + w->ahead, &j)) {
                        answer(w, &j);
                        assert_true(++jobs < 100);
                }
                for (uint32_t s = 0; w->slots && s < w->n; s++)
                        if (look(i, s).state == CLAIM_LEAVING && !w->slow)
                                slots_release(w->slots, s);
        }
        for (uint32_t s = 0; s < slots_n; s++) {
                int readers = 0;

                for (int i = 0; i < WORKERS; i++)
                        readers += look(i, s).state == CLAIM_HELD;
                assert_true(readers <= 1);
        }
}

static void pass(usec time)
{
        for (usec until = now + time; now < until;)
                step();
}

static int64_t transitions(void)
{
        int64_t n = 0;

        for (uint32_t s = 0; s < slots_n; s++)
                n += leases[s].transitions;
        return n;
}

/* How long until it is so; at most a minute. */
static usec until_held(int i, uint32_t n)
{
        usec since = now;

        while (held(i) != n) {
                step();
                if (now - since > USEC_MINUTE)
                        fail_msg("worker %d holds %u, not %u", i, held(i), n);
        }
        return now - since;
}

static void one_alone_holds_all_and_keeps_them(void **state UNUSED)
{
        uint64_t before;

        slots_n = 4;
        start(0, "a");
        assert_true(until_held(0, 4) <= USEC_SEC);
        before = writes;
        for (int i = 0; i < 600; i++) {
                pass(USEC_SEC);
                assert_int_equal(held(0), 4);
        }
        assert_in_range(writes - before, 4 * 110, 4 * 130);
        assert_int_equal(leases[0].transitions, 1);
}

static void those_who_come_get_their_share(void **state UNUSED)
{
        slots_n = 6;
        start(0, "a");
        pass(5 * USEC_SEC);
        start(1, "b");
        assert_true(until_held(1, 3) <= 50 * USEC_SEC);
        assert_int_equal(held(0), 3);
        assert_int_equal(transitions(), 6 + 3); /* none was taken back */
        start(2, "c");
        (void)until_held(2, 2);
        pass(30 * USEC_SEC);
        for (int i = 0; i < 3; i++)
                assert_int_equal(held(i), 2);
        /* Nothing moves any more. */
        for (int minute = 0; minute < 10; minute++) {
                int64_t moves = transitions();

                pass(USEC_MINUTE);
                assert_int_equal(transitions(), moves);
        }
}

static void two_who_start_at_once_end_up_even(void **state UNUSED)
{
        slots_n = 5;
        start(0, "a");
        start(1, "b");
        pass(USEC_MINUTE);
        assert_int_equal(held(0) + held(1), 5);
        assert_in_range(held(0), 2, 3);
}

static void the_only_slot_stays_with_its_holder(void **state UNUSED)
{
        uint64_t before;

        slots_n = 1;
        start(0, "a");
        pass(USEC_SEC);
        start(1, "b");
        before = writes;
        pass(5 * USEC_MINUTE);
        assert_in_range(writes - before, 55, 62); /* who waits in vain writes nothing */
        assert_int_equal(held(0), 1);
        assert_string_equal(look(1, 0).why, "a");
        assert_int_equal(leases[0].transitions, 1);
        assert_string_equal(leases[0].waits, "");
}

static void what_is_released_is_taken_within_three_seconds(void **state UNUSED)
{
        slots_n = 2;
        start(0, "a");
        pass(USEC_SEC);
        start(1, "b");
        (void)until_held(1, 1);
        pass(7 * USEC_SEC + 300 * USEC_MSEC);
        slots_stop(workers[0].slots);
        assert_true(until_held(1, 2) <= 3 * USEC_SEC);
        assert_true(slots_stopped(workers[0].slots));
}

static void what_a_killed_worker_held_is_taken_after_its_lease(void **state UNUSED)
{
        for (usec later = 0; later < 10 * USEC_SEC; later += 700 * USEC_MSEC) {
                usec took;

                (void)teardown(NULL);
                (void)setup(NULL);
                slots_n = 3;
                start(0, "a");
                pass(USEC_SEC);
                start(1, "b");
                (void)until_held(1, 1);
                pass(later);
                end(0);
                took = until_held(1, 3);
                assert_in_range(took, 9 * USEC_SEC, 25 * USEC_SEC);
        }
}

/* Clocks that are an hour apart, and one that can't renew: it stops reading seconds before the other begins.
 */
static void clocks_need_not_agree(void **state UNUSED)
{
        slots_n = 1;
        workers[0].ahead = USEC_HOUR;
        start(0, "a");
        pass(USEC_SEC);
        start(1, "b");
        pass(USEC_MINUTE);
        assert_int_equal(held(0), 1);
        workers[0].cut = workers[0].slow = true;
        for (usec since = now; held(1) == 0; step()) {
                struct claim c = look(0, 0);

                assert_true(now - since <= 25 * USEC_SEC);
                if (now - since > 10 * USEC_SEC + 200 * USEC_MSEC) {
                        assert_int_equal(c.state, CLAIM_LEAVING);
                        assert_true(c.give_up_at - workers[0].ahead <= since + 15 * USEC_SEC);
                        workers[0].died = workers[0].died ? workers[0].died : now;
                }
        }
        assert_true(now - workers[0].died >= 4 * USEC_SEC);
        /* It hears of it once it can, and must drop what it has. */
        workers[0].cut = false;
        pass(5 * USEC_SEC);
        assert_int_equal(look(0, 0).state, CLAIM_LEAVING);
        assert_int_equal(look(0, 0).give_up_at, 0);
        workers[0].slow = false;
        pass(5 * USEC_SEC);
        assert_int_equal(look(0, 0).state, CLAIM_WAITING);
        assert_int_equal(held(1), 1);
}

static void a_short_outage_moves_nothing(void **state UNUSED)
{
        slots_n = 2;
        start(0, "a");
        pass(USEC_SEC);
        start(1, "b");
        (void)until_held(1, 1);
        for (int i = 0; i < 20; i++) {
                workers[0].cut = workers[1].cut = true;
                for (int j = 0; j < 40; j++) {
                        step();
                        assert_int_equal(held(0) + held(1), 2);
                }
                workers[0].cut = workers[1].cut = false;
                pass(6 * USEC_SEC);
        }
}

/* Of one who holds but one more than he who waits nothing is due. */
static void who_waits_with_nearly_as_many_gets_none(void **state UNUSED)
{
        slots_n = 3;
        start(0, "a");
        pass(USEC_SEC);
        for (int i = 0; i < 20; i++) {
                (void)snprintf(leases[1].waits, sizeof(leases[1].waits), "b 2");
                (void)snprintf(leases[1].version, sizeof(leases[1].version), "%llu",
                               (unsigned long long)++writes);
                pass(6 * USEC_SEC);
                assert_int_equal(held(0), 3);
        }
        assert_string_equal(leases[1].waits, "");
        (void)snprintf(leases[1].waits, sizeof(leases[1].waits), "b 1");
        (void)snprintf(leases[1].version, sizeof(leases[1].version), "%llu", (unsigned long long)++writes);
        pass(6 * USEC_SEC);
        assert_int_equal(held(0), 2);
}

/* A renewal counts from when it was sent: its answer may come late. */
static void a_late_answer_renews_no_longer(void **state UNUSED)
{
        slots_n = 1;
        start(0, "a");
        pass(USEC_SEC);
        start(1, "b");
        pass(USEC_MINUTE);
        workers[0].lag = 4 * USEC_SEC;
        for (usec at = 0; at < 20 * USEC_SEC && !workers[0].late[0].at; at += 100 * USEC_MSEC)
                step();
        while (workers[0].late[0].at)
                step();
        workers[0].cut = workers[0].slow = true;
        for (usec since = now; held(1) == 0; step()) {
                assert_true(now - since <= 25 * USEC_SEC);
                if (!workers[0].died && look(0, 0).state == CLAIM_LEAVING)
                        workers[0].died = now;
        }
        assert_true(workers[0].died && now - workers[0].died >= 4 * USEC_SEC);
}

/* A process that begins again under its name goes on at once. */
static void the_same_name_goes_on(void **state UNUSED)
{
        slots_n = 2;
        start(0, "a");
        pass(2 * USEC_SEC);
        end(0);
        start(0, "a");
        assert_true(until_held(0, 2) <= USEC_SEC);
}

static void who_waited_and_died_moves_one_slot_at_most(void **state UNUSED)
{
        slots_n = 4;
        start(0, "a");
        pass(5 * USEC_SEC);
        start(1, "b");
        for (int i = 0; i < 200 && !leases[0].waits[0] && !leases[1].waits[0] && !leases[2].waits[0] &&
                        !leases[3].waits[0];
             i++)
                step();
        end(1);
        pass(USEC_MINUTE);
        assert_int_equal(held(0), 4);
}

/* What the API server says is told to people, and the end does not wait for ever. */
static void an_api_server_that_is_away(void **state UNUSED)
{
        usec since;

        slots_n = 1;
        start(0, "a");
        workers[0].cut = true;
        pass(3 * USEC_SEC);
        assert_string_equal(look(0, 0).why, "no route");
        workers[0].cut = false;
        (void)until_held(0, 1);
        workers[0].cut = true;
        slots_stop(workers[0].slots);
        for (since = now; !slots_stopped(workers[0].slots); step())
                assert_true(now - since < 11 * USEC_SEC);
}

/* The controller's: how many slots there are now, and since when. */
static void say_number(uint32_t n, int64_t generation)
{
        leases_n = n;
        for (uint32_t i = 0; i < n; i++) {
                leases[i].slots = n;
                leases[i].generation = generation;
                (void)snprintf(leases[i].version, sizeof(leases[i].version), "%llu",
                               (unsigned long long)++writes);
        }
}

/* Nobody ended the old worker, whose number is another by now: it gives up all, says so, and the new one
 * reads everything. The longest in which a slot of the new one is not read, and in which both read. */
static void outlive(uint32_t from, uint32_t to, bool cut, usec *unread, usec *both)
{
        usec since;

        (void)teardown(NULL);
        (void)setup(NULL);
        slots_n = MAX_OF(from, to);
        say_number(from, 5);
        start_of(0, "old", from, 5);
        assert_true(until_held(0, from) <= USEC_SEC);
        pass(7 * USEC_SEC);
        workers[0].cut = cut;
        say_number(to, 6);
        start_of(1, "new", to, 6);
        *unread = *both = 0;
        for (since = now; held(1) < to || held(0); step()) {
                *both = held(0) && held(1) ? now - since : *both;
                *unread = now - since;
                assert_true(now - since < 40 * USEC_SEC);
        }
        workers[0].cut = false;
        for (int i = 0; i < 60; i++) {
                pass(USEC_SEC);
                assert_int_equal(held(0), 0);
                assert_int_equal(held(1), to);
        }
        assert_true(look(0, 0).failed);
        assert_non_null(strstr(look(0, 0).why, "generation 6"));
        assert_false(slots_stopped(workers[0].slots)); /* it waits, until it is ended */
        slots_stop(workers[0].slots);
        assert_true(slots_stopped(workers[0].slots));
}

static void a_worker_of_another_number_gives_way(void **state UNUSED)
{
        static const uint32_t numbers[][2] = { { 4, 2 }, { 2, 4 }, { 1, 8 }, { 8, 1 }, { 3, 5 } };

        for (size_t i = 0; i < COUNT_OF(numbers); i++) {
                usec unread, both;

                outlive(numbers[i][0], numbers[i][1], false, &unread, &both);
                assert_true(unread <= 8 * USEC_SEC);
                assert_true(both <= SLOTS_RENEW + USEC_SEC);
                outlive(numbers[i][0], numbers[i][1], true, &unread, &both);
                assert_true(unread <= 25 * USEC_SEC); /* as of one that was killed */
                assert_true(both <= SLOTS_DEADLINE + USEC_SEC);
        }
}

/* The new one came before the controller wrote the number: what it knows is later, and it stays. And one that
 * is outdated takes part again once its number is the right one. */
static void whose_number_is_later_stays(void **state UNUSED)
{
        slots_n = 4;
        say_number(2, 5);
        leases_n = 4;
        start_of(1, "new", 4, 6);
        assert_true(until_held(1, 4) <= USEC_SEC);
        pass(USEC_MINUTE);
        assert_int_equal(held(1), 4);
        say_number(4, 6);
        pass(USEC_MINUTE);
        assert_int_equal(held(1), 4);
        say_number(3, 7);
        (void)until_held(1, 0);
        say_number(4, 8);
        (void)until_held(1, 4);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(one_alone_holds_all_and_keeps_them, setup, teardown),
                cmocka_unit_test_setup_teardown(those_who_come_get_their_share, setup, teardown),
                cmocka_unit_test_setup_teardown(two_who_start_at_once_end_up_even, setup, teardown),
                cmocka_unit_test_setup_teardown(the_only_slot_stays_with_its_holder, setup, teardown),
                cmocka_unit_test_setup_teardown(what_is_released_is_taken_within_three_seconds, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(what_a_killed_worker_held_is_taken_after_its_lease, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(clocks_need_not_agree, setup, teardown),
                cmocka_unit_test_setup_teardown(a_short_outage_moves_nothing, setup, teardown),
                cmocka_unit_test_setup_teardown(who_waits_with_nearly_as_many_gets_none, setup, teardown),
                cmocka_unit_test_setup_teardown(a_late_answer_renews_no_longer, setup, teardown),
                cmocka_unit_test_setup_teardown(the_same_name_goes_on, setup, teardown),
                cmocka_unit_test_setup_teardown(who_waited_and_died_moves_one_slot_at_most, setup, teardown),
                cmocka_unit_test_setup_teardown(an_api_server_that_is_away, setup, teardown),
                cmocka_unit_test_setup_teardown(a_worker_of_another_number_gives_way, setup, teardown),
                cmocka_unit_test_setup_teardown(whose_number_is_later_stays, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
