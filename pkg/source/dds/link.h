/* Inside pkg/source/dds: the link of a stream to its server: a client of the driver and what it was told,
 * worked on by a helper's thread. Between link_submit and link_take everything but what is marked belongs to
 * that thread. What a server tells is read into records' documents there, so that the loop only copies. */
#pragma once

#include <pthread.h>

#include "base/helper.h"
#include "source/dds/shape.h"

enum link_work {
        LINK_OPEN,   /* opens the stream at the mark where it is not there already */
        LINK_READ,   /* the same, and reads */
        LINK_NOW,    /* asks for the time: a mark */
        LINK_OLDEST, /* asks for the time of the oldest change that is kept: a mark */
        LINK_CLOSE,
};

/* A change that was read, in one block. */
struct link_change {
        struct link_change *next;
        struct dds_told told;
        bool invalidate;
        char bytes[];
};

struct link_config {
        const struct dds_driver *driver;
        const struct dds_spec *spec;
        const struct clock *clock;
        struct waker *waker;
        struct task *wake; /* when a job has ended, or `trouble` has changed */
};

/* Who we are, and where. Owned texts. */
struct link_access {
        char *user, *password, *ca, *cert, *key;
};
void link_access_done(struct link_access *);

struct link;
int link_new(struct link **, const struct link_config *, struct error *) MUST_CHECK;
/* Cuts it, and waits for the thread. NULL is fine; returns NULL */
struct link *link_free(struct link *);
/* Of a link that was cut a while ago, and whose thread does not end: it is in a name's resolution, which
 * nobody can end. It is left to itself, and frees what it holds. Returns NULL */
struct link *link_leave(struct link *);

/* ---- a job -------------------------------------------------------------- */

/* The link is idle. mark: of OPEN and READ, copied. bytes: how much READ is to bring together. An error: no
 * thread. */
int link_submit(struct link *, enum link_work, struct str mark, size_t bytes, struct error *) MUST_CHECK;
bool link_busy(const struct link *);
/* true once for each job: it has ended, and the following say what came of it until the next one. */
bool link_take(struct link *);
const struct dds_fault *link_fault(const struct link *); /* kind NONE: it was done; or changes came before */
const struct error *link_unread(const struct link *);    /* what came can't be read; kind NONE: it can */
const struct link_change *link_changes(const struct link *);
/* READ: how far it has come, n 0: as before. NOW, OLDEST: the mark that was asked for. */
struct str link_mark(const struct link *);

/* ---- while a job is under way ------------------------------------------- */

/* It is to end soon: after the server's answer that is waited for. What it brings is of no use. */
void link_hurry(struct link *);
/* It is to end at once. From then on nothing can be done but LINK_CLOSE. */
void link_cut(struct link *);
/* Where a READ is that has brought nothing so far: how far the stream was read; false: it has brought
 * something, or can't tell. Appends the mark. */
bool link_reached(struct link *, struct buf *mark);
/* An attempt to read fails again and again: the fault; false: none does. changed: since it was last asked. */
bool link_trouble(struct link *, struct dds_fault *, bool *changed);
/* Takes what shows who we are from the next connection on; a READ under way ends for it, and the next one
 * opens the new connection before it closes the old one. */
void link_renew(struct link *, struct link_access *);
