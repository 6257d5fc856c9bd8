#include "transform/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#error "the transform's sandbox knows x86_64 and aarch64"
#endif
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "the filter reads the low half of an argument first");

/* ---- limits ------------------------------------------------------------- */

static int limit(int what, rlim_t most, const char *name, struct error *err)
{
        if (setrlimit((__rlimit_resource_t)what, &(struct rlimit){ most, most }) < 0)
                return error_errno(err, errno, "limit the child's %s", name);
        return 0;
}

/* What the process has mapped now, in bytes. */
static int addresses(size_t *out, struct error *err)
{
        char text[128], *end;
        int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
        unsigned long pages;

        if (fd >= 0)
                (void)close(fd);
        if (n <= 0)
                return error_errno(err, errno, "read /proc/self/statm");
        text[n] = 0;
        pages = strtoul(text, &end, 10);
        *out = (size_t)pages * (size_t)sysconf(_SC_PAGESIZE);
        return 0;
}

int sandbox_limit(size_t memory, struct error *err)
{
        size_t base = 0;

        if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || prctl(PR_SET_DUMPABLE, 0) < 0 ||
            prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return error_errno(err, errno, "give up the child's privileges");
        if (addresses(&base, err) < 0)
                return -1;
        if (limit(RLIMIT_CORE, 0, "core dumps", err) < 0 || limit(RLIMIT_FSIZE, 0, "files' size", err) < 0 ||
            limit(RLIMIT_NPROC, 0, "processes", err) < 0 ||
            limit(RLIMIT_STACK, SANDBOX_STACK, "stack", err) < 0 || limit(RLIMIT_NOFILE, 0, "files", err) < 0)
                return -1;
        return SANDBOX_SANITIZED ? 0 : limit(RLIMIT_AS, base + memory, "memory", err);
}

/* ---- the filter --------------------------------------------------------- */

enum rule_kind { ALLOW, NO_SUCH_FILE, ONE_DESCRIPTOR, NOT_EXECUTABLE, OWN_ABORT };
static const struct {
        int number;
        enum rule_kind kind;
} rules[] = {
        { __NR_read, ONE_DESCRIPTOR },
        { __NR_write, ONE_DESCRIPTOR },
        { __NR_setitimer, ALLOW },
        { __NR_brk, ALLOW },
        { __NR_mmap, NOT_EXECUTABLE },
        { __NR_munmap, ALLOW },
        { __NR_mremap, ALLOW },
        { __NR_madvise, ALLOW },
        { __NR_mprotect, NOT_EXECUTABLE },
        { __NR_futex, ALLOW },
        { __NR_clock_gettime, ALLOW },
        { __NR_gettimeofday, ALLOW },
        { __NR_getrandom, ALLOW },
        { __NR_exit_group, ALLOW },
        { __NR_exit, ALLOW },
        { __NR_rt_sigreturn, ALLOW },
        /* What abort() does, so that its death has its own name. */
        { __NR_rt_sigprocmask, ALLOW },
        { __NR_rt_sigaction, ALLOW },
        { __NR_getpid, ALLOW },
        { __NR_gettid, ALLOW },
        { __NR_tgkill, OWN_ABORT },
        /* jq looks for modules and libc for the time zone: both take "there is none" for an answer, and have
           better words than a kill. */
        { __NR_openat, NO_SUCH_FILE },
        { __NR_newfstatat, NO_SUCH_FILE },
        { __NR_fstat, NO_SUCH_FILE },
        { __NR_statx, NO_SUCH_FILE },
        { __NR_readlinkat, NO_SUCH_FILE },
        { __NR_faccessat, NO_SUCH_FILE },
        { __NR_getcwd, NO_SUCH_FILE },
#ifdef __NR_open
        { __NR_open, NO_SUCH_FILE },
        { __NR_stat, NO_SUCH_FILE },
        { __NR_lstat, NO_SUCH_FILE },
        { __NR_readlink, NO_SUCH_FILE },
        { __NR_access, NO_SUCH_FILE },
        { __NR_time, ALLOW },
#endif
#if SANDBOX_SANITIZED
        { __NR_sched_yield, ALLOW },
        { __NR_sigaltstack, ALLOW },
#endif
};

struct filter {
        struct sock_filter code[256];
        unsigned short n;
};

static void emit(struct filter *f, struct sock_filter instruction) { f->code[f->n++] = instruction; }
static void emit_return(struct filter *f, uint32_t what)
{
        emit(f, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, what));
}
static void emit_load(struct filter *f, size_t offset)
{
        emit(f, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset));
}
static size_t argument(size_t n) { return offsetof(struct seccomp_data, args) + n * sizeof(uint64_t); }

/* Returns `otherwise` unless what was loaded fits. */
static void emit_unless(struct filter *f, unsigned short test, uint32_t value, uint32_t otherwise)
{
        bool set = test == BPF_JSET; /* wanted: none of these bits */

        emit(f, (struct sock_filter)BPF_JUMP((unsigned short)(BPF_JMP | test | BPF_K), value, set ? 0 : 1,
                                             set ? 1 : 0));
        emit_return(f, otherwise);
}

static void emit_rule(struct filter *f, enum rule_kind kind, int fd)
{
        switch (kind) {
        case ALLOW: break;
        case NO_SUCH_FILE: emit_return(f, SECCOMP_RET_ERRNO | ENOENT); return;
        case ONE_DESCRIPTOR:
                /* stderr is closed, and jq writes to it: that must be harmless. */
                emit_load(f, argument(0));
                emit_unless(f, BPF_JEQ, (uint32_t)fd, SECCOMP_RET_ERRNO | EBADF);
                break;
        case NOT_EXECUTABLE:
                emit_load(f, argument(2));
                emit_unless(f, BPF_JSET, PROT_EXEC, SECCOMP_RET_KILL_PROCESS);
                break;
        case OWN_ABORT:
                emit_load(f, argument(0));
                emit_unless(f, BPF_JEQ, (uint32_t)getpid(), SECCOMP_RET_KILL_PROCESS);
                emit_load(f, argument(2));
                emit_unless(f, BPF_JEQ, SIGABRT, SECCOMP_RET_KILL_PROCESS);
                break;
        }
        emit_return(f, SECCOMP_RET_ALLOW);
}

int sandbox_enter(int fd, struct error *err)
{
        struct filter f = { .n = 0 };

        emit_load(&f, offsetof(struct seccomp_data, arch));
        emit_unless(&f, BPF_JEQ, ARCHITECTURE, SECCOMP_RET_KILL_PROCESS);
        for (size_t i = 0; i < COUNT_OF(rules); i++) {
                unsigned short at;

                emit_load(&f, offsetof(struct seccomp_data, nr));
                at = f.n;
                emit(&f, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)rules[i].number, 0,
                                                      0));
                emit_rule(&f, rules[i].kind, fd);
                f.code[at].jf = (unsigned char)(f.n - at - 1);
        }
        emit_return(&f, SECCOMP_RET_KILL_PROCESS);
        if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &(struct sock_fprog){ f.n, f.code }) < 0)
                return error_errno(err, errno, "close the transform's sandbox (seccomp)");
        return 0;
}
