/* pkg/api's own: the tables of spec for the source types at hand. They borrow the types and point into
 * themselves: never copied. */
#pragma once

#include "api/trigger.h"
#include "api/worker.h"

struct spec_tables {
        struct type spec, source;
        struct field spec_fields[11], source_fields[SOURCE_TYPES_MAX];
        struct rule one_source;
        char cel[1024], message[1024];
};
extern const struct type delivery_type, sink_ref_type;
/* The types inside of delivery, for tests; ends in NULL. */
extern const struct type *const delivery_types[];

#define NAME_PATTERN "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
#define NAME_WORDS                                                                                           \
        "a DNS label: lower-case letters, digits and -, beginning and ending with a letter or digit"
#define PATH_PATTERN "^/([^/# [:cntrl:]][^# [:cntrl:]]*)?$"
#define QUOTED(pattern) "r'" pattern "'"
/* What becomes a header's value. */
#define HEADER_PATTERN "^[!-~]([ -~]*[!-~])?$"
#define HEADER_WORDS "printable ASCII without spaces at its ends"

void spec_tables_build(struct spec_tables *, const struct source_type *, size_t n);

/* Names of children are made of a Trigger's name and must fit into 63 characters. */
enum { TRIGGER_NAME_LONGEST = 52 };
_Static_assert(TRIGGER_NAME_LONGEST + sizeof(WORKER_CHECKPOINT_SUFFIX) - 1 <= 63, "a label's length");
