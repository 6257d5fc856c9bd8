/* A hub of events, a service that nobody has: the polled source that CONTRIBUTING.md shows. The tests compile
 * it, so that the page stays true. Loop's thread. */
#pragma once

#include "source/source.h"

struct hub_spec {
        char *hub;
        usec polling_interval;
        struct cloud_spec *cloud;
};
extern const struct type hub_type;
extern const struct source_kind hub_source;
extern const struct poller_ops hub_ops; /* for tests and fuzz targets */
