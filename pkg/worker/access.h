/* Authentication towards the function: headers with values from Secrets, basic and bearer authentication, and
 * tokens by the client credentials grant of OAuth 2.0. Secrets are files, SECRETS/NAME/KEY, as Kubernetes
 * mounts them; they are read again when they change, without a restart. A task of its own; loop's thread. */
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
        struct task *observer; /* made ready when access_lacks changes */
        size_t most; /* bytes of a request's headers that are left for access_headers; 0: half of all */
};
int access_new(struct access **, const struct access_config *, struct error *) MUST_CHECK;
/* Why requests can't be sent yet; NULL: they can. */
const char *access_lacks(const struct access *);
/* Which Secret was removed while its last value is still in use; NULL: none. */
const char *access_notes(const struct access *);
/* Appends up to so many characters of what a peer said, with our secrets replaced by ***, also where JSON
 * escapes them. a NULL: there are no secrets. */
struct access_words {
        struct str text;
        size_t most;      /* SIZE_MAX: all of it */
        bool cut;         /* the text was cut, and may end in the middle of a secret */
        struct str shown; /* header lines that were sent to the peer: the present ones may differ */
};
void access_quote(const struct access *a, const struct access_words *, struct buf *);
/* "Name: value\r\n" lines; valid until the loop's next pass. */
struct str access_headers(const struct access *);
/* Version of access_headers: tells whether a refusal is about the present headers or earlier ones. */
uint32_t access_version(const struct access *);
/* The function answered 401 to this version. true: there is or will be a newer one, so that a retry makes
 * sense. */
bool access_refused(struct access *, uint32_t version);
struct access *access_free(struct access *); /* NULL is fine; returns NULL */

/* Appends the header lines for a preview: the real values if there is a directory of Secrets, otherwise
 * placeholders that name the Secret. */
int access_preview(const struct trigger *, const char *secrets, struct buf *, struct error *) MUST_CHECK;
