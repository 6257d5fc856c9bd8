#include "options.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/clock.h"

static const char *log_level_text = NULL, *log_format_text = NULL;
static const struct option_spec common[] = {
        { .name = "log-level", .value = "LEVEL", .help = "Least important messages to log: debug, info, warn or error. Default: info.", .kind = OPTION_TEXT, .into = &log_level_text },
        { .name = "log-format", .value = "FORMAT", .help = "How log lines look: logfmt or json. Default: logfmt.", .kind = OPTION_TEXT, .into = &log_format_text },
        { .name = "help", .letter = 'h', .help = "Show this help.", .kind = OPTION_FLAG },
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
        (void)snprintf(left, sizeof(left), "  %s--%s%s%s", letter, o->name, o->value ? "=" : "", o->value ? o->value : "");
        (void)printf("%-*s", HELP_COLUMN, left);
        if (strlen(left) >= HELP_COLUMN)
                (void)printf("\n%*s", HELP_COLUMN, "");
        print_wrapped(o->help, HELP_COLUMN);
}

static void print_help(const struct usage *u)
{
        (void)printf("Usage: sluice %s [OPTION]…%s%s\n\n", u->name, u->arguments ? " " : "", u->arguments ? u->arguments : "");
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
        return letter == 'h' ? &common[2] : NULL;
}

static int store(const struct usage *u, const struct option_spec *o, const char *value)
{
        switch (o->kind) {
        case OPTION_FLAG: *(bool *)o->into = true; return -1;
        case OPTION_TEXT: *(const char **)o->into = value; return -1;
        case OPTION_LIST: {
                struct strings *list = o->into;
                char **grown = realloc(list->list, (list->n + 1) * sizeof(char *));
                char *copy = str_dup(str_of(value));

                if (!grown || !copy)
                        abort();
                list->list = grown;
                list->list[list->n++] = copy;
                return -1;
        }
        case OPTION_INT: {
                int64_t number;

                if (!str_to_int64(str_of(value), &number) || ((o->min || o->max) && (number < o->min || number > o->max)))
                        return usage_error(u->name, "--%s: \"%s\" is no whole number from %lld to %lld", o->name, value, (long long)o->min, (long long)o->max);
                *(int64_t *)o->into = number;
                return -1;
        }
        case OPTION_DURATION:
                if (!duration_parse(str_of(value), (usec *)o->into) || *(usec *)o->into < 0)
                        return usage_error(u->name, "--%s: \"%s\" is no duration such as 500ms, 20s or 1h30m", o->name, value);
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
        return near ? usage_error(u->name, "unknown option %s; did you mean --%s?", argument, near) : usage_error(u->name, "unknown option %s", argument);
}

static int set_up_log(const char *command)
{
        enum log_level level = LOG_INFO;

        if (log_level_text && !log_level_parse(str_of(log_level_text), &level))
                return usage_error(command, "--log-level: \"%s\" is none of debug, info, warn, error", log_level_text);
        if (log_format_text && strcmp(log_format_text, "logfmt") != 0 && strcmp(log_format_text, "json") != 0)
                return usage_error(command, "--log-format: \"%s\" is neither logfmt nor json", log_format_text);
        log_setup(level, log_format_text && strcmp(log_format_text, "json") == 0 ? LOG_JSON : LOG_LOGFMT);
        return -1;
}

/* One option at argv[*i]; moves *i past a value of its own. -1: go on. */
static int parse_one(const struct usage *u, int argc, char **argv, int *i, bool *help)
{
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
        if (o == &common[2]) {
                *help = true;
                return -1;
        }
        if (o->kind == OPTION_FLAG)
                return value ? usage_error(u->name, "--%s takes no value", o->name) : store(u, o, NULL);
        if (!value && *i + 1 < argc)
                value = argv[++*i];
        return value ? store(u, o, value) : usage_error(u->name, "--%s needs a value: --%s=%s", o->name, o->name, o->value);
}

int options_parse(const struct usage *u, int argc, char **argv, struct strings *rest)
{
        bool only_arguments = false, help = false;

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
                        r = parse_one(u, argc, argv, &i, &help);
                if (r >= 0)
                        return r;
        }
        if (help) {
                print_help(u);
                return 0;
        }
        if (rest->n && !u->arguments)
                return usage_error(u->name, "takes no arguments, but got \"%s\"", rest->list[0]);
        return set_up_log(u->name);
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
