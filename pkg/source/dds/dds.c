#include "source/dds/dds.h"

#include "base/random.h"
#include "json/members.h"
#include "source/dds/stream.h"

/* One page; what a server sends together has up to 16 MB, and a document in its parts more. */
enum { PAGE_BYTES = 1 << 20, PAGE_MOST = 512 << 20, MARK_MOST = 512 << 10 };
/* A stream is there again within a second after the server is. */
static const usec BACKOFF_MIN = 50 * USEC_MSEC, BACKOFF_MAX = 800 * USEC_MSEC;
/* A job that is wanted no more ends with the server's answer; else its connection is cut, and one that can't
 * be cut is left to itself. */
static const usec CUT_AFTER = 1300 * USEC_MSEC, LEAVE_AFTER = 700 * USEC_MSEC;
/* A track that another worker saves is tried again after this. */
static const usec LOST_PAUSE = USEC_MINUTE;
static const char OPLOG_LOST[] = "OplogLost", FOREIGN[] = "CheckpointForeign";

static struct dds *dds_of(struct source *s) { return CONTAINER_OF(s, struct dds, source); }
static const struct dds *const_of(const struct source *s) { return dds_of((struct source *)(uintptr_t)s); }
static usec now_of(const struct dds *d) { return clock_monotonic(d->services->clock); }

/* ---- the store ---------------------------------------------------------- */

/* What is stored: {"scope": "shop.orders", "position": MARK}. */
static struct str value_of(struct dds *d, struct str mark)
{
        struct writer w;

        buf_reset(&d->value);
        writer_init(&w, &d->value);
        writer_object(&w);
        writer_member_string(&w, "scope", buf_view(&d->scope));
        writer_member_string(&w, "position", mark);
        writer_object_end(&w);
        return buf_view(&d->value);
}

struct stored {
        struct json_value scope, position;
};
static const struct json_member stored_members[] = {
        MEMBER(TEXT, "scope", struct stored, scope, .required = true),
        MEMBER(TEXT, "position", struct stored, position, .required = true),
};
static const struct json_object stored_object = JSON_OBJECT("the checkpoint", stored_members);

/* 1: the mark; 0: it is of another stream. */
static int read_value(struct dds *d, struct str value, struct error *err)
{
        BUF_AT_END struct buf scope = BUF_INIT(4096);
        struct stored s;

        if (json_read_object(value, &stored_object, &s, err) < 0)
                return -1;
        json_value_add(s.scope, &scope);
        buf_reset(&d->mark);
        json_value_add(s.position, &d->mark);
        if (scope.failed || d->mark.failed)
                return error_memory(err);
        if (str_equal(buf_view(&scope), buf_view(&d->scope)))
                return 1;
        reader_warn(d->reader, FOREIGN,
                    "the stored position is one of " STR_FMT
                    ", not of %s: reading begins as at a first start",
                    STR_ARG(buf_view(&scope)), d->scope.p);
        return 0;
}

static void put(struct dds *d, struct store_request *r, struct str name, struct str mark)
{
        r->request.wake = d->services->wake;
        store_put(&d->services->store, r, name, value_of(d, mark));
}

/* ---- the front job ------------------------------------------------------ */

static void front_done(struct dds *d, struct str mark)
{
        struct reader_job job = d->front;

        d->step = STEP_NONE;
        reader_done(d->reader, &job, mark, now_of(d));
}

static void front_failed(struct dds *d, const struct error *err)
{
        struct reader_job job = d->front;

        d->unwanted = false;
        d->step = STEP_NONE;
        reader_failed(d->reader, &job, err, now_of(d));
}

static void front_cancelled(struct dds *d)
{
        struct error err;

        (void)error_set(&err, ERROR_CANCELLED, "it is not wanted any more");
        front_failed(d, &err);
}

static int have_link(struct dds *d, struct error *err)
{
        const struct link_config config = { .driver = d->driver,
                                            .spec = d->spec,
                                            .clock = d->services->clock,
                                            .waker = d->services->waker,
                                            .wake = d->services->wake };
        struct link_access access;

        if (d->link)
                return 0;
        if (dds_access_copy(&d->access, &access, err) < 0)
                return -1;
        if (link_new(&d->link, &config, err) < 0) {
                link_access_done(&access);
                return -1;
        }
        link_renew(d->link, &access);
        return 0;
}

static void ask(struct dds *d, enum dds_step step, enum link_work work, struct str mark)
{
        struct error err;

        d->step = step;
        if (have_link(d, &err) < 0 || link_submit(d->link, work, mark, d->front.bytes, &err) < 0)
                front_failed(d, &err);
}

/* The mark to begin with is stored before anything is read, so that it is the same after a crash. */
static void save_start(struct dds *d, struct str mark)
{
        d->step = STEP_SAVE;
        buf_reset(&d->mark);
        buf_str(&d->mark, mark);
        put(d, &d->loading, d->front.name, buf_view(&d->mark));
}

static void start(struct dds *d)
{
        const struct dds_spec *spec = d->spec;
        char text[64];
        struct buf mark = BUF_ON(text);

        if (spec->start != DDS_TIMESTAMP) {
                ask(d, STEP_START, spec->start == DDS_LATEST ? LINK_NOW : LINK_OLDEST, (struct str){ 0 });
                return;
        }
        dds_position_write(DDS_POSITION_TIME,
                           (struct dds_time){ (uint32_t)(spec->start_timestamp / USEC_SEC), 0 },
                           (struct str){ 0 }, &mark);
        save_start(d, buf_view(&mark));
}

/* Only once its stream is open a track counts as loaded, and the source as connected. */
static void open_stream(struct dds *d)
{
        d->loaded = true;
        ask(d, STEP_OPEN, LINK_OPEN, buf_view(&d->mark));
}

static void loaded(struct dds *d)
{
        struct error err = d->loading.request.error;
        int found;

        if (err.kind == ERROR_NONE && !d->loading.found) {
                start(d);
                return;
        }
        found = err.kind == ERROR_NONE ? read_value(d, buf_view(&d->loading.value), &err) : -1;
        if (found > 0)
                open_stream(d);
        else if (found == 0)
                start(d);
        else
                front_failed(d, &err);
}

static void start_saved(struct dds *d)
{
        const struct error *err = &d->loading.request.error;

        if (err->kind != ERROR_NONE)
                front_failed(d, err);
        else if (d->front.kind == READER_LOAD)
                open_stream(d);
        else
                front_done(d, buf_view(&d->mark));
}

static void take_loading(struct dds *d)
{
        if (!request_take(&d->loading.request))
                return;
        if (d->unwanted)
                front_cancelled(d);
        else if (d->step == STEP_LOAD)
                loaded(d);
        else if (d->step == STEP_SAVE)
                start_saved(d);
}

/* ---- what the link brings ----------------------------------------------- */

static bool is_wanted(const struct dds *d, const struct link_change *c)
{
        for (size_t i = 0; c->invalidate && i < d->spec->operations.n; i++)
                if (string_equal(d->spec->operations.list[i], "invalidate"))
                        return true;
        return !c->invalidate;
}

static void fill(struct dds *d)
{
        for (const struct link_change *c = link_changes(d->link); c; c = c->next) {
                struct record *r = is_wanted(d, c) ? dds_record(d->front.page, &c->told) : NULL;

                if (r && r->value.n > (size_t)d->spec->max_event_bytes)
                        r->unfit = "the change takes more than maxEventBytes: leave large fields out with a "
                                   "$project stage in pipeline, or raise it";
        }
        front_done(d, link_mark(d->link));
}

static void fault_failed(struct dds *d, const struct dds_fault *f)
{
        struct error err;

        (void)dds_fault_error(d->spec, f, &err);
        front_failed(d, &err);
}

static void time_text(struct dds_time time, const char *otherwise, struct buf *out)
{
        if (time.seconds)
                time_format(out, (usec)time.seconds * USEC_SEC);
        else
                buf_text(out, otherwise);
}

static struct str position_of(const struct dds *d)
{
        return d->front.kind == READER_LOAD ? buf_view(&d->mark) : d->front.mark;
}

/* "the oplog no longer holds the position, of 2026-…: it begins at …" */
static void lost_text(const struct dds *d, const struct dds_time *oldest, struct buf *out)
{
        struct dds_position at = { 0 };
        bool known = dds_position_read(position_of(d), &at);

        buf_printf(out, "%s: the oplog no longer holds the position, of ", OPLOG_LOST);
        time_text(known ? at.time : (struct dds_time){ 0 }, "an unknown time", out);
        buf_text(out, "; the oldest change that it holds is of ");
        time_text(oldest ? *oldest : (struct dds_time){ 0 }, "an unknown time", out);
        buf_printf(out, ": what happened between is lost (%s)", d->lost.text);
        buf_done(&at.token);
}

/* What befell is told once; what is done about it is the user's choice. */
static void tell_lost(struct dds *d, const struct dds_time *oldest, const char *then)
{
        BUF_AT_END struct buf text = BUF_INIT(2048);

        lost_text(d, oldest, &text);
        if (!d->told_lost)
                reader_gone(d->reader, d->front.track, 1, OPLOG_LOST, "%s; %s", text.p ? text.p : OPLOG_LOST,
                            then);
        d->told_lost = true;
}

static void stay_lost(struct dds *d, const struct dds_time *oldest)
{
        static const char then[] = "set onLost to Earliest or Now to go on";
        BUF_AT_END struct buf text = BUF_INIT(2048);
        struct error err;

        tell_lost(d, oldest, then);
        lost_text(d, oldest, &text);
        (void)error_set(&err, ERROR_GONE, "%s; %s", text.p ? text.p : OPLOG_LOST, then);
        err.retry = false;
        err.retry_after = 30 * USEC_SEC;
        front_failed(d, &err);
}

static void lost(struct dds *d)
{
        d->lost = *link_fault(d->link);
        ask(d, STEP_LOST, d->spec->on_lost == DDS_LOST_NOW ? LINK_NOW : LINK_OLDEST, (struct str){ 0 });
}

/* How much was lost is known, or where to go on. */
static void lost_known(struct dds *d, const struct dds_fault *f)
{
        struct dds_position at = { 0 };
        bool known = f->kind == DDS_FAULT_NONE && dds_position_read(link_mark(d->link), &at);

        if (d->spec->on_lost == DDS_LOST_FAIL)
                stay_lost(d, known ? &at.time : NULL);
        else if (!known)
                fault_failed(d, f);
        else {
                tell_lost(d, d->spec->on_lost == DDS_LOST_EARLIEST ? &at.time : NULL,
                          d->spec->on_lost == DDS_LOST_EARLIEST
                                  ? "reading goes on there, as onLost says"
                                  : "reading goes on with what comes from now on, as "
                                    "onLost says");
                save_start(d, link_mark(d->link));
        }
        buf_done(&at.token);
}

static void well_again(struct dds *d)
{
        d->told_lost = false;
        if (d->troubled)
                reader_trouble(d->reader, NULL);
        d->troubled = false;
}

static void read_ended(struct dds *d, const struct dds_fault *f)
{
        if (f->kind == DDS_FAULT_NONE || link_changes(d->link)) {
                well_again(d);
                fill(d);
        } else if (dds_fault_lost(f))
                lost(d);
        else if (link_unread(d->link)->kind != ERROR_NONE)
                front_failed(d, link_unread(d->link));
        else
                fault_failed(d, f);
}

static void open_ended(struct dds *d, const struct dds_fault *f)
{
        if (f->kind == DDS_FAULT_NONE) {
                well_again(d);
                front_done(d, buf_view(&d->mark));
        } else if (dds_fault_lost(f))
                lost(d);
        else
                fault_failed(d, f);
}

static void link_ended(struct dds *d)
{
        const struct dds_fault *f = link_fault(d->link);

        if (d->step == STEP_OPEN)
                open_ended(d, f);
        else if (d->step == STEP_READ)
                read_ended(d, f);
        else if (d->step == STEP_LOST)
                lost_known(d, f);
        else if (d->step == STEP_START && f->kind == DDS_FAULT_NONE)
                save_start(d, link_mark(d->link));
        else if (d->step == STEP_START)
                fault_failed(d, f);
}

/* ---- leaving ------------------------------------------------------------ */

static void left(struct dds *d)
{
        bool lost = d->leave.lost, elsewhere = share_left(&d->share, d->leave.track);
        struct reader_job job = d->leave;
        struct error err;

        d->leaving = d->there = d->loaded = d->discard = d->cut = false;
        d->cut_at = d->leave_at = USEC_NEVER;
        well_again(d);
        d->add_at = now_of(d) + (lost && !d->share.port.ops ? LOST_PAUSE : USEC_SEC);
        if (lost && !d->share.port.ops) {
                (void)error_set(&err, ERROR_CONFLICT,
                                "somebody else saves the position of this Trigger: is it running twice?");
                reader_trouble(d->reader, &err);
                d->troubled = true;
        }
        (void)elsewhere;
        reader_done(d->reader, &job, STR(""), now_of(d));
}

static void link_over(struct dds *d)
{
        d->link = link_free(d->link);
        if (d->leaving)
                left(d);
}

/* The stream is closed in peace, unless that takes too long. */
static void close_link(struct dds *d)
{
        struct error err;

        if (!d->link || d->cut || link_submit(d->link, LINK_CLOSE, (struct str){ 0 }, 0, &err) < 0) {
                link_over(d);
                return;
        }
        d->cut_at = MIN_OF(d->cut_at, now_of(d) + CUT_AFTER);
}

/* Of a job that the link is at and nobody waits for. */
static void give_up_job(struct dds *d)
{
        d->step = STEP_NONE;
        d->discard = true;
        link_hurry(d->link);
        d->cut_at = now_of(d) + CUT_AFTER;
}

static void cut_in_time(struct dds *d, usec now)
{
        if (d->link && link_busy(d->link) && now >= d->cut_at) {
                link_cut(d->link);
                d->cut = true;
                d->cut_at = USEC_NEVER;
                d->leave_at = now + LEAVE_AFTER;
        }
        if (d->link && link_busy(d->link) && now >= d->leave_at) {
                d->link = link_leave(d->link);
                d->discard = false;
                d->leave_at = USEC_NEVER;
                if (d->leaving)
                        left(d);
        }
}

static void take_link(struct dds *d)
{
        if (!d->link || !link_take(d->link))
                return;
        d->leave_at = USEC_NEVER;
        if (d->leaving) {
                if (d->discard)
                        close_link(d);
                else
                        link_over(d);
                d->discard = false;
                return;
        }
        if (d->discard) {
                d->discard = false;
                d->cut_at = USEC_NEVER;
                return;
        }
        link_ended(d);
}

/* ---- jobs --------------------------------------------------------------- */

static void claim(struct dds *d, const struct reader_job *job)
{
        struct error err;

        if (share_claim(&d->share, job, &err) < 0)
                reader_failed(d->reader, job, &err, now_of(d));
        else
                reader_done(d->reader, job, STR(""), now_of(d));
}

static void begin_load(struct dds *d)
{
        if (d->loaded) {
                open_stream(d);
                return;
        }
        d->step = STEP_LOAD;
        d->loading.request.wake = d->services->wake;
        store_get(&d->services->store, &d->loading, d->front.name);
}

/* What goes to the store can't be cancelled: its answer is the end. */
static void cancel(struct dds *d)
{
        d->unwanted = d->step == STEP_LOAD || d->step == STEP_SAVE;
        if (d->unwanted || d->step == STEP_NONE)
                return;
        front_cancelled(d);
        give_up_job(d);
}

static void begin_leave(struct dds *d)
{
        d->leaving = true;
        if (!d->link || !link_busy(d->link))
                close_link(d);
}

static void begin(struct dds *d, const struct reader_job *job)
{
        switch (job->kind) {
        case READER_CLAIM: claim(d, job); break;
        case READER_LOAD:
                d->front = *job;
                begin_load(d);
                break;
        case READER_FETCH:
                d->front = *job;
                ask(d, STEP_READ, LINK_READ, job->mark);
                break;
        case READER_SAVE:
                d->save = *job;
                put(d, &d->saving, job->name, job->state);
                break;
        case READER_CANCEL: cancel(d); break;
        case READER_LEAVE:
                d->leave = *job;
                begin_leave(d);
                break;
        case READER_RETURN:
        case READER_JOB_MAX: break;
        }
}

static void take_saving(struct dds *d)
{
        if (!request_take(&d->saving.request))
                return;
        if (request_failed(&d->saving.request))
                reader_failed(d->reader, &d->save, &d->saving.request.error, now_of(d));
        else
                reader_done(d->reader, &d->save, STR(""), now_of(d));
}

/* ---- a turn ------------------------------------------------------------- */

static void add_track(struct dds *d, usec now)
{
        struct error err;
        uint32_t track;

        if (d->stopping || d->there || now < d->add_at)
                return;
        if (d->troubled)
                well_again(d);
        d->add_at = now + USEC_SEC;
        d->there = reader_add(d->reader, STR("stream"), NULL, &track, &err) == 0;
}

/* An attempt to read that the driver makes again and again by itself. */
static void tell_trouble(struct dds *d)
{
        struct dds_fault fault;
        struct error err;
        bool changed;
        bool fails = d->link && link_trouble(d->link, &fault, &changed) && !d->discard;

        if (!d->link || !changed)
                return;
        if (!fails) {
                well_again(d);
                return;
        }
        (void)dds_fault_error(d->spec, &fault, &err);
        err.retry = true;
        reader_trouble(d->reader, &err);
        d->troubled = true;
}

static void renew(struct dds *d)
{
        struct link_access access;
        struct error err;

        if (!dds_access_changed(&d->access) || !d->link)
                return;
        if (dds_access_copy(&d->access, &access, &err) == 0)
                link_renew(d->link, &access);
}

static void say_warnings(struct dds *d)
{
        struct notice notice;

        while (reader_warned(d->reader, &notice))
                source_tell(d->services, &notice);
}

/* Delays PULL_CLOSED until the claim is released, so that a successor can take it at once. */
static size_t hold_back(struct dds *d, struct pull_event *events, size_t max, size_t n)
{
        if (n && events[n - 1].kind == PULL_CLOSED) {
                d->closed = true;
                n--;
        }
        if (n == max || !d->closed || !share_stopped(&d->share))
                return n;
        d->closed = false;
        events[n++] = (struct pull_event){ .kind = PULL_CLOSED };
        return n;
}

static size_t poll(struct source *s, struct pull_event *events, size_t max, usec now)
{
        struct dds *d = dds_of(s);
        struct reader_job job;

        renew(d);
        take_link(d);
        cut_in_time(d, now);
        take_loading(d);
        take_saving(d);
        tell_trouble(d);
        add_track(d, now);
        share_turn(&d->share, d->reader);
        while (reader_next(d->reader, now, &job))
                begin(d, &job);
        say_warnings(d);
        return hold_back(d, events, max, reader_poll(d->reader, events, max, now));
}

static usec deadline(const struct source *s)
{
        const struct dds *d = const_of(s);
        usec at = MIN_OF(reader_deadline(d->reader), d->leave_at);

        if (d->closed && share_stopped(&d->share))
                return 0;
        at = MIN_OF(at, d->cut_at);
        return d->stopping || d->there ? at : MIN_OF(at, d->add_at);
}

static void credit(struct source *s, uint32_t track, uint32_t records, size_t bytes)
{
        reader_credit(dds_of(s)->reader, track, records, bytes);
}

static void release(struct source *s, struct record *r, enum outcome outcome UNUSED)
{
        reader_release(dds_of(s)->reader, r);
}

static bool detach(struct source *s, struct record *r) { return reader_detach(dds_of(s)->reader, r); }
static void commit(struct source *s, uint32_t track, uint64_t next)
{
        reader_commit(dds_of(s)->reader, track, next);
}
static void revoked(struct source *s, uint32_t track) { reader_revoked(dds_of(s)->reader, track); }
static int64_t lag(const struct source *s) { return reader_lag(const_of(s)->reader); }
static int64_t unsaved(const struct source *s) { return reader_unsaved(const_of(s)->reader); }

/* A stream that brings nothing is further than the last that it brought: that is stored, too. */
static void finish_read(struct dds *d)
{
        if (d->step != STEP_READ)
                return;
        buf_reset(&d->mark);
        if (!link_reached(d->link, &d->mark) || d->mark.failed)
                return;
        front_done(d, buf_view(&d->mark));
        give_up_job(d);
}

static void stop(struct source *s)
{
        struct dds *d = dds_of(s);

        d->stopping = true;
        finish_read(d);
        reader_stop(d->reader);
        share_stop(&d->share);
}

/* ---- life --------------------------------------------------------------- */

static struct source *close_source(struct source *s)
{
        struct dds *d = s ? dds_of(s) : NULL;

        if (!d)
                return NULL;
        store_release(&d->services->store, &d->loading);
        store_release(&d->services->store, &d->saving);
        d->link = link_free(d->link);
        dds_access_done(&d->access);
        share_done(&d->share);
        (void)reader_free(d->reader);
        buf_done(&d->scope);
        buf_done(&d->mark);
        buf_done(&d->value);
        free(d);
        return NULL;
}

static int open_parts(struct dds *d, struct error *err)
{
        const struct reader_config config = { .claims = d->services->claims.ops != NULL,
                                              .loads = true,
                                              .page_bytes = PAGE_BYTES,
                                              .page_most = PAGE_MOST,
                                              .backoff_min = BACKOFF_MIN,
                                              .backoff_max = BACKOFF_MAX,
                                              .save_interval = USEC_SEC,
                                              .idle_save_interval = d->spec->token_interval };

        dds_scope(d->spec, &d->scope);
        if (d->scope.failed)
                return error_memory(err);
        if (dds_driver_load(&d->driver, err) < 0 || share_init(&d->share, &d->services->claims, err) < 0 ||
            dds_access_open(&d->access, d->spec, d->services, err) < 0)
                return -1;
        return reader_new(&d->reader, &config, random_seed(), err);
}

static int dds_open(struct source **out, const void *spec, const struct services *services, struct error *err)
{
        struct dds *d = calloc(1, sizeof(*d));

        if (!d)
                return error_memory(err);
        d->spec = spec;
        d->services = services;
        d->scope.max = 4096;
        d->mark.max = d->value.max = MARK_MOST;
        d->cut_at = d->leave_at = USEC_NEVER;
        if (open_parts(d, err) < 0) {
                (void)close_source(&d->source);
                return -1;
        }
        *out = &d->source;
        return 0;
}

static int check(const void *spec UNUSED, const struct services *services UNUSED, struct error *err)
{
        const struct dds_driver *driver;

        return dds_driver_load(&driver, err);
}

static void origin(const struct trigger *t, struct buf *b) { dds_scope(t->source_spec, b); }

static const struct warning warnings[] = { WARNING(OPLOG_LOST, .loses = true), WARNING(FOREIGN),
                                           WARNINGS_END };
static const struct pull_ops pull = { .poll = poll,
                                      .deadline = deadline,
                                      .credit = credit,
                                      .release = release,
                                      .detach = detach,
                                      .commit = commit,
                                      .revoked = revoked,
                                      .lag = lag,
                                      .unsaved = unsaved,
                                      .stop = stop,
                                      .free = close_source };
const struct source_kind dds_source = {
        .name = "dds",
        .warnings = warnings,
        .type = &dds_type,
        .shape = &dds_shape,
        .pull = &pull,
        .open = dds_open,
        .check = check,
        .origin = origin,
};
