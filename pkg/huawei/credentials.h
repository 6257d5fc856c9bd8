/* The keys that sign calls to the cloud: fixed ones, or temporary ones that are requested and renewed before
 * they expire. Sans-I/O: it says which request to make and is given the answer and the time. No log and no
 * error contains the keys. Owned by the caller; one thread. */
#pragma once

#include "base/error.h"
#include "base/random.h"
#include "huawei/refusal.h"

/* token: the security token of temporary keys; n 0: none */
struct cloud_keys {
        struct str access, secret, token;
        uint64_t version; /* grows with each other set of keys; from 1 on */
};

enum credentials_kind {
        CREDENTIALS_FIXED,    /* permanent keys, from a Secret or the environment */
        CREDENTIALS_AGENCY,   /* permanent keys, which get an agency's temporary keys from IAM */
        CREDENTIALS_METADATA, /* temporary keys of the machine, from the metadata service */
        CREDENTIALS_OIDC, /* temporary keys for a ServiceAccount's token, from STS (AssumeAgencyWithOIDC) */
        CREDENTIALS_POD,  /* temporary keys of the pod, from CCE's pod identity agent */
};

struct credentials_config {
        enum credentials_kind kind;
        /* FIXED, AGENCY: appends the current keys. OIDC, POD: appends the token to access. Called for each
         * use of fixed keys and for each renewal, since a file may have changed. */
        int (*read)(void *cookie, struct buf *access, struct buf *secret, struct buf *token, struct error *);
        void *cookie;
        const char *endpoint; /* URL of IAM, STS or the metadata service; POD: the whole URI. Borrowed, as is
                                 the rest */
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
        const char *service; /* decides endpoint and rate limit: "iam", "sts", "metadata", "pod" */
        bool is_signed;      /* with these keys */
        struct cloud_keys keys;
        struct str shown; /* the token that headers or body hold: nobody may be told it; n 0: none */
        usec timeout;
};

struct credentials;
int credentials_new(struct credentials **, const struct credentials_config *, struct error *) MUST_CHECK;
struct credentials *credentials_free(struct credentials *); /* NULL is fine */

/* Is there a request to make? Its views are valid until one of the next two functions is called, which ends
 * it; until then no other request is due. now: monotonic; wall: the cloud's time. */
bool credentials_next(struct credentials *, usec now, usec wall, struct credentials_request *);
void credentials_answered(struct credentials *, int status, struct str body, usec retry_after, usec now,
                          usec wall);
void credentials_failed(struct credentials *, const struct error *, usec now);
/* When credentials_next will have a request, or is to be called so that those who wait for keys may ask for
 * them again; monotonic. USEC_NEVER: while a request is in flight, or never. */
usec credentials_deadline(const struct credentials *, usec now, usec wall);

/* 0: the keys to sign with; views, valid until the next call of any function here. -1: there are none; the
 * error's retry says whether there may be some later. ERROR_CANCELLED: they are being requested, or replaced:
 * ask again after credentials_deadline. */
int credentials_keys(struct credentials *, usec now, usec wall, struct cloud_keys *,
                     struct error *) MUST_CHECK;
/* A service refused the keys of this version. true: there are others, or there may be in a moment, since they
 * are being requested, or the files that hold them have just begun to change. */
bool credentials_refused(struct credentials *, uint64_t version, usec now);
