/* Inside pkg/source/replay: what a dead letter says, read as text and never through a tree, so that what is
 * sent again is byte for byte what it holds. Any thread. */
#pragma once

#include "source/source.h"

struct letter_view {
        bool cloud;                          /* a CloudEvent; otherwise FunctionGraph's envelope */
        struct str payload;                  /* of the envelope: the inside of a JSON string, as written */
        struct str event_id, id, request_id; /* the same; n 0: none */
};
/* -1: it is no dead letter, or can't be sent again as an event of that format as it was; the error says why.
 */
int letter_read(struct str text, enum event_format, struct letter_view *, struct error *) MUST_CHECK;

/* Of records whose value is a letter that was read. */
extern const struct shape letter_shape;
