/* The one way to notice that a file was changed which others put where we read it: a certificate, a key, a
 * CA, a mounted Secret. Kubernetes replaces a whole mount at once, by a symbolic link (..data) beside the
 * files; people write in place or rename. Each is told by inotify on the file's folder, one descriptor a
 * loop; and since inotify may not be had, or not know (a folder that comes later, a link that leads
 * elsewhere), files are looked at by their stamps as well, seldom where inotify tells. Loop's thread. */
#pragma once

#include "base/list.h"
#include "base/loop.h"

/* How a file is; zeroed: it is not there. */
struct file_stamp {
        int64_t seconds, nanoseconds;
        uint64_t inode, size;
};
struct file_stamp stamp_of(const char *path); /* NULL: none is there. Any thread */
bool stamps_equal(const struct file_stamp *, const struct file_stamp *);

struct watch_folder;
/* One user's look at one file. Embedded in its owner, zeroed before it is opened; not moved. */
struct watch {
        uint64_t version; /* 1 at first; grows with each change that is noticed, also to or from nothing */
        /* the watcher's: */
        struct loop *loop;
        struct task *wake;
        char *path;
        const char *name; /* its last part */
        struct file_stamp stamp;
        uint64_t looked;             /* in that pass of the loop */
        struct watch_folder *folder; /* NULL: inotify tells nothing of it */
        struct list_node node, in_folder;
};
/* wake: made ready when the version grew; NULL: the owner looks when it wants to know. The file need not be
 * there. */
int watch_open(struct watch *, struct loop *, const char *path, struct task *wake, struct error *) MUST_CHECK;
/* Looks now, once in a pass of the loop: what happened before the pass is known from here on. Returns the
 * version. Of one that is not open: 0 */
uint64_t watch_look(struct watch *);
static inline bool watch_is_open(const struct watch *w) { return w->loop != NULL; }
void watch_close(struct watch *); /* one that is not open is fine */
