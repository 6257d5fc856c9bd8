#include "source/dis/stream.h"

#include <stdio.h>

#include "source/dis/records.h"

enum { PAGE_MOST = 64 << 20 };
enum { EMPTY_MOST = 3 }; /* empty responses in a row, although there are records, before that is reported */
/* The pause after an empty response, and its maximum when more of them follow. */
static const usec POLL_FIRST = USEC_SEC, POLL_IDLE = 3 * USEC_SEC;
/* Cursors expire after 300 s. New partitions must be discovered within 30 s. */
static const usec CURSOR_LIFE = 270 * USEC_SEC, DISCOVERY = 20 * USEC_SEC;

/* ---- requests ----------------------------------------------------------- */

void dis_ask_for_checkpoint(const struct dis *d, const struct partition *at, struct cloud_request *q)
{
        buf_printf(&q->what, "checkpoint of partition %s", at->name);
        buf_text(&q->path, "/v2/{project_id}/checkpoints");
        poller_query(q, "stream_name", str_of(d->spec->stream));
        poller_query(q, "partition_id", str_of(at->name));
        poller_query(q, "app_name", buf_view(&d->app));
        poller_query(q, "checkpoint_type", STR("LAST_READ"));
}

void dis_ask_for_app(const struct dis *d, struct cloud_request *q)
{
        struct writer w;

        q->method = "POST";
        buf_text(&q->path, "/v2/{project_id}/apps");
        buf_printf(&q->what, "creation of app %s", d->app.p);
        writer_init(&w, &q->body);
        writer_object(&w);
        writer_member_string(&w, "app_name", buf_view(&d->app));
        writer_object_end(&w);
}

void dis_ask_to_save(const struct dis *d, const struct partition *at, struct str number, struct str metadata,
                     struct cloud_request *q)
{
        struct writer w;

        q->method = "POST";
        buf_text(&q->path, "/v2/{project_id}/checkpoints");
        buf_printf(&q->what, "checkpoint of partition %s", at->name);
        writer_init(&w, &q->body);
        writer_object(&w);
        writer_member_string(&w, "app_name", buf_view(&d->app));
        writer_member_text(&w, "checkpoint_type", "LAST_READ");
        writer_member_text(&w, "stream_name", d->spec->stream);
        writer_member_text(&w, "partition_id", at->name);
        writer_member_string(&w, "sequence_number", number);
        writer_member_string(&w, "metadata", metadata);
        writer_object_end(&w);
}

static void ask_to_save(const struct dis *d, const struct partition *at, struct str mark,
                        struct cloud_request *q)
{
        struct str number = str_cut(&mark, '/');
        char text[40];
        struct buf metadata = BUF_ON(text);

        dis_write_metadata(mark.n ? number_of(mark) : at->first_of, mark.n || at->first_again, &metadata);
        dis_ask_to_save(d, at, number, buf_view(&metadata), q);
}

static void ask_to_save_first(const struct dis *d, const struct partition *at, struct cloud_request *q)
{
        char text[40];
        struct buf mark = BUF_ON(text);

        dis_write_first_mark(at, &mark);
        ask_to_save(d, at, buf_view(&mark), q);
}

static void ask_for_cursor(const struct dis *d, const struct partition *at, struct str mark,
                           struct cloud_request *q)
{
        buf_text(&q->path, "/v2/{project_id}/cursors");
        buf_printf(&q->what, "cursor of partition %s", at->name);
        poller_query(q, "stream-name", str_of(d->spec->stream));
        poller_query(q, "partition-id", str_of(at->name));
        if (dis_position(at, mark) >= 0 && !at->reset) {
                poller_query(q, "cursor-type", STR("AT_SEQUENCE_NUMBER"));
                poller_query_int(q, "starting-sequence-number", dis_position(at, mark));
        } else if (at->by_time && !at->reset && !mark.n) {
                poller_query(q, "cursor-type", STR("AT_TIMESTAMP"));
                poller_query_int(q, "timestamp", d->spec->start_timestamp / USEC_MSEC);
        } else
                poller_query(q, "cursor-type", STR("TRIM_HORIZON"));
}

static void ask_to_fetch(const struct dis *d, struct partition *at, const struct reader_job *job,
                         struct cloud_request *q)
{
        dis_leave_position(d, at);
        if (at->unsaid) {
                ask_to_save_first(d, at, q);
                return;
        }
        at->for_records = at->cursor.n && at->at == dis_position(at, job->mark) &&
                          now_of(&d->poller) - at->since < CURSOR_LIFE;
        if (!at->for_records) {
                ask_for_cursor(d, at, job->mark, q);
                return;
        }
        buf_text(&q->path, "/v2/{project_id}/records");
        buf_printf(&q->what, "records of partition %s", at->name);
        poller_query(q, "partition-cursor", buf_view(&at->cursor));
        poller_query_int(q, "max_fetch_bytes", d->spec->max_fetch_bytes);
}

static void ask(struct poller *p, const struct reader_job *job, struct cloud_request *q)
{
        const struct dis *d = dis_of(p);
        struct partition *at = job->own;

        if (job->kind == READER_LOAD && at->load == LOAD_APP)
                dis_ask_for_app(d, q);
        else if (job->kind == READER_LOAD && at->load == LOAD_STREAM)
                dis_ask_for_stream(d, q, 1);
        else if (job->kind == READER_LOAD)
                dis_ask_for_checkpoint(d, at, q);
        else if (job->kind == READER_FETCH)
                ask_to_fetch(d, at, job, q);
        else if (at->make_app)
                dis_ask_for_app(d, q);
        else
                ask_to_save(d, at, job->mark, q);
}

/* ---- answers ------------------------------------------------------------ */

/* Stops reading a partition until the list shows it readable again. The reason is shown in the status if no
 * other partition is left. */
static void partition_over(const struct dis *d, const struct partition *at, const char *code, const char *why)
{
        char text[256];

        (void)snprintf(text, sizeof(text), "%s: %s%s%s", at->name, code, *code && *why ? " " : "", why);
        say_unread(d, text);
        reader_end(d->poller.reader, at->track);
}

int64_t dis_sequence_of(struct json_value v) { return MAX_OF(number_of(v.text), (int64_t)-1); }

static void mark_number(struct poller *p, int64_t number)
{
        char text[24];

        (void)snprintf(text, sizeof(text), "%lld", (long long)number);
        poller_mark(p, str_of(text));
}

/* The start of a partition without a checkpoint. With Latest this is a new partition, since the first start
 * saves checkpoints for all that existed then (first.c). */
static enum poller_step begin(struct dis *d, struct partition *at)
{
        int start = at->late ? DIS_TRIM_HORIZON : d->spec->start;

        at->of = at->first_of = d->created;
        at->first_again = at->another = false;
        if (start == DIS_AT_SEQUENCE_NUMBER)
                mark_number(&d->poller, d->spec->start_sequence);
        at->by_time = start == DIS_AT_TIMESTAMP;
        return POLLER_DONE;
}

struct checkpoint {
        struct json_value number, metadata;
};
static const struct json_member checkpoint_members[] = {
        MEMBER(ANY, "sequence_number", struct checkpoint, number),
        MEMBER(ANY, "metadata", struct checkpoint, metadata),
};
static const struct json_object checkpoint_object = JSON_OBJECT("the answer", checkpoint_members);
struct cursor {
        struct json_value text;
};
static const struct json_member cursor_members[] = {
        MEMBER(TEXT, "partition_cursor", struct cursor, text, .required = true),
};
static const struct json_object cursor_object = JSON_OBJECT("the answer", cursor_members);

/* The checkpoint is loaded, and its stream identified as far as possible. */
static enum poller_step begin_there(struct dis *d, struct partition *at)
{
        dis_look_again(d, at);
        if (at->at > at->newest) /* an outdated list, or the position of another stream: list again */
                poller_discover_by(&d->poller, now_of(&d->poller));
        if (at->at < 0)
                return begin(d, at);
        mark_number(&d->poller, at->at);
        return POLLER_DONE;
}

/* A second description, requested because the list's creation time differs from the checkpoint's. If the two
 * descriptions disagree, the time counts as unknown. */
static enum poller_step described_again(struct dis *d, struct partition *at, struct str body,
                                        struct error *err)
{
        if (dis_read_created(d, body, err) < 0)
                return POLLER_FAILED;
        if (!d->proven)
                d->created = 0;
        return begin_there(d, at);
}

static enum poller_step loaded(struct dis *d, struct partition *at, struct str body, struct error *err)
{
        struct checkpoint saved;
        enum load_step step = at->load;
        int64_t created;

        at->load = LOAD_CHECKPOINT;
        if (step == LOAD_APP)
                return POLLER_AGAIN;
        if (step == LOAD_STREAM)
                return described_again(d, at, body, err);
        if (read_answer(body, &checkpoint_object, &saved, err) < 0)
                return POLLER_FAILED;
        stand_at(d, at, dis_sequence_of(saved.number));
        created = dis_read_metadata(dis_metadata_of(saved.metadata), &at->first_again);
        at->of = at->first_of = created ? created : d->created;
        at->reset = false;
        if (created && d->created && created != d->created && !d->proven) {
                at->load = LOAD_STREAM; /* confirm the creation time before anything is read */
                return POLLER_AGAIN;
        }
        return begin_there(d, at);
}

static enum poller_step cursor_got(struct dis *d, struct partition *at, const struct reader_job *job,
                                   struct str body, struct error *err)
{
        struct cursor cursor;

        if (read_answer(body, &cursor_object, &cursor, err) < 0)
                return POLLER_FAILED;
        buf_reset(&at->cursor);
        json_value_add(cursor.text, &at->cursor);
        if (at->cursor.failed)
                return (enum poller_step)error_memory(err);
        if (at->at != dis_position(at, job->mark))
                stand_at(d, at, dis_position(at, job->mark));
        at->since = now_of(&d->poller);
        return POLLER_AGAIN;
}

/* Reading resumed at the oldest record. If that lies beyond the position, the records between are lost. If it
 * lies before it, the stream was recreated, and the range in the list is outdated. */
static void reset_over(const struct dis *d, struct partition *at, int64_t first)
{
        if (first < at->at && at->newest >= at->at)
                at->oldest = at->newest = first;
        if (at->at >= 0 && first > at->at)
                reader_gone(d->poller.reader, at->track, (uint64_t)(first - at->at), "RecordsExpired",
                            "records %lld to %lld of partition %s are older than the stream keeps them",
                            (long long)at->at, (long long)first - 1, at->name);
        at->reset = false;
}

/* Sequence numbers are consecutive, and the service refuses cursors of expired records. So a response that
 * starts beyond the position is probably the response to another request. It is accepted only if a fresh
 * cursor at the position brings the same one. */
static bool is_ahead(const struct partition *at, const struct dis_records *got)
{
        return at->at >= 0 && !at->reset && got->first > at->at && got->first != at->ahead;
}

/* Counts empty responses while a list, requested after the first of them, shows records at the position.
 * Usually the next record exceeds maxFetchBytes; the service may also return empty responses for reasons of
 * its own. */
static bool is_held_up(const struct dis *d, struct partition *at, const struct dis_records *got)
{
        int64_t from = at->at >= 0 && !at->reset ? at->at : at->by_time ? INT64_MAX : at->oldest;

        if (got->n || !got->cursor.p) {
                at->empty_since = at->empty = 0;
                return false;
        }
        if (!at->empty_since) {
                at->empty_since = now_of(&d->poller);
                at->empty_since_wall = clock_wall(d->poller.services->clock);
        }
        at->empty = from < at->newest && at->described_at > at->empty_since ? at->empty + 1 : 0;
        return at->empty >= EMPTY_MOST;
}

/* The counters count records. Records without a number get here only in the second response that has them:
 * the first one is retried. */
static void warn_of_malformed(const struct dis *d, struct partition *at, const struct dis_records *got)
{
        reader_warn_of(d->poller.reader, got->malformed, "RecordsMalformed",
                       "records of partition %s have no data in Base64: they are delivered with what stands "
                       "there, or nothing",
                       at->name);
        if (got->unnumbered)
                reader_gone(d->poller.reader, at->track, got->unnumbered, "RecordsUnnumbered",
                            "%u records of partition %s have no sequence_number, twice: they are passed over",
                            got->unnumbered, at->name);
        at->unnumbered = false;
}

static void say_held_up(struct dis *d, struct partition *at)
{
        struct reader *r = d->poller.reader;
        BUF_AT_END struct buf text = BUF_INIT(512);

        buf_printf(&text, "nothing of partition %s came since ", at->name);
        time_format(&text, at->empty_since_wall / USEC_SEC * USEC_SEC);
        buf_printf(&text,
                   ", although the list names records up to %lld: perhaps one is larger than maxFetchBytes "
                   "(%lld); then raise it",
                   (long long)at->newest - 1, (long long)d->spec->max_fetch_bytes);
        if (!at->held_up)
                reader_warn(r, "RecordsHeldUp", "%s", text.failed ? at->name : text.p);
        at->held_up = true;
        d->held = at;
        reader_remark(r, SOURCE_CONNECTED, "%s", text.failed ? at->name : text.p);
}

static void held_up_over(struct dis *d, struct partition *at)
{
        at->held_up = false;
        if (d->held != at)
                return;
        d->held = NULL; /* if another partition is held up as well, its next response says so */
        reader_remark(d->poller.reader, SOURCE_CONNECTED, NULL);
}

static enum poller_step records_got(struct dis *d, struct partition *at, const struct reader_job *job,
                                    struct str body, struct error *err)
{
        struct dis_records got;

        const struct dis_from from = { .stream = d->spec->stream,
                                       .partition = str_of(at->name),
                                       .number = at->reset ? -1 : at->at,
                                       .created = at->of != at->first_of ? at->of : 0,
                                       .again = dis_made_again(at),
                                       .pass_over = at->unnumbered };

        if (dis_read_records(body, &from, job->page, &got, err) < 0) {
                at->unnumbered |= got.unnumbered != 0;
                cursor_drop(at);
                return POLLER_FAILED;
        }
        if (is_ahead(at, &got)) {
                at->ahead = got.first;
                cursor_drop(at);
                (void)error_set(err, ERROR_PROTOCOL,
                                "records of partition %s: an answer begins at %lld instead of %lld", at->name,
                                (long long)got.first, (long long)at->at);
                return POLLER_FAILED;
        }
        at->ahead = -1;
        warn_of_malformed(d, at, &got);
        if (!is_held_up(d, at, &got))
                held_up_over(d, at);
        else if (!d->held || !at->held_up)
                say_held_up(d, at);
        if (at->reset && got.n)
                reset_over(d, at, got.first);
        if (got.last >= 0)
                stand_at(d, at, got.last + 1);
        buf_reset(&at->cursor);
        if (!got.repeated) /* the cursor of a response that repeats records may point to an older position */
                buf_str(&at->cursor, got.cursor);
        at->since = now_of(&d->poller);
        tell_lag(d, at);
        reader_remark(d->poller.reader, SOURCE_CONNECTING, NULL);
        if (!got.cursor.p && !got.repeated) { /* the end, until a list shows more */
                at->end = at->at >= 0 ? at->at : at->newest;
                partition_over(d, at, "", "its cursor is null, as at the end");
        }
        return POLLER_DONE;
}

/* Was the call that succeeded the app's creation, rather than the checkpoint's? */
static bool app_made(struct partition *at)
{
        bool made = at->make_app;

        at->make_app = false;
        return made;
}

static enum poller_step answered(struct poller *p, const struct reader_job *job, struct str body,
                                 struct error *err)
{
        struct dis *d = dis_of(p);
        struct partition *at = job->own;

        if (job->kind == READER_LOAD)
                return loaded(d, at, body, err);
        if (job->kind == READER_FETCH && at->unsaid) {
                at->unsaid = false;
                return POLLER_AGAIN;
        }
        if (job->kind == READER_FETCH)
                return at->for_records ? records_got(d, at, job, body, err)
                                       : cursor_got(d, at, job, body, err);
        return app_made(at) ? POLLER_AGAIN : POLLER_DONE;
}

/* ---- refusals ----------------------------------------------------------- */

static bool is(const struct cloud_error *refusal, const char *code)
{
        return string_equal(refusal->code, code);
}

/* The partition has expired, or does not exist in the stream; a later list may bring it back. */
static bool is_gone(const struct cloud_error *r)
{
        return is(r, "DIS.4319") || is(r, "DIS.4302") || is(r, "DIS.4201");
}
static bool is_out_of_range(const struct cloud_error *r) { return is(r, "DIS.4224") || is(r, "DIS.4226"); }
bool dis_cannot_be_saved(const struct cloud_error *r) { return is_gone(r) || is_out_of_range(r); }

static enum poller_step load_refused(struct dis *d, struct partition *at, const struct cloud_error *r)
{
        enum load_step step = at->load;

        at->load = LOAD_CHECKPOINT;
        if (step == LOAD_STREAM)
                return POLLER_FAILED;
        if (step == LOAD_APP)
                return is(r, "DIS.4330") ? POLLER_AGAIN : POLLER_FAILED;
        if (is(r, "DIS.4332")) {
                at->load = LOAD_APP;
                return POLLER_AGAIN;
        }
        if (is_gone(r)) {
                partition_over(d, at, r->code, r->words);
                return POLLER_DONE;
        }
        return is(r, "DIS.4375") ? begin(d, at) : POLLER_FAILED;
}

static enum poller_step fetch_refused(struct dis *d, struct partition *at, const struct cloud_error *r)
{
        if (r->verdict == CLOUD_RETRY || r->verdict == CLOUD_THROTTLE)
                return POLLER_FAILED;
        if (at->unsaid && (is(r, "DIS.4332") || dis_cannot_be_saved(r))) {
                at->unsaid = false; /* go on: the next regular checkpoint will say it */
                return POLLER_AGAIN;
        }
        cursor_drop(at);
        if (is_gone(r)) {
                partition_over(d, at, r->code, r->words);
                return POLLER_DONE;
        }
        if (is_out_of_range(r)) {
                dis_start_over(d, at, r->words);
                return POLLER_AGAIN;
        }
        if (!at->for_records && at->by_time && is(r, "DIS.4300") &&
            strstr(r->words, "timestamp is expired")) {
                at->by_time = false;
                return POLLER_AGAIN;
        }
        return at->for_records && r->verdict == CLOUD_RENEW_CURSOR ? POLLER_AGAIN : POLLER_FAILED;
}

static enum poller_step save_refused(struct dis *d, struct partition *at, const struct cloud_error *r)
{
        if (app_made(at))
                return is(r, "DIS.4330") ? POLLER_AGAIN : POLLER_FAILED;
        if (is(r, "DIS.4332")) {
                at->make_app = true;
                return POLLER_AGAIN;
        }
        if (!dis_cannot_be_saved(r))
                return POLLER_FAILED;
        /* A retry can't help; a later checkpoint may succeed. */
        reader_warn(d->poller.reader, "CheckpointRefused", "the checkpoint of partition %s is not taken: %s",
                    at->name, r->words);
        return POLLER_DONE;
}

static enum poller_step refused(struct poller *p, const struct reader_job *job,
                                const struct cloud_error *refusal, struct error *err UNUSED)
{
        struct dis *d = dis_of(p);

        return job->kind == READER_LOAD    ? load_refused(d, job->own, refusal)
               : job->kind == READER_FETCH ? fetch_refused(d, job->own, refusal)
                                           : save_refused(d, job->own, refusal);
}

/* ---- life --------------------------------------------------------------- */

static void left(struct poller *p, void *own)
{
        struct partition *at = own;

        held_up_over(dis_of(p), at);
        at->added = false;
        at->late = true;
        buf_done(&at->cursor);
}

static void done(struct poller *p)
{
        struct dis *d = dis_of(p);
        struct partition *at, *next;

        HASH_ITER(hh, d->partitions, at, next)
        {
                HASH_DEL(d->partitions, at);
                buf_done(&at->cursor);
                free(at);
        }
        buf_done(&d->app);
}

const struct poller_ops dis_ops = { .service = "dis",
                                    .claimed = true,
                                    .discover = dis_discover,
                                    .discovered = dis_discovered,
                                    .discover_refused = dis_discover_refused,
                                    .ask = ask,
                                    .answered = answered,
                                    .refused = refused,
                                    .left = left,
                                    .done = done };

static int dis_open(struct source **out, const void *spec_, const struct services *services,
                    struct error *err)
{
        const struct dis_spec *spec = spec_;
        const struct poller_config config = {
                .reader = { .loads = true,
                            .page_bytes = (size_t)spec->max_fetch_bytes,
                            .page_most = PAGE_MOST,
                            .poll_min = spec->polling_interval ? spec->polling_interval : POLL_FIRST,
                            .poll_max = spec->polling_interval ? spec->polling_interval : POLL_IDLE,
                            .save_interval = spec->serial ? 100 * USEC_MSEC : USEC_SEC,
                            .unsaved_most = spec->serial ? 1 : 0 },
                .discover_interval = DISCOVERY,
                .cloud = spec->cloud,
        };
        struct dis *d = calloc(1, sizeof(*d));

        if (!d)
                return error_memory(err);
        d->spec = spec;
        d->app.max = 1024;
        dis_app(spec, services->trigger, &d->app);
        if (poller_open(&d->poller, &dis_ops, &config, services, err) < 0)
                return -1;
        if (d->app.failed) {
                (void)poller_close(&d->poller);
                return error_memory(err);
        }
        *out = &d->poller.source;
        return 0;
}

static const struct warning warnings[] = { WARNING("RecordsExpired", .loses = true),
                                           WARNING("PositionOutOfRange"),
                                           WARNING("RecordsHeldUp"),
                                           WARNING("RecordsMalformed"),
                                           WARNING("RecordsUnnumbered", .loses = true),
                                           WARNING("CheckpointRefused"),
                                           SOURCE_ACCOUNT_WARNING,
                                           WARNINGS_END };

static int check(const void *spec, const struct services *services, struct error *err)
{
        return poller_check(((const struct dis_spec *)spec)->cloud, dis_ops.service, services, err);
}

const struct source_kind dis_source = {
        .name = "dis",
        .warnings = warnings,
        .type = &dis_type,
        .shape = &dis_shape,
        .pull = &poller_pull,
        .open = dis_open,
        .check = check,
        .origin = dis_origin,
};
