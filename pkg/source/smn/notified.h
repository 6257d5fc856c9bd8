/* What the sources have in common that are notified at /NAMESPACE/NAME: a topic, whose messages are proved,
 * or another sender; an inbox, by which each message is delivered once; one table of push calls. Loop's
 * thread. */
#pragma once

#include "source/smn/topic.h"

struct notified;
struct notified_kind {
        /* A topic's message, proved: taken. Its call is answered through the inbox. */
        void (*admit)(struct notified *, uint64_t call, struct notification *);
        /* A request, where there is no topic. Optional: there is always one. */
        enum push_verdict (*receive)(struct notified *, uint64_t call, const struct push_request *,
                                     struct push_reply *);
        void (*look)(struct notified *); /* before each poll; optional */
        /* As an inbox asks: the records of a message whose turn it is, and the end of it. */
        size_t (*records)(struct notified *, struct inbox_item *, struct record **, size_t most);
        void (*drop)(struct inbox_item *);
        struct inbox_item *(*item)(struct record *); /* the message of a record */
        void (*free)(struct notified *);             /* the source's own struct, and what else it has */
        size_t remember_most;                        /* ids of delivered messages */
};

/* The first member of the source's own struct, zeroed. */
struct notified {
        struct source source;
        const struct notified_kind *kind;
        const struct smn_spec *spec;
        const struct services *services;
        struct inbox *inbox;
        struct topic *topic; /* NULL: messages come another way */
        uint64_t unwanted;
};

/* -1: what it opened is freed with the struct. topic: the messages are a topic's. */
int notified_open(struct notified *, const struct notified_kind *, const struct smn_spec *, bool topic,
                  const struct services *, struct error *) MUST_CHECK;
extern const struct push_ops notified_push;

/* "/NAMESPACE/NAME" */
void notified_path(const struct trigger *, struct buf *);
/* of all whose specs begin with struct smn_spec */
bool notified_external(const struct trigger *, struct buf *);
