/* Through a proxy that opens tunnels: HTTP and TLS, passwords, refusals; and who is reached without it. */
#include <curl/curl.h>
#include <sys/stat.h>

#include "http/client/proxy.h"
#include "http/client/testing.h"

/* A proxy that connects nowhere: after CONNECT it speaks for the server itself, so that names need no
 * address. */
static struct {
        char asked[256], credentials[128];
        int status;
        bool silent;
        size_t tunnels;
} proxy;
/* the proxy; its tunnel's bytes are handed on to a server by a socket pair */
static struct server gate;
static struct {
        int fd;
        struct loop_io *io;
        struct peer *outer;
} pipes[16];
static size_t pipes_n;
static struct identity authority, leaf;
static struct buf authority_pem;

static void from_server(void *cookie, int events UNUSED)
{
        size_t i = (size_t)(uintptr_t)cookie;
        char space[65536];
        ssize_t n;

        while ((n = recv(pipes[i].fd, space, sizeof(space), 0)) > 0)
                peer_say(pipes[i].outer, (struct str){ space, (size_t)n });
        if (n == 0) {
                loop_io_want(pipes[i].io, 0);
                peer_close(pipes[i].outer);
        }
}

static void open_tunnel(struct peer *p)
{
        struct sockaddr_in at = { .sin_family = AF_INET,
                                  .sin_port = htons(server.port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        struct error err;
        size_t i = pipes_n++;

        assert_true(pipes_n <= COUNT_OF(pipes));
        proxy.tunnels++;
        pipes[i].outer = p;
        pipes[i].fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(pipes[i].fd, (struct sockaddr *)&at, sizeof(at)), 0);
        (void)fcntl(pipes[i].fd, F_SETFL, O_NONBLOCK);
        assert_int_equal(
                loop_io_open(loop, pipes[i].fd, from_server, (void *)(uintptr_t)i, &pipes[i].io, &err), 0);
        loop_io_want(pipes[i].io, LOOP_READABLE);
        p->served = (unsigned)i + 1;
}

static void take_line(struct str head, const char *start, char *out, size_t size)
{
        const char *at = memmem(head.p, head.n, start, strlen(start));
        struct str rest, line;

        out[0] = 0;
        if (!at)
                return;
        rest = (struct str){ at + strlen(start), head.n - (size_t)(at - head.p) - strlen(start) };
        line = str_cut(&rest, '\r');
        (void)snprintf(out, size, STR_FMT, STR_ARG(line));
}

static bool at_gate(struct peer *p, struct str bytes)
{
        char text[128];

        if (p->served) {
                assert_int_equal(send(pipes[p->served - 1].fd, bytes.p, bytes.n, MSG_NOSIGNAL),
                                 (ssize_t)bytes.n);
                return true;
        }
        take_line(bytes, "CONNECT ", proxy.asked, sizeof(proxy.asked));
        take_line(bytes, "Proxy-Authorization: ", proxy.credentials, sizeof(proxy.credentials));
        if (proxy.silent)
                return true;
        (void)snprintf(text, sizeof(text), "HTTP/1.1 %d X\r\n%s\r\n", proxy.status,
                       proxy.status == 200 ? "" : "Content-Length: 0\r\n");
        if (proxy.status == 200)
                open_tunnel(p);
        else
                p->closing = true;
        peer_say(p, str_of(text));
        return true;
}

static int setup(void **state UNUSED)
{
        if (client_setup() < 0)
                return -1;
        memset(&proxy, 0, sizeof(proxy));
        memset(&gate, 0, sizeof(gate));
        proxy.status = 200;
        pipes_n = 0;
        gate.raw = at_gate;
        server_listen(&gate, "127.0.0.1", 0);
        return 0;
}

static int teardown(void **state UNUSED)
{
        for (size_t i = 0; i < pipes_n; i++) {
                loop_io_close(pipes[i].io);
                (void)close(pipes[i].fd);
        }
        server_done(&gate);
        return client_teardown();
}

static void open_target(bool tls, bool http2, struct http_proxy more)
{
        char at[64];

        server.http2 = http2;
        if (tls)
                server.tls = server_tls(&server, &leaf);
        server_listen(&server, "127.0.0.1", 0);
        /* Nobody knows the name but the proxy. */
        (void)snprintf(url, sizeof(url), "%s://only.the.proxy.knows.invalid:%u/f", tls ? "https" : "http",
                       server.port);
        (void)snprintf(at, sizeof(at), "http://127.0.0.1:%u", gate.port);
        more.url = str_of(at);
        aim((struct http_target_config){ .proxy = more,
                                         .http_version = !http2 ? HTTP_1_1
                                                         : tls  ? HTTP_AUTO
                                                                : HTTP_2_PRIOR_KNOWLEDGE,
                                         .tls.ca_pem = buf_view(&authority_pem),
                                         .connect_timeout = proxy.silent ? 300 * USEC_MSEC : 5 * USEC_SEC });
}

static void the_proxy_resolves_the_name(void **state)
{
        const unsigned flavour = (unsigned)(uintptr_t)*state;
        char asked[128];

        open_target(flavour & 1, flavour & 2, (struct http_proxy){ 0 });
        for (int i = 0; i < 5; i++)
                if (request()->failed)
                        fail_msg("%s", done[i].c.error.text);
        (void)snprintf(asked, sizeof(asked), "only.the.proxy.knows.invalid:%u HTTP/1.1", server.port);
        assert_string_equal(proxy.asked, asked);
        assert_string_equal(proxy.credentials, "");
        assert_int_equal(proxy.tunnels, 1);
        assert_int_equal(server.requests, 5);
        assert_string_equal(server.calls[0].path, "/f");
        assert_int_equal(server.peers[0].h2 != NULL, (flavour & 2) != 0);
}

static int setup_flavour(void **state) { return setup(state); }

static void expect_failure(const char *say)
{
        const struct completion *c = request();

        assert_true(c->failed && c->error.retry);
        assert_false(c->maybe_processed);
        assert_non_null(strstr(c->error.text, url));
        if (!strstr(c->error.text, say))
                fail_msg("\"%s\" does not say \"%s\"", c->error.text, say);
}

static void close_after(struct call *c) { reply(c, 200, "Connection: close\r\n", STR("ok")); }

static char login_folder[] = "/tmp/sluice-proxy-XXXXXX", user_file[64], password_file[64];

static void write_bytes(const char *path, struct str text)
{
        FILE *f = fopen(path, "w");

        assert_non_null(f);
        assert_int_equal(fwrite(text.p, 1, text.n, f), text.n);
        (void)fclose(f);
}

static void write_login(const char *path, const char *text) { write_bytes(path, str_of(text)); }

/* Each new tunnel shows what the files say then; one that is gone leaves what was there. */
static void a_password_is_given_and_may_change(void **state UNUSED)
{
        static const char first[] = "Basic dXM6ZXI6cEBzcyB3b3Jk", second[] = "Basic dXM6ZXI6bmV3";

        assert_non_null(mkdtemp(login_folder));
        (void)snprintf(user_file, sizeof(user_file), "%s/user", login_folder);
        (void)snprintf(password_file, sizeof(password_file), "%s/password", login_folder);
        write_login(user_file, "us:er\n");
        open_target(false, false,
                    (struct http_proxy){ .user_file = user_file, .password_file = password_file });
        expect_failure("the proxy's password can't be read from");
        write_bytes(password_file, (struct str){ "half\0of it", 10 });
        expect_failure("holds a NUL byte: expected text");
        write_login(password_file, "p@ss word\n");
        server.handle = close_after;
        assert_false(request()->failed);
        assert_string_equal(proxy.credentials, first);
        write_login(password_file, "new");
        assert_false(request()->failed);
        assert_string_equal(proxy.credentials, second);
        (void)unlink(password_file);
        assert_false(request()->failed);
        assert_string_equal(proxy.credentials, second);
        assert_int_equal(mkfifo(password_file, 0600), 0); /* nobody writes into it: it is not waited for */
        assert_false(request()->failed);
        assert_string_equal(proxy.credentials, second);
        (void)unlink(password_file);
        (void)unlink(user_file);
        (void)rmdir(login_folder);
}

static void a_demand_for_a_password_is_named(void **state UNUSED)
{
        proxy.status = 407;
        open_target(false, false, (struct http_proxy){ 0 });
        expect_failure("answered 407: give its user and password");
}

static void a_refusal_is_named(void **state UNUSED)
{
        proxy.status = 403;
        open_target(true, false, (struct http_proxy){ 0 });
        expect_failure("answered 403 to CONNECT");
}

static void a_proxy_that_is_not_there_is_named(void **state UNUSED)
{
        char text[64];

        open_target(false, false, (struct http_proxy){ 0 });
        server_stop_listening(&gate);
        (void)snprintf(text, sizeof(text), "the proxy 127.0.0.1:%u", gate.port);
        expect_failure(text);
        assert_int_equal(done[0].c.error.kind, ERROR_UNREACHABLE);
}

static void a_silent_proxy_times_out(void **state UNUSED)
{
        proxy.silent = true;
        open_target(false, false, (struct http_proxy){ 0 });
        expect_failure("the proxy 127.0.0.1");
        assert_int_equal(done[0].c.error.kind, ERROR_TIMEOUT);
}

static void some_are_reached_without_it(void **state UNUSED)
{
        server_listen(&server, "127.0.0.1", 0);
        (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/f", server.port);
        aim((struct http_target_config){
                .proxy = { .url = STR("http://127.0.0.1:1"), .no_proxy = STR("example.com, 127.0.0.0/8") } });
        assert_false(request()->failed);
        assert_int_equal(gate.peers_n, 0);
}

static void only_plain_proxies_are_spoken_to(void **state UNUSED)
{
        struct http_target_config c = { .url = STR("http://a/"),
                                        .proxy.url = STR("https://proxy:3128"),
                                        .max_connections = 1 };
        struct error err;

        assert_int_equal(http_target_new(&target, client, &c, &err), -1);
        assert_int_equal(err.kind, ERROR_INVALID);
        assert_non_null(strstr(err.text, "http://"));
}

static void the_list_of_exceptions(void **state UNUSED)
{
        static const struct {
                const char *list, *host;
                bool without;
        } all[] = {
                { "", "a", false },
                { "*", "a", true },
                { "a", "a", true },
                { "a", "b", false },
                { "A.Example", "a.example", true },
                { "example", "a.example", true },
                { ".example", "a.example", true },
                { ".example", "example", true },
                { "example", "anexample", false },
                { "x, y ,z", "y", true },
                { "a", "a.", true },
                { "10.0.0.1", "10.0.0.1", true },
                { "10.0.0.0/8", "10.200.3.4", true },
                { "10.0.0.0/8", "11.0.0.1", false },
                { "10.128.0.0/9", "10.128.0.1", true },
                { "10.128.0.0/9", "10.127.0.1", false },
                { "10.0.0.0/33", "10.0.0.1", false },
                { "10.0.0.0/x", "10.0.0.1", false },
                { "0.0.0.0/0", "1.2.3.4", true },
                { "fd00::/8", "fd12::1", true },
                { "fd00::/8", "fe12::1", false },
                { "[::1]", "::1", true },
                { "::/0", "1.2.3.4", false },
                { "1", "1.2.3.4", false },
                { ",,", "a", false },
                { "10.0.0.1", "x10.0.0.1", false },
        };

        for (size_t i = 0; i < COUNT_OF(all); i++)
                if (http_no_proxy(str_of(all[i].list), str_of(all[i].host)) != all[i].without)
                        fail_msg("\"%s\" and %s", all[i].list, all[i].host);
}

static int group_setup(void **state UNUSED)
{
        authority = identity_new((struct identity_config){
                .name = "test authority", .authority = true, .key_usage = IDENTITY_SIGNS });
        leaf = identity_new((struct identity_config){
                .issuer = &authority, .name = "x", .alternatives = "DNS:only.the.proxy.knows.invalid" });
        identity_pem(&authority, false, &authority_pem);
        return 0;
}

static int group_teardown(void **state UNUSED)
{
        identity_done(&authority);
        identity_done(&leaf);
        buf_done(&authority_pem);
        return 0;
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                ROW("the_proxy_resolves_the_name over HTTP/1.1", the_proxy_resolves_the_name, setup_flavour,
                    teardown, (void *)0),
                ROW("the_proxy_resolves_the_name over TLS and HTTP/1.1", the_proxy_resolves_the_name,
                    setup_flavour, teardown, (void *)1),
                ROW("the_proxy_resolves_the_name over h2c", the_proxy_resolves_the_name, setup_flavour,
                    teardown, (void *)2),
                ROW("the_proxy_resolves_the_name over TLS and h2", the_proxy_resolves_the_name, setup_flavour,
                    teardown, (void *)3),
                cmocka_unit_test_setup_teardown(a_password_is_given_and_may_change, setup, teardown),
                cmocka_unit_test_setup_teardown(a_demand_for_a_password_is_named, setup, teardown),
                cmocka_unit_test_setup_teardown(a_refusal_is_named, setup, teardown),
                cmocka_unit_test_setup_teardown(a_proxy_that_is_not_there_is_named, setup, teardown),
                cmocka_unit_test_setup_teardown(a_silent_proxy_times_out, setup, teardown),
                cmocka_unit_test_setup_teardown(some_are_reached_without_it, setup, teardown),
                cmocka_unit_test_setup_teardown(only_plain_proxies_are_spoken_to, setup, teardown),
                cmocka_unit_test(the_list_of_exceptions),
        };
        int result;

        filter_tests();
        result = cmocka_run_group_tests_name("proxy", tests, group_setup, group_teardown);
        curl_global_cleanup();
        return result;
}
