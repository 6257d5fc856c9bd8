/* For tests: Triggers, from YAML as people write them or made by hand for a source alone, and records as
 * previews make them of documents. What can't be read fails the test. */
#pragma once

#include "json/yaml.h"
#include "source/source.h"

/* Made by hand, as far as a source reads it; what it says is const, although its members are not. */
#define TEST_TRIGGER(called, ...)                                                                            \
        {                                                                                                    \
                .name = (char *)(uintptr_t)(called), .namespace_ = (char *)(uintptr_t) "shop", __VA_ARGS__   \
        }

/* A whole document, with the sources of the program; the caller frees it. */
struct trigger *test_trigger(struct str text);

/* shop/NAME, whose sink is http://elsewhere/f. NULL: as the comment says. */
struct test_trigger_spec {
        const char *name;   /* orders */
        const char *uid;    /* u */
        const char *source; /* "timer: {…}": Kafka */
        const char *more;   /* further lines of the spec, two spaces in: none */
};
struct trigger *test_trigger_of(struct test_trigger_spec);

/* The document's node; owned by docs, which is empty before. */
struct node *test_yaml(struct str text, struct documents *docs);

/* A sample of a source that arrived at that time; its shape's sample_free frees it. */
struct record *test_record(const struct shape *, const struct trigger *, usec at, const char *document);
