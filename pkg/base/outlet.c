#include "base/outlet.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <unistd.h>

enum { PATIENCE_MS = 200 };

/* Is there room for so much that a write does not wait? For files there always is. */
static bool has_room(struct outlet *o)
{
        struct pollfd p = { .fd = o->fd, .events = POLLOUT };
        int n;

        while ((n = poll(&p, 1, o->stalled ? 0 : PATIENCE_MS)) < 0 && errno == EINTR)
                ;
        return n != 0; /* one that is broken is told of by the write */
}

/* At most so many bytes of a pipe's as poll has promised. */
static bool put(struct outlet *o, struct str *rest)
{
        ssize_t n;

        if (!has_room(o)) {
                o->stalled = true;
                return false;
        }
        n = write(o->fd, rest->p, MIN_OF(rest->n, (size_t)PIPE_BUF));
        if (n < 0 && errno == EAGAIN) {
                o->stalled = true;
                return false;
        }
        if (n < 0 && errno != EINTR)
                return false;
        if (n > 0)
                *rest = (struct str){ rest->p + n, rest->n - (size_t)n };
        return true;
}

bool outlet_write(struct outlet *o, struct str text)
{
        struct str end = STR("\n"), rest = text;

        if (o->cut && !put(o, &end)) {
                o->dropped++;
                return false;
        }
        o->cut = false;
        while (rest.n)
                if (!put(o, &rest)) {
                        o->cut = rest.n < text.n;
                        o->dropped++;
                        return false;
                }
        o->stalled = false;
        return true;
}
