#include "worker/routes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/random.h"
#include "base/uri.h"

enum { ROUTES = 200 };

static struct routes routes;
static struct named {
        struct route route;
        char literal[64];
        bool found;
} all[ROUTES];
static size_t all_n, asked;

static void add(const char *literal)
{
        struct named *n = &all[all_n++];
        struct error err;

        (void)snprintf(n->literal, sizeof(n->literal), "%s", literal);
        assert_int_equal(routes_add(&routes, &n->route, str_of(n->literal), &err), 0);
}

static int clear(void **state UNUSED)
{
        for (size_t i = 0; i < all_n; i++)
                routes_remove(&routes, &all[i].route);
        assert_int_equal(routes.n, 0);
        assert_null(routes.places);
        memset(all, 0, sizeof(all));
        all_n = 0;
        return 0;
}

static bool on_found(void *cookie UNUSED, struct route *r)
{
        struct named *n = CONTAINER_OF(r, struct named, route);

        assert_false(n->found); /* once */
        n->found = true;
        asked++;
        return true;
}

/* Those found for a path, by their literals, in the order in which they were added. */
static void find(const char *path, struct buf *out)
{
        asked = 0;
        buf_reset(out);
        routes_each(&routes, str_of(path), on_found, NULL);
        for (size_t i = 0; i < all_n; i++)
                if (all[i].found) {
                        buf_printf(out, "%s ", all[i].literal);
                        all[i].found = false;
                }
}

static void expect(const char *path, const char *found)
{
        BUF_AT_END struct buf out = BUF_INIT(65536);

        find(path, &out);
        assert_string_equal(out.n ? out.p : "", found);
}

static void beginnings_are_whole_segments(void **state UNUSED)
{
        add("/");
        add("/orders");
        add("/orders/open/");
        add("/order");
        add("/shop/orders");
        add("/caf%c3%a9");
        expect("/", "/ ");
        expect("/orders", "/ /orders ");
        expect("/orders/", "/ /orders ");
        expect("/orders/7", "/ /orders ");
        expect("/orders/open", "/ /orders /orders/open/ ");
        expect("/orders/open/x/y/z", "/ /orders /orders/open/ ");
        expect("/ordersx", "/ ");
        expect("/shop", "/ ");
        expect("/shop/orders", "/ /shop/orders ");
        expect("/caf%C3%A9/x", "/ /caf%c3%a9 ");
        expect("", "/ ");
        expect("//orders", "/ ");
}

static void one_that_is_removed_is_not_found(void **state UNUSED)
{
        add("/a");
        add("/a");
        add("/a/b");
        routes_remove(&routes, &all[0].route);
        expect("/a/b", "/a /a/b ");
        routes_remove(&routes, &all[1].route);
        routes_remove(&routes, &all[1].route);
        expect("/a/b", "/a/b ");
        assert_int_equal(routes.n, 1);
}

static void few_are_asked_of_many(void **state UNUSED)
{
        char literal[64];

        for (int i = 0; i < ROUTES; i++) {
                (void)snprintf(literal, sizeof(literal), "/shop/trigger-%d", i);
                add(literal);
        }
        expect("/shop/trigger-117", "/shop/trigger-117 ");
        assert_int_equal(asked, 1);
}

/* What a path has in common with a route by asking each is found in its place. */
static void no_route_is_missed(void **state UNUSED)
{
        static const char *const words[] = { "a", "b", "a%2Fb", "", "aa" };
        struct random random;

        random_init(&random, 7);
        for (int i = 0; i < ROUTES; i++) {
                BUF_AT_END struct buf literal = BUF_INIT(256);

                for (uint64_t n = random_next(&random) % 4; n; n--)
                        buf_printf(&literal, "/%s", words[random_next(&random) % COUNT_OF(words)]);
                buf_text(&literal, literal.n ? "" : "/");
                add(literal.p);
        }
        for (int i = 0; i < 2000; i++) {
                BUF_AT_END struct buf path = BUF_INIT(256);

                for (uint64_t n = random_next(&random) % 6; n; n--)
                        buf_printf(&path, "/%s", words[random_next(&random) % COUNT_OF(words)]);
                buf_text(&path, path.n ? "" : "/");
                routes_each(&routes, buf_view(&path), on_found, NULL);
                for (size_t j = 0; j < all_n; j++) {
                        struct str literal = str_of(all[j].literal);

                        while (literal.n && literal.p[literal.n - 1] == '/')
                                literal.n--;
                        if (str_starts(buf_view(&path), literal) &&
                            (path.n == literal.n || path.p[literal.n] == '/') && !all[j].found)
                                fail_msg("%s is not found for %s", all[j].literal, path.p);
                        all[j].found = false;
                }
        }
}

static void a_path_of_many_segments_costs_little(void **state UNUSED)
{
        BUF_AT_END struct buf path = BUF_INIT(65536);

        add("/a/b/c");
        for (int i = 0; i < 16000; i++)
                buf_text(&path, "/x");
        expect(path.p, "");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(beginnings_are_whole_segments, clear),
                cmocka_unit_test_teardown(one_that_is_removed_is_not_found, clear),
                cmocka_unit_test_teardown(few_are_asked_of_many, clear),
                cmocka_unit_test_teardown(no_route_is_missed, clear),
                cmocka_unit_test_teardown(a_path_of_many_segments_costs_little, clear),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
