/* Inside pkg/huawei: cloud.c sends calls, account.c has endpoints and keys. Nothing outside the folder
 * includes this. */
#pragma once

#include "base/bucket.h"
#include "base/clock.h"
#include "huawei/cloud.h"

/* An endpoint with its connections, shared by all accounts that use it. */
struct cloud_place {
        struct list_node node;
        char *urls[2]; /* the second may be NULL */
        char *ca_file; /* NULL: the system's */
        struct http_target *targets[2];
        unsigned at; /* index of the URL in use */
        unsigned users;
};

/* Keys that one or more accounts share, and the call that requests them. */
struct keyring {
        struct list_node node;
        char *name; /* NULL: they belong to one account */
        struct cloud *cloud;
        struct credentials *credentials;
        struct credentials_request request;
        struct cloud_call *call; /* requests temporary keys; NULL: the keys are fixed */
        struct cloud_place *place;
        struct list waiting;      /* calls that wait for keys */
        struct heap_node renewal; /* in the cloud's heap: when keys are to be renewed, or read again */
        unsigned users;
        bool temporary;
        /* strings that the credentials borrow */
        char *endpoint, *agency, *domain, *provider_urn, *agency_urn, *session, *policy, *policy_ids;
};

enum { SERVICES_MOST = 12 };
struct cloud_account {
        struct cloud *cloud;
        struct keyring *keyring;
        char *region, *project, *endpoint, *ca_file;
        struct {
                const char *service;
                struct cloud_place *place;
                bool derived;
        } places[SERVICES_MOST];
        size_t places_n;
        struct cloud_call *lookup; /* asks for the project's id; NULL: that was not needed */
        struct buf lookup_query;
        struct list waiting; /* calls that wait for the project's id */
        unsigned failures;
        usec lookup_at; /* asked again not before */
        struct error error;
};

struct limit {
        const char *service;
        struct bucket_rate rate;
        int64_t paid_until;
        struct list waiting; /* calls that wait, in order */
};

struct cloud {
        struct cloud_config config;
        struct task task;
        struct http http;
        struct http_peers peers;
        struct random random;
        struct list places, keyrings;
        struct heap deadlines, renewals; /* of calls; of keyrings */
        struct list answered;            /* requests that were answered */
        struct limit limits[SERVICES_MOST];
        size_t limits_n;
        usec skew;
};

static inline usec cloud_wall(const struct cloud *c) { return clock_wall(c->config.clock) + c->skew; }

/* account.c */
int place_of(struct cloud_account *, const char *service, struct cloud_place **, struct error *) MUST_CHECK;
int place_open(struct cloud *, struct cloud_place *, struct error *) MUST_CHECK;
void keyring_turn(struct keyring *, usec now);
/* Runs the cloud's task at that time; _due: when the keys ask for it. */
void keyring_plan(struct keyring *, usec at);
void keyring_due(struct keyring *, usec now);
/* Is the account's project id known? false: the call waits for it, or has failed. */
bool account_ready(struct cloud_account *, struct cloud_call *, usec now);

/* cloud.c */
void cloud_call_resume(struct list *waiting); /* sends all that wait in the list */
void cloud_call_finish(struct cloud_call *, usec now);
void cloud_call_fail(struct cloud_call *, const struct error *, usec now);
void cloud_call_begin(struct cloud *, struct cloud_call *);
