/* Whole calls by libcurl on the loop, for URLs that come from outside: port/fetch.h. Redirects are not
 * followed, no proxy is used, the name is resolved by us and the address that was looked at is the one that
 * is called. One end a user; it may share the client's resolver. Loop's thread. */
#pragma once

#include "base/loop.h"
#include "port/fetch.h"

struct fetch_end;
int fetch_end_new(struct fetch_end **, struct loop *, struct task *wake, struct error *) MUST_CHECK;
struct fetch_end *fetch_end_free(struct fetch_end *); /* cancels what is under way; NULL is fine */
struct fetch fetch_end_port(struct fetch_end *);
/* Asks these name servers ("ADDRESS[:PORT],…") instead of the system's. */
int fetch_end_use_servers(struct fetch_end *, const char *servers, struct error *) MUST_CHECK;

/* May a call go there? Exposed for tests. inside: the address may be any. */
bool fetch_host_allowed(struct str authority, bool tls, const char *const *hosts);
bool fetch_address_public(const char *address);
