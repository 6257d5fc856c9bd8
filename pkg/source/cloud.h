/* A Trigger's `cloud` as the cloud's calls take it: where, and as whom. Loop's thread. */
#pragma once

#include "huawei/cloud.h"
#include "source/poller.h"

struct source_account;
struct source_account_config {
        const struct services *services; /* borrowed, as all of it */
        const struct cloud_spec *cloud;  /* NULL: all by default */
        /* of the resource, where its name says them, unless the Trigger does; n 0: it does not */
        struct str region, project;
        const char *ca_file; /* NULL: the system's */
        const char *service; /* whose endpoint is guessed where the region is not known: for the log */
};
/* -1: the Trigger's words can't work, such as a missing environment variable. */
int source_account_new(struct source_account **, const struct source_account_config *,
                       struct error *) MUST_CHECK;
struct source_account *source_account_free(struct source_account *); /* without calls; NULL is fine */
struct cloud_account *source_account(struct source_account *);
/* Are the keys in its Secrets other ones since it was last asked? The source is woken when they change: what
 * was refused may work now. */
bool source_account_keys_changed(struct source_account *);
/* What an account warns of (SOURCE_ACCOUNT_WARNING), as a list of its own. */
extern const struct warning source_account_warnings[];
/* A poller's calls, made as that account: the port is done before it is freed. */
struct poller_port source_account_port(struct source_account *);
