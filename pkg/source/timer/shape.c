#include "source/timer/timer.h"

#include <stdio.h>

void tick_id(const struct trigger *trigger, usec time, struct buf *out)
{
        buf_text(out, trigger->uid);
        buf_char(out, '/');
        time_format(out, time);
}

static struct str text_of(const struct record *r)
{
        const struct tick_origin *o = r->origin;

        return o->base64.n ? o->base64 : r->value;
}

static void timer_describe(const struct record *r, struct writer *w)
{
        char space[64];
        struct buf time = BUF_ON(space);

        time_format(&time, r->time);
        writer_object(w);
        writer_member_string(w, "time", buf_view(&time));
        writer_member_string(w, "userEvent", text_of(r));
        writer_object_end(w);
}

/* RFC 3339 in the zone's own offset, as FunctionGraph writes it. */
static void local_time(struct buf *b, const struct zone *z, usec at)
{
        int64_t offset = zone_offset(z, at / USEC_SEC), minutes = (offset < 0 ? -offset : offset) / 60;

        time_format(b, (at / USEC_SEC + offset) * USEC_SEC);
        if (!b->failed)
                b->n--; /* the Z */
        buf_printf(b, "%c%02d:%02d", offset < 0 ? '-' : '+', (int)(minutes / 60), (int)(minutes % 60));
}

static void timer_encode(const struct trigger *t, struct record *const *records, size_t n UNUSED,
                         struct writer *w)
{
        const struct tick_origin *o = records[0]->origin;
        char space[64];
        struct buf time = BUF_ON(space);

        local_time(&time, o->zone, records[0]->time);
        writer_object(w);
        writer_member_text(w, "version", "v1.0");
        writer_member_string(w, "time", buf_view(&time));
        writer_member_text(w, "trigger_type", "TIMER");
        writer_member_text(w, "trigger_name", t->name);
        writer_member_string(w, "user_event", text_of(records[0]));
        writer_object_end(w);
}

static void timer_event(const struct trigger *t, const struct record *r, struct buf *space,
                        struct cloud_event *e)
{
        const struct timer_spec *spec = t->source_spec;

        cloudevent_source(t, NULL, space);
        *e = (struct cloud_event){ .id = r->id, .source = buf_view(space), .time = r->time };
        if (r->value.n == 0)
                return;
        cloudevent_data(e, r->value, str_of(spec->content_type));
}

/* ---- samples ------------------------------------------------------------ */

struct sample {
        struct record record;
        struct tick_origin origin;
        struct schedule schedule;
        struct buf value, id;
};

static void timer_sample_free(struct record *r)
{
        struct sample *s;

        if (!r)
                return;
        s = CONTAINER_OF(r, struct sample, record);
        schedule_done(&s->schedule);
        buf_done(&s->value);
        buf_done(&s->id);
        free(s);
}

static int sample_time(const struct schedule *s, const struct node *time, usec wall, usec *out,
                       struct error *err)
{
        if (!time) {
                *out = schedule_next(s, wall);
                return *out == USEC_NEVER ? error_set(err, ERROR_INVALID, "no tick is left") : 0;
        }
        if (time->kind == NODE_STRING && time_parse(time->text, out) && time_is_writable(*out - USEC_DAY) &&
            time_is_writable(*out + USEC_DAY))
                return 0;
        return error_set(err, ERROR_INVALID,
                         "time: expected a time such as 2026-01-31T08:00:00Z, of a year from 1 to "
                         "9999 in every zone");
}

static int sample_value(const struct timer_spec *spec, const struct node *text, struct sample *s,
                        struct error *err)
{
        struct str base64 = str_of(spec->user_event_base64);

        if (text && text->kind == NODE_STRING)
                buf_str(&s->value, text->text);
        else if (base64.n) {
                s->origin.base64 = base64;
                if (!buf_unbase64(&s->value, base64))
                        return error_set(err, ERROR_INVALID, "userEventBase64: is no Base64");
        } else
                buf_text(&s->value, spec->user_event);
        return s->value.failed ? error_memory(err) : 0;
}

static int timer_sample(const struct trigger *t, const struct node *document, usec wall, struct record **out,
                        struct error *err)
{
        const struct timer_spec *spec = t->source_spec;
        struct sample *s;
        usec time = 0;

        if (shape_members(document, "time, userEvent", err) < 0)
                return -1;
        s = calloc(1, sizeof(*s));
        if (!s)
                return error_memory(err);
        s->value.max = (size_t)64 << 20;
        s->id.max = 4096;
        if (timer_schedule(spec, NULL, &s->schedule, err) < 0 ||
            sample_time(&s->schedule, node_member(document, "time"), wall, &time, err) < 0 ||
            sample_value(spec, node_member(document, "userEvent"), s, err) < 0) {
                timer_sample_free(&s->record);
                return -1;
        }
        tick_id(t, time, &s->id);
        s->origin.zone = s->schedule.zone;
        s->record = (struct record){ .position = (uint64_t)time,
                                     .time = time,
                                     .id = buf_view(&s->id),
                                     .value = buf_view(&s->value),
                                     .origin = &s->origin };
        *out = &s->record;
        return 0;
}

const struct shape timer_shape = {
        .ce_type = "dev.sluice.timer.tick",
        .describe = timer_describe,
        .encode = timer_encode,
        .event = timer_event,
        .sample = timer_sample,
        .sample_free = timer_sample_free,
};
