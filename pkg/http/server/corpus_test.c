#include "base/random.h"
#include "http/server/testing.h"

static struct {
        size_t handled;
        bool smuggled;
} app;

static void handle(void *cookie UNUSED, struct http_call *call)
{
        BUF_AT_END struct buf out = BUF_INIT(65536);
        const struct http_message *m = http_call_message(call);

        app.handled++;
        app.smuggled = app.smuggled || str_is(buf_view(&m->target), "/smuggled");
        case_answer(m, &out);
        http_call_reply(call, 200, STR("text/plain"), (struct str){ 0 }, buf_view(&out));
}

static void refused(void *cookie UNUSED, struct http_refused *r)
{
        if (r->kind == HTTP_HEADER_TOO_LARGE)
                r->status = 494;
        buf_text(r->headers, "X-Refused: yes\r\n");
}

static int setup(void **state UNUSED)
{
        struct http_server_config config = { .address = "127.0.0.1:0",
                                             .target_max = case_limits.target_max,
                                             .header_max = case_limits.header_max,
                                             .headers_max = case_limits.headers_max,
                                             .head_max = case_limits.head_max,
                                             .body_max = case_limits.body_max,
                                             .handle = handle,
                                             .refused = refused,
                                             .half_close = 20 * USEC_SEC };
        struct http_server_tls tls = { .cert = tls_cert, .key = tls_key };
        struct error err;

        overdue = false;
        watchdog = (struct task){ .turn = too_late };
        config.tls = over_tls ? &tls : NULL;
        if (loop_new(&loop, &err) < 0 || http_server_new(&server, loop, &config, &err) < 0)
                fail_msg("%s", err.text);
        return 0;
}

static int teardown(void **state UNUSED)
{
        struct http_server_stats stats;

        http_server_stats(server, &stats);
        server = http_server_free(server);
        loop = loop_free(loop);
        return stats.buffered > (size_t)1 << 20; /* nothing is left of the connections */
}

/* The statuses of the answers, in order. Interim ones come or not, as the bytes came. */
static size_t statuses_of(const struct buf *in, int *out, size_t most)
{
        size_t n = 0;

        for (const char *at = in->p; at && (at = strstr(at, "HTTP/1.1 ")); at += 9) {
                int status = atoi(at + 9);

                if ((at == in->p || at[-1] == '\n') && status >= 200 && n < most)
                        out[n++] = status;
        }
        return n;
}

static void until_answered(struct peer *p, size_t answers)
{
        int statuses[64];

        p->until = "\r\n\r\n";
        p->times = 1;
        while (!p->closed && statuses_of(&p->in, statuses, 64) < answers)
                run();
}

static void run_case(const struct http_case *c, size_t piece)
{
        int found[64];
        size_t n, answered = c->statuses_n + (c->end == CASE_OPEN);
        struct peer p;

        (void)snprintf(under_way, sizeof(under_way), "%s, in pieces of %zu%s", c->name, piece,
                       over_tls ? ", TLS" : "");
        app.handled = 0;
        app.smuggled = false;
        peer_connect(&p);
        p.piece = piece;
        p.shut = c->end == CASE_WAITS;
        peer_say_bytes(&p, buf_view(&c->bytes));
        if (c->end != CASE_WAITS)
                peer_say(&p, FURTHER);
        if (c->end == CASE_OPEN)
                until_answered(&p, answered);
        else
                (void)peer_await(&p, NULL, 0);
        n = statuses_of(&p.in, found, COUNT_OF(found));
        if (n != answered || app.smuggled || p.closed != (c->end != CASE_OPEN))
                fail_msg("%s: %zu answers instead of %zu%s, %s: %s", under_way, n, answered,
                         app.smuggled ? ", smuggled" : "", p.closed ? "closed" : "open", buf_view(&p.in).p);
        for (size_t i = 0; i < c->statuses_n; i++)
                if (found[i] != c->statuses[i])
                        fail_msg("%s: %d instead of %d", under_way, found[i], c->statuses[i]);
        if (c->end == CASE_CLOSED && c->statuses[c->statuses_n - 1] != 200)
                assert_true(strstr(p.in.p, "Connection: close") && strstr(p.in.p, "X-Refused: yes"));
        for (size_t i = 0; i < c->contains_n; i++)
                if (!strstr(buf_view(&p.in).p, c->contains[i]))
                        fail_msg("%s: \"%s\" is not in \"%s\"", under_way, c->contains[i], p.in.p);
        peer_done(&p);
}

static void cases_over_sockets(void **state UNUSED)
{
        static const size_t pieces[] = { 1, 2, 7, SIZE_MAX };

        for (size_t i = 0; i < cases_n; i++)
                for (size_t j = 0; j < COUNT_OF(pieces); j++)
                        run_case(&cases[i], pieces[j]);
}

/* ---- mutants ------------------------------------------------------------ */

static const char *const bits[] = { "\r\n",
                                    "\n",
                                    "\r",
                                    " ",
                                    "\t",
                                    ":",
                                    ",",
                                    "0",
                                    "chunked",
                                    "Content-Length: 3\r\n",
                                    "Transfer-Encoding: chunked\r\n",
                                    "Host: h\r\n",
                                    "\r\n\r\n",
                                    "HTTP/1.1",
                                    "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n",
                                    "0\r\n\r\n",
                                    ";",
                                    "\xff",
                                    "Connection: close\r\n",
                                    "Expect: 100-continue\r\n" };

static void mutate(struct random *r, struct buf *b)
{
        BUF_AT_END struct buf tail = BUF_INIT(1 << 20);
        size_t at = b->n ? (size_t)(random_next(r) % b->n) : 0,
               n = MIN_OF((size_t)(random_next(r) % 16), b->n - at);

        buf_add(&tail, b->p + at, b->n - at);
        switch (random_next(r) % 5) {
        case 0: tail.p[0] = (char)random_next(r); break;
        case 1: tail.p[0] = (char)(tail.p[0] ^ (1 << random_next(r) % 8)); break;
        case 2: buf_drop(&tail, n); break;
        case 3: buf_add(&tail, b->p + at, n); break;
        default:
                b->n = at;
                buf_text(b, bits[random_next(r) % COUNT_OF(bits)]);
                buf_str(b, buf_view(&tail));
                return;
        }
        b->n = at;
        buf_str(b, buf_view(&tail));
}

static void a_good_request_is_served(void)
{
        struct peer p;

        peer_connect(&p);
        peer_say(&p, FURTHER);
        assert_non_null(strstr(peer_await(&p, "GET /further host=h", 1), "200 OK"));
        peer_done(&p);
}

static void run_mutant(struct random *r, uint64_t number)
{
        BUF_AT_END struct buf bytes = BUF_INIT(1 << 20);
        static const size_t pieces[] = { 1, 3, 20, 100, SIZE_MAX, SIZE_MAX, SIZE_MAX, SIZE_MAX };
        int found[256];
        size_t n, good = 0;
        struct peer p;

        for (size_t i = 0, most = 1 + random_next(r) % 3; i < most; i++)
                buf_str(&bytes, buf_view(&cases[random_next(r) % cases_n].bytes));
        for (size_t i = 0, most = 1 + random_next(r) % 4; i < most; i++)
                mutate(r, &bytes);
        (void)snprintf(under_way, sizeof(under_way), "mutant %llu", (unsigned long long)number);
        app.handled = 0;
        peer_connect(&p);
        p.piece = bytes.n < 2000 ? pieces[random_next(r) % COUNT_OF(pieces)] : SIZE_MAX;
        p.shut = true;
        peer_say_bytes(&p, buf_view(&bytes));
        (void)peer_await(&p, NULL, 0);
        n = statuses_of(&p.in, found, COUNT_OF(found));
        while (good < n && found[good] == 200)
                good++;
        /* Behind a refusal is nothing, and what was handled was answered. */
        if (n > good + 1 || (n < COUNT_OF(found) && app.handled != good))
                fail_msg("%s: %zu handled, %zu answers, %zu of them good: %s", under_way, app.handled, n,
                         good, p.in.p);
        peer_done(&p);
}

/* MUTANTS=20000 SEED=1 */
static void mutants(void **state UNUSED)
{
        const char *number = getenv("MUTANTS"), *seed = getenv("SEED");
        uint64_t most = number ? strtoull(number, NULL, 10) : 1000;
        struct random r;

        random_init(&r, seed ? strtoull(seed, NULL, 10) : 1);
        for (uint64_t i = 0; i < most; i++) {
                run_mutant(&r, i);
                if (i % 50 == 0)
                        a_good_request_is_served();
        }
        a_good_request_is_served();
}

static int tls_setup(void **state) { return flavour_tls(state) || cases_load(state); }
static int tls_teardown(void **state) { return flavour_tls_done(state) || cases_free(state); }

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(cases_over_sockets, setup, teardown),
                cmocka_unit_test_setup_teardown(mutants, setup, teardown),
        };

        if (getenv("TEST_FILTER"))
                cmocka_set_test_filter(getenv("TEST_FILTER"));
        return cmocka_run_group_tests_name("corpus, plain", tests, cases_load, cases_free) +
               cmocka_run_group_tests_name("corpus, TLS", tests, tls_setup, tls_teardown);
}
