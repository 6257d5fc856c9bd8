/* Field tables: each type of the API is one const table, and from it come the decoder with its defaults and
 * bounds, the CRD's OpenAPI schema, the reference in docs/ and the writer. A CEL rule stands beside the C
 * function that checks the same. Owns nothing; any thread. */
#pragma once

#include "json/yaml.h"

enum field_type {
        FIELD_STRING,   /* char * */
        FIELD_BOOL,     /* bool */
        FIELD_INT,      /* int64_t */
        FIELD_DURATION, /* usec; Go duration text */
        FIELD_TIME,     /* usec, wall clock; RFC 3339 text */
        FIELD_ENUM,     /* int: index into values */
        FIELD_OBJECT,   /* pointer to the object, NULL when absent (embedded: false) */
        FIELD_OBJECTS,  /* struct objects: a list of maps of one type */
        FIELD_STRINGS,  /* struct strings */
        FIELD_MAP,      /* struct string_map: string → string */
        /* char *: any JSON, kept as JSON text (x-kubernetes-preserve-unknown-fields), e.g. worker.resources
         */
        FIELD_RAW,
};
enum raw_shape { RAW_ANY, RAW_MAP, RAW_LIST /* of maps */ };

struct strings {
        char **list;
        size_t n;
};
void strings_join(const struct strings *, struct buf *); /* with commas between */
struct objects {
        void **list;
        size_t n;
};
struct string_map {
        char **keys, **values;
        size_t n;
};

struct type;
struct field {
        const char *name; /* as in YAML */
        /* what earlier versions called it: no longer taken, and said so wherever it stands; NULL */
        const char *former;
        enum field_type type;
        size_t offset; /* in the type's struct */
        /* one or two full sentences; units and defaults are added by the generators */
        const char *help;
        /* the default as YAML text; NULL: none. FIELD_OBJECT: "{}" makes it of its members' defaults */
        const char *fallback;
        bool required;
        /* FIELD_ENUM, and FIELD_STRING that allows only these: names, ends in NULL */
        const char *const *values;
        const struct type *object; /* FIELD_OBJECT, FIELD_OBJECTS */
        enum raw_shape shape;      /* FIELD_RAW */
        int64_t min,
                max; /* FIELD_INT: value; FIELD_DURATION: usec; FIELD_STRING: length; FIELD_STRINGS,
                        FIELD_OBJECTS, FIELD_MAP: count. both 0: unbounded; max INT64_MAX: no upper bound */
        /* FIELD_STRING, items of FIELD_STRINGS, values of FIELD_MAP: ERE without features outside RE2; NULL:
         * any */
        const char *pattern;
        /* what the pattern asks for, in words, for messages and docs: "HOST:PORT"; NULL */
        const char *format;
        const char *cloud; /* what the cloud service calls it, for docs; NULL */
        /* FIELD_MAP: the most characters of a value; 0: unbounded. A rule that matches a value by a pattern
         * needs it: without, an API server takes it for as long as a request and refuses the definition. */
        int64_t value_max;
        bool item_min_one; /* FIELD_STRINGS: items are not empty */
        bool set;          /* FIELD_STRINGS: no item is there twice */
};
/* A rule over a whole object. cel and check say the same; message tells what to do; path names the member it
 * is reported at ("" the object). */
struct rule {
        const char *cel, *message, *path;
        bool (*check)(const void *object); /* true: holds */
        /* Instead of check: explain appends what is wrong in this very case and returns false. Where CEL
         * can't express it (cron syntax, zones) cel is NULL. Rules run when the object's own members are
         * well-formed; objects in it may not be: pointers may be NULL. */
        bool (*explain)(const void *object, struct buf *why);
};
struct type {
        const char *name; /* of the Go-like kind, for docs: "KafkaSource" */
        const char *help;
        const struct field *fields;
        size_t fields_n;
        const struct rule *rules;
        size_t rules_n;
        size_t size; /* of the C struct */
};

/* Rows of the tables. FIELD: its kind without FIELD_, its name, its type's struct and member, then what else
 * it has. */
#define FIELD(kind, name_, object_, member, ...)                                                             \
        {                                                                                                    \
                .name = (name_), .type = FIELD_##kind, .offset = offsetof(object_, member), __VA_ARGS__      \
        }
#define RULE(...)                                                                                            \
        {                                                                                                    \
                __VA_ARGS__                                                                                  \
        }
#define TYPE(name_, object_, fields_, help_, ...)                                                            \
        {                                                                                                    \
                .name = (name_), .help = (help_), .fields = (fields_), .fields_n = COUNT_OF(fields_),        \
                .size = sizeof(object_), __VA_ARGS__                                                         \
        }
#define RULES(rules_) .rules = (rules_), .rules_n = COUNT_OF(rules_)

/* Does the text match the pattern of a table, which stays where it is for good? Each thread compiles it once.
 * The twin of CEL's matches(). false also when memory is out. */
bool schema_matches(const char *pattern, const char *text);
/* Frees what this thread compiled: for one that has read its Triggers, and reads no more for a while or ends.
 */
void schema_forget_patterns(void);

/* null is absent. Absent and without default: pointers are NULL, lists empty, times 0, integers 0, or min - 1
 * where 0 is within the bounds. Decodes node into the zeroed object of type->size: defaults are filled in,
 * unknown members are named with the nearest known one, former names with today's, every problem is collected
 * with its path under prefix. What was allocated is freed by schema_done even after failure. 0 or -1. */
int schema_decode(const struct type *, const struct node *, void *object, const char *prefix,
                  struct problems *) MUST_CHECK;
/* An object made of the defaults alone. */
int schema_defaults(const struct type *, void *object) MUST_CHECK;
void schema_done(const struct type *, void *object);
void schema_write(const struct type *, const void *object, struct writer *); /* JSON, defaults included */
/* the schema of the CRD, with x-kubernetes-validations */
void schema_openapi(const struct type *, struct writer *);
/* Calls for each object of type wanted that stands in the object, at any depth. */
void schema_each(const struct type *, const void *object, const struct type *wanted,
                 void (*each)(void *cookie, const void *found), void *cookie);
/* a Markdown section, and one for each object in it */
void schema_reference(const struct type *, const char *path, struct buf *);
/* Markdown rows: member, default */
void schema_reference_defaults(const struct type *, const char *path, struct buf *);
void schema_reference_former(const struct type *, const char *path, struct buf *); /* member, former name */

/* For the files that read the tables. */
void docs_prose(struct buf *, const char *indent,
                const char *text);       /* Markdown lines of at most 100 columns */
void duration_plain(struct buf *, usec); /* as people write it: 15m, 1h30m, 200ms */
void schema_expected(const struct field *,
                     struct buf *); /* "an integer from 1 to 1000", "one of A, B or C" */
/* The default as a node, to be freed with documents_done; NULL: none, or memory is out. */
const struct node *schema_fallback(const struct field *, struct documents *);
/* A port, 1 to 65535. */
#define PORT_PATTERN                                                                                         \
        "0{0,4}([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
/* What Kafka takes for a topic: no longer than 249 characters, and neither . nor .. */
#define KAFKA_TOPIC_PATTERN                                                                                  \
        "^([A-Za-z0-9_-]|[A-Za-z0-9_-][.]|[A-Za-z0-9._-][A-Za-z0-9_-]|[A-Za-z0-9._-]{3,249})$"
#define KAFKA_TOPIC_FORMAT "a topic name: up to 249 letters, digits, ., _ and -, but neither . nor .."
/* What a duration looks like, here and in the CRD: whole microseconds, since that is the unit of time here,
 * and no days, which CEL's duration() does not know. */
#define DURATION_PATTERN                                                                                     \
        "^(0|([0-9]+(us|\xc2\xb5s)|[0-9]+(\\.[0-9]{1,3})?ms|[0-9]+(\\.[0-9]{1,6})?(s|m|h))+)$"
enum { DURATION_LONGEST = 32 };
