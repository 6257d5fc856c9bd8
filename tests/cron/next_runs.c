/* Answers lines of FORM, SCHEDULE, ZONE, AFTER (seconds since 1970) and N, parted by tabs, with the next N
 * runs in seconds since 1970: what tests/integration/test_cron.py holds against another implementation. FORM:
 * schedule or cron. */
#include <stdio.h>

#include "source/timer/cron.h"

static int answer(struct str line, struct error *err)
{
        BUF_AT_END struct buf why = BUF_INIT(4096);
        struct str rest = line, form = str_cut(&rest, '\t'), text = str_cut(&rest, '\t'),
                   name = str_cut(&rest, '\t'), after = str_cut(&rest, '\t'), named;
        struct zone *zone;
        struct cron cron;
        int64_t at, n;

        if (!str_to_int64(after, &at) || !str_to_int64(rest, &n))
                return error_set(err, ERROR_INVALID, "no numbers: " STR_FMT, STR_ARG(line));
        if ((str_is(form, "cron") ? cron_parse_kubernetes(text, &cron, &why)
                                  : cron_parse(text, &cron, &named, &why)) < 0)
                return error_set(err, ERROR_INVALID, STR_FMT ": %s", STR_ARG(text), why.p ? why.p : "");
        if (zone_load(&zone, name, err) < 0)
                return -1;
        at *= USEC_SEC;
        for (int64_t i = 0; i < n && at != USEC_NEVER; i++) {
                at = cron_next(&cron, zone, at);
                (void)printf(at == USEC_NEVER ? "%snever" : "%s%lld", i ? " " : "",
                             (long long)(at / USEC_SEC));
        }
        (void)printf("\n");
        (void)zone_free(zone);
        return 0;
}

int main(void)
{
        char *line = NULL;
        size_t size = 0;
        ssize_t n;
        struct error err;
        int result = 0;

        while (result == 0 && (n = getline(&line, &size, stdin)) > 0)
                result = answer(str_trim((struct str){ line, (size_t)n }), &err);
        free(line);
        if (result < 0)
                (void)fprintf(stderr, "%s\n", err.text);
        return result < 0;
}
