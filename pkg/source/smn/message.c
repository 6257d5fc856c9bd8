/* SMN's event, as FunctionGraph gives it to functions (FunctionGraph user guide, "Supported Event Sources").
 */
#include <jansson.h>
#include <stdio.h>

#include "event/outer.h"
#include "json/check.h"
#include "source/smn/smn.h"

struct smn_message *smn_message_new(const struct trigger *t, usec received, struct notification *n)
{
        struct smn_message *m = calloc(1, sizeof(*m));

        if (!m) {
                notification_done(n);
                return NULL;
        }
        m->trigger = t;
        m->notification = *n;
        *n = (struct notification){ 0 };
        m->received = received;
        m->record = (struct record){ .id = m->notification.message_id,
                                     .value = m->notification.message,
                                     .time = m->notification.time,
                                     .origin = m };
        return m;
}

void smn_message_free(struct smn_message *m)
{
        if (!m)
                return;
        notification_done(&m->notification);
        free(m);
}

/* ---- shapes ------------------------------------------------------------- */

static void write_text(struct writer *w, struct str s)
{
        if (s.p)
                writer_string(w, s);
        else
                writer_null(w);
}

/* The function's name in FunctionGraph's own notation, made up where the Trigger does not give it. */
static void function_urn(const struct smn_message *m, struct buf *b)
{
        const struct trigger *t = m->trigger;
        const struct function_spec *f = t->function;
        struct str region, project, name;

        if (f && f->urn) {
                buf_text(b, f->urn);
                return;
        }
        if (!notification_urn(m->notification.topic_urn, &region, &project, &name))
                region = project = (struct str){ 0 };
        if (t->event && t->event->region && t->event->region[0])
                region = str_of(t->event->region);
        if (f && f->project)
                project = str_of(f->project);
        buf_printf(b, "urn:fss:" STR_FMT ":" STR_FMT ":function:%s:%s:%s", STR_ARG(region), STR_ARG(project),
                   f && f->package ? f->package : "default", f && f->name ? f->name : t->name,
                   f && f->version ? f->version : "latest");
}

static void write_record(const struct smn_message *m, bool parsed, struct writer *w)
{
        BUF_AT_END struct buf urn = BUF_INIT(4096);
        const struct notification *n = &m->notification;

        function_urn(m, &urn);
        w->out->failed = w->out->failed || urn.failed;
        writer_object(w);
        writer_member_text(w, "event_version", "1.0");
        writer_key(w, STR("smn"));
        writer_object(w);
        writer_key(w, STR("message_attributes"));
        writer_null(w);
        writer_key(w, STR("subject"));
        write_text(w, n->subject);
        writer_member_string(w, "message_id", n->message_id);
        writer_member_string(w, "topic_urn", n->topic_urn);
        writer_member_text(w, "type", "notification");
        writer_key(w, STR("message"));
        if (parsed && json_is_value(json_without_mark(n->message), &w->out->failed))
                writer_raw(w, json_without_mark(n->message));
        else
                writer_string(w, n->message);
        writer_member_string(w, "timestamp", n->timestamp);
        writer_object_end(w);
        writer_member_text(w, "event_source", "smn");
        writer_member_string(w, "event_subscription_urn", buf_view(&urn));
        writer_object_end(w);
}

void smn_encode(const struct trigger *t, struct record *const *records, size_t n, struct writer *w)
{
        const struct smn_message *first = records[0]->origin;

        writer_object(w);
        writer_key(w, STR("record"));
        writer_array(w);
        for (size_t i = 0; i < n; i++)
                write_record(records[i]->origin, false, w);
        writer_array_end(w);
        if (t->event->dialect == DIALECT_CLASSIC)
                outer_write(t, first->notification.message_id, first->received, w);
        writer_object_end(w);
}

void smn_describe(const struct record *r, struct writer *w) { write_record(r->origin, true, w); }

void smn_event(const struct trigger *t, const struct record *r, struct buf *space, struct cloud_event *e)
{
        const struct smn_message *m = r->origin;

        cloudevent_source(t, NULL, space);
        *e = (struct cloud_event){
                .id = r->id, .source = buf_view(space), .subject = m->notification.subject, .time = r->time
        };
        if (r->value.n == 0)
                return;
        cloudevent_data(e, r->value, (struct str){ 0 });
}

/* ---- samples ------------------------------------------------------------ */

static json_t *sample_body(usec wall, const char *topic_urn, const struct node *document)
{
        static const char *const names[] = { "message_id", "topic_urn", "subject", "message", "timestamp" };
        json_t *body = json_object();
        BUF_AT_END struct buf now = BUF_INIT(64);

        time_format(&now, wall / USEC_SEC * USEC_SEC);
        (void)json_object_set_new(body, "type", json_string("Notification"));
        (void)json_object_set_new(body, "message_id", json_string("a5dbd701d70d4ac2a153e7dd6dd9b601"));
        (void)json_object_set_new(body, "topic_urn", json_string(topic_urn));
        (void)json_object_set_new(body, "message", json_string(""));
        (void)json_object_set_new(body, "timestamp", json_string(now.p));
        (void)json_object_set_new(body, "signing_cert_url", json_string("none"));
        (void)json_object_set_new(body, "signature", json_string("none"));
        for (size_t i = 0; i < COUNT_OF(names); i++) {
                const struct node *n = node_member(document, names[i]);

                if (n && n->kind == NODE_STRING)
                        (void)json_object_set_new(body, names[i], json_stringn(n->text.p, n->text.n));
                else if (n && n->kind != NODE_NULL) { /* what a filter sees parsed */
                        BUF_AT_END struct buf text = BUF_INIT(1 << 20);
                        struct writer w;

                        writer_init(&w, &text);
                        node_write(n, &w);
                        (void)json_object_set_new(body, names[i], json_stringn(text.p, text.n));
                }
        }
        return body;
}

/* Of an event, of one of its records, or of the notification alone: the notification. NULL: it has other
 * members. */
static const struct node *notification_of(const struct node *document, struct error *err)
{
        const struct node *record = node_member(document, "record");

        if (record && shape_members(document, "record", err) < 0)
                return NULL;
        if (record && record->kind == NODE_LIST && record->n)
                document = record->items[0];
        if (node_member(document, "smn")) {
                if (shape_members(document, "event_version, smn, event_source, event_subscription_urn", err) <
                    0)
                        return NULL;
                document = node_member(document, "smn");
        }
        return shape_members(document,
                             "message_attributes, subject, message_id, topic_urn, type, message, timestamp",
                             err) < 0
                       ? NULL
                       : document;
}

int smn_sample(const struct trigger *t, const struct node *document, usec wall, struct record **out,
               struct error *err)
{
        /* topicURN stands first in the specs of all that use this */
        const struct smn_spec *s = t->source_spec;
        const struct node *inner = notification_of(document, err);
        json_t *body = inner ? sample_body(wall, s->topic_urn, inner) : NULL;
        FREE_AT_END char *text = body ? json_dumps(body, 0) : NULL;
        struct notification n;
        struct smn_message *m;
        const char *why;

        if (!inner)
                return -1;
        json_decref(body);
        if (!text)
                return error_memory(err);
        if (notification_parse(str_of(text), &n, &why) < 0)
                return why ? error_set(err, ERROR_INVALID, "%s", why) : error_memory(err);
        m = smn_message_new(t, wall, &n);
        if (!m)
                return error_memory(err);
        *out = &m->record;
        return 0;
}

void smn_sample_free(struct record *r)
{
        if (r)
                smn_message_free(CONTAINER_OF(r, struct smn_message, record));
}
