/* What a service's refusal means: one table of HTTP status and code for each service, since they agree on
 * little (DIS throttles with 400, DMS with 404). Pure; any thread. */
#pragma once

#include "base/buf.h"
#include "base/error.h"

/* What it calls for. */
enum cloud_verdict {
        CLOUD_DONE,              /* it is no refusal */
        CLOUD_RETRY,             /* again, with a growing pause */
        CLOUD_THROTTLE,          /* again, more slowly */
        CLOUD_RENEW_CURSOR,      /* where to read from must be asked for anew */
        CLOUD_RENEW_CREDENTIALS, /* the keys are not taken, or not any more */
        CLOUD_GONE,              /* what was named does not exist */
        CLOUD_FORBIDDEN,         /* a right is missing, or the account is frozen: only its owner can help */
        CLOUD_FINAL,             /* the same again ends the same way */
        CLOUD_VERDICT_MAX,
};
const char *cloud_verdict_name(enum cloud_verdict); /* as a metric's label: renew_cursor */

enum { REFUSAL_CODE_MOST = 64, REFUSAL_WORDS_MOST = 240 };
struct cloud_error {
        enum cloud_verdict verdict;
        int status;                     /* 0: there was no answer */
        usec retry_after;               /* 0: not said */
        char code[REFUSAL_CODE_MOST];   /* the service's own, "DIS.4301"; empty: none */
        char words[REFUSAL_WORDS_MOST]; /* the service's own, one line of UTF-8; empty: none */
        const char *hint;               /* what to do about it, for people; NULL: nothing is known */
};

struct refusal_row {
        const char *service; /* "": of any, behind its own rows */
        const char *code;
        enum cloud_verdict verdict;
        const char *hint; /* NULL: none */
};
/* for tests */
extern const struct refusal_row refusal_rows[];
extern const size_t refusal_rows_n;

/* The answer of a service ("dms"): CLOUD_DONE where its status is 2xx. */
void refusal_read(struct cloud_error *, const char *service, int status, struct str body, usec retry_after);
/* Services repeat the access key that they do not take: it is no one's business who reads the status. */
void refusal_hide(struct cloud_error *, struct str access);
/* "WHAT: 403 CODE: the service's own words (hint)", with kind, retry and retry_after. Always -1. */
int refusal_error(const struct cloud_error *, const char *what, struct error *);
