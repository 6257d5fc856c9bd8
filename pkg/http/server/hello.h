/* Follows the first bytes of a TLS client, before anything of them is encrypted: OpenSSL takes memory for as
 * much as a ClientHello says that it has, up to 128 KiB, before it comes. No I/O. */
#pragma once

#include "base/base.h"

/* Several times what clients send, with tickets and keys of every kind. */
enum { HELLO_MOST = 16 * 1024 };

struct hello {
        uint8_t head[5], message[4]; /* of the record, of the message: type and length */
        uint8_t head_n, message_n;
        uint16_t record; /* bytes that are left of it */
        uint32_t rest;   /* of the message */
        bool over;       /* no further ClientHello can come, or none that counts */
};

/* The next bytes; older: TLS 1.2 was agreed on, in which nothing is readable behind a ChangeCipherSpec.
 * False: a ClientHello is larger than HELLO_MOST. */
bool hello_passes(struct hello *, struct str bytes, bool older);
