/* Every NAME.yaml here is read as `sluice validate` reads it; NAME.expected holds what is said, exactly,
 * after a first line that tells what an API server that has the CRD makes of it (refuses, accepts, n/a),
 * which e2e checks. UPDATE_EXPECTED=1 writes them anew. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "source/source.h"

#include <cmocka.h>

static const char FOLDER[] = "tests/triggers";

static int is_case(const struct dirent *entry)
{
        const char *dot = strrchr(entry->d_name, '.');

        return dot && strcmp(dot, ".yaml") == 0;
}

static void report_of(const char *file, struct buf *report, size_t *n)
{
        struct triggers all = { 0 };
        struct error err;
        int result = triggers_load(&all, file, source_types(), source_kinds_n, report, &err);

        assert_false(report->failed);
        if ((result == 0) != (report->n == 0))
                fail_msg("%s: result %d, but the report is: %s", file, result, report->p ? report->p : "");
        *n = all.n;
        triggers_done(&all);
}

static void write_anew(const char *name, struct str first, const struct buf *report)
{
        FILE *f = fopen(name, "w");

        assert_non_null(f);
        (void)fprintf(f, STR_FMT "\n" STR_FMT, STR_ARG(first), STR_ARG(buf_view(report)));
        assert_int_equal(fclose(f), 0);
}

static bool run_case(const char *file)
{
        BUF_AT_END struct buf report = BUF_INIT(1 << 20), expected = BUF_INIT(1 << 20), name = BUF_INIT(1024);
        struct str rest, first;
        struct error err;
        size_t n;

        buf_printf(&name, "%.*sexpected", (int)(strrchr(file, '.') + 1 - file), file);
        if (buf_read_file(&expected, name.p, &err) < 0)
                fail_msg("%s", err.text);
        rest = buf_view(&expected);
        first = str_cut(&rest, '\n');
        if (!str_is(first, "# server: refuses") && !str_is(first, "# server: accepts") &&
            !str_is(first, "# server: n/a"))
                fail_msg("%s must begin with \"# server: refuses\", accepts or n/a", name.p);
        report_of(file, &report, &n);
        if (getenv("UPDATE_EXPECTED")) {
                write_anew(name.p, first, &report);
                return true;
        }
        /* What the schema refuses is refused here too. */
        assert_false(str_is(first, "# server: refuses") && report.n == 0);
        assert_true(report.n > 0 || n > 0);
        if (str_equal(buf_view(&report), rest))
                return true;
        print_error("%s: expected\n" STR_FMT "found\n" STR_FMT, file, STR_ARG(rest),
                    STR_ARG(buf_view(&report)));
        return false;
}

static void each_file_gets_its_diagnostics(void **state UNUSED)
{
        struct dirent **entries;
        int n = scandir(".", &entries, is_case, alphasort), failed = 0;

        assert_true(n > 40);
        for (int i = 0; i < n; i++) {
                failed += !run_case(entries[i]->d_name);
                free(entries[i]);
        }
        free(entries);
        assert_int_equal(failed, 0);
}

static void a_large_file_is_refused(void **state UNUSED)
{
        BUF_AT_END struct buf report = BUF_INIT(1 << 20), expected = BUF_INIT(1024);
        char path[] = "/tmp/sluice-large-XXXXXX.yaml";
        int fd = mkstemps(path, 5);
        size_t n;
        FILE *f;

        assert_true(fd >= 0);
        f = fdopen(fd, "w");
        assert_non_null(f);
        for (int i = 0; i < 10 << 10; i++)
                (void)fprintf(f, "# %1021s\n", "");
        assert_int_equal(fclose(f), 0);
        report_of(path, &report, &n);
        (void)unlink(path);
        buf_printf(&expected, "%s:1:1: the file is larger than 1 MiB: split it\n", path);
        assert_string_equal(report.p, expected.p);
}

static void a_folder_is_read_in_order_and_all_of_it(void **state UNUSED)
{
        BUF_AT_END struct buf report = BUF_INIT(1 << 20);
        struct triggers all = { 0 };
        struct error err;

        assert_int_equal(triggers_load(&all, ".", source_types(), source_kinds_n, &report, &err), -1);
        assert_non_null(strstr(report.p, "./anchors.yaml:"));
        assert_non_null(strstr(report.p, "./version-unknown.yaml:"));
        assert_non_null(
                strstr(report.p, "metadata.name: the Trigger default/orders is there already, at ./"));
        triggers_done(&all);
        assert_int_equal(triggers_load(&all, "absent", source_types(), source_kinds_n, &report, &err), -1);
        assert_string_equal(err.text, "open absent: No such file or directory");
}

static int go_there(void **state UNUSED) { return chdir(FOLDER); }

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(each_file_gets_its_diagnostics),
                cmocka_unit_test(a_large_file_is_refused),
                cmocka_unit_test(a_folder_is_read_in_order_and_all_of_it),
        };

        return cmocka_run_group_tests_name("triggers", tests, go_there, NULL);
}
