/* The API gateway source: HTTP requests become FunctionGraph's APIG events, and the function's answer structure becomes the response. Synchronous:
 * nothing is queued or tried again. Errors of the gateway's own have Huawei Cloud's codes and shape. */
#pragma once

#include "source/driver.h"

enum apig_match { APIG_EXACT, APIG_PREFIX };
enum apig_auth { APIG_NONE, APIG_APP, APIG_IAM };
struct apig_key { struct secret_ref *access, *secret; };
struct apig_secret { struct secret_ref *value; };
struct apig_authentication {
        int type;
        struct objects keys;     /* struct apig_key: who may sign */
        struct objects codes;    /* struct apig_secret: AppCodes (App) */
        struct objects tokens;   /* struct apig_secret: X-Auth-Token (IAM) */
        usec window;             /* how far X-Sdk-Date may be off */
};
struct apig_spec {
        char *path;              /* "/orders/{id}", "/files/{proxy+}" */
        struct strings methods;  /* empty: any */
        int match;
        char *stage, *api_id;
        usec timeout;
        struct apig_authentication *authentication;      /* NULL: none */
        struct expose_spec *expose;
        struct listener_spec *listener;
};

extern const struct type apig_type;
extern const struct driver apig_driver;

/* ---- paths: "/a/{b}/{rest+}" ---- */
struct apig_path;
int apig_path_new(struct apig_path **, const char *text, bool prefix, struct buf *why) MUST_CHECK;
struct apig_path *apig_path_free(struct apig_path *);
/* 0: no match. The higher, the more is literal. values: n of them, by the order of the names; views into path; may be NULL. */
unsigned apig_path_match(const struct apig_path *, struct str path, struct str *values);
size_t apig_path_names(const struct apig_path *);
struct str apig_path_name(const struct apig_path *, size_t);

/* ---- callers ---- */
/* Who may call. Keys are read from Secrets, and again when they change. */
struct apig_gate_keeper;
int apig_keeper_new(struct apig_gate_keeper **, const struct apig_authentication *, const struct services *, struct error *) MUST_CHECK;
struct apig_gate_keeper *apig_keeper_free(struct apig_gate_keeper *);
/* NULL: the caller may. Otherwise the error's message, with its code; the status is 401. */
const char *apig_keeper_refuses(struct apig_gate_keeper *, const struct push_request *, const char **code);
extern const struct type apig_authentication_type;

/* ---- shapes ---- */
/* The function's answer as the response. false: it is malformed, and why says how. */
bool apig_answer(struct str answer, struct push_reply *, struct buf *why) MUST_CHECK;
/* An error of the gateway: {"error_code", "error_msg", "request_id"}. */
void apig_error(struct push_reply *, int status, const char *code, const char *message, struct str request_id);
