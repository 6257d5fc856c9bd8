/* Values of Secrets, read from files as Kubernetes mounts them, SECRETS/NAME/KEY, and read again when
 * base/watch tells that they changed, so that nothing is restarted. A process reads each once, whoever asks
 * for it: a value has a version, by which its users see that it is another one. White space at a value's end
 * is dropped: editors leave it there. Loop's thread. */
#pragma once

#include "api/trigger.h"
#include "base/watch.h"

/* The file of a value. Appends. */
void secret_path(const char *secrets, const struct secret_ref *, struct buf *);
/* Appends the value, read once. secrets: the folder, NULL: there is none. An error names the Secret, its key
 * and what to do. Any thread. */
int secret_read(const char *secrets, const struct secret_ref *, struct buf *, struct error *) MUST_CHECK;

/* What all users of a value share. What was removed or emptied is no value any more, whatever it was before:
 * callers that show it are refused. */
struct secret_entry {
        uint64_t version; /* 1 at first; grows whenever it was read anew, or is gone */
        char *text;       /* the last value that was read; NULL: there was none yet */
        bool gone;        /* there is none now */
        /* the service's: */
        struct secrets *service;
        struct secret_ref ref;
        struct watch watch;
        uint64_t read; /* the file's version that was read */
        struct task task;
        struct list users;
        struct list_node node;
};
/* One user's hold of a value. Embedded in its owner, zeroed before it is opened; not moved. */
struct secret {
        const struct secret_ref *ref; /* the user's own */
        struct secret_entry *entry;   /* NULL: not open */
        uint64_t seen;                /* its version, by secret_changed */
        struct task *wake;
        struct list_node node;
};
/* Reads it, unless another one did. wake: made ready when it changed; NULL: the user asks. That there is no
 * value yet is no error; that no folder of Secrets is given is one. */
int secret_open(struct secret *, struct loop *, const char *secrets, const struct secret_ref *,
                struct task *wake, struct error *) MUST_CHECK;
/* Since it was last asked, or opened? What can't be read for a reason of our own, such as too many open
 * files, is as it was, and tried again. */
bool secret_changed(struct secret *);
/* The same, after a look at the file: what happened before is known. */
bool secret_look(struct secret *);
static inline bool secret_gone(const struct secret *s) { return !s->entry || s->entry->gone; }
/* As it is now, for whatever callers show: p NULL: there is none, and nobody can show it. */
static inline struct str secret_value(const struct secret *s)
{
        return secret_gone(s) || !s->entry->text ? (struct str){ 0 } : str_of(s->entry->text);
}
/* The last value there was, for what is shown to others: it may do until they refuse it. p NULL: there never
 * was one. */
static inline struct str secret_last(const struct secret *s)
{
        return s->entry && s->entry->text ? str_of(s->entry->text) : (struct str){ 0 };
}
/* One of several values that are shown to the same peer. */
struct secret_part {
        struct secret *secret;
        const struct secret_ref *ref; /* NULL: it is not asked for */
        bool last_will_do;            /* one that is gone may do until it is refused */
};
/* Opens those that are asked for. After an error some may be open. */
int secret_open_parts(const struct secret_part *, size_t n, struct loop *, const char *secrets,
                      struct task *wake, struct error *) MUST_CHECK;
/* What can be shown; p NULL: it is missing, or not asked for. */
static inline struct str secret_part_value(const struct secret_part *p)
{
        return p->last_will_do ? secret_last(p->secret) : secret_value(p->secret);
}
/* "Secret NAME, key KEY, is missing or empty". Appends. */
void secret_tell_gone(const struct secret_ref *, struct buf *);
void secret_done(struct secret *); /* one that is not open is fine */
