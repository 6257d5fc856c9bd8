#include "log/log.h"

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/outlet.h"
#include "json/writer.h"

/* Set once before threads start; read by all. */
static struct {
        enum log_level least;
        enum log_format format;
} log_config = { LOG_INFO, LOG_LOGFMT };

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static struct outlet log_outlet = { .fd = STDERR_FILENO }; /* under the lock */

static const char *const level_names[LOG_LEVEL_MAX] = { "debug", "info", "warn", "error" };

void log_setup(enum log_level least, enum log_format format)
{
        log_config.least = least;
        log_config.format = format;
}

bool log_enabled(enum log_level level) { return level >= log_config.least; }
const char *log_level_name(enum log_level level) { return level_names[level]; }

bool log_level_parse(struct str text, enum log_level *out)
{
        for (int i = 0; i < LOG_LEVEL_MAX; i++)
                if (str_equal_nocase(text, str_of(level_names[i]))) {
                        *out = (enum log_level)i;
                        return true;
                }
        return false;
}

/* Terminals obey more than what JSON escapes: some characters that begin with C2, D8 and E2, too. */
static void logfmt_value(struct buf *b, struct str s)
{
        size_t from = b->n;
        bool plain = s.n > 0;

        for (size_t i = 0; i < s.n && plain; i++)
                plain = (unsigned char)s.p[i] > ' ' && !memchr("\"=\\\x7f\xc2\xd8\xe2", s.p[i], 7);
        if (plain) {
                buf_str(b, s);
                return;
        }
        buf_char(b, '"');
        writer_escape(b, s);
        if (b->failed)
                return;
        text_plain(b->p + from);
        b->n = from + strlen(b->p + from);
        buf_char(b, '"');
}

static void field_text(struct buf *b, const struct log_field *f)
{
        if (f->kind == LOG_FIELD_STR)
                buf_str(b, f->text);
        else if (f->kind == LOG_FIELD_INT)
                buf_int(b, f->number);
        else
                duration_format(b, f->number);
}

struct line {
        struct str time;
        enum log_level level;
        const char *message;
        const struct log_scope *scope;
        const struct log_field *fields;
        size_t n;
};

static void logfmt_fields(struct buf *b, const struct log_field *fields, size_t n)
{
        for (size_t i = 0; i < n; i++) {
                BUF_AT_END struct buf value = BUF_INIT(65536);

                field_text(&value, &fields[i]);
                buf_printf(b, " %s=", fields[i].key);
                logfmt_value(b, buf_view(&value));
        }
}

static void format_logfmt(struct buf *b, const struct line *l)
{
        buf_printf(b, "time=" STR_FMT " level=%s msg=", STR_ARG(l->time), level_names[l->level]);
        logfmt_value(b, str_of(l->message));
        if (l->scope)
                logfmt_fields(b, l->scope->fields, COUNT_OF(l->scope->fields));
        logfmt_fields(b, l->fields, l->n);
        buf_char(b, '\n');
}

static void json_fields(struct writer *w, const struct log_field *fields, size_t n)
{
        for (size_t i = 0; i < n; i++) {
                writer_key(w, str_of(fields[i].key));
                if (fields[i].kind == LOG_FIELD_STR)
                        writer_string(w, fields[i].text);
                else if (fields[i].kind == LOG_FIELD_INT)
                        writer_int(w, fields[i].number);
                else
                        writer_double(w, (double)fields[i].number / 1e6);
        }
}

static void format_json(struct buf *b, const struct line *l)
{
        struct writer w;

        writer_init(&w, b);
        writer_object(&w);
        writer_member_string(&w, "time", l->time);
        writer_member_text(&w, "level", level_names[l->level]);
        writer_member_text(&w, "msg", l->message);
        if (l->scope)
                json_fields(&w, l->scope->fields, COUNT_OF(l->scope->fields));
        json_fields(&w, l->fields, l->n);
        writer_object_end(&w);
        buf_char(b, '\n');
}

struct log_scope log_scope_of(const char *namespace_, const char *trigger)
{
        return (struct log_scope){ { LOG_S("namespace", namespace_), LOG_S("trigger", trigger) } };
}

static void format(struct buf *out, struct line *line)
{
        BUF_AT_END struct buf time = BUF_INIT(64);

        time_format(&time, clock_wall(&system_clock) / USEC_MSEC * USEC_MSEC);
        line->time = buf_view(&time);
        if (log_config.format == LOG_JSON)
                format_json(out, line);
        else
                format_logfmt(out, line);
}

/* That lines are missing is said before the first one that finds room again. As long as this does not, it
 * counts for the line that it stands before. */
static bool say_dropped(void)
{
        BUF_AT_END struct buf text = BUF_INIT(1024);
        uint64_t dropped = log_outlet.dropped;
        struct log_field lines = LOG_I("lines", dropped);

        if (!dropped)
                return true;
        format(&text, &(struct line){ .level = LOG_WARN,
                                      .message = "lines of the log were dropped: nobody read them",
                                      .fields = &lines,
                                      .n = 1 });
        if (text.failed || !outlet_write(&log_outlet, buf_view(&text)))
                return false;
        log_outlet.dropped = 0;
        return true;
}

void log_write(const struct log_scope *scope, enum log_level level, const char *message,
               const struct log_field *fields, size_t n)
{
        BUF_AT_END struct buf text = BUF_INIT(65536);

        if (!log_enabled(level))
                return;
        format(&text, &(struct line){
                              .level = level, .message = message, .scope = scope, .fields = fields, .n = n });
        if (text.failed)
                return; /* nowhere to say so */
        (void)pthread_mutex_lock(&log_lock);
        if (say_dropped())
                (void)outlet_write(&log_outlet, buf_view(&text));
        (void)pthread_mutex_unlock(&log_lock);
}
