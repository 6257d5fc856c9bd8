#include "source/timer/zone.h"

#include <ctype.h>
#include <limits.h>

#include "base/clock.h"

/* A change of the POSIX rule in the file's footer: Mm.w.d, Jn or n, at a local time. */
struct change {
        char kind;
        int month, week, day;
        int64_t time;
};

struct zone {
        int64_t *transitions, *offsets; /* from transitions[i] on, offsets[i] */
        size_t n;
        int64_t first_offset; /* before the first transition */
        bool has_rule, has_summer;
        int64_t standard, summer;
        struct change begin, end;
        /* of one that is shared: */
        size_t users;
        void **place;
        struct zone *next;
        char *name;
};

static int64_t big_endian(const char *p, size_t n)
{
        uint64_t v = (p[0] & 0x80) ? UINT64_MAX : 0;

        for (size_t i = 0; i < n; i++)
                v = v << 8 | (unsigned char)p[i];
        return (int64_t)v;
}

/* ---- the footer: "CET-1CEST,M3.5.0,M10.5.0/3" --------------------------- */

static bool skip_name(const char **p)
{
        const char *from = *p;

        if (**p == '<') {
                while (**p && **p != '>')
                        (*p)++;
                if (**p != '>')
                        return false;
                (*p)++;
                return true;
        }
        while (isalpha((unsigned char)**p))
                (*p)++;
        return *p - from >= 3;
}

static bool number(const char **p, int *out)
{
        int v = 0;

        if (!isdigit((unsigned char)**p))
                return false;
        while (isdigit((unsigned char)**p) && v < 100000)
                v = v * 10 + (*(*p)++ - '0');
        *out = v;
        return true;
}

/* [+-]hh[:mm[:ss]] in seconds. */
static bool clock_time(const char **p, int64_t *out)
{
        int sign = **p == '-' ? -1 : 1, h, m = 0, s = 0;

        if (**p == '-' || **p == '+')
                (*p)++;
        if (!number(p, &h))
                return false;
        if (**p == ':' && (++*p, !number(p, &m)))
                return false;
        if (**p == ':' && (++*p, !number(p, &s)))
                return false;
        *out = sign * ((int64_t)h * 3600 + m * 60 + s);
        return true;
}

static bool parse_change(const char **p, struct change *c)
{
        *c = (struct change){ .time = 7200 };
        if (*(*p)++ != ',')
                return false;
        if (**p == 'M') {
                c->kind = 'M';
                (*p)++;
                if (!number(p, &c->month) || *(*p)++ != '.' || !number(p, &c->week) || *(*p)++ != '.' ||
                    !number(p, &c->day) || c->month < 1 || c->month > 12 || c->week < 1 || c->week > 5 ||
                    c->day > 6)
                        return false;
        } else {
                c->kind = **p == 'J' ? 'J' : 'n';
                if (c->kind == 'J')
                        (*p)++;
                if (!number(p, &c->day) || c->day > 366)
                        return false;
        }
        if (**p == '/') {
                (*p)++;
                return clock_time(p, &c->time);
        }
        return true;
}

static bool parse_footer(struct zone *z, const char *p)
{
        int64_t west;

        if (!skip_name(&p) || !clock_time(&p, &west))
                return false;
        z->standard = z->summer = -west;
        z->has_rule = true;
        if (!*p)
                return true;
        if (!skip_name(&p))
                return false;
        z->summer = z->standard + 3600;
        if (*p != ',') {
                if (!clock_time(&p, &west))
                        return false;
                z->summer = -west;
        }
        z->has_summer = true;
        return parse_change(&p, &z->begin) && parse_change(&p, &z->end) && !*p;
}

static bool is_leap(int64_t year) { return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0); }

/* Local seconds, in the offset that holds before it, of a change in a year. */
static int64_t change_in(const struct change *c, int64_t year)
{
        int64_t day;

        if (c->kind == 'M') {
                int64_t first = days_from_civil(year, c->month, 1),
                        next = c->month == 12 ? days_from_civil(year + 1, 1, 1)
                                              : days_from_civil(year, c->month + 1, 1);
                int64_t weekday = ((first + 4) % 7 + 7) % 7;

                day = first + ((c->day - weekday) % 7 + 7) % 7 + (c->week - 1) * 7;
                while (day >= next)
                        day -= 7;
        } else
                day = days_from_civil(year, 1, 1) +
                      (c->kind == 'J' ? c->day - 1 + (is_leap(year) && c->day >= 60) : c->day);
        return day * 86400 + c->time;
}

static int64_t rule_offset(const struct zone *z, int64_t utc)
{
        int64_t year, begin, end, days = (utc + z->standard) / 86400 - ((utc + z->standard) % 86400 < 0);
        int month, day;
        bool north;

        if (!z->has_summer)
                return z->standard;
        civil_from_days(days, &year, &month, &day);
        begin = change_in(&z->begin, year) - z->standard;
        end = change_in(&z->end, year) - z->summer;
        north = begin < end;
        return (north ? utc >= begin && utc < end : utc >= begin || utc < end) ? z->summer : z->standard;
}

int64_t zone_offset(const struct zone *z, int64_t utc)
{
        size_t low = 0, high;

        if (!z)
                return 0;
        high = z->n;
        if (z->n == 0 || utc < z->transitions[0])
                return z->n == 0 && z->has_rule ? rule_offset(z, utc) : z->first_offset;
        if (utc >= z->transitions[z->n - 1] && z->has_rule)
                return rule_offset(z, utc);
        while (high - low > 1) {
                size_t middle = low + (high - low) / 2;

                if (z->transitions[middle] <= utc)
                        low = middle;
                else
                        high = middle;
        }
        return z->offsets[low];
}

/* ---- the file ----------------------------------------------------------- */

/* The six counts of a header: isutc, isstd, leap, time, type, char. */
static bool header(struct str file, size_t at, size_t counts[6])
{
        if (file.n < at + 44 || memcmp(file.p + at, "TZif", 4) != 0)
                return false;
        for (size_t i = 0; i < 6; i++) {
                int64_t v = big_endian(file.p + at + 20 + 4 * i, 4);

                if (v < 0 || v > 100000)
                        return false;
                counts[i] = (size_t)v;
        }
        return true;
}

static size_t body_size(const size_t c[6], size_t time_size)
{
        return c[3] * (time_size + 1) + c[4] * 6 + c[5] + c[2] * (time_size + 4) + c[1] + c[0];
}

static bool parse_file(struct zone *z, struct str file)
{
        size_t c[6], at;
        const char *times, *types, *infos, *footer, *end;
        char rule[128];

        if (!header(file, 0, c) || file.p[4] < '2')
                return false;
        at = 44 + body_size(c, 4); /* past the 32-bit data */
        if (!header(file, at, c) || c[4] == 0 || file.n < at + 44 + body_size(c, 8))
                return false;
        times = file.p + at + 44;
        types = times + 8 * c[3];
        infos = types + c[3];
        z->first_offset = big_endian(infos, 4);
        z->transitions = calloc(c[3] + 1, sizeof(int64_t));
        z->offsets = calloc(c[3] + 1, sizeof(int64_t));
        if (!z->transitions || !z->offsets)
                return false;
        for (z->n = 0; z->n < c[3]; z->n++) {
                size_t type = (unsigned char)types[z->n];

                if (type >= c[4])
                        return false;
                z->transitions[z->n] = big_endian(times + 8 * z->n, 8);
                z->offsets[z->n] = big_endian(infos + 6 * type, 4);
        }
        footer = file.p + at + 44 + body_size(c, 8);
        end = file.p + file.n;
        if (footer < end && *footer == '\n') {
                const char *stop;

                footer++;
                stop = memchr(footer, '\n', (size_t)(end - footer));
                if (!stop || (size_t)(stop - footer) >= sizeof(rule))
                        return false;
                memcpy(rule, footer, (size_t)(stop - footer));
                rule[stop - footer] = 0;
                if (*rule && !parse_footer(z, rule))
                        return false;
        }
        return true;
}

static bool safe_name(struct str name)
{
        if (name.n == 0 || name.n > 100 || name.p[0] == '/' || name.p[0] == '.')
                return false;
        for (size_t i = 0; i < name.n; i++) {
                if (!isalnum((unsigned char)name.p[i]) && !strchr("/_+-", name.p[i]))
                        return false;
        }
        return true;
}

int zone_load(struct zone **out, struct str name, struct error *err)
{
        const char *folder = getenv("TZDIR");
        BUF_AT_END struct buf file = BUF_INIT((size_t)1 << 20), path = BUF_INIT(PATH_MAX);
        struct zone *z = calloc(1, sizeof(*z));

        if (!z)
                return error_memory(err);
        if (name.n == 0 || str_is(name, "UTC")) {
                z->has_rule = true;
                *out = z;
                return 0;
        }
        buf_printf(&path, "%s/" STR_FMT, folder ? folder : "/usr/share/zoneinfo", STR_ARG(name));
        if (!safe_name(name) || path.failed || buf_read_file(&file, path.p, NULL) < 0 ||
            !parse_file(z, buf_view(&file))) {
                (void)zone_free(z);
                return error_set(err, ERROR_INVALID,
                                 "time zone \"" STR_FMT
                                 "\" is not known; use a name of the IANA database such as Europe/Berlin",
                                 STR_ARG(name));
        }
        *out = z;
        return 0;
}

int zone_share(void **place, struct zone **out, struct str name, struct error *err)
{
        struct zone *z;

        for (z = *place; z; z = z->next)
                if (str_is(name, z->name)) {
                        z->users++;
                        *out = z;
                        return 0;
                }
        if (zone_load(&z, name, err) < 0 || !z)
                return -1;
        z->name = str_dup(name);
        if (!z->name) {
                (void)zone_free(z);
                return error_memory(err);
        }
        z->users = 1;
        z->place = place;
        z->next = *place;
        *place = z;
        *out = z;
        return 0;
}

/* false: others use it still. */
static bool leave_place(struct zone *z)
{
        void **at = z->place;
        struct zone *before = NULL;

        if (!at)
                return true;
        if (--z->users)
                return false;
        for (struct zone *other = *at; other != z; other = other->next)
                before = other;
        if (before)
                before->next = z->next;
        else
                *at = z->next;
        return true;
}

struct zone *zone_free(struct zone *z)
{
        if (!z || !leave_place(z))
                return NULL;
        free(z->name);
        free(z->transitions);
        free(z->offsets);
        free(z);
        return NULL;
}
