#include "base/uri.h"

static bool unreserved(char c)
{
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
               c == '.' || c == '_' || c == '~';
}

/* pchar without its escapes (RFC 3986, 3.3). */
static bool of_segment(char c) { return unreserved(c) || (c && strchr("!$&'()*+,;=:@", c)); }

void uri_segment(struct buf *b, struct str s)
{
        for (size_t i = 0; i < s.n; i++) {
                int high = s.p[i] == '%' && i + 2 < s.n ? hex_digit(s.p[i + 1]) : -1,
                    low = high >= 0 ? hex_digit(s.p[i + 2]) : -1;
                char c = low >= 0 ? (char)(high << 4 | low) : s.p[i];

                i += low >= 0 ? 2 : 0;
                if (low >= 0 ? unreserved(c) : of_segment(c))
                        buf_char(b, c);
                else
                        buf_printf(b, "%%%02X", (unsigned char)c);
        }
}

/* Without anything that the normal form could change. */
static bool is_plain(struct str path)
{
        for (size_t i = 0; i < path.n; i++)
                if (path.p[i] == '/' ? i + 1 < path.n && path.p[i + 1] == '.' : !of_segment(path.p[i]))
                        return false;
        return true;
}

static void pop(struct buf *b)
{
        while (b->n && b->p[--b->n] != '/')
                ;
}

static struct str normal(struct str path, bool merge, struct buf *space)
{
        struct str rest = { path.p + 1, path.n - 1 };
        bool last = false;

        buf_reset(space);
        if (!buf_reserve(space, 3 * path.n + 2))
                return (struct str){ 0 };
        while (!last) {
                bool dot, dots;
                size_t from = space->n;
                struct str segment;

                last = !memchr(rest.p, '/', rest.n);
                segment = str_cut(&rest, '/');
                if (merge && !segment.n && !last)
                        continue;
                buf_char(space, '/');
                uri_segment(space, segment);
                dots = str_is((struct str){ space->p + from, space->n - from }, "/..");
                dot = str_is((struct str){ space->p + from, space->n - from }, "/.");
                if (!dot && !dots)
                        continue;
                space->n = from;
                if (dots)
                        pop(space);
                if (last)
                        buf_char(space, '/');
        }
        return space->failed ? (struct str){ 0 } : (struct str){ space->p, space->n };
}

struct str uri_path(struct str path, struct buf *space)
{
        return path.n == 0 || path.p[0] != '/' || is_plain(path) ? path : normal(path, false, space);
}
struct str uri_path_merged(struct str path, struct buf *space)
{
        return path.n == 0 || path.p[0] != '/' ? path : normal(path, true, space);
}
