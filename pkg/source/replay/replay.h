/* Dead letters as a source, so that they go the same way as events: from a file (one JSON object a line), or from a Kafka topic. They are no source
 * that a Trigger can name: `sluice replay` hands the driver to the pipeline. A letter is FunctionGraph's envelope (event/dead_letter.h), whose
 * request_payload is sent again, or a CloudEvent, whose error attributes are left out. A filter sees the letter itself. */
#pragma once

#include "source/driver.h"

struct replay_file_spec { const char *path; };   /* "-": standard input */

extern const struct driver replay_file_driver;
/* kafka_driver, but for what a record is; its spec is a struct kafka_spec. */
const struct driver *replay_kafka_driver(void);

/* Is the text a dead letter? The error says what is missing. */
int replay_check(struct str letter, struct error *) MUST_CHECK;
