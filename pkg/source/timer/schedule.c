#include "source/timer/schedule.h"

/* More days than that are not left out in a row. */
enum { DAYS_OUT_MOST = 9 * 366, TICKS_OUT_MOST = 100000 };

/* ---- days that are left out ---------------------------------------------- */

static bool is_leap(int64_t year) { return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0); }

static bool is_date(int64_t year, int64_t month, int64_t day)
{
        static const int days[] = { 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };

        return month >= 1 && month <= 12 && day >= 1 && day <= days[month - 1] &&
               (month != 2 || day < 29 || is_leap(year));
}

static bool digits(struct str s, size_t n, int64_t *out)
{
        return s.n == n && s.p[0] >= '0' && s.p[0] <= '9' && str_to_int64(s, out);
}

/* YYYY-MM-DD or MM-DD. */
static bool parse_day(struct str s, bool *yearly, int64_t *out)
{
        int64_t year = 2000, month, day; /* a leap year: each has its 29th of February left out, or none */
        struct str part;

        *yearly = s.n == 5;
        if (!*yearly && (part = str_cut(&s, '-'), !digits(part, 4, &year)))
                return false;
        part = str_cut(&s, '-');
        if (!digits(part, 2, &month) || !digits(s, 2, &day) || !is_date(year, month, day))
                return false;
        *out = *yearly ? month * 100 + day : days_from_civil(year, (int)month, (int)day);
        return true;
}

bool days_out_parse(struct str text, struct days_out *out)
{
        struct str last = text, first = str_cut(&last, '/');
        struct days_out d;
        bool yearly;

        if (!parse_day(first, &d.yearly, &d.first))
                return false;
        d.last = d.first;
        if (first.n != text.n &&
            (!parse_day(last, &yearly, &d.last) || yearly != d.yearly || (!yearly && d.last < d.first)))
                return false;
        *out = d;
        return true;
}

int schedule_leave_out(struct schedule *s, const struct strings *list, struct error *err)
{
        if (!list->n)
                return 0;
        s->out = calloc(list->n, sizeof(*s->out));
        if (!s->out)
                return error_memory(err);
        for (s->out_n = 0; s->out_n < list->n; s->out_n++)
                if (!days_out_parse(str_of(list->list[s->out_n]), &s->out[s->out_n]))
                        return error_set(err, ERROR_INVALID, "exclude: \"%s\" is no day",
                                         list->list[s->out_n]);
        return 0;
}

void schedule_done(struct schedule *s)
{
        s->zone = zone_free(s->zone);
        free(TAKE(s->out));
        s->out_n = 0;
}

static int64_t day_of(const struct schedule *s, usec at)
{
        int64_t seconds = at / USEC_SEC - (at % USEC_SEC < 0),
                local = seconds + zone_offset(s->zone, seconds);

        return local / 86400 - (local % 86400 < 0);
}

/* Is the day left out? The last day and the first day of those around it that are, too. */
static bool is_out(const struct schedule *s, int64_t day, int64_t *first, int64_t *last)
{
        int64_t year, date;
        int month, of_month;

        *first = *last = day;
        civil_from_days(day, &year, &month, &of_month);
        date = month * 100 + of_month;
        for (size_t i = 0; i < s->out_n; i++) {
                const struct days_out *d = &s->out[i];
                int64_t at = d->yearly ? date : day;

                if (d->first <= d->last ? at < d->first || at > d->last : at < d->first && at > d->last)
                        continue;
                if (!d->yearly) {
                        *first = d->first;
                        *last = d->last;
                }
                return true;
        }
        return false;
}

/* The earliest instant at which a day may begin in the zone, or the latest; sec. Clocks change by less than a
 * day, within the days around it. */
static int64_t day_begins(const struct schedule *s, int64_t day, bool latest)
{
        int64_t midnight = day * 86400, before = zone_offset(s->zone, midnight - 172800),
                after = zone_offset(s->zone, midnight + 172800);

        return midnight - (latest ? MIN_OF(before, after) : MAX_OF(before, after));
}

/* ---- ticks ---------------------------------------------------------------- */

usec schedule_next(const struct schedule *s, usec after)
{
        usec at = s->start ? MAX_OF(after, s->start - 1) : after;
        int64_t days = 0, seen = INT64_MIN;

        for (int ticks = 0; ticks < TICKS_OUT_MOST && days < DAYS_OUT_MOST; ticks++) {
                int64_t first, last, day;

                at = cron_next(&s->cron, s->zone, at);
                if (at == USEC_NEVER || (s->end && at >= s->end))
                        return USEC_NEVER;
                if (!s->out_n)
                        return at;
                day = day_of(s, at);
                if (!is_out(s, day, &first, &last))
                        return at;
                days += day != seen;
                seen = day;
                /* Where that is no later, the clock changes that night: from tick to tick then. */
                at = MAX_OF(at, day_begins(s, last + 1, false) * USEC_SEC - 1);
        }
        return USEC_NEVER;
}

usec schedule_latest(const struct schedule *s, usec after, usec until)
{
        int64_t days = 0, seen = INT64_MIN;

        if (s->start)
                after = MAX_OF(after, s->start - 1);
        if (s->end)
                until = MIN_OF(until, s->end - 1);
        for (int ticks = 0; ticks < TICKS_OUT_MOST && days < DAYS_OUT_MOST && until > after; ticks++) {
                usec at = cron_latest(&s->cron, s->zone, after, until);
                int64_t first, last, day;

                if (at == USEC_NEVER || !s->out_n)
                        return at;
                day = day_of(s, at);
                if (!is_out(s, day, &first, &last))
                        return at;
                days += day != seen;
                seen = day;
                until = MIN_OF(at - 1, day_begins(s, first, true) * USEC_SEC - 1);
        }
        return USEC_NEVER;
}
