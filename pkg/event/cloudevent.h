/* CloudEvents 1.0 (github.com/cloudevents/spec): one event as its attributes and data, and how it is written:
 * HTTP binary mode, JSON structured mode, JSON batch. Borrows everything; any thread. */
#pragma once

#include "api/trigger.h"
#include "base/error.h"
#include "json/writer.h"

/* An attribute that the event brought itself. raw: the value is a JSON number or boolean, as written. */
struct cloud_attribute {
        struct str name, value;
        bool raw;
};
enum { CLOUDEVENT_ATTRIBUTES_MOST = 128 };

struct cloud_event {
        struct str id, source, type;
        struct str subject;      /* n 0: none */
        struct str key;          /* the partitionkey extension; p NULL: none */
        struct str content_type; /* of data; n 0: not known */
        struct str data;         /* p NULL: no data */
        bool json;               /* data is a JSON text, and declared as one */
        /* data is neither JSON nor text: in JSON it is Base64 whatever it looks like */
        bool bytes;
        bool no_memory; /* what data is could not be told for want of it: what is written fails */
        /* further ones of an event that was a CloudEvent already; names are unique */
        const struct cloud_attribute *own;
        size_t own_n;
        struct str whole; /* such an event as it came, in JSON; p NULL: it did not come so */
        usec time;        /* wall; 0: none. One that RFC 3339 can't write is left out */
        const struct string_map *overrides; /* further extensions; they win over key; may be NULL */
};

/* Further extensions, which no override replaces: what a dead letter tells. */
struct cloud_extension {
        const char *name;
        struct str value;
};

/* "ce-id: …\r\n" and so on, with Content-Type; values percent-encoded as the HTTP binding asks (3.1.3.2). The
 * body is the data. */
void cloudevent_headers(const struct cloud_event *, const struct cloud_extension *more, size_t n,
                        struct buf *);
/* The JSON object of structured mode, also an element of a batch. JSON data stands as it is, text as a
 * string, all else as data_base64. */
void cloudevent_write(const struct cloud_event *, const struct cloud_extension *more, size_t n,
                      struct writer *);
/* The source attribute: "/apis/sluice.dev/v1alpha1/namespaces/NAMESPACE/triggers/NAME#PART"; without a part
 * where that is NULL. */
void cloudevent_source(const struct trigger *, const char *part, struct buf *);
/* Sets data and what it is. declared: its media type; where that is missing or no header could hold it, the
 * type is guessed. In JSON what is declared as JSON and is JSON stands as a value, text as a string, and all
 * else as Base64, so that the receiver gets back the same bytes. */
void cloudevent_data(struct cloud_event *, struct str data, struct str declared);
/* There is no data; its media type may be declared all the same. */
void cloudevent_no_data(struct cloud_event *, struct str declared);
/* Is it a String of CloudEvents' type system that any attribute may have: UTF-8 without control characters
 * and noncharacters, not empty? */
bool cloudevent_string(struct str);
/* May an attribute have the value: a String, of time one as RFC 3339 writes it; raw: a number or a boolean of
 * JSON, which only extensions may have? They alone may be empty, too. */
bool cloudevent_attribute(struct str name, struct str value, bool raw);
/* Is it an attribute that a dead letter has besides the event's own? One of the event of that name does not
 * stand in its letter: it would be taken for what the letter tells, as that the event was cut. */
bool cloudevent_is_letters(struct str name);
/* May it be the name of an attribute: lower-case letters and digits? */
bool cloudevent_name(struct str);
/* Reads an event in JSON structured mode. The event borrows from the text and from the buffer, which is empty
 * before. -1: it is no valid CloudEvent 1.0. */
int cloudevent_read(struct str text, struct buf *space, struct cloud_event *, struct error *) MUST_CHECK;
/* The list of attributes at the start of an empty buffer, with room for so many bytes behind it that do not
 * move. NULL: out of memory. */
struct cloud_attribute *cloudevent_attributes(struct buf *space, size_t bytes);
