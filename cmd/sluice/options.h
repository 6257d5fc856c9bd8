/* The command line: a table of commands, and for each a table of options from which --help comes. cmd/ alone
 * prints. */
#pragma once

#include "api/schema.h"
#include "log/log.h"

enum option_kind { OPTION_FLAG, OPTION_TEXT, OPTION_LIST, OPTION_INT, OPTION_DURATION };
struct option_spec {
        const char *name;  /* --name */
        char letter;       /* -x; 0: none */
        const char *value; /* the placeholder of the value in the help; NULL for flags */
        const char *help;
        enum option_kind kind;
        /* in the command's struct: bool, const char *, struct strings, int64_t, usec */
        size_t offset;
        int64_t min, max; /* OPTION_INT; both 0: any */
};
/* A row of the table: the kind without OPTION_, the name, the command's struct and its member, then what else
 * it has. */
#define OPTION(kind_, name_, object_, member, ...)                                                           \
        {                                                                                                    \
                .name = (name_), .kind = OPTION_##kind_, .offset = offsetof(object_, member), __VA_ARGS__    \
        }
struct usage {
        const char *name;      /* "run" */
        const char *arguments; /* "FILE|DIR…"; NULL: takes none */
        const char *text;      /* what it does, a paragraph */
        const struct option_spec *options;
        size_t options_n;
};

enum { EXIT_USAGE = 2 };
/* Parses into the command's struct; every command also knows -h, --help, --log-level and --log-format, and
 * sets the log up. Returns -1 to go on (what is left stands in rest, views into argv, to be freed by the
 * caller), or the exit code: 0 after --help, 2 after wrong usage. */
int options_parse(const struct usage *, int argc, char **argv, void *object, struct strings *rest) MUST_CHECK;
int usage_error(const char *command, const char *format, ...) PRINTF(2, 3); /* prints; EXIT_USAGE */
/* Writes a port as a line into a file or named pipe. */
int write_port(const char *path, uint16_t port, struct error *) MUST_CHECK;

/* Exits without cleaning up: for a process with sources that do not stop. */
_Noreturn void end_at_once(int status);

int cmd_controller(int argc, char **argv);
int cmd_display(int argc, char **argv);
int cmd_preview(int argc, char **argv);
int cmd_replay(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_transform_child(int argc, char **argv);
int cmd_validate(int argc, char **argv);
int cmd_version(int argc, char **argv);
int cmd_worker(int argc, char **argv);
