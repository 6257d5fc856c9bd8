/* What the client does over HTTP/1.1 and HTTP/2, with and without TLS, alike. */
#include <zlib.h>

#include <curl/curl.h>

#include "base/random.h"
#include "http/client/connection.h"
#include "http/client/testing.h"

static enum flavour flavour;
static struct identity authority, leaf;
static struct buf authority_pem;

static bool http2(void) { return flavour == PLAIN_2 || flavour == TLS_2; }
static bool tls(void) { return flavour == TLS_1 || flavour == TLS_2; }

static struct http_target_config config(void)
{
        return (struct http_target_config){ .http_version = tls()     ? HTTP_AUTO
                                                            : http2() ? HTTP_2_PRIOR_KNOWLEDGE
                                                                      : HTTP_1_1,
                                            .tls.ca_pem = buf_view(&authority_pem) };
}

static int setup(void **state)
{
        flavour = (enum flavour)(uintptr_t)*state;
        if (client_setup() < 0)
                return -1;
        server.http2 = http2();
        if (tls())
                server.tls = server_tls(&server, &leaf);
        server_listen(&server, "127.0.0.1", 0);
        (void)snprintf(url, sizeof(url), "%s://127.0.0.1:%u/f?x=1", tls() ? "https" : "http", server.port);
        return 0;
}

static int teardown(void **state UNUSED) { return client_teardown(); }

static void requests_share_a_connection(void **state UNUSED)
{
        struct http_target_config c = config();

        c.headers = STR("Content-Type: application/json\r\nX-Const: yes\r\nConnection: keep-alive\r\n");
        aim(c);
        for (int i = 0; i < 20; i++) {
                if (request()->failed)
                        fail_msg("%s", done[i].c.error.text);
                assert_int_equal(done[i].c.status, 200);
                assert_string_equal(done[i].body, "ok");
                assert_true(str_is(http_head_find(done[i].c.head, STR("content-LENGTH")), "2"));
        }
        assert_int_equal(server.peers_n, 1);
        assert_int_equal(http_target_connections(target), 1);
        for (size_t i = 0; i < server.calls_n; i++) {
                struct http_message m = { .head = server.calls[i].head };

                assert_string_equal(server.calls[i].method, "POST");
                assert_string_equal(server.calls[i].path, "/f?x=1");
                assert_true(str_is(http_message_header(&m, STR("x-const")), "yes"));
                assert_true(str_is(http_message_header(&m, STR("x-id")), "1"));
                assert_true(str_is(http_message_header(&m, STR("content-length")), "4"));
                assert_true(str_is(http_message_header(&m, STR("user-agent")), "sluice"));
                assert_int_equal(http_message_header(&m, STR("host")).n > 0, !http2());
                assert_int_equal(http_message_header(&m, STR("connection")).n > 0, !http2());
                assert_true(str_is(buf_view(&server.calls[i].body), "body"));
        }
        if (tls())
                assert_string_equal(server.peers[0].alpn, http2() ? "h2" : "http/1.1");
}

static void a_request_has_a_method_and_a_path(void **state UNUSED)
{
        struct error err;

        aim(config());
        submit_request(1, (struct http_request){ .method = "PUT", .path = STR("/init") });
        submit_request(2, (struct http_request){ .path = STR("/invoke?a") });
        submit_request(3, (struct http_request){ .method = "DELETE", .message = message_of(3, STR("")) });
        await(3);
        submit_request(4, (struct http_request){ .method = "HEAD", .message = message_of(4, STR("")) });
        await(4);
        submit_request(5, (struct http_request){ .method = "GET", .message = message_of(5, STR("")) });
        await(5);
        for (size_t i = 0; i < server.calls_n; i++)
                if (strcmp(server.calls[i].method, "PUT") == 0)
                        assert_string_equal(server.calls[i].path, "/init");
                else if (strcmp(server.calls[i].method, "POST") == 0)
                        assert_string_equal(server.calls[i].path, "/invoke?a");
                else
                        assert_string_equal(server.calls[i].path, "/f?x=1");
        for (size_t i = 0; i < 5; i++) {
                assert_false(done[i].c.failed);
                assert_string_equal(done[i].body, done[i].c.tag == 4 ? "" : "ok");
                assert_true(str_is(http_head_find(done[i].c.head, STR("Content-Length")), "2"));
        }
        for (size_t i = 0; i < 3; i++) {
                const struct http_request bad[] = { { .method = "G T" },
                                                    { .path = STR("x") },
                                                    { .path = STR("/a b") } };
                struct http_request q = bad[i];

                q.target = target;
                q.message = message_of(9, STR("b"));
                assert_int_equal(port_submit(&wake, 9, &q, &err), -1);
                assert_int_equal(err.kind, ERROR_INVALID);
        }
}

static void answer_long(struct call *c)
{
        BUF_AT_END struct buf text = BUF_INIT(20000);

        buf_printf(&text, "%010000d", 0);
        reply(c, 500, "Retry-After: 7\r\nX-A: 1\r\nX-a: 2\r\n", buf_view(&text));
}

static void a_long_answer_is_cut_and_its_head_is_there(void **state UNUSED)
{
        aim(config());
        server.handle = answer_long;
        for (int i = 0; i < 3; i++) {
                assert_int_equal(request()->status, 500);
                assert_true(done[i].c.body_cut);
                assert_int_equal(strlen(done[i].body), 100);
                assert_int_equal(done[i].c.retry_after, 7 * USEC_SEC);
                assert_true(str_is(http_head_find(done[i].c.head, STR("x-a")), "1"));
                assert_int_equal(http_head_find(done[i].c.head, STR("x-b")).n, 0);
        }
        assert_int_equal(server.peers_n, 1);
}

static struct buf endless = BUF_INIT(4 << 20);

static void answer_without_end(struct call *c) { reply(c, 200, "", buf_view(&endless)); }

/* Whoever never stops answering has answered once there is enough of it. */
static void an_answer_without_end_is_left(void **state UNUSED)
{
        struct http_target_config c = config();

        c.answer_read_max = 100000;
        aim(c);
        while (endless.n < 4000000)
                buf_text(&endless, "and so on, and ");
        server.handle = answer_without_end;
        assert_int_equal(request()->status, 200);
        assert_true(done[0].c.body_cut);
        assert_int_equal(strlen(done[0].body), 100);
        server.handle = answer_ok;
        assert_int_equal(request()->status, 200);
        assert_false(done[1].c.body_cut);
        if (server.http2)
                assert_true(reply_bodies[(reply_bodies_n - 2) % CALLS].n > endless.n / 2);
        else
                assert_int_equal(server.peers_n, 2);
        buf_done(&endless);
}

static void many_are_in_flight(void **state UNUSED)
{
        bool seen[MOST] = { false };
        struct http_target_config c = config();

        c.max_connections = 16;
        aim(c);
        for (uint64_t tag = 0; tag < 200; tag++)
                submit(tag);
        await(200);
        assert_in_range(server.peers_n, 1, http2() ? 4 : 16);
        assert_int_equal(server.requests, 200);
        for (size_t i = 0; i < 200; i++) {
                assert_false(done[i].c.failed);
                assert_false(seen[done[i].c.tag]);
                seen[done[i].c.tag] = true;
        }
}

static bool two_came(void) { return server.requests >= 2; }
static bool three_came(void) { return server.requests >= 3; }

static void a_cancelled_request_has_no_completion(void **state UNUSED)
{
        struct http_target_config c = config();

        c.max_connections = 2;
        aim(c);
        server.handle = answer_nothing;
        submit(1);
        submit(2);
        submit(3);
        run_until(http2() ? three_came : two_came);
        port_cancel(1);
        port_cancel(3);
        port_cancel(2);
        server.handle = answer_ok;
        submit(4);
        await(1);
        assert_int_equal(done[0].c.tag, 4);
        if (http2())
                assert_int_equal(server.peers_n, 1);
}

static void a_request_cancelled_at_once_leaves_nothing(void **state UNUSED)
{
        aim(config());
        assert_false(request()->failed);
        submit(1);
        port_cancel(1);
        buf_done(&messages[1]);
        submit(2);
        await(2);
        assert_int_equal(done[1].c.tag, 2);
        assert_false(done[1].c.failed);
}

static void answer_the_second(struct call *c)
{
        if (server.requests % 2 == 0)
                answer_ok(c);
}

static void an_answer_has_a_time_of_its_own(void **state UNUSED)
{
        struct http_target_config c = config();

        c.response_timeout = 300 * USEC_MSEC;
        c.max_connections = 2;
        aim(c);
        server.handle = answer_the_second;
        submit(1);
        submit(2);
        await(2);
        assert_int_equal(done[0].c.tag, 2);
        assert_int_equal(done[0].c.status, 200);
        assert_int_equal(done[1].c.tag, 1);
        assert_true(done[1].c.failed && done[1].c.error.retry && done[1].c.maybe_processed);
        assert_int_equal(done[1].c.error.kind, ERROR_TIMEOUT);
        assert_non_null(strstr(done[1].c.error.text, "no answer within 300 ms of the request"));
        server.handle = answer_ok;
        assert_false(request()->failed);
        assert_int_equal(server.requests, 3); /* it was not sent again */
        if (http2())
                assert_int_equal(server.peers_n, 1);
}

static void hang_up(struct call *c) { peer_close(c->peer); }

static void a_peer_that_leaves_may_have_processed(void **state UNUSED)
{
        aim(config());
        server.handle = hang_up;
        assert_true(request()->failed);
        assert_true(done[0].c.error.retry);
        assert_true(done[0].c.maybe_processed);
        assert_non_null(strstr(done[0].c.error.text, url));
        server.handle = answer_ok;
        assert_false(request()->failed);
        assert_false(done[1].c.maybe_processed);
}

static void hang_up_on_the_used(struct call *c)
{
        if (c->peer->served > 1)
                peer_close(c->peer);
        else
                answer_ok(c);
}

/* The race of an idle connection: it closes as the request leaves. The request goes out on a fresh one, once.
 */
static void a_stale_connection_is_replaced(void **state UNUSED)
{
        aim(config());
        for (size_t i = 0; i < 4; i++) {
                assert_false(request()->failed);
                assert_int_equal(server.peers_n, i + 1);
                peer_close(&server.peers[i]); /* no pass of the loop between this and the next request */
        }
        server.handle = hang_up;
        assert_true(request()->failed);
        assert_true(done[4].c.maybe_processed);
        assert_int_equal(server.peers_n, 5);
}

/* However soon it closes afterwards: whoever has read the request may have worked on it. */
static void what_the_peer_has_seen_is_not_sent_again(void **state UNUSED)
{
        const struct completion *c;

        aim(config());
        server.handle = hang_up_on_the_used;
        assert_false(request()->failed);
        c = request();
        assert_true(c->failed && c->error.retry && c->maybe_processed);
        assert_int_equal(server.requests, 2);
        assert_int_equal(server.peers_n, 1);
}

static void a_refused_connection_names_the_url(void **state UNUSED)
{
        server_stop_listening(&server);
        aim(config());
        assert_true(request()->failed);
        assert_true(done[0].c.error.retry);
        assert_false(done[0].c.maybe_processed);
        assert_int_equal(done[0].c.error.kind, ERROR_UNREACHABLE);
        assert_non_null(strstr(done[0].c.error.text, url));
}

static struct buf long_answer;
static size_t most_held;

static void answer_at_length(struct call *c) { reply(c, 200, "", buf_view(&long_answer)); }

static bool eight_answered(void)
{
        most_held = MAX_OF(most_held, client->large_held);
        return done_n >= 8;
}

/* Only so many are read at the same time as there is room for. */
static void eight_take_turns(struct http_target_config c, size_t two)
{
        c.max_connections = 8;
        aim(c);
        http_client_limit_answers(client, two);
        most_held = 0;
        server.handle = answer_at_length;
        for (uint64_t tag = 1; tag <= 8; tag++)
                submit(tag);
        run_until(eight_answered);
        for (size_t i = 0; i < 8; i++)
                assert_false(done[i].c.failed);
        assert_int_equal(most_held, two);
        server.handle = answer_ok;
        assert_int_equal(request()->status, 200);
        assert_int_equal(client->large_held, 0);
        assert_int_equal(client->stalled.n, 0);
}

static void large_answers_take_turns(void **state UNUSED)
{
        struct http_target_config c = config();

        c.answer_max = 1 << 20;
        long_answer.max = 1 << 20;
        while (long_answer.n < 900 * 1024)
                buf_text(&long_answer, "an answer that is long, ");
        eight_take_turns(c, 2 << 20);
        for (size_t i = 0; i < 8; i++) { /* all came whole */
                assert_int_equal(done[i].c.body.n, long_answer.n);
                assert_false(done[i].c.body_cut);
        }
        buf_done(&long_answer);
}

/* What is taken out of an answer counts as well as what is kept of it as it came. */
static void large_members_take_turns(void **state UNUSED)
{
        struct http_target_config c = config();

        c.answer_max = 100;
        c.answer_member = "failed";
        long_answer.max = 1 << 20;
        buf_text(&long_answer, "{\"failed\": [");
        while (long_answer.n < 900 * 1024)
                buf_text(&long_answer, "\"an item that is long\", ");
        buf_text(&long_answer, "1]}");
        eight_take_turns(c, 2 * (c.answer_max + (8 << 20)));
        for (size_t i = 0; i < 8; i++)
                assert_true(done[i].c.body_cut);
        buf_done(&long_answer);
}

/* After a peak of answers little is kept of what they took: their heads count as well. */
static void a_peak_leaves_little(void **state UNUSED)
{
        enum { PEAK = MOST };
        struct http_target_config c = config();
        size_t kept = 0;

        c.max_connections = PEAK;
        c.answer_max = 60000;
        aim(c);
        long_answer.max = 60000;
        while (long_answer.n < 50000)
                buf_text(&long_answer, "an answer that is long, ");
        server.handle = answer_at_length;
        for (uint64_t tag = 1; tag < PEAK; tag++)
                submit(tag);
        await(PEAK - 1);
        LIST_EACH (struct exchange, x, &client->spare, node)
                kept += x->head.cap + x->body.cap;
        assert_true(kept <= 1 << 20);
        buf_done(&long_answer);
}

static void large_bodies_pass(void **state UNUSED)
{
        BUF_AT_END struct buf body = BUF_INIT(8 << 20);

        for (int i = 0; i < 400000; i++)
                buf_printf(&body, "%07d-", i);
        aim(config());
        for (uint64_t tag = 1; tag < 4; tag++)
                submit_request(tag, (struct http_request){ .message = message_of(tag, buf_view(&body)) });
        await(3);
        for (size_t i = 0; i < 3; i++) {
                assert_false(done[i].c.failed);
                assert_true(str_equal(buf_view(&server.calls[i].body), buf_view(&body)));
        }
}

/* What waits for long takes no more room than it needs; packed, too. */
static void a_request_may_have_a_headroom_of_its_own(void **state UNUSED)
{
        struct str own = STR("X-Id: 7\r\n"), path = STR("/elsewhere?a=b");
        BUF_AT_END struct buf body = BUF_INIT(100000);
        struct http_target_config c = config();

        c.compress = true;
        aim(c);
        buf_text(&body, "too short to be packed");
        for (size_t packed = 0; packed < 2; packed++) {
                struct http_request q = { .headers = own, .path = path, .message = &messages[packed] };
                struct call *call = &server.calls[packed];
                struct http_message m = { 0 };

                q.headroom = HTTP_HEADROOM_LEAST + own.n + path.n;
                messages[packed].max = 1 << 20;
                buf_reset(&messages[packed]);
                assert_true(buf_reserve(&messages[packed], q.headroom + body.n));
                messages[packed].n = q.headroom;
                buf_str(&messages[packed], buf_view(&body));
                submit_request(packed, q);
                await(done_n + 1);
                assert_false(done[packed].c.failed);
                m.head = call->head;
                assert_true(str_is(http_message_header(&m, STR("x-id")), "7"));
                assert_string_equal(call->path, path.p);
                assert_true(packed ? call->body.n < body.n / 10
                                   : str_equal(buf_view(&call->body), buf_view(&body)));
                for (int i = 0; i < 4096; i++)
                        buf_char(&body, (char)('a' + i % 3));
        }
}

static void compression_is_undone_by_gzip(void **state UNUSED)
{
        BUF_AT_END struct buf body = BUF_INIT(100000), noise = BUF_INIT(100000), found = BUF_INIT(100000);
        struct http_target_config c = config();
        struct random r;
        z_stream z = { 0 };

        random_init(&r, 1);
        for (int i = 0; i < 5000; i++) {
                buf_printf(&body, "%d,", i % 7);
                buf_char(&noise, (char)random_below(&r, 256));
        }
        c.compress = true;
        aim(c);
        for (int i = 0; i < 2; i++) { /* the caller's message stays as it was and goes again */
                if (i == 0)
                        (void)message_of(0, buf_view(&body));
                submit_request(0, (struct http_request){ .message = &messages[0] });
                await(done_n + 1);
        }
        assert_true(str_equal((struct str){ messages[0].p + HTTP_HEADROOM, messages[0].n - HTTP_HEADROOM },
                              buf_view(&body)));
        for (size_t i = 0; i < 2; i++) {
                struct call *call = &server.calls[i];
                struct http_message m = { .head = call->head };

                assert_true(str_is(http_message_header(&m, STR("content-encoding")), "gzip"));
                assert_true(call->body.n < body.n / 10);
                assert_int_equal(inflateInit2(&z, 15 + 16), Z_OK);
                buf_reset(&found);
                assert_true(buf_reserve(&found, body.n));
                z.next_in = (unsigned char *)call->body.p, z.avail_in = (unsigned)call->body.n;
                z.next_out = (unsigned char *)found.p, z.avail_out = (unsigned)body.n;
                assert_int_equal(inflate(&z, Z_FINISH), Z_STREAM_END);
                assert_memory_equal(found.p, body.p, body.n);
                (void)inflateEnd(&z);
        }
        /* What does not get smaller, and what is small, goes as it is. */
        submit_request(1, (struct http_request){ .message = message_of(1, buf_view(&noise)) });
        await(3);
        submit_request(2, (struct http_request){ .message = message_of(2, (struct str){ body.p, 1000 }) });
        await(4);
        assert_true(str_equal(buf_view(&server.calls[2].body), buf_view(&noise)));
        assert_int_equal(server.calls[3].body.n, 1000);
}

static bool rejuvenated(void)
{
        if (done_n == wanted) {
                if (done_n && done[0].c.failed)
                        fail_msg("%s", done[0].c.error.text);
                done_n = 0;
                wanted = 1;
                submit(0);
        }
        if (server.calls_n == CALLS - 2)
                calls_forget();
        return server.peers_n >= 3;
}

static void connections_have_an_age(void **state UNUSED)
{
        struct http_target_config c = config();

        c.max_age = 40 * USEC_MSEC;
        c.max_connections = 1;
        aim(c);
        run_until(rejuvenated);
        assert_in_range(http_target_connections(target), 0, 2);
}

static bool replaced(void) { return server.peers_n == 2 && server.peers[0].fd < 0; }
static bool one_came(void) { return server.requests >= 1; }
static struct call *kept;
static void keep(struct call *c) { kept = c; }
static bool second_stands(void) { return server.peers_n == 2 && (!tls() || server.peers[1].accepted); }

static void refreshing_makes_new_before_old_is_closed(void **state UNUSED)
{
        struct http_target_config c = config();

        c.max_connections = 1;
        aim(c);
        server.handle = keep;
        submit(1);
        run_until(one_came);
        http_target_refresh(target);
        run_until(second_stands);
        assert_true(server.peers[0].fd >= 0);
        reply(kept, 200, "", STR("late"));
        await(1);
        assert_string_equal(done[0].body, "late");
        run_until(replaced);
        server.handle = answer_ok;
        assert_false(request()->failed);
        assert_int_equal(server.peers_n, 2);
        assert_int_equal(http_target_connections(target), 1);
}

static void releasing_cancels_what_is_under_way(void **state UNUSED)
{
        struct http_target_config c = config();

        c.max_connections = 2;
        aim(c);
        server.handle = answer_nothing;
        for (uint64_t tag = 0; tag < 5; tag++)
                submit(tag);
        run_until(two_came);
        port_release_all();
        assert_int_equal(done_n, 0);
}

static int group_setup(void **state UNUSED)
{
        authority = identity_new((struct identity_config){
                .name = "test authority", .authority = true, .key_usage = IDENTITY_SIGNS });
        leaf = identity_new((struct identity_config){
                .issuer = &authority, .name = "localhost", .alternatives = "DNS:localhost,IP:127.0.0.1" });
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
        static const struct {
                const char *name;
                CMUnitTestFunction run;
        } all[] = {
                { "requests_share_a_connection", requests_share_a_connection },
                { "a_request_has_a_method_and_a_path", a_request_has_a_method_and_a_path },
                { "a_long_answer_is_cut_and_its_head_is_there", a_long_answer_is_cut_and_its_head_is_there },
                { "an_answer_without_end_is_left", an_answer_without_end_is_left },
                { "many_are_in_flight", many_are_in_flight },
                { "a_cancelled_request_has_no_completion", a_cancelled_request_has_no_completion },
                { "a_request_cancelled_at_once_leaves_nothing", a_request_cancelled_at_once_leaves_nothing },
                { "an_answer_has_a_time_of_its_own", an_answer_has_a_time_of_its_own },
                { "a_peer_that_leaves_may_have_processed", a_peer_that_leaves_may_have_processed },
                { "a_stale_connection_is_replaced", a_stale_connection_is_replaced },
                { "what_the_peer_has_seen_is_not_sent_again", what_the_peer_has_seen_is_not_sent_again },
                { "a_refused_connection_names_the_url", a_refused_connection_names_the_url },
                { "a_peak_leaves_little", a_peak_leaves_little },
                { "large_bodies_pass", large_bodies_pass },
                { "large_answers_take_turns", large_answers_take_turns },
                { "large_members_take_turns", large_members_take_turns },
                { "a_request_may_have_a_headroom_of_its_own", a_request_may_have_a_headroom_of_its_own },
                { "compression_is_undone_by_gzip", compression_is_undone_by_gzip },
                { "connections_have_an_age", connections_have_an_age },
                { "refreshing_makes_new_before_old_is_closed", refreshing_makes_new_before_old_is_closed },
                { "releasing_cancels_what_is_under_way", releasing_cancels_what_is_under_way },
        };
        static char names[COUNT_OF(all) * FLAVOURS][96];
        struct CMUnitTest tests[COUNT_OF(all) * FLAVOURS];
        int result;

        for (size_t i = 0; i < COUNT_OF(tests); i++) {
                enum flavour f = (enum flavour)(i / COUNT_OF(all));

                (void)snprintf(names[i], sizeof(names[i]), "%s over %s", all[i % COUNT_OF(all)].name,
                               flavour_names[f]);
                tests[i] = (struct CMUnitTest){ names[i], all[i % COUNT_OF(all)].run, setup, teardown,
                                                (void *)(uintptr_t)f };
        }
        filter_tests();
        result = cmocka_run_group_tests_name("flavours", tests, group_setup, group_teardown);
        curl_global_cleanup();
        return result;
}
