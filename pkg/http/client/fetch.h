/* Whole calls by libcurl on the loop, for URLs that come from outside: port/fetch.h. Redirects are not
 * followed, no proxy is used, the name is resolved by us and the address that was looked at is the one that
 * is called. One per process. Loop's thread. */
#pragma once

#include "base/loop.h"
#include "port/fetch.h"

struct fetch_client;
int fetch_client_new(struct fetch_client **, struct loop *, struct error *) MUST_CHECK;
/* after its requests; NULL is fine */
struct fetch_client *fetch_client_free(struct fetch_client *);
struct fetch fetch_client_port(struct fetch_client *);
/* Asks these name servers ("ADDRESS[:PORT],…") instead of the system's. */
int fetch_client_use_servers(struct fetch_client *, const char *servers, struct error *) MUST_CHECK;

/* May a call go there? Exposed for tests. inside: the address may be any. */
bool fetch_host_allowed(struct str authority, bool tls, const char *const *hosts);
bool fetch_address_public(const char *address);
