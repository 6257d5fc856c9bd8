#include "http/client/proxy.h"

#include <arpa/inet.h>

/* The bytes of a numeric address; 0: it is none. */
static size_t address_of(struct str text, unsigned char space[16])
{
        char copy[INET6_ADDRSTRLEN];

        if (text.n >= 2 && text.p[0] == '[' && text.p[text.n - 1] == ']')
                text = (struct str){ text.p + 1, text.n - 2 };
        if (!text.n || text.n >= sizeof(copy))
                return 0;
        memcpy(copy, text.p, text.n);
        copy[text.n] = 0;
        return inet_pton(AF_INET, copy, space) == 1 ? 4 : inet_pton(AF_INET6, copy, space) == 1 ? 16 : 0;
}

static bool in_network(struct str item, const unsigned char *host, size_t host_n)
{
        unsigned char network[16];
        struct str text = str_cut(&item, '/');
        size_t n = address_of(text, network), whole;
        int64_t bits = (int64_t)n * 8;
        unsigned mask;

        if (n != host_n || (item.n && (!str_to_int64(item, &bits) || bits < 0 || bits > (int64_t)n * 8)))
                return false;
        whole = (size_t)bits / 8;
        mask = bits % 8 ? 0xffU << (8 - bits % 8) & 0xff : 0;
        return memcmp(network, host, whole) == 0 &&
               (!mask || (network[whole] & mask) == (host[whole] & mask));
}

static bool in_domain(struct str item, struct str host)
{
        if (item.n && item.p[0] == '.')
                item = (struct str){ item.p + 1, item.n - 1 };
        if (!item.n || host.n < item.n ||
            !str_equal_nocase((struct str){ host.p + host.n - item.n, item.n }, item))
                return false;
        return host.n == item.n || host.p[host.n - item.n - 1] == '.';
}

bool http_no_proxy(struct str list, struct str host)
{
        unsigned char address[16];
        size_t n = address_of(host, address);

        if (host.n && host.p[host.n - 1] == '.')
                host.n--;
        while (list.n) {
                struct str item = str_trim(str_cut(&list, ','));

                if (str_is(item, "*") || (n ? in_network(item, address, n) : in_domain(item, host)))
                        return true;
        }
        return false;
}
