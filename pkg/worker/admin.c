#include "worker/admin.h"

#include "api/worker.h"
#include "json/writer.h"

struct admin {
        struct http_server *server;
        struct list entries;
        bool draining;
};

static const struct admin_entry *entry_of(const struct list_node *n)
{
        return LIST_ITEM((struct list_node *)n, struct admin_entry, node);
}

static const struct trigger *trigger_of(const struct admin_entry *e)
{
        return e->pipeline ? pipeline_trigger(e->pipeline) : e->trigger;
}

static void status_of(const struct admin_entry *e, struct pipeline_status *out)
{
        pipeline_shown(e->pipeline, e->failure, out);
}

static const struct str TEXT = { "text/plain; charset=utf-8", 25 };

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

/* Why it is not ready; NULL: it is. What is reached by requests listens, connected or not: a subscription is
 * confirmed that way. */
static const char *not_ready(const struct trigger *t, const struct pipeline_status *s)
{
        return s->source != SOURCE_FAILED && trigger_source(t)->push ? NULL : not_connected(s);
}

static void ready(struct admin *a, struct http_call *call)
{
        BUF_AT_END struct buf why = BUF_INIT((size_t)16 << 20);

        if (a->draining)
                buf_text(&why, "draining\n");
        for (const struct list_node *n = a->entries.first; n; n = n->next) {
                const struct trigger *t = trigger_of(entry_of(n));
                struct pipeline_status s;
                const char *state;

                status_of(entry_of(n), &s);
                state = not_ready(t, &s);
                if (state)
                        buf_printf(&why, s.source_text[0] ? "%s/%s: %s: %s\n" : "%s/%s: %s%s\n",
                                   t->namespace_, t->name, state, s.source_text);
        }
        if (why.n || why.failed)
                http_call_reply(call, 503, TEXT, (struct str){ 0 }, buf_view(&why));
        else
                http_call_reply(call, 200, TEXT, (struct str){ 0 }, STR("ok\n"));
}

/* An answer is the proof that the loop turns, and a pipeline's turn is the loop's to give. Whether there is
 * traffic, or a peer answers, says nothing about whether a restart would help. */
static void live(struct http_call *call) { http_call_reply(call, 200, TEXT, (struct str){ 0 }, STR("ok\n")); }

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

static void metric_labels(struct buf *b, const char *name, const struct trigger *t)
{
        buf_printf(b, "%s{namespace=\"", name);
        label_value(b, t->namespace_);
        buf_text(b, "\",trigger=\"");
        label_value(b, t->name);
        buf_printf(b, "\",source=\"%s\"", trigger_source(t)->name);
}

/* A pipeline is asked once, whatever there is to show of it. */
static struct pipeline_status *ask_all(const struct admin *a)
{
        struct pipeline_status *all = calloc(MAX_OF(a->entries.n, (size_t)1), sizeof(*all)), *out = all;

        for (const struct list_node *n = a->entries.first; all && n; n = n->next)
                status_of(entry_of(n), out++);
        return all;
}

static void no_memory(struct http_call *call)
{
        http_call_reply(call, 503, TEXT, (struct str){ 0 }, STR("out of memory\n"));
}

/* By reason; a source shows those that it knows from the start. */
static void show_warnings(const struct admin *a, const struct pipeline_status *all, bool lost,
                          struct buf *out)
{
        const char *name = lost ? "sluice_records_lost_total" : "sluice_source_warnings_total";

        buf_printf(out, "# HELP %s %s\n# TYPE %s counter\n", name,
                   lost ? "Records that were gone at the source before they could be delivered, by reason."
                        : "What befell the source, by reason.",
                   name);
        for (const struct list_node *n = a->entries.first; n; n = n->next, all++) {
                const struct warning_count *list = all->warnings.list;

                for (size_t k = 0; k < WARNING_REASONS_MOST; k++) {
                        if (!list[k].reason || (lost && !list[k].loses))
                                continue;
                        metric_labels(out, name, trigger_of(entry_of(n)));
                        buf_printf(out, ",reason=\"%s\"} %llu\n", list[k].reason,
                                   (unsigned long long)(lost ? list[k].lost : list[k].times));
                }
        }
}

static void show_metrics(struct admin *a, struct http_call *call)
{
        BUF_AT_END struct buf out = BUF_INIT((size_t)64 << 20);
        FREE_AT_END struct pipeline_status *all = ask_all(a);

        if (!all) {
                no_memory(call);
                return;
        }
        for (size_t m = 0; m < COUNT_OF(metrics); m++) {
                const struct pipeline_status *s = all;

                buf_printf(&out, "# HELP %s %s\n# TYPE %s %s\n", metrics[m].name, metrics[m].help,
                           metrics[m].name, metrics[m].type);
                for (const struct list_node *n = a->entries.first; n; n = n->next) {
                        metric_labels(&out, metrics[m].name, trigger_of(entry_of(n)));
                        buf_printf(&out, "} %lld\n", (long long)metrics[m].value(s++));
                }
        }
        show_warnings(a, all, false, &out);
        show_warnings(a, all, true, &out);
        if (out.failed)
                no_memory(call);
        else
                http_call_reply(call, 200, STR("text/plain; version=0.0.4; charset=utf-8"), (struct str){ 0 },
                                buf_view(&out));
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

static void show_status(struct admin *a, struct http_call *call)
{
        BUF_AT_END struct buf out = BUF_INIT((size_t)16 << 20);
        struct writer w;

        writer_init(&w, &out);
        writer_object(&w);
        writer_key(&w, STR("triggers"));
        writer_array(&w);
        for (const struct list_node *n = a->entries.first; n; n = n->next) {
                const struct trigger *t = trigger_of(entry_of(n));
                BUF_AT_END struct buf clock = BUF_INIT(256);
                struct pipeline_status s;

                status_of(entry_of(n), &s);
                writer_object(&w);
                writer_member_text(&w, "namespace", t->namespace_);
                writer_member_text(&w, "name", t->name);
                writer_member_text(&w, "source", trigger_source(t)->name);
                writer_member_text(&w, "sourceState", source_state_name(s.source));
                writer_member_text(&w, "sourceReason", s.source_text);
                writer_member_text(&w, "deliveryState", pipeline_delivery(&s));
                writer_member_text(&w, "deliveryReason", s.delivery_text);
                writer_member_int(&w, "received", (int64_t)s.stats.offered);
                writer_member_int(&w, "delivered", (int64_t)s.stats.accepted);
                writer_member_int(&w, "attempts", (int64_t)s.stats.attempts);
                writer_member_int(&w, "failures", (int64_t)s.stats.failures);
                writer_member_int(&w, "inFlight", s.stats.in_flight);
                writer_member_int(&w, "held", s.stats.held);
                writer_member_int(&w, "lag", s.lag);
                writer_member_int(&w, "lost", (int64_t)s.warnings.lost);
                if (s.warnings.lost_text[0])
                        writer_member_text(&w, "lostReason", s.warnings.lost_text);
                pipeline_clock(&s, &clock);
                if (clock.n)
                        writer_member_string(&w, "clock", buf_view(&clock));
                time_member(&w, "lastEventTime", s.last_event);
                time_member(&w, "lastDeliveryTime", s.last_delivery);
                writer_object_end(&w);
        }
        writer_array_end(&w);
        writer_object_end(&w);
        http_call_reply(call, 200, STR("application/json"), (struct str){ 0 }, buf_view(&out));
}

static void handle(void *cookie, struct http_call *call)
{
        struct admin *a = cookie;
        const struct http_message *m = http_call_message(call);
        struct str rest = buf_view(&m->target), path = str_cut(&rest, '?');

        if (m->method != HTTP_GET && m->method != HTTP_HEAD)
                http_call_reply(call, 405, TEXT, STR("Allow: GET, HEAD\r\n"), STR("only GET\n"));
        else if (str_is(path, WORKER_PATH_LIVE))
                live(call);
        else if (str_is(path, WORKER_PATH_READY))
                ready(a, call);
        else if (str_is(path, "/metrics"))
                show_metrics(a, call);
        else if (str_is(path, "/status"))
                show_status(a, call);
        else
                http_call_reply(call, 404, TEXT, (struct str){ 0 },
                                STR("known: /livez /readyz /metrics /status\n"));
}

int admin_new(struct admin **out, struct loop *loop, const char *address, struct error *err)
{
        struct admin *a = calloc(1, sizeof(*a));
        struct http_server_config config = { .address = address,
                                             .head_max = 16384,
                                             .body_max = 1024,
                                             .max_connections = 64,
                                             /* a probe is always answered */
                                             .newcomers_first = true,
                                             .idle_timeout = 10 * USEC_SEC,
                                             .head_timeout = 5 * USEC_SEC,
                                             .body_grace = 5 * USEC_SEC,
                                             .write_timeout = 10 * USEC_SEC,
                                             .handle = handle,
                                             .cookie = a };

        if (!a)
                return error_memory(err);
        if (http_server_new(&a->server, loop, &config, err) < 0) {
                free(a);
                return -1;
        }
        *out = a;
        return 0;
}

struct admin *admin_free(struct admin *a)
{
        if (!a)
                return NULL;
        (void)http_server_free(a->server);
        free(a);
        return NULL;
}

void admin_add(struct admin *a, struct admin_entry *e) { list_append(&a->entries, &e->node); }
void admin_remove(struct admin_entry *e) { list_remove(&e->node); }
void admin_drain(struct admin *a) { a->draining = true; }
uint16_t admin_port(const struct admin *a) { return http_server_port(a->server); }
