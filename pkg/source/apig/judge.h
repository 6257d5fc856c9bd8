/* Asks someone else whether a caller may: an authorizer function, or IAM. Answers are remembered for a while,
 * callers of whom the same is known share one request, and a request that nobody waits for any more is given
 * up. What is no answer is a refusal, too, but is never remembered. Loop's thread. */
#pragma once

#include "source/apig/verdicts.h"
#include "source/source.h"

struct judge;
struct judge_question;

struct judge_wait {                      /* a caller that waits; embedded in its request, zeroed */
        struct judge_question *question; /* NULL: none, or it is decided */
        struct list_node node;           /* of those that wait for it, or of those that are decided */
        struct verdict *verdict;         /* decided: held; judge_take hands it over */
};

struct judge_kind {
        const char *name; /* "authorizer", for people */
        const char *code; /* of a refusal because of what the caller sent */
        /* Appends the header lines and the body of a request about a caller. */
        void (*write)(void *cookie, const struct judge_wait *, struct buf *headers, struct buf *body);
        /* What an answer says, held; NULL: nothing to go by, and why; without a why there is no memory. */
        struct verdict *(*read)(void *cookie, const struct http_request *, usec now, struct buf *why);
        /* Appends what the peer said without what the caller showed it. NULL: nothing of it is told. */
        void (*quote)(const struct judge_wait *, struct str words, struct buf *);
};

struct judge_config {
        const struct services *services; /* borrowed, as all here */
        const struct judge_kind *kind;
        void *cookie;
        struct http_peer peer;
        usec remember; /* 0: nothing is remembered or shared */
        usec timeout;
        size_t most, bytes_most; /* what is remembered */
};
struct judge_counts {
        uint64_t asked, failed;
};

int judge_new(struct judge **, const struct judge_config *, struct error *) MUST_CHECK;
struct judge *judge_free(struct judge *); /* NULL is fine; nobody may wait */
/* Held; NULL: it is not known. */
struct verdict *judge_recall(struct judge *, const unsigned char key[VERDICT_KEY]);
/* The caller waits until judge_take or judge_forget. It is asked in the next turn, when the caller still
 * waits. shared: the key says all that matters. false: there is no memory, and it does not wait. */
bool judge_ask(struct judge *, const unsigned char key[VERDICT_KEY], bool shared,
               struct judge_wait *) MUST_CHECK;
/* the caller left; fine for one that does not wait */
void judge_forget(struct judge *, struct judge_wait *);
void judge_turn(struct judge *, usec now);
struct judge_wait *judge_take(struct judge *); /* the next one that is decided; NULL: none */
usec judge_deadline(const struct judge *);
/* What went wrong of late, until answers come again; NULL: nothing. */
const char *judge_trouble(const struct judge *);
void judge_counts(const struct judge *, struct judge_counts *);
