#include "source/replay/letter.h"

#include "json/check.h"
#include "json/scan.h"

struct reading {
        struct letter_view *view;
        bool payload, truncated;
};

static int is_twice(struct error *err, const char *name)
{
        return error_set(err, ERROR_INVALID, "%s is there twice", name);
}

static int read_text(struct scan *s, struct str *raw, const char *name, struct error *err)
{
        bool escaped;

        if (raw->p)
                return is_twice(err, name);
        if (scan_peek(s) != '"')
                return scan_skip(s, SCAN_ANY_DEPTH)
                               ? 0
                               : error_set(err, ERROR_INVALID, "%s", s->fault ? s->fault : "no JSON");
        return scan_string(s, raw, &escaped) ? 0 : error_set(err, ERROR_INVALID, "%s", s->fault);
}

static int read_context(struct scan *s, struct letter_view *v, struct error *err)
{
        if (!scan_take(s, '{'))
                return scan_skip(s, SCAN_ANY_DEPTH)
                               ? 0
                               : error_set(err, ERROR_INVALID, "%s", s->fault ? s->fault : "no JSON");
        if (scan_take(s, '}'))
                return 0;
        do {
                struct str name;
                bool escaped;

                if (!scan_name(s, &name, &escaped))
                        return error_set(err, ERROR_INVALID, "%s", s->fault);
                if (str_is(name, "request_id")) {
                        if (read_text(s, &v->request_id, "request_id", err) < 0)
                                return -1;
                } else if (!scan_skip(s, SCAN_ANY_DEPTH))
                        return error_set(err, ERROR_INVALID, "%s", s->fault ? s->fault : "no JSON");
        } while (scan_more(s, '}'));
        return s->fault ? error_set(err, ERROR_INVALID, "%s", s->fault) : 0;
}

static int read_member(struct scan *s, struct reading *r, struct error *err)
{
        struct letter_view *v = r->view;
        struct str name;
        bool escaped;

        if (!scan_name(s, &name, &escaped))
                return error_set(err, ERROR_INVALID, "%s", s->fault);
        if (str_is(name, "request_payload"))
                return read_text(s, &v->payload, "request_payload", err);
        if (str_is(name, "event_id"))
                return read_text(s, &v->event_id, "event_id", err);
        if (str_is(name, "id"))
                return read_text(s, &v->id, "id", err);
        if (str_is(name, "request_context"))
                return read_context(s, v, err);
        v->cloud = v->cloud || str_is(name, "specversion");
        r->truncated = r->truncated || str_is(name, "sluicetruncated") ||
                       (str_is(name, "truncated") && scan_peek(s) == 't');
        return scan_skip(s, SCAN_ANY_DEPTH)
                       ? 0
                       : error_set(err, ERROR_INVALID, "%s", s->fault ? s->fault : "no JSON");
}

static int read_members(struct str text, struct reading *r, struct error *err)
{
        struct scan s;

        scan_init(&s, text);
        if (!scan_take(&s, '{'))
                return error_set(err, ERROR_INVALID, "no JSON object");
        if (!scan_take(&s, '}')) {
                do {
                        if (read_member(&s, r, err) < 0)
                                return -1;
                } while (scan_more(&s, '}'));
        }
        if (s.fault || scan_peek(&s) != '\0' || s.p != s.end)
                return error_set(err, ERROR_INVALID, "no JSON: %s",
                                 s.fault ? s.fault : "something follows the object");
        return 0;
}

static int check_envelope(const struct letter_view *v, struct error *err)
{
        BUF_AT_END struct buf decoded = BUF_INIT(BUF_DEFAULT_MAX * 2);

        if (!v->payload.p)
                return error_set(err, ERROR_INVALID,
                                 "no dead letter: it has neither request_payload nor specversion");
        if (v->payload.n == 0)
                return error_set(err, ERROR_INVALID, "request_payload is empty: there is no event in it");
        if (!scan_decode(v->payload, &decoded))
                return error_set(err, ERROR_INVALID,
                                 "request_payload: half of a surrogate pair, which no text can hold");
        return decoded.failed ? error_memory(err) : 0;
}

static int check_cloud_event(struct str text, enum event_format format, struct error *err)
{
        BUF_AT_END struct buf space = BUF_INIT(BUF_DEFAULT_MAX * 2);
        struct cloud_event e;

        if (cloudevent_read(text, &space, &e, err) < 0)
                return error_wrap(err, "no CloudEvent");
        if (format == FORMAT_FUNCTION_GRAPH && !e.data.p)
                return error_set(
                        err, ERROR_INVALID,
                        "the CloudEvent has no data, and FunctionGraph's format carries nothing else");
        if (format == FORMAT_FUNCTION_GRAPH && !e.json && (e.bytes || !str_is_utf8(e.data)))
                return error_set(err, ERROR_INVALID,
                                 "the CloudEvent's data is neither JSON nor text, which FunctionGraph's "
                                 "format can't carry as it is");
        return 0;
}

int letter_read(struct str text, enum event_format format, struct letter_view *v, struct error *err)
{
        struct reading r = { .view = v };

        *v = (struct letter_view){ 0 };
        if (!str_is_utf8(text))
                return error_set(err, ERROR_INVALID, "no UTF-8");
        if (read_members(text, &r, err) < 0)
                return -1;
        if (r.truncated)
                return error_set(err, ERROR_INVALID,
                                 "the letter was cut to fit its receiver: the event is not there as a whole");
        return v->cloud ? check_cloud_event(text, format, err) : check_envelope(v, err);
}

static void letter_describe(const struct record *r, struct writer *w) { writer_raw(w, r->value); }

static bool view_of(const struct record *r, struct letter_view *v)
{
        struct reading reading = { .view = v };
        struct error err;

        *v = (struct letter_view){ 0 };
        return read_members(r->value, &reading, &err) == 0;
}

static void letter_encode(const struct trigger *t UNUSED, struct record *const *records, size_t n UNUSED,
                          struct writer *w)
{
        BUF_AT_END struct buf space = BUF_INIT(BUF_DEFAULT_MAX * 2);
        struct letter_view v;
        struct cloud_event e;
        struct error err;

        if (view_of(records[0], &v) && !v.cloud && v.payload.n)
                (void)scan_decode(v.payload, w->out);
        else if (!v.cloud || cloudevent_read(records[0]->value, &space, &e, &err) < 0)
                w->out->failed = true; /* it was refused before */
        else if (e.json)
                buf_str(w->out, e.data);
        else
                writer_string(w, e.data); /* an event is JSON: text as a string */
}

/* What the dead letter told of it is no part of the event. */
static void drop_told(struct cloud_event *e, struct cloud_attribute *own)
{
        size_t kept = 0;

        for (size_t i = 0; i < e->own_n; i++)
                if (!cloudevent_is_letters(own[i].name))
                        own[kept++] = own[i];
        if (kept < e->own_n)
                e->whole = (struct str){ 0 };
        e->own_n = kept;
}

static void letter_event(const struct trigger *t, const struct record *r, struct buf *space,
                         struct cloud_event *e)
{
        struct letter_view v;
        struct error err;
        size_t from;

        *e = (struct cloud_event){ .id = r->id };
        if (view_of(r, &v) && v.cloud) {
                if (cloudevent_read(r->value, space, e, &err) < 0)
                        space->failed = true;
                else
                        drop_told(e, (struct cloud_attribute *)(void *)space->p);
                return;
        }
        if (!buf_reserve(space, v.payload.n + 1024)) /* views into it stay */
                return;
        cloudevent_source(t, "replay", space);
        e->source = buf_view(space);
        from = space->n;
        (void)scan_decode(v.payload, space);
        cloudevent_data(e, (struct str){ space->p + from, space->n - from }, (struct str){ 0 });
}

const struct shape letter_shape = {
        .ce_type = "dev.sluice.replay",
        .describe = letter_describe,
        .encode = letter_encode,
        .event = letter_event,
};
