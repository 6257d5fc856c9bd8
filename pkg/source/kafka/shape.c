#include <stdio.h>

#include "base/pairs.h"
#include "json/check.h"
#include "source/kafka/inside.h"

/* ---- shapes ------------------------------------------------------------- */

/* 0: it is not known, or none that a clock could show. */
usec message_time(int64_t timestamp)
{
        usec time;

        return timestamp == -1 || __builtin_mul_overflow(timestamp, USEC_MSEC, &time) ? 0 : time;
}

/* By Schema Registry: a NUL byte, the schema's id, the data. Some of them are UTF-8 by chance, and whoever
 * decodes them expects one form. */
static bool is_framed(struct str value) { return value.n && value.p[0] == 0; }

static void json_payload(struct writer *w, const struct record *r)
{
        if (r->null_value)
                writer_null(w);
        else if (str_is_utf8(r->value) && !is_framed(r->value))
                writer_string(w, r->value);
        else
                writer_base64(w, r->value);
}

rd_kafka_headers_t *message_headers(struct message *m)
{
        if (!m->native || m->headers_known)
                return m->headers;
        m->headers_known = true;
        if (rd_kafka_message_headers(m->native, &m->headers) != RD_KAFKA_RESP_ERR_NO_ERROR)
                m->headers = NULL;
        return m->headers;
}

static rd_kafka_headers_t *headers_of(const struct record *r)
{
        return message_headers((struct message *)(uintptr_t)r->origin);
}

static struct str kafka_header(const struct record *r, const char *name)
{
        const rd_kafka_headers_t *headers = headers_of(r);
        const void *value = NULL;
        size_t n = 0;

        if (!headers || rd_kafka_header_get_last(headers, name, &value, &n) != RD_KAFKA_RESP_ERR_NO_ERROR ||
            !value)
                return (struct str){ 0 };
        return (struct str){ value, n };
}

static void write_header(struct writer *w, struct str value)
{
        if (value.p)
                writer_string(w, value);
        else
                writer_null(w);
}

/* By name; a name that comes more than once has a list. */
static void describe_headers(const rd_kafka_headers_t *headers, struct writer *w)
{
        PAIRS_AT_END struct pairs p = PAIRS_INIT(false);
        const char *name;
        const void *value;
        size_t n;

        for (size_t i = 0;
             headers && rd_kafka_header_get_all(headers, i, &name, &value, &n) == RD_KAFKA_RESP_ERR_NO_ERROR;
             i++)
                pairs_add(&p, str_of(name), (struct str){ value, value ? n : 0 });
        pairs_group(&p);
        writer_object(w);
        for (size_t i = 0; i < p.n; i++) {
                const struct pair *at = &p.list[i];

                if (at->again)
                        continue;
                writer_key(w, at->name);
                if (at->next == PAIRS_END) {
                        write_header(w, at->value);
                        continue;
                }
                writer_array(w);
                for (uint32_t k = (uint32_t)i; k != PAIRS_END; k = p.list[k].next)
                        write_header(w, p.list[k].value);
                writer_array_end(w);
        }
        writer_object_end(w);
        w->out->failed = w->out->failed || p.failed;
}

static void kafka_describe(const struct record *r, struct writer *w)
{
        const struct message *m = r->origin;

        writer_object(w);
        writer_member_text(w, "topic", m->partition->topic);
        writer_member_int(w, "partition", m->partition->number);
        writer_member_int(w, "offset", (int64_t)r->position);
        writer_member_int(w, "timestamp", m->timestamp);
        writer_key(w, STR("key"));
        if (r->has_key)
                writer_string(w, r->key);
        else
                writer_null(w);
        writer_key(w, STR("headers"));
        describe_headers(headers_of(r), w);
        writer_key(w, STR("value"));
        if (!r->null_value && json_is_value(json_without_mark(r->value), &w->out->failed))
                writer_raw(w, json_without_mark(r->value));
        else
                json_payload(w, r);
        writer_object_end(w);
}

/* ---- CloudEvents as records (Kafka protocol binding 1.0.2) -------------- */

static bool is_structured(struct str type)
{
        struct str rest = type;

        return str_equal_nocase(str_trim(str_cut(&rest, ';')), STR("application/cloudevents+json"));
}

/* Binary mode: attributes are headers that begin with ce_, the value is the data. false: it is no valid
 * event, and a record like any other. */
static bool read_binary(const struct record *r, struct str type, struct buf *space, struct cloud_event *e)
{
        const rd_kafka_headers_t *headers = headers_of(r);
        struct cloud_attribute *list = headers ? cloudevent_attributes(space, 0) : NULL;
        const char *header;
        const void *value;
        bool versioned = false;
        size_t n;

        if (!list)
                return false;
        *e = (struct cloud_event){ .own = list };
        for (size_t i = 0;
             rd_kafka_header_get_all(headers, i, &header, &value, &n) == RD_KAFKA_RESP_ERR_NO_ERROR; i++) {
                struct cloud_attribute a = { .value = { value, value ? n : 0 } };

                if (strncmp(header, "ce_", 3) != 0 || !value)
                        continue; /* null: it is not set */
                a.name = str_of(header + 3);
                if (!cloudevent_name(a.name) || !cloudevent_attribute(a.name, a.value, false))
                        return false;
                for (size_t k = 0; k < e->own_n; k++)
                        if (str_equal(list[k].name, a.name))
                                return false;
                if (e->own_n == CLOUDEVENT_ATTRIBUTES_MOST)
                        return false;
                list[e->own_n++] = a;
        }
        for (size_t i = 0; i < e->own_n;) {
                struct str *const known = str_is(list[i].name, "id")       ? &e->id
                                          : str_is(list[i].name, "source") ? &e->source
                                          : str_is(list[i].name, "type")   ? &e->type
                                                                           : NULL;

                if (known)
                        *known = list[i].value;
                else if (str_is(list[i].name, "specversion"))
                        versioned = str_is(list[i].value, "1.0");
                else if (!str_is(list[i].name, "datacontenttype")) {
                        i++;
                        continue;
                }
                memmove(list + i, list + i + 1, (--e->own_n - i) * sizeof(*list));
        }
        if (r->null_value)
                cloudevent_no_data(e, type);
        else
                cloudevent_data(e, r->value, type);
        return versioned && e->id.n && e->source.n && e->type.n;
}

static bool own_event(const struct record *r, struct str type, struct buf *space, struct cloud_event *e)
{
        struct error err = { 0 };

        if (is_structured(type) ? !r->null_value && cloudevent_read(r->value, space, e, &err) == 0
                                : kafka_header(r, "ce_specversion").n && read_binary(r, type, space, e))
                return true;
        /* Where memory is out it may be one: it is no other, and is read again. */
        space->failed = space->failed || err.kind == ERROR_MEMORY;
        if (space->failed && !space->full)
                return true;
        buf_reset(space);
        return false;
}

static void kafka_event(const struct trigger *t, const struct record *r, struct buf *space,
                        struct cloud_event *e)
{
        const struct message *m = r->origin;
        struct str type = kafka_header(r, "content-type");
        size_t subject;

        *e = (struct cloud_event){ .id = r->id };
        if (own_event(r, type, space, e) || !buf_reserve(space, 1024))
                return;
        cloudevent_source(t, m->partition->topic, space);
        subject = space->n;
        buf_printf(space, "partition:%d#%lld", m->partition->number, (long long)r->position);
        *e = (struct cloud_event){ .id = r->id,
                                   .source = { space->p, subject },
                                   .subject = { space->p + subject, space->n - subject },
                                   .time = r->time };
        if (r->has_key)
                e->key = r->key;
        if (!r->null_value)
                cloudevent_data(e, r->value, type);
}

static void messages(struct writer *w, struct record *const *records, size_t n)
{
        writer_key(w, STR("messages"));
        writer_array(w);
        for (size_t i = 0; i < n; i++)
                json_payload(w, records[i]);
        writer_array_end(w);
}

static void kafka_encode(const struct trigger *t, struct record *const *records, size_t n, struct writer *w)
{
        const struct message *m = records[0]->origin;
        const struct event_spec *event = t->event;
        usec time = records[0]->time ? records[0]->time : m->lent_at;

        writer_object(w);
        writer_member_text(w, "event_version", "v1.0");
        writer_member_int(w, "event_time", time / USEC_SEC);
        writer_member_text(w, "trigger_type", "KAFKA");
        writer_member_text(w, "region", event->region ? event->region : "");
        if (event->dialect == DIALECT_CLASSIC)
                messages(w, records, n);
        else {
                writer_key(w, STR("records"));
                writer_array(w);
                writer_object(w);
                messages(w, records, n);
                writer_member_text(w, "topic_id", m->partition->topic);
                writer_object_end(w);
                writer_array_end(w);
        }
        writer_member_text(w, "instance_id", event->instance_id ? event->instance_id : "");
        if (event->dialect == DIALECT_CLASSIC)
                writer_member_text(w, "topic_id", m->partition->topic);
        writer_object_end(w);
}

/* ---- previews ----------------------------------------------------------- */

struct sample {
        struct partition partition;
        struct buf key, value;
};

static void sample_bytes(const struct node *n, struct buf *b)
{
        struct writer w;

        writer_init(&w, b);
        if (n->kind == NODE_STRING)
                buf_str(b, n->text);
        else
                node_write(n, &w);
}

static int64_t sample_int(const struct node *document, const char *name, int64_t otherwise)
{
        const struct node *n = node_member(document, name);

        return n && n->kind == NODE_INT ? n->integer : otherwise;
}

static void sample_headers(struct message *m, const struct node *headers)
{
        if (!headers || headers->kind != NODE_MAP || !(m->headers = rd_kafka_headers_new(headers->n)))
                return;
        for (size_t i = 0; i < headers->n; i++)
                (void)rd_kafka_header_add(
                        m->headers, headers->members[i].key.p, (ssize_t)headers->members[i].key.n,
                        headers->members[i].value->text.p, (ssize_t)headers->members[i].value->text.n);
}

static void kafka_sample_free(struct record *r)
{
        struct message *m;
        struct sample *s;

        if (!r)
                return;
        m = CONTAINER_OF(r, struct message, record);
        s = CONTAINER_OF(m->partition, struct sample, partition);
        if (m->headers)
                rd_kafka_headers_destroy(m->headers);
        buf_done(&s->key);
        buf_done(&s->value);
        free(s->partition.topic);
        free(s);
        free(m);
}

static int kafka_sample(const struct trigger *t, const struct node *document, usec wall, struct record **out,
                        struct error *err)
{
        const struct kafka_spec *spec = t->source_spec;
        const struct node *topic = node_member(document, "topic"), *key = node_member(document, "key"),
                          *value = node_member(document, "value");
        int64_t offset = sample_int(document, "offset", 0),
                time = sample_int(document, "timestamp", wall / USEC_MSEC);
        struct message *m;
        struct sample *s;

        if (shape_members(document, "topic, partition, offset, timestamp, key, headers, value", err) < 0)
                return -1;
        s = calloc(1, sizeof(*s));
        m = s ? calloc(1, sizeof(*m) + 512) : NULL;
        if (!m) {
                free(s);
                return error_memory(err);
        }
        m->partition = &s->partition;
        m->lent_at = wall;
        s->key.max = s->value.max = BUF_DEFAULT_MAX;
        s->partition.topic = topic && topic->kind == NODE_STRING
                                     ? str_dup(topic->text)
                                     : str_dup(spec->topics.n ? str_of(spec->topics.list[0]) : STR("topic"));
        s->partition.number = (int32_t)sample_int(document, "partition", 0);
        sample_headers(m, node_member(document, "headers"));
        if (value)
                sample_bytes(value, &s->value);
        if (key && key->kind != NODE_NULL)
                sample_bytes(key, &s->key);
        if (!s->partition.topic || s->key.failed || s->value.failed) {
                kafka_sample_free(&m->record);
                return error_memory(err);
        }
        m->timestamp = time;
        m->record = (struct record){ .position = (uint64_t)offset,
                                     .time = message_time(time),
                                     .key = buf_view(&s->key),
                                     .has_key = key && key->kind != NODE_NULL,
                                     .value = buf_view(&s->value),
                                     .null_value = !value || value->kind == NODE_NULL,
                                     .origin = m };
        m->record.id = (struct str){ m->id, (size_t)snprintf(m->id, 512, "%s/%d/%lld", s->partition.topic,
                                                             s->partition.number, (long long)offset) };
        *out = &m->record;
        return 0;
}

const struct shape kafka_shape = {
        .ce_type = "dev.sluice.kafka.message",
        .describe = kafka_describe,
        .encode = kafka_encode,
        .event = kafka_event,
        .header = kafka_header,
        .sample = kafka_sample,
        .sample_free = kafka_sample_free,
};
