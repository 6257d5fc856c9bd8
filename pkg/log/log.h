/* The log: one line a message on stderr, logfmt or JSON. Set once at start by cmd/, before threads; writing
 * is safe on any thread (one write(2) a line). An error is returned or logged, never both.
 *
 * What is done for a Trigger is logged in its scope (log_warn_for and the like), so that each line says whose
 * it is: many Triggers share a process. */
#pragma once

#include "base/base.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_LEVEL_MAX };
enum log_format { LOG_LOGFMT, LOG_JSON };

struct log_field {
        const char *key;
        enum { LOG_FIELD_STR, LOG_FIELD_INT, LOG_FIELD_DURATION } kind;
        struct str text;
        int64_t number; /* LOG_FIELD_DURATION: usec */
};
#define LOG_S(k, v) ((struct log_field){ .key = (k), .kind = LOG_FIELD_STR, .text = str_of(v) })
#define LOG_V(k, v) ((struct log_field){ .key = (k), .kind = LOG_FIELD_STR, .text = (v) })
#define LOG_I(k, v) ((struct log_field){ .key = (k), .kind = LOG_FIELD_INT, .number = (int64_t)(v) })
#define LOG_D(k, v) ((struct log_field){ .key = (k), .kind = LOG_FIELD_DURATION, .number = (v) })

void log_setup(enum log_level least, enum log_format);
bool log_enabled(enum log_level);
bool log_level_parse(struct str, enum log_level *out) MUST_CHECK;
const char *log_level_name(enum log_level);
/* What each line about somebody begins with. Borrows what it was made of. */
struct log_scope {
        struct log_field fields[2];
};
struct log_scope log_scope_of(const char *namespace_, const char *trigger);
/* scope NULL: the line is about the process. */
void log_write(const struct log_scope *, enum log_level, const char *message, const struct log_field *fields,
               size_t n);

/* log_at_for(scope, LOG_INFO, "started", LOG_S("file", name)); at least one field. */
#define log_at_for(scope, level, message, ...)                                                               \
        do {                                                                                                 \
                if (log_enabled(level))                                                                      \
                        log_write((scope), (level), (message), (const struct log_field[]){ __VA_ARGS__ },    \
                                  sizeof((const struct log_field[]){ __VA_ARGS__ }) /                        \
                                          sizeof(struct log_field));                                         \
        } while (0)
#define log_debug_for(scope, ...) log_at_for(scope, LOG_DEBUG, __VA_ARGS__)
#define log_info_for(scope, ...) log_at_for(scope, LOG_INFO, __VA_ARGS__)
#define log_warn_for(scope, ...) log_at_for(scope, LOG_WARN, __VA_ARGS__)
#define log_error_for(scope, ...) log_at_for(scope, LOG_ERROR, __VA_ARGS__)
#define log_at(level, ...) log_at_for(NULL, level, __VA_ARGS__)
#define log_debug(...) log_at(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_at(LOG_INFO, __VA_ARGS__)
#define log_warn(...) log_at(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_at(LOG_ERROR, __VA_ARGS__)
