/* What an API server does to its connections: streams in pieces, cuts lines and answers, goes away and comes
 * back. A server of raw text. */
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "kube/checkpoint.h"
#include "kube/reflector.h"
#include "tests/support/clock.h"

enum { STEPS = 16, CONNECTIONS = 16 };
enum after { CUT, STAY }; /* the connection, once the answer is written */

struct step {
        const char *request; /* what it must contain; NULL: anything */
        const char *answer;  /* raw; NULL: none */
        enum after after;
};

struct connection {
        struct loop_io *io;
        int fd;
        struct buf in;
};

static struct {
        struct loop *loop;
        struct loop_io *io;
        int fd;
        uint16_t port;
        struct connection connections[CONNECTIONS];
        struct connection *last; /* that was answered */
        struct kube_config config;
        struct kube_client *client;
        char url[64];
        const struct step *script;
        size_t steps, at;
        usec times[STEPS]; /* when the requests came */
        struct task watchdog;
        bool overdue;
} e;

/* ---- the server --------------------------------------------------------- */

static void hang_up(struct connection *c)
{
        loop_io_close(c->io);
        (void)close(c->fd);
        buf_done(&c->in);
        *c = (struct connection){ .fd = -1 };
}

static void push(struct connection *c, const char *text)
{
        size_t n = strlen(text);

        assert_int_equal(send(c->fd, text, n, MSG_NOSIGNAL), (ssize_t)n);
}

static bool whole(const struct buf *in)
{
        const char *head = in->p ? strstr(in->p, "\r\n\r\n") : NULL,
                   *length = in->p ? strstr(in->p, "Content-Length: ") : NULL;

        return head && in->n >= (size_t)(head + 4 - in->p) +
                                        (length && length < head ? strtoul(length + 16, NULL, 10) : 0);
}

static void answer(struct connection *c)
{
        const struct step *s = &e.script[e.at];

        if (e.at == e.steps)
                fail_msg("an unexpected request: %s", c->in.p);
        if (s->request && !strstr(c->in.p, s->request))
                fail_msg("step %zu: no \"%s\" in: %s", e.at, s->request, c->in.p);
        e.times[e.at++] = clock_monotonic(&system_clock);
        buf_reset(&c->in);
        e.last = c;
        if (s->answer)
                push(c, s->answer);
        if (s->after == CUT)
                hang_up(c);
}

static void on_data(void *cookie, int events UNUSED)
{
        struct connection *c = cookie;
        char text[65536];
        ssize_t n = recv(c->fd, text, sizeof(text), 0);

        if (n <= 0) {
                hang_up(c);
                return;
        }
        buf_add(&c->in, text, (size_t)n);
        if (whole(&c->in))
                answer(c);
}

static void on_connect(void *cookie UNUSED, int events UNUSED)
{
        struct error err;

        for (size_t i = 0; i < CONNECTIONS; i++) {
                struct connection *c = &e.connections[i];

                if (c->io)
                        continue;
                *c = (struct connection){ .fd = accept(e.fd, NULL, NULL), .in = BUF_INIT(1 << 20) };
                assert_true(c->fd >= 0);
                assert_int_equal(loop_io_open(e.loop, c->fd, on_data, c, &c->io, &err), 0);
                loop_io_want(c->io, LOOP_READABLE);
                return;
        }
        fail_msg("too many connections");
}

/* Listens at the port, once one is known; nobody does between away and this. */
static void come_back(void)
{
        struct sockaddr_in address = { .sin_family = AF_INET,
                                       .sin_port = htons(e.port),
                                       .sin_addr = { htonl(INADDR_LOOPBACK) } };
        socklen_t size = sizeof(address);
        struct error err;
        int on = 1;

        e.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_true(e.fd >= 0);
        assert_int_equal(setsockopt(e.fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
        assert_int_equal(bind(e.fd, (const struct sockaddr *)&address, sizeof(address)), 0);
        assert_int_equal(listen(e.fd, 16), 0);
        assert_int_equal(getsockname(e.fd, (struct sockaddr *)&address, &size), 0);
        e.port = ntohs(address.sin_port);
        assert_int_equal(loop_io_open(e.loop, e.fd, on_connect, NULL, &e.io, &err), 0);
        loop_io_want(e.io, LOOP_READABLE);
}

static void go_away(void)
{
        loop_io_close(e.io);
        (void)close(e.fd);
        e.io = NULL;
        for (size_t i = 0; i < CONNECTIONS; i++)
                if (e.connections[i].io)
                        hang_up(&e.connections[i]);
}

static void too_late(struct task *t UNUSED, usec now UNUSED)
{
        e.overdue = true;
        loop_stop(e.loop);
}

static void run(void)
{
        loop_arm(e.loop, &e.watchdog, clock_monotonic(&system_clock) + 20 * USEC_SEC);
        loop_run(e.loop);
        loop_forget(e.loop, &e.watchdog);
        if (e.overdue)
                fail_msg("nothing more happens after step %zu of %zu", e.at, e.steps);
}

static void open_script(const struct step *script, size_t steps, char *token_file)
{
        struct error err;

        memset(&e, 0, sizeof(e));
        e.script = script;
        e.steps = steps;
        e.watchdog.turn = too_late;
        assert_int_equal(loop_new(&e.loop, &err), 0);
        come_back();
        (void)snprintf(e.url, sizeof(e.url), "http://127.0.0.1:%u", e.port);
        e.config = (struct kube_config){ .server = e.url, .token_file = token_file };
        assert_int_equal(kube_client_new(&e.client, e.loop, &e.config, &err), 0);
}

static void close_script(void)
{
        e.client = kube_client_free(e.client);
        if (e.io)
                go_away();
        e.loop = loop_free(e.loop);
        assert_int_equal(e.at, e.steps);
}

/* ---- the reflector ------------------------------------------------------ */

#define OK "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
#define OBJECT(name, version)                                                                                \
        "{\"metadata\":{\"namespace\":\"n\",\"name\":\"" name "\",\"resourceVersion\":\"" version "\"}}"
#define EVENT(type, object) "{\"type\":\"" type "\",\"object\":" object "}\n"
#define LIST(version, items) OK "{\"metadata\":{\"resourceVersion\":\"" version "\"},\"items\":[" items "]}"

static struct reflector *reflector;
static usec silence_most;
static struct buf told;
static const char *awaited;
static void (*then)(void); /* what the test does when it was told that */

static void on_change(void *cookie UNUSED, const char *namespace_ UNUSED, const char *name, json_t *before,
                      json_t *object)
{
        json_t *metadata = json_object_get(object ? object : before, "metadata");

        buf_printf(&told, "%s%s@%s ", object ? before ? "~" : "+" : "-", name,
                   json_string_value(json_object_get(metadata, "resourceVersion")));
        if (awaited && strstr(told.p, awaited)) {
                awaited = NULL;
                if (then)
                        then();
                else
                        loop_stop(e.loop);
        }
}

static void open_reflector(const struct step *script, size_t n)
{
        struct reflector_config config = {
                .path = "/things", .what = "things", .silence_most = silence_most, .changed = on_change
        };
        struct error err;

        told = BUF_INIT(65536);
        then = NULL;
        open_script(script, n, NULL);
        config.client = e.client;
        assert_int_equal(reflector_new(&reflector, &config, &err), 0);
}

static void run_until(const char *words)
{
        awaited = words;
        run();
}

static void close_reflector(const char *all)
{
        reflector = reflector_free(reflector);
        close_script();
        assert_string_equal(told.p, all);
        buf_done(&told);
}

static void an_event_is_told_when_its_line_is_whole(void **state UNUSED)
{
        static const struct step script[] = {
                { "GET /things?resourceVersion=0 ", LIST("10", OBJECT("a", "5")), CUT },
                { "resourceVersion=10 ", OK EVENT("ADDED", OBJECT("b", "11")) "{\"type\":\"MODIFIED\",",
                  STAY },
        };

        open_reflector(script, COUNT_OF(script));
        run_until("+b@11");
        push(e.last, "\"object\":" OBJECT("b", "12") "}");
        push(e.last, "\n" EVENT("DELETED", OBJECT("a", "13")));
        run_until("-a@5");
        assert_int_equal(reflector_count(reflector), 1);
        close_reflector("+a@5 +b@11 ~b@12 -a@5 ");
}

static void a_watch_cut_in_a_line_goes_on_at_the_last_whole_one(void **state UNUSED)
{
        static const struct step script[] = {
                ROW("resourceVersion=0 ", LIST("10", ""), CUT),
                ROW("resourceVersion=10 ",
                    OK EVENT("ADDED",
                             OBJECT("a", "11")) "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"lo",
                    CUT),
                ROW("resourceVersion=11 ", OK EVENT("ADDED", OBJECT("lost", "12")), STAY),
        };

        open_reflector(script, COUNT_OF(script));
        run_until("+lost@12");
        close_reflector("+a@11 +lost@12 ");
}

static void a_line_that_cannot_be_read_loses_nothing(void **state UNUSED)
{
        static const struct step script[] = {
                ROW("resourceVersion=0 ", LIST("10", ""), CUT),
                ROW("resourceVersion=10 ",
                    OK EVENT("ADDED", OBJECT("a", "11")) "{\"type\":\"ADDED\",\"object\":{]}\n" EVENT(
                            "ADDED", OBJECT("c", "13")),
                    STAY),
                ROW("resourceVersion=11 ",
                    OK EVENT("ADDED", OBJECT("b", "12")) EVENT("ADDED", OBJECT("c", "13")), STAY),
        };

        open_reflector(script, COUNT_OF(script));
        run_until("+c@13");
        close_reflector("+a@11 +b@12 +c@13 ");
}

static void an_error_lists_again_and_not_older_than_what_is_known(void **state UNUSED)
{
        static const struct step script[] = {
                ROW("resourceVersion=0 ", LIST("10", OBJECT("a", "5")), CUT),
                ROW("watch=true",
                    OK EVENT("ADDED", OBJECT("b", "11"))
                            EVENT("ERROR", "{\"kind\":\"Status\",\"code\":500,\"message\":\"etcd\"}"),
                    CUT),
                ROW("GET /things?resourceVersion=11 ", LIST("20", OBJECT("a", "5")), CUT),
                ROW("resourceVersion=20 ", OK EVENT("ADDED", OBJECT("c", "21")), STAY),
        };

        open_reflector(script, COUNT_OF(script));
        run_until("+c@21");
        close_reflector("+a@5 +b@11 -b@11 +c@21 ");
}

static void a_server_that_was_restored_does_not_know_the_version(void **state UNUSED)
{
        static const struct step script[] = {
                { "resourceVersion=0 ", LIST("10", OBJECT("a", "5")), CUT },
                { "resourceVersion=10 ", OK EVENT("ERROR", "{\"kind\":\"Status\",\"code\":504}"), CUT },
                { "GET /things?resourceVersion=10 ", "HTTP/1.1 504 Later\r\nContent-Length: 0\r\n\r\n", CUT },
                { "GET /things?resourceVersion= ", LIST("7", OBJECT("b", "6")), CUT },
                { "resourceVersion=7 ", OK EVENT("ADDED", OBJECT("c", "8")), STAY },
        };

        open_reflector(script, COUNT_OF(script));
        run_until("+c@8");
        close_reflector("+a@5 +b@6 -a@5 +c@8 ");
}

static void a_version_that_is_gone_is_not_asked_for_again(void **state UNUSED)
{
        static const struct step script[] = {
                { "resourceVersion=0 ", LIST("10", OBJECT("a", "5")), CUT },
                { "resourceVersion=10 ", "HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n", CUT },
                { "GET /things?resourceVersion= ", "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", CUT },
                { "GET /things?resourceVersion= ", LIST("4", OBJECT("b", "3")), CUT },
                { "resourceVersion=4 ", OK EVENT("MODIFIED", OBJECT("b", "6")), STAY },
        };

        open_reflector(script, COUNT_OF(script));
        run_until("~b@6");
        close_reflector("+a@5 +b@3 -a@5 ~b@6 ");
}

/* It accepts the watch, and sends what is newer than a version that it comes to in years. */
static void a_server_that_was_restored_says_nothing(void **state UNUSED)
{
        static const struct step script[] = {
                ROW("resourceVersion=0 ", LIST("10", OBJECT("a", "5")), CUT),
                ROW("resourceVersion=10 ", OK EVENT("BOOKMARK", OBJECT("", "12")), CUT),
                ROW("resourceVersion=12 ", OK, CUT),
                ROW("GET /things?resourceVersion= ", LIST("7", OBJECT("b", "6")), CUT),
                ROW("resourceVersion=7 ", OK EVENT("ADDED", OBJECT("c", "8")), STAY),
        };

        silence_most = 1;
        open_reflector(script, COUNT_OF(script));
        silence_most = 0;
        run_until("+c@8");
        close_reflector("+a@5 +b@6 -a@5 +c@8 ");
}

static void it_waits_as_long_as_it_is_told_to(void **state UNUSED)
{
        static const struct step script[] = {
                ROW("resourceVersion=0 ", "HTTP/1.1 429 Slow\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n",
                    CUT),
                ROW("resourceVersion=0 ", LIST("10", ""), CUT),
                ROW("resourceVersion=10 ", "HTTP/1.1 429 Slow\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n",
                    CUT),
                ROW("resourceVersion=10 ", OK EVENT("ADDED", OBJECT("a", "11")), STAY),
        };

        open_reflector(script, COUNT_OF(script));
        run_until("+a@11");
        assert_true(e.times[1] - e.times[0] >= 2 * USEC_SEC);
        assert_true(e.times[3] - e.times[2] >= 2 * USEC_SEC);
        close_reflector("+a@11 ");
}

static void return_soon(struct task *t UNUSED, usec now UNUSED) { come_back(); }

static void a_server_that_was_away_is_found_again(void **state UNUSED)
{
        static const struct step script[] = {
                { "resourceVersion=0 ", LIST("10", ""), CUT },
                { "resourceVersion=10 ", OK EVENT("ADDED", OBJECT("a", "11")), STAY },
                { "resourceVersion=11 ", OK EVENT("ADDED", OBJECT("b", "12")), STAY },
        };
        struct task later = { .turn = return_soon };

        open_reflector(script, COUNT_OF(script));
        run_until("+a@11");
        go_away();
        loop_arm(e.loop, &later, clock_monotonic(&system_clock) + 1500 * USEC_MSEC);
        run_until("+b@12");
        loop_forget(e.loop, &later);
        close_reflector("+a@11 +b@12 ");
}

/* ---- the token ---------------------------------------------------------- */

static char token_path[] = "/tmp/kube-token-test-XXXXXX";

static void write_token(const char *text)
{
        FILE *f = fopen(token_path, "w");

        assert_non_null(f);
        assert_true(fputs(text, f) >= 0);
        assert_int_equal(fclose(f), 0);
}

static bool answer_failed;
static struct error answer_error;

static void on_answer(void *cookie UNUSED, const struct kube_answer *a)
{
        answer_failed = a->failed;
        answer_error = a->error;
        loop_stop(e.loop);
}

static void ask(void)
{
        (void)kube_send(
                e.client,
                &(struct kube_request){ .method = "GET", .path = "/x", .what = "get x", .done = on_answer });
        run();
}

static void a_token_is_read_again_when_it_has_changed(void **state UNUSED)
{
        static const struct step script[] = {
                { "Authorization: Bearer one\r\n", OK "{}", CUT },
                { "Authorization: Bearer two\r\n", OK "{}", CUT },
        };
        int fd = mkstemp(token_path);

        assert_true(fd >= 0);
        (void)close(fd);
        write_token("one\n");
        open_script(script, COUNT_OF(script), token_path);
        ask();
        assert_false(answer_failed);
        write_token("two\n");
        ask();
        assert_false(answer_failed);
        close_script();
        (void)unlink(token_path);
}

/* The name for TLS is the URL's, the address stays the server's. */
static void another_name_for_tls(void **state UNUSED)
{
        static char name[] = "kubernetes.default";
        static const struct step script[] = {
                { "GET /prefix/x HTTP/1.1\r\nHost: kubernetes.default:", OK "{}", CUT }
        };

        open_script(script, COUNT_OF(script), NULL);
        (void)snprintf(e.url, sizeof(e.url), "http://127.0.0.1:%u/prefix", e.port);
        e.config.tls_server_name = name;
        ask();
        assert_false(answer_failed);
        close_script();
}

static void an_answer_that_breaks_off_is_a_failure(void **state UNUSED)
{
        static const struct step script[] = {
                { "GET /x", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", CUT },
                { "GET /x", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", CUT },
        };

        open_script(script, COUNT_OF(script), NULL);
        for (size_t i = 0; i < COUNT_OF(script); i++) {
                ask();
                assert_true(answer_failed && answer_error.retry);
                assert_int_equal(answer_error.kind, ERROR_UNREACHABLE);
                assert_memory_equal(answer_error.text, "get x: ", 7);
        }
        close_script();
}

/* ---- a proxy that keeps the connection when the server is gone ---------- */

static struct set_clock time_ahead = { .runs = true };
static size_t lines;
static bool ended;
static struct error ended_by;

static void count_line(void *cookie UNUSED, struct str line UNUSED)
{
        lines++;
        loop_stop(e.loop);
}
static void note_end(void *cookie UNUSED, const struct kube_answer *a)
{
        assert_true(a->failed);
        ended = true;
        ended_by = a->error;
        loop_stop(e.loop);
}
static void one_pass(struct task *t UNUSED, usec now UNUSED) { loop_stop(e.loop); }

static void a_watch_that_hears_nothing_ends(void **state UNUSED)
{
        static const struct clock clock = SET_CLOCK(&time_ahead);
        static const struct step script[] = { ROW("GET /watched",
                                                  "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
                                                  "{\"first\":1}\n",
                                                  STAY),
                                              ROW("GET /listed", NULL, STAY) };
        struct task pass = { .turn = one_pass };
        struct kube_call *listing;

        time_ahead.monotonic = 0;
        lines = 0;
        ended = false;
        open_script(script, COUNT_OF(script), NULL);
        loop_use_clock(e.loop, &clock);
        (void)kube_send(e.client, &(struct kube_request){ .method = "GET",
                                                          .path = "/watched",
                                                          .what = "watch",
                                                          .line = count_line,
                                                          .done = note_end,
                                                          .timeout = USEC_HOUR });
        run();
        assert_int_equal(lines, 1);
        listing = kube_send(e.client, &(struct kube_request){ .method = "GET",
                                                              .path = "/listed",
                                                              .what = "list",
                                                              .done = note_end,
                                                              .timeout = USEC_HOUR });
        while (e.at < 2) {
                loop_ready(e.loop, &pass);
                loop_run(e.loop);
        }
        for (int i = 0; i < 3; i++) { /* a byte now and then is enough */
                time_ahead.monotonic += 80 * USEC_SEC;
                loop_ready(e.loop, &pass);
                loop_run(e.loop);
                assert_false(ended);
                push(&e.connections[0], "{}\n");
                loop_run(e.loop);
                assert_int_equal(lines, i + 2);
        }
        time_ahead.monotonic += 91 * USEC_SEC;
        loop_run(e.loop);
        assert_true(ended);
        assert_int_equal(ended_by.kind, ERROR_TIMEOUT);
        assert_true(ended_by.retry);
        assert_non_null(strstr(ended_by.text, "no byte came for 90 s"));
        kube_cancel(listing); /* what is no watch has its own time */
        close_script();
}

/* ---- the checkpoint ----------------------------------------------------- */

/* Values of a checkpoint: as a source gives them, and as they are kept, in JSON's words. */
#define WRITER "me0123456789abcd"
#define VALUE(v) "{\"v\":" v "}"
#define KEPT(v, writer) "\"{\\\"v\\\":" v ",\\\"writer\\\":\\\"" writer "\\\"}\""
#define OURS(v) KEPT(v, WRITER)
#define BEFORE(v) KEPT(v, "before0123456789")
#define THEIRS(v) KEPT(v, "other01234567890")

#define MAP(version, data) OK "{\"metadata\":{\"resourceVersion\":\"" version "\"},\"data\":" data "}"

static struct store store;
static struct buf outcome;
static size_t outcomes, expected_outcomes;

static struct list done;
static struct store_request requests[10];

static void on_store(struct task *t UNUSED, usec now UNUSED)
{
        for (struct request *r; (r = request_next(&done));) {
                struct store_request *q = CONTAINER_OF(r, struct store_request, request);

                buf_printf(&outcome, "%d%s ", (int)(q - requests),
                           request_failed(r) ? error_kind_name(r->error.kind) : "");
                outcomes++;
        }
        if (outcomes >= expected_outcomes)
                loop_stop(e.loop);
}

static void put(size_t number, struct task *wake, const char *value)
{
        requests[number].request.wake = wake;
        requests[number].request.done = &done;
        store_put(&store, &requests[number], STR("timer"), str_of(value));
        expected_outcomes++;
        run();
}

/* The connection breaks while a write is under way: nobody knows whether it was done. */
static void check_cut_write(const struct step *script, size_t n, const char *expected)
{
        struct task wake = { .turn = on_store };
        struct kube_checkpoint *c;
        struct error err;

        outcome = BUF_INIT(4096);
        outcomes = expected_outcomes = 0;
        open_script(script, n, NULL);
        assert_int_equal(
                kube_checkpoint_new(&c, e.client,
                                    &(struct kube_checkpoint_config){
                                            .namespace_ = "n", .name = "t", .owner = "u", .writer = WRITER },
                                    &err),
                0);
        store = kube_checkpoint_port(c);
        put(1, &wake, VALUE("1"));
        put(2, &wake, VALUE("2"));
        put(3, &wake, VALUE("3"));
        assert_string_equal(outcome.p, expected);
        for (size_t i = 0; i < COUNT_OF(requests); i++)
                store_release(&store, &requests[i]);
        (void)kube_checkpoint_free(c);
        loop_forget(e.loop, &wake);
        close_script();
        buf_done(&outcome);
}

static void a_write_that_was_done_is_recognised(void **state UNUSED)
{
        static const struct step script[] = {
                { "GET ", MAP("1", "{}"), CUT },
                { "\"resourceVersion\":\"1\"},\"data\":{\"timer\":" OURS("1") "}", MAP("2", "{}"), CUT },
                { "\"resourceVersion\":\"2\"},\"data\":{\"timer\":" OURS("2") "}", NULL, CUT },
                { "GET ", MAP("3", "{\"timer\":" OURS("2") "}"), CUT },
                { "\"resourceVersion\":\"3\"},\"data\":{\"timer\":" OURS("3") "}", MAP("4", "{}"), CUT },
        };

        check_cut_write(script, COUNT_OF(script), "1 2Unreachable 3 ");
}

static void so_is_one_that_was_not(void **state UNUSED)
{
        static const struct step script[] = {
                { "GET ", MAP("1", "{}"), CUT },
                { "\"data\":{\"timer\":" OURS("1") "}", MAP("2", "{}"), CUT },
                { "\"data\":{\"timer\":" OURS("2") "}", NULL, CUT },
                { "GET ", MAP("2", "{\"timer\":" OURS("1") "}"), CUT },
                { "\"resourceVersion\":\"2\"},\"data\":{\"timer\":" OURS("3") "}", MAP("3", "{}"), CUT },
        };

        check_cut_write(script, COUNT_OF(script), "1 2Unreachable 3 ");
}

static void and_one_that_is_done_late(void **state UNUSED)
{
        static const struct step script[] = {
                ROW("GET ", MAP("1", "{}"), CUT),
                ROW("\"data\":{\"timer\":" OURS("1") "}", MAP("2", "{}"), CUT),
                ROW("\"data\":{\"timer\":" OURS("2") "}", NULL, CUT),
                ROW("GET ", MAP("2", "{\"timer\":" OURS("1") "}"), CUT),
                ROW("\"resourceVersion\":\"2\"},\"data\":{\"timer\":" OURS("3") "}",
                    "HTTP/1.1 409 No\r\nContent-Length: 0\r\n\r\n", CUT),
                ROW("GET ", MAP("3", "{\"timer\":" OURS("2") "}"), CUT),
                ROW("\"resourceVersion\":\"3\"},\"data\":{\"timer\":" OURS("3") "}", MAP("4", "{}"), CUT),
        };

        check_cut_write(script, COUNT_OF(script), "1 2Unreachable 3 ");
}

static void and_another_writers_is_not_ours(void **state UNUSED)
{
        static const struct step script[] = {
                { "GET ", MAP("1", "{}"), CUT },
                { "\"data\":{\"timer\":" OURS("1") "}", MAP("2", "{}"), CUT },
                { "\"data\":{\"timer\":" OURS("2") "}", NULL, CUT },
                { "GET ", MAP("3", "{\"timer\":" THEIRS("9") "}"), CUT },
        };

        check_cut_write(script, COUNT_OF(script), "1 2Unreachable 3Conflict ");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(an_event_is_told_when_its_line_is_whole),
                cmocka_unit_test(a_watch_cut_in_a_line_goes_on_at_the_last_whole_one),
                cmocka_unit_test(a_line_that_cannot_be_read_loses_nothing),
                cmocka_unit_test(an_error_lists_again_and_not_older_than_what_is_known),
                cmocka_unit_test(a_server_that_was_restored_does_not_know_the_version),
                cmocka_unit_test(a_server_that_was_restored_says_nothing),
                cmocka_unit_test(a_version_that_is_gone_is_not_asked_for_again),
                cmocka_unit_test(it_waits_as_long_as_it_is_told_to),
                cmocka_unit_test(a_server_that_was_away_is_found_again),
                cmocka_unit_test(a_token_is_read_again_when_it_has_changed),
                cmocka_unit_test(another_name_for_tls),
                cmocka_unit_test(an_answer_that_breaks_off_is_a_failure),
                cmocka_unit_test(a_watch_that_hears_nothing_ends),
                cmocka_unit_test(a_write_that_was_done_is_recognised),
                cmocka_unit_test(so_is_one_that_was_not),
                cmocka_unit_test(and_one_that_is_done_late),
                cmocka_unit_test(and_another_writers_is_not_ours),
        };
        signals_block();
        return cmocka_run_group_tests_name("kube streams", tests, NULL, NULL);
}
