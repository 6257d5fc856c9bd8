#include <stdio.h>

#include "options.h"
#include "source/paths.h"
#include "source/source.h"
#include "transform/transform.h"

/* Compiles the jq programs. */
static bool check_transforms(const struct triggers *all, struct buf *report)
{
        bool fine = true;

        for (size_t i = 0; i < all->n; i++) {
                const struct trigger *t = all->list[i];
                struct error err;

                if (!t->transform || transform_check(t->transform->jq, &err) == 0)
                        continue;
                fine = false;
                buf_printf(report, "%s:%u:%u: spec.transform.jq: %s\n", t->file ? t->file : "<stdin>",
                           t->jq_line, t->jq_column, err.text);
        }
        return fine;
}

/* Finds Triggers that the same requests would reach. */
static bool check_paths(const struct triggers *all, struct buf *report)
{
        struct paths paths = { 0 };
        struct list ways = { 0 };
        bool fine = true;

        for (size_t i = 0; i < all->n; i++) {
                const struct trigger *t = all->list[i];
                struct error err;

                if (paths_take(&paths, &ways, NULL, t, &err) == 0)
                        continue;
                fine = false;
                buf_printf(report, "%s:%u:%u: %s\n", t->file ? t->file : "<stdin>", t->line, t->column,
                           err.text);
        }
        paths_leave(&paths, &ways);
        return fine;
}

/* Checks one argument on its own: another one may use the same names. Problems go to stderr. */
static bool check(const char *path)
{
        BUF_AT_END struct buf report = BUF_INIT((size_t)64 << 20);
        struct triggers all = { 0 };
        struct error err;
        bool valid = triggers_load(&all, path, source_types(), source_kinds_n, &report, &err) == 0 &&
                     check_transforms(&all, &report) && check_paths(&all, &report);

        path = strcmp(path, "-") == 0 ? "<stdin>" : path;
        if (valid && all.n == 0) { /* a misnamed or missing file must not look valid */
                valid = false;
                (void)error_set(&err, ERROR_NOT_FOUND, "no Trigger in %s", path);
        }
        if (report.n)
                (void)fwrite(report.p, 1, report.n, stderr);
        else if (!valid)
                (void)fprintf(stderr, "sluice validate: %s\n", err.text);
        else
                (void)printf("%s: %zu %s valid\n", path, all.n, all.n == 1 ? "trigger is" : "triggers are");
        triggers_done(&all);
        return valid;
}

int cmd_validate(int argc, char **argv)
{
        static const struct usage usage = {
                .name = "validate",
                .arguments = "FILE|DIR…",
                .text = "Checks the Triggers of files, of the *.yaml, *.yml and *.json in folders and in "
                        "what lies in them, or of standard input (-), without a cluster. "
                        "Exit code 0: all are valid; 1: not, and every error is shown as FILE:LINE:COLUMN: "
                        "PATH: what is wrong; 2: wrong usage. "
                        "Documents of other kinds are skipped; where no Trigger is, that is an error. YAML "
                        "is read as kubectl reads it: y, yes and on are booleans, too."
        };
        struct strings files;
        int result = options_parse(&usage, argc, argv, NULL, &files);
        bool valid = true;

        if (result < 0 && files.n == 0)
                result = usage_error("validate", "needs a FILE or DIR, or - for standard input");
        for (size_t i = 0; result < 0 && i < files.n; i++)
                valid = check(files.list[i]) && valid;
        free(files.list);
        if (result < 0 && fflush(stdout) != 0)
                valid = false;
        return result < 0 ? (valid ? 0 : 1) : result;
}
