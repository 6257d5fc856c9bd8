/* Takes the members of one name out of a JSON object that comes in pieces, however long the rest of it is:
 * what is kept is an object of those members alone, for a parser to judge. The rest is looked at no closer
 * than is needed to find where values end: strings, and how many brackets are open. Sans-I/O; owned by the
 * caller; one thread. */
#pragma once

#include "base/buf.h"

enum json_pick_state {
        PICK_START, /* nothing but white space yet */
        PICK_NULL,  /* within "null", which holds no member */
        PICK_KEY_OR_END,
        PICK_KEY,
        PICK_IN_KEY,
        PICK_COLON,
        PICK_VALUE,
        PICK_IN_VALUE,
        PICK_MORE,
        PICK_END,    /* the object is whole */
        PICK_BROKEN, /* no JSON object */
};

struct json_pick {
        struct str name; /* borrowed */
        struct buf out;  /* its max bounds what is kept; the caller frees it */
        enum json_pick_state state;
        /* characters of the key, or of null, that agree; SIZE_MAX: it is another key */
        size_t matched;
        uint64_t depth; /* brackets open within the value */
        /* of a \u in the key: the digits to come, and what those before them say */
        unsigned digits, character;
        bool wanted, in_string, escaped, any;
};

void json_pick_begin(struct json_pick *, struct str name); /* again, too: out keeps its room */
void json_pick_feed(struct json_pick *, struct str piece);
/* All has come. p NULL: it was no JSON object, or more was wanted than is kept; n 0: there was nothing, or
 * null. */
struct str json_pick_end(struct json_pick *);
