/* Calls to URLs that come from outside: what may be called is, and nothing else, however it is written and
 * whatever the names lead to. */
#include <curl/curl.h>

#include "http/client/fetch.h"
#include "http/client/testing.h"
#include "tests/support/dns.h"

static struct test_dns dns;
static struct fetch_client *fetches;
static struct fetch fetch;
static struct task fetch_wake;
static struct fetch_request last;
static size_t completions;

static void on_fetched(struct task *t UNUSED, usec now UNUSED) { completions += request_take(&last.request); }

static int setup(void **state UNUSED)
{
        struct error err;

        if (client_setup() < 0)
                return -1;
        test_dns_open(&dns, loop);
        completions = 0;
        server_listen(&server, "127.0.0.1", 0);
        fetch_wake = (struct task){ .turn = on_fetched };
        if (fetch_client_new(&fetches, loop, &err) < 0 || fetch_client_use_servers(fetches, dns.at, &err) < 0)
                return -1;
        fetch = fetch_client_port(fetches);
        return 0;
}

static int teardown(void **state UNUSED)
{
        fetch_release(&fetch, &last);
        fetches = fetch_client_free(fetches);
        loop_forget(loop, &fetch_wake);
        test_dns_close(&dns);
        return client_teardown();
}

static size_t awaited;
static bool came(void) { return completions >= awaited; }

static int submit_last(const struct fetch_request *q, struct error *err)
{
        fetch_release(&fetch, &last);
        last = *q;
        last.request.wake = &fetch_wake;
        return fetch_submit(&fetch, &last, err);
}

/* "" or why it may not be called. */
static const char *call(const struct fetch_request *q)
{
        static struct error err;

        awaited = completions + 1;
        if (submit_last(q, &err) < 0)
                return err.text;
        run_until(came);
        return request_failed(&last.request) ? last.request.error.text : "";
}

static char here[64]; /* HOST:PORT of the server, by a name */
static const char *const *hosts(const char *scheme)
{
        static const char *list[2];
        static char text[80];

        (void)snprintf(here, sizeof(here), "store.test:%u", server.port);
        (void)snprintf(text, sizeof(text), "%s%s", scheme, here);
        list[0] = text;
        return list;
}

static void a_host_that_is_allowed_is_called(void **state UNUSED)
{
        const char *const *allowed = hosts("http://");
        char text[128];
        struct fetch_request q = {
                .hosts = allowed, .inside = allowed, .timeout = 5 * USEC_SEC, .answer_max = 10
        };

        (void)snprintf(text, sizeof(text), "http://%s/a?b", here);
        q.url = str_of(text);
        dns.a[0] = "127.0.0.9"; /* nobody listens there: the next one is called */
        dns.a[1] = "127.0.0.1";
        assert_string_equal(call(&q), "");
        assert_int_equal(last.status, 200);
        assert_string_equal(buf_view(&last.answer).p, "ok");
        assert_string_equal(server.calls[0].path, "/a?b");
        q.answer_max = 1;
        assert_non_null(strstr(call(&q), "longer"));
}

static void a_redirect(struct call *c) { reply(c, 302, "Location: /elsewhere\r\n", STR("")); }

static void redirects_are_not_followed(void **state UNUSED)
{
        const char *const *allowed = hosts("http://");
        char text[128];
        struct fetch_request q = {
                .hosts = allowed, .inside = allowed, .timeout = 5 * USEC_SEC, .answer_max = 10
        };

        (void)snprintf(text, sizeof(text), "http://%s/", here);
        q.url = str_of(text);
        dns.a[0] = "127.0.0.1";
        server.handle = a_redirect;
        assert_string_equal(call(&q), "");
        assert_int_equal(last.status, 302);
        assert_int_equal(server.calls_n, 1);
}

/* Each must be refused without a question, let alone a call. */
static const char *const forbidden_urls[] = {
        "http://smn.cn-north-1.myhuaweicloud.com/a.pem",
        "HTTPS://smn.cn-north-1.myhuaweicloud.com/a.pem",
        "https:smn.cn-north-1.myhuaweicloud.com/a.pem",
        "//smn.cn-north-1.myhuaweicloud.com/a.pem",
        "ftp://smn.cn-north-1.myhuaweicloud.com/a.pem",
        "file:///etc/passwd",
        "https://smn.cn-north-1.myhuaweicloud.com:8443/a.pem",
        "https://smn.cn-north-1.myhuaweicloud.com:0443/a.pem",
        "https://smn.cn-north-1.myhuaweicloud.com:/a.pem",
        "https://smn.cn-north-1.myhuaweicloud.com:443:80/a.pem",
        "https://smn.cn-north-1.myhuaweicloud.com./a.pem",
        "https://.smn.cn-north-1.myhuaweicloud.com/a.pem",
        "https://smn..cn-north-1.myhuaweicloud.com/a.pem",
        "https://smn.cn-north-1.myhuaweicloud.com.evil.test/a.pem",
        "https://evilsmn.cn-north-1.myhuaweicloud.com/a.pem",
        "https://smn.cn-north-2.myhuaweicloud.com/a.pem",
        "https://smn-cn-north-1.myhuaweicloud.com/a.pem",
        "https://user@smn.cn-north-1.myhuaweicloud.com/a.pem",
        "https://smn.cn-north-1.myhuaweicloud.com@127.0.0.1/a.pem",
        "https://smn.cn-north-1.myhuaweicloud.com:443@127.0.0.1/a.pem",
        "https://smn.cn-north-1.myhuaweicloud.com%40127.0.0.1/a.pem",
        "https://smn%2ecn-north-1.myhuaweicloud.com/a.pem",
        "https://smn.cn-north-1.myhuaweicloud.com\\@127.0.0.1/a.pem",
        "https://127.0.0.1\\.smn.cn-north-1.myhuaweicloud.com/a.pem",
        "https:\\\\smn.cn-north-1.myhuaweicloud.com\\a.pem",
        "https://smn.cn-north-1.myhuaweicloud.com#@127.0.0.1/a.pem",
        "https://smn.cn-north-1.myhuaweicloud.com?@127.0.0.1/a.pem",
        "https://smn.cn-north-1.myhuaweicloud.com/a.pem#fragment",
        "https://127.0.0.1#smn.cn-north-1.myhuaweicloud.com/a.pem",
        "https://127.0.0.1/?smn.cn-north-1.myhuaweicloud.com/a.pem",
        "https://smn.cn-north-1.myhuaweicloud.com\t/a.pem",
        "https://smn.cn-north-1.myhuawei\tcloud.com/a.pem",
        "https://smn.cn-north-1.myhuaweicloud.com/a.pem\r\nHost: evil.test",
        " https://smn.cn-north-1.myhuaweicloud.com/a.pem",
        "https://127.0.0.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[::ffff:7f00:1%25lo]/",
        "https://localhost/",
        "https://localhost./",
        "https://wild.test/",
        "https://a.b.wild.test/",
        "https://.wild.test/",
        "https://a.wild.test./",
        "https://other.test/",
        "https://other.test:443/",
        "https://smn.cn-north-1.myhuaweicloud\xe3\x80\x82/",
        "https://\xef\xbd\x93mn.cn-north-1.myhuaweicloud.com/",
        "https://",
        "",
};

static void forbidden_urls_are_refused(void **state UNUSED)
{
        static const char *const allowed[] = { "smn.cn-north-1.myhuaweicloud.com", "*.wild.test",
                                               "other.test:8443", NULL };
        static char long_url[10000];

        for (size_t i = 0; i < COUNT_OF(forbidden_urls); i++) {
                struct fetch_request q = { .url = str_of(forbidden_urls[i]),
                                           .hosts = allowed,
                                           .inside = allowed,
                                           .timeout = USEC_SEC,
                                           .answer_max = 10 };
                struct error err;

                if (fetch_submit(&fetch, &q, &err) == 0)
                        fail_msg("it would be called: %s", forbidden_urls[i]);
        }
        memset(long_url, 'a', sizeof(long_url) - 1);
        memcpy(long_url, "https://a.wild.test/", 20);
        {
                struct fetch_request q = {
                        .url = str_of(long_url), .hosts = allowed, .timeout = USEC_SEC, .answer_max = 10
                };
                struct error err;

                assert_int_equal(fetch_submit(&fetch, &q, &err), -1);
        }
        assert_int_equal(dns.questions, 0);
}

/* Names are compared without regard to case; that is how names are. */
static void what_is_allowed_is_found(void **state UNUSED)
{
        static const char *const allowed[] = { "smn.cn-north-1.myhuaweicloud.com", "*.wild.test",
                                               "other.test:8443", "http://plain.test:80", NULL };

        assert_true(fetch_host_allowed(STR("smn.cn-north-1.myhuaweicloud.com"), true, allowed));
        assert_true(fetch_host_allowed(STR("SMN.cn-north-1.MyHuaweiCloud.com:443"), true, allowed));
        assert_true(fetch_host_allowed(STR("a.wild.test"), true, allowed));
        assert_true(fetch_host_allowed(STR("other.test:8443"), true, allowed));
        assert_true(fetch_host_allowed(STR("plain.test:80"), false, allowed));
        assert_false(fetch_host_allowed(STR("plain.test:80"), true, allowed));
        assert_false(fetch_host_allowed(STR("smn.cn-north-1.myhuaweicloud.com"), false, allowed));
        assert_false(fetch_host_allowed(STR("a.wild.test"), true, NULL));
}

static void inside_addresses_are_not_called(void **state UNUSED)
{
        static const char *const inside4[] = { "127.0.0.1",       "127.1.2.3",      "10.0.0.1",
                                               "172.16.0.1",      "172.31.255.255", "192.168.1.1",
                                               "169.254.169.254", "100.64.0.1",     "100.100.100.200",
                                               "0.0.0.0",         "224.0.0.1",      "255.255.255.255",
                                               "192.0.0.1",       "198.18.0.1",     "192.0.2.1",
                                               "198.51.100.1",    "203.0.113.1",    "240.0.0.1" };
        static const char *const inside6[] = { "::",
                                               "::1",
                                               "::ffff:127.0.0.1",
                                               "::ffff:10.0.0.1",
                                               "::127.0.0.1",
                                               "64:ff9b::127.0.0.1",
                                               "64:ff9b:1::a00:1",
                                               "fe80::1",
                                               "fc00::1",
                                               "fd12::1",
                                               "fec0::1",
                                               "ff02::1",
                                               "2002:7f00:1::1",
                                               "2001:0:7f00:1::1",
                                               "2001:db8::1",
                                               "3fff::1",
                                               "100::1",
                                               "5f00::1" };
        static const char *const allowed[] = { "inside.test", NULL };
        struct fetch_request q = { .url = STR("https://inside.test/"),
                                   .hosts = allowed,
                                   .timeout = 5 * USEC_SEC,
                                   .answer_max = 10 };

        for (size_t i = 0; i < COUNT_OF(inside4) + COUNT_OF(inside6); i++) {
                memset(dns.a, 0, sizeof(dns.a));
                memset(dns.aaaa, 0, sizeof(dns.aaaa));
                *(i < COUNT_OF(inside4) ? &dns.a[0]
                                        : &dns.aaaa[0]) = i < COUNT_OF(inside4)
                                                                  ? inside4[i]
                                                                  : inside6[i - COUNT_OF(inside4)];
                if (!strstr(call(&q), "may not be called"))
                        fail_msg("%s: %s", dns.a[0] ? dns.a[0] : dns.aaaa[0],
                                 request_failed(&last.request) ? last.request.error.text : "was called");
        }
        assert_int_equal(server.peers_n, 0);
        assert_true(fetch_address_public("93.184.216.34"));
        assert_true(fetch_address_public("2606:2800:220:1:248:1893:25c8:1946"));
        assert_false(fetch_address_public("no address"));
        assert_false(fetch_address_public("127.1"));
        assert_false(fetch_address_public("2130706433"));
}

/* The address that was looked at is the one that is called: nobody asks twice. */
static void a_name_that_changes_gains_nothing(void **state UNUSED)
{
        static const char *list[2], *none[1];
        char text[128];
        struct fetch_request q = {
                .hosts = list, .inside = none, .timeout = 300 * USEC_MSEC, .answer_max = 10
        };

        list[0] = hosts("http://")[0];
        (void)snprintf(text, sizeof(text), "http://%s/", here);
        q.url = str_of(text);
        dns.a[0] = "203.0.114.1"; /* public, and nobody's here */
        dns.then = "127.0.0.1";
        assert_true(call(&q)[0]);
        assert_int_equal(server.peers_n, 0);
        assert_int_equal(dns.questions, 1);
        assert_non_null(strstr(call(&q), "may not be called")); /* asked anew */
        assert_int_equal(server.peers_n, 0);
}

static void a_silent_name_server_does_not_hold_it_up(void **state UNUSED)
{
        static const char *const allowed[] = { "silent.test", NULL };
        struct fetch_request q = { .url = STR("https://silent.test/"),
                                   .hosts = allowed,
                                   .timeout = 200 * USEC_MSEC,
                                   .answer_max = 10 };
        usec began = clock_monotonic(&system_clock);

        dns.silent = true;
        assert_non_null(strstr(call(&q), "no answer in time"));
        assert_int_equal(last.request.error.kind, ERROR_TIMEOUT);
        assert_in_range(clock_monotonic(&system_clock) - began, 150 * USEC_MSEC, 1500 * USEC_MSEC);
}

static void an_address_is_asked_of_no_name_server(void **state UNUSED)
{
        char text[80], host[64];
        const char *allowed[] = { host, NULL }, *nowhere[] = { NULL };
        struct fetch_request q = {
                .hosts = allowed, .inside = allowed, .timeout = 5 * USEC_SEC, .answer_max = 10
        };

        (void)snprintf(host, sizeof(host), "http://127.0.0.1:%u", server.port);
        (void)snprintf(text, sizeof(text), "%s/", host);
        q.url = str_of(text);
        dns.silent = true;
        assert_string_equal(call(&q), "");
        assert_int_equal(last.status, 200);
        q.inside = nowhere; /* and it is looked at as a name's is */
        assert_non_null(strstr(call(&q), "may not be called"));
        assert_int_equal(dns.questions, 0);
        assert_int_equal(server.peers_n, 1);
}

static void a_call_can_be_cancelled(void **state UNUSED)
{
        static const char *const allowed[] = { "silent.test", NULL };
        struct fetch_request q = {
                .url = STR("https://silent.test/"), .hosts = allowed, .timeout = USEC_SEC, .answer_max = 10
        };
        struct error err;

        dns.silent = true;
        assert_int_equal(submit_last(&q, &err), 0);
        fetch_release(&fetch, &last);
        assert_true(request_idle(&last.request));
        q.timeout = 100 * USEC_MSEC;
        assert_non_null(strstr(call(&q), "no answer in time"));
        assert_int_equal(completions, 1);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(a_host_that_is_allowed_is_called, setup, teardown),
                cmocka_unit_test_setup_teardown(redirects_are_not_followed, setup, teardown),
                cmocka_unit_test_setup_teardown(forbidden_urls_are_refused, setup, teardown),
                cmocka_unit_test_setup_teardown(what_is_allowed_is_found, setup, teardown),
                cmocka_unit_test_setup_teardown(inside_addresses_are_not_called, setup, teardown),
                cmocka_unit_test_setup_teardown(a_name_that_changes_gains_nothing, setup, teardown),
                cmocka_unit_test_setup_teardown(a_silent_name_server_does_not_hold_it_up, setup, teardown),
                cmocka_unit_test_setup_teardown(an_address_is_asked_of_no_name_server, setup, teardown),
                cmocka_unit_test_setup_teardown(a_call_can_be_cancelled, setup, teardown),
        };
        int result;

        filter_tests();
        result = cmocka_run_group_tests_name("fetch", tests, NULL, NULL);
        curl_global_cleanup();
        return result;
}
