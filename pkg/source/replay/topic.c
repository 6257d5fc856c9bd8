#include <stdio.h>

#include "source/replay/letter.h"
#include "source/replay/replay.h"

/* kafka_driver with another idea of what a record is. inner is its source, of which nothing is known here. */
struct source {
        struct source *inner;
        const struct services *services;
        struct replay_report *report;
        /* by track: nothing from there on is committed; UINT64_MAX: all is */
        uint64_t *held;
        uint32_t held_n;
        bool hold_all;
};

static int topic_open(struct source **out, const void *spec_, const struct services *services,
                      struct task *wake, struct error *err)
{
        const struct replay_topic_spec *spec = spec_;
        struct source *s = calloc(1, sizeof(*s));

        if (!s)
                return error_memory(err);
        s->services = services;
        s->report = spec->report;
        if (kafka_driver.open(&s->inner, &spec->kafka, services, wake, err) < 0) {
                free(s);
                return -1;
        }
        *out = s;
        return 0;
}

/* Where there is no memory to keep the place, nothing at all is committed any more. */
static void hold(struct source *s, uint32_t track, uint64_t position)
{
        if (track >= s->held_n) {
                uint64_t *grown = realloc(s->held, (track + 1) * sizeof(*grown));

                if (!grown) {
                        s->hold_all = true;
                        return;
                }
                s->held = grown;
                while (s->held_n <= track)
                        s->held[s->held_n++] = UINT64_MAX;
        }
        s->held[track] = MIN_OF(s->held[track], position);
}

static void refuse(struct source *s, struct record *r, const struct error *why)
{
        char text[800];
        uint32_t track = r->track, pinned = r->pinned;

        s->report->refusals++;
        (void)snprintf(text, sizeof(text), STR_FMT " (TOPIC/PARTITION/OFFSET): %s", STR_ARG(r->id),
                       why->text);
        s->report->refused(s->report->cookie, text);
        kafka_driver.settle(s->inner, r, OUTCOME_RELEASED);
        kafka_driver.credit(s->inner, track, 1, pinned); /* the engine never hears of it */
}

static size_t topic_poll(struct source *s, struct source_event *events, size_t max, usec now)
{
        size_t n = kafka_driver.poll(s->inner, events, max, now), kept = 0;

        for (size_t i = 0; i < n; i++) {
                struct record *r = events[i].record;
                struct letter_view v;
                struct error why;
                struct str id;

                events[kept++] = events[i];
                if (events[i].kind == SOURCE_EVENT_ASSIGNED && events[i].track < s->held_n)
                        s->held[events[i].track] = UINT64_MAX;
                if (events[i].kind != SOURCE_EVENT_RECORD)
                        continue;
                if (r->null_value)
                        (void)error_set(&why, ERROR_INVALID, "no dead letter: a null value");
                if (r->null_value ||
                    letter_read(r->value, (enum event_format)s->services->trigger->event->format, &v, &why) <
                            0) {
                        kept--;
                        hold(s, r->track, r->position);
                        refuse(s, r, &why);
                        continue;
                }
                /* The event's own id, not the letter's. */
                id = kafka_driver.header(r, "sluice-event-id");
                if (id.n)
                        r->id = id;
        }
        return kept;
}

static void topic_commit(struct source *s, uint32_t track, uint64_t next)
{
        uint64_t held = track < s->held_n ? s->held[track] : UINT64_MAX;

        if (!s->hold_all)
                kafka_driver.commit(s->inner, track, MIN_OF(next, held));
}

static void topic_credit(struct source *s, uint32_t track, uint32_t records, size_t bytes)
{
        kafka_driver.credit(s->inner, track, records, bytes);
}
static usec topic_deadline(const struct source *s) { return kafka_driver.deadline(s->inner); }
static void topic_settle(struct source *s, struct record *r, enum outcome outcome)
{
        kafka_driver.settle(s->inner, r, outcome);
}
static bool topic_detach(struct source *s, struct record *r) { return kafka_driver.detach(s->inner, r); }
static void topic_revoked(struct source *s, uint32_t track) { kafka_driver.revoked(s->inner, track); }
static void topic_stop(struct source *s) { kafka_driver.stop(s->inner); }
static int64_t topic_lag(const struct source *s) { return kafka_driver.lag(s->inner); }
static bool topic_drained(const struct source *s) { return kafka_driver.drained(s->inner); }

static struct source *topic_free(struct source *s)
{
        if (!s)
                return NULL;
        (void)kafka_driver.free(s->inner);
        free(s->held);
        free(s);
        return NULL;
}

const struct driver *replay_topic_driver(void)
{
        static const struct driver driver = {
                .name = "replay",
                .ce_type = "dev.sluice.replay",
                .open = topic_open,
                .credit = topic_credit,
                .poll = topic_poll,
                .deadline = topic_deadline,
                .settle = topic_settle,
                .detach = topic_detach,
                .commit = topic_commit,
                .revoked = topic_revoked,
                .stop = topic_stop,
                .free = topic_free,
                .lag = topic_lag,
                .drained = topic_drained,
                .describe = letter_describe,
                .encode = letter_encode,
                .event = letter_event,
        };

        return &driver;
}
