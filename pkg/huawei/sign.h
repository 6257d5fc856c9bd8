/* SDK-HMAC-SHA256, Huawei Cloud's signature of requests (the API Explorer's "AK/SK signing guide" and what
 * the official SDKs send): what a client adds, and what a gateway checks. Pure; any thread. */
#pragma once

#include "base/buf.h"
#include "base/error.h"

struct sign_header {
        struct str name, value;
};
struct sign_request {
        /* as on the wire: path and query may be percent-encoded; query without ? */
        struct str method, path, query;
        const struct sign_header *headers; /* those that are signed; names in any case */
        size_t headers_n;
        struct str body;
};

/* The signature of a request: 64 hex digits. date: X-Sdk-Date's value. */
void sign_request(const struct sign_request *, struct str date, struct str secret, char out[65]);

/* What a client adds: the lines of all headers that are signed but Host, which must stand for what will be
 * sent, and Authorization. X-Sdk-Date must be among them. */
void sign_headers(const struct sign_request *, struct str access, struct str secret, struct buf *);
/* X-Sdk-Date's value, "20240102T030405Z". */
void sign_time(usec wall, char out[17]);

/* "SDK-HMAC-SHA256 Access=…, SignedHeaders=a;b, Signature=…" taken apart; views into the value. false: it is
 * something else. */
struct sign_authorization {
        struct str access, signed_headers, signature;
};
bool sign_parse(struct str value, struct sign_authorization *) MUST_CHECK;
/* Does a signature tell the path from all that mean something else? Clients sign a path decoded, in which
 * %2F, data within a segment, reads like the / between two: who treats them differently must not go by the
 * signature of such a path. */
bool sign_tells_path(struct str path) MUST_CHECK;
/* "20240102T030405Z" as wall time. false: it is something else. */
bool sign_date(struct str, usec *) MUST_CHECK;
/* Are they equal? The time it takes does not depend on where they differ. */
bool sign_equal(struct str a, struct str b);
