#include "source/poller.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/loop.h"
#include "tests/support/store.h"

/* ---- a service of our own: "mark;id,id" --------------------------------- */

struct toy {
        struct poller poller; /* the first member */
        unsigned parts;       /* of a page that comes in several answers */
        unsigned cursors;     /* renewed */
        unsigned left;
};

static void discover(struct poller *p, struct cloud_request *q)
{
        (void)p;
        buf_text(&q->path, "/v2/{project_id}/streams/s");
        buf_text(&q->what, "stream s");
}

static enum poller_step discovered(struct poller *p, struct str body, struct error *err)
{
        while (body.n) {
                struct str name = str_cut(&body, ',');
                uint32_t track;

                if (name.n && name.p[0] == '!')
                        return (enum poller_step)error_set(err, ERROR_PROTOCOL, "no list of partitions");
                if (reader_add(p->reader, name, NULL, &track, err) < 0 && err->kind != ERROR_EXISTS)
                        return POLLER_FAILED;
        }
        return POLLER_DONE;
}

static void ask(struct poller *p, const struct reader_job *job, struct cloud_request *q)
{
        (void)p;
        buf_printf(&q->path, "/%s/" STR_FMT, reader_job_name(job->kind), STR_ARG(job->name));
        buf_printf(&q->what, "%s of " STR_FMT, reader_job_name(job->kind), STR_ARG(job->name));
        if (job->kind == READER_SAVE) {
                q->method = "POST";
                buf_str(&q->body, job->state);
                return;
        }
        poller_query(q, "after", job->mark);
        poller_query_int(q, "limit", job->records);
}

static enum poller_step answered(struct poller *p, const struct reader_job *job, struct str body,
                                 struct error *err)
{
        struct toy *toy = CONTAINER_OF(p, struct toy, poller);
        struct str mark = body;

        if (job->kind == READER_SAVE)
                return POLLER_DONE;
        if (job->kind == READER_FETCH)
                mark = str_cut(&body, ';');
        if (job->kind == READER_FETCH && !mark.n)
                return (enum poller_step)error_set(err, ERROR_PROTOCOL, "no mark");
        while (job->kind == READER_FETCH && body.n) {
                struct str id = str_cut(&body, ',');
                struct record *r = page_record(job->page, id, id);

                if (r)
                        r->value = r->id;
        }
        poller_mark(p, mark);
        return toy->parts && toy->parts-- > 0 ? POLLER_AGAIN : POLLER_DONE;
}

static enum poller_step refused(struct poller *p, const struct reader_job *job, const struct cloud_error *e,
                                struct error *err)
{
        struct toy *toy = CONTAINER_OF(p, struct toy, poller);

        (void)job;
        (void)err;
        if (e->verdict != CLOUD_RENEW_CURSOR)
                return POLLER_FAILED;
        toy->cursors++;
        return POLLER_AGAIN;
}

static void left(struct poller *p, void *own)
{
        (void)own;
        CONTAINER_OF(p, struct toy, poller)->left++;
}

static unsigned toys_done;

static void done(struct poller *p UNUSED) { toys_done++; }

static const struct poller_ops listed = { .service = "dis",
                                          .discover = discover,
                                          .discovered = discovered,
                                          .claimed = true,
                                          .ask = ask,
                                          .answered = answered,
                                          .refused = refused,
                                          .left = left,
                                          .done = done };
static const struct poller_ops single = {
        .service = "cts", .stored = true, .ask = ask, .answered = answered, .done = done
};

/* ---- a port that is a script -------------------------------------------- */

enum { CALLS = 32 };
static struct script {
        struct poller_call *calls[CALLS]; /* under way */
        unsigned n, started, cancelled;
} script;

static void start(void *cookie, struct poller_call *c)
{
        (void)cookie;
        script.calls[script.n++] = c;
        script.started++;
}

static void cancel(void *cookie, struct poller_call *c)
{
        (void)cookie;
        for (unsigned i = 0; i < script.n; i++)
                if (script.calls[i] == c)
                        script.calls[i] = script.calls[--script.n];
        script.cancelled++;
}

/* Finds the call to a path with this prefix; asked gets its request. */
static char asked[512];
static struct poller_call *take(const char *path)
{
        for (unsigned i = 0; i < script.n; i++) {
                struct poller_call *c = script.calls[i];

                if (!str_starts(buf_view(&c->request.path), str_of(path)))
                        continue;
                (void)snprintf(asked, sizeof(asked), "%s %s?%s %s", c->request.method, c->request.path.p,
                               c->request.query.n ? c->request.query.p : "",
                               c->request.body.n ? c->request.body.p : "");
                script.calls[i] = script.calls[--script.n];
                return c;
        }
        fail_msg("no call to %s", path);
        return NULL;
}

static void answer(const char *path, int status, const char *body)
{
        struct poller_call *c = take(path);

        c->status = status;
        c->answer.max = 1 << 20;
        buf_text(&c->answer, body);
        refusal_read(&c->refusal, c->service, status, str_of(body), 0);
        poller_call_ended(c);
}

/* ---- a store ------------------------------------------------------------ */

static struct services services;

static struct test_store kept;

/* ---- a pipeline, by hand ------------------------------------------------ */

static struct toy *toy;
static struct loop *loop;
static struct task task;
static usec now;

/* Claims with two slots, whose owners the test sets. */
static struct {
        struct claim slots[2];
        uint64_t changes;
        unsigned released; /* as bits */
        bool stop;
} claims;

static uint64_t claims_changes(void *cookie UNUSED) { return claims.changes; }
static void claims_look(void *cookie UNUSED, uint32_t slot, struct claim *c) { *c = claims.slots[slot]; }
static void claims_release(void *cookie UNUSED, uint32_t slot)
{
        assert_int_equal(claims.slots[slot].state, CLAIM_LEAVING);
        claims.slots[slot].state = CLAIM_WAITING;
        claims.released |= 1u << slot;
        claims.changes++;
}
static void claims_set(uint32_t slot, struct claim c)
{
        claims.slots[slot] = c;
        claims.changes++;
}
static void claims_stop(void *cookie UNUSED)
{
        claims.stop = true;
        for (uint32_t i = 0; i < 2; i++)
                if (claims.slots[i].state == CLAIM_HELD)
                        claims_set(i, (struct claim){ CLAIM_LEAVING, .give_up_at = USEC_NEVER });
}
static bool claims_stopped(void *cookie UNUSED)
{
        return claims.stop && claims.slots[0].state == CLAIM_WAITING &&
               claims.slots[1].state == CLAIM_WAITING;
}
static const struct claims_ops claims_ops = { claims_changes, claims_look, claims_release, claims_stop,
                                              claims_stopped };
static struct record *lent[16];
static size_t lent_n;
static char text[256];
static enum source_state state;
static unsigned revoking;
static bool closed;

static void nothing(struct task *t, usec at)
{
        (void)t;
        (void)at;
}

static void open_with(const struct poller_ops *ops, bool shared)
{
        const struct poller_config config = {
                .reader = { .loads = true,
                            .page_bytes = 1 << 16,
                            .poll_min = USEC_SEC,
                            .poll_max = USEC_SEC,
                            .backoff_min = USEC_SEC,
                            .backoff_max = 10 * USEC_SEC,
                            .remember = ops->stored ? 10 : 0 },
                .discover_interval = 30 * USEC_SEC,
                .port = { start, cancel, NULL },
                .seed = 1,
        };
        struct error err;

        toy = calloc(1, sizeof(*toy));
        assert_non_null(toy);
        script = (struct script){ 0 };
        lent_n = revoking = 0;
        closed = false;
        now = USEC_SEC;
        assert_int_equal(loop_new(&loop, &err), 0);
        task = (struct task){ .turn = nothing };
        kept.key = "cts";
        kept.loop = loop;
        services = (struct services){
                .loop = loop, .wake = &task, .clock = &system_clock, .store = test_store_port(&kept)
        };
        memset(&claims, 0, sizeof(claims));
        if (shared)
                services.claims = (struct claims){ &claims_ops, NULL, 2 };
        assert_int_equal(poller_open(&toy->poller, ops, &config, &services, &err), 0);
}

static void open_toy(const struct poller_ops *ops) { open_with(ops, false); }

static void turn(void)
{
        struct source *s = &toy->poller.source;
        struct pull_event events[8];

        for (;;) {
                size_t n = poller_pull.poll(s, events, COUNT_OF(events), now);

                for (size_t i = 0; i < n; i++) {
                        const struct pull_event *e = &events[i];

                        if (e->kind == PULL_RECORD)
                                lent[lent_n++] = e->record;
                        else if (e->kind == PULL_ASSIGNED)
                                poller_pull.credit(s, e->track, 5, 1 << 20);
                        else if (e->kind == PULL_REVOKING || e->kind == PULL_LOST) {
                                revoking++;
                                if (!lent_n || lent[0]->track != e->track)
                                        poller_pull.revoked(s, e->track);
                        } else if (e->kind == PULL_CLOSED)
                                closed = true;
                        else if (e->kind == PULL_STATE) {
                                state = e->state;
                                (void)snprintf(text, sizeof(text), "%s", e->text);
                        }
                }
                if (!n && poller_pull.deadline(s) > now)
                        return;
        }
}

static void settle_all(uint32_t track)
{
        uint64_t next = lent[lent_n - 1]->position + 1;

        for (size_t i = 0; i < lent_n; i++)
                poller_pull.release(&toy->poller.source, lent[i], OUTCOME_ACCEPTED);
        lent_n = 0;
        poller_pull.commit(&toy->poller.source, track, next);
        turn();
}

static int close_all(void **unused)
{
        (void)unused;
        for (size_t i = 0; i < lent_n; i++)
                poller_pull.release(&toy->poller.source, lent[i], OUTCOME_RELEASED);
        toys_done = 0;
        toy = (struct toy *)poller_pull.free(&toy->poller.source);
        assert_int_equal(toys_done, 1);
        loop_forget(loop, &task);
        loop = loop_free(loop);
        kept.found = kept.foreign = false;
        return 0;
}

/* ---- tests -------------------------------------------------------------- */

static void test_a_list_of_tracks_is_read_and_saved(void **unused)
{
        (void)unused;
        open_toy(&listed);
        turn();
        answer("/v2/{project_id}/streams/s", 200, "p0,p1");
        turn();
        answer("/load/p0", 200, "m 7");
        answer("/load/p1", 200, "");
        turn();
        answer("/fetch/p0", 200, "m9;a,b");
        assert_string_equal(asked, "GET /fetch/p0?after=m%207&limit=5 ");
        turn();
        assert_int_equal(lent_n, 2);
        assert_int_equal(state, SOURCE_CONNECTED);
        settle_all(lent[0]->track);
        answer("/save/p0", 201, "");
        assert_string_equal(asked, "POST /save/p0? m9");
        turn();
        assert_int_equal(script.n, 2); /* the next pages of both */
}

static void test_a_job_may_take_several_calls(void **unused)
{
        (void)unused;
        open_toy(&listed);
        turn();
        answer("/v2", 200, "p0");
        turn();
        answer("/load/p0", 200, "");
        turn();
        toy->parts = 1;
        answer("/fetch/p0", 200, "m1;a");
        turn();
        assert_int_equal(lent_n, 0);
        answer("/fetch/p0", 200, "m2;b");
        turn();
        assert_int_equal(lent_n, 2);
        assert_int_equal(lent[1]->position, 2);
}

static void test_a_refusal_that_is_none(void **unused)
{
        (void)unused;
        open_toy(&listed);
        turn();
        answer("/v2", 200, "p0");
        turn();
        answer("/load/p0", 200, "");
        turn();
        answer("/fetch/p0", 400, "{\"errorCode\":\"DIS.4225\",\"message\":\"expired\"}");
        turn();
        assert_int_equal(toy->cursors, 1);
        for (int i = 0; i < 16; i++) { /* but not for ever */
                answer("/fetch/p0", 400, "{\"errorCode\":\"DIS.4225\",\"message\":\"expired\"}");
                turn();
        }
        assert_int_equal(toy->cursors, 16);
        assert_int_equal(script.n, 0);
        assert_non_null(strstr(text, "fetch of p0: 400 DIS.4225: expired"));
}

static void test_a_refusal_pauses_and_is_told(void **unused)
{
        (void)unused;
        open_toy(&listed);
        turn();
        answer("/v2", 403, "{\"errorCode\":\"DIS.4116\",\"message\":\"no right\"}");
        turn();
        assert_int_equal(state, SOURCE_FAILED);
        assert_non_null(strstr(text, "stream s: 403 DIS.4116: no right"));
        assert_int_equal(script.n, 0);
        assert_int_equal(poller_pull.deadline(&toy->poller.source), now + 10 * USEC_SEC);
        now += 10 * USEC_SEC;
        turn();
        answer("/v2", 200, "!");
        turn();
        assert_string_equal(text, "no list of partitions");
        now += 10 * USEC_SEC;
        turn();
        answer("/v2", 200, "p0");
        turn();
        answer("/load/p0", 200, "");
        turn();
        assert_int_equal(state, SOURCE_CONNECTED);
        now += 30 * USEC_SEC;
        turn();
        answer("/v2", 200, "p0,p1"); /* a new one is found, the other stays */
        turn();
        (void)take("/load/p1");
}

static void test_the_end_cancels_what_is_under_way(void **unused)
{
        (void)unused;
        open_toy(&listed);
        turn();
        answer("/v2", 200, "p0,p1");
        turn();
        answer("/load/p0", 200, "");
        turn();
        assert_int_equal(script.n, 2);
        poller_pull.stop(&toy->poller.source);
        turn();
        assert_int_equal(script.cancelled, 2);
        assert_int_equal(script.n, 0);
        assert_int_equal(toy->left, 2);
        assert_int_equal(revoking, 1);
        assert_true(closed);
        assert_int_equal(poller_pull.deadline(&toy->poller.source), USEC_NEVER);
}

static void test_tracks_are_read_by_who_holds_their_slot(void **unused)
{
        (void)unused;
        open_with(&listed, true);
        claims.slots[0] = (struct claim){ .why = "worker-1" };
        claims.slots[1] = (struct claim){ .why = "" };
        turn();
        answer("/v2", 200, "p0,p1,p2");
        turn();
        assert_int_equal(state, SOURCE_STANDBY);
        assert_non_null(strstr(text, "is read by another worker"));
        assert_int_equal(script.n, 0);
        assert_int_equal(poller_pull.lag(&toy->poller.source), 0); /* it counts where it is read */

        claims_set(0, (struct claim){ .state = CLAIM_HELD });
        turn(); /* at once, whatever pause there was */
        answer("/load/p0", 200, "");
        answer("/load/p2", 200, "");
        assert_int_equal(script.n, 0);
        turn();
        answer("/fetch/p0", 200, "t1;x");
        (void)take("/fetch/p2");
        turn();
        assert_int_equal(state, SOURCE_CONNECTED);

        /* Another worker takes over: deliveries in flight may finish, and the slot is released once all
         * tracks left. */
        claims_set(0, (struct claim){ CLAIM_LEAVING, .give_up_at = now + USEC_SEC });
        turn();
        assert_int_equal(revoking, 2);
        assert_int_equal(toy->left, 1);
        assert_int_equal(claims.released, 0);
        settle_all(0);
        poller_pull.revoked(&toy->poller.source, 0);
        turn();
        answer("/save/p0", 200, "");
        turn();
        assert_int_equal(claims.released, 1);
        assert_int_equal(toy->left, 2);
        now += USEC_SEC; /* they are asked for again, and stand by */
        turn();
        answer("/v2", 200, "p0,p1,p2");
        turn();
        assert_int_equal(state, SOURCE_STANDBY);
}

static void test_a_slot_that_is_lost_saves_nothing(void **unused)
{
        (void)unused;
        open_with(&listed, true);
        claims.slots[0] = (struct claim){ .state = CLAIM_HELD };
        claims.slots[1] = (struct claim){ .why = "no route", .failed = true };
        turn();
        answer("/v2", 200, "p0,p1");
        turn();
        assert_int_equal(state, SOURCE_DISCONNECTED);
        assert_string_equal(text, "no route");
        answer("/load/p0", 200, "");
        turn();
        answer("/fetch/p0", 200, "t1;x");
        turn();
        claims_set(0, (struct claim){ CLAIM_LEAVING, .give_up_at = 0 });
        turn();
        settle_all(0);
        poller_pull.revoked(&toy->poller.source, 0);
        turn();
        assert_int_equal(script.n, 0);
        assert_int_equal(toy->left, 1);
        assert_int_equal(claims.released, 1);
}

static void test_the_end_waits_for_the_claims(void **unused)
{
        (void)unused;
        open_with(&listed, true);
        claims.slots[0] = claims.slots[1] = (struct claim){ .state = CLAIM_HELD };
        turn();
        answer("/v2", 200, "p0");
        turn();
        answer("/load/p0", 200, "");
        turn();
        poller_pull.stop(&toy->poller.source);
        claims.slots[1].state = CLAIM_HELD; /* one that is slow to be given up */
        turn();
        assert_int_equal(claims.released, 1);
        assert_false(closed);
        assert_int_equal(poller_pull.deadline(&toy->poller.source), USEC_NEVER);
        claims_set(1, (struct claim){ CLAIM_LEAVING, .give_up_at = USEC_NEVER });
        turn();
        assert_int_equal(claims.released, 3);
        assert_true(closed);
}

static void test_partitions_are_spread_by_their_numbers(void **unused UNUSED)
{
        unsigned n[3] = { 0 };

        for (int i = 0; i < 9; i++) {
                char name[32];

                (void)snprintf(name, sizeof(name), "shardId-%010d", i);
                assert_int_equal(share_slot(str_of(name), 3), i % 3);
        }
        for (int i = 0; i < 300; i++) {
                char name[32];

                (void)snprintf(name, sizeof(name), "%d of a name", i);
                n[share_slot(str_of(name), 3)]++;
        }
        for (int i = 0; i < 3; i++)
                assert_in_range(n[i], 70, 130);
        assert_int_equal(share_slot(STR(""), 1), 0);
}

static void test_what_cannot_be_read_is_asked_for_again_soon(void **unused)
{
        (void)unused;
        open_toy(&listed);
        turn();
        answer("/v2", 200, "!");
        turn();
        assert_int_equal(state, SOURCE_DISCONNECTED);
        now += USEC_SEC; /* the first pause, at most */
        turn();
        answer("/v2", 200, "p0");
        turn();
        answer("/load/p0", 200, "");
        turn();
        answer("/fetch/p0", 200, "");
        turn();
        assert_int_equal(state, SOURCE_DISCONNECTED);
        now += USEC_SEC;
        turn();
        (void)take("/fetch/p0");
}

static void test_positions_may_live_in_the_store(void **unused)
{
        (void)unused;
        open_toy(&single);
        turn();
        turn();
        answer("/fetch/cts", 200, "t5;x,y");
        assert_string_equal(asked, "GET /fetch/cts?after=&limit=5 ");
        turn();
        settle_all(0);
        turn();
        assert_string_equal(kept.value, "2:t51:x1:y");
        (void)close_all(NULL);
        kept.found = true;

        open_toy(&single);
        turn();
        turn();
        answer("/fetch/cts", 200, "t6;y,z");
        assert_string_equal(asked, "GET /fetch/cts?after=t5&limit=5 ");
        turn();
        assert_int_equal(lent_n, 1);
        assert_true(str_is(lent[0]->id, "z"));
}

static void test_somebody_else_saves(void **unused)
{
        (void)unused;
        open_toy(&single);
        turn();
        turn();
        answer("/fetch/cts", 200, "t5;x");
        turn();
        kept.foreign = true;
        settle_all(0);
        turn();
        kept.foreign = false;
        assert_int_equal(revoking, 1);
        assert_int_equal(state, SOURCE_DISCONNECTED);
        assert_non_null(strstr(text, "is it running twice?"));
        assert_int_equal(script.n, 0);
        assert_int_equal(poller_pull.deadline(&toy->poller.source), now + USEC_MINUTE);
        now += USEC_MINUTE; /* it may be over */
        turn();
        turn();
        (void)take("/fetch/cts");
}

static void test_one_answer_by_itself(void **unused)
{
        struct toy alone = { 0 };
        struct error err;

        (void)unused;
        assert_int_equal(poller_answer(&alone.poller, &listed, READER_FETCH, NULL, STR("m;a,b,c"), &err), 3);
        assert_int_equal(poller_answer(&alone.poller, &listed, READER_FETCH, NULL, STR(""), &err), -1);
        assert_string_equal(err.text, "no mark");
}

static void test_what_is_no_time_is_none(void **unused UNUSED)
{
        assert_int_equal(poller_time(1700000000123), 1700000000123 * USEC_MSEC);
        assert_int_equal(poller_time(0), 0);
        assert_int_equal(poller_time(-1), 0);
        assert_int_equal(poller_time(INT64_MIN), 0);
        assert_int_equal(poller_time(INT64_MAX), 0);
        assert_int_equal(poller_time(INT64_MAX / USEC_MSEC - 1), (INT64_MAX / USEC_MSEC - 1) * USEC_MSEC);
}

/* poller_open takes ownership of the source's own struct, even if it fails. */
static void test_an_open_that_fails_frees_all(void **unused)
{
        const struct poller_config config = { .reader = { .page_bytes = 1 << 16 } };
        const struct services none = { .clock = &system_clock };
        struct toy *other = calloc(1, sizeof(*other));
        struct error err;

        (void)unused;
        assert_non_null(other);
        toys_done = 0;
        assert_int_equal(poller_open(&other->poller, &listed, &config, &none, &err), -1);
        assert_string_equal(err.text, "the cloud is not called from here");
        assert_int_equal(toys_done, 1);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_a_list_of_tracks_is_read_and_saved, close_all),
                cmocka_unit_test_teardown(test_a_job_may_take_several_calls, close_all),
                cmocka_unit_test_teardown(test_a_refusal_that_is_none, close_all),
                cmocka_unit_test_teardown(test_a_refusal_pauses_and_is_told, close_all),
                cmocka_unit_test_teardown(test_the_end_cancels_what_is_under_way, close_all),
                cmocka_unit_test_teardown(test_tracks_are_read_by_who_holds_their_slot, close_all),
                cmocka_unit_test_teardown(test_a_slot_that_is_lost_saves_nothing, close_all),
                cmocka_unit_test_teardown(test_the_end_waits_for_the_claims, close_all),
                cmocka_unit_test(test_partitions_are_spread_by_their_numbers),
                cmocka_unit_test_teardown(test_what_cannot_be_read_is_asked_for_again_soon, close_all),
                cmocka_unit_test_teardown(test_positions_may_live_in_the_store, close_all),
                cmocka_unit_test_teardown(test_somebody_else_saves, close_all),
                cmocka_unit_test(test_one_answer_by_itself),
                cmocka_unit_test(test_what_is_no_time_is_none),
                cmocka_unit_test(test_an_open_that_fails_frees_all),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
