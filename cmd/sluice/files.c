#include "files.h"

#include <assert.h>
#include <malloc.h>
#include <stdio.h>
#include <unistd.h>

#include "base/helper.h"
#define HASH_NONFATAL_OOM 1 /* what finds no memory is not in its table: hh.tbl is NULL */
#include "base/table.h"
#include "base/watch.h"
#include "log/log.h"
#include "source/source.h"

/* Time between the first sign of a change and reading the files, so that several files that are written
 * together are read together. */
static const usec SETTLING = 250 * USEC_MSEC;
/* Time until the next try if no thread could be started. */
static const usec AGAIN = USEC_SEC;

struct watched { /* a file, or a folder of files */
        UT_hash_handle hh;
        struct watch watch;
        uint64_t reading; /* the last one that visited it */
        char path[];      /* a folder's ends in "/." */
};

struct visit {
        struct visit *next;
        struct file_stamp stamp; /* before it was read */
        char path[];
};

struct reading {
        struct helper_job job;
        struct files *files;
        struct file_set *set;
        struct visit *visits; /* files and directories that were read, the latest first */
        bool folders;         /* at least one of them is a directory */
        bool vanished;        /* one of the paths given does not exist */
        bool complete;        /* visits lists everything that there is */
        struct buf report;
        bool nameless; /* it names no file */
};

struct files {
        struct loop *loop;
        const struct strings *paths;
        struct task *wake;
        struct task changed, done; /* made ready by the watches; by the helper */
        struct helper *helper;
        struct reading *reading; /* under way; NULL: none */
        struct file_set *read;   /* not taken yet */
        struct watched *watched;
        uint64_t readings;
        /* zero Triggers are accepted: a reading succeeded, and no path has vanished since */
        bool empty_is_fine;
        usec read_at; /* 0: nothing changed */
        bool again;   /* read once more after this reading */
};

void file_set_free(struct file_set *s)
{
        if (!s)
                return;
        triggers_done(&s->triggers);
        free(s->digests);
        free(s);
        (void)malloc_trim(0); /* give the memory of the reading back to the system */
}

/* ---- reading: in the thread, or before the loop turns -------------------- */

/* Without memory the file is not watched; SIGHUP still reads it again. */
static void on_visit(void *cookie, const char *path, bool folder)
{
        struct reading *r = cookie;
        size_t size = strlen(path) + sizeof("/.");
        struct visit *v = strcmp(path, "-") != 0 ? malloc(sizeof(*v) + size) : NULL;

        r->folders = r->folders || folder;
        if (!v)
                return;
        (void)snprintf(v->path, size, folder ? "%s/." : "%s", path);
        v->stamp = stamp_of(v->path);
        v->next = r->visits;
        r->visits = v;
}

static bool is_stopping(void *cookie)
{
        const struct reading *r = cookie;

        return helper_stopping(r->files->helper);
}

static bool digest(const struct trigger *t, struct buf *space, struct digest *out)
{
        struct writer w;

        buf_reset(space);
        writer_init(&w, space);
        trigger_write(t, &w);
        if (space->failed)
                return false;
        /* seeded per process, so that nobody can construct a collision */
        *out = (struct digest){ hash_bytes(table_seed(), buf_view(space)),
                                hash_bytes(~table_seed(), buf_view(space)) };
        return true;
}

static int digest_all(struct file_set *s, struct error *err)
{
        BUF_AT_END struct buf space = BUF_INIT((size_t)16 << 20);
        struct digest *all = calloc(MAX_OF(s->triggers.n, (size_t)1), sizeof(*all));

        for (size_t i = 0; all && i < s->triggers.n; i++)
                if (!digest(s->triggers.list[i], &space, &all[i])) {
                        free(all);
                        return error_memory(err);
                }
        s->digests = all;
        return all ? 0 : error_memory(err);
}

static int load(struct reading *r, struct error *err)
{
        const struct strings *paths = r->files->paths;
        struct triggers *all = &r->set->triggers;

        all->visit = on_visit;
        all->stop = is_stopping;
        all->cookie = r;
        for (size_t i = 0; i < paths->n; i++)
                r->vanished = r->vanished ||
                              (strcmp(paths->list[i], "-") != 0 && access(paths->list[i], F_OK) < 0);
        for (size_t i = 0; i < paths->n; i++)
                if (triggers_load(all, paths->list[i], source_types(), source_kinds_n, &r->report, err) < 0)
                        return -1;
        /* Removing the last file of a directory means that nothing should run. At the start an empty
         * directory is more likely a wrong path, and an empty file is more likely one that is being written.
         */
        if (all->n == 0 && !(r->files->empty_is_fine && r->folders))
                return error_set(err, ERROR_NOT_FOUND, "no Trigger was found in the files given");
        return digest_all(r->set, err);
}

static void read_all(struct helper_job *job)
{
        struct reading *r = CONTAINER_OF(job, struct reading, job);
        struct error err;

        r->nameless = load(r, &err) < 0 && !r->report.n;
        if (r->nameless)
                buf_printf(&r->report, "%s\n", err.text);
        schema_forget_patterns();
        r->complete = r->set->digests != NULL;
}

static struct reading *reading_free(struct reading *r)
{
        if (!r)
                return NULL;
        for (struct visit *v = r->visits, *next; v; v = next) {
                next = v->next;
                free(v);
        }
        file_set_free(r->set);
        buf_done(&r->report);
        free(r);
        return NULL;
}

static struct reading *reading_new(struct files *f)
{
        struct reading *r = calloc(1, sizeof(*r));

        if (!r || !(r->set = calloc(1, sizeof(*r->set))))
                return reading_free(r);
        r->job.work = read_all;
        r->files = f;
        r->report.max = (size_t)16 << 20;
        return r;
}

/* ---- what is watched ----------------------------------------------------- */

static void watched_free(struct files *f, struct watched *w)
{
        assert(f->watched);
        watch_close(&w->watch);
        HASH_DEL(f->watched, w);
        free(w);
}

/* true: it is newly watched, and changed between being read and being watched. */
static bool watch_visited(struct files *f, const struct visit *v)
{
        size_t size = strlen(v->path) + 1;
        struct watched *w;
        struct file_stamp now;
        struct error err;

        HASH_FIND_STR(f->watched, v->path, w);
        if (w) {
                w->reading = f->readings;
                return false;
        }
        w = calloc(1, sizeof(*w) + size);
        if (!w)
                return false;
        memcpy(w->path, v->path, size);
        w->reading = f->readings;
        HASH_ADD_STR(f->watched, path, w);
        if (!w->hh.tbl || watch_open(&w->watch, f->loop, w->path, &f->changed, &err) < 0) {
                if (w->hh.tbl)
                        HASH_DEL(f->watched, w);
                free(w);
                return false;
        }
        now = stamp_of(w->path);
        return !stamps_equal(&v->stamp, &now);
}

/* Watches everything that was read. true: something changed before its watch was open, so that it must be
 * read again. If the reading failed it may have missed files, so none that is watched already is dropped. */
static bool watch_all(struct files *f, const struct reading *r)
{
        bool missed = false;

        f->readings++;
        for (const struct visit *v = r->visits; v; v = v->next)
                missed = watch_visited(f, v) || missed;
        for (struct watched *w = f->watched, *next; w; w = next) {
                next = w->hh.next;
                if (r->complete && w->reading != f->readings)
                        watched_free(f, w);
        }
        return missed;
}

/* ---- its turn ------------------------------------------------------------ */

static void read_soon(struct files *f, usec in)
{
        f->read_at = loop_now(f->loop) + in;
        loop_arm(f->loop, &f->changed, f->read_at);
}

static struct file_set *finish(struct files *f, struct reading *r)
{
        struct file_set *set = TAKE(r->set);

        f->empty_is_fine = set->digests || (f->empty_is_fine && !r->vanished);
        if (watch_all(f, r))
                read_soon(f, SETTLING);
        (void)reading_free(r);
        return set;
}

/* Each problem is a message of the log, whatever the log looks like. */
static void log_problems(const struct buf *report)
{
        struct str rest = buf_view(report);

        while (rest.n) {
                const char *end = memchr(rest.p, '\n', rest.n);
                struct str line = { rest.p, end ? (size_t)(end - rest.p) : rest.n };

                log_error("a file can't be used", LOG_V("problem", line));
                rest.p += line.n + (end != NULL);
                rest.n -= line.n + (end != NULL);
        }
}

void files_read_again(struct files *f)
{
        struct reading *r;
        struct error err;

        f->again = f->reading != NULL;
        if (f->again)
                return;
        r = reading_new(f);
        if (r && helper_submit(f->helper, &r->job, &err) == 0) {
                f->reading = r;
                return;
        }
        if (!r)
                (void)error_memory(&err);
        (void)reading_free(r);
        log_error("the files can't be read again just now", LOG_S("error", err.text));
        read_soon(f, AGAIN);
}

static void on_done(struct task *t, usec now UNUSED)
{
        struct files *f = CONTAINER_OF(t, struct files, done);
        struct helper_job *job = helper_take(f->helper);

        if (!job)
                return;
        f->reading = NULL;
        log_problems(&CONTAINER_OF(job, struct reading, job)->report);
        file_set_free(f->read); /* an older reading that was never taken */
        f->read = finish(f, CONTAINER_OF(job, struct reading, job));
        loop_ready(f->loop, f->wake);
        if (f->again)
                files_read_again(f);
}

static void on_change(struct task *t, usec now)
{
        struct files *f = CONTAINER_OF(t, struct files, changed);

        if (!f->read_at)
                read_soon(f, SETTLING);
        else if (now < f->read_at)
                loop_arm(f->loop, t, f->read_at);
        else {
                f->read_at = 0;
                files_read_again(f);
        }
}

struct file_set *files_take(struct files *f) { return TAKE(f->read); }

/* ---- life ---------------------------------------------------------------- */

struct file_set *files_read(struct files *f)
{
        struct reading *r = reading_new(f);

        if (!r)
                return NULL;
        read_all(&r->job);
        if (r->report.n)
                (void)fprintf(stderr, "%s" STR_FMT, r->nameless ? "sluice run: " : "",
                              STR_ARG(buf_view(&r->report)));
        return finish(f, r);
}

int files_new(struct files **out, struct loop *loop, const struct strings *paths, struct task *wake,
              struct error *err)
{
        struct files *f = calloc(1, sizeof(*f));

        if (!f)
                return error_memory(err);
        f->loop = loop;
        f->paths = paths;
        f->wake = wake;
        f->changed.turn = on_change;
        f->done.turn = on_done;
        if (helper_new(&f->helper, loop_waker(loop), &f->done, err) < 0) {
                free(f);
                return -1;
        }
        *out = f;
        return 0;
}

struct files *files_free(struct files *f)
{
        if (!f)
                return NULL;
        f->helper = helper_free(f->helper);
        (void)reading_free(f->reading);
        file_set_free(f->read);
        for (struct watched *w = f->watched, *next; w; w = next) {
                next = w->hh.next;
                watched_free(f, w);
        }
        loop_forget(f->loop, &f->changed);
        loop_forget(f->loop, &f->done);
        free(f);
        return NULL;
}
