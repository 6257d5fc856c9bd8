/* The API gateway source: HTTP requests become FunctionGraph's APIG events, and the function's answer
 * structure becomes the response. Synchronous: nothing is queued or tried again. Errors of the gateway's own
 * have Huawei Cloud's codes and shape. */
#pragma once

#include "source/apig/judge.h"
#include "source/source.h"

enum apig_match { APIG_EXACT, APIG_PREFIX };
enum apig_auth { APIG_NONE, APIG_APP, APIG_IAM, APIG_CUSTOM };
enum apig_location { APIG_HEADER, APIG_QUERY };
enum apig_limit_by { APIG_BY_IDENTITY, APIG_BY_ADDRESS };
struct apig_key {
        struct secret_ref *access, *secret;
};
struct apig_secret {
        struct secret_ref *value;
};
struct apig_identity {
        char *name;
        int location;
};
struct apig_authorizer { /* a function that says who may call */
        char *uri;
        struct objects identity; /* struct apig_identity: what says who the caller is */
        char *user_data;
        char *principal; /* the member of its context that names the caller */
        usec cache_ttl, timeout;
        struct secret_ref *ca;
};
struct apig_iam_credentials {
        struct secret_ref *access, *secret;
        char *domain_id;
};
struct apig_iam { /* IAM says whose a token is */
        char *endpoint;
        struct apig_iam_credentials *credentials; /* NULL: each token asks about itself */
        struct strings projects, domains;
        usec cache_ttl, timeout;
        struct secret_ref *ca;
};
struct apig_authentication {
        int type;
        struct objects keys;   /* struct apig_key: who may sign */
        struct objects codes;  /* struct apig_secret: AppCodes (App) */
        struct objects tokens; /* struct apig_secret: X-Auth-Token (IAM) */
        struct apig_iam *iam;
        struct apig_authorizer *authorizer;
        usec window; /* how far X-Sdk-Date may be off */
};
/* burst 0: requests */
struct apig_caller_limit {
        int64_t requests, burst;
        usec period;
        int by;
};
struct apig_spec {
        char *path;             /* "/orders/{id}", "/files/{proxy+}" */
        struct strings methods; /* empty: any */
        int match;
        char *stage, *api_id;
        usec timeout;
        struct apig_authentication *authentication; /* NULL: none */
        struct expose_spec *expose;
        struct listener_spec *listener;
        struct apig_caller_limit *caller_limit; /* NULL: none */
};

extern const struct type apig_type;
extern const struct source_kind apig_source;

enum { APIG_ID = 37 };
/* What events name the API by: what the Trigger says, its uid in a cluster, else a UUID made of its name, for
 * which there is space. */
const char *apig_id(const struct trigger *, char space[APIG_ID]);

struct apig_request { /* a record of ours */
        struct record record;
        const struct apig_spec *spec;
        struct apig_path *path;      /* borrowed */
        struct push_request request; /* its views live as long as the call */
        const char *api_id;          /* borrowed; NULL: what apig_id says */
        char id[40], client[64];
        uint64_t call;
        struct judge_wait wait;      /* while someone else is asked about the caller */
        struct verdict *verdict;     /* what was said; NULL: nobody was asked */
        struct apig_refusal refusal; /* status 0: none */
        uint64_t who;                /* a hash of what tells who calls */
};

/* ---- paths: "/a/{b}/{rest+}" -------------------------------------------- */
struct apig_path;
int apig_path_new(struct apig_path **, const char *text, bool prefix, struct buf *why) MUST_CHECK;
struct apig_path *apig_path_free(struct apig_path *);
/* 0: no match. path: in the normal form (base/uri.h). The higher, the more is literal. values: n of them, by
 * the order of the names; views into path; may be NULL. */
unsigned apig_path_match(const struct apig_path *, struct str path, struct str *values);
void apig_path_write(const struct apig_path *, struct buf *); /* the same for all that match the same */
size_t apig_path_names(const struct apig_path *);
struct str apig_path_name(const struct apig_path *, size_t);

/* ---- callers ------------------------------------------------------------ */
/* Who may call. Keys are read from Secrets, and again when they change. */
struct apig_gate_keeper;
int apig_keeper_new(struct apig_gate_keeper **, const struct apig_authentication *, const struct services *,
                    struct error *) MUST_CHECK;
struct apig_gate_keeper *apig_keeper_free(struct apig_gate_keeper *);
enum apig_admission { APIG_ADMITTED, APIG_REFUSED, APIG_ASK };
struct apig_caller {
        uint64_t who;                   /* not 0: a hash of what tells who it is */
        struct apig_refusal refusal;    /* APIG_REFUSED */
        unsigned char key[VERDICT_KEY]; /* APIG_ASK: what the judge is asked about */
        bool shared;                    /* and whether it says all that matters */
};
enum apig_admission apig_keeper_check(struct apig_gate_keeper *, const struct push_request *,
                                      struct apig_caller *);
/* Looks whether its Secrets changed, when it is time to. */
void apig_keeper_look(struct apig_gate_keeper *);
/* which values of Secrets are missing; NULL: none */
const char *apig_keeper_lacks(const struct apig_gate_keeper *);
struct judge *apig_keeper_judge(const struct apig_gate_keeper *); /* who is asked; NULL: nobody */
extern const struct type apig_authentication_type;

/* The ways to ask. */
struct apig_asker {
        const struct services *services;
        const struct apig_authorizer *authorizer;
        const struct apig_iam *iam;
        struct str access, secret; /* the values of iam's credentials, as they are now */
        uint64_t seed;
};
#define APIG_IAM_PATH "/v3/auth/tokens"
#define APIG_IAM_QUERY "nocatalog=true"
extern const struct type apig_authorizer_type, apig_iam_type;
/* the cookie is a struct apig_asker */
extern const struct judge_kind apig_authorizer_kind, apig_iam_kind;
/* The key of what the authorizer's identity members say. Both with a salt before what is hashed. */
enum apig_keyed { APIG_KEYED, APIG_MISSING /* one of the members */, APIG_NO_MEMORY };
enum apig_keyed apig_authorizer_key(const struct apig_authorizer *, struct str salt,
                                    const struct push_request *, unsigned char key[VERDICT_KEY]);
enum apig_keyed apig_secret_key(struct str salt, struct str secret, unsigned char key[VERDICT_KEY]);

void apig_quote(const struct judge_wait *, struct str words, struct buf *);

/* ---- shapes ------------------------------------------------------------- */
void apig_write_event(const struct trigger *, const struct apig_request *, struct writer *);
/* The same for an authorizer: without the body, with its user_data. */
void apig_write_authorizer_event(const struct trigger *, const struct apig_request *, const char *user_data,
                                 struct writer *);
void apig_describe(const struct record *, struct writer *);
/* The function's answer as the response. false: it is malformed, and why says how. */
bool apig_answer(struct str answer, struct push_reply *, struct buf *why) MUST_CHECK;
/* An error of the gateway: {"error_code", "error_msg", "request_id"}. */
void apig_error(struct push_reply *, int status, const char *code, const char *message,
                struct str request_id);
