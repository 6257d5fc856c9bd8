/* Makes requests of records, transforms them, sends them to the function or to the dead letter, and reports
 * the outcome. It also provides what must be ready before the first request: secrets, a token, the function's
 * initialization. One per pipeline, whose task it wakes. Loop's thread. */
#pragma once

#include "delivery/delivery.h"
#include "http/client/client.h"
#include "worker/access.h"
#include "worker/letters.h"

struct sender;

struct sender_config {
        struct loop *loop;
        struct http_client *http;
        struct http_peers peers;       /* who is called beside the sink */
        const struct trigger *trigger; /* borrowed, as all here */
        const struct log_scope *log;
        const struct shape *shape;
        const struct clock *clock;
        const char *sink; /* the absolute URL */
        /* the absolute URL of dead letters; NULL: none is needed */
        const char *dead_letter;
        const char *secrets; /* the folder; NULL: there is none */
        struct task *wake;
        uint32_t most; /* requests at once, at most */
        uint32_t batch_records;
        size_t answer_max; /* bytes of an answer that are kept; 0: enough to quote it */
        bool shows_made;   /* a transformed event waits for sender_go_on */
        bool tried; /* only a trial that is freed at once: nothing is started that takes long to stop */
};
int sender_new(struct sender **, const struct sender_config *, struct error *) MUST_CHECK;

/* A request. Owned by the sender; valid until its outcome was taken or it was cancelled. */
struct sending;
/* The records must stay until then; owner is returned with the outcome. NULL: out of memory, and nothing is
 * sent. */
struct sending *sender_send(struct sender *, struct record *const *, size_t n, void *owner) MUST_CHECK;
/* The same for the dead letter of a record. The record and what the dead_letter refers to are borrowed. */
struct sending *sender_send_letter(struct sender *, struct record *, const struct dead_letter *,
                                   void *owner) MUST_CHECK;
/* So long their caller waits for an answer, rather than the delivery's time-out. */
void sender_within(struct sender *, usec attempt);
size_t sender_held(const struct sending *); /* bytes of it */
/* With shows_made: the owner of a request whose event was transformed, so that its size has changed;
 * sender_go_on sends it. Returns each once, after sender_take. NULL: none. */
void *sender_made(struct sender *);
void sender_go_on(struct sender *, struct sending *);
void sender_cancel(struct sender *, struct sending *);
/* Continues what does not depend on requests: secrets, tokens, the initialization. */
void sender_turn(struct sender *, usec now);
usec sender_deadline(const struct sender *);
/* Takes the outcome of a request; the answer is valid until the next call. */
bool sender_take(struct sender *, void **owner, struct answer *);
/* The body of the last answer taken was longer than what is kept of it. */
bool sender_cut(const struct sender *);
/* It failed because this process has no memory. */
bool sender_starved(const struct sender *);
/* Requests can be sent. false: they would fail; *why is the reason for the status, NULL while nothing has
 * gone wrong. */
bool sender_ready(const struct sender *, const char **why);
/* A note for the status although it is ready; NULL: none. */
const char *sender_notes(const struct sender *);
/* Why dead letters in flight do not reach their receiver; NULL: no trouble is known. */
const char *sender_trouble(const struct sender *);
struct sender *sender_free(struct sender *); /* NULL is fine; returns NULL */
