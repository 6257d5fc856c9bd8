/* The way of a request: made of records, transformed, sent to the function, or to the dead letter; and what
 * came of it. It also keeps what must be there before the first request: secrets, a token, the function's
 * initialization. One a pipeline, whose task it wakes. Loop's thread. */
#pragma once

#include "delivery/delivery.h"
#include "http/client/client.h"
#include "worker/access.h"
#include "worker/letters.h"

struct sender;

struct sender_config {
        struct loop *loop;
        struct http_client *http;
        const struct trigger *trigger; /* borrowed, as all here */
        const struct log_scope *log;
        const struct shape *shape;
        const struct clock *clock;
        const char *sink; /* the absolute URL */
        /* what the dead letter's ref or uri means; NULL where none is needed */
        const char *dead_letter;
        const char *secrets; /* the folder; NULL: there is none */
        struct task *wake;
        uint32_t most; /* requests at once, at most */
        uint32_t batch_records;
        size_t answer_max; /* bytes of an answer that are kept; 0: enough for words */
        usec timeout;      /* of the function; 0: the delivery's */
        bool shows_made;   /* what a transform made goes only once sender_go_on says so */
        bool tried;        /* it is freed at once: nothing is begun that takes long to end */
};
int sender_new(struct sender **, const struct sender_config *, struct error *) MUST_CHECK;

/* A request: the sender's, known to its user until its outcome was taken, or it was cancelled. */
struct sending;
/* The records stay as they are until then; owner comes back with the outcome. NULL: there is no memory, and
 * nothing is sent. */
struct sending *sender_send(struct sender *, struct record *const *, size_t n, void *owner) MUST_CHECK;
/* The same for a dead letter of a record; what the answer says is borrowed as the record is. */
struct sending *sender_send_letter(struct sender *, struct record *, const struct dead_letter *,
                                   void *owner) MUST_CHECK;
size_t sender_held(const struct sending *); /* bytes of it */
/* With shows_made: whose event a transform has made, of another size than it was; sender_go_on sends it. Each
 * once, after sender_take. NULL: none. */
void *sender_made(struct sender *);
void sender_go_on(struct sender *, struct sending *);
void sender_cancel(struct sender *, struct sending *);
/* Moves what does not depend on requests: secrets, tokens, the initialization. */
void sender_turn(struct sender *, usec now);
usec sender_deadline(const struct sender *);
/* What came of a request; the answer borrows until the next call. */
bool sender_take(struct sender *, void **owner, struct answer *);
/* was the body of the answer that was taken last longer than what is kept of it? */
bool sender_cut(const struct sender *);
/* did it fail since there is no memory here? */
bool sender_starved(const struct sender *);
/* NULL: requests may go. Otherwise they would be in vain; *why: the reason for people, NULL while nothing
 * went wrong yet. */
bool sender_ready(const struct sender *, const char **why);
/* what people should know though it is ready; NULL: nothing */
const char *sender_notes(const struct sender *);
/* what keeps dead letters from their receiver while they are under way; NULL: nothing that is known */
const char *sender_trouble(const struct sender *);
struct sender *sender_free(struct sender *); /* NULL is fine; returns NULL */
