#include "base/watch.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "tests/support/clock.h"

static struct bench {
        struct loop *loop;
        struct watch watch;
        struct task task;
        char folder[64], file[128];
        int woken;
        struct set_clock now; /* stands still: what is noticed was told */
} b;

static const struct clock still = SET_CLOCK(&b.now);

static void on_change(struct task *t UNUSED, usec now UNUSED)
{
        b.woken++;
        loop_stop(b.loop);
}

static const char *in_folder(const char *name)
{
        static char path[192];

        (void)snprintf(path, sizeof(path), "%s/%s", b.folder, name);
        return path;
}

static void write_to(const char *path, const char *text)
{
        FILE *f = fopen(path, "we");

        assert_non_null(f);
        assert_true(fputs(text, f) >= 0);
        assert_int_equal(fclose(f), 0);
}

static int setup(void **state UNUSED)
{
        struct error err;

        memset(&b, 0, sizeof(b));
        b.now.monotonic = USEC_HOUR;
        b.task.turn = on_change;
        (void)snprintf(b.folder, sizeof(b.folder), "/tmp/sluice-watch-XXXXXX");
        assert_non_null(mkdtemp(b.folder));
        (void)snprintf(b.file, sizeof(b.file), "%s/key", b.folder);
        assert_int_equal(loop_new(&b.loop, &err), 0);
        loop_use_clock(b.loop, &still);
        (void)alarm(30);
        return 0;
}

static int teardown(void **state UNUSED)
{
        char command[128];

        (void)alarm(0);
        watch_close(&b.watch);
        assert_null(*loop_place(b.loop, LOOP_WATCHER));
        loop_forget(b.loop, &b.task);
        b.loop = loop_free(b.loop);
        (void)snprintf(command, sizeof(command), "rm -rf '%s'", b.folder);
        return system(command); /* NOLINT */
}

static void watch(const char *path)
{
        struct error err;

        assert_int_equal(watch_open(&b.watch, b.loop, path, &b.task, &err), 0);
        assert_int_equal(b.watch.version, 1);
}

/* Each kind of change, one after the other, is one that inotify tells of. */
static void expect_told(uint64_t version)
{
        while (b.watch.version < version)
                loop_run(b.loop);
        assert_true(b.woken > 0);
        b.woken = 0;
}

static void what_people_do_to_a_file_is_told(void **state UNUSED)
{
        struct stat s;

        write_to(b.file, "one");
        watch(b.file);
        write_to(b.file, "other");
        expect_told(2);
        write_to(in_folder("new"), "renamed");
        assert_int_equal(rename(in_folder("new"), b.file), 0);
        expect_told(b.watch.version + 1);
        assert_int_equal(unlink(b.file), 0);
        expect_told(b.watch.version + 1);
        write_to(b.file, "again");
        expect_told(b.watch.version + 1);
        /* the same size, within the same tick of the file system's clock */
        (void)watch_look(&b.watch);
        assert_int_equal(stat(b.file, &s), 0);
        write_to(b.file, "AGAIN");
        assert_int_equal(utimensat(AT_FDCWD, b.file, (struct timespec[]){ s.st_atim, s.st_mtim }, 0), 0);
        expect_told(b.watch.version + 1);
}

static uint64_t seen[3];
static void look_twice(struct task *t UNUSED, usec now UNUSED)
{
        seen[0] = watch_look(&b.watch);
        write_to(b.file, "longer than before");
        seen[1] = watch_look(&b.watch);
        loop_stop(b.loop);
}

/* As many as look in one pass cost one look; the next pass knows what came meanwhile. */
static void one_pass_looks_once(void **state UNUSED)
{
        struct task t = { .turn = look_twice };

        write_to(b.file, "one");
        watch(b.file);
        loop_ready(b.loop, &t);
        loop_run(b.loop);
        assert_int_equal(seen[0], 1);
        assert_int_equal(seen[1], 1);
        seen[2] = watch_look(&b.watch);
        assert_int_equal(seen[2], 2);
        loop_forget(b.loop, &t);
}

static void another_file_of_the_folder_is_no_matter(void **state UNUSED)
{
        write_to(b.file, "one");
        watch(b.file);
        write_to(in_folder("other"), "x");
        assert_int_equal(watch_look(&b.watch), 1);
        write_to(b.file, "two");
        assert_int_equal(watch_look(&b.watch), 2); /* without a turn of the loop */
}

/* FOLDER/key -> ..data/key, ..data -> ..1: as the kubelet does it. */
static void mount(const char *version, const char *text)
{
        char folder[192], file[256];

        (void)snprintf(folder, sizeof(folder), "%s/..%s", b.folder, version);
        assert_int_equal(mkdir(folder, 0700), 0);
        (void)snprintf(file, sizeof(file), "%s/key", folder);
        write_to(file, text);
        (void)snprintf(file, sizeof(file), "..%s", version);
        assert_int_equal(symlink(file, in_folder("..data_tmp")), 0);
        (void)snprintf(file, sizeof(file), "%s/..data", b.folder);
        assert_int_equal(rename(in_folder("..data_tmp"), file), 0);
        if (access(b.file, F_OK) < 0)
                assert_int_equal(symlink("..data/key", b.file), 0);
}

static void a_mount_that_is_replaced_is_told(void **state UNUSED)
{
        mount("1", "one");
        watch(b.file);
        mount("2", "two");
        expect_told(2);
        mount("3", "three");
        expect_told(3);
}

/* Of a folder that is not there nothing can be told: it is looked for each second. */
static void a_folder_may_come_later_and_go(void **state UNUSED)
{
        watch(in_folder("mount/key"));
        assert_int_equal(mkdir(in_folder("mount"), 0700), 0);
        write_to(in_folder("mount/key"), "one");
        b.now.monotonic += USEC_SEC;
        expect_told(2);
        write_to(in_folder("mount/key"), "other"); /* told from now on */
        expect_told(3);
        assert_int_equal(unlink(in_folder("mount/key")), 0);
        assert_int_equal(rmdir(in_folder("mount")), 0);
        expect_told(4);
        assert_int_equal(mkdir(in_folder("mount"), 0700), 0);
        write_to(in_folder("mount/key"), "back");
        b.now.monotonic += USEC_SEC;
        expect_told(5);
}

static void a_link_that_leads_elsewhere_is_looked_at_seldom(void **state UNUSED)
{
        assert_int_equal(mkdir(in_folder("elsewhere"), 0700), 0);
        write_to(in_folder("elsewhere/key"), "one");
        assert_int_equal(symlink("elsewhere/key", b.file), 0);
        watch(b.file);
        write_to(in_folder("elsewhere/key"), "other");
        b.now.monotonic += 10 * USEC_SEC;
        expect_told(2);
}

/* More descriptors than are allowed. */
static void without_inotify_stamps_are_compared(void **state UNUSED)
{
        struct rlimit before, none;
        int next;

        write_to(b.file, "one");
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
        next = dup(0);
        assert_true(next >= 0);
        (void)close(next);
        none = (struct rlimit){ (rlim_t)next, before.rlim_max };
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
        watch(b.file);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
        assert_null(b.watch.folder);
        write_to(b.file, "other");
        b.now.monotonic += USEC_SEC;
        expect_told(2);
        write_to(b.file, "and another");
        assert_int_equal(watch_look(&b.watch), 3);
}

static void watches_of_one_folder_are_independent(void **state UNUSED)
{
        struct watch second = { 0 };
        struct error err;

        write_to(b.file, "one");
        write_to(in_folder("other"), "one");
        watch(b.file);
        assert_int_equal(watch_open(&second, b.loop, in_folder("other"), NULL, &err), 0);
        assert_ptr_equal(second.folder, b.watch.folder);
        write_to(in_folder("other"), "x");
        assert_int_equal(watch_look(&second), 2);
        assert_int_equal(b.watch.version, 1);
        watch_close(&second);
        assert_false(watch_is_open(&second));
        watch_close(&second);
        write_to(b.file, "two");
        expect_told(2);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(what_people_do_to_a_file_is_told, setup, teardown),
                cmocka_unit_test_setup_teardown(one_pass_looks_once, setup, teardown),
                cmocka_unit_test_setup_teardown(another_file_of_the_folder_is_no_matter, setup, teardown),
                cmocka_unit_test_setup_teardown(a_mount_that_is_replaced_is_told, setup, teardown),
                cmocka_unit_test_setup_teardown(a_folder_may_come_later_and_go, setup, teardown),
                cmocka_unit_test_setup_teardown(a_link_that_leads_elsewhere_is_looked_at_seldom, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(without_inotify_stamps_are_compared, setup, teardown),
                cmocka_unit_test_setup_teardown(watches_of_one_folder_are_independent, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
