#include "source/apig/verdicts.h"

#include <setjmp.h>
#include <stdarg.h>

#include "base/random.h"

#include <cmocka.h>

static struct verdicts *v;

static void begin(size_t most, size_t bytes_most)
{
        struct error err;

        assert_int_equal(verdicts_new(&v, most, bytes_most, &err), 0);
}

static const unsigned char *key(unsigned n)
{
        static unsigned char k[VERDICT_KEY];

        memset(k, 0, sizeof(k));
        memcpy(k, &n, sizeof(n));
        return k;
}

static void keep(unsigned n, const char *context, usec until)
{
        struct verdict *one = verdict_new(str_of(context));

        one->caller = n;
        verdicts_keep(v, key(n), one, until);
        (void)verdict_release(one);
}

static bool knows(unsigned n, usec now)
{
        struct verdict *one = verdicts_find(v, key(n), now);
        bool known = one != NULL;

        assert_true(!one || one->caller == n);
        (void)verdict_release(one);
        return known;
}

static void assert_context(unsigned n, usec now, const char *expected)
{
        struct verdict *one = verdicts_find(v, key(n), now);

        assert_string_equal(one->context, expected);
        assert_int_equal(one->context_n, strlen(expected));
        (void)verdict_release(one);
}

static void a_verdict_holds_until_it_expires(void **state UNUSED)
{
        begin(10, 1 << 20);
        assert_false(knows(1, 0));
        keep(1, "{\"user\":\"abc\"}", 100);
        assert_true(knows(1, 0) && knows(1, 99) && !knows(2, 0));
        assert_context(1, 0, "{\"user\":\"abc\"}");
        assert_false(knows(1, 100));
        assert_int_equal(verdicts_count(v), 0);
        assert_int_equal(verdicts_bytes(v), 0);
        v = verdicts_free(v);
}

static void a_newer_one_takes_its_place(void **state UNUSED)
{
        begin(10, 1 << 20);
        keep(1, "{}", 100);
        keep(1, "{\"a\":\"b\"}", 200);
        assert_int_equal(verdicts_count(v), 1);
        assert_context(1, 150, "{\"a\":\"b\"}");
        v = verdicts_free(v);
}

/* Whoever holds it keeps it, though the cache has dropped it. ASan looks on. */
static void a_verdict_lives_while_it_is_held(void **state UNUSED)
{
        struct verdict *held;

        begin(1, 1 << 20);
        keep(1, "{\"held\":\"1\"}", 100);
        held = verdicts_find(v, key(1), 0);
        keep(2, "", 100);
        assert_true(!knows(1, 0) && knows(2, 0));
        v = verdicts_free(v);
        assert_string_equal(held->context, "{\"held\":\"1\"}");
        assert_null(verdict_release(held));
        assert_null(verdict_release(NULL));
}

static void one_larger_than_all_is_not_kept(void **state UNUSED)
{
        char text[1001];

        memset(text, 'x', 1000);
        text[1000] = 0;
        begin(10, 1000);
        keep(1, "", 100);
        keep(2, text, 100);
        assert_true(knows(1, 0) && !knows(2, 0));
        v = verdicts_free(v);
}

/* Against a list that is searched from one end to the other: what was used last is at its end. */
static void the_one_not_used_for_longest_goes_first(void **state UNUSED)
{
        enum { MOST = 20, KEYS = 40 };
        struct {
                unsigned n;
                usec until;
                size_t bytes;
        } model[MOST + 1];
        static char text[400];
        size_t n = 0, bytes = 0, one, bytes_most;
        struct random r;

        begin(1, 1 << 20);
        keep(1, "", 1);
        one = verdicts_bytes(v);
        v = verdicts_free(v);
        bytes_most = 12 * (one + 200);
        begin(MOST, bytes_most);
        random_init(&r, 4711);
        memset(text, 'x', sizeof(text) - 1);
        for (usec now = 0; now < 100000; now++) {
                unsigned k = (unsigned)random_below(&r, KEYS);
                size_t at = 0, length = random_below(&r, 399);
                bool add = random_below(&r, 2);
                usec until = now + (usec)random_below(&r, 200);

                while (at < n && model[at].n != k)
                        at++;
                if (add) {
                        keep(k, text + 399 - length, until);
                } else
                        assert_int_equal(knows(k, now), at < n && now < model[at].until);
                if (at < n) { /* taken out, perhaps to come back at the end */
                        typeof(model[0]) m = model[at];

                        bytes -= m.bytes;
                        memmove(&model[at], &model[at + 1], (n - at - 1) * sizeof(model[0]));
                        n--;
                        if (!add && now < m.until) {
                                model[n++] = m;
                                bytes += m.bytes;
                        }
                }
                if (add) {
                        while (n >= MOST || bytes + one + length > bytes_most) {
                                bytes -= model[0].bytes;
                                memmove(&model[0], &model[1], --n * sizeof(model[0]));
                        }
                        model[n].n = k;
                        model[n].until = until;
                        model[n++].bytes = one + length;
                        bytes += one + length;
                }
                assert_int_equal(verdicts_count(v), n);
                assert_int_equal(verdicts_bytes(v), bytes);
                assert_true(n <= MOST && bytes <= bytes_most);
        }
        v = verdicts_free(v);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_verdict_holds_until_it_expires),
                cmocka_unit_test(a_newer_one_takes_its_place),
                cmocka_unit_test(a_verdict_lives_while_it_is_held),
                cmocka_unit_test(one_larger_than_all_is_not_kept),
                cmocka_unit_test(the_one_not_used_for_longest_goes_first),
        };

        return cmocka_run_group_tests_name("verdicts", tests, NULL, NULL);
}
