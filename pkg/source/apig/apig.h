/* The API gateway source: HTTP requests become FunctionGraph's APIG events, and the function's answer structure becomes the response. Synchronous:
 * nothing is queued or tried again. Errors of the gateway's own have Huawei Cloud's codes and shape. */
#pragma once

#include "source/driver.h"

enum apig_match { APIG_EXACT, APIG_PREFIX };
struct apig_spec {
        char *path;              /* "/orders/{id}", "/files/{proxy+}" */
        struct strings methods;  /* empty: any */
        int match;
        char *stage, *api_id;
        usec timeout;
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

/* ---- shapes ---- */
/* The function's answer as the response. false: it is malformed, and why says how. */
bool apig_answer(struct str answer, struct push_reply *, struct buf *why) MUST_CHECK;
/* An error of the gateway: {"error_code", "error_msg", "request_id"}. */
void apig_error(struct push_reply *, int status, const char *code, const char *message, struct str request_id);
