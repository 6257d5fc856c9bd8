/* The timer on a clock that stands still and a scripted store, for its tests. */
#pragma once

#include "source/timer/timer.h"
#include "tests/support/clock.h"
#include "tests/support/store.h"
#include "tests/support/trigger.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static struct bench {
        struct set_clock time;
        struct clock clock;
        struct trigger trigger;
        struct timer_spec spec;
        struct event_spec event;
        struct delivery_spec delivery;
        struct services services;
        struct loop *loop;
        struct source *source;
        struct test_store kept; /* requests wait in order until the script answers them */
        /* What poll told. */
        struct record *lent; /* the last one */
        bool many;           /* there may be several at once: */
        struct record *out[64];
        size_t out_n;
        char id[400];
        usec lent_at;
        size_t lent_n;
        bool assigned, revoking, lost, closed;
        enum source_state state;
        char text[512];
} b;

static inline usec at(const char *text)
{
        usec t;

        assert_true(time_parse(str_of(text), &t));
        return t;
}

static inline void poll_once(void)
{
        struct pull_event events[8];
        size_t n;

        while ((n = timer_source.pull->poll(b.source, events, COUNT_OF(events), b.time.monotonic)))
                for (size_t i = 0; i < n; i++)
                        switch (events[i].kind) {
                        case PULL_RECORD:
                                assert_true(b.many || !b.lent);
                                b.lent = events[i].record;
                                assert_true(b.out_n < COUNT_OF(b.out));
                                b.out[b.out_n++] = b.lent;
                                b.lent_at = events[i].record->time;
                                b.lent_n++;
                                assert_true(events[i].record->position >= (uint64_t)b.lent_at);
                                (void)snprintf(b.id, sizeof(b.id), STR_FMT, STR_ARG(events[i].record->id));
                                break;
                        case PULL_ASSIGNED: b.assigned = true; break;
                        case PULL_REVOKING: b.revoking = true; break;
                        case PULL_STATE:
                                b.state = events[i].state;
                                (void)snprintf(b.text, sizeof(b.text), "%s", events[i].text);
                                break;
                        case PULL_CLOSED: b.closed = true; break;
                        case PULL_LOST: b.lost = true; break;
                        }
}

static inline void poll_and_answer(void)
{
        poll_once();
        while (b.kept.waiting_n) {
                test_store_answer(&b.kept, ERROR_NONE);
                poll_once();
        }
}

static inline void pass(usec time)
{
        b.time.wall += time;
        b.time.monotonic += time;
}

/* Changes the spec before it is opened; gone with the test. */
static void (*adjust)(struct timer_spec *);

/* When the source wants a turn: at its deadline, or at the time of day that its alarm is set to. */
static inline usec wakes_at(void)
{
        usec deadline = timer_source.pull->deadline(b.source), alarm = loop_next(b.loop);

        return MIN_OF(deadline, alarm);
}

/* Opens at a wall time; what is stored stays from before. */
static inline void open_at(const char *wall, const char *schedule, enum misfire_policy policy)
{
        static char text[100], zone[] = "Asia/Shanghai", event[] = "say \"hi\"", uid[] = "uid-1";
        struct error err = { 0 }, error;
        bool has_stored = b.kept.found;
        char stored[sizeof(b.kept.value)];
        struct loop *loop = b.loop;

        memcpy(stored, b.kept.value, sizeof(stored));
        memset(&b, 0, sizeof(b));
        memcpy(b.kept.value, stored, sizeof(stored));
        b.kept.found = has_stored;
        b.loop = loop;
        (void)snprintf(text, sizeof(text), "%s", schedule);
        b.time.wall = at(wall);
        b.time.monotonic = USEC_HOUR;
        b.clock = (struct clock)SET_CLOCK(&b.time);
        b.spec = (struct timer_spec){
                .schedule = text,
                .time_zone = zone,
                .user_event = event,
                .misfire_policy = (int)policy,
                .starting_deadline = 5 * USEC_SEC,
        };
        if (adjust)
                adjust(&b.spec);
        b.trigger = (struct trigger)TEST_TRIGGER("nightly", .uid = uid, .source_spec = &b.spec,
                                                 .event = &b.event, .delivery = &b.delivery);
        b.delivery.timeout = USEC_MINUTE;
        b.delivery.max_in_flight = 16;
        if (!b.loop && loop_new(&b.loop, &error) < 0)
                fail_msg("%s", error.text);
        loop_use_clock(b.loop, &b.clock);
        b.services = (struct services){
                .loop = b.loop, .clock = &b.clock, .store = test_store_port(&b.kept), .trigger = &b.trigger
        };
        if (timer_source.open(&b.source, &b.spec, &b.services, &err) < 0)
                fail_msg("%s", err.text);
}

static inline void settle_one(size_t i, enum outcome outcome)
{
        struct record *r = b.out[i];
        uint64_t position;

        assert_true(i < b.out_n);
        position = r->position;
        memmove(b.out + i, b.out + i + 1, (--b.out_n - i) * sizeof(struct record *));
        if (r == b.lent)
                b.lent = NULL;
        timer_source.pull->release(b.source, r, outcome);
        if (outcome != OUTCOME_RELEASED)
                timer_source.pull->commit(b.source, 0, position + 1);
}

static inline void settle(enum outcome outcome)
{
        assert_non_null(b.lent);
        for (size_t i = 0; i < b.out_n; i++)
                if (b.out[i] == b.lent) {
                        settle_one(i, outcome);
                        return;
                }
}

static inline void close_source(void)
{
        b.source = timer_source.pull->free(b.source);
        assert_null(b.source);
        b.out_n = 0;
        assert_int_equal(loop_next(b.loop), USEC_NEVER);
}

static inline int afresh(void **state UNUSED)
{
        struct loop *loop = b.source ? NULL : b.loop; /* another test failed */

        memset(&b, 0, sizeof(b));
        b.loop = loop;
        adjust = NULL;
        return 0;
}

/* After all tests of a program. */
static inline int leave(void **state UNUSED)
{
        b.loop = loop_free(b.loop);
        return 0;
}

static inline void start(const char *wall, const char *schedule, enum misfire_policy policy)
{
        open_at(wall, schedule, policy);
        poll_and_answer();
        assert_true(b.assigned);
        timer_source.pull->credit(b.source, 0, 1, 1000);
        poll_and_answer();
}

static inline void lent_is(const char *time)
{
        if (!b.lent)
                fail_msg("nothing is lent; expected %s", time);
        if (b.lent_at != at(time)) {
                BUF_AT_END struct buf found = BUF_INIT(100);

                time_format(&found, b.lent_at);
                fail_msg("%s is lent, not %s", found.p, time);
        }
}

/* Goes on until a tick is lent, as the loop would: from one turn to the next. How long it took. */
static inline usec until_lent(usec most)
{
        usec began = b.time.monotonic;

        timer_source.pull->credit(b.source, 0, 1, 1000);
        poll_and_answer();
        while (!b.lent && b.time.monotonic - began < most) {
                usec deadline = wakes_at();

                assert_true(deadline > b.time.monotonic);
                pass(MIN_OF(deadline - b.time.monotonic, began + most - b.time.monotonic));
                poll_and_answer();
        }
        return b.time.monotonic - began;
}
