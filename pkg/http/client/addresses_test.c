/* Names: asked again in time, spread over, given up; with a name server of our own on loopback. All of 127/8
 * is this machine. */
#include <curl/curl.h>

#include "http/client/testing.h"

static struct {
        int fd;
        uint16_t port;
        struct loop_io *io, *listener_io, *stream_io;
        int listener, stream;
        const char *addresses[4]; /* the answer */
        unsigned ttl;
        bool silent, missing;
        unsigned crowd;   /* instead: so many of 127.0.0.0/8, in another order each time */
        size_t questions; /* for A */
} dns;
static struct server servers[3];

static void put16(struct buf *b, unsigned v)
{
        buf_char(b, (char)(v >> 8));
        buf_char(b, (char)v);
}

static void answer_to(const unsigned char *q, bool truncated, struct buf *a)
{
        size_t after = 12;
        bool ipv4;
        unsigned answers = 0;

        while (q[after])
                after += q[after] + 1U;
        after += 5;
        ipv4 = q[after - 3] == 1;
        if (ipv4 && !truncated)
                answers = dns.crowd;
        for (size_t i = 0;
             ipv4 && !dns.missing && !dns.crowd && i < COUNT_OF(dns.addresses) && dns.addresses[i]; i++)
                answers++;
        dns.questions += ipv4 && !truncated;
        buf_add(a, q, 2);
        put16(a, (dns.missing ? 0x8583 : 0x8580) | (truncated ? 0x0200 : 0)); /* NXDOMAIN: 3 */
        put16(a, 1);
        put16(a, answers);
        put16(a, 0);
        put16(a, 0);
        buf_add(a, q + 12, after - 12);
        for (unsigned i = 0; i < answers; i++) {
                struct in_addr address;

                put16(a, 0xc00c);
                put16(a, 1);
                put16(a, 1);
                put16(a, 0);
                put16(a, dns.ttl);
                put16(a, 4);
                if (dns.crowd)
                        address.s_addr = htonl(0x7f000101 +
                                               (i + (unsigned)dns.questions * dns.crowd / 2) % dns.crowd);
                else
                        assert_int_equal(inet_pton(AF_INET, dns.addresses[i], &address), 1);
                buf_add(a, &address, 4);
        }
}

static void on_question(void *cookie UNUSED, int events UNUSED)
{
        struct sockaddr_in from;
        socklen_t size = sizeof(from);
        unsigned char q[512];
        ssize_t n;

        while ((n = recvfrom(dns.fd, q, sizeof(q), 0, (struct sockaddr *)&from, &size)) > 12) {
                BUF_AT_END struct buf a = BUF_INIT(4096);

                answer_to(q, dns.crowd > 0, &a);
                if (dns.silent)
                        continue;
                assert_int_equal(sendto(dns.fd, a.p, a.n, 0, (struct sockaddr *)&from, size), (ssize_t)a.n);
        }
}

/* What is too long for a datagram is asked by TCP: one question at a time is enough here. */
static void on_stream(void *cookie UNUSED, int events UNUSED)
{
        unsigned char q[514];
        ssize_t n = recv(dns.stream, q, sizeof(q), 0);

        if (n <= 0) {
                loop_io_close(dns.stream_io);
                (void)close(dns.stream);
                dns.stream_io = NULL;
                return;
        }
        for (ssize_t at = 0; at + 14 < n; at += 2 + (q[at] << 8 | q[at + 1])) {
                BUF_AT_END struct buf a = BUF_INIT(65536), framed = BUF_INIT(65536);

                answer_to(q + at + 2, false, &a);
                put16(&framed, (unsigned)a.n);
                buf_str(&framed, buf_view(&a));
                assert_int_equal(send(dns.stream, framed.p, framed.n, MSG_NOSIGNAL), (ssize_t)framed.n);
        }
}

static void on_stream_asked(void *cookie UNUSED, int events UNUSED)
{
        struct error err;

        assert_null(dns.stream_io);
        dns.stream = accept4(dns.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        assert_true(dns.stream >= 0);
        assert_int_equal(loop_io_open(loop, dns.stream, on_stream, NULL, &dns.stream_io, &err), 0);
        loop_io_want(dns.stream_io, LOOP_READABLE);
}

/* A port that is free for datagrams and for streams; *at: where. */
static bool name_server_open(struct sockaddr_in *at)
{
        socklen_t size = sizeof(*at);

        for (int tries = 0; tries < 100; tries++) {
                at->sin_port = 0;
                dns.listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
                dns.fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
                if (bind(dns.listener, (struct sockaddr *)at, size) == 0 && listen(dns.listener, 4) == 0 &&
                    getsockname(dns.listener, (struct sockaddr *)at, &size) == 0 &&
                    bind(dns.fd, (struct sockaddr *)at, size) == 0)
                        return true;
                (void)close(dns.listener);
                (void)close(dns.fd);
        }
        return false;
}

static int setup(void **state UNUSED)
{
        struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        char name[64];
        struct error err;

        if (client_setup() < 0)
                return -1;
        memset(&dns, 0, sizeof(dns));
        dns.ttl = 30;
        dns.addresses[0] = "127.0.0.1";
        if (!name_server_open(&at) || loop_io_open(loop, dns.fd, on_question, NULL, &dns.io, &err) < 0 ||
            loop_io_open(loop, dns.listener, on_stream_asked, NULL, &dns.listener_io, &err) < 0)
                return -1;
        loop_io_want(dns.io, LOOP_READABLE);
        loop_io_want(dns.listener_io, LOOP_READABLE);
        (void)snprintf(name, sizeof(name), "127.0.0.1:%u", ntohs(at.sin_port));
        if (http_client_use_servers(client, name, &err) < 0)
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
        loop_io_close(dns.io);
        loop_io_close(dns.listener_io);
        (void)close(dns.fd);
        (void)close(dns.listener);
        if (dns.stream_io) {
                loop_io_close(dns.stream_io);
                (void)close(dns.stream);
        }
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
        dns.addresses[1] = "127.0.0.2";
        dns.addresses[2] = "127.0.0.3";
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
        dns.addresses[1] = "127.0.0.2";
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
        dns.addresses[0] = "127.0.0.2";
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
        dns.addresses[0] = "127.0.0.2";
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
