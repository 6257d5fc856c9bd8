#include "table.h"

#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

static size_t reserved;

bool table_is_terminal(void)
{
        const char *kind = getenv("TERM");

        return isatty(STDOUT_FILENO) && kind && strcmp(kind, "dumb") != 0;
}

static const char *state_of(const struct pipeline_status *s)
{
        if (s->source == SOURCE_FAILED || s->source == SOURCE_DISCONNECTED || s->source == SOURCE_CONNECTING || s->source == SOURCE_STANDBY)
                return source_state_name(s->source);
        return delivery_state_name(s->delivery);
}

static const char *reason_of(const struct pipeline_status *s) { return s->source_text[0] ? s->source_text : s->delivery_text; }

static void age(struct buf *b, usec wall)
{
        if (!wall) {
                buf_text(b, "-");
                return;
        }
        duration_short(b, clock_wall(&system_clock) - wall);
        buf_text(b, " ago");
}

static void source_of(struct buf *b, const struct trigger *t)
{
        const struct driver *d = trigger_driver(t);

        buf_printf(b, "%s ", d->name);
        d->origin(t, b);
}

/* A cell of a width, cut with an ellipsis; what came from outside steers no terminal. */
static void cell(struct buf *b, struct str text, size_t width)
{
        size_t n = MIN_OF(text.n, width);

        for (size_t i = 0; i < n; i++)
                buf_char(b, (unsigned char)text.p[i] < ' ' || text.p[i] == 0x7f ? ' ' : text.p[i]);
        if (text.n > width && n)
                b->p[b->n - 1] = '~';
        for (; n < width; n++)
                buf_char(b, ' ');
        buf_char(b, ' ');
}

static void row(struct buf *b, const struct table_row *r)
{
        BUF_AT_END struct buf name = BUF_INIT(1024), source = BUF_INIT(4096), lag = BUF_INIT(32), last = BUF_INIT(64), count = BUF_INIT(32);

        buf_printf(&name, "%s/%s", r->trigger->namespace_, r->trigger->name);
        source_of(&source, r->trigger);
        if (r->status.lag >= 0)
                buf_int(&lag, r->status.lag);
        else
                buf_text(&lag, "-");
        buf_int(&count, (int64_t)r->status.stats.accepted);
        age(&last, r->status.last_delivery);
        cell(b, buf_view(&name), 28);
        cell(b, buf_view(&source), 26);
        cell(b, str_of(state_of(&r->status)), 12);
        cell(b, buf_view(&count), 9);
        cell(b, buf_view(&lag), 7);
        cell(b, buf_view(&last), 13);
        cell(b, str_of(reason_of(&r->status)), 60);
}

void table_begin(size_t rows)
{
        struct winsize size = { .ws_row = 24 };

        (void)ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
        reserved = rows + 2;
        if (reserved + 4 > size.ws_row)
                reserved = size.ws_row > 8 ? (size_t)size.ws_row - 4 : 4;
        /* Clear, scroll only beneath the table, and go there. */
        (void)printf("\033[2J\033[%zu;%ur\033[%zu;1H", reserved + 1, size.ws_row, reserved + 1);
        (void)fflush(stdout);
}

void table_draw(const struct table_row *rows, size_t n, usec now UNUSED)
{
        BUF_AT_END struct buf b = BUF_INIT((size_t)1 << 20);

        buf_text(&b, "\0337\033[1;1H\033[1m\033[2K");
        cell(&b, STR("TRIGGER"), 28);
        cell(&b, STR("SOURCE"), 26);
        cell(&b, STR("STATE"), 12);
        cell(&b, STR("EVENTS"), 9);
        cell(&b, STR("LAG"), 7);
        cell(&b, STR("LAST DELIVERY"), 13);
        buf_text(&b, "\033[0m");
        for (size_t i = 0; i < n && i + 2 < reserved; i++) {
                buf_printf(&b, "\033[%zu;1H\033[2K", i + 2);
                row(&b, &rows[i]);
        }
        buf_text(&b, "\0338");
        (void)fwrite(b.p, 1, b.n, stdout);
        (void)fflush(stdout);
}

void table_line(const struct table_row *r, usec now UNUSED)
{
        BUF_AT_END struct buf b = BUF_INIT(65536), source = BUF_INIT(4096);

        source_of(&source, r->trigger);
        buf_printf(&b, "%s/%s  " STR_FMT "  %s  events %llu", r->trigger->namespace_, r->trigger->name, STR_ARG(buf_view(&source)), state_of(&r->status),
                   (unsigned long long)r->status.stats.accepted);
        if (r->status.lag >= 0)
                buf_printf(&b, "  lag %lld", (long long)r->status.lag);
        if (r->status.last_delivery) {
                buf_text(&b, "  last delivery ");
                age(&b, r->status.last_delivery);
        }
        if (reason_of(&r->status)[0])
                buf_printf(&b, "  %s", reason_of(&r->status));
        (void)printf(STR_FMT "\n", STR_ARG(buf_view(&b)));
        (void)fflush(stdout);
}

void table_end(void)
{
        if (!reserved)
                return;
        (void)printf("\033[r\033[999;1H\n");
        (void)fflush(stdout);
}
