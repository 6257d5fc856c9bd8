/* Which name servers are asked: those of a file that may change, with two of our own on loopback. */
#include "http/client/resolver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/dns.h"

static struct loop *loop;
static struct resolver *resolver;
static struct test_dns first, second;
static char folder[] = "/tmp/resolver-test-XXXXXX", path[64], got[512];
static int answers;
static struct task watchdog;

static void too_late(struct task *t UNUSED, usec now UNUSED) { loop_stop(loop); }

/* As editors and network managers do: another file in its place. */
static void write_file(const struct test_dns *server)
{
        char fresh[80];
        FILE *f;

        (void)snprintf(fresh, sizeof(fresh), "%s.new", path);
        f = fopen(fresh, "w");
        assert_non_null(f);
        assert_true(fprintf(f, "nameserver %.*s\n", (int)strcspn(server->at, ":"), server->at) > 0);
        assert_int_equal(fclose(f), 0);
        assert_int_equal(rename(fresh, path), 0);
}

static int setup(void **state UNUSED)
{
        struct error err;

        strcpy(folder + strlen(folder) - 6, "XXXXXX");
        if (!mkdtemp(folder) || loop_new(&loop, &err) < 0 || resolver_new(&resolver, loop, &err) < 0)
                return -1;
        (void)snprintf(path, sizeof(path), "%s/resolv.conf", folder);
        test_dns_open(&first, loop);
        test_dns_open_at(&second, loop, "127.0.0.2", first.port);
        first.a[0] = "127.0.0.1";
        second.a[0] = "127.0.0.2";
        watchdog = (struct task){ .turn = too_late };
        answers = 0;
        got[0] = 0;
        return 0;
}

static int teardown(void **state UNUSED)
{
        resolver = resolver_free(resolver);
        test_dns_close(&first);
        test_dns_close(&second);
        loop_forget(loop, &watchdog);
        loop = loop_free(loop);
        (void)unlink(path);
        return rmdir(folder);
}

static void answered(void *cookie UNUSED, const struct resolved *r, const struct error *err)
{
        answers++;
        (void)snprintf(got, sizeof(got), "%s", err ? err->text : r->addresses[0]);
        loop_stop(loop);
}

static void use_file(void)
{
        struct error err;

        assert_int_equal(resolver_use_file(resolver, path, first.port, &err), 0);
}

static void run_for(usec most)
{
        loop_arm(loop, &watchdog, loop_now(loop) + most);
        loop_run(loop);
}

static void run(void) { run_for(20 * USEC_SEC); }

static void expect(const char *address)
{
        resolver_ask(resolver, "function.shop.test.", answered, NULL);
        run();
        assert_string_equal(got, address);
}

static void stop(struct task *t UNUSED, usec now UNUSED) { loop_stop(loop); }

/* What inotify tells is there at once, and is acted upon in the pass that follows. */
static void turn(int passes)
{
        struct task over = { .turn = stop };

        while (passes--) {
                loop_ready(loop, &over);
                loop_run(loop);
        }
}

static void servers_that_are_others_by_now_are_asked(void **state UNUSED)
{
        write_file(&second);
        use_file();
        write_file(&first); /* before the first question */
        expect("127.0.0.1");
        write_file(&second);
        turn(3);
        expect("127.0.0.2");
        assert_int_equal(first.questions, 1);
}

/* Such as one of a process that is older than its network. */
static void an_open_question_is_put_to_the_new_servers(void **state UNUSED)
{
        first.silent = true;
        write_file(&first);
        use_file();
        resolver_ask(resolver, "function.shop.test.", answered, NULL);
        while (!first.questions)
                turn(1);
        assert_int_equal(answers, 0);
        write_file(&second);
        run();
        assert_int_equal(answers, 1);
        assert_string_equal(got, "127.0.0.2");
}

static void who_was_forgotten_is_not_answered_by_them(void **state UNUSED)
{
        int me;

        first.silent = true;
        write_file(&first);
        use_file();
        resolver_ask(resolver, "function.shop.test.", answered, &me);
        resolver_forget(resolver, &me);
        write_file(&second);
        expect("127.0.0.2");
        assert_int_equal(answers, 1);
}

/* Something between drops what concerns the other family: c-ares alone would wait for it for 14 seconds. */
static void one_family_s_silence_keeps_nobody_waiting(void **state UNUSED)
{
        first.silent_aaaa = true;
        write_file(&first);
        use_file();
        resolver_ask(resolver, "function.shop.test.", answered, NULL);
        run_for(6 * USEC_SEC);
        assert_string_equal(got, "127.0.0.1");
        assert_int_equal(answers, 1);

        first.silent_a = true;
        first.silent_aaaa = false;
        first.aaaa[0] = "::1";
        resolver_ask(resolver, "function.shop.test.", answered, NULL);
        run_for(7 * USEC_SEC);
        assert_string_equal(got, "::1");
        assert_int_equal(answers, 2); /* what is under way still is freed with the resolver */
}

/* What was asked of the servers before is asked of the new ones, and each family alone after its time. */
static void new_servers_may_be_silent_about_one_family(void **state UNUSED)
{
        first.silent = second.silent_aaaa = true;
        write_file(&first);
        use_file();
        resolver_ask(resolver, "function.shop.test.", answered, NULL);
        while (first.questions < 3) /* at once, again, and for A alone */
                run_for(10 * USEC_MSEC);
        write_file(&second);
        run_for(6 * USEC_SEC);
        assert_string_equal(got, "127.0.0.2");
        assert_int_equal(answers, 1);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(servers_that_are_others_by_now_are_asked, setup, teardown),
                cmocka_unit_test_setup_teardown(an_open_question_is_put_to_the_new_servers, setup, teardown),
                cmocka_unit_test_setup_teardown(who_was_forgotten_is_not_answered_by_them, setup, teardown),
                cmocka_unit_test_setup_teardown(one_family_s_silence_keeps_nobody_waiting, setup, teardown),
                cmocka_unit_test_setup_teardown(new_servers_may_be_silent_about_one_family, setup, teardown),
        };

        return cmocka_run_group_tests_name("resolver", tests, NULL, NULL);
}
