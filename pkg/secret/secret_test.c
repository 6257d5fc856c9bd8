#include "secret/secret.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

static struct loop *loop;
static char folder[] = "/tmp/secret-test-XXXXXX";
static const struct secret_ref ref = { (char *)(uintptr_t) "keys", (char *)(uintptr_t) "token" };

/* As the kubelet does: a new folder, and then the link to it is renamed over the old one. */
static void mount(const char *version, const char *value)
{
        char text[512];

        (void)snprintf(text, sizeof(text),
                       "cd %s && mkdir -p keys keys/..%s && printf '%s' >keys/..%s/token && ln -s ..%s "
                       "keys/..new && mv -T keys/..new keys/..data && ln -sfn ..data/token keys/token",
                       folder, version, value, version, version);
        assert_int_equal(system(text), 0);
}

static int setup(void **state UNUSED)
{
        struct error err;

        return mkdtemp(folder) ? loop_new(&loop, &err) : -1;
}

static int teardown(void **state UNUSED)
{
        char text[256];

        assert_null(*loop_place(loop, LOOP_SECRETS));
        assert_null(*loop_place(loop, LOOP_WATCHER));
        loop = loop_free(loop);
        (void)snprintf(text, sizeof(text), "rm -rf %s", folder);
        return system(text);
}

static void what_is_missing_is_named(void **state UNUSED)
{
        BUF_AT_END struct buf out = BUF_INIT(64), told = BUF_INIT(256);
        struct secret s;
        struct error err;

        assert_int_equal(secret_read(NULL, &ref, &out, &err), -1);
        assert_string_equal(err.text,
                            "Secret keys, key token: no folder of Secrets is given: say --secrets=DIR");
        assert_int_equal(secret_open(&s, loop, NULL, &ref, NULL, &err), -1);
        assert_string_equal(err.text,
                            "Secret keys, key token: no folder of Secrets is given: say --secrets=DIR");
        assert_int_equal(secret_read(folder, &ref, &out, &err), -1);
        assert_non_null(strstr(err.text, "Secret keys, key token: open "));
        mount("empty", " \\n");
        assert_int_equal(secret_read(folder, &ref, &out, &err), -1);
        assert_non_null(strstr(err.text, "is empty"));
        assert_int_equal(secret_open(&s, loop, folder, &ref, NULL, &err), 0);
        assert_null(secret_value(&s).p);
        assert_null(secret_last(&s).p);
        secret_done(&s);
        secret_tell_gone(&ref, &told);
        assert_string_equal(told.p, "Secret keys, key token, is missing or empty");
        mount("nul", "half\\000of it");
        assert_int_equal(secret_read(folder, &ref, &out, &err), -1);
        assert_non_null(strstr(err.text, "holds a NUL byte: expected text"));
        mount("long", "0123456789012345678901234567890123456789012345678901234567890123456789");
        assert_int_equal(secret_read(folder, &ref, &out, &err), -1);
        assert_non_null(strstr(err.text, "is too long"));
}

static void run(const char *command)
{
        char text[512];

        (void)snprintf(text, sizeof(text), "cd %s && %s", folder, command);
        assert_int_equal(system(text), 0);
}

static void expect(struct secret *s, bool changed, const char *value, const char *last)
{
        assert_int_equal(secret_look(s), changed);
        assert_true(value ? str_is(secret_value(s), value) : !secret_value(s).p && secret_gone(s));
        assert_true(str_is(secret_last(s), last));
        assert_false(secret_look(s));
}

static void what_was_removed_is_no_value_any_more(void **state UNUSED)
{
        struct secret s;
        struct error err;

        mount("1", " one \\n");
        assert_int_equal(secret_open(&s, loop, folder, &ref, NULL, &err), 0);
        expect(&s, false, " one", " one");
        mount("2", "two");
        expect(&s, true, "two", "two");
        mount("3", "");
        expect(&s, true, NULL, "two");
        mount("4", "four");
        expect(&s, true, "four", "four");
        run("rm keys/token"); /* one key of the Secret */
        expect(&s, true, NULL, "four");
        run("ln -s ..data/token keys/token");
        expect(&s, true, "four", "four");
        run("mv keys gone"); /* the whole Secret */
        expect(&s, true, NULL, "four");
        run("mv gone keys");
        expect(&s, true, "four", "four");
        run(": >keys/..data/token"); /* a file that is emptied in its place */
        expect(&s, true, NULL, "four");
        run("rm -r keys && mkdir keys && mkdir keys/token");
        assert_true(secret_look(&s) || secret_gone(&s));
        assert_null(secret_value(&s).p);
        run("rm -r keys");
        secret_done(&s);
}

static void on_woken(struct task *task UNUSED, usec now UNUSED) { loop_stop(loop); }

/* Two ask for one value: it is read once, and each hears of a change of its own. */
static void users_share_a_value_and_each_sees_its_version(void **state UNUSED)
{
        struct task woken = { .turn = on_woken };
        struct secret first, second;
        struct error err;

        (void)alarm(20);
        mount("5", "five");
        assert_int_equal(secret_open(&first, loop, folder, &ref, &woken, &err), 0);
        assert_int_equal(secret_open(&second, loop, folder, &ref, NULL, &err), 0);
        assert_ptr_equal(first.entry, second.entry);
        assert_false(secret_changed(&first));
        mount("6", "six");
        while (!secret_changed(&first))
                loop_run(loop); /* woken by the value, not by looking */
        assert_true(str_is(secret_value(&first), "six"));
        assert_true(str_is(secret_value(&second), "six"));
        assert_false(secret_changed(&first));
        assert_true(secret_changed(&second));
        assert_false(secret_changed(&second));
        secret_done(&first);
        assert_true(str_is(secret_value(&second), "six"));
        secret_done(&second);
        secret_done(&second);
        loop_forget(loop, &woken);
        (void)alarm(0);
}

/* Whoever has nothing to say would be waited for, and a device has no end. */
static void only_a_file_is_a_value(void **state UNUSED)
{
        static const char *const others[] = { "mkfifo keys/token", "ln -s /dev/zero keys/token" };
        struct secret s;
        struct error err;

        (void)alarm(20);
        mount("7", "seven");
        assert_int_equal(secret_open(&s, loop, folder, &ref, NULL, &err), 0);
        for (size_t i = 0; i < COUNT_OF(others); i++) {
                BUF_AT_END struct buf out = BUF_INIT(64);

                run("rm keys/token");
                run(others[i]);
                expect(&s, true, NULL, "seven");
                assert_int_equal(secret_read(folder, &ref, &out, &err), -1);
                assert_non_null(strstr(err.text, "it is no regular file"));
        }
        secret_done(&s);
        (void)alarm(0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(what_is_missing_is_named),
                cmocka_unit_test(what_was_removed_is_no_value_any_more),
                cmocka_unit_test(users_share_a_value_and_each_sees_its_version),
                cmocka_unit_test(only_a_file_is_a_value),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}
