#include "table.h"

#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/outlet.h"

static size_t reserved; /* lines at the top; 0: none */

bool table_is_terminal(void)
{
        const char *kind = getenv("TERM");

        return isatty(STDOUT_FILENO) && kind && strcmp(kind, "dumb") != 0;
}

static const char *state_of(const struct pipeline_status *s)
{
        if (s->source == SOURCE_FAILED || s->source == SOURCE_DISCONNECTED ||
            s->source == SOURCE_CONNECTING || s->source == SOURCE_STANDBY)
                return source_state_name(s->source);
        return pipeline_delivery(s);
}

static const char *reason_of(const struct pipeline_status *s)
{
        return s->source_text[0] ? s->source_text : s->delivery_text;
}

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
        const struct source_kind *d = trigger_source(t);

        buf_printf(b, "%s ", d->name);
        d->origin(t, b);
}

/* A cell of so many characters, cut with a ~. Control characters are replaced. */
static void cell(struct buf *b, struct str text, size_t width)
{
        size_t at = 0, characters = 0, all = 0;

        for (size_t i = 0; i < text.n; i++)
                all += ((unsigned char)text.p[i] & 0xc0) != 0x80;
        if (!width)
                return;
        while (at < text.n && characters < (all > width ? width - 1 : width)) {
                unsigned char c = (unsigned char)text.p[at++];

                buf_char(b, c < ' ' || c == 0x7f ? ' ' : (char)c);
                while (at < text.n && ((unsigned char)text.p[at] & 0xc0) == 0x80)
                        buf_char(b, text.p[at++]);
                characters++;
        }
        if (all > width) {
                buf_char(b, '~');
                characters++;
        }
        for (; characters < width; characters++)
                buf_char(b, ' ');
        buf_char(b, ' ');
}

enum { STATE = 12, COUNT = 9, LAG = 7, LAST = 13 };
struct widths {
        size_t name, source, reason;
};

/* The last column of the terminal stays empty, so that no row wraps. On a narrow terminal the columns share
 * what is left; if source and reason do not both fit, the reason is shown. */
static struct widths widths_for(size_t columns)
{
        const size_t fixed = STATE + COUNT + LAG + LAST + 4;
        size_t left = columns > fixed + 24 ? columns - fixed - 1 : 24;
        struct widths w = { .name = MIN_OF(left * 2 / 5, (size_t)28) };

        left -= w.name + 1;
        w.source = MIN_OF(left - 1, (size_t)26);
        left -= w.source + 1;
        w.reason = left > 20 ? left - 1 : 0;
        if (!w.reason)
                w.source += left;
        return w;
}

static void header(struct buf *b, const struct widths *w)
{
        cell(b, STR("TRIGGER"), w->name);
        cell(b, STR("SOURCE"), w->source);
        cell(b, STR("STATE"), STATE);
        cell(b, STR("EVENTS"), COUNT);
        cell(b, STR("LAG"), LAG);
        cell(b, STR("LAST DELIVERY"), LAST);
}

void table_row(struct buf *b, const struct table_row *r, size_t columns)
{
        BUF_AT_END struct buf name = BUF_INIT(1024), source = BUF_INIT(4096), lag = BUF_INIT(32),
                              last = BUF_INIT(64), count = BUF_INIT(32);
        struct widths w = widths_for(columns);
        struct str reason = str_of(reason_of(&r->status));

        buf_printf(&name, "%s/%s", r->trigger->namespace_, r->trigger->name);
        source_of(&source, r->trigger);
        if (r->status.lag >= 0)
                buf_int(&lag, r->status.lag);
        else
                buf_text(&lag, "-");
        buf_int(&count, (int64_t)r->status.stats.accepted);
        age(&last, r->status.last_delivery);
        cell(b, buf_view(&name), w.name);
        cell(b, reason.n && !w.reason ? reason : buf_view(&source), w.source);
        cell(b, str_of(state_of(&r->status)), STATE);
        cell(b, buf_view(&count), COUNT);
        cell(b, buf_view(&lag), LAG);
        cell(b, buf_view(&last), LAST);
        cell(b, reason, w.reason);
}

static struct outlet outlet = { .fd = STDOUT_FILENO };

/* One write, if it is short enough, so that no log line comes in between. */
static bool put(const struct buf *b)
{
        (void)fflush(stdout);
        return outlet_write(&outlet, buf_view(b));
}

static struct winsize window;
static size_t reserved_for; /* rows */

/* Sets the scrolling region below the table, for the present size of the window. true: the size has changed.
 */
static bool reserve(size_t rows, struct buf *b)
{
        struct winsize size = { .ws_row = 24, .ws_col = 80 };

        (void)ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
        if (!size.ws_row || !size.ws_col)
                size = (struct winsize){ .ws_row = 24, .ws_col = 80 };
        if (reserved && rows == reserved_for && size.ws_row == window.ws_row && size.ws_col == window.ws_col)
                return false;
        window = size;
        reserved_for = rows;
        reserved = rows + 2;
        if (reserved + 4 > size.ws_row)
                reserved = size.ws_row > 8 ? (size_t)size.ws_row - 4 : 4;
        buf_printf(b, "\033[2J\033[%zu;%ur\033[%zu;1H", reserved + 1, size.ws_row, reserved + 1);
        return true;
}

void table_begin(void)
{
        BUF_AT_END struct buf b = BUF_INIT(1024);

        (void)reserve(0, &b);
        (void)put(&b);
}

void table_draw(const struct table_row *rows, size_t n, usec now UNUSED)
{
        BUF_AT_END struct buf b = BUF_INIT((size_t)1 << 20);
        struct widths w;

        (void)reserve(n, &b);
        w = widths_for(window.ws_col);
        /* Save the cursor and switch wrapping off. */
        buf_text(&b, "\0337\033[?7l\033[1;1H\033[1m\033[2K");
        header(&b, &w);
        buf_text(&b, "\033[0m");
        for (size_t i = 0; i < n && i + 2 < reserved; i++) {
                buf_printf(&b, "\033[%zu;1H\033[2K", i + 2);
                table_row(&b, &rows[i], window.ws_col);
        }
        buf_text(&b, "\033[?7h\0338");
        (void)put(&b);
}

bool table_line(const struct table_row *r, usec now UNUSED)
{
        BUF_AT_END struct buf b = BUF_INIT(65536), source = BUF_INIT(4096);

        source_of(&source, r->trigger);
        buf_printf(&b, "%s/%s  " STR_FMT "  %s  events %llu", r->trigger->namespace_, r->trigger->name,
                   STR_ARG(buf_view(&source)), state_of(&r->status),
                   (unsigned long long)r->status.stats.accepted);
        if (r->status.lag >= 0)
                buf_printf(&b, "  lag %lld", (long long)r->status.lag);
        if (r->status.last_delivery) {
                buf_text(&b, "  last delivery ");
                age(&b, r->status.last_delivery);
        }
        if (reason_of(&r->status)[0])
                buf_printf(&b, "  %s", reason_of(&r->status));
        buf_char(&b, '\n');
        return put(&b);
}

void table_end(void)
{
        if (!reserved)
                return;
        (void)printf("\033[r\033[999;1H\n");
        (void)fflush(stdout);
}
