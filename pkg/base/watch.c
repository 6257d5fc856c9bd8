#include "base/watch.h"

#include <errno.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"

/* How often stamps are compared: of files that inotify tells of, and of others. */
static const usec SELDOM = 10 * USEC_SEC, OFTEN = USEC_SEC;

enum {
        INTERESTING = IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_CLOSE_WRITE | IN_ATTRIB |
                      IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR,
        REPLACED = IN_MOVED_TO | IN_CLOSE_WRITE,
};

/* One for each inode that inotify watches. */
struct watch_folder {
        struct list_node node;
        int number; /* inotify's */
        struct list watches;
};

struct watcher {
        struct loop *loop;
        struct task task;   /* compares stamps */
        int fd;             /* -1: inotify is not to be had */
        struct loop_io *io; /* of fd */
        struct list watches, folders;
};

/* ---- stamps ------------------------------------------------------------- */

bool stamps_equal(const struct file_stamp *a, const struct file_stamp *b)
{
        return a->seconds == b->seconds && a->nanoseconds == b->nanoseconds && a->inode == b->inode &&
               a->size == b->size;
}

/* false: it can't be known just now. */
static bool take_stamp(const char *path, struct file_stamp *out)
{
        struct stat s;

        *out = (struct file_stamp){ 0 };
        if (stat(path, &s) < 0)
                return errno == ENOENT || errno == ENOTDIR || errno == EACCES || errno == ELOOP;
        *out = (struct file_stamp){ s.st_mtim.tv_sec, s.st_mtim.tv_nsec, (uint64_t)s.st_ino,
                                    (uint64_t)s.st_size };
        return true;
}

struct file_stamp stamp_of(const char *path)
{
        struct file_stamp stamp = { 0 };

        if (path)
                (void)take_stamp(path, &stamp);
        return stamp;
}

static void changed(struct watch *w)
{
        w->version++;
        if (w->wake)
                loop_ready(w->loop, w->wake);
}

/* sure: it was replaced, though its stamp may be the same. */
static void compare(struct watch *w, bool sure)
{
        struct file_stamp now;

        if (!take_stamp(w->path, &now) || (!sure && stamps_equal(&now, &w->stamp)))
                return;
        w->stamp = now;
        changed(w);
}

/* ---- folders ------------------------------------------------------------ */

/* Nothing more is told of it: whose files were in it are looked at often. */
static void folder_free(struct watcher *r, struct watch_folder *f)
{
        LIST_EACH (struct watch, w, &f->watches, in_folder) {
                list_remove(&w->in_folder);
                w->folder = NULL;
        }
        list_remove(&f->node);
        if (f->number >= 0 && r->fd >= 0)
                (void)inotify_rm_watch(r->fd, f->number);
        free(f);
}

static struct watch_folder *folder_numbered(const struct watcher *r, int number)
{
        LIST_EACH (struct watch_folder, f, &r->folders, node)
                if (f->number == number)
                        return f;
        return NULL;
}

/* The folder of its file, if there is one by now. */
static void attach(struct watcher *r, struct watch *w)
{
        BUF_AT_END struct buf path = BUF_INIT(8192);
        struct watch_folder *f;
        int number;

        if (w->folder || r->fd < 0)
                return;
        if (w->name == w->path)
                buf_char(&path, '.');
        else
                buf_add(&path, w->path, (size_t)(w->name - w->path));
        number = path.failed ? -1 : inotify_add_watch(r->fd, path.p, INTERESTING);
        if (number < 0)
                return;
        f = folder_numbered(r, number);
        if (!f) {
                f = calloc(1, sizeof(*f));
                if (!f) {
                        (void)inotify_rm_watch(r->fd, number);
                        return;
                }
                f->number = number;
                list_append(&r->folders, &f->node);
        }
        w->folder = f;
        list_append(&f->watches, &w->in_folder);
}

static void detach(struct watcher *r, struct watch *w)
{
        struct watch_folder *f = w->folder;

        list_remove(&w->in_folder);
        w->folder = NULL;
        if (f && !f->watches.n)
                folder_free(r, f);
}

/* ---- what inotify tells ------------------------------------------------- */

static void told(struct watcher *r, const struct inotify_event *e)
{
        struct watch_folder *f = folder_numbered(r, e->wd);

        if (e->mask & IN_Q_OVERFLOW) {
                LIST_EACH (struct watch, w, &r->watches, node)
                        compare(w, false);
                return;
        }
        if (!f)
                return;
        LIST_EACH (struct watch, w, &f->watches, in_folder)
                compare(w, e->len && (e->mask & REPLACED) && strcmp(e->name, w->name) == 0);
        if (e->mask & (IN_IGNORED | IN_DELETE_SELF | IN_MOVE_SELF)) {
                if (e->mask & IN_IGNORED)
                        f->number = -1; /* it is taken off already */
                folder_free(r, f);
                loop_ready(r->loop, &r->task);
        }
}

/* All that happened so far. */
static void drain(struct watcher *r)
{
        _Alignas(struct inotify_event) char space[4096];
        ssize_t n;

        while (r->fd >= 0 && (n = read(r->fd, space, sizeof(space))) > 0)
                for (char *at = space; at < space + n;) {
                        const struct inotify_event *e = (const struct inotify_event *)(void *)at;

                        told(r, e);
                        at += sizeof(*e) + e->len;
                }
}

static void on_event(void *cookie, int events UNUSED) { drain(cookie); }

static void on_time(struct task *t, usec now)
{
        struct watcher *r = CONTAINER_OF(t, struct watcher, task);
        bool often = false;

        LIST_EACH (struct watch, w, &r->watches, node) {
                attach(r, w);
                compare(w, false);
                often = often || !w->folder;
        }
        loop_arm(r->loop, t, now + (often ? OFTEN : SELDOM));
}

/* ---- the watcher of a loop ---------------------------------------------- */

static struct watcher *watcher_of(struct loop *loop)
{
        void **place = loop_place(loop, LOOP_WATCHER);
        struct watcher *r = *place;
        struct error ignored;

        if (r || !(r = calloc(1, sizeof(*r))))
                return r;
        r->loop = loop;
        r->task.turn = on_time;
        r->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
        if (r->fd >= 0 && loop_io_open(loop, r->fd, on_event, r, &r->io, &ignored) < 0) {
                (void)close(r->fd);
                r->fd = -1;
        }
        if (r->io)
                loop_io_want(r->io, LOOP_READABLE);
        *place = r;
        return r;
}

static void watcher_free(struct watcher *r)
{
        *loop_place(r->loop, LOOP_WATCHER) = NULL;
        loop_forget(r->loop, &r->task);
        loop_io_close(r->io);
        if (r->fd >= 0)
                (void)close(r->fd);
        free(r);
}

int watch_open(struct watch *w, struct loop *loop, const char *path, struct task *wake, struct error *err)
{
        struct watcher *r = watcher_of(loop);
        const char *slash;

        if (!r)
                return error_memory(err);
        *w = (struct watch){ .version = 1, .wake = wake, .path = str_dup(str_of(path)) };
        if (!w->path) {
                if (!r->watches.n)
                        watcher_free(r);
                return error_memory(err);
        }
        w->loop = loop;
        slash = strrchr(w->path, '/');
        w->name = slash ? slash + 1 : w->path;
        list_append(&r->watches, &w->node);
        attach(r, w); /* before it is looked at: nothing is missed in between */
        w->stamp = stamp_of(w->path);
        if (r->watches.n == 1 || !w->folder)
                loop_arm(loop, &r->task, loop_now(loop) + (w->folder ? SELDOM : OFTEN));
        return 0;
}

uint64_t watch_look(struct watch *w)
{
        uint64_t pass = w->loop ? loop_pass(w->loop) : 0;

        if (!w->loop)
                return 0;
        if (pass && pass == w->looked)
                return w->version;
        w->looked = pass;
        drain(*loop_place(w->loop, LOOP_WATCHER));
        compare(w, false);
        return w->version;
}

void watch_close(struct watch *w)
{
        struct watcher *r;

        if (!w->loop)
                return;
        r = *loop_place(w->loop, LOOP_WATCHER);
        detach(r, w);
        list_remove(&w->node);
        free(w->path);
        *w = (struct watch){ 0 };
        if (!r->watches.n)
                watcher_free(r);
}
