/* A change as a server tells it, read from BSON into the document that a filter sees,
 * and what its events need of it. Any thread. */
#pragma once

#include "source/dds/bson.h"
#include "source/dds/driver.h"
#include "source/dds/dds.h"

/* A piece of a change's document. n 0: it is not there. */
struct dds_piece {
        uint32_t at, n;
};
/* The document is JSON: {"operationType", "ns", "documentKey", "fullDocument", …}, all that the server told
 * but the token, in its order. Pieces are JSON texts in it. */
struct dds_change {
        struct dds_piece operation, ns, db, coll, key, key_id, full;
        struct str token;     /* JSON; of a record */
        int64_t full_bytes;   /* of fullDocument, as BSON */
        int64_t key_id_bytes; /* of documentKey's _id, as an element */
        struct dds_time cluster_time;
        usec wall_time; /* 0: not told */
};

/* A change that is being read: its parts, since one that is large comes in several. Zeroed before, with the
 * maximum of its buffers set. */
struct dds_reading {
        struct buf parts;         /* the parts so far, one behind the other */
        int64_t fragments, of;    /* 0: it is whole */
        struct buf document;      /* once it is whole: JSON */
        struct buf token, id;     /* the token in JSON, and as what identifies the change */
        struct buf position;      /* the mark behind it */
        struct dds_change change; /* its token is not set */
        bool invalidate;          /* the stream has ended with it */
};
void dds_reading_init(struct dds_reading *);
void dds_reading_done(struct dds_reading *);
/* Takes a part, and reads the change once it is whole. 1: it is; 0: parts are missing; -1: it can't be read.
 */
int dds_reading_take(struct dds_reading *, struct str bson, struct error *) MUST_CHECK;
/* What was taken of a change is forgotten. */
void dds_reading_reset(struct dds_reading *);

/* ---- positions ---------------------------------------------------------- */

/* A mark: where a stream goes on. "after TIME TOKEN": behind that token; "renew TIME TOKEN": behind the
 * token of an invalidate event; "at TIME": at that time. TIME is SECONDS.NUMBER of the cluster's clock, 0.0
 * where it is not known; TOKEN is the text of a token's _data, or, where it is none, = and its BSON in
 * Base64. */
enum dds_position_kind { DDS_POSITION_AFTER, DDS_POSITION_RENEW, DDS_POSITION_TIME };
struct dds_position {
        enum dds_position_kind kind;
        struct dds_time time;
        struct buf token; /* BSON */
};
void dds_position_write(enum dds_position_kind, struct dds_time, struct str token, struct buf *mark);
/* false: the mark is none. The token's buffer is reset before. */
bool dds_position_read(struct str mark, struct dds_position *) MUST_CHECK;
/* A token as text: its _data, or Base64. */
void dds_token_text(struct str token, struct buf *);
