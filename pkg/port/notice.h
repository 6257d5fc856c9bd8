/* What befalls a source, which people should know and which stops nothing: records that are gone, a position
 * that nobody takes. A source says it once and forgets it; who stands behind the port logs it, counts it and,
 * in a cluster, writes an event of the Trigger. Nothing waits and nothing is called back. Loop's thread. */
#pragma once

#include "base/base.h"

struct notice {
        const char *reason; /* in CamelCase, one of a few constants: "RecordsExpired" */
        const char *text;   /* for people: what, where, and what becomes of it */
        uint64_t lost;      /* records that are gone before they could be delivered; 0: none are */
        uint64_t times;     /* that it happened, since it was told last */
};

enum { NOTICE_TEXT_MOST = 512 };

/* What is told is borrowed until tell returns. */
struct notices {
        void (*tell)(void *cookie, const struct notice *); /* NULL: nobody listens */
        void *cookie;
};
