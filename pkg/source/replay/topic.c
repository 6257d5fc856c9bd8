#include <stdio.h>

#include "source/replay/letter.h"
#include "source/replay/replay.h"

/* kafka_source with another idea of what a record is. inner is its source, of which nothing is known here. */
struct letters_topic {
        struct source source;
        struct source *inner;
        const struct services *services;
        struct replay_report *report;
        /* by track: nothing from there on is committed; UINT64_MAX: all is */
        uint64_t *held;
        uint32_t held_n;
        bool hold_all;
};

static struct letters_topic *letters_topic_of(const struct source *s)
{
        return CONTAINER_OF(s, struct letters_topic, source);
}

static int topic_open(struct source **out, const void *spec_, const struct services *services,
                      struct error *err)
{
        const struct replay_topic_spec *spec = spec_;
        struct letters_topic *s = calloc(1, sizeof(*s));

        if (!s)
                return error_memory(err);
        s->services = services;
        s->report = spec->report;
        if (kafka_source.open(&s->inner, &spec->kafka, services, err) < 0) {
                free(s);
                return -1;
        }
        *out = &s->source;
        return 0;
}

/* Where there is no memory to keep the place, nothing at all is committed any more. */
static void hold(struct letters_topic *s, uint32_t track, uint64_t position)
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

static void refuse(struct letters_topic *s, struct record *r, const struct error *why)
{
        char text[800];
        uint32_t track = r->track, pinned = r->pinned;

        s->report->refusals++;
        (void)snprintf(text, sizeof(text), STR_FMT " (TOPIC/PARTITION/OFFSET): %s", STR_ARG(r->id),
                       why->text);
        s->report->refused(s->report->cookie, text);
        kafka_source.pull->release(s->inner, r, OUTCOME_RELEASED);
        kafka_source.pull->credit(s->inner, track, 1, pinned); /* the engine never hears of it */
}

static size_t topic_poll(struct source *source, struct pull_event *events, size_t max, usec now)
{
        struct letters_topic *s = letters_topic_of(source);
        size_t n = kafka_source.pull->poll(s->inner, events, max, now), kept = 0;

        for (size_t i = 0; i < n; i++) {
                struct record *r = events[i].record;
                struct letter_view v;
                struct error why;
                struct str id;

                events[kept++] = events[i];
                if (events[i].kind == PULL_ASSIGNED && events[i].track < s->held_n)
                        s->held[events[i].track] = UINT64_MAX;
                if (events[i].kind != PULL_RECORD)
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
                id = kafka_source.shape->header(r, "sluice-event-id");
                if (id.n)
                        r->id = id;
        }
        return kept;
}

static void topic_commit(struct source *source, uint32_t track, uint64_t next)
{
        struct letters_topic *s = letters_topic_of(source);
        uint64_t held = track < s->held_n ? s->held[track] : UINT64_MAX;

        if (!s->hold_all)
                kafka_source.pull->commit(s->inner, track, MIN_OF(next, held));
}

static void topic_credit(struct source *source, uint32_t track, uint32_t records, size_t bytes)
{
        struct letters_topic *s = letters_topic_of(source);

        kafka_source.pull->credit(s->inner, track, records, bytes);
}
static usec topic_deadline(const struct source *source)
{
        const struct letters_topic *s = letters_topic_of(source);

        return kafka_source.pull->deadline(s->inner);
}
static void topic_settle(struct source *source, struct record *r, enum outcome outcome)
{
        struct letters_topic *s = letters_topic_of(source);

        kafka_source.pull->release(s->inner, r, outcome);
}
static bool topic_detach(struct source *source, struct record *r)
{
        struct letters_topic *s = letters_topic_of(source);

        return kafka_source.pull->detach(s->inner, r);
}
static void topic_revoked(struct source *source, uint32_t track)
{
        struct letters_topic *s = letters_topic_of(source);

        kafka_source.pull->revoked(s->inner, track);
}
static void topic_stop(struct source *source)
{
        struct letters_topic *s = letters_topic_of(source);

        kafka_source.pull->stop(s->inner);
}
static int64_t topic_lag(const struct source *source)
{
        const struct letters_topic *s = letters_topic_of(source);

        return kafka_source.pull->lag(s->inner);
}
static bool topic_drained(const struct source *source)
{
        const struct letters_topic *s = letters_topic_of(source);

        return kafka_source.pull->drained(s->inner);
}

static struct source *topic_free(struct source *source)
{
        struct letters_topic *s = letters_topic_of(source);

        if (!s)
                return NULL;
        (void)kafka_source.pull->free(s->inner);
        free(s->held);
        free(s);
        return NULL;
}

static const struct pull_ops pull = {
        .poll = topic_poll,
        .deadline = topic_deadline,
        .credit = topic_credit,
        .release = topic_settle,
        .detach = topic_detach,
        .commit = topic_commit,
        .revoked = topic_revoked,
        .lag = topic_lag,
        .drained = topic_drained,
        .stop = topic_stop,
        .free = topic_free,
};
const struct source_kind replay_topic_source = {
        .name = "replay",
        .shape = &letter_shape,
        .pull = &pull,
        .open = topic_open,
};
