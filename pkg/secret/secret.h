/* Values of Secrets, read from files as Kubernetes mounts them, SECRETS/NAME/KEY, and read again when the
 * files change, so that nothing is restarted. White space at a value's end is dropped: editors leave it
 * there. Owned by the caller; one thread at a time. */
#pragma once

#include <sys/stat.h>

#include "api/trigger.h"

/* The file of a value. Appends. */
void secret_path(const char *secrets, const struct secret_ref *, struct buf *);
/* Appends the value. secrets: the folder, NULL: there is none. An error names the Secret, its key and what to
 * do. */
int secret_read(const char *secrets, const struct secret_ref *, struct buf *, struct error *) MUST_CHECK;

/* How a file was when it was last looked at; zeroed: it was not there. */
struct secret_stamp {
        struct timespec changed;
        ino_t inode;
        off_t size;
};
/* False when it is as it was: there or gone. */
bool secret_changed(const char *secrets, const struct secret_ref *, struct secret_stamp *);

/* A value that is kept. What was removed or emptied is no value any more, whatever it was before: callers
 * that show it are refused. */
struct secret {
        const struct secret_ref *ref;
        char *text; /* the last value that was read; NULL: there was none yet */
        bool gone;  /* there is none now */
        struct secret_stamp stamp;
};
/* The first look. That there is no value yet is no error; that no folder of Secrets is given is one. */
int secret_open(struct secret *, const char *secrets, const struct secret_ref *, struct error *) MUST_CHECK;
/* Looks again; true: something changed. What can't be read for a reason of our own, such as too many open
 * files, is as it was. */
bool secret_look(struct secret *, const char *secrets);
/* As it is now, for whatever callers show: p NULL: there is none, and nobody can show it. */
static inline struct str secret_value(const struct secret *s)
{
        return s->gone || !s->text ? (struct str){ 0 } : str_of(s->text);
}
/* The last value there was, for what is shown to others: it may do until they refuse it. p NULL: there never
 * was one. */
static inline struct str secret_last(const struct secret *s)
{
        return s->text ? str_of(s->text) : (struct str){ 0 };
}
/* "Secret NAME, key KEY, is missing or empty". Appends. */
void secret_tell_gone(const struct secret_ref *, struct buf *);
void secret_done(struct secret *);
