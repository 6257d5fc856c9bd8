/* What went wrong: a text for people that carries what was tried on what and why, a kind for code, and
 * whether trying again can help. Owned by the caller's stack; no allocation; any thread. Fallible functions
 * return 0 or -1 and fill the error only on failure. */
#pragma once

#include "base/base.h"

enum error_kind {
        ERROR_NONE,
        ERROR_INVALID, /* the user's input: never helped by a retry */
        ERROR_NOT_FOUND,
        ERROR_CONFLICT, /* someone else wrote first */
        ERROR_FORBIDDEN,
        ERROR_UNAUTHORIZED,
        ERROR_GONE,        /* a watch or token too old */
        ERROR_UNREACHABLE, /* no connection, name not resolved */
        ERROR_TIMEOUT,
        ERROR_PROTOCOL, /* the peer broke its protocol */
        ERROR_REFUSED,  /* the peer answered with a failure */
        ERROR_EXISTS,
        ERROR_MEMORY,
        ERROR_SYSTEM, /* errno of the local system */
        ERROR_CANCELLED,
        ERROR_INTERNAL,
        ERROR_KIND_MAX,
};

struct error {
        enum error_kind kind;
        bool retry; /* trying the same again can help */
        /* the peer's name is not known, or it could not prove who it is: another address may do */
        bool elsewhere;
        usec retry_after; /* what the peer asked for; 0: nothing */
        char text[480];   /* cut at the end, never overrun */
};

/* Sets kind and text; retry follows the kind (UNREACHABLE, TIMEOUT, CONFLICT, MEMORY: true), the rest is
 * zeroed. Always -1. err may be NULL. */
int error_set(struct error *err, enum error_kind kind, const char *format, ...) PRINTF(3, 4);
/* The same with ": " and strerror(number) behind it; kind ERROR_SYSTEM. Always -1. */
int error_errno(struct error *err, int number, const char *format, ...) PRINTF(3, 4);
/* Puts "what on what: " before the text. Always -1. */
int error_wrap(struct error *err, const char *format, ...) PRINTF(2, 3);
int error_memory(struct error *err); /* "out of memory"; always -1 */
const char *error_kind_name(enum error_kind kind);
