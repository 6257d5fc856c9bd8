#include "base/clock.h"

#include <time.h>

static usec read_clock(clockid_t id)
{
        struct timespec t;

        (void)clock_gettime(id, &t);
        return (usec)t.tv_sec * USEC_SEC + t.tv_nsec / 1000;
}

static usec system_monotonic(void *cookie UNUSED) { return read_clock(CLOCK_MONOTONIC); }
static usec system_wall(void *cookie UNUSED) { return read_clock(CLOCK_REALTIME); }
const struct clock system_clock = { system_monotonic, system_wall, NULL };

static const struct {
        struct str name;
        double usecs;
} units[] = {
        /* Longer names first where one is the start of another. */
        { { "ns", 2 }, 1e-3 },     { { "us", 2 }, 1 },     { { "\xc2\xb5s", 3 }, 1 },
        { { "\xce\xbcs", 3 }, 1 }, { { "ms", 2 }, 1e3 },   { { "s", 1 }, 1e6 },
        { { "m", 1 }, 60e6 },      { { "h", 1 }, 3600e6 }, { { "d", 1 }, 86400e6 },
};

bool duration_parse(struct str s, usec *out)
{
        bool negative = s.n && s.p[0] == '-';
        double total = 0;

        if (s.n && (s.p[0] == '-' || s.p[0] == '+'))
                s.p++, s.n--;
        if (str_is(s, "0")) {
                *out = 0;
                return true;
        }
        if (s.n == 0)
                return false;
        while (s.n) {
                double value = 0, scale = 1;
                size_t digits = 0, u;
                bool fraction = false;

                for (; s.n && ((s.p[0] >= '0' && s.p[0] <= '9') || (s.p[0] == '.' && !fraction));
                     s.p++, s.n--) {
                        if (s.p[0] == '.') {
                                fraction = true;
                                continue;
                        }
                        value = value * 10 + (s.p[0] - '0');
                        scale *= fraction ? 10 : 1;
                        digits++;
                }
                for (u = 0; u < COUNT_OF(units) && !str_starts(s, units[u].name); u++)
                        ;
                if (digits == 0 || u == COUNT_OF(units))
                        return false;
                s.p += units[u].name.n;
                s.n -= units[u].name.n;
                total += value / scale * units[u].usecs;
        }
        if (!(total <= 9.2e18)) /* nor a NaN, which hundreds of digits make */
                return false;
        *out = (usec)(total + 0.5);
        if (negative)
                *out = -*out;
        return true;
}

/* value/unit with up to six decimals, trailing zeros cut. */
static void format_fraction(struct buf *b, usec value, usec unit, const char *name)
{
        usec rest = value % unit;

        buf_int(b, value / unit);
        if (rest) {
                buf_char(b, '.');
                while (rest) {
                        unit /= 10;
                        buf_char(b, (char)('0' + rest / unit));
                        rest %= unit;
                }
        }
        buf_text(b, name);
}

void duration_format(struct buf *b, usec d)
{
        if (d < 0) {
                buf_char(b, '-');
                d = d == INT64_MIN ? INT64_MAX : -d;
        }
        if (d == 0)
                buf_text(b, "0s");
        else if (d < USEC_MSEC)
                format_fraction(b, d, 1, "\xc2\xb5s");
        else if (d < USEC_SEC)
                format_fraction(b, d, USEC_MSEC, "ms");
        else {
                if (d >= USEC_HOUR)
                        buf_printf(b, "%lldh", (long long)(d / USEC_HOUR));
                if (d >= USEC_MINUTE)
                        buf_printf(b, "%lldm", (long long)(d / USEC_MINUTE % 60));
                format_fraction(b, d % USEC_MINUTE, USEC_SEC, "s");
        }
}

void duration_short(struct buf *b, usec d)
{
        int64_t s = MAX_OF(d, 0) / USEC_SEC;

        if (s < 120)
                buf_printf(b, "%llds", (long long)s);
        else if (s < 600)
                buf_printf(b, s % 60 ? "%lldm%llds" : "%lldm", (long long)(s / 60), (long long)(s % 60));
        else if (s < 3 * 3600)
                buf_printf(b, "%lldm", (long long)(s / 60));
        else if (s < 48 * 3600)
                buf_printf(b, "%lldh", (long long)(s / 3600));
        else
                buf_printf(b, "%lldd", (long long)(s / 86400));
}

/* Days since 1970-01-01, by Howard Hinnant's public-domain algorithms (chrono-compatible low-level date
 * algorithms). */
int64_t days_from_civil(int64_t year, int month, int day)
{
        int64_t y = year - (month <= 2), era = (y >= 0 ? y : y - 399) / 400, in_era = y - era * 400;
        int64_t in_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

        return era * 146097 + in_era * 365 + in_era / 4 - in_era / 100 + in_year - 719468;
}

void civil_from_days(int64_t days, int64_t *year, int *month, int *day)
{
        int64_t z = days + 719468, era = (z >= 0 ? z : z - 146096) / 146097, in_era = z - era * 146097;
        int64_t y = (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) / 365;
        int64_t in_year = in_era - (365 * y + y / 4 - y / 100), mp = (5 * in_year + 2) / 153;

        *day = (int)(in_year - (153 * mp + 2) / 5 + 1);
        *month = (int)(mp < 10 ? mp + 3 : mp - 9);
        *year = y + era * 400 + (*month <= 2);
}

bool time_is_writable(usec wall)
{
        return wall >= days_from_civil(1, 1, 1) * USEC_DAY && wall < days_from_civil(10000, 1, 1) * USEC_DAY;
}

/* Reads n digits. */
static bool take_number(struct str *s, size_t n, int *out)
{
        int v = 0;

        if (s->n < n)
                return false;
        for (size_t i = 0; i < n; i++) {
                if (s->p[i] < '0' || s->p[i] > '9')
                        return false;
                v = v * 10 + (s->p[i] - '0');
        }
        s->p += n;
        s->n -= n;
        *out = v;
        return true;
}

static bool take_char(struct str *s, char c)
{
        if (!s->n || s->p[0] != c)
                return false;
        s->p++;
        s->n--;
        return true;
}

static bool take_offset(struct str *s, int *seconds)
{
        int hours, minutes, sign = s->n && s->p[0] == '-' ? -1 : 1;

        *seconds = 0;
        if (take_char(s, 'Z') || take_char(s, 'z'))
                return true;
        if (!(take_char(s, '+') || take_char(s, '-')) || !take_number(s, 2, &hours) || !take_char(s, ':') ||
            !take_number(s, 2, &minutes) || hours > 23 || minutes > 59)
                return false;
        *seconds = sign * (hours * 3600 + minutes * 60);
        return true;
}

bool time_parse(struct str s, usec *out)
{
        static const int month_days[] = { 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
        int year, month, day, hour, minute, second, offset;
        usec fraction = 0, unit = USEC_SEC, wall;

        if (!take_number(&s, 4, &year) || !take_char(&s, '-') || !take_number(&s, 2, &month) ||
            !take_char(&s, '-') || !take_number(&s, 2, &day))
                return false;
        if (!take_char(&s, 'T') && !take_char(&s, 't') && !take_char(&s, ' '))
                return false;
        if (!take_number(&s, 2, &hour) || !take_char(&s, ':') || !take_number(&s, 2, &minute) ||
            !take_char(&s, ':') || !take_number(&s, 2, &second))
                return false;
        if (take_char(&s, '.')) {
                int digit;

                if (!s.n || s.p[0] < '0' || s.p[0] > '9')
                        return false;
                while (take_number(&s, 1, &digit)) {
                        unit /= 10;
                        fraction += digit * unit;
                }
        }
        if (!take_offset(&s, &offset) || s.n || month < 1 || month > 12 || day < 1 ||
            day > month_days[month - 1] || hour > 23 || minute > 59 || second > 60)
                return false;
        if (month == 2 && day == 29 && !(year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)))
                return false;
        wall = (days_from_civil(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - offset) *
                       USEC_SEC +
               fraction;
        /* by its offset */
        if (wall < days_from_civil(0, 1, 1) * USEC_DAY || wall >= days_from_civil(10000, 1, 1) * USEC_DAY)
                return false;
        *out = wall;
        return true;
}

static usec format_seconds(struct buf *b, usec wall)
{
        usec fraction = wall % USEC_SEC;
        int64_t seconds = wall / USEC_SEC, days, year;
        int month, day;

        if (fraction < 0) {
                fraction += USEC_SEC;
                seconds--;
        }
        days = seconds / 86400;
        seconds %= 86400;
        if (seconds < 0) {
                seconds += 86400;
                days--;
        }
        civil_from_days(days, &year, &month, &day);
        buf_printf(b, "%04lld-%02d-%02dT%02d:%02d:%02d", (long long)year, month, day, (int)(seconds / 3600),
                   (int)(seconds / 60 % 60), (int)(seconds % 60));
        return fraction;
}

void time_format(struct buf *b, usec wall)
{
        usec fraction = format_seconds(b, wall);

        if (fraction) {
                size_t end = b->n + 7;

                buf_printf(b, ".%06lld", (long long)fraction);
                while (!b->failed && b->n == end && b->p[b->n - 1] == '0') {
                        b->n--;
                        end--;
                }
        }
        buf_char(b, 'Z');
}

void time_format_micro(struct buf *b, usec wall)
{
        usec fraction = format_seconds(b, wall);

        buf_printf(b, ".%06lldZ", (long long)fraction);
}
