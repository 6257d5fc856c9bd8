/* For tests: a name server on loopback that answers each name alike, by UDP and, where the answer is too
 * long for that, by TCP. It runs on the test's loop and owns its sockets. */
#pragma once

#include "base/loop.h"

enum { TEST_DNS_ADDRESSES = 4 };
struct test_dns {
        /* What is answered. */
        const char *a[TEST_DNS_ADDRESSES], *aaaa[TEST_DNS_ADDRESSES]; /* NULL: none */
        const char *then;           /* the A from the second question on; NULL: as before */
        unsigned crowd;             /* instead: so many A of 127.0.0.0/8, in another order each time */
        unsigned ttl;               /* s */
        bool missing;               /* NXDOMAIN */
        bool silent;                /* nothing at all */
        bool silent_a, silent_aaaa; /* nothing when asked for these */
        size_t questions;           /* for A; one that is repeated by TCP counts once */
        char at[32];                /* "127.0.0.1:PORT" */
        uint16_t port;
        /* its own */
        struct loop *loop;
        int fd, listener, stream;
        struct loop_io *io, *listener_io, *stream_io;
};

void test_dns_open(struct test_dns *, struct loop *);
/* At another address of loopback, on that port. */
void test_dns_open_at(struct test_dns *, struct loop *, const char *address, uint16_t port);
void test_dns_close(struct test_dns *);
