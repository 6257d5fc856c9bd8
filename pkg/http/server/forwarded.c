#include "http/server/forwarded.h"

#include <arpa/inet.h>

#include "http/wire/codec.h"

static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

static bool parse_plain(struct str s, uint8_t address[16])
{
        char text[INET6_ADDRSTRLEN];

        if (!s.n || s.n >= sizeof(text) || memchr(s.p, 0, s.n))
                return false;
        memcpy(text, s.p, s.n);
        text[s.n] = 0;
        if (memchr(s.p, ':', s.n))
                return inet_pton(AF_INET6, text, address) == 1;
        memcpy(address, mapped, sizeof(mapped));
        return inet_pton(AF_INET, text, address + sizeof(mapped)) == 1;
}

static bool is_port(struct str s)
{
        int64_t port;

        return s.n && s.p[0] != '+' && s.p[0] != '-' && str_to_int64(s, &port) && port <= 65535;
}

bool address_parse(struct str s, uint8_t address[16])
{
        uint8_t parsed[16];
        struct str host = s, rest = { 0 };

        if (!s.n)
                return false;
        if (s.p[0] == '[') {
                rest = (struct str){ s.p + 1, s.n - 1 };
                host = str_cut(&rest, ']');
                if (host.n + 2 > s.n || !memchr(host.p, ':', host.n) ||
                    (rest.n && (rest.p[0] != ':' || !is_port((struct str){ rest.p + 1, rest.n - 1 }))))
                        return false;
        } else if (memchr(s.p, '.', s.n) && memchr(s.p, ':', s.n) == memrchr(s.p, ':', s.n) &&
                   memchr(s.p, ':', s.n)) {
                rest = s;
                host = str_cut(&rest, ':');
                if (!is_port(rest))
                        return false;
        }
        if (!parse_plain(host, parsed))
                return false;
        memcpy(address, parsed, sizeof(parsed));
        return true;
}

void address_format(struct buf *out, const uint8_t address[16])
{
        char text[INET6_ADDRSTRLEN];

        if (memcmp(address, mapped, sizeof(mapped)) != 0) {
                buf_text(out, inet_ntop(AF_INET6, address, text, sizeof(text)) ? text : "?");
                return;
        }
        /* Each request needs it, and inet_ntop() would format it by sprintf(). */
        for (size_t i = sizeof(mapped); i < 16; i++) {
                if (i > sizeof(mapped))
                        buf_char(out, '.');
                buf_int(out, address[i]);
        }
}

int network_parse(struct str s, struct network *out, struct error *err)
{
        struct str rest = s, address = str_cut(&rest, '/');
        struct network n = { 0 };
        int64_t bits;
        int most;

        if (!parse_plain(address, n.address))
                return error_set(err, ERROR_INVALID,
                                 "\"" STR_FMT "\" is no network: expected ADDRESS or ADDRESS/BITS",
                                 STR_ARG(s));
        most = memchr(address.p, ':', address.n) ? 128 : 32;
        bits = most;
        if (address.n < s.n && (!str_to_int64(rest, &bits) || bits < 0 || bits > most))
                return error_set(err, ERROR_INVALID, "\"" STR_FMT "\" is no network: expected 0 to %d bits",
                                 STR_ARG(s), most);
        n.bits = (uint8_t)(bits + 128 - most);
        *out = n;
        return 0;
}

bool network_has(const struct network *n, const uint8_t address[16])
{
        size_t whole = n->bits / 8u, rest = n->bits % 8u;

        return memcmp(n->address, address, whole) == 0 &&
               (!rest || ((n->address[whole] ^ address[whole]) >> (8 - rest)) == 0);
}

bool networks_have(const struct network *trusted, size_t n, const uint8_t address[16])
{
        for (size_t i = 0; i < n; i++)
                if (network_has(&trusted[i], address))
                        return true;
        return false;
}

/* Cuts s at its last comma: returns what stands behind. */
static struct str cut_last(struct str *s)
{
        const char *comma = memrchr(s->p, ',', s->n);
        struct str last = *s;

        if (comma) {
                last = (struct str){ comma + 1, (size_t)(s->p + s->n - comma - 1) };
                s->n = (size_t)(comma - s->p);
        } else
                s->n = 0;
        return str_trim(last);
}

/* The last header of that name among the first *pairs, whose number goes down to those before it. */
static bool header_before(const struct http_message *m, struct str name, size_t *pairs, struct str *value)
{
        struct str rest = http_head(m), key, v;
        size_t at = SIZE_MAX;

        for (size_t i = 0; i < *pairs && http_head_next(&rest, &key, &v); i++)
                if (str_equal_nocase(key, name)) {
                        at = i;
                        *value = v;
                }
        *pairs = at;
        return at != SIZE_MAX;
}

void forwarded_client(const struct http_message *m, const struct network *trusted, size_t n,
                      uint8_t address[16])
{
        size_t pairs = SIZE_MAX;
        struct str entries;

        while (networks_have(trusted, n, address) &&
               header_before(m, STR("X-Forwarded-For"), &pairs, &entries))
                do {
                        if (!address_parse(cut_last(&entries), address) ||
                            !networks_have(trusted, n, address))
                                return;
                } while (entries.n);
}

bool forwarded_https(const struct http_message *m)
{
        size_t pairs = SIZE_MAX;
        struct str entries;

        return header_before(m, STR("X-Forwarded-Proto"), &pairs, &entries) &&
               str_equal_nocase(cut_last(&entries), STR("https"));
}
