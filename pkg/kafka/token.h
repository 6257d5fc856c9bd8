/* The token that a Kafka cluster is shown by OAUTHBEARER. It is asked for by OAuth 2.0's client credentials
 * at its endpoint, again once four fifths of its life are over, when the client's id or secret change, and
 * when brokers refuse it. librdkafka does none of that. A task of its own; loop's thread. */
#pragma once

#include "api/trigger.h"
#include "port/http.h"
#include "secret/mask.h"
#include "secret/secret.h"

struct kafka_token;
struct kafka_token_config {
        const struct kafka_oauth_spec *spec; /* borrowed */
        struct loop *loop;
        const char *secrets; /* the folder */
        struct http http;
        struct http_peers peers;
        struct task *wake; /* made ready when there is another token, or another reason why there is none */
};
int kafka_token_new(struct kafka_token **, const struct kafka_token_config *, struct error *) MUST_CHECK;
/* Is it the first time that this is so, of what the two below tell? */
bool kafka_token_changed(struct kafka_token *);
/* Why there is none that is valid; NULL: there is one. */
const char *kafka_token_lacks(const struct kafka_token *);
/* What is wrong with the next one, while there is one; NULL: nothing. */
const char *kafka_token_trouble(const struct kafka_token *);
/* It is on its way, and nothing has gone wrong. */
bool kafka_token_awaited(const struct kafka_token *);
/* p NULL: there is none. */
struct str kafka_token_value(const struct kafka_token *);
usec kafka_token_expires(const struct kafka_token *); /* wall */
const char *kafka_token_principal(const struct kafka_token *);
/* A broker did not accept it: another one is asked for, though not at once where this one is new. */
void kafka_token_refused(struct kafka_token *);
/* What peers that were shown it must not be quoted with: KAFKA_TOKEN_HIDDEN values at most. */
enum { KAFKA_TOKEN_HIDDEN = 4 };
void kafka_token_hide(const struct kafka_token *, struct mask *);
struct kafka_token *kafka_token_free(struct kafka_token *); /* NULL is fine; returns NULL */
