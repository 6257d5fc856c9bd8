/* What is told of an event that the function did not accept. Two shapes: FunctionGraph's notification of an
 * asynchronous invocation's failure, and, for functions that take CloudEvents, the event itself with
 * Knative's error attributes (knativeerrordest, knativeerrorcode, knativeerrordata). Borrows everything; any
 * thread. */
#pragma once

#include "event/cloudevent.h"

struct dead_letter {
        usec time;     /* wall */
        struct str id; /* of the event: where it came from */
        struct str request_id;
        struct str urn;  /* of the function; n 0: not known */
        struct str sink; /* where it was sent */
        unsigned attempts;
        int status;         /* of the last answer; 0: none */
        struct str reason;  /* in words */
        struct str answer;  /* the function's */
        struct str payload; /* FunctionGraph: the event as it was sent */
        /* payload (with CloudEvents the data) or answer are only the start of what they were: */
        bool truncated;
        size_t payload_n, answer_n; /* bytes that they had */
};

void dead_letter_write(const struct dead_letter *, struct writer *);

/* The error attributes; the buffer holds what they borrow. */
enum { DEAD_LETTER_EXTENSIONS = 6, DEAD_LETTER_DATA_MAX = 1024 };
size_t dead_letter_extensions(const struct dead_letter *, struct buf *,
                              struct cloud_extension out[DEAD_LETTER_EXTENSIONS]);
