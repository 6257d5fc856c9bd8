/* As whom the cloud is called: fixed keys, or temporary ones that are asked for and renewed before they
 * expire. Sans-I/O: it says which request is to be made and is told what came of it; time is given. What it
 * holds reaches no log and no error. Owned by the caller; one thread. */
#pragma once

#include "base/error.h"
#include "base/random.h"
#include "huawei/refusal.h"

/* token: of temporary keys; n 0: none */
struct cloud_keys {
        struct str access, secret, token;
};

enum credentials_kind {
        CREDENTIALS_FIXED,    /* keys that somebody keeps: in a Secret, in the environment */
        CREDENTIALS_AGENCY,   /* such keys, with which IAM gives temporary ones of an agency */
        CREDENTIALS_METADATA, /* of the machine: the metadata service */
        CREDENTIALS_OIDC,     /* of a ServiceAccount's token: STS, assume-with-oidc */
        CREDENTIALS_POD,      /* of a pod: CCE's pod identity */
};

struct credentials_config {
        enum credentials_kind kind;
        /* FIXED, AGENCY: appends the keys as they are now. OIDC, POD: appends the token to access. Called for
         * each use of fixed keys and for each renewal, since what it reads may have changed. */
        int (*read)(void *cookie, struct buf *access, struct buf *secret, struct buf *token, struct error *);
        void *cookie;
        const char
                *endpoint; /* of IAM, STS, the metadata service; POD: the whole URI. Borrowed, as the rest */
        const char *agency, *domain;               /* AGENCY: their names */
        const char *provider_urn, *agency_urn;     /* OIDC */
        const char *session, *policy, *policy_ids; /* OIDC; NULL: "sluice", none, none (comma separated) */
        int64_t duration_seconds;                  /* AGENCY, OIDC; 0: 3600 */
        uint64_t seed;
};

struct credentials_request {
        const char *method;
        struct str url;     /* "https://HOST[:PORT]" */
        struct str path;    /* percent-encoded, with its query */
        struct str headers; /* "Name: value\r\n" lines */
        struct str body;
        const char *service; /* of its endpoint and limit: "iam", "sts", "metadata", "pod" */
        bool is_signed;      /* by these */
        struct cloud_keys keys;
        usec timeout;
};

struct credentials;
int credentials_new(struct credentials **, const struct credentials_config *, struct error *) MUST_CHECK;
struct credentials *credentials_free(struct credentials *); /* NULL is fine */

/* Is a request to be made? Its views stand until one of the next two is called, which ends it; until then no
 * other is to be made. now: monotonic; wall: as the cloud sees it. */
bool credentials_next(struct credentials *, usec now, usec wall, struct credentials_request *);
void credentials_answered(struct credentials *, int status, struct str body, usec retry_after, usec now,
                          usec wall);
void credentials_failed(struct credentials *, const struct error *, usec now);
/* When next has something to say, monotonic; USEC_NEVER: while a request is under way, or at all. */
usec credentials_deadline(const struct credentials *, usec now, usec wall);

/* 0: the keys to sign with, views until the next call of anything here. -1: there are none: the reason; its
 * retry says whether there may be some later. While the first are being asked for: ERROR_CANCELLED. */
int credentials_keys(struct credentials *, usec now, usec wall, struct cloud_keys *,
                     struct error *) MUST_CHECK;
/* A service did not take these keys. true: others are there, or are being asked for. */
bool credentials_refused(struct credentials *, struct str access, usec now);
