/* The admin port itself, whose answers are taken here instead of sent. */
#define http_call_reply test_reply
#define http_call_reply_take test_reply_take
#define http_call_room test_room
#include "worker/admin.c"
#include "worker/snapshot.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include "tests/support/trigger.h"

#include <cmocka.h>

enum { MANY = 1000 };
static struct http_call {
        int status;
        struct buf body;
} calls[SNAPSHOT_READY + 1], scrapes[20];
static struct admin admin;
static struct walk *const reports = &admin.walks[ADMIN_REPORTS];
static struct trigger *trigger, triggers[MANY];
static char names[MANY][16];
static struct admin_entry entries[MANY], others[MANY];

static size_t unread;
bool test_room(struct http_call *c UNUSED, size_t most) { return unread <= most; }
void test_reply(struct http_call *c, int status, struct str type UNUSED, struct str headers UNUSED,
                struct str body)
{
        c->status = status;
        buf_str(&c->body, body);
}
void test_reply_take(struct http_call *c, int status, struct str type UNUSED, struct str headers UNUSED,
                     struct buf *body)
{
        c->status = status;
        c->body = *body;
        *body = (struct buf){ 0 };
}

static int setup(void **state UNUSED)
{
        static char failure[] = "no";
        struct error err;

        memset(&admin, 0, sizeof(admin));
        assert_int_equal(loop_new(&admin.loop, &err), 0);
        admin.task.turn = go_on;
        trigger = test_trigger_of((struct test_trigger_spec){ 0 });
        for (size_t i = 0; i < MANY; i++) {
                (void)snprintf(names[i], sizeof(names[i]), "t%zu", i);
                triggers[i] = *trigger;
                triggers[i].name = names[i];
                entries[i] = others[i] = (struct admin_entry){ .failure = failure, .trigger = &triggers[i] };
                admin_add(&admin, &entries[i]);
        }
        for (size_t i = 0; i < COUNT_OF(calls); i++)
                calls[i] = (struct http_call){ .body = BUF_INIT(65536) };
        memset(scrapes, 0, sizeof(scrapes));
        return 0;
}

static int teardown(void **state UNUSED)
{
        for (struct list_node *n; (n = admin.entries.first);)
                admin_remove(LIST_ITEM(n, struct admin_entry, node));
        for (size_t i = 0; i < COUNT_OF(calls); i++)
                buf_done(&calls[i].body);
        for (size_t i = 0; i < COUNT_OF(scrapes); i++)
                buf_done(&scrapes[i].body);
        loop_forget(admin.loop, &admin.task);
        admin.loop = loop_free(admin.loop);
        (void)trigger_free(trigger);
        return 0;
}

static size_t count(const struct http_call *c, const char *text)
{
        size_t n = 0;

        for (const char *at = c->body.p; (at = strstr(at, text)); at++)
                n++;
        return n;
}

/* How often each is shown is what its place says: '0' or '1'. */
static void expect_shown(const struct http_call *c, const char *before, const char *wanted)
{
        for (size_t i = 0; i < MANY; i++) {
                char text[128];

                (void)snprintf(text, sizeof(text), "%s\"t%zu\",", before, i);
                if (count(c, text) != (size_t)(wanted[i] - '0'))
                        fail_msg("%s: %zu times", names[i], count(c, text));
        }
}
static const char METRIC[] = "sluice_source_lag{namespace=\"shop\",trigger=", NAME[] = "\"name\":";

static unsigned turns_until(const struct http_call *c)
{
        unsigned n = 0;

        for (; !c->status; n++)
                go_on(&admin.task, 0);
        return n;
}

/* The lines of a metric stand together, below what it is. */
static void expect_in_order(const struct http_call *c)
{
        struct str rest = buf_view(&c->body), name = { 0 };
        size_t types = 0;

        while (rest.n) {
                struct str line = str_cut(&rest, '\n');

                if (str_starts(line, STR("# HELP ")))
                        continue;
                if (str_starts(line, STR("# TYPE "))) {
                        (void)str_cut(&line, ' ');
                        (void)str_cut(&line, ' ');
                        name = str_cut(&line, ' ');
                        types++;
                } else if (!str_starts(line, name) || line.p[name.n] != '{')
                        fail_msg(STR_FMT, STR_ARG(line));
        }
        assert_int_equal(types, PARTS);
}

static void thousands_are_shown_a_few_in_a_pass_one_answer_after_the_other(void **state UNUSED)
{
        char all[MANY];

        memset(all, '1', sizeof(all));
        show(&admin, SNAPSHOT_METRICS, &calls[0]);
        show(&admin, SNAPSHOT_STATUS, &calls[1]);
        assert_int_equal(calls[0].status + calls[1].status, 0);
        for (size_t i = 0; i < SHOWN_AT_ONCE; i++)
                assert_int_equal(entries[i].shot[ADMIN_REPORTS], reports->shot);
        assert_int_not_equal(entries[SHOWN_AT_ONCE].shot[ADMIN_REPORTS], reports->shot);
        assert_true(turns_until(&calls[0]) >= MANY / SHOWN_AT_ONCE);
        assert_int_equal(calls[0].status, 200);
        assert_int_equal(calls[1].status, 0);
        expect_shown(&calls[0], METRIC, all);
        expect_in_order(&calls[0]);
        assert_true(turns_until(&calls[1]) >= MANY / SHOWN_AT_ONCE);
        expect_shown(&calls[1], NAME, all);
        assert_int_equal(reports->shots.n, 0);
}

/* Prometheus takes nothing where one is there twice. */
static void what_changes_meanwhile_is_shown_once(void **state UNUSED)
{
        char wanted[MANY];

        memset(wanted, '1', sizeof(wanted));
        show(&admin, SNAPSHOT_METRICS, &calls[0]);
        assert_ptr_equal(reports->next, &entries[SHOWN_AT_ONCE].node);
        admin_remove(&entries[SHOWN_AT_ONCE]); /* the next one */
        admin_remove(&entries[500]);
        wanted[SHOWN_AT_ONCE] = wanted[500] = '0';
        admin_remove(&entries[3]); /* was shown, and comes again */
        admin_add(&admin, &entries[3]);
        admin_remove(&entries[600]); /* was not */
        admin_add(&admin, &entries[600]);
        admin_replace(&entries[10], &others[10]);
        admin_replace(&entries[700], &others[700]);
        admin_replace(&entries[SHOWN_AT_ONCE + 1], &others[SHOWN_AT_ONCE + 1]); /* the next one */
        (void)turns_until(&calls[0]);
        expect_shown(&calls[0], METRIC, wanted);
        /* and as they are now */
        show(&admin, SNAPSHOT_STATUS, &calls[1]);
        (void)turns_until(&calls[1]);
        expect_shown(&calls[1], NAME, wanted);
}

static void the_last_one_may_leave_and_come_back(void **state UNUSED)
{
        char wanted[MANY];

        memset(wanted, '1', sizeof(wanted));
        show(&admin, SNAPSHOT_METRICS, &calls[0]);
        for (size_t i = SHOWN_AT_ONCE; i < MANY; i++)
                admin_remove(&entries[i]);
        for (size_t i = SHOWN_AT_ONCE; i < MANY; i++)
                admin_add(&admin, &entries[i]);
        while (!reports->all_shown)
                go_on(&admin.task, 0);
        admin_remove(&entries[MANY - 1]); /* too late to be shown again */
        admin_add(&admin, &entries[MANY - 1]);
        (void)turns_until(&calls[0]);
        expect_shown(&calls[0], METRIC, wanted);
}

static void without_triggers_there_is_an_answer_at_once(void **state UNUSED)
{
        for (size_t i = 0; i < MANY; i++)
                admin_remove(&entries[i]);
        show(&admin, SNAPSHOT_METRICS, &calls[0]);
        show(&admin, SNAPSHOT_STATUS, &calls[1]);
        assert_int_equal(calls[0].status, 200);
        expect_in_order(&calls[0]);
        assert_string_equal(calls[1].body.p, "{\"triggers\":[]}");
        show(&admin, SNAPSHOT_READY, &calls[2]);
        assert_int_equal(calls[2].status, 200);
        assert_string_equal(calls[2].body.p, "ok\n");
}

static void a_probe_is_answered_a_few_in_a_pass_whatever_else_is_asked(void **state UNUSED)
{
        struct str rest;

        for (int i = 0; i < 20; i++)
                show(&admin, SNAPSHOT_METRICS, &scrapes[i]);
        show(&admin, SNAPSHOT_READY, &calls[SNAPSHOT_READY]);
        assert_int_equal(calls[SNAPSHOT_READY].status, 0);
        assert_int_equal(turns_until(&calls[SNAPSHOT_READY]), MANY / PROBED_AT_ONCE);
        assert_int_equal(scrapes[1].status, 0);
        assert_int_equal(calls[SNAPSHOT_READY].status, 503);
        rest = buf_view(&calls[SNAPSHOT_READY].body);
        for (size_t i = 0; i < MANY; i++) {
                char line[64];

                (void)snprintf(line, sizeof(line), "shop/t%zu: Failed: no", i);
                assert_true(str_is(str_cut(&rest, '\n'), line));
        }
        assert_int_equal(rest.n, 0);
        while (reports->shots.n)
                go_on(&admin.task, 0);
}

static void a_probe_under_way_hears_that_it_drains(void **state UNUSED)
{
        for (size_t i = 0; i < MANY; i++)
                entries[i].failure = NULL;
        show(&admin, SNAPSHOT_READY, &calls[SNAPSHOT_READY]);
        assert_int_equal(calls[SNAPSHOT_READY].status, 0);
        admin_drain(&admin);
        (void)turns_until(&calls[SNAPSHOT_READY]);
        assert_int_equal(calls[SNAPSHOT_READY].status, 503);
        assert_int_equal(count(&calls[SNAPSHOT_READY], "draining\n"), 1);
        buf_reset(&calls[SNAPSHOT_READY].body);
        ready(&admin, &calls[SNAPSHOT_READY]);
        assert_string_equal(calls[SNAPSHOT_READY].body.p, "draining\n");
}

static void what_is_not_read_is_bounded(void **state UNUSED)
{
        unread = UNREAD_MOST - 1000;
        for (int kind = SNAPSHOT_METRICS; kind <= SNAPSHOT_READY; kind++) {
                show(&admin, (enum snapshot_kind)kind, &calls[kind]);
                (void)turns_until(&calls[kind]);
                assert_int_equal(calls[kind].status, 503);
        }
        assert_int_equal(count(&calls[SNAPSHOT_READY], "not read"), 1);
        for (size_t i = 0; i < MANY; i++) /* an answer that is no more than "ok" is given in any case */
                admin_remove(&entries[i]);
        buf_reset(&calls[SNAPSHOT_READY].body);
        show(&admin, SNAPSHOT_READY, &calls[SNAPSHOT_READY]);
        assert_int_equal(calls[SNAPSHOT_READY].status, 200);
        unread = 0;
        assert_int_equal(reports->shots.n, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(
                        thousands_are_shown_a_few_in_a_pass_one_answer_after_the_other, setup, teardown),
                cmocka_unit_test_setup_teardown(what_changes_meanwhile_is_shown_once, setup, teardown),
                cmocka_unit_test_setup_teardown(the_last_one_may_leave_and_come_back, setup, teardown),
                cmocka_unit_test_setup_teardown(what_is_not_read_is_bounded, setup, teardown),
                cmocka_unit_test_setup_teardown(a_probe_is_answered_a_few_in_a_pass_whatever_else_is_asked,
                                                setup, teardown),
                cmocka_unit_test_setup_teardown(a_probe_under_way_hears_that_it_drains, setup, teardown),
                cmocka_unit_test_setup_teardown(without_triggers_there_is_an_answer_at_once, setup, teardown),
        };

        return cmocka_run_group_tests_name("snapshot", tests, NULL, NULL);
}
