#include "transform/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "transform/sandbox.h"

/* ---- frames ------------------------------------------------------------- */

void frame_start(struct buf *b, enum frame_kind kind, uint64_t sequence)
{
        struct frame head = { .kind = kind, .sequence = sequence };

        buf_add(b, &head, sizeof(head));
}

bool frame_finish(struct buf *b)
{
        struct frame head;

        if (b->failed || b->n - sizeof(head) > UINT32_MAX)
                return false;
        memcpy(&head, b->p, sizeof(head));
        head.size = (uint32_t)(b->n - sizeof(head));
        memcpy(b->p, &head, sizeof(head));
        return true;
}

void frame_setup(struct buf *b, const char *program, const struct child_setup *setup)
{
        frame_start(b, FRAME_SETUP, 0);
        buf_add(b, setup, sizeof(*setup));
        buf_text(b, program);
        b->failed = !frame_finish(b);
}

size_t frame_get(struct str bytes, struct frame *head, struct str *text)
{
        if (bytes.n < sizeof(*head))
                return 0;
        memcpy(head, bytes.p, sizeof(*head));
        if (bytes.n - sizeof(*head) < head->size)
                return 0;
        *text = (struct str){ bytes.p + sizeof(*head), head->size };
        return sizeof(*head) + head->size;
}

/* ---- start -------------------------------------------------------------- */

/* The child gets its end of the socket as CHILD_FD, and nothing else: no environment, no descriptor, no
 * signal blocked or ignored. */
static int spawn(pid_t *pid, const char *executable, int end)
{
        char *arguments[] = { (char *)(uintptr_t)CHILD_NAME, (char *)(uintptr_t)CHILD_COMMAND, NULL },
             *nothing[] = { NULL };
        posix_spawn_file_actions_t files;
        posix_spawnattr_t attributes;
        sigset_t none, all;
        int r;

        (void)sigemptyset(&none);
        (void)sigfillset(&all);
        if ((r = posix_spawn_file_actions_init(&files)))
                return r;
        if ((r = posix_spawnattr_init(&attributes))) {
                (void)posix_spawn_file_actions_destroy(&files);
                return r;
        }
        (void)posix_spawnattr_setflags(&attributes,
                                       POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
        (void)posix_spawnattr_setsigmask(&attributes, &none);
        (void)posix_spawnattr_setsigdefault(&attributes, &all);
        r = posix_spawn_file_actions_adddup2(&files, end, CHILD_FD);
        /* A sanitizer's words must be seen. */
        for (int fd = 0; r == 0 && fd < (SANDBOX_SANITIZED ? 2 : 3); fd++)
                r = posix_spawn_file_actions_addclose(&files, fd);
        if (r == 0)
                r = posix_spawn_file_actions_addclosefrom_np(&files, CHILD_FD + 1);
        if (r == 0)
                r = posix_spawn(pid, executable ? executable : "/proc/self/exe", &files, &attributes,
                                arguments, nothing);
        (void)posix_spawnattr_destroy(&attributes);
        (void)posix_spawn_file_actions_destroy(&files);
        return r;
}

int process_start(struct process *out, const char *executable, struct error *err)
{
        struct process p = { 0 };
        int ends[2], r;

        /* A program that does not know the command would start itself for ever. */
        if (string_equal(program_invocation_name, CHILD_NAME))
                return error_set(err, ERROR_INTERNAL, "a transform's child starts no other");
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
                return error_errno(err, errno, "make a socket for the transform");
        r = spawn(&p.pid, executable, ends[1]);
        (void)close(ends[1]);
        p.fd = ends[0];
        if (r) {
                (void)close(p.fd);
                return error_errno(err, r, "start the transform's process");
        }
        p.pidfd = (int)syscall(SYS_pidfd_open, p.pid, 0);
        if (p.pidfd < 0 || fcntl(p.fd, F_SETFL, O_NONBLOCK) < 0) {
                struct error ignored;

                (void)error_errno(err, errno, "watch the transform's process");
                (void)kill(p.pid, SIGKILL);
                (void)process_end(&p, 0, 0, &ignored);
                return -1;
        }
        *out = p;
        return 0;
}

void process_kill(const struct process *p) { (void)kill(p->pid, SIGKILL); }

/* ---- end ---------------------------------------------------------------- */

static enum process_end explain_signal(int number, usec timeout, struct error *err)
{
        BUF_AT_END struct buf time = BUF_INIT(64);
        const char *name = sigabbrev_np(number);

        switch (number) {
        case SIGSYS:
                (void)error_set(
                        err, ERROR_INVALID,
                        "the transform asked the system for something it may not: killed by the sandbox");
                return END_RECORD;
        case SIGPROF:
                duration_format(&time, timeout);
                (void)error_set(err, ERROR_TIMEOUT, "the transform took longer than %s",
                                time.p ? time.p : "");
                return END_RECORD;
        case SIGSEGV:
        case SIGBUS:
                (void)error_set(err, ERROR_INVALID,
                                "the transform crashed: signal %d (SIG%s); values nested too deep overflow "
                                "jq's stack",
                                number, name ? name : "?");
                return END_RECORD;
        case SIGABRT:
        case SIGFPE:
        case SIGILL:
        case SIGTRAP:
                (void)error_set(err, ERROR_INVALID, "the transform crashed: signal %d (SIG%s)", number,
                                name ? name : "?");
                return END_RECORD;
        default:
                (void)error_set(err, ERROR_SYSTEM,
                                "the transform's process was killed from outside: signal %d (SIG%s)", number,
                                name ? name : "?");
                return END_OUTSIDE;
        }
}

static void size_format(char *out, size_t n, size_t size)
{
        if (size % (1 << 20) == 0)
                (void)snprintf(out, n, "%zu MiB", size >> 20);
        else if (size % (1 << 10) == 0)
                (void)snprintf(out, n, "%zu KiB", size >> 10);
        else
                (void)snprintf(out, n, "%zu bytes", size);
}

enum process_end process_end(struct process *p, size_t memory, usec timeout, struct error *err)
{
        enum process_end end = END_OUTSIDE;
        char size[32];
        int status = 0;
        pid_t reaped;

        do
                reaped = waitpid(p->pid, &status, 0);
        while (reaped < 0 && errno == EINTR);
        if (p->fd >= 0)
                (void)close(p->fd);
        if (p->pidfd >= 0)
                (void)close(p->pidfd);
        *p = (struct process){ .fd = -1, .pidfd = -1 };
        if (reaped < 0)
                (void)error_errno(err, errno, "wait for the transform's process");
        else if (WIFSIGNALED(status))
                end = explain_signal(WTERMSIG(status), timeout, err);
        else if (WEXITSTATUS(status) == CHILD_EXIT_MEMORY) {
                size_format(size, sizeof(size), memory);
                (void)error_set(err, ERROR_MEMORY, "the transform ran out of memory (%s)", size);
                end = END_MEMORY;
        } else
                (void)error_set(err, ERROR_SYSTEM, "the transform's process ended: exit status %d",
                                WEXITSTATUS(status));
        err->retry = false;
        return end;
}
