/* The process's way to the cloud: its calls on the HTTP client. SLUICE_CLOUD in the environment is one
 * address for all services, for tests. One per process; loop's thread. */
#pragma once

#include "http/client/client.h"
#include "huawei/cloud.h"

struct cloud_client;
int cloud_client_new(struct cloud_client **, struct loop *, struct http_client *, const struct clock *,
                     struct error *) MUST_CHECK;
struct cloud *cloud_client_cloud(struct cloud_client *); /* NULL: NULL */
/* After all that call the cloud, before the HTTP client; NULL is fine. */
struct cloud_client *cloud_client_free(struct cloud_client *);
