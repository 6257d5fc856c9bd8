#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/uri.h"

static void expect(const char *path, struct str (*of)(struct str, struct buf *), const char *expected)
{
        BUF_AT_END struct buf space = BUF_INIT(65536), again = BUF_INIT(65536);
        struct str got = of(str_of(path), &space);

        if (!str_is(got, expected))
                fail_msg("%s became " STR_FMT ", expected %s", path, STR_ARG(got), expected);
        if (!str_is(of(got, &again), expected))
                fail_msg("%s: the normal form has another one", path);
}

static void what_is_equivalent_is_equal(void **state UNUSED)
{
        static const char *const table[][2] = {
                { "/", "/" },
                { "/a/b", "/a/b" },
                { "/%61dmin/us%65rs", "/admin/users" },
                { "/%7euser%2D%2e%5F", "/~user-._" },
                { "/caf%c3%a9", "/caf%C3%A9" },
                { "/a%2fb/%2F", "/a%2Fb/%2F" },
                { "/a%24%3a%3B", "/a%24%3A%3B" }, /* reserved: encoded and not are two URIs */
                { "/a$:;=@,!", "/a$:;=@,!" },
                { "/a|b\"c{d}^`<>[]\\", "/a%7Cb%22c%7Bd%7D%5E%60%3C%3E%5B%5D%5C" },
                { "/a%7cb", "/a%7Cb" },
                { "/%2541", "/%2541" },
                /* decoded once, it is the %41 that was sent */
                { "/%%341/%4/%zz/%", "/%2541/%254/%25zz/%25" },
                { "/%00%ff", "/%00%FF" },
                { "/./a/./b/.", "/a/b/" },
                { "/a/../b", "/b" },
                { "/a/%2e%2E/b", "/b" },
                { "/a/%2e/b/.%2e", "/a/" },
                { "/../../a", "/a" },
                { "/..", "/" },
                { "/a/..", "/" },
                { "/a/b/..", "/a/" },
                { "/a/..%2fb", "/a/..%2Fb" },
                { "/...", "/..." },
                { "/.a/..b", "/.a/..b" },
                { "//a//b//", "//a//b//" },
                { "/a//../b", "/a/b" },
                { "*", "*" },
                { "", "" },
        };

        for (size_t i = 0; i < COUNT_OF(table); i++)
                expect(table[i][0], uri_path, table[i][1]);
}

static void slashes_are_merged(void **state UNUSED)
{
        static const char *const table[][2] = {
                { "//a", "/a" },
                { "/a//b///c", "/a/b/c" },
                { "/a//", "/a/" },
                { "//", "/" },
                { "/a//../b", "/b" },
                { "/a/.//b", "/a/b" },
                { "/a/%2F//b", "/a/%2F/b" },
                { "/a/b", "/a/b" },
        };

        for (size_t i = 0; i < COUNT_OF(table); i++)
                expect(table[i][0], uri_path_merged, table[i][1]);
}

static void a_plain_path_costs_no_copy(void **state UNUSED)
{
        struct buf space = BUF_INIT(64);
        const struct str path = STR("/orders/17");

        assert_ptr_equal(uri_path(path, &space).p, path.p);
        assert_null(space.p);
}

static void a_path_too_long_for_the_space_is_none(void **state UNUSED)
{
        BUF_AT_END struct buf space = BUF_INIT(8);

        assert_null(uri_path(STR("/%61aaaaaaaaaaaaaaaa"), &space).p);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(what_is_equivalent_is_equal),
                cmocka_unit_test(slashes_are_merged),
                cmocka_unit_test(a_plain_path_costs_no_copy),
                cmocka_unit_test(a_path_too_long_for_the_space_is_none),
        };
        return cmocka_run_group_tests_name("uri", tests, NULL, NULL);
}
