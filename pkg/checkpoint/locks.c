#include "checkpoint/locks.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include "base/file.h"
#include "base/random.h"
#include "checkpoint/filestore.h"

static const usec LOOK = 500 * USEC_MSEC, HANDING_OVER = 10 * USEC_SEC, AVOID = 3 * USEC_SEC;
/* A key's stretch: a byte for each slot, then one for each number of slots. */
enum { STRETCH_BITS = 12 };
_Static_assert(2 * LOCK_SLOTS_MOST <= 1 << STRETCH_BITS, "both fit into a stretch");

struct lock_file {
        struct loop *loop;
        int fd;
};

struct lock_slot {
        enum claim_state state;
        usec give_up_at, avoid_until; /* given up for another: it is his to take */
};
struct lock_end {
        struct lock_file *file;
        struct task task, *wake;
        off_t base;
        uint64_t changes, told;
        uint32_t n;
        int64_t waiting_with; /* slots: the mark that is set; -1: none */
        bool stopping;
        int failed; /* errno of the last lock; 0: none */
        struct lock_slot slots[];
};

/* ---- bytes -------------------------------------------------------------- */

static int lock_bytes(const struct lock_end *e, int command, short type, off_t from, off_t n, short *found)
{
        struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_start = e->base + from, .l_len = n };
        int result;

        do
                result = fcntl(e->file->fd, command, &l);
        while (result < 0 && errno == EINTR);
        if (found)
                *found = l.l_type;
        return result;
}

static bool take_slot(struct lock_end *e, uint32_t slot)
{
        if (lock_bytes(e, F_OFD_SETLK, F_WRLCK, slot, 1, NULL) == 0) {
                e->failed = 0;
                return true;
        }
        e->failed = errno == EAGAIN || errno == EACCES ? 0 : errno;
        return false;
}

static void free_slot(const struct lock_end *e, uint32_t slot)
{
        (void)lock_bytes(e, F_OFD_SETLK, F_UNLCK, slot, 1, NULL);
}

static void mark(struct lock_end *e, int64_t with)
{
        if (with == e->waiting_with)
                return;
        if (e->waiting_with >= 0)
                (void)lock_bytes(e, F_OFD_SETLK, F_UNLCK, LOCK_SLOTS_MOST + e->waiting_with, 1, NULL);
        if (with >= 0 && lock_bytes(e, F_OFD_SETLK, F_RDLCK, LOCK_SLOTS_MOST + with, 1, NULL) < 0)
                with = -1; /* an older holder looks there: next time */
        e->waiting_with = with;
}

/* Does another process wait, with so many slots or fewer? */
static bool another_waits(const struct lock_end *e, uint32_t with)
{
        short found = F_UNLCK;

        return lock_bytes(e, F_OFD_GETLK, F_WRLCK, LOCK_SLOTS_MOST, (off_t)with + 1, &found) == 0 &&
               found != F_UNLCK;
}

/* ---- slots -------------------------------------------------------------- */

static uint32_t count(const struct lock_end *e, enum claim_state state)
{
        uint32_t n = 0;

        for (uint32_t i = 0; i < e->n; i++)
                n += e->slots[i].state == state;
        return n;
}

static void take_free(struct lock_end *e, usec now)
{
        for (uint32_t i = 0; i < e->n; i++) {
                struct lock_slot *s = &e->slots[i];

                if (s->state != CLAIM_WAITING || now < s->avoid_until || !take_slot(e, i))
                        continue;
                s->state = CLAIM_HELD;
                e->changes++;
        }
}

static void give_one(struct lock_end *e, usec now)
{
        uint32_t held = count(e, CLAIM_HELD);

        if (held < 2 || count(e, CLAIM_LEAVING) || !another_waits(e, held - 2))
                return;
        for (uint32_t i = e->n; i-- > 0;)
                if (e->slots[i].state == CLAIM_HELD) {
                        e->slots[i] = (struct lock_slot){ CLAIM_LEAVING, .give_up_at = now + HANDING_OVER,
                                                          .avoid_until = now + HANDING_OVER + AVOID };
                        e->changes++;
                        return;
                }
}

static void turn(struct task *t, usec now)
{
        struct lock_end *e = CONTAINER_OF(t, struct lock_end, task);
        int failed = e->failed;
        uint32_t held;

        if (!e->stopping) {
                take_free(e, now);
                give_one(e, now);
        }
        held = count(e, CLAIM_HELD);
        /* One who has two more may be there. */
        mark(e, !e->stopping && count(e, CLAIM_WAITING) >= held + 2 ? (int64_t)held : -1);
        e->changes += e->failed != failed;
        if (e->changes != e->told)
                loop_ready(e->file->loop, e->wake);
        e->told = e->changes;
        loop_arm(e->file->loop, t,
                 !e->stopping && (count(e, CLAIM_WAITING) || held > 1) ? now + LOOK : USEC_NEVER);
}

/* ---- the port ----------------------------------------------------------- */

static uint64_t port_changes(void *cookie) { return ((struct lock_end *)cookie)->changes; }

static void port_look(void *cookie, uint32_t slot, struct claim *out)
{
        const struct lock_end *e = cookie;

        *out = (struct claim){ .state = e->slots[slot].state, .give_up_at = e->slots[slot].give_up_at };
        if (out->state != CLAIM_WAITING)
                return;
        out->failed = e->failed != 0;
        out->why = e->failed ? strerror(e->failed) : "a process with the same --state";
}

static void port_release(void *cookie, uint32_t slot)
{
        struct lock_end *e = cookie;
        struct lock_slot *s = &e->slots[slot];

        if (s->state != CLAIM_LEAVING)
                return;
        free_slot(e, slot);
        s->state = CLAIM_WAITING;
        s->avoid_until = s->avoid_until ? loop_now(e->file->loop) + AVOID : 0;
        e->changes++;
        loop_ready(e->file->loop, &e->task);
}

static void port_stop(void *cookie)
{
        struct lock_end *e = cookie;

        e->stopping = true;
        for (uint32_t i = 0; i < e->n; i++)
                if (e->slots[i].state == CLAIM_HELD)
                        e->slots[i] = (struct lock_slot){ CLAIM_LEAVING, .give_up_at = USEC_NEVER };
        e->changes++;
        loop_ready(e->file->loop, &e->task);
}

static bool port_stopped(void *cookie)
{
        const struct lock_end *e = cookie;

        return e->stopping && count(e, CLAIM_WAITING) == e->n;
}

struct claims lock_end_port(struct lock_end *e)
{
        static const struct claims_ops ops = { port_changes, port_look, port_release, port_stop,
                                               port_stopped };

        return (struct claims){ &ops, e, e->n };
}

/* ---- life --------------------------------------------------------------- */

int lock_end_new(struct lock_end **out, struct lock_file *file, struct str key, uint32_t slots,
                 struct task *wake, struct error *err)
{
        struct lock_end *e = calloc(1, sizeof(*e) + slots * sizeof(e->slots[0]));

        if (!e)
                return error_memory(err);
        e->file = file;
        e->wake = wake;
        e->task.turn = turn;
        e->n = slots;
        e->waiting_with = -1;
        e->base = (off_t)(hash_bytes(0, key) >> (STRETCH_BITS + 2)) << STRETCH_BITS;
        loop_ready(file->loop, &e->task);
        *out = e;
        return 0;
}

struct lock_end *lock_end_free(struct lock_end *e)
{
        if (!e)
                return NULL;
        (void)lock_bytes(e, F_OFD_SETLK, F_UNLCK, 0, 1 << STRETCH_BITS, NULL);
        loop_forget(e->file->loop, &e->task);
        free(e);
        return NULL;
}

int lock_file_new(struct lock_file **out, struct loop *loop, const char *folder, struct error *err)
{
        BUF_AT_END struct buf path = BUF_INIT(PATH_MAX);
        struct lock_file *f = calloc(1, sizeof(*f));

        if (!f)
                return error_memory(err);
        f->loop = loop;
        buf_printf(&path, "%s/claims", folder);
        if (path.failed)
                (void)error_memory(err);
        else if (file_store_folder(folder, err) == 0 &&
                 (f->fd = file_open(path.p, O_RDWR | O_CREAT, err)) >= 0) {
                *out = f;
                return 0;
        }
        free(f);
        return -1;
}

struct lock_file *lock_file_free(struct lock_file *f)
{
        if (!f)
                return NULL;
        (void)close(f->fd);
        free(f);
        return NULL;
}
