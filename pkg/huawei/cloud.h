/* Calls of the cloud's services: signed, over kept connections, within one limit for each service that all
 * users of the process share. What would be asked for twice by each caller is done here: keys that are
 * renewed, a local clock that is wrong, a second host. One per process; loop's thread. */
#pragma once

#include "base/loop.h"
#include "huawei/credentials.h"
#include "huawei/refusal.h"
#include "port/http.h"
#include "port/request.h"

enum { CLOUD_ANSWER_MOST = 16 << 20 };

struct cloud;
struct cloud_config {
        struct loop *loop; /* borrowed, as the next two */
        const struct clock *clock;
        const char *endpoint; /* "http://HOST:PORT" of all services, for tests; NULL: each service's own */
        uint64_t seed;
};
int cloud_new(struct cloud **, const struct cloud_config *, struct error *) MUST_CHECK;
/* How it reaches them, before the first account. */
void cloud_use(struct cloud *, const struct http *, const struct http_peers *);
struct cloud *cloud_free(struct cloud *); /* after its accounts; NULL is fine */
/* How far the local clock is behind the cloud's, by the services' own dates, once a call was refused for it;
 * 0: it is right, as far as is known. */
usec cloud_skew(const struct cloud *);

/* Where calls go and as whom: what a Trigger says. */
struct cloud_account;
struct cloud_account_config {
        const char *region;  /* NULL: only calls with an endpoint of their own can be made */
        const char *project; /* NULL: the region's own, which IAM is asked for */
        const char
                *endpoint;   /* "https://HOST[:PORT]" of what is called, IAM and STS aside; NULL: by region */
        const char *ca_file; /* PEM; NULL: the system's */
        /* endpoint NULL: by the region; seed is filled in */
        struct credentials_config credentials;
        /* Accounts of one name have the same temporary keys; their config must have no cookie. NULL: its own
         */
        const char *shared;
};
int cloud_account_new(struct cloud_account **, struct cloud *, const struct cloud_account_config *,
                      struct error *) MUST_CHECK;
struct cloud_account *cloud_account_free(struct cloud_account *); /* without calls; NULL is fine */
/* What is to be said about the service's endpoint: the region is not known. Appends; nothing: it is. */
void cloud_account_doubt(const struct cloud_account *, const char *service, struct buf *);

struct cloud_place;
/* Zeroed before its first use. */
struct cloud_call {
        struct request request;
        /* What is asked: borrowed until it is done. */
        struct cloud_account *account;
        const char *service; /* "dms": its endpoint, limit and codes */
        const char *method;
        const char *what; /* "consume of queue q": for errors */
        /* percent-encoded; "{project_id}" in the path stands for the account's; query without ? */
        struct str path, query;
        struct str body; /* JSON; n 0: none */
        usec timeout;    /* of all of it; 0: 10 s */
        /* What came of it. The error says it in words, with retry and retry_after. */
        struct cloud_error refusal; /* verdict CLOUD_DONE, status 0: there was no answer */
        int status;                 /* 0: there was no answer */
        struct buf answer;          /* the body; may be taken, else is kept until the next call */
        /* the cloud's own */
        struct list_node node; /* of what it waits for */
        struct heap_node deadline;
        struct buf message, access;
        struct http_request http;
        struct cloud_place *place;
        void (*own)(struct cloud_call *, usec now);
        const struct credentials_request *raw;
        uint8_t hosts_tried;
        bool renewed, corrected;
};
/* Takes effect at the end of this pass of the loop. */
void cloud_start(struct cloud_call *);
void cloud_cancel(struct cloud_call *);    /* busy or not: it is idle afterwards */
void cloud_call_done(struct cloud_call *); /* cancels, and frees what it holds */
