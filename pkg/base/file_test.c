#include "base/file.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"

static char folder[] = "/tmp/file-test-XXXXXX";

static const char *in_folder(const char *name)
{
        static char path[64];

        (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
        return path;
}

static int setup(void **state UNUSED)
{
        memcpy(folder + sizeof(folder) - 7, "XXXXXX", 6);
        (void)alarm(20); /* what blocks is not waited for */
        return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state UNUSED)
{
        static const char *const names[] = { "plain", "made", "pipe", "zero", "link", "" };

        for (size_t i = 0; i < COUNT_OF(names); i++)
                (void)remove(in_folder(names[i]));
        return 0;
}

static void a_plain_file_is_read(void **state UNUSED)
{
        BUF_AT_END struct buf text = BUF_INIT(64);
        struct error err;
        int fd = file_open(in_folder("made"), O_WRONLY | O_CREAT, &err);

        assert_true(fd >= 0 && write(fd, "words", 5) == 5 && close(fd) == 0);
        assert_int_equal(symlink("made", in_folder("link")), 0);
        assert_false(file_is_other(in_folder("made")) || file_is_other(in_folder("link")));
        assert_int_equal(buf_read_file(&text, in_folder("link"), &err), 0);
        assert_string_equal(text.p, "words");
}

static void a_file_is_where_its_path_names_it(void **state UNUSED)
{
        struct error err;
        int fd = file_open(in_folder("made"), O_WRONLY | O_CREAT, &err);

        assert_true(file_is_at(fd, in_folder("made")));
        assert_int_equal(unlink(in_folder("made")), 0);
        assert_false(file_is_at(fd, in_folder("made")));
        assert_int_equal(close(file_open(in_folder("made"), O_WRONLY | O_CREAT, &err)), 0);
        assert_false(file_is_at(fd, in_folder("made")));
        assert_false(file_is_at(-1, in_folder("made")));
        assert_int_equal(close(fd), 0);
}

/* Whoever has nothing to say would be waited for, and a device may have no end. */
static void nothing_else_is_opened(void **state UNUSED)
{
        static const char *const names[] = { "pipe", "zero", "" };
        static const int flags[] = { O_RDONLY, O_WRONLY, O_RDWR };

        assert_int_equal(mkfifo(in_folder("pipe"), 0600), 0);
        assert_int_equal(symlink("/dev/zero", in_folder("zero")), 0);
        for (size_t i = 0; i < COUNT_OF(names); i++) {
                BUF_AT_END struct buf text = BUF_INIT(1 << 20);
                struct error err;

                assert_true(file_is_other(in_folder(names[i])));
                assert_int_equal(buf_read_file(&text, in_folder(names[i]), &err), -1);
                assert_non_null(strstr(err.text, *names[i] ? "no regular file" : "Is a directory"));
                for (size_t j = 0; j < COUNT_OF(flags); j++)
                        assert_int_equal(file_open(in_folder(names[i]), flags[j], &err), -1);
        }
        assert_false(file_is_other(in_folder("none")) || file_is_other(NULL));
}

static void a_stream_is_read_to_its_end(void **state UNUSED)
{
        BUF_AT_END struct buf text = BUF_INIT(64);
        struct error err;
        int pair[2];
        char path[64];

        assert_int_equal(pipe(pair), 0);
        assert_int_equal(write(pair[1], "words", 5), 5);
        assert_int_equal(close(pair[1]), 0);
        (void)snprintf(path, sizeof(path), "/dev/fd/%d", pair[0]);
        assert_int_equal(buf_read_stream(&text, path, &err), 0);
        assert_string_equal(text.p, "words");
        assert_int_equal(close(pair[0]), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(a_plain_file_is_read, setup, teardown),
                cmocka_unit_test_setup_teardown(a_file_is_where_its_path_names_it, setup, teardown),
                cmocka_unit_test_setup_teardown(nothing_else_is_opened, setup, teardown),
                cmocka_unit_test_setup_teardown(a_stream_is_read_to_its_end, setup, teardown),
        };

        return cmocka_run_group_tests_name("file", tests, NULL, NULL);
}
