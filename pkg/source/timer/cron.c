#include "source/timer/cron.h"

static const char *const month_names[] = { "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL",
                                           "AUG", "SEP", "OCT", "NOV", "DEC", NULL };
static const char *const day_names[] = { "SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT", NULL };

struct field {
        const char *name;
        int min, max;
        const char *const *names;
        bool question;
        bool kubernetes; /* numbers and steps of any length, as robfig/cron takes them */
        bool day;        /* of Kubernetes' form: a star with a step restricts the day */
        int last;        /* where * and N/step end, if not at max; 0: there */
};
static const struct field fields[] = {
        { .name = "second", .max = 59 },
        { .name = "minute", .max = 59 },
        { .name = "hour", .max = 23 },
        { .name = "day of month", .min = 1, .max = 31, .question = true },
        { .name = "month", .min = 1, .max = 12, .names = month_names },
        { .name = "day of week", .max = 6, .names = day_names, .question = true },
};

/* Kubernetes', without seconds. A 7 is Sunday where it is written; no star and no step comes to it. */
static const struct field cron_fields[] = {
        ROW(.name = "minute", .max = 59, .question = true, .kubernetes = true),
        ROW(.name = "hour", .max = 23, .question = true, .kubernetes = true),
        ROW(.name = "day of month", .min = 1, .max = 31, .question = true, .kubernetes = true, .day = true),
        ROW(.name = "month", .min = 1, .max = 12, .names = month_names, .question = true, .kubernetes = true),
        ROW(.name = "day of week", .max = 7, .names = day_names, .question = true, .kubernetes = true,
            .day = true, .last = 6),
};

static bool parse_value(const struct field *f, struct str s, int *out)
{
        int64_t v;

        for (int i = 0; f->names && f->names[i]; i++)
                if (str_equal_nocase(s, str_of(f->names[i]))) {
                        *out = f->min + i;
                        return true;
                }
        if (!str_to_int64(s, &v) || (s.n > 2 && !f->kubernetes) || v < f->min || v > f->max)
                return false;
        *out = (int)v;
        return true;
}

/* One item of a list: * | a | a-b, each with /step. */
static bool parse_item(const struct field *f, struct str item, uint64_t *bits, bool *any)
{
        struct str step_text = item, range = str_cut(&step_text, '/');
        bool has_step = range.n != item.n;
        int from, to, end = f->last ? f->last : f->max;
        int64_t step = 1;

        if (has_step && (!str_to_int64(step_text, &step) || step < 1 || (step > f->max && !f->kubernetes)))
                return false;
        step = MIN_OF(step, (int64_t)64); /* beyond every field: the first value alone */
        if (str_is(range, "*") || (f->question && str_is(range, "?"))) {
                from = f->min;
                to = end;
                *any = *any || step == 1 || !f->day;
        } else {
                struct str last = range, first = str_cut(&last, '-');

                if (!parse_value(f, first, &from))
                        return false;
                to = has_step ? MAX_OF(from, end) : from;
                if (first.n != range.n && (!parse_value(f, last, &to) || to < from))
                        return false;
        }
        for (int v = from; v <= to; v += (int)step)
                *bits |= (uint64_t)1 << v;
        return true;
}

/* Where in the schedule it stands. */
static void say_where(struct buf *why, const char *begin, const char *at)
{
        buf_printf(why, " (at character %d)", (int)(at - begin) + 1);
}

/* begin: of the whole schedule. */
static int parse_field(const struct field *f, struct str text, const char *begin, uint64_t *bits, bool *any,
                       struct buf *why)
{
        struct str rest = text;
        bool ends_open = text.p[text.n - 1] == ',';

        *bits = 0;
        *any = false;
        while (rest.n) {
                struct str item = str_cut(&rest, ',');

                if (!parse_item(f, item, bits, any) || (ends_open && rest.n == 0)) {
                        buf_printf(
                                why,
                                "\"" STR_FMT
                                "\" is no %s: expected %d-%d%s, *,%s a list, a range or a step such as */5",
                                STR_ARG(item), f->name, f->min, f->max, f->names ? " or a name" : "",
                                f->question ? " ?," : "");
                        say_where(why, begin, item.p);
                        return -1;
                }
        }
        return 0;
}

static int parse_rate(struct str s, const char *begin, struct cron *c, struct buf *why)
{
        usec period;

        if (!duration_parse(s, &period) || period <= 0) {
                buf_printf(why,
                           "\"" STR_FMT
                           "\" is no duration: expected a number and a unit such as 30s, 3m, 1h30m or 1d",
                           STR_ARG(s));
                say_where(why, begin, s.p);
                return -1;
        }
        if (period < 100 * USEC_MSEC) {
                buf_text(why, "a period must be at least 100ms");
                say_where(why, begin, s.p);
                return -1;
        }
        if (period > 9 * 365 * USEC_DAY) {
                buf_text(why, "a period must be at most 9 years (78840h)");
                say_where(why, begin, s.p);
                return -1;
        }
        c->period = period;
        return 0;
}

/* The words of a schedule, which are as many as the array holds, or more. */
static size_t split(struct str s, struct str parts[7])
{
        size_t n = 0;

        while ((s = str_trim(s)).n && n < 7) {
                size_t length = 0;

                while (length < s.n && s.p[length] != ' ' && s.p[length] != '\t')
                        length++;
                parts[n++] = (struct str){ s.p, length };
                s = (struct str){ s.p + length, s.n - length };
        }
        return n;
}

struct parsed {
        uint64_t bits[6];
        bool any[6];
};

static struct cron cron_of(const struct parsed *p)
{
        return (struct cron){ .seconds = p->bits[0],
                              .minutes = p->bits[1],
                              .hours = (uint32_t)p->bits[2],
                              .days = (uint32_t)p->bits[3],
                              .months = (uint32_t)p->bits[4],
                              .weekdays = (uint8_t)p->bits[5],
                              .any_hour = p->any[2],
                              .any_day = p->any[3],
                              .any_weekday = p->any[5] };
}

/* Kubernetes' five fields, whose second is 0. */
static int parse_five(const struct str parts[5], const char *begin, struct cron *c, struct buf *why)
{
        struct parsed p = { .bits = { 1 } };

        for (size_t i = 0; i < 5; i++)
                if (parse_field(&cron_fields[i], parts[i], begin, &p.bits[i + 1], &p.any[i + 1], why) < 0)
                        return -1;
        p.bits[5] = (p.bits[5] | p.bits[5] >> 7) & 0x7f; /* 7 is Sunday, too */
        *c = cron_of(&p);
        return 0;
}

static bool has(struct str s, char c) { return memchr(s.p, c, s.n) != NULL; }

/* Five fields of which the first alone has a step mean every few seconds here, and every few minutes to who
 * learnt cron elsewhere. */
static bool reads_otherwise(const struct str parts[5])
{
        BUF_AT_END struct buf why = BUF_INIT(1024);
        struct cron c;

        return has(parts[0], '/') && !has(parts[1], '/') && !has(parts[2], '/') && !has(parts[3], '/') &&
               !has(parts[4], '/') && parse_five(parts, parts[0].p, &c, &why) == 0;
}

static void both_readings(struct str s, struct buf *why)
{
        buf_printf(why,
                   "five fields are second minute hour day-of-month month here, as in FunctionGraph, and "
                   "minute hour day-of-month month day-of-week in Kubernetes: for this one write "
                   "six, \"" STR_FMT " *\"; for that one \"0 " STR_FMT "\", or put it into cron",
                   STR_ARG(s), STR_ARG(s));
}

static int parse_cron(struct str s, const char *begin, struct cron *c, struct buf *why)
{
        struct parsed p = { .bits[5] = 0x7f, .any[5] = true };
        struct str parts[7];
        size_t n = split(s, parts);

        if (n != 5 && n != 6) {
                buf_printf(why,
                           "a cron schedule has 5 or 6 fields (second minute hour day-of-month month "
                           "[day-of-week]), this one has %zu%s",
                           n, n > 6 ? " or more" : "");
                if (n > 6)
                        say_where(why, begin, parts[6].p);
                return -1;
        }
        for (size_t i = 0; i < n; i++)
                if (parse_field(&fields[i], parts[i], begin, &p.bits[i], &p.any[i], why) < 0) {
                        if (n == 5 && i == 4) {
                                buf_text(why, "; ");
                                both_readings(s, why);
                        }
                        return -1;
                }
        if (n == 5 && reads_otherwise(parts)) {
                buf_printf(why, "\"" STR_FMT "\" has two meanings: ", STR_ARG(s));
                both_readings(s, why);
                return -1;
        }
        *c = cron_of(&p);
        return 0;
}

int cron_parse_kubernetes(struct str s, struct cron *out, struct buf *why)
{
        static const struct {
                struct str name, means;
        } words[] = {
                { { "@yearly", 7 }, { "0 0 1 1 *", 9 } },  { { "@annually", 9 }, { "0 0 1 1 *", 9 } },
                { { "@monthly", 8 }, { "0 0 1 * *", 9 } }, { { "@weekly", 7 }, { "0 0 * * 0", 9 } },
                { { "@daily", 6 }, { "0 0 * * *", 9 } },   { { "@midnight", 9 }, { "0 0 * * *", 9 } },
                { { "@hourly", 7 }, { "0 * * * *", 9 } },
        };
        const char *begin = s.p;
        struct str parts[7];
        struct cron c;
        size_t n;

        s = str_trim(s);
        for (size_t i = 0; i < COUNT_OF(words); i++)
                if (str_equal(s, words[i].name))
                        s = words[i].means;
        if (str_starts(s, STR("TZ=")) || str_starts(s, STR("CRON_TZ="))) {
                buf_text(why, "names a time zone: write timeZone instead");
                return -1;
        }
        n = split(s, parts);
        if (n != 5) {
                buf_printf(why,
                           "has %zu%s fields: expected five, minute hour day-of-month month day-of-week, or "
                           "@hourly, @daily, @weekly, @monthly or @yearly",
                           n, n > 6 ? " or more" : "");
                if (n > 5)
                        say_where(why, begin, parts[5].p);
                return -1;
        }
        if (parse_five(parts, begin, &c, why) < 0)
                return -1;
        *out = c;
        return 0;
}

int cron_parse(struct str s, struct cron *out, struct str *zone, struct buf *why)
{
        const char *begin = s.p;
        struct cron c = { 0 };
        int r;

        s = str_trim(s);
        *zone = (struct str){ 0 };
        if (str_starts(s, STR("CRON_TZ="))) {
                s = (struct str){ s.p + 8, s.n - 8 };
                *zone = str_cut(&s, ' ');
                s = str_trim(s);
        }
        if (s.n == 0) {
                buf_text(why, "is empty: write a rate such as 3m, @every 1h30m, or a cron schedule");
                return -1;
        }
        if (str_starts(s, STR("@every ")))
                r = parse_rate(str_trim((struct str){ s.p + 7, s.n - 7 }), begin, &c, why);
        else if (s.p[0] == '@') {
                buf_text(why, "of the @ words only @every is known, as in @every 1h30m");
                r = -1;
        } else if (!memchr(s.p, ' ', s.n) && !memchr(s.p, '\t', s.n) && s.p[0] >= '0' && s.p[0] <= '9')
                r = parse_rate(s, begin, &c, why);
        else
                r = parse_cron(s, begin, &c, why);
        if (r == 0)
                *out = c;
        return r;
}

/* ---- the next run ------------------------------------------------------- */

static bool day_matches(const struct cron *c, int64_t day)
{
        int64_t year;
        int month, date, weekday = (int)(((day + 4) % 7 + 7) % 7);
        bool by_date, by_weekday;

        civil_from_days(day, &year, &month, &date);
        if (!(c->months >> month & 1))
                return false;
        by_date = c->days >> date & 1;
        by_weekday = c->weekdays >> weekday & 1;
        /* As cron has it: with both restricted, either suffices. */
        return c->any_day || c->any_weekday ? by_date && by_weekday : by_date || by_weekday;
}

/* The first instant after `after` at which the zone's clock shows local or, in a gap, the instant at which
 * the gap ends; -1: none. */
static int64_t instant(const struct cron *c, const struct zone *z, int64_t local, int64_t after)
{
        int64_t earlier = zone_offset(z, local - 86400 * 2), later = zone_offset(z, local + 86400 * 2);
        int64_t first = local - MAX_OF(earlier, later), second = local - MIN_OF(earlier, later);
        bool at_first = zone_offset(z, first) == local - first,
             at_second = zone_offset(z, second) == local - second;

        if (!at_first && !at_second) {
                /* Nothing shows it: the clock jumps over it between the two. */
                int64_t low = first, high = second, before = zone_offset(z, low);

                while (high - low > 1) {
                        int64_t middle = low + (high - low) / 2;

                        if (zone_offset(z, middle) == before)
                                low = middle;
                        else
                                high = middle;
                }
                return high > after ? high : -1;
        }
        if (at_first && first > after)
                return first;
        /* The second time a clock shows it counts only for schedules that are intervals, or where there was
         * no first. */
        return at_second && second > after && (!at_first || second == first || c->any_hour) ? second : -1;
}

/* The best run on a local day, or INT64_MAX. */
static int64_t on_day(const struct cron *c, const struct zone *z, int64_t day, int64_t after)
{
        int64_t earlier = zone_offset(z, day * 86400 - 172800), later = zone_offset(z, day * 86400 + 259200),
                best = INT64_MAX;
        /* A local time comes no earlier than with the one offset and no later than with the other, which
         * spares most days most of their seconds. */
        int64_t least = MIN_OF(earlier, later), most = MAX_OF(earlier, later);

        for (int h = 0; h < 24; h++) {
                int64_t hour = day * 86400 + h * 3600;

                if (!(c->hours >> h & 1) || hour + 3599 - least <= after)
                        continue;
                for (int m = 0; m < 60; m++) {
                        int64_t minute = hour + m * 60;

                        if (!(c->minutes >> m & 1) || minute + 59 - least <= after)
                                continue;
                        for (int s = 0; s < 60; s++) {
                                int64_t at;

                                if (minute + s - most >= best)
                                        return best;
                                if (!(c->seconds >> s & 1) || minute + s - least <= after)
                                        continue;
                                at = instant(c, z, minute + s, after);
                                if (at >= 0 && at < best)
                                        best = at;
                        }
                }
        }
        return best;
}

usec cron_next(const struct cron *c, const struct zone *z, usec after)
{
        int64_t seconds, local, day;

        if (c->period)
                return (after / c->period + (after % c->period >= 0)) * c->period;
        seconds = after / USEC_SEC - (after % USEC_SEC < 0);
        local = seconds + zone_offset(z, seconds);
        /* An offset may have changed by hours meanwhile: begin a little before. */
        day = (local - 10800) / 86400 - ((local - 10800) % 86400 < 0);
        for (int64_t d = day; d < day + 9 * 366; d++) {
                int64_t best = day_matches(c, d) ? on_day(c, z, d, seconds) : INT64_MAX;

                if (best == INT64_MAX)
                        continue;
                /* A candidate of the next day is later, but where the clock goes back over midnight and hours
                 * of two days come twice. */
                if (zone_offset(z, d * 86400 - 172800) != zone_offset(z, d * 86400 + 259200) &&
                    day_matches(c, d + 1)) {
                        int64_t other = on_day(c, z, d + 1, seconds);

                        best = MIN_OF(best, other);
                }
                return best * USEC_SEC;
        }
        return USEC_NEVER;
}

usec cron_latest(const struct cron *c, const struct zone *z, usec after, usec until)
{
        static const usec spans[] = { USEC_MINUTE,   USEC_HOUR,      USEC_DAY,
                                      32 * USEC_DAY, 366 * USEC_DAY, 3290 * USEC_DAY };
        usec found = USEC_NEVER;

        for (size_t i = 0; i < COUNT_OF(spans) && found == USEC_NEVER; i++) {
                usec from = MAX_OF(after, until - spans[i]);
                usec next = cron_next(c, z, from);

                /* No more than an hour's worth of runs is walked: the spans grow by little enough. */
                for (; next != USEC_NEVER && next <= until; next = cron_next(c, z, next))
                        found = next;
                if (from == after)
                        break;
        }
        return found;
}
