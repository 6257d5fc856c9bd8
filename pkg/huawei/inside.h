/* Inside the cloud's calls: cloud.c sends them, account.c has places and keys. Nothing outside pkg/huawei
 * includes this. */
#pragma once

#include "base/bucket.h"
#include "base/clock.h"
#include "huawei/cloud.h"

/* An endpoint with its connections, shared by all accounts that use it. */
struct cloud_place {
        struct list_node node;
        char *urls[2]; /* the second NULL: none */
        char *ca_file; /* NULL: the system's */
        struct http_target *targets[2];
        unsigned at; /* the one that is used */
        unsigned users;
};

/* Keys that one or more accounts use, and the call that asks for them. */
struct keyring {
        struct list_node node;
        char *name; /* NULL: one account's own */
        struct cloud *cloud;
        struct credentials *credentials;
        struct credentials_request request;
        struct cloud_call *call; /* for temporary keys; else NULL */
        struct cloud_place *place;
        struct list waiting;      /* calls, for keys */
        struct heap_node renewal; /* in the cloud's, when temporary keys are due */
        unsigned users;
        bool temporary;
        /* what the credentials borrow */
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
        struct cloud_call *lookup; /* of the project; NULL: none was needed */
        struct buf lookup_query;
        struct list waiting; /* calls, for the project */
        unsigned failures;
        usec lookup_at; /* not before */
        struct error error;
};

struct limit {
        const char *service;
        struct bucket_rate rate;
        int64_t paid_until;
        struct list waiting; /* calls, in order */
};

struct cloud {
        struct cloud_config config;
        struct task task;
        struct http http;
        struct http_peers peers;
        struct random random;
        struct list places, keyrings;
        struct heap deadlines, renewals; /* of calls, of keyrings */
        struct list answered;            /* requests of calls */
        struct limit limits[SERVICES_MOST];
        size_t limits_n;
        usec skew;
};

static inline usec cloud_wall(const struct cloud *c) { return clock_wall(c->config.clock) + c->skew; }

/* account.c */
int place_of(struct cloud_account *, const char *service, struct cloud_place **, struct error *) MUST_CHECK;
int place_open(struct cloud *, struct cloud_place *, struct error *) MUST_CHECK;
void keyring_turn(struct keyring *, usec now);
/* Its turn is at that time. */
void keyring_plan(struct keyring *, usec at);
/* Is the account's project known? false: the call waits for it, or has failed. */
bool account_ready(struct cloud_account *, struct cloud_call *, usec now);

/* cloud.c */
void cloud_call_resume(struct list *waiting); /* all of it are sent */
void cloud_call_finish(struct cloud_call *, usec now);
void cloud_call_fail(struct cloud_call *, const struct error *, usec now);
void cloud_call_begin(struct cloud *, struct cloud_call *);
