#include "source/kafka/done.h"

#include <setjmp.h>
#include <stdarg.h>

#include "base/random.h"

#include <cmocka.h>

enum { SPAN = 30000 };
static const int64_t BASE = 1000000007;

/* What is done, one flag an offset. */
static struct model {
        bool done[SPAN];
} model;

static void add(struct done *d, int64_t from, int64_t to)
{
        done_add(d, BASE + from, BASE + to);
        for (int64_t o = from; o < to; o++)
                model.done[o] = true;
}

static void begin(struct done *d)
{
        memset(&model, 0, sizeof(model));
        done_clear(d);
}

static void assert_like_model(const struct done *d)
{
        for (int64_t o = 0; o < SPAN; o++)
                if (done_has(d, BASE + o) != model.done[o])
                        fail_msg("offset %lld", (long long)o);
        for (uint32_t i = 1; i < d->n; i++)
                assert_true(d->runs[i - 1].to < d->runs[i].from);
        assert_false(done_has(d, BASE - 1));
        assert_false(done_has(d, BASE + SPAN));
}

/* Each offset in a random order, with so many left out: one in `open`. */
static void finish_most(struct done *d, struct random *r, int64_t span, uint64_t open)
{
        for (int64_t i = 0; i < 3 * span; i++) {
                int64_t o = 1 + (int64_t)random_below(r, (uint64_t)span - 1);

                if (hash_bytes(open, (struct str){ (const char *)&o, sizeof(o) }) % open)
                        add(d, o, o + 1);
        }
}

static void what_is_done_is_known(void **state UNUSED)
{
        struct done d = { 0 };
        struct random r;

        random_init(&r, 7);
        begin(&d);
        assert_false(done_has(&d, BASE));
        for (int i = 0; i < 3000; i++) {
                int64_t from = (int64_t)random_below(&r, SPAN - 40);

                add(&d, from, from + (int64_t)random_below(&r, 40));
        }
        assert_like_model(&d);
        for (int64_t below = 0; below < SPAN; below += 977) {
                done_forget(&d, BASE + below);
                memset(model.done, 0, (size_t)below);
                assert_like_model(&d);
        }
        done_clear(&d);
}

static void it_ends_where_the_first_gap_is(void **state UNUSED)
{
        struct done d = { 0 };

        begin(&d);
        add(&d, 5, 8);
        assert_int_equal(done_until(&d, BASE + 4), BASE + 4);
        assert_int_equal(done_until(&d, BASE + 5), BASE + 8);
        assert_int_equal(done_until(&d, BASE + 7), BASE + 8);
        assert_int_equal(done_until(&d, BASE + 8), BASE + 8);
        add(&d, 8, 9);
        assert_int_equal(d.n, 1);
        assert_int_equal(done_until(&d, BASE + 6), BASE + 9);
        done_clear(&d);
}

static size_t written(const struct done *d, size_t most, struct buf *out)
{
        buf_reset(out);
        done_write(d, BASE, most, out);
        assert_false(out->failed);
        assert_true(out->n <= most);
        for (size_t i = 0; i < out->n; i++)
                assert_true(out->p[i] > ' ' && out->p[i] <= '~');
        return out->n;
}

static void all_of_it_comes_back(void **state UNUSED)
{
        BUF_AT_END struct buf text = BUF_INIT(1 << 20);
        struct done d = { 0 }, copy = { 0 };
        struct random r;

        random_init(&r, 11);
        for (uint64_t open = 2; open < 2000; open *= 3) {
                begin(&d);
                finish_most(&d, &r, 24000, open);
                assert_true(written(&d, DONE_TEXT_MOST, &text) > 0);
                assert_true(done_read(&copy, BASE, buf_view(&text)));
                assert_like_model(&copy);
        }
        /* one that is stuck, and half a million behind it */
        done_clear(&d);
        done_add(&d, BASE + 1, BASE + 500000);
        assert_true(written(&d, 64, &text) > 0);
        assert_true(done_read(&copy, BASE, buf_view(&text)));
        assert_int_equal(done_until(&copy, BASE + 1), BASE + 500000);
        done_clear(&d);
        done_clear(&copy);
}

/* What finds no room comes again; nothing is said to be done that is not. */
static void what_is_too_much_is_cut(void **state UNUSED)
{
        static const size_t rooms[] = { 0, 7, 20, 40, 64, 100, 1000, DONE_TEXT_MOST };
        BUF_AT_END struct buf text = BUF_INIT(1 << 20);
        struct done d = { 0 }, copy = { 0 };

        begin(&d);
        for (int64_t o = 1; o + 1 < SPAN; o += 2)
                add(&d, o, o + 1);
        for (size_t i = 0; i < COUNT_OF(rooms); i++) {
                int64_t end;

                if (!written(&d, rooms[i], &text))
                        continue;
                assert_true(rooms[i] >= 40);
                assert_true(done_read(&copy, BASE, buf_view(&text)));
                for (end = 1; done_has(&copy, BASE + end); end += 2)
                        assert_false(done_has(&copy, BASE + end + 1));
                assert_true(end > (int64_t)rooms[i]);
                for (int64_t o = end; o < SPAN; o++)
                        assert_false(done_has(&copy, BASE + o));
        }
        assert_true(done_has(&copy, BASE + 24001)); /* all of DONE_TEXT_MOST is put to use */
        done_clear(&d);
        done_clear(&copy);
}

static void what_others_wrote_says_nothing(void **state UNUSED)
{
        static const char *const foreign[] = {
                "", "sluice:", "sluice:AAAA", "sluice:not Base64", "NO_METADATA", "{\"a\":1}", "AQEBAQEB",
        };
        BUF_AT_END struct buf text = BUF_INIT(65536);
        struct done d = { 0 }, copy = { 0 };

        for (size_t i = 0; i < COUNT_OF(foreign); i++) {
                assert_false(done_read(&copy, BASE, str_of(foreign[i])));
                assert_int_equal(copy.n, 0);
        }
        done_add(&d, BASE + 3, BASE + 9);
        done_add(&d, BASE + 11, BASE + 12);
        assert_true(written(&d, DONE_TEXT_MOST, &text) > 0);
        assert_false(done_read(&copy, BASE + 1, buf_view(&text))); /* of another offset */
        for (size_t n = 0; n < text.n; n++)
                assert_false(done_read(&copy, BASE, (struct str){ text.p, n }));
        for (size_t i = 0; i < text.n * 8; i++) {
                BUF_AT_END struct buf damaged = BUF_INIT(65536);

                buf_str(&damaged, buf_view(&text));
                damaged.p[i / 8] = (char)(damaged.p[i / 8] ^ 1 << (i & 7));
                if (done_read(&copy, BASE, buf_view(&damaged))) /* Base64 has bits that say nothing */
                        assert_true(copy.n == 2 && copy.runs[0].from == BASE + 3 &&
                                    copy.runs[1].to == BASE + 12);
                else
                        assert_int_equal(copy.n, 0);
        }
        assert_true(done_read(&copy, BASE, buf_view(&text)));
        done_clear(&copy);
        done_clear(&d);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(what_is_done_is_known),
                cmocka_unit_test(it_ends_where_the_first_gap_is),
                cmocka_unit_test(all_of_it_comes_back),
                cmocka_unit_test(what_is_too_much_is_cut),
                cmocka_unit_test(what_others_wrote_says_nothing),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
