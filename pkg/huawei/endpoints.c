#include "huawei/endpoints.h"

#include <stdio.h>

enum { REGION_MOST = 64 };

bool endpoint_region(struct str region)
{
        for (size_t i = 0; i < region.n; i++) {
                char c = region.p[i];

                if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '-')
                        return false;
        }
        return region.n > 0 && region.n <= REGION_MOST && region.p[0] != '-' && region.p[region.n - 1] != '-';
}

static int compare(const struct endpoint_row *row, const char *service, struct str region)
{
        int order = strcmp(row->service, service);
        size_t n = strlen(row->region);

        if (order)
                return order;
        order = memcmp(row->region, region.p, MIN_OF(n, region.n));
        return order ? order : n < region.n ? -1 : n > region.n;
}

static const struct endpoint_row *find(const char *service, struct str region)
{
        size_t low = 0, high = endpoint_rows_n;

        while (low < high) {
                size_t middle = low + (high - low) / 2;
                int order = compare(&endpoint_rows[middle], service, region);

                if (!order)
                        return &endpoint_rows[middle];
                if (order < 0)
                        low = middle + 1;
                else
                        high = middle;
        }
        return NULL;
}

/* DMS queues and Kafka instances have the same hosts. */
static const char *host_service(const char *service)
{
        return strcmp(service, "kafka") == 0 ? "dms" : service;
}

int endpoint_find(struct endpoint *e, const char *service, struct str region, struct error *err)
{
        const struct endpoint_row *row;

        if (region.n && !endpoint_region(region))
                return error_set(err, ERROR_INVALID,
                                 "\"" STR_FMT "\" is no region: expected letters, digits and -, as in "
                                 "cn-north-4",
                                 STR_ARG(region));
        row = region.n ? find(service, region) : NULL;
        if (!row)
                row = find(service, STR("-"));
        if (!row && !region.n)
                return error_set(err, ERROR_INVALID, "%s is found only by a region: give one, or an endpoint",
                                 service);
        *e = (struct endpoint){ .derived = !row };
        if (!row)
                (void)snprintf(e->hosts[0], sizeof(e->hosts[0]), "%s." STR_FMT ".myhuaweicloud.com",
                               host_service(service), STR_ARG(region));
        for (size_t i = 0; row && i < COUNT_OF(e->hosts) && row->hosts[i]; i++)
                (void)snprintf(e->hosts[i], sizeof(e->hosts[i]), "%s", row->hosts[i]);
        return 0;
}

void endpoint_doubt(const struct endpoint *e, const char *service, struct str region, struct buf *out)
{
        buf_printf(out,
                   "region " STR_FMT
                   " is not among those known of %s: its endpoint is taken to be https://%s; "
                   "if that is wrong, give cloud.endpoint",
                   STR_ARG(region), service, e->hosts[0]);
}
