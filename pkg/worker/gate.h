/* The way in of push sources: one listener, the host, for all of a process, and a gate for each Trigger
 * behind it. A request goes to the Trigger that claims it, its records through filter and transform to the
 * function, and the outcome is the answer to the caller. Nothing is queued and nothing is tried again: a full
 * window answers at once. Loop's thread. */
#pragma once

#include "http/server/server.h"
#include "worker/feed.h"

struct gate_host;

struct gate_host_config {
        /* its large answers count towards the same memory; borrowed during gate_host_new */
        struct http_client *http;
        const char *address;    /* "ADDRESS:PORT" */
        const char *cert, *key; /* TLS: files in PEM, read again when they change; NULL: plain */
        /* authorities, one of which must have signed the client's certificate; NULL: clients need none */
        const char *client_ca;
        const char *const *trusted; /* proxies whose X-Forwarded-* are believed: addresses and CIDRs */
        size_t trusted_n;
        /* limit for the bytes of requests, their events and answers; 0: half of the process's memory limit */
        size_t memory_most;
        /* bytes that other processes under the same limit may take: a transform's */
        size_t memory_beside;
        struct task *rested; /* made ready when gate_host_busy has become false after the drain; NULL: none */
};
int gate_host_new(struct gate_host **, struct loop *, const struct gate_host_config *,
                  struct error *) MUST_CHECK;
uint16_t gate_host_port(const struct gate_host *);
/* Serves for linger longer with Connection: close, then accepts no more connections; requests in progress are
 * answered. So a rollout loses no request. Linger 0, also in a later call: accepts no more from now on. */
void gate_host_drain(struct gate_host *, usec linger);
size_t gate_host_held(const struct gate_host *); /* bytes in use now */
bool gate_host_busy(const struct gate_host *);   /* a request is arriving, or an answer is not sent yet */
usec gate_host_last_accepted(
        const struct gate_host *);                    /* when the last connection was accepted; 0: none was */
struct gate_host *gate_host_free(struct gate_host *); /* after its gates; NULL is fine */
