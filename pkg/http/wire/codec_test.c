#include "http/wire/codec.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* Feeds the text in pieces of a size and describes what came: one line a message, "!" and a status for a
 * fault. */
static void describe(bool request, struct str text, size_t piece, bool eof, struct buf *out)
{
        struct http_codec c;
        struct error err;

        http_codec_init(&c, request, 1000, 100);
        c.refuse_large_body = request;
        while (text.n) {
                size_t n = MIN_OF(piece, text.n), used;
                char *exact = malloc(n);

                assert_non_null(exact);
                memcpy(exact, text.p, n);
                if (http_codec_feed(&c, (struct str){ exact, n }, &used, &err) < 0) {
                        buf_printf(out, "!%d", c.refuse_status);
                        free(exact);
                        http_codec_done(&c);
                        return;
                }
                free(exact);
                assert_true(used <= n && used > 0);
                text.p += used;
                text.n -= used;
                if (!c.message.complete)
                        continue;
                if (request)
                        buf_printf(out, "%s " STR_FMT, http_method_name(&c.message),
                                   STR_ARG(buf_view(&c.message.target)));
                else
                        buf_printf(out, "%d", c.message.status);
                buf_printf(out, " x=" STR_FMT " body=" STR_FMT "%s%s\n",
                           STR_ARG(http_message_header(&c.message, STR("x"))),
                           STR_ARG(buf_view(&c.message.body)), c.message.body_cut ? " cut" : "",
                           c.message.keep_alive ? "" : " close");
                http_codec_next(&c);
                assert_false(c.started);
        }
        if (eof) {
                if (http_codec_eof(&c, &err) < 0)
                        buf_text(out, "!eof");
                else if (c.message.complete)
                        buf_printf(out, "%d x=" STR_FMT " body=" STR_FMT "%s\n", c.message.status,
                                   STR_ARG(http_message_header(&c.message, STR("x"))),
                                   STR_ARG(buf_view(&c.message.body)), c.message.keep_alive ? "" : " close");
        }
        http_codec_done(&c);
}

static void expect(bool request, const char *text, bool eof, const char *outcome)
{
        size_t n = strlen(text);

        for (size_t piece = 1; piece <= n; piece++) {
                BUF_AT_END struct buf found = BUF_INIT(10000);

                describe(request, str_of(text), piece, eof, &found);
                if (!str_is(buf_view(&found), outcome))
                        fail_msg("in pieces of %zu: \"%s\" instead of \"%s\"; text: %s", piece,
                                 buf_view(&found).p, outcome, text);
        }
}

static void requests(void **state UNUSED)
{
        expect(true, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", false, "GET / x= body=\n");
        expect(true, "POST /a?b HTTP/1.1\r\nHost: a\r\nX: 1\r\nContent-Length: 5\r\n\r\nhello", false,
               "POST /a?b x=1 body=hello\n");
        expect(true,
               "POST / HTTP/1.1\r\nX:   spaced out  \r\nx: second\r\nTransfer-Encoding: "
               "chunked\r\n\r\n2\r\nhe\r\n3;ext=1\r\nllo\r\n0\r\n\r\n",
               false, "POST / x=spaced out body=hello\n");
        expect(true, "GET / HTTP/1.0\r\n\r\n", false, "GET / x= body= close\n");
        expect(true, "GET / HTTP/1.1\r\nConnection: close\r\n\r\n", false, "GET / x= body= close\n");
        expect(true, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", false, "GET / x= body=\n");
        expect(true, "GET / HTTP/1.1\r\nX:\r\n\r\n", false, "GET / x= body=\n");
}

static void pipelined_requests(void **state UNUSED)
{
        expect(true,
               "GET /1 HTTP/1.1\r\nX: a\r\n\r\nPOST /2 HTTP/1.1\r\nContent-Length: 2\r\n\r\nhiGET /3 "
               "HTTP/1.1\r\n\r\n",
               false, "GET /1 x=a body=\nPOST /2 x= body=hi\nGET /3 x= body=\n");
        expect(true,
               "POST /1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nGET /2 "
               "HTTP/1.1\r\n\r\n",
               false, "POST /1 x= body=a\nGET /2 x= body=\n");
}

static void answers(void **state UNUSED)
{
        expect(false, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: y\r\n\r\nok", false, "200 x=y body=ok\n");
        expect(false, "HTTP/1.1 204 No Content\r\n\r\n", false, "204 x= body=\n");
        expect(false, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", false, "304 x= body=\n");
        expect(false, "HTTP/1.1 500 \r\nContent-Length: 0\r\nConnection: close\r\n\r\n", false,
               "500 x= body= close\n");
        expect(false,
               "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 202 "
               "Accepted\r\nContent-Length: 0\r\n\r\n",
               false, "200 x= body=ok\n202 x= body=\n");
}

static void interim_answers_are_none(void **state UNUSED)
{
        expect(false,
               "HTTP/1.1 100 Continue\r\nX: early\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
               false, "200 x= body=ok\n");
        expect(false,
               "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nX: early\r\n\r\nHTTP/1.1 201 "
               "Created\r\nX: late\r\nContent-Length: 0\r\n\r\n",
               false, "201 x=late body=\n");
        expect(false, "HTTP/1.1 100 Continue\r\n\r\n", true, "!eof");
}

static void a_body_may_end_with_the_connection(void **state UNUSED)
{
        expect(false, "HTTP/1.1 200 OK\r\nX: 1\r\n\r\nall of it", true, "200 x=1 body=all of it close\n");
        expect(false, "HTTP/1.0 200 OK\r\n\r\n", true, "200 x= body= close\n");
        expect(false, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", true, "!eof");
        expect(false, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", true, "!eof");
        expect(false, "HTTP/1.1 200 OK\r\nX:", true, "!eof");
        expect(false, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true, "200 x= body=ok\n");
        expect(true, "GET / HTTP", true, "!eof");
}

static void what_breaks_http_is_refused(void **state UNUSED)
{
        static const char *const all[] = {
                "\x16\x03\x01 TLS",
                "GET\r\n\r\n",
                "get / HTTP/1.1\r\n\r\n",
                "GET / HTTP/1.1\r\nno colon\r\n\r\n",
                "GET / HTTP/1.1\r\nA b: c\r\n\r\n",
                "GET / HTTP/1.1\r\n: c\r\n\r\n",
                "GET / HTTP/1.1\r\nA: b\r\n: c\r\n\r\n",
                "GET / HTTP/1.1\r\nA : c\r\n\r\n",
                "POST / HTTP/1.1\r\nContent-Length: 1x\r\n\r\n",
                "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
                "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
                "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
                "GET / HTTP/1.1\r\nA: b\x01\r\n\r\n",
                "GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
                "GET / HTTP/1.1\r\nConnection: close,\r\n\tx\r\n\r\n",
        };

        for (size_t i = 0; i < COUNT_OF(all); i++)
                expect(true, all[i], false, "!400");
        expect(true, "GET / HTTP/2.0\r\n\r\n", false, "!505");
        for (size_t piece = 1; piece < 30; piece++) {
                BUF_AT_END struct buf found = BUF_INIT(1000);

                describe(true, STR("GET / HTTP/1.1\r\nA: b\0c\r\n\r\n"), piece, false, &found);
                assert_string_equal(found.p, "!400");
        }
}

static void limits_hold(void **state UNUSED)
{
        BUF_AT_END struct buf long_target = BUF_INIT(4096), long_name = BUF_INIT(4096),
                              many = BUF_INIT(65536), body = BUF_INIT(4096), chunks = BUF_INIT(4096);

        buf_printf(&long_target, "GET /%01001d HTTP/1.1\r\n\r\n", 0);
        expect(true, long_target.p, false, "!431");
        buf_printf(&long_name, "GET / HTTP/1.1\r\nA%0999d: b\r\n\r\n", 0);
        expect(true, long_name.p, false, "!431");
        buf_text(&many, "GET / HTTP/1.1\r\n");
        for (int i = 0; i < 501; i++)
                buf_text(&many, "A:b\r\n");
        BUF_AT_END struct buf found = BUF_INIT(1000);
        describe(true, buf_view(&many), 1, false, &found);
        assert_string_equal(found.p, "!431");
        expect(true, "POST / HTTP/1.1\r\nContent-Length: 101\r\n\r\n", false, "!413");
        buf_printf(&body, "POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\n%0100d", 0);
        BUF_AT_END struct buf fits = BUF_INIT(1000);
        describe(true, buf_view(&body), 7, false, &fits);
        assert_int_equal(strncmp(fits.p, "POST / x= body=0000", 19), 0);
        buf_printf(&chunks,
                   "POST / HTTP/1.1\r\nTransfer-Encoding: "
                   "chunked\r\n\r\n32\r\n%050d\r\n33\r\n%051d\r\n0\r\n\r\n",
                   0, 0);
        expect(true, chunks.p, false, "!413");
}

/* A client keeps what fits of an answer, and the connection. */
static void a_long_answer_is_cut(void **state UNUSED)
{
        for (size_t piece = 1; piece < 300; piece++) {
                BUF_AT_END struct buf text = BUF_INIT(4096), found = BUF_INIT(4096),
                                      expected = BUF_INIT(4096);

                buf_printf(
                        &text,
                        "HTTP/1.1 200 OK\r\nContent-Length: 150\r\n\r\n%0150dHTTP/1.1 204 No Content\r\n\r\n",
                        7);
                buf_printf(&expected, "200 x= body=%0100d cut\n204 x= body=\n", 0);
                describe(false, buf_view(&text), piece, false, &found);
                assert_string_equal(found.p, expected.p);
        }
}

/* The parser's own words for it are that a callback failed. */
static void what_was_refused_is_said(void **state UNUSED)
{
        static const struct {
                bool request;
                const char *text, *says;
        } cases[] = {
                ROW(false, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
                    "broken HTTP: the peer changes the protocol without being asked"),
                ROW(false, "HTTP/1.1 099 Odd\r\n\r\n", "broken HTTP: a status that has not three digits"),
                ROW(false, "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", "broken HTTP: a folded header"),
                ROW(true, "GET / HTTP/2.0\r\n\r\n", "broken HTTP: HTTP/1.0 and HTTP/1.1 are spoken here"),
                ROW(true, "POST / HTTP/1.1\r\nContent-Length: 101\r\n\r\n", "broken HTTP: body too large"),
        };

        for (size_t i = 0; i < COUNT_OF(cases); i++)
                for (size_t piece = 1; piece <= strlen(cases[i].text); piece++) {
                        struct str rest = str_of(cases[i].text);
                        struct http_codec c;
                        struct error err;
                        int r = 0;

                        http_codec_init(&c, cases[i].request, 1000, 100);
                        c.refuse_large_body = cases[i].request;
                        while (rest.n && r == 0) {
                                size_t n = MIN_OF(piece, rest.n), used;

                                r = http_codec_feed(&c, (struct str){ rest.p, n }, &used, &err);
                                rest = (struct str){ rest.p + n, rest.n - n };
                        }
                        assert_int_equal(r, -1);
                        assert_string_equal(err.text, cases[i].says);
                        http_codec_done(&c);
                }
}

static void an_upgrade_is_not_ours(void **state UNUSED)
{
        BUF_AT_END struct buf found = BUF_INIT(1000);

        describe(true, STR("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n"), 1000, false, &found);
        assert_true(found.n > 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(requests),
                cmocka_unit_test(pipelined_requests),
                cmocka_unit_test(answers),
                cmocka_unit_test(interim_answers_are_none),
                cmocka_unit_test(a_body_may_end_with_the_connection),
                cmocka_unit_test(what_breaks_http_is_refused),
                cmocka_unit_test(limits_hold),
                cmocka_unit_test(a_long_answer_is_cut),
                cmocka_unit_test(what_was_refused_is_said),
                cmocka_unit_test(an_upgrade_is_not_ours),
        };
        return cmocka_run_group_tests_name("codec", tests, NULL, NULL);
}
