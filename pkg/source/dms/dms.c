#include "source/dms/dms.h"

#include <openssl/sha.h>
#include <stdio.h>

#include "event/outer.h"
#include "json/check.h"
#include "source/poller.h"

/* The service's limits for one response: 10 messages, 512 KB. PAGE_MOST leaves room for unescaped bodies. */
enum { MESSAGES_MOST = 10, PAGE_BYTES = 512 << 10, PAGE_MOST = 4 << 20 };
enum { TRACKS_MOST = 8 };

/* ---- the spec ----------------------------------------------------------- */

static const char *const tag_type_names[] = { [DMS_TAGS_OR] = "Or", [DMS_TAGS_AND] = "And", NULL };
static const struct field dms_fields[] = {
        FIELD(STRING, "queueID", struct dms_spec, queue_id, .required = true, .min = 1, .max = 64,
              .pattern = "^[A-Za-z0-9-]+$", .format = "a queue's id", .cloud = "queue_id",
              .help = "The queue's id."),
        FIELD(STRING, "consumerGroupID", struct dms_spec, group_id, .required = true, .min = 1, .max = 64,
              .pattern = "^[A-Za-z0-9-]+$", .format = "a consumer group's id", .cloud = "consumer_group_id",
              .help = "The consumer group's id. All that consume from it must ask for the same tags."),
        FIELD(STRINGS, "tags", struct dms_spec, tags, .max = 3, .pattern = "^[A-Za-z0-9_-]{1,64}$",
              .format = "1 to 64 letters, digits, _ and -", .set = true,
              .help = "Only messages with these tags; by default all."),
        FIELD(ENUM, "tagType", struct dms_spec, tag_type, .fallback = "Or", .values = tag_type_names,
              .help = "Whether a message needs one of the tags, or all of them."),
        FIELD(DURATION, "ackWait", struct dms_spec, ack_wait, .min = 15 * USEC_SEC, .max = 300 * USEC_SEC,
              .help = "How long a message is this Trigger's before the queue gives it out again; it can't be "
                      "renewed, so it must exceed delivery.timeout, and cover all attempts that "
                      "delivery.retry allows where it gives up. By default it does, at most 300 seconds."),
        FIELD(DURATION, "pollingInterval", struct dms_spec, polling_interval, .fallback = "30s",
              .min = USEC_SEC, .max = USEC_MINUTE, .cloud = "polling_interval",
              .help = "How long a request waits at an empty queue for messages to come."),
        FIELD(BOOL, "deadLetters", struct dms_spec, dead_letters, .fallback = "false",
              .help = "true: read the dead letters of the group instead, where the queue keeps them."),
        FIELD(OBJECT, "cloud", struct dms_spec, cloud, .object = &cloud_type,
              .help = "Where the queue is, and as whom it is read."),
};
const struct type dms_type = TYPE("DmsSource", struct dms_spec, dms_fields,
                                  "Messages of a queue of the Distributed Message Service.");

/* ---- messages ----------------------------------------------------------- */

/* The rest of a message, beside its body; allocated in the record's page. */
struct message {
        struct str attributes, tags; /* JSON; n 0: none */
        bool is_json;                /* the body is no string: its JSON text */
        usec received;               /* wall */
};

/* Both are read as any JSON value: a malformed entry must not fail the whole response. */
struct entry { /* of an answer */
        struct json_value message, handler;
};
static const struct json_member entry_members[] = {
        MEMBER(ANY, "message", struct entry, message),
        MEMBER(ANY, "handler", struct entry, handler),
};
static const struct json_object entry_object = JSON_OBJECT("an entry", entry_members);

struct item { /* the fields of a message */
        struct json_value body, attributes, tags;
};
static const struct json_member item_members[] = {
        MEMBER(ANY, "body", struct item, body),
        MEMBER(ANY, "attributes", struct item, attributes),
        MEMBER(ANY, "tags", struct item, tags),
};
static const struct json_object item_object = JSON_OBJECT("a message", item_members);

struct reading {
        struct entry entry;
        const struct dms_spec *spec;
        struct page *page;
        usec wall;
        unsigned without_handler, without_body; /* malformed entries so far */
};

/* A message has no id, and its handler changes with each delivery. So the id is a hash of the message's
 * content: it survives redelivery, and equal messages share it. */
static bool make_id(const struct dms_spec *spec, const struct item *item, char out[33])
{
        const struct str parts[] = { str_of(spec->queue_id), item->body.text,
                                     json_value_raw(item->attributes), json_value_raw(item->tags) };
        unsigned char hash[SHA256_DIGEST_LENGTH];
        BUF_AT_END struct buf all = BUF_INIT((size_t)PAGE_MOST);

        for (size_t i = 0; i < COUNT_OF(parts); i++) {
                buf_int(&all, (int64_t)parts[i].n);
                buf_char(&all, ':');
                buf_str(&all, parts[i]);
        }
        if (all.failed)
                return false;
        SHA256((const unsigned char *)all.p, all.n, hash);
        hex_text(hash, 16, out);
        return true;
}

/* null counts as absent. */
static struct str keep_json(struct page *page, struct json_value v)
{
        return json_value_is(v, "null")
                       ? (struct str){ 0 }
                       : page_text_beside(page, (struct json_value){ .text = json_value_raw(v) });
}

/* A message that is not an object is delivered as the body. A missing body is delivered as null, so that the
 * function can tell it from an empty string. */
static int read_item(struct reading *g, struct item *item, struct error *err)
{
        struct json_value whole = g->entry.message;

        *item = (struct item){ .body = whole };
        if (whole.text.n && !whole.is_string && whole.text.p[0] == '{' &&
            json_read_object(whole.text, &item_object, item, err) < 0)
                return -1;
        if (!item->body.text.p)
                item->body.text = STR("null");
        else if (item->body.text.p != whole.text.p)
                return 0;
        g->without_body++;
        return 0;
}

static void add_record(struct reading *g, const struct item *item)
{
        struct message *m;
        struct record *r;
        char id[33];

        if (!make_id(g->spec, item, id)) {
                page_no_memory(g->page);
                return;
        }
        if (!(r = page_record(g->page, str_of(id), page_text(g->page, g->entry.handler))) ||
            !(m = page_keep(g->page, sizeof(*m))))
                return;
        r->value = page_text(g->page, item->body);
        *m = (struct message){ .attributes = keep_json(g->page, item->attributes),
                               .tags = keep_json(g->page, item->tags),
                               .is_json = !item->body.is_string,
                               .received = g->wall };
        r->origin = m;
}

static int take_entry(void *object, struct error *err)
{
        struct reading *g = object;
        struct item item;

        if (!g->entry.handler.is_string || !g->entry.handler.text.n) {
                g->without_handler++; /* it can't be acknowledged; the queue delivers it again */
                return 0;
        }
        if (read_item(g, &item, err) < 0)
                return -1;
        add_record(g, &item);
        return 0;
}

static int read_messages(struct reading *g, struct str body, struct error *err)
{
        static const struct json_member list = MEMBER(LIST, "", struct reading, entry, .items = &entry_object,
                                                      .take = take_entry, .any_item = true);

        return json_read_list(body, &list, g, err) < 0 ? error_wrap(err, "an answer that can't be read") : 0;
}

/* ---- shapes ------------------------------------------------------------- */

static void write_json(struct writer *w, const char *name, struct str json, const char *otherwise)
{
        writer_key(w, str_of(name));
        writer_raw(w, json.n ? json : str_of(otherwise));
}

static void dms_describe(const struct record *r, struct writer *w)
{
        const struct message *m = r->origin;

        writer_object(w);
        writer_key(w, STR("body"));
        if (m->is_json || json_is_value(r->value, &w->out->failed))
                writer_raw(w, r->value);
        else
                writer_string(w, r->value);
        write_json(w, "attributes", m->attributes, "{}");
        write_json(w, "tags", m->tags, "[]");
        writer_object_end(w);
}

static void dms_encode(const struct trigger *t, struct record *const *records, size_t n, struct writer *w)
{
        const struct dms_spec *spec = t->source_spec;

        writer_object(w);
        writer_member_text(w, "Tag", "latest");
        writer_member_text(w, "QueueID", spec->queue_id);
        writer_member_text(w, "ConsumerGroupID", spec->group_id);
        writer_key(w, STR("Messages"));
        writer_array(w);
        for (size_t i = 0; i < n; i++) {
                const struct message *m = records[i]->origin;

                writer_object(w);
                writer_key(w, STR("Body"));
                if (m->is_json)
                        writer_raw(w, records[i]->value);
                else
                        writer_string(w, records[i]->value);
                write_json(w, "Attributes", m->attributes, "{}");
                writer_object_end(w);
        }
        writer_array_end(w);
        outer_write(t, records[0]->id, ((const struct message *)records[0]->origin)->received, w);
        writer_object_end(w);
}

static void dms_event(const struct trigger *t, const struct record *r, struct buf *space,
                      struct cloud_event *e)
{
        const struct message *m = r->origin;

        cloudevent_source(t, NULL, space);
        *e = (struct cloud_event){ .id = r->id, .source = buf_view(space) };
        if (r->value.n)
                cloudevent_data(e, r->value, m->is_json ? STR("application/json") : (struct str){ 0 });
}

static void dms_origin(const struct trigger *t, struct buf *b)
{
        const struct dms_spec *spec = t->source_spec;

        buf_printf(b, "%s/%s%s", spec->queue_id, spec->group_id, spec->dead_letters ? "/deadletters" : "");
}

/* ---- samples ------------------------------------------------------------ */

static int dms_sample(const struct trigger *t, const struct node *document, usec wall, struct record **out,
                      struct error *err)
{
        BUF_AT_END struct buf answer = BUF_INIT(BUF_DEFAULT_MAX);
        struct page *page = poller_sample_begin(document, "body, attributes, tags", err);
        struct reading g = { .spec = t->source_spec, .page = page, .wall = wall };
        struct writer w;

        if (!page)
                return -1;
        writer_init(&w, &answer);
        writer_array(&w);
        writer_object(&w);
        writer_member_text(&w, "handler", "sample");
        writer_key(&w, STR("message"));
        writer_object(&w);
        poller_sample_member(&w, "body", document, "body", "a message");
        poller_sample_member(&w, "attributes", document, "attributes", NULL);
        poller_sample_member(&w, "tags", document, "tags", NULL);
        writer_object_end(&w);
        writer_object_end(&w);
        writer_array_end(&w);
        return poller_sample_end(
                page, answer.failed ? error_memory(err) : read_messages(&g, buf_view(&answer), err), out,
                err);
}

const struct shape dms_shape = {
        .ce_type = "dev.sluice.dms.message",
        .describe = dms_describe,
        .encode = dms_encode,
        .event = dms_event,
        .sample = dms_sample,
        .sample_free = poller_sample_free,
};

/* ---- calls -------------------------------------------------------------- */

struct dms {
        struct poller poller; /* the first member */
        const struct dms_spec *spec;
        usec ack_wait;
};

static struct dms *dms_of(const struct poller *p) { return CONTAINER_OF(p, struct dms, poller); }

/* Long polling only after a successful request. The first request, and the one after a failure, waits for a
 * second at most, so that the state is known soon even if the queue is empty. */
static void ask_for_messages(const struct dms *d, const struct reader_job *job, struct cloud_request *q)
{
        struct dms_track *t = job->own;
        const struct dms_spec *spec = d->spec;
        usec wait = t->answered ? spec->polling_interval : USEC_SEC;

        t->answered = false;
        buf_printf(&q->what, "messages of queue %s", spec->queue_id);
        poller_query_int(q, "max_msgs", MIN_OF((int64_t)job->records, (int64_t)MESSAGES_MOST));
        poller_query_int(q, "time_wait", wait / USEC_SEC);
        poller_query_int(q, "ack_wait", d->ack_wait / USEC_SEC);
        for (size_t i = 0; i < spec->tags.n; i++)
                poller_query(q, "tag", str_of(spec->tags.list[i]));
        if (spec->tags.n)
                poller_query(q, "tag_type", spec->tag_type == DMS_TAGS_AND ? STR("and") : STR("or"));
        q->timeout = wait + 15 * USEC_SEC;
}

static void ask_to_acknowledge(const struct reader_job *job, struct cloud_request *q)
{
        struct writer w;
        const struct dms_track *t = job->own;
        size_t from = t->singly ? MIN_OF(t->next, job->marks_n) : 0,
               to = t->singly ? MIN_OF(from + 1, job->marks_n) : job->marks_n;

        q->method = "POST";
        buf_printf(&q->what,
                   job->kind == READER_SAVE ? "acknowledgement of %zu messages" : "return of %zu messages",
                   job->marks_n);
        writer_init(&w, &q->body);
        writer_object(&w);
        writer_key(&w, STR("message"));
        writer_array(&w);
        for (size_t i = from; i < to; i++) {
                writer_object(&w);
                writer_member_string(&w, "handler", job->marks[i]);
                writer_member_text(&w, "status", job->kind == READER_SAVE ? "success" : "fail");
                writer_object_end(&w);
        }
        writer_array_end(&w);
        writer_object_end(&w);
}

static void ask(struct poller *p, const struct reader_job *job, struct cloud_request *q)
{
        const struct dms *d = dms_of(p);
        bool save = job->kind != READER_FETCH;

        buf_printf(&q->path, "/v1.0/{project_id}/queues/%s/groups/%s/%s", d->spec->queue_id,
                   d->spec->group_id,
                   d->spec->dead_letters ? save ? "deadletters/ack" : "deadletters"
                   : save                ? "ack"
                                         : "messages");
        if (save)
                ask_to_acknowledge(job, q);
        else
                ask_for_messages(d, job, q);
}

/* One acknowledgement or return call is finished: is there another one? */
static enum poller_step go_on(const struct reader_job *job)
{
        struct dms_track *t = job->own;

        if (t->singly && ++t->next < job->marks_n)
                return POLLER_AGAIN;
        t->singly = false;
        return POLLER_DONE;
}

struct taken {
        int64_t fail;
};
static const struct json_member taken_members[] = {
        MEMBER(NUMBER, "fail", struct taken, fail),
};
static const struct json_object taken_object = JSON_OBJECT("the answer", taken_members);

/* {"success": N, "fail": M}: the queue delivers the last M again. */
static enum poller_step acknowledged(struct poller *p, struct str body, struct error *err)
{
        struct taken taken;

        if (json_read_object(body, &taken_object, &taken, err) < 0)
                return (enum poller_step)error_wrap(err, "an answer that can't be read");
        if (taken.fail > 0)
                reader_warn(p->reader, "NotAcknowledged",
                            "the queue did not take the acknowledgement of %lld messages: they come again",
                            (long long)taken.fail);
        return POLLER_DONE;
}

/* The counters count messages, not responses. */
static void warn_of_malformed(struct poller *p, const struct reading *g)
{
        reader_warn_of(p->reader, g->without_handler, "HandlerMissing",
                       "messages of queue %s came without a handler and can't be acknowledged: they are not "
                       "delivered, and come again",
                       g->spec->queue_id);
        reader_warn_of(p->reader, g->without_body, "RecordsMalformed",
                       "messages of queue %s came without a body: they are delivered with what stands there "
                       "instead, or null",
                       g->spec->queue_id);
}

static bool messages_got(struct poller *p, const struct reader_job *job, struct str body, struct error *err)
{
        struct reading g = { .spec = dms_of(p)->spec, .page = job->page, .wall = poller_wall(p) };

        if (read_messages(&g, body, err) < 0)
                return false;
        warn_of_malformed(p, &g);
        return true;
}

static enum poller_step answered(struct poller *p, const struct reader_job *job, struct str body,
                                 struct error *err)
{
        struct dms_track *t = job->own;

        if (job->kind == READER_RETURN)
                return go_on(job);
        if (job->kind == READER_SAVE)
                return acknowledged(p, body, err) == POLLER_DONE ? go_on(job) : POLLER_FAILED;
        t->answered = messages_got(p, job, body, err);
        return t->answered ? POLLER_DONE : POLLER_FAILED;
}

/* A handler becomes invalid once it was acknowledged or its window is over, and one invalid handler fails the
 * whole call. When a response was lost we don't know which handlers are still valid, so each is acknowledged
 * by a call of its own. An invalid one then needs nothing more: its message is acknowledged already, or will
 * be delivered again. */
static enum poller_step refused(struct poller *p UNUSED, const struct reader_job *job,
                                const struct cloud_error *refusal, struct error *err UNUSED)
{
        struct dms_track *t = job->own;

        if (job->kind == READER_FETCH)
                return POLLER_FAILED;
        if (!string_equal(refusal->code, "10542209") && !string_equal(refusal->code, "10542205")) {
                t->singly = false;
                return POLLER_FAILED;
        }
        if (t->singly || job->marks_n == 1)
                return go_on(job);
        t->singly = true;
        t->next = 0;
        return POLLER_AGAIN;
}

static void left(struct poller *p UNUSED, void *own) { free(own); }

const struct poller_ops dms_ops = {
        .service = "dms", .ask = ask, .answered = answered, .refused = refused, .left = left
};

/* Ordered delivery needs a single request in flight; otherwise each track has one. */
static int add_tracks(struct dms *d, const struct delivery_spec *delivery, struct error *err)
{
        int64_t tracks = delivery->ordering == ORDERING_PARTITION
                                 ? 1
                                 : MIN_OF((delivery->max_in_flight + MESSAGES_MOST - 1) / MESSAGES_MOST,
                                          (int64_t)TRACKS_MOST);

        for (int64_t i = 0; i < tracks; i++) {
                char name[32];
                uint32_t track;

                struct dms_track *own = calloc(1, sizeof(*own));

                (void)snprintf(name, sizeof(name), "%lld", (long long)i);
                if (!own)
                        return error_memory(err);
                if (reader_add(d->poller.reader, str_of(name), own, &track, err) < 0) {
                        free(own);
                        return -1;
                }
        }
        return 0;
}

static int dms_open(struct source **out, const void *spec_, const struct services *services,
                    struct error *err)
{
        const struct dms_spec *spec = spec_;
        const struct delivery_spec *delivery = services->trigger->delivery;
        const struct poller_config config = {
                .reader = { .page_bytes = PAGE_BYTES,
                            .page_most = PAGE_MOST,
                            .poll_min = 100 * USEC_MSEC,
                            .poll_max = USEC_SEC,
                            .shared = true,
                            .backoff_min = 200 * USEC_MSEC,
                            .backoff_max = 5 * USEC_SEC,
                            .save_interval = 20 * USEC_MSEC,
                            .unsaved_most = 1,
                            .marks_most = MESSAGES_MOST,
                            .lease = dms_lease(spec, delivery),
                            .attempt = delivery->timeout,
                            .records_together = (uint32_t)delivery->batch->max_messages,
                            .records_most = MESSAGES_MOST,
                            .returns = true,
                            .let_go_reason = "WindowOver" },
                .cloud = spec->cloud,
        };
        struct dms *d = calloc(1, sizeof(*d));

        if (!d)
                return error_memory(err);
        d->spec = spec;
        d->ack_wait = dms_ack_wait(spec, delivery);
        if (poller_open(&d->poller, &dms_ops, &config, services, err) < 0)
                return -1;
        if (add_tracks(d, delivery, err) < 0) {
                (void)poller_close(&d->poller);
                return -1;
        }
        *out = &d->poller.source;
        return 0;
}

static const struct warning warnings[] = { WARNING("NotAcknowledged"),  WARNING("WindowOver"),
                                           WARNING("RecordsMalformed"), WARNING("HandlerMissing"),
                                           SOURCE_ACCOUNT_WARNING,      WARNINGS_END };

static int check(const void *spec, const struct services *services, struct error *err)
{
        return poller_check(((const struct dms_spec *)spec)->cloud, dms_ops.service, services, err);
}

const struct source_kind dms_source = {
        .name = "dms",
        .warnings = warnings,
        .type = &dms_type,
        .shape = &dms_shape,
        .pull = &poller_pull_at_once,
        .open = dms_open,
        .check = check,
        .origin = dms_origin,
};
