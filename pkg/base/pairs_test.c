#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/pairs.h"
#include "base/random.h"

/* Against the plain way, in all sizes about the one where it hashes. */
static void check(struct pairs *p)
{
        pairs_group(p);
        assert_false(p->failed);
        for (size_t i = 0; i < p->n; i++) {
                size_t next = PAIRS_END;
                bool again = false;

                for (size_t k = 0; k < p->n; k++) {
                        bool equal = p->nocase ? str_equal_nocase(p->list[i].name, p->list[k].name)
                                               : str_equal(p->list[i].name, p->list[k].name);

                        again = again || (k < i && equal);
                        if (k > i && equal && next == PAIRS_END)
                                next = k;
                }
                assert_int_equal(p->list[i].next, next);
                assert_int_equal(p->list[i].again, again);
        }
}

static void those_of_one_name_are_linked(void **state UNUSED)
{
        static const char *const names[] = { "a",
                                             "A",
                                             "b",
                                             "",
                                             "a-very-long-name-of-which-only-the-end-differs-1",
                                             "a-very-long-name-of-which-only-the-end-differs-2",
                                             "A-very-long-name-of-which-only-the-end-differs-2" };
        struct random r;

        random_init(&r, 1);
        for (size_t n = 0; n < 80; n++)
                for (int nocase = 0; nocase < 2; nocase++) {
                        PAIRS_AT_END struct pairs p = PAIRS_INIT(nocase);

                        for (size_t i = 0; i < n; i++)
                                pairs_add(&p, str_of(names[random_below(&r, COUNT_OF(names))]), STR("v"));
                        check(&p);
                }
}

static void names_longer_than_any_buffer_are_told_apart(void **state UNUSED)
{
        PAIRS_AT_END struct pairs p = PAIRS_INIT(true);
        char text[40][1000];

        for (size_t i = 0; i < COUNT_OF(text); i++) {
                memset(text[i], i % 2 ? 'x' : 'X', sizeof(text[i]));
                text[i][999] = (char)('a' + i / 2);
                pairs_add(&p, (struct str){ text[i], sizeof(text[i]) }, (struct str){ 0 });
        }
        check(&p);
        assert_int_equal(p.list[0].next, 1);
}

int main(void)
{
        const struct CMUnitTest tests[] = { cmocka_unit_test(those_of_one_name_are_linked),
                                            cmocka_unit_test(names_longer_than_any_buffer_are_told_apart) };

        return cmocka_run_group_tests_name("pairs", tests, NULL, NULL);
}
