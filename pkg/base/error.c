#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>

static bool kind_retries(enum error_kind kind)
{
        return kind == ERROR_UNREACHABLE || kind == ERROR_TIMEOUT || kind == ERROR_CONFLICT ||
               kind == ERROR_MEMORY;
}

/* A plain text. */
static void append(struct error *err, const char *text)
{
        size_t n = strlen(err->text);

        n += text_copy(err->text + n, sizeof(err->text) - n, ": ");
        (void)text_copy(err->text + n, sizeof(err->text) - n, text);
}

int error_set(struct error *err, enum error_kind kind, const char *format, ...)
{
        va_list args;

        if (!err)
                return -1;
        err->kind = kind;
        err->retry = kind_retries(kind);
        err->elsewhere = false;
        err->retry_after = 0;
        va_start(args, format);
        text_vprint(err->text, sizeof(err->text), format, args);
        va_end(args);
        return -1;
}

int error_errno(struct error *err, int number, const char *format, ...)
{
        va_list args;

        if (!err)
                return -1;
        err->kind = ERROR_SYSTEM;
        err->retry = false;
        err->elsewhere = false;
        err->retry_after = 0;
        va_start(args, format);
        text_vprint(err->text, sizeof(err->text), format, args);
        va_end(args);
        append(err, strerror(number));
        return -1;
}

int error_wrap(struct error *err, const char *format, ...)
{
        char inner[sizeof(err->text)];
        va_list args;

        if (!err)
                return -1;
        memcpy(inner, err->text, sizeof(inner));
        va_start(args, format);
        text_vprint(err->text, sizeof(err->text), format, args);
        va_end(args);
        append(err, inner);
        return -1;
}

int error_memory(struct error *err) { return error_set(err, ERROR_MEMORY, "out of memory"); }

const char *error_kind_name(enum error_kind kind)
{
        static const char *const names[ERROR_KIND_MAX] = {
                [ERROR_NONE] = "None",           [ERROR_INVALID] = "Invalid",
                [ERROR_NOT_FOUND] = "NotFound",  [ERROR_CONFLICT] = "Conflict",
                [ERROR_FORBIDDEN] = "Forbidden", [ERROR_UNAUTHORIZED] = "Unauthorized",
                [ERROR_GONE] = "Gone",           [ERROR_UNREACHABLE] = "Unreachable",
                [ERROR_TIMEOUT] = "Timeout",     [ERROR_PROTOCOL] = "Protocol",
                [ERROR_REFUSED] = "Refused",     [ERROR_EXISTS] = "Exists",
                [ERROR_MEMORY] = "Memory",       [ERROR_SYSTEM] = "System",
                [ERROR_CANCELLED] = "Cancelled", [ERROR_INTERNAL] = "Internal",
        };
        return kind >= 0 && kind < ERROR_KIND_MAX ? names[kind] : "Unknown";
}
