/* What the pattern's compiler makes and the matcher uses. */
#pragma once

#include "filter/filter.h"
#include "filter/value.h"

enum {
        PATTERN_MAX = 64 << 10,   /* bytes */
        PATTERN_DEPTH_MAX = 64,   /* objects in objects */
        PATTERN_RULES_MAX = 1000, /* what $or multiplies out to; EventBridge's own limit */
        PATTERN_FIELDS_MAX = 256, /* in one of those; the reference's own limit */
        /* on the way that the pattern's fields lead; beside it there is no bound */
        RECORD_DEPTH_MAX = 1 << 20,
        /* steps of the search for values that stand in the same array elements */
        TRIES_MAX = 4 << 20,
        /* of testing the values of a record: a test each, and more for a wildcard in a long text */
        STEPS_MAX = 16 << 20,
        TABLE_KEPT = 64 << 10, /* bytes of each table that are kept from one record to the next */
};
#define RECORD_MAX ((size_t)1 << 30)

/* A place where a value was met: in which array element (0: none), and at which byte, so that whole elements
 * can be passed over. */
struct hit {
        uint32_t element, at;
};
struct hits {
        struct hit *list;
        size_t n, cap;
};

/* A step of a path: one name, or what stands between two dots of a name. */
struct step {
        struct str name;
        struct step *parent, *next; /* next: among siblings, while compiling */
        struct step *first_child;
        struct step **children; /* sorted by length, then bytes */
        size_t children_n;
        unsigned depth;
        struct list *lists; /* the value lists that a value here is tested against */
        bool absence;       /* one of them asks that there be none: then all values are noted */
        struct hits present;
};

/* The list of what a member's value may be: "state": ["open", {"prefix": "re"}] */
struct list {
        struct step *step;
        struct list *next;     /* at the same step */
        struct str path, text; /* with dots; as written in the pattern */
        size_t order;          /* where in the pattern */
        struct test *tests;
        size_t tests_n, exact_n; /* exact_n: texts that stand first, sorted */
        bool absent, used;       /* absent: {"exists": false} is among them */
        struct hits hits;        /* of the record at hand: values that one of the tests matches */
};

/* One of the combinations that $or stands for: all fields must match. */
struct field {
        struct list *list;
        /* arrays at this depth or above matter to a later field of the rule, deeper ones do not */
        unsigned shared;
};
struct rule {
        struct field *fields;
        size_t n;
};

/* Memory that is given back all at once. */
struct arena {
        struct chunk *chunks;
        size_t used, cap;
};
void *arena_get(struct arena *, size_t bytes) MUST_CHECK; /* zeroed; NULL when memory is out */
void arena_done(struct arena *);

struct pattern {
        struct arena arena;
        struct step *root;
        struct rule *rules;
        size_t rules_n;
};
int pattern_compile(struct pattern *, struct str json, struct error *) MUST_CHECK;
void pattern_done(struct pattern *);
/* NULL when no pattern member is called so */
struct step *step_child(const struct step *, struct str name);
