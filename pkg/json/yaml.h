/* Users' YAML and JSON read into a tree that knows where each value stands. YAML 1.2 core schema for scalars
 * (true/false, null, ints, floats; quoted is always string); one or many documents. Refused with a position:
 * duplicate keys, anchors and aliases, tags, complex keys, invalid UTF-8, files over 1 MiB, more than 72
 * levels (a pattern of 64, where it stands in a Trigger), more than 100,000 nodes. Owned by the caller; one
 * thread. */
#pragma once

#include "base/buf.h"
#include "base/error.h"
#include "json/writer.h"

enum node_kind { NODE_NULL, NODE_BOOL, NODE_INT, NODE_FLOAT, NODE_STRING, NODE_LIST, NODE_MAP };

struct node {
        enum node_kind kind;
        unsigned line, column; /* from 1, where the value begins */
        struct str text;       /* scalars: as written (unquoted); owned by the documents */
        union {
                bool boolean;
                int64_t integer;
                double real;
        };
        struct member *members; /* NODE_MAP, in the order of the file */
        struct node **items;    /* NODE_LIST */
        size_t n;               /* of members or items */
};
struct member {
        struct str key;
        unsigned line, column;
        struct node *value;
};

struct documents {
        struct node **roots;
        size_t n;
        void *memory;
};

/* One complaint at a place in a file; collected so that a file's errors come all at once. */
struct problem {
        unsigned line, column;
        char *path, *text;
};
struct problems {
        struct problem *list;
        size_t n, cap;
        /* Whoever runs what another version wrote passes by members that it does not know: they are no
         * problems, and only counted. */
        bool pass_unknown;
        size_t unknown;
        char first_unknown[160]; /* the path of the first */
};
void problem_add(struct problems *, unsigned line, unsigned column, const char *path, const char *format, ...)
        PRINTF(5, 6);
void problems_done(struct problems *);
/* "FILE:LINE:COL: PATH: text\n" for each, in order of place. path may be empty: then it is left out with its
 * colon. */
void problems_format(const struct problems *, const char *file, struct buf *);

/* 0 when all parsed; -1 when not, with the reasons in problems (none: memory is out). Documents parsed before
 * a syntax error are kept, and so is a document with duplicate keys (the first counts), anchors, aliases or
 * tags, so that the rest of it can be checked too. */
int yaml_parse(struct documents *, struct str text, struct problems *) MUST_CHECK;
void documents_done(struct documents *);
/* Stands where an alias or a tagged scalar was refused: told already, and no more can be said of it. */
static inline bool node_refused(const struct node *n)
{
        return n->kind == NODE_NULL && (str_is(n->text, "*") || str_is(n->text, "!"));
}
const struct node *node_member(const struct node *, const char *key); /* NULL when absent or not a map */
void node_write(const struct node *, struct writer *);                /* as JSON */
