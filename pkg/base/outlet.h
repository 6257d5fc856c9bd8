/* Lines for a stream that others read, a pipe or a terminal, which they may stop to read at any time: a line
 * that finds no room is dropped rather than that the process waits. The first one waits a moment, so that a
 * reader that is only slow loses nothing. Owned by the caller; one thread at a time. */
#pragma once

#include "base/base.h"

struct outlet {
        int fd;
        bool stalled;     /* the last line found no room */
        bool cut;         /* nor did the rest of a line */
        uint64_t dropped; /* lines since the last one that was written; the caller resets it */
};
/* The text ends its last line. false: it was dropped, or a part of it. */
bool outlet_write(struct outlet *, struct str text);
