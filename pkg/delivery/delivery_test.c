#include "delivery/testing.h"

/* ---- order -------------------------------------------------------------- */

static void a_partition_is_delivered_one_by_one(void **state UNUSED)
{
        begin((struct delivery_config){ .ordering = ORDERING_PARTITION });
        assign(0);
        assign(1);
        for (uint64_t i = 0; i < 4; i++) {
                (void)offer(0, i, NULL);
                (void)offer(1, i, NULL);
        }
        assert_int_equal(b.sent_n, 2);
        fail_with(0, ANSWER_RETRY, "no");
        assert_int_equal(b.sent_n, 2);
        accept(1); /* the other track goes on */
        assert_int_equal(b.sent_n, 3);
        assert_int_equal(b.sent[2].track, 1);
        assert_int_equal(b.sent[2].positions[0], 1);
        next_deadline();
        assert_int_equal(b.sent[3].track, 0); /* the same again, not the next */
        assert_int_equal(b.sent[3].positions[0], 0);
        assert_int_equal(b.sent[3].number, 2);
        accept(3);
        assert_int_equal(b.sent[4].positions[0], 1);
        end();
}

static void a_key_is_delivered_one_by_one(void **state UNUSED)
{
        size_t of_key[3] = { 0 };
        static const char *const keys[] = { "a", "b", "c" };

        begin((struct delivery_config){ .ordering = ORDERING_KEY, .key_lanes = 1024, .max_in_flight = 16 });
        assign(0);
        for (uint64_t i = 0; i < 9; i++)
                (void)offer(0, i, keys[i % 3]);
        assert_int_equal(b.sent_n, 3); /* one of each key; so many lanes keep these three apart */
        for (size_t i = 0; i < b.sent_n; i++) {
                uint64_t position = b.sent[i].positions[0];

                assert_int_equal(position / 3, of_key[position % 3]++);
                accept(i);
        }
        assert_int_equal(b.sent_n, 9);
        assert_int_equal(b.committed[0], 9);
        end();
}

static void without_order_all_go_at_once(void **state UNUSED)
{
        begin((struct delivery_config){ .ordering = ORDERING_NONE, .max_in_flight = 3 });
        assign(0);
        for (uint64_t i = 0; i < 5; i++)
                (void)offer(0, i, NULL);
        assert_int_equal(b.sent_n, 3);
        accept(2);
        assert_int_equal(b.sent_n, 4);
        assert_int_equal(b.committed[0], 0); /* 0 and 1 are still out */
        accept(1);
        accept(0);
        assert_int_equal(b.committed[0], 3);
        end();
}

/* ---- batches ------------------------------------------------------------ */

static void a_batch_fills_or_waits(void **state UNUSED)
{
        begin((struct delivery_config){
                .batch_records = 3, .batch_wait = 100 * USEC_MSEC, .max_records = 64 });
        assign(0);
        (void)offer(0, 0, NULL);
        (void)offer(0, 1, NULL);
        assert_int_equal(b.sent_n, 0);
        assert_int_equal(delivery_deadline(b.d), b.now + 100 * USEC_MSEC);
        (void)offer(0, 2, NULL);
        assert_int_equal(b.sent_n, 1);
        assert_int_equal(b.sent[0].n, 3);
        accept(0);
        (void)offer(0, 3, NULL);
        b.now += 100 * USEC_MSEC - 1;
        pull();
        assert_int_equal(b.sent_n, 1);
        b.now++;
        pull();
        assert_int_equal(b.sent_n, 2);
        assert_int_equal(b.sent[1].n, 1);
        end();
}

/* More tracks than the window has room for: a lane that can't get any more is not kept waiting for it. */
static void a_batch_does_not_wait_for_what_has_no_credit(void **state UNUSED)
{
        uint64_t position[TRACKS] = { 0 };
        usec start;

        begin((struct delivery_config){
                .batch_records = 10, .batch_wait = USEC_SEC, .max_in_flight = 1, .max_records = 20 });
        for (uint32_t t = 0; t < TRACKS; t++)
                assign(t);
        start = b.now;
        for (size_t answered = 0; b.records_n < 1000; answered++) {
                for (uint32_t t = 0; t < TRACKS; t++)
                        while (b.credit[t] > 0 && b.bytes[t] > 0)
                                (void)offer(t, position[t]++, NULL);
                assert_true(answered < b.sent_n); /* something is under way, without waiting */
                accept(answered);
        }
        assert_int_equal(b.now, start);
        end();
}

static void a_batch_is_bounded_by_bytes(void **state UNUSED)
{
        begin((struct delivery_config){ .batch_records = 10, .batch_bytes = 100, .max_records = 64 });
        assign(0);
        (void)offer_sized(0, 0, NULL, 500); /* alone it may exceed */
        (void)offer_sized(0, 1, NULL, 60);
        (void)offer_sized(0, 2, NULL, 40);
        (void)offer_sized(0, 3, NULL, 1);
        pull();
        assert_int_equal(b.sent[0].n, 1);
        accept(0);
        assert_int_equal(b.sent[1].n, 2);
        accept(1);
        assert_int_equal(b.sent[2].n, 1);
        end();
}

/* ---- failures ----------------------------------------------------------- */

static void back_off_stays_in_bounds(void **state UNUSED)
{
        usec longest = 0;

        begin((struct delivery_config){ .initial_backoff = USEC_SEC, .max_backoff = 8 * USEC_SEC });
        assign(0);
        (void)offer(0, 0, NULL);
        for (size_t i = 0; i < 200; i++) {
                usec failed_at = b.now, most = i < 3 ? USEC_SEC << i : 8 * USEC_SEC;

                fail_with(i, ANSWER_RETRY, "no");
                assert_int_equal(b.sent_n, i + 1);
                assert_int_equal(b.state, DELIVERY_RETRYING);
                next_deadline();
                assert_int_equal(b.sent_n, i + 2);
                assert_int_equal(b.sent[i + 1].number, i + 2);
                assert_in_range(b.now - failed_at, USEC_MSEC, most);
                longest = MAX_OF(longest, b.now - failed_at);
        }
        assert_true(longest > 7 * USEC_SEC);
        accept(200);
        assert_int_equal(b.state, DELIVERY_IDLE);
        assert_int_equal(b.committed[0], 1);
        end();
}

static void retry_after_is_honoured_and_bounded(void **state UNUSED)
{
        usec failed_at;

        begin((struct delivery_config){ .initial_backoff = USEC_MSEC,
                                        .max_backoff = 2 * USEC_MSEC,
                                        .retry_after_max = 20 * USEC_SEC });
        assign(0);
        (void)offer(0, 0, NULL);
        failed_at = b.now;
        answer_with(0, (struct answer){ .kind = ANSWER_RETRY, .status = 429, .retry_after = 5 * USEC_SEC });
        next_deadline();
        assert_int_equal(b.now - failed_at, 5 * USEC_SEC);
        failed_at = b.now;
        answer_with(1, (struct answer){ .kind = ANSWER_RETRY, .status = 503, .retry_after = USEC_DAY });
        next_deadline();
        assert_int_equal(b.now - failed_at, 20 * USEC_SEC);
        end();
}

static void a_final_answer_blocks(void **state UNUSED)
{
        usec failed_at;

        begin((struct delivery_config){ .initial_backoff = USEC_MSEC, .max_backoff = 60 * USEC_SEC });
        assign(0);
        (void)offer(0, 0, NULL);
        (void)offer(0, 1, NULL);
        for (size_t i = 0; i < 20; i++) {
                failed_at = b.now;
                fail_with(i, ANSWER_FINAL, "400 bad event");
                assert_int_equal(b.state, DELIVERY_BLOCKED);
                assert_string_equal(b.text, "400 bad event");
                next_deadline();
                assert_in_range(b.now - failed_at, 30 * USEC_SEC, 60 * USEC_SEC);
                assert_int_equal(b.sent[i + 1].positions[0], 0);
        }
        accept(20);
        assert_int_equal(b.state, DELIVERY_IDLE);
        assert_int_equal(b.sent[21].positions[0], 1);
        end();
}

static void a_final_answer_drops_when_asked(void **state UNUSED)
{
        begin((struct delivery_config){ .on_exhausted = EXHAUSTED_DROP });
        assign(0);
        (void)offer(0, 0, NULL);
        (void)offer(0, 1, NULL);
        fail_with(0, ANSWER_FINAL, "no");
        assert_int_equal(b.settled[OUTCOME_DROPPED], 1);
        assert_int_equal(b.committed[0], 1);
        assert_int_equal(b.sent[1].positions[0], 1);
        assert_int_equal(b.state, DELIVERY_IDLE);
        end();
}

static void attempts_are_limited(void **state UNUSED)
{
        begin((struct delivery_config){ .on_exhausted = EXHAUSTED_DROP, .max_attempts = 3 });
        assign(0);
        (void)offer(0, 0, NULL);
        fail_with(0, ANSWER_RETRY, "no");
        next_deadline();
        fail_with(1, ANSWER_RETRY, "no");
        assert_int_equal(b.settled[OUTCOME_DROPPED], 0);
        next_deadline();
        fail_with(2, ANSWER_RETRY, "no");
        assert_int_equal(b.settled[OUTCOME_DROPPED], 1);
        assert_int_equal(b.sent_n, 3);
        end();
}

static void age_is_limited(void **state UNUSED)
{
        begin((struct delivery_config){ .on_exhausted = EXHAUSTED_DROP, .max_event_age = 8 * USEC_SEC });
        assign(0);
        (void)offer(0, 0, NULL);
        b.now += 8 * USEC_SEC - 1;
        fail_with(0, ANSWER_RETRY, "no");
        assert_int_equal(b.settled[OUTCOME_DROPPED], 0);
        b.now++; /* the pause ends later, and would only put it off */
        pull();
        assert_int_equal(b.sent_n, 1);
        assert_int_equal(b.settled[OUTCOME_DROPPED], 1);
        end();
}

static void age_counts_through_what_the_sink_asks_for(void **state UNUSED)
{
        begin((struct delivery_config){ .on_exhausted = EXHAUSTED_DEAD_LETTER,
                                        .max_event_age = 3 * USEC_SEC,
                                        .ordering = ORDERING_NONE });
        assign(0);
        (void)offer(0, 0, NULL);
        answer_with(0, (struct answer){ .kind = ANSWER_RETRY,
                                        .status = 503,
                                        .overload = true,
                                        .retry_after = 40 * USEC_SEC,
                                        .text = "busy" });
        (void)offer(0, 1, NULL); /* not sent: the sink is left alone */
        assert_int_equal(b.sent_n, 1);
        b.now += 3 * USEC_SEC - 1;
        pull();
        assert_int_equal(b.sent_n, 1);
        b.now++;
        pull();
        assert_int_equal(b.sent_n, 3);
        assert_true(b.sent[1].dead_letter && b.sent[2].dead_letter);
        assert_int_equal(b.sent[1].number + b.sent[2].number, 1); /* the second was never tried */
        accept(1);
        accept(2);
        assert_int_equal(b.committed[0], 2);
        end();
}

/* An outage: nothing that has become too old waits for the circuit. */
static void a_backlog_that_is_too_old_leaves_at_once(void **state UNUSED)
{
        for (int ordering = ORDERING_PARTITION; ordering <= ORDERING_NONE; ordering++) {
                begin((struct delivery_config){ .on_exhausted = EXHAUSTED_DROP,
                                                .max_event_age = 5 * USEC_SEC,
                                                .ordering = (enum ordering)ordering,
                                                .max_in_flight = 8,
                                                .batch_records = 2 });
                assign(0);
                for (uint64_t i = 0; i < 32; i++)
                        (void)offer(0, i, NULL);
                for (size_t i = 0; i < b.sent_n; i++)
                        answer_with(i, (struct answer){ .kind = ANSWER_RETRY,
                                                        .status = 503,
                                                        .overload = true,
                                                        .retry_after = USEC_MINUTE,
                                                        .text = "busy" });
                b.now += 5 * USEC_SEC;
                pull();
                assert_int_equal(b.settled[OUTCOME_DROPPED], 32);
                end();
        }
}

/* Of a batch only what is old itself is given up for its age. */
static void age_is_each_records_own(void **state UNUSED)
{
        begin((struct delivery_config){ .on_exhausted = EXHAUSTED_DROP,
                                        .max_event_age = 8 * USEC_SEC,
                                        .batch_records = 3,
                                        .batch_wait = 4 * USEC_SEC,
                                        .timeout = USEC_MINUTE });
        assign(0);
        (void)offer(0, 0, NULL);
        (void)offer(0, 1, NULL);
        b.now += 3 * USEC_SEC;
        (void)offer(0, 2, NULL);
        assert_int_equal(b.sent[0].n, 3);
        b.now += 5 * USEC_SEC;
        fail_with(0, ANSWER_RETRY, "no");
        assert_int_equal(b.settled[OUTCOME_DROPPED], 2);
        assert_int_equal(b.outcome_of[2], OUTCOME_MAX);
        assert_int_equal(b.sent_n, 2);
        assert_int_equal(b.sent[1].positions[0], 2);
        end();
}

static void what_is_exhausted_goes_to_the_dead_letter(void **state UNUSED)
{
        begin((struct delivery_config){ .on_exhausted = EXHAUSTED_DEAD_LETTER, .max_attempts = 1 });
        assign(0);
        (void)offer(0, 0, NULL);
        (void)offer(0, 1, NULL);
        fail_with(0, ANSWER_RETRY, "no");
        assert_int_equal(b.sent_n, 2);
        assert_true(b.sent[1].dead_letter);
        assert_int_equal(b.sent[1].positions[0], 0);
        /* The dead letter's own failures, final or not, are retried for ever: the record must not be lost. */
        for (size_t i = 1; i < 6; i++) {
                fail_with(i, i % 2 ? ANSWER_FINAL : ANSWER_RETRY, "dead letter down");
                assert_int_equal(b.state, DELIVERY_BLOCKED);
                assert_int_equal(b.committed[0], 0);
                next_deadline();
                assert_true(b.sent[i + 1].dead_letter);
        }
        accept(6);
        assert_int_equal(b.settled[OUTCOME_DEAD_LETTERED], 1);
        assert_int_equal(b.committed[0], 1);
        assert_false(b.sent[7].dead_letter);
        assert_int_equal(b.sent[7].positions[0], 1);
        end();
}

static void a_late_answer_is_cancelled_and_retried(void **state UNUSED)
{
        begin((struct delivery_config){ .timeout = 2 * USEC_SEC });
        assign(0);
        (void)offer(0, 0, NULL);
        b.now += 2 * USEC_SEC - 1;
        pull();
        assert_int_equal(b.cancelled_n, 0);
        assert_int_equal(delivery_deadline(b.d), b.now + 1);
        b.now++;
        pull();
        assert_int_equal(b.cancelled_n, 1);
        assert_int_equal(b.cancelled[0], b.sent[0].ticket);
        assert_string_equal(b.text, "no answer within 2000 ms");
        accept(0); /* stale: it counts for nothing */
        assert_int_equal(b.settled[OUTCOME_ACCEPTED], 0);
        next_deadline();
        assert_int_equal(b.sent_n, 2);
        assert_int_not_equal(b.sent[1].ticket, b.sent[0].ticket);
        accept(0); /* the slot is in use again, by another attempt */
        assert_int_equal(b.settled[OUTCOME_ACCEPTED], 0);
        accept(1);
        accept(1); /* twice */
        assert_int_equal(b.settled[OUTCOME_ACCEPTED], 1);
        delivery_answer(b.d, UINT32_MAX, &(struct answer){ .kind = ANSWER_ACCEPTED }, b.now);
        end();
}

static void what_waits_is_detached_once(void **state UNUSED)
{
        begin((struct delivery_config){ .batch_records = 3 });
        assign(0);
        for (uint64_t i = 0; i < 3; i++)
                (void)offer_sized(0, i, NULL, 1);
        pull();
        assert_int_equal(b.sent[0].n, 3);
        fail_with(0, ANSWER_RETRY, "no");
        assert_int_equal(b.detached, 3);
        next_deadline();
        fail_with(1, ANSWER_RETRY, "no");
        assert_int_equal(b.detached, 3);
        end();
}

/* A batch that is revoked while its records are being detached. */
static void revoked_between_two_detachments(void **state UNUSED)
{
        struct action a;

        begin((struct delivery_config){ .batch_records = 3 });
        assign(0);
        for (uint64_t i = 0; i < 3; i++)
                (void)offer_sized(0, i, NULL, 1);
        pull();
        delivery_answer(b.d, b.sent[0].ticket, &(struct answer){ .kind = ANSWER_RETRY }, b.now);
        assert_true(delivery_next(b.d, b.now, &a));
        assert_int_equal(a.kind, ACTION_DETACH);
        delivery_revoke(b.d, 0, b.now + USEC_SEC);
        pull();
        assert_int_equal(b.detached, 0);
        assert_int_equal(b.settled[OUTCOME_RELEASED], 3);
        assert_true(b.revoked[0]);
        end();
}

/* ---- commits ------------------------------------------------------------ */

static void commits_come_by_count(void **state UNUSED)
{
        begin((struct delivery_config){ .commit_count = 3, .commit_interval = USEC_HOUR });
        assign(0);
        for (uint64_t i = 0; i < 7; i++) {
                (void)offer(0, i, NULL);
                accept(i);
                assert_int_equal(b.commits[0], (i + 1) / 3);
                assert_int_equal(b.committed[0], (i + 1) / 3 * 3);
        }
        end();
}

static void commits_come_by_interval(void **state UNUSED)
{
        usec first;

        begin((struct delivery_config){ .commit_count = 1000, .commit_interval = 5 * USEC_SEC });
        assign(0);
        (void)offer(0, 0, NULL);
        accept(0);
        first = b.now;
        b.now += 3 * USEC_SEC;
        (void)offer(0, 1, NULL);
        accept(1);
        assert_int_equal(b.commits[0], 0);
        next_deadline();
        assert_int_equal(b.now, first + 5 * USEC_SEC); /* since the first, not the last */
        assert_int_equal(b.commits[0], 1);
        assert_int_equal(b.committed[0], 2);
        assert_true(delivery_deadline(b.d) == USEC_NEVER);
        end();
}

static void a_commit_takes_others_along(void **state UNUSED)
{
        begin((struct delivery_config){ .commit_count = 4, .commit_interval = USEC_SEC });
        for (uint32_t track = 0; track < 4; track++) {
                assign(track);
                for (uint64_t i = 0; i <= track; i++) { /* 1 of the first to 4 of the last */
                        (void)offer(track, i, NULL);
                        accept(b.sent_n - 1);
                }
        }
        assert_int_equal(b.commits[0], 0);
        assert_int_equal(b.commits[1], 1);
        assert_int_equal(b.commits[2], 1);
        assert_int_equal(b.commits[3], 1);
        assert_int_equal(b.committed[1], 2);
        (void)offer(2, 3, NULL);
        accept(b.sent_n - 1);
        next_deadline(); /* the first track's; the third one's would be later */
        assert_int_equal(b.committed[0], 1);
        assert_int_equal(b.committed[2], 4);
        assert_true(delivery_deadline(b.d) == USEC_NEVER);
        end();
}

static void without_an_interval_commits_come_at_once(void **state UNUSED)
{
        begin((struct delivery_config){ .commit_count = 1000, .commit_interval = 0 });
        assign(0);
        (void)offer(0, 41, NULL);
        accept(0);
        assert_int_equal(b.committed[0], 42);
        end();
}

/* ---- revoking ----------------------------------------------------------- */

static void what_is_in_flight_may_finish(void **state UNUSED)
{
        begin((struct delivery_config){ .commit_count = 1000, .commit_interval = USEC_HOUR });
        assign(0);
        (void)offer(0, 0, NULL);
        (void)offer(0, 1, NULL);
        delivery_revoke(b.d, 0, b.now + 3 * USEC_SEC);
        pull();
        assert_int_equal(b.settled[OUTCOME_RELEASED], 1); /* what was not sent */
        assert_false(b.revoked[0]);
        assert_int_equal(b.sent_n, 1);
        b.now += USEC_SEC;
        accept(0);
        assert_int_equal(b.committed[0], 1); /* at once, whatever the interval */
        assert_true(b.revoked[0]);
        assert_int_equal(b.cancelled_n, 0);
        assert_int_equal(b.sent_n, 1);
        end();
}

static void grace_ends(void **state UNUSED)
{
        begin((struct delivery_config){ 0 });
        assign(0);
        (void)offer(0, 0, NULL);
        delivery_revoke(b.d, 0, b.now + 3 * USEC_SEC);
        pull();
        next_deadline();
        assert_int_equal(b.now, b.sent[0].at + 3 * USEC_SEC);
        assert_int_equal(b.cancelled_n, 1);
        assert_int_equal(b.settled[OUTCOME_RELEASED], 1);
        assert_int_equal(b.committed[0], 0);
        assert_true(b.revoked[0]);
        accept(0); /* too late */
        assert_int_equal(b.settled[OUTCOME_ACCEPTED], 0);
        end();
}

static void a_failure_in_grace_releases(void **state UNUSED)
{
        begin((struct delivery_config){ .on_exhausted = EXHAUSTED_DROP, .max_attempts = 1 });
        assign(0);
        (void)offer(0, 0, NULL);
        delivery_revoke(b.d, 0, b.now + 3 * USEC_SEC);
        pull();
        fail_with(0, ANSWER_RETRY, "no");
        assert_int_equal(b.settled[OUTCOME_RELEASED], 1);
        assert_int_equal(b.committed[0], 0);
        assert_true(b.revoked[0]);
        end();
}

static void lost_commits_nothing(void **state UNUSED)
{
        begin((struct delivery_config){
                .ordering = ORDERING_NONE, .commit_count = 1000, .commit_interval = USEC_HOUR });
        assign(0);
        (void)offer(0, 0, NULL);
        (void)offer(0, 1, NULL);
        accept(0);
        delivery_revoke(b.d, 0, 0);
        pull();
        assert_int_equal(b.commits[0], 0);
        assert_int_equal(b.cancelled_n, 1);
        assert_true(b.revoked[0]);
        assert_int_equal(b.settled[OUTCOME_RELEASED], 1);
        assert_true(delivery_deadline(b.d) == USEC_NEVER);
        end();
}

/* Whoever sends borrows the records until it hears that the attempt is over. */
static void a_cancelled_attempt_ends_before_its_records(void **state UNUSED)
{
        struct action a;

        begin((struct delivery_config){ 0 });
        assign(0);
        (void)offer(0, 0, NULL);
        delivery_revoke(b.d, 0, 0);
        assert_true(delivery_next(b.d, b.now, &a));
        assert_int_equal(a.kind, ACTION_CANCEL);
        take_action(&a);
        assert_true(delivery_next(b.d, b.now, &a));
        assert_int_equal(a.kind, ACTION_SETTLE);
        take_action(&a);
        end();
}

/* The loss may be heard of before the last commit was pulled. */
static void what_is_lost_after_its_end_commits_nothing(void **state UNUSED)
{
        begin((struct delivery_config){ .commit_count = 1000, .commit_interval = USEC_HOUR });
        assign(0);
        (void)offer(0, 0, NULL);
        accept(0);
        delivery_revoke(b.d, 0, b.now + USEC_SEC);
        delivery_revoke(b.d, 0, 0);
        pull();
        assert_true(b.revoked[0]);
        assert_int_equal(b.commits[0], 0);
        end();
}

static void grace_may_be_cut_short_by_loss(void **state UNUSED)
{
        begin((struct delivery_config){ .ordering = ORDERING_NONE });
        assign(0);
        (void)offer(0, 0, NULL);
        (void)offer(0, 1, NULL);
        delivery_revoke(b.d, 0, b.now + USEC_HOUR);
        pull();
        accept(0);
        assert_int_equal(b.committed[0], 1);
        delivery_revoke(b.d, 0, 0);
        pull();
        assert_true(b.revoked[0]);
        assert_int_equal(b.committed[0], 1);
        end();
}

static void a_record_of_a_strange_track_comes_back(void **state UNUSED)
{
        begin((struct delivery_config){ 0 });
        (void)offer(5, 0, NULL);
        assert_int_equal(b.settled[OUTCOME_RELEASED], 1);
        assert_int_equal(b.sent_n, 0);
        assign(5);
        delivery_revoke(b.d, 5, b.now + USEC_SEC);
        (void)offer(5, 0, NULL);
        assert_int_equal(b.settled[OUTCOME_RELEASED], 2);
        assert_true(b.revoked[5]);
        end();
}

static void a_track_comes_again_afresh(void **state UNUSED)
{
        struct error err;

        begin((struct delivery_config){ 0 });
        assign(0);
        assert_int_equal(delivery_assign(b.d, 0, b.now, &err), -1);
        (void)offer(0, 100, NULL);
        accept(0);
        assert_int_equal(b.committed[0], 101);
        delivery_revoke(b.d, 0, b.now + USEC_SEC);
        pull();
        assert_true(b.revoked[0]);
        b.revoked[0] = false;
        b.committed[0] = 0;
        assign(0);
        (void)offer(0, 50, NULL); /* read again from an older commit */
        accept(1);
        assert_int_equal(b.committed[0], 51);
        end();
}

static void a_blocked_track_ends_too(void **state UNUSED)
{
        begin((struct delivery_config){ 0 });
        assign(0);
        (void)offer(0, 0, NULL);
        fail_with(0, ANSWER_FINAL, "no");
        assert_int_equal(b.state, DELIVERY_BLOCKED);
        delivery_revoke(b.d, 0, b.now + USEC_SEC);
        pull();
        assert_true(b.revoked[0]);
        assert_int_equal(b.state, DELIVERY_IDLE);
        assert_true(delivery_deadline(b.d) == USEC_NEVER);
        end();
}

/* ---- credit ------------------------------------------------------------- */

/* The source lends all it may at once; bounds are checked after each action. */
static void credit_never_exceeds(void **state UNUSED)
{
        for (uint64_t seed = 0; seed < 40; seed++) {
                struct random r;
                uint64_t next[TRACKS] = { 0 };
                size_t answered = 0;

                random_init(&r, seed);
                begin((struct delivery_config){ .ordering = (enum ordering)random_below(&r, 3),
                                                .max_records = 1 + (uint32_t)random_below(&r, 40),
                                                .max_bytes = 200 + random_below(&r, 3000),
                                                .batch_records = 1 + (uint32_t)random_below(&r, 4) });
                for (uint32_t t = 0; t < TRACKS; t++)
                        assign(t);
                while (b.records_n < 1500) {
                        bool any = false;

                        for (uint32_t t = 0; t < TRACKS; t++)
                                while (b.credit[t] > 0 && b.bytes[t] > 0 && random_below(&r, 8)) {
                                        struct delivery_stats s;
                                        int64_t lent;

                                        (void)offer_sized(t, next[t]++, "k",
                                                          1 + (uint32_t)random_below(&r, 100));
                                        delivery_stats(b.d, &s);
                                        lent = (int64_t)s.held_bytes;
                                        assert_true(lent <= (int64_t)b.config.max_bytes + 100 * TRACKS);
                                        any = true;
                                }
                        pull();
                        if (answered < b.sent_n && (!any || random_below(&r, 2))) {
                                if (random_below(&r, 5))
                                        accept(answered++);
                                else
                                        fail_with(answered++, ANSWER_RETRY, "no");
                        } else if (!any && delivery_deadline(b.d) != USEC_NEVER)
                                next_deadline();
                }
                end();
        }
}

static void a_stuck_track_leaves_credit_to_others(void **state UNUSED)
{
        begin((struct delivery_config){ .max_records = 16, .max_in_flight = 8 });
        assign(0);
        assign(1);
        for (uint64_t i = 0; b.credit[0] > 0 && i < 100; i++)
                (void)offer(0, i, NULL);
        assert_int_equal(b.credit[0], 0); /* nothing of it is answered */
        for (uint64_t i = 0; i < 200; i++) {
                assert_true(b.credit[1] > 0);
                (void)offer(1, i, NULL);
                accept(b.sent_n - 1);
        }
        assert_int_equal(b.committed[1], 200);
        end();
}

/* ---- parts of a batch --------------------------------------------------- */

static void fail_some(size_t which, const uint32_t *failed, size_t n)
{
        answer_with(which, (struct answer){ .kind = ANSWER_PARTIAL,
                                            .status = 200,
                                            .text = "some failed",
                                            .failed = failed,
                                            .failed_n = n });
}

static void in_order_all_from_the_first_failure_is_sent_again(void **state UNUSED)
{
        begin((struct delivery_config){ .batch_records = 8 });
        assign(0);
        offer_all(8);
        assert_int_equal(b.sent_n, 1);
        fail_some(0, (const uint32_t[]){ 3, 6 }, 2);
        assert_int_equal(b.settled[OUTCOME_ACCEPTED], 3);
        assert_int_equal(b.committed[0], 3);
        next_deadline();
        assert_int_equal(b.sent[1].n, 5);
        assert_int_equal(b.sent[1].positions[0], 3);
        accept(1);
        assert_int_equal(b.committed[0], 8);
        end();
}

static void without_order_only_the_failed_are_sent_again(void **state UNUSED)
{
        begin((struct delivery_config){ .ordering = ORDERING_NONE, .batch_records = 8 });
        assign(0);
        offer_all(8);
        fail_some(0, (const uint32_t[]){ 0, 3, 7 }, 3);
        assert_int_equal(b.settled[OUTCOME_ACCEPTED], 5);
        assert_int_equal(b.committed[0], 0);
        next_deadline();
        assert_int_equal(b.sent[1].n, 3);
        assert_int_equal(b.sent[1].positions[0], 0);
        assert_int_equal(b.sent[1].positions[1], 3);
        assert_int_equal(b.sent[1].positions[2], 7);
        accept(1);
        assert_int_equal(b.committed[0], 8);
        end();
}

static void only_the_named_record_is_given_up(void **state UNUSED)
{
        begin((struct delivery_config){
                .batch_records = 4, .max_attempts = 2, .on_exhausted = EXHAUSTED_DROP });
        assign(0);
        offer_all(4);
        fail_some(0, (const uint32_t[]){ 1 }, 1);
        next_deadline();
        fail_some(1, (const uint32_t[]){ 0 }, 1);
        assert_int_equal(b.settled[OUTCOME_DROPPED], 1);
        assert_int_equal(b.outcome_of[1], OUTCOME_DROPPED);
        assert_int_equal(b.sent_n, 3);
        assert_int_equal(b.sent[2].positions[0], 2);
        accept(2);
        assert_int_equal(b.committed[0], 4);
        end();
}

/* The function fails on batches that hold the poison; how many requests until it is alone? */
/* Such an answer blames nobody: the first record must not pay for it alone. */
static void a_partial_answer_that_names_none_fails_all(void **state UNUSED)
{
        const uint32_t beyond[] = { 2 };

        for (size_t n = 0; n < 2; n++) {
                begin((struct delivery_config){ .batch_records = 2,
                                                .max_attempts = 1,
                                                .on_exhausted = EXHAUSTED_DROP,
                                                .bisect = true });
                assign(0);
                offer_all(2);
                fail_some(0, beyond, n);
                assert_int_equal(b.settled[OUTCOME_DROPPED], 0);
                next_deadline();
                assert_int_equal(b.sent[1].n, 1); /* halved */
                end();
        }
}

static void a_poison_record_is_found_by_halving(void **state UNUSED)
{
        for (uint64_t poison = 0; poison < 32; poison++)
                for (int final = 0; final < 2; final++) {
                        size_t at = 0;

                        begin((struct delivery_config){ .batch_records = 32,
                                                        .bisect = true,
                                                        .max_attempts = 1,
                                                        .on_exhausted = EXHAUSTED_DEAD_LETTER });
                        assign(0);
                        offer_all(32);
                        while (!b.sent[b.sent_n - 1].dead_letter) {
                                const struct sent *s = &b.sent[at];

                                assert_int_equal(at + 1, b.sent_n);
                                if (s->positions[0] <= poison && s->positions[s->n - 1] >= poison)
                                        answer_with(at, (struct answer){ .kind = final ? ANSWER_FINAL
                                                                                       : ANSWER_RETRY,
                                                                         .status = final ? 400 : 500,
                                                                         .text = "poison" });
                                else
                                        accept(at);
                                at++;
                                if (at == b.sent_n)
                                        next_deadline();
                        }
                        assert_int_equal(b.sent[at].n, 1);
                        assert_int_equal(b.sent[at].positions[0], poison);
                        /* the batch, five halves, and the record alone after its half succeeded */
                        assert_true(at <= 1 + 5 + 1);
                        accept(at);
                        if (poison < 31) {
                                assert_int_equal(b.sent[at + 1].positions[0], poison + 1);
                                while (++at < b.sent_n)
                                        accept(at);
                        }
                        assert_int_equal(b.committed[0], 32);
                        assert_int_equal(b.settled[OUTCOME_DEAD_LETTERED], 1);
                        end();
                }
}

static void an_overloaded_sink_halves_no_batch(void **state UNUSED)
{
        begin((struct delivery_config){ .batch_records = 8, .bisect = true });
        assign(0);
        offer_all(8);
        answer_with(0,
                    (struct answer){ .kind = ANSWER_RETRY, .status = 503, .overload = true, .text = "busy" });
        next_deadline();
        assert_int_equal(b.sent[1].n, 8);
        end();
}

static void what_is_too_large_goes_in_parts(void **state UNUSED)
{
        begin((struct delivery_config){ .batch_records = 8 });
        assign(0);
        offer_all(8);
        answer_with(0, (struct answer){ .kind = ANSWER_TOO_LARGE, .text = "too large" });
        assert_int_equal(b.sent[1].n, 4);
        assert_int_equal(b.sent[1].number, 1);
        accept(1);
        assert_int_equal(b.sent[2].n, 4);
        accept(2);
        assert_int_equal(b.committed[0], 8);
        end();
}

/* A partial answer leaves no more to send than fits, or each 413 would forget the attempts that were made. */
static void what_fits_is_known_after_a_partial_answer(void **state UNUSED)
{
        const uint32_t first[] = { 0 };

        begin((struct delivery_config){
                .batch_records = 4, .max_attempts = 2, .on_exhausted = EXHAUSTED_DROP });
        assign(0);
        offer_all(4);
        fail_with(0, ANSWER_TOO_LARGE, "413");
        assert_int_equal(b.sent[1].n, 2);
        fail_some(1, first, 1);
        next_deadline();
        assert_int_equal(b.sent[2].n, 2);
        assert_int_equal(b.sent[2].number, 2);
        fail_some(2, first, 1);
        assert_int_equal(b.settled[OUTCOME_DROPPED], 1);
        end();
}

/* What blocks may be accepted by a partial answer while the rest is only retried. */
static void a_partial_answer_may_unblock(void **state UNUSED)
{
        const uint32_t second[] = { 1 };

        begin((struct delivery_config){ .batch_records = 2 });
        assign(0);
        offer_all(2);
        fail_with(0, ANSWER_FINAL, "400");
        assert_int_equal(b.state, DELIVERY_BLOCKED);
        next_deadline();
        fail_some(1, second, 1);
        assert_int_equal(b.state, DELIVERY_RETRYING);
        end();
}

static void a_single_record_too_large_is_final(void **state UNUSED)
{
        begin((struct delivery_config){ .on_exhausted = EXHAUSTED_DROP });
        assign(0);
        offer_all(1);
        answer_with(0, (struct answer){ .kind = ANSWER_TOO_LARGE, .status = 413, .text = "too large" });
        assert_int_equal(b.settled[OUTCOME_DROPPED], 1);
        end();
}

static void dead_letters_go_one_by_one_and_say_why(void **state UNUSED)
{
        struct action a;
        size_t dead = 0;

        begin((struct delivery_config){
                .batch_records = 3, .max_attempts = 2, .on_exhausted = EXHAUSTED_DEAD_LETTER });
        assign(0);
        offer_all(5);
        fail_with(0, ANSWER_RETRY, "first");
        next_deadline();
        delivery_answer(
                b.d, b.sent[1].ticket,
                &(struct answer){
                        .kind = ANSWER_FINAL, .status = 422, .text = "no good", .body = STR("{\"why\":1}") },
                b.now);
        while (delivery_next(b.d, b.now, &a)) {
                take_action(&a);
                if (a.kind != ACTION_DEAD_LETTER)
                        continue;
                assert_int_equal(a.n, 1);
                assert_int_equal(a.records[0]->position, dead++);
                assert_int_equal(a.number, 2);
                assert_int_equal(a.status, 422);
                assert_true(str_equal(a.reason, STR("no good")));
                assert_true(str_equal(a.body, STR("{\"why\":1}")));
                delivery_answer(b.d, a.attempt, &(struct answer){ .kind = ANSWER_ACCEPTED, .status = 202 },
                                b.now);
        }
        assert_int_equal(dead, 3);
        assert_int_equal(b.settled[OUTCOME_DEAD_LETTERED], 3);
        assert_int_equal(b.committed[0], 3);
        assert_false(b.sent[b.sent_n - 1].dead_letter);
        assert_int_equal(b.sent[b.sent_n - 1].positions[0], 3);
        end();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_partition_is_delivered_one_by_one),
                cmocka_unit_test(a_key_is_delivered_one_by_one),
                cmocka_unit_test(without_order_all_go_at_once),
                cmocka_unit_test(a_batch_fills_or_waits),
                cmocka_unit_test(a_batch_does_not_wait_for_what_has_no_credit),
                cmocka_unit_test(a_batch_is_bounded_by_bytes),
                cmocka_unit_test(back_off_stays_in_bounds),
                cmocka_unit_test(retry_after_is_honoured_and_bounded),
                cmocka_unit_test(a_final_answer_blocks),
                cmocka_unit_test(a_final_answer_drops_when_asked),
                cmocka_unit_test(attempts_are_limited),
                cmocka_unit_test(age_is_limited),
                cmocka_unit_test(age_counts_through_what_the_sink_asks_for),
                cmocka_unit_test(a_backlog_that_is_too_old_leaves_at_once),
                cmocka_unit_test(age_is_each_records_own),
                cmocka_unit_test(what_is_exhausted_goes_to_the_dead_letter),
                cmocka_unit_test(a_late_answer_is_cancelled_and_retried),
                cmocka_unit_test(what_waits_is_detached_once),
                cmocka_unit_test(revoked_between_two_detachments),
                cmocka_unit_test(commits_come_by_count),
                cmocka_unit_test(commits_come_by_interval),
                cmocka_unit_test(a_commit_takes_others_along),
                cmocka_unit_test(without_an_interval_commits_come_at_once),
                cmocka_unit_test(what_is_in_flight_may_finish),
                cmocka_unit_test(grace_ends),
                cmocka_unit_test(a_failure_in_grace_releases),
                cmocka_unit_test(lost_commits_nothing),
                cmocka_unit_test(a_cancelled_attempt_ends_before_its_records),
                cmocka_unit_test(what_is_lost_after_its_end_commits_nothing),
                cmocka_unit_test(grace_may_be_cut_short_by_loss),
                cmocka_unit_test(a_record_of_a_strange_track_comes_back),
                cmocka_unit_test(a_track_comes_again_afresh),
                cmocka_unit_test(a_blocked_track_ends_too),
                cmocka_unit_test(credit_never_exceeds),
                cmocka_unit_test(a_stuck_track_leaves_credit_to_others),
                cmocka_unit_test(in_order_all_from_the_first_failure_is_sent_again),
                cmocka_unit_test(without_order_only_the_failed_are_sent_again),
                cmocka_unit_test(only_the_named_record_is_given_up),
                cmocka_unit_test(a_partial_answer_that_names_none_fails_all),
                cmocka_unit_test(a_poison_record_is_found_by_halving),
                cmocka_unit_test(an_overloaded_sink_halves_no_batch),
                cmocka_unit_test(what_is_too_large_goes_in_parts),
                cmocka_unit_test(what_fits_is_known_after_a_partial_answer),
                cmocka_unit_test(a_partial_answer_may_unblock),
                cmocka_unit_test(a_single_record_too_large_is_final),
                cmocka_unit_test(dead_letters_go_one_by_one_and_say_why),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
