/* What libcurl does to a connection of CURLOPT_CONNECT_ONLY that lies in its multi handle while its socket is
 * used without it: when any other connection opens, it closes those that are older than CURLOPT_MAXAGE_CONN
 * and those whose peer has ended, later versions also those with unread bytes. The number of the descriptor
 * is then somebody else's. That is why pkg/http keeps a duplicate and frees the handle. Should this test fail
 * with another version, libcurl has changed its mind: read connect.c again. */
#include <curl/curl.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/base.h"

static CURLM *multi;
static int listener;
static char url[64];
static long age_max;

struct connection {
        CURL *easy;
        curl_socket_t fd;
        int own, peer;
        ino_t inode;
};

static int setup(void **state UNUSED)
{
        struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        socklen_t size = sizeof(at);

        listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(listener, (struct sockaddr *)&at, size), 0);
        assert_int_equal(listen(listener, 16), 0);
        assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &size), 0);
        (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/", ntohs(at.sin_port));
        multi = curl_multi_init();
        return multi ? 0 : -1;
}

static int teardown(void **state UNUSED)
{
        (void)curl_multi_cleanup(multi);
        (void)close(listener);
        return 0;
}

static ino_t inode_of(int fd)
{
        struct stat s;

        return fstat(fd, &s) == 0 ? s.st_ino : 0;
}

static struct connection open_one(void)
{
        struct connection c = { .easy = curl_easy_init() };
        int running = 1;

        (void)curl_easy_setopt(c.easy, CURLOPT_URL, url);
        (void)curl_easy_setopt(c.easy, CURLOPT_PROXY, "");
        (void)curl_easy_setopt(c.easy, CURLOPT_CONNECT_ONLY, 1L);
        (void)curl_easy_setopt(c.easy, CURLOPT_FRESH_CONNECT, 1L);
        (void)curl_easy_setopt(c.easy, CURLOPT_MAXAGE_CONN, age_max);
        assert_int_equal(curl_multi_add_handle(multi, c.easy), CURLM_OK);
        while (running) {
                assert_int_equal(curl_multi_perform(multi, &running), CURLM_OK);
                if (running)
                        assert_int_equal(curl_multi_poll(multi, NULL, 0, 1000, NULL), CURLM_OK);
        }
        c.peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        assert_true(c.peer >= 0);
        assert_int_equal(curl_easy_getinfo(c.easy, CURLINFO_ACTIVESOCKET, &c.fd), CURLE_OK);
        c.own = fcntl(c.fd, F_DUPFD_CLOEXEC, 0);
        c.inode = inode_of(c.own);
        return c;
}

static void close_one(struct connection *c)
{
        (void)curl_multi_remove_handle(multi, c->easy);
        curl_easy_cleanup(c->easy);
        (void)close(c->own);
        (void)close(c->peer);
}

/* libcurl looks after its connections once a second, by a clock that can't be given. */
static void between_looks(void) { (void)poll(NULL, 0, 1100); }

static void grow_old(struct connection *c)
{
        struct pollfd p = { .fd = c->own, .events = POLLIN };

        assert_int_equal(poll(&p, 1, 2100), 0); /* it counts whole seconds */
}

static void end(struct connection *c)
{
        struct pollfd p = { .fd = c->own, .events = POLLIN };

        (void)shutdown(c->peer, SHUT_WR);
        assert_int_equal(poll(&p, 1, 1000), 1);
        between_looks();
}

static void speak(struct connection *c)
{
        struct pollfd p = { .fd = c->own, .events = POLLIN };

        assert_int_equal(send(c->peer, "x", 1, MSG_NOSIGNAL), 1);
        assert_int_equal(poll(&p, 1, 1000), 1);
        between_looks();
}

/* Does libcurl close the first connection's socket when a second one opens? Ours works on in any case. */
static bool taken_away(void (*before)(struct connection *), long age)
{
        struct connection first, second;
        bool gone;
        char byte;

        age_max = age;
        first = open_one();
        before(&first);
        second = open_one();
        gone = inode_of(first.fd) != first.inode;
        assert_int_equal(send(first.own, "y", 1, MSG_NOSIGNAL), 1);
        assert_int_equal(recv(first.peer, &byte, 1, 0), 1);
        assert_int_equal(byte, 'y');
        assert_int_equal(recv(second.peer, &byte, 1, MSG_DONTWAIT), -1);
        close_one(&second);
        close_one(&first);
        return gone;
}

static void an_old_connection_is_closed(void **state UNUSED) { assert_true(taken_away(grow_old, 1)); }
static void an_ended_connection_is_closed(void **state UNUSED) { assert_true(taken_away(end, 118)); }
static void a_readable_connection_may_be_closed(void **state UNUSED)
{
        bool gone = taken_away(speak, 118),
             later = curl_version_info(CURLVERSION_NOW)->version_num >= 0x080000;

        assert_int_equal(gone, later);
}

/* What pkg/http does: the handle goes at once, the socket stays. */
static void a_duplicate_outlives_its_handle(void **state UNUSED)
{
        struct connection c = open_one();
        char byte;

        (void)curl_multi_remove_handle(multi, c.easy);
        curl_easy_cleanup(c.easy);
        assert_int_equal(send(c.own, "y", 1, MSG_NOSIGNAL), 1);
        assert_int_equal(recv(c.peer, &byte, 1, 0), 1);
        assert_int_equal(recv(c.peer, &byte, 1, MSG_DONTWAIT), -1); /* and no end */
        (void)close(c.own);
        (void)close(c.peer);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(an_old_connection_is_closed, setup, teardown),
                cmocka_unit_test_setup_teardown(an_ended_connection_is_closed, setup, teardown),
                cmocka_unit_test_setup_teardown(a_readable_connection_may_be_closed, setup, teardown),
                cmocka_unit_test_setup_teardown(a_duplicate_outlives_its_handle, setup, teardown),
        };
        int result = cmocka_run_group_tests_name("canary", tests, NULL, NULL);

        curl_global_cleanup();
        return result;
}
