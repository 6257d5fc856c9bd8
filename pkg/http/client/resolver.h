/* Names to addresses without blocking: one c-ares channel per loop. Loop's thread. The answers' time to live
 * is honoured by the asker. */
#pragma once

#include "base/loop.h"

struct resolver;
/* numeric text, sorted, each once; owned by the callee's caller until it returns; ttl 0: none was told */
struct resolved {
        char **addresses;
        size_t n;
        usec ttl;
};

int resolver_new(struct resolver **, struct loop *, struct error *) MUST_CHECK;
/* Asks these servers, "ADDRESS[:PORT],…", instead of the system's. */
int resolver_use_servers(struct resolver *, const char *servers, struct error *) MUST_CHECK;
/* questions under way are dropped without an answer; NULL is fine */
struct resolver *resolver_free(struct resolver *);
/* done is called once, later or at once, with err NULL or the reason. */
void resolver_ask(struct resolver *, const char *host,
                  void (*done)(void *cookie, const struct resolved *, const struct error *), void *cookie);
/* done is not called any more for that cookie */
void resolver_forget(struct resolver *, const void *cookie);
