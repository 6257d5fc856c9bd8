/* A pull source lends records, is given credit, and hears how each ended. Its records stand in tracks, the
 * units of commit. Nothing blocks, nothing calls back: what it has to say is polled. Loop's thread. */
#pragma once

#include "record/record.h"
#include "source/state.h"

struct source;

enum pull_event_kind {
        PULL_RECORD,   /* record: lent */
        PULL_ASSIGNED, /* track: may be given credit now */
        /* track: finish what is in flight by give_up_at (monotonic), then `revoked` is called */
        PULL_REVOKING,
        /* track: someone else has it already: commit nothing; then `revoked` is called */
        PULL_LOST,
        PULL_STATE,  /* state, text: changed */
        PULL_CLOSED, /* after stop: everything is given back; free may be called */
};
struct pull_event {
        enum pull_event_kind kind;
        uint32_t track;
        struct record *record;
        usec give_up_at;
        /* PULL_REVOKING: they are not ours any longer, and are about to come again, to whoever asks. */
        bool again;
        enum source_state state;
        const char *text; /* the peer's own words; borrowed until the next poll; NULL: none */
};

/* Of a source that goes by the clock: its records are runs. Scheduled times, wall. */
struct pull_runs {
        usec last;            /* the one that ended last; 0: none did */
        enum outcome outcome; /* of that */
        usec next;            /* 0: there is none, or it is not known */
};

/* How far one track is behind. */
struct track_lag {
        const char *stream; /* what it is a part of, such as a topic; borrowed until the source is called */
        int32_t number;
        int64_t records; /* not committed; -1: unknown */
        usec oldest;     /* wall: when the oldest of them that came happened; 0: there is none */
};

struct pull_ops {
        bool commit_at_once; /* positions are so few that each is worth a write */
        size_t (*poll)(struct source *, struct pull_event *, size_t max, usec now);
        usec (*deadline)(const struct source *); /* poll again then; USEC_NEVER */
        /* Lend up to records more of the track, and go on while the bytes lent stay under bytes more. Both
         * add to what is left; the last record may cross the line, what it takes too much is owed. */
        void (*credit)(struct source *, uint32_t track, uint32_t records, size_t bytes);
        void (*release)(struct source *, struct record *, enum outcome); /* every record comes back once */
        /* Copies what the record borrows from a bigger fetch; false: out of memory. Optional: nothing is
         * borrowed. */
        bool (*detach)(struct source *, struct record *);
        void (*commit)(struct source *, uint32_t track,
                       uint64_t next); /* every position below next is done */
        /* Answers PULL_REVOKING and PULL_LOST: nothing of the track is lent any more. */
        void (*revoked)(struct source *, uint32_t track);
        int64_t (*lag)(const struct source *); /* records behind; -1: unknown. Optional: never known */
        /* The same of each track: the next one from *at on, which moves behind it; false: there are no more.
         * Optional: not told */
        bool (*track_lag)(const struct source *, uint32_t *at, struct track_lag *);
        /* Records that were given back, and whose position is not kept yet: after a crash they come again,
         * besides those that are lent. Optional: not known */
        int64_t (*unsaved)(const struct source *);
        /* Its engine is gone until it has a record to lend: of the track that is assigned it may lend one,
         * whatever credit it had. Optional: its records come too often for that. */
        void (*asleep)(struct source *);
        /* Optional: it does not go by the clock. */
        void (*runs)(const struct source *, struct pull_runs *);
        /* All there is was lent and released. Optional: there is no such end. */
        bool (*drained)(const struct source *);
        void (*stop)(struct source *);           /* ends in PULL_CLOSED */
        struct source *(*free)(struct source *); /* takes NULL, returns NULL */
};
