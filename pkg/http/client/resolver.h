/* Resolves names without blocking: one c-ares channel per loop, another one once /etc/resolv.conf is another.
 * Loop's thread. The caller takes care of the TTL. */
#pragma once

#include "base/loop.h"

struct resolver;
/* numeric, sorted, without duplicates; valid until the callback returns; ttl 0: unknown */
struct resolved {
        char **addresses;
        size_t n;
        usec ttl;
};

int resolver_new(struct resolver **, struct loop *, struct error *) MUST_CHECK;
/* Asks these servers, "ADDRESS[:PORT],…", instead of the system's. */
int resolver_use_servers(struct resolver *, const char *servers, struct error *) MUST_CHECK;
/* Asks the servers that this file names instead of /etc/resolv.conf, on this port. */
int resolver_use_file(struct resolver *, const char *path, uint16_t port, struct error *) MUST_CHECK;
/* open queries are dropped without an answer; NULL is fine */
struct resolver *resolver_free(struct resolver *);
/* done is called once, perhaps before this returns, with err NULL or the reason. */
void resolver_ask(struct resolver *, const char *host,
                  void (*done)(void *cookie, const struct resolved *, const struct error *), void *cookie);
/* cancels the queries of that cookie: done is not called for them */
void resolver_forget(struct resolver *, const void *cookie);
