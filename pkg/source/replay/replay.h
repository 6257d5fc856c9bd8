/* Dead letters as a source, so that they go the same way as events: from a file (one JSON object a line), or
 * from a Kafka topic. They are no source that a Trigger can name: `sluice replay` hands the kind to the
 * pipeline. A letter is FunctionGraph's envelope (event/dead_letter.h), whose request_payload is sent again,
 * or a CloudEvent, whose error attributes are left out; both byte for byte, or not at all. A filter sees the
 * letter itself.
 *
 * What can't be read is refused: told, counted, and never committed. Of a file every line is judged before
 * the first one is sent, and with one that is refused nothing is sent; of a topic the others are sent, and
 * the group's position stays in front of the first that was refused. */
#pragma once

#include "source/source.h"
#include "source/kafka/kafka.h"

/* What the source has to say, for whoever started it; both outlive it. */
struct replay_report {
        /* "FILE:LINE: why" or "topic T, partition P, offset O: why" */
        void (*refused)(void *cookie, const char *text);
        void (*note)(void *cookie, const char *text);
        void *cookie;
        uint64_t refusals, letters; /* letters: of a file, those that there are to be sent */
};

/* How far it went is kept in a file beside it, PATH.replayed, until all were sent; not for standard input. */
/* "-": standard input */
struct replay_file_spec {
        const char *path;
        struct replay_report *report;
};
struct replay_topic_spec {
        struct kafka_spec kafka;
        struct replay_report *report;
};

extern const struct source_kind replay_file_source;
extern const struct source_kind replay_topic_source;
