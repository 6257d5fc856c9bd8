#include "source/replay/replay.h"

#include <errno.h>
#include <stdio.h>

#include "json/value.h"
#include "source/kafka/kafka.h"

/* ---- letters --------------------------------------------------------------------------------------------------------------------------- */

static bool is_cloud_event(json_t *root) { return json_member(root, "specversion").n > 0; }

int replay_check(struct str letter, struct error *err)
{
        json_error_t why;
        json_t *root = json_loadb(letter.p, letter.n, 0, &why);
        int result = 0;

        if (!json_is_object(root))
                result = error_set(err, ERROR_INVALID, "no JSON object: %s", root ? "it is another value" : why.text);
        else if (!is_cloud_event(root) && !json_member(root, "request_payload").p)
                result = error_set(err, ERROR_INVALID, "no dead letter: it has neither request_payload nor specversion");
        json_decref(root);
        return result;
}

static void letter_describe(const struct record *r, struct writer *w) { writer_raw(w, r->value); }

static void letter_encode(const struct services *services UNUSED, enum dialect dialect UNUSED, struct record *const *records, size_t n UNUSED, struct writer *w)
{
        json_t *root = json_loadb(records[0]->value.p, records[0]->value.n, 0, NULL);
        struct str payload = json_member(root, "request_payload");

        /* A CloudEvent that a FunctionGraph function is to get: its data. */
        if (payload.p)
                buf_str(w->out, payload);
        else {
                char *data = json_dumps(json_object_get(root, "data"), JSON_COMPACT | JSON_ENCODE_ANY);

                buf_text(w->out, data ? data : "null");
                free(data);
        }
        json_decref(root);
}

static struct str keep(struct buf *space, struct str text)
{
        size_t from = space->n;

        buf_str(space, text);
        return (struct str){ space->p + from, space->failed ? 0 : text.n };
}

static void letter_data(json_t *root, struct buf *space, struct cloud_event *e)
{
        json_t *data = json_object_get(root, "data");
        struct str base64 = json_member(root, "data_base64"), type = json_member(root, "datacontenttype");
        size_t from;

        e->content_type = type.n ? keep(space, type) : STR("application/json");
        from = space->n;
        if (base64.p)
                space->failed = !buf_unbase64(space, base64) || space->failed;
        else if (json_is_string(data) && !strstr(type.p ? type.p : "json", "json"))
                buf_str(space, json_member(root, "data"));
        else if (data) {
                char *text = json_dumps(data, JSON_COMPACT | JSON_ENCODE_ANY);

                buf_text(space, text ? text : "null");
                free(text);
                e->json = true;
        } else
                return;
        e->data = (struct str){ space->p + from, space->n - from };
}

static void letter_event(const struct services *services, const struct record *r, struct buf *space, struct cloud_event *e)
{
        json_t *root = json_loadb(r->value.p, r->value.n, 0, NULL);
        struct str payload = json_member(root, "request_payload"), time = json_member(root, "time");

        *e = (struct cloud_event){ .id = r->id };
        if (buf_reserve(space, r->value.n * 2 + 1024)) { /* views into it stay */
                if (payload.p) {
                        cloudevent_source(services->trigger, "replay", space);
                        e->source = buf_view(space);
                        e->data = keep(space, payload);
                        e->content_type = STR("application/json");
                        e->json = true;
                } else {
                        e->source = keep(space, json_member(root, "source"));
                        e->type = keep(space, json_member(root, "type"));
                        e->subject = keep(space, json_member(root, "subject"));
                        if (json_member(root, "partitionkey").p)
                                e->key = keep(space, json_member(root, "partitionkey"));
                        if (time.p && !time_parse(time, &e->time))
                                e->time = 0;
                        letter_data(root, space, e);
                }
        }
        json_decref(root);
}

/* ---- a topic --------------------------------------------------------------------------------------------------------------------------- */

/* The event's own id, not the letter's. */
static size_t topic_poll(struct source *s, struct source_event *events, size_t max, usec now)
{
        size_t n = kafka_driver.poll(s, events, max, now);

        for (size_t i = 0; i < n; i++) {
                struct str id;

                if (events[i].kind != SOURCE_EVENT_RECORD)
                        continue;
                id = kafka_driver.header(events[i].record, "sluice-event-id");
                if (id.n)
                        events[i].record->id = id;
        }
        return n;
}

const struct driver *replay_kafka_driver(void)
{
        static struct driver d;

        d = kafka_driver;
        d.poll = topic_poll;
        d.describe = letter_describe;
        d.encode = letter_encode;
        d.event = letter_event;
        d.header = NULL;
        return &d;
}

/* ---- a file ---------------------------------------------------------------------------------------------------------------------------- */

enum { LINE_MOST = 96 << 20 };

struct letter { struct record record; char *text; char id[]; };

struct source {
        FILE *file;
        const char *path;
        const struct services *services;
        struct task *wake;
        uint64_t line, lent;
        int64_t credit, bytes;
        bool told_state, told_track, ended, failed, stopping, revoking, revoked, told_closed;
        char text[480];
};

static int file_open(struct source **out, const void *spec_, const struct services *services, struct task *wake, struct error *err)
{
        const struct replay_file_spec *spec = spec_;
        struct source *s = calloc(1, sizeof(*s));

        if (!s)
                return error_memory(err);
        s->path = strcmp(spec->path, "-") == 0 ? "/dev/stdin" : spec->path;
        s->file = fopen(s->path, "re");
        if (!s->file) {
                free(s);
                return error_errno(err, errno, "open %s", spec->path);
        }
        s->services = services;
        s->wake = wake;
        *out = s;
        return 0;
}

static struct letter *letter_new(struct source *s, char *text, size_t n)
{
        json_t *root = json_loadb(text, n, 0, NULL);
        struct str id = json_member(root, "event_id"), ce = json_member(root, "id"), request = json_member(json_object_get(root, "request_context"), "request_id");
        char number[32];
        struct letter *l;

        (void)snprintf(number, sizeof(number), "line-%llu", (unsigned long long)s->line);
        id = id.n ? id : is_cloud_event(root) && ce.n ? ce : request.n ? request : str_of(number);
        l = malloc(sizeof(*l) + id.n + 1);
        if (l) {
                memcpy(l->id, id.p, id.n);
                l->text = text;
                l->record = (struct record){ .position = s->line, .pinned = (uint32_t)MIN_OF(n, (size_t)UINT32_MAX), .id = { l->id, id.n }, .value = { text, n } };
        }
        json_decref(root);
        return l;
}

/* The next letter; NULL: none more, or none that can be read. */
static struct letter *read_letter(struct source *s)
{
        char *line = NULL;
        size_t cap = 0;
        struct error err;

        for (;;) {
                ssize_t n = getline(&line, &cap, s->file);
                struct letter *l;

                if (n < 0) {
                        s->ended = true;
                        free(line);
                        return NULL;
                }
                s->line++;
                if (str_trim((struct str){ line, (size_t)n }).n == 0)
                        continue;
                if (n > LINE_MOST || replay_check((struct str){ line, (size_t)n }, &err) < 0 || !(l = letter_new(s, line, (size_t)n))) {
                        (void)snprintf(s->text, sizeof(s->text), "%s:%llu: %.300s", s->path, (unsigned long long)s->line, n > LINE_MOST ? "longer than 96 MiB" : err.text);
                        s->failed = true;
                        s->told_state = false;
                        free(line);
                        return NULL;
                }
                return l;
        }
}

static size_t file_poll(struct source *s, struct source_event *events, size_t max, usec now UNUSED)
{
        size_t n = 0;

        if (!s->told_state && n < max) {
                s->told_state = true;
                events[n++] = (struct source_event){ .kind = SOURCE_EVENT_STATE, .state = s->failed ? SOURCE_FAILED : SOURCE_CONNECTED, .text = s->text };
        }
        if (!s->told_track && n < max) {
                s->told_track = true;
                events[n++] = (struct source_event){ .kind = SOURCE_EVENT_ASSIGNED };
        }
        while (!s->stopping && !s->ended && !s->failed && s->credit > 0 && s->bytes > 0 && n < max) {
                struct letter *l = read_letter(s);

                if (!l)
                        break;
                s->lent++;
                s->credit--;
                s->bytes -= l->record.pinned;
                events[n++] = (struct source_event){ .kind = SOURCE_EVENT_RECORD, .record = &l->record };
        }
        if (s->failed && !s->told_state && n < max)
                loop_ready(s->services->loop, s->wake);
        if (s->stopping && !s->revoking && n < max) {
                s->revoking = true;
                events[n++] = (struct source_event){ .kind = SOURCE_EVENT_REVOKING, .give_up_at = USEC_NEVER };
        }
        if (s->revoked && !s->told_closed && n < max) {
                s->told_closed = true;
                events[n++] = (struct source_event){ .kind = SOURCE_EVENT_CLOSED };
        }
        return n;
}

static void file_credit(struct source *s, uint32_t track UNUSED, uint32_t records, size_t bytes)
{
        s->credit += records;
        s->bytes += (int64_t)bytes;
        loop_ready(s->services->loop, s->wake);
}

static void file_settle(struct source *s, struct record *r, enum outcome outcome UNUSED)
{
        struct letter *l = CONTAINER_OF(r, struct letter, record);

        s->lent--;
        free(l->text);
        free(l);
}

static void file_stop(struct source *s)
{
        s->stopping = true;
        loop_ready(s->services->loop, s->wake);
}

static void file_revoked(struct source *s, uint32_t track UNUSED)
{
        s->revoked = true;
        loop_ready(s->services->loop, s->wake);
}

static struct source *file_free(struct source *s)
{
        if (!s)
                return NULL;
        (void)fclose(s->file);
        free(s);
        return NULL;
}

static usec file_deadline(const struct source *s UNUSED) { return USEC_NEVER; }
static bool file_detach(struct source *s UNUSED, struct record *r UNUSED) { return true; }
static void file_commit(struct source *s UNUSED, uint32_t track UNUSED, uint64_t next UNUSED) {}
static int64_t file_lag(const struct source *s UNUSED) { return -1; }
static bool file_drained(const struct source *s) { return (s->ended || s->failed) && s->lent == 0; }
static void file_origin(const struct trigger *t UNUSED, struct buf *b) { buf_text(b, "dead letters"); }

const struct driver replay_file_driver = {
        .name = "replay", .ce_type = "dev.sluice.replay", .open = file_open, .credit = file_credit, .poll = file_poll, .deadline = file_deadline, .settle = file_settle,
        .detach = file_detach, .commit = file_commit, .revoked = file_revoked, .stop = file_stop, .free = file_free, .lag = file_lag, .drained = file_drained,
        .describe = letter_describe, .encode = letter_encode, .event = letter_event, .origin = file_origin,
};
