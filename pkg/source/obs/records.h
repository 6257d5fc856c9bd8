/* Notifications of object stores: what OBS publishes (OBS API reference, "Configuring Bucket Notification":
 * event versions 2.0 and 3.0) and what S3-compatible stores post, taken apart into records that have
 * FunctionGraph's members and no others. Pure; any thread. */
#pragma once

#include "base/buf.h"

enum {
        OBS_RECORDS_MOST = 1000,
        OBS_VALUES_MOST = 64 * OBS_RECORDS_MOST /* of all records; one has about thirty */,
        OBS_BODY_MOST = 4 << 20
};

struct obs_record {
        /* from bucket, key, version, sequencer and name: the same whenever it comes */
        char id[33];
        char *json; /* the record as a function gets it */
        size_t json_n;
        char *event; /* "ObjectCreated:Put" */
        char *bucket;
        char *key; /* decoded */
        usec time; /* wall; 0: unknown */
};
struct obs_records {
        struct obs_record *list;
        size_t n;
};

enum obs_result {
        OBS_RECORDS,
        OBS_NOTHING /* a test event, or an empty list */,
        OBS_MALFORMED,
        OBS_TOO_MANY,
        OBS_NO_MEMORY
};
enum obs_result obs_parse(struct str body, struct obs_records *) MUST_CHECK;
void obs_records_done(struct obs_records *); /* a zeroed one is fine */
void obs_record_done(struct obs_record *);

/* Is the event's name one of those? "ObjectCreated:*" stands for all that begin so. */
bool obs_event_matches(const char *event, char *const *patterns, size_t n);
