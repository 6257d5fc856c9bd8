/* A host in a cluster, beside an API server that takes everything: what befalls the sources of its Triggers
 * is told of the right one, in the log, in the counters and in Kubernetes events. */
#include "host/host.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "http/server/server.h"
#include "kube/client.h"
#include "log/log.h"
#include "tests/support/clock.h"
#include "tests/support/trigger.h"

enum { EVENTS = 64 };

static struct bench {
        struct loop *loop;
        struct http_server *server;
        struct kube_config config;
        struct kube_client *kube;
        struct host *host;
        struct task watchdog, quiet, probe;
        unsigned opened, opened_before, passes, most_in_a_pass;
        usec ticks; /* of a clock that shows another millisecond whenever it is looked at */
        char url[64];
        json_t *events[EVENTS];
        size_t events_n, wanted;
        bool overdue, hanging;
        struct set_clock time;
        struct clock clock;
        struct task driver;
        int log, stderr_copy;
        char logged[65536];
} b;

/* ---- the API server ----------------------------------------------------- */

static void handle(void *cookie UNUSED, struct http_call *call)
{
        const struct http_message *m = http_call_message(call);
        struct str target = buf_view(&m->target);

        if (str_starts(target, STR("/apis/events.k8s.io/v1/namespaces/")) && m->method == HTTP_POST) {
                assert_true(b.events_n < EVENTS);
                b.events[b.events_n] = json_loadb(m->body.p, m->body.n, 0, NULL);
                assert_non_null(b.events[b.events_n++]);
        }
        http_call_reply(call, 200, STR("application/json"), (struct str){ 0 }, STR("{}"));
        if (b.events_n >= b.wanted)
                loop_arm(b.loop, &b.quiet, clock_monotonic(&system_clock) + 50 * USEC_MSEC);
}

static void on_quiet(struct task *t UNUSED, usec now UNUSED) { loop_stop(b.loop); }

static void too_late(struct task *t UNUSED, usec now UNUSED)
{
        b.overdue = true;
        loop_stop(b.loop);
}

/* ---- a source that warns ------------------------------------------------ */

struct toy {
        struct source source;
        const struct services *services;
        const struct toy_spec *spec;
        bool told, stopping, closed, hangs;
};
/* Each warning is another one where its text counts. */
struct toy_spec {
        const char *reason, *format;
        unsigned times;
        uint64_t lost;
        unsigned *refusals; /* so often it can't be opened; NULL: it can */
        unsigned *opened;   /* counts; may be NULL */
        bool hangs;         /* it never comes to its end */
        bool wrong;         /* check says so; open does not */
};

static struct task *the_wake; /* of the one that hangs */

static size_t toy_poll(struct source *source, struct pull_event *events, size_t max, usec now UNUSED)
{
        struct toy *t = CONTAINER_OF(source, struct toy, source);

        assert_true(max > 0);
        if (t->stopping && !t->closed && !(t->hangs && b.hanging)) {
                t->closed = true;
                events[0] = (struct pull_event){ .kind = PULL_CLOSED };
                return 1;
        }
        if (t->told)
                return 0;
        t->told = true;
        for (unsigned i = 0; i < t->spec->times; i++)
                source_warn(t->services, t->spec->reason, t->spec->lost, "%s %u", t->spec->format, i);
        events[0] = (struct pull_event){ .kind = PULL_STATE, .state = SOURCE_CONNECTED };
        return 1;
}

static usec toy_deadline(const struct source *source UNUSED) { return USEC_NEVER; }

static void toy_stop(struct source *source)
{
        struct toy *t = CONTAINER_OF(source, struct toy, source);

        t->stopping = true;
        if (t->hangs)
                the_wake = t->services->wake;
        loop_ready(t->services->loop, t->services->wake);
}

static struct source *toy_free(struct source *source)
{
        struct toy *t = source ? CONTAINER_OF(source, struct toy, source) : NULL;

        if (t && the_wake == t->services->wake)
                the_wake = NULL;
        free(t);
        return NULL;
}

static int toy_open(struct source **out, const void *spec, const struct services *services, struct error *err)
{
        const struct toy_spec *of = spec;
        struct toy *t;

        if (of->refusals && *of->refusals && (*of->refusals)--)
                return error_set(err, ERROR_INVALID, "not yet");
        t = calloc(1, sizeof(*t));
        assert_non_null(t);
        t->services = services;
        t->spec = spec;
        t->hangs = of->hangs;
        b.opened++;
        if (of->opened)
                ++*of->opened;
        *out = &t->source;
        return 0;
}

static int toy_check(const void *spec, const struct services *services UNUSED, struct error *err)
{
        return ((const struct toy_spec *)spec)->wrong ? error_set(err, ERROR_INVALID, "wrong") : 0;
}

static const struct pull_ops toy_pull = {
        .poll = toy_poll, .deadline = toy_deadline, .stop = toy_stop, .free = toy_free
};
static const struct warning toy_warnings[] = { WARNING("RecordsExpired", .loses = true), WARNING("NeverSaid"),
                                               WARNINGS_END };
static const struct source_kind toy = {
        .name = "toy", .pull = &toy_pull, .open = toy_open, .check = toy_check, .warnings = toy_warnings
};

/* ---- the bench ---------------------------------------------------------- */

static usec next_tick(void *cookie UNUSED) { return ++b.ticks * USEC_MSEC; }

/* How the bench is: in a cluster by the system's clock; or alone, by one that ticks, or that the test sets.
 */
enum mode { IN_CLUSTER, TICKING, SET };

/* state: the mode, NULL: in a cluster. */
static int begin(void **state)
{
        static const struct clock ticking = { .monotonic = next_tick, .wall = next_tick };
        enum mode mode = *state ? *(const enum mode *)*state : IN_CLUSTER;
        struct http_server_config server = {
                .address = "127.0.0.1:0", .head_max = 65536, .body_max = 1 << 20, .handle = handle
        };
        struct host_config config = { .clock = &system_clock, .pod = "orders-0" };
        struct error err;

        memset(&b, 0, sizeof(b));
        b.watchdog.turn = too_late;
        b.quiet.turn = on_quiet;
        assert_int_equal(loop_new(&b.loop, &err), 0);
        b.time = (struct set_clock){ .wall = 1795514400 * USEC_SEC, .monotonic = USEC_HOUR };
        b.clock = (struct clock)SET_CLOCK(&b.time);
        if (mode == SET)
                loop_use_clock(b.loop, &b.clock);
        assert_int_equal(http_server_new(&b.server, b.loop, &server, &err), 0);
        (void)snprintf(b.url, sizeof(b.url), "http://127.0.0.1:%u", http_server_port(b.server));
        b.config.server = b.url;
        assert_int_equal(kube_client_new(&b.kube, b.loop, &b.config, &err), 0);
        config.kube = mode == IN_CLUSTER ? b.kube : NULL;
        config.clock = mode == TICKING ? &ticking : mode == SET ? &b.clock : config.clock;
        assert_int_equal(host_new(&b.host, b.loop, &config, &err), 0);
        b.log = memfd_create("log", MFD_CLOEXEC);
        b.stderr_copy = dup(STDERR_FILENO);
        assert_true(b.log >= 0 && dup2(b.log, STDERR_FILENO) >= 0);
        log_setup(LOG_INFO, LOG_LOGFMT);
        return 0;
}

static void run(void)
{
        loop_arm(b.loop, &b.watchdog, clock_monotonic(&system_clock) + 20 * USEC_SEC);
        loop_run(b.loop);
        loop_forget(b.loop, &b.watchdog);
        if (b.overdue)
                fail_msg("%zu of %zu events came", b.events_n, b.wanted);
}

static int end(void **state UNUSED)
{
        ssize_t n;

        assert_true(dup2(b.stderr_copy, STDERR_FILENO) >= 0);
        (void)close(b.stderr_copy);
        n = pread(b.log, b.logged, sizeof(b.logged) - 1, 0);
        b.logged[MAX_OF(n, (ssize_t)0)] = 0;
        (void)close(b.log);
        host_stop(b.host, &(struct host_end){ 0 });
        b.hanging = false; /* a test may have failed before it let it end */
        if (the_wake)
                loop_ready(b.loop, the_wake);
        while (!host_stopped(b.host)) {
                loop_arm(b.loop, &b.quiet, clock_monotonic(&system_clock) + 10 * USEC_MSEC);
                run();
        }
        b.host = host_free(b.host);
        b.kube = kube_client_free(b.kube);
        b.server = http_server_free(b.server);
        loop_forget(b.loop, &b.quiet);
        loop_forget(b.loop, &b.probe);
        b.loop = loop_free(b.loop);
        for (size_t i = 0; i < b.events_n; i++)
                json_decref(b.events[i]);
        return 0;
}

static struct trigger *trigger_with_uid(const char *namespace_, const char *name, const char *uid_of)
{
        BUF_AT_END struct buf text = BUF_INIT(4096);

        buf_printf(&text,
                   "apiVersion: sluice.dev/v1alpha1\nkind: Trigger\nmetadata: {name: %s, namespace: %s, uid: "
                   "uid-of-%s}\nspec:\n  source: {timer: {schedule: 1h}}\n  sink: {uri: 'http://f/'}\n",
                   name, namespace_, uid_of);
        return test_trigger(buf_view(&text));
}

static struct trigger *trigger(const char *namespace_, const char *name)
{
        return trigger_with_uid(namespace_, name, name);
}

static struct host_options how(const struct toy_spec *spec)
{
        return (struct host_options){ .sink = "http://127.0.0.1:9/", .kind = &toy, .source_spec = spec };
}

static int try_set(const char *namespace_, const char *name, const struct toy_spec *spec, struct error *err)
{
        const struct host_options options = how(spec);

        return host_set(b.host, trigger(namespace_, name), &options, 0, err);
}

static void set(const char *namespace_, const char *name, const struct toy_spec *spec)
{
        struct error err;

        if (try_set(namespace_, name, spec, &err) < 0)
                fail_msg("%s", err.text);
}

static const char *member(const json_t *event, const char *name)
{
        const char *value = json_string_value(json_object_get(event, name));

        return value ? value : "";
}

static const json_t *event_of(const char *name)
{
        for (size_t i = 0; i < b.events_n; i++)
                if (strcmp(member(json_object_get(b.events[i], "regarding"), "name"), name) == 0)
                        return b.events[i];
        fail_msg("no event is about %s", name);
        return NULL;
}

static void check_event(const char *namespace_, const char *name, const char *reason, const char *note)
{
        const json_t *event = event_of(name), *about = json_object_get(event, "regarding");
        char uid[64];

        (void)snprintf(uid, sizeof(uid), "uid-of-%s", name);
        assert_string_equal(member(about, "namespace"), namespace_);
        assert_string_equal(member(about, "uid"), uid);
        assert_string_equal(member(about, "kind"), "Trigger");
        assert_string_equal(member(event, "type"), "Warning");
        assert_string_equal(member(event, "reason"), reason);
        assert_string_equal(member(event, "note"), note);
        assert_string_equal(member(event, "reportingController"), "sluice.dev/worker");
        assert_string_equal(member(event, "reportingInstance"), "orders-0");
}

static const char *logged(void)
{
        ssize_t n = pread(b.log, b.logged, sizeof(b.logged) - 1, 0);

        b.logged[MAX_OF(n, (ssize_t)0)] = 0;
        return b.logged;
}

static void check_count(void *cookie, const struct host_entry *e)
{
        const struct warning_counts *w = &e->status.warnings;
        bool orders = strcmp(e->trigger->name, "orders") == 0;

        ++*(unsigned *)cookie;
        assert_string_equal(w->list[0].reason, "RecordsExpired");
        assert_string_equal(w->list[1].reason, "NeverSaid");
        assert_int_equal(w->list[0].times, orders ? 1 : 0);
        assert_int_equal(w->list[0].lost, orders ? 11 : 0);
        assert_true(w->list[0].loses && !w->list[1].loses);
        assert_int_equal(w->list[1].times, 0);
        assert_int_equal(w->lost, orders ? 11 : 0);
        assert_string_equal(w->lost_text, orders ? "offsets 1 to 11, part 0" : "");
        if (orders) {
                assert_null(w->list[2].reason);
                return;
        }
        assert_string_equal(w->list[2].reason, "Unheard");
        assert_int_equal(w->list[2].times, 1);
        assert_false(w->list[2].loses);
}

/* ---- tests -------------------------------------------------------------- */

static void what_befalls_a_source_is_told_of_its_trigger(void **state UNUSED)
{
        static const struct toy_spec
                orders = { "RecordsExpired", "offsets 1 to 11, part", 1, 11, NULL, NULL, false, false },
                bills = { "Unheard", "something", 1, 0, NULL, NULL, false, false };
        unsigned n = 0;

        b.wanted = 2;
        set("shop", "orders", &orders);
        set("bank", "bills", &bills);
        run();
        assert_int_equal(b.events_n, 2);
        check_event("shop", "orders", "RecordsExpired", "offsets 1 to 11, part 0");
        check_event("bank", "bills", "Unheard", "something 0");
        assert_non_null(strstr(logged(),
                               "level=warn msg=\"the source warns\" namespace=shop trigger=orders "
                               "reason=RecordsExpired lost=11 times=1 text=\"offsets 1 to 11, part 0\""));
        assert_non_null(strstr(logged(), "namespace=bank trigger=bills reason=Unheard lost=0 times=1"));
        assert_non_null(strstr(logged(), "msg=source namespace=shop trigger=orders state=Connected"));
        assert_non_null(strstr(logged(), "msg=source namespace=bank trigger=bills state=Connected"));
        host_each(b.host, check_count, &n);
        assert_int_equal(n, 2);
}

static void a_reason_that_comes_again_and_again_writes_few_events(void **state UNUSED)
{
        static const struct toy_spec often = {
                "PartitionAdded", "partition", 5000, 0, NULL, NULL, false, false
        };

        b.wanted = 11; /* ten of their own, and one for all others */
        set("shop", "orders", &often);
        run();
        assert_int_equal(b.events_n, 11);
        assert_string_equal(member(b.events[9], "note"), "partition 9");
        assert_string_equal(member(b.events[10], "note"), "(combined from similar events): partition 10");
}

static void check_failed(void *cookie, const struct host_entry *e)
{
        uint64_t *changes = cookie;

        assert_false(e->runs);
        assert_string_equal(e->failure, "start shop/orders: not yet");
        assert_string_equal(e->status.source_text, e->failure);
        assert_string_equal(pipeline_delivery(&e->status), "Stopped");
        assert_int_equal(e->status.source, SOURCE_FAILED);
        *changes = e->changes;
}

static void check_started(void *cookie, const struct host_entry *e)
{
        assert_true(e->runs);
        assert_null(e->failure);
        assert_true(e->changes > *(const uint64_t *)cookie);
}

static void one_that_fails_to_start_is_tried_again(void **state UNUSED)
{
        unsigned refusals = 2;
        const struct toy_spec late = { "Unheard", "something", 1, 0, &refusals, NULL, false, false };
        usec begun = clock_monotonic(&system_clock), took;
        struct error err;
        uint64_t changes;

        assert_int_equal(try_set("shop", "orders", &late, &err), -1);
        assert_true(host_failed(b.host, "shop", "orders"));
        assert_non_null(host_find(b.host, "shop", "orders"));
        host_each(b.host, check_failed, &changes);
        b.wanted = 1;
        run();
        took = clock_monotonic(&system_clock) - begun;
        if (took < 3 * USEC_SEC) /* one second, then two */
                fail_msg("it was tried too soon, after %lld us", (long long)took);
        assert_int_equal(refusals, 0);
        assert_false(host_failed(b.host, "shop", "orders"));
        host_each(b.host, check_started, &changes);
        assert_non_null(strstr(logged(),
                               "msg=\"a Trigger that could not be started runs now\" namespace=shop "
                               "trigger=orders"));
}

static void one_that_failed_is_tried_at_once_when_it_is_set_again(void **state UNUSED)
{
        unsigned refusals = 1;
        const struct toy_spec late = { "Unheard", "something", 1, 0, &refusals, NULL, false, false };
        struct error err;

        assert_int_equal(try_set("shop", "orders", &late, &err), -1);
        assert_int_equal(try_set("shop", "orders", &late, &err), 0);
        assert_false(host_failed(b.host, "shop", "orders"));
        host_remove(b.host, "shop", "orders", 0);
        assert_null(host_find(b.host, "shop", "orders"));
}

static void check_goes_on(void *cookie, const struct host_entry *e)
{
        char text[256];

        (void)snprintf(text, sizeof(text), "its change can't be started, and it goes on as it was: %s",
                       (const char *)cookie);
        assert_true(e->runs);
        assert_string_equal(e->failure, (const char *)cookie);
        assert_string_equal(e->status.source_text, text);
        assert_false(e->status.stopped);
}

static const unsigned *awaited;

static void stop_once_opened(struct task *t, usec now UNUSED)
{
        if (*awaited)
                loop_stop(b.loop);
        else
                loop_ready(b.loop, t);
}

/* Whether its source is what can't work, or its function. */
static void an_edit_that_cannot_start_leaves_what_reads(void **state UNUSED)
{
        unsigned opened = 0, edits = 0;
        const struct toy_spec first = { .opened = &opened }, wrong = { .opened = &edits, .wrong = true },
                              right = { .opened = &edits };
        struct host_options to_nowhere = how(&right);
        struct task until_opened = { .turn = stop_once_opened };
        struct error err;

        set("shop", "orders", &first);
        assert_int_equal(try_set("shop", "orders", &wrong, &err), -1);
        assert_string_equal(err.text, "start shop/orders: wrong");
        host_each(b.host, check_goes_on, err.text);
        to_nowhere.sink = "nowhere";
        assert_int_equal(host_set(b.host, trigger("shop", "orders"), &to_nowhere, 0, &err), -1);
        assert_non_null(strstr(err.text, "nowhere"));
        host_each(b.host, check_goes_on, err.text);
        assert_int_equal(opened, 1);
        assert_int_equal(edits, 0);
        /* What can be started takes its place. */
        set("shop", "orders", &right);
        awaited = &edits;
        loop_ready(b.loop, &until_opened);
        run();
        assert_false(host_failed(b.host, "shop", "orders"));
        assert_int_equal(opened, 1);
        assert_int_equal(edits, 1);
}

/* Turned in each pass, as whatever else runs is. */
static void pass(struct task *t, usec now UNUSED)
{
        b.most_in_a_pass = MAX_OF(b.most_in_a_pass, b.opened - b.opened_before);
        b.opened_before = b.opened;
        b.passes++;
        if (host_waiting(b.host))
                loop_ready(b.loop, t);
        else
                loop_arm(b.loop, &b.quiet, clock_monotonic(&system_clock) + 50 * USEC_MSEC);
}

static void want(unsigned number, const struct toy_spec *spec)
{
        const struct host_options options = how(spec);
        struct error err;
        char name[16];

        (void)snprintf(name, sizeof(name), "t%u", number);
        assert_int_equal(host_want(b.host, trigger("shop", name), &options, 0, &err), 0);
}

static void check_waits(void *cookie, const struct host_entry *e)
{
        assert_true(e->waits && e->runs);
        assert_null(e->failure);
        assert_int_equal(e->status.source, SOURCE_CONNECTING);
        assert_string_equal(e->status.source_text, "waits for its turn to start");
        assert_string_equal(pipeline_delivery(&e->status), "Stopped");
        ++*(unsigned *)cookie;
}

static void check_runs(void *cookie, const struct host_entry *e)
{
        assert_true(e->runs && !e->waits && !e->failure);
        assert_string_equal(pipeline_delivery(&e->status), "Delivering");
        ++*(unsigned *)cookie;
}

static void turn_until_all_had_their_turn(void)
{
        b.probe.turn = pass;
        b.most_in_a_pass = 0;
        b.opened_before = b.opened;
        loop_ready(b.loop, &b.probe);
        run();
}

static void many_hold_up_nothing_that_runs(void **state UNUSED)
{
        const struct toy_spec spec = { .opened = NULL };
        unsigned n = 0;

        for (unsigned i = 0; i < 100; i++)
                want(i, &spec);
        assert_int_equal(b.opened, 0);
        assert_int_equal(host_waiting(b.host), 100);
        host_each(b.host, check_waits, &n);
        assert_int_equal(n, 100);
        turn_until_all_had_their_turn();
        assert_int_equal(b.opened, 100);
        assert_in_range(b.most_in_a_pass, 1, 4); /* four milliseconds, by that clock */
        n = 0;
        host_each(b.host, check_runs, &n);
        assert_int_equal(n, 100);
        for (unsigned i = 0; i < 100; i++) /* all are replaced, which takes the end of each */
                want(i, &spec);
        turn_until_all_had_their_turn();
        assert_int_equal(b.opened, 200);
        assert_in_range(b.most_in_a_pass, 1, 4);
}

static void what_is_wanted_last_is_what_runs(void **state UNUSED)
{
        unsigned first_opened = 0, second_opened = 0;
        const struct toy_spec first = { .opened = &first_opened }, second = { .opened = &second_opened };

        for (unsigned i = 0; i < 100; i++)
                want(i, &first);
        for (unsigned i = 0; i < 50; i++)
                want(i, &second);
        for (unsigned i = 90; i < 100; i++) {
                char name[16];

                (void)snprintf(name, sizeof(name), "t%u", i);
                host_remove(b.host, "shop", name, 0);
                assert_null(host_find(b.host, "shop", name));
        }
        turn_until_all_had_their_turn();
        assert_int_equal(second_opened, 50);
        assert_int_equal(first_opened, 40);
        assert_non_null(host_find(b.host, "shop", "t89"));
}

static void a_stop_leaves_the_rest_unstarted(void **state UNUSED)
{
        const struct toy_spec spec = { .opened = NULL };

        for (unsigned i = 0; i < 100; i++)
                want(i, &spec);
        host_stop(b.host, &(struct host_end){ 0 });
        assert_true(host_stopped(b.host));
        loop_arm(b.loop, &b.quiet, clock_monotonic(&system_clock) + 10 * USEC_MSEC);
        run();
        assert_int_equal(b.opened, 0);
}

/* Time passes where there is nothing to do before. */
static void drive(struct task *t, usec now)
{
        usec next = loop_next(b.loop);

        if (b.hanging ? host_ended(b.host) : host_stopped(b.host)) {
                loop_stop(b.loop);
                return;
        }
        assert_true(next < USEC_NEVER);
        if (next > now)
                set_clock_pass(&b.time, next - now);
        loop_ready(b.loop, t);
}

/* A source may wait for a peer that says nothing, for ever; the process does not. */
static void what_does_not_end_holds_up_no_end(void **state UNUSED)
{
        const struct toy_spec hangs = { .hangs = true }, ends = { .opened = NULL };
        usec stopped;

        b.hanging = true;
        set("shop", "orders", &hangs);
        set("shop", "other", &ends);
        stopped = b.time.monotonic;
        host_stop(b.host, &(struct host_end){ .grace = 20 * USEC_SEC });
        b.driver.turn = drive;
        loop_ready(b.loop, &b.driver);
        (void)alarm(20);
        loop_run(b.loop);
        assert_int_equal(b.time.monotonic - stopped, 25 * USEC_SEC);
        assert_false(host_stopped(b.host));
        assert_true(pread(b.log, b.logged, sizeof(b.logged) - 1, 0) > 0);
        assert_non_null(strstr(b.logged, "msg=\"the source does not end in time"));
        assert_non_null(strstr(b.logged, "namespace=shop trigger=orders notSaved=unknown"));
        assert_null(strstr(b.logged, "trigger=other notSaved"));
        assert_null(strstr(b.logged, "requests in flight"));
        b.hanging = false; /* for the end of the test */
        loop_ready(b.loop, the_wake);
        loop_ready(b.loop, &b.driver);
        loop_run(b.loop);
        (void)alarm(0);
        loop_forget(b.loop, &b.driver);
}

/* ---- a Trigger that is renamed ------------------------------------------- */

static void want_with_uid(const char *name, const char *uid_of, const struct toy_spec *spec)
{
        const struct host_options options = how(spec);
        struct error err;

        assert_int_equal(host_want(b.host, trigger_with_uid("shop", name, uid_of), &options, 0, &err), 0);
}

enum { PASSES = 50 };

static void count_passes(struct task *t, usec now UNUSED)
{
        if (++b.passes == PASSES)
                loop_stop(b.loop);
        else
                loop_ready(b.loop, t);
}

/* As many passes of the loop as it takes to stop and start what can be. */
static void turn_some(void)
{
        b.passes = 0;
        b.probe.turn = count_passes;
        loop_ready(b.loop, &b.probe);
        run();
}

/* Whichever of both is told first; with the uid it keeps its positions, so that only one may have them. */
static void a_renamed_trigger_begins_once_the_old_one_has_ended(void **state UNUSED)
{
        for (int old_first = 0; old_first < 2; old_first++) {
                unsigned opened = 0;
                const struct toy_spec old = { .hangs = true }, renamed = { .opened = &opened };

                b.hanging = true;
                set("shop", "orders", &old);
                if (old_first)
                        host_remove(b.host, "shop", "orders", 0);
                want_with_uid("renamed", "orders", &renamed);
                if (!old_first)
                        host_remove(b.host, "shop", "orders", 0);
                turn_some();
                assert_int_equal(opened, 0);
                assert_int_equal(host_waiting(b.host), 1);
                assert_false(host_failed(b.host, "shop", "renamed"));
                b.hanging = false;
                loop_ready(b.loop, the_wake);
                turn_some();
                assert_int_equal(opened, 1);
                assert_int_equal(host_waiting(b.host), 0);
                host_remove(b.host, "shop", "renamed", 0);
                turn_some();
        }
}

static void two_that_swap_their_names_do_not_wait_for_each_other(void **state UNUSED)
{
        unsigned opened = 0;
        const struct toy_spec before = { .opened = NULL }, after = { .opened = &opened };

        set("shop", "a", &before);
        set("shop", "b", &before);
        want_with_uid("a", "b", &after);
        want_with_uid("b", "a", &after);
        turn_some();
        assert_int_equal(opened, 2);
        assert_int_equal(host_waiting(b.host), 0);
}

/* The old one does not end, since its edit can't be started: that is said of the other, and nothing waits. */
static void a_uid_that_is_not_given_up_is_told(void **state UNUSED)
{
        unsigned opened = 0;
        const struct toy_spec old = { .opened = NULL }, wrong = { .wrong = true },
                              other = { .opened = &opened };

        set("shop", "orders", &old);
        want_with_uid("other", "orders", &other);
        want_with_uid("orders", "else", &wrong);
        turn_some();
        assert_int_equal(opened, 0);
        assert_int_equal(host_waiting(b.host), 0);
        assert_true(host_failed(b.host, "shop", "other"));
        assert_non_null(strstr(logged(), "metadata.uid \\\"uid-of-orders\\\" is also that of the Trigger "
                                         "shop/orders, which still runs"));
}

int main(void)
{
        static enum mode ticking = TICKING, set_by_test = SET;
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(what_befalls_a_source_is_told_of_its_trigger, begin, end),
                cmocka_unit_test_setup_teardown(a_reason_that_comes_again_and_again_writes_few_events, begin,
                                                end),
                cmocka_unit_test_setup_teardown(one_that_fails_to_start_is_tried_again, begin, end),
                cmocka_unit_test_setup_teardown(an_edit_that_cannot_start_leaves_what_reads, begin, end),
                cmocka_unit_test_setup_teardown(one_that_failed_is_tried_at_once_when_it_is_set_again, begin,
                                                end),
                cmocka_unit_test_prestate_setup_teardown(many_hold_up_nothing_that_runs, begin, end,
                                                         &ticking),
                cmocka_unit_test_prestate_setup_teardown(what_is_wanted_last_is_what_runs, begin, end,
                                                         &ticking),
                cmocka_unit_test_prestate_setup_teardown(what_does_not_end_holds_up_no_end, begin, end,
                                                         &set_by_test),
                cmocka_unit_test_prestate_setup_teardown(a_stop_leaves_the_rest_unstarted, begin, end,
                                                         &ticking),
                cmocka_unit_test_prestate_setup_teardown(a_renamed_trigger_begins_once_the_old_one_has_ended,
                                                         begin, end, &ticking),
                cmocka_unit_test_prestate_setup_teardown(two_that_swap_their_names_do_not_wait_for_each_other,
                                                         begin, end, &ticking),
                cmocka_unit_test_prestate_setup_teardown(a_uid_that_is_not_given_up_is_told, begin, end,
                                                         &ticking),
        };

        signals_block();
        return cmocka_run_group_tests_name("host", tests, NULL, NULL);
}
