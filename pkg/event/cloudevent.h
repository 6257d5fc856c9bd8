/* CloudEvents 1.0 (github.com/cloudevents/spec): one event as its attributes and data, and how it is written: HTTP binary mode, JSON structured
 * mode, JSON batch. Borrows everything; any thread. */
#pragma once

#include "api/trigger.h"
#include "json/writer.h"

struct cloud_event {
        struct str id, source, type;
        struct str subject;              /* n 0: none */
        struct str key;                  /* the partitionkey extension; p NULL: none */
        struct str content_type;         /* of data */
        struct str data;                 /* p NULL: no data */
        bool json;                       /* data is a JSON text */
        usec time;                       /* wall; 0: none */
        const struct string_map *overrides;      /* further extensions; they win over key; may be NULL */
};

/* Further extensions, which no override replaces: what a dead letter tells. */
struct cloud_extension { const char *name; struct str value; };

/* "ce-id: …\r\n" and so on, with Content-Type; values percent-encoded as the HTTP binding asks (3.1.3.2). The body is the data. */
void cloudevent_headers(const struct cloud_event *, const struct cloud_extension *more, size_t n, struct buf *);
/* The JSON object of structured mode, also an element of a batch. JSON data stands as it is, text as a string, all else as data_base64. */
void cloudevent_write(const struct cloud_event *, const struct cloud_extension *more, size_t n, struct writer *);
/* The source attribute: "/apis/sluice.dev/v1alpha1/namespaces/NAMESPACE/triggers/NAME#PART"; without a part where that is NULL. */
void cloudevent_source(const struct trigger *, const char *part, struct buf *);
/* What a payload is taken for: JSON, text or bytes. */
const char *content_type_of(struct str data, bool *json);
