/* Names: asked again in time, spread over, given up; with a name server of our own on loopback. All of 127/8
 * is this machine. */
#include <curl/curl.h>

#include "http/client/connection.h"
#include "http/client/testing.h"
#include "tests/support/dns.h"

static struct test_dns dns;
static struct server servers[3];

static int setup(void **state UNUSED)
{
        struct error err;

        if (client_setup() < 0)
                return -1;
        test_dns_open(&dns, loop);
        dns.ttl = 30;
        dns.a[0] = "127.0.0.1";
        if (http_client_use_servers(client, dns.at, &err) < 0)
                return -1;
        /* One port, three addresses. */
        memset(servers, 0, sizeof(servers));
        for (size_t i = 0; i < COUNT_OF(servers); i++) {
                char address[16];

                (void)snprintf(address, sizeof(address), "127.0.0.%zu", i + 1);
                servers[i].handle = answer_ok;
                server_listen(&servers[i], address, i ? servers[0].port : 0);
        }
        (void)snprintf(url, sizeof(url), "http://function.shop.test.:%u/f", servers[0].port);
        return 0;
}

static int teardown(void **state UNUSED)
{
        test_dns_close(&dns);
        for (size_t i = 0; i < COUNT_OF(servers); i++)
                server_done(&servers[i]);
        return client_teardown();
}

static void a_name_is_asked_once(void **state UNUSED)
{
        aim((struct http_target_config){ 0 });
        for (int i = 0; i < 5; i++)
                assert_false(request()->failed);
        assert_int_equal(dns.questions, 1);
        assert_int_equal(servers[0].peers_n, 1);
}

static void a_name_that_is_unknown_fails(void **state UNUSED)
{
        dns.missing = true;
        aim((struct http_target_config){ 0 });
        assert_true(request()->failed);
        assert_false(done[0].c.maybe_processed);
        assert_int_equal(done[0].c.error.kind, ERROR_UNREACHABLE);
        assert_true(done[0].c.error.elsewhere);
        assert_non_null(strstr(done[0].c.error.text, "function.shop.test"));
        dns.missing = false;
        assert_false(request()->failed);
}

static bool two_questions(void)
{
        if (done_n == wanted) {
                done_n = 0;
                wanted = 1;
                submit(0);
        }
        if (server.calls_n > CALLS / 2)
                calls_forget();
        return dns.questions >= 2;
}

static usec now(void) { return clock_monotonic(&system_clock); }

/* Asked again shortly before the answer runs out. */
static void the_time_to_live_is_honoured(void **state UNUSED)
{
        usec began = now();

        dns.ttl = 1;
        aim((struct http_target_config){ 0 });
        wanted = done_n = 0;
        run_until(two_questions);
        assert_in_range(now() - began, 500 * USEC_MSEC, 3 * USEC_SEC);
}

static bool twelve_came(void) { return server.calls_n >= 12; }

static void connections_are_spread_evenly(void **state UNUSED)
{
        dns.a[1] = "127.0.0.2";
        dns.a[2] = "127.0.0.3";
        for (size_t i = 0; i < COUNT_OF(servers); i++)
                servers[i].handle = answer_nothing;
        aim((struct http_target_config){ .max_connections = 12 });
        for (uint64_t tag = 0; tag < 12; tag++)
                submit(tag);
        run_until(twelve_came);
        for (size_t i = 0; i < COUNT_OF(servers); i++)
                assert_int_equal(servers[i].peers_n, 4);
}

static void an_address_that_refuses_is_passed_over(void **state UNUSED)
{
        dns.a[1] = "127.0.0.2";
        server_stop_listening(&servers[0]);
        for (int round = 0; round < 5; round++) {
                aim((struct http_target_config){ .max_connections = 8 });
                for (uint64_t tag = 0; tag < 8; tag++)
                        submit(tag);
                await(done_n + 8);
                target = http_target_free(target);
        }
        for (size_t i = 0; i < done_n; i++)
                if (done[i].c.failed)
                        fail_msg("%s", done[i].c.error.text);
}

static usec avoided_for(const char *text)
{
        LIST_EACH (struct address, a, &target->addresses, node)
                if (strcmp(a->text, text) == 0)
                        return a->avoid_until - loop_now(loop);
        return -USEC_HOUR;
}

/* Its queue is full: it answers no connection. */
static void fall_silent(struct server *s, int fds[3])
{
        struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(s->port) };

        server_stop_listening(s);
        assert_int_equal(inet_pton(AF_INET, "127.0.0.2", &at.sin_addr), 1);
        for (int i = 0; i < 3; i++)
                fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(fds[0], (struct sockaddr *)&at, sizeof(at)), 0);
        assert_int_equal(listen(fds[0], 0), 0);
        for (int i = 1; i < 3; i++)
                (void)connect(fds[i], (struct sockaddr *)&at, sizeof(at));
}

static bool silence_noticed(void) { return avoided_for("127.0.0.2") > 0; }

/* Tried again soon it would cost every other request the whole time for connecting. */
static void a_silent_address_is_avoided_for_longer_than_one_that_refuses(void **state UNUSED)
{
        int fds[3];

        dns.a[1] = "127.0.0.2";
        dns.a[2] = "127.0.0.3";
        fall_silent(&servers[1], fds);
        server_stop_listening(&servers[2]);
        aim((struct http_target_config){ .max_connections = 9, .connect_timeout = 100 * USEC_MSEC });
        for (uint64_t tag = 0; tag < 9; tag++)
                submit(tag);
        run_until(silence_noticed);
        assert_in_range(avoided_for("127.0.0.2"), 5 * USEC_SEC, 10 * USEC_SEC);
        assert_true(avoided_for("127.0.0.3") <= USEC_SEC);
        assert_true(avoided_for("127.0.0.1") <= 0);
        for (int i = 0; i < 3; i++)
                (void)close(fds[i]);
}

static bool moved(void) { return http_target_connections(target) == 0; }

static usec second_at;
static bool a_second_passed(void) { return now() >= second_at; }
static bool first_closed(void) { return servers[0].peers[0].fd < 0; }

/* The old address finishes what it carries, then its connection is closed. */
static struct call *kept;
static void keep(struct call *c) { kept = c; }
static bool kept_one(void) { return kept != NULL; }
static bool asked_twice(void) { return dns.questions >= 2; }

static void a_vanished_address_is_left(void **state UNUSED)
{
        kept = NULL;
        dns.ttl = 1;
        servers[0].handle = keep;
        aim((struct http_target_config){ 0 });
        submit(1);
        run_until(kept_one);
        dns.a[0] = "127.0.0.2";
        run_until(asked_twice);
        submit(2);
        await(1);
        assert_int_equal(done[0].c.tag, 2);
        assert_int_equal(servers[0].requests + servers[1].requests, 2);
        assert_int_equal(servers[1].peers_n, 1);
        reply(kept, 200, "", STR("late"));
        await(2);
        assert_string_equal(done[1].body, "late");
        run_until(first_closed);
        assert_int_equal(http_target_connections(target), 1);
}

/* A pod moved: its refused connection makes the name be asked at once, long before the answer runs out. */
static void a_refusal_asks_at_once(void **state UNUSED)
{
        dns.ttl = 60;
        aim((struct http_target_config){ 0 });
        assert_false(request()->failed);
        server_stop_listening(&servers[0]);
        peer_close(&servers[0].peers[0]);
        run_until(moved);
        dns.a[0] = "127.0.0.2";
        second_at = now() + 1100 * USEC_MSEC; /* the name is not asked more often than each second */
        run_until(a_second_passed);
        for (int i = 0; i < 3 && request()->failed; i++)
                assert_false(done[done_n - 1].c.maybe_processed);
        assert_false(done[done_n - 1].c.failed);
        assert_true(dns.questions >= 2);
        assert_int_equal(servers[1].peers_n, 1);
}

static struct task ticker;
static size_t ticks;
static void tick(struct task *t, usec at)
{
        ticks++;
        loop_arm(loop, t, at + USEC_MSEC);
}
static bool many_ticks(void) { return ticks >= 50 && dns.questions >= 1; }

/* Nobody answers: the loop goes on, and the request can be cancelled. */
static void a_silent_name_server_blocks_nothing(void **state UNUSED)
{
        usec began = now();

        dns.silent = true;
        aim((struct http_target_config){ 0 });
        submit(1);
        ticks = 0;
        ticker = (struct task){ .turn = tick };
        loop_ready(loop, &ticker);
        run_until(many_ticks);
        loop_forget(loop, &ticker);
        assert_true(now() - began < 2 * USEC_SEC);
        assert_int_equal(done_n, 0);
        port_cancel(1);
        assert_int_equal(http_target_connections(target), 0);
}

/* What is told is what took so long, each time. */
static void a_silent_name_server_is_told(void **state UNUSED)
{
        dns.silent = true;
        aim((struct http_target_config){ .connect_timeout = 100 * USEC_MSEC });
        for (int i = 0; i < 2; i++) {
                const struct completion *c = request();

                assert_true(c->failed);
                assert_false(c->maybe_processed);
                assert_true(c->error.retry);
                assert_string_equal(c->error.text, "resolve function.shop.test.: no answer of a name server "
                                                   "within 100 ms");
        }
}

/* A headless Service of many pods: each answer has them in another order, and no connection is replaced for
 * that. */
static void many_addresses_stay(void **state UNUSED)
{
        dns.crowd = 150;
        dns.ttl = 1;
        server_listen(&server, "0.0.0.0", 0);
        (void)snprintf(url, sizeof(url), "http://function.shop.test.:%u/f", server.port);
        aim((struct http_target_config){ .max_connections = 4 });
        for (uint64_t tag = 1; tag <= 4; tag++)
                submit(tag);
        await(4);
        assert_false(done[0].c.failed);
        assert_int_equal(server.peers_n, 4);
        while (dns.questions < 3) {
                done_n = 0;
                calls_forget();
                assert_false(request()->failed);
        }
        assert_false(request()->failed);
        assert_int_equal(server.peers_n, 4);
        assert_int_equal(server_open(&server), 4);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(a_name_is_asked_once, setup, teardown),
                cmocka_unit_test_setup_teardown(many_addresses_stay, setup, teardown),
                cmocka_unit_test_setup_teardown(a_name_that_is_unknown_fails, setup, teardown),
                cmocka_unit_test_setup_teardown(the_time_to_live_is_honoured, setup, teardown),
                cmocka_unit_test_setup_teardown(connections_are_spread_evenly, setup, teardown),
                cmocka_unit_test_setup_teardown(an_address_that_refuses_is_passed_over, setup, teardown),
                cmocka_unit_test_setup_teardown(a_silent_address_is_avoided_for_longer_than_one_that_refuses,
                                                setup, teardown),
                cmocka_unit_test_setup_teardown(a_vanished_address_is_left, setup, teardown),
                cmocka_unit_test_setup_teardown(a_refusal_asks_at_once, setup, teardown),
                cmocka_unit_test_setup_teardown(a_silent_name_server_blocks_nothing, setup, teardown),
                cmocka_unit_test_setup_teardown(a_silent_name_server_is_told, setup, teardown),
        };
        int result;

        filter_tests();
        result = cmocka_run_group_tests_name("addresses", tests, NULL, NULL);
        curl_global_cleanup();
        return result;
}
