/* Schedules, in FunctionGraph's form, in Kubernetes' and as days that are left out: what is taken has runs in
 * order, and the latest run is the last of a walk; what is refused says why. */
#include "demand.h"
#include "source/timer/schedule.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FROM ((usec)1767225600 * USEC_SEC) /* 2026-01-01 */

static void walk(const struct schedule *s)
{
        usec at = FROM, first = schedule_next(s, at), last = USEC_NEVER;

        DEMAND(first > at);
        for (int i = 0; i < 20 && (at = schedule_next(s, at)) != USEC_NEVER; i++) {
                DEMAND(at > (last == USEC_NEVER ? FROM : last));
                DEMAND(schedule_next(s, at - 1) == at);
                last = at;
        }
        if (last != USEC_NEVER) {
                DEMAND(schedule_latest(s, FROM, last) == last);
                DEMAND(schedule_latest(s, last - 1, last) == last);
        } else
                DEMAND(schedule_latest(s, FROM, FROM + 9 * 365 * USEC_DAY) == USEC_NEVER);
}

/* The first byte says which form it is, and in which zone; a line behind the schedule is days to leave out.
 */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static const char *const zones[] = { "UTC", "Europe/Berlin", "Australia/Lord_Howe", "Pacific/Apia" };
        BUF_AT_END struct buf why = BUF_INIT(65536);
        struct str rest = { (const char *)data + 1, size ? size - 1 : 0 }, text, named;
        struct schedule s = { 0 };
        struct days_out out;
        struct error err;

        if (!size)
                return 0;
        text = str_cut(&rest, '\n');
        if ((data[0] & 1 ? cron_parse_kubernetes(text, &s.cron, &why)
                         : cron_parse(text, &s.cron, &named, &why)) < 0) {
                DEMAND(why.n || why.failed);
                return 0;
        }
        DEMAND(zone_load(&s.zone, str_of(zones[data[0] >> 1 & 3]), &err) == 0);
        if (days_out_parse(rest, &out)) {
                DEMAND(out.yearly || out.first <= out.last);
                s.out = malloc(sizeof(out));
                DEMAND(s.out);
                *s.out = out;
                s.out_n = 1;
        }
        walk(&s);
        schedule_done(&s);
        return 0;
}
