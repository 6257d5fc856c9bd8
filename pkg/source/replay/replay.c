#include "source/replay/replay.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "log/log.h"
#include "base/random.h"
#include "json/scan.h"
#include "source/replay/letter.h"

enum { LINE_MOST = 96 << 20 };

struct letter {
        struct record record;
        char *text;
        char id[];
};

struct letters_file {
        struct source source;
        FILE *file;
        const char *path;
        char *place; /* the file that keeps how far it went; NULL: none */
        const struct services *services;
        struct replay_report *report;
        /* read; there are; out now; settled without a gap, from the file's start */
        uint64_t line, lines, lent, done;
        /* by line: of all up to its end, so that a place is known to be of this file */
        uint64_t *sums;
        size_t sums_cap;
        int64_t credit, bytes;
        bool released; /* not all that was lent was sent */
        bool told_state, told_track, ended, failed, stopping, revoking, revoked, told_closed;
        char text[480];
};

static struct letters_file *letters_file_of(const struct source *s)
{
        return CONTAINER_OF(s, struct letters_file, source);
}

/* ---- how far it went ---------------------------------------------------- */

static void keep_place(struct letters_file *s)
{
        BUF_AT_END struct buf next = BUF_INIT(8192), text = BUF_INIT(64);
        FILE *f;

        if (!s->place || s->done == 0)
                return;
        buf_printf(&next, "%s.new", s->place);
        buf_printf(&text, "%" PRIu64 " %016" PRIx64 "\n", s->done, s->sums[s->done - 1]);
        f = next.failed || text.failed ? NULL : fopen(next.p, "we");
        if (f) {
                bool written = fwrite(text.p, 1, text.n, f) == text.n;

                if (fclose(f) == 0 && written && rename(next.p, s->place) == 0)
                        return;
        }
        log_warn_for(
                s->services->log,
                "how far the file was replayed is not kept: started again, it is replayed from its beginning",
                LOG_S("file", s->place), LOG_S("error", strerror(errno)));
        free(TAKE(s->place));
}

static void find_place(struct letters_file *s)
{
        uint64_t line = 0, sum = 0;
        char text[600];
        FILE *f = s->place ? fopen(s->place, "re") : NULL;

        if (!f)
                return;
        if (fscanf(f, "%" SCNu64 " %" SCNx64, &line, &sum) == 2 && line > 0 && line <= s->lines &&
            s->sums[line - 1] == sum) {
                s->done = line;
                (void)snprintf(text, sizeof(text),
                               "goes on behind line %" PRIu64
                               ", as %.300s says; without that file all are sent",
                               line, s->place);
        } else
                (void)snprintf(text, sizeof(text), "%.300s is of another file: all are sent", s->place);
        (void)fclose(f);
        s->report->note(s->report->cookie, text);
}

/* ---- judging ------------------------------------------------------------ */

static bool add_sum(struct letters_file *s, struct str line)
{
        if (s->lines == s->sums_cap) {
                size_t cap = MAX_OF(s->sums_cap * 2, (size_t)1024);
                uint64_t *grown = realloc(s->sums, cap * sizeof(*grown));

                if (!grown)
                        return false;
                s->sums = grown;
                s->sums_cap = cap;
        }
        s->sums[s->lines] = hash_bytes(s->lines ? s->sums[s->lines - 1] : 0x6c6574746572, line);
        s->lines++;
        return true;
}

static void judge_line(struct letters_file *s, struct str line)
{
        struct letter_view v;
        struct error why;
        char text[700];

        if (line.n > LINE_MOST)
                (void)error_set(&why, ERROR_INVALID, "longer than 96 MiB");
        else if (letter_read(line, (enum event_format)s->services->trigger->event->format, &v, &why) == 0)
                return;
        s->report->refusals++;
        (void)snprintf(text, sizeof(text), "%.200s:%" PRIu64 ": %s", s->path, s->lines, why.text);
        s->report->refused(s->report->cookie, text);
}

/* Before anything is sent. */
static int judge(struct letters_file *s, struct error *err)
{
        char *line = NULL;
        size_t cap = 0;
        ssize_t n;

        while ((n = getline(&line, &cap, s->file)) >= 0) {
                const struct str text = { line, (size_t)n };

                if (!add_sum(s, text)) {
                        free(line);
                        return error_memory(err);
                }
                if (str_trim(text).n == 0)
                        continue;
                s->report->letters++;
                judge_line(s, text);
        }
        free(line);
        if (ferror(s->file))
                return error_errno(err, errno, "read %s", s->path);
        rewind(s->file);
        if (s->report->refusals) {
                s->failed = true;
                (void)snprintf(s->text, sizeof(s->text),
                               "%.300s: %" PRIu64 " lines can't be sent again as they are: nothing was sent",
                               s->path, s->report->refusals);
        }
        return 0;
}

/* What can't be read twice is copied. */
static int copy_input(struct letters_file *s, struct error *err)
{
        FILE *copy = tmpfile();
        char block[65536];
        size_t n;

        while (copy && (n = fread(block, 1, sizeof(block), s->file)) > 0)
                if (fwrite(block, 1, n, copy) != n)
                        break;
        if (!copy || ferror(copy) || ferror(s->file)) {
                (void)error_errno(err, errno, "copy %s", s->path);
                if (copy)
                        (void)fclose(copy);
                return -1;
        }
        (void)fclose(s->file);
        s->file = copy;
        rewind(copy);
        return 0;
}

static int open_letters(struct letters_file *s, const struct replay_file_spec *spec, struct error *err)
{
        BUF_AT_END struct buf place = BUF_INIT(8192);
        bool input = strcmp(spec->path, "-") == 0;

        s->path = input ? "/dev/stdin" : spec->path;
        s->file = fopen(s->path, "re");
        if (!s->file)
                return error_errno(err, errno, "open %s", spec->path);
        if (fseek(s->file, 0, SEEK_CUR) != 0 || input) {
                if (copy_input(s, err) < 0)
                        return -1;
        } else {
                buf_printf(&place, "%s.replayed", spec->path);
                if (!(s->place = buf_take(&place)))
                        return error_memory(err);
        }
        if (judge(s, err) < 0)
                return -1;
        if (!s->failed)
                find_place(s);
        return 0;
}

static struct source *file_free(struct source *source)
{
        struct letters_file *s = letters_file_of(source);

        if (!s)
                return NULL;
        if (s->place && s->ended && s->done == s->lines)
                (void)unlink(s->place); /* all were sent: what is in the file later is new */
        if (s->file)
                (void)fclose(s->file);
        free(s->place);
        free(s->sums);
        free(s);
        return NULL;
}

static int file_open(struct source **out, const void *spec, const struct services *services,
                     struct error *err)
{
        struct letters_file *s = calloc(1, sizeof(*s));

        if (!s)
                return error_memory(err);
        s->services = services;
        s->report = ((const struct replay_file_spec *)spec)->report;
        if (open_letters(s, spec, err) < 0) {
                (void)file_free(&s->source);
                return -1;
        }
        *out = &s->source;
        return 0;
}

/* ---- lending ------------------------------------------------------------ */

/* An id given with the letter, else the event's own, else the request's, else the line. */
static struct letter *letter_new(struct letters_file *s, char *text, size_t n, const struct letter_view *v)
{
        BUF_AT_END struct buf id = BUF_INIT(65536);
        struct str raw = v->event_id.n ? v->event_id : v->cloud && v->id.n ? v->id : v->request_id;
        struct letter *l;

        if (raw.n)
                (void)scan_decode(raw, &id);
        else
                buf_printf(&id, "line-%" PRIu64, s->line);
        l = id.failed ? NULL : malloc(sizeof(*l) + id.n + 1);
        if (!l)
                return NULL;
        memcpy(l->id, id.p, id.n + 1);
        l->text = text;
        l->record = (struct record){ .position = s->line,
                                     .pinned = (uint32_t)MIN_OF(n, (size_t)UINT32_MAX),
                                     .id = { l->id, id.n },
                                     .value = { text, n } };
        return l;
}

static struct letter *stop_reading(struct letters_file *s, char *line, const char *why)
{
        (void)snprintf(s->text, sizeof(s->text), "%.200s:%" PRIu64 ": %.200s", s->path, s->line, why);
        s->failed = true;
        s->told_state = false;
        free(line);
        return NULL;
}

/* The next letter; NULL: none more, or the file is not what it was. */
static struct letter *read_letter(struct letters_file *s)
{
        char *line = NULL;
        size_t cap = 0;

        for (;;) {
                ssize_t n = getline(&line, &cap, s->file);
                struct letter_view v;
                struct letter *l;
                struct error err;

                if (n < 0) {
                        s->ended = s->line == s->lines;
                        if (!s->ended)
                                return stop_reading(s, line, "the file changed while it was read");
                        free(line);
                        return NULL;
                }
                s->line++;
                if (s->line > s->lines) {
                        s->line--;
                        s->ended = true; /* what came since is for another time */
                        free(line);
                        return NULL;
                }
                if (s->line <= s->done || str_trim((struct str){ line, (size_t)n }).n == 0)
                        continue;
                if (letter_read((struct str){ line, (size_t)n },
                                (enum event_format)s->services->trigger->event->format, &v, &err) < 0)
                        return stop_reading(s, line, err.text);
                if (!(l = letter_new(s, line, (size_t)n, &v)))
                        return stop_reading(s, line, "out of memory");
                return l;
        }
}

static size_t file_poll(struct source *source, struct pull_event *events, size_t max, usec now UNUSED)
{
        struct letters_file *s = letters_file_of(source);
        size_t n = 0;

        if (!s->told_state && n < max) {
                s->told_state = true;
                events[n++] = (struct pull_event){ .kind = PULL_STATE,
                                                   .state = s->failed ? SOURCE_FAILED : SOURCE_CONNECTED,
                                                   .text = s->text };
        }
        if (!s->told_track && n < max) {
                s->told_track = true;
                events[n++] = (struct pull_event){ .kind = PULL_ASSIGNED };
        }
        while (!s->stopping && !s->ended && !s->failed && s->credit > 0 && s->bytes > 0 && n < max) {
                struct letter *l = read_letter(s);

                if (!l)
                        break;
                s->lent++;
                s->credit--;
                s->bytes -= l->record.pinned;
                events[n++] = (struct pull_event){ .kind = PULL_RECORD, .record = &l->record };
        }
        if (s->failed && !s->told_state && n < max)
                loop_ready(s->services->loop, s->services->wake);
        if (s->stopping && !s->revoking && n < max) {
                s->revoking = true;
                events[n++] = (struct pull_event){ .kind = PULL_REVOKING, .give_up_at = USEC_NEVER };
        }
        if (s->revoked && !s->told_closed && n < max) {
                s->told_closed = true;
                events[n++] = (struct pull_event){ .kind = PULL_CLOSED };
        }
        return n;
}

static void file_credit(struct source *source, uint32_t track UNUSED, uint32_t records, size_t bytes)
{
        struct letters_file *s = letters_file_of(source);

        s->credit += records;
        s->bytes += (int64_t)bytes;
        loop_ready(s->services->loop, s->services->wake);
}

static void file_settle(struct source *source, struct record *r, enum outcome outcome)
{
        struct letters_file *s = letters_file_of(source);
        struct letter *l = CONTAINER_OF(r, struct letter, record);

        s->released = s->released || outcome == OUTCOME_RELEASED;
        s->lent--;
        free(l->text);
        free(l);
}

/* Positions are lines, counted from one. */
static void file_commit(struct source *source, uint32_t track UNUSED, uint64_t next)
{
        struct letters_file *s = letters_file_of(source);

        s->done = next - 1;
        if (s->ended && s->lent == 0 && !s->released)
                s->done = s->lines; /* only empty lines can follow */
        keep_place(s);
}

static void file_stop(struct source *source)
{
        struct letters_file *s = letters_file_of(source);

        s->stopping = true;
        loop_ready(s->services->loop, s->services->wake);
}

static void file_revoked(struct source *source, uint32_t track UNUSED)
{
        struct letters_file *s = letters_file_of(source);

        s->revoked = true;
        loop_ready(s->services->loop, s->services->wake);
}

static usec file_deadline(const struct source *s UNUSED) { return USEC_NEVER; }
static bool file_detach(struct source *s UNUSED, struct record *r UNUSED) { return true; }
static int64_t file_lag(const struct source *s UNUSED) { return -1; }
static bool file_drained(const struct source *source)
{
        const struct letters_file *s = letters_file_of(source);

        return (s->ended || s->failed) && s->lent == 0;
}
static void file_origin(const struct trigger *t UNUSED, struct buf *b) { buf_text(b, "dead letters"); }

static const struct pull_ops pull = {
        .poll = file_poll,
        .deadline = file_deadline,
        .credit = file_credit,
        .release = file_settle,
        .detach = file_detach,
        .commit = file_commit,
        .revoked = file_revoked,
        .lag = file_lag,
        .drained = file_drained,
        .stop = file_stop,
        .free = file_free,
};
const struct source_kind replay_file_source = {
        .name = "replay",
        .shape = &letter_shape,
        .pull = &pull,
        .open = file_open,
        .origin = file_origin,
};
