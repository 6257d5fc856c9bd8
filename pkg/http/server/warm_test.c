/* What a warm server allocates for a request, and an idle connection holds. */
#include <malloc.h>
#include <sys/resource.h>

#include "http/server/testing.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#endif

static size_t allocations, handled, wanted;

#ifndef SANITIZED
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *malloc(size_t n) { return allocations++, __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return allocations++, __libc_calloc(n, size); }
void *realloc(void *p, size_t n) { return allocations++, __libc_realloc(p, n); }
#endif

static void handle(void *cookie UNUSED, struct http_call *c)
{
        http_call_reply(c, 200, STR("text/plain"), STR("X-A: b\r\n"), buf_view(&http_call_message(c)->body));
        if (++handled == wanted)
                loop_stop(loop);
}

static int setup(void **state UNUSED)
{
        struct http_server_config config = { .address = "127.0.0.1:0",
                                             .head_max = 32768,
                                             .body_max = 1 << 20,
                                             .handle = handle,
                                             .max_connections = 20000 };
        struct error err;

        overdue = false;
        handled = wanted = 0;
        watchdog = (struct task){ .turn = too_late };
        return loop_new(&loop, &err) || http_server_new(&server, loop, &config, &err);
}

static int teardown(void **state UNUSED)
{
        server = http_server_free(server);
        loop = loop_free(loop);
        return 0;
}

static int client(void)
{
        struct sockaddr_in to = { .sin_family = AF_INET,
                                  .sin_port = htons(http_server_port(server)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
        return fd;
}

/* Asks, lets the server work and takes the answer. */
static void ask(int fd, size_t body)
{
        static char text[65536], answer[65536];
        int n = snprintf(text, sizeof(text),
                         "POST /a/path?query HTTP/1.1\r\nHost: h\r\nAccept: */*\r\nUser-Agent: "
                         "test\r\nContent-Length: %zu\r\n\r\n%0*d",
                         body, (int)body, 0);
        size_t got = 0;

        assert_int_equal(send(fd, text, (size_t)n, MSG_NOSIGNAL), n);
        wanted = handled + 1;
        run();
        while (got < body)
                got += (size_t)recv(fd, answer, sizeof(answer), 0);
}

static void a_warm_request_allocates_nothing(void **state UNUSED)
{
        int fd[3];
        size_t before;

        for (size_t i = 0; i < COUNT_OF(fd); i++)
                fd[i] = client();
        for (size_t i = 0; i < 12; i++)
                ask(fd[i % 3], 1000 + 1000 * (i % 4));
        before = allocations;
        for (size_t i = 0; i < 300; i++)
                ask(fd[i % 3], 1000 + 1000 * (i % 4));
        assert_int_equal(allocations - before, 0);
        for (size_t i = 0; i < COUNT_OF(fd); i++)
                (void)close(fd[i]);
}

static void an_idle_connection_holds_little(void **state UNUSED)
{
        enum { MANY = 400 };
        static int fd[MANY];
        struct rlimit limit;
        size_t before;

        assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
        limit.rlim_cur = MIN_OF((rlim_t)4096, limit.rlim_max);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
        fd[0] = client();
        ask(fd[0], 10000);
        before = mallinfo2().uordblks;
        for (size_t i = 1; i < MANY; i++) {
                fd[i] = client();
                ask(fd[i], 10000);
        }
        if (mallinfo2().uordblks - before > (size_t)MANY * 1024)
                fail_msg("%zu bytes per idle connection", (mallinfo2().uordblks - before) / MANY);
        for (size_t i = 0; i < MANY; i++)
                ask(fd[i], 100);
        for (size_t i = 0; i < MANY; i++)
                (void)close(fd[i]);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(a_warm_request_allocates_nothing, setup, teardown),
                cmocka_unit_test_setup_teardown(an_idle_connection_holds_little, setup, teardown),
        };
        return cmocka_run_group_tests_name("warm server", tests, NULL, NULL);
}
