#include "http/wire/url.h"

#include <arpa/inet.h>

static int invalid(struct error *err, struct str text, const char *why)
{
        return error_set(err, ERROR_INVALID, "URL \"" STR_FMT "\": %s", STR_ARG(text), why);
}

static bool parse_port(struct str s, uint16_t *port)
{
        int64_t n;

        if (!str_to_int64(s, &n) || n < 1 || n > 65535)
                return false;
        *port = (uint16_t)n;
        return true;
}

int url_parse(struct str text, struct url *out, struct error *err)
{
        struct url u = { .target = STR("/") };
        struct str rest = text, port = { 0 };

        for (size_t i = 0; i < text.n; i++)
                if ((unsigned char)text.p[i] <= ' ' || text.p[i] == 0x7f)
                        return invalid(err, text, "holds a space or control character; percent-encode it");
        if (str_starts(text, STR("https://"))) {
                u.tls = true;
                rest = (struct str){ text.p + 8, text.n - 8 };
        } else if (str_starts(text, STR("http://")))
                rest = (struct str){ text.p + 7, text.n - 7 };
        else
                return invalid(err, text, "must begin with http:// or https://");
        for (size_t i = 0; i < rest.n; i++)
                if (rest.p[i] == '/' || rest.p[i] == '?' || rest.p[i] == '#') {
                        u.target = (struct str){ rest.p + i, rest.n - i };
                        rest.n = i;
                        break;
                }
        if (u.target.p[0] == '?' || memchr(u.target.p, '#', u.target.n))
                return invalid(err, text, "needs a path before its query, and no fragment");
        if (memchr(rest.p, '@', rest.n))
                return invalid(err, text, "must not carry a user name or password");
        u.authority = rest;
        u.port = u.tls ? 443 : 80;
        if (rest.n && rest.p[0] == '[') {
                const char *end = memchr(rest.p, ']', rest.n);

                if (!end)
                        return invalid(err, text, "an IPv6 address ends with ]");
                u.host = (struct str){ rest.p + 1, (size_t)(end - rest.p) - 1 };
                rest = (struct str){ end + 1, rest.n - u.host.n - 2 };
                if (rest.n && rest.p[0] != ':')
                        return invalid(err, text, "only a port may follow the address");
                port = rest.n ? (struct str){ rest.p + 1, rest.n - 1 } : port;
        } else {
                u.host = str_cut(&rest, ':');
                port = rest;
        }
        if (port.n && !parse_port(port, &u.port))
                return invalid(err, text, "the port must be 1 to 65535");
        if (u.host.n == 0 || u.host.n > 253)
                return invalid(err, text, "names no host");
        *out = u;
        return 0;
}

bool host_is_address(const char *host)
{
        struct in6_addr space;

        return inet_pton(AF_INET, host, &space) == 1 || inet_pton(AF_INET6, host, &space) == 1;
}
