#include "controller/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/buf.h"

#define POD "[{\"metadata\":{\"name\":\"p\"}}]"
#define PODS "[{\"metadata\":{\"name\":\"p\"}},{\"metadata\":{\"name\":\"q\"}}]"
#define WORKER(source, message, delivery)                                                                    \
        "[{\"pod\":\"p\",\"observedGeneration\":3,\"sourceState\":\"" source "\"" message                    \
        ",\"deliveryState\":\"" delivery "\",\"lastDeliveryTime\":\"2026-01-02T03:04:05Z\",\"lag\":7}]"
#define AVAILABLE "{\"status\":{\"availableReplicas\":1,\"replicas\":1}}"
#define STARTING "{\"status\":{\"replicas\":1}}"

/* What is known, and the status and reason of Ready, SinkResolved, WorkersAvailable, SourceConnected,
 * Delivering. */
static const struct {
        const char *name, *invalid, *sink_reason, *failed;
        bool suspended;
        const char *deployment, *pods, *workers;
        const char *expected[5];
} cases[] = {
        ROW("all is well", NULL, NULL, NULL, false, AVAILABLE, POD, WORKER("Connected", "", "Delivering"),
            { "True Ready", "True SinkResolved", "True WorkerAvailable", "True Connected",
              "True Delivering" }),
        ROW("invalid", "spec.x: no", NULL, NULL, false, NULL, "[]", NULL,
            { "False InvalidSpec", "True SinkResolved", "Unknown WorkerStarting", "Unknown WorkerStarting",
              "Unknown WorkerStarting" }),
        ROW("no service", NULL, "ServiceNotFound", NULL, false, NULL, "[]", NULL,
            { "False ServiceNotFound", "False ServiceNotFound", "Unknown WorkerStarting",
              "Unknown WorkerStarting", "Unknown WorkerStarting" }),
        ROW("just begun", NULL, NULL, NULL, false, STARTING, POD, NULL,
            { "Unknown WorkerStarting", "True SinkResolved", "Unknown WorkerStarting",
              "Unknown WorkerStarting", "Unknown WorkerStarting" }),
        ROW("connecting", NULL, NULL, NULL, false, STARTING, POD, WORKER("Connecting", "", "Delivering"),
            { "Unknown Connecting", "True SinkResolved", "Unknown WorkerStarting", "Unknown Connecting",
              "True Delivering" }),
        ROW("disconnected", NULL, NULL, NULL, false, STARTING, POD,
            WORKER("Disconnected", ",\"sourceMessage\":\"refused\"", "Delivering"),
            { "False SourceDisconnected", "True SinkResolved", "False WorkerNotReady",
              "False SourceDisconnected", "True Delivering" }),
        ROW("the function fails", NULL, NULL, NULL, false, AVAILABLE, POD,
            WORKER("Connected", ",\"deliveryMessage\":\"503\"", "Retrying"),
            { "False Retrying", "True SinkResolved", "True WorkerAvailable", "True Connected",
              "False Retrying" }),
        ROW("blocked", NULL, NULL, NULL, false, AVAILABLE, POD,
            WORKER("Connected", ",\"deliveryMessage\":\"400\"", "Blocked"),
            { "False Blocked", "True SinkResolved", "True WorkerAvailable", "True Connected",
              "False Blocked" }),
        ROW("throttled", NULL, NULL, NULL, false, AVAILABLE, POD,
            WORKER("Connected", ",\"deliveryMessage\":\"503\"", "Throttled"),
            { "True Ready", "True SinkResolved", "True WorkerAvailable", "True Connected",
              "False Throttled" }),
        ROW("of several the worst speaks", NULL, NULL, NULL, false, AVAILABLE, PODS,
            "[{\"pod\":\"p\",\"observedGeneration\":3,\"sourceState\":\"Connected\",\"deliveryState\":"
            "\"Retrying\"},{\"pod\":\"q\",\"observedGeneration\":3,\"sourceState\":\"Disconnected\","
            "\"deliveryState\":\"Delivering\"}]",
            { "False SourceDisconnected", "True SinkResolved", "True WorkerAvailable",
              "False SourceDisconnected", "False Retrying" }),
        ROW("one that stands by leaves the word to others", NULL, NULL, NULL, false, AVAILABLE, PODS,
            "[{\"pod\":\"p\",\"observedGeneration\":3,\"sourceState\":\"Standby\",\"deliveryState\":"
            "\"Delivering\"},{\"pod\":\"q\",\"observedGeneration\":3,\"sourceState\":\"Connected\","
            "\"deliveryState\":\"Delivering\",\"lastDeliveryTime\":\"2026-01-02T03:04:05Z\"}]",
            { "True Ready", "True SinkResolved", "True WorkerAvailable", "True Connected",
              "True Delivering" }),
        ROW("an entry of another generation", NULL, NULL, NULL, false, AVAILABLE, POD,
            "[{\"pod\":\"p\",\"observedGeneration\":2,\"sourceState\":\"Connected\"}]",
            { "Unknown WorkerStarting", "True SinkResolved", "True WorkerAvailable", "Unknown WorkerStarting",
              "Unknown WorkerStarting" }),
        ROW("a pod that is gone", NULL, NULL, NULL, false, STARTING, "[]",
            WORKER("Connected", "", "Delivering"),
            { "Unknown WorkerStarting", "True SinkResolved", "Unknown WorkerStarting",
              "Unknown WorkerStarting", "Unknown WorkerStarting" }),
        ROW("no image", NULL, NULL, NULL, false, STARTING,
            "[{\"metadata\":{\"name\":\"p\"},\"status\":{\"containerStatuses\":[{\"state\":{\"waiting\":{"
            "\"reason\":\"ImagePullBackOff\",\"message\":\"no such image\"}}}]}}]",
            NULL,
            { "False ImagePullBackOff", "True SinkResolved", "False ImagePullBackOff",
              "Unknown WorkerStarting", "Unknown WorkerStarting" }),
        ROW("it crashes", NULL, NULL, NULL, false, STARTING,
            "[{\"metadata\":{\"name\":\"p\"},\"status\":{\"containerStatuses\":[{\"state\":{\"terminated\":{"
            "\"reason\":\"Error\",\"exitCode\":1,\"message\":\"no\"}}}]}}]",
            NULL,
            { "False CrashLoopBackOff", "True SinkResolved", "False CrashLoopBackOff",
              "Unknown WorkerStarting", "Unknown WorkerStarting" }),
        ROW("it ended as it should", NULL, NULL, NULL, false, STARTING,
            "[{\"metadata\":{\"name\":\"p\"},\"status\":{\"containerStatuses\":[{\"state\":{\"terminated\":{"
            "\"reason\":\"Completed\",\"exitCode\":0}}}]}}]",
            NULL,
            { "Unknown WorkerStarting", "True SinkResolved", "Unknown WorkerStarting",
              "Unknown WorkerStarting", "Unknown WorkerStarting" }),
        ROW("a pod that is being deleted has no trouble to tell", NULL, NULL, NULL, false, STARTING,
            "[{\"metadata\":{\"name\":\"p\",\"deletionTimestamp\":\"2026-01-01T00:00:00Z\"},\"status\":{"
            "\"containerStatuses\":[{\"state\":{\"terminated\":{\"reason\":\"Error\",\"exitCode\":137}}}]}}]",
            NULL,
            { "Unknown WorkerStarting", "True SinkResolved", "Unknown WorkerStarting",
              "Unknown WorkerStarting", "Unknown WorkerStarting" }),
        ROW("unschedulable", NULL, NULL, NULL, false, STARTING,
            "[{\"metadata\":{\"name\":\"p\"},\"status\":{\"conditions\":[{\"type\":\"PodScheduled\","
            "\"status\":\"False\",\"reason\":\"Unschedulable\",\"message\":\"0/1 nodes\"}]}}]",
            NULL,
            { "False Unschedulable", "True SinkResolved", "False Unschedulable", "Unknown WorkerStarting",
              "Unknown WorkerStarting" }),
        ROW("forbidden", NULL, NULL, "403", false, NULL, "[]", NULL,
            { "False ApplyFailed", "True SinkResolved", "False ApplyFailed", "Unknown WorkerStarting",
              "Unknown WorkerStarting" }),
        ROW("suspended", NULL, NULL, NULL, true, "{\"status\":{}}", "[]", NULL,
            { "True Suspended", "True SinkResolved", "Unknown Suspended", "Unknown Suspended",
              "Unknown Suspended" }),
};

static json_t *load(const char *text) { return text ? json_loads(text, 0, NULL) : NULL; }

static void conditions_follow_from_the_facts(void **state UNUSED)
{
        static const char *const types[] = { "Ready", "SinkResolved", "WorkersAvailable", "SourceConnected",
                                             "Delivering" };

        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                struct status_facts f = { .generation = 3,
                                          .source = "kafka",
                                          .invalid = cases[i].invalid,
                                          .sink = cases[i].sink_reason ? NULL : "http://f/",
                                          .sink_reason = cases[i].sink_reason,
                                          .sink_message = "why",
                                          .failed = cases[i].failed,
                                          .suspended = cases[i].suspended,
                                          .deployment = load(cases[i].deployment),
                                          .pods = load(cases[i].pods),
                                          .workers = load(cases[i].workers),
                                          .selector = "a=b",
                                          .now = USEC_SEC };
                json_t *status = status_fold(&f);

                for (size_t t = 0; t < COUNT_OF(types); t++) {
                        json_t *c = status_condition(status, types[t]);
                        char found[128];

                        (void)snprintf(found, sizeof(found), "%s %s",
                                       json_string_value(json_object_get(c, "status")),
                                       json_string_value(json_object_get(c, "reason")));
                        if (strcmp(found, cases[i].expected[t]) != 0)
                                fail_msg("%s: %s is %s, not %s", cases[i].name, types[t], found,
                                         cases[i].expected[t]);
                        assert_int_equal(json_integer_value(json_object_get(c, "observedGeneration")), 3);
                }
                assert_int_equal(status_condition(status, "Suspended") != NULL, cases[i].suspended);
                json_decref(status);
                json_decref(f.deployment);
                json_decref(f.pods);
                json_decref(f.workers);
        }
}

static void a_clock_that_is_off_is_a_condition(void **state UNUSED)
{
        static const char *const workers[] = {
                WORKER("Connected", "", "Delivering"),
                WORKER("Connected", ",\"clockMessage\":\"the local clock is 20m0s behind the cloud's\"",
                       "Delivering"),
        };

        for (size_t i = 0; i < COUNT_OF(workers); i++) {
                struct status_facts f = { .generation = 3,
                                          .source = "smn",
                                          .sink = "http://f/",
                                          .deployment = load(AVAILABLE),
                                          .pods = load(POD),
                                          .workers = load(workers[i]),
                                          .selector = "a=b",
                                          .now = USEC_SEC };
                json_t *status = status_fold(&f), *c = status_condition(status, "ClockSkewed");

                assert_int_equal(c != NULL, i);
                if (c) {
                        assert_string_equal(json_string_value(json_object_get(c, "status")), "True");
                        assert_string_equal(json_string_value(json_object_get(c, "message")),
                                            "the local clock is 20m0s behind the cloud's");
                }
                assert_string_equal(
                        json_string_value(json_object_get(status_condition(status, "Ready"), "status")),
                        "True");
                json_decref(status);
                json_decref(f.deployment);
                json_decref(f.pods);
                json_decref(f.workers);
        }
}

static void an_earlier_triggers_worker_is_not_heard(void **state UNUSED)
{
        struct status_facts f = {
                .generation = 3,
                .uid = "now",
                .source = "kafka",
                .sink = "http://f/",
                .deployment = load(AVAILABLE),
                .pods = load(POD),
                .selector = "a=b",
                .now = USEC_SEC,
                .workers = load(
                        "[{\"pod\":\"p\",\"triggerUID\":\"before\",\"observedGeneration\":3,\"sourceState\":"
                        "\"Connected\",\"lag\":5,\"lastEventTime\":\"2026-01-01T00:00:00Z\"}]")
        };
        json_t *status = status_fold(&f);

        assert_string_equal(
                json_string_value(json_object_get(status_condition(status, "SourceConnected"), "status")),
                "Unknown");
        assert_null(json_object_get(status, "lag"));
        assert_null(json_object_get(status, "lastEventTime"));
        json_decref(status);
        (void)json_object_set_new(json_array_get(f.workers, 0), "triggerUID", json_string("now"));
        status = status_fold(&f);
        assert_string_equal(
                json_string_value(json_object_get(status_condition(status, "SourceConnected"), "status")),
                "True");
        json_decref(status);
        json_decref(f.deployment);
        json_decref(f.pods);
        json_decref(f.workers);
}

static void a_deleted_one_says_what_it_waits_for(void **state UNUSED)
{
        struct status_facts f = { .generation = 3,
                                  .source = "smn",
                                  .sink = "http://f/",
                                  .ending = "the subscription of a to b",
                                  .deployment = load(AVAILABLE),
                                  .pods = load(POD),
                                  .workers = load(WORKER("Disconnected", ",\"sourceMessage\":\"refused\"",
                                                         "Delivering")),
                                  .selector = "a=b",
                                  .now = USEC_SEC };
        json_t *status = status_fold(&f), *ready = status_condition(status, "Ready"),
               *connected = status_condition(status, "SourceConnected");

        assert_string_equal(json_string_value(json_object_get(ready, "status")), "False");
        assert_string_equal(json_string_value(json_object_get(ready, "reason")), "Ending");
        assert_string_equal(json_string_value(json_object_get(ready, "message")),
                            "the subscription of a to b");
        assert_string_equal(json_string_value(json_object_get(connected, "message")), "refused");
        json_decref(status);
        json_decref(f.deployment);
        json_decref(f.pods);
        json_decref(f.workers);
}

static void words_times_and_lag_are_kept(void **state UNUSED)
{
        struct status_facts f = { .generation = 3,
                                  .source = "kafka",
                                  .sink = "http://f/",
                                  .deployment = load(AVAILABLE),
                                  .pods = load(POD),
                                  .workers = load(WORKER("Disconnected", ",\"sourceMessage\":\"refused\"",
                                                         "Delivering")),
                                  .selector = "a=b",
                                  .now = 100 * USEC_SEC };
        json_t *first = status_fold(&f), *second, *third;

        assert_string_equal(
                json_string_value(json_object_get(status_condition(first, "SourceConnected"), "message")),
                "refused");
        assert_string_equal(json_string_value(json_object_get(status_condition(first, "Ready"), "message")),
                            "refused");
        assert_int_equal(json_integer_value(json_object_get(first, "lag")), 7);
        assert_string_equal(json_string_value(json_object_get(first, "lastDeliveryTime")),
                            "2026-01-02T03:04:05Z");
        f.previous = first;
        f.now = 200 * USEC_SEC;
        second = status_fold(&f);
        assert_true(json_equal(first, second)); /* nothing changed: no time moves */
        json_decref(f.workers);
        f.workers = load(WORKER("Connected", "", "Delivering"));
        third = status_fold(&f);
        assert_string_equal(json_string_value(json_object_get(status_condition(third, "SourceConnected"),
                                                              "lastTransitionTime")),
                            "1970-01-01T00:03:20Z");
        assert_string_equal(json_string_value(json_object_get(status_condition(third, "SinkResolved"),
                                                              "lastTransitionTime")),
                            "1970-01-01T00:01:40Z");
        /* A worker that knows nothing of the past does not undo it. */
        json_decref(f.workers);
        f.workers = NULL;
        f.previous = third;
        json_decref(second);
        second = status_fold(&f);
        assert_string_equal(json_string_value(json_object_get(second, "lastDeliveryTime")),
                            "2026-01-02T03:04:05Z");
        assert_null(json_object_get(second, "lag"));
        json_decref(first);
        json_decref(second);
        json_decref(third);
        json_decref(f.deployment);
        json_decref(f.pods);
}

static void long_words_are_cut_between_characters(void **state UNUSED)
{
        static char words[1000];
        struct status_facts f = {
                .generation = 3, .selector = "a=b", .invalid = words, .now = USEC_SEC, .pods = load("[]")
        };

        for (size_t shift = 0; shift < 4; shift++) {
                json_t *status;
                const char *message;

                memset(words, 'x', shift);
                for (size_t i = shift; i + 3 < sizeof(words); i += 3)
                        memcpy(words + i, "\xe2\x82\xac", 4); /* a euro sign */
                status = status_fold(&f);
                message = json_string_value(json_object_get(status_condition(status, "Ready"), "message"));
                assert_non_null(message);
                assert_in_range(strlen(message), 508, 511);
                assert_int_equal(json_array_size(json_object_get(status, "conditions")), 5);
                json_decref(status);
        }
        json_decref(f.pods);
}

static void the_lag_is_the_sum_of_workers_that_exist(void **state UNUSED)
{
        struct status_facts f = {
                .generation = 3,
                .source = "kafka",
                .sink = "http://f/",
                .selector = "a=b",
                .now = USEC_SEC,
                .pods = load("[{\"metadata\":{\"name\":\"p\"}},{\"metadata\":{\"name\":\"q\"}},{\"metadata\":"
                             "{\"name\":\"ends\",\"deletionTimestamp\":\"2026-01-01T00:00:00Z\"}}]"),
                .workers = load("[{\"pod\":\"p\",\"lag\":7,\"oldestPendingTime\":\"2026-01-01T00:00:09Z\"},"
                                "{\"pod\":\"q\",\"lag\":5,\"oldestPendingTime\":\"2026-01-01T00:00:08Z\"},"
                                "{\"pod\":\"r\"},{\"pod\":\"gone\",\"lag\":100,\"oldestPendingTime\":"
                                "\"2025-01-01T00:00:00Z\",\"lastEventTime\":\"2026-01-02T00:00:00Z\"},{"
                                "\"pod\":\"ends\",\"lag\":1000}]")
        };
        json_t *status = status_fold(&f);

        assert_int_equal(json_integer_value(json_object_get(status, "lag")), 12);
        assert_string_equal(json_string_value(json_object_get(status, "oldestPendingTime")),
                            "2026-01-01T00:00:08Z");
        /* that was so, whoever saw it */
        assert_string_equal(json_string_value(json_object_get(status, "lastEventTime")),
                            "2026-01-02T00:00:00Z");
        json_decref(status);
        json_decref(f.workers);
        f.workers = load("[{\"pod\":\"gone\",\"lag\":100}]");
        status = status_fold(&f);
        assert_null(json_object_get(status, "lag"));
        assert_null(json_object_get(status, "oldestPendingTime"));
        json_decref(status);
        json_decref(f.workers);
        json_decref(f.pods);
}

static void a_crash_is_told_with_its_last_words(void **state UNUSED)
{
        struct status_facts f = { .generation = 3,
                                  .source = "kafka",
                                  .sink = "http://f/",
                                  .deployment = load(STARTING),
                                  .selector = "a=b",
                                  .now = USEC_SEC };
        BUF_AT_END struct buf pods = BUF_INIT(65536);
        const char *message;
        json_t *status;

        buf_text(&pods, "[{\"metadata\":{\"name\":\"p\"},\"status\":{\"containerStatuses\":[{\"state\":{"
                        "\"waiting\":{\"reason\":\"CrashLoopBackOff\",\"message\":\"back-off 10s\"}},"
                        "\"lastState\":{\"terminated\":{\"reason\":\"Error\",\"exitCode\":2,\"message\":\"");
        for (int i = 0; i < 1000; i++)
                buf_text(&pods, "\xc3\xa4");
        buf_text(&pods, " the end\\n\"}}}]}}]");
        f.pods = load(pods.p);
        assert_non_null(f.pods);
        status = status_fold(&f);
        message = json_string_value(json_object_get(status_condition(status, "WorkersAvailable"), "message"));
        assert_non_null(message); /* cut between characters */
        assert_int_equal(strncmp(message, "Error, exit code 2: ", 20), 0);
        assert_string_equal(message + strlen(message) - 8, " the end");
        assert_true(strlen(message) < 330);
        json_decref(status);
        json_decref(f.pods);
        json_decref(f.deployment);
}

static json_t *event(const char *reason, const char *message, const char *field, const char *time)
{
        json_t *e = json_pack("{ss ss}", "reason", reason, "message", message);

        assert_non_null(e);
        if (strcmp(field, "series") == 0)
                assert_int_equal(json_object_set_new(e, field, json_pack("{ss}", "lastObservedTime", time)),
                                 0);
        else
                assert_int_equal(json_object_set_new(e, field, json_string(time)), 0);
        return e;
}

/* Lists are in the order of names, by when each was first seen; one that is seen again keeps its name. */
static void of_events_the_latest_is_told(void **state UNUSED)
{
        json_t *list = json_array();

        assert_string_equal(status_latest_event(list, "FailedMount"), "");
        assert_string_equal(status_latest_event(NULL, "FailedMount"), "");
        (void)json_array_append_new(list, event("FailedMount", "secret \"a\" not found", "lastTimestamp",
                                                "2026-01-02T03:04:09Z"));
        (void)json_array_append_new(list, event("FailedMount", "failed to sync configmap cache",
                                                "lastTimestamp", "2026-01-02T03:04:06Z"));
        (void)json_array_append_new(list, event("BackOff", "other", "lastTimestamp", "2026-01-02T03:05:00Z"));
        assert_string_equal(status_latest_event(list, "FailedMount"), "secret \"a\" not found");
        (void)json_array_append_new(
                list, event("FailedMount", "by the newer API", "eventTime", "2026-01-02T03:04:09.500000Z"));
        assert_string_equal(status_latest_event(list, "FailedMount"), "by the newer API");
        (void)json_array_append_new(
                list, event("FailedMount", "a series", "series", "2026-01-02T03:04:10.000001Z"));
        assert_string_equal(status_latest_event(list, "FailedMount"), "a series");
        (void)json_array_append_new(list, event("FailedMount", "no time", "lastTimestamp", ""));
        assert_string_equal(status_latest_event(list, "FailedMount"), "a series");
        json_decref(list);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_crash_is_told_with_its_last_words),
                cmocka_unit_test(conditions_follow_from_the_facts),
                cmocka_unit_test(a_clock_that_is_off_is_a_condition),
                cmocka_unit_test(an_earlier_triggers_worker_is_not_heard),
                cmocka_unit_test(a_deleted_one_says_what_it_waits_for),
                cmocka_unit_test(words_times_and_lag_are_kept),
                cmocka_unit_test(long_words_are_cut_between_characters),
                cmocka_unit_test(the_lag_is_the_sum_of_workers_that_exist),
                cmocka_unit_test(of_events_the_latest_is_told),
        };
        return cmocka_run_group_tests_name("status", tests, NULL, NULL);
}
