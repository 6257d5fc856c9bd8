/* Values of Secrets, read from files as Kubernetes mounts them, SECRETS/NAME/KEY, and read again when the files change, so that nothing is restarted. White
 * space at a value's end is dropped: editors leave it there. Owned by the caller; one thread at a time. */
#pragma once

#include <sys/stat.h>

#include "api/trigger.h"

/* The file of a value. Appends. */
void secret_path(const char *secrets, const struct secret_ref *, struct buf *);
/* Appends the value. secrets: the folder, NULL: there is none. An error names the Secret, its key and what to do. */
int secret_read(const char *secrets, const struct secret_ref *, struct buf *, struct error *) MUST_CHECK;

/* How a file was when it was last looked at. */
struct secret_stamp { struct timespec changed; ino_t inode; };
/* False when it is as it was, or is not there. */
bool secret_changed(const char *secrets, const struct secret_ref *, struct secret_stamp *);

/* A value that is kept. */
struct secret { const struct secret_ref *ref; char *text; struct secret_stamp stamp; };
/* Takes the value as it is now. While there is none that can be read the last one stays. */
void secret_look(struct secret *, const char *secrets);
/* The first look, which must find one. */
int secret_open(struct secret *, const char *secrets, const struct secret_ref *, struct error *) MUST_CHECK;
void secret_done(struct secret *);
