#include "api/status.h"

static const struct field worker_fields[] = {
        FIELD(STRING, "pod", struct worker_status, pod, .required = true, .min = 1, .max = 253,
              .help = "The pod that says so."),
        FIELD(STRING, "triggerUID", struct worker_status, trigger_uid,
              .help = "The UID of the Trigger that the worker runs: one of an earlier Trigger of this name "
                      "says nothing about this one."),
        FIELD(INT, "observedGeneration", struct worker_status, observed_generation, .min = 1,
              .max = INT64_MAX, .help = "The generation of the Trigger that the worker runs."),
        FIELD(STRING, "sourceState", struct worker_status, source_state,
              .help = "How the source is: Connecting, Connected, Idle, Standby, Disconnected or Failed."),
        FIELD(STRING, "sourceMessage", struct worker_status, source_message,
              .help = "What the broker said, in its own words."),
        FIELD(STRING, "deliveryState", struct worker_status, delivery_state,
              .help = "How delivery is: Delivering, Retrying, Throttled, Failing or Blocked."),
        FIELD(STRING, "deliveryMessage", struct worker_status, delivery_message,
              .help = "What the function said, in its own words."),
        FIELD(TIME, "lastEventTime", struct worker_status, last_event_time,
              .help = "When the last event came from the source."),
        FIELD(TIME, "lastDeliveryTime", struct worker_status, last_delivery_time,
              .help = "When the function last accepted an event."),
        FIELD(TIME, "lastRunTime", struct worker_status, last_run_time,
              .help = "The scheduled time of the timer's run that ended last."),
        FIELD(STRING, "lastRunOutcome", struct worker_status, last_run_outcome,
              .help = "How that run ended: Accepted, DeadLettered, Dropped or Filtered."),
        FIELD(TIME, "nextRunTime", struct worker_status, next_run_time,
              .help = "The scheduled time of the timer's next run; absent when there is none."),
        FIELD(TIME, "oldestPendingTime", struct worker_status, oldest_pending_time,
              .help = "When the oldest record happened that came and is not done; absent when nothing "
                      "waits."),
        FIELD(INT, "lag", struct worker_status, lag, .max = INT64_MAX,
              .help = "How many records wait at the source; absent when unknown."),
        FIELD(INT, "lost", struct worker_status, lost, .min = 1, .max = INT64_MAX,
              .help = "How many records the source had no more before they could be delivered, since the "
                      "worker started; absent while there are none."),
        FIELD(STRING, "lostMessage", struct worker_status, lost_message,
              .help = "Which records the source had no more, and why."),
        FIELD(STRING, "clockMessage", struct worker_status, clock_message,
              .help = "By how much the worker's clock differs from the cloud's; absent while it agrees."),
};
const struct type worker_status_type = TYPE("WorkerStatus", struct worker_status, worker_fields,
                                            "What one worker says of itself.");

struct member_schema {
        const char *name, *type, *format, *help;
};

static void simple(struct writer *w, const struct member_schema *m)
{
        writer_key(w, str_of(m->name));
        writer_object(w);
        writer_member_text(w, "description", m->help);
        writer_member_text(w, "type", m->type);
        if (m->format)
                writer_member_text(w, "format", m->format);
        writer_object_end(w);
}

/* metav1.Condition */
static void condition(struct writer *w)
{
        static const char *const required[] = { "type", "status", "reason", "message", "lastTransitionTime" };
        static const char *const statuses[] = { "True", "False", "Unknown" };
        static const struct member_schema members[] = {
                ROW("type", "string", NULL,
                    "Ready, SinkResolved, WorkersAvailable, SourceConnected, Delivering; Throttled, "
                    "ClockSkewed, Suspended, Reconciling and Stalled where they are true."),
                ROW("reason", "string", NULL, "One word, for programs."),
                ROW("message", "string", NULL, "What it is about, for people."),
                ROW("lastTransitionTime", "string", "date-time", "When the status last changed."),
                ROW("observedGeneration", "integer", "int64",
                    "The generation of the Trigger that this is about."),
                ROW("severity", "string", NULL,
                    "Empty, or Info for what does not make the Trigger unready (Knative)."),
        };

        writer_object(w);
        writer_member_text(w, "type", "object");
        writer_key(w, STR("required"));
        writer_array(w);
        for (size_t i = 0; i < COUNT_OF(required); i++)
                writer_string(w, str_of(required[i]));
        writer_array_end(w);
        writer_key(w, STR("properties"));
        writer_object(w);
        for (size_t i = 0; i < COUNT_OF(members); i++)
                simple(w, &members[i]);
        writer_key(w, STR("status"));
        writer_object(w);
        writer_member_text(w, "description", "Whether it holds.");
        writer_member_text(w, "type", "string");
        writer_key(w, STR("enum"));
        writer_array(w);
        for (size_t i = 0; i < COUNT_OF(statuses); i++)
                writer_string(w, str_of(statuses[i]));
        writer_array_end(w);
        writer_object_end(w);
        writer_object_end(w);
        writer_object_end(w);
}

static void list_map(struct writer *w, const char *name, const char *help, const char *key,
                     void (*item)(struct writer *))
{
        writer_key(w, str_of(name));
        writer_object(w);
        writer_member_text(w, "description", help);
        writer_member_text(w, "type", "array");
        writer_member_text(w, "x-kubernetes-list-type", "map");
        writer_key(w, STR("x-kubernetes-list-map-keys"));
        writer_array(w);
        writer_string(w, str_of(key));
        writer_array_end(w);
        writer_key(w, STR("items"));
        item(w);
        writer_object_end(w);
}

static void worker(struct writer *w) { schema_openapi(&worker_status_type, w); }

void status_openapi(struct writer *w)
{
        static const struct member_schema members[] = {
                ROW("observedGeneration", "integer", "int64",
                    "The generation of the Trigger that this status is about."),
                ROW("source", "string", NULL, "The source by its kind, such as kafka."),
                ROW("sinkUri", "string", NULL, "Where events go: spec.sink, resolved."),
                ROW("replicas", "integer", "int64", "How many workers there are."),
                ROW("selector", "string", NULL, "The label selector of the workers."),
                ROW("lastEventTime", "string", "date-time", "When the last event came from the source."),
                ROW("lastDeliveryTime", "string", "date-time", "When the function last accepted an event."),
                ROW("oldestPendingTime", "string", "date-time",
                    "When the oldest record happened that came and is not done: how far in time the Trigger "
                    "is behind. Absent when nothing waits, and where the source does not tell."),
                ROW("lag", "integer", "int64", "How many records wait at the source; absent when unknown."),
        };

        writer_object(w);
        writer_member_text(w, "description",
                           "What is known of the Trigger. Written by the controller and the workers.");
        writer_member_text(w, "type", "object");
        writer_key(w, STR("properties"));
        writer_object(w);
        for (size_t i = 0; i < COUNT_OF(members); i++)
                simple(w, &members[i]);
        writer_key(w, STR("address"));
        writer_object(w);
        writer_member_text(w, "description",
                           "Where requests reach it (Addressable); only for sources that requests reach.");
        writer_member_text(w, "type", "object");
        writer_key(w, STR("properties"));
        writer_object(w);
        simple(w, &(struct member_schema){
                          "url", "string", NULL,
                          "The URL: outside the cluster where it is exposed, otherwise inside." });
        writer_object_end(w);
        writer_object_end(w);
        list_map(w, "conditions", "What holds and what does not; Ready sums it up.", "type", condition);
        list_map(w, "workers", "What each worker says of itself.", "pod", worker);
        writer_object_end(w);
        writer_object_end(w);
}
