/* Strange answers: raw bytes from a server, in pieces of every kind, over HTTP/1.1 and HTTP/2; then the same
 * bytes, mutated. Whatever comes, each request completes once and the next good one is served. */
#include <curl/curl.h>

#include "base/random.h"
#include "http/client/testing.h"

static struct {
        struct str bytes;
        size_t piece, at;
        bool hang_up, armed, good, begun;
        struct peer *peer;
        struct task feeder;
} script;

static int setup(void **state UNUSED)
{
        if (client_setup() < 0)
                return -1;
        memset(&script, 0, sizeof(script));
        return 0;
}

static int teardown(void **state UNUSED)
{
        loop_forget(loop, &script.feeder);
        return client_teardown();
}

static void feed(struct task *t, usec now UNUSED)
{
        struct peer *p = script.peer;
        size_t n = MIN_OF(script.piece, script.bytes.n - script.at);

        if (!p || p->fd < 0)
                return;
        peer_say(p, (struct str){ script.bytes.p + script.at, n });
        script.at += n;
        if (p->fd < 0)
                return;
        if (script.at < script.bytes.n)
                loop_ready(loop, t);
        else if (script.hang_up)
                peer_close(p);
}

static void begin(struct peer *p)
{
        script.peer = p;
        script.at = 0;
        script.armed = false;
        script.begun = true;
        loop_ready(loop, &script.feeder);
}

/* HTTP/1.1: the armed peer answers its next request with the script; the good server answers as it should. */
static bool raw_1(struct peer *p, struct str bytes)
{
        if (!script.armed)
                return false;
        buf_str(&p->codec.message.body, bytes); /* kept until the body has come */
        if (p->codec.message.body.n >= 4 &&
            memcmp(p->codec.message.body.p + p->codec.message.body.n - 4, "body", 4) == 0) {
                buf_reset(&p->codec.message.body);
                begin(p);
        }
        return true;
}

static void open_raw(bool http2)
{
        struct http_target_config c = { .max_connections = 2,
                                        .http_version = http2 ? HTTP_2_PRIOR_KNOWLEDGE : HTTP_1_1 };

        script.feeder.turn = feed;
        server_listen(&server, "127.0.0.1", 0);
        (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/f", server.port);
        aim(c);
}

static void close_all(void)
{
        for (size_t n = 0; n < server.peers_n; n++)
                peer_close(&server.peers[n]);
        calls_forget();
        server.peers_n = 0;
        script.peer = NULL;
}

/* ---- HTTP/1.1 ----------------------------------------------------------- */

/* outcome: a status, or 0 for a failure. reuse: the connection carries another request afterwards. */
struct answer_1 {
        const char *bytes;
        size_t n;
        int outcome;
        const char *body;
        bool reuse, hang_up;
};
#define A(text, outcome, body, reuse)                                                                        \
        {                                                                                                    \
                text, sizeof(text) - 1, outcome, body, reuse, false                                          \
        }
#define E(text, outcome, body)                                                                               \
        {                                                                                                    \
                text, sizeof(text) - 1, outcome, body, false, true                                           \
        } /* then the peer hangs up */
#define OK "HTTP/1.1 200 OK\r\n"
static const struct answer_1 answers[] = {
        A(OK "Content-Length: 2\r\n\r\nok", 200, "ok", true),
        A(OK "content-length:2\r\n\r\nok", 200, "ok", true),
        A(OK "Content-Length: 0\r\n\r\n", 200, "", true),
        A("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 200, "", true),
        A("HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", 200, "", true),
        A("HTTP/1.1 204 No\r\n\r\n", 204, "", true),
        A("HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n", 304, "", true),
        A("HTTP/1.1 599 What\r\nContent-Length: 1\r\n\r\nx", 599, "x", true),
        A(OK "Content-Length: 2\r\nConnection: close\r\n\r\nok", 200, "ok", false),
        A(OK "Content-Length: 2\r\nConnection: Keep-Alive\r\n\r\nok", 200, "ok", true),
        A("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok", false),
        A("HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok", 200, "ok", true),
        A(OK "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, "ok", true),
        A(OK "Transfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n", 200, "ok", true),
        A(OK "Transfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\n\r\n", 200, "ok", true),
        A(OK "Transfer-Encoding: chunked\r\n\r\n00002\r\nok\r\n0\r\n\r\n", 200, "ok", true),
        A(OK "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, "", true),
        A(OK "Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2\r\nok\r\n0\r\nX: trailer\r\n\r\n", 200, "ok",
          true),
        A("HTTP/1.1 429 Slow\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nRetry-After: 9\r\n\r\n", 429, "",
          true),
        A("HTTP/1.1 100 Continue\r\n\r\n" OK "Content-Length: 2\r\n\r\nok", 200, "ok", true),
        A("HTTP/1.1 103 Early\r\nX: early\r\n\r\n" OK "Content-Length: 2\r\n\r\nok", 200, "ok", true),
        A("HTTP/1.1 102 P\r\n\r\nHTTP/1.1 100 C\r\n\r\n" OK "Content-Length: 0\r\n\r\n", 200, "", true),
        A(OK "X: \xe4\xf6\xfc\r\nContent-Length: 0\r\n\r\n", 200, "", true),
        A(OK "X:\r\nContent-Length: 0\r\n\r\n", 200, "", true),
        A(OK "X: \t y \t \r\nContent-Length: 0\r\n\r\n", 200, "", true),
        A("\r\n" OK "Content-Length: 0\r\n\r\n", 200, "", true),
        A(OK "Content-Length: 2\r\n\r\nok" OK "Content-Length: 0\r\n\r\n", 200, "ok", false),
        A(OK "Content-Length: 2\r\n\r\nokmore", 200, "ok", false),
        A(OK "Content-Length: 0\r\n\r\nHTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", 200, "", false),
        E(OK "\r\nuntil the end", 200, "until the end"),
        E(OK "\r\n", 200, ""),
        E("HTTP/1.0 200 OK\r\n\r\nold", 200, "old"),
        E(OK "Connection: keep-alive\r\n\r\nend", 200, "end"),
        E(OK "Content-Length: 3\r\n\r\nok", 0, NULL),
        E(OK "Content-Length: 3\r\n\r\n", 0, NULL),
        E(OK "Content-Length: 3\r\n", 0, NULL),
        E(OK, 0, NULL),
        E("HTTP/1.1 2", 0, NULL),
        E("H", 0, NULL),
        E("", 0, NULL),
        E(OK "Transfer-Encoding: chunked\r\n\r\n", 0, NULL),
        E(OK "Transfer-Encoding: chunked\r\n\r\n5\r\nab", 0, NULL),
        E(OK "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", 0, NULL),
        E(OK "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", 0, NULL),
        E("HTTP/1.1 100 Continue\r\n\r\n", 0, NULL),
        E("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 2", 0, NULL),
        A(OK "Content-Length: 2\r\nContent-Length: 2\r\n\r\nok", 0, NULL, false),
        A(OK "Content-Length: 2\r\nContent-Length: 3\r\n\r\nok", 0, NULL, false),
        A(OK "Content-Length: 2, 2\r\n\r\nok", 0, NULL, false),
        A(OK "Content-Length: -2\r\n\r\nok", 0, NULL, false),
        A(OK "Content-Length: +2\r\n\r\nok", 0, NULL, false),
        A(OK "Content-Length: 0x2\r\n\r\nok", 0, NULL, false),
        A(OK "Content-Length: 2 2\r\n\r\nok", 0, NULL, false),
        A(OK "Content-Length: 99999999999999999999999\r\n\r\nok", 0, NULL, false),
        A(OK "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0, NULL, false),
        A(OK "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n", 0, NULL, false),
        A(OK "Transfer-Encoding: chunked\r\n\r\nzz\r\n", 0, NULL, false),
        A(OK "Transfer-Encoding: chunked\r\n\r\n-1\r\n", 0, NULL, false),
        A(OK "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", 0, NULL, false),
        A(OK "Transfer-Encoding: chunked\r\n\r\n2\r\nokk\r\n0\r\n\r\n", 0, NULL, false),
        A(OK "X: a\r\n folded\r\nContent-Length: 0\r\n\r\n", 0, NULL, false),
        A(OK "X: a\0b\r\nContent-Length: 0\r\n\r\n", 0, NULL, false),
        A(OK "X\0: a\r\nContent-Length: 0\r\n\r\n", 0, NULL, false),
        A(OK "X : a\r\nContent-Length: 0\r\n\r\n", 0, NULL, false),
        A(OK ": a\r\nContent-Length: 0\r\n\r\n", 0, NULL, false),
        A(OK "no colon\r\n\r\n", 0, NULL, false),
        A("SSH-2.0-OpenSSH_9.2\r\n", 0, NULL, false),
        A("garbage" OK "Content-Length: 0\r\n\r\n", 0, NULL, false),
        A("\x15\x03\x01\x00\x02\x02\x46", 0, NULL, false),
        A("HTTP/0.9 200 OK\r\n\r\n", 0, NULL, false),
        A("<html>an answer of HTTP/0.9</html>", 0, NULL, false),
        A("HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", 0, NULL, false),
        A("HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n", 0, NULL, false),
        A("HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n", 0, NULL, false),
        A("HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", 0, NULL, false),
        A("HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n", 0, NULL, false),
        A("HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", 0, NULL, false),
        A("POST / HTTP/1.1\r\nHost: a\r\n\r\n", 0, NULL, false),
        A(OK
          "Content-Length: 2\r\nX: 000000000000000000000000000000000000000000000000000000000000000\r\n\r\nok",
          200, "ok", true),
};

static bool peer_of_script_gone(void) { return !script.peer || script.peer->fd < 0; }

/* A good request of the same client, on the same loop. */
static void serves_still(void)
{
        script.good = true;
        assert_false(request()->failed);
        assert_int_equal(done[done_n - 1].c.status, 200);
        script.good = false;
}

static void ask_1(const struct answer_1 *a, size_t piece)
{
        const struct completion *c;
        size_t peers;

        done_n = 0;
        serves_still(); /* so that the strange answer comes on a used connection */
        peers = server.peers_n;
        script.bytes = (struct str){ a->bytes, a->n };
        script.piece = piece;
        script.hang_up = a->hang_up;
        script.armed = true;
        c = request();
        if (a->outcome ? c->failed || c->status != a->outcome : !c->failed)
                fail_msg("in pieces of %zu: %d %s; answer: %s", piece, c->status,
                         c->failed ? c->error.text : "was taken", a->bytes);
        if (a->outcome)
                assert_string_equal(done[done_n - 1].body, a->body);
        else
                assert_true(c->maybe_processed && c->error.retry);
        assert_int_equal(c->retry_after, 0); /* what trailers say does not count */
        if (!a->reuse)
                run_until(peer_of_script_gone);
        serves_still();
        if ((server.peers_n == peers) != a->reuse)
                fail_msg("in pieces of %zu: the connection was %s; answer: %s", piece,
                         a->reuse ? "closed" : "used again", a->bytes);
}

/* Framing without end around little or nothing is given up. */
static void endless_framing(void **state UNUSED)
{
        static const struct {
                const char *start, *again;
        } all[] = {
                { "", "HTTP/1.1 103 Early\r\n\r\n" },
                { "HTTP/1.1 200 ", "OK" },
                { OK "Transfer-Encoding: chunked\r\n\r\n1", ";a=b" },
                { OK "Transfer-Encoding: chunked\r\n\r\n", "0" },
        };

        server.raw = raw_1;
        open_raw(false);
        for (size_t i = 0; i < COUNT_OF(all); i++) {
                BUF_AT_END struct buf text = BUF_INIT(1 << 20);
                const struct completion *c;

                done_n = 0;
                serves_still();
                buf_text(&text, all[i].start);
                while (text.n < 600000)
                        buf_text(&text, all[i].again);
                script.bytes = buf_view(&text);
                script.piece = 50000;
                script.hang_up = false;
                script.armed = true;
                c = request();
                if (!c->failed || c->error.kind != ERROR_PROTOCOL)
                        fail_msg("%s%s...: %d %s", all[i].start, all[i].again, c->status,
                                 c->failed ? c->error.text : "was taken");
                close_all();
        }
}

static void strange_answers(void **state UNUSED)
{
        static const size_t pieces[] = { 100000, 1, 2, 7 };

        assert_true(COUNT_OF(answers) >= 60);
        server.raw = raw_1;
        open_raw(false);
        for (size_t i = 0; i < COUNT_OF(answers); i++)
                for (size_t k = 0; k < COUNT_OF(pieces); k++) {
                        /* In pieces the rest may come when the request is done already, as an answer to
                         * nobody. */
                        if (pieces[k] < 100000 && answers[i].outcome && !answers[i].reuse &&
                            !answers[i].hang_up && !strstr(answers[i].bytes, "close") &&
                            !strstr(answers[i].bytes, "1.0"))
                                continue;
                        ask_1(&answers[i], pieces[k]);
                        close_all();
                }
}

static void an_oversized_head_fails(void **state UNUSED)
{
        BUF_AT_END struct buf text = BUF_INIT(1 << 20);

        server.raw = raw_1;
        open_raw(false);
        buf_text(&text, OK);
        for (int i = 0; i < 1000; i++)
                buf_printf(&text, "X-%d: %0100d\r\n", i, 0);
        buf_text(&text, "Content-Length: 0\r\n\r\n");
        ask_1(&(struct answer_1){ text.p, text.n, 0, NULL, false, false }, 4096);
}

/* The answer comes while the body is still being written: it is taken, and the connection is not used again.
 */
static void refuse_early(struct peer *p)
{
        peer_say(p, STR("HTTP/1.1 413 Large\r\nContent-Length: 2\r\n\r\nno"));
        loop_io_want(p->io, 0);
}

static void an_early_answer_is_taken(void **state UNUSED)
{
        BUF_AT_END struct buf body = BUF_INIT(32 << 20);

        open_raw(false);
        server.accepted = refuse_early;
        assert_true(buf_reserve(&body, 16 << 20));
        memset(body.p, 'x', 16 << 20);
        body.n = 16 << 20;
        submit_request(1, (struct http_request){ .message = message_of(1, buf_view(&body)) });
        await(1);
        assert_false(done[0].c.failed);
        assert_int_equal(done[0].c.status, 413);
        assert_int_equal(http_target_connections(target), 0);
}

/* ---- HTTP/2 ------------------------------------------------------------- */

static void frame(struct buf *b, uint8_t type, uint8_t flags, uint32_t stream, struct str payload)
{
        const char head[9] = { (char)(payload.n >> 16),
                               (char)(payload.n >> 8),
                               (char)payload.n,
                               (char)type,
                               (char)flags,
                               (char)(stream >> 24),
                               (char)(stream >> 16),
                               (char)(stream >> 8),
                               (char)stream };

        buf_add(b, head, sizeof(head));
        buf_str(b, payload);
}

enum { DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION };
enum { END = 1, HEADS_END = 4, PADDED = 8 };
#define P(literal)                                                                                           \
        {                                                                                                    \
                literal, sizeof(literal) - 1                                                                 \
        }
struct piece {
        uint8_t type, flags;
        uint32_t stream;
        struct str payload;
};
/* outcome: the status, 0 a failure that may have been processed, -1 one that surely was not (after it was
 * sent again in vain) */
struct answer_2 {
        const char *name;
        int outcome;
        bool hang_up;
        struct piece frames[8];
};
#define SET                                                                                                  \
        {                                                                                                    \
                SETTINGS, 0, 0, P("")                                                                        \
        }
#define S200 "\x88" /* :status 200 of the static table */
#define S103                                                                                                 \
        "\x08\x03"                                                                                           \
        "103" /* :status, literal */
static const struct answer_2 answers_2[] = {
        ROW("an answer without a body", 200, false, { SET, { HEADERS, HEADS_END | END, 1, P(S200) } }),
        ROW("an answer with a body", 200, false,
            { SET, { HEADERS, HEADS_END, 1, P(S200) }, { DATA, END, 1, P("ok") } }),
        ROW("a padded body", 200, false,
            { SET, { HEADERS, HEADS_END, 1, P(S200) }, { DATA, END | PADDED, 1, P("\x03ok\0\0\0") } }),
        ROW("early hints first", 200, false,
            { SET, { HEADERS, HEADS_END, 1, P(S103) }, { HEADERS, HEADS_END | END, 1, P(S200) } }),
        ROW("a continued head", 200, false,
            { SET,
              { HEADERS, END, 1, P(S200) },
              { CONTINUATION, HEADS_END, 1,
                P("\x0f\x0d\x01"
                  "0") } }),
        ROW("trailers", 200, false,
            { SET,
              { HEADERS, HEADS_END, 1, P(S200) },
              { DATA, 0, 1, P("ok") },
              { HEADERS, HEADS_END | END, 1, P("\x00\x01x\x01y") } }),
        ROW("a ping", 200, false,
            { SET, { PING, 0, 0, P("12345678") }, { HEADERS, HEADS_END | END, 1, P(S200) } }),
        ROW("an unknown frame", 200, false,
            { SET, { 99, 7, 0, P("what") }, { HEADERS, HEADS_END | END, 1, P(S200) } }),
        ROW("an unknown setting", 200, false,
            { { SETTINGS, 0, 0, P("\x99\x99\0\0\0\1") }, { HEADERS, HEADS_END | END, 1, P(S200) } }),
        ROW("a goaway that includes us", 200, false,
            { SET, { GOAWAY, 0, 0, P("\0\0\0\1\0\0\0\0") }, { HEADERS, HEADS_END | END, 1, P(S200) } }),
        ROW("an early answer, then a reset", 200, false,
            { SET, { HEADERS, HEADS_END | END, 1, P(S200) }, { RST, 0, 1, P("\0\0\0\0") } }),
        ROW("settings twice", 200, false,
            { SET, { SETTINGS, 0, 0, P("\0\3\0\0\0\5") }, { HEADERS, HEADS_END | END, 1, P(S200) } }),
        ROW("a reset", 0, false, { SET, { RST, 0, 1, P("\0\0\0\2") } }),
        ROW("half an answer, then a reset", 0, false,
            { SET,
              { HEADERS, HEADS_END, 1, P(S200) },
              { DATA, 0, 1, P("h") },
              { RST, 0, 1, P("\0\0\0\2") } }),
        ROW("refused", -1, false, { SET, { RST, 0, 1, P("\0\0\0\7") } }),
        ROW("a goaway that excludes us", -1, true, { SET, { GOAWAY, 0, 0, P("\0\0\0\0\0\0\0\0") } }),
        ROW("nothing, then the end", 0, true, { SET }),
        ROW("half a head, then the end", 0, true, { SET, { HEADERS, 0, 1, P(S200) } }),
        ROW("half a body, then the end", 0, true,
            { SET, { HEADERS, HEADS_END, 1, P(S200) }, { DATA, 0, 1, P("h") } }),
        ROW("a length that is not kept", 0, false,
            { SET,
              { HEADERS, HEADS_END, 1,
                P(S200 "\x0f\x0d\x01"
                       "5") },
              { DATA, END, 1, P("ok") } }),
        ROW("no status", 0, false,
            { SET,
              { HEADERS, HEADS_END | END, 1,
                P("\x0f\x0d\x01"
                  "0") } }),
        ROW("a status twice", 0, false, { SET, { HEADERS, HEADS_END | END, 1, P(S200 S200) } }),
        ROW("status 101", 0, false,
            { SET,
              { HEADERS, HEADS_END, 1,
                P("\x08\x03"
                  "101") } }),
        ROW("early hints that end", 0, false, { SET, { HEADERS, HEADS_END | END, 1, P(S103) } }),
        ROW("a body before the head", 0, false, { SET, { DATA, END, 1, P("ok") } }),
        ROW("a head on stream 0", 0, false, { SET, { HEADERS, HEADS_END | END, 0, P(S200) } }),
        ROW("a body on stream 0", 0, false, { SET, { DATA, END, 0, P("ok") } }),
        ROW("a broken table index", 0, false,
            { SET, { HEADERS, HEADS_END | END, 1, P("\xff\xff\xff\x7f") } }),
        ROW("settings of a strange size", 0, false, { { SETTINGS, 0, 0, P("\0\3\0") } }),
        ROW("settings on a stream", 0, false, { { SETTINGS, 0, 1, P("") } }),
        ROW("a ping of a strange size", 0, false, { SET, { PING, 0, 0, P("123") } }),
        ROW("a ping on a stream", 0, false, { SET, { PING, 0, 1, P("12345678") } }),
        ROW("a reset of a strange size", 0, false, { SET, { RST, 0, 1, P("\0") } }),
        ROW("a window of nothing", 0, false, { SET, { WINDOW, 0, 0, P("\0\0\0\0") } }),
        ROW("a window that overflows", 0, false, { SET, { WINDOW, 0, 0, P("\x7f\xff\xff\xff") } }),
        ROW("a push", 0, false,
            { SET,
              { SETTINGS, 1, 0, P("") },
              { PUSH, HEADS_END, 1,
                P("\0\0\0\2"
                  "\x82\x86\x84") } }),
        ROW("a continuation of nothing", 0, false, { SET, { CONTINUATION, HEADS_END, 1, P(S200) } }),
        ROW("another frame within a head", 0, false,
            { SET, { HEADERS, 0, 1, P(S200) }, { PING, 0, 0, P("12345678") } }),
        ROW("a head on a stream that is not ours", 0, false,
            { SET, { HEADERS, HEADS_END | END, 2, P(S200) } }),
        ROW("a frame that is too large", 0, false, { SET, { DATA, 0, 1, { NULL, 20000 } } }),
        ROW("padding that is too long", 0, false,
            { SET, { HEADERS, HEADS_END, 1, P(S200) }, { DATA, END | PADDED, 1, P("\x09ok") } }),
        ROW("HTTP/1.1", 0, false,
            { { 0xff, 0, 0, P("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n") } }),
};

static void put_frames(const struct answer_2 *a, struct buf *b)
{
        for (size_t i = 0; i < COUNT_OF(a->frames) && (a->frames[i].type || a->frames[i].stream ||
                                                       a->frames[i].payload.n || a->frames[i].flags);
             i++) {
                const struct piece *f = &a->frames[i];

                if (f->type == 0xff)
                        buf_str(b, f->payload);
                else if (!f->payload.p) {
                        BUF_AT_END struct buf zeros = BUF_INIT(1 << 20);

                        assert_true(buf_reserve(&zeros, f->payload.n));
                        memset(zeros.p, 0, f->payload.n);
                        frame(b, f->type, f->flags, f->stream, (struct str){ zeros.p, f->payload.n });
                } else
                        frame(b, f->type, f->flags, f->stream, f->payload);
        }
}

/* Feeds the frames once the request's body has come; a good peer answers with nghttp2. */
static bool raw_2(struct peer *p, struct str bytes)
{
        if (script.good) {
                if (!p->h2)
                        h2_start(p);
                return false;
        }
        buf_str(&p->codec.message.body, bytes);
        if (p->codec.message.body.n >= 4 &&
            memmem(p->codec.message.body.p, p->codec.message.body.n, "body", 4)) {
                buf_reset(&p->codec.message.body);
                if (p->served++ == 0)
                        begin(p);
                else { /* what was refused comes again: so it is refused again */
                        const char reset[] = {
                                0, 0, 4, RST, 0, 0, 0, 0, (char)(p->served * 2 - 1), 0, 0, 0, 7
                        };

                        peer_say(p, (struct str){ reset, sizeof(reset) });
                }
        }
        return true;
}

/* One may still be on its way when the others are closed. */
static bool no_connections(void)
{
        close_all();
        return http_target_connections(target) == 0;
}

static void strange_frames(void **state UNUSED)
{
        static const size_t pieces[] = { 100000, 1, 2, 5 };

        assert_true(COUNT_OF(answers_2) >= 35);
        server.raw = raw_2;
        open_raw(true);
        for (size_t i = 0; i < COUNT_OF(answers_2); i++)
                for (size_t k = 0; k < COUNT_OF(pieces); k++) {
                        const struct answer_2 *a = &answers_2[i];
                        BUF_AT_END struct buf bytes = BUF_INIT(1 << 20);
                        const struct completion *c;

                        /* Debian 12's nghttp2 counts the pieces of a continuation's head as continuations. */
                        if (pieces[k] == 1 && strstr(a->name, "continued"))
                                continue;
                        put_frames(a, &bytes);
                        script.bytes = buf_view(&bytes);
                        script.piece = pieces[k];
                        script.hang_up = a->hang_up;
                        done_n = 0;
                        (void)snprintf(under_way, sizeof(under_way), "%s, in pieces of %zu", a->name,
                                       pieces[k]);
                        c = request();
                        if (a->outcome > 0 ? c->failed || c->status != a->outcome : !c->failed)
                                fail_msg("%s, in pieces of %zu: %d %s", a->name, pieces[k], c->status,
                                         c->failed ? c->error.text : "was taken");
                        if (a->outcome <= 0 && c->maybe_processed != (a->outcome == 0))
                                fail_msg("%s, in pieces of %zu: maybe_processed is wrong: %s", a->name,
                                         pieces[k], c->error.text);
                        assert_int_equal(done_n, 1);
                        assert_int_equal(c->retry_after, 0);
                        close_all();
                        run_until(no_connections);
                        serves_still();
                        close_all();
                        run_until(no_connections);
                }
}

/* ---- both, mutated ------------------------------------------------------ */

static unsigned passes;
static bool settled(void)
{
        return done_n >= 1 || (script.begun && script.at >= script.bytes.n && ++passes > 20);
}

/* A mutant that is a valid beginning leaves the client waiting: cancelled as the engine would. */
static void one_mutant(struct random *r, struct str bytes)
{
        char copy[24000];
        size_t n = MIN_OF(bytes.n, sizeof(copy) - 8), changes = 1 + random_below(r, 3);

        memcpy(copy, bytes.p, n);
        while (changes-- && n) {
                size_t at = random_below(r, n);

                switch (random_below(r, 4)) {
                case 0: copy[at] = (char)random_below(r, 256); break;
                case 1: copy[at] = (char)(copy[at] ^ (1 << random_below(r, 8))); break;
                case 2: n = at; break;
                default:
                        memmove(copy + at + 1, copy + at, n - at);
                        n++;
                        break;
                }
                n = MIN_OF(n, sizeof(copy) - 8);
        }
        script.bytes = (struct str){ copy, n };
        script.piece = 1 + random_below(r, 64);
        script.hang_up = random_below(r, 2);
        script.armed = true;
        script.begun = false;
        passes = 0;
        done_n = 0;
        submit(0);
        run_until(settled);
        if (done_n == 0)
                port_cancel(0);
        assert_true(done_n <= 1);
        loop_forget(loop, &script.feeder);
        close_all();
        run_until(no_connections);
        script.armed = false;
        wanted = done_n;
        serves_still();
        close_all();
        run_until(no_connections);
}

enum { MUTANTS = 400 };

static void mutants_of_answers(void **state UNUSED)
{
        struct random r;

        random_init(&r, 42);
        server.raw = raw_1;
        open_raw(false);
        for (size_t i = 0; i < MUTANTS; i++) {
                const struct answer_1 *a = &answers[random_below(&r, COUNT_OF(answers))];

                one_mutant(&r, (struct str){ a->bytes, a->n });
        }
}

static void mutants_of_frames(void **state UNUSED)
{
        struct random r;

        random_init(&r, 43);
        server.raw = raw_2;
        open_raw(true);
        for (size_t i = 0; i < MUTANTS; i++) {
                BUF_AT_END struct buf bytes = BUF_INIT(1 << 20);

                put_frames(&answers_2[random_below(&r, COUNT_OF(answers_2))], &bytes);
                one_mutant(&r, buf_view(&bytes));
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(strange_answers, setup, teardown),
                cmocka_unit_test_setup_teardown(endless_framing, setup, teardown),
                cmocka_unit_test_setup_teardown(an_oversized_head_fails, setup, teardown),
                cmocka_unit_test_setup_teardown(an_early_answer_is_taken, setup, teardown),
                cmocka_unit_test_setup_teardown(strange_frames, setup, teardown),
                cmocka_unit_test_setup_teardown(mutants_of_answers, setup, teardown),
                cmocka_unit_test_setup_teardown(mutants_of_frames, setup, teardown),
        };
        int result;

        filter_tests();
        result = cmocka_run_group_tests_name("raw", tests, NULL, NULL);

        curl_global_cleanup();
        return result;
}
