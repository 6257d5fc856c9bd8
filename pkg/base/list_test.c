#include "base/list.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

struct thing {
        int number;
        struct list_node node, other;
};

static void expect(struct list *l, const int *numbers, size_t n)
{
        size_t i = 0;

        assert_int_equal(l->n, n);
        LIST_EACH (struct thing, t, l, node) {
                assert_true(i < n);
                assert_int_equal(t->number, numbers[i++]);
                assert_ptr_equal(t->node.list, l);
        }
        assert_int_equal(i, n);
        for (struct list_node *at = l->last; at; at = at->previous)
                assert_int_equal(LIST_ITEM(at, struct thing, node)->number, numbers[--i]);
        assert_int_equal(i, 0);
}

static void order_is_kept_at_both_ends_and_between(void **state UNUSED)
{
        struct thing a = { .number = 1 }, b = { .number = 2 }, c = { .number = 3 }, d = { .number = 4 };
        struct list l = { 0 };

        expect(&l, NULL, 0);
        assert_null(LIST_FIRST(&l, struct thing, node));
        list_append(&l, &b.node);
        list_append(&l, &d.node);
        list_prepend(&l, &a.node);
        list_insert(&l, &c.node, &d.node);
        expect(&l, (const int[]){ 1, 2, 3, 4 }, 4);
        list_remove(&b.node);
        assert_false(list_has(&b.node));
        expect(&l, (const int[]){ 1, 3, 4 }, 3);
        list_remove(&a.node);
        list_remove(&d.node);
        expect(&l, (const int[]){ 3 }, 1);
        list_remove(&c.node);
        expect(&l, NULL, 0);
        list_remove(&c.node); /* in none */
        expect(&l, NULL, 0);
        list_append(&l, &c.node);
        expect(&l, (const int[]){ 3 }, 1);
}

static void the_first_are_taken_in_order(void **state UNUSED)
{
        struct thing things[3] = { { .number = 0 }, { .number = 1 }, { .number = 2 } };
        struct list l = { 0 };

        for (size_t i = 0; i < COUNT_OF(things); i++)
                list_append(&l, &things[i].node);
        for (size_t i = 0; i < COUNT_OF(things); i++)
                assert_ptr_equal(LIST_TAKE(&l, struct thing, node), &things[i]);
        assert_null(LIST_TAKE(&l, struct thing, node));
}

static void the_current_one_may_go_and_lists_do_not_mix(void **state UNUSED)
{
        struct thing things[4] = { { .number = 0 }, { .number = 1 }, { .number = 2 }, { .number = 3 } };
        struct list all = { 0 }, odd = { 0 };

        for (size_t i = 0; i < COUNT_OF(things); i++) {
                list_append(&all, &things[i].node);
                if (i % 2)
                        list_append(&odd, &things[i].other);
        }
        LIST_EACH (struct thing, t, &all, node)
                if (t->number % 2)
                        list_remove(&t->node);
        expect(&all, (const int[]){ 0, 2 }, 2);
        assert_int_equal(odd.n, 2);
        LIST_EACH (struct thing, t, &odd, other)
                list_append(&all, &t->node);
        expect(&all, (const int[]){ 0, 2, 1, 3 }, 4);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(order_is_kept_at_both_ends_and_between),
                cmocka_unit_test(the_first_are_taken_in_order),
                cmocka_unit_test(the_current_one_may_go_and_lists_do_not_mix),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
