/* The engine on a virtual clock, for its tests. */
#pragma once

#include "delivery/delivery.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/random.h"

enum { MOST = 4096, TRACKS = 8 };
struct sent {
        uint32_t ticket;
        uint32_t track;
        unsigned number;
        bool dead_letter;
        size_t n;
        uint64_t positions[64];
        usec at;
};

static struct bench {
        struct delivery *d;
        struct delivery_config config;
        usec now;
        struct record records[MOST];
        size_t records_n;
        struct sent sent[MOST]; /* every SEND and DEAD_LETTER, in order */
        size_t sent_n;
        uint32_t cancelled[MOST];
        size_t cancelled_n;
        uint64_t committed[TRACKS], commits[TRACKS];
        bool revoked[TRACKS];
        int64_t credit[TRACKS], bytes[TRACKS];
        uint64_t settled[OUTCOME_MAX];
        uint64_t detached;
        enum outcome outcome_of[MOST]; /* by the record's index; OUTCOME_MAX: not yet */
        enum delivery_state state;
        size_t states; /* told so far */
        char text[256];
        size_t pulled; /* all actions */
} b;

static UNUSED void begin(struct delivery_config config)
{
        struct error err;

        memset(&b, 0, sizeof(b));
        b.config = (struct delivery_config){
                .ordering = config.ordering,
                .max_in_flight = config.max_in_flight ? config.max_in_flight : 4,
                .max_records = config.max_records ? config.max_records : 64,
                .max_bytes = config.max_bytes ? config.max_bytes : 1 << 20,
                .key_lanes = config.key_lanes ? config.key_lanes : 8,
                .batch_records = config.batch_records ? config.batch_records : 1,
                .batch_bytes = config.batch_bytes,
                .batch_wait = config.batch_wait,
                .timeout = config.timeout ? config.timeout : 10 * USEC_SEC,
                .max_attempts = config.max_attempts,
                .max_event_age = config.max_event_age,
                .initial_backoff = config.initial_backoff ? config.initial_backoff : USEC_SEC,
                .max_backoff = config.max_backoff ? config.max_backoff : 30 * USEC_SEC,
                .retry_after_max = config.retry_after_max ? config.retry_after_max : USEC_MINUTE,
                .on_exhausted = config.on_exhausted,
                .bisect = config.bisect,
                .linear_backoff = config.linear_backoff,
                .rate = config.rate,
                .burst = config.burst,
                .initial_in_flight = config.initial_in_flight,
                .commit_interval = config.commit_interval,
                .commit_count = config.commit_count ? config.commit_count : 1,
        };
        b.now = USEC_HOUR;
        for (size_t i = 0; i < MOST; i++)
                b.outcome_of[i] = OUTCOME_MAX;
        assert_int_equal(delivery_new(&b.d, &b.config, 7, &err), 0);
}

static UNUSED void check_bounds(void)
{
        struct delivery_stats s;
        int64_t credit = 0;

        delivery_stats(b.d, &s);
        for (int i = 0; i < TRACKS; i++)
                credit += MAX_OF(b.credit[i], (int64_t)0);
        assert_true(s.in_flight <= b.config.max_in_flight);
        assert_true(s.held + credit <=
                    (int64_t)MAX_OF(b.config.max_records, b.config.max_in_flight) + s.tracks);
}

static UNUSED void take_action(const struct action *a)
{
        b.pulled++;
        switch (a->kind) {
        case ACTION_SEND:
        case ACTION_DEAD_LETTER: {
                struct sent *s = &b.sent[b.sent_n++];

                *s = (struct sent){ .ticket = a->attempt,
                                    .track = a->track,
                                    .number = a->number,
                                    .dead_letter = a->kind == ACTION_DEAD_LETTER,
                                    .n = a->n,
                                    .at = b.now };
                for (size_t i = 0; i < a->n && i < COUNT_OF(s->positions); i++)
                        s->positions[i] = a->records[i]->position;
                return;
        }
        case ACTION_CANCEL: b.cancelled[b.cancelled_n++] = a->attempt; return;
        case ACTION_DETACH: b.detached++; return;
        case ACTION_SETTLE:
                assert_int_equal(b.outcome_of[a->record - b.records], OUTCOME_MAX); /* once */
                b.outcome_of[a->record - b.records] = a->outcome;
                b.settled[a->outcome]++;
                return;
        case ACTION_CREDIT:
                b.credit[a->track] += a->credit;
                b.bytes[a->track] += (int64_t)a->bytes;
                return;
        case ACTION_COMMIT:
                assert_true(a->position > b.committed[a->track]);
                assert_false(b.revoked[a->track]);
                b.committed[a->track] = a->position;
                b.commits[a->track]++;
                return;
        case ACTION_REVOKED:
                b.revoked[a->track] = true;
                b.credit[a->track] = b.bytes[a->track] = 0;
                return;
        case ACTION_STATE:
                b.state = a->state;
                b.states++;
                (void)snprintf(b.text, sizeof(b.text), "%s", a->text);
                return;
        }
}

static UNUSED void pull(void)
{
        struct action a;

        for (int i = 0; delivery_next(b.d, b.now, &a); i++) {
                assert_true(i < 100000);
                take_action(&a);
                check_bounds();
        }
}

static UNUSED void assign(uint32_t track)
{
        struct error err;

        assert_int_equal(delivery_assign(b.d, track, b.now, &err), 0);
        pull();
}

static UNUSED struct record *offer_sized(uint32_t track, uint64_t position, const char *key, uint32_t pinned)
{
        struct record *r = &b.records[b.records_n++];

        *r = (struct record){ .track = track,
                              .position = position,
                              .pinned = pinned,
                              .key = str_of(key),
                              .has_key = key != NULL };
        b.credit[track]--;
        b.bytes[track] -= pinned;
        delivery_offer(b.d, r, b.now);
        return r;
}

static UNUSED struct record *offer(uint32_t track, uint64_t position, const char *key)
{
        struct record *r = offer_sized(track, position, key, 1);

        pull();
        return r;
}

static UNUSED void answer_with(size_t which, struct answer a)
{
        assert_true(which < b.sent_n);
        delivery_answer(b.d, b.sent[which].ticket, &a, b.now);
        pull();
}
static UNUSED void accept(size_t which)
{
        answer_with(which, (struct answer){ .kind = ANSWER_ACCEPTED, .status = 200 });
}
static UNUSED void fail_with(size_t which, enum answer_kind kind, const char *text)
{
        answer_with(which, (struct answer){ .kind = kind, .status = 500, .text = text });
}

/* To the engine's next deadline. */
static UNUSED void next_deadline(void)
{
        usec at = delivery_deadline(b.d);

        assert_true(at != USEC_NEVER);
        b.now = MAX_OF(b.now, at);
        pull();
}

static UNUSED void end(void)
{
        for (uint32_t t = 0; t < TRACKS; t++)
                delivery_revoke(b.d, t, 0);
        pull();
        for (size_t i = 0; i < b.records_n; i++)
                assert_int_not_equal(b.outcome_of[i], OUTCOME_MAX); /* every record came back */
        b.d = delivery_free(b.d);
}

static UNUSED void offer_all(uint32_t n)
{
        for (uint32_t i = 0; i < n; i++)
                (void)offer_sized(0, i, NULL, 1);
        pull();
}
