/* Turns a Trigger's delivery settings into the configuration of connections, for any URL. Loop's thread. */
#pragma once

#include "api/trigger.h"
#include "http/client/client.h"

/* Less than an attempt: what ends first names the slow step. */
usec target_connect_timeout(const struct delivery_spec *, usec attempt);
/* Views borrow from the Trigger and from the buffer. secrets: the folder of Secrets; NULL: there is none. */
int target_config(struct http_target_config *, const struct trigger *, const char *url, const char *secrets,
                  struct buf *, struct error *) MUST_CHECK;
