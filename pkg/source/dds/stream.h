/* Inside pkg/source/dds: the source's own struct. Loop's thread. */
#pragma once

#include "source/dds/inside.h"
#include "source/share.h"

/* What the track's reading job (CLAIM, LOAD, FETCH) waits for. */
enum dds_step {
        STEP_NONE,
        STEP_LOAD,  /* the store */
        STEP_START, /* the server, for where the first start begins */
        STEP_SAVE,  /* the store, so that the start stays what it was */
        STEP_OPEN,  /* the server, for the stream at the mark: then the track is loaded */
        STEP_READ,
        STEP_LOST, /* the server, for how much was lost, or where to go on */
};

struct dds {
        struct source source; /* the first member */
        const struct dds_spec *spec;
        const struct services *services;
        struct reader *reader;
        struct share share;
        struct dds_access access;
        const struct dds_driver *driver;
        struct link *link;             /* NULL: none yet, or no more */
        struct buf scope, mark, value; /* mark: of LOAD, once it is known; else for a moment */
        /* the track */
        bool there;  /* it is the reader's */
        bool loaded; /* its mark is known, while LOAD waits for the server */
        usec add_at; /* when to add it again */
        enum dds_step step;
        struct reader_job front, save, leave;
        bool unwanted;  /* front is to end with what the store answers */
        bool leaving;   /* its last job waits for the link */
        bool discard;   /* what the link is at is wanted no more */
        bool cut;       /* so that the link is of no use */
        usec cut_at;    /* when to cut it; USEC_NEVER */
        usec leave_at;  /* when to leave it to itself */
        bool troubled;  /* the reader knows of a trouble */
        bool told_lost; /* once for each position */
        struct dds_fault lost;
        struct store_request loading, saving; /* of front, of save */
        bool stopping, closed;
};
