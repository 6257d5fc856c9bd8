#include "source/dms/dms.h"

#include <openssl/sha.h>
#include <stdio.h>

#include "event/outer.h"
#include "json/check.h"
#include "source/poller.h"

/* What one request may bring: 10 messages, 512 KB; a body may grow by being unescaped, never above that. */
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

/* What a record is besides its body, kept with its page. */
struct message {
        struct str attributes, tags; /* JSON; n 0: none */
        bool is_json;                /* the body is no string: its JSON text */
        usec received;               /* wall */
};

struct item { /* of an answer */
        struct json_value body, attributes, tags, handler;
};
static const struct json_member item_members[] = {
        MEMBER(ANY, "message.body", struct item, body),
        MEMBER(ANY, "message.attributes", struct item, attributes),
        MEMBER(ANY, "message.tags", struct item, tags),
        MEMBER(TEXT, "handler", struct item, handler, .required = true),
};
static const struct json_object item_object = JSON_OBJECT("an entry", item_members);

struct reading {
        struct item item;
        const struct dms_spec *spec;
        struct page *page;
        usec wall;
};

/* A message has no id of its own, and its handler is another one each time: its id is made of what it says,
 * so that it is the same each time, and equal messages have equal ids. */
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

/* null says nothing. */
static struct str keep_json(struct page *page, struct json_value v)
{
        return json_value_is(v, "null")
                       ? (struct str){ 0 }
                       : page_text_beside(page, (struct json_value){ .text = json_value_raw(v) });
}

static int add_record(void *object, struct error *err UNUSED)
{
        struct reading *g = object;
        const struct item *item = &g->item;
        struct message *m;
        struct record *r;
        char id[33];

        if (!make_id(g->spec, item, id)) {
                page_no_memory(g->page);
                return 0;
        }
        if (!(r = page_record(g->page, str_of(id), page_text(g->page, item->handler))) ||
            !(m = page_keep(g->page, sizeof(*m))))
                return 0;
        r->value = page_text(g->page, item->body);
        *m = (struct message){ .attributes = keep_json(g->page, item->attributes),
                               .tags = keep_json(g->page, item->tags),
                               .is_json = item->body.text.p && !item->body.is_string,
                               .received = g->wall };
        r->origin = m;
        return 0;
}

static int read_messages(const struct dms_spec *spec, struct str body, struct page *page, usec wall,
                         struct error *err)
{
        static const struct json_member list = MEMBER(LIST, "", struct reading, item, .items = &item_object,
                                                      .take = add_record);
        struct reading g = { .spec = spec, .page = page, .wall = wall };

        return json_read_list(body, &list, &g, err) < 0 ? error_wrap(err, "an answer that can't be read") : 0;
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
        if (m->is_json || json_is_value(r->value))
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
        return poller_sample_end(page,
                                 answer.failed
                                         ? error_memory(err)
                                         : read_messages(t->source_spec, buf_view(&answer), page, wall, err),
                                 out, err);
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

/* A service that has not answered yet, or failed last time, is not waited for: whether it answers again is
 * known at once, however long the queue stays empty. */
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

/* What was asked for is done with. */
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

/* {"success": N, "fail": M}: the last M come again. */
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

static enum poller_step answered(struct poller *p, const struct reader_job *job, struct str body,
                                 struct error *err)
{
        struct dms_track *t = job->own;

        if (job->kind == READER_RETURN)
                return go_on(job);
        if (job->kind == READER_SAVE)
                return acknowledged(p, body, err) == POLLER_DONE ? go_on(job) : POLLER_FAILED;
        t->answered = read_messages(dms_of(p)->spec, body, job->page, poller_wall(p), err) == 0;
        return t->answered ? POLLER_DONE : POLLER_FAILED;
}

/* A handler is known until it was acknowledged, or its time is over, and one that is not known fails all that
 * stand beside it. After an answer that was lost nobody can say which were taken: each is asked for by
 * itself, and one that is not known then is settled, or comes again. */
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

/* With order there is one answer in flight; without, several. */
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

static const struct warning warnings[] = { WARNING("NotAcknowledged"), WARNING("WindowOver"),
                                           SOURCE_ACCOUNT_WARNING, WARNINGS_END };

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
