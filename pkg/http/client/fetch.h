/* Calls to URLs that come from outside, made by libcurl on the loop: implements port/fetch.h. It follows no
 * redirects and uses no proxy. It resolves the name itself, checks the address, and connects to the address
 * that was checked. One per process. Loop's thread. */
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

/* May this address be called? Exposed for tests. inside: private addresses are allowed, too. */
bool fetch_host_allowed(struct str authority, bool tls, const char *const *hosts);
bool fetch_address_public(const char *address);
