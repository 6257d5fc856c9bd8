/* What a source is opened with: the ports it may use, and who it is. It knows nothing of Kubernetes, nor of
 * what stands behind a port. All borrowed until the source is freed; loop's thread. */
#pragma once

#include "api/trigger.h"
#include "base/loop.h"
#include "port/claims.h"
#include "port/fetch.h"
#include "port/http.h"
#include "port/notice.h"
#include "port/store.h"

struct cloud;
struct log_scope;

struct services {
        struct loop *loop;
        struct waker *waker;
        struct task *wake; /* made ready when the source has something to say: the pipeline's */
        const struct clock *clock;
        struct store store;   /* this Trigger's own keys */
        struct claims claims; /* for sources whose row says so. ops NULL: all may be read */
        /* for push sources: what messages refer to; completions wake the source. ops NULL: none */
        struct fetch fetch;
        /* requests to peers; completions wake whom they say. ops NULL: none */
        struct http http;
        struct http_peers peers;
        struct cloud *cloud; /* the process's; NULL: the cloud is not called */
        const struct trigger *trigger;
        const struct log_scope *log; /* of every line about this Trigger */
        struct notices notices;
        const char *secrets;  /* the folder of Secrets, NAME/KEY; NULL: none */
        const char *instance; /* stable name of this worker's slot; NULL: none */
        /* the Trigger is deleted: what was made outside is taken back, which ends in SOURCE_REMOVED */
        bool ending;
};

/* Something befell the source (port/notice.h): a log line, a counter, an event of the Trigger. */
void source_warn(const struct services *, const char *reason, uint64_t lost, const char *format, ...)
        PRINTF(4, 5);
void source_tell(const struct services *, const struct notice *);
