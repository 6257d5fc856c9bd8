#include "http/server/hello.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "base/buf.h"

static void record(struct buf *b, uint8_t type, struct str bytes, size_t piece)
{
        while (bytes.n) {
                size_t n = MIN_OF(piece, bytes.n);

                buf_char(b, (char)type);
                buf_add(b, "\x03\x03", 2);
                buf_char(b, (char)(n >> 8));
                buf_char(b, (char)n);
                buf_add(b, bytes.p, n);
                bytes = (struct str){ bytes.p + n, bytes.n - n };
        }
}

/* So much of a message as there is, whatever its head says. */
static void message(struct buf *b, uint8_t type, size_t says, size_t has, size_t piece)
{
        BUF_AT_END struct buf m = BUF_INIT(1 << 20);

        buf_char(&m, (char)type);
        buf_char(&m, (char)(says >> 16));
        buf_char(&m, (char)(says >> 8));
        buf_char(&m, (char)says);
        while (has--)
                buf_char(&m, 1);
        record(b, 22, buf_view(&m), piece);
}

/* At which byte it does not pass; SIZE_MAX: all pass, however they are cut. */
static size_t refused_at(const struct buf *b, bool older)
{
        size_t found[3];

        for (size_t i = 0; i < COUNT_OF(found); i++) {
                size_t step = i == 0 ? 1 : i == 1 ? 7 : b->n;
                struct hello h = { 0 };

                found[i] = SIZE_MAX;
                for (size_t at = 0; at < b->n && found[i] == SIZE_MAX; at += step)
                        if (!hello_passes(&h, (struct str){ b->p + at, MIN_OF(step, b->n - at) }, older))
                                found[i] = at;
        }
        assert_int_equal(found[0] == SIZE_MAX, found[1] == SIZE_MAX);
        assert_int_equal(found[0] == SIZE_MAX, found[2] == SIZE_MAX);
        return found[0];
}

static void hellos_up_to_the_limit_pass(void **state)
{
        static const size_t pieces[] = { 1, 3, 500, 16384 };

        (void)state;
        for (size_t i = 0; i < COUNT_OF(pieces); i++) {
                BUF_AT_END struct buf b = BUF_INIT(1 << 20);

                message(&b, 1, 517, 517, pieces[i]);
                message(&b, 1, HELLO_MOST, HELLO_MOST, pieces[i]); /* after a HelloRetryRequest */
                assert_int_equal(refused_at(&b, false), SIZE_MAX);
                message(&b, 1, HELLO_MOST + 1, 0, pieces[i]);
                assert_int_equal(refused_at(&b, false), b.n - 1);
        }
}

static void its_length_is_enough(void **state)
{
        BUF_AT_END struct buf b = BUF_INIT(1 << 20), split = BUF_INIT(1 << 20);

        (void)state;
        message(&b, 1, 131072, 0, 16384);
        assert_int_equal(refused_at(&b, false), 8);
        message(&split, 1, 131072, 0, 1);
        assert_int_equal(refused_at(&split, false), 23);
}

static void a_second_one_counts_behind_a_change(void **state)
{
        BUF_AT_END struct buf b = BUF_INIT(1 << 20);

        (void)state;
        message(&b, 1, 200, 200, 16384);
        record(&b, 20, STR("\x01"), 1);
        message(&b, 1, 131072, 0, 16384);
        assert_int_equal(refused_at(&b, false), b.n - 1);
        /* of TLS 1.2 what follows is encrypted, and may look like anything */
        assert_int_equal(refused_at(&b, true), SIZE_MAX);
}

static void what_is_encrypted_or_no_hello_passes(void **state)
{
        BUF_AT_END struct buf b = BUF_INIT(1 << 20), other = BUF_INIT(1 << 20);

        (void)state;
        message(&b, 1, 200, 200, 16384);
        record(&b, 23, STR("\x01\x7f\xff\xff\x01\x7f\xff\xff"), 16384);
        message(&b, 1, 131072, 0, 16384);
        assert_int_equal(refused_at(&b, false), SIZE_MAX);
        message(&other, 1, 200, 200, 16384);
        message(&other, 16, 70, 70, 16384);
        message(&other, 1, 131072, 0, 16384);
        assert_int_equal(refused_at(&other, true), SIZE_MAX);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(hellos_up_to_the_limit_pass),
                cmocka_unit_test(its_length_is_enough),
                cmocka_unit_test(a_second_one_counts_behind_a_change),
                cmocka_unit_test(what_is_encrypted_or_no_hello_passes),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
