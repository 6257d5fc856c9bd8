#include "delivery/track.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "base/random.h"

static void the_window_moves_over_what_is_done(void **state UNUSED)
{
        struct window w = { 0 };
        uint32_t a, b, c;

        assert_true(window_reserve(&w, 3));
        assert_int_equal(w.next, 0);
        a = window_push(&w, 10);
        b = window_push(&w, 12); /* positions may have gaps */
        c = window_push(&w, 20);
        assert_false(window_finish(&w, b));
        assert_int_equal(w.next, 0);
        assert_int_equal(window_span(&w), 3);
        assert_true(window_finish(&w, a));
        assert_int_equal(w.next, 13);
        assert_int_equal(window_span(&w), 1);
        assert_true(window_finish(&w, c));
        assert_int_equal(w.next, 21);
        assert_int_equal(window_span(&w), 0);
        window_done(&w);
        assert_int_equal(w.cap, 0);
}

/* Random orders of finishing, against a plain array; ordinals start just before they wrap. */
static void the_window_agrees_with_an_array(void **state UNUSED)
{
        enum { MOST = 200 };

        for (uint64_t seed = 0; seed < 200; seed++) {
                struct window w = { .head = UINT32_MAX - 30, .tail = UINT32_MAX - 30 };
                struct {
                        uint64_t position;
                        uint32_t ordinal;
                        bool done;
                } all[2000];
                size_t n = 0, first = 0;
                uint64_t position = 0, next = 0;
                struct random r;

                random_init(&r, seed);
                for (int i = 0; i < 1500; i++) {
                        if (random_below(&r, 2) && n - first < MOST) {
                                position += 1 + random_below(&r, 3);
                                assert_true(window_reserve(&w, 1));
                                all[n].position = position;
                                all[n].done = false;
                                all[n++].ordinal = window_push(&w, position);
                        } else if (n > first) {
                                size_t at = first + random_below(&r, n - first);
                                bool moves = at == first;

                                if (all[at].done)
                                        continue;
                                all[at].done = true;
                                assert_int_equal(window_finish(&w, all[at].ordinal), moves);
                                while (first < n && all[first].done)
                                        next = all[first++].position + 1;
                        }
                        assert_int_equal(w.next, next);
                        assert_int_equal(window_span(&w), n - first);
                }
                window_done(&w);
        }
}

static void a_reserve_is_for_several_pushes(void **state UNUSED)
{
        struct window w = { 0 };

        for (uint32_t i = 0; i < 10; i++)
                if (window_reserve(&w, 1))
                        (void)window_push(&w, i);
        assert_true(window_reserve(&w, 1000));
        uint64_t *ring = w.ring;
        for (uint32_t i = 10; i < 1010; i++)
                (void)window_push(&w, i);
        assert_ptr_equal(w.ring, ring);
        for (uint32_t i = 0; i < 1010; i++)
                assert_true(window_finish(&w, i));
        assert_int_equal(w.next, 1010);
        window_done(&w);
}

static void positions_may_be_large(void **state UNUSED)
{
        struct window w = { 0 };
        uint64_t largest = (UINT64_C(1) << 63) - 2;

        assert_true(window_reserve(&w, 1));
        assert_true(window_finish(&w, window_push(&w, largest)));
        assert_true(w.next == largest + 1);
        window_done(&w);
}

static void a_stuck_track_starves_nobody(void **state UNUSED)
{
        struct budget b = { .total = 100, .reserve = 25 };
        struct account stuck = { 0 }, other = { 0 };

        assert_int_equal(budget_allowed(&b, &stuck, 2), 75); /* its reserve and what is shared */
        budget_move(&b, &stuck, 75, 0);
        assert_int_equal(b.shared_used, 50);
        assert_int_equal(budget_allowed(&b, &stuck, 2), 0);
        assert_int_equal(budget_allowed(&b, &other, 2), 25);
        budget_move(&b, &stuck, -75, 75); /* lent: the same use */
        assert_int_equal(b.used, 75);
        assert_int_equal(budget_allowed(&b, &other, 2), 25);
        budget_move(&b, &other, 25, 0);
        assert_int_equal(budget_allowed(&b, &other, 2), 0);
        budget_move(&b, &stuck, 0, -60);
        assert_int_equal(b.shared_used, 0);
        assert_int_equal(budget_allowed(&b, &other, 2), 50);
        assert_int_equal(budget_allowed(&b, &stuck, 2), 60);
}

static void who_has_nothing_gets_one(void **state UNUSED)
{
        struct budget b = { .total = 2, .reserve = 1 };
        struct account a = { 0 }, others[3] = { 0 };

        for (size_t i = 0; i < 3; i++)
                budget_move(&b, &others[i], 1, 0);
        assert_int_equal(budget_allowed(&b, &a, 4), 1);
        budget_move(&b, &a, 1, 0);
        assert_int_equal(budget_allowed(&b, &a, 4), 0);
        budget_move(&b, &a, -11, 0); /* it owes ten: paid in full, or it could never lend again */
        assert_int_equal(budget_allowed(&b, &a, 4), 11);
}

static void the_shared_sum_stays_true(void **state UNUSED)
{
        struct budget b = { .total = 1000, .reserve = 50 };
        struct account all[5] = { 0 };
        struct random r;

        random_init(&r, 9);
        for (int i = 0; i < 20000; i++) {
                struct account *a = &all[random_below(&r, 5)];
                int64_t used = 0, shared = 0, grant = budget_allowed(&b, a, 5);

                switch (random_below(&r, 3)) {
                case 0: budget_move(&b, a, (int64_t)random_below(&r, (uint64_t)grant + 1), 0); break;
                case 1: budget_move(&b, a, -a->granted / 2, a->granted / 2); break;
                default: budget_move(&b, a, 0, -(int64_t)random_below(&r, (uint64_t)a->held + 1));
                }
                for (size_t j = 0; j < 5; j++) {
                        used += account_use(&all[j]);
                        shared += MAX_OF(account_use(&all[j]) - b.reserve, (int64_t)0);
                }
                assert_int_equal(b.used, used);
                assert_int_equal(b.shared_used, shared);
                assert_true(used <= b.total + 5);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(the_window_moves_over_what_is_done),
                cmocka_unit_test(the_window_agrees_with_an_array),
                cmocka_unit_test(a_reserve_is_for_several_pushes),
                cmocka_unit_test(positions_may_be_large),
                cmocka_unit_test(a_stuck_track_starves_nobody),
                cmocka_unit_test(who_has_nothing_gets_one),
                cmocka_unit_test(the_shared_sum_stays_true),
        };
        return cmocka_run_group_tests_name("track", tests, NULL, NULL);
}
