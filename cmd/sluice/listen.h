/* How a listener of push sources is told on the command line: the same for run and worker. */
#pragma once

#include "options.h"
#include "worker/gate.h"

struct listen_options { const char *address, *cert, *key, *client_ca; struct strings trusted; };

#define LISTEN_OPTIONS(into_)                                                                                                                                              \
        { .name = "tls-cert", .value = "FILE", .help = "Serve --listen with TLS: the certificate with its chain, PEM. Read again when it changes.", .kind = OPTION_TEXT, .into = &(into_).cert },    \
        { .name = "tls-key", .value = "FILE", .help = "The certificate's key, PEM.", .kind = OPTION_TEXT, .into = &(into_).key },                                          \
        { .name = "tls-client-ca", .value = "FILE", .help = "Clients of --listen must show a certificate of one of these authorities, PEM.", .kind = OPTION_TEXT, .into = &(into_).client_ca }, \
        { .name = "trusted-proxy", .value = "CIDR", .help = "Believe X-Forwarded-For and -Proto of these peers of --listen. May be given more than once.", .kind = OPTION_LIST, .into = &(into_).trusted }

static inline struct gate_host_config listen_config(const struct listen_options *o)
{
        return (struct gate_host_config){ .address = o->address, .cert = o->cert, .key = o->key ? o->key : o->cert, .client_ca = o->client_ca, .trusted = (const char *const *)o->trusted.list,
                                          .trusted_n = o->trusted.n };
}

static inline void listen_done(struct listen_options *o)
{
        for (size_t i = 0; i < o->trusted.n; i++)
                free(o->trusted.list[i]);
        free(o->trusted.list);
}
