/* Port: where positions live that no broker keeps (timers' last ticks, tokens, watermarks). Implemented by
 * pkg/checkpoint (files), pkg/kube (a ConfigMap) and the simulator. Nothing blocks; requests are their
 * owners'. Loop's thread. */
#pragma once

#include "base/buf.h"
#include "port/request.h"

/* Zeroed before its first use. ERROR_CONFLICT: someone else writes this key, stop. */
struct store_request {
        struct request request;
        bool found;       /* get: there was a value */
        struct buf value; /* get: kept until it is used again, or released */
        struct buf key;   /* the store's own */
};
struct store_ops {
        void (*get)(void *cookie, struct store_request *, struct str key);
        void (*put)(void *cookie, struct store_request *, struct str key, struct str value);
        void (*cancel)(void *cookie, struct store_request *); /* it is busy */
};
/* One user's keys. */
struct store {
        const struct store_ops *ops;
        void *cookie;
        /* Others may write the keys, too, and each write is dear: so far apart they are to be. 0: they are
         * this process's alone. */
        usec apart;
};

/* The request is idle; key and value are copied. */
static inline void store_get(const struct store *s, struct store_request *r, struct str key)
{
        request_begin(&r->request);
        s->ops->get(s->cookie, r, key);
}
/* Replaces the key's value; done when it is durable. Puts of one key are done in order. */
static inline void store_put(const struct store *s, struct store_request *r, struct str key, struct str value)
{
        request_begin(&r->request);
        s->ops->put(s->cookie, r, key, value);
}
/* It is idle and holds nothing afterwards. A put that was under way is made, or is not. */
static inline void store_release(const struct store *s, struct store_request *r)
{
        if (r->request.state == REQUEST_BUSY)
                s->ops->cancel(s->cookie, r);
        request_drop(&r->request);
        buf_done(&r->value);
        buf_done(&r->key);
}
