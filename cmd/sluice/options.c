#include "options.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "api/worker.h"
#include "base/clock.h"

/* The options of every command. */
struct common {
        const char *log_level, *log_format;
        bool help;
};
static const struct option_spec common[] = {
        OPTION(TEXT, WORKER_OPTION_LOG_LEVEL, struct common, log_level, .value = "LEVEL",
               .help = "Least important messages to log: debug, info, warn or error. Default: info."),
        OPTION(TEXT, "log-format", struct common, log_format, .value = "FORMAT",
               .help = "How log lines look: logfmt or json. Default: logfmt."),
        OPTION(FLAG, "help", struct common, help, .letter = 'h', .help = "Show this help."),
};

/* One command line. */
struct parse {
        const struct usage *usage;
        void *object;
        struct common common;
};

int usage_error(const char *command, const char *format, ...)
{
        va_list args;

        (void)fprintf(stderr, "sluice %s: ", command);
        va_start(args, format);
        (void)vfprintf(stderr, format, args);
        va_end(args);
        (void)fprintf(stderr, "\nTry: sluice %s --help\n", command);
        return EXIT_USAGE;
}

enum { HELP_WIDTH = 80, HELP_COLUMN = 29 };

/* Prints text from a column on, broken at spaces. */
static void print_wrapped(const char *text, int column)
{
        int at = column;

        while (*text) {
                int word = (int)strcspn(text, " ");

                at += printf("%.*s", word, text);
                text += word;
                while (*text == ' ')
                        text++;
                if (*text && at + 1 + (int)strcspn(text, " ") <= HELP_WIDTH)
                        at += printf(" ");
                else if (*text) {
                        (void)printf("\n%*s", column, "");
                        at = column;
                }
        }
        (void)printf("\n");
}

static void print_option(const struct option_spec *o)
{
        char left[80];
        char letter[8] = "    ";

        if (o->letter)
                (void)snprintf(letter, sizeof(letter), "-%c, ", o->letter);
        (void)snprintf(left, sizeof(left), "  %s--%s%s%s", letter, o->name, o->value ? "=" : "",
                       o->value ? o->value : "");
        (void)printf("%-*s", HELP_COLUMN, left);
        if (strlen(left) >= HELP_COLUMN)
                (void)printf("\n%*s", HELP_COLUMN, "");
        print_wrapped(o->help, HELP_COLUMN);
}

static void print_help(const struct usage *u)
{
        (void)printf("Usage: sluice %s [OPTION]…%s%s\n\n", u->name, u->arguments ? " " : "",
                     u->arguments ? u->arguments : "");
        print_wrapped(u->text, 0);
        (void)printf("\nOptions:\n");
        for (size_t i = 0; i < u->options_n; i++)
                print_option(&u->options[i]);
        for (size_t i = 0; i < COUNT_OF(common); i++)
                print_option(&common[i]);
}

static const struct option_spec *find_long(const struct usage *u, struct str name)
{
        for (size_t i = 0; i < u->options_n; i++)
                if (str_is(name, u->options[i].name))
                        return &u->options[i];
        for (size_t i = 0; i < COUNT_OF(common); i++)
                if (str_is(name, common[i].name))
                        return &common[i];
        return NULL;
}

static const struct option_spec *find_letter(const struct usage *u, char letter)
{
        for (size_t i = 0; i < u->options_n; i++)
                if (u->options[i].letter == letter)
                        return &u->options[i];
        for (size_t i = 0; i < COUNT_OF(common); i++)
                if (common[i].letter == letter)
                        return &common[i];
        return NULL;
}

static void store_in_list(struct strings *list, const char *value)
{
        char **grown = realloc(list->list, (list->n + 1) * sizeof(char *));
        char *copy = str_dup(str_of(value));

        if (!grown || !copy)
                abort();
        list->list = grown;
        list->list[list->n++] = copy;
}

static int store(struct parse *p, const struct option_spec *o, const char *value)
{
        bool is_common = o >= common && o < common + COUNT_OF(common);
        void *into = (char *)(is_common ? &p->common : p->object) + o->offset;
        const char *command = p->usage->name;
        int64_t number;

        switch (o->kind) {
        case OPTION_FLAG: *(bool *)into = true; return -1;
        case OPTION_TEXT: *(const char **)into = value; return -1;
        case OPTION_LIST: store_in_list(into, value); return -1;
        case OPTION_INT:
                if (!str_to_int64(str_of(value), &number) ||
                    ((o->min || o->max) && (number < o->min || number > o->max)))
                        return usage_error(command, "--%s: \"%s\" is no whole number from %lld to %lld",
                                           o->name, value, (long long)o->min, (long long)o->max);
                *(int64_t *)into = number;
                return -1;
        case OPTION_DURATION:
                if (!duration_parse(str_of(value), (usec *)into) || *(usec *)into < 0)
                        return usage_error(command, "--%s: \"%s\" is no duration such as 500ms, 20s or 1h30m",
                                           o->name, value);
                return -1;
        }
        return -1;
}

static int unknown(const struct usage *u, const char *argument, struct str name)
{
        const char *names[64], *near;
        size_t n = 0;

        for (size_t i = 0; i < u->options_n && n < 60; i++)
                names[n++] = u->options[i].name;
        for (size_t i = 0; i < COUNT_OF(common); i++)
                names[n++] = common[i].name;
        near = nearest_name(name, names, n);
        return near ? usage_error(u->name, "unknown option %s; did you mean --%s?", argument, near)
                    : usage_error(u->name, "unknown option %s", argument);
}

static int set_up_log(const char *command, const struct common *c)
{
        enum log_level level = LOG_INFO;

        if (c->log_level && !log_level_parse(str_of(c->log_level), &level))
                return usage_error(command, "--log-level: \"%s\" is none of debug, info, warn, error",
                                   c->log_level);
        if (c->log_format && strcmp(c->log_format, "logfmt") != 0 && strcmp(c->log_format, "json") != 0)
                return usage_error(command, "--log-format: \"%s\" is neither logfmt nor json", c->log_format);
        log_setup(level, c->log_format && strcmp(c->log_format, "json") == 0 ? LOG_JSON : LOG_LOGFMT);
        return -1;
}

/* One option at argv[*i]; moves *i past a value of its own. -1: go on. */
static int parse_one(struct parse *p, int argc, char **argv, int *i)
{
        const struct usage *u = p->usage;
        const char *argument = argv[*i], *value = NULL;
        const struct option_spec *o;

        if (argument[1] == '-') {
                struct str rest = str_of(argument + 2), name = str_cut(&rest, '=');

                o = find_long(u, name);
                if (!o)
                        return unknown(u, argument, name);
                value = name.p[name.n] == '=' ? name.p + name.n + 1 : NULL;
        } else {
                o = find_letter(u, argument[1]);
                if (!o)
                        return usage_error(u->name, "unknown option %s", argument);
                value = argument[2] ? argument + 2 : NULL;
        }
        if (o->kind == OPTION_FLAG)
                return value ? usage_error(u->name, "--%s takes no value", o->name) : store(p, o, NULL);
        if (!value && *i + 1 < argc)
                value = argv[++*i];
        return value ? store(p, o, value)
                     : usage_error(u->name, "--%s needs a value: --%s=%s", o->name, o->name, o->value);
}

int options_parse(const struct usage *u, int argc, char **argv, void *object, struct strings *rest)
{
        struct parse p = { .usage = u, .object = object };
        bool only_arguments = false;

        rest->n = 0;
        rest->list = calloc((size_t)argc + 1, sizeof(char *));
        if (!rest->list)
                abort();
        for (int i = 1; i < argc; i++) {
                int r = -1;

                if (only_arguments || argv[i][0] != '-' || !argv[i][1])
                        rest->list[rest->n++] = argv[i];
                else if (strcmp(argv[i], "--") == 0)
                        only_arguments = true;
                else
                        r = parse_one(&p, argc, argv, &i);
                if (r >= 0)
                        return r;
        }
        if (p.common.help) {
                print_help(u);
                return 0;
        }
        if (rest->n && !u->arguments)
                return usage_error(u->name, "takes no arguments, but got \"%s\"", rest->list[0]);
        return set_up_log(u->name, &p.common);
}

int write_port(const char *path, uint16_t port, struct error *err)
{
        FILE *f = fopen(path, "we");

        if (!f || fprintf(f, "%u\n", port) < 0) {
                (void)error_errno(err, errno, "write %s", path);
                if (f)
                        (void)fclose(f);
                return -1;
        }
        return fclose(f) == 0 ? 0 : error_errno(err, errno, "write %s", path);
}

void end_at_once(int status)
{
        (void)fflush(NULL);
        _exit(status);
}
