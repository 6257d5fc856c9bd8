/* How a polled source calls its cloud service: the poller's port, made of the process's cloud and of what the
 * Trigger says of region, endpoint and keys. Owns the account and the calls under way. Loop's thread. */
#pragma once

#include "source/cloud.h"
#include "source/poller.h"

struct calls;
int calls_new(struct calls **, const struct source_account_config *, struct error *) MUST_CHECK;
/* After the poller is done. NULL is fine; returns NULL. */
struct calls *calls_free(struct calls *);
struct poller_port calls_port(struct calls *);
