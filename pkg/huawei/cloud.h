/* Calls to the cloud's services: signed, over kept connections, with one rate limit for each service that all
 * users of the process share. It also does once what each caller would otherwise do for itself: renew keys,
 * correct for a wrong local clock, try a second host. One per process; loop's thread. */
#pragma once

#include "base/loop.h"
#include "huawei/credentials.h"
#include "huawei/refusal.h"
#include "port/http.h"
#include "port/request.h"

enum { CLOUD_ANSWER_MOST = 16 << 20 };

struct cloud;
struct cloud_config {
        struct loop *loop; /* borrowed, as are the next two */
        const struct clock *clock;
        const char *endpoint; /* for tests: "http://HOST:PORT" instead of all services; NULL: each service's
                                 own endpoint */
        uint64_t seed;
};
int cloud_new(struct cloud **, const struct cloud_config *, struct error *) MUST_CHECK;
/* Gives it the ports for its calls; before the first account is made. */
void cloud_use(struct cloud *, const struct http *, const struct http_peers *);
struct cloud *cloud_free(struct cloud *); /* free its accounts first; NULL is fine */
/* How far the local clock is behind the cloud's, by the Date of the services. Measured once a call was
 * refused because of its date; 0: the clock is right, as far as is known. */
usec cloud_skew(const struct cloud *);

/* An account: where calls go and whose keys sign them, as a Trigger says. */
struct cloud_account;
struct cloud_account_config {
        const char *region;   /* NULL: calls need an endpoint */
        const char *project;  /* NULL: the region's project, which IAM is asked for */
        const char *endpoint; /* "https://HOST[:PORT]" of the services, except IAM and STS; NULL: by region */
        const char *ca_file;  /* PEM; NULL: the system's */
        /* endpoint NULL: by region; seed is filled in */
        struct credentials_config credentials;
        /* Accounts with the same name here share temporary keys; their config must have no cookie. NULL: keys
         * of its own */
        const char *shared;
};
int cloud_account_new(struct cloud_account **, struct cloud *, const struct cloud_account_config *,
                      struct error *) MUST_CHECK;
struct cloud_account *
cloud_account_free(struct cloud_account *); /* it has no calls in flight; NULL is fine */
/* Appends a warning about the service's endpoint if its region is unknown. */
void cloud_account_doubt(const struct cloud_account *, const char *service, struct buf *);

struct cloud_place;
/* Zeroed before its first use. */
struct cloud_call {
        struct request request;
        /* The request: borrowed until it is done. */
        struct cloud_account *account;
        const char *service; /* "dms": decides endpoint, rate limit and error codes */
        const char *method;
        const char *what; /* "consume of queue q": for errors */
        /* percent-encoded; "{project_id}" in the path is replaced by the account's project; query without ?
         */
        struct str path, query;
        struct str body; /* JSON; n 0: none */
        usec timeout;    /* of the whole call; 0: 10 s */
        /* The result. The error is for people, with retry and retry_after. */
        struct cloud_error refusal; /* verdict CLOUD_DONE with status 0: there was no answer */
        int status;                 /* 0: there was no answer */
        struct buf answer; /* the body; the caller may take it, otherwise it is kept until the next call */
        /* private to the cloud */
        struct list_node node; /* in the queue that it waits in */
        struct heap_node deadline;
        struct buf message;
        struct buf shown; /* the access key and the tokens that were sent, a line each: nobody may be told
                             them */
        struct http_request http;
        struct cloud_place *place;
        void (*own)(struct cloud_call *, usec now);
        const struct credentials_request *raw;
        uint64_t keys;                 /* their version */
        uint8_t hosts_tried, renewals; /* renewals: how often other keys were waited for */
        bool corrected;
};
/* Starts it at the end of this pass of the loop. */
void cloud_start(struct cloud_call *);
void cloud_cancel(struct cloud_call *);    /* busy or not: it is idle afterwards */
void cloud_call_done(struct cloud_call *); /* cancels, and frees what it holds */
