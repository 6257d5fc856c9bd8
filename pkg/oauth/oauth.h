/* What is asked of a token endpoint by OAuth 2.0's client credentials (RFC 6749, 4.4), and how its answers
 * are read. Who asks, when and how often is the caller's matter. Any thread. */
#pragma once

#include <jansson.h>

#include "api/trigger.h"
#include "base/buf.h"

/* Of each request, beside oauth_basic. */
#define OAUTH_HEADERS "Content-Type: application/x-www-form-urlencoded\r\nAccept: application/json\r\n"
void oauth_body(const struct oauth2_spec *, struct buf *); /* appends */
/* Appends "Authorization: Basic …\r\n"; coded gets the secret as it stands there: the endpoint knows it in
 * both spellings, and may quote either. */
void oauth_basic(struct str id, struct str secret, struct buf *out, struct buf *coded);

/* How long the token lives, in seconds, a day at most; 0 or less: it is not said. */
int64_t oauth_lifetime(const json_t *answer);
/* Printable ASCII without spaces: what a header, and Kafka, can hold. */
bool oauth_token_fits(const char *token);
/* What an endpoint says of a refusal that may be quoted, for i from 0 on: other members may hold secrets.
 * NULL behind the last; "": it is not said. */
const char *oauth_words(const json_t *answer, size_t i);
