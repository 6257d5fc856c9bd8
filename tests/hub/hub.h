/* A hub of events, as CONTRIBUTING.md shows a polled source: a service that nobody has, with one track and a
 * mark in the Trigger's store. The tests compile it, so that the page stays true. Loop's thread. */
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
