/* Workers of one timer that overlap, are killed and lose the API server, on a virtual clock: their checkpoint
 * is fenced as a ConfigMap is, each write carrying the version that was read. What the function got is held
 * against what a kill may repeat. */
#include "base/random.h"
#include "source/timer/timer.h"
#include "tests/support/clock.h"
#include "tests/support/trigger.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

enum { WORKERS = 2, TICKS_MOST = 4096, CALLS = 64, VALUE = 4096 };

struct call { /* of the function */
        struct record *record;
        usec ends; /* 0: there is none */
};

struct port {
        struct store_request *request; /* under way; NULL: none */
        bool is_get;
        char value[VALUE];
        usec done_at;
        bool lost; /* it fails, whether it was made or not */
        bool made; /* nevertheless */
};

struct worker {
        bool alive;
        unsigned incarnation;
        struct source *source;
        struct services services;
        struct port port;
        uint64_t version; /* of the checkpoint, as it was read or written */
        struct call calls[CALLS];
        usec starts_at; /* while it is not alive */
        usec cut_off;   /* the API server can't be reached until then */
        bool leaving;
};

static struct world {
        struct random random;
        struct set_clock time;
        struct clock clock;
        struct loop *loop;
        struct trigger trigger;
        struct timer_spec spec;
        struct delivery_spec delivery;
        struct worker workers[WORKERS];
        char value[VALUE];
        bool found;
        uint64_t version;
        usec first, period, takes;
        usec from; /* there is a checkpoint */
        unsigned at_once;
        unsigned incarnations, writer; /* who wrote the checkpoint last */
        /* by the tick's place in the schedule */
        uint8_t posts[TICKS_MOST], may_repeat[TICKS_MOST];
        size_t places; /* of those that were posted */
} w;

static struct worker *worker_of(void *cookie) { return cookie; }

static usec soon(usec most) { return w.time.monotonic + 1 + (usec)random_below(&w.random, (uint64_t)most); }

static void begin(struct worker *k, struct store_request *r, bool is_get, struct str value)
{
        struct port *p = &k->port;

        assert_null(p->request);
        assert_true(value.n < VALUE);
        p->request = r;
        p->is_get = is_get;
        p->done_at = soon(20 * USEC_MSEC);
        p->lost = w.time.monotonic < k->cut_off;
        p->made = !p->lost || random_below(&w.random, 4) == 0;
        (void)snprintf(p->value, VALUE, STR_FMT, STR_ARG(value));
}

static void get(void *cookie, struct store_request *r, struct str key UNUSED)
{
        begin(worker_of(cookie), r, true, STR(""));
}

static void put(void *cookie, struct store_request *r, struct str key UNUSED, struct str value)
{
        begin(worker_of(cookie), r, false, value);
}

/* What the last writer sent, and is not written as settled, comes from the next one again. */
static void left_over(void)
{
        const char *at = strstr(w.value, "\"settled\":"), *claimed = strstr(w.value, "\"claimed\":[");
        usec settled = at ? strtoll(at + 10, NULL, 10) : 0;
        char text[32];

        for (size_t i = 0; i < w.places; i++) {
                usec time = w.first + (usec)i * w.period;

                (void)snprintf(text, sizeof(text), "%lld", (long long)time);
                if (w.posts[i] && (time > settled || (claimed && strstr(claimed, text))))
                        w.may_repeat[i]++;
        }
}

/* The server has it; the worker may not hear of that. */
static void take_effect(struct worker *k, struct error *err)
{
        struct port *p = &k->port;

        if (!p->made)
                return;
        if (p->is_get)
                k->version = w.version;
        else if (k->version != w.version)
                (void)error_set(err, ERROR_CONFLICT, "another worker writes this checkpoint");
        else {
                if (w.found && k->incarnation != w.writer)
                        left_over();
                (void)snprintf(w.value, VALUE, "%s", p->value);
                w.from = w.found ? w.from : w.time.wall;
                w.found = true;
                w.writer = k->incarnation;
                k->version = ++w.version;
        }
}

/* It was on its way. */
static void cancel(void *cookie, struct store_request *r UNUSED)
{
        struct worker *k = worker_of(cookie);
        struct error err;

        k->port.request = NULL;
        if (!k->port.is_get && random_below(&w.random, 2))
                take_effect(k, &err);
}

static void answer(struct worker *k)
{
        struct port *p = &k->port;
        struct store_request *r = TAKE(p->request);
        struct error err = { 0 };

        take_effect(k, &err);
        if (p->lost) /* as the store does: it reads before it writes again, and knows its own value */
                (void)error_set(&err, ERROR_UNREACHABLE, "the API server is away");
        else if (p->is_get) {
                r->found = w.found;
                r->value.max = VALUE;
                buf_reset(&r->value);
                buf_text(&r->value, w.value);
        }
        r->request.error = err;
        request_end(&r->request, w.loop);
}

static const struct store_ops ops = { get, put, cancel };

/* ---- the function -------------------------------------------------------- */

static size_t place_of(usec time)
{
        size_t place = (size_t)((time - w.first) / w.period);

        assert_true(time >= w.first && (time - w.first) % w.period == 0 && place < TICKS_MOST);
        return place;
}

static void post(struct worker *k, struct record *r)
{
        size_t place = place_of(r->time);

        assert_true(r->time <= w.time.wall); /* none is early */
        w.posts[place]++;
        w.places = MAX_OF(w.places, place + 1);
        if (w.posts[place] > 1 + w.may_repeat[place])
                fail_msg("tick %zu was posted %u times", place, w.posts[place]);
        for (size_t i = 0; i < CALLS; i++)
                if (!k->calls[i].ends) {
                        k->calls[i] = (struct call){ r, w.time.monotonic + w.takes };
                        return;
                }
        fail_msg("too many at once");
}

static void end_calls(struct worker *k)
{
        for (size_t i = 0; i < CALLS; i++)
                if (k->calls[i].ends && k->calls[i].ends <= w.time.monotonic) {
                        k->calls[i].ends = 0;
                        timer_source.pull->release(k->source, k->calls[i].record, OUTCOME_ACCEPTED);
                        timer_source.pull->credit(k->source, 0, 1, 1000);
                }
}

static bool has_calls(const struct worker *k)
{
        for (size_t i = 0; i < CALLS; i++)
                if (k->calls[i].ends)
                        return true;
        return false;
}

/* ---- workers ------------------------------------------------------------- */

static void start_worker(struct worker *k)
{
        struct error err;

        *k = (struct worker){ .alive = true, .incarnation = ++w.incarnations };
        k->services = (struct services){ .loop = w.loop,
                                         .clock = &w.clock,
                                         .store = { .ops = &ops, .cookie = k, .apart = USEC_SEC },
                                         .trigger = &w.trigger };
        if (timer_source.open(&k->source, &w.spec, &k->services, &err) < 0)
                fail_msg("%s", err.text);
}

static void kill_worker(struct worker *k)
{
        k->alive = false;
        k->source = timer_source.pull->free(k->source);
        k->starts_at = soon(5 * USEC_SEC);
}

static void turn(struct worker *k)
{
        struct pull_event events[8];
        size_t n;

        end_calls(k);
        while ((n = timer_source.pull->poll(k->source, events, COUNT_OF(events), w.time.monotonic)))
                for (size_t i = 0; i < n; i++)
                        switch (events[i].kind) {
                        case PULL_RECORD: post(k, events[i].record); break;
                        case PULL_ASSIGNED: timer_source.pull->credit(k->source, 0, 32, 32000); break;
                        case PULL_REVOKING:
                        case PULL_LOST: k->leaving = true; break;
                        case PULL_STATE:
                        case PULL_CLOSED: break;
                        }
        if (k->leaving && !has_calls(k)) {
                k->leaving = false;
                timer_source.pull->revoked(k->source, 0);
                turn(k);
        }
}

static usec next_of(const struct worker *k)
{
        usec at = k->alive ? timer_source.pull->deadline(k->source) : k->starts_at;

        if (k->port.request && k->alive)
                at = MIN_OF(at, k->port.done_at);
        for (size_t i = 0; k->alive && i < CALLS; i++)
                if (k->calls[i].ends)
                        at = MIN_OF(at, k->calls[i].ends);
        return at;
}

struct weather {
        uint32_t kills, cuts; /* one in so many steps; 0: never */
};

static void step(const struct weather *weather, bool calm)
{
        usec next = loop_next(w.loop);

        for (size_t i = 0; i < WORKERS; i++)
                next = MIN_OF(next, next_of(&w.workers[i]));
        assert_true(next != USEC_NEVER);
        /* Nothing is asked for again and again. */
        w.at_once = next > w.time.monotonic ? 0 : w.at_once + 1;
        assert_true(w.at_once < 20);
        set_clock_pass(&w.time, MAX_OF(next - w.time.monotonic, (usec)1));
        for (size_t i = 0; i < WORKERS; i++) {
                struct worker *k = &w.workers[i];

                if (!k->alive && w.time.monotonic >= k->starts_at)
                        start_worker(k);
                if (!k->alive)
                        continue;
                if (k->port.request && k->port.done_at <= w.time.monotonic)
                        answer(k);
                turn(k);
                if (!calm && weather->kills && random_below(&w.random, weather->kills) == 0)
                        kill_worker(k);
                else if (!calm && weather->cuts && random_below(&w.random, weather->cuts) == 0)
                        k->cut_off = soon(20 * USEC_SEC);
        }
}

/* So many ticks, of which each must have come once the weather is calm again. */
static void play(uint64_t seed, size_t ticks, usec period, enum concurrency_policy policy,
                 const struct weather *weather)
{
        static char schedule[64], zone[] = "UTC", none[] = "", uid[] = "u";
        struct error err;
        usec ends;

        memset(&w, 0, sizeof(w));
        random_init(&w.random, seed);
        (void)snprintf(schedule, sizeof(schedule), "@every %lldms", (long long)(period / USEC_MSEC));
        w.period = period;
        w.takes = USEC_SEC / 2;
        w.time = (struct set_clock){ .monotonic = USEC_HOUR, .wall = 20000 * USEC_DAY + 1 };
        w.first = 20000 * USEC_DAY + period;
        w.clock = (struct clock)SET_CLOCK(&w.time);
        w.spec = (struct timer_spec){ .schedule = schedule,
                                      .time_zone = zone,
                                      .user_event = none,
                                      .misfire_policy = MISFIRE_CATCH_UP,
                                      .concurrency_policy = (int)policy,
                                      .starting_deadline = 5 * USEC_SEC };
        w.delivery = (struct delivery_spec){ .timeout = 3 * USEC_SEC, .max_in_flight = 16 };
        w.trigger = (struct trigger)TEST_TRIGGER("nightly", .uid = uid, .source_spec = &w.spec,
                                                 .delivery = &w.delivery);
        assert_int_equal(loop_new(&w.loop, &err), 0);
        loop_use_clock(w.loop, &w.clock);
        start_worker(&w.workers[0]);
        w.workers[1].starts_at = soon(3 * USEC_SEC);
        ends = w.time.wall + (usec)ticks * period;
        while (w.time.wall < ends)
                step(weather, false);
        while (w.time.wall < ends + USEC_MINUTE || w.posts[ticks - 1] == 0) {
                step(weather, true);
                assert_true(w.time.wall < ends + 2 * USEC_HOUR);
        }
        for (size_t i = 0; i < ticks; i++)
                if (!w.posts[i] && w.first + (usec)i * period > w.from)
                        fail_msg("seed %llu: tick %zu was missed", (unsigned long long)seed, i);
        for (size_t i = 0; i < WORKERS; i++)
                if (w.workers[i].alive)
                        (void)timer_source.pull->free(w.workers[i].source);
        w.loop = loop_free(w.loop);
}

static void of_two_workers_one_sends_each_tick_once(void **state UNUSED)
{
        static const struct weather fair = { 0 };
        static const struct {
                usec period;
                enum concurrency_policy policy;
        } all[] = { { USEC_SEC, CONCURRENCY_FORBID },
                    { USEC_SEC, CONCURRENCY_ALLOW },
                    { 200 * USEC_MSEC, CONCURRENCY_ALLOW },
                    { 10 * USEC_SEC, CONCURRENCY_FORBID } };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                size_t posts = 0;

                play(i, 1000, all[i].period, all[i].policy, &fair);
                for (size_t t = 0; t < 1000; t++)
                        posts += w.posts[t];
                assert_int_equal(posts, 1000);
        }
}

static void killed_at_any_moment_they_miss_none(void **state UNUSED)
{
        static const struct weather storm = { .kills = 60 };

        for (uint64_t seed = 0; seed < 400; seed++)
                play(seed, 200, seed % 2 ? USEC_SEC : 300 * USEC_MSEC,
                     seed % 3 ? CONCURRENCY_FORBID : CONCURRENCY_ALLOW, &storm);
}

static void without_the_api_server_they_miss_none(void **state UNUSED)
{
        static const struct weather storm = { .cuts = 100 };

        for (uint64_t seed = 0; seed < 400; seed++)
                play(seed, 200, seed % 2 ? USEC_SEC : 400 * USEC_MSEC,
                     seed % 3 ? CONCURRENCY_FORBID : CONCURRENCY_ALLOW, &storm);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(of_two_workers_one_sends_each_tick_once),
                cmocka_unit_test(killed_at_any_moment_they_miss_none),
                cmocka_unit_test(without_the_api_server_they_miss_none),
        };
        return cmocka_run_group_tests_name("workers of a timer", tests, NULL, NULL);
}
