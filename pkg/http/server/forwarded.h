/* The client behind a proxy: the networks of trusted proxies, and the walk along X-Forwarded-For. Owns its
 * list; any thread. */
#pragma once

#include "base/buf.h"
#include "base/error.h"

struct http_message;

/* IPv4 as ::ffff:a.b.c.d */
struct network {
        uint8_t address[16], bits;
};

/* "10.0.0.0/8", "fd00::/8", or an address alone. */
int network_parse(struct str, struct network *, struct error *) MUST_CHECK;
bool network_has(const struct network *, const uint8_t address[16]);
bool networks_have(const struct network *, size_t n, const uint8_t address[16]);
/* "192.0.2.1", "192.0.2.1:80", "2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:80"; false: no address. */
bool address_parse(struct str, uint8_t address[16]) MUST_CHECK;
void address_format(struct buf *, const uint8_t address[16]);

/* Replaces a trusted peer's address by that of the right-most address of all X-Forwarded-For that is not
 * trusted. */
void forwarded_client(const struct http_message *, const struct network *trusted, size_t n,
                      uint8_t address[16]);
/* Is the last X-Forwarded-Proto https? */
bool forwarded_https(const struct http_message *);
