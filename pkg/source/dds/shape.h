/* Inside pkg/source/dds: what a record's origin is. */
#pragma once

#include "source/dds/change.h"
#include "source/reader.h"
#include "source/source.h"

/* The record's value is the change's document, and its key the text of documentKey in it. */
extern const struct shape dds_shape;

/* What a record is made of. */
struct dds_told {
        struct dds_change change;
        struct str document, token, id, mark; /* token: JSON */
};
/* Copies it into a page; the page may fail. NULL: there is no record of it. */
struct record *dds_record(struct page *, const struct dds_told *);
int dds_sample(const struct trigger *, const struct node *document, usec wall, struct record **,
               struct error *) MUST_CHECK;
