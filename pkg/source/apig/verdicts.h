/* What was said about callers lately: verdicts by key, until they expire, bounded by count and by bytes; the
 * one not used for longest goes first. A key tells nothing about whom it stands for: it is a salted SHA-256.
 * Loop's thread. */
#pragma once

#include "base/error.h"

/* Why a caller gets no answer of the function; texts are static. */
struct apig_refusal {
        int status;
        const char *code, *message;
        usec retry_after;
};

struct verdict { /* shared by the cache and the requests that go by it */
        unsigned holders;
        bool allowed;
        bool lasting;                /* may be kept; a failure may not */
        usec until;                  /* monotonic; USEC_NEVER: as long as one likes */
        struct apig_refusal refusal; /* where it is not allowed */
        uint64_t caller;             /* a hash of who it is; 0: not said */
        size_t context_n;            /* a JSON object of strings for the function; 0: none */
        char context[];
};
/* Held once. NULL: there is no memory. */
struct verdict *verdict_new(struct str context);
struct verdict *verdict_refuse(int status, const char *code, const char *message);
struct verdict *verdict_hold(struct verdict *);
struct verdict *verdict_release(struct verdict *); /* NULL is fine; returns NULL */

enum { VERDICT_KEY = 32 };
struct verdicts;
int verdicts_new(struct verdicts **, size_t most, size_t bytes_most, struct error *) MUST_CHECK;
struct verdicts *verdicts_free(struct verdicts *); /* NULL is fine */
/* Held; NULL: unknown or expired. */
struct verdict *verdicts_find(struct verdicts *, const unsigned char key[VERDICT_KEY], usec now);
/* Holds it until then. One that is larger than all may be is not kept. */
void verdicts_keep(struct verdicts *, const unsigned char key[VERDICT_KEY], struct verdict *, usec until);
size_t verdicts_count(const struct verdicts *);
size_t verdicts_bytes(const struct verdicts *);
