#include "transform/transform.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <pwd.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "transform/child.h"
#include "transform/sandbox.h"

/* ---- a loop, the transform, and another Trigger's ----------------------- */

enum { MOST = 4096 };

static struct loop *loop;
static struct transform *transform, *neighbour;
static struct task wake, neighbour_wake, watchdog;
static bool overdue;
static struct {
        struct transform_result r;
        char *output;
} done[MOST];
static size_t done_n, wanted;
static struct {
        uint64_t results, failures;
        usec last, longest_gap;
} beside;
static usec patience = 30 * USEC_SEC;

static usec clock_now(void) { return clock_monotonic(&system_clock); }

static void too_late(struct task *t UNUSED, usec now UNUSED)
{
        overdue = true;
        loop_stop(loop);
}

static void on_wake(struct task *t UNUSED, usec now UNUSED)
{
        struct transform_result r;

        while (transform_take(transform, &r)) {
                assert_true(done_n < MOST);
                done[done_n].r = r;
                done[done_n].output = r.failed ? NULL : str_dup(r.output);
                done_n++;
        }
        if (done_n >= wanted)
                loop_stop(loop);
}

/* The neighbour: one record in flight, always. */
static void on_neighbour(struct task *t UNUSED, usec now UNUSED)
{
        struct transform_result r;
        usec at = clock_now();

        while (transform_take(neighbour, &r)) {
                beside.results++;
                beside.failures += r.failed || !str_is(r.output, "{\"n\":2}");
                if (beside.last)
                        beside.longest_gap = MAX_OF(beside.longest_gap, at - beside.last);
                beside.last = at;
                transform_submit(neighbour, r.tag + 1, STR("{\"n\":1}"));
        }
        if (wanted == 0)
                loop_stop(loop);
}

static void run(void)
{
        loop_arm(loop, &watchdog, clock_now() + patience);
        loop_run(loop);
        loop_forget(loop, &watchdog);
        assert_false(overdue);
}

static void on_stop(struct task *t UNUSED, usec now UNUSED) { loop_stop(loop); }

static void turn_for(usec time)
{
        struct task stop = { .turn = on_stop };

        loop_arm(loop, &stop, clock_now() + time);
        loop_run(loop);
        loop_forget(loop, &stop);
}

static void forget_results(void)
{
        for (size_t i = 0; i < done_n; i++)
                free(done[i].output);
        done_n = 0;
}

static void await(size_t n)
{
        wanted = n;
        while (done_n < n)
                run();
}

static void aim(const struct transform_config *config)
{
        struct transform_config c = *config;
        struct error err;

        transform = transform_free(transform);
        forget_results();
        c.loop = loop;
        assert_int_equal(transform_new(&transform, &c, &wake, &err), 0);
}

static size_t descriptors(void)
{
        DIR *folder = opendir("/proc/self/fd");
        size_t n = 0;

        assert_non_null(folder);
        while (readdir(folder))
                n++;
        assert_int_equal(closedir(folder), 0);
        return n;
}

static int setup(void **state UNUSED)
{
        struct error err;

        assert_int_equal(loop_new(&loop, &err), 0);
        wake = (struct task){ .turn = on_wake };
        watchdog = (struct task){ .turn = too_late };
        overdue = false;
        return 0;
}

static int teardown(void **state UNUSED)
{
        transform = transform_free(transform);
        neighbour = transform_free(neighbour);
        forget_results();
        loop_forget(loop, &wake);
        loop_forget(loop, &neighbour_wake);
        loop = loop_free(loop);
        /* No zombie. */
        assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
        assert_int_equal(errno, ECHILD);
        return 0;
}

static const char *one(const char *program, const char *input)
{
        aim(&(struct transform_config){ .program = program });
        transform_submit(transform, 7, str_of(input));
        await(1);
        assert_int_equal(done[0].r.tag, 7);
        return done[0].r.failed ? done[0].r.error.text : done[0].output;
}

/* ---- what it does ------------------------------------------------------- */

static void assert_within(const char *text, const char *part, const char * or)
{
        if (!strstr(text, part) && !(or &&strstr(text, or)))
                fail_msg("\"%.300s\" has no \"%s\"", text, part);
}

static void a_record_is_reshaped(void **state UNUSED)
{
        assert_string_equal(one("{id: .a, list: [.b[] | . + 1]}", "{\"a\": \"x\", \"b\": [1, 2]}"),
                            "{\"id\":\"x\",\"list\":[2,3]}");
        assert_string_equal(one(".", " \"\\u00e9\\ud83d\\ude00\\u0000\" "), "\"\u00e9\U0001F600\\u0000\"");
}

/* The examples of docs/transform.md, taken from there: three code blocks each, jq, then the event, then the
 * result. */
static const char *next_block(char **text, const char *opening)
{
        char *start = strstr(*text, opening), *end;

        if (!start)
                return NULL;
        start += strlen(opening);
        end = strstr(start, "\n```");
        assert_non_null(end);
        *end = 0;
        *text = end + 1;
        return start;
}

static void the_documents_examples_are_true(void **state UNUSED)
{
        BUF_AT_END struct buf page = BUF_INIT(1 << 20);
        const char *program, *event, *result;
        struct error err;
        size_t examples = 0;
        char *rest;

        assert_int_equal(buf_read_file(&page, "docs/transform.md", &err), 0);
        for (rest = page.p; (program = next_block(&rest, "```jq\n")); examples++) {
                event = next_block(&rest, "```json\n");
                result = next_block(&rest, "```json\n");
                assert_non_null(event);
                assert_non_null(result);
                assert_string_equal(one(program, event), result);
        }
        assert_true(examples >= 5);
}

static void answers_come_in_order_and_match(void **state UNUSED)
{
        char text[64];

        aim(&(struct transform_config){ .program = "{n: (.n * 2)}" });
        for (uint64_t tag = 0; tag < 1000; tag++) {
                (void)snprintf(text, sizeof(text), "{\"n\": %u}", (unsigned)tag);
                transform_submit(transform, tag, str_of(text));
        }
        await(1000);
        for (size_t i = 0; i < 1000; i++) {
                (void)snprintf(text, sizeof(text), "{\"n\":%zu}", i * 2);
                assert_int_equal(done[i].r.tag, i);
                assert_false(done[i].r.failed);
                assert_string_equal(done[i].output, text);
        }
}

static void a_failure_harms_no_other_record(void **state UNUSED)
{
        static const char *const inputs[] = { "1", "\"x\"", "2", "{", "3", "", "4", "1 2", "5", "[]" };

        aim(&(struct transform_config){ .program = "if type == \"number\" then . * 10 elif . == [] then "
                                                   "halt_error else error(\"no number: \" + .) end" });
        for (size_t round = 0; round < 3; round++)
                for (size_t i = 0; i < COUNT_OF(inputs); i++)
                        transform_submit(transform, i, str_of(inputs[i]));
        await(3 * COUNT_OF(inputs));
        for (size_t i = 0; i < done_n; i++) {
                const char *input = inputs[i % COUNT_OF(inputs)];
                bool good = i % 2 == 0;

                assert_int_equal(done[i].r.tag, i % COUNT_OF(inputs));
                assert_int_equal(done[i].r.failed, !good);
                if (good) {
                        assert_int_equal(done[i].output[0], input[0]);
                        continue;
                }
                assert_int_equal(done[i].r.error.kind, ERROR_INVALID);
                assert_false(done[i].r.error.retry);
        }
        assert_string_equal(done[1].r.error.text, "jq: no number: x");
        assert_within(done[3].r.error.text, "the event is no JSON that jq reads: ", NULL);
        assert_string_equal(done[5].r.error.text, "the event is no JSON that jq reads: no JSON value");
        assert_string_equal(done[7].r.error.text,
                            "the event is no JSON that jq reads: more than one JSON value");
        assert_string_equal(done[9].r.error.text, "jq: halt_error: []");
}

static void a_cancelled_record_has_no_result(void **state UNUSED)
{
        aim(&(struct transform_config){ .program = "if . == 0 then def f: f; f else . end",
                                        .timeout = 100 * USEC_MSEC });
        transform_submit(transform, 1, STR("1"));
        transform_submit(transform, 2, STR("2"));
        transform_submit(transform, 3, STR("3"));
        transform_cancel(transform, 2);
        transform_cancel(transform, 99);
        await(2);
        assert_int_equal(done[0].r.tag, 1);
        assert_int_equal(done[1].r.tag, 3);
        /* The one in work, too: it still ends, and those behind it go on. */
        transform_submit(transform, 4, STR("0"));
        transform_submit(transform, 5, STR("5"));
        transform_cancel(transform, 4);
        await(3);
        assert_int_equal(done[2].r.tag, 5);
        assert_string_equal(done[2].output, "5");
}

static void what_is_cancelled_holds_no_memory(void **state UNUSED)
{
        enum { SIZE = 1 << 20, MANY = 40 };
        BUF_AT_END struct buf large = BUF_INIT(2 * SIZE);

        aim(&(struct transform_config){ .program = "if . == 0 then def f: f; f else 1 end",
                                        .timeout = 300 * USEC_MSEC });
        buf_printf(&large, "\"%0*d\"", SIZE, 0);
        /* before there is a child, and while it is at work: one may be half sent */
        for (int round = 0; round < 2; round++) {
                for (uint64_t tag = 1; tag <= MANY; tag++)
                        transform_submit(transform, tag, buf_view(&large));
                assert_true(transform_held(transform) >= (size_t)MANY * SIZE);
                for (uint64_t tag = 1; tag <= MANY; tag++)
                        transform_cancel(transform, tag);
                assert_true(transform_held(transform) <= (size_t)round * 3 * SIZE);
                if (round)
                        break;
                transform_submit(transform, 100, STR("0"));
                turn_for(100 * USEC_MSEC);
                transform_submit(transform, 101, buf_view(&large));
                turn_for(20 * USEC_MSEC);
        }
        transform_cancel(transform, 101);
        transform_submit(transform, 102, STR("2"));
        await(2);
        assert_int_equal(done[0].r.tag, 100);
        assert_int_equal(done[1].r.tag, 102);
        assert_string_equal(done[1].output, "1");
        assert_true(transform_held(transform) < SIZE);
}

static size_t allocated(void)
{
        struct mallinfo2 m = mallinfo2();

        return m.uordblks + m.hblkhd;
}

/* After a peak little of what its records took is kept for the next ones. */
static void a_peak_leaves_little(void **state UNUSED)
{
        enum { SIZE = 200000, MANY = 40 };
        BUF_AT_END struct buf large = BUF_INIT(2 * SIZE);
        size_t before;

        aim(&(struct transform_config){ .program = "1" });
        buf_printf(&large, "\"%0*d\"", SIZE, 0);
        before = allocated();
        for (uint64_t tag = 1; tag <= MANY; tag++)
                transform_submit(transform, tag, buf_view(&large));
        await(MANY);
        assert_true(allocated() < before + (size_t)10 * SIZE);
}

/* ---- bounds ------------------------------------------------------------- */

static void what_is_too_slow_is_ended_alone(void **state UNUSED)
{
        usec began;

        aim(&(struct transform_config){ .program = "if . == 1 then def f: f; f else . end",
                                        .timeout = 300 * USEC_MSEC });
        for (uint64_t tag = 0; tag < 64; tag++)
                transform_submit(transform, tag, tag == 5 || tag == 20 ? STR("1") : STR("2"));
        began = clock_now();
        await(64);
        assert_in_range(clock_now() - began, 600 * USEC_MSEC, 10 * USEC_SEC);
        for (size_t i = 0; i < 64; i++) {
                assert_int_equal(done[i].r.tag, i);
                assert_int_equal(done[i].r.failed, i == 5 || i == 20);
        }
        assert_string_equal(done[5].r.error.text, "the transform took longer than 300ms");
        assert_int_equal(done[5].r.error.kind, ERROR_TIMEOUT);
        assert_false(done[5].r.error.retry);
}

static void what_takes_too_much_memory_is_ended_alone(void **state UNUSED)
{
        if (SANDBOX_SANITIZED)
                skip();
        aim(&(struct transform_config){
                .program = "if . == 1 then reduce range(40) as $i (\"x\"; . + .) else . end",
                .memory = 32 << 20,
                .timeout = 10 * USEC_SEC });
        for (uint64_t tag = 0; tag < 20; tag++)
                transform_submit(transform, tag, tag == 5 ? STR("1") : STR("2"));
        await(20);
        for (size_t i = 0; i < 20; i++)
                assert_int_equal(done[i].r.failed, i == 5);
        assert_string_equal(done[5].r.error.text, "the transform ran out of memory (32 MiB)");
        assert_int_equal(done[5].r.error.kind, ERROR_MEMORY);
        assert_false(done[5].r.error.retry);
}

static void what_crashes_is_ended_alone(void **state UNUSED)
{
        aim(&(struct transform_config){
                .program = "if . == 1 then reduce range(300000) as $i (0; [.]) else . end",
                .timeout = 10 * USEC_SEC,
                .memory = 256 << 20 });
        for (uint64_t tag = 0; tag < 20; tag++)
                transform_submit(transform, tag, tag == 0 || tag == 19 ? STR("1") : STR("2"));
        await(20);
        for (size_t i = 0; i < 20; i++)
                assert_int_equal(done[i].r.failed, i == 0 || i == 19);
        assert_within(done[0].r.error.text, "the transform crashed: signal 11 (SIGSEGV)", NULL);
}

static void a_long_result_is_refused(void **state UNUSED)
{
        aim(&(struct transform_config){ .program = "reduce range(.) as $i (\"\"; . + \"x\")",
                                        .output_max = 100 });
        transform_submit(transform, 0, STR("98"));
        transform_submit(transform, 1, STR("99"));
        await(2);
        assert_int_equal(strlen(done[0].output), 100);
        assert_string_equal(done[1].r.error.text,
                            "the transform's result has 101 bytes: at most 100 may be sent");
}

static char *repeated(const char *before, const char *what, size_t times, const char *after)
{
        BUF_AT_END struct buf b = BUF_INIT(16 << 20);

        buf_text(&b, before);
        while (times--)
                buf_text(&b, what);
        buf_text(&b, after);
        return buf_take(&b);
}

static void large_and_deep_inputs_end(void **state UNUSED)
{
        FREE_AT_END char *large = repeated("{\"s\":\"", "0123456789", 500 * 1024, "\"}"),
                         *deep = repeated("", "[", 10000, ""), *numbers = repeated("[", "1,", 5 << 19, "1]");

        /* 5 MiB in, the same out: more than a socket's buffer, in both directions. */
        aim(&(struct transform_config){ .program = ".", .output_max = 8 << 20, .timeout = 20 * USEC_SEC });
        for (uint64_t tag = 0; tag < 3; tag++)
                transform_submit(transform, tag, str_of(large));
        transform_submit(transform, 3, str_of(deep));
        transform_submit(transform, 4, str_of(numbers));
        transform_submit(transform, 5, STR("\"after\""));
        await(6);
        for (size_t i = 0; i < 3; i++) {
                assert_false(done[i].r.failed);
                assert_string_equal(done[i].output, large);
        }
        assert_within(done[3].r.error.text,
                      "the event is no JSON that jq reads: Exceeds depth limit for parsing", NULL);
        if (!SANDBOX_SANITIZED)
                assert_string_equal(done[4].r.error.text, "the transform ran out of memory (64 MiB)");
        assert_string_equal(done[5].output, "\"after\"");
}

/* ---- deaths that are not the program's ---------------------------------- */

static void on_kill(struct task *t UNUSED, usec now UNUSED)
{
        if (transform_process(transform))
                assert_int_equal(kill(transform_process(transform), SIGKILL), 0);
}

static void a_killed_child_is_started_again(void **state UNUSED)
{
        struct task killer = { .turn = on_kill };

        aim(&(struct transform_config){ .program = "if . == 1 then last(range(1e6)) else . end",
                                        .timeout = 20 * USEC_SEC });
        transform_submit(transform, 0, STR("0"));
        await(1);
        on_kill(NULL, 0); /* with nothing to do */
        transform_submit(transform, 1, STR("1"));
        transform_submit(transform, 2, STR("2"));
        await(3);
        assert_string_equal(done[1].output, "999999");
        assert_string_equal(done[2].output, "2");
        /* While it works: the record is done again. */
        transform_submit(transform, 3, STR("1"));
        transform_submit(transform, 4, STR("4"));
        loop_arm(loop, &killer, clock_now() + 20 * USEC_MSEC);
        await(5);
        assert_string_equal(done[3].output, "999999");
        assert_string_equal(done[4].output, "4");
        loop_forget(loop, &killer);
}

static void on_kill_always(struct task *t, usec now)
{
        on_kill(t, now);
        loop_arm(loop, t, now + 400 * USEC_MSEC);
}

static void a_record_is_not_tried_for_ever(void **state UNUSED)
{
        struct task killer = { .turn = on_kill_always };

        aim(&(struct transform_config){ .program = "if . == 1 then def f: f; f else . end",
                                        .timeout = 20 * USEC_SEC });
        transform_submit(transform, 0, STR("1"));
        loop_arm(loop, &killer, clock_now() + 400 * USEC_MSEC);
        await(1);
        loop_forget(loop, &killer);
        assert_string_equal(done[0].r.error.text,
                            "the transform's process was killed from outside: signal 9 (SIGKILL)");
        assert_int_equal(done[0].r.error.kind, ERROR_SYSTEM);
        assert_false(done[0].r.error.retry);
}

static void a_child_that_cannot_start_fails_what_waits(void **state UNUSED)
{
        aim(&(struct transform_config){ .program = ".", .executable = "/nonexistent/sluice" });
        transform_submit(transform, 0, STR("0"));
        transform_submit(transform, 1, STR("1"));
        await(2);
        assert_string_equal(done[1].r.error.text, "start the transform's process: No such file or directory");
        aim(&(struct transform_config){ .program = ".", .executable = "/bin/false" });
        transform_submit(transform, 0, STR("0"));
        await(1);
        assert_string_equal(done[0].r.error.text, "the transform's process ended: exit status 1");
}

/* A shell script in the child's place. */
static void assert_child_says(const char *script, const char *expected)
{
        BUF_AT_END struct buf text = BUF_INIT(4096);
        char path[] = "/tmp/transform_test.XXXXXX";
        int fd = mkstemp(path);

        assert_true(fd >= 0);
        buf_printf(&text, "#!/bin/sh\n%s\n", script);
        assert_int_equal(write(fd, text.p, text.n), text.n);
        assert_int_equal(fchmod(fd, 0700), 0);
        assert_int_equal(close(fd), 0);
        aim(&(struct transform_config){
                .program = ".", .executable = path, .start_timeout = 500 * USEC_MSEC });
        transform_submit(transform, 0, STR("0"));
        await(1);
        transform = transform_free(transform);
        assert_int_equal(unlink(path), 0);
        assert_true(done[0].r.failed);
        assert_string_equal(done[0].r.error.text, expected);
        assert_false(done[0].r.error.retry);
}

static void a_child_that_makes_no_sense_is_ended(void **state UNUSED)
{
#define READY "printf '\\0\\0\\0\\0\\2\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0' >&3; "
        static const char nonsense[] = "the transform's process answered something that makes no sense";

        assert_child_says("yes >&3", nonsense);
        assert_child_says("exec 3>&-; while :; do :; done",
                          "the transform's process was killed from outside: signal 9 (SIGKILL)");
        assert_child_says(READY "yes >&3", nonsense);
        assert_child_says(READY READY "while :; do :; done", nonsense);
        assert_child_says("while :; do :; done", "compiling the transform took longer than 500ms");
        assert_child_says(READY "exit 3", "the transform's process ended: exit status 3");
        assert_child_says("printf '\\2\\0\\0\\0\\4\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0no' >&3", "no");
#undef READY
}

static void a_program_that_does_not_compile_fails_everything(void **state UNUSED)
{
        aim(&(struct transform_config){ .program = ".a |\n{b: }" });
        transform_submit(transform, 0, STR("0"));
        transform_submit(transform, 1, STR("1"));
        await(2);
        assert_within(done[0].r.error.text, "jq: syntax error, unexpected '}' at line 2: {b: }", NULL);
        assert_string_equal(done[1].r.error.text, done[0].r.error.text);
        transform_submit(transform, 2, STR("2")); /* and no child is started for it */
        await(3);
        assert_string_equal(done[2].r.error.text, done[0].r.error.text);
        turn_for(100 * USEC_MSEC);
        assert_int_equal(transform_process(transform), 0);
}

static void freeing_ends_what_is_under_way(void **state UNUSED)
{
        size_t before = descriptors();

        for (int i = 0; i < 4; i++) {
                aim(&(struct transform_config){ .program = "def f: f; f" });
                for (uint64_t tag = 0; tag < 10; tag++)
                        transform_submit(transform, tag, STR("1"));
                /* Before the child is started, while it compiles, while it works. */
                if (i)
                        turn_for((usec[]){ 0, 1, 10, 300 }[i] * USEC_MSEC);
                transform = transform_free(transform);
                assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
        }
        assert_int_equal(descriptors(), before);
        assert_null(transform_free(NULL));
        assert_int_equal(done_n, 0);
}

/* ---- the sandbox -------------------------------------------------------- */

/* What a process inside the sandbox tries; what becomes of it. */
static int try_open(void) { return open("/etc/passwd", O_RDONLY) < 0 && errno == ENOENT ? 10 : 1; }
static int try_stat(void)
{
        struct stat s;
        return stat("/etc/passwd", &s) < 0 && errno == ENOENT ? 10 : 1;
}
static int try_stderr(void) { return write(2, "x", 1) < 0 && errno == EBADF ? 10 : 1; }
static int try_stdin(void)
{
        char c;
        return read(0, &c, 1) < 0 && errno == EBADF ? 10 : 1;
}
static int try_memory(void)
{
        void *p = malloc(1 << 20);
        free(p);
        return p ? 10 : 1;
}
static int try_fork(void) { return (int)syscall(SYS_fork) >= 0; }
static int try_exec(void) { return execve("/bin/true", (char *[]){ NULL }, (char *[]){ NULL }); }
static int try_socket(void) { return socket(AF_INET, SOCK_STREAM, 0); }
static int try_connect(void) { return connect(CHILD_FD, NULL, 0); }
static int try_kill(void) { return kill(getppid(), 0); }
static int try_signal(void) { return (int)syscall(SYS_tgkill, 1, 1, SIGKILL); }
static int try_own_signal(void) { return (int)syscall(SYS_tgkill, getpid(), gettid(), SIGKILL); }
static int try_code(void)
{
        return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != NULL;
}
static int try_more_code(void) { return mprotect(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC); }
static int try_ptrace(void) { return (int)syscall(SYS_ptrace, 0, 0, 0, 0); }
static int try_limit(void) { return setrlimit(RLIMIT_CPU, &(struct rlimit){ 1, 1 }); }
static int try_prctl(void) { return prctl(PR_SET_DUMPABLE, 1); }
static int try_unlink(void) { return unlink("/nonexistent"); }
static int try_ioctl(void) { return ioctl(CHILD_FD, 0, 0); }
static int try_dup(void) { return dup(CHILD_FD); }
static int try_filter(void) { return (int)syscall(SYS_seccomp, 0, 0, NULL); }
static int try_io_uring(void) { return (int)syscall(425, 1, NULL); }
static int try_users(void) { return getpwuid(0) != NULL; }
static int try_abort(void) { abort(); }

static void the_sandbox_kills_or_finds_nothing(void **state UNUSED)
{
        static const struct {
                const char *name;
                int (*what)(void);
                int signal;
        } all[] = {
                { "open", try_open, 0 },
                { "stat", try_stat, 0 },
                { "stderr", try_stderr, 0 },
                { "stdin", try_stdin, 0 },
                { "memory", try_memory, 0 },
                { "fork", try_fork, SIGSYS },
                { "exec", try_exec, SIGSYS },
                { "socket", try_socket, SIGSYS },
                { "connect", try_connect, SIGSYS },
                { "kill", try_kill, SIGSYS },
                { "a signal", try_signal, SIGSYS },
                { "another signal", try_own_signal, SIGSYS },
                { "code", try_code, SIGSYS },
                { "more code", try_more_code, SIGSYS },
                { "ptrace", try_ptrace, SIGSYS },
                { "a limit", try_limit, SIGSYS },
                { "prctl", try_prctl, SIGSYS },
                { "unlink", try_unlink, SIGSYS },
                { "ioctl", try_ioctl, SIGSYS },
                { "dup", try_dup, SIGSYS },
                { "another filter", try_filter, SIGSYS },
                { "io_uring", try_io_uring, SIGSYS },
                { "users", try_users, SIGSYS },
                { "abort", try_abort, SIGABRT },
        };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                int status = 0;
                pid_t pid = fork();

                assert_true(pid >= 0);
                if (pid == 0) {
                        struct error err;

                        (void)signal(SIGSYS, SIG_DFL);
                        (void)signal(SIGABRT, SIG_DFL);
                        if (sandbox_limit(16 << 20, &err) < 0 || sandbox_enter(CHILD_FD, &err) < 0)
                                _exit(2);
                        _exit(all[i].what());
                }
                assert_int_equal(waitpid(pid, &status, 0), pid);
                if (all[i].signal ? !WIFSIGNALED(status) || WTERMSIG(status) != all[i].signal
                                  : !WIFEXITED(status) || WEXITSTATUS(status) != 10)
                        fail_msg("%s: status %#x", all[i].name, (unsigned)status);
        }
}

/* What the child has: looked at from outside while it works. */
static void the_child_has_nothing(void **state UNUSED)
{
        BUF_AT_END struct buf path = BUF_INIT(256), text = BUF_INIT(1 << 20);
        struct error err;
        struct dirent *entry;
        DIR *folder;
        int fd = dup(0);

        assert_string_equal(one("[env, $ENV, (env | length)]", "0"), "[{},{},0]");
        buf_printf(&path, "/proc/%d/fd", (int)transform_process(transform));
        folder = opendir(path.p);
        if (!folder) /* the child lets nobody but root look */
                assert_true(errno == EACCES && getuid() != 0);
        while (folder && (entry = readdir(folder)))
                if (entry->d_name[0] != '.')
                        assert_string_equal(entry->d_name,
                                            SANDBOX_SANITIZED && entry->d_name[0] == '2' ? "2" : "3");
        if (folder)
                (void)closedir(folder);
        (void)close(fd);
        buf_reset(&path);
        buf_printf(&path, "/proc/%d/status", (int)transform_process(transform));
        assert_int_equal(buf_read_file(&text, path.p, &err), 0);
        assert_within(text.p, "NoNewPrivs:\t1", NULL);
        assert_within(text.p, "Seccomp:\t2", NULL);
        assert_within(text.p, "SigBlk:\t0000000000000000", NULL);
        assert_int_equal(getsid(transform_process(transform)), transform_process(transform));
}

/* A process with a transform that never ends dies, or stands still: its child ends all the same. */
static void assert_child_ends_when_its_parent(int signal_number)
{
        int pipe_ends[2], fd, status = 0;
        pid_t parent, child = 0;

        assert_int_equal(pipe(pipe_ends), 0);
        parent = fork();
        assert_true(parent >= 0);
        if (parent == 0) {
                struct error err;

                if (loop_new(&loop, &err) < 0 ||
                    transform_new(&transform,
                                  &(struct transform_config){
                                          .loop = loop, .program = "def f: f; f", .timeout = USEC_SEC },
                                  &wake, &err) < 0)
                        _exit(1);
                transform_submit(transform, 0, STR("0"));
                turn_for(300 * USEC_MSEC);
                child = transform_process(transform);
                (void)!write(pipe_ends[1], &child, sizeof(child));
                (void)raise(signal_number);
                _exit(2);
        }
        assert_int_equal(read(pipe_ends[0], &child, sizeof(child)), sizeof(child));
        assert_true(child > 0);
        /* Readable once it has ended, whoever reaps it; it may be gone already. */
        fd = (int)syscall(SYS_pidfd_open, child, 0);
        if (fd >= 0) {
                assert_int_equal(poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, 20000), 1);
                (void)close(fd);
        } else
                assert_int_equal(errno, ESRCH);
        (void)kill(parent, SIGKILL);
        assert_int_equal(waitpid(parent, &status, 0), parent);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        (void)close(pipe_ends[0]);
        (void)close(pipe_ends[1]);
}

static void a_child_does_not_outlive_its_parent(void **state UNUSED)
{
        assert_child_ends_when_its_parent(SIGKILL);
        assert_child_ends_when_its_parent(SIGSTOP);
}

static void a_program_is_checked(void **state UNUSED)
{
        FREE_AT_END char *deep = repeated("", "[", 200000, "");
        struct error err;
        size_t before = descriptors();

        assert_int_equal(transform_check(". | {a}", &err), 0);
        assert_int_equal(transform_check(".a |\n\n  foo(1) | bar", &err), -1);
        assert_within(err.text, "jq: foo/1 is not defined at line 3:   foo(1) | bar", NULL);
        assert_int_equal(err.kind, ERROR_INVALID);
        assert_int_equal(transform_check(deep, &err), -1);
        assert_true(strlen(err.text) > 10);
        assert_false(err.retry);
        assert_int_equal(descriptors(), before);
        assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

/* ---- hostile programs --------------------------------------------------- */

#define GAP (1200 * USEC_MSEC) /* the neighbour's longest wait that a busy machine explains */
static const char slow[] = "the transform took longer than 200ms",
                  huge[] = "the transform ran out of memory (64 MiB)";
#define MANY "the transform produced more than one value"
#define NONE "the transform produced nothing"
#define CRASH "the transform crashed: signal "

/* input NULL: {"a":1}; a part of the failure or of the output; or, of another libjq or a slower machine */
struct hostile {
        const char *program, *input, *expected, * or ;
};

static const struct hostile hostile[] = {
        /* never ends */
        ROW("def f: f; f", NULL, slow, NULL),
        ROW("def f(g): f(g | g); f(.)", NULL, slow, huge),
        ROW("last(repeat(.))", NULL, slow, NULL),
        ROW("reduce range(1e18) as $i (0; . + 1)", NULL, slow, NULL),
        ROW("last(foreach range(1e18) as $i (0; . + 1))", NULL, slow, NULL),
        ROW("until(false; .)", NULL, slow, huge),
        ROW("last(while(true; .))", NULL, slow, huge),
        ROW("last(recurse(.))", NULL, slow, huge),
        ROW("last(limit(1e18; repeat(1)))", NULL, slow, NULL),
        ROW("last(range(0; 1; 0))", NULL, "null", slow),
        ROW("first(range(1e18) | select(. < 0))", NULL, slow, NULL),
        ROW("label $out | foreach repeat(1) as $i (0; . + $i; if . < 0 then ., break $out else empty end)",
            NULL, slow, NULL),
        ROW("isempty(repeat(empty))", NULL, slow, huge),
        ROW("., (def f: f; f)", NULL, slow, NULL),
        ROW("try (def f: f; f) catch 1", NULL, slow, NULL),
        ROW("[range(200)] as $a | [[$a, $a, $a, $a] | combinations] | length", NULL, slow, huge),
        /* takes all memory */
        ROW("[range(1e9)]", NULL, huge, slow),
        ROW("[repeat(1)]", NULL, huge, slow),
        ROW("\"x\" * 1e9 | length", NULL, huge, slow),
        ROW("reduce range(64) as $i (\"x\"; . + .)", NULL, huge, slow),
        ROW("reduce range(64) as $i ([1]; . + .)", NULL, huge, slow),
        ROW("def f: 1 + f; f", NULL, huge, slow),
        ROW("def f: [f]; f", NULL, huge, slow),
        ROW("[limit(1e9; repeat(\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"))]", NULL, huge, slow),
        ROW("null | .[536870000] = 1", NULL, huge, slow),
        ROW("null | setpath([1e8]; 1)", NULL, huge, slow),
        ROW("reduce range(64) as $i (\"\\u0001\"; tojson + .)", NULL, huge, slow),
        ROW("reduce range(30) as $i ({}; {a: ., b: .}) | tojson", NULL, huge, slow),
        ROW("[recurse([., .])] | length", NULL, huge, slow),
        ROW("(\"x\" * 3e7 | explode) | length", NULL, huge, slow),
        ROW("\"aXbX\" | gsub(\"\"; \"z\")", NULL, huge, ""),
        /* crashes, or could */
        ROW("reduce range(300000) as $i (0; [.])", NULL, CRASH, slow),
        ROW("reduce range(5000) as $i (0; {a: .})", NULL,
            "the transform's result is nested too deep: at most 256 levels", "{\"a\":{\"a\":"),
        ROW("reduce range(5000) as $i (0; [.]) | [., \"<\"]", NULL,
            "the transform's result is nested too deep: at most 256 levels", "[[["),
        ROW("[\"\\\"<skipped: too deep>\", \"<\\\\\"]", NULL, "[\"\\\"<skipped: too deep>\",\"<\\\\\"]",
            NULL),
        ROW("reduce range(60000) as $i (0; {a: .}) | tojson | length", NULL, "", NULL),
        ROW("1e18 | strftime(\"%Y\")", NULL, CRASH, "jq: error converting"),
        ROW("1e300 | todate", NULL, CRASH, "jq: error converting"),
        ROW("[1114112, -1, 55296, 1e300] | implode", NULL, "\xef\xbf\xbd", "implode"),
        ROW("[\"a\"] | implode", NULL, CRASH, "implode"),
        ROW("[range(20000) | \"[\"] | add | fromjson", NULL, "Exceeds depth limit for parsing", NULL),
        ROW("reduce range(1000) as $i (1; [.]) | [tojson | length]", NULL, "[2001]", ""),
        ROW("[nan] | sort | .[0] | tostring | . * 1e18", NULL, "jq: Repeat string result too long", huge),
        ROW("[1, null, nan, infinite, -infinite]", NULL, "[1,null,null,1.797", NULL),
        ROW("[.[] as [$a] | $a]", NULL, "jq: Cannot index number with number", NULL),
        /* asks for what is not there */
        ROW("input", NULL, "jq: there is no further input: a transform sees one event", NULL),
        ROW("[inputs]", NULL, "jq: there is no further input", NULL),
        ROW("first(inputs)", NULL, "jq: there is no further input", NULL),
        ROW("import \"a\" as a; .", NULL, "jq: module not found: a", NULL),
        ROW("import \"etc/passwd\" as $p; $p", NULL, "jq: module not found: etc/passwd", NULL),
        ROW("include \"x\"; .", NULL, "jq: module not found: x", NULL),
        ROW("import \"passwd\" as $p {search: \"/etc\", raw: true}; $p", NULL, "jq: module not found: passwd",
            NULL),
        ROW("import \"a\" as a {search: \"~/x\"}; .", NULL, "killed by the sandbox",
            "jq: module not found: a"),
        ROW("import \"../a\" as a; .", NULL, "jq: ", NULL),
        ROW("[env, $ENV]", NULL, "[{},{}]", NULL),
        ROW("$ENV.PATH", NULL, "null", NULL),
        ROW("env.HOME", NULL, "null", NULL),
        ROW("[., debug, stderr] | length", NULL, "3", NULL),
        ROW("\"a\" | modulemeta", NULL, "jq: module not found: a", NULL),
        ROW("modulemeta", NULL, "jq: modulemeta input module name must be a string", NULL),
        ROW("get_search_list", NULL, "[]", NULL),
        ROW("input_filename", NULL, "null", "jq: Unknown input filename"),
        ROW("input_line_number", NULL, "jq: Unknown input line number", NULL),
        ROW("$__prog_args", NULL, "jq: $__prog_args is not defined at line 1: $__prog_args", NULL),
        ROW("$__loc__", NULL, "{\"file\":\"<top-level>\",\"line\":1}", NULL),
        ROW("now | type", NULL, "\"number\"", NULL),
        ROW("0 | localtime | mktime", NULL, "0", NULL),
        ROW("0 | strflocaltime(\"%Z\")", NULL, "\"UTC\"", "\"GMT\""),
        /* ends in its own way */
        ROW("empty", NULL, NONE, NULL),
        ROW("error(null)", NULL, NONE, "null"),
        ROW("halt", NULL, NONE, NULL),
        ROW("halt_error", NULL, "jq: halt_error: {\"a\":1}", NULL),
        ROW("\"bye\\n\" | halt_error", NULL, "jq: halt_error: bye", NULL),
        ROW("{} | halt_error(3)", NULL, "jq: halt_error: {}", NULL),
        ROW("null | halt_error", NULL, "jq: halt_error: null", NONE),
        ROW("., halt_error", NULL, "jq: halt_error: {\"a\":1}", NULL),
        ROW("error", NULL, "jq: error (not a string): {\"a\":1}", NULL),
        ROW("error(\"line\\nand\\u0000\\u001b[1m\")", NULL, "jq: line and  [1m", NULL),
        ROW("., error(\"late\")", NULL, "jq: late", NULL),
        ROW("error(\"x\" * 10000)", NULL, "xxxxxx…", NULL),
        ROW("label $out | break $out", NULL, NONE, NULL),
        ROW("repeat(.)", NULL, MANY, NULL),
        ROW("range(1e18)", NULL, MANY, NULL),
        ROW(".. ", NULL, MANY, NULL),
        ROW("limit(-1; 1, 2)", NULL, MANY, "negative"),
        ROW("first(empty)", NULL, NONE, NULL),
        /* wrong types and arguments */
        ROW("ltrimstr(1) | .a", NULL, "1", NULL),
        ROW("getpath([\"a\", 0, \"b\"]) | .", NULL, "jq: Cannot index number with number", NULL),
        ROW("getpath(1)", NULL, "jq: Path must be specified as an array", NULL),
        ROW("getpath([\"a\", {}, 1])", NULL, "jq: ", NULL),
        ROW(".[1e9] = 1", NULL, "jq: Cannot index object with number", NULL),
        ROW("[] | .[-1] = 1", NULL, "jq: Out of bounds negative array index", NULL),
        ROW("setpath([1e9]; 1)", NULL, "jq: Cannot index object with number", NULL),
        ROW("\"!!\" | @base64d", NULL, "jq: string (\"!!\") is not valid base64 data", NULL),
        ROW("@sh", NULL, "jq: object ({\"a\":1}) can not be escaped for shell", NULL),
        ROW("\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!\" | test(\"^(a|a|aa)+$\")", NULL, slow,
            "jq: Regex failure: "),
        ROW("\"a\" | test(\"(\")", NULL, "jq: Regex failure: end pattern with unmatched parenthesis", NULL),
        ROW("\"a\" | test(\"a\"; \"q\")", NULL, "jq: q is not a valid modifier string", NULL),
        ROW("splits(\"a\")", NULL, "cannot be matched, as it is not a string", NULL),
        ROW("[\"a,b\" | splits(\",\"; null)]", NULL, "[\"a\",\"b\"]", NULL),
        ROW("INDEX(.a)", NULL, "jq: Cannot index number with string", NULL),
        ROW("IN(1, 2)", NULL, "false", NULL),
        ROW("\"2015\" | strptime(\"%Y-%m\")", NULL, "jq: date \"2015\" does not match format", NULL),
        ROW("mktime", NULL, "jq: mktime requires array", NULL),
        ROW("walk(if type == \"number\" then . + 1 else . end)", NULL, "{\"a\":2}", NULL),
        /* no program */
        ROW(".[", NULL, "jq: syntax error, unexpected ", NULL),
        ROW("}", NULL, "jq: syntax error, unexpected INVALID_CHARACTER", NULL),
        ROW("\"abc", NULL, "jq: syntax error, unexpected ", NULL),
        ROW("\"\\(1", NULL, "jq: syntax error, unexpected ", NULL),
        ROW(". as [$a", NULL, "jq: syntax error, unexpected ", NULL),
        ROW("if . then 1", NULL, "at line 1: if . then 1; Possibly unterminated 'if' statement", NULL),
        ROW("@nosuch", NULL, "is not a valid format", NULL),
        ROW("ascii", NULL, "jq: ascii/0 is not defined at line 1: ascii", NULL),
        ROW("$x", NULL, "jq: $x is not defined at line 1: $x", NULL),
        ROW("break $out", NULL, "jq: $*label-out is not defined", NULL),
        ROW("{(1): 2}", NULL, "jq: ", NULL),
        ROW("\001\002\377\376", NULL, "jq: syntax error", NULL),
        ROW("\"\\u0000\\ud800\" | length", NULL, "2", ""),
        ROW("", NULL, "{\"a\":1}", "jq: Top-level program not given"),
        ROW("# only a comment", NULL, "{\"a\":1}", "jq: Top-level program not given"),
};

static void start_neighbour(void)
{
        struct error err;

        neighbour_wake = (struct task){ .turn = on_neighbour };
        beside.results = beside.failures = 0;
        beside.last = beside.longest_gap = 0;
        assert_int_equal(transform_new(&neighbour,
                                       &(struct transform_config){ .loop = loop,
                                                                   .program = "{n: (.n + 1)}",
                                                                   .timeout = 20 * USEC_SEC },
                                       &neighbour_wake, &err),
                         0);
        transform_submit(neighbour, 0, STR("{\"n\":1}"));
        wanted = 0;
        run();
}

/* Whether it ended as it should. */
static bool endure(const struct hostile *h)
{
        uint64_t before = beside.results;
        const char *input = h->input ? h->input : "{\"a\":1}", *text;

        if (SANDBOX_SANITIZED && h->expected == huge) /* nothing would bound it */
                return true;
        beside.longest_gap = 0;
        /* A machine that is busy must not make slow what is not. */
        aim(&(struct transform_config){ .program = h->program,
                                        .timeout = h->expected == slow || h->or == slow ? 200 * USEC_MSEC
                                                                                        : 20 * USEC_SEC });
        transform_submit(transform, 7, str_of(input));
        await(1);
        text = done[0].r.failed ? done[0].r.error.text : done[0].output;
        if (!strstr(text, h->expected) && !(h->or &&strstr(text, h->or))) {
                print_error("%.100s: \"%.300s\" has no \"%s\"\n", h->program, text, h->expected);
                return false;
        }
        assert_false(done[0].r.failed && done[0].r.error.retry);
        for (wanted = 0; beside.results == before;)
                run();
        assert_int_equal(beside.failures, 0);
        if (beside.longest_gap > GAP)
                print_error("%.100s: the neighbour waited for %lld ms\n", h->program,
                            (long long)(beside.longest_gap / 1000));
        return beside.longest_gap <= GAP;
}

static void the_loop_never_waits_for_a_child(void **state UNUSED)
{
        usec began;

        start_neighbour();
        aim(&(struct transform_config){ .program = "def f: f; f", .timeout = 2500 * USEC_MSEC });
        transform_submit(transform, 1, STR("1"));
        began = clock_now();
        await(1);
        assert_string_equal(done[0].r.error.text, "the transform took longer than 2.5s");
        assert_in_range(clock_now() - began, 2500 * USEC_MSEC, 5 * USEC_SEC);
        assert_true(beside.results > 100);
        assert_in_range(beside.longest_gap, 0, GAP);
}

static void hostile_programs_end_and_harm_nobody(void **state UNUSED)
{
        size_t bad = 0;

        start_neighbour();
        for (size_t i = 0; i < COUNT_OF(hostile); i++)
                bad += !endure(&hostile[i]);
        assert_int_equal(bad, 0);
}

static void generated_programs_end_and_harm_nobody(void **state UNUSED)
{
        FREE_AT_END char *spaces = repeated("", "          ", 100 * 1024, "."),
                         *text = repeated("\"", "0123456789", 100 * 1024, "\" | length"),
                         *brackets = repeated("", "[", 100000, ""),
                         *parentheses = repeated("", "(", 5000, ""), *pipes = repeated(".", "|.", 100000, ""),
                         *functions = repeated("", "def f: f; ", 5000, "1"),
                         *values = repeated("1", ",1", 20000, "");
        FREE_AT_END char *deep = repeated("", "[", 10000, ""), *deep_whole = repeated("", "[", 200, "");
        const struct hostile all[] = {
                { spaces, NULL, "{\"a\":1}", NULL },
                { text, NULL, "1024000", NULL },
                { brackets, NULL, "", NULL },
                { parentheses, NULL, "", NULL },
                { pipes, NULL, "", NULL },
                { functions, NULL, "", NULL },
                { values, NULL, "", NULL },
                { ".", deep, "the event is no JSON that jq reads: Exceeds depth limit for parsing", NULL },
                { ".", deep_whole, "the event is no JSON that jq reads: Unfinished JSON term", NULL },
                { "[range(200000)]", "1", "the transform's result has ", slow },
                { ".", "{\"a\":nope}", "the event is no JSON that jq reads: Invalid", NULL },
                { ".", "\"\xff\xfe\"", "\"\uFFFD", NULL },
                { ".", "9007199254740993", "900719925474099", NULL },
        };
        size_t bad = 0;

        start_neighbour();
        for (size_t i = 0; i < COUNT_OF(all); i++)
                bad += !endure(&all[i]);
        assert_int_equal(bad, 0);
}

/* `transform_test measure [EXECUTABLE]`: the whole round trip, 64 in flight. */
static void measure(const char *executable)
{
        static const char *const programs[] = {
                ".", "{id: .id, text: .text}", ".text |= ascii_downcase",
                ". + {list: [.list[] | select(. > 3) | {n: ., twice: (. * 2)}]}"
        };
        FREE_AT_END char *record = repeated(
                "{\"id\": \"0123456789\", \"list\": [1, 2, 3, 4, 5, 6], \"text\": \"", "0123456789", 95,
                "\"}");
        enum { RECORDS = 64 * 200 };

        (void)setup(NULL);
        for (size_t i = 0; i < COUNT_OF(programs); i++) {
                BUF_AT_END struct buf path = BUF_INIT(256), text = BUF_INIT(1 << 20);
                struct error err;
                const char *rss;
                usec began = clock_now(), compiled;

                aim(&(struct transform_config){ .program = programs[i], .executable = executable });
                transform_submit(transform, 0, str_of(record));
                await(1);
                compiled = clock_now() - began;
                began = clock_now();
                for (size_t n = 0; n < RECORDS; n += 64) {
                        forget_results();
                        for (uint64_t tag = 0; tag < 64; tag++)
                                transform_submit(transform, tag, str_of(record));
                        await(64);
                }
                buf_printf(&path, "/proc/%d/status", (int)transform_process(transform));
                rss = buf_read_file(&text, path.p, &err) < 0 ? NULL : strstr(text.p, "VmRSS:");
                print_message("%-80s first %5.1f ms, then %5.1f us a record of %zu bytes; %.40s\n",
                              programs[i], (double)compiled / 1000, (double)(clock_now() - began) / RECORDS,
                              strlen(record), rss ? strtok((char *)(uintptr_t)rss, "\n") : "?");
                if (rss)
                        print_message("%80s %s\n", "", strtok(NULL, "\n"));
        }
        (void)teardown(NULL);
}

int main(int argc, char **argv)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(a_record_is_reshaped, setup, teardown),
                cmocka_unit_test_setup_teardown(the_documents_examples_are_true, setup, teardown),
                cmocka_unit_test_setup_teardown(answers_come_in_order_and_match, setup, teardown),
                cmocka_unit_test_setup_teardown(a_failure_harms_no_other_record, setup, teardown),
                cmocka_unit_test_setup_teardown(a_cancelled_record_has_no_result, setup, teardown),
                cmocka_unit_test_setup_teardown(what_is_cancelled_holds_no_memory, setup, teardown),
                cmocka_unit_test_setup_teardown(a_peak_leaves_little, setup, teardown),
                cmocka_unit_test_setup_teardown(what_is_too_slow_is_ended_alone, setup, teardown),
                cmocka_unit_test_setup_teardown(what_takes_too_much_memory_is_ended_alone, setup, teardown),
                cmocka_unit_test_setup_teardown(what_crashes_is_ended_alone, setup, teardown),
                cmocka_unit_test_setup_teardown(a_long_result_is_refused, setup, teardown),
                cmocka_unit_test_setup_teardown(large_and_deep_inputs_end, setup, teardown),
                cmocka_unit_test_setup_teardown(a_killed_child_is_started_again, setup, teardown),
                cmocka_unit_test_setup_teardown(a_record_is_not_tried_for_ever, setup, teardown),
                cmocka_unit_test_setup_teardown(a_child_that_cannot_start_fails_what_waits, setup, teardown),
                cmocka_unit_test_setup_teardown(a_child_that_makes_no_sense_is_ended, setup, teardown),
                cmocka_unit_test_setup_teardown(a_program_that_does_not_compile_fails_everything, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(freeing_ends_what_is_under_way, setup, teardown),
                cmocka_unit_test_setup_teardown(the_sandbox_kills_or_finds_nothing, setup, teardown),
                cmocka_unit_test_setup_teardown(the_child_has_nothing, setup, teardown),
                cmocka_unit_test_setup_teardown(a_child_does_not_outlive_its_parent, setup, teardown),
                cmocka_unit_test_setup_teardown(a_program_is_checked, setup, teardown),
                cmocka_unit_test_setup_teardown(the_loop_never_waits_for_a_child, setup, teardown),
                cmocka_unit_test_setup_teardown(hostile_programs_end_and_harm_nobody, setup, teardown),
                cmocka_unit_test_setup_teardown(generated_programs_end_and_harm_nobody, setup, teardown),
        };

        if (argc > 1 && strcmp(argv[1], CHILD_COMMAND) == 0) /* this program is its own child */
                return transform_child_main();
        if (argc > 1 && strcmp(argv[1], "measure") == 0) {
                measure(argc > 2 ? argv[2] : NULL);
                return 0;
        }
        return cmocka_run_group_tests_name("transform", tests, NULL, NULL);
}
