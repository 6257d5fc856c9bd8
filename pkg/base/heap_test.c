#include "base/heap.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "base/random.h"

enum { NODES = 300 };

static int by_time(const void *a, const void *b)
{
        usec x = *(const usec *)a, y = *(const usec *)b;

        return (x > y) - (x < y);
}

static void check_shape(const struct heap *h)
{
        for (size_t i = 1; i <= h->n; i++) {
                assert_int_equal(h->nodes[i]->index, i);
                if (i > 1)
                        assert_true(h->nodes[i / 2]->at <= h->nodes[i]->at);
        }
}

/* Takes everything out, and compares with the times of the nodes that were in, sorted. */
static void drain_and_compare(struct heap *h, const struct heap_node *nodes)
{
        usec expected[NODES];
        size_t n = 0;

        for (size_t i = 0; i < NODES; i++)
                if (heap_has(&nodes[i]))
                        expected[n++] = nodes[i].at;
        assert_int_equal(n, h->n);
        qsort(expected, n, sizeof(usec), by_time);
        for (size_t i = 0; i < n; i++) {
                struct heap_node *first = heap_first(h);

                assert_int_equal(first->at, expected[i]);
                heap_remove(h, first);
                assert_false(heap_has(first));
        }
        assert_null(heap_first(h));
}

static void agrees_with_a_sorted_array(void **state UNUSED)
{
        for (uint64_t seed = 0; seed < 200; seed++) {
                struct heap_node nodes[NODES] = { 0 };
                struct heap h = { 0 };
                struct random r;

                random_init(&r, seed);
                for (int i = 0; i < 1000; i++) {
                        struct heap_node *n = &nodes[random_below(&r, NODES)];

                        switch (random_below(&r, 4)) {
                        case 0: heap_remove(&h, n); break;
                        case 1:
                                if (heap_first(&h))
                                        heap_remove(&h, heap_first(&h));
                                break;
                        default: /* inserts, or moves; few distinct times, so that many are equal */
                                assert_true(heap_insert(
                                        &h, n, (usec)random_below(&r, seed % 2 ? 20 : 1000000) - 10));
                        }
                        if (i % 50 == 0)
                                check_shape(&h);
                }
                drain_and_compare(&h, nodes);
                heap_done(&h);
        }
}

static void moves_in_both_directions(void **state UNUSED)
{
        struct heap_node a = { 0 }, b = { 0 }, c = { 0 };
        struct heap h = { 0 };

        assert_null(heap_first(&h));
        heap_remove(&h, &a); /* not in: nothing happens */
        assert_true(heap_insert(&h, &a, 10) && heap_insert(&h, &b, 20) && heap_insert(&h, &c, INT64_MAX));
        assert_true(heap_insert(&h, &a, 30));
        assert_ptr_equal(heap_first(&h), &b);
        assert_true(heap_insert(&h, &c, INT64_MIN));
        assert_ptr_equal(heap_first(&h), &c);
        assert_int_equal(h.n, 3);
        heap_remove(&h, &c);
        heap_remove(&h, &c);
        assert_int_equal(h.n, 2);
        assert_ptr_equal(heap_first(&h), &b);
        heap_done(&h);
        assert_null(heap_first(&h));
}

static void a_reserve_holds_what_it_promises(void **state UNUSED)
{
        struct heap_node nodes[NODES] = { 0 };
        struct heap h = { 0 };
        struct heap_node **array;

        assert_true(heap_reserve(&h, NODES));
        array = h.nodes;
        for (size_t i = 0; i < NODES; i++)
                assert_true(heap_insert(&h, &nodes[i], (usec)(NODES - i)));
        assert_ptr_equal(h.nodes, array);
        drain_and_compare(&h, nodes);
        heap_done(&h);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(agrees_with_a_sorted_array),
                cmocka_unit_test(moves_in_both_directions),
                cmocka_unit_test(a_reserve_holds_what_it_promises),
        };
        return cmocka_run_group_tests_name("heap", tests, NULL, NULL);
}
