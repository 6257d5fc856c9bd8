/* Carries calls to the cloud over the HTTP client. For tests, SLUICE_CLOUD in the environment is one address
 * for all services. One per process; loop's thread. */
#pragma once

#include "http/client/client.h"
#include "huawei/cloud.h"

struct cloud_client;
int cloud_client_new(struct cloud_client **, struct loop *, struct http_client *, const struct clock *,
                     struct error *) MUST_CHECK;
struct cloud *cloud_client_cloud(struct cloud_client *); /* NULL: NULL */
/* Freed after all users of the cloud, before the HTTP client; NULL is fine. */
struct cloud_client *cloud_client_free(struct cloud_client *);
