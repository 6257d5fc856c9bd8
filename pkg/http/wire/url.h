/* Parses an absolute http or https URL. Views borrow from the text given. Any thread. */
#pragma once

#include "base/error.h"

struct url {
        bool tls;
        struct str host;      /* IPv6 without its brackets */
        uint16_t port;        /* the scheme's default if the URL has none */
        struct str target;    /* path and query, at least "/" */
        struct str authority; /* as in the URL, for Host */
};
/* Is a host an address, not a name? */
bool host_is_address(const char *host);
int url_parse(struct str, struct url *, struct error *) MUST_CHECK;
