#include "tests/hub/hub.h"

#include "source/poller.h"

enum { EVENTS_MOST = 100, PAGE_BYTES = 1 << 20, REMEMBERED = 1000 };

/* ---- the spec ----------------------------------------------------------- */

static const struct field hub_fields[] = {
        FIELD(STRING, "hubName", struct hub_spec, hub, .required = true, .min = 1, .max = 64,
              .pattern = "^[a-z0-9-]+$", .format = "a hub's name", .help = "The hub's name."),
        FIELD(DURATION, "pollingInterval", struct hub_spec, polling_interval, .fallback = "1s",
              .min = USEC_SEC, .max = USEC_MINUTE, .help = "The pause after a request that found nothing."),
        FIELD(OBJECT, "cloud", struct hub_spec, cloud, .object = &cloud_type,
              .help = "Where the hub is, and as whom it is read."),
};
const struct type hub_type = TYPE("HubSource", struct hub_spec, hub_fields, "Events of a hub.");

/* ---- answers ------------------------------------------------------------ */

/* What a record is besides its key and its data. */
struct event {
        int64_t number;
        bool is_json; /* the data is no string: its JSON text */
};

struct item { /* of an answer */
        struct json_value id, key, data;
        int64_t number, time; /* ms */
};
static const struct json_member item_members[] = {
        MEMBER(TEXT, "id", struct item, id, .required = true),
        MEMBER(TEXT, "key", struct item, key),
        MEMBER(NUMBER, "number", struct item, number, .required = true),
        MEMBER(NUMBER, "time", struct item, time),
        MEMBER(ANY, "data", struct item, data),
};
static const struct json_object item_object = JSON_OBJECT("an event", item_members);

struct answer {
        struct item item; /* the one that is read */
        int64_t behind;   /* how many more there are */
        struct page *page;
        size_t n; /* so far */
};

static int add_record(void *object, struct error *err UNUSED)
{
        struct answer *a = object;
        struct str id = page_text(a->page, a->item.id);
        struct event *event = page_keep(a->page, sizeof(*event));
        struct record *r = event ? page_record(a->page, id, id) : NULL;

        a->n++;
        if (!r) /* it was delivered before, or there is no memory, which the reader sees */
                return 0;
        *event = (struct event){ a->item.number, a->item.data.text.p && !a->item.data.is_string };
        r->origin = event;
        r->time = poller_time(a->item.time);
        r->has_key = a->item.key.text.p;
        r->key = page_text(a->page, a->item.key);
        r->value = page_text(a->page, a->item.data);
        return 0;
}

static const struct json_member answer_members[] = {
        MEMBER(LIST, "events", struct answer, item, .items = &item_object, .take = add_record,
               .required = true),
        MEMBER(NUMBER, "behind", struct answer, behind, .otherwise = -1),
};
static const struct json_object answer_object = JSON_OBJECT("the answer", answer_members);

/* ---- the shape ---------------------------------------------------------- */

static void hub_describe(const struct record *r, struct writer *w)
{
        const struct event *event = r->origin;

        writer_object(w);
        writer_member_string(w, "id", r->id);
        if (r->has_key)
                writer_member_string(w, "key", r->key);
        writer_member_int(w, "number", event->number);
        writer_key(w, STR("data"));
        if (event->is_json)
                writer_raw(w, r->value);
        else
                writer_string(w, r->value);
        writer_object_end(w);
}

static void hub_encode(const struct trigger *t, struct record *const *records, size_t n, struct writer *w)
{
        const struct hub_spec *spec = t->source_spec;

        writer_object(w);
        writer_member_text(w, "hub", spec->hub);
        writer_key(w, STR("events"));
        writer_array(w);
        for (size_t i = 0; i < n; i++)
                hub_describe(records[i], w);
        writer_array_end(w);
        writer_object_end(w);
}

static void hub_event(const struct trigger *t, const struct record *r, struct buf *space,
                      struct cloud_event *e)
{
        const struct event *event = r->origin;

        cloudevent_source(t, NULL, space);
        *e = (struct cloud_event){ .id = r->id, .source = buf_view(space), .time = r->time };
        if (r->has_key)
                e->key = r->key;
        cloudevent_data(e, r->value, event->is_json ? STR("application/json") : (struct str){ 0 });
}

/* The document that describe writes, as an event of an answer. */
static int hub_sample(const struct trigger *t UNUSED, const struct node *document, usec wall,
                      struct record **out, struct error *err)
{
        BUF_AT_END struct buf text = BUF_INIT(BUF_DEFAULT_MAX);
        struct answer a = { .page = poller_sample_begin(document, "id, key, number, data", err) };
        struct writer w;
        int read;

        if (!a.page)
                return -1;
        writer_init(&w, &text);
        writer_array(&w);
        writer_object(&w);
        poller_sample_member(&w, "id", document, "id", "an event");
        poller_sample_member(&w, "key", document, "key", NULL);
        poller_sample_member(&w, "number", document, "number", "1");
        poller_sample_member(&w, "data", document, "data", "its data");
        writer_member_int(&w, "time", wall / USEC_MSEC);
        writer_object_end(&w);
        writer_array_end(&w);
        read = text.failed ? error_memory(err) : json_read_list(buf_view(&text), answer_members, &a, err);
        return poller_sample_end(a.page, read, out, err);
}

static const struct shape hub_shape = { .ce_type = "dev.sluice.hub.event",
                                        .describe = hub_describe,
                                        .encode = hub_encode,
                                        .event = hub_event,
                                        .sample = hub_sample,
                                        .sample_free = poller_sample_free };

/* ---- calls -------------------------------------------------------------- */

struct hub {
        struct poller poller; /* the first member */
        const struct hub_spec *spec;
        bool from_oldest; /* the mark is none of the hub's any more */
};

static void ask(struct poller *p, const struct reader_job *job, struct cloud_request *q)
{
        const struct hub *h = CONTAINER_OF(p, struct hub, poller);

        buf_printf(&q->path, "/v1/{project_id}/hubs/%s/events", h->spec->hub);
        buf_printf(&q->what, "events of hub %s", h->spec->hub);
        if (job->mark.n && !h->from_oldest)
                poller_query(q, "after", job->mark);
        poller_query_int(q, "limit", EVENTS_MOST);
}

static enum poller_step answered(struct poller *p, const struct reader_job *job, struct str body,
                                 struct error *err)
{
        struct answer a = { .page = job->page };

        if (json_read_object(body, &answer_object, &a, err) < 0)
                return (enum poller_step)error_wrap(err, "an answer that can't be read");
        CONTAINER_OF(p, struct hub, poller)->from_oldest &= !a.n; /* there is a mark again */
        reader_behind(p->reader, job->track, a.behind);
        return POLLER_DONE;
}

/* It was kept for a week only: what is left of it is read from its oldest event. */
static enum poller_step refused(struct poller *p, const struct reader_job *job UNUSED,
                                const struct cloud_error *refusal, struct error *err UNUSED)
{
        struct hub *h = CONTAINER_OF(p, struct hub, poller);

        if (!string_equal(refusal->code, "HUB.0410") || h->from_oldest)
                return POLLER_FAILED;
        h->from_oldest = true;
        reader_warn(p->reader, "PositionExpired", "hub %s goes on at its oldest event: %s", h->spec->hub,
                    refusal->words);
        return POLLER_AGAIN;
}

const struct poller_ops hub_ops = {
        .service = "hub", .stored = true, .ask = ask, .answered = answered, .refused = refused
};

static int hub_open(struct source **out, const void *spec_, const struct services *services,
                    struct error *err)
{
        const struct hub_spec *spec = spec_;
        const struct poller_config config = { .reader = { .loads = true,
                                                          .page_bytes = PAGE_BYTES,
                                                          .poll_min = spec->polling_interval,
                                                          .poll_max = spec->polling_interval,
                                                          .save_interval = USEC_SEC,
                                                          .remember = REMEMBERED },
                                              .cloud = spec->cloud };
        struct hub *h = calloc(1, sizeof(*h));

        if (!h)
                return error_memory(err);
        h->spec = spec;
        if (poller_open(&h->poller, &hub_ops, &config, services, err) < 0)
                return -1;
        *out = &h->poller.source;
        return 0;
}

static void hub_origin(const struct trigger *t, struct buf *b)
{
        buf_text(b, ((const struct hub_spec *)t->source_spec)->hub);
}

static const struct warning warnings[] = { WARNING("PositionExpired", .loses = true), SOURCE_ACCOUNT_WARNING,
                                           WARNINGS_END };
const struct source_kind hub_source = { .name = "hub",
                                        .warnings = warnings,
                                        .type = &hub_type,
                                        .shape = &hub_shape,
                                        .pull = &poller_pull,
                                        .open = hub_open,
                                        .origin = hub_origin };
