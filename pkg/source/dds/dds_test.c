/* The source with a driver that is a script: what becomes of faults, gaps, ends of streams and of stops. */
#include "source/dds/dds.h"

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "log/log.h"
#include "source/dds/inside.h"
#include "tests/support/store.h"

/* ---- a driver that is a script ------------------------------------------ */

enum act { ACT_CHANGE, ACT_INVALIDATE, ACT_FAIL, ACT_TROUBLE, ACT_WELL, ACT_HANG, ACT_STUCK };
struct step {
        enum act act;
        int number; /* of a change: its token; of a fault: the code */
};
enum { STEPS = 32, WATCHED = 32 };

/* What the test says, and what the driver was asked for; under the lock. */
static struct script {
        pthread_mutex_t lock;
        pthread_cond_t freed;
        struct step steps[STEPS];
        size_t steps_n, at;
        int refuse[STEPS]; /* codes of the next attempts to open a stream; 0: it is opened */
        size_t refuse_n, refuse_at;
        char watched[WATCHED][64]; /* "time 7.1", "resume 82A1", "start 82A1" */
        size_t watched_n;
        bool free; /* what is stuck may go on */
        int reached, open_clients, asked;
        bool no_oplog; /* the oldest change is not known */
} script;

struct dds_client {
        struct dds_line line;
        bool over;
        char bson[512];
        int reached;
};

static int fails(struct dds_fault *f, enum dds_fault_kind kind, int code)
{
        *f = (struct dds_fault){ .kind = kind, .code = code };
        (void)snprintf(f->text, sizeof(f->text), "as the script says");
        return -1;
}

static bool is_cut(const struct dds_client *c, int wait)
{
        struct pollfd p = { .fd = c->line.cut, .events = POLLIN };

        return poll(&p, 1, wait) > 0;
}

static struct dds_client *open_client(const struct dds_target *t UNUSED, const struct dds_line *line,
                                      struct dds_fault *f)
{
        struct dds_client *c = calloc(1, sizeof(*c));

        if (!c) {
                (void)fails(f, DDS_FAULT_MEMORY, 0);
                return NULL;
        }
        c->line = *line;
        (void)pthread_mutex_lock(&script.lock);
        script.open_clients++;
        (void)pthread_mutex_unlock(&script.lock);
        return c;
}

static void close_client(struct dds_client *c)
{
        if (!c)
                return;
        (void)pthread_mutex_lock(&script.lock);
        script.open_clients--;
        (void)pthread_mutex_unlock(&script.lock);
        free(c);
}

static size_t put(char *to, const void *from, size_t n)
{
        memcpy(to, from, n);
        return n;
}

/* {"_data": "82A<number>"} */
static size_t put_token(char *to, int number)
{
        char text[16];
        uint32_t length = (uint32_t)snprintf(text, sizeof(text), "82A%d", number) + 1, all = 16 + length;
        size_t n = put(to, &all, 4);

        n += put(to + n, "\x02_data", 7);
        n += put(to + n, &length, 4);
        n += put(to + n, text, length);
        return n + put(to + n, "", 1);
}

/* A change with that token. */
static size_t put_change(char *to, int number, const char *operation)
{
        uint32_t length = (uint32_t)strlen(operation) + 1, all;
        size_t n = 4;

        n += put(to + n, "\x03_id", 5);
        n += put_token(to + n, number);
        n += put(to + n, "\x02operationType", 15);
        n += put(to + n, &length, 4);
        n += put(to + n, operation, length);
        n += put(to + n, "", 1);
        all = (uint32_t)n;
        (void)put(to, &all, 4);
        return n;
}

static void note_watched(const struct dds_watch *w)
{
        char *to = script.watched[script.watched_n++ % WATCHED];
        const char *token = w->token.n ? (const char *)w->token.p + 15 : "";

        if (w->from == DDS_AT_TIME)
                (void)snprintf(to, 64, "time %u.%u", w->time.seconds, w->time.number);
        else
                (void)snprintf(to, 64, "%s %s", w->from == DDS_START_AFTER ? "start" : "resume", token);
}

static int watch(struct dds_client *c, const struct dds_watch *w, struct dds_fault *f)
{
        int code = 0;

        (void)pthread_mutex_lock(&script.lock);
        note_watched(w);
        if (script.refuse_at < script.refuse_n)
                code = script.refuse[script.refuse_at++];
        (void)pthread_mutex_unlock(&script.lock);
        c->over = false;
        c->reached = 0;
        return code ? fails(f, DDS_FAULT_SERVER, code) : 0;
}

/* Until the test frees it, whatever is cut. */
static void stay_stuck(void)
{
        (void)pthread_mutex_lock(&script.lock);
        while (!script.free)
                (void)pthread_cond_wait(&script.freed, &script.lock);
        (void)pthread_mutex_unlock(&script.lock);
}

static enum dds_next tell(struct dds_client *c, int number, const char *operation, struct dds_bytes *change)
{
        *change = (struct dds_bytes){ c->bson, put_change(c->bson, number, operation) };
        return DDS_NEXT_DOCUMENT;
}

static enum dds_next act(struct dds_client *c, struct step step, struct dds_bytes *change,
                         struct dds_fault *f)
{
        struct dds_fault fault;

        switch (step.act) {
        case ACT_CHANGE: return tell(c, step.number, "insert", change);
        case ACT_INVALIDATE: c->over = true; return tell(c, step.number, "invalidate", change);
        case ACT_FAIL: return (enum dds_next)fails(f, DDS_FAULT_SERVER, step.number);
        case ACT_TROUBLE:
                (void)fails(&fault, DDS_FAULT_SERVER, step.number);
                c->line.trouble(c->line.cookie, &fault);
                return DDS_NEXT_NOTHING;
        case ACT_WELL: c->line.trouble(c->line.cookie, NULL); return DDS_NEXT_NOTHING;
        case ACT_HANG: (void)is_cut(c, -1); break;
        case ACT_STUCK: stay_stuck(); break;
        }
        return (enum dds_next)fails(f, DDS_FAULT_CUT, 0);
}

static enum dds_next next(struct dds_client *c, struct dds_bytes *change, struct dds_fault *f)
{
        struct step step = { .act = ACT_WELL };
        bool any;

        (void)pthread_mutex_lock(&script.lock);
        any = script.at < script.steps_n;
        if (any)
                step = script.steps[script.at++];
        c->reached = any ? 0 : script.reached;
        script.asked++;
        (void)pthread_mutex_unlock(&script.lock);
        if (any)
                return act(c, step, change, f);
        return is_cut(c, 1) ? (enum dds_next)fails(f, DDS_FAULT_CUT, 0) : DDS_NEXT_NOTHING;
}

static uint32_t left(const struct dds_client *c UNUSED) { return 0; }
static bool over(const struct dds_client *c) { return c->over; }
static struct dds_time server_clock(const struct dds_client *c UNUSED) { return (struct dds_time){ 9, 9 }; }

static struct dds_bytes reached(const struct dds_client *c)
{
        static _Thread_local char token[64];

        return c->reached ? (struct dds_bytes){ token, put_token(token, c->reached) }
                          : (struct dds_bytes){ 0 };
}

static int time_now(struct dds_client *c UNUSED, struct dds_time *out, struct dds_fault *f UNUSED)
{
        *out = (struct dds_time){ 7, 1 };
        return 0;
}

static int oldest(struct dds_client *c UNUSED, struct dds_time *out, struct dds_fault *f)
{
        *out = (struct dds_time){ 3, 0 };
        return script.no_oplog ? fails(f, DDS_FAULT_CONFIG, 0) : 0;
}

static const char *library(void) { return "a script"; }

/* Instead of the module. */
int dds_driver_load(const struct dds_driver **out, struct error *err UNUSED)
{
        static const struct dds_driver driver = { .version = DDS_DRIVER_VERSION,
                                                  .library = library,
                                                  .open = open_client,
                                                  .close = close_client,
                                                  .watch = watch,
                                                  .next = next,
                                                  .left = left,
                                                  .over = over,
                                                  .reached = reached,
                                                  .clock = server_clock,
                                                  .now = time_now,
                                                  .oldest = oldest };

        *out = &driver;
        return 0;
}

/* ---- a pipeline, by hand ------------------------------------------------ */

static char host[] = "db:8635", *hosts[] = { host }, database[] = "shop", collection[] = "orders",
            insert[] = "insert", *operations[] = { insert }, trigger_name[] = "orders",
            namespace_name[] = "shop";
static struct dds_spec spec;
static struct trigger trigger = { .name = trigger_name, .namespace_ = namespace_name, .source_spec = &spec };
static struct log_scope scope;

static struct bench {
        struct loop *loop;
        struct task task;
        usec ahead; /* of the system's clock; under the lock */
        struct clock clock;
        struct test_store store;
        struct services services;
        struct source *source;
        bool (*until)(void);
        char got[256]; /* ids of the records that came */
        enum source_state state;
        char text[512], warned[512];
        bool closed, held; /* held: what comes is kept */
        bool passed;
        struct record *kept;
        uint32_t track;
} b;

static const struct pull_ops *ops(void) { return dds_source.pull; }

static void take(const struct pull_event *e)
{
        switch (e->kind) {
        case PULL_ASSIGNED:
                b.track = e->track;
                ops()->credit(b.source, e->track, 100, 1 << 20);
                break;
        case PULL_RECORD:
                (void)snprintf(b.got + strlen(b.got), sizeof(b.got) - strlen(b.got), STR_FMT " ",
                               STR_ARG(e->record->id));
                if (b.held) {
                        b.kept = e->record;
                        break;
                }
                ops()->commit(b.source, e->track, e->record->position + 1);
                ops()->release(b.source, e->record, OUTCOME_ACCEPTED);
                break;
        case PULL_REVOKING:
        case PULL_LOST: ops()->revoked(b.source, e->track); break;
        case PULL_STATE:
                b.state = e->state;
                (void)snprintf(b.text, sizeof(b.text), "%s", e->text ? e->text : "");
                break;
        case PULL_CLOSED: b.closed = true; break;
        }
}

static void turn(struct task *t, usec now)
{
        struct pull_event events[8];
        size_t n = ops()->poll(b.source, events, COUNT_OF(events), now);

        for (size_t i = 0; i < n; i++)
                take(&events[i]);
        if (n)
                loop_ready(b.loop, t);
        loop_arm(b.loop, t, b.closed ? USEC_NEVER : ops()->deadline(b.source));
        if (b.until && b.until())
                loop_stop(b.loop);
}

static void run_until(bool (*until)(void))
{
        b.until = until;
        loop_ready(b.loop, &b.task);
        loop_run(b.loop);
        b.until = NULL;
}

/* The thread asks for the time, too. */
static usec monotonic(void *cookie)
{
        usec ahead;

        (void)pthread_mutex_lock(&script.lock);
        ahead = *(const usec *)cookie;
        (void)pthread_mutex_unlock(&script.lock);
        return ahead + clock_monotonic(&system_clock);
}

static usec wall(void *cookie) { return monotonic(cookie); }

static void pass(usec time)
{
        (void)pthread_mutex_lock(&script.lock);
        b.ahead += time;
        (void)pthread_mutex_unlock(&script.lock);
}

static void warned(void *cookie UNUSED, const struct notice *n)
{
        (void)snprintf(b.warned, sizeof(b.warned), "%s: %s", n->reason, n->text);
}

static int setup(void **state UNUSED)
{
        struct error err;

        b = (struct bench){ .state = SOURCE_STATE_MAX };
        script = (struct script){ .lock = PTHREAD_MUTEX_INITIALIZER, .freed = PTHREAD_COND_INITIALIZER };
        spec = (struct dds_spec){ .hosts = { hosts, 1 },
                                  .database = database,
                                  .collection = collection,
                                  .operations = { operations, 1 },
                                  .token_interval = USEC_HOUR,
                                  .max_event_bytes = 1 << 20 };
        assert_int_equal(loop_new(&b.loop, &err), 0);
        b.clock = (struct clock){ monotonic, wall, &b.ahead };
        loop_use_clock(b.loop, &b.clock);
        b.task.turn = turn;
        b.store.loop = b.loop;
        scope = log_scope_of(namespace_name, trigger_name);
        b.services = (struct services){ .loop = b.loop,
                                        .waker = loop_waker(b.loop),
                                        .wake = &b.task,
                                        .clock = &b.clock,
                                        .store = test_store_port(&b.store),
                                        .trigger = &trigger,
                                        .log = &scope,
                                        .notices = { warned, NULL } };
        return 0;
}

static void begin(void)
{
        struct error err;

        if (dds_source.open(&b.source, &spec, &b.services, &err) < 0)
                fail_msg("%s", err.text);
}

static bool is_closed(void) { return b.closed; }

static void end(void)
{
        ops()->stop(b.source);
        run_until(is_closed);
        b.source = ops()->free(b.source);
}

static int teardown(void **state UNUSED)
{
        if (b.source)
                b.source = ops()->free(b.source);
        loop_forget(b.loop, &b.task);
        (void)loop_free(b.loop);
        return script.open_clients ? -1 : 0;
}

/* ---- what is waited for ------------------------------------------------- */

static void add(enum act act, int number)
{
        (void)pthread_mutex_lock(&script.lock);
        script.steps[script.steps_n++] = (struct step){ act, number };
        (void)pthread_mutex_unlock(&script.lock);
}

static bool is_connected(void) { return b.state == SOURCE_CONNECTED; }
static bool has_failed(void) { return b.state == SOURCE_FAILED; }
static bool is_disconnected(void) { return b.state == SOURCE_DISCONNECTED; }
static bool first_came(void) { return strstr(b.got, "82A1 "); }
static bool second_came(void) { return strstr(b.got, "82A2 "); }
static bool third_came(void) { return strstr(b.got, "82A3 "); }
static bool second_is_stored(void) { return strstr(b.store.value, " 82A2\""); }
static bool all_was_told(void)
{
        bool all;

        (void)pthread_mutex_lock(&script.lock);
        all = script.at == script.steps_n;
        (void)pthread_mutex_unlock(&script.lock);
        loop_ready(b.loop, &b.task); /* the thread does not say so */
        return all;
}

static int asked_before;
static bool was_asked_again(void)
{
        int asked;

        (void)pthread_mutex_lock(&script.lock);
        asked = script.asked;
        (void)pthread_mutex_unlock(&script.lock);
        loop_ready(b.loop, &b.task);
        return asked >= asked_before + 3;
}

static void wait_asked(void)
{
        (void)pthread_mutex_lock(&script.lock);
        asked_before = script.asked;
        (void)pthread_mutex_unlock(&script.lock);
        run_until(was_asked_again);
}

/* ---- tests -------------------------------------------------------------- */

static void where_it_begins_is_stored_before_anything_is_read(void **state UNUSED)
{
        begin();
        run_until(is_connected);
        assert_string_equal(b.store.value, "{\"scope\":\"shop.orders\",\"position\":\"at 7.1\"}");
        assert_string_equal(script.watched[0], "time 7.1");
        assert_int_equal(script.watched_n, 1);
        end();
        assert_string_equal(b.store.value, "{\"scope\":\"shop.orders\",\"position\":\"at 7.1\"}");
}

static void the_position_of_what_is_done_is_stored(void **state UNUSED)
{
        add(ACT_CHANGE, 1);
        add(ACT_CHANGE, 2);
        test_store_set(&b.store, "{\"scope\":\"shop.orders\",\"position\":\"after 5.0 82A0\"}");
        begin();
        run_until(second_is_stored);
        assert_string_equal(b.got, "82A1 82A2 ");
        assert_string_equal(script.watched[0], "resume 82A0");
        end();
}

/* What is under way when it stops comes again. */
static void what_is_not_done_is_not_stored(void **state UNUSED)
{
        add(ACT_CHANGE, 1);
        b.held = true;
        begin();
        run_until(first_came);
        ops()->stop(b.source);
        ops()->release(b.source, b.kept, OUTCOME_RELEASED);
        run_until(is_closed);
        b.source = ops()->free(b.source);
        assert_string_equal(b.store.value, "{\"scope\":\"shop.orders\",\"position\":\"at 7.1\"}");
}

static void a_quiet_stream_stores_at_its_end_how_far_the_server_has_looked(void **state UNUSED)
{
        begin();
        run_until(is_connected);
        script.reached = 5;
        wait_asked();
        assert_string_equal(b.store.value, "{\"scope\":\"shop.orders\",\"position\":\"at 7.1\"}");
        end();
        assert_string_equal(b.store.value, "{\"scope\":\"shop.orders\",\"position\":\"after 9.9 82A5\"}");
}

static bool reached_is_stored(void)
{
        pass(USEC_MINUTE);
        loop_ready(b.loop, &b.task);
        return strstr(b.store.value, " 82A5\"");
}

static void a_quiet_stream_stores_it_after_the_interval_too(void **state UNUSED)
{
        script.reached = 5;
        begin();
        run_until(is_connected);
        run_until(reached_is_stored);
        end();
}

static void a_stream_that_fails_is_opened_again_where_it_was(void **state UNUSED)
{
        add(ACT_CHANGE, 1);
        add(ACT_FAIL, 11601);
        add(ACT_CHANGE, 2);
        begin();
        run_until(second_came);
        assert_string_equal(b.got, "82A1 82A2 ");
        assert_string_equal(script.watched[1], "resume 82A1");
        end();
}

static void an_attempt_that_the_driver_repeats_shows(void **state UNUSED)
{
        begin();
        run_until(is_connected);
        add(ACT_TROUBLE, 43);
        run_until(is_disconnected);
        assert_string_equal(b.text, "the server says 43: as the script says");
        add(ACT_WELL, 0);
        run_until(is_connected);
        end();
}

static void a_stream_goes_on_behind_its_end(void **state UNUSED)
{
        add(ACT_CHANGE, 1);
        add(ACT_INVALIDATE, 2);
        add(ACT_CHANGE, 3);
        begin();
        run_until(third_came);
        end();
        assert_string_equal(b.got, "82A1 82A3 ");
        assert_string_equal(script.watched[1], "start 82A2");
        assert_non_null(strstr(b.store.value, " 82A3\""));
}

static void lose(void)
{
        test_store_set(&b.store, "{\"scope\":\"shop.orders\",\"position\":\"after 5.0 82A0\"}");
        script.refuse[script.refuse_n++] = 286;
}

static void a_gap_stops_it(void **state UNUSED)
{
        lose();
        begin();
        run_until(has_failed);
        assert_string_equal(
                b.text,
                "OplogLost: the oplog no longer holds the position, of 1970-01-01T00:00:05Z; the oldest "
                "change that it holds is of 1970-01-01T00:00:03Z: what happened between is lost (as the "
                "script says); set onLost to Earliest or Now to go on");
        assert_true(str_starts(str_of(b.warned), STR("OplogLost: ")));
        assert_int_equal(script.watched_n, 1);
        end();
        assert_non_null(strstr(b.store.value, "82A0"));
}

static void a_gap_stops_it_where_its_end_is_not_known_too(void **state UNUSED)
{
        script.no_oplog = true;
        lose();
        begin();
        run_until(has_failed);
        assert_non_null(strstr(b.text, "the oldest change that it holds is of an unknown time"));
        end();
}

static void a_gap_is_left_behind(void **state UNUSED)
{
        static const struct {
                int on_lost;
                const char *stored, *watched;
        } all[] = { { DDS_LOST_NOW, "at 7.1", "time 7.1" }, { DDS_LOST_EARLIEST, "at 3.0", "time 3.0" } };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                if (i) {
                        teardown(NULL);
                        setup(NULL);
                }
                spec.on_lost = all[i].on_lost;
                lose();
                begin();
                run_until(is_connected);
                assert_non_null(strstr(b.store.value, all[i].stored));
                assert_string_equal(script.watched[1], all[i].watched);
                assert_true(str_starts(str_of(b.warned), STR("OplogLost: ")));
                end();
        }
}

/* Also where it is the open stream that is told of it. */
static void a_gap_behind_an_open_stream_is_left_behind(void **state UNUSED)
{
        spec.on_lost = DDS_LOST_NOW;
        begin();
        run_until(is_connected);
        add(ACT_FAIL, 280);
        add(ACT_CHANGE, 1);
        run_until(first_came);
        assert_string_equal(script.watched[1], "time 7.1");
        end();
}

static void the_position_of_another_stream_is_not_used(void **state UNUSED)
{
        test_store_set(&b.store, "{\"scope\":\"shop.customers\",\"position\":\"after 5.0 82A0\"}");
        begin();
        run_until(is_connected);
        assert_string_equal(script.watched[0], "time 7.1");
        assert_true(str_starts(str_of(b.warned), STR("CheckpointForeign: ")));
        end();
}

static bool time_passes_until_closed(void)
{
        pass(100 * USEC_MSEC);
        loop_ready(b.loop, &b.task);
        return b.closed;
}

/* Once as much as it takes until the connection is cut, but not until the thread is left to itself. */
static bool is_cut_and_closed(void)
{
        if (!b.passed)
                pass(1500 * USEC_MSEC);
        b.passed = true;
        loop_ready(b.loop, &b.task);
        return b.closed;
}

static void a_call_that_hangs_is_cut(void **state UNUSED)
{
        add(ACT_HANG, 0);
        begin();
        run_until(all_was_told);
        ops()->stop(b.source);
        run_until(is_cut_and_closed);
        b.source = ops()->free(b.source);
}

static void free_what_is_stuck(void)
{
        (void)pthread_mutex_lock(&script.lock);
        script.free = true;
        (void)pthread_cond_signal(&script.freed);
        (void)pthread_mutex_unlock(&script.lock);
}

static int clients(void)
{
        int n;

        (void)pthread_mutex_lock(&script.lock);
        n = script.open_clients;
        (void)pthread_mutex_unlock(&script.lock);
        return n;
}

/* As in a name's resolution: the thread is left to itself, and frees what it holds once it ends. */
static void a_call_that_can_t_be_cut_is_left(void **state UNUSED)
{
        add(ACT_STUCK, 0);
        begin();
        run_until(all_was_told);
        ops()->stop(b.source);
        run_until(time_passes_until_closed);
        b.source = ops()->free(b.source);
        assert_int_equal(clients(), 1);
        free_what_is_stuck();
        while (clients())
                (void)poll(NULL, 0, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        const struct CMUnitTest tests[] = {
                TEST(where_it_begins_is_stored_before_anything_is_read),
                TEST(the_position_of_what_is_done_is_stored),
                TEST(what_is_not_done_is_not_stored),
                TEST(a_quiet_stream_stores_at_its_end_how_far_the_server_has_looked),
                TEST(a_quiet_stream_stores_it_after_the_interval_too),
                TEST(a_stream_that_fails_is_opened_again_where_it_was),
                TEST(an_attempt_that_the_driver_repeats_shows),
                TEST(a_stream_goes_on_behind_its_end),
                TEST(a_gap_stops_it),
                TEST(a_gap_stops_it_where_its_end_is_not_known_too),
                TEST(a_gap_is_left_behind),
                TEST(a_gap_behind_an_open_stream_is_left_behind),
                TEST(the_position_of_another_stream_is_not_used),
                TEST(a_call_that_hangs_is_cut),
                TEST(a_call_that_can_t_be_cut_is_left),
        };

        log_setup(LOG_ERROR, LOG_LOGFMT);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
