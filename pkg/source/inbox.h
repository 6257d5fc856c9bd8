/* What push sources whose senders try again have in common: a message is delivered once. One that comes a
 * second time while the first is under way gets the same outcome; one that was delivered is answered at once
 * for a while; messages that share a key take turns in the order they came. Counts what was refused, and says
 * how the source is. Loop's thread. */
#pragma once

#include "source/source.h"

enum refusal {
        REFUSED_MALFORMED,
        REFUSED_TOO_LARGE,
        REFUSED_TOPIC,
        REFUSED_STALE,
        REFUSED_SIGNATURE,
        REFUSED_URL,
        REFUSED_TOKEN,
        REFUSED_BUCKET,
        REFUSAL_MAX,
};

struct inbox;
struct inbox_place;
struct inbox_item { /* embedded in a source's message, zeroed; all is the inbox's */
        struct inbox *inbox;
        uint64_t call;
        enum { INBOX_WAITING, INBOX_READY, INBOX_DELIVERING, INBOX_JOINED } state;
        char *what; /* all its ids */
        char **ids;
        size_t ids_n;
        struct inbox_place *places; /* in the lines of its keys */
        size_t places_n;
        struct list_node node, ready; /* of all; of those whose turn it is */
        struct list joined;           /* those that get this one's outcome */
        struct list_node joins;
        struct inbox_item *leader; /* the one it joined */
        usec deadline;
};

#define INBOX_NO_MEMORY SIZE_MAX
struct inbox_config {
        const struct services *services; /* borrowed */
        usec patience;                   /* how long a message may wait for its turn */
        size_t remember_most;            /* ids of delivered messages */
        /* what is said until inbox_connected; NULL: it is connected from the start */
        const char *waiting_for;
        void *cookie;
        /* Gives the records of a message whose turn it is. 0: there is nothing to do any more;
         * INBOX_NO_MEMORY: it is answered so. */
        size_t (*records)(void *cookie, struct inbox_item *, struct record **, size_t most);
        void (*drop)(void *cookie, struct inbox_item *);
};
int inbox_new(struct inbox **, const struct inbox_config *, struct error *) MUST_CHECK;
struct inbox *inbox_free(struct inbox *); /* NULL is fine */
/* Goes on where its predecessor of the same Trigger was, before it has got anything: what that one delivered
 * is known here, too; a message that is under way there gets the outcome here when it comes again; keys keep
 * their order over both. The predecessor finishes what it has, and may end at any time. */
void inbox_inherit(struct inbox *, struct inbox *before);

/* Before a call is put off: its answer is sure of memory. false: there is none, answer it at once. */
bool inbox_put_off(struct inbox *) MUST_CHECK;
void inbox_put_on(struct inbox *); /* one that was put off needs no answer any more */
/* Takes a message of a call that is put off. Its outcome comes by inbox_poll. ids: n of them, at least one;
 * keys: as many, or NULL where the ids are the keys. */
void inbox_add(struct inbox *, struct inbox_item *, uint64_t call, const struct str *ids,
               const struct str *keys, size_t n);
/* Bytes of memory that the inbox takes for a message of n ids and keys, of so many bytes in all. */
size_t inbox_takes(size_t n, size_t ids, size_t keys);
bool inbox_knows(struct inbox *, struct str id); /* was it delivered lately? */
/* Answers a call that was put off, without a message. retry_after 0: none. text: static. */
void inbox_answer(struct inbox *, uint64_t call, int status, const char *text, usec retry_after);
bool inbox_gone(struct inbox *, uint64_t call); /* false: it is not here */
void inbox_finish(struct inbox *, struct inbox_item *, const struct push_outcome *, struct push_reply *);

/* Counts a refusal, and answers: now, or a call that was put off. */
enum push_verdict inbox_refuse(struct inbox *, enum refusal, struct push_reply *);
void inbox_refuse_later(struct inbox *, enum refusal, uint64_t call);
/* One was taken, whatever came of it: what was refused before is told no longer. inbox_add says so itself. */
void inbox_accepted(struct inbox *);
uint64_t inbox_refused(const struct inbox *, enum refusal);
void inbox_connected(struct inbox *);
void inbox_disconnected(struct inbox *); /* it waits again */
/* How it is while it is not connected, and why, instead of what it waits for ("": that). SOURCE_REMOVED is
 * said whether it is connected or not. */
void inbox_say(struct inbox *, enum source_state, const char *text);
void inbox_trouble(struct inbox *, const char *text); /* said with the state; NULL: it is over */
void inbox_stop(struct inbox *);                      /* ends in CLOSED */

size_t inbox_poll(struct inbox *, struct push_event *, size_t max, usec now);
usec inbox_deadline(const struct inbox *);

/* "text\n" as text/plain. retry_after 0: none. */
void inbox_reply(struct push_reply *, int status, const char *text, usec retry_after);
