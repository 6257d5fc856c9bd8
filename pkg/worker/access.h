/* What lets us in at the function: headers whose values lie in Secrets, basic and bearer authentication,
 * tokens by OAuth 2.0's client credentials. Secrets are read from files, SECRETS/NAME/KEY, as Kubernetes
 * mounts them, and read again when they change: nothing is restarted. A task of its own; loop's thread. */
#pragma once

#include "api/trigger.h"
#include "http/client/client.h"

struct access;

struct access_config {
        const struct trigger *trigger; /* borrowed */
        const struct log_scope *log;   /* borrowed */
        const char *secrets;           /* the folder; NULL: there is none */
        struct loop *loop;
        struct http_client *http;
        struct task *observer; /* made ready when it became ready, or not */
};
int access_new(struct access **, const struct access_config *, struct error *) MUST_CHECK;
/* NULL: all that is needed is there. Otherwise why requests can't be sent yet. */
const char *access_lacks(const struct access *);
/* What was removed from its Secret though its last value still serves; NULL: nothing. */
const char *access_notes(const struct access *);
/* What a peer said, up to so many characters, our secrets left out, in JSON's spelling too. a NULL: there are
 * none. Appends. */
struct access_words {
        struct str text;
        size_t most;      /* SIZE_MAX: all of it */
        bool cut;         /* there was more of it: it may end within a secret */
        struct str shown; /* header lines that it was sent, which may have changed since */
};
void access_quote(const struct access *a, const struct access_words *, struct buf *);
/* "Name: value\r\n" lines; valid until the loop's next pass. */
struct str access_headers(const struct access *);
/* Counts what access_headers was, so that a request's refusal is known to be about an earlier one. */
uint32_t access_version(const struct access *);
/* The function answered 401 to what it was shown. Does it pay to try again with something newer? */
bool access_refused(struct access *, uint32_t version);
struct access *access_free(struct access *); /* NULL is fine; returns NULL */

/* The lines for people who look at a request: real values where there is a folder, otherwise where they would
 * come from. Appends. */
int access_preview(const struct trigger *, const char *secrets, struct buf *, struct error *) MUST_CHECK;
