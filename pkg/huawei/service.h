/* Calls of the cloud's services: JSON requests signed with AK and SK, sent by the fetch port, and what their
 * answers say. Owns nothing; loop's thread. */
#pragma once

#include "base/error.h"
#include "port/fetch.h"

/* token: of temporary keys; n 0: none */
struct service_keys {
        struct str access, secret, token;
};
struct service_call {
        const char *method;
        /* "https://HOST[:PORT]", as it is configured: its address may be any */
        struct str endpoint;
        struct str path, query; /* percent-encoded; query without ? */
        struct str body;        /* JSON; n 0: none */
        struct str project;     /* X-Project-Id */
        const char *ca_file;    /* NULL: the system's */
        usec timeout;           /* 0: 10 s */
};
enum { SERVICE_ANSWER_MOST = 4 << 20 };

/* wall: the date it is signed with. -1: it can't be sent; no completion comes. */
int service_submit(const struct fetch *, uint64_t tag, const struct service_call *,
                   const struct service_keys *, usec wall, struct error *) MUST_CHECK;
/* 0: it was done. -1 otherwise: "WHAT: 403 CODE: the service's own words", with retry and retry_after. */
int service_judge(const struct fetch_completion *, const char *what, struct error *) MUST_CHECK;
