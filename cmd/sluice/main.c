#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "kafka/client.h"
#include "options.h"

static const struct {
        const char *name, *summary;
        int (*run)(int, char **);
} commands[] = {
        { "run", "Run Triggers from files in this process, without a cluster.", cmd_run },
        { "preview", "Show the request a function would get for a sample record.", cmd_preview },
        { "replay", "Send dead letters again.", cmd_replay },
        { "validate", "Check Triggers in files and say what is wrong, and where.", cmd_validate },
        { "display", "An example function: answers events and shows them.", cmd_display },
        { "controller", "Watch Triggers in a cluster and keep their workers.", cmd_controller },
        { "worker", "Deliver one Trigger's events; what the controller starts.", cmd_worker },
        { "version", "Show the version.", cmd_version },
        { "transform-child", NULL, cmd_transform_child }, /* internal: started by a transform */
};

static void print_help(FILE *out)
{
        (void)fprintf(out,
                      "Sluice brings events to functions.\n\nUsage: sluice COMMAND [OPTION]…\n\nCommands:\n");
        for (size_t i = 0; i < COUNT_OF(commands); i++)
                if (commands[i].summary)
                        (void)fprintf(out, "  %-12s %s\n", commands[i].name, commands[i].summary);
        (void)fprintf(out, "\nsluice COMMAND --help shows a command's options.\n");
}

/* Shells and systemd set the soft limit of open files to 1,024 because of select(), which nothing here uses.
 * Each connection needs a descriptor. */
static void raise_descriptors(void)
{
        struct rlimit files;

        if (getrlimit(RLIMIT_NOFILE, &files) < 0)
                return;
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
}

/* A core dump would contain the values of Secrets, so one is written only on request. RLIMIT_CORE does not
 * apply when core_pattern is a pipe, hence both calls. */
static void forbid_cores(void)
{
        static const struct rlimit none = { 0, 0 };
        const char *wanted = getenv("SLUICE_CORE_DUMPS");

        if (wanted && strcmp(wanted, "1") == 0)
                return;
        (void)setrlimit(RLIMIT_CORE, &none);
        (void)prctl(PR_SET_DUMPABLE, 0);
}

/* With fixed thresholds the memory of a large request goes back to the system when it is freed; by default
 * malloc raises them and keeps it. */
static void return_memory(void)
{
        (void)mallopt(M_MMAP_THRESHOLD, 4 << 20);
        (void)mallopt(M_TRIM_THRESHOLD, 8 << 20);
}

int main(int argc, char **argv)
{
        const char *names[COUNT_OF(commands)], *near;
        size_t names_n = 0;

        raise_descriptors();
        forbid_cores();
        return_memory();
        if (argc < 2) {
                print_help(stderr);
                return EXIT_USAGE;
        }
        if (strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
                print_help(stdout);
                return 0;
        }
        if (strcmp(argv[1], "--version") == 0)
                return cmd_version(1, argv + 1);
        for (size_t i = 0; i < COUNT_OF(commands); i++) {
                if (strcmp(argv[1], commands[i].name) == 0) {
                        int code = commands[i].run(argc - 1, argv + 1);

                        kafka_ended();
                        return code;
                }
                if (commands[i].summary)
                        names[names_n++] = commands[i].name;
        }
        near = nearest_name(str_of(argv[1]), names, names_n);
        (void)fprintf(stderr, "sluice: unknown command \"%s\"%s%s%s\nTry: sluice --help\n", argv[1],
                      near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
        return EXIT_USAGE;
}
