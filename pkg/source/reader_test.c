#include "source/reader.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "source/page.h"

/* ---- a reader, by hand -------------------------------------------------- */

static struct reader *reader;
static struct reader_config config;
static usec now;
static struct record *lent[64];
static size_t lent_n;
static struct pull_event last; /* the last event other than a record */
static char text[256];

static void begin(void)
{
        struct error err;

        now = USEC_SEC;
        lent_n = 0;
        if (!config.page_bytes)
                config.page_bytes = 1 << 16;
        config.poll_min = config.poll_min ? config.poll_min : USEC_SEC;
        config.poll_max = config.poll_max ? config.poll_max : 4 * USEC_SEC;
        config.backoff_min = 100 * USEC_MSEC;
        config.backoff_max = 10 * USEC_SEC;
        assert_int_equal(reader_new(&reader, &config, 1, &err), 0);
}

static int setup(void **state)
{
        (void)state;
        config = (struct reader_config){ 0 };
        return 0;
}

static int teardown(void **state)
{
        (void)state;
        for (size_t i = 0; i < lent_n; i++)
                if (lent[i])
                        reader_release(reader, lent[i]);
        lent_n = 0;
        reader = reader_free(reader);
        return 0;
}

static uint32_t add(const char *name)
{
        struct error err;
        uint32_t track;

        assert_int_equal(reader_add(reader, str_of(name), &config, &track, &err), 0);
        return track;
}

/* Takes all events; returns their kinds as bits. */
static unsigned poll(void)
{
        struct pull_event events[16];
        unsigned kinds = 0;
        size_t n;

        while ((n = reader_poll(reader, events, COUNT_OF(events), now)) > 0)
                for (size_t i = 0; i < n; i++) {
                        kinds |= 1u << events[i].kind;
                        if (events[i].kind == PULL_RECORD) {
                                lent[lent_n++] = events[i].record;
                                continue;
                        }
                        last = events[i];
                        if (events[i].text)
                                (void)snprintf(text, sizeof(text), "%s", events[i].text);
                }
        return kinds;
}

static bool next(struct reader_job *job) { return reader_next(reader, now, job); }

static struct reader_job expect_job(enum reader_job_kind kind)
{
        struct reader_job job;

        assert_true(next(&job));
        assert_string_equal(reader_job_name(job.kind), reader_job_name(kind));
        return job;
}

static void expect_none(void)
{
        struct reader_job job;

        assert_false(next(&job));
}

/* Adds a track, opens it and gives it credit. */
static uint32_t opened(const char *name)
{
        uint32_t track = add(name);

        expect_none();
        assert_true(poll() & 1u << PULL_ASSIGNED);
        reader_credit(reader, track, 10, 1 << 20);
        return track;
}

static struct record *put(struct page *p, const char *id, const char *mark)
{
        struct record *r = page_record(p, str_of(id), str_of(mark));
        char *value;

        if (!r)
                return NULL;
        value = page_bytes(p, 1000);
        assert_non_null(value);
        memset(value, 'x', 1000);
        r->value = (struct str){ value, 1000 };
        return r;
}

/* Fetches a page of n records r1, r2, … with the marks m1, m2, … */
static void fetch(struct reader_job *job, int n)
{
        for (int i = 1; i <= n; i++) {
                char id[16], mark[16];

                (void)snprintf(id, sizeof(id), "r%d", i);
                (void)snprintf(mark, sizeof(mark), "m%d", i);
                assert_non_null(put(job->page, id, mark));
        }
        reader_done(reader, job, STR(""), now);
}

static void release(size_t i)
{
        reader_release(reader, lent[i]);
        lent[i] = NULL;
}

static void assert_str(struct str s, const char *expected)
{
        assert_int_equal(s.n, strlen(expected));
        assert_memory_equal(s.p, expected, s.n);
}

/* ---- reading and saving ------------------------------------------------- */

static void test_saves_the_mark_of_the_lowest_unfinished(void **state)
{
        struct reader_job job;
        uint32_t track;

        (void)state;
        begin();
        track = opened("a");
        job = expect_job(READER_FETCH);
        assert_ptr_equal(job.own, &config);
        assert_str(job.name, "a");
        assert_int_equal(job.records, 10);
        fetch(&job, 3);
        (void)poll();
        assert_int_equal(lent_n, 3);
        assert_int_equal(lent[0]->position, 1);
        assert_int_equal(lent[2]->position, 3);
        job = expect_job(READER_FETCH); /* nothing is left unread, and there is credit */
        assert_str(job.mark, "m3");
        assert_int_equal(job.records, 7);
        release(1);
        expect_none();
        release(0);
        reader_commit(reader, track, 3);
        job = expect_job(READER_SAVE);
        assert_str(job.mark, "m2");
        assert_str(job.state, "m2");
        reader_done(reader, &job, STR(""), now);
        expect_none();
}

static void test_pages_are_freed_when_released_and_saved(void **state)
{
        struct reader_job job, other;
        struct reader_stats stats;
        uint32_t track;

        (void)state;
        begin();
        track = opened("a");
        job = expect_job(READER_FETCH);
        fetch(&job, 3);
        (void)poll();
        other = expect_job(READER_FETCH);
        reader_stats(reader, &stats);
        assert_true(stats.page_bytes > 3000);
        release(0);
        release(1);
        assert_true(reader_detach(reader, lent[2])); /* the body goes, though a record is out */
        reader_stats(reader, &stats);
        assert_true(stats.page_bytes > 0 && stats.page_bytes < 4096);
        assert_int_equal(lent[2]->value.p[999], 'x');
        release(2);
        reader_commit(reader, track, 4);
        reader_stats(reader, &stats);
        assert_true(stats.page_bytes > 0); /* the marks are not saved yet */
        job = expect_job(READER_SAVE);
        reader_done(reader, &job, STR(""), now);
        reader_stats(reader, &stats);
        assert_int_equal(stats.page_bytes, 0);
        assert_int_equal(stats.out, 0);
        reader_done(reader, &other, STR(""), now);
}

static void test_a_page_that_is_too_large_fails(void **state)
{
        struct reader_job job;

        (void)state;
        config.page_bytes = 1000;
        begin();
        (void)opened("a");
        job = expect_job(READER_FETCH);
        assert_non_null(page_record(job.page, STR("r1"), STR("m1")));
        assert_null(page_bytes(job.page, 5000));
        assert_true(page_failed(job.page));
        assert_null(page_record(job.page, STR("r2"), STR("m2")));
        reader_done(reader, &job, STR("m2"), now);
        assert_int_equal(poll(), 1u << PULL_STATE);
        assert_int_equal(last.state, SOURCE_FAILED);
        assert_string_equal(text, "a response takes more than 4000 bytes: ask for fewer at once");
        expect_none();
        now += 10 * USEC_SEC;
        job = expect_job(READER_FETCH);
        assert_int_equal(job.mark.n, 0);
        reader_done(reader, &job, STR(""), now);
        assert_int_equal(poll(), 1u << PULL_STATE);
        assert_int_equal(last.state, SOURCE_CONNECTED);
}

static void test_pauses_grow_while_idle(void **state)
{
        static const usec pauses[] = { 1, 2, 4, 4 };
        struct reader_job job;

        (void)state;
        begin();
        (void)opened("a");
        for (size_t i = 0; i < COUNT_OF(pauses); i++) {
                job = expect_job(READER_FETCH);
                reader_done(reader, &job, STR(""), now);
                expect_none();
                assert_int_equal(poll() & ~(1u << PULL_STATE), 0);
                assert_int_equal(reader_deadline(reader), now + pauses[i] * USEC_SEC);
                now = reader_deadline(reader);
        }
        job = expect_job(READER_FETCH);
        fetch(&job, 1);
        (void)poll();
        job = expect_job(READER_FETCH); /* at once */
        reader_done(reader, &job, STR(""), now);
        expect_none();
        assert_int_equal(reader_deadline(reader), now + USEC_SEC);
}

static void test_hands_of_one_queue_ask_no_more_often_than_one(void **state)
{
        struct reader_job job;

        (void)state;
        config.shared = true;
        begin();
        for (int i = 0; i < 5; i++)
                (void)add((const char *[]){ "a", "b", "c", "d", "e" }[i]);
        expect_none();
        (void)poll();
        for (uint32_t i = 0; i < 5; i++)
                reader_credit(reader, i, 10, 1 << 20);
        for (int asked = 0; asked < 4; asked++) {
                job = expect_job(READER_FETCH);
                expect_none();
                reader_done(reader, &job, STR(""), now);
                expect_none();
                (void)poll();
                assert_int_equal(reader_deadline(reader), now + MIN_OF(USEC_SEC << asked, 4 * USEC_SEC));
                now = reader_deadline(reader);
        }
        job = expect_job(READER_FETCH);
        fetch(&job, 2);
        job = expect_job(READER_FETCH); /* there may be more: another hand takes it at once */
        reader_done(reader, &job, STR(""), now);
}

static void test_a_peer_that_asks_for_a_pause_gets_it(void **state)
{
        struct error err;
        struct reader_job job;
        uint32_t track;

        (void)state;
        begin();
        track = opened("a");
        job = expect_job(READER_FETCH);
        (void)error_set(&err, ERROR_REFUSED, "429 DIS.4303: too fast");
        err.retry = true;
        err.retry_after = 7 * USEC_SEC;
        reader_failed(reader, &job, &err, now);
        reader_hurry(reader, track);
        expect_none();
        (void)poll();
        assert_int_equal(last.state, SOURCE_DISCONNECTED);
        assert_string_equal(text, "429 DIS.4303: too fast");
        assert_int_equal(reader_deadline(reader), now + 7 * USEC_SEC);
        now += 7 * USEC_SEC;
        job = expect_job(READER_FETCH);
        err.retry_after = USEC_DAY;
        reader_failed(reader, &job, &err, now);
        expect_none();
        (void)poll();
        assert_int_equal(reader_deadline(reader), now + USEC_HOUR); /* nobody stops it for a day */
}

static void test_a_cause_that_may_be_mended_is_tried_at_once(void **state)
{
        struct error err;
        struct reader_job job, save;
        uint32_t track;

        (void)state;
        begin();
        track = opened("a");
        job = expect_job(READER_FETCH);
        fetch(&job, 1);
        (void)poll();
        job = expect_job(READER_FETCH);
        reader_done(reader, &job, STR(""), now);
        release(0);
        reader_commit(reader, track, 2);
        save = expect_job(READER_SAVE);
        expect_none(); /* the pause after an empty page */
        reader_retry(reader);
        expect_none();
        (void)error_set(&err, ERROR_REFUSED, "401 APIGW.0301: Incorrect IAM authentication information");
        reader_failed(reader, &save, &err, now);
        expect_none();
        reader_retry(reader);
        save = expect_job(READER_SAVE);
        reader_done(reader, &save, STR(""), now);
        now += USEC_SEC;
        job = expect_job(READER_FETCH);
        reader_failed(reader, &job, &err, now);
        expect_none();
        reader_retry(reader);
        job = expect_job(READER_FETCH);
        err.retry_after = 7 * USEC_SEC; /* the peer's wish holds */
        reader_failed(reader, &job, &err, now);
        reader_retry(reader);
        expect_none();
}

/* ---- ids that are remembered -------------------------------------------- */

static void test_ids_come_back_with_the_state(void **state)
{
        struct reader_job job;
        char saved[64];
        uint32_t track;

        (void)state;
        config.remember = 2;
        begin();
        track = opened("a");
        job = expect_job(READER_FETCH);
        assert_non_null(put(job.page, "r1", "m1"));
        assert_null(put(job.page, "r1", "m1"));
        assert_non_null(put(job.page, "r2", "m2"));
        assert_non_null(put(job.page, "r3", "m3"));
        reader_done(reader, &job, STR("m3"), now);
        (void)poll();
        for (size_t i = 0; i < 3; i++)
                release(i);
        reader_commit(reader, track, 4);
        job = expect_job(READER_SAVE);
        assert_str(job.mark, "m3");
        assert_str(job.state, "2:m32:r22:r3");
        (void)snprintf(saved, sizeof(saved), STR_FMT, STR_ARG(job.state));
        lent_n = 0;
        reader = reader_free(reader);

        config.loads = true;
        begin();
        track = add("a");
        job = expect_job(READER_LOAD);
        reader_done(reader, &job, str_of(saved), now);
        expect_none();
        (void)poll();
        reader_credit(reader, track, 10, 1 << 20);
        job = expect_job(READER_FETCH);
        assert_str(job.mark, "m3");
        assert_null(put(job.page, "r2", "m2"));
        assert_null(put(job.page, "r3", "m3"));
        assert_false(page_failed(job.page));
        assert_non_null(put(job.page, "r1", "m1"));
        reader_done(reader, &job, STR("m4"), now);
}

static void test_a_damaged_state_is_an_error(void **state)
{
        static const char *const damaged[] = { "m3", "2:m", "2:m32:r22:r", "-1:", "99999999999:x", "2:m3x" };
        struct reader_job job;

        (void)state;
        config.remember = 2;
        config.loads = true;
        begin();
        (void)add("a");
        for (size_t i = 0; i < COUNT_OF(damaged); i++) {
                job = expect_job(READER_LOAD);
                reader_done(reader, &job, str_of(damaged[i]), now);
                (void)poll();
                assert_int_equal(last.state, SOURCE_FAILED);
                assert_non_null(strstr(text, "a: the "));
                expect_none();
                now += 10 * USEC_SEC;
        }
}

static void test_the_state_stays_below_its_bound(void **state)
{
        struct reader_job job;
        char id[1200];
        uint32_t track;

        (void)state;
        config.remember = 1000;
        config.page_bytes = 1 << 24;
        begin();
        track = opened("a");
        reader_credit(reader, track, 1000, 1 << 24);
        job = expect_job(READER_FETCH);
        memset(id, 'i', sizeof(id));
        for (int i = 0; i < 500; i++) {
                (void)snprintf(id, 8, "%06d", i);
                id[6] = 'i';
                assert_non_null(page_record(job.page, (struct str){ id, sizeof(id) }, STR("m")));
        }
        reader_done(reader, &job, STR("m"), now);
        lent_n = 0;
        for (int i = 0; i < 500; i++) {
                struct pull_event e;

                do
                        assert_int_equal(reader_poll(reader, &e, 1, now), 1);
                while (e.kind != PULL_RECORD);
                reader_release(reader, e.record);
        }
        reader_commit(reader, track, 501);
        job = expect_job(READER_SAVE);
        assert_true(job.state.n <= READER_STATE_MOST && job.state.n > READER_STATE_MOST - 2 * sizeof(id));
        assert_int_equal(memcmp(job.state.p + job.state.n - sizeof(id), "000499", 6), 0); /* the last ones */
}

/* ---- texts of answers --------------------------------------------------- */

/* Each text has memory of its own, beside records and bytes. */
static void texts_are_what_they_say(void **state UNUSED)
{
        static const struct {
                const char *text;
                bool is_string, escaped;
                const char *says;
        } all[] = {
                { "a\\n\\u00e4\\ud83d\\ude00\\ud83d", true, true, "a\n\xc3\xa4\xf0\x9f\x98\x80\xef\xbf\xbd" },
                { "\\u0041\\u0041\\u0041", true, true, "AAA" },
                { "plain", true, false, "plain" },
                { "", true, false, "" },
                { "{\"a\":\"\\n\"}", false, false, "{\"a\":\"\\n\"}" },
        };
        struct remember none = { 0 };
        struct reader_stats stats = { 0 };
        struct page *page = page_new(&none, &stats, 1 << 16);
        struct str got[2 * COUNT_OF(all)];

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                const struct json_value v = { str_of(all[i].text), all[i].is_string, all[i].escaped };

                got[2 * i] = page_text(page, v);
                assert_non_null(page_record(page, STR("id"), STR("mark")));
                assert_non_null(page_keep(page, 8));
                got[2 * i + 1] = page_text_beside(page, v);
        }
        for (size_t i = 0; i < COUNT_OF(got); i++) {
                assert_non_null(got[i].p);
                assert_true(str_is(got[i], all[i / 2].says));
        }
        assert_null(page_text(page, (struct json_value){ 0 }).p);
        assert_false(page_failed(page));
        page_reject(page);
        page = page_new(&none, &stats, 10);
        assert_null(page_text(page, (struct json_value){ .text = STR("0123456789"), .is_string = true }).p);
        assert_true(page_failed(page));
        page_reject(page);
        assert_int_equal(stats.page_bytes, 0);
}

/* ---- the end of tracks -------------------------------------------------- */

static void test_an_ended_track_is_drained_and_saved(void **state)
{
        struct reader_job job;
        struct error err;
        uint32_t track, again;

        (void)state;
        begin();
        track = opened("a");
        job = expect_job(READER_FETCH);
        reader_end(reader, track);
        fetch(&job, 2);
        (void)poll();
        assert_int_equal(lent_n, 2);
        expect_none();
        release(0);
        release(1);
        reader_commit(reader, track, 3);
        job = expect_job(READER_SAVE);
        assert_true(poll() & 1u << PULL_REVOKING);
        reader_revoked(reader, track);
        expect_none(); /* the save is under way */
        reader_done(reader, &job, STR(""), now);
        job = expect_job(READER_LEAVE);
        assert_false(job.lost);
        assert_int_equal(reader_add(reader, STR("a"), NULL, &again, &err), -1);
        assert_int_equal(err.kind, ERROR_EXISTS);
        assert_false(reader_drained(reader));
        reader_done(reader, &job, STR(""), now);
        assert_true(reader_drained(reader));
        assert_int_equal(add("a"), track);
}

static void test_a_conflict_loses_the_track(void **state)
{
        struct reader_job job, fetching;
        struct error err;
        uint32_t track;

        (void)state;
        begin();
        track = opened("a");
        job = expect_job(READER_FETCH);
        fetch(&job, 2);
        (void)poll();
        release(0);
        reader_commit(reader, track, 2);
        job = expect_job(READER_SAVE);
        fetching = expect_job(READER_FETCH);
        (void)error_set(&err, ERROR_CONFLICT, "somebody else");
        reader_failed(reader, &job, &err, now);
        assert_true(poll() & 1u << PULL_LOST);
        release(1);
        reader_commit(reader, track, 3);
        reader_revoked(reader, track);
        (void)expect_job(READER_CANCEL);
        expect_none();
        reader_failed(reader, &fetching, &err, now);
        job = expect_job(READER_LEAVE);
        assert_true(job.lost);
        reader_done(reader, &job, STR(""), now);
}

static void test_somebody_elses_claim_is_standby(void **state)
{
        struct reader_job job;
        struct error err;

        (void)state;
        config.claims = true;
        begin();
        (void)add("a");
        job = expect_job(READER_CLAIM);
        (void)error_set(&err, ERROR_CONFLICT, "worker-1 has it");
        reader_failed(reader, &job, &err, now);
        (void)poll();
        assert_int_equal(last.state, SOURCE_STANDBY);
        assert_string_equal(text, "worker-1 has it");
        reader_stop(reader);
        job = expect_job(READER_LEAVE);
        reader_done(reader, &job, STR(""), now);
        assert_int_equal(reader_deadline(reader), 0);
        assert_true(poll() & 1u << PULL_CLOSED);
        assert_int_equal(reader_deadline(reader), USEC_NEVER);
}

/* The service behind the claims was away. That failure ends with its next answer, even if another worker has
 * the claim. */
static void test_standing_by_after_a_failure_is_no_failure(void **state)
{
        struct reader_job ours, theirs;
        struct error away, taken;

        (void)state;
        config.claims = true;
        config.loads = false;
        begin();
        (void)error_set(&away, ERROR_UNREACHABLE, "the API server is away");
        away.retry = true;
        (void)error_set(&taken, ERROR_CONFLICT, "worker-1 has it");
        (void)add("a");
        (void)add("b");
        ours = expect_job(READER_CLAIM);
        theirs = expect_job(READER_CLAIM);
        reader_failed(reader, &ours, &away, now);
        reader_failed(reader, &theirs, &away, now);
        (void)poll();
        assert_int_equal(last.state, SOURCE_DISCONNECTED);
        assert_string_equal(text, "the API server is away");
        now += USEC_MINUTE;
        ours = expect_job(READER_CLAIM);
        theirs = expect_job(READER_CLAIM);
        reader_failed(reader, &theirs, &taken, now);
        (void)poll();
        assert_int_equal(last.state, SOURCE_DISCONNECTED); /* the second track has no answer yet */
        reader_failed(reader, &ours, &taken, now);
        (void)poll();
        assert_int_equal(last.state, SOURCE_STANDBY);
        assert_string_equal(text, "worker-1 has it");
        now += USEC_MINUTE;
        ours = expect_job(READER_CLAIM);
        reader_done(reader, &ours, STR(""), now);
        theirs = expect_job(READER_CLAIM);
        reader_failed(reader, &theirs, &taken, now);
        assert_true(poll() & 1u << PULL_STATE);
        assert_string_equal(text, "");
}

/* Each track has a text of its own; that of one is shown, once. */
static void test_standing_by_is_said_once(void **state)
{
        struct reader_job jobs[3];
        struct error err;
        int said = 0;

        (void)state;
        config.claims = true;
        begin();
        (void)add("a");
        (void)add("b");
        (void)add("c");
        for (int i = 0; i < 3; i++)
                jobs[i] = expect_job(READER_CLAIM);
        for (int i = 0; i < 3; i++) {
                (void)error_set(&err, ERROR_CONFLICT, STR_FMT " is read by worker-1", STR_ARG(jobs[i].name));
                reader_failed(reader, &jobs[i], &err, now);
        }
        said += (poll() & 1u << PULL_STATE) != 0;
        assert_int_equal(last.state, SOURCE_STANDBY);
        for (int round = 0; round < 5; round++) {
                now += USEC_MINUTE;
                for (int i = 0; i < 3; i++) {
                        jobs[i] = expect_job(READER_CLAIM);
                        (void)error_set(&err, ERROR_CONFLICT, STR_FMT " is read by worker-1",
                                        STR_ARG(jobs[i].name));
                        reader_failed(reader, &jobs[i], &err, now);
                        said += (poll() & 1u << PULL_STATE) != 0;
                }
        }
        assert_int_equal(said, 1);
        /* A new text is shown once that track reports it. */
        now += USEC_MINUTE;
        for (int i = 0; i < 3; i++) {
                jobs[i] = expect_job(READER_CLAIM);
                (void)error_set(&err, ERROR_CONFLICT, "somebody else");
                reader_failed(reader, &jobs[i], &err, now);
                said += (poll() & 1u << PULL_STATE) != 0;
        }
        assert_int_equal(said, 2);
        assert_string_equal(text, "somebody else");
        reader_stop(reader);
        for (int i = 0; i < 3; i++) {
                jobs[i] = expect_job(READER_LEAVE);
                reader_done(reader, &jobs[i], STR(""), now);
        }
        assert_true(poll() & 1u << PULL_CLOSED);
}

/* The jobs in flight of three tracks, in order. */
static unsigned fails(const struct reader_job *job, const char *cause, bool retry)
{
        struct error err;

        (void)error_set(&err, ERROR_UNREACHABLE, "records of " STR_FMT ": %s", STR_ARG(job->name), cause);
        err.retry = retry;
        reader_failed(reader, job, &err, now);
        return poll() & 1u << PULL_STATE;
}

static void start_three(struct reader_job jobs[3])
{
        now += USEC_MINUTE;
        for (int i = 0; i < 3; i++)
                jobs[i] = expect_job(READER_FETCH);
}

/* If a service is away, all tracks and the list of them fail: one failure is shown, once. */
static void test_a_failure_of_all_is_said_once(void **state)
{
        struct reader_job jobs[3];
        struct error list;
        char first[sizeof(text)];
        uint32_t tracks[3];
        unsigned said = 0;

        (void)state;
        begin();
        for (size_t i = 0; i < 3; i++)
                tracks[i] = add((const char *[]){ "a", "b", "c" }[i]);
        expect_none();
        (void)poll();
        for (size_t i = 0; i < 3; i++)
                reader_credit(reader, tracks[i], 10, 1 << 20);
        for (int round = 0; round < 5; round++) {
                start_three(jobs);
                for (int i = 0; i < 3; i++) {
                        said += fails(&jobs[i],
                                      str_is(jobs[i].name, "b") ? "connection reset" : "connection refused",
                                      true) != 0;
                        if (!round && !i)
                                (void)snprintf(first, sizeof(first), "%s", text);
                }
                (void)error_set(&list, ERROR_UNREACHABLE, "stream orders: connection timed out");
                list.retry = true;
                reader_trouble(reader, &list);
                said += (poll() & 1u << PULL_STATE) != 0;
        }
        assert_int_equal(last.state, SOURCE_DISCONNECTED);
        assert_string_equal(text, first);
        assert_int_equal(said, 1);
        /* A new cause of the same track is shown; once it recovers, that of a track that still fails. */
        start_three(jobs);
        for (int i = 0; i < 3; i++)
                said += fails(&jobs[i], "no such host", true) != 0;
        assert_int_equal(said, 2);
        start_three(jobs);
        reader_done(reader, &jobs[0], STR(""), now);
        reader_done(reader, &jobs[1], STR(""), now);
        reader_done(reader, &jobs[2], STR(""), now);
        (void)poll();
        assert_int_equal(last.state, SOURCE_DISCONNECTED); /* the list */
        reader_trouble(reader, &list);
        assert_true(poll() & 1u << PULL_STATE);
        assert_string_equal(text, "stream orders: connection timed out");
        /* A final failure takes precedence over a temporary one. */
        start_three(jobs);
        assert_true(fails(&jobs[0], "forbidden", false));
        assert_int_equal(last.state, SOURCE_FAILED);
        assert_non_null(strstr(text, "forbidden"));
        assert_false(fails(&jobs[1], "connection refused", true));
        assert_non_null(strstr(text, "forbidden"));
}

static void test_remarks_are_reasons_of_what_is_well(void **state)
{
        struct reader_job job;

        (void)state;
        begin();
        (void)poll();
        reader_remark(reader, SOURCE_CONNECTING, "the list names %s", "none");
        assert_int_equal(reader_deadline(reader), 0);
        assert_true(poll() & 1u << PULL_STATE);
        assert_int_equal(last.state, SOURCE_CONNECTING);
        assert_string_equal(text, "the list names none");
        (void)opened("a");
        job = expect_job(READER_FETCH);
        reader_done(reader, &job, STR(""), now);
        reader_remark(reader, SOURCE_CONNECTED, "nothing of a comes");
        assert_true(poll() & 1u << PULL_STATE);
        assert_int_equal(last.state, SOURCE_CONNECTED);
        assert_string_equal(text, "nothing of a comes");
        assert_false(poll() & 1u << PULL_STATE);
        reader_remark(reader, SOURCE_CONNECTED, NULL);
        assert_true(poll() & 1u << PULL_STATE);
        assert_string_equal(text, "");
}

/* A track without more data leaves. */
static void end(uint32_t track)
{
        struct reader_job job;

        reader_end(reader, track);
        expect_none();
        assert_true(poll() & 1u << PULL_REVOKING);
        reader_revoked(reader, track);
        job = expect_job(READER_LEAVE);
        reader_done(reader, &job, STR(""), now);
}

static void test_why_nothing_is_read_waits_for_the_last(void **state)
{
        uint32_t a, b;

        (void)state;
        begin();
        a = add("a");
        b = add("b");
        expect_none();
        (void)poll();
        reader_remark(reader, SOURCE_CONNECTING, "nothing is read: a is at its end");
        end(a);
        (void)poll();
        assert_string_equal(text, ""); /* of b nothing is known */
        reader_remark(reader, SOURCE_CONNECTING, "nothing is read: b is at its end");
        end(b);
        assert_true(poll() & 1u << PULL_STATE);
        assert_int_equal(last.state, SOURCE_CONNECTING);
        assert_string_equal(text, "nothing is read: b is at its end");
}

/* ---- what a source tells ------------------------------------------------ */

static void test_warnings_and_losses_are_counted(void **state)
{
        struct notice n;

        (void)state;
        begin();
        (void)opened("a");
        (void)poll();
        (void)expect_job(READER_FETCH);
        expect_none();
        assert_false(reader_warned(reader, &n));
        for (int i = 0; i < 3; i++)
                reader_warn(reader, "CursorReset", "partition %d", i);
        assert_int_equal(reader_deadline(reader), 0);
        assert_true(reader_warned(reader, &n));
        assert_string_equal(n.reason, "CursorReset");
        assert_string_equal(n.text, "partition 0");
        assert_int_equal(n.times, 3);
        assert_int_equal(n.lost, 0);
        assert_false(reader_warned(reader, &n));
        assert_int_not_equal(reader_deadline(reader), 0);
        reader_gone(reader, 0, 5, "RecordsExpired", "%d records", 5);
        reader_gone(reader, 0, 2, "RecordsExpired", "2 more");
        reader_gone(reader, 1, 4, "RecordsExpired", "of another track");
        assert_true(reader_warned(reader, &n));
        assert_int_equal(n.lost, 7);
        assert_int_equal(n.times, 2);
        assert_string_equal(n.text, "5 records");
        assert_true(reader_warned(reader, &n));
        assert_int_equal(n.lost, 4);
        assert_string_equal(n.text, "of another track");
        assert_false(reader_warned(reader, &n));
}

/* However many warnings there are before they are taken, all are counted. */
static void test_a_thousand_losses_take_little_room(void **state)
{
        uint64_t lost = 0, times = 0, notices = 0;
        struct notice n;

        (void)state;
        begin();
        for (uint32_t i = 0; i < 1000; i++)
                reader_gone(reader, i, i, "RecordsExpired", "of track %u", i);
        while (reader_warned(reader, &n)) {
                assert_string_equal(n.reason, "RecordsExpired");
                lost += n.lost;
                times += n.times;
                notices++;
        }
        assert_int_equal(lost, 999 * 500);
        assert_int_equal(times, 1000);
        assert_in_range(notices, 2, 32);
}

static void test_lag_is_what_is_behind_and_not_committed(void **state)
{
        struct reader_job job;
        uint32_t track;

        (void)state;
        begin();
        track = opened("a");
        assert_int_equal(reader_lag(reader), -1);
        job = expect_job(READER_FETCH);
        reader_behind(reader, track, 40);
        fetch(&job, 3);
        assert_int_equal(reader_lag(reader), 43);
        (void)poll();
        release(0);
        reader_commit(reader, track, 2);
        assert_int_equal(reader_lag(reader), 42);
}

static void test_unsaved_is_what_is_done_and_not_saved(void **state)
{
        struct reader_job job;
        uint32_t track;

        (void)state;
        begin();
        track = opened("a");
        job = expect_job(READER_FETCH);
        fetch(&job, 12);
        (void)poll(); /* ten of them, for there is no more credit */
        assert_int_equal(lent_n, 10);
        assert_int_equal(reader_unsaved(reader), 0);
        for (size_t i = 0; i < 4; i++)
                release(i);
        assert_int_equal(reader_unsaved(reader), 4);
        reader_commit(reader, track, 4); /* three are below, one is done beyond it */
        job = expect_job(READER_SAVE);
        assert_int_equal(reader_unsaved(reader), 4);
        reader_done(reader, &job, STR(""), now);
        assert_int_equal(reader_unsaved(reader), 1);
        reader_withdraw(reader, track, 0);
        assert_int_equal(reader_unsaved(reader), 1);
}

static void test_ten_thousand_tracks(void **state)
{
        struct reader_job job;
        size_t jobs = 0;

        (void)state;
        begin();
        for (uint32_t i = 0; i < 10000; i++) {
                char name[16];

                (void)snprintf(name, sizeof(name), "t%u", i);
                (void)add(name);
        }
        expect_none();
        (void)poll();
        for (uint32_t i = 0; i < 10000; i++)
                reader_credit(reader, i, 1, 1000);
        for (; next(&job); jobs++)
                reader_done(reader, &job, STR(""), now);
        assert_int_equal(jobs, 10000);
        reader_stop(reader);
        for (uint32_t i = 0; i < 10000; i++)
                reader_revoked(reader, i);
        for (jobs = 0; next(&job); jobs++)
                reader_done(reader, &job, STR(""), now);
        assert_int_equal(jobs, 10000);
        assert_true(poll() & 1u << PULL_CLOSED);
}

/* ---- how much is asked for ---------------------------------------------- */

/* Fetches as many records as are asked for, each of which takes so long to deliver. */
static uint32_t page_done_in(uint32_t track, usec each)
{
        struct reader_job job = expect_job(READER_FETCH);
        uint32_t asked = job.records;

        fetch(&job, (int)asked);
        (void)poll();
        now += (usec)asked * each;
        for (uint32_t i = 0; i < asked; i++)
                release(lent_n - asked + i);
        reader_commit(reader, track, lent_n + 1);
        reader_credit(reader, track, asked, 1 << 16);
        job = expect_job(READER_SAVE);
        reader_done(reader, &job, STR(""), now);
        return asked;
}

static void test_no_more_is_asked_for_than_there_is_time_for(void **state)
{
        struct reader_job job;
        struct notice notice;
        uint32_t track;

        (void)state;
        config = (struct reader_config){ .shared = true,
                                         .marks_most = 10,
                                         .unsaved_most = 1,
                                         .lease = 28 * USEC_SEC,
                                         .attempt = 8 * USEC_SEC,
                                         .records_most = 4,
                                         .let_go_reason = "LetGo" };
        begin();
        track = opened("a");
        assert_int_equal(page_done_in(track, USEC_SEC), 1);
        assert_int_equal(page_done_in(track, USEC_SEC), 2);
        assert_int_equal(page_done_in(track, USEC_SEC), 3);
        assert_int_equal(page_done_in(track, USEC_SEC), 4);
        assert_int_equal(page_done_in(track, 4 * USEC_SEC), 4); /* 16 of 20 s: half of that would do */
        assert_int_equal(page_done_in(track, 4 * USEC_SEC), 2);
        assert_int_equal(page_done_in(track, USEC_SEC), 2);
        job = expect_job(READER_FETCH);
        assert_int_equal(job.records, 3);
        fetch(&job, 3);
        (void)poll();
        now += 20 * USEC_SEC;
        expect_none();
        assert_true(poll() & 1u << PULL_REVOKING);
        for (size_t i = lent_n - 3; i < lent_n; i++)
                release(i);
        reader_revoked(reader, track);
        expect_none();
        assert_true(reader_warned(reader, &notice));
        assert_string_equal(notice.reason, "LetGo");
        assert_int_equal(notice.times, 3);
        assert_true(poll() & 1u << PULL_ASSIGNED);
        reader_credit(reader, track, 10, 1 << 20);
        assert_int_equal(expect_job(READER_FETCH).records, 1);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(texts_are_what_they_say),
                cmocka_unit_test_setup_teardown(test_saves_the_mark_of_the_lowest_unfinished, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(test_pages_are_freed_when_released_and_saved, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(test_a_page_that_is_too_large_fails, setup, teardown),
                cmocka_unit_test_setup_teardown(test_pauses_grow_while_idle, setup, teardown),
                cmocka_unit_test_setup_teardown(test_hands_of_one_queue_ask_no_more_often_than_one, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(test_a_peer_that_asks_for_a_pause_gets_it, setup, teardown),
                cmocka_unit_test_setup_teardown(test_a_cause_that_may_be_mended_is_tried_at_once, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(test_ids_come_back_with_the_state, setup, teardown),
                cmocka_unit_test_setup_teardown(test_no_more_is_asked_for_than_there_is_time_for, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(test_a_damaged_state_is_an_error, setup, teardown),
                cmocka_unit_test_setup_teardown(test_the_state_stays_below_its_bound, setup, teardown),
                cmocka_unit_test_setup_teardown(test_an_ended_track_is_drained_and_saved, setup, teardown),
                cmocka_unit_test_setup_teardown(test_a_conflict_loses_the_track, setup, teardown),
                cmocka_unit_test_setup_teardown(test_somebody_elses_claim_is_standby, setup, teardown),
                cmocka_unit_test_setup_teardown(test_standing_by_after_a_failure_is_no_failure, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(test_standing_by_is_said_once, setup, teardown),
                cmocka_unit_test_setup_teardown(test_a_failure_of_all_is_said_once, setup, teardown),
                cmocka_unit_test_setup_teardown(test_remarks_are_reasons_of_what_is_well, setup, teardown),
                cmocka_unit_test_setup_teardown(test_why_nothing_is_read_waits_for_the_last, setup, teardown),
                cmocka_unit_test_setup_teardown(test_warnings_and_losses_are_counted, setup, teardown),
                cmocka_unit_test_setup_teardown(test_a_thousand_losses_take_little_room, setup, teardown),
                cmocka_unit_test_setup_teardown(test_lag_is_what_is_behind_and_not_committed, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(test_unsaved_is_what_is_done_and_not_saved, setup, teardown),
                cmocka_unit_test_setup_teardown(test_ten_thousand_tracks, setup, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
