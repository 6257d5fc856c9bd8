#include "checkpoint/locks.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#include "base/file.h"
#include "base/random.h"
#include "base/watch.h"
#include "checkpoint/filestore.h"
#include "log/log.h"

static const usec LOOK = 500 * USEC_MSEC, HANDING_OVER = 10 * USEC_SEC, AVOID = 3 * USEC_SEC;
static const usec RETRY_ENTRY = 10 * USEC_MSEC, YIELD = 2 * USEC_SEC;
/* From the first sign that the file was deleted until it is made again: whoever deletes the folder is done by
 * then. */
static const usec SETTLING = 100 * USEC_MSEC;
/* The parts of a key's range, by their first bytes. */
enum {
        RANGE_BITS = 12,
        SLOTS = 0,                          /* a byte for each slot, locked by its holder */
        WAITING = SLOTS + LOCK_SLOTS_MOST,  /* for each count: processes that hold so many and want more */
        IN_USE = WAITING + LOCK_SLOTS_MOST, /* for each number of slots, from 1 on: processes that use it */
        WANTED = IN_USE + LOCK_SLOTS_MOST,  /* the same: processes that wait to use it */
        ENTRY = WANTED + LOCK_SLOTS_MOST,   /* one byte: locked while a process checks and takes a number */
};
_Static_assert(ENTRY < 1 << RANGE_BITS, "all parts fit into a range");

struct lock_file {
        struct loop *loop;
        int fd;
        char *folder, *path;
        struct watch watch;
        struct task look;
        struct list ends;
        usec look_at; /* 0: there was no sign of a change */
        bool lost;    /* the file is gone and can't be made again, and that was logged */
};

struct lock_slot {
        enum claim_state state;
        usec give_up_at, avoid_until; /* until then it is left to the process that waited for it */
};
struct lock_end {
        struct lock_file *file;
        struct list_node node; /* in the file's ends */
        struct task task, *wake;
        off_t base;
        uint64_t changes, told;
        uint32_t n;
        int64_t waiting_with; /* we have the lock in WAITING for this count; -1: none */
        bool agreed;          /* every process that holds slots uses our number of them */
        uint32_t others;      /* the number that others use instead; 0: not known */
        usec yield_until;     /* to a process that waits with more slots; 0: to none */
        bool moving;          /* its locks are to be had in a new file */
        bool stopping;
        int failed; /* errno of the last lock; 0: none */
        char why[160];
        struct lock_slot slots[];
};

/* ---- bytes -------------------------------------------------------------- */

static int lock_bytes(const struct lock_end *e, short type, off_t from, off_t n)
{
        struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_start = e->base + from, .l_len = n };
        int result;

        do
                result = fcntl(e->file->fd, F_OFD_SETLK, &l);
        while (result < 0 && errno == EINTR);
        return result;
}

static bool lock(struct lock_end *e, short type, off_t at)
{
        if (lock_bytes(e, type, at, 1) == 0) {
                e->failed = 0;
                return true;
        }
        e->failed = errno == EAGAIN || errno == EACCES ? 0 : errno;
        return false;
}

static void unlock(const struct lock_end *e, off_t at) { (void)lock_bytes(e, F_UNLCK, at, 1); }

/* Does another process lock one of these? at: the first such, from 0. Sets failed, as lock does. */
static bool another_locks(struct lock_end *e, off_t from, off_t n, uint32_t *at)
{
        struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = e->base + from, .l_len = n };

        e->failed = 0;
        if (n == 0)
                return false;
        if (fcntl(e->file->fd, F_OFD_GETLK, &l) < 0) {
                e->failed = errno;
                return false;
        }
        if (l.l_type == F_UNLCK)
                return false;
        *at = (uint32_t)MAX_OF(l.l_start - e->base - from, (off_t)0);
        return true;
}

static void mark(struct lock_end *e, int64_t with)
{
        if (with == e->waiting_with)
                return;
        if (e->waiting_with >= 0)
                unlock(e, WAITING + e->waiting_with);
        if (with >= 0 && lock_bytes(e, F_RDLCK, WAITING + with, 1) < 0)
                with = -1; /* another process is testing it: next time */
        e->waiting_with = with;
}

/* Does another process wait, with so many slots or fewer? */
static bool another_waits(struct lock_end *e, uint32_t with)
{
        uint32_t found;

        return another_locks(e, WAITING, (off_t)with + 1, &found);
}

/* ---- one number of slots ------------------------------------------------ */

/* The number that others use, or wait to use and come before us; 0: none. Sets failed, as lock does. */
static uint32_t number_of_others(struct lock_end *e, usec now)
{
        usec until = e->yield_until ? e->yield_until : now + YIELD;
        uint32_t found;

        e->yield_until = 0;
        if (another_locks(e, IN_USE, (off_t)e->n - 1, &found))
                return found + 1;
        if (e->failed)
                return 0;
        if (another_locks(e, IN_USE + (off_t)e->n, (off_t)LOCK_SLOTS_MOST - e->n, &found))
                return e->n + found + 1;
        if (e->failed || !another_locks(e, WANTED + (off_t)e->n, (off_t)LOCK_SLOTS_MOST - e->n, &found))
                return 0;
        e->yield_until = until;
        return now < until ? e->n + found + 1 : 0; /* one that is stuck holds nobody up for longer */
}

/* Only the process that holds the entry byte may take a number, so that no two take different ones. Returns
 * when to try again. */
static usec enter(struct lock_end *e, usec now)
{
        uint32_t others;

        if (!lock(e, F_WRLCK, ENTRY))
                return now + (e->failed ? LOOK : RETRY_ENTRY);
        others = number_of_others(e, now);
        e->agreed = !others && !e->failed && lock(e, F_RDLCK, IN_USE + (off_t)e->n - 1);
        unlock(e, ENTRY);
        e->changes += e->agreed || others != e->others;
        e->others = others;
        if (!e->agreed)
                return now + LOOK;
        unlock(e, WANTED + (off_t)e->n - 1);
        return now;
}

static void leave(struct lock_end *e)
{
        unlock(e, (e->agreed ? IN_USE : WANTED) + (off_t)e->n - 1);
        e->agreed = false;
        e->others = 0;
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

                if (s->state != CLAIM_WAITING || now < s->avoid_until || !lock(e, F_WRLCK, SLOTS + (off_t)i))
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

/* When to look again. */
static usec look_at_slots(struct lock_end *e, usec now)
{
        uint32_t held, waiting;

        take_free(e, now);
        give_one(e, now);
        held = count(e, CLAIM_HELD);
        waiting = count(e, CLAIM_WAITING);
        mark(e, waiting >= held + 2 ? (int64_t)held : -1); /* another may hold two more */
        return waiting || held > 1 ? now + LOOK : USEC_NEVER;
}

/* ---- a file that was deleted --------------------------------------------- */

/* Slots that it does not get are somebody else's by now. */
static void move_slots(struct lock_end *e)
{
        for (uint32_t i = 0; i < e->n; i++) {
                if (e->slots[i].state == CLAIM_WAITING || lock(e, F_WRLCK, SLOTS + (off_t)i))
                        continue;
                e->slots[i] = (struct lock_slot){ CLAIM_LEAVING, .give_up_at = 0 };
                e->changes++;
        }
}

/* Others that came before us use another number of slots. */
static void lose_slots(struct lock_end *e)
{
        for (uint32_t i = 0; i < e->n; i++)
                if (e->slots[i].state != CLAIM_WAITING)
                        e->slots[i] = (struct lock_slot){ CLAIM_LEAVING, .give_up_at = 0 };
        (void)lock_bytes(e, F_RDLCK, WANTED + (off_t)e->n - 1, 1);
        e->agreed = false;
        e->changes++;
}

static bool another_number_is_used(struct lock_end *e)
{
        uint32_t found;

        return another_locks(e, IN_USE, (off_t)e->n - 1, &found) ||
               another_locks(e, IN_USE + (off_t)e->n, (off_t)LOCK_SLOTS_MOST - e->n, &found);
}

/* Takes in the new file what it had in the old one: with the entry byte held, as whoever comes anew does, so
 * that all who hold slots agree on their number. Returns when to try again. */
static usec move(struct lock_end *e, usec now)
{
        if (!lock(e, F_WRLCK, ENTRY))
                return now + (e->failed ? LOOK : RETRY_ENTRY);
        if (!another_number_is_used(e) && lock(e, F_RDLCK, IN_USE + (off_t)e->n - 1))
                move_slots(e);
        else
                lose_slots(e);
        unlock(e, ENTRY);
        e->moving = false;
        return now;
}

/* The file is a new one. What others hold they have not locked in it yet: that is not free. */
static void begin_move(struct lock_end *e, usec now)
{
        for (uint32_t i = 0; i < e->n; i++)
                if (e->slots[i].state == CLAIM_WAITING)
                        e->slots[i].avoid_until = now + AVOID;
        e->waiting_with = -1;
        e->moving = e->agreed;
        if (!e->agreed && !e->stopping)
                (void)lock_bytes(e, F_RDLCK, WANTED + (off_t)e->n - 1, 1);
        loop_ready(e->file->loop, &e->task);
}

static int open_file(struct lock_file *f, struct error *err)
{
        int fd = file_store_folder(f->folder, err) < 0 ? -1 : file_open(f->path, O_RDWR | O_CREAT, err);

        if (fd < 0)
                return -1;
        if (f->fd >= 0)
                (void)close(f->fd);
        f->fd = fd;
        return 0;
}

/* Who starts from now on would not see locks of a file that was deleted. So all take theirs again in a new
 * one; meanwhile each reads what it has. */
static void on_look(struct task *t, usec now)
{
        struct lock_file *f = CONTAINER_OF(t, struct lock_file, look);
        struct error err;

        if (!f->look_at)
                f->look_at = now + SETTLING;
        if (now < f->look_at) {
                loop_arm(f->loop, t, f->look_at);
                return;
        }
        f->look_at = 0;
        if (file_is_at(f->fd, f->path))
                return;
        if (open_file(f, &err) < 0) {
                if (!f->lost)
                        log_error("the file of claims was deleted and can't be made again: another process "
                                  "may read the same",
                                  LOG_S("error", err.text));
                f->lost = true;
                f->look_at = now + LOOK;
                loop_arm(f->loop, t, f->look_at);
                return;
        }
        f->lost = false;
        log_warn("the file of claims was deleted or replaced: what is read is claimed again in a new one",
                 LOG_S("file", f->path));
        LIST_EACH (struct lock_end, e, &f->ends, node)
                begin_move(e, now);
}

/* ---- its turn ------------------------------------------------------------ */

/* When to look again. */
static usec go_on(struct lock_end *e, usec now)
{
        usec next = USEC_NEVER;

        if (e->stopping) {
                mark(e, -1);
                if (count(e, CLAIM_WAITING) == e->n)
                        leave(e);
                return USEC_NEVER;
        }
        if (!e->agreed)
                next = enter(e, now);
        return e->agreed ? look_at_slots(e, now) : next;
}

static void turn(struct task *t, usec now)
{
        struct lock_end *e = CONTAINER_OF(t, struct lock_end, task);
        int failed = e->failed;
        usec next = e->moving ? move(e, now) : now;

        if (!e->moving)
                next = go_on(e, now);
        e->changes += e->failed != failed;
        if (e->changes != e->told)
                loop_ready(e->file->loop, e->wake);
        e->told = e->changes;
        loop_arm(e->file->loop, t, next);
}

/* ---- the port ----------------------------------------------------------- */

static uint64_t port_changes(void *cookie) { return ((struct lock_end *)cookie)->changes; }

static const char *who_reads(struct lock_end *e)
{
        if (!e->others)
                return "a process with the same --state";
        (void)snprintf(e->why, sizeof(e->why),
                       "spec.replicas is %u here, and %u in a process with the same --state: all must have "
                       "the same",
                       e->n, e->others);
        return e->why;
}

static void port_look(void *cookie, uint32_t slot, struct claim *out)
{
        struct lock_end *e = cookie;

        *out = (struct claim){ .state = e->slots[slot].state, .give_up_at = e->slots[slot].give_up_at };
        if (out->state != CLAIM_WAITING)
                return;
        out->failed = e->failed != 0;
        out->why = e->failed ? strerror(e->failed) : who_reads(e);
}

static void port_release(void *cookie, uint32_t slot)
{
        struct lock_end *e = cookie;
        struct lock_slot *s = &e->slots[slot];

        if (s->state != CLAIM_LEAVING)
                return;
        unlock(e, SLOTS + (off_t)slot);
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
        e->base = (off_t)(hash_bytes(0, key) >> (RANGE_BITS + 2)) << RANGE_BITS;
        list_append(&file->ends, &e->node);
        (void)lock_bytes(e, F_RDLCK, WANTED + (off_t)slots - 1, 1); /* it only decides who comes first */
        loop_ready(file->loop, &e->task);
        *out = e;
        return 0;
}

struct lock_end *lock_end_free(struct lock_end *e)
{
        if (!e)
                return NULL;
        (void)lock_bytes(e, F_UNLCK, 0, 1 << RANGE_BITS);
        list_remove(&e->node);
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
        f->fd = -1;
        f->look.turn = on_look;
        buf_printf(&path, "%s/claims", folder);
        f->folder = str_dup(str_of(folder));
        f->path = path.failed ? NULL : str_dup(buf_view(&path));
        if (!f->folder || !f->path)
                (void)error_memory(err);
        else if (open_file(f, err) == 0 && watch_open(&f->watch, loop, f->path, &f->look, err) == 0) {
                *out = f;
                return 0;
        }
        (void)lock_file_free(f);
        return -1;
}

struct lock_file *lock_file_free(struct lock_file *f)
{
        if (!f)
                return NULL;
        watch_close(&f->watch);
        loop_forget(f->loop, &f->look);
        if (f->fd >= 0)
                (void)close(f->fd);
        free(f->folder);
        free(f->path);
        free(f);
        return NULL;
}
