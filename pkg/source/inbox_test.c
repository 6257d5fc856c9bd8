/* The inbox against a model: senders that repeat, leave and try again, messages of one or several keys, a
 * function that accepts and fails by chance, and memory that is out now and then. Each call is answered once;
 * what is under way shares no key with anything else under way; what was accepted does not come again. So it
 * is over any number of inboxes, each of which goes on where the one before was. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/random.h"
#include "source/inbox.h"
#include "tests/sim/memory.h"
#include "tests/support/clock.h"

#include <cmocka.h>

enum { CALLS = 4000, IDS = 400, KEYS = 5, PARTS_MOST = 3, BEFORE_MOST = 4 };

struct test_message {
        struct inbox_item item;
        struct record record;
        size_t n;
        unsigned ids[PARTS_MOST];
        uint64_t call;
};
static struct {
        enum { NONE, OPEN, ANSWERED, LEFT } state;
        int status;
        bool lent;
        struct inbox *inbox;
} calls[CALLS + 1];
static struct {
        bool accepted;
} ids[IDS]; /* the key of an id is id % KEYS */
static struct test_message *lent[CALLS];
static size_t lent_n, alive, deliveries;
static struct random r;
static struct inbox *inbox, *before[BEFORE_MOST]; /* before: those that finish what they have */
static unsigned successions;
static struct loop *loop;
static struct task wake;
static struct push_reply reply;
static unsigned starved_percent;
static size_t refused_for_memory;

/* Within the inbox alone. */
static bool out_of_memory(void *cookie UNUSED) { return random_below(&r, 100) < starved_percent; }
static void memory_gets_scarce(void) { memory_of(starved_percent ? out_of_memory : NULL, NULL); }
static void memory_is_back(void) { memory_of(NULL, NULL); }

static struct set_clock set;
static const struct clock test_clock = SET_CLOCK(&set);
static struct services services = { .clock = &test_clock };

static size_t records_of(void *cookie UNUSED, struct inbox_item *i, struct record **records,
                         size_t most UNUSED)
{
        struct test_message *m = CONTAINER_OF(i, struct test_message, item);
        bool something = false;
        char text[16];

        for (size_t k = 0; k < m->n; k++) {
                (void)snprintf(text, sizeof(text), "id%u", m->ids[k]);
                something = something || !inbox_knows(inbox, str_of(text));
        }
        m->record.origin = m;
        records[0] = &m->record;
        if (something && out_of_memory(NULL))
                return INBOX_NO_MEMORY;
        return something;
}

static void drop_message(void *cookie UNUSED, struct inbox_item *i)
{
        alive--;
        free(CONTAINER_OF(i, struct test_message, item));
}

static void answered(uint64_t call, int status)
{
        assert_int_equal(calls[call].state, OPEN);
        calls[call].state = ANSWERED;
        calls[call].status = status;
}

static void add(uint64_t call, const unsigned *which, size_t n)
{
        struct test_message *m;
        bool put_off;
        char id_text[PARTS_MOST][16], key_text[PARTS_MOST][16];
        struct str id[PARTS_MOST], key[PARTS_MOST];

        calls[call].state = OPEN;
        calls[call].inbox = inbox;
        memory_gets_scarce();
        put_off = inbox_put_off(inbox);
        memory_is_back();
        if (!put_off) {
                refused_for_memory++;
                answered(call, 503);
                return;
        }
        m = calloc(1, sizeof(*m));
        alive++;
        m->call = call;
        m->n = n;
        for (size_t k = 0; k < n; k++) {
                m->ids[k] = which[k];
                (void)snprintf(id_text[k], sizeof(id_text[k]), "id%u", which[k]);
                (void)snprintf(key_text[k], sizeof(key_text[k]), "key%u", which[k] % KEYS);
                id[k] = str_of(id_text[k]);
                key[k] = str_of(key_text[k]);
        }
        memory_gets_scarce();
        inbox_add(inbox, &m->item, call, id, key, n);
        memory_is_back();
}

static void take_lent(struct test_message *m)
{
        for (size_t i = 0; i < lent_n; i++)
                for (size_t a = 0; a < m->n; a++)
                        for (size_t b = 0; b < lent[i]->n; b++)
                                assert_int_not_equal(m->ids[a] % KEYS, lent[i]->ids[b] % KEYS);
        lent[lent_n++] = m;
        deliveries++;
}

static void take_event(const struct push_event *e)
{
        if (e->kind != PUSH_EVENT_CALL)
                return;
        if (e->verdict == PUSH_REPLY) {
                answered(e->call, e->reply->status);
                return;
        }
        assert_int_equal(calls[e->call].state, OPEN);
        calls[e->call].lent = true;
        take_lent(CONTAINER_OF(e->records[0], struct test_message, record));
        assert_int_equal(lent[lent_n - 1]->item.call, e->call);
}

/* true: it has closed. */
static bool poll_one(struct inbox *of)
{
        struct push_event events[16];
        size_t n;

        for (;;) {
                memory_gets_scarce();
                n = inbox_poll(of, events, COUNT_OF(events), set.monotonic);
                memory_is_back();
                if (!n)
                        return false;
                for (size_t i = 0; i < n; i++)
                        take_event(&events[i]);
                if (events[n - 1].kind == PUSH_EVENT_CLOSED)
                        return true;
        }
}

static void poll_all(void)
{
        (void)poll_one(inbox);
        for (size_t i = 0; i < BEFORE_MOST; i++)
                if (before[i] && poll_one(before[i]))
                        before[i] = inbox_free(before[i]);
}

static const struct inbox_config model = { .services = &services,
                                           .patience = USEC_SEC,
                                           .remember_most = IDS,
                                           .records = records_of,
                                           .drop = drop_message };

/* The Trigger was edited. */
static void succeed(void)
{
        struct inbox *next;
        struct error err;

        for (size_t i = 0; i < BEFORE_MOST; i++) {
                if (before[i])
                        continue;
                assert_int_equal(inbox_new(&next, &model, &err), 0);
                inbox_inherit(next, inbox);
                inbox_stop(inbox);
                before[i] = inbox;
                inbox = next;
                successions++;
                return;
        }
}

static void end_one(size_t at, enum push_result result)
{
        struct test_message *m = lent[at];
        uint64_t call = m->item.call;
        struct push_outcome o = { .result = result };

        lent[at] = lent[--lent_n];
        if (result == PUSH_ACCEPTED)
                for (size_t k = 0; k < m->n; k++)
                        ids[m->ids[k]].accepted = true;
        reply.headers.max = reply.body.max = 4096;
        buf_reset(&reply.headers);
        buf_reset(&reply.body);
        memory_gets_scarce();
        inbox_finish(m->item.inbox, &m->item, &o, &reply);
        memory_is_back();
        if (result == PUSH_GONE)
                calls[call].state = LEFT;
        else
                answered(call, reply.status);
}

static void leave(uint64_t call)
{
        if (calls[call].state != OPEN)
                return;
        for (size_t i = 0; i < lent_n; i++)
                if (lent[i]->item.call == call) {
                        end_one(i, PUSH_GONE);
                        return;
                }
        memory_gets_scarce();
        assert_true(inbox_gone(calls[call].inbox, call));
        memory_is_back();
        calls[call].state = LEFT;
}

static void run(uint64_t seed)
{
        struct error err;
        uint64_t call = 0;

        random_init(&r, seed);
        memset(calls, 0, sizeof(calls));
        memset(ids, 0, sizeof(ids));
        set.monotonic = USEC_HOUR;
        alive = lent_n = deliveries = 0;
        assert_int_equal(inbox_new(&inbox, &model, &err), 0);
        while (call < CALLS) {
                if (random_below(&r, 50) == 0)
                        succeed();
                switch (random_below(&r, 8)) {
                case 0:
                case 1:
                case 2: {
                        unsigned which[PARTS_MOST];
                        size_t n = random_below(&r, 4) ? 1 : 1 + random_below(&r, PARTS_MOST);

                        for (size_t k = 0; k < n; k++)
                                which[k] = (unsigned)MIN_OF(random_below(&r, 20) + call / 12,
                                                            (uint64_t)IDS - 1);
                        add(++call, which, n);
                        break;
                }
                case 3:
                case 4:
                        if (lent_n)
                                end_one(random_below(&r, lent_n),
                                        random_below(&r, 4) ? PUSH_ACCEPTED : PUSH_FAILED);
                        break;
                case 5:
                        if (call && random_below(&r, 4) == 0)
                                leave(call - random_below(&r, MIN_OF(call, (uint64_t)30)));
                        break;
                case 6: set.monotonic += (usec)random_below(&r, 30) * USEC_MSEC; break;
                default: poll_all(); break;
                }
        }
        for (int rounds = 0; rounds < 10 * CALLS && (alive || lent_n); rounds++) {
                poll_all();
                if (lent_n)
                        end_one(0, PUSH_ACCEPTED);
        }
        poll_all();
        assert_int_equal(alive, 0);
        for (size_t i = 0; i < BEFORE_MOST; i++)
                assert_null(before[i]); /* each has come to its end */
        for (uint64_t c = 1; c <= CALLS; c++)
                assert_true(calls[c].state == ANSWERED || calls[c].state == LEFT);
        inbox = inbox_free(inbox);
        assert_true(deliveries > IDS / 2);
}

static void no_turn(struct task *t UNUSED, usec at UNUSED) {}

static void every_call_is_answered_once(void **state UNUSED)
{
        for (uint64_t seed = 1; seed <= 40; seed++)
                run(seed);
        assert_true(successions > 1000);
}

static void so_it_is_without_memory(void **state UNUSED)
{
        refused_for_memory = 0;
        for (uint64_t seed = 1; seed <= 40; seed++) {
                starved_percent = 1 + (unsigned)seed % 20;
                run(seed);
        }
        starved_percent = 0;
        assert_true(refused_for_memory > 100);
}

/* What was accepted is not lent again, as long as it is remembered. */
static void what_was_accepted_stays_so(void **state UNUSED)
{
        struct inbox_config config = { .services = &services,
                                       .patience = USEC_SEC,
                                       .remember_most = 3,
                                       .records = records_of,
                                       .drop = drop_message };
        struct error err;
        unsigned id;

        memset(calls, 0, sizeof(calls));
        set.monotonic = USEC_HOUR;
        lent_n = 0;
        assert_int_equal(inbox_new(&inbox, &config, &err), 0);
        for (id = 0; id < 5; id++) {
                add(1 + id, &id, 1);
                poll_all();
                assert_int_equal(lent_n, 1);
                end_one(0, PUSH_ACCEPTED);
        }
        assert_false(inbox_knows(inbox, STR("id1")));
        assert_true(inbox_knows(inbox, STR("id2")));
        id = 4;
        add(10, &id, 1);
        poll_all();
        assert_int_equal(lent_n, 0);
        assert_int_equal(calls[10].status, 200);
        set.monotonic += USEC_HOUR;
        assert_false(inbox_knows(inbox, STR("id4")));
        /* One that waits too long is told so, and those that joined it. */
        id = 20;
        add(20, &id, 1);
        poll_all();
        id = 25;
        add(21, &id, 1);
        add(22, &id, 1);
        poll_all();
        assert_int_equal(lent_n, 1);
        assert_int_equal(inbox_deadline(inbox), set.monotonic + USEC_SEC);
        set.monotonic += USEC_SEC;
        poll_all();
        assert_int_equal(calls[21].status, 503);
        assert_int_equal(calls[22].status, 503);
        add(23, &id, 1);
        inbox = inbox_free(inbox); /* with some of it under way */
        assert_int_equal(alive, 0);
}

/* One that ends before what it has is delivered: whoever joined it elsewhere is told to try again, and who
 * stood behind it is next. */
static void one_that_ends_early_holds_nobody_up(void **state UNUSED)
{
        unsigned id = 1, other = 1 + KEYS;
        struct error err;

        memset(calls, 0, sizeof(calls));
        lent_n = 0;
        assert_int_equal(inbox_new(&inbox, &model, &err), 0);
        add(1, &id, 1);
        poll_all();
        assert_int_equal(lent_n, 1);
        succeed();
        add(2, &id, 1);
        add(3, &other, 1); /* of the same key */
        poll_all();
        assert_int_equal(lent_n, 1);
        assert_ptr_equal(before[0], lent[0]->item.inbox);
        lent_n = 0;
        before[0] = inbox_free(before[0]);
        poll_all();
        assert_int_equal(calls[2].status, 503);
        assert_int_equal(lent_n, 1);
        assert_int_equal(lent[0]->item.call, 3);
        end_one(0, PUSH_ACCEPTED);
        assert_int_equal(calls[3].status, 200);
        assert_int_equal(alive, 0);
        inbox = inbox_free(inbox);
}

static void expect_state(enum source_state state, const char *text)
{
        struct push_event e = { .kind = PUSH_EVENT_CLOSED };

        assert_int_equal(inbox_poll(inbox, &e, 1, set.monotonic), 1);
        assert_int_equal(e.kind, PUSH_EVENT_STATE);
        assert_int_equal(e.state, state);
        assert_string_equal(e.text, text);
        assert_int_equal(inbox_poll(inbox, &e, 1, set.monotonic), 0);
}

static void how_it_is_said_to_be(void **state UNUSED)
{
        struct inbox_config config = { .services = &services,
                                       .remember_most = 3,
                                       .waiting_for = "waiting",
                                       .records = records_of,
                                       .drop = drop_message };
        struct push_event e;
        struct error err;

        assert_int_equal(inbox_new(&inbox, &config, &err), 0);
        expect_state(SOURCE_CONNECTING, "waiting");
        inbox_say(inbox, SOURCE_DISCONNECTED, "403");
        expect_state(SOURCE_DISCONNECTED, "403");
        inbox_say(inbox, SOURCE_DISCONNECTED, "403");
        assert_int_equal(inbox_poll(inbox, &e, 1, set.monotonic), 0);
        inbox_connected(inbox); /* messages come, whatever the API says */
        expect_state(SOURCE_CONNECTED, "403");
        inbox_trouble(inbox, "no certificate");
        expect_state(SOURCE_CONNECTED, "403; no certificate");
        inbox_say(inbox, SOURCE_CONNECTING, "");
        inbox_trouble(inbox, NULL);
        expect_state(SOURCE_CONNECTED, "");
        inbox_disconnected(inbox);
        expect_state(SOURCE_CONNECTING, "waiting");
        inbox_connected(inbox);
        inbox_say(inbox, SOURCE_REMOVED, "cancelled");
        expect_state(SOURCE_REMOVED, "cancelled");
        inbox = inbox_free(inbox);
}

int main(void)
{
        const struct CMUnitTest tests[] = { cmocka_unit_test(every_call_is_answered_once),
                                            cmocka_unit_test(so_it_is_without_memory),
                                            cmocka_unit_test(what_was_accepted_stays_so),
                                            cmocka_unit_test(one_that_ends_early_holds_nobody_up),
                                            cmocka_unit_test(how_it_is_said_to_be) };
        struct error err;
        int result;

        if (loop_new(&loop, &err) < 0)
                return 1;
        services.loop = loop;
        services.wake = &wake;
        wake.turn = no_turn;
        result = cmocka_run_group_tests_name("inbox", tests, NULL, NULL);
        loop_forget(loop, &wake);
        loop = loop_free(loop);
        buf_done(&reply.headers);
        buf_done(&reply.body);
        return result;
}
