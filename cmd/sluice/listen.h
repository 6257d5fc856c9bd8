/* Command-line options of the listener of push sources, shared by run and worker. */
#pragma once

#include "api/worker.h"
#include "options.h"
#include "worker/gate.h"

struct listen_options {
        const char *address, *cert, *key, *client_ca;
        struct strings trusted;
};

#define LISTEN_OPTIONS(object_, member)                                                                      \
        OPTION(TEXT, WORKER_OPTION_TLS_CERT, object_, member.cert, .value = "FILE",                          \
               .help = "Serve --listen with TLS: the certificate with its chain, PEM. Read again when it "   \
                       "changes."),                                                                          \
                OPTION(TEXT, WORKER_OPTION_TLS_KEY, object_, member.key, .value = "FILE",                    \
                       .help = "The certificate's key, PEM."),                                               \
                OPTION(TEXT, WORKER_OPTION_TLS_CLIENT_CA, object_, member.client_ca, .value = "FILE",        \
                       .help = "Clients of --listen must show a certificate of one of these authorities, "   \
                               "PEM."),                                                                      \
                OPTION(LIST, WORKER_OPTION_TRUSTED_PROXY, object_, member.trusted, .value = "CIDR",          \
                       .help = "Believe X-Forwarded-For and -Proto of these peers of --listen. May be "      \
                               "given more than once.")

static inline struct gate_host_config listen_config(const struct listen_options *o)
{
        return (struct gate_host_config){ .address = o->address,
                                          .cert = o->cert,
                                          .key = o->key ? o->key : o->cert,
                                          .client_ca = o->client_ca,
                                          .trusted = (const char *const *)o->trusted.list,
                                          .trusted_n = o->trusted.n };
}

static inline void listen_done(struct listen_options *o)
{
        for (size_t i = 0; i < o->trusted.n; i++)
                free(o->trusted.list[i]);
        free(o->trusted.list);
}
