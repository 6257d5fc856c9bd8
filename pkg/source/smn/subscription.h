/* A topic's subscription: whether it was confirmed is kept with the positions, so that a worker that starts
 * anew knows it. Where the Trigger says manage, it is made by SMN's API (API reference, "Subscription
 * Operations"), looked at now and then, and cancelled when the Trigger ends; an edit that leads elsewhere
 * cancels the one before, once the new one is confirmed. What is made outside is written down first. Owned by
 * its topic; loop's thread. */
#pragma once

#include "source/smn/topic.h"

struct subscription;
struct subscription_config {
        const struct smn_spec *spec; /* all borrowed */
        const struct services *services;
        struct inbox *inbox; /* hears how it is */
        const char *ca_file; /* the authorities of trusted hosts; NULL: the system's */
};
/* Under this key of the store, {"topic", "endpoint", "confirmed", "former": [{"topic", "endpoint"}]}: with an
 * endpoint there may be something outside. */

/* Where SMN reaches the Trigger whose subscription is managed. Appends. */
void subscription_endpoint(const struct trigger *, const struct smn_spec *, struct buf *);

int subscription_new(struct subscription **, const struct subscription_config *, struct error *) MUST_CHECK;
struct subscription *subscription_free(struct subscription *); /* NULL is fine */
void subscription_connected(struct subscription *);            /* a message or a confirmation came */
/* The Trigger was edited, and the one that takes its place has started: this one begins nothing more, and
 * that one reads the record once nothing of this is under way. NULL: none takes its place. */
void subscription_pass_on(struct subscription *, struct subscription *successor);
void subscription_turn(struct subscription *, usec now);
usec subscription_deadline(const struct subscription *);
