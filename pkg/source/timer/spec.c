#include "source/timer/timer.h"

static const char *const misfire_names[] = { "Skip", "FireOnce", "CatchUp", NULL };
static const char *const concurrency_names[] = { "Forbid", "Allow", NULL };
#define DAY_PATTERN "([0-9]{4}-)?[0-9]{2}-[0-9]{2}"
#define MEDIA_PATTERN "[A-Za-z0-9!#$&^_.+-]+"

static const struct field timer_fields[] = {
        FIELD(STRING, "schedule", struct timer_spec, schedule, .min = 1, .max = 256, .cloud = "schedule",
              .help = "When it ticks: a rate such as 3m, 2h or 1d, \"@every 1h30m\", or a cron schedule of "
                      "five or six fields: second minute hour day-of-month "
                      "month [day-of-week], 0 being Sunday, with names, lists, ranges, steps and ? in the "
                      "two day fields; \"CRON_TZ=Europe/Berlin \" may stand "
                      "before it. Five fields of which the first alone has a step, such as */5 * * * *, are "
                      "refused: write six, or cron. Rates tick at whole multiples of "
                      "their period since 1970 UTC."),
        FIELD(STRING, "cron", struct timer_spec, cron, .min = 1, .max = 256,
              .help = "When it ticks, as a CronJob of Kubernetes says it, instead of schedule: minute hour "
                      "day-of-month month day-of-week, 0 and 7 being Sunday, or @hourly, "
                      "@daily, @weekly, @monthly or @yearly. If both day fields are restricted, either "
                      "suffices; * and ? alone do not restrict, a step such as */2 does. N/STEP goes "
                      "on to the field's end, Saturday for the day of week."),
        FIELD(STRING, "timeZone", struct timer_spec, time_zone, .fallback = "UTC", .min = 1, .max = 100,
              .pattern = "^[A-Za-z][A-Za-z0-9_+/-]*$",
              .help = "The time zone of the schedule and of the event's time, a name of the IANA database. "
                      "CRON_TZ in the schedule wins. A run that falls into the "
                      "hour that a clock change skips is made when that hour ends; one in the hour that "
                      "comes twice is made once, unless every hour matches."),
        FIELD(TIME, "startTime", struct timer_spec, start_time,
              .help = "No tick is scheduled before that time."),
        FIELD(TIME, "endTime", struct timer_spec, end_time,
              .help = "No tick is scheduled at that time or later."),
        FIELD(STRINGS, "exclude", struct timer_spec, exclude, .max = 366, .item_min_one = true, .set = true,
              .pattern = "^" DAY_PATTERN "(/" DAY_PATTERN ")?$",
              .format = "a day, 2026-12-24 or each year 12-24, or first and last day with / between",
              .help = "Days without a tick, by the calendar of the time zone: 2026-12-24, "
                      "2026-12-24/2027-01-02, or, each year, 12-25 and 12-24/01-02."),
        FIELD(DURATION, "jitter", struct timer_spec, jitter, .min = USEC_MSEC, .max = USEC_DAY,
              .help = "Ticks are sent up to so much later than they are scheduled, by an amount that is "
                      "drawn "
                      "from the Trigger's UID and stays the same, so that a thousand Triggers of one "
                      "schedule "
                      "do not call at one instant. The event's time and id are those of the schedule."),
        FIELD(STRING, "userEvent", struct timer_spec, user_event, .fallback = "\"\"", .max = 2048,
              .cloud = "user_event", .help = "Any text, given to the function as user_event."),
        FIELD(STRING, "userEventBase64", struct timer_spec, user_event_base64, .min = 4, .max = 2732,
              .pattern = "^[A-Za-z0-9+/]+={0,2}$", .format = "Base64",
              .help = "Any bytes, as Base64, instead of userEvent: a CloudEvent's data are these bytes, and "
                      "FunctionGraph's event, which can hold text alone, has the Base64."),
        FIELD(STRING, "contentType", struct timer_spec, content_type, .min = 3, .max = 127,
              .pattern = "^" MEDIA_PATTERN "/" MEDIA_PATTERN "(;[ -~]*[!-~])?$",
              .format = "a media type such as application/json",
              .help = "What the user event is, for CloudEvents. Without it JSON and text are recognized; all "
                      "else is application/octet-stream."),
        FIELD(ENUM, "misfirePolicy", struct timer_spec, misfire_policy, .fallback = "FireOnce",
              .values = misfire_names,
              .help = "What becomes of ticks that were missed, since nothing ran or an earlier tick was "
                      "still "
                      "being delivered, and are later than startingDeadline: Skip drops them, FireOnce "
                      "sends the latest one, CatchUp sends each, oldest first."),
        FIELD(DURATION, "misfireMaxAge", struct timer_spec, misfire_max_age, .min = USEC_SEC,
              .max = 366 * USEC_DAY,
              .help = "FireOnce and CatchUp drop missed ticks that are older than that. Without it there is "
                      "no limit."),
        FIELD(DURATION, "startingDeadline", struct timer_spec, starting_deadline, .fallback = "5s",
              .min = 100 * USEC_MSEC, .max = 366 * USEC_DAY,
              .help = "A tick that can be sent no later than that after its time was not missed, whatever "
                      "misfirePolicy says. With misfirePolicy: Skip it is startingDeadlineSeconds of a "
                      "CronJob."),
        FIELD(ENUM, "concurrencyPolicy", struct timer_spec, concurrency_policy, .fallback = "Forbid",
              .values = concurrency_names,
              .help = "Forbid: while a tick is being delivered the next ones wait, and of those that became "
                      "due meanwhile the latest is sent, or, with misfirePolicy: CatchUp, each. Allow: each "
                      "tick is sent at its time, up to maxInFlight (and 32) at once, in whatever order they "
                      "end."),
};

static int parse_schedule(const struct timer_spec *spec, struct cron *cron, struct str *zone, struct buf *why)
{
        *zone = (struct str){ 0 };
        return spec->cron ? cron_parse_kubernetes(str_of(spec->cron), cron, why)
                          : cron_parse(str_of(spec->schedule), cron, zone, why);
}

int timer_schedule(const struct timer_spec *spec, void **zones, struct schedule *out, struct error *err)
{
        BUF_AT_END struct buf why = BUF_INIT(4096);
        struct schedule s = { .start = spec->start_time, .end = spec->end_time };
        struct str zone;

        if (parse_schedule(spec, &s.cron, &zone, &why) < 0)
                return error_set(err, ERROR_INVALID, "%s: %s", spec->cron ? "cron" : "schedule",
                                 why.p ? why.p : "out of memory");
        if (!zone.n)
                zone = str_of(spec->time_zone);
        if ((zones ? zone_share(zones, &s.zone, zone, err) : zone_load(&s.zone, zone, err)) < 0)
                return -1;
        if (schedule_leave_out(&s, &spec->exclude, err) < 0) {
                schedule_done(&s);
                return -1;
        }
        *out = s;
        return 0;
}

/* FNV-1a, and the end of MurmurHash3, so that names that differ in a digit are spread all the same. */
usec timer_jitter(const struct timer_spec *spec, const char *uid)
{
        uint64_t h = UINT64_C(0xcbf29ce484222325);

        for (const char *p = uid; *p; p++)
                h = (h ^ (unsigned char)*p) * UINT64_C(0x100000001b3);
        h = (h ^ h >> 33) * UINT64_C(0xff51afd7ed558ccd);
        h = (h ^ h >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
        h ^= h >> 33;
        return (usec)(h % (uint64_t)(MAX_OF(spec->jitter, (usec)0) + 1));
}

/* ---- rules -------------------------------------------------------------- */

static bool one_schedule(const void *object)
{
        const struct timer_spec *spec = object;

        return !spec->schedule != !spec->cron;
}

static bool comes(const struct timer_spec *spec, struct buf *why)
{
        struct cron cron;
        struct str zone;
        struct zone *z = NULL;
        struct error err;
        bool never;

        if (parse_schedule(spec, &cron, &zone, why) < 0)
                return false;
        if (zone_load(&z, zone, &err) < 0) {
                buf_text(why, err.text);
                return false;
        }
        never = cron_next(&cron, z, 0) == USEC_NEVER;
        (void)zone_free(z);
        if (never)
                buf_text(why, "never comes: no month has that day");
        return !never;
}

static bool schedule_valid(const void *object, struct buf *why)
{
        return !((const struct timer_spec *)object)->schedule || ((const struct timer_spec *)object)->cron ||
               comes(object, why);
}
static bool cron_valid(const void *object, struct buf *why)
{
        return !((const struct timer_spec *)object)->cron || ((const struct timer_spec *)object)->schedule ||
               comes(object, why);
}

static bool zone_valid(const void *object, struct buf *why)
{
        const struct timer_spec *spec = object;
        struct zone *z;
        struct error err;

        if (!spec->time_zone || zone_load(&z, str_of(spec->time_zone), &err) == 0) {
                if (spec->time_zone)
                        (void)zone_free(z);
                return true;
        }
        buf_text(why, err.text);
        return false;
}

static bool days_valid(const void *object, struct buf *why)
{
        const struct strings *list = &((const struct timer_spec *)object)->exclude;
        struct days_out out;

        for (size_t i = 0; i < list->n; i++)
                if (!days_out_parse(str_of(list->list[i]), &out)) {
                        buf_printf(
                                why,
                                "\"%s\" is no day: expected one that the calendar has, such as 2026-12-24, "
                                "or 12-24 for each year; or two of them with / between, the first not "
                                "after the last",
                                list->list[i]);
                        return false;
                }
        return true;
}

static bool ends_after_start(const void *object)
{
        const struct timer_spec *spec = object;

        return !spec->start_time || !spec->end_time || spec->start_time < spec->end_time;
}

/* Whatever the other rules have to say is said by them alone. */
static bool any_tick_left(const void *object, struct buf *why)
{
        const struct timer_spec *spec = object;
        struct schedule s = { 0 };
        struct error err;
        bool any;

        if (!one_schedule(spec) || !ends_after_start(spec) || !spec->time_zone ||
            timer_schedule(spec, NULL, &s, &err) < 0)
                return true;
        any = cron_next(&s.cron, s.zone, 0) == USEC_NEVER || schedule_next(&s, 0) != USEC_NEVER;
        schedule_done(&s);
        if (!any)
                buf_text(why, "there is never a tick: startTime, endTime and exclude leave none of the "
                              "schedule");
        return any;
}

static bool one_event(const void *object)
{
        const struct timer_spec *spec = object;

        return !spec->user_event_base64 || !spec->user_event || !*spec->user_event;
}

static bool base64_valid(const void *object, struct buf *why)
{
        const struct timer_spec *spec = object;
        BUF_AT_END struct buf bytes = BUF_INIT(4096);

        if (!spec->user_event_base64 || buf_unbase64(&bytes, str_of(spec->user_event_base64)))
                return true;
        buf_text(why, "is no Base64: expected groups of four characters, the last filled up with =");
        return false;
}

static const struct rule timer_rules[] = {
        RULE(.path = "schedule", .message = "is no schedule", .explain = schedule_valid),
        RULE(.path = "cron", .message = "is no cron schedule", .explain = cron_valid),
        RULE(.path = "timeZone", .message = "is no time zone", .explain = zone_valid),
        RULE(.path = "exclude", .message = "is no day", .explain = days_valid),
        RULE(.path = "userEventBase64", .message = "is no Base64", .explain = base64_valid),
        RULE(.cel = "has(self.schedule) != has(self.cron)", .message = "give schedule or cron, one of them",
             .check = one_schedule),
        RULE(.cel = "!has(self.startTime) || !has(self.endTime) || self.startTime < self.endTime",
             .path = "endTime", .message = "must be after startTime", .check = ends_after_start),
        RULE(.cel = "!has(self.userEventBase64) || !has(self.userEvent) || size(self.userEvent) == 0",
             .path = "userEventBase64", .message = "give userEvent or userEventBase64, not both",
             .check = one_event),
        RULE(.message = "never ticks", .explain = any_tick_left),
};
const struct type timer_type = TYPE("TimerSource", struct timer_spec, timer_fields, "Ticks by a schedule.",
                                    RULES(timer_rules));
