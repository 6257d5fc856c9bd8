#include "controller/status.h"

#include <stdio.h>

#include "api/worker.h"
#include "base/buf.h"
#include "json/value.h"

struct verdict {
        const char *status, *reason;
        char message[512];
};

static void judge(struct verdict *v, const char *status, const char *reason, const char *message)
{
        v->status = status;
        v->reason = reason;
        (void)snprintf(v->message, sizeof(v->message), "%s", message ? message : "");
        /* Where it was cut may be within a character, which no JSON can hold. */
        for (size_t n = strlen(v->message); n && !str_is_utf8((struct str){ v->message, n });)
                v->message[--n] = 0;
}

json_t *status_condition(json_t *status, const char *type)
{
        json_t *list = json_object_get(status, "conditions"), *c;
        size_t i;

        json_array_foreach(list, i, c) if (strcmp(json_cstring(c, "type"), type) == 0) return c;
        return NULL;
}

static bool pod_exists(json_t *pods, const char *name)
{
        json_t *p;
        size_t i;

        json_array_foreach(
                pods, i,
                p) if (strcmp(json_cstring(json_object_get(p, "metadata"), "name"), name) == 0 &&
                       !json_object_get(json_object_get(p, "metadata"), "deletionTimestamp")) return true;
        return false;
}

/* When an Event was seen last; the older API and the newer one keep that in different fields. */
static usec event_time(json_t *event)
{
        const char *times[] = { json_cstring(event, "lastTimestamp"),
                                json_cstring(json_object_get(event, "series"), "lastObservedTime"),
                                json_cstring(event, "eventTime"), json_cstring(event, "firstTimestamp") };
        usec latest = 0, at;

        for (size_t i = 0; i < COUNT_OF(times); i++)
                if (time_parse(str_of(times[i]), &at))
                        latest = MAX_OF(latest, at);
        return latest;
}

const char *status_latest_event(json_t *list, const char *reason)
{
        const char *message = "";
        usec latest = -1;
        json_t *event;
        size_t i;

        json_array_foreach(list, i, event)
        {
                usec at = event_time(event);

                if (strcmp(json_cstring(event, "reason"), reason) != 0 || at < latest)
                        continue;
                latest = at;
                message = json_cstring(event, "message");
        }
        return message;
}

bool status_is_stale(json_t *entry, const char *uid)
{
        const char *its = json_cstring(entry, "triggerUID");

        return uid && *uid && *its && strcmp(its, uid) != 0;
}

/* How bad it is, by its place in a list that ends in NULL; what is not there is not bad at all. */
static size_t badness(const char *const *list, const char *state)
{
        size_t n = 0;

        while (list[n] && strcmp(list[n], state) != 0)
                n++;
        return n;
}

/* Is it of a worker that runs the present generation? */
static bool counts(const struct status_facts *f, json_t *w)
{
        return !status_is_stale(w, f->uid) && pod_exists(f->pods, json_cstring(w, "pod")) &&
               json_integer_value(json_object_get(w, "observedGeneration")) == f->generation;
}

/* Of the workers that run the present generation the entry that says the worst of a member; NULL: none
 * speaks yet. */
static json_t *speaker(const struct status_facts *f, const char *member, const char *const *worst_first)
{
        json_t *w, *found = NULL;
        size_t i, best = SIZE_MAX;

        json_array_foreach(f->workers, i, w)
        {
                size_t bad = badness(worst_first, json_cstring(w, member));

                if (bad >= best || !counts(f, w))
                        continue;
                best = bad;
                found = w;
        }
        return found;
}

static json_t *source_speaker(const struct status_facts *f)
{
        /* One that has nothing to read speaks when no other does. */
        static const char *const worst_first[] = { WORKER_SOURCE_FAILED,
                                                   WORKER_SOURCE_DISCONNECTED,
                                                   WORKER_SOURCE_REMOVED,
                                                   WORKER_SOURCE_CONNECTING,
                                                   WORKER_SOURCE_IDLE,
                                                   WORKER_SOURCE_CONNECTED,
                                                   NULL };

        return speaker(f, "sourceState", worst_first);
}

static json_t *delivery_speaker(const struct status_facts *f)
{
        static const char *const worst_first[] = { WORKER_DELIVERY_BLOCKED, WORKER_DELIVERY_FAILING,
                                                   WORKER_DELIVERY_THROTTLED, WORKER_DELIVERY_RETRYING,
                                                   NULL };

        return speaker(f, "deliveryState", worst_first);
}

/* ---- the conditions ----------------------------------------------------- */

static void sink_resolved(const struct status_facts *f, struct verdict *v)
{
        if (f->sink)
                judge(v, "True", "SinkResolved", f->sink);
        else if (f->sink_reason)
                judge(v, "False", f->sink_reason, f->sink_message);
        else
                judge(v, "Unknown", "NotTried", "the spec can't be used yet");
}

static void source_connected(const struct status_facts *f, json_t *worker, struct verdict *v)
{
        const char *state = json_cstring(worker, "sourceState"),
                   *message = json_cstring(worker, "sourceMessage");

        if (!worker)
                judge(v, "Unknown", "WorkerStarting", "no worker has reported yet");
        else if (strcmp(state, WORKER_SOURCE_DISCONNECTED) == 0)
                judge(v, "False", "SourceDisconnected", message);
        else if (strcmp(state, WORKER_SOURCE_FAILED) == 0)
                judge(v, "False", "SourceFailed", message);
        else if (strcmp(state, WORKER_SOURCE_CONNECTING) == 0)
                judge(v, "Unknown", WORKER_SOURCE_CONNECTING,
                      *message ? message : "the worker is connecting to the source");
        else
                judge(v, "True", *state ? state : WORKER_SOURCE_CONNECTED, message);
        (void)f;
}

/* Of several workers one may stand by that has never delivered anything. */
static bool any_delivered(const struct status_facts *f)
{
        json_t *w;
        size_t i;

        json_array_foreach(f->workers, i,
                           w) if (counts(f, w) && json_object_get(w, "lastDeliveryTime")) return true;
        return false;
}

static void delivering(const struct status_facts *f, json_t *worker, struct verdict *v)
{
        const char *state = json_cstring(worker, "deliveryState"),
                   *message = json_cstring(worker, "deliveryMessage");

        if (!worker)
                judge(v, "Unknown", "WorkerStarting", "no worker has reported yet");
        else if (strcmp(state, WORKER_DELIVERY_RETRYING) == 0)
                judge(v, "False", WORKER_DELIVERY_RETRYING, message);
        else if (strcmp(state, WORKER_DELIVERY_FAILING) == 0)
                judge(v, "False", WORKER_DELIVERY_FAILING, message);
        else if (strcmp(state, WORKER_DELIVERY_THROTTLED) == 0)
                judge(v, "False", WORKER_DELIVERY_THROTTLED, message);
        else if (strcmp(state, WORKER_DELIVERY_BLOCKED) == 0)
                judge(v, "False", WORKER_DELIVERY_BLOCKED, message);
        else if (!any_delivered(f))
                judge(v, "True", "Idle", "no event has been delivered by this worker yet");
        else
                judge(v, "True", WORKER_DELIVERY_DELIVERING, "");
}

/* How a container ended: "exit code 1: …", with the end of its log where the kubelet kept it. */
static void last_words(json_t *terminated, char *out, size_t size)
{
        struct str words = str_trim(str_of(json_cstring(terminated, "message")));
        enum { MOST = 300 };

        if (words.n > MOST) { /* the end says most */
                words.p += words.n - MOST;
                words.n = MOST;
                while (words.n && ((unsigned char)*words.p & 0xc0) == 0x80)
                        words.p++, words.n--;
        }
        (void)snprintf(out, size, "%s, exit code %lld%s" STR_FMT, json_cstring(terminated, "reason"),
                       (long long)json_integer_value(json_object_get(terminated, "exitCode")),
                       words.n ? ": " : "", STR_ARG(words));
}

static bool container_trouble(json_t *status, struct verdict *v)
{
        json_t *waiting = json_object_get(json_object_get(status, "state"), "waiting"),
               *ended = json_object_get(json_object_get(status, "state"), "terminated");
        json_t *before = json_object_get(json_object_get(status, "lastState"), "terminated");
        const char *reason = json_cstring(waiting, "reason");
        char words[512];

        if (strcmp(reason, "CrashLoopBackOff") == 0 && before) {
                last_words(before, words, sizeof(words));
                judge(v, "False", reason, words);
                return true;
        }
        if (*reason && strcmp(reason, "ContainerCreating") != 0 && strcmp(reason, "PodInitializing") != 0) {
                judge(v, "False", reason, json_cstring(waiting, "message"));
                return true;
        }
        if (!ended || json_integer_value(json_object_get(ended, "exitCode")) == 0)
                return false;
        /* It will be started again: what follows has the same name, so that the condition does not flicker.
         */
        last_words(ended, words, sizeof(words));
        judge(v, "False", "CrashLoopBackOff", words);
        return true;
}

/* What keeps a pod from running, in the kubelet's words. */
static bool pod_trouble(json_t *pods, struct verdict *v)
{
        json_t *pod, *status;
        size_t i, j;

        json_array_foreach(pods, i, pod)
        {
                json_t *condition;

                if (json_object_get(json_object_get(pod, "metadata"), "deletionTimestamp"))
                        continue; /* it is meant to end */
                json_array_foreach(json_object_get(json_object_get(pod, "status"), "containerStatuses"), j,
                                   status) if (container_trouble(status, v)) return true;
                json_array_foreach(json_object_get(json_object_get(pod, "status"), "conditions"), j,
                                   condition) if (strcmp(json_cstring(condition, "type"), "PodScheduled") ==
                                                          0 &&
                                                  strcmp(json_cstring(condition, "status"), "False") == 0)
                {
                        judge(v, "False", json_cstring(condition, "reason"),
                              json_cstring(condition, "message"));
                        return true;
                }
        }
        return false;
}

static int64_t available_replicas(json_t *deployment)
{
        return json_integer_value(
                json_object_get(json_object_get(deployment, "status"), "availableReplicas"));
}

static void workers_available(const struct status_facts *f, json_t *worker, struct verdict *v)
{
        json_t *condition;
        size_t i;

        if (f->failed) {
                judge(v, "False", "ApplyFailed", f->failed);
                return;
        }
        if (available_replicas(f->deployment) > 0) {
                judge(v, "True", "WorkerAvailable", "");
                return;
        }
        if (pod_trouble(f->pods, v))
                return;
        if (f->stuck) {
                judge(v, "False", "FailedMount", f->stuck);
                return;
        }
        json_array_foreach(json_object_get(json_object_get(f->deployment, "status"), "conditions"), i,
                           condition) if (strcmp(json_cstring(condition, "type"), "ReplicaFailure") == 0 &&
                                          strcmp(json_cstring(condition, "status"), "True") == 0)
        {
                judge(v, "False", json_cstring(condition, "reason"), json_cstring(condition, "message"));
                return;
        }
        if (worker && (strcmp(json_cstring(worker, "sourceState"), WORKER_SOURCE_DISCONNECTED) == 0 ||
                       strcmp(json_cstring(worker, "sourceState"), WORKER_SOURCE_FAILED) == 0))
                judge(v, "False", "WorkerNotReady", "the worker runs, but is not ready: see SourceConnected");
        else if (worker)
                judge(v, "Unknown", "WorkerStarting", "the worker runs, and is not ready yet");
        else
                judge(v, "Unknown", "WorkerStarting", "the worker has not started yet");
}

static void ready(const struct status_facts *f, const struct verdict *const *parts, size_t n,
                  struct verdict *v)
{
        if (f->invalid) {
                judge(v, "False", f->conflict ? STATUS_CONFLICT : "InvalidSpec", f->invalid);
                return;
        }
        for (size_t pass = 0; pass < 2; pass++)
                for (size_t i = 0; i < n; i++)
                        /* Throttled, events flow, as fast as the function wants them. */
                        if (strcmp(parts[i]->status, pass == 0 ? "False" : "Unknown") == 0 &&
                            strcmp(parts[i]->reason, WORKER_DELIVERY_THROTTLED) != 0) {
                                *v = *parts[i];
                                return;
                        }
        judge(v, "True", "Ready", "");
}

/* ---- putting it together ------------------------------------------------ */

static void add(json_t *list, const struct status_facts *f, const char *type, const struct verdict *v)
{
        json_t *before = status_condition(f->previous, type);
        BUF_AT_END struct buf time = BUF_INIT(64);

        if (before && strcmp(json_cstring(before, "status"), v->status) == 0 &&
            *json_cstring(before, "lastTransitionTime"))
                buf_text(&time, json_cstring(before, "lastTransitionTime"));
        else
                time_format(&time, f->now - f->now % USEC_SEC);
        (void)json_array_append_new(list, json_pack("{ss ss ss ss ss sI}", "type", type, "status", v->status,
                                                    "reason", v->reason, "message", v->message,
                                                    "lastTransitionTime", time.p ? time.p : "",
                                                    "observedGeneration", (json_int_t)f->generation));
}

/* What waits: the sum of the lags, and the oldest of all. */
static void fold_pending(const struct status_facts *f, json_t *status)
{
        const char *oldest = NULL;
        json_int_t lag = -1;
        usec first = USEC_NEVER, at;
        json_t *w;
        size_t i;

        json_array_foreach(f->workers, i, w)
        {
                const char *time = json_cstring(w, "oldestPendingTime");

                /* what a worker that is gone was behind is nobody's lag */
                if (status_is_stale(w, f->uid) || !pod_exists(f->pods, json_cstring(w, "pod")))
                        continue;
                if (json_object_get(w, "lag"))
                        lag = MAX_OF(lag, (json_int_t)0) + json_integer_value(json_object_get(w, "lag"));
                if (time_parse(str_of(time), &at) && at < first) {
                        first = at;
                        oldest = time;
                }
        }
        if (oldest)
                (void)json_object_set_new(status, "oldestPendingTime", json_string(oldest));
        if (lag >= 0)
                (void)json_object_set_new(status, "lag", json_integer(lag));
}

/* The latest of a time, and what waits. */
static void fold_workers(const struct status_facts *f, json_t *status)
{
        static const char *const times[] = { "lastEventTime", "lastDeliveryTime" };
        json_t *w;
        size_t i;

        for (size_t t = 0; t < COUNT_OF(times); t++) {
                usec best = 0, at;
                const char *found = NULL;

                json_array_foreach(f->workers, i, w) if (!status_is_stale(w, f->uid) &&
                                                         time_parse(str_of(json_cstring(w, times[t])), &at) &&
                                                         at > best)
                {
                        best = at;
                        found = json_cstring(w, times[t]);
                }
                /* A worker that starts anew knows nothing of the past: what was known stays. */
                if (time_parse(str_of(json_cstring(f->previous, times[t])), &at) && at > best)
                        found = json_cstring(f->previous, times[t]);
                if (found)
                        (void)json_object_set_new(status, times[t], json_string(found));
        }
        fold_pending(f, status);
}

json_t *status_fold(const struct status_facts *f)
{
        json_t *status = json_object(), *conditions = json_array(),
               *worker = f->suspended ? NULL : source_speaker(f),
               *deliverer = f->suspended ? NULL : delivery_speaker(f);
        struct verdict sink, source, delivery, workers, all, throttled, clock;
        const struct verdict *const parts[] = { &sink, &source, &delivery, &workers };

        if (!status || !conditions)
                return NULL;
        sink_resolved(f, &sink);
        if (f->suspended && !f->invalid) {
                judge(&source, "Unknown", "Suspended", "spec.suspend is true");
                judge(&delivery, "Unknown", "Suspended", "spec.suspend is true");
                judge(&workers, "Unknown", "Suspended", "spec.suspend is true");
                judge(&all, "True", "Suspended", "no worker runs while spec.suspend is true");
                if (f->failed)
                        judge(&all, "False", "ApplyFailed", f->failed);
        } else if (f->ending) {
                source_connected(f, worker, &source);
                delivering(f, deliverer, &delivery);
                workers_available(f, worker, &workers);
                judge(&all, "False", "Ending", f->ending);
        } else {
                source_connected(f, worker, &source);
                delivering(f, deliverer, &delivery);
                workers_available(f, worker, &workers);
                ready(f, parts, COUNT_OF(parts), &all);
        }
        add(conditions, f, "Ready", &all);
        add(conditions, f, "SinkResolved", &sink);
        add(conditions, f, "WorkersAvailable", &workers);
        add(conditions, f, "SourceConnected", &source);
        add(conditions, f, "Delivering", &delivery);
        if (strcmp(delivery.reason, WORKER_DELIVERY_THROTTLED) == 0) {
                judge(&throttled, "True", "Throttled", delivery.message);
                add(conditions, f, "Throttled", &throttled);
        }
        if (worker && *json_cstring(worker, "clockMessage")) {
                judge(&clock, "True", "ClockSkewed", json_cstring(worker, "clockMessage"));
                add(conditions, f, "ClockSkewed", &clock);
        }
        if (f->suspended && !f->invalid)
                add(conditions, f, "Suspended", &all);
        (void)json_object_set_new(status, "observedGeneration", json_integer(f->generation));
        if (f->source)
                (void)json_object_set_new(status, "source", json_string(f->source));
        if (f->sink)
                (void)json_object_set_new(status, "sinkUri", json_string(f->sink));
        if (f->address)
                (void)json_object_set_new(status, "address", json_pack("{s:s}", "url", f->address));
        (void)json_object_set_new(status, "replicas",
                                  json_integer(json_integer_value(json_object_get(
                                          json_object_get(f->deployment, "status"), "replicas"))));
        (void)json_object_set_new(status, "selector", json_string(f->selector));
        (void)json_object_set_new(status, "conditions", conditions);
        fold_workers(f, status);
        return status;
}
