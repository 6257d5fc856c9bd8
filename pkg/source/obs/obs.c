#include "source/obs/obs.h"

#include "source/cloud.h"
#include "source/obs/records.h"
#include "source/smn/notified.h"

/* ---- the spec ----------------------------------------------------------- */

static const char *const from_names[] = { [OBS_FROM_SMN] = "SMN", [OBS_FROM_WEBHOOK] = "Webhook", NULL };
static const struct field obs_fields[] = {
        FIELD(STRING, "bucket", struct obs_spec, bucket, .required = true, .min = 3, .max = 63,
              .pattern = "^[a-z0-9][a-z0-9.-]*$", .format = "a bucket's name", .cloud = "bucket",
              .help = "The bucket. Notifications of others are refused."),
        FIELD(STRINGS, "events", struct obs_spec, events, .max = 16,
              .pattern = "^Object(Created|Removed):([A-Za-z]+|[*])$",
              .format = "ObjectCreated:* or ObjectRemoved:*, or one of theirs such as ObjectCreated:Put",
              .cloud = "events",
              .help = "What is delivered; by default ObjectCreated:* and ObjectRemoved:*."),
        FIELD(STRING, "prefix", struct obs_spec, prefix, .max = 1024, .cloud = "prefix",
              .help = "How an object's key must begin."),
        FIELD(STRING, "suffix", struct obs_spec, suffix, .max = 1024, .cloud = "suffix",
              .help = "How an object's key must end."),
        FIELD(ENUM, "from", struct obs_spec, from, .fallback = "SMN", .values = from_names,
              .help = "How notifications come. SMN: the bucket publishes to a topic, which is subscribed to "
                      "the Trigger's path, /NAMESPACE/NAME. Webhook: an S3-compatible store posts them "
                      "there."),
        FIELD(STRING, "topicURN", struct obs_spec, smn.topic_urn, .former = "topicUrn",
              .pattern = TOPIC_URN_PATTERN, .format = TOPIC_URN_FORMAT, .help = "The topic; SMN only."),
        TOPIC_FIELDS(obs_spec, smn.),
        FIELD(OBJECT, "tokenSecretRef", struct obs_spec, token, .object = &secret_ref_type,
              .help = "The token that the store sends as Authorization: Bearer TOKEN; Webhook only. It may "
                      "change at any time."),
        FIELD(DURATION, "timeout", struct obs_spec, smn.timeout, .fallback = "4s", .min = 100 * USEC_MSEC,
              .max = 4 * USEC_SEC,
              .help = "How long the function may take. The sender waits about 5 seconds, then tries again."),
};

static bool needs_are_met(const void *object)
{
        const struct obs_spec *s = object;

        return s->from == OBS_FROM_SMN ? s->smn.topic_urn != NULL && !s->token
                                       : s->token != NULL && !s->smn.topic_urn && !s->smn.trusted &&
                                                 !s->smn.subscription && !s->smn.cloud;
}

static const struct rule obs_rules[] = {
        RULE(.cel = "self.from == 'SMN' ? has(self.topicURN) && !has(self.tokenSecretRef) : "
                    "has(self.tokenSecretRef) && !has(self.topicURN) && !has(self.trusted) && "
                    "!has(self.subscription) && !has(self.cloud)",
             .message = "from: SMN needs topicURN and no tokenSecretRef; from: Webhook needs tokenSecretRef, "
                        "and none of topicURN, trusted, subscription and cloud",
             .check = needs_are_met),
        TOPIC_RULES,
};
const struct type obs_type = TYPE("ObsSource", struct obs_spec, obs_fields,
                                  "What happens to the objects of a bucket.", RULES(obs_rules));

/* ---- records ------------------------------------------------------------ */

struct change { /* a record of ours */
        struct record record;
        struct message *message;
        struct obs_record of; /* the first, where it stands for several */
        char *list;           /* {"Records":[…]}, where it stands for several */
};

struct message { /* a notification */
        struct inbox_item item;
        size_t n;
        struct change changes[];
};

struct obs {
        struct notified notified; /* the first member */
        const struct obs_spec *spec;
        struct obs_token *token; /* Webhook */
};

static struct obs *obs_of(struct notified *s) { return CONTAINER_OF(s, struct obs, notified); }

static void message_free(struct message *m)
{
        for (size_t i = 0; i < m->n; i++) {
                obs_record_done(&m->changes[i].of);
                free(m->changes[i].list);
        }
        free(m);
}

static void set_record(struct message *m, size_t i)
{
        struct change *c = &m->changes[i];

        c->message = m;
        c->record = (struct record){ .id = str_of(c->of.id),
                                     .value = { c->of.json, c->of.json_n },
                                     .key = str_of(c->of.key),
                                     .has_key = true,
                                     .time = c->of.time,
                                     .origin = c };
}

/* CloudEvents of a kind that holds one record: several become one, whose data is their list. How many there
 * are then. */
static size_t join(struct message *m, struct record **records, size_t n)
{
        BUF_AT_END struct buf text = BUF_INIT(BUF_DEFAULT_MAX);
        struct change *first = CONTAINER_OF(records[0], struct change, record);

        buf_text(&text, "{\"Records\":[");
        for (size_t i = 0; i < n; i++) {
                if (i)
                        buf_char(&text, ',');
                buf_str(&text, records[i]->value);
        }
        buf_text(&text, "]}");
        free(first->list);
        first->list = buf_take(&text);
        if (!first->list)
                return INBOX_NO_MEMORY;
        set_record(m, (size_t)(first - m->changes));
        first->record.value = str_of(first->list);
        return 1;
}

/* What was delivered meanwhile is left out. */
static size_t records_of(struct notified *s, struct inbox_item *item, struct record **records, size_t most)
{
        struct message *m = CONTAINER_OF(item, struct message, item);
        int format = s->services->trigger->event->format;
        size_t n = 0;

        for (size_t i = 0; i < m->n && n < most; i++)
                if (!inbox_knows(s->inbox, str_of(m->changes[i].of.id)))
                        records[n++] = &m->changes[i].record;
        if (n > 1 && (format == FORMAT_CLOUDEVENTS_BINARY || format == FORMAT_CLOUDEVENTS_STRUCTURED))
                return join(m, records, n);
        return n;
}

static void drop_message(struct inbox_item *item) { message_free(CONTAINER_OF(item, struct message, item)); }

static struct inbox_item *item_of(struct record *r)
{
        return &CONTAINER_OF(r, struct change, record)->message->item;
}

static bool wants(const struct obs_spec *spec, const struct obs_record *r)
{
        static char created[] = "ObjectCreated:*", removed[] = "ObjectRemoved:*";
        static char *const all[] = { created, removed };
        size_t prefix = spec->prefix ? strlen(spec->prefix) : 0,
               suffix = spec->suffix ? strlen(spec->suffix) : 0, n = strlen(r->key);

        return strcmp(r->bucket, spec->bucket) == 0 &&
               (spec->events.n ? obs_event_matches(r->event, spec->events.list, spec->events.n)
                               : obs_event_matches(r->event, all, 2)) &&
               n >= prefix && n >= suffix && (!prefix || memcmp(r->key, spec->prefix, prefix) == 0) &&
               (!suffix || memcmp(r->key + n - suffix, spec->suffix, suffix) == 0);
}

/* The message of those that are wanted. NULL: memory is out. */
static struct message *message_of(const struct obs_spec *spec, struct obs_records *all)
{
        struct message *m = calloc(1, sizeof(*m) + all->n * sizeof(m->changes[0]));

        for (size_t i = 0; m && i < all->n; i++) {
                if (!wants(spec, &all->list[i]))
                        continue;
                m->changes[m->n].of = all->list[i];
                all->list[i] = (struct obs_record){ 0 };
                m->n++;
        }
        for (size_t i = 0; m && i < m->n; i++)
                set_record(m, i);
        return m;
}

/* ---- notifications ------------------------------------------------------ */

/* status 0: it is in the inbox, where it keeps so many bytes, or refused */
struct verdict {
        int status;
        const char *text;
        enum refusal refusal;
        size_t kept;
};

/* Bytes of memory, of a message that was made for n records: a short record has several pieces, which may be
 * ten times as large as its text. */
static size_t kept_by(const struct message *m, size_t n)
{
        enum { PIECES = 4, PIECE = 16 };
        size_t all = sizeof(*m) + n * sizeof(m->changes[0]), ids = 0, keys = 0;

        for (size_t i = 0; i < m->n; i++) {
                const struct obs_record *r = &m->changes[i].of;

                /* jansson doubles the room of a text as it writes it */
                all += 2 * r->json_n + strlen(r->event) + strlen(r->bucket) + strlen(r->key) + PIECES * PIECE;
                ids += strlen(r->id);
                keys += strlen(r->key);
        }
        return all + inbox_takes(m->n, ids, keys);
}

static void enqueue(struct obs *s, uint64_t call, struct message *m)
{
        struct str ids[OBS_RECORDS_MOST], keys[OBS_RECORDS_MOST];

        for (size_t i = 0; i < m->n; i++) {
                ids[i] = str_of(m->changes[i].of.id);
                keys[i] = str_of(m->changes[i].of.key);
        }
        inbox_add(s->notified.inbox, &m->item, call, ids, keys, m->n);
}

static struct verdict take(struct obs *s, uint64_t call, struct str body)
{
        struct obs_records all = { 0 };
        struct verdict kept = { .refusal = REFUSAL_MAX };
        struct message *m;
        bool ours = false;

        switch (obs_parse(body, &all)) {
        case OBS_RECORDS: break;
        case OBS_NOTHING: return (struct verdict){ .status = 200, .text = "nothing to deliver" };
        case OBS_MALFORMED: return (struct verdict){ .refusal = REFUSED_MALFORMED };
        case OBS_TOO_MANY: return (struct verdict){ .refusal = REFUSED_TOO_LARGE };
        case OBS_NO_MEMORY: return (struct verdict){ .status = 503, .text = "out of memory" };
        }
        for (size_t i = 0; i < all.n; i++)
                ours = ours || strcmp(all.list[i].bucket, s->spec->bucket) == 0;
        if (!ours) {
                obs_records_done(&all);
                return (struct verdict){ .refusal = REFUSED_BUCKET };
        }
        m = message_of(s->spec, &all);
        kept.kept = m ? kept_by(m, all.n) : 0;
        obs_records_done(&all);
        if (!m)
                return (struct verdict){ .status = 503, .text = "out of memory" };
        if (!m->n) {
                s->notified.unwanted++;
                message_free(m);
                return (struct verdict){ .status = 200, .text = "not wanted" };
        }
        enqueue(s, call, m);
        return kept;
}

static void admit(struct notified *s, uint64_t call, struct notification *n)
{
        struct verdict v = take(obs_of(s), call, n->message);

        if (v.status)
                inbox_answer(s->inbox, call, v.status, v.text, v.status == 503 ? USEC_SEC : 0);
        else if (v.refusal != REFUSAL_MAX)
                inbox_refuse_later(s->inbox, v.refusal, call);
        notification_done(n);
}

static void tell_token(struct obs *s)
{
        BUF_AT_END struct buf why = BUF_INIT(1024);

        inbox_trouble(s->notified.inbox, obs_token_lacks(s->token, &why) ? why.p : NULL);
}

static void look(struct notified *s)
{
        struct obs *o = obs_of(s);

        if (o->token && obs_token_changed(o->token))
                tell_token(o);
}

static enum push_verdict receive(struct notified *s, uint64_t call, const struct push_request *q,
                                 struct push_reply *reply)
{
        struct verdict v;

        look(s);
        if (!obs_token_shown(obs_of(s)->token, q->header(q, "Authorization")))
                return inbox_refuse(s->inbox, REFUSED_TOKEN, reply);
        if (!str_is(q->method, "POST")) {
                inbox_reply(reply, 405, "send notifications by POST", 0);
                return PUSH_REPLY;
        }
        if (q->body.n > OBS_BODY_MOST)
                return inbox_refuse(s->inbox, REFUSED_TOO_LARGE, reply);
        if (!inbox_put_off(s->inbox)) {
                inbox_reply(reply, 503, "out of memory", USEC_SEC);
                return PUSH_REPLY;
        }
        v = take(obs_of(s), call, q->body);
        if (!v.status && v.refusal == REFUSAL_MAX) {
                reply->kept = v.kept;
                return PUSH_LATER;
        }
        inbox_put_on(s->inbox);
        if (!v.status)
                return inbox_refuse(s->inbox, v.refusal, reply);
        if (v.status == 200)
                inbox_accepted(s->inbox);
        inbox_reply(reply, v.status, v.text, v.status == 503 ? USEC_SEC : 0);
        return PUSH_REPLY;
}

/* ---- life --------------------------------------------------------------- */

static void obs_free(struct notified *s)
{
        struct obs *o = obs_of(s);

        (void)obs_token_free(o->token);
        free(o);
}

static int obs_open(struct source **out, const void *spec, const struct services *services, struct error *err)
{
        static const struct notified_kind kind = { .admit = admit,
                                                   .receive = receive,
                                                   .look = look,
                                                   .records = records_of,
                                                   .drop = drop_message,
                                                   .item = item_of,
                                                   .free = obs_free,
                                                   .remember_most = 16384 };
        struct obs *s = calloc(1, sizeof(*s));
        const struct obs_spec *of = spec;
        bool topic = of->from == OBS_FROM_SMN;

        if (!s)
                return error_memory(err);
        s->spec = of;
        if (!topic && obs_token_new(&s->token, of->token, services, err) < 0) {
                free(s);
                return -1;
        }
        if (notified_open(&s->notified, &kind, &of->smn, topic, services, err) < 0)
                return -1;
        if (s->token)
                tell_token(s);
        *out = &s->notified.source;
        return 0;
}

/* ---- shapes ------------------------------------------------------------- */

static void obs_describe(const struct record *r, struct writer *w) { writer_raw(w, r->value); }

static void obs_encode(const struct trigger *t UNUSED, struct record *const *records, size_t n,
                       struct writer *w)
{
        writer_object(w);
        writer_key(w, STR("Records"));
        writer_array(w);
        for (size_t i = 0; i < n; i++)
                writer_raw(w, records[i]->value);
        writer_array_end(w);
        writer_object_end(w);
}

static void obs_event(const struct trigger *t, const struct record *r, struct buf *space,
                      struct cloud_event *e)
{
        const struct change *c = r->origin;

        cloudevent_source(t, NULL, space);
        *e = (struct cloud_event){ .id = r->id,
                                   .source = buf_view(space),
                                   .subject = c->list ? (struct str){ 0 } : r->key,
                                   .key = r->key,
                                   .time = r->time,
                                   .data = r->value,
                                   .json = true,
                                   .content_type = STR("application/json") };
}

/* ---- samples ------------------------------------------------------------ */

static int sample_of(struct str body, struct record **out, struct error *err)
{
        struct obs_records all = { 0 };
        struct message *m;

        if (obs_parse(body, &all) != OBS_RECORDS)
                return error_set(err, ERROR_INVALID,
                                 "Records: expected at least one record with eventName, and s3 or obs with "
                                 "bucket.name and object.key");
        m = calloc(1, sizeof(*m) + sizeof(m->changes[0]));
        if (!m) {
                obs_records_done(&all);
                return error_memory(err);
        }
        m->n = 1;
        m->changes[0].of = all.list[0];
        all.list[0] = (struct obs_record){ 0 };
        set_record(m, 0);
        obs_records_done(&all);
        *out = &m->changes[0].record;
        return 0;
}

static int obs_sample(const struct trigger *t, const struct node *document, usec wall, struct record **out,
                      struct error *err)
{
        const struct obs_spec *s = t->source_spec;
        BUF_AT_END struct buf text = BUF_INIT(1 << 20), now = BUF_INIT(64);
        struct writer w;

        writer_init(&w, &text);
        if (node_member(document, "Records"))
                node_write(document, &w);
        else if (node_member(document, "eventName")) {
                buf_text(&text, "{\"Records\":[");
                node_write(document, &w);
                buf_text(&text, "]}");
        } else if (shape_members(document, "Records, eventName and what goes with it", err) < 0)
                return -1;
        else {
                time_format(&now, wall);
                buf_printf(
                        &text,
                        "{\"Records\":[{\"eventVersion\":\"2.0\",\"eventSource\":\"aws:s3\",\"awsRegion\":"
                        "\"\",\"eventTime\":\"%s\",\"eventName\":\"ObjectCreated:Put\","
                        "\"userIdentity\":{\"principalId\":\"sample\"},\"requestParameters\":{"
                        "\"sourceIPAddress\":\"127.0.0.1\"},\"responseElements\":{\"x-amz-request-id\":\"0\","
                        "\"x-amz-id-2\":\"0\"},\"s3\":{\"s3SchemaVersion\":\"1.0\",\"configurationId\":"
                        "\"sample\",\"bucket\":{\"name\":\"%s\",\"ownerIdentity\":{\"PrincipalId\":"
                        "\"sample\"},"
                        "\"arn\":\"arn:aws:s3:::%s\"},\"object\":{\"key\":\"sample\",\"eTag\":"
                        "\"d41d8cd98f00b204e9800998ecf8427e\",\"size\":0,\"sequencer\":\"0\"}}}]}",
                        now.p, s->bucket, s->bucket);
        }
        return text.failed ? error_memory(err) : sample_of(buf_view(&text), out, err);
}

static void obs_sample_free(struct record *r)
{
        if (r)
                message_free(CONTAINER_OF(r, struct change, record)->message);
}

static void origin(const struct trigger *t, struct buf *b)
{
        buf_text(b, ((const struct obs_spec *)t->source_spec)->bucket);
}

const struct shape obs_shape = {
        .ce_type = "dev.sluice.obs.change",
        .describe = obs_describe,
        .encode = obs_encode,
        .event = obs_event,
        .sample = obs_sample,
        .sample_free = obs_sample_free,
};
const struct source_kind obs_source = {
        .name = "obs",
        .type = &obs_type,
        .shape = &obs_shape,
        .push = &notified_push,
        .open = obs_open,
        .origin = origin,
        .external = notified_external,
        .warnings = source_account_warnings,
};
