/* Endpoints of the cloud's services: a table of service, region and hosts, made from endpoints.tsv. Domains
 * differ between the services of a region, so the hosts of a region that is not in the table are a guess.
 * Owns nothing; any thread. */
#pragma once

#include "base/buf.h"
#include "base/error.h"

struct endpoint_row {
        const char *service, *region; /* region "-": hosts for all regions */
        const char *hosts[2]; /* the second is tried if the first does not resolve or has a wrong certificate;
                                 NULL: none */
};
/* Sorted by service, then by region. */
extern const struct endpoint_row endpoint_rows[];
extern const size_t endpoint_rows_n;

enum { ENDPOINT_HOST_MOST = 160 };
struct endpoint {
        char hosts[2][ENDPOINT_HOST_MOST]; /* the second may be an empty string */
        bool derived;                      /* a guess: SERVICE.REGION.myhuaweicloud.com */
};
/* Does it look like a region's name? */
bool endpoint_region(struct str region);
/* -1: the region is malformed, or is missing and the service needs one. Services that have hosts without a
 * region (iam, sts) use those in all regions that are not in the table. */
int endpoint_find(struct endpoint *, const char *service, struct str region, struct error *) MUST_CHECK;
/* Appends a warning about a derived endpoint. */
void endpoint_doubt(const struct endpoint *, const char *service, struct str region, struct buf *);
