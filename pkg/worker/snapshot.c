#include "worker/snapshot.h"

#include "api/worker.h"
#include "json/writer.h"

/* Limits for one answer, and for all answers together that clients have not read yet: beyond it new requests
 * get 503. */
enum { BYTES_MOST = 64 << 20, UNREAD_MOST = 128 << 20 };

/* Why it is not connected; NULL: it is. */
static const char *not_connected(const struct pipeline_status *s)
{
        switch (s->source) {
        case SOURCE_CONNECTED:
        case SOURCE_IDLE:
        case SOURCE_STANDBY:
        case SOURCE_REMOVED: return NULL;
        case SOURCE_CONNECTING:
        case SOURCE_DISCONNECTED:
        case SOURCE_FAILED:
        case SOURCE_STATE_MAX: break;
        }
        return source_state_name(s->source);
}

/* ---- metrics ------------------------------------------------------------ */

static void label_value(struct buf *b, const char *text)
{
        for (; *text; text++) {
                if (*text == '"' || *text == '\\')
                        buf_char(b, '\\');
                buf_char(b, *text);
        }
}

static int64_t of_offered(const struct pipeline_status *s) { return (int64_t)s->stats.offered; }
static int64_t of_accepted(const struct pipeline_status *s) { return (int64_t)s->stats.accepted; }
static int64_t of_filtered(const struct pipeline_status *s) { return (int64_t)s->stats.filtered; }
static int64_t of_unjudged(const struct pipeline_status *s) { return (int64_t)s->unjudged; }
static int64_t of_dead_lettered(const struct pipeline_status *s) { return (int64_t)s->stats.dead_lettered; }
static int64_t of_dropped(const struct pipeline_status *s) { return (int64_t)s->stats.dropped; }
static int64_t of_limit(const struct pipeline_status *s) { return s->stats.limit; }
static int64_t of_attempts(const struct pipeline_status *s) { return (int64_t)s->stats.attempts; }
static int64_t of_failures(const struct pipeline_status *s) { return (int64_t)s->stats.failures; }
static int64_t of_in_flight(const struct pipeline_status *s) { return s->stats.in_flight; }
static int64_t of_held(const struct pipeline_status *s) { return s->stats.held; }
static int64_t of_held_bytes(const struct pipeline_status *s) { return (int64_t)s->stats.held_bytes; }
static int64_t of_lag(const struct pipeline_status *s) { return s->lag; }
static int64_t of_behind(const struct pipeline_status *s) { return s->behind / USEC_SEC; }
static int64_t of_unsaved(const struct pipeline_status *s) { return s->unsaved; }
static int64_t of_connected(const struct pipeline_status *s) { return not_connected(s) == NULL; }
static int64_t of_refused(const struct pipeline_status *s) { return (int64_t)s->callers.refused; }
static int64_t of_limited(const struct pipeline_status *s) { return (int64_t)s->callers.limited; }
static int64_t of_asked(const struct pipeline_status *s) { return (int64_t)s->callers.asked; }
static int64_t of_failed(const struct pipeline_status *s) { return (int64_t)s->callers.failed; }
static int64_t of_last_event(const struct pipeline_status *s) { return s->last_event / USEC_SEC; }
static int64_t of_last_delivery(const struct pipeline_status *s) { return s->last_delivery / USEC_SEC; }

static const struct {
        const char *name, *type, *help;
        int64_t (*value)(const struct pipeline_status *);
} metrics[] = {
        ROW("sluice_events_received_total", "counter", "Records the source lent.", of_offered),
        ROW("sluice_events_delivered_total", "counter", "Records the function accepted.", of_accepted),
        ROW("sluice_events_filtered_total", "counter", "Records that the filter left out.", of_filtered),
        ROW("sluice_filter_failures_total", "counter", "Records that the filter could not judge.",
            of_unjudged),
        ROW("sluice_events_dead_lettered_total", "counter", "Records the dead letter took.",
            of_dead_lettered),
        ROW("sluice_events_dropped_total", "counter", "Records given up, as onExhausted: Drop asks.",
            of_dropped),
        ROW("sluice_delivery_attempts_total", "counter", "Requests sent to the function.", of_attempts),
        ROW("sluice_delivery_failures_total", "counter", "Requests that were not accepted.", of_failures),
        ROW("sluice_requests_in_flight", "gauge", "Requests that wait for an answer.", of_in_flight),
        ROW("sluice_requests_limit", "gauge", "Requests at once that the function is trusted with now.",
            of_limit),
        ROW("sluice_records_held", "gauge", "Records lent and not settled.", of_held),
        ROW("sluice_records_held_bytes", "gauge", "Bytes those records pin.", of_held_bytes),
        ROW("sluice_source_lag", "gauge", "Records behind the end of the source; -1: unknown.", of_lag),
        ROW("sluice_source_lag_seconds", "gauge",
            "How long ago the oldest record happened that came and is not done; 0: there is none.",
            of_behind),
        ROW("sluice_records_unsaved", "gauge",
            "Records that are done and whose position is not saved yet: with those held, what comes again "
            "after a crash. -1: unknown.",
            of_unsaved),
        ROW("sluice_source_connected", "gauge", "1 while the source is connected.", of_connected),
        ROW("sluice_callers_refused_total", "counter", "Requests whose caller may not.", of_refused),
        ROW("sluice_callers_limited_total", "counter", "Requests beyond callerRateLimit.", of_limited),
        ROW("sluice_authorizer_requests_total", "counter", "Requests to the authorizer or to IAM.", of_asked),
        ROW("sluice_authorizer_failures_total", "counter", "Those of them that brought no answer to go by.",
            of_failed),
        ROW("sluice_last_event_timestamp_seconds", "gauge", "When the last record came; 0: none yet.",
            of_last_event),
        ROW("sluice_last_delivery_timestamp_seconds", "gauge",
            "When the last record was accepted; 0: none yet.", of_last_delivery),
};

/* The lines of a metric must be adjacent, so each metric has its own buffer until all Triggers were added. */
enum { WARNINGS = COUNT_OF(metrics), LOST, TRACK_LAG, TRACK_SECONDS, PARTS };
struct snapshot {
        enum snapshot_kind kind;
        struct http_call *call;
        struct writer writer;    /* STATUS: into out */
        struct buf parts[PARTS]; /* METRICS */
        size_t joined;           /* how many parts are in out */
        struct buf labels, out;
};

static void begin_part(struct buf *b, const char *name, const char *type, const char *help)
{
        *b = BUF_INIT((size_t)BYTES_MOST);
        buf_printf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static const char WARNINGS_NAME[] = "sluice_source_warnings_total", LOST_NAME[] = "sluice_records_lost_total",
                  TRACK_LAG_NAME[] = "sluice_partition_lag",
                  TRACK_SECONDS_NAME[] = "sluice_partition_lag_seconds";

static void begin_metrics(struct snapshot *s)
{
        for (size_t m = 0; m < COUNT_OF(metrics); m++)
                begin_part(&s->parts[m], metrics[m].name, metrics[m].type, metrics[m].help);
        begin_part(&s->parts[WARNINGS], WARNINGS_NAME, "counter", "What befell the source, by reason.");
        begin_part(&s->parts[LOST], LOST_NAME, "counter",
                   "Records that were gone at the source before they could be delivered, by reason.");
        begin_part(&s->parts[TRACK_LAG], TRACK_LAG_NAME, "gauge",
                   "Records of a partition that are not committed; -1: unknown.");
        begin_part(&s->parts[TRACK_SECONDS], TRACK_SECONDS_NAME, "gauge",
                   "How long ago the oldest record of a partition happened that came and is not done; 0: "
                   "there is none.");
}

static void write_labels(struct buf *b, const struct trigger *t)
{
        buf_reset(b);
        buf_text(b, "{namespace=\"");
        label_value(b, t->namespace_);
        buf_text(b, "\",trigger=\"");
        label_value(b, t->name);
        buf_printf(b, "\",source=\"%s\"", trigger_source(t)->name);
}

static void add_warning(struct snapshot *s, size_t part, const char *name, const char *reason, uint64_t n)
{
        buf_printf(&s->parts[part], "%s" STR_FMT ",reason=\"%s\"} %llu\n", name,
                   STR_ARG(buf_view(&s->labels)), reason, (unsigned long long)n);
}

static void add_metrics(struct snapshot *s, const struct trigger *t, const struct pipeline_status *status)
{
        const struct warning_count *list = status->warnings.list;

        write_labels(&s->labels, t);
        for (size_t m = 0; m < COUNT_OF(metrics); m++) {
                struct buf *b = &s->parts[m];

                buf_text(b, metrics[m].name);
                buf_str(b, buf_view(&s->labels));
                buf_text(b, "} ");
                buf_int(b, metrics[m].value(status));
                buf_char(b, '\n');
        }
        /* One line per reason. The reasons that a source declares are shown from the start, with 0. */
        for (size_t k = 0; k < WARNING_REASONS_MOST; k++) {
                if (!list[k].reason)
                        continue;
                add_warning(s, WARNINGS, WARNINGS_NAME, list[k].reason, list[k].times);
                if (list[k].loses)
                        add_warning(s, LOST, LOST_NAME, list[k].reason, list[k].lost);
        }
}

bool snapshot_shows_tracks(const struct snapshot *s) { return s->kind == SNAPSHOT_METRICS; }

static void add_track(struct snapshot *s, size_t part, const char *name, const struct track_lag *lag,
                      int64_t value)
{
        struct buf *b = &s->parts[part];

        buf_printf(b, "%s" STR_FMT ",topic=\"", name, STR_ARG(buf_view(&s->labels)));
        label_value(b, lag->stream);
        buf_printf(b, "\",partition=\"%d\"} %lld\n", lag->number, (long long)value);
}

void snapshot_add_track(struct snapshot *s, const struct track_lag *lag, usec behind)
{
        add_track(s, TRACK_LAG, TRACK_LAG_NAME, lag, lag->records);
        add_track(s, TRACK_SECONDS, TRACK_SECONDS_NAME, lag, behind / USEC_SEC);
}

/* Joins the parts, a piece at a time. true: all are joined. */
static bool join(struct snapshot *s)
{
        size_t before = s->out.n;

        for (size_t all = 0, m = 0; m < PARTS && !s->joined; m++) {
                all += s->parts[m].n;
                if (m + 1 == PARTS)
                        (void)buf_reserve(&s->out, all);
        }
        while (s->joined < PARTS && s->out.n - before < SNAPSHOT_PIECE) {
                struct buf *part = &s->parts[s->joined++];

                s->out.failed |= part->failed;
                buf_str(&s->out, buf_view(part));
                buf_done(part);
        }
        return s->joined == PARTS || s->out.failed;
}

/* ---- status ------------------------------------------------------------- */

static void time_member(struct writer *w, const char *name, usec wall)
{
        BUF_AT_END struct buf text = BUF_INIT(64);

        if (!wall)
                return;
        time_format(&text, wall);
        writer_key(w, str_of(name));
        writer_string(w, buf_view(&text));
}

static void add_status(struct writer *w, const struct trigger *t, const struct pipeline_status *s)
{
        BUF_AT_END struct buf clock = BUF_INIT(256);

        writer_object(w);
        writer_member_text(w, "namespace", t->namespace_);
        writer_member_text(w, "name", t->name);
        writer_member_text(w, "source", trigger_source(t)->name);
        writer_member_text(w, "sourceState", source_state_name(s->source));
        writer_member_text(w, "sourceReason", s->source_text);
        writer_member_text(w, "deliveryState", pipeline_delivery(s));
        writer_member_text(w, "deliveryReason", s->delivery_text);
        writer_member_int(w, "received", (int64_t)s->stats.offered);
        writer_member_int(w, "delivered", (int64_t)s->stats.accepted);
        writer_member_int(w, "attempts", (int64_t)s->stats.attempts);
        writer_member_int(w, "failures", (int64_t)s->stats.failures);
        writer_member_int(w, "inFlight", s->stats.in_flight);
        writer_member_int(w, "held", s->stats.held);
        writer_member_int(w, "lag", s->lag);
        writer_member_int(w, "lost", (int64_t)s->warnings.lost);
        if (s->warnings.lost_text[0])
                writer_member_text(w, "lostReason", s->warnings.lost_text);
        pipeline_clock(s, &clock);
        if (clock.n)
                writer_member_string(w, "clock", buf_view(&clock));
        time_member(w, "oldestPendingTime", s->oldest);
        time_member(w, "lastEventTime", s->last_event);
        time_member(w, "lastDeliveryTime", s->last_delivery);
        time_member(w, "lastRunTime", s->runs.last);
        if (s->runs.last)
                writer_member_text(w, "lastRunOutcome", outcome_name(s->runs.outcome));
        time_member(w, "nextRunTime", s->runs.next);
        writer_object_end(w);
}

/* ---- readiness ---------------------------------------------------------- */

/* Why it is not ready; NULL: it is. A push source is ready even if it is not connected: its subscription is
 * confirmed by a request. */
static const char *not_ready(const struct trigger *t, const struct pipeline_status *s)
{
        return s->source != SOURCE_FAILED && trigger_source(t)->push ? NULL : not_connected(s);
}

static void add_unready(struct buf *out, const struct trigger *t, const struct pipeline_status *s)
{
        const char *state = not_ready(t, s);

        if (state)
                buf_printf(out, s->source_text[0] ? "%s/%s: %s: %s\n" : "%s/%s: %s%s\n", t->namespace_,
                           t->name, state, s->source_text);
}

/* ---- life --------------------------------------------------------------- */

struct snapshot *snapshot_new(enum snapshot_kind kind, struct http_call *call)
{
        struct snapshot *s = calloc(1, sizeof(*s));

        if (!s)
                return NULL;
        s->kind = kind;
        s->call = call;
        s->out = BUF_INIT((size_t)BYTES_MOST);
        s->labels = BUF_INIT(65536);
        if (kind == SNAPSHOT_METRICS)
                begin_metrics(s);
        if (kind != SNAPSHOT_STATUS)
                return s;
        writer_init(&s->writer, &s->out);
        writer_object(&s->writer);
        writer_key(&s->writer, STR("triggers"));
        writer_array(&s->writer);
        return s;
}

void snapshot_free(struct snapshot *s)
{
        if (!s)
                return;
        for (size_t m = 0; m < PARTS; m++)
                buf_done(&s->parts[m]);
        buf_done(&s->labels);
        buf_done(&s->out);
        free(s);
}

/* Is there room for the answer beside the unread ones? */
static bool has_room(const struct snapshot *s)
{
        size_t n = s->out.n;

        for (size_t m = 0; m < PARTS; m++)
                n += s->parts[m].n;
        return n <= UNREAD_MOST && http_call_room(s->call, UNREAD_MOST - n);
}

static void reply(struct snapshot *s, int status, const char *why)
{
        http_call_reply(s->call, status, STR("text/plain; charset=utf-8"), (struct str){ 0 }, str_of(why));
}

void snapshot_add(struct snapshot *s, const struct trigger *t, const struct pipeline_status *status)
{
        if (s->kind == SNAPSHOT_METRICS)
                add_metrics(s, t, status);
        else if (s->kind == SNAPSHOT_STATUS)
                add_status(&s->writer, t, status);
        else
                add_unready(&s->out, t, status);
}

void snapshot_drain(struct snapshot *s) { buf_text(&s->out, "draining\n"); }

static void reply_with_all(struct snapshot *s)
{
        static const struct {
                int status;
                const char *type;
        } as[] = {
                [SNAPSHOT_METRICS] = { 200, "text/plain; version=0.0.4; charset=utf-8" },
                [SNAPSHOT_STATUS] = { 200, "application/json" },
                [SNAPSHOT_READY] = { 503, "text/plain; charset=utf-8" },
        };

        http_call_reply_take(s->call, as[s->kind].status, str_of(as[s->kind].type), (struct str){ 0 },
                             &s->out);
}

bool snapshot_answer(struct snapshot *s)
{
        bool is_ready = s->kind == SNAPSHOT_READY && !s->out.n && !s->out.failed;

        if (!is_ready && !s->joined && !has_room(s)) {
                reply(s, 503, "too much of what was asked for is not read\n");
                snapshot_free(s);
                return true;
        }
        if (s->kind == SNAPSHOT_METRICS && !join(s))
                return false;
        if (s->kind == SNAPSHOT_STATUS) {
                writer_array_end(&s->writer);
                writer_object_end(&s->writer);
        }
        if (is_ready)
                reply(s, 200, "ok\n");
        else if (s->out.failed || s->labels.failed)
                reply(s, 503, "out of memory\n");
        else
                reply_with_all(s);
        snapshot_free(s);
        return true;
}
