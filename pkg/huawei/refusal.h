/* What a service's error means: one table of HTTP status and error code for each service, since they differ
 * (throttling is 400 in DIS, 404 in DMS). Pure; any thread. */
#pragma once

#include "base/buf.h"
#include "base/error.h"

/* What to do about it. */
enum cloud_verdict {
        CLOUD_DONE,              /* no error */
        CLOUD_RETRY,             /* retry with a growing pause */
        CLOUD_THROTTLE,          /* retry more slowly */
        CLOUD_RENEW_CURSOR,      /* get a new cursor */
        CLOUD_RENEW_CREDENTIALS, /* the keys are invalid or have expired */
        CLOUD_GONE,              /* the resource does not exist */
        CLOUD_FORBIDDEN, /* a permission is missing, or the account is frozen: only its owner can help */
        CLOUD_FINAL,     /* a retry does not help */
        CLOUD_VERDICT_MAX,
};
const char *cloud_verdict_name(enum cloud_verdict); /* as in a metric's label: renew_cursor */

enum { REFUSAL_CODE_MOST = 64, REFUSAL_WORDS_MOST = 240 };
struct cloud_error {
        enum cloud_verdict verdict;
        int status;                     /* 0: there was no answer */
        usec retry_after;               /* 0: none was given */
        char code[REFUSAL_CODE_MOST];   /* the service's error code, "DIS.4301"; empty: none */
        char words[REFUSAL_WORDS_MOST]; /* the service's message, one line of UTF-8; empty: none */
        const char *hint;               /* advice for people; NULL: none */
};

struct refusal_row {
        const char *service; /* "": any service, if its own rows have no match */
        const char *code;
        enum cloud_verdict verdict;
        const char *hint; /* NULL: none */
};
/* for tests */
extern const struct refusal_row refusal_rows[];
extern const size_t refusal_rows_n;

/* Reads the answer of a service ("dms"): CLOUD_DONE if its status is 2xx. */
void refusal_read(struct cloud_error *, const char *service, int status, struct str body, usec retry_after);
/* Hides a key or token, which services repeat in their messages: readers of the status must not see it. Its
 * beginning is hidden too, where the message was cut within it. */
void refusal_hide(struct cloud_error *, struct str secret);
/* "WHAT: 403 CODE: the service's message (hint)", with kind, retry and retry_after. Always -1. */
int refusal_error(const struct cloud_error *, const char *what, struct error *);
