/* Whoever is asked is the test's own: requests are taken down, answers come when told. Who is asked in
 * earnest stands in tests/integration. */
#include "source/apig/judge.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include "log/log.h"
#include "base/random.h"
#include "source/apig/apig.h"

#include <cmocka.h>

#include "tests/sim/memory.h"
#include "tests/support/clock.h"
#include "tests/support/http.h"
#include "tests/support/trigger.h"

static struct trigger trigger = TEST_TRIGGER("api");
static struct services services;
static struct judge *judge;

static struct set_clock set;
static const struct clock test_clock = SET_CLOCK(&set);

/* ---- the way out -------------------------------------------------------- */

static struct test_call asked[4096];
static struct test_http wire;

static void answer(size_t i, int status, const char *text)
{
        assert_true(i < wire.n);
        test_http_answer(&wire, &asked[i], status, text);
}

static void fail_call(size_t i)
{
        struct test_answer a = { 0 };

        (void)error_set(&a.error, ERROR_UNREACHABLE, "nobody there");
        test_http_end(&wire, &asked[i], a);
}

/* ---- a judge ------------------------------------------------------------ */

struct someone {
        struct judge_wait wait;
        unsigned n;
};

static void write_question(void *cookie UNUSED, const struct judge_wait *w, struct buf *headers UNUSED,
                           struct buf *body)
{
        buf_printf(body, "%u", CONTAINER_OF(w, const struct someone, wait)->n);
}

/* "allow", "deny", "short" (an allow of 10 s), or nothing to go by. */
static struct verdict *read_answer(void *cookie UNUSED, const struct http_request *c, usec now,
                                   struct buf *why)
{
        struct verdict *v;

        if (c->status != 200 || str_is(c->body, "?")) {
                buf_text(why, "what?");
                return NULL;
        }
        v = str_is(c->body, "deny") ? verdict_refuse(401, "APIG.0305", "denied")
                                    : verdict_new((struct str){ 0 });
        if (!v)
                return NULL;
        v->allowed = !str_is(c->body, "deny");
        v->lasting = true;
        if (str_is(c->body, "short"))
                v->until = now + 10 * USEC_SEC;
        return v;
}

static const struct judge_kind kind = {
        .name = "judge", .code = "APIG.0305", .write = write_question, .read = read_answer
};

static void begin(usec remember)
{
        struct judge_config c = { .services = &services,
                                  .kind = &kind,
                                  .peer = { .url = "http://judge/" },
                                  .remember = remember,
                                  .timeout = 5 * USEC_SEC,
                                  .most = 100,
                                  .bytes_most = 1 << 20 };
        struct error err;

        services = (struct services){ .clock = &test_clock,
                                      .trigger = &trigger,
                                      .http = test_http_port(&wire),
                                      .peers = test_http_peers(&wire) };
        wire = TEST_HTTP(asked);
        set.monotonic = USEC_HOUR;
        assert_int_equal(judge_new(&judge, &c, &err), 0);
        assert_int_equal(wire.opened, 1);
        assert_string_equal(wire.peers[0].url, "http://judge/");
}

static void end(void)
{
        judge = judge_free(judge);
        assert_int_equal(wire.closed, 1);
}

static const unsigned char *key(unsigned n)
{
        static unsigned char k[VERDICT_KEY];

        memcpy(k, &n, sizeof(n));
        return k;
}

static void ask(struct someone *s, unsigned n, bool shared)
{
        *s = (struct someone){ .n = n };
        assert_true(judge_ask(judge, key(n), shared, &s->wait));
}

static void turn(void) { judge_turn(judge, set.monotonic); }

/* 200: allowed; otherwise the refusal's status; 0: not decided, or not the next. */
static int decided(struct someone *s)
{
        int status;

        if (judge_take(judge) != &s->wait)
                return 0;
        status = s->wait.verdict->allowed ? 200 : s->wait.verdict->refusal.status;
        s->wait.verdict = verdict_release(s->wait.verdict);
        return status;
}

static bool known(unsigned n)
{
        struct verdict *v = judge_recall(judge, key(n));

        (void)verdict_release(v);
        return v != NULL;
}

static void an_answer_decides_and_is_remembered(void **state UNUSED)
{
        static const struct {
                const char *text;
                int status;
        } answers[] = { { "allow", 200 }, { "deny", 401 } };
        struct someone s;

        begin(USEC_MINUTE);
        for (unsigned i = 0; i < COUNT_OF(answers); i++) {
                ask(&s, i, true);
                assert_int_equal(wire.n, i);
                assert_int_equal(judge_deadline(judge), 0); /* it is asked at once */
                turn();
                assert_int_equal(wire.n, i + 1);
                assert_string_equal(asked[i].body, i ? "1" : "0");
                assert_int_equal(judge_deadline(judge), set.monotonic + 5 * USEC_SEC);
                assert_null(judge_take(judge));
                answer(i, 200, answers[i].text);
                turn();
                assert_int_equal(decided(&s), answers[i].status);
                assert_int_equal(judge_deadline(judge), USEC_NEVER);
                assert_true(known(i));
                assert_null(judge_trouble(judge));
        }
        set.monotonic += USEC_MINUTE - 1;
        assert_true(known(0) && known(1));
        set.monotonic++;
        assert_true(!known(0) && !known(1));
        end();
}

static void nothing_is_remembered_longer_than_it_is_true(void **state UNUSED)
{
        struct someone s;

        begin(USEC_MINUTE);
        ask(&s, 1, true);
        turn();
        answer(0, 200, "short");
        turn();
        assert_int_equal(decided(&s), 200);
        set.monotonic += 10 * USEC_SEC - 1;
        assert_true(known(1));
        set.monotonic++;
        assert_false(known(1));
        end();
}

static void what_is_no_answer_refuses_and_is_forgotten(void **state UNUSED)
{
        struct judge_counts counts;
        struct someone s;

        begin(USEC_MINUTE);
        ask(&s, 1, true);
        turn();
        answer(0, 200, "?");
        turn();
        assert_int_equal(decided(&s), 500);
        ask(&s, 1, true);
        turn();
        answer(1, 503, "busy");
        turn();
        assert_int_equal(decided(&s), 502);
        ask(&s, 1, true);
        turn();
        fail_call(2);
        turn();
        assert_int_equal(decided(&s), 502);
        ask(&s, 1, true);
        turn();
        set.monotonic += 5 * USEC_SEC - 1;
        turn();
        assert_null(judge_take(judge));
        set.monotonic++;
        turn();
        assert_true(asked[3].cancelled);
        assert_int_equal(decided(&s), 504);
        wire.refuses = "too long";
        ask(&s, 1, true);
        turn();
        assert_int_equal(decided(&s), 401);
        assert_false(known(1));
        assert_string_equal(judge_trouble(judge), "judge: too long");
        wire.refuses = NULL;
        for (int i = 0; i < 2; i++) { /* answers come again: it is told after a while */
                set.monotonic += 5 * USEC_SEC;
                ask(&s, 1, false);
                turn();
                answer(4 + (size_t)i, 200, "allow");
                turn();
                assert_int_equal(decided(&s), 200);
                assert_int_equal(judge_trouble(judge) != NULL, i == 0);
        }
        judge_counts(judge, &counts);
        assert_true(counts.asked == 7 && counts.failed == 5);
        end();
}

static void the_same_share_one_question(void **state UNUSED)
{
        struct someone s[6];
        int allowed = 0;

        begin(USEC_MINUTE);
        for (unsigned i = 0; i < 6; i++)
                ask(&s[i], i % 2, true);
        turn();
        assert_int_equal(wire.n, 2);
        judge_forget(judge, &s[0].wait); /* it left */
        answer(0, 200, "allow");
        turn();
        judge_forget(judge, &s[2].wait); /* when it was decided */
        for (struct judge_wait *w = judge_take(judge); w; w = judge_take(judge)) {
                assert_ptr_equal(w, &s[4].wait);
                w->verdict = verdict_release(w->verdict);
                allowed++;
        }
        assert_int_equal(allowed, 1);
        for (unsigned i = 1; i < 6; i += 2)
                judge_forget(judge, &s[i].wait);
        assert_true(asked[1].cancelled); /* nobody waits for it */
        judge_forget(judge, &s[4].wait); /* which does not wait */
        assert_int_equal(judge_deadline(judge), USEC_NEVER);
        end();
}

static void each_asks_for_itself_where_nothing_may_be_shared(void **state UNUSED)
{
        struct someone a, b;

        begin(0);
        ask(&a, 1, true);
        ask(&b, 1, true);
        turn();
        assert_int_equal(wire.n, 2);
        answer(0, 200, "allow");
        turn();
        assert_int_equal(decided(&a), 200);
        assert_false(known(1));
        judge_forget(judge, &b.wait);
        end();
        begin(USEC_MINUTE);
        ask(&a, 1, false);
        ask(&b, 1, false);
        turn();
        assert_int_equal(wire.n, 2);
        answer(1, 200, "allow");
        turn();
        assert_int_equal(decided(&b), 200);
        assert_false(known(1));
        judge_forget(judge, &a.wait);
        end();
}

/* One that leaves before the turn costs nobody a request. */
static void who_left_is_not_asked_about(void **state UNUSED)
{
        struct someone a, b, c;

        begin(USEC_MINUTE);
        ask(&a, 1, true);
        ask(&b, 2, true);
        ask(&c, 3, true);
        judge_forget(judge, &b.wait);
        judge_forget(judge, &a.wait);
        turn();
        assert_int_equal(wire.n, 1);
        assert_string_equal(asked[0].body, "3");
        judge_forget(judge, &c.wait);
        end();
}

/* Callers come, wait, leave, are answered or not, in any order: each that stays hears once, what it hears is
 * what was said. */
static struct random scarcity;
static bool out_of_memory(void *cookie UNUSED) { return random_below(&scarcity, 10) == 0; }

/* scarce: memory is out now and then, for the judge alone. */
static void any_order(bool scarce)
{
        enum { PEOPLE = 40 };
        struct someone people[PEOPLE];
        bool waits[PEOPLE] = { false };
        bool (*const refuses)(void *) = scarce ? out_of_memory : NULL;
        struct random r;

        random_init(&r, 99);
        random_init(&scarcity, 7);
        begin(USEC_MINUTE);
        for (int step = 0; step < 20000; step++) {
                unsigned i = (unsigned)random_below(&r, PEOPLE);

                switch (random_below(&r, 4)) {
                case 0:
                        if (!waits[i] && wire.n < COUNT_OF(asked) - PEOPLE && !known(i % 8)) {
                                people[i] = (struct someone){ .n = i % 8 };
                                memory_of(refuses, NULL);
                                waits[i] = judge_ask(judge, key(i % 8), i % 8 < 6, &people[i].wait);
                                memory_of(NULL, NULL);
                                assert_true(waits[i] || scarce);
                        }
                        break;
                case 1:
                        if (waits[i])
                                judge_forget(judge, &people[i].wait);
                        waits[i] = false;
                        break;
                case 2:
                        for (size_t k = wire.n; k-- > 0;)
                                if (!asked[k].over && random_below(&r, 2)) {
                                        answer(k, 200, (asked[k].body[0] - '0') % 2 ? "?" : "deny");
                                        break;
                                }
                        break;
                default: set.monotonic += (usec)random_below(&r, 2 * USEC_SEC);
                }
                memory_of(refuses, NULL);
                turn();
                memory_of(NULL, NULL);
                for (struct judge_wait *w = random_below(&r, 3) ? judge_take(judge) : NULL; w;
                     w = judge_take(judge)) {
                        struct someone *s = CONTAINER_OF(w, struct someone, wait);

                        assert_true(waits[s - people]);
                        waits[s - people] = false;
                        assert_false(w->verdict->allowed);
                        w->verdict = verdict_release(w->verdict);
                }
        }
        for (unsigned i = 0; i < PEOPLE; i++)
                if (waits[i])
                        judge_forget(judge, &people[i].wait);
        assert_null(judge_take(judge));
        assert_int_equal(judge_deadline(judge), USEC_NEVER);
        assert_true(wire.n > 500);
        end();
}

static void whatever_happens_each_hears_once(void **state UNUSED) { any_order(false); }
static void so_it_is_without_memory(void **state UNUSED) { any_order(true); }

/* ---- the key of an authorizer's callers --------------------------------- */

struct pair {
        const char *name, *value;
};

static void each_header(const struct push_request *q, void (*each)(void *, struct str, struct str),
                        void *cookie)
{
        for (const struct pair *p = q->head; p && p->name; p++)
                each(cookie, str_of(p->name), str_of(p->value));
}

static bool key_of(const struct pair *headers, const char *query, unsigned char out[VERDICT_KEY])
{
        static char token[] = "X-Token", parameter[] = "key";
        static struct apig_identity identities[] = { { .name = token },
                                                     { .name = parameter, .location = APIG_QUERY } };
        static void *list[] = { &identities[0], &identities[1] };
        static const struct apig_authorizer a = { .identity = { list, 2 } };
        const struct push_request q = { .query = str_of(query), .head = headers, .each_header = each_header };

        return apig_authorizer_key(&a, STR("salt"), &q, out) == APIG_KEYED;
}

static void keys_differ_when_anything_does(void **state UNUSED)
{
        static const struct {
                struct pair headers[4];
                const char *query;
        } cases[] = {
                { { { "X-Token", "a" } }, "key=b" },
                { { { "X-Token", "b" } }, "key=a" },
                { { { "X-Token", "ab" } }, "key=c" },
                { { { "X-Token", "a" } }, "key=bc" },
                { { { "X-Token", "A" } }, "key=b" },
                { { { "X-Token", "a" }, { "X-Token", "a" } }, "key=b" },
                { { { "X-Token", "a" } }, "key=b&key=b" },
                { { { "X-Token", "a" }, { "X-Token", "" } }, "key=b" },
                { { { "X-Token", "a" } }, "key=b&key=" },
                { { { "X-Token", "a,a" } }, "key=b" },
                /* What stands for the second identity could be one more value of the first. */
                { { { "X-Token", "a" }, { "X-Token", "b" } }, "key=c" },
                { { { "X-Token", "a" } }, "key=b&key=c" },
                { { { "X-Token", "" }, { "X-Token", "a" } }, "key=b" },
                { { { "X-Token", "a" } }, "key=&key=b" },
                { { { "X-Token", "a" } }, "key=%01%01%00%00%00%00%00%00%00b" },
                { { { "X-Token", "a" }, { "X-Token", "\x01\x01" } }, "key=b" },
        };
        unsigned char keys[COUNT_OF(cases)][VERDICT_KEY], again[VERDICT_KEY];
        const struct pair other[] = { { "X-Other", "1" }, { "x-tOKEN", "a" }, { NULL, NULL } },
                          none[] = { { "X-Tokens", "a" }, { NULL, NULL } },
                          empty[] = { { "X-Token", "" }, { NULL, NULL } };

        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                assert_true(key_of(cases[i].headers, cases[i].query, keys[i]));
                for (size_t k = 0; k < i; k++)
                        assert_memory_not_equal(keys[i], keys[k], VERDICT_KEY);
        }
        assert_true(key_of(other, "a=1&%6bey=%62&b=2", again));
        assert_memory_equal(again, keys[0], VERDICT_KEY);
        assert_false(key_of(none, "key=b", again));
        assert_false(key_of(empty, "key=b", again));
        assert_false(key_of(cases[0].headers, "", again));
        assert_false(key_of(cases[0].headers, "key", again));
        assert_false(key_of(cases[0].headers, "KEY=b", again));
        assert_int_equal(apig_secret_key(STR("salt"), STR("token"), keys[0]), APIG_KEYED);
        assert_int_equal(apig_secret_key(STR("tlas"), STR("token"), keys[1]), APIG_KEYED);
        assert_memory_not_equal(keys[0], keys[1], VERDICT_KEY);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(an_answer_decides_and_is_remembered),
                cmocka_unit_test(nothing_is_remembered_longer_than_it_is_true),
                cmocka_unit_test(what_is_no_answer_refuses_and_is_forgotten),
                cmocka_unit_test(the_same_share_one_question),
                cmocka_unit_test(each_asks_for_itself_where_nothing_may_be_shared),
                cmocka_unit_test(who_left_is_not_asked_about),
                cmocka_unit_test(whatever_happens_each_hears_once),
                cmocka_unit_test(so_it_is_without_memory),
                cmocka_unit_test(keys_differ_when_anything_does),
        };

        log_setup(LOG_ERROR, LOG_LOGFMT);
        return cmocka_run_group_tests_name("judge", tests, NULL, NULL);
}
