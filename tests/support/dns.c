#include "tests/support/dns.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"

/* RFC 1035 */
enum { HEADER = 12, TYPE_A = 1, TYPE_AAAA = 28, CLASS_IN = 1 };
enum { ANSWERED = 0x8580, NXDOMAIN = 3, TRUNCATED = 0x0200, NAME_OF_QUESTION = 0xc000 | HEADER };
enum { UDP_MOST = 512, ANSWER_MOST = 65536 };

static void put16(struct buf *b, unsigned v)
{
        buf_char(b, (char)(v >> 8));
        buf_char(b, (char)v);
}

static unsigned get16(const unsigned char *at) { return (unsigned)(at[0] << 8 | at[1]); }

static void put_answer(struct buf *b, const struct test_dns *d, bool ipv4, const void *address)
{
        size_t n = ipv4 ? 4 : 16;

        put16(b, NAME_OF_QUESTION);
        put16(b, ipv4 ? TYPE_A : TYPE_AAAA);
        put16(b, CLASS_IN);
        put16(b, d->ttl >> 16);
        put16(b, d->ttl & 0xffff);
        put16(b, (unsigned)n);
        buf_add(b, address, n);
}

static void put_addresses(struct buf *b, const struct test_dns *d, bool ipv4, const char *const *list,
                          unsigned n)
{
        for (unsigned i = 0; i < n; i++) {
                unsigned char address[16];

                assert_int_equal(inet_pton(ipv4 ? AF_INET : AF_INET6, list[i], address), 1);
                put_answer(b, d, ipv4, address);
        }
}

static void put_crowd(struct buf *b, const struct test_dns *d)
{
        unsigned first = (unsigned)d->questions * d->crowd / 2;

        for (unsigned i = 0; i < d->crowd; i++) {
                struct in_addr address = { htonl(0x7f000101 + (i + first) % d->crowd) };

                put_answer(b, d, true, &address);
        }
}

/* A question has one name, without compression. true: it is for A. */
static bool answer_to(struct test_dns *d, const unsigned char *q, bool truncated, struct buf *b)
{
        size_t after = HEADER;
        const char *const *list;
        unsigned n = 0;
        bool ipv4, crowd;

        while (q[after])
                after += q[after] + 1U;
        ipv4 = get16(q + after + 1) == TYPE_A;
        after += 5;
        crowd = ipv4 && d->crowd;
        d->questions += ipv4 && !truncated;
        list = !ipv4 ? d->aaaa : d->then && d->questions > 1 ? (const char *const[]){ d->then, NULL } : d->a;
        while (!d->missing && !d->crowd && n < TEST_DNS_ADDRESSES && list[n])
                n++;
        buf_add(b, q, 2);
        put16(b, ANSWERED | (d->missing ? NXDOMAIN : 0) | (truncated ? TRUNCATED : 0));
        put16(b, 1);
        put16(b, truncated ? 0 : crowd ? d->crowd : n);
        put16(b, 0);
        put16(b, 0);
        buf_add(b, q + HEADER, after - HEADER);
        if (crowd && !truncated)
                put_crowd(b, d);
        else if (!truncated)
                put_addresses(b, d, ipv4, list, n);
        return ipv4;
}

static void on_datagram(void *cookie, int events UNUSED)
{
        struct test_dns *d = cookie;
        struct sockaddr_in from;
        socklen_t size = sizeof(from);
        unsigned char q[UDP_MOST];
        ssize_t n;

        while ((n = recvfrom(d->fd, q, sizeof(q), 0, (struct sockaddr *)&from, &size)) > HEADER) {
                BUF_AT_END struct buf b = BUF_INIT(ANSWER_MOST);
                bool ipv4 = answer_to(d, q, d->crowd > 0, &b);

                if (d->silent || (ipv4 ? d->silent_a : d->silent_aaaa))
                        continue;
                assert_int_equal(sendto(d->fd, b.p, b.n, 0, (struct sockaddr *)&from, size), (ssize_t)b.n);
        }
}

static void close_stream(struct test_dns *d)
{
        if (!d->stream_io)
                return;
        loop_io_close(d->stream_io);
        (void)close(d->stream);
        d->stream_io = NULL;
}

/* One connection at a time is enough here. */
static void on_stream(void *cookie, int events UNUSED)
{
        struct test_dns *d = cookie;
        unsigned char q[UDP_MOST + 2];
        ssize_t n = recv(d->stream, q, sizeof(q), 0);

        if (n <= 0) {
                close_stream(d);
                return;
        }
        for (ssize_t at = 0; at + HEADER + 2 < n; at += 2 + (ssize_t)get16(q + at)) {
                BUF_AT_END struct buf b = BUF_INIT(ANSWER_MOST), framed = BUF_INIT(ANSWER_MOST + 2);

                (void)answer_to(d, q + at + 2, false, &b);
                put16(&framed, (unsigned)b.n);
                buf_str(&framed, buf_view(&b));
                assert_int_equal(send(d->stream, framed.p, framed.n, MSG_NOSIGNAL), (ssize_t)framed.n);
        }
}

static void watch_fd(struct test_dns *d, int fd, void (*on_event)(void *, int), struct loop_io **io)
{
        struct error err;

        assert_true(fd >= 0);
        if (loop_io_open(d->loop, fd, on_event, d, io, &err) < 0)
                fail_msg("%s", err.text);
        loop_io_want(*io, LOOP_READABLE);
}

static void on_connection(void *cookie, int events UNUSED)
{
        struct test_dns *d = cookie;

        assert_null(d->stream_io);
        d->stream = accept4(d->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        watch_fd(d, d->stream, on_stream, &d->stream_io);
}

/* Port 0: one that is free for datagrams and for connections. */
static bool bind_both(struct test_dns *d, struct sockaddr_in *at, uint16_t port)
{
        socklen_t size = sizeof(*at);

        at->sin_port = htons(port);
        d->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        d->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (bind(d->listener, (struct sockaddr *)at, size) == 0 && listen(d->listener, 4) == 0 &&
            getsockname(d->listener, (struct sockaddr *)at, &size) == 0 &&
            bind(d->fd, (struct sockaddr *)at, size) == 0)
                return true;
        (void)close(d->listener);
        (void)close(d->fd);
        return false;
}

void test_dns_open_at(struct test_dns *d, struct loop *loop, const char *address, uint16_t port)
{
        struct sockaddr_in at = { .sin_family = AF_INET };
        bool bound = false;

        *d = (struct test_dns){ .loop = loop };
        assert_int_equal(inet_pton(AF_INET, address, &at.sin_addr), 1);
        for (int tries = 0; tries < 100 && !bound; tries++)
                bound = bind_both(d, &at, port);
        assert_true(bound);
        watch_fd(d, d->fd, on_datagram, &d->io);
        watch_fd(d, d->listener, on_connection, &d->listener_io);
        d->port = ntohs(at.sin_port);
        (void)snprintf(d->at, sizeof(d->at), "%s:%u", address, d->port);
}

void test_dns_open(struct test_dns *d, struct loop *loop) { test_dns_open_at(d, loop, "127.0.0.1", 0); }

void test_dns_close(struct test_dns *d)
{
        loop_io_close(d->io);
        loop_io_close(d->listener_io);
        (void)close(d->fd);
        (void)close(d->listener);
        close_stream(d);
}
