/* The object storage source: what happens to a bucket's objects, as OBS publishes it to a topic of SMN, or as
 * an S3-compatible store posts it to a webhook. Events of one object keep their order. */
#pragma once

#include "source/smn/topic.h"

enum obs_from { OBS_FROM_SMN, OBS_FROM_WEBHOOK };
struct obs_spec {
        struct smn_spec smn; /* stands first */
        char *bucket;
        struct strings events;
        char *prefix, *suffix;
        int from;
        struct secret_ref *token;
};
extern const struct type obs_type;
extern const struct source_kind obs_source;

/* The token that a webhook's sender shows; read again when it changes. */
struct obs_token;
int obs_token_new(struct obs_token **, const struct secret_ref *, const struct services *,
                  struct error *) MUST_CHECK;
struct obs_token *obs_token_free(struct obs_token *); /* NULL is fine */
bool obs_token_changed(struct obs_token *);           /* since it was last asked */
/* there is none: why is appended */
bool obs_token_lacks(const struct obs_token *, struct buf *why);
bool obs_token_shown(const struct obs_token *, struct str authorization);
