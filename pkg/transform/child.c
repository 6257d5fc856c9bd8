#include "transform/child.h"

#include <errno.h>
#include <jq.h>
#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/buf.h"
#include "transform/sandbox.h"

enum { READ_SIZE = 65536, KEEP = 1 << 20, FRAME_SIZE_MAX = 1 << 30 };

struct child {
        struct buf in; /* frames not yet used, from at */
        size_t at;
        struct buf out; /* one frame */
        struct child_setup setup;
        jq_state *jq;
        struct buf complaints; /* of the compiler */
};

/* ---- frames ------------------------------------------------------------- */

static void answer(struct child *c, enum frame_kind kind, uint64_t sequence, struct str text)
{
        struct frame head = { .size = (uint32_t)text.n, .kind = kind, .sequence = sequence };

        buf_reset(&c->out);
        buf_add(&c->out, &head, sizeof(head));
        buf_str(&c->out, text);
        if (c->out.failed)
                _exit(CHILD_EXIT_MEMORY);
        for (struct str rest = buf_view(&c->out); rest.n;) {
                ssize_t n = write(CHILD_FD, rest.p, rest.n);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        _exit(CHILD_EXIT_CLOSED);
                rest.p += n;
                rest.n -= (size_t)n;
        }
        if (c->out.cap > KEEP)
                buf_done(&c->out);
}

/* Until `more` bytes stand behind at. */
static void need(struct child *c, size_t more)
{
        if (c->in.n - c->at >= more)
                return;
        buf_drop(&c->in, c->at);
        c->at = 0;
        while (c->in.n < more) {
                ssize_t n;

                if (!buf_reserve(&c->in, MAX_OF(more - c->in.n, (size_t)READ_SIZE)))
                        _exit(CHILD_EXIT_MEMORY);
                n = read(CHILD_FD, c->in.p + c->in.n, c->in.cap - 1 - c->in.n);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        _exit(CHILD_EXIT_CLOSED); /* the parent is gone, or has no more use for us */
                c->in.n += (size_t)n;
        }
}

/* Waits for a frame; its text is borrowed until the next. */
static struct str next_frame(struct child *c, enum frame_kind expected, uint64_t *sequence)
{
        struct frame head;
        struct str text;

        if (c->at == c->in.n && c->in.cap > KEEP) {
                buf_done(&c->in);
                c->at = 0;
        }
        need(c, sizeof(head));
        memcpy(&head, c->in.p + c->at, sizeof(head));
        if (head.kind != expected || head.size > FRAME_SIZE_MAX)
                _exit(CHILD_EXIT_PROTOCOL);
        need(c, sizeof(head) + head.size);
        text = (struct str){ c->in.p + c->at + sizeof(head), head.size };
        c->at += sizeof(head) + head.size;
        *sequence = head.sequence;
        return text;
}

/* ---- words -------------------------------------------------------------- */

/* On one line and short: what jq quotes may be anything. */
static void put_words(struct buf *out, struct str text)
{
        size_t most = CHILD_TEXT_MAX - MIN_OF(out->n, (size_t)CHILD_TEXT_MAX), n = text.n;

        if (n > most) {
                n = most > 3 ? most - 3 : 0;
                while (n && ((unsigned char)text.p[n] & 0xC0) == 0x80)
                        n--;
        }
        for (size_t i = 0; i < n; i++)
                buf_char(out, (unsigned char)text.p[i] < ' ' || text.p[i] == 127 ? ' ' : text.p[i]);
        if (n < text.n)
                buf_text(out, "…");
}

static struct str jv_view(jv string)
{
        return (struct str){ jv_string_value(string), (size_t)jv_string_length_bytes(jv_copy(string)) };
}

/* Takes the value. */
static void put_value(struct buf *out, jv value)
{
        if (jv_get_kind(value) != JV_KIND_STRING)
                value = jv_dump_string(value, 0);
        put_words(out, str_trim(jv_view(value)));
        jv_free(value);
}

/* "jq: error: syntax error, unexpected '}' (Unix shell quoting issues?) at <top-level>, line 3:\n…": no shell
 * is in sight, and there is one program. */
static void on_complaint(void *cookie, jv message)
{
        static const char *const noise[] = { "jq: error: ", " (Unix shell quoting issues?)",
                                             "<top-level>, " };
        struct child *c = cookie;
        BUF_AT_END struct buf line = BUF_INIT(1 << 20);
        char *at;

        message = jq_format_error(message);
        if (jv_get_kind(message) == JV_KIND_STRING)
                buf_str(&line, jv_view(message));
        jv_free(message);
        if (!line.p || line.failed)
                return;
        for (size_t i = 0; i < COUNT_OF(noise); i++)
                while ((at = strstr(line.p, noise[i]))) {
                        size_t n = strlen(noise[i]);

                        memmove(at, at + n, strlen(at + n) + 1);
                }
        if (strncmp(line.p, "jq: ", 4) == 0 && strstr(line.p, " compile error")) /* how many there were */
                return;
        buf_text(&c->complaints, c->complaints.n ? "; " : "");
        put_words(&c->complaints, str_trim(str_of(line.p)));
}

/* ---- jq ----------------------------------------------------------------- */

static void on_no_memory(void *cookie UNUSED) { _exit(CHILD_EXIT_MEMORY); }
static void on_debug(void *cookie UNUSED, jv message) { jv_free(message); }
static jv on_input(jq_state *jq UNUSED, void *cookie UNUSED)
{
        return jv_invalid_with_msg(jv_string("there is no further input: a transform sees one event"));
}

/* The parent's clock is the one that counts; this one ends a child whose parent has no time to look. */
static void bound_cpu(usec most)
{
        struct itimerval timer = { .it_value = { .tv_sec = most / USEC_SEC, .tv_usec = most % USEC_SEC } };

        (void)setitimer(ITIMER_PROF, &timer, NULL);
}

static bool compile(struct child *c, const char *program)
{
        c->jq = jq_init();
        if (!c->jq)
                _exit(CHILD_EXIT_MEMORY);
        /* libjq 1.6 leaves these uninitialised. */
        jq_set_nomem_handler(c->jq, on_no_memory, NULL);
        jq_set_error_cb(c->jq, on_complaint, c);
        jq_set_debug_cb(c->jq, on_debug, NULL);
        jq_set_input_cb(c->jq, on_input, NULL);
        /* ... and asserts that these are there when a module is imported. */
        jq_set_attr(c->jq, jv_string("JQ_LIBRARY_PATH"), jv_array());
        jq_set_attr(c->jq, jv_string("JQ_ORIGIN"), jv_string("/"));
        jq_set_attr(c->jq, jv_string("PROGRAM_ORIGIN"), jv_string("/"));
        return jq_compile(c->jq, program);
}

static void fail(struct child *c, uint64_t sequence, const char *prefix, jv value)
{
        BUF_AT_END struct buf text = BUF_INIT(4096);

        buf_text(&text, prefix);
        put_value(&text, value);
        answer(c, FRAME_FAILED, sequence, buf_view(&text));
}

static void fail_text(struct child *c, uint64_t sequence, const char *text)
{
        answer(c, FRAME_FAILED, sequence, str_of(text));
}

/* The one value of the text; invalid, with a message, when it is something else. */
static jv parse(struct str text)
{
        struct jv_parser *parser = jv_parser_new(0);
        jv value, next;

        jv_parser_set_buf(parser, text.p, (int)text.n, 0);
        value = jv_parser_next(parser);
        if (jv_is_valid(value)) {
                next = jv_parser_next(parser);
                if (jv_is_valid(next) || jv_invalid_has_msg(jv_copy(next))) {
                        jv_free(value);
                        value = jv_is_valid(next) ? jv_invalid_with_msg(jv_string("more than one JSON value"))
                                                  : jv_copy(next);
                }
                jv_free(next);
        } else if (!jv_invalid_has_msg(jv_copy(value))) {
                jv_free(value);
                value = jv_invalid_with_msg(jv_string("no JSON value"));
        }
        jv_parser_free(parser);
        return value;
}

/* After the last value: how the program ended. */
static bool ended_well(struct child *c, uint64_t sequence, jv end)
{
        jv words = jv_invalid();
        bool halted = jq_halted(c->jq), failed = false;

        if (halted) {
                jv_free(end);
                jv_free(words);
                words = jq_get_error_message(c->jq);
                if ((failed = jv_is_valid(words)))
                        fail(c, sequence, "jq: halt_error: ", jv_copy(words));
                jv_free(words);
                /* libjq 1.6 frees the message at each reset and never forgets it: reset once, then give it
                 * another. */
                jq_start(c->jq, jv_null(), 0);
                jq_halt(c->jq, jv_invalid(), jv_invalid());
                return !failed;
        }
        if (!jv_invalid_has_msg(jv_copy(end))) {
                jv_free(end);
                return true;
        }
        words = jv_invalid_get_msg(end);
        fail(c, sequence,
             jv_get_kind(words) == JV_KIND_STRING ? "jq: " : "jq: error (not a string): ", words);
        return false;
}

/* Newer libjqs, and Debian's 1.6, print this in place of what is nested deeper than 256 levels: then the text
 * is no JSON. */
static bool is_cut(struct str text)
{
        static const char cut[] = "<skipped: too deep>";
        bool quoted = false;

        if (!memmem(text.p, text.n, cut, sizeof(cut) - 1))
                return false;
        for (size_t i = 0; i < text.n; i++) {
                if (text.p[i] == '"')
                        quoted = !quoted;
                else if (text.p[i] == '\\' && quoted)
                        i++;
                else if (text.p[i] == '<' && !quoted)
                        return true;
        }
        return false;
}

static void send_value(struct child *c, uint64_t sequence, jv value)
{
        BUF_AT_END struct buf why = BUF_INIT(4096);
        struct str text;

        value = jv_dump_string(value, 0);
        text = jv_view(value);
        if (is_cut(text))
                fail_text(c, sequence, "the transform's result is nested too deep: at most 256 levels");
        else if (text.n > c->setup.output_max) {
                buf_printf(&why, "the transform's result has %zu bytes: at most %llu may be sent", text.n,
                           (unsigned long long)c->setup.output_max);
                answer(c, FRAME_FAILED, sequence, buf_view(&why));
        } else
                answer(c, FRAME_RESULT, sequence, text);
        jv_free(value);
}

static void run(struct child *c, uint64_t sequence, jv input)
{
        jv value, end;

        jq_start(c->jq, input, 0);
        value = jq_next(c->jq);
        if (!jv_is_valid(value)) {
                if (ended_well(c, sequence, value))
                        fail_text(c, sequence,
                                  "the transform produced nothing: it must produce exactly one value; use "
                                  "spec.filter to leave events out");
                return;
        }
        end = jq_next(c->jq);
        if (jv_is_valid(end)) {
                jv_free(end);
                jv_free(value);
                fail_text(c, sequence,
                          "the transform produced more than one value: it must produce exactly one; put them "
                          "into an array: [ … ]");
                return;
        }
        if (!ended_well(c, sequence, end)) {
                jv_free(value);
                return;
        }
        send_value(c, sequence, value);
}

static void take_record(struct child *c)
{
        uint64_t sequence;
        struct str text = next_frame(c, FRAME_RECORD, &sequence);
        jv input;

        bound_cpu(2 * c->setup.timeout + USEC_SEC);
        input = parse(text);
        if (jv_is_valid(input))
                run(c, sequence, input);
        else
                fail(c, sequence, "the event is no JSON that jq reads: ", jv_invalid_get_msg(input));
}

/* ---- the process -------------------------------------------------------- */

/* Sanitizers catch these to print; the parent wants to see them. */
static void default_signals(void)
{
        static const int all[] = {
                SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS, SIGPROF, SIGPIPE
        };

        for (size_t i = 0; i < COUNT_OF(all); i++)
                (void)signal(all[i], SIG_DFL);
}

static void broken(struct child *c, const struct error *err)
{
        answer(c, FRAME_BROKEN, 0, str_of(err->text));
}

int transform_child_main(void)
{
        struct child c = { .in = BUF_INIT((size_t)FRAME_SIZE_MAX + READ_SIZE),
                           .out = BUF_INIT((size_t)FRAME_SIZE_MAX + READ_SIZE),
                           .complaints = BUF_INIT(4096) };
        FREE_AT_END char *program = NULL;
        struct error err;
        uint64_t sequence;
        struct str text;

        default_signals();
        text = next_frame(&c, FRAME_SETUP, &sequence);
        if (text.n < sizeof(c.setup))
                return CHILD_EXIT_PROTOCOL;
        memcpy(&c.setup, text.p, sizeof(c.setup));
        program = str_dup((struct str){ text.p + sizeof(c.setup), text.n - sizeof(c.setup) });
        if (!program)
                return CHILD_EXIT_MEMORY;
        if (sandbox_limit(c.setup.memory, &err) < 0 || sandbox_enter(CHILD_FD, &err) < 0) {
                broken(&c, &err);
                return 1;
        }
        bound_cpu(CHILD_START_TIMEOUT);
        if (!compile(&c, program)) {
                answer(&c, FRAME_REFUSED, 0, buf_view(&c.complaints));
                _exit(CHILD_EXIT_CLOSED);
        }
        answer(&c, FRAME_READY, 0, STR(""));
        for (;;)
                take_record(&c);
}
