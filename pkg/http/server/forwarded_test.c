#include "http/server/forwarded.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "http/wire/codec.h"

static void addresses(void **state UNUSED)
{
        static const struct {
                const char *text, *address;
        } all[] = {
                { "192.0.2.1", "192.0.2.1" },
                { "192.0.2.1:80", "192.0.2.1" },
                { "192.0.2.1:0", "192.0.2.1" },
                { "2001:DB8::1", "2001:db8::1" },
                { "[2001:db8::1]", "2001:db8::1" },
                { "[2001:db8::1]:443", "2001:db8::1" },
                { "::1", "::1" },
                { "::ffff:192.0.2.1", "192.0.2.1" },
                { "[::ffff:192.0.2.1]:1", "192.0.2.1" },
                { "", NULL },
                { "unknown", NULL },
                { "_hidden", NULL },
                { "192.0.2", NULL },
                { "192.0.2.256", NULL },
                { "192.0.2.1:", NULL },
                { "192.0.2.1:x", NULL },
                { "192.0.2.1:65536", NULL },
                { "192.0.2.1:-1", NULL },
                { "[192.0.2.1]", NULL },
                { "[::1", NULL },
                { "[::1]x", NULL },
                { "[::1]:", NULL },
                { "[]", NULL },
                { "[", NULL },
                { ":", NULL },
                { "::1:2:3:4:5:6:7:8:9", NULL },
                { "\"192.0.2.1\"", NULL },
                { "192.0.2.1 ", NULL },
                { "fe80::1%eth0", NULL },
                { "0192.0.2.1", NULL },
        };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                BUF_AT_END struct buf out = BUF_INIT(100);
                uint8_t address[16];
                bool good = address_parse(str_of(all[i].text), address);

                if (good)
                        address_format(&out, address);
                if (good != (all[i].address != NULL) || (good && !string_equal(out.p, all[i].address)))
                        fail_msg("\"%s\" is \"%s\"", all[i].text, good ? out.p : "none");
        }
}

static void networks(void **state UNUSED)
{
        static const struct {
                const char *network, *address;
                bool has;
        } all[] = {
                { "10.0.0.0/8", "10.255.0.1", true },
                { "10.0.0.0/8", "11.0.0.1", false },
                { "10.0.0.0/8", "::ffff:10.1.1.1", true },
                { "0.0.0.0/0", "192.0.2.1", true },
                { "0.0.0.0/0", "::1", false },
                { "192.0.2.1", "192.0.2.1", true },
                { "192.0.2.1", "192.0.2.2", false },
                { "192.0.2.0/31", "192.0.2.1", true },
                { "192.0.2.0/31", "192.0.2.2", false },
                { "fd00::/8", "fd12::1", true },
                { "fd00::/8", "fc12::1", false },
                { "::/0", "192.0.2.1", true },
                { "::1", "::1", true },
                { "100.64.0.0/10", "100.127.255.255", true },
                { "100.64.0.0/10", "100.128.0.0", false },
                { "::ffff:10.0.0.0/104", "10.1.1.1", true },
        };
        static const char *const bad[] = {
                "",       "x",        "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/8/8",
                "::/129", "10.0.0/8", "[::1]/8"
        };
        struct network n;
        struct error err;

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                uint8_t address[16];

                assert_int_equal(network_parse(str_of(all[i].network), &n, &err), 0);
                assert_true(address_parse(str_of(all[i].address), address));
                if (network_has(&n, address) != all[i].has)
                        fail_msg("%s, %s", all[i].network, all[i].address);
        }
        for (size_t i = 0; i < COUNT_OF(bad); i++)
                if (network_parse(str_of(bad[i]), &n, &err) == 0)
                        fail_msg("\"%s\" is a network", bad[i]);
}

static void the_walk(void **state UNUSED)
{
        static const struct {
                const char *peer, *entries, *more, *client;
        } all[] = {
                /* who is not trusted may say what he wants */
                { "192.0.2.9", "198.51.100.1", NULL, "192.0.2.9" },
                { "10.0.0.1", NULL, NULL, "10.0.0.1" },
                { "10.0.0.1", "198.51.100.1", NULL, "198.51.100.1" },
                /* what stands left of it, the client made up */
                { "10.0.0.1", "203.0.113.7, 198.51.100.1", NULL, "198.51.100.1" },
                { "10.0.0.1", "203.0.113.7, 198.51.100.1, 10.0.0.2,fd00::3", NULL, "198.51.100.1" },
                /* all are trusted: the first */
                { "10.0.0.1", "10.0.0.4, 10.0.0.3", NULL, "10.0.0.4" },
                /* several headers are one list */
                { "10.0.0.1", "198.51.100.1", "10.0.0.2", "198.51.100.1" },
                { "10.0.0.1", "198.51.100.1", "203.0.113.7", "203.0.113.7" },
                { "10.0.0.1", "198.51.100.1, unknown", NULL, "10.0.0.1" },
                { "10.0.0.1", "198.51.100.1, unknown, 10.0.0.2", NULL, "10.0.0.2" },
                { "10.0.0.1", "198.51.100.1,, 10.0.0.2", NULL, "10.0.0.2" },
                { "10.0.0.1", "", NULL, "10.0.0.1" },
                { "10.0.0.1", "[2001:db8::5]:4711", NULL, "2001:db8::5" },
                { "fd00::1", "::ffff:198.51.100.1", NULL, "198.51.100.1" },
        };
        struct network trusted[2];
        struct error err;

        assert_int_equal(network_parse(STR("10.0.0.0/8"), &trusted[0], &err), 0);
        assert_int_equal(network_parse(STR("fd00::/8"), &trusted[1], &err), 0);
        for (size_t i = 0; i < COUNT_OF(all); i++) {
                BUF_AT_END struct buf out = BUF_INIT(100), head = BUF_INIT(1000);
                struct http_message m = { 0 };
                uint8_t address[16];

                buf_add(&head, "Other\0x", 8);
                for (int j = 0; j < 2; j++)
                        if (j ? all[i].more : all[i].entries) {
                                buf_add(&head, "X-Forwarded-For", 16);
                                buf_add(&head, j ? all[i].more : all[i].entries,
                                        strlen(j ? all[i].more : all[i].entries) + 1);
                        }
                m.head = head;
                assert_true(address_parse(str_of(all[i].peer), address));
                forwarded_client(&m, trusted, 2, address);
                address_format(&out, address);
                if (!string_equal(out.p, all[i].client))
                        fail_msg("%s: %s, %s: %s", all[i].peer, all[i].entries, all[i].more, out.p);
        }
}

static void protocols(void **state UNUSED)
{
        static const struct {
                const char *head;
                size_t n;
                bool https;
        } all[] = {
                { "", 0, false },
                { "X-Forwarded-Proto\0https", 24, true },
                { "x-forwarded-proto\0HTTPS", 24, true },
                { "X-Forwarded-Proto\0http", 23, false },
                { "X-Forwarded-Proto\0http, https", 30, true },
                { "X-Forwarded-Proto\0https, http", 30, false },
                { "X-Forwarded-Proto\0https\0X-Forwarded-Proto\0http", 47, false },
        };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                struct http_message m = { .head = { .p = (char *)(uintptr_t)all[i].head, .n = all[i].n } };

                assert_int_equal(forwarded_https(&m), all[i].https);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(addresses),
                cmocka_unit_test(networks),
                cmocka_unit_test(the_walk),
                cmocka_unit_test(protocols),
        };
        return cmocka_run_group_tests_name("forwarded", tests, NULL, NULL);
}
