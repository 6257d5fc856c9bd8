#include "checkpoint/filestore.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>
#include <zlib.h>

#include "base/file.h"
#include "base/watch.h"
#include "log/log.h"
#define HASH_NONFATAL_OOM 1 /* what finds no memory is not in its table: hh.tbl is NULL */
#include "base/table.h"

static const char MAGIC[4] = { 'S', 'L', 'C', '1' };
/* From the first sign that files of the folder were deleted until they are made again: whoever deletes the
 * folder is done by then. And after that failed. */
static const usec SETTLING = 100 * USEC_MSEC, AGAIN = USEC_SEC;
enum { FRAME_HEAD = 16, FRAME_MAX = 1 << 20, REWRITE_AT = 1 << 20 };

struct entry {
        UT_hash_handle hh;
        char *key;
        size_t key_n;
        struct buf value;
};

struct file_store {
        struct loop *loop;
        char *folder;
        int fd, lock;
        struct entry *entries;
        size_t size, live;            /* bytes in the journal; of frames that still count */
        struct buf pending;           /* frames not yet written */
        struct list waiting, syncing; /* puts in pending; written, and being synced */
        struct task write;            /* of what was put in a pass, once it is over */
        bool sync_running;
        uv_fs_t sync;
        struct watch watch; /* of the journal: open once the store is */
        struct task look;
        usec look_at; /* 0: there was no sign of a change */
        bool lost;    /* the files are not in the folder, and that was logged */
};

struct file_store_end {
        struct file_store *store;
        char *prefix;
};

/* ---- entries ------------------------------------------------------------ */

static struct entry *entry_find(struct file_store *s, struct str key)
{
        struct entry *e;

        HASH_FIND(hh, s->entries, key.p, key.n, e);
        return e;
}

static size_t frame_size(size_t key, size_t value) { return FRAME_HEAD + key + value; }

/* -1: there is no memory; the old value stays. */
static int entry_set(struct file_store *s, struct str key, struct str value)
{
        struct entry *e = entry_find(s, key);
        struct buf fresh = BUF_INIT(FRAME_MAX);

        buf_str(&fresh, value);
        if (fresh.failed) {
                buf_done(&fresh);
                return -1;
        }

        if (!e) {
                e = calloc(1, sizeof(*e));
                if (!e || !(e->key = str_dup(key))) {
                        free(e);
                        buf_done(&fresh);
                        return -1;
                }
                e->key_n = key.n;
                HASH_ADD_KEYPTR(hh, s->entries, e->key, e->key_n, e);
                if (!e->hh.tbl) {
                        free(e->key);
                        free(e);
                        buf_done(&fresh);
                        return -1;
                }
        } else
                s->live -= frame_size(e->key_n, e->value.n);
        buf_done(&e->value);
        e->value = fresh;
        s->live += frame_size(key.n, value.n);
        return 0;
}

static void put_u32(struct buf *b, uint32_t v)
{
        char bytes[4] = { (char)v, (char)(v >> 8), (char)(v >> 16), (char)(v >> 24) };

        buf_add(b, bytes, 4);
}

static uint32_t get_u32(const char *p)
{
        const unsigned char *u = (const unsigned char *)p;

        return (uint32_t)u[0] | (uint32_t)u[1] << 8 | (uint32_t)u[2] << 16 | (uint32_t)u[3] << 24;
}

static void put_frame(struct buf *b, struct str key, struct str value)
{
        size_t at = b->n;
        uLong crc;

        buf_add(b, MAGIC, sizeof(MAGIC));
        put_u32(b, 0);
        put_u32(b, (uint32_t)key.n);
        put_u32(b, (uint32_t)value.n);
        buf_str(b, key);
        buf_str(b, value);
        if (b->failed)
                return;
        crc = crc32(0, (const Bytef *)b->p + at + 8, (uInt)(b->n - at - 8));
        for (int i = 0; i < 4; i++)
                b->p[at + 4 + (size_t)i] = (char)(crc >> (8 * i));
}

/* The size of the whole frame at the start; 0: there is none. */
static size_t get_frame(struct str bytes, struct str *key, struct str *value)
{
        size_t key_n, value_n;

        if (bytes.n < FRAME_HEAD || memcmp(bytes.p, MAGIC, sizeof(MAGIC)) != 0)
                return 0;
        key_n = get_u32(bytes.p + 8);
        value_n = get_u32(bytes.p + 12);
        if (key_n > FRAME_MAX || value_n > FRAME_MAX || bytes.n < frame_size(key_n, value_n))
                return 0;
        if (crc32(0, (const Bytef *)bytes.p + 8, (uInt)(frame_size(key_n, value_n) - 8)) !=
            get_u32(bytes.p + 4))
                return 0;
        *key = (struct str){ bytes.p + FRAME_HEAD, key_n };
        *value = (struct str){ bytes.p + FRAME_HEAD + key_n, value_n };
        return frame_size(key_n, value_n);
}

/* ---- the journal -------------------------------------------------------- */

static int write_all(int fd, struct str bytes)
{
        while (bytes.n) {
                ssize_t n = write(fd, bytes.p, bytes.n);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -1;
                bytes.p += n;
                bytes.n -= (size_t)n;
        }
        return 0;
}

static void complete_list(struct file_store *s, struct list *list, const struct error *why)
{
        for (struct request *r; (r = LIST_TAKE(list, struct request, node));)
                if (why)
                        request_fail(r, s->loop, why);
                else
                        request_end(r, s->loop);
}

static int rewrite(struct file_store *s, struct error *err)
{
        BUF_AT_END struct buf all = BUF_INIT((size_t)1 << 30), path = BUF_INIT(PATH_MAX),
                              fresh = BUF_INIT(PATH_MAX);
        int fd, folder;

        buf_printf(&path, "%s/checkpoints.journal", s->folder);
        buf_printf(&fresh, "%s/checkpoints.journal.new", s->folder);
        for (struct entry *e = s->entries; e; e = e->hh.next)
                put_frame(&all, (struct str){ e->key, e->key_n }, buf_view(&e->value));
        if (all.failed || path.failed || fresh.failed)
                return error_memory(err);
        fd = file_open(fresh.p, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, err);
        if (fd < 0)
                return -1;
        if (write_all(fd, buf_view(&all)) < 0 || fdatasync(fd) < 0 || rename(fresh.p, path.p) < 0) {
                (void)error_errno(err, errno, "write %s", fresh.p);
                (void)close(fd);
                return -1;
        }
        folder = open(s->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (folder >= 0) {
                (void)fsync(folder);
                (void)close(folder);
        }
        if (s->fd >= 0)
                (void)close(s->fd);
        s->fd = fd;
        s->size = all.n;
        return 0;
}

static int hold_files(struct file_store *s, struct error *err);
static void start_sync(struct file_store *s);

/* What is pending is not written. */
static void drop_pending(struct file_store *s, const struct error *why)
{
        buf_reset(&s->pending);
        complete_list(s, &s->syncing, why);
}

static void on_sync(uv_fs_t *request)
{
        struct file_store *s = request->data;
        struct error err;

        s->sync_running = false;
        if (request->result < 0) {
                (void)error_set(&err, ERROR_SYSTEM, "sync %s/checkpoints.journal: %s", s->folder,
                                uv_strerror((int)request->result));
                complete_list(s, &s->syncing, &err);
        } else
                complete_list(s, &s->syncing, NULL);
        uv_fs_req_cleanup(request);
        if (s->look_at)
                loop_ready(s->loop, &s->look);
        if (s->size > REWRITE_AT && s->size > 4 * s->live && rewrite(s, &err) < 0)
                log_warn("the checkpoint journal could not be rewritten", LOG_S("error", err.text));
        start_sync(s);
}

/* Writes what is pending and syncs it; what comes meanwhile goes with the next. */
static void start_sync(struct file_store *s)
{
        struct error err;

        if (s->sync_running || !s->pending.n)
                return;
        for (struct list_node *first; (first = list_take(&s->waiting));)
                list_append(&s->syncing, first);
        if (hold_files(s, &err) < 0) {
                drop_pending(s, &err);
                return;
        }
        if (write_all(s->fd, buf_view(&s->pending)) < 0) {
                (void)error_errno(&err, errno, "write %s/checkpoints.journal", s->folder);
                /* A torn frame may stand at the end: what follows it would not be read. */
                if (ftruncate(s->fd, (off_t)s->size) < 0)
                        log_error("the checkpoint journal has a torn end", LOG_S("folder", s->folder));
                drop_pending(s, &err);
                return;
        }
        s->size += s->pending.n;
        buf_reset(&s->pending);
        s->sync_running = true;
        s->sync.data = s;
        if (uv_fs_fdatasync(loop_uv(s->loop), &s->sync, s->fd, on_sync) < 0) {
                s->sync.result = UV_EIO;
                on_sync(&s->sync);
        }
}

static void on_write(struct task *t, usec now UNUSED)
{
        start_sync(CONTAINER_OF(t, struct file_store, write));
}

/* What can't be read is kept beside the journal, for whoever wants to look into it. */
static int keep_aside(const struct file_store *s, struct str bytes, struct buf *path, struct error *err)
{
        int fd = -1;

        for (int number = 1; fd < 0; number++) {
                buf_reset(path);
                buf_printf(path, "%s/checkpoints.journal.damaged.%d", s->folder, number);
                if (path->failed)
                        return error_memory(err);
                fd = open(path->p, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
                if (fd < 0 && errno != EEXIST)
                        return error_errno(err, errno, "make %s", path->p);
        }
        if (write_all(fd, bytes) < 0 || fdatasync(fd) < 0) {
                (void)error_errno(err, errno, "write %s", path->p);
                (void)close(fd);
                return -1;
        }
        (void)close(fd);
        return 0;
}

/* Where the next whole frame begins; the end, if there is none. Frames hold text, in which no frame can hide,
 * so that few places look like one. */
static const char *next_frame(const char *p, const char *end)
{
        struct str key, value;

        while (p < end && (p = memmem(p, (size_t)(end - p), MAGIC, sizeof(MAGIC)))) {
                if (get_frame((struct str){ p, (size_t)(end - p) }, &key, &value))
                        return p;
                p++;
        }
        return end;
}

struct damage {
        size_t stretches, bytes;
        bool within; /* something whole comes after it */
};

/* Every frame that is whole counts, whatever lies between. */
static int read_frames(struct file_store *s, struct str file, struct damage *d, struct error *err)
{
        const char *p = file.p, *end = file.p + file.n;
        struct str key, value;

        while (p < end) {
                size_t n = get_frame((struct str){ p, (size_t)(end - p) }, &key, &value);

                if (!n) {
                        const char *next = next_frame(p + 1, end);

                        d->stretches++;
                        d->bytes += (size_t)(next - p);
                        d->within = d->within || next < end;
                        p = next;
                        continue;
                }
                if (entry_set(s, key, value) < 0)
                        return error_memory(err);
                p += n;
                if (!d->stretches)
                        s->size += n;
        }
        return 0;
}

static int load(struct file_store *s, struct error *err)
{
        BUF_AT_END struct buf file = BUF_INIT((size_t)1 << 30), path = BUF_INIT(PATH_MAX),
                              aside = BUF_INIT(PATH_MAX);
        struct damage d = { 0 };

        buf_printf(&path, "%s/checkpoints.journal", s->folder);
        if (path.failed)
                return error_memory(err);
        s->fd = file_open(path.p, O_RDWR | O_CREAT | O_APPEND, err);
        if (s->fd < 0)
                return -1;
        if (buf_read_file(&file, path.p, err) < 0 || read_frames(s, buf_view(&file), &d, err) < 0)
                return -1;
        if (!d.stretches)
                return 0;
        if (d.within) {
                if (keep_aside(s, buf_view(&file), &aside, err) < 0)
                        return -1;
                log_warn("the checkpoint journal is damaged: what can't be read is skipped, so that a "
                         "Trigger may go on from an older position or afresh",
                         LOG_S("file", path.p), LOG_I("places", d.stretches), LOG_I("bytes", d.bytes),
                         LOG_S("kept", aside.p));
                return rewrite(s, err);
        }
        if (keep_aside(s, (struct str){ file.p + s->size, file.n - s->size }, &aside, err) < 0)
                return -1;
        log_warn("the checkpoint journal ends in a broken frame, which is cut off", LOG_S("file", path.p),
                 LOG_I("bytes", d.bytes), LOG_S("kept", aside.p));
        if (ftruncate(s->fd, (off_t)s->size) < 0)
                return error_errno(err, errno, "cut %s", path.p);
        return 0;
}

static int take_lock(struct file_store *s, struct error *err)
{
        BUF_AT_END struct buf path = BUF_INIT(PATH_MAX);

        buf_printf(&path, "%s/lock", s->folder);
        if (path.failed)
                return error_memory(err);
        s->lock = file_open(path.p, O_RDWR | O_CREAT, err);
        if (s->lock < 0)
                return -1;
        if (flock(s->lock, LOCK_EX | LOCK_NB) < 0)
                return error_set(err, ERROR_CONFLICT,
                                 "%s is in use by another process; give each its own --state", s->folder);
        return 0;
}

/* ---- files that were deleted --------------------------------------------- */

/* Is it what is found in the folder under this name? */
static bool is_there(const struct file_store *s, int fd, const char *name)
{
        BUF_AT_END struct buf path = BUF_INIT(PATH_MAX);

        buf_printf(&path, "%s/%s", s->folder, name);
        return !path.failed && file_is_at(fd, path.p);
}

static void close_files(struct file_store *s)
{
        if (s->fd >= 0)
                (void)close(s->fd);
        if (s->lock >= 0)
                (void)close(s->lock);
        s->fd = s->lock = -1;
}

/* Makes the files again, of all positions that are known. Those of a journal that stands there now are newer:
 * another process had the folder meanwhile. What is pending is newer still. */
static int make_files(struct file_store *s, struct error *err)
{
        struct damage none = { 0 };

        close_files(s);
        s->size = 0;
        return file_store_folder(s->folder, err) < 0 || take_lock(s, err) < 0 || load(s, err) < 0 ||
                               read_frames(s, buf_view(&s->pending), &none, err) < 0
                       ? -1
                       : rewrite(s, err);
}

/* Nobody reads what is written into a file that was deleted, and a lock there keeps nobody out. So both are
 * looked at before each write. */
static int hold_files(struct file_store *s, struct error *err)
{
        if (is_there(s, s->fd, "checkpoints.journal") && is_there(s, s->lock, "lock"))
                return 0;
        if (make_files(s, err) < 0) {
                close_files(s);
                return error_wrap(err, "the folder of positions was deleted or replaced");
        }
        log_warn(
                "the folder of positions was deleted or replaced: it was made again, with all positions that "
                "this process knows",
                LOG_S("folder", s->folder));
        s->lost = false;
        return 0;
}

/* Made ready by the watch, and after a sync. */
static void on_look(struct task *t, usec now)
{
        struct file_store *s = CONTAINER_OF(t, struct file_store, look);
        struct error err;

        if (!s->look_at)
                s->look_at = now + SETTLING;
        if (now < s->look_at) {
                loop_arm(s->loop, t, s->look_at);
                return;
        }
        if (s->sync_running) /* which uses the descriptor; it says when it is done */
                return;
        s->look_at = 0;
        if (hold_files(s, &err) == 0)
                return;
        if (!s->lost)
                log_error("positions can't be kept", LOG_S("error", err.text));
        s->lost = true;
        s->look_at = now + AGAIN;
        loop_arm(s->loop, t, s->look_at);
}

/* ---- life --------------------------------------------------------------- */

int file_store_folder(const char *path, struct error *err)
{
        BUF_AT_END struct buf part = BUF_INIT(PATH_MAX);

        for (const char *p = path; *p; p++) {
                if (*p == '/' && part.n && mkdir(part.p, 0700) < 0 && errno != EEXIST)
                        return error_errno(err, errno, "make folder %s", part.p);
                buf_char(&part, *p);
        }
        if (part.failed || (mkdir(path, 0700) < 0 && errno != EEXIST))
                return error_errno(err, errno, "make folder %s", path);
        return 0;
}

static int watch_journal(struct file_store *s, struct error *err)
{
        BUF_AT_END struct buf path = BUF_INIT(PATH_MAX);

        buf_printf(&path, "%s/checkpoints.journal", s->folder);
        return path.failed ? error_memory(err) : watch_open(&s->watch, s->loop, path.p, &s->look, err);
}

int file_store_new(struct file_store **out, struct loop *loop, const char *folder, struct error *err)
{
        struct file_store *s = calloc(1, sizeof(*s));

        if (!s)
                return error_memory(err);
        s->loop = loop;
        s->fd = s->lock = -1;
        s->pending.max = (size_t)64 << 20;
        s->look.turn = on_look;
        s->write.turn = on_write;
        s->folder = str_dup(str_of(folder));
        if (!s->folder || file_store_folder(folder, err) < 0 || take_lock(s, err) < 0 || load(s, err) < 0 ||
            watch_journal(s, err) < 0) {
                bool memory = !s->folder;

                (void)file_store_free(s);
                return memory ? error_memory(err) : -1;
        }
        *out = s;
        return 0;
}

static void write_the_rest(struct file_store *s)
{
        struct error err;

        if (!watch_is_open(&s->watch))
                return; /* it was never whole */
        if (hold_files(s, &err) < 0)
                log_error("the last checkpoints could not be written", LOG_S("error", err.text));
        else if (s->pending.n && (write_all(s->fd, buf_view(&s->pending)) < 0 || fdatasync(s->fd) < 0))
                log_error("the last checkpoints could not be written", LOG_S("folder", s->folder));
}

struct file_store *file_store_free(struct file_store *s)
{
        if (!s)
                return NULL;
        while (s->sync_running)
                (void)uv_run(loop_uv(s->loop), UV_RUN_ONCE);
        write_the_rest(s);
        for (struct entry *e = s->entries, *next; e; e = next) {
                next = e->hh.next;
                HASH_DEL(s->entries, e);
                buf_done(&e->value);
                free(e->key);
                free(e);
        }
        buf_done(&s->pending);
        close_files(s);
        watch_close(&s->watch);
        loop_forget(s->loop, &s->look);
        loop_forget(s->loop, &s->write);
        free(s->folder);
        free(s);
        return NULL;
}

/* ---- ends --------------------------------------------------------------- */

static void full_key(const struct file_store_end *end, struct str key, struct buf *out)
{
        /* A line end parts them: it stands in no prefix and in no key, so that "a" with "b/c" is not "a/b"
         * with "c". */
        buf_printf(out, "%s\n", end->prefix);
        buf_str(out, key);
}

static void get(void *cookie, struct store_request *r, struct str key)
{
        struct file_store_end *end = cookie;
        BUF_AT_END struct buf name = BUF_INIT(FRAME_MAX);
        const struct entry *e;
        struct error err;

        full_key(end, key, &name);
        e = name.failed ? NULL : entry_find(end->store, buf_view(&name));
        r->found = e != NULL;
        buf_reset(&r->value);
        r->value.max = FRAME_MAX;
        if (e)
                buf_str(&r->value, buf_view(&e->value));
        if (name.failed || r->value.failed) {
                (void)error_memory(&err);
                request_fail(&r->request, end->store->loop, &err);
        } else
                request_end(&r->request, end->store->loop);
}

static int add_frame(struct file_store *s, struct str key, struct str value, struct error *err)
{
        size_t before = s->pending.n;

        if (value.n > FRAME_MAX) /* before anything of the old value is touched */
                return error_set(err, ERROR_INVALID, "checkpoint of %zu bytes: at most %d are kept", value.n,
                                 FRAME_MAX);
        put_frame(&s->pending, key, value);
        if (!s->pending.failed && entry_set(s, key, value) == 0)
                return 0;
        s->pending.n = before;
        s->pending.failed = false;
        return error_memory(err);
}

static void put(void *cookie, struct store_request *r, struct str key, struct str value)
{
        struct file_store_end *end = cookie;
        struct file_store *s = end->store;
        BUF_AT_END struct buf name = BUF_INIT(FRAME_MAX);
        struct error err;

        full_key(end, key, &name);
        if ((name.failed ? error_memory(&err) : add_frame(s, buf_view(&name), value, &err)) < 0) {
                request_fail(&r->request, s->loop, &err);
                return;
        }
        list_append(&s->waiting, &r->request.node);
        loop_ready(s->loop, &s->write);
}

/* What was put is written all the same. */
static void cancel(void *cookie UNUSED, struct store_request *r) { list_remove(&r->request.node); }

static const struct store_ops ops = { get, put, cancel };
struct store file_store_port(struct file_store_end *end)
{
        return (struct store){ .ops = &ops, .cookie = end };
}

int file_store_end_new(struct file_store_end **out, struct file_store *s, struct str prefix,
                       struct error *err)
{
        struct file_store_end *end = calloc(1, sizeof(*end));

        if (!end || !(end->prefix = str_dup(prefix))) {
                free(end);
                return error_memory(err);
        }
        end->store = s;
        *out = end;
        return 0;
}

struct file_store_end *file_store_end_free(struct file_store_end *end)
{
        if (!end)
                return NULL;
        free(end->prefix);
        free(end);
        return NULL;
}
