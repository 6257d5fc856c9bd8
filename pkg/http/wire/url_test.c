#include "http/wire/url.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void urls_are_taken_apart(void **state UNUSED)
{
        static const struct {
                const char *text;
                bool tls;
                const char *host;
                unsigned port;
                const char *target, *authority;
        } all[] = {
                ROW("http://a", false, "a", 80, "/", "a"),
                ROW("https://a/", true, "a", 443, "/", "a"),
                ROW("http://a:8080/x?y=1:2@3", false, "a", 8080, "/x?y=1:2@3", "a:8080"),
                ROW("https://orders.shop.svc:65535//x", true, "orders.shop.svc", 65535, "//x",
                    "orders.shop.svc:65535"),
                ROW("http://[::1]", false, "::1", 80, "/", "[::1]"),
                ROW("http://[fe80::1]:1/p", false, "fe80::1", 1, "/p", "[fe80::1]:1"),
                ROW("http://127.0.0.1:80/?", false, "127.0.0.1", 80, "/?", "127.0.0.1:80"),
                ROW("http://a:/", false, "a", 80, "/", "a:"),
        };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                struct error err;
                struct url u;

                if (url_parse(str_of(all[i].text), &u, &err) < 0)
                        fail_msg("%s", err.text);
                assert_int_equal(u.tls, all[i].tls);
                assert_true(str_is(u.host, all[i].host));
                assert_int_equal(u.port, all[i].port);
                assert_true(str_is(u.target, all[i].target));
                assert_true(str_is(u.authority, all[i].authority));
        }
}

static void what_is_no_url_is_refused(void **state UNUSED)
{
        static const char *const all[] = {
                "",
                "a",
                "http:/a",
                "http://",
                "http:///x",
                "ftp://a",
                "HTTP://a",
                "http://a b",
                "http://a/\n",
                "http://a/\x7f",
                "http://user@a",
                "http://user:pw@a/",
                "http://a:0",
                "http://a:65536",
                "http://a:x",
                "http://a:80:80",
                "http://a:-1",
                "http://[::1",
                "http://[::1]x",
                "http://[]",
                "http://:80",
                "http://a?x",
                "http://a/x#y",
                "http://a#y",
        };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                struct error err = { 0 };
                struct url u = { .port = 42 };
                FREE_AT_END char *named = str_dup(str_of(all[i]));

                if (url_parse(str_of(all[i]), &u, &err) == 0)
                        fail_msg("\"%s\" was taken", all[i]);
                assert_int_equal(err.kind, ERROR_INVALID);
                text_plain(named);
                assert_non_null(strstr(err.text, named));
                assert_int_equal(u.port, 42);
        }
}

static void a_host_has_a_length(void **state UNUSED)
{
        char text[300] = "http://";
        struct error err;
        struct url u;

        memset(text + 7, 'a', 253);
        assert_int_equal(url_parse(str_of(text), &u, &err), 0);
        text[7 + 253] = 'a';
        assert_int_equal(url_parse(str_of(text), &u, &err), -1);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(urls_are_taken_apart),
                cmocka_unit_test(what_is_no_url_is_refused),
                cmocka_unit_test(a_host_has_a_length),
        };
        return cmocka_run_group_tests_name("url", tests, NULL, NULL);
}
