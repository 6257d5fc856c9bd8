/* A kind of source is one const row: its key under spec.source, its field table, its shape, and how its
 * records come: either pulled from where they are kept (pull.h) or pushed by whoever has them (push.h). Each
 * lives in a folder of its own; sources.c has the one table of them. All calls on the loop's thread; none
 * blocks. */
#pragma once

#include "source/pull.h"
#include "source/push.h"
#include "source/services.h"
#include "source/shape.h"

/* A reason that a kind of source gives in its notices (port/notice.h), so that it is counted from 0. */
struct warning {
        const char *reason; /* NULL: the end of a list */
        bool loses;         /* with records that are gone */
};
#define WARNING(reason_, ...)                                                                                \
        {                                                                                                    \
                .reason = (reason_), __VA_ARGS__                                                             \
        }
#define WARNINGS_END                                                                                         \
        {                                                                                                    \
                .reason = NULL                                                                               \
        }

struct source_kind {
        const char *name;        /* the key under spec.source */
        const struct type *type; /* the spec's table; NULL: no Trigger can name it */
        const struct shape *shape;
        /* Exactly one of the two. */
        const struct pull_ops *pull;
        const struct push_ops *push;
        /* 0, or -1 when the spec can't work whatever happens. Connecting is no part of it: that shows as an
         * event. */
        int (*open)(struct source **, const void *spec, const struct services *, struct error *) MUST_CHECK;
        /* Optional: what of open can fail, without anything that a source of its kind that runs has: so it is
         * known before that one is stopped. */
        int (*check)(const void *spec, const struct services *, struct error *) MUST_CHECK;
        /* Are its records in no order, so that one does not wait for another whatever spec.delivery says?
         * Optional: they are. */
        bool (*unordered)(const void *spec);
        /* Where it comes from, for people and for the `source` attribute: "kafka shop/orders". */
        void (*origin)(const struct trigger *, struct buf *);
        /* Does it make something outside the cluster that must be taken back? Says what, for people.
         * Optional: no. */
        bool (*external)(const struct trigger *, struct buf *);
        const struct warning *warnings; /* a list; NULL: none */
};

/* The first member of every source's own struct. */
struct source {
        const struct source_kind *kind;
};

/* The one table of sources. */
extern const struct source_kind *const source_kinds[];
extern const size_t source_kinds_n;
/* The same as the API's decoder wants it; n is source_kinds_n. */
const struct source_type *source_types(void);
const struct source_kind *trigger_source(const struct trigger *);
/* How a listener refuses what is nobody's, or what its source has no shape for. */
void push_refuse(const struct push_refused *, struct push_reply *);
bool trigger_external(const struct trigger *, struct buf *); /* its kind's external */
