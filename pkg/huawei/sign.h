/* SDK-HMAC-SHA256, Huawei Cloud's request signatures (the API Explorer's "AK/SK signing guide", and what the
 * official SDKs send), for clients that sign and gateways that verify. Pure; any thread. */
#pragma once

#include "base/buf.h"
#include "base/error.h"

struct sign_header {
        struct str name, value;
};
struct sign_request {
        /* as sent: path and query may be percent-encoded; query without ? */
        struct str method, path, query;
        const struct sign_header *headers; /* the headers to sign; names in any case */
        size_t headers_n;
        struct str body;
};

/* The signature of a request: 64 hex digits. date: the value of X-Sdk-Date. */
void sign_request(const struct sign_request *, struct str date, struct str secret, char out[65]);

/* Appends what a client adds: Authorization and the lines of all signed headers except Host, which must have
 * the value that will be sent. X-Sdk-Date must be one of them. */
void sign_headers(const struct sign_request *, struct str access, struct str secret, struct buf *);
/* The value of X-Sdk-Date, "20240102T030405Z". */
void sign_time(usec wall, char out[17]);

/* Parses "SDK-HMAC-SHA256 Access=…, SignedHeaders=a;b, Signature=…" into views of the value. false: it is
 * something else. */
struct sign_authorization {
        struct str access, signed_headers, signature;
};
bool sign_parse(struct str value, struct sign_authorization *) MUST_CHECK;
/* Does a signature identify the path? Clients sign the decoded path, in which a %2F within a segment looks
 * like the / between two. If routing tells them apart it must not trust a signature of such a path. */
bool sign_tells_path(struct str path) MUST_CHECK;
/* Parses "20240102T030405Z" as wall time. false: it is something else. */
bool sign_date(struct str, usec *) MUST_CHECK;
/* Are they equal? Constant time, wherever they differ. */
bool sign_equal(struct str a, struct str b);
