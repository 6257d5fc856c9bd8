/* Where the cloud's services are: a table of service, region and hosts, made from endpoints.tsv. No suffix
 * fits all services of a region, so a region that is not in it is only guessed. Owns nothing; any thread. */
#pragma once

#include "base/buf.h"
#include "base/error.h"

struct endpoint_row {
        const char *service, *region; /* region "-": of all */
        const char *hosts[2];         /* the second is tried when the first can't be it; NULL: none */
};
/* Sorted by service, then by region. */
extern const struct endpoint_row endpoint_rows[];
extern const size_t endpoint_rows_n;

enum { ENDPOINT_HOST_MOST = 160 };
struct endpoint {
        char hosts[2][ENDPOINT_HOST_MOST]; /* the second may be empty */
        bool derived;                      /* by the rule, SERVICE.REGION.myhuaweicloud.com */
};
/* Is it what a region's name looks like? */
bool endpoint_region(struct str region);
/* -1: that is no region, or the service has none without one. A service that has hosts without a region (iam,
 * sts) has those in all regions that are not in the table. */
int endpoint_find(struct endpoint *, const char *service, struct str region, struct error *) MUST_CHECK;
/* What is to be said of one that is derived. Appends. */
void endpoint_doubt(const struct endpoint *, const char *service, struct str region, struct buf *);
