/* Inside pkg/source/dds: the module, who we are, and what faults mean. Loop's thread. */
#pragma once

#include "secret/secret.h"
#include "source/dds/link.h"

/* module.c. The driver, loaded with the first call and kept for good. */
int dds_driver_load(const struct dds_driver **, struct error *) MUST_CHECK;

/* access.c. Values of Secrets, which may change while we are connected. */
struct dds_access {
        const struct dds_spec *spec;
        struct secret username, password, ca, cert, key; /* zeroed: not asked for */
};
/* wake: made ready when a Secret changed. That a value is missing is no error yet. */
int dds_access_open(struct dds_access *, const struct dds_spec *, const struct services *,
                    struct error *) MUST_CHECK;
void dds_access_done(struct dds_access *);
bool dds_access_changed(struct dds_access *); /* since it was last asked */
/* -1: one is missing; the error names it. */
int dds_access_copy(struct dds_access *, struct link_access *, struct error *) MUST_CHECK;

/* faults.c. What is wrong, and what to do about it; always -1. */
int dds_fault_error(const struct dds_spec *, const struct dds_fault *, struct error *);
/* The oplog does not hold the position any more. */
bool dds_fault_lost(const struct dds_fault *);
